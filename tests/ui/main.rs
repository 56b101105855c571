//! The page in a headless Chromium, with real replicas: what two people see of
//! each other's edits, of an edit in MongoDB, of a Redis that is gone and of a
//! replica that drains. `ui/test` runs it.

#[path = "../support/mod.rs"]
mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::bson::doc;
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use support::{Tidemark, mongo, redis};

/// How long an edit may take to the other browser.
const EDIT_LIMIT_MS: u64 = 100;
/// Edits of one round: their median must be within the limit.
const EDITS: usize = 20;
/// Other programs may use the same cores for a while: one of so many rounds counts.
const ROUNDS: usize = 5;

/// A browser under command.
struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    fn start() -> Self {
        assert!(
            std::env::var_os("TIDEMARK_CHROMIUM").is_some(),
            "TIDEMARK_CHROMIUM is not set: run ui/test"
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/drive.mjs");
        let mut command = Command::new("node");
        command
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("node");
        let commands = child.stdin.take().expect("stdin");
        let answers = BufReader::new(child.stdout.take().expect("stdout"));
        Self {
            child,
            commands,
            answers,
        }
    }

    /// Sends a command; its answer.
    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("a browser that lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let reply: Value = serde_json::from_str(&line).expect("JSON");
        assert!(
            reply.get("error").is_none(),
            "{command}: {}",
            reply["error"]
        );
        reply["answer"].clone()
    }

    fn on(&mut self, page: &str, what: &str, mut more: Value) -> Value {
        more["do"] = what.into();
        more["page"] = page.into();
        self.ask(&more)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load balancer: each connection goes to the first replica that accepts it.
async fn balance(replicas: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let replicas = replicas.lock().expect("the list").clone();
            tokio::spawn(async move {
                for replica in replicas {
                    if let Ok(mut server) = TcpStream::connect(&replica).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            });
        }
    });
    address
}

fn replica(redis_url: &str) -> Tidemark {
    let uri = mongo().uri("ui");
    let args = ["--mongodb-uri", &uri, "--redis-url", redis_url];
    Tidemark::start(&args)
}

async fn ready(service: &Tidemark) {
    let address = service.address.trim_start_matches("http://").to_owned();
    support::eventually("readiness", Duration::from_secs(60), async || {
        let output = Command::new("curl")
            .args(["-s", &format!("http://{address}/readyz")])
            .output();
        String::from_utf8_lossy(&output.ok()?.stdout)
            .contains("\"SERVING\"")
            .then_some(())
    })
    .await;
}

/// Both pages see what either of them does.
fn edits_are_seen(browser: &mut Browser) {
    browser.on("a", "add", json!({"title": "Buy milk"}));
    browser.on("b", "has", json!({"title": "Buy milk"}));
    browser.on("b", "complete", json!({"title": "Buy milk"}));
    browser.on("a", "has", json!({"title": "Buy milk", "done": true}));
    browser.on(
        "a",
        "edit",
        json!({"title": "Buy milk", "to": "Buy oat milk"}),
    );
    browser.on("b", "has", json!({"title": "Buy oat milk", "done": true}));
    let medians: Vec<_> = (0..ROUNDS).map(|_| race(browser)).collect();
    println!("the median edit is on the other page after {medians:?} ms");
    assert!(medians.iter().any(|ms| *ms <= EDIT_LIMIT_MS), "{medians:?}");
}

/// How long edits take from page to page, in milliseconds: the median.
fn race(browser: &mut Browser) -> u64 {
    let title = |number| format!("race {number:02}");
    let mut took: Vec<_> = (0..EDITS)
        .map(|number| {
            let more = json!({"other": "b", "title": title(number)});
            browser.on("a", "race", more).as_u64().expect("ms")
        })
        .collect();
    for number in 0..EDITS {
        browser.on("b", "erase", json!({"title": title(number)}));
        browser.on("a", "gone", json!({"title": title(number)}));
    }
    took.sort_unstable();
    took[EDITS / 2]
}

