//! One call's trace with its tiers, as a real OpenTelemetry Collector gets it.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tidemark::pb;
use tokio::net::TcpStream;
use tonic::Code;

use crate::{
    client::*,
    support::{Tidemark, eventually, folder, free_port, mongo, redis_cluster, spawn},
    tls::{Authority, Files},
};

/// Of the caller: the example of the W3C's recommendation.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that prints what it gets.
struct Collector {
    child: Child,
    port: u16,
    printed: Arc<Mutex<Vec<String>>>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds it when this is the first time.
fn collector_binary() -> PathBuf {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools/otel-collector");
    let out = Command::new(script)
        .stderr(Stdio::inherit())
        .output()
        .expect("run");
    assert!(
        out.status.success(),
        "tests/tools/otel-collector does not build the collector"
    );
    String::from_utf8(out.stdout).expect("a path").trim().into()
}

impl Collector {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// One whose gRPC receiver has these settings, too, as YAML.
    async fn start_with(tls: &str) -> Self {
        let program = tokio::task::spawn_blocking(collector_binary)
            .await
            .expect("built");
        let (port, file) = (free_port(), folder("collector").join("config.yaml"));
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'{tls}}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed, use_internal_logger: false}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}\n"
        );
        fs::write(&file, config).expect("written");
        let args = ["--config".to_owned(), file.display().to_string()];
        let mut child = spawn(&program, &args, &[], (Stdio::piped(), Stdio::null()));
        let (printed, out) = (
            Arc::new(Mutex::new(Vec::new())),
            child.stdout.take().expect("stdout"),
        );
        let lines = Arc::clone(&printed);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                lines.lock().expect("the lines").push(line);
            }
        });
        eventually("the collector", Duration::from_secs(120), async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self {
            child,
            port,
            printed,
        }
    }

    /// The spans of a trace, in the order in which they began.
    fn spans(&self, trace: &str) -> Vec<Span> {
        let printed = self.printed.lock().expect("the lines");
        let mut spans: Vec<Span> = Vec::new();
        for line in printed.iter().map(|line| line.trim()) {
            if line.starts_with("Span #") {
                spans.push(Span::default());
            }
            let Some(span) = spans.last_mut() else {
                continue;
            };
            if let Some((name, value)) = line
                .strip_prefix("-> ")
                .and_then(|line| line.split_once(": "))
            {
                let inner = value
                    .split_once('(')
                    .map_or(value, |(_, inner)| inner.trim_end_matches(')'));
                span.attributes.insert(name.into(), inner.into());
            } else if let Some((name, value)) = line.split_once(" : ") {
                span.fields.insert(name.trim().into(), value.trim().into());
            }
        }
        spans.retain(|span| span.field("Trace ID") == trace);
        spans.sort_by_key(|span| span.field("Start time").to_owned());
        spans
    }

    /// The spans of a trace once this many are there.
    async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        eventually("the spans", Duration::from_secs(60), async || {
            Some(self.spans(trace)).filter(|spans| spans.len() >= count)
        })
        .await
    }
}

#[derive(Clone, Debug, Default)]
struct Span {
    fields: HashMap<String, String>,
    attributes: HashMap<String, String>,
}

