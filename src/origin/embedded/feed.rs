//! One feed of the embedded store: from the file while it is behind, then from
//! memory.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    disk::Store,
    store::{HISTORY, decode_entry},
    tail::Tail,
};
use crate::{
    model::OriginTime,
    origin::{Feed, FeedError, FeedEvent, FeedItem, FeedPosition},
};

/// Most events of one batch.
const BATCH: usize = 1000;

pub(super) struct EmbeddedFeed {
    store: Arc<Store>,
    tail: Arc<Tail>,
    published: watch::Receiver<u64>,
    cursor: u64,
}

impl EmbeddedFeed {
    pub(super) fn open(
        store: Arc<Store>,
        tail: Arc<Tail>,
        after: OriginTime,
    ) -> Result<Self, FeedError> {
        let published = tail.subscribe();
        let feed = Self {
            store,
            tail,
            published,
            cursor: after.0,
        };
        feed.check_history()?;
        Ok(feed)
    }

    fn check_history(&self) -> Result<(), FeedError> {
        let start = self.tail.history_start();
        if self.cursor < start {
            let problem = format!("it begins after {start}, and {} was asked for", self.cursor);
            return Err(FeedError::history_lost(problem));
        }
        Ok(())
    }

    fn read_history(&self, published: u64) -> Result<Vec<FeedItem>, redb::Error> {
        let txn = self.store.begin_read()?;
        let history = txn.open_table(HISTORY)?;
        let mut items = Vec::new();
        for entry in history.range(self.cursor + 1..=published)?.take(BATCH) {
            let (number, raw) = entry?;
            let time = OriginTime(number.value());
            let event = decode_entry(time, raw.value())
                .ok_or_else(|| redb::Error::Corrupted("a change cannot be read".into()))?;
            items.push(FeedItem {
                time,
                alone: true,
                event,
            });
        }
        Ok(items)
    }

    /// Changes from the file. Heartbeats are not in it; `Nothing` marks how
    /// far it was read.
    fn read_file(&self, published: u64) -> Result<Vec<FeedItem>, FeedError> {
        let mut items = self.read_history(published).map_err(FeedError::broken)?;
        // What was pruned while it was read is missing from it.
        self.check_history()?;
        if items.len() < BATCH && items.last().is_none_or(|item| item.time.0 < published) {
            items.push(FeedItem {
                time: OriginTime(published),
                alone: true,
                event: FeedEvent::Nothing,
            });
        }
        Ok(items)
    }
}

#[async_trait]
impl Feed for EmbeddedFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, FeedError> {
        let cursor = self.cursor;
        let published = self
            .published
            .wait_for(|published| *published > cursor)
            .await;
        let published = *published.map_err(|_| FeedError::broken("the store is closed"))?;
        let items = match self.tail.after(cursor, BATCH) {
            Some(items) => items,
            None => self.read_file(published)?,
        };
        if let Some(last) = items.last() {
            self.cursor = last.time.0;
        }
        Ok(items)
    }

    fn position(&self) -> Option<FeedPosition> {
        Some(FeedPosition(Arc::new(OriginTime(self.cursor))))
    }
}
