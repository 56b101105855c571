//! The preflight of `tidemark check`: everything that a start and a running
//! service need of MongoDB, tried one by one. It changes nothing: writes are
//! tried in a transaction that is aborted, or match no document.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bson::{Document, doc};
use futures::StreamExt;
use mongodb::{
    Client, Database,
    error::Error,
    options::{CursorType, WriteConcern},
};
use uuid::Uuid;

use super::{
    HEARTBEATS, LISTS, REQUESTS, TODOS, codes, collections,
    connect::{Target, check_server, replica_set_id, wire_version},
    document, timestamp,
};
use crate::{
    model::{OriginTime, TodoName},
    origin::ConnectError,
    pb::Todo,
};

/// How long each step may take.
const SELECTION: Duration = Duration::from_secs(5);
const CONNECTIONS: u32 = 4;
/// How far the clocks may be apart before it is worth a word: times of todos
/// come from this machine, expiry from the server's.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// How long the feed is asked for the past.
const HISTORY_WAIT: Duration = Duration::from_secs(10);
/// The newest server that the tests ran on (6.0), and the newest that the
/// sources were read of (8.0), as wire versions.
const TESTED_WIRE_VERSION: i32 = 17;
const READ_WIRE_VERSION: i32 = 25;
const ROLE: &str = "create the role in docs/operations.md and grant it to the service's user";

/// How well it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The service works, and something is worth a look.
    Warning,
    /// The service does not work.
    Error,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked: `server`, `right to insert`, ...
    pub what: String,
    /// How well it stands.
    pub status: Status,
    /// What was found, in a few words.
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub what_to_do: String,
}

/// The findings so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        what: impl Into<String>,
        status: Status,
        detail: impl Into<String>,
        what_to_do: impl Into<String>,
    ) {
        self.0.push(Finding {
            what: what.into(),
            status,
            detail: detail.into(),
            what_to_do: what_to_do.into(),
        });
    }

    fn ok(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.add(what, Status::Ok, detail, "");
    }

    /// A right that was tried.
    fn right(&mut self, right: &str, tried: Result<(), Error>) {
        let what = format!("right to {right}");
        match tried {
            Ok(()) => self.ok(what, "granted"),
            Err(error) if codes::is_forbidden(&error) => {
                self.add(what, Status::Error, "refused by the server", ROLE);
            }
            Err(error) => self.add(
                what,
                Status::Warning,
                format!("could not be tried: {error}"),
                "",
            ),
        }
    }
}

/// Checks the MongoDB of this URI. `replay_window`: how far back the service
/// wants to read the feed at start. Takes some seconds; creates nothing.
pub async fn check(uri: &str, replay_window: Duration) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Err(error) = check_all(uri, replay_window, &mut findings).await {
        let (detail, what_to_do) = match &error {
            ConnectError::Permanent(_) => (error.to_string(), "see the text before"),
            ConnectError::Transient(_) => (
                error.to_string(),
                "start the servers, or correct the hosts in the URI and the rules of the network",
            ),
        };
        findings.add("connection", Status::Error, detail, what_to_do);
    }
    findings.0
}

async fn check_all(
    uri: &str,
    replay_window: Duration,
    findings: &mut Findings,
) -> Result<(), ConnectError> {
    let target = Target::parse(uri).await?;
    findings.ok("uri", format!("database {:?}", target.database));
    let client = target.client(SELECTION, CONNECTIONS, |_| {})?;
    let admin = client.database("admin");
    let hello = match admin.run_command(doc! { "hello": 1 }).await {
        Ok(hello) => hello,
        Err(error) => return Err(target.diagnose(error).await),
    };
    check_server(&hello)?;
    version(&admin, &hello, findings).await;
    members(&hello, findings);
    clock(&hello, findings);
    match replica_set_id(&admin, &hello).await {
        Ok(_) => findings.ok("right to replSetGetConfig", "granted"),
        Err(error) => findings.add(
            "right to replSetGetConfig",
            Status::Error,
            error.to_string(),
            ROLE,
        ),
    }
    let database = client.database(&target.database);
    kinds(&database, findings).await;
    indexes(&database, findings).await;
    reads(&database, findings).await;
    writes(&client, &database, findings).await;
    feed(&database, replay_window, findings).await;
    Ok(())
}

