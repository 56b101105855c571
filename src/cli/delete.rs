//! `tidemark delete`.

use clap::Args;

use super::{
    client::Client,
    error::CommandError,
    names::todo_name,
    output::{note, print, print_reply},
};
use crate::{pb, text::escape};

/// The arguments of `delete`.
#[derive(Args)]
#[command(after_help = "Example:\n  tidemark delete lists/home/todos/milk")]
pub struct Delete {
    /// The todo: lists/home/todos/milk, or home/milk
    name: String,
    /// Delete it only if its etag is this one
    #[arg(long, default_value = "")]
    etag: String,
    /// Succeed if there is none
    #[arg(long)]
    allow_missing: bool,
    #[command(flatten)]
    client: Client,
}

/// Deletes a todo.
pub async fn run(args: Delete) -> Result<(), CommandError> {
    let mut service = args.client.server.connect().await?;
    let name = todo_name(&args.name);
    let request = pb::DeleteTodoRequest {
        name: name.clone(),
        etag: args.etag,
        allow_missing: args.allow_missing,
    };
    let request = args.client.server.request(request);
    let reply = service.delete_todo(request).await?.into_inner();
    let message = "todo.v1.DeleteTodoResponse";
    if !print_reply(args.client.format.output, message, &reply, &[&name])? {
        print(&format!("deleted {}", escape(&name)));
        note(&format!("token {}", reply.token));
    }
    Ok(())
}
