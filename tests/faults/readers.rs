//! Readers of every consistency level: each checks its responses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tidemark::pb::{self, consistency::Requirement};
use tokio::time::sleep;

use crate::{
    api::{self, Client, Facts, Failed, Rows},
    history::{Asked, Floors, History},
    report::{Recorder, Timer},
    world::{Random, STALE_IF_ERROR},
};

/// What all who work share.
pub struct Shift {
    pub history: History,
    pub recorder: Recorder,
    pub lists: Vec<String>,
    /// Todos that never change.
    pub still: Vec<String>,
    pub limit: Duration,
    pub stop: AtomicBool,
}

impl Shift {
    pub fn ended(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a reader asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// The default, of todos that never change and are in the caches.
    Cached,
    Default,
    MaxStaleness(Duration),
    Token,
    Strong,
    CachedOnly,
}

impl Consistency {
    fn name(self, what: What, replica: usize) -> &'static str {
        match (self, what) {
            (Self::Cached, _) if replica == STALE_IF_ERROR => "cached, stale allowed",
            (Self::Cached, _) => "cached",
            (Self::Default, What::Get) => "default",
            (Self::MaxStaleness(_), _) => "max_staleness",
            (Self::Token, What::Get) => "token",
            (Self::Strong, What::Get) => "strong",
            (Self::CachedOnly, _) => "cached_only",
            (Self::Default, What::Batch) => "batch default",
            (Self::Token, What::Batch) => "batch token",
            (Self::Strong, What::Batch) => "batch strong",
            (Self::Default, What::List) => "list default",
            (Self::Token, What::List) => "list token",
            (Self::Strong, What::List) => "list strong",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Get,
    Batch,
    List,
}

/// One reader: a client that passes on the last token it was given.
pub struct Reader {
    shift: Arc<Shift>,
    replicas: Vec<Client>,
    random: Random,
    consistency: Consistency,
    token: String,
    floors: Floors,
    pause: Duration,
    /// Asks only this one.
    only: Option<usize>,
}

/// Todos of a batch.
const BATCH: usize = 8;

impl Reader {
    pub fn new(
        shift: &Arc<Shift>,
        replicas: Vec<Client>,
        consistency: Consistency,
        pause: Duration,
        seed: u64,
    ) -> Self {
        let random = Random(seed);
        let shift = Arc::clone(shift);
        Self {
            shift,
            replicas,
            random,
            consistency,
            token: String::new(),
            floors: Floors::new(),
            pause,
            only: None,
        }
    }

    pub fn at(mut self, replica: usize) -> Self {
        self.only = Some(replica);
        self
    }

    pub async fn run(mut self) {
        while !self.shift.ended() {
            let replica = self
                .only
                .unwrap_or_else(|| self.random.below(self.replicas.len()));
            let whole = !matches!(
                self.consistency,
                Consistency::Cached | Consistency::MaxStaleness(_) | Consistency::CachedOnly
            );
            match self.random.below(10) {
                0 if whole => self.list(replica).await,
                1 if whole => self.batch(replica).await,
                _ => self.get(replica).await,
            }
            sleep(self.pause).await;
        }
    }

    fn how(&self) -> Option<pb::Consistency> {
        match self.consistency {
            Consistency::Cached | Consistency::Default => None,
            Consistency::MaxStaleness(d) => {
                let nanos = i32::try_from(d.subsec_nanos()).expect("nanoseconds");
                let d = prost_types::Duration {
                    seconds: d.as_secs().cast_signed(),
                    nanos,
                };
                api::consistency(Requirement::MaxStaleness(d))
            }
            Consistency::Token if self.token.is_empty() => None,
            Consistency::Token => api::consistency(Requirement::AtLeastAsFresh(self.token.clone())),
            Consistency::Strong => api::consistency(Requirement::FullyConsistent(true)),
            Consistency::CachedOnly => api::consistency(Requirement::CachedOnly(true)),
        }
    }

    fn a_name(&mut self) -> String {
        if self.consistency == Consistency::Cached {
            return self.random.pick(&self.shift.still).clone();
        }
        let list = self.random.pick(&self.shift.lists).clone();
        let names = self.shift.history.names_in(&list);
        if names.is_empty() {
            format!("{list}/todos/none")
        } else {
            self.random.pick(&names).to_string()
        }
    }

    /// What an answer must show of this todo, whatever its age.
    fn floor(&self, name: &str) -> u64 {
        match self.consistency {
            Consistency::Strong => self.shift.history.acked(name),
            Consistency::Token => self.floors.get(name).copied().unwrap_or(0),
            _ => 0,
        }
    }

    async fn get(&mut self, replica: usize) {
        let (name, how) = (self.a_name(), self.how());
        let floor = self.floor(&name);
        let timer = self.shift.recorder.timer();
        let got = api::get(&mut self.replicas[replica], &name, how).await;
        let got = self.noted(&timer, What::Get, replica, got);
        if let Some(got) = got {
            let asked = self.asked(&timer, What::Get, replica, &got.facts);
            self.saw(
                &name,
                self.shift.history.check(&name, got.shown, &asked, floor),
            );
            self.token = got.facts.token;
        }
    }

