//! TLS round the connections of callers. The framework cannot read changed
//! files while it runs, so connections are accepted here.
//!
//! A handshake is a task of its own, bounded in time and number: a caller that
//! is slow, or never says anything, keeps nobody else from being accepted.

use std::{io, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    telemetry::{Kind, Metrics},
    tls::{ServerFiles, ServerPem},
};

/// Time for a handshake: it takes two round trips and a millisecond of
/// arithmetic.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at once, each some 40 KiB; a connection beyond them is
/// closed at once.
const MAX_HANDSHAKES: usize = 1024;
/// Connections that wait for the server to take them.
const MAX_ACCEPTED: usize = 64;
/// Pause after an accept that failed: it does so when file descriptors are
/// short, and would again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the files are looked at. By their contents, not by their times:
/// three small reads, and right however they are put into place.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What connections are served by, and the files that it follows.
pub struct Tls {
    files: ServerFiles,
    protocols: &'static [&'static [u8]],
    pem: ServerPem,
    current: watch::Sender<Arc<ServerConfig>>,
}

/// A connection after its handshake.
pub type Accepted = io::Result<TlsStream<TcpStream>>;

impl Tls {
    /// Reads the files. `http1`: HTTP/1.1 is spoken, too.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(files: ServerFiles, http1: bool) -> Result<Self, String> {
        let protocols: &[&[u8]] = if http1 {
            &[b"h2", b"http/1.1"]
        } else {
            &[b"h2"]
        };
        let pem = files.read()?;
        let current = watch::Sender::new(Arc::new(pem.config(protocols)?));
        Ok(Self {
            files,
            protocols,
            pem,
            current,
        })
    }

    /// The connections of a listener until `shutdown`.
    pub fn incoming(
        self,
        listener: TcpListener,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> impl Stream<Item = Accepted> {
        let (ready, accepted) = mpsc::channel(MAX_ACCEPTED);
        let accepting = accept(
            listener,
            self.current.subscribe(),
            ready,
            Arc::clone(&metrics),
        );
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(accepting));
        tokio::spawn(
            shutdown.run_until_cancelled_owned(async move { self.follow(&metrics).await }),
        );
        ReceiverStream::new(accepted)
    }

    /// Takes changed files for the connections that come. What is broken is
    /// told once, and what was there before stays in force.
    async fn follow(self, metrics: &Metrics) {
        let Self {
            files,
            protocols,
            pem,
            current,
        } = self;
        let mut tried = Ok(pem);
        loop {
            sleep(LOOK_INTERVAL).await;
            let looked_at = files.clone();
            let Ok(now) = spawn_blocking(move || looked_at.read()).await else {
                continue;
            };
            if now == tried {
                continue;
            }
            let config = now
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|pem| pem.config(protocols));
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

async fn accept(
    listener: TcpListener,
    current: watch::Receiver<Arc<ServerConfig>>,
    ready: mpsc::Sender<Accepted>,
    metrics: Arc<Metrics>,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(problem) => {
                tracing::warn!(%problem, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            metrics
                .tls_handshakes
                .get_or_create(&Kind { kind: "refused" })
                .inc();
            continue;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&current.borrow()));
        let (ready, metrics) = (ready.clone(), Arc::clone(&metrics));
        tokio::spawn(async move {
            shake_hands(acceptor, stream, &ready, &metrics).await;
            drop(permit);
        });
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    ready: &mpsc::Sender<Accepted>,
    metrics: &Metrics,
) {
    // Without it, it is only slower.
    let _ = stream.set_nodelay(true);
    let outcome = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // Nobody takes it any more: the server is ending.
            let _ = ready.send(Ok(stream)).await;
            "done"
        }
        Ok(Err(problem)) => {
            tracing::debug!(%problem, "a TLS handshake failed");
            "failed"
        }
        Err(_) => "slow",
    };
    metrics
        .tls_handshakes
        .get_or_create(&Kind { kind: outcome })
        .inc();
}