/// What a person sees of the caches.
fn freshness_is_shown(browser: &mut Browser) {
    for level in [
        "minimizeLatency",
        "maxStaleness",
        "fullyConsistent",
        "cachedOnly",
    ] {
        browser.on("a", "level", json!({"level": level}));
        let source = browser.on(
            "a",
            "text",
            json!({"id": "source", "matches": "^(near|shared|origin)$"}),
        );
        let bound = browser.on("a", "text", json!({"id": "bound", "matches": "^\\d+ ms$"}));
        println!("{level}: {source}, at most {bound}");
    }
    browser.on("a", "level", json!({"level": "minimizeLatency"}));
    browser.on("a", "freshness", json!({"title": "Buy oat milk"}));
    browser.on("a", "text", json!({"id": "near-text", "matches": "%"}));
    browser.on("a", "text", json!({"id": "watchers", "matches": "^[1-9]"}));
    browser.on("a", "text", json!({"id": "breaker", "matches": "^closed$"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_see_what_happens() {
    let redis = redis();
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let (first, second) = (replica(&url), replica(&url));
    ready(&first).await;
    ready(&second).await;
    let plain = |service: &Tidemark| service.address.trim_start_matches("http://").to_owned();
    let front = Arc::new(Mutex::new(vec![plain(&first), plain(&second)]));
    let balancer = balance(front).await;

    let mut browser = Browser::start();
    for (page, address) in [("a", plain(&first)), ("b", plain(&second)), ("c", balancer)] {
        let opened = browser.on(page, "open", json!({"url": format!("http://{address}/")}));
        assert_eq!(opened["status"], 200);
        let policy = opened["policy"].as_str().expect("a policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        browser.on(page, "live", json!({}));
        assert_eq!(browser.on(page, "nameless", json!({})), json!([]));
    }
    edits_are_seen(&mut browser);
    freshness_is_shown(&mut browser);

    // Somebody edits the database by hand.
    let todos = mongo().todos("ui").await;
    let change = doc! {"$set": {"title": "Buy rye bread"}};
    let found = doc! {"title": "Buy oat milk"};
    let edited = todos.update_one(found, change).await.expect("edited");
    assert_eq!(edited.modified_count, 1);
    for page in ["a", "b", "c"] {
        browser.on(page, "has", json!({"title": "Buy rye bread", "done": true}));
    }
    if let Some(file) = std::env::var_os("TIDEMARK_TEST_SCREENSHOT") {
        for title in ["Water the plants", "Call Anna", "Read a book"] {
            browser.on("b", "add", json!({"title": title}));
            browser.on("a", "freshness", json!({"title": title}));
        }
        browser.on("a", "screenshot", json!({"file": file.to_string_lossy()}));
    }

    // Redis is gone: everything goes on.
    redis.kill();
    browser.on("a", "add", json!({"title": "without Redis"}));
    browser.on("b", "has", json!({"title": "without Redis"}));
    browser.on("b", "text", json!({"id": "breaker", "matches": "open"}));

    // A replica drains: the page goes on with the other.
    first.terminate();
    assert_eq!(first.exit_code(Duration::from_secs(30)).await, Some(0));
    browser.on("b", "add", json!({"title": "after the drain"}));
    browser.on("c", "has", json!({"title": "after the drain"}));
    browser.on("c", "live", json!({}));
    browser.on("c", "add", json!({"title": "from the other replica"}));
    browser.on("b", "has", json!({"title": "from the other replica"}));

    // A key is sent, and kept in memory only.
    assert_eq!(browser.on("b", "key", json!({"key": "not-a-secret"})), 0);
    browser.on("b", "has", json!({"title": "after the drain"}));
    let report = browser.ask(&json!({"do": "report", "page": "b"}));
    assert_eq!(report["credentials"], json!(["Bearer not-a-secret"]));
    assert_eq!(report["strangers"], json!([]));
    assert_eq!(report["errors"], json!([]));
}
