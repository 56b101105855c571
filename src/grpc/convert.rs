//! Parses requests. Each field is bounded before it is worked on, and all
//! problems of a request are reported at once.

use std::{collections::HashSet, time::Duration};

use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{filter, page_token};
use crate::{
    cache::{Consistency, ReadOptions, WatchRequest},
    error::{Error, FieldProblem, shorten},
    model::{
        LIMITS, ListName, OriginId, OriginTime, PageQuery, Patch, RequestId, TodoName, Token,
        TokenProblem, Write, timestamp_from_ms, validate,
    },
    pb::{self, consistency::Requirement},
};

/// Most names of one request (part of the contract: see the proto).
const MAX_NAMES: usize = 1000;
/// Wrong names of one request that are described: more than an error shows.
const MAX_DESCRIBED: usize = 16;
/// Page size if none is given, and the largest page (see the proto).
const PAGE_SIZE: i32 = 50;
const MAX_PAGE_SIZE: i32 = 1000;
/// Progress interval of a watch: the default, and the least that is allowed (see
/// the proto). More than a day is as good as never.
const PROGRESS: Duration = Duration::from_secs(10);
const MIN_PROGRESS: Duration = Duration::from_secs(1);
const MAX_PROGRESS: Duration = Duration::from_secs(24 * 3600);
/// Most tokens presented together: more side by side than any client reads.
const MAX_TOKENS: usize = 100;
/// Longest text of tokens in characters: a token has 44, and spaces follow.
const MAX_TOKENS_CHARS: usize = MAX_TOKENS * 64;
/// Most paths of an update mask: each of the eleven fields twice, and some.
const MAX_MASK_PATHS: usize = 32;
/// Longest etag in characters: those of this service have fewer.
const MAX_ETAG_CHARS: usize = 256;

const TODO_NAME: &str = "is not a valid todo name: expected lists/{list}/todos/{todo}, with ids of 1 to 63 characters \
                         A-Z a-z 0-9 . _ ~ - that begin with a letter or digit";
const LIST_NAME: &str = "is not a valid list name: expected lists/{list}, with an id of 1 to 63 characters \
                         A-Z a-z 0-9 . _ ~ - that begins with a letter or digit";

pub(super) const ID: &str = "is not a valid id; ids have 1 to 63 characters A-Z a-z 0-9 . _ ~ - and begin with a letter or digit";

/// A todo's name.
///
/// # Errors
/// `FieldInvalid` on this field.
pub fn todo_name(field: &str, name: &str) -> Result<TodoName, FieldProblem> {
    TodoName::parse(name).ok_or_else(|| FieldProblem::new(field, name, TODO_NAME))
}

pub(super) fn list_name(field: &str, name: &str) -> Result<ListName, FieldProblem> {
    ListName::parse(name).ok_or_else(|| FieldProblem::new(field, name, LIST_NAME))
}

/// Up to 1000 names.
///
/// # Errors
/// `FieldInvalid` on each wrong one.
pub fn names(names: &[String]) -> Result<Vec<TodoName>, Error> {
    if names.len() > MAX_NAMES {
        let problem = format!(
            "holds {} names; at most {MAX_NAMES} are allowed",
            names.len()
        );
        return Err(FieldProblem::new("names", "", problem).into());
    }
    let mut problems = Vec::new();
    let mut parsed = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        match TodoName::parse(name) {
            Some(name) => parsed.push(name),
            None if problems.len() < MAX_DESCRIBED => {
                problems.push(FieldProblem::new(format!("names[{at}]"), name, TODO_NAME));
            }
            // Counted only: describing a thousand takes a millisecond.
            None => problems.push(FieldProblem::default()),
        }
    }
    if problems.is_empty() {
        Ok(parsed)
    } else {
        Err(Error::FieldInvalid(problems))
    }
}

