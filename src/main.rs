//! The life of the process: arguments -> settings -> telemetry -> command ->
//! exit code.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tidemark::cli::run().await
}
