//! I8, checked against the exact history: who may see what.
//!
//! An answer has shown states up to `seen`, and is allowed by a document of the list
//! that is fresh to `d >= seen`. So there must be a time `d` from `seen` on, and not
//! before what the consistency level asks for, at which the caller had the role. A
//! revocation at or before a shown state, without a later grant, leaves none. It is the
//! other way round with a refusal: at some time that the consistency level allows, the
//! caller was without the role; one who had it all along is not refused.

use tidemark::{
    auth::Caller,
    cache::Consistency,
    model::{ListName, OriginTime, ReadInfo},
    pb::Role,
};
use tokio::time::Instant;

use crate::{check::Asked, world::World};

impl Asked<'_> {
    /// The time that the right must be fresh to, by the consistency level. `stale`:
    /// the answer is marked so, or may have been decided so.
    fn right_fresh_to(&self, world: &World, stale: bool) -> OriginTime {
        let from = if stale {
            let limit = world.config.settings.stale_if_error;
            limit.and_then(|limit| Instant::now().checked_sub(limit))
        } else {
            self.begun.checked_sub(self.limit(world))
        };
        let acknowledged = from.map(|at| world.history().acknowledged_before(at));
        self.presented().max(acknowledged.unwrap_or_default())
    }

    /// An answer was given.
    pub fn check_right(&self, world: &World, read: &ReadInfo) {
        let Some((caller, lists)) = &self.right else {
            return;
        };
        world.count("answers by a right");
        let needed = self.right_fresh_to(world, read.stale).max(read.token.seen);
        for list in lists {
            let held = {
                let history = world.history();
                history.had_role(list, caller, Role::Reader, needed, history.last)
            };
            if !held {
                let who = caller.principal();
                let what = format!("{who} had no right on {list} at {needed} or later: {read:?}");
                self.violated(world, "I8", &what);
            }
        }
    }

    /// It was refused with `PermissionDenied`.
    pub fn check_refusal(&self, world: &World) {
        world.count("refused reads");
        let Some((caller, lists)) = &self.right else {
            return self.violated(world, "right", "refused, and needs no right");
        };
        let may_be_stale = self.consistency != Consistency::FullyConsistent
            && world.config.settings.stale_if_error.is_some()
            && self.in_trouble(world);
        let needed = self.right_fresh_to(world, may_be_stale);
        let history = world.history();
        let lacked =
            |list: &ListName| history.lacked_role(list, caller, Role::Reader, needed, history.last);
        let justified = lists.iter().any(lacked);
        drop(history);
        if !justified {
            let who = caller.principal();
            let what = format!("{who} was refused, and had a right on {lists:?} from {needed} on");
            self.violated(world, "right", &what);
        }
    }
}

/// A write of a caller that needs a right.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub caller: Caller,
    pub list: ListName,
    pub role: Role,
    /// The newest write that anybody had acknowledged when it began: the right is
    /// that of this time or later.
    pub since: OriginTime,
}

impl Attempt {
    /// It was not refused for want of a right, or took effect, up to `to`.
    pub fn check_allowed(&self, world: &World, to: OriginTime, what: &str) {
        let Self {
            caller,
            list,
            role,
            since,
        } = self;
        if !world.history().had_role(list, caller, *role, *since, to) {
            let who = caller.principal();
            world.violated(
                "I8",
                format!("{what} by {who}, who was not {role:?} of {list} from {since} to {to}"),
            );
        }
    }

    /// It was refused with `PermissionDenied`.
    pub fn check_refused(&self, world: &World) {
        world.count("refused writes");
        let history = world.history();
        let lacked = history.lacked_role(
            &self.list,
            &self.caller,
            self.role,
            self.since,
            history.last,
        );
        drop(history);
        if !lacked {
            world.violated("right", format!("a write was refused: {self:?}"));
        }
    }
}
