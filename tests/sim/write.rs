//! What a write does to the simulated origin; the rules of the embedded one.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidemark::{
    model::{
        ChangeKind, OriginTime, Patch, RequestId, Resource, TodoName, Touched, Write, WriteDone,
        timestamp_from_ms,
    },
    origin::WriteError,
    pb::Todo,
};
use tokio::time::Instant;

use crate::{
    history::{Doc, Edit, History},
    lists,
    world::{Bug, World},
};

/// Does a write at once.
pub fn apply(
    world: &World,
    write: Write,
    request: Option<RequestId>,
) -> Result<WriteDone, WriteError> {
    if let Some(done) = request.and_then(|request| repeated(world, &request)) {
        return done;
    }
    let name = write.name();
    let Resource::Todo(todo) = &name else {
        return apply_to_list(world, write, request);
    };
    let edit = edit(world, todo, write)?;
    if let Some(RequestId { id, fingerprint }) = request {
        let mut requests = world.requests.lock().expect("no panic while locked");
        requests.insert(id, (fingerprint, name.clone()));
    }
    let Some(edit) = edit else {
        return Ok(WriteDone {
            body: Bytes::new(),
            time: world.history().last,
        });
    };
    let body = edit
        .doc
        .as_ref()
        .map_or_else(Bytes::new, |doc| doc.bytes.clone());
    let time = world.commit(|history, at| history.commit(at, vec![edit]));
    world.say(format_args!("commit {time} {name}"));
    Ok(WriteDone {
        body,
        time: told(world, time),
    })
}

/// A write of a list. Its todos are deleted before its document.
fn apply_to_list(
    world: &World,
    write: Write,
    request: Option<RequestId>,
) -> Result<WriteDone, WriteError> {
    let name = write.name();
    let lists::Done { todos, list } = lists::edit(&world.history(), write)?;
    if let Some(RequestId { id, fingerprint }) = request {
        let mut requests = world.requests.lock().expect("no panic while locked");
        requests.insert(id, (fingerprint, name.clone()));
    }
    let doc = list.doc.as_ref();
    let body = doc.map_or_else(Bytes::new, |doc| doc.list.encode_to_vec().into());
    for todo in todos {
        world.commit(|history, at| history.commit(at, vec![todo]));
    }
    let time = world.commit(|history, at| {
        let time = history.commit_with_lists(at, Vec::new(), vec![list]);
        let doc = history.list_doc_at(&name.list(), time);
        world.say(format_args!("list {name} {time} {doc:?}"));
        time
    });
    world.say(format_args!("commit {time} {name}"));
    Ok(WriteDone {
        body,
        time: told(world, time),
    })
}

/// An upper bound of the time, as the contract has it.
fn told(world: &World, time: OriginTime) -> OriginTime {
    if world.has(Bug::WriteTimeTooLow) {
        OriginTime(time.0 - world.rng().of(0..3))
    } else {
        time
    }
}

fn repeated(world: &World, request: &RequestId) -> Option<Result<WriteDone, WriteError>> {
    let requests = world.requests.lock().expect("no panic while locked");
    let (fingerprint, name) = requests.get(&request.id)?;
    if *fingerprint != request.fingerprint {
        return Some(Err(WriteError::RequestIdReused));
    }
    let history = world.history();
    let body = match name {
        Resource::Todo(name) => {
            let doc = history.doc_at(name, history.last);
            doc.map_or_else(Bytes::new, |doc| doc.bytes.clone())
        }
        Resource::List(name) => {
            let doc = history.list_doc_at(name, history.last);
            doc.map_or_else(Bytes::new, |doc| doc.list.encode_to_vec().into())
        }
    };
    Some(Ok(WriteDone {
        body,
        time: history.last,
    }))
}

/// The edit of a write, if it is not refused; `None`: there is nothing to do.
fn edit(world: &World, name: &TodoName, write: Write) -> Result<Option<Edit>, WriteError> {
    let history = world.history();
    let (at, wall) = (history.last, history.wall_ms(Instant::now()));
    let old = history.doc_at(name, at).map(Arc::clone);
    match write {
        Write::Create { name, todo } => match old {
            Some(_) => Err(WriteError::AlreadyExists { at }),
            None => Ok(Some(created(
                name.clone(),
                Patch::all_of(&todo).create(name.as_str(), wall),
            ))),
        },
        Write::Update {
            name,
            patch,
            etag,
            allow_missing,
        } => match old {
            None if allow_missing && etag.is_none() => Ok(Some(created(
                name.clone(),
                patch.create(name.as_str(), wall),
            ))),
            None => Err(WriteError::NotFound { at }),
            Some(old) => {
                check(&old, etag.as_ref(), at)?;
                Ok(Some(updated(
                    name,
                    &old.todo,
                    patch.apply(old.todo.clone(), wall),
                )))
            }
        },
        Write::Delete {
            name,
            etag,
            allow_missing,
        } => match old {
            None if allow_missing => Ok(None),
            None => Err(WriteError::NotFound { at }),
            Some(old) => {
                if let Some(etag) = etag.filter(|etag| *etag != old.etag()) {
                    drop(etag);
                    return Err(WriteError::EtagMismatch {
                        current: old.etag(),
                        at,
                    });
                }
                Ok(Some(deleted(name)))
            }
        },
        Write::CreateList { .. } | Write::UpdateList { .. } | Write::DeleteList { .. } => {
            unreachable!("a write of a list")
        }
    }
}

