//! `tidemark import`: JSON lines straight into the origin.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use prost_types::Timestamp;
use tokio::task::JoinSet;

use super::{client::todo_from_json, serve};
use crate::{
    config::Config,
    error::FieldProblem,
    model::{ListName, Patch, TodoName, timestamp_from_ms, timestamp_ms, validate},
    origin::{Imported, Origin},
    pb::Todo,
    server,
};

/// Todos of one batch: the most that an origin takes.
const BATCH: usize = 1000;
/// Batches under way at once: enough to keep a replica set busy.
const BATCHES: usize = 4;
/// Longest line: the largest todo takes some 60 kB, escaped.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Bad lines that are told one by one; the others are only counted.
const MAX_TOLD: u64 = 1000;
/// How often progress is told where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Tries of a batch while the origin is away.
const TRIES: u32 = 5;

/// The arguments of `import`.
#[derive(Args)]
#[command(
    after_help = "A line is a todo as the API writes it, or {\"id\": \"17\", \"name\": \"...\", \"description\": \"...\"}, \
which becomes lists/seed/todos/17 with title and notes. Importing again makes no doubles.\n\nExamples:\n  \
tidemark import todos.jsonl --mongodb-uri mongodb://localhost/?replicaSet=rs0\n  tidemark generate 1000 | tidemark import -"
)]
pub struct Import {
    /// File of JSON lines, or - for stdin
    file: PathBuf,
    /// List of lines that have an id instead of a full name
    #[arg(long, default_value = "seed")]
    list: String,
    #[command(flatten)]
    settings: serve::Args,
}

/// What came of it.
#[derive(Default)]
struct Counts {
    read: usize,
    new: usize,
    bad: u64,
}