/// What a token text stands for: of several, the newest `seen` and the least
/// `fresh_to`.
///
/// # Errors
/// `TokenInvalid`, `TokenForeign`.
pub fn token(field: &'static str, text: &str, origin: OriginId) -> Result<Token, Error> {
    let invalid = |problem: &str| Error::TokenInvalid {
        field,
        value: shorten(text),
        problem: problem.into(),
    };
    if text.len() > MAX_TOKENS_CHARS {
        return Err(invalid(
            "is longer than 100 tokens; keep only the last of each line of reads",
        ));
    }
    let mut all: Option<Token> = None;
    for (at, one) in text.split(' ').filter(|one| !one.is_empty()).enumerate() {
        if at == MAX_TOKENS {
            return Err(invalid(
                "holds more than 100 tokens; keep only the last of each line of reads",
            ));
        }
        let one = Token::decode(one).map_err(|problem| match problem {
            TokenProblem::Malformed => {
                invalid("is not one that this service gave; pass tokens on as they are")
            }
            TokenProblem::Version => {
                invalid("is of another version of this service; read again to get a new one")
            }
        })?;
        if one.origin != origin {
            return Err(Error::TokenForeign {
                field,
                value: shorten(text),
            });
        }
        all = Some(all.map_or(one, |all| Token {
            origin,
            seen: all.seen.max(one.seen),
            fresh_to: all.fresh_to.min(one.fresh_to),
        }));
    }
    all.ok_or_else(|| match field {
        "after" => invalid("is empty; leave it out to begin now"),
        _ => invalid("is empty; leave consistency out if there is no token yet"),
    })
}

/// How fresh the caller wants the answer.
///
/// # Errors
/// `FieldInvalid`, `TokenInvalid`, `TokenForeign`.
pub fn read_options(
    consistency: Option<pb::Consistency>,
    deadline: Option<Instant>,
    origin: OriginId,
) -> Result<ReadOptions, Error> {
    let flag = |name: &str, set: bool, consistency: Consistency| {
        let path = format!("consistency.{name}");
        let problem =
            "is false; set the one consistency that is wanted to true, or leave consistency out";
        if set {
            Ok(consistency)
        } else {
            Err(Error::from(FieldProblem::new(path, "false", problem)))
        }
    };
    let consistency = match consistency.and_then(|consistency| consistency.requirement) {
        None => Consistency::MinimizeLatency,
        Some(Requirement::MinimizeLatency(set)) => {
            flag("minimize_latency", set, Consistency::MinimizeLatency)?
        }
        Some(Requirement::FullyConsistent(set)) => {
            flag("fully_consistent", set, Consistency::FullyConsistent)?
        }
        Some(Requirement::CachedOnly(set)) => flag("cached_only", set, Consistency::CachedOnly)?,
        Some(Requirement::MaxStaleness(d)) => {
            Consistency::MaxStaleness(duration("consistency.max_staleness", &d)?)
        }
        Some(Requirement::AtLeastAsFresh(text)) => {
            let token = token("consistency.at_least_as_fresh", &text, origin)?;
            Consistency::AtLeastAsFresh(token.seen)
        }
    };
    Ok(ReadOptions {
        consistency,
        deadline,
        caller: None,
        identity: None,
    })
}

fn duration(field: &str, d: &prost_types::Duration) -> Result<Duration, FieldProblem> {
    let (seconds, nanos) = (u64::try_from(d.seconds), u32::try_from(d.nanos));
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(FieldProblem::new(
            field,
            format!("{}s {}ns", d.seconds, d.nanos),
            "is not a valid duration: it must not be negative, with 0 to 999999999 nanoseconds",
        )),
    }
}

/// The size of a page.
pub(super) fn page_size(size: i32) -> Result<u32, FieldProblem> {
    let size = if size == 0 { PAGE_SIZE } else { size };
    let problem = "is negative; use 1 to 1000, or 0 for 50";
    u32::try_from(size.min(MAX_PAGE_SIZE))
        .map_err(|_| FieldProblem::new("page_size", size.to_string(), problem))
}

