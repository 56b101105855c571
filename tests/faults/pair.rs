//! Redis behind one address, as a managed one is: two nodes, of which one is the
//! master, and a proxy whose new connections go to the master of the day.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use crate::{
    proxy::{self, Way},
    support::{Server, redis, redis_cli},
};

pub struct Pair {
    pub nodes: [Server; 2],
    master: AtomicUsize,
    /// Where new connections go.
    target: Arc<AtomicU16>,
    /// The one address.
    port: u16,
}

impl Pair {
    pub fn start(way: Way) -> Self {
        let nodes = [redis(), redis()];
        let target = Arc::new(AtomicU16::new(nodes[0].port));
        let port = proxy::before_movable(Arc::clone(&target), vec![way]);
        let pair = Self {
            nodes,
            master: AtomicUsize::new(0),
            target,
            port,
        };
        pair.replicate();
        pair
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn master(&self) -> &Server {
        &self.nodes[self.master.load(Ordering::Relaxed)]
    }

    fn other(&self) -> &Server {
        &self.nodes[1 - self.master.load(Ordering::Relaxed)]
    }

    /// Makes the nodes master and replica.
    fn replicate(&self) {
        let master = self.master().port.to_string();
        redis_cli(self.master().port, &["replicaof", "no", "one"]);
        redis_cli(self.other().port, &["replicaof", "127.0.0.1", &master]);
    }

    /// The nodes change roles. Connections that are open stay with the old master,
    /// which refuses writes from now on.
    pub fn fail_over(&self) {
        self.master.fetch_xor(1, Ordering::Relaxed);
        self.replicate();
        self.target.store(self.master().port, Ordering::Relaxed);
    }

    /// Starts both again after they were killed. They have forgotten their roles.
    pub fn restart(&self) {
        self.nodes.iter().for_each(Server::restart);
        for node in &self.nodes {
            while redis_cli(node.port, &["ping"]) != "PONG" {
                sleep(Duration::from_millis(20));
            }
        }
        self.replicate();
    }
}
