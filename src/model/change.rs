//! A change of a todo, as the feed reports it.

use super::{OriginTime, TodoName};

/// One committed insert, update, replace or delete of one todo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Which todo.
    pub name: TodoName,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Which fields it touched.
    pub touched: Touched,
    /// Its commit time. Several changes (a transaction) may share one.
    pub time: OriginTime,
    /// The origin's wall clock at the commit, in milliseconds since 1970: for
    /// people, never for a decision.
    pub wall_ms: i64,
}

/// What happened to a todo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It did not exist before.
    Created,
    /// Some of its fields changed.
    Updated,
    /// Its whole document was replaced. Watchers get it as updated.
    Replaced,
    /// It was deleted.
    Deleted,
}

/// Which fields a change touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    /// All of them, or unknown which.
    All,
    /// Paths of those updated, removed or truncated; nested ones are dotted.
    Paths(Vec<Box<str>>),
}
