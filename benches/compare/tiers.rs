//! Rows with MongoDB and Redis behind: shared hits, misses, strong reads, hot
//! keys and lists.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use prost::Message as _;
use tidemark::pb::{self, consistency::Requirement};

use super::{
    Bench,
    load::{Calls, Generator, Histogram, Pace},
    near::{CONNECTIONS, Side, gets, in_turns, ratio, spread, uniform},
    report::{Spread, short},
    servers::{Running, Tiers, block_on, get_requests, list_name, todo_name},
};

/// Misses outstanding: as the target says.
pub const MISSES: usize = 128;
/// Strong readers at once.
pub const STRONG: usize = 2000;

/// Somebody else, who changes the database by hand while others read.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Writer {
    /// Updates todos `from..to` in turn, so often a second.
    pub fn start(
        tiers: &Tiers,
        (from, to): (usize, usize),
        per_second: u32,
        field: &'static str,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, uri) = (Arc::clone(&stop), tiers.uri());
        let work = async move {
            let client = mongodb::Client::with_uri_str(uri).await.expect("a client");
            let todos = client
                .database("bench")
                .collection::<mongodb::bson::Document>("todos");
            let (began, mut done) = (Instant::now(), 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                let due = Duration::from_nanos(done * 1_000_000_000 / u64::from(per_second));
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
                let number = from + usize::try_from(done).unwrap_or(0) % (to - from);
                let value = if field == "priority" {
                    // Another one each time that it is this todo's turn again.
                    let turn = usize::try_from(done).unwrap_or(0) / (to - from);
                    mongodb::bson::Bson::from(["LOW", "HIGH"][turn % 2])
                } else {
                    format!("changed {done}").into()
                };
                let change = doc! { "$set": { field: value } };
                todos
                    .update_one(doc! { "_id": todo_name(number) }, change)
                    .await
                    .expect("updated");
                done += 1;
            }
            done
        };
        Self {
            stop,
            thread: Some(thread::spawn(move || block_on(work))),
        }
    }

    /// How many changes it made.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map_or(0, |thread| thread.join().expect("the writer"))
    }
}

/// What every replica of these rows is started with.
pub fn tidemark(tiers: &Tiers, more: &[&str]) -> Running {
    let (uri, url) = (tiers.uri(), tiers.redis_url());
    let mut args = vec!["--mongodb-uri", uri.as_str(), "--redis-url", url.as_str()];
    args.extend(more);
    Running::tidemark(&args)
}

fn consistency(requirement: Requirement) -> pb::Consistency {
    pb::Consistency {
        requirement: Some(requirement),
    }
}

/// Strong reads of these first todos.
pub fn strong_gets(count: usize) -> Calls {
    let strong = consistency(Requirement::FullyConsistent(true));
    Calls {
        method: "GetTodo",
        requests: get_requests(0..count, Some(&strong)),
        order: uniform(count),
    }
}

impl Bench {
    /// Misses in both tiers, then shared hits, against `plain`: with one Redis,
    /// and with a cluster.
    pub fn shared(&mut self) {
        self.beyond_near(
            &Tiers::start(),
            "GetTodo, miss in both tiers, 128 outstanding",
            "GetTodo, shared hit, uniform over 200,000 (50,000 in the short form)",
        );
        self.beyond_near(
            &Tiers::start_with_cluster(),
            "GetTodo, miss in both tiers, 128 outstanding, Redis Cluster",
            "GetTodo, shared hit, Redis Cluster of three",
        );
    }

