//! What every shared tier must do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidemark::{
    telemetry::Metrics,
    tier::{
        redis::RedisTier,
        shared::{MemoryShared, Shared, SharedKey},
    },
};

use crate::support::{RedisCluster, at_some_try, eventually, redis, redis_cli, redis_cluster};

const LONG: Duration = Duration::from_secs(600);

fn key(list: &str, id: impl std::fmt::Display) -> SharedKey {
    SharedKey {
        list: format!("lists/{list}"),
        key: format!("todos/{id}"),
    }
}

/// How long a tier on a busy machine may take. It goes without Redis for a while if that
/// does not answer in time.
const LIMIT: Duration = Duration::from_secs(60);

/// Entries that are read together: as many as a busy machine answers within the time that
/// a read waits.
const TOGETHER: usize = 100;

/// Puts entries until they are there. Writing is off the caller's path, and an entry that
/// cannot be written in time is dropped.
async fn put(shared: &dyn Shared, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration) {
    for entries in entries.chunks(TOGETHER) {
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
        let mut seen = vec![false; keys.len()];
        eventually("the entries in their order", LIMIT, async || {
            shared.put(entries.to_vec(), lifetime);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let found = shared.get(&keys).await;
            assert_eq!(found.len(), keys.len());
            // One that was replaced may be there a little longer.
            for ((seen, found), (_, value)) in seen.iter_mut().zip(found).zip(entries) {
                *seen |= found.as_ref() == Some(value);
            }
            seen.iter().all(|seen| *seen).then_some(())
        })
        .await;
    }
}

