//! Keeps back todos that no client could receive, and decides which replies are
//! compressed. That a list of todos fits into a reply is the cache's to see.

use bytes::Bytes;
use prost::Message;
use tonic::Response;

use super::encoded::EncodedTodo;
use crate::{cache::MAX_TODO_BYTES, error::Error, pb};

/// Compressing a smaller reply costs more CPU time than sending it: gzip takes
/// some 20 ns a byte, and has a fixed cost of a whole call.
const COMPRESS_FROM: usize = 16 << 10;
/// Compressing a larger reply would keep a thread of the runtime from other
/// calls for more than 5 ms.
const COMPRESS_TO: usize = 256 << 10;

/// The response with this list of todos, compressed if the client accepts it
/// and its size is one for which that pays.
pub fn list_response<T: Message>(reply: T) -> Response<T> {
    let pays = (COMPRESS_FROM..=COMPRESS_TO).contains(&reply.encoded_len());
    let mut response = Response::new(reply);
    if !pays {
        response.disable_compression();
    }
    response
}

/// Refuses a todo that no client could receive.
///
/// # Errors
/// `MessageTooLarge`.
pub fn check_todo(todo: &EncodedTodo) -> Result<(), Error> {
    if todo.encoded_len() <= MAX_TODO_BYTES {
        return Ok(());
    }
    Err(Error::MessageTooLarge {
        what: "stored todo",
        limit: MAX_TODO_BYTES,
        advice: "shorten it in the database".into(),
    })
}

/// The todo that goes with a write or a change; `None` if there is none, or
/// none that a client could receive.
pub fn sendable_todo(todo: Bytes) -> Option<EncodedTodo> {
    EncodedTodo::from_bytes(todo).filter(|todo| check_todo(todo).is_ok())
}

/// Moves todos that no client could receive to `unreadable`.
pub fn remove_oversized(todos: &mut Vec<EncodedTodo>, unreadable: &mut Vec<String>) {
    let oversized = todos.extract_if(.., |todo| todo.encoded_len() > MAX_TODO_BYTES);
    unreadable.extend(oversized.map(|todo| name(&todo)));
}

fn name(todo: &EncodedTodo) -> String {
    pb::Todo::decode(todo.encode_to_vec().as_slice())
        .map(|todo| todo.name)
        .unwrap_or_default()
}
