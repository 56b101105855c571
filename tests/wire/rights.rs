//! Rights on lists: who may do what, and that a revocation is as fresh as a write.

mod sizes;

use std::{
    fs,
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use tidemark::pb::{self, Role, TodoList, watch_todos_response::Event};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use crate::{
    client::*,
    support::{Mongo, RedisCluster, Tidemark, eventually, folder, mongo, redis_cli, redis_cluster},
};

/// The callers of these tests. Each one's key has its name in it.
const CALLERS: [&str; 5] = ["ada", "bob", "cyd", "dan", "root"];

fn key_of(caller: &str) -> String {
    format!("tmk_{caller}-{}", "k".repeat(40))
}

/// The arguments that switch authentication on. Dan is of the group `ops`, root an
/// administrator.
fn with_keys() -> Vec<String> {
    let lines: String = CALLERS
        .iter()
        .map(|caller| {
            let hash = blake3::hash(key_of(caller).as_bytes()).to_hex();
            let groups = if *caller == "dan" { " ops" } else { "" };
            format!("{caller} = {hash}{groups}\n")
        })
        .collect();
    let file = folder("keys").join("keys");
    fs::write(&file, lines).expect("written");
    let file = file.display().to_string();
    ["--auth", "keys", "--keys-file", &file, "--admin", "root"]
        .map(String::from)
        .to_vec()
}

fn of<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {}", key_of(caller));
    let value = value.parse().expect("a header");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn embedded_with_keys() -> (Tidemark, Client) {
    let dir = folder("data").display().to_string();
    let args = with_keys();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    ready(Tidemark::start(
        &[&["--data-dir", &dir], &args[..]].concat(),
    ))
    .await
}

async fn real_with_keys(database: &str) -> (Tidemark, Client) {
    let args = with_keys();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    real_with(database, &args).await
}

fn members(members: &[(&str, Role)]) -> TodoList {
    TodoList {
        members: members
            .iter()
            .map(|(m, r)| ((*m).into(), (*r).into()))
            .collect(),
        ..TodoList::default()
    }
}

/// Ada makes a list with these other members. Returns the token.
async fn share(client: &mut Client, id: &str, list: TodoList) -> String {
    let request = pb::CreateTodoListRequest {
        todo_list: Some(list),
        todo_list_id: id.into(),
        request_id: String::new(),
    };
    let reply = client.create_todo_list(of("ada", request)).await;
    reply.expect("created").into_inner().token
}

/// Ada sets the members; herself as an owner, too. Returns the token.
async fn set_members(client: &mut Client, name: &str, others: &[(&str, Role)]) -> String {
    let all = [&[("ada", Role::Owner)], others].concat();
    let request = pb::UpdateTodoListRequest {
        todo_list: Some(TodoList {
            name: name.into(),
            ..members(&all)
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["members".into()],
        }),
    };
    let reply = client.update_todo_list(of("ada", request)).await;
    reply.expect("updated").into_inner().token
}

async fn add(client: &mut Client, caller: &str, list: &str, id: &str) -> Result<String, Status> {
    let request = pb::CreateTodoRequest {
        parent: list.into(),
        todo: Some(titled(id)),
        todo_id: id.into(),
        request_id: String::new(),
    };
    let reply = client.create_todo(of(caller, request)).await?;
    Ok(reply.into_inner().token)
}

async fn read(
    client: &mut Client,
    caller: &str,
    name: &str,
    consistency: Option<pb::Consistency>,
) -> Result<pb::GetTodoResponse, Status> {
    let request = pb::GetTodoRequest {
        name: name.into(),
        consistency,
    };
    let reply = client.get_todo(of(caller, request)).await?;
    Ok(reply.into_inner())
}

async fn watch(
    client: &mut Client,
    caller: &str,
    request: pb::WatchTodosRequest,
) -> Result<tonic::Streaming<pb::WatchTodosResponse>, Status> {
    let reply = client.watch_todos(of(caller, request)).await?;
    Ok(reply.into_inner())
}

fn is_denied<T: std::fmt::Debug>(reply: Result<T, Status>) -> bool {
    match reply {
        Err(status) if status.code() == Code::PermissionDenied => {
            let (_, reason, _) = refused(Err::<T, _>(status));
            assert_eq!(reason, "PERMISSION_DENIED");
            true
        }
        _ => false,
    }
}

/// Whether this caller is refused each call on `lists/home`, by the role that it needs.
async fn refusals(client: &mut Client, caller: &str, run: &str) -> [Vec<bool>; 3] {
    let name = "lists/home/todos/one";
    let page = pb::ListTodosRequest {
        parent: "lists/home".into(),
        ..Default::default()
    };
    let batch = pb::BatchGetTodosRequest {
        names: vec![name.into()],
        consistency: None,
    };
    let list = pb::GetTodoListRequest {
        name: "lists/home".into(),
        consistency: None,
    };
    let changes = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        ..Default::default()
    };
    let reads = vec![
        is_denied(read(client, caller, name, None).await),
        is_denied(client.list_todos(of(caller, page)).await),
        is_denied(client.batch_get_todos(of(caller, batch)).await),
        is_denied(client.get_todo_list(of(caller, list)).await),
        is_denied(watch(client, caller, changes).await),
    ];
    let update = pb::UpdateTodoRequest {
        todo: Some(pb::Todo {
            name: name.into(),
            ..titled(run)
        }),
        ..Default::default()
    };
    let new = format!("{caller}-{run}");
    let delete = pb::DeleteTodoRequest {
        name: format!("lists/home/todos/{new}"),
        allow_missing: true,
        ..Default::default()
    };
    let writes = vec![
        is_denied(add(client, caller, "lists/home", &new).await),
        is_denied(client.update_todo(of(caller, update)).await),
        is_denied(client.delete_todo(of(caller, delete)).await),
    ];
    let title = pb::UpdateTodoListRequest {
        todo_list: Some(TodoList {
            name: "lists/home".into(),
            title: run.into(),
            ..TodoList::default()
        }),
        update_mask: None,
    };
    let remove = pb::DeleteTodoListRequest {
        name: "lists/home".into(),
        etag: "an etag that does not match".into(),
        force: false,
    };
    let owns = vec![
        is_denied(client.update_todo_list(of(caller, title)).await),
        is_denied(client.delete_todo_list(of(caller, remove)).await),
    ];
    [reads, writes, owns]
}

