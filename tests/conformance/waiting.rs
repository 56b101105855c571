//! Reads that have to wait are charged for what they hold, and need room for it first.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::StreamExt as _;
use tidemark::{
    auth::{self, Method},
    budget::{Budgets, CallerKey, Count, Part},
    cache::{Cache, Clock, Consistency, Phase, ReadOptions, Settings, WatchRequest},
    error::Error,
    model::{ListName, ListPatch, ListsQuery, OriginTime, TodoName, Write},
    origin::{Origin, embedded::Embedded},
    pb,
    telemetry::Metrics,
};

use crate::support::folder;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// More than are read at once.
const LISTS: u32 = 60;

struct Replica {
    origin: Arc<Embedded>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
}

async fn replica() -> Replica {
    let origin = Arc::new(Embedded::open(&folder("waiting"), 0).expect("opened"));
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
        Arc::clone(&origin) as Arc<dyn Origin>,
        None,
        Arc::clone(&metrics),
        Arc::clone(&budgets),
    );
    tokio::spawn(Arc::clone(&cache).run());
    let mut phase = cache.phase();
    let caught_up = phase.wait_for(|phase| *phase == Phase::CaughtUp);
    caught_up.await.expect("caught up");
    Replica {
        origin,
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

/// The documents that a watch is checked by are read in the share and the turns of its
/// caller: those of many watches of one caller would delay the checks of all others.
#[tokio::test]
async fn the_checks_of_a_watch_are_of_its_callers_share() {
    let replica = replica().await;
    let ada = auth::Caller::new("ada", Vec::new(), Method::Key, None).expect("valid");
    let caller = replica.budgets.callers().of(CallerKey::principal("ada"));
    let list = ListName::parse("lists/000").expect("a name");
    let watch = WatchRequest {
        list: Some(list.clone()),
        names: HashSet::new(),
        after: None,
        seen: OriginTime(0),
        include_todo: false,
        right_on: Arc::default(),
        progress_interval: Duration::from_secs(60),
        closing: Default::default(),
        caller: Some(Arc::clone(&caller)),
    };
    let opened = replica.cache.watch(watch, None, Some(&ada)).await;
    let mut messages = opened.expect("opened");
    messages.next().await.expect("the first").expect("no error");
    // The caller may not wait for more keys; anybody else may.
    let waiting = replica.budgets.count(Count::WaitingKeys);
    let most = waiting.most_for_one();
    let _all = waiting.try_reserve_for(&caller, most).expect("its share");
    let write = Write::UpdateList {
        name: list,
        patch: ListPatch {
            title: Some("new".into()),
            members: None,
        },
        etag: None,
    };
    replica
        .origin
        .write(write, None, None)
        .await
        .expect("updated");
    let end = async {
        loop {
            if let Err(error) = messages.next().await.expect("an end with an error") {
                return error;
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(60), end).await;
    let end = end.expect("in time");
    assert!(matches!(end, Error::Overloaded { .. }), "{end:?}");
}
