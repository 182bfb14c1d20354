// SPDX-License-Identifier: GPL-2.0

//! References to the page caches of this module's inodes. A wrapper module.

use core::{marker::PhantomData, ptr::NonNull};

use crate::bindings;

/// The page cache of an inode of this module.
///
/// # Invariants
///
/// Points to the `i_data` of an inode of this module that is not freed for `'a`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    mapping: NonNull<bindings::address_space>,
    _inode: PhantomData<&'a bindings::inode>,
}

impl Mapping<'_> {
    /// # Safety
    ///
    /// * `mapping` is the `i_data` of an inode of this module.
    /// * That inode is not freed for the result's lifetime.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(mapping: *mut bindings::address_space) -> Self {
        // INVARIANT: By this function's requirements the inode is one of this module, and not
        // freed.
        Self {
            // SAFETY: By this function's requirements the pointer is to a part of an inode.
            mapping: unsafe { NonNull::new_unchecked(mapping) },
            _inode: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut bindings::address_space {
        self.mapping.as_ptr()
    }
}
