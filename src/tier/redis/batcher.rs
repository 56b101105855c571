//! Batches of one node: reads of one key that wait at the same time share a
//! command, and entries to be written share a pipeline.
//!
//! A read adds no delay: a batch is sent as soon as the previous one was
//! answered. Each node has its own batches, so a node that hangs delays no key
//! of another node.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::node::Node;
use crate::budget::Reservation;

/// Keys of one read batch. One more key costs a fraction of one more command.
const GET_BATCH: usize = 128;
/// Reads that may wait for a node: far more than it answers within the time that
/// a read waits. A read beyond is a miss. [`Part::RedisReads`] bounds their bytes.
///
/// [`Part::RedisReads`]: crate::budget::Part::RedisReads
pub(super) const MAX_WAITING_GETS: usize = 8192;
/// Entries of one write batch, and the bytes at which no further one is added:
/// a slow network has to carry them within the timeout of a batch.
const PUT_BATCH: usize = 256;
const PUT_BATCH_BYTES: usize = 4 << 20;
/// Entries that may wait to be written to a node. An entry beyond is dropped.
/// [`Part::RedisQueue`] bounds their bytes.
///
/// [`Part::RedisQueue`]: crate::budget::Part::RedisQueue
pub(super) const MAX_WAITING_PUTS: usize = 8192;
/// Pause between write batches, in which entries gather. The only ones that wait
/// for an entry are replicas that found its lease taken; they wait milliseconds.
const PUT_PAUSE: Duration = Duration::from_millis(2);

/// A read of one key that waits for its batch.
pub(super) struct PendingGet {
    pub(super) key: String,
    pub(super) found: oneshot::Sender<Option<Bytes>>,
    pub(super) _bytes: Reservation,
}

/// An entry that waits to be written.
pub(super) struct PendingPut {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) lifetime: Duration,
    pub(super) _bytes: Reservation,
}

/// Sends the reads that wait for a node, one batch at a time, until the senders
/// are gone.
pub(super) async fn run_gets(node: Arc<Node>, mut waiting: mpsc::Receiver<PendingGet>) {
    let mut batch = Vec::with_capacity(GET_BATCH);
    while waiting.recv_many(&mut batch, GET_BATCH).await > 0 {
        // Nobody waits any more for those whose caller has left.
        batch.retain(|get| !get.found.is_closed());
        let keys = batch
            .iter_mut()
            .map(|get| std::mem::take(&mut get.key))
            .collect();
        let found = node.get(keys).await;
        for (get, value) in batch.drain(..).zip(found.into_iter().flatten()) {
            // The caller may have left meanwhile.
            let _ = get.found.send(value);
        }
    }
}

/// Writes the entries that wait for a node, one batch at a time, until the
/// senders are gone.
pub(super) async fn run_puts(node: Arc<Node>, mut waiting: mpsc::Receiver<PendingPut>) {
    while let Some(first) = waiting.recv().await {
        let mut bytes = first.value.len();
        let mut batch = Vec::with_capacity(16);
        batch.push(first);
        while batch.len() < PUT_BATCH && bytes < PUT_BATCH_BYTES {
            let Ok(put) = waiting.try_recv() else { break };
            bytes += put.value.len();
            batch.push(put);
        }
        node.put(batch).await;
        sleep(PUT_PAUSE).await;
    }
}
