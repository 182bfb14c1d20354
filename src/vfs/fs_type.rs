// SPDX-License-Identifier: GPL-2.0

//! Filesystem types, which know the slab for their inodes. A wrapper module.

use core::ptr::NonNull;

use kernel::types::Opaque;

use crate::bindings;

/// A filesystem type under one name.
///
/// # Invariants
///
/// `cache` is that of an [`InodeCache`](crate::io::inode_cache::InodeCache), which is dropped after
/// the type is unregistered.
pub(super) struct Type {
    pub(super) fst: Opaque<bindings::file_system_type>,
    pub(super) cache: NonNull<bindings::kmem_cache>,
}

/// The slab for inodes of a registered type.
///
/// # Safety
///
/// * `fst` lies in a live [`Type`].
pub(super) unsafe fn inode_cache(
    fst: *mut bindings::file_system_type,
) -> *mut bindings::kmem_cache {
    // SAFETY: By this function's requirements `fst` lies in a `Type`, whose `cache` does not
    // change.
    unsafe { (*kernel::container_of!(Opaque::cast_from(fst), Type, fst)).cache }.as_ptr()
}