fn check(old: &Doc, etag: Option<&String>, at: OriginTime) -> Result<(), WriteError> {
    if etag.is_some_and(|etag| *etag != old.etag()) {
        return Err(WriteError::EtagMismatch {
            current: old.etag(),
            at,
        });
    }
    if old.unreadable {
        let (field, problem) = ("title".into(), "is an int".into());
        return Err(WriteError::Unreadable { field, problem, at });
    }
    Ok(())
}

fn created(name: TodoName, todo: Todo) -> Edit {
    Edit {
        name,
        doc: Some(Doc::new(todo, false)),
        kind: ChangeKind::Created,
        touched: Touched::All,
    }
}

pub fn deleted(name: TodoName) -> Edit {
    Edit {
        name,
        doc: None,
        kind: ChangeKind::Deleted,
        touched: Touched::All,
    }
}

fn updated(name: TodoName, old: &Todo, new: Todo) -> Edit {
    let fields = [
        ("title", old.title != new.title),
        ("state", old.state != new.state),
        ("priority", old.priority != new.priority),
        ("labels.0", old.labels != new.labels),
        ("due_time", old.due_time != new.due_time),
        ("create_time", old.create_time != new.create_time),
        ("complete_time", old.complete_time != new.complete_time),
    ];
    let paths = fields
        .into_iter()
        .filter(|(_, touched)| *touched)
        .map(|(path, _)| path.into())
        .collect();
    let (doc, touched) = (Some(Doc::new(new, false)), Touched::Paths(paths));
    Edit {
        name,
        doc,
        kind: ChangeKind::Updated,
        touched,
    }
}

/// What somebody does to a todo straight in the database.
pub fn by_hand(world: &World, history: &History, name: TodoName, title: &str) -> Edit {
    let mut rng = world.rng();
    let wall = history.wall_ms(Instant::now());
    let fresh = |rng: &mut crate::rng::Rng| fields(rng, title).create(name.as_str(), wall);
    let Some(old) = history.doc_at(&name, history.last) else {
        let todo = fresh(&mut rng);
        return created(name, todo);
    };
    match rng.of(0..10) {
        0 | 1 => deleted(name),
        2 => {
            let (doc, touched) = (Some(Doc::new(fresh(&mut rng), false)), Touched::All);
            Edit {
                name,
                doc,
                kind: ChangeKind::Replaced,
                touched,
            }
        }
        3 => {
            let (doc, touched) = (
                Doc::new(old.todo.clone(), true),
                Touched::Paths(vec!["title".into()]),
            );
            Edit {
                name,
                doc: Some(doc),
                kind: ChangeKind::Updated,
                touched,
            }
        }
        4 => {
            let create_time = Some(timestamp_from_ms(
                wall - i64::try_from(rng.of(0..5000)).expect("small"),
            ));
            let new = Todo {
                title: title.to_owned(),
                create_time,
                ..old.todo.clone()
            };
            updated(name, &old.todo, new)
        }
        _ => {
            let new = fields(&mut rng, title).apply(old.todo.clone(), wall);
            updated(name, &old.todo, new)
        }
    }
}

/// Some fields, and a title that no other write has.
pub fn fields(rng: &mut crate::rng::Rng, title: &str) -> Patch {
    let mut patch = Patch {
        title: Some(title.to_owned()),
        ..Patch::default()
    };
    if rng.chance(40) {
        patch.state = Some(rng.pick(&[
            tidemark::pb::todo::State::Active,
            tidemark::pb::todo::State::Completed,
        ]));
    }
    if rng.chance(30) {
        use tidemark::pb::todo::Priority;
        patch.priority = Some(rng.pick(&[
            Priority::Low,
            Priority::Normal,
            Priority::High,
            Priority::Urgent,
        ]));
    }
    if rng.chance(20) {
        patch.labels = Some(vec![rng.pick(&["x", "y"]).to_owned()]);
    }
    if rng.chance(30) {
        let ms = i64::try_from(rng.of(0..1000)).expect("small") * 1000;
        patch.due_time = Some(rng.chance(80).then(|| timestamp_from_ms(ms)));
    }
    patch
}
