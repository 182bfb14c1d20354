// SPDX-License-Identifier: GPL-2.0

//! The slab for inodes, and the filesystem types that know it. A wrapper module.

use core::ptr::NonNull;

use kernel::{bindings, prelude::*, types::Opaque};

use crate::raw;

/// A filesystem type under one name.
///
/// # Invariants
///
/// `cache` is that of an [`InodeCache`] which is dropped after the type is unregistered.
pub(super) struct Type {
    pub(super) fst: Opaque<bindings::file_system_type>,
    pub(super) cache: NonNull<bindings::kmem_cache>,
}

/// The slab for inodes; gone on drop.
///
/// # Invariants
///
/// The pointer is to a slab that this owns.
pub(super) struct InodeCache(NonNull<bindings::kmem_cache>);

impl InodeCache {
    /// A slab for objects of `size` bytes.
    ///
    /// # Safety
    ///
    /// `init_once` initialises memory of that size.
    pub(super) unsafe fn new(
        name: &'static CStr,
        size: usize,
        init_once: unsafe extern "C" fn(*mut kernel::ffi::c_void),
    ) -> Result<Self> {
        let (name, size) = (name.as_char_ptr(), size as u32);
        // SAFETY: The name is NUL-terminated; by this function's requirements the constructor fits
        // the objects.
        let cache = unsafe { raw::erofs_shared_inode_cache_create(name, size, Some(init_once)) };
        // INVARIANT: Made just now.
        Ok(Self(NonNull::new(cache).ok_or(ENOMEM)?))
    }

    pub(super) fn as_ptr(&self) -> NonNull<bindings::kmem_cache> {
        self.0
    }
}

impl Drop for InodeCache {
    fn drop(&mut self) {
        // SAFETY: Waiting is allowed where a filesystem is unregistered.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: The last superblock is gone, and the inodes, which are freed after a grace
        // period, with it: that has been waited for.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}

/// The slab for inodes of a registered type.
///
/// # Safety
///
/// `fst` lies in a [`Type`].
pub(super) unsafe fn inode_cache(
    fst: *mut bindings::file_system_type,
) -> *mut bindings::kmem_cache {
    // SAFETY: By this function's requirements `fst` lies in a `Type`, whose `cache` does not
    // change.
    unsafe { (*kernel::container_of!(Opaque::cast_from(fst), Type, fst)).cache }.as_ptr()
}
