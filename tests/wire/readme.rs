//! The shell blocks of the README, each run as it is pasted. Its console blocks
//! are those of the tour: tour.rs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    client::SERVING,
    support::{eventually, folder, free_port, mongo, redis_cluster},
};

/// What a service and `./test servers` need at most to start, under load.
const START_LIMIT: Duration = Duration::from_secs(120);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks, in order.
fn blocks() -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let blocks = readme.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("\n```").next().expect("an end").to_owned())
        .collect()
}

/// Programs in place of those that take minutes: `cargo`, which installs nothing because
/// the binary is built already, and grpcurl from the cache.
struct Shell {
    bin: PathBuf,
    work: PathBuf,
    address: String,
}

impl Shell {
    fn new() -> Self {
        let (bin, work) = (folder("bin"), folder("readme"));
        let binary = env!("CARGO_BIN_EXE_tidemark");
        let cargo = "#!/bin/sh\n[ \"$*\" = 'install --path . --locked' ]\n";
        let path = bin.join("cargo");
        fs::write(&path, cargo).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        std::os::unix::fs::symlink(binary, bin.join("tidemark")).expect("a link");
        let script = root().join("tests/tools/grpcurl");
        let built = Command::new(script).stderr(Stdio::inherit()).output();
        let built = built.expect("tests/tools/grpcurl");
        assert!(built.status.success(), "grpcurl is not built");
        let grpcurl = String::from_utf8(built.stdout).expect("a path");
        std::os::unix::fs::symlink(grpcurl.trim(), bin.join("grpcurl")).expect("a link");
        let address = format!("127.0.0.1:{}", free_port());
        Self { bin, work, address }
    }

    /// The block in bash, on the addresses of this test.
    fn command(&self, block: &str) -> Command {
        let script = block
            .replace("127.0.0.1:50051", &self.address)
            .replace(
                "mongodb://localhost/todos?replicaSet=rs0",
                &mongo().uri("readme"),
            )
            .replace("redis-cluster://localhost:7000", &redis_cluster().url());
        let path = std::env::var("PATH").expect("a PATH");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "bash", "-e", "-c", &script])
            .current_dir(&self.work)
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("TIDEMARK_LISTEN", &self.address)
            .env("TIDEMARK_METRICS_LISTEN", "off")
            .env("TIDEMARK_SERVER", &self.address)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    fn run(&self, block: &str) -> String {
        let out = self.command(block).output().expect("bash");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(out.status.success(), "{block}\n{text}");
        text
    }

    async fn serve(&self, block: &str) -> Child {
        let mut service = self.command(block);
        // A group of its own: bash may keep the service as its child.
        service.process_group(0);
        let service = service.stdout(Stdio::null()).spawn().expect("bash");
        let address = format!("http://{}", self.address);
        eventually("readiness", START_LIMIT, async || {
            (health_at(&address).await == Some(SERVING)).then_some(())
        })
        .await;
        service
    }
}

/// What health says at this address; `None` if nobody answers.
async fn health_at(address: &str) -> Option<i32> {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let channel = tonic::transport::Channel::from_shared(address.to_owned());
    let channel = channel.expect("an address").connect().await.ok()?;
    let mut client = HealthClient::new(channel);
    let service = "readiness".to_owned();
    let reply = client.check(HealthCheckRequest { service }).await.ok()?;
    Some(reply.into_inner().status)
}

fn stop(mut child: Child) {
    let group = format!("-{}", child.id());
    let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
    assert!(killed.expect("kill").success());
    let _ = child.wait();
}

