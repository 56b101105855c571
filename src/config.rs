//! The settings: one table, parsed once and as a whole. A flag beats the
//! environment, the environment beats the file, the file beats the default.
//! `docs/adr/0050-settings-table.md` says why clap alone does not do this.

mod auth;
mod display;
mod files;
mod parse;
mod settings;
mod values;

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

pub use auth::{Reflection, auth_warning};
pub use display::{display_url, display_value};
pub use settings::{SETTINGS, Setting, nearest, unknown_variables, variable};
pub use values::{ValueSource, Values, environment};

use self::parse::{
    address, bytes, duration, log_format, memory_limit, number, off_or, origins, ui_mode,
};
use crate::{
    audit::AuditTarget,
    auth::AuthSettings,
    budget::{self, DoesNotFit, Plan},
    telemetry::LogFormat,
    tier::redis,
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
    /// TLS for gRPC; `None`: plain text.
    pub tls: Option<ServerFiles>,
    /// How callers are authenticated.
    pub auth: AuthSettings,
    /// Who may use reflection.
    pub reflection: Reflection,
    /// Where the audit log goes; `None`: nowhere.
    pub audit_log: Option<AuditTarget>,
    /// Pages that may call through grpc-web; `None`: grpc-web is off.
    pub cors_allow_origins: Option<AllowedOrigins>,
    /// Whether the page is served.
    pub ui: UiMode,
    /// The MongoDB origin; `None`: the embedded store in `data_dir`.
    pub mongodb_uri: Option<Secret>,
    /// The shared cache; `None`: none.
    pub redis_url: Option<Secret>,
    /// TLS to the shared cache, if its URL asks for it.
    pub redis_tls: ClientFiles,
    /// Key file of the keyed hash of entries in Redis; `None`: no hash.
    pub redis_mac_key_file: Option<PathBuf>,
    /// Directory of the embedded store.
    pub data_dir: PathBuf,
    /// Memory limit of the near cache, in bytes.
    pub near_capacity: u64,
    /// Upper bound on the staleness of any response that is not marked stale.
    pub staleness_limit: Duration,
    /// Interval of the heartbeats.
    pub heartbeat_interval: Duration,
    /// How much of the feed is replayed at start, and how long shared entries live.
    pub replay_window: Duration,
    /// How long a cached page may be served after its list has changed.
    pub list_grace: Duration,
    /// Part of the key of every shared entry: a new number starts an empty cache.
    pub cache_epoch: u64,
    /// Maximum age of responses while the origin is unreachable; `None`: such calls fail.
    pub stale_if_error: Option<Duration>,
    /// Maximum time from SIGTERM to the exit.
    pub drain_timeout: Duration,
    /// Maximum concurrent loads from the origin.
    pub max_origin_loads: usize,
    /// Maximum memory of the process, in bytes; `None`: no limit.
    pub memory_limit: Option<u64>,
    /// Maximum number of connections for gRPC at once.
    pub max_connections: usize,
    /// Maximum number of connections for gRPC at once from one address.
    pub max_connections_per_address: usize,
    /// Age at which a connection is closed gracefully; `None`: at none.
    pub max_connection_age: Option<Duration>,
    /// One in so many cached responses is verified; 0: none.
    pub verify_one_in: u64,
    /// Format of the log.
    pub log_format: LogFormat,
}

/// Database when the MongoDB URI names none.
const DEFAULT_DATABASE: &str = "todos";

impl Config {
    /// How the memory limit is split.
    ///
    /// # Errors
    /// The settings do not fit into the limit.
    pub fn memory_plan(&self) -> Result<Plan, budget::DoesNotFit> {
        Plan::new(self.memory_limit, self.near_capacity)
    }

    /// Name of the MongoDB database: the URI's path, or `todos`.
    #[must_use]
    pub fn database(&self) -> &str {
        let uri = self.mongodb_uri.as_ref().map_or("", |uri| uri.0.as_str());
        let after_hosts = uri.rsplit('@').next().unwrap_or_default();
        let path = after_hosts
            .trim_start_matches("mongodb://")
            .trim_start_matches("mongodb+srv://");
        path.split_once('/')
            .map(|(_, path)| path.split('?').next().unwrap_or_default())
            .filter(|name| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            })
            .unwrap_or(DEFAULT_DATABASE)
    }
}

/// The pages in a browser that may call by grpc-web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Pages of every origin.
    Any,
    /// Pages of these origins, each as in `https://todos.example`.
    These(Vec<String>),
}

/// Whether the page is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UiMode {
    /// If only this machine can reach the port.
    #[default]
    Auto,
    /// It is.
    On,
    /// It is not.
    Off,
}

