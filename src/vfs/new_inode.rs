// SPDX-License-Identifier: GPL-2.0

//! Inodes under construction.

use core::ptr::NonNull;

use kernel::{prelude::*, sync::aref::ARef};

use super::{
    aops::AddressSpaceOps, dir::DirOps, file_ops::FileOps, inode::InodeSlot, inode_ops::InodeOps,
    FileSystem, Inode, InodeRef, SuperBlock,
};
use crate::bindings;

/// Type and permissions, sizes, times of a new inode.
pub(crate) struct Fields {
    /// `i_mode` with the file type.
    pub(crate) mode: u16,
    /// Raw user id.
    pub(crate) uid: u32,
    /// Raw group id.
    pub(crate) gid: u32,
    /// Link count.
    pub(crate) nlink: u32,
    /// Size in bytes.
    pub(crate) size: u64,
    /// 512-byte units allocated.
    pub(crate) blocks: u64,
    /// Seconds since the epoch.
    pub(crate) mtime: i64,
    /// Nanoseconds, below 1e9.
    pub(crate) mtime_nsec: u32,
    /// Device number in `new_encode_dev` form, for device nodes.
    pub(crate) rdev: u32,
}

impl Fields {
    /// The file type, `S_IF*`.
    fn kind(&self) -> u32 {
        u32::from(self.mode) & bindings::S_IFMT
    }
}

/// An inode that is being read: locked (`I_NEW`), visible to waiters only. Dropping it fails the
/// inode, waking the waiters with an error.
///
/// # Invariants
///
/// The inode is `I_NEW` and this owns a reference.
pub(crate) struct NewInode<T: FileSystem>(NonNull<Inode<T>>);

/// What `iget` found.
pub(crate) enum Iget<T: FileSystem> {
    /// Already in memory.
    Cached(InodeRef<T>),
    /// To be read.
    New(NewInode<T>),
}

impl<T: FileSystem> SuperBlock<T> {
    /// The inode with number `ino`, which must be the same for the same file and differ between
    /// files.
    pub(crate) fn iget(&self, ino: u64) -> Result<Iget<T>> {
        // SAFETY: The superblock is live.
        let inode = unsafe { bindings::iget_locked(self.as_ptr(), ino) };
        let node = NonNull::new(inode).ok_or(ENOMEM)?.cast::<Inode<T>>();
        // SAFETY: `iget_locked` returned a live inode of this superblock.
        if unsafe { bindings::inode_is_new(inode) } {
            // INVARIANT: It is new, and the reference is ours.
            return Ok(Iget::New(NewInode(node)));
        }
        // SAFETY: The reference is ours; an `Inode<T>` is transparent over `inode`.
        Ok(Iget::Cached(unsafe { ARef::from_raw(node) }))
    }

    /// An inode outside of the namespace whose data is `size` bytes, mapped by `T::map`. `blkbits`
    /// is the unit in which its page cache is filled.
    pub(crate) fn internal_inode(
        &self,
        data: T::Inode,
        size: u64,
        blkbits: u8,
    ) -> Result<InodeRef<T>> {
        // SAFETY: The superblock is live.
        let inode = unsafe { bindings::new_inode(self.as_ptr()) };
        let node = NonNull::new(inode).ok_or(ENOMEM)?;
        // SAFETY: The inode is new, and known to this task alone.
        unsafe { InodeSlot::<T>::set_data(inode, data) };
        // SAFETY: The same: all fields are this task's to set. It lies in a `InodeSlot<T>`, and the
        // reference is ours.
        unsafe {
            bindings::set_nlink(inode, 1);
            (*inode).i_mode = bindings::S_IFREG as u16;
            (*inode).i_size = size.min(i64::MAX as u64) as i64;
            (*inode).i_blkbits = blkbits;
            bindings::inode_nohighmem(inode);
            (*(*inode).i_mapping).a_ops = &AddressSpaceOps::<T>::TABLE;
            Ok(ARef::from_raw(node.cast()))
        }
    }
}

impl<T: FileSystem> NewInode<T> {
    fn as_ptr(&self) -> *mut bindings::inode {
        self.0.as_ptr().cast()
    }

