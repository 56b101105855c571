//! `tidemark update` and `tidemark done`.

use clap::{Args, ValueEnum};
use tonic::Code;

use super::{
    client::Client,
    credential::TodoClient,
    each::for_each,
    error::CommandError,
    fields::Fields,
    names::todo_name,
    output::{note, print_reply, print_todos, print_written},
};
use crate::pb::{self, consistency::Requirement, todo::State};

/// Tries of a change of labels: each but the first follows a write of another
/// caller between this command's read and its write.
const LABEL_TRIES: u32 = 5;

/// The arguments of `update`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tidemark update lists/home/todos/milk --state completed\n  \
tidemark update home/milk --clear due --add-label shop"
)]
pub struct Update {
    /// The todo: lists/home/todos/milk, or home/milk
    name: String,
    /// Change it only if its etag is this one
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    /// Create it if there is none
    #[arg(long)]
    allow_missing: bool,
    /// A UUID: a repeated call with it writes nothing
    #[arg(long, default_value = "", hide_default_value = true)]
    request_id: String,
    /// Clear a field; may be given several times
    #[arg(long, value_enum, ignore_case = true, value_name = "FIELD")]
    clear: Vec<Clearable>,
    /// Add a label and keep the others; may be given several times
    #[arg(long = "add-label", value_name = "LABEL", conflicts_with_all = ["labels", "allow_missing"])]
    add_labels: Vec<String>,
    /// Remove a label and keep the others; may be given several times
    #[arg(long = "remove-label", value_name = "LABEL", conflicts_with_all = ["labels", "allow_missing"])]
    remove_labels: Vec<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    client: Client,
}

/// The fields that a todo can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Notes,
    #[value(alias = "label")]
    Labels,
    #[value(aliases = ["due_time", "due-time"])]
    Due,
    /// Sets the default: normal
    Priority,
    /// Sets the default: active
    State,
}

impl Clearable {
    const fn path(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::Labels => "labels",
            Self::Due => "due_time",
            Self::Priority => "priority",
            Self::State => "state",
        }
    }
}

/// The arguments of `done`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tidemark done home/milk home/bread\n\nIt goes on after a todo that cannot be \
completed, and ends with exit code 1."
)]
pub struct Done {
    /// The todos: home/milk, or lists/home/todos/milk
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    client: Client,
}

/// Changes a todo.
pub async fn update(args: Update) -> Result<(), CommandError> {
    let mut mask = args.fields.mask();
    for field in &args.clear {
        if mask.contains(&field.path()) {
            return Err(CommandError::Usage(format!(
                "--clear {} contradicts the flag that sets it",
                field.path().trim_end_matches("_time")
            )));
        }
    }
    mask.extend(args.clear.iter().map(|field| field.path()));
    mask.dedup();
    let changes_labels = !args.add_labels.is_empty() || !args.remove_labels.is_empty();
    if mask.is_empty() && !args.allow_missing && !changes_labels {
        return Err(CommandError::Usage(
            "nothing to change: give at least one of --title, --notes, --state, --priority, --label, --due, --add-label, --remove-label and --clear"
                .into(),
        ));
    }
    let mut service = args.client.server.connect().await?;
    let todo = pb::Todo {
        name: todo_name(&args.name),
        etag: args.etag.clone(),
        ..args.fields.clone().todo()
    };
    let paths = mask.into_iter().map(ToOwned::to_owned).collect();
    let mut request = pb::UpdateTodoRequest {
        todo: Some(todo),
        update_mask: Some(prost_types::FieldMask { paths }),
        allow_missing: args.allow_missing,
        request_id: args.request_id.clone(),
    };
    let reply = if changes_labels {
        with_labels(&args, &mut service, &mut request).await?
    } else {
        let request = args.client.server.request(request);
        service.update_todo(request).await?.into_inner()
    };
    print_written(
        args.client.format.output,
        "todo.v1.UpdateTodoResponse",
        &reply,
        reply.todo.as_ref(),
        &reply.token,
    )
}

/// Reads the labels, changes them, and writes them if the todo is still the one
/// that was read. Repeats all of it if somebody else wrote meanwhile.
async fn with_labels(
    args: &Update,
    service: &mut TodoClient,
    request: &mut pb::UpdateTodoRequest,
) -> Result<pb::UpdateTodoResponse, CommandError> {
    let server = &args.client.server;
    if let Some(mask) = &mut request.update_mask {
        mask.paths.push("labels".into());
    }
    for last in (0..LABEL_TRIES).rev().map(|left| left == 0) {
        let read = pb::GetTodoRequest {
            name: todo_name(&args.name),
            consistency: Some(pb::Consistency {
                requirement: Some(Requirement::FullyConsistent(true)),
            }),
        };
        let now = service.get_todo(server.request(read)).await?.into_inner();
        let now = now.todo.unwrap_or_default();
        if let Some(todo) = &mut request.todo {
            todo.labels = changed(now.labels, &args.add_labels, &args.remove_labels);
            if args.etag.is_empty() {
                todo.etag = now.etag;
            }
        }
        match service.update_todo(server.request(request.clone())).await {
            Err(status) if status.code() == Code::Aborted && args.etag.is_empty() && !last => {}
            written => return Ok(written?.into_inner()),
        }
    }
    Err(CommandError::Other(format!(
        "{} changed at each of {LABEL_TRIES} tries",
        args.name
    )))
}

fn changed(mut labels: Vec<String>, add: &[String], remove: &[String]) -> Vec<String> {
    labels.retain(|label| !remove.contains(label));
    for label in add {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels
}

/// Completes todos, one after the other, and prints those that it completed.
pub async fn done(args: Done) -> Result<(), CommandError> {
    let service = args.client.server.connect().await?;
    let outcome = for_each(&args.names, "were not completed", async |name| {
        let todo = pb::Todo {
            name: todo_name(name),
            state: State::Completed.into(),
            ..pb::Todo::default()
        };
        let request = pb::UpdateTodoRequest {
            todo: Some(todo),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["state".into()],
            }),
            ..Default::default()
        };
        let request = args.client.server.request(request);
        let reply = service.clone().update_todo(request).await?;
        Ok(reply.into_inner())
    })
    .await;
    let (replies, mut todos) = (outcome.replies, Vec::new());
    for reply in &replies {
        let names: Vec<_> = reply.todo.iter().map(|todo| todo.name.as_str()).collect();
        let message = "todo.v1.UpdateTodoResponse";
        if !print_reply(args.client.format.output, message, reply, &names)? {
            todos.extend(reply.todo.clone());
        }
    }
    if let Some(last) = replies.last().filter(|_| !todos.is_empty()) {
        print_todos(&todos, &[]);
        note(&format!("token {}", last.token));
    }
    outcome.result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_added_and_removed() {
        let of = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(changed(of("a b c"), &of("b d d"), &of("a x")), of("b c d"));
    }
}
