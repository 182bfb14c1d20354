// SPDX-License-Identifier: GPL-2.0

//! Reads of image data under way, which an unmount has to wait for.

use core::{mem::ManuallyDrop, ptr::NonNull};

use kernel::sync::atomic::{Atomic, Relaxed};

use super::{FileSystem, Inode, InodeRef};
use crate::{io::fill::FillGuard, raw};

/// Keeps an inode, and so its superblock with all its devices, until it is dropped: `kill_sb`
/// waits. It must be dropped in process context.
///
/// # Invariants
///
/// The superblock counts this in `under_way`.
pub(super) struct UnderWay<T: FileSystem> {
    inode: ManuallyDrop<InodeRef<T>>,
    count: NonNull<Atomic<u32>>,
}

// SAFETY: Both parts may be used and released from any thread.
unsafe impl<T: FileSystem> Send for UnderWay<T> {}

impl<T: FileSystem> UnderWay<T> {
    /// To be called while the superblock is in use: with an open file, or while it is being
    /// mounted.
    pub(super) fn new(inode: &Inode<T>) -> Self {
        let count = inode.sb().under_way();
        count.add(1, Relaxed);
        // INVARIANT: Counted just now.
        Self {
            inode: ManuallyDrop::new(inode.into()),
            count: count.into(),
        }
    }

    pub(super) fn inode(&self) -> &Inode<T> {
        &self.inode
    }
}

impl<T: FileSystem> FillGuard for UnderWay<T> {
    fn bad_data(&self, pos: u64, what: &'static str) {
        T::report_data(self.inode(), pos, what);
    }
}

impl<T: FileSystem> Drop for UnderWay<T> {
    fn drop(&mut self) {
        // SAFETY: The inode is dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.inode) };
        // SAFETY: The superblock, in which the count lies, is there until its count is zero, by
        // this at the earliest. Nothing of this is used afterwards.
        unsafe { raw::erofs_shared_dec_and_wake(self.count.as_ptr().cast()) };
    }
}
