// SPDX-License-Identifier: GPL-2.0

//! Inodes: the allocated object, shared references, and inodes under construction.

use core::{cell::UnsafeCell, ptr::NonNull};

use kernel::{
    bindings, ffi,
    prelude::*,
    sync::{
        aref::{ARef, AlwaysRefCounted},
        atomic::{Acquire, Atomic},
    },
    types::Opaque,
};

use super::{sharing::Sharing, FileSystem, Super, Tables};
use crate::{
    io::{memcg::CHARGED, CacheBytes},
    raw,
    share::Plain,
};

/// What the slab holds: the filesystem's part in front of the kernel's.
///
/// # Invariants
///
/// `inode` is initialised (`inode_init_once` at slab construction, then by the VFS). `data` is written
/// only by `alloc_inode` and while the inode is new; afterwards it is only read. `sharing` is null or
/// comes from `KBox::into_raw`; it changes once, from null, and is released with the inode.
#[repr(C)]
pub(super) struct Node<T: FileSystem> {
    data: UnsafeCell<Option<T::Inode>>,
    plain: Plain,
    sharing: Atomic<*mut Sharing>,
    inode: Opaque<bindings::inode>,
}

impl<T: FileSystem> Node<T> {
    /// # Safety
    ///
    /// `inode` must be one of a superblock of `T`, so that it lies in a `Node<T>`.
    unsafe fn of(inode: *mut bindings::inode) -> *mut Self {
        // SAFETY: By the function's safety requirements.
        unsafe { kernel::container_of!(Opaque::cast_from(inode), Node<T>, inode) }.cast_mut()
    }

    /// Slab constructor.
    ///
    /// # Safety
    ///
    /// `ptr` is memory for a `Node<T>`.
    pub(super) unsafe extern "C" fn init_once(ptr: *mut ffi::c_void) {
        // SAFETY: By the function's safety requirements.
        unsafe {
            bindings::inode_init_once(Opaque::cast_into(&raw const (*ptr.cast::<Self>()).inode))
        };
    }

    /// # Safety
    ///
    /// `super_operations::alloc_inode`: `sb` is a superblock of `T`.
    pub(super) unsafe extern "C" fn alloc(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: `sb` is a superblock of `T` whose type is registered.
        let cache = unsafe { super::registration::inode_cache::<T>((*sb).s_type) };
        // SAFETY: The cache has objects of the size of `Node<T>`.
        let node = unsafe { raw::erofs_shared_inode_alloc(sb, cache) }.cast::<Self>();
        if node.is_null() {
            return core::ptr::null_mut();
        }
        // SAFETY: A new object, exclusively ours.
        unsafe {
            (&raw mut (*node).data).write(UnsafeCell::new(None));
            (&raw mut (*node).plain).write(Plain::new());
            (&raw mut (*node).sharing).write(Atomic::new(core::ptr::null_mut()));
            Opaque::cast_into(&raw const (*node).inode)
        }
    }

    /// # Safety
    ///
    /// `super_operations::evict_inode`: nobody uses `inode` but those who still look it up by RCU.
    pub(super) unsafe extern "C" fn evict(inode: *mut bindings::inode) {
        // SAFETY: By the function's safety requirements. No file is open any more, so that nobody uses
        // `sharing`; dropping it may sleep, which is allowed here and not in `free`.
        unsafe {
            bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
            bindings::clear_inode(inode);
            Inode::<T>::from_raw(inode).evict_sharing();
            let sharing = (*Self::of(inode))
                .sharing
                .xchg(core::ptr::null_mut(), Acquire);
            if !sharing.is_null() {
                drop(KBox::from_raw(sharing));
            }
        }
    }

    /// # Safety
    ///
    /// `super_operations::free_inode`: nobody uses `inode` any more.
    pub(super) unsafe extern "C" fn free(inode: *mut bindings::inode) {
        // SAFETY: The inode is dead, so all its fields are ours. Only `NewInode::set_fast_link` sets
        // `i_link` on an inode of mode S_IFLNK, to memory of `kmemdup_nul`. The whole object came
        // from a slab, which `kfree` finds by itself.
        unsafe {
            if u32::from((*inode).i_mode) & bindings::S_IFMT == bindings::S_IFLNK {
                bindings::kfree((*inode).__bindgen_anon_5.i_link.cast());
            }
            bindings::kfree(Self::of(inode).cast());
        }
    }
}

