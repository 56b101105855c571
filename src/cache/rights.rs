//! Rights: a list's document says who may do what with it, and a response may be given
//! only by a document that is as fresh as the response.
//!
//! A right is looked at twice. Before the read, so that a caller without it costs no
//! load of a todo and learns nothing. After it, because the response may show a later
//! state than the document did: then the document is read again, not older than that
//! state. Whoever was removed from a list before a todo was written never sees it
//! (invariant I8 in `docs/protocol.md`).

use std::{collections::BTreeSet, slice, sync::Arc};

use tokio::time::Instant;

use super::{
    Cache, ReadOptions,
    lists::{LISTS_AT_ONCE, first_todo, has_names},
    request::{ReadItem, ReadRequest},
};
use crate::{
    auth,
    budget::{Caller, Part},
    coherence::Consistency,
    error::{Error, Unavailable},
    model::{KeyRef, ListName, OriginTime, ReadInfo, Token, Value, Write, role_of},
    pb::Role,
};

/// Something that a caller asks to do with a list or its todos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// `GetTodo` and `BatchGetTodos`.
    GetTodos,
    /// `ListTodos`.
    ListTodos,
    /// `WatchTodos`.
    WatchTodos,
    /// `GetTodoList`.
    GetList,
    /// `CreateTodo`.
    CreateTodo,
    /// `UpdateTodo`.
    UpdateTodo,
    /// `DeleteTodo`.
    DeleteTodo,
    /// `UpdateTodoList`.
    UpdateList,
    /// `DeleteTodoList`.
    DeleteList,
}

impl Permission {
    /// Its name in errors and in the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetTodos => "todos.get",
            Self::ListTodos => "todos.list",
            Self::WatchTodos => "todos.watch",
            Self::GetList => "lists.get",
            Self::CreateTodo => "todos.create",
            Self::UpdateTodo => "todos.update",
            Self::DeleteTodo => "todos.delete",
            Self::UpdateList => "lists.update",
            Self::DeleteList => "lists.delete",
        }
    }

    /// The least role that has it.
    const fn role(self) -> Role {
        match self {
            Self::GetTodos | Self::ListTodos | Self::WatchTodos | Self::GetList => Role::Reader,
            Self::CreateTodo | Self::UpdateTodo | Self::DeleteTodo => Role::Writer,
            Self::UpdateList | Self::DeleteList => Role::Owner,
        }
    }

    /// What a write needs. `None`: any authenticated caller may create a list.
    fn of(write: &Write) -> Option<Self> {
        Some(match write {
            Write::Create { .. } => Self::CreateTodo,
            Write::Update { .. } => Self::UpdateTodo,
            Write::Delete { .. } => Self::DeleteTodo,
            Write::UpdateList { .. } => Self::UpdateList,
            Write::DeleteList { .. } => Self::DeleteList,
            Write::CreateList { .. } => return None,
        })
    }
}

/// Rights on lists, found in their documents.
pub(super) struct Rights<'a> {
    permission: Permission,
    caller: &'a auth::Caller,
    lists: Lists,
    /// Every change of the documents up to this time was considered.
    fresh_to: OriginTime,
    /// A document was not as fresh as the request needs, while the origin is down.
    stale: bool,
}

/// The lists of a request: most have one, which needs no allocation.
enum Lists {
    One(ListName),
    Several(Vec<ListName>),
}

impl Lists {
    fn as_slice(&self) -> &[ListName] {
        match self {
            Self::One(list) => slice::from_ref(list),
            Self::Several(lists) => lists,
        }
    }
}

impl Rights<'_> {
    /// Whether the response that `read` describes shows no state later than the documents:
    /// then there is nothing to confirm.
    pub(super) fn cover(&self, read: &ReadInfo) -> bool {
        self.fresh_to >= read.token.seen && !self.stale
    }
}

