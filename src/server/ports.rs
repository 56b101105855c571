//! The ports: bound first, so that an address that cannot be used ends the start at
//! once.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;

use super::{Addresses, error::RunError};
use crate::{
    budget::{Budgets, CONNECTION_BYTES},
    config::Config,
    grpc::transport::{self, Limits, Port, SpareFiles, Tls},
};

/// Connections at once to each of the ports for metrics and health: a few
/// scrapers and probes.
const MAX_SIDE_CONNECTIONS: usize = 64;

/// A bound socket for each port that the settings name.
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    pub(super) metrics: Option<TcpListener>,
    pub(super) health: Option<TcpListener>,
}

impl Listeners {
    pub(super) fn bind(config: &Config) -> Result<Self, RunError> {
        let optional = |address: Option<SocketAddr>, setting| {
            address.map(|address| bind(address, setting)).transpose()
        };
        Ok(Self {
            grpc: bind(config.listen, "listen")?,
            metrics: optional(config.metrics_listen, "metrics-listen")?,
            health: optional(config.health_listen, "health-listen")?,
        })
    }

    /// The addresses in use, with the ports that the system chose for port 0.
    pub(super) fn addresses(&self, tls: bool) -> Result<Addresses, RunError> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(RunError::Address);
        Ok(Addresses {
            grpc: address(&self.grpc)?,
            tls,
            metrics: self.metrics.as_ref().map(address).transpose()?,
            health: self.health.as_ref().map(address).transpose()?,
        })
    }
}

fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, RunError> {
    transport::bind(address).map_err(|source| RunError::Bind {
        setting,
        address,
        source,
    })
}

/// The port for calls.
pub(super) fn grpc_port(
    config: &Config,
    listener: TcpListener,
    budgets: &Arc<Budgets>,
) -> Result<Port, RunError> {
    let tls = config.tls.clone().map(Tls::load).transpose();
    let tls = tls.map_err(RunError::Tls)?;
    let (all, one) = (config.max_connections, config.max_connections_per_address);
    Ok(Port {
        name: "gRPC",
        listener,
        limits: Limits::new(all, one, tls.is_some(), budgets),
        tls,
        max_age: config.max_connection_age,
        spare: None,
    })
}

/// A port for metrics or health: few connections, without a limit of age, and with a
/// spare open file, so that it answers while callers use up the others.
pub(super) fn side_port(
    name: &'static str,
    listener: TcpListener,
    spare: &Arc<SpareFiles>,
) -> Port {
    Port {
        name,
        listener,
        limits: Limits {
            connections: MAX_SIDE_CONNECTIONS,
            per_address: MAX_SIDE_CONNECTIONS / 2,
            bytes_each: CONNECTION_BYTES,
        },
        tls: None,
        max_age: None,
        spare: Some(Arc::clone(spare)),
    }
}
