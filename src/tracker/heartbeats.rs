//! Heartbeats: small majority writes that prove how recent this replica's
//! knowledge of the origin is.
//!
//! A strong read costs a wait for one heartbeat, shared by all that wait, instead
//! of a read of the origin. The cost is one small write an interval and replica,
//! and one for each burst of strong reads.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Clock, Fatal, OriginTracker};
use crate::{
    coherence::HeartbeatLog,
    error::Unavailable,
    model::{Mono, OriginTime},
    telemetry::Kind,
};

/// Time for a heartbeat's acknowledgement. A later one would prove less than the
/// next heartbeat does.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed heartbeat: short, so that reads go on soon after the
/// origin is back, and long enough not to burden an origin that is starting.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Failed heartbeats in a row before the origin counts as down. A single one may
/// fail during a latency spike or an election: readers that wait for it get the outcome
/// of the next one.
const FAILURES_UNTIL_DOWN: u32 = 2;
/// While the origin is down, readers wait at most this long for a heartbeat, so that
/// they fail with UNAVAILABLE quickly.
const WAIT_WHEN_DOWN: Duration = Duration::from_millis(50);
/// Acknowledged heartbeats that the feed has not returned yet. The oldest ones
/// are kept, since they show that the feed hangs.
const MAX_AWAITED: usize = 64;

/// How the newest finished heartbeat ended.
#[derive(Clone, Debug)]
struct Outcome {
    /// Taken before it was sent.
    begun: Mono,
    result: Result<OriginTime, Unavailable>,
}

/// The heartbeats of this replica: their log, and the readers that wait for one.
pub struct Heartbeats {
    clock: Clock,
    log: RwLock<HeartbeatLog>,
    /// How long the log keeps a heartbeat.
    keep: Duration,
    newest: Mutex<Option<Outcome>>,
    /// A heartbeat ended. `Notify` wakes waiters in the order in which they came,
    /// which a watch channel does not promise.
    ended: Notify,
    requested: Notify,
    /// Heartbeats that failed in a row.
    failures: AtomicU32,
    awaited: Mutex<Awaited>,
}

/// Acknowledged heartbeats that the feed has not returned yet.
#[derive(Default)]
struct Awaited {
    returned: Option<u64>,
    queue: VecDeque<(u64, Mono)>,
}

impl Heartbeats {
    pub(super) fn new(clock: Clock, keep: Duration) -> Self {
        Self {
            clock,
            log: RwLock::default(),
            keep,
            newest: Mutex::default(),
            ended: Notify::new(),
            requested: Notify::new(),
            failures: AtomicU32::new(0),
            awaited: Mutex::default(),
        }
    }

