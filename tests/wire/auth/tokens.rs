//! JSON Web Tokens.

use ring::hmac;
use serde_json::{Value, json};

use super::{
    issuer::{Issuer, base64, claims, claims_with, key_set, now, unsigned},
    keys::new_key,
    *,
};

async fn serving_tokens(jwks: &str, more: &[&str]) -> (Tidemark, Client) {
    let args = [
        "--auth",
        "jwt",
        "--jwt-jwks-file",
        jwks,
        "--jwt-issuer",
        ISSUER,
        "--jwt-audience",
        "tidemark",
        // A list of nobody can be watched by administrators.
        "--admin",
        "user:ada",
    ];
    serving(&[&args, more].concat()).await
}

#[tokio::test]
async fn tokens_of_each_algorithm_are_known() {
    let files = Folder::new();
    let issuers = [Issuer::rsa("r"), Issuer::p256("e"), Issuer::ed25519("d")];
    let keys: Vec<_> = issuers.iter().map(Issuer::jwk).collect();
    let path = files.write("jwks.json", &key_set(&keys));
    let (_service, mut client) = serving_tokens(&path, &[]).await;
    for issuer in &issuers {
        let algorithm = issuer.algorithm();
        let judge = async |client: &mut Client, changes: Value| {
            judged_bearer(client, &issuer.token(&claims_with(changes))).await
        };
        for right in [
            json!({}),
            json!({"nbf": null}),
            json!({"aud": ["other", "tidemark"]}),
            json!({"groups": ["dev", "ops"]}),
            json!({"groups": null}),
            json!({"exp": now() as f64 + 60.5}),
            // Within the leeway.
            json!({"exp": now() - 5}),
            json!({"nbf": now() + 5}),
        ] {
            let shown = right.to_string();
            assert_eq!(
                judge(&mut client, right).await,
                Ok(()),
                "{algorithm} {shown}"
            );
        }
        for (wrong, problem) in [
            (json!({"exp": now() - 60}), "expired"),
            (json!({"exp": 0}), "expired"),
            (json!({"exp": -1}), "expired"),
            (json!({"nbf": now() + 120}), "not_yet_valid"),
            (json!({"aud": "other"}), "audience"),
            (json!({"aud": ["other"]}), "audience"),
            (json!({"aud": null}), "audience"),
            (json!({"iss": "https://other.example"}), "issuer"),
            (json!({"iss": [ISSUER]}), "issuer"),
            (json!({"iss": null}), "issuer"),
            (json!({"exp": null}), "malformed"),
            (json!({"exp": "tomorrow"}), "malformed"),
            (json!({"exp": 1e300}), "malformed"),
            (json!({"nbf": "now"}), "malformed"),
            (json!({"sub": null}), "malformed"),
            (json!({"sub": 7}), "malformed"),
            (json!({"sub": ""}), "malformed"),
            (json!({"sub": "*"}), "malformed"),
            (json!({"sub": "group:ops"}), "malformed"),
            (json!({"sub": "x".repeat(257)}), "malformed"),
            (json!({"groups": "ops"}), "malformed"),
            (json!({"groups": [1]}), "malformed"),
            (json!({"groups": vec!["g"; 65]}), "malformed"),
        ] {
            let shown = wrong.to_string();
            let judged = judge(&mut client, wrong).await;
            assert_eq!(judged, why(problem), "{algorithm} {shown}");
        }
    }
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let files = Folder::new();
    let (rsa, p256, other) = (Issuer::rsa("r"), Issuer::p256("e"), Issuer::p256("e"));
    let oct = json!({"kty": "oct", "k": base64("secret"), "kid": "o", "alg": "HS256"});
    let mut encrypting = other.jwk();
    encrypting["kid"] = "enc".into();
    encrypting["use"] = "enc".into();
    let mut other_alg = other.jwk();
    other_alg["kid"] = "alg".into();
    other_alg["alg"] = "ES384".into();
    let keys = [rsa.jwk(), p256.jwk(), oct, encrypting, other_alg];
    let path = files.write("jwks.json", &key_set(&keys));
    let (_service, mut client) = serving_tokens(&path, &[]).await;
    let hmac = |secret: &[u8], kid: &str| {
        let message = unsigned(&json!({"alg": "HS256", "kid": kid}), &claims());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{message}.{}", base64(hmac::sign(&key, message.as_bytes())))
    };
    let none = unsigned(&json!({"alg": "none"}), &claims());
    let header = |value: Value| p256.token_with(&value, &claims());
    let right = p256.token(&claims());
    let (message, signature) = right.rsplit_once('.').expect("a token");
    let tampered = {
        let claims = claims_with(json!({"sub": "user:root"}));
        let header = json!({"alg": "ES256", "kid": "e"});
        format!("{}.{signature}", unsigned(&header, &claims))
    };
    for (token, problem) in [
        (format!("{none}."), "signature"),
        (format!("{none}.{signature}"), "signature"),
        (hmac(&rsa.modulus(), "r"), "signature"),
        (hmac(rsa.jwk().to_string().as_bytes(), "r"), "signature"),
        (hmac(b"secret", "o"), "signature"),
        (tampered, "signature"),
        (other.token(&claims()), "signature"),
        (format!("{message}."), "signature"),
        (header(json!({"alg": "ES384", "kid": "e"})), "signature"),
        (header(json!({"alg": "RS256", "kid": "e"})), "key"),
        (header(json!({"alg": "RS256", "kid": "r"})), "signature"),
        (header(json!({"alg": "ES256", "kid": "unknown"})), "key"),
        (
            other.token_with(&json!({"alg": "ES256", "kid": "enc"}), &claims()),
            "key",
        ),
        (
            other.token_with(&json!({"alg": "ES256", "kid": "alg"}), &claims()),
            "key",
        ),
        (
            header(json!({"alg": "ES256", "kid": "e", "crit": ["exp"]})),
            "malformed",
        ),
        (header(json!({"kid": "e"})), "malformed"),
        (header(json!(["ES256"])), "malformed"),
        (message.into(), "malformed"),
        (format!("{right}.x"), "malformed"),
        (format!("{message}.{signature}="), "malformed"),
        ("a.b.c".into(), "malformed"),
        ("..".into(), "malformed"),
        (".".into(), "malformed"),
        ("eyJ".into(), "malformed"),
    ] {
        let judged = judged_bearer(&mut client, &token).await;
        assert_eq!(judged, why(problem), "{token}");
    }
    // Without an id: the only key of the algorithm.
    let without = p256.token_with(&json!({"alg": "ES256"}), &claims());
    assert_eq!(judged_bearer(&mut client, &without).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &right).await, Ok(()));
}

