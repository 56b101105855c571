//! The audit log: one JSON line for each write and for each refusal of a caller,
//! without contents and credentials.
//!
//! A thread writes the lines, so that a slow disk slows no call. Its queue has a
//! bound in bytes; a line beyond it is dropped and counted. A disk that is full
//! is counted, too: the audit log does not stop the service.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    auth::Caller,
    budget::CallerKey,
    telemetry::{Kind, Metrics},
};

/// Bytes of lines that wait to be written: some 3,000 lines.
const QUEUE_BYTES: usize = 1 << 20;
/// Most bytes written at once.
const BATCH_BYTES: usize = 64 << 10;
/// Lines a second about unauthenticated callers: everyone who reaches the port can
/// cause them, and must not fill the disk.
const UNKNOWN_PER_SECOND: u32 = 100;
/// The last of them are for addresses that had fewer than so many in this second.
const UNKNOWN_LAST: u32 = 25;
const UNKNOWN_SHARE: u32 = 5;
/// Longest name of a list or todo in a line, in bytes. Valid ones are shorter.
const MAX_RESOURCE_BYTES: usize = 256;
/// How often it is looked whether the file was rotated.
const ROTATION_INTERVAL: Duration = Duration::from_secs(1);
/// How often a failed write is logged at most.
const WARN_INTERVAL: Duration = Duration::from_mins(1);
/// Longest wait at the exit for lines that are not written yet.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// stderr, among the lines of the log.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}

/// What the handler of a write knows of it.
#[derive(Debug, Default)]
pub struct Record {
    resource: OnceLock<String>,
    members: OnceLock<BTreeMap<String, &'static str>>,
    token: OnceLock<String>,
}

impl Record {
    /// The list or todo that the request names, as it was sent.
    pub fn set_resource(&self, name: &str) {
        let end = name.floor_char_boundary(MAX_RESOURCE_BYTES);
        // A second name is ignored: a request has one.
        let _ = self.resource.set(name[..end].to_owned());
    }

    /// The members that a write gave a list, all of them, and their roles. A list has at
    /// most 256 of at most 256 bytes: below 150 KiB in a line, also if all are escaped.
    pub fn set_members(&self, members: BTreeMap<String, &'static str>) {
        let _ = self.members.set(members);
    }

    /// The token of the write.
    pub fn set_token(&self, token: String) {
        let _ = self.token.set(token);
    }
}

/// A call that ended.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The method, such as `CreateTodo`.
    pub call: &'static str,
    /// Who called; `None`: not authenticated.
    pub caller: Option<&'a Caller>,
    /// The other end of the connection; a proxy's, if there is one.
    pub peer: Option<SocketAddr>,
    /// The status code, such as `OK`.
    pub code: &'static str,
    /// Reason and metadata of the error.
    pub error: Option<(&'a str, &'a std::collections::HashMap<String, String>)>,
    /// What the handler knows.
    pub record: Option<&'a Record>,
    /// The trace that the call belongs to.
    pub trace_id: Option<String>,
}

/// A line, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    target: &'static str,
    time: String,
    call: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<&'a BTreeMap<String, &'static str>>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permission: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl<'a> Line<'a> {
    fn of(entry: Entry<'a>) -> Self {
        let value = |key: &str| Some(entry.error?.1.get(key)?.as_str());
        let recorded = |text: &'a OnceLock<String>| text.get().map(String::as_str);
        let resource = entry.record.and_then(|record| recorded(&record.resource));
        let token = entry.record.and_then(|record| recorded(&record.token));
        Self {
            target: "audit",
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            call: entry.call,
            principal: entry
                .caller
                .map(|caller| &**caller.principal())
                .or_else(|| value("principal")),
            method: entry.caller.map_or("none", |caller| caller.method().name()),
            peer: entry.peer,
            resource: resource
                .or_else(|| value("resource"))
                .or_else(|| value("name")),
            members: entry.record.and_then(|record| record.members.get()),
            code: entry.code,
            reason: entry.error.map(|(reason, _)| reason),
            why: value("why"),
            permission: value("permission"),
            token: token.or_else(|| value("token")),
            trace_id: entry.trace_id,
        }
    }
}

