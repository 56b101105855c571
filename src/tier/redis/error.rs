//! Errors of Redis: their kinds, their texts without secrets, and the log and
//! metrics that show them.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fred::error::{Error as FredError, ErrorKind as FredKind};
use tokio::time::Instant;

use crate::telemetry::{Kind, Metrics};

/// Pause between two log lines about errors of one kind: enough to see that it
/// lasts, few enough to leave on for weeks.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Longest error text that is kept, in bytes.
const MAX_TEXT: usize = 200;

/// Kinds of errors, as the label `kind` of `shared_errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// No connection: refused, unreachable, name not found, closed.
    Connection,
    /// The TLS handshake failed.
    Tls,
    /// No answer in time.
    Timeout,
    /// The password or user is wrong or missing.
    Auth,
    /// The user lacks a permission.
    NoPermission,
    /// The server is a replica.
    ReadOnly,
    /// The server is out of memory for new entries.
    OutOfMemory,
    /// Another node owns the slot.
    Moved,
    /// The slot is being migrated.
    Ask,
    /// The cluster does not serve the slot.
    ClusterDown,
    /// The server is loading its data set, busy, or without its master.
    Loading,
    /// The server is not a cluster node, or knows no slots.
    NotCluster,
    /// Any other error reply.
    Other,
}

impl ErrorKind {
    const ALL: [Self; 13] = [
        Self::Connection,
        Self::Tls,
        Self::Timeout,
        Self::Auth,
        Self::NoPermission,
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Moved,
        Self::Ask,
        Self::ClusterDown,
        Self::Loading,
        Self::NotCluster,
        Self::Other,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Auth => "auth",
            Self::NoPermission => "noperm",
            Self::ReadOnly => "readonly",
            Self::OutOfMemory => "oom",
            Self::Moved => "moved",
            Self::Ask => "ask",
            Self::ClusterDown => "clusterdown",
            Self::Loading => "loading",
            Self::NotCluster => "not_cluster",
            Self::Other => "other",
        }
    }

    /// The node works, but another one holds the key now or soon.
    pub(super) const fn is_redirection(self) -> bool {
        matches!(self, Self::Moved | Self::Ask)
    }

    /// The kind of an error reply, by its first word.
    fn of_reply(text: &str) -> Option<Self> {
        let kind = match text.split_whitespace().next()? {
            "MOVED" => Self::Moved,
            "ASK" | "TRYAGAIN" => Self::Ask,
            "CLUSTERDOWN" => Self::ClusterDown,
            "READONLY" => Self::ReadOnly,
            "OOM" => Self::OutOfMemory,
            "NOPERM" => Self::NoPermission,
            "NOAUTH" | "WRONGPASS" => Self::Auth,
            "LOADING" | "MASTERDOWN" | "BUSY" => Self::Loading,
            "ERR" if text.contains("AUTH") || text.contains("invalid password") => Self::Auth,
            "ERR" if text.contains("cluster support disabled") => Self::NotCluster,
            "ERR" | "MISCONF" | "NOREPLICAS" | "NOPROTO" | "WRONGTYPE" => Self::Other,
            _ => return None,
        };
        Some(kind)
    }
}

/// An error of a server or of the connection to it.
///
/// fred's error is not kept as a source: its text may contain a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RedisError {
    pub(super) kind: ErrorKind,
    /// The server's own words where there are any.
    pub(super) text: String,
}

impl RedisError {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// No answer within `limit`.
    pub(super) fn timeout(limit: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("no answer within {limit:?}"))
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for RedisError {}

impl From<FredError> for RedisError {
    fn from(error: FredError) -> Self {
        let details = error.details();
        if let Some(kind) = ErrorKind::of_reply(details) {
            return Self::new(kind, details);
        }
        let kind = match error.kind() {
            FredKind::Tls => ErrorKind::Tls,
            FredKind::Timeout => ErrorKind::Timeout,
            FredKind::Auth => ErrorKind::Auth,
            FredKind::IO if is_tls(details) => ErrorKind::Tls,
            FredKind::IO | FredKind::Canceled => ErrorKind::Connection,
            _ => ErrorKind::Other,
        };
        Self::new(kind, readable(details))
    }
}

fn is_tls(details: &str) -> bool {
    [
        "InvalidMessage",
        "InvalidCertificate",
        "AlertReceived",
        "NoCertificates",
        "PeerIncompatible",
    ]
    .iter()
    .any(|word| details.contains(word))
}

/// fred formats errors of the operating system with `Debug`.
fn readable(details: &str) -> Cow<'_, str> {
    if details.contains("InvalidContentType") {
        return "the server does not speak TLS (InvalidContentType)".into();
    }
    if details.contains("UnexpectedEof") {
        return "the server closed the connection during the handshake".into();
    }
    let message = details
        .split_once("message: \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(details.into(), |(message, _)| message.into())
}

/// Counts errors and logs them, at most one line a minute for each kind.
pub(super) struct ErrorLog {
    metrics: Arc<Metrics>,
    secrets: Vec<String>,
    /// For each kind: when the last line was written, and the errors since.
    lines: Mutex<[(Option<Instant>, u64); ErrorKind::ALL.len()]>,
}

impl ErrorLog {
    pub(super) fn new(metrics: Arc<Metrics>, secrets: Vec<String>) -> Self {
        Self {
            metrics,
            secrets,
            lines: Mutex::default(),
        }
    }

