//! `tidemark update`.

use clap::Args;

use super::{
    client::{Failed, Server, json},
    fields::{Fields, print_written},
};
use crate::pb;

/// The arguments of `update`.
#[derive(Args)]
#[command(after_help = "Example:\n  tidemark update lists/home/todos/milk --state completed")]
pub struct Update {
    /// The todo, as in lists/home/todos/milk
    name: String,
    /// Change it only if this still fits
    #[arg(long, default_value = "")]
    etag: String,
    /// Create it if there is none
    #[arg(long)]
    allow_missing: bool,
    /// A UUID: the same one again writes nothing
    #[arg(long, default_value = "")]
    request_id: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    server: Server,
}

/// Changes a todo.
pub async fn run(args: Update) -> Result<(), Failed> {
    let mut client = args.server.connect().await?;
    let mask = args.fields.mask();
    if mask.paths.is_empty() && !args.allow_missing {
        return Err(Failed::Usage(
            "nothing to change: give at least one of --title, --notes, --state, --priority, --label, --due"
                .into(),
        ));
    }
    let request = pb::UpdateTodoRequest {
        todo: Some(pb::Todo {
            name: args.name,
            etag: args.etag,
            ..args.fields.todo()
        }),
        update_mask: Some(mask),
        allow_missing: args.allow_missing,
        request_id: args.request_id,
    };
    let reply = client
        .update_todo(args.server.request(request))
        .await?
        .into_inner();
    let json = json("todo.v1.UpdateTodoResponse", &reply)?;
    print_written(args.server.output, json, reply.todo.as_ref(), &reply.token);
    Ok(())
}
