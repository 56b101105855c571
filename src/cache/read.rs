//! The way of a read, from top to bottom: what is needed -> near -> wait for
//! the frontier -> shared -> load -> how fresh the answer is.
//!
//! A value is never answered because a cache has it, only because it passes
//! the one rule of `coherence::Check`: not below its fence, and fresh to what
//! the request needs.
//!
//! What lies beyond near is boxed: the future of a near hit stays small, and
//! moving it costs little.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span, info_span};

use super::{
    Answer, Cache, Consistency, Listed, Many, Want,
    load::Wanted,
    part::{Key, Missing, Part, Request, gather},
    within,
};
use crate::{
    coherence::{Admitted, LoadRequirement, MinFreshness, ReadView, renewed},
    error::{Error, ReadInfo, Source},
    model::{Mono, OriginTime, PageQuery, Stamped, TodoName, Token, Value},
    telemetry::Kind,
    tier::{record, shared::SharedKey},
};

/// Longest wait for the frontier before a load is begun instead: a feed that
/// works brings a heartbeat back within a few milliseconds.
const FRONTIER_WAIT: Duration = Duration::from_millis(50);
/// Time for the read of a todo that goes with a change to a watcher.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The look into the near tier. Spans cost a look at an atomic each while
/// nobody takes them.
fn near_span(keys: usize) -> Span {
    info_span!("near", tidemark.tier = "near", tidemark.keys = keys)
}

impl Cache {
    /// One todo, encoded.
    ///
    /// # Errors
    /// `TodoNotFound` and `TodoUnreadable` are answers too and say how fresh
    /// they are; see [`Error`] for the others.
    pub async fn get(
        self: &Arc<Self>,
        name: &TodoName,
        want: &Want,
    ) -> Result<Answer<Bytes>, Error> {
        let request = self.begin(want).await?;
        let part = self.todo(name, &request).await?;
        let read = self.facts(std::slice::from_ref(&part), &request)?;
        match part.value {
            Value::Todo(body) => Ok(Answer { body, read }),
            Value::Unreadable(why) => Err(Error::TodoUnreadable {
                name: name.clone(),
                field: why.field.clone(),
                problem: why.problem.clone(),
                read: Some(read.into()),
                token: None,
            }),
            Value::Absent | Value::Page(_) => Err(Error::TodoNotFound {
                name: name.clone(),
                read: Some(read),
                token: None,
            }),
        }
    }

    /// Several todos, in the order asked for; a name asked for twice comes
    /// twice.
    ///
    /// # Errors
    /// See [`Error`]; what is missing or unreadable is no error.
    pub async fn get_many(
        self: &Arc<Self>,
        names: &[TodoName],
        want: &Want,
    ) -> Result<Answer<Many>, Error> {
        let request = self.begin(want).await?;
        let parts = self.todos(names, &request).await?;
        let read = self.facts(&parts, &request)?;
        Ok(Answer {
            body: gather(names, parts),
            read,
        })
    }

