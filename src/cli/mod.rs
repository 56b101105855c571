//! The command line: one file a command.

pub(crate) mod client;
mod create;
mod delete;
mod fields;
mod generate;
mod get;
pub(crate) mod import;
mod list;
mod man;
mod serve;
mod update;
mod watch;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};

use client::exit;

const AFTER_HELP: &str = "Examples:
  tidemark serve                                   a service with a store of its own, on port 50051
  tidemark create lists/home --title 'Buy milk'    write a todo
  tidemark list lists/home                         read them
  tidemark watch lists/home                        see changes as they come
  tidemark man | man -l -                          the whole manual

Exit codes: 0 done, 1 failed, 2 wrong arguments or settings.";

/// Todos, read through two caches, with every answer saying how fresh it is.
#[derive(Parser)]
#[command(name = "tidemark", version, about, propagate_version = true, after_help = AFTER_HELP)]
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
    Get(get::Get),
    /// Read the todos of a list
    List(list::List),
    /// Create a todo
    Create(create::Create),
    /// Change a todo
    Update(update::Update),
    /// Delete a todo
    Delete(delete::Delete),
    /// Print changes as they come
    Watch(watch::Watch),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  tidemark completions bash > ~/.local/share/bash-completion/completions/tidemark"
    )]
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
    /// Print the man page
    #[command(
        after_help = "Examples:\n  tidemark man | man -l -\n  tidemark man > /usr/local/share/man/man1/tidemark.1"
    )]
    Man,
}

/// Runs the command that the arguments name. Exit codes: 0 done, 1 failed, 2
/// wrong arguments or settings.
pub async fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Generate(args) => exit(generate::run(&args)),
        Command::Get(args) => exit(get::run(args).await),
        Command::List(args) => exit(list::run(args).await),
        Command::Create(args) => exit(create::run(args).await),
        Command::Update(args) => exit(update::run(args).await),
        Command::Delete(args) => exit(delete::run(args).await),
        Command::Watch(args) => exit(watch::run(args).await),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "tidemark",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
        Command::Pause { time } => {
            tokio::time::sleep(time).await;
            ExitCode::SUCCESS
        }
        Command::Man => exit(man::run(Cli::command())),
    }
}
