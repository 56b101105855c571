//! `tidemark watch`: prints changes as they come, and resumes by itself.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;
use tonic::{Code, Request, Status};

use super::client::{Failed, Output, Server, json, print, row};
use crate::pb::{self, todo_change::Kind, watch_todos_request::Start, watch_todos_response::Event};

/// First pause before a lost watch is begun again; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The arguments of `watch`.
#[derive(Args)]
#[command(after_help = "Example:\n  tidemark watch lists/home --include-todo")]
pub struct Watch {
    /// The list, as in lists/home, or lists/- for all
    parent: String,
    /// Only this todo; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Begin where the answer with this token ends; else now
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
    /// Show the todo with its change
    #[arg(long)]
    include_todo: bool,
    /// Print where the stream stands, too
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    server: Server,
}

/// Watches until it is told to end, or the service refuses.
pub async fn run(mut args: Watch) -> Result<(), Failed> {
    let mut pause = PAUSE;
    loop {
        let before = args.after.clone();
        match once(&mut args).await {
            Err(Failed::Status(status)) if !is_lasting(&status) => {
                eprintln!("the watch was lost ({}); it goes on", status.message());
            }
            Err(Failed::Other(problem)) if before.is_some() => eprintln!("{problem}"),
            Err(failed) => return Err(failed),
            Ok(()) => eprintln!("the server ended the watch; it goes on"),
        }
        if args.after != before {
            pause = PAUSE;
        }
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Trying again would be refused again.
fn is_lasting(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}

async fn once(args: &mut Watch) -> Result<(), Failed> {
    let mut client = args.server.connect().await?;
    let request = pb::WatchTodosRequest {
        parent: args.parent.clone(),
        names: args.names.clone(),
        include_todo: args.include_todo,
        progress_interval: None,
        start: args.after.clone().map(Start::After),
    };
    let mut stream = client
        .watch_todos(Request::new(request))
        .await?
        .into_inner();
    while let Some(message) = stream.message().await? {
        let shown = args.progress || !matches!(message.event, Some(Event::Progress(_)));
        if shown {
            match args.server.output {
                Output::Json => print(&json("todo.v1.WatchTodosResponse", &message)?),
                Output::Table => print(&line(&message)),
            }
        }
        args.after = Some(message.token);
    }
    Ok(())
}

fn line(message: &pb::WatchTodosResponse) -> String {
    match &message.event {
        Some(Event::Change(change)) => {
            let kind = match change.kind() {
                Kind::Created => "created",
                Kind::Deleted => "deleted",
                Kind::Updated | Kind::Unspecified => "updated",
            };
            let todo = change
                .todo
                .as_ref()
                .map(|todo| format!("\n    {}", row(todo)))
                .unwrap_or_default();
            format!("{kind} {}{todo}", change.name)
        }
        Some(Event::Progress(_)) | None => format!("nothing missed up to token {}", message.token),
        Some(Event::Reset(reset)) => format!("read everything anew: {}", reset.reason),
    }
}
