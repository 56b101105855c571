//! The service under real faults: three processes of it, a replica set of
//! three mongod, a Redis Cluster of six, and writers who know nothing of it.
//! Every answer is checked against what was acknowledged; at the end nothing
//! may be lost. A table tells what was answered, and how fast, in each window.
//!
//! `cargo test --test faults` is the short form. The long one, with all faults
//! in an order by the seed that it prints:
//! `TIDEMARK_FAULTS_MINUTES=20 cargo test --release --test faults -- --nocapture`.
//! `TIDEMARK_FAULTS_SEED=..` gives the same order again, and
//! `TIDEMARK_FAULTS_ONLY='primary frozen,stalled'` only the faults whose names
//! have these words.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod end;
mod faults;
mod history;
mod pair;
mod proxy;
mod readers;
mod report;
mod rights;
mod watchers;
mod world;
mod writers;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use self::{
    faults::{ALL, Chaos, DRAWN, Fault, SHORT},
    history::{Fate, History, title},
    readers::{Consistency, Reader, Shift},
    report::{Recorder, percentiles},
    rights::{Guest, Ledger, Owner},
    watchers::Watcher,
    world::{Random, World},
    writers::Writer,
};

/// Writers, and the time each rests between two writes.
const WRITERS: usize = 5;
const WRITER_PAUSE: Duration = Duration::from_millis(20);
/// Time that a reader rests between two reads.
const READER_PAUSE: Duration = Duration::from_millis(10);
/// Todos that never change.
const STILL: usize = 30;
/// Most growth of a replica over a long run, beyond what the near tier may
/// hold, in MiB.
const GROWTH: u64 = 64;

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Some faults in each run, others by the seed.
fn short(seed: u64) -> Vec<Fault> {
    let mut random = Random(seed);
    let mut faults = SHORT.to_vec();
    while faults.len() < SHORT.len() + DRAWN {
        let fault = *random.pick(ALL);
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults
}

/// How long, how often, and what.
struct Plan {
    minutes: Option<f64>,
    seed: u64,
    faults: Vec<Fault>,
}

impl Plan {
    fn read() -> Self {
        let minutes = set("TIDEMARK_FAULTS_MINUTES").map(|m| m.parse().expect("minutes"));
        let seed = set("TIDEMARK_FAULTS_SEED")
            .map_or_else(rand::random, |seed| seed.parse().expect("a seed"));
        let mut faults = if minutes.is_some() {
            ALL.to_vec()
        } else {
            short(seed)
        };
        if let Some(only) = set("TIDEMARK_FAULTS_ONLY") {
            let wanted = |fault: &Fault| {
                only.split(',')
                    .any(|word| fault.name().contains(word.trim()))
            };
            faults = ALL.iter().copied().filter(wanted).collect();
            assert!(!faults.is_empty(), "no fault is named {only:?}");
        }
        Self {
            minutes,
            seed,
            faults,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_their_word_under_faults() {
    let plan = Plan::read();
    println!(
        "TIDEMARK_FAULTS_SEED={} {:?} minutes of {:?}",
        plan.seed, plan.minutes, plan.faults
    );
    let limit = Duration::from_secs(if plan.minutes.is_some() { 15 } else { 8 });
    let world = World::start(limit).await;
    let mut random = Random(plan.seed);
    let shift = Arc::new(Shift {
        history: History::default(),
        recorder: Recorder::new(),
        lists: (0..3).map(|n| format!("lists/l{n}")).collect(),
        still: (0..STILL)
            .map(|n| format!("lists/still/todos/s{n}"))
            .collect(),
        limit,
        stop: false.into(),
    });
    fill(&world, &shift).await;
    let mut at_work = tokio::task::JoinSet::new();
    for reader in readers(&world, &shift, &mut random) {
        at_work.spawn(reader.run());
    }
    for number in 0..WRITERS {
        let driver = world.plain.clone();
        let writer = Writer::new(
            &shift,
            world.clients(),
            driver,
            number,
            WRITER_PAUSE,
            random.next(),
        );
        at_work.spawn(writer.run());
    }
    let ledger = Arc::new(Ledger::default());
    share_and_withdraw(&world, &shift, &ledger, &mut random, &mut at_work);
    let pulses = faults::Pulses::default();
    at_work.spawn(faults::pulse(
        world.plain.clone(),
        Arc::clone(&shift),
        Arc::clone(&pulses),
    ));
    let end = tokio::sync::watch::Sender::new(None);
    let mut watching = tokio::task::JoinSet::new();
    for (number, list) in shift.lists.iter().chain(&shift.lists).enumerate() {
        let watcher = Watcher::new(&shift, world.clients(), list, number, random.next());
        watching.spawn(watcher.run(end.subscribe()));
    }
    sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    let first: Vec<_> = world.replicas.iter().map(|r| r.memory().0).collect();
    let mut chaos = Chaos {
        world: Arc::clone(&world),
        shift: Arc::clone(&shift),
        random,
        hold: Duration::from_secs(if plan.minutes.is_some() { 10 } else { 4 }),
        calm: Duration::from_secs(if plan.minutes.is_some() { 5 } else { 1 }),
        after_new_primary: Vec::new(),
        faults: 0,
        pulses: Arc::clone(&pulses),
    };
    chaos.well_again("the start").await;
    // Now all clients are at work.
    let first: Vec<_> = world
        .replicas
        .iter()
        .zip(first)
        .map(|(replica, memory)| (memory, replica.tasks()))
        .collect();
    let lasts = plan
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    loop {
        let mut faults = plan.faults.clone();
        while plan.minutes.is_some() && faults.len() > 1 {
            let fault = faults.swap_remove(chaos.random.below(faults.len()));
            chaos.run(fault).await;
            if lasts.is_some_and(|lasts| began.elapsed() > lasts) {
                faults.clear();
            }
        }
        for fault in faults {
            chaos.run(fault).await;
        }
        if lasts.is_none_or(|lasts| began.elapsed() > lasts) {
            break;
        }
    }
    shift.stop.store(true, Ordering::Relaxed);
    while let Some(done) = at_work.join_next().await {
        done.expect("no reader and no writer ends by a panic");
    }
    let (revocations, checks) = ledger.counts();
    println!("{revocations} revocations, {checks} answers and messages of the guest checked");
    end::check(&world, &shift, &end, watching).await;
    end::no_more_tasks(&world, &first).await;
    tell(&world, &chaos, &first, began.elapsed());
}

/// The owner of a list, and a guest who reads and watches it.
fn share_and_withdraw(
    world: &World,
    shift: &Arc<Shift>,
    ledger: &Arc<Ledger>,
    random: &mut Random,
    at_work: &mut tokio::task::JoinSet<()>,
) {
    let owner = Owner {
        shift: Arc::clone(shift),
        ledger: Arc::clone(ledger),
        replicas: world.clients(),
        random: Random(random.next()),
    };
    at_work.spawn(owner.run());
    let mut guest = || Guest {
        shift: Arc::clone(shift),
        ledger: Arc::clone(ledger),
        replicas: world.clients_of(api::GUEST),
        random: Random(random.next()),
    };
    at_work.spawn(guest().read());
    at_work.spawn(guest().read());
    at_work.spawn(guest().watch());
}

/// The todos that never change; the others are made by their writers.
async fn fill(world: &World, shift: &Shift) {
    let todos = world.plain.database(world::DATABASE).collection("todos");
    for name in &shift.still {
        let version = shift.history.begin(name, false);
        assert_eq!(title(version), title(1));
        todos
            .insert_one(writers::document(name, version))
            .await
            .expect("inserted");
        // Its time is not known: it is of no use as a bound from above.
        shift
            .history
            .end(name, version, Fate::Acked { at: u64::MAX });
    }
}

fn readers(world: &World, shift: &Arc<Shift>, random: &mut Random) -> Vec<Reader> {
    let mut reader =
        |consistency, pause| Reader::new(shift, world.clients(), consistency, pause, random.next());
    let mut all = Vec::new();
    for replica in 0..world.replicas.len() {
        all.push(reader(Consistency::Cached, READER_PAUSE).at(replica));
        all.push(reader(Consistency::Default, READER_PAUSE).at(replica));
    }
    for _ in 0..3 {
        all.push(reader(Consistency::Token, READER_PAUSE));
        all.push(reader(Consistency::Strong, READER_PAUSE));
    }
    all.push(reader(Consistency::Default, READER_PAUSE));
    all.push(reader(
        Consistency::MaxStaleness(Duration::from_millis(300)),
        READER_PAUSE,
    ));
    all.push(reader(
        Consistency::MaxStaleness(Duration::from_secs(3)),
        READER_PAUSE,
    ));
    all.push(reader(Consistency::CachedOnly, READER_PAUSE));
    all
}

fn tell(world: &World, chaos: &Chaos, first: &[(u64, u64)], lasted: Duration) {
    let shift = &chaos.shift;
    println!("{}", shift.recorder.table());
    let mut took: Vec<u32> = chaos
        .after_new_primary
        .iter()
        .map(|d| u32::try_from(d.as_micros()).unwrap_or(u32::MAX))
        .collect();
    println!(
        "strong reads after a new primary, ms: p50, p99, max {:?}",
        percentiles(&mut took)
    );
    let last: Vec<_> = world
        .replicas
        .iter()
        .map(|replica| replica.memory())
        .collect();
    let tasks: Vec<_> = world
        .replicas
        .iter()
        .map(|replica| replica.tasks())
        .collect();
    println!(
        "memory in KiB and tasks: first {first:?}; last memory with threads {last:?}, tasks {tasks:?}"
    );
    println!(
        "{} calls were not sent: their connection had reached its age",
        api::NEVER_SENT.load(Ordering::Relaxed)
    );
    let violations = shift.history.violations();
    let errors = world.log.errors.lock().expect("errors").clone();
    println!(
        "{:.0} s, {} calls, {} todos checked in answers, {} faults, {} violations; log: {} warnings, {} errors",
        lasted.as_secs_f64(),
        shift.recorder.calls(),
        shift.history.checks(),
        chaos.faults,
        violations.len(),
        world.log.warnings.load(Ordering::Relaxed),
        errors.len(),
    );
    assert!(
        violations.is_empty(),
        "{} violations, the first: {}",
        violations.len(),
        violations[0]
    );
    assert!(errors.is_empty(), "{errors:?}");
    for ((first, _), (last, _)) in first.iter().zip(&last) {
        assert!(
            *last < first + GROWTH * 1024,
            "the memory grew from {first} to {last} KiB"
        );
    }
}
