//! The exporter of spans, as the standard `OTEL_*` variables configure it.

use std::{env, fs};

use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Endpoint when `OTEL_TRACES_EXPORTER=otlp` is set without one.
const DEFAULT_ENDPOINT: &str = "http://localhost:4317";

/// A variable of the exporter: the one for traces beats the general one. An
/// empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    let value = |name: String| {
        env::var(name)
            .ok()
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    value(format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
        .or_else(|| value(format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// The provider of spans, if one is wanted, and problems for the log, which is
/// not set up yet.
pub(super) fn provider() -> (Option<SdkTracerProvider>, Vec<String>) {
    let mut problems = Vec::new();
    let is = |name: &str, value: &str| {
        env::var(name).is_ok_and(|set| set.trim().eq_ignore_ascii_case(value))
    };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return (None, problems);
    }
    let endpoint = variable("ENDPOINT")
        .or_else(|| is("OTEL_TRACES_EXPORTER", "otlp").then(|| DEFAULT_ENDPOINT.to_owned()));
    let Some(endpoint) = endpoint else {
        return (None, problems);
    };
    if let Some(protocol) = variable("PROTOCOL").filter(|protocol| protocol != "grpc") {
        problems.push(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL {protocol:?} is not supported; grpc is used"
        ));
    }
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    match exporter(&endpoint) {
        Ok(exporter) => {
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource())
                .build();
            (Some(provider), problems)
        }
        Err(problem) => {
            problems.push(problem);
            (None, problems)
        }
    }
}

fn exporter(endpoint: &str) -> Result<SpanExporter, String> {
    let endpoint = with_scheme(endpoint, variable("INSECURE").as_deref());
    let builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str());
    let builder = if endpoint.starts_with("https://") {
        builder.with_tls_config(tls()?)
    } else {
        builder
    };
    builder
        .build()
        .map_err(|problem: ExporterBuildError| problem.to_string())
}

/// An endpoint without a scheme, such as `collector:4317`, uses TLS unless
/// `OTEL_EXPORTER_OTLP_INSECURE` is true. If that is not set, an endpoint of
/// this machine is called without TLS: collectors beside a service have none.
fn with_scheme(endpoint: &str, insecure: Option<&str>) -> String {
    if endpoint.contains("://") {
        return endpoint.to_owned();
    }
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let insecure = insecure.map_or(is_loopback, |value| value.eq_ignore_ascii_case("true"));
    let scheme = if insecure { "http" } else { "https" };
    format!("{scheme}://{endpoint}")
}

fn tls() -> Result<ClientTlsConfig, String> {
    let read = |name: &str| {
        let file = variable(name);
        let text = file.map(|path| {
            fs::read(&path)
                .map_err(|problem| format!("OTEL_EXPORTER_OTLP_{name} {path}: {problem}"))
        });
        text.transpose()
    };
    let mut tls = ClientTlsConfig::new();
    tls = match read("CERTIFICATE")? {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
        None => tls.with_native_roots(),
    };
    if let Some((cert, key)) = read("CLIENT_CERTIFICATE")?.zip(read("CLIENT_KEY")?) {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    Ok(tls)
}

/// What the `OTEL_*` variables say of this service. Where they do not name it:
/// `tidemark`.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let name = detected
        .get(&Key::from_static_str("service.name"))
        .map(|name| name.to_string())
        .filter(|name| !name.starts_with("unknown_service"))
        .unwrap_or_else(|| "tidemark".into());
    let version = Key::from_static_str("service.version");
    let builder = Resource::builder().with_service_name(name);
    if detected.get(&version).is_some() {
        return builder.build();
    }
    builder
        .with_attribute(KeyValue::new(version, env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_gets_one() {
        for (endpoint, insecure, wanted) in [
            ("http://c:4317", Some("false"), "http://c:4317"),
            ("https://c:4317", Some("true"), "https://c:4317"),
            ("c:4317", None, "https://c:4317"),
            ("c:4317", Some("TRUE"), "http://c:4317"),
            ("localhost:4317", None, "http://localhost:4317"),
            ("[::1]:4317", None, "http://[::1]:4317"),
            ("127.0.0.1:4317", Some("false"), "https://127.0.0.1:4317"),
        ] {
            assert_eq!(with_scheme(endpoint, insecure), wanted);
        }
    }
}
