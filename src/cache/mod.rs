//! The service proper: one struct, cut by verb. `read.rs` is the way of a
//! read, from top to bottom; `write.rs` of a write; `follow.rs` keeps up with
//! the origin; `hub.rs` and `watch.rs` tell the watchers.

mod follow;
mod heartbeat;
mod hub;
mod load;
mod read;
mod watch;
mod write;

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

pub use crate::coherence::Arm;
use crate::{
    error::ReadFacts,
    model::{ChangeKind, ListName, OriginTime, PagePosition, TodoName, Token},
};

/// How fresh an answer must be, and until when it is wanted.
#[derive(Clone, Debug)]
pub struct Want {
    /// The arm of `Consistency`.
    pub arm: Arm,
    /// The caller's deadline.
    pub deadline: Option<Instant>,
}

/// An answer and how fresh it is.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The answer.
    pub body: T,
    /// How fresh it is.
    pub read: ReadFacts,
}

/// Several todos.
#[derive(Clone, Debug, Default)]
pub struct Many {
    /// Those found, encoded, in the order asked for.
    pub todos: Vec<Bytes>,
    /// Names that no todo has.
    pub missing: Vec<TodoName>,
    /// Names whose document cannot be read as a todo.
    pub unreadable: Vec<TodoName>,
}

/// A page of todos.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The todos, encoded, in the query's order.
    pub todos: Vec<Bytes>,
    /// Names in the page whose document cannot be read as a todo.
    pub unreadable: Vec<TodoName>,
    /// Where the next page begins.
    pub next: Option<PagePosition>,
}

/// A write that took place.
#[derive(Clone, Debug)]
pub struct Written {
    /// The todo, encoded; empty after a delete.
    pub todo: Bytes,
    /// Presented to a read, the read is not older than the write.
    pub token: Token,
}

/// What a watcher wants.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// One list, or all.
    pub list: Option<ListName>,
    /// Only these, if any are named.
    pub names: HashSet<TodoName>,
    /// After this time (`fresh_to` of a token); `None`: from now on.
    pub after: Option<OriginTime>,
    /// Send the todo with its change.
    pub include_todo: bool,
    /// How often to say where the stream stands.
    pub progress_interval: Duration,
}

/// One message to a watcher.
#[derive(Clone, Debug)]
pub struct WatchMessage {
    /// Where to resume: `fresh_to` is the cursor, `seen` the newest time in
    /// the message.
    pub token: Token,
    /// What happened.
    pub event: WatchEvent,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A todo changed.
    Change {
        /// Which.
        name: TodoName,
        /// How.
        kind: ChangeKind,
        /// The todo as it is now, encoded, if asked for and still there.
        todo: Option<Bytes>,
        /// The origin's wall clock at the commit, in milliseconds since 1970.
        wall_ms: i64,
    },
    /// Nothing was missed up to the token's cursor.
    Progress {
        /// No change acknowledged longer ago is missing.
        staleness_bound: Duration,
    },
    /// All that was cached must be read anew.
    Reset {
        /// Why, for people.
        reason: Arc<str>,
    },
}
