//! Heartbeats: small majority writes that prove how old what we know is.
//!
//! What they buy: a strong read costs a wait for one of them, shared by all
//! that wait, and not an origin read each. What they cost: one small write a
//! second and replica, and one more for each burst of strong reads.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Cache, Fatal, clock::Clock};
use crate::{
    coherence::HeartbeatLog,
    model::{Mono, OriginTime},
    telemetry::Kind,
};

/// Time for a heartbeat's acknowledgement: one that takes longer says nothing
/// that the next one would not say better.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed heartbeat: short, so that readers go on soon after the
/// origin is back, and long enough not to burden one that is coming up.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Heartbeats that fail in a row before the origin is taken to be away. One
/// alone may have met a slow moment or the very instant of a step-down: those
/// who wait for it get the next one's outcome instead.
const FAILURES_UNTIL_DOWN: u32 = 2;
/// While the origin is known to be away, readers wait no longer than this for
/// a heartbeat: they get their UNAVAILABLE in milliseconds.
const WAIT_WHEN_DOWN: Duration = Duration::from_millis(50);
/// Acknowledged heartbeats not yet seen back: at most this many are kept in
/// mind, the oldest ones, which are those that tell that the feed hangs.
const MAX_AWAITED: usize = 64;

/// How the newest finished heartbeat ended.
#[derive(Clone, Debug)]
struct Beat {
    /// Taken before it was sent.
    begun: Mono,
    result: Result<OriginTime, Arc<str>>,
}

/// The heartbeats of this replica: their ledger, and those who wait for one.
pub(super) struct Heart {
    clock: Clock,
    heartbeat_log: RwLock<HeartbeatLog>,
    /// How long the ledger remembers.
    keep: Duration,
    newest: Mutex<Option<Beat>>,
    /// A heartbeat ended. Those who wait go on in the order in which they
    /// came, which a watch channel does not promise.
    ended: Notify,
    wanted: Notify,
    /// Heartbeats that failed in a row.
    failures: AtomicU32,
    awaited: Mutex<Awaited>,
}

/// Acknowledged heartbeats that the feed has not brought back yet.
#[derive(Default)]
struct Awaited {
    seen: Option<u64>,
    queue: VecDeque<(u64, Mono)>,
}

impl Heart {
    pub(super) fn new(clock: Clock, keep: Duration) -> Self {
        Self {
            clock,
            heartbeat_log: RwLock::default(),
            keep,
            newest: Mutex::default(),
            ended: Notify::new(),
            wanted: Notify::new(),
            failures: AtomicU32::new(0),
            awaited: Mutex::default(),
        }
    }

    /// Reads the ledger.
    pub(super) fn heartbeat_log<T>(&self, read: impl FnOnce(&HeartbeatLog) -> T) -> T {
        read(
            &self
                .heartbeat_log
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Whether the newest heartbeats failed: the origin cannot be reached.
    pub(super) fn is_down(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_UNTIL_DOWN
    }

    /// Asks for a heartbeat now, beside those of the interval.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// The time of the first acknowledged heartbeat begun at `since` or later.
    /// All that wait share it.
    ///
    /// # Errors
    /// What was seen of the origin, when that heartbeat failed and was not
    /// alone in that.
    pub(super) async fn begun_since(&self, since: Mono) -> Result<OriginTime, Arc<str>> {
        let wait = async {
            loop {
                // Taken before the look, so that no end is missed.
                let ended = self.ended.notified();
                let beat = self.newest().filter(|beat| beat.begun >= since);
                if let Some(beat) = beat.filter(|beat| beat.result.is_ok() || self.is_down()) {
                    return beat.result;
                }
                self.want();
                ended.await;
            }
        };
        if !self.is_down() {
            return wait.await;
        }
        let last = self.newest().and_then(|beat| beat.result.err());
        timeout(WAIT_WHEN_DOWN, wait)
            .await
            .unwrap_or_else(|_| Err(last.unwrap_or_else(|| "no heartbeat is answered".into())))
    }

    fn newest(&self) -> Option<Beat> {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn end(&self, beat: Beat) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat);
        self.ended.notify_waiters();
    }

    /// The feed brought a heartbeat back.
    pub(super) fn seen_back(&self, number: u64) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.seen = awaited.seen.max(Some(number));
        while awaited.queue.front().is_some_and(|(n, _)| *n <= number) {
            awaited.queue.pop_front();
        }
    }

    /// Since when the oldest heartbeat that was acknowledged is awaited back.
    pub(super) fn awaited_since(&self) -> Option<Mono> {
        self.awaited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .queue
            .front()
            .map(|(_, since)| *since)
    }

    /// The feed starts anew: what came before will not come back.
    pub(super) fn expect_none_back(&self) {
        self.awaited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .queue
            .clear();
    }

