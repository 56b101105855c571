//! Accepting connections: one loop for each port.
//!
//! The loop bounds the connections, in all and from one address. At a bound, a
//! connection that has not sent anything yet makes room for the new one: a
//! flood of silent connections cannot keep callers out. Neither can connections
//! that speak: if there are too many in all, the address with most of them gives one
//! up for an address that has fewer (max-min fairness). A connection for which there
//! is no room is closed at once, so that its client tries another replica.
//!
//! When the process has no file descriptor left, the loop pauses instead of
//! trying again at once, and says so once a minute. The ports for metrics and
//! health hold a few descriptors in reserve.

use std::{
    fs::File,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::table::{ConnectionState, Eviction, Shed, Table};
use crate::{
    budget::{
        Budgets, CONNECTION_BYTES, Caller, CallerKey, Part, Reservation, TLS_CONNECTION_BYTES,
    },
    telemetry::{Kind, Metrics},
};

/// Connections that the kernel completes before they are accepted: a burst of
/// reconnecting clients after a rollout. The kernel caps it by `somaxconn`.
const BACKLOG: u32 = 1024;
/// Bytes of one connection that the kernel holds until they are read here; it counts twice as
/// much memory. Without a bound it adapts, up to 6 MB: a peer that sends fast at first, and then
/// neither reads nor stops, would fill that of the pod. The windows of HTTP/2 are as small.
const RECEIVE_BYTES: u32 = 64 << 10;
/// Pause when no file descriptor is left: ten tries a second.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a connection was refused, or took the place of another one, because there are
/// too many: 500 a second at most. Those of a full backlog are all looked at in two seconds.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// A warning is repeated this often at most.
const WARN_INTERVAL: Duration = Duration::from_mins(1);
/// Open files that are not connections of callers: listeners, the runtime,
/// connections to MongoDB (two pools for each node) and Redis, the embedded
/// store, and the ports for metrics and health.
const OTHER_FILES: usize = 100;
/// File descriptors in reserve for metrics and health: a scraper and a few
/// probes at once.
const SPARE_FILES: usize = 8;

/// Binds a listener with a backlog for bursts.
///
/// # Errors
/// The address cannot be used.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart may bind while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Connections have the size of their listener.
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Most connections at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// From one address.
    pub per_address: usize,
    /// Memory of each, in bytes.
    pub bytes_each: u64,
}

impl Limits {
    /// What the settings, the memory and the limit of open files allow.
    pub fn new(connections: usize, per_address: usize, tls: bool, budgets: &Budgets) -> Self {
        let bytes_each = if tls {
            TLS_CONNECTION_BYTES
        } else {
            CONNECTION_BYTES
        };
        let memory = budgets.plan().connections(bytes_each);
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.map_or(usize::MAX, |files| {
            usize::try_from(files).unwrap_or(usize::MAX)
        });
        let files = files.saturating_sub(OTHER_FILES).max(1);
        let most = connections.min(memory).min(files);
        if most < connections {
            tracing::info!(
                max_connections = connections,
                memory,
                files,
                "fewer connections are accepted than --max-connections: memory or the limit of open files allows {most}"
            );
        }
        Self {
            connections: most,
            // A tenth stays for other addresses.
            per_address: per_address.min(most - most / 10),
            bytes_each,
        }
    }
}

/// File descriptors in reserve.
pub struct SpareFiles(Mutex<Vec<File>>);

impl SpareFiles {
    /// To be called early: a process whose limit is lowered later needs
    /// descriptors with low numbers.
    pub fn new() -> Arc<Self> {
        let spare = Self(Mutex::default());
        spare.refill();
        Arc::new(spare)
    }

    fn files(&self) -> MutexGuard<'_, Vec<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes one. `false`: there is none left.
    fn release(&self) -> bool {
        self.files().pop().is_some()
    }

    fn refill(&self) {
        let mut files = self.files();
        while files.len() < SPARE_FILES {
            // None is free: the next connection that ends tries again.
            let Ok(file) = File::open("/dev/null") else {
                break;
            };
            files.push(file);
        }
    }
}

/// The connections of one port.
pub struct Connections {
    limits: Limits,
    table: Mutex<Table>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// No connections yet.
    pub fn new(limits: Limits, budgets: Arc<Budgets>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
            budgets,
            metrics,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address, and whether another one that has spoken had
    /// to give it up.
    ///
    /// # Errors
    /// Which limit is reached: `limit` or `address_limit`.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<(Slot, bool), &'static str> {
        let address = CallerKey::address(address);
        let caller = self.budgets.callers().of(address.clone());
        let mut table = self.table();
        let own = table.of(&address);
        if own >= self.limits.per_address && !table.evict(Some(&address), own) {
            return Err("address_limit");
        }
        let mut shared = false;
        if table.all.len() >= self.limits.connections && !table.evict(None, own) {
            shared = table.share(own);
            if !shared {
                return Err("limit");
            }
        }
        let (id, state) = table.add(address);
        drop(table);
        let bytes = self.budgets.of(Part::Connections);
        let memory = bytes.force(Some(&caller), self.limits.bytes_each);
        let slot = Slot {
            connections: Arc::clone(self),
            caller,
            id,
            state,
            _memory: memory,
        };
        Ok((slot, shared))
    }