impl Span {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// The trace as docs/tracing.md shows one.
fn drawn(spans: &[Span]) -> String {
    let mut text = String::new();
    for span in spans {
        let indent = if span.field("Parent ID") == CALLER {
            ""
        } else {
            "  "
        };
        let attributes: Vec<_> = ["tidemark.tier", "tidemark.keys", "rpc.grpc.status_code"]
            .into_iter()
            .filter(|name| !span.attribute(name).is_empty())
            .map(|name| format!("{name}={}", span.attribute(name)))
            .collect();
        let clock = |name| {
            span.field(name)
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned()
        };
        let (start, end) = (clock("Start time"), clock("End time"));
        writeln!(
            text,
            "{start} - {end}  {indent}{}  {}",
            span.field("Name"),
            attributes.join(" ")
        )
        .expect("a String");
    }
    text
}

fn traced<T>(trace: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let context = format!("00-{trace}-{CALLER}-01");
    request
        .metadata_mut()
        .insert("traceparent", context.parse().expect("text"));
    request
}

#[tokio::test]
async fn a_call_is_one_trace_with_its_tiers() {
    let collector = Collector::start().await;
    let (uri, url) = (mongo().uri("traces"), redis_cluster().url());
    let envs = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
            format!("http://127.0.0.1:{}", collector.port),
        ),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned()),
        ("OTEL_SERVICE_NAME".to_owned(), "todos-in-test".to_owned()),
    ];
    let args = ["--mongodb-uri", &uri, "--redis-url", &url];
    let (service, mut client) = ready(Tidemark::start_with(&args, &envs)).await;
    eventually("Redis", Duration::from_secs(60), async || {
        (health(&service, "shared").await.ok()? == SERVING).then_some(())
    })
    .await;

    // What no tier has: all three are asked.
    let message = pb::GetTodoRequest {
        name: "lists/home/todos/none".into(),
        consistency: None,
    };
    let status = client
        .get_todo(traced(TRACE, message.clone()))
        .await
        .expect_err("there is none");
    assert_eq!(status.code(), Code::NotFound);
    let spans = collector.trace(TRACE, 4).await;
    eprintln!("{}", drawn(&spans));
    let names: Vec<_> = spans.iter().map(|span| span.field("Name")).collect();
    assert_eq!(
        names,
        ["todo.v1.TodoService/GetTodo", "near", "shared", "origin"]
    );
    let call = &spans[0];
    assert_eq!(
        (call.field("Parent ID"), call.field("Kind")),
        (CALLER, "Server")
    );
    for (name, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "todo.v1.TodoService"),
        ("rpc.method", "GetTodo"),
        ("rpc.grpc.status_code", "5"),
    ] {
        assert_eq!(call.attribute(name), value, "{name}");
    }
    assert_eq!(
        call.field("Status code"),
        "Unset",
        "no fault of the service"
    );
    for (span, tier) in spans[1..].iter().zip(["near", "shared", "origin"]) {
        assert_eq!(span.field("Parent ID"), call.field("ID"), "{tier}");
        assert_eq!(
            (
                span.attribute("tidemark.tier"),
                span.attribute("tidemark.keys")
            ),
            (tier, "1")
        );
        assert!(
            span.field("End time") <= call.field("End time"),
            "{tier} within its call"
        );
    }
    let printed = collector.printed.lock().expect("the lines").join("\n");
    assert!(printed.contains("service.name: Str(todos-in-test)"));

    // The next one is answered near: nothing farther away is in its trace.
    let second = TRACE.replace("0af7", "1af7");
    client
        .get_todo(traced(&second, message))
        .await
        .expect_err("still none");
    let third = TRACE.replace("0af7", "2af7");
    let todo = pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo: Some(titled("Buy milk")),
        ..pb::CreateTodoRequest::default()
    };
    client
        .create_todo(traced(&third, todo))
        .await
        .expect("created");
    let tiers = |spans: &[Span]| -> Vec<String> {
        spans[1..]
            .iter()
            .map(|span| span.attribute("tidemark.tier").to_owned())
            .collect()
    };
    let write = collector.trace(&third, 2).await;
    assert_eq!(tiers(&write), ["origin"], "a write");
    let near = collector.trace(&second, 2).await;
    assert_eq!(tiers(&near), ["near"]);

    // What is still unsent at the end is sent then.
    let fourth = TRACE.replace("0af7", "3af7");
    let list = pb::ListTodosRequest {
        consistency: strong(),
        ..page_of("lists/home")
    };
    client
        .list_todos(traced(&fourth, list))
        .await
        .expect("listed");
    service.terminate();
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
    let list = collector.trace(&fourth, 4).await;
    eprintln!("{}", drawn(&list));
    assert_eq!(list[0].attribute("rpc.method"), "ListTodos");
    assert!(
        tiers(&list).contains(&"origin".to_owned()),
        "{:?}",
        tiers(&list)
    );
}

/// Whether a call's span arrives at the collector, from a service with these
/// variables.
async fn arrives(collector: &Collector, variables: &[(&str, String)]) -> String {
    let dir = folder("data").display().to_string();
    let envs: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .chain([("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned())])
        .collect();
    let service = Tidemark::start_with(&["--data-dir", &dir], &envs);
    let (_service, mut client) = ready(service).await;
    let message = pb::GetTodoRequest {
        name: "lists/home/todos/none".into(),
        consistency: None,
    };
    let status = client.get_todo(traced(TRACE, message)).await;
    assert_eq!(status.expect_err("there is none").code(), Code::NotFound);
    collector.trace(TRACE, 1).await;
    collector.printed.lock().expect("the lines").join("\n")
}

#[tokio::test]
async fn an_endpoint_may_have_no_scheme_and_attributes_may_name_the_service() {
    let collector = Collector::start().await;
    let printed = arrives(
        &collector,
        &[
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("127.0.0.1:{}", collector.port),
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop".into()),
        ],
    )
    .await;
    assert!(printed.contains("service.name: Str(shop)"), "{printed}");
}

#[tokio::test]
async fn traces_are_exported_over_tls() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign());
    let ca = files.write("ca.pem", &ours.pem());
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let tls = format!(", tls: {{cert_file: '{cert}', key_file: '{key}'}}");
    let collector = Collector::start_with(&tls).await;
    let printed = arrives(
        &collector,
        &[
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("https://127.0.0.1:{}", collector.port),
            ),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca),
        ],
    )
    .await;
    assert!(printed.contains("service.name: Str(tidemark)"), "{printed}");
}
