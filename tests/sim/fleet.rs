//! The replicas: each slot has one process at a time, which can be killed,
//! drained and started anew.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tidemark::{
    cache::{Cache, Clock},
    coherence::Watermarks,
    model::OriginTime,
    telemetry::{Kind, Metrics},
    tier::shared::Shared,
};
use tokio::{task::AbortHandle, time::Instant};

use crate::{
    origin::{Link, SimOrigin},
    shared::SimShared,
    world::World,
};

/// One process of the service.
pub struct Replica {
    pub cache: Arc<Cache>,
    pub link: Arc<Link>,
    pub born: Instant,
    pub draining: AtomicBool,
    /// The highest times of its own writes, by the name of a todo or list: its
    /// reads from then on are not older, with no token.
    pub own: Mutex<BTreeMap<String, OriginTime>>,
    metrics: Arc<Metrics>,
    run: AbortHandle,
}

impl Replica {
    pub fn own_writes(&self) -> BTreeMap<String, OriginTime> {
        self.own.lock().expect("no panic while locked").clone()
    }

    /// What its own verifier found: it raises no false alarm.
    pub fn count_verified(&self, world: &World) {
        for kind in ["consistent", "inconsistent", "undecided"] {
            let count = self.metrics.verified.get_or_create(&Kind { kind }).get();
            world.count_more(kind, count);
            if kind == "inconsistent" && count > 0 {
                world.violated(
                    "verify",
                    format!(
                        "replica {} finds {count} of its answers wrong",
                        self.link.replica
                    ),
                );
            }
        }
    }

    pub fn wrote(&self, name: &str, time: OriginTime) {
        let mut own = self.own.lock().expect("no panic while locked");
        let highest = own.entry(name.to_owned()).or_default();
        *highest = time.max(*highest);
    }
}

pub struct Fleet {
    world: Arc<World>,
    slots: Mutex<Vec<Arc<Replica>>>,
    incarnations: AtomicU64,
}

impl Fleet {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let world = Arc::clone(world);
        let fleet = Arc::new(Self {
            world,
            slots: Mutex::default(),
            incarnations: AtomicU64::new(0),
        });
        for slot in 0..fleet.world.config.replicas {
            let process = fleet.process(slot);
            fleet
                .slots
                .lock()
                .expect("no panic while locked")
                .push(process);
        }
        fleet
    }

    /// A new process for a slot.
    fn process(self: &Arc<Self>, slot: usize) -> Arc<Replica> {
        let world = &self.world;
        let incarnation = self.incarnations.fetch_add(1, Ordering::Relaxed);
        let link = Link::new(world, slot, incarnation);
        let shared = world
            .config
            .with_shared
            .then(|| Arc::new(SimShared(Arc::clone(&link))) as Arc<dyn Shared>);
        let metrics = Arc::new(Metrics::default());
        let (todo_stripes, list_stripes) = world.config.stripes;
        let cache = Cache::with_watermarks(
            world.config.settings.clone(),
            Clock::Tokio(world.start),
            Arc::new(SimOrigin(Arc::clone(&link))),
            shared,
            Arc::clone(&metrics),
            tidemark::budget::Budgets::unlimited(world.config.settings.max_origin_loads),
            Watermarks::new(todo_stripes, list_stripes),
        );
        let (running, fleet) = (Arc::clone(&cache), Arc::clone(self));
        let run = tokio::spawn(async move {
            let fatal = running.run().await;
            fleet
                .world
                .violated("fatal", format!("replica {slot} ended: {fatal}"));
            fleet.kill(slot);
            fleet.start(slot);
        });
        let (born, run) = (Instant::now(), run.abort_handle());
        Arc::new(Replica {
            cache,
            link,
            born,
            draining: AtomicBool::new(false),
            own: Mutex::default(),
            metrics,
            run,
        })
    }

    pub fn replica(&self, slot: usize) -> Arc<Replica> {
        Arc::clone(&self.slots.lock().expect("no panic while locked")[slot])
    }

    pub fn any(&self) -> Arc<Replica> {
        let slot = self.world.rng().of(0..self.world.config.replicas as u64);
        self.replica(usize::try_from(slot).expect("small"))
    }

    /// Kills the process of a slot: nothing of it goes on. What it sent is on
    /// its way.
    pub fn kill(&self, slot: usize) {
        let old = self.replica(slot);
        old.count_verified(&self.world);
        old.link.dead.cancel();
        old.run.abort();
        self.world.changed.notify_waiters();
    }

    /// Whether a slot has no living process at the moment.
    pub fn is_restarting(&self) -> bool {
        let slots = self.slots.lock().expect("no panic while locked");
        slots.iter().any(|replica| {
            replica.link.dead.is_cancelled() || replica.draining.load(Ordering::Relaxed)
        })
    }

    pub fn start(self: &Arc<Self>, slot: usize) {
        let new = self.process(slot);
        self.slots.lock().expect("no panic while locked")[slot] = new;
    }
}
