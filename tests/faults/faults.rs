//! The faults: each is brought in, held, taken back, and waited out; and what
//! must hold meanwhile is said.

mod mongo;
mod redis;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use tidemark::pb::consistency::Requirement;
use tokio::time::{sleep, timeout};

use self::mongo::Injected;
use crate::{
    api,
    proxy::Mode,
    readers::Shift,
    report::{CALM, Cell, Window, p90_of_failures, percentiles},
    support::{Server, redis_cli},
    world::{Random, STALE_IF_ERROR, World, is_primary},
};

/// The kinds of faults, and a list of all of them.
macro_rules! faults {
    ($($name:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($name,)*
        }

        pub const ALL: &[Fault] = &[$(Fault::$name,)*];
    };
}

faults! {
    RedisMasterKilled,
    RedisMasterFrozen,
    RedisFlushed,
    RedisOldValues,
    RedisDown,
    RedisSlow,
    RedisStalled,
    RedisShardLost,
    RedisSlotsMoved,
    RedisRolesChanged,
    RedisWritesRefused,
    PrimarySteppedDown,
    PrimaryKilled,
    PrimaryFrozen,
    MongoKilled,
    MongoFrozen,
    FeedErrors,
    ReadErrors,
    WriteErrors,
    Flood,
    IndexesRebuilt,
    ReplicaCutOff,
    ReplicaFrozen,
    ReplicaKilled,
}

use Fault::{
    FeedErrors, Flood, IndexesRebuilt, MongoFrozen, MongoKilled, PrimaryFrozen, PrimaryKilled,
    PrimarySteppedDown, ReadErrors, RedisDown, RedisFlushed, RedisMasterFrozen, RedisMasterKilled,
    RedisOldValues, RedisRolesChanged, RedisShardLost, RedisSlotsMoved, RedisSlow, RedisStalled,
    RedisWritesRefused, ReplicaCutOff, ReplicaFrozen, ReplicaKilled, WriteErrors,
};

/// Those of the short form; beside them some are drawn.
pub const SHORT: [Fault; 4] = [RedisOldValues, PrimaryFrozen, ReplicaCutOff, MongoFrozen];
/// How many more faults the short form has.
pub const DRAWN: usize = 5;

/// Arms that must all be answered while only Redis is in trouble.
const ARMS: [&str; 12] = [
    "cached",
    "cached, stale allowed",
    "default",
    "max_staleness",
    "token",
    "strong",
    "batch default",
    "batch token",
    "batch strong",
    "list default",
    "list token",
    "list strong",
];
/// How soon UNAVAILABLE must be said, beyond what an answer from the near tier
/// takes at that time on this machine.
const SOON: Duration = Duration::from_millis(200);
/// From a new primary to reads of all levels: a second, and half of one for the
/// looking. On a busy machine four times the 99th of 100 strong reads without
/// a fault are added.
const AFTER_NEW_PRIMARY: Duration = Duration::from_millis(1500);
/// How long everything may take to be well again after a fault: MongoDB
/// started anew may need half a minute for an election.
const RECOVERY: Duration = Duration::from_secs(120);
/// A majority write by a plain driver that takes longer shows that MongoDB
/// itself does not keep up: then nothing is asked of reads that need it.
const PULSE_LIMIT: Duration = Duration::from_millis(700);
/// Time between those writes.
const PULSE_PAUSE: Duration = Duration::from_millis(100);
/// How long the service's driver takes to see that a server is frozen.
const FROZEN_IS_SEEN: Duration = Duration::from_secs(5);
/// How long a write may wait for the transaction of a replica that was killed: its age
/// when others end it, the pauses between looks, and a busy machine.
const LEFT_OPEN: Duration = Duration::from_secs(12);
/// Before the staleness limit: a second for the last heartbeat, and two for a
/// busy machine.
const MARGIN: Duration = Duration::from_secs(3);
/// Past the staleness limit, to see what is said then.
const BEYOND: Duration = Duration::from_secs(4);

