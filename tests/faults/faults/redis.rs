//! The faults of Redis: of the cluster and of the pair behind one address.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Chaos;
use crate::{
    proxy::Mode,
    support::{Server, Tidemark, redis_cli},
    world::BEHIND_ONE_ADDRESS,
};

/// Within this a replica must use all nodes again once they are right: 10 s, and three
/// times that on a busy machine.
const IN_USE_AGAIN: Duration = Duration::from_secs(30);
/// Until nobody elects a successor of a lost master any more, and replicas know it.
const SHARD_IS_LOST: Duration = Duration::from_secs(10);
/// Masters of the cluster.
const MASTERS: u64 = 3;
/// More replicas than a master has.
const TOO_MANY: &str = "9";
/// Keys of a slot that are moved by one command.
const KEYS_AT_ONCE: &str = "1000";
/// Failovers of the pair until a write meets the old master.
const FAILOVERS: usize = 5;
/// Tries to move all keys of a slot.
const MOVES: usize = 50;

/// Nodes of this kind, as a replica's metrics count them.
fn nodes(service: &Tidemark, kind: &str) -> u64 {
    service.metric(&format!("tidemark_shared_nodes{{kind=\"{kind}\"}}"))
}

fn errors(service: &Tidemark, kind: &str) -> u64 {
    service.metric(&format!("tidemark_shared_errors_total{{kind=\"{kind}\"}}"))
}

/// Todos and pages found in Redis.
fn hits(service: &Tidemark) -> u64 {
    ["todo", "page"]
        .map(|kind| {
            service.metric(&format!(
                "tidemark_reads_total{{kind=\"{kind}\",tier=\"shared\"}}"
            ))
        })
        .iter()
        .sum()
}

fn set_on(nodes: &[&Server], setting: &str, value: &str) {
    for node in nodes {
        redis_cli(node.port, &["config", "set", setting, value]);
    }
}

/// Moves some keys of a slot; how many are left.
fn move_keys(from: &Server, to: &Server, slot: &str, half: bool) -> usize {
    let keys = redis_cli(from.port, &["cluster", "getkeysinslot", slot, KEYS_AT_ONCE]);
    let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
    let moved = if half {
        keys.len().div_ceil(2)
    } else {
        keys.len()
    };
    if moved > 0 {
        let port = to.port.to_string();
        let mut command = vec!["migrate", "127.0.0.1", &port, "", "0", "1000", "replace"];
        command.push("keys");
        command.extend(&keys[..moved]);
        redis_cli(from.port, &command);
    }
    let left = redis_cli(from.port, &["cluster", "countkeysinslot", slot]);
    left.parse().unwrap_or(usize::MAX)
}

impl Chaos {
    /// The masters of the cluster and of the pair.
    fn redis_masters(&self) -> Vec<&Server> {
        let mut masters = self.world.redis.masters();
        masters.push(self.world.pair.master());
        masters
    }

