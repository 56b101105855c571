//! The settings: one table of them, parsed once and whole. A flag beats the
//! environment, the environment beats the file, the file beats the default.

mod files;

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    budget::{self, Plan},
    tls::{ClientFiles, ServerFiles},
};

/// What `tidemark serve` runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where metrics are served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where health alone is served, without TLS; `None`: nowhere.
    pub health_listen: Option<SocketAddr>,
    /// TLS for gRPC; `None`: without.
    pub tls: Option<ServerFiles>,
    /// Pages that may call by grpc-web; `None`: grpc-web is off.
    pub cors_allow_origins: Option<AllowedOrigins>,
    /// The MongoDB origin; `None`: the embedded store in `data_dir`.
    pub mongodb_uri: Option<Secret>,
    /// The shared tier; `None`: without one.
    pub redis_url: Option<Secret>,
    /// TLS to the shared tier, if its URL asks for it.
    pub redis_tls: ClientFiles,
    /// Where the embedded store lies.
    pub data_dir: PathBuf,
    /// Most bytes of the near tier.
    pub near_capacity: u64,
    /// No unmarked answer misses a write acknowledged longer ago.
    pub staleness_limit: Duration,
    /// Time from one heartbeat to the next.
    pub heartbeat_interval: Duration,
    /// How much of the feed is replayed at start, and how long shared entries live.
    pub replay_window: Duration,
    /// How long an overtaken page may still be answered.
    pub list_grace: Duration,
    /// Part of the key of every shared entry: another number, another cache.
    pub cache_epoch: u64,
    /// How old an answer may be when the origin cannot be asked; `None`: not at all.
    pub stale_if_error: Option<Duration>,
    /// Most time from SIGTERM to the end.
    pub drain_timeout: Duration,
    /// Most loads at the origin at once.
    pub max_origin_loads: usize,
    /// Most memory of the process, in bytes; `None`: no limit.
    pub memory_limit: Option<u64>,
    /// Most connections for gRPC at once.
    pub max_connections: usize,
    /// Most connections for gRPC at once from one address.
    pub max_connections_per_address: usize,
    /// Age at which a connection is closed gracefully; `None`: at none.
    pub max_connection_age: Option<Duration>,
    /// One of so many cached answers is verified; 0: none.
    pub verify_one_in: u64,
}

impl Config {
    /// How the memory limit is split.
    ///
    /// # Errors
    /// The settings do not fit into the limit.
    pub fn memory_plan(&self) -> Result<Plan, budget::DoesNotFit> {
        Plan::new(self.memory_limit, self.near_capacity)
    }
}

/// The pages in a browser that may call by grpc-web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Those of every origin.
    Any,
    /// Those of these origins, each as in `https://todos.example`.
    These(Vec<String>),
}

/// A value with a password in it: never printed.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// One setting: a flag `--name`, an environment variable, a key of the file.
pub struct Setting {
    /// Its name as a flag.
    pub name: &'static str,
    /// What it is when nobody sets it; empty: nothing.
    pub default: &'static str,
    /// What it does, and why the default is what it is.
    pub help: &'static str,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        default,
        help,
    }
}

