//! A page of a list and the todo in it: pages within their grace, torn pages,
//! own writes, and the token of an answer that has more than one part. The
//! list has one todo, which moves between two places; it stays within the
//! grace for as long as the model runs (that it ends is in `ages`).
//!
//! Mirrors `cache/read.rs` (`list`, `page_in_near`, `page_in_grace`, `load`,
//! `facts`), `loader/mod.rs` and `cache/write.rs`.

use stateright::{Model, Property};
use tidemark::{
    coherence::{Admitted, Consistency, Joined, LoadRequirement, SingleFlight},
    model::{Change, ChangeKind, Mono, OriginTime, Touched},
};

use crate::{
    mutations::Mutation,
    parts::{Fences, GRACE, Stamp, Time, Viewed, at, keep, list, small, todo},
};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Times at which something is written.
    times: Time,
    /// The client with its session, and one without who shares its loads.
    readers: usize,
}

const ALONE: Bounds = Bounds {
    times: 2,
    readers: 1,
};
pub const SMALL: &[Bounds] = &[ALONE];
pub const LARGE: &[Bounds] = &[
    Bounds { times: 3, ..ALONE },
    Bounds {
        readers: 2,
        ..ALONE
    },
];

pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::TornPage, "I1", ALONE),
    (Mutation::ListStripeNotRaised, "I1", ALONE),
    (Mutation::TokenOfPageAlone, "I2", ALONE),
    (Mutation::GraceFreshToFrontier, "I1", ALONE),
    (Mutation::GraceOverOwnWrite, "own writes", ALONE),
    (Mutation::GraceUnderToken, "I2", ALONE),
    (Mutation::WriterRaisesNothing, "own writes", ALONE),
    (Mutation::WriterRaisesTodoOnly, "own writes", ALONE),
];

/// The model.
pub struct Lists {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Lists {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// One write of the todo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// To the other place in the page.
    Move,
    /// Of its title only.
    Retitle,
}

/// The version of a page that never existed.
const TORN: Time = 7;

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    version: Time,
    fresh_to: Time,
    seen: Time,
    in_grace: bool,
}

/// What a read was given when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    presented: Option<Time>,
    /// The newest own write of this replica that was answered before.
    expected: (Time, Time),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    ForPage(Request, Viewed),
    /// Its page is here; the todos are looked up next.
    Page(Request, Part),
    ForTodo(Request, Part, Viewed, Time),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    request: Request,
    page: Part,
    todo: Part,
    known: (Time, Time),
    fresh_to: Time,
    of_client: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    log: Vec<Event>,
    fences: Fences,
    near_page: Option<Stamp>,
    near_todo: Option<Stamp>,
    flights: SingleFlight<(), usize>,
    asked: Option<Time>,
    readers: [Reader; 2],
    /// The newest own write that was answered: of the page, of the todo.
    own: (Time, Time),
    /// The `seen` of the client's last token, and what it has seen.
    token: Time,
    known: (Time, Time),
    answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Commit(Event),
    /// Through this replica, by somebody else than the client.
    Write(Event),
    Feed,
    Evict,
    List(usize),
    EndPage(Time),
    LookForTodos(usize),
    EndTodo(usize, Time),
}

fn change(event: Event, time: Time) -> Change {
    let path = if event == Event::Move {
        "due_time"
    } else {
        "title"
    };
    Change {
        name: todo(0).clone(),
        kind: ChangeKind::Updated,
        touched: Touched::Paths(vec![path.into()]),
        time: at(time),
        wall_ms: 0,
    }
}

impl State {
    fn now(&self) -> Time {
        Time::try_from(self.log.len()).expect("few")
    }

    fn latest(&self, up_to: Time, is: impl Fn(Event) -> bool) -> Time {
        (1..=up_to.min(self.now()))
            .rev()
            .find(|time| is(self.log[usize::from(*time) - 1]))
            .unwrap_or(0)
    }

    fn latest_page(&self, up_to: Time) -> Time {
        self.latest(up_to, |event| event == Event::Move)
    }

    fn latest_todo(&self, up_to: Time) -> Time {
        self.latest(up_to, |_| true)
    }

    /// In which place the todo is at a time.
    fn place(&self, time: Time) -> usize {
        self.log[..usize::from(time)]
            .iter()
            .filter(|event| **event == Event::Move)
            .count()
            % 2
    }

    fn view_list(&self) -> Viewed {
        self.fences.look(|c| c.view_list(list().as_str())).into()
    }
}

fn part(version: Time, hit: Admitted) -> Part {
    Part {
        version,
        fresh_to: small(hit.fresh_to),
        seen: small(hit.seen),
        in_grace: false,
    }
}

/// Fresh to its stamp only.
fn overtaken(as_of: Time) -> Admitted {
    Admitted {
        fresh_to: at(as_of),
        seen: at(as_of),
    }
}

impl Lists {
    fn consistency(request: &Request) -> Consistency {
        request
            .presented
            .map_or(Consistency::MinimizeLatency, |seen| {
                Consistency::AtLeastAsFresh(at(seen))
            })
    }