#[tokio::test]
async fn every_block_of_the_readme_runs_as_pasted() {
    let shell = Shell::new();
    let mut service: Option<Child> = None;
    let mut kinds = Vec::new();
    for block in blocks() {
        let kind = block
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ");
        match kind.as_str() {
            "tidemark serve" => {
                service.take().into_iter().for_each(stop);
                service = Some(shell.serve(&block).await);
            }
            "grpcurl -plaintext" => {
                // A watch ends with the deadline that the line sets.
                for line in block.lines() {
                    let is_watch = line.contains("-max-time");
                    let line = if is_watch {
                        format!("{line} || true")
                    } else {
                        line.to_owned()
                    };
                    let text = shell.run(&line);
                    assert!(text.contains('{') || is_watch, "{line}: {text}");
                }
            }
            "curl -H" => {
                for line in block.lines() {
                    let text = shell.run(line);
                    let went_well = text.contains("\"token\"") || text.contains("SERVING");
                    assert!(went_well, "{line}: {text}");
                }
            }
            "tidemark add" => {
                let text = shell.run(
                    &block.replace("tidemark status", "tidemark status --metrics 127.0.0.1:1"),
                );
                assert!(
                    text.contains("Buy bread") && text.contains("readiness"),
                    "{text}"
                );
            }
            "tidemark key" => {
                service.take().into_iter().for_each(stop);
                let (keys, serve) = block.rsplit_once('\n').expect("several lines");
                drop(shell.run(keys));
                service = Some(shell.serve(serve.trim_end_matches(" &")).await);
            }
            "until tidemark" => {
                let block =
                    block.replace("tidemark status", "tidemark status --metrics 127.0.0.1:1");
                let text = shell.run(&block);
                assert!(text.contains("Water the tomatoes"), "{text}");
                let ada = block.lines().nth(1).expect("several lines");
                let nobody = ada.replace(" --api-key-file ada.key", "");
                let out = shell.command(&nobody).output().expect("bash");
                let text = String::from_utf8_lossy(&out.stderr);
                assert!(text.contains("CALLER_UNKNOWN"), "{text}");
            }
            "tidemark generate" => {
                let text = shell.run(&block.replace("200000", "2000"));
                assert!(text.contains("2000 imported"), "{text}");
            }
            "cargo install" => drop(shell.run(&block)),
            "./test servers" => {
                let mut servers = Command::new("bash");
                servers
                    .args(["-e", "-c", &format!("exec {block}")])
                    .current_dir(root());
                // A target directory elsewhere must not matter.
                servers.env("CARGO_TARGET_DIR", shell.work.join("elsewhere"));
                let mut servers = servers.stdout(Stdio::piped()).spawn().expect("bash");
                let mut line = String::new();
                let mut out = BufReader::new(servers.stdout.take().expect("stdout"));
                out.read_line(&mut line).expect("a line");
                let pid = servers.id().to_string();
                let ended = Command::new("kill").args(["-TERM", &pid]).status();
                assert!(ended.expect("kill").success() && servers.wait().expect("ended").success());
                assert!(
                    line.starts_with("export MONGODB_URI='mongodb://127.0.0.1"),
                    "{line}"
                );
            }
            // What runs this test.
            "./test" => {}
            other => panic!("no test runs the block that begins with {other:?}: add it here"),
        }
        kinds.push(kind);
    }
    service.take().into_iter().for_each(stop);
    assert!(kinds.len() >= 8, "{kinds:?}");
}

/// What `serve` prints to try it works as it is pasted, with keys too.
#[tokio::test]
async fn the_printed_examples_run_as_pasted() {
    let shell = Shell::new();
    shell.run("tidemark key new user:ada > new; head -n 1 new > ada.key; tail -n 1 new > keys");
    for (data, auth) in [("open", ""), ("closed", "--auth keys --keys-file keys")] {
        let serve =
            format!("exec tidemark serve --data-dir {data} {auth} > serve.out 2> serve.err");
        let service = shell.serve(&serve).await;
        let examples = eventually("examples", START_LIMIT, async || {
            let text = fs::read_to_string(shell.work.join("serve.out")).ok()?;
            let lines: Vec<_> = text
                .lines()
                .filter(|line| line.contains("grpcurl"))
                .collect();
            (lines.len() >= 3).then(|| lines.join("\n"))
        })
        .await;
        let output = shell.run(&format!("KEY=$(cat ada.key)\n{examples}"));
        // Created, read and listed.
        assert_eq!(output.matches("Buy milk").count(), 3, "{output}");
        stop(service);
    }
}

/// The scripts that `./test` runs do not install anything on their own, when somebody
/// runs one alone: without a terminal they end, and in a terminal they ask.
#[test]
fn nothing_is_installed_without_a_question() {
    let bin = folder("bin");
    let ran = bin.join("ran");
    for name in ["apt-get", "sudo"] {
        let path = bin.join(name);
        let text = format!("#!/bin/sh\necho \"$0 $*\" >>{}\n", ran.display());
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let script = bin.join("alone");
    let text =
        "set -eu; clients=clients; . clients/tools.sh; needs no-such-program no-such-package";
    fs::write(&script, text).expect("written");
    let bash = format!("bash {}", script.display());
    let path = std::env::var("PATH").expect("a PATH");
    let path = format!("{}:{path}", bin.display());
    let in_terminal = [
        "script",
        "--quiet",
        "--return",
        "--command",
        &bash,
        "/dev/null",
    ];
    let without = ["bash", "-c", &bash];
    for (command, typed) in [(&without[..], ""), (&in_terminal[..], "n\n")] {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .current_dir(root())
            .env("PATH", &path)
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a program");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(typed.as_bytes()).expect("written");
        // Open until the end: `script` takes the end of its input for that of the terminal.
        let out = child.wait_with_output().expect("ended");
        drop(stdin);
        let shown = [out.stdout, out.stderr].concat();
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(out.status.code(), Some(1), "{shown}");
        assert!(shown.contains("no-such-package"), "{shown}");
        assert!(shown.contains("install it yourself"), "{shown}");
        assert!(
            !ran.exists(),
            "{shown}\n{}",
            fs::read_to_string(&ran).unwrap_or_default()
        );
    }
}