/// All settings of `serve`.
pub const SETTINGS: [Setting; 27] = [
    setting(
        "listen",
        "127.0.0.1:50051",
        "Address and port for gRPC; only this machine, unless told otherwise",
    ),
    setting(
        "metrics-listen",
        "127.0.0.1:9464",
        "Address and port for Prometheus metrics at /metrics, or `off`",
    ),
    setting(
        "health-listen",
        "off",
        "Address and port for health alone, always without TLS, for probes that know none; or `off`",
    ),
    setting(
        "tls-cert",
        "",
        "PEM file of the server's certificates, its own first. Not set: no TLS",
    ),
    setting("tls-key", "", "PEM file of the key to --tls-cert"),
    setting(
        "tls-client-ca",
        "",
        "PEM file of authorities: only clients with a certificate of one of them are served. Not set: all are",
    ),
    setting(
        "cors-allow-origins",
        "off",
        "Web pages that may call by grpc-web: origins such as https://todos.example, separated by commas, or `*`; `off` for no grpc-web",
    ),
    setting(
        "mongodb-uri",
        "",
        "MongoDB replica set to use as the origin; its database, or `todos` if it names none. Not set: the embedded store",
    ),
    setting(
        "redis-url",
        "",
        "Redis for the shared tier: redis://, redis-cluster:// or redis-sentinel://, or by TLS rediss://, rediss-cluster:// or rediss-sentinel://. Not set: no shared tier",
    ),
    setting(
        "redis-tls-ca",
        "",
        "PEM file of the authorities trusted for rediss:// URLs. Not set: those of this machine",
    ),
    setting(
        "redis-tls-cert",
        "",
        "PEM file of the certificate shown to Redis, if it asks for one",
    ),
    setting(
        "redis-tls-key",
        "",
        "PEM file of the key to --redis-tls-cert",
    ),
    setting(
        "data-dir",
        "tidemark-data",
        "Folder of the embedded store; not used with --mongodb-uri",
    ),
    setting(
        "near-capacity",
        "256MiB",
        "Most memory for the cache in the process; some 400,000 todos of 400 bytes",
    ),
    setting(
        "staleness-limit",
        "15s",
        "No unmarked answer misses a write acknowledged longer ago; long enough for a MongoDB election",
    ),
    setting(
        "heartbeat-interval",
        "1s",
        "Time between heartbeats: small writes that prove freshness; a fraction of the staleness limit",
    ),
    setting(
        "replay-window",
        "10m",
        "How much of the feed is replayed at start, and how long entries live in Redis; longer than a deployment takes",
    ),
    setting(
        "list-grace",
        "200ms",
        "How long a page may be answered though its list has changed; `0s` for not at all",
    ),
    setting(
        "cache-epoch",
        "0",
        "Another number makes every entry in Redis a miss: after a restore of the database",
    ),
    setting(
        "stale-if-error",
        "off",
        "How old an answer may be, marked stale, while the database cannot be asked; `off` for none",
    ),
    setting(
        "drain-timeout",
        "25s",
        "Most time from SIGTERM to the end; less than Kubernetes' grace of 30 s",
    ),
    setting(
        "max-origin-loads",
        "256",
        "Most loads at the database at once: 4 of todos, 128 keys each, and 16 of pages are enough for any value above; 16 keys may wait for each of it",
    ),
    setting(
        "memory-limit",
        "auto",
        "Most memory of the process, such as 768MiB: sizes the budgets for requests, replies, watches and connections, and refuses to start if they cannot fit. `auto`: the limit of the cgroup (container), if there is one; `off`: no limit",
    ),
    setting(
        "max-connections",
        "4096",
        "Most connections for gRPC at once. The memory limit and the limit of open files can allow fewer",
    ),
    setting(
        "max-connections-per-address",
        "3072",
        "Most connections for gRPC at once from one IP address, so that one host cannot take all of them",
    ),
    setting(
        "max-connection-age",
        "5m",
        "Age, plus or minus 10%, at which a connection is closed gracefully, so that clients spread to new replicas; `off` for no limit",
    ),
    setting(
        "verify-one-in",
        "1000",
        "One of so many cached answers is compared with the database, off the way of requests; 0 for none. Some 100 reads a second of the database at 100,000 answers",
    ),
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The file given with `--config`.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The name of a setting's environment variable.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("TIDEMARK_{}", name.to_uppercase().replace('-', "_"))
}

