//! Thundering herds: how many loads reach the origin when many readers want
//! the same at once, when a hot todo changes all the time, and when the feed
//! is silent.

use std::{sync::Arc, time::Duration};

use tidemark::{
    cache::{Consistency, ReadOptions, WriteOptions},
    error::Error,
    model::{Patch, TodoName, Write},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    faults::retitle,
    fleet::{Fleet, Replica},
    stories::in_calm,
};

/// Readers that come at once.
const HERD: usize = 10_000;
/// Pause of each of the steady readers, and how many there are of them for
/// each replica.
const PACE: Duration = Duration::from_millis(7);
const STEADY: usize = 20;

async fn read(replica: &Replica, name: &TodoName, consistency: Consistency) {
    let want = ReadOptions {
        identity: None,
        consistency,
        deadline: None,
        caller: None,
    };
    match replica.cache.get(name, &want).await {
        Ok(_) | Err(Error::NotFound { .. }) => {}
        Err(error) => panic!("a read failed: {error}"),
    }
}

/// All at once, each with this level. Returns how often the origin was asked.
async fn stampede(fleet: &Fleet, name: &TodoName, consistency: Consistency) -> u64 {
    let replica = fleet.replica(0);
    let before = replica.link.loads_of(name.as_str());
    let mut herd = JoinSet::new();
    for _ in 0..HERD {
        let (replica, name) = (Arc::clone(&replica), name.clone());
        herd.spawn(async move { read(&replica, &name, consistency).await });
    }
    while let Some(ended) = herd.join_next().await {
        ended.expect("no panic");
    }
    replica.link.loads_of(name.as_str()) - before
}

#[test]
fn ten_thousand_readers_of_a_cold_todo_are_one_load() {
    for consistency in [
        Consistency::MinimizeLatency,
        Consistency::FullyConsistent,
        Consistency::MaxStaleness(Duration::from_millis(100)),
    ] {
        let loads = in_calm(1, async |world, fleet| {
            let name = world.config.names[0].clone();
            retitle(&world, &name, "before");
            sleep(Duration::from_secs(1)).await;
            stampede(&fleet, &name, consistency).await
        });
        assert_eq!(loads, 1, "{consistency:?}");
    }
}

#[test]
fn ten_thousand_readers_of_a_changed_todo_are_one_load() {
    let loads = in_calm(1, async |world, fleet| {
        let name = world.config.names[0].clone();
        retitle(&world, &name, "before");
        sleep(Duration::from_secs(1)).await;
        read(&fleet.replica(0), &name, Consistency::MinimizeLatency).await;
        retitle(&world, &name, "after");
        sleep(Duration::from_secs(1)).await;
        stampede(&fleet, &name, Consistency::MinimizeLatency).await
    });
    assert_eq!(loads, 1);
}

/// Reads one todo at all replicas until `ends`.
async fn read_steadily(
    fleet: &Arc<Fleet>,
    name: &TodoName,
    levels: &[Consistency],
    ends: Instant,
    replicas: usize,
) {
    let mut readers = JoinSet::new();
    for n in 0..STEADY * replicas {
        let (replica, name, consistency) = (
            fleet.replica(n % replicas),
            name.clone(),
            levels[n % levels.len()],
        );
        readers.spawn(async move {
            while Instant::now() < ends {
                read(&replica, &name, consistency).await;
                sleep(PACE).await;
            }
        });
    }
    while let Some(ended) = readers.join_next().await {
        ended.expect("no panic");
    }
}