/// The page that is asked for, and the least `fresh_to` of the pages before.
///
/// # Errors
/// `FieldInvalid`, `FilterInvalid`, `PageTokenInvalid`.
pub fn page_query(
    request: &pb::ListTodosRequest,
) -> Result<(PageQuery, Option<OriginTime>), Error> {
    let list = list_name("parent", &request.parent)?;
    let size = page_size(request.page_size)?;
    let filter = filter::parse_filter(&request.filter)?;
    let order = filter::parse_order(&request.order_by)?;
    let mut query = PageQuery {
        list,
        filter,
        order,
        size,
        after: None,
    };
    if request.page_token.is_empty() {
        return Ok((query, None));
    }
    let (after, carried) = page_token::decode(&query, &request.page_token)?;
    query.after = Some(after);
    Ok((query, Some(carried)))
}

/// The same request id and fingerprint are the same request.
pub(super) fn request_id(
    call: &str,
    id: &str,
    contents: &impl Message,
) -> Result<Option<RequestId>, FieldProblem> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = Uuid::try_parse(id).map_err(|_| {
        let problem = "is not a UUID; use one such as those of version 4";
        FieldProblem::new("request_id", id, problem)
    })?;
    // What a program sends that forgot to make one; two such requests are not the same.
    if id.is_nil() {
        let problem = "is the nil UUID; use a new UUID for each request";
        return Err(FieldProblem::new("request_id", id.to_string(), problem));
    }
    let mut hash = blake3::Hasher::new();
    hash.update(call.as_bytes())
        .update(&contents.encode_to_vec());
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    Ok(Some(RequestId { id, fingerprint }))
}

/// What is to be created.
///
/// # Errors
/// `FieldInvalid` with all that is wrong.
pub fn create(
    mut request: pb::CreateTodoRequest,
    now_ms: i64,
) -> Result<(Write, Option<RequestId>), Error> {
    let id = std::mem::take(&mut request.request_id);
    let mut problems = Vec::new();
    let mut keep = |problem: FieldProblem| problems.push(problem);
    let list = list_name("parent", &request.parent).map_err(&mut keep).ok();
    let request_id = request_id("create", &id, &request).map_err(&mut keep).ok();
    let id = if request.todo_id.is_empty() {
        Uuid::now_v7().to_string()
    } else {
        request.todo_id
    };
    let name = list.as_ref().and_then(|list| list.todo(&id));
    if list.is_some() && name.is_none() {
        keep(FieldProblem::new("todo_id", &id, ID));
    }
    let mut given = request.todo.unwrap_or_default();
    if let Err(wrong) = validate(&mut given, "todo.") {
        problems.extend(wrong);
    }
    match (name, request_id) {
        (Some(name), Some(request_id)) if problems.is_empty() => {
            let mut todo = Patch::all_of(&given).create(name.as_str(), now_ms);
            todo.create_time = Some(timestamp_from_ms(now_ms));
            Ok((Write::Create { name, todo }, request_id))
        }
        _ => Err(Error::FieldInvalid(problems)),
    }
}

/// What is to be changed.
///
/// # Errors
/// `FieldInvalid` with all that is wrong.
pub fn update(mut request: pb::UpdateTodoRequest) -> Result<(Write, Option<RequestId>), Error> {
    if let Some(mask) = &request.update_mask {
        check_mask(&mask.paths)?;
    }
    let id = std::mem::take(&mut request.request_id);
    let request_id = request_id("update", &id, &request)?;
    let todo = request.todo.unwrap_or_default();
    let name = todo_name("todo.name", &todo.name)?;
    let patch = patch(&todo, request.update_mask.as_ref())?;
    let etag = etag("todo.etag", todo.etag)?;
    Ok((
        Write::Update {
            name,
            patch,
            etag,
            allow_missing: request.allow_missing,
        },
        request_id,
    ))
}

