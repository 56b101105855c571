//! The fields of a todo as flags, and how a written todo is printed.

use clap::Args;
use prost_types::Timestamp;

use super::{
    client::{Output, print},
    get::print_whole,
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
    /// The todo that the flags describe.
    pub fn todo(self) -> pb::Todo {
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
    pub fn mask(&self) -> prost_types::FieldMask {
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

/// Prints the result of a write.
pub fn print_written(output: Output, json: String, todo: Option<&pb::Todo>, token: &str) {
    if output == Output::Json {
        return print(&json);
    }
    todo.into_iter().for_each(print_whole);
    print(&format!("token {token}"));
}
