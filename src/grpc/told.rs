//! Changes as watchers are told of them: encoded once, however many watch.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message as _;

use super::reply::TodoChange;
use crate::{
    model::{Change, ChangeKind, timestamp_from_ms},
    pb::todo_change::Kind,
};

/// Changes kept in mind: all watchers of a list are told of one within the
/// time of a few others.
const SLOTS: usize = 64;

/// The changes that were encoded last. A slot keeps its change, so that no
/// other one can have its address meanwhile.
pub struct Told {
    slots: [Mutex<Option<Slot>>; SLOTS],
}

struct Slot {
    change: Arc<Change>,
    todo: Bytes,
    encoded: Bytes,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Told {
    /// The change with its todo (empty: without), encoded as a
    /// `todo.v1.TodoChange`.
    pub fn encoded(&self, change: &Arc<Change>, todo: Bytes) -> Bytes {
        let at = Arc::as_ptr(change).addr() / size_of::<Change>() % SLOTS;
        let mut slot = self.slots[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slot.as_ref()
            && Arc::ptr_eq(&slot.change, change)
            && same(&slot.todo, &todo)
        {
            return slot.encoded.clone();
        }
        let encoded = encode(change, todo.clone());
        *slot = Some(Slot {
            change: Arc::clone(change),
            todo,
            encoded: encoded.clone(),
        });
        encoded
    }
}

/// Whether they are the same bytes in memory.
fn same(a: &Bytes, b: &Bytes) -> bool {
    a.as_ptr() == b.as_ptr() && a.len() == b.len()
}

fn encode(change: &Change, todo: Bytes) -> Bytes {
    let kind = match change.kind {
        ChangeKind::Created => Kind::Created,
        ChangeKind::Updated | ChangeKind::Replaced => Kind::Updated,
        ChangeKind::Deleted => Kind::Deleted,
    };
    let told = TodoChange {
        name: change.name.to_string(),
        kind: kind.into(),
        todo,
        commit_time: Some(timestamp_from_ms(change.wall_ms)),
    };
    told.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OriginTime, TodoName, Touched};

    fn change(id: &str) -> Arc<Change> {
        Arc::new(Change {
            name: TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name"),
            kind: ChangeKind::Updated,
            touched: Touched::All,
            time: OriginTime(5),
            wall_ms: 7,
        })
    }

    #[test]
    fn encoded_once_and_never_taken_for_another() {
        let told = Told::default();
        let changes: Vec<_> = (0..500).map(|id| change(&id.to_string())).collect();
        let todo = Bytes::from(vec![1, 2, 3]);
        for change in &changes {
            let first = told.encoded(change, Bytes::new());
            assert!(
                same(&first, &told.encoded(change, Bytes::new())),
                "encoded once"
            );
            let with = told.encoded(change, todo.clone());
            assert_eq!(TodoChange::decode(with).expect("decoded").todo, todo);
            let decoded = TodoChange::decode(first).expect("decoded");
            assert_eq!(
                (decoded.name.as_str(), decoded.todo.len()),
                (change.name.as_str(), 0)
            );
        }
    }
}
