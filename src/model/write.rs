//! What a write asks of the origin, and what comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use uuid::Uuid;

use super::{ListName, ListPatch, OriginTime, Patch, Resource, TodoName};
use crate::pb;

/// One write of one todo or list.
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
    /// Create a list; refused if there is one.
    CreateList {
        /// Its name.
        name: ListName,
        /// Its fields, already validated; name, times and etag are set by the
        /// origin.
        list: pb::TodoList,
    },
    /// Change some fields of a list.
    UpdateList {
        /// Its name.
        name: ListName,
        /// The fields to change, already validated.
        patch: ListPatch,
        /// Refused unless the stored list has this etag.
        etag: Option<String>,
    },
    /// Delete a list.
    DeleteList {
        /// Its name.
        name: ListName,
        /// Refused unless the stored list has this etag.
        etag: Option<String>,
        /// Delete its todos as well, in bounded batches, before the list. Without it,
        /// refused if there is any.
        force: bool,
    },
}

impl Write {
    /// What it writes.
    #[must_use]
    pub fn name(&self) -> Resource {
        match self {
            Self::Create { name, .. } | Self::Update { name, .. } | Self::Delete { name, .. } => {
                name.clone().into()
            }
            Self::CreateList { name, .. }
            | Self::UpdateList { name, .. }
            | Self::DeleteList { name, .. } => name.clone().into(),
        }
    }

    /// The members that a list has after it, and their roles as the API names them.
    /// `None`: it leaves them as they are.
    #[must_use]
    pub fn members(&self) -> Option<BTreeMap<String, &'static str>> {
        match self {
            Self::CreateList { list, .. } => {
                let members = list.members.iter();
                let role = |role: i32| pb::Role::try_from(role).unwrap_or_default();
                Some(
                    members
                        .map(|(member, of)| (member.clone(), role(*of).as_str_name()))
                        .collect(),
                )
            }
            Self::UpdateList { patch, .. } => {
                let members = patch.members.as_ref()?.iter();
                Some(
                    members
                        .map(|(member, role)| (member.clone(), role.as_str_name()))
                        .collect(),
                )
            }
            _ => None,
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
            Self::CreateList { list, .. } => list.encoded_len(),
            Self::UpdateList { patch, .. } => {
                let members = patch.members.iter().flatten();
                let members: usize = members.map(|(member, _)| member.len()).sum();
                patch.title.as_ref().map_or(0, String::len) + members
            }
            Self::Delete { .. } | Self::DeleteList { .. } => 0,
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

impl RequestId {
    /// The same id of another caller is another one.
    #[must_use]
    pub fn of_caller(self, principal: &str) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(self.id.as_bytes()).update(principal.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self {
            id: Uuid::from_bytes(id),
            ..self
        }
    }
}

/// A write that took place (or, repeated under its request id, had taken
/// place).
#[derive(Clone, Debug)]
pub struct WriteDone {
    /// The todo or list as it is now, encoded with its etag; after a delete: empty.
    pub body: Bytes,
    /// An upper bound of the write's commit time: right for fence and token,
    /// never a stamp.
    pub time: OriginTime,
}
