//! The body of a response, charged until its bytes are written to the connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};

use super::{
    super::{super::status, connection::Connection},
    Call, overloaded,
};
use crate::{
    budget::{Caller, Part},
    error::Error,
};

/// What a reply takes beside its bytes until it is written: its stream in HTTP/2 and its
/// task. 2.7 KiB were measured of replies of 100 bytes to a peer without a window.
pub(super) const UNREAD_BYTES: u64 = 4 << 10;
/// How often a stream looks for room in its budget.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// The body of a response: each chunk is charged until it is written.
pub struct ReplyBody {
    inner: Body,
    /// All of it, charged already: it comes before `inner`, which is empty.
    whole: Option<ReplyData>,
    /// `None`: a refusal, which has no messages.
    call: Option<Arc<Call>>,
    /// A message was sent: what follows is a stream.
    is_stream: bool,
    /// Ended by us, with another status than the service gave.
    ended: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ReplyBody {
    pub(super) const fn new(inner: Body, call: Option<Arc<Call>>) -> Self {
        Self {
            inner,
            whole: None,
            call,
            is_stream: false,
            ended: false,
            pause: None,
        }
    }

    /// All of a reply, charged before any of it is sent.
    ///
    /// # Errors
    /// `Overloaded`: the budget is used up.
    pub(super) fn whole(bytes: Bytes, call: &Arc<Call>) -> Result<Self, Error> {
        let mut body = Self::new(Body::empty(), Some(Arc::clone(call)));
        body.whole = Some(body.charged(bytes)?);
        Ok(body)
    }

    /// All of a refusal, charged to the errors of its connection: its call has no room
    /// anywhere else. Empty, if there is none there either.
    pub(super) fn refusal(bytes: Bytes, connection: &Arc<Connection>) -> Self {
        let errors = connection.budgets().of(Part::Errors);
        let amount = bytes.len() as u64 + UNREAD_BYTES;
        let charged = errors.try_add(Some(connection.caller()), amount);
        let charge = charged.then(|| Charge {
            of: Charged::Refused(Arc::clone(connection)),
            part: Part::Errors,
            amount,
            epoch: Some(connection.reply_began()),
        });
        Self {
            whole: charge.map(|charge| ReplyData {
                bytes,
                charge: Some(charge),
            }),
            ..Self::new(Body::empty(), None)
        }
    }

    /// Pending while the budget for messages of streams has no room.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(call) = self.call.as_ref().filter(|_| self.is_stream) else {
            return Poll::Ready(());
        };
        let frames = call.connection.budgets().of(Part::StreamFrames);
        while frames.is_full(Some(call.caller())) {
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(sleep(ROOM_PAUSE)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn charged(&mut self, bytes: Bytes) -> Result<ReplyData, Error> {
        let Some(call) = &self.call else {
            return Ok(ReplyData {
                bytes,
                charge: None,
            });
        };
        let connection = &call.connection;
        let mut amount = bytes.len() as u64;
        let (part, epoch) = if self.is_stream {
            let frames = connection.budgets().of(Part::StreamFrames);
            frames.add(Some(call.caller()), amount);
            (Part::StreamFrames, None)
        } else {
            amount += UNREAD_BYTES;
            let replies = connection.budgets().of(Part::Replies);
            if call.exempt.is_some() {
                replies.add(Some(call.caller()), amount);
            } else if !replies.try_add(Some(call.caller()), amount) {
                return Err(overloaded(connection, replies));
            }
            (Part::Replies, Some(connection.reply_began()))
        };
        self.is_stream = true;
        Ok(ReplyData {
            bytes,
            charge: Some(Charge {
                of: Charged::Call(Arc::clone(call)),
                part,
                amount,
                epoch,
            }),
        })
    }
}

impl HttpBody for ReplyBody {
    type Data = ReplyData;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyData>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(whole) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        ready!(self.poll_room(cx));
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => return Poll::Ready(None),
        };
        let frame = match frame.into_data() {
            Ok(bytes) => match self.charged(bytes) {
                Ok(data) => Frame::data(data),
                Err(error) => {
                    self.ended = true;
                    self.inner = Body::empty();
                    Frame::trailers(status::trailers(error.into()))
                }
            },
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(trailers),
                // There are no other frames.
                Err(_) => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.whole.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.whole {
            Some(whole) => SizeHint::with_exact(whole.remaining() as u64),
            None => self.inner.size_hint(),
        }
    }
}

/// A chunk of a reply, charged until the connection has written it.
pub struct ReplyData {
    bytes: Bytes,
    charge: Option<Charge>,
}

struct Charge {
    of: Charged,
    part: Part,
    amount: u64,
    /// Of replies to unary calls: see `Connection::reply_began`.
    epoch: Option<usize>,
}

/// Whose chunk it is.
enum Charged {
    /// Open until all of it is written.
    Call(Arc<Call>),
    /// A call that was refused.
    Refused(Arc<Connection>),
}

impl Charged {
    fn connection(&self) -> &Connection {
        match self {
            Self::Call(call) => &call.connection,
            Self::Refused(connection) => connection,
        }
    }

    fn caller(&self) -> &Caller {
        match self {
            Self::Call(call) => call.caller(),
            Self::Refused(connection) => connection.caller(),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let connection = self.of.connection();
        let budget = connection.budgets().of(self.part);
        budget.sub(Some(self.of.caller()), self.amount);
        if let Some(epoch) = self.epoch {
            connection.reply_ended(epoch);
        }
    }
}

impl Buf for ReplyData {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(charge) = &self.charge {
            charge.of.connection().progressed();
        }
    }
}
