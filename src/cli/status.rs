//! `tidemark status`: the health of a replica on one screen.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    client::{Format, Server},
    error::CommandError,
    output::{Colour, Output, note, paint, print},
    watch::termination,
    yaml::to_yaml,
};
use crate::text::escape;

/// What is asked of the health service, and what each means.
const PARTS: [(&str, &str); 6] = [
    ("readiness", "answers calls"),
    ("liveness", "the process works"),
    ("startup", "caught up with the database once"),
    ("origin", "the database acknowledges heartbeats"),
    ("feed", "the change feed is within the staleness limit"),
    ("shared", "Redis answers, or is not used"),
];
/// Port of the metrics when `--metrics` is not given.
const METRICS_PORT: u16 = 9464;
/// Largest page of metrics, in bytes: some twenty times today's.
const MAX_METRICS_BYTES: u64 = 4 << 20;
/// Shortest interval of `--watch`: each look is six health checks and a page of metrics.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for the metrics. They are an addition: the health does not wait
/// for them.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// The arguments of `status`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 ready, 1 not ready or not reachable.\n\nExamples:\n  tidemark status\n  tidemark status --watch 2s\n  tidemark status --server todos.example:50051 --metrics todos.example:9464 -o json"
)]
pub struct Status {
    /// Address of the metrics: HOST:PORT; without it port 9464 of --server's host
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Print again at this interval until interrupted; 2s if none is given
    #[arg(long, short, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = interval)]
    watch: Option<Duration>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    format: Format,
}

