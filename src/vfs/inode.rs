// SPDX-License-Identifier: GPL-2.0

//! Inodes: the allocated object, and shared references to it.

use core::{cell::UnsafeCell, ptr::NonNull};

use kernel::{
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

use super::{state::Sharing, Mount, SuperBlock};
use crate::{
    bindings,
    compat::{code::EFSCORRUPTED, raw_init},
    io::{mapping::Mapping, CacheBytes},
    share::FastMapping,
};

/// What the slab holds: the filesystem's part in front of the kernel's.
///
/// # Invariants
///
/// `inode` is initialised (`inode_init_once` at slab construction, then by the VFS). `data` is
/// written only by `alloc_inode` and while the inode is new; afterwards it is only read. `sharing`
/// is initialised from `set_up` on, and not dropped: `free_sharing` frees what it has.
#[repr(C)]
pub(super) struct InodeSlot<T: Mount> {
    data: UnsafeCell<Option<T::Inode>>,
    fast: FastMapping,
    sharing: Sharing,
    inode: Opaque<bindings::inode>,
}

impl<T: Mount> InodeSlot<T> {
    /// Where the kernel's part is.
    pub(super) const INODE: usize = core::mem::offset_of!(Self, inode);

    /// # Safety
    ///
    /// * `inode` is one of a superblock of `T`, so that it lies in a `InodeSlot<T>`.
    pub(super) unsafe fn of(inode: *mut bindings::inode) -> *mut Self {
        // SAFETY: By this function's requirements `inode` is that of a `InodeSlot<T>`.
        unsafe { kernel::container_of!(Opaque::cast_from(inode), InodeSlot<T>, inode) }.cast_mut()
    }

    /// Initialises what is not the kernel's of a new object, and gives the kernel's part.
    ///
    /// # Safety
    ///
    /// * `node` is an object of the slab, on which [`InodeSlot::init_once`] was called.
    /// * It is the caller's alone.
    pub(super) unsafe fn set_up(node: *mut Self) -> *mut bindings::inode {
        // SAFETY: By this function's requirements the memory is valid and not used by others.
        unsafe {
            (&raw mut (*node).data).write(UnsafeCell::new(None));
            (&raw mut (*node).fast).write(FastMapping::new());
            raw_init(&raw mut (*node).sharing, Sharing::new());
            Opaque::cast_into(&raw const (*node).inode)
        }
    }

    /// Sets the filesystem's part.
    ///
    /// # Safety
    ///
    /// * `inode` is one of a superblock of `T`, and new.
    /// * No reference to its `data` exists.
    pub(super) unsafe fn set_data(inode: *mut bindings::inode, data: T::Inode) {
        // SAFETY: By this function's requirements the cell is the caller's alone.
        unsafe { *(*Self::of(inode)).data.get() = Some(data) };
    }

    /// Drops the filesystem's part, at the end of the object's life.
    ///
    /// # Safety
    ///
    /// * `node` is an object of the slab that was set up.
    /// * Nothing else uses it, nor will.
    pub(super) unsafe fn drop_data(node: *mut Self) {
        // SAFETY: By this function's requirements the cell is the caller's alone.
        drop(unsafe { (*node).data.get_mut() }.take());
    }

    /// Slab constructor.
    ///
    /// # Safety
    ///
    /// * `ptr` is memory for a `InodeSlot<T>`, and this call's alone.
    pub(super) unsafe extern "C" fn init_once(ptr: *mut c_void) {
        // SAFETY: By this function's requirements `ptr` is memory for a `InodeSlot<T>`.
        let inode = unsafe { &raw const (*ptr.cast::<Self>()).inode };
        // SAFETY: This is memory for an inode.
        unsafe { bindings::inode_init_once(Opaque::cast_into(inode)) };
    }
}

/// An inode of a superblock of `T`.
///
/// # Invariants
///
/// Lies in a [`InodeSlot<T>`].
#[repr(transparent)]
pub(crate) struct Inode<T: Mount> {
    inode: Opaque<bindings::inode>,
    _fs: core::marker::PhantomData<T>,
}

/// An owned reference to an inode.
pub(crate) type InodeRef<T> = ARef<Inode<T>>;

// SAFETY: `ihold`/`iput` count references.
unsafe impl<T: Mount> AlwaysRefCounted for Inode<T> {
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
unsafe impl<T: Mount> Send for Inode<T> {}
// SAFETY: Everything reachable through `&Inode` is constant after construction.
unsafe impl<T: Mount> Sync for Inode<T> {}

impl<T: Mount> Inode<T> {
    /// Returns the inode as one of `T`.
    ///
    /// # Safety
    ///
    /// * `inode` is one of a superblock of `T`.
    /// * It is live for `'a`.
    pub(super) unsafe fn from_raw<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: By this function's requirements the inode is live for `'a`; the type is
        // transparent.
        unsafe { &*inode.cast() }
    }

    /// Returns the inode that a mapping belongs to.
    ///
    /// # Safety
    ///
    /// * `mapping` is that of an inode of a superblock of `T`.
    /// * That inode is live for `'a`.
    pub(super) unsafe fn of_mapping<'a>(mapping: *mut bindings::address_space) -> &'a Self {
        // SAFETY: By this function's requirements `host` is such an inode.
        unsafe { Self::from_raw((*mapping).host) }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.get()
    }

    /// The filesystem's part of it. `None` only for an inode whose construction failed.
    pub(crate) fn data(&self) -> Result<&T::Inode> {
        // SAFETY: By the type invariants this lies in a `InodeSlot<T>`, whose `data` does not
        // change any more once the inode can be reached through a shared reference outside of
        // `NewInode`.
        unsafe { (*(*InodeSlot::<T>::of(self.as_ptr())).data.get()).as_ref() }.ok_or(EIO)
    }

    /// Its superblock.
    pub(crate) fn sb(&self) -> &SuperBlock<T> {
        // SAFETY: A live inode has a live superblock, which is one of `T`.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
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
        // SAFETY: `publish` and `internal_inode` gave the mapping the operations of `Tables`, since
        // the inode is a regular file or a directory; nothing changes the type of an inode.
        Ok(unsafe { CacheBytes::new(self.own_mapping(), self.size()) })
    }

    /// `i_mode`: its file type and permissions.
    pub(crate) fn mode(&self) -> u32 {
        // SAFETY: Live inode.
        u32::from(unsafe { (*self.as_ptr()).i_mode })
    }

    fn node(&self) -> &InodeSlot<T> {
        // SAFETY: By the type invariants this lies in a `InodeSlot<T>`, all fields of which may be
        // shared.
        unsafe { &*InodeSlot::<T>::of(self.as_ptr()) }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        // SAFETY: Live inode; the number is constant.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// Its own page cache.
    #[inline(always)]
    pub(super) fn own_mapping(&self) -> Mapping<'_> {
        // SAFETY: The mapping is a part of this inode. (`i_mapping` of this filesystem's inodes is
        // always their own.)
        unsafe { Mapping::from_raw(&raw mut (*self.as_ptr()).i_data) }
    }

    /// The mapping through which files may be read without further checks, if they have it.
    #[inline(always)]
    pub(super) fn fast_mapping_ptr(&self) -> *mut bindings::address_space {
        // Or it names what the inode holds anyway.
        self.fast_mapping().get()
    }

    /// Where that is said.
    #[inline(always)]
    pub(super) fn fast_mapping(&self) -> &FastMapping {
        &self.node().fast
    }

    /// Its state of sharing.
    pub(super) fn sharing(&self) -> &Sharing {
        &self.node().sharing
    }

    /// Frees what its state of sharing has, at the end of its life.
    ///
    /// # Safety
    ///
    /// * There is no reference to its bindings.
    /// * None is made any more.
    pub(super) unsafe fn free_sharing(&self) {
        // SAFETY: By this function's requirements there is no reference to them, and none is made.
        unsafe { self.sharing().free_slots() }
    }
}