    fn need(request: &Request) -> OriginTime {
        Self::consistency(request).without_age()
    }

    /// What a page must reach to be answered though overtaken.
    fn grace(&self, state: &State, request: &Request) -> Option<OriginTime> {
        let mut fences = state.fences;
        if self.has(Mutation::GraceOverOwnWrite) {
            fences.own_list = 0;
        }
        let mut min_as_of = fences.look(|c| c.grace_min_as_of(list().as_str()));
        if !self.has(Mutation::GraceUnderToken) {
            min_as_of = min_as_of.max(Self::need(request));
        }
        Self::consistency(request)
            .allows_grace(GRACE)
            .then_some(min_as_of)
    }

    fn list(&self, state: &mut State, reader: usize) {
        let presented = (reader == 0).then_some(state.token);
        let request = Request {
            presented,
            expected: state.own,
        };
        let view = state.view_list();
        if let Some(part) = self.page_in_near(state, &request, &view) {
            state.readers[reader] = Reader::Page(request, part);
            return;
        }
        state.readers[reader] = Reader::ForPage(request, view);
        let after = at(view.min_as_of).max(Self::need(&request));
        let grace = self
            .grace(state, &request)
            .map(|min_as_of| (min_as_of, Mono(0)));
        if state
            .flights
            .join(&(), LoadRequirement { after, grace }, reader)
            == Joined::First
        {
            Self::begin(state);
        }
    }

    fn page_in_near(&self, state: &State, request: &Request, view: &Viewed) -> Option<Part> {
        let stamp = state.near_page?;
        let as_of = at(stamp.as_of);
        if let Some(min_as_of) = self.grace(state, request)
            && stamp.as_of < view.min_as_of
            && as_of >= min_as_of
        {
            let mut hit = overtaken(stamp.as_of);
            if self.has(Mutation::GraceFreshToFrontier) {
                hit.fresh_to = hit.fresh_to.max(at(view.frontier));
            }
            return Some(Part {
                in_grace: true,
                ..part(stamp.version, hit)
            });
        }
        Some(part(
            stamp.version,
            view.real().admit(as_of, Self::need(request))?,
        ))
    }

    fn begin(state: &mut State) {
        let base = state.fences.frontier.max(state.view_list().min_as_of);
        state.asked = Some(small(state.flights.begin(&[()], at(base), Mono(0))));
    }

    fn end_page(&self, state: &mut State, as_of: Time) {
        let asked = state.asked.take().unwrap_or_default();
        let mut version = state.latest_page(as_of);
        // A scan meets the first place early and the second one late: the todo
        // that moves from the second to the first meanwhile is in neither.
        if self.has(Mutation::TornPage)
            && (asked..as_of).any(|early| state.place(early) == 1)
            && state.place(as_of) == 0
        {
            version = TORN;
        }
        keep(&mut state.near_page, Stamp { as_of, version });
        let (waiters, more) = state.flights.end(&());
        for reader in waiters {
            let Reader::ForPage(request, view) = state.readers[reader] else {
                continue;
            };
            let admissible = view.real().admissible(at(as_of));
            let found = part(version, admissible.unwrap_or_else(|| overtaken(as_of)));
            let found = Part {
                in_grace: admissible.is_none(),
                ..found
            };
            state.readers[reader] = Reader::Page(request, found);
        }
        if more {
            Self::begin(state);
        }
    }

    fn look_for_todos(&self, state: &mut State, reader: usize, request: Request, page: Part) {
        let view = state.fences.view_todo(0);
        let hit = state.near_todo.and_then(|stamp| {
            let hit = view.real().admit(at(stamp.as_of), Self::need(&request))?;
            Some(part(stamp.version, hit))
        });
        if let Some(todo) = hit {
            return self.answer(state, reader, request, page, todo);
        }
        let after = state
            .fences
            .frontier
            .max(view.min_as_of)
            .max(small(Self::need(&request)));
        state.readers[reader] = Reader::ForTodo(request, page, view, after);
    }

    fn end_todo(&self, state: &mut State, reader: usize, as_of: Time) {
        let Reader::ForTodo(request, page, view, _) = state.readers[reader] else {
            return;
        };
        let version = state.latest_todo(as_of);
        if as_of >= state.fences.view_todo(0).min_as_of {
            keep(&mut state.near_todo, Stamp { as_of, version });
        }
        let todo = part(version, view.real().loaded(at(as_of)));
        self.answer(state, reader, request, page, todo);
    }

    fn answer(&self, state: &mut State, reader: usize, request: Request, page: Part, todo: Part) {
        let of_client = reader == 0;
        state.readers[reader] = Reader::Idle;
        let fresh_to = page.fresh_to.min(todo.fresh_to);
        let known = if of_client { state.known } else { (0, 0) };
        state.answer = Some(Answer {
            request,
            page,
            todo,
            known,
            fresh_to,
            of_client,
        });
        if !of_client {
            return;
        }
        let mut seen = small(Self::consistency(&request).without_age()).max(page.seen);
        if !self.has(Mutation::TokenOfPageAlone) {
            seen = seen.max(todo.seen);
        }
        state.token = seen;
        state.known = (known.0.max(page.version), known.1.max(todo.version));
    }

