//! Settings from outside: names, empty values, secrets, the first lines.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use tidemark::config::SETTINGS;

use super::{binary, stderr, stdout};
use crate::{
    client::*,
    support::{Tidemark, eventually, folder, mongo, redis_cluster},
};

#[test]
fn unknown_and_empty_variables_are_refused() {
    for (name, value, words) in [
        (
            "TIDEMARK_MONGO_URI",
            "mongodb://h",
            &["TIDEMARK_MONGO_URI", "TIDEMARK_MONGODB_URI"][..],
        ),
        (
            "TIDEMARK_REDIS_URI",
            "redis://h",
            &["TIDEMARK_REDIS_URI", "TIDEMARK_REDIS_URL"],
        ),
        (
            "TIDEMARK_MONGODB_URI",
            "",
            &["TIDEMARK_MONGODB_URI", "empty"],
        ),
        (
            "TIDEMARK_REDIS_URL",
            " \n",
            &["TIDEMARK_REDIS_URL", "empty"],
        ),
        ("TIDEMARK_LISTEN", "", &["TIDEMARK_LISTEN", "empty"]),
    ] {
        for command in [&["serve"][..], &["import", "/none.jsonl"]] {
            let dir = folder("unused");
            let out = binary()
                .args(command)
                .env(name, value)
                .current_dir(&dir)
                .output()
                .expect("run");
            let said = stderr(&out);
            assert_eq!(out.status.code(), Some(2), "{name}={value:?}: {said}");
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert_eq!(fs::read_dir(dir).expect("a directory").count(), 0);
        }
    }
    // What Kubernetes sets for a Service called tidemark.
    let out = binary()
        .args(["serve", "--print-config"])
        .env("TIDEMARK_SERVICE_HOST", "10.0.0.1")
        .env("TIDEMARK_PORT_50051_TCP", "tcp://10.0.0.1:50051")
        .output()
        .expect("run");
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
}

#[test]
fn what_is_printed_can_be_used_as_a_config_file() {
    let printed = |args: &[&str]| {
        let out = binary()
            .args(["serve", "--print-config"])
            .args(args)
            .env("TIDEMARK_LIST_GRACE", " 1s\n")
            .output()
            .expect("run");
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        stdout(&out)
    };
    let values = |text: &str| {
        let table: toml::Table = text.parse().expect("TOML");
        let mut values: BTreeMap<_, _> = table.into_iter().collect();
        assert_eq!(values.remove("list-grace"), Some("1s".into()));
        values
    };
    let first = printed(&[
        "--redis-url",
        "redis-cluster://h:7000",
        "--cache-epoch",
        "7",
    ]);
    let file = folder("config").join("tidemark.toml");
    fs::write(&file, &first).expect("written");
    let again = printed(&["--config", file.to_str().expect("a path")]);
    assert_eq!(values(&first), values(&again));
    assert!(
        again.contains("list-grace = \"1s\" # environment"),
        "{again}"
    );
}

#[test]
fn a_list_may_be_an_array_in_the_file() {
    let file = folder("config").join("tidemark.toml");
    let name = file.to_str().expect("a path");
    let lists = "auth = [\"keys\"]\nkeys-file = \"/etc/keys\"\n\
                 admin = [\"user:ada\", \"group:ops\"]\n\
                 cors-allow-origins = [\"https://a.example\", \"https://b.example\"]\n";
    fs::write(&file, lists).expect("written");
    let out = binary()
        .args(["serve", "--print-config", "--config", name])
        .output()
        .expect("run");
    let text = stdout(&out);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    for line in [
        "auth = \"keys\" #",
        "admin = \"user:ada,group:ops\" #",
        "cors-allow-origins = \"https://a.example,https://b.example\" #",
    ] {
        assert!(text.contains(line), "{text}");
    }
    fs::write(&file, "admin = [1]\nlisten = [\"127.0.0.1:0\"]\n").expect("written");
    let out = binary()
        .args(["serve", "--print-config", "--config", name])
        .output()
        .expect("run");
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(
        said.contains("admin must be a string or a number, or an array of strings"),
        "{said}"
    );
    assert!(
        said.contains("listen must be a string or a number; "),
        "{said}"
    );
}

/// Examples of the settings that have no default, for docs/tidemark.toml.
const EXAMPLES: [(&str, &str); 15] = [
    ("tls-cert", "/etc/tidemark/tls.crt"),
    ("tls-key", "/etc/tidemark/tls.key"),
    ("tls-client-ca", "/etc/tidemark/clients.crt"),
    ("tls-client-names", "spiffe://todos.example/ns/web/*"),
    ("admin", "user:ada"),
    ("keys-file", "/etc/tidemark/keys"),
    ("jwt-jwks-file", "/etc/tidemark/jwks.json"),
    ("jwt-issuer", "https://issuer.example"),
    ("jwt-audience", "tidemark"),
    ("mongodb-uri", "mongodb://localhost/todos?replicaSet=rs0"),
    ("redis-url", "rediss-cluster://localhost:7000"),
    ("redis-tls-ca", "/etc/tidemark/redis-ca.crt"),
    ("redis-tls-cert", "/etc/tidemark/redis.crt"),
    ("redis-tls-key", "/etc/tidemark/redis.key"),
    ("redis-mac-key-file", "/etc/tidemark/redis-mac.key"),
];

