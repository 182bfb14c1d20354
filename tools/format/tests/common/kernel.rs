// SPDX-License-Identifier: GPL-2.0

//! What models need of the kernel: folios, and RCU.

use loom::sync::atomic::{
    fence, AtomicBool, AtomicU64,
    Ordering::{self, *},
};

/// The last value of an atomic, by an access that loom reorders with all others.
pub fn now(atomic: &AtomicU64, order: Ordering) -> u64 {
    atomic.fetch_or(0, order)
}

pub struct Folio {
    pub locked: AtomicBool,
    pub uptodate: AtomicBool,
    pub in_cache: AtomicBool,
    pub bytes: AtomicU64,
}

impl Folio {
    /// One that is locked, and about to be read into.
    pub fn new() -> Self {
        Self {
            locked: AtomicBool::new(true),
            uptodate: AtomicBool::new(false),
            in_cache: AtomicBool::new(true),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn try_lock(&self) -> bool {
        let locked = self.locked.compare_exchange(false, true, Acquire, Relaxed);
        locked.is_ok()
    }

    pub fn unlock(&self) {
        self.locked.store(false, Release);
    }
}

/// One RCU reader, and polling for a grace period: what `rcu_read_lock()`,
/// `get_state_synchronize_rcu()` and `poll_state_synchronize_rcu()` promise and no more. A section
/// that has not ended when the cookie is taken ends before the grace period does; one that begins
/// later sees all that was done before the cookie was taken.
pub struct Rcu(pub AtomicU64);

/// Names a grace period.
pub type Cookie = u64;

impl Rcu {
    /// Runs a section. The count is odd meanwhile.
    pub fn section<T>(&self, orders: bool, run: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Relaxed);
        if orders {
            fence(SeqCst);
        }
        let result = run();
        self.0.fetch_add(1, Release);
        result
    }

    pub fn cookie(&self) -> Cookie {
        fence(SeqCst);
        self.0.load(Acquire)
    }

    pub fn is_over(&self, cookie: Cookie) -> bool {
        cookie % 2 == 0 || self.0.load(Acquire) != cookie
    }
}