    fn beyond_near(&mut self, tiers: &Tiers, misses: &'static str, hits: &'static str) {
        let count = if self.form.long { 200_000 } else { 50_000 };
        tiers.fill(count, 400);
        let plain = Running::baseline(&["plain", &tiers.redis_url(), &tiers.uri()]);
        let tidemark = tidemark(tiers, &["--near-capacity", "1MiB"]);
        let side = |name: &'static str, server| {
            Side::new(name, server, CONNECTIONS, gets(count, uniform(count)))
        };
        let mut sides = [side("plain", &plain), side("tidemark", &tidemark)];
        self.misses(tiers, &mut sides, misses);
        for side in &mut sides {
            // Twice: what was dropped off the full queue is put the second time.
            for _ in 0..2 {
                side.load.run_once(64, count);
            }
        }
        let before = tidemark.metric("tidemark_reads_total", "tier=\"shared\"");
        let all = in_turns(
            &mut sides,
            Pace::Outstanding(64),
            self.form.round,
            self.form.rounds,
        );
        let shared = tidemark.metric("tidemark_reads_total", "tier=\"shared\"") - before;
        let calls: u64 = all[1].iter().map(|m| m.out.calls).sum();
        for (name, all) in ["plain", "tidemark"].iter().zip(&all) {
            self.report.detail(format!(
                "{hits}, {name}: {} us of CPU a call, {} calls/s",
                spread(all, |m| m.cpu_us),
                spread(all, |m| m.out.per_second())
            ));
        }
        let ratios = ratio(&all[1], &all[0], |m| m.cpu_us);
        self.report.row(
            hits,
            "CPU <= 0.85 x `plain`",
            format!(
                "{ratios} x ({} % of the reads were shared hits)",
                short(shared * 100.0 / calls as f64)
            ),
            ratios.median <= 0.85,
        );
    }

    fn misses(&mut self, tiers: &Tiers, sides: &mut [Side<'_>; 2], work: &'static str) {
        let calls = if self.form.long { 40_000 } else { 10_000 };
        let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for round in 0..self.form.rounds {
            for turn in 0..2 {
                let at = (turn + round) % 2;
                tiers.flush();
                let out = sides[at].load.run_once(MISSES, calls);
                assert_eq!(out.failed, 0, "a miss failed");
                rates[at].push(out.per_second());
            }
        }
        let ratios = Spread::of(rates[1].iter().zip(&rates[0]).map(|(t, p)| t / p));
        let [plain, tidemark] = rates.map(Spread::of);
        self.report.row(
            work,
            "calls/s >= 3 x `plain`",
            format!("{ratios} x; {tidemark} against {plain} calls/s"),
            ratios.median >= 3.0,
        );
    }

    /// 2,000 strong readers at once.
    pub fn strong(&mut self) {
        let tiers = Tiers::start();
        tiers.fill(10_000, 400);
        let plain = Running::baseline(&["plain", &tiers.redis_url(), &tiers.uri()]);
        let tidemark = tidemark(&tiers, &[]);
        let calls = || strong_gets(10_000);
        let mut sides = [
            Side::new("plain", &plain, CONNECTIONS, calls()),
            Side::new("tidemark", &tidemark, CONNECTIONS, calls()),
        ];
        let heartbeats = tidemark.metric("tidemark_heartbeats_total", "");
        let loads = tidemark.metric("tidemark_origin_load_keys_total", "");
        let all = in_turns(
            &mut sides,
            Pace::Outstanding(STRONG),
            self.form.round,
            self.form.rounds,
        );
        let calls: u64 = all[1].iter().map(|m| m.out.calls).sum();
        self.report.detail(format!(
            "strong reads: {calls} calls took {} heartbeats and {} keys loaded",
            short(tidemark.metric("tidemark_heartbeats_total", "") - heartbeats),
            short(tidemark.metric("tidemark_origin_load_keys_total", "") - loads),
        ));
        let rate = |all: &[super::near::Measured]| spread(all, |m| m.out.per_second());
        let ratios = ratio(&all[1], &all[0], |m| m.out.per_second());
        self.report.row(
            "GetTodo, fully_consistent, 2,000 readers at once",
            "calls/s >= 20 x reading MongoDB with majority",
            format!(
                "{ratios} x; {} against {} calls/s",
                rate(&all[1]),
                rate(&all[0])
            ),
            ratios.median >= 20.0,
        );
    }

    /// One cold key for 10,000 readers, and one that changes while it is read.
    pub fn hot_key(&mut self) {
        const READERS: usize = 10_000;
        let tiers = Tiers::start();
        tiers.fill(1000, 400);
        // The verifier's own loads are not those of the readers.
        let tidemark = tidemark(&tiers, &["--verify-one-in", "0"]);
        let mut cold = Generator::open(tidemark.address, 20, gets(1, vec![0]));
        let loads = || tidemark.metric("tidemark_origin_loads_total", "");
        let before = loads();
        let out = cold.run_once(READERS, READERS);
        let cold_loads = loads() - before;
        assert_eq!(out.failed, 0, "a cold read failed");
        self.report.row(
            "10,000 readers at once of one cold key",
            "1 origin load",
            format!("{} load(s)", short(cold_loads)),
            cold_loads <= 1.0,
        );
        let mut load = Generator::open(tidemark.address, CONNECTIONS, gets(1, vec![0]));
        let length = self.form.round * 2;
        let mut p99 = || {
            load.run(Pace::PerSecond(20_000), length)
                .latency
                .percentile(99.0)
        };
        let (mut quiet, mut busy, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        let (mut changes, mut loaded) = (0, 0.0);
        for _ in 0..self.form.rounds {
            quiet.push(p99());
            let (writer, before) = (Writer::start(&tiers, (0, 1), 20, "title"), loads());
            busy.push(p99());
            changes += writer.stop();
            loaded += loads() - before;
            // What the changes alone cost: of a todo that nobody reads.
            let writer = Writer::start(&tiers, (1, 2), 20, "title");
            elsewhere.push(p99());
            writer.stop();
        }
        let a_change = loaded / changes as f64;
        let times = |of: &[f64]| Spread::of(of.iter().zip(&quiet).map(|(of, quiet)| of / quiet));
        let tails = times(&busy);
        self.report.detail(format!(
            "hot key: p99 {} x a quiet key's while another todo, which nobody reads, is changed 20 times a second",
            times(&elsewhere)
        ));
        self.report.row(
            "the same key, changed 20 times and read 20,000 times a second",
            "<= 1 load a change; p99 <= 2 x a quiet key's",
            format!(
                "{} loads a change; p99 {tails} x, {} ms against {} ms",
                short(a_change),
                Spread::of(busy),
                Spread::of(quiet)
            ),
            a_change <= 1.0 && tails.median <= 2.0,
        );
    }

    /// One list with 100 changes and 5,000 page reads a second.
    pub fn hot_list(&mut self) {
        let tiers = Tiers::start();
        tiers.fill(1000, 400);
        let tidemark = tidemark(&tiers, &[]);
        let request = pb::ListTodosRequest {
            parent: list_name(0),
            page_size: 50,
            ..Default::default()
        };
        let pages = Calls {
            method: "ListTodos",
            requests: vec![request.encode_to_vec()],
            order: vec![0],
        };
        let mut load = Generator::open(tidemark.address, CONNECTIONS, pages);
        let loads = || tidemark.metric("tidemark_origin_loads_total", "kind=\"page\"");
        let writer = Writer::start(&tiers, (0, 100), 100, "priority");
        let (before, began) = (loads(), Instant::now());
        let out = load.run(Pace::PerSecond(5000), self.form.round * 4);
        let seconds = began.elapsed().as_secs_f64();
        let changes = writer.stop();
        let loaded = loads() - before;
        assert_eq!(out.failed, 0, "a page failed");
        self.report.row(
            "one hot list: 100 changes and 5,000 page reads a second",
            "<= 1 page load each 200 ms",
            format!(
                "{} page loads in {} s, with {} changes and {} reads a second; p99 {} ms",
                short(loaded),
                short(seconds),
                short(changes as f64 / seconds),
                short(out.per_second()),
                short(out.latency.percentile(99.0)),
            ),
            // One more: the first.
            loaded <= seconds / 0.2 + 1.0,
        );
    }

    /// A write, then a read with its token, over and over.
    pub fn write_read(&mut self) {
        let tiers = Tiers::start();
        tiers.fill(1000, 400);
        let tidemark = tidemark(&tiers, &[]);
        let plain = Running::baseline(&["plain", &tiers.redis_url(), &tiers.uri()]);
        let times = if self.form.long { 3000 } else { 500 };
        let (tokens, origin) = block_on(async {
            let (mut client, mut plain) = (tidemark.client().await, plain.client().await);
            let (mut tokens, mut origin) = (Histogram::default(), Histogram::default());
            for round in 0..times {
                let name = todo_name(round % 1000);
                let title = format!("title {round}");
                let todo = pb::Todo {
                    name: name.clone(),
                    title: title.clone(),
                    ..Default::default()
                };
                let request = pb::UpdateTodoRequest {
                    todo: Some(todo),
                    ..Default::default()
                };
                let token = client
                    .update_todo(request)
                    .await
                    .expect("updated")
                    .into_inner()
                    .token;
                let fresh = consistency(Requirement::AtLeastAsFresh(token));
                let strong = consistency(Requirement::FullyConsistent(true));
                let read = |consistency| pb::GetTodoRequest {
                    name: name.clone(),
                    consistency: Some(consistency),
                };
                // In turns: the first of the two reads goes beside what the write set off.
                for turn in 0..2 {
                    let (at, request, took) = if (round + turn) % 2 == 0 {
                        (&mut client, read(fresh.clone()), &mut tokens)
                    } else {
                        (&mut plain, read(strong.clone()), &mut origin)
                    };
                    let began = Instant::now();
                    let reply = at.get_todo(request).await.expect("read").into_inner();
                    took.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(0));
                    assert_eq!(reply.todo.map(|todo| todo.title), Some(title.clone()));
                }
            }
            (tokens, origin)
        });
        let told = |h: &Histogram| {
            format!(
                "p50 {} ms, p99 {} ms",
                short(h.percentile(50.0)),
                short(h.percentile(99.0))
            )
        };
        self.report.row(
            "write, then read with its token, same replica: the read",
            "no slower than one origin read (`plain`, majority)",
            format!("{}, against {}", told(&tokens), told(&origin)),
            tokens.percentile(50.0) <= origin.percentile(50.0) * 1.05,
        );
    }
}
