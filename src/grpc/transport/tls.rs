//! TLS of callers, with certificates that are read again when they change. The
//! framework cannot do that.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::{
    telemetry::{Kind, Metrics},
    tls::{ServerFiles, ServerPem, TlsError},
};

/// How often the files are read. Their contents are compared, not their times:
/// three small reads, and right however the files are replaced.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// What a connection may speak, best first.
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The TLS configuration of a port, and the files that it follows.
pub struct Tls {
    files: ServerFiles,
    pem: ServerPem,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(files: ServerFiles) -> Result<Self, TlsError> {
        let pem = files.read()?;
        let current = watch::Sender::new(Arc::new(pem.config(PROTOCOLS)?));
        Ok(Self {
            files,
            pem,
            current,
        })
    }

    /// Reloads the files until `shutdown`; returns the configuration in force.
    pub(super) fn follow(
        self,
        metrics: Arc<Metrics>,
        shutdown: &CancellationToken,
    ) -> watch::Receiver<Arc<ServerConfig>> {
        let current = self.current.subscribe();
        let reloading = async move { self.reload(&metrics).await };
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(reloading));
        current
    }

    /// Uses changed files for new connections. Files that cannot be used are
    /// reported once, and the configuration before stays in force.
    async fn reload(self, metrics: &Metrics) {
        let Self {
            files,
            pem,
            current,
        } = self;
        let mut tried = Ok(pem);
        loop {
            sleep(RELOAD_INTERVAL).await;
            let changed = files.clone();
            let Ok(now) = spawn_blocking(move || changed.read()).await else {
                continue;
            };
            if is_same(&now, &tried) {
                continue;
            }
            let config = match &now {
                Ok(pem) => pem.config(PROTOCOLS).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let outcome = match config {
                Ok(config) => {
                    current.send_replace(Arc::new(config));
                    tracing::info!("changed TLS files are in force");
                    "loaded"
                }
                Err(problem) => {
                    tracing::error!(%problem, "changed TLS files cannot be used; the ones before stay in force");
                    "failed"
                }
            };
            metrics
                .tls_reloads
                .get_or_create(&Kind { kind: outcome })
                .inc();
            tried = now;
        }
    }
}

/// Whether the files are as they were read last.
fn is_same(now: &Result<ServerPem, TlsError>, tried: &Result<ServerPem, TlsError>) -> bool {
    match (now, tried) {
        (Ok(now), Ok(tried)) => now == tried,
        (Err(now), Err(tried)) => now.to_string() == tried.to_string(),
        _ => false,
    }
}
