//! API keys.

use std::process::Command;

use super::*;

/// A key made by `tidemark key new`, and its line of the file.
pub fn new_key(principal: &str) -> (String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tidemark"))
        .args(["key", "new", principal])
        .output()
        .expect("run");
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let mut lines = text.lines();
    let key = lines.next().expect("the key").to_owned();
    let line = lines.next().expect("its line").to_owned();
    assert!(key.starts_with("tmk_") && key.len() > 40, "{key}");
    assert!(
        !line.contains(&key) && line.starts_with(principal),
        "{line}"
    );
    assert_eq!(lines.next(), None);
    (key, line)
}

#[tokio::test]
async fn a_key_is_known_until_it_is_revoked() {
    let files = Folder::new();
    let (old, old_line) = new_key("user:ada");
    let (new, new_line) = new_key("user:ada");
    let (other, _) = new_key("user:bob");
    let path = files.write(
        "keys",
        &format!("# Ada\n{old_line}\n{new_line} # rotated\n"),
    );
    let admin = ["--admin", "user:ada"];
    let auth = ["--auth", "keys", "--keys-file", &path];
    let (service, mut client) = serving(&[&auth[..], &admin].concat()).await;
    assert_eq!(judged_bearer(&mut client, &old).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &new).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &other).await, why("key"));
    let stream = watch(&mut client, &old).await;

    // Remembered by the connection, and yet revoked.
    assert_eq!(judged_bearer(&mut client, &old).await, Ok(()));
    files.write("keys", &format!("{new_line}\n"));
    reloaded(&service, "loaded", 0).await;
    assert_eq!(judged_bearer(&mut client, &old).await, why("key"));
    assert_eq!(judged_bearer(&mut client, &new).await, Ok(()));
    assert_eq!(end_of(stream).await, why("key"));

    // What cannot be used changes nothing.
    for (text, failures) in [
        (format!("{old_line}\nuser:eve = {old}\n"), 0),
        (String::new(), 1),
    ] {
        files.write("keys", &text);
        reloaded(&service, "failed", failures).await;
        assert_eq!(judged_bearer(&mut client, &new).await, Ok(()));
        assert_eq!(judged_bearer(&mut client, &old).await, why("key"));
    }
    // The log is written by a thread, and read by another one.
    let log = eventually("an error", Duration::from_secs(60), async || {
        let log = service.log("ERROR").join("\n");
        log.contains("line 2 ").then_some(log)
    })
    .await;
    assert!(!log.contains(&old), "{log}");
    let refused = service.metric("tidemark_auth_refusals_total{kind=\"key\"}");
    assert!(refused >= 5, "{refused}");
}

#[tokio::test]
async fn a_header_that_cannot_be_read_is_malformed() {
    let files = Folder::new();
    let (key, line) = new_key("user:ada");
    let path = files.write("keys", &line);
    let (_service, mut client) = serving(&["--auth", "keys", "--keys-file", &path]).await;
    let bearer = format!("Bearer {key}");
    let right = bearer.as_bytes();
    assert_eq!(judged(&mut client, &[]).await, why("missing"));
    assert_eq!(judged(&mut client, &[right]).await, Ok(()));
    let lower = bearer.replace("Bearer", "bearer");
    assert_eq!(judged(&mut client, &[lower.as_bytes()]).await, Ok(()));
    let long = format!("{bearer}{}", "x".repeat(8 << 10));
    let (basic, bare) = (format!("Basic {key}"), key.as_bytes());
    let not_ascii = [right, "é".as_bytes()].concat();
    for wrong in [
        &[right, right][..],
        &[right, b"Basic YTpi"],
        &[long.as_bytes()],
        &[basic.as_bytes()],
        &[bare],
        &[&not_ascii],
        &[b""],
        &[b"Bearer"],
        &[b"Bearer "],
        &[b"Bearer a b"],
        // A token, and tokens are off.
        &[b"Bearer e30.e30.e30"],
    ] {
        let shown: Vec<_> = wrong.iter().map(|value| value.len()).collect();
        assert_eq!(
            judged(&mut client, wrong).await,
            why("malformed"),
            "{shown:?}"
        );
    }
    assert_eq!(judged_bearer(&mut client, "tmk_").await, why("key"));
    assert_eq!(
        judged_bearer(&mut client, &format!("{key}x")).await,
        why("key")
    );
    assert_eq!(
        judged_bearer(&mut client, &key[..key.len() - 1]).await,
        why("key")
    );
}

