//! The settings that name files of certificates and keys.

use std::path::PathBuf;

use super::{ConfigErrors, Values};
use crate::tls::{ClientFiles, ServerFiles};

impl Values {
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.of(name))
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    /// A certificate and its key: both or none.
    fn pair(
        &self,
        cert: &str,
        key: &str,
        problems: &mut ConfigErrors,
    ) -> Option<(PathBuf, PathBuf)> {
        let mut lacks = |one: &str, other: &str| {
            problems.push(format!(
                "{one} is set but {other} is not: a certificate needs its key, and a key its certificate"
            ));
        };
        match (self.file(cert), self.file(key)) {
            (Some(_), None) => lacks(cert, key),
            (None, Some(_)) => lacks(key, cert),
            (cert, key) => return cert.zip(key),
        }
        None
    }

    pub(super) fn server_files(&self, problems: &mut ConfigErrors) -> Option<ServerFiles> {
        let (pair, client_ca) = (
            self.pair("tls-cert", "tls-key", problems),
            self.file("tls-client-ca"),
        );
        if client_ca.is_some() && self.file("tls-cert").is_none() {
            problems.push(
                "tls-client-ca is set but tls-cert is not: clients present certificates only over TLS",
            );
        }
        pair.map(|(cert, key)| ServerFiles {
            cert,
            key,
            client_ca,
            client_cert_optional: false,
        })
    }

    pub(super) fn redis_files(&self, problems: &mut ConfigErrors) -> ClientFiles {
        let identity = self.pair("redis-tls-cert", "redis-tls-key", problems);
        let files = ClientFiles {
            ca: self.file("redis-tls-ca"),
            identity,
        };
        if files != ClientFiles::default() && !self.of("redis-url").starts_with("rediss") {
            problems.push(
                "redis-tls-* is set but redis-url does not begin with rediss: it would have no effect",
            );
        }
        files
    }
}
