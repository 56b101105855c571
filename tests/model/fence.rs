//! One key, one replica, and everything that can come between two of its
//! steps: the order in which frontier, fence and floor are read and moved, the
//! feed with transactions, lost history and DDL, loads that are overtaken, a
//! restart, and a shared tier that brings back what it likes.
//!
//! Mirrors `cache/read.rs` (look, shared, load), `loader/mod.rs` and
//! `follower.rs`. What is read between two awaits is one step, unless the
//! order of the reads is the point.

use stateright::{Model, Property};
use tidemark::{
    coherence::{CommitGroups, Consistency, Joined, LoadRequirement, SingleFlight, renewed},
    model::{Mono, OriginTime, Stamped, Value},
};

use crate::{
    mutations::Mutation,
    parts::{Bag, Fences, Stamp, Time, Viewed, at, keep, small, todo},
};

/// The key that is read; the other one only shares transactions with it.
const KEY: usize = 0;
const OTHER: usize = 1;
/// How much of the feed a restarted replica replays.
const REPLAY: Time = 1;
/// The stamp of an entry from the future.
const FUTURE: Time = 7;
/// How far ahead of the frontier a stamp is believed.
const INTERVAL: Time = 1;

/// What is explored at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Times at which something is committed, besides the heartbeats that
    /// restarts and losses bring.
    times: Time,
    readers: usize,
    restarts: u8,
    losses: u8,
    /// Whether an event outside a transaction is known to be alone at its
    /// time (MongoDB up to 7), or not (from 8.0).
    alone: bool,
    /// Whether something writes entries to the shared tier whose stamps are further in
    /// the future than the model goes.
    forged: bool,
}

/// Readers that meet in a load.
pub const MEETING: Bounds = Bounds {
    times: 2,
    readers: 2,
    restarts: 0,
    losses: 0,
    alone: true,
    forged: false,
};
/// No event closes its own time.
pub const OPEN: Bounds = Bounds {
    readers: 1,
    alone: false,
    ..MEETING
};
/// A restart, with what the shared tier kept from before.
pub const RESTART: Bounds = Bounds {
    readers: 1,
    restarts: 1,
    ..MEETING
};
/// The origin forgot a part of the feed.
pub const LOSS: Bounds = Bounds {
    readers: 1,
    losses: 1,
    ..MEETING
};
/// The shared tier has entries from the future.
pub const FORGED: Bounds = Bounds {
    readers: 1,
    forged: true,
    ..MEETING
};
/// All of it at once: minutes.
pub const LARGE: &[Bounds] = &[
    Bounds {
        restarts: 1,
        losses: 1,
        ..MEETING
    },
    Bounds {
        times: 3,
        readers: 1,
        restarts: 1,
        losses: 1,
        ..MEETING
    },
    Bounds {
        restarts: 1,
        losses: 1,
        ..OPEN
    },
];
pub const SMALL: &[Bounds] = &[MEETING, OPEN, RESTART, LOSS, FORGED];

/// With the property that breaks, and the bounds within which it does.
pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::NoFenceCheck, "I1", OPEN),
    (Mutation::StampByOperationTime, "I1", OPEN),
    (Mutation::StampByFrontierAtEnd, "I1", OPEN),
    (Mutation::FrontierInsideTransaction, "I5", OPEN),
    (Mutation::JoinAnyLoad, "I1", MEETING),
    (Mutation::RenewalByLaterFrontier, "I1", MEETING),
    (Mutation::FrontierAfterFence, "I1", MEETING),
    (Mutation::NoAfterClusterTime, "I1", MEETING),
    (Mutation::ResumeByTime, "I5", MEETING),
    (Mutation::NoFloorAfterRestart, "I5", RESTART),
    (Mutation::NoFloorAfterLostHistory, "I5", LOSS),
    (Mutation::FloorBeforeFrontier, "I1", LOSS),
    (Mutation::FrontierBeforeFloor, "I5", LOSS),
    (Mutation::DdlIgnored, "I5", MEETING),
    (Mutation::ResumeClosesTime, "I5", MEETING),
    (Mutation::FutureStampBelieved, "I1", FORGED),
];