/// An inode of a superblock of `T`.
///
/// # Invariants
///
/// Lies in a [`Node<T>`].
#[repr(transparent)]
pub(crate) struct Inode<T: FileSystem> {
    inode: Opaque<bindings::inode>,
    _fs: core::marker::PhantomData<T>,
}

/// An owned reference to an inode.
pub(crate) type InodeRef<T> = ARef<Inode<T>>;

// SAFETY: `ihold`/`iput` count references.
unsafe impl<T: FileSystem> AlwaysRefCounted for Inode<T> {
    fn inc_ref(&self) {
        // SAFETY: `self` is a live inode.
        unsafe { bindings::ihold(self.as_ptr()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::iput(obj.as_ref().as_ptr()) }
    }
}

// SAFETY: Inodes may be used and released from any thread.
unsafe impl<T: FileSystem> Send for Inode<T> {}
// SAFETY: Everything reachable through `&Inode` is constant after construction.
unsafe impl<T: FileSystem> Sync for Inode<T> {}

impl<T: FileSystem> Inode<T> {
    /// # Safety
    ///
    /// `inode` must be a live inode of a superblock of `T` for `'a`.
    pub(super) unsafe fn from_raw<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: By the function's safety requirements; the type is transparent.
        unsafe { &*inode.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.get()
    }

    /// The filesystem's part of it. `None` only for an inode whose construction failed.
    pub(crate) fn data(&self) -> Result<&T::Inode> {
        // SAFETY: By the type invariants this lies in a `Node<T>`, whose `data` does not change any
        // more once the inode can be reached through a shared reference outside of `NewInode`.
        unsafe { (*(*Node::<T>::of(self.as_ptr())).data.get()).as_ref() }.ok_or(EIO)
    }

    /// Its superblock.
    pub(crate) fn sb(&self) -> &Super<T> {
        // SAFETY: A live inode has a live superblock, which is one of `T`.
        unsafe { Super::from_raw((*self.as_ptr()).i_sb) }
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: Live inode; the size is constant after construction.
        unsafe { (*self.as_ptr()).i_size as u64 }
    }

    /// Its data through its page cache. Only regular files and directories have data that can be
    /// borrowed: there is none behind a device, a FIFO or a socket, and the VFS writes a NUL behind
    /// the target into the page of a symbolic link.
    ///
    /// # Errors
    ///
    /// `EFSCORRUPTED` for all others.
    pub(crate) fn bytes(&self) -> Result<CacheBytes<'_>> {
        if !matches!(
            self.mode() & bindings::S_IFMT,
            bindings::S_IFREG | bindings::S_IFDIR
        ) {
            return Err(EFSCORRUPTED);
        }
        let mapping = NonNull::new(self.own_mapping()).ok_or(EIO)?;
        // SAFETY: The mapping is the inode's own and lives as long as it. `publish` and
        // `internal_inode` gave it the operations of `Tables`, since the inode is a regular file or a
        // directory; nothing changes the type of an inode.
        Ok(unsafe { CacheBytes::new(mapping, self.size()) })
    }

    pub(super) fn mode(&self) -> u32 {
        // SAFETY: Live inode.
        u32::from(unsafe { (*self.as_ptr()).i_mode })
    }

