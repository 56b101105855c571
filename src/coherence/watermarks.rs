//! Frontier, fence and floor of this replica, and the one rule that admits a
//! stamped value by them.
//!
//! What it buys: an invalidation is one atomic max, and nothing need be
//! deleted for a read to be right. What it costs: 8 MiB for the stripes, and
//! an extra load, never a wrong answer, where two keys share a stripe.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Change, ChangeKind, OriginTime, Stamped, Touched};

/// Stripes of the todos: 8 MiB. At 1000 changes a second and a near entry read
/// again within a minute, 6 % of such reads meet a foreign change.
const TODO_STRIPES: usize = 1 << 20;
/// Stripes of the lists: 512 KiB, twice. Lists are fewer than todos.
const LIST_STRIPES: usize = 1 << 16;

/// Fields whose change can move a todo into, out of or within a page: what
/// filters and orders read, and the parent, which says whose list it is in.
const LIST_FIELDS: [&str; 6] = [
    "parent",
    "state",
    "priority",
    "labels",
    "due_time",
    "create_time",
];

/// Frontier, fence and floor. None of them ever falls.
pub struct Watermarks {
    frontier: AtomicU64,
    floor: AtomicU64,
    todos: Box<[AtomicU64]>,
    lists: Box<[AtomicU64]>,
    /// Highest times that writes of this replica raised on the lists' stripes:
    /// no page below them is answered, not even within the list grace.
    own_lists: Box<[AtomicU64]>,
}

/// What one part of a request is measured by, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadView {
    /// The frontier, read before the rest.
    pub frontier: OriginTime,
    /// `max(fence, floor)` of the part's stripe: a value older than this may
    /// have missed a change.
    pub min_as_of: OriginTime,
}

/// A value that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Every change up to this is in the answer.
    pub fresh_to: OriginTime,
    /// What the answer has seen: its part of the token.
    pub seen: OriginTime,
}

impl ReadView {
    /// The one rule: a value stamped `as_of` is admissible if no change of its
    /// stripe is newer; it is then fresh to the frontier or to its own stamp,
    /// and may be answered if that reaches `need`.
    #[must_use]
    pub fn admit(&self, as_of: OriginTime, need: OriginTime) -> Option<Admitted> {
        self.admissible(as_of).filter(|hit| hit.fresh_to >= need)
    }

    /// The first half of the rule: how fresh the value is, whatever is needed.
    #[must_use]
    pub fn admissible(&self, as_of: OriginTime) -> Option<Admitted> {
        (as_of >= self.min_as_of).then(|| self.loaded(as_of))
    }

    /// How fresh a value is that was loaded for this check: begun with
    /// `after >= max(bar, need)`, so it is right without a second check.
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

/// The value as it may be written to the shared tier again: it is known to
/// have been the same up to `check.frontier`, if it was admitted by `check`.
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

    /// Places floor and frontier at the start of the feed's replay. Once, before
    /// the first reader; from then on neither falls.
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

    /// The check of a todo, read in the order that the rule wants: frontier,
    /// then fence and floor.
    #[must_use]
    pub fn view_todo(&self, name: &str) -> ReadView {
        self.view(stripe(&self.todos, name))
    }

    /// The check of a list's pages.
    #[must_use]
    pub fn view_list(&self, list: &str) -> ReadView {
        self.view(stripe(&self.lists, list))
    }

    fn view(&self, fence: &AtomicU64) -> ReadView {
        let frontier = self.frontier();
        let fence = OriginTime(fence.load(Ordering::Acquire));
        ReadView {
            frontier,
            min_as_of: fence.max(self.floor()),
        }
    }

    /// Raises every stripe that a change concerns.
    pub fn raise(&self, change: &Change) {
        self.raise_todo(change.name.as_str(), change.time);
        if moves_in_list(change) {
            self.raise_list(change.name.parent(), change.time);
        }
    }

    /// Raises a todo's stripe.
    pub fn raise_todo(&self, name: &str, time: OriginTime) {
        stripe(&self.todos, name).fetch_max(time.0, Ordering::AcqRel);
    }

    /// Raises a list's stripe.
    pub fn raise_list(&self, list: &str, time: OriginTime) {
        stripe(&self.lists, list).fetch_max(time.0, Ordering::AcqRel);
    }

    /// Raises a list's stripe for a write of this replica.
    pub fn raise_list_by_own_write(&self, list: &str, time: OriginTime) {
        stripe(&self.own_lists, list).fetch_max(time.0, Ordering::AcqRel);
        self.raise_list(list, time);
    }

    /// The least `as_of` of a page of this list that may be answered though
    /// overtaken: the floor, and the highest own write.
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

/// Whether one of two dotted paths is a prefix of the other.
fn prefixes(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
