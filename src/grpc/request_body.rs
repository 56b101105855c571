//! Reads the body of a request within a limit of bytes and time, before
//! anything is decoded.
//!
//! A unary request is handed on only when it is here in full. The framework
//! would reserve what a message's head announces, and would hold the decoded
//! message for as long as the caller leaves the request open. One of a caller with many calls
//! is handed on round-robin by caller.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep, sleep};
use tonic::{Code, Status, body::Body};

use super::{
    method::{Method, REFLECTION_IDLE_TIMEOUT, REQUEST_TIMEOUT, Requests},
    status,
    transport::{BodyProblem, Call},
};
use crate::turns::Turn;

/// Bytes before each message: whether it is compressed, and its length.
pub const MESSAGE_HEAD: usize = 5;

/// A request's body that ends in an error when it is too large or too slow.
pub struct RequestBody {
    inner: Body,
    method: Method,
    /// What came of a unary request.
    received: Received,
    /// Starts when the body is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// The caller reset the call or lost its connection: the transport drops
    /// the call, which counts it as cancelled.
    caller_is_gone: bool,
    /// `None`: no caller is known; it does not wait for a turn.
    call: Option<Arc<Call>>,
    /// A whole unary request, or a frame of a stream, and the turn that it waits for.
    whole: Option<(Turn, Bytes)>,
    ended: bool,
}

/// The frames of one message. Most requests come in one frame, which is handed
/// on without a copy.
#[derive(Default)]
pub enum Received {
    /// No bytes yet.
    #[default]
    Nothing,
    /// All bytes so far, as they came.
    One(Bytes),
    /// All bytes so far, copied together.
    Several(BytesMut),
}

impl Received {
    /// All bytes so far.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::One(bytes) => bytes,
            Self::Several(bytes) => bytes,
        }
    }

    /// Adds a frame.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        *self = match std::mem::take(self) {
            Self::Nothing => Self::One(bytes),
            Self::One(first) => {
                let mut all = BytesMut::from(first);
                all.extend_from_slice(&bytes);
                Self::Several(all)
            }
            Self::Several(mut all) => {
                all.extend_from_slice(&bytes);
                Self::Several(all)
            }
        };
    }

    /// Takes all bytes.
    pub fn take(&mut self) -> Bytes {
        match std::mem::take(self) {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Several(bytes) => bytes.freeze(),
        }
    }
}

impl RequestBody {
    /// The body of a call of this method.
    pub fn new(inner: Body, method: Method, call: Option<Arc<Call>>) -> Self {
        Self {
            inner,
            method,
            received: Received::default(),
            timer: None,
            caller_is_gone: false,
            call,
            whole: None,
            ended: false,
        }
    }

    /// Keeps one frame of a unary request, unless the request is already known
    /// to be wrong.
    fn receive(&mut self, bytes: Bytes) -> Result<(), Status> {
        let limit = self.method.max_request_bytes;
        if self.received.as_slice().len() + bytes.len() > MESSAGE_HEAD + limit {
            return Err(status::request_too_large(limit));
        }
        self.received.push(bytes);
        match announced(self.received.as_slice()) {
            Some(length) if length > limit => Err(status::request_too_large(limit)),
            Some(length) if self.received.as_slice().len() > MESSAGE_HEAD + length => {
                Err(status::malformed("it holds more than one message"))
            }
            _ => Ok(()),
        }
    }

    /// The whole unary request.
    fn finish(&mut self) -> Result<Bytes, Status> {
        let received = self.received.as_slice();
        match announced(received) {
            None => Err(status::malformed("the request holds no message")),
            Some(length) if received.len() < MESSAGE_HEAD + length => {
                Err(status::malformed("it ends before its announced length"))
            }
            Some(_) => Ok(self.received.take()),
        }
    }

    /// What the body's error means. grpc-web turns the errors of the transport, and
    /// refusals of ours, into texts of its own.
    fn problem(&self, error: Status) -> BodyProblem {
        let known = self.call.as_ref().and_then(|call| call.body_problem());
        match known {
            Some(problem) => problem.clone(),
            None if is_transport_error(&error) => BodyProblem::CallerIsGone,
            None if is_of_grpc_web(&error) => {
                BodyProblem::Refused(status::malformed("its body in base64 is broken"))
            }
            None => BodyProblem::Refused(error),
        }
    }

