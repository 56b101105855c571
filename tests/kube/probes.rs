//! The real `grpc-health-probe` on the real process, with a MongoDB and a Redis
//! of its own, which are stopped and go on.

use std::{path::Path, process::Command, time::Duration};

use mongodb::bson::doc;
use tidemark::{grpc::client::todo_service_client::TodoServiceClient, pb};

use crate::support::{Mongo, Tidemark, binary, eventually, free_port, redis};

/// What grpc-health-probe ends with.
const SERVING: i32 = 0;
const NOT_CONNECTED: i32 = 2;
const NOT_SERVING: i32 = 4;

/// Changes that the service has to catch up with when it starts.
const CHANGES: u64 = 5000;
/// A busy machine may take so long for anything.
const LIMIT: Duration = Duration::from_secs(60);

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

/// The exit code for a name, as the kubelet would ask.
async fn probe(service: &Tidemark, name: &str) -> i32 {
    probe_at(service.address.trim_start_matches("http://"), name).await
}

async fn probe_at(address: &str, name: &str) -> i32 {
    let address = address.to_owned();
    let name = format!("-service={name}");
    let asked = tokio::task::spawn_blocking(move || {
        Command::new(program())
            .args([
                "-addr",
                &address,
                &name,
                "-connect-timeout",
                "10s",
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
async fn probes_are_told_what_kubernetes_should_do() {
    let (mongo, redis) = (Mongo::start(1, 50), redis());
    write_history(&mongo).await;

    // MongoDB away at the start: alive, and neither started nor ready.
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

    // It comes: ready, but not before all that happened meanwhile is known.
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
        assert_eq!(probe(&service, name).await, SERVING, "{name}");
    }
    becomes(&service, "shared", SERVING).await;

    // Redis goes: never a matter of the kubelet's.
    redis.freeze();
    let mut client = TodoServiceClient::connect(service.address.clone())
        .await
        .expect("connected");
    eventually("notice of Redis", LIMIT, async || {
        // Somebody has to read what near does not have.
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
    for name in ["readiness", "liveness", "startup"] {
        assert_eq!(
            probe(&service, name).await,
            SERVING,
            "{name}, while Redis is away"
        );
    }
    redis.thaw();
    becomes(&service, "shared", SERVING).await;

    // MongoDB goes: out of the Service once the staleness limit has passed, but
    // no restart, which would mend nothing.
    mongo.nodes[0].freeze();
    becomes(&service, "readiness", NOT_SERVING).await;
    becomes(&service, "origin", NOT_SERVING).await;
    for name in ["liveness", "startup"] {
        assert_eq!(
            probe(&service, name).await,
            SERVING,
            "{name}, while MongoDB is away"
        );
    }
    assert_eq!(
        probe(&service, "todo.v1.TodoService").await,
        NOT_SERVING,
        "for clients that ask"
    );
    mongo.nodes[0].thaw();
    becomes(&service, "readiness", SERVING).await;
    becomes(&service, "origin", SERVING).await;

    // The same when they end and come back, and not only hang.
    redis.kill();
    mongo.nodes[0].kill();
    becomes(&service, "readiness", NOT_SERVING).await;
    for name in ["liveness", "startup"] {
        assert_eq!(
            probe(&service, name).await,
            SERVING,
            "{name}, while both are gone"
        );
    }
    redis.restart();
    mongo.nodes[0].restart();
    becomes(&service, "readiness", SERVING).await;
    becomes(&service, "shared", SERVING).await;

    // The end, with a write under way: no new connection, and health says so
    // where it is still to be asked, but the process is not to be killed.
    mongo.nodes[0].freeze();
    let todo = pb::Todo {
        title: "The last one".into(),
        ..Default::default()
    };
    let create = pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo: Some(todo),
        ..Default::default()
    };
    let write = tokio::spawn(async move { client.create_todo(create).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    service.terminate();
    becomes(&service, "readiness", NOT_CONNECTED).await;
    assert_eq!(
        probe_at(&health, "readiness").await,
        NOT_SERVING,
        "on the port for health"
    );
    assert_eq!(
        probe_at(&health, "liveness").await,
        SERVING,
        "on the port for health"
    );
    mongo.nodes[0].thaw();
    write
        .await
        .expect("waited")
        .expect("the write that was under way is done");
    assert_eq!(service.exit_code(LIMIT).await, Some(0));
}
