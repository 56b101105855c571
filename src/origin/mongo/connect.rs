//! Connecting: what the server must be, and what is made at start.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64},
    time::Duration,
};

use bson::{Document, doc};
use mongodb::{
    Client, ServerType,
    error::{Error, ErrorKind},
    event::{EventHandler, sdam::SdamEvent},
    options::{ClientOptions, WriteConcern},
};
use tokio::sync::watch;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{HEARTBEATS, Inner, MongoDb, REQUESTS, TODOS, codes::cause};
use crate::{model::OriginId, origin::ConnectError};

/// Name of the database if the URI has none.
const DEFAULT_DATABASE: &str = "todos";
/// How long a read looks for a primary: a caller waits for it.
const READ_SELECTION: Duration = Duration::from_secs(2);
/// How long a write and the feed look for one: longer than an election takes.
const WRITE_SELECTION: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a server has to say that it is there. With the time for a
/// connection this is how long a call waits on a server that froze: 5 s. (By
/// the driver's own 10 s it was 15, in which no write to it was answered,
/// though a new primary was there after 2.)
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);
/// Connections of the client for writes: each costs the server a thread.
const WRITE_CONNECTIONS: u32 = 64;
/// Connections of the client for reads: loads are gathered, few run at once.
const READ_CONNECTIONS: u32 = 64;
/// Snapshot reads outside transactions came with MongoDB 5.0.
const OLDEST_WIRE_VERSION: i32 = 13;
/// From MongoDB 8.0 on, an event without a transaction may share its time.
const SHARED_TIMES_WIRE_VERSION: i32 = 25;
/// How long a request id is remembered (see the proto).
const REQUEST_SECONDS: i32 = 24 * 3600;
/// How long the document of a replica that is gone stays.
const HEARTBEAT_SECONDS: i32 = 24 * 3600;

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        let permanent = match *error.kind {
            ErrorKind::InvalidArgument { .. }
            | ErrorKind::InvalidTlsConfig { .. }
            | ErrorKind::Authentication { .. } => true,
            ErrorKind::Command(ref command) => [13, 18, 8000].contains(&command.code),
            _ => false,
        };
        let text = format!("MongoDB: {error}");
        let cause = cause(error).with_text(text);
        if permanent {
            Self::Permanent(cause)
        } else {
            Self::Transient(cause)
        }
    }
}

impl MongoDb {
    /// Connects to the replica set that the URI names, and makes collections
    /// and indexes.
    ///
    /// # Errors
    /// `Permanent`: not a replica set of MongoDB 5.0 or later, a wrong URI or
    /// password. `Transient`: it cannot be reached at present.
    pub async fn connect(
        uri: &str,
        cache_epoch: u64,
        max_loads: usize,
    ) -> Result<Self, ConnectError> {
        let mut options = ClientOptions::parse(uri).await?;
        let database = options
            .default_database
            .clone()
            .unwrap_or_else(|| DEFAULT_DATABASE.into());
        let loads = u32::try_from(max_loads)
            .unwrap_or(READ_CONNECTIONS)
            .clamp(4, READ_CONNECTIONS);
        let (elected, primary) = watch::channel(None);
        options.sdam_event_handler = Some(tell_primary(elected));
        let reads = client(&options, READ_SELECTION, loads)?;
        options.sdam_event_handler = None;
        let writes_client = client(&options, WRITE_SELECTION, WRITE_CONNECTIONS)?;
        let admin = reads.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await?;
        let wire = check(&hello)?;
        let set = match admin.run_command(doc! { "replSetGetConfig": 1 }).await {
            Ok(reply) => set_id(&reply),
            // Not every user may ask for it; the name does too.
            Err(_) => None,
        };
        let set = set.unwrap_or_else(|| hello.get_str("setName").unwrap_or_default().to_owned());
        let inner = Inner {
            id: OriginId(xxh3_64(format!("mongodb {set} {database}").as_bytes())),
            cache_epoch,
            replica: Uuid::new_v4().to_string(),
            reads: reads.database(&database),
            writes: writes_client.database(&database),
            writes_client,
            alone_is_known: wire < SHARED_TIMES_WIRE_VERSION,
            primary,
            scope: AtomicU64::new(0),
            unprepared: AtomicBool::new(true),
        };
        inner.prepare(true).await?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

fn client(
    options: &ClientOptions,
    selection: Duration,
    connections: u32,
) -> Result<Client, ConnectError> {
    let mut options = options.clone();
    options.app_name.get_or_insert_with(|| "tidemark".into());
    options.server_selection_timeout = Some(selection);
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.heartbeat_freq.get_or_insert(MONITOR_INTERVAL);
    options.max_pool_size = Some(connections);
    options.retry_writes = Some(true);
    options.write_concern = Some(WriteConcern::majority());
    options.read_concern = None;
    options.selection_criteria = None;
    Ok(Client::with_options(options)?)
}

/// Tells which node is the primary, each time that it is another one.
fn tell_primary(elected: watch::Sender<Option<String>>) -> EventHandler<SdamEvent> {
    EventHandler::callback(move |event| {
        let SdamEvent::ServerDescriptionChanged(change) = event else {
            return;
        };
        if change.new_description.server_type() == ServerType::RsPrimary {
            let address = Some(change.address.to_string());
            elected.send_if_modified(|known| std::mem::replace(known, address.clone()) != address);
        }
    })
}

/// What kind of server it is, by its greeting: the wire version.
fn check(hello: &Document) -> Result<i32, ConnectError> {
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Err(ConnectError::permanent(
            "MongoDB: this is a sharded cluster, which is not supported yet: its shards have clocks of their own; \
             use a replica set",
        ));
    }
    if !hello.contains_key("setName") {
        return Err(ConnectError::permanent(
            "MongoDB: this is a standalone server, which has no change streams; start it as a replica set of one: \
             mongod --replSet rs0, and once, in mongosh: rs.initiate()",
        ));
    }
    let wire = hello.get_i32("maxWireVersion").unwrap_or_default();
    if wire < OLDEST_WIRE_VERSION {
        return Err(ConnectError::permanent(
            "MongoDB: this server is older than 5.0; use 5.0 or later",
        ));
    }
    Ok(wire)
}

fn set_id(reply: &Document) -> Option<String> {
    let settings = reply
        .get_document("config")
        .ok()?
        .get_document("settings")
        .ok()?;
    settings
        .get_object_id("replicaSetId")
        .ok()
        .map(bson::oid::ObjectId::to_hex)
}

/// The indexes: one for each order, so that every query reads only its own
/// list's part of one. (An index read backwards would turn the names of a tie
/// round too: so `create_time` has two.)
pub(super) fn indexes() -> [Document; 3] {
    let order = |name: &str, field: &str, direction: i32| {
        doc! { "name": name, "key": { "parent": 1, field: direction, "_id": 1 } }
    };
    let expiring =
        |seconds: i32| doc! { "name": "expiry", "key": { "at": 1 }, "expireAfterSeconds": seconds };
    let orders = vec![
        order("tidemark_newest", "create_time", -1),
        order("tidemark_oldest", "create_time", 1),
        order("tidemark_due", "due_time", 1),
        order("tidemark_priority", "priority", 1),
    ];
    [
        doc! { "createIndexes": TODOS, "indexes": orders },
        doc! { "createIndexes": HEARTBEATS, "indexes": [expiring(HEARTBEAT_SECONDS)] },
        doc! { "createIndexes": REQUESTS, "indexes": [expiring(REQUEST_SECONDS)] },
    ]
}
