//! Twenty replicas that all keep one todo: what a change of it costs the
//! origin.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use tidemark::{
    cache::{Cache, Clock, Consistency, Phase, ReadOptions, Settings},
    model::{Patch, TodoName, Write},
    origin::{Origin, embedded::Embedded},
    pb,
    telemetry::Metrics,
    tier::shared::{MemoryShared, Shared, SharedKey},
};
use tokio::time::{sleep, timeout};

use crate::support::folder;

const REPLICAS: usize = 20;
const CHANGES: usize = 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A shared tier that takes its time to store an entry, as a load and a
/// network do.
struct Slow {
    memory: Arc<MemoryShared>,
    /// Whether it has leases: if not, everybody gets one.
    leases: bool,
}

#[async_trait]
impl Shared for Slow {
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>> {
        self.memory.get(keys).await
    }

    fn put(&self, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration) {
        let memory = Arc::clone(&self.memory);
        tokio::spawn(async move {
            sleep(Duration::from_millis(5)).await;
            memory.put(entries, lifetime);
        });
    }

    async fn lease(&self, key: &SharedKey, ttl: Duration) -> bool {
        !self.leases || self.memory.lease(key, ttl).await
    }

    fn is_up(&self) -> bool {
        true
    }
}

struct Replica {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

async fn replica(origin: &Arc<Embedded>, shared: Arc<Slow>) -> Replica {
    let settings = Settings {
        near_capacity: 1 << 20,
        staleness_limit: DAY,
        heartbeat_interval: DAY,
        replay_window: Duration::from_secs(600),
        list_grace: Duration::ZERO,
        stale_if_error: None,
        max_origin_loads: 256,
        verify_one_in: 0,
    };
    let metrics = Arc::new(Metrics::default());
    let origin: Arc<dyn Origin> = Arc::clone(origin) as _;
    let cache = Cache::new(
        settings,
        Clock::Boottime,
        origin,
        Some(shared),
        Arc::clone(&metrics),
        tidemark::budget::Budgets::unlimited(256),
    );
    tokio::spawn(Arc::clone(&cache).run());
    cache
        .phase()
        .wait_for(|phase| *phase == Phase::CaughtUp)
        .await
        .expect("caught up");
    Replica { cache, metrics }
}

async fn title(replica: &Replica, name: &TodoName) -> String {
    let want = ReadOptions {
        identity: None,
        consistency: Consistency::MinimizeLatency,
        deadline: None,
        caller: None,
    };
    let answer = replica.cache.get(name, &want).await.expect("a todo");
    pb::Todo::decode(answer.body).expect("a todo").title
}

/// Loads at the origin for each of some changes, from least to most.
async fn loads(leases: bool) -> Vec<u64> {
    let origin = Arc::new(Embedded::open(&folder("lease"), 0).expect("opened"));
    let name = TodoName::parse("lists/home/todos/hot").expect("a name");
    let todo = pb::Todo {
        name: name.to_string(),
        title: "0".into(),
        ..pb::Todo::default()
    };
    origin
        .write(
            Write::Create {
                name: name.clone(),
                todo,
            },
            None,
            None,
        )
        .await
        .expect("created");
    let memory = Arc::new(MemoryShared::default());
    let shared = || {
        Arc::new(Slow {
            memory: Arc::clone(&memory),
            leases,
        })
    };
    let replicas = join_all((0..REPLICAS).map(|_| replica(&origin, shared()))).await;
    let loaded = || {
        replicas
            .iter()
            .map(|replica| replica.metrics.origin_load_keys.get())
            .sum::<u64>()
    };
    let mut costs = Vec::new();
    for change in 0..=CHANGES {
        let (before, wanted) = (loaded(), change.to_string());
        let patch = Patch {
            title: Some(wanted.clone()),
            ..Patch::default()
        };
        let write = Write::Update {
            name: name.clone(),
            patch,
            etag: None,
            allow_missing: false,
        };
        origin.write(write, None, None).await.expect("updated");
        let all = join_all(replicas.iter().map(async |replica| {
            while title(replica, &name).await != wanted {
                sleep(Duration::from_millis(1)).await;
            }
        }));
        timeout(Duration::from_secs(120), all)
            .await
            .expect("every replica answers with the change");
        costs.push(loaded() - before);
    }
    // The first time they had nothing near.
    costs.remove(0);
    costs.sort_unstable();
    costs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_hot_todo_costs_the_origin_few_loads() {
    let costs = loads(true).await;
    // Who waits for a lease waits some ten milliseconds, and then loads. Other work on the
    // machine may take longer than that, and not at each change.
    assert!(costs[CHANGES / 4] <= 3, "{costs:?} loads");
}

/// What the lease is for, and that the test above sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_it_costs_many() {
    let costs = loads(false).await;
    assert!(costs[CHANGES / 4] > 3, "{costs:?} loads");
}
