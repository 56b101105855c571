//! What is done to the documents of lists: by hand, and by writes of the service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidemark::{
    auth::Caller,
    cache::{Answer, ListPage},
    error::Error,
    model::{
        Filter, ListName, ListPatch, ListsQuery, Order, OriginTime, PageQuery, ReadInfo, TodoName,
        Unreadable, Value, Write, role_of, timestamp_from_ms,
    },
    origin::WriteError,
    pb::{Role, TodoList},
};
use tokio::time::{Instant, sleep};

use crate::{
    check::{Asked, unreadable},
    client::Client,
    history::{Edit, History, ListDoc, ListEdit},
    rng::Rng,
    world::{MEMBERS, World},
    write,
};

const ROLES: [Role; 3] = [Role::Reader, Role::Writer, Role::Owner];

fn some_members(rng: &mut Rng) -> BTreeMap<String, i32> {
    let mut members = BTreeMap::new();
    for _ in 0..rng.of(0..4) {
        members.insert(rng.pick(&MEMBERS).to_owned(), rng.pick(&ROLES).into());
    }
    members
}

fn some_document(history: &History, rng: &mut Rng, name: &ListName, title: &str) -> Arc<ListDoc> {
    let now = Some(timestamp_from_ms(history.wall_ms(Instant::now())));
    let list = TodoList {
        name: name.to_string(),
        title: title.to_owned(),
        members: some_members(rng),
        create_time: now,
        update_time: now,
        etag: String::new(),
    };
    ListDoc::new(list, false)
}

/// The documents that are there at the start. The service asks for the first todo of a
/// list that has none.
pub fn found(world: &World) {
    for list in &world.config.lists {
        let first = PageQuery {
            list: list.clone(),
            filter: Filter::default(),
            order: Order::default(),
            size: 1,
            after: None,
        };
        let mut queries = world.queries.lock().expect("no panic while locked");
        queries.insert(first.to_string(), first);
    }
    let time = world.commit(|history, at| {
        let mut rng = world.rng();
        let edits = world.config.lists.iter().map(|name| {
            let doc = some_document(history, &mut rng, name, "founded");
            let name = name.clone();
            ListEdit {
                name,
                doc: Some(doc),
            }
        });
        let edits = edits.collect();
        let time = history.commit_with_lists(at, Vec::new(), edits);
        history.acknowledge(at, time);
        time
    });
    world.say(format_args!("lists founded {time}"));
}

/// Somebody grants and withdraws rights straight in the database, now and then in
/// one transaction with a change of todos.
pub async fn share_by_hand(world: Arc<World>) {
    let mut n = 0;
    while !world.over() {
        let pause = world.rng().of(1..world.config.think_ms * 5);
        sleep(Duration::from_millis(pause)).await;
        n += 1;
        let title = format!("shared {n}");
        let time = world.commit(|history, at| {
            let name = world.rng().pick(&world.config.lists);
            let edit = by_hand(&world, history, &name, &title);
            let todos = if world.rng().chance(25) {
                todos_of(&world, history, &name, &title)
            } else {
                Vec::new()
            };
            let time = history.commit_with_lists(at, todos, vec![edit]);
            history.acknowledge(at, time);
            let doc = history.list_doc_at(&name, time);
            world.say(format_args!("list {name} {time} {doc:?}"));
            time
        });
        world.say(format_args!("commit {time} {title}"));
        world.count("rights changed by hand");
    }
}

fn todos_of(world: &World, history: &History, list: &ListName, title: &str) -> Vec<Edit> {
    let names = world.config.names.iter();
    let of_list = names.filter(|name| name.parent() == list.as_str());
    let mut names: Vec<TodoName> = of_list.cloned().collect();
    names.retain(|_| world.rng().chance(30));
    let edit = |name| write::by_hand(world, history, name, title);
    names.into_iter().map(edit).collect()
}

fn by_hand(world: &World, history: &History, name: &ListName, title: &str) -> ListEdit {
    let mut rng = world.rng();
    let old = history.list_doc_at(name, history.last).map(Arc::clone);
    let name = name.clone();
    let Some(old) = old else {
        let doc = some_document(history, &mut rng, &name, title);
        return ListEdit {
            name,
            doc: Some(doc),
        };
    };
    let mut list = TodoList::clone(&old.list);
    let mut unreadable = old.unreadable && rng.chance(50);
    match rng.of(0..20) {
        0 => return ListEdit { name, doc: None },
        1 | 2 => unreadable = true,
        3 | 4 => title.clone_into(&mut list.title),
        5..10 => drop(
            list.members
                .insert(rng.pick(&MEMBERS).to_owned(), rng.pick(&ROLES).into()),
        ),
        10..15 => drop(list.members.remove(rng.pick(&MEMBERS))),
        _ => list.members = some_members(&mut rng),
    }
    let doc = Some(ListDoc::new(list, unreadable));
    ListEdit { name, doc }
}

