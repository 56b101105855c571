//! A request on its way, the parts of its answer, and what is still missing of
//! them: the data that `read.rs` passes from tier to tier.

use std::sync::Arc;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use super::{Consistency, Many};
use crate::{
    coherence::{Admitted, ReadView},
    error::{Error, Source},
    model::{OriginTime, PageQuery, Stamped, TodoName, Value},
    tier::shared::SharedKey,
};

/// What is read: a todo, or a page of names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Todo(TodoName),
    Page(Arc<PageQuery>),
}

/// One request on its way.
pub(super) struct Request {
    pub(super) consistency: Consistency,
    pub(super) deadline: Option<Instant>,
    /// What an answer must be fresh to.
    pub(super) need: OriginTime,
    /// Why the origin cannot be asked, where answers marked stale are allowed:
    /// `need` is then without its part of age.
    pub(super) away: Option<Error>,
}

/// One part of an answer.
pub(super) struct Part {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) hit: Admitted,
    pub(super) source: Source,
    pub(super) stale: bool,
}

/// A part that is still to be found.
pub(super) struct Missing {
    /// Its place in the answer.
    pub(super) at: usize,
    pub(super) key: Key,
    pub(super) view: ReadView,
    /// A value that passes the fence but is not fresh enough.
    pub(super) candidate: Option<(Stamped, Source)>,
    /// The near tier has a value that the fence has overtaken.
    pub(super) overtaken: bool,
}

impl Request {
    pub(super) const fn is_away(&self) -> bool {
        self.away.is_some()
    }
}

impl Part {
    pub(super) fn of(
        key: Key,
        stamped: Stamped,
        hit: Admitted,
        source: Source,
        request: &Request,
    ) -> Self {
        Self {
            key,
            value: stamped.value,
            hit,
            source,
            stale: request.is_away(),
        }
    }
}

impl Missing {
    pub(super) const fn new(at: usize, key: Key, view: ReadView, overtaken: bool) -> Self {
        Self {
            at,
            key,
            view,
            candidate: None,
            overtaken,
        }
    }

    /// The one rule.
    pub(super) fn admit(
        mut self,
        stamped: Stamped,
        source: Source,
        request: &Request,
    ) -> Result<Part, Self> {
        if let Some(hit) = self.view.admit(stamped.as_of, request.need) {
            return Ok(Part::of(self.key, stamped, hit, source, request));
        }
        if self.view.admissible(stamped.as_of).is_some() {
            self.candidate = Some((stamped, source));
        }
        Err(self)
    }
}

impl Key {
    /// Its key in the shared tier: all keys of a list in one hash slot. The
    /// query of a page is hashed, as it may be long; the entry has it in full.
    pub(super) fn shared(&self, scope: u64) -> SharedKey {
        match self {
            Self::Todo(name) => SharedKey {
                list: name.parent().to_owned(),
                key: format!("{scope:016x}:{name}"),
            },
            Self::Page(query) => SharedKey {
                list: query.list.as_str().to_owned(),
                key: format!(
                    "{scope:016x}:page:{:032x}",
                    xxh3_128(query.to_string().as_bytes())
                ),
            },
        }
    }
}

/// The whole name of the todo or of the page.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Todo(name) => name.fmt(f),
            Self::Page(query) => query.fmt(f),
        }
    }
}

/// Sorts what was found by what it is.
pub(super) fn gather(names: &[TodoName], parts: Vec<Part>) -> Many {
    let mut many = Many::default();
    for (name, part) in names.iter().zip(parts) {
        match part.value {
            Value::Todo(todo) => many.todos.push(todo),
            Value::Unreadable(_) => many.unreadable.push(name.clone()),
            Value::Absent | Value::Page(_) => many.missing.push(name.clone()),
        }
    }
    many
}
