//! The life of the process: start, health, deadlines, drain, death.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tidemark::pb::Source;
use tonic::Code;

use crate::{
    client::*,
    support::{
        Tidemark, eventually, folder, free_port, mongo, redis, redis_cluster, standalone_mongod,
    },
};

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = folder("data").display().to_string();
    let (service, mut client) = ready(Tidemark::start(&["--data-dir", &dir])).await;
    let mut writers = Vec::new();
    let acknowledged = Arc::<AtomicUsize>::default();
    for writer in 0..8 {
        let (mut client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
        writers.push(tokio::spawn(async move {
            let mut done = Vec::new();
            for n in 0.. {
                let id = format!("w{writer}-{n}");
                match create_in(&mut client, "lists/home", &id, titled("x")).await {
                    Ok(reply) => {
                        done.push((reply.todo.expect("a todo").name, reply.token));
                        acknowledged.fetch_add(1, Relaxed);
                    }
                    Err(_) => break,
                }
            }
            done
        }));
    }
    eventually("some writes", Duration::from_secs(60), async || {
        (acknowledged.load(Relaxed) >= 50).then_some(())
    })
    .await;
    service.kill();
    let (_service, mut after) = ready(Tidemark::start(&["--data-dir", &dir])).await;
    let mut all = 0;
    for writer in writers {
        for (name, token) in writer.await.expect("a writer") {
            get(&mut after, &name, with_token(&token))
                .await
                .expect("still there, and its token still good");
            all += 1;
        }
    }
    assert!(all >= 50);
    drop(
        client
            .get_todo(tidemark::pb::GetTodoRequest::default())
            .await,
    );
}

#[tokio::test]
async fn a_standalone_mongod_is_refused_with_what_to_do() {
    let mongod = standalone_mongod();
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port);
    let out = tokio::task::spawn_blocking(move || {
        let args = [
            "--mongodb-uri",
            &uri,
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "off",
        ];
        Command::new("timeout")
            .args(["120", env!("CARGO_BIN_EXE_tidemark"), "serve"])
            .args(args)
            .output()
            .expect("run")
    });
    let out = out.await.expect("no panic");
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(
        told.contains("standalone") && told.contains("rs.initiate()"),
        "{told}"
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let dir = folder("data").display().to_string();
    let (_service, _client) = ready(Tidemark::start(&["--data-dir", &dir])).await;
    let second = Command::new(env!("CARGO_BIN_EXE_tidemark"))
        .args([
            "serve",
            "--data-dir",
            &dir,
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "off",
        ])
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(told.contains("another process has it open"), "{told}");
}

#[tokio::test]
async fn wrong_settings_end_with_2_and_say_all() {
    let out = Command::new(env!("CARGO_BIN_EXE_tidemark"))
        .args(["serve", "--listen", "nowhere", "--near-capacity", "much"])
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(told.contains("nowhere") && told.contains("much"), "{told}");
    let out = Command::new(env!("CARGO_BIN_EXE_tidemark"))
        .args([
            "serve",
            "--print-config",
            "--mongodb-uri",
            "mongodb://me:geheim@h/",
        ])
        .env("TIDEMARK_LIST_GRACE", "1s")
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(
        told.contains("environment") && !told.contains("geheim"),
        "{told}"
    );
}

