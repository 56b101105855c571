//! The reads of lists as resources. A document that is shown is its own right: it says
//! itself that the caller is a member.

use std::sync::Arc;

use prost::Message as _;

use super::{
    Answer, Cache, MAX_RESPONSE_BYTES, ReadOptions,
    read_many::KEY_BYTES,
    request::{ReadItem, ReadItems, ReadRequest},
    rights::Permission,
};
use crate::{
    auth::Caller,
    budget::Part,
    error::{Error, Unavailable},
    model::{Filter, KeyRef, ListName, ListsQuery, Order, OriginTime, PageQuery, Value, role_of},
    pb::TodoList,
};

/// Documents read at once, of some 70 KB at most each: a page of lists holds no more of
/// them than its response has room for, and so many.
pub(super) const LISTS_AT_ONCE: usize = 50;

/// A page of lists.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// The lists, in order of name.
    pub lists: Vec<Arc<TodoList>>,
    /// Names in the page whose document cannot be read as a list.
    pub unreadable: Vec<ListName>,
    /// The next page begins after this name; `None`: there is none.
    pub next: Option<ListName>,
}

impl Cache {
    /// One list. While authentication is off, and for administrators, a list that has
    /// no document and contains todos is one with a name only.
    ///
    /// # Errors
    /// `PermissionDenied`, `NotFound`, `Unreadable`; see [`Error`] for the others.
    pub async fn get_list(
        &self,
        name: &ListName,
        options: &ReadOptions,
    ) -> Result<Answer<Arc<TodoList>>, Error> {
        let request = self.begin(options).await?;
        let key = KeyRef::List(name);
        let item = self.read_one(key, &request).await?;
        let caller = options
            .identity
            .as_ref()
            .filter(|caller| !caller.is_admin());
        if let Some(caller) = caller {
            self.require_role(name, &item, Permission::GetList, caller)?;
        }
        let query = Arc::new(first_todo(name));
        let todos = match item.value {
            Value::Absent => Some(self.read_one(KeyRef::Page(&query), &request).await?),
            _ => None,
        };
        let page = todos.iter().map(|todos| (KeyRef::Page(&query), todos));
        let read = self.read_info(page.chain([(key, &item)]), &request)?;
        match item.value {
            Value::List(body) => Ok(Answer { body, read }),
            Value::Unreadable(why) => Err(Error::unreadable(name.clone(), &why, read)),
            _ if todos.is_some_and(|todos| has_names(&todos)) => Ok(Answer {
                body: named(name),
                read,
            }),
            _ => Err(Error::not_found(name.clone(), read)),
        }
    }

    /// One page of lists: their names, then their documents, of at most `max_bytes`
    /// together. `carried`: the least `fresh_to` of the earlier pages.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_lists(
        &self,
        query: &Arc<ListsQuery>,
        carried: Option<OriginTime>,
        max_bytes: usize,
        options: &ReadOptions,
    ) -> Result<Answer<ListPage>, Error> {
        let request = self.begin(options).await?;
        // Members make a list as large as a hundred todos. Before the read, so that nothing
        // is held meanwhile.
        self.large_reads.next(options.caller.as_ref()).await;
        let key = KeyRef::Lists(query);
        let page_item = self.read_one(key, &request).await?;
        let Value::Lists(names) = &page_item.value else {
            return Err(Unavailable::NoValue.into());
        };
        let caller = options
            .identity
            .as_ref()
            .filter(|caller| !caller.is_admin());
        let mut page = ListPage::default();
        let mut parts: Vec<(&ListName, ReadItem)> = Vec::new();
        let (mut bytes, mut memory) = (0, 0);
        // The near cache may drop the documents that are here while the next are read.
        let loads = self.budgets.of(Part::Loads);
        let mut held = loads.force(request.caller, 0);
        'page: for names in names.names.chunks(LISTS_AT_ONCE) {
            if !held.try_grow((memory as u64).saturating_sub(held.amount())) {
                return Err(self.overloaded(loads));
            }
            let documents = self.read_documents(names, &request).await?;
            for (name, item) in names.iter().zip(documents) {
                bytes += bytes_of(name, &item);
                if bytes > max_bytes && !parts.is_empty() {
                    break 'page;
                }
                memory += KEY_BYTES + item.value.bytes();
                show_list(&mut page, name, &item, caller);
                parts.push((name, item));
                page.next = Some(name.clone());
            }
        }
        let shown_all = parts.len() == names.names.len();
        if shown_all && !names.more {
            page.next = None;
        }
        let items = parts.iter().map(|(name, item)| (KeyRef::List(name), item));
        let mut read = self.read_info(items.chain([(key, &page_item)]), &request)?;
        if let Some(carried) = carried {
            read.token.fresh_to = read.token.fresh_to.min(carried);
        }
        Ok(Answer { body: page, read })
    }

    /// At most `LISTS_AT_ONCE` documents, in their order.
    pub(super) async fn read_documents(
        &self,
        lists: &[ListName],
        request: &ReadRequest<'_>,
    ) -> Result<Vec<ReadItem>, Error> {
        let keys = lists.iter().map(KeyRef::List);
        match self.read_many(keys, request).await? {
            ReadItems::All(items) => Ok(items),
            ReadItems::TooLarge { .. } => Err(Error::MessageTooLarge {
                what: "stored list",
                limit: MAX_RESPONSE_BYTES,
                advice: "shorten it in the database".into(),
            }),
        }
    }
}

/// Adds a list to the page if the caller may see it.
fn show_list(page: &mut ListPage, name: &ListName, item: &ReadItem, caller: Option<&Caller>) {
    match &item.value {
        // The page of names may be older than the document.
        Value::List(list)
            if caller.is_none_or(|caller| role_of(list, caller.members()).is_some()) =>
        {
            page.lists.push(Arc::clone(list));
        }
        Value::Unreadable(_) if caller.is_none() => page.unreadable.push(name.clone()),
        Value::Absent if caller.is_none() => page.lists.push(named(name)),
        _ => {}
    }
}

/// What an entry of a page takes in the response, at most.
fn bytes_of(name: &ListName, item: &ReadItem) -> usize {
    const FIELD_BYTES: usize = 8;
    FIELD_BYTES
        + match &item.value {
            Value::List(list) => list.encoded_len(),
            _ => name.as_str().len(),
        }
}

/// A list that has no document.
fn named(name: &ListName) -> Arc<TodoList> {
    Arc::new(TodoList {
        name: name.to_string(),
        ..TodoList::default()
    })
}

/// The page that shows whether a list contains a todo.
pub(super) fn first_todo(list: &ListName) -> PageQuery {
    PageQuery {
        list: list.clone(),
        filter: Filter::default(),
        order: Order::default(),
        size: 1,
        after: None,
    }
}

pub(super) fn has_names(page: &ReadItem) -> bool {
    matches!(&page.value, Value::Page(page) if !page.names.is_empty())
}
