// SPDX-License-Identifier: GPL-2.0

//! The fast path of reads: two words, which a read looks at before anything else, say whether a
//! file may be read without further checks. A wrapper module.
//!
//! One is in the real inode ([`FastMapping`]): the mapping all of which it has verified. The other
//! is in the inode that the mapping belongs to ([`Mark`]): whether blocks of it have aliases. So an
//! alias is noted in one place, however many real inodes are bound.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Release},
};

use crate::bindings;

/// The mapping through which files of a real inode may be read without further checks, if they have
/// it: the inode's own, if it has no other; that of a shared inode all of which it has verified.
/// Null: it is not bound, or has not verified all.
pub(crate) struct FastMapping(Atomic<*mut bindings::address_space>);

impl FastMapping {
    /// No mapping.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(core::ptr::null_mut()))
    }

    /// Returns the mapping, for comparison only. It is not dereferenced, so no ordering is needed.
    #[inline(always)]
    pub(crate) fn get(&self) -> *mut bindings::address_space {
        // SAFETY: `Atomic` is only ever written as a whole. This is READ_ONCE(), which inlines:
        // `load` calls a function.
        unsafe { core::ptr::read_volatile(self.0.as_ptr()) }
    }

    /// Sets it.
    pub(crate) fn set(&self, mapping: *mut bindings::address_space) {
        self.0.store(mapping, Release);
    }
}

/// Says in a shared inode whether blocks of it have aliases: in `i_private`, which is the
/// filesystem's own. It is null in all other inodes of this module.
///
/// # Invariants
///
/// The address of the `i_private` of an inode that lives at least as long as this. Nothing else
/// writes that word once the inode is set up.
pub(super) struct Mark(*mut *mut c_void);

// SAFETY: The word is written as a whole, under a lock, and read as a whole.
unsafe impl Send for Mark {}
// SAFETY: The word is set through shared references, but under a lock only, and as a whole.
unsafe impl Sync for Mark {}

impl Mark {
    /// That of an inode.
    ///
    /// # Safety
    ///
    /// * `inode` lives at least as long as the result.
    /// * Nothing else writes its `i_private` once the inode is set up.
    pub(super) unsafe fn of(inode: *mut bindings::inode) -> Self {
        // INVARIANT: By this function's requirements the inode lives longer, and nothing else
        // writes the word.
        // SAFETY: The address of a field of what `inode` points to.
        Self(unsafe { &raw mut (*inode).i_private })
    }

    /// Sets it, or takes it back.
    pub(super) fn set(&self, aliased: bool) {
        let value = match aliased {
            true => self.0.cast(),
            false => core::ptr::null_mut(),
        };
        // SAFETY: By the type invariants. This is WRITE_ONCE(): reads look at it without a lock.
        unsafe { self.0.write_volatile(value) };
    }
}

/// Whether the inode that a mapping is in has a [`Mark`] that is set.
///
/// # Safety
///
/// * `mapping` is the own one (`i_data`) of a live inode.
#[inline(always)]
pub(crate) unsafe fn is_marked(mapping: *mut bindings::address_space) -> bool {
    // SAFETY: By this function's requirements the mapping is the `i_data` of a live inode. This is
    // READ_ONCE().
    unsafe {
        let inode = kernel::container_of!(mapping, bindings::inode, i_data);
        !(&raw const (*inode).i_private).read_volatile().is_null()
    }
}
