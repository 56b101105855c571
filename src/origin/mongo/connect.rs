//! Connecting: what the URI and the server must be, and the three clients.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bson::{Document, doc};
use mongodb::{
    Client, Database,
    error::{Error, ErrorKind},
    options::{ClientOptions, DriverInfo, ServerAddress, WriteConcern},
};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Inner, MongoDb, codes,
    orphans::{DRIVER_NAME, Orphans},
    topology::Topology,
    write::note_sent,
};
use crate::{error::shorten, model::OriginId, origin::ConnectError};

/// Name of the database if the URI has none.
const DEFAULT_DATABASE: &str = "todos";
/// The server's own databases: change streams and ordinary writes do not work
/// there.
const RESERVED_DATABASES: [&str; 3] = ["admin", "local", "config"];
/// What MongoDB does not allow in the name of a database, on any system, and
/// the most bytes of one.
const FORBIDDEN_IN_NAMES: &str = "/\\. \"$*<>:|?";
const MAX_DATABASE_BYTES: usize = 63;
/// How long a read looks for a primary: a caller waits for it.
const READ_SELECTION: Duration = Duration::from_secs(2);
/// How long the driver looks for a primary for the second try of a write that
/// was sent: longer than an election takes. A write that was not sent yet
/// waits less: see `write.rs`.
const WRITE_SELECTION: Duration = Duration::from_secs(30);
/// How long the feed looks for a primary before it is opened again.
const FEED_SELECTION: Duration = Duration::from_secs(5);
/// How long a probe of one server may take, once the replica set did not answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a server has to say that it is there. With the time for a
/// connection this is how long a call waits on a server that froze: 5 s. (By
/// the driver's own 10 s it was 15, in which no write to it was answered,
/// though a new primary was there after 2.)
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is not used again: a firewall or a
/// load balancer may have dropped it without a word, the shortest of them
/// after some 30 s, and a write on it would wait for its timeout.
const MAX_IDLE: Duration = Duration::from_secs(10);
/// Connections of the client for writes: each costs the server a thread.
const WRITE_CONNECTIONS: u32 = 64;
/// Connections of the client for reads: loads are gathered, few run at once.
const READ_CONNECTIONS: u32 = 64;
/// Connections of the client for feeds: one each, and as many watches as may
/// catch up by a feed of their own.
const FEED_CONNECTIONS: u32 = 32;
/// Snapshot reads outside transactions came with MongoDB 5.0.
const OLDEST_WIRE_VERSION: i32 = 13;
/// What a standalone server needs.
const MAKE_REPLICA_SET: &str =
    "start mongod with --replSet rs0 and then, once, in mongosh: rs.initiate()";

/// The URI with what this service needs of it.
pub(super) struct Target {
    pub options: ClientOptions,
    pub database: String,
}

impl Target {
    /// Reads a URI, white space around it left out.
    ///
    /// # Errors
    /// `Permanent` if it is wrong or names a database that cannot be used.
    pub(super) async fn parse(uri: &str) -> Result<Self, ConnectError> {
        let uri = uri.trim();
        let options = ClientOptions::parse(uri).await.map_err(|error| {
            // Without the source: the driver repeats parts of the URI.
            let text = without_secrets(uri, &codes::text(&error));
            if codes::is_permanent(&error) {
                ConnectError::permanent(format!("MongoDB: {text}"))
            } else {
                ConnectError::transient(format!("MongoDB: {text}"))
            }
        })?;
        let database = options
            .default_database
            .clone()
            .unwrap_or_else(|| DEFAULT_DATABASE.into());
        match database_problem(&database) {
            Some(problem) => Err(ConnectError::permanent(format!(
                "MongoDB: the database {:?} in the URI {problem}",
                shorten(&database)
            ))),
            None => Ok(Self { options, database }),
        }
    }

    pub(super) fn client(
        &self,
        selection: Duration,
        connections: u32,
        watch: impl FnOnce(&mut ClientOptions),
    ) -> Result<Client, ConnectError> {
        let mut options = self.options.clone();
        options.app_name.get_or_insert_with(|| "tidemark".into());
        options.driver_info = Some(driver_info());
        options.server_selection_timeout = Some(selection);
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.heartbeat_freq.get_or_insert(MONITOR_INTERVAL);
        options.max_idle_time.get_or_insert(MAX_IDLE);
        options.max_pool_size = Some(connections);
        options.retry_writes = Some(true);
        options.write_concern = Some(WriteConcern::majority());
        options.read_concern = None;
        options.selection_criteria = None;
        watch(&mut options);
        Ok(Client::with_options(options)?)
    }

    /// Why the replica set does not answer, as far as its servers say one by
    /// one: a server that is none of the set is never selected by the driver.
    pub(super) async fn diagnose(&self, error: Error) -> ConnectError {
        if !matches!(*error.kind, ErrorKind::ServerSelection { .. }) {
            return error.into();
        }
        for host in &self.options.hosts {
            let Some(hello) = self.probe(host).await else {
                continue;
            };
            if let Some(problem) = self.server_problem(host, &hello) {
                return problem;
            }
        }
        error.into()
    }