impl Fault {
    pub const fn name(self) -> &'static str {
        match self {
            RedisMasterKilled => "Redis: a master killed",
            RedisMasterFrozen => "Redis: a master frozen",
            RedisFlushed => "Redis: flushed",
            RedisOldValues => "Redis: old values back",
            RedisDown => "Redis: all killed",
            RedisSlow => "Redis: slow",
            RedisStalled => "Redis: stalled",
            RedisShardLost => "Redis: a master dead for good",
            RedisSlotsMoved => "Redis: slots move",
            RedisRolesChanged => "Redis: masters become replicas",
            RedisWritesRefused => "Redis: writes refused",
            PrimarySteppedDown => "MongoDB: primary steps down",
            PrimaryKilled => "MongoDB: primary killed",
            PrimaryFrozen => "MongoDB: primary frozen",
            MongoKilled => "MongoDB: all killed",
            MongoFrozen => "MongoDB: all frozen",
            FeedErrors => "MongoDB: errors in the feed",
            ReadErrors => "MongoDB: errors in reads",
            WriteErrors => "MongoDB: errors in writes",
            Flood => "MongoDB: another database flooded",
            IndexesRebuilt => "MongoDB: indexes rebuilt",
            ReplicaCutOff => "a replica cut off from MongoDB",
            ReplicaFrozen => "a replica frozen",
            ReplicaKilled => "a replica killed",
        }
    }

    const fn is_of_redis(self) -> bool {
        matches!(
            self,
            RedisMasterKilled
                | RedisMasterFrozen
                | RedisFlushed
                | RedisOldValues
                | RedisDown
                | RedisSlow
                | RedisStalled
                | RedisShardLost
                | RedisSlotsMoved
                | RedisRolesChanged
                | RedisWritesRefused
        )
    }

    /// Whether one replica is the target.
    const fn is_at_replica(self) -> bool {
        matches!(
            self,
            FeedErrors | ReadErrors | WriteErrors | ReplicaCutOff | ReplicaFrozen | ReplicaKilled
        )
    }

    /// Whether all reads, but at the target, must be answered.
    const fn spares_reads(self) -> bool {
        self.is_of_redis() || self.is_at_replica() || matches!(self, Flood | IndexesRebuilt)
    }
}

fn soon(answered: &Cell) -> Duration {
    let [_, p99, _] = percentiles(&mut answered.micros.clone());
    SOON + Duration::from_secs_f64(p99 / 1000.0)
}

/// Who brings the faults in.
pub struct Chaos {
    pub world: Arc<World>,
    pub shift: Arc<Shift>,
    pub random: Random,
    pub hold: Duration,
    pub calm: Duration,
    /// From each new primary to strong reads at each replica.
    pub after_new_primary: Vec<Duration>,
    pub faults: usize,
    pub pulses: Pulses,
}

/// When majority writes by a plain driver began, and how long they took.
pub type Pulses = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// Feels the pulse of MongoDB until the shift ends.
pub async fn pulse(plain: mongodb::Client, shift: Arc<Shift>, pulses: Pulses) {
    let probe = plain
        .database("probe")
        .collection::<mongodb::bson::Document>("pulse");
    while !shift.ended() {
        let began = Instant::now();
        let write = probe.insert_one(doc! {});
        let done = timeout(PULSE_LIMIT * 2, async { write.await }).await;
        let took = if matches!(done, Ok(Ok(_))) {
            began.elapsed()
        } else {
            PULSE_LIMIT * 2
        };
        pulses.lock().expect("the pulses").push((began, took));
        sleep(PULSE_PAUSE).await;
    }
}

impl Chaos {
    /// One fault from its beginning to the calm after it.
    pub async fn run(&mut self, fault: Fault) {
        let target = self.random.below(self.world.replicas.len());
        let memory: Vec<_> = self
            .world
            .replicas
            .iter()
            .map(|r| r.memory().0 / 1024)
            .collect();
        println!(
            "fault {}: {} (replica {target}; MiB of each replica {memory:?})",
            self.faults,
            fault.name()
        );
        let began = Instant::now();
        let window = self
            .shift
            .recorder
            .enter(fault.name(), fault.is_at_replica().then_some(target));
        self.faults += 1;
        self.bring_in(fault, &window, target).await;
        let held = began.elapsed();
        self.well_again(fault.name()).await;
        if fault.is_of_redis() {
            self.redis_in_use(fault.name()).await;
        }
        println!(
            "  held {held:.1?}, well again after {:.1?}",
            began.elapsed().saturating_sub(held)
        );
        self.shift.recorder.enter(CALM, None);
        if fault.spares_reads() {
            self.check_reads(fault, &window, began);
        }
        sleep(self.calm).await;
    }

