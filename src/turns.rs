//! Turns of work that many tasks have at the same moment: calls of one caller, watchers
//! that have something to send, reads of many todos.
//!
//! The runtime runs tasks in the order in which they became ready. If one caller makes a
//! thousand of them ready, every other call waits behind them several times: for its
//! request, its handler and its reply. So such work waits for a turn before it begins,
//! and only a few have one before the runtime looks at its connections again. Turns go
//! round the callers. Nobody else waiting, one caller has all of them.
//!
//! Cost: a lock for each turn, and a channel for one that has to wait. What is rare or
//! small needs none: see the users.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use crate::budget::{Caller, FairQueue};

/// Completes when the turn comes, with an error if nobody gives turns any more.
pub(crate) type Turn = oneshot::Receiver<()>;

/// Who has a turn, and who waits for one.
pub(crate) struct Turns {
    /// Work of one round of the runtime, in turns or in another unit of the user's:
    /// enough for all workers.
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
    /// With the weight of each.
    waiting: FairQueue<(usize, oneshot::Sender<()>)>,
}

impl Turns {
    /// So much work a round.
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

    /// Waits for a turn, in turns of the callers. It ends by itself with the round, so
    /// work that does not go on keeps nobody waiting.
    pub(crate) async fn next(&self, caller: Option<&Arc<Caller>>) {
        if let Some(turn) = self.ask(caller, 1) {
            // Either way, the work goes on.
            let _ = turn.await;
        }
    }

    /// `None`: it is the caller's turn now. Else the turn comes when this completes.
    /// `weight`: how much of the round it takes, at most a quarter.
    pub(crate) fn ask(&self, caller: Option<&Arc<Caller>>, weight: usize) -> Option<Turn> {
        // With one turn a round the runtime would do little but look at its connections.
        let weight = weight.min(self.at_once.div_ceil(4));
        let mut state = self.state();
        if !state.giving {
            return None;
        }
        if state.given < self.at_once {
            if state.given == 0 {
                self.given.notify_one();
            }
            state.given += weight;
            return None;
        }
        let (sender, turn) = oneshot::channel();
        state.waiting.push(caller, (weight, sender));
        Some(turn)
    }

    /// Begins the rounds. Never returns. When it is dropped, all that waits goes on, and
    /// nothing waits any more: a turn spreads work, but no work may end for want of one.
    pub(crate) async fn give(&self) -> Infallible {
        let _giving = Giving::begin(self);
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
            && let Some((weight, next)) = state.waiting.pop()
        {
            // What was dropped meanwhile needs no turn.
            if next.send(()).is_ok() {
                state.given += weight;
            }
        }
        state.given > 0
    }
}

/// As long as this lives, work waits for turns.
struct Giving<'a>(&'a Turns);

impl<'a> Giving<'a> {
    fn begin(turns: &'a Turns) -> Self {
        turns.state().giving = true;
        Self(turns)
    }
}

impl Drop for Giving<'_> {
    fn drop(&mut self) {
        // A turn whose sender is dropped has come. They are dropped without the lock.
        let _waiting = std::mem::take(&mut *self.0.state());
    }
}

pin_project_lite::pin_project! {
    /// Work that waits for a turn whenever it goes on. Not for work that is handed memory
    /// when it is woken, such as a load: what is not taken would pile up.
    pub(crate) struct InTurns<A, F> {
        // Asks for a turn.
        ask: A,
        #[pin]
        work: F,
        // The turn that it waits for.
        turn: Option<Turn>,
    }
}

impl<A, F> InTurns<A, F> {
    /// `ask`: asks for a turn; `None`: the work goes on now.
    pub(crate) const fn new(ask: A, work: F) -> Self {
        Self {
            ask,
            work,
            turn: None,
        }
    }
}

impl<A: Fn() -> Option<Turn>, F: Future> Future for InTurns<A, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.turn.is_none() {
            *this.turn = (this.ask)();
        }
        if let Some(turn) = this.turn {
            // Either way, the work goes on.
            let _ = ready!(Pin::new(turn).poll(cx));
            *this.turn = None;
        }
        this.work.poll(cx)
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

    #[test]
    fn heavy_work_takes_more_of_a_round() {
        let turns = Turns::new(AT_ONCE);
        turns.state().giving = true;
        for _ in 0..4 {
            assert!(turns.ask(None, 100 * AT_ONCE).is_none());
        }
        let mut waiting: Vec<_> = (0..5).map(|_| turns.ask(None, AT_ONCE)).collect();
        let mut has_turn = |at: usize| {
            let turn = waiting[at].as_mut().expect("it waits");
            turn.try_recv().is_ok()
        };
        assert!(turns.begin_round());
        assert!((0..4).all(&mut has_turn) && !has_turn(4));
        assert!(turns.begin_round() && has_turn(4));
        assert!(!turns.begin_round());
    }

    /// Work that is woken again and again takes a turn each time.
    #[test]
    fn work_waits_for_a_turn_whenever_it_goes_on() {
        let turns = Turns::new(1);
        turns.state().giving = true;
        let mut steps = 0;
        let work = std::future::poll_fn(|_| {
            steps += 1;
            if steps == 2 {
                Poll::Ready(steps)
            } else {
                Poll::Pending
            }
        });
        let mut work = Box::pin(InTurns::new(|| turns.ask(None, 1), work));
        // The first step has the turn of this round; the second one waits.
        assert!((&mut work).now_or_never().is_none() && (&mut work).now_or_never().is_none());
        assert!(turns.begin_round());
        assert_eq!((&mut work).now_or_never(), Some(2));
    }

    #[tokio::test]
    async fn without_anybody_who_gives_turns_all_goes_on() {
        let turns = Arc::new(Turns::new(1));
        let giving = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.give().await }
        });
        tokio::task::yield_now().await;
        let mut waiting: Vec<_> = (0..10).map(|_| turns.ask(None, 1)).collect();
        assert!(waiting.iter().flatten().count() >= 9);
        giving.abort();
        assert!(giving.await.is_err_and(|end| end.is_cancelled()));
        for turn in waiting.drain(..).flatten() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), turn)
                .await
                .expect("it goes on");
        }
        assert!(turns.ask(None, 1).is_none() && turns.ask(None, 1).is_none());
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