    fn write(&self, state: &mut State, event: Event) {
        state.log.push(event);
        let time = state.now();
        if !self.has(Mutation::WriterRaisesNothing) {
            state
                .fences
                .step(|c| c.raise_todo(todo(0).as_str(), at(time)));
        }
        let raises_list =
            !self.has(Mutation::WriterRaisesNothing) && !self.has(Mutation::WriterRaisesTodoOnly);
        if event == Event::Move && raises_list {
            state
                .fences
                .step(|c| c.raise_list_by_own_write(list().as_str(), at(time)));
        }
        state.own.1 = time;
        if event == Event::Move {
            state.own.0 = time;
        }
    }
}

impl Model for Lists {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Vec::new(),
            fences: Fences::placed(0),
            near_page: None,
            near_todo: None,
            flights: SingleFlight::default(),
            asked: None,
            readers: [Reader::Idle; 2],
            own: (0, 0),
            token: 0,
            known: (0, 0),
            answer: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now() < self.bounds.times {
            actions.extend([Event::Move, Event::Retitle].map(Action::Commit));
            actions.extend([Event::Move, Event::Retitle].map(Action::Write));
        }
        if state.fences.frontier < state.now() {
            actions.push(Action::Feed);
        }
        if state.near_todo.is_some() {
            actions.push(Action::Evict);
        }
        if let Some(asked) = state.asked {
            actions.extend((asked..=state.now()).map(Action::EndPage));
        }
        for (reader, place) in state.readers.iter().enumerate().take(self.bounds.readers) {
            match place {
                Reader::Idle => actions.push(Action::List(reader)),
                Reader::ForPage(..) => {}
                Reader::Page(..) => actions.push(Action::LookForTodos(reader)),
                Reader::ForTodo(_, _, _, after) => {
                    actions
                        .extend((*after..=state.now()).map(|as_of| Action::EndTodo(reader, as_of)));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.answer = None;
        match action {
            Action::Commit(event) => state.log.push(event),
            Action::Write(event) => self.write(&mut state, event),
            Action::Feed => {
                let time = state.fences.frontier + 1;
                let change = change(state.log[usize::from(time) - 1], time);
                if self.has(Mutation::ListStripeNotRaised) {
                    state
                        .fences
                        .step(|c| c.raise_todo(change.name.as_str(), change.time));
                } else {
                    state.fences.step(|c| c.raise(&change));
                }
                state.fences.step(|c| c.advance(at(time)));
            }
            Action::Evict => state.near_todo = None,
            Action::List(reader) => self.list(&mut state, reader),
            Action::EndPage(as_of) => self.end_page(&mut state, as_of),
            Action::LookForTodos(reader) => {
                let Reader::Page(request, page) = state.readers[reader] else {
                    return None;
                };
                self.look_for_todos(&mut state, reader, request, page);
            }
            Action::EndTodo(reader, as_of) => self.end_todo(&mut state, reader, as_of),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn always(state: &State, holds: impl Fn(&Answer) -> bool) -> bool {
            state.answer.as_ref().is_none_or(holds)
        }
        fn sometimes(state: &State, is: impl Fn(&Answer) -> bool) -> bool {
            state.answer.as_ref().is_some_and(is)
        }
        vec![
            Property::<Self>::always(
                "I1 no answer misses a change up to what it is fresh to",
                |_, state| {
                    always(state, |answer| {
                        answer.page.version >= state.latest_page(answer.fresh_to)
                            && answer.page.version != TORN
                            && answer.todo.version >= state.latest_todo(answer.fresh_to)
                    })
                },
            ),
            Property::<Self>::always(
                "I2 nothing goes back along the tokens of one client",
                |_, state| {
                    always(state, |answer| {
                        answer.page.version >= answer.known.0
                            && answer.todo.version >= answer.known.1
                    })
                },
            ),
            Property::<Self>::always(
                "I2 no answer is older than the token presented",
                |_, state| {
                    always(state, |answer| {
                        let presented = answer.request.presented.unwrap_or(0);
                        answer.page.version >= state.latest_page(presented)
                            && answer.todo.version >= state.latest_todo(presented)
                    })
                },
            ),
            Property::<Self>::always(
                "own writes: no answer misses one that this replica answered",
                |_, state| {
                    always(state, |answer| {
                        let (page, todo) = answer.request.expected;
                        answer.page.version >= page && answer.todo.version >= todo
                    })
                },
            ),
            Property::<Self>::sometimes(
                "an overtaken page is answered within its grace",
                |_, state| sometimes(state, |answer| answer.page.in_grace && answer.of_client),
            ),
            Property::<Self>::sometimes("a todo is newer than its page", |_, state| {
                sometimes(state, |answer| answer.todo.version > answer.page.fresh_to)
            }),
            Property::<Self>::sometimes(
                "a page outlives a change that moved nothing",
                |_, state| {
                    sometimes(state, |answer| {
                        !answer.page.in_grace
                            && answer.page.fresh_to > answer.page.version
                            && answer.todo.version == 2
                    })
                },
            ),
        ]
    }
}
