//! Who uses how much of each budget. A caller is the address of its
//! connections, as long as it has no other identity.
//!
//! The rule is work-conserving up to three quarters of a budget: so much one
//! caller may use alone. The last quarter is for callers that have less than
//! their share. A fixed quota for each caller was the alternative; it leaves
//! most of a budget unused with few callers.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::SLOTS;

/// What one caller uses of each budget. Lives as long as a connection of the
/// caller or a reservation for it.
#[derive(Debug)]
pub struct Caller {
    address: IpAddr,
    used: [AtomicU64; SLOTS],
    registry: Weak<Callers>,
}

impl Caller {
    /// The address of its connections.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
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
            registry.forget(self.address);
        }
    }
}

/// The callers that have connections now.
#[derive(Debug, Default)]
pub struct Callers {
    known: Mutex<HashMap<IpAddr, Weak<Caller>>>,
    /// Size of `known`, to be read without the lock.
    count: AtomicUsize,
}

impl Callers {
    /// The caller at this address. To be asked once a connection.
    #[must_use]
    pub fn of(self: &Arc<Self>, address: IpAddr) -> Arc<Caller> {
        // An IPv4 client of an IPv6 listener is the same caller as one of an
        // IPv4 listener. One IPv6 host has a whole /64 for itself.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = known.get(&address).and_then(Weak::upgrade) {
            return caller;
        }
        let caller = Arc::new(Caller {
            address,
            used: [const { AtomicU64::new(0) }; SLOTS],
            registry: Arc::downgrade(self),
        });
        known.insert(address, Arc::downgrade(&caller));
        self.count.store(known.len(), Relaxed);
        caller
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// What one caller may have of a nearly used up budget of this limit: a
    /// quarter, divided among more than a few callers.
    #[must_use]
    pub fn share(&self, limit: u64) -> u64 {
        limit / (self.count() as u64 + 3)
    }

    fn forget(&self, address: IpAddr) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have come back meanwhile.
        if known
            .get(&address)
            .is_some_and(|caller| caller.strong_count() == 0)
        {
            known.remove(&address);
        }
        self.count.store(known.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_by_its_address_while_it_is_connected() {
        let callers = Arc::new(Callers::default());
        let v4 = callers.of("10.0.0.1".parse().expect("an address"));
        let mapped = callers.of("::ffff:10.0.0.1".parse().expect("an address"));
        assert!(Arc::ptr_eq(&v4, &mapped));
        let one = callers.of("2001:db8::1".parse().expect("an address"));
        let same = callers.of("2001:db8::2".parse().expect("an address"));
        assert!(Arc::ptr_eq(&one, &same) && callers.count() == 2);
        drop((v4, mapped, one, same));
        assert_eq!(callers.count(), 0);
    }
}