/// Columns of a comment in docs/tidemark.toml.
const COMMENT_COLUMNS: usize = 90;

/// docs/tidemark.toml: every setting, as a comment.
fn sample_file() -> String {
    let mut text = String::from(
        "# The settings of `tidemark serve` with their defaults, and with an example where there is\n\
         # none. Remove the `#` before a setting to change it:\n\
         #   tidemark serve --config tidemark.toml --print-config\n\
         # Flags (--list-grace) and environment variables (TIDEMARK_LIST_GRACE) override the file.\n",
    );
    for setting in &SETTINGS {
        let mut line = String::from("\n#");
        for word in setting.help.split(' ') {
            if line.trim_start().chars().count() + 1 + word.chars().count() > COMMENT_COLUMNS {
                text += &line;
                line = String::from("\n#");
            }
            line += &format!(" {word}");
        }
        text += &line;
        let example = EXAMPLES.iter().find(|(name, _)| *name == setting.name);
        let value = match (setting.default, example) {
            ("", Some((_, value))) => format!("\"{value}\""),
            ("", None) => panic!("{} needs a line in EXAMPLES", setting.name),
            (number, _) if number.parse::<u64>().is_ok() => number.to_owned(),
            (text, _) => format!("\"{text}\""),
        };
        text += &format!("\n#{} = {value}\n", setting.name);
    }
    text
}

/// Made anew by `UPDATE_DOCS=1 cargo test --test wire -- the_sample_file`.
#[test]
fn the_sample_file_has_every_setting_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tidemark.toml");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, sample_file()).expect("written");
    }
    let committed = fs::read_to_string(path).expect("docs/tidemark.toml");
    assert_eq!(
        committed,
        sample_file(),
        "see the comment above this test for how to make it anew"
    );
    let defaults = values_without_sources(&printed(&[]));
    assert_eq!(
        values_without_sources(&printed(&["--config", path])),
        defaults
    );
    // Each default is written as the file needs it, and so is each example.
    let is_default = |line: &str| {
        let name = line.split(' ').next().unwrap_or_default();
        !EXAMPLES.iter().any(|(example, _)| *example == name)
    };
    let settings: Vec<_> = committed
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
        .collect();
    assert_eq!(settings.len(), SETTINGS.len());
    let all: toml::Table = settings.join("\n").parse().expect("TOML");
    assert_eq!(all.len(), SETTINGS.len());
    let file = folder("config").join("tidemark.toml");
    let of_defaults = settings.iter().copied().filter(|line| is_default(line));
    fs::write(&file, of_defaults.collect::<Vec<_>>().join("\n")).expect("written");
    let file = file.to_str().expect("a path");
    assert_eq!(
        values_without_sources(&printed(&["--config", file])),
        defaults
    );
    let with_auth = settings
        .join("\n")
        .replace("auth = \"off\"", "auth = \"mtls,keys,jwt\"");
    fs::write(file, with_auth).expect("written");
    assert!(printed(&["--config", file]).contains("https://issuer.example"));
}

/// What `--print-config` prints with these arguments.
fn printed(args: &[&str]) -> String {
    let out = binary()
        .args(["serve", "--print-config"])
        .args(args)
        .output()
        .expect("run");
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    stdout(&out)
}

/// The settings of a text in TOML; the comments, with the sources, are left out.
fn values_without_sources(text: &str) -> BTreeMap<String, toml::Value> {
    let table: toml::Table = text.parse().expect("TOML");
    table.into_iter().collect()
}

