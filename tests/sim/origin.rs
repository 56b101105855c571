//! The simulated origin, as one replica reaches it: calls take time, stall,
//! fail before or after they took effect, and are never wrong, unless a bug is
//! planted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tidemark::{
    model::{
        ListName, ListsPage, ListsQuery, OriginId, OriginTime, Page, PageQuery, RequestId,
        TodoName, Value, Write, WriteDone,
    },
    origin::{Feed, FeedError, FeedStart, Imported, Origin, OriginError, WriteError},
    pb::Todo,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    feed::SimFeed,
    history::History,
    world::{Bug, World},
    write,
};

/// The database driver gives up a write that takes longer.
const WRITE_LIMIT: Duration = Duration::from_secs(8);

/// The way of one process to the origin. A dead one never answers.
pub struct Link {
    pub world: Arc<World>,
    pub replica: usize,
    pub incarnation: u64,
    pub dead: CancellationToken,
    /// Loads under way, by key.
    loading: Mutex<BTreeMap<String, u64>>,
    /// Loads that were ever begun, by key.
    begun: Mutex<BTreeMap<String, u64>>,
    /// Of which making of the collection this process knows.
    collection: Mutex<u64>,
}

impl Link {
    pub fn new(world: &Arc<World>, replica: usize, incarnation: u64) -> Arc<Self> {
        let collection = Mutex::new(world.history().collection);
        let (world, dead) = (Arc::clone(world), CancellationToken::new());
        Arc::new(Self {
            world,
            replica,
            incarnation,
            dead,
            loading: Mutex::default(),
            begun: Mutex::default(),
            collection,
        })
    }

    /// The process has read of a drop in its feed.
    pub fn learn_collection(&self) {
        *self.collection.lock().expect("no panic while locked") = self.world.history().collection;
    }

    /// How often a key was loaded.
    pub fn loads_of(&self, key: &str) -> u64 {
        self.begun
            .lock()
            .expect("no panic while locked")
            .get(key)
            .copied()
            .unwrap_or_default()
    }

    /// Waits while nothing comes through.
    pub async fn reachable(&self) {
        loop {
            let changed = self.world.changed.notified();
            if !self.dead.is_cancelled() && !self.world.active_faults().stalls(self.replica) {
                return;
            }
            changed.await;
        }
    }

    /// One way to the origin or back.
    async fn hop(&self) -> Result<(), String> {
        self.reachable().await;
        let noisy = self.world.active_faults().links[self.replica].noisy > 0;
        let (delay, fails) = {
            let mut rng = self.world.rng();
            let slow = noisy && rng.chance(20);
            (
                rng.ms(if slow { 0..1500 } else { 0..6 }),
                noisy && rng.chance(15),
            )
        };
        sleep(delay).await;
        self.reachable().await;
        if self.world.active_faults().refuses(self.replica) {
            return Err("connection refused".into());
        }
        if fails {
            Err("connection reset".into())
        } else {
            Ok(())
        }
    }

    /// One load begins. I7: of a key only one is under way.
    fn begin_load(self: &Arc<Self>, keys: Vec<String>) -> UnderWay {
        let mut loading = self.loading.lock().expect("no panic while locked");
        for key in &keys {
            let count = loading.entry(key.clone()).or_default();
            *count += 1;
            if *count > 1 {
                self.world.violated(
                    "I7",
                    format!(
                        "{count} loads of {key} under way in replica {}",
                        self.replica
                    ),
                );
            }
        }
        let mut begun = self.begun.lock().expect("no panic while locked");
        for key in &keys {
            *begun.entry(key.clone()).or_default() += 1;
        }
        self.world.count("loads");
        UnderWay {
            link: Arc::clone(self),
            keys,
        }
    }

    /// A load: the state at one time not before `after`.
    async fn load<T>(
        &self,
        after: OriginTime,
        limit: Duration,
        read: impl FnOnce(&History, OriginTime) -> T,
    ) -> Result<(OriginTime, T), OriginError> {
        let unavailable = |problem: String| OriginError::unavailable(problem);
        let work = async {
            self.hop().await.map_err(unavailable)?;
            let loaded = {
                let history = self.world.history();
                if after > history.last {
                    let what = format!(
                        "a load after {after}, and the origin is at {}",
                        history.last
                    );
                    drop(history);
                    self.world.violated("ahead", what);
                    return Err(OriginError::Ahead(after));
                }
                let time = self.snapshot_time(&history, after);
                let state = if self.world.has(Bug::LoadOlderThanStamp) {
                    self.older(time)
                } else {
                    time
                };
                (time, read(&history, state))
            };
            self.hop().await.map_err(unavailable)?;
            Ok(loaded)
        };
        let late = |_| OriginError::unavailable(format!("no answer within {limit:?}"));
        timeout(limit, work).await.map_err(late)?
    }

    /// Any time from `after` on that was reached is right.
    fn snapshot_time(&self, history: &History, after: OriginTime) -> OriginTime {
        let mut rng = self.world.rng();
        let after = if self.world.has(Bug::LoadIgnoresAfter) {
            OriginTime(after.0 - rng.of(0..20))
        } else {
            after
        };
        match rng.of(0..10) {
            0 | 1 => after,
            2 => OriginTime(rng.of(after.0..history.last.0 + 1)),
            _ => history.last,
        }
    }

    fn older(&self, time: OriginTime) -> OriginTime {
        OriginTime(time.0 - self.world.rng().of(0..6))
    }

