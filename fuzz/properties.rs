//! What must hold for every input from outside, whatever its bytes: it is read
//! or refused, never a panic, and what was read comes back as it was when it is
//! written and read again. The fuzz targets call these, and `cargo test` does
//! with the seeds (`tests/fuzz_seeds.rs`).
//!
//! A checksum would keep a fuzzer out: where there is one, the input is tried
//! as it is, and once more as the contents under a right checksum.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use prost::Message as _;
use tidemark::{
    error::Error,
    fuzzing,
    model::{
        Condition, Filter, ListName, Op, Order, OriginId, OriginTime, PagePosition, PageQuery,
        SortKey, TodoName, Token, Value, timestamp_from_ms, timestamp_ms, validate,
    },
    pb,
    tier::record,
};
use xxhash_rust::xxh3::xxh3_64;

/// A function that asserts what must hold for an input.
pub type Property = fn(&[u8]);

/// All of them, by the names of their targets and of their seeds' folders.
pub const ALL: [(&str, Property); 8] = [
    ("names", names),
    ("filters", filters),
    ("page_tokens", page_tokens),
    ("tokens", tokens),
    ("shared_entries", shared_entries),
    ("documents", documents),
    ("import_lines", import_lines),
    ("json_messages", json_messages),
];

/// `now` of everything that asks for it.
const NOW_MS: i64 = 1_700_000_000_123;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn list() -> ListName {
    ListName::parse("lists/home").expect("a name")
}

fn todo_name() -> TodoName {
    TodoName::parse("lists/home/todos/1").expect("a name")
}

fn with_checksum(mut content: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_64(&content);
    content.extend_from_slice(&sum.to_be_bytes());
    content
}

/// An id as the contract has it, written down once more in another way.
fn is_id(id: &str) -> bool {
    let mut chars = id.chars();
    matches!(chars.next(), Some('A'..='Z' | 'a'..='z' | '0'..='9'))
        && chars.all(|c| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '~' | '-'))
        && id.len() <= 63
}

/// Names are exactly those of the contract.
pub fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let parts: Vec<_> = text.split('/').collect();
    let todo = matches!(parts[..], ["lists", list, "todos", id] if is_id(list) && is_id(id));
    let parsed = TodoName::parse(text);
    assert_eq!(parsed.is_some(), todo, "{text:?}");
    if let Some(name) = parsed {
        assert_eq!(name.as_str(), text);
        assert_eq!(name.parent(), format!("lists/{}", parts[1]));
        assert_eq!(name.list().as_str(), name.parent());
        assert_eq!(name.list().todo(parts[3]), Some(name.clone()));
        assert_eq!(format!("{}{}", name.list().todo_prefix(), parts[3]), text);
    }
    let list_name = ListName::parse(text);
    assert_eq!(
        list_name.is_some(),
        matches!(parts[..], ["lists", list] if is_id(list)),
        "{text:?}"
    );
    assert_eq!(list().todo(text).is_some(), is_id(text));
}

/// A refusal points into the text; what was accepted, printed and read again,
/// is the same. The same text is tried as an order.
pub fn filters(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match fuzzing::parse_filter(text) {
        Ok(filter) => {
            let mut sorted = filter.0.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted, filter.0, "sorted and without doubles");
            let printed = print(&filter);
            let again = fuzzing::parse_filter(&printed);
            assert_eq!(
                again.unwrap_or_else(|e| panic!("{printed:?}: {e:?}")),
                filter,
                "{printed:?}"
            );
        }
        Err(refused) => points_into(text, &refused),
    }
    match fuzzing::parse_order(text) {
        Ok(order) => {
            let printed = match order {
                Order::CreateTimeDesc => "create_time desc",
                Order::CreateTime => "create_time",
                Order::DueTime => "due_time",
                Order::PriorityDesc => "priority desc",
            };
            assert_eq!(fuzzing::parse_order(printed).ok(), Some(order));
        }
        Err(refused) => points_into(text, &refused),
    }
}

fn points_into(text: &str, refused: &Error) {
    let Error::FilterInvalid { position, .. } = refused else {
        panic!("{refused:?}")
    };
    assert!(
        *position <= text.chars().count(),
        "{position} is not in {text:?}"
    );
}

