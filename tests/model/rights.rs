//! One caller whose right on a list is withdrawn, granted again and made unreadable
//! while it reads, writes and watches: one replica, one todo, the document of its list.
//! The steps of a call are single, so that changes, the feed and a restart come between
//! them; those within one step are the business of `fence`.
//!
//! Mirrors `cache/rights.rs`, `cache/watch.rs` and `cache/calls.rs`. The second key of
//! the todos' table stands for the document, whose stripe is in the same table.

use std::sync::Arc;

use stateright::{Model, Property};
use tidemark::{
    model::{Change, ChangeKind, Event, OriginTime, Touched},
    watch::ConflatingQueue,
};

use crate::{
    mutations::Mutation,
    parts::{Fences, Stamp, Time, Viewed, at, keep, list, small, todo},
};

/// The todo, and the document.
const TODO: usize = 0;
const LIST: usize = 1;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Times at which something is committed.
    times: Time,
    restarts: u8,
    watches: bool,
}

const CALLS: Bounds = Bounds {
    times: 2,
    restarts: 1,
    watches: false,
};
const WATCH: Bounds = Bounds {
    times: 3,
    restarts: 0,
    watches: true,
};
pub const SMALL: &[Bounds] = &[CALLS, WATCH];
pub const LARGE: &[Bounds] = &[Bounds { times: 3, ..CALLS }, Bounds { times: 4, ..WATCH }];

pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::RightLookedAtOnce, "I8 no answer", CALLS),
    (Mutation::OldRightForNewState, "I8 no answer", CALLS),
    (Mutation::UnreadableListAllows, "I8 no answer", CALLS),
    (Mutation::RightBeforeRestart, "I8 no answer", CALLS),
    (Mutation::WriteByCachedRight, "I8 no write", CALLS),
    (Mutation::WatchCheckedAtStart, "I8 no message", WATCH),
    (Mutation::ListAfterItsTodos, "I8 no message", WATCH),
];

/// The model.
pub struct Rights {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Rights {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// What a commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Commit {
    Todo,
    Grant,
    Revoke,
    /// The document can no longer be read.
    Spoil,
    /// In one transaction; the feed gives the todo first.
    TodoAndRevoke,
}

impl Commit {
    const fn is_of(self, key: usize) -> bool {
        match self {
            Self::Todo => key == TODO,
            Self::Grant | Self::Revoke | Self::Spoil => key == LIST,
            Self::TodoAndRevoke => true,
        }
    }
}

/// What a read found, and what its token says that it has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shown {
    version: Time,
    seen: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Read,
    /// Began when this was acknowledged.
    Write(Time),
    /// The check after the list's document changed.
    Watch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Looks for the document, as fresh as this.
    Look(Time, Option<Shown>),
    LoadList(Viewed, Time, Option<Shown>),
    /// With a right that is fresh to this.
    ReadTodo(Time),
    LoadTodo(Viewed, Time, Time),
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Call {
    kind: Kind,
    need: Time,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What was committed at each time. Everybody is told of it at once.
    log: Vec<Commit>,
    fences: Fences,
    /// Of near, or of the shared tier after a restart.
    kept: [Option<Stamp>; 2],
    call: Option<Call>,
    watch: Option<ConflatingQueue>,
    restarts: u8,
    /// In the last step: an answer that showed this version, and what it needed.
    answer: Option<(Time, Time)>,
    /// A write that began at the first time was committed at the second.
    wrote: Option<(Time, Time)>,
    /// A message told of a change of this time.
    told: Option<Time>,
    refused_after_load: bool,
    watch_ended: bool,
    looked_again: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Commit(Commit),
    Feed,
    Restart,
    /// `true`: fully consistent.
    Read(bool),
    Write,
    /// The watch takes its next event.
    Pop,
    Step,
    EndLoad(Time),
}

impl State {
    fn now(&self) -> Time {
        Time::try_from(self.log.len()).expect("few")
    }

    fn latest(&self, key: usize, up_to: Time) -> Time {
        let is_of = |time: &Time| self.log[usize::from(*time) - 1].is_of(key);
        (1..=up_to.min(self.now())).rev().find(is_of).unwrap_or(0)
    }

    /// What the document of this version says. At first it grants.
    fn document(&self, version: Time) -> Commit {
        let index = usize::from(version).checked_sub(1);
        index.map_or(Commit::Grant, |index| self.log[index])
    }

    /// Whether the caller had the right at some time of the range.
    fn had_right(&self, from: Time, to: Time) -> bool {
        let allows = |time| self.document(self.latest(LIST, time)) == Commit::Grant;
        (from..=to).any(allows)
    }
}

impl Rights {
    fn view(&self, state: &State, key: usize) -> Viewed {
        let view = state.fences.view_todo(key);
        if key == LIST && self.has(Mutation::RightBeforeRestart) {
            let min_as_of = state.fences.todos[key];
            return Viewed { min_as_of, ..view };
        }
        view
    }

