//! Charges each call to the budgets of the process: its request until the call
//! is answered, and its reply until the bytes are written to the connection.
//!
//! A reply that finds its budget used up becomes `OVERLOADED`. Messages of
//! streams wait instead: their changes are pending, and have a budget there.

mod errors;
mod reply;
mod request;
mod turn;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::{BoxFuture, Either};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

pub use self::reply::ReplyBody;
use self::{errors::WaitingError, request::RequestBody};
use super::{
    super::json::{self, WholeReply},
    connection::Connection,
    protocol,
};
use crate::{
    audit::Record,
    auth::ConnectionIdentity,
    budget::{Budget, Caller, Count, Part, Reservation},
    error::Error,
    telemetry::Kind,
};

/// Memory of a call beside its headers and messages: tasks, the stream in h2,
/// and what the call works with.
const CALL_BYTES: u64 = 4 << 10;
/// What a header takes beside its name and value.
const HEADER_BYTES: u64 = 96;
/// What a stream of requests (reflection) is charged until it ends: its largest message,
/// as far as it is here, and as much of the next that was not read yet.
const STREAM_REQUEST_BYTES: u64 = 128 << 10;
/// What a stream of health is charged until it ends.
const HEALTH_WATCH_BYTES: u64 = 8 << 10;
/// When a caller that was refused should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the body of a request ended before its end.
#[derive(Clone, Debug)]
pub enum BodyProblem {
    /// The caller reset the call, or lost its connection: it sees no answer.
    CallerIsGone,
    /// The answer to the call.
    Refused(Status),
}

/// One call. Each request has it among its extensions as an `Arc<Call>`.
pub struct Call {
    connection: Arc<Connection>,
    record: Record,
    /// Who the caller has proved to be; empty: the address of the connection.
    identity: OnceLock<Arc<Caller>>,
    /// Charged to unfinished requests, and to the address: what is not received in
    /// full proves nothing.
    request: AtomicU64,
    /// The part of `request` that is given back when the call ends, and not when it is
    /// answered: of a stream that has no budget elsewhere.
    until_end: u64,
    /// Charged to decoded requests.
    decoded: AtomicU64,
    answered: AtomicBool,
    /// What is wrong with the body of its request; layers between may say it in other words.
    body_problem: OnceLock<BodyProblem>,
    /// Its place, if it is served whatever else is used up: probes and metrics, which an
    /// attack must not silence.
    exempt: Option<Reservation>,
}

impl Call {
    /// Charges a call with what its head takes.
    fn begin<B>(connection: &Arc<Connection>, request: &Request<B>) -> Result<Arc<Self>, Error> {
        let path = request.uri().path();
        if connection.is_exempt() || path == HEALTH_CHECK || json::is_probe(path) {
            return Self::begin_exempt(connection);
        }
        let mut bytes = CALL_BYTES + path.len() as u64;
        for (name, value) in request.headers() {
            bytes += HEADER_BYTES + (name.as_str().len() + value.len()) as u64;
        }
        let until_end = match path {
            HEALTH_WATCH => HEALTH_WATCH_BYTES,
            path if is_stream(path) => CALL_BYTES + STREAM_REQUEST_BYTES,
            _ => 0,
        };
        bytes += until_end;
        let (requests, caller) = (
            connection.budgets().of(Part::UnfinishedRequests),
            connection.caller(),
        );
        let replies = connection.budgets().of(Part::Replies);
        if replies.is_full(Some(caller)) {
            return Err(overloaded(connection, replies));
        }
        if !requests.try_add(Some(caller), bytes) {
            return Err(overloaded(connection, requests));
        }
        Ok(Self::new(connection, (bytes, until_end), None))
    }

    /// Such calls are small and few, so that their number alone is bounded.
    fn begin_exempt(connection: &Arc<Connection>) -> Result<Arc<Self>, Error> {
        let probes = connection.budgets().count(Count::Probes);
        let place = probes.try_reserve_for(connection.caller(), 1);
        let place = place.ok_or_else(|| overloaded(connection, probes))?;
        Ok(Self::new(connection, (0, 0), Some(place)))
    }

