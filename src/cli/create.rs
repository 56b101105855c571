//! `tidemark create`.

use clap::Args;

use super::{
    client::{Failed, Server, json},
    fields::{Fields, print_written},
};
use crate::pb;

/// The arguments of `create`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tidemark create lists/home --id milk --title 'Buy milk' --priority high"
)]
pub struct Create {
    /// The list, as in lists/home
    parent: String,
    /// Last part of the name; generated if not given
    #[arg(long, default_value = "")]
    id: String,
    /// A UUID: the same one again writes nothing
    #[arg(long, default_value = "")]
    request_id: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    server: Server,
}

/// Creates a todo.
pub async fn run(args: Create) -> Result<(), Failed> {
    let mut client = args.server.connect().await?;
    let request = pb::CreateTodoRequest {
        parent: args.parent,
        todo: Some(args.fields.todo()),
        todo_id: args.id,
        request_id: args.request_id,
    };
    let reply = client
        .create_todo(args.server.request(request))
        .await?
        .into_inner();
    let json = json("todo.v1.CreateTodoResponse", &reply)?;
    print_written(args.server.output, json, reply.todo.as_ref(), &reply.token);
    Ok(())
}
