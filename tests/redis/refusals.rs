//! Servers that refuse: each is one line a minute with Redis' own words, counted
//! by kind, without a password in it; and reads go on while writes are refused.

use std::time::Duration;

use rcgen::generate_simple_self_signed;
use tidemark::{
    tier::{redis::RedisOptions, shared::Shared},
    tls::ClientFiles,
};

use crate::{
    common::{Log, RECOVERY, Tier, key, keys},
    support::{Server, eventually, folder, free_port, redis, redis_cli, redis_with},
};

/// A password as they are: with characters that mean something in a URL.
const PASSWORD: &str = "p/a@s%s:w";
const IN_URL: &str = "p/a@s%25s:w";

fn trusting() -> RedisOptions {
    let signed = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca = folder("ca").join("ca.pem");
    std::fs::write(&ca, signed.cert.pem()).expect("written");
    RedisOptions {
        tls: ClientFiles {
            ca: Some(ca),
            identity: None,
        },
        ..RedisOptions::default()
    }
}

/// One line, with these words, and no password; and the tier is down.
async fn is_refused(url: &str, words: &str, kind: &'static str) {
    let log = Log::start();
    let tier = Tier::start_with(url, trusting());
    log.warned(words).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Tried again and counted.
    tier.errors_above(kind, 1).await;
    let text = log.text();
    let of_kind = format!("kind=\"{kind}\"");
    let (expected, others): (Vec<_>, Vec<_>) = log
        .warnings()
        .into_iter()
        .partition(|line| line.contains(&of_kind));
    assert_eq!(expected.len(), 1, "{text}");
    // On a busy machine a connection may take too long.
    assert!(
        others.iter().all(|line| line.contains("kind=\"timeout\"")),
        "{text}"
    );
    assert!(
        !text.contains(PASSWORD) && !text.contains("wrong-one"),
        "{text}"
    );
    assert!(!tier.tier.is_up());
}

fn with_password(more: &[&str]) -> Server {
    let args = [&["--requirepass", PASSWORD], more].concat();
    redis_with(free_port(), &args)
}

#[tokio::test]
async fn a_wrong_password() {
    let node = with_password(&[]);
    let at = format!("127.0.0.1:{}", node.port);
    is_refused(&format!("redis://:wrong-one@{at}"), "WRONGPASS", "auth").await;
    is_refused(&format!("redis://{at}"), "NOAUTH", "auth").await;
    let tier = Tier::ready(&format!("redis://:{IN_URL}@{at}")).await;
    tier.store(&keys(1), RECOVERY).await;
}

#[tokio::test]
async fn nobody_there() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    is_refused(&url, "Connection refused", "connection").await;
    let url = format!("redis-cluster://u:{IN_URL}@127.0.0.1:{}", free_port());
    is_refused(&url, "Connection refused", "connection").await;
}

#[tokio::test]
async fn tls_against_a_plain_server() {
    let node = redis();
    let url = format!("rediss://127.0.0.1:{}", node.port);
    is_refused(&url, "does the server speak TLS?", "timeout").await;
}

#[tokio::test]
async fn a_user_without_the_right_to_ask_for_slots() {
    let node = redis_with(free_port(), &["--cluster-enabled", "yes"]);
    redis_cli(node.port, &["cluster", "addslotsrange", "0", "16383"]);
    redis_cli(
        node.port,
        &[
            "acl",
            "setuser",
            "limited",
            "on",
            &format!(">{PASSWORD}"),
            "~*",
            "+get",
            "+mget",
            "+set",
        ],
    );
    let url = format!("redis-cluster://limited:{IN_URL}@127.0.0.1:{}", node.port);
    is_refused(&url, "NOPERM", "noperm").await;
    redis_cli(node.port, &["acl", "setuser", "limited", "+cluster|slots"]);
    Tier::ready(&url).await.store(&keys(5), RECOVERY).await;
}

