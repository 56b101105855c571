//! Frontier, fences and floor of this replica, and the one rule that decides by
//! them whether a stamped value may be served.
//!
//! An invalidation is one atomic maximum, and correctness never depends on deleting
//! an entry. Cost: 9 MiB of stripes, and an extra load, never a wrong response, where
//! two keys share a stripe.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Change, ChangeKind, KeyRef, ListsQuery, OriginTime, Stamped, Touched};

/// Stripes for todos: 8 MiB. With 1000 changes a second and a near entry read
/// again within a minute, 6 % of such reads see a change of another key.
const TODO_STRIPES: usize = 1 << 20;
/// Stripes for lists: two tables of 512 KiB. Lists are fewer than todos.
const LIST_STRIPES: usize = 1 << 16;

/// Fields whose change can move a todo into, out of or within a page: those that
/// filters and orders read, and `parent`, which assigns the todo to a list.
const LIST_FIELDS: [&str; 6] = [
    "parent",
    "state",
    "priority",
    "labels",
    "due_time",
    "create_time",
];

/// Stripes of the pages of lists' names: no list has such a name. A page of all lists
/// depends on the documents of lists and on which lists contain todos, a page of a
/// member's lists on the documents alone.
const ALL_LISTS: &str = "lists/-";
const MEMBERSHIPS: &str = "lists/-/members";

/// Frontier, fences and floor. After [`Watermarks::place`] none of them decreases.
pub struct Watermarks {
    frontier: AtomicU64,
    floor: AtomicU64,
    todos: Box<[AtomicU64]>,
    lists: Box<[AtomicU64]>,
    /// Highest times of this replica's own writes on each list stripe. A page
    /// older than that is not served, not even within the list grace.
    own_lists: Box<[AtomicU64]>,
}

/// What one part of a request is checked against. Read once for each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadView {
    /// The frontier, read before the fence and the floor.
    pub frontier: OriginTime,
    /// `max(fence, floor)` of the key's stripe. A value with a lower `as_of` may
    /// miss a change.
    pub min_as_of: OriginTime,
}

/// A value that may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Every change up to this time is in the value.
    pub fresh_to: OriginTime,
    /// The lower bound that this value adds to the `seen` of the response's token.
    pub seen: OriginTime,
}

impl Admitted {
    /// A value that is fresh to its stamp only.
    #[must_use]
    pub const fn at(as_of: OriginTime) -> Self {
        Self {
            fresh_to: as_of,
            seen: as_of,
        }
    }
}

impl ReadView {
    /// The one rule. A value stamped `as_of` is admissible if no change of its
    /// stripe is newer. It is then fresh to the frontier or to its own stamp, and
    /// may be served if that reaches `min_freshness`.
    #[must_use]
    pub fn admit(&self, as_of: OriginTime, min_freshness: OriginTime) -> Option<Admitted> {
        self.admissible(as_of)
            .filter(|admitted| admitted.fresh_to >= min_freshness)
    }

    /// The first half of the rule: how fresh an admissible value is.
    #[must_use]
    pub fn admissible(&self, as_of: OriginTime) -> Option<Admitted> {
        (as_of >= self.min_as_of).then(|| self.loaded(as_of))
    }

    /// How fresh an admissible value is. The caller must know that it is admissible:
    /// by `admissible`, or because it was loaded with `after >= min_as_of`.
    #[must_use]
    pub fn loaded(&self, as_of: OriginTime) -> Admitted {
        let seen = if as_of > self.frontier {
            as_of
        } else {
            self.min_as_of
        };
        Admitted {
            fresh_to: as_of.max(self.frontier),
            seen,
        }
    }
}

/// The value as it may be written to the shared tier again: if `view` admitted
/// it, it is known to be unchanged up to `view.frontier`.
#[must_use]
pub fn renewed(value: &Stamped, view: &ReadView) -> Stamped {
    Stamped {
        as_of: value.as_of.max(view.frontier),
        value: value.value.clone(),
    }
}

impl Default for Watermarks {
    fn default() -> Self {
        Self::new(TODO_STRIPES, LIST_STRIPES)
    }
}

impl Watermarks {
    /// With tables of these sizes. Until the floor is placed it is above
    /// everything: nothing is admissible.
    #[must_use]
    pub fn new(todo_stripes: usize, list_stripes: usize) -> Self {
        let table = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self {
            frontier: AtomicU64::new(0),
            floor: AtomicU64::new(u64::MAX),
            todos: table(todo_stripes),
            lists: table(list_stripes),
            own_lists: table(list_stripes),
        }
    }

    /// Places floor and frontier where the replay begins. Called once, before the
    /// first read; from then on neither falls.
    pub fn place(&self, start: OriginTime) {
        self.frontier.store(start.0, Ordering::Relaxed);
        self.floor.store(start.0, Ordering::Release);
    }

    /// The frontier: every change above the floor and up to it is in the fence.
    #[must_use]
    pub fn frontier(&self) -> OriginTime {
        OriginTime(self.frontier.load(Ordering::Acquire))
    }

    /// The floor: no change at or before it is claimed to have been seen.
    #[must_use]
    pub fn floor(&self) -> OriginTime {
        OriginTime(self.floor.load(Ordering::Acquire))
    }

