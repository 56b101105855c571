//! `tidemark list`.

use clap::Args;

use super::{
    client::{Client, Consistency, Paging},
    error::CommandError,
    lists::{self, ListCommand},
    names::list_name,
    output::{note, note_freshness, print_reply, print_todos},
};
use crate::pb;

const AFTER_HELP: &str = "A filter is one or several comparisons, joined by AND:
  state = active            state != completed
  priority >= high          =, !=, <, <=, > and >=
  labels:\"home\"             has this label
  due_time < \"2026-12-01T00:00:00Z\"
States are active and completed; priorities are low, normal, high and urgent.

Orders: create_time desc (default), create_time, due_time, priority desc.

Examples:
  tidemark list home
  tidemark list lists/home --filter 'state = active AND priority >= high' --order-by due_time
  tidemark list home --all -o json > home.json";

/// The arguments of `list`.
#[derive(Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true, subcommand_value_name = "COMMAND")]
pub struct List {
    #[command(subcommand)]
    command: Option<ListCommand>,
    /// The list: lists/home, or home
    #[arg(value_name = "LIST", default_value = "", hide_default_value = true)]
    parent: String,
    /// Which todos, as in 'state = active AND priority >= high'; see below
    #[arg(long, short, default_value = "", hide_default_value = true)]
    filter: String,
    /// create_time desc, create_time, due_time or priority desc
    #[arg(long, default_value = "", hide_default_value = true)]
    order_by: String,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    client: Client,
}

/// Reads a page, or all of them.
pub async fn run(args: List) -> Result<(), CommandError> {
    if let Some(command) = args.command {
        return lists::list(command).await;
    }
    if args.parent.is_empty() {
        let advice = "the list is missing: `tidemark list home`; all lists: `tidemark lists`";
        return Err(CommandError::Usage(advice.into()));
    }
    let (server, output) = (&args.client.server, args.client.format.output);
    let mut service = server.connect().await?;
    let mut paging = args.paging;
    loop {
        let request = pb::ListTodosRequest {
            parent: list_name(&args.parent),
            page_size: paging.size,
            page_token: paging.token.clone(),
            filter: args.filter.clone(),
            order_by: args.order_by.clone(),
            consistency: args.consistency.message(),
        };
        let reply = service
            .list_todos(server.request(request))
            .await
            .map_err(|status| CommandError::of_query(status, &args.filter, &args.order_by))?
            .into_inner();
        let names: Vec<_> = reply.todos.iter().map(|todo| todo.name.as_str()).collect();
        if !print_reply(output, "todo.v1.ListTodosResponse", &reply, &names)? {
            if reply.todos.is_empty() && reply.unreadable.is_empty() {
                note("no todos");
            } else {
                print_todos(&reply.todos, &reply.unreadable);
            }
            note_freshness(reply.read.as_ref());
        }
        if !paging.turn_to(reply.next_page_token, output) {
            return Ok(());
        }
    }
}
