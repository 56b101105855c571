//! What the driver's monitor knows of the replica set's primary.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use mongodb::{
    ServerType,
    event::{EventHandler, sdam::SdamEvent},
};
use tokio::sync::watch;

/// The primary, as the driver's monitor last saw it.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    /// Counts up each time that a primary is found which was not known right
    /// before: another node, or the same one after an outage. What was sent
    /// before may never be answered.
    elections: watch::Receiver<u64>,
    known: watch::Receiver<bool>,
}

/// What the event handler keeps.
#[derive(Default)]
struct Seen {
    primaries: HashSet<String>,
    last: Option<String>,
}

impl Topology {
    /// The topology, and the handler that a client must have to feed it.
    pub(super) fn new() -> (Self, EventHandler<SdamEvent>) {
        let (elected, elections) = watch::channel(0);
        let (found, known) = watch::channel(false);
        let seen = Mutex::new(Seen::default());
        let handler = EventHandler::callback(move |event| {
            let (address, is_primary) = match event {
                SdamEvent::ServerDescriptionChanged(change) => (
                    change.address.to_string(),
                    change.new_description.server_type() == ServerType::RsPrimary,
                ),
                SdamEvent::ServerClosed(closed) => (closed.address.to_string(), false),
                _ => return,
            };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let had_none = seen.primaries.is_empty();
            if is_primary {
                seen.primaries.insert(address.clone());
                let other = seen.last.as_ref() != Some(&address);
                seen.last = Some(address);
                if had_none || other {
                    elected.send_modify(|elections| *elections += 1);
                }
            } else {
                seen.primaries.remove(&address);
            }
            let any = !seen.primaries.is_empty();
            found.send_if_modified(|known| std::mem::replace(known, any) != any);
        });
        (Self { elections, known }, handler)
    }

    /// Whether a primary is known right now.
    pub(super) fn has_primary(&self) -> bool {
        *self.known.borrow()
    }

    /// A receiver that reports the next election, from now on.
    pub(super) fn next_election(&self) -> watch::Receiver<u64> {
        let mut elections = self.elections.clone();
        elections.mark_unchanged();
        elections
    }
}
