//! The one writer: what waits together is committed together, each write with
//! a number of its own, and published in the order of the numbers.

use std::{io, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use prost::Message;
use redb::{Database, ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    store::{
        HISTORY, HISTORY_START, LAST_WRITE, META, ORDERS, REQUEST_TIMES, REQUESTS, RESERVED, TODOS,
        change_now, encode_change, etag, order_keys, with_etag,
    },
    tail::Tail,
    wall_ms,
};
use crate::{
    error::WriteError,
    model::{
        Change, ChangeKind, OriginTime, Patch, RequestId, TodoName, Touched, Write, WriteDone, validate,
    },
    origin::{FeedEvent, FeedItem},
    pb::Todo,
};

/// Most jobs of one commit: it then takes some 20 ms, a bound on what a write
/// waits for the one before.
const MAX_GROUP: usize = 512;
/// Numbers are reserved in blocks, so that a heartbeat costs no commit, and a
/// new process begins above all that were ever given out.
const BLOCK: u64 = 1 << 20;
/// How long changes are remembered: six replay windows of the default size.
const HISTORY_AGE: Duration = Duration::from_secs(3600);
/// Most changes remembered: some 200 MB of the file.
const MAX_HISTORY: u64 = 2_000_000;
/// How long a request id is remembered: API.md.
const REQUEST_AGE: Duration = Duration::from_secs(24 * 3600);

type Reply<T> = oneshot::Sender<T>;

pub(super) enum Job {
    Write { write: Write, request: Option<RequestId>, reply: Reply<Result<WriteDone, WriteError>> },
    Import { todos: Vec<Todo>, reply: Reply<Result<usize, String>> },
    Heartbeat { number: u64, reply: Reply<Result<OriginTime, String>> },
}

/// What to tell once the group is committed.
enum Answer {
    Write(Reply<Result<WriteDone, WriteError>>, Result<WriteDone, WriteError>),
    Import(Reply<Result<usize, String>>, usize),
    Heartbeat(Reply<Result<OriginTime, String>>, OriginTime),
}

pub(super) struct Writer {
    database: Arc<Database>,
    tail: Arc<Tail>,
    clock: u64,
    reserved: u64,
    history_len: u64,
}

impl Writer {
    pub(super) const fn new(database: Arc<Database>, tail: Arc<Tail>, clock: u64, history_len: u64) -> Self {
        Self { database, tail, clock, reserved: clock, history_len }
    }

    /// Runs on a thread of its own until all senders are gone. A panic ends
    /// the process: nothing could be written any more, and a new process can.
    pub(super) fn spawn(mut self, mut queue: mpsc::Receiver<Job>) -> io::Result<()> {
        thread::Builder::new().name("store-writer".into()).spawn(move || {
            let run = std::panic::AssertUnwindSafe(|| {
                while let Some(first) = queue.blocking_recv() {
                    let mut group = vec![first];
                    while group.len() < MAX_GROUP
                        && let Ok(job) = queue.try_recv()
                    {
                        group.push(job);
                    }
                    self.commit(group);
                }
            });
            if std::panic::catch_unwind(run).is_err() {
                tracing::error!("the store's writer ended in a panic; this process ends");
                std::process::exit(1);
            }
        })?;
        Ok(())
    }

    fn commit(&mut self, group: Vec<Job>) {
        let clock = self.clock;
        let (mut items, mut answers) = (Vec::new(), Vec::new());
        match self.apply(group, &mut items, &mut answers) {
            Ok(history_start) => self.tail.publish(items, history_start),
            Err((problem, unknown)) => {
                tracing::error!(%problem, "a commit failed");
                answers.into_iter().for_each(|answer| answer.fail(&problem, unknown));
                if unknown {
                    // What was committed is not known: a new process reads it.
                    std::process::exit(1);
                }
                self.clock = clock;
                return;
            }
        }
        answers.into_iter().for_each(Answer::send);
    }

    /// Does the jobs in one transaction. The error says whether it may have
    /// been committed all the same.
    fn apply(
        &mut self,
        group: Vec<Job>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) -> Result<u64, (String, bool)> {
        let before = |e: &dyn std::fmt::Display| (e.to_string(), false);
        let beats_only = group.iter().all(|job| matches!(job, Job::Heartbeat { .. }));
        if beats_only && self.clock + (group.len() as u64) < self.reserved {
            for job in group {
                let Job::Heartbeat { number, reply } = job else { continue };
                self.beat(number, reply, items, answers);
            }
            return Ok(self.tail.history_start());
        }
        let txn = match self.database.begin_write() {
            Ok(txn) => txn,
            Err(error) => {
                answers.extend(group.into_iter().map(Answer::undone));
                return Err(before(&error));
            }
        };
        let history_start = self.in_transaction(&txn, group, items, answers).map_err(|e| before(&e))?;
        txn.commit().map_err(|e| (e.to_string(), true))?;
        Ok(history_start)
    }

    fn in_transaction(
        &mut self,
        txn: &WriteTransaction,
        group: Vec<Job>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) -> Result<u64, redb::Error> {
        let mut jobs = group.into_iter();
        let mut failed = None;
        {
            let mut tables = Tables::open(txn)?;
            for job in jobs.by_ref() {
                match job {
                    Job::Heartbeat { number, reply } => self.beat(number, reply, items, answers),
                    Job::Import { todos, reply } => {
                        let done = tables.import(todos, &mut self.clock, items);
                        answers.push(Answer::Import(reply, *done.as_ref().unwrap_or(&0)));
                        failed = done.err();
                    }
                    Job::Write { write, request, reply } => {
                        let done = tables.write(write, request, &mut self.clock, items);
                        match done {
                            Ok(done) => answers.push(Answer::Write(reply, done)),
                            Err(error) => {
                                answers.push(Answer::undone(Job::Write {
                                    write: Write::Delete { name: error.1, etag: None, allow_missing: true },
                                    request: None,
                                    reply,
                                }));
                                failed = Some(error.0);
                            }
                        }
                    }
                }
                if failed.is_some() {
                    break;
                }
            }
        }
        answers.extend(jobs.map(Answer::undone));
        if let Some(error) = failed {
            return Err(error);
        }
        self.keep_books(txn, items)
    }

    fn beat(
        &mut self,
        number: u64,
        reply: Reply<Result<OriginTime, String>>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) {
        self.clock += 1;
        let time = OriginTime(self.clock);
        items.push(FeedItem { time, alone: true, event: FeedEvent::Heartbeat { number } });
        answers.push(Answer::Heartbeat(reply, time));
    }

    /// History, its bounds, and the numbers that a new process needs.
    fn keep_books(&mut self, txn: &WriteTransaction, items: &[FeedItem]) -> Result<u64, redb::Error> {
        let mut history = txn.open_table(HISTORY)?;
        let mut meta = txn.open_table(META)?;
        for item in items {
            let FeedEvent::Change(change) = &item.event else { continue };
            history.insert(item.time.0, encode_change(change).as_slice())?;
            meta.insert(LAST_WRITE, item.time.0)?;
            self.history_len += 1;
        }
        let forget_before = wall_ms() - i64::try_from(HISTORY_AGE.as_millis()).unwrap_or(i64::MAX);
        let mut start = meta.get(HISTORY_START)?.map_or(0, |value| value.value());
        // Two for each that comes: the history shrinks when it must, and no
        // commit takes long for it.
        for _ in 0..items.len() * 2 {
            let Some((number, raw)) = history.first()?.map(|(n, raw)| (n.value(), raw.value().to_vec()))
            else {
                break;
            };
            let wall =
                super::store::decode_change(OriginTime(number), &raw).map_or(0, |change| change.wall_ms);
            if wall >= forget_before && self.history_len <= MAX_HISTORY {
                break;
            }
            history.remove(number)?;
            self.history_len -= 1;
            start = number;
        }
        meta.insert(HISTORY_START, start)?;
        if self.clock + MAX_GROUP as u64 * 1000 >= self.reserved {
            self.reserved = self.clock + BLOCK;
            meta.insert(RESERVED, self.reserved)?;
        }
        Ok(start)
    }
}

impl Answer {
    fn undone(job: Job) -> Self {
        let unavailable = || Err(WriteError::Unavailable("the commit failed".into()));
        match job {
            Job::Write { reply, .. } => Self::Write(reply, unavailable()),
            Job::Import { reply, .. } => Self::Import(reply, 0),
            Job::Heartbeat { reply, .. } => Self::Heartbeat(reply, OriginTime::ZERO),
        }
    }

    /// A caller that went away needs no answer.
    fn send(self) {
        match self {
            Self::Write(reply, done) => drop(reply.send(done)),
            Self::Import(reply, count) => drop(reply.send(Ok(count))),
            Self::Heartbeat(reply, time) => drop(reply.send(Ok(time))),
        }
    }

    fn fail(self, problem: &str, unknown: bool) {
        let problem = format!("the store could not commit: {problem}");
        match self {
            Self::Write(reply, _) if unknown => {
                drop(reply.send(Err(WriteError::OutcomeUnknown { problem, at: None })));
            }
            Self::Write(reply, _) => drop(reply.send(Err(WriteError::Unavailable(problem)))),
            Self::Import(reply, _) => drop(reply.send(Err(problem))),
            Self::Heartbeat(reply, _) => drop(reply.send(Err(problem))),
        }
    }
}

struct Tables<'a> {
    todos: Table<'a, &'static str, &'static [u8]>,
    orders: Table<'a, &'static [u8], ()>,
    requests: Table<'a, u128, &'static [u8]>,
    request_times: Table<'a, (i64, u128), ()>,
}

