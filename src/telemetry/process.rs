//! The usual metrics of a process, read from `/proc` at each scrape. Where there
//! is no `/proc` they are left out.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Collects them.
#[derive(Debug)]
pub(super) struct Process;

/// Resident memory of this process, in bytes; `None`: the system does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let sizes = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What `/proc/self` shows.
struct Snapshot {
    cpu_seconds: f64,
    start_time_seconds: f64,
    threads: i64,
    virtual_bytes: i64,
    resident_bytes: i64,
    open_fds: i64,
    max_fds: i64,
}

impl Snapshot {
    #[expect(
        clippy::cast_precision_loss,
        reason = "clock ticks since boot are below 2^53"
    )]
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may contain spaces: fields are counted from
        // behind it, and the state is the third of proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = i64::try_from(rustix::param::page_size()).ok()?;
        let boot: u64 = fs::read_to_string("/proc/stat")
            .ok()?
            .lines()
            .find_map(|line| line.strip_prefix("btime "))?
            .parse()
            .ok()?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(Self {
            cpu_seconds: (number(14)? + number(15)?) as f64 / ticks,
            threads: i64::try_from(number(20)?).ok()?,
            start_time_seconds: boot as f64 + number(22)? as f64 / ticks,
            virtual_bytes: i64::try_from(number(23)?).ok()?,
            resident_bytes: i64::try_from(number(24)?).ok()? * page,
            // The directory itself is open while it is read.
            open_fds: i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()? - 1,
            max_fds: limit
                .current
                .map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)),
        })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(now) = Snapshot::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(now.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system CPU time",
            None,
            cpu.metric_type(),
        )?)?;
        let start = ConstGauge::new(now.start_time_seconds);
        start.encode(encoder.encode_descriptor(
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970",
            None,
            start.metric_type(),
        )?)?;
        for (name, help, value) in [
            ("process_threads", "Threads of the process", now.threads),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                now.virtual_bytes,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory",
                now.resident_bytes,
            ),
            ("process_open_fds", "Open file descriptors", now.open_fds),
            (
                "process_max_fds",
                "Limit of open file descriptors; -1: none",
                now.max_fds,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
