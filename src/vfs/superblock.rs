// SPDX-License-Identifier: GPL-2.0

//! Superblocks and their operations.

use core::ptr::NonNull;

use kernel::{
    bindings, ffi,
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
    },
    types::Opaque,
};

use super::{inode::Node, FileSystem, Inode, InodeRef, Tables};
use crate::{
    io::{device::SuperPtr, fill::Keeper},
    raw,
    stats::Dev,
};

/// What `s_fs_info` points to: the source file (if the image is one) and the filesystem's state.
pub(super) struct Private<T: FileSystem> {
    pub(super) source: Option<ARef<File>>,
    /// By which a mount of the same image file finds this superblock. Not a part of `info`, which
    /// `put_super` has to itself while others look at this.
    pub(super) key: Option<T::Key>,
    /// Reads of image data under way whose end nothing else waits for; see [`UnderWay`].
    pub(super) under_way: Atomic<u32>,
    pub(super) info: T::Info,
}

/// Keeps an inode, and so its superblock with all its devices, until it is dropped: `kill_sb` waits.
/// It must be dropped in process context.
///
/// # Invariants
///
/// The superblock counts this in `under_way`.
pub(super) struct UnderWay<T: FileSystem> {
    inode: core::mem::ManuallyDrop<InodeRef<T>>,
    count: NonNull<Atomic<u32>>,
}

// SAFETY: Both parts may be used and released from any thread.
unsafe impl<T: FileSystem> Send for UnderWay<T> {}

impl<T: FileSystem> UnderWay<T> {
    /// To be called while the superblock is in use: with an open file, or while it is being mounted.
    pub(super) fn new(inode: &Inode<T>) -> Self {
        let count = inode.sb().under_way();
        count.add(1, Relaxed);
        // INVARIANT: Counted just now.
        Self {
            inode: core::mem::ManuallyDrop::new(inode.into()),
            count: count.into(),
        }
    }

    pub(super) fn inode(&self) -> &Inode<T> {
        &self.inode
    }
}

impl<T: FileSystem> Keeper for UnderWay<T> {
    fn bad_data(&self, pos: u64, what: &'static str) {
        T::report_data(self.inode(), pos, what);
    }
}

impl<T: FileSystem> Drop for UnderWay<T> {
    fn drop(&mut self) {
        // SAFETY: The inode is dropped once, here, before the count lets the superblock go. The count is
        // not used after it is zero.
        unsafe {
            core::mem::ManuallyDrop::drop(&mut self.inode);
            raw::erofs_shared_dec_and_wake(self.count.as_ptr().cast());
        }
    }
}

/// A superblock of `T`.
///
/// # Invariants
///
/// `s_fs_info` points to a `Private<T>` that lives until `kill_sb`.
#[repr(transparent)]
pub(crate) struct Super<T: FileSystem> {
    sb: Opaque<bindings::super_block>,
    _fs: core::marker::PhantomData<T>,
}

/// `statfs` figures.
pub(crate) struct Stat {
    /// Blocks in all.
    pub(crate) blocks: u64,
    /// Inodes in all.
    pub(crate) inodes: u64,
    /// Longest name.
    pub(crate) name_len: u32,
}

/// Where mount options are shown.
pub(crate) struct Options<'a>(&'a Opaque<bindings::seq_file>);

impl Options<'_> {
    /// Appends `text`, which starts with a comma.
    pub(crate) fn put(&self, text: &CStr) {
        // SAFETY: The seq_file is live for the callback that made this.
        unsafe { bindings::__seq_puts(self.0.get(), text.as_char_ptr()) }
    }

    /// Appends `text` and a number.
    pub(crate) fn put_number(&self, text: &CStr, number: u64) {
        // SAFETY: As for `put`.
        unsafe { bindings::seq_put_decimal_ull(self.0.get(), text.as_char_ptr(), number) }
    }

    /// Appends `,name=` and a string, escaped.
    pub(crate) fn put_string(&self, text: &CStr, value: &CStr) {
        self.put(text);
        // SAFETY: As for `put`; both strings are NUL-terminated.
        unsafe {
            bindings::seq_escape_mem(
                self.0.get(),
                value.as_char_ptr(),
                value.to_bytes().len(),
                raw::EROFS_SHARED_ESCAPE_OCTAL,
                c" \t\n\\,".as_char_ptr(),
            )
        }
    }
}

