//! Rows that the near tier answers: one todo, a batch, a page, and what each
//! costs as the work grows.

use std::{path::PathBuf, time::Duration};

use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tidemark::pb;

use super::{
    Bench,
    load::{Calls, Generator, Outcome, Pace},
    plot::Plot,
    report::{Spread, short},
    servers::{
        LIST_SIZE, Running, Tiers, block_on, embedded, get_requests, list_name, todo_name, warm,
    },
    tiers::{self, Writer},
};

/// Connections of a usual client; one alone stops near 50,000 calls/s.
pub const CONNECTIONS: usize = 4;
/// Outstanding calls of the closed loop: enough to keep two cores busy.
pub const OUTSTANDING: usize = 64;
/// Todos of the near hit.
pub const NEAR_TODOS: usize = 10_000;
/// The rate at which latency is measured.
const RATE: u32 = 20_000;

/// A server with the load on it.
pub struct Side<'a> {
    pub name: String,
    pub server: &'a Running,
    pub load: Generator,
}

/// What a round measured.
pub struct Measured {
    /// Server CPU of one call, in microseconds.
    pub cpu_us: f64,
    pub out: Outcome,
}

impl<'a> Side<'a> {
    pub fn new(
        name: impl Into<String>,
        server: &'a Running,
        connections: usize,
        calls: Calls,
    ) -> Self {
        Self::of(None, name, server, connections, calls)
    }

    /// Calls by a caller with this key.
    pub fn of(
        bearer: Option<&str>,
        name: impl Into<String>,
        server: &'a Running,
        connections: usize,
        calls: Calls,
    ) -> Self {
        Self {
            name: name.into(),
            server,
            load: Generator::open_as(bearer, server.address, connections, calls),
        }
    }

    pub fn measure(&mut self, pace: Pace, length: Duration) -> Measured {
        let before = self.server.cpu();
        let out = self.load.run(pace, length);
        let cpu = self.server.cpu() - before;
        assert_eq!(out.failed, 0, "{}: calls failed", self.name);
        Measured {
            cpu_us: cpu * 1e6 / out.calls as f64,
            out,
        }
    }
}

/// Rounds in turns: for each side what each round measured.
pub fn in_turns(
    sides: &mut [Side<'_>],
    pace: Pace,
    length: Duration,
    rounds: usize,
) -> Vec<Vec<Measured>> {
    for side in &mut *sides {
        // The first second of a server is not what is wanted.
        side.load.run(pace, Duration::from_millis(500));
    }
    let mut all: Vec<_> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let at = (turn + round) % sides.len();
            all[at].push(sides[at].measure(pace, length));
        }
    }
    all
}

/// The ratio of two sides, round by round.
pub fn ratio(a: &[Measured], b: &[Measured], of: impl Fn(&Measured) -> f64) -> Spread {
    Spread::of(a.iter().zip(b).map(|(a, b)| of(a) / of(b)))
}

pub fn spread(a: &[Measured], of: impl Fn(&Measured) -> f64) -> Spread {
    Spread::of(a.iter().map(of))
}

/// How often each of `count` is asked for follows Zipf's law with 0.99.
pub fn zipf(count: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += 1.0 / (rank as f64).powf(0.99);
            sum
        })
        .collect();
    let mut random = StdRng::seed_from_u64(1);
    let mut places: Vec<u32> = (0..u32::try_from(count).expect("few")).collect();
    rand::seq::SliceRandom::shuffle(places.as_mut_slice(), &mut random);
    (0..100_000)
        .map(|_| {
            places[sums
                .partition_point(|s| *s < random.random_range(0.0..sum))
                .min(count - 1)]
        })
        .collect()
}

/// The numbers from 0 on, in an order without sense.
pub fn uniform(count: usize) -> Vec<u32> {
    let mut places: Vec<u32> = (0..u32::try_from(count).expect("few")).collect();
    rand::seq::SliceRandom::shuffle(places.as_mut_slice(), &mut StdRng::seed_from_u64(2));
    places
}

pub fn gets(count: usize, order: Vec<u32>) -> Calls {
    Calls {
        method: "GetTodo",
        requests: get_requests(0..count, None),
        order,
    }
}

/// Pages of 50 of so many lists.
pub fn pages(lists: usize) -> Calls {
    let request = |list| {
        let parent = list_name(list);
        pb::ListTodosRequest {
            parent,
            page_size: 50,
            ..Default::default()
        }
        .encode_to_vec()
    };
    Calls {
        method: "ListTodos",
        requests: (0..lists).map(request).collect(),
        order: uniform(lists),
    }
}

