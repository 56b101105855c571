//! Messages from JSON and to JSON, by their descriptors.

use std::io::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde::de::DeserializeSeed as _;
use serde_json::error::Category;
use serde_path_to_error::Track;
use tonic::Status;

use super::{
    check::{Check, Findings},
    expected::expected,
};
use crate::{
    budget::Part,
    error::{Error, FieldProblem, shorten},
    grpc::{request_body::MESSAGE_HEAD, status, transport::Call},
};

/// Memory of one value in a message while it is translated, in bytes: the
/// largest value and its place in a list or a map.
const VALUE_BYTES: usize = 128;
/// Smaller translations are part of what every call is charged, and take no turns.
pub const SMALL_BYTES: usize = 16 << 10;
/// Largest reply in JSON, in bytes: what gRPC clients accept of a reply.
const MAX_REPLY_BYTES: usize = 4 << 20;
/// Room for the JSON, in sizes of the encoded reply, up to the largest reply: names of
/// fields, and dates as texts.
const JSON_FACTOR: usize = 4;
/// Memory of the values, which are larger than short texts, in the same unit, and its
/// bound: a thousand todos.
const VALUES_FACTOR: usize = 8;
const MAX_VALUES_BYTES: usize = 2 << 20;

/// The request in JSON as a message of gRPC, its head included.
///
/// # Errors
/// It is not JSON, or not of this message; or the budget is used up.
pub fn from_json(
    json: &[u8],
    message: &MessageDescriptor,
    call: Option<&Call>,
) -> Result<Bytes, Status> {
    let values = check(json, message)?;
    let memory = json.len() + values * VALUE_BYTES;
    let _reserved = match call {
        Some(call) if memory > SMALL_BYTES => {
            Some(call.reserve_bytes(Part::DecodedRequests, memory as u64)?)
        }
        _ => None,
    };
    let decoded = parse(json, message)?;
    let length = decoded.encoded_len();
    let mut encoded = BytesMut::with_capacity(MESSAGE_HEAD + length);
    encoded.put_u8(0);
    encoded.put_u32(u32::try_from(length).map_err(|_| status::internal())?);
    // The buffer grows: it always has room.
    decoded
        .encode(&mut encoded)
        .map_err(|_| status::internal())?;
    Ok(encoded.freeze())
}

/// How many values there are.
fn check(json: &[u8], message: &MessageDescriptor) -> Result<usize, Status> {
    let mut findings = Findings::default();
    let mut parser = serde_json::Deserializer::from_slice(json);
    let checked = Check {
        message: Some(message.clone()),
        is_mask: false,
        findings: &mut findings,
    }
    .deserialize(&mut parser)
    .and_then(|()| parser.end());
    if let Some(problem) = findings.problem {
        return Err(Error::from(problem).into());
    }
    checked.map_err(|problem| wrong(String::new(), &problem, None))?;
    Ok(findings.values)
}

fn parse(json: &[u8], message: &MessageDescriptor) -> Result<DynamicMessage, Status> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut parser, &mut track);
    DynamicMessage::deserialize(message.clone(), tracked).map_err(|problem| {
        let path = track.path();
        wrong(path.to_string(), &problem, expected(message, &path))
    })
}

/// What the parser says, of the field at this path, and what would be right.
fn wrong(path: String, problem: &serde_json::Error, expected: Option<String>) -> Status {
    let mut text = shorten(&problem.to_string());
    if let Some(expected) = expected {
        // The path says where it is.
        let end = text.find(" at line ").unwrap_or(text.len());
        text.truncate(end);
        text += &format!("; use {expected}");
    }
    let field = if path.is_empty() || path == "." {
        "request".to_owned()
    } else {
        shorten(&path)
    };
    let problem = match problem.classify() {
        Category::Data => format!("is not valid: {text}"),
        Category::Io | Category::Syntax | Category::Eof => format!("is not JSON: {text}"),
    };
    Error::from(FieldProblem::new(field, "", problem)).into()
}

/// What the translation of a reply of so many bytes takes beside it, in bytes.
///
/// Its texts are copied, and then the encoded reply makes room for the JSON. The largest one
/// takes 10 MiB in all: one caller may have 12 MiB of the least budget.
pub fn memory_of(encoded: usize) -> usize {
    room_of(encoded) + (encoded * VALUES_FACTOR).min(MAX_VALUES_BYTES)
}

/// Room for the JSON, in bytes.
fn room_of(encoded: usize) -> usize {
    (encoded * JSON_FACTOR).min(MAX_REPLY_BYTES)
}

/// The JSON of a reply. The call is charged for the encoded one by the caller of this.
///
/// # Errors
/// It is too large, or the budget is used up.
pub fn to_json(
    encoded: Bytes,
    message: &MessageDescriptor,
    call: Option<&Call>,
) -> Result<Vec<u8>, Status> {
    let (memory, room) = (memory_of(encoded.len()), room_of(encoded.len()));
    let _reserved = match call {
        Some(call) if memory > SMALL_BYTES => {
            Some(call.reserve_bytes(Part::Replies, memory as u64)?)
        }
        _ => None,
    };
    let decoded =
        DynamicMessage::decode(message.clone(), encoded).map_err(|_| status::internal())?;
    let mut json = Bounded {
        bytes: Vec::with_capacity(room),
        is_full: false,
    };
    match serde_json::to_writer(&mut json, &decoded) {
        Ok(()) => {
            // It is charged by its length from here on.
            json.bytes.shrink_to_fit();
            Ok(json.bytes)
        }
        Err(_) if json.is_full => Err(too_large()),
        Err(problem) => {
            tracing::error!(%problem, message = message.full_name(), "a reply has no JSON form");
            Err(status::internal())
        }
    }
}

fn too_large() -> Status {
    Error::MessageTooLarge {
        what: "reply as JSON",
        limit: MAX_REPLY_BYTES,
        advice: "ask for fewer todos at once, or use gRPC".into(),
    }
    .into()
}

/// A buffer that refuses more than the largest reply.
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_REPLY_BYTES {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