/// RESP2 only: Redis before 6, and some proxies. Its answer to HELLO repeats the
/// arguments, with the password.
#[tokio::test]
async fn a_server_without_hello_is_spoken_to_in_resp2() {
    let node = with_password(&["--rename-command", "HELLO", ""]);
    let log = Log::start();
    let right = Tier::ready(&format!("redis://:{IN_URL}@127.0.0.1:{}", node.port)).await;
    right.store(&keys(3), RECOVERY).await;
    right.has_together(&keys(3), 3).await;
    let url = format!("redis://:wrong-one@127.0.0.1:{}", node.port);
    is_refused(&url, "WRONGPASS", "auth").await;
    assert!(!log.text().contains(PASSWORD));
}

#[tokio::test]
async fn a_full_redis_is_still_read() {
    let node = redis();
    let log = Log::start();
    let tier = Tier::ready(&format!("redis://127.0.0.1:{}", node.port)).await;
    tier.store(&keys(5), RECOVERY).await;
    redis_cli(node.port, &["config", "set", "maxmemory", "1"]);
    for n in 5..50 {
        tier.put(&key(n));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.warned("OOM").await;
    eventually("the breaker of writes", RECOVERY, async || {
        (tier.nodes("writes") == 0).then_some(())
    })
    .await;
    tier.has(&keys(5), 5).await;
    tier.uses(1, 0).await;
    // An alert needs errors for as long as it lasts, also without traffic.
    tier.errors_above("oom", tier.errors("oom")).await;
    assert_eq!(log.warnings_of_faults().len(), 1, "{}", log.text());
    redis_cli(node.port, &["config", "set", "maxmemory", "0"]);
    tier.store(&keys(50), RECOVERY).await;
}

#[tokio::test]
async fn rights_to_read_and_to_write_are_judged_apart() {
    let node = redis();
    let user = |rights: &[&str]| {
        let user = ["acl", "setuser", "app", "reset", "on", ">pw", "~tidemark:*"];
        redis_cli(node.port, &[&user[..], rights].concat());
    };
    let url = format!("redis://app:pw@127.0.0.1:{}", node.port);
    Tier::ready(&format!("redis://127.0.0.1:{}", node.port))
        .await
        .store(&keys(3), RECOVERY)
        .await;

    user(&["+get", "+mget"]);
    let log = Log::start();
    let tier = Tier::ready(&url).await;
    log.warned("NOPERM").await;
    tier.has(&keys(3), 3).await;
    tier.uses(1, 0).await;
    user(&["+get", "+mget", "+set"]);
    tier.store(&keys(6), RECOVERY).await;

    user(&["+set"]);
    eventually("the breaker of reads", RECOVERY, async || {
        tier.get(&key(0)).await;
        (tier.nodes("reads") == 0).then_some(())
    })
    .await;
    tier.uses(0, 1).await;
    tier.errors_above("noperm", 1).await;
    user(&["+get", "+mget", "+set"]);
    tier.store(&keys(6), RECOVERY).await;
}

#[tokio::test]
async fn a_rotated_password_works_again_when_it_is_right_again() {
    let node = with_password(&[]);
    let log = Log::start();
    let tier = Tier::ready(&format!("redis://:{IN_URL}@127.0.0.1:{}", node.port)).await;
    tier.store(&keys(1), RECOVERY).await;
    let admin = |password: &str, args: &[&str]| {
        let auth = ["--no-auth-warning", "-a", password];
        redis_cli(node.port, &[&auth[..], args].concat())
    };
    admin(PASSWORD, &["config", "set", "requirepass", "another"]);
    admin("another", &["client", "kill", "type", "normal"]);
    log.warned("WRONGPASS").await;
    tier.becomes_up(false).await;
    admin("another", &["config", "set", "requirepass", PASSWORD]);
    tier.store(&keys(1), RECOVERY).await;
    assert!(!log.text().contains(PASSWORD), "{}", log.text());
}
