//! The replies that carry todos, with each todo as the bytes that a cache
//! holds: on the wire a submessage and a `bytes` field look the same. The
//! tests compare them with the generated types.

use bytes::Bytes;

use crate::pb;

/// `todo.v1.GetTodoResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetTodoResponse {
    /// The todo, encoded.
    #[prost(bytes = "bytes", tag = "1")]
    pub todo: Bytes,
    /// How fresh it is.
    #[prost(message, optional, tag = "2")]
    pub read: Option<pb::ReadInfo>,
}

/// `todo.v1.BatchGetTodosResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchGetTodosResponse {
    /// The todos, encoded.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub todos: Vec<Bytes>,
    /// Names that no todo has.
    #[prost(string, repeated, tag = "2")]
    pub missing: Vec<String>,
    /// How fresh the answer is.
    #[prost(message, optional, tag = "3")]
    pub read: Option<pb::ReadInfo>,
    /// Names whose document cannot be read as a todo.
    #[prost(string, repeated, tag = "4")]
    pub unreadable: Vec<String>,
}

/// `todo.v1.ListTodosResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListTodosResponse {
    /// The todos, encoded.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub todos: Vec<Bytes>,
    /// Asks for the next page.
    #[prost(string, tag = "2")]
    pub next_page_token: String,
    /// How fresh the page is.
    #[prost(message, optional, tag = "3")]
    pub read: Option<pb::ReadInfo>,
    /// Names whose document cannot be read as a todo.
    #[prost(string, repeated, tag = "4")]
    pub unreadable: Vec<String>,
}

/// `todo.v1.WatchTodosResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchTodosResponse {
    /// Where to resume.
    #[prost(string, tag = "1")]
    pub token: String,
    /// What happened.
    #[prost(oneof = "WatchEvent", tags = "2, 3, 4")]
    pub event: Option<WatchEvent>,
}

/// `todo.v1.WatchTodosResponse.event`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum WatchEvent {
    /// A todo changed: a `TodoChange`, encoded once for all watchers.
    #[prost(bytes = "bytes", tag = "2")]
    Change(Bytes),
    /// Nothing was missed up to the token.
    #[prost(message, tag = "3")]
    Progress(pb::WatchProgress),
    /// All that was cached must be read anew.
    #[prost(message, tag = "4")]
    Reset(pb::WatchReset),
}

/// `todo.v1.TodoChange`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TodoChange {
    /// Which todo.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What happened to it.
    #[prost(enumeration = "pb::todo_change::Kind", tag = "2")]
    pub kind: i32,
    /// The todo, encoded; empty if not asked for or gone.
    #[prost(bytes = "bytes", tag = "3")]
    pub todo: Bytes,
    /// When it was committed.
    #[prost(message, optional, tag = "4")]
    pub commit_time: Option<prost_types::Timestamp>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn todo() -> pb::Todo {
        pb::Todo {
            name: "lists/a/todos/b".into(),
            title: "Milk".into(),
            etag: "e".into(),
            ..pb::Todo::default()
        }
    }

    fn bytes() -> Bytes {
        todo().encode_to_vec().into()
    }

    fn read() -> Option<pb::ReadInfo> {
        Some(pb::ReadInfo {
            token: "t".into(),
            source: 1,
            staleness_bound: None,
            stale: false,
        })
    }

    #[test]
    fn on_the_wire_they_are_the_generated_types() {
        let plain = pb::GetTodoResponse {
            todo: Some(todo()),
            read: read(),
        };
        assert_eq!(
            GetTodoResponse {
                todo: bytes(),
                read: read()
            }
            .encode_to_vec(),
            plain.encode_to_vec()
        );
        let (missing, unreadable) = (vec!["m".to_owned()], vec!["u".to_owned()]);
        let plain = pb::BatchGetTodosResponse {
            todos: vec![todo(); 2],
            missing: missing.clone(),
            read: read(),
            unreadable: unreadable.clone(),
        };
        let todos = vec![bytes(); 2];
        let ours = BatchGetTodosResponse {
            todos: todos.clone(),
            missing,
            read: read(),
            unreadable: unreadable.clone(),
        };
        assert_eq!(ours.encode_to_vec(), plain.encode_to_vec());
        let next_page_token = "n".to_owned();
        let plain = pb::ListTodosResponse {
            todos: vec![todo(); 2],
            next_page_token: next_page_token.clone(),
            read: read(),
            unreadable: unreadable.clone(),
        };
        let ours = ListTodosResponse {
            todos,
            next_page_token,
            read: read(),
            unreadable,
        };
        assert_eq!(ours.encode_to_vec(), plain.encode_to_vec());
        let commit_time = Some(prost_types::Timestamp {
            seconds: 5,
            nanos: 0,
        });
        for with_todo in [true, false] {
            let change = pb::TodoChange {
                name: "n".into(),
                kind: 2,
                todo: with_todo.then(todo),
                commit_time,
            };
            let event = pb::watch_todos_response::Event::Change(change);
            let plain = pb::WatchTodosResponse {
                token: "t".into(),
                event: Some(event),
            };
            let todo = if with_todo { bytes() } else { Bytes::new() };
            let change = TodoChange {
                name: "n".into(),
                kind: 2,
                todo,
                commit_time,
            };
            let ours = WatchTodosResponse {
                token: "t".into(),
                event: Some(WatchEvent::Change(change.encode_to_vec().into())),
            };
            assert_eq!(ours.encode_to_vec(), plain.encode_to_vec());
        }
    }
}
