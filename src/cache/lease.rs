//! The advisory lease: when a todo that many replicas keep has changed, one of
//! them loads it and the others look into the shared tier for what it found.
//!
//! What it buys: a change of a hot todo costs the origin one load or two, not
//! one for each replica. What it costs: one command to the shared tier for a
//! load after a change, beside the one that asks for the entry, which all who
//! wait here share; a load of what was not kept here costs nothing more.
//! Losing the lease costs a load, never an answer: who does not find the value
//! in a few looks loads it all the same.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    Cache, Consistency,
    part::{Key, Missing, Request},
};
use crate::{
    coherence::ReadView,
    model::{OriginTime, TodoName},
    tier::shared::{Shared, SharedKey},
};

/// How long a lease holds: longer than a load takes, its entry's way to the
/// shared tier included. Each change has a lease of its own, so that no later
/// one waits for the end of this one.
const LEASE: Duration = Duration::from_secs(1);
/// Pauses before the looks of who did not get the lease: a load and the way of
/// its entry take some milliseconds. All together they are the most that a
/// read is held up by a holder that died.
const LOOKS_MS: [u64; 5] = [2, 3, 5, 10, 20];

impl Cache {
    /// Whether another replica may have read what is missing here. Hardly, where
    /// its fence is above the frontier: this replica made the change itself, or
    /// it is just arriving; or where it is the last write of this replica and its
    /// writer asks for it.
    pub(super) fn may_be_shared(&self, missing: &Missing, request: &Request) -> bool {
        let ReadView {
            min_as_of,
            frontier,
            ..
        } = missing.view;
        let own = min_as_of.0 == self.own_write.load(Ordering::Acquire);
        min_as_of <= frontier
            && !(own && request.consistency == Consistency::AtLeastAsFresh(min_as_of))
    }

    /// The fence that the value kept here is below, if it is worth a lease to
    /// load anew: other replicas know it too, and it is enough for what the
    /// request needs.
    pub(super) fn leased(&self, missing: &Missing, request: &Request) -> Option<OriginTime> {
        let min_as_of = missing.view.min_as_of;
        let loads = request.consistency != Consistency::CachedOnly && !request.is_away();
        let leased = missing.overtaken && loads && self.may_be_shared(missing, request);
        (leased && request.need <= min_as_of).then_some(min_as_of)
    }

    /// Begins the load of a todo whose fence was raised to `bar`, unless
    /// another replica has begun it and its value comes in time.
    pub(super) async fn load_by_lease(
        self: Arc<Self>,
        shared: Arc<dyn Shared>,
        name: TodoName,
        min_as_of: OriginTime,
    ) {
        let key = Key::Todo(name);
        let at = key.shared(self.origin.entry_scope());
        let lease = SharedKey {
            list: at.list.clone(),
            key: format!("{}:{min_as_of}", at.key),
        };
        let asked = self.found_instead(shared.as_ref(), &key, &at);
        let (won, found) = tokio::join!(shared.lease(&lease, LEASE), asked);
        if found {
            return;
        }
        if !won {
            for pause in LOOKS_MS {
                sleep(Duration::from_millis(pause)).await;
                if self.found_instead(shared.as_ref(), &key, &at).await {
                    return;
                }
            }
        }
        let mut state = self.loads.state();
        state.enqueue(key);
        self.begin_loads(&mut state);
    }

    /// Answers those who wait for a load that has not begun from the shared
    /// tier, if what lies there is as new as each of them requires of a load.
    async fn found_instead(&self, shared: &dyn Shared, key: &Key, at: &SharedKey) -> bool {
        let Some(raw) = shared.get(std::slice::from_ref(at)).await.pop().flatten() else {
            return false;
        };
        let Some(stamped) = self.opened(self.origin.entry_scope(), key, &raw) else {
            return false;
        };
        // Kept before they are answered: who comes later finds it near.
        if let Key::Todo(name) = key {
            self.near.put_todo(name.clone(), stamped.clone());
        }
        let waiters = self.loads.state().flights.settle(key, stamped.as_of);
        let Some(waiters) = waiters else { return false };
        for waiter in waiters {
            // A reader that went away needs no answer.
            let _ = waiter.send(Ok((stamped.clone(), crate::error::Source::Shared)));
        }
        true
    }
}
