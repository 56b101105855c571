//! The todo itself: the public message, its limits, and how a write changes
//! it. Both origins share this, so that a todo means the same in both.

use prost_types::Timestamp;

use super::FieldProblem;
use crate::pb::{
    Todo,
    todo::{Priority, State},
};

/// The limits of a todo's fields. Lengths count characters (Unicode scalar
/// values).
pub struct Limits {
    /// Most characters of a title; it needs at least one.
    pub title: usize,
    /// Most characters of the notes.
    pub notes: usize,
    /// Most labels.
    pub labels: usize,
    /// Most characters of a label; it needs at least one.
    pub label: usize,
}

/// The limits that the public contract states.
pub const LIMITS: Limits = Limits {
    title: 1024,
    notes: 8192,
    labels: 32,
    label: 64,
};

/// Milliseconds of 0001-01-01 and of 9999-12-31T23:59:59.999: what a
/// `google.protobuf.Timestamp` may hold.
const TIME_RANGE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// What an update sets: `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// New title.
    pub title: Option<String>,
    /// New notes.
    pub notes: Option<String>,
    /// New state; sets or clears the complete time.
    pub state: Option<State>,
    /// New priority.
    pub priority: Option<Priority>,
    /// New labels.
    pub labels: Option<Vec<String>>,
    /// New due time; `Some(None)` clears it.
    pub due_time: Option<Option<Timestamp>>,
}

impl Patch {
    /// The todo with this patch applied at `now_ms`: its update time is `now`,
    /// its complete time follows its state.
    #[must_use]
    pub fn apply(&self, mut todo: Todo, now_ms: i64) -> Todo {
        if let Some(title) = &self.title {
            todo.title.clone_from(title);
        }
        if let Some(notes) = &self.notes {
            todo.notes.clone_from(notes);
        }
        if let Some(labels) = &self.labels {
            todo.labels.clone_from(labels);
        }
        if let Some(priority) = self.priority {
            todo.set_priority(priority);
        }
        if let Some(due) = self.due_time {
            todo.due_time = due;
        }
        if let Some(state) = self.state {
            let was_done = todo.state() == State::Completed;
            todo.set_state(state);
            match (was_done, state == State::Completed) {
                (_, false) => todo.complete_time = None,
                (false, true) => todo.complete_time = Some(timestamp_from_ms(now_ms)),
                (true, true) => {}
            }
        }
        todo.update_time = Some(timestamp_from_ms(now_ms));
        todo
    }

    /// The todo that this patch creates where there was none.
    #[must_use]
    pub fn create(&self, name: &str, now_ms: i64) -> Todo {
        let mut todo = Todo {
            name: name.to_owned(),
            ..Todo::default()
        };
        todo.set_state(State::Active);
        todo.set_priority(Priority::Normal);
        todo.create_time = Some(timestamp_from_ms(now_ms));
        self.apply(todo, now_ms)
    }

    /// The patch that sets every field to what `todo` has.
    #[must_use]
    pub fn all_of(todo: &Todo) -> Self {
        Self {
            title: Some(todo.title.clone()),
            notes: Some(todo.notes.clone()),
            state: Some(default_state(todo.state())),
            priority: Some(default_priority(todo.priority())),
            labels: Some(todo.labels.clone()),
            due_time: Some(todo.due_time),
        }
    }
}

const fn default_state(state: State) -> State {
    match state {
        State::Unspecified => State::Active,
        given => given,
    }
}

const fn default_priority(priority: Priority) -> Priority {
    match priority {
        Priority::Unspecified => Priority::Normal,
        given => given,
    }
}

/// Checks the writable fields of a todo from a request, and gives enums
/// that were left out their default. `due_time` is cut to milliseconds, which
/// is what MongoDB keeps. `path` is the field's path before the todo's own
/// fields, such as `todo.`.
///
/// # Errors
/// One problem for each field that is wrong, all at once.
pub fn validate(todo: &mut Todo, path: &str) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, value: String, problem: String| {
        problems.push(FieldProblem::new(format!("{path}{field}"), value, problem));
    };
    check_texts(todo, &mut wrong);
    match State::try_from(todo.state) {
        Ok(state) => todo.set_state(default_state(state)),
        Err(_) => {
            wrong(
                "state",
                todo.state.to_string(),
                "is not a state; use STATE_ACTIVE or STATE_COMPLETED".into(),
            );
        }
    }
    match Priority::try_from(todo.priority) {
        Ok(priority) => todo.set_priority(default_priority(priority)),
        Err(_) => wrong(
            "priority",
            todo.priority.to_string(),
            "is not a priority; use PRIORITY_LOW, _NORMAL, _HIGH or _URGENT".into(),
        ),
    }
    check_labels(&todo.labels, &mut wrong);
    if let Some(due) = todo.due_time {
        match timestamp_ms(&due) {
            Some(ms) => todo.due_time = Some(timestamp_from_ms(ms)),
            None => wrong(
                "due_time",
                format!("{}s {}ns", due.seconds, due.nanos),
                "is not a timestamp; years 0001 to 9999, 0 to 999999999 nanoseconds".into(),
            ),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Takes a field, its value and what is wrong with it.
type Wrong<'a> = &'a mut dyn FnMut(&str, String, String);

fn check_texts(todo: &Todo, wrong: Wrong<'_>) {
    let title = todo.title.chars().count();
    if title == 0 {
        wrong(
            "title",
            String::new(),
            format!("is required: 1 to {} characters", LIMITS.title),
        );
    } else if title > LIMITS.title {
        wrong(
            "title",
            todo.title.clone(),
            format!(
                "has {title} characters; at most {} are allowed",
                LIMITS.title
            ),
        );
    }
    let notes = todo.notes.chars().count();
    if notes > LIMITS.notes {
        wrong(
            "notes",
            todo.notes.clone(),
            format!(
                "has {notes} characters; at most {} are allowed",
                LIMITS.notes
            ),
        );
    }
}

fn check_labels(labels: &[String], wrong: Wrong<'_>) {
    if labels.len() > LIMITS.labels {
        wrong(
            "labels",
            labels.len().to_string(),
            format!(
                "has {} labels; at most {} are allowed",
                labels.len(),
                LIMITS.labels
            ),
        );
    }
    for (at, label) in labels.iter().enumerate().take(LIMITS.labels) {
        let chars = label.chars().count();
        if chars == 0 || chars > LIMITS.label {
            wrong(
                &format!("labels[{at}]"),
                label.clone(),
                format!("has {chars} characters; 1 to {} are allowed", LIMITS.label),
            );
        }
    }
}

/// Milliseconds since 1970, rounded down; `None` if it is not a valid timestamp.
#[must_use]
pub fn timestamp_ms(t: &Timestamp) -> Option<i64> {
    let nanos = i64::from(t.nanos);
    let ms = t
        .seconds
        .checked_mul(1000)?
        .checked_add(nanos / 1_000_000)?;
    ((0..1_000_000_000).contains(&nanos) && TIME_RANGE_MS.contains(&ms)).then_some(ms)
}

/// The timestamp of a number of milliseconds since 1970.
#[must_use]
pub fn timestamp_from_ms(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Timestamp {
        seconds: ms.div_euclid(1000),
        nanos,
    }
}
