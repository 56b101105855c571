//! The one writer: commands that wait at the same time are committed together, each
//! write with its own number, and published in the order of the numbers.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use redb::{ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    disk::{Mode, Store},
    store::{
        FORMAT_KEY, FORMAT_WITH_LISTS, HISTORY, HISTORY_START, LAST_WRITE, META, RESERVED,
        encode_entry, entry_wall_ms,
    },
    tables::Tables,
    tail::Tail,
    wall_ms,
};
use crate::{
    model::{OriginTime, RequestId, Write, WriteDone},
    origin::{Cause, FeedEvent, FeedItem, Imported, Rule, WriteError},
    pb::Todo,
    telemetry,
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

/// Pause before a full disk is tried again; doubled each time that it is still
/// full, up to the second one.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const MAX_LOOK: Duration = Duration::from_secs(15);

type Reply<T> = oneshot::Sender<T>;

pub(super) enum Command {
    Write {
        write: Box<Write>,
        request: Option<RequestId>,
        reply: Reply<Result<WriteDone, WriteError>>,
    },
    Import {
        todos: Vec<Todo>,
        reply: Reply<Result<Imported, Cause>>,
    },
    Heartbeat {
        number: u64,
        reply: Reply<Result<OriginTime, Cause>>,
    },
}

/// The reply to a command, sent once its group is committed.
enum Answer {
    Write(
        Reply<Result<WriteDone, WriteError>>,
        Result<WriteDone, WriteError>,
    ),
    Import(Reply<Result<Imported, Cause>>, usize),
    Heartbeat(Reply<Result<OriginTime, Cause>>, OriginTime),
}

pub(super) struct Writer {
    store: Arc<Store>,
    tail: Arc<Tail>,
    clock: u64,
    reserved: u64,
    history_len: u64,
    full: Option<FullDisk>,
}

/// The disk was full at the last try.
struct FullDisk {
    /// When it is tried again.
    retry_at: Instant,
    /// The pause before that try.
    pause: Duration,
    /// Why the commit failed; `None` if the disk was full at the start.
    cause: Option<Cause>,
}

impl FullDisk {
    fn new(pause: Duration, cause: Option<Cause>) -> Self {
        Self {
            retry_at: Instant::now() + pause,
            pause,
            cause,
        }
    }

    fn next_pause(&self) -> Duration {
        (self.pause * 2).min(MAX_LOOK)
    }
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        tail: Arc<Tail>,
        clock: u64,
        history_len: u64,
        mode: Mode,
    ) -> Self {
        Self {
            store,
            tail,
            clock,
            reserved: clock,
            history_len,
            // Tried by the first command.
            full: (mode == Mode::Overlay).then(|| FullDisk {
                retry_at: Instant::now(),
                pause: FIRST_LOOK,
                cause: None,
            }),
        }
    }

    /// Runs on its own thread until all senders are dropped. A panic ends
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
                    telemetry::exit(1);
                }
            })?;
        Ok(())
    }

    fn commit(&mut self, mut group: Vec<Command>) {
        if let Some(failure) = self.check_full() {
            // Heartbeats change nothing; all else waits for room.
            let (heartbeats, refused) = group
                .into_iter()
                .partition(|command| matches!(command, Command::Heartbeat { .. }));
            for command in refused {
                Answer::unavailable(command).fail(&failure);
            }
            group = heartbeats;
        }
        let before = (self.clock, self.reserved, self.history_len);
        let (mut items, mut answers) = (Vec::new(), Vec::new());
        let failure = match self.apply(group, &mut items, &mut answers) {
            Ok(history_start) => {
                self.tail.publish(items, history_start);
                return answers.into_iter().for_each(Answer::send);
            }
            Err(failure) if self.store.has_run_out() => {
                tracing::error!(problem = %failure, "the disk is full: writes are refused, reads go on");
                let cause = failure.into_cause();
                match self.begin_full(&items, cause.clone()) {
                    Some(history_start) => {
                        self.tail.publish(items, history_start);
                        return answers.into_iter().for_each(Answer::send);
                    }
                    None => Failure::NoRoom(cause),
                }
            }
            Err(failure) => {
                tracing::error!(problem = %failure, "a commit failed");
                failure
            }
        };
        for answer in answers {
            answer.fail(&failure);
        }
        if let Failure::Unknown(_) = failure {
            // What was committed is not known: a new process reads it.
            telemetry::exit(1);
        }
        (self.clock, self.reserved, self.history_len) = before;
    }

    /// Opens the store again without writing to its file. The start of its
    /// history, if the events of the last group turn out to be committed.
    fn begin_full(&mut self, items: &[FeedItem], cause: Option<Cause>) -> Option<u64> {
        let pause = self.full.as_ref().map_or(FIRST_LOOK, FullDisk::next_pause);
        self.full = Some(FullDisk::new(pause, cause));
        if let Err(problem) = self.store.reopen(Mode::Overlay) {
            tracing::error!(%problem, "the store cannot be opened again; this process ends");
            telemetry::exit(1);
        }
        let last_change = items
            .iter()
            .rev()
            .find(|item| matches!(item.event, FeedEvent::Change(_) | FeedEvent::List(_)))?;
        let txn = self.store.begin_read().ok()?;
        let meta = txn.open_table(META).ok()?;
        let last = meta.get(LAST_WRITE).ok()??.value();
        let start = meta.get(HISTORY_START).ok()??.value();
        (last == last_change.time.0).then_some(start)
    }

    /// The failure of commands while the disk is full. Tries the disk again from time to
    /// time.
    fn check_full(&mut self) -> Option<Failure> {
        let full = self.full.as_ref()?;
        let cause = full.cause.clone();
        if Instant::now() < full.retry_at {
            return Some(Failure::NoRoom(cause));
        }
        if self.store.has_room() && self.store.reopen(Mode::Normal).is_ok() {
            tracing::info!("the disk has room again: writes are accepted");
            self.full = None;
            return None;
        }
        self.full = Some(FullDisk::new(full.next_pause(), cause.clone()));
        if self.store.begin_read().is_err() {
            // It could not be opened as usual: reads continue from the overlay.
            let _ = self.store.reopen(Mode::Overlay);
        }
        Some(Failure::NoRoom(cause))
    }

    /// Runs the commands in one transaction. The error says whether the commit
    /// may have taken place nevertheless.
    fn apply(
        &mut self,
        group: Vec<Command>,
        items: &mut Vec<FeedItem>,
        answers: &mut Vec<Answer>,
    ) -> Result<u64, Failure> {
        let heartbeats_only = group
            .iter()
            .all(|command| matches!(command, Command::Heartbeat { .. }));
        let has_numbers = self.clock + (group.len() as u64) < self.reserved;
        if heartbeats_only && (has_numbers || self.full.is_some()) {
            for command in group {
                let Command::Heartbeat { number, reply } = command else {
                    continue;
                };
                self.heartbeat(number, reply, items, answers);
            }
            return Ok(self.tail.history_start());
        }
        let txn = match self.store.begin_write() {
            Ok(txn) => txn,
            Err(error) => {
                answers.extend(group.into_iter().map(Answer::unavailable));
                return Err(Failure::Unavailable(error.into()));
            }
        };
        let history_start = self
            .in_transaction(&txn, group, items, answers)
            .map_err(|error| Failure::Unavailable(error.into()))?;
        let committed = txn.commit().map_err(redb::Error::from);
        committed.map_err(|error| Failure::Unknown(error.into()))?;
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
        reply: Reply<Result<OriginTime, Cause>>,
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
        let now = wall_ms();
        for item in items {
            let Some(entry) = encode_entry(&item.event, now) else {
                continue;
            };
            if matches!(item.event, FeedEvent::List(_)) {
                meta.insert(FORMAT_KEY, FORMAT_WITH_LISTS)?;
            }
            history.insert(item.time.0, entry.as_slice())?;
            meta.insert(LAST_WRITE, item.time.0)?;
            self.history_len += 1;
        }
        let forget_before = now - i64::try_from(HISTORY_AGE.as_millis()).unwrap_or(i64::MAX);
        let mut start = meta.get(HISTORY_START)?.map_or(0, |value| value.value());
        // Two for each that comes: the history shrinks when it must, and no
        // commit takes long for it.
        for _ in 0..items.len() * 2 {
            let Some((number, wall)) = history
                .first()?
                .map(|(n, raw)| (n.value(), entry_wall_ms(raw.value())))
            else {
                break;
            };
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

/// Why a group of commands was not committed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was written.
    #[error("the disk of the data directory is full")]
    NoRoom(#[source] Option<Cause>),
    /// Nothing was written.
    #[error("the store could not commit: {0}")]
    Unavailable(#[source] Cause),
    /// It is not known whether it was written.
    #[error("the store could not commit: {0}")]
    Unknown(#[source] Cause),
}

impl Failure {
    fn into_cause(self) -> Option<Cause> {
        match self {
            Self::NoRoom(cause) => cause,
            Self::Unavailable(cause) | Self::Unknown(cause) => Some(cause),
        }
    }

    /// What callers get: this text, with the cause as its source.
    fn to_cause(&self) -> Cause {
        let text = self.to_string();
        match self {
            Self::NoRoom(None) => text.into(),
            Self::NoRoom(Some(cause)) | Self::Unavailable(cause) | Self::Unknown(cause) => {
                cause.clone().with_text(text)
            }
        }
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

    /// A caller that has gone needs no reply.
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

    fn fail(self, failure: &Failure) {
        let cause = failure.to_cause();
        match self {
            Self::Write(reply, _) => drop(reply.send(Err(match failure {
                Failure::NoRoom(_) => WriteError::Refused {
                    rule: Rule::DiskFull,
                    cause,
                },
                Failure::Unavailable(_) => WriteError::unavailable(cause),
                Failure::Unknown(_) => WriteError::unknown(cause),
            }))),
            Self::Import(reply, _) => drop(reply.send(Err(cause))),
            Self::Heartbeat(reply, _) => drop(reply.send(Err(cause))),
        }
    }
}