/// The etag that a write depends on; `None` if it is empty.
pub(super) fn etag(field: &str, etag: String) -> Result<Option<String>, FieldProblem> {
    if etag.len() > MAX_ETAG_CHARS {
        let problem = "is not an etag of this service; pass it on as it was read";
        return Err(FieldProblem::new(field, etag, problem));
    }
    Ok(Some(etag).filter(|etag| !etag.is_empty()))
}

/// The fields of the mask; without one, those that are set.
fn patch(todo: &pb::Todo, mask: Option<&prost_types::FieldMask>) -> Result<Patch, Error> {
    let is_set = |field: &str| match field {
        "title" => !todo.title.is_empty(),
        "notes" => !todo.notes.is_empty(),
        "state" => todo.state != 0,
        "priority" => todo.priority != 0,
        "labels" => !todo.labels.is_empty(),
        _ => todo.due_time.is_some(),
    };
    const FIELDS: [&str; 6] = ["title", "notes", "state", "priority", "labels", "due_time"];
    let paths = mask
        .map(|mask| mask.paths.as_slice())
        .filter(|paths| !paths.is_empty());
    let wanted: HashSet<&str> = match paths {
        None => FIELDS.into_iter().filter(|field| is_set(field)).collect(),
        Some([all]) if all == "*" => FIELDS.into_iter().collect(),
        Some(paths) => paths.iter().map(String::as_str).collect(),
    };
    let mut valid = todo.clone();
    let problems = validate(&mut valid, "todo.").err().unwrap_or_default();
    let concerns = |problem: &FieldProblem| {
        let path = problem.field.trim_start_matches("todo.");
        wanted.contains(path.split('[').next().unwrap_or(path))
    };
    let problems: Vec<_> = problems.into_iter().filter(concerns).collect();
    if !problems.is_empty() {
        return Err(Error::FieldInvalid(problems));
    }
    let all = Patch::all_of(&valid);
    Ok(Patch {
        title: all.title.filter(|_| wanted.contains("title")),
        notes: all.notes.filter(|_| wanted.contains("notes")),
        state: all.state.filter(|_| wanted.contains("state")),
        priority: all.priority.filter(|_| wanted.contains("priority")),
        labels: all.labels.filter(|_| wanted.contains("labels")),
        due_time: all.due_time.filter(|_| wanted.contains("due_time")),
    })
}

/// Output-only fields in a mask are ignored like those in the todo.
fn check_mask(paths: &[String]) -> Result<(), Error> {
    const WRITABLE: &str = "title, notes, state, priority, labels, due_time";
    const KNOWN: [&str; 11] = [
        "title",
        "notes",
        "state",
        "priority",
        "labels",
        "due_time",
        "name",
        "create_time",
        "update_time",
        "complete_time",
        "etag",
    ];
    check_paths(paths, &KNOWN, WRITABLE)
}

/// Checks that the paths of a mask are of these fields.
pub(super) fn check_paths(paths: &[String], known: &[&str], writable: &str) -> Result<(), Error> {
    if paths.len() > MAX_MASK_PATHS {
        let count = paths.len();
        let problem = format!("holds {count} paths; at most {MAX_MASK_PATHS} are allowed");
        return Err(FieldProblem::new("update_mask", "", problem).into());
    }
    if paths == ["*"] {
        return Ok(());
    }
    let unknown = paths.iter().filter(|path| !known.contains(&path.as_str()));
    let problems: Vec<_> = unknown
        .map(|path| {
            let problem = format!("is not a field that can be changed; use {writable}, or * alone");
            FieldProblem::new("update_mask", path, problem)
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::FieldInvalid(problems))
    }
}

/// What is to be deleted.
///
/// # Errors
/// `FieldInvalid`.
pub fn delete(request: pb::DeleteTodoRequest) -> Result<Write, Error> {
    let name = todo_name("name", &request.name)?;
    let etag = etag("etag", request.etag)?;
    Ok(Write::Delete {
        name,
        etag,
        allow_missing: request.allow_missing,
    })
}