/// The values in force, as texts, each with where it came from.
#[derive(Debug)]
pub struct Values(HashMap<&'static str, (String, ValueSource)>);

/// All that is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

impl Values {
    /// Gathers them: flags, then the environment, then the file.
    ///
    /// # Errors
    /// A file that cannot be read, and keys in it that are no settings.
    pub fn gather(
        flags: &HashMap<String, String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigErrors> {
        let in_file = file.map(read_file).transpose()?.unwrap_or_default();
        let value = |setting: &Setting| {
            let from_file = || {
                in_file
                    .get(setting.name)
                    .cloned()
                    .map(|value| (value, file))
            };
            if let Some(value) = flags.get(setting.name) {
                (value.clone(), ValueSource::Flag)
            } else if let Some(value) = environment(&variable(setting.name)) {
                (value, ValueSource::Environment)
            } else if let Some((value, Some(path))) = from_file() {
                (value, ValueSource::File(path.to_owned()))
            } else {
                (setting.default.to_owned(), ValueSource::Default)
            }
        };
        Ok(Self(
            SETTINGS
                .iter()
                .map(|setting| (setting.name, value(setting)))
                .collect(),
        ))
    }

    fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |(value, _)| value)
    }

    /// What is in force, one setting a line, passwords hidden.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::new();
        for setting in &SETTINGS {
            let Some((value, origin)) = self.0.get(setting.name) else {
                continue;
            };
            let value = if value.is_empty() {
                "(not set)".into()
            } else {
                without_password(value)
            };
            // A String takes everything.
            let _ = writeln!(text, "{:<20} {value:<40} # {origin}", setting.name);
        }
        text
    }

    /// The settings, parsed and checked against each other.
    ///
    /// # Errors
    /// All that is wrong, each with its value and what would be right.
    pub fn parse(&self) -> Result<Config, ConfigErrors> {
        let mut wrong = Vec::new();
        let config = Config {
            listen: self
                .one("listen", &mut wrong, address)
                .unwrap_or(([127, 0, 0, 1], 0).into()),
            metrics_listen: self
                .one("metrics-listen", &mut wrong, off_or(address))
                .flatten(),
            health_listen: self
                .one("health-listen", &mut wrong, off_or(address))
                .flatten(),
            tls: self.server_files(&mut wrong),
            cors_allow_origins: self
                .one("cors-allow-origins", &mut wrong, off_or(origins))
                .flatten(),
            mongodb_uri: self.uri("mongodb-uri", &["mongodb", "mongodb+srv"], &mut wrong),
            redis_url: self.uri("redis-url", &crate::tier::redis::SCHEMES, &mut wrong),
            redis_tls: self.redis_files(&mut wrong),
            data_dir: self.of("data-dir").into(),
            near_capacity: self
                .one("near-capacity", &mut wrong, bytes)
                .unwrap_or_default(),
            staleness_limit: self
                .one("staleness-limit", &mut wrong, duration)
                .unwrap_or_default(),
            heartbeat_interval: self
                .one("heartbeat-interval", &mut wrong, duration)
                .unwrap_or_default(),
            replay_window: self
                .one("replay-window", &mut wrong, duration)
                .unwrap_or_default(),
            list_grace: self
                .one("list-grace", &mut wrong, duration)
                .unwrap_or_default(),
            cache_epoch: self
                .one("cache-epoch", &mut wrong, number)
                .unwrap_or_default(),
            stale_if_error: self
                .one("stale-if-error", &mut wrong, off_or(duration))
                .flatten(),
            drain_timeout: self
                .one("drain-timeout", &mut wrong, duration)
                .unwrap_or_default(),
            max_origin_loads: self
                .one("max-origin-loads", &mut wrong, number)
                .unwrap_or_default(),
            memory_limit: self.one("memory-limit", &mut wrong, memory_limit).flatten(),
            max_connections: self
                .one("max-connections", &mut wrong, number)
                .unwrap_or_default(),
            max_connections_per_address: self
                .one("max-connections-per-address", &mut wrong, number)
                .unwrap_or_default(),
            max_connection_age: self
                .one("max-connection-age", &mut wrong, off_or(duration))
                .flatten()
                .filter(|age| !age.is_zero()),
            verify_one_in: self
                .one("verify-one-in", &mut wrong, number)
                .unwrap_or_default(),
        };
        if wrong.is_empty() {
            validate(&config, &mut wrong);
        }
        if wrong.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(wrong))
        }
    }

    fn one<T>(
        &self,
        name: &str,
        wrong: &mut Vec<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (value, origin) = self.0.get(name)?;
        let told = |problem| wrong.push(format!("{name} {value:?} (from the {origin}) {problem}"));
        parse(value).map_err(told).ok()
    }

    fn uri(&self, name: &str, schemes: &[&str], wrong: &mut Vec<String>) -> Option<Secret> {
        let (value, origin) = self.0.get(name).filter(|(value, _)| !value.is_empty())?;
        if !value
            .split_once("://")
            .is_some_and(|(scheme, _)| schemes.contains(&scheme))
        {
            let shown = without_password(value);
            let schemes = schemes.join("://, ");
            wrong.push(format!(
                "{name} {shown:?} (from the {origin}) must begin with one of {schemes}://"
            ));
        }
        Some(Secret(value.clone()))
    }
}

