//! TLS from PEM files: what a server shows and asks for, and whom a client
//! trusts.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

/// Largest PEM file: all the authorities that an operating system trusts take
/// a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Most certificates that a client may show behind its own. The library tries all orders of
/// them before anything of the client is proved: 70 that name each other as issuers took 0.6 s of
/// CPU, and four take less than a handshake. Authorities of clients use one or two.
const MAX_INTERMEDIATES: usize = 4;

/// Why TLS cannot be set up from its files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", .file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is larger than any file of certificates or keys.
    #[error("{}: is larger than {MAX_FILE_BYTES} bytes", .file.display())]
    TooLarge {
        /// Which file.
        file: PathBuf,
    },
    /// What is in a file of authorities cannot be used.
    #[error("{}: {source}", .file.display())]
    Authorities {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<TlsError>,
    },
    /// The file of one of the server's settings cannot be used.
    #[error("{setting}: {source}")]
    Setting {
        /// Which setting, or settings.
        setting: &'static str,
        /// What is wrong with it.
        source: Box<TlsError>,
    },
    /// The certificates are not in the form of PEM.
    #[error("the certificates cannot be read: {0}")]
    Certificates(#[source] pem::Error),
    /// The key is not in the form of PEM.
    #[error("the key cannot be read: {0}")]
    Key(#[source] pem::Error),
    /// The file has something else in it.
    #[error("there is no certificate (BEGIN CERTIFICATE) in the file")]
    NoCertificate,
    /// The key is another one's.
    #[error("the key is not that of the certificate")]
    KeyMismatch(#[source] Error),
    /// A certificate of an authority is not one.
    #[error("an authority cannot be used: {0}")]
    Authority(#[source] Error),
    /// Clients cannot be verified by these authorities.
    #[error("{0}")]
    Verifier(#[source] VerifierBuilderError),
    /// The system has no authorities.
    #[error("this machine has no list of authorities: name a file of them")]
    NoAuthorities,
    /// The TLS library refuses what it was given.
    #[error("{0}")]
    Library(#[source] Error),
}

impl TlsError {
    /// The same error, of the file that this setting names.
    fn of(setting: &'static str) -> impl Fn(Self) -> Self {
        move |source| Self::Setting {
            setting,
            source: source.into(),
        }
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match error {
            Error::InconsistentKeys(_) => Self::KeyMismatch(error),
            error => Self::Library(error),
        }
    }
}

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
    pub fn read(&self) -> Result<ServerPem, TlsError> {
        let client_ca = self.client_ca.as_deref().map(read).transpose();
        Ok(ServerPem {
            cert: read(&self.cert).map_err(TlsError::of("tls-cert"))?,
            key: read(&self.key).map_err(TlsError::of("tls-key"))?,
            client_ca: client_ca.map_err(TlsError::of("tls-client-ca"))?,
            client_cert_optional: self.client_cert_optional,
        })
    }
}

impl ServerPem {
    /// What a server does with them, for these application protocols.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn config(&self, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::from)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = roots(pem).map_err(TlsError::of("tls-client-ca"))?;
                let roots = Arc::new(roots);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                if self.client_cert_optional {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build().map_err(TlsError::Verifier)?;
                builder.with_client_cert_verifier(Arc::new(ShortChains(verifier)))
            }
        };
        let cert = certificates(&self.cert).map_err(TlsError::of("tls-cert"))?;
        let key = key(&self.key).map_err(TlsError::of("tls-key"))?;
        let mut config = builder
            .with_single_cert(cert, key)
            .map_err(|error| TlsError::of("tls-cert, tls-key")(error.into()))?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

/// A client shows more than [`MAX_INTERMEDIATES`].
#[derive(Debug, thiserror::Error)]
#[error(
    "the client shows {count} certificates behind its own, more than {MAX_INTERMEDIATES}: it should show those between its own and the authority"
)]
struct ChainTooLong {
    count: usize,
}

/// Verifies clients that show no more than [`MAX_INTERMEDIATES`].
#[derive(Debug)]
struct ShortChains(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ShortChains {
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let count = intermediates.len();
        if count > MAX_INTERMEDIATES {
            let problem = OtherError(Arc::new(ChainTooLong { count }));
            return Err(CertificateError::Other(problem).into());
        }
        self.0.verify_client_cert(own, intermediates, now)
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}

impl ClientFiles {
    /// What a client does with them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let roots = match &self.ca {
            Some(file) => roots(&read(file)?).map_err(|source| TlsError::Authorities {
                file: file.clone(),
                source: source.into(),
            })?,
            None => platform_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::from)?
            .with_root_certificates(roots);
        let Some((cert, key_file)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let (cert, key) = (certificates(&read(cert)?)?, key(&read(key_file)?)?);
        Ok(builder.with_client_auth_cert(cert, key)?)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |source| TlsError::File {
        file: file.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(wrong)?;
    let mut opened = opened.take(MAX_FILE_BYTES + 1);
    opened.read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let file = file.to_owned();
        return Err(TlsError::TooLarge { file });
    }
    Ok(bytes)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(TlsError::Certificates)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(certificates)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(TlsError::Key)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(TlsError::Authority)?;
    }
    Ok(roots)
}

/// Those of this machine; some of them may be of a kind that is not known
/// here.
fn platform_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    Ok(roots)
}
