//! The pictures in docs/terminal: each is the output of a command on a terminal, and
//! is compared with what the command prints now. To make them anew:
//! `UPDATE_DOCS=1 cargo test --test wire -- terminal::`.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    cli,
    client::{SERVING, embedded, health, real},
    support::{Tidemark, eventually},
};

/// Columns and rows of the terminal.
const COLUMNS: usize = 120;
const ROWS: usize = 40;
/// Size of a character in the picture: 8.4 by 19.
const CHAR_WIDTH_TENTHS: usize = 84;
const LINE_HEIGHT: usize = 19;
const MARGIN: usize = 16;
/// Longest wait for a command, under load.
const LIMIT: Duration = Duration::from_secs(60);

/// A terminal in which one command runs.
struct Terminal {
    child: std::process::Child,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Ends when `script` has closed its output.
    reader: thread::JoinHandle<()>,
}

impl Terminal {
    /// Runs the command in a terminal of util-linux' `script`.
    fn start(service: &Tidemark, command: &str) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_tidemark"));
        let path = std::env::var("PATH").expect("a PATH");
        let folder = binary.parent().expect("a folder").display();
        // `exec`: a shell that is still there takes Ctrl-C too, and dash then ends with
        // its own status.
        let script = format!("stty columns {COLUMNS} rows {ROWS}; exec {command}");
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &script, "/dev/null"])
            .env("PATH", format!("{folder}:{path}"))
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .env("TIDEMARK_SERVER", &service.address)
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script of util-linux is there");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut out, kept) = (child.stdout.take().expect("stdout"), Arc::clone(&shown));
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut buffer) {
                let mut kept = kept.lock().expect("the output");
                kept.extend_from_slice(&buffer[..read]);
            }
        });
        Self {
            child,
            shown,
            reader,
        }
    }

    fn text(&self) -> String {
        let shown = self.shown.lock().expect("the output");
        String::from_utf8_lossy(&shown).replace('\r', "")
    }

    async fn shows(&self, text: &str) {
        let seen = async || self.text().contains(text).then_some(());
        eventually(text, LIMIT, seen).await;
    }

    fn press_ctrl_c(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("stdin");
        stdin.write_all(b"\x03").expect("written");
    }

    /// What it showed until the command ended.
    async fn end(mut self) -> String {
        let ended = async || self.child.try_wait().expect("waited for");
        let status = eventually("the end of the command", LIMIT, ended).await;
        let read = async || self.reader.is_finished().then_some(());
        eventually("the end of the output", LIMIT, read).await;
        let text = self.text();
        assert!(status.success() || text.contains("error: "), "{text}");
        text
    }
}

/// The transcript of a command: the line that is typed, and what it shows.
async fn transcript(service: &Tidemark, command: &str, more: &str) -> String {
    let text = Terminal::start(service, &format!("{command}{more}"))
        .end()
        .await;
    format!("$ {command}\n{text}")
}

/// The addresses that the service has by default.
fn with_default_addresses(text: &str, service: &Tidemark) -> String {
    let metrics = cli::metrics_address(service);
    text.replace(&service.address, "http://127.0.0.1:50051")
        .replace(&metrics, "127.0.0.1:9464")
}

/// A line of a terminal as SVG: its escape sequences become classes.
fn line_to_svg(line: &str) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let mut parts = line.split("\u{1b}[");
    let mut svg = escape(parts.next().unwrap_or_default());
    for part in parts {
        let (code, text) = part.split_once('m').expect("only colours");
        let text = escape(text);
        if text.is_empty() || code == "0" {
            svg += &text;
        } else {
            svg += &format!("<tspan class=\"c{code}\">{text}</tspan>");
        }
    }
    svg
}

