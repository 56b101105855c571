//! Writers, by the service and straight in the database. Each owns some todos
//! and is the only one that writes them.

use std::{sync::Arc, time::Duration};

use mongodb::{
    Client as Plain, ClientSession, Collection,
    bson::{DateTime, Document, Timestamp, doc},
    error::{Error, ErrorKind, WriteFailure},
};
use tidemark::pb::consistency::Requirement;
use tokio::time::{sleep, timeout};

use crate::{
    api::{self, Client, Failed},
    history::{Fate, title},
    readers::Shift,
    world::{DATABASE, Random},
};

/// Time for a write straight in the database.
const PLAIN_LIMIT: Duration = Duration::from_secs(12);
/// Todos of a transaction or bulk write.
const TOGETHER: usize = 3;
/// Tries of a write with a request id whose fate is unknown.
const SAME_REQUEST: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Here,
    Gone,
    /// Something of unknown fate went before.
    Unsure,
}

struct Todo {
    name: String,
    state: State,
    /// A create of unknown fate: it may yet take place.
    loose_create: bool,
}

pub struct Writer {
    shift: Arc<Shift>,
    replicas: Vec<Client>,
    plain: Plain,
    todos: Vec<Todo>,
    random: Random,
    pause: Duration,
    /// For names that nobody had.
    number: usize,
    next: usize,
}

/// Todos that each writer owns.
const OWNED: usize = 16;

/// What a driver's error says of a write.
fn fate_of(error: &Error) -> Fate {
    match *error.kind {
        ErrorKind::Write(WriteFailure::WriteError(ref e)) if e.code == 11000 => Fate::Refused,
        _ => Fate::Unknown,
    }
}

fn time(session: &ClientSession) -> u64 {
    session.operation_time().map_or(u64::MAX, |t: Timestamp| {
        u64::from(t.time) << 32 | u64::from(t.increment)
    })
}

impl Writer {
    pub fn new(
        shift: &Arc<Shift>,
        replicas: Vec<Client>,
        plain: Plain,
        number: usize,
        pause: Duration,
        seed: u64,
    ) -> Self {
        let shift = Arc::clone(shift);
        let mut writer = Self {
            shift,
            replicas,
            plain,
            todos: vec![],
            random: Random(seed),
            pause,
            number,
            next: 0,
        };
        writer.todos = (0..OWNED).map(|_| writer.new_todo()).collect();
        writer
    }

    fn new_todo(&mut self) -> Todo {
        let list = self.random.pick(&self.shift.lists).clone();
        self.next += 1;
        let name = format!("{list}/todos/w{}-{}", self.number, self.next);
        Todo {
            name,
            state: State::Gone,
            loose_create: false,
        }
    }

    fn collection(&self) -> Collection<Document> {
        self.plain.database(DATABASE).collection("todos")
    }

    pub async fn run(mut self) {
        while !self.shift.ended() {
            let at = self.random.below(self.todos.len());
            let by_service = self.random.below(2) == 0;
            match (self.todos[at].state, self.random.below(12)) {
                (State::Unsure, _) => self.settle(at).await,
                (State::Gone, _) if by_service => self.create(at).await,
                (State::Gone, _) => self.insert(at).await,
                (State::Here, 0) if by_service => self.delete(at).await,
                (State::Here, 0) => self.delete_plainly(at).await,
                (State::Here, _) if by_service => self.update(at).await,
                (State::Here, 1..=5) => self.update_plainly(at).await,
                (State::Here, 6..=7) => self.replace(at).await,
                (State::Here, 8..=9) => self.transaction().await,
                (State::Here, _) => self.bulk().await,
            }
            sleep(self.pause).await;
        }
    }

    /// Notes what became of a write; `delete`: what it was.
    fn ended(&mut self, at: usize, version: u64, delete: bool, fate: Fate) {
        let todo = &mut self.todos[at];
        self.shift.history.end(&todo.name, version, fate);
        match fate {
            Fate::Acked { .. } => todo.state = if delete { State::Gone } else { State::Here },
            Fate::Unknown => todo.state = State::Unsure,
            Fate::Refused | Fate::Flying => {}
        }
    }