impl<T: FileSystem> Super<T> {
    /// # Safety
    ///
    /// `sb` must be a live superblock of `T` for `'a`.
    pub(super) unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: By the function's safety requirements; the type is transparent.
        unsafe { &*sb.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::super_block {
        self.sb.get()
    }

    /// For devices that are claimed in the name of this superblock.
    pub(crate) fn owner(&self) -> SuperPtr {
        // SAFETY: The filesystem keeps its devices in `T::Info`, which `kill_sb` drops while the
        // superblock is still allocated.
        unsafe { SuperPtr::new(NonNull::from(&self.sb).cast()) }
    }

    /// The filesystem's state.
    pub(crate) fn info(&self) -> &T::Info {
        // SAFETY: By the type invariants; it is only shared as long as the superblock lives.
        unsafe { &(*(*self.as_ptr()).s_fs_info.cast::<Private<T>>()).info }
    }

    /// What mounts of the same image file find it by, if it has that.
    pub(super) fn key(&self) -> Option<&T::Key> {
        // SAFETY: As in `info`.
        unsafe {
            (*(*self.as_ptr()).s_fs_info.cast::<Private<T>>())
                .key
                .as_ref()
        }
    }

    /// Its device number, which `stat` shows for its files.
    pub(crate) fn dev(&self) -> Dev {
        // SAFETY: Live superblock; the number is set before `fill_super`.
        Dev(unsafe { (*self.as_ptr()).s_dev })
    }

    fn under_way(&self) -> &Atomic<u32> {
        // SAFETY: By the type invariants; it is only shared as long as the superblock lives.
        unsafe { &(*(*self.as_ptr()).s_fs_info.cast::<Private<T>>()).under_way }
    }

    /// The name by which messages call it: that of the device.
    pub(crate) fn id(&self) -> &CStr {
        // SAFETY: `s_id` is NUL-terminated and does not change after `fill_super` has set it.
        unsafe { CStr::from_char_ptr((*self.as_ptr()).s_id.as_ptr()) }
    }

    /// Whether it is on a block device.
    pub(crate) fn is_block(&self) -> bool {
        // SAFETY: Live superblock.
        unsafe { !(*self.as_ptr()).s_bdev.is_null() }
    }

    /// Whether POSIX ACLs are on.
    pub(crate) fn posix_acl(&self) -> bool {
        // SAFETY: Live superblock.
        unsafe { (*self.as_ptr()).s_flags & raw::EROFS_SHARED_SB_POSIXACL as usize != 0 }
    }

    /// Sets what the image's superblock says. Only for `fill_super`.
    pub(crate) fn identify(&self, block_bits: u8, uuid: &[u8; 16]) {
        // SAFETY: `fill_super` has the superblock to itself.
        unsafe {
            (*self.as_ptr()).s_blocksize = 1usize.wrapping_shl(block_bits.into());
            (*self.as_ptr()).s_blocksize_bits = block_bits;
            raw::erofs_shared_super_identify(self.as_ptr(), uuid.as_ptr(), uuid.len() as u32);
        }
    }
}

impl<T: FileSystem> Tables<T> {
    pub(super) const SUPER_OPS: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(Node::<T>::alloc),
        free_inode: Some(Node::<T>::free),
        evict_inode: Some(Node::<T>::evict),
        put_super: Some(Self::put_super),
        statfs: Some(Self::statfs),
        show_options: Some(Self::show_options),
        ..pin_init::zeroed()
    };

    /// A promoted constant, so that it has an address for good, by which superblocks of `T` are known.
    pub(super) const SUPER_OPS_REF: &'static bindings::super_operations = &Self::SUPER_OPS;

    /// # Safety
    ///
    /// `super_operations::put_super`: all inodes but those that the filesystem holds are gone.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: Nobody uses the superblock any more but the inodes that `info` holds, and these do so
        // when they are evicted: below, where the borrow has ended.
        let held = T::put_super(unsafe { &mut (*(*sb).s_fs_info.cast::<Private<T>>()).info });
        drop(held);
    }

    /// # Safety
    ///
    /// `super_operations::statfs`
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        buf: *mut bindings::kstatfs,
    ) -> ffi::c_int {
        let buf = buf.cast::<raw::kstatfs>();
        // SAFETY: The dentry is live; `buf` is the callback's to fill.
        unsafe {
            let sb = (*dentry).d_sb;
            let stat = T::statfs(Super::<T>::from_raw(sb).info());
            (*buf).f_type = (*sb).s_magic as ffi::c_long;
            (*buf).f_bsize = (*sb).s_blocksize as ffi::c_long;
            (*buf).f_blocks = stat.blocks;
            (*buf).f_bfree = 0;
            (*buf).f_bavail = 0;
            (*buf).f_files = u64::MAX;
            (*buf).f_ffree = u64::MAX - stat.inodes;
            (*buf).f_namelen = stat.name_len as ffi::c_long;
            raw::erofs_shared_statfs_fsid(sb, buf.cast());
        }
        0
    }

    /// # Safety
    ///
    /// `super_operations::show_options`
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> ffi::c_int {
        // SAFETY: Both are live for the call.
        unsafe {
            let sb = Super::<T>::from_raw((*root).d_sb);
            T::show_options(sb.info(), &Options(&*seq.cast()));
        }
        0
    }

    /// # Safety
    ///
    /// `file_system_type::kill_sb`
    pub(super) unsafe extern "C" fn kill_sb(sb: *mut bindings::super_block) {
        // SAFETY: `sb` is a superblock of `T` in its last use; `s_fs_info` was set when it was made.
        // The state goes after the inodes that use it.
        unsafe {
            let private = (*sb).s_fs_info.cast::<Private<T>>();
            if !private.is_null() {
                // No file is open any more, so none begins.
                raw::erofs_shared_wait_zero((&raw mut (*private).under_way).cast());
            }
            if private.is_null() || (*private).source.is_some() {
                bindings::kill_anon_super(sb);
            } else {
                bindings::kill_block_super(sb);
            }
            if !private.is_null() {
                // A mount that failed early had no `put_super`. As there, eviction may look at `info`.
                let held = T::put_super(&mut (*private).info);
                drop(held);
                (*sb).s_fs_info = core::ptr::null_mut();
                drop(KBox::from_raw(private));
            }
        }
    }
}

/// The inode of an open file of `T`.
///
/// # Safety
///
/// `file` must be an open file of a superblock of `T`, for `'a`.
pub(super) unsafe fn file_inode<'a, T: FileSystem>(file: *mut bindings::file) -> &'a Inode<T> {
    // SAFETY: By the function's safety requirements.
    unsafe { Inode::from_raw((*file).f_inode) }
}
