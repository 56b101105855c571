//! What a request needs at its arrival, and what its response states.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use super::{
    Cache, ReadCounters, ReadOptions,
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
        let request = |min_freshness, origin_error: Option<Error>| ReadRequest {
            consistency,
            deadline,
            caller,
            min_freshness,
            origin_error: origin_error.map(Box::new),
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

    /// How fresh a response of one part is. Counts the part.
    pub(super) fn read_info_of_one(
        &self,
        key: KeyRef<'_>,
        item: &ReadItem,
        request: &ReadRequest<'_>,
    ) -> Result<ReadInfo, Error> {
        let read = self.read_info_of(Summary::of(item, request), request)?;
        let number = self
            .read_counters
            .add(ReadCounters::index(&item.value, item.source), 1);
        self.sample(number, key, item);
        Ok(read)
    }

    /// How fresh a response is: as fresh as the least of its parts, and with all
    /// that any of them has seen. Counts the parts.
    pub(super) fn read_info<'a>(
        &self,
        parts: impl Iterator<Item = (KeyRef<'a>, &'a ReadItem)> + Clone,
        request: &ReadRequest<'_>,
    ) -> Result<ReadInfo, Error> {
        let items = parts.clone().map(|(_, item)| Summary::of(item, request));
        let summary = items.reduce(Summary::and);
        let read = self.read_info_of(summary.unwrap_or(Summary::empty(request)), request)?;
        self.count_reads(parts);
        Ok(read)
    }

    fn read_info_of(&self, summary: Summary, request: &ReadRequest<'_>) -> Result<ReadInfo, Error> {
        let Summary {
            fresh_to,
            seen,
            source,
            stale,
        } = summary;
        let limit = self.settings.stale_if_error.filter(|_| stale);
        let bound = self.tracker.staleness_bound(fresh_to);
        let bound = bound.filter(|bound| limit.is_none_or(|limit| *bound <= limit));
        let Some(staleness_bound) = bound else {
            let error = request.origin_error.as_deref().cloned();
            return Err(error.unwrap_or_else(|| Unavailable::TooStale.into()));
        };
        if stale {
            self.metrics.stale_answers.inc();
        }
        Ok(ReadInfo {
            token: Token {
                origin: self.origin.id(),
                seen,
                fresh_to,
            },
            source,
            staleness_bound,
            stale,
        })
    }

    /// Counts parts by kind and tier, with one addition for each, since all cores
    /// share the counters.
    fn count_reads<'a>(&self, parts: impl Iterator<Item = (KeyRef<'a>, &'a ReadItem)> + Clone) {
        let mut counts = [0; ReadCounters::COUNT];
        for (_, item) in parts.clone() {
            counts[ReadCounters::index(&item.value, item.source)] += 1;
        }
        let mut numbers: [u64; ReadCounters::COUNT] =
            std::array::from_fn(|index| match counts[index] {
                0 => 0,
                count => self.read_counters.add(index, count),
            });
        for (key, item) in parts {
            let number = &mut numbers[ReadCounters::index(&item.value, item.source)];
            self.sample(*number, key, item);
            *number += 1;
        }
    }

    /// Verifies a part from a cache if its number is one of those that are.
    fn sample(&self, number: u64, key: KeyRef<'_>, item: &ReadItem) {
        if item.source != Source::Origin {
            let fresh_to = item.admitted.fresh_to;
            self.verifier
                .sample(number, key, &item.value, fresh_to, item.source);
        }
    }
}

/// What the parts of a response have in common.
#[derive(Clone, Copy)]
struct Summary {
    /// The least of all parts.
    fresh_to: OriginTime,
    /// The greatest of all parts and of the token that was presented.
    seen: OriginTime,
    /// The farthest tier that was asked.
    source: Source,
    stale: bool,
}

impl Summary {
    fn of(item: &ReadItem, request: &ReadRequest<'_>) -> Self {
        Self {
            fresh_to: item.admitted.fresh_to,
            seen: item.admitted.seen.max(request.consistency.without_age()),
            source: item.source,
            stale: item.stale,
        }
    }

    /// An empty response is fresh to the requested minimum.
    const fn empty(request: &ReadRequest<'_>) -> Self {
        Self {
            fresh_to: request.min_freshness,
            seen: request.consistency.without_age(),
            source: Source::Near,
            stale: false,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            fresh_to: self.fresh_to.min(other.fresh_to),
            seen: self.seen.max(other.seen),
            source: self.source.max(other.source),
            stale: self.stale || other.stale,
        }
    }
}
