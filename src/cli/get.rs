//! `tidemark get`.

use clap::Args;

use super::{
    client::{Client, Consistency},
    error::CommandError,
    names::{short_name, todo_name},
    output::{note_freshness, print_details, print_reply, print_todos},
};
use crate::{pb, text::escape};

/// The arguments of `get`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tidemark get lists/home/todos/milk --consistency fully_consistent\n  tidemark get home/milk home/bread -o json"
)]
pub struct Get {
    /// Names of todos: lists/home/todos/milk, or home/milk
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    client: Client,
}

/// Reads one todo with all its fields, or several as a table. Fails if one of several
/// was not found, after it printed the others.
pub async fn run(args: Get) -> Result<(), CommandError> {
    let (server, output) = (&args.client.server, args.client.format.output);
    let consistency = args.consistency.message();
    let names: Vec<_> = args.names.iter().map(|name| todo_name(name)).collect();
    let mut service = server.connect().await?;
    if let [name] = names.as_slice() {
        let request = pb::GetTodoRequest {
            name: name.clone(),
            consistency,
        };
        let reply = service
            .get_todo(server.request(request))
            .await?
            .into_inner();
        if !print_reply(output, "todo.v1.GetTodoResponse", &reply, &[name])? {
            reply.todo.iter().for_each(print_details);
            note_freshness(reply.read.as_ref());
        }
        return Ok(());
    }
    let request = pb::BatchGetTodosRequest { names, consistency };
    let request = server.request(request);
    let reply = service.batch_get_todos(request).await?.into_inner();
    let found: Vec<_> = reply.todos.iter().map(|todo| todo.name.as_str()).collect();
    if !print_reply(output, "todo.v1.BatchGetTodosResponse", &reply, &found)? {
        print_todos(&reply.todos, &[]);
        note_freshness(reply.read.as_ref());
    }
    all_read(&reply)
}

/// A script that asked for several todos must not go on as if it had them all.
fn all_read(reply: &pb::BatchGetTodosResponse) -> Result<(), CommandError> {
    let missing = reply.missing.iter().map(|name| (name, "does not exist"));
    let unreadable = reply.unreadable.iter().map(|name| (name, "cannot be read"));
    let failed: Vec<_> = missing
        .chain(unreadable)
        .map(|(name, problem)| format!("  {}: {problem}", escape(&short_name(name))))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let (count, all) = (failed.len(), failed.len() + reply.todos.len());
    let lines = failed.join("\n");
    let text = format!("{count} of {all} todos were not read\n{lines}");
    Err(CommandError::Other(text))
}
