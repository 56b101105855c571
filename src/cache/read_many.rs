//! Several todos of one request: near hits first, then the others in steps, so that what
//! is read stays within one response, and within the budget of loads.

use futures::{
    StreamExt as _,
    stream::{self, Stream},
};
use prost::Message as _;

use super::{
    Cache, MAX_RESPONSE_BYTES, MAX_TODO_BYTES,
    read::{Lookup, near_span},
    request::{Miss, ReadItem, ReadItems, ReadRequest},
};
use crate::{
    budget::Part,
    error::{Error, Unavailable},
    model::{KeyRef, Value},
};

/// Misses of one step of a request: as many as one load has.
const STEP_KEYS: usize = 128;
/// Steps of one request at once.
const STEPS_AT_ONCE: usize = 2;
/// Memory of a key of a request that waits, beside its value: its name, which a page that the
/// near cache does not have keeps alive, its item, and its miss.
pub(super) const KEY_BYTES: usize = 512;
/// Bytes before each todo in a response: tag and length.
const TODO_OVERHEAD: usize = 5;
/// Bytes of a name in a response, at most.
const NAME_BYTES: usize = 144;
/// Most bytes of todos and names in a response. The rest of it, such as its tokens, takes
/// less than 1 KiB.
const MAX_ITEMS_BYTES: usize = MAX_RESPONSE_BYTES - (1 << 10);

impl Cache {
    /// Several todos or lists, in their order. Near hits share their bytes with the near cache,
    /// and need no room; a request that has to wait for the others does.
    pub(super) async fn read_many<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = KeyRef<'k>>,
        request: &ReadRequest<'_>,
    ) -> Result<ReadItems, Error> {
        let (mut items, mut misses) = (Vec::with_capacity(keys.len()), Vec::new());
        near_span(keys.len()).in_scope(|| {
            for (at, key) in keys.enumerate() {
                match self.lookup_near(at, key, request) {
                    Lookup::Hit(item) => items.push(Some(item)),
                    Lookup::Miss(miss) => {
                        items.push(None);
                        misses.push(miss);
                    }
                }
            }
        });
        if !misses.is_empty()
            && let Some(fitting) = Box::pin(self.read_rest(misses, &mut items, request)).await?
        {
            let known = items;
            return Ok(ReadItems::TooLarge { fitting, known });
        }
        let bytes: usize = items.iter().flatten().map(sent_bytes).sum();
        if bytes > MAX_ITEMS_BYTES && items.len() > 1 {
            let (fitting, known) = (fitting(&items), items);
            return Ok(ReadItems::TooLarge { fitting, known });
        }
        // A lost item would shift the names of all that follow.
        let items: Option<Vec<_>> = items.into_iter().collect();
        let items = items.ok_or_else(|| Unavailable::NoValue)?;
        Ok(ReadItems::All(items))
    }

    /// Reads the misses of a request, a few steps at a time, and stops as soon as the
    /// todos are too large for one response; returns then how many would fit.
    async fn read_rest(
        &self,
        misses: Vec<Miss>,
        items: &mut [Option<ReadItem>],
        request: &ReadRequest<'_>,
    ) -> Result<Option<usize>, Error> {
        let loads = self.budgets.of(Part::Loads);
        let keys = (items.len() * KEY_BYTES) as u64;
        let held = loads.reserve(request.caller, keys);
        let mut held = held.ok_or_else(|| self.overloaded(loads))?;
        let mut bytes: usize = items.iter().flatten().map(sent_bytes).sum();
        let mut steps = steps(misses)
            .map(|(step, misses)| self.read_through(misses, request, step > 0))
            .buffer_unordered(STEPS_AT_ONCE);
        loop {
            if bytes > MAX_ITEMS_BYTES && items.len() > 1 {
                return Ok(Some(fitting(items)));
            }
            if !held.try_grow((keys + bytes as u64).saturating_sub(held.amount())) {
                return Err(self.overloaded(loads));
            }
            let Some(found) = steps.next().await else {
                return Ok(None);
            };
            for (at, item) in found? {
                bytes += sent_bytes(&item);
                items[at] = Some(item);
            }
        }
    }
}

/// The misses of a request in steps, each with its number.
fn steps(misses: Vec<Miss>) -> impl Stream<Item = (usize, Vec<Miss>)> {
    let mut misses = misses.into_iter();
    let steps = std::iter::from_fn(move || {
        let step: Vec<_> = misses.by_ref().take(STEP_KEYS).collect();
        (!step.is_empty()).then_some(step)
    });
    stream::iter(steps.enumerate())
}

/// The bytes of an item in a response: the todo, or its name. A todo that no client
/// could receive is left out.
fn sent_bytes(item: &ReadItem) -> usize {
    match &item.value {
        Value::Todo(todo) if todo.len() <= MAX_TODO_BYTES => todo.len() + TODO_OVERHEAD,
        Value::List(list) => list.encoded_len() + TODO_OVERHEAD,
        _ => NAME_BYTES,
    }
}

/// How many of the first items fit into a response, at least one. Those that are not
/// read yet are taken to be as large as the others in the mean.
fn fitting(items: &[Option<ReadItem>]) -> usize {
    let (known, bytes) = items.iter().flatten().fold((0, 0), |(known, bytes), item| {
        (known + 1, bytes + sent_bytes(item))
    });
    let mean = bytes / known.max(1);
    let mut left = MAX_ITEMS_BYTES;
    let fits = |item: &&Option<ReadItem>| {
        let next = left.checked_sub(item.as_ref().map_or(mean, sent_bytes));
        next.inspect(|next| left = *next).is_some()
    };
    items.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coherence::Admitted,
        model::{OriginTime, Source},
    };

    fn items(count: usize, bytes: usize) -> Vec<Option<ReadItem>> {
        let item = || ReadItem {
            value: Value::Todo(vec![0; bytes].into()),
            admitted: Admitted::at(OriginTime(1)),
            source: Source::Near,
            stale: false,
        };
        (0..count).map(|_| Some(item())).collect()
    }

    fn bytes_of(items: &[Option<ReadItem>]) -> usize {
        items.iter().flatten().map(sent_bytes).sum()
    }

    #[test]
    fn as_many_as_fit_are_told() {
        for bytes in [6_000, 45_000, MAX_TODO_BYTES] {
            let fitting = fitting(&items(1000, bytes));
            let used = bytes_of(&items(fitting, bytes));
            assert!(used <= MAX_ITEMS_BYTES && MAX_ITEMS_BYTES - used < bytes + TODO_OVERHEAD);
        }
        // One alone is always read; a todo that no client could receive is a name.
        assert_eq!(fitting(&items(1, MAX_TODO_BYTES)), 1);
        assert_eq!(bytes_of(&items(1, MAX_TODO_BYTES + 1)), NAME_BYTES);
    }
}
