//! The embedded origin: todos on this machine's disk, in one file, for one
//! process. Its clock is the commit number, its feed the history in the file.
//!
//! With it `tidemark serve` needs no other server, and has the same calls, tokens and
//! watches. It supports one process only. redb was
//! chosen for its build time and its reads (ADR 12). It has one writer at a
//! time, so writes that wait together are committed together.

mod disk;
mod feed;
mod lists;
mod store;
mod tables;
mod tail;
mod writer;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    disk::{Mode, Store},
    feed::EmbeddedFeed,
    tail::Tail,
    writer::{Command, Writer},
};
use super::{Cause, Feed, FeedError, FeedStart, Imported, Origin, OriginError, WriteError};
use crate::{
    model::{
        ListName, ListsPage, ListsQuery, OriginId, OriginTime, Page, PageQuery, RequestId,
        TodoName, Value, Write, WriteDone,
    },
    pb,
};

/// Commands that may wait for the writer: a second or so of its work.
const MAX_QUEUED: usize = 4096;
/// Pause between two tries of a read while the store is opened again. How long that takes
/// depends on the disk, so the read's own limit bounds the tries.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
/// A process that starts with a full disk begins one number further for so
/// many milliseconds since 1970: faster than heartbeats use numbers up.
const MS_PER_NUMBER: u64 = 4;
/// The kernel's signal for a file that may not grow (`ulimit -f`). Its default
/// is to end the process.
const SIGXFSZ: i32 = 25;
/// The file in the data directory.
const FILE: &str = "todos.redb";

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store in {} cannot be opened: {problem}", .dir.display())]
pub struct OpenError {
    dir: PathBuf,
    #[source]
    problem: OpenProblem,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenProblem {
    /// Another process holds its lock.
    #[error("another process has it open; stop that one, or give this one a --data-dir of its own")]
    InUse,
    /// A later version wrote it.
    #[error(
        "its format is {0}, and this version knows only {known} to {newest}; use the version that wrote it",
        known = store::FORMAT,
        newest = store::FORMAT_WITH_LISTS
    )]
    Format(u64),
    /// The file cannot be read or written, or is not a store.
    #[error("{0}; --data-dir must name a directory of this service, that its user may write")]
    Library(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for OpenProblem {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            error => Self::Library(error),
        }
    }
}

impl From<redb::Error> for Cause {
    fn from(error: redb::Error) -> Self {
        Self::from_error(error, None)
    }
}

/// The embedded store.
pub struct Embedded {
    id: OriginId,
    scope: u64,
    store: Arc<Store>,
    tail: Arc<Tail>,
    commands: mpsc::Sender<Command>,
}

impl Embedded {
    /// Opens the store in this directory, and creates it if there is none.
    ///
    /// # Errors
    /// `OpenError` if the directory cannot be written, another process has it
    /// open, or the file is not a store of this version.
    pub fn open(dir: &Path, cache_epoch: u64) -> Result<Self, OpenError> {
        Self::open_in(dir, cache_epoch).map_err(|problem| OpenError {
            dir: dir.to_owned(),
            problem,
        })
    }

    fn open_in(dir: &Path, cache_epoch: u64) -> Result<Self, OpenProblem> {
        fs::create_dir_all(dir)?;
        catch_size_signal();
        let (store, mut opened, mode) = Store::open(&dir.join(FILE), store::prepare)?;
        if mode == Mode::Overlay {
            // No number can be reserved, and none may be given out twice.
            opened.clock += u64::try_from(wall_ms()).unwrap_or(0) / MS_PER_NUMBER;
        }
        let store = Arc::new(store);
        let tail = Arc::new(Tail::new(
            opened.clock,
            opened.history_start,
            opened.wall_clock_samples,
        ));
        let (commands, queue) = mpsc::channel(MAX_QUEUED);
        let writer = Writer::new(
            Arc::clone(&store),
            Arc::clone(&tail),
            opened.clock,
            opened.history_len,
            mode,
        );
        writer.spawn(queue)?;
        let scope = xxh3_64(&[opened.id.to_be_bytes(), cache_epoch.to_be_bytes()].concat());
        Ok(Self {
            id: OriginId(opened.id),
            scope,
            store,
            tail,
            commands,
        })
    }