async fn every_role(mut client: Client) {
    let roles = members(&[("bob", Role::Writer), ("group:ops", Role::Reader)]);
    share(&mut client, "home", roles).await;
    add(&mut client, "ada", "lists/home", "one")
        .await
        .expect("created");
    // The second run finds list and todo in the near cache.
    for run in ["cold", "hot"] {
        for (caller, allowed) in [
            ("ada", [true, true, true]),
            ("bob", [true, true, false]),
            ("dan", [true, false, false]),
            ("cyd", [false, false, false]),
            ("root", [true, true, true]),
        ] {
            let refusals = refusals(&mut client, caller, run).await;
            for (refused, allowed) in refusals.iter().zip(allowed) {
                assert!(
                    refused.iter().all(|it| *it != allowed),
                    "{caller}, {run}: {refusals:?}"
                );
            }
        }
    }
    let refused_read = read(&mut client, "cyd", "lists/home/todos/one", None).await;
    let (_, _, metadata) = refused(refused_read);
    assert_eq!(metadata["permission"], "todos.get");
    assert_eq!(metadata["resource"], "lists/home");
    assert_eq!(metadata["principal"], "cyd");
    // What does not exist is refused in the same words.
    let other = read(&mut client, "cyd", "lists/none/todos/one", None).await;
    let (code, _, metadata) = refused(other);
    assert_eq!(
        (code, &*metadata["resource"]),
        (Code::PermissionDenied, "lists/none")
    );
    assert!(is_denied(
        add(&mut client, "ada", "lists/none", "one").await
    ));

    let everybody = members(&[("*", Role::Reader)]);
    share(&mut client, "open", everybody).await;
    add(&mut client, "ada", "lists/open", "one")
        .await
        .expect("created");
    assert!(
        read(&mut client, "cyd", "lists/open/todos/one", None)
            .await
            .is_ok()
    );
    let lists = |caller| of(caller, pb::ListTodoListsRequest::default());
    for (caller, seen) in [
        ("cyd", vec!["lists/open"]),
        ("dan", vec!["lists/home", "lists/open"]),
        ("root", vec!["lists/home", "lists/open"]),
    ] {
        let page = client.list_todo_lists(lists(caller)).await;
        let page = page.expect("a page").into_inner();
        let names: Vec<_> = page
            .todo_lists
            .iter()
            .map(|list| list.name.as_str())
            .collect();
        assert_eq!(names, seen, "{caller}");
    }
}

