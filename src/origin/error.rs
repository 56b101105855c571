//! Errors of an origin, sorted by what the caller can do about them. Each keeps
//! what the database reported, its error code included, until the last place
//! that decides by it.

pub use crate::error::{Cause, Rule};
use crate::{
    error::{FieldProblem, Unavailable},
    model::OriginTime,
};

/// Why the origin did not answer a read or a heartbeat.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OriginError {
    /// It cannot be reached, or did not answer in time. Nothing was written.
    #[error(transparent)]
    Unavailable(Cause),
    /// It has not reached the time that was asked for: the time is not its own.
    #[error("the time {0} is ahead of the database")]
    Ahead(OriginTime),
}

impl OriginError {
    /// `Unavailable` with a text or a cause.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }
}

impl From<OriginError> for Unavailable {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Unavailable(cause) => Self::Reported(cause),
            OriginError::Ahead(time) => Self::Behind(time),
        }
    }
}

/// Why the origin did not do a write.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// No such todo, as of an upper bound `at`.
    #[error("not found")]
    NotFound {
        /// Upper bound of the time of the state that refused it.
        at: OriginTime,
    },
    /// A todo of that name exists.
    #[error("already exists")]
    AlreadyExists {
        /// Upper bound of the time of the state that refused it.
        at: OriginTime,
    },
    /// The stored todo has another etag.
    #[error("the stored todo has another etag")]
    EtagMismatch {
        /// The etag of the stored todo.
        current: String,
        /// Upper bound of the time of the state that refused it.
        at: OriginTime,
    },
    /// The list to be deleted contains todos.
    #[error("the list contains todos")]
    NotEmpty {
        /// Upper bound of the time of the state that refused it.
        at: OriginTime,
    },
    /// The stored document cannot be read as a todo or list, so it is not changed.
    #[error("the stored document cannot be read: field {field} {problem}")]
    Unreadable {
        /// The wrong field.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// Upper bound of the time of the state that refused it.
        at: OriginTime,
    },
    /// The request id was used with other contents.
    #[error("the request id was used with other contents")]
    RequestIdReused,
    /// The todo would break a rule that the patch alone does not show, such as
    /// an update that creates without a title.
    #[error("{0}")]
    Invalid(FieldProblem),
    /// The database refuses this write by a rule of its operator. Nothing was
    /// written, and the same write will be refused again.
    #[error("{rule}: {cause}")]
    Refused {
        /// Which rule.
        rule: Rule,
        /// What the database reported.
        #[source]
        cause: Cause,
    },
    /// Nothing was written: the origin cannot be reached, or asks for another
    /// try.
    #[error(transparent)]
    Unavailable(Cause),
    /// It is not known whether it was written. `at`: the write has a time (it
    /// failed only in being confirmed by the majority), so fences go up.
    #[error("{cause}")]
    OutcomeUnknown {
        /// What was seen.
        #[source]
        cause: Cause,
        /// Upper bound of the write's time, if it has one.
        at: Option<OriginTime>,
    },
}

impl WriteError {
    /// `Unavailable` with a text or a cause.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// `OutcomeUnknown` for a write that has no time.
    pub fn unknown(cause: impl Into<Cause>) -> Self {
        Self::OutcomeUnknown {
            cause: cause.into(),
            at: None,
        }
    }
}

/// Why a feed ended, sorted by where the next one begins.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FeedError {
    /// The connection or the stream failed: resume at the same position.
    #[error("the feed broke: {0}")]
    Broken(#[source] Cause),
    /// The origin cannot give what comes next, however often it is asked:
    /// begin behind it, and trust nothing from before.
    #[error("the feed cannot be read at its position: {0}")]
    Unreadable(#[source] Cause),
    /// The origin no longer has the history to go on from that position.
    #[error("the database no longer has the history that the feed needs: {0}")]
    HistoryLost(#[source] Cause),
    /// No feed can be opened, and waiting does not help.
    #[error("the database gives no feed: {0}")]
    Fatal(#[source] Cause),
}

impl FeedError {
    /// `Broken` with a text or a cause.
    pub fn broken(cause: impl Into<Cause>) -> Self {
        Self::Broken(cause.into())
    }

    /// `HistoryLost` with a text or a cause.
    pub fn history_lost(cause: impl Into<Cause>) -> Self {
        Self::HistoryLost(cause.into())
    }
}

/// The result of an import of many todos.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// How many were new.
    pub created: usize,
    /// Those that the database refuses, each with its index in the call and
    /// the rule. All others are stored.
    pub refused: Vec<(usize, Rule)>,
}

/// Why an origin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer: trying again may help.
    #[error("{0}")]
    Transient(#[source] Cause),
    /// Trying again does not help.
    #[error("{0}")]
    Permanent(#[source] Cause),
}

impl ConnectError {
    /// `Permanent` with a text or a cause.
    pub fn permanent(cause: impl Into<Cause>) -> Self {
        Self::Permanent(cause.into())
    }

    /// `Transient` with a text or a cause.
    pub fn transient(cause: impl Into<Cause>) -> Self {
        Self::Transient(cause.into())
    }
}
