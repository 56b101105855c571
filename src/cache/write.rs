//! The write path: the origin first, then this replica's own fences, then the
//! reply with its token.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, error::Elapsed, timeout_at};
use tracing::{Instrument as _, info_span};

use super::{Cache, WriteOptions, Written, within};
use crate::{
    budget::{Count, Part},
    error::{Error, Unavailable, shorten},
    model::{OriginTime, Patch, RequestId, Resource, Token, Write},
    origin::{Cause, WriteError},
    telemetry::Kind,
};

/// What a write takes beside the texts that it carries: tasks, and the driver's work.
const WRITE_BYTES: u64 = 4 << 10;
/// What these texts take, in their sizes: the write, the database's command and its
/// reply, and the reply to the caller.
const WRITE_FACTOR: u64 = 4;

/// Time between giving up a write that was not sent and its deadline.
const SEND_MARGIN: Duration = Duration::from_millis(50);

impl Cache {
    /// Does one write and returns once it is durable. The write is a task of its
    /// own: it completes even if the caller goes away, and is charged until then.
    ///
    /// # Errors
    /// See [`Error`]. `OriginUnavailable` and `Overloaded` had no effect.
    pub async fn write(
        self: &Arc<Self>,
        write: Write,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let WriteOptions {
            request_id,
            deadline,
            caller,
            identity,
        } = options;
        let place = self.reserve(Count::Writes, caller.as_ref())?;
        let bytes = WRITE_BYTES + write.bytes() as u64 * WRITE_FACTOR;
        let budget = self.budgets.of(Part::Writes);
        let memory = budget.reserve(caller.as_ref(), bytes);
        let memory = memory.ok_or_else(|| self.overloaded(budget))?;
        self.check_write(&write, identity.as_ref(), deadline, caller.as_ref())
            .await?;
        let send_by = deadline.map(send_by);
        let cache = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _held = (place, memory);
            let turn = cache.writes.enter(caller.as_ref());
            let Ok(_turn) = before(send_by, turn).await else {
                return Err(cache.overloaded(cache.budgets.count(Count::RunningWrites)));
            };
            cache.write_and_invalidate(write, request_id, send_by).await
        });
        let task = task.instrument(info_span!("write", tidemark.tier = "origin"));
        within(deadline, "origin", task)
            .await?
            .unwrap_or_else(|panic| {
                tracing::error!(%panic, "a write panicked");
                let cause = Cause::from_error(panic, None);
                Err(Error::WriteOutcomeUnknown {
                    cause: cause.with_text("the task that did it ended"),
                })
            })
    }

    async fn write_and_invalidate(
        &self,
        write: Write,
        request: Option<RequestId>,
        send_by: Option<Instant>,
    ) -> Result<Written, Error> {
        let name = write.name();
        let (moves, given) = (may_move_in_list(&write), given_etag(&write));
        match self.origin.write(write, request, send_by).await {
            Ok(done) => {
                self.count_write("done");
                if let Resource::Todo(name) = &name {
                    self.loader.refresh_own_write(name, done.time).await;
                }
                Ok(Written {
                    body: done.body,
                    token: self.invalidate_own(&name, moves, done.time),
                })
            }
            Err(error) => Err(self.refuse(name, given, error)),
        }
    }

    /// Raises the fences for a write of this replica, before the caller hears of
    /// it, and returns the write's token.
    pub(super) fn invalidate_own(&self, name: &Resource, moves: bool, time: OriginTime) -> Token {
        self.tracker.record_own_write(name, moves, time);
        Token::at(self.origin.id(), time)
    }

    /// A refusal that reveals the origin's state raises the fences like a write.
    /// Otherwise the caller would loop on an older state from a cache.
    fn refuse(&self, name: Resource, given: String, error: WriteError) -> Error {
        let (kind, error) = match error {
            WriteError::NotFound { at } => {
                let token = Some(self.invalidate_own(&name, true, at));
                (
                    "not_found",
                    Error::NotFound {
                        name,
                        read: None,
                        token,
                    },
                )
            }
            WriteError::AlreadyExists { at } => {
                let token = self.invalidate_own(&name, true, at);
                ("already_exists", Error::AlreadyExists { name, token })
            }
            WriteError::EtagMismatch { current, at } => {
                let token = self.invalidate_own(&name, true, at);
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
                let token = Some(self.invalidate_own(&name, true, at));
                (
                    "unreadable",
                    Error::Unreadable {
                        name,
                        field,
                        problem,
                        read: None,
                        token,
                    },
                )
            }
            WriteError::NotEmpty { at } => {
                let (list, token) = (name.list(), self.invalidate_own(&name, true, at));
                ("not_empty", Error::ListNotEmpty { list, token })
            }
            WriteError::RequestIdReused => ("invalid", request_id_reused()),
            WriteError::Invalid(problem) => ("invalid", problem.into()),
            WriteError::Unavailable(cause) => ("unavailable", Unavailable::Reported(cause).into()),
            WriteError::Refused { rule, cause } => {
                tracing::warn!(%name, %rule, %cause, "the database refuses a write");
                ("refused", Error::OriginRefused { rule, cause })
            }
            WriteError::OutcomeUnknown { cause, at } => {
                if let Some(at) = at {
                    self.invalidate_own(&name, true, at);
                }
                ("unknown", Error::WriteOutcomeUnknown { cause })
            }
        };
        self.count_write(kind);
        error
    }

    fn count_write(&self, kind: &'static str) {
        self.metrics.writes.get_or_create(&Kind { kind }).inc();
    }
}

/// Whether the feed will raise the list's stripe for this write. An update that
/// touches title and notes alone does not move its todo; of the writes of a list only
/// one that deletes its todos changes its pages.
fn may_move_in_list(write: &Write) -> bool {
    let patch = match write {
        Write::Update {
            patch,
            allow_missing: false,
            ..
        } => patch,
        Write::Create { .. } | Write::Update { .. } | Write::Delete { .. } => return true,
        Write::CreateList { .. } | Write::UpdateList { .. } => return false,
        Write::DeleteList { force, .. } => return *force,
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

/// Waits for `work` until this instant, if there is one.
async fn before<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match until {
        Some(until) => timeout_at(until, work).await,
        None => Ok(work.await),
    }
}

/// When a write with this deadline must have been sent: early enough that there is
/// time to report that it had no effect.
fn send_by(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - SEND_MARGIN.min(left / 4)
}

fn given_etag(write: &Write) -> String {
    match write {
        Write::Update { etag, .. }
        | Write::Delete { etag, .. }
        | Write::UpdateList { etag, .. }
        | Write::DeleteList { etag, .. } => etag.clone().unwrap_or_default(),
        Write::Create { .. } | Write::CreateList { .. } => String::new(),
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