#[tokio::test]
async fn every_role_embedded() {
    let (_service, client) = embedded_with_keys().await;
    every_role(client).await;
}

#[tokio::test]
async fn every_role_mongodb() {
    let (_service, client) = real_with_keys("rights_roles").await;
    every_role(client).await;
}

#[tokio::test]
async fn a_request_over_several_lists_is_refused_whole() {
    let (_service, mut client) = embedded_with_keys().await;
    share(&mut client, "a", members(&[("bob", Role::Reader)])).await;
    share(&mut client, "b", members(&[])).await;
    let batch = pb::BatchGetTodosRequest {
        names: vec!["lists/a/todos/x".into(), "lists/b/todos/x".into()],
        consistency: None,
    };
    let reply = client.batch_get_todos(of("bob", batch)).await;
    let (code, _, metadata) = refused(reply);
    assert_eq!(
        (code, &*metadata["resource"]),
        (Code::PermissionDenied, "lists/b")
    );
    let all = || pb::WatchTodosRequest {
        parent: "lists/-".into(),
        ..Default::default()
    };
    assert!(is_denied(watch(&mut client, "ada", all()).await));
    assert!(watch(&mut client, "root", all()).await.is_ok());
}

/// Todos of several lists are watched by whoever may read all of these lists, until one of
/// them is withdrawn.
#[tokio::test]
async fn a_watch_of_several_lists_needs_a_right_on_each() {
    let (_service, mut client) = embedded_with_keys().await;
    share(&mut client, "a", members(&[("bob", Role::Reader)])).await;
    share(&mut client, "b", members(&[("bob", Role::Reader)])).await;
    share(&mut client, "c", members(&[])).await;
    let of_names = |lists: &[&str]| pb::WatchTodosRequest {
        parent: "lists/-".into(),
        names: lists.iter().map(|l| format!("lists/{l}/todos/x")).collect(),
        ..Default::default()
    };
    let denied = watch(&mut client, "bob", of_names(&["a", "b", "c"])).await;
    let (code, _, metadata) = refused(denied);
    assert_eq!(
        (code, &*metadata["resource"]),
        (Code::PermissionDenied, "lists/c")
    );
    let mut stream = watch(&mut client, "bob", of_names(&["a", "b"])).await;
    let stream = stream.as_mut().expect("allowed");
    stream.message().await.expect("a message").expect("first");
    // The next message that is no progress.
    let next = async |stream: &mut tonic::Streaming<pb::WatchTodosResponse>| loop {
        let message = timeout(Duration::from_secs(60), stream.message()).await;
        match message.expect("in time") {
            Ok(Some(message)) if matches!(message.event, Some(Event::Progress(_))) => {}
            other => break other,
        }
    };
    for list in ["lists/a", "lists/b"] {
        add(&mut client, "ada", list, "x").await.expect("created");
        let message = next(stream).await.expect("a message").expect("one");
        let name = format!("{list}/todos/x");
        assert!(matches!(message.event, Some(Event::Change(change)) if change.name == name));
    }
    // A change of a list that leaves the right as it is ends nothing.
    set_members(&mut client, "lists/a", &[("bob", Role::Writer)]).await;
    set_members(&mut client, "lists/b", &[]).await;
    add(&mut client, "ada", "lists/b", "later")
        .await
        .expect("created");
    let end = next(stream).await.expect_err("refused");
    assert_eq!(end.code(), Code::PermissionDenied);
    assert!(end.message().contains("lists/b"), "{end}");
}

/// AIP-211: the name's form, then the right, then everything else.
#[tokio::test]
async fn without_a_right_nothing_else_is_told() {
    let (_service, mut client) = embedded_with_keys().await;
    share(&mut client, "home", members(&[])).await;
    let page = |parent: &str| pb::ListTodosRequest {
        parent: parent.into(),
        filter: "nonsense".into(),
        ..Default::default()
    };
    let code = |reply: Result<_, Status>| reply.map(drop).map_err(|status| status.code());
    let reply = client.list_todos(of("bob", page("lists/home"))).await;
    assert_eq!(code(reply), Err(Code::PermissionDenied));
    let reply = client.list_todos(of("ada", page("lists/home"))).await;
    assert_eq!(code(reply), Err(Code::InvalidArgument));
    let reply = client.list_todos(of("bob", page("home"))).await;
    assert_eq!(code(reply), Err(Code::InvalidArgument));
    assert!(is_denied(
        add(&mut client, "bob", "lists/home", "not/an/id").await
    ));
}

