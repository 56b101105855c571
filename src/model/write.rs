//! What a write asks of the origin, and what comes back.

use bytes::Bytes;
use uuid::Uuid;

use super::{OriginTime, Patch, TodoName};
use crate::pb;

/// One write of one todo.
#[derive(Clone, Debug)]
pub enum Write {
    /// Create it; refused if there is one.
    Create {
        /// Its name.
        name: TodoName,
        /// Its fields, already validated; name, times and etag are set by the
        /// origin.
        todo: pb::Todo,
    },
    /// Change some of its fields.
    Update {
        /// Its name.
        name: TodoName,
        /// The fields to change, already validated.
        patch: Patch,
        /// Refused unless the stored todo has this etag.
        etag: Option<String>,
        /// Create it from the patch if there is none.
        allow_missing: bool,
    },
    /// Delete it.
    Delete {
        /// Its name.
        name: TodoName,
        /// Refused unless the stored todo has this etag.
        etag: Option<String>,
        /// Succeed if there is none.
        allow_missing: bool,
    },
}

impl Write {
    /// Which todo.
    #[must_use]
    pub const fn name(&self) -> &TodoName {
        match self {
            Self::Create { name, .. } | Self::Update { name, .. } | Self::Delete { name, .. } => {
                name
            }
        }
    }

    /// The bytes of the texts that it carries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = |labels: &[String]| labels.iter().map(String::len).sum::<usize>();
        match self {
            Self::Create { todo, .. } => todo.title.len() + todo.notes.len() + texts(&todo.labels),
            Self::Update { patch, .. } => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                text(&patch.title) + text(&patch.notes) + patch.labels.as_deref().map_or(0, texts)
            }
            Self::Delete { .. } => 0,
        }
    }
}

/// Makes a write happen once, however often it is sent within 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The caller's UUID.
    pub id: Uuid,
    /// A hash of everything else in the request: the same id with another one
    /// is refused.
    pub fingerprint: [u8; 16],
}

/// A write that took place (or, repeated under its request id, had taken
/// place).
#[derive(Clone, Debug)]
pub struct WriteDone {
    /// The todo as it is now, encoded with its etag; after a delete: empty.
    pub todo: Bytes,
    /// An upper bound of the write's commit time: right for fence and token,
    /// never a stamp.
    pub time: OriginTime,
}