/// The audit log of the process.
pub struct Audit {
    lines: Sender<QueuedLine>,
    queued: Arc<Mutex<Queued>>,
    unknown: Mutex<Window>,
    metrics: Arc<Metrics>,
}

/// Whose line it is: the principal, or the address.
type Owner = Option<CallerKey>;

/// A line that waits to be written.
struct QueuedLine {
    owner: Owner,
    bytes: Vec<u8>,
}

/// Bytes of the lines that wait: in all, and of each caller that has some.
#[derive(Default)]
struct Queued {
    bytes: usize,
    of_owner: HashMap<Owner, usize>,
}

impl Queued {
    /// Takes room for a line. One caller alone may take three quarters; the last one is for
    /// callers that have less than their share, so that nobody's lines are lost for those of
    /// another caller. `false`: there is no room.
    fn add(&mut self, owner: &Owner, bytes: usize) -> bool {
        let own = self.of_owner.get(owner).copied().unwrap_or_default() + bytes;
        let after = self.bytes + bytes;
        let share = QUEUE_BYTES / (self.of_owner.len() + 3);
        if after > QUEUE_BYTES || (after > QUEUE_BYTES / 4 * 3 && own > share) {
            return false;
        }
        self.bytes = after;
        self.of_owner.insert(owner.clone(), own);
        true
    }

    fn remove(&mut self, line: &(Owner, usize)) {
        let (owner, bytes) = line;
        self.bytes -= bytes;
        if let Some(own) = self.of_owner.get_mut(owner) {
            *own -= bytes;
            if *own == 0 {
                self.of_owner.remove(owner);
            }
        }
    }
}

fn locked(queued: &Mutex<Queued>) -> MutexGuard<'_, Queued> {
    queued.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines in one second: in all, and of each address that had some.
struct Window {
    began: Instant,
    lines: u32,
    of_address: HashMap<Option<CallerKey>, u32>,
}

impl Window {
    /// Whether there is room for a line about this address. One alone may have most of the
    /// lines; the refusals of others are not hidden behind its own.
    fn has_room(&mut self, address: Option<CallerKey>, now: Instant) -> bool {
        if now.duration_since(self.began) >= Duration::from_secs(1) {
            (self.began, self.lines) = (now, 0);
            self.of_address.clear();
        }
        let own = self.of_address.get(&address).copied().unwrap_or_default();
        let most = match own {
            ..UNKNOWN_SHARE => UNKNOWN_PER_SECOND,
            _ => UNKNOWN_PER_SECOND - UNKNOWN_LAST,
        };
        let has_room = self.lines < most;
        if has_room {
            self.lines += 1;
            self.of_address.insert(address, own + 1);
        }
        has_room
    }
}

impl Audit {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn open(target: &AuditTarget, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let sink = Sink::open(target)?;
        let (lines, queue) = mpsc::channel();
        let queued = Arc::<Mutex<Queued>>::default();
        let writer = Writer {
            queue,
            queued: Arc::clone(&queued),
            sink,
            torn: false,
            warned: None,
            metrics: Arc::clone(&metrics),
        };
        let thread = thread::Builder::new().name("audit".into());
        thread.spawn(move || writer.run())?;
        let unknown = Window {
            began: Instant::now(),
            lines: 0,
            of_address: HashMap::new(),
        };
        Ok(Arc::new(Self {
            lines,
            queued,
            unknown: Mutex::new(unknown),
            metrics,
        }))
    }