    /// Finds out where a todo stands: a write that takes place only if the
    /// todo is there and older. Once it has, nothing older can take place.
    async fn settle(&mut self, at: usize) {
        match self.conditional(at, "plain settle").await {
            Some(0) if self.todos[at].loose_create => self.todos[at] = self.new_todo(),
            Some(0) => self.todos[at].state = State::Gone,
            _ => {}
        }
    }

    async fn update_plainly(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        if self.conditional(at, "plain update").await == Some(0) {
            self.shift.history.violation(format!(
                "{name} is not there, though its writes were acknowledged"
            ));
            self.todos[at].state = State::Unsure;
        }
    }

    /// An update that takes place only on an older version; how many it met.
    async fn conditional(&mut self, at: usize, kind: &'static str) -> Option<u64> {
        let name = self.todos[at].name.clone();
        let version = self.shift.history.begin(&name, false);
        let (filter, set) = (
            older(&name, version),
            doc! { "$set": { "title": title(version) } },
        );
        let todos = self.collection();
        let done = self
            .plainly(kind, async |session| {
                Ok(todos
                    .update_one(filter, set)
                    .session(session)
                    .await?
                    .matched_count)
            })
            .await;
        let (fate, matched) = match done {
            Ok((0, _)) => (Fate::Refused, Some(0)),
            Ok((n, at)) => (Fate::Acked { at }, Some(n)),
            Err(fate) => (fate, None),
        };
        self.ended(at, version, false, fate);
        matched
    }

    async fn replace(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        let todos = self.collection();
        let Ok(Ok(Some(mut new))) = timeout(PLAIN_LIMIT, async {
            todos.find_one(doc! { "_id": &name }).await
        })
        .await
        else {
            return;
        };
        let version = self.shift.history.begin(&name, false);
        new.insert("title", title(version));
        let filter = older(&name, version);
        let done = self
            .plainly("plain replace", async |session| {
                Ok(todos
                    .replace_one(filter, new)
                    .session(session)
                    .await?
                    .matched_count)
            })
            .await;
        let fate = match done {
            Ok((0, _)) => Fate::Refused,
            Ok((_, at)) => Fate::Acked { at },
            Err(fate) => fate,
        };
        self.ended(at, version, false, fate);
    }

    async fn delete_plainly(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        let version = self.shift.history.begin(&name, true);
        let (filter, todos) = (older(&name, version), self.collection());
        let done = self
            .plainly("plain delete", async |session| {
                Ok(todos
                    .delete_one(filter)
                    .session(session)
                    .await?
                    .deleted_count)
            })
            .await;
        let fate = match done {
            Ok((0, _)) => Fate::Refused,
            Ok((_, at)) => Fate::Acked { at },
            Err(fate) => fate,
        };
        self.ended(at, version, true, fate);
    }

    async fn insert(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        let version = self.shift.history.begin(&name, false);
        let (document, todos) = (document(&name, version), self.collection());
        let done = self
            .plainly("plain insert", async |session| {
                todos.insert_one(document).session(session).await.map(|_| 1)
            })
            .await;
        let fate = done.map_or_else(|fate| fate, |(_, at)| Fate::Acked { at });
        self.created(at, version, fate);
    }

    fn created(&mut self, at: usize, version: u64, fate: Fate) {
        self.todos[at].loose_create |= fate == Fate::Unknown;
        self.ended(at, version, false, fate);
    }

    /// Several todos in one transaction, or none.
    async fn transaction(&mut self) {
        let (places, todos) = (self.some_here(), self.collection());
        assert!(!places.is_empty(), "the one that was chosen is there");
        let begun: Vec<_> = places
            .iter()
            .map(|at| {
                let name = self.todos[*at].name.clone();
                let version = self.shift.history.begin(&name, false);
                (older(&name, version), version)
            })
            .collect();
        let done = self
            .plainly("plain transaction", async |session| {
                session.start_transaction().await?;
                for (filter, version) in &begun {
                    let set = doc! { "$set": { "title": title(*version) } };
                    let update = todos
                        .update_one(filter.clone(), set)
                        .session(&mut *session)
                        .await;
                    // Before the commit nothing has taken place.
                    if !update.as_ref().is_ok_and(|done| done.matched_count == 1) {
                        let _ = session.abort_transaction().await;
                        return Ok(0);
                    }
                }
                session.commit_transaction().await?;
                Ok(1)
            })
            .await;
        let fate = match done {
            Ok((0, _)) => Fate::Refused,
            Ok((_, at)) => Fate::Acked { at },
            Err(_) => Fate::Unknown,
        };
        for (at, (_, version)) in places.into_iter().zip(begun) {
            self.ended(at, version, false, fate);
        }
    }

