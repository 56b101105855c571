//! The online verifier: every planted fault is found, and where nothing is
//! planted nothing is found.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mongodb::bson::doc;
use tidemark::{
    model::{OriginTime, Page, Stamped, TodoName, Token, Unreadable, Value},
    origin::{Origin as _, mongo::MongoDb},
    pb::{self, Source},
    tier::record,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    client::*,
    support::{Tidemark, eventually, folder, mongo, redis_cluster},
};

const ALL: [&str; 2] = ["--verify-one-in", "1"];
const LIST: &str = "lists/planted";

/// How many verdicts of this kind the service has counted.
fn verified(service: &Tidemark, kind: &str) -> u64 {
    service.metric(&format!("tidemark_verified_total{{kind=\"{kind}\"}}"))
}

fn redis_cli(stdin: &[u8], args: &[&str]) -> Vec<u8> {
    let port = redis_cluster().nodes[0].port.to_string();
    let mut child = Command::new("redis-cli")
        .args(["-c", "-p", &port])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(stdin)
        .expect("written");
    child.wait_with_output().expect("run").stdout
}

/// Somebody who can write into Redis whatever he likes, checksums included.
struct Forger {
    scope: u64,
}

impl Forger {
    async fn new(database: &str) -> Self {
        let origin = MongoDb::connect(&mongo().uri(database), 0, 4)
            .await
            .expect("connected");
        Self {
            scope: origin.entry_scope(),
        }
    }

    /// The key in Redis of a todo's name or of what follows it for a page.
    fn key(&self, list: &str, rest: &str) -> String {
        format!("tidemark:{{{list}}}:{:016x}:{rest}", self.scope)
    }

    fn plant(&self, key: &str, whole: &str, as_of: OriginTime, value: Value) {
        let entry = record::encode(self.scope, whole, &Stamped { as_of, value });
        assert_eq!(redis_cli(&entry, &["-x", "set", key]), b"OK\n", "{key}");
    }

    fn held(&self, key: &str, whole: &str) -> Option<Value> {
        let raw = Bytes::from(redis_cli(b"", &["--raw", "get", key]));
        // The program ends with a newline of its own.
        record::decode(self.scope, whole, &raw.slice(..raw.len().checked_sub(1)?))
            .ok()
            .map(|held| held.value)
    }
}

fn raw(todo: &pb::Todo) -> Value {
    Value::Todo(prost::Message::encode_to_vec(todo).into())
}

fn time(token: &str) -> OriginTime {
    Token::decode(token).expect("a token").fresh_to
}

/// What the database has, and a time at which it has it.
async fn known(client: &mut Client, name: &str) -> (Option<pb::Todo>, OriginTime) {
    match get(client, name, strong()).await {
        Ok(reply) => (reply.todo, time(&reply.read.expect("a ReadInfo").token)),
        Err(status) => (None, time(&refused::<()>(Err(status)).2["token"])),
    }
}

/// A kind of lie: its name, and what is said of a todo that was once `old` and
/// is now `right`, as of when it is `now`.
type Lie = (
    &'static str,
    fn(old: &pb::Todo, right: &pb::Todo, now: OriginTime) -> (OriginTime, Value),
);

const LIES: [Lie; 6] = [
    ("forged", |_, right, now| {
        (
            now,
            raw(&pb::Todo {
                title: "forged".into(),
                ..right.clone()
            }),
        )
    }),
    ("etag", |_, right, now| {
        (
            now,
            raw(&pb::Todo {
                etag: "f".repeat(32),
                ..right.clone()
            }),
        )
    }),
    ("label", |_, right, now| {
        (
            now,
            raw(&pb::Todo {
                labels: vec!["a".into()],
                ..right.clone()
            }),
        )
    }),
    ("gone", |_, _, now| (now, Value::Absent)),
    ("broken", |_, _, now| {
        let why = Unreadable {
            field: "title".into(),
            problem: "is forged".into(),
        };
        (now, Value::Unreadable(Arc::new(why)))
    }),
    // What it once was, said to be what it is: the fault that cache-aside makes.
    ("old", |old, _, now| (now, raw(old))),
];