    async fn send_heartbeat(&self, number: u64) -> Result<OriginTime, String> {
        self.hop().await?;
        let time = self
            .world
            .commit(|history, at| history.heartbeat(at, self.incarnation, number));
        self.hop().await?;
        Ok(time)
    }

    async fn send_write(
        &self,
        write: Write,
        request: Option<RequestId>,
    ) -> Result<WriteDone, WriteError> {
        self.hop().await.map_err(WriteError::unavailable)?;
        let outcome = write::apply(&self.world, write, request);
        let confirmed = self.hop().await;
        let at = outcome.as_ref().ok().map(|done| done.time);
        if let Err(problem) = confirmed {
            // Sometimes the reply says that only the majority is missing.
            let at = at.filter(|_| self.world.rng().chance(50));
            return Err(WriteError::OutcomeUnknown {
                cause: problem.into(),
                at,
            });
        }
        if let Some(at) = at {
            self.world.history().acknowledge(Instant::now(), at);
        }
        outcome
    }
}

struct UnderWay {
    link: Arc<Link>,
    keys: Vec<String>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut loading = self.link.loading.lock().expect("no panic while locked");
        for key in &self.keys {
            *loading.get_mut(key).expect("begun before") -= 1;
        }
    }
}

pub struct SimOrigin(pub Arc<Link>);

#[async_trait]
impl Origin for SimOrigin {
    fn id(&self) -> OriginId {
        OriginId(77)
    }

    fn entry_scope(&self) -> u64 {
        *self.0.collection.lock().expect("no panic while locked")
    }

    async fn load_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<Value>), OriginError> {
        let _under_way = self
            .0
            .begin_load(names.iter().map(ToString::to_string).collect());
        let read = |history: &History, time| {
            names
                .iter()
                .map(|name| history.value_at(name, time))
                .collect()
        };
        self.0.load(after, limit, read).await
    }

    async fn load_page(
        &self,
        query: &PageQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError> {
        let _under_way = self.0.begin_load(vec![query.to_string()]);
        let torn = self
            .0
            .world
            .has(Bug::LoadTearsPage)
            .then(|| self.0.world.rng().of(1..8));
        let read = |history: &History, time: OriginTime| {
            let mut page = history.page_at(query, time);
            if let Some(back) = torn {
                let older = history.page_at(query, OriginTime(time.0 - back));
                let half = page.names.len() / 2;
                page.names.truncate(half);
                page.names.extend(older.names.into_iter().skip(half));
            }
            page
        };
        self.0.load(after, limit, read).await
    }

    async fn load_list(
        &self,
        name: &ListName,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Value), OriginError> {
        let _under_way = self.0.begin_load(vec![name.to_string()]);
        let read = |history: &History, time| match history.list_doc_at(name, time) {
            Some(doc) if self.0.world.has(Bug::UnreadableListIsRead) => {
                Value::List(Arc::clone(&doc.list))
            }
            doc => doc.map_or(Value::Absent, |doc| doc.value()),
        };
        self.0.load(after, limit, read).await
    }

    async fn load_lists(
        &self,
        query: &ListsQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, ListsPage), OriginError> {
        let _under_way = self.0.begin_load(vec![query.to_string()]);
        let read = |history: &History, time| history.lists_at(query, time);
        self.0.load(after, limit, read).await
    }

    async fn heartbeat(&self, number: u64, limit: Duration) -> Result<OriginTime, OriginError> {
        let link = Arc::clone(&self.0);
        let world = &self.0.world;
        if world.has(Bug::HeartbeatNotMajority) && world.rng().chance(30) {
            // Its time is that of the old primary, where nobody writes any more.
            let times = world
                .history()
                .events
                .iter()
                .rev()
                .take(8)
                .map(|event| event.time)
                .min();
            sleep(Duration::from_millis(1)).await;
            return times.ok_or_else(|| OriginError::Unavailable("empty".into()));
        }
        // What is on its way arrives also when nobody waits for it any more.
        let sent = tokio::spawn(async move { link.send_heartbeat(number).await });
        let time = match timeout(limit, sent).await {
            Ok(ended) => ended.expect("no panic").map_err(OriginError::unavailable)?,
            Err(_) => {
                return Err(OriginError::unavailable(format!(
                    "no answer within {limit:?}"
                )));
            }
        };
        Ok(if world.has(Bug::HeartbeatTooLow) {
            OriginTime(time.0 - world.rng().of(0..8))
        } else {
            time
        })
    }

    async fn write(
        &self,
        write: Write,
        request: Option<RequestId>,
        _: Option<Instant>,
    ) -> Result<WriteDone, WriteError> {
        let link = Arc::clone(&self.0);
        let sent = tokio::spawn(async move { link.send_write(write, request).await });
        match timeout(WRITE_LIMIT, sent).await {
            Ok(ended) => ended.expect("no panic"),
            Err(_) => Err(WriteError::OutcomeUnknown {
                cause: "no answer".into(),
                at: None,
            }),
        }
    }

    async fn import(&self, _: Vec<Todo>) -> Result<Imported, OriginError> {
        Err(OriginError::Unavailable(
            "not part of the simulation".into(),
        ))
    }

    fn replay_start(&self, h0: OriginTime, window: Duration) -> OriginTime {
        OriginTime((h0.0 >> 32).saturating_sub(window.as_secs()) << 32)
    }

    async fn open_feed(&self, from: FeedStart) -> Result<Box<dyn Feed>, FeedError> {
        self.0.hop().await.map_err(FeedError::broken)?;
        Ok(Box::new(SimFeed::open(&self.0, from)?))
    }
}
