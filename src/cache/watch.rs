//! A watch as its caller gets it: with the todos that it asked for, and for as long as
//! the caller may see the list.

use std::{collections::BTreeSet, slice, sync::Arc};

use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    Cache, Consistency, ReadOptions, Watch, WatchEvent, WatchMessage, WatchRequest,
    rights::Permission,
};
use crate::{
    auth,
    budget::Caller,
    error::{Error, Unavailable},
    model::{ListName, OriginTime, TodoName, Token},
    watch::WatchStream,
};

/// All lists, as a request names them.
const ALL_LISTS: &str = "lists/-";

/// Who needs the right to see which lists.
type WatchRight = (auth::Caller, Arc<[ListName]>);

/// A watch whose messages need work before they are sent.
struct Checked {
    cache: Arc<Cache>,
    messages: WatchStream,
    include_todo: bool,
    /// `None`: there is nothing to check.
    right: Option<WatchRight>,
    /// Whose share the reads take.
    caller: Option<Arc<Caller>>,
    /// What the token has seen that the watch began with, maybe on another replica.
    start: OriginTime,
    /// What the start and all messages so far have shown. No later token has seen less.
    shown: OriginTime,
    /// Of the last message that was sent.
    last: Option<Token>,
    ended: bool,
}

impl Cache {
    /// Opens a watch. Its first message is ready at once. It ends with
    /// `PermissionDenied` after the last change before the caller's right on a list
    /// was withdrawn.
    ///
    /// # Errors
    /// `OriginUnavailable` while starting, `PermissionDenied`, `TokenInvalid` if the
    /// token is ahead of the origin, `Overloaded` if there are too many watches.
    pub async fn watch(
        self: &Arc<Self>,
        mut request: WatchRequest,
        deadline: Option<Instant>,
        identity: Option<&auth::Caller>,
    ) -> Result<Watch, Error> {
        if !self.tracker.is_started() {
            return Err(Unavailable::Starting.into());
        }
        let right = Self::right_to_check(&request, identity)?;
        if let Some((caller, lists)) = &right {
            request.right_on = Arc::clone(lists);
            // Read before the right, so that no change of it is missed.
            let start = self.tracker.watermarks.frontier();
            // Who resumes is not refused by a document from before what the token has seen.
            let consistency = match request.after {
                Some(after) => {
                    let caller = request.caller.as_ref();
                    self.check_not_future("after", after, deadline, caller)
                        .await?;
                    Consistency::AtLeastAsFresh(after)
                }
                None => Consistency::MinimizeLatency,
            };
            let options = ReadOptions {
                consistency,
                deadline,
                caller: request.caller.clone(),
                identity: Some(caller.clone()),
            };
            let right = self.require_rights(lists, Permission::WatchTodos, &options);
            Box::pin(right).await?;
            request.after.get_or_insert(start);
        }
        if let Some(after) = request.after {
            let newest = after.max(request.seen);
            let caller = request.caller.as_ref();
            self.check_not_future("after", newest, deadline, caller)
                .await?;
            if let Some((identity, lists)) = &right {
                Box::pin(self.check_watch(lists, identity, caller, after, None)).await?;
            }
        }
        let (include_todo, caller) = (request.include_todo, request.caller.clone());
        let start = request.seen;
        let messages = self.watches.open(request)?;
        if !include_todo && right.is_none() {
            return Ok(messages.map(Ok).boxed());
        }
        let checked = Checked {
            cache: Arc::clone(self),
            messages,
            include_todo,
            right,
            caller,
            start,
            shown: start,
            last: None,
            ended: false,
        };
        let messages = stream::unfold(checked, |mut checked| async move {
            checked.next().await.map(|message| (message, checked))
        });
        Ok(messages.boxed())
    }

    /// The right that a watch needs: on its list, or on the lists of its names. All of
    /// all lists is for administrators.
    fn right_to_check(
        request: &WatchRequest,
        identity: Option<&auth::Caller>,
    ) -> Result<Option<WatchRight>, Error> {
        let Some(caller) = identity.filter(|caller| !caller.is_admin()) else {
            return Ok(None);
        };
        let lists: BTreeSet<ListName> = match &request.list {
            Some(list) => [list.clone()].into(),
            None => request.names.iter().map(TodoName::list).collect(),
        };
        if lists.is_empty() {
            Self::require_admin(identity, Permission::WatchTodos, ALL_LISTS)?;
        }
        Ok(Some((caller.clone(), lists.into_iter().collect())))
    }
}

impl Checked {
    async fn next(&mut self) -> Option<Result<WatchMessage, Error>> {
        if self.ended {
            return None;
        }
        loop {
            let mut message = self.messages.next().await?;
            if let Some(error) = self.check(&message).await {
                self.ended = true;
                return Some(Err(error));
            }
            match &mut message.event {
                WatchEvent::ListChanged(_) => continue,
                WatchEvent::Change { change, todo } if self.include_todo => {
                    let identity = self.right.as_ref().map(|(caller, _)| caller);
                    // Not older than its change, nor than what the watcher saw elsewhere.
                    let at_least = change.time.max(self.start);
                    let (name, caller) = (&change.name, self.caller.as_ref());
                    let read = self.cache.read_for_watch(name, at_least, caller, identity);
                    if let Some((read, seen)) = read.await {
                        *todo = read;
                        // It may be newer than its change: a read with this token
                        // on another replica must not go back.
                        self.shown = self.shown.max(seen);
                    }
                }
                _ => {}
            }
            self.shown = self.shown.max(message.token.seen);
            message.token.seen = self.shown;
            self.last = Some(message.token);
            return Some(Ok(message));
        }
    }

    /// Checks the right again after a list's document changed, and after a reset,
    /// which may stand for such a change of any of them. What was committed before was sent. The error
    /// has the last token that was sent, so that a client that may come back later gets
    /// a reset that it did not get.
    async fn check(&mut self, message: &WatchMessage) -> Option<Error> {
        let (caller, lists) = self.right.as_ref()?;
        let lists = match &message.event {
            WatchEvent::ListChanged(list) => slice::from_ref(list),
            WatchEvent::Reset { .. } => lists,
            WatchEvent::Change { .. } | WatchEvent::Progress { .. } => return None,
        };
        let time = message.token.seen;
        let charged = self.caller.as_ref();
        let check = self
            .cache
            .check_watch(lists, caller, charged, time, self.last);
        match check.await.err()? {
            // The caller set no such deadline: it resumes at the last token.
            Error::DeadlineExceeded { .. } => Some(Unavailable::TooStale.into()),
            error => Some(error),
        }
    }
}
