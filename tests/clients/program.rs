//! A client program under test: its lines as they come, its exit code.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::support::eventually;

/// Programs start slowly where two cores run everything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The client programs, one a language.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    Go,
    Java,
    Python,
    TypeScript,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `clients/test` says in the environment.
pub fn told(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run clients/test"))
}

impl Language {
    fn command(self) -> Command {
        let clients = root().join("clients");
        let built = |file: &str| -> PathBuf {
            let file = clients.join(file);
            assert!(
                file.is_file(),
                "{} is not built: run clients/test",
                file.display()
            );
            file
        };
        let (program, args): (String, Vec<PathBuf>) = match self {
            Self::Go => (built("go/bin/todos").display().to_string(), vec![]),
            Self::Java => (
                "java".into(),
                vec![
                    "-cp".into(),
                    // The example is compiled with the tests of the library.
                    [
                        built("java/target/tidemark-todos-0.1.0.jar"),
                        clients.join("java/target/lib/*"),
                        clients.join("java/target/test-classes"),
                    ]
                    .map(|part| part.display().to_string())
                    .join(":")
                    .into(),
                    "dev.tidemark.example.Main".into(),
                ],
            ),
            Self::Python => (
                told("TIDEMARK_PYTHON"),
                vec![built("python/example/todos.py")],
            ),
            Self::TypeScript => (
                "node".into(),
                vec![built("typescript/dist/example/todos.js")],
            ),
        };
        let mut command = dies_with_this_thread(&program);
        command.args(args);
        if matches!(self, Self::Python) {
            // The library is not installed where the program runs.
            command.env("PYTHONPATH", clients.join("python"));
        }
        command
    }

    /// Starts the program.
    pub fn start(self, args: &[&str]) -> Program {
        Program::start(self.command().args(args))
    }

    /// Runs the program to its end: its exit code, its lines, its errors.
    pub fn run(self, args: &[&str]) -> (Option<i32>, Vec<String>, String) {
        let out = self
            .command()
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("run");
        let lines = String::from_utf8_lossy(&out.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        (
            out.status.code(),
            lines,
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    }
}

/// A command that is killed when the test that starts it ends, however it ends:
/// each test has a thread of its own.
pub fn dies_with_this_thread(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", program])
        .current_dir(root());
    command
}

/// A program that runs.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = Arc::new(Mutex::new(Vec::new()));
        gather(
            child.stdout.take().expect("stdout"),
            Some(Arc::clone(&lines)),
        );
        gather(child.stderr.take().expect("stderr"), None);
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("the lines").clone()
    }

    /// How many lines so far hold this text.
    pub fn count(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Writes a line to its input.
    pub fn hears(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .expect("written");
    }

    /// Waits until so many lines hold this text.
    pub async fn says(&mut self, text: &str, times: usize) {
        self.says_within(text, times, PATIENCE).await;
    }

    /// The same with another limit of time.
    pub async fn says_within(&mut self, text: &str, times: usize, limit: Duration) {
        eventually(&format!("{times} times {text:?}"), limit, async || {
            if self.count(text) >= times {
                return Some(());
            }
            let ended = self.child.try_wait().expect("waited for");
            assert!(
                ended.is_none(),
                "it ended before it said {text:?}: {:#?}",
                self.lines()
            );
            None
        })
        .await;
    }

    /// Ends its input, and waits for its own end.
    pub async fn finish(mut self) -> (Option<i32>, Vec<String>) {
        drop(self.stdin.take());
        let status = eventually("the program's end", PATIENCE, async || {
            self.child.try_wait().expect("waited for")
        })
        .await;
        // What it said last may still be on its way.
        eventually("its last line", PATIENCE, async || {
            (Arc::strong_count(&self.lines) == 1).then_some(())
        })
        .await;
        (status.code(), self.lines())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(from: impl Read + Send + 'static, into: Option<Arc<Mutex<Vec<String>>>>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            eprintln!("  > {line}");
            if let Some(lines) = &into {
                lines.lock().expect("the lines").push(line);
            }
        }
    });
}
