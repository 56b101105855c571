//! The contract of a read, checked against the exact history: what an answer
//! shows must be the truth at a time that is late enough for its level, for its
//! own token and for its own bound.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prost::Message;
use tidemark::{
    auth::Caller,
    cache::{Consistency, TodoPage},
    error::Error,
    model::{ListName, OriginTime, PageQuery, ReadInfo, Source, TodoName, Unreadable, Value},
    pb::Todo,
};
use tokio::time::Instant;

use crate::{fleet::Replica, history::History, world::World};

/// No call takes longer, whatever happens.
pub const CALL_LIMIT: Duration = Duration::from_secs(12);
/// For so long after a trouble a call may still fail for it.
pub const AFTERMATH: Duration = Duration::from_secs(4);

/// A read as it was asked.
pub struct Asked<'a> {
    pub client: u64,
    pub replica: &'a Replica,
    pub what: String,
    pub consistency: Consistency,
    pub begun: Instant,
    pub deadline: Option<Instant>,
    /// The least `fresh_to` of the pages before.
    pub carried: Option<OriginTime>,
    /// What this replica had written by then.
    pub own: BTreeMap<String, OriginTime>,
    /// Who asks, if a right is needed, and on which lists.
    pub right: Option<(Caller, Vec<ListName>)>,
}