    /// Several updates in one command.
    async fn bulk(&mut self) {
        let places = self.some_here();
        let mut versions = Vec::new();
        let mut updates = Vec::new();
        for at in &places {
            let name = self.todos[*at].name.clone();
            let version = self.shift.history.begin(&name, false);
            versions.push(version);
            updates.push(
                doc! { "q": older(&name, version), "u": { "$set": { "title": title(version) } } },
            );
        }
        let command = doc! { "update": "todos", "updates": updates, "ordered": false, "writeConcern": { "w": "majority" } };
        let database = self.plain.database(DATABASE);
        let all = i32::try_from(places.len()).expect("small");
        let done = self
            .plainly("plain bulk", async |session| {
                let reply = database.run_command(command).session(session).await?;
                let whole = reply.get_i32("n").is_ok_and(|n| n == all)
                    && !reply.contains_key("writeErrors")
                    && !reply.contains_key("writeConcernError");
                Ok(u64::from(whole))
            })
            .await;
        let fate = match done {
            Ok((1, at)) => Fate::Acked { at },
            _ => Fate::Unknown,
        };
        for (at, version) in places.into_iter().zip(versions) {
            self.ended(at, version, false, fate);
        }
    }

    fn some_here(&mut self) -> Vec<usize> {
        let mut here: Vec<_> = (0..self.todos.len())
            .filter(|at| self.todos[*at].state == State::Here)
            .collect();
        while here.len() > TOGETHER {
            let at = self.random.below(here.len());
            here.swap_remove(at);
        }
        here
    }

