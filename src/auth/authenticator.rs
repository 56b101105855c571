//! Decides who sent a request: by its `authorization` header if it has one,
//! else by the certificate of its connection.
//!
//! The header comes first because it is the more precise of the two: a gateway
//! with a certificate of its own hands on the tokens of its users. A header that
//! is not valid is refused, whatever the certificate says.
//!
//! Cost: a credential is checked once for each connection and value of the
//! header, and then compared byte for byte. Signatures are checked once for all
//! connections, within the bounds of a cache.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use quick_cache::{Weighter, sync::Cache};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{
    caller::{Caller, Method},
    certificate::{self, Certificate},
    follow::{FileProblem, Followed},
    jwt::{self, JwtRules, KeySet},
    keys::{KEY_PREFIX, Keys},
};
use crate::{
    error::CallerProblem,
    telemetry::{Kind, Metrics},
};

/// Longest value of the header `authorization`, in bytes: half of what a request
/// may have of headers. Tokens have 1 to 2 KiB, and a few KiB with many groups.
const MAX_HEADER_BYTES: usize = 8 << 10;
/// Longest value that a connection remembers, in bytes. There may be thousands
/// of connections; a longer one is looked up among the verified tokens.
const MAX_REMEMBERED_BYTES: usize = 2 << 10;
/// Memory of verified tokens, in bytes, and about how many they are.
const VERIFIED_BYTES: u64 = 4 << 20;
const VERIFIED_TOKENS: usize = 4096;
/// Memory of a verified token beside its caller's texts.
const VERIFIED_OVERHEAD: u64 = 256;
/// Keys that are compared in a few microseconds.
const FEW_KEYS: usize = 256;
/// How often the files are read.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Longest sleep of a stream that waits for the end of its token: the clock may
/// be set meanwhile.
const EXPIRY_TICK: Duration = Duration::from_secs(60);

/// How callers are authenticated: the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthSettings {
    /// By the certificate of the connection.
    pub mtls: bool,
    /// By the keys of this file.
    pub keys_file: Option<PathBuf>,
    /// By tokens.
    pub jwt: Option<JwtSettings>,
    /// Members that are administrators.
    pub admins: Vec<String>,
    /// Names of certificates that may connect; empty: all of the authority.
    pub client_names: Vec<String>,
}

impl AuthSettings {
    /// Whether callers are authenticated at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.mtls || self.accepts_headers()
    }

    /// Whether callers may be authenticated by a header, so that a connection
    /// needs no certificate.
    #[must_use]
    pub const fn accepts_headers(&self) -> bool {
        self.keys_file.is_some() || self.jwt.is_some()
    }
}

/// How tokens are checked: the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// File of the issuer's keys.
    pub jwks_file: PathBuf,
    /// What a token must say.
    pub rules: JwtRules,
}

/// A file of keys that cannot be used at start.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {}: {source}", .path.display())]
pub struct AuthFileError {
    setting: &'static str,
    path: PathBuf,
    source: FileProblem,
}

/// What a connection knows of its caller.
#[derive(Default)]
pub struct ConnectionIdentity {
    certificate: Certificate,
    last: Mutex<Option<Remembered>>,
}

/// The last credential of a connection that was valid.
struct Remembered {
    /// The value of the header; empty: the certificate.
    header: Box<[u8]>,
    /// Number of the files' contents that it was checked with.
    generation: u64,
    caller: Caller,
}

impl ConnectionIdentity {
    /// A connection with this certificate.
    #[must_use]
    pub fn new(certificate: Certificate) -> Self {
        Self {
            certificate,
            last: Mutex::default(),
        }
    }

    fn recall(&self, header: &[u8], generation: u64) -> Option<Caller> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref()?;
        (*last.header == *header && last.generation == generation).then(|| last.caller.clone())
    }

    fn remember(&self, header: &[u8], generation: u64, caller: &Caller) {
        if header.len() > MAX_REMEMBERED_BYTES {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Remembered {
            header: header.into(),
            generation,
            caller: caller.clone(),
        });
    }
}