    fn node(&self) -> &Node<T> {
        // SAFETY: By the type invariants this lies in a `Node<T>`.
        unsafe { &*Node::<T>::of(self.as_ptr()) }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        // SAFETY: Live inode; the number is constant.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// Its own page cache.
    pub(super) fn own_mapping(&self) -> *mut bindings::address_space {
        // SAFETY: Live inode. (`i_mapping` of this filesystem's inodes is always their own.)
        unsafe { &raw mut (*self.as_ptr()).i_data }
    }

    /// The mapping through which files may be read without more ado, if they have it.
    #[inline(always)]
    pub(super) fn plain_mapping(&self) -> *mut bindings::address_space {
        // Or it names what the inode holds anyway.
        self.plain().get()
    }

    /// Where that is said.
    #[inline(always)]
    pub(super) fn plain(&self) -> &Plain {
        &self.node().plain
    }

    /// Its state of sharing, if it has one.
    pub(super) fn sharing(&self) -> Option<&Sharing> {
        // SAFETY: By the type invariants of `Node` this is null, or stays until the inode is evicted,
        // which nobody with a reference to it sees.
        unsafe { self.node().sharing.load(Acquire).as_ref() }
    }

    /// Its state of sharing, made if it has none.
    pub(super) fn sharing_or_new(&self) -> Result<&Sharing> {
        if let Some(sharing) = self.sharing() {
            return Ok(sharing);
        }
        let new = KBox::pin_init(Sharing::new(), CHARGED)?;
        // SAFETY: It is not moved until it is dropped.
        let new = KBox::into_raw(unsafe { core::pin::Pin::into_inner_unchecked(new) });
        let slot = &self.node().sharing;
        if slot
            .cmpxchg(core::ptr::null_mut(), new, kernel::sync::atomic::Full)
            .is_err()
        {
            // SAFETY: Nobody else got to know it.
            drop(unsafe { KBox::from_raw(new) });
        }
        self.sharing().ok_or(EIO)
    }
}

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

/// An inode that is being read: locked (`I_NEW`), visible to nobody but waiters. Dropping it fails the
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

impl<T: FileSystem> Super<T> {
    /// The inode with number `ino`, which must be the same for the same file and differ between files.
    pub(crate) fn iget(&self, ino: u64) -> Result<Iget<T>> {
        // SAFETY: The superblock is live.
        let inode = unsafe { bindings::iget_locked(self.as_ptr(), ino) };
        let node = NonNull::new(inode).ok_or(ENOMEM)?.cast::<Inode<T>>();
        // SAFETY: `iget_locked` returned a live inode of this superblock.
        if unsafe { raw::erofs_shared_inode_is_new(inode) } {
            // INVARIANT: It is new, and the reference is ours.
            return Ok(Iget::New(NewInode(node)));
        }
        // SAFETY: The reference is ours; an `Inode<T>` is transparent over `inode`.
        Ok(Iget::Cached(unsafe { ARef::from_raw(node) }))
    }

    /// An inode outside of the namespace whose data is `size` bytes, mapped by `T::map`. `blkbits` is
    /// the unit in which its page cache is filled.
    pub(crate) fn internal_inode(
        &self,
        data: T::Inode,
        size: u64,
        blkbits: u8,
    ) -> Result<InodeRef<T>> {
        // SAFETY: The superblock is live.
        let inode = unsafe { bindings::new_inode(self.as_ptr()) };
        let node = NonNull::new(inode).ok_or(ENOMEM)?;
        // SAFETY: Nobody else knows the new inode; it lies in a `Node<T>`.
        unsafe {
            *(*Node::<T>::of(inode)).data.get() = Some(data);
            bindings::set_nlink(inode, 1);
            (*inode).i_mode = bindings::S_IFREG as u16;
            (*inode).i_size = size.min(i64::MAX as u64) as i64;
            (*inode).i_blkbits = blkbits;
            bindings::inode_nohighmem(inode);
            (*(*inode).i_mapping).a_ops = &Tables::<T>::ADDRESS_SPACE_OPS;
            Ok(ARef::from_raw(node.cast()))
        }
    }
}

impl<T: FileSystem> NewInode<T> {
    fn as_ptr(&self) -> *mut bindings::inode {
        self.0.as_ptr().cast()
    }

    /// Its superblock.
    pub(crate) fn sb(&self) -> &Super<T> {
        // SAFETY: A live inode has a live superblock of `T`.
        unsafe { Super::from_raw((*self.as_ptr()).i_sb) }
    }

