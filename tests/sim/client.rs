//! Clients: each goes from replica to replica, hands its token along, and
//! checks what it is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidemark::{
    auth,
    cache::{Answer, Consistency, ReadOptions, TodoPage, WriteOptions, Written},
    error::Error,
    model::{
        Condition, Filter, ListName, Op, Order, OriginTime, PageQuery, ReadInfo, RequestId,
        Resource, TodoName, Token, Unreadable, Value, Write,
    },
    pb::{
        Role, Todo,
        todo::{Priority, State},
    },
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    check::{Asked, CALL_LIMIT, name_of},
    fleet::{Fleet, Replica},
    lists,
    rights::Attempt,
    world::{World, callers},
    write,
};

pub struct Client {
    pub id: u64,
    pub world: Arc<World>,
    pub fleet: Arc<Fleet>,
    /// Who it is; `None`: authentication is off.
    pub identity: Option<auth::Caller>,
    /// The newest time that any answer has seen: the token it hands along.
    pub seen: OriginTime,
    /// Since when what it was shown last was so, and what that answer's token
    /// had seen, by name.
    shown: BTreeMap<TodoName, (OriginTime, OriginTime)>,
    /// Writes that were said to have had no effect and not tried again: no
    /// version may have this title, ever.
    undone: Vec<(Resource, String)>,
    /// Writes that needed a right, whatever became of them.
    attempts: Vec<(Resource, String, Attempt)>,
    writes: u64,
    /// Waits without a deadline.
    patient: bool,
    pub replica: Arc<Replica>,
}

/// The call ended with its process.
pub struct Lost;

impl Client {
    pub fn new(id: u64, world: &Arc<World>, fleet: &Arc<Fleet>) -> Self {
        let (world, fleet) = (Arc::clone(world), Arc::clone(fleet));
        let replica = fleet.any();
        let (seen, shown, undone) = (OriginTime::ZERO, BTreeMap::new(), Vec::new());
        let identity = world.a_caller();
        Self {
            id,
            identity,
            attempts: Vec::new(),
            world,
            fleet,
            seen,
            shown,
            undone,
            writes: 0,
            patient: false,
            replica,
        }
    }

    /// Reads and writes until the load ends.
    pub async fn run(mut self) {
        while !self.world.over() {
            let pause = self.world.rng().of(1..self.world.config.think_ms);
            sleep(Duration::from_millis(pause)).await;
            if self.world.rng().chance(50) || self.replica.link.dead.is_cancelled() {
                self.replica = self.fleet.any();
            }
            self.one_call().await;
        }
        for (name, title, attempt) in &self.attempts {
            let at = committed(&self.world, name, title);
            if let Some(at) = at {
                attempt.check_allowed(&self.world, at, &format!("{name} was written at {at}"));
            }
        }
        for (name, title) in &self.undone {
            if let Some(at) = committed(&self.world, name, title) {
                self.world.violated(
                    "write",
                    format!("{name} got the title {title} at {at}, of a write without effect"),
                );
            }
        }
    }

    async fn one_call(&mut self) {
        let lists = if self.world.config.rights { 6 } else { 0 };
        let call = self.world.rng().weighted(&[
            (45, 0),
            (10, 1),
            (20, 2),
            (24, 3),
            (1, 4),
            (lists, 5),
            (lists, 6),
            (lists, 7),
        ]);
        match call {
            5 => self.get_list().await,
            6 => self.list_lists().await,
            7 => self.write_list().await,
            0 => {
                let (name, consistency) = (self.a_name(), self.an_arm());
                self.get(&name, consistency).await;
            }
            1 => self.get_many().await,
            2 => self.walk().await,
            3 => self.write().await,
            _ => self.present_a_forged_token().await,
        }
    }

    fn a_name(&self) -> TodoName {
        self.world.rng().pick(&self.world.config.names)
    }