    fn new(
        connection: &Arc<Connection>,
        (request, until_end): (u64, u64),
        exempt: Option<Reservation>,
    ) -> Arc<Self> {
        connection.call_began();
        connection.caller().call_began();
        Arc::new(Self {
            connection: Arc::clone(connection),
            identity: OnceLock::new(),
            record: Record::default(),
            request: AtomicU64::new(request),
            until_end,
            decoded: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            body_problem: OnceLock::new(),
            exempt,
        })
    }

    /// Whose call it is: the principal of [`Call::identify`], or the address of the
    /// connection.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        self.identity
            .get()
            .unwrap_or_else(|| self.connection.caller())
    }

    /// The caller has proved who it is: what the call takes from now on is of that
    /// caller's share. To be called at most once, before the request is decoded.
    pub fn identify(&self, principal: &Arc<str>) {
        // A second identity is ignored: charges are given back to whom they were of.
        let caller = self.connection.caller_of(principal);
        if self.identity.set(Arc::clone(&caller)).is_ok() {
            caller.call_began();
        }
    }

    /// What its handler adds to its line of the audit log.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The other end of the connection.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.connection.peer()
    }

    /// What its connection knows of the caller.
    #[must_use]
    pub fn identity(&self) -> &Arc<ConnectionIdentity> {
        self.connection.identity()
    }

    /// Whether it is served whatever is used up.
    #[must_use]
    pub const fn is_exempt(&self) -> bool {
        self.exempt.is_some()
    }

    /// Cancelled when the connection is about to close: a stream should end.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        self.connection.closing()
    }

    /// Charges the decoded request, until the call is answered.
    ///
    /// # Errors
    /// `Overloaded`: the budget is used up. `MessageTooLarge`: it would not even have room if
    /// there were no other request; no valid one is so large.
    pub fn charge_decoded(&self, bytes: u64) -> Result<(), Error> {
        let decoded = self.connection.budgets().of(Part::DecodedRequests);
        let most = decoded.most_for_one();
        if bytes > most {
            return Err(Error::MessageTooLarge {
                what: "request, decoded,",
                limit: usize::try_from(most).unwrap_or(usize::MAX),
                advice: "send fewer values at once".into(),
            });
        }
        if !decoded.try_add(Some(self.caller()), bytes) {
            return Err(overloaded(&self.connection, decoded));
        }
        self.decoded.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// A place among a number of things that all callers share.
    ///
    /// # Errors
    /// `Overloaded`: there are too many, or this caller has more than its share
    /// of nearly too many.
    pub fn reserve(&self, count: Count) -> Result<Reservation, Error> {
        self.reserve_of(self.connection.budgets().count(count), 1)
    }

    /// Bytes of a budget, for longer than the call.
    ///
    /// # Errors
    /// As for [`Call::reserve`].
    pub fn reserve_bytes(&self, part: Part, bytes: u64) -> Result<Reservation, Error> {
        self.reserve_of(self.connection.budgets().of(part), bytes)
    }

    fn reserve_of(&self, budget: &Arc<Budget>, amount: u64) -> Result<Reservation, Error> {
        budget
            .try_reserve_for(self.caller(), amount)
            .ok_or_else(|| overloaded(&self.connection, budget))
    }

    /// Why the body of the request ended before its end; `None`: it did not.
    pub(crate) fn body_problem(&self) -> Option<&BodyProblem> {
        self.body_problem.get()
    }

    fn charge_body(&self, bytes: u64) -> Result<(), Error> {
        if self.exempt.is_some() {
            return Ok(());
        }
        let requests = self.connection.budgets().of(Part::UnfinishedRequests);
        if !requests.try_add(Some(self.connection.caller()), bytes) {
            return Err(overloaded(&self.connection, requests));
        }
        self.request.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// The head of the response is there: the request is not needed any more.
    fn answered(&self) {
        if self.answered.swap(true, Relaxed) {
            return;
        }
        self.connection.call_answered();
        self.connection.caller().call_answered();
        if let Some(caller) = self.identity.get() {
            caller.call_answered();
        }
        let budgets = self.connection.budgets();
        let request = self.request.swap(self.until_end, Relaxed) - self.until_end;
        let decoded = self.decoded.swap(0, Relaxed);
        for (part, bytes, caller) in [
            (Part::UnfinishedRequests, request, self.connection.caller()),
            (Part::DecodedRequests, decoded, self.caller()),
        ] {
            if bytes > 0 {
                budgets.of(part).sub(Some(caller), bytes);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.answered();
        // A stream, or a body that was read on after the answer.
        let late = self.request.swap(0, Relaxed);
        let requests = self.connection.budgets().of(Part::UnfinishedRequests);
        requests.sub(Some(self.connection.caller()), late);
        self.connection.call_ended();
    }
}

fn overloaded(connection: &Connection, budget: &Budget) -> Error {
    let kind = Kind {
        kind: budget.name(),
    };
    connection.metrics().overloaded.get_or_create(&kind).inc();
    Error::Overloaded {
        what: budget.name(),
        limit: usize::try_from(budget.limit()).unwrap_or(usize::MAX),
        retry_after: RETRY_AFTER,
    }
}

/// The calls of the health protocol.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Whether requests of this path are streams of messages.
fn is_stream(path: &str) -> bool {
    path.starts_with("/grpc.reflection.")
}

/// The service of one connection.
pub struct MeteredService<S> {
    inner: S,
    connection: Arc<Connection>,
}

impl<S> MeteredService<S> {
    /// Charges the calls of this connection.
    pub const fn new(inner: S, connection: Arc<Connection>) -> Self {
        Self { inner, connection }
    }
}

/// What the service does with a request, in turns or at once.
type Work<F> = Either<F, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

impl<S> hyper::service::Service<Request<Incoming>> for MeteredService<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = CallFuture<Work<S::Future>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let call = match Call::begin(&self.connection, &request) {
            Ok(call) => call,
            Err(error) => {
                return CallFuture::Refused {
                    error: Some(error),
                    in_json: protocol::is_json(&request),
                    refused: RefusedCall::new(&self.connection),
                };
            }
        };
        let is_stream = is_stream(request.uri().path());
        let version = request.version();
        let mut request =
            request.map(|body| Body::new(RequestBody::new(body, &call, version, is_stream)));
        request.extensions_mut().insert(Arc::clone(&call));
        // All of our layers, and the router, are ready always.
        let mut inner = self.inner.clone();
        // Calls wait for their turns once they are here in full.
        let turn = if protocol::is_call(&request) {
            None
        } else {
            call.ask_turn(0)
        };
        let work = match turn {
            None => Either::Left(inner.call(request)),
            Some(turn) => Either::Right(Box::pin(async move {
                // Fails only if the port is not served any more.
                let _ = turn.await;
                inner.call(request).await
            }) as BoxFuture<'static, _>),
        };
        CallFuture::Working { work, call }
    }
}

/// A call that was refused, until it is told so.
pub struct RefusedCall(Arc<Connection>);

impl RefusedCall {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.caller().call_refused();
        Self(Arc::clone(connection))
    }
}

impl Drop for RefusedCall {
    fn drop(&mut self) {
        self.0.caller().refusal_ended();
    }
}

pin_project_lite::pin_project! {
    /// A call until the head of its response.
    #[project = CallProjection]
    pub enum CallFuture<F> {
        /// The service works on it.
        Working { #[pin] work: F, call: Arc<Call> },
        /// The service never saw it.
        Refused { error: Option<Error>, in_json: bool, refused: RefusedCall },
        /// An error that waits until there is room for it.
        Waiting { error: Box<WaitingError> },
    }
}

impl<F> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, connection, call) = match self.as_mut().project() {
            CallProjection::Working { work, call } => {
                let Ok(mut response) = ready!(work.poll(cx));
                let response = match response.extensions_mut().remove::<WholeReply>() {
                    None => response.map(|body| ReplyBody::new(body, Some(Arc::clone(call)))),
                    Some(reply) => charge_whole(response, reply, call),
                };
                (response, &call.connection, Some(&*call))
            }
            CallProjection::Refused {
                error,
                in_json,
                refused,
            } => {
                let connection = &refused.0;
                let status = error
                    .take()
                    .map_or_else(|| Status::internal(""), Status::from);
                let response = if *in_json {
                    refusal(json::respond_error(&status), connection)
                } else {
                    status
                        .into_http::<Body>()
                        .map(|body| ReplyBody::new(body, None))
                };
                (response, connection, None)
            }
            CallProjection::Waiting { error } => return error.poll(cx).map(Ok),
        };
        match errors::charge(response, connection) {
            Ok(response) => {
                if let Some(call) = call {
                    call.answered();
                }
                Poll::Ready(Ok(response))
            }
            Err(response) => {
                let Some(call) = call else {
                    return errors::refuse_shortly(connection).map(Ok);
                };
                let error = WaitingError::new(response, call);
                self.set(Self::Waiting {
                    error: Box::new(error),
                });
                self.poll(cx)
            }
        }
    }
}

