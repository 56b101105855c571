//! `tidemark import`: todos from a file, straight into the store or through a
//! running service.

mod input;
mod parse;
mod progress;
mod target;

use std::{
    collections::HashMap,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use tokio::task::JoinSet;

pub(crate) use self::{input::Records, parse::parse};
use self::{
    progress::Progress,
    target::{Batch, Outcome, Target},
};
use super::{client::Server, credential::CredentialArgs, output::note, serve};
use crate::model::ListName;

/// Todos of one batch: the most that an origin takes.
const BATCH: usize = 1000;
/// Batches under way at once: enough to keep a replica set busy.
const BATCHES: usize = 4;
/// Names that are remembered to find duplicates in one input; at 32 bytes each
/// some 128 MiB.
const MAX_REMEMBERED: usize = 4_000_000;

const AFTER_HELP: &str = "The input is JSON: one todo a line, or an array of todos, or the output of
`tidemark list --all -o json`. A todo has one of three forms:
  {\"name\": \"lists/home/todos/42\", \"title\": \"...\", \"state\": \"STATE_ACTIVE\"}  as in the API
  {\"_id\": \"lists/home/todos/42\", \"title\": \"...\", \"state\": \"ACTIVE\"}        as in MongoDB
  {\"id\": \"42\", \"name\": \"...\", \"description\": \"...\"}                      title and notes
A todo that exists already stays as it is; importing again is idempotent. With --replace
it gets the fields of the input.

Invalid todos, and those that the store refuses, are reported with their line and skipped.
Exit codes: 0 all in, 1 a todo was invalid or refused, or the import failed; 2 wrong arguments.

Examples:
  tidemark import todos.jsonl --mongodb-uri 'mongodb://localhost/todos?replicaSet=rs0'
  tidemark generate 1000 | tidemark import -
  tidemark import todos.json --server 127.0.0.1:50051 --replace";

/// The arguments of `import`.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Import {
    /// File of JSON, or - for stdin
    file: PathBuf,
    /// List of the todos that have an id instead of a full name
    #[arg(long, default_value = "seed")]
    list: String,
    /// Replace the fields of todos that exist
    #[arg(long)]
    replace: bool,
    /// Import through the service at this address instead of writing to the store; times of
    /// creation and completion are then those of the import
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["mongodb-uri", "data-dir"])]
    server: Option<String>,
    /// With --server: PEM file of the certificate authorities to trust with https
    #[arg(long, env = "TIDEMARK_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With --server: PEM file of the client certificate
    #[arg(long, env = "TIDEMARK_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// With --server: PEM file of its private key
    #[arg(long, env = "TIDEMARK_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    #[command(flatten)]
    credential: CredentialArgs,
    /// With --server: longest wait for each reply
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    settings: serve::Args,
}

/// How many todos met which fate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Valid todos that were sent.
    pub sent: usize,
    pub created: usize,
    pub replaced: usize,
    /// Invalid, or refused by the store.
    pub bad: usize,
    /// With a name that an earlier line of the input has.
    pub duplicates: usize,
}

impl Counts {
    fn text(self) -> String {
        let existing = self.sent.saturating_sub(self.created + self.replaced);
        let mut text = format!(
            "{} imported, {existing} were there already, {} bad lines left out",
            self.created, self.bad
        );
        if self.replaced > 0 {
            text += &format!(", {} replaced", self.replaced);
        }
        if self.duplicates > 0 {
            text += &format!(", {} duplicates in the input left out", self.duplicates);
        }
        text
    }
}

