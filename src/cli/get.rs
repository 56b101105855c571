//! `tidemark get`.

use clap::Args;

use super::client::{Consistency, Failed, Output, Server, freshness, json, print, row};
use crate::pb;

/// The arguments of `get`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tidemark get lists/home/todos/milk --consistency fully_consistent"
)]
pub struct Get {
    /// Names of todos, as in lists/home/todos/milk
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    server: Server,
}

/// Reads one or several todos.
pub async fn run(args: Get) -> Result<(), Failed> {
    let (server, consistency) = (&args.server, args.consistency.message());
    let mut client = server.connect().await?;
    if let [name] = args.names.as_slice() {
        let request = pb::GetTodoRequest {
            name: name.clone(),
            consistency,
        };
        let reply = client.get_todo(server.request(request)).await?.into_inner();
        if server.output == Output::Json {
            print(&json("todo.v1.GetTodoResponse", &reply)?);
        } else {
            reply.todo.iter().for_each(print_whole);
            print(&freshness(reply.read.as_ref()));
        }
        return Ok(());
    }
    let request = pb::BatchGetTodosRequest {
        names: args.names,
        consistency,
    };
    let reply = client
        .batch_get_todos(server.request(request))
        .await?
        .into_inner();
    if server.output == Output::Json {
        print(&json("todo.v1.BatchGetTodosResponse", &reply)?);
        return Ok(());
    }
    reply.todos.iter().for_each(|todo| print(&row(todo)));
    reply
        .missing
        .iter()
        .for_each(|name| print(&format!("    {name}  does not exist")));
    reply
        .unreadable
        .iter()
        .for_each(|name| print(&format!("    {name}  cannot be read")));
    print(&freshness(reply.read.as_ref()));
    Ok(())
}

/// One todo with everything in it.
pub fn print_whole(todo: &pb::Todo) {
    print(&row(todo));
    if !todo.notes.is_empty() {
        print(&format!("    {}", todo.notes.replace('\n', "\n    ")));
    }
    print(&format!("    etag {}", todo.etag));
}