    /// Closes some connections, those of the address that may hold most first; `None`: there
    /// are none.
    pub fn shed(&self) -> Option<Shed> {
        self.table().shed()
    }

    pub(super) fn count_closed(&self, kind: &'static str) {
        let closed = self
            .metrics
            .connections_closed
            .get_or_create(&Kind { kind });
        closed.inc();
    }
}

/// The place of one connection, free again when it is dropped.
pub struct Slot {
    connections: Arc<Connections>,
    caller: Arc<Caller>,
    id: u64,
    state: Arc<ConnectionState>,
    _memory: Reservation,
}

impl Slot {
    /// Whose connection it is.
    pub const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// What the connection tells the table of all.
    pub const fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }

    /// Completes when the connection has to make room for another one, or memory is short.
    pub async fn evicted(&self) -> Eviction {
        self.state.evicted.cancelled().await;
        // It is set before.
        self.state
            .eviction
            .get()
            .copied()
            .unwrap_or(Eviction::Silent)
    }

    /// The peer has sent something: it is not evicted as a silent one any more.
    pub fn has_spoken(&self) {
        self.connections.table().silent.remove(&self.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // An evicted one gave its place back already.
        let _evicted = self.connections.table().remove(self.id);
    }
}

/// A warning that is logged once a minute at most.
#[derive(Default)]
pub(super) struct Warning(Option<Instant>);

impl Warning {
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now - last >= WARN_INTERVAL);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// What an accept loop needs.
pub struct Accept {
    /// What the port is for, in log lines.
    pub port: &'static str,
    /// Its connections.
    pub connections: Arc<Connections>,
    /// Descriptors in reserve, for ports that must answer always.
    pub spare: Option<Arc<SpareFiles>>,
    /// No new connections.
    pub shutdown: CancellationToken,
}

impl Accept {
    /// Accepts until `shutdown`, then closes the listener. Each connection is a
    /// task of `tracker`.
    pub async fn run<F>(
        self,
        listener: TcpListener,
        tracker: &TaskTracker,
        serve: impl Fn(TcpStream, Slot) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        let accepting = async {
            let (mut full, mut no_files) = (Warning::default(), Warning::default());
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        self.accepted(stream, peer, tracker, &serve, &mut full)
                            .await;
                    }
                    Err(problem) => self.failed(&problem, &mut no_files).await,
                }
            }
        };
        shutdown.run_until_cancelled(accepting).await;
    }

    async fn accepted<F>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tracker: &TaskTracker,
        serve: impl Fn(TcpStream, Slot) -> F,
        full: &mut Warning,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.connections.admit(peer.ip()) {
            Ok((slot, shared)) => {
                let served = serve(stream, slot);
                let spare = self.spare.clone();
                tracker.spawn(async move {
                    served.await;
                    if let Some(spare) = spare {
                        spare.refill();
                    }
                });
                if shared {
                    sleep(FULL_PAUSE).await;
                }
            }
            Err(limit) => {
                drop(stream);
                self.connections.count_closed(limit);
                let Limits {
                    connections,
                    per_address,
                    ..
                } = self.connections.limits;
                if full.is_due() {
                    tracing::warn!(
                        port = self.port,
                        %peer,
                        limit,
                        connections,
                        per_address,
                        "a connection was closed: there are too many (--max-connections, --max-connections-per-address, memory, open files)"
                    );
                }
                if limit == "limit" {
                    sleep(FULL_PAUSE).await;
                }
            }
        }
    }

    async fn failed(&self, problem: &io::Error, no_files: &mut Warning) {
        if !is_exhausted(problem) {
            // The peer closed the connection before it was accepted.
            tracing::debug!(port = self.port, %problem, "a connection could not be accepted");
            return tokio::task::yield_now().await;
        }
        if self.spare.as_ref().is_some_and(|spare| spare.release()) {
            return;
        }
        self.connections.metrics.accept_pauses.inc();
        if no_files.is_due() {
            tracing::warn!(
                port = self.port,
                %problem,
                "no connection can be accepted: the limit of open files (ulimit -n) or of memory is reached"
            );
        }
        sleep(NO_FILES_PAUSE).await;
    }
}

