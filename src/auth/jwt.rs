//! JSON Web Tokens: signed by a key of a file (JWKS), and checked against the
//! rules of the settings.
//!
//! ring checks the signatures. Each key checks one algorithm, which its kind
//! decides; a token whose header names another one finds no key. So a token
//! cannot choose how it is checked. `docs/adr/0074-jwt-on-ring.md` says why no
//! crate for tokens is used.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    caller::{Caller, MAX_GROUPS, Method},
    follow::FileProblem,
};
use crate::error::CallerProblem;

/// How far this machine's clock and that of the issuer may be apart: more than
/// NTP leaves, and little beside the lifetime of a token.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// Most keys in a file: an issuer has two or three.
const MAX_KEYS: usize = 64;
/// Sizes in bytes of RSA keys that ring accepts.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Bytes of a coordinate of P-256, and of an Ed25519 key.
const POINT_BYTES: usize = 32;

/// What a token must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    /// Its `iss`.
    pub issuer: String,
    /// One of its `aud`.
    pub audience: String,
    /// The claim that is the principal.
    pub principal_claim: String,
}

/// The algorithms that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    fn of(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A public key. Its kind decides its algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    key: PublicKey,
}

/// The keys of an issuer.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    ignored: usize,
}

/// A key as the file has it (RFC 7517).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key, if it is for signatures of an accepted algorithm.
    fn public_key(&self) -> Option<PublicKey> {
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let point = |text| bytes(text).filter(|bytes| bytes.len() == POINT_BYTES);
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (number(bytes(&self.n)?), number(bytes(&self.e)?));
                RSA_BYTES.contains(&n.len()).then_some(())?;
                PublicKey::Rsa { n, e }
            }
            ("EC", Some("P-256")) => {
                // The uncompressed form of SEC 1.
                let mut both = vec![4];
                both.extend(point(&self.x)?);
                both.extend(point(&self.y)?);
                PublicKey::P256(both)
            }
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(point(&self.x)?),
            _ => return None,
        };
        let algorithm = self.alg.as_deref().map(Algorithm::of);
        algorithm
            .is_none_or(|algorithm| algorithm == Some(key.algorithm()))
            .then_some(key)
    }
}

/// A big-endian number without leading zeros, as ring wants it.
fn number(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

impl KeySet {
    /// Parses a JWKS. Keys of other kinds, for other uses or other algorithms
    /// are ignored.
    ///
    /// # Errors
    /// It is not a JWKS, none of its keys can be used, or two cannot be told
    /// from each other.
    pub fn parse(text: &[u8]) -> Result<Self, FileProblem> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|error| FileProblem::NotKeySet {
            line: error.line(),
            column: error.column(),
        })?;
        if set.keys.len() > MAX_KEYS {
            return Err(FileProblem::TooManyKeys);
        }
        let (mut keys, mut ignored): (Vec<Key>, _) = (Vec::new(), 0);
        for value in set.keys {
            let jwk = serde_json::from_value::<Jwk>(value).ok();
            let Some((jwk, key)) = jwk.and_then(|jwk| jwk.public_key().map(|key| (jwk, key)))
            else {
                ignored += 1;
                continue;
            };
            let (id, algorithm) = (jwk.kid, key.algorithm());
            let is_same = |known: &Key| known.id == id && known.key.algorithm() == algorithm;
            if id.is_some() && keys.iter().any(is_same) {
                return Err(FileProblem::SameKey);
            }
            keys.push(Key { id, key });
        }
        if keys.is_empty() {
            return Err(FileProblem::NoUsableKey);
        }
        Ok(Self { keys, ignored })
    }

    /// How many keys are used.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.keys.len()
    }

    /// How many keys of the file are not used.
    #[must_use]
    pub const fn ignored(&self) -> usize {
        self.ignored
    }

    /// The key that a header names. Without an id it is the only one of the
    /// algorithm.
    fn find(&self, header: &Header, algorithm: Algorithm) -> Option<&PublicKey> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.key.algorithm() == algorithm)
            .filter(|key| header.kid.is_none() || key.id == header.kid);
        let first = fitting.next()?;
        fitting.next().is_none().then_some(&first.key)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    crit: Option<Value>,
}

/// Checks a token, and returns whom it speaks for.
///
/// # Errors
/// The first thing that is wrong: the signature, then the claims.
pub fn verify(
    token: &str,
    keys: &KeySet,
    rules: &JwtRules,
    now: SystemTime,
) -> Result<Caller, CallerProblem> {
    let claims = verify_signature(token, keys)?;
    let is = |claim: &str, wanted: &str| claims.get(claim).and_then(Value::as_str) == Some(wanted);
    if !is("iss", &rules.issuer) {
        return Err(CallerProblem::Issuer);
    }
    let among_audiences = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&rules.audience)),
        _ => is("aud", &rules.audience),
    };
    if !among_audiences {
        return Err(CallerProblem::Audience);
    }
    let expires = time(claims.get("exp"))?.ok_or(CallerProblem::Malformed)?;
    if expires + LEEWAY <= now {
        return Err(CallerProblem::Expired);
    }
    if time(claims.get("nbf"))?.is_some_and(|from| from > now + LEEWAY) {
        return Err(CallerProblem::NotYetValid);
    }
    let principal = claims.get(&rules.principal_claim).and_then(Value::as_str);
    let principal = principal.ok_or(CallerProblem::Malformed)?;
    let groups = groups(claims.get("groups")).ok_or(CallerProblem::Malformed)?;
    Caller::new(principal, groups, Method::Jwt, Some(expires)).map_err(|_| CallerProblem::Malformed)
}

fn verify_signature(token: &str, keys: &KeySet) -> Result<Map<String, Value>, CallerProblem> {
    let malformed = CallerProblem::Malformed;
    let (message, signature) = token.rsplit_once('.').ok_or(malformed)?;
    let (header, payload) = message.split_once('.').ok_or(malformed)?;
    // A third dot is no character of base64.
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
    let (header, payload) = (decode(header)?, decode(payload)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| malformed)?;
    if header.crit.is_some() {
        return Err(malformed);
    }
    let algorithm = Algorithm::of(&header.alg).ok_or(CallerProblem::Signature)?;
    let key = keys.find(&header, algorithm).ok_or(CallerProblem::Key)?;
    if !key.verifies(message.as_bytes(), &decode(signature)?) {
        return Err(CallerProblem::Signature);
    }
    serde_json::from_slice(&payload).map_err(|_| malformed)
}

/// A time of a claim, in seconds since 1970, with or without a fraction.
fn time(claim: Option<&Value>) -> Result<Option<SystemTime>, CallerProblem> {
    let Some(claim) = claim else { return Ok(None) };
    let seconds = claim.as_f64().ok_or(CallerProblem::Malformed)?;
    let since = Duration::try_from_secs_f64(seconds.max(0.0));
    let since = since.map_err(|_| CallerProblem::Malformed)?;
    // So far ahead that no leeway fits after it: no time that anybody means.
    let time = UNIX_EPOCH.checked_add(since);
    let time = time.filter(|time| time.checked_add(2 * LEEWAY).is_some());
    time.map(Some).ok_or(CallerProblem::Malformed)
}

/// The groups of a claim: none, or a list of texts; `None` if it is neither.
fn groups(claim: Option<&Value>) -> Option<Vec<Arc<str>>> {
    let groups = match claim {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(Value::Array(groups)) if groups.len() <= MAX_GROUPS => groups,
        Some(_) => return None,
    };
    groups
        .iter()
        .map(|group| group.as_str().map(Arc::from))
        .collect()
}
