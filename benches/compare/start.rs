//! Rows of start, memory and the embedded store.

use std::time::{Duration, Instant};

use prost::Message as _;
use tidemark::{
    model::{OriginTime, TodoName},
    origin::{Origin as _, embedded::Embedded},
    pb,
};

use super::{
    Bench,
    load::{Calls, Generator, Pace},
    near::{CONNECTIONS, gets, uniform},
    report::{Spread, short},
    servers::{Running, Tiers, block_on, closed, embedded, todo, todo_name, warm},
};

const MIB: f64 = 1024.0 * 1024.0;

impl Bench {
    /// Start with many changes to replay.
    pub fn replay(&mut self) {
        let changes = 1_000_000;
        let dir = embedded(changes, 100).display().to_string();
        self.replayed(
            "start with changes to replay, embedded",
            changes,
            &["--data-dir", &dir],
        );
        let changes = if self.form.long { 1_000_000 } else { 200_000 };
        let tiers = Tiers::start();
        let uri = tiers.uri();
        // It was here before, and its indexes are there.
        drop(Running::tidemark(&["--mongodb-uri", &uri]));
        tiers.fill(changes, 100);
        self.replayed(
            "start with changes to replay, MongoDB",
            changes,
            &["--mongodb-uri", &uri],
        );
    }

    fn replayed(&mut self, work: &'static str, changes: usize, args: &[&str]) {
        let began = Instant::now();
        let tidemark = Running::tidemark(args);
        let seconds = began.elapsed().as_secs_f64();
        let applied = tidemark.metric("tidemark_feed_changes_total", "");
        self.report.row(
            work,
            "ready at >= 50,000 changes/s",
            format!(
                "{} changes/s: {} of {changes} applied in {} s",
                short(applied / seconds),
                short(applied),
                short(seconds)
            ),
            applied / seconds >= 50_000.0 && applied >= changes as f64,
        );
    }

    /// Near full at 256 MiB, with churn.
    pub fn memory(&mut self) {
        self.full(
            "near full at 256 MiB, todos of 400 bytes: memory",
            700_000,
            400,
        );
    }

    /// The same with more and smaller todos.
    pub fn memory_small(&mut self) {
        self.full(
            "near full at 256 MiB, todos of 100 bytes: memory",
            1_000_000,
            100,
        );
    }

    fn full(&mut self, work: &'static str, count: usize, bytes: usize) {
        const CAPACITY: f64 = 256.0 * MIB;
        let limit = (1.35 * CAPACITY + 40e6) / MIB;
        let dir = embedded(count, bytes).display().to_string();
        let tidemark = Running::tidemark(&["--data-dir", &dir, "--replay-window", "15s"]);
        warm(&tidemark, count);
        let full = tidemark.resident() / MIB;
        let mut load = Generator::open(tidemark.address, CONNECTIONS, gets(count, uniform(count)));
        let churn = Duration::from_secs(if self.form.long { 1800 } else { 20 });
        let (began, mut most) = (Instant::now(), full);
        while began.elapsed() < churn {
            load.run(Pace::Outstanding(64), Duration::from_secs(2));
            most = most.max(tidemark.resident() / MIB);
        }
        let end = tidemark.resident() / MIB;
        self.report.row(
            work,
            format!("<= 1.35 x that + 40 MB = {} MiB", short(limit)),
            format!(
                "{} MiB when full, {} MiB at most and {} MiB at the end of {} s of churn; near counts {} MiB",
                short(full),
                short(most),
                short(end),
                churn.as_secs(),
                short(tidemark.metric("tidemark_near_bytes", "") / MIB)
            ),
            most <= limit,
        );
    }

    /// Point reads and durable creates of the embedded store.
    pub fn embedded(&mut self) {
        const COUNT: usize = 100_000;
        let dir = embedded(COUNT, 400);
        let reads: Vec<_> = (0..self.form.rounds)
            .map(|_| point_reads(&dir, COUNT, self.form.round))
            .collect();
        let reads = Spread::of(reads);
        self.report.row(
            "embedded origin: point reads, one task",
            ">= 100,000/s",
            format!("{reads} /s"),
            reads.median >= 100_000.0,
        );
        let dir = dir.display().to_string();
        let tidemark = Running::tidemark(&["--data-dir", &dir]);
        let most = if self.form.long { 20_000 } else { 4000 };
        let mut rates = Vec::new();
        for round in 0..self.form.rounds {
            let create = |n: usize| {
                let todo_id = format!("new-{round}-{n}");
                let todo = Some(pb::Todo {
                    title: "A todo".into(),
                    name: String::new(),
                    ..todo(n, 400)
                });
                pb::CreateTodoRequest {
                    parent: "lists/new".into(),
                    todo,
                    todo_id,
                    ..Default::default()
                }
                .encode_to_vec()
            };
            let requests: Vec<_> = (0..most).map(create).collect();
            let order = (0..u32::try_from(most).expect("few")).collect();
            let mut load = Generator::open(
                tidemark.address,
                CONNECTIONS,
                Calls {
                    method: "CreateTodo",
                    requests,
                    order,
                },
            );
            let out = load.run_once(64, most);
            assert_eq!(out.failed, 0, "a create failed");
            rates.push(out.per_second());
        }
        let rates = Spread::of(rates);
        self.report.row(
            "embedded origin: durable creates, 64 outstanding",
            ">= 2,000/s",
            format!("{rates} /s, by gRPC"),
            rates.median >= 2000.0,
        );
    }
}

fn point_reads(dir: &std::path::Path, count: usize, length: Duration) -> f64 {
    let names: Vec<_> = uniform(count)
        .iter()
        .map(|n| [TodoName::parse(&todo_name(*n as usize)).expect("a name")])
        .collect();
    let each_second = block_on(async {
        let origin = Embedded::open(dir, 0).expect("opened");
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < length {
            for name in names.iter().cycle().skip(done % count).take(1000) {
                let loaded = origin
                    .load_todos(name, OriginTime::ZERO, Duration::from_secs(1))
                    .await;
                assert_eq!(loaded.expect("loaded").1.len(), 1);
                done += 1;
            }
        }
        done as f64 / began.elapsed().as_secs_f64()
    });
    closed(dir);
    each_second
}
