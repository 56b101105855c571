//! What a decoded request takes in memory while its call is under way.
//!
//! An element of a repeated field has two bytes on the wire and several hundred once it
//! is worked on, so elements are counted besides bytes.

use prost::Message;

use crate::pb;

/// The message itself, what is parsed from it, and what is handed to the cache.
const COPIES: usize = 3;
/// A name of a batch beside its text: its string, the parsed name, its miss, its load,
/// and its part of the response.
const BATCH_NAME_BYTES: usize = 600;
/// Names of a batch that are worked on: more are refused, not waited for.
const WORKED_NAMES: usize = 1000;
/// A string beside its text. With 256 KiB of empty ones a request is within the least
/// budget, so that it is told what is wrong with it.
const ELEMENT_BYTES: usize = 40;

/// A request whose memory is known.
pub trait RequestMemory: Message {
    /// Bytes that it takes once decoded, at most.
    fn memory(&self) -> usize {
        self.encoded_len() * COPIES + self.elements()
    }

    /// Bytes of the elements of its repeated fields, beside their contents.
    fn elements(&self) -> usize {
        0
    }
}

impl RequestMemory for pb::GetTodoRequest {}
impl RequestMemory for pb::ListTodosRequest {}
impl RequestMemory for pb::DeleteTodoRequest {}

impl RequestMemory for pb::BatchGetTodosRequest {
    fn elements(&self) -> usize {
        let worked = self.names.len().min(WORKED_NAMES);
        self.names.capacity() * ELEMENT_BYTES + worked * BATCH_NAME_BYTES
    }
}

impl RequestMemory for pb::CreateTodoRequest {
    fn elements(&self) -> usize {
        self.todo.as_ref().map_or(0, label_bytes)
    }
}

impl RequestMemory for pb::UpdateTodoRequest {
    fn elements(&self) -> usize {
        let paths = self.update_mask.as_ref();
        let paths = paths.map_or(0, |mask| mask.paths.capacity() * ELEMENT_BYTES);
        paths + self.todo.as_ref().map_or(0, label_bytes)
    }
}

impl RequestMemory for pb::WatchTodosRequest {
    fn elements(&self) -> usize {
        self.names.capacity() * ELEMENT_BYTES
    }
}

impl RequestMemory for pb::GetTodoListRequest {}
impl RequestMemory for pb::ListTodoListsRequest {}
impl RequestMemory for pb::DeleteTodoListRequest {}

impl RequestMemory for pb::CreateTodoListRequest {
    fn elements(&self) -> usize {
        self.todo_list.as_ref().map_or(0, member_bytes)
    }
}

impl RequestMemory for pb::UpdateTodoListRequest {
    fn elements(&self) -> usize {
        let paths = self.update_mask.as_ref();
        let paths = paths.map_or(0, |mask| mask.paths.capacity() * ELEMENT_BYTES);
        paths + self.todo_list.as_ref().map_or(0, member_bytes)
    }
}

/// A member is parsed into a map, and handed on as pairs.
fn member_bytes(list: &pb::TodoList) -> usize {
    list.members.len() * 2 * ELEMENT_BYTES
}

fn label_bytes(todo: &pb::Todo) -> usize {
    todo.labels.capacity() * ELEMENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 KiB of empty elements decode to 3 MB of strings.
    #[test]
    fn empty_elements_are_counted() {
        let most = 3 << 20;
        let empty = || vec![String::new(); 128 << 10];
        let batch = pb::BatchGetTodosRequest {
            names: empty(),
            consistency: None,
        };
        assert_eq!(batch.encoded_len(), 256 << 10);
        assert!(batch.memory() > most);
        let watch = pb::WatchTodosRequest {
            names: empty(),
            ..Default::default()
        };
        assert!(watch.memory() > most);
        let labels = Some(pb::Todo {
            labels: empty(),
            ..Default::default()
        });
        let create = pb::CreateTodoRequest {
            todo: labels.clone(),
            ..Default::default()
        };
        assert!(create.memory() > most);
        let mut update = pb::UpdateTodoRequest {
            todo: labels,
            ..Default::default()
        };
        assert!(update.memory() > most);
        update.todo = None;
        update.update_mask = Some(prost_types::FieldMask { paths: empty() });
        assert!(update.memory() > most);
    }
}
