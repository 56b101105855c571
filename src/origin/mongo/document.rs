//! Todos as documents, and documents as todos. A document that cannot be read
//! says which field has it wrong.

use std::sync::Arc;

use bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::{
    model::{Patch, TodoName, Unreadable, Value, timestamp_from_ms, timestamp_ms},
    pb::{
        Todo,
        todo::{Priority, State},
    },
};

/// The names of priorities in documents, by rank from 1.
pub(super) const PRIORITIES: [&str; 4] = ["LOW", "NORMAL", "HIGH", "URGENT"];

/// The value that a stored document is.
pub(crate) fn value(name: &TodoName, raw: &RawDocument) -> Value {
    match todo(name, raw) {
        Ok(todo) => Value::Todo(encoded(todo)),
        Err(unreadable) => Value::Unreadable(Arc::new(unreadable)),
    }
}

pub(super) fn encoded(todo: Todo) -> Bytes {
    todo.encode_to_vec().into()
}

/// A strong hash of the stored bytes: an edit made straight in the database
/// changes it too.
pub(super) fn etag(raw: &RawDocument) -> String {
    blake3::hash(raw.as_bytes()).to_hex()[..32].to_owned()
}

pub(super) fn unreadable(field: &str, problem: impl Into<String>) -> Unreadable {
    Unreadable {
        field: field.into(),
        problem: problem.into(),
    }
}

pub(super) fn wrong_type(field: &str, value: RawBsonRef<'_>, wanted: &str) -> Unreadable {
    unreadable(
        field,
        format!("is of type {:?}; {wanted} is wanted", value.element_type()),
    )
}

/// The todo in a stored document, etag included. Missing fields have their
/// default, but `parent` must be the list of the name.
pub(super) fn todo(name: &TodoName, raw: &RawDocument) -> Result<Todo, Unreadable> {
    let mut todo = Todo {
        name: name.to_string(),
        etag: etag(raw),
        ..Todo::default()
    };
    todo.set_state(State::Active);
    todo.set_priority(Priority::Normal);
    let mut parent = None;
    for element in raw {
        let (key, value) = element.map_err(|e| {
            unreadable(
                "document",
                format!("is damaged: {}", crate::error::shorten(&e.to_string())),
            )
        })?;
        match key.as_str() {
            "parent" => parent = Some(text("parent", value)?),
            "title" => todo.title = text("title", value)?,
            "notes" => todo.notes = text("notes", value)?,
            "state" => todo.set_state(state(value)?),
            "priority" => todo.set_priority(priority(value)?),
            "labels" => todo.labels = labels(value)?,
            "due_time" => todo.due_time = time("due_time", value)?,
            "create_time" => todo.create_time = time("create_time", value)?,
            "update_time" => todo.update_time = time("update_time", value)?,
            "complete_time" => todo.complete_time = time("complete_time", value)?,
            _ => {}
        }
    }
    match parent {
        Some(parent) if parent == name.parent() => Ok(todo),
        Some(parent) => Err(unreadable(
            "parent",
            format!(
                "is {:?}; it must be {:?}",
                crate::error::shorten(&parent),
                name.parent()
            ),
        )),
        None => Err(unreadable(
            "parent",
            format!("is missing; it must be {:?}", name.parent()),
        )),
    }
}

pub(super) fn text(field: &str, value: RawBsonRef<'_>) -> Result<String, Unreadable> {
    value
        .as_str()
        .map(ToOwned::to_owned)
        .ok_or_else(|| wrong_type(field, value, "a string"))
}

fn state(value: RawBsonRef<'_>) -> Result<State, Unreadable> {
    match text("state", value)?.as_str() {
        "ACTIVE" => Ok(State::Active),
        "COMPLETED" => Ok(State::Completed),
        other => Err(unreadable(
            "state",
            format!(
                "is {:?}; it must be ACTIVE or COMPLETED",
                crate::error::shorten(other)
            ),
        )),
    }
}

fn priority(value: RawBsonRef<'_>) -> Result<Priority, Unreadable> {
    let name = text("priority", value)?;
    let rank = PRIORITIES.iter().position(|known| *known == name);
    let rank = rank
        .and_then(|at| i32::try_from(at + 1).ok())
        .and_then(|rank| Priority::try_from(rank).ok());
    rank.ok_or_else(|| {
        unreadable(
            "priority",
            format!(
                "is {:?}; it must be LOW, NORMAL, HIGH or URGENT",
                crate::error::shorten(&name)
            ),
        )
    })
}

fn labels(value: RawBsonRef<'_>) -> Result<Vec<String>, Unreadable> {
    let array = value
        .as_array()
        .ok_or_else(|| wrong_type("labels", value, "an array of strings"))?;
    let label = |(at, label): (usize, bson::error::Result<RawBsonRef<'_>>)| {
        let field = format!("labels[{at}]");
        let label = label.map_err(|e| {
            unreadable(
                &field,
                format!("is damaged: {}", crate::error::shorten(&e.to_string())),
            )
        })?;
        text(&field, label)
    };
    array.into_iter().enumerate().map(label).collect()
}

