// SPDX-License-Identifier: GPL-2.0

//! What a shared inode carries. Shared inodes own the page cache of one content; they live on a
//! pseudo filesystem of the module's own ([`super::pseudo_fs`]).
//!
//! A shared inode is found by its [`Identity`] in the inode hash of the kernel. It is held by the
//! [`Binding`](super::Binding)s of real inodes and by the files opened through them; without these
//! it stays as long as its pages do, like any unused inode: memory pressure takes it, or `rmmod`.

use core::cell::UnsafeCell;

use kernel::types::Opaque;

use super::{
    content::{Content, Identity},
    handle::Unheld,
};

use crate::bindings;

/// What the slab holds.
///
/// # Invariants
///
/// `inode` is initialised (`inode_init_once` at slab construction). `content` and `identity` are
/// initialised from `alloc` to `free`; `identity` is written while the inode is new, then constant.
#[repr(C)]
pub(super) struct SharedInodeSlot {
    pub(super) content: core::mem::MaybeUninit<Content>,
    pub(super) identity: UnsafeCell<Identity>,
    pub(super) inode: Opaque<bindings::inode>,
}

impl SharedInodeSlot {
    /// What an inode lies in.
    ///
    /// # Safety
    ///
    /// * `inode` is one of the internal filesystem, so that it lies in a [`SharedInodeSlot`].
    pub(super) unsafe fn of(inode: *mut bindings::inode) -> *mut Self {
        // SAFETY: All inodes of the internal filesystem are made by `alloc`.
        unsafe { kernel::container_of!(Opaque::cast_from(inode), SharedInodeSlot, inode) }
            .cast_mut()
    }
}

impl Unheld {
    /// Which one it is.
    pub(crate) fn identity(&self) -> &Identity {
        // SAFETY: By the type invariants it lies in a `SharedInodeSlot` whose identity is constant
        // now.
        unsafe { &*(*SharedInodeSlot::of(self.as_ptr())).identity.get() }
    }

    /// What it knows of its blocks.
    pub(crate) fn content(&self) -> &Content {
        // SAFETY: By the type invariants it lies in a `SharedInodeSlot` whose content is
        // initialised.
        unsafe {
            (*SharedInodeSlot::of(self.as_ptr()))
                .content
                .assume_init_ref()
        }
    }
}
