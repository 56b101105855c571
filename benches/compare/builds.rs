//! Two builds of the program in turns: what a setting of the build costs where the drivers
//! of MongoDB, Redis and the embedded store work. A figure of another run says nothing
//! about it: the machine differs by more.

use std::{ffi::OsStr, path::PathBuf};

use super::{
    Bench,
    access::updates,
    load::{Calls, Pace},
    near::{
        CONNECTIONS, Measured, NEAR_TODOS, OUTSTANDING, Side, cpu, gets, in_turns, pages, ratio,
        spread, uniform, zipf,
    },
    servers::{LIST_SIZE, Running, Tiers, embedded, warm},
    tiers::{MISSES, STRONG, strong_gets},
};

/// The programs, as in `PATH`.
const VARIABLE: &str = "TIDEMARK_TEST_BUILDS";
/// Writes outstanding.
const WRITES: usize = 64;
/// Todos behind a near cache that holds a few hundred of them.
const FAR_TODOS: usize = 20_000;
/// Misses in one round.
const MISSES_A_ROUND: usize = 10_000;

impl Bench {
    /// Each kind of work by both programs of `TIDEMARK_TEST_BUILDS`.
    pub fn builds(&mut self) {
        let Some(programs) = std::env::var_os(VARIABLE) else {
            println!("not measured: {VARIABLE} names no programs, separated by a colon");
            return;
        };
        self.embedded_builds(&programs);
        self.far_builds(&programs, &Tiers::start(), "one Redis");
        self.far_builds(&programs, &Tiers::start_with_cluster(), "Redis Cluster");
    }

    fn far_builds(&mut self, programs: &OsStr, tiers: &Tiers, redis: &str) {
        tiers.fill(FAR_TODOS, 400);
        let (uri, url) = (tiers.uri(), tiers.redis_url());
        let servers = servers(programs, || {
            let args = [
                "--near-capacity",
                "1MiB",
                "--mongodb-uri",
                &uri,
                "--redis-url",
                &url,
            ];
            args.map(str::to_owned).to_vec()
        });
        let reads = || gets(FAR_TODOS, uniform(FAR_TODOS));
        let mut far = sides(&servers, &reads);
        let all = misses(tiers, &mut far, self.form.rounds);
        self.compared(&format!("miss in both tiers, {redis}"), &all);
        for side in &mut far {
            // Twice: what was dropped off the full queue is put the second time.
            for _ in 0..2 {
                side.load.run_once(OUTSTANDING, FAR_TODOS);
            }
        }
        self.in_turns_of(&format!("shared hit, {redis}"), far, OUTSTANDING);
        let strong = || strong_gets(FAR_TODOS);
        let work = format!("strong read, {redis}");
        self.in_turns_of(&work, sides(&servers, &strong), STRONG);
        let work = format!("update, MongoDB and {redis}");
        self.in_turns_of(&work, sides(&servers, &updates), WRITES);
    }

    fn embedded_builds(&mut self, programs: &OsStr) {
        let servers = servers(programs, || {
            let dir = embedded(NEAR_TODOS, 400).display().to_string();
            vec!["--data-dir".into(), dir]
        });
        for server in &servers {
            warm(server, NEAR_TODOS);
        }
        let near = || gets(NEAR_TODOS, zipf(NEAR_TODOS));
        self.in_turns_of("near hit", sides(&servers, &near), OUTSTANDING);
        let pages = || pages(NEAR_TODOS / LIST_SIZE);
        self.in_turns_of("page of 50", sides(&servers, &pages), OUTSTANDING);
        self.in_turns_of("update, embedded", sides(&servers, &updates), WRITES);
    }

    fn in_turns_of(&mut self, work: &str, mut sides: Vec<Side<'_>>, outstanding: usize) {
        let pace = Pace::Outstanding(outstanding);
        let all = in_turns(&mut sides, pace, self.form.round, self.form.rounds);
        self.compared(work, &all);
    }

    fn compared(&mut self, work: &str, all: &[Vec<Measured>]) {
        for (number, one) in all.iter().enumerate() {
            self.report.detail(format!(
                "{work}, build {}: {} us of CPU a call, {} calls/s; {} x the CPU of build 1",
                number + 1,
                spread(one, cpu),
                spread(one, |m| m.out.per_second()),
                ratio(one, &all[0], cpu),
            ));
        }
    }
}

fn servers(programs: &OsStr, args: impl Fn() -> Vec<String>) -> Vec<Running> {
    let start = |program: PathBuf| {
        let args = args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Running::tidemark_of(&program, &args)
    };
    std::env::split_paths(programs).map(start).collect()
}

fn sides<'a>(servers: &'a [Running], calls: &dyn Fn() -> Calls) -> Vec<Side<'a>> {
    let side =
        |(number, server)| Side::new(format!("build {number}"), server, CONNECTIONS, calls());
    servers.iter().enumerate().map(side).collect()
}

/// Reads of what is in no cache, in turns.
fn misses(tiers: &Tiers, sides: &mut [Side<'_>], rounds: usize) -> Vec<Vec<Measured>> {
    let mut all: Vec<Vec<Measured>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let at = (turn + round) % sides.len();
            tiers.flush();
            let before = sides[at].server.cpu();
            let out = sides[at].load.run_once(MISSES, MISSES_A_ROUND);
            assert_eq!(out.failed, 0, "a miss failed");
            let cpu_us = (sides[at].server.cpu() - before) * 1e6 / out.calls as f64;
            all[at].push(Measured { cpu_us, out });
        }
    }
    all
}