    async fn bring_in(&mut self, fault: Fault, window: &Arc<Window>, target: usize) {
        match fault {
            RedisMasterKilled => self.redis_master(Server::kill, Server::restart).await,
            RedisMasterFrozen => self.redis_master(Server::freeze, Server::thaw).await,
            RedisFlushed => self.redis_flushed().await,
            RedisOldValues => self.redis_old_values().await,
            RedisDown => self.redis_down().await,
            RedisSlow => self.redis_way(Mode::Slow(Duration::from_millis(15))).await,
            RedisStalled => self.redis_way(Mode::Stall).await,
            RedisShardLost => self.redis_shard_lost().await,
            RedisSlotsMoved => self.redis_slots_moved().await,
            RedisRolesChanged => self.redis_roles_changed().await,
            RedisWritesRefused => self.redis_writes_refused().await,
            PrimarySteppedDown => self.primary_steps_down(window).await,
            PrimaryKilled => self.primary(window, Server::kill, Server::restart).await,
            PrimaryFrozen => self.primary(window, Server::freeze, Server::thaw).await,
            MongoKilled => {
                self.mongo_down(window, Server::kill, Server::restart).await;
            }
            MongoFrozen => self.mongo_down(window, Server::freeze, Server::thaw).await,
            FeedErrors => self.errors_injected(target, Injected::in_feed()).await,
            ReadErrors => self.errors_injected(target, Injected::in_reads()).await,
            WriteErrors => self.errors_injected(target, Injected::in_writes()).await,
            Flood => self.flood().await,
            IndexesRebuilt => self.indexes_rebuilt().await,
            ReplicaCutOff => self.replica_cut_off(window, target).await,
            ReplicaFrozen => self.replica_frozen(target).await,
            ReplicaKilled => self.replica_killed(target).await,
        }
        if matches!(fault, ReplicaFrozen | ReplicaKilled) {
            let why = "where a transaction of the target may have been left open";
            self.check_writes(window, LEFT_OPEN, why);
        }
    }

    /// All reads were answered, but at the target, unless MongoDB did not keep up.
    fn check_reads(&self, fault: Fault, window: &Window, began: Instant) {
        let pulse = self.slowest_pulse_since(began);
        println!("  the slowest majority write of a plain driver meanwhile: {pulse:.0?}");
        for consistency in ARMS.into_iter().filter(|_| pulse < PULSE_LIMIT) {
            let failed = self
                .shift
                .recorder
                .window(window, consistency, false)
                .failed;
            self.must(failed.is_empty(), || {
                format!("{}: {consistency}: {failed:?}", fault.name())
            });
        }
    }

    fn slowest_pulse_since(&self, began: Instant) -> Duration {
        self.slowest_pulse_between(began, Instant::now())
    }

    fn slowest_pulse_between(&self, began: Instant, ended: Instant) -> Duration {
        let pulses = self.pulses.lock().expect("the pulses");
        let since = pulses.iter().rev().take_while(|(at, _)| *at >= began);
        let between = since.filter(|(at, took)| *at + *took <= ended);
        between
            .map(|(_, took)| *took)
            .max()
            .unwrap_or(Duration::MAX)
    }

