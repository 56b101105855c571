//! The exact history of the simulated origin: every state of every todo and
//! page at every time, and who was told what and when. The checker asks it for
//! the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use tidemark::{
    auth::Caller,
    model::{
        Change, ChangeKind, Condition, Filter, ListName, ListsPage, ListsQuery, Order, OriginTime,
        Page, PagePosition, PageQuery, SortKey, TodoName, Touched, Unreadable, Value, role_of,
        timestamp_ms,
    },
    pb::{Role, Todo, TodoList},
};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// One stored document.
#[derive(Clone, Debug, PartialEq)]
pub struct Doc {
    /// Without its etag.
    pub todo: Todo,
    /// With its etag, encoded.
    pub bytes: Bytes,
    /// Somebody gave its title a wrong type.
    pub unreadable: bool,
}

impl Doc {
    pub fn new(todo: Todo, unreadable: bool) -> Arc<Self> {
        let etag = format!("{:016x}", xxh3_64(&todo.encode_to_vec()));
        let bytes = Todo {
            etag,
            ..todo.clone()
        }
        .encode_to_vec()
        .into();
        Arc::new(Self {
            todo,
            bytes,
            unreadable,
        })
    }

    pub fn etag(&self) -> String {
        Todo::decode(self.bytes.clone())
            .expect("encoded before")
            .etag
    }

    pub fn value(&self) -> Value {
        if self.unreadable {
            let (field, problem) = ("title".into(), "is an int, and must be a string".into());
            return Value::Unreadable(Arc::new(Unreadable { field, problem }));
        }
        Value::Todo(self.bytes.clone())
    }

    pub fn matches(&self, filter: &Filter) -> bool {
        let todo = &self.todo;
        filter.0.iter().all(|condition| match condition {
            Condition::State(op, state) => op.holds(&todo.state, &(*state as i32)),
            Condition::Priority(op, priority) => op.holds(&todo.priority, &(*priority as i32)),
            Condition::Label(label) => todo.labels.contains(label),
            Condition::Due(op, due) => todo
                .due_time
                .as_ref()
                .and_then(timestamp_ms)
                .is_some_and(|ms| op.holds(&ms, &due.0)),
        })
    }

    pub fn sort_key(&self, order: Order) -> SortKey {
        let time = match order {
            Order::PriorityDesc => {
                return SortKey::Priority(u8::try_from(self.todo.priority).expect("a rank"));
            }
            Order::DueTime => &self.todo.due_time,
            Order::CreateTime | Order::CreateTimeDesc => &self.todo.create_time,
        };
        time.as_ref()
            .and_then(timestamp_ms)
            .map_or(SortKey::Missing, SortKey::Time)
    }
}

/// The stored document of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListDoc {
    /// With its etag.
    pub list: Arc<TodoList>,
    /// Somebody gave its title a wrong type.
    pub unreadable: bool,
}

impl ListDoc {
    pub fn new(list: TodoList, unreadable: bool) -> Arc<Self> {
        let list = TodoList {
            etag: String::new(),
            ..list
        };
        let etag = format!("{:016x}", xxh3_64(&list.encode_to_vec()));
        let list = Arc::new(TodoList { etag, ..list });
        Arc::new(Self { list, unreadable })
    }

    pub fn value(&self) -> Value {
        if self.unreadable {
            let (field, problem) = ("title".into(), "is an int, and must be a string".into());
            return Value::Unreadable(Arc::new(Unreadable { field, problem }));
        }
        Value::List(Arc::clone(&self.list))
    }

    /// What it gives to a caller: nothing if it cannot be read.
    pub fn role(&self, caller: &Caller) -> Option<Role> {
        role_of(&self.list, caller.members()).filter(|_| !self.unreadable)
    }
}

/// Where a todo stands in an order: rises along the page.
type Place = (u8, i64, TodoName);