    /// Sends a command to the writer, and waits for its reply.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WriterStopped> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| WriterStopped { received: false })?;
        answer.await.map_err(|_| WriterStopped { received: true })
    }

    fn read_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
    ) -> Result<(OriginTime, Vec<Value>), OriginError> {
        let (time, reader) = self.snapshot(after)?;
        let values = names
            .iter()
            .map(|name| reader.value(name))
            .collect::<Result<_, _>>();
        Ok((time, values.map_err(OriginError::unavailable)?))
    }

    /// A read on a thread of the blocking pool. Again while the store cannot be read,
    /// since it is opened again when its disk is full.
    async fn read_blocking<T: Send + 'static>(
        &self,
        after: OriginTime,
        limit: Duration,
        read: impl Fn(&store::Reader) -> Result<T, redb::Error> + Clone + Send + 'static,
    ) -> Result<(OriginTime, T), OriginError> {
        let ends = Instant::now() + limit;
        loop {
            let read = read.clone();
            let attempt = async {
                let (time, reader) = self.snapshot(after)?;
                let value = tokio::task::spawn_blocking(move || read(&reader)).await;
                let value = value
                    .map_err(|error| OriginError::unavailable(Cause::from_error(error, None)))?;
                Ok((time, value.map_err(OriginError::unavailable)?))
            };
            match attempt.await {
                Err(OriginError::Unavailable(_)) if Instant::now() + REOPEN_PAUSE < ends => {}
                done => return done,
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    async fn ask_to_write(
        &self,
        write: Write,
        request: Option<RequestId>,
    ) -> Result<WriteDone, WriteError> {
        let write = Box::new(write);
        let ask = self.ask(|reply| Command::Write {
            write,
            request,
            reply,
        });
        match ask.await {
            Ok(done) => done,
            Err(stopped) if stopped.received => Err(WriteError::unknown(stopped)),
            Err(stopped) => Err(WriteError::unavailable(stopped)),
        }
    }

    /// A snapshot with its exact time: nothing at or below it is missing, and
    /// nothing above it is there.
    fn snapshot(&self, after: OriginTime) -> Result<(OriginTime, store::Reader), OriginError> {
        let published = self.tail.published();
        let txn = self.store.begin_read().map_err(OriginError::unavailable)?;
        let reader = store::Reader::new(&txn).map_err(OriginError::unavailable)?;
        let last = reader.last_write().map_err(OriginError::unavailable)?;
        let time = OriginTime(published.max(last));
        if time < after {
            return Err(OriginError::Ahead(after));
        }
        Ok((time, reader))
    }
}

/// The writer's thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the store's writer has stopped; the log says why")]
struct WriterStopped {
    /// The writer had received the command, and may have done it.
    received: bool,
}

impl From<WriterStopped> for Cause {
    fn from(error: WriterStopped) -> Self {
        Self::from_error(error, None)
    }
}

#[async_trait]
impl Origin for Embedded {
    fn id(&self) -> OriginId {
        self.id
    }

    fn entry_scope(&self) -> u64 {
        self.scope
    }

    async fn load_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<Value>), OriginError> {
        // The store is opened again when its disk is full.
        let ends = Instant::now() + limit;
        loop {
            match self.read_todos(names, after) {
                Err(OriginError::Unavailable(_)) if Instant::now() + REOPEN_PAUSE < ends => {}
                read => return read,
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    fn page_loads(&self) -> usize {
        // The other cores are for the calls.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / 2).max(1)
    }

    async fn load_page(
        &self,
        query: &PageQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError> {
        let query = query.clone();
        // A filter that few todos match walks through the whole list.
        self.read_blocking(after, limit, move |reader| reader.page(&query))
            .await
    }

    async fn load_list(
        &self,
        name: &ListName,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Value), OriginError> {
        let name = name.clone();
        self.read_blocking(after, limit, move |reader| reader.list(&name))
            .await
    }

    async fn load_lists(
        &self,
        query: &ListsQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, ListsPage), OriginError> {
        let query = query.clone();
        self.read_blocking(after, limit, move |reader| reader.lists(&query))
            .await
    }

    async fn heartbeat(&self, number: u64, limit: Duration) -> Result<OriginTime, OriginError> {
        match timeout(
            limit,
            self.ask(|reply| Command::Heartbeat { number, reply }),
        )
        .await
        {
            Ok(Ok(time)) => time.map_err(OriginError::unavailable),
            Ok(Err(stopped)) => Err(OriginError::unavailable(stopped)),
            Err(_) => Err(OriginError::unavailable(format!(
                "the writer did not answer within {limit:?}"
            ))),
        }
    }

    async fn write(
        &self,
        write: Write,
        request: Option<RequestId>,
        _send_by: Option<Instant>,
    ) -> Result<WriteDone, WriteError> {
        let forced = matches!(write, Write::DeleteList { force: true, .. });
        loop {
            match self.ask_to_write(write.clone(), request).await {
                // One batch of its todos was deleted.
                Err(WriteError::NotEmpty { .. }) if forced => {}
                done => return done,
            }
        }
    }

    async fn import(&self, todos: Vec<pb::Todo>) -> Result<Imported, OriginError> {
        match self.ask(|reply| Command::Import { todos, reply }).await {
            Ok(count) => count.map_err(OriginError::unavailable),
            Err(stopped) => Err(OriginError::unavailable(stopped)),
        }
    }

    fn replay_start(&self, h0: OriginTime, window: Duration) -> OriginTime {
        self.tail.before(h0, window)
    }

    async fn open_feed(&self, from: FeedStart) -> Result<Box<dyn Feed>, FeedError> {
        let after = match from {
            FeedStart::After(time) => time,
            FeedStart::Resume(position) => *position
                .0
                .downcast_ref::<OriginTime>()
                .ok_or_else(|| FeedError::broken("the position is of another origin"))?,
        };
        EmbeddedFeed::open(Arc::clone(&self.store), Arc::clone(&self.tail), after)
            .map(|feed| Box::new(feed) as Box<dyn Feed>)
    }
}

/// Lets a write beyond `ulimit -f` fail like one to a full disk.
fn catch_size_signal() {
    if tokio::runtime::Handle::try_current().is_ok() {
        // The handler stays when its stream is dropped.
        drop(tokio::signal::unix::signal(
            tokio::signal::unix::SignalKind::from_raw(SIGXFSZ),
        ));
    }
}

/// This machine's wall clock, in milliseconds since 1970.
fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