    fn step(&self, state: &mut State, mut call: Call) {
        match call.step {
            Step::Look(need, shown) => {
                let view = self.view(state, LIST);
                let hit = state.kept[LIST].and_then(|stamp| {
                    let admitted = view.real().admit(at(stamp.as_of), at(need))?;
                    Some((stamp.version, small(admitted.fresh_to)))
                });
                if let Some((version, fresh_to)) = hit {
                    return self.decide(state, call, version, fresh_to, shown);
                }
                let after = view.min_as_of.max(need).max(view.frontier);
                call.step = Step::LoadList(view, after, shown);
            }
            Step::ReadTodo(right) => {
                let view = self.view(state, TODO);
                let hit = state.kept[TODO].and_then(|stamp| {
                    let admitted = view.real().admit(at(stamp.as_of), at(call.need))?;
                    let seen = small(admitted.seen);
                    let version = stamp.version;
                    Some(Shown { version, seen })
                });
                if let Some(shown) = hit {
                    return self.confirm(state, call, right, shown);
                }
                let after = view.min_as_of.max(call.need).max(view.frontier);
                call.step = Step::LoadTodo(view, after, right);
            }
            Step::Commit => {
                let Kind::Write(began) = call.kind else {
                    return;
                };
                state.log.push(Commit::Todo);
                let time = state.now();
                let name = todo(TODO).as_str();
                state
                    .fences
                    .step(|fences| fences.raise_todo(name, at(time)));
                state.wrote = Some((began, time));
                return;
            }
            Step::LoadList(..) | Step::LoadTodo(..) => {}
        }
        state.call = Some(call);
    }

    fn end_load(&self, state: &mut State, call: Call, as_of: Time) {
        let key = match call.step {
            Step::LoadList(..) => LIST,
            _ => TODO,
        };
        let version = state.latest(key, as_of);
        if as_of >= state.fences.view_todo(key).min_as_of {
            keep(&mut state.kept[key], Stamp { as_of, version });
        }
        match call.step {
            Step::LoadList(view, _, shown) => {
                let fresh_to = small(view.real().loaded(at(as_of)).fresh_to);
                self.decide(state, call, version, fresh_to, shown);
            }
            Step::LoadTodo(view, _, right) => {
                let seen = small(view.real().loaded(at(as_of)).seen);
                self.confirm(state, call, right, Shown { version, seen });
            }
            Step::Look(..) | Step::ReadTodo(_) | Step::Commit => {}
        }
    }

    /// By a document of this version, which is fresh to that time.
    fn decide(
        &self,
        state: &mut State,
        mut call: Call,
        version: Time,
        fresh_to: Time,
        shown: Option<Shown>,
    ) {
        let allows = match state.document(version) {
            Commit::Grant => true,
            Commit::Spoil => self.has(Mutation::UnreadableListAllows),
            _ => false,
        };
        if !allows {
            state.refused_after_load = shown.is_some();
            if call.kind == Kind::Watch {
                (state.watch, state.watch_ended) = (None, true);
            }
            return;
        }
        call.step = match (call.kind, shown) {
            (Kind::Read, None) => Step::ReadTodo(fresh_to),
            (Kind::Read, Some(shown)) => {
                state.looked_again = true;
                state.answer = Some((shown.version, call.need));
                return;
            }
            (Kind::Write(_), _) => Step::Commit,
            (Kind::Watch, _) => return,
        };
        state.call = Some(call);
    }

    /// The second look, if the answer has seen more than the right.
    fn confirm(&self, state: &mut State, mut call: Call, right: Time, shown: Shown) {
        if right >= shown.seen || self.has(Mutation::RightLookedAtOnce) {
            state.answer = Some((shown.version, call.need));
            return;
        }
        let need = if self.has(Mutation::OldRightForNewState) {
            call.need
        } else {
            call.need.max(shown.seen)
        };
        call.step = Step::Look(need, Some(shown));
        state.call = Some(call);
    }

    fn feed(&self, state: &mut State) {
        let time = state.fences.frontier + 1;
        let commit = state.log[usize::from(time) - 1];
        let mut events = Vec::new();
        for key in [TODO, LIST] {
            if !commit.is_of(key) {
                continue;
            }
            let name = todo(key).as_str();
            state
                .fences
                .step(|fences| fences.raise_todo(name, at(time)));
            events.push(if key == LIST {
                Event::List(list().clone())
            } else {
                changed(time)
            });
        }
        if let Some(queue) = &mut state.watch {
            if self.has(Mutation::ListAfterItsTodos) {
                for event in events {
                    queue.push(at(time), std::iter::once(event));
                }
            } else {
                queue.push(at(time), events.into_iter());
            }
        }
        state.fences.step(|fences| fences.advance(at(time)));
    }

