//! The settings of authentication, checked against each other.

use super::{AuditTarget, Config, ConfigErrors, Values};
use crate::{
    auth::{AuthSettings, JwtRules, JwtSettings, check_member, is_name_pattern},
    model::EVERYBODY,
};

/// Who may ask for the services and messages by reflection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reflection {
    /// Everyone who may call.
    #[default]
    On,
    /// Nobody: the service does not have it.
    Off,
    /// Administrators.
    Admin,
}

/// The ways to authenticate, as `--auth` names them.
#[derive(Clone, Copy, Default)]
pub(super) struct Methods {
    mtls: bool,
    keys: bool,
    jwt: bool,
}

/// `off`, or some of `mtls`, `keys` and `jwt`.
pub(super) fn methods(value: &str) -> Result<Methods, String> {
    let mut methods = Methods::default();
    let names: Vec<_> = value.split(',').map(str::trim).collect();
    if names == ["off"] {
        return Ok(methods);
    }
    for name in names {
        match name {
            "mtls" => methods.mtls = true,
            "keys" => methods.keys = true,
            "jwt" => methods.jwt = true,
            _ => return Err("is neither `off` nor a list of mtls, keys and jwt".into()),
        }
    }
    Ok(methods)
}

pub(super) fn reflection(value: &str) -> Result<Reflection, String> {
    match value {
        "on" => Ok(Reflection::On),
        "off" => Ok(Reflection::Off),
        "admin" => Ok(Reflection::Admin),
        _ => Err("is not one of on, off and admin".into()),
    }
}

/// Members that are administrators, separated by commas.
pub(super) fn admins(value: &str) -> Result<Vec<String>, String> {
    let admins = entries(value);
    for admin in &admins {
        if admin == EVERYBODY {
            return Err("would make every caller an administrator".into());
        }
        check_member(admin)
            .map_err(|problem| format!("names a principal or group:NAME that {problem}"))?;
    }
    Ok(admins)
}

/// Names of certificates, separated by commas.
pub(super) fn client_names(value: &str) -> Result<Vec<String>, String> {
    let names = entries(value);
    if names.iter().all(|name| is_name_pattern(name)) {
        Ok(names)
    } else {
        Err("is not a list of names such as spiffe://todos.example/ns/web/*, with `*` at the end only".into())
    }
}

/// `off`, `stderr` or a file.
pub(super) fn audit_target(value: &str) -> Result<Option<AuditTarget>, String> {
    Ok(match value {
        "off" => None,
        "stderr" => Some(AuditTarget::Stderr),
        file => Some(AuditTarget::File(file.into())),
    })
}

fn entries(value: &str) -> Vec<String> {
    let entries = value.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

impl Values {
    pub(super) fn auth(&self, problems: &mut ConfigErrors) -> AuthSettings {
        let methods = self.or_default("auth", problems, methods);
        self.auth_files(methods, problems);
        let of = |name: &str| self.of(name).to_owned();
        let jwks_file = self.file("jwt-jwks-file").filter(|_| methods.jwt);
        AuthSettings {
            mtls: methods.mtls,
            keys_file: self.file("keys-file").filter(|_| methods.keys),
            jwt: jwks_file.map(|jwks_file| JwtSettings {
                jwks_file,
                rules: JwtRules {
                    issuer: of("jwt-issuer"),
                    audience: of("jwt-audience"),
                    principal_claim: of("jwt-principal-claim"),
                },
            }),
            admins: self.set_or_default("admin", problems, admins),
            client_names: self.set_or_default("tls-client-names", problems, client_names),
        }
    }

    /// The value of a setting that has no default.
    fn set_or_default<T: Default>(
        &self,
        name: &str,
        problems: &mut ConfigErrors,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        if self.of(name).is_empty() {
            return T::default();
        }
        self.or_default(name, problems, parse)
    }

    /// Each way of authentication needs its settings, and each setting its way.
    fn auth_files(&self, methods: Methods, problems: &mut ConfigErrors) {
        let is_set = |name: &str| !self.of(name).is_empty();
        let needs = [
            (methods.keys, "keys", "keys-file"),
            (methods.jwt, "jwt", "jwt-jwks-file"),
            (methods.jwt, "jwt", "jwt-issuer"),
            (methods.jwt, "jwt", "jwt-audience"),
        ];
        for (on, method, setting) in needs {
            match (on, is_set(setting)) {
                (true, false) => problems.push(format!("auth {method} needs {setting}")),
                (false, true) => problems.push(format!(
                    "{setting} is set but auth does not name {method}: it would have no effect"
                )),
                _ => {}
            }
        }
        if methods.mtls && !is_set("tls-client-ca") {
            problems.push(
                "auth mtls needs tls-client-ca: the authorities whose certificates are accepted",
            );
        }
        if is_set("tls-client-names") && !is_set("tls-client-ca") {
            problems.push(
                "tls-client-names is set but tls-client-ca is not: no client presents a certificate",
            );
        }
        let off = !(methods.mtls || methods.keys || methods.jwt);
        for setting in ["admin", "tls-client-names"] {
            if off && is_set(setting) {
                problems.push(format!(
                    "{setting} is set but auth is off: it would have no effect"
                ));
            }
        }
        if off && self.of("reflection") == "admin" {
            problems.push("reflection admin needs auth: without it nobody is an administrator");
        }
    }
}

/// The warning about unauthenticated access that the start logs.
///
/// Returns the gauge `auth_off`, and the warning.
#[must_use]
pub fn auth_warning(config: &Config) -> (bool, Option<&'static str>) {
    if config.listen.ip().is_loopback() {
        return (false, None);
    }
    if !config.auth.is_on() {
        let text = "callers are not authenticated (--auth off), and other machines can reach this address: whoever can connect can read, change, delete and watch every todo";
        return (true, Some(text));
    }
    let exposed = config.auth.accepts_headers() && config.tls.is_none();
    let text = "keys and tokens are accepted without TLS (--tls-cert): whoever sees the network can use them; use TLS, unless a proxy on this machine or a mesh encrypts";
    (false, exposed.then_some(text))
}