    /// Writes a line about a call, soon.
    pub fn record(&self, entry: Entry<'_>) {
        let address = entry.peer.map(|peer| CallerKey::address(peer.ip()));
        if entry.code == "UNAUTHENTICATED" {
            let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
            if !unknown.has_room(address.clone(), Instant::now()) {
                return self.count("limited", 1);
            }
        }
        let principal = entry.caller.map(Caller::principal);
        let owner = principal.map_or(address, |name| Some(CallerKey::principal(name)));
        // Texts and numbers alone: it cannot fail.
        let Ok(mut line) = serde_json::to_vec(&Line::of(entry)) else {
            return;
        };
        line.push(b'\n');
        if !locked(&self.queued).add(&owner, line.len()) {
            return self.count("dropped", 1);
        }
        // The thread ends with the last sender only.
        let _ = self.lines.send(QueuedLine { owner, bytes: line });
    }

    /// Waits until all lines are written, for a second at most.
    pub async fn drain(&self) {
        let began = Instant::now();
        while locked(&self.queued).bytes > 0 && began.elapsed() < DRAIN_TIMEOUT {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn count(&self, kind: &'static str, lines: u64) {
        count(&self.metrics, kind, lines);
    }
}

fn count(metrics: &Metrics, kind: &'static str, lines: u64) {
    metrics
        .audit_lines
        .get_or_create(&Kind { kind })
        .inc_by(lines);
}

/// Where the lines go.
enum Sink {
    Stderr,
    File {
        path: PathBuf,
        file: File,
        looked: Instant,
    },
}

impl Sink {
    fn open(target: &AuditTarget) -> io::Result<Self> {
        match target {
            AuditTarget::Stderr => Ok(Self::Stderr),
            AuditTarget::File(path) => Ok(Self::File {
                file: append_to(path)?,
                path: path.clone(),
                looked: Instant::now(),
            }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { path, file, looked } => {
                if looked.elapsed() >= ROTATION_INTERVAL {
                    *looked = Instant::now();
                    if !is_same(path, file) {
                        *file = append_to(path)?;
                    }
                }
                file.write_all(bytes)
            }
        }
    }
}

/// Only the service's user may read who did what.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

/// Whether the file at the path is still the one that is open: `logrotate`
/// moves it, without a signal to the service.
fn is_same(path: &Path, file: &File) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => id(there) == id(open),
        _ => false,
    }
}

/// The thread that writes.
struct Writer {
    queue: Receiver<QueuedLine>,
    queued: Arc<Mutex<Queued>>,
    sink: Sink,
    /// The last write failed, perhaps in the middle of a line.
    torn: bool,
    warned: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(first) = self.queue.recv() {
            let mut batch = if self.torn { vec![b'\n'] } else { Vec::new() };
            let mut lines = Vec::new();
            let mut add = |batch: &mut Vec<u8>, line: QueuedLine| {
                batch.extend(&line.bytes);
                lines.push((line.owner, line.bytes.len()));
            };
            add(&mut batch, first);
            while batch.len() < BATCH_BYTES
                && let Ok(more) = self.queue.try_recv()
            {
                add(&mut batch, more);
            }
            let count_of_lines = lines.len() as u64;
            let written = self.sink.write(&batch);
            self.torn = written.is_err();
            match written {
                Ok(()) => count(&self.metrics, "written", count_of_lines),
                Err(problem) => self.report(&problem, count_of_lines),
            }
            let mut queued = locked(&self.queued);
            lines.iter().for_each(|line| queued.remove(line));
        }
    }