/// Imports; exit code 1 if any line was bad.
pub async fn run(args: Import) -> ExitCode {
    let (list, config) = match checked(&args) {
        Ok(checked) => checked,
        Err(wrong) => {
            eprintln!("error: {wrong}");
            return ExitCode::from(2);
        }
    };
    match import(&args.file, &list, &config).await {
        Ok(counts) => {
            let had = counts.read - counts.new;
            eprintln!(
                "{} imported, {had} were there already, {} bad lines left out",
                counts.new, counts.bad
            );
            if counts.bad == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What the arguments and settings say.
fn checked(args: &Import) -> Result<(ListName, Config), String> {
    let list = ListName::parse(&format!("lists/{}", args.list))
        .ok_or_else(|| format!("--list {:?} is no list id such as seed", args.list))?;
    let config = args
        .settings
        .config()
        .map_err(|wrong| format!("wrong settings\n{wrong}"))?;
    Ok((list, config))
}

async fn import(file: &Path, list: &ListName, config: &Config) -> Result<Counts, String> {
    let mut lines = Lines::open(file)?;
    let origin = server::open_origin(config)
        .await
        .map_err(|e| e.to_string())?;
    let progress = Progress::new(lines.size);
    let (mut counts, mut batches) = (Counts::default(), JoinSet::new());
    let now_ms = now_ms();
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH
            && let Some(line) = lines.next()?
        {
            match line.and_then(|line| parse(&line, list, now_ms)) {
                Ok(Some(todo)) => batch.push(todo),
                Ok(None) => {}
                Err(problem) => {
                    counts.bad += 1;
                    progress.tell_bad(counts.bad, lines.number, &problem);
                }
            }
        }
        let done = batch.is_empty();
        if !done {
            counts.read += batch.len();
            batches.spawn(put(Arc::clone(&origin), batch));
        }
        while batches.len() >= BATCHES || (done && !batches.is_empty()) {
            let Some(put) = batches.join_next().await else {
                break;
            };
            counts.new += put.map_err(|e| e.to_string())??;
        }
        progress.tell(&counts, lines.bytes);
        if done {
            progress.bar.finish_and_clear();
            return Ok(counts);
        }
    }
}

/// One batch, again while the origin is away: what was written is left as it
/// is.
async fn put(origin: Arc<dyn Origin>, batch: Vec<Todo>) -> Result<usize, String> {
    let mut pause = Duration::from_millis(200);
    for _ in 1..TRIES {
        match origin.import(batch.clone()).await {
            Ok(imported) => return created(imported),
            Err(problem) => eprintln!("a batch failed ({problem}); it is tried again"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    let imported = origin.import(batch).await;
    created(
        imported
            .map_err(|e| format!("the database cannot be written: {e}; import again to go on"))?,
    )
}

/// How many todos of a batch are new.
fn created(imported: Imported) -> Result<usize, String> {
    match imported.refused.first() {
        None => Ok(imported.created),
        Some((_, problem)) => Err(format!("the database refuses a todo: {problem}")),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The lines of the input, with their numbers from 1.
pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    size: Option<u64>,
    number: u64,
    bytes: u64,
}

impl Lines {
    fn open(file: &Path) -> Result<Self, String> {
        let (input, size): (Box<dyn BufRead + Send>, _) = if file == Path::new("-") {
            (Box::new(BufReader::new(io::stdin())), None)
        } else {
            let opened = File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let size = opened.metadata().ok().map(|metadata| metadata.len());
            (Box::new(BufReader::with_capacity(1 << 20, opened)), size)
        };
        Ok(Self {
            input,
            size,
            number: 0,
            bytes: 0,
        })
    }

    /// Those of an input of unknown size.
    pub(crate) fn of(input: Box<dyn BufRead + Send>) -> Self {
        Self {
            input,
            size: None,
            number: 0,
            bytes: 0,
        }
    }

    /// The next line; `Err` inside if it is too long or no UTF-8.
    pub(crate) fn next(&mut self) -> Result<Option<Result<String, String>>, String> {
        let mut raw = Vec::new();
        let read = (&mut self.input)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut raw);
        let read =
            read.map_err(|e| format!("the input cannot be read after line {}: {e}", self.number))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read as u64;
        if read as u64 == MAX_LINE_BYTES && raw.last() != Some(&b'\n') {
            self.skip_rest()?;
            return Ok(Some(Err(format!("is longer than {MAX_LINE_BYTES} bytes"))));
        }
        Ok(Some(
            String::from_utf8(raw).map_err(|e| format!("is no UTF-8: {e}")),
        ))
    }

    fn skip_rest(&mut self) -> Result<(), String> {
        loop {
            let buffer = self.input.fill_buf().map_err(|e| e.to_string())?;
            let (skipped, ended) = match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.input.consume(skipped);
            self.bytes += skipped as u64;
            if ended {
                return Ok(());
            }
        }
    }
}

/// The todo in a line; `None` if the line is empty.
pub(crate) fn parse(line: &str, list: &ListName, now_ms: i64) -> Result<Option<Todo>, String> {
    let line = line.trim_start_matches('\u{feff}').trim();
    if line.is_empty() {
        return Ok(None);
    }
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|e| format!("is no JSON: {e}"))?;
    let mut todo = if value.get("id").is_some() {
        seed(&value, list)?
    } else {
        todo_from_json(line)?
    };
    let name = TodoName::parse(&todo.name).ok_or_else(|| {
        format!(
            "name {:?} is no todo name such as lists/home/todos/42",
            crate::error::shorten(&todo.name)
        )
    })?;
    validate(&mut todo, "").map_err(|problems| told(&problems))?;
    let create_time =
        to_ms("create_time", todo.create_time)?.unwrap_or_else(|| timestamp_from_ms(now_ms));
    let update_time = to_ms("update_time", todo.update_time)?;
    let complete_time = to_ms("complete_time", todo.complete_time)?;
    let mut new = Patch::all_of(&todo).create(name.as_str(), now_ms);
    new.create_time = Some(create_time);
    new.update_time = update_time.or(Some(create_time));
    if new.complete_time.is_some() && complete_time.is_some() {
        new.complete_time = complete_time;
    }
    Ok(Some(new))
}

/// A time as every origin keeps it.
fn to_ms(field: &str, time: Option<Timestamp>) -> Result<Option<Timestamp>, String> {
    let cut = |time: Timestamp| {
        let ms = timestamp_ms(&time)
            .ok_or_else(|| format!("{field} is no time of the years 0001 to 9999"))?;
        Ok(timestamp_from_ms(ms))
    };
    time.map(cut).transpose()
}

fn told(problems: &[FieldProblem]) -> String {
    let one = |p: &FieldProblem| format!("{} {}", p.field, p.problem);
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The short shape: id, name, description.
fn seed(value: &serde_json::Value, list: &ListName) -> Result<Todo, String> {
    let text = |field: &str| match value.get(field) {
        None => Ok(String::new()),
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(serde_json::Value::Number(number)) if field == "id" => Ok(number.to_string()),
        Some(other) => Err(format!("{field} is {other}; a string is wanted")),
    };
    if let Some(fields) = value.as_object()
        && let Some(other) = fields
            .keys()
            .find(|key| !["id", "name", "description"].contains(&key.as_str()))
    {
        return Err(format!(
            "{other:?} is no field beside id, name and description"
        ));
    }
    let id = text("id")?;
    let name = list
        .todo(&id)
        .ok_or_else(|| format!("id {:?} is no id such as 17", crate::error::shorten(&id)))?;
    Ok(Todo {
        name: name.to_string(),
        title: text("name")?,
        notes: text("description")?,
        ..Todo::default()
    })
}

struct Progress {
    bar: ProgressBar,
    began: Instant,
    told: std::cell::Cell<Instant>,
}

impl Progress {
    fn new(size: Option<u64>) -> Self {
        let bar = match size {
            Some(size) => ProgressBar::new(size),
            None => ProgressBar::new_spinner(),
        };
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{bar:30} {percent}%  {msg}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(if size.is_some() {
            style
        } else {
            "{spinner} {msg}"
        }) {
            bar.set_style(style);
        }
        Self {
            bar,
            began: Instant::now(),
            told: Instant::now().into(),
        }
    }

    fn tell(&self, counts: &Counts, bytes: u64) {
        let rate = counts.read as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let text = format!("{} todos, {rate:.0} a second", counts.read);
        self.bar.set_position(bytes);
        if self.bar.is_hidden() && self.told.get().elapsed() >= TOLD_EVERY {
            self.told.set(Instant::now());
            eprintln!("{text}");
        }
        self.bar.set_message(text);
    }

    fn tell_bad(&self, bad: u64, line: u64, problem: &str) {
        if bad <= MAX_TOLD {
            self.bar.suspend(|| eprintln!("line {line} {problem}"));
        }
        if bad == MAX_TOLD {
            self.bar
                .suspend(|| eprintln!("further bad lines are only counted"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Option<Todo>, String> {
        parse(line, &ListName::parse("lists/seed").expect("a name"), 1000)
    }

    #[test]
    fn both_shapes_are_read() {
        let todo = one(r#"{"id": "17", "name": "Milk", "description": "two"}"#)
            .expect("right")
            .expect("a todo");
        assert_eq!(
            (todo.name.as_str(), todo.title.as_str(), todo.notes.as_str()),
            ("lists/seed/todos/17", "Milk", "two")
        );
        let line = r#"{"name":"lists/home/todos/1","title":"x","state":"STATE_COMPLETED","createTime":"2026-01-01T00:00:00Z"}"#;
        let todo = one(line).expect("right").expect("a todo");
        assert_eq!(todo.create_time.expect("kept").seconds, 1_767_225_600);
        assert!(todo.complete_time.is_some());
        assert_eq!(one(" \r\n").expect("empty"), None);
        assert!(
            one("\u{feff}{\"id\": 17, \"name\": \"x\"}\r")
                .expect("right")
                .is_some()
        );
    }

    /// MongoDB keeps milliseconds: finer times would be others once stored.
    #[test]
    fn times_are_cut_to_milliseconds() {
        let line = r#"{"name":"lists/home/todos/1","title":"x","state":"STATE_COMPLETED",
            "createTime":"2026-01-01T00:00:00.123456789Z","updateTime":"2026-01-01T00:00:00.000000001Z",
            "completeTime":"2026-01-01T00:00:01.9999Z"}"#;
        let todo = one(line).expect("right").expect("a todo");
        let nanos = [todo.create_time, todo.update_time, todo.complete_time]
            .map(|time| time.expect("kept").nanos);
        assert_eq!(nanos, [123_000_000, 0, 999_000_000]);
    }

    #[test]
    fn bad_lines_say_why() {
        for (line, word) in [
            ("{", "JSON"),
            ("[]", "map"),
            (r#"{"id": "-", "name": "x"}"#, "id"),
            (r#"{"id": "1", "name": 5}"#, "name"),
            (r#"{"id": "1"}"#, "title"),
            (r#"{"id": "1", "name": "x", "colour": "red"}"#, "colour"),
            (r#"{"name": "home", "title": "x"}"#, "name"),
            (
                r#"{"name":"lists/a/todos/b","title":"x","due_time":"soon"}"#,
                "",
            ),
            (r#"{"name":"lists/a/todos/b","title":""}"#, "title"),
            (r#"{"name":"lists/a/todos/b","title":"x"} {}"#, ""),
        ] {
            let problem = one(line).expect_err(line);
            assert!(problem.contains(word), "{line}: {problem}");
        }
    }

    #[test]
    fn long_and_broken_lines_are_left_out_and_the_others_read() {
        let mut text = b"{\"id\": \"1\", \"name\": \"x\"}\n".to_vec();
        text.extend(vec![b'x'; 3 << 20]);
        text.extend(b"\n\xff\xfe\n{\"id\": \"2\", \"name\": \"y\"}");
        let mut lines = Lines::of(Box::new(io::Cursor::new(text)));
        let mut well = Vec::new();
        while let Some(line) = lines.next().expect("readable") {
            well.push(line.is_ok());
        }
        assert_eq!(well, [true, false, false, true]);
    }
}
