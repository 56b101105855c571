//! `tidemark create`, `update` and `delete`.

use clap::Args;
use prost_types::Timestamp;

use super::{
    client::{Failed, Output, Server, json, print},
    read::print_whole,
};
use crate::pb::{
    self,
    todo::{Priority, State},
};

/// Fields of a todo.
#[derive(Args)]
pub struct Fields {
    /// What is to be done
    #[arg(long)]
    title: Option<String>,
    /// More about it
    #[arg(long)]
    notes: Option<String>,
    /// active or completed
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// low, normal, high or urgent
    #[arg(long, value_parser = priority)]
    priority: Option<Priority>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// When it should be done by, as in 2026-12-01T00:00:00Z
    #[arg(long = "due", value_name = "TIME", value_parser = time)]
    due_time: Option<Timestamp>,
}

fn state(text: &str) -> Result<State, String> {
    State::from_str_name(&format!("STATE_{}", text.to_uppercase()))
        .ok_or_else(|| "use active or completed".into())
}

fn priority(text: &str) -> Result<Priority, String> {
    Priority::from_str_name(&format!("PRIORITY_{}", text.to_uppercase()))
        .ok_or_else(|| "use low, normal, high or urgent".into())
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "use a time such as 2026-12-01T00:00:00Z".into())
}

impl Fields {
    fn todo(self) -> pb::Todo {
        pb::Todo {
            title: self.title.unwrap_or_default(),
            notes: self.notes.unwrap_or_default(),
            state: self.state.unwrap_or_default().into(),
            priority: self.priority.unwrap_or_default().into(),
            labels: self.labels,
            due_time: self.due_time,
            ..pb::Todo::default()
        }
    }

    /// The fields that were given, also those given as empty.
    fn mask(&self) -> prost_types::FieldMask {
        let given = [
            ("title", self.title.is_some()),
            ("notes", self.notes.is_some()),
            ("state", self.state.is_some()),
            ("priority", self.priority.is_some()),
            ("labels", !self.labels.is_empty()),
            ("due_time", self.due_time.is_some()),
        ];
        let paths = given
            .iter()
            .filter(|(_, given)| *given)
            .map(|(field, _)| (*field).to_owned())
            .collect();
        prost_types::FieldMask { paths }
    }
}

/// The arguments of `create`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tidemark create lists/home --id milk --title 'Buy milk' --priority high"
)]
pub struct Create {
    /// The list, as in lists/home
    parent: String,
    /// Last part of the name; generated if not given
    #[arg(long, default_value = "")]
    id: String,
    /// A UUID: the same one again writes nothing
    #[arg(long, default_value = "")]
    request_id: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    server: Server,
}

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

fn written(output: Output, json: String, todo: Option<&pb::Todo>, token: &str) {
    if output == Output::Json {
        return print(&json);
    }
    todo.into_iter().for_each(print_whole);
    print(&format!("token {token}"));
}

/// Creates a todo.
pub async fn create(args: Create) -> Result<(), Failed> {
    let mut client = args.server.connect().await?;
    let request = pb::CreateTodoRequest {
        parent: args.parent,
        todo: Some(args.fields.todo()),
        todo_id: args.id,
        request_id: args.request_id,
    };
    let reply = client
        .create_todo(args.server.request(request))
        .await?
        .into_inner();
    let json = json("todo.v1.CreateTodoResponse", &reply)?;
    written(args.server.output, json, reply.todo.as_ref(), &reply.token);
    Ok(())
}

/// Changes a todo.
pub async fn update(args: Update) -> Result<(), Failed> {
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
    written(args.server.output, json, reply.todo.as_ref(), &reply.token);
    Ok(())
}

/// Deletes a todo.
pub async fn delete(args: Delete) -> Result<(), Failed> {
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
    written(args.server.output, json, None, &reply.token);
    Ok(())
}