/// What is to be watched; `after` is not compared with the origin's time yet.
///
/// # Errors
/// `FieldInvalid`, `TokenInvalid`, `TokenForeign`.
pub fn watch(request: &pb::WatchTodosRequest, origin: OriginId) -> Result<WatchRequest, Error> {
    let list = match request.parent.as_str() {
        "lists/-" => None,
        parent => Some(list_name("parent", parent)?),
    };
    let names = names(&request.names)?;
    if let Some(list) = &list
        && let Some(other) = names.iter().find(|name| name.parent() != list.as_str())
    {
        let problem = format!("is not in {list}; watch lists/- for todos of several lists");
        return Err(FieldProblem::new("names", other.as_str(), problem).into());
    }
    let presented = match &request.start {
        Some(pb::watch_todos_request::Start::After(text)) => Some(token("after", text, origin)?),
        None => None,
    };
    let (after, seen) = (
        presented.map(|token| token.fresh_to),
        presented.map(|token| token.seen),
    );
    let progress_interval = match &request.progress_interval {
        None => PROGRESS,
        Some(d) => duration("progress_interval", d)?.min(MAX_PROGRESS),
    };
    if progress_interval < MIN_PROGRESS {
        let value = format!("{progress_interval:?}");
        return Err(
            FieldProblem::new("progress_interval", value, "is too short; use 1s or more").into(),
        );
    }
    let names = names.into_iter().collect();
    let seen = seen.unwrap_or_default();
    Ok(WatchRequest {
        right_on: std::sync::Arc::default(),
        list,
        names,
        after,
        seen,
        include_todo: request.include_todo,
        progress_interval,
        closing: CancellationToken::new(),
        caller: None,
    })
}

