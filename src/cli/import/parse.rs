//! Todos from their JSON forms.

use prost_reflect::DynamicMessage;
use prost_types::Timestamp;
use serde_json::{Map, Value};

use crate::{
    cli::{fields, output::MESSAGES},
    error::{FieldProblem, shorten},
    model::{ListName, Patch, TodoName, timestamp_from_ms, timestamp_ms, validate},
    pb::Todo,
};

/// The todos in a record, as the store takes them: one, or those of a reply of
/// the service. None if the record is empty.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the line.
pub(crate) fn parse(text: &str, list: &ListName, now_ms: i64) -> Result<Vec<Todo>, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    let Value::Object(mut fields) = value else {
        return Err("is not a JSON object".into());
    };
    match (fields.remove("todos"), fields.remove("todo")) {
        (Some(Value::Array(todos)), _) => todos
            .into_iter()
            .map(|todo| match todo {
                Value::Object(fields) => one(fields, list, now_ms),
                _ => Err("todos has an element that is not a JSON object".into()),
            })
            .collect(),
        (None, Some(Value::Object(fields))) => Ok(vec![one(fields, list, now_ms)?]),
        (None, None) => Ok(vec![one(fields, list, now_ms)?]),
        _ => Err("todos is not an array, or todo not an object".into()),
    }
}

/// A todo from any of its three forms.
fn one(mut fields: Map<String, Value>, list: &ListName, now_ms: i64) -> Result<Todo, String> {
    let mut todo = if fields.contains_key("_id") {
        from_document(&mut fields, list)?;
        from_api(fields)?
    } else if fields.contains_key("id") {
        from_seed(&fields, list)?
    } else {
        from_api(fields)?
    };
    let name = TodoName::parse(&todo.name).ok_or_else(|| {
        format!(
            "name {:?} is not a todo name such as lists/home/todos/42",
            shorten(&todo.name)
        )
    })?;
    validate(&mut todo, "").map_err(|problems| joined(&problems))?;
    let create_time =
        to_ms("create_time", todo.create_time)?.unwrap_or_else(|| timestamp_from_ms(now_ms));
    let update_time = to_ms("update_time", todo.update_time)?;
    let complete_time = to_ms("complete_time", todo.complete_time)?;
    let mut new = Patch::all_of(&todo).create(name.as_str(), now_ms);
    new.create_time = Some(create_time);
    new.update_time = update_time.or(Some(create_time));
    if new.complete_time.is_some() && complete_time.is_some() {
        new.complete_time = complete_time;
    }
    Ok(new)
}

/// A todo as the API writes it. Enums are also taken without their prefix and
/// in any case, as in `"state": "active"`.
fn from_api(mut fields: Map<String, Value>) -> Result<Todo, String> {
    let state = |text: &str| Ok(fields::state(text)?.as_str_name());
    let priority = |text: &str| Ok(fields::priority(text)?.as_str_name());
    spell_out(&mut fields, "state", "STATE_UNSPECIFIED", state)?;
    spell_out(&mut fields, "priority", "PRIORITY_UNSPECIFIED", priority)?;
    let descriptor = MESSAGES
        .get_message_by_name("todo.v1.Todo")
        .ok_or("the contract lacks todo.v1.Todo")?;
    let dynamic = DynamicMessage::deserialize(descriptor, Value::Object(fields))
        .map_err(|e| format!("is not a todo: {e}"))?;
    dynamic.transcode_to().map_err(|e| e.to_string())
}

/// Puts the API's name of an enum's value in the place of any other spelling of it.
fn spell_out(
    fields: &mut Map<String, Value>,
    field: &str,
    unspecified: &str,
    parse: impl Fn(&str) -> Result<&'static str, String>,
) -> Result<(), String> {
    let Some(Value::String(text)) = fields.get_mut(field) else {
        return Ok(());
    };
    // The API's word for a field that is not set.
    if !text.eq_ignore_ascii_case(unspecified) {
        let wrong = |advice| format!("{field} {:?} is not a {field}: {advice}", shorten(text));
        *text = parse(text).map_err(wrong)?.to_owned();
    }
    Ok(())
}

