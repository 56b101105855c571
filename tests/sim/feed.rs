//! One feed of the simulated origin: the history's events in batches of any
//! size, late, broken and hanging, and never wrong, unless a bug is planted.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidemark::{
    model::Touched,
    origin::{Feed, FeedError, FeedEvent, FeedItem, FeedPosition, FeedStart},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    history::{Event, What},
    origin::Link,
    world::Bug,
};

/// How late a lagging feed is.
const LAG: Duration = Duration::from_millis(700);

pub struct SimFeed {
    link: Arc<Link>,
    number: u64,
    /// The next event, by its place in the history.
    next: usize,
    /// After the last event that was given.
    position: Option<usize>,
    /// The next batch is on its way until then: a batch may end within a
    /// transaction, and others look in between.
    arrives: Instant,
}

impl SimFeed {
    pub fn open(link: &Arc<Link>, from: FeedStart) -> Result<Self, FeedError> {
        let world = &link.world;
        let number = {
            let mut active_faults = world.active_faults();
            active_faults.feeds += 1;
            active_faults.feeds
        };
        let history = world.history();
        let next = match from {
            FeedStart::After(time) => history.events.partition_point(|event| event.time <= time),
            FeedStart::Resume(position) => *position
                .0
                .downcast_ref::<usize>()
                .expect("a position of ours"),
        };
        let next = match history.events.get(next.wrapping_sub(1)) {
            Some(last) if world.has(Bug::FeedResumesByTime) => history
                .events
                .partition_point(|event| event.time <= last.time),
            _ => next,
        };
        if next < history.forgotten {
            return Err(FeedError::history_lost("the log begins later"));
        }
        Ok(Self {
            link: Arc::clone(link),
            number,
            next,
            position: None,
            arrives: Instant::now(),
        })
    }

    fn is_broken(&self) -> bool {
        self.link.world.active_faults().links[self.link.replica].broken_upto >= self.number
    }

    fn hangs(&self) -> bool {
        let active_faults = self.link.world.active_faults();
        self.link.dead.is_cancelled()
            || active_faults.stalls(self.link.replica)
            || active_faults.links[self.link.replica].hung_upto >= self.number
    }

    /// The events that have arrived, and how far they reach; or when the next
    /// one will.
    fn arrived(&mut self) -> Result<Vec<FeedItem>, Option<Instant>> {
        let world = Arc::clone(&self.link.world);
        let lagging = world.active_faults().links[self.link.replica].lagging > 0;
        let lag = if lagging { LAG } else { Duration::ZERO };
        let now = Instant::now();
        let most = world.rng().pick(&[1, 2, 5, 100]);
        let (mut items, mut next) = (Vec::new(), self.next);
        let history = world.history();
        let mut due = None;
        for event in &history.events[self.next..] {
            if event.at + lag > now {
                due = Some(event.at + lag);
                break;
            }
            if items.len() == most {
                break;
            }
            next += 1;
            items.extend(self.item(event));
        }
        drop(history);
        self.next = next;
        if items.is_empty() {
            Err(due)
        } else {
            Ok(items)
        }
    }

    fn item(&self, event: &Event) -> Option<FeedItem> {
        let world = &self.link.world;
        let item = |event: FeedEvent, alone, time| Some(FeedItem { time, alone, event });
        let alone =
            event.alone && world.config.alone_is_known || world.has(Bug::FeedCutsTransactions);
        match &event.what {
            What::Change(_) if world.has(Bug::FeedSwallowsChange) && world.rng().chance(3) => None,
            What::Change(change) if world.has(Bug::FeedHidesTouched) => {
                let touched = Touched::Paths(vec!["title".into()]);
                item(
                    FeedEvent::Change(tidemark::model::Change {
                        touched,
                        ..change.clone()
                    }),
                    alone,
                    event.time,
                )
            }
            What::Change(change) => item(FeedEvent::Change(change.clone()), alone, event.time),
            What::List(_) if world.has(Bug::FeedSwallowsList) => None,
            What::List(name) => item(FeedEvent::List(name.clone()), alone, event.time),
            What::Heartbeat {
                incarnation,
                number,
            } if *incarnation == self.link.incarnation => {
                item(FeedEvent::Heartbeat { number: *number }, alone, event.time)
            }
            // Those of others are seen by some origins only.
            What::Heartbeat { .. } => world.config.seed.is_multiple_of(3).then_some(FeedItem {
                time: event.time,
                alone,
                event: FeedEvent::Nothing,
            }),
            What::Reset { .. } if world.has(Bug::FeedSwallowsReset) => None,
            What::Reset { reason } => item(
                FeedEvent::Reset {
                    reason: (*reason).into(),
                },
                alone,
                event.time,
            ),
        }
    }
}

#[async_trait]
impl Feed for SimFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, FeedError> {
        let link = Arc::clone(&self.link);
        loop {
            let changed = link.world.changed.notified();
            if self.hangs() {
                changed.await;
                continue;
            }
            if self.is_broken() || link.world.active_faults().refuses(link.replica) {
                return Err(FeedError::broken("the cursor was closed"));
            }
            if Instant::now() < self.arrives {
                sleep_until(self.arrives).await;
                continue;
            }
            match self.arrived() {
                Ok(items) => {
                    self.arrives = Instant::now()
                        + Duration::from_millis(link.world.rng().pick(&[0, 0, 1, 3, 20]));
                    self.position = Some(self.next);
                    if items
                        .iter()
                        .any(|item| matches!(item.event, FeedEvent::Reset { .. }))
                    {
                        link.learn_collection();
                    }
                    link.world.count("feed batches");
                    return Ok(items);
                }
                Err(Some(due)) => drop(timeout_at(due, changed).await),
                Err(None) => changed.await,
            }
        }
    }

    fn position(&self) -> Option<FeedPosition> {
        self.position
            .map(|position| FeedPosition(Arc::new(position)))
    }
}
