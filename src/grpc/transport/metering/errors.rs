//! Errors, charged until they are written to the connection.
//!
//! An error is a response without a body. Its headers have no window, and h2 queues them
//! however little the peer reads: up to 7 KiB for each call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use http_body::Body as _;
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};

use super::{Call, ReplyBody};
use crate::grpc::transport::connection::Connection;

/// Shorter values are not counted. They are sent as an index, in a byte or two.
const LONG_VALUE_BYTES: usize = 64;
/// How often an error looks for room.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Charges an error to its connection; other responses are charged by their bodies. A short
/// error is charged nothing: it may only not wait for a peer that does not read.
///
/// # Errors
/// The response, if there is no room for it now.
pub(super) fn charge(
    mut response: Response<ReplyBody>,
    connection: &Connection,
) -> Result<Response<ReplyBody>, Box<Response<ReplyBody>>> {
    if !response.body().is_end_stream() {
        return Ok(response);
    }
    let fits = match prepare(&mut response) {
        0 => !connection.is_stalled(),
        wire_bytes => connection.charge_error(wire_bytes),
    };
    if fits {
        Ok(response)
    } else {
        Err(Box::new(response))
    }
}

/// The answer to a call that was refused, and whose error has no room: the caller has its
/// share of requests, and of errors that it did not read. Nothing is charged for such a
/// call, so it must not wait: it gets a status of a few bytes, or, if the peer does not read
/// now, the end of its connection.
pub(super) fn refuse_shortly(connection: &Connection) -> Poll<Response<ReplyBody>> {
    if connection.is_stalled() {
        connection.give_up();
        return Poll::Pending;
    }
    let status = Status::resource_exhausted("there are too many calls; try again later");
    let response = status.into_http::<Body>();
    Poll::Ready(response.map(|body| ReplyBody::new(body, None)))
}

/// The bytes that the long values take on the wire at least: Huffman coding takes five
/// bits for a byte. As sensitive values they are never sent as an index.
fn prepare(response: &mut Response<ReplyBody>) -> u64 {
    let mut bytes = 0;
    for value in response.headers_mut().values_mut() {
        if value.len() >= LONG_VALUE_BYTES {
            value.set_sensitive(true);
            bytes += value.len() as u64 * 5 / 8;
        }
    }
    bytes
}

/// An error for which there is no room yet.
pub struct WaitingError {
    /// `None`: handed over.
    response: Option<Response<ReplyBody>>,
    /// Charged as long as the error waits.
    call: Arc<Call>,
    pause: Pin<Box<Sleep>>,
}

impl WaitingError {
    pub(super) fn new(response: Box<Response<ReplyBody>>, call: &Arc<Call>) -> Self {
        Self {
            response: Some(*response),
            call: Arc::clone(call),
            pause: Box::pin(sleep(ROOM_PAUSE)),
        }
    }

    /// Ready when there is room. A connection whose peer does not read is closed instead,
    /// and with it this call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<ReplyBody>> {
        loop {
            let connection = &self.call.connection;
            if connection.is_stuck() {
                connection.give_up();
            }
            ready!(self.pause.as_mut().poll(cx));
            self.pause = Box::pin(sleep(ROOM_PAUSE));
            let Some(response) = self.response.take() else {
                return Poll::Pending;
            };
            match charge(response, &self.call.connection) {
                Ok(response) => {
                    self.call.answered();
                    return Poll::Ready(response);
                }
                Err(response) => self.response = Some(*response),
            }
        }
    }
}
