//! The real cache code in a simulated world: several replicas over one origin
//! and one shared tier, on a paused clock, with one seeded random source. The
//! same seed gives the same run, byte for byte.
//!
//! * one seed, with its log: `TIDEMARK_SEED=42 cargo test --test sim one_seed -- --nocapture`
//! * a range of seeds: `TIDEMARK_SEEDS=1000..20000 cargo test --test sim many_seeds -- --nocapture`

mod check;
mod client;
mod faults;
mod feed;
mod fleet;
mod herd;
mod history;
mod lists;
mod origin;
mod rights;
mod rng;
mod shared;
mod stories;
mod watcher;
mod world;
mod write;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use self::{
    client::Client,
    fleet::Fleet,
    watcher::Watcher,
    world::{Bug, Config, Report, World},
};

/// Seeds in an ordinary test run.
const SEEDS: Range<u64> = 0..300;
/// After all faults reads work again within this time.
const RECOVERY: Duration = Duration::from_secs(8);

/// One run. Returns what it found and its log.
fn run(seed: u64, bug: Option<Bug>) -> (Report, String) {
    run_with(seed, bug, |_| {})
}

/// One run of a config that was changed after it was drawn.
fn run_with(seed: u64, bug: Option<Bug>, change: impl FnOnce(&mut Config)) -> (Report, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let (mut config, rng) = Config::of(seed, bug);
        if let Some(needs) = bug.map(faults::needs).filter(|needs| !needs.is_empty()) {
            config.faults = needs;
        }
        config.rights |= bug.is_some_and(faults::needs_rights);
        change(&mut config);
        let world = World::new(config, rng);
        live(&world).await;
        world.results()
    })
}

async fn live(world: &Arc<World>) {
    world.say(format_args!("{:?}", world.config));
    let fleet = Fleet::new(world);
    let mut tasks = JoinSet::new();
    if world.config.rights {
        lists::found(world);
        tasks.spawn(lists::share_by_hand(Arc::clone(world)));
    }
    for id in 0..world.config.readers {
        tasks.spawn(Client::new(id as u64, world, &fleet).run());
    }
    for id in 0..world.config.writers {
        tasks.spawn(faults::write_by_hand(Arc::clone(world), id));
    }
    for id in 0..world.config.watchers {
        tasks.spawn(Watcher::new(id as u64, world, &fleet).run());
    }
    tasks.spawn(faults::happen(Arc::clone(world), Arc::clone(&fleet)));
    let mut recovery = JoinSet::new();
    sleep(world.config.length + Duration::from_millis(1)).await;
    while fleet.is_restarting() {
        sleep(Duration::from_millis(50)).await;
    }
    for slot in 0..world.config.replicas {
        let mut client = Client::new(100 + slot as u64, world, &fleet);
        recovery.spawn(async move { client.check_recovery(slot, RECOVERY).await });
    }
    while let Some(ended) = recovery.join_next().await {
        ended.expect("no panic");
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    for slot in 0..world.config.replicas {
        fleet.replica(slot).count_verified(world);
    }
}

fn again(seed: u64) -> String {
    format!("run it again: TIDEMARK_SEED={seed} cargo test --test sim one_seed -- --nocapture")
}

/// Runs seeds on all cores; returns the failures and the sums.
fn sweep(
    seeds: Range<u64>,
    bug: Option<Bug>,
) -> (BTreeMap<u64, Report>, BTreeMap<&'static str, u64>) {
    let (next, failures, sums) = (
        AtomicU64::new(seeds.start),
        Mutex::default(),
        Mutex::default(),
    );
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let (report, _) = run(seed, bug);
            let mut sums: std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> =
                sums.lock().expect("no panic");
            for (what, count) in &report.counts {
                *sums.entry(what).or_default() += count;
            }
            drop(sums);
            if !report.violations.is_empty() {
                let mut failures: std::sync::MutexGuard<'_, BTreeMap<u64, Report>> =
                    failures.lock().expect("no panic");
                failures.insert(seed, report);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    (
        failures.into_inner().expect("no panic"),
        sums.into_inner().expect("no panic"),
    )
}

fn env_seeds() -> Option<Range<u64>> {
    let text = std::env::var("TIDEMARK_SEEDS").ok()?;
    let (from, to) = text
        .split_once("..")
        .expect("TIDEMARK_SEEDS is like 1000..20000");
    Some(from.parse().expect("a number")..to.parse().expect("a number"))
}

#[test]
fn many_seeds() {
    let seeds = env_seeds().unwrap_or(SEEDS);
    let (failures, sums) = sweep(seeds.clone(), None);
    println!("{seeds:?}: {sums:?}");
    for (seed, report) in failures.iter().take(20) {
        let (kind, what) = &report.violations[0];
        println!(
            "seed {seed}, {} violations, the first: {kind}: {what}\n  {}",
            report.violations.len(),
            again(*seed)
        );
    }
    assert!(
        failures.is_empty(),
        "{} of {seeds:?} seeds failed: {:?}",
        failures.len(),
        failures.keys().take(50).collect::<Vec<_>>()
    );
}

/// The first watches from before the ring, and its own feed hangs: nobody opened
/// another. In the others a token has the time of a heartbeat that began in the
/// instant in which the token came. All are from before there were rights.
#[test]
fn seeds_that_found_something() {
    for seed in [8162, 12_733, 19_611] {
        let (report, _) = run_with(seed, None, |config| config.rights = false);
        assert!(report.violations.is_empty(), "{}", again(seed));
    }
}

/// A watcher resumed after it had been given its right, at a replica whose feed hung: a
/// document from before what its token had seen refused it. A caller who was refused to
/// create a list, because it has todos, read an older document of it at the same replica.
#[test]
fn seeds_with_rights_that_found_something() {
    for seed in [442, 255] {
        let (report, _) = run(seed, None);
        assert!(report.violations.is_empty(), "{}", again(seed));
    }
}

#[test]
fn one_seed() {
    let seed = std::env::var("TIDEMARK_SEED")
        .map_or(42, |seed| seed.parse().expect("TIDEMARK_SEED is a number"));
    let bug = std::env::var("TIDEMARK_BUG").ok();
    let bug = bug.map(|bug| {
        PLANTED_BUGS
            .iter()
            .find(|(known, _)| format!("{known:?}") == bug)
            .expect("a known bug")
            .0
    });
    let (report, log) = run(seed, bug);
    println!("{log}\n{report:#?}");
    assert!(report.violations.is_empty(), "{}", again(seed));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3, 4, 5, 6, 7, 8] {
        let ((_, first), (_, second)) = (run(seed, None), run(seed, None));
        for (number, (a, b)) in first.lines().zip(second.lines()).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {number}");
        }
        assert_eq!(first.len(), second.len());
        assert!(first.lines().count() > 100, "a run that does something");
    }
}

