//! One watcher and its cursors: the feed with transactions, DDL and lost
//! history, the hub's ring, merging, progress, and a client that leaves and
//! comes back with the last token that it was given, also to a replica that
//! was started meanwhile.
//!
//! Mirrors `follower.rs`, `watch/hub.rs` and `watch/stream.rs`.

use std::sync::Arc;

use stateright::{Model, Property};
use tidemark::{
    coherence::{ClosedTimes, CommitGroups},
    model::{Change, ChangeKind, Event, OriginTime, Touched},
    watch::{ConflatingQueue, Delivery, Ring, TooOld},
};

use crate::{
    mutations::Mutation,
    parts::{Time, at, small, todo},
};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Times at which something is committed, besides heartbeats.
    times: Time,
    /// How often the client comes back.
    connects: u8,
    restarts: u8,
    losses: u8,
    /// Whether an event outside a transaction closes its time at once.
    alone: bool,
    /// Whether the copy of `ConflatingQueue` that some mutations are wrong in takes its
    /// place: without a mutation it must be right.
    copied: bool,
}

const PLAIN: Bounds = Bounds {
    times: 3,
    connects: 1,
    restarts: 0,
    losses: 0,
    alone: true,
    copied: false,
};
const OPEN: Bounds = Bounds {
    alone: false,
    ..PLAIN
};
const COPIED: Bounds = Bounds {
    copied: true,
    ..PLAIN
};
const AGAIN: Bounds = Bounds {
    times: 2,
    connects: 2,
    ..PLAIN
};
const RESTART: Bounds = Bounds {
    restarts: 1,
    ..AGAIN
};
const LOSS: Bounds = Bounds { losses: 1, ..AGAIN };
pub const SMALL: &[Bounds] = &[PLAIN, OPEN, COPIED, RESTART, LOSS];
pub const LARGE: &[Bounds] = &[
    Bounds { times: 4, ..PLAIN },
    Bounds { times: 4, ..OPEN },
    Bounds {
        times: 3,
        losses: 1,
        ..RESTART
    },
    Bounds {
        times: 3,
        connects: 3,
        restarts: 1,
        ..OPEN
    },
];

pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::CursorInsideTime, "I6", COPIED),
    (Mutation::MergedCursor, "I6", COPIED),
    (Mutation::MergeInPlace, "I2", COPIED),
    (Mutation::ProgressNotClamped, "I6", PLAIN),
    (Mutation::ProgressOvertakes, "I6", PLAIN),
    (Mutation::ResetToConnectedOnly, "I6", AGAIN),
    (Mutation::ResumeClosesTime, "I6", PLAIN),
    (Mutation::HubAfterFrontier, "I6", PLAIN),
    (Mutation::WatchFromSeen, "I6", PLAIN),
    (Mutation::ReadWithCursor, "I2", PLAIN),
    (Mutation::WatchForgetsSeen, "I2", PLAIN),
];

/// The model.
pub struct Watch {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Watch {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// What happened at one time of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogEvent {
    Change(usize),
    /// Both todos in one transaction.
    Both,
    /// The collection was dropped.
    Drop,
    /// A heartbeat.
    Nothing,
}

impl LogEvent {
    const fn items(self) -> u8 {
        if matches!(self, Self::Both) { 2 } else { 1 }
    }

    const fn concerns(self, key: usize) -> bool {
        match self {
            Self::Change(changed) => changed == key,
            Self::Both | Self::Drop => true,
            Self::Nothing => false,
        }
    }

    /// What the feed brings as the event's item number `index`.
    fn event(self, index: u8, time: Time) -> Option<Event> {
        let key = match self {
            Self::Change(key) => key,
            Self::Both => usize::from(index),
            Self::Drop => return Some(reset()),
            Self::Nothing => return None,
        };
        Some(Event::Change(Arc::new(Change {
            name: todo(key).clone(),
            kind: ChangeKind::Updated,
            touched: Touched::All,
            time: at(time),
            wall_ms: 0,
        })))
    }
}

fn reset() -> Event {
    Event::Reset {
        reason: "dropped".into(),
    }
}

/// Where a feed stands, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Feed {
    /// The newest time that it brought something of, and how much.
    position: (Time, u8),
    closing: CommitGroups,
}

impl Feed {
    fn after(time: Time) -> Self {
        Self {
            position: (time, u8::MAX),
            closing: CommitGroups::default(),
        }
    }