fn print(filter: &Filter) -> String {
    let op = |op: Op| match op {
        Op::Eq => "=",
        Op::Ne => "!=",
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        Op::Ge => ">=",
    };
    let one = |condition: &Condition| match condition {
        Condition::State(o, state) => {
            format!(
                "state {} {}",
                op(*o),
                state.as_str_name().trim_start_matches("STATE_")
            )
        }
        Condition::Priority(o, priority) => {
            format!(
                "priority {} {}",
                op(*o),
                priority.as_str_name().trim_start_matches("PRIORITY_")
            )
        }
        Condition::Label(label) => {
            format!(
                "labels:\"{}\"",
                label.replace('\\', "\\\\").replace('"', "\\\"")
            )
        }
        Condition::Due(o, due) => format!("due_time {} \"{}\"", op(*o), timestamp_from_ms(due.0)),
    };
    filter.0.iter().map(one).collect::<Vec<_>>().join(" AND ")
}

fn query() -> PageQuery {
    PageQuery {
        list: list(),
        filter: Filter::default(),
        order: Order::DueTime,
        size: 10,
        after: None,
    }
}

/// As it is; as a token's contents; and as where the page after goes on.
pub fn page_tokens(data: &[u8]) {
    let query = query();
    if let Some(text) = text(data) {
        page_token(&query, text);
    }
    let position = |key| PagePosition {
        key,
        name: todo_name(),
    };
    let head = fuzzing::encode_page_token(&query, &position(SortKey::Missing), OriginTime(1));
    let head = URL_SAFE_NO_PAD.decode(head).expect("base64");
    // Version and query stay, all that follows is the input.
    let forged = with_checksum([&head[..9], data].concat());
    page_token(&query, &URL_SAFE_NO_PAD.encode(forged));
    let Some((word, rest)) = data.split_first_chunk::<8>() else {
        return;
    };
    let word = u64::from_be_bytes(*word);
    let name = text(rest)
        .and_then(|id| list().todo(id))
        .unwrap_or_else(todo_name);
    for key in [
        SortKey::Time(word.cast_signed()),
        SortKey::Priority(word.to_le_bytes()[0]),
        SortKey::Missing,
        SortKey::Wrong,
    ] {
        let next = PagePosition {
            key,
            name: name.clone(),
        };
        let token = fuzzing::encode_page_token(&query, &next, OriginTime(word));
        assert_eq!(
            fuzzing::decode_page_token(&query, &token).ok(),
            Some((next, OriginTime(word)))
        );
        let other = PageQuery {
            order: Order::CreateTime,
            ..query.clone()
        };
        assert!(
            fuzzing::decode_page_token(&other, &token).is_err(),
            "of another query"
        );
    }
}

