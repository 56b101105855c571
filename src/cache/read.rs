//! The read path, in order: near cache, wait for the frontier, shared cache, load
//! from the origin, and a stale value if the origin is down and the server allows it.
//!
//! A value is never served because a cache has it, only because it passes the rule
//! of [`ReadView`](crate::coherence::ReadView): its stamp is not below its fence,
//! and it is as fresh as the request needs.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{Instrument as _, info_span};

use super::{
    Cache,
    request::{Found, Miss, ReadItem, ReadRequest},
    within,
};
use crate::{
    coherence::{Admitted, Consistency, LoadRequirement},
    error::{Error, Unavailable},
    loader::{Charge, LoadRequest},
    model::{KeyRef, Source},
};

/// Longest wait for the frontier before a load begins instead. A working feed
/// returns a heartbeat within a few milliseconds.
const FRONTIER_WAIT: Duration = Duration::from_millis(50);

impl Cache {
    /// One todo or page.
    pub(super) async fn read_one(
        &self,
        key: KeyRef<'_>,
        request: &ReadRequest<'_>,
    ) -> Result<ReadItem, Error> {
        let miss = match near_span(1).in_scope(|| self.lookup_near(0, key, request)) {
            Lookup::Hit(item) => return Ok(item),
            Lookup::Miss(miss) => miss,
        };
        // Boxed, so that the future of a near hit stays small.
        let found = Box::pin(self.read_through(vec![miss], request, false)).await?;
        let found = found.into_iter().next().map(|(_, item)| item);
        found.ok_or_else(|| Unavailable::NoValue.into())
    }

    /// Resolves near misses. Each step returns what it found and the misses that are
    /// left. `continues`: other misses of the request were admitted before.
    pub(super) async fn read_through(
        &self,
        misses: Vec<Miss>,
        request: &ReadRequest<'_>,
        continues: bool,
    ) -> Result<Found, Error> {
        let mut found = Vec::with_capacity(misses.len());
        let misses = self.wait_for_frontier(misses, &mut found, request).await?;
        let misses = self.lookup_shared(misses, &mut found, request).await?;
        let Some(first) = misses.first() else {
            return Ok(found);
        };
        let error = if let Some(error) = &request.origin_error {
            Error::clone(error)
        } else if request.consistency == Consistency::CachedOnly {
            let what = first.key.to_string();
            Error::CacheOnlyMiss { what }
        } else {
            match self.load(&misses, &mut found, request, continues).await {
                Ok(()) => return Ok(found),
                Err(error) => error,
            }
        };
        self.serve_stale(misses, &mut found, request, error)?;
        Ok(found)
    }

    pub(super) fn lookup_near(
        &self,
        at: usize,
        key: KeyRef<'_>,
        request: &ReadRequest<'_>,
    ) -> Lookup {
        let view = self.tracker.watermarks.view(key);
        let miss = |candidate, invalidated| {
            Lookup::Miss(Miss {
                at,
                key: key.to_key(),
                view,
                candidate,
                invalidated,
            })
        };
        let Some(entry) = self.tiers.near.get(key) else {
            return miss(None, false);
        };
        let as_of = entry.stamped.as_of;
        let admitted = view
            .admit(as_of, request.min_freshness)
            .or_else(|| self.admit_within_grace(key, &entry, &view, request));
        if let Some(admitted) = admitted {
            if let KeyRef::Todo(name) = key {
                self.loader.record_hit(name);
            }
            return Lookup::Hit(request.item(entry.stamped.value, admitted, Source::Near));
        }
        match view.admissible(as_of) {
            Some(_) => miss(Some((entry.stamped, Source::Near)), false),
            None => miss(None, true),
        }
    }

    /// For levels that ask for more than the staleness limit: waits until the frontier
    /// reaches the requested freshness, then checks the near cache again.
    async fn wait_for_frontier(
        &self,
        misses: Vec<Miss>,
        found: &mut Found,
        request: &ReadRequest<'_>,
    ) -> Result<Vec<Miss>, Error> {
        let shared_up = self.tiers.shared_if_up().is_some();
        let helps = |miss: &Miss| {
            let may_be_shared = shared_up && miss.view.min_as_of <= miss.view.frontier;
            miss.view.frontier < request.min_freshness
                && (miss.candidate.is_some() || may_be_shared)
        };
        if !request.consistency.waits_for_frontier()
            || request.origin_down()
            || !misses.iter().any(helps)
        {
            return Ok(misses);
        }
        let span = info_span!("wait for the frontier", tidemark.tier = "feed");
        let wait = self.tracker.wait_for_frontier(request.min_freshness);
        let reached = timeout(FRONTIER_WAIT, wait).instrument(span);
        if within(request.deadline, "feed", reached).await?.is_err() {
            return Ok(misses);
        }
        let mut rest = Vec::new();
        for miss in misses {
            match self.lookup_near(miss.at, miss.key.as_ref(), request) {
                Lookup::Hit(item) => found.push((miss.at, item)),
                Lookup::Miss(miss) => rest.push(miss),
            }
        }
        Ok(rest)
    }

