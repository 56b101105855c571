//! The one writer: what waits together is committed together, each write with
//! a number of its own, and published in the order of the numbers.

use std::{io, sync::Arc, thread, time::Duration};

use redb::{Database, ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    store::{HISTORY, HISTORY_START, LAST_WRITE, META, RESERVED, encode_change},
    tables::Tables,
    tail::Tail,
    wall_ms,
};
use crate::{
    model::{OriginTime, RequestId, Write, WriteDone},
    origin::{FeedEvent, FeedItem, Imported, WriteError},
    pb::Todo,
};

/// Most commands of one commit: it then takes some 20 ms, a bound on what a write
/// waits for the one before.
const MAX_GROUP: usize = 512;
/// Numbers are reserved in blocks, so that a heartbeat costs no commit, and a
/// new process begins above all that were ever given out.
const BLOCK: u64 = 1 << 20;
/// How long changes are remembered: six replay windows of the default size.
const HISTORY_AGE: Duration = Duration::from_secs(3600);
/// Most changes remembered: some 200 MB of the file.
const MAX_HISTORY: u64 = 2_000_000;

type Reply<T> = oneshot::Sender<T>;

pub(super) enum Command {
    Write {
        write: Box<Write>,
        request: Option<RequestId>,
        reply: Reply<Result<WriteDone, WriteError>>,
    },
    Import {
        todos: Vec<Todo>,
        reply: Reply<Result<Imported, String>>,
    },
    Heartbeat {
        number: u64,
        reply: Reply<Result<OriginTime, String>>,
    },
}

/// What to tell once the group is committed.
enum Answer {
    Write(
        Reply<Result<WriteDone, WriteError>>,
        Result<WriteDone, WriteError>,
    ),
    Import(Reply<Result<Imported, String>>, usize),
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
    pub(super) const fn new(
        database: Arc<Database>,
        tail: Arc<Tail>,
        clock: u64,
        history_len: u64,
    ) -> Self {
        Self {
            database,
            tail,
            clock,
            reserved: clock,
            history_len,
        }
    }