/// The form in MongoDB, also as `mongoexport` writes it, into that of the API.
fn from_document(fields: &mut Map<String, Value>, list: &ListName) -> Result<(), String> {
    let id = match fields.remove("_id") {
        Some(Value::String(id)) => id,
        other => {
            let shown = shorten(&other.unwrap_or_default().to_string());
            return Err(format!(
                "_id {shown} is not a name such as \"lists/home/todos/42\""
            ));
        }
    };
    let parent = match fields.remove("parent") {
        None | Some(Value::Null) => None,
        Some(Value::String(parent)) => Some(parent),
        Some(other) => return Err(format!("parent {other} is not a string")),
    };
    let name = if id.contains('/') {
        id
    } else {
        format!("{}/todos/{id}", parent.as_deref().unwrap_or(list.as_str()))
    };
    if let Some(parent) = parent
        && !name.starts_with(&format!("{parent}/todos/"))
    {
        return Err(format!(
            "parent {:?} is not the list of _id {:?}",
            shorten(&parent),
            shorten(&name)
        ));
    }
    fields.insert("name".into(), name.into());
    for field in ["due_time", "create_time", "update_time", "complete_time"] {
        match fields.get_mut(field) {
            None => {}
            Some(Value::Null) => drop(fields.remove(field)),
            Some(value) => *value = date(field, value)?,
        }
    }
    // Stored as they are: `null` means that the field has its default.
    fields.retain(|_, value| !value.is_null());
    Ok(())
}

/// `{"$date": "2026-..."}` and `{"$date": {"$numberLong": "..."}}` as a time of
/// the API.
fn date(field: &str, value: &Value) -> Result<Value, String> {
    let Some(date) = value.get("$date") else {
        return Ok(value.clone());
    };
    let ms = date
        .get("$numberLong")
        .and_then(Value::as_str)
        .and_then(|ms| ms.parse().ok())
        .or_else(|| date.as_i64());
    match (ms, date) {
        (Some(ms), _) => Ok(timestamp_from_ms(ms).to_string().into()),
        (None, Value::String(text)) => Ok(text.clone().into()),
        _ => Err(format!(
            "{field} {} is not a date",
            shorten(&date.to_string())
        )),
    }
}

/// The short form: id, name, description.
fn from_seed(fields: &Map<String, Value>, list: &ListName) -> Result<Todo, String> {
    let text = |field: &str| match fields.get(field) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) if field == "id" => Ok(number.to_string()),
        Some(other) => Err(format!(
            "{field} {} is not a string",
            shorten(&other.to_string())
        )),
    };
    if let Some(other) = fields
        .keys()
        .find(|key| !["id", "name", "description"].contains(&key.as_str()))
    {
        return Err(format!(
            "{:?} is not a field of the form with id, name and description; the other forms name a todo by \"name\" or \"_id\"",
            shorten(other)
        ));
    }
    let id = text("id")?;
    let name = list
        .todo(&id)
        .ok_or_else(|| format!("id {:?} is not an id such as 17", shorten(&id)))?;
    Ok(Todo {
        name: name.to_string(),
        title: text("name")?,
        notes: text("description")?,
        ..Todo::default()
    })
}

/// A time as every store keeps it.
fn to_ms(field: &str, time: Option<Timestamp>) -> Result<Option<Timestamp>, String> {
    let cut = |time: Timestamp| {
        let ms = timestamp_ms(&time)
            .ok_or_else(|| format!("{field} is not a time of the years 0001 to 9999"))?;
        Ok(timestamp_from_ms(ms))
    };
    time.map(cut).transpose()
}