    fn next_event(&self, log: &[LogEvent]) -> Option<(Time, u8)> {
        let (time, taken) = self.position;
        if time > 0 && taken < log[usize::from(time) - 1].items() {
            return Some((time, taken));
        }
        (usize::from(time) < log.len()).then_some((time + 1, 0))
    }

    fn take(&mut self, log: &[LogEvent], alone: bool) -> Option<ClosedTimes> {
        let (time, index) = self.next_event(log)?;
        let event = log[usize::from(time) - 1];
        self.position = (time, index + 1);
        let alone = alone && event != LogEvent::Both;
        Some(
            self.closing
                .add(at(time), alone, event.event(index, time))
                .expect("in order"),
        )
    }
}

/// What is pending for the watcher: by the real code, or by a wrong copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Queue {
    Real(ConflatingQueue),
    Wrong(Wrong),
}

/// A copy of `ConflatingQueue` in small, to be wrong in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wrong {
    start: Time,
    cursor: Time,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    event: Event,
    oldest: Time,
    newest: Time,
}

impl Wrong {
    fn push(&mut self, mutation: Option<Mutation>, time: Time, events: &[Event]) {
        if time <= self.start {
            return;
        }
        for event in events {
            let Event::Change(change) = event else {
                self.items = vec![Item {
                    event: event.clone(),
                    oldest: time,
                    newest: time,
                }];
                continue;
            };
            let same = |item: &Item| matches!(&item.event, Event::Change(other) if other.name == change.name);
            let mut new = Item {
                event: event.clone(),
                oldest: time,
                newest: time,
            };
            match self.items.iter().position(same) {
                Some(place) if mutation == Some(Mutation::MergeInPlace) => {
                    new.oldest = self.items[place].oldest;
                    self.items[place] = new;
                }
                Some(place) => {
                    let swallowed = self.items.remove(place);
                    if mutation != Some(Mutation::MergedCursor) {
                        new.oldest = swallowed.oldest;
                    }
                    self.items.push(new);
                }
                None => self.items.push(new),
            }
        }
    }

    fn pop(&mut self, mutation: Option<Mutation>) -> Option<Delivery> {
        if self.items.is_empty() {
            return None;
        }
        let item = self.items.remove(0);
        let is_below_all = self.items.iter().all(|other| {
            item.newest < other.oldest
                || mutation == Some(Mutation::CursorInsideTime) && item.newest == other.oldest
        });
        if is_below_all {
            self.cursor = self.cursor.max(item.newest);
        }
        Some(Delivery {
            event: item.event,
            cursor: at(self.cursor),
            seen: at(item.newest),
        })
    }
}

impl Queue {
    fn push(&mut self, mutation: Option<Mutation>, time: OriginTime, events: &[Event]) {
        match self {
            Self::Real(pending) => drop(pending.push(time, events.iter().cloned())),
            Self::Wrong(wrong) => wrong.push(mutation, small(time), events),
        }
    }

    fn pop(&mut self, mutation: Option<Mutation>) -> Option<Delivery> {
        match self {
            Self::Real(pending) => pending.pop(),
            Self::Wrong(wrong) => wrong.pop(mutation),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Real(pending) => pending.is_empty(),
            Self::Wrong(wrong) => wrong.items.is_empty(),
        }
    }

    fn cursor(&self) -> Time {
        match self {
            Self::Real(pending) => small(pending.cursor()),
            Self::Wrong(wrong) => wrong.cursor,
        }
    }

    fn progress(&mut self, frontier: Time) -> Option<Time> {
        match self {
            Self::Real(pending) => pending.progress(at(frontier)).map(small),
            Self::Wrong(wrong) => {
                wrong.cursor = wrong.cursor.max(frontier);
                wrong.items.is_empty().then_some(wrong.cursor)
            }
        }
    }

