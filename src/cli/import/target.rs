//! Where an import goes: the store itself, or a running service.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tonic::{Code, Status};

use crate::{
    backoff::Backoff,
    cli::{
        client::{DEFAULT_SERVER, Server},
        credential::TodoClient,
        error::CommandError,
        output::note,
    },
    config::Config,
    model::{Patch, TodoName, Write},
    origin::{ConnectError, Origin, OriginError, Rule, WriteError, embedded::OpenProblem},
    pb::{self, Todo},
    server,
};

/// Tries of a batch or a call while the store or the service is unavailable.
const TRIES: u32 = 8;
/// Pauses between them.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Calls under way at once in each batch.
const CALLS: usize = 32;

/// Valid todos with their lines.
#[derive(Default)]
pub(super) struct Batch {
    pub todos: Vec<Todo>,
    pub lines: Vec<u64>,
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Outcome {
    pub created: usize,
    pub replaced: usize,
    /// Lines that were refused, each with the reason.
    pub refused: Vec<(u64, String)>,
}

/// Where an import goes.
pub(super) enum Target {
    Store {
        origin: Arc<dyn Origin>,
        replace: bool,
    },
    Service {
        server: Box<Server>,
        client: Box<TodoClient>,
        replace: bool,
        /// Whether it was printed that a call is repeated: once says it for all.
        waits: AtomicBool,
    },
}

/// What became of one todo.
enum Fate {
    Created,
    Existed,
    Replaced,
    Refused(String),
}

/// Whether another process, most likely the service, has the embedded store open.
fn is_in_use(problem: &ConnectError) -> bool {
    let mut cause: Option<&dyn Error> = Some(problem);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(OpenProblem::InUse)) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Target {
    /// The store that the settings name. Tried again while it cannot be reached,
    /// such as during an election.
    pub(super) async fn store(config: &Config, replace: bool) -> Result<Self, String> {
        let mut tries = Tries::new();
        loop {
            match server::open_origin(config).await {
                Ok(origin) => return Ok(Self::Store { origin, replace }),
                Err(problem @ ConnectError::Transient(_)) => {
                    if tries.left == TRIES - 1 {
                        note(&format!(
                            "the store cannot be reached: {problem}; trying again"
                        ));
                    }
                    if !tries.wait().await {
                        return Err(problem.to_string());
                    }
                }
                Err(problem) if is_in_use(&problem) => {
                    return Err(format!(
                        "{problem}. To import through the service that has it open, use --server {DEFAULT_SERVER}, or the address that it printed"
                    ));
                }
                Err(problem) => return Err(problem.to_string()),
            }
        }
    }

    /// A running service.
    pub(super) async fn service(server: Server, replace: bool) -> Result<Self, String> {
        let client = server.connect().await.map_err(|e| e.to_string())?;
        Ok(Self::Service {
            server: Box::new(server),
            client: Box::new(client),
            replace,
            waits: AtomicBool::new(false),
        })
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// The store or the service is unavailable for too long.
    pub(super) async fn put(self: Arc<Self>, batch: Batch) -> Result<Outcome, String> {
        if let Self::Store {
            origin,
            replace: false,
        } = &*self
        {
            return insert(origin, batch).await;
        }
        let calls = batch
            .lines
            .into_iter()
            .zip(batch.todos)
            .map(|(line, todo)| {
                let this = &self;
                async move { (line, this.one(todo).await) }
            });
        let mut calls = stream::iter(calls).buffer_unordered(CALLS);
        let mut outcome = Outcome::default();
        while let Some((line, fate)) = calls.next().await {
            match fate? {
                Fate::Created => outcome.created += 1,
                Fate::Replaced => outcome.replaced += 1,
                Fate::Existed => {}
                Fate::Refused(problem) => outcome.refused.push((line, problem)),
            }
        }
        outcome.refused.sort_unstable();
        Ok(outcome)
    }

    async fn one(&self, todo: Todo) -> Result<Fate, String> {
        match self {
            Self::Store { origin, .. } => replace_in_store(origin, todo).await,
            Self::Service {
                server,
                client,
                replace,
                waits,
            } => send(server, (**client).clone(), todo, *replace, waits).await,
        }
    }
}

/// The tries that a batch or a call still has.
struct Tries {
    left: u32,
    backoff: Backoff,
}

impl Tries {
    fn new() -> Self {
        Self {
            left: TRIES - 1,
            backoff: Backoff::new(PAUSE, LONGEST_PAUSE),
        }
    }

    /// Waits before the next try; `false`: there is none.
    async fn wait(&mut self) -> bool {
        let more = self.left > 0;
        if more {
            self.left -= 1;
            self.backoff.wait().await;
        }
        more
    }
}

/// Inserts a batch. Repeated while the store is unavailable: what was written
/// stays as it is.
async fn insert(origin: &Arc<dyn Origin>, batch: Batch) -> Result<Outcome, String> {
    let mut tries = Tries::new();
    loop {
        let problem: OriginError = match origin.import(batch.todos.clone()).await {
            Ok(imported) => {
                let line = |(at, rule): (usize, Rule)| {
                    let name = batch.todos.get(at).map_or("", |todo| todo.name.as_str());
                    let line = batch.lines.get(at).copied().unwrap_or_default();
                    (line, format!("{name} is refused by the database: {rule}"))
                };
                return Ok(Outcome {
                    created: imported.created,
                    replaced: 0,
                    refused: imported.refused.into_iter().map(line).collect(),
                });
            }
            Err(problem) => problem,
        };
        if tries.left == TRIES - 1 {
            note(&format!(
                "the database cannot be written: {problem}; trying again"
            ));
        }
        if !tries.wait().await {
            return Err(format!(
                "the database cannot be written: {problem}; import again to continue"
            ));
        }
    }
}

async fn replace_in_store(origin: &Arc<dyn Origin>, todo: Todo) -> Result<Fate, String> {
    let Some(name) = TodoName::parse(&todo.name) else {
        return Ok(Fate::Refused("the name is not valid".into()));
    };
    let write = Write::Update {
        name,
        patch: Patch::all_of(&todo),
        etag: None,
        allow_missing: true,
    };
    let mut tries = Tries::new();
    loop {
        match origin.write(write.clone(), None, None).await {
            Ok(_) => return Ok(Fate::Replaced),
            Err(WriteError::Unavailable(_) | WriteError::OutcomeUnknown { .. })
                if tries.wait().await => {}
            Err(problem @ (WriteError::Unavailable(_) | WriteError::OutcomeUnknown { .. })) => {
                return Err(format!(
                    "the database cannot be written: {problem}; import again to continue"
                ));
            }
            Err(problem) => {
                return Ok(Fate::Refused(format!(
                    "{} is refused: {problem}",
                    todo.name
                )));
            }
        }
    }
}

/// One todo through the service.
async fn send(
    server: &Server,
    mut client: TodoClient,
    todo: Todo,
    replace: bool,
    waits: &AtomicBool,
) -> Result<Fate, String> {
    let name = todo.name.clone();
    let mut tries = Tries::new();
    loop {
        let sent = if replace {
            let request = pb::UpdateTodoRequest {
                todo: Some(Todo {
                    etag: String::new(),
                    ..todo.clone()
                }),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["*".into()],
                }),
                allow_missing: true,
                request_id: String::new(),
            };
            let request = server.request(request);
            client.update_todo(request).await.map(|_| Fate::Replaced)
        } else {
            let (parent, id) = name.split_once("/todos/").unwrap_or_default();
            let request = pb::CreateTodoRequest {
                parent: parent.to_owned(),
                todo: Some(todo.clone()),
                todo_id: id.to_owned(),
                request_id: String::new(),
            };
            let request = server.request(request);
            client.create_todo(request).await.map(|_| Fate::Created)
        };
        match sent {
            Ok(fate) => return Ok(fate),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(Fate::Existed),
            Err(status) if is_transient(&status) => {
                let error = CommandError::from(status).to_string();
                if !waits.swap(true, Ordering::Relaxed) {
                    let first = error.lines().next().unwrap_or_default();
                    note(&format!("the import waits: {first}; trying again"));
                }
                if !tries.wait().await {
                    return Err(format!("{error}\nimport again to continue"));
                }
            }
            Err(status) => {
                return Ok(Fate::Refused(format!(
                    "{name} is refused: {}",
                    CommandError::from(status)
                )));
            }
        }
    }
}

/// Whether the call may be repeated: both calls are idempotent here.
fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
    )
}
