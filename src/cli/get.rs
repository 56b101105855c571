//! `tidemark get`.

use clap::Args;

use super::{
    client::{Client, Consistency},
    error::CommandError,
    names::todo_name,
    output::{note_freshness, print_details, print_reply, print_todos},
};
use crate::pb;

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

/// Reads one todo with all its fields, or several as a table.
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
        print_todos(&reply.todos, &reply.missing, &reply.unreadable);
        note_freshness(reply.read.as_ref());
    }
    Ok(())
}
