// SPDX-License-Identifier: GPL-2.0

//! Open files.

use core::marker::PhantomData;

use kernel::{prelude::*, types::Opaque};

use super::{super_ops::SuperOps, FileSystem, Inode};
use crate::{bindings, io::mapping::Mapping};

/// An open file.
///
/// # Invariants
///
/// The file is open for `'a`, and its inode is one of a superblock of `T`. `f_mapping` is that
/// inode's own mapping, or that of a shared inode which the inode holds until it is evicted.
pub(super) struct OpenFile<'a, T: FileSystem> {
    file: &'a Opaque<bindings::file>,
    _fs: PhantomData<T>,
}

impl<T: FileSystem> Clone for OpenFile<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: FileSystem> Copy for OpenFile<'_, T> {}

impl<'a, T: FileSystem> OpenFile<'a, T> {
    /// # Safety
    ///
    /// * `file` is open for `'a`.
    /// * It has been opened by `FileOps<T>` or `DirOps<T>`.
    #[inline(always)]
    pub(super) unsafe fn from_raw(file: *mut bindings::file) -> Self {
        // INVARIANT: By this function's requirements; `open` sets `f_mapping`, which does not
        // change any more.
        Self {
            // SAFETY: By this function's requirements the file is live; `Opaque` is transparent.
            file: unsafe { &*file.cast() },
            _fs: PhantomData,
        }
    }

    /// As [`OpenFile::from_raw`], for files that may be of another filesystem, or null: `None`.
    ///
    /// # Safety
    ///
    /// * `file` is null, or an open file for `'a`.
    pub(super) unsafe fn if_of_type(file: *mut bindings::file) -> Option<Self> {
        if file.is_null() {
            return None;
        }
        // SAFETY: A file has an inode, that a superblock, and that its operations, which are
        // constant.
        let ops = unsafe { (*(*(*file).f_inode).i_sb).s_op };
        // SAFETY: By this function's requirements the file is open. Its superblock is one of `T`.
        core::ptr::eq(ops, SuperOps::<T>::REF).then(|| unsafe { Self::from_raw(file) })
    }

    #[inline(always)]
    pub(super) fn as_ptr(self) -> *mut bindings::file {
        self.file.get()
    }

    /// Its inode.
    #[inline(always)]
    pub(super) fn inode(self) -> &'a Inode<T> {
        // SAFETY: By the type invariants the file is open, so that its inode, which is one of `T`,
        // is live.
        unsafe { Inode::from_raw((*self.as_ptr()).f_inode) }
    }

    /// The page cache with its pages.
    #[inline(always)]
    pub(super) fn mapping(self) -> Mapping<'a> {
        // SAFETY: By the type invariants the mapping is that of an inode which is held as long as
        // the file's.
        unsafe { Mapping::from_raw((*self.as_ptr()).f_mapping) }
    }

    /// Whether it has the page cache of a shared inode.
    pub(super) fn is_shared(self) -> bool {
        self.mapping() != self.inode().own_mapping()
    }

    /// Whether nothing is to be read ahead (`POSIX_FADV_RANDOM`).
    pub(super) fn is_random(self) -> bool {
        // SAFETY: The file is open; others may change the mode at any time, to the same effect as
        // before or after this.
        let mode = unsafe { (&raw const (*self.as_ptr()).f_mode).read_volatile() };
        mode & bindings::FMODE_RANDOM != 0
    }

    /// Sets up read-ahead by the device's setting: the VFS took that of the internal filesystem, 0.
    #[inline(always)]
    pub(super) fn ready_readahead(self) {
        // SAFETY: The file is open. Other threads may set it at any time.
        if unsafe { self.ra_field().read_volatile() } == 0 {
            self.set_ra_pages(self.inode().ra_pages());
        }
    }

    #[inline(always)]
    fn ra_field(self) -> *mut c_uint {
        // SAFETY: The file is open as long as this (type invariants).
        unsafe { &raw mut (*self.as_ptr()).__bindgen_anon_3.f_ra.ra_pages }
    }

    /// Sets how many pages are read ahead at most.
    #[inline(always)]
    pub(super) fn set_ra_pages(self, pages: u32) {
        // SAFETY: The file is open. Other threads may set and read it at any time.
        unsafe { self.ra_field().write_volatile(pages) };
    }
}