/// Whether the process or the system has run out of something: trying again at
/// once would fail again.
fn is_exhausted(problem: &io::Error) -> bool {
    use rustix::io::Errno;

    let errno = problem.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::{
        super::table::{MAX_HELD_BYTES, PREFACE_BYTES},
        *,
    };

    fn connections(connections: usize, per_address: usize) -> Arc<Connections> {
        let limits = Limits {
            connections,
            per_address,
            bytes_each: CONNECTION_BYTES,
        };
        Connections::new(limits, Budgets::unlimited(256), Arc::default())
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    impl Connections {
        fn place(self: &Arc<Self>, last: u8) -> Result<Slot, &'static str> {
            self.admit(address(last)).map(|(slot, _)| slot)
        }
    }

    fn is_evicted(slot: &Slot) -> bool {
        slot.state.evicted.is_cancelled()
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let all = connections(4, 2);
        let first: Vec<_> = (0..2).map(|_| all.place(1).expect("a place")).collect();
        first.iter().for_each(Slot::has_spoken);
        assert_eq!(all.place(1).err(), Some("address_limit"));
        let second = all.place(2).expect("a place");
        drop((first, second));
        assert!(all.table().all.is_empty());
        assert!(all.table().by_address.is_empty());
    }

    #[test]
    fn a_silent_connection_makes_room() {
        let all = connections(2, 2);
        let silent = all.place(1).expect("a place");
        let speaking = all.place(2).expect("a place");
        speaking.has_spoken();
        let next = all.place(3).expect("the place of the silent one");
        assert!(is_evicted(&silent) && !is_evicted(&speaking));
        // Seen in its bytes, before anybody has told the table.
        next.state.received.store(PREFACE_BYTES, Relaxed);
        assert_eq!(all.place(3).err(), Some("limit"));
        drop((silent, speaking, next));
        let table = all.table();
        assert!(table.all.is_empty() && table.by_address.is_empty() && table.silent.is_empty());
    }

    #[test]
    fn a_flood_of_silent_connections_leaves_others_time_to_speak() {
        let all = connections(4, 4);
        let mut flood: Vec<_> = (0..3).map(|_| all.place(1).expect("a place")).collect();
        flood.iter().for_each(Slot::has_spoken);
        let modest = all.place(2).expect("a place");
        // It is the only silent one.
        assert_eq!(all.place(1).err(), Some("limit"));
        assert!(!is_evicted(&modest));
        // The flood ends its own, if there are any.
        drop(flood.pop());
        flood.push(all.place(1).expect("a place"));
        flood.push(all.place(1).expect("the place of its own"));
        assert!(is_evicted(&flood[2]) && !is_evicted(&modest));
    }

    #[test]
    fn an_address_with_most_places_gives_some_up() {
        let all = connections(8, 6);
        let spoken = |last: u8| {
            let slot = all.place(last)?;
            slot.has_spoken();
            Ok::<_, &'static str>(slot)
        };
        let greedy: Vec<_> = (0..6).map(|_| spoken(1).expect("a place")).collect();
        let other: Vec<_> = (0..2).map(|_| spoken(2).expect("a place")).collect();
        // All but one have calls.
        for slot in greedy.iter().chain(&other) {
            slot.state.calls.store(1, Relaxed);
        }
        greedy[3].state.calls.store(0, Relaxed);
        let evicted = |slots: &[Slot]| -> Vec<usize> {
            let all = slots.iter().enumerate();
            all.filter(|(_, slot)| is_evicted(slot))
                .map(|(at, _)| at)
                .collect()
        };
        let first = spoken(3).expect("the place of one without calls");
        assert_eq!(evicted(&greedy), [3]);
        let second = spoken(3).expect("the place of the oldest");
        assert_eq!(evicted(&greedy), [0, 3]);
        assert_eq!(greedy[0].state.eviction.get(), Some(&Eviction::Share));
        // Four, two and two: nobody gains by another exchange, and who has most least of all.
        let third = spoken(3).expect("three, then");
        assert_eq!(evicted(&greedy), [0, 1, 3]);
        assert_eq!(spoken(3).err(), Some("limit"));
        assert_eq!(spoken(1).err(), Some("limit"));
        assert!(evicted(&other).is_empty());
        drop((greedy, other, first, second, third));
        let table = all.table();
        assert!(table.all.is_empty() && table.by_address.is_empty() && table.silent.is_empty());
    }

    #[test]
    fn what_may_hold_most_is_closed_first() {
        let all = connections(100, 100);
        assert_eq!(all.shed(), None);
        let open = |last: u8, count: usize, sent: u64| {
            let slots = (0..count).map(|_| all.place(last).expect("a place"));
            let slots: Vec<_> = slots.collect();
            for slot in &slots {
                slot.state.received.store(sent, Relaxed);
                slot.has_spoken();
            }
            slots
        };
        // Much on one connection is not held, it passes through.
        let busy = open(1, 2, 1 << 40);
        let few = open(2, 30, 1000);
        let greedy = open(3, 8, MAX_HELD_BYTES);
        greedy[0].state.received.store(10, Relaxed);
        let shed = all.shed().expect("the greedy");
        assert_eq!(
            (shed.address, shed.connections),
            (CallerKey::address(address(3)), 2)
        );
        assert!(!is_evicted(&greedy[0]));
        let closed = |slots: &[Slot]| slots.iter().filter(|slot| is_evicted(slot)).count();
        assert_eq!((closed(&busy), closed(&few), closed(&greedy)), (0, 0, 2));
        assert_eq!(greedy[7].state.eviction.get(), Some(&Eviction::Memory));
        assert_eq!(all.table().all.len(), 38);
        drop((busy, few, greedy));
        let table = all.table();
        assert!(table.all.is_empty() && table.by_address.is_empty());
    }
}
