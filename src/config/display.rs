//! How a URL with secrets is shown: by a list of what may be shown, not of what
//! must be hidden. A password may stand in the user part, in a parameter, or,
//! unescaped, where it makes the rest of the URL ambiguous.

/// Shown instead of a URL that cannot be read without doubt.
const HIDDEN: &str = "(hidden)";

/// Schemes whose URLs are shown at all.
const SCHEMES: [&str; 10] = [
    "mongodb",
    "mongodb+srv",
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
    "http",
    "https",
];

/// Parameters that are shown.
const PARAMETERS: [&str; 2] = ["replicaSet", "sentinelServiceName"];

/// The URL with its scheme, hosts, database and the name of its replica set or
/// Sentinel service. Everything else is left out: users, passwords, and all
/// other parameters.
///
/// A URL in which a `@` follows the first `/`, `?` or `#` is shown as its scheme
/// alone: the text before it may be an unescaped password.
#[must_use]
pub fn display_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.into();
    };
    if !SCHEMES.contains(&scheme) {
        return HIDDEN.into();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    if tail.contains('@') || !hosts.split(',').all(is_host) {
        return format!("{scheme}://{HIDDEN}");
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let mut shown = format!("{scheme}://{hosts}");
    let database = path.trim_start_matches('/');
    if is_word(database) {
        shown += &format!("/{database}");
    }
    let parameters: Vec<_> = query
        .split('&')
        .filter(|parameter| {
            parameter
                .split_once('=')
                .is_some_and(|(name, value)| PARAMETERS.contains(&name) && is_word(value))
        })
        .collect();
    if !parameters.is_empty() {
        let slash = if is_word(database) { "" } else { "/" };
        shown += &format!("{slash}?{}", parameters.join("&"));
    }
    shown
}

/// Any setting's value in an error text: cut short, escaped, and never with a
/// secret.
#[must_use]
pub fn display_value(value: &str) -> String {
    if value.contains("://") {
        return display_url(value);
    }
    // A URL without a scheme, such as user:password@host.
    if value.contains('@') {
        return HIDDEN.into();
    }
    format!("{:?}", crate::error::shorten(value))
}

/// A host name, an IPv4 address, or an IPv6 address in brackets, each with a
/// port or without.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    let is_name = match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    is_name && port.parse::<u16>().is_ok()
}

fn is_word(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_be_harmless_is_shown() {
        for (url, shown) in [
            ("redis://h:1", "redis://h:1"),
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis-cluster://a:1,[::1]:2", "redis-cluster://a:1,[::1]:2"),
            (
                "mongodb://me:p@ss@h:1,h:2/db?authSource=admin&replicaSet=rs0",
                "mongodb://h:1,h:2/db?replicaSet=rs0",
            ),
            ("mongodb://h/?replicaSet=rs0", "mongodb://h/?replicaSet=rs0"),
            (
                "mongodb+srv://u:geheim@cluster.example/todos",
                "mongodb+srv://cluster.example/todos",
            ),
            (
                "redis-sentinel://u:geheim@h:1?sentinelPassword=geheim&sentinelServiceName=main",
                "redis-sentinel://h:1/?sentinelServiceName=main",
            ),
        ] {
            assert_eq!(display_url(url), shown);
        }
    }

    #[test]
    fn secrets_are_not_shown_wherever_they_stand() {
        for url in [
            "mongodb://me:geheim@h/db",
            "mongodb://me:gehe/im@h/db",
            "mongodb://me:gehe?im@h/db",
            "mongodb://me:gehe#im@h/db",
            "mongodb://me:a@b/geheim@h/db",
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:geheim",
            "mongodb://h/?tlsCertificateKeyFilePassword=geheim",
            "mongodb://h/?replicaSet=rs0;password:geheim",
            "redis://geheim@h",
            "redis://:geheim@h:6379",
            "redis-sentinel://h?sentinelUsername=u&sentinelPassword=geheim",
            "postgres://u:geheim@h/db",
            "u:geheim@h",
            "geheim://h",
            "redis://h:geheim",
        ] {
            assert!(!display_url(url).contains("geheim"), "{url}");
            assert!(!display_url(url).contains("im@"), "{url}");
            assert!(!display_value(url).contains("geheim"), "{url}");
        }
    }
}