fn read_file(path: &Path) -> Result<HashMap<String, String>, ConfigErrors> {
    let wrong =
        |problem: String| ConfigErrors(vec![format!("config file {}: {problem}", path.display())]);
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    let mut unknown = Vec::new();
    let mut values = HashMap::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        if !SETTINGS.iter().any(|setting| setting.name == name) {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            unknown.push(format!(
                "config file {}: {key:?} is no setting; there are {}",
                path.display(),
                names.join(", ")
            ));
        }
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), ToOwned::to_owned);
        values.insert(name, value);
    }
    if unknown.is_empty() {
        Ok(values)
    } else {
        Err(ConfigErrors(unknown))
    }
}

fn address(value: &str) -> Result<SocketAddr, String> {
    value
        .parse()
        .map_err(|_| "is no address and port such as 127.0.0.1:50051 or [::1]:50051".into())
}

/// Origins as browsers send them: scheme, host and port, nothing more.
fn origins(value: &str) -> Result<AllowedOrigins, String> {
    if value == "*" {
        return Ok(AllowedOrigins::Any);
    }
    let is_origin = |origin: &str| {
        let host = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(allowed))
    };
    let origins: Vec<_> = value
        .split(',')
        .map(|origin| origin.trim().to_ascii_lowercase())
        .collect();
    if origins.iter().all(|origin| is_origin(origin)) {
        return Ok(AllowedOrigins::These(origins));
    }
    Err("is no list of origins such as https://todos.example,http://localhost:5173, not `*`".into())
}

fn duration(value: &str) -> Result<Duration, String> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(value).map_err(|_| "is no duration such as 200ms, 15s or 10m".into())
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| "is no whole number of 0 or more".into())
}

fn bytes(value: &str) -> Result<u64, String> {
    value
        .parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "is no size such as 256MiB".into())
}

/// `auto`, `off` or a size.
fn memory_limit(value: &str) -> Result<Option<u64>, String> {
    match value {
        "auto" => Ok(budget::limit::of_this_process()),
        "off" => Ok(None),
        value => bytes(value)
            .map(Some)
            .map_err(|problem| format!("{problem}, and not `auto` or `off`")),
    }
}

fn off_or<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |value| match value {
        "off" => Ok(None),
        value => parse(value)
            .map(Some)
            .map_err(|problem| format!("{problem}, and not `off`")),
    }
}

