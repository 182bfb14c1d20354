// SPDX-License-Identifier: GPL-2.0

//! Slabs for inodes. A wrapper module.

use core::ptr::NonNull;

use kernel::prelude::*;

use crate::bindings;

/// The slab for inodes; gone on drop.
///
/// # Invariants
///
/// The pointer is to a slab that this owns.
pub(crate) struct InodeCache(NonNull<bindings::kmem_cache>);

impl InodeCache {
    /// A slab for objects of `size` bytes.
    ///
    /// # Safety
    ///
    /// * `init_once` initialises memory of `size` bytes, whatever is in it. It leaves out the first
    ///   word, which nothing looks at before it is set up after each allocation.
    pub(crate) unsafe fn new(
        name: &'static CStr,
        size: usize,
        init_once: unsafe extern "C" fn(*mut c_void),
    ) -> Result<Self> {
        let (name, size) = (name.as_char_ptr(), size as u32);
        // SAFETY: The name is NUL-terminated; by this function's requirements the constructor fits
        // the objects.
        let cache = unsafe { bindings::inode_cache_create(name, size, Some(init_once)) };
        // INVARIANT: Made just now.
        Ok(Self(NonNull::new(cache).ok_or(ENOMEM)?))
    }

    pub(crate) fn as_ptr(&self) -> NonNull<bindings::kmem_cache> {
        self.0
    }
}

impl Drop for InodeCache {
    fn drop(&mut self) {
        // SAFETY: Waiting is allowed where a filesystem is unregistered or unmounted.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: The last superblock is gone, and the inodes, which are freed after a grace
        // period, with it: that has been waited for.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}
