//! What all parts of a run share: the history, the active faults (which are
//! active), the random source, the log and the report.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tidemark::{
    auth::{Caller, Method},
    cache::Settings,
    model::{ListName, ListsQuery, OriginTime, PageQuery, Resource, TodoName},
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{history::History, rng::Rng, shared::Store};

/// A deliberate error of the simulated origin or shared tier. The checker must
/// find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The shared tier gives entries a newer stamp, with a right checksum.
    SharedStampForged,
    /// The feed leaves out a change now and then.
    FeedSwallowsChange,
    /// The feed says of a change that it touched the title only.
    FeedHidesTouched,
    /// The feed leaves out what cannot be pinned to a stripe.
    FeedSwallowsReset,
    /// The feed says of each event of a transaction that it is alone.
    FeedCutsTransactions,
    /// A feed that is resumed leaves out the rest of the open time.
    FeedResumesByTime,
    /// A load returns an older state than its stamp says.
    LoadOlderThanStamp,
    /// A page is read while it changes: half of it at another time.
    LoadTearsPage,
    /// A load does not wait for the time that was asked for, and says so.
    LoadIgnoresAfter,
    /// A heartbeat's time is below that of writes acknowledged before it.
    HeartbeatTooLow,
    /// The reply to a write tells a time below the write's.
    WriteTimeTooLow,
    /// A heartbeat is acknowledged that a deposed primary took.
    HeartbeatNotMajority,
    /// The feed leaves out the changes of lists' documents.
    FeedSwallowsList,
    /// A list's document that cannot be read is given as if it could.
    UnreadableListIsRead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    LinkStall,
    LinkRefuse,
    LinkNoise,
    OriginRefuse,
    OriginHang,
    FeedBreak,
    FeedHang,
    FeedLag,
    HistoryLost,
    SharedDown,
    SharedSlow,
    SharedFlush,
    SharedOld,
    SharedLossy,
    Crash,
    Drain,
    Drop,
    Replace,
    Burst,
}

/// What a run is made of; drawn from its seed.
#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    pub replicas: usize,
    pub readers: usize,
    pub writers: usize,
    pub watchers: usize,
    pub names: Vec<TodoName>,
    pub lists: Vec<ListName>,
    /// How long faults and load go on.
    pub length: Duration,
    /// Longest pause of a client between two operations.
    pub think_ms: u64,
    pub settings: Settings,
    pub with_shared: bool,
    pub stripes: (usize, usize),
    /// Whether an event tells that it is alone at its time (MongoDB up to 7).
    pub alone_is_known: bool,
    pub faults: Vec<Fault>,
    pub bug: Option<Bug>,
    /// Lists have documents, and some clients and watchers are callers whose right
    /// is checked. Draws nothing from the run's source: without it a seed gives the
    /// run that it gave before there were rights.
    pub rights: bool,
}

/// Runs with rights, in percent.
const WITH_RIGHTS: u64 = 75;
/// Members that a list may get; `everybody` seldom, or nobody would be refused.
pub const MEMBERS: [&str; 6] = [
    "user:bob",
    "user:bob",
    "user:cyd",
    "group:ops",
    "user:eve",
    "*",
];

/// Who calls. `None`: authentication is off.
pub fn callers() -> [Option<Caller>; 6] {
    let caller = |name: &str, groups: &[&str]| {
        let groups = groups.iter().map(|group| Arc::from(*group)).collect();
        Caller::new(name, groups, Method::Key, None).expect("a principal")
    };
    let (bob, cyd) = (caller("user:bob", &[]), caller("user:cyd", &["ops"]));
    let root = caller("user:root", &[]).with_admins(&["user:root".to_owned()]);
    let eve = caller("user:eve", &[]);
    [
        None,
        Some(root),
        Some(bob.clone()),
        Some(bob),
        Some(cyd),
        Some(eve),
    ]
}

