//! Errors of calls, grouped by what the caller can do. `grpc/status.rs` converts each
//! into a `Status`, in one exhaustive match.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use crate::model::{FieldProblem, shorten};
use crate::model::{ListName, OriginTime, ReadInfo, Resource, Token, Unreadable};

/// What the origin's own software reported. Its text is for callers too: a few
/// words without hosts, paths or documents. The source is for the log. Cheap to
/// clone: several readers wait for one load.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    text: String,
    code: Option<i32>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Cause {
    /// A cause with the error that the origin's software returned, and the
    /// database's error code if it has one.
    pub fn from_error(error: impl StdError + Send + Sync + 'static, code: Option<i32>) -> Self {
        Self {
            text: error.to_string(),
            code,
            source: Some(Arc::new(error)),
        }
    }

    /// The same cause with another text; the source stays.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// The database's error code, if it sent one.
    #[must_use]
    pub const fn code(&self) -> Option<i32> {
        self.code
    }
}

/// A cause that has no error behind it, such as a missed deadline.
impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self {
            text,
            code: None,
            source: None,
        }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// Why the origin cannot be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unavailable {
    /// This replica has not connected to the origin since it started.
    #[error("this replica is starting and has not reached it yet")]
    NotConnected,
    /// This replica is connected, and has no acknowledged heartbeat yet.
    #[error("this replica is starting and does not know the database's time")]
    Starting,
    /// No heartbeat was acknowledged within this time.
    #[error("no answer to a heartbeat within {0:?}")]
    NoHeartbeat(Duration),
    /// The origin has been down for so long that no cached value may be served.
    #[error("it has not answered for longer than a response may be stale")]
    TooStale,
    /// The origin has not reached a time that this replica knows.
    #[error("the time {0} is ahead of the database")]
    Behind(OriginTime),
    /// The origin's software reported an error, or did not answer in time.
    #[error("{0}")]
    Reported(#[source] Cause),
    /// The load ended without a result: a bug of this replica.
    #[error("the load returned no value")]
    NoValue,
}

/// The rule of the database's operator by which a write was refused. Its text
/// is for callers: it names what an operator can look up, and nothing of the
/// document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A validator of the collection (`collMod`, `$jsonSchema`).
    Validator,
    /// A unique index that is not the service's own.
    UniqueIndex {
        /// Its name; empty if the database did not say.
        index: String,
    },
    /// The service's user lacks a right.
    Rights,
    /// The document is larger than the database stores.
    Size,
    /// The disk of the database is full.
    DiskFull,
    /// Another rule.
    Other,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Validator => f.write_str(
                "the validator of the database's collection \"todos\" does not allow this todo",
            ),
            Self::UniqueIndex { index } if index.is_empty() => {
                f.write_str("a unique index of the database holds the same values for another todo")
            }
            Self::UniqueIndex { index } => write!(
                f,
                "the database's unique index {index:?} holds the same values for another todo"
            ),
            Self::Rights => {
                f.write_str("the service's database user may not write to this database")
            }
            Self::Size => f.write_str("the todo is larger than the database can store"),
            Self::DiskFull => f.write_str("the disk of the database is full"),
            Self::Other => f.write_str("the database does not allow this write"),
        }
    }
}

