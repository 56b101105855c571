//! The hub: the ring of recent commit groups, and the lists that are watched.
//!
//! Watchers pull. The follower appends a group once, however many clients watch, and
//! wakes the watchers of its lists. A watcher whose queue is empty takes the next groups
//! from the ring. So a slow watcher costs little memory, and the frontier never waits
//! for watchers. A watcher that has fallen behind the ring gets a reset.
//!
//! Each watched list has its own queue of groups, taken from the ring, so that a
//! watcher of a quiet list does not read the changes of all others.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    Ring, TooOld, WatchRequest,
    ring::{Group, after},
    watcher::Watcher,
};
use crate::{
    budget::{Budgets, Part},
    model::{Event, ListName, OriginTime},
    telemetry::{Kind, Metrics},
};

/// A watcher takes commit groups until they hold so many events, some 8 KB; the last
/// group is taken whole. Changes of one todo among them merge.
const PULLED_EVENTS: usize = 32;

/// Distributes changes to watchers.
pub(super) struct Hub {
    state: Mutex<State>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
}

struct State {
    ring: Ring,
    /// The lists that are watched.
    lists: BTreeMap<ListName, List>,
    /// Wakes the watchers of all lists.
    changed: Arc<Notify>,
    /// The newest reset that has left the ring.
    evicted_reset: OriginTime,
}

/// The part of the ring that concerns one list.
struct List {
    watchers: usize,
    groups: VecDeque<Group>,
    /// The newest group of this list that has left the ring.
    evicted: OriginTime,
    changed: Arc<Notify>,
}

