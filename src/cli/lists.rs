//! `tidemark lists`, `tidemark list create|show|delete`, `tidemark share` and
//! `tidemark unshare`: lists as resources, and who may do what with them.

use clap::{Args, Subcommand};
use tonic::Code;

use super::{
    client::{Client, Consistency, Paging},
    credential::TodoClient,
    error::CommandError,
    names::{list_name, short_list_name},
    output::{Output, note, note_freshness, print, print_reply, table},
};
use crate::pb::{self, Role, TodoList};

/// Tries of a change of members, each from the list as it is then: another person may
/// change them at the same time.
const MAX_TRIES: usize = 5;
/// Most members that the table shows of a list.
const SHOWN_MEMBERS: usize = 3;

/// The arguments of `lists`.
#[derive(Args)]
#[command(after_help = "Examples:\n  tidemark lists\n  tidemark lists --all -o name")]
pub struct Lists {
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    client: Client,
}

/// What `list` does with the list itself. A list of the same name as one of these is
/// read by its full name, such as lists/create.
#[derive(Subcommand)]
pub enum ListCommand {
    /// Create a list
    #[command(after_help = "Example:\n  tidemark list create home --title 'At home'")]
    Create(CreateList),
    /// Show a list and its members
    Show(ShowList),
    /// Delete a list
    #[command(after_help = "Example:\n  tidemark list delete home --force")]
    Delete(DeleteList),
}

/// The arguments of `list create`.
#[derive(Args)]
pub struct CreateList {
    /// The list: lists/home, or home
    #[arg(value_name = "LIST")]
    name: String,
    /// Its title
    #[arg(long, default_value = "", hide_default_value = true)]
    title: String,
    /// A UUID: a repeated call with it writes nothing
    #[arg(long, default_value = "", hide_default_value = true)]
    request_id: String,
    #[command(flatten)]
    client: Client,
}

/// The arguments of `list show`.
#[derive(Args)]
pub struct ShowList {
    /// The list: lists/home, or home
    #[arg(value_name = "LIST")]
    name: String,
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    client: Client,
}

/// The arguments of `list delete`.
#[derive(Args)]
pub struct DeleteList {
    /// The list: lists/home, or home
    #[arg(value_name = "LIST")]
    name: String,
    /// Delete its todos as well
    #[arg(long)]
    force: bool,
    /// Only if the list still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    client: Client,
}

/// The arguments of `share`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tidemark share home bob --role writer\n  tidemark share home group:family\n  tidemark share home '*'      # every authenticated caller"
)]
pub struct Share {
    /// The list: lists/home, or home
    #[arg(value_name = "LIST")]
    list: String,
    /// A principal, group:NAME, or * for every authenticated caller
    member: String,
    /// reader, writer or owner
    #[arg(long, default_value = "reader", value_parser = role)]
    role: Role,
    #[command(flatten)]
    client: Client,
}

/// The arguments of `unshare`.
#[derive(Args)]
#[command(after_help = "Example:\n  tidemark unshare home bob")]
pub struct Unshare {
    /// The list: lists/home, or home
    #[arg(value_name = "LIST")]
    list: String,
    /// The member, as `tidemark list show` prints it
    member: String,
    #[command(flatten)]
    client: Client,
}

fn role(text: &str) -> Result<Role, String> {
    let name = text.to_uppercase();
    let name = name.strip_prefix("ROLE_").unwrap_or(&name);
    match Role::from_str_name(&format!("ROLE_{name}")) {
        Some(role) if role != Role::Unspecified => Ok(role),
        _ => Err("use reader, writer or owner".into()),
    }
}

/// Prints the lists that the caller sees.
pub async fn lists(args: Lists) -> Result<(), CommandError> {
    let (server, output) = (&args.client.server, args.client.format.output);
    let mut service = server.connect().await?;
    let mut paging = args.paging;
    loop {
        let request = pb::ListTodoListsRequest {
            page_size: paging.size,
            page_token: paging.token.clone(),
            consistency: args.consistency.message(),
        };
        let reply = service.list_todo_lists(server.request(request)).await?;
        let reply = reply.into_inner();
        let names: Vec<_> = reply.todo_lists.iter().map(|it| it.name.as_str()).collect();
        if !print_reply(output, "todo.v1.ListTodoListsResponse", &reply, &names)? {
            if reply.todo_lists.is_empty() && reply.unreadable.is_empty() {
                note("no lists");
            } else {
                print_lists(&reply.todo_lists, &reply.unreadable);
            }
            note_freshness(reply.read.as_ref());
        }
        if !paging.turn_to(reply.next_page_token, output) {
            return Ok(());
        }
    }
}

