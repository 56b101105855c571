//! A master that sentinels name, with passwords of their own.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tidemark::tier::shared::Shared as _;

use crate::{
    common::{Log, RECOVERY, Tier, keys},
    support::{Server, binary, eventually, folder, free_port, redis_cli, redis_with},
};

const PASSWORD: &str = "of/the@servers%";
const SENTINEL_PASSWORD: &str = "of/the+sentinels";
const SERVICE: &str = "todos";
/// Time until all sentinels know each other.
const START: Duration = Duration::from_secs(120);
/// Time for a failover. A sentinel that a busy machine stopped for two seconds trusts its
/// clock no more, and waits half a minute.
const FAILOVER: Duration = Duration::from_secs(180);

struct Sentinels {
    nodes: Vec<Server>,
    sentinels: Vec<Server>,
}

fn sentinel(master: u16) -> Server {
    let (port, dir) = (free_port(), folder("sentinel"));
    let config = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nrequirepass {SENTINEL_PASSWORD}\n\
         sentinel sentinel-pass {SENTINEL_PASSWORD}\n\
         sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
         sentinel auth-pass {SERVICE} \"{PASSWORD}\"\n\
         sentinel down-after-milliseconds {SERVICE} 1000\n\
         sentinel failover-timeout {SERVICE} 3000\n",
        dir.display()
    );
    let file = dir.join("sentinel.conf");
    std::fs::write(&file, config).expect("written");
    let args = vec![file.display().to_string(), "--sentinel".to_owned()];
    Server::start(binary("redis-server"), port, args)
}

impl Sentinels {
    async fn start() -> Self {
        let auth = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let master = redis_with(free_port(), &auth);
        let port = master.port.to_string();
        let of_master = [&auth[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let replica = redis_with(free_port(), &of_master);
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master.port)).collect();
        let all = Self {
            nodes: vec![master, replica],
            sentinels,
        };
        eventually("the sentinels", START, async || {
            let known = all.sentinels.iter().all(|sentinel| {
                let about = all.ask(sentinel, &["sentinel", "master", SERVICE]);
                about.contains("num-slaves\n1\n") && about.contains("num-other-sentinels\n2\n")
            });
            known.then_some(())
        })
        .await;
        all
    }

    fn ask(&self, sentinel: &Server, args: &[&str]) -> String {
        let auth = ["--no-auth-warning", "-a", SENTINEL_PASSWORD];
        redis_cli(sentinel.port, &[&auth[..], args].concat())
    }

    /// The port of the master, as the last sentinel sees it.
    fn master(&self) -> u16 {
        let args = ["sentinel", "get-master-addr-by-name", SERVICE];
        let answer = self.ask(&self.sentinels[2], &args);
        answer
            .lines()
            .last()
            .and_then(|port| port.parse().ok())
            .unwrap_or(0)
    }

    fn url(&self, sentinel_password: &str) -> String {
        let ports: Vec<_> = self.sentinels.iter().map(|node| node.port).collect();
        format!(
            "redis-sentinel://:of/the@servers%25@127.0.0.1:{}?node=127.0.0.1:{}&node=127.0.0.1:{}\
             &sentinelServiceName={SERVICE}&sentinelPassword={sentinel_password}",
            ports[0], ports[1], ports[2]
        )
    }

    async fn new_master(&self, old: u16) {
        eventually("another master", FAILOVER, async || {
            let master = self.master();
            (master != 0 && master != old).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_failover_by_sentinels_under_load_with_one_of_them_gone() {
    let set = Sentinels::start().await;
    let log = Log::start();
    let wrong = Tier::start(&set.url("wrong-one"));
    log.warned("WRONGPASS").await;
    drop(wrong);

    // The first in the URL is gone.
    set.sentinels[0].kill();
    let tier = Tier::start(&set.url(SENTINEL_PASSWORD));
    assert!(tier.tier.wait_ready(RECOVERY * 2).await, "{}", log.text());
    let all = keys(20);
    tier.store(&all, RECOVERY).await;

    let done = AtomicBool::new(false);
    let load = async {
        while !done.load(Ordering::Relaxed) {
            tier.hits(&all).await;
            all.iter().for_each(|key| tier.put(key));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let failovers = async {
        // The master dies.
        let master = eventually("the master", START, async || {
            let port = set.master();
            set.nodes.iter().find(|node| node.port == port)
        })
        .await;
        let first = master.port;
        master.kill();
        set.new_master(first).await;
        tier.store(&all, RECOVERY).await;
        // It comes back as a replica, and an operator makes it the master again:
        // the connections stay with the one that is a replica then.
        master.restart();
        eventually("a failover is accepted", FAILOVER, async || {
            set.ask(&set.sentinels[2], &["sentinel", "failover", SERVICE]);
            tokio::time::sleep(Duration::from_millis(500)).await;
            (set.master() == first).then_some(())
        })
        .await;
        tier.store(&keys(40), RECOVERY).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, failovers);
    tier.becomes_up(true).await;
    let text = log.text();
    assert!(
        !text.contains(PASSWORD) && !text.contains(SENTINEL_PASSWORD),
        "{text}"
    );
}

#[tokio::test]
async fn a_service_that_the_sentinels_do_not_know_is_named() {
    let node = redis_with(free_port(), &["--requirepass", PASSWORD]);
    let sentinel = sentinel(node.port);
    eventually("the sentinel", START, async || {
        redis_cli(sentinel.port, &["ping"])
            .contains("NOAUTH")
            .then_some(())
    })
    .await;
    let log = Log::start();
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=other&sentinelPassword={SENTINEL_PASSWORD}",
        sentinel.port
    );
    let tier = Tier::start(&url);
    log.warned("no master named").await;
    assert!(!tier.tier.is_up());
}