    pub fn an_arm(&self) -> Consistency {
        let mut rng = self.world.rng();
        let staleness = Duration::from_millis(rng.pick(&[0, 50, 300, 1_000, 5_000, 60_000]));
        rng.weighted(&[
            (30, Consistency::MinimizeLatency),
            (15, Consistency::MaxStaleness(staleness)),
            (30, Consistency::AtLeastAsFresh(self.seen)),
            (15, Consistency::FullyConsistent),
            (10, Consistency::CachedOnly),
        ])
    }

    pub fn a_deadline(&self) -> Option<Instant> {
        let mut rng = self.world.rng();
        (!self.patient && rng.chance(15)).then(|| Instant::now() + rng.ms(1..400))
    }

    /// Waits for a call as long as its process lives.
    pub async fn call<T>(&self, what: &str, call: impl Future<Output = T>) -> Result<T, Lost> {
        self.world.count("calls");
        let replica = Arc::clone(&self.replica);
        let either = async {
            tokio::select! {
                biased;
                () = replica.link.dead.cancelled() => Err(Lost),
                ended = call => Ok(ended),
            }
        };
        timeout(CALL_LIMIT, either).await.unwrap_or_else(|_| {
            self.world
                .violated("liveness", format!("client {}: no end of {what}", self.id));
            Err(Lost)
        })
    }

