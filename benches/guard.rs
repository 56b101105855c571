//! The guard against slow decay: counts the instructions of what is done most
//! often, under callgrind. Counts don't depend on what else the machine does.
//! Without arguments it measures every case and compares with its limit; each
//! is run twice, with few and with many rounds, and the difference counts, so
//! that starting and ending cost nothing.

use std::{
    hint::black_box,
    process::{Command, ExitCode},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tidemark::{
    auth::{Caller, Method},
    cache::{Cache, Clock, Consistency, Phase, ReadOptions, Settings, WriteOptions},
    coherence::Watermarks,
    grpc,
    model::{ListName, OriginTime, Stamped, TodoName, Value, Write},
    origin::{Origin, embedded::Embedded},
    pb,
    telemetry::Metrics,
    tier::record,
};
use tower::ServiceExt as _;

const FEW: u64 = 500;
const MANY: u64 = 2500;
/// Measurements of a case that seems to be over its limit, of which the least counts: how
/// often a start waits and looks again depends on the machine.
const TRIES: usize = 3;

/// A case, and how many instructions one round of it may take: some 10 % above
/// what it took when the limit was set. Raise one only with the reason in the
/// commit's message.
const CASES: [(&str, u64); 8] = [
    ("near hit, in the cache", 3400),
    ("near hit, whole call without the transport", 28_000),
    ("page of 50, whole call without the transport", 92_000),
    ("fence check", 130),
    ("entry decode", 2025),
    ("near hit with a right, in the cache", 5_400),
    (
        "near hit with a right, whole call without the transport",
        32_000,
    ),
    (
        "page of 50 with a right, whole call without the transport",
        96_000,
    ),
];
/// The cases from this one on are those of the first three with a caller who needs a
/// right.
const WITH_RIGHT: usize = 5;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if let [case, rounds] = args.as_slice() {
        run(
            case.parse().expect("a case"),
            rounds.parse().expect("a number"),
        );
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for (at, (name, limit)) in CASES.iter().enumerate() {
        let each = measure(at, *limit as f64);
        let over = each > *limit as f64;
        failed |= over;
        println!(
            "{} {each:9.0} instructions, limit {limit:6}: {name}",
            if over { "OVER" } else { "ok  " }
        );
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Instructions of one round of a case.
fn measure(case: usize, limit: f64) -> f64 {
    let (mut few, mut many, mut each) = (u64::MAX, u64::MAX, f64::MAX);
    for _ in 0..TRIES {
        few = few.min(count(case, FEW));
        many = many.min(count(case, MANY));
        each = many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
        if each <= limit {
            break;
        }
    }
    each
}

/// Instructions of a case with so many rounds, all in all.
fn count(case: usize, rounds: u64) -> u64 {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args([case.to_string(), rounds.to_string()])
        .output()
        .expect("valgrind is installed");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "the case failed:\n{told}");
    let collected = told.lines().find_map(|line| {
        line.split_once("Collected : ")
            .map(|(_, count)| count.trim())
    });
    collected
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no count in:\n{told}"))
}

fn run(case: usize, rounds: u64) {
    match case {
        3 => fence_check(rounds),
        4 => entry_decode(rounds),
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let caller = (case >= WITH_RIGHT).then(caller);
            runtime.block_on(calls(case % WITH_RIGHT, rounds, caller));
        }
    }
}

fn name(number: u64) -> String {
    format!("lists/home/todos/{number:04}")
}

/// A todo of about 400 bytes.
fn todo(number: u64) -> pb::Todo {
    let create_time = Some(prost_types::Timestamp {
        seconds: i64::try_from(number).unwrap_or(0),
        nanos: 0,
    });
    pb::Todo {
        name: name(number),
        title: "Buy milk".into(),
        notes: "n".repeat(320),
        create_time,
        ..pb::Todo::default()
    }
}

/// A service of a hundred todos, with nothing going on beside.
async fn service() -> (tempfile::TempDir, Arc<Cache>, Arc<Metrics>) {
    const NEVER: Duration = Duration::from_secs(24 * 3600);
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Embedded::open(dir.path(), 0).expect("opened");
    origin
        .import((0..100).map(todo).collect())
        .await
        .expect("imported");
    let settings = Settings {
        near_capacity: 64 << 20,
        staleness_limit: NEVER,
        heartbeat_interval: NEVER,
        replay_window: Duration::from_secs(600),
        list_grace: Duration::from_millis(200),
        stale_if_error: None,
        max_origin_loads: 256,
        verify_one_in: 0,
    };
    let metrics = Arc::new(Metrics::default());
    // Not the system's own: valgrind has no vDSO for it.
    let cache = Cache::new(
        settings,
        Clock::Tokio(tokio::time::Instant::now()),
        Arc::new(origin),
        None,
        Arc::clone(&metrics),
        tidemark::budget::Budgets::unlimited(256),
    );
    tokio::spawn(Arc::clone(&cache).run());
    cache
        .phase()
        .wait_for(|phase| *phase == Phase::CaughtUp)
        .await
        .expect("caught up");
    (dir, cache, metrics)
}

/// A member of `lists/home`, in two groups.
fn caller() -> Caller {
    let groups = vec!["family".into(), "friends".into()];
    Caller::new("user:ada", groups, Method::Key, None).expect("a caller")
}

/// Makes the caller a reader of the list, and one of five members.
async fn share(cache: &Arc<Cache>) {
    let members = ["bob", "cyd", "dan", "eve", "ada"];
    let members = members.map(|name| (format!("user:{name}"), pb::Role::Reader.into()));
    let list = pb::TodoList {
        name: "lists/home".into(),
        members: members.into(),
        ..pb::TodoList::default()
    };
    let name = ListName::parse("lists/home").expect("a name");
    let write = Write::CreateList { name, list };
    let done = cache.write(write, WriteOptions::default()).await;
    done.expect("created");
}

async fn calls(case: usize, rounds: u64, caller: Option<Caller>) {
    let (_dir, cache, metrics) = service().await;
    share(&cache).await;
    if case == 0 {
        let want = ReadOptions {
            identity: caller,
            consistency: Consistency::MinimizeLatency,
            deadline: None,
            caller: None,
        };
        for round in 0..rounds + 100 {
            let name = TodoName::parse(&name(round % 100)).expect("a name");
            black_box(cache.get(&name, &want).await.expect("a todo"));
        }
        return;
    }
    let cell = Arc::new(OnceLock::new());
    assert!(cell.set(cache).is_ok());
    let service = grpc::calls(cell, metrics);
    for round in 0..rounds + 100 {
        let (method, message) = if case == 1 {
            let request = pb::GetTodoRequest {
                name: name(round % 100),
                consistency: None,
            };
            ("GetTodo", request.encode_to_vec())
        } else {
            let request = pb::ListTodosRequest {
                parent: "lists/home".into(),
                ..pb::ListTodosRequest::default()
            };
            ("ListTodos", request.encode_to_vec())
        };
        let mut request = request(method, &message);
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        let reply = service.clone().oneshot(request).await.expect("a reply");
        assert!(!reply.headers().contains_key("grpc-status"), "refused");
        let body = reply
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert!(black_box(body).len() > 400);
    }
}

/// What the transport would hand over.
fn request(method: &str, message: &[u8]) -> http::Request<tonic::body::Body> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let framed: Bytes = [&[0], &length[..], message].concat().into();
    http::Request::post(format!("http://localhost/todo.v1.TodoService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(framed)))
        .expect("a request")
}

fn fence_check(rounds: u64) {
    let coherence = Watermarks::default();
    coherence.place(OriginTime(5));
    let names: Vec<_> = (0..100).map(name).collect();
    for round in 0..rounds {
        let check = coherence.view_todo(&names[usize::try_from(round % 100).unwrap_or(0)]);
        assert!(
            black_box(check)
                .admit(OriginTime(7), OriginTime(3))
                .is_some()
        );
    }
}

fn entry_decode(rounds: u64) {
    let stamped = Stamped {
        as_of: OriginTime(7),
        value: Value::Todo(todo(1).encode_to_vec().into()),
    };
    let raw = record::encode(5, &name(1), &stamped);
    for _ in 0..rounds {
        assert!(black_box(record::decode(5, &name(1), black_box(&raw))).is_ok());
    }
}