    /// Waits until each replica reads from and writes to all its nodes.
    pub(super) async fn redis_in_use(&self, after: &str) {
        let began = Instant::now();
        for replica in &self.world.replicas {
            let service = replica.service();
            let all = match replica.index {
                BEHIND_ONE_ADDRESS => 1,
                _ => MASTERS,
            };
            let kinds = ["known", "reads", "writes"];
            while kinds.iter().any(|kind| nodes(&service, kind) != all) {
                if began.elapsed() > IN_USE_AGAIN {
                    let now = kinds.map(|kind| nodes(&service, kind));
                    return self.must(false, || {
                        format!(
                            "{after}: of {all} Redis nodes replica {} has {now:?} in use",
                            replica.index
                        )
                    });
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        println!(
            "  all Redis nodes in use again after {:.1?}",
            began.elapsed()
        );
    }

    pub(super) async fn redis_master(&mut self, down: impl Fn(&Server), up: impl Fn(&Server)) {
        let mut random = self.random.clone();
        let masters = self.redis_masters();
        let master = *random.pick(&masters);
        down(master);
        sleep(self.hold).await;
        up(master);
        sleep(self.hold / 4).await;
        self.random = random;
    }

    /// A master and its replicas die and nobody takes over: the other shards go on.
    pub(super) async fn redis_shard_lost(&mut self) {
        let mut random = self.random.clone();
        let cluster = &self.world.redis;
        let master = *random.pick(&cluster.masters());
        let place = cluster.nodes.iter().position(|n| n.port == master.port);
        let announced = cluster.ports[place.expect("one of them")].to_string();
        let of_it = |node: &&Server| {
            let role = redis_cli(node.port, &["role"]);
            role.starts_with("slave") && role.lines().nth(2) == Some(announced.as_str())
        };
        let mut dead: Vec<_> = cluster.nodes.iter().filter(of_it).collect();
        dead.push(master);
        let lists = self.shift.lists.iter();
        let elsewhere = lists
            .filter_map(|list| self.owner(list))
            .any(|(_, owner)| owner.port != master.port);
        dead.iter().for_each(|node| node.kill());
        sleep(SHARD_IS_LOST).await;
        let sharers = || {
            let all = self.world.replicas.iter();
            all.filter(|replica| replica.index != BEHIND_ONE_ADDRESS)
        };
        let before: Vec<_> = sharers().map(|replica| hits(&replica.service())).collect();
        sleep(self.hold).await;
        for (replica, before) in sharers().zip(before) {
            let service = replica.service();
            let began = Instant::now();
            let (reads, writes, found) = loop {
                let (reads, writes) = (nodes(&service, "reads"), nodes(&service, "writes"));
                let found = hits(&service) - before;
                let good = reads == 2 && writes == 2 && (found > 0 || !elsewhere);
                if good || began.elapsed() > IN_USE_AGAIN {
                    break (reads, writes, found);
                }
                sleep(Duration::from_millis(50)).await;
            };
            self.must(reads == 2 && writes == 2 && (found > 0 || !elsewhere), || {
                format!(
                    "a lost shard: replica {} reads from {reads} nodes, writes to {writes} and found {found} values",
                    replica.index
                )
            });
        }
        dead.iter().for_each(|node| node.restart());
        self.random = random;
    }

    /// The slot of a list, and the master that has it.
    fn owner(&self, list: &str) -> Option<(String, &Server)> {
        let masters = self.world.redis.masters();
        let key = format!("tidemark:{{{list}}}:none");
        let slot = redis_cli(masters[0].port, &["cluster", "keyslot", &key]);
        let owner = masters.into_iter().find(|node| {
            let answer = redis_cli(node.port, &["get", &key]);
            !answer.starts_with("MOVED") && !answer.starts_with("CLUSTERDOWN")
        });
        owner.map(|owner| (slot, owner))
    }

    /// The slots of the lists that are read and written move to other masters. For a
    /// while half of their keys are here and half there.
    pub(super) async fn redis_slots_moved(&mut self) {
        let mut random = self.random.clone();
        let mut moves = Vec::new();
        let masters = self.world.redis.masters();
        let id = |node: &Server| redis_cli(node.port, &["cluster", "myid"]);
        for list in &self.shift.lists {
            let Some((slot, from)) = self.owner(list) else {
                continue;
            };
            let others = masters.iter().filter(|node| node.port != from.port);
            let to = *random.pick(&others.copied().collect::<Vec<_>>());
            let command =
                |state, other| ["cluster", "setslot", &slot, state, other].map(String::from);
            for (node, [state, other]) in [
                (to, ["importing", &id(from)]),
                (from, ["migrating", &id(to)]),
            ] {
                let command = command(state, other);
                redis_cli(node.port, &command.each_ref().map(String::as_str));
            }
            move_keys(from, to, &slot, true);
            moves.push((slot, from, to));
        }
        self.must(!moves.is_empty(), || "no slot was moved".into());
        sleep(self.hold).await;
        for (slot, from, to) in moves {
            let left = (0..MOVES).any(|_| move_keys(from, to, &slot, false) == 0);
            self.must(left, || {
                format!("the keys of slot {slot} could not be moved")
            });
            let to_id = id(to);
            let rest = masters.iter().filter(|node| node.port != to.port);
            for node in std::iter::once(&to).chain(rest) {
                redis_cli(node.port, &["cluster", "setslot", &slot, "node", &to_id]);
            }
        }
        sleep(self.hold / 2).await;
        self.random = random;
    }

    /// Masters become replicas. Those of the cluster name their successors; the one
    /// behind one address refuses writes.
    pub(super) async fn redis_roles_changed(&self) {
        let service = self.world.replicas[BEHIND_ONE_ADDRESS].service();
        let refused = errors(&service, "readonly");
        for node in &self.world.redis.nodes {
            if redis_cli(node.port, &["role"]).starts_with("slave") {
                redis_cli(node.port, &["cluster", "failover"]);
            }
        }
        // A busy machine may give reason for new connections right before it.
        for _ in 0..FAILOVERS {
            self.world.pair.fail_over();
            sleep(self.hold).await;
            if errors(&service, "readonly") > refused {
                return;
            }
        }
        self.must(false, || "no write met the new replica".into());
    }

    /// Redis is read as ever and takes no writes: what it has gets older and older.
    pub(super) async fn redis_writes_refused(&self) {
        let service = self.world.replicas[BEHIND_ONE_ADDRESS].service();
        let refused = errors(&service, "oom");
        let masters = self.redis_masters();
        set_on(&masters, "min-replicas-to-write", TOO_MANY);
        sleep(self.hold / 2).await;
        set_on(&masters, "min-replicas-to-write", "0");
        set_on(&masters, "maxmemory", "1");
        sleep(self.hold / 2).await;
        let began = Instant::now();
        while errors(&service, "oom") == refused && began.elapsed() < IN_USE_AGAIN {
            sleep(Duration::from_millis(50)).await;
        }
        self.must(errors(&service, "oom") > refused, || {
            "no write was refused".into()
        });
        set_on(&masters, "maxmemory", "0");
    }

    pub(super) async fn redis_flushed(&self) {
        for _ in 0..3 {
            for node in self.redis_masters() {
                redis_cli(node.port, &["flushall"]);
            }
            sleep(self.hold / 3).await;
        }
    }

    pub(super) async fn redis_old_values(&self) {
        const ASIDE: &str = "for _, k in ipairs(redis.call('keys', 'tidemark:*')) do \
                             if string.sub(k, -5) ~= '-kept' then redis.call('copy', k, k .. '-kept', 'REPLACE') end end";
        const BACK: &str = "local n = 0 for _, k in ipairs(redis.call('keys', 'tidemark:*-kept')) do \
                            n = n + redis.call('copy', k, string.sub(k, 1, -6), 'REPLACE') end return n";
        let all = |script: &str| -> usize {
            let masters = self.redis_masters().into_iter();
            masters
                .map(|node| {
                    redis_cli(node.port, &["eval", script, "0"])
                        .parse()
                        .unwrap_or(0)
                })
                .sum()
        };
        all(ASIDE);
        let mut back = 0;
        for _ in 0..4 {
            sleep(self.hold / 4).await;
            back += all(BACK);
        }
        println!("  {back} old values put back");
        self.must(back > 0, || "no old value was put back".into());
    }

    pub(super) async fn redis_down(&self) {
        let (cluster, pair) = (&self.world.redis.nodes, &self.world.pair);
        cluster.iter().chain(&pair.nodes).for_each(Server::kill);
        sleep(self.hold).await;
        cluster.iter().for_each(Server::restart);
        pair.restart();
    }

    pub(super) async fn redis_way(&self, mode: Mode) {
        self.world.redis_way.set(mode);
        sleep(self.hold).await;
        self.world.redis_way.set(Mode::Pass);
    }
}
