//! Floods of credentials that are wrong.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use h2::client::Builder;
use prost::Message as _;
use serde_json::json;

use super::{
    issuer::{Issuer, claims, claims_with, key_set},
    keys::new_key,
    *,
};
use crate::raw::{ATTACKER, Peer, framed, status};

/// Calls at once of one connection.
const AT_ONCE: usize = 200;
/// UNAUTHENTICATED.
const UNKNOWN: i32 = 16;

/// Keys and tokens that are wrong in each way, thousands of them: each is refused, a known
/// caller is served meanwhile, and the log does not grow with them.
#[tokio::test]
async fn wrong_credentials_in_great_number_cost_little() {
    let files = Folder::new();
    let (issuer, stranger) = (Issuer::p256("e"), Issuer::p256("e"));
    let jwks = files.write("jwks.json", &key_set(&[issuer.jwk()]));
    let (key, line) = new_key("user:ada");
    let keys = files.write("keys", &line);
    let dir = folder("data").display().to_string();
    let lines = Arc::new(AtomicUsize::new(0));
    let logged = Arc::clone(&lines);
    let more = [
        "--data-dir",
        &dir,
        "--admin",
        "user:ada",
        "--audit-log",
        "stderr",
    ];
    let args = [&keys_and_tokens(&keys, &jwks)[..], &more].concat();
    let service = Tidemark::start_logged(&args, move |_| {
        logged.fetch_add(1, Relaxed);
    });
    let (service, mut client) = ready(service).await;
    let before = (lines.load(Relaxed), service.peak_memory().expect("alive"));
    let began = std::time::Instant::now();
    let unknown_kid = json!({"alg": "ES256", "kid": "other"});
    let credential = |round: usize, n: usize| match round {
        0 => Some(format!("tmk_{n:0>43}")),
        // Each with another signature: nothing is remembered of them.
        1 => Some(stranger.token(&claims_with(json!({"jti": n})))),
        2 => Some(issuer.token_with(&unknown_kid, &claims_with(json!({"jti": n})))),
        3 => Some(format!("{}.x.{n}", "a".repeat(7000))),
        4 => Some(issuer.token(&claims_with(json!({"exp": 1, "jti": n})))),
        _ => None,
    };
    let flood = async {
        let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
        for round in 0..6 {
            for burst in 0..3 {
                let mut calls = Vec::new();
                for n in 0..AT_ONCE {
                    calls.push(call(&mut peer, credential(round, burst * AT_ONCE + n)).await);
                }
                for call in calls {
                    assert_eq!(status(call).await.expect("a status"), UNKNOWN, "{round}");
                }
            }
        }
    };
    let honest = async {
        for n in 0.. {
            let credential = match n % 2 {
                0 => key.clone(),
                _ => issuer.token(&claims()),
            };
            assert_eq!(judged_bearer(&mut client, &credential).await, Ok(()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = honest => unreachable!("it goes on"),
    }
    let sent = 6 * 3 * AT_ONCE;
    let refused = service.metric("tidemark_auth_refusals_total");
    assert_eq!(refused, sent as u64);
    let (after, seconds) = (lines.load(Relaxed) - before.0, began.elapsed().as_secs());
    // A hundred a second stand in the audit log.
    let most = 100 * (usize::try_from(seconds).expect("short") + 2) + 20;
    assert!(after < most, "{after} lines in {seconds} s");
    let more = service
        .peak_memory()
        .expect("alive")
        .saturating_sub(before.1);
    assert!(more < 64 << 20, "{more} bytes more");
}

/// Sends a call with this credential.
async fn call(peer: &mut Peer, credential: Option<String>) -> h2::client::ResponseFuture {
    let mut request = http::Request::post("http://tidemark/todo.v1.TodoService/ListTodos")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(credential) = credential {
        request = request.header("authorization", format!("Bearer {credential}"));
    }
    let (response, mut stream) = peer.begin_with(request, false).await.expect("sent");
    let message = framed(&a_page().encode_to_vec(), false);
    // The service may have answered already.
    let _ = stream.send_data(message, true);
    response
}