/// Of a token that was verified: its hash, with the number of the files' contents that it was
/// checked with.
type VerifiedKey = [u8; 32];

fn verified_key(token: &str, generation: u64) -> VerifiedKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(token.as_bytes());
    *hasher.finalize().as_bytes()
}

#[derive(Clone)]
struct VerifiedBytes;

impl Weighter<VerifiedKey, Caller> for VerifiedBytes {
    fn weight(&self, _: &VerifiedKey, caller: &Caller) -> u64 {
        let groups: usize = caller.groups().iter().map(|it| it.len() + 16).sum();
        VERIFIED_OVERHEAD + (caller.principal().len() + groups) as u64
    }
}

fn lives(caller: &Caller) -> bool {
    let now = SystemTime::now();
    caller.expires().is_none_or(|expires| now < expires)
}

/// A credential of a header, and what it is checked with.
enum Credential<'a> {
    Key(&'a str, Arc<Keys>),
    Token(&'a str, &'a JwtRules, Arc<KeySet>),
}

/// Checks credentials.
pub struct Authenticator {
    mtls: bool,
    admins: Arc<[String]>,
    client_names: Vec<String>,
    keys: Option<Followed<Keys>>,
    jwt: Option<(JwtRules, Followed<KeySet>)>,
    verified: Cache<VerifiedKey, Caller, VerifiedBytes>,
    /// Grows when the contents of a file have changed: what was remembered with
    /// a smaller one is checked again.
    generation: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Reads the files; `None`: authentication is off.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn load(
        settings: &AuthSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, AuthFileError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let admins: Arc<[String]> = settings.admins.clone().into();
        let keys = settings.keys_file.as_ref().map(|path| {
            let admins = Arc::clone(&admins);
            let loaded = Followed::load(path, move |text| Keys::parse(text, &admins));
            loaded.map_err(|source| wrong("keys-file", path, source))
        });
        let jwt = settings.jwt.as_ref().map(|jwt| {
            let path = &jwt.jwks_file;
            let loaded = Followed::load(path, KeySet::parse);
            let loaded = loaded.map_err(|source| wrong("jwt-jwks-file", path, source))?;
            Ok((jwt.rules.clone(), loaded))
        });
        Ok(Some(Arc::new(Self {
            mtls: settings.mtls,
            admins,
            client_names: settings.client_names.clone(),
            keys: keys.transpose()?,
            jwt: jwt.transpose()?,
            verified: Cache::with_weighter(VERIFIED_TOKENS, VERIFIED_BYTES, VerifiedBytes),
            generation: watch::Sender::new(0),
            metrics,
        })))
    }