fn page_token(query: &PageQuery, token: &str) {
    match fuzzing::decode_page_token(query, token) {
        Ok((next, fresh_to)) => {
            let again = fuzzing::encode_page_token(query, &next, fresh_to);
            assert_eq!(again, token, "one text for one place");
        }
        Err(Error::PageTokenInvalid { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
}

/// As it is, and as a token's contents.
pub fn tokens(data: &[u8]) {
    if let Some(text) = text(data) {
        consistency_token(text);
    }
    consistency_token(&URL_SAFE_NO_PAD.encode(with_checksum(data.to_vec())));
    consistency_token(&URL_SAFE_NO_PAD.encode(with_checksum([&[1], data].concat())));
    let Some(words) = data.first_chunk::<24>() else {
        return;
    };
    let word = |at: usize| u64::from_be_bytes(words[at..at + 8].try_into().expect("eight bytes"));
    let token = Token {
        origin: OriginId(word(0)),
        seen: OriginTime(word(8)),
        fresh_to: OriginTime(word(16)),
    };
    assert_eq!(Token::decode(&token.encode()), Ok(token));
}

fn consistency_token(text: &str) {
    if let Ok(token) = Token::decode(text) {
        assert_eq!(token.encode(), text, "one text for one token");
    }
}

/// What Redis brings back under a key: as it is, and as the contents of an
/// entry of that key.
pub fn shared_entries(data: &[u8]) {
    const SCOPE: u64 = 0x0102_0304_0506_0708;
    let key = todo_name();
    let key = key.as_str();
    let opened = |raw: Vec<u8>| {
        let raw = Bytes::from(raw);
        if let Ok(stamped) = record::decode(SCOPE, key, &raw) {
            assert_eq!(
                record::encode(SCOPE, key, &stamped),
                raw,
                "one entry for one value"
            );
        }
    };
    opened(data.to_vec());
    opened(with_checksum(data.to_vec()));
    let mut head = vec![1];
    head.extend_from_slice(&SCOPE.to_be_bytes());
    let (as_of, body) = data.split_at(data.len().min(8));
    head.extend_from_slice(&[as_of, &[0; 8][as_of.len()..]].concat());
    head.extend_from_slice(&u32::try_from(key.len()).expect("short").to_be_bytes());
    head.extend_from_slice(key.as_bytes());
    opened(with_checksum([&head[..], body].concat()));
}

/// A stored document, whoever wrote it: it is a todo or says which field it has
/// wrong; and a todo, stored and read again, is the same.
pub fn documents(data: &[u8]) {
    let name = todo_name();
    match fuzzing::read_document(&name, data) {
        None | Some(Value::Absent | Value::Page(_) | Value::List(_) | Value::Lists(_)) => {}
        Some(Value::Unreadable(why)) => {
            assert!(!why.field.is_empty() && !why.problem.is_empty());
            assert!(
                why.problem.len() < 1000,
                "the text stays short: {}",
                why.problem.len()
            );
        }
        Some(Value::Todo(raw)) => {
            let todo = pb::Todo::decode(raw).expect("a todo");
            assert_eq!(todo.name, name.as_str());
            assert_eq!(todo.etag.len(), 32);
            stored_and_read(&name, &todo);
        }
    }
}

fn stored_and_read(name: &TodoName, todo: &pb::Todo) {
    let raw = fuzzing::write_document(name, todo);
    match fuzzing::read_document(name, &raw) {
        Some(Value::Todo(raw)) => {
            let again = pb::Todo::decode(raw).expect("a todo");
            let todo = pb::Todo {
                etag: again.etag.clone(),
                ..todo.clone()
            };
            assert_eq!(again, todo);
        }
        other => panic!("{todo:?} came back as {other:?}"),
    }
}

/// The lines of an import: each a todo that is valid, stays as it is when it
/// is stored, and when it is imported again from what the API writes of it.
pub fn import_lines(data: &[u8]) {
    for line in fuzzing::import(data.to_vec(), &list(), NOW_MS) {
        match line {
            Ok(None) => {}
            Ok(Some(todo)) => {
                let name = TodoName::parse(&todo.name).expect("a name");
                let mut valid = todo.clone();
                validate(&mut valid, "").expect("valid");
                assert_eq!(valid, todo);
                for time in [
                    todo.create_time,
                    todo.update_time,
                    todo.due_time,
                    todo.complete_time,
                ] {
                    assert!(
                        time.is_none_or(|time| timestamp_ms(&time).is_some()),
                        "{time:?}"
                    );
                }
                stored_and_read(&name, &todo);
                let printed = fuzzing::json_line(&todo).expect("JSON");
                let again = fuzzing::import(printed.clone().into_bytes(), &list(), NOW_MS);
                assert_eq!(again, [Ok(Some(todo))], "{printed}");
            }
            Err(problem) => assert!(!problem.is_empty()),
        }
    }
}

/// A message in JSON: refused in a text that has a bound, or decoded. A todo or a list
/// is the same after it was written and read again.
pub fn json_messages(data: &[u8]) {
    for request in [
        "CreateTodoRequest",
        "UpdateTodoRequest",
        "ListTodosRequest",
        "BatchGetTodosRequest",
        "UpdateTodoListRequest",
    ] {
        if let Err(text) = fuzzing::from_json(request, data).expect("a message") {
            assert!(!text.is_empty() && text.len() <= 2048, "{text}");
        }
    }
    if let Some(todo) = message_again::<pb::Todo>("Todo", data) {
        assert_eq!(todo.0, todo.1);
    }
    if let Some(list) = message_again::<pb::TodoList>("TodoList", data) {
        assert_eq!(list.0, list.1);
    }
}

/// The message of this JSON, and that of the JSON written of it.
fn message_again<T: prost::Message + Default>(name: &str, json: &[u8]) -> Option<(T, T)> {
    const HEAD: usize = 5;
    let decode = |encoded: &Bytes| T::decode(encoded.slice(HEAD..)).expect("encoded");
    let first = fuzzing::from_json(name, json).expect("a message").ok()?;
    let printed = fuzzing::to_json(name, &first.slice(HEAD..)).expect("JSON");
    let again = fuzzing::from_json(name, &printed).expect("a message");
    Some((decode(&first), decode(&again.expect("valid"))))
}
