//! The newest events in memory, and how far they are published: what every
//! feed reads as long as it keeps up.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::wall_ms;
use crate::{model::OriginTime, origin::FeedItem};

/// Most events in memory, some 10 MB; a feed further behind reads the file.
const MAX_ITEMS: usize = 65_536;
/// Most samples of the wall clock: an hour of them, a second apart.
const MAX_WALL_CLOCK_SAMPLES: usize = 3_600;

pub(super) struct Tail {
    state: Mutex<State>,
    published: watch::Sender<u64>,
}

struct State {
    items: VecDeque<FeedItem>,
    /// Every event after this is in `items`.
    start: u64,
    /// Every change after this is in the file.
    history_start: u64,
    wall_clock_samples: VecDeque<(u64, i64)>,
}

impl Tail {
    pub(super) fn new(clock: u64, history_start: u64, wall_clock_samples: Vec<(u64, i64)>) -> Self {
        let state = State {
            items: VecDeque::new(),
            start: clock,
            history_start,
            wall_clock_samples: wall_clock_samples.into(),
        };
        Self {
            state: Mutex::new(state),
            published: watch::Sender::new(clock),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest number that was given out: all up to it is committed.
    pub(super) fn published(&self) -> u64 {
        *self.published.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(super) fn history_start(&self) -> u64 {
        self.state().history_start
    }

    /// Makes committed events visible, in the order of their times.
    pub(super) fn publish(&self, items: Vec<FeedItem>, history_start: u64) {
        let Some(newest) = items.last().map(|item| item.time.0) else {
            return;
        };
        let mut state = self.state();
        state.history_start = history_start;
        state.items.extend(items);
        while state.items.len() > MAX_ITEMS {
            let Some(oldest) = state.items.pop_front() else {
                break;
            };
            state.start = oldest.time.0;
        }
        let now = wall_ms();
        if state
            .wall_clock_samples
            .back()
            .is_none_or(|(_, last)| now >= last + 1000)
        {
            state.wall_clock_samples.push_back((newest, now));
            if state.wall_clock_samples.len() > MAX_WALL_CLOCK_SAMPLES {
                state.wall_clock_samples.pop_front();
            }
        }
        drop(state);
        self.published.send_replace(newest);
    }

    /// The events after `cursor`, at most `most`; `None` if some of them are
    /// only in the file.
    pub(super) fn after(&self, cursor: u64, most: usize) -> Option<Vec<FeedItem>> {
        let state = self.state();
        let at = state.items.partition_point(|item| item.time.0 <= cursor);
        (cursor >= state.start).then(|| state.items.range(at..).take(most).cloned().collect())
    }

    /// The newest number that is at least `window` older than `time`, by the
    /// recorded wall clock; where that is forgotten, the history's start.
    /// A time that was not given out yet comes back as it is.
    pub(super) fn before(&self, time: OriginTime, window: Duration) -> OriginTime {
        if time.0 > self.published() {
            return time;
        }
        let state = self.state();
        let wall = |at: usize| state.wall_clock_samples.get(at).copied();
        let upto = state
            .wall_clock_samples
            .partition_point(|(number, _)| *number <= time.0);
        let Some((_, then)) = upto.checked_sub(1).and_then(wall) else {
            return OriginTime(state.history_start);
        };
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let older = state
            .wall_clock_samples
            .partition_point(|(_, wall)| *wall <= then.saturating_sub(window));
        let number = older
            .checked_sub(1)
            .and_then(wall)
            .map_or(state.history_start, |(number, _)| number);
        OriginTime(number.max(state.history_start))
    }
}
