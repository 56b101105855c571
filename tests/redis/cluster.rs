//! A Redis Cluster whose slots move and whose masters die.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tidemark::tier::shared::{Shared, SharedKey};

use crate::{
    common::{Log, RECOVERY, Tier, keys, raw},
    support::{
        RedisCluster, Server, at_some_try, eventually, free_port, redis_cli, redis_cluster_node,
    },
};

const KEYS: usize = 120;

fn id(node: &Server) -> String {
    redis_cli(node.port, &["cluster", "myid"])
}

fn slot(node: &Server, key: &SharedKey) -> String {
    redis_cli(node.port, &["cluster", "keyslot", &raw(key)])
}

fn count_in(node: &Server, slot: &str) -> String {
    redis_cli(node.port, &["cluster", "countkeysinslot", slot])
}

/// The node of the cluster that has this key.
fn holder<'a>(cluster: &'a RedisCluster, key: &SharedKey) -> &'a Server {
    let has = |node: &&Server| redis_cli(node.port, &["get", &raw(key)]) == key.key;
    cluster.nodes.iter().find(has).expect("a holder")
}

#[tokio::test]
async fn a_slot_in_migration_costs_only_its_keys() {
    let cluster = RedisCluster::start(3, 0);
    let tier = Tier::ready(&cluster.url()).await;
    let all = keys(KEYS);
    tier.store(&all, RECOVERY).await;

    let moving = &all[0];
    let from = holder(&cluster, moving);
    let to = cluster
        .nodes
        .iter()
        .find(|node| node.port != from.port)
        .expect("another");
    let slot = slot(from, moving);
    redis_cli(
        to.port,
        &["cluster", "setslot", &slot, "importing", &id(from)],
    );
    redis_cli(
        from.port,
        &["cluster", "setslot", &slot, "migrating", &id(to)],
    );
    let moved = redis_cli(
        from.port,
        &[
            "migrate",
            "127.0.0.1",
            &to.port.to_string(),
            &raw(moving),
            "0",
            "1000",
        ],
    );
    assert_eq!(moved, "OK");
    for _ in 0..20 {
        // One alone, several of one slot, and among those of other nodes.
        assert_eq!(tier.get(moving).await, None);
        tier.put(moving);
        let mut second = moving.clone();
        second.key.push('x');
        assert_eq!(tier.tier.get(&[moving.clone(), second]).await, [None, None]);
    }
    eventually("an answer that the slot is moving", RECOVERY, async || {
        assert_eq!(tier.get(moving).await, None);
        (tier.errors("ask") > 0).then_some(())
    })
    .await;
    tier.has(&all, KEYS - 1).await;
    tier.has_together(&all, KEYS - 1).await;

    for node in &cluster.nodes {
        redis_cli(node.port, &["cluster", "setslot", &slot, "node", &id(to)]);
    }
    tier.store(&all, RECOVERY).await;
    assert_ne!(count_in(to, &slot), "0");
}

