//! What is cached and loaded: one todo, one page of names, or the same of lists.

use std::{fmt, sync::Arc};

use super::{ListName, ListsQuery, PageQuery, TodoName};

/// The key of a cached or loaded value, the same for both caches and for loads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A todo.
    Todo(TodoName),
    /// A page of a list.
    Page(Arc<PageQuery>),
    /// The document of a list.
    List(ListName),
    /// A page of the names of lists.
    Lists(Arc<ListsQuery>),
}

/// A borrowed [`Key`]: what a lookup needs. Hashes like `Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyRef<'a> {
    /// A todo.
    Todo(&'a TodoName),
    /// A page of a list.
    Page(&'a Arc<PageQuery>),
    /// The document of a list.
    List(&'a ListName),
    /// A page of the names of lists.
    Lists(&'a Arc<ListsQuery>),
}

impl Key {
    /// Borrows it.
    #[must_use]
    pub const fn as_ref(&self) -> KeyRef<'_> {
        match self {
            Self::Todo(name) => KeyRef::Todo(name),
            Self::Page(query) => KeyRef::Page(query),
            Self::List(name) => KeyRef::List(name),
            Self::Lists(query) => KeyRef::Lists(query),
        }
    }
}

impl KeyRef<'_> {
    /// The owned key. Copies no text.
    #[must_use]
    pub fn to_key(self) -> Key {
        match self {
            Self::Todo(name) => Key::Todo(name.clone()),
            Self::Page(query) => Key::Page(Arc::clone(query)),
            Self::List(name) => Key::List(name.clone()),
            Self::Lists(query) => Key::Lists(Arc::clone(query)),
        }
    }
}

/// The full name of the todo or list, or the query of the page.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Todo(name) => name.fmt(f),
            Self::Page(query) => query.fmt(f),
            Self::List(name) => name.fmt(f),
            Self::Lists(query) => query.fmt(f),
        }
    }
}
