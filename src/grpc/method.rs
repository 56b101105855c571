//! The methods that the server knows: what each is called in metrics, and how
//! large a request may be.

use std::time::Duration;

/// Largest request of the todo service in bytes, compressed or not. The largest
/// valid one (a thousand names of 139 bytes and a hundred tokens) is below
/// 160 KiB.
pub const MAX_REQUEST_BYTES: usize = 256 << 10;
/// Largest health request in bytes: it holds one service name.
pub const MAX_HEALTH_REQUEST_BYTES: usize = 4 << 10;
/// Largest reflection request in bytes: it holds one symbol or file name.
pub const MAX_REFLECTION_REQUEST_BYTES: usize = 64 << 10;
/// Longest time from a call's headers to the end of its request. The slowest
/// network that gRPC is used on sends `MAX_REQUEST_BYTES` in that time.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause between two requests of a reflection stream: people explore a
/// service by hand.
pub const REFLECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Names of the methods in metrics. Those of other services share the last.
pub const LABELS: [&str; 13] = [
    "GetTodo",
    "BatchGetTodos",
    "ListTodos",
    "CreateTodo",
    "UpdateTodo",
    "DeleteTodo",
    "WatchTodos",
    "GetTodoList",
    "ListTodoLists",
    "CreateTodoList",
    "UpdateTodoList",
    "DeleteTodoList",
    "other",
];
const OTHER: usize = LABELS.len() - 1;

/// How the requests of a method are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// One message.
    One,
    /// A stream of messages.
    Stream,
}

/// What the RPC layer knows of a method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Index of its name in `LABELS`.
    pub label: usize,
    /// Largest request in bytes.
    pub max_request_bytes: usize,
    /// How its requests are read.
    pub requests: Requests,
    /// Whether the call continues after the head of its response.
    pub streams_replies: bool,
    /// Whether it changes something: its calls stand in the audit log.
    pub writes: bool,
    /// Whether replies may be compressed: single todos and changes are too
    /// small for it to pay, and the service decides for each list by its size.
    pub compresses_replies: bool,
}

impl Method {
    /// The method of a request with this path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let unary = Self {
            label: OTHER,
            max_request_bytes: MAX_REQUEST_BYTES,
            requests: Requests::One,
            streams_replies: false,
            writes: false,
            compresses_replies: false,
        };
        if let Some(name) = path.strip_prefix("/todo.v1.TodoService/") {
            return Self {
                label: LABELS
                    .iter()
                    .position(|label| *label == name)
                    .unwrap_or(OTHER),
                streams_replies: name == "WatchTodos",
                writes: ["Create", "Update", "Delete"]
                    .iter()
                    .any(|verb| name.starts_with(verb)),
                compresses_replies: matches!(name, "ListTodos" | "BatchGetTodos" | "ListTodoLists"),
                ..unary
            };
        }
        if path.starts_with("/grpc.reflection.") {
            return Self {
                max_request_bytes: MAX_REFLECTION_REQUEST_BYTES,
                requests: Requests::Stream,
                streams_replies: true,
                ..unary
            };
        }
        Self {
            max_request_bytes: MAX_HEALTH_REQUEST_BYTES,
            streams_replies: path == "/grpc.health.v1.Health/Watch",
            ..unary
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        LABELS[self.label]
    }
}