/// Each kind of lie that an entry can be, all with a right checksum: found,
/// told, and gone from both caches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_fault_is_found_and_dropped() {
    const DATABASE: &str = "planted";
    let (_writer, mut writer) = real_with(DATABASE, &["--verify-one-in", "0"]).await;
    let (service, mut client) = real_with(DATABASE, &ALL).await;
    let forger = Forger::new(DATABASE).await;
    for (found, (kind, lie)) in LIES.into_iter().enumerate() {
        let mut attempt = 0;
        // Redis may be too slow at the moment to be asked: then nobody is
        // fooled, and another todo is planted.
        let (name, right) = loop {
            assert!(attempt < 50, "the lie {kind} is never told");
            let id = format!("{kind}-{attempt}");
            attempt += 1;
            let todo = pb::Todo {
                labels: vec!["a".into(), "b".into()],
                ..titled("old")
            };
            let old = create_in(&mut writer, LIST, &id, todo)
                .await
                .expect("created")
                .todo
                .expect("a todo");
            retitle(&mut writer, &old.name, "right").await;
            let (right, now) = known(&mut writer, &old.name).await;
            let right = right.expect("there");
            let (as_of, value) = lie(&old, &right, now);
            // What the service writes off the request's path comes first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            forger.plant(&forger.key(LIST, &old.name), &old.name, as_of, value);
            let answer = get(&mut client, &old.name, None).await;
            let fooled = match &answer {
                Ok(reply) => reply.read.as_ref().expect("a ReadInfo").source() == Source::Shared,
                Err(status) => [Code::NotFound, Code::DataLoss].contains(&status.code()),
            };
            if fooled {
                break (old.name, right);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        eventually("the verdict", Duration::from_secs(60), async || {
            (verified(&service, "inconsistent") > found as u64).then_some(())
        })
        .await;
        let line = eventually("its line in the log", Duration::from_secs(60), async || {
            service
                .log("ERROR")
                .into_iter()
                .find(|line| line.contains(&format!("\"key\":\"{name}\"")))
        })
        .await;
        assert!(
            line.contains("\"served\"") && line.contains("\"database\""),
            "both versions: {line}"
        );
        eventually("the right answer", Duration::from_secs(60), async || {
            let reply = get(&mut client, &name, None).await;
            (reply.ok().and_then(|reply| reply.todo).as_ref() == Some(&right)).then_some(())
        })
        .await;
        // In Redis too: another replica is not fooled any more.
        eventually(
            "the right entry in Redis",
            Duration::from_secs(60),
            async || {
                (forger.held(&forger.key(LIST, &name), &name) == Some(raw(&right))).then_some(())
            },
        )
        .await;
        // A stamp from the future would hide what comes after.
        retitle(&mut writer, &name, "newer").await;
        eventually("what comes after", Duration::from_secs(8), async || {
            let reply = get(&mut client, &name, None).await;
            reply
                .ok()
                .and_then(|reply| reply.todo)
                .is_some_and(|todo| todo.title == "newer")
                .then_some(())
        })
        .await;
    }
    // What is right is not suspected: a line for each lie that was told (and
    // one may be told again until it is dropped), but nothing else.
    // The log is written by a thread, and read by another one.
    eventually("a line for each lie", Duration::from_secs(60), async || {
        let told = service.log("ERROR").into_iter();
        let lies = told.filter(|line| line.contains("a cached value differs from the database"));
        (lies.count() as u64 == verified(&service, "inconsistent")).then_some(())
    })
    .await;
}

/// Entries that no replica can have written: a stamp that the database has not
/// reached, a body that is not the todo of its key. Nobody is answered from them, at
/// any consistency level, also after a write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_entries_are_misses() {
    const DATABASE: &str = "impossible";
    let (_writer, mut writer) = real_with(DATABASE, &["--verify-one-in", "0"]).await;
    let (_service, mut client) = real_with(DATABASE, &["--verify-one-in", "0"]).await;
    let forger = Forger::new(DATABASE).await;
    let other = pb::Todo {
        name: format!("{LIST}/todos/other"),
        ..titled("forged")
    };
    let ahead = |seconds: u64| move |now: OriginTime| OriginTime(now.0 + (seconds << 32));
    type Stamp = Box<dyn Fn(OriginTime) -> OriginTime>;
    let entries: [(&str, Stamp, Option<Value>); 4] = [
        ("ahead", Box::new(ahead(14)), None),
        ("less-ahead", Box::new(ahead(8)), None),
        ("empty", Box::new(ahead(0)), Some(Value::Todo(Bytes::new()))),
        ("of-another", Box::new(ahead(0)), Some(raw(&other))),
    ];
    for (kind, stamp, value) in entries {
        let created = create_in(&mut writer, LIST, kind, titled("old")).await;
        let old = created.expect("created").todo.expect("a todo");
        let (_, now) = known(&mut writer, &old.name).await;
        // What the service writes off the request's path comes first.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let key = forger.key(LIST, &old.name);
        let value = value.unwrap_or_else(|| {
            raw(&pb::Todo {
                title: "forged".into(),
                ..old.clone()
            })
        });
        forger.plant(&key, &old.name, stamp(now), value.clone());
        let title = async |client: &mut Client, how| {
            let reply = get(client, &old.name, how).await.expect("answered");
            reply.todo.expect("a todo").title
        };
        for client in [&mut client, &mut writer] {
            for how in [None, strong()] {
                assert_eq!(title(client, how).await, "old", "{kind}");
            }
        }
        let updated = retitle(&mut writer, &old.name, "newer").await;
        forger.plant(&key, &old.name, stamp(now), value);
        for client in [&mut client, &mut writer] {
            for how in [strong(), with_token(&updated.token)] {
                assert_eq!(title(client, how).await, "newer", "{kind}");
            }
        }
    }
}

