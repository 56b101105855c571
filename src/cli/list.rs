//! `tidemark list`.

use clap::Args;

use super::client::{Consistency, Failed, Output, Server, freshness, json, print, row};
use crate::pb;

/// The arguments of `list`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tidemark list lists/home --filter 'state = ACTIVE AND priority >= HIGH' --order-by due_time"
)]
pub struct List {
    /// The list, as in lists/home
    parent: String,
    /// Comparisons joined by AND
    #[arg(long, default_value = "")]
    filter: String,
    /// create_time desc, create_time, due_time or priority desc
    #[arg(long, default_value = "")]
    order_by: String,
    /// Todos of a page, up to 1000
    #[arg(long, default_value_t = 0)]
    page_size: i32,
    /// Begin at this page
    #[arg(long, default_value = "")]
    page_token: String,
    /// All pages, one after the other
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    server: Server,
}

/// Reads a page, or all of them.
pub async fn run(args: List) -> Result<(), Failed> {
    let server = &args.server;
    let mut client = server.connect().await?;
    let mut page_token = args.page_token;
    loop {
        let request = pb::ListTodosRequest {
            parent: args.parent.clone(),
            page_size: args.page_size,
            page_token,
            filter: args.filter.clone(),
            order_by: args.order_by.clone(),
            consistency: args.consistency.message(),
        };
        let reply = client
            .list_todos(server.request(request))
            .await?
            .into_inner();
        if server.output == Output::Json {
            print(&json("todo.v1.ListTodosResponse", &reply)?);
        } else {
            reply.todos.iter().for_each(|todo| print(&row(todo)));
            reply
                .unreadable
                .iter()
                .for_each(|name| print(&format!("    {name}  cannot be read")));
            print(&freshness(reply.read.as_ref()));
        }
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
        if !args.all {
            if server.output == Output::Table {
                print(&format!("more: --page-token {page_token}"));
            }
            return Ok(());
        }
    }
}
