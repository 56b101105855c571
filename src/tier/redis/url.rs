//! The URL of the shared tier: which servers, which kind of deployment, which
//! credentials. fred parses URLs too, but prints passwords in its errors, does
//! not accept `/` or `@` in a password, and fails on IPv6 addresses.

use std::{fmt, net::IpAddr};

use percent_encoding::percent_decode_str;

/// Supported URL schemes: one node, a cluster, or a master found by sentinels,
/// each without or with TLS.
pub const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
];
const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;
/// Upper bound on the servers in one URL.
const MAX_SERVERS: usize = 64;

/// Why a URL is not accepted. The texts never contain a part of the URL, as any
/// part of a malformed URL may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No scheme, or an unknown one.
    #[error(
        "unknown scheme: a URL begins with redis://, rediss://, redis-cluster://, \
         rediss-cluster://, redis-sentinel:// or rediss-sentinel://"
    )]
    Scheme,
    /// The host is missing.
    #[error(
        "the host is missing: expected a form such as redis://[user:password@]host[:port][/database]"
    )]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error(
        "the port is not a number from 1 to 65535; a `?` or `%` in a password must be \
         percent-encoded (%3F, %25)"
    )]
    Port,
    /// The database is not a number from 0 to 255.
    #[error("the database after the `/` is not a number from 0 to 255")]
    Database,
    /// A user name, password or service name is not UTF-8.
    #[error("a percent-encoded part is not valid UTF-8")]
    Encoding,
    /// `redis-sentinel://` without the name of the master.
    #[error("the query parameter sentinelServiceName (the master's name) is missing")]
    ServiceName,
    /// Too many `node` parameters.
    #[error("more than {MAX_SERVERS} servers")]
    Servers,
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    /// A name or an IP address; IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn is_ip(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// User and password, each optional.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// Where the servers that hold keys are found.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Deployment {
    /// The URL names the only server.
    Single,
    /// The URL names nodes of a Redis Cluster.
    Cluster,
    /// The URL names sentinels of this service.
    Sentinel {
        service: String,
        credentials: Credentials,
    },
}

/// A parsed URL. It has no `Debug`, as it contains passwords.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RedisUrl {
    pub(super) tls: bool,
    pub(super) deployment: Deployment,
    /// At least one.
    pub(super) servers: Vec<Address>,
    pub(super) credentials: Credentials,
    pub(super) database: Option<u8>,
}

impl RedisUrl {
    /// Parses a URL. User, password and parameters may be percent-encoded; a raw
    /// `/` or `@` in a password is accepted as well.
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = split_scheme(url).ok_or(UrlError::Scheme)?;
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").unwrap_or_default()),
        };
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user_info, server) = match before.rsplit_once('@') {
            Some((user_info, server)) => (user_info, server),
            None => ("", before),
        };
        let (server, database) = server.split_once('/').unwrap_or((server, ""));
        let default_port = if kind == "-sentinel" {
            DEFAULT_SENTINEL_PORT
        } else {
            DEFAULT_PORT
        };
        let mut servers = vec![parse_address(server, default_port)?];
        let parameters = Parameters::parse(query)?;
        for node in parameters.all("node") {
            servers.push(parse_address(node, default_port)?);
        }
        if servers.len() > MAX_SERVERS {
            return Err(UrlError::Servers);
        }
        let deployment = match kind {
            "-cluster" => Deployment::Cluster,
            "-sentinel" => Deployment::Sentinel {
                service: parameters
                    .first("sentinelServiceName")
                    .ok_or(UrlError::ServiceName)?,
                credentials: Credentials {
                    username: parameters.first("sentinelUsername"),
                    password: parameters.first("sentinelPassword"),
                },
            },
            _ => Deployment::Single,
        };
        Ok(Self {
            tls,
            deployment,
            servers,
            credentials: parse_credentials(user_info)?,
            database: match database.trim_end_matches('/') {
                "" => None,
                database => Some(database.parse().map_err(|_| UrlError::Database)?),
            },
        })
    }

    /// All passwords in the URL: no text that is logged may contain one.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<_> = self.credentials.password.iter().cloned().collect();
        if let Deployment::Sentinel { credentials, .. } = &self.deployment {
            secrets.extend(credentials.password.iter().cloned());
        }
        secrets
    }
}

