//! Why the service ends.

use std::{io, net::SocketAddr};

use tokio::task::JoinError;
use tower::BoxError;

use crate::{
    auth::AuthFileError,
    budget::DoesNotFit,
    cache::Fatal,
    origin::Cause,
    tier::redis::{self, MacKeyError},
    tls::TlsError,
};

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The budgets do not fit into the memory limit.
    #[error(transparent)]
    Memory(#[from] DoesNotFit),
    /// A port cannot be listened on.
    #[error("{setting} {address} cannot be used: {source}; {}", bind_advice(.source))]
    Bind {
        /// The setting that names it.
        setting: &'static str,
        /// The setting's value.
        address: SocketAddr,
        /// What the system reports.
        source: io::Error,
    },
    /// The system does not tell the address of a bound port.
    #[error("a port cannot be used: {0}")]
    Address(#[source] io::Error),
    /// The files for TLS cannot be used.
    #[error("{0}")]
    Tls(#[source] TlsError),
    /// A file of keys cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
    /// The audit log cannot be opened.
    #[error("audit-log: {0}")]
    Audit(#[source] io::Error),
    /// The key for hashes of shared entries cannot be used.
    #[error("redis-mac-key-file: {0}")]
    MacKey(#[source] MacKeyError),
    /// The URL of Redis, or its TLS files, cannot be used.
    #[error("{0}")]
    Redis(#[source] redis::ConnectError),
    /// The database cannot be used, and waiting does not help.
    #[error("{0}")]
    Origin(#[source] Cause),
    /// This replica cannot keep up with the database.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The gRPC server could not start or go on.
    #[error("the gRPC server ended: {0}")]
    ServerFailed(#[source] BoxError),
    /// The gRPC server ended without being asked to.
    #[error("the gRPC server ended")]
    ServerStopped,
    /// A task without which the service cannot live panicked.
    #[error("a task of the service ended: {0}")]
    Panicked(#[source] JoinError),
}

/// What to do about a port that cannot be listened on.
fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "choose an address of this machine, or 0.0.0.0 or [::] for all of them"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023",
        _ => "choose another port, or 0 for any",
    }
}