    async fn batch(&mut self, replica: usize) {
        let names: Vec<_> = (0..BATCH).map(|_| self.a_name()).collect();
        let floors: Floors = names
            .iter()
            .map(|name| (name.as_str().into(), self.floor(name)))
            .collect();
        let how = self.how();
        let timer = self.shift.recorder.timer();
        let got = api::batch(&mut self.replicas[replica], names, how).await;
        if let Some((rows, facts)) = self.noted(&timer, What::Batch, replica, got) {
            self.check(&timer, What::Batch, replica, &rows, &facts, &floors);
            self.token = facts.token;
        }
    }

    /// All pages of a list, each at a replica of its own.
    async fn list(&mut self, mut replica: usize) {
        let list = self.random.pick(&self.shift.lists).clone();
        let size = i32::try_from(3 + self.random.below(40)).expect("small");
        let (began, mut next, mut names, mut age) =
            (Instant::now(), String::new(), Vec::new(), Duration::ZERO);
        loop {
            let all = self.shift.history.names_in(&list);
            let floors: Floors = all
                .into_iter()
                .map(|name| (name.clone(), self.floor(&name)))
                .collect();
            let how = self.how();
            let timer = self.shift.recorder.timer();
            let got = api::page(&mut self.replicas[replica], &list, next, size, how).await;
            let Some(page) = self.noted(&timer, What::List, replica, got) else {
                return;
            };
            self.check(
                &timer,
                What::List,
                replica,
                &page.rows,
                &page.facts,
                &floors,
            );
            self.token.clone_from(&page.facts.token);
            let limit = if page.facts.stale {
                Duration::MAX
            } else {
                self.shift.limit
            };
            age = age.max(page.facts.bound.min(limit));
            names.extend(page.rows.into_iter().map(|(name, _)| name));
            next = page.next;
            if next.is_empty() {
                break;
            }
            replica = self
                .only
                .unwrap_or_else(|| self.random.below(self.replicas.len()));
        }
        self.shift
            .history
            .check_run(&list, &names, began, Instant::now(), age);
    }

    fn check(
        &mut self,
        timer: &Timer,
        what: What,
        replica: usize,
        rows: &Rows,
        facts: &Facts,
        floors: &Floors,
    ) {
        let asked = self.asked(timer, what, replica, facts);
        for (name, shown) in rows {
            let floor = floors.get(name.as_str()).copied().unwrap_or(0);
            self.saw(name, self.shift.history.check(name, *shown, &asked, floor));
        }
    }

    fn saw(&mut self, name: &str, version: u64) {
        if self.consistency == Consistency::Token {
            let floor = self.floors.entry(name.into()).or_default();
            *floor = version.max(*floor);
        }
    }

    fn asked(&self, timer: &Timer, what: What, replica: usize, facts: &Facts) -> Asked {
        let ended = Instant::now();
        let within = match self.consistency {
            Consistency::MaxStaleness(d) => d.min(self.shift.limit),
            Consistency::Strong => Duration::ZERO,
            _ => self.shift.limit,
        };
        let asked = Asked {
            what: self.consistency.name(what, replica),
            began: timer.began,
            ended,
            within,
            bound: facts.bound,
            fresh_to: facts.fresh_to(),
            stale: facts.stale,
            replica,
        };
        let most = within + (ended - timer.began) + Duration::from_millis(1);
        if !facts.stale && facts.bound > most {
            let text = format!(
                "{} at replica {replica}: the bound {:?} is over {most:?}",
                asked.what, facts.bound
            );
            self.shift.history.violation(text);
        }
        asked
    }

    fn noted<T>(
        &self,
        timer: &Timer,
        what: What,
        replica: usize,
        got: Result<T, Failed>,
    ) -> Option<T> {
        let consistency = self.consistency.name(what, replica);
        match got {
            Ok(got) => {
                self.shift
                    .recorder
                    .note(timer, consistency, Some(replica), None);
                Some(got)
            }
            Err(failed) if failed.never_sent => None,
            Err(failed) => {
                if ["TOKEN_INVALID", "PAGE_TOKEN_INVALID", "TOKEN_FOREIGN"]
                    .contains(&failed.reason.as_str())
                {
                    self.shift
                        .history
                        .violation(format!("an honest token was refused: {failed:?}"));
                }
                if ["FIELD_INVALID", "TODO_UNREADABLE"].contains(&failed.reason.as_str())
                    || failed.code == tonic::Code::Internal
                {
                    self.shift
                        .history
                        .violation(format!("{consistency}: {failed:?}"));
                }
                self.shift
                    .recorder
                    .note(timer, consistency, Some(replica), Some(failed.kind()));
                None
            }
        }
    }
}
