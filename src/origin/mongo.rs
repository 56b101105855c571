//! Being built.

use crate::origin::embedded::Embedded;

/// Why MongoDB cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers: trying again may help.
    #[error("{0}")]
    Transient(String),
    /// Trying again does not help.
    #[error("{0}")]
    Permanent(String),
}

/// Being built.
pub struct MongoDb;

impl MongoDb {
    /// Being built.
    pub async fn connect(_: &str, _: u64, _: usize) -> Result<Embedded, ConnectError> {
        Err(ConnectError::Permanent("MongoDB is not built in yet".into()))
    }
}