async fn version(admin: &Database, hello: &Document, findings: &mut Findings) {
    let info = admin.run_command(doc! { "buildInfo": 1 }).await;
    let info = info.unwrap_or_default();
    let version = info.get_str("version").unwrap_or("unknown");
    let wire = wire_version(hello);
    if wire <= TESTED_WIRE_VERSION {
        findings.ok("server version", version);
    } else if wire <= READ_WIRE_VERSION {
        findings.ok(
            "server version",
            format!("{version}, newer than the tested 6.0"),
        );
    } else {
        findings.add(
            "server version",
            Status::Warning,
            format!("{version} is newer than any that was looked at"),
            "try it in a staging environment first",
        );
    }
}

fn members(hello: &Document, findings: &mut Findings) {
    let count = |field| hello.get_array(field).map_or(0, Vec::len);
    let (hosts, arbiters) = (count("hosts"), count("arbiters"));
    let detail = format!(
        "replica set {:?}, {hosts} data-bearing members, {arbiters} arbiters",
        hello.get_str("setName").unwrap_or_default()
    );
    if hosts >= 3 || hosts == 1 {
        findings.ok("topology", detail);
    } else {
        findings.add(
            "topology",
            Status::Warning,
            detail,
            "use three data-bearing members: with fewer, one that is down stops every majority write",
        );
    }
}

fn clock(hello: &Document, findings: &mut Findings) {
    let here = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
    let Ok(there) = hello.get_datetime("localTime") else {
        return;
    };
    let apart = Duration::from_millis(there.timestamp_millis().abs_diff(here));
    if apart <= CLOCK_TOLERANCE {
        findings.ok("clock", format!("{apart:?} apart from the server's"));
    } else {
        findings.add(
            "clock",
            Status::Warning,
            format!("{apart:?} apart from the server's"),
            "run NTP on both machines: create_time and update_time come from this one",
        );
    }
}

/// Kind and options of the collections.
async fn kinds(database: &Database, findings: &mut Findings) {
    let listed = collections::list(database).await;
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return findings.right("listCollections", Err(error)),
    };
    findings.right("listCollections", Ok(()));
    if listed.is_empty() {
        findings.ok(
            "collections",
            "none yet; they are created at the first start",
        );
    }
    for collection in listed {
        let what = format!("collection {}", collection.name);
        match collection.problem(database.name()) {
            Some(problem) => findings.add(what, Status::Error, problem, "see the text before"),
            None if collection.has_validator() => findings.add(
                what,
                Status::Warning,
                "has a validator; a write that it does not allow is refused with ORIGIN_REFUSED",
                "let it allow every field of a todo",
            ),
            None => findings.ok(what, "ordinary"),
        }
    }
}

/// Unique indexes of the operator, and those that are missing.
async fn indexes(database: &Database, findings: &mut Findings) {
    let mut all = Vec::new();
    let mut missing = 0;
    for collection in [TODOS, LISTS] {
        let existing = match collections::list_indexes(database, collection).await {
            Ok(existing) => existing,
            Err(error) => {
                return findings.right(&format!("listIndexes of {collection}"), Err(error));
            }
        };
        if !existing.is_empty() {
            missing += collections::missing_for(collection, &existing);
        }
        all.extend(existing);
    }
    findings.right("listIndexes", Ok(()));
    for index in &all {
        let name = index.get_str("name").unwrap_or_default();
        if name != "_id_" && index.get_bool("unique").unwrap_or(false) {
            findings.add(
                format!("index {name}"),
                Status::Warning,
                "is unique; a write that it does not allow is refused with ORIGIN_REFUSED",
                "drop it unless that is what you want",
            );
        }
    }
    if all.is_empty() {
        return;
    }
    if missing == 0 {
        findings.ok("indexes", "complete");
    } else {
        findings.add(
            "indexes",
            Status::Warning,
            format!("{missing} are missing; the first start builds them in the background"),
            "expect slower lists until they are built",
        );
    }
}

async fn reads(database: &Database, findings: &mut Findings) {
    for collection in [TODOS, LISTS, HEARTBEATS, REQUESTS] {
        let find = doc! {
            "find": collection, "limit": 1, "projection": { "_id": 1 },
            "readConcern": { "level": "snapshot" },
        };
        let tried = database.run_command(find).await.map(drop);
        findings.right(&format!("find in {collection}"), tried);
    }
}

