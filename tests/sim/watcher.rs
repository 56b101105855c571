//! Watchers: each follows the feed through one replica after the other by its
//! cursor, and checks that it is told of every change.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use tidemark::{
    auth,
    cache::{WatchEvent, WatchMessage, WatchRequest},
    error::Error,
    model::{ChangeKind, ListName, OriginTime, TodoName, Token, Value},
    pb::Role,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    check::AFTERMATH,
    fleet::{Fleet, Replica},
    history::{Event, History, What},
    world::World,
};

/// After all faults a watcher is up to date within this time.
const CATCH_UP: Duration = Duration::from_secs(15);

/// What one stream said, over all that its watcher was told before.
pub struct Watcher {
    id: u64,
    world: Arc<World>,
    fleet: Arc<Fleet>,
    /// Who watches; `None`: authentication is off.
    identity: Option<auth::Caller>,
    list: Option<ListName>,
    names: HashSet<TodoName>,
    include_todo: bool,
    progress: Duration,
    slow: bool,
    /// Presents also what its last token has seen.
    keeps_seen: bool,
    seen: OriginTime,
    /// The cursor that was told last; `None`: never begun.
    cursor: Option<OriginTime>,
    /// All wanted changes up to this are known to be covered.
    verified: OriginTime,
    /// The newest change told, by name.
    told: BTreeMap<TodoName, OriginTime>,
    /// The same of this stream: each begins with what others may have told.
    told_here: BTreeMap<TodoName, OriginTime>,
    /// What the token that this stream began with had seen.
    began_with: OriginTime,
    /// All up to this was reset.
    reset: OriginTime,
}

impl Watcher {
    pub fn new(id: u64, world: &Arc<World>, fleet: &Arc<Fleet>) -> Self {
        let mut rng = world.rng();
        let list = rng.chance(60).then(|| rng.pick(&world.config.lists));
        drop(rng);
        let identity = world.a_caller().filter(|_| list.is_some());
        let mut rng = world.rng();
        let few = rng.chance(30);
        let names = world
            .config
            .names
            .iter()
            .filter(|_| few && rng.chance(50))
            .cloned()
            .collect();
        Self {
            id,
            identity,
            list,
            names,
            include_todo: rng.chance(30),
            progress: rng.ms(1_000..2_000),
            slow: rng.chance(40),
            keeps_seen: rng.chance(50),
            seen: OriginTime::ZERO,
            cursor: None,
            verified: OriginTime::ZERO,
            told: BTreeMap::new(),
            told_here: BTreeMap::new(),
            began_with: OriginTime::ZERO,
            reset: OriginTime::ZERO,
            world: Arc::clone(world),
            fleet: Arc::clone(fleet),
        }
    }

    /// Watches until the load has ended and all is known.
    pub async fn run(mut self) {
        loop {
            let replica = self.fleet.any();
            self.follow(&replica).await;
            if self.is_done() {
                return;
            }
            if Instant::now() > self.world.ends + CATCH_UP {
                let what = format!(
                    "watcher {} stands at {:?}, {:?} after the end",
                    self.id, self.cursor, CATCH_UP
                );
                return self.world.violated("liveness", what);
            }
            let pause = self.world.rng().ms(1..100);
            sleep(pause).await;
        }
    }

    /// Nothing comes any more, and nothing is missing.
    fn is_done(&self) -> bool {
        if !self.world.over() {
            return false;
        }
        let history = self.world.history();
        if let Some((caller, list)) = self.right()
            && history.lacked_role(list, caller, Role::Reader, history.last, history.last)
        {
            return true;
        }
        let wanted = history.events.iter().rev().find(|event| self.wants(event));
        wanted.is_none_or(|event| self.cursor.is_some_and(|cursor| event.time <= cursor))
    }

    fn wants(&self, event: &Event) -> bool {
        match &event.what {
            What::Heartbeat { .. } | What::List(_) => false,
            What::Reset { .. } => true,
            What::Change(change) => {
                self.list
                    .as_ref()
                    .is_none_or(|list| list.as_str() == change.name.parent())
                    && (self.names.is_empty() || self.names.contains(&change.name))
            }
        }
    }

    /// The right that it needs.
    fn right(&self) -> Option<(&auth::Caller, &ListName)> {
        let caller = self.identity.as_ref().filter(|caller| !caller.is_admin())?;
        Some((caller, self.list.as_ref()?))
    }

    /// I8: at `time` or later the watcher had a right. `false`: a revocation was
    /// committed by then, and no grant after it.
    fn had_right(&self, history: &History, time: OriginTime) -> bool {
        self.right().is_none_or(|(caller, list)| {
            history.had_role(list, caller, Role::Reader, time, history.last)
        })
    }

    /// The watch was refused, or ended, by a document of `time` or later.
    fn check_refusal(&self, time: OriginTime) {
        self.world.count("refused watches");
        let history = self.world.history();
        let lacked = self.right().is_some_and(|(caller, list)| {
            history.lacked_role(list, caller, Role::Reader, time, history.last)
        });
        drop(history);
        if !lacked {
            let what = format!(
                "watcher {} was refused, with a right from {time} on",
                self.id
            );
            self.world.violated("right", what);
        }
    }

