//! A caller's identity, and how it matches the members of a list.

use std::{sync::Arc, time::SystemTime};

use crate::model::{EVERYBODY, GROUP_PREFIX, member_problem};

/// Most groups of one caller. Each check of a right may compare all of them.
pub const MAX_GROUPS: usize = 64;

/// How a caller was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the certificate of its connection.
    Mtls,
    /// By an API key.
    Key,
    /// By a JSON Web Token.
    Jwt,
}

impl Method {
    /// Its name in settings and in the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Key => "keys",
            Self::Jwt => "jwt",
        }
    }
}

/// An authenticated caller. A clone costs one atomic addition.
///
/// Invariant: the principal passes [`check_principal`], so it can neither be
/// taken for a group nor for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Arc<Identity>);

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    principal: Arc<str>,
    groups: Arc<[Arc<str>]>,
    /// The members that match this caller: principal, groups, everybody; sorted.
    members: Arc<[Arc<str>]>,
    admin: bool,
    method: Method,
    expires: Option<SystemTime>,
}

impl Caller {
    /// A caller without administrator's rights.
    ///
    /// # Errors
    /// What is wrong with the principal or a group.
    pub fn new(
        principal: &str,
        groups: Vec<Arc<str>>,
        method: Method,
        expires: Option<SystemTime>,
    ) -> Result<Self, &'static str> {
        check_principal(principal)?;
        if groups.len() > MAX_GROUPS {
            return Err("has more than 64 groups");
        }
        for group in &groups {
            check_group(group)?;
        }
        let of_group = |group| Arc::from(format!("{GROUP_PREFIX}{group}"));
        let mut members: Vec<Arc<str>> = groups.iter().map(of_group).collect();
        members.extend([Arc::from(principal), Arc::from(EVERYBODY)]);
        members.sort_unstable();
        members.dedup();
        Ok(Self(Arc::new(Identity {
            members: members.into(),
            principal: principal.into(),
            groups: groups.into(),
            admin: false,
            method,
            expires,
        })))
    }

    /// The same caller; an administrator if one of `admins` (members, as
    /// [`Caller::acts_as`] takes them) matches.
    #[must_use]
    pub fn with_admins(self, admins: &[String]) -> Self {
        if !admins.iter().any(|admin| self.acts_as(admin)) {
            return self;
        }
        let identity = &self.0;
        Self(Arc::new(Identity {
            principal: Arc::clone(&identity.principal),
            groups: Arc::clone(&identity.groups),
            members: Arc::clone(&identity.members),
            admin: true,
            method: identity.method,
            expires: identity.expires,
        }))
    }

    /// Who it is: at most 256 bytes, opaque.
    #[must_use]
    pub fn principal(&self) -> &Arc<str> {
        &self.0.principal
    }

    /// Its groups, at most [`MAX_GROUPS`], without the prefix `group:`.
    #[must_use]
    pub fn groups(&self) -> &[Arc<str>] {
        &self.0.groups
    }

    /// The members of lists that match this caller, sorted: its principal,
    /// `group:NAME` for each group, and `*`.
    #[must_use]
    pub fn members(&self) -> &Arc<[Arc<str>]> {
        &self.0.members
    }

    /// Whether it may do everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.0.admin
    }

    /// How it was authenticated.
    #[must_use]
    pub fn method(&self) -> Method {
        self.0.method
    }

    /// When its credential ends; `None`: at no known time.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.expires
    }

    /// Whether this member of a list matches the caller. A member is a
    /// principal, `group:NAME`, or `*` for every authenticated caller.
    #[must_use]
    pub fn acts_as(&self, member: &str) -> bool {
        if let Some(group) = member.strip_prefix(GROUP_PREFIX) {
            return self.0.groups.iter().any(|own| **own == *group);
        }
        member == EVERYBODY || *member == *self.0.principal
    }
}

/// Checks that a text can be a principal.
///
/// # Errors
/// What is wrong with it: the end of a sentence that begins with its value.
pub fn check_principal(text: &str) -> Result<(), &'static str> {
    if text == EVERYBODY {
        return Err("is every authenticated caller, not a principal");
    }
    if text.starts_with(GROUP_PREFIX) {
        return Err("is a group, not a principal");
    }
    check_member(text)
}

/// Checks that a text can be a member of a list.
///
/// # Errors
/// As for [`check_principal`].
pub fn check_member(text: &str) -> Result<(), &'static str> {
    member_problem(text).map_or(Ok(()), Err)
}

fn check_group(name: &str) -> Result<(), &'static str> {
    check_member(&format!("{GROUP_PREFIX}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MAX_MEMBER_BYTES;

    fn caller(principal: &str, groups: &[&str]) -> Result<Caller, &'static str> {
        let groups = groups.iter().map(|group| Arc::from(*group)).collect();
        Caller::new(principal, groups, Method::Key, None)
    }

    #[test]
    fn a_member_is_a_principal_a_group_or_everybody() {
        let ada = caller("user:ada", &["ops", "user:bob"]).expect("valid");
        for member in ["user:ada", "group:ops", "*"] {
            assert!(ada.acts_as(member), "{member}");
            assert!(check_member(member).is_ok(), "{member}");
        }
        for member in [
            "",
            "user:ad",
            "user:ada ",
            "ops",
            "user:bob",
            "group:",
            "group:o",
            "**",
            "group:*",
        ] {
            assert!(!ada.acts_as(member), "{member}");
        }
    }

    #[test]
    fn no_principal_passes_for_a_group_or_for_everybody() {
        for principal in ["*", "group:ops", "group:", "", " ada", "a\nb", "a\u{0}"] {
            assert!(caller(principal, &[]).is_err(), "{principal:?}");
        }
        assert!(caller(&"x".repeat(MAX_MEMBER_BYTES), &[]).is_ok());
        assert!(caller(&"x".repeat(MAX_MEMBER_BYTES + 1), &[]).is_err());
        assert!(caller("a", &["g"; MAX_GROUPS]).is_ok());
        assert!(caller("a", &["g"; MAX_GROUPS + 1]).is_err());
        assert!(caller("a", &[""]).is_err());
    }

    #[test]
    fn administrators_are_named_as_members() {
        let admins = ["user:root".to_owned(), "group:ops".to_owned()];
        let is_admin = |principal, groups: &[&str]| {
            let caller = caller(principal, groups).expect("valid");
            caller.with_admins(&admins).is_admin()
        };
        assert!(is_admin("user:root", &[]) && is_admin("user:ada", &["ops"]));
        assert!(!is_admin("user:ada", &["dev"]) && !is_admin("ops", &[]));
    }
}