pub(super) fn time(field: &str, value: RawBsonRef<'_>) -> Result<Option<Timestamp>, Unreadable> {
    let time = value
        .as_datetime()
        .ok_or_else(|| wrong_type(field, value, "a date"))?;
    let time = timestamp_from_ms(time.timestamp_millis());
    match timestamp_ms(&time) {
        Some(_) => Ok(Some(time)),
        None => Err(unreadable(field, "is not within the years 0001 to 9999")),
    }
}

pub(super) fn state_name(state: State) -> &'static str {
    if state == State::Completed {
        "COMPLETED"
    } else {
        "ACTIVE"
    }
}

fn priority_name(priority: Priority) -> &'static str {
    usize::try_from(priority as i32 - 1)
        .ok()
        .and_then(|at| PRIORITIES.get(at))
        .copied()
        .unwrap_or("NORMAL")
}

pub(super) fn date(time: &Timestamp) -> Bson {
    bson::DateTime::from_millis(timestamp_ms(time).unwrap_or_default()).into()
}

/// The document of a new todo.
pub(crate) fn document(name: &TodoName, todo: &Todo) -> Document {
    let mut document = doc! {
        "_id": name.as_str(),
        "parent": name.parent(),
        "title": &todo.title,
        "notes": &todo.notes,
        "state": state_name(todo.state()),
        "priority": priority_name(todo.priority()),
        "labels": &todo.labels,
    };
    let times = [
        ("due_time", &todo.due_time),
        ("create_time", &todo.create_time),
        ("update_time", &todo.update_time),
        ("complete_time", &todo.complete_time),
    ];
    for (field, time) in times {
        if let Some(time) = time {
            document.insert(field, date(time));
        }
    }
    document
}

/// The update that makes the old document the new todo, by the fields of the
/// patch alone: other fields of the document, added by hand, stay.
pub(super) fn update(patch: &Patch, new: &Todo) -> Document {
    let (mut set, mut unset) = (Document::new(), Document::new());
    let mut time = |field: &str, time: &Option<Timestamp>, set: &mut Document| match time {
        Some(time) => drop(set.insert(field, date(time))),
        None => drop(unset.insert(field, "")),
    };
    if patch.title.is_some() {
        set.insert("title", &new.title);
    }
    if patch.notes.is_some() {
        set.insert("notes", &new.notes);
    }
    if patch.priority.is_some() {
        set.insert("priority", priority_name(new.priority()));
    }
    if patch.labels.is_some() {
        set.insert("labels", &new.labels);
    }
    if patch.due_time.is_some() {
        time("due_time", &new.due_time, &mut set);
    }
    if patch.state.is_some() {
        set.insert("state", state_name(new.state()));
        time("complete_time", &new.complete_time, &mut set);
    }
    time("update_time", &new.update_time, &mut set);
    let mut update = doc! { "$set": set };
    if !unset.is_empty() {
        update.insert("$unset", unset);
    }
    update
}

#[cfg(test)]
mod tests {
    use bson::RawDocumentBuf;

    use super::*;

    fn name() -> TodoName {
        TodoName::parse("lists/home/todos/1").expect("a name")
    }

    fn read(document: &Document) -> Result<Todo, Unreadable> {
        todo(&name(), &RawDocumentBuf::try_from(document).expect("raw"))
    }

    #[test]
    fn comes_back_as_it_was_stored() {
        let mut todo = Todo {
            name: name().to_string(),
            title: "Milk".into(),
            notes: "two".into(),
            labels: vec!["a".into(), "b".into()],
            due_time: Some(timestamp_from_ms(-5)),
            create_time: Some(timestamp_from_ms(1_000)),
            complete_time: Some(timestamp_from_ms(2_001)),
            ..Todo::default()
        };
        todo.set_state(State::Completed);
        todo.set_priority(Priority::Urgent);
        let mut back = read(&document(&name(), &todo)).expect("readable");
        assert_eq!(back.etag.len(), 32);
        back.etag.clear();
        assert_eq!(back, todo);
    }

    #[test]
    fn missing_fields_have_their_default() {
        let back =
            read(&doc! { "_id": "x", "parent": "lists/home", "extra": 1 }).expect("readable");
        assert_eq!(
            (back.state(), back.priority()),
            (State::Active, Priority::Normal)
        );
    }

    #[test]
    fn each_wrong_field_is_named() {
        let right = doc! { "parent": "lists/home", "title": "t" };
        let wrong: [(&str, Bson); 12] = [
            ("title", 5.into()),
            ("notes", Bson::Null),
            ("state", "DONE".into()),
            ("state", 1.into()),
            ("priority", "high".into()),
            ("labels", "home".into()),
            ("due_time", "tomorrow".into()),
            ("create_time", 5_i64.into()),
            ("update_time", true.into()),
            ("complete_time", Bson::Array(vec![])),
            ("parent", "lists/work".into()),
            ("due_time", bson::DateTime::MAX.into()),
        ];
        for (field, value) in wrong {
            let mut document = right.clone();
            document.insert(field, value);
            assert_eq!(read(&document).expect_err(field).field, field);
        }
        let mut document = right;
        document.insert("labels", vec![Bson::from("a"), Bson::from(5)]);
        assert_eq!(read(&document).expect_err("labels").field, "labels[1]");
        assert_eq!(
            read(&doc! { "title": "t" }).expect_err("parent").field,
            "parent"
        );
    }
}