/// `limit`, with the reply that Tidemark gives to one of these todos and with
/// its page.
pub fn limit_like(server: &Running) -> Running {
    let dir = super::support::folder("bench-limit");
    let (get, page) = (dir.join("get"), dir.join("page"));
    block_on(async {
        let mut client = server.client().await;
        let request = pb::GetTodoRequest {
            name: todo_name(LIST_SIZE),
            consistency: None,
        };
        let reply = client.get_todo(request).await.expect("a todo").into_inner();
        std::fs::write(&get, reply.encode_to_vec()).expect("written");
        let request = pb::ListTodosRequest {
            parent: list_name(1),
            page_size: 50,
            ..Default::default()
        };
        let reply = client
            .list_todos(request)
            .await
            .expect("a page")
            .into_inner();
        assert_eq!(reply.todos.len(), 50);
        std::fs::write(&page, reply.encode_to_vec()).expect("written");
    });
    let text = |file: &PathBuf| file.display().to_string();
    Running::baseline(&["limit", &text(&get), &text(&page)])
}

pub fn cpu(m: &Measured) -> f64 {
    m.cpu_us
}

fn rate(m: &Measured) -> f64 {
    m.out.per_second()
}

pub fn p99(m: &Measured) -> f64 {
    m.out.latency.percentile(99.0)
}

impl Bench {
    /// GetTodo, near hit, Zipf over 10,000; BatchGetTodos of 100; a page of 50.
    pub fn near_hit(&mut self) {
        for bytes in [400, 100] {
            let dir = embedded(NEAR_TODOS, bytes).display().to_string();
            let tidemark = Running::tidemark(&["--data-dir", &dir]);
            warm(&tidemark, NEAR_TODOS);
            let limit = limit_like(&tidemark);
            self.near_one(bytes, &tidemark, &limit);
            self.near_batch(bytes, &tidemark);
            self.near_page(bytes, &tidemark, &limit);
        }
    }

    fn near_one(&mut self, bytes: usize, tidemark: &Running, limit: &Running) {
        let mut as_bytes = gets(NEAR_TODOS, zipf(NEAR_TODOS));
        as_bytes.method = "BatchGetTodos";
        let mut sides = [
            Side::new(
                "limit",
                limit,
                CONNECTIONS,
                gets(NEAR_TODOS, zipf(NEAR_TODOS)),
            ),
            Side::new("limit, bytes", limit, CONNECTIONS, as_bytes),
            Side::new(
                "tidemark",
                tidemark,
                CONNECTIONS,
                gets(NEAR_TODOS, zipf(NEAR_TODOS)),
            ),
        ];
        let all = in_turns(
            &mut sides,
            Pace::Outstanding(OUTSTANDING),
            self.form.round,
            self.form.rounds,
        );
        for (side, all) in sides.iter().zip(&all) {
            self.report.detail(format!(
                "near hit, {bytes} bytes, {}: {} us of CPU a call, {} calls/s; the generator took {} us a call",
                side.name,
                spread(all, cpu),
                spread(all, rate),
                spread(all, |m| m.out.generator_cpu * 1e6 / m.out.calls as f64)
            ));
        }
        let ratios = ratio(&all[2], &all[0], cpu);
        let strict = ratio(&all[2], &all[1], cpu);
        self.report.row(
            if bytes == 400 {
                "GetTodo, near hit, 400 bytes: CPU"
            } else {
                "GetTodo, near hit, 100 bytes: CPU"
            },
            "<= 1.10 x `limit`",
            format!("{ratios} x; {strict} x a `limit` that returns prebuilt bytes"),
            ratios.median <= 1.10,
        );
        let rates = ratio(&all[2], &all[0], rate);
        self.report.row(
            if bytes == 400 {
                "GetTodo, near hit, 400 bytes: calls/s"
            } else {
                "GetTodo, near hit, 100 bytes: calls/s"
            },
            ">= 0.9 x `limit`",
            format!("{rates} x"),
            rates.median >= 0.9,
        );
        let open = in_turns(
            &mut sides,
            Pace::PerSecond(RATE),
            self.form.round,
            self.form.rounds,
        );
        let tails = ratio(&open[2], &open[0], p99);
        self.report.row(
            if bytes == 400 {
                "GetTodo, near hit, 400 bytes: p99 at 20,000/s"
            } else {
                "GetTodo, near hit, 100 bytes: p99 at 20,000/s"
            },
            "<= 1.3 x `limit`",
            format!(
                "{tails} x; {} ms against {} ms",
                spread(&open[2], p99),
                spread(&open[0], p99)
            ),
            tails.median <= 1.3,
        );
        if bytes == 400 {
            self.plot_latency(&sides, &open);
        }
    }

