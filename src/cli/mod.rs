//! The command line: one file a command.

mod check;
mod client;
mod create;
mod credential;
mod delete;
mod each;
mod error;
mod fields;
mod generate;
mod get;
pub(crate) mod import;
mod key;
mod list;
mod lists;
mod man;
mod names;
mod openapi;
pub(crate) mod output;
mod serve;
mod status;
mod update;
mod watch;
mod yaml;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};

use error::exit;

use crate::config;

const AFTER_HELP: &str = "Examples:
  tidemark serve                        run a service with an embedded store, on port 50051
  tidemark add home Buy milk            create a todo in the list lists/home
  tidemark list home                    read the list
  tidemark lists                        show the lists
  tidemark share home bob --role writer let another caller write to the list
  tidemark done home/milk               complete the todo lists/home/todos/milk
  tidemark watch home                   print changes as they happen
  tidemark status                       show the health of the service
  tidemark check --mongodb-uri ...      test MongoDB and Redis
  tidemark man | man -l -               the whole manual

Exit codes: 0 done, 1 failed, 2 wrong arguments or settings.";

/// Todo service with two caches; every response states how stale it can be.
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
    /// Test MongoDB and Redis as `serve` uses them, with advice on each problem
    Check(check::Check),
    /// Import todos from JSON, into the store or through a running service
    Import(import::Import),
    /// Generate sample todos as JSON lines; the same output every time
    Generate(generate::Generate),
    /// Read todos by name
    Get(get::Get),
    /// Read the todos of a list; or create, show or delete a list
    List(list::List),
    /// Show the lists that you can read
    Lists(lists::Lists),
    /// Give a member a role on a list
    Share(lists::Share),
    /// Remove a member from a list
    Unshare(lists::Unshare),
    /// Create a todo from a list and a title
    Add(create::Add),
    /// Create a todo
    Create(create::Create),
    /// Change a todo
    Update(update::Update),
    /// Complete todos
    Done(update::Done),
    /// Delete todos
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    /// Print changes as they happen
    Watch(watch::Watch),
    /// Show the health of a service, its lag and its cache hits
    Status(status::Status),
    /// Make API keys for `serve --auth keys`
    Key(key::Key),
    /// Print the calls in JSON as an OpenAPI document
    #[command(after_help = "Example:\n  tidemark openapi > openapi.json")]
    Openapi,
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  tidemark completions bash > ~/.local/share/bash-completion/completions/tidemark"
    )]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(ignore_case = true)]
        shell: clap_complete::Shell,
    },
    /// Wait: the preStop hook of an image that has no `sleep`
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
    let command = Cli::parse().command;
    if command.is_client() {
        warn_of_unknown_variables();
    }
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Generate(args) => exit(generate::run(&args)),
        Command::Get(args) => exit(get::run(args).await),
        Command::List(args) => exit(list::run(args).await),
        Command::Lists(args) => exit(lists::lists(args).await),
        Command::Share(args) => exit(lists::share(args).await),
        Command::Unshare(args) => exit(lists::unshare(args).await),
        Command::Add(args) => exit(create::add(args).await),
        Command::Create(args) => exit(create::create(args).await),
        Command::Update(args) => exit(update::update(args).await),
        Command::Done(args) => exit(update::done(args).await),
        Command::Delete(args) => exit(delete::run(args).await),
        Command::Watch(args) => exit(watch::run(args).await),
        Command::Status(args) => exit(status::run(args).await),
        Command::Key(args) => exit(key::run(&args)),
        Command::Openapi => exit(openapi::run()),
        Command::Completions { shell } => {
            // Into memory: the generator panics when stdout is closed or full.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidemark", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end());
            ExitCode::SUCCESS
        }
        Command::Pause { time } => {
            tokio::time::sleep(time).await;
            ExitCode::SUCCESS
        }
        Command::Man => exit(man::run(Cli::command())),
    }
}

impl Command {
    /// Whether it calls a service. `serve` and `import` refuse unknown variables
    /// themselves; the others read none.
    const fn is_client(&self) -> bool {
        matches!(
            self,
            Self::Get(_)
                | Self::List(_)
                | Self::Lists(_)
                | Self::Share(_)
                | Self::Unshare(_)
                | Self::Add(_)
                | Self::Create(_)
                | Self::Update(_)
                | Self::Done(_)
                | Self::Delete(_)
                | Self::Watch(_)
                | Self::Status(_)
        )
    }
}

fn warn_of_unknown_variables() {
    let variables = config::environment().unwrap_or_default();
    for problem in config::unknown_variables(variables.keys()) {
        output::note(&format!("warning: {problem}"));
    }
}
