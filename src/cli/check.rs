//! `tidemark check`: everything that `tidemark serve` needs, tried beforehand.

use std::{fs, process::ExitCode, sync::Arc, time::Duration};

use serde_json::json;

use super::{
    client::Format,
    output::{Cell, Colour, Output, note, print, table},
    serve,
    yaml::to_yaml,
};
use crate::{
    budget::Budgets,
    config::{Config, display_url},
    origin::mongo::{self, Finding, Status},
    server,
    telemetry::Metrics,
    tier::redis::{Memory, NodeCheck},
};

/// How long Redis may take to answer.
const REDIS_LIMIT: Duration = Duration::from_secs(5);

/// The arguments of `check`.
#[derive(clap::Args)]
#[command(
    after_help = "Takes the settings of `tidemark serve`, from the same flags, variables and file. Changes nothing.\n\
Exit codes: 0 nothing is wrong, 1 something is, 2 wrong settings.\n\nExample:\n  \
tidemark check --mongodb-uri 'mongodb://localhost/todos?replicaSet=rs0' --redis-url redis-cluster://localhost:7000"
)]
pub struct Check {
    #[command(flatten)]
    settings: serve::Args,
    #[command(flatten)]
    format: Format,
}

/// Checks the stores, and prints what was found.
pub async fn run(args: Check) -> ExitCode {
    let config = match args.settings.config() {
        Ok(config) => config,
        Err(errors) => {
            note(&format!("error: wrong settings\n{errors}"));
            return ExitCode::from(2);
        }
    };
    let mut findings = Vec::new();
    let add = |group: &'static str, more: Vec<Finding>, to: &mut Vec<_>| {
        to.extend(more.into_iter().map(|finding| (group, finding)));
    };
    match &config.mongodb_uri {
        Some(uri) => {
            let found = mongo::check(&uri.0, config.replay_window).await;
            add("mongodb", found, &mut findings);
        }
        None => add("store", vec![check_directory(&config)], &mut findings),
    }
    if config.redis_url.is_some() {
        add("redis", check_redis(&config).await, &mut findings);
    }
    print_findings(args.format.output, &findings);
    let worst = findings.iter().map(|(_, finding)| finding.status).max();
    if worst == Some(Status::Error) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The directory of the embedded store: whether it exists or can be made.
fn check_directory(config: &Config) -> Finding {
    let directory = &config.data_dir;
    let finding = |status, detail: String, what_to_do: &str| Finding {
        what: "embedded store".into(),
        status,
        detail,
        what_to_do: what_to_do.into(),
    };
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => finding(
            Status::Error,
            format!("{shown} is not a directory"),
            "choose another --data-dir",
        ),
        Ok(found) if found.permissions().readonly() => finding(
            Status::Error,
            format!("{shown} is read-only"),
            "let the user of the service write to it",
        ),
        Ok(_) => finding(Status::Ok, format!("{shown} exists"), ""),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            finding(Status::Ok, format!("{shown} will be created"), "")
        }
        Err(e) => finding(
            Status::Error,
            format!("{shown}: {e}"),
            "choose another --data-dir",
        ),
    }
}

/// Whether Redis answers, and what each node allows; if not, what was seen of it.
async fn check_redis(config: &Config) -> Vec<Finding> {
    let metrics = Arc::new(Metrics::default());
    let tier = config
        .memory_plan()
        .map_err(|problem| problem.to_string())
        .and_then(|plan| {
            let budgets = Budgets::new(plan, config.max_origin_loads);
            let tier = server::shared_tier(config, &metrics, &budgets);
            tier.map_err(|fatal| fatal.to_string())
        });
    let tier = match tier {
        Ok(Some(tier)) => tier,
        Ok(None) => return Vec::new(),
        Err(problem) => {
            return vec![Finding {
                what: "connection".into(),
                status: Status::Error,
                detail: problem,
                what_to_do: "correct the setting".into(),
            }];
        }
    };
    let answers = tier.wait_ready(REDIS_LIMIT).await;
    let mut findings = vec![check_redis_connection(config, &metrics, answers)];
    for node in tier.check().await {
        findings.extend(check_redis_node(node));
    }
    findings
}