/// Checks a URL without connecting.
///
/// # Errors
/// What is wrong with it. The text contains no part of the URL.
pub fn check_url(url: &str) -> Result<(), UrlError> {
    RedisUrl::parse(url).map(drop)
}

fn split_scheme(url: &str) -> Option<(&str, &str)> {
    url.split_once("://")
        .filter(|(scheme, _)| SCHEMES.contains(scheme))
}

fn parse_address(text: &str, default_port: u16) -> Result<Address, UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host = |host: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
        !host.is_empty() && host.bytes().all(allowed)
    };
    if !is_host(host) {
        return Err(UrlError::Host);
    }
    let port = match port {
        None => default_port,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(UrlError::Port)?,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

fn parse_credentials(user_info: &str) -> Result<Credentials, UrlError> {
    let (username, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let given = |text: &str| -> Result<Option<String>, UrlError> {
        Ok(Some(decode(text)?).filter(|text| !text.is_empty()))
    };
    Ok(Credentials {
        username: given(username)?,
        password: given(password)?,
    })
}

/// `%` that is not followed by two hexadecimal digits stays as it is.
fn decode(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| UrlError::Encoding)
}

struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: &str) -> Result<Self, UrlError> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        };
        query
            .split('&')
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn first(&self, name: &str) -> Option<String> {
        let mut all = self.all(name).filter(|value| !value.is_empty());
        all.next().map(ToOwned::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> RedisUrl {
        RedisUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn password(url: &str) -> Option<String> {
        parsed(url).credentials.password
    }

    #[test]
    fn a_password_may_contain_any_character() {
        for (url, expected) in [
            ("redis://:secret@h", "secret"),
            ("redis://:a%2Fb@h:1/2", "a/b"),
            ("redis://:a/b@h:1/2", "a/b"),
            ("redis://user:a@b@h:1", "a@b"),
            ("redis://user:a%40b@h:1", "a@b"),
            ("redis://user:a%25b@h:1", "a%b"),
            ("redis://user:a%b@h:1", "a%b"),
            ("redis://user:a:b#c@h:1", "a:b#c"),
            ("redis://user:%3F%26@h:1?x=y@z", "?&"),
        ] {
            assert_eq!(password(url).as_deref(), Some(expected), "{url}");
        }
        assert_eq!(password("redis://h"), None);
        assert_eq!(password("redis://user@h"), None);
        assert_eq!(password("redis://:@h"), None);
    }

    #[test]
    fn hosts_ports_and_databases() {
        let servers = |url: &str| -> Vec<String> {
            parsed(url)
                .servers
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(servers("redis://h"), ["h:6379"]);
        assert_eq!(servers("rediss://[::1]:7000/3"), ["[::1]:7000"]);
        assert_eq!(
            servers("redis-cluster://a:1?node=b:2&node=[fe80::1]:3"),
            ["a:1", "b:2", "[fe80::1]:3"]
        );
        assert_eq!(parsed("redis://h/3").database, Some(3));
        assert!(parsed("rediss-cluster://h").tls && !parsed("redis-cluster://h").tls);
        let sentinel = "redis-sentinel://u:p@h?sentinelServiceName=m&sentinelPassword=s%2B+";
        let url = parsed(sentinel);
        assert_eq!(url.servers[0].port, 26379);
        let Deployment::Sentinel { service, .. } = &url.deployment else {
            panic!("not a sentinel");
        };
        assert_eq!(service, "m");
        assert_eq!(url.secrets(), ["p", "s++"]);
    }

    #[test]
    fn an_error_names_the_part_but_shows_none() {
        for (url, expected) in [
            ("http://u:hidden@h", UrlError::Scheme),
            ("hidden", UrlError::Scheme),
            ("redis://u:hidden", UrlError::Port),
            ("redis://u:hidden@", UrlError::Host),
            ("redis://u:hidden@h:port", UrlError::Port),
            ("redis://u:hidden@h:0", UrlError::Port),
            ("redis://u:hidden@[::1", UrlError::Host),
            ("redis://u:hidden@h/db", UrlError::Database),
            ("redis://u:hid?den@h", UrlError::Port),
            ("redis://u:%FF@h", UrlError::Encoding),
            ("redis-sentinel://u:hidden@h", UrlError::ServiceName),
        ] {
            assert_eq!(RedisUrl::parse(url).err(), Some(expected), "{url}");
            assert!(!format!("{expected} {expected:?}").contains("hid"));
        }
    }
}