/// A page that leaves a todo out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_page_is_found_and_dropped() {
    const DATABASE: &str = "planted_page";
    let (_writer, mut writer) =
        real_with(DATABASE, &["--verify-one-in", "0", "--list-grace", "0s"]).await;
    let (service, mut client) =
        real_with(DATABASE, &[&ALL[..], &["--list-grace", "0s"]].concat()).await;
    let forger = Forger::new(DATABASE).await;
    let mut attempt = 0;
    let (list_name, key, query, right) = loop {
        assert!(attempt < 50, "the lie is never told");
        let parent = format!("lists/planted-{attempt}");
        attempt += 1;
        for n in 0..5 {
            create_in(&mut writer, &parent, &format!("t{n}"), titled("x"))
                .await
                .expect("created");
        }
        let strong_page = pb::ListTodosRequest {
            consistency: strong(),
            ..page_of(&parent)
        };
        let right = list(&mut writer, strong_page).await;
        assert_eq!(right.todos.len(), 5);
        // The key has a hash of the query in it; the entry has the query.
        let begin = forger.key(&parent, "page:");
        let Some(key) = key_with(&begin).await else {
            // Redis was too slow to take it.
            continue;
        };
        let entry = redis_cli(b"", &["--raw", "get", &key]);
        let length = usize::from(entry[20]) | usize::from(entry[19]) << 8;
        let query = String::from_utf8(entry[21..21 + length].to_vec()).expect("text");
        assert!(query.starts_with(&parent), "{query}");
        let now = time(&right.read.as_ref().expect("a ReadInfo").token);
        let names = right.todos[1..]
            .iter()
            .map(|todo| TodoName::parse(&todo.name).expect("a name"))
            .collect();
        forger.plant(
            &key,
            &query,
            now,
            Value::Page(Arc::new(Page { names, next: None })),
        );
        if list(&mut client, page_of(&parent)).await.todos.len() == 4 {
            break (parent, key, query, names_of(&right));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    eventually("the verdict", Duration::from_secs(60), async || {
        (verified(&service, "inconsistent") > 0).then_some(())
    })
    .await;
    eventually("the right page", Duration::from_secs(60), async || {
        (names(&list(&mut client, page_of(&list_name)).await).len() == 5).then_some(())
    })
    .await;
    eventually(
        "the right page in Redis",
        Duration::from_secs(60),
        async || {
            let wanted = Value::Page(Arc::new(Page {
                names: right.clone(),
                next: None,
            }));
            (forger.held(&key, &query) == Some(wanted)).then_some(())
        },
    )
    .await;
    eventually("its line in the log", Duration::from_secs(60), async || {
        let told = service.log("ERROR");
        told.iter().any(|line| line.contains(&query)).then_some(())
    })
    .await;
}

/// A key in Redis that begins so, once it is there.
async fn key_with(begin: &str) -> Option<String> {
    for _ in 0..20 {
        let keys = redis_cluster().keys().into_iter().map(|(_, key)| key);
        let found = keys.into_iter().find(|key| key.starts_with(begin));
        if found.is_some() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

fn names_of(reply: &pb::ListTodosResponse) -> Vec<TodoName> {
    names(reply)
        .iter()
        .map(|name| TodoName::parse(name).expect("a name"))
        .collect()
}

/// Reads of all kinds, from two replicas, of todos that somebody changes
/// behind their back: no false alarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_run_raises_no_alarm() {
    const DATABASE: &str = "clean";
    // Not every value: one that waits for its turn is changed meanwhile, and then
    // nothing can be said of it.
    const SOME: [&str; 2] = ["--verify-one-in", "20"];
    let (one, client_one) = real_with(DATABASE, &SOME).await;
    let (two, client_two) = real_with(DATABASE, &SOME).await;
    let stop = CancellationToken::new();
    let mut tasks = Vec::new();
    for hand in 0..3_usize {
        tasks.push(tokio::spawn(edit_by_hand(DATABASE, hand, stop.clone())));
    }
    tasks.push(tokio::spawn(write_by_the_service(
        client_one.clone(),
        stop.clone(),
    )));
    for client in [client_one, client_two] {
        for reader in 0..3 {
            tasks.push(tokio::spawn(read_all_kinds(
                client.clone(),
                reader,
                stop.clone(),
            )));
        }
    }
    verify_until(&[&one, &two], 100, &stop).await;
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// The same on the embedded store, which proves what it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_run_on_the_embedded_store_raises_no_alarm() {
    let dir = folder("data").display().to_string();
    let (service, client) = ready(Tidemark::start(&[
        "--data-dir",
        &dir,
        "--verify-one-in",
        "1",
    ]))
    .await;
    let stop = CancellationToken::new();
    let mut tasks = vec![tokio::spawn(write_by_the_service(
        client.clone(),
        stop.clone(),
    ))];
    for reader in 0..3 {
        tasks.push(tokio::spawn(read_all_kinds(
            client.clone(),
            reader,
            stop.clone(),
        )));
    }
    verify_until(&[&service], 300, &stop).await;
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// Lets it go on until so many answers were found right, and nothing else.
async fn verify_until(services: &[&Tidemark], wanted: u64, stop: &CancellationToken) {
    let count = async |kind: &str| {
        let mut sum = 0;
        for service in services {
            sum += verified(service, kind);
        }
        sum
    };
    let enough = eventually("enough verdicts", Duration::from_secs(600), async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let alarm = count("inconsistent").await > 0;
        (alarm || count("consistent").await >= wanted).then_some(())
    });
    enough.await;
    stop.cancel();
    eprintln!(
        "clean run: {} consistent, {} undecided",
        count("consistent").await,
        count("undecided").await
    );
    for service in services {
        assert_eq!(service.log("ERROR"), Vec::<String>::new());
        assert_eq!(verified(service, "inconsistent"), 0);
    }
}

const IDS: usize = 40;

fn id(n: usize) -> String {
    format!("lists/clean/todos/t{n}")
}

async fn write_by_the_service(mut client: Client, stop: CancellationToken) {
    let began = Instant::now();
    for n in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let name = id(n % IDS);
        // Somebody else may be quicker.
        if n % 7 == 0 {
            let request = pb::DeleteTodoRequest {
                name,
                allow_missing: true,
                ..Default::default()
            };
            drop(client.delete_todo(request).await);
        } else {
            let todo = pb::Todo {
                name,
                ..titled(&format!("by the service {n}"))
            };
            let request = pb::UpdateTodoRequest {
                todo: Some(todo),
                allow_missing: true,
                ..Default::default()
            };
            drop(client.update_todo(request).await);
        }
        pause(Duration::from_millis(15), began).await;
    }
}

/// Waits between two changes, longer from second to second: where the machine is so slow
/// that all is changed before it is verified, no verdict could be given.
async fn pause(first: Duration, began: Instant) {
    let times = 1.0 + began.elapsed().as_secs_f64() / 10.0;
    tokio::time::sleep(first.mul_f64(times)).await;
}

/// Updates, replaces, deletes, inserts and transactions behind the service's
/// back.
async fn edit_by_hand(database: &'static str, hand: usize, stop: CancellationToken) {
    let began = Instant::now();
    let client = mongo().client().await;
    let todos = client
        .database(database)
        .collection::<mongodb::bson::Document>("todos");
    let whole = |id: &str, n: usize| {
        let priority = ["LOW", "NORMAL", "HIGH", "URGENT", "wrong"][n % 5];
        doc! { "_id": id, "parent": "lists/clean", "title": format!("by hand {n}"), "priority": priority }
    };
    for n in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let name = id((n * 7 + hand * 13) % IDS);
        let one = doc! { "_id": &name };
        // Writers may meet each other; then the later one gives way.
        let _ = match n % 6 {
            0 => todos
                .replace_one(one, whole(&name, n))
                .upsert(true)
                .await
                .map(drop),
            1 => todos.delete_one(one).await.map(drop),
            2 => todos.insert_one(whole(&name, n)).await.map(drop),
            3 => todos
                .update_many(doc! {}, doc! { "$set": { "notes": n.to_string() } })
                .await
                .map(drop),
            4 => in_a_transaction(&client, &todos, n).await,
            _ => todos
                .update_one(one, doc! { "$set": { "title": n.to_string() } })
                .await
                .map(drop),
        };
        pause(Duration::from_millis(20), began).await;
    }
}