    fn must(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.shift.history.violation(what());
        }
    }

    /// Waits until each replica does strong reads and has the todos that never
    /// change in its caches (a new process has none), and Redis is whole.
    pub async fn well_again(&self, after: &str) {
        let began = Instant::now();
        for index in 0..self.world.replicas.len() {
            let well = self.strong_read_by(index, began + RECOVERY).await;
            if !well || !self.warm_by(index, began + RECOVERY).await {
                self.must(false, || {
                    format!("{after}: replica {index} is not well again")
                });
            }
        }
        while self
            .world
            .redis
            .nodes
            .iter()
            .any(|node| !redis_cli(node.port, &["cluster", "info"]).contains("cluster_state:ok"))
        {
            if began.elapsed() > RECOVERY {
                return self.must(false, || format!("{after}: Redis is not well again"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn strong_read_by(&self, index: usize, deadline: Instant) -> bool {
        let mut client = self.world.replicas[index].client();
        while Instant::now() < deadline {
            let how = api::consistency(Requirement::FullyConsistent(true));
            if api::get(&mut client, &self.shift.still[0], how)
                .await
                .is_ok()
            {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    async fn warm_by(&self, index: usize, deadline: Instant) -> bool {
        let mut client = self.world.replicas[index].client();
        while Instant::now() < deadline {
            if api::batch(&mut client, self.shift.still.clone(), None)
                .await
                .is_ok()
            {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    async fn primary_steps_down(&mut self, window: &Arc<Window>) {
        let old = self.world.primary().await;
        let node = self.world.node(old).await;
        let lost = Instant::now();
        // It answers only by closing its connections, or not at all.
        let step_down = doc! { "replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5 };
        let _ = node.database("admin").run_command(step_down).await;
        self.new_primary(window, Some(old), lost).await;
        sleep(self.hold / 2).await;
    }

    async fn primary(
        &mut self,
        window: &Arc<Window>,
        down: impl Fn(&Server),
        up: impl Fn(&Server),
    ) {
        let old = self.world.primary().await;
        let lost = Instant::now();
        down(&self.world.mongo.nodes[old]);
        self.new_primary(window, Some(old), lost).await;
        let away = lost.elapsed();
        sleep(self.hold / 2).await;
        up(&self.world.mongo.nodes[old]);
        sleep(self.hold / 2).await;
        let limit = FROZEN_IS_SEEN.max(away) + FROZEN_IS_SEEN;
        let why = format!("though a primary was there after {away:?}");
        self.check_writes(window, limit, &why);
    }

    /// No write of the window, but at the target, took longer.
    fn check_writes(&self, window: &Window, limit: Duration, why: &str) {
        for kind in ["create", "update", "delete"] {
            let mut micros = self.shift.recorder.window(window, kind, false).micros;
            let [.., slowest] = percentiles(&mut micros);
            self.must(Duration::from_secs_f64(slowest / 1000.0) < limit, || {
                format!("{}: a {kind} took {slowest} ms, {why}", window.fault)
            });
        }
    }

    /// Waits until a node, not the old primary, takes writes from a plain
    /// driver, and then until each replica does strong reads.
    async fn new_primary(&mut self, window: &Arc<Window>, old: Option<usize>, lost: Instant) {
        let mut others = Vec::new();
        for index in (0..self.world.mongo.nodes.len()).filter(|index| Some(*index) != old) {
            others.push(self.world.node(index).await);
        }
        let writable = async {
            loop {
                for node in &others {
                    if is_primary(node).await {
                        let probe = node
                            .database("probe")
                            .collection::<mongodb::bson::Document>("probe");
                        let write = probe.insert_one(doc! {});
                        if matches!(
                            timeout(Duration::from_secs(1), async { write.await }).await,
                            Ok(Ok(_))
                        ) {
                            return (Instant::now(), probe);
                        }
                    }
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let Ok((new, plain)) = timeout(RECOVERY, writable).await else {
            return self.must(false, || "no new primary was elected".into());
        };
        let replicas = (0..self.world.replicas.len()).map(|index| {
            let this = &*self;
            async move {
                this.strong_read_by(index, new + RECOVERY)
                    .await
                    .then(|| new.elapsed())
            }
        });
        // A strong read is as fast as a majority write that begins after it: it
        // may have to wait for the one under way, and then for its own.
        let (mut slowest, mut began) = (Duration::ZERO, Instant::now());
        let writes = async {
            loop {
                began = Instant::now();
                let write = plain.insert_one(doc! {});
                let _ = timeout(RECOVERY, async { write.await }).await;
                slowest = slowest.max(began.elapsed());
                sleep(PULSE_PAUSE).await;
            }
        };
        let took = tokio::select! {
            took = futures::future::join_all(replicas) => took,
            () = writes => Vec::new(),
        };
        let slowest = slowest.max(began.elapsed());
        let took: Vec<_> = took.into_iter().flatten().collect();
        println!(
            "  a primary after {:.2?}; strong reads {took:.2?} after that",
            new - lost
        );
        let most = took.iter().max().copied().unwrap_or(RECOVERY);
        let calm = self.shift.recorder.fault(CALM, "strong");
        let [_, usual, _] = percentiles(&mut calm.micros.clone());
        println!("  a majority write of a plain driver took {slowest:.2?} at most meanwhile");
        let limit = AFTER_NEW_PRIMARY + Duration::from_secs_f64(usual * 4.0 / 1000.0) + slowest * 2;
        self.must(
            took.len() == self.world.replicas.len() && most <= limit,
            || {
                format!(
                    "{}: strong reads {took:?} after the new primary, and the limit is {limit:?}",
                    window.fault
                )
            },
        );
        let away = lost.elapsed() + MARGIN;
        self.after_new_primary.extend(took);
        if old.is_some() && away < self.world.limit {
            for consistency in ["cached", "cached, stale allowed"] {
                let failed = self
                    .shift
                    .recorder
                    .window(window, consistency, false)
                    .failed;
                self.must(failed.is_empty(), || {
                    format!("{}: {consistency}: {failed:?}", window.fault)
                });
            }
        }
    }

    async fn mongo_down(
        &mut self,
        window: &Arc<Window>,
        down: impl Fn(&Server),
        up: impl Fn(&Server),
    ) {
        let world = Arc::clone(&self.world);
        let nodes = &world.mongo.nodes;
        let (before, down_at) = (Instant::now() - MARGIN, Instant::now());
        nodes.iter().for_each(down);
        let within = self.world.limit.saturating_sub(MARGIN);
        sleep(within).await;
        let failed = self.shift.recorder.window(window, "cached", false).failed;
        // The last heartbeat before was in time, and so was this look.
        let is_known = self.slowest_pulse_between(before, down_at) < PULSE_LIMIT
            && down_at.elapsed() < within + PULSE_LIMIT;
        self.must(failed.is_empty() || !is_known, || {
            format!(
                "{}: cached reads before the limit: {failed:?}",
                window.fault
            )
        });
        sleep(MARGIN + BEYOND).await;
        let lost = Instant::now();
        nodes.iter().for_each(up);
        let cell = self.shift.recorder.window(window, "cached", false);
        let p90 = p90_of_failures(&cell);
        self.must(
            cell.failed
                .keys()
                .all(|reason| reason == "ORIGIN_UNAVAILABLE"),
            || {
                format!(
                    "{}: cached reads failed by {:?}",
                    window.fault,
                    cell.failed.keys()
                )
            },
        );
        self.must(cell.failures() > 0, || {
            format!("{}: reads went on past the limit", window.fault)
        });
        self.must(p90 < soon(&cell), || {
            format!("{}: UNAVAILABLE after {p90:?}", window.fault)
        });
        let stale = self
            .shift
            .recorder
            .window(window, "cached, stale allowed", false);
        self.must(stale.failed.is_empty(), || {
            format!("{}: stale: {:?}", window.fault, stale.failed)
        });
        self.new_primary(window, None, lost).await;
    }

    async fn replica_cut_off(&self, window: &Arc<Window>, target: usize) {
        self.world.mongo_ways[target].set(Mode::Stall);
        sleep(self.world.limit + BEYOND).await;
        self.world.mongo_ways[target].set(Mode::Pass);
        let consistency = if target == STALE_IF_ERROR {
            "cached, stale allowed"
        } else {
            "cached"
        };
        let cell = self.shift.recorder.window(window, consistency, true);
        if target == STALE_IF_ERROR {
            self.must(cell.failed.is_empty(), || {
                format!("{}: stale: {:?}", window.fault, cell.failed)
            });
        } else {
            let p90 = p90_of_failures(&cell);
            self.must(cell.failures() > 0 && p90 < soon(&cell), || {
                format!(
                    "{}: {} failures, p90 {p90:?}",
                    window.fault,
                    cell.failures()
                )
            });
        }
    }

    async fn replica_frozen(&self, target: usize) {
        let service = self.world.replicas[target].service();
        service.freeze();
        sleep(self.world.limit + BEYOND).await;
        service.thaw();
        sleep(self.hold / 4).await;
    }

    async fn replica_killed(&self, target: usize) {
        let replica = &self.world.replicas[target];
        replica.service().kill();
        sleep(self.hold / 4).await;
        replica.start().await;
        sleep(self.hold / 2).await;
    }
}
