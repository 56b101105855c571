//! The way of a write: the origin first, then this replica's own fence (once a
//! hot todo has been loaded), then the reply with its token.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::TryAcquireError, time::Instant};
use tracing::{Instrument as _, info_span};

use super::{Cache, MAX_WRITES, Written, within};
use crate::{
    error::{Error, shorten},
    model::{OriginTime, Patch, RequestId, TodoName, Token, Write},
    origin::{Rule, WriteError},
    telemetry::Kind,
};

/// When a write is worth trying again after the disk was full: somebody has to
/// make room.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Time between giving up a write that was not sent and its deadline.
const SEND_MARGIN: Duration = Duration::from_millis(50);

impl Cache {
    /// Does one write, once it is durable. The write is a task of its own: it
    /// is finished also when the caller goes away.
    ///
    /// # Errors
    /// See [`Error`]; `OriginUnavailable` and `Overloaded` had no effect.
    pub async fn write(
        self: &Arc<Self>,
        write: Write,
        request: Option<RequestId>,
        deadline: Option<Instant>,
    ) -> Result<Written, Error> {
        let permit = Arc::clone(&self.writes)
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => self.overloaded("writes under way", MAX_WRITES),
                TryAcquireError::Closed => Error::Draining,
            })?;
        let send_by = deadline.map(send_by);
        let cache = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _permit = permit;
            cache.write_through(write, request, send_by).await
        });
        let task = task.instrument(info_span!("write", tidemark.tier = "origin"));
        within(deadline, "origin", task)
            .await?
            .unwrap_or_else(|panic| {
                tracing::error!(%panic, "a write ended in a panic");
                Err(Error::WriteOutcomeUnknown {
                    problem: "the task that did it ended".into(),
                })
            })
    }

    async fn write_through(
        self: &Arc<Self>,
        write: Write,
        request: Option<RequestId>,
        send_by: Option<Instant>,
    ) -> Result<Written, Error> {
        let name = write.name().clone();
        let (moves, given) = (may_move_in_list(&write), given_etag(&write));
        match self.origin.write(write, request, send_by).await {
            Ok(done) => {
                self.count_write("done");
                self.load_own_ahead(&name, done.time).await;
                Ok(Written {
                    todo: done.todo,
                    token: self.raise_own(&name, moves, done.time),
                })
            }
            Err(error) => Err(self.refused(name, given, error)),
        }
    }

    /// Raises every stripe that the feed will raise for this write, before
    /// anybody is told of it. The time is an upper bound: right for fence and
    /// token, never a stamp.
    fn raise_own(&self, name: &TodoName, moves: bool, time: OriginTime) -> Token {
        self.own_write.fetch_max(time.0, Ordering::AcqRel);
        self.coherence.raise_todo(name.as_str(), time);
        if moves {
            self.coherence.raise_list_by_own_write(name.parent(), time);
        }
        Token::at(self.origin_id(), time)
    }

    /// A refusal that reveals the origin's state raises the fence like a
    /// write: or the caller would loop on an older state from a cache.
    fn refused(&self, name: TodoName, given: String, error: WriteError) -> Error {
        let (kind, error) = match error {
            WriteError::NotFound { at } => {
                let token = Some(self.raise_own(&name, true, at));
                (
                    "not_found",
                    Error::TodoNotFound {
                        name,
                        read: None,
                        token,
                    },
                )
            }
            WriteError::AlreadyExists { at } => {
                let token = self.raise_own(&name, true, at);
                ("already_exists", Error::TodoAlreadyExists { name, token })
            }
            WriteError::EtagMismatch { current, at } => {
                let token = self.raise_own(&name, true, at);
                (
                    "etag_mismatch",
                    Error::EtagMismatch {
                        name,
                        given: shorten(&given),
                        current,
                        token,
                    },
                )
            }
            WriteError::Unreadable { field, problem, at } => {
                let token = Some(self.raise_own(&name, true, at));
                (
                    "unreadable",
                    Error::TodoUnreadable {
                        name,
                        field,
                        problem,
                        read: None,
                        token,
                    },
                )
            }
            WriteError::RequestIdReused => ("invalid", request_id_reused()),
            WriteError::Invalid(problem) => ("invalid", problem.into()),
            WriteError::Unavailable(cause) => ("unavailable", self.unavailable(cause.to_string())),
            WriteError::Refused { rule, cause } => {
                tracing::warn!(%name, %rule, %cause, "the database refuses a write");
                ("refused", refused_by_origin(&rule))
            }
            WriteError::OutcomeUnknown { cause, at } => {
                if let Some(at) = at {
                    self.raise_own(&name, true, at);
                }
                (
                    "unknown",
                    Error::WriteOutcomeUnknown {
                        problem: cause.to_string(),
                    },
                )
            }
        };
        self.count_write(kind);
        error
    }

    fn count_write(&self, kind: &'static str) {
        self.metrics.writes.get_or_create(&Kind { kind }).inc();
    }
}

/// Whether the feed will raise the list's stripe for this write: only an
/// update that touches title and notes alone does not.
fn may_move_in_list(write: &Write) -> bool {
    let Write::Update {
        patch,
        allow_missing: false,
        ..
    } = write
    else {
        return true;
    };
    let Patch {
        title: _,
        notes: _,
        state,
        priority,
        labels,
        due_time,
    } = patch;
    state.is_some() || priority.is_some() || labels.is_some() || due_time.is_some()
}

/// When a write with this deadline must have been sent: early enough that its
/// caller hears that it had no effect, and not only that time ran out.
fn send_by(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - SEND_MARGIN.min(left / 4)
}

/// The database refuses the write: how a caller is told depends on the rule.
fn refused_by_origin(rule: &Rule) -> Error {
    let problem = rule.to_string();
    match rule {
        Rule::Rights => Error::OriginForbidden { problem },
        Rule::DiskFull => Error::OriginFull {
            problem,
            retry_after: FULL_RETRY_AFTER,
        },
        Rule::Validator | Rule::UniqueIndex { .. } | Rule::Size | Rule::Other => {
            Error::OriginRefused { problem }
        }
    }
}

fn given_etag(write: &Write) -> String {
    match write {
        Write::Update { etag, .. } | Write::Delete { etag, .. } => etag.clone().unwrap_or_default(),
        Write::Create { .. } => String::new(),
    }
}

fn request_id_reused() -> Error {
    crate::error::FieldProblem::new(
        "request_id",
        "",
        "was used within the last 24 hours for a request with other contents; use a new UUID for each request",
    )
    .into()
}
