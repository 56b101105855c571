//! The audit log.

use std::{fs, time::Instant};

use serde_json::{Value, json};

use super::{keys::new_key, *};

/// The lines so far. The last one may not be written to its end.
pub(super) fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the log");
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn writes_and_refusals_are_written_and_reads_are_not() {
    let files = Folder::new();
    // The administrator may do everything, whatever rights there are.
    let log = files.0.join("audit.jsonl").display().to_string();
    let (service, mut client, key) = serving_a_key(&files, &["--audit-log", &log]).await;
    let bearer = format!("Bearer {key}");
    let create = pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo_id: "milk".into(),
        todo: Some(titled("A secret title")),
        request_id: String::new(),
    };
    let mut request = carrying(create.clone(), &[bearer.as_bytes()]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .metadata_mut()
        .insert("traceparent", trace.parse().expect("a header"));
    let created = client.create_todo(request).await.expect("created");
    let again = carrying(create.clone(), &[bearer.as_bytes()]);
    client.create_todo(again).await.expect_err("there already");
    assert_eq!(judged(&mut client, &[bearer.as_bytes()]).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, "tmk_stranger").await, why("key"));
    let written = eventually("three lines", Duration::from_secs(60), async || {
        let lines = lines(&log);
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    assert_eq!(written.len(), 3, "{written:#?}");
    let [done, refused, unknown] = &written[..] else {
        panic!("{written:#?}")
    };
    for (line, fields) in [
        (
            done,
            &[
                ("target", "audit"),
                ("call", "CreateTodo"),
                ("principal", "user:ada"),
                ("method", "keys"),
                ("resource", "lists/home/todos/milk"),
                ("code", "OK"),
                ("token", created.get_ref().token.as_str()),
                ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ][..],
        ),
        (
            refused,
            &[
                ("call", "CreateTodo"),
                ("principal", "user:ada"),
                ("resource", "lists/home/todos/milk"),
                ("code", "ALREADY_EXISTS"),
                ("reason", "TODO_ALREADY_EXISTS"),
            ],
        ),
        (
            unknown,
            &[
                ("call", "ListTodos"),
                ("method", "none"),
                ("code", "UNAUTHENTICATED"),
                ("reason", "CALLER_UNKNOWN"),
                ("why", "key"),
            ],
        ),
    ] {
        for (name, value) in fields {
            assert_eq!(line[name], *value, "{name} of {line:#}");
        }
        assert!(
            line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        assert!(
            line["peer"]
                .as_str()
                .is_some_and(|peer| peer.starts_with("127.0.0.1:"))
        );
    }
    assert!(unknown.get("principal").is_none(), "{unknown:#}");
    let text = fs::read_to_string(&log).expect("the log");
    for secret in ["secret title", &key[4..], "stranger"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    // Counted after they were written.
    eventually("the count", Duration::from_secs(60), async || {
        let written = service.metric("tidemark_audit_lines_total{kind=\"written\"}");
        (written == 3).then_some(())
    })
    .await;

    // Nothing is lost at the end.
    let delete = pb::DeleteTodoRequest {
        name: "lists/home/todos/milk".into(),
        ..Default::default()
    };
    let deleted = client
        .delete_todo(carrying(delete, &[bearer.as_bytes()]))
        .await;
    deleted.expect("deleted");
    service.terminate();
    service.exit_code(Duration::from_secs(60)).await;
    assert_eq!(lines(&log)[3]["call"], "DeleteTodo");
}

/// A change of members is told whole: two lines say what changed between them. A refusal
/// tells none: whoever may not change a list could fill the log with them.
#[tokio::test]
async fn members_of_a_list_are_written() {
    let files = Folder::new();
    let (key, line) = new_key("user:ada");
    let keys = files.write("keys", &line);
    let log = files.0.join("audit.jsonl").display().to_string();
    let args = ["--auth", "keys", "--keys-file", &keys, "--audit-log", &log];
    let (_service, mut client) = serving(&args).await;
    let bearer = format!("Bearer {key}");
    let create = pb::CreateTodoListRequest {
        todo_list_id: "home".into(),
        ..Default::default()
    };
    let create = carrying(create, &[bearer.as_bytes()]);
    client.create_todo_list(create).await.expect("created");
    let shared = pb::TodoList {
        name: "lists/home".into(),
        members: [
            ("user:ada", pb::Role::Owner),
            ("user:bob", pb::Role::Reader),
        ]
        .map(|(member, role)| (member.to_owned(), role.into()))
        .into(),
        ..Default::default()
    };
    let titled = pb::TodoList {
        name: "lists/home".into(),
        title: "Ours".into(),
        ..Default::default()
    };
    let outdated = pb::TodoList {
        etag: "0".repeat(32),
        ..shared.clone()
    };
    for (list, is_done) in [(shared, true), (titled, true), (outdated, false)] {
        let update = pb::UpdateTodoListRequest {
            todo_list: Some(list),
            update_mask: None,
        };
        let update = carrying(update, &[bearer.as_bytes()]);
        let updated = client.update_todo_list(update).await;
        assert_eq!(updated.is_ok(), is_done, "{updated:?}");
    }
    let written = eventually("four lines", Duration::from_secs(60), async || {
        let lines = lines(&log);
        (lines.len() >= 4).then_some(lines)
    })
    .await;
    assert_eq!(written[3]["code"], "ABORTED");
    let members: Vec<_> = written.iter().map(|line| line["members"].clone()).collect();
    let both = json!({"user:ada": "ROLE_OWNER", "user:bob": "ROLE_READER"});
    assert_eq!(
        members,
        [
            json!({"user:ada": "ROLE_OWNER"}),
            both,
            Value::Null,
            Value::Null
        ]
    );
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_service() {
    let (service, mut client) = serving(&["--audit-log", "/dev/full"]).await;
    create(&mut client, "milk", "Buy milk").await;
    let failed = async |least: u64| {
        eventually("a failure", Duration::from_secs(60), async || {
            let failed = service.metric("tidemark_audit_lines_total{kind=\"failed\"}");
            (failed >= least).then_some(())
        })
        .await;
    };
    let began = Instant::now();
    failed(1).await;
    create(&mut client, "bread", "Buy bread").await;
    failed(2).await;
    // The log is written by a thread, and read by another one.
    let told = || {
        let log = service.log("ERROR").join("\n");
        log.matches("cannot be written").count()
    };
    eventually("an error", Duration::from_secs(60), async || {
        (told() > 0).then_some(())
    })
    .await;
    // One in a minute at most.
    assert!(told() as u64 <= 1 + began.elapsed().as_secs() / 60);
}
