//! Three service processes, three mongod and six Redis nodes, with a proxy
//! before every server.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::{Client as Plain, options::ClientOptions};

use crate::{
    api::{self, Client, Key},
    pair::Pair,
    proxy::{self, Way},
    rights,
    support::{Mongo, RedisCluster, Tidemark, folder, free_port},
};

pub const DATABASE: &str = "faults";
pub const REPLICAS: usize = 3;
/// The replica whose Redis is the pair behind one address; the others share the cluster.
pub const BEHIND_ONE_ADDRESS: usize = 1;
/// The replica that is set to answer stale when the origin is away.
pub const STALE_IF_ERROR: usize = 2;

/// The file with the keys of the callers, in the folder of the logs.
const KEYS: &str = "keys";
/// The administrator.
const ROOT: &str = "user:root";

fn keys_file() -> String {
    let line = |principal: &str, key: Key| {
        let hash = blake3::hash(key.0.as_bytes()).to_hex();
        format!("{principal} = {hash}\n")
    };
    line(ROOT, api::ADMIN) + &line(rights::GUEST, api::GUEST)
}

/// A splitmix64 generator: the same seed gives the same numbers.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("small")
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What the replicas logged.
#[derive(Default)]
pub struct Log {
    pub warnings: AtomicU64,
    pub errors: Mutex<Vec<String>>,
}

pub struct Replica {
    pub index: usize,
    address: String,
    args: Vec<String>,
    service: Mutex<Option<Arc<Tidemark>>>,
    log: Arc<Log>,
    file: PathBuf,
}

impl Replica {
    fn new(
        index: usize,
        [mongo, redis]: [String; 2],
        limit: Duration,
        logs: &Path,
        log: &Arc<Log>,
    ) -> Arc<Self> {
        let listen = format!("127.0.0.1:{}", free_port());
        let limit = format!("{}ms", limit.as_millis());
        let keys = logs.join(KEYS).display().to_string();
        let settings = [
            ("--listen", listen.as_str()),
            ("--mongodb-uri", &mongo),
            ("--redis-url", &redis),
            ("--staleness-limit", &limit),
            ("--near-capacity", "16MiB"),
            // Many connections end in each run.
            ("--max-connection-age", "1m"),
            ("--auth", "keys"),
            ("--keys-file", &keys),
            ("--admin", ROOT),
        ];
        let stale = (index == STALE_IF_ERROR).then_some(("--stale-if-error", "10m"));
        let args = settings.into_iter().chain(stale);
        let args = args.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]);
        Arc::new(Self {
            index,
            args: args.collect(),
            address: format!("http://{listen}"),
            service: Mutex::default(),
            log: Arc::clone(log),
            file: logs.join(format!("replica-{index}.log")),
        })
    }

    pub fn client(&self) -> Client {
        api::client(&self.address, api::ADMIN)
    }

    pub fn client_of(&self, key: Key) -> Client {
        api::client(&self.address, key)
    }

    pub fn service(&self) -> Arc<Tidemark> {
        self.service
            .lock()
            .expect("the service")
            .clone()
            .expect("it runs")
    }

    /// Starts it, on the port it always had.
    pub async fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = this.args.iter().map(String::as_str).collect();
            let file = File::options()
                .append(true)
                .create(true)
                .open(&this.file)
                .expect("a log");
            let log = Arc::clone(&this.log);
            let index = this.index;
            let file = Mutex::new(file.try_clone().expect("a log"));
            Tidemark::start_logged(&args, move |line| {
                if line.contains("\"level\":\"WARN\"") {
                    log.warnings.fetch_add(1, Ordering::Relaxed);
                } else if line.contains("\"level\":\"ERROR\"") || line.contains("panicked") {
                    eprintln!("replica {index}: {line}");
                    log.errors
                        .lock()
                        .expect("errors")
                        .push(format!("replica {index}: {line}"));
                }
                let _ = writeln!(file.lock().expect("a log"), "{line}");
            })
        });
        *self.service.lock().expect("the service") =
            Some(Arc::new(started.await.expect("started")));
    }

    /// Its memory in KiB, and its threads.
    pub fn memory(&self) -> (u64, u64) {
        let pid = self.service().pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next())
                .and_then(|n| n.parse().ok())
                .unwrap_or(0)
        };
        (number("VmRSS:"), number("Threads:"))
    }

    /// Tasks alive in it, as it says itself.
    pub fn tasks(&self) -> u64 {
        self.service().metric("tidemark_tasks ")
    }
}

