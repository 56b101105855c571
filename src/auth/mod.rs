//! Callers: who sent a request.
//!
//! Rights are not decided here: a [`Caller`] only says which entries of a list's
//! members it matches ([`Caller::acts_as`]).

mod caller;

pub use caller::{
    Caller, EVERYBODY, GROUP_PREFIX, MAX_GROUPS, MAX_PRINCIPAL_BYTES, Method, check_member,
    check_principal,
};
