//! Runs the real `grpc-health-probe` against a real process whose MongoDB and Redis
//! this test stops and resumes.

use std::{net::TcpStream, path::Path, process::Command, time::Duration};

use mongodb::bson::doc;
use tidemark::{grpc::client::todo_service_client::TodoServiceClient, pb};

use crate::support::{Mongo, Tidemark, binary, eventually, free_port, redis};

/// Exit codes of grpc-health-probe.
const SERVING: i32 = 0;
const NOT_CONNECTED: i32 = 2;
const NOT_SERVING: i32 = 4;

/// Changes that the service must replay when it starts.
const CHANGES: u64 = 5000;
/// The longest wait for any condition, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn program() -> std::path::PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("a home")).join(".cache"),
        std::path::PathBuf::from,
    );
    let cached = cache.join("tidemark/k8s/bin/grpc-health-probe");
    if cached.is_file() {
        cached
    } else {
        binary("grpc-health-probe")
    }
}

/// The exit code of the probe for a service name, as the kubelet runs it.
async fn probe(service: &Tidemark, name: &str) -> i32 {
    probe_at(service.address.trim_start_matches("http://"), name).await
}

async fn probe_at(address: &str, name: &str) -> i32 {
    probe_for(address, name, "10s").await
}

/// The same with a limit for the connection.
async fn probe_for(address: &str, name: &str, limit: &'static str) -> i32 {
    let address = address.to_owned();
    let name = format!("-service={name}");
    let asked = tokio::task::spawn_blocking(move || {
        Command::new(program())
            .args([
                "-addr",
                &address,
                &name,
                "-connect-timeout",
                limit,
                "-rpc-timeout",
                "10s",
            ])
            .output()
            .expect("grpc-health-probe runs: k8s/health-probe installs it")
    });
    asked
        .await
        .expect("asked")
        .status
        .code()
        .expect("an exit code")
}

async fn becomes(service: &Tidemark, name: &str, code: i32) {
    eventually(&format!("{name} = {code}"), LIMIT, async || {
        (probe(service, name).await == code).then_some(())
    })
    .await;
}

async fn write_history(mongo: &Mongo) {
    let todo = |n| {
        let name = format!("lists/home/todos/{n}");
        doc! { "_id": name, "parent": "lists/home", "title": "x" }
    };
    mongo
        .todos("probes")
        .await
        .insert_many((0..CHANGES).map(todo))
        .await
        .expect("inserted");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_follow_the_state_of_mongodb_and_redis() {
    let (mongo, redis) = (Mongo::start(1, 50), redis());
    write_history(&mongo).await;

    // MongoDB is down at the start: alive, but neither started nor ready.
    mongo.nodes[0].freeze();
    let (uri, url) = (
        mongo.uri("probes"),
        format!("redis://127.0.0.1:{}", redis.port),
    );
    let health = format!("127.0.0.1:{}", free_port());
    let args = [
        "--mongodb-uri",
        &uri,
        "--redis-url",
        &url,
        "--staleness-limit",
        "3s",
        "--health-listen",
        &health,
    ];
    let service = Tidemark::start(&args);
    becomes(&service, "liveness", SERVING).await;
    assert_eq!(probe(&service, "startup").await, NOT_SERVING);
    assert_eq!(probe(&service, "readiness").await, NOT_SERVING);

    // MongoDB recovers: ready, but only after all changes were replayed.
    mongo.nodes[0].thaw();
    becomes(&service, "readiness", SERVING).await;
    assert!(
        service.metric("tidemark_feed_changes_total") >= CHANGES,
        "ready before it had caught up"
    );
    for name in [
        "startup",
        "liveness",
        "",
        "todo.v1.TodoService",
        "origin",
        "feed",
    ] {
        // A busy server may be late with heartbeats for a moment.
        becomes(&service, name, SERVING).await;
    }
    becomes(&service, "shared", SERVING).await;

    // Redis fails: the kubelet's probes do not depend on it.
    redis.freeze();
    let mut client = TodoServiceClient::connect(service.address.clone())
        .await
        .expect("connected");
    eventually("detection of the failure of Redis", LIMIT, async || {
        // Only near misses use Redis.
        for n in 0..20 {
            let name = format!("lists/home/todos/none-{n}");
            let request = pb::GetTodoRequest {
                name,
                consistency: None,
            };
            client.get_todo(request).await.expect_err("there is none");
        }
        (probe(&service, "shared").await == NOT_SERVING).then_some(())
    })
    .await;
    becomes(&service, "readiness", SERVING).await;
    for name in ["liveness", "startup"] {
        assert_eq!(
            probe(&service, name).await,
            SERVING,
            "{name}, while Redis is down"
        );
    }
    redis.thaw();
    becomes(&service, "shared", SERVING).await;

    // MongoDB fails: not ready once the staleness limit has passed, but still
    // alive, because a restart would not help.
    mongo.nodes[0].freeze();
    becomes(&service, "readiness", NOT_SERVING).await;
    becomes(&service, "origin", NOT_SERVING).await;
    for name in ["liveness", "startup"] {
        assert_eq!(
            probe(&service, name).await,
            SERVING,
            "{name}, while MongoDB is down"
        );
    }
    assert_eq!(
        probe(&service, "todo.v1.TodoService").await,
        NOT_SERVING,
        "for clients with health checks"
    );
    mongo.nodes[0].thaw();
    becomes(&service, "readiness", SERVING).await;
    becomes(&service, "origin", SERVING).await;

    // The same when both exit and start again, instead of hanging.
    redis.kill();
    mongo.nodes[0].kill();
    becomes(&service, "readiness", NOT_SERVING).await;
    for name in ["liveness", "startup"] {
        assert_eq!(
            probe(&service, name).await,
            SERVING,
            "{name}, while both are stopped"
        );
    }
    redis.restart();
    mongo.nodes[0].restart();
    becomes(&service, "readiness", SERVING).await;
    becomes(&service, "shared", SERVING).await;

    // SIGTERM during a write: no new connections, not ready on the health port,
    // but alive, because the drain must not be interrupted.
    let todo = pb::Todo {
        title: "The last one".into(),
        ..Default::default()
    };
    let create = pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo: Some(todo),
        ..Default::default()
    };
    // The first one opens the connection: a write that could not be sent would be
    // refused at once, and hold up nothing.
    eventually("a write", LIMIT, async || {
        client.create_todo(create.clone()).await.ok()
    })
    .await;
    mongo.nodes[0].freeze();
    let write = tokio::spawn(async move { client.create_todo(create).await });
    eventually("the write under way", LIMIT, async || {
        let used = service.metric("tidemark_bound_used{kind=\"writes under way\"}");
        (used == 1).then_some(())
    })
    .await;
    // Then it is sent.
    tokio::time::sleep(Duration::from_millis(500)).await;
    service.terminate();
    // The probe tries for long to connect, and the write is given up after 20 s.
    let address = service.address.trim_start_matches("http://");
    eventually("no new connections", LIMIT, async || {
        TcpStream::connect(address).is_err().then_some(())
    })
    .await;
    assert_eq!(probe_for(address, "readiness", "1s").await, NOT_CONNECTED);
    assert_eq!(
        probe_at(&health, "readiness").await,
        NOT_SERVING,
        "on the health port"
    );
    assert_eq!(
        probe_at(&health, "liveness").await,
        SERVING,
        "on the health port"
    );
    mongo.nodes[0].thaw();
    write
        .await
        .expect("waited")
        .expect("the write in flight completes");
    assert_eq!(service.exit_code(LIMIT).await, Some(0));
}
