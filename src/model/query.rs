//! What a page of a list is asked by.

use std::fmt;

use super::{ListName, TodoName};
use crate::pb::todo::{Priority, State};

/// A question for one page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageQuery {
    /// The list.
    pub list: ListName,
    /// Which todos of it.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// Most names in the page, 1 to 1000.
    pub size: u32,
    /// The page begins after this position; `None`: at the start.
    pub after: Option<PagePosition>,
}

/// Conditions that must all hold. Empty: every todo of the list. Kept sorted
/// and without doubles, so that equal filters have one cache entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter(pub Vec<Condition>);

/// One comparison of a filter. A field that a document lacks has its default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// `state = X` or `state != X`.
    State(Op, State),
    /// `priority OP X`, by rank: LOW < NORMAL < HIGH < URGENT.
    Priority(Op, Priority),
    /// `labels:"x"`: the label is among them.
    Label(String),
    /// `due_time OP "..."`; a todo without a due time never matches.
    Due(Op, DueValue),
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueValue(pub i64);

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Op {
    /// Whether `left OP right` holds.
    #[must_use]
    pub fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Eq => left == right,
            Self::Ne => left != right,
            Self::Lt => left < right,
            Self::Le => left <= right,
            Self::Gt => left > right,
            Self::Ge => left >= right,
        }
    }
}

/// The order of a list. Ties go by name, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Newest first; those without a create time last.
    #[default]
    CreateTimeDesc,
    /// Oldest first; those without a create time last.
    CreateTime,
    /// Soonest due first; those without a due time last.
    DueTime,
    /// Most urgent first.
    PriorityDesc,
}

/// The last todo of a page, by what the order compares. Keyset, not offset: it
/// stays right when todos come and go before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PagePosition {
    /// Its sort key.
    pub key: SortKey,
    /// Its name.
    pub name: TodoName,
}

/// What an order compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// A time, in milliseconds since 1970.
    Time(i64),
    /// The rank of a priority, 1 (low) to 4 (urgent).
    Priority(u8),
    /// The field is absent: after all that have it.
    Missing,
    /// The field has a type that it must not have: after all others.
    Wrong,
}

/// The whole query in one line, different for different queries: what an entry
/// of a shared cache is compared with.
impl fmt::Display for PageQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            list,
            filter,
            order,
            size,
            after,
        } = self;
        write!(f, "{list}?order={order:?}&size={size}")?;
        for condition in &filter.0 {
            write!(f, "&where={condition:?}")?;
        }
        match after {
            Some(PagePosition { key, name }) => write!(f, "&after={key:?},{name}"),
            None => Ok(()),
        }
    }
}