/// The model.
pub struct Fence {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Fence {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// What happened at one time of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The key was written.
    Write,
    /// A heartbeat, or something else that does not concern the key.
    Nothing,
    /// Both keys were written, the other one first.
    Transaction,
    /// The collection was dropped.
    Drop,
}

impl Event {
    fn items(self) -> u8 {
        if self == Self::Transaction { 2 } else { 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    /// Has read the first of the numbers that make a check.
    First(Time),
    /// Near had nothing: the shared tier is being asked.
    Asking(Viewed),
    /// For a load.
    Waiting(Viewed),
    /// It went away; its place in the load remains.
    Gone,
}

/// What the follower does next, before it takes another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    Advance(Time),
    RaiseFloor(Time),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Tier {
    Near,
    Shared,
    Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    fresh_to: Time,
    stamp: Stamp,
    tier: Tier,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    log: Vec<Event>,
    fences: Fences,
    /// The newest time that the feed brought something of, and how much.
    position: (Time, u8),
    closing: CommitGroups,
    then: Option<Then>,
    near: Option<Stamp>,
    shared: Bag,
    flights: SingleFlight<(), usize>,
    /// What the origin was asked to reach by the load under way.
    asked: Option<Time>,
    readers: [Reader; 2],
    restarts: u8,
    losses: u8,
    /// Given in the last step.
    answers: [Option<Answer>; 2],
    fell: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Commit(Event),
    Feed,
    Then,
    Resume,
    LoseHistory,
    Restart,
    Forge,
    Read(usize),
    Look(usize),
    FromShared(usize, Option<Stamp>),
    GoAway(usize),
    EndLoad(Time),
    FailLoad,
}

impl State {
    fn now(&self) -> Time {
        Time::try_from(self.log.len()).expect("few")
    }

    /// The newest change of the key up to a time: the value's version.
    fn latest(&self, up_to: Time) -> Time {
        let of_key = |time: &Time| self.log[usize::from(*time) - 1] != Event::Nothing;
        (1..=up_to.min(self.now())).rev().find(of_key).unwrap_or(0)
    }

    /// The time and the number in it of the next event that the feed brings.
    fn next_event(&self) -> Option<(Time, u8)> {
        let (time, taken) = self.position;
        if time > 0 && taken < self.log[usize::from(time) - 1].items() {
            return Some((time, taken));
        }
        (time < self.now()).then_some((time + 1, 0))
    }
}

impl Fence {
    fn feed(&self, state: &mut State) {
        let Some((time, index)) = state.next_event() else {
            return;
        };
        let event = state.log[usize::from(time) - 1];
        match (event, index) {
            (Event::Write, _) | (Event::Transaction, 1) => {
                state
                    .fences
                    .step(|c| c.raise_todo(todo(KEY).as_str(), at(time)));
            }
            (Event::Transaction, _) => {
                state
                    .fences
                    .step(|c| c.raise_todo(todo(OTHER).as_str(), at(time)));
            }
            (Event::Drop, _) if !self.has(Mutation::DdlIgnored) => {
                state.fences.step(|c| c.raise_floor(at(time)));
            }
            _ => {}
        }
        let alone = self.bounds.alone && event != Event::Transaction;
        let closed = state.closing.add(at(time), alone, None).expect("in order");
        let mut frontier = small(closed.frontier);
        if self.has(Mutation::FrontierInsideTransaction) {
            frontier = time;
        }
        state.position = (time, index + 1);
        state.then = Some(Then::Advance(frontier));
    }

    /// The feed broke and goes on. Right after the last event, so nothing
    /// happens: only the wrong ways of it are steps.
    fn resume(&self, state: &mut State) {
        let (time, _) = state.position;
        if self.has(Mutation::ResumeByTime) {
            state.position.1 = state.log[usize::from(time) - 1].items();
        }
        if self.has(Mutation::ResumeClosesTime) && state.closing.is_open() {
            state.closing.discard_open();
            state.then = Some(Then::Advance(time));
        }
    }

    fn lose_history(&self, state: &mut State) {
        state.log.push(Event::Nothing);
        state.losses += 1;
        let start = state.now();
        state.closing.discard_open();
        state.position = (start, 1);
        if self.has(Mutation::FrontierBeforeFloor) {
            state.fences.step(|c| c.advance(at(start)));
            state.then = Some(Then::RaiseFloor(start));
            return;
        }
        if !self.has(Mutation::NoFloorAfterLostHistory) {
            state.fences.step(|c| c.raise_floor(at(start)));
        }
        state.then = Some(Then::Advance(start));
    }

    fn restart(&self, state: &mut State) {
        state.log.push(Event::Nothing);
        let start = state.now().saturating_sub(1 + REPLAY);
        state.restarts += 1;
        state.fences = Fences::placed(start);
        if self.has(Mutation::NoFloorAfterRestart) {
            state.fences.floor = 0;
        }
        state.position = (start, u8::MAX);
        if start > 0 {
            state.position.1 = state.log[usize::from(start) - 1].items();
        }
        state.closing = CommitGroups::default();
        state.then = None;
        state.near = None;
        state.flights = SingleFlight::default();
        state.asked = None;
        state.readers = [Reader::Idle; 2];
    }

    /// The first number that a check reads, which one it is being the point.
    fn first(&self, fences: &Fences) -> Time {
        match self.mutation {
            Some(Mutation::FrontierAfterFence) => fences.todos[KEY],
            Some(Mutation::FloorBeforeFrontier) => fences.floor,
            _ => fences.frontier,
        }
    }

    /// The rest of the check, by the real code. What it reads after the first
    /// only rises, so reading it at one moment is the weakest case.
    fn view(&self, fences: &Fences, first: Time) -> Viewed {
        let mut as_read = *fences;
        match self.mutation {
            Some(Mutation::FrontierAfterFence) => as_read.todos[KEY] = first,
            Some(Mutation::FloorBeforeFrontier) => as_read.floor = first,
            _ => as_read.frontier = first,
        }
        let mut view = as_read.view_todo(KEY);
        if self.has(Mutation::NoFenceCheck) {
            view.min_as_of = 0;
        }
        view
    }

    fn look(&self, state: &mut State, reader: usize, first: Time) {
        let view = self.view(&state.fences, first);
        state.readers[reader] = Reader::Asking(view);
        let Some(stamp) = state.near else { return };
        if let Some(hit) = view.real().admit(at(stamp.as_of), OriginTime::ZERO) {
            let answer = Answer {
                fresh_to: small(hit.fresh_to),
                stamp,
                tier: Tier::Near,
            };
            state.answers[reader] = Some(answer);
            state.readers[reader] = Reader::Idle;
        }
    }

    fn lookup_shared(&self, state: &mut State, reader: usize, view: Viewed, entry: Option<Stamp>) {
        let believed = |stamp: &Stamp| {
            let before = |time: OriginTime| at(small(time).saturating_sub(INTERVAL));
            let proven = at(state.fences.frontier);
            self.has(Mutation::FutureStampBelieved)
                || Consistency::MinimizeLatency.believes(at(stamp.as_of), proven, before)
        };
        let hit = entry
            .filter(believed)
            .and_then(|stamp| Some((stamp, view.real().admit(at(stamp.as_of), OriginTime::ZERO)?)));
        let Some((stamp, hit)) = hit else {
            return self.join(state, reader, view);
        };
        keep(&mut state.near, stamp);
        let mut proof = view;
        if self.has(Mutation::RenewalByLaterFrontier) {
            proof.frontier = state.fences.frontier;
        }
        let value = Stamped {
            as_of: at(stamp.as_of),
            value: Value::Absent,
        };
        let as_of = small(renewed(&value, &proof.real()).as_of);
        state.shared.put(Stamp {
            as_of,
            version: stamp.version,
        });
        state.answers[reader] = Some(Answer {
            fresh_to: small(hit.fresh_to),
            stamp,
            tier: Tier::Shared,
        });
        state.readers[reader] = Reader::Idle;
    }

    fn join(&self, state: &mut State, reader: usize, view: Viewed) {
        let after = if self.has(Mutation::JoinAnyLoad) {
            0
        } else {
            view.min_as_of
        };
        state.readers[reader] = Reader::Waiting(view);
        let required = LoadRequirement {
            after: at(after),
            grace: None,
        };
        if state.flights.join(&(), required, reader) == Joined::First {
            self.begin_load(state);
        }
    }

    fn begin_load(&self, state: &mut State) {
        let base = state
            .fences
            .frontier
            .max(state.fences.view_todo(KEY).min_as_of);
        let after = small(state.flights.begin(&[()], at(base), Mono(0)));
        state.asked = Some(if self.has(Mutation::NoAfterClusterTime) {
            0
        } else {
            after
        });
    }

    /// The origin's state at `read_at`, which may be any time that is not
    /// below what was asked for.
    fn end_load(&self, state: &mut State, read_at: Time) {
        let version = state.latest(read_at);
        let as_of = match self.mutation {
            Some(Mutation::StampByOperationTime) => state.now(),
            Some(Mutation::StampByFrontierAtEnd) => state.fences.frontier,
            _ => read_at,
        };
        let stamp = Stamp { as_of, version };
        if as_of >= state.fences.view_todo(KEY).min_as_of {
            keep(&mut state.near, stamp);
            state.shared.put(stamp);
        }
        self.finish(state, Some(stamp));
    }

    fn finish(&self, state: &mut State, outcome: Option<Stamp>) {
        let (waiters, more) = state.flights.end(&());
        state.asked = None;
        for reader in waiters {
            if let (Reader::Waiting(view), Some(stamp)) = (state.readers[reader], outcome) {
                let hit = view.real().loaded(at(stamp.as_of));
                let answer = Answer {
                    fresh_to: small(hit.fresh_to),
                    stamp,
                    tier: Tier::Load,
                };
                state.answers[reader] = Some(answer);
            }
            state.readers[reader] = Reader::Idle;
        }
        if more {
            self.begin_load(state);
        }
    }
}

impl Model for Fence {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Vec::new(),
            fences: Fences::placed(0),
            position: (0, 0),
            closing: CommitGroups::default(),
            then: None,
            near: None,
            shared: Bag::default(),
            flights: SingleFlight::default(),
            asked: None,
            readers: [Reader::Idle; 2],
            restarts: 0,
            losses: 0,
            answers: [None; 2],
            fell: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now() < self.bounds.times {
            let events = [
                Event::Write,
                Event::Nothing,
                Event::Transaction,
                Event::Drop,
            ];
            actions.extend(events.map(Action::Commit));
        }
        if state.then.is_some() {
            actions.push(Action::Then);
        } else {
            actions.extend(state.next_event().map(|_| Action::Feed));
            let resumes_wrong =
                self.has(Mutation::ResumeByTime) || self.has(Mutation::ResumeClosesTime);
            if resumes_wrong && state.position.0 > 0 {
                actions.push(Action::Resume);
            }
            if state.losses < self.bounds.losses {
                actions.push(Action::LoseHistory);
            }
        }
        if state.restarts < self.bounds.restarts {
            actions.push(Action::Restart);
        }
        if self.bounds.forged {
            actions.push(Action::Forge);
        }
        if let Some(asked) = state.asked {
            actions.extend((asked..=state.now()).map(Action::EndLoad));
            actions.push(Action::FailLoad);
        }
        for (reader, place) in state.readers.iter().enumerate().take(self.bounds.readers) {
            match place {
                // The second reader is only for what meets in a load.
                Reader::Idle if reader == 0 || state.asked.is_some() => {
                    actions.push(Action::Read(reader));
                }
                Reader::Idle | Reader::Gone => {}
                Reader::First(_) => actions.push(Action::Look(reader)),
                Reader::Asking(_) => {
                    actions.push(Action::FromShared(reader, None));
                    actions.extend(
                        state
                            .shared
                            .all()
                            .map(|stamp| Action::FromShared(reader, Some(stamp))),
                    );
                }
                Reader::Waiting(_) => actions.push(Action::GoAway(reader)),
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.answers = [None; 2];
        match action {
            Action::Commit(event) => state.log.push(event),
            Action::Feed => self.feed(&mut state),
            Action::Then => match state.then.take()? {
                Then::Advance(frontier) => state.fences.step(|c| c.advance(at(frontier))),
                Then::RaiseFloor(floor) => state.fences.step(|c| c.raise_floor(at(floor))),
            },
            Action::Resume => self.resume(&mut state),
            Action::LoseHistory => self.lose_history(&mut state),
            Action::Restart => self.restart(&mut state),
            Action::Forge => state.shared.put(Stamp {
                as_of: FUTURE,
                version: state.latest(state.now()),
            }),
            Action::Read(reader) => {
                state.readers[reader] = Reader::First(self.first(&state.fences));
            }
            Action::Look(reader) => {
                let Reader::First(first) = state.readers[reader] else {
                    return None;
                };
                self.look(&mut state, reader, first);
            }
            Action::FromShared(reader, entry) => {
                let Reader::Asking(view) = state.readers[reader] else {
                    return None;
                };
                self.lookup_shared(&mut state, reader, view, entry);
            }
            Action::GoAway(reader) => state.readers[reader] = Reader::Gone,
            Action::EndLoad(read_at) => self.end_load(&mut state, read_at),
            Action::FailLoad => self.finish(&mut state, None),
        }
        state.fell = state.restarts == last.restarts && state.fences.fell_from(&last.fences);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn answer(state: &State, is: impl Fn(&Answer) -> bool) -> bool {
            state.answers.iter().flatten().any(is)
        }
        vec![
            Property::<Self>::always(
                "I1 no answer misses a change up to what it is fresh to",
                |_, state| {
                    !answer(state, |given| {
                        given.stamp.version < state.latest(given.fresh_to)
                    })
                },
            ),
            Property::<Self>::always("I5 frontier, fence and floor never fall", |_, state| {
                !state.fell
            }),
            Property::<Self>::always(
                "I5 the frontier never passes a change that is in neither",
                |_, state| {
                    let passed = state.latest(state.fences.frontier);
                    passed <= state.fences.floor.max(state.fences.todos[KEY])
                },
            ),
            Property::<Self>::sometimes("near answers fresher than its stamp", |_, state| {
                answer(state, |given| {
                    given.tier == Tier::Near && given.fresh_to > given.stamp.as_of
                })
            }),
            Property::<Self>::sometimes("a load is answered though overtaken", |_, state| {
                answer(state, |given| {
                    given.tier == Tier::Load
                        && given.stamp.as_of < state.fences.todos[KEY].max(state.fences.floor)
                })
            }),
            Property::<Self>::sometimes("an entry is renewed", |_, state| {
                state.shared.all().any(|stamp| {
                    stamp.as_of > stamp.version
                        && state.near.is_some_and(|near| near.as_of < stamp.as_of)
                })
            }),
            Property::<Self>::sometimes(
                "a transaction is held open while the other key is raised",
                |_, state| state.fences.todos[OTHER] > state.fences.todos[KEY],
            ),
            Property::<Self>::sometimes("two readers share a load", |_, state| {
                state.answers.iter().all(Option::is_some)
            }),
            Property::<Self>::sometimes(
                "an entry from before the restart is answered",
                |_, state| {
                    let before = |given: &Answer| {
                        given.tier == Tier::Shared && given.stamp.as_of + 1 < state.now()
                    };
                    state.restarts > 0
                        && state.log.last() == Some(&Event::Nothing)
                        && answer(state, before)
                },
            ),
        ]
    }
}