#[test]
fn a_hot_todo_that_changes_20_times_a_second_costs_a_load_for_each_change() {
    let (changes, loads) = in_calm(2, async |world, fleet| {
        let name = world.config.names[0].clone();
        let ends = Instant::now() + Duration::from_secs(5);
        let (hand, hot) = (Arc::clone(&world), name.clone());
        let writer = tokio::spawn(async move {
            let mut changes = 0;
            while Instant::now() < ends {
                sleep(Duration::from_millis(50)).await;
                changes += 1;
                retitle(&hand, &hot, &format!("hot {changes}"));
            }
            changes
        });
        let levels = [
            Consistency::MinimizeLatency,
            Consistency::MinimizeLatency,
            Consistency::FullyConsistent,
        ];
        read_steadily(&fleet, &name, &levels, ends, 2).await;
        let changes: u64 = writer.await.expect("no panic");
        (
            changes,
            [0, 1].map(|slot| fleet.replica(slot).link.loads_of(name.as_str())),
        )
    });
    for loads in loads {
        // One for each change, and the first one.
        assert!(
            loads <= changes + 1 && loads > 10,
            "{loads} loads for {changes} changes"
        );
    }
    println!("{changes} changes, loads by replica: {loads:?}");
}

/// Loading ahead: near has the new value before the change is applied.
#[test]
fn readers_of_a_hot_todo_wait_for_none_of_its_changes() {
    const CHANGES: u32 = 100;
    let (reads, late, loads) = in_calm(1, async |world, fleet| {
        let (replica, name) = (fleet.replica(0), world.config.names[0].clone());
        retitle(&world, &name, "cold");
        read(&replica, &name, Consistency::MinimizeLatency).await;
        let (mut reads, mut late) = (0, 0);
        for change in 0..CHANGES {
            let ends = Instant::now() + Duration::from_millis(50);
            while Instant::now() < ends {
                // The clock stands still while nobody waits.
                let began = Instant::now();
                read(&replica, &name, Consistency::MinimizeLatency).await;
                reads += 1;
                late += u32::from(began.elapsed() > Duration::ZERO);
                sleep(Duration::from_millis(1)).await;
            }
            // By hand, and by this replica itself.
            let title = format!("hot {change}");
            if change % 2 == 0 {
                retitle(&world, &name, &title);
            } else {
                let patch = Patch {
                    title: Some(title),
                    ..Patch::default()
                };
                let write = Write::Update {
                    name: name.clone(),
                    patch,
                    etag: None,
                    allow_missing: false,
                };
                let replica = Arc::clone(&replica);
                tokio::spawn(async move {
                    replica
                        .cache
                        .write(write, WriteOptions::default())
                        .await
                        .expect("written")
                });
            }
        }
        (reads, late, replica.link.loads_of(name.as_str()))
    });
    assert!(reads > 2000 && late == 0, "{late} of {reads} reads waited");
    assert!(
        loads > 50 && loads <= u64::from(CHANGES) + 1,
        "{loads} loads for {CHANGES} changes"
    );
}

/// What loading ahead may cost: one load that nobody wants.
#[test]
fn a_todo_that_was_hot_is_not_loaded_for_ever() {
    let loads = in_calm(1, async |world, fleet| {
        let (replica, name) = (fleet.replica(0), world.config.names[0].clone());
        for _ in 0..100 {
            read(&replica, &name, Consistency::MinimizeLatency).await;
        }
        let before = replica.link.loads_of(name.as_str());
        for change in 0..20 {
            retitle(&world, &name, &format!("unread {change}"));
            sleep(Duration::from_millis(100)).await;
        }
        replica.link.loads_of(name.as_str()) - before
    });
    assert_eq!(loads, 1);
}

#[test]
fn with_a_silent_feed_a_todo_costs_a_load_for_each_limit() {
    let length = Duration::from_secs(15);
    let (loads, limit) = in_calm(1, async |world, fleet| {
        let name = world.config.names[0].clone();
        retitle(&world, &name, "before");
        world.active_faults().links[0].hung_upto = u64::MAX;
        let ends = Instant::now() + length;
        read_steadily(&fleet, &name, &[Consistency::MinimizeLatency], ends, 1).await;
        (
            fleet.replica(0).link.loads_of(name.as_str()),
            world.config.settings.staleness_limit,
        )
    });
    let most = u64::try_from(length.as_millis() / limit.as_millis()).expect("small") + 2;
    assert!(
        loads <= most,
        "{loads} loads in {length:?} with a limit of {limit:?}"
    );
}
