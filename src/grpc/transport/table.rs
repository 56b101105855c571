//! The open connections of one port, and which of them has to end for another one, or for
//! memory.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::budget::CallerKey;

/// Bytes that an open connection can hold beside all that is charged, however few of its calls
/// are under way: h2 keeps the paths and authorities of the peer's table of headers (4 KiB, at
/// least 38 bytes each) as parts of its read buffers of 8 KiB. A peer must have sent as much.
pub(super) const MAX_HELD_BYTES: u64 = 1 << 20;
/// Time in which a silent connection is not ended for one of an address that has more: a few
/// round trips.
const TIME_TO_SPEAK: Duration = Duration::from_secs(1);
/// Bytes of the preface of HTTP/2.
pub(super) const PREFACE_BYTES: u64 = 24;

/// The open connections.
#[derive(Default)]
pub(super) struct Table {
    /// How many each address has.
    pub(super) by_address: HashMap<CallerKey, usize>,
    /// Those that are open, by id: the older, the smaller.
    pub(super) all: HashMap<u64, OpenConnection>,
    /// The ids of those that have sent nothing yet.
    pub(super) silent: BTreeSet<u64>,
    next_id: u64,
}

/// One of them.
pub(super) struct OpenConnection {
    address: CallerKey,
    since: Instant,
    state: Arc<ConnectionState>,
}

impl OpenConnection {
    fn evict(&self, why: Eviction) {
        // The first reason stays.
        let _ = self.state.eviction.set(why);
        self.state.evicted.cancel();
    }
}

/// Why an open connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It has sent nothing, and there are too many.
    Silent,
    /// There are too many, and its address has most of them.
    Share,
    /// The process takes too much memory.
    Memory,
}

/// What an open connection and the table of all share.
#[derive(Default)]
pub struct ConnectionState {
    /// Bytes that the peer has sent.
    pub received: AtomicU64,
    /// Calls that are not finished, their replies included.
    pub calls: AtomicU32,
    pub(super) evicted: CancellationToken,
    pub(super) eviction: OnceLock<Eviction>,
}

impl ConnectionState {
    /// Whether the peer has begun to speak HTTP.
    pub fn has_spoken(&self) -> bool {
        self.received.load(Relaxed) >= PREFACE_BYTES
    }

    /// The most that it may hold beside what is charged.
    fn held(&self) -> u64 {
        self.received.load(Relaxed).min(MAX_HELD_BYTES)
    }
}

/// Connections that were closed because the process takes too much memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Shed {
    /// Whose they were.
    pub address: CallerKey,
    /// How many.
    pub connections: usize,
}

impl Table {
    /// How many this address has.
    pub(super) fn of(&self, address: &CallerKey) -> usize {
        self.by_address.get(address).copied().unwrap_or_default()
    }

    /// A new one, silent yet; returns its id.
    pub(super) fn add(&mut self, address: CallerKey) -> (u64, Arc<ConnectionState>) {
        let (id, state) = (self.next_id, Arc::<ConnectionState>::default());
        self.next_id += 1;
        *self.by_address.entry(address.clone()).or_default() += 1;
        self.silent.insert(id);
        let open = OpenConnection {
            address,
            since: Instant::now(),
            state: Arc::clone(&state),
        };
        self.all.insert(id, open);
        (id, state)
    }

    /// Takes out a connection; `None`: it has been evicted.
    pub(super) fn remove(&mut self, id: u64) -> Option<OpenConnection> {
        let connection = self.all.remove(&id)?;
        self.silent.remove(&id);
        if let Some(count) = self.by_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&connection.address);
            }
        }
        Some(connection)
    }

    /// Ends the oldest silent connection, of this address if one is given, for a new one of an
    /// address that has `own`.
    pub(super) fn evict(&mut self, address: Option<&CallerKey>, own: usize) -> bool {
        let may_go = |silent: &OpenConnection| {
            // It may have spoken a moment ago. Those of addresses with fewer have time for it:
            // a flood of new connections must not end each other one before it can speak.
            !silent.state.has_spoken()
                && address.is_none_or(|of| silent.address == *of)
                && (self.of(&silent.address) >= own || silent.since.elapsed() >= TIME_TO_SPEAK)
        };
        let mut silent = self.silent.iter();
        let oldest = silent.find(|id| self.all.get(id).is_some_and(may_go));
        let evicted = oldest.copied().and_then(|id| self.remove(id));
        if let Some(silent) = &evicted {
            silent.evict(Eviction::Silent);
        }
        evicted.is_some()
    }

    /// Ends a connection of the address that has most, for a new one of an address that has
    /// `own`, if it does not have fewer than that one then. The oldest without calls, or the
    /// oldest.
    pub(super) fn share(&mut self, own: usize) -> bool {
        let most = self.by_address.iter().max_by_key(|(_, count)| **count);
        let Some((address, _)) = most.filter(|(_, count)| **count >= own + 2) else {
            return false;
        };
        let of_address = self.all.iter().filter(|(_, open)| open.address == *address);
        let rank =
            |(id, open): &(&u64, &OpenConnection)| (open.state.calls.load(Relaxed) > 0, **id);
        let chosen = of_address.min_by_key(rank).map(|(id, _)| *id);
        let evicted = chosen.and_then(|id| self.remove(id));
        if let Some(connection) = &evicted {
            connection.evict(Eviction::Share);
        }
        evicted.is_some()
    }

    /// The address whose connections may hold most.
    fn largest(&self) -> Option<CallerKey> {
        let mut held: HashMap<&CallerKey, u64> = HashMap::new();
        for connection in self.all.values() {
            *held.entry(&connection.address).or_default() += connection.state.held();
        }
        let (address, _) = held.into_iter().max_by_key(|(_, held)| *held)?;
        Some(address.clone())
    }

    /// Ends those connections of the address whose connections may hold most that may hold
    /// most themselves, a quarter of them.
    pub(super) fn shed(&mut self) -> Option<Shed> {
        let address = self.largest()?;
        let connections = self.all.iter();
        let of_address = connections.filter(|(_, connection)| connection.address == address);
        let mut by_held: Vec<_> = of_address
            .map(|(id, connection)| (connection.state.held(), *id))
            .collect();
        by_held.sort_unstable();
        let connections = by_held.len().div_ceil(4);
        for (_, id) in by_held.iter().rev().take(connections) {
            if let Some(connection) = self.remove(*id) {
                connection.evict(Eviction::Memory);
            }
        }
        Some(Shed {
            address,
            connections,
        })
    }
}
