//! The right comes before the size: whoever has no right on a list learns neither how
//! large its todos are nor that one of them cannot be read.

use super::*;

const LARGE: &str = "lists/big/todos/large";

/// A todo of some 45 KB: a hundred of it are too large for one response.
async fn add_large(client: &mut Client) {
    let request = pb::CreateTodoRequest {
        parent: "lists/big".into(),
        todo: Some(pb::Todo {
            notes: "\u{1F600}".repeat(8192),
            ..titled(&"\u{1F600}".repeat(1024))
        }),
        todo_id: "large".into(),
        request_id: String::new(),
    };
    let created = client.create_todo(of("ada", request)).await;
    created.expect("created");
}

fn batch(names: &[&str], times: usize) -> pb::BatchGetTodosRequest {
    let names = names.iter().cycle().take(names.len() * times);
    pb::BatchGetTodosRequest {
        names: names.map(ToString::to_string).collect(),
        consistency: None,
    }
}

async fn get_batch(
    client: &mut Client,
    caller: &str,
    batch: pb::BatchGetTodosRequest,
) -> Result<pb::BatchGetTodosResponse, Status> {
    let reply = client.batch_get_todos(of(caller, batch)).await?;
    Ok(reply.into_inner())
}

/// Code, message, reason and metadata of a refusal: all that the caller sees.
type Refusal = (
    Code,
    String,
    String,
    std::collections::HashMap<String, String>,
);

fn refusal<T: std::fmt::Debug>(reply: Result<T, Status>) -> Refusal {
    let message = reply
        .as_ref()
        .err()
        .map(|status| status.message().to_owned());
    let (code, reason, metadata) = refused(reply);
    (code, message.expect("refused"), reason, metadata)
}

#[tokio::test]
async fn the_right_on_a_batch_comes_before_its_size() {
    let dir = folder("data").display().to_string();
    let keys = with_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let args = [&["--data-dir", &dir], &keys[..]].concat();
    let (service, mut client) = ready(Tidemark::start(&args)).await;
    share(&mut client, "big", members(&[])).await;
    share(&mut client, "open", members(&[("bob", Role::Reader)])).await;
    add_large(&mut client).await;
    let small = "lists/open/todos/small";
    add(&mut client, "ada", "lists/open", "small")
        .await
        .expect("created");
    service.terminate();
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));

    // The first round of a new process finds nothing near.
    let (_service, mut client) = ready(Tidemark::start(&args)).await;
    for round in ["cold", "hot"] {
        // A todo that does not exist, in the same list: what there is to learn is the same.
        let none = get_batch(&mut client, "bob", batch(&["lists/big/todos/none"], 1)).await;
        let none = refusal(none);
        assert_eq!(
            (none.0, &*none.2),
            (Code::PermissionDenied, "PERMISSION_DENIED")
        );
        for (names, times) in [
            (&[LARGE][..], 1),
            (&[LARGE], 1000),
            // A right on one list is none on the other, in whatever order.
            (&[small, LARGE], 500),
            (&[LARGE, small], 500),
        ] {
            let denied = get_batch(&mut client, "bob", batch(names, times)).await;
            assert_eq!(refusal(denied), none, "{round}, {times} times {names:?}");
        }
        let too_large = get_batch(&mut client, "ada", batch(&[LARGE], 1000)).await;
        let (code, text, reason, _) = refusal(too_large);
        assert_eq!(
            (code, &*reason),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            "{round}"
        );
        assert!(text.contains("at most"), "{text}");
    }

    // Withdrawn while it is used: each answer is one that the right allowed.
    set_members(&mut client, "lists/big", &[("bob", Role::Reader)]).await;
    let allowed = get_batch(&mut client, "bob", batch(&[LARGE], 1000)).await;
    assert_eq!(refusal(allowed).2, "MESSAGE_TOO_LARGE");
    let revoked = set_members(&mut client, "lists/big", &[]).await;
    let request = pb::BatchGetTodosRequest {
        consistency: with_token(&revoked),
        ..batch(&[LARGE], 1000)
    };
    assert!(is_denied(get_batch(&mut client, "bob", request).await));
}

/// The same for a todo that cannot be read and one that no client could receive: reads,
/// pages, watches and writes.
#[tokio::test]
async fn the_right_comes_before_what_is_wrong_with_a_todo() {
    let database = "rights_sizes";
    let (_service, mut client) = real_with_keys(database).await;
    share(&mut client, "big", members(&[])).await;
    add(&mut client, "ada", "lists/big", "good")
        .await
        .expect("created");
    let todos = mongo().todos(database).await;
    let edited = |name: &str, field: &str, value: mongodb::bson::Bson| {
        doc! { "_id": name, "parent": "lists/big", "title": "x", field: value }
    };
    let (huge, wrong) = ("lists/big/todos/huge", "lists/big/todos/wrong");
    for todo in [
        edited(huge, "notes", "x".repeat(6 << 20).into()),
        edited(wrong, "state", 5.into()),
    ] {
        todos.insert_one(todo).await.expect("planted");
    }
    let none = refusal(read(&mut client, "bob", "lists/big/todos/none", strong()).await);
    for name in [huge, wrong] {
        // A busy database may miss the time limit of a load.
        let (code, _, reason, _) = eventually("its owner's", Duration::from_secs(30), async || {
            let refusal = refusal(read(&mut client.clone(), "ada", name, strong()).await);
            (refusal.0 != Code::Unavailable).then_some(refusal)
        })
        .await;
        let its = match name == huge {
            true => (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            false => (Code::DataLoss, "TODO_UNREADABLE"),
        };
        assert_eq!((code, &*reason), its);
        for consistency in [None, strong()] {
            let denied = read(&mut client, "bob", name, consistency).await;
            assert_eq!(refusal(denied), none, "{name}");
        }
        let denied = get_batch(&mut client, "bob", batch(&[name], 2)).await;
        assert_eq!(refusal(denied), none, "{name}");
        let update = |title: &str| pb::UpdateTodoRequest {
            todo: Some(pb::Todo {
                name: name.into(),
                ..titled(title)
            }),
            ..Default::default()
        };
        assert!(is_denied(client.update_todo(of("bob", update("x"))).await));
    }
    let page = pb::ListTodosRequest {
        parent: "lists/big".into(),
        ..Default::default()
    };
    assert!(is_denied(client.list_todos(of("bob", page.clone())).await));
    let its = client.list_todos(of("ada", page)).await.expect("a page");
    let mut unreadable = its.into_inner().unreadable;
    unreadable.sort();
    assert_eq!(unreadable, [huge, wrong]);
    let changes = pb::WatchTodosRequest {
        parent: "lists/big".into(),
        names: vec![huge.into(), wrong.into()],
        include_todo: true,
        ..Default::default()
    };
    assert!(is_denied(watch(&mut client, "bob", changes).await));
}
