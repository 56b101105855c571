//! The servers under test as processes, what they cost, and the todos in them.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use mongodb::bson::{DateTime, Document, doc};
use prost::Message as _;
use tidemark::{
    grpc::client::todo_service_client::TodoServiceClient,
    origin::{Origin as _, embedded::Embedded},
    pb,
};
use tonic::transport::Channel;

use super::{
    load::{Calls, Generator},
    support::{Mongo, RedisCluster, Server, folder, redis, redis_cli, scrape, spawn},
};

/// A server under test.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    metrics: Option<String>,
}

impl Running {
    fn start(program: &Path, args: &[String]) -> Self {
        let mut child = spawn(program, args, &[], (Stdio::piped(), Stdio::inherit()));
        let mut out = BufReader::new(child.stdout.take().expect("stdout"))
            .lines()
            .map_while(Result::ok);
        let listens = out.next().expect("the server listens");
        let address = listens
            .rsplit("http://")
            .next()
            .and_then(|a| a.parse().ok())
            .expect("an address");
        let metrics = out
            .next()
            .and_then(|line| line.strip_prefix("metrics on http://").map(str::to_owned));
        // Somebody has to read on, or it would be told that nobody does.
        thread::spawn(move || out.count());
        Self {
            child,
            address,
            metrics,
        }
    }

    /// A baseline: this very program.
    pub fn baseline(args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::start(&std::env::current_exe().expect("this program"), &args)
    }

    /// `tidemark serve`, ready.
    pub fn tidemark(args: &[&str]) -> Self {
        Self::tidemark_of(Path::new(env!("CARGO_BIN_EXE_tidemark")), args)
    }