/// A time that an answer must reach, and the invariant that says so.
type Bound = (&'static str, OriginTime);

impl Asked<'_> {
    pub fn own(&self, name: &str) -> OriginTime {
        self.own.get(name).copied().unwrap_or_default()
    }

    pub fn presented(&self) -> OriginTime {
        self.consistency.without_age()
    }

    /// All that the answer claims and owes.
    fn bounds(&self, world: &World, history: &History, read: &ReadInfo) -> Vec<Bound> {
        let acknowledged =
            |at: Option<Instant>| at.map_or(OriginTime::ZERO, |at| history.acknowledged_before(at));
        let mut bounds = vec![("I1", read.token.fresh_to), ("I2", self.presented())];
        bounds.push((
            "I4 bound",
            acknowledged(Instant::now().checked_sub(read.staleness_bound)),
        ));
        if !read.stale {
            let limit = self.limit(world);
            bounds.push((
                if self.consistency == Consistency::FullyConsistent {
                    "I3"
                } else {
                    "I4 limit"
                },
                acknowledged(self.begun.checked_sub(limit)),
            ));
        }
        bounds
    }

    /// How old the answer may be when the request arrives.
    pub fn limit(&self, world: &World) -> Duration {
        let limit = world.config.settings.staleness_limit;
        match self.consistency {
            Consistency::FullyConsistent => Duration::ZERO,
            Consistency::MaxStaleness(d) => d.min(limit),
            _ => limit,
        }
    }

    pub fn violated(&self, world: &World, kind: &'static str, what: &str) {
        let Self {
            client,
            replica,
            what: asked,
            consistency,
            begun,
            ..
        } = self;
        let (replica, begun) = (replica.link.replica, begun.duration_since(world.start));
        world.violated(
            kind,
            format!(
                "client {client}, replica {replica}, {asked}, {consistency:?}, begun at {begun:?}: {what}"
            ),
        );
    }

    /// What an answer says of itself. Returns the time whose state it must
    /// show or a later one.
    pub fn facts(&self, world: &World, read: &ReadInfo) -> OriginTime {
        let now = Instant::now();
        let (bounds, last) = {
            let history = world.history();
            (self.bounds(world, &history, read), history.last)
        };
        let token = read.token;
        if self.carried.is_none() {
            for (kind, bound) in &bounds {
                if token.fresh_to < *bound {
                    self.violated(
                        world,
                        kind,
                        &format!("fresh to {} only, and {bound} was expected", token.fresh_to),
                    );
                }
            }
        }
        let check = |holds: bool, kind, what: &str| {
            if !holds {
                self.violated(
                    world,
                    kind,
                    &format!("{what}: {read:?}, the origin is at {last}"),
                );
            }
        };
        check(
            token.seen <= last && token.fresh_to <= last,
            "token",
            "it is ahead of the origin",
        );
        check(
            token.seen >= self.presented(),
            "I2",
            "its token is below the one presented",
        );
        check(
            self.consistency != Consistency::CachedOnly || read.source != Source::Origin,
            "consistency",
            "cached_only was loaded",
        );
        self.check_right(world, read);
        let took = now.duration_since(self.begun);
        if read.stale {
            let allowed = world
                .config
                .settings
                .stale_if_error
                .is_some_and(|limit| read.staleness_bound <= limit);
            check(
                allowed && self.consistency != Consistency::FullyConsistent,
                "stale",
                "it must not be given",
            );
            check(self.in_trouble(world), "stale", "the origin could be asked");
            world.count("stale answers");
        } else {
            // Ages above a second are told a 64th too old at most: the log is thinned.
            let (bound, thinned) = (read.staleness_bound, read.staleness_bound / 64);
            let allowed = self.limit(world) + took;
            let within =
                bound <= allowed || bound > Duration::from_secs(1) && bound <= allowed + thinned;
            check(
                within,
                "I4 consistency",
                "its bound is above what the consistency allows",
            );
        }
        bounds
            .iter()
            .map(|(_, bound)| *bound)
            .max()
            .unwrap_or_default()
    }

    /// Whether the replica's way to the origin had a trouble lately, or it has
    /// just started.
    pub fn in_trouble(&self, world: &World) -> bool {
        let since = self.begun.checked_sub(AFTERMATH).unwrap_or(self.begun);
        self.replica.born >= since
            || world
                .active_faults()
                .troubled(self.replica.link.replica, since)
    }

    /// A todo in an answer. Returns since when it was so.
    pub fn todo(
        &self,
        world: &World,
        name: &TodoName,
        value: &Value,
        expected: OriginTime,
        read: &ReadInfo,
    ) -> OriginTime {
        let own = self.own(name.as_str());
        let since = {
            let history = world.history();
            let since = history.valid_since(name, value, expected);
            (
                since,
                history
                    .valid_since(name, value, expected.max(own))
                    .is_some(),
            )
        };
        match since {
            (None, _) => self.violated(
                world,
                "I1",
                &format!("{name} is {value:?}, which it was not at {expected} or later"),
            ),
            (_, false) => {
                self.violated(
                    world,
                    "own",
                    &format!("{name} is older than the replica's write at {own}"),
                );
            }
            (Some(since), _) if since > read.token.seen => {
                self.violated(
                    world,
                    "I2",
                    &format!(
                        "{name} is of {since}, and the token has seen {} only",
                        read.token.seen
                    ),
                );
            }
            _ => {}
        }
        since.0.unwrap_or_default()
    }

    /// An answer of one todo is the very state at the time that it is fresh to.
    pub fn exact(&self, world: &World, name: &TodoName, value: &Value, read: &ReadInfo) {
        let truth = world.history().value_at(name, read.token.fresh_to);
        if truth != *value {
            self.violated(
                world,
                "I1",
                &format!(
                    "{name} is {value:?}, and at {} it was {truth:?}",
                    read.token.fresh_to
                ),
            );
        }
    }

    /// A page: its names at one time, its todos each at some time.
    pub fn page(
        &self,
        world: &World,
        query: &PageQuery,
        listed: &TodoPage,
        expected: OriginTime,
        read: &ReadInfo,
    ) {
        let todos: Vec<_> = listed.todos.iter().map(|raw| (name_of(raw), raw)).collect();
        let own = self.own(query.list.as_str());
        let history = world.history();
        let fits = |at: OriginTime| {
            let page = history.page_at(query, at);
            page.next == listed.next && {
                let mut left = todos.iter().peekable();
                let each = page.names.iter().all(|name| {
                    let value = if listed.unreadable.contains(name) {
                        unreadable()
                    } else if let Some((_, raw)) = left.next_if(|(other, _)| other == name) {
                        Value::Todo((*raw).clone())
                    } else {
                        Value::Absent
                    };
                    history
                        .valid_since(name, &value, expected.max(self.own(name.as_str())))
                        .is_some()
                });
                each && left.next().is_none()
                    && (at <= read.token.seen || page == history.page_at(query, read.token.seen))
            }
        };
        let from = expected.max(own);
        let right = history
            .list_states_from(query.list.as_str(), from)
            .into_iter()
            .any(fits);
        if !right {
            let truth = history.page_at(query, from);
            drop(history);
            let shown: Vec<_> = todos.iter().map(|(name, _)| name).collect();
            self.violated(world, "I1", &format!("page {query} shows {shown:?}, unreadable {:?}, next {:?}: so it never was at {expected} (own {own}) or later; there {truth:?}; {read:?}", listed.unreadable, listed.next));
        }
    }

    /// A read that failed.
    pub fn error(&self, world: &World, error: &Error) {
        let now = Instant::now();
        let allowed = match error {
            Error::OriginUnavailable { .. } => self.in_trouble(world),
            Error::PermissionDenied { .. } => return self.check_refusal(world),
            Error::CacheOnlyMiss { .. } => self.consistency == Consistency::CachedOnly,
            Error::DeadlineExceeded { .. } => self.deadline.is_some_and(|deadline| now >= deadline),
            Error::Overloaded { .. } => world.config.settings.max_origin_loads < 16,
            _ => false,
        };
        if !allowed {
            self.violated(world, "error", &format!("it must not fail so: {error:?}"));
        }
    }
}

pub fn unreadable() -> Value {
    let (field, problem) = ("title".into(), "is an int, and must be a string".into());
    Value::Unreadable(std::sync::Arc::new(Unreadable { field, problem }))
}

pub fn name_of(raw: &Bytes) -> TodoName {
    let todo = Todo::decode(raw.clone()).expect("an encoded todo");
    TodoName::parse(&todo.name).expect("its name")
}