fn joined(problems: &[FieldProblem]) -> String {
    let one = |p: &FieldProblem| format!("{} {}", p.field, p.problem);
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Todo>, String> {
        parse(text, &ListName::parse("lists/seed").expect("a name"), 1000)
    }

    fn one(text: &str) -> Todo {
        let mut todos = all(text).expect(text);
        assert_eq!(todos.len(), 1);
        todos.remove(0)
    }

    #[test]
    fn all_forms_are_read() {
        let todo = one(r#"{"id": "17", "name": "Milk", "description": "two"}"#);
        assert_eq!(
            (todo.name.as_str(), todo.title.as_str(), todo.notes.as_str()),
            ("lists/seed/todos/17", "Milk", "two")
        );
        let todo = one(
            r#"{"name":"lists/home/todos/1","title":"x","state":"STATE_COMPLETED","createTime":"2026-01-01T00:00:00Z"}"#,
        );
        assert_eq!(todo.create_time.expect("kept").seconds, 1_767_225_600);
        assert!(todo.complete_time.is_some());
        assert_eq!(all(" \r\n"), Ok(Vec::new()));
        one("\u{feff}{\"id\": 17, \"name\": \"x\"}\r");
    }

    #[test]
    fn the_form_of_mongodb_is_read() {
        let shown = one(
            r#"{"_id": "lists/home/todos/42", "parent": "lists/home", "title": "x", "state":
            "ACTIVE", "priority": "high", "labels": [], "due_time": {"$date": "2026-01-01T00:00:00Z"},
            "create_time": {"$date": {"$numberLong": "1767225600000"}}, "complete_time": null}"#,
        );
        assert_eq!(shown.name, "lists/home/todos/42");
        assert_eq!(shown.priority(), crate::pb::todo::Priority::High);
        assert_eq!(shown.due_time, shown.create_time);
        assert_eq!(
            one(r#"{"_id": "7", "title": "x"}"#).name,
            "lists/seed/todos/7"
        );
        let error = all(r#"{"_id": "lists/a/todos/1", "parent": "lists/b", "title": "x"}"#);
        assert!(error.expect_err("another list").contains("parent"));
    }

    #[test]
    fn replies_of_the_service_are_read() {
        let page = r#"{"todos": [{"name": "lists/a/todos/1", "title": "x"},
            {"name": "lists/a/todos/2", "title": "y"}], "read": {"token": "t"}}"#;
        assert_eq!(all(page).expect("a page").len(), 2);
        one(r#"{"todo": {"name": "lists/a/todos/1", "title": "x"}, "token": "t"}"#);
    }

    /// MongoDB keeps milliseconds: finer times would be others once stored.
    #[test]
    fn times_are_cut_to_milliseconds() {
        let todo = one(
            r#"{"name":"lists/home/todos/1","title":"x","state":"STATE_COMPLETED",
            "createTime":"2026-01-01T00:00:00.123456789Z","updateTime":"2026-01-01T00:00:00.000000001Z",
            "completeTime":"2026-01-01T00:00:01.9999Z"}"#,
        );
        let nanos = [todo.create_time, todo.update_time, todo.complete_time]
            .map(|time| time.expect("kept").nanos);
        assert_eq!(nanos, [123_000_000, 0, 999_000_000]);
    }

    #[test]
    fn invalid_todos_say_why() {
        for (text, word) in [
            ("{", "JSON"),
            ("[]", "object"),
            ("17", "object"),
            (r#"{"id": "-", "name": "x"}"#, "id"),
            (r#"{"id": "1", "name": 5}"#, "name"),
            (r#"{"id": "1"}"#, "title"),
            (r#"{"id": "1", "name": "x", "colour": "red"}"#, "colour"),
            (r#"{"name": "home", "title": "x"}"#, "name"),
            (r#"{"_id": {"$oid": "1"}, "title": "x"}"#, "_id"),
            (
                r#"{"name":"lists/a/todos/b","title":"x","state":"DONE"}"#,
                "use active or completed",
            ),
            (
                r#"{"name":"lists/a/todos/b","title":"x","due_time":"soon"}"#,
                "",
            ),
            (r#"{"name":"lists/a/todos/b","title":""}"#, "title"),
            (r#"{"name":"lists/a/todos/b","title":"x"} {}"#, "JSON"),
        ] {
            let problem = all(text).expect_err(text);
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }
}