/// What a write came to, or that the store failed.
type Done = Result<Result<WriteDone, WriteError>, redb::Error>;

impl<'a> Tables<'a> {
    fn open(txn: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            todos: txn.open_table(TODOS)?,
            orders: txn.open_table(ORDERS)?,
            requests: txn.open_table(REQUESTS)?,
            request_times: txn.open_table(REQUEST_TIMES)?,
        })
    }

    fn write(
        &mut self,
        write: Write,
        request: Option<RequestId>,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> Result<Result<WriteDone, WriteError>, (redb::Error, TodoName)> {
        let name = write.name().clone();
        self.write_once(write, request, clock, items).map_err(|error| (error, name))
    }

    fn write_once(
        &mut self,
        write: Write,
        request: Option<RequestId>,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> Done {
        if let Some(request) = &request
            && let Some(done) = self.repeated(request, *clock)?
        {
            return Ok(done);
        }
        let name = write.name().clone();
        let done = match write {
            Write::Create { name, todo } => self.create(&name, &todo, clock, items)?,
            Write::Update { name, patch, etag, allow_missing } => {
                self.update(&name, &patch, etag.as_deref(), allow_missing, clock, items)?
            }
            Write::Delete { name, etag, allow_missing } => {
                self.delete(&name, etag.as_deref(), allow_missing, clock, items)?
            }
        };
        if let (Ok(_), Some(request)) = (&done, request) {
            self.remember(&request, &name)?;
        }
        Ok(done)
    }

    /// The outcome of a request that was done before: the todo as it is now.
    fn repeated(
        &self,
        request: &RequestId,
        clock: u64,
    ) -> Result<Option<Result<WriteDone, WriteError>>, redb::Error> {
        let Some(known) = self.requests.get(request.id.as_u128())? else { return Ok(None) };
        let Some((fingerprint, rest)) = known.value().split_at_checked(16) else { return Ok(None) };
        let Some((wall, name)) = rest.split_at_checked(8) else { return Ok(None) };
        let wall = wall.try_into().map_or(0, i64::from_be_bytes);
        if wall_ms() - wall > i64::try_from(REQUEST_AGE.as_millis()).unwrap_or(i64::MAX) {
            return Ok(None);
        }
        if fingerprint != request.fingerprint {
            return Ok(Some(Err(WriteError::RequestIdReused)));
        }
        let stored = self.todos.get(std::str::from_utf8(name).unwrap_or_default())?;
        let todo = stored.map_or_else(Bytes::new, |stored| with_etag(stored.value()));
        Ok(Some(Ok(WriteDone { todo, time: OriginTime(clock) })))
    }

    fn remember(&mut self, request: &RequestId, name: &TodoName) -> Result<(), redb::Error> {
        let (id, now) = (request.id.as_u128(), wall_ms());
        let raw = [&request.fingerprint[..], &now.to_be_bytes()[..], name.as_str().as_bytes()].concat();
        self.requests.insert(id, raw.as_slice())?;
        self.request_times.insert((now, id), ())?;
        // Two for each that comes, so that they never grow beyond a day's.
        let forget = now - i64::try_from(REQUEST_AGE.as_millis()).unwrap_or(i64::MAX);
        for _ in 0..2 {
            let Some((wall, id)) = self.request_times.first()?.map(|(key, _)| key.value()) else { break };
            if wall >= forget {
                break;
            }
            self.request_times.remove((wall, id))?;
            self.requests.remove(id)?;
        }
        Ok(())
    }

    fn create(&mut self, name: &TodoName, todo: &Todo, clock: &mut u64, items: &mut Vec<FeedItem>) -> Done {
        if self.todos.get(name.as_str())?.is_some() {
            return Ok(Err(WriteError::AlreadyExists { at: OriginTime(*clock) }));
        }
        let stored = self.put(name, None, todo)?;
        let time = publish(clock, items, name, ChangeKind::Created, Touched::All);
        Ok(Ok(WriteDone { todo: with_etag(&stored), time }))
    }

    fn update(
        &mut self,
        name: &TodoName,
        patch: &Patch,
        given: Option<&str>,
        allow_missing: bool,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> Done {
        let old = self.todos.get(name.as_str())?.map(|stored| stored.value().to_vec());
        let at = OriginTime(*clock);
        let Some(old) = old else {
            if !allow_missing || given.is_some() {
                return Ok(Err(WriteError::NotFound { at }));
            }
            let mut todo = patch.create(name.as_str(), wall_ms());
            if let Err(mut problems) = validate(&mut todo, "todo.") {
                return Ok(Err(WriteError::Invalid(problems.swap_remove(0))));
            }
            return self.create(name, &todo, clock, items);
        };
        if let Some(mismatch) = mismatch(given, &old, at) {
            return Ok(Err(mismatch));
        }
        let Some(old) = decoded(&old) else { return Ok(Err(unreadable(at))) };
        let new = patch.apply(old.clone(), wall_ms());
        let stored = self.put(name, Some(&old), &new)?;
        let time = publish(clock, items, name, ChangeKind::Updated, touched(&old, &new));
        Ok(Ok(WriteDone { todo: with_etag(&stored), time }))
    }

    fn delete(
        &mut self,
        name: &TodoName,
        given: Option<&str>,
        allow_missing: bool,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> Done {
        let old = self.todos.get(name.as_str())?.map(|stored| stored.value().to_vec());
        let at = OriginTime(*clock);
        let Some(old) = old else {
            let missing = Ok(WriteDone { todo: Bytes::new(), time: at });
            return Ok(if allow_missing { missing } else { Err(WriteError::NotFound { at }) });
        };
        if let Some(mismatch) = mismatch(given, &old, at) {
            return Ok(Err(mismatch));
        }
        if let Some(old) = decoded(&old) {
            for key in order_keys(name, &old) {
                self.orders.remove(key.as_slice())?;
            }
        }
        self.todos.remove(name.as_str())?;
        let time = publish(clock, items, name, ChangeKind::Deleted, Touched::All);
        Ok(Ok(WriteDone { todo: Bytes::new(), time }))
    }

    fn import(
        &mut self,
        todos: Vec<Todo>,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> Result<usize, redb::Error> {
        let mut new = 0;
        for todo in todos {
            let Some(name) = TodoName::parse(&todo.name) else { continue };
            new += usize::from(self.create(&name, &todo, clock, items)?.is_ok());
        }
        Ok(new)
    }

    /// Stores a todo and moves its keys in the orders.
    fn put(&mut self, name: &TodoName, old: Option<&Todo>, new: &Todo) -> Result<Vec<u8>, redb::Error> {
        let new = Todo { name: name.as_str().to_owned(), etag: String::new(), ..new.clone() };
        let keys = order_keys(name, &new);
        if let Some(old) = old {
            for key in order_keys(name, old).iter().filter(|key| !keys.contains(key)) {
                self.orders.remove(key.as_slice())?;
            }
        }
        for key in &keys {
            self.orders.insert(key.as_slice(), ())?;
        }
        let stored = new.encode_to_vec();
        self.todos.insert(name.as_str(), stored.as_slice())?;
        Ok(stored)
    }
}

fn publish(
    clock: &mut u64,
    items: &mut Vec<FeedItem>,
    name: &TodoName,
    kind: ChangeKind,
    touched: Touched,
) -> OriginTime {
    *clock += 1;
    let change: Change = change_now(name.clone(), kind, touched, *clock);
    items.push(FeedItem { time: change.time, alone: true, event: FeedEvent::Change(change) });
    OriginTime(*clock)
}

fn decoded(stored: &[u8]) -> Option<Todo> {
    Todo::decode(stored).ok()
}

fn unreadable(at: OriginTime) -> WriteError {
    WriteError::Unreadable { field: "todo".into(), problem: "is damaged in the store".into(), at }
}

fn mismatch(given: Option<&str>, stored: &[u8], at: OriginTime) -> Option<WriteError> {
    let current = etag(stored);
    (given? != current).then_some(WriteError::EtagMismatch { current, at })
}

/// The fields in which two states differ.
fn touched(old: &Todo, new: &Todo) -> Touched {
    let fields = [
        ("title", old.title != new.title),
        ("notes", old.notes != new.notes),
        ("state", old.state != new.state),
        ("priority", old.priority != new.priority),
        ("labels", old.labels != new.labels),
        ("due_time", old.due_time != new.due_time),
        ("complete_time", old.complete_time != new.complete_time),
        ("update_time", true),
    ];
    Touched::Paths(fields.iter().filter(|(_, differs)| *differs).map(|(field, _)| (*field).into()).collect())
}
