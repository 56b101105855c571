//! The reply to a gRPC call as JSON.

use std::{pin::Pin, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER, TRANSFER_ENCODING},
};
use http_body_util::BodyExt as _;
use prost_reflect::MethodDescriptor;
use tonic::{Code, Status, body::Body};

use super::{error, lane::Lane, transcode};
use crate::{
    budget::{Part, Reservation},
    error::Error,
    grpc::{
        request_body::{MESSAGE_HEAD, Received},
        status,
        transport::Call,
    },
};

/// A reply that is complete when its head is made. Its status is in the head,
/// so it needs its share of the budget for replies before the head is sent: the
/// layer that charges calls takes it from the extensions of a response without
/// a body.
#[derive(Clone)]
pub struct WholeReply(pub Bytes);

/// The response in JSON.
pub async fn translate(
    response: Response<Body>,
    method: &MethodDescriptor,
    call: Option<Arc<Call>>,
    lane: &Arc<Lane>,
) -> Response<Body> {
    let (head, body) = response.into_parts();
    // Held until the reply is translated: it may wait long for its turn.
    let mut held = Held::new(call.as_ref());
    let (outcome, trailers) = match failure(&head.headers) {
        Some(status) => (Err(status), HeaderMap::new()),
        None => collect(body, &mut held).await,
    };
    let output = method.output();
    let json = match outcome {
        Ok(message) if message.len() > transcode::SMALL_BYTES => {
            let work = move |call: Option<&Call>| transcode::to_json(message, &output, call);
            lane.run(call, work).await
        }
        outcome => {
            if let Some(call) = &call {
                call.turn().await;
            }
            outcome.and_then(|message| transcode::to_json(message, &output, call.as_deref()))
        }
    };
    drop(held);
    let mut response = match json {
        Ok(json) => super::response(StatusCode::OK, json),
        Err(status) => error::respond(&status),
    };
    let headers = response.headers_mut();
    copy_metadata(&head.headers, headers, "");
    copy_metadata(&trailers, headers, "trailer-");
    response
}

/// The error that these headers or trailers state.
fn failure(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

/// The part of a reply that is here, charged to the replies in flight.
struct Held {
    /// `None`: no caller is known, or its calls are served whatever is used up.
    call: Option<Arc<Call>>,
    /// `None`: nothing is here.
    reserved: Option<Reservation>,
}

impl Held {
    fn new(call: Option<&Arc<Call>>) -> Self {
        let call = call.filter(|call| !call.is_exempt()).cloned();
        Self {
            call,
            reserved: None,
        }
    }

    /// More bytes are here.
    ///
    /// # Errors
    /// There is no room for them, or not for their translation beside them: it would be
    /// refused after it has waited for its turn.
    fn add(&mut self, bytes: usize) -> Result<(), Error> {
        let Some(call) = &self.call else {
            return Ok(());
        };
        let translation = transcode::memory_of(bytes);
        let needed = (bytes + translation) as u64;
        let mut more = call.reserve_bytes(Part::Replies, needed)?;
        more.shrink_to(bytes as u64);
        match &mut self.reserved {
            Some(reserved) => reserved.force_grow(bytes as u64),
            None => self.reserved = Some(more),
        }
        Ok(())
    }
}

/// The message of a reply, or the error that it ends with, and its trailers.
async fn collect(mut body: Body, held: &mut Held) -> (Result<Bytes, Status>, HeaderMap) {
    let mut received = Received::default();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = Pin::new(&mut body).frame().await {
        match frame.map(http_body::Frame::into_data) {
            Err(status) => return (Err(status), trailers),
            Ok(Ok(data)) => {
                if let Err(error) = held.add(data.len()) {
                    return (Err(error.into()), trailers);
                }
                received.push(data);
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    let outcome = match failure(&trailers) {
        Some(status) => Err(status),
        None => message(received.take()).ok_or_else(status::internal),
    };
    (outcome, trailers)
}

/// The one message of a reply. It is not compressed: the request did not allow
/// it.
fn message(mut reply: Bytes) -> Option<Bytes> {
    if reply.len() < MESSAGE_HEAD {
        return None;
    }
    let (compressed, length) = (reply.get_u8(), reply.get_u32() as usize);
    (compressed == 0 && length == reply.len()).then_some(reply)
}

/// Copies the metadata of a call, with a prefix before each name. What describes
/// the gRPC response stays behind.
fn copy_metadata(from: &HeaderMap, to: &mut HeaderMap<HeaderValue>, prefix: &str) {
    let of_grpc = [CONTENT_TYPE, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING];
    for (name, value) in from {
        if of_grpc.contains(name) || name.as_str().starts_with("grpc-") {
            continue;
        }
        let mut prefixed = BytesMut::from(prefix);
        prefixed.extend_from_slice(name.as_str().as_bytes());
        if let Ok(name) = HeaderName::from_bytes(&prefixed) {
            to.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_get_a_prefix() {
        let mut from = HeaderMap::new();
        for name in ["grpc-status", "content-type", "x-cost"] {
            from.insert(name, HeaderValue::from_static("1"));
        }
        let mut to = HeaderMap::new();
        copy_metadata(&from, &mut to, "trailer-");
        assert_eq!(to.keys().collect::<Vec<_>>(), ["trailer-x-cost"]);
    }

    #[test]
    fn a_reply_is_one_whole_message() {
        let whole = Bytes::from_static(b"\0\0\0\0\x01a");
        assert_eq!(message(whole.clone()).as_deref(), Some(&b"a"[..]));
        assert_eq!(message(whole.slice(..5)), None);
        assert_eq!(message(Bytes::new()), None);
    }
}