async fn all(shared: Arc<dyn Shared>) {
    eventually("the tier", LIMIT, async || shared.is_up().then_some(())).await;
    let (a, b, none) = (key("one", "a"), key("two", "b"), key("one", "none"));
    let binary: Vec<u8> = (0..=255).collect();
    let large = Bytes::from(vec![7; 1 << 20]);
    let both = vec![(a.clone(), binary.into()), (b.clone(), large)];
    put(shared.as_ref(), both, LONG).await;
    eventually("each in its place", LIMIT, async || {
        let found = shared
            .get(&[none.clone(), a.clone(), none.clone(), a.clone()])
            .await;
        let found: Vec<_> = found.iter().map(Option::is_some).collect();
        (found == [false, true, false, true]).then_some(())
    })
    .await;

    let new = vec![(a.clone(), Bytes::from_static(b"new"))];
    put(shared.as_ref(), new, LONG).await;

    let many: Vec<_> = (0..1000)
        .map(|n| key(&format!("list-{}", n % 50), n))
        .collect();
    let entries = many.iter();
    let entries = entries.map(|key| (key.clone(), Bytes::from(key.key.clone())));
    put(shared.as_ref(), entries.collect(), LONG).await;
    readers_side_by_side(&shared, &many).await;

    let short = key("one", "short");
    let entry = vec![(short.clone(), Bytes::from_static(b"x"))];
    put(shared.as_ref(), entry, Duration::from_millis(300)).await;
    eventually("the end of its lifetime", LIMIT, async || {
        (shared.get(std::slice::from_ref(&short)).await == [None]).then_some(())
    })
    .await;

    let lease = Duration::from_millis(300);
    assert!(shared.lease(&a, lease).await, "the first gets it");
    // Who gets no answer in time goes on as if it had the lease.
    eventually("the second does not", LIMIT, async || {
        (!shared.lease(&a, lease).await).then_some(())
    })
    .await;
    assert!(
        shared.lease(&b, lease).await,
        "another key is another lease"
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(shared.lease(&a, lease).await, "it ends by itself");
}

/// Readers at once each get what they asked for, however their keys are asked
/// for together, and whoever of them goes away.
async fn readers_side_by_side(shared: &Arc<dyn Shared>, held: &[SharedKey]) {
    let reader = |n: usize| {
        let shared = Arc::clone(shared);
        // One key alone, or several of which the last is nowhere.
        let mut keys = held[n..=n + n % 3].to_vec();
        keys.extend((!n.is_multiple_of(3)).then(|| key("none", n)));
        async move {
            let asked = shared.get(&keys);
            if n.is_multiple_of(7) {
                // It goes away as soon as it has asked.
                tokio::select! {
                    biased;
                    _ = asked => {}
                    () = tokio::task::yield_now() => {}
                }
                return 0;
            }
            let found = asked.await;
            assert_eq!(found.len(), keys.len());
            assert!(
                n.is_multiple_of(3) || found.last() == Some(&None),
                "an entry that nobody put"
            );
            let wrong = |(key, value): &(&SharedKey, &Option<Bytes>)| {
                value
                    .as_ref()
                    .is_some_and(|value| *value != key.key.as_bytes())
            };
            assert!(
                !keys.iter().zip(&found).any(|pair| wrong(&pair)),
                "somebody else's entry"
            );
            found.iter().flatten().count()
        }
    };
    // On a slow machine some are not answered in time, and a few in a row make
    // the tier go without for a while.
    let (mut found, mut waves) = (0, (0..9).cycle());
    eventually("most of the entries", LIMIT, async || {
        let wave = waves.next().unwrap_or(0);
        let readers: tokio::task::JoinSet<usize> =
            (0..100).map(|n| reader(wave * 100 + n)).collect();
        found += readers.join_all().await.into_iter().sum::<usize>();
        (found > 1500).then_some(())
    })
    .await;
}

fn tier(url: &str) -> Arc<dyn Shared> {
    Arc::new(RedisTier::connect(url, Arc::new(Metrics::default())).expect("a URL"))
}

#[tokio::test]
async fn memory_conforms() {
    all(Arc::new(MemoryShared::default())).await;
}

#[tokio::test]
async fn redis_conforms() {
    let node = redis();
    all(tier(&format!("redis://127.0.0.1:{}", node.port))).await;
}

#[tokio::test]
async fn redis_cluster_conforms() {
    all(tier(&redis_cluster().url())).await;
}

#[tokio::test]
async fn a_wrong_url_is_told() {
    for url in ["http://localhost", "nonsense"] {
        assert!(
            RedisTier::connect(url, Arc::new(Metrics::default())).is_err(),
            "{url}"
        );
    }
}

#[tokio::test]
async fn a_dead_redis_is_found_out_and_found_again() {
    let node = redis();
    let shared = tier(&format!("redis://127.0.0.1:{}", node.port));
    eventually("the tier", LIMIT, async || shared.is_up().then_some(())).await;
    node.kill();
    eventually("the end of reads", LIMIT, async || {
        assert_eq!(shared.get(&[key("one", "a")]).await, [None]);
        (!shared.is_up()).then_some(())
    })
    .await;
    node.restart();
    eventually("the tier again", LIMIT, async || {
        shared.is_up().then_some(())
    })
    .await;
}

/// Readers gather by node: those of the other nodes are answered as if nothing
/// had happened.
#[tokio::test]
async fn a_node_that_hangs_holds_up_only_its_own_keys() {
    const KEYS: usize = 60;
    let cluster = RedisCluster::steady();
    let shared = tier(&cluster.url());
    eventually("the tier", LIMIT, async || shared.is_up().then_some(())).await;
    let keys: Vec<_> = (0..KEYS).map(|n| key(&format!("list-{n}"), n)).collect();
    let entries = keys.iter();
    let entries = entries.map(|key| (key.clone(), Bytes::from(key.key.clone())));
    put(shared.as_ref(), entries.collect(), LONG).await;
    let masters = cluster.masters();
    let hung = masters[0];
    let lost = redis_cli(hung.port, &["keys", "*"]);
    let is_lost = |key: &SharedKey| lost.contains(&format!("{{{}}}", key.list));
    assert!(
        (1..KEYS).contains(&keys.iter().filter(|key| is_lost(key)).count()),
        "{lost}"
    );
    let read_all = async || {
        let read = |key: &SharedKey| {
            let (shared, key) = (Arc::clone(&shared), key.clone());
            async move { shared.get(&[key]).await.remove(0).is_some() }
        };
        futures::future::join_all(keys.iter().map(read)).await
    };
    at_some_try("only the keys of the node are lost", async || {
        each_is_read(&shared, &keys).await;
        hung.freeze();
        // Well before the connection is found to hang.
        let answered = read_all().await;
        hung.thaw();
        let mut both = keys.iter().zip(&answered);
        let as_expected = both.all(|(key, found)| *found != is_lost(key));
        as_expected.then_some(()).ok_or(answered)
    })
    .await;
    each_is_read(&shared, &keys).await;
}

/// Waits until each of these was read once.
async fn each_is_read(shared: &Arc<dyn Shared>, keys: &[SharedKey]) {
    let mut missing = keys.to_vec();
    eventually("all of them", LIMIT, async || {
        let mut found = shared.get(&missing).await.into_iter();
        missing.retain(|_| found.next().flatten().is_none());
        missing.is_empty().then_some(())
    })
    .await;
}