    /// Asks the shared tier for all keys at once. Skips keys that need a lease: the
    /// loader looks those up once for all their readers.
    async fn lookup_shared(
        &self,
        misses: Vec<Miss>,
        found: &mut Found,
        request: &ReadRequest<'_>,
    ) -> Result<Vec<Miss>, Error> {
        let (asked, mut rest): (Vec<_>, Vec<_>) = misses.into_iter().partition(|miss| {
            self.may_be_shared(&miss.view, request) && self.lease(miss, request).is_none()
        });
        if asked.is_empty() || self.tiers.shared_if_up().is_none() {
            rest.extend(asked);
            return Ok(rest);
        }
        let scope = self.origin.entry_scope();
        let keys: Vec<_> = asked.iter().map(|miss| miss.key.clone()).collect();
        let span = info_span!(
            "shared",
            tidemark.tier = "shared",
            tidemark.keys = keys.len()
        );
        let lookup = self.tiers.lookup_shared(scope, &keys).instrument(span);
        let entries = within(request.deadline, "shared", lookup).await?;
        let proven = self.tracker.newest_proven();
        for (mut miss, stamped) in asked.into_iter().zip(entries) {
            let Some(stamped) = stamped.filter(|it| self.is_believable(it, proven, request)) else {
                rest.push(miss);
                continue;
            };
            match miss.view.admit(stamped.as_of, request.min_freshness) {
                Some(admitted) => {
                    if stamped.as_of <= proven {
                        self.promote(scope, &miss, &stamped);
                    }
                    let item = request.item(stamped.value, admitted, Source::Shared);
                    found.push((miss.at, item));
                }
                None => {
                    if miss.view.admissible(stamped.as_of).is_some() {
                        miss.candidate = Some((stamped, Source::Shared));
                    }
                    rest.push(miss);
                }
            }
        }
        Ok(rest)
    }

    async fn load(
        &self,
        misses: &[Miss],
        found: &mut Found,
        request: &ReadRequest<'_>,
        continues: bool,
    ) -> Result<(), Error> {
        let load_request = |miss: &Miss| LoadRequest {
            key: miss.key.clone(),
            requirement: LoadRequirement {
                after: miss.view.min_as_of.max(request.min_freshness),
                grace: self.grace(miss.key.as_ref(), request),
            },
            lease: self.lease(miss, request),
            past_near: false,
        };
        let keys = misses.len();
        let span = info_span!("origin", tidemark.tier = "origin", tidemark.keys = keys);
        let requests = misses.iter().map(load_request).collect();
        let charge = Charge {
            caller: request.caller,
            continues,
        };
        let load = self.loader.load(requests, charge).instrument(span);
        let loaded = within(request.deadline, "origin", load).await??;
        for (miss, (stamped, source)) in misses.iter().zip(loaded) {
            let as_of = stamped.as_of;
            // Inadmissible only if it is a page in its grace, invalidated while it
            // was loaded.
            let admitted = miss.view.admissible(as_of).unwrap_or(Admitted::at(as_of));
            found.push((miss.at, request.item(stamped.value, admitted, source)));
        }
        Ok(())
    }

    /// Serves the remaining misses from admissible values, marked stale, if the origin
    /// is down and the server allows it. Otherwise returns `error`.
    fn serve_stale(
        &self,
        misses: Vec<Miss>,
        found: &mut Found,
        request: &ReadRequest<'_>,
        error: Error,
    ) -> Result<(), Error> {
        let origin_down = matches!(error, Error::OriginUnavailable { .. }) || request.origin_down();
        if !origin_down
            || self.settings.stale_if_error.is_none()
            || !request.consistency.allows_stale()
        {
            return Err(error);
        }
        let min_freshness = request.consistency.without_age();
        for miss in misses {
            let Some((stamped, source)) = miss.candidate else {
                return Err(error);
            };
            let Some(admitted) = miss.view.admit(stamped.as_of, min_freshness) else {
                return Err(error);
            };
            let item = ReadItem {
                stale: true,
                ..request.item(stamped.value, admitted, source)
            };
            found.push((miss.at, item));
        }
        Ok(())
    }
}

/// The result of a near lookup. The key is cloned only for a miss.
pub(super) enum Lookup {
    Hit(ReadItem),
    Miss(Miss),
}

/// The span of a near lookup: one atomic load while no exporter is set.
pub(super) fn near_span(keys: usize) -> tracing::Span {
    info_span!("near", tidemark.tier = "near", tidemark.keys = keys)
}