fn validate(config: &Config, wrong: &mut Vec<String>) {
    let mut rule = |holds: bool, text: String| {
        if !holds {
            wrong.push(text);
        }
    };
    let Config {
        staleness_limit: limit,
        heartbeat_interval: interval,
        replay_window: window,
        ..
    } = *config;
    rule(
        interval >= Duration::from_millis(10),
        format!(
            "heartbeat-interval {interval:?} is too short: each is a write to the database; use 10ms or more"
        ),
    );
    rule(
        interval * 2 <= limit,
        format!(
            "staleness-limit {limit:?} must be at least twice heartbeat-interval {interval:?}: an age is known only from heartbeats"
        ),
    );
    rule(
        window >= limit,
        format!("replay-window {window:?} must not be shorter than staleness-limit {limit:?}"),
    );
    rule(
        config.list_grace <= limit,
        format!(
            "list-grace {:?} must not be longer than staleness-limit {limit:?}",
            config.list_grace
        ),
    );
    rule(
        config.stale_if_error.is_none_or(|stale| stale > limit),
        format!(
            "stale-if-error {:?} must be longer than staleness-limit {limit:?}: younger answers are given anyhow",
            config.stale_if_error.unwrap_or_default()
        ),
    );
    rule(
        config.near_capacity >= 1 << 20,
        format!(
            "near-capacity {} bytes is too small: use 1MiB or more",
            config.near_capacity
        ),
    );
    if let Err(problem) = config.memory_plan() {
        rule(false, problem.to_string());
    }
    rule(
        config.max_connections > 0 && config.max_connections_per_address > 0,
        "max-connections and max-connections-per-address 0 would refuse every call: use 1 or more"
            .into(),
    );
    rule(
        config
            .max_connection_age
            .is_none_or(|age| age >= Duration::from_secs(1)),
        format!(
            "max-connection-age {:?} is too short: clients would mostly connect; use 1s or more, or `off`",
            config.max_connection_age.unwrap_or_default()
        ),
    );
    rule(
        config.max_origin_loads > 0,
        "max-origin-loads 0 would refuse every miss: use 1 or more".into(),
    );
    rule(
        config.drain_timeout >= Duration::from_secs(1),
        format!(
            "drain-timeout {:?} is too short to finish calls: use 1s or more",
            config.drain_timeout
        ),
    );
    let (main, metrics, health) = (
        ("listen", Some(config.listen)),
        ("metrics-listen", config.metrics_listen),
        ("health-listen", config.health_listen),
    );
    for ((one, first), (other, second)) in [(main, metrics), (main, health), (metrics, health)] {
        let both = first.filter(|first| Some(*first) == second && first.port() != 0);
        rule(
            both.is_none(),
            format!("{one} and {other} are the same address: give each a port of its own"),
        );
    }
}