    /// Who sent a request with these headers on this connection. Waits for `turn` before it
    /// checks what takes some tens of microseconds, right or wrong: a token whose signature
    /// was not checked yet, or a key among many.
    ///
    /// # Errors
    /// Why that is not known. Counted.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionIdentity,
        turn: impl Future<Output = ()>,
    ) -> Result<Caller, CallerProblem> {
        let found = match single_header(headers) {
            Err(problem) => Err(problem),
            Ok(header) => match self.recall(header, connection) {
                Ok(Some(caller)) => Ok(caller),
                Ok(None) => {
                    turn.await;
                    // Another call may have had the same credential verified meanwhile.
                    self.check(header, connection)
                }
                Err(problem) => Err(problem),
            },
        };
        found.inspect_err(|problem| self.count_refusal(*problem))
    }

    fn count_refusal(&self, problem: CallerProblem) {
        let kind = Kind {
            kind: problem.name(),
        };
        self.metrics.auth_refusals.get_or_create(&kind).inc();
    }

    fn check(
        &self,
        header: Option<&HeaderValue>,
        connection: &ConnectionIdentity,
    ) -> Result<Caller, CallerProblem> {
        match self.recall(header, connection)? {
            Some(caller) => Ok(caller),
            None => self.verify(header, connection),
        }
    }

    /// The caller if little work shows it; `None`: see `verify`.
    fn recall(
        &self,
        header: Option<&HeaderValue>,
        connection: &ConnectionIdentity,
    ) -> Result<Option<Caller>, CallerProblem> {
        let header = header.map_or(&b""[..], HeaderValue::as_bytes);
        let generation = *self.generation.borrow();
        let remembered = connection.recall(header, generation);
        if let Some(caller) = remembered.filter(lives) {
            return Ok(Some(caller));
        }
        self.check_name(&connection.certificate)?;
        let found = if header.is_empty() {
            Some(self.by_certificate(&connection.certificate)?)
        } else {
            match self.credential(header)? {
                Credential::Key(key, keys) if keys.count() <= FEW_KEYS => {
                    Some(keys.find(key).cloned().ok_or(CallerProblem::Key)?)
                }
                Credential::Key(..) => None,
                Credential::Token(token, ..) => {
                    let verified = self.verified.get(&verified_key(token, generation));
                    verified.filter(lives)
                }
            }
        };
        if let Some(caller) = &found {
            connection.remember(header, generation, caller);
        }
        Ok(found)
    }

    /// The caller whom a header shows, whatever work that is.
    fn verify(
        &self,
        header: Option<&HeaderValue>,
        connection: &ConnectionIdentity,
    ) -> Result<Caller, CallerProblem> {
        let header = header.map_or(&b""[..], HeaderValue::as_bytes);
        let generation = *self.generation.borrow();
        let caller = match self.credential(header)? {
            Credential::Key(key, keys) => keys.find(key).cloned().ok_or(CallerProblem::Key)?,
            Credential::Token(token, rules, keys) => {
                let check = || {
                    self.metrics.auth_verifications.inc();
                    let caller = jwt::verify(token, &keys, rules, SystemTime::now())?;
                    Ok(caller.with_admins(&self.admins))
                };
                // Calls with the same new token wait for the first of them, some 50 us: one
                // signature is checked, and not one for each worker.
                let key = verified_key(token, generation);
                let caller = self.verified.get_or_insert_with(&key, check)?;
                // Within the leeway behind its end it is checked each time.
                if lives(&caller) { caller } else { check()? }
            }
        };
        connection.remember(header, generation, &caller);
        Ok(caller)
    }

    /// What the header holds, and what it is checked with.
    fn credential<'a>(&'a self, header: &'a [u8]) -> Result<Credential<'a>, CallerProblem> {
        let credential = bearer(header).ok_or(CallerProblem::Malformed)?;
        if credential.starts_with(KEY_PREFIX) {
            let keys = self.keys.as_ref().ok_or(CallerProblem::Malformed)?;
            Ok(Credential::Key(credential, keys.current()))
        } else {
            let (rules, keys) = self.jwt.as_ref().ok_or(CallerProblem::Malformed)?;
            Ok(Credential::Token(credential, rules, keys.current()))
        }
    }

    /// Refuses certificates whose name is not in the list, whatever else the
    /// request carries.
    fn check_name(&self, certificate: &Certificate) -> Result<(), CallerProblem> {
        if self.client_names.is_empty() {
            return Ok(());
        }
        let allowed = |name: &str| {
            let mut names = self.client_names.iter();
            names.any(|allowed| certificate::matches(name, allowed))
        };
        match certificate {
            Certificate::Named(name) if !allowed(name) => Err(CallerProblem::Certificate),
            Certificate::Unnamed => Err(CallerProblem::Certificate),
            Certificate::Named(_) | Certificate::None => Ok(()),
        }
    }

    fn by_certificate(&self, certificate: &Certificate) -> Result<Caller, CallerProblem> {
        match certificate {
            Certificate::Named(name) if self.mtls => {
                let caller = Caller::new(name, Vec::new(), Method::Mtls, None);
                let caller = caller.map_err(|_| CallerProblem::Certificate)?;
                Ok(caller.with_admins(&self.admins))
            }
            Certificate::Unnamed if self.mtls => Err(CallerProblem::Certificate),
            _ => Err(CallerProblem::Missing),
        }
    }

    /// Completes when the caller of a stream is not known any more: its token
    /// has expired, or its key is not in the file any more. Counted.
    pub async fn until_unknown(
        self: Arc<Self>,
        header: Option<HeaderValue>,
        connection: Arc<ConnectionIdentity>,
        caller: Caller,
    ) -> CallerProblem {
        let problem = self.watch_credential(header, &connection, &caller).await;
        self.count_refusal(problem);
        problem
    }

    async fn watch_credential(
        &self,
        header: Option<HeaderValue>,
        connection: &ConnectionIdentity,
        caller: &Caller,
    ) -> CallerProblem {
        let mut generation = self.generation.subscribe();
        loop {
            if let Err(problem) = self.check(header.as_ref(), connection) {
                return problem;
            }
            let left = match caller
                .expires()
                .map(|at| at.duration_since(SystemTime::now()))
            {
                None => EXPIRY_TICK,
                Some(Ok(left)) if !left.is_zero() => left.min(EXPIRY_TICK),
                Some(_) => return CallerProblem::Expired,
            };
            tokio::select! {
                () = sleep(left) => {}
                // It cannot fail: `self` has the sender.
                _ = generation.changed() => {}
            }
        }
    }

    /// Reads the files again and again. Contents that cannot be used are logged
    /// and counted once; those before stay in force.
    pub async fn follow(self: Arc<Self>) {
        loop {
            sleep(RELOAD_INTERVAL).await;
            let files = Arc::clone(&self);
            // A panic there is logged by its hook.
            let _ = spawn_blocking(move || files.reload()).await;
        }
    }

    fn reload(&self) {
        if let Some(keys) = &self.keys {
            self.report("keys-file", keys, keys.reload(), |keys| (keys.count(), 0));
        }
        if let Some((_, keys)) = &self.jwt {
            self.report("jwt-jwks-file", keys, keys.reload(), |keys| {
                (keys.count(), keys.ignored())
            });
        }
    }

    fn report<T>(
        &self,
        setting: &'static str,
        file: &Followed<T>,
        outcome: Option<Result<(), FileProblem>>,
        count: impl Fn(&T) -> (usize, usize),
    ) {
        let kind = match outcome {
            None => return,
            Some(Ok(())) => {
                self.generation.send_modify(|generation| *generation += 1);
                let (keys, ignored) = count(&file.current());
                tracing::info!(setting, keys, ignored, "a changed file of keys is in force");
                "loaded"
            }
            Some(Err(problem)) => {
                tracing::error!(
                    setting,
                    path = %file.path().display(),
                    %problem,
                    "a changed file of keys cannot be used; the one before stays in force"
                );
                "failed"
            }
        };
        let reloads = self.metrics.auth_reloads.get_or_create(&Kind { kind });
        reloads.inc();
    }
}

fn wrong(setting: &'static str, path: &std::path::Path, source: FileProblem) -> AuthFileError {
    AuthFileError {
        setting,
        path: path.to_owned(),
        source,
    }
}

/// The one `authorization` header; `None` if there is none.
fn single_header(headers: &HeaderMap) -> Result<Option<&HeaderValue>, CallerProblem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // An empty value is a header, too, and no certificate stands in for it.
    if values.next().is_some() || value.is_empty() || value.len() > MAX_HEADER_BYTES {
        return Err(CallerProblem::Malformed);
    }
    Ok(Some(value))
}

/// What follows the scheme `Bearer`: ASCII without white space.
fn bearer(header: &[u8]) -> Option<&str> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, credential) = header.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let credential = credential.trim_ascii_start();
    let is_plain = !credential.is_empty() && credential.iter().all(u8::is_ascii_graphic);
    is_plain.then(|| str::from_utf8(credential).ok())?
}
