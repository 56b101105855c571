//! The embedded store with a full disk: nothing acknowledged is lost, writes
//! are refused with the reason, reads go on, and writes come back with the room.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tidemark::{grpc::client::todo_service_client::TodoServiceClient, pb};
use tokio::time::sleep;
use tonic::{Code, transport::Channel};

use crate::{
    client::{Client, create, get, ready, strong},
    support::{Tidemark, eventually, folder, spawn},
};

/// Files of this process may not grow beyond so many bytes.
fn limit(pid: u32, bytes: &str) {
    let args = [format!("--pid={pid}"), format!("--fsize={bytes}:unlimited")];
    let set = Command::new("prlimit")
        .args(args)
        .status()
        .expect("prlimit of util-linux");
    assert!(set.success());
}

async fn add(client: &mut Client, id: &str) -> Result<String, tonic::Status> {
    let todo = pb::Todo {
        title: "x".into(),
        notes: "n".repeat(8000),
        ..pb::Todo::default()
    };
    let request = pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo_id: id.into(),
        todo: Some(todo),
        ..pb::CreateTodoRequest::default()
    };
    let reply = client.create_todo(request).await?.into_inner();
    Ok(reply.todo.expect("a todo").name)
}

/// The service on this folder from its first moment on with that limit.
fn start_limited(dir: &str, bytes: u64) -> (Child, String) {
    let service = env!("CARGO_BIN_EXE_tidemark");
    let fsize = format!("--fsize={bytes}:unlimited");
    let args = [
        fsize.as_str(),
        service,
        "serve",
        "--data-dir",
        dir,
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "off",
    ];
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut child = spawn(
        Path::new("/usr/bin/prlimit"),
        &args,
        &[],
        (Stdio::piped(), Stdio::inherit()),
    );
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let line = lines.next().expect("a line").expect("read");
    let address = line
        .strip_prefix("tidemark listens on ")
        .expect(&line)
        .to_owned();
    std::thread::spawn(move || lines.count());
    (child, address)
}

#[tokio::test]
async fn with_a_full_disk_reads_go_on_and_writes_come_back_with_the_room() {
    let dir = folder("data").display().to_string();
    let (service, mut client) = ready(Tidemark::start(&["--data-dir", &dir])).await;
    create(&mut client, "first", "x").await;
    let length = || {
        std::fs::metadata(format!("{dir}/todos.redb"))
            .expect("the file")
            .len()
    };
    limit(service.pid(), &length().to_string());
    let mut acknowledged = Vec::new();
    let refused = loop {
        match add(&mut client, &format!("t{}", acknowledged.len())).await {
            Ok(name) => acknowledged.push(name),
            Err(status) => break status,
        }
        assert!(acknowledged.len() < 20_000, "the disk never became full");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("full"), "{refused:?}");
    for _ in 0..20 {
        get(&mut client, "lists/home/todos/first", strong())
            .await
            .expect("read");
        sleep(Duration::from_millis(150)).await;
    }
    for name in &acknowledged {
        get(&mut client, name, None).await.expect("acknowledged");
    }
    service.kill();

    let (mut child, address) = start_limited(&dir, length());
    let mut client = eventually("the second start", Duration::from_secs(60), async || {
        let channel = Channel::from_shared(address.clone())
            .ok()?
            .connect()
            .await
            .ok()?;
        let mut client = TodoServiceClient::new(channel);
        get(&mut client, "lists/home/todos/first", strong())
            .await
            .ok()?;
        Some(client)
    })
    .await;
    for name in &acknowledged {
        get(&mut client, name, None).await.expect("acknowledged");
    }
    limit(child.id(), "unlimited");
    eventually("room for writes", Duration::from_secs(60), async || {
        add(&mut client, "after").await.ok()
    })
    .await;
    child.kill().expect("killed");
    child.wait().expect("waited for");
}