impl UiMode {
    /// Whether the page is served on this address.
    #[must_use]
    pub const fn is_on(self, listen: SocketAddr) -> bool {
        match self {
            Self::Auto => listen.ip().is_loopback(),
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// A value that may contain a password. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// One problem of the settings. The text names the setting as its source has it, the
/// value (but no secret), and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// The config file cannot be read.
    #[error("{}: {source}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The URL of Redis cannot be used.
    #[error("{setting}: {source}")]
    RedisUrl {
        /// The setting.
        setting: String,
        /// Why. Without any part of the URL.
        source: redis::UrlError,
    },
    /// The memory limit is too small for the other settings.
    #[error(transparent)]
    Memory(#[from] DoesNotFit),
    /// A value is not valid, or does not fit the other settings.
    #[error("{0}")]
    Value(String),
}

impl From<String> for ConfigProblem {
    fn from(text: String) -> Self {
        Self::Value(text)
    }
}

impl From<&str> for ConfigProblem {
    fn from(text: &str) -> Self {
        Self::Value(text.to_owned())
    }
}

/// All problems of the settings, one on each line.
#[derive(Debug, Default, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl ConfigErrors {
    fn push(&mut self, problem: impl Into<ConfigProblem>) {
        self.0.push(problem.into());
    }

    /// `value`, if there is no problem.
    fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl Values {
    /// The settings, parsed and checked against each other.
    ///
    /// # Errors
    /// All problems, each with the setting as it is written in its source, its
    /// value (but no secret), and what would be right.
    pub fn parse(&self) -> Result<Config, ConfigErrors> {
        let mut problems = ConfigErrors::default();
        let to = &mut problems;
        let mut config = Config {
            listen: self
                .one("listen", to, address)
                .unwrap_or(([127, 0, 0, 1], 0).into()),
            metrics_listen: self.one("metrics-listen", to, off_or(address)).flatten(),
            health_listen: self.one("health-listen", to, off_or(address)).flatten(),
            tls: self.server_files(to),
            auth: self.auth(to),
            reflection: self.or_default("reflection", to, auth::reflection),
            audit_log: self.one("audit-log", to, auth::audit_target).flatten(),
            cors_allow_origins: self
                .one("cors-allow-origins", to, off_or(origins))
                .flatten(),
            ui: self.or_default("ui", to, ui_mode),
            mongodb_uri: self.uri("mongodb-uri", &["mongodb", "mongodb+srv"], to),
            redis_url: self.redis_url(to),
            redis_tls: self.redis_files(to),
            redis_mac_key_file: self.file("redis-mac-key-file"),
            data_dir: self.of("data-dir").into(),
            near_capacity: self.or_default("near-capacity", to, bytes),
            staleness_limit: self.or_default("staleness-limit", to, duration),
            heartbeat_interval: self.or_default("heartbeat-interval", to, duration),
            replay_window: self.or_default("replay-window", to, duration),
            list_grace: self.or_default("list-grace", to, duration),
            cache_epoch: self.or_default("cache-epoch", to, number),
            stale_if_error: self.one("stale-if-error", to, off_or(duration)).flatten(),
            drain_timeout: self.or_default("drain-timeout", to, duration),
            max_origin_loads: self.or_default("max-origin-loads", to, number),
            memory_limit: self.one("memory-limit", to, memory_limit).flatten(),
            max_connections: self.or_default("max-connections", to, number),
            max_connections_per_address: self.or_default("max-connections-per-address", to, number),
            max_connection_age: self
                .one("max-connection-age", to, off_or(duration))
                .flatten()
                .filter(|age| !age.is_zero()),
            verify_one_in: self.or_default("verify-one-in", to, number),
            log_format: self.or_default("log-format", to, log_format),
        };
        if let Some(tls) = &mut config.tls {
            // Without mtls the authority guards all connections, as ever.
            tls.client_cert_optional = config.auth.mtls && config.auth.accepts_headers();
        }
        if problems.0.is_empty() {
            validate(&config, &mut problems);
        }
        problems.or(config)
    }

    fn one<T>(
        &self,
        name: &str,
        problems: &mut ConfigErrors,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (value, source) = self.0.get(name)?;
        parse(value)
            .map_err(|problem| {
                let shown = display_value(value);
                problems.push(format!("{} {shown} {problem}", source.of(name)));
            })
            .ok()
    }

    /// The same; a value that is wrong is replaced by one that is never used.
    fn or_default<T: Default>(
        &self,
        name: &str,
        problems: &mut ConfigErrors,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.one(name, problems, parse).unwrap_or_default()
    }

    fn redis_url(&self, problems: &mut ConfigErrors) -> Option<Secret> {
        let url = self.uri("redis-url", &redis::SCHEMES, problems)?;
        match redis::check_url(&url.0) {
            // Said already.
            Ok(()) | Err(redis::UrlError::Scheme) => {}
            Err(source) => {
                let setting = self
                    .0
                    .get("redis-url")
                    .map(|(_, from)| from.of("redis-url"));
                problems.push(ConfigProblem::RedisUrl {
                    setting: setting.unwrap_or_default(),
                    source,
                });
            }
        }
        Some(url)
    }

    fn uri(&self, name: &str, schemes: &[&str], problems: &mut ConfigErrors) -> Option<Secret> {
        let (value, source) = self.0.get(name).filter(|(value, _)| !value.is_empty())?;
        let has_scheme = value
            .split_once("://")
            .is_some_and(|(scheme, _)| schemes.contains(&scheme));
        let mut problem = |problem: String| {
            let (setting, shown) = (source.of(name), display_url(value));
            problems.push(format!("{setting} {shown} {problem}"));
        };
        if !has_scheme {
            problem(format!("must begin with {}://", schemes.join(":// or ")));
        } else if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            problem(
                "contains white space or a control character: write it as %20, or remove it".into(),
            );
        }
        Some(Secret(value.clone()))
    }
}

/// Checks the settings against each other.
fn validate(config: &Config, problems: &mut ConfigErrors) {
    timing(config, problems);
    limits(config, problems);
    if let Err(problem) = config.memory_plan() {
        problems.push(problem);
    }
}

fn timing(config: &Config, problems: &mut ConfigErrors) {
    let mut rule = |holds: bool, text: String| {
        if !holds {
            problems.push(text);
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
            "staleness-limit {limit:?} must be at least twice heartbeat-interval {interval:?}: staleness is known only from heartbeats"
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
            "stale-if-error {:?} must be longer than staleness-limit {limit:?}: younger responses are served anyway",
            config.stale_if_error.unwrap_or_default()
        ),
    );
    rule(
        config.drain_timeout >= Duration::from_secs(1),
        format!(
            "drain-timeout {:?} is too short to finish calls: use 1s or more",
            config.drain_timeout
        ),
    );
}

fn limits(config: &Config, problems: &mut ConfigErrors) {
    let mut rule = |holds: bool, text: String| {
        if !holds {
            problems.push(text);
        }
    };
    rule(
        config.near_capacity >= 1 << 20,
        format!(
            "near-capacity {} bytes is too small: use 1MiB or more",
            config.near_capacity
        ),
    );
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
    let (main, metrics, health) = (
        ("listen", Some(config.listen)),
        ("metrics-listen", config.metrics_listen),
        ("health-listen", config.health_listen),
    );
    for ((one, first), (other, second)) in [(main, metrics), (main, health), (metrics, health)] {
        let both = first.filter(|first| Some(*first) == second && first.port() != 0);
        rule(
            both.is_none(),
            format!("{one} and {other} are the same address: give each another port"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn values(flags: &[(&str, &str)]) -> Values {
        let flags = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Values::gather(&flags, &HashMap::new(), None).expect("gathered")
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = values(&[]).parse().expect("valid");
        assert_eq!(config.staleness_limit, Duration::from_secs(15));
        assert_eq!(config.near_capacity, 256 << 20);
        assert!(config.stale_if_error.is_none() && config.mongodb_uri.is_none());
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = values(&[
            ("listen", "here"),
            ("near-capacity", "lots"),
            ("redis-url", "http://u:secret@h"),
        ])
        .parse()
        .expect_err("wrong");
        assert_eq!(problems.0.len(), 3, "{problems:?}");
        let text = problems.to_string();
        assert!(text.contains("\"here\"") && text.contains("127.0.0.1:50051"));
        assert!(!text.contains("secret"));
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
            (&[("ui", "yes")], "ui"),
            (
                &[("cors-allow-origins", "https://todos.example/page")],
                "cors-allow-origins",
            ),
            (
                &[("cors-allow-origins", "https://a.example,*")],
                "cors-allow-origins",
            ),
        ] {
            let problems = values(flags).parse().expect_err(word);
            assert!(problems.to_string().contains(word), "{problems:?}");
        }
    }

    #[test]
    fn the_memory_limit_is_auto_off_or_a_size() {
        let of = |value| values(&[("memory-limit", value)]).parse();
        assert_eq!(of("768MiB").expect("valid").memory_limit, Some(768 << 20));
        assert_eq!(of("off").expect("valid").memory_limit, None);
        of("plenty").expect_err("not a size");
    }

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        let of = |value| {
            values(&[("cors-allow-origins", value)])
                .parse()
                .expect("valid")
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
    fn a_uri_is_refused_without_its_secret() {
        for (name, value) in [
            ("mongodb-uri", "http://u:geheim@h"),
            ("mongodb-uri", "u:geheim@h"),
            ("mongodb-uri", "mongodb://u:geheim@h a"),
            ("redis-url", "redis://:gehe\nim@h"),
            ("listen", "redis://:geheim@h"),
            ("cache-epoch", "u:geheim@h"),
        ] {
            let problems = values(&[(name, value)]).parse().expect_err(value);
            let text = problems.to_string();
            assert!(text.contains(name) && !text.contains("gehe"), "{text}");
        }
    }
}