    fn acknowledged(&self, number: u64, begun: Mono, time: OriginTime) {
        let now = self.clock.now();
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if awaited.seen < Some(number) && awaited.queue.len() < MAX_AWAITED {
            awaited.queue.push_back((number, now));
        }
        drop(awaited);
        let mut heartbeat_log = self
            .heartbeat_log
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        heartbeat_log.record(time, begun, now, self.keep);
    }
}

impl Cache {
    /// One heartbeat after the other: every interval, and at once when
    /// somebody waits for one. Ends only when the origin was set back to the
    /// past.
    pub(super) async fn beat(&self) -> Fatal {
        for number in 0.. {
            let begun = self.clock.now();
            match self.one_beat(number, begun).await {
                Err(fatal) => return fatal,
                Ok(false) => sleep(RETRY_PAUSE).await,
                Ok(true) => {
                    let rest = self
                        .settings
                        .heartbeat_interval
                        .saturating_sub(self.clock.now().since(begun));
                    let _ = timeout(rest, self.heart.wanted.notified()).await;
                }
            }
        }
        Fatal("all heartbeat numbers are used up".into())
    }

    /// Sends one heartbeat and tells those who wait. `false`: it failed.
    async fn one_beat(&self, number: u64, begun: Mono) -> Result<bool, Fatal> {
        let frontier = self.started().then(|| self.coherence.frontier());
        let sent = timeout(
            HEARTBEAT_TIMEOUT,
            self.origin.heartbeat(number, HEARTBEAT_TIMEOUT),
        )
        .await;
        let result = match sent {
            Ok(Ok(time)) => Ok(time),
            Ok(Err(error)) => Err(Arc::from(error.to_string())),
            Err(_) => Err(Arc::from(format!(
                "no answer to a heartbeat within {HEARTBEAT_TIMEOUT:?}"
            ))),
        };
        self.note_reachable(result.as_ref().err());
        if let Ok(time) = result {
            if frontier.is_some_and(|frontier| time <= frontier) {
                return Err(Fatal(format!(
                    "the database went back in time: a new write got the time {time}, at or before {} that was \
                     read already; it was restored to an older state, and this process must start anew",
                    frontier.unwrap_or_default()
                )));
            }
            self.heart.acknowledged(number, begun, time);
        }
        let ok = result.is_ok();
        self.heart.end(Beat { begun, result });
        Ok(ok)
    }

    fn note_reachable(&self, problem: Option<&Arc<str>>) {
        let kind = if problem.is_some() {
            "failed"
        } else {
            "acknowledged"
        };
        self.metrics.heartbeats.get_or_create(&Kind { kind }).inc();
        let failures = match problem {
            Some(problem) => {
                tracing::debug!(%problem, "a heartbeat failed");
                self.heart
                    .failures
                    .load(Ordering::Relaxed)
                    .saturating_add(1)
            }
            None => 0,
        };
        let was_down = self.heart.is_down();
        self.heart.failures.store(failures, Ordering::Relaxed);
        match (was_down, self.heart.is_down(), problem) {
            (false, true, Some(problem)) => {
                tracing::warn!(%problem, "the database does not acknowledge heartbeats");
            }
            (true, false, _) => tracing::info!("the database acknowledges heartbeats again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn ended(heart: &Heart, failures: u32, result: Result<OriginTime, Arc<str>>) {
        heart.failures.store(failures, Ordering::Relaxed);
        heart.end(Beat {
            begun: heart.clock.now(),
            result,
        });
    }

    /// One heartbeat may meet a slow moment: those who wait get the next one's
    /// outcome. Two in a row are an outage, and say so at once.
    #[tokio::test]
    async fn one_failed_heartbeat_fails_nobody() {
        let heart = Arc::new(Heart::new(
            Clock::Tokio(Instant::now()),
            Duration::from_secs(30),
        ));
        let waiting = |heart: &Arc<Heart>| {
            let (heart, since) = (Arc::clone(heart), heart.clock.now());
            tokio::spawn(async move { heart.begun_since(since).await })
        };
        let first = waiting(&heart);
        sleep(Duration::from_millis(20)).await;
        ended(&heart, 1, Err("slow".into()));
        sleep(Duration::from_millis(20)).await;
        assert!(!first.is_finished() && !heart.is_down());
        ended(&heart, 0, Ok(OriginTime(7)));
        assert_eq!(first.await.expect("waited"), Ok(OriginTime(7)));
        let second = waiting(&heart);
        sleep(Duration::from_millis(20)).await;
        ended(&heart, 1, Err("slow".into()));
        sleep(Duration::from_millis(20)).await;
        ended(&heart, 2, Err("gone".into()));
        assert_eq!(second.await.expect("waited"), Err("gone".into()));
    }
}
