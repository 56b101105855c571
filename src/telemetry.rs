//! Traces and metrics. Every metric of the service is named here, once.

mod log_writer;
mod logs;
mod process;
mod traces;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub use log_writer::{exit, print_line};
pub use logs::{Guard, LogFormat, init};
pub use process::resident_bytes;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::budget::Budgets;

/// One label `kind`: what was read, or which bound, reason or outcome it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// The label's value.
    pub kind: &'static str,
}

/// Labels of `build_info`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    revision: &'static str,
}

/// Commit that this binary was built from, where the build was told:
/// `TIDEMARK_REVISION` would be taken for a setting.
pub const REVISION: &str = match option_env!("BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Labels of a read that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReadLabels {
    /// `todo` or `page`.
    pub kind: &'static str,
    /// `near`, `shared` or `origin`.
    pub tier: &'static str,
}

/// Labels of a finished call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcLabels {
    /// The method, such as `GetTodo`.
    pub call: &'static str,
    /// The status code, such as `OK` or `NOT_FOUND`.
    pub code: &'static str,
}

/// A gauge of a number with a fraction.
pub type FloatGauge = Gauge<f64, AtomicU64>;
/// A gauge of a whole number.
pub type IntGauge = Gauge<i64, AtomicI64>;

/// Histogram buckets in seconds: 50 us to 13 s, each twice the one before.
fn latency() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
        0.000_05, 2.0, 19,
    ))
}

/// Latencies of calls.
#[derive(Clone, Debug)]
pub struct RpcLatencies(pub Family<RpcLabels, Histogram>);

impl Default for RpcLatencies {
    fn default() -> Self {
        Self(Family::new_with_constructor(latency))
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident : $kind:ty = $name:literal $(, $unit:expr)? $(=> $kinds:expr)? ;)+) => {
        /// Every metric of the process. Cheap to clone handles inside; one
        /// instance for the process (or for a test).
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: $kind,)+
            /// Finished calls with their latency, by call and code; a stream counts when it ends
            pub rpc: RpcLatencies,
        }

        impl Metrics {
            /// Registers all of them.
            fn register(&self, registry: &mut Registry) {
                registry.register_with_unit("rpc_duration", "Finished calls with their latency, by call and code; a stream counts when it ends", Unit::Seconds, self.rpc.0.clone());
                $( metrics!(@one registry, $name, concat!($($help),+), self.$field.clone() $(, $unit)?); )+
            }

            /// Every kind is there from the start, with 0: the first of a kind
            /// would otherwise be no increase to Prometheus, but a new series.
            fn begin_at_zero(&self) {
                $($( for kind in $kinds { drop(self.$field.get_or_create(&Kind { kind })); } )?)+
            }
        }
    };
    (@one $registry:ident, $name:literal, $help:expr, $metric:expr) => {
        $registry.register($name, $help.trim(), $metric);
    };
    (@one $registry:ident, $name:literal, $help:expr, $metric:expr, $unit:expr) => {
        $registry.register_with_unit($name, $help.trim(), $unit, $metric);
    };
}

