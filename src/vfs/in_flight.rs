// SPDX-License-Identifier: GPL-2.0

//! Reads of image data under way, which an unmount has to wait for.

use core::{marker::PhantomData, ptr::NonNull};

use kernel::sync::atomic::{Atomic, Relaxed};

use super::{FileSystem, Inode, InodeRef};
use crate::{bindings, io::fill::FillGuard};

/// Keeps a superblock with all its devices until it is dropped: `kill_sb` waits. It may be dropped
/// in any context.
///
/// # Invariants
///
/// The superblock counts this in `in_flight`.
pub(super) struct SuperInFlight<T: FileSystem> {
    count: NonNull<Atomic<u32>>,
    _fs: PhantomData<fn(T)>,
}

// SAFETY: The count is atomic, and may be taken back from any thread.
unsafe impl<T: FileSystem> Send for SuperInFlight<T> {}

impl<T: FileSystem> SuperInFlight<T> {
    /// To be called while the superblock is in use: with an open file, or while it is being
    /// mounted.
    pub(super) fn new(inode: &Inode<T>) -> Self {
        Self::count(inode.sb().in_flight())
    }

    fn count(count: &Atomic<u32>) -> Self {
        count.add(1, Relaxed);
        // INVARIANT: Counted just now.
        Self {
            count: count.into(),
            _fs: PhantomData,
        }
    }
}

impl<T: FileSystem> FillGuard for SuperInFlight<T> {
    // What is read by it needs no decoding.
    fn bad_data(&self, _pos: u64, _what: &'static str) {}

    fn another(&self) -> Self {
        // SAFETY: The superblock, in which the count lies, is there as long as this.
        Self::count(unsafe { self.count.as_ref() })
    }
}

impl<T: FileSystem> Drop for SuperInFlight<T> {
    fn drop(&mut self) {
        // SAFETY: The superblock, in which the count lies, is there until its count is zero, by
        // this at the earliest. Nothing of this is used afterwards.
        unsafe { bindings::dec_and_wake(self.count.as_ptr().cast()) };
    }
}

/// As [`SuperInFlight`], and keeps an inode, too. It must be dropped in process context.
pub(super) struct InFlight<T: FileSystem> {
    inode: InodeRef<T>,
    // Last, so that the inode is gone when an unmount continues.
    _super: SuperInFlight<T>,
}

impl<T: FileSystem> InFlight<T> {
    /// To be called while the superblock is in use: with an open file, or while it is being
    /// mounted.
    pub(super) fn new(inode: &Inode<T>) -> Self {
        let in_flight = SuperInFlight::new(inode);
        Self {
            inode: inode.into(),
            _super: in_flight,
        }
    }

    pub(super) fn inode(&self) -> &Inode<T> {
        &self.inode
    }
}

impl<T: FileSystem> FillGuard for InFlight<T> {
    fn bad_data(&self, pos: u64, what: &'static str) {
        T::report_data(self.inode(), pos, what);
    }

    fn another(&self) -> Self {
        Self::new(self.inode())
    }
}