impl Config {
    pub fn of(seed: u64, bug: Option<Bug>) -> (Self, Rng) {
        let mut rng = Rng::new(seed);
        let lists: Vec<_> = ["a", "b"]
            .iter()
            .map(|id| ListName::parse(&format!("lists/{id}")).expect("a name"))
            .collect();
        let ids = rng.of(2..6);
        let names = lists
            .iter()
            .flat_map(|list| (0..ids).map(|id| list.todo(&id.to_string()).expect("a name")));
        let names = names.collect();
        let all = [
            Fault::LinkStall,
            Fault::LinkRefuse,
            Fault::LinkNoise,
            Fault::OriginRefuse,
            Fault::OriginHang,
            Fault::FeedBreak,
            Fault::FeedHang,
            Fault::FeedLag,
            Fault::HistoryLost,
            Fault::SharedDown,
            Fault::SharedSlow,
            Fault::SharedFlush,
            Fault::SharedOld,
            Fault::SharedLossy,
            Fault::Crash,
            Fault::Drain,
            Fault::Drop,
            Fault::Replace,
            Fault::Burst,
        ];
        // Each run has only some of the faults: a rare state is often reached
        // by one of them alone.
        let often = rng.pick(&[15, 40, 80]);
        let faults = all.into_iter().filter(|_| rng.chance(often)).collect();
        let config = Self {
            seed,
            replicas: usize::try_from(rng.of(2..5)).expect("small"),
            readers: usize::try_from(rng.of(2..6)).expect("small"),
            writers: usize::try_from(rng.of(1..3)).expect("small"),
            watchers: usize::try_from(rng.of(1..4)).expect("small"),
            lists,
            names,
            length: rng.ms(5_000..12_000),
            think_ms: rng.pick(&[20, 100, 300]),
            settings: Settings {
                near_capacity: rng.weighted(&[(1, 0), (9, 4 << 20)]),
                staleness_limit: Duration::from_millis(rng.pick(&[1_500, 3_000, 6_000, 15_000])),
                heartbeat_interval: Duration::from_millis(rng.pick(&[200, 500, 1_000])),
                replay_window: Duration::from_secs(rng.pick(&[4, 20, 600])),
                list_grace: Duration::from_millis(rng.pick(&[0, 200, 500])),
                stale_if_error: rng.pick(&[None, None, Some(Duration::from_secs(30))]),
                max_origin_loads: rng.pick(&[1, 2, 256]),
                verify_one_in: rng.pick(&[0, 1, 7]),
            },
            with_shared: rng.chance(85),
            stripes: rng.pick(&[(4, 1), (64, 8), (1 << 12, 1 << 8)]),
            alone_is_known: rng.chance(60),
            faults,
            bug,
            rights: Rng::new(!seed).chance(WITH_RIGHTS),
        };
        (config, rng)
    }
}

impl Config {
    /// A world in which nothing goes wrong.
    pub fn calm(replicas: usize) -> (Self, Rng) {
        let (config, rng) = Self::of(7, None);
        let settings = Settings {
            near_capacity: 4 << 20,
            staleness_limit: Duration::from_secs(3),
            heartbeat_interval: Duration::from_millis(500),
            replay_window: Duration::from_secs(600),
            list_grace: Duration::from_millis(200),
            stale_if_error: Some(Duration::from_secs(30)),
            max_origin_loads: 256,
            verify_one_in: 0,
        };
        let config = Self {
            replicas,
            faults: Vec::new(),
            rights: false,
            with_shared: true,
            stripes: (1 << 12, 1 << 8),
            settings,
            ..config
        };
        (config, rng)
    }
}

/// What is wrong with one replica's way to the origin.
#[derive(Clone, Debug, Default)]
pub struct LinkFaults {
    pub stalled: u32,
    pub refusing: u32,
    pub noisy: u32,
    pub lagging: u32,
    /// Feeds up to this number are broken, or hang.
    pub broken_upto: u64,
    pub hung_upto: u64,
    /// When the last trouble ended.
    pub last_trouble: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct ActiveFaults {
    pub origin_refuses: u32,
    pub origin_hangs: u32,
    pub links: Vec<LinkFaults>,
    pub shared_down: u32,
    pub shared_slow: u32,
    pub shared_lossy: u32,
    /// Feeds opened so far.
    pub feeds: u64,
}

impl ActiveFaults {
    pub fn stalls(&self, replica: usize) -> bool {
        self.origin_hangs > 0 || self.links[replica].stalled > 0
    }