    async fn probe(&self, host: &ServerAddress) -> Option<Document> {
        let mut alone = self.options.clone();
        alone.hosts = vec![host.clone()];
        alone.direct_connection = Some(true);
        alone.repl_set_name = None;
        alone.server_selection_timeout = Some(PROBE_TIMEOUT);
        alone.connect_timeout = Some(PROBE_TIMEOUT);
        // The greeting needs no login, and a login may fail on such a server.
        alone.credential = None;
        let client = Client::with_options(alone).ok()?;
        let admin = client.database("admin");
        let hello = async { admin.run_command(doc! { "hello": 1 }).await };
        tokio::time::timeout(PROBE_TIMEOUT * 2, hello)
            .await
            .ok()?
            .ok()
    }

    fn server_problem(&self, host: &ServerAddress, hello: &Document) -> Option<ConnectError> {
        if hello.get_bool("isreplicaset").unwrap_or(false) {
            // Somebody may be about to initiate it.
            return Some(ConnectError::transient(format!(
                "MongoDB: {host} is to be in a replica set that is not initiated yet; once, in mongosh: rs.initiate()"
            )));
        }
        if let Err(problem) = check_server(hello) {
            return Some(problem);
        }
        let set = hello.get_str("setName").unwrap_or_default();
        match &self.options.repl_set_name {
            Some(wanted) if wanted != set => Some(ConnectError::permanent(format!(
                "MongoDB: {host} is of the replica set {set:?}, and the URI says replicaSet={:?}; \
                 name the right one in the URI",
                shorten(wanted)
            ))),
            _ => None,
        }
    }
}

fn driver_info() -> DriverInfo {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    DriverInfo::builder()
        .name(DRIVER_NAME)
        .version(version)
        .build()
}

/// A text about a URI without what stands where the URI has its login and the
/// values of its options.
fn without_secrets(uri: &str, text: &str) -> String {
    /// Shorter ones would take parts of ordinary words away.
    const SHORTEST: usize = 3;
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (login, _) = rest.rsplit_once('@').unwrap_or_default();
    let (_, options) = rest.split_once('?').unwrap_or_default();
    let values = options
        .split('&')
        .filter_map(|option| option.split_once('=').map(|(_, value)| value));
    let mut secrets: Vec<_> = values
        .chain(std::iter::once(login))
        .chain(login.split([':', '/', '@', '?']))
        .filter(|secret| secret.len() >= SHORTEST)
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
        .iter()
        .fold(text.to_owned(), |text, secret| text.replace(secret, "..."))
}

/// What is wrong with the name of a database, and what would be right.
fn database_problem(name: &str) -> Option<&'static str> {
    if RESERVED_DATABASES.contains(&name) {
        return Some(
            "is one of MongoDB's own; name one of yours, such as mongodb://host/todos?replicaSet=rs0 \
             (and authSource=admin, if the user is defined there)",
        );
    }
    let wrong = name.is_empty()
        || name.len() > MAX_DATABASE_BYTES
        || name
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || FORBIDDEN_IN_NAMES.contains(c));
    wrong.then_some("is not a valid name: use up to 63 letters, digits, \"-\" and \"_\"")
}

/// What kind of server it is, by its greeting.
///
/// # Errors
/// `Permanent` if it cannot be used.
pub(super) fn check_server(hello: &Document) -> Result<(), ConnectError> {
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Err(ConnectError::permanent(
            "MongoDB: this is a sharded cluster, which is not supported: its shards have clocks of their own; \
             use a replica set",
        ));
    }
    if !hello.contains_key("setName") {
        return Err(ConnectError::permanent(format!(
            "MongoDB: this is a standalone server, which has no change streams; {MAKE_REPLICA_SET}"
        )));
    }
    if wire_version(hello) < OLDEST_WIRE_VERSION {
        return Err(ConnectError::permanent(
            "MongoDB: this server is older than 5.0; use 5.0 or later",
        ));
    }
    Ok(())
}

pub(super) fn wire_version(hello: &Document) -> i32 {
    hello.get_i32("maxWireVersion").unwrap_or_default()
}