    /// The same of another build.
    pub fn tidemark_of(program: &Path, args: &[&str]) -> Self {
        let mut all = vec![
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        all.extend(args);
        let all: Vec<_> = all.iter().map(|arg| (*arg).to_owned()).collect();
        let running = Self::start(program, &all);
        running.wait_until_ready();
        running
    }

    fn wait_until_ready(&self) {
        use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
        block_on(async {
            let mut client = HealthClient::new(self.channel().await);
            loop {
                let request = HealthCheckRequest {
                    service: "readiness".into(),
                };
                if client
                    .check(request)
                    .await
                    .is_ok_and(|reply| reply.into_inner().status == 1)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    pub async fn channel(&self) -> Channel {
        let channel = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        channel.connect().await.expect("connected")
    }

    pub async fn client(&self) -> TodoServiceClient<Channel> {
        TodoServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// User and system time of the process so far, in seconds.
    pub fn cpu(&self) -> f64 {
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its times");
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    /// Memory that it has in use, in bytes.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("its status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("its memory");
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse::<f64>().ok())
            .expect("a number")
            * 1024.0
    }

    /// The sum of a metric over all its labels that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = scrape(self.metrics.as_ref().expect("metrics"));
        let of_it = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
                && line.contains(label)
        };
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|v| v.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        text.lines().filter(of_it).map(value).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a few calls of a client beside the load.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// Todos of one list.
pub const LIST_SIZE: usize = 100;

pub fn list_name(list: usize) -> String {
    format!("lists/list-{list:05}")
}

pub fn todo_name(number: usize) -> String {
    format!("{}/todos/{number:07}", list_name(number / LIST_SIZE))
}

/// A todo of about so many bytes, encoded.
pub fn todo(number: usize, bytes: usize) -> pb::Todo {
    let time = |s: usize| {
        Some(prost_types::Timestamp {
            seconds: 1_767_225_600 + i64::try_from(s).expect("small"),
            nanos: 0,
        })
    };
    let mut todo = pb::Todo {
        name: todo_name(number),
        title: format!("Todo {number}"),
        state: pb::todo::State::Active.into(),
        priority: pb::todo::Priority::Normal.into(),
        create_time: time(number),
        update_time: time(number),
        ..pb::Todo::default()
    };
    // The etag comes on top.
    let rest = bytes.saturating_sub(todo.encoded_len() + 24);
    todo.labels = if rest > 100 {
        vec!["home".into(), "garden".into()]
    } else {
        Vec::new()
    };
    todo.notes = "n".repeat(rest.saturating_sub(if rest > 100 { 16 } else { 0 }));
    todo
}

/// Waits until the thread that wrote a store has let go of it.
pub fn closed(dir: &Path) {
    for file in std::fs::read_dir(dir).expect("a folder").flatten() {
        let file = std::fs::File::open(file.path()).expect("opened");
        while file.try_lock().is_err() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An embedded store with these todos.
pub fn embedded(count: usize, bytes: usize) -> PathBuf {
    let dir = folder("bench-data");
    block_on(async {
        let origin = Embedded::open(&dir, 0).expect("opened");
        for begin in (0..count).step_by(1000) {
            let todos = (begin..count.min(begin + 1000))
                .map(|n| todo(n, bytes))
                .collect();
            origin.import(todos).await.expect("imported");
        }
    });
    closed(&dir);
    dir
}

/// MongoDB (one node, so that two cores are enough for all) and Redis.
pub struct Tiers {
    pub mongo: Mongo,
    redis: Redis,
}

enum Redis {
    One(Server),
    Cluster(RedisCluster),
}

impl Tiers {
    pub fn start() -> Self {
        Self {
            mongo: Mongo::start(1, 990),
            redis: Redis::One(redis()),
        }
    }

    /// With a Redis Cluster of three masters.
    pub fn start_with_cluster() -> Self {
        let cluster = RedisCluster::start_behind(|port| port);
        Self {
            mongo: Mongo::start(1, 990),
            redis: Redis::Cluster(cluster),
        }
    }

    pub fn uri(&self) -> String {
        self.mongo.uri("bench")
    }

    pub fn redis_url(&self) -> String {
        match &self.redis {
            Redis::One(redis) => format!("redis://127.0.0.1:{}", redis.port),
            Redis::Cluster(cluster) => cluster.url(),
        }
    }

    pub fn flush(&self) {
        let masters = match &self.redis {
            Redis::One(redis) => vec![redis],
            Redis::Cluster(cluster) => cluster.masters(),
        };
        for master in masters {
            assert_eq!(redis_cli(master.port, &["flushall"]), "OK");
        }
    }

    /// The collection with these todos and nothing else.
    pub fn fill(&self, count: usize, bytes: usize) {
        block_on(async {
            let todos = self.mongo.todos("bench").await;
            todos.delete_many(doc! {}).await.expect("deleted");
            for begin in (0..count).step_by(5000) {
                let some: Vec<_> = (begin..count.min(begin + 5000))
                    .map(|n| document(n, bytes))
                    .collect();
                todos.insert_many(some).await.expect("inserted");
            }
        });
    }
}

/// A todo as somebody would write it into the database by hand.
pub fn document(number: usize, bytes: usize) -> Document {
    let todo = todo(number, bytes);
    let time = todo
        .create_time
        .map(|t| DateTime::from_millis(t.seconds * 1000));
    doc! {
        "_id": &todo.name,
        "parent": list_name(number / LIST_SIZE),
        "title": todo.title,
        "notes": todo.notes,
        "state": "ACTIVE",
        "priority": "NORMAL",
        "labels": todo.labels,
        "create_time": time,
        "update_time": time,
    }
}

/// Encoded requests for one todo each.
pub fn get_requests(
    numbers: impl Iterator<Item = usize>,
    consistency: Option<&pb::Consistency>,
) -> Vec<Vec<u8>> {
    let request = |n| pb::GetTodoRequest {
        name: todo_name(n),
        consistency: consistency.cloned(),
    };
    numbers.map(|n| request(n).encode_to_vec()).collect()
}

/// Reads every todo once, so that near or shared has it.
pub fn warm(server: &Running, count: usize) {
    warm_as(None, server, count);
}

/// The same by a caller with this key.
pub fn warm_as(bearer: Option<&str>, server: &Running, count: usize) {
    let numbers: Vec<_> = (0..count).collect();
    let batch = |some: &[usize]| {
        let names = some.iter().map(|n| todo_name(*n)).collect();
        pb::BatchGetTodosRequest {
            names,
            consistency: None,
        }
        .encode_to_vec()
    };
    let requests: Vec<_> = numbers.chunks(500).map(batch).collect();
    let (order, most) = (
        (0..u32::try_from(requests.len()).expect("few")).collect(),
        requests.len(),
    );
    let calls = Calls {
        method: "BatchGetTodos",
        requests,
        order,
    };
    let mut load = Generator::open_as(bearer, server.address, 2, calls);
    let out = load.run_once(4, most);
    assert_eq!(out.failed, 0, "a batch failed");
}