/// Imports; exit code 1 if any todo was invalid or refused.
pub async fn run(args: Import) -> ExitCode {
    let Some(list) = ListName::parse(&format!("lists/{}", args.list)) else {
        note(&format!(
            "error: --list {:?} is not a list id such as seed",
            args.list
        ));
        return ExitCode::from(2);
    };
    let config = match args.settings.config() {
        Ok(config) => config,
        Err(errors) => {
            note(&format!("error: wrong settings\n{errors}"));
            return ExitCode::from(2);
        }
    };
    let imported = async {
        // Before the connection: a wrong path is answered at once.
        let records = Records::open(&args.file)?;
        let target = match &args.server {
            Some(address) => Target::service(args.server(address), args.replace).await?,
            None => Target::store(&config, args.replace).await?,
        };
        import(records, &list, Arc::new(target)).await
    };
    match imported.await {
        Ok(counts) => {
            note(&counts.text());
            if counts.bad == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            note(&format!("error: {problem}"));
            ExitCode::FAILURE
        }
    }
}

impl Import {
    fn server(&self, address: &str) -> Server {
        Server {
            server: address.to_owned(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            credential: self.credential.clone(),
            timeout: self.timeout,
        }
    }
}

/// Reads, checks and sends the todos, some batches at a time.
async fn import(
    mut records: Records,
    list: &ListName,
    target: Arc<Target>,
) -> Result<Counts, String> {
    let progress = Progress::new(records.size());
    let (mut counts, mut seen, mut batches) = (Counts::default(), Seen::default(), JoinSet::new());
    let now_ms = now_ms();
    loop {
        let batch = next_batch(
            &mut records,
            list,
            now_ms,
            &mut counts,
            &mut seen,
            &progress,
        )?;
        let ended = batch.todos.is_empty();
        if !ended {
            counts.sent += batch.todos.len();
            batches.spawn(Arc::clone(&target).put(batch));
        }
        while batches.len() >= BATCHES || (ended && !batches.is_empty()) {
            let Some(put) = batches.join_next().await else {
                break;
            };
            let outcome: Outcome = put
                .map_err(|e| e.to_string())?
                .inspect_err(|_| progress.end())?;
            counts.created += outcome.created;
            counts.replaced += outcome.replaced;
            counts.sent -= outcome.refused.len();
            for (line, problem) in outcome.refused {
                counts.bad += 1;
                progress.report(line, &problem);
            }
        }
        progress.show(&counts, records.bytes());
        if ended {
            progress.end();
            return Ok(counts);
        }
    }
}

/// The next valid todos, up to a batch. Others are counted and reported.
fn next_batch(
    records: &mut Records,
    list: &ListName,
    now_ms: i64,
    counts: &mut Counts,
    seen: &mut Seen,
    progress: &Progress,
) -> Result<Batch, String> {
    let mut batch = Batch::default();
    while batch.todos.len() < BATCH
        && let Some(record) = records.next()?
    {
        let line = record.line;
        match record.text.and_then(|text| parse(&text, list, now_ms)) {
            Ok(todos) => {
                for todo in todos {
                    if let Some(first) = seen.first_line(&todo.name, line) {
                        counts.duplicates += 1;
                        let name = &todo.name;
                        progress.report(
                            line,
                            &format!("{name} is in line {first} already; left out"),
                        );
                        continue;
                    }
                    batch.todos.push(todo);
                    batch.lines.push(line);
                }
            }
            Err(problem) => {
                counts.bad += 1;
                progress.report(line, &problem);
            }
        }
    }
    Ok(batch)
}

/// The names of the input, to find duplicates.
#[derive(Default)]
struct Seen {
    /// Line by hash of the name.
    lines: HashMap<u128, u64>,
    is_full: bool,
}

impl Seen {
    /// The earlier line with this name.
    fn first_line(&mut self, name: &str, line: u64) -> Option<u64> {
        let hash = xxhash_rust::xxh3::xxh3_128(name.as_bytes());
        if let Some(first) = self.lines.get(&hash) {
            return Some(*first);
        }
        if self.lines.len() < MAX_REMEMBERED {
            self.lines.insert(hash, line);
        } else if !std::mem::replace(&mut self.is_full, true) {
            note(&format!(
                "from line {line} on, duplicates are found only of the first {MAX_REMEMBERED} names"
            ));
        }
        None
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
