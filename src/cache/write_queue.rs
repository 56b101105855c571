//! Writes that wait for a place at the database, round-robin by caller.
//!
//! Without it they would wait for a connection in the order in which they came, and
//! the writes of one caller would delay those of all others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::budget::{Budget, Caller, FairQueue, Reservation};

/// The places at the database, and the writes that wait for one.
pub(super) struct WriteQueue {
    running: Arc<Budget>,
    waiting: Mutex<FairQueue<oneshot::Sender<Place>>>,
}

/// A place at the database. The next write gets it when this is dropped.
pub(super) struct Place {
    queue: Arc<WriteQueue>,
    /// `None`: given back already.
    held: Option<Reservation>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held.take().is_some() {
            self.queue.fill(&mut self.queue.waiting());
        }
    }
}

impl WriteQueue {
    /// `running`: the places.
    pub(super) fn new(running: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            running,
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, FairQueue<oneshot::Sender<Place>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>, caller: Option<&Arc<Caller>>) -> Option<Place> {
        let (sender, place) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            waiting.push(caller, sender);
            self.fill(&mut waiting);
        }
        // Always there: the queue uses each sender.
        place.await.ok()
    }

    /// Gives the free places to those whose turn it is.
    fn fill(self: &Arc<Self>, waiting: &mut FairQueue<oneshot::Sender<Place>>) {
        while !self.running.is_full(None) {
            let is_admitted =
                |caller: Option<&Arc<Caller>>| !self.running.is_full(caller.map(AsRef::as_ref));
            let Some((caller, next)) = waiting.pop_if(is_admitted) else {
                return;
            };
            let place = Place {
                queue: Arc::clone(self),
                held: Some(self.running.force(caller.as_ref(), 1)),
            };
            // A write that was given up meanwhile. Its place must not ask for the lock.
            if let Err(mut unused) = next.send(place) {
                unused.held = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::budget::{Budgets, CallerKey, Count};

    #[test]
    fn a_place_goes_to_the_caller_whose_turn_it_is() {
        let budgets = Budgets::unlimited(256);
        let running = budgets.count(Count::RunningWrites);
        let queue = WriteQueue::new(Arc::clone(running));
        let greedy = budgets.callers().of(CallerKey::principal("greedy"));
        let modest = budgets.callers().of(CallerKey::principal("modest"));
        let enter = |caller| Box::pin(queue.enter(Some(caller)));
        let mut entering: Vec<_> = (0..200).map(|_| enter(&greedy)).collect();
        let mut places = Vec::new();
        entering.retain_mut(|one| match one.now_or_never() {
            Some(place) => {
                places.push(place.expect("a place"));
                false
            }
            None => true,
        });
        // Three quarters: the others wait, and do not delay another caller.
        assert_eq!((places.len(), running.used()), (48, 48));
        let first = enter(&modest).now_or_never();
        assert!(first.expect("at once").is_some());
        // Given up while it waits.
        drop(entering.remove(0));
        places.truncate(10);
        let now: Vec<_> = entering
            .iter_mut()
            .filter_map(|one| one.now_or_never())
            .collect();
        assert_eq!((now.len(), running.used()), (38, 48));
        drop((now, places, entering));
        assert_eq!(running.used(), 0);
    }
}
