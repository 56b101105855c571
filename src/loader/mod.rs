//! Loads: the only caller of the origin's reads. Keys that are missing at the same
//! moment are loaded together, once for all readers that wait for them, and without
//! an added wait when no load is running.

mod lease;
mod refresh_ahead;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::try_join_all};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::task::TaskTracker;

use self::refresh_ahead::HitCounters;
use crate::{
    budget::{Budgets, Caller, Count, FairQueue, Part, Reservation},
    coherence::{Joined, LoadRequirement, SingleFlight},
    error::{Error, Unavailable},
    model::{Key, Mono, OriginTime, Source, Stamped, TodoName, Value},
    origin::{Origin, OriginError},
    telemetry::{Kind, Metrics},
    tier::Tiers,
    tracker::OriginTracker,
};

/// Time for a load. Without it, a snapshot read waits without end when the
/// majority of the replica set is gone.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);
/// While the origin is down a load is only a probe.
const LOAD_TIMEOUT_WHEN_DOWN: Duration = Duration::from_millis(50);
/// Loads of todos running at once. Kept low so that misses are batched: an extra
/// document costs a fiftieth of a load.
const TODO_LOADS: usize = 4;
/// Keys of one load of todos: about a millisecond of the origin's time, so that a
/// key does not wait long for the others.
const LOAD_KEYS: usize = 128;
/// What a load takes, in sizes of the values that it returns: the origin's reply, its
/// documents, and the values.
const LOAD_FACTOR: u64 = 3;
/// What a value is taken to have while none was loaded, and at least.
const LEAST_VALUE_BYTES: u64 = 1 << 10;

/// A value, and the tier that it came from in the end: the origin, or the shared
/// tier where another replica had loaded it.
pub type Loaded = (Stamped, Source);

type Outcome = Result<Loaded, Arc<OriginError>>;

/// What a reader asks for.
pub struct LoadRequest {
    /// What to load.
    pub key: Key,
    /// Which running load the reader may join.
    pub requirement: LoadRequirement,
    /// The fence that invalidated the value in the near cache, if one replica should load the
    /// key for all of them (`lease.rs`).
    pub lease: Option<OriginTime>,
    /// Ignore what the near cache holds: for the verifier.
    pub past_near: bool,
}

/// Who asks.
#[derive(Clone, Copy, Default)]
pub struct Charge<'a> {
    /// The caller whose share of the waiting keys it uses; `None`: not charged to a caller.
    pub caller: Option<&'a Arc<Caller>>,
    /// It is the rest of a request whose first keys were admitted.
    pub continues: bool,
}

/// Running and waiting loads.
pub struct Loader {
    origin: Arc<dyn Origin>,
    tracker: Arc<OriginTracker>,
    tiers: Arc<Tiers>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    hits: HitCounters,
    budgets: Arc<Budgets>,
    state: Mutex<State>,
    max_todo_loads: usize,
}

#[derive(Default)]
struct State {
    flights: SingleFlight<Key, oneshot::Sender<Outcome>>,
    /// The place of each key of `flights`, for the caller that asked first.
    places: HashMap<Key, Reservation>,
    todos: FairQueue<TodoName>,
    /// Pages, and documents and pages of lists: each is a separate load.
    pages: FairQueue<Key>,
    todo_loads: usize,
    /// What a todo is expected to have, from those loaded last.
    todo_bytes: u64,
}