    fn reset(&mut self, time: Time) {
        match self {
            Self::Real(pending) => pending.reset(at(time), "read anew".into()),
            Self::Wrong(wrong) => {
                wrong.items = vec![Item {
                    event: reset(),
                    oldest: time,
                    newest: time,
                }];
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watcher {
    queue: Queue,
    /// `seen` of the token that it began with.
    seen: Time,
    /// Until the hub has the rest.
    private: Option<Feed>,
    /// The newest time told of each todo on this connection.
    told: [Time; 2],
    /// Nothing was pending when it last looked: only then does it wait, and
    /// tell progress.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Token {
    seen: Time,
    fresh_to: Time,
}

/// What the follower does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Then {
    Advance(Time),
    Release(Vec<(OriginTime, Vec<Event>)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    log: Vec<LogEvent>,
    feed: Feed,
    then: Option<Then>,
    ring: Ring,
    frontier: Time,
    watcher: Option<Watcher>,
    /// The last token that the client was given; it begins with an answer.
    token: Option<Token>,
    /// For each todo the time that the client's copy of it stands for.
    known: [Time; 2],
    connects: u8,
    restarts: u8,
    losses: u8,
    /// In the last step: a todo was told out of order, the cursor fell.
    disordered: bool,
    fell: bool,
    was_reset: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Commit(LogEvent),
    Feed,
    Then,
    Resume,
    LoseHistory,
    Restart,
    /// The client reads the list: the page and the first todo are fresh to the
    /// one time, the second todo to the other.
    Read(Time, Time),
    Connect,
    Private,
    PrivateIsLost,
    Pop,
    Progress,
    Disconnect,
}

impl State {
    fn now(&self) -> Time {
        Time::try_from(self.log.len()).expect("few")
    }

    fn latest(&self, key: usize, up_to: Time) -> Time {
        let concerns = |time: &Time| self.log[usize::from(*time) - 1].concerns(key);
        (1..=up_to.min(self.now()))
            .rev()
            .find(concerns)
            .unwrap_or(0)
    }
}

impl Watch {
    fn release(&self, state: &mut State, released: Vec<(OriginTime, Vec<Event>)>) {
        for (time, events) in released {
            let is_reset = events
                .iter()
                .any(|event| matches!(event, Event::Reset { .. }));
            if let Some(watcher) = state
                .watcher
                .as_mut()
                .filter(|watcher| watcher.private.is_none())
            {
                watcher.queue.push(self.mutation, time, &events);
            }
            if !(is_reset && self.has(Mutation::ResetToConnectedOnly)) {
                state.ring.push(time, events.into());
            }
        }
    }

    fn apply(&self, state: &mut State, released: Vec<(OriginTime, Vec<Event>)>, frontier: Time) {
        if self.has(Mutation::HubAfterFrontier) {
            state.frontier = state.frontier.max(frontier);
            state.then = Some(Then::Release(released));
        } else {
            self.release(state, released);
            state.then = Some(Then::Advance(frontier));
        }
    }

    fn resume(&self, state: &mut State) {
        if !self.has(Mutation::ResumeClosesTime) || !state.feed.closing.is_open() {
            return;
        }
        let time = state.feed.position.0;
        let closed = state
            .feed
            .closing
            .add(at(time), true, None)
            .expect("in order");
        self.apply(state, closed.released, time);
    }

    fn restart(&self, state: &mut State) {
        state.log.push(LogEvent::Nothing);
        state.restarts += 1;
        let start = state.now() - 1;
        state.feed = Feed::after(start);
        state.ring = Ring::starting_at(at(start));
        (state.frontier, state.then, state.watcher) = (start, None, None);
    }

    fn lose_history(&self, state: &mut State) {
        state.log.push(LogEvent::Nothing);
        state.losses += 1;
        let start = state.now();
        state.feed.closing.discard_open();
        state.feed.position = (start, u8::MAX);
        self.apply(state, vec![(at(start), vec![reset()])], start);
    }

    fn connect(&self, state: &mut State) {
        let Some(token) = state.token else { return };
        state.connects += 1;
        let after = if self.has(Mutation::WatchFromSeen) {
            token.seen
        } else {
            token.fresh_to
        };
        let queue = if self.bounds.copied {
            Queue::Wrong(Wrong {
                start: after,
                cursor: after,
                items: Vec::new(),
            })
        } else {
            Queue::Real(ConflatingQueue::after(at(after)))
        };
        let seen = if self.has(Mutation::WatchForgetsSeen) {
            0
        } else {
            token.seen
        };
        let mut watcher = Watcher {
            queue,
            seen,
            private: None,
            told: [0; 2],
            waits: false,
        };
        match self.register(&mut watcher, &state.ring, after) {
            Ok(()) => {}
            Err(TooOld::ResetSince) => self.register_with_reset(&mut watcher, state),
            Err(TooOld::NotInRing) => watcher.private = Some(Feed::after(after)),
        }
        state.watcher = Some(watcher);
        // The first message comes at once.
        self.tell(state, after, after);
    }

    fn register(&self, watcher: &mut Watcher, ring: &Ring, cursor: Time) -> Result<(), TooOld> {
        for (time, events) in ring.since(at(cursor))? {
            watcher.queue.push(self.mutation, *time, events);
        }
        watcher.private = None;
        Ok(())
    }

    fn register_with_reset(&self, watcher: &mut Watcher, state: &State) {
        let end = small(state.ring.end()).max(state.frontier);
        watcher.queue.reset(end);
        self.register(watcher, &state.ring, end)
            .expect("the ring's end is in it");
    }

    fn private(&self, state: &mut State) {
        let Some(mut watcher) = state.watcher.take() else {
            return;
        };
        let Some(mut feed) = watcher.private.take() else {
            return;
        };
        let Some(closed) = feed.take(&state.log, self.bounds.alone) else {
            return;
        };
        for (time, events) in &closed.released {
            watcher.queue.push(self.mutation, *time, events);
        }
        watcher.private = Some(feed);
        // `Err`: the ring does not have the rest yet.
        let _ = self.register(&mut watcher, &state.ring, small(closed.frontier));
        state.watcher = Some(watcher);
    }

    /// A message's token reaches the client.
    fn tell(&self, state: &mut State, seen: Time, fresh_to: Time) {
        let began_with = state.watcher.as_ref().map_or(0, |watcher| watcher.seen);
        state.fell = state.token.is_some_and(|token| fresh_to < token.fresh_to);
        state.token = Some(Token {
            seen: seen.max(fresh_to).max(began_with),
            fresh_to,
        });
    }

    fn pop(&self, state: &mut State) -> Option<()> {
        let watcher = state.watcher.as_mut()?;
        let next = watcher.queue.pop(self.mutation);
        watcher.waits = next.is_none();
        let Some(next) = next else { return Some(()) };
        let seen = small(next.seen);
        let keys = match &next.event {
            Event::Reset { .. } | Event::List(_) => 0..2,
            Event::Change(change) => {
                let key = usize::from(change.name == *todo(1));
                key..key + 1
            }
        };
        state.was_reset = keys.len() == 2;
        for key in keys {
            state.disordered |= seen <= watcher.told[key];
            watcher.told[key] = seen;
            state.known[key] = state.known[key].max(seen);
        }
        self.tell(state, seen, small(next.cursor));
        Some(())
    }

    fn progress(&self, state: &mut State) -> Option<()> {
        let frontier = state.frontier;
        let watcher = state.watcher.as_mut()?;
        let cursor = if watcher.private.is_some() {
            watcher.queue.cursor()
        } else if self.has(Mutation::ProgressOvertakes) {
            frontier.max(watcher.queue.cursor())
        } else if self.has(Mutation::ProgressNotClamped) {
            watcher.queue.is_empty().then_some(frontier)?
        } else {
            watcher.queue.progress(frontier)?
        };
        self.tell(state, cursor, cursor);
        Some(())
    }
}

impl Model for Watch {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Vec::new(),
            feed: Feed::default(),
            then: None,
            ring: Ring::default(),
            frontier: 0,
            watcher: None,
            token: None,
            known: [0; 2],
            connects: 0,
            restarts: 0,
            losses: 0,
            disordered: false,
            fell: false,
            was_reset: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now() < self.bounds.times {
            let events = [
                LogEvent::Change(0),
                LogEvent::Change(1),
                LogEvent::Both,
                LogEvent::Drop,
                LogEvent::Nothing,
            ];
            actions.extend(events.map(Action::Commit));
        }
        if state.then.is_some() {
            actions.push(Action::Then);
        } else {
            actions.extend(state.feed.next_event(&state.log).map(|_| Action::Feed));
            if self.has(Mutation::ResumeClosesTime) {
                actions.push(Action::Resume);
            }
            if state.losses < self.bounds.losses {
                actions.push(Action::LoseHistory);
            }
        }
        if state.restarts < self.bounds.restarts {
            actions.push(Action::Restart);
        }
        if state.token.is_none() {
            actions.extend(
                (state.frontier..=state.now()).map(|loaded| Action::Read(state.frontier, loaded)),
            );
        }
        match &state.watcher {
            None if state.token.is_some() && state.connects < self.bounds.connects => {
                actions.push(Action::Connect);
            }
            None => {}
            Some(watcher) => {
                if let Some(feed) = &watcher.private {
                    actions.extend(feed.next_event(&state.log).map(|_| Action::Private));
                    actions.push(Action::PrivateIsLost);
                }
                actions.push(if watcher.waits {
                    Action::Progress
                } else {
                    Action::Pop
                });
                if watcher.waits && !watcher.queue.is_empty() {
                    actions.push(Action::Pop);
                }
                if state.connects < self.bounds.connects {
                    actions.push(Action::Disconnect);
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        (state.disordered, state.fell, state.was_reset) = (false, false, false);
        match action {
            Action::Commit(event) => state.log.push(event),
            Action::Feed => {
                let closed = state.feed.take(&state.log, self.bounds.alone)?;
                self.apply(&mut state, closed.released, small(closed.frontier));
            }
            Action::Then => match state.then.take()? {
                Then::Advance(frontier) => state.frontier = state.frontier.max(frontier),
                Then::Release(released) => self.release(&mut state, released),
            },
            Action::Resume => self.resume(&mut state),
            Action::LoseHistory => self.lose_history(&mut state),
            Action::Restart => self.restart(&mut state),
            Action::Read(page, loaded) => {
                state.token = Some(Token {
                    seen: loaded,
                    fresh_to: page,
                });
                state.known = [page, loaded];
            }
            Action::Connect => self.connect(&mut state),
            Action::Private => self.private(&mut state),
            Action::PrivateIsLost => {
                let mut watcher = state.watcher.take()?;
                self.register_with_reset(&mut watcher, &state);
                state.watcher = Some(watcher);
            }
            Action::Pop => self.pop(&mut state)?,
            Action::Progress => self.progress(&mut state)?,
            Action::Disconnect => state.watcher = None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        /// The least that a read with the client's last token shows of a todo.
        fn shown(model: &Watch, state: &State, token: Token, key: usize) -> Time {
            let need = if model.has(Mutation::ReadWithCursor) {
                token.fresh_to
            } else {
                token.seen
            };
            state.latest(key, need)
        }
        vec![
            Property::<Self>::always(
                "I6 no cursor sent is at or after the time of an undelivered change",
                |_, state| {
                    state.token.is_none_or(|token| {
                        (0..2).all(|key| state.known[key] >= state.latest(key, token.fresh_to))
                    })
                },
            ),
            Property::<Self>::always("I6 no cursor falls", |_, state| !state.fell),
            Property::<Self>::always("I6 the changes of a todo come in order", |_, state| {
                !state.disordered
            }),
            Property::<Self>::always("I6 no change is lost on its way", |_, state| {
                let Some(watcher) = &state.watcher else {
                    return true;
                };
                let waits =
                    watcher.private.is_some() || !watcher.queue.is_empty() || state.then.is_some();
                waits || (0..2).all(|key| state.known[key] >= state.latest(key, state.frontier))
            }),
            Property::<Self>::always(
                "I2 a read with the last token shows no less than was told",
                |model, state| {
                    let Some(token) = state.token else {
                        return true;
                    };
                    (0..2).all(|key| {
                        shown(model, state, token, key) >= state.latest(key, state.known[key])
                    })
                },
            ),
            Property::<Self>::sometimes("a cursor stays behind what was told", |_, state| {
                state.token.is_some_and(|token| token.seen > token.fresh_to) && state.connects > 0
            }),
            Property::<Self>::sometimes("a private feed hands over to the ring", |_, state| {
                state.restarts > 0
                    && state.watcher.as_ref().is_some_and(|watcher| {
                        watcher.private.is_none()
                            && watcher.queue.cursor() == 0
                            && !watcher.queue.is_empty()
                    })
            }),
            Property::<Self>::sometimes("a client that comes back gets the reset", |_, state| {
                state.was_reset && state.connects > 1
            }),
            Property::<Self>::sometimes("a transaction is told whole", |_, state| {
                state.token.is_some_and(|token| {
                    token.fresh_to > 0
                        && state.log[usize::from(token.fresh_to) - 1] == LogEvent::Both
                        && state
                            .watcher
                            .as_ref()
                            .is_some_and(|watcher| watcher.told == [token.fresh_to; 2])
                })
            }),
        ]
    }
}