/// What a node allows, and what it does when its memory is full.
fn check_redis_node(node: NodeCheck) -> Vec<Finding> {
    let NodeCheck {
        server,
        read,
        write,
        memory,
    } = node;
    let right = |what: &str, tried: Result<(), String>| {
        let (status, detail, what_to_do) = match tried {
            Ok(()) => (Status::Ok, "granted".into(), ""),
            Err(text) => (
                Status::Warning,
                text,
                "give the user what \"Least ACL\" in docs/operations.md lists, or make room",
            ),
        };
        Finding {
            what: format!("{what} at {server}"),
            status,
            detail,
            what_to_do: what_to_do.into(),
        }
    };
    let (status, detail, what_to_do) = match memory {
        Ok(Memory { limit: 0, .. }) => (Status::Ok, "no limit (maxmemory 0)".into(), ""),
        Ok(Memory { limit, policy }) if policy == "noeviction" => (
            Status::Warning,
            format!("{limit} bytes, and a full Redis refuses entries ({policy})"),
            "set maxmemory-policy to allkeys-lru or allkeys-lfu",
        ),
        Ok(Memory { limit, policy }) => (Status::Ok, format!("{limit} bytes, {policy}"), ""),
        Err(text) => (
            Status::Warning,
            format!("not known: {text}"),
            "give the user +info",
        ),
    };
    let memory = Finding {
        what: format!("memory of {server}"),
        status,
        detail,
        what_to_do: what_to_do.into(),
    };
    vec![
        right("right to get", read),
        right("right to set", write),
        memory,
    ]
}

/// Whether Redis answered; if not, what was seen of it.
fn check_redis_connection(config: &Config, metrics: &Metrics, answers: bool) -> Finding {
    let finding = |status, detail: String, what_to_do: &str| Finding {
        what: "connection".into(),
        status,
        detail,
        what_to_do: what_to_do.into(),
    };
    let shown = config
        .redis_url
        .as_ref()
        .map(|url| display_url(&url.0))
        .unwrap_or_default();
    if answers {
        return finding(Status::Ok, format!("{shown} answers"), "");
    }
    let kinds = [
        "connection",
        "tls",
        "auth",
        "noperm",
        "timeout",
        "readonly",
        "loading",
        "clusterdown",
        "not_cluster",
        "other",
    ];
    let seen: Vec<_> = kinds
        .into_iter()
        .filter(|kind| {
            let counter = metrics
                .shared_errors
                .get_or_create(&crate::telemetry::Kind { kind });
            counter.get() > 0
        })
        .collect();
    let seen = if seen.is_empty() {
        String::new()
    } else {
        format!("; errors: {}", seen.join(", "))
    };
    finding(
        // The service runs without it.
        Status::Warning,
        format!("{shown} does not answer within {REDIS_LIMIT:?}{seen}"),
        "start Redis, or correct the URL, the password, the TLS files or the rules of the network",
    )
}

const fn word(status: Status) -> (&'static str, Colour) {
    match status {
        Status::Ok => ("ok", Colour::Green),
        Status::Warning => ("warning", Colour::Yellow),
        Status::Error => ("error", Colour::Red),
    }
}

fn print_findings(output: Output, findings: &[(&str, Finding)]) {
    let values: Vec<_> = findings
        .iter()
        .map(|(group, finding)| {
            json!({
                "part": group,
                "check": finding.what,
                "status": word(finding.status).0,
                "detail": finding.detail,
                "what_to_do": finding.what_to_do,
            })
        })
        .collect();
    match output {
        Output::Json => return print(&json!({"findings": values}).to_string()),
        Output::Yaml => {
            return print(&format!(
                "---\n{}",
                to_yaml(&json!({"findings": values})).trim_end()
            ));
        }
        Output::Table | Output::Name => {}
    }
    let rows: Vec<Vec<Cell>> = findings
        .iter()
        .map(|(group, finding)| {
            let (status, colour) = word(finding.status);
            let detail = if finding.what_to_do.is_empty() {
                finding.detail.clone()
            } else {
                format!("{}; {}", finding.detail, finding.what_to_do)
            };
            vec![
                (status.into(), Some(colour)),
                ((*group).into(), None),
                (finding.what.clone(), None),
                (detail, None),
            ]
        })
        .collect();
    print(&table(&["STATUS", "PART", "CHECK", "DETAIL"], &rows));
}
