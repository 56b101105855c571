//! The life of the process: arguments -> settings -> telemetry -> command ->
//! exit code.

use std::process::ExitCode;

/// A call makes some 30 small allocations; docs/adr/0013-mimalloc.md has what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks that run before the runtime looks at its connections again. Tokio's default is 61:
/// with a full queue, a request would wait some milliseconds before it is seen. Looking
/// takes less than a microsecond, a task ten.
const EVENT_INTERVAL: u32 = 16;

fn main() -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()?;
    let code = runtime.block_on(tidemark::cli::run());
    // All that matters is done and on disk. Tearing the runtime down would drop
    // the tasks of the mongodb driver in any order, and one that still tells the
    // server which sessions ended panics then.
    std::mem::forget(runtime);
    Ok(code)
}