/// Why a call of the service failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request have invalid values.
    #[error("{}", describe_all(.0))]
    FieldInvalid(Vec<FieldProblem>),
    /// `filter` or `order_by` cannot be read.
    #[error("{field} {value:?} is wrong at character {position}: {problem}")]
    FilterInvalid {
        /// `filter` or `order_by`.
        field: &'static str,
        /// The text that was sent, cut short.
        value: String,
        /// Offset in characters from 0.
        position: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Not a page token of this query.
    #[error("page_token {value:?} {problem}")]
    PageTokenInvalid {
        /// The token, cut short.
        value: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Not a token, or one ahead of the origin.
    #[error("{field} {value:?} {problem}")]
    TokenInvalid {
        /// Path of the field in the request.
        field: &'static str,
        /// The token, cut short.
        value: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A token of another origin.
    #[error(
        "{field} {value:?} belongs to another database; present tokens only to the service that gave them"
    )]
    TokenForeign {
        /// Path of the field in the request.
        field: &'static str,
        /// The token, cut short.
        value: String,
    },
    /// No such todo or list. `read` for a read, `token` for a write.
    #[error("{} {name} does not exist", .name.kind())]
    NotFound {
        /// The name asked for.
        name: Resource,
        /// What the reply would have said.
        read: Option<ReadInfo>,
        /// So that the next read is not older than this refusal.
        token: Option<Token>,
    },
    /// The todo or list to be created is there already.
    #[error("{} {name} already exists; update it, or choose another {}", .name.kind(), id_field(.name))]
    AlreadyExists {
        /// Its name.
        name: Resource,
        /// So that the next read is not older than this refusal.
        token: Token,
    },
    /// The list to be deleted contains todos.
    #[error("list {list} contains todos; set force to delete them with it")]
    ListNotEmpty {
        /// Its name.
        list: ListName,
        /// So that the next read is not older than this refusal.
        token: Token,
    },
    /// The todo or list changed since its etag was read.
    #[error(
        "{} {name} has changed: its etag is {current:?}, not {given:?}; read it again and repeat the change",
        .name.kind()
    )]
    EtagMismatch {
        /// Its name.
        name: Resource,
        /// The etag in the request, cut short.
        given: String,
        /// The etag of the stored todo.
        current: String,
        /// So that the next read is not older than this refusal.
        token: Token,
    },
    /// The stored document cannot be read as a todo or list. `read` for a read,
    /// `token` for a write.
    #[error("the stored document of {name} cannot be read as a {}: field {field} {problem}", .name.kind())]
    Unreadable {
        /// Its name.
        name: Resource,
        /// The field that has it wrong.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What the reply would have said. Boxed, as it is rare and large.
        read: Option<Box<ReadInfo>>,
        /// So that the next read is not older than this refusal.
        token: Option<Token>,
    },
    /// The origin cannot be asked. On a write: it had no effect.
    #[error("the database cannot be reached: {cause}")]
    OriginUnavailable {
        /// Why.
        #[source]
        cause: Unavailable,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// A rule of the database's operator does not allow the write: it had no
    /// effect, and until the operator changes something, the same write will be
    /// refused again.
    #[error("the database refuses this write: {rule}; nothing was written")]
    OriginRefused {
        /// Which rule.
        rule: Rule,
        /// What the database reported.
        #[source]
        cause: Cause,
    },
    /// `cached_only`, and no cache can answer.
    #[error(
        "no cache holds {what} fresh enough, and the request allows nothing else; ask without cached_only"
    )]
    CacheOnlyMiss {
        /// Name of the todo or list.
        what: String,
    },
    /// This replica is shutting down.
    #[error("this replica is shutting down; ask another")]
    Draining,
    /// A bound of this replica is reached.
    #[error("overloaded: {what} (at most {limit}); wait and try again")]
    Overloaded {
        /// Which bound.
        what: &'static str,
        /// Its value.
        limit: usize,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// A request or a reply is above its limit of bytes.
    #[error("the {what} is larger than {limit} bytes; {advice}")]
    MessageTooLarge {
        /// `request` or `reply`.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// What the caller can do.
        advice: String,
    },
    /// The request did not come in full within the server's limit of time.
    #[error("the request did not arrive in full within {timeout:?}")]
    RequestTooSlow {
        /// The limit.
        timeout: Duration,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed while waiting for {tier}")]
    DeadlineExceeded {
        /// Which tier was being waited for: `near`, `shared`, `origin`, `feed`.
        tier: &'static str,
    },
    /// The call carries no valid credential.
    #[error("the caller is not known: {}", .0.advice())]
    CallerUnknown(CallerProblem),
    /// The caller lacks a right. The text does not say whether the resource
    /// exists.
    #[error(
        "{principal} lacks the permission {permission:?} on {resource}, or {resource} does not exist"
    )]
    PermissionDenied {
        /// What was asked for, such as `todos.create`.
        permission: &'static str,
        /// Name of the list.
        resource: String,
        /// Who asked.
        principal: Arc<str>,
        /// The last token of a watch that ends with it.
        token: Option<Token>,
    },
    /// The write may or may not have taken place.
    #[error("it is not known whether the write took place: {cause}")]
    WriteOutcomeUnknown {
        /// What was seen.
        #[source]
        cause: Cause,
    },
}

