//! One Redis behind one address: failover, connections that die, another kind of
//! server, and the bounds and the keyed hash of the tier.

use std::time::Duration;

use bytes::Bytes;
use tidemark::{
    budget::{Budgets, Part},
    telemetry::Kind,
    tier::{redis::RedisOptions, shared::Shared},
};

use crate::{
    common::{LONG, Log, RECOVERY, Tier, key, keys, raw},
    proxy::Proxy,
    support::{at_some_try, eventually, folder, free_port, quickly, redis, redis_cli, redis_with},
};

/// A managed Redis has one address. After a failover old connections stay with
/// the node that is a replica now.
#[tokio::test]
async fn a_failover_behind_one_address_is_followed() {
    let (one, other) = (redis(), redis());
    let first = one.port.to_string();
    redis_cli(other.port, &["replicaof", "127.0.0.1", &first]);
    let proxy = Proxy::before(one.port);
    let log = Log::start();
    let tier = Tier::ready(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    tier.store(&keys(5), RECOVERY).await;

    let mut nodes = [&one, &other];
    at_some_try("a write met the old master", async || {
        nodes.reverse();
        let [new_master, old] = nodes;
        let refused = tier.errors("readonly");
        redis_cli(new_master.port, &["replicaof", "no", "one"]);
        let port = new_master.port.to_string();
        redis_cli(old.port, &["replicaof", "127.0.0.1", &port]);
        proxy.point_at(new_master.port);
        let new = key(100 + usize::from(new_master.port));
        eventually("an entry on the new master", RECOVERY, async || {
            tier.put(&new);
            tokio::time::sleep(Duration::from_millis(50)).await;
            (redis_cli(new_master.port, &["exists", &raw(&new)]) == "1").then_some(())
        })
        .await;
        // A busy machine may give reason for new connections right before it.
        (tier.errors("readonly") > refused)
            .then_some(())
            .ok_or("new connections at once")
    })
    .await;
    log.warned("READONLY").await;
    tier.store(&keys(10), RECOVERY).await;
}

/// Without any write of a caller: the tier finds out by itself.
#[tokio::test]
async fn a_node_that_became_a_replica_is_found_out_without_writes() {
    let (one, other) = (redis(), redis());
    let proxy = Proxy::before(one.port);
    let tier = Tier::ready(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    eventually("writes", RECOVERY, async || {
        (tier.nodes("writes") == 1).then_some(())
    })
    .await;
    redis_cli(
        one.port,
        &["replicaof", "127.0.0.1", &other.port.to_string()],
    );
    eventually("READONLY", RECOVERY, async || {
        (tier.errors("readonly") > 0 && tier.nodes("writes") == 0).then_some(())
    })
    .await;
    proxy.point_at(other.port);
    eventually("writes again", RECOVERY, async || {
        (tier.nodes("writes") == 1).then_some(())
    })
    .await;
}

/// Firewalls and load balancers forget idle connections without a word.
#[tokio::test]
async fn connections_that_lose_every_byte_are_replaced() {
    let node = redis();
    let proxy = Proxy::before(node.port);
    let tier = Tier::ready(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    tier.store(&keys(1), RECOVERY).await;

    // While nobody asks.
    at_some_try("no idle connection was trusted", async || {
        proxy.swallow();
        tokio::time::sleep(Duration::from_secs(6)).await;
        let hits = tier.hits(&[key(0), key(0), key(0)]).await;
        (hits > 0).then_some(()).ok_or("no hit")
    })
    .await;

    // While they are used.
    proxy.swallow();
    tier.store(&keys(1), RECOVERY).await;
    eventually("writes", RECOVERY, async || {
        tier.put(&key(1));
        tier.get(&key(1)).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_for_a_while_is_used_again() {
    let node = redis();
    let tier = Tier::ready(&format!("redis://127.0.0.1:{}", node.port)).await;
    tier.store(&keys(1), RECOVERY).await;
    node.freeze();
    eventually("the breaker", RECOVERY, async || {
        (!tier.tier.is_up()).then_some(())
    })
    .await;
    quickly("100 misses", Duration::from_millis(500), async || {
        for _ in 0..100 {
            assert_eq!(tier.get(&key(0)).await, None);
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    node.thaw();
    tier.store(&keys(1), RECOVERY).await;
}

/// The URL of a cluster, and a server that is not one for a moment.
#[tokio::test]
async fn a_cluster_url_waits_for_the_cluster() {
    let port = free_port();
    let not_yet = redis_with(port, &[]);
    let log = Log::start();
    let tier = Tier::start(&format!("redis-cluster://127.0.0.1:{port}"));
    log.warned("cluster support disabled").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(log.warnings_of_faults().len(), 1, "{}", log.text());
    assert!(!tier.tier.is_up());

    drop(not_yet);
    let _cluster = redis_with(port, &["--cluster-enabled", "yes"]);
    redis_cli(port, &["cluster", "addslotsrange", "0", "16383"]);
    tier.store(&keys(20), RECOVERY).await;
}

/// Any order of start: the tier may be there before its server.
#[tokio::test]
async fn a_redis_that_starts_late_is_used() {
    let port = free_port();
    let log = Log::start();
    let tier = Tier::start(&format!("redis://127.0.0.1:{port}"));
    log.warned("Connection refused").await;
    let _node = redis_with(port, &[]);
    tier.store(&keys(1), RECOVERY).await;
}

#[tokio::test]
async fn ipv6() {
    let port = free_port();
    let _node = redis_with(port, &["--bind", "::1", "--cluster-enabled", "yes"]);
    redis_cli_at("::1", port, &["cluster", "addslotsrange", "0", "16383"]);
    for scheme in ["redis", "redis-cluster"] {
        let tier = Tier::ready(&format!("{scheme}://[::1]:{port}")).await;
        tier.store(&keys(5), RECOVERY).await;
    }
}

fn redis_cli_at(host: &str, port: u16, args: &[&str]) {
    let out = std::process::Command::new("redis-cli")
        .args(["-h", host, "-p", &port.to_string()])
        .args(args)
        .output()
        .expect("redis-cli");
    assert!(out.status.success());
}

/// Entries are only exchanged between replicas with the same key.
#[tokio::test]
async fn entries_without_the_right_keyed_hash_are_misses() {
    let node = redis();
    let url = format!("redis://127.0.0.1:{}", node.port);
    let dir = folder("keys");
    let with_key = |name: &str| {
        let path = dir.join(name);
        std::fs::write(&path, name.repeat(32)).expect("written");
        RedisOptions {
            mac_key_file: Some(path),
            ..RedisOptions::default()
        }
    };
    let same = [with_key("a"), with_key("a")];
    let [one, two] = same.map(|options| Tier::start_with(&url, options));
    let other = Tier::start_with(&url, with_key("b"));
    let none = Tier::start(&url);
    for tier in [&one, &two, &other, &none] {
        assert!(tier.tier.wait_ready(RECOVERY).await);
    }
    one.store(&keys(3), RECOVERY).await;
    two.has(&keys(3), 3).await;
    two.has_together(&keys(3), 3).await;
    let rejected = || {
        let rejected = &other.metrics.shared_rejected;
        rejected.get_or_create(&Kind { kind: "mac" }).get()
    };
    eventually("three rejected entries", RECOVERY, async || {
        assert_eq!(other.hits(&keys(3)).await, 0);
        (rejected() >= 3).then_some(())
    })
    .await;
    // Entries of a replica without a key.
    redis_cli(node.port, &["flushall"]);
    none.store(&keys(3), RECOVERY).await;
    assert_eq!(one.hits(&keys(3)).await, 0);
}

/// Replicas see a changed file at different times. None is restarted, and none loses
/// what was written with the key before.
#[tokio::test]
async fn the_key_of_the_keyed_hash_is_replaced_without_a_restart() {
    let node = redis();
    let url = format!("redis://127.0.0.1:{}", node.port);
    let dir = folder("rotation");
    let files = ["one", "two"].map(|name| dir.join(name));
    // At once: a part of a file would be one that cannot be used.
    let put = |at: usize, bytes: &[u8]| {
        let new = files[at].with_extension("new");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(new, &files[at]).expect("renamed");
    };
    (0..2).for_each(|at| put(at, &[1; 32]));
    let [one, two] = [0, 1].map(|at| {
        let options = RedisOptions {
            mac_key_file: Some(files[at].clone()),
            ..RedisOptions::default()
        };
        Tier::start_with(&url, options)
    });
    let reloads = async |tier: &Tier, kind: &'static str| {
        let counter = tier
            .metrics
            .shared_key_reloads
            .get_or_create(&Kind { kind })
            .clone();
        eventually(kind, RECOVERY, async || (counter.get() == 1).then_some(())).await;
    };
    for tier in [&one, &two] {
        assert!(tier.tier.wait_ready(RECOVERY).await);
    }
    two.store(&keys(3), RECOVERY).await;
    put(0, &[2; 32]);
    reloads(&one, "loaded").await;
    // Entries with the key before.
    one.has(&keys(3), 3).await;
    redis_cli(node.port, &["flushall"]);
    one.store(&keys(3), RECOVERY).await;
    assert_eq!(two.hits(&keys(3)).await, 0, "its file is the one before");
    put(1, &[2; 32]);
    reloads(&two, "loaded").await;
    two.has(&keys(3), 3).await;
    // A file that cannot be used changes nothing.
    put(1, &[3; 31]);
    reloads(&two, "failed").await;
    two.has(&keys(3), 3).await;
}

/// Keys count as well as values.
#[tokio::test]
async fn what_waits_to_be_written_is_bounded_in_bytes() {
    const PIECE: usize = 1 << 20;
    let node = redis();
    let budgets = Budgets::unlimited(256);
    let options = RedisOptions {
        budgets: std::sync::Arc::clone(&budgets),
        ..RedisOptions::default()
    };
    let tier = Tier::start_with(&format!("redis://127.0.0.1:{}", node.port), options);
    eventually("writes", RECOVERY, async || {
        (tier.nodes("writes") == 1).then_some(())
    })
    .await;
    node.freeze();
    let queue = budgets.of(Part::RedisQueue);
    let count = usize::try_from(queue.limit()).expect("a size") / PIECE * 2;
    for n in 0..count {
        let mut long = key(n);
        long.key = format!("{}{n}", "k".repeat(PIECE / 2));
        tier.tier
            .put(vec![(long, Bytes::from(vec![0; PIECE / 2]))], LONG);
        assert!(queue.used() <= queue.limit());
    }
    assert!(tier.metrics.shared_dropped.get() >= count as u64 / 2);
    node.thaw();
    eventually("an empty queue", RECOVERY, async || {
        (queue.used() == 0).then_some(())
    })
    .await;
}