metrics! {
    /// Reads answered, by kind (todo, page) and by the tier that had the value
    reads: Family<ReadLabels, Counter> = "reads";
    /// Loads begun at the origin, by kind (todos, page)
    origin_loads: Family<Kind, Counter> = "origin_loads" => ["todos", "page"];
    /// Keys asked of the origin in those loads
    origin_load_keys: Counter = "origin_load_keys";
    /// Loads that failed
    origin_load_failures: Counter = "origin_load_failures";
    /// Readers that joined a load which another had begun
    joined_loads: Counter = "joined_loads";
    /// Requests refused because a bound was reached, by bound
    overloaded: Family<Kind, Counter> = "overloaded" => ["keys waiting to be loaded", "writes under way", "open watches", "watches that begin before the recent changes", "unfinished requests", "decoded requests", "replies in flight", "names of watches", "memory of watches", "watches of all lists", "loads in flight", "catch-up feeds", "waiting writes", "strong reads", "health checks and metrics"];
    /// Answers marked stale because the origin could not be asked
    stale_answers: Counter = "stale_answers";
    /// Time from the newest acknowledged heartbeat back to the frontier, by the origin's clock
    frontier_lag: FloatGauge = "frontier_lag", Unit::Seconds;
    /// No write acknowledged longer ago is missing from what the caches answer
    staleness_bound: FloatGauge = "staleness_bound", Unit::Seconds;
    /// Heartbeats, by kind (acknowledged, failed)
    heartbeats: Family<Kind, Counter> = "heartbeats" => ["acknowledged", "failed"];
    /// Changes applied from the feed
    feed_changes: Counter = "feed_changes";
    /// Times that the feed was opened again, by kind (broken, hung, lost)
    feed_reopened: Family<Kind, Counter> = "feed_reopened" => ["broken", "hung", "lost"];
    /// Times that the floor was raised by something no stripe could be pinned to
    resets: Counter = "resets";
    /// Open watches
    watchers: IntGauge = "watchers";
    /// Changes sent to watchers
    watch_changes: Counter = "watch_changes";
    /// Resets sent to watchers, by kind (overflow, forgotten, origin)
    watch_resets: Family<Kind, Counter> = "watch_resets" => ["overflow", "forgotten", "origin"];
    /// Bytes held by the near tier
    near_bytes: IntGauge = "near", Unit::Bytes;
    /// Entries held by the near tier
    near_entries: IntGauge = "near_entries";
    /// 1 while no node of the shared tier answers reads
    shared_breaker_open: IntGauge = "shared_breaker_open";
    /// Calls of the shared tier that failed or took too long, by kind (get, put, lease)
    shared_failures: Family<Kind, Counter> = "shared_failures" => ["get", "put", "lease"];
    /// Errors of Redis and of the connections to it, by kind
    shared_errors: Family<Kind, Counter> = "shared_errors" => ["connection", "tls", "timeout", "auth", "noperm", "readonly", "oom", "moved", "ask", "clusterdown", "loading", "not_cluster", "other"];
    /// Nodes of the shared tier, by kind: known, and of those the ones that answer reads and the ones that accept writes
    shared_nodes: Family<Kind, IntGauge> = "shared_nodes" => ["known", "reads", "writes"];
    /// Entries not written to the shared tier because it is down or its queue is full
    shared_dropped: Counter = "shared_dropped";
    /// Shared entries that were not what was asked for, by reason
    shared_rejected: Family<Kind, Counter> = "shared_rejected" => ["damaged", "version", "scope", "key", "future", "mac"];
    /// Times that a changed key file for the hashes of shared entries was read, by outcome (loaded, failed)
    shared_key_reloads: Family<Kind, Counter> = "shared_key_reloads" => ["loaded", "failed"];
    /// Sampled cached answers compared with the origin at the time they were said to be fresh to, by verdict (consistent, inconsistent, undecided)
    verified: Family<Kind, Counter> = "verified" => ["consistent", "inconsistent", "undecided"];
    /// Writes, by kind of outcome
    writes: Family<Kind, Counter> = "writes" => ["done", "not_found", "already_exists", "etag_mismatch", "unreadable", "not_empty", "invalid", "unavailable", "refused", "unknown"];
    /// Reads of a list's document that could not be read as a list, and so gave no rights
    unreadable_lists: Counter = "unreadable_lists";
    /// TLS handshakes of callers, by outcome (done, failed, slow, refused)
    tls_handshakes: Family<Kind, Counter> = "tls_handshakes" => ["done", "failed", "slow", "refused"];
    /// Times that changed TLS files were read, by outcome (loaded, failed)
    tls_reloads: Family<Kind, Counter> = "tls_reloads" => ["loaded", "failed"];
    /// Calls refused because the caller is not known, by reason
    auth_refusals: Family<Kind, Counter> = "auth_refusals" => ["missing", "malformed", "expired", "not_yet_valid", "audience", "issuer", "key", "signature", "certificate"];
    /// Tokens whose signature was checked
    auth_verifications: Counter = "auth_verifications";
    /// Times that changed files of keys (--keys-file, --jwt-jwks-file) were read, by outcome (loaded, failed)
    auth_reloads: Family<Kind, Counter> = "auth_reloads" => ["loaded", "failed"];
    /// Lines of the audit log, by outcome (written; dropped: the queue was full; limited: too many refusals of unknown callers; failed: the disk)
    audit_lines: Family<Kind, Counter> = "audit_lines" => ["written", "dropped", "limited", "failed"];
    /// Lines of the log that were dropped because stderr was not read in time
    log_lines_dropped: Counter = "log_lines_dropped";
    /// 1 if callers are not authenticated although other machines can reach the port
    auth_off: IntGauge = "auth_off";
    /// Bytes in use of each memory budget, by budget
    budget_used: Family<Kind, IntGauge> = "budget_used", Unit::Bytes;
    /// Size of each memory budget, by budget
    budget_limit: Family<Kind, IntGauge> = "budget_limit", Unit::Bytes;
    /// Things in use of each bound on a number, by bound
    bound_used: Family<Kind, IntGauge> = "bound_used";
    /// Each bound on a number, by bound
    bound_limit: Family<Kind, IntGauge> = "bound_limit";
    /// Reservations refused because a memory budget or a bound was used up, or the caller had its share, by budget or bound
    budget_refusals: Family<Kind, Counter> = "budget_refusals";
    /// Open connections for gRPC
    connections: IntGauge = "connections";
    /// Connections for gRPC that ended, by reason (client, age, drain, silent, unread, limit, address_limit, memory)
    connections_closed: Family<Kind, Counter> = "connections_closed" => ["client", "age", "drain", "silent", "unread", "limit", "address_limit", "memory"];
    /// Times that accepting connections paused because the process had no more open files
    accept_pauses: Counter = "accept_pauses";
    /// Tasks alive in the runtime: connections, calls, loads, and the few that run always
    tasks: IntGauge = "tasks";
    /// Panics of whatever task: bugs
    panics: Counter = "panics";
    /// Tasks that ended in a panic, by task
    task_panics: Family<Kind, Counter> = "task_panics" => ["call", "load", "verify", "keep_up"];
}