/// Deliberate errors of the simulated origin and shared tier, and by which
/// invariants they must be caught.
const PLANTED_BUGS: [(Bug, &[&str]); 15] = [
    (Bug::SharedStampForged, &["I1"]),
    // Also by the service's own verifier.
    (Bug::SharedStampForged, &["verify"]),
    (Bug::FeedSwallowsChange, &["I1"]),
    (Bug::FeedHidesTouched, &["I1"]),
    (Bug::FeedSwallowsReset, &["I1"]),
    (Bug::FeedCutsTransactions, &["I1", "I6"]),
    (Bug::FeedResumesByTime, &["I1", "I6"]),
    (Bug::LoadOlderThanStamp, &["I1"]),
    (Bug::LoadTearsPage, &["I1"]),
    (Bug::LoadIgnoresAfter, &["I1", "I2", "I3", "I4 limit"]),
    (Bug::HeartbeatTooLow, &["I3", "I4 bound", "I4 limit"]),
    (Bug::HeartbeatNotMajority, &["I3", "I4 bound", "I4 limit"]),
    (Bug::WriteTimeTooLow, &["write", "I2", "own"]),
    (Bug::FeedSwallowsList, &["I8"]),
    (Bug::UnreadableListIsRead, &["I8"]),
];
/// Within so many seeds.
const TEETH_SEEDS: u64 = 100;

#[test]
fn every_planted_bug_is_caught() {
    for (bug, kinds) in PLANTED_BUGS {
        let caught = (1_000..1_000 + TEETH_SEEDS).find_map(|seed| {
            let (report, _) = run(seed, Some(bug));
            let mut found = report.violations.into_iter();
            found
                .find(|(kind, _)| kinds.contains(kind))
                .map(|(kind, what)| (seed, kind, what))
        });
        let Some((seed, kind, what)) = caught else {
            panic!("nothing catches {bug:?} in {TEETH_SEEDS} seeds")
        };
        println!(
            "{bug:?}: by seed {seed}: {kind}: {}",
            &what[..what.len().min(160)]
        );
    }
}
