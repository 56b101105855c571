//! Without authentication, and settings that do not fit together.

use std::process::Command;

use super::*;

#[tokio::test]
async fn without_authentication_a_header_means_nothing() {
    let (service, mut client) = serving(&[]).await;
    assert_eq!(judged(&mut client, &[]).await, Ok(()));
    assert_eq!(judged(&mut client, &[b"Bearer x", b"y"]).await, Ok(()));
    assert!(reflect(&service, None).await.is_ok());
    assert_eq!(service.metric("tidemark_auth_off"), 0);
    let said = service.log("WARN").join("\n");
    assert!(!said.contains("authenticated"), "{said}");
}

#[tokio::test]
async fn an_open_address_without_authentication_is_warned_of() {
    let (service, _) = serving(&["--listen", "0.0.0.0:0"]).await;
    // The log is written by a thread, and read by another one.
    let warning = async |service: &Tidemark, text: &str| {
        eventually(text, Duration::from_secs(60), async || {
            let said = service.log("WARN").join("\n");
            said.contains(text).then_some(said)
        })
        .await
    };
    let said = warning(&service, "not authenticated (--auth off)").await;
    assert_eq!(
        said.matches("not authenticated (--auth off)").count(),
        1,
        "{said}"
    );
    assert_eq!(service.metric("tidemark_auth_off"), 1);
    let files = Folder::new();
    let path = files.write("keys", "# nobody");
    let args = [
        "--listen",
        "0.0.0.0:0",
        "--auth",
        "keys",
        "--keys-file",
        &path,
    ];
    let (service, _) = serving(&args).await;
    let said = warning(&service, "without TLS").await;
    assert!(!said.contains("--auth off"), "{said}");
    assert_eq!(service.metric("tidemark_auth_off"), 0);
}

#[test]
fn settings_that_do_not_fit_are_refused_at_start() {
    let files = Folder::new();
    let (empty, secret) = (
        files.write("empty", ""),
        files.write("secret", "user:ada = tmk_geheim"),
    );
    let none = files.0.join("none").display().to_string();
    let jwt = [
        "--auth",
        "jwt",
        "--jwt-issuer",
        "i",
        "--jwt-audience",
        "a",
        "--jwt-jwks-file",
    ];
    for (args, code, words) in [
        (
            &["--auth", "basic"][..],
            2,
            &["basic", "mtls, keys and jwt"][..],
        ),
        (&["--auth", "off,keys"], 2, &["off,keys"]),
        (&["--auth", "keys"], 2, &["needs keys-file"]),
        (
            &["--auth", "jwt"],
            2,
            &[
                "needs jwt-jwks-file",
                "needs jwt-issuer",
                "needs jwt-audience",
            ],
        ),
        (&["--auth", "mtls"], 2, &["needs tls-client-ca"]),
        (
            &["--keys-file", "x"],
            2,
            &["keys-file is set but auth does not name keys"],
        ),
        (
            &["--admin", "user:ada"],
            2,
            &["admin is set but auth is off"],
        ),
        (
            &["--auth", "keys", "--keys-file", "x", "--admin", "*"],
            2,
            &["every caller"],
        ),
        (&["--reflection", "admin"], 2, &["needs auth"]),
        (&["--reflection", "maybe"], 2, &["on, off and admin"]),
        (&["--tls-client-names", "a*b"], 2, &["tls-client-names"]),
        (
            &["--auth", "keys", "--keys-file", &none],
            1,
            &["keys-file", "No such file"],
        ),
        (&["--auth", "keys", "--keys-file", &empty], 1, &["is empty"]),
        (
            &["--auth", "keys", "--keys-file", &secret],
            1,
            &["line 1 has the key itself"],
        ),
        (
            &[&jwt[..], &[&empty]].concat(),
            1,
            &["jwt-jwks-file", "JSON Web Key Set"],
        ),
    ] {
        let dir = folder("data").display().to_string();
        let mut command = Command::new("timeout");
        command.args([
            "120",
            env!("CARGO_BIN_EXE_tidemark"),
            "serve",
            "--listen",
            "127.0.0.1:0",
        ]);
        command
            .args(["--metrics-listen", "off", "--data-dir", &dir])
            .args(args);
        let out = command.output().expect("run");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{args:?}: {said}"
        );
        assert!(!said.contains("geheim"), "{said}");
    }
}