    fn pop(&self, state: &mut State) -> Option<()> {
        let next = state.watch.as_mut()?.pop()?;
        match next.event {
            Event::Change(change) => state.told = Some(small(change.time)),
            Event::List(_) if self.has(Mutation::WatchCheckedAtStart) => {}
            Event::List(_) | Event::Reset { .. } => {
                let need = small(next.seen);
                state.call = Some(Call {
                    kind: Kind::Watch,
                    need,
                    step: Step::Look(need, None),
                });
            }
        }
        Some(())
    }

    fn begin(state: &mut State, kind: Kind, need: Time) {
        let step = Step::Look(need, None);
        state.call = Some(Call { kind, need, step });
    }
}

fn changed(time: Time) -> Event {
    Event::Change(Arc::new(Change {
        name: todo(TODO).clone(),
        kind: ChangeKind::Updated,
        touched: Touched::All,
        time: at(time),
        wall_ms: 0,
    }))
}

impl Model for Rights {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = Stamp {
            as_of: 0,
            version: 0,
        };
        vec![State {
            log: Vec::new(),
            fences: Fences::placed(0),
            kept: [Some(start); 2],
            call: None,
            watch: self
                .bounds
                .watches
                .then(|| ConflatingQueue::after(OriginTime::ZERO)),
            restarts: 0,
            answer: None,
            wrote: None,
            told: None,
            refused_after_load: false,
            watch_ended: false,
            looked_again: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fences.frontier < state.now() {
            actions.push(Action::Feed);
        }
        if state.now() < self.bounds.times {
            use Commit::{Grant, Revoke, Spoil, Todo, TodoAndRevoke};
            let all = [Todo, Grant, Revoke, Spoil, TodoAndRevoke];
            actions.extend(all.map(Action::Commit));
        }
        if state.restarts < self.bounds.restarts {
            actions.push(Action::Restart);
        }
        match state.call.map(|call| call.step) {
            None if self.bounds.watches => actions.push(Action::Pop),
            None => {
                actions.extend([Action::Read(false), Action::Read(true)]);
                if state.now() < self.bounds.times {
                    actions.push(Action::Write);
                }
            }
            Some(Step::LoadList(_, after, _) | Step::LoadTodo(_, after, _)) => {
                actions.extend((after..=state.now()).map(Action::EndLoad));
            }
            Some(_) => actions.push(Action::Step),
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        (state.answer, state.wrote, state.told) = (None, None, None);
        (state.refused_after_load, state.watch_ended) = (false, false);
        state.looked_again = false;
        match action {
            Action::Commit(commit) => state.log.push(commit),
            Action::Feed => self.feed(&mut state),
            Action::Restart => {
                state.fences = Fences::placed(state.now());
                (state.call, state.restarts) = (None, state.restarts + 1);
            }
            Action::Read(strong) => {
                let need = if strong { state.now() } else { 0 };
                Self::begin(&mut state, Kind::Read, need);
            }
            Action::Write => {
                let began = state.now();
                let cached = self.has(Mutation::WriteByCachedRight);
                let need = if cached { 0 } else { began };
                Self::begin(&mut state, Kind::Write(began), need);
            }
            Action::Pop => self.pop(&mut state)?,
            Action::Step => {
                let call = state.call.take()?;
                self.step(&mut state, call);
            }
            Action::EndLoad(as_of) => {
                let call = state.call.take()?;
                self.end_load(&mut state, call, as_of);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(
                "I8 no answer shows a state from after a revocation",
                |_, state| {
                    let from = state.answer.map(|(version, need)| version.max(need));
                    from.is_none_or(|from| state.had_right(from, state.now()))
                },
            ),
            Property::<Self>::always(
                "I8 no write commits that began after a revocation",
                |_, state| {
                    let wrote = state.wrote;
                    wrote.is_none_or(|(began, time)| state.had_right(began, time))
                },
            ),
            Property::<Self>::always(
                "I8 no message tells of a change from after a revocation",
                |_, state| {
                    let told = state.told;
                    told.is_none_or(|time| state.had_right(time, state.now()))
                },
            ),
            Property::<Self>::sometimes("a second look is needed and allows", |_, state| {
                state.looked_again
            }),
            Property::<Self>::sometimes("a caller is refused by the second look", |_, state| {
                state.refused_after_load
            }),
            Property::<Self>::sometimes("a watch ends by a revocation", |_, state| {
                state.watch_ended
            }),
            Property::<Self>::sometimes("a write commits after its revocation", |_, state| {
                state.wrote.is_some() && !state.had_right(state.now(), state.now())
            }),
        ]
    }
}
