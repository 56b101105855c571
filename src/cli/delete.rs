//! `tidemark delete`.

use clap::Args;

use super::{
    client::{Failed, Server, json},
    fields::print_written,
};
use crate::pb;

/// The arguments of `delete`.
#[derive(Args)]
#[command(after_help = "Example:\n  tidemark delete lists/home/todos/milk")]
pub struct Delete {
    /// The todo, as in lists/home/todos/milk
    name: String,
    /// Delete it only if this still fits
    #[arg(long, default_value = "")]
    etag: String,
    /// Succeed if there is none
    #[arg(long)]
    allow_missing: bool,
    #[command(flatten)]
    server: Server,
}

/// Deletes a todo.
pub async fn run(args: Delete) -> Result<(), Failed> {
    let mut client = args.server.connect().await?;
    let request = pb::DeleteTodoRequest {
        name: args.name,
        etag: args.etag,
        allow_missing: args.allow_missing,
    };
    let reply = client
        .delete_todo(args.server.request(request))
        .await?
        .into_inner();
    let json = json("todo.v1.DeleteTodoResponse", &reply)?;
    print_written(args.server.output, json, None, &reply.token);
    Ok(())
}