    /// The view of a key. The rule needs this order: the frontier first, then
    /// the fence and the floor.
    #[must_use]
    pub fn view(&self, key: KeyRef<'_>) -> ReadView {
        match key {
            KeyRef::Todo(name) => self.view_todo(name.as_str()),
            KeyRef::Page(query) => self.view_list(query.list.as_str()),
            KeyRef::List(name) => self.view_todo(name.as_str()),
            KeyRef::Lists(query) => self.view_list(lists_stripe(query)),
        }
    }

    /// The view of a todo.
    #[must_use]
    pub fn view_todo(&self, name: &str) -> ReadView {
        self.view_stripe(stripe(&self.todos, name))
    }

    /// The view of a list's pages.
    #[must_use]
    pub fn view_list(&self, list: &str) -> ReadView {
        self.view_stripe(stripe(&self.lists, list))
    }

    fn view_stripe(&self, fence: &AtomicU64) -> ReadView {
        let frontier = self.frontier();
        let fence = OriginTime(fence.load(Ordering::Acquire));
        ReadView {
            frontier,
            min_as_of: fence.max(self.floor()),
        }
    }

    /// Raises every stripe that a change can affect.
    pub fn raise(&self, change: &Change) {
        self.raise_todo(change.name.as_str(), change.time);
        if moves_in_list(change) {
            self.raise_list(change.name.parent(), change.time);
        }
        if may_add_or_remove_list(change) {
            self.raise_list(ALL_LISTS, change.time);
        }
    }

    /// Raises every stripe that a change of a list's document can affect.
    pub fn raise_list_document(&self, list: &str, time: OriginTime) {
        self.raise_todo(list, time);
        self.raise_list(ALL_LISTS, time);
        self.raise_list(MEMBERSHIPS, time);
    }

    /// Raises a todo's stripe.
    pub fn raise_todo(&self, name: &str, time: OriginTime) {
        stripe(&self.todos, name).fetch_max(time.0, Ordering::AcqRel);
    }

    /// Raises a list's stripe.
    pub fn raise_list(&self, list: &str, time: OriginTime) {
        stripe(&self.lists, list).fetch_max(time.0, Ordering::AcqRel);
    }

    /// Raises the stripe of a key.
    pub fn raise_key(&self, key: KeyRef<'_>, time: OriginTime) {
        match key {
            KeyRef::Todo(name) => self.raise_todo(name.as_str(), time),
            KeyRef::Page(query) => self.raise_list(query.list.as_str(), time),
            KeyRef::List(name) => self.raise_todo(name.as_str(), time),
            KeyRef::Lists(query) => self.raise_list(lists_stripe(query), time),
        }
    }

    /// Raises the stripes of a list, and of all lists' names, for a write of this
    /// replica.
    pub fn raise_lists_by_own_write(&self, list: &str, time: OriginTime) {
        self.raise_list_by_own_write(list, time);
        self.raise_list(ALL_LISTS, time);
    }

    /// Raises a list's stripe for a write of this replica.
    pub fn raise_list_by_own_write(&self, list: &str, time: OriginTime) {
        stripe(&self.own_lists, list).fetch_max(time.0, Ordering::AcqRel);
        self.raise_list(list, time);
    }

    /// The least `as_of` of a page of this list that may be served within its
    /// grace: the floor, and the highest own write.
    #[must_use]
    pub fn grace_min_as_of(&self, list: &str) -> OriginTime {
        OriginTime(stripe(&self.own_lists, list).load(Ordering::Acquire)).max(self.floor())
    }

    /// Raises the floor: a fence for every key.
    pub fn raise_floor(&self, time: OriginTime) {
        self.floor.fetch_max(time.0, Ordering::AcqRel);
    }

    /// Moves the frontier up, after fences, floor and hub.
    pub fn advance(&self, frontier: OriginTime) {
        self.frontier.fetch_max(frontier.0, Ordering::AcqRel);
    }
}

fn stripe<'a>(table: &'a [AtomicU64], key: &str) -> &'a AtomicU64 {
    let hash = usize::try_from(xxh3_64(key.as_bytes()) >> 1).unwrap_or(0);
    &table[hash % table.len()]
}

/// Whether a change can move its todo into, out of or within a page: all but
/// updates that touch none of the fields that filters and orders read.
#[must_use]
pub fn moves_in_list(change: &Change) -> bool {
    let Touched::Paths(paths) = &change.touched else {
        return true;
    };
    change.kind != ChangeKind::Updated
        || paths
            .iter()
            .any(|path| LIST_FIELDS.iter().any(|field| prefixes(path, field)))
}

const fn lists_stripe(query: &ListsQuery) -> &'static str {
    if query.members.is_some() {
        MEMBERSHIPS
    } else {
        ALL_LISTS
    }
}

/// Whether a change of a todo can be the first or the last one of a list.
fn may_add_or_remove_list(change: &Change) -> bool {
    match (&change.touched, change.kind) {
        (Touched::Paths(paths), ChangeKind::Updated) => {
            paths.iter().any(|path| prefixes(path, "parent"))
        }
        _ => true,
    }
}

/// Whether one of two dotted paths is a prefix of the other.
fn prefixes(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