const _: () = assert!(
    LIMITS.title == 1024,
    "the texts here and in the proto name the limits"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Token;

    const ORIGIN: OriginId = OriginId(7);

    fn reason(error: &Error) -> String {
        format!("{error}")
    }

    fn todo(title: &str) -> pb::Todo {
        pb::Todo {
            name: "lists/home/todos/1".into(),
            title: title.into(),
            ..pb::Todo::default()
        }
    }

    #[test]
    fn tokens_cut_or_flipped_anywhere_are_refused() {
        let text = Token {
            origin: ORIGIN,
            seen: OriginTime(9),
            fresh_to: OriginTime(5),
        }
        .encode();
        assert_eq!(
            token("after", &text, ORIGIN).expect("right").seen,
            OriginTime(9)
        );
        for at in 0..text.len() {
            assert!(
                matches!(
                    token("after", &text[..at], ORIGIN),
                    Err(Error::TokenInvalid { .. })
                ),
                "cut at {at}"
            );
            for with in *b"A_z" {
                let mut flipped = text.clone().into_bytes();
                if flipped[at] == with {
                    continue;
                }
                flipped[at] = with;
                let flipped = String::from_utf8(flipped).expect("ascii");
                assert!(
                    matches!(
                        token("after", &flipped, ORIGIN),
                        Err(Error::TokenInvalid { .. })
                    ),
                    "flipped at {at}"
                );
            }
        }
        assert!(matches!(
            token("after", &text, OriginId(8)),
            Err(Error::TokenForeign { .. })
        ));
    }

    #[test]
    fn of_several_tokens_reads_use_the_newest_and_watches_the_least() {
        let one = |seen, fresh_to| {
            Token {
                origin: ORIGIN,
                seen: OriginTime(seen),
                fresh_to: OriginTime(fresh_to),
            }
            .encode()
        };
        let both =
            token("after", &format!(" {}  {} ", one(9, 5), one(3, 7)), ORIGIN).expect("right");
        assert_eq!((both.seen, both.fresh_to), (OriginTime(9), OriginTime(5)));
    }

    #[test]
    fn false_and_negative_levels_are_refused() {
        let level = |requirement| {
            let requirement = Some(requirement);
            let options = read_options(Some(pb::Consistency { requirement }), None, ORIGIN);
            options.map(|options| options.consistency)
        };
        assert!(level(Requirement::FullyConsistent(false)).is_err());
        let duration =
            |seconds, nanos| Requirement::MaxStaleness(prost_types::Duration { seconds, nanos });
        assert!(level(duration(-1, 0)).is_err());
        assert!(level(duration(1, -5)).is_err());
        assert_eq!(
            level(duration(1, 500)).expect("right"),
            Consistency::MaxStaleness(Duration::new(1, 500))
        );
    }

    #[test]
    fn without_a_mask_the_fields_that_are_set_change() {
        let request = |mask: Option<&[&str]>, todo: pb::Todo| pb::UpdateTodoRequest {
            todo: Some(todo),
            update_mask: mask.map(|paths| prost_types::FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..pb::UpdateTodoRequest::default()
        };
        let patch = |request| match update(request) {
            Ok((Write::Update { patch, .. }, _)) => patch,
            other => panic!("{other:?}"),
        };
        let none = patch(request(None, todo("Milk")));
        assert_eq!((none.title.as_deref(), none.notes), (Some("Milk"), None));
        let all = patch(request(Some(&["*"]), todo("Milk")));
        assert_eq!(
            (all.notes.as_deref(), all.labels, all.due_time),
            (Some(""), Some(vec![]), Some(None))
        );
        let empty_title = update(request(Some(&["title"]), todo("")));
        assert!(reason(&empty_title.expect_err("refused")).contains("title"));
        let unknown = update(request(Some(&["colour"]), todo("Milk")));
        assert!(reason(&unknown.expect_err("refused")).contains("colour"));
        patch(request(Some(&["update_time", "etag"]), todo("Milk")));
    }

    #[test]
    fn limits_count_characters() {
        let create = |todo| {
            let todo = Some(todo);
            create(
                pb::CreateTodoRequest {
                    parent: "lists/home".into(),
                    todo,
                    ..Default::default()
                },
                0,
            )
        };
        assert!(create(todo(&"ö".repeat(1024))).is_ok());
        assert!(create(todo(&"ö".repeat(1025))).is_err());
        assert!(create(todo("")).is_err());
        assert!(
            create(pb::Todo {
                notes: "ö".repeat(8193),
                ..todo("x")
            })
            .is_err()
        );
        assert!(
            create(pb::Todo {
                labels: vec!["a".into(); 33],
                ..todo("x")
            })
            .is_err()
        );
        assert!(
            create(pb::Todo {
                labels: vec!["ö".repeat(65)],
                ..todo("x")
            })
            .is_err()
        );
        assert!(
            create(pb::Todo {
                state: 77,
                ..todo("x")
            })
            .is_err()
        );
        let far = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert!(
            create(pb::Todo {
                due_time: Some(far),
                ..todo("x")
            })
            .is_err()
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let request = pb::CreateTodoRequest {
            parent: "home".into(),
            todo_id: "-".into(),
            request_id: "7".into(),
            ..Default::default()
        };
        match create(request, 0) {
            Err(Error::FieldInvalid(problems)) => {
                let fields: Vec<_> = problems.iter().map(|p| p.field.as_str()).collect();
                assert_eq!(fields, ["parent", "request_id", "todo.title"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn watched_names_must_be_of_the_parent() {
        let request = |parent: &str, name: &str| pb::WatchTodosRequest {
            parent: parent.into(),
            names: vec![name.into()],
            ..Default::default()
        };
        assert!(watch(&request("lists/home", "lists/work/todos/1"), ORIGIN).is_err());
        assert!(watch(&request("lists/-", "lists/work/todos/1"), ORIGIN).is_ok());
        let half = Some(prost_types::Duration {
            seconds: 0,
            nanos: 500_000_000,
        });
        let short = pb::WatchTodosRequest {
            progress_interval: half,
            ..request("lists/-", "lists/work/todos/1")
        };
        assert!(watch(&short, ORIGIN).is_err());
    }
}
