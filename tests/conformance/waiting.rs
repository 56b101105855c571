//! Reads that have to wait are charged for what they hold, and need room for it first.

use std::{sync::Arc, time::Duration};

use tidemark::{
    budget::{Budgets, Part},
    cache::{Cache, Clock, Consistency, Phase, ReadOptions, Settings},
    error::Error,
    model::{ListName, ListsQuery, TodoName, Write},
    origin::{Origin, embedded::Embedded},
    pb,
    telemetry::Metrics,
};

use crate::support::folder;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// More than are read at once.
const LISTS: u32 = 60;

struct Replica {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
}

async fn replica() -> Replica {
    let origin = Embedded::open(&folder("waiting"), 0).expect("opened");
    for n in 0..LISTS {
        let name = ListName::parse(&format!("lists/{n:0>3}")).expect("a name");
        let list = pb::TodoList {
            name: name.to_string(),
            members: [("ada".to_owned(), 3)].into(),
            ..Default::default()
        };
        let write = Write::CreateList { name, list };
        origin.write(write, None, None).await.expect("created");
    }
    let settings = Settings {
        near_capacity: 16 << 20,
        staleness_limit: DAY,
        heartbeat_interval: DAY,
        replay_window: Duration::from_secs(600),
        list_grace: Duration::ZERO,
        stale_if_error: None,
        max_origin_loads: 256,
        verify_one_in: 0,
    };
    let (metrics, budgets) = (Arc::<Metrics>::default(), Budgets::unlimited(256));
    let cache = Cache::new(
        settings,
        Clock::Boottime,
        Arc::new(origin),
        None,
        Arc::clone(&metrics),
        Arc::clone(&budgets),
    );
    tokio::spawn(Arc::clone(&cache).run());
    let mut phase = cache.phase();
    let caught_up = phase.wait_for(|phase| *phase == Phase::CaughtUp);
    caught_up.await.expect("caught up");
    Replica {
        cache,
        metrics,
        budgets,
    }
}

fn options() -> ReadOptions {
    ReadOptions {
        identity: None,
        consistency: Consistency::MinimizeLatency,
        deadline: None,
        caller: None,
    }
}

#[tokio::test]
async fn a_read_of_several_todos_waits_only_if_there_is_room() {
    let replica = replica().await;
    let name = |n| TodoName::parse(&format!("lists/000/todos/{n}")).expect("a name");
    let names: Vec<_> = (0..3).map(name).collect();
    let want = options();
    let read = || replica.cache.get_many(&names, &want);
    let loads = replica.budgets.of(Part::Loads);
    let full = loads.try_reserve(loads.limit()).expect("all of it");
    let refused = read().await.map(|answer| answer.body.missing);
    assert!(
        matches!(refused, Err(Error::Overloaded { .. })),
        "{refused:?}"
    );
    assert_eq!(replica.metrics.origin_load_keys.get(), 0, "before the load");
    drop(full);
    assert_eq!(read().await.expect("room").body.missing, names);
    assert_eq!(loads.used(), 0);
    let _full = loads.try_reserve(loads.limit()).expect("all of it");
    read().await.expect("hits need no room");
}

#[tokio::test]
async fn a_page_of_lists_is_charged_while_it_reads_on() {
    let replica = replica().await;
    let read = async |size| {
        let query = Arc::new(ListsQuery {
            members: None,
            size,
            after: None,
        });
        let want = options();
        let page = replica.cache.list_lists(&query, None, 4 << 20, &want);
        page.await.map(|answer| answer.body.lists.len())
    };
    for size in [LISTS, 50] {
        assert_eq!(read(size).await.expect("room"), size as usize);
    }
    let loads = replica.budgets.of(Part::Loads);
    assert_eq!(loads.used(), 0);
    let _full = loads.try_reserve(loads.limit()).expect("all of it");
    let refused = read(LISTS).await;
    assert!(
        matches!(refused, Err(Error::Overloaded { .. })),
        "{refused:?}"
    );
    assert_eq!(read(50).await.expect("nothing is held"), 50);
}
