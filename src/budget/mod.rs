//! Memory budgets: everything that waits or is buffered on behalf of a caller
//! is charged to a named budget, so that the process's memory has a bound.
//!
//! [`Plan`] splits the memory limit into parts: the base of the process, the
//! near cache, and one budget for each kind of work ([`Part`]). The sum of all
//! parts is the most memory the process uses. [`Budgets`] holds the counters.
//!
//! Invariant: a budget's use never exceeds its limit, except through
//! [`Budget::force`], which is for bytes that exist already, and then by an eighth of the
//! limit more, for callers that have little.
//!
//! Cost: a reservation is two atomic additions, one for the budget and one for
//! the caller's share of it, and two more when it is dropped.
//!
//! Pure: no clock, no runtime. Only [`limit`] reads files.

mod callers;
mod fair_queue;
pub mod limit;
mod plan;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

pub use self::{
    callers::{Caller, CallerKey, Callers},
    fair_queue::FairQueue,
    plan::{
        BASE_BYTES, CATCH_UP_BYTES, CONNECTION_BYTES, DoesNotFit, NEAR_OVERHEAD_PERCENT, Part,
        Plan, TLS_CONNECTION_BYTES, WATCH_BYTES,
    },
};

/// A bound on a number of things at once, not on bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Open watches. What they hold is in [`Part::Watches`] and
    /// [`Part::WatchNames`].
    OpenWatches,
    /// Watches of all lists. Each takes every change, some 4 us: so many take a
    /// core 16 ms a change.
    AllListWatches,
    /// Watches that catch up from before the recent changes. Each has a change
    /// stream of its own.
    CatchUpFeeds,
    /// Writes that wait or are at the database: more than the database
    /// completes in a second would only wait.
    Writes,
    /// Writes at the database: the connections to MongoDB that are for writes.
    /// The others wait, round-robin by caller.
    RunningWrites,
    /// Keys that wait to be loaded, or are loaded.
    WaitingKeys,
    /// Pages being loaded. The others wait, round-robin by caller.
    PageLoads,
    /// Strong reads that wait for a heartbeat.
    StrongReads,
    /// Calls that are served even if other budgets are used up: health checks, and all calls of
    /// the ports for health and metrics. A page of metrics takes some 100 KiB.
    Probes,
}

impl Count {
    /// All of them, in the order of their slots.
    pub const ALL: [Self; 9] = [
        Self::OpenWatches,
        Self::AllListWatches,
        Self::CatchUpFeeds,
        Self::Writes,
        Self::RunningWrites,
        Self::WaitingKeys,
        Self::PageLoads,
        Self::StrongReads,
        Self::Probes,
    ];

    /// The name in metrics and error texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenWatches => "open watches",
            Self::AllListWatches => "watches of all lists",
            Self::CatchUpFeeds => "watches that begin before the recent changes",
            Self::Writes => "writes under way",
            Self::RunningWrites => "writes at the database",
            Self::WaitingKeys => "keys waiting to be loaded",
            Self::PageLoads => "page loads",
            Self::StrongReads => "strong reads",
            Self::Probes => "health checks and metrics",
        }
    }

    /// How many at once. `origin_loads`: most loads at the origin at once
    /// (`--max-origin-loads`).
    #[must_use]
    pub const fn limit(self, origin_loads: u64) -> u64 {
        match self {
            Self::OpenWatches => 20_000,
            Self::AllListWatches => 4096,
            Self::CatchUpFeeds => 16,
            Self::Writes => 1024,
            Self::RunningWrites => 64,
            Self::WaitingKeys => origin_loads.saturating_mul(WAITING_PER_LOAD),
            Self::PageLoads if origin_loads < PAGE_LOADS => origin_loads,
            Self::PageLoads => PAGE_LOADS,
            Self::StrongReads => 16_384,
            Self::Probes => 64,
        }
    }
}