    /// One page of a list: its names, then their todos by the same way as any.
    /// `carried` is the least `fresh_to` of the pages before.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        self: &Arc<Self>,
        query: &PageQuery,
        carried: Option<OriginTime>,
        want: &Want,
    ) -> Result<Answer<Listed>, Error> {
        let request = self.begin(want).await?;
        let page = self.page(&Arc::new(query.clone()), &request).await?;
        let Value::Page(names) = &page.value else {
            return Err(self.unavailable("a page was loaded as something else".into()));
        };
        let names = Arc::clone(names);
        let mut parts = self.todos(&names.names, &request).await?;
        parts.push(page);
        let mut read = self.facts(&parts, &request)?;
        read.token.fresh_to = carried.map_or(read.token.fresh_to, |carried| {
            carried.min(read.token.fresh_to)
        });
        parts.pop();
        let Many {
            todos,
            unreadable,
            missing: _,
        } = gather(&names.names, parts);
        Ok(Answer {
            body: Listed {
                todos,
                unreadable,
                next: names.next.clone(),
            },
            read,
        })
    }

    /// The todo that goes with a change, not older than the change. `None` if
    /// there is none any more, or none can be had in time.
    pub async fn read_for_watch(
        self: &Arc<Self>,
        name: &TodoName,
        at_least: OriginTime,
    ) -> Option<Bytes> {
        let deadline = Some(Instant::now() + WATCH_READ_TIMEOUT);
        let request = Request {
            consistency: Consistency::AtLeastAsFresh(at_least),
            deadline,
            need: at_least,
            away: None,
        };
        match self.todo(name, &request).await.ok()?.value {
            Value::Todo(todo) => Some(todo),
            _ => None,
        }
    }

    /// Whether a time that a caller presents is ahead of the origin: an honest
    /// one is below that of every heartbeat begun after it arrived.
    ///
    /// # Errors
    /// `OriginUnavailable`, `DeadlineExceeded`: it cannot be said.
    pub async fn refuse_future(
        &self,
        time: OriginTime,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        let own = OriginTime(self.own_write.load(Ordering::Acquire));
        if time <= self.newest_known().max(own) {
            return Ok(false);
        }
        // Later than now: one that began in the same instant may be the one seen.
        let heartbeat = self.heart.begun_since(Mono(self.clock.now().0 + 1));
        match within(deadline, "origin", heartbeat).await? {
            Ok(heartbeat) => Ok(time >= heartbeat),
            Err(problem) => Err(self.unavailable(problem.to_string())),
        }
    }

    /// What the request needs: its arm as a time.
    async fn begin(&self, want: &Want) -> Result<Request, Error> {
        let arrival = self.clock.now();
        let (consistency, deadline) = (want.consistency, want.deadline);
        if !self.started() {
            return Err(self.unavailable(
                "this replica is starting and does not know the database's time".into(),
            ));
        }
        if let Consistency::AtLeastAsFresh(seen) = consistency
            && Box::pin(self.refuse_future(seen, deadline)).await?
        {
            return Err(self.token_from_the_future("consistency.at_least_as_fresh", seen));
        }
        let request = |need, away| {
            Ok(Request {
                consistency,
                deadline,
                need,
                away,
            })
        };
        let away = match self.heart.heartbeat_log(|heartbeat_log| {
            consistency.need(arrival, self.settings.staleness_limit, heartbeat_log)
        }) {
            MinFreshness::At(need) => return request(need, None),
            MinFreshness::Heartbeat(_) if consistency == Consistency::CachedOnly => {
                Error::CacheOnlyMiss {
                    what: "anything".into(),
                }
            }
            MinFreshness::Heartbeat(since) => match Box::pin(
                self.heartbeat_since(since, deadline)
                    .instrument(info_span!("heartbeat", tidemark.tier = "origin")),
            )
            .await?
            {
                Ok(heartbeat) => {
                    return request(heartbeat.pred().max(consistency.without_age()), None);
                }
                Err(away) => away,
            },
        };
        if self.settings.stale_if_error.is_some()
            && consistency.allows_stale()
            && self.heart.is_down()
        {
            return request(consistency.without_age(), Some(away));
        }
        Err(away)
    }

    async fn heartbeat_since(
        &self,
        since: Mono,
        deadline: Option<Instant>,
    ) -> Result<Result<OriginTime, Error>, Error> {
        let heartbeat = within(deadline, "origin", self.heart.begun_since(since)).await?;
        Ok(heartbeat.map_err(|problem| self.unavailable(problem.to_string())))
    }

    /// The refusal of a token in `field` of the request.
    pub(super) fn token_from_the_future(&self, field: &'static str, seen: OriginTime) -> Error {
        Error::TokenInvalid {
            field,
            value: crate::error::shorten(&Token::at(self.origin_id(), seen).encode()),
            problem: "is ahead of the database; present only tokens that this service gave".into(),
        }
    }

    async fn todo(self: &Arc<Self>, name: &TodoName, request: &Request) -> Result<Part, Error> {
        let near = near_span(1).in_scope(|| self.todo_in_near(0, name, request));
        match near {
            Ok(part) => Ok(part),
            Err(missing) => Box::pin(self.one_beyond_near(missing, request)).await,
        }
    }

    async fn todos(
        self: &Arc<Self>,
        names: &[TodoName],
        request: &Request,
    ) -> Result<Vec<Part>, Error> {
        let (mut parts, mut missing) = (Vec::with_capacity(names.len()), Vec::new());
        near_span(names.len()).in_scope(|| {
            for (at, name) in names.iter().enumerate() {
                match self.todo_in_near(at, name, request) {
                    Ok(part) => parts.push(Some(part)),
                    Err(not_here) => {
                        parts.push(None);
                        missing.push(not_here);
                    }
                }
            }
        });
        if !missing.is_empty() {
            Box::pin(self.beyond_near(missing, &mut parts, request)).await?;
        }
        Ok(parts.into_iter().flatten().collect())
    }

    async fn page(
        self: &Arc<Self>,
        query: &Arc<PageQuery>,
        request: &Request,
    ) -> Result<Part, Error> {
        let near = near_span(1).in_scope(|| self.page_in_near(0, query, request));
        match near {
            Ok(part) => Ok(part),
            Err(missing) => Box::pin(self.one_beyond_near(missing, request)).await,
        }
    }

    async fn one_beyond_near(
        self: &Arc<Self>,
        missing: Missing,
        request: &Request,
    ) -> Result<Part, Error> {
        let mut part = [None];
        self.beyond_near(vec![missing], &mut part, request).await?;
        let [part] = part;
        part.ok_or_else(|| self.unavailable("nothing was loaded".into()))
    }

    fn todo_in_near(&self, at: usize, name: &TodoName, request: &Request) -> Result<Part, Missing> {
        let view = self.coherence.view_todo(name.as_str());
        let missing = |overtaken| Missing::new(at, Key::Todo(name.clone()), view, overtaken);
        let stamped = self
            .near
            .todo(name.as_str())
            .ok_or_else(|| missing(false))?;
        let found = missing(stamped.as_of < view.min_as_of).admit(stamped, Source::Near, request);
        found.inspect(|_| self.reads.count(name.as_str()))
    }

    fn page_in_near(
        &self,
        at: usize,
        query: &Arc<PageQuery>,
        request: &Request,
    ) -> Result<Part, Missing> {
        let view = self.coherence.view_list(query.list.as_str());
        let missing = Missing::new(at, Key::Page(Arc::clone(query)), view, false);
        let Some((stamped, began)) = self.near.page(query) else {
            return Err(missing);
        };
        if let Some(part) = self.page_in_grace(query, &stamped, began, &view, request) {
            return Ok(part);
        }
        missing.admit(stamped, Source::Near, request)
    }

    /// An overtaken page whose load began a moment ago: the comparison with
    /// its list's fence is left out, nothing else. Fresh to its stamp only.
    fn page_in_grace(
        &self,
        query: &Arc<PageQuery>,
        stamped: &Stamped,
        began: Option<Mono>,
        view: &ReadView,
        request: &Request,
    ) -> Option<Part> {
        let (min_as_of, since) = self.grace(query, request)?;
        let in_grace =
            stamped.as_of < view.min_as_of && stamped.as_of >= min_as_of && began? >= since;
        let hit = Admitted {
            fresh_to: stamped.as_of,
            seen: stamped.as_of,
        };
        in_grace.then(|| Part {
            key: Key::Page(Arc::clone(query)),
            value: stamped.value.clone(),
            hit,
            source: Source::Near,
            stale: request.is_away(),
        })
    }

    /// What a page must reach to be answered though overtaken: its stamp, and
    /// the instant that its load began.
    fn grace(&self, query: &PageQuery, request: &Request) -> Option<(OriginTime, Mono)> {
        let grace = self.settings.list_grace;
        let min_as_of = self
            .coherence
            .grace_min_as_of(query.list.as_str())
            .max(request.need);
        request
            .consistency
            .allows_grace(grace)
            .then(|| (min_as_of, self.clock.now().minus(grace)))
    }

    /// Everything the near tier could not answer: later, from farther away.
    async fn beyond_near(
        self: &Arc<Self>,
        mut missing: Vec<Missing>,
        parts: &mut [Option<Part>],
        request: &Request,
    ) -> Result<(), Error> {
        missing = self.after_frontier(missing, parts, request).await?;
        missing = self.lookup_shared(missing, parts, request).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let refused = match (&request.away, request.consistency) {
            (Some(away), _) => away.clone(),
            (None, Consistency::CachedOnly) => Error::CacheOnlyMiss {
                what: missing[0].key.to_string(),
            },
            (None, _) => match self.load(&missing, request).await {
                Ok(loaded) => {
                    for (missing, part) in missing.into_iter().zip(loaded) {
                        parts[missing.at] = Some(part);
                    }
                    return Ok(());
                }
                Err(error) => error,
            },
        };
        self.stale_instead(missing, parts, request, refused)
    }

    /// For arms that wait: once the frontier has reached what is needed, the
    /// check is read anew, and what near has may do.
    async fn after_frontier(
        &self,
        missing: Vec<Missing>,
        parts: &mut [Option<Part>],
        request: &Request,
    ) -> Result<Vec<Missing>, Error> {
        let shared = self.shared.as_ref().is_some_and(|shared| shared.is_up());
        let worth = |m: &Missing| {
            m.view.frontier < request.need
                && (m.candidate.is_some() || (shared && m.view.min_as_of <= m.view.frontier))
        };
        if !request.consistency.waits_for_frontier()
            || request.is_away()
            || !missing.iter().any(worth)
        {
            return Ok(missing);
        }
        let reached = timeout(FRONTIER_WAIT, self.frontier_at(request.need));
        let reached =
            reached.instrument(info_span!("wait for the frontier", tidemark.tier = "feed"));
        if within(request.deadline, "feed", reached).await?.is_err() {
            return Ok(missing);
        }
        let again = missing.into_iter().filter_map(|missing| {
            let looked = match &missing.key {
                Key::Todo(name) => self.todo_in_near(missing.at, name, request),
                Key::Page(query) => self.page_in_near(missing.at, query, request),
            };
            looked.map(|part| parts[missing.at] = Some(part)).err()
        });
        Ok(again.collect())
    }

    /// Asks the shared tier for all at once that may lie there. What is worth a
    /// lease is asked for with it, once for all its readers.
    async fn lookup_shared(
        &self,
        missing: Vec<Missing>,
        parts: &mut [Option<Part>],
        request: &Request,
    ) -> Result<Vec<Missing>, Error> {
        let Some(shared) = &self.shared else {
            return Ok(missing);
        };
        let (asked, mut rest): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|m| self.may_be_shared(m, request) && self.leased(m, request).is_none());
        if asked.is_empty() {
            return Ok(rest);
        }
        let scope = self.origin.entry_scope();
        let keys: Vec<_> = asked.iter().map(|m| m.key.shared(scope)).collect();
        let span = info_span!(
            "shared",
            tidemark.tier = "shared",
            tidemark.keys = keys.len()
        );
        let entries = within(
            request.deadline,
            "shared",
            shared.get(&keys).instrument(span),
        )
        .await?;
        for ((missing, key), entry) in asked.into_iter().zip(&keys).zip(entries) {
            let Some(stamped) = entry.and_then(|raw| self.opened(scope, &missing.key, &raw)) else {
                rest.push(missing);
                continue;
            };
            let (at, view, whole) = (missing.at, missing.view, missing.key.clone());
            match missing.admit(stamped.clone(), Source::Shared, request) {
                Ok(part) => {
                    self.promote(&whole, key, &stamped, &view);
                    parts[at] = Some(part);
                }
                Err(missing) => rest.push(missing),
            }
        }
        Ok(rest)
    }

    /// The value in a shared entry, if it is what was asked for.
    pub(super) fn opened(&self, scope: u64, key: &Key, raw: &Bytes) -> Option<Stamped> {
        let reject = |kind| {
            self.metrics
                .shared_rejected
                .get_or_create(&Kind { kind })
                .inc();
            None
        };
        let stamped = match record::decode(scope, &key.to_string(), raw) {
            Ok(stamped) => stamped,
            Err(rejected) => return reject(rejected.label()),
        };
        let is_page = matches!(stamped.value, Value::Page(_));
        if is_page != matches!(key, Key::Page(_)) {
            return reject("key");
        }
        let least = self
            .origin
            .replay_start(stamped.as_of, self.settings.staleness_limit);
        if least > self.newest_known() {
            reject("future")
        } else {
            Some(stamped)
        }
    }

    /// Keeps a shared value near, and keeps it alive in the shared tier: one
    /// older than half the window is written again, as fresh as the check that
    /// admitted it says.
    fn promote(&self, key: &Key, shared_key: &SharedKey, stamped: &Stamped, view: &ReadView) {
        match key {
            Key::Todo(name) => self.near.put_todo(name.clone(), stamped.clone()),
            Key::Page(query) => self.near.put_page(Arc::clone(query), stamped.clone(), None),
        }
        let half = self.settings.replay_window / 2;
        if self.origin.replay_start(view.frontier, half) > stamped.as_of {
            self.share(shared_key, &key.to_string(), &renewed(stamped, view));
        }
    }

    async fn load(
        self: &Arc<Self>,
        missing: &[Missing],
        request: &Request,
    ) -> Result<Vec<Part>, Error> {
        let wanted = |m: &Missing| {
            let grace = match &m.key {
                Key::Page(query) => self.grace(query, request),
                Key::Todo(_) => None,
            };
            let required = LoadRequirement {
                after: m.view.min_as_of.max(request.need),
                grace,
            };
            Wanted {
                key: m.key.clone(),
                required,
                leased: self.leased(m, request),
            }
        };
        let wanted = missing.iter().map(wanted).collect();
        let span = info_span!(
            "origin",
            tidemark.tier = "origin",
            tidemark.keys = missing.len()
        );
        let loaded = within(
            request.deadline,
            "origin",
            self.loaded(wanted).instrument(span),
        )
        .await??;
        let part = |(missing, (stamped, source)): (&Missing, (Stamped, Source))| Part {
            key: missing.key.clone(),
            hit: missing.view.admissible(stamped.as_of).unwrap_or(Admitted {
                // A page within its grace, overtaken while it was loaded.
                fresh_to: stamped.as_of,
                seen: stamped.as_of,
            }),
            value: stamped.value,
            source,
            stale: false,
        };
        Ok(missing.iter().zip(loaded).map(part).collect())
    }

    /// When the origin cannot be asked and the server allows it: what passes
    /// fence, floor and token, marked stale.
    fn stale_instead(
        &self,
        missing: Vec<Missing>,
        parts: &mut [Option<Part>],
        request: &Request,
        refused: Error,
    ) -> Result<(), Error> {
        let origin_is_away =
            matches!(refused, Error::OriginUnavailable { .. }) || request.is_away();
        if !origin_is_away
            || self.settings.stale_if_error.is_none()
            || !request.consistency.allows_stale()
        {
            return Err(refused);
        }
        for missing in missing {
            let hit = missing
                .candidate
                .as_ref()
                .and_then(|(stamped, _)| missing.view.admissible(stamped.as_of));
            let hit = hit.filter(|hit| hit.fresh_to >= request.consistency.without_age());
            let (Some(hit), Some((stamped, source))) = (hit, missing.candidate) else {
                return Err(refused);
            };
            parts[missing.at] = Some(Part {
                key: missing.key,
                value: stamped.value,
                hit,
                source,
                stale: true,
            });
        }
        Ok(())
    }

    /// How fresh an answer is: no fresher than the least of its parts, and all
    /// that any of them has seen.
    fn facts(&self, parts: &[Part], request: &Request) -> Result<ReadInfo, Error> {
        let fresh_to = parts.iter().map(|part| part.hit.fresh_to).min();
        // Nothing was asked for: nothing can be missing up to what is needed.
        let fresh_to = fresh_to.unwrap_or(request.need);
        let seen = parts
            .iter()
            .map(|part| part.hit.seen)
            .fold(request.consistency.without_age(), OriginTime::max);
        let stale = parts.iter().any(|part| part.stale);
        let bound = self.bound_at(fresh_to);
        let limit = if stale {
            self.settings.stale_if_error
        } else {
            None
        };
        let bound = bound.filter(|bound| limit.is_none_or(|limit| *bound <= limit));
        let Some(staleness_bound) = bound else {
            return Err(request.away.clone().unwrap_or_else(|| {
                self.unavailable(
                    "the database was not heard of for longer than an answer may be old".into(),
                )
            }));
        };
        self.count_reads(parts, stale);
        Ok(ReadInfo {
            token: Token {
                origin: self.origin_id(),
                seen,
                fresh_to,
            },
            source: parts
                .iter()
                .map(|part| part.source)
                .max()
                .unwrap_or(Source::Near),
            staleness_bound,
            stale,
        })
    }
}