async fn in_a_transaction(
    client: &mongodb::Client,
    todos: &mongodb::Collection<mongodb::bson::Document>,
    n: usize,
) -> mongodb::error::Result<()> {
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for at in 0..5 {
        let one = doc! { "_id": id((n + at) % IDS) };
        todos
            .update_one(one, doc! { "$set": { "title": format!("together {n}") } })
            .session(&mut session)
            .await?;
    }
    session.commit_transaction().await
}

/// On a machine that is overloaded the database is away now and then; the
/// verifier is not to raise an alarm then either.
fn answered_or_away<T>(answer: Result<T, tonic::Status>) {
    if let Err(status) = answer {
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    }
}

async fn read_all_kinds(mut client: Client, reader: usize, stop: CancellationToken) {
    for n in reader.. {
        if stop.is_cancelled() {
            return;
        }
        let consistency = if n % 17 == 0 { strong() } else { None };
        match n % 5 {
            0 => {
                let names = (0..5).map(|at| id((n + at) % IDS)).collect();
                let request = pb::BatchGetTodosRequest { names, consistency };
                answered_or_away(client.batch_get_todos(request).await);
            }
            1 => {
                let filter = ["", "priority = HIGH", "state = ACTIVE"][n % 3].to_owned();
                let request = pb::ListTodosRequest {
                    filter,
                    page_size: 10,
                    consistency,
                    ..page_of("lists/clean")
                };
                answered_or_away(client.list_todos(request).await);
            }
            // Absent and unreadable todos are answers like any other.
            _ => drop(get(&mut client, &id(n % IDS), consistency).await),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
