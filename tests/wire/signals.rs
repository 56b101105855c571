//! Signals that end the service: each drains it, unless the process was started with
//! SIGHUP ignored.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::support::{eventually, folder, tidemark_binary};

/// What a drain takes at most here, where there is no call in progress.
const LIMIT: Duration = Duration::from_secs(20);
/// Time in which a service that does not ignore SIGHUP would have ended.
const PAUSE: Duration = Duration::from_millis(700);

/// A service behind this shell command, which replaces itself by it, and its log.
struct Service {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Service {
    /// Returns once it has caught up with its store.
    fn start(before: &str) -> Self {
        let script = format!(
            "{before} exec \"$0\" serve --data-dir \"$1\" --listen 127.0.0.1:0 --metrics-listen off --log-format json"
        );
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "sh", "-c", &script])
            .arg(tidemark_binary())
            .arg(folder("signals"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let stderr = child.stderr.take().expect("stderr");
        let mut service = Self {
            child,
            log: BufReader::new(stderr),
        };
        service.logs("caught up");
        service
    }

    /// The next line of the log with this text.
    fn logs(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).expect("a log") > 0 {
            if line.contains(text) {
                return line;
            }
            line.clear();
        }
        panic!("the log ended without {text:?}");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("kill").success());
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let ended = async || self.child.try_wait().expect("waited for");
        eventually("the end", LIMIT, ended).await.code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn each_signal_drains() {
    for signal in ["TERM", "INT", "HUP"] {
        let mut service = Service::start("");
        service.signal(signal);
        let line = service.logs("draining");
        assert!(line.contains(&format!("\"SIG{signal}\"")), "{line}");
        assert_eq!(service.exit_code().await, Some(0), "{signal}");
    }
}

/// `nohup` sets SIGHUP to be ignored, and the terminal is closed afterwards.
#[tokio::test]
async fn a_service_under_nohup_outlives_its_terminal() {
    let mut service = Service::start("trap '' HUP;");
    service.signal("HUP");
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        assert!(service.child.try_wait().expect("waited for").is_none());
        sleep(PAUSE / 10);
    }
    service.signal("TERM");
    let line = service.logs("draining");
    assert!(line.contains("\"SIGTERM\""), "{line}");
    assert_eq!(service.exit_code().await, Some(0));
}
