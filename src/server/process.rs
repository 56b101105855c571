//! What the service sets for its whole process: signals, panics, open files.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::telemetry::Metrics;

/// Completes at SIGTERM, SIGINT or SIGHUP, with its name. Registered when called, so that
/// a signal during the start is not lost to the default action, which ends the process
/// without a drain.
///
/// SIGHUP means that the terminal was closed. Under `nohup` it is ignored when the process
/// starts, and stays so: a handler would end a service that was to outlive its terminal.
pub(super) fn shutdown_signal() -> impl Future<Output = &'static str> {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup()).ok());
    async move {
        let (Ok(mut term), Ok(mut int)) = signals else {
            return std::future::pending().await;
        };
        let hangup = async {
            match hangup.flatten() {
                Some(mut hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether this process started with SIGHUP ignored. Where the system does not say, it
/// counts as ignored: then no handler is registered, and the action stays what it was.
fn is_hangup_ignored() -> bool {
    /// Signal 1.
    const SIGHUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & SIGHUP_BIT != 0)
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
