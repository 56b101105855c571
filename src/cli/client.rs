//! What the client commands share: the connection, and the level of consistency.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use tonic::{
    Request,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    credential::{CredentialArgs, TodoClient},
    error::{CommandError, causes, is_of_certificates, is_of_the_scheme},
    output::{Output, note},
};
use crate::{
    grpc::client::todo_service_client::TodoServiceClient,
    pb::{self, consistency::Requirement},
    text::escape,
};

/// Where `tidemark serve` listens if it is not told.
pub const DEFAULT_SERVER: &str = "127.0.0.1:50051";
/// Largest reply, in bytes: a page of a thousand of the largest todos.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// A time to wait for a reply, above zero.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout.is_zero() {
        return Err("no reply comes in no time; use 1ms or more".into());
    }
    Ok(timeout)
}

/// Which server to call.
#[derive(Args, Clone)]
pub struct Server {
    /// Address of the service: HOST:PORT, http://HOST:PORT or https://HOST:PORT
    #[arg(
        long,
        env = "TIDEMARK_SERVER",
        value_name = "ADDRESS",
        default_value = DEFAULT_SERVER
    )]
    pub server: String,
    /// PEM file of the certificate authorities to trust with https; else Mozilla's list
    #[arg(long, env = "TIDEMARK_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate, where the service asks for one
    #[arg(long, env = "TIDEMARK_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, env = "TIDEMARK_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub credential: CredentialArgs,
    /// Deadline of the call. It is sent to the service, whose error names what it waited for
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_timeout)]
    pub timeout: Duration,
}

/// Which server to call, and how to print.
#[derive(Args, Clone)]
pub struct Client {
    #[command(flatten)]
    pub server: Server,
    #[command(flatten)]
    pub format: Format,
}

/// How to print.
#[derive(Args, Clone)]
pub struct Format {
    /// Output format: table, json, yaml or name
    #[arg(
        long,
        short,
        value_enum,
        ignore_case = true,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
}

/// Which pages of a collection to show.
#[derive(Args)]
pub struct Paging {
    /// Entries of a page, up to 1000; 0: the service's default, 50
    #[arg(
        long = "page-size",
        value_name = "PAGE_SIZE",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub size: i32,
    /// Begin at this page
    #[arg(
        long = "page-token",
        value_name = "PAGE_TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    pub token: String,
    /// All pages, one after the other
    #[arg(long)]
    all: bool,
}

impl Paging {
    /// Goes on to the page that a reply names, if it is wanted. Otherwise says how to
    /// see it, to those who do not get the reply whole.
    pub fn turn_to(&mut self, next_page_token: String, output: Output) -> bool {
        if next_page_token.is_empty() {
            return false;
        }
        if !self.all && matches!(output, Output::Table | Output::Name) {
            note(&format!("more: --page-token {next_page_token}"));
        }
        self.token = next_page_token;
        self.all
    }
}

/// How fresh a reply must be.
#[derive(Args, Clone)]
pub struct Consistency {
    /// How fresh the reply must be; without it minimize_latency
    #[arg(long, value_enum, ignore_case = true, value_name = "LEVEL", conflicts_with_all = ["max_staleness", "at_least_as_fresh"])]
    consistency: Option<Level>,
    /// The reply misses no write acknowledged longer ago than this, as in 2s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "at_least_as_fresh")]
    max_staleness: Option<Duration>,
    /// The reply is not older than the one that carried this token
    #[arg(long, value_name = "TOKEN")]
    at_least_as_fresh: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Level {
    /// From the nearest cache that is within the staleness limit
    #[value(alias = "minimize-latency")]
    MinimizeLatency,
    /// Every write acknowledged before the read began
    #[value(alias = "fully-consistent")]
    FullyConsistent,
    /// From a cache, or not at all
    #[value(alias = "cached-only")]
    CachedOnly,
}

impl Consistency {
    /// The message of the contract; `None`: the default of the service.
    pub fn message(&self) -> Option<pb::Consistency> {
        let level = |level: &Level| match level {
            Level::MinimizeLatency => Requirement::MinimizeLatency(true),
            Level::FullyConsistent => Requirement::FullyConsistent(true),
            Level::CachedOnly => Requirement::CachedOnly(true),
        };
        let staleness = |d: &Duration| {
            Requirement::MaxStaleness(prost_types::Duration {
                seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(d.subsec_nanos()).unwrap_or(0),
            })
        };
        let requirement = (self.consistency.as_ref().map(level))
            .or_else(|| self.max_staleness.as_ref().map(staleness))
            .or_else(|| {
                let token = self.at_least_as_fresh.clone();
                token.map(Requirement::AtLeastAsFresh)
            })?;
        Some(pb::Consistency {
            requirement: Some(requirement),
        })
    }
}

impl Server {
    /// A connected client.
    pub async fn connect(&self) -> Result<TodoClient, CommandError> {
        let credential = self.credential.read()?;
        if credential.is_some() && self.is_exposed() {
            note("warning: the key or token is sent without TLS to another machine");
        }
        let channel = self.channel().await?;
        let client = TodoServiceClient::with_interceptor(channel, credential);
        Ok(client.max_decoding_message_size(MAX_REPLY_BYTES))
    }