impl Metrics {
    /// Brings the gauges of budgets and bounds up to date, and what the log lost.
    pub fn measure_budgets(&self, budgets: &Budgets) {
        let gauge = |family: &Family<Kind, IntGauge>, kind, value| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&Kind { kind }).set(value);
        };
        let dropped = self.log_lines_dropped.inner();
        dropped.store(log_writer::dropped(), Ordering::Relaxed);
        for budget in budgets.all() {
            let (used, limit) = if budget.is_of_bytes() {
                (&self.budget_used, &self.budget_limit)
            } else {
                (&self.bound_used, &self.bound_limit)
            };
            gauge(used, budget.name(), budget.used());
            gauge(limit, budget.name(), budget.limit());
            let refusals = self.budget_refusals.get_or_create(&Kind {
                kind: budget.name(),
            });
            refusals.inner().store(budget.refused(), Ordering::Relaxed);
        }
    }

    /// A registry with all of them, each name with the prefix `tidemark_`, and
    /// with the usual `process_*` metrics.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.begin_at_zero();
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("tidemark");
        self.register(ours);
        let build = Family::<BuildLabels, IntGauge>::default();
        let labels = BuildLabels {
            version: env!("CARGO_PKG_VERSION"),
            revision: REVISION,
        };
        build.get_or_create(&labels).set(1);
        ours.register("build_info", "Version and commit of this process", build);
        registry.register_collector(Box::new(process::Process));
        registry
    }
}

