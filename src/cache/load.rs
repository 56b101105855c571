//! Loads: what no cache has is asked of the origin, once for all who wait for
//! it. Misses that wait at the same moment are fetched together, with no added
//! wait when nothing is under way.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::{sync::oneshot, time::timeout};

use super::{Cache, part::Key};
use crate::{
    coherence::{Joined, LoadRequirement, SingleFlight},
    error::{Error, Source},
    model::{Mono, OriginTime, PageQuery, Stamped, TodoName, Value},
    origin::OriginError,
    telemetry::Kind,
    tier::{record, shared::SharedKey},
};

/// Time for a load: a snapshot read waits without end when the majority is
/// gone.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);
/// While the origin is known to be away a load is only a try.
const LOAD_TIMEOUT_WHEN_DOWN: Duration = Duration::from_millis(50);
/// When a caller that was refused should try again: a heartbeat interval or so
/// shows whether the origin is back.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Loads of todos under way at once. Few, so that misses gather while they
/// run: a document more in a load costs a fiftieth of a load.
const TODO_LOADS: usize = 4;
/// Keys of one load of todos: a millisecond or so of the origin's time, so
/// that a key does not wait long for the others.
const LOAD_KEYS: usize = 128;
/// Loads of pages under way at once; they cannot be gathered.
const PAGE_LOADS: usize = 16;
/// Keys that may be loading or waiting to be loaded, for each of the loads
/// that the origin may be asked to do at once.
const WAITING_PER_LOAD: usize = 16;

/// A value and where it was found in the end, or why the load failed.
type Outcome = Result<(Stamped, Source), Arc<OriginError>>;

/// The loads under way and those that wait.
pub(super) struct Loads {
    state: Mutex<State>,
    todo_loads: usize,
    page_loads: usize,
    max_waiting: usize,
}

/// What a reader asks to be loaded.
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) required: LoadRequirement,
    /// The fence that a kept todo is below: one replica is to load it.
    pub(super) leased: Option<OriginTime>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) flights: SingleFlight<Key, oneshot::Sender<Outcome>>,
    todos: VecDeque<TodoName>,
    pages: VecDeque<Arc<PageQuery>>,
    todo_loads: usize,
    page_loads: usize,
}

