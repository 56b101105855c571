//! One watcher of the hub.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ConflatingQueue, Delivery, WatchRequest};
use crate::model::{Event, ListName, OriginTime, TodoName};

/// One watcher: its selection, its queue, and how far it has read the ring.
pub(super) struct Watcher {
    pub(super) list: Option<ListName>,
    names: HashSet<TodoName>,
    /// Wants to know of changes of these lists' documents. Sorted.
    right_on: Arc<[ListName]>,
    state: Mutex<WatcherState>,
    /// A catch-up feed pushed something, or has ended.
    pub(super) pushed: Notify,
    /// Something was popped: for a catch-up feed that waits for room.
    pub(super) popped: Notify,
    /// Wakes the watchers of its list.
    pub(super) changed: Arc<Notify>,
    /// Cancelled when the watch is dropped.
    pub(super) gone: CancellationToken,
}

/// What changes while a watcher lives.
pub(super) struct WatcherState {
    pub(super) queue: ConflatingQueue,
    /// The time up to which it has read the ring; `None` while a catch-up feed
    /// supplies its events.
    pub(super) position: Option<OriginTime>,
    /// The last pull left nothing in the ring.
    pub(super) caught_up: bool,
}

impl Watcher {
    /// A watcher that has been sent everything up to `after` and does not read the ring
    /// yet. `changed`: wakes the watchers of its list.
    pub(super) fn new(request: &WatchRequest, after: OriginTime, changed: Arc<Notify>) -> Self {
        Self {
            list: request.list.clone(),
            names: request.names.clone(),
            right_on: Arc::clone(&request.right_on),
            state: Mutex::new(WatcherState {
                queue: ConflatingQueue::after(after),
                position: None,
                caught_up: false,
            }),
            pushed: Notify::new(),
            popped: Notify::new(),
            changed,
            gone: CancellationToken::new(),
        }
    }

    /// Its state, locked. The hub's lock is taken first where both are held.
    pub(super) fn state(&self) -> MutexGuard<'_, WatcherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the ring after `position` from now on.
    pub(super) fn read_after(&self, position: OriginTime) {
        self.state().position = Some(position);
        self.pushed.notify_one();
    }

    /// Reads the ring after `end` from now on, and sends a reset first.
    pub(super) fn reset_to(&self, end: OriginTime, reason: &str) {
        let mut state = self.state();
        state.queue.reset(end, reason.into());
        state.position = Some(end);
        self.pushed.notify_one();
    }

    /// The next thing to send.
    pub(super) fn pop(&self) -> Option<Delivery> {
        let next = self.state().queue.pop();
        if next.is_some() {
            self.popped.notify_one();
        }
        next
    }

    /// The cursor to send while nothing is pending. `frontier` was read before the
    /// ring was pulled: if that left nothing in the ring, there is no change up to the
    /// frontier that was not read, and the cursor advances while nothing changes.
    /// Otherwise it does not pass what was read, as the rest may hold changes for this
    /// watcher.
    pub(super) fn progress(&self, frontier: OriginTime) -> Option<OriginTime> {
        let mut state = self.state();
        match state.position {
            Some(_) if state.caught_up => state.queue.progress(frontier),
            Some(position) => state.queue.progress(frontier.min(position)),
            None => Some(state.queue.cursor()),
        }
    }

    /// The last cursor.
    pub(super) fn cursor(&self) -> OriginTime {
        self.state().queue.cursor()
    }

    /// How many names are pending.
    pub(super) fn backlog(&self) -> usize {
        self.state().queue.len()
    }

    /// Adds what this watcher wants of a group. Returns `true` if the queue overflowed
    /// into a reset.
    pub(super) fn push(&self, time: OriginTime, events: &[Event]) -> bool {
        let overflowed = self.add(&mut self.state(), time, events);
        self.pushed.notify_one();
        overflowed
    }

    /// The same in a state that is locked already.
    pub(super) fn add(&self, state: &mut WatcherState, time: OriginTime, events: &[Event]) -> bool {
        let wanted = events.iter().filter(|event| self.wants(event)).cloned();
        state.queue.push(time, wanted)
    }

    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Change(change) => {
                let list = self.list.as_ref();
                list.is_none_or(|list| list.as_str() == change.name.parent())
                    && (self.names.is_empty() || self.names.contains(&change.name))
            }
            Event::List(name) => self.right_on.binary_search(name).is_ok(),
            Event::Reset { .. } => true,
        }
    }
}
