//! `tidemark watch`: prints changes as they come, and resumes by itself.

use std::{future::Future, io::IsTerminal as _, time::Duration};

use clap::Args;
use tokio::signal::unix;
use tonic::{Code, Request, Status};

use super::{
    client::Client,
    error::{CommandError, causes, is_of_the_scheme},
    names::{list_name, todo_name},
    output::{Colour, Output, json, note, paint, summary, try_print},
    yaml::to_yaml,
};
use crate::{
    backoff::Backoff,
    pb::{self, todo_change::Kind, watch_todos_request::Start, watch_todos_response::Event},
    text::escape,
};

/// Pauses before a lost watch is begun again.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The arguments of `watch`.
#[derive(Args)]
#[command(
    after_help = "Connection state and the token to resume with are on stderr.\n\nExamples:\n  \
tidemark watch lists/home --include-todo\n  tidemark watch - -o json"
)]
pub struct Watch {
    /// The list: lists/home, or home; lists/- or - for all lists
    #[arg(value_name = "LIST")]
    parent: String,
    /// Only this todo; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Begin where the reply with this token ends; else now
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
    /// Show the todo with its change
    #[arg(long)]
    include_todo: bool,
    /// Print the progress of the stream, too
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    client: Client,
}

/// Watches until SIGINT or SIGTERM, until the reader of stdout has gone, or until
/// the service refuses. Then it prints the token to resume with.
pub async fn run(mut args: Watch) -> Result<(), CommandError> {
    args.parent = list_name(&args.parent);
    args.names = args.names.iter().map(|name| todo_name(name)).collect();
    let given = args.after.clone();
    let mut ended = std::pin::pin!(termination());
    let result = tokio::select! {
        result = follow(&mut args) => result,
        () = &mut ended => {
            if std::io::stderr().is_terminal() {
                // The terminal shows `^C` where the cursor was.
                note("");
            }
            Ok(())
        }
    };
    // Not the token that was given: the service may have refused it.
    if let Some(token) = args.after.filter(|token| Some(token) != given.as_ref()) {
        note(&format!("resume with --after {token}"));
    }
    result
}

/// Completes at SIGINT and SIGTERM.
pub(super) fn termination() -> impl Future<Output = ()> {
    let signal = |kind| unix::signal(kind);
    let both = signal(unix::SignalKind::interrupt()).and_then(|interrupt| {
        signal(unix::SignalKind::terminate()).map(|terminate| (interrupt, terminate))
    });
    async move {
        // Without handlers the signals end the process, as ever.
        let Ok((mut interrupt, mut terminate)) = both else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Watches, and begins again after each loss of the connection.
async fn follow(args: &mut Watch) -> Result<(), CommandError> {
    let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
    loop {
        let before = args.after.clone();
        match follow_once(args).await {
            Ok(Ended::Unread) => return Ok(()),
            Ok(Ended::ByServer) => note("the server ended the watch; reconnecting"),
            Err(CommandError::Status(status)) if !is_lasting(&status) => {
                let error = CommandError::Status(status).to_string();
                let first = error.lines().next().unwrap_or_default();
                note(&format!("the watch was lost: {first}; reconnecting"));
            }
            Err(CommandError::Other(problem)) if before.is_some() => {
                note(&format!("{problem}; reconnecting"));
            }
            Err(failed) => return Err(failed),
        }
        if args.after != before {
            backoff.reset();
        }
        backoff.wait().await;
    }
}

/// Whether trying again would be refused again.
fn is_lasting(status: &Status) -> bool {
    let is_of_the_scheme =
        std::error::Error::source(status).is_some_and(|cause| is_of_the_scheme(&causes(cause)));
    is_of_the_scheme
        || matches!(
            status.code(),
            Code::InvalidArgument
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated
        )
}

/// Why a stream ended without an error.
enum Ended {
    ByServer,
    /// Nobody reads stdout.
    Unread,
}

async fn follow_once(args: &mut Watch) -> Result<Ended, CommandError> {
    let mut service = args.client.server.connect().await?;
    let request = pb::WatchTodosRequest {
        parent: args.parent.clone(),
        names: args.names.clone(),
        include_todo: args.include_todo,
        progress_interval: None,
        start: args.after.clone().map(Start::After),
    };
    let mut stream = service
        .watch_todos(Request::new(request))
        .await?
        .into_inner();
    let mut is_first = true;
    while let Some(message) = stream.message().await? {
        if std::mem::take(&mut is_first) {
            note(&format!(
                "connected to {}, watching {} from token {}",
                escape(&args.client.server.address()),
                escape(&args.parent),
                message.token
            ));
        }
        let is_shown = args.progress || !matches!(message.event, Some(Event::Progress(_)) | None);
        if is_shown && !print_message(args.client.format.output, &message)? {
            return Ok(Ended::Unread);
        }
        args.after = Some(message.token);
    }
    Ok(Ended::ByServer)
}

/// `false`: the reader of stdout has gone.
fn print_message(output: Output, message: &pb::WatchTodosResponse) -> Result<bool, CommandError> {
    let text = match output {
        Output::Json => json("todo.v1.WatchTodosResponse", message)?,
        Output::Yaml => {
            let json = json("todo.v1.WatchTodosResponse", message)?;
            let value = serde_json::from_str(&json)
                .map_err(|e| CommandError::Other(format!("the message is not JSON: {e}")))?;
            format!("---\n{}", to_yaml(&value).trim_end())
        }
        Output::Name => match &message.event {
            Some(Event::Change(change)) => escape(&change.name),
            _ => return Ok(true),
        },
        Output::Table => line(message),
    };
    try_print(&text)
}

fn line(message: &pb::WatchTodosResponse) -> String {
    match &message.event {
        Some(Event::Change(change)) => {
            let kind = match change.kind() {
                Kind::Created => paint("created", Colour::Green),
                Kind::Deleted => paint("deleted", Colour::Red),
                Kind::Updated | Kind::Unspecified => paint("updated", Colour::Yellow),
            };
            let time = change
                .commit_time
                .map(|time| paint(&time.to_string(), Colour::Dim) + " ")
                .unwrap_or_default();
            let todo = change
                .todo
                .as_ref()
                .map(|todo| format!("  {}", summary(todo)))
                .unwrap_or_default();
            format!("{time}{kind} {}{todo}", escape(&change.name))
        }
        Some(Event::Progress(_)) | None => format!("nothing missed up to token {}", message.token),
        Some(Event::Reset(reset)) => {
            format!("read everything again: {}", escape(&reset.reason))
        }
    }
}
