//! Who uses how much of each budget. A caller is the address of its
//! connections, until a call proves another identity: see [`CallerKey`].
//!
//! The rule is work-conserving up to three quarters of a budget: so much one
//! caller may use alone. The last quarter is for callers that have less than
//! their share, and its second half is divided equally among all. A fixed quota for each caller was the alternative; it leaves
//! most of a budget unused with few callers.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::SLOTS;

/// Who is charged: callers with equal keys share one caller's part of each budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerKey(Identity);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Address(IpAddr),
    Principal(Arc<str>),
}

impl CallerKey {
    /// The peer at this address. An IPv4 client of an IPv6 listener is the same
    /// caller as one of an IPv4 listener. One IPv6 host has a whole /64 for itself.
    #[must_use]
    pub const fn address(address: IpAddr) -> Self {
        Self(Identity::Address(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        }))
    }

    /// All callers authenticated as this principal, from any address.
    #[must_use]
    pub fn principal(name: &str) -> Self {
        Self(Identity::Principal(name.into()))
    }
}

impl fmt::Display for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Identity::Address(address) => address.fmt(f),
            Identity::Principal(name) => name.fmt(f),
        }
    }
}

/// What one caller uses of each budget. Lives as long as a connection of the
/// caller, a call of it, or a reservation for it.
#[derive(Debug)]
pub struct Caller {
    key: CallerKey,
    used: [AtomicU64; SLOTS],
    calls: AtomicUsize,
    refused: AtomicUsize,
    registry: Weak<Callers>,
}

impl Caller {
    /// Who it is.
    #[must_use]
    pub const fn key(&self) -> &CallerKey {
        &self.key
    }

    /// Calls of it that are not answered yet.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    pub(crate) fn call_began(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(crate) fn call_answered(&self) {
        self.calls.fetch_sub(1, Relaxed);
    }

    /// Calls of it that were refused, and are not told so yet. Nothing is charged for them.
    #[must_use]
    pub fn refused_calls(&self) -> usize {
        self.refused.load(Relaxed)
    }

    pub(crate) fn call_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn refusal_ended(&self) {
        self.refused.fetch_sub(1, Relaxed);
    }

    pub(super) fn used(&self, slot: usize) -> u64 {
        self.used[slot].load(Relaxed)
    }

    pub(super) fn add(&self, slot: usize, amount: u64) {
        self.used[slot].fetch_add(amount, Relaxed);
    }

    pub(super) fn sub(&self, slot: usize, amount: u64) {
        self.used[slot].fetch_sub(amount, Relaxed);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(&self.key);
        }
    }
}

/// The callers that have connections or calls now.
#[derive(Debug, Default)]
pub struct Callers {
    known: Mutex<HashMap<CallerKey, Weak<Caller>>>,
    /// Size of `known`, to be read without the lock.
    count: AtomicUsize,
}

impl Callers {
    /// The caller with this key. Takes a lock: to be asked once a connection, or
    /// once a call that proves an identity.
    #[must_use]
    pub fn of(self: &Arc<Self>, key: CallerKey) -> Arc<Caller> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = known.get(&key).and_then(Weak::upgrade) {
            return caller;
        }
        let caller = Arc::new(Caller {
            key: key.clone(),
            used: [const { AtomicU64::new(0) }; SLOTS],
            calls: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            registry: Arc::downgrade(self),
        });
        known.insert(key, Arc::downgrade(&caller));
        self.count.store(known.len(), Relaxed);
        caller
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// What one caller may have of a budget of this limit of which three quarters are in
    /// use: a quarter, divided among more than a few callers, and at least `unit`.
    #[must_use]
    pub fn share(&self, limit: u64, unit: u64) -> u64 {
        (limit / (self.count() as u64 + 3)).max(unit)
    }

    /// What one caller may have of the last eighth of this limit. All callers together have
    /// no more than that, so the eighth is not used up by others; unless it has fewer of
    /// `unit` than there are callers, and then those who come first have one each.
    #[must_use]
    pub fn last_share(&self, limit: u64, unit: u64) -> u64 {
        (limit / 8 / self.count().max(1) as u64).max(unit)
    }

    fn forget(&self, key: &CallerKey) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have come back meanwhile.
        if known
            .get(key)
            .is_some_and(|caller| caller.strong_count() == 0)
        {
            known.remove(key);
        }
        self.count.store(known.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_while_it_is_connected() {
        let callers = Arc::new(Callers::default());
        let at = |text: &str| callers.of(CallerKey::address(text.parse().expect("an address")));
        let (v4, mapped) = (at("10.0.0.1"), at("::ffff:10.0.0.1"));
        assert!(Arc::ptr_eq(&v4, &mapped));
        let (one, same) = (at("2001:db8::1"), at("2001:db8::2"));
        assert!(Arc::ptr_eq(&one, &same) && callers.count() == 2);
        let alice = callers.of(CallerKey::principal("alice"));
        assert!(Arc::ptr_eq(
            &alice,
            &callers.of(CallerKey::principal("alice"))
        ));
        assert_eq!(callers.count(), 3);
        drop((v4, mapped, one, same, alice));
        assert_eq!(callers.count(), 0);
    }
}
