//! What a request needs at its arrival, and what its response states.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use super::{
    Cache, ReadOptions,
    request::{ReadItem, ReadRequest},
    within,
};
use crate::{
    budget::{Caller, Count},
    coherence::{Consistency, MinFreshness},
    error::{Error, Unavailable, shorten},
    model::{KeyRef, Mono, OriginTime, ReadInfo, Source, Token},
};

impl Cache {
    /// What the request needs: its consistency level as a time.
    pub(super) async fn begin<'a>(
        &self,
        options: &'a ReadOptions,
    ) -> Result<ReadRequest<'a>, Error> {
        let arrival = self.tracker.now();
        let (consistency, deadline) = (options.consistency, options.deadline);
        let caller = options.caller.as_ref();
        if !self.tracker.is_started() {
            return Err(Unavailable::Starting.into());
        }
        if let Consistency::AtLeastAsFresh(seen) = consistency {
            let field = "consistency.at_least_as_fresh";
            Box::pin(self.check_not_future(field, seen, deadline, caller)).await?;
        }
        let request = |min_freshness, origin_error| ReadRequest {
            consistency,
            deadline,
            caller,
            min_freshness,
            origin_error,
        };
        let limit = self.settings.staleness_limit;
        let needed = self
            .tracker
            .heartbeats
            .log(|log| consistency.min_freshness(arrival, limit, log));
        let since = match needed {
            MinFreshness::At(time) => return Ok(request(time, None)),
            MinFreshness::Heartbeat(since) => since,
        };
        let error = if consistency == Consistency::CachedOnly {
            Error::CacheOnlyMiss {
                what: "anything".into(),
            }
        } else {
            let _place = self.reserve(Count::StrongReads, caller)?;
            let span = info_span!("heartbeat", tidemark.tier = "origin");
            let heartbeat = self.tracker.heartbeats.begun_since(since).instrument(span);
            match Box::pin(within(deadline, "origin", heartbeat)).await? {
                Ok(time) => return Ok(request(time.pred().max(consistency.without_age()), None)),
                Err(cause) => cause.into(),
            }
        };
        if self.settings.stale_if_error.is_some()
            && consistency.allows_stale()
            && self.tracker.heartbeats.is_down()
        {
            return Ok(request(consistency.without_age(), Some(error)));
        }
        Err(error)
    }

    /// Refuses a token in `field` whose time is ahead of the origin. A token
    /// issued by this service is below any heartbeat begun after the request arrived.
    ///
    /// # Errors
    /// `TokenInvalid`; `OriginUnavailable`, `Overloaded` and `DeadlineExceeded` if it
    /// cannot be decided.
    pub(super) async fn check_not_future(
        &self,
        field: &'static str,
        time: OriginTime,
        deadline: Option<Instant>,
        caller: Option<&Arc<Caller>>,
    ) -> Result<(), Error> {
        if time <= self.tracker.newest_proven() {
            return Ok(());
        }
        let _place = self.reserve(Count::StrongReads, caller)?;
        // Later than now: a heartbeat begun in this very instant may be the one
        // that the token has seen.
        let since = Mono(self.tracker.now().0 + 1);
        let heartbeat = self.tracker.heartbeats.begun_since(since);
        match within(deadline, "origin", heartbeat).await? {
            Ok(heartbeat) if time < heartbeat => Ok(()),
            Ok(_) => Err(Error::TokenInvalid {
                field,
                value: shorten(&Token::at(self.origin.id(), time).encode()),
                problem: "is ahead of the database; present only tokens that this service gave"
                    .into(),
            }),
            Err(cause) => Err(cause.into()),
        }
    }

    /// How fresh a response is: as fresh as the least of its parts, and with all
    /// that any of them has seen.
    pub(super) fn read_info<'a>(
        &self,
        parts: impl Iterator<Item = (KeyRef<'a>, &'a ReadItem)> + Clone,
        request: &ReadRequest,
    ) -> Result<ReadInfo, Error> {
        let items = parts.clone().map(|(_, item)| item);
        let fresh_to = items.clone().map(|item| item.admitted.fresh_to).min();
        // An empty response is fresh to the requested minimum.
        let fresh_to = fresh_to.unwrap_or(request.min_freshness);
        let seen = items.clone().map(|item| item.admitted.seen);
        let seen = seen.fold(request.consistency.without_age(), OriginTime::max);
        let stale = items.clone().any(|item| item.stale);
        let limit = self.settings.stale_if_error.filter(|_| stale);
        let bound = self.tracker.staleness_bound(fresh_to);
        let bound = bound.filter(|bound| limit.is_none_or(|limit| *bound <= limit));
        let Some(staleness_bound) = bound else {
            let error = request.origin_error.clone();
            return Err(error.unwrap_or_else(|| Unavailable::TooStale.into()));
        };
        self.count_reads(parts, stale);
        Ok(ReadInfo {
            token: Token {
                origin: self.origin.id(),
                seen,
                fresh_to,
            },
            source: items.map(|item| item.source).max().unwrap_or(Source::Near),
            staleness_bound,
            stale,
        })
    }

    /// Counts parts by kind and tier, with one addition for each, since all cores
    /// share the counters. The number that a part gets decides whether it is
    /// verified.
    fn count_reads<'a>(
        &self,
        parts: impl Iterator<Item = (KeyRef<'a>, &'a ReadItem)> + Clone,
        stale: bool,
    ) {
        let mut counts = [0; super::ReadCounters::COUNT];
        for (_, item) in parts.clone() {
            counts[super::ReadCounters::index(&item.value, item.source)] += 1;
        }
        let mut numbers = self.read_counters.add(&counts);
        for (key, item) in parts {
            let number = &mut numbers[super::ReadCounters::index(&item.value, item.source)];
            if item.source != Source::Origin {
                let (value, fresh_to) = (&item.value, item.admitted.fresh_to);
                self.verifier
                    .sample(*number, key, value, fresh_to, item.source);
            }
            *number += 1;
        }
        if stale {
            self.metrics.stale_answers.inc();
        }
    }
}