/// What tells this replica set from all others: its id, whatever the user's
/// rights are. A second source would give the same database two identities,
/// and the replicas of one service would refuse each other's tokens.
///
/// # Errors
/// `Permanent` if the user may not ask for it, `Transient` if it failed.
pub(super) async fn replica_set_id(
    admin: &Database,
    hello: &Document,
) -> Result<String, ConnectError> {
    match admin.run_command(doc! { "replSetGetConfig": 1 }).await {
        Ok(reply) => set_id(&reply).ok_or_else(|| {
            ConnectError::permanent(
                "MongoDB: the replica set's configuration has no settings.replicaSetId; \
                 give it one with rs.reconfig() in mongosh",
            )
        }),
        // A service without that command has it for nobody: its name does.
        Err(error) if codes::is_unknown_command(&error) => {
            Ok(hello.get_str("setName").unwrap_or_default().to_owned())
        }
        Err(error) if codes::is_forbidden(&error) => {
            let text = format!(
                "MongoDB: the service's database user may not run replSetGetConfig, which gives the replica set's \
                 identity; grant it, in mongosh: db.getSiblingDB(\"admin\").grantRolesToUser(USER, \
                 [{{ role: \"clusterMonitor\", db: \"admin\" }}]), or the smaller role in docs/operations.md ({error})"
            );
            Err(ConnectError::Permanent(codes::cause(error).with_text(text)))
        }
        Err(error) => Err(error.into()),
    }
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

impl MongoDb {
    /// Connects to the replica set that the URI names, and makes collections
    /// and indexes. Creates nothing unless all that exists can be used.
    ///
    /// # Errors
    /// `Permanent`: not a replica set of MongoDB 5.0 or later, a wrong URI,
    /// password or right, a collection that cannot be used. `Transient`: it
    /// cannot be reached at present.
    pub async fn connect(
        uri: &str,
        cache_epoch: u64,
        max_loads: usize,
    ) -> Result<Self, ConnectError> {
        let target = Target::parse(uri).await?;
        let loads = u32::try_from(max_loads)
            .unwrap_or(READ_CONNECTIONS)
            .clamp(4, READ_CONNECTIONS);
        let (topology, handler) = Topology::new();
        let reads = target.client(READ_SELECTION, loads, |options| {
            options.sdam_event_handler = Some(handler);
        })?;
        let writes_client = target.client(WRITE_SELECTION, WRITE_CONNECTIONS, |options| {
            options.cmap_event_handler = Some(note_sent());
        })?;
        let feeds = target.client(FEED_SELECTION, FEED_CONNECTIONS, |_| {})?;
        let admin = reads.database("admin");
        let hello = match admin.run_command(doc! { "hello": 1 }).await {
            Ok(hello) => hello,
            Err(error) => return Err(target.diagnose(error).await),
        };
        check_server(&hello)?;
        let set = replica_set_id(&admin, &hello).await?;
        let database = &target.database;
        let inner = Arc::new(Inner {
            id: OriginId(xxh3_64(format!("mongodb {set} {database}").as_bytes())),
            cache_epoch,
            replica: Uuid::new_v4().to_string(),
            reads: reads.database(database),
            writes: writes_client.database(database),
            writes_client,
            feeds: feeds.database(database),
            topology,
            orphans: Orphans::start(reads.clone()),
            scope: AtomicU64::new(0),
            unprepared: AtomicBool::new(true),
            unusable: OnceLock::new(),
            building: AtomicBool::new(false),
        });
        inner.prepare(true).await?;
        Ok(Self { inner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_name_of_the_database_is_checked() {
        for (uri, database) in [
            ("mongodb://h/", "todos"),
            ("  mongodb://h/tasks?replicaSet=a \n", "tasks"),
            ("mongodb://h/tasks\n", "tasks"),
        ] {
            let target = Target::parse(uri).await.expect(uri);
            assert_eq!(target.database, database);
        }
        for uri in [
            "mongodb://h/admin",
            "mongodb://h/local",
            "mongodb://h/config",
            "mongodb://h/a%20b",
            "mongodb://h/a%0Ab",
            "nonsense",
        ] {
            let refused = Target::parse(uri).await;
            assert!(matches!(refused, Err(ConnectError::Permanent(_))), "{uri}");
        }
        let long = format!("mongodb://h/{}", "x".repeat(64));
        assert!(Target::parse(&long).await.is_err());
    }

    #[tokio::test]
    async fn an_error_about_a_uri_repeats_no_secret() {
        for uri in [
            "mongodb://me:geheim@h/todos?authMechanism=geheim",
            "mongodb://me:geh/eim@h/todos",
            "mongodb://me:geheim@h/todos?maxPoolSize=geheim",
            "me:geheim@h",
        ] {
            let error = Target::parse(uri).await.err().expect(uri);
            let text = format!("{error} {error:?}");
            assert!(!text.contains("geheim") && !text.contains("eim@"), "{text}");
        }
    }

    #[test]
    fn servers_are_told_apart() {
        let problem = |hello| {
            check_server(&hello)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(problem(doc! { "setName": "a", "maxWireVersion": 17 }), "");
        assert!(problem(doc! { "maxWireVersion": 17 }).contains("standalone"));
        assert!(problem(doc! { "msg": "isdbgrid" }).contains("sharded"));
        assert!(problem(doc! { "setName": "a", "maxWireVersion": 9 }).contains("5.0"));
    }
}