#[tokio::test]
async fn health_names() {
    let (service, _client) = real("health").await;
    for name in [
        "",
        "todo.v1.TodoService",
        "readiness",
        "liveness",
        "startup",
        "origin",
        "feed",
    ] {
        assert_eq!(
            health(&service, name).await.expect("known"),
            SERVING,
            "{name}"
        );
    }
    assert_eq!(
        health(&service, "nonsense")
            .await
            .expect_err("unknown")
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn without_redis_at_the_start_it_is_ready_all_the_same() {
    let (uri, url) = (
        mongo().uri("no_redis"),
        format!("redis://127.0.0.1:{}", free_port()),
    );
    let (service, mut client) = ready(Tidemark::start(&[
        "--mongodb-uri",
        &uri,
        "--redis-url",
        &url,
    ]))
    .await;
    // The fastest of some: the machine may have given one of them no CPU.
    let mut fastest = Duration::MAX;
    for n in 0..5 {
        let (began, id) = (Instant::now(), format!("milk-{n}"));
        create(&mut client, &id, "x").await;
        get(&mut client, &format!("lists/home/todos/{id}"), strong())
            .await
            .expect("found");
        fastest = fastest.min(began.elapsed());
    }
    assert!(fastest < Duration::from_secs(2), "{fastest:?}");
    assert_ne!(health(&service, "shared").await.expect("known"), SERVING);
}

/// A process that starts uses from its first reads on what others have put into Redis.
#[tokio::test]
async fn the_first_reads_after_a_start_come_from_redis() {
    const TODOS: usize = 20;
    let (_other, mut client) = real("first_reads").await;
    let name = |n: usize| format!("lists/first-reads/todos/t{n}");
    for n in 0..TODOS {
        let id = format!("t{n}");
        create_in(&mut client, "lists/first-reads", &id, titled("x"))
            .await
            .expect("created");
        get(&mut client, &name(n), strong()).await.expect("read");
    }
    // What Redis takes too long for is dropped: that todo is written once more.
    eventually(
        "the entries in Redis",
        Duration::from_secs(120),
        async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let keys = redis_cluster().keys();
            let is_there = |name: &String| keys.iter().any(|(_, key)| key.ends_with(name));
            let missing: Vec<_> = (0..TODOS).map(name).filter(|it| !is_there(it)).collect();
            for name in &missing {
                retitle(&mut client.clone(), name, "y").await;
                get(&mut client.clone(), name, strong())
                    .await
                    .expect("read");
            }
            missing.is_empty().then_some(())
        },
    )
    .await;
    // Where Redis has no CPU when the process starts or is asked, its answers are too late: then
    // another process is started.
    let mut most = 0;
    for _ in 0..5 {
        let (_started, mut client) = real("first_reads").await;
        let mut from_redis = 0;
        for n in 0..TODOS {
            let reply = get(&mut client, &name(n), None).await.expect("read");
            let source = reply.read.expect("a ReadInfo").source();
            from_redis += usize::from(source == Source::Shared);
        }
        most = most.max(from_redis);
        if most >= TODOS / 2 {
            break;
        }
        eprintln!("{from_redis} of {TODOS} came from Redis");
    }
    assert!(most >= TODOS / 2, "{most} of {TODOS}");
}

#[tokio::test]
async fn a_frozen_redis_costs_little_and_then_nothing() {
    let redis = redis();
    let (uri, url) = (
        mongo().uri("frozen_redis"),
        format!("redis://127.0.0.1:{}", redis.port),
    );
    let (service, mut client) = ready(Tidemark::start(&[
        "--mongodb-uri",
        &uri,
        "--redis-url",
        &url,
    ]))
    .await;
    let is_shared = async |wanted: bool| {
        eventually("Redis", Duration::from_secs(60), async || {
            let status = health(&service, "shared").await.expect("known");
            ((status == SERVING) == wanted).then_some(())
        })
        .await;
    };
    // The fastest of some rounds: the machine may have given a read no CPU.
    let mut fastest = [Duration::MAX; 20];
    for round in 0..3 {
        is_shared(true).await;
        redis.freeze();
        for (n, fastest) in fastest.iter_mut().enumerate() {
            let name = format!("lists/home/todos/none-{round}-{n}");
            let began = Instant::now();
            let read = get(&mut client, &name, None).await;
            assert_eq!(refused(read).0, Code::NotFound);
            *fastest = began.elapsed().min(*fastest);
        }
        // Health is told every tenth of a second; the reads after the breaker
        // opened may have taken less.
        is_shared(false).await;
        assert_eq!(
            health(&service, "readiness").await.expect("known"),
            SERVING,
            "never a matter of Redis"
        );
        redis.thaw();
    }
    let slowest = fastest.iter().max().expect("some");
    assert!(*slowest < Duration::from_millis(500), "{fastest:?}");
    is_shared(true).await;
    get(&mut client, "lists/home/todos/none-0", None)
        .await
        .expect_err("none");
}

#[tokio::test]
async fn deadlines_are_kept_and_say_what_was_waited_for() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "x").await;
    let mut request = tonic::Request::new(tidemark::pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        consistency: strong(),
    });
    request.set_timeout(Duration::from_nanos(1));
    // The client may be the one to notice; if the server is, it says so.
    let status = client.get_todo(request).await.expect_err("too late");
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    drop(service);
}

#[tokio::test]
async fn metrics_are_served() {
    let (service, mut client) = real("metrics").await;
    let token = create(&mut client, "milk", "x").await.token;
    for _ in 0..3 {
        let read = get(&mut client, "lists/home/todos/milk", with_token(&token))
            .await
            .expect("found");
        assert_ne!(read.read.expect("a ReadInfo").source(), Source::Unspecified);
    }
    let text = service.metrics_text();
    for metric in [
        "tidemark_rpc_duration_seconds_count{call=\"GetTodo\",code=\"OK\"} 3",
        "tidemark_reads_total{kind=\"todo\",tier=\"near\"}",
        "tidemark_staleness_bound_seconds",
        "tidemark_frontier_lag_seconds",
        "tidemark_watchers",
        "tidemark_shared_breaker_open",
        "tidemark_near_bytes",
    ] {
        assert!(text.contains(metric), "{metric} is not in\n{text}");
    }
}
