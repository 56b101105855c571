//! Being built.

pub mod reply {
    //! Placeholder.
    pub use crate::pb::{BatchGetTodosResponse, GetTodoResponse, ListTodosResponse, WatchTodosResponse};
}