fn place(order: Order, key: SortKey, name: &TodoName) -> Place {
    let (group, value) = match key {
        SortKey::Time(ms) if order == Order::CreateTimeDesc => (0, -ms),
        SortKey::Time(ms) => (0, ms),
        SortKey::Priority(rank) => (0, -i64::from(rank)),
        SortKey::Missing => (1, 0),
        SortKey::Wrong => (2, 0),
    };
    (group, value, name.clone())
}

/// One event of the origin's log.
#[derive(Clone, Debug)]
pub struct Event {
    pub time: OriginTime,
    /// When it was committed.
    pub at: Instant,
    /// Whether it is the only one of its time.
    pub alone: bool,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Change(Change),
    /// The document of a list changed.
    List(ListName),
    Heartbeat {
        incarnation: u64,
        number: u64,
    },
    Reset {
        reason: &'static str,
    },
}

/// What a commit does to one todo.
pub struct Edit {
    pub name: TodoName,
    pub doc: Option<Arc<Doc>>,
    pub kind: ChangeKind,
    pub touched: Touched,
}

/// What a commit does to the document of one list: `None` deletes it.
pub struct ListEdit {
    pub name: ListName,
    pub doc: Option<Arc<ListDoc>>,
}

type Versions = Vec<(OriginTime, Option<Arc<Doc>>)>;
type ListVersions = Vec<(OriginTime, Option<Arc<ListDoc>>)>;

pub struct History {
    start: Instant,
    pub last: OriginTime,
    versions: BTreeMap<TodoName, Versions>,
    /// The documents of lists.
    lists: BTreeMap<ListName, ListVersions>,
    /// All times at which a list may have changed.
    list_times: BTreeMap<String, Vec<OriginTime>>,
    pub events: Vec<Event>,
    /// Events before this are forgotten by the origin, not by the checker.
    pub forgotten: usize,
    /// Acknowledged writes: when, and the highest time acknowledged by then.
    acks: Vec<(Instant, OriginTime)>,
    /// Another number after each reset: what entries are bound to.
    pub collection: u64,
}

/// Seconds of the origin's clock when a run starts.
const EPOCH_S: u64 = 1_000_000;