impl Loads {
    pub(super) fn new(max_origin_loads: usize) -> Self {
        Self {
            state: Mutex::default(),
            todo_loads: TODO_LOADS.min(max_origin_loads),
            page_loads: PAGE_LOADS.min(max_origin_loads),
            max_waiting: max_origin_loads.saturating_mul(WAITING_PER_LOAD),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Loads keys, each for a reader that requires this much; joins what is
    /// under way where that began late enough.
    pub(super) async fn loaded(
        self: &Arc<Self>,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<(Stamped, Source)>, Error> {
        let outcomes = self.join(wanted)?;
        futures::future::try_join_all(outcomes.into_iter().map(|outcome| self.outcome(outcome)))
            .await
    }

    async fn outcome(
        &self,
        outcome: oneshot::Receiver<Outcome>,
    ) -> Result<(Stamped, Source), Error> {
        match outcome.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(self.unavailable(error.to_string())),
            Err(_) => Err(self.unavailable("the load was given up".into())),
        }
    }

    /// That the origin could not be asked.
    pub(super) fn unavailable(&self, problem: String) -> Error {
        Error::OriginUnavailable {
            problem,
            retry_after: RETRY_AFTER,
        }
    }

    /// That a bound of this replica is reached.
    pub(super) fn overloaded(&self, what: &'static str, limit: usize) -> Error {
        self.metrics
            .overloaded
            .get_or_create(&Kind { kind: what })
            .inc();
        Error::Overloaded {
            what,
            limit,
            retry_after: RETRY_AFTER,
        }
    }

    fn join(
        self: &Arc<Self>,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<oneshot::Receiver<Outcome>>, Error> {
        let mut state = self.loads.state();
        let new = wanted
            .iter()
            .filter(|wanted| !state.flights.has(&wanted.key))
            .count();
        // A single request may be larger than the bound; it is then alone.
        if new > 0
            && !state.flights.is_empty()
            && state.flights.len() + new > self.loads.max_waiting
        {
            drop(state);
            return Err(self.overloaded("keys waiting to be loaded", self.loads.max_waiting));
        }
        let mut outcomes = Vec::with_capacity(wanted.len());
        for Wanted {
            key,
            required,
            leased,
        } in wanted
        {
            let (sender, receiver) = oneshot::channel();
            outcomes.push(receiver);
            if let Some(brought) = self.brought(&state, &key, &required) {
                // The receiver is still here.
                let _ = sender.send(Ok(brought));
                continue;
            }
            match state.flights.join(&key, required, sender) {
                Joined::First => self.begin_one(&mut state, key, leased),
                Joined::Running | Joined::Next => drop(self.metrics.joined_loads.inc()),
            }
        }
        self.begin_loads(&mut state);
        Ok(outcomes)
    }

    /// What a load brought since this reader looked into near: it asked the
    /// shared tier meanwhile. Or the readers that a change sends here at once
    /// would begin a load each time that one of them is late. A load keeps its
    /// value before it ends, so under the lock of the loads nothing is missed.
    fn brought(
        &self,
        state: &State,
        key: &Key,
        required: &LoadRequirement,
    ) -> Option<(Stamped, Source)> {
        if state.flights.has(key) {
            return None;
        }
        let kept = match key {
            Key::Todo(name) => self.near.todo(name.as_str()),
            Key::Page(query) => self.near.page(query).map(|(stamped, _)| stamped),
        };
        let kept = kept.filter(|stamped| stamped.as_of >= required.after)?;
        Some((kept, Source::Origin))
    }

    /// Lets the load of a key wait for its turn, or for its lease.
    fn begin_one(self: &Arc<Self>, state: &mut State, key: Key, leased: Option<OriginTime>) {
        match (
            key,
            leased,
            self.shared.as_ref().filter(|shared| shared.is_up()),
        ) {
            (Key::Todo(name), Some(min_as_of), Some(shared)) => {
                let (cache, shared) = (Arc::clone(self), Arc::clone(shared));
                self.tasks
                    .spawn(cache.load_by_lease(shared, name, min_as_of));
            }
            (key, ..) => state.enqueue(key),
        }
    }

    /// Begins as many of the waiting loads as may be under way.
    pub(super) fn begin_loads(self: &Arc<Self>, state: &mut State) {
        while state.todo_loads < self.loads.todo_loads && !state.todos.is_empty() {
            let some = state.todos.len().min(LOAD_KEYS);
            let names: Vec<_> = state.todos.drain(..some).collect();
            let keys: Vec<_> = names.iter().cloned().map(Key::Todo).collect();
            let bars = names
                .iter()
                .map(|name| self.coherence.view_todo(name.as_str()).min_as_of);
            let base = bars.fold(self.newest_known(), OriginTime::max);
            let after = state.flights.begin(&keys, base, self.clock.now());
            state.todo_loads += 1;
            let cache = Arc::clone(self);
            self.tasks
                .spawn(async move { cache.run_todo_load(names, keys, after).await });
        }
        while state.page_loads < self.loads.page_loads {
            let Some(query) = state.pages.pop_front() else {
                break;
            };
            let base = self
                .newest_known()
                .max(self.coherence.view_list(query.list.as_str()).min_as_of);
            let (key, began) = (Key::Page(Arc::clone(&query)), self.clock.now());
            let after = state.flights.begin(std::slice::from_ref(&key), base, began);
            state.page_loads += 1;
            let cache = Arc::clone(self);
            self.tasks
                .spawn(async move { cache.run_page_load(query, key, after, began).await });
        }
    }

    /// The newest time of the origin that this replica knows of.
    pub(super) fn newest_known(&self) -> OriginTime {
        let heartbeat = self
            .heart
            .heartbeat_log(crate::coherence::HeartbeatLog::newest)
            .unwrap_or_default();
        self.coherence.frontier().max(heartbeat)
    }

    async fn run_todo_load(
        self: Arc<Self>,
        names: Vec<TodoName>,
        keys: Vec<Key>,
        after: OriginTime,
    ) {
        self.count_load("todos", keys.len());
        let limit = self.load_timeout();
        let outcome = self
            .bounded(limit, self.origin.load_todos(&names, after, limit))
            .await;
        let outcomes: Vec<Outcome> = match outcome {
            Ok((as_of, values)) => values
                .into_iter()
                .map(|value| Ok((Stamped { as_of, value }, Source::Origin)))
                .collect(),
            Err(error) => vec![Err(error); keys.len()],
        };
        for (name, outcome) in names.iter().zip(&outcomes) {
            let Ok((stamped, _)) = outcome else { continue };
            self.keep_todo(name, stamped);
        }
        let mut state = self.loads.state();
        state.todo_loads -= 1;
        for (key, outcome) in keys.into_iter().zip(outcomes) {
            state.end(key, &outcome);
        }
        self.begin_loads(&mut state);
    }

    async fn run_page_load(
        self: Arc<Self>,
        query: Arc<PageQuery>,
        key: Key,
        after: OriginTime,
        began: Mono,
    ) {
        self.count_load("page", 1);
        let limit = self.load_timeout();
        let outcome = self
            .bounded(limit, self.origin.load_page(&query, after, limit))
            .await;
        let outcome = outcome.map(|(as_of, page)| {
            (
                Stamped {
                    as_of,
                    value: Value::Page(Arc::new(page)),
                },
                Source::Origin,
            )
        });
        if let Ok((stamped, _)) = &outcome {
            self.keep_page(&query, stamped, began);
        }
        let mut state = self.loads.state();
        state.page_loads -= 1;
        state.end(key, &outcome);
        self.begin_loads(&mut state);
    }

    fn load_timeout(&self) -> Duration {
        if self.heart.is_down() {
            LOAD_TIMEOUT_WHEN_DOWN
        } else {
            LOAD_TIMEOUT
        }
    }

    fn count_load(&self, kind: &'static str, keys: usize) {
        self.metrics
            .origin_loads
            .get_or_create(&Kind { kind })
            .inc();
        self.metrics.origin_load_keys.inc_by(keys as u64);
    }

    /// Runs a load within its time, and sees to it that those who wait get an
    /// answer also when it panics.
    async fn bounded<T>(
        &self,
        limit: Duration,
        load: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, Arc<OriginError>> {
        let load = std::panic::AssertUnwindSafe(load).catch_unwind();
        let outcome = match timeout(limit, load).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                self.metrics
                    .task_panics
                    .get_or_create(&Kind { kind: "load" })
                    .inc();
                Err(OriginError::unavailable("the load ended in a panic"))
            }
            Err(_) => Err(OriginError::unavailable(format!(
                "no answer within {limit:?}"
            ))),
        };
        outcome.map_err(|error| {
            self.metrics.origin_load_failures.inc();
            tracing::debug!(%error, "a load failed");
            Arc::new(error)
        })
    }

    /// Keeps a loaded todo in both caches, if it is not below its fence
    /// already.
    fn keep_todo(&self, name: &TodoName, stamped: &Stamped) {
        if stamped.as_of < self.coherence.view_todo(name.as_str()).min_as_of {
            return;
        }
        self.near.put_todo(name.clone(), stamped.clone());
        self.share(
            &Key::Todo(name.clone()).shared(self.origin.entry_scope()),
            name.as_str(),
            stamped,
        );
    }

    /// Keeps a loaded page: in the near tier in any case, for its grace.
    fn keep_page(&self, query: &Arc<PageQuery>, stamped: &Stamped, began: Mono) {
        self.near
            .put_page(Arc::clone(query), stamped.clone(), Some(began));
        if stamped.as_of >= self.coherence.view_list(query.list.as_str()).min_as_of {
            let key = Key::Page(Arc::clone(query));
            self.share(
                &key.shared(self.origin.entry_scope()),
                &query.to_string(),
                stamped,
            );
        }
    }

    /// Puts a value into the shared tier, off the way of the request.
    pub(super) fn share(&self, key: &SharedKey, whole: &str, stamped: &Stamped) {
        let Some(shared) = &self.shared else { return };
        let entry = record::encode(self.origin.entry_scope(), whole, stamped);
        shared.put(vec![(key.clone(), entry)], self.settings.replay_window);
    }
}

impl State {
    pub(super) fn enqueue(&mut self, key: Key) {
        match key {
            Key::Todo(name) => self.todos.push_back(name),
            Key::Page(query) => self.pages.push_back(query),
        }
    }

    /// Ends the load of a key: everybody who waited for it gets the outcome.
    fn end(&mut self, key: Key, outcome: &Outcome) {
        let (waiters, more) = self.flights.end(&key);
        for waiter in waiters {
            // A reader that went away needs no answer.
            let _ = waiter.send(outcome.clone());
        }
        if more {
            self.enqueue(key);
        }
    }
}
