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

use super::{Call, ReplyBody};
use crate::grpc::transport::connection::Connection;

/// Shorter values are not counted. They are sent as an index, in a byte or two.
const LONG_VALUE_BYTES: usize = 64;
/// How often an error looks for room.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Charges an error to its connection; other responses are charged by their bodies.
///
/// # Errors
/// The response, if there is no room for it.
pub(super) fn charge(
    mut response: Response<ReplyBody>,
    connection: &Connection,
) -> Result<Response<ReplyBody>, Box<Response<ReplyBody>>> {
    if !response.body().is_end_stream() {
        return Ok(response);
    }
    let wire_bytes = prepare(&mut response);
    if wire_bytes == 0 || connection.charge_error(wire_bytes) {
        Ok(response)
    } else {
        Err(Box::new(response))
    }
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
    connection: Arc<Connection>,
    /// Charged as long as the error waits; `None`: the call was refused.
    call: Option<Arc<Call>>,
    pause: Pin<Box<Sleep>>,
}

impl WaitingError {
    pub(super) fn new(
        response: Box<Response<ReplyBody>>,
        connection: &Arc<Connection>,
        call: Option<&Arc<Call>>,
    ) -> Self {
        Self {
            response: Some(*response),
            connection: Arc::clone(connection),
            call: call.cloned(),
            pause: Box::pin(sleep(ROOM_PAUSE)),
        }
    }

    /// Ready when there is room. A connection whose peer does not read is closed instead,
    /// and with it this call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<ReplyBody>> {
        loop {
            if self.connection.is_stuck() {
                self.connection.give_up();
            }
            ready!(self.pause.as_mut().poll(cx));
            self.pause = Box::pin(sleep(ROOM_PAUSE));
            let Some(response) = self.response.take() else {
                return Poll::Pending;
            };
            match charge(response, &self.connection) {
                Ok(response) => {
                    if let Some(call) = &self.call {
                        call.answered();
                    }
                    return Poll::Ready(response);
                }
                Err(response) => self.response = Some(*response),
            }
        }
    }
}