/// Todos from before authentication belong to nobody: whoever comes first must not own
/// them. An administrator gives them an owner.
#[tokio::test]
async fn nobody_takes_over_todos_without_a_list() {
    let (_service, mut client) = embedded_with_keys().await;
    add(&mut client, "root", "lists/old", "secret")
        .await
        .expect("created");
    let request = |owner: &str| pb::CreateTodoListRequest {
        todo_list: Some(members(&[(owner, Role::Owner)])),
        todo_list_id: "old".into(),
        request_id: String::new(),
    };
    let reply = client.create_todo_list(of("cyd", request("cyd"))).await;
    let (code, reason, _) = refused(reply);
    assert_eq!(
        (code, &*reason),
        (Code::AlreadyExists, "LIST_ALREADY_EXISTS")
    );
    assert!(is_denied(
        read(&mut client, "cyd", "lists/old/todos/secret", strong()).await
    ));
    let reply = client.create_todo_list(of("root", request("ada"))).await;
    reply.expect("created");
    assert!(
        read(&mut client, "ada", "lists/old/todos/secret", strong())
            .await
            .is_ok()
    );
}

/// Two callers may use the same request id for different writes.
#[tokio::test]
async fn a_request_id_belongs_to_its_caller() {
    let (_service, mut client) = embedded_with_keys().await;
    share(&mut client, "home", members(&[("bob", Role::Writer)])).await;
    let request = |id: &str| pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo: Some(titled(id)),
        todo_id: id.into(),
        request_id: "0193a5c0-0000-7000-8000-000000000001".into(),
    };
    for caller in ["ada", "bob"] {
        for _ in 0..2 {
            let reply = client.create_todo(of(caller, request(caller))).await;
            let todo = reply.expect("created").into_inner().todo.expect("a todo");
            assert_eq!(todo.title, caller);
        }
    }
}

/// Bob is removed on one replica. On the other one a read that presents the token, or
/// that is fully consistent, is refused at once; any other read within milliseconds. No
/// read at all shows what was written after the revocation.
#[tokio::test]
async fn a_revocation_is_as_fresh_as_a_write() {
    let (_one, mut first) = real_with_keys("rights_revoked").await;
    let (_two, mut second) = real_with_keys("rights_revoked").await;
    share(&mut first, "home", members(&[])).await;
    add(&mut first, "ada", "lists/home", "old")
        .await
        .expect("created");
    let old = "lists/home/todos/old";
    let mut times = Vec::new();
    for round in 0..20 {
        let token = set_members(&mut first, "lists/home", &[("bob", Role::Writer)]).await;
        let granted = read(&mut second, "bob", old, with_token(&token)).await;
        assert!(granted.is_ok(), "{granted:?}");
        let revoked = set_members(&mut first, "lists/home", &[]).await;
        let (began, id) = (Instant::now(), format!("new{round}"));
        match round % 3 {
            0 => assert!(is_denied(
                read(&mut second, "bob", old, with_token(&revoked)).await
            )),
            1 => assert!(is_denied(read(&mut second, "bob", old, strong()).await)),
            _ => assert!(is_denied(add(&mut second, "bob", "lists/home", "no").await)),
        }
        let token = add(&mut first, "ada", "lists/home", &id)
            .await
            .expect("created");
        let new = format!("lists/home/todos/{id}");
        assert!(is_denied(
            read(&mut second, "bob", &new, with_token(&token)).await
        ));
        let page = pb::ListTodosRequest {
            parent: "lists/home".into(),
            ..Default::default()
        };
        // The default level may still go by the older state, with the older content.
        if let Ok(page) = second.list_todos(of("bob", page)).await {
            let todos = page.into_inner().todos;
            assert!(todos.iter().all(|todo| todo.name != new), "{todos:?}");
        }
        // Less than the staleness limit, after which the right would be loaded again anyway.
        eventually("a refusal", Duration::from_secs(12), async || {
            is_denied(read(&mut second, "bob", old, None).await).then_some(())
        })
        .await;
        times.push(began.elapsed());
    }
    // All but the slowest four: the machine may have given these rounds no CPU.
    times.sort_unstable();
    assert!(times[15] < Duration::from_secs(2), "{times:?}");
}