impl Cache {
    /// The caller's right on a list, by a document as fresh as the request needs.
    /// `None`: the caller needs none.
    ///
    /// # Errors
    /// `PermissionDenied`; those of a read.
    pub(super) async fn check_right<'c>(
        &self,
        list: impl FnOnce() -> ListName,
        permission: Permission,
        identity: Option<&'c auth::Caller>,
        request: &ReadRequest<'_>,
    ) -> Result<Option<Rights<'c>>, Error> {
        let Some(caller) = needs_right(identity) else {
            return Ok(None);
        };
        let list = list();
        let document = self.read_one(KeyRef::List(&list), request).await?;
        self.require_role(&list, &document, permission, caller)?;
        Ok(Some(Rights {
            permission,
            caller,
            lists: Lists::One(list),
            fresh_to: document.admitted.fresh_to,
            stale: document.stale,
        }))
    }

    /// The same for several lists. Refused whole if one is not allowed.
    pub(super) async fn check_rights<'a, 'c>(
        &self,
        lists: impl Iterator<Item = &'a str>,
        permission: Permission,
        identity: Option<&'c auth::Caller>,
        request: &ReadRequest<'_>,
    ) -> Result<Option<Rights<'c>>, Error> {
        let Some(caller) = needs_right(identity) else {
            return Ok(None);
        };
        let lists: BTreeSet<&str> = lists.collect();
        let lists = lists.into_iter().filter_map(ListName::parse);
        let lists = Lists::Several(lists.collect());
        Ok(Some(
            self.check_all(lists, permission, caller, request).await?,
        ))
    }

    async fn check_all<'c>(
        &self,
        lists: Lists,
        permission: Permission,
        caller: &'c auth::Caller,
        request: &ReadRequest<'_>,
    ) -> Result<Rights<'c>, Error> {
        let (mut fresh_to, mut stale) = (OriginTime::MAX, false);
        for some in lists.as_slice().chunks(LISTS_AT_ONCE) {
            let documents = self.read_documents(some, request).await?;
            for (list, document) in some.iter().zip(documents) {
                self.require_role(list, &document, permission, caller)?;
                fresh_to = fresh_to.min(document.admitted.fresh_to);
                stale |= document.stale;
            }
        }
        Ok(Rights {
            permission,
            caller,
            lists,
            fresh_to,
            stale,
        })
    }

    /// Checks a right for a request that is refused for another reason in any case.
    ///
    /// # Errors
    /// `PermissionDenied`; those of a read.
    pub async fn require_right(
        &self,
        list: &ListName,
        permission: Permission,
        options: &ReadOptions,
    ) -> Result<(), Error> {
        let request = self.begin(options).await?;
        let identity = options.identity.as_ref();
        let right = self.check_right(|| list.clone(), permission, identity, &request);
        right.await.map(drop)
    }

    /// The same right on several lists. Refused whole if one is not allowed.
    ///
    /// # Errors
    /// `PermissionDenied`; those of a read.
    pub(super) async fn require_rights(
        &self,
        lists: &[ListName],
        permission: Permission,
        options: &ReadOptions,
    ) -> Result<(), Error> {
        if let [list] = lists {
            return self.require_right(list, permission, options).await;
        }
        let request = self.begin(options).await?;
        let lists = lists.iter().map(ListName::as_str);
        let identity = options.identity.as_ref();
        let rights = self.check_rights(lists, permission, identity, &request);
        rights.await.map(drop)
    }

    /// The second look: the response that `read` describes shows no state later than
    /// the documents that allow it. Marks it stale if they are. `bytes`: what the response
    /// holds meanwhile.
    ///
    /// # Errors
    /// `PermissionDenied`; those of a read.
    pub(super) async fn confirm(
        &self,
        mut rights: Rights<'_>,
        mut read: ReadInfo,
        bytes: usize,
        request: &ReadRequest<'_>,
    ) -> Result<ReadInfo, Error> {
        let loads = self.budgets.of(Part::Loads);
        let held = loads.reserve(request.caller, bytes as u64);
        let _held = held.ok_or_else(|| self.overloaded(loads))?;
        let seen = read.token.seen;
        if rights.fresh_to < seen {
            let request = request.at_least(seen);
            let (lists, permission) = (rights.lists, rights.permission);
            let again = self.check_all(lists, permission, rights.caller, &request);
            let begun = self.tracker.now();
            rights = Box::pin(again).await?;
            // The bound counts from the reply.
            read.staleness_bound += self.tracker.now().since(begun);
        }
        // Only a document that is marked stale can still be older.
        if rights.fresh_to < seen || (rights.stale && !self.may_be_stale(rights.fresh_to)) {
            return Err(too_old());
        }
        read.stale |= rights.stale;
        Ok(read)
    }

    /// Whether a right of this freshness is within the limit of stale responses.
    fn may_be_stale(&self, fresh_to: OriginTime) -> bool {
        let bound = self.tracker.staleness_bound(fresh_to);
        let limit = self.settings.stale_if_error;
        bound
            .zip(limit)
            .is_some_and(|(bound, limit)| bound <= limit)
    }

    /// Checks a write by documents that reflect every write acknowledged before now, so
    /// that no write that begins after a revocation is accepted.
    ///
    /// # Errors
    /// `PermissionDenied`; those of a read that is fully consistent.
    pub(super) async fn check_write(
        &self,
        write: &Write,
        identity: Option<&auth::Caller>,
        deadline: Option<Instant>,
        caller: Option<&Arc<Caller>>,
    ) -> Result<(), Error> {
        if needs_right(identity).is_none() {
            return Ok(());
        }
        let options = ReadOptions {
            consistency: Consistency::FullyConsistent,
            deadline,
            caller: caller.cloned(),
            identity: None,
        };
        let request = self.begin(&options).await?;
        let Some(permission) = Permission::of(write) else {
            return self.check_no_todos(&write.name().list(), &request).await;
        };
        let list = || write.name().list();
        let right = self.check_right(list, permission, identity, &request);
        match right.await? {
            Some(Rights { stale: true, .. }) => Err(too_old()),
            _ => Ok(()),
        }
    }

    /// Refuses to create a list for todos that are there already, such as those from
    /// before authentication: the first caller would own them.
    async fn check_no_todos(
        &self,
        list: &ListName,
        request: &ReadRequest<'_>,
    ) -> Result<(), Error> {
        let query = Arc::new(first_todo(list));
        let page = self.read_one(KeyRef::Page(&query), request).await?;
        if !has_names(&page) {
            return Ok(());
        }
        // Like a refusal of the origin: this replica shows no older document of the list.
        let name = list.clone().into();
        let token = self.invalidate_own(&name, true, page.admitted.fresh_to);
        Err(Error::AlreadyExists { name, token })
    }

    /// Whether a watch may go on after what was committed at `time`. `charged`: whose
    /// share and whose turns the reads take.
    ///
    /// # Errors
    /// `PermissionDenied` with the token; those of a read.
    pub(super) async fn check_watch(
        &self,
        lists: &[ListName],
        caller: &auth::Caller,
        charged: Option<&Arc<Caller>>,
        time: OriginTime,
        token: Option<Token>,
    ) -> Result<(), Error> {
        let request = ReadRequest::of_watch(time, charged);
        let (permission, identity) = (Permission::WatchTodos, Some(caller));
        let checked = if let [list] = lists {
            let right = self.check_right(|| list.clone(), permission, identity, &request);
            right.await
        } else {
            let lists = lists.iter().map(ListName::as_str);
            let rights = self.check_rights(lists, permission, identity, &request);
            rights.await
        };
        match checked {
            Ok(_) => Ok(()),
            Err(Error::PermissionDenied {
                permission,
                resource,
                principal,
                token: _,
            }) => Err(Error::PermissionDenied {
                permission,
                resource,
                principal,
                token,
            }),
            Err(error) => Err(error),
        }
    }

    /// Refuses what only administrators may do.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) fn require_admin(
        identity: Option<&auth::Caller>,
        permission: Permission,
        resource: &str,
    ) -> Result<(), Error> {
        match needs_right(identity) {
            Some(caller) => Err(denied(caller, permission, resource)),
            None => Ok(()),
        }
    }

    /// Refuses a caller whose role in the document does not have the permission.
    ///
    /// # Errors
    /// `PermissionDenied`; `OriginUnavailable` if the document is marked stale, and so
    /// does not say what the caller may do now.
    pub(super) fn require_role(
        &self,
        list: &ListName,
        document: &ReadItem,
        permission: Permission,
        caller: &auth::Caller,
    ) -> Result<(), Error> {
        let role = match &document.value {
            Value::List(document) => role_of(document, caller.members()),
            // The loader logs which one and why, once a load.
            Value::Unreadable(_) => {
                self.metrics.unreadable_lists.inc();
                None
            }
            _ => None,
        };
        if role.is_some_and(|role| role as i32 >= permission.role() as i32) {
            return Ok(());
        }
        // The role may have been given since.
        if document.stale {
            return Err(too_old());
        }
        Err(denied(caller, permission, list.as_str()))
    }
}

/// The caller, unless it may do everything: an administrator, or anybody while
/// authentication is off.
fn needs_right(identity: Option<&auth::Caller>) -> Option<&auth::Caller> {
    identity.filter(|caller| !caller.is_admin())
}

fn too_old() -> Error {
    Unavailable::TooStale.into()
}

fn denied(caller: &auth::Caller, permission: Permission, resource: &str) -> Error {
    Error::PermissionDenied {
        permission: permission.name(),
        resource: resource.to_owned(),
        principal: caller.principal().clone(),
        token: None,
    }
}
