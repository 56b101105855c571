//! Leases: when a todo that many replicas keep near has changed, one replica loads
//! it and the others wait a moment for its entry in the shared tier.
//!
//! A change of a todo on 20 replicas costs the origin one or two loads instead of
//! 20. The cost is one command to the shared tier for each load after a change. A
//! lost lease costs an extra load; it never fails a read: a replica that does not find the entry
//! within a few tries loads the todo itself.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Loader;
use crate::{
    model::{Key, OriginTime, Source},
    tier::{
        shared::{Shared, SharedKey},
        shared_key,
    },
};

/// How long a lease lasts: longer than a load and the write of its entry. Each
/// change has its own lease, so no later change waits for this one's end.
const LEASE: Duration = Duration::from_secs(1);
/// Pauses before a replica without the lease looks for the entry again. Their sum
/// is the longest that a read waits for a lease holder that crashed.
const RETRY_PAUSES_MS: [u64; 5] = [2, 3, 5, 10, 20];

impl Loader {
    /// Loads a key whose fence was raised to `fence`, unless another replica loads
    /// it and its entry arrives in time.
    pub(super) async fn load_with_lease(
        self: Arc<Self>,
        shared: Arc<dyn Shared>,
        key: Key,
        fence: OriginTime,
    ) {
        let at = shared_key(self.origin.entry_scope(), &key);
        let lease = SharedKey {
            list: at.list,
            key: format!("{}:{fence}", at.key),
        };
        let (won, settled) =
            tokio::join!(shared.lease(&lease, LEASE), self.settle_from_shared(&key),);
        if settled {
            return;
        }
        if !won {
            for pause in RETRY_PAUSES_MS {
                sleep(Duration::from_millis(pause)).await;
                if self.settle_from_shared(&key).await {
                    return;
                }
            }
        }
        let mut state = self.state();
        state.enqueue(key);
        self.begin_loads(&mut state);
    }

    /// Answers those that wait for a load that has not begun from the shared tier,
    /// if its entry is as new as each of them requires of a load.
    async fn settle_from_shared(&self, key: &Key) -> bool {
        let scope = self.origin.entry_scope();
        let found = self
            .tiers
            .lookup_shared(scope, std::slice::from_ref(key))
            .await;
        let Some(stamped) = found.into_iter().next().flatten() else {
            return false;
        };
        if stamped.as_of > self.tracker.newest_proven() {
            return false;
        }
        // Stored before they are answered: a later reader finds it near.
        self.tiers.near.put(key, stamped.clone(), None);
        let mut state = self.state();
        let Some(waiters) = state.flights.settle(key, stamped.as_of) else {
            return false;
        };
        state.places.remove(key);
        drop(state);
        for waiter in waiters {
            // A reader that has gone needs no answer.
            let _ = waiter.send(Ok((stamped.clone(), Source::Shared)));
        }
        true
    }
}