pub struct World {
    pub mongo: Mongo,
    pub redis: RedisCluster,
    pub pair: Pair,
    pub replicas: Vec<Arc<Replica>>,
    /// The way of each replica to MongoDB.
    pub mongo_ways: Vec<Way>,
    /// Everybody's way to Redis.
    pub redis_way: Way,
    pub log: Arc<Log>,
    pub plain: Plain,
    pub limit: Duration,
}

impl World {
    pub async fn start(limit: Duration) -> Arc<Self> {
        let mongo_ways: Vec<_> = (0..REPLICAS).map(|n| Way::new(&mark(n))).collect();
        let redis_way = Way::new("");
        let (ways, redis_ways) = (mongo_ways.clone(), vec![redis_way.clone()]);
        let way = redis_way.clone();
        let (mongo, redis, pair) = tokio::task::spawn_blocking(move || {
            let mongo = Mongo::start_behind(3, 400, |port| proxy::before(port, ways.clone()));
            (
                mongo,
                RedisCluster::start_behind(|port| proxy::before(port, redis_ways.clone())),
                Pair::start(way),
            )
        })
        .await
        .expect("started");
        let log = Arc::new(Log::default());
        let logs = folder("faults");
        println!("logs of the replicas: {}", logs.display());
        std::fs::write(logs.join(KEYS), keys_file()).expect("a file of keys");
        let redis_url = |index| match index {
            BEHIND_ONE_ADDRESS => pair.url(),
            _ => redis.url(),
        };
        let replicas: Vec<_> = (0..REPLICAS)
            .map(|index| {
                let uri = format!("{}&appName={}", mongo.uri(DATABASE), mark(index));
                Replica::new(index, [uri, redis_url(index)], limit, &logs, &log)
            })
            .collect();
        for replica in &replicas {
            replica.start().await;
        }
        let plain = plain(&mongo.uri("admin"), Duration::from_secs(8)).await;
        Arc::new(Self {
            mongo,
            redis,
            pair,
            replicas,
            mongo_ways,
            redis_way,
            log,
            plain,
            limit,
        })
    }

    pub fn clients(&self) -> Vec<Client> {
        self.replicas
            .iter()
            .map(|replica| replica.client())
            .collect()
    }

    pub fn clients_of(&self, key: Key) -> Vec<Client> {
        self.replicas
            .iter()
            .map(|replica| replica.client_of(key))
            .collect()
    }

    /// A client of one mongod alone.
    pub async fn node(&self, index: usize) -> Plain {
        let uri = format!(
            "mongodb://127.0.0.1:{}/?directConnection=true",
            self.mongo.nodes[index].port
        );
        plain(&uri, Duration::from_millis(300)).await
    }

    /// Which mongod is the primary, as it says itself.
    pub async fn primary(&self) -> usize {
        let began = Instant::now();
        loop {
            for index in 0..self.mongo.nodes.len() {
                if is_primary(&self.node(index).await).await {
                    return index;
                }
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "there is no primary"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub async fn is_primary(node: &Plain) -> bool {
    let admin = node.database("admin");
    let hello = admin.run_command(mongodb::bson::doc! { "hello": 1 });
    let hello = tokio::time::timeout(Duration::from_millis(300), async { hello.await }).await;
    matches!(hello, Ok(Ok(hello)) if hello.get_bool("isWritablePrimary").unwrap_or(false))
}

/// A plain client: somebody who does not know of this service.
pub async fn plain(uri: &str, selection: Duration) -> Plain {
    let mut options = ClientOptions::parse(uri).await.expect("a URI");
    options.server_selection_timeout = Some(selection);
    options.connect_timeout = Some(Duration::from_secs(1));
    options.write_concern = Some(mongodb::options::WriteConcern::majority());
    Plain::with_options(options).expect("a client")
}

/// The application's name of a replica, as MongoDB sees it.
pub fn mark(index: usize) -> String {
    format!("faults-replica-{index}")
}