/// Makes a span a child of the caller's, if the request carries a W3C trace
/// context.
pub fn continue_trace(span: &tracing::Span, headers: &http::HeaderMap) {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let context = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&Headers(headers))
    });
    // Without an exporter there is nothing to attach it to.
    let _ = span.set_parent(context);
}

/// The id of the trace that the current span belongs to, if it is exported.
#[must_use]
pub fn trace_id() -> Option<String> {
    trace_id_of(&tracing::Span::current())
}

/// The id of the trace that a span belongs to, if it is exported.
#[must_use]
pub fn trace_id_of(span: &tracing::Span) -> Option<String> {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let context = span.context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

struct Headers<'a>(&'a http::HeaderMap);

impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The formats of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Prometheus text 0.0.4: what every scraper reads.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header prefers; text unless OpenMetrics is
    /// named.
    fn accepted(accept: &str) -> Self {
        let (mut text, mut open_metrics) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok())
                .unwrap_or(1.0);
            match kind.as_str() {
                "application/openmetrics-text" => open_metrics = quality.max(open_metrics),
                "text/plain" | "text/*" => text = quality.max(text),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    fn encode(self, registry: &Registry) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, registry);
        match self {
            Self::Text => to_prometheus_text(&text),
            Self::OpenMetrics => text,
        }
    }
}

/// Prometheus text 0.0.4 from OpenMetrics. There a type belongs to the name of
/// the series, with `_total` or `_info`, and there are no units and no end mark.
fn to_prometheus_text(open_metrics: &str) -> String {
    let types: std::collections::HashMap<&str, &str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let series = |name: &str| match types.get(name) {
        Some(&"counter") => format!("{name}_total"),
        Some(&"info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|line| line.split_once(' '))
        {
            text += &format!(
                "# HELP {} {help}
",
                series(name)
            );
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        {
            let kind = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                kind => kind,
            };
            text += &format!(
                "# TYPE {} {kind}
",
                series(name)
            );
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// The metrics at `/metrics`, in the format that the scraper asks for.
pub fn metrics_router(registry: Registry) -> axum::Router {
    use axum::{
        Router,
        http::{
            HeaderMap,
            header::{ACCEPT, CONTENT_TYPE, VARY},
        },
        routing::get,
    };

    let registry = std::sync::Arc::new(registry);
    let respond = move |headers: HeaderMap| {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        let text = format.encode(&registry);
        let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
        async move { (headers, text) }
    };
    Router::new().route("/metrics", get(respond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_there_before_it_happens() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &Metrics::default().registry())
            .expect("a String takes everything");
        for series in [
            "tidemark_feed_reopened_total{kind=\"lost\"} 0",
            "tidemark_task_panics_total{kind=\"call\"} 0",
            "tidemark_writes_total{kind=\"unknown\"} 0",
            "tidemark_build_info{version=",
            "\nprocess_resident_memory_bytes ",
            "\nprocess_cpu_seconds_total ",
            "\nprocess_open_fds ",
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
    }

    #[test]
    fn the_format_is_the_one_asked_for() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.9",
                Format::Text,
            ),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn every_series_of_the_text_format_has_a_type() {
        let metrics = Metrics::default();
        let labels = RpcLabels {
            call: "GetTodo",
            code: "OK",
        };
        metrics.rpc.0.get_or_create(&labels).observe(0.5);
        let text = Format::Text.encode(&metrics.registry());
        let types: std::collections::HashMap<_, _> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|base| types.get(base) == Some(&"histogram"));
            assert!(
                types.contains_key(base.unwrap_or(name)),
                "{name} has no type"
            );
        }
        assert_eq!(types["tidemark_origin_load_failures_total"], "counter");
        assert_eq!(types["tidemark_rpc_duration_seconds"], "histogram");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    }
}
