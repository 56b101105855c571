//! Ages without comparing clocks: heartbeats, their log, the consistency levels as
//! times, strong reads, responses marked stale, an origin of which a server answers
//! that is no longer the primary, and a feed that stalls.
//!
//! One key and one reader at a time. The local clock goes in whole seconds,
//! and stands a little later at a read than at the heartbeat before it.
//! Mirrors `tracker/heartbeats.rs`, `cache/freshness.rs` (`begin`, `read_info`),
//! `cache/read.rs` (`wait_for_frontier`, `serve_stale`) and `cache/grace.rs`
//! (`admit_within_grace`).

use std::time::Duration;

use stateright::{Model, Property};
use tidemark::{
    coherence::{Admitted, Consistency, HeartbeatLog, MinFreshness},
    model::{Mono, OriginTime},
};

use crate::{
    mutations::Mutation,
    parts::{Fences, Time, Viewed, at, small, todo},
};

/// An instant of the local clock: three in a second.
type Instant = u8;
const IN_A_SECOND: Instant = 3;

const SECOND: Duration = Duration::from_secs(1);
/// The staleness limit.
const LIMIT: Duration = SECOND;
/// How long the log keeps a heartbeat: as `Cache::new` sets it.
const KEEP: Duration = Duration::from_secs(2);
/// How long an invalidated page may be served.
const GRACE: Duration = SECOND;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Writes and heartbeats at the origin.
    times: Time,
    seconds: u8,
    /// How readers want it.
    wants: &'static [Want],
    /// Whether the values are pages, which may be answered within the grace.
    pages: bool,
    /// Whether a heartbeat may fail, and stale answers are allowed then.
    fails: bool,
}

const ALL: &[Want] = &[
    Want::Latency,
    Want::MaxStaleness(0),
    Want::MaxStaleness(1),
    Want::Newest,
    Want::Oldest,
    Want::Forged,
    Want::Strong,
    Want::CachedOnly,
];

const AGE: Bounds = Bounds {
    times: 3,
    seconds: 1,
    wants: &[Want::Latency],
    pages: false,
    fails: false,
};
const AT_ONCE: Bounds = Bounds {
    seconds: 0,
    wants: &[Want::MaxStaleness(0), Want::CachedOnly],
    ..AGE
};
const STRONG: Bounds = Bounds {
    seconds: 0,
    wants: &[Want::Strong, Want::Latency],
    ..AGE
};
const TOKEN: Bounds = Bounds {
    wants: &[Want::Oldest, Want::Forged],
    ..AGE
};
const PAGES: Bounds = Bounds { pages: true, ..AGE };
const FAILS: Bounds = Bounds {
    seconds: 0,
    wants: &[Want::Newest],
    fails: true,
    ..AGE
};
const STALE: Bounds = Bounds {
    wants: &[Want::MaxStaleness(0)],
    ..FAILS
};
pub const SMALL: &[Bounds] = &[AGE, AT_ONCE, STRONG, TOKEN, PAGES, FAILS, STALE];
pub const LARGE: &[Bounds] = &[
    Bounds {
        seconds: 2,
        wants: ALL,
        ..AGE
    },
    Bounds {
        wants: ALL,
        ..PAGES
    },
    Bounds {
        wants: ALL,
        ..FAILS
    },
    Bounds {
        times: 4,
        seconds: 2,
        ..AGE
    },
    Bounds {
        times: 4,
        seconds: 1,
        ..STRONG
    },
    Bounds { times: 4, ..TOKEN },
    Bounds {
        seconds: 3,
        ..PAGES
    },
];

pub const MUTATIONS: &[(Mutation, &str, Bounds)] = &[
    (Mutation::StrongJoinsEarlier, "I3", STRONG),
    (Mutation::StrongChecksBeforeWait, "I3", STRONG),
    (Mutation::StrongIsMajorityRead, "I3", STRONG),
    (Mutation::FutureTokenAccepted, "I2", TOKEN),
    (Mutation::BegunAtAcknowledgement, "I4", AGE),
    (Mutation::HeartbeatByDocument, "I4", STALE),
    (Mutation::HeartbeatOfDeposed, "I4", AGE),
    (Mutation::GraceWithoutNeed, "I4", PAGES),
    (Mutation::StaleUnderToken, "I2", FAILS),
    (Mutation::TokenWithoutAge, "I4", TOKEN),
    (Mutation::LoadWithoutHeartbeat, "I4", AGE),
    (Mutation::LoadBeginIsAge, "I4", AGE),
    (Mutation::MinusTwo, "I4", AGE),
];

