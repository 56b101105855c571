//! What the service sets for its whole process: signals, panics, open files.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::telemetry::Metrics;

/// Completes at SIGTERM or SIGINT. Registered when called, so that a signal during
/// the start is not lost to the default action, which ends the process without a drain.
pub(super) fn shutdown_signal() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async move {
        let (Ok(mut term), Ok(mut int)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

/// Logs and counts every panic. The task that waits for a panicked one decides
/// whether the service can continue without it.
pub(super) fn install_panic_hook(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or_default();
        tracing::error!(location, text, "a panic: this is a bug of the service");
    }));
}

/// Raises the limit of open files to the maximum that the system allows: each client
/// takes one, and shells often start programs with 1024.
pub(super) fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(problem) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%problem, "the limit of open files stays as it is");
    }
}
