//! `tidemark delete`.

use clap::Args;

use super::{
    client::Client,
    each::for_each,
    error::CommandError,
    names::todo_name,
    output::{note, print, print_reply},
};
use crate::{pb, text::escape};

/// The arguments of `delete`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tidemark delete lists/home/todos/milk\n  tidemark delete home/milk home/bread\n\n\
It goes on after a todo that cannot be deleted, and ends with exit code 1."
)]
pub struct Delete {
    /// The todos: home/milk, or lists/home/todos/milk
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Delete it only if its etag is this one; for one todo
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    /// Succeed if there is none
    #[arg(long)]
    allow_missing: bool,
    #[command(flatten)]
    client: Client,
}

/// Deletes todos, one after the other, and prints those that it deleted.
pub async fn run(args: Delete) -> Result<(), CommandError> {
    if !args.etag.is_empty() && args.names.len() > 1 {
        return Err(CommandError::Usage(
            "--etag is that of one todo: delete one at a time with it".into(),
        ));
    }
    let service = args.client.server.connect().await?;
    let outcome = for_each(&args.names, "were not deleted", async |name| {
        let name = todo_name(name);
        let request = pb::DeleteTodoRequest {
            name: name.clone(),
            etag: args.etag.clone(),
            allow_missing: args.allow_missing,
        };
        let request = args.client.server.request(request);
        let reply = service.clone().delete_todo(request).await?;
        Ok((name, reply.into_inner()))
    })
    .await;
    let mut token = None;
    for (name, reply) in &outcome.replies {
        let message = "todo.v1.DeleteTodoResponse";
        if !print_reply(args.client.format.output, message, reply, &[name])? {
            print(&format!("deleted {}", escape(name)));
            token = Some(&reply.token);
        }
    }
    if let Some(token) = token {
        note(&format!("token {token}"));
    }
    outcome.result
}
