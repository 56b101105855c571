//! The command line: one file a command.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use serve::banner;

/// Todos, read through two caches, with every answer saying how fresh it is.
#[derive(Parser)]
#[command(name = "tidemark", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Args),
}

/// Runs the command that the arguments name. Exit codes: 0 done, 1 failed, 2
/// wrong arguments or settings.
pub async fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
    }
}
