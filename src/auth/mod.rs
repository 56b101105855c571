//! Callers: who sent a request, and how that was established.
//!
//! [`Authenticator`] checks the credential of a request, [`Caller`] is the result.
//! Rights are not decided here: a [`Caller`] only says which entries of a list's
//! members it matches ([`Caller::acts_as`]).
//!
//! No type here shows a credential in `Debug` or in an error.

mod authenticator;
mod caller;
mod certificate;
mod follow;
mod jwt;
mod keys;

pub use authenticator::{
    AuthFileError, AuthSettings, Authenticator, ConnectionIdentity, JwtSettings,
};
pub use caller::{Caller, MAX_GROUPS, Method, check_member, check_principal};
pub use certificate::{Certificate, is_name_pattern};
pub use follow::FileProblem;
pub use jwt::JwtRules;
pub use keys::{KEY_PREFIX, line as key_line, new_key};