    /// Does a write with the driver: its count and time, or what may have
    /// become of it.
    async fn plainly(
        &self,
        kind: &'static str,
        write: impl AsyncFnOnce(&mut ClientSession) -> Result<u64, Error>,
    ) -> Result<(u64, u64), Fate> {
        let timer = self.shift.recorder.timer();
        let done = timeout(PLAIN_LIMIT, async {
            let mut session = self.plain.start_session().await?;
            let n = write(&mut session).await?;
            Ok::<_, Error>((n, time(&session)))
        })
        .await;
        let failed = match &done {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(short(error)),
            Err(_) => Some("no answer in time".into()),
        };
        self.shift.recorder.note(&timer, kind, None, failed);
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(fate_of(&error)),
            Err(_) => Err(Fate::Unknown),
        }
    }

    async fn create(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        let version = self.shift.history.begin(&name, false);
        let request = self.a_request_id();
        let again = if request.is_empty() { 1 } else { SAME_REQUEST };
        let mut fate = Fate::Unknown;
        for tried in 0..again {
            let replica = self.random.below(self.replicas.len());
            let timer = self.shift.recorder.timer();
            let done = api::create(
                &mut self.replicas[replica],
                &name,
                title(version),
                request.clone(),
            )
            .await;
            self.note(&timer, "create", replica, &done);
            if matches!(&done, Err(failed) if failed.reason == "TODO_ALREADY_EXISTS") {
                self.shift
                    .history
                    .violation(format!("{name} exists, though it is known to be gone"));
            }
            fate = self.fate(done, tried > 0);
            if fate != Fate::Unknown {
                break;
            }
        }
        self.created(at, version, fate);
    }

    async fn update(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        let (mut how, mut after_refusal) = (None, false);
        for _ in 0..3 {
            let replica = self.random.below(self.replicas.len());
            let Ok(got) = api::get(&mut self.replicas[replica], &name, how).await else {
                return;
            };
            if got.etag.is_empty() {
                // An update without an etag could take place after a later one.
                how = api::consistency(Requirement::FullyConsistent(true));
                continue;
            }
            let version = self.shift.history.begin(&name, false);
            let request = self.a_request_id();
            let again = if request.is_empty() { 1 } else { SAME_REQUEST };
            let (mut fate, mut token) = (Fate::Unknown, None);
            for tried in 0..again {
                let replica = self.random.below(self.replicas.len());
                let timer = self.shift.recorder.timer();
                let new = title(version);
                let done = api::update(
                    &mut self.replicas[replica],
                    &name,
                    new,
                    got.etag.clone(),
                    request.clone(),
                )
                .await;
                self.note(&timer, "update", replica, &done);
                token = done.as_ref().err().and_then(|failed| failed.token.clone());
                fate = self.fate(done, tried > 0);
                if fate != Fate::Unknown {
                    break;
                }
            }
            self.ended(at, version, false, fate);
            let Some(token) = token.filter(|_| fate == Fate::Refused) else {
                return;
            };
            if after_refusal {
                self.shift.history.violation(format!(
                    "{name}: refused again after a read with the token of the refusal, which showed {:?}",
                    got.shown
                ));
            }
            (how, after_refusal) = (api::consistency(Requirement::AtLeastAsFresh(token)), true);
        }
    }

    async fn delete(&mut self, at: usize) {
        let name = self.todos[at].name.clone();
        let replica = self.random.below(self.replicas.len());
        let how = api::consistency(Requirement::FullyConsistent(true));
        let Ok(got) = api::get(&mut self.replicas[replica], &name, how).await else {
            return;
        };
        let version = self.shift.history.begin(&name, true);
        let replica = self.random.below(self.replicas.len());
        let timer = self.shift.recorder.timer();
        let done = api::delete(&mut self.replicas[replica], &name, got.etag).await;
        self.note(&timer, "delete", replica, &done);
        if matches!(&done, Err(failed) if ["TODO_NOT_FOUND", "ETAG_MISMATCH"].contains(&failed.reason.as_str()))
        {
            self.shift.history.violation(format!(
                "{name}: a delete by its etag was refused: {done:?}"
            ));
        }
        let fate = self.fate(done, false);
        self.ended(at, version, true, fate);
    }

    fn note(
        &self,
        timer: &crate::report::Timer,
        kind: &'static str,
        replica: usize,
        done: &Result<String, Failed>,
    ) {
        // A refusal for a reason is an answer.
        let failed = done
            .as_ref()
            .err()
            .filter(|f| f.token.is_none())
            .map(Failed::kind);
        self.shift.recorder.note(timer, kind, Some(replica), failed);
    }

    /// What became of a write; `again`: an earlier try of it may have taken
    /// place.
    fn fate(&self, done: Result<String, Failed>, again: bool) -> Fate {
        match done {
            Ok(token) => Fate::Acked {
                at: api::time_of(&token),
            },
            Err(failed) => {
                let internal = failed.code == tonic::Code::Internal && !failed.never_sent;
                if failed.reason == "FIELD_INVALID" || internal {
                    self.shift.history.violation(format!("a write: {failed:?}"));
                }
                let nothing_said = again && failed.token.is_none();
                if nothing_said {
                    Fate::Unknown
                } else {
                    failed.fate()
                }
            }
        }
    }

    fn a_request_id(&mut self) -> String {
        if self.random.below(3) > 0 {
            return String::new();
        }
        let (high, low) = (self.random.next(), self.random.next());
        uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
            .into_uuid()
            .to_string()
    }
}

/// The todo, if it is there in an older version than this.
fn older(name: &str, version: u64) -> Document {
    doc! { "_id": name, "title": { "$lt": title(version) } }
}

pub fn document(name: &str, version: u64) -> Document {
    let (parent, _) = name.split_once("/todos/").expect("a name");
    doc! { "_id": name, "parent": parent, "title": title(version), "state": "ACTIVE", "create_time": DateTime::now() }
}

/// The kind of an error, for the table.
fn short(error: &Error) -> String {
    let text = format!("{:?}", error.kind);
    let end = text
        .find(|c: char| !c.is_alphanumeric())
        .unwrap_or(text.len());
    text[..end].to_owned()
}