/// A watch delivers what was committed before the revocation and nothing after it, then
/// ends with its last token.
#[tokio::test]
async fn a_watch_ends_at_the_revocation() {
    let (_service, mut client) = real_with_keys("rights_watch").await;
    let start = share(&mut client, "home", members(&[("bob", Role::Reader)])).await;
    let request = |after: &str| pb::WatchTodosRequest {
        parent: "lists/home".into(),
        include_todo: true,
        start: Some(pb::watch_todos_request::Start::After(after.into())),
        ..Default::default()
    };
    let mut live = watch(&mut client, "bob", request(&start))
        .await
        .expect("watching");
    for id in ["a", "b", "c"] {
        add(&mut client, "ada", "lists/home", id)
            .await
            .expect("created");
    }
    // Another change of the list's document does not end it.
    set_members(&mut client, "lists/home", &[("bob", Role::Writer)]).await;
    add(&mut client, "ada", "lists/home", "d")
        .await
        .expect("created");
    let revoked = set_members(&mut client, "lists/home", &[]).await;
    add(&mut client, "ada", "lists/home", "secret")
        .await
        .expect("created");
    let (mut seen, mut last) = (Vec::new(), String::new());
    let status = loop {
        match timeout(Duration::from_secs(60), live.message())
            .await
            .expect("in time")
        {
            Ok(Some(message)) => {
                last = message.token;
                if let Some(Event::Change(change)) = message.event {
                    seen.push(change.name);
                }
            }
            Ok(None) => panic!("the stream just ends"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        seen,
        ["a", "b", "c", "d"].map(|id| format!("lists/home/todos/{id}"))
    );
    let (code, reason, metadata) = refused(Err::<(), _>(status));
    assert_eq!(
        (code, &*reason),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    assert!(metadata.contains_key("token") && !last.is_empty());
    // A watch from before does not begin any more.
    assert!(is_denied(watch(&mut client, "bob", request(&start)).await));
    assert!(is_denied(
        watch(&mut client, "bob", request(&revoked)).await
    ));
    // Granted again, it goes on.
    set_members(&mut client, "lists/home", &[("bob", Role::Reader)]).await;
    assert!(watch(&mut client, "bob", request(&start)).await.is_ok());
}

/// Members edited by hand, and a document that cannot be read: it gives nothing.
#[tokio::test]
async fn a_document_edited_by_hand_counts() {
    let database = "rights_by_hand";
    let (service, mut client) = real_with_keys(database).await;
    share(&mut client, "home", members(&[("bob", Role::Reader)])).await;
    add(&mut client, "ada", "lists/home", "one")
        .await
        .expect("created");
    let one = "lists/home/todos/one";
    assert!(read(&mut client, "bob", one, None).await.is_ok());
    let documents = mongo().client().await.database(database);
    let documents = documents.collection::<mongodb::bson::Document>("lists");
    let home = || doc! { "_id": "lists/home" };
    let set = |value: mongodb::bson::Bson| doc! { "$set": { "members": value } };
    for (value, bob) in [
        (doc! { "cyd": "READER" }.into(), false),
        (doc! { "bob": "READER" }.into(), true),
        ("bob".into(), false),
        (doc! { "bob": "reader!" }.into(), false),
        (doc! { "*": "WRITER" }.into(), true),
    ] {
        let text = format!("{value}");
        documents
            .update_one(home(), set(value))
            .await
            .expect("edited");
        let denied = is_denied(read(&mut client, "bob", one, strong()).await);
        assert_eq!(denied, !bob, "{text}");
    }
    assert!(service.metric("tidemark_unreadable_lists_total") >= 2);
    documents.delete_one(home()).await.expect("deleted");
    assert!(is_denied(read(&mut client, "bob", one, strong()).await));
    assert!(is_denied(read(&mut client, "ada", one, strong()).await));
    assert!(read(&mut client, "root", one, strong()).await.is_ok());
}

/// Redis brings the document back that still has Bob in it.
#[tokio::test]
async fn an_old_document_in_redis_gives_no_right() {
    let (_service, mut client) = real_with_keys("rights_redis").await;
    share(&mut client, "home", members(&[("bob", Role::Reader)])).await;
    add(&mut client, "ada", "lists/home", "one")
        .await
        .expect("created");
    let one = "lists/home/todos/one";
    assert!(read(&mut client, "bob", one, None).await.is_ok());
    let cluster = redis_cluster();
    let old = eventually("the entry", Duration::from_secs(60), async || {
        let keys = cluster.keys();
        keys.into_iter()
            .find(|(_, key)| key.ends_with(":lists/home"))
    })
    .await;
    let copy = |from: &str, to: &str| {
        redis_cli(old.0, &["copy", from, to, "replace"]);
    };
    // Of the same hash slot.
    let kept = format!("{}:kept", old.1);
    copy(&old.1, &kept);
    let revoked = set_members(&mut client, "lists/home", &[]).await;
    assert!(is_denied(
        read(&mut client, "bob", one, with_token(&revoked)).await
    ));
    // Another replica begins with an empty near cache.
    let (_other, mut other) = real_with_keys("rights_redis").await;
    for _ in 0..20 {
        copy(&kept, &old.1);
        assert!(is_denied(
            read(&mut other, "bob", one, with_token(&revoked)).await
        ));
        assert!(is_denied(read(&mut other, "bob", one, None).await));
    }
    redis_cli(old.0, &["del", &kept]);
}

/// A service with these arguments and a staleness limit of 5 s, and in it a todo of Ada
/// that Bob has read.
async fn shared_on(args: &[&str]) -> (Tidemark, Client) {
    let keys = with_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let args = [args, &["--staleness-limit", "5s"], &keys].concat();
    let (service, mut client) = ready(Tidemark::start(&args)).await;
    share(&mut client, "home", members(&[("bob", Role::Reader)])).await;
    let added = add(&mut client, "ada", "lists/home", "one").await;
    added.expect("created");
    let seen = read(&mut client, "bob", "lists/home/todos/one", None).await;
    assert!(seen.is_ok());
    (service, client)
}

/// While the database is away, a right that is too old is none.
#[tokio::test]
async fn without_the_database_an_old_right_is_none() {
    let mongo = Mongo::start(1, 990);
    let redis: &RedisCluster = redis_cluster();
    let (uri, url) = (mongo.uri("rights_down"), redis.url());
    let (_service, mut client) = shared_on(&["--mongodb-uri", &uri, "--redis-url", &url]).await;
    let one = "lists/home/todos/one";
    mongo.nodes.iter().for_each(|node| node.freeze());
    let code = eventually("no answer", Duration::from_secs(60), async || {
        let reply = read(&mut client, "bob", one, None).await;
        reply.err().map(|status| status.code())
    })
    .await;
    assert_eq!(code, Code::Unavailable);
    assert_eq!(
        refused(add(&mut client, "ada", "lists/home", "two").await).0,
        Code::Unavailable
    );
    mongo.nodes.iter().for_each(|node| node.thaw());
    eventually("answers again", Duration::from_secs(60), async || {
        read(&mut client, "bob", one, None).await.ok()
    })
    .await;
}

/// With `--stale-if-error` an old document may allow a read, marked stale. It neither
/// allows a write nor denies anything: the role may have been given since.
#[tokio::test]
async fn a_stale_right_allows_reads_and_denies_nothing() {
    let mongo = Mongo::start(1, 990);
    let uri = mongo.uri("rights_stale");
    let args = ["--mongodb-uri", &uri, "--stale-if-error", "10m"];
    let (_service, mut client) = shared_on(&args).await;
    let one = "lists/home/todos/one";
    assert!(is_denied(read(&mut client, "cyd", one, None).await));
    mongo.nodes.iter().for_each(|node| node.freeze());
    eventually("a stale answer", Duration::from_secs(60), async || {
        let read = read(&mut client, "bob", one, None).await.ok()?;
        read.read?.stale.then_some(())
    })
    .await;
    let refusal = refused(read(&mut client, "cyd", one, None).await).0;
    assert_eq!(refusal, Code::Unavailable);
    let refusal = refused(add(&mut client, "ada", "lists/home", "two").await).0;
    assert_eq!(refusal, Code::Unavailable);
    mongo.nodes.iter().for_each(|node| node.thaw());
    eventually("denied again", Duration::from_secs(60), async || {
        is_denied(read(&mut client, "cyd", one, None).await).then_some(())
    })
    .await;
}