    fn report(&mut self, problem: &io::Error, lines: u64) {
        count(&self.metrics, "failed", lines);
        let is_due = self
            .warned
            .is_none_or(|last| last.elapsed() >= WARN_INTERVAL);
        if is_due {
            self.warned = Some(Instant::now());
            tracing::error!(%problem, "lines of the audit log cannot be written, and are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(code: &'static str) -> Entry<'static> {
        Entry {
            call: "CreateTodo",
            caller: None,
            peer: None,
            code,
            error: None,
            record: None,
            trace_id: None,
        }
    }

    fn counted(metrics: &Metrics, kind: &'static str) -> u64 {
        metrics.audit_lines.get_or_create(&Kind { kind }).get()
    }

    /// Waits until all is written: one drain gives up after a second, which is little on a
    /// busy machine.
    async fn drain(audit: &Audit) {
        for _ in 0..60 {
            audit.drain().await;
        }
        assert_eq!(locked(&audit.queued).bytes, 0);
    }

    #[tokio::test]
    async fn lines_follow_a_file_that_is_rotated() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let metrics = Arc::new(Metrics::default());
        let target = AuditTarget::File(path.clone());
        let audit = Audit::open(&target, Arc::clone(&metrics)).expect("opened");
        let record = Record::default();
        record.set_resource(&"ä".repeat(200));
        audit.record(Entry {
            record: Some(&record),
            ..entry("OK")
        });
        drain(&audit).await;
        fs::rename(&path, &moved).expect("moved");
        sleep(ROTATION_INTERVAL).await;
        audit.record(entry("OK"));
        drain(&audit).await;
        let line = |path: &Path| -> serde_json::Value {
            let text = fs::read_to_string(path).expect("read");
            serde_json::from_str(&text).expect("one line of JSON")
        };
        assert_eq!(line(&moved)["resource"], "ä".repeat(128));
        assert_eq!(line(&path)["code"], "OK");
        assert_eq!(counted(&metrics, "written"), 2);
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_full_disk_is_counted() {
        let metrics = Arc::new(Metrics::default());
        let target = AuditTarget::File("/dev/full".into());
        let audit = Audit::open(&target, Arc::clone(&metrics)).expect("opened");
        for _ in 0..3 {
            audit.record(entry("OK"));
        }
        drain(&audit).await;
        assert_eq!(counted(&metrics, "failed"), 3);
    }

    #[tokio::test]
    async fn unknown_callers_cannot_fill_the_disk() {
        let metrics = Arc::new(Metrics::default());
        let target = AuditTarget::File("/dev/null".into());
        let audit = Audit::open(&target, Arc::clone(&metrics)).expect("opened");
        let began = std::time::Instant::now();
        for _ in 0..1000 {
            audit.record(entry("UNAUTHENTICATED"));
        }
        // Begun seconds: each has its own allowance.
        let seconds = began.elapsed().as_secs() + 2;
        drain(&audit).await;
        let (written, limited) = (counted(&metrics, "written"), counted(&metrics, "limited"));
        assert_eq!(written + limited, 1000);
        let most = seconds * u64::from(UNKNOWN_PER_SECOND);
        assert!((75..=most).contains(&written), "{written} in {seconds} s");
    }

    #[test]
    fn the_lines_of_one_caller_leave_room_for_those_of_others() {
        const LINE: usize = 64 << 10;
        let mut queued = Queued::default();
        let owner = |name| Some(CallerKey::principal(name));
        let mut fill = |name| (0..100).filter(|_| queued.add(&owner(name), LINE)).count();
        assert_eq!(fill("greedy"), 12);
        assert_eq!((fill("modest"), fill("other"), fill("late")), (3, 1, 0));
        for (name, lines) in [("greedy", 12), ("modest", 3), ("other", 1)] {
            (0..lines).for_each(|_| queued.remove(&(owner(name), LINE)));
        }
        assert!(queued.bytes == 0 && queued.of_owner.is_empty());
    }

    #[test]
    fn one_address_cannot_hide_the_refusals_of_others() {
        let now = Instant::now();
        let mut window = Window {
            began: now,
            lines: 0,
            of_address: HashMap::new(),
        };
        let mut lines = |last: u8, now| {
            let address = Some(CallerKey::address([10, 0, 0, last].into()));
            (0..1000)
                .filter(|_| window.has_room(address.clone(), now))
                .count()
        };
        assert_eq!(lines(1, now), 75);
        let others: Vec<_> = (2..8).map(|last| lines(last, now)).collect();
        assert_eq!(others, [5, 5, 5, 5, 5, 0]);
        assert_eq!(lines(1, now + Duration::from_secs(1)), 75);
    }
}
