//! Rows of the watchers: what an idle one costs, and how soon a change is seen.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use prost::Message as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidemark::pb;

use super::{
    Bench,
    http2::{Connection, Event},
    load::Histogram,
    report::short,
    servers::{LIST_SIZE, Running, Tiers, block_on, embedded, list_name, todo_name},
};

const IDLE: usize = 10_000;
const WATCHERS: usize = 1000;
const CHANGES_PER_SECOND: u32 = 100;

/// Streams over a few connections.
struct Watchers {
    connections: Vec<Connection>,
    /// Messages that came while they were opened: the first of each.
    early: usize,
}

impl Watchers {
    fn open(
        server: &Running,
        connections: usize,
        count: usize,
        parent: impl Fn(usize) -> String,
    ) -> Self {
        let open = |_| {
            Connection::open(server.address, "/todo.v1.TodoService/WatchTodos", None)
                .expect("connected")
        };
        let mut all = Self {
            connections: (0..connections).map(open).collect(),
            early: 0,
        };
        for n in 0..count {
            let progress_interval = Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            });
            let request = pb::WatchTodosRequest {
                parent: parent(n),
                progress_interval,
                ..Default::default()
            };
            all.connections[n % connections].call(&request.encode_to_vec(), n as u64);
            if n % 100 == 99 {
                let mut early = 0;
                all.wait(Duration::from_millis(1), |_| early += 1);
                all.early += early;
            }
        }
        all
    }

    /// Takes in what comes within this time, if it comes at all.
    fn wait(&mut self, time: Duration, mut on: impl FnMut(&[u8])) {
        for connection in &mut self.connections {
            connection.flush().expect("sent");
        }
        let mut fds: Vec<_> = self
            .connections
            .iter()
            .map(|c| PollFd::new(&c.socket, PollFlags::IN))
            .collect();
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let _ = poll(&mut fds, Some(&time));
        let ready: Vec<_> = fds
            .iter()
            .map(|fd| fd.revents().contains(PollFlags::IN))
            .collect();
        for (connection, _) in self
            .connections
            .iter_mut()
            .zip(ready)
            .filter(|(_, ready)| *ready)
        {
            let took = connection.read(|_, event| match event {
                Event::Data(data) => on(data),
                Event::End { .. } => panic!("a watch ended"),
            });
            took.expect("read");
        }
    }

    /// Until every watch has had its first message.
    fn begin(&mut self, count: usize) {
        let (mut seen, began) = (self.early, Instant::now());
        while seen < count {
            self.wait(Duration::from_millis(100), |_| seen += 1);
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{seen} of {count} watches began"
            );
        }
    }
}

impl Bench {
    /// 10,000 idle ones, then 1,000 of one list with 100 changes a second.
    pub fn watchers(&mut self) {
        let dir = embedded(IDLE, 100).display().to_string();
        let tidemark = Running::tidemark(&["--data-dir", &dir]);
        let before = tidemark.resident();
        let mut idle = Watchers::open(&tidemark, 20, IDLE, |n| list_name(n % 100));
        while tidemark.metric("tidemark_watchers", "") < IDLE as f64 {
            idle.wait(Duration::from_millis(10), |_| {});
        }
        idle.wait(Duration::from_millis(500), |_| {});
        let each = (tidemark.resident() - before) / IDLE as f64 / 1024.0;
        self.report.row(
            "10,000 idle watchers: memory of each",
            "<= 12 KB",
            format!("{} KB", short(each)),
            each <= 12.0,
        );
        drop((idle, tidemark));
        self.watched_changes();
    }

    fn watched_changes(&mut self) {
        let tiers = Tiers::start();
        tiers.fill(LIST_SIZE, 400);
        let (uri, url) = (tiers.uri(), tiers.redis_url());
        let tidemark = Running::tidemark(&["--mongodb-uri", &uri, "--redis-url", &url]);
        let mut watchers = Watchers::open(&tidemark, 4, WATCHERS, |_| list_name(0));
        watchers.begin(WATCHERS);
        let sent: Arc<Mutex<Vec<Option<Instant>>>> = Arc::new(Mutex::new(vec![None; LIST_SIZE]));
        let length = self.form.round * 4;
        let changes = u32::try_from(length.as_millis()).unwrap_or(0) * CHANGES_PER_SECOND / 1000;
        let writer = {
            let (sent, uri) = (Arc::clone(&sent), tiers.uri());
            thread::spawn(move || block_on(change(uri, changes, sent)))
        };
        let (cpu, began) = (tidemark.cpu(), Instant::now());
        let (mut latency, mut seen) = (Histogram::default(), 0_u64);
        let wanted = u64::from(changes) * WATCHERS as u64;
        while seen < wanted && began.elapsed() < length * 3 {
            watchers.wait(Duration::from_millis(20), |data| {
                let now = Instant::now();
                for number in numbers(data) {
                    let Some(at) = sent.lock().expect("the instants")[number] else {
                        continue;
                    };
                    latency.record(u64::try_from((now - at).as_nanos()).unwrap_or(0));
                    seen += 1;
                }
            });
        }
        writer.join().expect("the writer");
        let cpu = (tidemark.cpu() - cpu) * 1e6 / seen as f64;
        let p99 = latency.percentile(99.0);
        self.report.row(
            "1,000 watchers of a list with 100 changes a second: seen at p99",
            "<= 20 ms",
            format!(
                "{} ms (p50 {} ms) after the write was sent to MongoDB; {seen} of {wanted} messages, \
                 {} us of CPU each",
                short(p99),
                short(latency.percentile(50.0)),
                short(cpu)
            ),
            p99 <= 20.0 && seen == wanted,
        );
    }
}

/// Changes todos of the first list by hand, in turn.
async fn change(uri: String, changes: u32, sent: Arc<Mutex<Vec<Option<Instant>>>>) {
    let client = mongodb::Client::with_uri_str(uri).await.expect("a client");
    let todos = client
        .database("bench")
        .collection::<mongodb::bson::Document>("todos");
    let began = Instant::now();
    for n in 0..changes {
        let due = Duration::from_secs(1) * n / CHANGES_PER_SECOND;
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        let number = n as usize % LIST_SIZE;
        sent.lock().expect("the instants")[number] = Some(Instant::now());
        let update = doc! { "$set": { "title": format!("changed {n}") } };
        todos
            .update_one(doc! { "_id": todo_name(number) }, update)
            .await
            .expect("updated");
    }
}

/// The numbers of the todos that the messages name.
fn numbers(data: &[u8]) -> Vec<usize> {
    const BEFORE: &[u8] = b"/todos/";
    let found = data
        .windows(BEFORE.len() + 7)
        .filter(|w| w.starts_with(BEFORE));
    found
        .filter_map(|w| std::str::from_utf8(&w[BEFORE.len()..]).ok()?.parse().ok())
        .collect()
}
