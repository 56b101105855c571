//! The fields of a todo as flags.

use clap::Args;
use prost_types::Timestamp;

use crate::pb::{
    self,
    todo::{Priority, State},
};

/// Fields of a todo.
#[derive(Args, Clone, Default)]
pub struct Fields {
    /// What is to be done
    #[arg(long)]
    pub title: Option<String>,
    /// More about it
    #[arg(long)]
    pub notes: Option<String>,
    /// active or completed
    #[arg(long, value_parser = state)]
    pub state: Option<State>,
    /// low, normal, high or urgent
    #[arg(long, value_parser = priority)]
    pub priority: Option<Priority>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// When it is due: 2026-12-01 or 2026-12-01T18:00:00Z
    #[arg(long = "due", value_name = "TIME", value_parser = due)]
    pub due_time: Option<Due>,
}

/// A due time, or none: `--due ''` clears it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due(pub Option<Timestamp>);

/// `active`, in any case, and as the API spells it.
pub fn state(text: &str) -> Result<State, String> {
    let name = text.trim().to_uppercase();
    let name = name.strip_prefix("STATE_").unwrap_or(&name);
    match State::from_str_name(&format!("STATE_{name}")) {
        Some(state) if state != State::Unspecified => Ok(state),
        _ => Err("use active or completed".into()),
    }
}

/// `high`, in any case, and as the API spells it.
pub fn priority(text: &str) -> Result<Priority, String> {
    let name = text.trim().to_uppercase();
    let name = name.strip_prefix("PRIORITY_").unwrap_or(&name);
    match Priority::from_str_name(&format!("PRIORITY_{name}")) {
        Some(priority) if priority != Priority::Unspecified => Ok(priority),
        _ => Err("use low, normal, high or urgent".into()),
    }
}

/// A time, or a date, which is its first moment in UTC.
pub fn due(text: &str) -> Result<Due, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Due(None));
    }
    let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let time = if is_date {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    time.parse()
        .map(|time| Due(Some(time)))
        .map_err(|_| "use a time such as 2026-12-01T18:00:00Z, or a date such as 2026-12-01".into())
}

impl Fields {
    /// The todo that the flags describe.
    pub fn todo(self) -> pb::Todo {
        pb::Todo {
            title: self.title.unwrap_or_default(),
            notes: self.notes.unwrap_or_default(),
            state: self.state.unwrap_or_default().into(),
            priority: self.priority.unwrap_or_default().into(),
            labels: without_empty(self.labels),
            due_time: self.due_time.and_then(|due| due.0),
            ..pb::Todo::default()
        }
    }

    /// The fields that were given, also those given as empty: these are cleared.
    pub fn mask(&self) -> Vec<&'static str> {
        let given = [
            ("title", self.title.is_some()),
            ("notes", self.notes.is_some()),
            ("state", self.state.is_some()),
            ("priority", self.priority.is_some()),
            ("labels", !self.labels.is_empty()),
            ("due_time", self.due_time.is_some()),
        ];
        given
            .iter()
            .filter(|(_, given)| *given)
            .map(|(field, _)| *field)
            .collect()
    }
}

/// `--label ''` clears the labels.
fn without_empty(mut labels: Vec<String>) -> Vec<String> {
    labels.retain(|label| !label.is_empty());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_are_read_in_any_case() {
        for text in ["completed", "COMPLETED", "Completed", "STATE_COMPLETED"] {
            assert_eq!(state(text), Ok(State::Completed));
        }
        assert_eq!(priority("Urgent"), Ok(Priority::Urgent));
        assert_eq!(priority("priority_low"), Ok(Priority::Low));
        for wrong in ["", "done", "unspecified", "STATE_"] {
            assert!(state(wrong).is_err() && priority(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_due_time_is_a_time_a_date_or_nothing() {
        assert_eq!(due(""), Ok(Due(None)));
        assert_eq!(due("2026-12-01"), due("2026-12-01T00:00:00Z"));
        assert!(due("2026-12-01").expect("a date").0.is_some());
        for wrong in ["soon", "2026-13-01", "12-01"] {
            due(wrong).expect_err(wrong);
        }
    }
}
