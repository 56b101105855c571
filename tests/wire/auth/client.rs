//! The client commands with a credential.

use std::process::{Command, Output};

use super::*;

fn run(service: &Tidemark, args: &[&str], envs: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidemark"))
        .args(args)
        .args(["--server", service.address.trim_start_matches("http://")])
        .envs(envs.iter().copied())
        .output()
        .expect("run")
}

#[tokio::test]
async fn commands_send_a_key_from_a_file_or_the_environment() {
    let files = Folder::new();
    let (service, _, key) = serving_a_key(&files, &[]).await;
    let key_file = files.write("ada.key", &format!("{key}\n"));
    let add = ["add", "home", "Buy milk"];
    let by_file = run(
        &service,
        &[&add[..], &["--api-key-file", &key_file]].concat(),
        &[],
    );
    assert!(by_file.status.success(), "{by_file:?}");
    for (args, envs) in [
        (
            &["list", "home"][..],
            &[("TIDEMARK_API_KEY", key.as_str())][..],
        ),
        (&["list", "home"], &[("TIDEMARK_API_KEY_FILE", &key_file)]),
        (&["list", "home", "--token-file", &key_file], &[]),
    ] {
        let out = run(&service, args, envs);
        assert!(out.status.success(), "{out:?}");
        assert!(
            String::from_utf8_lossy(&out.stdout).contains("Buy milk"),
            "{out:?}"
        );
    }
    let without = run(&service, &["list", "home"], &[]);
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(
        !without.status.success() && said.contains("CALLER_UNKNOWN"),
        "{said}"
    );
    let empty = files.write("empty", "\n");
    let out = run(&service, &["list", "home", "--api-key-file", &empty], &[]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.code() == Some(2) && said.contains("neither an API key"),
        "{said}"
    );
}
