//! The service's collections: what they must be, and their indexes.
//!
//! An index build never blocks the service: it runs in the background, one at
//! a time in a replica, while reads, writes and the feed go on. Without its
//! index a page is only slower.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bson::{Bson, Document, doc};
use mongodb::{Database, error::Error};
use tokio::time::{Instant, sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    HEARTBEATS, Inner, LISTS, REQUESTS, TODOS,
    codes::{cause, is_index_conflict},
};
use crate::{backoff::jittered, origin::ConnectError};

/// How long a request id is remembered.
const REQUEST_SECONDS: i32 = 24 * 3600;
/// How long the document of a replica that is gone stays.
const HEARTBEAT_SECONDS: i32 = 24 * 3600;
/// How long a start waits for the indexes: those of an empty collection take
/// some milliseconds.
const START_WAITS: Duration = Duration::from_secs(2);
/// How long a look at the collections may take. The feed waits for it after
/// DDL.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The same at start, where collections are created, too.
const CREATE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the log says that an index build is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// Longest pause before a failed index build is tried again.
const BUILD_PAUSE: Duration = Duration::from_secs(5);
/// The collection does not exist; it exists already.
const NAMESPACE_NOT_FOUND: i32 = 26;
const NAMESPACE_EXISTS: i32 = 48;

/// The indexes that a collection needs.
struct Wanted {
    collection: &'static str,
    indexes: Vec<Document>,
}

/// One index for each order, so that every query reads only its own list's
/// part of one. (An index read backwards would reverse the names of a tie,
/// too: so `create_time` has two.)
fn wanted() -> [Wanted; 4] {
    let order = |name: &str, field: &str, direction: i32| {
        doc! { "name": name, "key": { "parent": 1, field: direction, "_id": 1 } }
    };
    let expiring = |collection, seconds: i32| Wanted {
        collection,
        indexes: vec![doc! { "name": "expiry", "key": { "at": 1 }, "expireAfterSeconds": seconds }],
    };
    [
        Wanted {
            collection: TODOS,
            indexes: vec![
                order("tidemark_newest", "create_time", -1),
                order("tidemark_oldest", "create_time", 1),
                order("tidemark_due", "due_time", 1),
                order("tidemark_priority", "priority", 1),
            ],
        },
        Wanted {
            collection: LISTS,
            // The lists of a member, in order of name.
            indexes: vec![doc! {
                "name": "tidemark_members",
                "key": { "members.principal": 1, "_id": 1 },
            }],
        },
        expiring(HEARTBEATS, HEARTBEAT_SECONDS),
        expiring(REQUESTS, REQUEST_SECONDS),
    ]
}

/// A collection as `listCollections` describes it.
pub(super) struct Collection {
    pub name: String,
    kind: String,
    options: Document,
    pub uuid: Option<Bson>,
}

impl Collection {
    fn new(info: &Document) -> Self {
        let text = |field| info.get_str(field).unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            kind: text("type"),
            options: info.get_document("options").cloned().unwrap_or_default(),
            uuid: info
                .get_document("info")
                .ok()
                .and_then(|info| info.get("uuid"))
                .cloned(),
        }
    }

    /// Why this collection cannot be used, and what to do; `None` if it can.
    pub(super) fn problem(&self, database: &str) -> Option<String> {
        let name = format!("{database}.{}", self.name);
        let what = match self.kind.as_str() {
            "view" => "is a view, which has no changes of its own to follow",
            "timeseries" => "is a time series collection, whose documents cannot be changed",
            _ if self.options.get_bool("capped").unwrap_or(false) => {
                "is a capped collection, whose documents disappear by themselves"
            }
            _ if self.options.contains_key("collation") => {
                "has a collation of its own, under which different names count as the same one"
            }
            _ => return None,
        };
        Some(format!(
            "the collection {name} {what}; rename it, or name another database in the URI, \
             and an ordinary collection will be created"
        ))
    }

    /// Whether a validator of the operator checks what is written.
    pub(super) fn has_validator(&self) -> bool {
        self.options
            .get_document("validator")
            .is_ok_and(|validator| !validator.is_empty())
    }
}

/// Those of the service's collections that exist.
pub(super) async fn list(database: &Database) -> Result<Vec<Collection>, Error> {
    let list = doc! {
        "listCollections": 1,
        "filter": { "name": { "$in": [TODOS, LISTS, HEARTBEATS, REQUESTS] } },
    };
    let reply = database.run_command(list).await?;
    Ok(first_batch(&reply).map(Collection::new).collect())
}

