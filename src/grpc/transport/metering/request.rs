//! The body of a request, charged as it arrives.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{super::super::status, BodyProblem, Call};
use crate::error::Error;

/// Time for the rest of a request after the shutdown began: it is on the way, or
/// never comes.
const DRAIN_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// The body of a request: each chunk is charged until the call is answered. The
/// layer above bounds its size and time, and waits until it is complete.
pub(super) struct RequestBody<B> {
    inner: B,
    call: Arc<Call>,
    /// A response of its own can follow each request, however that one ended: HTTP/1.1.
    is_http_1: bool,
    /// Charged at its beginning: a stream of requests.
    is_stream: bool,
    /// Set when the body waits for its peer for the first time: a shutdown ends
    /// what is unfinished.
    draining: Option<BoxFuture<'static, ()>>,
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, call: &Arc<Call>, version: Version, is_stream: bool) -> Self {
        Self {
            inner,
            call: Arc::clone(call),
            is_http_1: version < Version::HTTP_2,
            is_stream,
            draining: None,
        }
    }

    /// Ends the body with this answer to the call.
    fn refuse<T>(&self, status: Status) -> Refusal<T> {
        let problem = BodyProblem::Refused(status.clone());
        let _ = self.call.body_problem.set(problem);
        Poll::Ready(Some(Err(status.into())))
    }

    /// Ends the body with an error of the connection. In HTTP/2 its stream was reset, and
    /// there is nobody to answer. In HTTP/1.1 the peer may have sent what is no body (chunks
    /// without a length), and waits for the response.
    fn fail<T>(&self, error: Problem) -> Refusal<T> {
        if self.is_http_1 {
            return self.refuse(status::malformed(
                "its body is cut off, or its chunks are broken",
            ));
        }
        let _ = self.call.body_problem.set(BodyProblem::CallerIsGone);
        Poll::Ready(Some(Err(error)))
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;
/// What a body is polled to when it ends in an error.
type Refusal<T> = Poll<Option<Result<T, Problem>>>;

async fn drained(shutdown: CancellationToken) {
    shutdown.cancelled().await;
    sleep(DRAIN_REQUEST_TIMEOUT).await;
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Problem>,
{
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return self.fail(error.into()),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let shutdown = self.call.connection.shutdown().clone();
                let draining = self
                    .draining
                    .get_or_insert_with(|| Box::pin(drained(shutdown)));
                ready!(draining.as_mut().poll(cx));
                return self.refuse(Error::Draining.into());
            }
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        if !self.is_stream
            && bytes > 0
            && let Err(error) = self.call.charge_body(bytes)
        {
            return self.refuse(error.into());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
