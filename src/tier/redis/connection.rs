//! One connection to one server, by a fred client in its centralized mode.
//!
//! fred's own reconnection is off. Its task ends at the first error that a
//! connection does not survive, and the owner of the [`Connection`] opens another
//! one: so there is one place that decides when and how often, and none that can
//! end or hang unnoticed. fred's cluster mode was tried before: one task serves
//! all nodes, ends at a single `-ASK`, and cannot synchronize its slots while a
//! master is dead.

use std::time::Duration;

use fred::{
    clients::Client,
    prelude::{Builder, ClientLike, Config, Options, ServerConfig},
    types::{
        RespVersion,
        config::{Server, TlsConfig, TlsConnector, TlsHostMapping},
    },
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    error::{ErrorKind, RedisError},
    url::{Address, Credentials},
};

/// Longest time to open a connection, TLS and authentication included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands that may wait inside one fred client. Batches are bounded by
/// [`super::batcher`]; this bound only catches what would be a bug.
const MAX_COMMANDS: usize = 10_000;

/// How connections to the servers of one URL are opened.
#[derive(Clone)]
pub(super) struct ConnectionSettings {
    pub(super) tls: Option<TlsConnector>,
    /// Name that certificates of servers with a numeric address must have: a
    /// cluster announces addresses, its certificates have the name in the URL.
    pub(super) tls_name: Option<String>,
    pub(super) credentials: Credentials,
    pub(super) database: Option<u8>,
}

impl ConnectionSettings {
    fn server(&self, address: &Address) -> Server {
        // fred resolves the text `host:port`.
        let host = if address.host.contains(':') {
            format!("[{}]", address.host)
        } else {
            address.host.clone()
        };
        let name = match &self.tls_name {
            Some(name) if address.is_ip() => name.clone(),
            _ => address.host.clone(),
        };
        Server::new_with_tls(host, address.port, self.tls.is_some().then_some(name))
    }

    /// A server without TLS waits for the end of what it takes for a command.
    fn no_answer(&self) -> RedisError {
        let mut error = RedisError::timeout(CONNECT_TIMEOUT);
        if self.tls.is_some() {
            error.text.push_str(" (does the server speak TLS?)");
        }
        error
    }

    fn config(&self, address: &Address, version: RespVersion) -> Config {
        Config {
            server: ServerConfig::Centralized {
                server: self.server(address),
            },
            username: self.credentials.username.clone(),
            password: self.credentials.password.clone(),
            database: self.database,
            version,
            fail_fast: true,
            tls: self.tls.clone().map(|connector| TlsConfig {
                connector,
                hostnames: TlsHostMapping::None,
            }),
            ..Config::default()
        }
    }
}

/// An open connection. Dropping it closes it.
pub(super) struct Connection {
    client: Client,
    /// Why it was closed.
    closed: watch::Receiver<Option<RedisError>>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects and authenticates. A server without RESP3 is spoken to in RESP2.
    pub(super) async fn open(
        settings: &ConnectionSettings,
        address: &Address,
    ) -> Result<Self, RedisError> {
        match Self::open_with(settings, address, RespVersion::RESP3).await {
            Err(error) if lacks_resp3(&error.text) => {
                Self::open_with(settings, address, RespVersion::RESP2).await
            }
            opened => opened,
        }
    }

    async fn open_with(
        settings: &ConnectionSettings,
        address: &Address,
        version: RespVersion,
    ) -> Result<Self, RedisError> {
        let client = Builder::from_config(settings.config(address, version))
            .with_connection_config(|connection| {
                connection.connection_timeout = CONNECT_TIMEOUT;
                connection.internal_command_timeout = CONNECT_TIMEOUT;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = MAX_COMMANDS;
                connection.disable_cluster_health_check = true;
            })
            .build()?;
        let (ended, mut closed) = watch::channel(None);
        let running = AbortOnDropHandle::new(client.connect());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let error = match running.await {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) | Err(_) => {
                    RedisError::new(ErrorKind::Connection, "the connection was closed")
                }
            };
            ended.send_replace(Some(error));
        }));
        let connected = async {
            tokio::select! {
                connected = client.wait_for_connect() => connected.map_err(RedisError::from),
                error = closed.wait_for(Option::is_some) => Err(reason(error.ok().as_deref())),
            }
        };
        timeout(CONNECT_TIMEOUT, connected)
            .await
            .unwrap_or_else(|_| Err(settings.no_answer()))?;
        Ok(Self {
            client,
            closed,
            _task: task,
        })
    }

    /// The client, to be asked with [`options`].
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the connection is closed, and says why.
    pub(super) fn closed(&self) -> impl Future<Output = RedisError> + use<> {
        let mut closed = self.closed.clone();
        async move {
            let error = closed.wait_for(Option::is_some).await;
            reason(error.ok().as_deref())
        }
    }
}

fn reason(error: Option<&Option<RedisError>>) -> RedisError {
    error
        .cloned()
        .flatten()
        .unwrap_or_else(|| RedisError::new(ErrorKind::Connection, "the connection was closed"))
}

fn lacks_resp3(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.starts_with("noproto") || (text.contains("unknown command") && text.contains("hello"))
}

/// Options of a command: one attempt, at most `limit`, and none while the
/// connection is not open.
pub(super) fn options(limit: Duration) -> Options {
    Options {
        timeout: Some(limit),
        max_attempts: Some(1),
        fail_fast: true,
        ..Options::default()
    }
}