/// Keys that may wait or be loaded, for each load that the origin may be asked to
/// do at once.
const WAITING_PER_LOAD: u64 = 16;
/// Loads of pages at once: pages cannot be gathered into one load.
const PAGE_LOADS: u64 = 16;

/// How many budgets a caller has a share in.
const SLOTS: usize = Part::ALL.len() + Count::ALL.len();

/// One bound, in bytes or in a number of things, and how much of it is in use.
#[derive(Debug)]
pub struct Budget {
    name: &'static str,
    slot: usize,
    limit: u64,
    /// The least share of the last quarter, and of the last eighth: a smaller one would be of
    /// no use.
    least_shares: (u64, u64),
    used: AtomicU64,
    refused: AtomicU64,
    callers: Arc<Callers>,
}

impl Budget {
    fn new(
        name: &'static str,
        slot: usize,
        (limit, least_shares): (u64, (u64, u64)),
        callers: &Arc<Callers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            slot,
            limit,
            least_shares,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            callers: Arc::clone(callers),
        })
    }

    /// The name in metrics and error texts.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it counts bytes, and not things.
    #[must_use]
    pub const fn is_of_bytes(&self) -> bool {
        self.slot < Part::ALL.len()
    }

    /// The most that may be in use.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The most that a caller alone may have: the last quarter is divided among all.
    #[must_use]
    pub const fn most_for_one(&self) -> u64 {
        self.limit - self.limit / 4
    }

    /// How much is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// How many reservations were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Reserves `amount` for work of no caller, such as the queue of writes
    /// to Redis. `None`: the budget does not have it.
    #[must_use]
    pub fn try_reserve(self: &Arc<Self>, amount: u64) -> Option<Reservation> {
        self.reserve(None, amount)
    }

    /// Reserves `amount` for a caller.
    ///
    /// `None`: the budget does not have it, or it is nearly used up and this
    /// caller has more than its share already; see [`Callers::share`].
    #[must_use]
    pub fn try_reserve_for(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        amount: u64,
    ) -> Option<Reservation> {
        self.reserve(Some(caller), amount)
    }

    /// Reserves `amount` for a caller, or for work of no caller.
    #[must_use]
    pub fn reserve(
        self: &Arc<Self>,
        caller: Option<&Arc<Caller>>,
        amount: u64,
    ) -> Option<Reservation> {
        self.try_add(caller.map(AsRef::as_ref), amount)
            .then(|| Reservation {
                budget: Arc::clone(self),
                caller: caller.cloned(),
                amount,
            })
    }

    /// Charges bytes that exist already, whatever the limit. The owner of the
    /// bytes checks [`Budget::is_full`] before it makes more of them.
    #[must_use]
    pub fn force(self: &Arc<Self>, caller: Option<&Arc<Caller>>, amount: u64) -> Reservation {
        self.add(caller.map(AsRef::as_ref), amount);
        Reservation {
            budget: Arc::clone(self),
            caller: caller.cloned(),
            amount,
        }
    }

    /// Whether the caller would be refused any further reservation.
    #[must_use]
    pub fn is_full(&self, caller: Option<&Caller>) -> bool {
        !self.has_room(caller, self.used(), 1)
    }

    /// Whether there is room for `amount` of no caller.
    #[must_use]
    pub fn has_room_for(&self, amount: u64) -> bool {
        self.has_room(None, self.used(), amount)
    }

    /// How much of it this caller uses.
    #[must_use]
    pub fn used_by(&self, caller: &Caller) -> u64 {
        caller.used(self.slot)
    }

    fn has_room(&self, caller: Option<&Caller>, used: u64, amount: u64) -> bool {
        let after = used.saturating_add(amount);
        if after > self.limit {
            // What exists already may have taken more than there was (`force`). It does not
            // keep out a caller with less than its part of the last eighth: all of them
            // together have no more than that beyond the limit.
            let part = self.callers.last_share(self.limit, 0);
            return caller
                .is_some_and(|caller| caller.used(self.slot).saturating_add(amount) <= part);
        }
        let Some(caller) = caller.filter(|_| after > self.most_for_one()) else {
            return true;
        };
        let of_caller = caller.used(self.slot).saturating_add(amount);
        let share = if after > self.limit - self.limit / 8 {
            self.callers.last_share(self.limit, self.least_shares.1)
        } else {
            self.callers.share(self.limit, self.least_shares.0)
        };
        of_caller <= share
    }

    /// Charges without a guard, for the hot path; given back by `sub`.
    pub(crate) fn add(&self, caller: Option<&Caller>, amount: u64) {
        self.used.fetch_add(amount, Relaxed);
        if let Some(caller) = caller {
            caller.add(self.slot, amount);
        }
    }

    pub(crate) fn try_add(&self, caller: Option<&Caller>, amount: u64) -> bool {
        let before = self.used.fetch_add(amount, Relaxed);
        if self.has_room(caller, before, amount) {
            if let Some(caller) = caller {
                caller.add(self.slot, amount);
            }
            return true;
        }
        self.used.fetch_sub(amount, Relaxed);
        self.refused.fetch_add(1, Relaxed);
        false
    }

    pub(crate) fn sub(&self, caller: Option<&Caller>, amount: u64) {
        self.used.fetch_sub(amount, Relaxed);
        if let Some(caller) = caller {
            caller.sub(self.slot, amount);
        }
    }
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    caller: Option<Arc<Caller>>,
    amount: u64,
}