impl History {
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            last: OriginTime(EPOCH_S << 32),
            versions: BTreeMap::new(),
            lists: BTreeMap::new(),
            list_times: BTreeMap::new(),
            events: Vec::new(),
            forgotten: 0,
            acks: Vec::new(),
            collection: 1,
        }
    }

    /// The next time, like MongoDB's: seconds and a count within them.
    fn tick(&mut self, at: Instant) -> OriginTime {
        let seconds = EPOCH_S + at.duration_since(self.start).as_secs();
        self.last = self.last.next().max(OriginTime(seconds << 32 | 1));
        self.last
    }

    pub fn wall_ms(&self, at: Instant) -> i64 {
        i64::try_from(
            EPOCH_S * 1000
                + u64::try_from(at.duration_since(self.start).as_millis()).expect("short"),
        )
        .expect("small")
    }

    /// Commits edits, all at one time.
    pub fn commit(&mut self, at: Instant, edits: Vec<Edit>) -> OriginTime {
        self.commit_with_lists(at, edits, Vec::new())
    }

    /// The same with edits of lists' documents. The feed gives the todos first.
    pub fn commit_with_lists(
        &mut self,
        at: Instant,
        edits: Vec<Edit>,
        lists: Vec<ListEdit>,
    ) -> OriginTime {
        let alone = edits.len() + lists.len() == 1;
        let (time, wall_ms) = (self.tick(at), self.wall_ms(at));
        for Edit {
            name,
            doc,
            kind,
            touched,
        } in edits
        {
            self.set(time, name.clone(), doc);
            let change = Change {
                name,
                kind,
                touched,
                time,
                wall_ms,
            };
            self.events.push(Event {
                time,
                at,
                alone,
                what: What::Change(change),
            });
        }
        for ListEdit { name, doc } in lists {
            self.set_list(time, name.clone(), doc);
            self.events.push(Event {
                time,
                at,
                alone,
                what: What::List(name),
            });
        }
        time
    }

    /// Something that no feed tells change by change: `docs` is all that is
    /// there afterwards. `lists`: what becomes of their documents, if that is part of it.
    pub fn reset(
        &mut self,
        at: Instant,
        docs: Vec<(TodoName, Arc<Doc>)>,
        lists: Vec<ListEdit>,
        reason: &'static str,
    ) -> OriginTime {
        let time = self.tick(at);
        let all: Vec<_> = self.versions.keys().cloned().collect();
        for name in all {
            self.set(time, name, None);
        }
        for (name, doc) in docs {
            self.set(time, name, Some(doc));
        }
        for ListEdit { name, doc } in lists {
            self.set_list(time, name, doc);
        }
        self.collection += 1;
        self.events.push(Event {
            time,
            at,
            alone: true,
            what: What::Reset { reason },
        });
        time
    }

    pub fn heartbeat(&mut self, at: Instant, incarnation: u64, number: u64) -> OriginTime {
        let time = self.tick(at);
        self.events.push(Event {
            time,
            at,
            alone: true,
            what: What::Heartbeat {
                incarnation,
                number,
            },
        });
        time
    }

    fn set(&mut self, time: OriginTime, name: TodoName, doc: Option<Arc<Doc>>) {
        let times = self.list_times.entry(name.parent().to_owned()).or_default();
        if times.last() != Some(&time) {
            times.push(time);
        }
        let versions = self.versions.entry(name).or_default();
        match versions.last_mut() {
            Some((last, state)) if *last == time => *state = doc,
            _ => versions.push((time, doc)),
        }
    }

    fn set_list(&mut self, time: OriginTime, name: ListName, doc: Option<Arc<ListDoc>>) {
        let versions = self.lists.entry(name).or_default();
        match versions.last_mut() {
            Some((last, state)) if *last == time => *state = doc,
            _ => versions.push((time, doc)),
        }
    }

    pub fn acknowledge(&mut self, at: Instant, time: OriginTime) {
        let highest = self
            .acks
            .last()
            .map_or(time, |(_, highest)| time.max(*highest));
        self.acks.push((at, highest));
    }

    /// The highest time of a write that anyone had acknowledged before `at`.
    pub fn acknowledged_before(&self, at: Instant) -> OriginTime {
        let n = self.acks.partition_point(|(when, _)| *when < at);
        n.checked_sub(1)
            .map_or(OriginTime::ZERO, |n| self.acks[n].1)
    }

    pub fn doc_at(&self, name: &TodoName, time: OriginTime) -> Option<&Arc<Doc>> {
        let versions = self.versions.get(name)?;
        let n = versions.partition_point(|(at, _)| *at <= time);
        versions[n.checked_sub(1)?].1.as_ref()
    }

    pub fn value_at(&self, name: &TodoName, time: OriginTime) -> Value {
        self.doc_at(name, time)
            .map_or(Value::Absent, |doc| doc.value())
    }

    /// If the todo had this value at `from` or later: since when.
    pub fn valid_since(
        &self,
        name: &TodoName,
        value: &Value,
        from: OriginTime,
    ) -> Option<OriginTime> {
        let Some(versions) = self.versions.get(name) else {
            return (*value == Value::Absent).then_some(OriginTime::ZERO);
        };
        let n = versions.partition_point(|(at, _)| *at <= from);
        if n == 0 && *value == Value::Absent {
            return Some(OriginTime::ZERO);
        }
        let after = versions[n.saturating_sub(1)..].iter();
        let state = |doc: &Option<Arc<Doc>>| doc.as_ref().map_or(Value::Absent, |doc| doc.value());
        after
            .clone()
            .find(|(_, doc)| state(doc) == *value)
            .map(|(at, _)| *at)
    }

    /// The times at which pages of this list may have changed, from the state
    /// at `from` on.
    pub fn list_states_from(&self, list: &str, from: OriginTime) -> Vec<OriginTime> {
        let times = self
            .list_times
            .get(list)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let n = times.partition_point(|at| *at <= from);
        let at_from = n.checked_sub(1).map_or(OriginTime::ZERO, |n| times[n]);
        std::iter::once(at_from)
            .chain(times[n..].iter().copied())
            .collect()
    }

    pub fn page_at(&self, query: &PageQuery, time: OriginTime) -> Page {
        let order = query.order;
        let mut rows: Vec<(Place, SortKey)> = Vec::new();
        for name in self
            .versions
            .keys()
            .filter(|name| name.parent() == query.list.as_str())
        {
            let Some(doc) = self
                .doc_at(name, time)
                .filter(|doc| doc.matches(&query.filter))
            else {
                continue;
            };
            let key = doc.sort_key(order);
            rows.push((place(order, key, name), key));
        }
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(after) = &query.after {
            let start = place(order, after.key, &after.name);
            rows.retain(|(place, _)| *place > start);
        }
        let size = usize::try_from(query.size).expect("small");
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more);
        let next = next.map(|((_, _, name), key)| PagePosition {
            key: *key,
            name: name.clone(),
        });
        Page {
            names: rows.into_iter().map(|((_, _, name), _)| name).collect(),
            next,
        }
    }

    /// Whether the todo was changed exactly then.
    pub fn changed_at(&self, name: &TodoName, time: OriginTime) -> bool {
        self.versions
            .get(name)
            .is_some_and(|versions| versions.binary_search_by_key(&time, |(at, _)| *at).is_ok())
    }

    pub fn last_change_of(&self, name: &TodoName) -> OriginTime {
        self.versions
            .get(name)
            .and_then(|versions| versions.last())
            .map_or(OriginTime::ZERO, |(at, _)| *at)
    }

    /// The events with a time above `after`.
    pub fn events_after(&self, after: OriginTime) -> &[Event] {
        &self.events[self.events.partition_point(|event| event.time <= after)..]
    }

    /// Whether a version with this title was ever committed: when.
    pub fn titled(&self, name: &TodoName, title: &str) -> Option<OriginTime> {
        let titled =
            |doc: &Option<Arc<Doc>>| doc.as_ref().is_some_and(|doc| doc.todo.title == title);
        self.versions
            .get(name)?
            .iter()
            .find(|(_, doc)| titled(doc))
            .map(|(at, _)| *at)
    }

    /// Whether it was absent at some time of the range.
    pub fn was_absent(&self, name: &TodoName, from: OriginTime, to: OriginTime) -> bool {
        self.valid_since(name, &Value::Absent, from)
            .is_some_and(|since| since <= to)
    }

    pub fn list_doc_at(&self, name: &ListName, time: OriginTime) -> Option<&Arc<ListDoc>> {
        let versions = self.lists.get(name)?;
        let n = versions.partition_point(|(at, _)| *at <= time);
        versions[n.checked_sub(1)?].1.as_ref()
    }

    pub fn list_value_at(&self, name: &ListName, time: OriginTime) -> Value {
        self.list_doc_at(name, time)
            .map_or(Value::Absent, |doc| doc.value())
    }

    /// The documents that a list had from `from` to `to`, with the time since which
    /// each was there.
    fn list_docs(
        &self,
        name: &ListName,
        from: OriginTime,
        to: OriginTime,
    ) -> Vec<(OriginTime, Option<&Arc<ListDoc>>)> {
        let versions = self.lists.get(name).map(Vec::as_slice).unwrap_or_default();
        let n = versions.partition_point(|(at, _)| *at <= from);
        let first = match n.checked_sub(1) {
            Some(n) => (versions[n].0, versions[n].1.as_ref()),
            None => (OriginTime::ZERO, None),
        };
        let later = versions[n..].iter().take_while(|(at, _)| *at <= to);
        std::iter::once(first)
            .chain(later.map(|(at, doc)| (*at, doc.as_ref())))
            .collect()
    }

    /// If the document of a list was this at `from` or later: since when.
    pub fn list_valid_since(
        &self,
        name: &ListName,
        value: &Value,
        from: OriginTime,
    ) -> Option<OriginTime> {
        let state = |doc: Option<&Arc<ListDoc>>| doc.map_or(Value::Absent, |doc| doc.value());
        let docs = self.list_docs(name, from, self.last);
        let found = docs.into_iter().find(|(_, doc)| state(*doc) == *value);
        found.map(|(at, _)| at)
    }

    /// Whether the caller had this role or a higher one at some time of the range.
    pub fn had_role(
        &self,
        list: &ListName,
        caller: &Caller,
        role: Role,
        from: OriginTime,
        to: OriginTime,
    ) -> bool {
        self.roles(list, caller, from, to)
            .any(|had| had >= role as i32)
    }

    /// Whether the caller was without it at some time of the range.
    pub fn lacked_role(
        &self,
        list: &ListName,
        caller: &Caller,
        role: Role,
        from: OriginTime,
        to: OriginTime,
    ) -> bool {
        self.roles(list, caller, from, to)
            .any(|had| had < role as i32)
    }

    fn roles(
        &self,
        list: &ListName,
        caller: &Caller,
        from: OriginTime,
        to: OriginTime,
    ) -> impl Iterator<Item = i32> {
        let role = |doc: &Arc<ListDoc>| doc.role(caller).map_or(0, |role| role as i32);
        let docs = self.list_docs(list, from, to).into_iter();
        docs.map(move |(_, doc)| doc.map_or(0, role))
    }

    /// The page of the names of lists: with members by the documents, else of all
    /// lists that have a document or a todo.
    pub fn lists_at(&self, query: &ListsQuery, time: OriginTime) -> ListsPage {
        let mut names: BTreeSet<ListName> = BTreeSet::new();
        for name in self.lists.keys() {
            let Some(doc) = self.list_doc_at(name, time) else {
                continue;
            };
            let is_member = |members: &Arc<[Arc<str>]>| {
                members
                    .iter()
                    .any(|member| doc.list.members.contains_key(&**member))
            };
            if query.members.as_ref().is_none_or(is_member) {
                names.insert(name.clone());
            }
        }
        if query.members.is_none() {
            let there = self
                .versions
                .keys()
                .filter(|name| self.doc_at(name, time).is_some());
            names.extend(there.map(TodoName::list));
        }
        let size = usize::try_from(query.size).expect("small");
        let rest = names
            .into_iter()
            .filter(|name| Some(name) > query.after.as_ref());
        let mut names: Vec<_> = rest.take(size + 1).collect();
        let more = names.len() > size;
        names.truncate(size);
        ListsPage { names, more }
    }

    /// Whether a list contained a todo at some time of the range.
    pub fn had_todos(&self, list: &ListName, from: OriginTime, to: OriginTime, want: bool) -> bool {
        let has = |time: OriginTime| {
            let mut names = self.versions.keys();
            names.any(|name| name.parent() == list.as_str() && self.doc_at(name, time).is_some())
        };
        let states = self.list_states_from(list.as_str(), from);
        states.into_iter().any(|at| at <= to && has(at) == want)
    }

    /// All times at which a page of lists may have changed, from the state at `from`
    /// on.
    pub fn lists_states_from(&self, from: OriginTime) -> BTreeSet<OriginTime> {
        let documents = self.lists.values().flatten().map(|(at, _)| *at);
        let todos = self.list_times.values().flatten().copied();
        let later = documents.chain(todos).filter(|at| *at > from);
        std::iter::once(from).chain(later).collect()
    }

    /// The todos that a list contains now.
    pub fn todos_of(&self, list: &ListName) -> Vec<TodoName> {
        let names = self.versions.keys();
        let there = |name: &&TodoName| {
            name.parent() == list.as_str() && self.doc_at(name, self.last).is_some()
        };
        names.filter(there).cloned().collect()
    }

    /// Whether a document of the list with this title was ever committed: when.
    pub fn list_titled(&self, name: &ListName, title: &str) -> Option<OriginTime> {
        let titled =
            |doc: &Option<Arc<ListDoc>>| doc.as_ref().is_some_and(|doc| doc.list.title == title);
        let mut versions = self.lists.get(name)?.iter();
        versions.find(|(_, doc)| titled(doc)).map(|(at, _)| *at)
    }
}
