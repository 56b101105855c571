//! Real servers for tests: a MongoDB replica set of three, a Redis Cluster of
//! six, and the service itself, on free ports of this machine. One set for a
//! test binary, started when first asked for. A thread that lives as long as
//! the process starts them, each with a signal for the death of its parent: so
//! none outlives a test that fails or is killed.

#![allow(dead_code, reason = "each test binary uses its part of it")]

pub mod memory;

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use mongodb::bson::{Document, doc};

use self::memory::MemoryLimit;

/// The service's binary; an example has none.
const BINARY: Option<&str> = option_env!("CARGO_BIN_EXE_tidemark");

/// The service's binary, or another build of it, such as one with optimizations.
pub fn tidemark_binary() -> PathBuf {
    let other = std::env::var_os("TEST_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| BINARY.expect("a test has the binary").into())
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs a job on the thread that is the parent of all servers.
fn on_keeper<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || queue.into_iter().for_each(|job| job()));
        Mutex::new(jobs)
    });
    let (reply, answer) = mpsc::channel();
    let job = Box::new(move || drop(reply.send(job())));
    keeper
        .lock()
        .expect("the keeper")
        .send(job)
        .expect("the keeper lives");
    answer.recv().expect("the keeper answers")
}

/// Starts a child that dies with this process.
pub fn spawn(
    program: &Path,
    args: &[String],
    envs: &[(String, String)],
    streams: (Stdio, Stdio),
) -> Child {
    spawn_by(&[], program, args, envs, streams)
}

/// Sends a signal, such as `-STOP`.
fn signal(child: &Mutex<Child>, signal: &str) {
    let pid = child.lock().expect("the child").id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status();
    assert!(sent.expect("kill").success());
}

/// Ends a process with SIGKILL.
fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().expect("the child");
    child.kill().expect("killed");
    child.wait().expect("waited for");
}

/// The same by a command that becomes the program, such as `nice`.
fn spawn_by(
    by: &[String],
    program: &Path,
    args: &[String],
    envs: &[(String, String)],
    (stdout, stderr): (Stdio, Stdio),
) -> Child {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .args(by)
        .arg(program)
        .args(args)
        .envs(envs.iter().cloned());
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    on_keeper(move || command.spawn().expect("setpriv of util-linux is there"))
}

/// A port that nobody listens on. Below those that the kernel gives to outgoing
/// connections, or one of them could take it before its server has; and each
/// test process begins elsewhere, so that two of them do not meet.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const PORTS: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < PORTS, "no port is free");
        let port = u16::try_from(FIRST + begin.wrapping_add(step) % PORTS).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where the folders of the servers lie. An example has no folder of cargo's.
