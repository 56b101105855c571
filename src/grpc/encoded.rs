//! Parts of replies that are sent without encoding them again.
//!
//! A cached todo is held as bytes. `EncodedTodo` stands in the generated reply
//! types where the contract has `todo.v1.Todo` (see `build.rs`) and writes
//! those bytes as they are. `EncodedChange` writes the fields of a shared
//! change straight to the connection's buffer: that costs less than looking up
//! a copy that was encoded before.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use crate::{
    model::{Change, ChangeKind, timestamp_from_ms},
    pb::{TodoList, todo_change::Kind},
};

/// A `todo.v1.Todo`, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncodedTodo(Bytes);

impl EncodedTodo {
    /// The todo with these bytes; `None` if there are none.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }
}

impl From<Bytes> for EncodedTodo {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Message for EncodedTodo {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    /// Replies are only written: nothing is read back.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A `todo.v1.TodoList` that replies share with the cache. A copy would take an allocation
/// for each member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SharedList(Arc<TodoList>);

impl From<Arc<TodoList>> for SharedList {
    fn from(list: Arc<TodoList>) -> Self {
        Self(list)
    }
}

impl Message for SharedList {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    /// Replies are only written: nothing is read back.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A `todo.v1.TodoChange`: a change that all its watchers share, with the todo
/// as one of them wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncodedChange {
    change: Option<Arc<Change>>,
    todo: Option<EncodedTodo>,
}

/// Field numbers of `todo.v1.TodoChange`.
const NAME: u32 = 1;
const KIND: u32 = 2;
const TODO: u32 = 3;
const COMMIT_TIME: u32 = 4;

impl EncodedChange {
    /// This change; with the todo if it was asked for and is still there.
    #[must_use]
    pub fn new(change: Arc<Change>, todo: Option<EncodedTodo>) -> Self {
        Self {
            change: Some(change),
            todo,
        }
    }
}

const fn kind(kind: ChangeKind) -> Kind {
    match kind {
        ChangeKind::Created => Kind::Created,
        ChangeKind::Updated | ChangeKind::Replaced => Kind::Updated,
        ChangeKind::Deleted => Kind::Deleted,
    }
}

impl Message for EncodedChange {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        let Some(change) = &self.change else { return };
        let name = change.name.as_str();
        encoding::encode_key(NAME, WireType::LengthDelimited, buf);
        encoding::encode_varint(name.len() as u64, buf);
        buf.put_slice(name.as_bytes());
        encoding::int32::encode(KIND, &kind(change.kind).into(), buf);
        if let Some(todo) = &self.todo {
            encoding::message::encode(TODO, todo, buf);
        }
        encoding::message::encode(COMMIT_TIME, &timestamp_from_ms(change.wall_ms), buf);
    }

    fn encoded_len(&self) -> usize {
        let Some(change) = &self.change else { return 0 };
        let name = change.name.as_str().len();
        let todo = self.todo.as_ref();
        encoding::key_len(NAME)
            + encoding::encoded_len_varint(name as u64)
            + name
            + encoding::int32::encoded_len(KIND, &kind(change.kind).into())
            + todo.map_or(0, |todo| encoding::message::encoded_len(TODO, todo))
            + encoding::message::encoded_len(COMMIT_TIME, &timestamp_from_ms(change.wall_ms))
    }

    /// Replies are only written: nothing is read back.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grpc::server,
        model::{OriginTime, TodoName, Touched},
        pb,
    };

    fn todo() -> pb::Todo {
        pb::Todo {
            name: "lists/a/todos/b".into(),
            title: "Milk".into(),
            etag: "e".into(),
            ..pb::Todo::default()
        }
    }

    fn encoded() -> EncodedTodo {
        EncodedTodo::from(Bytes::from(todo().encode_to_vec()))
    }

    fn same(ours: &impl Message, plain: &impl Message) {
        assert_eq!(ours.encode_to_vec(), plain.encode_to_vec());
        assert_eq!(ours.encoded_len(), plain.encoded_len());
    }

    #[test]
    fn todos_are_written_as_the_contract_has_them() {
        let plain = pb::GetTodoResponse {
            todo: Some(todo()),
            read: None,
        };
        let ours = server::GetTodoResponse {
            todo: Some(encoded()),
            read: None,
        };
        same(&ours, &plain);
        let plain = pb::ListTodosResponse {
            todos: vec![todo(); 2],
            next_page_token: "n".into(),
            read: None,
            unreadable: vec!["u".into()],
        };
        let ours = server::ListTodosResponse {
            todos: vec![encoded(); 2],
            next_page_token: "n".into(),
            read: None,
            unreadable: vec!["u".into()],
        };
        same(&ours, &plain);
    }

    #[test]
    fn lists_are_written_as_the_contract_has_them() {
        let list = || pb::TodoList {
            name: "lists/a".into(),
            title: "Home".into(),
            members: [("ada".into(), 3), ("*".into(), 1)].into(),
            ..Default::default()
        };
        let shared = SharedList::from(Arc::new(list()));
        let plain = pb::GetTodoListResponse {
            todo_list: Some(list()),
            read: None,
        };
        let ours = server::GetTodoListResponse {
            todo_list: Some(shared.clone()),
            read: None,
        };
        same(&ours, &plain);
        let plain = pb::ListTodoListsResponse {
            todo_lists: vec![list(), pb::TodoList::default()],
            next_page_token: "n".into(),
            read: None,
            unreadable: vec!["u".into()],
        };
        let ours = server::ListTodoListsResponse {
            todo_lists: vec![shared, SharedList::default()],
            next_page_token: "n".into(),
            read: None,
            unreadable: vec!["u".into()],
        };
        same(&ours, &plain);
    }

    #[test]
    fn changes_are_written_as_the_contract_has_them() {
        let kinds = [
            (ChangeKind::Created, Kind::Created),
            (ChangeKind::Updated, Kind::Updated),
            (ChangeKind::Replaced, Kind::Updated),
            (ChangeKind::Deleted, Kind::Deleted),
        ];
        for (kind, wire_kind) in kinds {
            for with_todo in [true, false] {
                for wall_ms in [-1, 0, 1, 1_796_083_200_123] {
                    let change = Arc::new(Change {
                        name: TodoName::parse("lists/a/todos/b").expect("a name"),
                        kind,
                        touched: Touched::All,
                        time: OriginTime(5),
                        wall_ms,
                    });
                    let plain = pb::TodoChange {
                        name: "lists/a/todos/b".into(),
                        kind: wire_kind.into(),
                        todo: with_todo.then(todo),
                        commit_time: Some(timestamp_from_ms(wall_ms)),
                    };
                    let ours = EncodedChange::new(change, with_todo.then(encoded));
                    same(&ours, &plain);
                }
            }
        }
    }
}