impl Hub {
    pub(super) fn new(metrics: Arc<Metrics>, budgets: Arc<Budgets>) -> Self {
        let state = State {
            ring: Ring::default(),
            lists: BTreeMap::new(),
            changed: Arc::default(),
            evicted_reset: OriginTime::ZERO,
        };
        Self {
            state: Mutex::new(state),
            budgets,
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins after `start`. Called once, before the first watcher.
    pub(super) fn place(&self, start: OriginTime) {
        let max_bytes = self.budgets.of(Part::WatchPending).limit();
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let mut state = self.state();
        state.ring = Ring::starting_at(start).with_max_bytes(max_bytes);
        state.evicted_reset = OriginTime::ZERO;
    }

    /// Adds a watcher. It does not read the ring until it is registered; `remove`
    /// undoes this.
    pub(super) fn add_watcher(&self, request: &WatchRequest, after: OriginTime) -> Arc<Watcher> {
        let changed = {
            let mut state = self.state();
            match &request.list {
                Some(list) => Arc::clone(&state.join(list).changed),
                None => Arc::clone(&state.changed),
            }
        };
        Arc::new(Watcher::new(request, after, changed))
    }

    /// Lets the watcher read the ring after `cursor`: each later group exactly once.
    ///
    /// # Errors
    /// `TooOld`: the ring does not have all of them.
    pub(super) fn register(&self, watcher: &Watcher, cursor: OriginTime) -> Result<(), TooOld> {
        let state = self.state();
        drop(state.ring.since(cursor)?);
        watcher.read_after(cursor);
        Ok(())
    }

    /// Registers a watcher whose client has to read everything again.
    pub(super) fn register_with_reset(
        &self,
        watcher: &Watcher,
        frontier: OriginTime,
        reason: &str,
    ) {
        self.count_reset("forgotten");
        let state = self.state();
        let end = state.ring.end().max(frontier);
        watcher.reset_to(end, reason);
    }

    /// Moves the next groups from the ring into the watcher's queue. Returns whether
    /// the ring has more: what was read may hold nothing that this watcher wants.
    pub(super) fn pull(&self, watcher: &Watcher) -> bool {
        let state = self.state();
        let mut watcher_state = watcher.state();
        let Some(position) = watcher_state.position else {
            return false;
        };
        let list = watcher.list.as_ref().and_then(|list| state.lists.get(list));
        let evicted = list.map_or(state.ring.start(), |list| list.evicted);
        if position < evicted.max(state.evicted_reset) {
            let reason = "changes were sent faster than they were read";
            watcher_state.queue.reset(state.ring.end(), reason.into());
            watcher_state.position = Some(state.ring.end());
            watcher_state.caught_up = false;
            self.count_reset("overflow");
            return false;
        }
        let groups = match list {
            Some(list) => take(after(&list.groups, position)),
            // The position is in the ring, as was checked.
            None => take(state.ring.since(position).into_iter().flatten()),
        };
        let taken: usize = groups.iter().map(|(_, events)| events.len()).sum();
        let (end, more) = match groups.last() {
            Some((time, _)) if taken >= PULLED_EVENTS => (*time, *time < state.ring.end()),
            _ => (state.ring.end().max(position), false),
        };
        debug_assert!(end >= position, "{end} is below {position}");
        watcher_state.position = Some(end);
        watcher_state.caught_up = !more;
        drop(state);
        for (time, group) in groups {
            if watcher.add(&mut watcher_state, time, &group) {
                self.count_reset("overflow");
            }
        }
        more
    }

    /// Removes a watcher and cancels its catch-up feed.
    pub(super) fn remove(&self, watcher: &Watcher) {
        watcher.gone.cancel();
        let mut state = self.state();
        let Some(name) = &watcher.list else { return };
        if let Some(list) = state.lists.get_mut(name) {
            list.watchers -= 1;
            if list.watchers == 0 {
                state.lists.remove(name);
            }
        }
    }

    /// Appends a closed commit group, before the frontier reaches its time.
    pub(super) fn release(&self, time: OriginTime, events: Vec<Event>) {
        let events: Arc<[Event]> = events.into();
        let mut state = self.state();
        for (time, group) in state.ring.push(time, Arc::clone(&events)) {
            state.evict(time, &group);
        }
        if events.iter().any(Event::is_reset) {
            self.count_reset("origin");
            for list in state.lists.values_mut() {
                list.append(time, &events);
            }
        } else {
            for parent in parents(&events) {
                if let Some(list) = state.lists.get_mut(parent) {
                    list.append(time, &events);
                }
            }
        }
        state.changed.notify_waiters();
    }

    fn count_reset(&self, kind: &'static str) {
        self.metrics
            .watch_resets
            .get_or_create(&Kind { kind })
            .inc();
    }
}

impl State {
    /// One more watcher of a list. The first one makes the list's part of the ring.
    fn join(&mut self, name: &ListName) -> &List {
        let ring = &self.ring;
        let list = self.lists.entry(name.clone()).or_insert_with(|| {
            let concerns = |event: &Event| match event {
                Event::Change(change) => change.name.parent() == name.as_str(),
                Event::List(changed) => changed == name,
                Event::Reset { .. } => true,
            };
            let groups = ring.since(ring.start()).into_iter().flatten();
            let groups = groups.filter(|(_, events)| events.iter().any(concerns));
            List {
                watchers: 0,
                groups: groups.cloned().collect(),
                evicted: ring.start(),
                changed: Arc::default(),
            }
        });
        list.watchers += 1;
        list
    }

    fn evict(&mut self, time: OriginTime, group: &[Event]) {
        if group.iter().any(Event::is_reset) {
            self.evicted_reset = time;
            for list in self.lists.values_mut() {
                list.evict(time);
            }
        }
        for parent in parents(group) {
            if let Some(list) = self.lists.get_mut(parent) {
                list.evict(time);
            }
        }
    }
}

impl List {
    fn append(&mut self, time: OriginTime, events: &Arc<[Event]>) {
        self.groups.push_back((time, Arc::clone(events)));
        self.changed.notify_waiters();
    }

    fn evict(&mut self, time: OriginTime) {
        self.evicted = time;
        while self
            .groups
            .front()
            .is_some_and(|(oldest, _)| *oldest <= time)
        {
            self.groups.pop_front();
        }
    }
}

/// The next groups, `PULLED_EVENTS` or one group.
fn take<'a>(available: impl Iterator<Item = &'a Group>) -> Vec<Group> {
    let mut events = 0;
    let mut groups = Vec::new();
    for group in available {
        events += group.1.len();
        groups.push(group.clone());
        if events >= PULLED_EVENTS {
            break;
        }
    }
    groups
}

/// The lists of a group, each once.
fn parents<'a>(events: &'a [Event]) -> BTreeSet<&'a str> {
    let parent = |event: &'a Event| match event {
        Event::Change(change) => Some(change.name.parent()),
        Event::List(name) => Some(name.as_str()),
        Event::Reset { .. } => None,
    };
    events.iter().filter_map(parent).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::model::{Change, ChangeKind, TodoName, Touched};

    fn change(list: &str, id: u64, time: u64) -> Vec<Event> {
        vec![Event::Change(Arc::new(Change {
            name: TodoName::parse(&format!("lists/{list}/todos/{id}")).expect("a name"),
            kind: ChangeKind::Updated,
            touched: Touched::All,
            time: OriginTime(time),
            wall_ms: 0,
        }))]
    }

    fn hub() -> Hub {
        let hub = Hub::new(Arc::default(), Budgets::unlimited(256));
        hub.place(OriginTime(0));
        hub
    }

    fn watcher(hub: &Hub, list: Option<&str>) -> Arc<Watcher> {
        watcher_of(hub, list, HashSet::new())
    }

    fn watcher_of(hub: &Hub, list: Option<&str>, names: HashSet<TodoName>) -> Arc<Watcher> {
        let request = WatchRequest {
            list: list.map(|list| ListName::parse(&format!("lists/{list}")).expect("a list")),
            names,
            after: None,
            seen: OriginTime::ZERO,
            include_todo: false,
            right_on: Arc::default(),
            progress_interval: Duration::from_secs(10),
            closing: CancellationToken::new(),
            caller: None,
        };
        let watcher = hub.add_watcher(&request, OriginTime(0));
        hub.register(&watcher, OriginTime(0)).expect("in the ring");
        watcher
    }

    /// All that can be had now, by time; a reset is 0.
    fn drain(hub: &Hub, watcher: &Watcher) -> Vec<u64> {
        let mut times = Vec::new();
        loop {
            let more = hub.pull(watcher);
            let Some(first) = watcher.pop() else {
                if more {
                    continue;
                }
                return times;
            };
            let mut next = Some(first);
            while let Some(delivery) = next {
                times.push(match delivery.event {
                    Event::Change(change) => change.time.0,
                    Event::List(_) | Event::Reset { .. } => 0,
                });
                next = watcher.pop();
            }
        }
    }

    #[test]
    fn each_watcher_gets_the_changes_of_its_list_in_order() {
        let hub = hub();
        let (home, all) = (watcher(&hub, Some("home")), watcher(&hub, None));
        for time in 1..=100 {
            let list = if time % 2 == 0 { "home" } else { "work" };
            hub.release(OriginTime(time), change(list, time, time));
        }
        let even: Vec<_> = (1..=100).filter(|time| time % 2 == 0).collect();
        assert_eq!(drain(&hub, &home), even);
        assert_eq!(drain(&hub, &all), (1..=100).collect::<Vec<_>>());
        assert_eq!(home.progress(OriginTime(100)), Some(OriginTime(100)));
    }

    /// What a watcher takes at once may hold nothing of its names.
    #[test]
    fn a_cursor_does_not_pass_what_was_not_read() {
        let hub = hub();
        let name = TodoName::parse("lists/home/todos/90").expect("a name");
        let one = watcher_of(&hub, Some("home"), HashSet::from([name]));
        for time in 1..=100 {
            hub.release(OriginTime(time), change("home", time, time));
        }
        assert!(hub.pull(&one), "there is more");
        let read = OriginTime(PULLED_EVENTS as u64);
        assert_eq!(one.progress(OriginTime(100)), Some(read));
        assert_eq!(drain(&hub, &one), [90]);
        assert_eq!(one.progress(OriginTime(100)), Some(OriginTime(100)));
    }

    /// Heartbeats move the frontier and leave nothing in the ring.
    #[test]
    fn a_cursor_advances_while_nothing_changes() {
        let hub = hub();
        let one = watcher(&hub, Some("home"));
        hub.release(OriginTime(1), change("home", 1, 1));
        assert_eq!(drain(&hub, &one), [1]);
        for time in [5, 9] {
            assert!(!hub.pull(&one), "there is no more");
            assert_eq!(one.progress(OriginTime(time)), Some(OriginTime(time)));
        }
    }

    /// Changes of other lists must not cause a reset.
    #[test]
    fn a_watcher_of_a_quiet_list_outlives_the_ring() {
        let hub = hub();
        let (quiet, busy) = (watcher(&hub, Some("quiet")), watcher(&hub, Some("busy")));
        for time in 1..=70_000 {
            hub.release(OriginTime(time), change("busy", time, time));
        }
        hub.release(OriginTime(70_001), change("quiet", 1, 70_001));
        assert_eq!(drain(&hub, &quiet), [70_001]);
        assert_eq!(drain(&hub, &busy), [0], "it has fallen behind: a reset");
        hub.release(OriginTime(70_002), change("busy", 1, 70_002));
        assert_eq!(drain(&hub, &busy), [70_002], "and then it goes on");
    }

    #[test]
    fn a_list_that_nobody_watches_costs_nothing() {
        let hub = hub();
        let one = watcher(&hub, Some("home"));
        let two = watcher(&hub, Some("home"));
        hub.release(OriginTime(1), change("home", 1, 1));
        hub.remove(&one);
        assert_eq!(hub.state().lists.len(), 1);
        hub.remove(&two);
        assert!(hub.state().lists.is_empty());
        // The first watcher of a list finds what the ring still has.
        assert_eq!(drain(&hub, &watcher(&hub, Some("home"))), [1]);
    }
}
