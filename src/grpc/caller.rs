//! Who calls: the parts of a request that every handler needs, and what it does with them.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::{Request, metadata::MetadataMap};

use super::{convert, deadline, request_memory::RequestMemory, transport::Call};
use crate::{
    auth,
    budget::{self, Count, Part, Reservation, WATCH_BYTES},
    cache::{Cache, Permission, ReadOptions, WatchRequest, WriteOptions, Written},
    error::Error,
    model::{ListName, OriginId, RequestId, Write},
    pb,
};

/// Decoded requests of fewer bytes are part of what every call is charged.
const SMALL_REQUEST_BYTES: usize = 4 << 10;

/// Who calls, and until when the caller waits.
pub(super) struct Caller {
    pub(super) deadline: Option<Instant>,
    pub(super) call: Option<Arc<Call>>,
    /// `None`: authentication is off.
    pub(super) identity: Option<auth::Caller>,
}

impl Caller {
    /// The caller whose share of the budgets the call uses.
    pub(super) fn share(&self) -> Option<Arc<budget::Caller>> {
        self.call.as_ref().map(|call| Arc::clone(call.caller()))
    }

    pub(super) fn read_options(
        &self,
        consistency: Option<pb::Consistency>,
        origin: OriginId,
    ) -> Result<ReadOptions, Error> {
        let options = convert::read_options(consistency, self.deadline, origin)?;
        Ok(ReadOptions {
            caller: self.share(),
            identity: self.identity.clone(),
            ..options
        })
    }

    /// Reserves what a watch takes of the budgets while it is open, and gives it the
    /// caller's share and the end of its connection.
    pub(super) fn charge_watch(&self, watch: &mut WatchRequest) -> Result<Vec<Reservation>, Error> {
        let Some(call) = &self.call else {
            return Ok(Vec::new());
        };
        let held = reserve_watch(call, watch)?;
        watch.closing = call.closing().clone();
        watch.caller = self.share();
        Ok(held)
    }

    /// Writes, and records it for the audit log.
    pub(super) async fn write(
        &self,
        cache: &Arc<Cache>,
        write: Write,
        request_id: Option<RequestId>,
    ) -> Result<Written, Error> {
        self.audit_resource(write.name());
        let members = write.members();
        let done = cache.write(write, self.write_options(request_id)).await?;
        if let Some(call) = &self.call {
            call.record().set_token(done.token.encode());
            // Only of a write that took place: refusals would fill the log with them.
            if let Some(members) = members {
                call.record().set_members(members);
            }
        }
        Ok(done)
    }

    pub(super) fn audit_resource(&self, name: impl ToString) {
        if let Some(call) = &self.call {
            call.record().set_resource(&name.to_string());
        }
    }

    fn write_options(&self, request_id: Option<RequestId>) -> WriteOptions {
        let identity = self.identity.clone();
        WriteOptions {
            request_id: match &identity {
                Some(identity) => request_id.map(|id| id.of_caller(identity.principal())),
                None => request_id,
            },
            deadline: self.deadline,
            caller: self.share(),
            identity,
        }
    }

    /// What was parsed of a request. A caller without the right on its list learns that,
    /// and not what else is wrong with the request (AIP-211).
    pub(super) async fn permit<T>(
        &self,
        cache: &Cache,
        parsed: Result<T, Error>,
        list: impl FnOnce() -> Option<ListName>,
        permission: Permission,
    ) -> Result<T, Error> {
        if let (Err(_), Some(_)) = (&parsed, &self.identity)
            && let Some(list) = list()
        {
            let options = self.read_options(None, cache.origin_id())?;
            Box::pin(cache.require_right(&list, permission, &options)).await?;
        }
        parsed
    }
}

/// The caller and the message, which is charged to its call.
pub(super) fn split<T: RequestMemory>(request: Request<T>) -> Result<(Caller, T), Error> {
    let (metadata, mut extensions, message): (MetadataMap, _, T) = request.into_parts();
    let call = extensions.remove::<Arc<Call>>();
    let bytes = message.memory();
    if bytes > SMALL_REQUEST_BYTES
        && let Some(call) = &call
    {
        call.charge_decoded(bytes as u64)?;
    }
    let deadline = deadline::of(&metadata);
    let identity = extensions.remove::<auth::Caller>();
    Ok((
        Caller {
            deadline,
            call,
            identity,
        },
        message,
    ))
}

/// What a name in the filter of a watch takes beside its text.
const WATCHED_NAME_BYTES: usize = 64;

/// Reserves what an open watch takes of the budgets.
fn reserve_watch(call: &Call, watch: &WatchRequest) -> Result<Vec<Reservation>, Error> {
    let mut held = vec![
        call.reserve(Count::OpenWatches)?,
        call.reserve_bytes(Part::Watches, WATCH_BYTES)?,
    ];
    if watch.list.is_none() {
        held.push(call.reserve(Count::AllListWatches)?);
    }
    if !watch.names.is_empty() {
        let names = watch.names.iter();
        let bytes: usize = names
            .map(|name| name.as_str().len() + WATCHED_NAME_BYTES)
            .sum();
        // Of several lists: the names of the lists, for the caller's rights.
        let bytes = bytes * if watch.list.is_none() { 2 } else { 1 };
        held.push(call.reserve_bytes(Part::WatchNames, bytes as u64)?);
    }
    Ok(held)
}
