//! Large translations: a few at a time, round-robin by caller, and on threads of
//! their own.
//!
//! A page of a thousand todos takes 8 ms to translate, a hundred times as long as a read.
//! On the workers of the runtime, every other call would wait for those before it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::oneshot, task::spawn_blocking};
use tonic::Status;

use crate::{
    budget::FairQueue,
    grpc::{status, transport::Call},
};

/// Translations at once.
pub struct Lane {
    places: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    waiting: FairQueue<oneshot::Sender<Place>>,
}

/// A place, free again when it is dropped.
struct Place(Option<Arc<Lane>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.pass_on();
        }
    }
}

impl Lane {
    /// Half as many as there are cores, at least one: the others are for all other calls.
    pub fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            places: (cores / 2).max(1),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work when it is the caller's turn. It ends by itself if the caller goes
    /// away meanwhile.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        call: Option<Arc<Call>>,
        work: impl FnOnce(Option<&Call>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let place = self.enter(call.as_ref()).await;
        let work = spawn_blocking(move || {
            let _place = place;
            work(call.as_deref())
        });
        // A panic is logged by its hook.
        work.await.unwrap_or_else(|_| Err(status::internal()))
    }

    async fn enter(self: &Arc<Self>, call: Option<&Arc<Call>>) -> Place {
        let turn = {
            let mut state = self.state();
            if state.taken < self.places {
                state.taken += 1;
                return Place(Some(Arc::clone(self)));
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push(call.map(|call| call.caller()), sender);
            turn
        };
        // It always comes: whoever has a place passes it on.
        turn.await.unwrap_or(Place(None))
    }

    /// Gives a place to the next one, or back.
    fn pass_on(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                let next = state.waiting.pop();
                if next.is_none() {
                    state.taken -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Place(Some(Arc::clone(&self)))) {
                Ok(()) => return,
                // It has gone: the place is still ours.
                Err(mut place) => place.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn places_are_passed_on_past_those_that_have_gone() {
        let lane = Lane::new();
        let held: Vec<_> = (0..lane.places)
            .map(|_| lane.enter(None).now_or_never().expect("a place"))
            .collect();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(lane.enter(None))).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        // One goes before its turn, one with a place that it never saw.
        drop(waiting.remove(0));
        drop(held);
        drop(waiting.remove(0));
        let last = waiting.remove(0).now_or_never().expect("a place");
        drop(last);
        assert_eq!(lane.state().taken, 0);
        let done = lane.run(None, |_| Ok(7)).await;
        assert_eq!(done.expect("done"), 7);
        assert_eq!(lane.state().taken, 0);
    }
}
