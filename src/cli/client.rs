//! What the client commands share: the connection, JSON, how an error is told.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
    time::Duration,
};

use clap::{Args, ValueEnum};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use tonic::{
    Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use crate::{
    grpc::client::todo_service_client::TodoServiceClient,
    pb::{self, consistency::Requirement},
};

/// Largest reply taken: a page of a thousand of the largest todos.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// The messages of the contract, for their JSON form.
pub static MESSAGES: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(pb::DESCRIPTORS).unwrap_or_default());

/// Which server, and how to print.
#[derive(Args, Clone)]
pub struct Server {
    /// Address of the service
    #[arg(
        long,
        env = "TIDEMARK_SERVER",
        default_value = "http://127.0.0.1:50051"
    )]
    server: String,
    /// PEM file of the authorities to trust with https; else Mozilla's list
    #[arg(long, env = "TIDEMARK_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the certificate to show, where the service asks for one
    #[arg(long, env = "TIDEMARK_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, env = "TIDEMARK_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Longest wait for an answer
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print JSON, or a table for people
    #[arg(long, value_enum, default_value = "table")]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The reply as JSON, one line each
    Json,
    /// For people
    Table,
}

/// How fresh an answer must be.
#[derive(Args, Clone)]
pub struct Consistency {
    /// minimize_latency (default), fully_consistent or cached_only
    #[arg(long, value_enum, conflicts_with_all = ["max_staleness", "at_least_as_fresh"])]
    consistency: Option<Arm>,
    /// Nothing acknowledged longer ago may be missing, as in 2s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "at_least_as_fresh")]
    max_staleness: Option<Duration>,
    /// Not older than the answer that carried this token
    #[arg(long, value_name = "TOKEN")]
    at_least_as_fresh: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Arm {
    MinimizeLatency,
    FullyConsistent,
    CachedOnly,
}

impl Consistency {
    /// As the contract has it.
    pub fn message(&self) -> Option<pb::Consistency> {
        let arm = |arm: &Arm| match arm {
            Arm::MinimizeLatency => Requirement::MinimizeLatency(true),
            Arm::FullyConsistent => Requirement::FullyConsistent(true),
            Arm::CachedOnly => Requirement::CachedOnly(true),
        };
        let staleness = |d: &Duration| {
            Requirement::MaxStaleness(prost_types::Duration {
                seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(d.subsec_nanos()).unwrap_or(0),
            })
        };
        let requirement = (self.consistency.as_ref().map(arm))
            .or_else(|| self.max_staleness.as_ref().map(staleness))
            .or_else(|| {
                self.at_least_as_fresh
                    .clone()
                    .map(Requirement::AtLeastAsFresh)
            })?;
        Some(pb::Consistency {
            requirement: Some(requirement),
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The service said no.
    #[error("{}", status_text(.0))]
    Status(Box<Status>),
    /// Everything else.
    #[error("{0}")]
    Other(String),
    /// Arguments that cannot be right.
    #[error("{0}")]
    Usage(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// An error with all that caused it: the first alone says "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text += &format!(": {told}");
        }
        cause = error.source();
    }
    text
}

/// In TLS 1.3 a client learns only after the handshake that its certificate was
/// refused, and where the server's alert comes too late, only that the
/// connection was closed.
fn is_of_certificates(cause: &str) -> bool {
    let cause = cause.to_lowercase();
    [
        "certificate",
        "broken pipe",
        "connection closed",
        "connection reset",
    ]
    .iter()
    .any(|word| cause.contains(word))
}

fn status_text(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details
        .error_info()
        .map(|info| format!(" {}", info.reason))
        .unwrap_or_default();
    let mut text = format!("{:?}{reason}: {}", status.code(), status.message());
    // The service did not say this, the connection did.
    if let Some(cause) = std::error::Error::source(status) {
        let cause = causes(cause);
        text += &format!(
            ": {cause}{}",
            if is_of_certificates(&cause) {
                "; over TLS, see --ca, --cert and --key"
            } else {
                ""
            }
        );
    }
    for (key, value) in details
        .error_info()
        .map(|info| &info.metadata)
        .into_iter()
        .flatten()
    {
        text += &format!("\n  {key}: {value}");
    }
    text
}

/// The exit code, and the error on stderr.
pub fn exit(result: Result<(), Failed>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("error: {failed}");
            if matches!(failed, Failed::Usage(_)) {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

impl Server {
    /// A connected client.
    pub async fn connect(&self) -> Result<TodoServiceClient<Channel>, Failed> {
        let endpoint = self.endpoint()?.connect_timeout(self.timeout);
        let channel = endpoint.connect().await.map_err(|e| self.unreachable(&e))?;
        Ok(TodoServiceClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES))
    }

    fn endpoint(&self) -> Result<Endpoint, Failed> {
        let wrong = |problem: &dyn std::fmt::Display| {
            let server = &self.server;
            Failed::Usage(format!(
                "--server {server:?} is no address such as http://127.0.0.1:50051: {problem}"
            ))
        };
        let endpoint = Channel::from_shared(self.server.clone()).map_err(|e| wrong(&e))?;
        let tls = match endpoint.uri().scheme_str() {
            Some("https") => self.tls()?,
            Some("http") if self.ca.is_some() || self.cert.is_some() => {
                return Err(Failed::Usage(
                    "--ca and --cert are for https: change --server".into(),
                ));
            }
            Some("http") => return Ok(endpoint),
            _ => return Err(wrong(&"it begins with http:// or https://")),
        };
        endpoint
            .tls_config(tls)
            .map_err(|e| Failed::Usage(format!("--ca, --cert, --key: {}", causes(&e))))
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failed> {
        let read = |file: &Path| {
            std::fs::read(file)
                .map_err(|e| Failed::Usage(format!("{} cannot be read: {e}", file.display())))
        };
        let tls = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                Ok(tls.identity(Identity::from_pem(read(cert)?, read(key)?)))
            }
            _ => Ok(tls),
        }
    }

    fn unreachable(&self, error: &tonic::transport::Error) -> Failed {
        let (server, causes) = (&self.server, causes(error));
        let hint = if is_of_certificates(&causes) {
            "see --ca, --cert and --key"
        } else {
            "is `tidemark serve` running there?"
        };
        Failed::Other(format!("{server} cannot be reached: {causes}; {hint}"))
    }

    /// A request with the deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

/// Prints a line. A reader that went away ends the process quietly.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// The JSON form of a message.
pub fn json(name: &str, message: &impl Message) -> Result<String, Failed> {
    let other =
        |e: &dyn std::fmt::Display| Failed::Other(format!("{name} cannot be written as JSON: {e}"));
    let descriptor = MESSAGES
        .get_message_by_name(name)
        .ok_or_else(|| other(&"it is not in the contract"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|e| other(&e))?;
    let mut raw = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut raw);
    dynamic
        .serialize_with_options(
            &mut serializer,
            &SerializeOptions::new().skip_default_fields(true),
        )
        .map_err(|e| other(&e))?;
    String::from_utf8(raw).map_err(|e| other(&e))
}

/// A todo from its JSON form.
pub fn todo_from_json(line: &str) -> Result<pb::Todo, String> {
    let descriptor = MESSAGES
        .get_message_by_name("todo.v1.Todo")
        .ok_or("the contract lacks todo.v1.Todo")?;
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let dynamic =
        DynamicMessage::deserialize(descriptor, &mut deserializer).map_err(|e| e.to_string())?;
    deserializer.end().map_err(|e| e.to_string())?;
    dynamic.transcode_to().map_err(|e| e.to_string())
}

/// One todo for people.
pub fn row(todo: &pb::Todo) -> String {
    let done = if todo.state() == pb::todo::State::Completed {
        "x"
    } else {
        " "
    };
    let priority = todo
        .priority()
        .as_str_name()
        .trim_start_matches("PRIORITY_")
        .to_lowercase();
    let due = todo
        .due_time
        .map(|due| format!("  due {due}"))
        .unwrap_or_default();
    let labels = if todo.labels.is_empty() {
        String::new()
    } else {
        format!("  [{}]", todo.labels.join(", "))
    };
    format!(
        "[{done}] {:<40} {:<7} {}{labels}{due}",
        todo.name, priority, todo.title
    )
}

/// How fresh an answer is, for people.
pub fn freshness(read: Option<&pb::ReadInfo>) -> String {
    let Some(read) = read else {
        return String::new();
    };
    let source = read
        .source()
        .as_str_name()
        .trim_start_matches("SOURCE_")
        .to_lowercase();
    let bound = read
        .staleness_bound
        .map(|d| d.to_string())
        .unwrap_or_default();
    let stale = if read.stale { ", STALE" } else { "" };
    format!(
        "from {source}, at most {bound} old{stale}, token {}",
        read.token
    )
}
