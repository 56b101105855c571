//! The table of settings, and the names of their environment variables.

/// One setting: a flag `--name`, an environment variable, a key of the file.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name as a flag.
    pub name: &'static str,
    /// Its value when it is not set; empty: none.
    pub default: &'static str,
    /// What it does, and why the default is what it is.
    pub help: &'static str,
    /// Whether its flag may be repeated. The values are joined by commas, as
    /// the environment and the file have them.
    pub is_list: bool,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        default,
        help,
        is_list: false,
    }
}

const fn list(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        is_list: true,
        ..setting(name, default, help)
    }
}

/// All settings of `serve`.
pub const SETTINGS: [Setting; 40] = [
    setting(
        "listen",
        "127.0.0.1:50051",
        "Address and port for gRPC; the default accepts calls from this machine only",
    ),
    setting(
        "metrics-listen",
        "127.0.0.1:9464",
        "Address and port for Prometheus metrics at /metrics, or `off`",
    ),
    setting(
        "health-listen",
        "off",
        "Address and port for health checks alone, always without TLS, for probes that cannot use TLS; or `off`",
    ),
    setting(
        "tls-cert",
        "",
        "PEM file of the server's certificate chain, its own certificate first. Not set: no TLS",
    ),
    setting("tls-key", "", "PEM file of the private key for --tls-cert"),
    setting(
        "tls-client-ca",
        "",
        "PEM file of certificate authorities: only clients with a certificate of one of them are served. Not set: all clients are served",
    ),
    list(
        "tls-client-names",
        "",
        "Names of client certificates that may call, such as spiffe://todos.example/ns/web/*: the first URI name or, without one, the first DNS name; a final `*` matches any rest. Separated by commas, or repeated. Not set: all names",
    ),
    list(
        "auth",
        "off",
        "How callers are authenticated: some of mtls, keys and jwt, separated by commas, or `off`: whoever can connect may do everything. A request with an authorization header is judged by it, another one by its certificate",
    ),
    list(
        "admin",
        "",
        "Principal, or group:NAME, that may do everything. Separated by commas, or repeated. Not set: nobody",
    ),
    setting(
        "keys-file",
        "",
        "File of API keys for --auth keys: a line `principal = hash` for each key, as `tidemark key new` prints it, then groups. Read again when it changes",
    ),
    setting(
        "jwt-jwks-file",
        "",
        "File of the issuer's public keys (a JSON Web Key Set) for --auth jwt. Read again when it changes",
    ),
    setting("jwt-issuer", "", "The `iss` that a token must have"),
    setting(
        "jwt-audience",
        "",
        "The audience (`aud`) that a token must have",
    ),
    setting(
        "jwt-principal-claim",
        "sub",
        "The claim of a token that names the caller",
    ),
    setting(
        "reflection",
        "on",
        "Who may use gRPC reflection: `on`: everyone who may call; `admin`: administrators; `off`: nobody",
    ),
    setting(
        "audit-log",
        "off",
        "Where a JSON line for each write and each refusal goes: a file, which is appended to, or `stderr`, or `off`",
    ),
    list(
        "cors-allow-origins",
        "off",
        "Web pages that may call, by grpc-web or in JSON: origins such as https://todos.example, separated by commas, or `*`; `off`: none of another origin",
    ),
    setting(
        "ui",
        "auto",
        "Whether the port for gRPC serves a page with lists, todos and what the caches do: `on`, `off`, or `auto`: if --listen is an address of this machine alone",
    ),
    setting(
        "mongodb-uri",
        "",
        "MongoDB replica set to use as the origin. Its path names the database; the default is `todos`. Not set: the embedded store",
    ),
    setting(
        "redis-url",
        "",
        "Redis for the shared cache: redis://, redis-cluster:// or redis-sentinel://, or with TLS rediss://, rediss-cluster:// or rediss-sentinel://. Not set: no shared cache",
    ),
    setting(
        "redis-tls-ca",
        "",
        "PEM file of the certificate authorities trusted for rediss:// URLs. Not set: those of this machine",
    ),
    setting(
        "redis-tls-cert",
        "",
        "PEM file of the client certificate for Redis, where Redis asks for one",
    ),
    setting(
        "redis-tls-key",
        "",
        "PEM file of the private key for --redis-tls-cert",
    ),
    setting(
        "redis-mac-key-file",
        "",
        "File of 32 to 4096 secret bytes, the same for all replicas: entries in Redis carry a keyed hash, and entries without the right one are not used. A changed file is used without a restart. Not set: no hash",
    ),
    setting(
        "data-dir",
        "tidemark-data",
        "Directory of the embedded store; not used with --mongodb-uri",
    ),
    setting(
        "near-capacity",
        "256MiB",
        "Memory limit of the near cache; room for about 400,000 todos of 400 bytes",
    ),
    setting(
        "staleness-limit",
        "15s",
        "Upper bound on the staleness of any response that is not marked stale; long enough for a MongoDB election",
    ),
    setting(
        "heartbeat-interval",
        "1s",
        "Interval of the heartbeats, small writes that prove freshness; at most half of the staleness limit",
    ),
    setting(
        "replay-window",
        "10m",
        "How much of the change feed is replayed at start, and how long entries live in Redis; longer than a deployment takes",
    ),
    setting(
        "list-grace",
        "200ms",
        "How long a cached page may be served after its list has changed; `0s`: not at all",
    ),
    setting(
        "cache-epoch",
        "0",
        "A new number makes every entry in Redis a miss: change it after a restore of the database",
    ),
    setting(
        "stale-if-error",
        "off",
        "Maximum age of responses, marked stale, while the database is unreachable; `off`: such calls fail",
    ),
    setting(
        "drain-timeout",
        "25s",
        "Maximum time from SIGTERM to the exit; less than the 30 s that Kubernetes grants",
    ),
    setting(
        "max-origin-loads",
        "256",
        "Maximum concurrent loads from the database. At most 4 loads of todos, 128 keys each, and 16 of pages run at once; 16 keys may wait for each unit of the limit",
    ),
    setting(
        "memory-limit",
        "auto",
        "Maximum memory of the process, such as 768MiB: sizes the budgets for requests, replies, watches and connections; tidemark does not start if they cannot fit. `auto`: the limit of the cgroup (container), if there is one; `off`: no limit",
    ),
    setting(
        "max-connections",
        "4096",
        "Maximum number of connections for gRPC at once. The memory limit and the limit of open files can allow fewer",
    ),
    setting(
        "max-connections-per-address",
        "3072",
        "Maximum number of connections for gRPC at once from one IP address, so that one host cannot take all of them",
    ),
    setting(
        "max-connection-age",
        "5m",
        "Age, plus or minus 10%, at which a connection is closed gracefully, so that clients spread to new replicas; `off`: no limit",
    ),
    setting(
        "log-format",
        "auto",
        "Format of the log on stderr: `json`, `text`, or `auto`: text on a terminal, else JSON",
    ),
    setting(
        "verify-one-in",
        "1000",
        "Verify one in N cached responses against the database, in the background; 0: none. The default costs about 100 database reads a second at 100,000 responses a second",
    ),
];

