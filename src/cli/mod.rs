//! The command line: one file a command.

pub(crate) mod client;
mod generate;
pub(crate) mod import;
mod read;
mod serve;
mod watch;
mod write;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};

use client::exit;
pub use serve::{Listening, banner};

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
    /// Read JSON lines straight into the database
    Import(import::Import),
    /// Write lifelike todos as JSON lines, the same every time
    Generate(generate::Generate),
    /// Read todos by name
    Get(read::Get),
    /// Read the todos of a list
    List(read::List),
    /// Create a todo
    Create(write::Create),
    /// Change a todo
    Update(write::Update),
    /// Delete a todo
    Delete(write::Delete),
    /// Print changes as they come
    Watch(watch::Watch),
    /// Print completions for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Do nothing for a while: the preStop hook of an image that has no `sleep`
    #[command(hide = true)]
    Pause {
        /// How long, such as 5s
        #[arg(value_parser = humantime::parse_duration)]
        time: Duration,
    },
}

/// Runs the command that the arguments name. Exit codes: 0 done, 1 failed, 2
/// wrong arguments or settings.
pub async fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Generate(args) => exit(generate::run(&args)),
        Command::Get(args) => exit(read::get(args).await),
        Command::List(args) => exit(read::list(args).await),
        Command::Create(args) => exit(write::create(args).await),
        Command::Update(args) => exit(write::update(args).await),
        Command::Delete(args) => exit(write::delete(args).await),
        Command::Watch(args) => exit(watch::run(args).await),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidemark", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Pause { time } => {
            tokio::time::sleep(time).await;
            ExitCode::SUCCESS
        }
    }
}
