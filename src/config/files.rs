//! The settings that name files of certificates and keys.

use std::path::PathBuf;

use super::Values;
use crate::tls::{ClientFiles, ServerFiles};

impl Values {
    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.of(name))
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    /// A certificate and its key: both or none.
    fn pair(&self, cert: &str, key: &str, wrong: &mut Vec<String>) -> Option<(PathBuf, PathBuf)> {
        let mut lacks = |one: &str, other: &str| {
            wrong.push(format!(
                "{one} is set but {other} is not: a certificate and its key go together"
            ));
        };
        match (self.file(cert), self.file(key)) {
            (Some(_), None) => lacks(cert, key),
            (None, Some(_)) => lacks(key, cert),
            (cert, key) => return cert.zip(key),
        }
        None
    }

    pub(super) fn server_files(&self, wrong: &mut Vec<String>) -> Option<ServerFiles> {
        let (pair, client_ca) = (
            self.pair("tls-cert", "tls-key", wrong),
            self.file("tls-client-ca"),
        );
        if client_ca.is_some() && self.file("tls-cert").is_none() {
            wrong.push(
                "tls-client-ca is set but tls-cert is not: without TLS no client shows a certificate".into(),
            );
        }
        pair.map(|(cert, key)| ServerFiles {
            cert,
            key,
            client_ca,
        })
    }

    pub(super) fn redis_files(&self, wrong: &mut Vec<String>) -> ClientFiles {
        let identity = self.pair("redis-tls-cert", "redis-tls-key", wrong);
        let files = ClientFiles {
            ca: self.file("redis-tls-ca"),
            identity,
        };
        if files != ClientFiles::default() && !self.of("redis-url").starts_with("rediss") {
            wrong.push(
                "redis-tls-* is set but redis-url does not begin with rediss: it would not be used"
                    .into(),
            );
        }
        files
    }
}
