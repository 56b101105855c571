//! TLS from PEM files: what a server shows and asks for, and whom a client
//! trusts.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// Largest PEM file: all the authorities that an operating system trusts take
/// a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The files of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// Its certificates, its own first.
    pub cert: PathBuf,
    /// The key to the first of them.
    pub key: PathBuf,
    /// The authorities of clients; `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Clients may connect without a certificate: callers are authenticated by
    /// a header, too.
    pub client_cert_optional: bool,
}

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities it trusts; `None`: those of this machine.
    pub ca: Option<PathBuf>,
    /// The certificate it shows, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What was in the files of a server.
#[derive(PartialEq, Eq)]
pub struct ServerPem {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_cert_optional: bool,
}

impl ServerFiles {
    /// Reads them.
    ///
    /// # Errors
    /// Which file cannot be read, and why.
    pub fn read(&self) -> Result<ServerPem, String> {
        Ok(ServerPem {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
            client_cert_optional: self.client_cert_optional,
        })
    }
}

impl ServerPem {
    /// What a server does with them, for these application protocols.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn config(&self, protocols: &[&[u8]]) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(told)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = Arc::new(roots(pem)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                if self.client_cert_optional {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build().map_err(|e| e.to_string())?)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key(&self.key)?)
            .map_err(told)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

impl ClientFiles {
    /// What a client does with them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let roots = match &self.ca {
            Some(file) => {
                roots(&read(file)?).map_err(|problem| format!("{}: {problem}", file.display()))?
            }
            None => platform_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(told)?
            .with_root_certificates(roots);
        let Some((cert, key_file)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let (cert, key) = (certificates(&read(cert)?)?, key(&read(key_file)?)?);
        builder.with_client_auth_cert(cert, key).map_err(told)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn told(error: Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "the key is not that of the certificate".into(),
        error => error.to_string(),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let wrong = |problem: String| format!("{}: {problem}", file.display());
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(|e| wrong(e.to_string()))?;
    opened
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|e| format!("the certificates cannot be read: {e}"))?;
    if certificates.is_empty() {
        return Err("there is no certificate (BEGIN CERTIFICATE) in the file".into());
    }
    Ok(certificates)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| format!("the key cannot be read: {e}"))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|e| format!("an authority cannot be used: {e}"))?;
    }
    Ok(roots)
}

/// Those of this machine; some of them may be of a kind that is not known
/// here.
fn platform_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no list of authorities: name a file of them".into());
    }
    Ok(roots)
}
