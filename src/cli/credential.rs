//! What the client commands authenticate with: an API key or a token, never as
//! an argument, which every user of the machine could see.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use http::HeaderValue;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::error::CommandError;
use crate::grpc::client::todo_service_client::TodoServiceClient;

/// A client that authenticates each call.
pub type TodoClient = TodoServiceClient<InterceptedService<Channel, Credential>>;

/// The environment variable that holds an API key itself.
const KEY_VARIABLE: &str = "TIDEMARK_API_KEY";
/// Longest credential in bytes: what the service accepts.
const MAX_BYTES: u64 = 8 << 10;

/// Where the credential is.
#[derive(Args, Clone, Default)]
pub struct CredentialArgs {
    /// File with an API key. The variable TIDEMARK_API_KEY may hold the key itself
    #[arg(
        long,
        env = "TIDEMARK_API_KEY_FILE",
        value_name = "FILE",
        conflicts_with = "token_file"
    )]
    api_key_file: Option<PathBuf>,
    /// File with a JSON Web Token; read again for each connection
    #[arg(long, env = "TIDEMARK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The header that calls carry; `None`: none.
#[derive(Clone)]
pub struct Credential(Option<HeaderValue>);

impl CredentialArgs {
    /// Reads the credential.
    pub fn read(&self) -> Result<Credential, CommandError> {
        let (text, place) =
            if let Some(file) = self.api_key_file.as_ref().or(self.token_file.as_ref()) {
                let text = read(file).map_err(|problem| {
                    CommandError::Usage(format!("{} cannot be read: {problem}", file.display()))
                })?;
                (text, file.display().to_string())
            } else if let Some(key) = std::env::var_os(KEY_VARIABLE).filter(|key| !key.is_empty()) {
                (key.to_string_lossy().into_owned(), KEY_VARIABLE.to_owned())
            } else {
                return Ok(Credential(None));
            };
        let text = text.trim();
        let is_one_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let header = HeaderValue::from_str(&format!("Bearer {text}"))
            .ok()
            .filter(|_| is_one_word);
        let mut header = header.ok_or_else(|| {
            CommandError::Usage(format!("{place} holds neither an API key nor a token"))
        })?;
        header.set_sensitive(true);
        Ok(Credential(Some(header)))
    }
}

impl Credential {
    /// Whether calls carry a header.
    pub const fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            let value = MetadataValue::try_from(header.as_bytes())
                .map_err(|_| Status::internal("the credential is not a header"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(MAX_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}