/// Why a caller is not known. No variant holds any part of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerProblem {
    /// The call carries no credential.
    Missing,
    /// The credential cannot be read.
    Malformed,
    /// The token has expired.
    Expired,
    /// The token is not valid yet.
    NotYetValid,
    /// The token is for another audience.
    Audience,
    /// The token is of another issuer.
    Issuer,
    /// No such API key, or no such key of the issuer.
    Key,
    /// The signature does not match, or is of a kind that is not accepted.
    Signature,
    /// The client's certificate has no name that may call.
    Certificate,
}

impl CallerProblem {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Missing,
        Self::Malformed,
        Self::Expired,
        Self::NotYetValid,
        Self::Audience,
        Self::Issuer,
        Self::Key,
        Self::Signature,
        Self::Certificate,
    ];

    /// Its name in the error's metadata and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Certificate => "certificate",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Missing => {
                "the call has no credential of a kind that this service accepts; send an API key or a token as \"authorization: Bearer ...\", or connect with a client certificate"
            }
            Self::Malformed => {
                "its credential cannot be read; send one authorization header of at most 8 KiB of ASCII, with the scheme Bearer and an API key or a JSON Web Token that names its subject"
            }
            Self::Expired => "its token has expired; get a new one",
            Self::NotYetValid => "its token is not valid yet; compare the clocks",
            Self::Audience => {
                "its token is for another service; get one for the audience of this one"
            }
            Self::Issuer => "its token is of an issuer that this service does not accept",
            Self::Key => {
                "its API key, or the key that signed its token, is not known here; it may have been revoked"
            }
            Self::Signature => {
                "the signature of its token does not match, or is of a kind that is not accepted; use RS256, ES256 or EdDSA"
            }
            Self::Certificate => {
                "its certificate has no URI or DNS name that may call; compare --tls-client-names"
            }
        }
    }
}

/// When a caller that was refused should try again: about a heartbeat interval
/// shows whether the origin is back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Error {
    /// The todo or list of a read does not exist.
    pub fn not_found(name: impl Into<Resource>, read: ReadInfo) -> Self {
        Self::NotFound {
            name: name.into(),
            read: Some(read),
            token: None,
        }
    }

    /// The stored document of a read cannot be read as a todo or list.
    pub fn unreadable(name: impl Into<Resource>, why: &Unreadable, read: ReadInfo) -> Self {
        Self::Unreadable {
            name: name.into(),
            field: why.field.clone(),
            problem: why.problem.clone(),
            read: Some(read.into()),
            token: None,
        }
    }

    /// A bound of this replica is reached.
    #[must_use]
    pub const fn overloaded(what: &'static str, limit: usize) -> Self {
        Self::Overloaded {
            what,
            limit,
            retry_after: RETRY_AFTER,
        }
    }
}

/// The field of a request that chooses the name.
fn id_field(name: &Resource) -> &'static str {
    match name {
        Resource::Todo(_) => "todo_id",
        Resource::List(_) => "todo_list_id",
    }
}

/// The origin cannot be asked.
impl From<Unavailable> for Error {
    fn from(cause: Unavailable) -> Self {
        Self::OriginUnavailable {
            cause,
            retry_after: RETRY_AFTER,
        }
    }
}

fn describe_all(problems: &[FieldProblem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// One wrong field.
impl From<FieldProblem> for Error {
    fn from(problem: FieldProblem) -> Self {
        Self::FieldInvalid(vec![problem])
    }
}