    /// `lists`: those that the caller needs a right on.
    pub fn asked<'a>(
        &self,
        replica: &'a Replica,
        what: String,
        want: &ReadOptions,
        lists: Vec<ListName>,
    ) -> Asked<'a> {
        let caller = want.identity.clone().filter(|caller| !caller.is_admin());
        let (client, consistency, deadline) = (self.id, want.consistency, want.deadline);
        let own = replica.own_writes();
        Asked {
            client,
            replica,
            what,
            consistency,
            begun: Instant::now(),
            deadline,
            carried: None,
            own,
            right: caller.map(|caller| (caller, lists)),
        }
    }

    pub fn want(&self, consistency: Consistency) -> ReadOptions {
        ReadOptions {
            identity: self.identity.clone(),
            consistency,
            deadline: self.a_deadline(),
            caller: None,
        }
    }

    pub fn say(&self, asked: &Asked<'_>, outcome: &dyn std::fmt::Debug, body: &[u8]) {
        let (client, replica) = (self.id, self.replica.link.replica);
        self.world.say(format_args!(
            "client {client} replica {replica} {} {:?} -> {outcome:?} {:x}",
            asked.what,
            asked.consistency,
            xxh3_64(body)
        ));
    }

    pub fn say_error(&self, asked: &Asked<'_>, error: &Error) {
        self.world.count("failed reads");
        self.say(asked, error, &[]);
        asked.error(&self.world, error);
    }

    /// One todo. Returns whether it was answered.
    pub async fn get(&mut self, name: &TodoName, consistency: Consistency) -> bool {
        let want = self.want(consistency);
        let replica = Arc::clone(&self.replica);
        let asked = self.asked(&replica, format!("get {name}"), &want, vec![name.list()]);
        let Ok(answer) = self.call(&asked.what, replica.cache.get(name, &want)).await else {
            return false;
        };
        let (value, read) = match answer {
            Ok(Answer { body, read }) => (Value::Todo(body), read),
            Err(Error::NotFound {
                read: Some(read), ..
            }) => (Value::Absent, read),
            Err(Error::Unreadable {
                field,
                problem,
                read: Some(read),
                ..
            }) => (
                Value::Unreadable(Arc::new(Unreadable { field, problem })),
                *read,
            ),
            Err(error) => {
                self.say_error(&asked, &error);
                return false;
            }
        };
        self.say(
            &asked,
            &read,
            if let Value::Todo(raw) = &value {
                raw
            } else {
                &[]
            },
        );
        let expected = asked.facts(&self.world, &read);
        asked.exact(&self.world, name, &value, &read);
        self.learn(&asked, &[(name.clone(), value)], expected, &read);
        true
    }

    /// Checks todos, and keeps in mind what was shown.
    fn learn(
        &mut self,
        asked: &Asked<'_>,
        todos: &[(TodoName, Value)],
        expected: OriginTime,
        read: &ReadInfo,
    ) {
        for (name, value) in todos {
            let (shown, by) = self.shown.entry(name.clone()).or_default();
            // Owed by a token that is as new as that of the answer that showed it.
            let handed = asked.consistency.without_age() >= *by;
            let expected = if handed {
                expected.max(*shown)
            } else {
                expected
            };
            let since = asked.todo(&self.world, name, value, expected, read);
            if since > *shown {
                (*shown, *by) = (since, read.token.seen);
            }
        }
        self.seen = self.seen.max(read.token.seen);
        self.world.count(match read.source {
            tidemark::model::Source::Near => "from near",
            tidemark::model::Source::Shared => "from shared",
            tidemark::model::Source::Origin => "from the origin",
        });
    }

    async fn get_many(&mut self) {
        let names: Vec<_> = {
            let mut rng = self.world.rng();
            self.world
                .config
                .names
                .iter()
                .filter(|_| rng.chance(50))
                .cloned()
                .collect()
        };
        if names.is_empty() {
            return;
        }
        let want = self.want(self.an_arm());
        let replica = Arc::clone(&self.replica);
        let mut lists: Vec<_> = names.iter().map(TodoName::list).collect();
        lists.dedup();
        let asked = self.asked(&replica, format!("get {} todos", names.len()), &want, lists);
        let Ok(answer) = self
            .call(&asked.what, replica.cache.get_many(&names, &want))
            .await
        else {
            return;
        };
        let Answer { body, read } = match answer {
            Ok(answer) => answer,
            Err(error) => return self.say_error(&asked, &error),
        };
        self.say(&asked, &read, &body.todos.concat());
        let mut found = body.todos.iter();
        let value = |name: &TodoName| {
            if body.missing.contains(name) {
                Value::Absent
            } else if body.unreadable.contains(name) {
                crate::check::unreadable()
            } else {
                Value::Todo(found.next().cloned().unwrap_or_default())
            }
        };
        let values: Vec<_> = names.iter().map(value).collect();
        let todos: Vec<_> = names.into_iter().zip(values).collect();
        let expected = asked.facts(&self.world, &read);
        self.learn(&asked, &todos, expected, &read);
    }

    fn a_query(&self) -> PageQuery {
        let mut rng = self.world.rng();
        let conditions = [
            Condition::State(Op::Eq, State::Completed),
            Condition::State(Op::Ne, State::Completed),
            Condition::Priority(Op::Ge, Priority::High),
            Condition::Label("x".into()),
        ];
        let filter = Filter(conditions.into_iter().filter(|_| rng.chance(20)).collect());
        let order = rng.pick(&[
            Order::CreateTimeDesc,
            Order::CreateTime,
            Order::DueTime,
            Order::PriorityDesc,
        ]);
        let size = u32::try_from(rng.pick(&[1_u64, 2, 3, 50])).expect("small");
        PageQuery {
            list: rng.pick(&self.world.config.lists),
            filter,
            order,
            size,
            after: None,
        }
    }

    /// All pages of a list, each from any replica, with one level; a token is the
    /// newest each time.
    async fn walk(&mut self) {
        let (mut query, mut consistency) = (self.a_query(), self.an_arm());
        let (mut carried, mut seen_names) = (None, Vec::new());
        loop {
            let Some((listed, token)) = self.page(&query, consistency, carried).await else {
                return;
            };
            seen_names.extend(listed.todos.iter().map(name_of));
            seen_names.extend(listed.unreadable.iter().cloned());
            carried = Some(token.fresh_to);
            let Some(next) = listed.next else { break };
            query.after = Some(next);
            if matches!(consistency, Consistency::AtLeastAsFresh(_)) {
                consistency = Consistency::AtLeastAsFresh(self.seen);
            }
            if self.world.rng().chance(30) || self.replica.link.dead.is_cancelled() {
                self.replica = self.fleet.any();
            }
        }
        self.check_walk(&query, carried.unwrap_or_default(), &seen_names);
    }

    pub async fn page(
        &mut self,
        query: &PageQuery,
        consistency: Consistency,
        carried: Option<OriginTime>,
    ) -> Option<(TodoPage, Token)> {
        self.world
            .queries
            .lock()
            .expect("no panic while locked")
            .insert(query.to_string(), query.clone());
        let want = self.want(consistency);
        let replica = Arc::clone(&self.replica);
        let lists = vec![query.list.clone()];
        let asked = Asked {
            carried,
            ..self.asked(&replica, format!("list {query}"), &want, lists)
        };
        let answer = self
            .call(
                &asked.what,
                replica.cache.list(&Arc::new(query.clone()), carried, &want),
            )
            .await
            .ok()?;
        let Answer { body, read } = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.say_error(&asked, &error);
                return None;
            }
        };
        self.say(&asked, &read, &body.todos.concat());
        let expected = asked.facts(&self.world, &read);
        asked.page(&self.world, query, &body, expected, &read);
        let todos: Vec<_> = body
            .todos
            .iter()
            .map(|raw| (name_of(raw), Value::Todo(raw.clone())))
            .collect();
        self.learn(&asked, &todos, expected, &read);
        Some((body, read.token))
    }

    /// A todo that was there all along, at one place, is in the pages once.
    fn check_walk(&self, query: &PageQuery, from: OriginTime, shown: &[TodoName]) {
        let history = self.world.history();
        let states = history.list_states_from(query.list.as_str(), from);
        for name in self
            .world
            .config
            .names
            .iter()
            .filter(|name| name.parent() == query.list.as_str())
        {
            let place = |at: &OriginTime| {
                let doc = history.doc_at(name, *at)?;
                doc.matches(&query.filter)
                    .then(|| doc.sort_key(query.order))
            };
            let first = place(&states[0]);
            let stayed = first.is_some() && states.iter().all(|at| place(at) == first);
            let times = shown.iter().filter(|other| *other == name).count();
            if stayed && times != 1 {
                let what = format!(
                    "client {}: {name} was there from {from} on, and is {times} times in the pages of {query}",
                    self.id
                );
                self.world.violated("walk", what);
            }
        }
        self.world.count("walks");
    }

    async fn present_a_forged_token(&mut self) {
        let ahead = OriginTime(self.world.history().last.0 + (1 << 40));
        let want = ReadOptions {
            identity: None,
            consistency: Consistency::AtLeastAsFresh(ahead),
            deadline: None,
            caller: None,
        };
        let replica = Arc::clone(&self.replica);
        let name = self.a_name();
        let Ok(answer) = self.call("forged", replica.cache.get(&name, &want)).await else {
            return;
        };
        self.world.say(format_args!(
            "client {} forged -> {}",
            self.id,
            answer.is_ok()
        ));
        if !matches!(
            answer,
            Err(Error::TokenInvalid { .. } | Error::OriginUnavailable { .. })
        ) {
            self.world.violated(
                "token",
                format!("a token ahead of the origin was answered by {answer:?}"),
            );
        }
    }

    /// A title that no other write has.
    pub fn a_title(&mut self) -> String {
        self.writes += 1;
        format!("c{}w{}", self.id, self.writes)
    }

    async fn write(&mut self) {
        let title = self.a_title();
        let name = self.a_name();
        let (write, titled) = self.a_write(&name, &title);
        self.send(write, &title, titled).await;
    }

    /// Sends a write, some with a request id and again. `titled`: its title tells
    /// whether it was done.
    pub async fn send(&mut self, write: Write, title: &str, titled: bool) {
        let name = write.name();
        let request = {
            let mut rng = self.world.rng();
            rng.chance(30).then(|| RequestId {
                id: Uuid::from_u64_pair(rng.draw(), rng.draw()),
                fingerprint: [1; 16],
            })
        };
        let repeats = if request.is_some() {
            self.world.rng().of(1..3)
        } else {
            1
        };
        // Of what may have been done already, a refusal proves nothing.
        let mut untried = titled;
        for _ in 0..repeats {
            let (replica, moves) = (Arc::clone(&self.replica), moves(&write));
            let attempt = self.attempt(&write);
            if let Some(attempt) = attempt.clone().filter(|_| titled) {
                let same = |(_, other, _): &(_, String, _)| other == title;
                if !self.attempts.iter().any(same) {
                    self.attempts
                        .push((name.clone(), title.to_owned(), attempt));
                }
            }
            let options = WriteOptions {
                request_id: request,
                identity: self.identity.clone(),
                ..WriteOptions::default()
            };
            let call = replica.cache.write(write.clone(), options);
            let Ok(answer) = self.call("write", call).await else {
                return;
            };
            self.world.say(format_args!(
                "client {} write {name} {title} -> {answer:?}",
                self.id
            ));
            let refused = matches!(
                answer,
                Err(Error::OriginUnavailable { .. } | Error::PermissionDenied { .. })
            );
            untried &= refused;
            if let Some(token) = self.outcome(&name, titled.then_some(title), attempt, answer) {
                match &name {
                    Resource::Todo(name) => {
                        replica.wrote(name.as_str(), token.seen);
                        if moves {
                            replica.wrote(name.parent(), token.seen);
                        }
                    }
                    Resource::List(name) => replica.wrote(&lists::own(name), token.seen),
                }
                self.seen = self.seen.max(token.seen);
            }
            self.replica = self.fleet.any();
        }
        if untried {
            self.undone.push((name, title.to_owned()));
        }
    }

    /// The right that a write needs, as of now.
    fn attempt(&self, write: &Write) -> Option<Attempt> {
        let caller = self.identity.clone().filter(|caller| !caller.is_admin())?;
        let role = match write {
            Write::Create { .. } | Write::Update { .. } | Write::Delete { .. } => Role::Writer,
            Write::UpdateList { .. } | Write::DeleteList { .. } => Role::Owner,
            Write::CreateList { .. } => return None,
        };
        Some(Attempt {
            caller,
            list: write.name().list(),
            role,
            since: self.world.history().acknowledged_before(Instant::now()),
        })
    }

    fn a_write(&self, name: &TodoName, title: &str) -> (Write, bool) {
        let history = self.world.history();
        let etag = history.doc_at(name, history.last).map(|doc| doc.etag());
        drop(history);
        let mut rng = self.world.rng();
        let patch = write::fields(&mut rng, title);
        let etag = etag.filter(|_| rng.chance(20));
        let (name, allow_missing) = (name.clone(), rng.chance(50));
        match rng.of(0..6) {
            0 => {
                let todo = patch.apply(
                    Todo {
                        name: name.to_string(),
                        ..Todo::default()
                    },
                    0,
                );
                (Write::Create { name, todo }, true)
            }
            1 => (
                Write::Delete {
                    name,
                    etag,
                    allow_missing,
                },
                false,
            ),
            2 => {
                let patch = tidemark::model::Patch {
                    title: Some(title.to_owned()),
                    ..Default::default()
                };
                (
                    Write::Update {
                        name,
                        patch,
                        etag,
                        allow_missing: false,
                    },
                    true,
                )
            }
            _ => (
                Write::Update {
                    name,
                    patch,
                    etag,
                    allow_missing,
                },
                true,
            ),
        }
    }

    /// The token of a write's answer.
    fn outcome(
        &mut self,
        name: &Resource,
        title: Option<&str>,
        attempt: Option<Attempt>,
        answer: Result<Written, Error>,
    ) -> Option<Token> {
        match (&answer, attempt) {
            (
                Err(
                    Error::OriginUnavailable { .. }
                    | Error::WriteOutcomeUnknown { .. }
                    | Error::DeadlineExceeded { .. }
                    | Error::Overloaded { .. },
                ),
                _,
            )
            | (_, None) => {}
            (Err(Error::PermissionDenied { .. }), Some(attempt)) => {
                attempt.check_refused(&self.world);
                return None;
            }
            (_, Some(attempt)) => {
                let last = self.world.history().last;
                attempt.check_allowed(&self.world, last, &format!("a write of {name} was let in"));
            }
        }
        match answer {
            Ok(Written { token, .. }) => {
                self.check_written(name, title, token);
                self.world.count("writes");
                Some(token)
            }
            Err(
                Error::AlreadyExists { token, .. }
                | Error::EtagMismatch { token, .. }
                | Error::ListNotEmpty { token, .. }
                | Error::NotFound {
                    token: Some(token), ..
                }
                | Error::Unreadable {
                    token: Some(token), ..
                },
            ) => Some(token),
            Err(
                Error::OriginUnavailable { .. }
                | Error::WriteOutcomeUnknown { .. }
                | Error::FieldInvalid(_),
            ) => None,
            Err(error) => {
                self.world
                    .violated("error", format!("a write must not fail so: {error:?}"));
                None
            }
        }
    }

    /// What was said to be written is in the history, at the token's time or
    /// before.
    fn check_written(&mut self, name: &Resource, title: Option<&str>, token: Token) {
        let at = title.and_then(|title| committed(&self.world, name, title));
        let history = self.world.history();
        let was_absent = match name {
            Resource::Todo(name) => history.was_absent(name, OriginTime::ZERO, token.seen),
            Resource::List(name) => {
                let since = history.list_valid_since(name, &Value::Absent, OriginTime::ZERO);
                since.is_some_and(|since| since <= token.seen)
            }
        };
        let at = match title {
            Some(_) => at,
            None => was_absent.then_some(OriginTime::ZERO),
        };
        let last = history.last;
        drop(history);
        let holds = at.is_some_and(|at| at <= token.seen) && token.seen <= last;
        if !holds {
            self.world.violated(
                "write",
                format!(
                    "client {}: {name} {title:?} written at {at:?}, and its token is of {}",
                    self.id, token.seen
                ),
            );
        }
        let Resource::Todo(name) = name else { return };
        let (shown, by) = self.shown.entry(name.clone()).or_default();
        if let Some(at) = at.filter(|at| at > shown) {
            (*shown, *by) = (at, token.seen);
        }
    }

    /// After all faults: every kind of read works at this replica, and shows
    /// the last state.
    pub async fn check_recovery(&mut self, slot: usize, patience: Duration) {
        self.replica = self.fleet.replica(slot);
        self.patient = true;
        self.identity = None;
        let gives_up = Instant::now() + patience;
        let first = self.world.config.names[0].clone();
        while !self.get(&first, Consistency::FullyConsistent).await {
            if Instant::now() > gives_up {
                return self
                    .world
                    .violated("liveness", format!("replica {slot} does not recover"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        for consistency in [
            Consistency::FullyConsistent,
            Consistency::AtLeastAsFresh(self.seen),
            Consistency::MinimizeLatency,
        ] {
            for name in self.world.config.names.clone() {
                let answered = self.get(&name, consistency).await;
                self.must(answered, slot);
            }
            for list in self.world.config.lists.clone() {
                let answered = self.page(&whole(&list), consistency, None).await.is_some();
                self.must(answered, slot);
            }
        }
        if self.world.config.rights {
            for caller in callers() {
                self.identity = caller;
                for name in self.world.config.names.clone() {
                    // Refused or not, exactly by the last document.
                    self.get(&name, Consistency::FullyConsistent).await;
                }
            }
        }
    }

    fn must(&self, answered: bool, slot: usize) {
        if !answered {
            self.world.violated(
                "liveness",
                format!("a read at replica {slot} failed after all faults"),
            );
        }
    }
}

/// When a version with this title was committed, if ever.
fn committed(world: &World, name: &Resource, title: &str) -> Option<OriginTime> {
    match name {
        Resource::Todo(name) => world.history().titled(name, title),
        Resource::List(name) => world.history().list_titled(name, title),
    }
}

fn whole(list: &ListName) -> PageQuery {
    PageQuery {
        list: list.clone(),
        filter: Filter::default(),
        order: Order::CreateTime,
        size: 50,
        after: None,
    }
}

fn moves(write: &Write) -> bool {
    let Write::Update {
        patch,
        allow_missing: false,
        ..
    } = write
    else {
        return true;
    };
    patch.state.is_some()
        || patch.priority.is_some()
        || patch.labels.is_some()
        || patch.due_time.is_some()
}
