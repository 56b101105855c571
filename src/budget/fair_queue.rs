//! Waiting work, round-robin by caller: a caller with much waiting delays its own
//! work, not that of others.
//!
//! A turn is one piece of work, regardless of its cost. Cost: two map operations a piece.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Caller;

/// A queue with a line for each caller, and one for work of no caller.
#[derive(Debug)]
pub struct FairQueue<T> {
    lines: HashMap<usize, Line<T>>,
    /// The lines that have something, the one whose turn it is first.
    turns: VecDeque<usize>,
    len: usize,
}

#[derive(Debug)]
struct Line<T> {
    /// Held, so that no other caller gets its address in memory.
    caller: Option<Arc<Caller>>,
    waiting: VecDeque<T>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Appends to the caller's line.
    pub fn push(&mut self, caller: Option<&Arc<Caller>>, item: T) {
        let id = caller.map_or(0, |caller| Arc::as_ptr(caller).addr());
        let line = self.lines.entry(id).or_insert_with(|| {
            self.turns.push_back(id);
            Line {
                caller: caller.cloned(),
                waiting: VecDeque::new(),
            }
        });
        line.waiting.push_back(item);
        self.len += 1;
    }

    /// Takes the next piece of work.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true).map(|(_, item)| item)
    }

    /// Takes the next piece of work of a caller that is admitted now. The others keep
    /// their turn.
    pub fn pop_if(
        &mut self,
        mut is_admitted: impl FnMut(Option<&Arc<Caller>>) -> bool,
    ) -> Option<(Option<Arc<Caller>>, T)> {
        let at = self.turns.iter().position(|id| {
            let line = self.lines.get(id);
            line.is_some_and(|line| is_admitted(line.caller.as_ref()))
        })?;
        let id = self.turns.remove(at)?;
        let line = self.lines.get_mut(&id)?;
        let item = line.waiting.pop_front()?;
        let caller = line.caller.clone();
        if line.waiting.is_empty() {
            self.lines.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        self.len -= 1;
        Some((caller, item))
    }

    /// How many pieces wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budgets, CallerKey};

    #[test]
    fn callers_take_turns() {
        let budgets = Budgets::unlimited(256);
        let greedy = budgets.callers().of(CallerKey::principal("greedy"));
        let modest = budgets.callers().of(CallerKey::principal("modest"));
        let mut queue = FairQueue::default();
        (0..5).for_each(|n| queue.push(Some(&greedy), n));
        queue.push(Some(&modest), 10);
        queue.push(Some(&modest), 11);
        queue.push(None, 20);
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(taken, [0, 10, 20, 1, 11, 2, 3, 4]);
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_caller_that_is_not_admitted_keeps_its_turn() {
        let budgets = Budgets::unlimited(256);
        let greedy = budgets.callers().of(CallerKey::principal("greedy"));
        let modest = budgets.callers().of(CallerKey::principal("modest"));
        let mut queue = FairQueue::default();
        queue.push(Some(&greedy), 1);
        queue.push(Some(&modest), 2);
        queue.push(Some(&modest), 3);
        let others =
            |caller: Option<&Arc<Caller>>| !caller.is_some_and(|one| Arc::ptr_eq(one, &greedy));
        let pop = |queue: &mut FairQueue<i32>| queue.pop_if(others).map(|(_, item)| item);
        assert_eq!(pop(&mut queue), Some(2));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(pop(&mut queue), Some(3));
        assert_eq!(pop(&mut queue), None);
    }
}
