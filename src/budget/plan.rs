//! How the memory limit is split.

use std::fmt;

/// Memory of the process that no budget counts: 19 MiB of code, runtime, pools and
/// fences (measured after the start), 9 MiB more of fences once all are touched, 32 MiB
/// of the embedded store's page cache, 8 MiB that two workers decode and encode at this
/// moment; the rest is reserve for what the allocator does not give back.
pub const BASE_BYTES: u64 = 96 << 20;

/// What the near cache takes at most, in percent of the bytes it counts: the
/// allocator's size classes and its index.
pub const NEAR_OVERHEAD_PERCENT: u64 = 135;

/// Memory of one connection without calls: 36 KiB of buffers of HTTP/2 and tasks, and
/// 1.5 KiB of the kernel's, which the cgroup counts too (measured with 10,000 and mimalloc,
/// which static releases use; with glibc's allocator 25 KiB).
pub const CONNECTION_BYTES: u64 = 40 << 10;
/// The same of a connection with TLS: 47 and 1.5 KiB (glibc: 33).
pub const TLS_CONNECTION_BYTES: u64 = 52 << 10;

/// Memory of one open watch beside the names that it filters by: its tasks, its
/// stream in HTTP/2 (some 6 KiB in all), and the changes that it has taken from the
/// ring (32 at most, as long as no transaction has more).
pub const WATCH_BYTES: u64 = 12 << 10;

/// Memory of one catch-up feed: batches of changes as the database sends them, and
/// decoded.
pub const CATCH_UP_BYTES: u64 = 1 << 20;

/// What the largest reply is charged.
const LARGEST_REPLY_BYTES: u64 = (4 << 20) + (4 << 10);

const MIB: u64 = 1 << 20;

/// A part of the process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Requests that have not been received completely, and the headers and
    /// bodies of calls under way, as received.
    UnfinishedRequests,
    /// Requests after decoding, while their calls are under way.
    DecodedRequests,
    /// Responses to unary calls, until they are written to the connection.
    Replies,
    /// Messages of streams, from encoding until they are written to the
    /// connection.
    StreamFrames,
    /// Changes that wait for a watcher to take them.
    WatchPending,
    /// Open watches, [`WATCH_BYTES`] each.
    Watches,
    /// Names that watchers filter by.
    WatchNames,
    /// Writes that wait for the database or are there. They outlive their calls.
    Writes,
    /// What loads have read, until the near cache has it or the reply is encoded.
    Loads,
    /// Entries that wait to be written to Redis, with their keys.
    RedisQueue,
    /// Keys of reads that wait for Redis.
    RedisReads,
    /// Batches of changes that watches catch up with, [`CATCH_UP_BYTES`] each.
    CatchUp,
    /// Open connections, [`CONNECTION_BYTES`] or [`TLS_CONNECTION_BYTES`] each.
    Connections,
    /// Errors, which are headers and so have no window, until they are written.
    Errors,
}

/// The size of a part: `min` first, then `weight` of what is left, up to `max`.
struct Size {
    name: &'static str,
    weight: u64,
    min: u64,
    max: u64,
    at_the_bound: &'static str,
}

const fn size(
    name: &'static str,
    weight: u64,
    min: u64,
    max: u64,
    at_the_bound: &'static str,
) -> Size {
    Size {
        name,
        weight,
        min: min * MIB,
        max: max * MIB,
        at_the_bound,
    }
}

impl Part {
    /// All of them, in the order of their slots.
    pub const ALL: [Self; 14] = [
        Self::UnfinishedRequests,
        Self::DecodedRequests,
        Self::Replies,
        Self::StreamFrames,
        Self::WatchPending,
        Self::Watches,
        Self::WatchNames,
        Self::Writes,
        Self::Loads,
        Self::RedisQueue,
        Self::RedisReads,
        Self::CatchUp,
        Self::Connections,
        Self::Errors,
    ];

