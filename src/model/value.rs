//! What the caches hold.

use std::sync::Arc;

use bytes::Bytes;

use prost::Message as _;

use super::{ListsPage, OriginTime, PagePosition, TodoName};
use crate::pb;

/// What a member of a list takes beside its name: a slot of the map, and an allocation.
const MEMBER_BYTES: usize = 64;

/// A value and the time at which the origin's state of its key was exactly
/// this.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// The stamp.
    pub as_of: OriginTime,
    /// The state at that time.
    pub value: Value,
}

/// The state of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A todo, encoded as the message `todo.v1.Todo`, etag included.
    Todo(Bytes),
    /// No such todo, or no document of the list: a value like any other.
    Absent,
    /// There is a document, but it cannot be read as a todo or as a list.
    Unreadable(Arc<Unreadable>),
    /// A page of a list.
    Page(Arc<Page>),
    /// A list, etag included.
    List(Arc<pb::TodoList>),
    /// A page of the names of lists.
    Lists(Arc<ListsPage>),
}

impl Value {
    /// The bytes of its contents, as an estimate for memory: a name counts as 100.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Todo(todo) => todo.len(),
            Self::Absent => 0,
            Self::Unreadable(why) => why.field.len() + why.problem.len(),
            Self::Page(page) => page.names.len() * 100,
            Self::List(list) => list.encoded_len() + list.members.len() * MEMBER_BYTES,
            Self::Lists(page) => page.names.len() * 100,
        }
    }
}

/// Why a stored document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The field that has it wrong.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// An ordered list of names, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The names, in the query's order.
    pub names: Vec<TodoName>,
    /// The position after the last name; `None`: the list ends here.
    pub next: Option<PagePosition>,
}
