//! The name in a client's certificate.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::caller::check_principal;

/// What the certificate of a connection says of its client. Read once a
/// connection: TLS has checked the certificate by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// The connection has no certificate of the client.
    #[default]
    None,
    /// Its first URI name or, if it has none, its first DNS name.
    Named(Arc<str>),
    /// It has no name, or one that cannot be a principal.
    Unnamed,
}

impl Certificate {
    /// The certificate that the client has presented, its own first in the
    /// chain.
    #[must_use]
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(own) = chain.and_then(<[_]>::first) else {
            return Self::None;
        };
        let Ok(certificate) = EndEntityCert::try_from(own) else {
            return Self::Unnamed;
        };
        // A URI name that cannot be a principal is not passed over: another
        // name of the certificate may be somebody else's.
        let name = certificate
            .valid_uri_names()
            .next()
            .or_else(|| certificate.valid_dns_names().next());
        match name {
            Some(name) if !name.contains('*') && check_principal(name).is_ok() => {
                Self::Named(name.into())
            }
            _ => Self::Unnamed,
        }
    }
}

/// Whether a name matches an entry of `--tls-client-names`: the same text, or
/// one that begins with what is before a final `*`.
#[must_use]
pub fn matches(name: &str, allowed: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == allowed,
    }
}

/// Whether a text can be an entry of `--tls-client-names`: `*` stands at its
/// end only.
#[must_use]
pub fn is_name_pattern(text: &str) -> bool {
    let prefix = text.strip_suffix('*').unwrap_or(text);
    !text.is_empty() && !prefix.contains('*')
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        let signed = params.self_signed(&key).expect("signed");
        Certificate::of(Some(&[signed.der().clone()]))
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().expect("ASCII"))
    }

    #[test]
    fn the_first_uri_name_counts_and_then_the_first_dns_name() {
        let named = |name: &str| Certificate::Named(name.into());
        let spiffe = "spiffe://todos.example/ns/default/sa/web";
        assert_eq!(
            certificate(vec![dns("web.example"), uri(spiffe), uri("spiffe://other")]),
            named(spiffe)
        );
        let two = vec![dns("web.example"), dns("other.example")];
        assert_eq!(certificate(two), named("web.example"));
        assert_eq!(Certificate::of(None), Certificate::None);
        assert_eq!(Certificate::of(Some(&[])), Certificate::None);
    }

    #[test]
    fn names_that_cannot_be_principals_are_none() {
        let long = format!("spiffe://{}", "x".repeat(300));
        for names in [
            vec![],
            vec![SanType::IpAddress([127, 0, 0, 1].into())],
            vec![dns("*.example")],
            vec![uri("group:ops")],
            vec![uri(&long), dns("web.example")],
        ] {
            assert_eq!(
                certificate(names.clone()),
                Certificate::Unnamed,
                "{names:?}"
            );
        }
        let broken = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert_eq!(Certificate::of(Some(&[broken])), Certificate::Unnamed);
    }

    #[test]
    fn a_star_at_the_end_matches_any_rest() {
        assert!(
            matches("spiffe://a/web", "spiffe://a/*") && matches("a", "a") && matches("a", "*")
        );
        assert!(!matches("spiffe://ab/web", "spiffe://a/*") && !matches("ab", "a"));
        assert!(!matches("a.web", "*.web"));
    }
}
