//! Near and shared as reads and loads use them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    near::Near,
    record,
    shared::{Shared, SharedKey},
};
use crate::{
    model::{Key, Stamped, Value},
    pb,
    telemetry::{Kind, Metrics},
};

/// The two caches of a replica.
pub struct Tiers {
    /// The cache in the process.
    pub near: Near,
    shared: Option<Arc<dyn Shared>>,
    /// How long shared entries live.
    lifetime: Duration,
    metrics: Arc<Metrics>,
}

impl Tiers {
    /// `lifetime`: how long shared entries live.
    #[must_use]
    pub fn new(
        near: Near,
        shared: Option<Arc<dyn Shared>>,
        lifetime: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            near,
            shared,
            lifetime,
            metrics,
        }
    }

    /// The shared tier, if there is one and it answers.
    pub fn shared_if_up(&self) -> Option<&Arc<dyn Shared>> {
        self.shared.as_ref().filter(|shared| shared.is_up())
    }

    /// Whether the shared tier answers; `None`: there is none.
    pub fn shared_is_up(&self) -> Option<bool> {
        self.shared.as_ref().map(|shared| shared.is_up())
    }

    /// Reads the shared entries of these keys, in their order. `None`: no entry,
    /// or one that is not of this key and `scope`. Whether a value may be served
    /// is decided by its stamp.
    pub async fn lookup_shared(&self, scope: u64, keys: &[Key]) -> Vec<Option<Stamped>> {
        let Some(shared) = &self.shared else {
            return vec![None; keys.len()];
        };
        let shared_keys: Vec<_> = keys.iter().map(|key| shared_key(scope, key)).collect();
        let entries = shared.get(&shared_keys).await;
        keys.iter()
            .zip(entries)
            .map(|(key, entry)| self.decode(scope, key, &entry?))
            .collect()
    }

    fn decode(&self, scope: u64, key: &Key, raw: &Bytes) -> Option<Stamped> {
        match record::decode(scope, &key.to_string(), raw) {
            Ok(stamped) if is_of(key, &stamped.value) => Some(stamped),
            Ok(_) => self.reject("value"),
            Err(rejected) => self.reject(rejected.label()),
        }
    }

    /// Counts a shared entry that is not used.
    pub fn reject(&self, kind: &'static str) -> Option<Stamped> {
        self.metrics
            .shared_rejected
            .get_or_create(&Kind { kind })
            .inc();
        None
    }

    /// Queues a value for the shared tier. Never waits.
    pub fn store_shared(&self, scope: u64, key: &Key, stamped: &Stamped) {
        let Some(shared) = &self.shared else { return };
        let entry = record::encode(scope, &key.to_string(), stamped);
        shared.put(vec![(shared_key(scope, key), entry)], self.lifetime);
    }
}

/// The key in the shared tier. All keys of a list are in one hash slot. The query
/// of a page is hashed, since it may be long; the entry holds it in full.
pub fn shared_key(scope: u64, key: &Key) -> SharedKey {
    match key {
        Key::Todo(name) => SharedKey {
            list: name.parent().to_owned(),
            key: format!("{scope:016x}:{name}"),
        },
        Key::Page(query) => SharedKey {
            list: query.list.as_str().to_owned(),
            key: format!(
                "{scope:016x}:page:{:032x}",
                xxh3_128(query.to_string().as_bytes())
            ),
        },
        Key::List(name) => SharedKey {
            list: name.to_string(),
            key: format!("{scope:016x}:{name}"),
        },
        Key::Lists(query) => SharedKey {
            list: "lists".to_owned(),
            key: format!(
                "{scope:016x}:lists:{:032x}",
                xxh3_128(query.to_string().as_bytes())
            ),
        },
    }
}

/// Whether a value can be that of the key. The checksum of an entry keeps out
/// accidents; this keeps out a well-formed entry with the content of another key.
fn is_of(key: &Key, value: &Value) -> bool {
    match (key, value) {
        (Key::Todo(name), Value::Todo(todo)) => {
            pb::Todo::decode(todo.clone()).is_ok_and(|todo| todo.name == name.as_str())
        }
        (Key::Todo(_) | Key::List(_), Value::Absent | Value::Unreadable(_)) => true,
        (Key::List(name), Value::List(list)) => list.name == name.as_str(),
        (Key::Lists(query), Value::Lists(page)) => page.names.len() <= query.size as usize,
        (Key::Page(query), Value::Page(page)) => {
            let of_list = |name: &crate::model::TodoName| name.parent() == query.list.as_str();
            page.names.len() <= query.size as usize && page.names.iter().all(of_list)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Filter, ListName, Order, OriginTime, Page, PageQuery, TodoName},
        tier::shared::MemoryShared,
    };

    fn todo_name(name: &str) -> TodoName {
        TodoName::parse(name).expect("a name")
    }

    fn encoded(name: &str) -> Value {
        let todo = pb::Todo {
            name: name.into(),
            ..pb::Todo::default()
        };
        Value::Todo(todo.encode_to_vec().into())
    }

    #[tokio::test]
    async fn an_entry_with_the_content_of_another_key_is_a_miss() {
        let query = PageQuery {
            list: ListName::parse("lists/home").expect("a name"),
            filter: Filter::default(),
            order: Order::DueTime,
            size: 1,
            after: None,
        };
        let page = |names: &[&str]| {
            Value::Page(Arc::new(Page {
                names: names.iter().map(|name| todo_name(name)).collect(),
                next: None,
            }))
        };
        let name = "lists/home/todos/1";
        let todo = Key::Todo(todo_name(name));
        let list = Key::Page(Arc::new(query));
        for (key, value, served) in [
            (&todo, encoded(name), true),
            (&todo, encoded("lists/home/todos/2"), false),
            (&todo, Value::Todo(Bytes::from_static(b"\xff\xff")), false),
            (&todo, page(&[name]), false),
            (&todo, Value::Absent, true),
            (&list, page(&[name]), true),
            (&list, page(&["lists/work/todos/1"]), false),
            (&list, page(&[name, name]), false),
            (&list, Value::Absent, false),
        ] {
            let metrics = Arc::new(Metrics::default());
            let shared: Arc<dyn Shared> = Arc::new(MemoryShared::default());
            let tiers = Tiers::new(
                Near::new(1 << 20),
                Some(shared),
                Duration::from_secs(60),
                metrics,
            );
            let as_of = OriginTime(1);
            tiers.store_shared(
                7,
                key,
                &Stamped {
                    as_of,
                    value: value.clone(),
                },
            );
            let found = tiers.lookup_shared(7, std::slice::from_ref(key)).await;
            assert_eq!(found[0].is_some(), served, "{key}: {value:?}");
        }
    }
}
