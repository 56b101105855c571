//! Readers of one key and the loads that they wait for: who may join which,
//! how many there are, and how long one waits.
//!
//! Mirrors `loader/mod.rs` and the read path of `cache/read.rs` from the near cache to it. A
//! reader looks into near, asks the shared tier (which has nothing here), and
//! then joins: a load may end meanwhile.

use stateright::{Model, Property};
use tidemark::{
    coherence::{Joined, LoadRequirement, SingleFlight},
    model::Mono,
};

use crate::{
    mutations::Mutation,
    parts::{Time, at, small},
};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    readers: usize,
    /// Changes of the key, as they come to its fence.
    changes: Time,
    /// How often the need of new readers rises without a change.
    needs: Time,
    fails: u8,
}

const FEW: Bounds = Bounds {
    readers: 3,
    changes: 2,
    needs: 1,
    fails: 1,
};
pub const SMALL: &[Bounds] = &[FEW];
pub const LARGE: &[Bounds] = &[
    Bounds {
        readers: 4,
        changes: 3,
        ..FEW
    },
    Bounds {
        readers: 4,
        needs: 2,
        ..FEW
    },
];

pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::JoinAnyLoad, "I1", FEW),
    (Mutation::NextFixedByFirst, "I1", FEW),
    (Mutation::ForgedTokenJoins, "I2", FEW),
    (Mutation::NoJoining, "I7 at most", FEW),
    (Mutation::NoSecondLook, "I7 a change", FEW),
];

/// The model.
pub struct Joins {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Joins {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    /// Near had nothing that reaches this.
    Asking(Time),
    /// What it requires, and how many loads have ended since it waits.
    Waiting(Time, u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The origin's time.
    now: Time,
    fence: Time,
    /// What a reader that arrives now needs, whatever the fence is.
    need: Time,
    near: Option<Time>,
    flights: SingleFlight<(), usize>,
    /// What each load under way at the origin has to reach, and for whom it
    /// is where loads are not joined.
    asked: Vec<(Time, Option<usize>)>,
    /// What the first waiter of the next load requires.
    first_of_next: Option<Time>,
    readers: Vec<Reader>,
    changes: u8,
    needs: u8,
    fails: u8,
    loads: u8,
    /// In the last step: a reader got this, having required that.
    got: Option<(Time, Time)>,
    /// In the last step an honest reader was refused though the origin is up.
    refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Change,
    NeedRises,
    Look(usize),
    Join(usize),
    Forge(usize),
    EndLoad(usize, Time),
    FailLoad,
}

/// A time that no honest token has.
const FORGED: Time = 100;

impl Joins {
    fn join(&self, state: &mut State, reader: usize, required: Time) {
        if self.has(Mutation::NoJoining) {
            state.readers[reader] = Reader::Waiting(required, 0);
            state.asked.push((required.max(state.fence), Some(reader)));
            state.loads += 1;
            return;
        }
        // A load may have finished since the near cache was asked.
        let is_kept = state.near.is_some_and(|as_of| as_of >= required);
        if !self.has(Mutation::NoSecondLook) && !state.flights.has(&()) && is_kept {
            state.readers[reader] = Reader::Idle;
            state.got = state.near.map(|as_of| (as_of, required));
            return;
        }
        state.readers[reader] = Reader::Waiting(required, 0);
        let mut after = required;
        if self.has(Mutation::JoinAnyLoad) {
            after = 0;
        }
        if self.has(Mutation::NextFixedByFirst) {
            after = after.min(state.first_of_next.unwrap_or(after));
        }
        match state.flights.join(
            &(),
            LoadRequirement {
                after: at(after),
                grace: None,
            },
            reader,
        ) {
            Joined::First => self.begin(state),
            Joined::Next => state.first_of_next = state.first_of_next.or(Some(after)),
            Joined::Running => {}
        }
    }

    fn begin(&self, state: &mut State) {
        // Neither frontier nor heartbeat are known to be newer than the fence.
        let base = if self.has(Mutation::NextFixedByFirst) {
            0
        } else {
            state.fence
        };
        let after = small(state.flights.begin(&[()], at(base), Mono(0)));
        state.asked.push((after, None));
        state.first_of_next = None;
        state.loads += 1;
    }