/// The model.
pub struct Ages {
    mutation: Option<Mutation>,
    bounds: Bounds,
}

impl Ages {
    pub fn new(mutation: Option<Mutation>, bounds: Bounds) -> Self {
        Self { mutation, bounds }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// What the origin has at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    /// A write of the key, acknowledged to somebody at this instant.
    Write(Instant),
    Heartbeat,
}

/// A heartbeat under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Heartbeat {
    begun: Instant,
    /// Its time, once the origin has it.
    time: Option<Time>,
}

/// How a reader wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    Latency,
    /// Of so many seconds.
    MaxStaleness(u8),
    /// That has seen this.
    Token(Time),
    /// The newest token that there can be, one from long ago, and one of a
    /// time that the origin has not reached.
    Newest,
    Oldest,
    Forged,
    Strong,
    CachedOnly,
}

impl Want {
    fn consistency(self) -> Consistency {
        match self {
            Self::Latency => Consistency::MinimizeLatency,
            Self::MaxStaleness(seconds) => Consistency::MaxStaleness(SECOND * seconds.into()),
            Self::Token(seen) => Consistency::AtLeastAsFresh(at(seen)),
            Self::Newest | Self::Oldest | Self::Forged => {
                unreachable!("it is given a time when it arrives")
            }
            Self::Strong => Consistency::FullyConsistent,
            Self::CachedOnly => Consistency::CachedOnly,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    want: Want,
    arrival: Instant,
    /// The origin's time at the arrival: what is written until then is
    /// acknowledged.
    written: Time,
    /// The fence at the arrival.
    first_min_as_of: Time,
}

/// What near has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kept {
    as_of: Time,
    began: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    /// For a heartbeat that says whether the token is from the future.
    AskingFuture(Request),
    /// For a heartbeat begun at this instant or later.
    AwaitingHeartbeat(Request, Instant),
    /// Near could not answer; `away`: the origin is not to be asked.
    Beyond {
        request: Request,
        need: Time,
        view: Viewed,
        away: bool,
    },
    Loading {
        request: Request,
        view: Viewed,
        after: Time,
        began: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    request: Request,
    as_of: Time,
    fresh_to: Time,
    /// No write acknowledged before this instant is missing, it says.
    proven: Instant,
    stale: bool,
    loaded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    log: Vec<Event>,
    clock: Instant,
    fences: Fences,
    near: Option<Kept>,
    heartbeat_log: HeartbeatLog,
    heartbeat: Option<Heartbeat>,
    /// How the newest finished heartbeat ended.
    newest: Option<(Instant, Option<Time>)>,
    /// Heartbeats that failed in a row; more than two are as two.
    failures: u8,
    /// The time of a heartbeat that was given up, and came back too late.
    late: Option<Time>,
    reader: Reader,
    answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Write,
    Second,
    Feed,
    Begin,
    /// The origin has it.
    Arrive,
    Acknowledge,
    /// By a part of the origin that is cut off, with a time of its own.
    AcknowledgeCutOff(Time),
    AcknowledgeLate,
    Fail,
    Read(Want),
    GiveUp,
    LookAgain,
    Load,
    EndLoad(Time),
    Stale,
}

fn mono(instant: Instant) -> Mono {
    Mono(u64::from(instant / IN_A_SECOND) * 1_000_000_000 + u64::from(instant % IN_A_SECOND))
}

fn instant(mono: Mono) -> Instant {
    let (seconds, rest) = (mono.0 / 1_000_000_000, mono.0 % 1_000_000_000);
    Instant::try_from(seconds * u64::from(IN_A_SECOND) + rest).expect("few")
}

impl State {
    fn now(&self) -> Time {
        Time::try_from(self.log.len()).expect("few")
    }

    /// The newest write up to a time.
    fn latest(&self, up_to: Time) -> Time {
        let is_write = |time: &Time| matches!(self.log[usize::from(*time) - 1], Event::Write(_));
        (1..=up_to.min(self.now()))
            .rev()
            .find(is_write)
            .unwrap_or(0)
    }

    /// The newest write that was acknowledged before an instant.
    fn acknowledged_before(&self, instant: Instant) -> Time {
        let before = |time: &Time| matches!(self.log[usize::from(*time) - 1], Event::Write(s) if s < instant);
        (1..=self.now()).rev().find(before).unwrap_or(0)
    }

    /// Whether a heartbeat has begun at this very instant.
    fn has_begun(&self) -> bool {
        let newest = self.newest.map(|(begun, _)| begun);
        [self.heartbeat.map(|heartbeat| heartbeat.begun), newest].contains(&Some(self.clock))
    }

    /// One failed heartbeat says nothing, two say that the origin is away.
    fn is_down(&self) -> bool {
        self.failures >= 2
    }

    fn newest_known(&self) -> Time {
        self.fences
            .frontier
            .max(self.heartbeat_log.newest().map_or(0, small))
    }
}

impl Ages {
    /// A read that comes after a heartbeat has begun comes at a later instant.
    fn begin(&self, state: &mut State, want: Want) {
        if state.has_begun() {
            state.clock += 1;
        }
        let want = match want {
            Want::Newest => Want::Token(state.now()),
            Want::Oldest => Want::Token(0),
            Want::Forged => Want::Token(state.now() + 1),
            want => want,
        };
        let request = Request {
            want,
            arrival: state.clock,
            written: state.now(),
            first_min_as_of: state.fences.view_todo(0).min_as_of,
        };
        if let Want::Token(seen) = want
            && seen > state.newest_known()
            && !self.has(Mutation::FutureTokenAccepted)
        {
            state.reader = Reader::AskingFuture(request);
            return self.heard(state);
        }
        self.need(state, request);
    }

    fn need(&self, state: &mut State, request: Request) {
        let consistency = request.want.consistency();
        let regardless = small(consistency.without_age());
        if self.has(Mutation::StrongIsMajorityRead) && request.want == Want::Strong {
            let view = state.fences.view_todo(0);
            state.reader = Reader::Beyond {
                request,
                need: 0,
                view,
                away: false,
            };
            return;
        }
        if self.has(Mutation::TokenWithoutAge) && matches!(request.want, Want::Token(_)) {
            return self.look(state, request, regardless, false);
        }
        match consistency.min_freshness(mono(request.arrival), LIMIT, &state.heartbeat_log) {
            MinFreshness::At(need) => {
                let need = if self.has(Mutation::MinusTwo) {
                    need.pred()
                } else {
                    need
                };
                self.look(state, request, small(need), false);
            }
            MinFreshness::Heartbeat(_) if request.want == Want::CachedOnly => {
                state.reader = Reader::Idle
            }
            MinFreshness::Heartbeat(_) if self.has(Mutation::LoadWithoutHeartbeat) => {
                self.look(state, request, regardless, false);
            }
            MinFreshness::Heartbeat(since) => {
                let mut since = instant(since);
                if self.has(Mutation::StrongJoinsEarlier) && request.want == Want::Strong {
                    // Whichever is under way.
                    since = state.heartbeat.map_or(since, |heartbeat| heartbeat.begun);
                }
                state.reader = Reader::AwaitingHeartbeat(request, since);
                self.heard(state);
            }
        }
    }

    /// A heartbeat ended, or had ended already: whoever waits for one begun
    /// late enough goes on.
    fn heard(&self, state: &mut State) {
        let Some((begun, result)) = state.newest else {
            return;
        };
        if result.is_none() && !state.is_down() {
            return;
        }
        match state.reader {
            Reader::AskingFuture(request) if begun >= request.arrival => {
                match (result, request.want) {
                    (Some(time), Want::Token(seen)) if seen < time => self.need(state, request),
                    _ => state.reader = Reader::Idle,
                }
            }
            Reader::AwaitingHeartbeat(request, since) if begun >= since => {
                self.after_heartbeat(state, request, result);
            }
            _ => {}
        }
    }

    fn after_heartbeat(&self, state: &mut State, request: Request, result: Option<Time>) {
        let consistency = request.want.consistency();
        let mut regardless = consistency.without_age();
        let Some(time) = result else {
            if self.has(Mutation::StaleUnderToken) {
                regardless = OriginTime::ZERO;
            }
            state.reader = Reader::Idle;
            if consistency.allows_stale() && state.is_down() {
                self.look(state, request, small(regardless), true);
            }
            return;
        };
        let mut need = at(time).pred();
        if self.has(Mutation::MinusTwo) {
            need = need.pred();
        }
        self.look(state, request, small(need.max(regardless)), false);
    }

    fn look(&self, state: &mut State, request: Request, need: Time, away: bool) {
        let mut view = state.fences.view_todo(0);
        if self.has(Mutation::StrongChecksBeforeWait) && request.want == Want::Strong {
            view.min_as_of = request.first_min_as_of;
        }
        state.reader = Reader::Beyond {
            request,
            need,
            view,
            away,
        };
        let Some(kept) = state.near else { return };
        let as_of = at(kept.as_of);
        let hit = self
            .in_grace(state, request, need, &view)
            .or_else(|| view.real().admit(as_of, at(need)));
        if let Some(hit) = hit {
            self.answer(state, request, kept.as_of, hit, away, None);
        } else if away {
            state.reader = Reader::Idle;
        }
    }

    fn in_grace(
        &self,
        state: &State,
        request: Request,
        need: Time,
        view: &Viewed,
    ) -> Option<Admitted> {
        let kept = state
            .near
            .filter(|_| self.bounds.pages && request.want.consistency().allows_grace(GRACE))?;
        let need = if self.has(Mutation::GraceWithoutNeed) {
            0
        } else {
            need
        };
        let min_as_of = state.fences.floor.max(need);
        let since = mono(state.clock).minus(GRACE);
        let in_grace =
            kept.as_of < view.min_as_of && kept.as_of >= min_as_of && mono(kept.began) >= since;
        in_grace.then_some(Admitted {
            fresh_to: at(kept.as_of),
            seen: at(kept.as_of),
        })
    }

    /// `began`: of the load that brought it.
    fn answer(
        &self,
        state: &mut State,
        request: Request,
        as_of: Time,
        hit: Admitted,
        is_stale: bool,
        began: Option<Instant>,
    ) {
        state.reader = Reader::Idle;
        let reaches = if self.has(Mutation::MinusTwo) {
            hit.fresh_to.next()
        } else {
            hit.fresh_to
        };
        let Some(proven) = state.heartbeat_log.begun_below(reaches) else {
            return;
        };
        let mut proven = instant(proven);
        if self.has(Mutation::LoadBeginIsAge) {
            proven = proven.max(began.unwrap_or(0));
        }
        let fresh_to = small(hit.fresh_to);
        let loaded = began.is_some();
        state.answer = Some(Answer {
            request,
            as_of,
            fresh_to,
            proven,
            stale: is_stale,
            loaded,
        });
    }

    fn acknowledged(&self, state: &mut State, time: Time) {
        let Some(heartbeat) = state.heartbeat.take() else {
            return;
        };
        let begun = if self.has(Mutation::BegunAtAcknowledgement) {
            state.clock
        } else {
            heartbeat.begun
        };
        state
            .heartbeat_log
            .record(at(time), mono(begun), mono(state.clock), KEEP);
        state.newest = Some((begun, Some(time)));
        state.failures = 0;
        self.heard(state);
    }

    fn end_load(&self, state: &mut State, as_of: Time) {
        let Reader::Loading {
            request,
            view,
            began,
            ..
        } = state.reader
        else {
            return;
        };
        let is_above = as_of >= state.fences.view_todo(0).min_as_of;
        if (is_above || self.bounds.pages) && state.near.is_none_or(|kept| kept.as_of < as_of) {
            state.near = Some(Kept { as_of, began });
        }
        self.answer(
            state,
            request,
            as_of,
            view.real().loaded(at(as_of)),
            false,
            Some(began),
        );
    }
}

impl Model for Ages {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Vec::new(),
            clock: 0,
            fences: Fences::placed(0),
            near: None,
            heartbeat_log: HeartbeatLog::default(),
            heartbeat: None,
            newest: None,
            failures: 0,
            late: None,
            reader: Reader::Idle,
            answer: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let has_room = state.now() < self.bounds.times;
        if has_room {
            actions.push(Action::Write);
        }
        if state.clock / IN_A_SECOND < self.bounds.seconds {
            actions.push(Action::Second);
        }
        if state.fences.frontier < state.now() {
            actions.push(Action::Feed);
        }
        match state.heartbeat {
            None => actions.push(Action::Begin),
            Some(heartbeat) => {
                match heartbeat.time {
                    None if has_room => actions.push(Action::Arrive),
                    None => {}
                    Some(_) => actions.push(Action::Acknowledge),
                }
                if self.bounds.fails {
                    actions.push(Action::Fail);
                }
                if self.has(Mutation::HeartbeatOfDeposed) {
                    let own = state.fences.frontier + 1..=state.now();
                    actions.extend(own.map(Action::AcknowledgeCutOff));
                }
                if self.has(Mutation::HeartbeatByDocument) && state.late.is_some() {
                    actions.push(Action::AcknowledgeLate);
                }
            }
        }
        match state.reader {
            // The instants of a second are used up by reads after heartbeats.
            Reader::Idle if state.has_begun() && state.clock % IN_A_SECOND == IN_A_SECOND - 1 => {}
            Reader::Idle => actions.extend(self.bounds.wants.iter().copied().map(Action::Read)),
            Reader::AskingFuture(_) | Reader::AwaitingHeartbeat(..) => {
                if state.is_down() {
                    actions.push(Action::GiveUp);
                }
            }
            Reader::Beyond {
                request,
                need,
                away,
                ..
            } => {
                if !away
                    && request.want.consistency().waits_for_frontier()
                    && state.fences.frontier >= need
                    && need > 0
                {
                    actions.push(Action::LookAgain);
                }
                if !away && request.want != Want::CachedOnly {
                    actions.push(Action::Load);
                }
                if state.is_down() {
                    actions.push(Action::Stale);
                }
                if away || request.want == Want::CachedOnly {
                    actions.push(Action::GiveUp);
                }
            }
            Reader::Loading { after, .. } => {
                actions.extend((after..=state.now()).map(Action::EndLoad));
                if self.bounds.fails {
                    actions.push(Action::GiveUp);
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.answer = None;
        match action {
            Action::Write => state.log.push(Event::Write(state.clock)),
            Action::Second => state.clock = (state.clock / IN_A_SECOND + 1) * IN_A_SECOND,
            Action::Feed => {
                let time = state.fences.frontier + 1;
                if matches!(state.log[usize::from(time) - 1], Event::Write(_)) {
                    state
                        .fences
                        .step(|c| c.raise_todo(todo(0).as_str(), at(time)));
                }
                state.fences.step(|c| c.advance(at(time)));
            }
            Action::Begin => {
                state.heartbeat = Some(Heartbeat {
                    begun: state.clock,
                    time: None,
                });
            }
            Action::Arrive => {
                state.log.push(Event::Heartbeat);
                state.heartbeat.as_mut()?.time = Some(Time::try_from(state.log.len()).ok()?);
            }
            Action::Acknowledge => {
                let time = state.heartbeat?.time?;
                self.acknowledged(&mut state, time);
            }
            Action::AcknowledgeCutOff(time) => self.acknowledged(&mut state, time),
            Action::AcknowledgeLate => {
                let time = state.late.take()?;
                self.acknowledged(&mut state, time);
            }
            Action::Fail => {
                let heartbeat = state.heartbeat.take()?;
                state.late = heartbeat.time.or(state.late);
                state.newest = Some((heartbeat.begun, None));
                state.failures = (state.failures + 1).min(2);
                self.heard(&mut state);
            }
            Action::Read(want) => self.begin(&mut state, want),
            Action::GiveUp => match state.reader {
                Reader::AwaitingHeartbeat(request, _) => {
                    self.after_heartbeat(&mut state, request, None);
                }
                _ => state.reader = Reader::Idle,
            },
            Action::LookAgain => {
                let Reader::Beyond {
                    request,
                    need,
                    away,
                    ..
                } = state.reader
                else {
                    return None;
                };
                self.look(&mut state, request, need, away);
            }
            Action::Load => {
                let Reader::Beyond {
                    request,
                    need,
                    view,
                    ..
                } = state.reader
                else {
                    return None;
                };
                let after = state
                    .newest_known()
                    .max(state.fences.view_todo(0).min_as_of)
                    .max(view.min_as_of)
                    .max(need);
                state.reader = Reader::Loading {
                    request,
                    view,
                    after,
                    began: state.clock,
                };
            }
            Action::EndLoad(as_of) => self.end_load(&mut state, as_of),
            Action::Stale => {
                let Reader::Beyond { request, view, .. } = state.reader else {
                    return None;
                };
                state.reader = Reader::Idle;
                let mut regardless = request.want.consistency().without_age();
                if self.has(Mutation::StaleUnderToken) {
                    regardless = OriginTime::ZERO;
                }
                let kept = state
                    .near
                    .filter(|_| request.want.consistency().allows_stale())?;
                let hit = view.real().admit(at(kept.as_of), regardless)?;
                self.answer(&mut state, request, kept.as_of, hit, true, None);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        /// Whether the answer, if there is one, has every write up to a time.
        fn has(state: &State, writes: impl Fn(&Answer) -> Option<Time>) -> bool {
            state.answer.as_ref().is_none_or(|answer| {
                writes(answer).is_none_or(|write| state.latest(answer.as_of) >= write)
            })
        }
        fn before(answer: &Answer, age: Duration) -> Instant {
            instant(mono(answer.request.arrival).minus(age))
        }
        fn sometimes(state: &State, is: impl Fn(&Answer) -> bool) -> bool {
            state.answer.as_ref().is_some_and(is)
        }
        vec![
            Property::<Self>::always(
                "I1 no answer misses a change up to what it is fresh to",
                |_, state| has(state, |answer| Some(state.latest(answer.fresh_to))),
            ),
            Property::<Self>::always(
                "I2 no answer is older than the token presented",
                |_, state| {
                    has(state, |answer| match answer.request.want {
                        Want::Token(seen) => Some(state.latest(seen)),
                        _ => None,
                    })
                },
            ),
            Property::<Self>::always(
                "I2 no load is begun for a token from the future",
                |_, state| !matches!(state.reader, Reader::Loading { after, .. } if after > state.now()),
            ),
            Property::<Self>::always(
                "I3 a strong read has every write acknowledged before it",
                |_, state| {
                    has(state, |answer| {
                        (answer.request.want == Want::Strong)
                            .then(|| state.latest(answer.request.written))
                    })
                },
            ),
            Property::<Self>::always(
                "I4 no answer misses a write older than its bound",
                |_, state| {
                    has(state, |answer| {
                        Some(state.acknowledged_before(answer.proven))
                    })
                },
            ),
            Property::<Self>::always(
                "I4 no unmarked answer misses a write older than the limit",
                |_, state| {
                    has(state, |answer| {
                        (!answer.stale).then(|| state.acknowledged_before(before(answer, LIMIT)))
                    })
                },
            ),
            Property::<Self>::always(
                "I4 nor one older than the max_staleness asked for",
                |_, state| {
                    has(state, |answer| match answer.request.want {
                        Want::MaxStaleness(seconds) if !answer.stale => {
                            Some(state.acknowledged_before(before(answer, SECOND * seconds.into())))
                        }
                        _ => None,
                    })
                },
            ),
            Property::<Self>::sometimes("a strong read is answered from near", |_, state| {
                sometimes(state, |answer| {
                    answer.request.want == Want::Strong
                        && !answer.loaded
                        && answer.request.written > 1
                })
            }),
            Property::<Self>::sometimes(
                "the feed is stalled, and near answers by its stamp",
                |_, state| {
                    sometimes(state, |answer| {
                        !answer.loaded
                            && answer.fresh_to > state.fences.frontier
                            && answer.proven > 0
                    })
                },
            ),
            Property::<Self>::sometimes(
                "an answer misses a write, and its bound says so",
                |_, state| {
                    sometimes(state, |answer| {
                        !answer.stale
                            && state.latest(answer.as_of) < state.acknowledged_before(state.clock)
                    })
                },
            ),
            Property::<Self>::sometimes(
                "an answer marked stale is older than the limit",
                |_, state| sometimes(state, |answer| answer.stale),
            ),
            Property::<Self>::sometimes(
                "an overtaken page is answered within its grace",
                |_, state| {
                    sometimes(state, |answer| {
                        !answer.loaded && answer.fresh_to < state.fences.todos[0]
                    })
                },
            ),
        ]
    }
}