/// The indexes of a collection; none, if it does not exist.
pub(super) async fn list_indexes(
    database: &Database,
    collection: &str,
) -> Result<Vec<Document>, Error> {
    let list = doc! { "listIndexes": collection, "cursor": { "batchSize": 1000 } };
    match database.run_command(list).await {
        Ok(reply) => Ok(first_batch(&reply).cloned().collect()),
        Err(error) if super::codes::code(&error) == Some(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn first_batch(reply: &Document) -> impl Iterator<Item = &Document> {
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map(Vec::as_slice).unwrap_or_default();
    batch.iter().filter_map(Bson::as_document)
}

/// Creates a collection; that it exists already is fine.
pub(super) async fn create(database: &Database, name: &str) -> Result<(), Error> {
    match database.run_command(doc! { "create": name }).await {
        Err(error) if super::codes::code(&error) != Some(NAMESPACE_EXISTS) => Err(error),
        _ => Ok(()),
    }
}

/// Whether an existing index can be used in place of the wanted one, whatever its
/// name is.
fn serves(existing: &Document, wanted: &Document) -> bool {
    let plain = ["partialFilterExpression", "collation"]
        .iter()
        .all(|option| !existing.contains_key(*option))
        && ["sparse", "hidden"]
            .iter()
            .all(|option| !existing.get_bool(option).unwrap_or(false));
    let expires = |index: &Document| index.contains_key("expireAfterSeconds");
    plain && same_key(existing, wanted) && expires(existing) == expires(wanted)
}

/// Whether two indexes have the same fields in the same order and direction,
/// whatever type of number the directions have.
fn same_key(one: &Document, other: &Document) -> bool {
    let key = |index: &Document| {
        let key = index.get_document("key").ok()?;
        let direction = |value: &Bson| match value {
            Bson::Int32(n) => f64::from(*n),
            Bson::Int64(n) => *n as f64,
            Bson::Double(n) => *n,
            _ => 0.0,
        };
        let field = |(name, value): (&String, &Bson)| (name.clone(), direction(value));
        Some(key.iter().map(field).collect::<Vec<_>>())
    };
    key(one).is_some_and(|one| Some(one) == key(other))
}

/// How many of the indexes that this collection needs are missing.
pub(super) fn missing_for(collection: &str, existing: &[Document]) -> usize {
    let wanted = wanted()
        .into_iter()
        .find(|wanted| wanted.collection == collection);
    wanted.map_or(0, |wanted| missing(existing, &wanted.indexes).count())
}

fn missing<'a>(
    existing: &'a [Document],
    indexes: &'a [Document],
) -> impl Iterator<Item = &'a Document> {
    indexes
        .iter()
        .filter(|index| !existing.iter().any(|known| serves(known, index)))
}

impl Inner {
    /// Looks at the collections, creates them if `create` is set, reads the
    /// identities of `todos` and `lists`, and has missing indexes built if one of them
    /// is another one than before.
    ///
    /// # Errors
    /// `Permanent` if a collection cannot be used.
    pub(super) async fn prepare(self: &Arc<Self>, create: bool) -> Result<(), ConnectError> {
        let limit = if create { CREATE_TIMEOUT } else { LOOK_TIMEOUT };
        let looked = timeout(limit, self.look(create)).await;
        let is_new = looked.map_err(|_| {
            ConnectError::transient(format!("MongoDB: no answer within {limit:?}"))
        })??;
        if is_new && !self.building.swap(true, Ordering::AcqRel) {
            let inner = Arc::clone(self);
            let build = tokio::spawn(async move {
                // Again, if a collection was made anew meanwhile.
                loop {
                    let scope = inner.scope.load(Ordering::Relaxed);
                    inner.build_indexes().await;
                    if inner.scope.load(Ordering::Relaxed) == scope {
                        break;
                    }
                }
                inner.building.store(false, Ordering::Release);
            });
            if create {
                let _ = timeout(START_WAITS, build).await;
            }
        }
        Ok(())
    }

    /// Whether `todos` or `lists` is another collection than before. Nothing is
    /// created unless all that exists can be used.
    async fn look(&self, create: bool) -> Result<bool, ConnectError> {
        let mut collections = list(&self.reads).await?;
        for collection in &collections {
            if let Some(problem) = collection.problem(self.reads.name()) {
                return Err(ConnectError::permanent(problem));
            }
        }
        if create {
            for Wanted { collection, .. } in wanted() {
                if !collections.iter().any(|known| known.name == collection) {
                    self::create(&self.reads, collection).await?;
                }
            }
            collections = list(&self.reads).await?;
        }
        let uuid = |name: &str| {
            let collection = collections.iter().find(|known| known.name == name)?;
            collection.uuid.as_ref()
        };
        let (todos, lists) = (uuid(TODOS), uuid(LISTS));
        self.unprepared
            .store(todos.is_none() || lists.is_none(), Ordering::Relaxed);
        let identity = format!("{} {} {todos:?} {lists:?}", self.id.0, self.cache_epoch);
        let scope = xxh3_64(identity.as_bytes());
        Ok(self.scope.swap(scope, Ordering::Relaxed) != scope)
    }

    /// Builds what is missing, one collection after the other, until all is
    /// there. Ends without it if an operator's index is in the way.
    async fn build_indexes(&self) {
        for Wanted {
            collection,
            indexes,
        } in wanted()
        {
            loop {
                match self.build(collection, &indexes).await {
                    Ok(()) => break,
                    Err(error) if is_index_conflict(&error) => {
                        tracing::warn!(
                            collection, %error,
                            "an index of another kind is in the way of one that list reads need; \
                             they are slower without it: drop that index"
                        );
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(collection, %error, "the indexes could not be built; they are tried again");
                        sleep(jittered(BUILD_PAUSE)).await;
                    }
                }
            }
        }
    }

    /// One build, if something is missing. Two replicas that begin the same
    /// one share it; the server commits it once the majority is done.
    async fn build(&self, collection: &'static str, indexes: &[Document]) -> Result<(), Error> {
        let existing = list_indexes(&self.reads, collection).await?;
        if existing.is_empty() {
            // There is no such collection; `createIndexes` would create it.
            return Ok(());
        }
        let missing: Vec<_> = missing(&existing, indexes).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let command = doc! {
            "createIndexes": collection,
            "indexes": missing,
            "commitQuorum": "majority",
        };
        let begun = Instant::now();
        let build = async { self.reads.run_command(command).await };
        tokio::pin!(build);
        loop {
            match timeout(TELL_INTERVAL, &mut build).await {
                Ok(done) => {
                    let took = begun.elapsed();
                    if done.is_ok() && took > START_WAITS {
                        tracing::info!(collection, ?took, "the indexes are built");
                    }
                    return done.map(drop);
                }
                Err(_) => tracing::warn!(
                    collection,
                    waiting = ?begun.elapsed(),
                    "MongoDB is still building the indexes; reads and writes go on, lists are slower meanwhile. \
                     A build ends once the majority of the replica set has it"
                ),
            }
        }
    }
}

/// The driver's error at start: whether waiting helps.
impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        let permanent = super::codes::is_permanent(&error);
        let hint = if super::codes::is_forbidden(&error) {
            "; the service's database user lacks a right that docs/operations.md lists"
        } else {
            ""
        };
        let text = format!("MongoDB: {}{hint}", super::codes::text(&error));
        let cause = cause(error).with_text(text);
        if permanent {
            Self::Permanent(cause)
        } else {
            Self::Transient(cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_serves_by_its_keys_and_not_by_its_name() {
        let [
            Wanted { indexes, .. },
            _,
            Wanted {
                indexes: expiry, ..
            },
            _,
        ] = wanted();
        let existing =
            doc! { "name": "mine", "key": { "parent": 1.0, "create_time": -1.0, "_id": 1_i64 } };
        assert!(serves(&existing, &indexes[0]));
        assert!(!serves(&existing, &indexes[1]), "another direction");
        for (option, value) in [
            ("sparse", Bson::from(true)),
            ("hidden", true.into()),
            ("partialFilterExpression", doc! { "a": 1 }.into()),
            ("collation", doc! { "locale": "de" }.into()),
        ] {
            let mut other = existing.clone();
            other.insert(option, value);
            assert!(!serves(&other, &indexes[0]), "{option}");
        }
        assert!(!serves(&doc! { "key": { "at": 1 } }, &expiry[0]));
        assert!(serves(
            &doc! { "key": { "at": 1 }, "expireAfterSeconds": 60 },
            &expiry[0]
        ));
    }

    #[test]
    fn a_collection_of_the_wrong_kind_is_named() {
        let of = |kind: &str, options: Document| {
            Collection::new(&doc! { "name": "todos", "type": kind, "options": options })
                .problem("db")
                .unwrap_or_default()
        };
        assert_eq!(of("collection", doc! {}), "");
        for (kind, options, word) in [
            ("view", doc! { "viewOn": "x" }, "view"),
            ("timeseries", doc! {}, "time series"),
            ("collection", doc! { "capped": true }, "capped"),
            (
                "collection",
                doc! { "collation": { "locale": "en", "strength": 2 } },
                "collation",
            ),
        ] {
            assert!(of(kind, options).contains(word), "{word}");
        }
    }
}
