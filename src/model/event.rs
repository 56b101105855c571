//! The events of the feed that watchers get.

use std::sync::Arc;

use super::{Change, ListName};

/// What happened to what is watched. Cheap to clone: all watchers share one change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A todo changed.
    Change(Arc<Change>),
    /// The document of a list changed. It is not sent: the right to go on is checked
    /// again.
    List(ListName),
    /// The client must read everything again that it cached. A reset absorbs
    /// the other events of its commit time.
    Reset {
        /// Why, for people.
        reason: Arc<str>,
    },
}

impl Event {
    /// Whether this is a reset.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        matches!(self, Self::Reset { .. })
    }
}