    /// The stream ended with an error.
    fn end(&mut self, replica: &Replica, error: &Error) {
        self.world
            .say(format_args!("watcher {} ends {error:?}", self.id));
        match error {
            Error::PermissionDenied {
                token: Some(token), ..
            } => {
                self.world.count("watches ended by a revocation");
                self.check_refusal(token.fresh_to);
                self.check_delivered(*token);
            }
            Error::OriginUnavailable { .. } | Error::DeadlineExceeded { .. } => {
                let now = Instant::now();
                let since = now.checked_sub(AFTERMATH).unwrap_or(now);
                let troubled = self
                    .world
                    .active_faults()
                    .troubled(replica.link.replica, since);
                if !troubled && replica.born < since {
                    let what = format!("watcher {} ends with {error:?}", self.id);
                    self.world.violated("error", what);
                }
            }
            Error::Overloaded { .. } if self.world.config.settings.max_origin_loads < 16 => {}
            error => {
                let what = format!("watcher {} ends with {error:?}", self.id);
                self.world.violated("error", what);
            }
        }
    }

    /// All that was committed before the change of the list's document was delivered,
    /// and the last token does not pass what was not.
    fn check_delivered(&mut self, token: Token) {
        let world = Arc::clone(&self.world);
        let history = world.history();
        for event in history.events_after(self.verified) {
            if event.time > token.fresh_to {
                break;
            }
            if self.wants(event) && !self.knows(event) {
                let what = format!("watcher {}: {token:?} passes {event:?}", self.id);
                self.world.violated("I6", what);
            }
        }
        self.verified = self.verified.max(token.fresh_to);
        self.cursor = Some(token.fresh_to);
        self.seen = self.seen.max(token.seen);
    }

    /// One stream.
    async fn follow(&mut self, replica: &Replica) {
        let request = WatchRequest {
            list: self.list.clone(),
            names: self.names.clone(),
            after: self.cursor,
            seen: if self.keeps_seen {
                self.seen
            } else {
                OriginTime::ZERO
            },
            include_todo: self.include_todo,
            right_on: Arc::default(),
            progress_interval: self.progress,
            closing: CancellationToken::new(),
            caller: None,
        };
        let opened = Instant::now();
        self.told_here.clear();
        self.began_with = request.seen;
        // A process that was killed answers no more.
        let opening = tokio::select! {
            biased;
            () = replica.link.dead.cancelled() => return,
            opening = replica.cache.watch(request, None, self.identity.as_ref()) => opening,
        };
        let mut stream = match opening {
            Ok(stream) => stream,
            Err(Error::OriginUnavailable { .. } | Error::Draining | Error::Overloaded { .. }) => {
                return;
            }
            Err(Error::PermissionDenied { .. }) => {
                return self.check_refusal(self.cursor.unwrap_or_default());
            }
            Err(Error::DeadlineExceeded { .. }) if self.right().is_some() => return,
            Err(error) => {
                return self
                    .world
                    .violated("error", format!("a watch must not fail so: {error:?}"));
            }
        };
        self.world.count("watches");
        let leaves = opened + self.world.rng().ms(500..6_000);
        let mut ended_by_progress = false;
        loop {
            let late = Instant::now() > self.world.ends + CATCH_UP;
            if self.is_done() || late || (Instant::now() > leaves && !self.world.over()) {
                return;
            }
            if self.slow && !self.world.over() {
                let pause = self.world.rng().ms(0..900);
                sleep(pause).await;
            }
            let next = async {
                tokio::select! {
                    biased;
                    () = replica.link.dead.cancelled() => Err(()),
                    message = stream.next() => Ok(message),
                }
            };
            let message = match timeout(self.progress * 4 + CATCH_UP, next).await {
                Err(_) => {
                    return self
                        .world
                        .violated("liveness", format!("watcher {} hears nothing", self.id));
                }
                Ok(Err(())) => return,
                Ok(Ok(None)) if replica.draining.load(Ordering::Relaxed) && ended_by_progress => {
                    return;
                }
                Ok(Ok(None)) => {
                    return self
                        .world
                        .violated("I6", format!("the stream of watcher {} just ends", self.id));
                }
                Ok(Ok(Some(Ok(message)))) => message,
                Ok(Ok(Some(Err(error)))) => return self.end(replica, &error),
            };
            ended_by_progress = matches!(message.event, WatchEvent::Progress { .. });
            self.hear(replica, &message, opened);
        }
    }

    fn violated(&self, message: &WatchMessage, what: &str) {
        self.world.violated(
            "I6",
            format!(
                "watcher {} (told up to {:?}): {what}: {message:?}",
                self.id, self.cursor
            ),
        );
    }