#[tokio::test]
async fn rotated_keys_are_taken_and_those_gone_are_not() {
    let files = Folder::new();
    let (old, new) = (Issuer::p256("1"), Issuer::ed25519("2"));
    let path = files.write("jwks.json", &key_set(&[old.jwk()]));
    let (service, mut client) = serving_tokens(&path, &[]).await;
    let (by_old, by_new) = (old.token(&claims()), new.token(&claims()));
    assert_eq!(judged_bearer(&mut client, &by_old).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &by_new).await, why("key"));
    files.write("jwks.json", &key_set(&[old.jwk(), new.jwk()]));
    reloaded(&service, "loaded", 0).await;
    assert_eq!(judged_bearer(&mut client, &by_old).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &by_new).await, Ok(()));
    for (broken, failures) in [("{\"keys\": []}", 0), ("{", 1)] {
        files.write("jwks.json", broken);
        reloaded(&service, "failed", failures).await;
        assert_eq!(judged_bearer(&mut client, &by_new).await, Ok(()));
    }
    let stream = watch(&mut client, &by_old).await;
    files.write("jwks.json", &key_set(&[new.jwk()]));
    reloaded(&service, "loaded", 1).await;
    assert_eq!(judged_bearer(&mut client, &by_old).await, why("key"));
    assert_eq!(judged_bearer(&mut client, &by_new).await, Ok(()));
    assert_eq!(end_of(stream).await, why("key"));
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let files = Folder::new();
    let issuer = Issuer::p256("1");
    let path = files.write("jwks.json", &key_set(&[issuer.jwk()]));
    let (_service, mut client) = serving_tokens(&path, &[]).await;
    // Time enough to begin, also on a busy machine.
    let expires = now() + 10;
    let token = issuer.token(&claims_with(json!({"exp": expires})));
    let stream = watch(&mut client, &token).await;
    let lasting = watch(&mut client, &issuer.token(&claims())).await;
    assert_eq!(end_of(stream).await, why("expired"));
    assert!(
        (expires..expires + 20).contains(&now()),
        "{}",
        now() - expires
    );
    let still = tokio::time::timeout(Duration::from_millis(500), end_of(lasting)).await;
    assert!(still.is_err(), "the stream of another token ended");
}

#[tokio::test]
async fn another_claim_may_name_the_caller_and_groups_make_administrators() {
    let files = Folder::new();
    let issuer = Issuer::ed25519("1");
    let path = files.write("jwks.json", &key_set(&[issuer.jwk()]));
    let more = [
        "--jwt-principal-claim",
        "email",
        "--admin",
        "group:ops",
        "--reflection",
        "admin",
    ];
    let (service, mut client) = serving_tokens(&path, &more).await;
    assert_eq!(
        judged_bearer(&mut client, &issuer.token(&claims())).await,
        why("malformed")
    );
    let dev = claims_with(json!({"email": "ada@todos.example", "groups": ["dev"]}));
    let refusal = refused(reflect(&service, Some(&issuer.token(&dev))).await);
    assert_eq!(refusal.0, Code::PermissionDenied);
    assert_eq!(refusal.2["principal"], "ada@todos.example");
    let ops = claims_with(json!({"email": "ada@todos.example", "groups": ["dev", "ops"]}));
    assert!(reflect(&service, Some(&issuer.token(&ops))).await.is_ok());
}