impl Reservation {
    /// How much it is.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// The caller that it is charged to, if any.
    #[must_use]
    pub const fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.as_ref()
    }

    /// Takes `amount` of it, or what is left of it, as a reservation by itself.
    #[must_use]
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self {
            budget: Arc::clone(&self.budget),
            caller: self.caller.clone(),
            amount,
        }
    }

    /// Reserves more. `false`: refused, and nothing changed.
    #[must_use]
    pub fn try_grow(&mut self, more: u64) -> bool {
        let grown = self.budget.try_add(self.caller.as_deref(), more);
        if grown {
            self.amount += more;
        }
        grown
    }

    /// Charges more bytes that exist already; see [`Budget::force`].
    pub fn force_grow(&mut self, more: u64) {
        self.budget.add(self.caller.as_deref(), more);
        self.amount += more;
    }

    /// Makes it as large as the bytes that exist now.
    pub fn set(&mut self, amount: u64) {
        self.force_grow(amount.saturating_sub(self.amount));
        self.shrink_to(amount);
    }

    /// Gives back all but `amount`.
    pub fn shrink_to(&mut self, amount: u64) {
        let less = self.amount.saturating_sub(amount);
        self.budget.sub(self.caller.as_deref(), less);
        self.amount -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.sub(self.caller.as_deref(), self.amount);
    }
}

/// All budgets of the process.
#[derive(Debug)]
pub struct Budgets {
    plan: Plan,
    parts: [Arc<Budget>; Part::ALL.len()],
    counts: [Arc<Budget>; Count::ALL.len()],
    callers: Arc<Callers>,
}

impl Budgets {
    /// Budgets of the sizes of this plan, for an origin that may be asked to do
    /// this many loads at once.
    #[must_use]
    pub fn new(plan: Plan, origin_loads: usize) -> Arc<Self> {
        let origin_loads = origin_loads as u64;
        let callers = Arc::new(Callers::default());
        let parts = Part::ALL.map(|part| {
            let size = (plan.bytes(part), part.least_shares());
            Budget::new(part.name(), part as usize, size, &callers)
        });
        let counts = Count::ALL.map(|count| {
            let slot = Part::ALL.len() + count as usize;
            Budget::new(
                count.name(),
                slot,
                (count.limit(origin_loads), (1, 1)),
                &callers,
            )
        });
        Arc::new(Self {
            plan,
            parts,
            counts,
            callers,
        })
    }