/// A URL with its password, if it has one, replaced by `***`.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let host_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let Some(at) = rest[..host_end].rfind('@') else {
        return url.to_owned();
    };
    let user = rest[..at].split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:***@{}", &rest[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(flags: &[(&str, &str)]) -> Values {
        let flags = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Values::gather(&flags, |_| None, None).expect("gathered")
    }

    #[test]
    fn the_defaults_are_right() {
        let config = values(&[]).parse().expect("right");
        assert_eq!(config.staleness_limit, Duration::from_secs(15));
        assert_eq!(config.near_capacity, 256 << 20);
        assert!(config.stale_if_error.is_none() && config.mongodb_uri.is_none());
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("tidemark.toml");
        fs::write(
            &file,
            "cache_epoch = 1\nlist-grace = \"1s\"\nstaleness-limit = \"20s\"\n",
        )
        .expect("written");
        let flags = HashMap::from([("cache-epoch".to_owned(), "3".to_owned())]);
        let environment = |name: &str| match name {
            "TIDEMARK_CACHE_EPOCH" => Some("2".to_owned()),
            "TIDEMARK_LIST_GRACE" => Some("2s".to_owned()),
            _ => None,
        };
        let values = Values::gather(&flags, environment, Some(&file)).expect("gathered");
        let config = values.parse().expect("right");
        assert_eq!(
            (config.cache_epoch, config.list_grace),
            (3, Duration::from_secs(2))
        );
        assert_eq!(config.staleness_limit, Duration::from_secs(20));
        assert_eq!(values.0["cache-epoch"].1, ValueSource::Flag);
        assert_eq!(values.0["staleness-limit"].1, ValueSource::File(file));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let ConfigErrors(wrong) = values(&[
            ("listen", "here"),
            ("near-capacity", "lots"),
            ("redis-url", "http://u:secret@h"),
        ])
        .parse()
        .expect_err("wrong");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].contains("\"here\"") && wrong[0].contains("127.0.0.1:50051"));
        assert!(!wrong.join("").contains("secret"));
    }

    #[test]
    fn contradictory_settings_are_refused() {
        for (flags, word) in [
            (&[("heartbeat-interval", "20s")][..], "heartbeat-interval"),
            (&[("replay-window", "5s")], "replay-window"),
            (&[("list-grace", "1m")], "list-grace"),
            (&[("stale-if-error", "5s")], "stale-if-error"),
            (&[("max-origin-loads", "0")], "max-origin-loads"),
            (&[("near-capacity", "1kB")], "near-capacity"),
            (&[("memory-limit", "256MiB")], "near-capacity to "),
            (&[("max-connections", "0")], "max-connections"),
            (&[("max-connection-age", "10ms")], "max-connection-age"),
            (&[("metrics-listen", "127.0.0.1:50051")], "metrics-listen"),
            (&[("drain-timeout", "0s")], "drain-timeout"),
            (&[("health-listen", "127.0.0.1:50051")], "health-listen"),
            (&[("health-listen", "127.0.0.1:9464")], "health-listen"),
            (&[("tls-cert", "cert.pem")], "tls-key"),
            (&[("tls-key", "key.pem")], "tls-cert"),
            (&[("tls-client-ca", "ca.pem")], "tls-client-ca"),
            (
                &[("redis-url", "rediss://h"), ("redis-tls-key", "key.pem")],
                "redis-tls-cert",
            ),
            (
                &[("redis-url", "redis://h"), ("redis-tls-ca", "ca.pem")],
                "redis-tls-",
            ),
            (
                &[("cors-allow-origins", "todos.example")],
                "cors-allow-origins",
            ),
            (
                &[("cors-allow-origins", "https://todos.example/page")],
                "cors-allow-origins",
            ),
            (
                &[("cors-allow-origins", "https://a.example,*")],
                "cors-allow-origins",
            ),
        ] {
            let ConfigErrors(wrong) = values(flags).parse().expect_err(word);
            assert!(wrong.iter().any(|text| text.contains(word)), "{wrong:?}");
        }
    }

    #[test]
    fn the_memory_limit_is_auto_off_or_a_size() {
        let of = |value| values(&[("memory-limit", value)]).parse();
        assert_eq!(of("768MiB").expect("right").memory_limit, Some(768 << 20));
        assert_eq!(of("off").expect("right").memory_limit, None);
        of("plenty").expect_err("no size");
    }

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        let of = |value| {
            values(&[("cors-allow-origins", value)])
                .parse()
                .expect("right")
                .cors_allow_origins
        };
        assert_eq!(of("off"), None);
        assert_eq!(of("*"), Some(AllowedOrigins::Any));
        let two = vec![
            "https://a.example".to_owned(),
            "http://[::1]:5173".to_owned(),
        ];
        assert_eq!(
            of("https://A.example, http://[::1]:5173"),
            Some(AllowedOrigins::These(two))
        );
    }

    #[test]
    fn unknown_keys_of_the_file_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("tidemark.toml");
        fs::write(&file, "stalenes-limit = \"20s\"\n").expect("written");
        let ConfigErrors(wrong) =
            Values::gather(&HashMap::new(), |_| None, Some(&file)).expect_err("unknown");
        assert!(wrong[0].contains("stalenes-limit") && wrong[0].contains("staleness-limit"));
    }

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(
            without_password("mongodb://me:p@ss@h:1,h:2/db?x=y@z"),
            "mongodb://me:***@h:1,h:2/db?x=y@z"
        );
        assert_eq!(without_password("redis://h:1"), "redis://h:1");
        let printed = values(&[("redis-url", "redis://u:geheim@h")]).print();
        assert!(
            !printed.contains("geheim") && printed.contains("redis://u:***@h"),
            "{printed}"
        );
    }
}