/// Creates, shows or deletes a list.
pub async fn list(command: ListCommand) -> Result<(), CommandError> {
    match command {
        ListCommand::Create(args) => create(args).await,
        ListCommand::Show(args) => show(args).await,
        ListCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateList) -> Result<(), CommandError> {
    let server = &args.client.server;
    let name = list_name(&args.name);
    let request = pb::CreateTodoListRequest {
        todo_list: Some(TodoList {
            title: args.title,
            ..TodoList::default()
        }),
        todo_list_id: name.strip_prefix("lists/").unwrap_or(&name).to_owned(),
        request_id: args.request_id,
    };
    let mut service = server.connect().await?;
    let reply = service.create_todo_list(server.request(request)).await?;
    let reply = reply.into_inner();
    let message = "todo.v1.CreateTodoListResponse";
    let output = args.client.format.output;
    print_list(output, message, &reply, reply.todo_list.as_ref())?;
    note(&format!("token {}", reply.token));
    Ok(())
}

async fn show(args: ShowList) -> Result<(), CommandError> {
    let server = &args.client.server;
    let request = pb::GetTodoListRequest {
        name: list_name(&args.name),
        consistency: args.consistency.message(),
    };
    let mut service = server.connect().await?;
    let reply = service.get_todo_list(server.request(request)).await?;
    let reply = reply.into_inner();
    let message = "todo.v1.GetTodoListResponse";
    let output = args.client.format.output;
    print_list(output, message, &reply, reply.todo_list.as_ref())?;
    note_freshness(reply.read.as_ref());
    Ok(())
}

async fn delete(args: DeleteList) -> Result<(), CommandError> {
    let server = &args.client.server;
    let request = pb::DeleteTodoListRequest {
        name: list_name(&args.name),
        etag: args.etag,
        force: args.force,
    };
    let mut service = server.connect().await?;
    let reply = service.delete_todo_list(server.request(request)).await?;
    let reply = reply.into_inner();
    print_reply(
        args.client.format.output,
        "todo.v1.DeleteTodoListResponse",
        &reply,
        &[],
    )?;
    note(&format!("token {}", reply.token));
    Ok(())
}

/// Gives a member a role on a list.
pub async fn share(args: Share) -> Result<(), CommandError> {
    let (member, role) = (args.member, args.role);
    change_members(&args.client, &args.list, |list| {
        list.members.insert(member.clone(), role.into());
        Ok(())
    })
    .await
}

/// Removes a member.
pub async fn unshare(args: Unshare) -> Result<(), CommandError> {
    let member = args.member;
    change_members(&args.client, &args.list, |list| {
        match list.members.remove(&member) {
            Some(_) => Ok(()),
            None => Err(CommandError::Other(format!(
                "{:?} is not a member of {}; see `tidemark list show {}`",
                member,
                list.name,
                short_list_name(&list.name)
            ))),
        }
    })
    .await
}

/// Changes the members as they are at the database now: again if somebody else changes
/// the list meanwhile.
async fn change_members(
    client: &Client,
    list: &str,
    change: impl Fn(&mut TodoList) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut service = client.server.connect().await?;
    let mut tries = 1;
    loop {
        let mut list = read_now(client, &mut service, list).await?;
        change(&mut list)?;
        let request = pb::UpdateTodoListRequest {
            todo_list: Some(list),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["members".into()],
            }),
        };
        match service
            .update_todo_list(client.server.request(request))
            .await
        {
            Err(status) if status.code() == Code::Aborted && tries < MAX_TRIES => tries += 1,
            reply => {
                let reply = reply?.into_inner();
                let message = "todo.v1.UpdateTodoListResponse";
                print_list(
                    client.format.output,
                    message,
                    &reply,
                    reply.todo_list.as_ref(),
                )?;
                note(&format!("token {}", reply.token));
                return Ok(());
            }
        }
    }
}

async fn read_now(
    client: &Client,
    service: &mut TodoClient,
    list: &str,
) -> Result<TodoList, CommandError> {
    let request = pb::GetTodoListRequest {
        name: list_name(list),
        consistency: Some(pb::Consistency {
            requirement: Some(pb::consistency::Requirement::FullyConsistent(true)),
        }),
    };
    let reply = service
        .get_todo_list(client.server.request(request))
        .await?;
    let list = reply.into_inner().todo_list.unwrap_or_default();
    if list.etag.is_empty() {
        return Err(CommandError::Other(format!(
            "{} has no members yet: create it with `tidemark list create {}`",
            list.name,
            short_list_name(&list.name)
        )));
    }
    Ok(list)
}

fn print_list(
    output: Output,
    message: &str,
    reply: &impl prost::Message,
    list: Option<&TodoList>,
) -> Result<(), CommandError> {
    let names: Vec<_> = list.iter().map(|list| list.name.as_str()).collect();
    if print_reply(output, message, reply, &names)? {
        return Ok(());
    }
    let Some(list) = list else { return Ok(()) };
    let mut rows = vec![
        vec![("Name".into(), None), (list.name.clone(), None)],
        vec![("Title".into(), None), (list.title.clone(), None)],
    ];
    for (member, role) in &list.members {
        rows.push(vec![(role_name(*role), None), (member.clone(), None)]);
    }
    print(&table(&["FIELD", "VALUE"], &rows));
    Ok(())
}

fn print_lists(lists: &[TodoList], unreadable: &[String]) {
    let mut rows: Vec<_> = lists
        .iter()
        .map(|list| {
            let members: Vec<_> = list.members.keys().take(SHOWN_MEMBERS).cloned().collect();
            let more = list.members.len().saturating_sub(SHOWN_MEMBERS);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            vec![
                (short_list_name(&list.name), None),
                (list.title.clone(), None),
                (format!("{}{more}", members.join(", ")), None),
            ]
        })
        .collect();
    rows.extend(unreadable.iter().map(|name| {
        let text = "(cannot be read as a list)";
        vec![
            (short_list_name(name), None),
            (text.into(), None),
            (String::new(), None),
        ]
    }));
    print(&table(&["LIST", "TITLE", "MEMBERS"], &rows));
}

/// The role in lower case, as `--role` takes it.
fn role_name(role: i32) -> String {
    let role = Role::try_from(role).unwrap_or_default().as_str_name();
    role.trim_start_matches("ROLE_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_in_any_case() {
        for text in ["writer", "WRITER", "role_writer", "ROLE_WRITER"] {
            assert_eq!(role(text), Ok(Role::Writer), "{text}");
        }
        for text in ["", "unspecified", "ROLE_UNSPECIFIED", "admin"] {
            assert!(role(text).is_err(), "{text}");
        }
        assert_eq!(role_name(Role::Owner.into()), "owner");
    }
}