    /// Reads the log.
    pub(crate) fn log<T>(&self, read: impl FnOnce(&HeartbeatLog) -> T) -> T {
        read(&self.log.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the newest heartbeats failed: the origin cannot be reached.
    pub(crate) fn is_down(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_UNTIL_DOWN
    }

    /// Asks for a heartbeat now, in addition to those of the interval.
    pub(crate) fn request_now(&self) {
        self.requested.notify_one();
    }

    /// The time of the first acknowledged heartbeat begun at `since` or later.
    /// All that wait share it.
    ///
    /// # Errors
    /// Why the last heartbeat failed, after two heartbeats in a row failed.
    pub(crate) async fn begun_since(&self, since: Mono) -> Result<OriginTime, Unavailable> {
        let wait = async {
            loop {
                // Registered before the comparison, so that no end is missed.
                let ended = self.ended.notified();
                let newest = self.newest().filter(|newest| newest.begun >= since);
                if let Some(newest) = newest.filter(|one| one.result.is_ok() || self.is_down()) {
                    return newest.result;
                }
                self.request_now();
                ended.await;
            }
        };
        if !self.is_down() {
            return wait.await;
        }
        let last = self.newest().and_then(|newest| newest.result.err());
        timeout(WAIT_WHEN_DOWN, wait)
            .await
            .unwrap_or_else(|_| Err(last.unwrap_or(Unavailable::NoHeartbeat(WAIT_WHEN_DOWN))))
    }

    fn newest(&self) -> Option<Outcome> {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn end(&self, outcome: Outcome) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ended.notify_waiters();
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feed returned the heartbeat with this number.
    pub(crate) fn record_returned(&self, number: u64) {
        let mut awaited = self.awaited();
        awaited.returned = awaited.returned.max(Some(number));
        while awaited.queue.front().is_some_and(|(n, _)| *n <= number) {
            awaited.queue.pop_front();
        }
    }

    /// When the oldest heartbeat that the feed has not returned was acknowledged.
    pub(crate) fn awaited_since(&self) -> Option<Mono> {
        self.awaited().queue.front().map(|(_, since)| *since)
    }

    /// The feed restarts: earlier heartbeats will not be returned.
    pub(crate) fn expect_none_back(&self) {
        self.awaited().queue.clear();
    }

    fn record_acknowledged(&self, number: u64, begun: Mono, time: OriginTime) {
        let now = self.clock.now();
        let mut awaited = self.awaited();
        if awaited.returned < Some(number) && awaited.queue.len() < MAX_AWAITED {
            awaited.queue.push_back((number, now));
        }
        drop(awaited);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.record(time, begun, now, self.keep);
    }

    /// Counts the failures in a row; returns whether the origin was down before.
    fn record_result(&self, failed: bool) -> bool {
        let was_down = self.is_down();
        let failures = if failed {
            self.failures.load(Ordering::Relaxed).saturating_add(1)
        } else {
            0
        };
        self.failures.store(failures, Ordering::Relaxed);
        was_down
    }
}

impl OriginTracker {
    /// The time of a heartbeat begun now; tries until one is acknowledged.
    pub(crate) async fn heartbeat_now(&self) -> OriginTime {
        let since = self.now();
        loop {
            match self.heartbeats.begun_since(since).await {
                Ok(time) => return time,
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// Sends one heartbeat after the other: every interval, and at once when
    /// a reader waits for one. Returns only if the origin went back in time.
    pub(crate) async fn send_heartbeats(&self) -> Fatal {
        for number in 0.. {
            let begun = self.now();
            match self.send_heartbeat(number, begun).await {
                Err(fatal) => return fatal,
                Ok(false) => sleep(RETRY_PAUSE).await,
                Ok(true) => {
                    let elapsed = self.now().since(begun);
                    let rest = self.heartbeat_interval.saturating_sub(elapsed);
                    let _ = timeout(rest, self.heartbeats.requested.notified()).await;
                }
            }
        }
        Fatal::TaskEnded("that sends heartbeats")
    }

    /// Sends one heartbeat and wakes those that wait. `false`: it failed.
    async fn send_heartbeat(&self, number: u64, begun: Mono) -> Result<bool, Fatal> {
        let frontier = self.is_started().then(|| self.watermarks.frontier());
        let sent = self.origin.heartbeat(number, HEARTBEAT_TIMEOUT);
        let result = match timeout(HEARTBEAT_TIMEOUT, sent).await {
            Ok(Ok(time)) => Ok(time),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Unavailable::NoHeartbeat(HEARTBEAT_TIMEOUT)),
        };
        self.log_reachability(result.as_ref().err());
        if let Ok(time) = result {
            if let Some(frontier) = frontier.filter(|frontier| time <= *frontier) {
                return Err(Fatal::WentBack {
                    from: frontier,
                    to: time,
                });
            }
            self.heartbeats.record_acknowledged(number, begun, time);
        }
        let acknowledged = result.is_ok();
        self.heartbeats.end(Outcome { begun, result });
        Ok(acknowledged)
    }

    fn log_reachability(&self, problem: Option<&Unavailable>) {
        let kind = if problem.is_some() {
            "failed"
        } else {
            "acknowledged"
        };
        self.metrics.heartbeats.get_or_create(&Kind { kind }).inc();
        let was_down = self.heartbeats.record_result(problem.is_some());
        match (was_down, self.heartbeats.is_down(), problem) {
            (false, true, Some(problem)) => {
                tracing::warn!(%problem, "the database does not acknowledge heartbeats");
            }
            (true, false, _) => tracing::info!("the database acknowledges heartbeats again"),
            (_, _, Some(problem)) => tracing::debug!(%problem, "a heartbeat failed"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;

    fn failed(problem: &str) -> Unavailable {
        Unavailable::Reported(problem.into())
    }

    fn ended(heartbeats: &Heartbeats, failures: u32, result: Result<OriginTime, Unavailable>) {
        heartbeats.failures.store(failures, Ordering::Relaxed);
        heartbeats.end(Outcome {
            begun: heartbeats.clock.now(),
            result,
        });
    }

    /// One heartbeat may meet a slow moment: those who wait get the next one's
    /// outcome. Two in a row are an outage, and say so at once.
    #[tokio::test]
    async fn one_failed_heartbeat_fails_nobody() {
        let heartbeats = Arc::new(Heartbeats::new(
            Clock::Tokio(Instant::now()),
            Duration::from_secs(30),
        ));
        let waiting = |heartbeats: &Arc<Heartbeats>| {
            let (heartbeats, since) = (Arc::clone(heartbeats), heartbeats.clock.now());
            tokio::spawn(async move { heartbeats.begun_since(since).await })
        };
        let first = waiting(&heartbeats);
        sleep(Duration::from_millis(20)).await;
        ended(&heartbeats, 1, Err(failed("slow")));
        sleep(Duration::from_millis(20)).await;
        assert!(!first.is_finished() && !heartbeats.is_down());
        ended(&heartbeats, 0, Ok(OriginTime(7)));
        let outcome = first.await.expect("waited");
        assert_eq!(outcome.expect("acknowledged"), OriginTime(7));
        let second = waiting(&heartbeats);
        sleep(Duration::from_millis(20)).await;
        ended(&heartbeats, 1, Err(failed("slow")));
        sleep(Duration::from_millis(20)).await;
        ended(&heartbeats, 2, Err(failed("gone")));
        let outcome = second.await.expect("waited");
        assert_eq!(outcome.expect_err("down").to_string(), "gone");
    }
}
