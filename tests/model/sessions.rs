//! One client that goes from replica to replica with the last token that it
//! was given: two replicas, two keys, reads of one or both. The steps of one
//! replica are whole here; what can come between them is the business of
//! `fence`.
//!
//! Mirrors `cache/read.rs` (`todos`, `load`, `facts`) and `cache/write.rs`.

use stateright::{Model, Property};
use tidemark::{
    coherence::{Admitted, Consistency, LoadRequirement, SingleFlight},
    model::Mono,
};

use crate::{
    mutations::Mutation,
    parts::{Fences, Stamp, Time, Viewed, at, keep, small, todo},
};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Times at which something is written.
    times: Time,
    /// Replicas through which the client writes.
    writers: usize,
}

pub const SMALL: &[Bounds] = &[Bounds {
    times: 2,
    writers: 1,
}];
pub const LARGE: &[Bounds] = &[
    Bounds {
        times: 3,
        writers: 1,
    },
    Bounds {
        times: 2,
        writers: 2,
    },
];

pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::LowerBoundStamps, "I2", SMALL[0]),
    (Mutation::TokenBelowPresented, "I2", SMALL[0]),
    (Mutation::TokenByNewerFrontier, "I2", SMALL[0]),
    (Mutation::ReadByFreshTo, "I2", SMALL[0]),
];

/// The model.
pub struct Sessions {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Sessions {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Replica {
    fences: Fences,
    near: [Option<Stamp>; 2],
}

/// One part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Unasked,
    Found {
        version: Time,
        fresh_to: Time,
        seen: Time,
    },
    Missing(Viewed),
}

/// A read whose missing parts are being loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reading {
    replica: usize,
    parts: [Part; 2],
    after: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Token {
    seen: Time,
    fresh_to: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    versions: [Option<Time>; 2],
    presented: Time,
    /// What the client had seen before.
    known: [Time; 2],
    token: Token,
    loaded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Which key was written at each time.
    log: Vec<usize>,
    replicas: [Replica; 2],
    reading: Option<Reading>,
    token: Token,
    known: [Time; 2],
    /// Given in the last step.
    answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Straight in the database.
    Commit(usize),
    /// By the client, through a replica.
    Write(usize, usize),
    Feed(usize),
    /// From a replica, of these keys.
    Read(usize, [bool; 2]),
    EndLoad(Time),
}

impl State {
    fn now(&self) -> Time {
        Time::try_from(self.log.len()).expect("few")
    }

    fn latest(&self, key: usize, up_to: Time) -> Time {
        let written = |time: &Time| self.log[usize::from(*time) - 1] == key;
        (1..=up_to.min(self.now())).rev().find(written).unwrap_or(0)
    }
}

fn found(version: Time, hit: Admitted) -> Part {
    Part::Found {
        version,
        fresh_to: small(hit.fresh_to),
        seen: small(hit.seen),
    }
}

impl Sessions {
    /// What the client asks for: its last token.
    fn presented(&self, state: &State) -> Time {
        if self.has(Mutation::ReadByFreshTo) {
            state.token.fresh_to
        } else {
            state.token.seen
        }
    }

    fn read(&self, state: &mut State, replica: usize, keys: [bool; 2]) {
        let need = self.presented(state);
        let mut reading = Reading {
            replica,
            parts: [Part::Unasked; 2],
            after: 0,
        };
        let mut flights = SingleFlight::default();
        let Replica { fences, near } = state.replicas[replica];
        for key in (0..2).filter(|key| keys[*key]) {
            let view = fences.view_todo(key);
            let hit = near[key]
                .and_then(|stamp| Some((stamp, view.real().admit(at(stamp.as_of), at(need))?)));
            reading.parts[key] = if let Some((stamp, hit)) = hit {
                found(stamp.version, hit)
            } else {
                flights.join(
                    &key,
                    LoadRequirement {
                        after: at(view.min_as_of.max(need)),
                        grace: None,
                    },
                    (),
                );
                Part::Missing(view)
            };
        }
        if flights.is_empty() {
            return self.answer(state, reading, false);
        }
        let missing: Vec<_> = (0..2).filter(|key| flights.has(key)).collect();
        let bars = missing.iter().map(|key| fences.view_todo(*key).min_as_of);
        let base = bars.fold(fences.frontier, Time::max);
        reading.after = small(flights.begin(&missing, at(base), Mono(0)));
        state.reading = Some(reading);
    }

    fn end_load(&self, state: &mut State, mut reading: Reading, read_at: Time) {
        let as_of = if self.has(Mutation::LowerBoundStamps) {
            reading.after
        } else {
            read_at
        };
        for key in 0..2 {
            let Part::Missing(mut view) = reading.parts[key] else {
                continue;
            };
            let version = state.latest(key, read_at);
            let replica = &mut state.replicas[reading.replica];
            if as_of >= replica.fences.view_todo(key).min_as_of {
                keep(&mut replica.near[key], Stamp { as_of, version });
            }
            if self.has(Mutation::TokenByNewerFrontier) {
                view.frontier = replica.fences.frontier;
            }
            let overtaken = Admitted {
                fresh_to: at(as_of),
                seen: at(as_of),
            };
            let hit = view.real().admissible(at(as_of)).unwrap_or(overtaken);
            reading.parts[key] = found(version, hit);
        }
        self.answer(state, reading, true);
    }