fn picture(transcript: &str) -> String {
    let lines: Vec<_> = transcript.trim_end().lines().collect();
    let width = COLUMNS * CHAR_WIDTH_TENTHS / 10 + 2 * MARGIN;
    let height = lines.len() * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>\n\
         text {{ font: 14px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #d6dbe3; white-space: pre }}\n\
         .c1 {{ font-weight: bold }} .c2 {{ fill: #8a94a3 }} .c31 {{ fill: #ff7b72 }} .c32 {{ fill: #7ee787 }} .c33 {{ fill: #f2cc60 }}\n\
         </style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#161b22\"/>\n"
    );
    for (at, line) in lines.iter().enumerate() {
        let y = MARGIN + (at + 1) * LINE_HEIGHT - 5;
        svg += &format!(
            "<text x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\">{}</text>\n",
            line_to_svg(line)
        );
    }
    svg + "</svg>\n"
}

/// A picture without what differs each time: tokens, and all words with a digit.
fn structure(svg: &str) -> Vec<String> {
    let lines = svg.lines().filter(|line| line.starts_with("<text "));
    lines
        .map(|line| {
            let (_, content) = line.split_once('>').expect("a tag");
            let spaced = content.replace('<', " <").replace('>', "> ");
            let mut words: Vec<_> = spaced
                .split_whitespace()
                .map(|word| {
                    let is_tag = word.starts_with("class=");
                    let is_token = word.len() >= 32 && !word.contains('/');
                    let varies = is_token || word.contains(|c: char| c.is_ascii_digit());
                    if varies && !is_tag { "#" } else { word }
                })
                // The commit is not known to every build.
                .filter(|word| !(word.starts_with('(') && word.ends_with(')') && word.len() == 14))
                .collect();
            // Which tier answers depends on the time between two commands.
            if words.first() == Some(&"from") {
                words[1] = "#";
            }
            words.dedup();
            words.join(" ")
        })
        .collect()
}

fn compare(name: &str, transcript: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs/terminal", name]
        .iter()
        .collect();
    let now = picture(transcript);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &now).expect("written");
    }
    let committed = fs::read_to_string(&path).expect("the picture");
    assert_eq!(
        structure(&committed),
        structure(&now),
        "docs/terminal/{name} is not what the command prints: see the first lines of tests/wire/terminal.rs"
    );
}

#[tokio::test]
async fn the_pictures_show_what_the_commands_print() {
    let (service, _client) = real("terminal").await;
    let shared = async || {
        let health = health(&service, "shared").await;
        (health.ok() == Some(SERVING)).then_some(())
    };
    eventually("Redis", LIMIT, shared).await;
    // What is typed to begin with is not in the pictures.
    for add in [
        "Buy milk --id milk --label shop --due 2026-12-01",
        "Buy bread --id bread --label shop",
        "Send the tax return --id tax --priority urgent --due 2026-12-31",
        "Call the dentist --id dentist --priority high",
    ] {
        transcript(&service, &format!("tidemark add home {add}"), "").await;
    }
    transcript(&service, "tidemark done home/bread", "").await;

    let strong = " --consistency fully_consistent";
    let mut list = transcript(&service, "tidemark list home", strong).await;
    list += &transcript(&service, "tidemark get home/tax", "").await;
    let filter = "tidemark list home --filter 'state = active AND colour = red'";
    list += &transcript(&service, filter, "").await;
    compare("list.svg", &with_default_addresses(&list, &service));

    let watch = "tidemark watch home --include-todo";
    let mut terminal = Terminal::start(&service, watch);
    terminal.shows("connected to").await;
    for (command, shown) in [
        ("add home Water the plants --id plants", "created"),
        (
            "update home/plants --priority low --add-label garden",
            "updated",
        ),
        ("done home/plants", "completed"),
        ("delete home/plants", "deleted"),
    ] {
        transcript(&service, &format!("tidemark {command}"), "").await;
        terminal.shows(shown).await;
    }
    terminal.press_ctrl_c();
    let watch = format!("$ {watch}\n{}", terminal.end().await);
    compare("watch.svg", &with_default_addresses(&watch, &service));

    let metrics = format!(" --metrics {}", cli::metrics_address(&service));
    let status = transcript(&service, "tidemark status", &metrics).await;
    compare("status.svg", &with_default_addresses(&status, &service));
}

/// The screens that a command shows, one after the other.
fn screens(text: &str) -> Vec<&str> {
    text.split("\u{1b}[2J\u{1b}[H").skip(1).collect()
}

#[tokio::test]
async fn status_is_shown_again_and_again_until_ctrl_c() {
    let (service, _client) = embedded().await;
    let metrics = cli::metrics_address(&service);
    let command = format!("tidemark status --watch 200ms --metrics {metrics}");
    let mut terminal = Terminal::start(&service, &command);
    // From the second screen on it knows how many calls there are.
    terminal.shows(" a second").await;
    terminal.press_ctrl_c();
    let text = terminal.end().await;
    let with_rate = |screen: &&&str| screen.contains(" a second");
    let all = screens(&text);
    let screen = all.iter().find(with_rate).expect("a screen");
    for line in ["readiness", "feed lag", "near cache", "memory"] {
        assert!(screen.contains(line), "{line} is not in:\n{screen}");
    }
    let lines = screen.lines().count();
    assert!(lines <= ROWS, "more than a screen:\n{screen}");
}

#[tokio::test]
async fn status_goes_on_while_a_replica_is_away() {
    let (service, _client) = embedded().await;
    let mut terminal = Terminal::start(&service, "tidemark status --watch 200ms");
    terminal.shows("readiness").await;
    service.kill();
    terminal.shows("error: ").await;
    let shown = terminal.text().matches("error: ").count();
    let goes_on = async || (terminal.text().matches("error: ").count() > shown).then_some(());
    eventually("one more look", LIMIT, goes_on).await;
    terminal.press_ctrl_c();
    terminal.end().await;
}
