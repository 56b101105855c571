//! The log on stderr, and where spans go.

use std::io::{self, IsTerminal as _};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, LevelFilter, filter_fn},
    fmt::writer::BoxMakeWriter,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{
    log_writer::{self, LogWriter},
    traces,
};

/// Libraries log at `warn` and above: their `info` is about their own state,
/// such as each connection. A directive of `RUST_LOG` that names one of them
/// replaces its default. fred is silent: the shared cache logs each error of Redis
/// itself, at most once a minute and without passwords.
const DEFAULT_FILTER: &str = "info,fred=off,mongodb=warn,hyper=warn,hyper_util=warn,h2=warn,\
tower=warn,tonic=warn,rustls=warn,hickory_proto=warn,hickory_resolver=warn,opentelemetry=warn,\
opentelemetry_sdk=warn,opentelemetry-otlp=warn,opentelemetry_otlp=warn";

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Text.
    Text,
}

/// Writes the rest of the log and exports the remaining spans when it is dropped.
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // The process ends: the error could not be handled.
            let _ = provider.shutdown();
        }
        log_writer::flush();
    }
}

/// Logs to stderr (level by `RUST_LOG`, `info` by default) and, if an OTLP
/// endpoint is set by the standard `OTEL_*` variables, exports spans. Without
/// one, spans cost nothing. Must be called in a runtime.
#[must_use]
pub fn init(format: LogFormat) -> Guard {
    let (provider, problems) = traces::provider();
    let (filter, wrong_filter) = filter(std::env::var("RUST_LOG").ok().as_deref());
    // A second call in one process (tests) changes nothing.
    let _ = subscriber(format, filter, provider.as_ref()).try_init();
    if let Some(problem) = wrong_filter {
        tracing::warn!(%problem, "RUST_LOG is not a valid filter; the default is used");
    }
    for problem in problems {
        tracing::error!(%problem, "traces are not exported as OTEL_* asks");
    }
    Guard(provider)
}

/// The filter of events, and the problem of an invalid text.
fn filter(text: Option<&str>) -> (EnvFilter, Option<String>) {
    let with = |text: &str| EnvFilter::try_new(format!("{DEFAULT_FILTER},{text}"));
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => (EnvFilter::new(DEFAULT_FILTER), None),
        Some(text) => match with(text) {
            Ok(filter) => (filter, None),
            Err(problem) => (EnvFilter::new(DEFAULT_FILTER), Some(problem.to_string())),
        },
    }
}

/// Takes events and spans. Without an exporter there is no layer for spans: a
/// layer of `None` would let every span be made for nothing.
fn subscriber(
    format: LogFormat,
    level: EnvFilter,
    provider: Option<&SdkTracerProvider>,
) -> Box<dyn tracing::Subscriber + Send + Sync> {
    // With a hint of a level: without one, all that any library traces, down to
    // the transport's frames, would be asked about at run time.
    let events = filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let events_only = level.and(events);
    let on_terminal = io::stderr().is_terminal();
    let writer = match LogWriter::stderr() {
        Ok(writer) => BoxMakeWriter::new(move || writer.clone()),
        // A write may block then.
        Err(_) => BoxMakeWriter::new(io::stderr),
    };
    let fmt = tracing_subscriber::fmt::layer().with_writer(writer);
    let logs = match format {
        LogFormat::Text => fmt.with_ansi(colours(on_terminal)).boxed(),
        LogFormat::Auto if on_terminal => fmt.with_ansi(colours(on_terminal)).boxed(),
        LogFormat::Json | LogFormat::Auto => fmt.json().boxed(),
    };
    let logs = tracing_subscriber::registry().with(logs.with_filter(events_only));
    let Some(provider) = provider else {
        return Box::new(logs);
    };
    let ours =
        filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("tidemark"));
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tidemark"))
        .with_filter(ours);
    Box::new(logs.with(spans))
}

/// Whether to write colours: only to a terminal, and not if `NO_COLOR` is set.
fn colours(on_terminal: bool) -> bool {
    on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_off_without_an_exporter() {
        let on = || !tracing::info_span!("near").is_disabled();
        let subscriber = |provider: Option<&SdkTracerProvider>| {
            subscriber(LogFormat::Auto, filter(None).0, provider)
        };
        tracing::subscriber::with_default(subscriber(None), || assert!(!on()));
        let provider = SdkTracerProvider::builder().build();
        tracing::subscriber::with_default(subscriber(Some(&provider)), || {
            tracing::callsite::rebuild_interest_cache();
            assert!(on());
        });
    }

    #[test]
    fn rust_log_adds_to_the_default() {
        let shown = |text: Option<&str>| {
            let (filter, problem) = filter(text);
            (filter.to_string(), problem.is_some())
        };
        assert!(shown(None).0.contains("fred=off") && shown(Some(" ")) == shown(None));
        let (debug, _) = shown(Some("debug,fred=trace"));
        assert!(
            debug.contains("debug") && debug.contains("fred=trace") && !debug.contains("fred=off"),
            "{debug}"
        );
        assert!(shown(Some("fred=loud")).1);
    }
}
