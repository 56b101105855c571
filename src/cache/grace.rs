//! Rules for pages within their grace, entries of the shared tier, and leases.

use super::{
    Cache,
    request::{Miss, ReadRequest},
};
use crate::{
    coherence::{Admitted, Consistency, ReadView, renewed},
    model::{Key, KeyRef, Mono, OriginTime, Stamped},
    tier::near::NearEntry,
};

impl Cache {
    /// A page whose list has changed may be served if its load began within the
    /// list grace: the comparison with its fence is left out, nothing else. It is
    /// fresh to its stamp only.
    pub(super) fn admit_within_grace(
        &self,
        key: KeyRef<'_>,
        entry: &NearEntry,
        view: &ReadView,
        request: &ReadRequest,
    ) -> Option<Admitted> {
        let as_of = entry.stamped.as_of;
        let (min_as_of, since) = self.grace(key, request)?;
        let in_grace = as_of < view.min_as_of && as_of >= min_as_of && entry.load_began? >= since;
        in_grace.then(|| Admitted::at(as_of))
    }

    /// What a page needs to be served within its grace: the least stamp, and the
    /// earliest begin of its load. `None`: not a page, or the level forbids it.
    pub(super) fn grace(
        &self,
        key: KeyRef<'_>,
        request: &ReadRequest,
    ) -> Option<(OriginTime, Mono)> {
        let KeyRef::Page(query) = key else {
            return None;
        };
        let grace = self.settings.list_grace;
        if !request.consistency.allows_grace(grace) {
            return None;
        }
        let own_write = self.tracker.watermarks.grace_min_as_of(query.list.as_str());
        let since = self.tracker.now().minus(grace);
        Some((own_write.max(request.min_freshness), since))
    }

    /// Whether another replica may have stored an entry that this view admits.
    /// Hardly if the fence is above the frontier (this replica wrote the change, or
    /// it is arriving right now), or if it is this replica's newest write and the
    /// writer itself asks.
    pub(super) fn may_be_shared(&self, view: &ReadView, request: &ReadRequest) -> bool {
        let own = view.min_as_of == self.tracker.own_write();
        let asked_by_writer = request.consistency == Consistency::AtLeastAsFresh(view.min_as_of);
        view.min_as_of <= view.frontier && !(own && asked_by_writer)
    }

    /// The fence that invalidated the value in the near cache, if loading it is worth a lease:
    /// other replicas see the change too, and a value as new as the fence is enough.
    pub(super) fn lease(&self, miss: &Miss, request: &ReadRequest) -> Option<OriginTime> {
        let fence = miss.view.min_as_of;
        let loads = request.consistency != Consistency::CachedOnly && !request.origin_down();
        let worth = matches!(miss.key, Key::Todo(_) | Key::List(_))
            && miss.invalidated
            && loads
            && self.may_be_shared(&miss.view, request)
            && request.min_freshness <= fence;
        worth.then_some(fence)
    }

    /// Whether a shared entry's stamp is used; see [`Consistency::believes`](crate::coherence::Consistency::believes).
    pub(super) fn is_believable(
        &self,
        stamped: &Stamped,
        proven: OriginTime,
        request: &ReadRequest<'_>,
    ) -> bool {
        let interval_before = |time| {
            self.origin
                .replay_start(time, self.settings.heartbeat_interval)
        };
        let believable = request
            .consistency
            .believes(stamped.as_of, proven, interval_before);
        if !believable {
            self.tiers.reject("future");
        }
        believable
    }

    /// Stores a shared value near. An entry older than half its lifetime is written
    /// to the shared cache again, as fresh as the view that admitted it says, so that entries in
    /// use do not expire while the origin is down.
    pub(super) fn promote(&self, scope: u64, miss: &Miss, stamped: &Stamped) {
        self.tiers.near.put(&miss.key, stamped.clone(), None);
        let half = self.settings.replay_window / 2;
        if self.origin.replay_start(miss.view.frontier, half) > stamped.as_of {
            let renewed = renewed(stamped, &miss.view);
            self.tiers.store_shared(scope, &miss.key, &renewed);
        }
    }
}