    fn hear(&mut self, replica: &Replica, message: &WatchMessage, opened: Instant) {
        let token = message.token;
        if self.keeps_seen && token.seen < self.seen {
            self.violated(message, "it has seen less than the token before");
        }
        self.world.say(format_args!(
            "watcher {} replica {} {message:?}",
            self.id, replica.link.replica
        ));
        self.world.count("watch messages");
        let first = self.cursor.is_none();
        if first {
            self.verified = token.fresh_to;
        }
        if self.cursor.is_some_and(|cursor| token.fresh_to < cursor) {
            self.violated(message, "the cursor goes back");
        }
        let world = Arc::clone(&self.world);
        let history = world.history();
        if token.fresh_to > history.last || token.seen > history.last {
            self.violated(message, "it is ahead of the origin");
        }
        let shown = match &message.event {
            WatchEvent::Change { change, .. } => change.time,
            _ => token.fresh_to,
        };
        if !self.had_right(&history, shown) {
            self.world.violated(
                "I8",
                format!(
                    "watcher {} had no right at {shown} or later: {message:?}",
                    self.id
                ),
            );
        }
        match &message.event {
            WatchEvent::ListChanged(_) => self.violated(message, "the cache keeps this to itself"),
            WatchEvent::Reset { .. } => {
                self.world.count("watch resets");
                self.reset = self.reset.max(token.seen);
                self.told.clear();
            }
            WatchEvent::Change { change, .. } => {
                let (name, time) = (&change.name, change.time);
                if token.seen < time {
                    self.violated(message, "it has not seen its own change");
                }
                self.check_order(&history, message, time);
                self.check_change(&history, message, time);
                self.told.insert(name.clone(), time);
                self.told_here.insert(name.clone(), time);
            }
            WatchEvent::Progress { staleness_bound } => {
                // The first message is made when the watch is opened.
                let made = if self.cursor == Some(token.fresh_to) || first {
                    opened
                } else {
                    Instant::now()
                };
                let expected = staleness_bound.and_then(|bound| made.checked_sub(bound));
                let expected =
                    expected.map_or(OriginTime::ZERO, |at| history.acknowledged_before(at));
                if token.fresh_to < expected {
                    self.violated(message, &format!("by its bound it would reach {expected}"));
                }
            }
        }
        self.check_complete(&history, message, token.fresh_to);
        self.cursor = Some(token.fresh_to);
        self.seen = token.seen.max(self.seen);
    }

    /// Whether the watcher knows of this event.
    fn knows(&self, event: &Event) -> bool {
        let told = match &event.what {
            What::Change(change) => self
                .told
                .get(&change.name)
                .is_some_and(|told| *told >= event.time),
            _ => false,
        };
        told || self.reset >= event.time
    }

    /// No cursor reaches a change that was not told.
    fn check_complete(&mut self, history: &History, message: &WatchMessage, cursor: OriginTime) {
        for event in history.events_after(self.verified) {
            if event.time > cursor {
                break;
            }
            if self.wants(event) && !self.knows(event) {
                self.violated(
                    message,
                    &format!("its cursor passes what was not told: {event:?}"),
                );
            }
        }
        self.verified = self.verified.max(cursor);
    }

    /// Before a change of one time come all of earlier times, but for those
    /// that a newer one of their name swallowed.
    fn check_order(&self, history: &History, message: &WatchMessage, time: OriginTime) {
        for event in history
            .events_after(self.verified)
            .iter()
            .take_while(|event| event.time < time)
        {
            let What::Change(change) = &event.what else {
                continue;
            };
            let swallowed = history.last_change_of(&change.name) > event.time;
            if self.wants(event) && !self.knows(event) && !swallowed {
                self.violated(message, &format!("before it comes {event:?}"));
            }
        }
    }

    fn check_change(&self, history: &History, message: &WatchMessage, seen: OriginTime) {
        let WatchEvent::Change { change, todo } = &message.event else {
            return;
        };
        let (name, kind) = (&change.name, change.kind);
        if !history.changed_at(name, seen) {
            return self.violated(message, "there was no such change");
        }
        if history.doc_at(name, seen).is_none() != (kind == ChangeKind::Deleted) {
            self.violated(message, "it is of another kind");
        }
        let below = self.cursor.is_some_and(|cursor| seen <= cursor);
        if below || self.told_here.get(name).is_some_and(|told| *told >= seen) {
            self.violated(message, "it was told before");
        }
        let Some(todo) = todo else { return };
        // Not older than what the token that the watch began with had seen.
        let least = seen.max(self.began_with);
        match history.valid_since(name, &Value::Todo(todo.clone()), least) {
            None => self.violated(message, "its todo is older than the change or the token"),
            Some(since) if since > message.token.seen => {
                self.violated(message, "its token has not seen its todo");
            }
            Some(since) if !self.had_right(history, since) => {
                let what = format!("watcher {} had no right at {since}: {message:?}", self.id);
                self.world.violated("I8", what);
            }
            Some(_) => {}
        }
    }
}