    /// Budgets without a memory limit: for tests and simulations.
    #[must_use]
    pub fn unlimited(origin_loads: usize) -> Arc<Self> {
        Self::new(Plan::unlimited(), origin_loads)
    }

    /// The sizes.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The budget of a part, in bytes.
    #[must_use]
    pub fn of(&self, part: Part) -> &Arc<Budget> {
        &self.parts[part as usize]
    }

    /// The bound on a number of things.
    #[must_use]
    pub fn count(&self, count: Count) -> &Arc<Budget> {
        &self.counts[count as usize]
    }

    /// Every budget: for metrics.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.parts.iter().chain(&self.counts)
    }

    /// Bytes that the process may take now: base, a full near cache, and what is in use of
    /// the parts. What it takes beyond them is charged to nobody.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        let parts = self.parts.iter().map(|part| part.used());
        self.plan.fixed().saturating_add(parts.sum())
    }

    /// Who calls now.
    #[must_use]
    pub const fn callers(&self) -> &Arc<Callers> {
        &self.callers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(budgets: &Budgets, last: u8) -> Arc<Caller> {
        let address = [10, 0, 0, last].into();
        budgets.callers().of(CallerKey::address(address))
    }

    #[test]
    fn a_reservation_is_given_back() {
        let budgets = Budgets::unlimited(256);
        let loads = budgets.of(Part::Loads);
        let limit = loads.limit();
        let mut all = loads.try_reserve(limit).expect("all of it");
        assert!(loads.try_reserve(1).is_none() && loads.refused() == 1);
        all.shrink_to(limit - 10);
        let few = loads.try_reserve(10).expect("what was given back");
        assert!(!all.try_grow(1));
        drop((all, few));
        assert_eq!(loads.used(), 0);
    }

    /// One caller alone may fill three quarters; the rest is for those who
    /// have less than their share.
    #[test]
    fn a_greedy_caller_leaves_a_share_to_others() {
        let budgets = Budgets::unlimited(256);
        let replies = budgets.of(Part::Replies);
        let piece = replies.limit() / 64;
        let greedy = caller(&budgets, 1);
        let mut held = Vec::new();
        while let Some(reservation) = replies.try_reserve_for(&greedy, piece) {
            held.push(reservation);
        }
        assert_eq!(held.len(), 48);
        assert!(replies.is_full(Some(&greedy)));
        let modest = caller(&budgets, 2);
        assert!(!replies.is_full(Some(&modest)));
        let one = replies.try_reserve_for(&modest, piece).expect("its share");
        assert!(replies.try_reserve_for(&greedy, piece).is_none());
        drop((held, one));
        assert_eq!(replies.used(), 0);
        assert!(replies.try_reserve_for(&greedy, piece).is_some());
    }

    /// However many callers take their shares, none takes that of one who has little.
    #[test]
    fn several_greedy_callers_leave_a_share_to_another() {
        let budgets = Budgets::unlimited(256);
        let replies = budgets.of(Part::Replies);
        let piece = replies.limit() / 1024;
        let all: Vec<_> = (0..9).map(|last| caller(&budgets, last)).collect();
        let (modest, greedy) = all.split_last().expect("some");
        let mut held = Vec::new();
        for greedy in greedy {
            while let Some(reservation) = replies.try_reserve_for(greedy, piece) {
                held.push(reservation);
            }
        }
        assert!(held.len() > 1024 * 7 / 8, "{}", held.len());
        let share = replies.limit() / 8 / 9;
        assert!(replies.try_reserve_for(modest, share).is_some());
    }

    /// A bound of a few things is not used up as long as a caller without any comes.
    #[test]
    fn each_of_many_callers_has_a_share_of_a_small_bound() {
        let budgets = Budgets::unlimited(256);
        let feeds = budgets.count(Count::CatchUpFeeds);
        let callers: Vec<_> = (0..40).map(|last| caller(&budgets, last)).collect();
        let mut held = Vec::new();
        while let Some(reservation) = feeds.try_reserve_for(&callers[0], 1) {
            held.push(reservation);
        }
        assert_eq!(held.len(), 12);
        for other in &callers[1..5] {
            held.push(feeds.try_reserve_for(other, 1).expect("its share"));
            assert!(feeds.try_reserve_for(other, 1).is_none());
        }
        assert!(feeds.try_reserve_for(&callers[6], 1).is_none());
    }

    /// The memory of a pod is for 13 feeds. One caller that takes all it can leaves some to
    /// others, however many callers there are.
    #[test]
    fn a_share_of_catch_up_feeds_is_one_feed_at_least() {
        let plan = Plan::new(Some(768 << 20), 64 << 20).expect("fits");
        let budgets = Budgets::new(plan, 256);
        let feeds = budgets.of(Part::CatchUp);
        let callers: Vec<_> = (0..40).map(|last| caller(&budgets, last)).collect();
        let mut held = Vec::new();
        let mut all_of = |caller| {
            let before = held.len();
            while let Some(feed) = feeds.try_reserve_for(caller, CATCH_UP_BYTES) {
                held.push(feed);
            }
            held.len() - before
        };
        assert!(all_of(&callers[0]) > 5);
        for other in &callers[1..3] {
            assert_eq!(all_of(other), 1);
        }
        assert!(feeds.used() <= feeds.limit());
    }

    /// What a load has read is there, whatever the limit: a caller that holds nothing is
    /// served beside it, and one that holds much is not.
    #[test]
    fn bytes_that_exist_already_keep_no_modest_caller_out() {
        let budgets = Budgets::unlimited(256);
        let loads = budgets.of(Part::Loads);
        let (greedy, modest) = (caller(&budgets, 1), caller(&budgets, 2));
        let mut held = Vec::new();
        while let Some(reservation) = loads.try_reserve_for(&greedy, 1 << 20) {
            held.push(reservation);
        }
        held.push(loads.force(None, loads.limit()));
        assert!(loads.try_reserve_for(&greedy, 1).is_none() && loads.try_reserve(1).is_none());
        let part = loads.limit() / 16;
        held.push(loads.try_reserve_for(&modest, part).expect("its part"));
        assert!(loads.try_reserve_for(&modest, 1).is_none());
    }

    /// One caller does not read its replies. Another one gets the largest reply, however many
    /// callers there are, and all get small ones.
    #[test]
    fn unread_replies_of_one_leave_room_for_a_large_one_of_another() {
        const LARGE: u64 = 4 << 20;
        let plan = Plan::new(Some(768 << 20), 256 << 20).expect("fits");
        let budgets = Budgets::new(plan, 256);
        let replies = budgets.of(Part::Replies);
        let callers: Vec<_> = (0..40).map(|last| caller(&budgets, last)).collect();
        let mut held = Vec::new();
        while let Some(reply) = replies.try_reserve_for(&callers[0], LARGE / 8) {
            held.push(reply);
        }
        let other = replies.try_reserve_for(&callers[1], LARGE);
        assert!(other.is_some(), "{} of {}", replies.used(), replies.limit());
        for caller in &callers[2..] {
            held.push(replies.try_reserve_for(caller, 100 << 10).expect("small"));
        }
    }

    #[test]
    fn a_part_of_a_reservation_lives_by_itself() {
        let budgets = Budgets::unlimited(256);
        let (keys, one) = (budgets.count(Count::WaitingKeys), caller(&budgets, 1));
        let mut all = keys.try_reserve_for(&one, 3).expect("room");
        let part = all.split(2);
        let rest = all.split(2);
        assert_eq!((part.amount(), rest.amount(), all.amount()), (2, 1, 0));
        drop((all, rest));
        assert_eq!((keys.used(), keys.used_by(&one)), (2, 2));
        drop(part);
        assert_eq!(keys.used(), 0);
    }
}
