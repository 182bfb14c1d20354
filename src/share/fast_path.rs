// SPDX-License-Identifier: GPL-2.0

//! The fast path of reads: two words, which a read looks at before anything else, say whether a
//! file may be read without further checks. A wrapper module.
//!
//! One is in the real inode ([`FastMapping`]): the mapping all of which it has verified. The other
//! is in the inode that the mapping belongs to ([`mark`]): whether blocks of it have aliases. So an
//! alias is noted in one place, however many real inodes are bound.

use kernel::sync::atomic::{Atomic, Release};

use super::handle::Unheld;
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
/// filesystem's own. It is null in all other inodes of this module. Called under a lock, or when
/// nothing else sets it any more.
pub(super) fn mark(shared: &Unheld, aliased: bool) {
    let inode = shared.as_ptr();
    let value = match aliased {
        true => inode.cast(),
        false => core::ptr::null_mut(),
    };
    // SAFETY: By the type invariants the inode is not freed; nothing but this writes the word once
    // the inode is set up, as a whole. This is WRITE_ONCE(): reads look at it without a lock.
    unsafe { (&raw mut (*inode).i_private).write_volatile(value) };
}

/// Whether the inode that a mapping is in was marked by [`mark`].
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
