//! I8 against real servers: a guest whose right on a list is granted and withdrawn all
//! the time. It reads, writes and watches at all replicas.
//!
//! What is written to the list between a revocation and the next grant is a secret. It
//! must not reach the guest before that grant was sent, by whatever replica and way.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tidemark::{
    model::Token,
    pb::{
        self, Role, TodoList, consistency::Requirement, todo_change::Kind,
        watch_todos_response::Event,
    },
};
use tokio::time::{sleep, timeout};
use tonic::Code;
use uuid::Uuid;

use crate::{
    api::{self, Client, Failed},
    history::{Shown, title},
    readers::Shift,
    world::Random,
};

/// The list, and its one todo.
const LIST: &str = "lists/shared";
const TODO: &str = "lists/shared/todos/secret";
/// As the list's document names the guest.
pub const GUEST: &str = "user:guest";
/// Time that the right is there, and that it is not.
const PHASE: Duration = Duration::from_millis(400);
/// Time between two calls of the guest, and before a call is tried again.
const PAUSE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(200);
/// A watch that tells nothing for so long is opened again at another replica.
const SILENCE: Duration = Duration::from_secs(4);

/// What the owner has done, as the guest's answers are checked against it.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the last revocation was acknowledged; `None`: a grant was sent since.
    revoked: Option<Instant>,
    /// When the last grant was acknowledged; `None`: a revocation was sent since.
    granted: Option<Instant>,
    /// The secret since the last revocation: its version, and an upper bound of its
    /// commit time once that is known.
    secret: Option<(u64, Option<u64>)>,
    revocations: u64,
    checks: u64,
}

impl Ledger {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// An answer or message of the guest showed this version, and had seen that time.
    fn saw(&self, shift: &Shift, what: &str, version: Option<u64>, seen: u64) {
        let mut state = self.state();
        state.checks += 1;
        let Some((secret, time)) = state.secret else {
            return;
        };
        if version.is_some_and(|version| version >= secret) || time.is_some_and(|t| seen >= t) {
            let text = format!("I8 {what} shows {version:?} at {seen}, and v{secret} is a secret");
            shift.history.violation(text);
        }
    }

    /// A write that began then was accepted.
    fn wrote(&self, shift: &Shift, began: Instant) {
        let revoked = self.state().revoked;
        if revoked.is_some_and(|revoked| began > revoked) {
            let text = "I8 a write of the guest that began after the revocation was accepted";
            shift.history.violation(text.into());
        }
    }

    /// A strong read that began then was refused.
    fn refused(&self, shift: &Shift, began: Instant) {
        let granted = self.state().granted;
        if granted.is_some_and(|granted| began > granted) {
            let text = "a strong read of the guest was refused after the grant";
            shift.history.violation(text.into());
        }
    }

    /// Revocations, and answers that were checked.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.revocations, state.checks)
    }
}

/// The owner of the list.
pub struct Owner {
    pub shift: Arc<Shift>,
    pub ledger: Arc<Ledger>,
    pub replicas: Vec<Client>,
    pub random: Random,
}

impl Owner {
    pub async fn run(mut self) {
        self.create().await;
        let mut version = 1;
        while !self.shift.ended() {
            {
                let mut state = self.ledger.state();
                (state.revoked, state.secret) = (None, None);
            }
            self.share(&[(GUEST, Role::Writer)]).await;
            self.ledger.state().granted = Some(Instant::now());
            version += 1;
            self.write(version).await;
            sleep(PHASE).await;
            self.ledger.state().granted = None;
            self.share(&[]).await;
            version += 1;
            {
                let mut state = self.ledger.state();
                state.revoked = Some(Instant::now());
                state.revocations += 1;
                state.secret = Some((version, None));
            }
            let time = self.write(version).await;
            self.ledger.state().secret = Some((version, Some(time)));
            sleep(PHASE).await;
        }
        // What is compared at the end knows nothing of this todo.
        self.until_done(Step::Delete).await;
    }

    async fn create(&mut self) {
        self.until_done(Step::CreateList).await;
        self.until_done(Step::Create).await;
    }

    async fn share(&mut self, members: &[(&str, Role)]) {
        let members = members.iter();
        let list = TodoList {
            name: LIST.into(),
            members: members
                .map(|(member, role)| ((*member).to_owned(), i32::from(*role)))
                .collect(),
            ..TodoList::default()
        };
        self.until_done(Step::Share(list)).await;
    }

    /// Writes the todo. Returns an upper bound of the commit time.
    async fn write(&mut self, version: u64) -> u64 {
        api::time_of(&self.until_done(Step::Write(version)).await)
    }

