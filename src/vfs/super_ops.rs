// SPDX-License-Identifier: GPL-2.0

//! The operations of superblocks: inodes come and go, and a mount ends.

use core::marker::PhantomData;

use kernel::{prelude::*, sync::atomic::Relaxed};

use super::{
    fs_type::inode_cache,
    inode::InodeSlot,
    superblock::{Options, SbInfo},
    FileSystem, Inode, SuperBlock,
};
use crate::bindings;

impl<T: FileSystem> InodeSlot<T> {
    /// `super_operations::alloc_inode`
    ///
    /// # Safety
    ///
    /// * `sb` is a live superblock of `T`.
    unsafe extern "C" fn alloc(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: The type of a superblock of `T` lies in a `Type`: `Registration` registers no
        // others.
        let cache = unsafe { inode_cache((*sb).s_type) };
        // SAFETY: The cache has objects of the size of `InodeSlot<T>`.
        let node = unsafe { bindings::inode_alloc(sb, cache) }.cast::<Self>();
        if node.is_null() {
            return core::ptr::null_mut();
        }
        // SAFETY: A new object, exclusively ours, whose `inode` its constructor has initialised.
        unsafe { Self::set_up(node) }
    }

    /// `super_operations::evict_inode`
    ///
    /// # Safety
    ///
    /// * `inode` is one of a superblock of `T`, and has no references any more.
    /// * It is used by lookups under RCU only.
    unsafe extern "C" fn evict(inode: *mut bindings::inode) {
        // SAFETY: The inode is being evicted, which begins with this.
        unsafe { bindings::truncate_inode_pages_final(&raw mut (*inode).i_data) };
        // SAFETY: The inode is being evicted, and its pages are gone.
        unsafe { bindings::clear_inode(inode) };
        // SAFETY: The inode is allocated until `free`; it is one of `T`.
        let this = unsafe { Inode::<T>::from_raw(inode) };
        this.evict_sharing();
        // Dropping this may sleep, which is allowed here and not in `free`.
        // SAFETY: There are no references to the inode, and no open files: nothing uses its
        // `sharing`.
        unsafe { this.free_sharing() };
    }

    /// `super_operations::free_inode`
    ///
    /// # Safety
    ///
    /// * `inode` is one of a superblock of `T`.
    /// * Nothing uses it any more, not under RCU either.
    unsafe extern "C" fn free(inode: *mut bindings::inode) {
        // SAFETY: The inode is dead, so all its fields are ours.
        let mode = u32::from(unsafe { (*inode).i_mode });
        if mode & bindings::S_IFMT == bindings::S_IFLNK {
            // SAFETY: Only `NewInode::publish` sets `i_link` on an inode of this mode, to memory of
            // `kmemdup_nul`.
            unsafe { bindings::kfree((*inode).__bindgen_anon_5.i_link.cast()) };
        }
        // SAFETY: The inode lies in an object of the slab, which is this call's.
        let node = unsafe { Self::of(inode) };
        // SAFETY: The same; `alloc` set it up.
        unsafe { Self::drop_data(node) };
        // SAFETY: The whole object came from a slab, which `kfree` finds by itself.
        unsafe { bindings::kfree(node.cast()) };
    }
}

/// `super_operations` of the superblocks of `T`.
pub(super) struct SuperOps<T>(PhantomData<T>);