/// What a drop or a rename of the database leaves of the documents.
pub fn replaced(world: &World, history: &History, drop: bool) -> Vec<ListEdit> {
    let mut rng = world.rng();
    let edit = |name: &ListName| {
        let kept = !drop && rng.chance(70);
        let doc = kept.then(|| some_document(history, &mut rng, name, "restored"));
        ListEdit {
            name: name.clone(),
            doc,
        }
    };
    world.config.lists.iter().map(edit).collect()
}

/// A write of a list.
pub fn a_write(world: &World, name: &ListName, title: &str) -> Write {
    let history = world.history();
    let old = history.list_doc_at(name, history.last);
    let etag = old.map(|doc| doc.list.etag.clone());
    let mut rng = world.rng();
    let etag = etag.filter(|_| rng.chance(20));
    let name = name.clone();
    let members = some_members(&mut rng);
    match rng.of(0..10) {
        0..3 => {
            let list = TodoList {
                name: name.to_string(),
                title: title.to_owned(),
                members,
                ..TodoList::default()
            };
            Write::CreateList { name, list }
        }
        3 => Write::DeleteList {
            name,
            etag,
            force: rng.chance(50),
        },
        _ => {
            let role = |role| Role::try_from(role).expect("a role");
            let members = members.into_iter().map(|(member, of)| (member, role(of)));
            let patch = ListPatch {
                title: Some(title.to_owned()),
                members: rng.chance(70).then(|| members.collect()),
            };
            Write::UpdateList { name, patch, etag }
        }
    }
}

/// What a write does to a list's document and to its todos: each edit is a commit.
pub struct Done {
    pub todos: Vec<Edit>,
    pub list: ListEdit,
}

/// The edits of a write, if it is not refused.
pub fn edit(history: &History, write: Write) -> Result<Done, WriteError> {
    let at = history.last;
    let now = history.wall_ms(Instant::now());
    let name = write.name().list();
    let old = history.list_doc_at(&name, at).map(Arc::clone);
    let (doc, todos) = match write {
        Write::CreateList { list, .. } => {
            if old.is_some() {
                return Err(WriteError::AlreadyExists { at });
            }
            let list = TodoList {
                create_time: Some(timestamp_from_ms(now)),
                update_time: Some(timestamp_from_ms(now)),
                ..list
            };
            (Some(ListDoc::new(list, false)), Vec::new())
        }
        Write::UpdateList { patch, etag, .. } => {
            let old = check(old.as_ref(), etag.as_ref(), at)?;
            if old.unreadable {
                let (field, problem) = ("title".into(), "is an int".into());
                return Err(WriteError::Unreadable { field, problem, at });
            }
            let list = patch.apply(TodoList::clone(&old.list), now);
            (Some(ListDoc::new(list, false)), Vec::new())
        }
        Write::DeleteList { etag, force, .. } => {
            check(old.as_ref(), etag.as_ref(), at)?;
            let todos: Vec<_> = history.todos_of(&name);
            if !force && !todos.is_empty() {
                return Err(WriteError::NotEmpty { at });
            }
            (None, todos.into_iter().map(write::deleted).collect())
        }
        Write::Create { .. } | Write::Update { .. } | Write::Delete { .. } => {
            unreachable!("a write of a todo")
        }
    };
    let list = ListEdit { name, doc };
    Ok(Done { todos, list })
}

fn check<'a>(
    old: Option<&'a Arc<ListDoc>>,
    etag: Option<&String>,
    at: OriginTime,
) -> Result<&'a Arc<ListDoc>, WriteError> {
    let old = old.ok_or(WriteError::NotFound { at })?;
    if etag.is_some_and(|etag| *etag != old.list.etag) {
        let current = old.list.etag.clone();
        return Err(WriteError::EtagMismatch { current, at });
    }
    Ok(old)
}

/// How a write of a list's document is kept among the own writes of a replica.
pub fn own(name: &ListName) -> String {
    format!("document of {name}")
}

/// Most bytes of a page of lists: enough for all.
const PAGE_BYTES: usize = 1 << 20;

impl Client {
    pub async fn write_list(&mut self) {
        let name = self.world.rng().pick(&self.world.config.lists);
        let title = self.a_title();
        let write = a_write(&self.world, &name, &title);
        let titled = !matches!(write, Write::DeleteList { .. });
        self.send(write, &title, titled).await;
    }