/// What is known of a replica.
struct Report {
    address: String,
    /// By part: serving, not serving, or the error.
    health: Vec<(&'static str, Result<bool, String>)>,
    /// Or why there are none.
    metrics: Result<Metrics, String>,
    /// Where they are from. Another replica's, if `--metrics` does not fit to `--server`.
    metrics_address: String,
}

/// Prints the status; fails if the replica is not ready.
pub async fn run(args: Status) -> Result<(), CommandError> {
    let Some(interval) = args.watch else {
        let report = report(&args).await?;
        print_report(&args, &report, None);
        return report.ready();
    };
    tokio::select! {
        result = watch(&args, interval) => result,
        () = termination() => {
            if std::io::stderr().is_terminal() {
                // The terminal shows `^C` where the cursor was.
                note("");
            }
            Ok(())
        }
    }
}

/// Prints the status again and again.
async fn watch(args: &Status, interval: Duration) -> Result<(), CommandError> {
    let mut before: Option<(Metrics, Instant)> = None;
    loop {
        // A replica that cannot be reached may come back.
        match report(args).await {
            Ok(report) => {
                let now = Instant::now();
                let since = before.as_ref().map(|(metrics, at)| (metrics, now - *at));
                clear_screen(args.format.output);
                print_report(args, &report, since);
                before = report.metrics.ok().map(|metrics| (metrics, now));
            }
            Err(usage @ CommandError::Usage(_)) => return Err(usage),
            Err(error) => {
                before = None;
                clear_screen(args.format.output);
                print(&format!("error: {error}"));
            }
        }
        sleep(interval).await;
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if interval < MIN_INTERVAL {
        return Err(format!("expected at least {MIN_INTERVAL:?}"));
    }
    Ok(interval)
}

fn clear_screen(output: Output) {
    if output == Output::Table && std::io::stdout().is_terminal() {
        print("\u{1b}[2J\u{1b}[H");
    }
}

async fn report(args: &Status) -> Result<Report, CommandError> {
    let channel = args.server.channel().await?;
    let mut health = Vec::new();
    for (part, _) in PARTS {
        health.push((part, check(args, channel.clone(), part).await?));
    }
    let metrics_address = metrics_address(args)?;
    let metrics = fetch(&metrics_address).await;
    Ok(Report {
        address: args.server.address(),
        health,
        metrics: metrics.map_err(|problem| format!("{problem}; see --metrics")),
        metrics_address,
    })
}

/// What the replica says of a part of it.
///
/// # Errors
/// There is no connection: the other parts would fail as well, each after its whole timeout.
async fn check(
    args: &Status,
    channel: Channel,
    part: &str,
) -> Result<Result<bool, String>, CommandError> {
    let request = args.server.request(HealthCheckRequest {
        service: part.to_owned(),
    });
    match HealthClient::new(channel).check(request).await {
        Ok(reply) => Ok(Ok(reply.into_inner().status == 1)),
        Err(status) if status.code() == Code::NotFound => Ok(Err("unknown to this server".into())),
        Err(status) if std::error::Error::source(&status).is_some() => Err(status.into()),
        Err(status) => Ok(Err(CommandError::from(status).to_string())),
    }
}

fn metrics_address(args: &Status) -> Result<String, CommandError> {
    let no_host = || CommandError::Usage("--server has no host".into());
    if let Some(address) = &args.metrics {
        let address = address.trim().trim_start_matches("http://");
        return Ok(address
            .trim_end_matches("/metrics")
            .trim_end_matches('/')
            .to_owned());
    }
    let uri: http::Uri = args.server.address().parse().map_err(|_| no_host())?;
    let host = uri.host().ok_or_else(no_host)?;
    Ok(format!("{host}:{METRICS_PORT}"))
}

/// The values of the metrics by name and labels, as in `a_total{kind="x"}`.
struct Metrics(HashMap<String, f64>);

async fn fetch(address: &str) -> Result<Metrics, String> {
    let text = timeout(METRICS_TIMEOUT, read_metrics(address))
        .await
        .map_err(|_| format!("no answer within {METRICS_TIMEOUT:?}"))?
        .map_err(|problem| problem.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the reply is not HTTP")?;
    if head.split(' ').nth(1) != Some("200") {
        let line = head.lines().next().unwrap_or_default();
        return Err(format!("replied {}", escape(line)));
    }
    let values = body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
    Ok(Metrics(values.collect()))
}

/// HTTP/1.0, so that the body is not chunked.
async fn read_metrics(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    stream
        .take(MAX_METRICS_BYTES)
        .read_to_end(&mut text)
        .await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Metrics {
    fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The sum of the series with this begin.
    fn sum(&self, begin: &str) -> f64 {
        let matching = self.0.iter().filter(|(name, _)| name.starts_with(begin));
        matching.map(|(_, value)| value).sum()
    }

    /// A label of the only series of a metric.
    fn label(&self, metric: &str, label: &str) -> Option<String> {
        let begin = format!("{metric}{{");
        let series = self.0.keys().find(|name| name.starts_with(&begin))?;
        let (_, rest) = series.split_once(&format!("{label}=\""))?;
        rest.split('"').next().map(ToOwned::to_owned)
    }

    fn reads(&self, tier: &str) -> f64 {
        let reads = self.0.iter().filter(|(name, _)| {
            name.starts_with("tidemark_reads_total{") && name.contains(&format!("tier=\"{tier}\""))
        });
        reads.map(|(_, value)| value).sum()
    }

    /// What people want to see: name, and a number with its unit.
    fn facts(&self, before: Option<(&Self, Duration)>) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        let mut fact = |name, text: Option<String>| {
            if let Some(text) = text {
                facts.push((name, text));
            }
        };
        let seconds = |name: &str| self.get(name).map(|s| format!("{s:.3} s"));
        let version = self.label("tidemark_build_info", "version");
        let revision = self
            .label("tidemark_build_info", "revision")
            .filter(|revision| revision != "unknown")
            .map(|revision| format!(" ({revision})"))
            .unwrap_or_default();
        fact(
            "version",
            version.map(|version| format!("{version}{revision}")),
        );
        fact("uptime", self.get("process_start_time_seconds").map(uptime));
        fact("feed lag", seconds("tidemark_frontier_lag_seconds"));
        fact(
            "staleness bound",
            seconds("tidemark_staleness_bound_seconds"),
        );
        fact("reads", Some(self.read_shares()));
        if let Some((before, since)) = before {
            let calls = |metrics: &Self| metrics.sum("tidemark_rpc_duration_seconds_count");
            let seconds = since.max(MIN_INTERVAL).as_secs_f64();
            let rate = (calls(self) - calls(before)).max(0.0) / seconds;
            fact("calls", Some(format!("{rate:.0} a second")));
        }
        let near = self
            .get("tidemark_near_entries")
            .zip(self.get("tidemark_near_bytes"));
        fact(
            "near cache",
            near.map(|(entries, size)| format!("{entries} entries, {}", bytes(size))),
        );
        fact("shared cache", self.shared_cache());
        fact(
            "watchers",
            self.get("tidemark_watchers").map(|n| n.to_string()),
        );
        fact(
            "memory",
            self.get("process_resident_memory_bytes").map(bytes),
        );
        fact(
            "panics",
            self.get("tidemark_panics_total")
                .filter(|n| *n > 0.0)
                .map(|n| n.to_string()),
        );
        facts
    }

    /// Whether Redis is in use, and how many of its nodes.
    fn shared_cache(&self) -> Option<String> {
        let nodes = |kind: &str| self.get(&format!("tidemark_shared_nodes{{kind=\"{kind}\"}}"));
        let known = nodes("known").unwrap_or_default();
        let is_open = self.get("tidemark_shared_breaker_open")? > 0.0;
        Some(match (known > 0.0, is_open) {
            (_, true) => "breaker open: not used".into(),
            (true, false) => format!(
                "{} of {known} Redis nodes answer",
                nodes("reads").unwrap_or_default()
            ),
            (false, false) => "no Redis in use".into(),
        })
    }

    fn read_shares(&self) -> String {
        let tiers = ["near", "shared", "origin"].map(|tier| (tier, self.reads(tier)));
        let all: f64 = tiers.iter().map(|(_, reads)| reads).sum();
        if all == 0.0 {
            return "none yet".into();
        }
        let shares = tiers.map(|(tier, reads)| format!("{:.1}% {tier}", 100.0 * reads / all));
        format!("{all} since start: {}", shares.join(", "))
    }
}

fn uptime(start: f64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = (now.as_secs_f64() - start).max(0.0);
    let up = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(up.as_secs())).to_string()
}

fn bytes(size: f64) -> String {
    let mebibyte = f64::from(1 << 20);
    if size < mebibyte {
        return format!("{:.1} KiB", size / 1024.0);
    }
    format!("{:.1} MiB", size / mebibyte)
}

impl Report {
    fn ready(&self) -> Result<(), CommandError> {
        match self.health.first() {
            Some((_, Ok(true))) => Ok(()),
            _ => Err(CommandError::Other("not ready".into())),
        }
    }

    fn json(&self) -> Value {
        let health: Map<String, Value> = self
            .health
            .iter()
            .map(|(part, state)| ((*part).to_owned(), json!(word(state))))
            .collect();
        let facts: Map<String, Value> = match &self.metrics {
            Ok(metrics) => metrics
                .facts(None)
                .into_iter()
                .map(|(name, text)| (name.replace(' ', "_"), json!(text)))
                .collect(),
            Err(problem) => Map::from_iter([("error".to_owned(), json!(problem))]),
        };
        json!({
            "server": self.address,
            "health": health,
            "metrics_server": self.metrics_address,
            "metrics": facts,
        })
    }
}

fn word(state: &Result<bool, String>) -> String {
    match state {
        Ok(true) => "serving".into(),
        Ok(false) => "not serving".into(),
        Err(problem) => problem.clone(),
    }
}

fn print_report(args: &Status, report: &Report, before: Option<(&Metrics, Duration)>) {
    match args.format.output {
        Output::Json => return print(&report.json().to_string()),
        Output::Yaml => return print(&format!("---\n{}", to_yaml(&report.json()).trim_end())),
        Output::Table | Output::Name => {}
    }
    print(&format!("{:<17}{}", "server", escape(&report.address)));
    for ((part, state), (_, meaning)) in report.health.iter().zip(PARTS) {
        let text = escape(&word(state));
        let colour = if *state == Ok(true) {
            Colour::Green
        } else {
            Colour::Red
        };
        let padding = " ".repeat(13_usize.saturating_sub(text.len()));
        print(&format!(
            "{part:<17}{}{padding}{}",
            paint(&text, colour),
            paint(meaning, Colour::Dim)
        ));
    }
    let from = escape(&report.metrics_address);
    match &report.metrics {
        Ok(metrics) => {
            print(&format!("{:<17}{from}", "metrics of"));
            for (name, text) in metrics.facts(before) {
                print(&format!("{name:<17}{}", escape(&text)));
            }
        }
        Err(problem) => print(&format!(
            "{:<17}{from}: not available: {}",
            "metrics of",
            escape(problem)
        )),
    }
}
