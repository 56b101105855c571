//! Clients that list, then watch, and keep a map: at the end it is what the
//! origin has. A stream that ends goes on at another replica.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tidemark::{
    model::Token,
    pb::{
        self, consistency::Requirement, todo_change::Kind, watch_todos_request::Start,
        watch_todos_response::Event,
    },
};
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::{
    api::{self, Client},
    history::Shown,
    readers::Shift,
    world::Random,
};

/// Nothing for so long, though progress is due every second: the replica is
/// stopped or cut off, and the client goes elsewhere.
const SILENCE: Duration = Duration::from_secs(4);
/// How long the map may take to be whole after everything has ended.
const LAST: Duration = Duration::from_secs(60);

pub struct Watcher {
    shift: Arc<Shift>,
    replicas: Vec<Client>,
    random: Random,
    list: String,
    map: HashMap<String, u64>,
    /// Changed, but the todo did not come with it: to be read.
    unsure: HashSet<String>,
    token: String,
    who: String,
    pub resumed: usize,
    pub resets: usize,
}

impl Watcher {
    pub fn new(
        shift: &Arc<Shift>,
        replicas: Vec<Client>,
        list: &str,
        number: usize,
        seed: u64,
    ) -> Self {
        Self {
            shift: Arc::clone(shift),
            replicas,
            random: Random(seed),
            list: list.into(),
            map: HashMap::new(),
            unsure: HashSet::new(),
            token: String::new(),
            who: format!("watcher {number} of {list}"),
            resumed: 0,
            resets: 0,
        }
    }

    /// Watches until the end is told and the cursor is past it; then the map.
    pub async fn run(mut self, end: tokio::sync::watch::Receiver<Option<u64>>) -> Self {
        self.read_anew(None).await;
        let mut told: Option<Instant> = None;
        loop {
            let replica = self.random.below(self.replicas.len());
            self.follow(replica, &end).await;
            self.read_unsure().await;
            if let Some(end) = *end.borrow() {
                if self.cursor() >= end && self.unsure.is_empty() {
                    return self;
                }
                let told = told.get_or_insert_with(Instant::now);
                if told.elapsed() > LAST {
                    self.shift.history.violation(format!(
                        "I6 {}: the cursor is still {} {LAST:?} after the end {end}, unsure {:?}",
                        self.who,
                        self.cursor(),
                        self.unsure,
                    ));
                    return self;
                }
            }
            self.resumed += 1;
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn cursor(&self) -> u64 {
        Token::decode(&self.token).map_or(0, |token| token.fresh_to.0)
    }

    /// Lists all, not older than `after`.
    async fn read_anew(&mut self, after: Option<String>) {
        loop {
            let replica = self.random.below(self.replicas.len());
            if let Some((map, token)) = self.pages(replica, after.clone()).await {
                (self.map, self.token) = (map, token);
                self.unsure.clear();
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn pages(
        &mut self,
        replica: usize,
        after: Option<String>,
    ) -> Option<(HashMap<String, u64>, String)> {
        let (mut map, mut next) = (HashMap::new(), String::new());
        loop {
            let how = after
                .clone()
                .and_then(|token| api::consistency(Requirement::AtLeastAsFresh(token)));
            let page = api::page(&mut self.replicas[replica], &self.list, next, 20, how)
                .await
                .ok()?;
            for (name, shown) in page.rows {
                if let Shown::At(version) = shown {
                    map.insert(name, version);
                }
            }
            next = page.next;
            if next.is_empty() {
                return Some((map, page.facts.token));
            }
        }
    }

    /// One stream, until it ends, is silent, or the end is reached.
    async fn follow(&mut self, replica: usize, end: &tokio::sync::watch::Receiver<Option<u64>>) {
        let request = pb::WatchTodosRequest {
            parent: self.list.clone(),
            include_todo: true,
            start: Some(Start::After(self.token.clone())),
            progress_interval: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            ..Default::default()
        };
        let opened = timeout(SILENCE, self.replicas[replica].watch_todos(request)).await;
        let Ok(Ok(opened)) = opened else { return };
        let mut stream: Streaming<pb::WatchTodosResponse> = opened.into_inner();
        while let Ok(Ok(Some(message))) = timeout(SILENCE, stream.message()).await {
            if !self.take(message).await {
                return;
            }
            if end.borrow().is_some_and(|end| self.cursor() >= end) {
                return;
            }
        }
    }

    async fn take(&mut self, message: pb::WatchTodosResponse) -> bool {
        let cursor = Token::decode(&message.token).expect("a token").fresh_to.0;
        if cursor < self.cursor() {
            let text = format!(
                "I6 {}: the cursor went back from {} to {cursor}",
                self.who,
                self.cursor()
            );
            self.shift.history.violation(text);
        }
        match message.event.expect("an event") {
            Event::Change(change) => self.change(change),
            Event::Progress(_) => {
                self.token = message.token;
                self.read_unsure().await;
                let history = &self.shift.history;
                history.check_map(&self.list, &self.map, &self.unsure, cursor, &self.who);
                return true;
            }
            Event::Reset(_) => {
                self.resets += 1;
                self.read_anew(Some(message.token)).await;
                return false;
            }
        }
        self.token = message.token;
        true
    }

    fn change(&mut self, change: pb::TodoChange) {
        self.unsure.remove(&change.name);
        match (
            change.kind(),
            change.todo.map(|todo| Shown::title(&todo.title)),
        ) {
            (_, Some(Shown::At(version))) => drop(self.map.insert(change.name, version)),
            (Kind::Deleted, _) => drop(self.map.remove(&change.name)),
            // Gone again, or not to be had in time.
            _ => drop(self.unsure.insert(change.name)),
        }
    }

    async fn read_unsure(&mut self) {
        for name in self.unsure.clone() {
            let replica = self.random.below(self.replicas.len());
            let how = api::consistency(Requirement::FullyConsistent(true));
            match api::get(&mut self.replicas[replica], &name, how)
                .await
                .map(|got| got.shown)
            {
                Ok(Shown::At(version)) => drop(self.map.insert(name.clone(), version)),
                Ok(Shown::Absent) => drop(self.map.remove(&name)),
                Err(_) => continue,
            }
            self.unsure.remove(&name);
        }
    }

    /// Compares the map with what the origin has.
    pub fn check(&self, origin: &HashMap<String, u64>) {
        let of = |name: &&String| {
            name.strip_prefix(&*self.list)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let there: HashMap<_, _> = origin.iter().filter(|(name, _)| of(name)).collect();
        for (name, version) in &there {
            if self.map.get(*name) != Some(version) {
                let text = format!(
                    "I6 {}: {name} is {:?}, not v{version}",
                    self.who,
                    self.map.get(*name)
                );
                self.shift.history.violation(text);
            }
        }
        for name in self.map.keys().filter(|name| !there.contains_key(name)) {
            self.shift
                .history
                .violation(format!("I6 {}: {name} is gone, but in the map", self.who));
        }
    }
}