    /// Allows the kernel to skip looking for ACLs.
    pub(crate) fn set_no_acl(&mut self) {
        // SAFETY: The inode is new and ours.
        unsafe { raw::erofs_shared_inode_no_acl(self.as_ptr()) }
    }

    /// Publishes the inode: sets its fields, its operations by file type, and unlocks it. `link` is a
    /// symbolic link's target if that is at hand.
    pub(crate) fn publish(
        self,
        fields: &Fields,
        data: T::Inode,
        link: Option<&[u8]>,
    ) -> Result<InodeRef<T>> {
        let inode = self.as_ptr();
        let kind = u32::from(fields.mode) & bindings::S_IFMT;
        let mut target = core::ptr::null_mut();
        if let (Some(link), bindings::S_IFLNK) = (link, kind) {
            // SAFETY: `link` is readable for its length.
            target = unsafe {
                bindings::kmemdup_nul(link.as_ptr().cast(), link.len(), bindings::GFP_KERNEL)
            };
            if target.is_null() {
                return Err(ENOMEM);
            }
        }
        // Nothing fails from here on, so that `target` has an owner.
        // SAFETY: The inode is new, so all its fields are ours to set.
        unsafe {
            *(*Node::<T>::of(inode)).data.get() = Some(data);
            (*inode).i_mode = fields.mode;
            raw::erofs_shared_inode_set_owner(inode, fields.uid, fields.gid);
            bindings::set_nlink(inode, fields.nlink);
            raw::erofs_shared_inode_set_times(inode, fields.mtime, fields.mtime_nsec);
            (*inode).i_size = fields.size.min(i64::MAX as u64) as i64;
            (*inode).i_blocks = fields.blocks;
            let mut has_data = true;
            match kind {
                bindings::S_IFREG => {
                    // Until the first open finds out, if the mount shares.
                    if !T::shares(self.sb().info()) {
                        (*Node::<T>::of(inode)).plain.set(&raw mut (*inode).i_data);
                    }
                    (*inode).i_op = &Tables::<T>::FILE_INODE_OPS;
                    (*inode).__bindgen_anon_3.i_fop = &Tables::<T>::FILE_OPS;
                }
                bindings::S_IFDIR => {
                    (*inode).i_op = &Tables::<T>::DIR_INODE_OPS;
                    (*inode).__bindgen_anon_3.i_fop = &Tables::<T>::DIR_OPS;
                    bindings::inode_nohighmem(inode);
                }
                bindings::S_IFLNK => {
                    if target.is_null() {
                        (*inode).i_op = &Tables::<T>::SYMLINK_INODE_OPS;
                    } else {
                        (*inode).i_op = &Tables::<T>::FAST_SYMLINK_INODE_OPS;
                        raw::erofs_shared_inode_set_link(inode, target, fields.size as i32);
                    }
                    bindings::inode_nohighmem(inode);
                }
                _ => {
                    (*inode).i_op = &Tables::<T>::FILE_INODE_OPS;
                    let rdev = match kind {
                        bindings::S_IFCHR | bindings::S_IFBLK => {
                            raw::erofs_shared_decode_dev(fields.rdev)
                        }
                        _ => 0,
                    };
                    bindings::init_special_inode(inode, fields.mode, rdev);
                    has_data = false;
                }
            }
            if has_data {
                raw::erofs_shared_mapping_set_large_folios((*inode).i_mapping);
                let this = Inode::<T>::from_raw(inode);
                (*(*inode).i_mapping).a_ops = if this.sb().is_block() && !T::is_encoded(this) {
                    &Tables::<T>::BLOCK_ASPACE_OPS
                } else {
                    &Tables::<T>::ADDRESS_SPACE_OPS
                };
            }
            bindings::unlock_new_inode(inode);
        }
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: The guard's reference passes on.
        Ok(unsafe { ARef::from_raw(this.0) })
    }
}

impl<T: FileSystem> Drop for NewInode<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is new and the reference ours.
        unsafe { bindings::iget_failed(self.as_ptr()) }
    }
}