    /// Whether calls leave this machine without TLS.
    fn is_exposed(&self) -> bool {
        let address = self.address();
        let Some(rest) = address.strip_prefix("http://") else {
            return false;
        };
        let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
        host != "localhost" && !host.parse().is_ok_and(is_loopback)
    }

    /// A connection.
    pub async fn channel(&self) -> Result<Channel, CommandError> {
        let endpoint = self.endpoint()?.connect_timeout(self.timeout);
        endpoint.connect().await.map_err(|e| self.unreachable(&e))
    }

    /// The address with its scheme: without one it is https if there are TLS
    /// files, else http.
    pub fn address(&self) -> String {
        let server = self.server.trim();
        if server.contains("://") {
            return server.to_owned();
        }
        let with_tls = self.ca.is_some() || self.cert.is_some();
        format!("{}://{server}", if with_tls { "https" } else { "http" })
    }

    fn endpoint(&self) -> Result<Endpoint, CommandError> {
        let wrong = |problem: &dyn std::fmt::Display| {
            let server = escape(&crate::error::shorten(&self.server));
            CommandError::Usage(format!(
                "--server {server:?} is not an address such as 127.0.0.1:50051, http://127.0.0.1:50051 or https://todos.example:443: {problem}"
            ))
        };
        let endpoint = Channel::from_shared(self.address()).map_err(|e| wrong(&e))?;
        if endpoint.uri().port_u16().is_none() && !self.server.contains("://") {
            return Err(wrong(&"the port is missing"));
        }
        let tls = match endpoint.uri().scheme_str() {
            Some("https") => self.tls()?,
            Some("http") if self.ca.is_some() || self.cert.is_some() => {
                return Err(CommandError::Usage(
                    "--ca and --cert need https: change the scheme of --server".into(),
                ));
            }
            Some("http") => return Ok(endpoint),
            _ => return Err(wrong(&"the scheme must be http or https")),
        };
        endpoint
            .tls_config(tls)
            .map_err(|e| CommandError::Usage(format!("--ca, --cert, --key: {}", causes(&e))))
    }

    fn tls(&self) -> Result<ClientTlsConfig, CommandError> {
        let read = |file: &Path| {
            std::fs::read(file)
                .map_err(|e| CommandError::Usage(format!("{} cannot be read: {e}", file.display())))
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

    fn unreachable(&self, error: &tonic::transport::Error) -> CommandError {
        let causes = causes(error);
        let is_tls = self.address().starts_with("https:");
        let hint = if is_tls && is_of_the_scheme(&causes) {
            "it answers without TLS: use http:// in --server"
        } else if causes.contains("CaUsedAsEndEntity") {
            "the server's certificate is that of an authority (CA:TRUE): let it issue one for the server"
        } else if is_of_certificates(&causes) {
            "see --ca, --cert and --key"
        } else {
            "is `tidemark serve` running there?"
        };
        let server = escape(&self.address());
        CommandError::Other(format!("{server} cannot be reached: {causes}; {hint}"))
    }

    /// A request with the deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}