#[tokio::test]
async fn keys_and_tokens_together_are_told_by_their_form() {
    let files = Folder::new();
    let issuer = Issuer::p256("1");
    let jwks = files.write("jwks.json", &key_set(&[issuer.jwk()]));
    let (key, line) = new_key("user:ada");
    let keys = files.write("keys", &line);
    let (_service, mut client) = serving(&keys_and_tokens(&keys, &jwks)).await;
    let token = issuer.token(&claims());
    // One connection, two callers in turns.
    for _ in 0..3 {
        assert_eq!(judged_bearer(&mut client, &key).await, Ok(()));
        assert_eq!(judged_bearer(&mut client, &token).await, Ok(()));
        let expired = issuer.token(&claims_with(json!({"exp": now() - 60})));
        assert_eq!(judged_bearer(&mut client, &expired).await, why("expired"));
    }
    let both = [format!("Bearer {key}"), format!("Bearer {token}")];
    let both: Vec<_> = both.iter().map(String::as_bytes).collect();
    assert_eq!(judged(&mut client, &both).await, why("malformed"));
}

/// Many calls at once with one new token: its signature is checked once, whatever connections
/// they come on. A wrong one is checked at each call.
#[tokio::test]
async fn a_new_token_of_many_calls_is_checked_once() {
    let files = Folder::new();
    let (issuer, stranger) = (Issuer::p256("e"), Issuer::p256("e"));
    let path = files.write("jwks.json", &key_set(&[issuer.jwk()]));
    let (service, _client) = serving_tokens(&path, &[]).await;
    let checked = || service.metric("tidemark_auth_verifications_total");
    let calls = async |token: &str, right: bool| {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let client = connect(&service).await;
            for _ in 0..40 {
                let (mut client, token) = (client.clone(), token.to_owned());
                all.spawn(async move { judged_bearer(&mut client, &token).await.is_ok() });
            }
        }
        assert!(all.join_all().await.iter().all(|known| *known == right));
    };
    let before = checked();
    calls(&issuer.token(&claims()), true).await;
    assert_eq!(checked(), before + 1);
    calls(&issuer.token(&claims_with(json!({"jti": "another"}))), true).await;
    assert_eq!(checked(), before + 2);
    calls(&stranger.token(&claims()), false).await;
    assert!(checked() > before + 2);
    // 8 KiB are too much for a header; nothing is checked.
    let before = checked();
    let long = claims_with(json!({"jti": "x".repeat(8 << 10)}));
    calls(&issuer.token(&long), false).await;
    assert_eq!(checked(), before);
}

/// Files of keys that are too large, or have too many: they are not used, the one before
/// stays in force, and the memory is little. A token of an unknown key asks nobody.
#[tokio::test]
async fn huge_files_of_keys_change_nothing() {
    let files = Folder::new();
    let issuer = Issuer::p256("e");
    let right = key_set(&[issuer.jwk()]);
    let path = files.write("jwks.json", &right);
    let (service, mut client) = serving_tokens(&path, &[]).await;
    let before = service.peak_memory().expect("alive");
    let failed = || service.metric("tidemark_auth_reloads_total{kind=\"failed\"}");
    let jwk = |kid: usize| {
        let mut jwk = issuer.jwk();
        jwk["kid"] = json!(kid.to_string());
        jwk
    };
    let many: Vec<_> = (0..10_000).map(jwk).collect();
    let some: Vec<_> = many[..1000].to_vec();
    let large = format!("{right}{}", " ".repeat(8 << 20));
    for (n, wrong) in [key_set(&many), key_set(&some), large]
        .into_iter()
        .enumerate()
    {
        files.write("jwks.json", &wrong);
        eventually("the failure", Duration::from_secs(60), async || {
            (failed() > n as u64).then_some(())
        })
        .await;
        for m in 0..50 {
            let stranger = issuer.token_with(
                &json!({"alg": "ES256", "kid": format!("{n}-{m}")}),
                &claims(),
            );
            assert_eq!(judged_bearer(&mut client, &stranger).await, why("key"));
        }
        assert_eq!(
            judged_bearer(&mut client, &issuer.token(&claims())).await,
            Ok(())
        );
    }
    let more = service.peak_memory().expect("alive").saturating_sub(before);
    assert!(more < 32 << 20, "{more} bytes more");
}
