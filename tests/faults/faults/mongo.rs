//! What others do to the database, and errors that the servers are made to report.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use mongodb::{
    Client as Plain, IndexModel,
    bson::{Bson, Document, doc},
};
use tokio::time::sleep;

use super::{Chaos, RECOVERY};
use crate::{
    support::eventually,
    world::{DATABASE, mark},
};

/// Time of each error, at least.
const EACH: Duration = Duration::from_secs(1);
/// How often a command meets the error.
const SHARE: f64 = 0.3;
/// What the flood writes: documents of one command, their bytes, and writers.
const FLOOD: usize = 1000;
const FLOOD_BYTES: usize = 200;
const FLOODERS: i32 = 2;
/// How often the indexes are dropped and made again.
const REBUILDS: u32 = 2;

/// Commands of a kind, and errors that they meet.
pub(super) struct Injected {
    commands: &'static [&'static str],
    errors: Vec<Document>,
}

fn codes<const N: usize>(codes: [i32; N]) -> Vec<Document> {
    codes.map(|code| doc! { "errorCode": code }).into()
}

impl Injected {
    /// An event too large, history lost, a stream that cannot go on, a cursor that is
    /// gone, a server that shuts down or is no primary, an internal error.
    pub(super) fn in_feed() -> Self {
        Self {
            commands: &["getMore"],
            errors: codes([10334, 286, 280, 43, 11600, 10107, 1]),
        }
    }

    /// Interrupted, a snapshot that is gone or not there yet, out of time, an internal
    /// error, a connection that closes, and an answer that is late.
    pub(super) fn in_reads() -> Self {
        let mut errors = codes([11600, 239, 246, 50, 1]);
        errors.push(doc! { "closeConnection": true });
        errors.push(doc! { "blockConnection": true, "blockTimeMS": 1500 });
        Self {
            commands: &["find", "aggregate"],
            errors,
        }
    }

    /// Conflict, out of cache, interrupted, no primary, no right, a connection that
    /// closes, a write that is done late, and one that the majority does not confirm.
    pub(super) fn in_writes() -> Self {
        let mut errors = codes([112, 365, 11600, 10107, 13]);
        errors.push(doc! { "closeConnection": true });
        errors.push(doc! { "blockConnection": true, "blockTimeMS": 1500 });
        let unconfirmed = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
        errors.push(doc! { "writeConcernError": unconfirmed });
        Self {
            commands: &[
                "insert",
                "update",
                "findAndModify",
                "delete",
                "commitTransaction",
            ],
            errors,
        }
    }
}

/// Sets what commands of an application meet at a server; how often commands met
/// anything so far. A server that was killed right before may still be starting.
async fn fail(node: &Plain, mode: impl Into<Bson>, data: Document) -> i64 {
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
    let set = eventually("a fail point", RECOVERY, async || {
        let set = node.database("admin").run_command(command.clone()).await;
        set.ok()
    });
    let reply = set.await;
    let count = reply.get("count");
    count
        .and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from)))
        .unwrap_or(0)
}

impl Chaos {
    /// Some commands of one replica meet one error after the other.
    pub(super) async fn errors_injected(&self, target: usize, injected: Injected) {
        let mut nodes = Vec::new();
        for index in 0..self.world.mongo.nodes.len() {
            nodes.push(self.world.node(index).await);
        }
        let count = u32::try_from(injected.errors.len()).expect("few");
        let each = EACH.max(self.hold / count);
        let mut met = 0;
        for error in injected.errors {
            let mut data = error;
            data.insert("failCommands", injected.commands.to_vec());
            data.insert("appName", mark(target));
            for node in &nodes {
                fail(node, doc! { "activationProbability": SHARE }, data.clone()).await;
            }
            sleep(each).await;
            met = 0;
            for node in &nodes {
                met += fail(node, "off", doc! {}).await;
            }
        }
        println!("  errors met by commands so far: {met}");
        self.must(met > 0, || "no command met an error".into());
    }

    /// Somebody fills another database of the replica set.
    pub(super) async fn flood(&self) {
        let other = self.world.plain.database("other");
        let until = Instant::now() + self.hold;
        let text = "x".repeat(FLOOD_BYTES);
        let flooders = (0..FLOODERS).map(|by| {
            let (flood, text) = (other.collection::<Document>("flood"), text.clone());
            async move {
                let mut written = 0;
                while Instant::now() < until {
                    let documents = (0..FLOOD).map(|_| doc! { "by": by, "text": &text });
                    let done = flood.insert_many(documents).await;
                    written += done.map_or(0, |done| done.inserted_ids.len());
                }
                written
            }
        });
        let written: usize = futures::future::join_all(flooders).await.iter().sum();
        println!("  {written} documents of another database");
        self.must(written > 0, || "the flood wrote nothing".into());
        let _ = other.drop().await;
    }

    /// An operator drops all indexes and makes them again.
    pub(super) async fn indexes_rebuilt(&self) {
        let todos = self
            .world
            .plain
            .database(DATABASE)
            .collection::<Document>("todos");
        let list = async || {
            let listed = todos.list_indexes().await.ok()?;
            listed.try_collect::<Vec<_>>().await.ok()
        };
        let indexes = eventually("the indexes", RECOVERY, list).await;
        let own = |index: &IndexModel| !index.keys.contains_key("_id") || index.keys.len() > 1;
        let indexes: Vec<_> = indexes.into_iter().filter(own).collect();
        self.must(!indexes.is_empty(), || "there was no index".into());
        let pause = self.hold / (2 * REBUILDS);
        for _ in 0..REBUILDS {
            let drop = async || todos.drop_indexes().await.ok();
            eventually("the drop of the indexes", RECOVERY, drop).await;
            sleep(pause).await;
            let make = async || todos.create_indexes(indexes.clone()).await.ok();
            eventually("the new indexes", RECOVERY, make).await;
            sleep(pause).await;
        }
    }
}
