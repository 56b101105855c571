//! `tidemark create` and `tidemark add`.

use clap::Args;

use super::{
    client::Client, error::CommandError, fields::Fields, names::list_name, output::print_written,
};
use crate::pb;

/// The arguments of `create`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tidemark create lists/home --id milk --title 'Buy milk' --priority high"
)]
pub struct Create {
    /// The list: lists/home, or home
    #[arg(value_name = "LIST")]
    parent: String,
    /// Last part of the name; generated if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// A UUID: a repeated call with it writes nothing
    #[arg(long, default_value = "", hide_default_value = true)]
    request_id: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    client: Client,
}

/// The arguments of `add`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tidemark add home Buy milk\n  tidemark add home 'Call the dentist' --due 2026-12-01 --priority high"
)]
pub struct Add {
    /// The list: home, or lists/home
    #[arg(value_name = "LIST")]
    parent: String,
    /// What is to be done; several words are joined
    #[arg(value_name = "TITLE", required = true)]
    words: Vec<String>,
    /// Last part of the name; generated if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// More about it
    #[arg(long)]
    notes: Option<String>,
    #[command(flatten)]
    more: More,
    #[command(flatten)]
    client: Client,
}

/// The fields that `add` takes as flags.
#[derive(Args)]
struct More {
    /// low, normal, high or urgent
    #[arg(long, value_parser = super::fields::priority)]
    priority: Option<pb::todo::Priority>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// When it is due: 2026-12-01 or 2026-12-01T18:00:00Z
    #[arg(long = "due", value_name = "TIME", value_parser = super::fields::due)]
    due_time: Option<super::fields::Due>,
}

/// Creates a todo.
pub async fn create(args: Create) -> Result<(), CommandError> {
    let request = pb::CreateTodoRequest {
        parent: list_name(&args.parent),
        todo: Some(args.fields.todo()),
        todo_id: args.id,
        request_id: args.request_id,
    };
    send(&args.client, request).await
}

/// Creates a todo with a title.
pub async fn add(args: Add) -> Result<(), CommandError> {
    let fields = Fields {
        title: Some(args.words.join(" ")),
        notes: args.notes,
        state: None,
        priority: args.more.priority,
        labels: args.more.labels,
        due_time: args.more.due_time,
    };
    let request = pb::CreateTodoRequest {
        parent: list_name(&args.parent),
        todo: Some(fields.todo()),
        todo_id: args.id,
        request_id: String::new(),
    };
    let sent = send(&args.client, request).await;
    sent.map_err(|error| match error {
        // The title has no flag here.
        CommandError::Status(_) => {
            CommandError::Other(error.to_string().replace("--title ", "TITLE "))
        }
        error => error,
    })
}

async fn send(client: &Client, request: pb::CreateTodoRequest) -> Result<(), CommandError> {
    let mut service = client.server.connect().await?;
    let request = client.server.request(request);
    let reply = service.create_todo(request).await?.into_inner();
    print_written(
        client.format.output,
        "todo.v1.CreateTodoResponse",
        &reply,
        reply.todo.as_ref(),
        &reply.token,
    )
}
