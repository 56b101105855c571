//! Readers of one key that wait at the same moment share a command to Redis,
//! with no added wait when none is under way.
//!
//! Each node has a lane of its own, so that one that hangs holds up the keys
//! of no other.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use fred::{
    interfaces::ClusterInterface,
    types::{cluster::ClusterRouting, config::Server},
};
use tokio::sync::{mpsc, oneshot};

use super::Inner;

/// Readers of one command. One command is under way in a lane, so that readers
/// gather while it runs: one more in it costs a fraction of a command.
const READERS: usize = 128;
/// Readers that may wait in a lane: far more than a node serves within the
/// time that a read waits for it. Beyond, they do without.
const MAX_WAITING: usize = 8192;

/// A reader of one key.
pub(super) struct Get {
    pub(super) key: String,
    pub(super) found: oneshot::Sender<Option<Bytes>>,
}

/// Why a reader cannot wait here.
pub(super) enum NoLane {
    /// It is not known which node has its key.
    Unknown,
    /// Too many wait already.
    Full,
}

/// The lanes by hash slot.
#[derive(Default)]
pub(super) struct Lanes {
    routes: RwLock<Vec<Route>>,
}

/// The slots after those of the route before, up to this one, and whose they
/// are: of a Redis that is no cluster all.
struct Route {
    last_slot: u16,
    node: Option<Server>,
    lane: mpsc::Sender<Get>,
}

impl Lanes {
    /// One lane for all keys: Redis is no cluster.
    pub(super) fn single(inner: &Arc<Inner>) -> Self {
        let route = Route {
            last_slot: u16::MAX,
            node: None,
            lane: open(inner),
        };
        Self {
            routes: RwLock::new(vec![route]),
        }
    }

    /// Lets a reader wait for the next command of its key's node.
    pub(super) fn wait(&self, key: String) -> Result<oneshot::Receiver<Option<Bytes>>, NoLane> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let at = match routes.as_slice() {
            [_] => 0,
            routes => {
                let slot = ClusterRouting::hash_key(key.as_bytes());
                routes.partition_point(|route| route.last_slot < slot)
            }
        };
        let Route { lane, .. } = routes.get(at).ok_or(NoLane::Unknown)?;
        let (found, answer) = oneshot::channel();
        lane.try_send(Get { key, found })
            .map_err(|_| NoLane::Full)?;
        Ok(answer)
    }

    /// Follows the cluster's slots to the nodes that have them now. A reader in
    /// the lane of a node that has lost its slot is answered all the same.
    pub(super) fn follow_slots(&self, inner: &Arc<Inner>) {
        let Some(slots) = inner.reads.cached_cluster_state() else {
            return;
        };
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let known = |routes: &[Route], node: &Server| {
            routes
                .iter()
                .find(|route| route.node.as_ref() == Some(node))
                .map(|route| route.lane.clone())
        };
        let mut new: Vec<Route> = Vec::with_capacity(slots.len());
        for range in slots.slots() {
            let node = &range.primary;
            let lane = known(&new, node)
                .or_else(|| known(&routes, node))
                .unwrap_or_else(|| open(inner));
            new.push(Route {
                last_slot: range.end,
                node: Some(node.clone()),
                lane,
            });
        }
        // The lanes of nodes that are gone end with what waits in them.
        *routes = new;
    }
}

fn open(inner: &Arc<Inner>) -> mpsc::Sender<Get> {
    let (lane, mut waiting) = mpsc::channel(MAX_WAITING);
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let mut readers = Vec::new();
        while waiting.recv_many(&mut readers, READERS).await > 0 {
            inner.get_together(std::mem::take(&mut readers)).await;
        }
    });
    lane
}
