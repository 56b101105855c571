//! Bounds of what an error takes on the wire.
//!
//! Clients in C-core languages drop a response whose headers are above 8 KiB. An error
//! repeats parts of the request, percent-encoded and in base64, so each part of it has
//! a limit.

use http::{HeaderMap, Response};
use tonic::{Code, Status, body::Body};

use super::{malformed, request_too_large};

/// Longest text of an error in bytes.
const MAX_TEXT_BYTES: usize = 2 << 10;
/// The same as it is sent, percent-encoded.
const MAX_ENCODED_TEXT_BYTES: usize = 3 << 10;
/// Most bytes of an error's details: a third more in base64.
const MAX_DETAILS_BYTES: usize = 3 << 10;
/// Most bytes of all headers that an error's response has from the service, as
/// HTTP/2 counts them. It leaves 1 KiB of the clients' 8 KiB to what the
/// transport and proxies add.
const MAX_HEADER_BYTES: usize = 7 << 10;
/// What HTTP/2 counts for each header besides its name and value.
const HEADER_OVERHEAD: usize = 32;

/// Cuts a text to at most `max_bytes`, at the end of a character.
pub(super) fn cut(text: &mut String, max_bytes: usize) {
    const ELLIPSIS: &str = "...";
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
}

/// Cuts a text so that it is within the limits both as it is and percent-encoded.
pub(super) fn bounded_text(mut text: String) -> String {
    let mut encoded = 0;
    let fitting = text.bytes().take_while(|byte| {
        let plain = byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(byte);
        encoded += if plain { 1 } else { 3 };
        encoded <= MAX_ENCODED_TEXT_BYTES
    });
    let max = fitting.count().min(MAX_TEXT_BYTES);
    cut(&mut text, max);
    text
}

/// Gives an error of the framework the form that the contract states, and cuts
/// every error to a size that all clients accept. `max_request_bytes` is the
/// limit that the request was decoded with.
pub fn bound_refusal(response: Response<Body>, max_request_bytes: usize) -> Response<Body> {
    let headers = response.headers();
    let code = match headers.get(Status::GRPC_STATUS) {
        None => return response,
        Some(code) => Code::from_bytes(code.as_bytes()),
    };
    let from_framework = matches!(
        code,
        Code::OutOfRange | Code::Internal | Code::ResourceExhausted
    ) && !headers.contains_key(Status::GRPC_STATUS_DETAILS);
    if !from_framework && header_bytes(headers) <= MAX_HEADER_BYTES {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return response;
    };
    let status = if from_framework {
        translate(status, max_request_bytes)
    } else {
        status
    };
    bounded(status).into_http()
}

/// Translates the framework's error for a request that it could not decode into an
/// error of the contract.
pub fn translate(status: Status, max_request_bytes: usize) -> Status {
    let text = status.message();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match status.code() {
        Code::OutOfRange => request_too_large(max_request_bytes),
        // Within the limit as sent, above it once decompressed.
        Code::ResourceExhausted if says(&["decompress"]) => request_too_large(max_request_bytes),
        Code::Internal if says(&["decod", "Protobuf", "compress", "request message"]) => {
            malformed(text)
        }
        _ => status,
    }
}

/// Cuts the text, and drops details that are too large.
fn bounded(status: Status) -> Status {
    let text = bounded_text(status.message().to_owned());
    if status.details().len() <= MAX_DETAILS_BYTES {
        Status::with_details(status.code(), text, status.details().to_vec().into())
    } else {
        Status::new(status.code(), text)
    }
}

/// The size of headers as HTTP/2 counts it.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD)
        .sum()
}