#[tokio::test]
async fn no_secret_is_printed_or_logged() {
    for (flag, url) in [
        (
            "--redis-url",
            "redis-sentinel://u:geheim@127.0.0.1:1?sentinelPassword=geheim&sentinelServiceName=main",
        ),
        ("--redis-url", "redis://:geh/eim@127.0.0.1:1"),
        ("--redis-url", "http://u:geheim@h"),
        ("--mongodb-uri", "mongodb://me:geh/eim@127.0.0.1:1/todos"),
        (
            "--mongodb-uri",
            "mongodb://me:geheim@127.0.0.1:1/todos?authMechanism=geheim",
        ),
        (
            "--mongodb-uri",
            "mongodb://me:geheim@127.0.0.1:1/todos?serverSelectionTimeoutMS=200&tlsCertificateKeyFilePassword=geheim",
        ),
        ("--mongodb-uri", "me:geheim@h"),
        ("--listen", "redis://:geheim@h"),
    ] {
        for more in [&[][..], &["--print-config"]] {
            let dir = folder("secrets").display().to_string();
            let args = ["5", env!("CARGO_BIN_EXE_tidemark"), "serve", flag, url];
            let out = std::process::Command::new("timeout")
                .args(args)
                .args(if flag == "--mongodb-uri" {
                    vec![]
                } else {
                    vec!["--data-dir", &dir]
                })
                .args(if flag == "--listen" {
                    vec![]
                } else {
                    vec!["--listen", "127.0.0.1:0"]
                })
                .args(["--metrics-listen", "off"])
                .args(more)
                .env("RUST_LOG", "debug,fred=debug,mongodb=debug")
                .output()
                .expect("run");
            let said = format!("{}{}", stdout(&out), stderr(&out));
            assert!(
                !said.contains("geheim") && !said.contains("eim@"),
                "{flag} {url}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn the_first_lines_name_the_stores() {
    let (uri, url) = (mongo().uri("first_lines"), redis_cluster().url());
    let args = [
        "serve",
        "--mongodb-uri",
        &uri,
        "--redis-url",
        &url,
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "off",
    ];
    let mut service = std::process::Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_tidemark")])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let out = BufReader::new(service.stdout.take().expect("stdout"));
    let log = BufReader::new(service.stderr.take().expect("stderr"));
    let first: Vec<_> = out.lines().take(4).map_while(Result::ok).collect();
    let is_of_stores = |line: &String| line.contains("\"shared_cache\":\"Redis");
    let log = log.lines().map_while(Result::ok).find(is_of_stores);
    service.kill().expect("killed");
    service.wait().expect("ended");
    let first = first.join("\n");
    assert!(
        first.contains("store: MongoDB mongodb://127.0.0.1")
            && first.contains("database first_lines")
            && first.contains("shared cache: Redis redis-cluster://127.0.0.1"),
        "{first}"
    );
    let log = log.expect("a line with the shared cache");
    assert!(log.contains("first_lines"), "{log}");
}

#[tokio::test]
async fn the_process_has_metrics_and_logs_in_the_format_asked_for() {
    let dir = folder("data").display().to_string();
    // JSON is the default where the log is no terminal. Asked for by a flag, the
    // addresses are in the log too, where this test does not look for them.
    let (service, _client) = ready(Tidemark::start(&["--data-dir", &dir])).await;
    let text = service.metrics_text();
    for metric in [
        "tidemark_build_info{version=\"",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_cpu_seconds_total ",
        "\nprocess_open_fds ",
        "\nprocess_max_fds ",
        "\nprocess_start_time_seconds ",
    ] {
        assert!(text.contains(metric), "{metric} is not in\n{text}");
    }
    // The log is written by a thread, and read by another one.
    let starts = |line: &String| line.contains("tidemark starts");
    eventually("the first line", Duration::from_secs(60), async || {
        service.log("INFO").iter().any(starts).then_some(())
    })
    .await;
    let warnings = service.log("WARN");
    // Of a machine that stalls.
    let is_busy = |line: &&String| line.contains("does not acknowledge heartbeats");
    let others: Vec<_> = warnings.iter().filter(|line| !is_busy(line)).collect();
    assert!(others.is_empty(), "{warnings:?}");
}

#[tokio::test]
async fn check_tries_what_the_service_needs() {
    let (uri, url) = (mongo().uri("checked"), redis_cluster().url());
    let check = |uri: &str, url: &str| {
        let args = [
            "check",
            "--mongodb-uri",
            uri,
            "--redis-url",
            url,
            "-o",
            "json",
        ];
        let out = binary().args(args).output().expect("run");
        let found: serde_json::Value =
            serde_json::from_str(&stdout(&out)).unwrap_or_else(|_| panic!("{}", stderr(&out)));
        (out.status.code(), found["findings"].clone())
    };
    let (code, found) = check(&uri, &url);
    assert_eq!(code, Some(0), "{found}");
    let found = found.as_array().expect("findings");
    let has = |part: &str| found.iter().any(|finding| finding["part"] == part);
    assert!(has("mongodb") && has("redis"), "{found:?}");
    let checked = |what: &str| {
        let found = found.iter().filter(|finding| finding["part"] == "redis");
        let check = |finding: &&serde_json::Value| {
            let check = finding["check"].as_str().unwrap_or_default();
            check.starts_with(what) && finding["status"] == "ok"
        };
        found.filter(check).count()
    };
    // Each of the three masters.
    for what in ["right to get at ", "right to set at ", "memory of "] {
        assert_eq!(checked(what), 3, "{what}{found:?}");
    }
    let nobody = "mongodb://me:geheim@127.0.0.1:1/todos?serverSelectionTimeoutMS=500";
    let (code, found) = check(nobody, "redis://:geheim@127.0.0.1:1");
    assert_eq!(code, Some(1), "{found}");
    let text = found.to_string();
    assert!(
        text.contains("\"error\"") && text.contains("\"warning\""),
        "{text}"
    );
    assert!(!text.contains("geheim"), "{text}");
}
