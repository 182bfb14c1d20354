// SPDX-License-Identifier: GPL-2.0

//! Who may read a shared inode's pages without more ado: a word in each real inode, which the shared
//! inode can take back. A wrapper module.

use core::ptr::NonNull;

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{Atomic, Release},
};

/// The mapping through which files of a real inode may be read without more ado, if they have it: the
/// inode's own, if it has no other; that of a shared inode all of which it has verified. Null: it is
/// not bound yet, or has not verified all, or there is more to look at.
pub(crate) struct Plain(Atomic<*mut bindings::address_space>);

impl Plain {
    /// No mapping.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(core::ptr::null_mut()))
    }

    /// The mapping, to be compared: nothing else is read that it would have to be in order with.
    #[inline(always)]
    pub(crate) fn get(&self) -> *mut bindings::address_space {
        // SAFETY: `Atomic` is only ever written as a whole. This is READ_ONCE(), which inlines: `load`
        // calls a function.
        unsafe { core::ptr::read_volatile(self.0.as_ptr()) }
    }

    /// Sets it.
    pub(crate) fn set(&self, mapping: *mut bindings::address_space) {
        self.0.store(mapping, Release);
    }
}

/// The words that a shared inode can take back. Under its lock.
///
/// # Invariants
///
/// What the pointers point to is not freed as long as they are here.
pub(super) struct Watched(KVec<NonNull<Plain>>);

// SAFETY: A `Plain` may be used from any thread.
unsafe impl Send for Watched {}

impl Watched {
    pub(super) const fn new() -> Self {
        Self(KVec::new())
    }

    /// Sets `plain` to `mapping`, until it is taken back. If there is no memory to remember it, it is not set: that
    /// costs time only.
    ///
    /// # Safety
    ///
    /// `plain` is not freed before it is removed here.
    pub(super) unsafe fn add(&mut self, plain: &Plain, mapping: *mut bindings::address_space) {
        let ptr = NonNull::from(plain);
        // INVARIANT: By the function's safety requirements.
        if self.0.contains(&ptr) || self.0.push(ptr, GFP_NOWAIT).is_ok() {
            plain.set(mapping);
        }
    }

    /// Takes one back.
    pub(super) fn remove(&mut self, plain: &Plain) {
        let ptr = NonNull::from(plain);
        if let Some(at) = self.0.iter().position(|other| *other == ptr) {
            let last = self.0.len() - 1;
            self.0.swap(at, last);
            self.0.truncate(last);
            plain.set(core::ptr::null_mut());
        }
    }

    /// Takes all back.
    pub(super) fn clear(&mut self) {
        for plain in &self.0 {
            // SAFETY: By the type invariants.
            unsafe { plain.as_ref() }.set(core::ptr::null_mut());
        }
        self.0.clear();
    }
}
