//! The simulated shared tier: one store, seen by each replica through its own
//! handle. It loses, delays, keeps and brings back what it was ever given.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tidemark::{
    model::{ListName, OriginTime, Stamped, TodoName, Value},
    tier::{
        record,
        shared::{Shared, SharedKey},
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    origin::Link,
    world::{Bug, World},
};

/// The tier gives up an answer that takes longer.
const OWN_LIMIT: Duration = Duration::from_millis(50);

#[derive(Default)]
pub struct Store {
    entries: BTreeMap<String, (Bytes, Instant)>,
    /// All that it was ever given.
    given: Vec<(String, Bytes)>,
}

impl Store {
    pub fn flush(&mut self) {
        self.entries.clear();
    }

    /// Brings back old entries, as a failover does. Some with a lifetime that
    /// is over.
    pub fn bring_back(&mut self, world: &World, now: Instant) {
        for (key, entry) in &self.given {
            if world.rng().chance(30) {
                self.entries
                    .insert(key.clone(), (entry.clone(), now + Duration::from_secs(60)));
            }
        }
    }
}

/// One replica's handle.
pub struct SimShared(pub Arc<Link>);

impl SimShared {
    fn look(&self, key: &str) -> Option<Bytes> {
        let world = &self.0.world;
        let now = Instant::now();
        let kept = {
            let store = world.store();
            let kept = store.entries.get(key);
            // An entry may be kept beyond its lifetime.
            kept.filter(|(_, ends)| *ends > now || world.rng().chance(50))
                .map(|(entry, _)| entry.clone())
        };
        let lossy = world.active_faults().shared_lossy > 0;
        if lossy && world.rng().chance(30) {
            return None;
        }
        if lossy && world.rng().chance(20) {
            return self.some_old(key);
        }
        match kept {
            Some(entry) if world.has(Bug::SharedStampForged) => Some(self.forge(key, &entry)),
            kept => kept,
        }
    }

    /// Something that was given before: mostly under this key.
    fn some_old(&self, key: &str) -> Option<Bytes> {
        let (store, mut rng) = (self.0.world.store(), self.0.world.rng());
        let any = rng.chance(10);
        let old: Vec<_> = store
            .given
            .iter()
            .filter(|(k, _)| any || k == key)
            .collect();
        let entry = (!old.is_empty()).then(|| rng.pick(&old).1.clone())?;
        if rng.chance(10) {
            let mut damaged = entry.to_vec();
            let at = usize::try_from(rng.of(0..damaged.len() as u64)).expect("an index");
            damaged[at] ^= 1;
            return Some(damaged.into());
        }
        Some(entry)
    }

    fn forge(&self, key: &str, raw: &Bytes) -> Bytes {
        let Some((scope, whole)) = self.whole(key) else {
            return raw.clone();
        };
        let Ok(stamped) = record::decode(scope, &whole, raw) else {
            return raw.clone();
        };
        let as_of = self.0.world.history().last;
        record::encode(
            scope,
            &whole,
            &Stamped {
                as_of,
                value: stamped.value,
            },
        )
    }

    /// The scope, and the name of the todo or list or the text of the query.
    fn whole(&self, key: &str) -> Option<(u64, String)> {
        let (scope, rest) = key.split_once(':')?;
        let scope = u64::from_str_radix(scope, 16).ok()?;
        if TodoName::parse(rest).is_some() || ListName::parse(rest).is_some() {
            return Some((scope, rest.to_owned()));
        }
        let of = |text: &String| format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()));
        if let Some(hash) = rest.strip_prefix("lists:") {
            let queries = self.0.world.lists_queries.lock();
            let queries = queries.expect("no panic while locked");
            let mut texts = queries.keys();
            return texts
                .find(|text| of(text) == hash)
                .map(|text| (scope, text.clone()));
        }
        let queries = self.0.world.queries.lock().expect("no panic while locked");
        let hash = rest.strip_prefix("page:")?;
        queries
            .keys()
            .find(|text| of(text) == hash)
            .map(|text| (scope, text.clone()))
    }

    /// Whatever is given to the shared tier must be exact: others trust its
    /// stamp.
    fn check(&self, key: &str, raw: &Bytes) {
        let world = &self.0.world;
        let wrong = |what: String| world.violated("entry", format!("{key}: {what}"));
        let Some((scope, whole)) = self.whole(key) else {
            return wrong("no key of ours".into());
        };
        let stamped = match record::decode(scope, &whole, raw) {
            Ok(stamped) => stamped,
            Err(rejected) => return wrong(format!("{rejected:?}")),
        };
        let history = world.history();
        let truth = if let Some(name) = TodoName::parse(&whole) {
            history.value_at(&name, stamped.as_of)
        } else if let Some(name) = ListName::parse(&whole) {
            history.list_value_at(&name, stamped.as_of)
        } else if whole.starts_with("lists?") {
            let queries = world.lists_queries.lock().expect("no panic while locked");
            Value::Lists(Arc::new(history.lists_at(&queries[&whole], stamped.as_of)))
        } else {
            let queries = world.queries.lock().expect("no panic while locked");
            Value::Page(Arc::new(history.page_at(&queries[&whole], stamped.as_of)))
        };
        let last = history.last;
        drop(history);
        if truth != stamped.value || stamped.as_of > last || stamped.as_of == OriginTime::ZERO {
            wrong(format!(
                "given as of {} is {:?}, and was {truth:?}",
                stamped.as_of, stamped.value
            ));
        }
    }
}

#[async_trait]
impl Shared for SimShared {
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>> {
        let world = &self.0.world;
        let (down, slow) = {
            let active_faults = world.active_faults();
            (active_faults.shared_down > 0, active_faults.shared_slow > 0)
        };
        let delay = world.rng().ms(if slow { 1..120 } else { 0..3 });
        sleep(delay.min(OWN_LIMIT)).await;
        if down || delay >= OWN_LIMIT || self.0.dead.is_cancelled() {
            return vec![None; keys.len()];
        }
        world.count("shared gets");
        keys.iter().map(|key| self.look(&key.key)).collect()
    }

    fn put(&self, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration) {
        let world = &self.0.world;
        for (SharedKey { key, .. }, entry) in entries {
            self.check(&key, &entry);
            let active_faults = world.active_faults();
            let (down, slow) = (active_faults.shared_down > 0, active_faults.shared_slow > 0);
            let lossy = active_faults.shared_lossy > 0;
            drop(active_faults);
            if down || self.0.dead.is_cancelled() || (lossy && world.rng().chance(30)) {
                continue;
            }
            let delay = world.rng().ms(if slow { 0..800 } else { 0..4 });
            let world = Arc::clone(world);
            // Later puts may overtake earlier ones.
            tokio::spawn(async move {
                sleep(delay).await;
                let mut store = world.store();
                store.given.push((key.clone(), entry.clone()));
                store
                    .entries
                    .insert(key, (entry, Instant::now() + lifetime));
            });
        }
    }

    async fn lease(&self, _: &SharedKey, _: Duration) -> bool {
        true
    }

    fn is_up(&self) -> bool {
        self.0.world.active_faults().shared_down == 0
    }
}