async fn writes(client: &Client, database: &Database, findings: &mut Findings) {
    for collection in [TODOS, LISTS, HEARTBEATS, REQUESTS] {
        let nothing = doc! { "_id": Uuid::new_v4().to_string(), "$expr": false };
        let update = doc! {
            "update": collection,
            "updates": [{ "q": nothing.clone(), "u": { "$set": { "at": 0 } } }],
        };
        let tried = statement(database, update).await;
        findings.right(&format!("update in {collection}"), tried);
        if collection == REQUESTS {
            continue;
        }
        let delete = doc! { "delete": collection, "deletes": [{ "q": nothing, "limit": 1 }] };
        let tried = statement(database, delete).await;
        findings.right(&format!("remove from {collection}"), tried);
    }
    let exists = collections::list(database).await.unwrap_or_default();
    for collection in [TODOS, LISTS, HEARTBEATS, REQUESTS] {
        if exists.iter().any(|known| known.name == collection) {
            insert(client, database, collection, findings).await;
        }
    }
}

/// A write of one statement; its own error counts, too.
async fn statement(database: &Database, command: Document) -> Result<(), Error> {
    database.run_command(command).await.map(drop)
}

/// An insert that is taken back. It also meets validators and unique indexes.
async fn insert(client: &Client, database: &Database, collection: &str, findings: &mut Findings) {
    let what = format!("insert into {collection}");
    let tried = async {
        let mut session = client.start_session().await?;
        session
            .start_transaction()
            .write_concern(WriteConcern::majority())
            .await?;
        let inserted = database
            .collection(collection)
            .insert_one(probe())
            .session(&mut session)
            .await;
        session.abort_transaction().await?;
        inserted.map(drop)
    };
    match tried.await {
        Err(error) if !codes::is_forbidden(&error) && collection == TODOS => {
            let effect = codes::write_effect(&error, true);
            let detail = match effect {
                codes::WriteEffect::Refused(rule) => rule.to_string(),
                _ => error.to_string(),
            };
            findings.add(
                "insert of a todo",
                Status::Error,
                format!("a todo with a title alone is refused: {detail}"),
                "change the validator or the unique index so that it allows every todo",
            );
        }
        tried => findings.right(&what, tried),
    }
}

/// A todo as the service stores it.
fn probe() -> Document {
    let name = format!("lists/tidemark-check/todos/{}", Uuid::new_v4());
    let todo = Todo {
        name: name.clone(),
        title: "A check that is taken back".into(),
        ..Todo::default()
    };
    TodoName::parse(&name).map_or_else(Document::new, |name| document::document(&name, &todo))
}

/// Whether the feed can be opened where a start would open it.
async fn feed(database: &Database, replay_window: Duration, findings: &mut Findings) {
    let hello = database.run_command(doc! { "hello": 1 }).await;
    let now = hello
        .ok()
        .and_then(|hello| hello.get_timestamp("operationTime").ok());
    let Some(now) = now else { return };
    let window = u32::try_from(replay_window.as_secs()).unwrap_or(u32::MAX);
    let start = OriginTime(u64::from(now.time.saturating_sub(window)) << 32).next();
    let tried = open_feed(database, doc! { "startAtOperationTime": timestamp(start) }).await;
    match tried {
        Err(error) if codes::is_history_lost(&error) => {
            // The right is there all the same.
            findings.right("changeStream", Ok(()));
            findings.add(
                "oplog window",
                Status::Warning,
                format!("shorter than the replay window of {replay_window:?}"),
                "make it larger, in mongosh: db.adminCommand({ replSetResizeOplog: 1, size: 51200 }), \
                 or set a shorter replay window; until then each start begins with cold caches",
            );
        }
        Ok(()) => {
            findings.right("changeStream", Ok(()));
            findings.ok(
                "oplog window",
                format!("at least the replay window of {replay_window:?}"),
            );
        }
        Err(error) => findings.right("changeStream", Err(error)),
    }
}

async fn open_feed(database: &Database, stream: Document) -> Result<(), Error> {
    let nothing = doc! { "$match": { "operationType": "tidemark check" } };
    let command = doc! {
        "aggregate": 1,
        "pipeline": [{ "$changeStream": stream }, nothing],
        "cursor": { "batchSize": 0 },
    };
    let mut stream = database
        .run_cursor_command(command)
        .cursor_type(CursorType::TailableAwait)
        .max_time(Duration::from_millis(100))
        .batch()
        .await?;
    // The first batch shows whether the past is still there. A server that
    // reads long for it has it.
    match tokio::time::timeout(HISTORY_WAIT, stream.next()).await {
        Ok(Some(Err(error))) => Err(error),
        _ => Ok(()),
    }
}
