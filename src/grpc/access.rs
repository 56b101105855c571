//! Which calls go on: those of known callers, and health.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use tonic::body::Body;

use super::transport::Call;
use crate::{
    audit::Audit,
    auth::{Authenticator, Caller, ConnectionIdentity},
    config::Reflection,
    error::{CallerProblem, Error},
};

/// Health is open to everyone: probes have no credential.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Begin of the paths of reflection, in both versions.
const REFLECTION: &str = "/grpc.reflection.";

/// Who may call.
#[derive(Clone, Default)]
pub struct Access {
    /// `None`: callers are not authenticated, and may do everything.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Who may use reflection.
    pub reflection: Reflection,
    /// Where writes and refusals are written; `None`: nowhere.
    pub audit: Option<Arc<Audit>>,
}

/// A call whose caller is known.
pub struct Admitted {
    authenticator: Arc<Authenticator>,
    header: Option<HeaderValue>,
    connection: Arc<ConnectionIdentity>,
    caller: Caller,
}

impl Access {
    /// Authenticates the caller of a request and puts it among the request's
    /// extensions. The credential is removed from the headers: nothing that
    /// handles, logs or traces the call has it. Where that takes some work, it waits for a
    /// turn of the caller first: floods of credentials, right or wrong, do not delay other callers.
    ///
    /// `None`: the call is open to everyone.
    ///
    /// # Errors
    /// `CallerUnknown`, or `PermissionDenied` for reflection.
    pub async fn admit(&self, request: &mut Request<Body>) -> Result<Option<Admitted>, Error> {
        let Some(authenticator) = &self.authenticator else {
            return Ok(None);
        };
        if request.uri().path().starts_with(HEALTH) {
            request.headers_mut().remove(AUTHORIZATION);
            return Ok(None);
        }
        let call = request.extensions().get::<Arc<Call>>().cloned();
        let connection = call
            .as_ref()
            .map_or_else(Arc::default, |call| Arc::clone(call.identity()));
        let turn = async {
            if let Some(call) = &call {
                call.turn().await;
            }
        };
        let caller = authenticator
            .authenticate(request.headers(), &connection, turn)
            .await;
        let header = request.headers_mut().remove(AUTHORIZATION);
        let caller = caller.map_err(Error::CallerUnknown)?;
        request.extensions_mut().insert(caller.clone());
        self.check_reflection(request.uri().path(), &caller)?;
        if let Some(call) = call {
            call.identify(caller.principal());
        }
        Ok(Some(Admitted {
            authenticator: Arc::clone(authenticator),
            header,
            connection,
            caller,
        }))
    }

    fn check_reflection(&self, path: &str, caller: &Caller) -> Result<(), Error> {
        let is_closed = self.reflection == Reflection::Admin && path.starts_with(REFLECTION);
        if !is_closed || caller.is_admin() {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            permission: "reflection.use",
            resource: "grpc.reflection".into(),
            principal: Arc::clone(caller.principal()),
            token: None,
        })
    }
}

impl Admitted {
    /// Completes when the caller of a stream is not known any more.
    pub fn until_unknown(self) -> BoxFuture<'static, CallerProblem> {
        let Self {
            authenticator,
            header,
            connection,
            caller,
        } = self;
        Box::pin(authenticator.until_unknown(header, connection, caller))
    }
}
