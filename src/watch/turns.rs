//! Turns of work that many callers may have at the same moment, such as watchers that
//! have something to send.
//!
//! A change of a list wakes all its watchers at once. If a thousand of them had work at
//! the same time, every other call would wait behind them several times: for its
//! request, its handler and its reply. So a watcher waits for its turn before it takes
//! the next changes from the ring, and only a few have it before the runtime looks at
//! its connections again. Cost: a lock for each turn, which has up to 32 changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use crate::{
    budget::{Caller, FairQueue},
    tracker::Fatal,
};

/// Who has a turn, and who waits for one.
pub(crate) struct Turns {
    /// Turns in one round of the runtime: enough for all workers, some milliseconds of
    /// work.
    at_once: usize,
    state: Mutex<State>,
    /// The first turn of a round was given.
    given: Notify,
}

#[derive(Default)]
struct State {
    /// Somebody gives turns.
    giving: bool,
    given: usize,
    waiting: FairQueue<oneshot::Sender<()>>,
}

impl Turns {
    /// So many turns a round.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            state: Mutex::default(),
            given: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, in turns of the callers. It ends by itself with the round, so a
    /// watcher whose client does not read keeps nobody waiting.
    pub(crate) async fn next(&self, caller: Option<&Arc<Caller>>) {
        let turn = {
            let mut state = self.state();
            if !state.giving {
                return;
            }
            if state.given < self.at_once {
                state.given += 1;
                if state.given == 1 {
                    self.given.notify_one();
                }
                return;
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push(caller, sender);
            turn
        };
        // Fails only if nothing gives turns any more.
        let _ = turn.await;
    }

    /// Begins the rounds. Never returns.
    pub(crate) async fn give(&self) -> Fatal {
        self.state().giving = true;
        loop {
            self.given.notified().await;
            loop {
                // Those that have a turn run, and the runtime looks at its connections.
                yield_now().await;
                if !self.begin_round() {
                    break;
                }
            }
        }
    }

    /// Gives the turns of the next round; `false`: nobody waits for one.
    fn begin_round(&self) -> bool {
        let mut state = self.state();
        state.given = 0;
        while state.given < self.at_once
            && let Some(next) = state.waiting.pop()
        {
            // A watcher that has gone needs no turn.
            state.given += usize::from(next.send(()).is_ok());
        }
        state.given > 0
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::budget::{Budgets, CallerKey};

    const AT_ONCE: usize = 8;

    #[test]
    fn a_round_has_a_few_turns_and_each_caller_gets_some() {
        let budgets = Budgets::unlimited(256);
        let greedy = budgets.callers().of(CallerKey::principal("greedy"));
        let modest = budgets.callers().of(CallerKey::principal("modest"));
        let turns = Turns::new(AT_ONCE);
        turns.state().giving = true;
        let mut waiting: Vec<_> = (0..100)
            .map(|_| Box::pin(turns.next(Some(&greedy))))
            .collect();
        waiting.retain_mut(|turn| turn.now_or_never().is_none());
        assert_eq!(waiting.len(), 100 - AT_ONCE);
        let mut other = Box::pin(turns.next(Some(&modest)));
        assert!((&mut other).now_or_never().is_none());
        // One that has gone takes no turn from the others.
        drop(waiting.remove(0));
        assert!(turns.begin_round());
        assert!((&mut other).now_or_never().is_some());
        waiting.retain_mut(|turn| turn.now_or_never().is_none());
        assert_eq!(waiting.len(), 100 - AT_ONCE - 1 - (AT_ONCE - 1));
        while turns.begin_round() {
            waiting.retain_mut(|turn| turn.now_or_never().is_none());
        }
        assert!(waiting.is_empty());
    }

    #[tokio::test]
    async fn turns_go_on_whoever_does_not_use_them() {
        let turns = Arc::new(Turns::new(AT_ONCE));
        let giving = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.give().await }
        });
        for _ in 0..10 * AT_ONCE {
            turns.next(None).await;
        }
        giving.abort();
    }
}