/// A response whose whole body is charged before its head is sent.
fn charge_whole(
    response: Response<Body>,
    WholeReply(bytes): WholeReply,
    call: &Arc<Call>,
) -> Response<ReplyBody> {
    match ReplyBody::whole(bytes, call) {
        Ok(body) => response.map(|_| body),
        Err(error) => refusal(json::respond_error(&Status::from(error)), &call.connection),
    }
}

/// A refusal in JSON. Its body waits for the peer's window, which that of gRPC, in headers,
/// does not.
fn refusal(mut response: Response<Body>, connection: &Arc<Connection>) -> Response<ReplyBody> {
    let reply = response.extensions_mut().remove::<WholeReply>();
    let bytes = reply.map(|WholeReply(bytes)| bytes).unwrap_or_default();
    response.map(|_| ReplyBody::refusal(bytes, connection))
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, Bytes};
    use http_body::{Body as _, Frame};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::{reply::UNREAD_BYTES, *};

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_an_unfinished_request() {
        let connection = Connection::for_tests();
        let call = Call::begin(&connection, &Request::new(())).expect("room");
        let head = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(
            b"\0\0\x40\0\0",
        )))]);
        let endless = futures::StreamExt::chain(head, futures::stream::pending());
        let mut body = RequestBody::new(
            StreamBody::new(Box::pin(endless)),
            &call,
            http::Version::HTTP_2,
            false,
        );
        body.frame().await.expect("a frame").expect("the head");
        connection.shutdown().cancel();
        let problem = body.frame().await.expect("a frame").expect_err("draining");
        let status = problem.downcast::<Status>().expect("a status");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        drop((body, call));
        let requests = connection.budgets().of(Part::UnfinishedRequests);
        assert_eq!(requests.used(), 0);
    }

    #[tokio::test]
    async fn a_reply_beyond_the_budget_is_a_refusal() {
        let connection = Connection::for_tests();
        let replies = connection.budgets().of(Part::Replies);
        let call = Call::begin(&connection, &Request::new(())).expect("room");
        // So that the share is used up to the last byte.
        let unread = usize::try_from(UNREAD_BYTES).expect("small");
        let message = Bytes::from(vec![0; (1 << 20) - unread]);
        let reply = || {
            let body = Body::new(http_body_util::Full::new(message.clone()));
            ReplyBody::new(body, Some(Arc::clone(&call)))
        };
        let mut held = Vec::new();
        let status = loop {
            let frame = reply().frame().await.expect("a frame").expect("no error");
            match frame.into_data() {
                Ok(data) => held.push(data),
                Err(frame) => break frame.into_trailers().ok().expect("trailers"),
            }
        };
        assert_eq!(status["grpc-status"], "8");
        assert_eq!(held.len() as u64, replies.used() >> 20);
        assert!(Call::begin(&connection, &Request::new(())).is_err());
        drop(held);
        assert_eq!(replies.used(), 0);
    }

    #[tokio::test]
    async fn a_reply_in_json_beyond_the_budget_is_a_refusal_with_its_status() {
        let connection = Connection::for_tests();
        let replies = connection.budgets().of(Part::Replies);
        let call = Call::begin(&connection, &Request::new(())).expect("room");
        let json = Bytes::from(vec![b' '; 1 << 20]);
        let mut held = Vec::new();
        let refused = loop {
            let response = Response::new(Body::empty());
            let response = charge_whole(response, WholeReply(json.clone()), &call);
            if response.status() != http::StatusCode::OK {
                break response;
            }
            assert_eq!(response.body().size_hint().exact(), Some(1 << 20));
            held.push(response);
        };
        assert_eq!(held.len() as u64, replies.used() >> 20);
        assert_eq!(refused.status(), http::StatusCode::TOO_MANY_REQUESTS);
        let body = refused.into_body().frame().await.expect("a frame");
        let body = body.expect("no error").into_data().ok().expect("data");
        let text = String::from_utf8_lossy(body.chunk()).into_owned();
        assert!(text.contains("OVERLOADED"), "{text}");
        drop(held);
        assert_eq!(replies.used(), 0);
    }
}
