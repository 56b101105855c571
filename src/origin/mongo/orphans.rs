//! Transactions that a replica left open when it was killed or frozen.
//!
//! A write with a request id is a transaction of a few statements. If its replica dies
//! between two of them, the server keeps the transaction open, by default for 60 s
//! (`transactionLifetimeLimitSeconds`), and every other write to the same todo waits
//! meanwhile. So each replica looks for such transactions now and then, at once when a
//! write of its own is not answered, and ends them. A transaction whose replica lives
//! after all is aborted: nothing was written, and the replica tries it again.
//!
//! A look costs the server some 2 ms. It needs no privilege: everybody may list and end
//! the sessions of the own user.

use std::{sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use mongodb::{Client, error::Error};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::codes;

/// What the service adds to the driver's name in its connections: it tells its own
/// transactions from those of others with the same user.
pub(super) const DRIVER_NAME: &str = "tidemark";
/// Age of a transaction that waits for its next statement. That of a replica that lives
/// takes some milliseconds in all, on a busy machine some hundred.
const ORPHANED_AFTER: Duration = Duration::from_secs(2);
/// Time between two looks that no write has asked for: it bounds how long an edit
/// directly in the database waits.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two looks, however many writes are not answered.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Time for a look; a server that froze does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Transactions ended by one look: each replica has at most 64 at once.
const MAX_ENDED: i32 = 256;

/// The task that ends them.
pub(super) struct Orphans {
    asked: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Orphans {
    /// Looks for them with this client until dropped.
    pub(super) fn start(client: Client) -> Self {
        let asked = Arc::new(Notify::new());
        let task = tokio::spawn(look_again_and_again(client, Arc::clone(&asked)));
        Self {
            asked,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Looks soon: a write is not answered.
    pub(super) fn look_soon(&self) {
        self.asked.notify_one();
    }
}

async fn look_again_and_again(client: Client, asked: Arc<Notify>) {
    loop {
        let _ = timeout(LOOK_INTERVAL, asked.notified()).await;
        match timeout(LOOK_TIMEOUT, end_orphans(&client)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(ended)) => tracing::warn!(
                ended,
                "ended transactions that a replica left open: it was killed, or it froze"
            ),
            Ok(Err(error)) if codes::is_refused_for_good(&error) => {
                let error = codes::text(&error);
                tracing::info!(
                    error,
                    "MongoDB does not list this user's transactions: one that a killed replica left open \
                     keeps writes to its todo waiting until transactionLifetimeLimitSeconds are over"
                );
                return;
            }
            // No primary: its transactions ended with it.
            Ok(Err(error)) => tracing::debug!(%error, "looked for open transactions in vain"),
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Ends the open transactions of replicas that send no statement; how many.
async fn end_orphans(client: &Client) -> Result<usize, Error> {
    let age = i64::try_from(ORPHANED_AFTER.as_micros()).unwrap_or(i64::MAX);
    let pipeline = [
        doc! { "$currentOp": { "allUsers": false, "idleSessions": true } },
        doc! { "$match": {
            "type": "idleSession",
            "transaction.timeOpenMicros": { "$gt": age },
            "clientMetadata.driver.name": { "$regex": format!("\\|{DRIVER_NAME}$") },
        } },
        doc! { "$limit": MAX_ENDED },
    ];
    let admin = client.database("admin");
    let found: Vec<Document> = admin.aggregate(pipeline).await?.try_collect().await?;
    let sessions: Vec<_> = found.iter().filter_map(session).collect();
    let ended = sessions.len();
    if ended > 0 {
        admin.run_command(doc! { "killSessions": sessions }).await?;
    }
    Ok(ended)
}

/// The id of its session, without the user: `killSessions` takes the own one.
fn session(open: &Document) -> Option<Document> {
    let id = open.get_document("lsid").ok()?.get("id")?;
    matches!(id, Bson::Binary(_)).then(|| doc! { "id": id.clone() })
}