    pub fn refuses(&self, replica: usize) -> bool {
        self.origin_refuses > 0 || self.links[replica].refusing > 0
    }

    pub fn troubled(&self, replica: usize, since: Instant) -> bool {
        let link = &self.links[replica];
        self.stalls(replica)
            || self.refuses(replica)
            || link.noisy > 0
            || link.last_trouble.is_some_and(|last| last >= since)
    }
}

/// What a run found, and how much it did.
#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<(&'static str, String)>,
    pub counts: BTreeMap<&'static str, u64>,
}

pub struct World {
    pub config: Config,
    pub start: Instant,
    /// When load and faults end.
    pub ends: Instant,
    history: Mutex<History>,
    active_faults: Mutex<ActiveFaults>,
    store: Mutex<Store>,
    rng: Mutex<Rng>,
    report: Mutex<Report>,
    log: Mutex<String>,
    /// The history grew, or the active faults changed.
    pub changed: Notify,
    /// Outcomes of writes with a request id.
    pub requests: Mutex<BTreeMap<Uuid, ([u8; 16], Resource)>>,
    /// Pages that were ever asked for, by their text.
    pub queries: Mutex<BTreeMap<String, PageQuery>>,
    /// The same of pages of lists.
    pub lists_queries: Mutex<BTreeMap<String, ListsQuery>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while locked")
}

impl World {
    pub fn new(config: Config, rng: Rng) -> Arc<Self> {
        let start = Instant::now();
        let links = vec![LinkFaults::default(); config.replicas];
        Arc::new(Self {
            start,
            ends: start + config.length,
            history: Mutex::new(History::new(start)),
            active_faults: Mutex::new(ActiveFaults {
                links,
                ..ActiveFaults::default()
            }),
            store: Mutex::default(),
            rng: Mutex::new(rng),
            report: Mutex::default(),
            log: Mutex::default(),
            changed: Notify::new(),
            requests: Mutex::default(),
            queries: Mutex::default(),
            lists_queries: Mutex::default(),
            config,
        })
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub fn active_faults(&self) -> MutexGuard<'_, ActiveFaults> {
        lock(&self.active_faults)
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    pub fn rng(&self) -> MutexGuard<'_, Rng> {
        lock(&self.rng)
    }

    /// One of the callers, if this run has any.
    pub fn a_caller(&self) -> Option<Caller> {
        self.config
            .rights
            .then(|| self.rng().pick(&callers()))
            .flatten()
    }

    pub fn has(&self, bug: Bug) -> bool {
        self.config.bug == Some(bug)
    }

    pub fn over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// One line of the log: what two runs of a seed must have in common.
    pub fn say(&self, line: std::fmt::Arguments<'_>) {
        let at = self.start.elapsed();
        writeln!(
            lock(&self.log),
            "{:>6}.{:06} {line}",
            at.as_millis(),
            at.subsec_nanos() % 1_000_000
        )
        .expect("a string takes it");
    }

    pub fn count(&self, what: &'static str) {
        self.count_more(what, 1);
    }

    pub fn count_more(&self, what: &'static str, many: u64) {
        *lock(&self.report).counts.entry(what).or_default() += many;
    }

    /// The contract is broken. `kind` is the invariant.
    pub fn violated(&self, kind: &'static str, what: String) {
        self.say(format_args!("VIOLATION {kind}: {what}"));
        lock(&self.report).violations.push((kind, what));
    }

    pub fn results(&self) -> (Report, String) {
        (
            std::mem::take(&mut *lock(&self.report)),
            std::mem::take(&mut *lock(&self.log)),
        )
    }

    /// Commits an event, and tells the feeds.
    pub fn commit(&self, what: impl FnOnce(&mut History, Instant) -> OriginTime) -> OriginTime {
        let time = what(&mut self.history(), Instant::now());
        self.changed.notify_waiters();
        time
    }
}