/// Environment variables of the client commands.
const CLIENT_VARIABLES: [&str; 8] = [
    "TIDEMARK_API_KEY",
    "TIDEMARK_API_KEY_FILE",
    "TIDEMARK_TOKEN_FILE",
    "TIDEMARK_CONFIG",
    "TIDEMARK_SERVER",
    "TIDEMARK_CA",
    "TIDEMARK_CERT",
    "TIDEMARK_KEY",
];

/// Environment variables of this project's own test suites. A service that a
/// test starts inherits them.
const TEST_VARIABLES: [&str; 12] = [
    "TIDEMARK_BEFORE",
    "TIDEMARK_BUG",
    "TIDEMARK_CHROMIUM",
    "TIDEMARK_FAULTS_MINUTES",
    "TIDEMARK_FAULTS_ONLY",
    "TIDEMARK_FAULTS_SEED",
    "TIDEMARK_GRPCURL",
    "TIDEMARK_MODEL",
    "TIDEMARK_MODEL_TRACES",
    "TIDEMARK_PYTHON",
    "TIDEMARK_SEED",
    "TIDEMARK_SEEDS",
];

/// Begin of the variables of other test suites and tools.
const TEST_PREFIX: &str = "TIDEMARK_TEST_";

/// Largest edit distance, in characters, at which a name is suggested for a
/// misspelt one: most typing errors need one or two edits, a forgotten part
/// such as `DB` in `MONGODB` two.
const MAX_DISTANCE: usize = 6;

