//! The life of the process: arguments -> settings -> telemetry -> command ->
//! exit code.

use std::process::ExitCode;

/// A call makes some 30 small allocations; docs/adr/0013-mimalloc.md has what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(tidemark::cli::run());
    // All that matters is done and on disk. Tearing the runtime down would drop
    // the tasks of the mongodb driver in any order, and one that still tells the
    // server which sessions ended panics then.
    std::mem::forget(runtime);
    Ok(code)
}