    /// The table of sizes. A request has at most 256 KiB and a reply 4 MiB: the
    /// least sizes hold a few of the largest, the largest sizes more than two
    /// cores can work on.
    const fn size(self) -> Size {
        match self {
            Self::UnfinishedRequests => size("unfinished requests", 3, 6, 128, "OVERLOADED"),
            Self::DecodedRequests => size("decoded requests", 3, 6, 128, "OVERLOADED"),
            Self::Replies => size("replies in flight", 6, 16, 256, "OVERLOADED"),
            Self::StreamFrames => size(
                "stream messages in flight",
                2,
                4,
                64,
                "streams wait; their changes are pending",
            ),
            Self::WatchPending => size(
                "pending changes of watchers",
                4,
                12,
                256,
                "the oldest leave; watchers behind them get a reset",
            ),
            Self::Watches => size("memory of watches", 4, 6, 240, "OVERLOADED"),
            Self::WatchNames => size("names of watches", 1, 6, 64, "OVERLOADED"),
            Self::Writes => size("waiting writes", 1, 6, 64, "OVERLOADED"),
            Self::Loads => size("loads in flight", 3, 12, 128, "OVERLOADED"),
            Self::RedisQueue => size("queue of writes to Redis", 1, 4, 32, "entries are dropped"),
            Self::RedisReads => size("reads that wait for Redis", 1, 1, 8, "misses"),
            Self::CatchUp => size("catch-up feeds", 1, 8, 64, "OVERLOADED"),
            Self::Connections => size("connections", 8, 10, 800, "connections are closed"),
            Self::Errors => size(
                "errors in flight",
                1,
                3,
                32,
                "errors wait; a connection that does not read is closed",
            ),
        }
    }

    /// The least share of the last quarter, and of the last eighth, in bytes. A feed cannot be
    /// smaller, and the largest reply should be possible; the last eighth is for small ones.
    #[must_use]
    pub const fn least_shares(self) -> (u64, u64) {
        match self {
            Self::CatchUp => (CATCH_UP_BYTES, CATCH_UP_BYTES),
            Self::Replies => (LARGEST_REPLY_BYTES, 1),
            _ => (1, 1),
        }
    }

    /// The name in metrics and error texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.size().name
    }

    /// What happens when it is used up.
    #[must_use]
    pub const fn at_the_bound(self) -> &'static str {
        self.size().at_the_bound
    }
}

/// The sizes of all parts, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    limit: Option<u64>,
    near_capacity: u64,
    sizes: [u64; Part::ALL.len()],
}

/// Settings that do not fit into the memory limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DoesNotFit {
    limit: u64,
    near_capacity: u64,
}

impl DoesNotFit {
    fn least() -> u64 {
        BASE_BYTES + Part::ALL.iter().map(|part| part.size().min).sum::<u64>()
    }
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (near, least) = (near_bytes(self.near_capacity), Self::least());
        write!(
            f,
            "memory-limit {} is too small: the process takes {}, the near cache {} (near-capacity {} and its overhead), and requests, replies, watches and connections at least {}; ",
            Mib(self.limit),
            Mib(BASE_BYTES),
            Mib(near),
            Mib(self.near_capacity),
            Mib(least - BASE_BYTES),
        )?;
        let for_near = self.limit.saturating_sub(least) * 100 / NEAR_OVERHEAD_PERCENT;
        if for_near >= MIB {
            write!(f, "lower near-capacity to {} or less, or ", Mib(for_near))?;
        }
        write!(
            f,
            "raise memory-limit to {} or more",
            Mib((near + least).next_multiple_of(MIB))
        )
    }
}

/// Bytes as whole MiB, rounded down.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MiB", self.0 / MIB)
    }
}

const fn near_bytes(capacity: u64) -> u64 {
    capacity.saturating_mul(NEAR_OVERHEAD_PERCENT) / 100
}

impl Plan {
    /// Splits a limit in bytes; `None`: every part has its largest size.
    ///
    /// # Errors
    /// The near cache, the base and the least sizes are above the limit.
    pub fn new(limit: Option<u64>, near_capacity: u64) -> Result<Self, DoesNotFit> {
        let Some(limit) = limit else {
            let sizes = Part::ALL.map(|part| part.size().max);
            return Ok(Self {
                limit: None,
                near_capacity,
                sizes,
            });
        };
        let least = DoesNotFit::least().saturating_add(near_bytes(near_capacity));
        let Some(rest) = limit.checked_sub(least) else {
            return Err(DoesNotFit {
                limit,
                near_capacity,
            });
        };
        let weights: u64 = Part::ALL.iter().map(|part| part.size().weight).sum();
        let sizes = Part::ALL.map(|part| {
            let Size {
                weight, min, max, ..
            } = part.size();
            (min + rest / weights * weight).min(max)
        });
        Ok(Self {
            limit: Some(limit),
            near_capacity,
            sizes,
        })
    }