/// Name of a setting's environment variable.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("TIDEMARK_{}", name.to_uppercase().replace('-', "_"))
}

/// The setting with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Problems of environment variables that begin with `TIDEMARK_` and that no
/// command reads, such as a misspelt one. Sorted by name.
pub fn unknown_variables<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let known: Vec<String> = SETTINGS
        .iter()
        .map(|setting| variable(setting.name))
        .chain(CLIENT_VARIABLES.map(ToOwned::to_owned))
        .collect();
    let mut problems: Vec<_> = names
        .filter(|name| {
            name.starts_with("TIDEMARK_")
                && !known.contains(name)
                && !TEST_VARIABLES.contains(&name.as_str())
                && !name.starts_with(TEST_PREFIX)
                && !is_service_link(name)
        })
        .map(|name| {
            let hint = match nearest(name, known.iter().map(String::as_str)) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => "`tidemark serve --help` lists the settings".into(),
            };
            format!(
                "environment variable {} is not a setting: {hint}",
                crate::text::escape(name)
            )
        })
        .collect();
    problems.sort();
    problems
}

/// Kubernetes sets these in each pod for a Service called `tidemark` or
/// `tidemark-...` in its namespace.
fn is_service_link(name: &str) -> bool {
    let is_port = |rest: &str| {
        let mut parts = rest.split('_');
        let number = parts.next().unwrap_or_default();
        number.bytes().all(|b| b.is_ascii_digit())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("ADDR" | "PORT" | "PROTO"))
            && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || name
            .match_indices("_PORT_")
            .any(|(at, link)| is_port(&name[at + link.len()..]))
}

/// The known name that differs least from this one, if it is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= MAX_DISTANCE.min(known.len() / 2))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        unknown_variables(names.iter())
    }

    #[test]
    fn misspelt_variables_are_named_with_the_nearest_one() {
        for (name, meant) in [
            ("TIDEMARK_MONGO_URI", "TIDEMARK_MONGODB_URI"),
            ("TIDEMARK_REDIS_URI", "TIDEMARK_REDIS_URL"),
            ("TIDEMARK_LISTNE", "TIDEMARK_LISTEN"),
            ("TIDEMARK_STALENESSLIMIT", "TIDEMARK_STALENESS_LIMIT"),
        ] {
            let problems = unknown(&[name]);
            let hint = format!("did you mean {meant}?");
            assert!(
                problems.len() == 1 && problems[0].contains(name) && problems[0].contains(&hint),
                "{problems:?}"
            );
        }
        assert!(unknown(&["TIDEMARK_QWERTYUIOPASDF"])[0].contains("--help"));
    }

    #[test]
    fn variables_of_kubernetes_and_of_tests_are_ignored() {
        assert_eq!(
            unknown(&[
                "TIDEMARK_SERVICE_HOST",
                "TIDEMARK_SERVICE_PORT",
                "TIDEMARK_SERVICE_PORT_GRPC",
                "TIDEMARK_PORT",
                "TIDEMARK_PORT_50051_TCP",
                "TIDEMARK_PORT_50051_TCP_ADDR",
                "TIDEMARK_HEADLESS_PORT_9464_TCP_PROTO",
                "TIDEMARK_FAULTS_SEED",
                "TIDEMARK_SERVER",
                "TIDEMARK_LISTEN",
                "PATH",
            ]),
            Vec::<String>::new()
        );
        assert_eq!(unknown(&["TIDEMARK_PORT_X"]).len(), 1);
    }
}