impl Loader {
    /// A loader with no load. `max_origin_loads`: most loads at the origin at once.
    #[must_use]
    pub fn new(
        origin: Arc<dyn Origin>,
        tracker: Arc<OriginTracker>,
        tiers: Arc<Tiers>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        budgets: Arc<Budgets>,
        max_origin_loads: usize,
    ) -> Self {
        Self {
            origin,
            tracker,
            tiers,
            metrics,
            tasks,
            hits: HitCounters::default(),
            budgets,
            state: Mutex::default(),
            max_todo_loads: TODO_LOADS.min(max_origin_loads),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads keys, in their order. Joins running loads that began late enough.
    ///
    /// # Errors
    /// `OriginUnavailable` if a load failed. `Overloaded` if too many keys wait, or if
    /// this caller has more than its share of nearly too many.
    pub async fn load(
        self: &Arc<Self>,
        requests: Vec<LoadRequest>,
        charge: Charge<'_>,
    ) -> Result<Vec<Loaded>, Error> {
        let outcomes = self.join(requests, charge)?;
        try_join_all(outcomes.into_iter().map(|outcome| async {
            match outcome.await {
                Ok(Ok(loaded)) => Ok(loaded),
                Ok(Err(error)) => Err(Unavailable::from(OriginError::clone(&error)).into()),
                Err(_) => Err(Unavailable::NoValue.into()),
            }
        }))
        .await
    }

    /// Places for so many keys more. A caller that waits for no key is admitted all the
    /// same up to twice the bound, and so is the rest of a request that is under way:
    /// one request may be larger than a share.
    fn admit(&self, keys: u64, charge: Charge<'_>) -> Result<Reservation, Error> {
        let waiting = self.budgets.count(Count::WaitingKeys);
        if let Some(places) = waiting.reserve(charge.caller, keys) {
            return Ok(places);
        }
        let used = charge
            .caller
            .map_or(waiting.used(), |caller| waiting.used_by(caller));
        if (used == 0 || charge.continues) && waiting.used() <= 2 * waiting.limit() {
            return Ok(waiting.force(charge.caller, keys));
        }
        let kind = waiting.name();
        self.metrics.overloaded.get_or_create(&Kind { kind }).inc();
        let limit = usize::try_from(waiting.limit()).unwrap_or(usize::MAX);
        Err(Error::overloaded(kind, limit))
    }

    fn join(
        self: &Arc<Self>,
        requests: Vec<LoadRequest>,
        charge: Charge<'_>,
    ) -> Result<Vec<oneshot::Receiver<Outcome>>, Error> {
        let mut state = self.state();
        let is_new = |request: &&LoadRequest| !state.flights.has(&request.key);
        let new = requests.iter().filter(is_new).count() as u64;
        let mut places = self.admit(new, charge)?;
        let mut outcomes = Vec::with_capacity(requests.len());
        for LoadRequest {
            key,
            requirement,
            lease,
            past_near,
        } in requests
        {
            let (sender, receiver) = oneshot::channel();
            outcomes.push(receiver);
            if let Some(stamped) = self.recheck_near(&state, &key, &requirement)
                && !past_near
            {
                // The receiver is in `outcomes`.
                let _ = sender.send(Ok((stamped, Source::Origin)));
                continue;
            }
            match state.flights.join(&key, requirement, sender) {
                Joined::First => {
                    state.places.insert(key.clone(), places.split(1));
                    self.start(&mut state, key, lease);
                }
                Joined::Running | Joined::Next => drop(self.metrics.joined_loads.inc()),
            }
        }
        self.begin_loads(&mut state);
        Ok(outcomes)
    }

    /// Checks near again under the lock: a load may have finished while the reader
    /// was asking the shared tier. A load stores its value before it ends, so
    /// nothing is missed.
    fn recheck_near(
        &self,
        state: &State,
        key: &Key,
        requirement: &LoadRequirement,
    ) -> Option<Stamped> {
        if state.flights.has(key) {
            return None;
        }
        let stamped = self.tiers.near.get(key.as_ref())?.stamped;
        (stamped.as_of >= requirement.after).then_some(stamped)
    }

    /// Queues the load of a key, or asks for its lease first.
    fn start(self: &Arc<Self>, state: &mut State, key: Key, lease: Option<OriginTime>) {
        match (lease, self.tiers.shared_if_up()) {
            (Some(fence), Some(shared)) => {
                let (loader, shared) = (Arc::clone(self), Arc::clone(shared));
                self.tasks
                    .spawn(async move { loader.load_with_lease(shared, key, fence).await });
            }
            _ => state.enqueue(key),
        }
    }

    /// Begins as many of the waiting loads as may run.
    fn begin_loads(self: &Arc<Self>, state: &mut State) {
        while state.todo_loads < self.max_todo_loads && !state.todos.is_empty() {
            let Some(memory) = self.reserve_todos(state) else {
                break;
            };
            let names: Vec<_> = std::iter::from_fn(|| state.todos.pop())
                .take(LOAD_KEYS)
                .collect();
            let keys: Vec<_> = names.iter().cloned().map(Key::Todo).collect();
            let after = state
                .flights
                .begin(&keys, self.load_after(&keys), self.tracker.now());
            state.todo_loads += 1;
            let loader = Arc::clone(self);
            self.tasks
                .spawn(async move { loader.load_todos(names, keys, after, memory).await });
        }
        let running = self.budgets.count(Count::PageLoads);
        let most = self.origin.page_loads() as u64;
        while !running.is_full(None) && running.used() < most {
            let admitted =
                |caller: Option<&Arc<Caller>>| !running.is_full(caller.map(AsRef::as_ref));
            let Some((caller, key)) = state.pages.pop_if(admitted) else {
                break;
            };
            let place = running.force(caller.as_ref(), 1);
            let began = self.tracker.now();
            let keys = std::slice::from_ref(&key);
            let after = state.flights.begin(keys, self.load_after(keys), began);
            let loader = Arc::clone(self);
            self.tasks
                .spawn(async move { loader.load_page(key, after, began, place).await });
        }
    }

    /// Memory for the next load of todos, by what the last ones took. `None`: it has to
    /// wait for the end of one that runs.
    fn reserve_todos(&self, state: &State) -> Option<Reservation> {
        let keys = state.todos.len().min(LOAD_KEYS) as u64;
        let bytes = keys * state.todo_bytes.max(LEAST_VALUE_BYTES) * LOAD_FACTOR;
        let loads = self.budgets.of(Part::Loads);
        (state.todo_loads == 0 || loads.has_room_for(bytes)).then(|| loads.force(None, bytes))
    }

    /// The time that a load of these keys must reach: the newest origin time that this
    /// replica knows, even if readers need less.
    fn load_after(&self, keys: &[Key]) -> OriginTime {
        let fences = keys
            .iter()
            .map(|key| self.tracker.watermarks.view(key.as_ref()).min_as_of);
        fences.fold(self.tracker.newest_known(), OriginTime::max)
    }

    async fn load_todos(
        self: Arc<Self>,
        names: Vec<TodoName>,
        keys: Vec<Key>,
        after: OriginTime,
        mut memory: Reservation,
    ) {
        self.count_load("todos", keys.len());
        let limit = self.timeout();
        let load = self.origin.load_todos(&names, after, limit);
        let outcomes: Vec<Outcome> = match self.bounded(limit, load).await {
            Ok((as_of, values)) => values
                .into_iter()
                .map(|value| Ok((Stamped { as_of, value }, Source::Origin)))
                .collect(),
            Err(error) => vec![Err(error); keys.len()],
        };
        let values = outcomes.iter().flatten();
        let bytes: u64 = values
            .map(|(stamped, _)| stamped.value.bytes() as u64)
            .sum();
        memory.set(bytes);
        for (key, outcome) in keys.iter().zip(&outcomes) {
            if let Ok((stamped, _)) = outcome
                && self.is_current(key, stamped)
            {
                self.tiers.near.put(key, stamped.clone(), None);
                self.store_shared(key, stamped);
            }
        }
        let mut state = self.state();
        state.todo_loads -= 1;
        state.expect_todos_of(bytes / names.len().max(1) as u64);
        for (key, outcome) in keys.into_iter().zip(outcomes) {
            state.end(key, &outcome);
        }
        drop(memory);
        self.begin_loads(&mut state);
    }

    async fn load_page(
        self: Arc<Self>,
        key: Key,
        after: OriginTime,
        began: Mono,
        place: Reservation,
    ) {
        let kind = if matches!(key, Key::List(_)) {
            "list"
        } else {
            "page"
        };
        self.count_load(kind, 1);
        let limit = self.timeout();
        let load = self.load_alone(&key, after, limit);
        let stamped = |(as_of, value)| (Stamped { as_of, value }, Source::Origin);
        let outcome = self.bounded(limit, load).await.map(stamped);
        if let Ok((stamped, _)) = &outcome {
            if let Value::Unreadable(why) = &stamped.value {
                let (field, problem) = (&why.field, &why.problem);
                tracing::warn!(list = %key, field, problem, "the document cannot be read as a list and gives no rights");
            }
            // Kept near in any case: the page may be served within its grace.
            self.tiers.near.put(&key, stamped.clone(), Some(began));
            if self.is_current(&key, stamped) {
                self.store_shared(&key, stamped);
            }
        }
        let mut state = self.state();
        drop(place);
        state.end(key, &outcome);
        self.begin_loads(&mut state);
    }

    async fn load_alone(
        &self,
        key: &Key,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Value), OriginError> {
        match key {
            Key::Page(query) => {
                let (as_of, page) = self.origin.load_page(query, after, limit).await?;
                Ok((as_of, Value::Page(Arc::new(page))))
            }
            Key::Lists(query) => {
                let (as_of, page) = self.origin.load_lists(query, after, limit).await?;
                Ok((as_of, Value::Lists(Arc::new(page))))
            }
            Key::List(name) => self.origin.load_list(name, after, limit).await,
            Key::Todo(_) => Err(OriginError::unavailable("a todo was loaded as a page")),
        }
    }

    fn is_current(&self, key: &Key, stamped: &Stamped) -> bool {
        stamped.as_of >= self.tracker.watermarks.view(key.as_ref()).min_as_of
    }

    fn store_shared(&self, key: &Key, stamped: &Stamped) {
        self.tiers
            .store_shared(self.origin.entry_scope(), key, stamped);
    }

    fn timeout(&self) -> Duration {
        if self.tracker.heartbeats.is_down() {
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

    /// Runs a load within its time. A panic becomes an error, so that those who
    /// wait get an answer.
    async fn bounded<T>(
        &self,
        limit: Duration,
        load: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, Arc<OriginError>> {
        let load = AssertUnwindSafe(load).catch_unwind();
        let outcome = match timeout(limit, load).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                self.metrics
                    .task_panics
                    .get_or_create(&Kind { kind: "load" })
                    .inc();
                Err(OriginError::unavailable("the load panicked"))
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
}

impl State {
    /// Queues the load of a key in the line of the caller that has its place.
    fn enqueue(&mut self, key: Key) {
        let place = self.places.get(&key);
        let caller = place.and_then(|place| place.caller().cloned());
        match key {
            Key::Todo(name) => self.todos.push(caller.as_ref(), name),
            Key::Page(_) | Key::List(_) | Key::Lists(_) => {
                self.pages.push(caller.as_ref(), key);
            }
        }
    }

    /// Ends the load of a key: all that waited for it get the outcome.
    fn end(&mut self, key: Key, outcome: &Outcome) {
        let (waiters, more) = self.flights.end(&key);
        for waiter in waiters {
            // A reader that has gone needs no answer.
            let _ = waiter.send(outcome.clone());
        }
        if more {
            self.enqueue(key);
        } else {
            self.places.remove(&key);
        }
    }

    /// Todos of these bytes each were loaded: larger ones are expected at once, smaller
    /// ones by and by.
    fn expect_todos_of(&mut self, bytes: u64) {
        let slowly = self.todo_bytes - self.todo_bytes / 8 + bytes / 8;
        self.todo_bytes = slowly.max(bytes);
    }
}