    fn plot_latency(&mut self, sides: &[Side<'_>], open: &[Vec<Measured>]) {
        let percents = [50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9];
        let line = |all: &Vec<Measured>| {
            let at = |p: f64| {
                (
                    100.0 / (100.0 - p),
                    spread(all, |m| m.out.latency.percentile(p)).median,
                )
            };
            percents.map(at).to_vec()
        };
        self.report.plot(&Plot {
            name: "near-latency",
            title: "GetTodo, near hit, 20,000 calls/s: latency",
            x: "one call in so many (100 is p99)",
            y: "ms",
            lines: sides
                .iter()
                .map(|side| side.name.clone())
                .zip(open.iter().map(line))
                .collect(),
        });
    }

    fn near_batch(&mut self, bytes: usize, tidemark: &Running) {
        const BATCH: usize = 100;
        let order = zipf(NEAR_TODOS);
        let request = |at: usize| {
            let names = order[at * BATCH..][..BATCH]
                .iter()
                .map(|n| todo_name(*n as usize))
                .collect();
            pb::BatchGetTodosRequest {
                names,
                consistency: None,
            }
            .encode_to_vec()
        };
        let requests: Vec<_> = (0..500).map(request).collect();
        let batches = Calls {
            method: "BatchGetTodos",
            requests,
            order: (0..500).collect(),
        };
        let ones = gets(NEAR_TODOS, order.clone());
        let mut sides = [
            Side::new("one", tidemark, CONNECTIONS, ones),
            Side::new("batch", tidemark, CONNECTIONS, batches),
        ];
        let all = in_turns(
            &mut sides,
            Pace::Outstanding(16),
            self.form.round,
            self.form.rounds,
        );
        let ratios = Spread::of(
            all[1]
                .iter()
                .zip(&all[0])
                .map(|(b, o)| b.cpu_us / BATCH as f64 / o.cpu_us),
        );
        self.report.row(
            if bytes == 400 {
                "BatchGetTodos of 100, near, 400 bytes"
            } else {
                "BatchGetTodos of 100, near, 100 bytes"
            },
            "CPU a todo <= 0.15 x GetTodo's",
            format!("{ratios} x; {} us a batch", spread(&all[1], cpu)),
            ratios.median <= 0.15,
        );
    }

    fn near_page(&mut self, bytes: usize, tidemark: &Running, limit: &Running) {
        let pages = || pages(NEAR_TODOS / LIST_SIZE);
        let mut sides = [("limit", limit), ("tidemark", tidemark)]
            .map(|(name, server)| Side::new(name, server, CONNECTIONS, pages()));
        let all = in_turns(
            &mut sides,
            Pace::Outstanding(16),
            self.form.round,
            self.form.rounds,
        );
        let ratios = ratio(&all[1], &all[0], cpu);
        self.report.row(
            if bytes == 400 {
                "ListTodos, page of 50, near, 400 bytes"
            } else {
                "ListTodos, page of 50, near, 100 bytes"
            },
            "CPU <= 2 x a `limit` that answers the same bytes",
            format!(
                "{ratios} x; {} us against {} us",
                spread(&all[1], cpu),
                spread(&all[0], cpu)
            ),
            ratios.median <= 2.0,
        );
    }

    /// CPU of a near hit as the todos in near grow.
    pub fn growth_todos(&mut self) {
        let mut counts = vec![1, 1000, 10_000, 100_000];
        if self.form.long {
            counts.push(1_000_000);
        }
        let most = counts.last().copied().unwrap_or(1);
        let dir = embedded(most, 400).display().to_string();
        let tidemark = Running::tidemark(&["--data-dir", &dir, "--near-capacity", "2GiB"]);
        warm(&tidemark, most);
        let mut sides: Vec<_> = counts
            .iter()
            .map(|n| {
                Side::new(
                    format!("{n} todos"),
                    &tidemark,
                    CONNECTIONS,
                    gets(*n, uniform(*n)),
                )
            })
            .collect();
        let todos = in_turns(
            &mut sides,
            Pace::Outstanding(OUTSTANDING),
            self.form.round,
            self.form.rounds,
        );
        self.grown(
            "todos asked for in near",
            "todos",
            "growth-todos",
            &counts,
            &todos,
            None,
        );
    }

    /// The same as the connections grow.
    pub fn growth_connections(&mut self) {
        let dir = embedded(NEAR_TODOS, 400).display().to_string();
        let tidemark = Running::tidemark(&["--data-dir", &dir]);
        warm(&tidemark, NEAR_TODOS);
        let connections = [1, 4, 20, 200];
        let mut sides: Vec<_> = connections
            .iter()
            .map(|n| {
                Side::new(
                    format!("{n} connections"),
                    &tidemark,
                    *n,
                    gets(10_000, uniform(10_000)),
                )
            })
            .collect();
        let all = in_turns(
            &mut sides,
            Pace::Outstanding(200),
            self.form.round,
            self.form.rounds,
        );
        let steady = in_turns(
            &mut sides,
            Pace::PerSecond(RATE),
            self.form.round,
            self.form.rounds,
        );
        drop(sides);
        let limit = limit_like(&tidemark);
        let mut sides: Vec<_> = connections
            .iter()
            .map(|n| {
                Side::new(
                    format!("limit, {n}"),
                    &limit,
                    *n,
                    gets(10_000, uniform(10_000)),
                )
            })
            .collect();
        let framework = in_turns(
            &mut sides,
            Pace::Outstanding(200),
            self.form.round,
            self.form.rounds,
        );
        let steady_framework = in_turns(
            &mut sides,
            Pace::PerSecond(RATE),
            self.form.round,
            self.form.rounds,
        );
        self.grown(
            "connections",
            "connections",
            "growth-connections",
            &connections,
            &all,
            Some(&framework),
        );
        self.grown(
            "connections",
            "rate",
            "growth-at-a-rate",
            &connections,
            &steady,
            Some(&steady_framework),
        );
    }

    /// The same with and without changes on other keys, in turns.
    pub fn growth_changes(&mut self) {
        const READ: usize = 1000;
        const WRITERS: u32 = 8;
        const CHANGES_PER_SECOND: u32 = 2000;
        let tiers = Tiers::start();
        tiers.fill(READ * 2, 400);
        let tidemark = tiers::tidemark(&tiers, &[]);
        warm(&tidemark, READ);
        let mut side = Side::new(
            "tidemark",
            &tidemark,
            CONNECTIONS,
            gets(READ, uniform(READ)),
        );
        let (mut quiet, mut busy, mut changes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..self.form.rounds {
            quiet.push(side.measure(Pace::PerSecond(RATE), self.form.round));
            let each = READ / WRITERS as usize;
            let writer = |n| {
                let from = READ + n as usize * each;
                Writer::start(
                    &tiers,
                    (from, from + each),
                    CHANGES_PER_SECOND / WRITERS,
                    "title",
                )
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            busy.push(side.measure(Pace::PerSecond(RATE), self.form.round));
            changes += writers.into_iter().map(Writer::stop).sum::<u64>();
        }
        let ratios = ratio(&busy, &quiet, cpu);
        let seconds: f64 = busy.iter().map(|m| m.out.seconds).sum();
        self.report.row(
            "CPU a near hit, with changes on other keys, at 20,000 reads a second",
            "flat, +-10 %, with 2,000 changes a second",
            format!(
                "{ratios} x that without, with {} changes a second; {} us against {} us",
                short(changes as f64 / seconds),
                spread(&busy, cpu),
                spread(&quiet, cpu)
            ),
            ratios.median <= 1.1,
        );
    }

    /// One cost for each count; `framework`: what the same costs `limit`.
    fn grown(
        &mut self,
        what: &'static str,
        x: &'static str,
        name: &'static str,
        counts: &[usize],
        all: &[Vec<Measured>],
        framework: Option<&[Vec<Measured>]>,
    ) {
        let medians = |all: &[Vec<Measured>]| {
            all.iter()
                .map(|all| spread(all, cpu).median)
                .collect::<Vec<_>>()
        };
        let told = |costs: &[f64]| {
            let told = counts
                .iter()
                .zip(costs)
                .map(|(n, cost)| format!("{n}: {} us", short(*cost)));
            told.collect::<Vec<_>>().join(", ")
        };
        let costs = medians(all);
        let (least, most) = costs
            .iter()
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), c| {
                (least.min(*c), most.max(*c))
            });
        let limit = framework.map(medians);
        let beside = limit
            .as_ref()
            .map_or_else(String::new, |costs| format!("; `limit`: {}", told(costs)));
        self.report.row(
            match x {
                "todos" => "CPU a near hit, 1 to 1,000,000 todos",
                "connections" => "CPU a near hit, 1 to 200 connections, 200 calls outstanding",
                _ => "CPU a near hit, 1 to 200 connections, 20,000 calls/s",
            },
            "flat, +-10 %",
            format!("{}{beside}", told(&costs)),
            most / least <= 1.1 / 0.9,
        );
        let line = |costs: Vec<f64>| {
            counts
                .iter()
                .zip(costs)
                .map(|(n, cost)| (*n as f64, cost))
                .collect()
        };
        let mut lines = vec![("GetTodo".into(), line(costs))];
        lines.extend(limit.map(|costs| ("limit".into(), line(costs))));
        self.report.plot(&Plot {
            name,
            title: match x {
                "todos" => "CPU of a near hit by todos in near",
                "connections" => "CPU of a near hit by connections, 200 calls outstanding",
                _ => "CPU of a near hit by connections, 20,000 calls/s",
            },
            x: what,
            y: "us",
            lines,
        });
    }
}