    /// `None`: the load failed.
    fn end(&self, state: &mut State, load: usize, as_of: Option<Time>) {
        let (_, alone) = state.asked.remove(load);
        if let Some(as_of) = as_of.filter(|as_of| *as_of >= state.fence) {
            state.near = state.near.max(Some(as_of));
        }
        let (waiters, more) = match alone {
            Some(reader) => (vec![reader], false),
            None => state.flights.end(&()),
        };
        for reader in waiters {
            if let (Reader::Waiting(required, _), Some(as_of)) = (state.readers[reader], as_of) {
                let worse = |got: (Time, Time)| i16::from(got.0) - i16::from(got.1);
                let this = (as_of, required);
                state.got = Some(
                    state
                        .got
                        .filter(|got| worse(*got) < worse(this))
                        .unwrap_or(this),
                );
            }
            state.readers[reader] = Reader::Idle;
        }
        for reader in &mut state.readers {
            if let Reader::Waiting(_, ends) = reader {
                *ends += 1;
            }
        }
        if more {
            self.begin(state);
        }
    }
}

impl Model for Joins {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            fence: 0,
            need: 0,
            near: None,
            flights: SingleFlight::default(),
            asked: Vec::new(),
            first_of_next: None,
            readers: vec![Reader::Idle; self.bounds.readers],
            changes: 0,
            needs: 0,
            fails: 0,
            loads: 0,
            got: None,
            refused: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.changes < self.bounds.changes {
            actions.push(Action::Change);
        }
        if state.needs < self.bounds.needs {
            actions.push(Action::NeedRises);
        }
        for (load, (asked, _)) in state.asked.iter().enumerate() {
            if *asked > state.now {
                // The origin answers that it has not got there.
                actions.push(Action::EndLoad(load, Time::MAX));
            }
            actions.extend((*asked..=state.now).map(|as_of| Action::EndLoad(load, as_of)));
        }
        if state.fails < self.bounds.fails && state.asked.len() == 1 {
            actions.push(Action::FailLoad);
        }
        for (reader, place) in state.readers.iter().enumerate() {
            match place {
                Reader::Idle => {
                    actions.push(Action::Look(reader));
                    if self.has(Mutation::ForgedTokenJoins) {
                        actions.push(Action::Forge(reader));
                    }
                    // All that are idle are alike.
                    break;
                }
                Reader::Asking(_) => actions.push(Action::Join(reader)),
                Reader::Waiting(..) => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        (state.got, state.refused) = (None, false);
        match action {
            Action::Change => {
                state.now += 1;
                state.fence = state.now;
                state.changes += 1;
            }
            Action::NeedRises => {
                state.now += 1;
                state.need = state.now;
                state.needs += 1;
            }
            Action::Look(reader) => {
                let required = state.fence.max(state.need);
                if state.near.is_some_and(|as_of| as_of >= required) {
                    return None;
                }
                state.readers[reader] = Reader::Asking(required);
            }
            Action::Join(reader) => {
                let Reader::Asking(required) = state.readers[reader] else {
                    return None;
                };
                self.join(&mut state, reader, required);
            }
            Action::Forge(reader) => self.join(&mut state, reader, FORGED),
            Action::EndLoad(load, Time::MAX) => {
                let honest = |place: &&Reader| matches!(place, Reader::Waiting(..));
                let is_forged = |place: &Reader| matches!(place, Reader::Waiting(FORGED, _));
                let before = state
                    .readers
                    .iter()
                    .filter(honest)
                    .filter(|p| !is_forged(p))
                    .count();
                self.end(&mut state, load, None);
                let after = state
                    .readers
                    .iter()
                    .filter(honest)
                    .filter(|p| !is_forged(p))
                    .count();
                state.refused = after < before;
            }
            Action::EndLoad(load, as_of) => self.end(&mut state, load, Some(as_of)),
            Action::FailLoad => {
                state.fails += 1;
                self.end(&mut state, 0, None);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(
                "I1 a load answers only those for whom it began late enough",
                |_, state| state.got.is_none_or(|(as_of, required)| as_of >= required),
            ),
            Property::<Self>::always("I2 a forged token spoils nobody else's read", |_, state| {
                !state.refused
            }),
            Property::<Self>::always(
                "I7 at most two loads of a key, one of them waiting",
                |_, state| state.asked.len() <= 1,
            ),
            Property::<Self>::always("I7 a change costs a hot key one load", |_, state| {
                state.loads <= 1 + state.changes + state.needs + state.fails
            }),
            Property::<Self>::always("I7 a reader waits for two ends at most", |_, state| {
                state
                    .readers
                    .iter()
                    .all(|place| !matches!(place, Reader::Waiting(_, 2..)))
            }),
            Property::<Self>::sometimes(
                "a reader waits for the load after the one under way",
                |_, state| {
                    state
                        .readers
                        .iter()
                        .any(|place| matches!(place, Reader::Waiting(_, 1)))
                },
            ),
            Property::<Self>::sometimes("a change costs no less than one load", |_, state| {
                state.changes > 1 && state.loads == 1 + state.changes
            }),
            Property::<Self>::sometimes(
                "readers of different need share the next load",
                |_, state| {
                    let waiting = |place: &&Reader| matches!(place, Reader::Waiting(..));
                    state.readers.iter().filter(waiting).count() == state.readers.len()
                        && state.asked.len() == 1
                        && state
                            .first_of_next
                            .is_some_and(|first| first < state.fence.max(state.need))
                },
            ),
        ]
    }
}