fn scratch() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Removes what test processes that are gone have left: a gigabyte each.
fn clear_leftovers() {
    for entry in std::fs::read_dir(scratch()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix("tidemark-")
            .and_then(|name| name.rsplit('-').nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test process may be about to do the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder of its own for each caller.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static CLEARED: OnceLock<()> = OnceLock::new();
    CLEARED.get_or_init(clear_leftovers);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = scratch().join(format!("tidemark-{name}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The least time that [`eventually`] waits. How soon something happens depends on what
/// else the machine does: a second of its CPU may take four, and a server may get none for
/// two. Below the default staleness limit of 15 s, after which a replica loads again also
/// what it did not hear of.
const LEAST_LIMIT: Duration = Duration::from_secs(12);
/// How often something is tried that a busy machine may spoil.
const TRIES: usize = 5;

/// Waits until something holds, for `limit` or [`LEAST_LIMIT`], whichever is longer. What
/// must be quick is measured by [`quickly`].
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    let limit = limit.max(LEAST_LIMIT);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            began.elapsed() < limit,
            "{what} did not happen within {limit:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Does something several times until it takes less than `limit`. Other work on the
/// machine delays some of the tries; what is slow by itself is slow at each of them.
pub async fn quickly<T>(what: &str, limit: Duration, mut work: impl AsyncFnMut() -> T) -> T {
    at_some_try(what, async || {
        let began = Instant::now();
        let done = work().await;
        let took = began.elapsed();
        if took < limit { Ok(done) } else { Err(took) }
    })
    .await
}

/// Does something several times until it succeeds once. For what holds only while nothing
/// else delays it.
pub async fn at_some_try<T, E: std::fmt::Debug>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut failed = Vec::new();
    for _ in 0..TRIES {
        match attempt().await {
            Ok(done) => return done,
            Err(why) => failed.push(why),
        }
    }
    panic!("{what}: at none of {TRIES} tries: {failed:?}");
}

/// What stands at this URL of metrics.
pub fn scrape(url: &str) -> String {
    let address = url
        .trim_start_matches("http://")
        .trim_end_matches("/metrics");
    let mut stream = TcpStream::connect(address).expect("connected");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

/// A server that this process started.
pub struct Server {
    child: Mutex<Child>,
    /// Its port on 127.0.0.1.
    pub port: u16,
    program: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// Starts a program that is told elsewhere to listen on this port.
    pub fn start(program: PathBuf, port: u16, args: Vec<String>) -> Self {
        let child = Mutex::new(spawn(&program, &args, &[], (Stdio::null(), Stdio::null())));
        Self {
            child,
            port,
            program,
            args,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("the child").id()
    }

    /// The port of a Redis Cluster node for the other nodes.
    pub fn bus_port(&self) -> u16 {
        let at = self.args.iter().position(|arg| arg == "--cluster-port");
        let port = at.and_then(|at| self.args.get(at + 1));
        port.and_then(|port| port.parse().ok())
            .expect("a cluster node")
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        signal(&self.child, "-STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        signal(&self.child, "-CONT");
    }

    /// SIGKILL.
    pub fn kill(&self) {
        kill(&self.child);
    }

    /// Starts it again after it was killed.
    pub fn restart(&self) {
        *self.child.lock().expect("the child") = spawn(
            &self.program,
            &self.args,
            &[],
            (Stdio::null(), Stdio::null()),
        );
    }
}

/// A binary by a variable, from PATH, or from the cache that `./test` fills.
pub fn binary(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    });
    let home = std::env::var("HOME").unwrap_or_default();
    let cached = Path::new(&home)
        .join(".cache/tidemark/mongod-6.0.5")
        .join(name);
    on_path
        .or(cached.is_file().then_some(cached))
        .unwrap_or_else(|| panic!("{name} is not installed: run ./test"))
}

/// A replica set of three.
pub struct Mongo {
    pub nodes: Vec<Server>,
    /// The port of each node in the set's configuration, where everybody
    /// looks for it: its own, or that of a proxy.
    pub ports: Vec<u16>,
}

impl Mongo {
    /// The URI with a database of this name.
    pub fn uri(&self, database: &str) -> String {
        let hosts: Vec<_> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        format!("mongodb://{}/{database}?replicaSet=tests", hosts.join(","))
    }

    /// A plain client: somebody who edits the database by hand.
    pub async fn client(&self) -> mongodb::Client {
        mongodb::Client::with_uri_str(self.uri("admin"))
            .await
            .expect("connected")
    }

    /// The `todos` collection of a database.
    pub async fn todos(&self, database: &str) -> mongodb::Collection<Document> {
        self.client().await.database(database).collection("todos")
    }

    /// A set of its own, of this many nodes with an oplog of this many MB. Nobody stops its
    /// primary, and so there is no election while the machine is busy.
    pub fn start(nodes: usize, oplog_mb: u32) -> Self {
        Self::start_with(nodes, oplog_mb, |port| port, false)
    }

    /// The same behind proxies: `front` gives the port of the one before a
    /// node. A primary that was lost is replaced soon.
    pub fn start_behind(nodes: usize, oplog_mb: u32, front: impl FnMut(u16) -> u16) -> Self {
        Self::start_with(nodes, oplog_mb, front, true)
    }

    fn start_with(
        nodes: usize,
        oplog_mb: u32,
        front: impl FnMut(u16) -> u16,
        elects: bool,
    ) -> Self {
        let nodes: Vec<_> = (0..nodes).map(|_| Self::node(oplog_mb)).collect();
        let ports: Vec<_> = nodes.iter().map(|node| node.port).map(front).collect();
        let members = ports
            .iter()
            .zip(0..)
            .map(|(port, id): (&u16, i32)| doc! { "_id": id, "host": format!("127.0.0.1:{port}") });
        let members: Vec<_> = members.collect();
        let port = nodes[0].port;
        let config = doc! { "_id": "tests", "members": members, "settings": { "electionTimeoutMillis": 2000 } };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
            runtime.block_on(async {
                initiate(&uri, config.clone()).await;
                if !elects && config.get_array("members").is_ok_and(|all| all.len() > 1) {
                    keep_primary(&uri, config).await;
                }
            });
        })
        .join()
        .expect("initiated");
        Self { nodes, ports }
    }

    fn node(oplog_mb: u32) -> Server {
        // For fail points.
        let more = ["--setParameter", "enableTestCommands=1"];
        mongod_of_a_set(oplog_mb, &more)
    }
}

/// A mongod of the replica set `tests`, not initiated yet. `more` are its arguments
/// beside those that all have.
pub fn mongod_of_a_set(oplog_mb: u32, more: &[&str]) -> Server {
    let (port, folder) = (free_port(), folder("mongod"));
    let (port_text, oplog_mb) = (port.to_string(), oplog_mb.to_string());
    let (dbpath, log) = (
        folder.display().to_string(),
        folder.join("log").display().to_string(),
    );
    let common = [
        "--replSet",
        "tests",
        "--bind_ip",
        "127.0.0.1",
        "--port",
        &port_text,
        "--dbpath",
        &dbpath,
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--oplogSize",
        &oplog_mb,
        "--quiet",
        "--logpath",
        &log,
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
        "--nounixsocket",
    ];
    let args = common.iter().chain(more).map(|arg| (*arg).to_owned());
    Server::start(binary("mongod"), port, args.collect())
}

/// A mongod that is no replica set.
pub fn standalone_mongod() -> Server {
    let (port, folder) = (free_port(), folder("mongod"));
    let (port_text, path) = (port.to_string(), folder.display().to_string());
    let args = [
        "--bind_ip",
        "127.0.0.1",
        "--port",
        &port_text,
        "--dbpath",
        &path,
        "--nounixsocket",
        "--quiet",
    ];
    Server::start(
        binary("mongod"),
        port,
        args.iter().map(|arg| (*arg).to_owned()).collect(),
    )
}

/// Time for the start of a set, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Makes a replica set, asking the node of this URI.
pub async fn initiate(uri: &str, config: Document) {
    /// `AlreadyInitialized`: an earlier try was answered too late.
    const INITIATED: &str = "AlreadyInitialized";
    let client = mongodb::Client::with_uri_str(uri).await.expect("a client");
    let admin = client.database("admin");
    eventually("the start of all nodes", START_LIMIT, async || {
        let command = doc! { "replSetInitiate": config.clone() };
        match admin.run_command(command).await {
            Ok(_) => Some(()),
            Err(error) if error.to_string().contains(INITIATED) => Some(()),
            // This node or some of the others do not listen yet.
            Err(error) => {
                eprintln!("not initiated: {error}");
                None
            }
        }
    })
    .await;
    eventually("a primary", START_LIMIT, async || {
        let hello = admin.run_command(doc! { "hello": 1 }).await.ok()?;
        hello.get_str("primary").is_ok().then_some(())
    })
    .await;
}

/// Has the members of a set wait long for each other. With the timeout that makes the first
/// election quick, a primary steps down when a busy machine stops it for two seconds.
async fn keep_primary(uri: &str, mut config: Document) {
    config.insert("version", 2);
    config.insert(
        "settings",
        doc! { "electionTimeoutMillis": 60_000, "heartbeatTimeoutSecs": 60 },
    );
    eventually("patient members", START_LIMIT, async || {
        let client = mongodb::Client::with_uri_str(uri).await.ok()?;
        let admin = client.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await.ok()?;
        let primary = hello.get_str("primary").ok()?;
        let uri = format!("mongodb://{primary}/?directConnection=true");
        let client = mongodb::Client::with_uri_str(uri).await.ok()?;
        let admin = client.database("admin");
        // Refused until the members have the first configuration.
        let command = doc! { "replSetReconfig": config.clone() };
        match admin.run_command(command).await {
            Ok(_) => Some(()),
            Err(error) => {
                eprintln!("not configured: {error}");
                None
            }
        }
    })
    .await;
}

/// The replica set of this test binary.
pub fn mongo() -> &'static Mongo {
    static MONGO: OnceLock<Mongo> = OnceLock::new();
    MONGO.get_or_init(|| Mongo::start(3, 200))
}

/// A Redis Cluster, by default of three masters with a replica each.
pub struct RedisCluster {
    pub nodes: Vec<Server>,
    /// The port that each node announces: its own, or that of a proxy.
    pub ports: Vec<u16>,
}

fn start_redis(port: u16, more: &[&str]) -> Server {
    let (port_text, dir) = (port.to_string(), folder("redis").display().to_string());
    let args = [
        "--port",
        &port_text,
        "--bind",
        "127.0.0.1",
        "--dir",
        &dir,
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let args = args.iter().chain(more).map(|arg| (*arg).to_owned());
    Server::start(binary("redis-server"), port, args.collect())
}

fn start_cluster_node(port: u16, announced: u16) -> Server {
    start_redis(
        port,
        &[
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-port",
            &free_port().to_string(),
            "--cluster-announce-ip",
            "127.0.0.1",
            "--cluster-announce-port",
            &announced.to_string(),
        ],
    )
}

/// Waits until somebody listens at the port, on any address of this machine.
fn listens(port: u16) {
    let began = Instant::now();
    let open = |host: &str| TcpStream::connect((host, port)).is_ok();
    while !open("127.0.0.1") && !open("::1") {
        assert!(
            began.elapsed() < START_LIMIT,
            "nobody listens at port {port}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// A standalone Redis with more arguments, at this port.
pub fn redis_with(port: u16, more: &[&str]) -> Server {
    let node = start_redis(port, more);
    listens(port);
    node
}

/// A node of a cluster that knows no other yet.
pub fn redis_cluster_node(port: u16) -> Server {
    let node = start_cluster_node(port, port);
    listens(port);
    node
}

/// Runs a command on a Redis node.
pub fn redis_cli(port: u16, args: &[&str]) -> String {
    let out = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(args)
        .output()
        .expect("redis-cli");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

impl RedisCluster {
    /// A cluster of so many nodes, with so many replicas for each master.
    pub fn start(nodes: usize, replicas: usize) -> Self {
        Self::create(nodes, replicas, |port| port)
    }

    /// A cluster of three masters with a replica each whose nodes wait long for each other:
    /// no master is replaced while a busy machine stops it.
    pub fn steady() -> Self {
        let cluster = Self::start(6, 1);
        for node in &cluster.nodes {
            // Not from the start: it would take long until all know each other.
            redis_cli(
                node.port,
                &["config", "set", "cluster-node-timeout", "60000"],
            );
        }
        cluster
    }

    /// A cluster behind proxies: `front` gives the port of the one before a
    /// node. A master that was lost is replaced soon.
    pub fn start_behind(front: impl FnMut(u16) -> u16) -> Self {
        Self::create(6, 1, front)
    }

    fn create(count: usize, replicas: usize, mut front: impl FnMut(u16) -> u16) -> Self {
        let (mut nodes, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let port = free_port();
            let announced = front(port);
            ports.push(announced);
            nodes.push(start_cluster_node(port, announced));
        }
        let began = Instant::now();
        while nodes
            .iter()
            .any(|node| redis_cli(node.port, &["ping"]) != "PONG")
        {
            assert!(
                began.elapsed() < START_LIMIT,
                "the Redis nodes do not answer"
            );
            thread::sleep(Duration::from_millis(50));
        }
        let hosts: Vec<_> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&hosts)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .output()
            .expect("redis-cli");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stdout)
        );
        while nodes
            .iter()
            .any(|node| !redis_cli(node.port, &["cluster", "info"]).contains("cluster_state:ok"))
        {
            assert!(
                began.elapsed() < START_LIMIT * 2,
                "the Redis Cluster does not come up"
            );
            thread::sleep(Duration::from_millis(50));
        }
        Self { nodes, ports }
    }

    /// The URL for the service.
    pub fn url(&self) -> String {
        let more: Vec<_> = self.ports[1..]
            .iter()
            .map(|port| format!("node=127.0.0.1:{port}"))
            .collect();
        format!(
            "redis-cluster://127.0.0.1:{}?{}",
            self.ports[0],
            more.join("&")
        )
    }

    /// Every key with its raw value, by the node that has it.
    pub fn keys(&self) -> Vec<(u16, String)> {
        let keys = |node: &Server| {
            let port = node.port;
            let keys = redis_cli(port, &["keys", "*"]);
            keys.lines()
                .filter(|key| !key.is_empty())
                .map(|key| (port, key.to_owned()))
                .collect::<Vec<_>>()
        };
        self.masters().into_iter().flat_map(keys).collect()
    }

    /// The nodes that are masters now.
    pub fn masters(&self) -> Vec<&Server> {
        self.nodes
            .iter()
            .filter(|node| redis_cli(node.port, &["role"]).starts_with("master"))
            .collect()
    }
}

/// The cluster of this test binary.
pub fn redis_cluster() -> &'static RedisCluster {
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    CLUSTER.get_or_init(RedisCluster::steady)
}

/// A standalone Redis of its own.
pub fn redis() -> Server {
    redis_with(free_port(), &[])
}

/// The service.
pub struct Tidemark {
    child: Mutex<Child>,
    /// Where it listens, as in `http://127.0.0.1:50051`.
    pub address: String,
    /// Where its metrics are.
    pub metrics: String,
    log: Arc<Mutex<Vec<String>>>,
    /// `None`: it may use all memory of the machine.
    limit: Option<MemoryLimit>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("the child");
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Tidemark {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("the child");
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Tidemark {
    /// Starts `tidemark serve` with these arguments, on ports of its own.
    pub fn start(args: &[&str]) -> Self {
        Self::start_within(None, args)
    }

    /// The same within a limit of memory.
    pub fn start_within(limit: Option<MemoryLimit>, args: &[&str]) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        let mut started = Self::launch_within(limit, args, &[], move |line| {
            eprintln!("  | {line}");
            kept.lock().expect("the log").push(line.to_owned());
        });
        started.log = log;
        started
    }

    /// The same, with every line of its log handed on.
    pub fn start_logged(args: &[&str], log: impl Fn(&str) + Send + 'static) -> Self {
        Self::launch(args, &[], log)
    }

    /// The same with these environment variables.
    pub fn start_with(args: &[&str], envs: &[(String, String)]) -> Self {
        Self::launch(args, envs, |line| eprintln!("  | {line}"))
    }

    /// The same with environment variables and every line of its log.
    pub fn launch(
        args: &[&str],
        envs: &[(String, String)],
        log: impl Fn(&str) + Send + 'static,
    ) -> Self {
        Self::launch_within(None, args, envs, log)
    }

    fn launch_within(
        limit: Option<MemoryLimit>,
        args: &[&str],
        envs: &[(String, String)],
        log: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let mut all: Vec<String> = vec!["serve".into()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        for flag in ["--listen", "--metrics-listen"] {
            if !args.contains(&flag) {
                all.extend([flag.to_owned(), "127.0.0.1:0".to_owned()]);
            }
        }
        let by = limit.as_ref().map(MemoryLimit::command);
        let mut child = spawn_by(
            &by.unwrap_or_default(),
            &tidemark_binary(),
            &all,
            envs,
            (Stdio::piped(), Stdio::piped()),
        );
        let stderr = child.stderr.take().expect("stderr");
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log(&line);
            }
        });
        let mut out = BufReader::new(child.stdout.take().expect("stdout"))
            .lines()
            .map_while(Result::ok);
        let mut told = |prefix: &str| {
            let line = out
                .next()
                .unwrap_or_else(|| panic!("the service ended before it listened"));
            line.strip_prefix(prefix)
                .unwrap_or_else(|| panic!("{line:?} instead of {prefix:?}"))
                .to_owned()
        };
        let (address, metrics) = (told("tidemark listens on "), told("metrics on "));
        // Somebody has to read on, or it would be told that nobody does.
        thread::spawn(move || out.count());
        Self {
            child: Mutex::new(child),
            address,
            metrics,
            log: Arc::default(),
            limit,
        }
    }

    /// The limit of its memory.
    pub const fn memory_limit(&self) -> Option<&MemoryLimit> {
        self.limit.as_ref()
    }

    /// The most memory that it had resident so far, in bytes; `None`: it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        memory::peak_resident(self.pid())
    }

    /// What stands at its `/metrics`.
    pub fn metrics_text(&self) -> String {
        scrape(&self.metrics)
    }

    /// The sum of the metrics whose lines begin so, labels included.
    pub fn metric(&self, begin: &str) -> u64 {
        let text = self.metrics_text();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(begin))
            .collect();
        assert!(!lines.is_empty(), "{begin} is not in\n{text}");
        lines
            .iter()
            .map(|line| {
                line.rsplit(' ')
                    .next()
                    .expect("a value")
                    .parse::<u64>()
                    .expect("a count")
            })
            .sum()
    }

    /// Lines of its log at this level, such as `ERROR`.
    pub fn log(&self, level: &str) -> Vec<String> {
        let level = format!("\"level\":\"{level}\"");
        self.log
            .lock()
            .expect("the log")
            .iter()
            .filter(|line| line.contains(&level))
            .cloned()
            .collect()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("the child").id()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal(&self.child, "-TERM");
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        signal(&self.child, "-STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        signal(&self.child, "-CONT");
    }

    /// SIGKILL.
    pub fn kill(&self) {
        kill(&self.child);
    }

    /// Its exit code, once it has ended.
    pub async fn exit_code(&self, limit: Duration) -> Option<i32> {
        eventually("the end of the service", limit, async || {
            self.child
                .lock()
                .expect("the child")
                .try_wait()
                .expect("waited for")
        })
        .await
        .code()
    }
}