    /// The document of a list.
    pub async fn get_list(&mut self) {
        let name = self.world.rng().pick(&self.world.config.lists);
        let want = self.want(self.an_arm());
        let replica = Arc::clone(&self.replica);
        let what = format!("get {name}");
        let asked = self.asked(&replica, what, &want, vec![name.clone()]);
        let call = replica.cache.get_list(&name, &want);
        let Ok(answer) = self.call(&asked.what, call).await else {
            return;
        };
        // Whether it has todos; asked only if it has no document.
        let mut todos = None;
        let (value, read) = match answer {
            Ok(Answer { body, read }) if body.etag.is_empty() => {
                todos = Some(true);
                (Value::Absent, read)
            }
            Ok(Answer { body, read }) => (Value::List(body), read),
            Err(Error::NotFound {
                read: Some(read), ..
            }) => {
                todos = Some(false);
                (Value::Absent, read)
            }
            Err(Error::Unreadable {
                field,
                problem,
                read: Some(read),
                ..
            }) => (
                Value::Unreadable(Arc::new(Unreadable { field, problem })),
                *read,
            ),
            Err(error) => return self.say_error(&asked, &error),
        };
        self.say(&asked, &(&value, &read), &[]);
        let owed = asked.facts(&self.world, &read);
        asked.list(&self.world, &name, &value, owed, &read);
        let history = self.world.history();
        let from = owed.max(asked.own(name.as_str()));
        let had = todos.is_none_or(|has| history.had_todos(&name, from, history.last, has));
        drop(history);
        if !had {
            let what = format!("{name} without a document, with todos: {todos:?}: {read:?}");
            asked.violated(&self.world, "I1", &what);
        }
        self.seen = self.seen.max(read.token.seen);
    }

    /// All pages of lists that the caller may see.
    pub async fn list_lists(&mut self) {
        let caller = self.identity.clone().filter(|caller| !caller.is_admin());
        let size = u32::try_from(self.world.rng().pick(&[1_u64, 2, 50])).expect("small");
        let mut query = ListsQuery {
            members: caller.as_ref().map(|caller| Arc::clone(caller.members())),
            size,
            after: None,
        };
        let consistency = self.an_arm();
        let mut carried = None;
        loop {
            self.world
                .lists_queries
                .lock()
                .expect("no panic while locked")
                .insert(query.to_string(), query.clone());
            let want = self.want(consistency);
            let replica = Arc::clone(&self.replica);
            let asked = Asked {
                carried,
                // Each document that is shown is its own right.
                right: None,
                ..self.asked(&replica, query.to_string(), &want, Vec::new())
            };
            let page = Arc::new(query.clone());
            let call = replica.cache.list_lists(&page, carried, PAGE_BYTES, &want);
            let Ok(answer) = self.call(&asked.what, call).await else {
                return;
            };
            let Answer { body, read } = match answer {
                Ok(answer) => answer,
                Err(error) => return self.say_error(&asked, &error),
            };
            self.say(&asked, &(&body, &read), &[]);
            let owed = asked.facts(&self.world, &read);
            asked.lists(&self.world, &query, caller.as_ref(), &body, owed, &read);
            self.seen = self.seen.max(read.token.seen);
            carried = Some(read.token.fresh_to);
            let Some(next) = body.next else { return };
            query.after = Some(next);
        }
    }
}

impl Asked<'_> {
    /// The document of a list in an answer.
    fn list(
        &self,
        world: &World,
        name: &ListName,
        value: &Value,
        owed: OriginTime,
        read: &ReadInfo,
    ) {
        let from = owed.max(self.own(&own(name)));
        match world.history().list_valid_since(name, value, from) {
            Some(since) if since <= read.token.seen => return,
            _ => {}
        }
        let what = format!("{name} is {value:?}, which it was not from {from} on: {read:?}");
        self.violated(world, "I1", &what);
    }

    /// A page of lists: its names at one time, each of them shown as it was at some
    /// time, or left out because the caller had no role in it at some time.
    fn lists(
        &self,
        world: &World,
        query: &ListsQuery,
        caller: Option<&Caller>,
        shown: &ListPage,
        owed: OriginTime,
        read: &ReadInfo,
    ) {
        let history = world.history();
        let seen = read.token.seen;
        let as_told = |name: &ListName, value: &Value| {
            let since = history.list_valid_since(name, value, owed);
            since.is_some_and(|since| since <= seen)
        };
        let fits = |at: OriginTime| {
            let page = history.lists_at(query, at);
            if page.more != shown.next.is_some()
                || (at > seen && page != history.lists_at(query, seen))
            {
                return false;
            }
            let mut left = shown.lists.iter().peekable();
            let each = page.names.iter().all(|name| {
                if let Some(list) = left.next_if(|list| list.name == name.as_str()) {
                    return if list.etag.is_empty() {
                        caller.is_none() && as_told(name, &Value::Absent)
                    } else {
                        let allowed =
                            caller.is_none_or(|caller| role_of(list, caller.members()).is_some());
                        allowed && as_told(name, &Value::List(Arc::clone(list)))
                    };
                }
                match caller {
                    None => shown.unreadable.contains(name) && as_told(name, &unreadable()),
                    Some(caller) => {
                        history.lacked_role(name, caller, Role::Reader, owed, history.last)
                    }
                }
            });
            each && left.next().is_none()
        };
        if history.lists_states_from(owed).into_iter().any(fits) {
            return;
        }
        let truth = history.lists_at(query, owed);
        drop(history);
        let what = format!(
            "{query} shows {shown:?}: so it never was from {owed} on; there {truth:?}; {read:?}"
        );
        self.violated(world, "I1", &what);
    }
}