    /// Its superblock.
    pub(crate) fn sb(&self) -> &SuperBlock<T> {
        // SAFETY: A live inode has a live superblock of `T`.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }

    /// Allows the kernel to skip looking for ACLs.
    pub(crate) fn set_no_acl(&mut self) {
        // SAFETY: The inode is new and ours.
        unsafe { bindings::inode_no_acl(self.as_ptr()) }
    }

    /// Publishes the inode: sets its fields, its operations by file type, and unlocks it. `link` is
    /// a symbolic link's target if that is at hand.
    pub(crate) fn publish(
        mut self,
        fields: &Fields,
        data: T::Inode,
        link: Option<&[u8]>,
    ) -> Result<InodeRef<T>> {
        let target = match link {
            Some(link) if fields.kind() == bindings::S_IFLNK => {
                let (text, len, gfp) = (link.as_ptr().cast(), link.len(), bindings::GFP_KERNEL);
                // SAFETY: `link` is readable for its length.
                let copy = unsafe { bindings::kmemdup_nul(text, len, gfp) };
                Some(NonNull::new(copy).ok_or(ENOMEM)?)
            }
            _ => None,
        };
        // Nothing fails from here on, so that `target` has an owner.
        self.set_fields(fields, data);
        let has_data = self.set_operations(fields, target);
        if has_data {
            self.set_data_operations();
        }
        // SAFETY: The inode is new, and complete.
        unsafe { bindings::unlock_new_inode(self.as_ptr()) };
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: The guard's reference passes on.
        Ok(unsafe { ARef::from_raw(this.0) })
    }

    /// The inode, as shared references see it.
    fn inode(&self) -> &Inode<T> {
        // SAFETY: By the type invariants this owns a reference, so that the inode is live as long
        // as this.
        unsafe { self.0.as_ref() }
    }

    /// Sets what the image says of the inode itself.
    fn set_fields(&mut self, fields: &Fields, data: T::Inode) {
        let inode = self.as_ptr();
        // SAFETY: By the type invariants the inode is new. `data()` is not called before this.
        unsafe { InodeSlot::<T>::set_data(inode, data) };
        // SAFETY: The inode is new, so that these fields are this task's to set.
        unsafe {
            (*inode).i_mode = fields.mode;
            (*inode).i_size = fields.size.min(i64::MAX as u64) as i64;
            (*inode).i_blocks = fields.blocks;
        }
        // SAFETY: The inode is new, so that what this sets is this task's to set.
        unsafe { bindings::set_nlink(inode, fields.nlink) };
        let ((uid, gid), (sec, nsec)) =
            ((fields.uid, fields.gid), (fields.mtime, fields.mtime_nsec));
        // SAFETY: The inode is new, so that what this sets is this task's to set.
        unsafe { bindings::inode_set_owner_and_times(inode, uid, gid, sec, nsec) };
    }

    /// Sets the operations by file type, and what goes with them. `target` is the target of a
    /// symbolic link that has it in memory; the inode owns that from now on. Tells whether there
    /// may be data.
    fn set_operations(&mut self, fields: &Fields, target: Option<NonNull<c_char>>) -> bool {
        let inode = self.as_ptr();
        let ops = match (fields.kind(), target) {
            (bindings::S_IFDIR, _) => &InodeOps::<T>::DIR,
            (bindings::S_IFLNK, None) => &InodeOps::<T>::SYMLINK,
            (bindings::S_IFLNK, Some(_)) => &InodeOps::<T>::FAST_SYMLINK,
            _ => &InodeOps::<T>::FILE,
        };
        // SAFETY: The inode is new, so that this field is this task's to set.
        unsafe { (*inode).i_op = ops };
        match fields.kind() {
            bindings::S_IFREG => {
                // Until the first open finds out, if the mount shares.
                if !T::shares(self.sb().info()) {
                    let own = self.inode().own_mapping().as_ptr();
                    self.inode().fast_mapping().set(own);
                }
                self.set_file_operations(&FileOps::<T>::TABLE);
                return true;
            }
            bindings::S_IFDIR => self.set_file_operations(&DirOps::<T>::TABLE),
            bindings::S_IFLNK => {
                if let Some(target) = target {
                    let (target, len) = (target.as_ptr(), fields.size as i32);
                    // SAFETY: The inode is new, and `target` is NUL-terminated.
                    unsafe { bindings::inode_set_link(inode, target, len) };
                }
            }
            kind => {
                let is_device = matches!(kind, bindings::S_IFCHR | bindings::S_IFBLK);
                let rdev = if is_device { fields.rdev } else { 0 };
                // SAFETY: Decoding a number has no preconditions; 0 is no device.
                let rdev = unsafe { bindings::decode_dev(rdev) };
                // SAFETY: The inode is new.
                unsafe { bindings::init_special_inode(inode, fields.mode, rdev) };
                return false;
            }
        }
        // SAFETY: The inode is new. Its pages are looked at through their addresses.
        unsafe { bindings::inode_nohighmem(inode) };
        true
    }

    fn set_file_operations(&mut self, ops: &'static bindings::file_operations) {
        // SAFETY: The inode is new, so that this field is this task's to set.
        unsafe { (*self.as_ptr()).__bindgen_anon_3.i_fop = ops };
    }

    /// Sets how the page cache is filled.
    fn set_data_operations(&mut self) {
        let ops = if self.sb().is_block() && !T::is_compressed(self.inode()) {
            &AddressSpaceOps::<T>::BLOCK
        } else {
            &AddressSpaceOps::<T>::TABLE
        };
        let mapping = self.inode().own_mapping().as_ptr();
        // SAFETY: The inode is new, so that its mapping, which `i_mapping` points to, is this
        // task's to set up.
        unsafe { bindings::mapping_set_large_folios(mapping) };
        // SAFETY: The inode is new, so that this field is this task's to set.
        unsafe { (*mapping).a_ops = ops };
    }
}

impl<T: FileSystem> Drop for NewInode<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is new. This gives up the reference, which is
        // ours.
        unsafe { bindings::iget_failed(self.as_ptr()) }
    }
}