    fn timeout(&self) -> Duration {
        match self.method.requests {
            Requests::One => REQUEST_TIMEOUT,
            Requests::Stream => REFLECTION_IDLE_TIMEOUT,
        }
    }

    /// Waits for the timer; the first call starts it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let timeout = self.timeout();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(status::request_too_slow(timeout))
    }

    fn poll_unary(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            if self.caller_is_gone {
                return self.poll_timer(cx).map(Err);
            }
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
                return self.poll_timer(cx).map(Err);
            };
            match frame {
                None => return Poll::Ready(self.finish()),
                Some(Err(error)) => match self.problem(error) {
                    BodyProblem::CallerIsGone => self.caller_is_gone = true,
                    BodyProblem::Refused(status) => return Poll::Ready(Err(status)),
                },
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Err(refusal) = self.receive(data) {
                            return Poll::Ready(Err(refusal));
                        }
                        if self.inner.is_end_stream() {
                            return Poll::Ready(self.finish());
                        }
                    }
                    // Trailers of a request mean nothing to the service.
                    Err(_) => return Poll::Ready(self.finish()),
                },
            }
        }
    }

    /// The next frame of a stream of requests. Of a caller with many calls it comes in its
    /// turn, as a whole unary request does.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (mut turn, bytes) = match self.whole.take() {
            Some((turn, bytes)) => (turn, bytes),
            None => {
                let frame = ready!(self.poll_frame_in_time(cx));
                let data = frame
                    .as_ref()
                    .and_then(|frame| frame.as_ref().ok()?.data_ref());
                let Some((bytes, call)) = data.zip(self.call.as_ref()) else {
                    return Poll::Ready(frame);
                };
                match call.ask_turn(bytes.len()) {
                    Some(turn) => (turn, bytes.clone()),
                    None => return Poll::Ready(frame),
                }
            }
        };
        // Fails only if the port is not served any more.
        if Pin::new(&mut turn).poll(cx).is_pending() {
            self.whole = Some((turn, bytes));
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn poll_frame_in_time(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                let late = ready!(self.poll_timer(cx));
                self.ended = true;
                Poll::Ready(Some(Err(late)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.ended = true;
                let status = match self.problem(error.clone()) {
                    BodyProblem::CallerIsGone => error,
                    BodyProblem::Refused(status) => status,
                };
                Poll::Ready(Some(Err(status)))
            }
            frame @ Poll::Ready(_) => {
                let next = Instant::now() + self.timeout();
                if let Some(timer) = &mut self.timer {
                    timer.as_mut().reset(next);
                }
                frame
            }
        }
    }
}

/// Whether the body ended because of the connection, and not of its contents or
/// of a refusal of ours, which has details.
fn is_transport_error(error: &Status) -> bool {
    error.details().is_empty()
        && matches!(
            error.code(),
            Code::Cancelled | Code::Unknown | Code::Unavailable
        )
}

/// Whether the translation of grpc-web could not read the body.
fn is_of_grpc_web(error: &Status) -> bool {
    error.code() == Code::Internal && error.details().is_empty()
}

/// The length that a message's head announces, once it is here.
fn announced(mut received: &[u8]) -> Option<usize> {
    (received.len() >= MESSAGE_HEAD).then(|| {
        received.advance(1);
        received.get_u32() as usize
    })
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.method.requests == Requests::Stream {
            return self.poll_stream(cx);
        }
        let (turn, bytes) = match self.whole.take() {
            Some((turn, bytes)) => (Some(turn), bytes),
            None => match ready!(self.poll_unary(cx)) {
                Ok(bytes) => {
                    let call = self.call.as_ref();
                    (call.and_then(|call| call.ask_turn(bytes.len())), bytes)
                }
                Err(refusal) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(refusal)));
                }
            },
        };
        if let Some(mut turn) = turn
            // Fails only if the port is not served any more.
            && Pin::new(&mut turn).poll(cx).is_pending()
        {
            self.whole = Some((turn, bytes));
            return Poll::Pending;
        }
        self.ended = true;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