impl<T: FileSystem> SuperOps<T> {
    const TABLE: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(InodeSlot::<T>::alloc),
        free_inode: Some(InodeSlot::<T>::free),
        evict_inode: Some(InodeSlot::<T>::evict),
        put_super: Some(Self::put_super),
        statfs: Some(Self::statfs),
        show_options: Some(Self::show_options),
        ..pin_init::zeroed()
    };

    /// A promoted constant, so that it has an address for good, by which superblocks of `T` are
    /// known.
    pub(super) const REF: &'static bindings::super_operations = &Self::TABLE;

    /// `super_operations::put_super`
    ///
    /// # Safety
    ///
    /// * `sb` is a superblock of `T`.
    /// * All its inodes but those that the filesystem holds are gone.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: The superblock is used by the inodes that `info` holds only, and these do so when
        // they are evicted: below, where the borrow has ended.
        let held = T::put_super(unsafe { &mut (*(*sb).s_fs_info.cast::<SbInfo<T>>()).info });
        drop(held);
    }

    /// `super_operations::statfs`
    ///
    /// # Safety
    ///
    /// * `dentry` is one of a live superblock of `T`.
    /// * `buf` is zeroed, and not used by others during the call.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        buf: *mut kernel::bindings::kstatfs,
    ) -> c_int {
        let buf = buf.cast::<bindings::kstatfs>();
        // SAFETY: The dentry is live, and so is its superblock, one of `T`.
        let (sb, this) = unsafe { ((*dentry).d_sb, SuperBlock::<T>::from_raw((*dentry).d_sb)) };
        let stat = T::statfs(this.info());
        // SAFETY: The superblock is live; both fields are constant once it is mounted.
        let (magic, block_size) = unsafe { ((*sb).s_magic, (*sb).s_blocksize) };
        // SAFETY: `buf` is this callback's to fill, which the VFS has zeroed.
        let out = unsafe { &mut *buf };
        out.f_type = magic as c_long;
        out.f_bsize = block_size as c_long;
        out.f_blocks = stat.blocks;
        out.f_bfree = 0;
        out.f_bavail = 0;
        out.f_files = u64::MAX;
        out.f_ffree = u64::MAX - stat.inodes;
        out.f_namelen = stat.name_len as c_long;
        // SAFETY: Both are live.
        unsafe { bindings::statfs_fsid(sb, buf.cast()) };
        0
    }

    /// `super_operations::show_options`
    ///
    /// # Safety
    ///
    /// * `seq` is live, and this callback's to write to.
    /// * `root` is a dentry of a live superblock of `T`.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> c_int {
        // SAFETY: The dentry is live, and so is its superblock, one of `T`.
        let sb = unsafe { SuperBlock::<T>::from_raw((*root).d_sb) };
        // SAFETY: `seq` is live for the call.
        let out = unsafe { Options::from_raw(seq) };
        T::show_options(sb.info(), &out);
        0
    }

    /// `file_system_type::kill_sb`
    ///
    /// # Safety
    ///
    /// * `sb` is a superblock of `T`, or one that never got so far: then `s_fs_info` is null.
    /// * This is its last use.
    pub(super) unsafe extern "C" fn kill_sb(sb: *mut bindings::super_block) {
        // SAFETY: `sb` is allocated. `s_fs_info` is set when the superblock is made, and changed
        // here only.
        let private = unsafe { (*sb).s_fs_info.cast::<SbInfo<T>>() };
        // SAFETY: A superblock's state is live until it is dropped below. Whether it has a file is
        // constant.
        let is_anon = private.is_null() || unsafe { (*private).source.is_some() };
        if !private.is_null() {
            // A mount does not wait for this to end, which may take as long as a device hangs.
            // SAFETY: The state is live.
            unsafe { (*private).given_at.store(0, Relaxed) };
            // SAFETY: The state is live. No file is open any more, so no read of the image begins.
            unsafe { bindings::wait_zero((&raw mut (*private).in_flight).cast()) };
        }
        if is_anon {
            // SAFETY: It is not on a block device: its device number is anonymous.
            unsafe { bindings::kill_anon_super(sb) };
        } else {
            // SAFETY: It is on a block device.
            unsafe { bindings::kill_block_super(sb) };
        }
        if private.is_null() {
            return;
        }
        // A mount that failed early had no `put_super`. As there, eviction may look at `info`.
        // SAFETY: The inodes are gone but for those that `info` holds, which look at `info` when
        // they are evicted: by the drop, after the borrow.
        let held = T::put_super(unsafe { &mut (*private).info });
        drop(held);
        // SAFETY: All inodes are gone, so nothing else looks at the state.
        unsafe { (*sb).s_fs_info = core::ptr::null_mut() };
        // SAFETY: It came from a box, and nothing has it any more.
        drop(unsafe { KBox::from_raw(private) });
    }
}