#[tokio::test]
async fn every_method_asks_and_health_does_not() {
    let files = Folder::new();
    let (_, line) = new_key("user:ada");
    let path = files.write("keys", &line);
    let (service, mut client) = serving(&["--auth", "keys", "--keys-file", &path]).await;
    let milk = || "lists/home/todos/milk".to_owned();
    let get = pb::GetTodoRequest {
        name: milk(),
        ..Default::default()
    };
    assert_eq!(known(client.get_todo(get).await), why("missing"));
    let batch = pb::BatchGetTodosRequest {
        names: vec![milk()],
        ..Default::default()
    };
    assert_eq!(known(client.batch_get_todos(batch).await), why("missing"));
    assert_eq!(known(client.list_todos(a_page()).await), why("missing"));
    // Before the form of the request is looked at.
    let create = pb::CreateTodoRequest::default();
    assert_eq!(known(client.create_todo(create).await), why("missing"));
    let update = pb::UpdateTodoRequest::default();
    assert_eq!(known(client.update_todo(update).await), why("missing"));
    let delete = pb::DeleteTodoRequest::default();
    assert_eq!(known(client.delete_todo(delete).await), why("missing"));
    let watch = pb::WatchTodosRequest::default();
    assert_eq!(known(client.watch_todos(watch).await), why("missing"));
    assert_eq!(known(reflect(&service, None).await), why("missing"));
    assert_eq!(health(&service, "readiness").await.expect("open"), SERVING);
    assert!(
        service.metric(
            "tidemark_rpc_duration_seconds_count{call=\"WatchTodos\",code=\"UNAUTHENTICATED\"}"
        ) == 1
    );
}

#[tokio::test]
async fn reflection_is_on_off_or_for_administrators() {
    let files = Folder::new();
    let ((ada, ada_line), (ops, ops_line), (root, root_line)) = (
        new_key("user:ada"),
        new_key("user:ops"),
        new_key("user:root"),
    );
    let text = format!("{ada_line} dev\n{ops_line} ops dev\n{root_line}\n");
    let path = files.write("keys", &text);
    let auth = ["--auth", "keys", "--keys-file", &path];
    let admins = ["--admin", "user:root", "--admin", "group:ops"];
    let log = files.0.join("audit.log").display().to_string();
    let audited = ["--reflection", "admin", "--audit-log", &log];
    let (service, _) = serving(&[&auth[..], &admins, &audited].concat()).await;
    assert!(reflect(&service, Some(&root)).await.is_ok());
    assert!(reflect(&service, Some(&ops)).await.is_ok());
    let (code, reason, metadata) = refused(reflect(&service, Some(&ada)).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    assert_eq!(metadata["principal"], "user:ada");
    let line = eventually("a line", Duration::from_secs(60), async || {
        super::audit::lines(&log).into_iter().next()
    })
    .await;
    assert_eq!(
        (&line["principal"], &line["method"]),
        (&"user:ada".into(), &"keys".into())
    );
    assert_eq!(known(reflect(&service, None).await), why("missing"));

    let (service, _) = serving(&[&auth[..], &["--reflection", "on"]].concat()).await;
    assert!(reflect(&service, Some(&ada)).await.is_ok());
    let (service, _) = serving(&["--reflection", "off"]).await;
    let status = reflect(&service, None).await.expect_err("not there");
    assert_eq!(status.code(), Code::Unimplemented);
}

/// The whole log, at its most talkative, has no part of a credential.
#[tokio::test]
async fn no_credential_is_logged() {
    use std::sync::{Arc, Mutex};

    let files = Folder::new();
    let ((key, line), (other, _)) = (new_key("user:ada"), new_key("user:eve"));
    let path = files.write("keys", &line);
    let dir = folder("data").display().to_string();
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    let args = [
        "--data-dir",
        &dir,
        "--auth",
        "keys",
        "--keys-file",
        &path,
        "--admin",
        "user:ada",
    ];
    let talkative = "trace,fred=trace,h2=trace,hyper=trace,tonic=trace,tower=trace";
    let envs = [("RUST_LOG".to_owned(), talkative.to_owned())];
    let service = Tidemark::launch(&args, &envs, move |line| {
        let mut log = kept.lock().expect("the log");
        *log += &format!("{line}\n");
    });
    let (_service, mut client) = ready(service).await;
    let missing = "Bearer tmk_aaaabbbbccccddddeeeeffffgggg";
    assert_eq!(judged_bearer(&mut client, &key).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &other).await, why("key"));
    assert_eq!(
        judged(&mut client, &[missing.as_bytes(), b"x"]).await,
        why("malformed")
    );
    let stream = watch(&mut client, &key).await;
    drop(stream);
    let log = eventually("a log", Duration::from_secs(60), async || {
        let log = log.lock().expect("the log").clone();
        (log.lines().count() > 20).then_some(log)
    })
    .await;
    for secret in [&key[4..20], &other[4..20], "aaaabbbb"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