    /// The most memory that the process may take, in bytes; `None`: there is no limit.
    #[must_use]
    pub const fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Without a limit: for tests and simulations.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            limit: None,
            near_capacity: 0,
            sizes: Part::ALL.map(|part| part.size().max),
        }
    }

    /// The size of a part.
    #[must_use]
    pub const fn bytes(&self, part: Part) -> u64 {
        self.sizes[part as usize]
    }

    /// What is set aside beside the parts: base, and a full near cache.
    #[must_use]
    pub const fn fixed(&self) -> u64 {
        near_bytes(self.near_capacity).saturating_add(BASE_BYTES)
    }

    /// The most memory of the process: all parts, near and base.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.fixed() + self.sizes.iter().sum::<u64>()
    }

    /// How many connections of these bytes the budget for them allows.
    #[must_use]
    pub const fn connections(&self, bytes_each: u64) -> u64 {
        self.bytes(Part::Connections) / bytes_each
    }
}

/// One part a line, for `--print-config`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(limit) => writeln!(
                f,
                "# memory: {} at most, of {}",
                Mib(self.total()),
                Mib(limit)
            )?,
            None => writeln!(
                f,
                "# memory: {} at most, no limit is set",
                Mib(self.total())
            )?,
        }
        let mut line = |name: &str, bytes: u64, note: &str| {
            writeln!(f, "# {name:<28} {:>8}  {note}", Mib(bytes).to_string())
        };
        line("base", BASE_BYTES, "code, runtime, fences, pools")?;
        line(
            "near",
            near_bytes(self.near_capacity),
            "near-capacity and its overhead",
        )?;
        for part in Part::ALL {
            let note = format!("when used up: {}", part.at_the_bound());
            line(part.name(), self.bytes(part), &note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_fit_into_the_limit() {
        for (limit, near) in [
            (256, 32),
            (512, 128),
            (768, 256),
            (4096, 1024),
            (65_536, 256),
        ] {
            let plan = Plan::new(Some(limit * MIB), near * MIB).expect("fits");
            assert!(plan.total() <= limit * MIB, "{plan}");
            for part in Part::ALL {
                let Size { min, max, .. } = part.size();
                let bytes = plan.bytes(part);
                assert!((min..=max).contains(&bytes), "{limit}: {part:?} {bytes}");
            }
        }
    }

    /// In the pod of the manifests a thousand watchers may have a connection
    /// each, and 4 MiB replies are possible to a dozen callers at once.
    #[test]
    fn a_pod_serves_a_thousand_watchers() {
        let plan = Plan::new(Some(768 * MIB), 256 * MIB).expect("fits");
        assert!(plan.connections(TLS_CONNECTION_BYTES) >= 1100, "{plan}");
        assert!(plan.bytes(Part::Watches) / WATCH_BYTES >= 2000, "{plan}");
        assert!(plan.bytes(Part::Replies) >= 48 * MIB, "{plan}");
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_to_change() {
        let problem = Plan::new(Some(256 * MIB), 256 * MIB).expect_err("too small");
        let text = problem.to_string();
        for word in ["256MiB", "345MiB", "near-capacity to 4", "memory-limit to "] {
            assert!(text.contains(word), "{text}");
        }
        // As it says.
        let least = DoesNotFit::least();
        let for_near = (256 * MIB - least) * 100 / NEAR_OVERHEAD_PERCENT / MIB * MIB;
        Plan::new(Some(256 * MIB), for_near).expect("fits");
        let tiny = Plan::new(Some(64 * MIB), 64 * MIB).expect_err("too small");
        assert!(!tiny.to_string().contains("lower near-capacity"));
    }
}
