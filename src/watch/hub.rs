//! The hub: pushes each closed commit group to the watchers that want it, and
//! keeps the recent groups for watches that start from a cursor.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{ConflatingQueue, Delivery, Ring, TooOld};
use crate::{
    model::{Event, ListName, OriginTime, TodoName},
    telemetry::{Kind, Metrics},
};

/// Watchers at once: at 12 KB each this is 240 MB.
pub(super) const MAX_WATCHERS: usize = 20_000;
/// Catch-up feeds at once. Each is a change stream at the origin.
pub(super) const MAX_CATCH_UP_FEEDS: usize = 16;

/// Where changes meet watchers.
pub(super) struct Hub {
    state: Mutex<State>,
    permits: Arc<Semaphore>,
    catch_up_permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    /// Those of one list, by its name; sorted, so that a reset reaches them in
    /// the same order each time.
    of_list: BTreeMap<ListName, Vec<Arc<Watcher>>>,
    /// Those of all lists.
    of_all: Vec<Arc<Watcher>>,
}

/// One watcher: its selection, and its queue.
pub(super) struct Watcher {
    list: Option<ListName>,
    names: HashSet<TodoName>,
    pending: Mutex<ConflatingQueue>,
    /// Something was pushed.
    pub(super) pushed: Notify,
    /// Something was popped: for a catch-up feed that waits for room.
    pub(super) popped: Notify,
    registered: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    fn pending(&self) -> MutexGuard<'_, ConflatingQueue> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to send.
    pub(super) fn pop(&self) -> Option<Delivery> {
        let next = self.pending().pop();
        if next.is_some() {
            self.popped.notify_one();
        }
        next
    }

    /// The cursor to tell when nothing is pending; `frontier` must have been
    /// read before.
    pub(super) fn progress(&self, frontier: OriginTime) -> Option<OriginTime> {
        self.pending().progress(frontier)
    }

    /// The last cursor.
    pub(super) fn cursor(&self) -> OriginTime {
        self.pending().cursor()
    }

    /// How many names are pending.
    pub(super) fn backlog(&self) -> usize {
        self.pending().len()
    }

    /// Hands over what this watcher wants of a closed time. `true` if that
    /// was too much.
    pub(super) fn push(&self, time: OriginTime, events: &[Event]) -> bool {
        let wanted = events.iter().filter(|event| self.wants(event)).cloned();
        let overflowed = self.pending().push(time, wanted);
        self.pushed.notify_one();
        overflowed
    }

    /// All that is pending gives way to a reset.
    pub(super) fn reset(&self, time: OriginTime, reason: Arc<str>) {
        self.pending().reset(time, reason);
        self.pushed.notify_one();
    }

    fn wants(&self, event: &Event) -> bool {
        let Event::Change(change) = event else {
            return true;
        };
        self.list
            .as_ref()
            .is_none_or(|list| list.as_str() == change.name.parent())
            && (self.names.is_empty() || self.names.contains(&change.name))
    }
}

impl Hub {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_WATCHERS)),
            catch_up_permits: Arc::new(Semaphore::new(MAX_CATCH_UP_FEEDS)),
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins after `start`. Once, before the first watcher.
    pub(super) fn place(&self, start: OriginTime) {
        self.state().ring = Ring::starting_at(start);
    }

    /// A permit for one catch-up feed. `None`: there are too many.
    pub(super) fn catch_up_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.catch_up_permits).try_acquire_owned().ok()
    }

    /// A watcher that is not registered yet. `None`: there are too many.
    pub(super) fn watcher(
        &self,
        list: Option<ListName>,
        names: HashSet<TodoName>,
        after: OriginTime,
    ) -> Option<Arc<Watcher>> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(Arc::new(Watcher {
            list,
            names,
            pending: Mutex::new(ConflatingQueue::after(after)),
            pushed: Notify::new(),
            popped: Notify::new(),
            registered: AtomicBool::new(false),
            _permit: permit,
        }))
    }

    /// From here on the watcher gets every closed time after `cursor`, without
    /// a gap and without a double.
    ///
    /// # Errors
    /// `TooOld`: the ring has not all of them; it is not registered.
    pub(super) fn register(
        &self,
        watcher: &Arc<Watcher>,
        cursor: OriginTime,
    ) -> Result<(), TooOld> {
        let mut state = self.state();
        for (time, events) in state.ring.since(cursor)? {
            if watcher.push(*time, events) {
                self.count_reset("overflow");
            }
        }
        watcher.registered.store(true, Ordering::Relaxed);
        match &watcher.list {
            Some(list) => state
                .of_list
                .entry(list.clone())
                .or_default()
                .push(Arc::clone(watcher)),
            None => state.of_all.push(Arc::clone(watcher)),
        }
        Ok(())
    }

    /// Registers a watcher that has to read everything anew.
    pub(super) fn register_with_reset(
        &self,
        watcher: &Arc<Watcher>,
        frontier: OriginTime,
        reason: &str,
    ) {
        let end = self.state().ring.end().max(frontier);
        watcher.reset(end, reason.into());
        self.count_reset("forgotten");
        // The end of the ring is never too old for it, unless the whole ring
        // was passed through meanwhile: then once more.
        if self.register(watcher, end).is_err() {
            self.register_with_reset(watcher, frontier, reason);
        }
    }

    /// Whether it is registered.
    pub(super) fn has(&self, watcher: &Watcher) -> bool {
        let _consistent = self.state();
        watcher.registered.load(Ordering::Relaxed)
    }

    /// The watcher is gone.
    pub(super) fn remove(&self, watcher: &Arc<Watcher>) {
        let mut state = self.state();
        let Some(list) = &watcher.list else {
            return state.of_all.retain(|other| !Arc::ptr_eq(other, watcher));
        };
        if let Some(watchers) = state.of_list.get_mut(list) {
            watchers.retain(|other| !Arc::ptr_eq(other, watcher));
            if watchers.is_empty() {
                state.of_list.remove(list);
            }
        }
    }

    /// All changes of a closed time, before the frontier reaches it.
    pub(super) fn release(&self, time: OriginTime, events: Vec<Event>) {
        let events: Arc<[Event]> = events.into();
        let mut state = self.state();
        state.ring.push(time, Arc::clone(&events));
        let is_reset = events
            .iter()
            .any(|event| matches!(event, Event::Reset { .. }));
        if is_reset {
            for watcher in state.of_list.values().flatten() {
                watcher.push(time, &events);
                self.count_reset("origin");
            }
        } else if !state.of_list.is_empty() {
            self.to_lists(&state, time, &events);
        }
        for watcher in &state.of_all {
            if watcher.push(time, &events) {
                self.count_reset("overflow");
            }
        }
    }

    fn to_lists(&self, state: &State, time: OriginTime, events: &[Event]) {
        let mut lists = HashSet::new();
        for event in events {
            let Event::Change(change) = event else {
                continue;
            };
            if !lists.insert(change.name.parent()) {
                continue;
            }
            for watcher in state
                .of_list
                .get(change.name.parent())
                .into_iter()
                .flatten()
            {
                if watcher.push(time, events) {
                    self.count_reset("overflow");
                }
            }
        }
    }

    fn count_reset(&self, kind: &'static str) {
        self.metrics
            .watch_resets
            .get_or_create(&Kind { kind })
            .inc();
    }
}