    /// Runs on a thread of its own until all senders are gone. A panic ends
    /// the process: nothing could be written any more, and a new process can.
    pub(super) fn spawn(mut self, mut queue: mpsc::Receiver<Command>) -> io::Result<()> {
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| {
                    while let Some(first) = queue.blocking_recv() {
                        let mut group = vec![first];
                        while group.len() < MAX_GROUP
                            && let Ok(command) = queue.try_recv()
                        {
                            group.push(command);
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

    fn commit(&mut self, group: Vec<Command>) {
        let clock = self.clock;
        let (mut items, mut answers) = (Vec::new(), Vec::new());
        match self.apply(group, &mut items, &mut answers) {
            Ok(history_start) => self.tail.publish(items, history_start),
            Err((problem, unknown)) => {
                tracing::error!(%problem, "a commit failed");
                for answer in answers {
                    answer.fail(&problem, unknown);
                }
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

    /// Runs the commands in one transaction. The error says whether the commit
    /// may have taken place all the same.
    fn apply(
        &mut self,
        group: Vec<Command>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) -> Result<u64, (String, bool)> {
        let before = |e: &dyn std::fmt::Display| (e.to_string(), false);
        let heartbeats_only = group
            .iter()
            .all(|command| matches!(command, Command::Heartbeat { .. }));
        if heartbeats_only && self.clock + (group.len() as u64) < self.reserved {
            for command in group {
                let Command::Heartbeat { number, reply } = command else {
                    continue;
                };
                self.heartbeat(number, reply, items, answers);
            }
            return Ok(self.tail.history_start());
        }
        let txn = match self.database.begin_write() {
            Ok(txn) => txn,
            Err(error) => {
                answers.extend(group.into_iter().map(Answer::unavailable));
                return Err(before(&error));
            }
        };
        let history_start = self
            .in_transaction(&txn, group, items, answers)
            .map_err(|e| before(&e))?;
        txn.commit().map_err(|e| (e.to_string(), true))?;
        Ok(history_start)
    }

    fn in_transaction(
        &mut self,
        txn: &WriteTransaction,
        group: Vec<Command>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) -> Result<u64, redb::Error> {
        let mut commands = group.into_iter();
        let mut failed = None;
        {
            let mut tables = Tables::open(txn)?;
            for command in commands.by_ref() {
                match command {
                    Command::Heartbeat { number, reply } => {
                        self.heartbeat(number, reply, items, answers);
                    }
                    Command::Import { todos, reply } => {
                        let done = tables.import(todos, &mut self.clock, items);
                        answers.push(Answer::Import(reply, *done.as_ref().unwrap_or(&0)));
                        failed = done.err();
                    }
                    Command::Write {
                        write,
                        request,
                        reply,
                    } => {
                        let done = tables.write(*write, request, &mut self.clock, items);
                        let unavailable = || Err(WriteError::unavailable("the commit failed"));
                        match done {
                            Ok(done) => answers.push(Answer::Write(reply, done)),
                            Err(error) => {
                                answers.push(Answer::Write(reply, unavailable()));
                                failed = Some(error);
                            }
                        }
                    }
                }
                if failed.is_some() {
                    break;
                }
            }
        }
        answers.extend(commands.map(Answer::unavailable));
        if let Some(error) = failed {
            return Err(error);
        }
        self.record_history(txn, items)
    }

    fn heartbeat(
        &mut self,
        number: u64,
        reply: Reply<Result<OriginTime, String>>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) {
        self.clock += 1;
        let time = OriginTime(self.clock);
        items.push(FeedItem {
            time,
            alone: true,
            event: FeedEvent::Heartbeat { number },
        });
        answers.push(Answer::Heartbeat(reply, time));
    }

    /// History, its bounds, and the numbers that a new process needs.
    fn record_history(
        &mut self,
        txn: &WriteTransaction,
        items: &[FeedItem],
    ) -> Result<u64, redb::Error> {
        let mut history = txn.open_table(HISTORY)?;
        let mut meta = txn.open_table(META)?;
        for item in items {
            let FeedEvent::Change(change) = &item.event else {
                continue;
            };
            history.insert(item.time.0, encode_change(change).as_slice())?;
            meta.insert(LAST_WRITE, item.time.0)?;
            self.history_len += 1;
        }
        let forget_before = wall_ms() - i64::try_from(HISTORY_AGE.as_millis()).unwrap_or(i64::MAX);
        let mut start = meta.get(HISTORY_START)?.map_or(0, |value| value.value());
        // Two for each that comes: the history shrinks when it must, and no
        // commit takes long for it.
        for _ in 0..items.len() * 2 {
            let Some((number, raw)) = history
                .first()?
                .map(|(n, raw)| (n.value(), raw.value().to_vec()))
            else {
                break;
            };
            let wall = super::store::decode_change(OriginTime(number), &raw)
                .map_or(0, |change| change.wall_ms);
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
    fn unavailable(command: Command) -> Self {
        let unavailable = || Err(WriteError::unavailable("the commit failed"));
        match command {
            Command::Write { reply, .. } => Self::Write(reply, unavailable()),
            Command::Import { reply, .. } => Self::Import(reply, 0),
            Command::Heartbeat { reply, .. } => Self::Heartbeat(reply, OriginTime::ZERO),
        }
    }

    /// A caller that went away needs no answer.
    fn send(self) {
        match self {
            Self::Write(reply, done) => drop(reply.send(done)),
            Self::Import(reply, created) => {
                let refused = Vec::new();
                drop(reply.send(Ok(Imported { created, refused })));
            }
            Self::Heartbeat(reply, time) => drop(reply.send(Ok(time))),
        }
    }

    fn fail(self, problem: &str, unknown: bool) {
        let problem = format!("the store could not commit: {problem}");
        match self {
            Self::Write(reply, _) if unknown => {
                drop(reply.send(Err(WriteError::unknown(problem))));
            }
            Self::Write(reply, _) => drop(reply.send(Err(WriteError::unavailable(problem)))),
            Self::Import(reply, _) => drop(reply.send(Err(problem))),
            Self::Heartbeat(reply, _) => drop(reply.send(Err(problem))),
        }
    }
}
