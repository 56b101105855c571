//! Bounds replies, and decides which are compressed.
//!
//! gRPC clients refuse messages above 4 MiB by default. A page ends early and
//! has a next token; a batch is refused with the number of names that fit.

use bytes::Bytes;
use prost::Message;
use tonic::Response;

use super::{
    encoded::EncodedTodo,
    server::{BatchGetTodosResponse, ListTodosResponse},
};
use crate::{cache::MAX_TODO_BYTES, error::Error, pb};

/// Largest reply in bytes.
pub use crate::cache::MAX_RESPONSE_BYTES as MAX_REPLY_BYTES;
/// Bytes before each todo in a list: tag and length.
const TODO_OVERHEAD: usize = 5;

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

/// How many of the page's names fit into a reply; `None`: all do.
pub fn fitting_names(page: &ListTodosResponse) -> Option<u32> {
    let whole = page.encoded_len();
    if whole <= MAX_REPLY_BYTES {
        return None;
    }
    let todos = || {
        page.todos
            .iter()
            .map(|todo| todo.encoded_len() + TODO_OVERHEAD)
    };
    let mut bytes = whole.saturating_sub(todos().sum());
    let fitting = todos().take_while(|todo| {
        bytes += todo;
        bytes <= MAX_REPLY_BYTES
    });
    Some(u32::try_from(fitting.count()).unwrap_or(u32::MAX).max(1))
}

/// Refuses a batch that no client could receive.
///
/// # Errors
/// `MessageTooLarge` with how many of the names fit.
pub fn check_batch(batch: &BatchGetTodosResponse) -> Result<(), Error> {
    if batch.encoded_len() <= MAX_REPLY_BYTES {
        return Ok(());
    }
    let largest = batch.todos.iter().map(Message::encoded_len).max();
    let fitting = MAX_REPLY_BYTES / (largest.unwrap_or_default() + TODO_OVERHEAD);
    Err(Error::MessageTooLarge {
        what: "reply",
        limit: MAX_REPLY_BYTES,
        advice: format!("ask for at most {fitting} of these names at once"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn todos(count: usize, bytes: usize) -> Vec<EncodedTodo> {
        vec![EncodedTodo::from(Bytes::from(vec![0; bytes])); count]
    }

    fn page(count: usize, bytes: usize) -> ListTodosResponse {
        ListTodosResponse {
            todos: todos(count, bytes),
            ..ListTodosResponse::default()
        }
    }

    #[test]
    fn a_page_keeps_what_fits() {
        assert_eq!(fitting_names(&page(1000, 400)), None);
        assert_eq!(fitting_names(&page(1, MAX_TODO_BYTES)), None);
        for bytes in [6_000, 45_000, 1 << 20] {
            let fitting = fitting_names(&page(1000, bytes)).expect("too large");
            assert_eq!(fitting_names(&page(fitting as usize, bytes)), None);
            let wasted = MAX_REPLY_BYTES - page(fitting as usize, bytes).encoded_len();
            assert!(wasted < bytes + 4096, "{bytes}: {wasted} bytes unused");
        }
    }

    #[test]
    fn a_batch_says_how_many_names_fit() {
        let batch = |count, bytes| BatchGetTodosResponse {
            todos: todos(count, bytes),
            ..BatchGetTodosResponse::default()
        };
        assert!(check_batch(&batch(1000, 4_000)).is_ok());
        let text = check_batch(&batch(1000, 45_000))
            .expect_err("too large")
            .to_string();
        let number = text
            .split_whitespace()
            .rev()
            .find_map(|word| word.parse().ok());
        assert!(check_batch(&batch(number.expect("a number"), 45_000)).is_ok());
    }
}