    fn answer(&self, state: &mut State, reading: Reading, loaded: bool) {
        let presented = self.presented(state);
        let mut seen = if self.has(Mutation::TokenBelowPresented) {
            0
        } else {
            small(Consistency::AtLeastAsFresh(at(presented)).without_age())
        };
        let (mut least, mut versions) = (Time::MAX, [None; 2]);
        for (key, part) in reading.parts.into_iter().enumerate() {
            let Part::Found {
                version,
                fresh_to,
                seen: of_part,
            } = part
            else {
                continue;
            };
            versions[key] = Some(version);
            (least, seen) = (least.min(fresh_to), seen.max(of_part));
        }
        let token = Token {
            seen,
            fresh_to: least,
        };
        state.answer = Some(Answer {
            versions,
            presented: state.token.seen,
            known: state.known,
            token,
            loaded,
        });
        for (known, version) in state.known.iter_mut().zip(versions) {
            *known = version.unwrap_or(0).max(*known);
        }
        state.token = token;
    }
}

impl Model for Sessions {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let replica = Replica {
            fences: Fences::placed(0),
            near: [None; 2],
        };
        vec![State {
            log: Vec::new(),
            replicas: [replica; 2],
            reading: None,
            token: Token {
                seen: 0,
                fresh_to: 0,
            },
            known: [0; 2],
            answer: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..2 {
            if state.replicas[replica].fences.frontier < state.now() {
                actions.push(Action::Feed(replica));
            }
        }
        if state.now() < self.bounds.times {
            actions.extend([0, 1].map(Action::Commit));
        }
        if let Some(reading) = state.reading {
            actions.extend((reading.after..=state.now()).map(Action::EndLoad));
            return;
        }
        for replica in 0..2 {
            let keys = [[true, false], [false, true], [true, true]];
            actions.extend(keys.map(|keys| Action::Read(replica, keys)));
            if state.now() < self.bounds.times && replica < self.bounds.writers {
                actions.extend([0, 1].map(|key| Action::Write(replica, key)));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.answer = None;
        match action {
            Action::Commit(key) => state.log.push(key),
            Action::Write(replica, key) => {
                state.log.push(key);
                let time = state.now();
                state.replicas[replica]
                    .fences
                    .step(|c| c.raise_todo(todo(key).as_str(), at(time)));
                state.token = Token {
                    seen: time,
                    fresh_to: time,
                };
                state.known[key] = time;
            }
            Action::Feed(replica) => {
                let fences = &mut state.replicas[replica].fences;
                let time = fences.frontier + 1;
                let key = state.log[usize::from(time) - 1];
                fences.step(|c| c.raise_todo(todo(key).as_str(), at(time)));
                fences.step(|c| c.advance(at(time)));
            }
            Action::Read(replica, keys) => self.read(&mut state, replica, keys),
            Action::EndLoad(read_at) => {
                let reading = state.reading.take()?;
                self.end_load(&mut state, reading, read_at);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn every(state: &State, holds: impl Fn(&Answer, usize, Time) -> bool) -> bool {
            let Some(answer) = &state.answer else {
                return true;
            };
            (0..2).all(|key| answer.versions[key].is_none_or(|version| holds(answer, key, version)))
        }
        vec![
            Property::<Self>::always(
                "I1 no answer misses a change up to what it is fresh to",
                |_, state| {
                    every(state, |answer, key, version| {
                        version >= state.latest(key, answer.token.fresh_to)
                    })
                },
            ),
            Property::<Self>::always(
                "I2 nothing goes back along the tokens of one client",
                |_, state| every(state, |answer, key, version| version >= answer.known[key]),
            ),
            Property::<Self>::always(
                "I2 no answer is older than the token presented",
                |_, state| {
                    every(state, |answer, key, version| {
                        version >= state.latest(key, answer.presented)
                    })
                },
            ),
            Property::<Self>::sometimes(
                "an answer of two parts is fresher than its token's least",
                |_, state| {
                    state
                        .answer
                        .is_some_and(|answer| answer.token.seen > answer.token.fresh_to)
                },
            ),
            Property::<Self>::sometimes(
                "a token is answered from near, without a load",
                |_, state| {
                    state
                        .answer
                        .is_some_and(|answer| answer.presented > 0 && !answer.loaded)
                },
            ),
            Property::<Self>::sometimes("what a client knows was never at one time", |_, state| {
                state.known[0] > 0 && state.known[1] > 0 && state.token.fresh_to < state.token.seen
            }),
        ]
    }
}