/// Slots move while entries are read and written.
#[tokio::test]
async fn resharding_under_load() {
    let cluster = RedisCluster::start(3, 0);
    let tier = Tier::ready(&cluster.url()).await;
    let all = keys(KEYS);
    tier.store(&all, RECOVERY).await;
    let (from, to) = (id(&cluster.nodes[0]), id(&cluster.nodes[1]));
    let port = cluster.nodes[0].port;
    let done = AtomicBool::new(false);
    let load = async {
        let (mut rounds, mut hits, mut up) = (0_usize, 0, 0);
        while !done.load(Ordering::Relaxed) || rounds < 10 {
            hits += tier.hits(&all).await;
            up += usize::from(tier.tier.is_up());
            all.iter().for_each(|key| tier.put(key));
            rounds += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A busy machine may spoil some rounds, and not half of them.
        assert!(up * 2 > rounds, "in use in {up} of {rounds} rounds");
        assert!(hits * 2 > KEYS * rounds, "{hits} hits in {rounds} rounds");
    };
    let reshard = async {
        let status = tokio::task::spawn_blocking(move || {
            Command::new("redis-cli")
                .args([
                    "--cluster",
                    "reshard",
                    &format!("127.0.0.1:{port}"),
                    "--cluster-yes",
                ])
                .args([
                    "--cluster-from",
                    &from,
                    "--cluster-to",
                    &to,
                    "--cluster-slots",
                    "2000",
                ])
                .output()
                .expect("redis-cli")
                .status
        });
        assert!(status.await.expect("run").success(), "resharded");
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, reshard);
    tier.store(&all, RECOVERY).await;
}

#[tokio::test]
async fn a_dead_master_costs_only_its_slots() {
    let cluster = RedisCluster::start(3, 0);
    let tier = Tier::ready(&cluster.url()).await;
    let all = keys(KEYS);
    tier.store(&all, RECOVERY).await;
    let dead = &cluster.nodes[0];
    let log = Log::start();
    dead.kill();
    let enough = |hits: usize| (hits * 10 > KEYS * 6).then_some(hits);
    for _ in 0..3 {
        eventually("most entries", RECOVERY, async || {
            enough(tier.hits(&all).await)
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tier.becomes_up(true).await;
    tier.uses(2, 2).await;
    assert_eq!(tier.nodes("known"), 3);
    // Entries of the living nodes are written, too.
    let more: Vec<_> = keys(2 * KEYS).split_off(KEYS);
    more.iter().for_each(|key| tier.put(key));
    eventually("new entries", RECOVERY, async || {
        enough(tier.hits(&more).await)
    })
    .await;
    assert!(log.warnings_of_faults().len() <= 3, "{}", log.text());

    // The dead one is the first in the URL of one that starts now.
    at_some_try("hits from the first call", async || {
        let started = Tier::start(&cluster.url());
        started.tier.wait_ready(Duration::from_secs(1)).await;
        let hits = started.hits(&all).await;
        enough(hits).ok_or(hits)
    })
    .await;

    dead.restart();
    // Its slots are known to its configuration file.
    tier.uses(3, 3).await;
    tier.store(&all, RECOVERY).await;
}

/// The cluster elects a replica; a new node replaces the dead one.
#[tokio::test]
async fn a_failover_and_a_replaced_node_are_followed() {
    let cluster = RedisCluster::start(6, 1);
    let tier = Tier::ready(&cluster.url()).await;
    let all = keys(KEYS);
    tier.store(&all, RECOVERY).await;

    // A replica that has never been in sync is not elected.
    eventually(
        "all replicas in sync",
        Duration::from_secs(120),
        async || {
            let in_sync = |node: &&Server| {
                let info = redis_cli(node.port, &["info", "replication"]);
                info.contains("role:master") || info.contains("master_link_status:up")
            };
            cluster
                .nodes
                .iter()
                .all(|node| in_sync(&node))
                .then_some(())
        },
    )
    .await;
    let dead = cluster.masters()[0];
    let dead_id = id(dead);
    dead.kill();
    let alive: Vec<_> = cluster
        .nodes
        .iter()
        .filter(|node| node.port != dead.port)
        .collect();
    let masters = || {
        alive
            .iter()
            .filter(|node| redis_cli(node.port, &["role"]).starts_with("master"))
            .count()
    };
    eventually("an election", Duration::from_secs(120), async || {
        (masters() == 3).then_some(())
    })
    .await;
    tier.store(&all, RECOVERY).await;

    // A node with a new address takes the place of one of the masters.
    let new = redis_cluster_node(free_port());
    let some = alive[0];
    redis_cli(
        some.port,
        &[
            "cluster",
            "meet",
            "127.0.0.1",
            &new.port.to_string(),
            &new.bus_port().to_string(),
        ],
    );
    let replaced = eventually("the new node is a replica", RECOVERY * 4, async || {
        let role = redis_cli(new.port, &["role"]);
        // Asked again, it would begin anew.
        if !role.starts_with("slave") {
            let is_master = |node: &&&Server| redis_cli(node.port, &["role"]).starts_with("master");
            let master = alive.iter().find(is_master)?;
            redis_cli(new.port, &["cluster", "replicate", &id(master)]);
        }
        let in_sync = redis_cli(new.port, &["info", "replication"]);
        let port: u16 = role.lines().nth(2)?.parse().ok()?;
        let master = alive.iter().find(|node| node.port == port)?;
        in_sync.contains("master_link_status:up").then_some(*master)
    })
    .await;
    let replaced_id = id(replaced);
    eventually("the new node is a master", RECOVERY * 4, async || {
        redis_cli(new.port, &["cluster", "failover"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis_cli(new.port, &["role"])
            .starts_with("master")
            .then_some(())
    })
    .await;
    replaced.kill();
    for node in alive.iter().filter(|node| node.port != replaced.port) {
        for gone in [&dead_id, &replaced_id] {
            redis_cli(node.port, &["cluster", "forget", gone]);
        }
    }
    tier.store(&all, RECOVERY).await;
    assert_ne!(redis_cli(new.port, &["dbsize"]), "0");
    tier.uses(3, 3).await;
}