    /// Tries at one replica after the other. Returns the token of a write of the todo.
    async fn until_done(&mut self, step: Step) -> String {
        loop {
            let replica = self.random.below(self.replicas.len());
            if let Ok(token) = step.try_at(&mut self.replicas[replica]).await {
                return token;
            }
            sleep(RETRY).await;
        }
    }
}

/// One thing that the owner does. Done again, it changes nothing. A replica that was
/// frozen may do it much later, when others have done what came after: a grant must have
/// no effect then, so it has the etag of what it was made for.
enum Step {
    CreateList,
    Create,
    Share(TodoList),
    Write(u64),
    Delete,
}

impl Step {
    async fn try_at(&self, client: &mut Client) -> Result<String, Failed> {
        let id = Uuid::new_v4().to_string();
        let (done, but) = match self {
            Self::CreateList => {
                let created = api::create_list(client, LIST).await;
                (created.map(|()| String::new()), "LIST_ALREADY_EXISTS")
            }
            Self::Create => {
                let created = api::create(client, TODO, title(1), id).await;
                (created, "TODO_ALREADY_EXISTS")
            }
            Self::Share(list) => {
                let mut list = list.clone();
                list.etag = api::list_etag(client, LIST).await?;
                let shared = api::share(client, list).await;
                (shared.map(|()| String::new()), "")
            }
            Self::Write(version) => {
                let title = title(*version);
                (
                    api::update(client, TODO, title, String::new(), id).await,
                    "",
                )
            }
            Self::Delete => {
                let deleted = api::delete(client, TODO, String::new()).await;
                (deleted, "TODO_NOT_FOUND")
            }
        };
        match done {
            Err(failed) if !but.is_empty() && failed.reason == but => Ok(String::new()),
            done => done,
        }
    }
}

/// The guest.
pub struct Guest {
    pub shift: Arc<Shift>,
    pub ledger: Arc<Ledger>,
    pub replicas: Vec<Client>,
    pub random: Random,
}

impl Guest {
    /// Reads, and now and then writes.
    pub async fn read(mut self) {
        let mut token = String::new();
        while !self.shift.ended() {
            let replica = self.random.below(self.replicas.len());
            let strong = self.random.below(3) == 0;
            let how = if strong {
                api::consistency(Requirement::FullyConsistent(true))
            } else if self.random.below(2) == 0 && !token.is_empty() {
                api::consistency(Requirement::AtLeastAsFresh(token.clone()))
            } else {
                None
            };
            let began = Instant::now();
            match api::get(&mut self.replicas[replica], TODO, how).await {
                Ok(got) => {
                    let seen = api::time_of(&got.facts.token);
                    self.ledger
                        .saw(&self.shift, "a read", version(got.shown), seen);
                    token = got.facts.token;
                }
                Err(failed) if failed.code == Code::PermissionDenied && strong => {
                    self.ledger.refused(&self.shift, began);
                }
                Err(_) => {}
            }
            if self.random.below(10) == 0 {
                self.write(replica).await;
            }
            sleep(PAUSE).await;
        }
    }

    /// Gives a todo that does not exist a title: what is refused is told apart by the
    /// reason, and nothing is changed.
    async fn write(&mut self, replica: usize) {
        let began = Instant::now();
        let name = format!("{LIST}/todos/none");
        let id = Uuid::new_v4().to_string();
        let client = &mut self.replicas[replica];
        let answer = api::update(client, &name, title(1), String::new(), id).await;
        let let_in = match answer {
            Ok(_) => true,
            Err(failed) => failed.reason == "TODO_NOT_FOUND",
        };
        if let_in {
            self.ledger.wrote(&self.shift, began);
        }
    }

    /// Watches the list, again and again, from the last token.
    pub async fn watch(mut self) {
        let mut token: Option<String> = None;
        while !self.shift.ended() {
            let replica = self.random.below(self.replicas.len());
            let request = api::watch_request(LIST, token.clone());
            let opened = timeout(SILENCE, self.replicas[replica].watch_todos(request)).await;
            if let Ok(Ok(opened)) = opened {
                let mut stream = opened.into_inner();
                while let Ok(Ok(Some(message))) = timeout(SILENCE, stream.message()).await {
                    self.hear(&message);
                    token = Some(message.token);
                    if self.shift.ended() {
                        return;
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    fn hear(&self, message: &pb::WatchTodosResponse) {
        let seen = Token::decode(&message.token).expect("a token").seen.0;
        let shown = match &message.event {
            Some(Event::Change(change)) if change.kind() != Kind::Deleted => {
                let todo = change.todo.as_ref();
                todo.and_then(|todo| version(Shown::title(&todo.title)))
            }
            _ => None,
        };
        self.ledger.saw(&self.shift, "a watch", shown, seen);
    }
}

fn version(shown: Shown) -> Option<u64> {
    match shown {
        Shown::At(version) => Some(version),
        Shown::Absent => None,
    }
}