    /// Counts an error of `operation` at `server`. Logs it unless a line of its
    /// kind was logged within the last minute, or `log` is false. Returns whether
    /// it did.
    pub(super) fn record(
        &self,
        server: &dyn fmt::Display,
        operation: &'static str,
        error: &RedisError,
        log: bool,
    ) -> bool {
        let kind = error.kind.label();
        self.metrics
            .shared_errors
            .get_or_create(&Kind { kind })
            .inc();
        let Some(count) = self.due(error.kind, log) else {
            return false;
        };
        let error = self.clean(&error.text);
        tracing::warn!(
            %server, operation, kind, error, count,
            "Redis error; reads continue without this node or entry"
        );
        true
    }

    /// The number of errors to report, if a line is due.
    fn due(&self, kind: ErrorKind, log: bool) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = &mut lines[kind as usize];
        *count += 1;
        let due = log && last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        due.then(|| {
            *last = Some(Instant::now());
            std::mem::take(count)
        })
    }

    /// The text without secrets, on one line, cut to a bounded length. A server
    /// that does not know HELLO repeats its arguments, the password among them.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = text
            .split(", with args beginning with")
            .next()
            .unwrap_or_default();
        let mut text = text.replace(char::is_control, " ");
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: FredKind, details: &'static str) -> RedisError {
        FredError::new(kind, details).into()
    }

    #[test]
    fn errors_are_told_apart() {
        use ErrorKind as K;
        for (kind, details, expected) in [
            (FredKind::Cluster, "MOVED 1 127.0.0.1:1", K::Moved),
            (FredKind::Cluster, "ASK 1 127.0.0.1:1", K::Ask),
            (FredKind::Unknown, "TRYAGAIN Multiple keys", K::Ask),
            (
                FredKind::Cluster,
                "CLUSTERDOWN The cluster is down",
                K::ClusterDown,
            ),
            (FredKind::Unknown, "READONLY You can't write", K::ReadOnly),
            (FredKind::Unknown, "OOM command not allowed", K::OutOfMemory),
            (FredKind::Unknown, "NOPERM this user", K::NoPermission),
            (FredKind::Auth, "WRONGPASS invalid", K::Auth),
            (FredKind::Unknown, "ERR invalid password", K::Auth),
            (
                FredKind::Config,
                "ERR This instance has cluster support disabled",
                K::NotCluster,
            ),
            (FredKind::Unknown, "LOADING Redis is loading", K::Loading),
            (FredKind::Timeout, "Request timed out.", K::Timeout),
            (FredKind::IO, "Connection closed.", K::Connection),
            (
                FredKind::IO,
                "Custom { error: InvalidMessage(InvalidContentType) }",
                K::Tls,
            ),
        ] {
            assert_eq!(error(kind, details).kind, expected, "{details}");
        }
        let refused = "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }";
        assert_eq!(error(FredKind::IO, refused).text, "Connection refused");
    }

    #[test]
    fn every_kind_has_its_place() {
        for (at, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
        }
    }

    #[test]
    fn texts_contain_no_secret_and_are_short() {
        let log = ErrorLog::new(Arc::default(), vec!["se'cret".to_owned()]);
        let hello = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'me' 'x";
        assert_eq!(log.clean(hello), "ERR unknown command 'HELLO'");
        assert_eq!(log.clean("a se'cret\nb"), "a *** b");
        assert!(log.clean(&"\u{e9}".repeat(500)).len() <= MAX_TEXT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_a_minute_for_each_kind() {
        let log = ErrorLog::new(Arc::default(), Vec::new());
        let count = |kind| log.due(kind, true);
        assert_eq!(count(ErrorKind::Auth), Some(1));
        assert_eq!(count(ErrorKind::Auth), None);
        assert_eq!(log.due(ErrorKind::Timeout, false), None);
        assert_eq!(count(ErrorKind::Timeout), Some(2));
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!(count(ErrorKind::Auth), Some(2));
    }
}
