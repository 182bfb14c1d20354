// SPDX-License-Identifier: GPL-2.0

//! The internal pseudo filesystem, which holds the shared inodes and cannot be mounted by users. A
//! wrapper module.

use core::{cell::UnsafeCell, ptr::NonNull};

use kernel::{
    bindings, ffi,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
    },
    types::Opaque,
};

use super::{
    chunks::Disposal,
    content::{Content, Identity, Verify},
    digest::Key,
    handle::{SharedInode, SharedRef, Unheld, MAX_ORDER},
    index::{self, Index},
    inode::Node,
    merge::Merger,
    plain::Mark,
    secret,
    shrinker::Shrinker,
};
use crate::{
    compat, params,
    race::race_point,
    raw,
    stats::{Field, GLOBAL},
};

/// Magic number of the internal filesystem: "ersh".
const MAGIC: usize = 0x6572_7368;

/// The slab for shared inodes, while the module is loaded.
static CACHE: Atomic<*mut bindings::kmem_cache> = Atomic::new(core::ptr::null_mut());

/// The internal filesystem's superblock, while it is mounted.
static SUPER: Atomic<*mut bindings::super_block> = Atomic::new(core::ptr::null_mut());

impl Node {
    /// # Safety
    ///
    /// Slab constructor: `ptr` is memory for a `Node`.
    unsafe extern "C" fn init_once(ptr: *mut ffi::c_void) {
        // SAFETY: By this function's requirements `ptr` is memory for a `Node`, so this is memory
        // for an inode.
        unsafe {
            bindings::inode_init_once(Opaque::cast_into(&raw const (*ptr.cast::<Self>()).inode))
        };
    }

    /// # Safety
    ///
    /// `super_operations::alloc_inode` of the internal filesystem.
    unsafe extern "C" fn alloc(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: The cache has objects of the size of `Node`, and lives as long as the superblock.
        let node = unsafe { raw::erofs_shared_inode_alloc(sb, CACHE.load(Relaxed)) }.cast::<Self>();
        if node.is_null() {
            return core::ptr::null_mut();
        }
        // SAFETY: A new object, exclusively ours, in which the inode lies.
        let inode = unsafe { Opaque::cast_into(&raw const (*node).inode) };
        // SAFETY: The content, which has this, is dropped before the inode's memory is freed.
        // Nothing else writes the word of the mark.
        let mark = unsafe { Mark::of(inode) };
        let none = Identity {
            key: Key::none(),
            variant: 0,
            size: 0,
            domain: [0; 16],
            verify: Verify::Digests,
        };
        // SAFETY: The object is new, exclusively ours, and does not move.
        unsafe {
            compat::raw_init((&raw mut (*node).content).cast(), Content::new(mark));
            (&raw mut (*node).identity).write(UnsafeCell::new(none));
        }
        inode
    }

    /// `super_operations::evict_inode`
    ///
    /// # Safety
    ///
    /// * `inode` is one of the internal filesystem, and has no references any more.
    /// * It is used by those that find it in the index only.
    unsafe extern "C" fn evict(inode: *mut bindings::inode) {
        // SAFETY: The inode is being evicted, which begins with these two calls.
        unsafe {
            bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
            bindings::clear_inode(inode);
        }
        // SAFETY: The inode is not new: `get` sets the mode, and leaves none behind that is.
        if !unsafe { is_regular(inode) } {
            return;
        }
        // SAFETY: The inode is allocated until `free`, and a regular file, hence a shared inode.
        let shared = unsafe { &*inode.cast::<Unheld>() };
        race_point!(c"evict_truncated");
        index::leave(shared);
        race_point!(c"evict_left");
        shared.content().end_aliases();
    }

    /// # Safety
    ///
    /// `super_operations::free_inode`: `inode` is not used any more.
    unsafe extern "C" fn free(inode: *mut bindings::inode) {
        // SAFETY: By the type invariants the content is initialised, and not used by others.
        unsafe {
            let node = Self::of(inode);
            let content = (*node).content.as_mut_ptr();
            GLOBAL.sub(Field::MetadataBytes, (*content).bytes());
            core::ptr::drop_in_place(content);
            bindings::kfree(node.cast());
        }
    }

    /// # Safety
    ///
    /// Callback of `iget5_locked` on the internal filesystem; `data` is an `Identity`.
    unsafe extern "C" fn test(inode: *mut bindings::inode, data: *mut ffi::c_void) -> ffi::c_int {
        // SAFETY: By the function's safety requirements; `set` ran before the inode was hashed.
        let same = unsafe { *(*Self::of(inode)).identity.get() == *data.cast::<Identity>() };
        same.into()
    }

    /// # Safety
    ///
    /// As for `test`; the inode is new.
    unsafe extern "C" fn set(inode: *mut bindings::inode, data: *mut ffi::c_void) -> ffi::c_int {
        // SAFETY: By this function's requirements the inode is new, and `data` is an `Identity`.
        unsafe { *(*Self::of(inode)).identity.get() = *data.cast::<Identity>() };
        0
    }
}

impl SharedInode {
    /// The shared inode of an identity; made if there is none. `aops` fill its page cache.
    pub(crate) fn get(
        identity: &Identity,
        aops: &'static bindings::address_space_operations,
    ) -> Result<SharedRef> {
        let hash = identity
            .key
            .hash()
            .wrapping_add(u64::from(identity.variant));
        // SAFETY: The internal filesystem is mounted as long as the module has mounts. The
        // callbacks take an `Identity`, and do not keep it.
        let inode = unsafe {
            bindings::iget5_locked(
                SUPER.load(Relaxed),
                hash,
                Some(Node::test),
                Some(Node::set),
                core::ptr::from_ref(identity).cast_mut().cast(),
            )
        };
        let node = NonNull::new(inode).ok_or(ENOMEM)?.cast::<SharedInode>();
        // SAFETY: `iget5_locked` gave a live inode.
        if unsafe { raw::erofs_shared_inode_is_new(inode) } {
            // SAFETY: It is new, hence ours to set up.
            unsafe { set_up(inode, identity.size, aops) };
        }
        // INVARIANT: Made by `Node::alloc`, set up above.
        // SAFETY: The reference that came with the inode is ours.
        Ok(unsafe { ARef::from_raw(node) })
    }
}

/// Makes a new inode a shared inode for `size` bytes, and unlocks it.
///
/// # Safety
///
/// `inode` is new (`I_NEW`), and the caller's to set up.
unsafe fn set_up(
    inode: *mut bindings::inode,
    size: u64,
    aops: &'static bindings::address_space_operations,
) {
    // SAFETY: By this function's requirements these fields are the caller's to set.
    unsafe {
        (*inode).i_ino = bindings::get_next_ino().into();
        (*inode).i_mode = (bindings::S_IFREG | 0o444) as u16;
        bindings::set_nlink(inode, 1);
        (*inode).i_size = size.min(i64::MAX as u64) as i64;
    }
    // SAFETY: The same for the mapping, which is a part of the inode.
    unsafe {
        let mapping = (*inode).i_mapping;
        (*mapping).a_ops = aops;
        raw::erofs_shared_mapping_set_max_order(mapping, MAX_ORDER);
        if params::charge_root() {
            // For good: what is in the page cache was counted by it.
            (*mapping).flags |= 1 << (raw::EROFS_SHARED_AS_KERNEL_FILE as usize);
        }
    }
    // SAFETY: The inode is new, and complete.
    unsafe { bindings::unlock_new_inode(inode) };
}

/// Whether an inode of the internal filesystem is a shared inode: all but the root directory are.
///
/// # Safety
///
/// `inode` is one of the internal filesystem that is not new any more.
unsafe fn is_regular(inode: *mut bindings::inode) -> bool {
    // SAFETY: By the function's safety requirements; the mode is constant.
    unsafe { u32::from((*inode).i_mode) & bindings::S_IFMT == bindings::S_IFREG }
}

/// Calls `f`, which may sleep, for each shared inode in memory.
pub(crate) fn for_each(f: &mut dyn FnMut(&SharedInode)) {
    /// # Safety
    ///
    /// `inode` is an inode of the internal filesystem that is not new, and to which there is a
    /// reference; `data` is a `&mut dyn FnMut(&SharedInode)`.
    unsafe extern "C" fn visit(inode: *mut bindings::inode, data: *mut ffi::c_void) {
        // SAFETY: By this function's requirements the inode is live for the call, and `data` is
        // that closure.
        unsafe {
            if is_regular(inode) {
                // INVARIANT: The reference is there for the call.
                (*data.cast::<&mut dyn FnMut(&SharedInode)>())(&*inode.cast::<SharedInode>())
            }
        }
    }
    let sb = SUPER.load(Relaxed);
    if !sb.is_null() {
        let mut f = f;
        // SAFETY: The superblock is live: it goes after the files in sysfs and debugfs that ask for
        // this, and after the merge worker. `visit` gets what it asks for.
        unsafe { raw::erofs_shared_visit_inodes(sb, Some(visit), (&raw mut f).cast()) }
    }
}

/// The mounted internal filesystem. Dropping it releases all shared inodes and their pages; no real
/// inode may be bound to them any more.
pub(crate) struct PseudoFs {
    fst: NonNull<Opaque<bindings::file_system_type>>,
    mnt: NonNull<bindings::vfsmount>,
    cache: NonNull<bindings::kmem_cache>,
    // Ends first: it holds shared inodes.
    merger: Option<Merger>,
    // These end last, in this order, when all shared inodes are gone.
    _disposal: Disposal,
    _shrinker: Shrinker,
    _index: Index,
}

// SAFETY: It is only ever dropped, which may happen on any thread.
unsafe impl Send for PseudoFs {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for PseudoFs {}

/// Callbacks of the internal filesystem.
const SUPER_OPS: bindings::super_operations = bindings::super_operations {
    alloc_inode: Some(Node::alloc),
    evict_inode: Some(Node::evict),
    free_inode: Some(Node::free),
    statfs: Some(bindings::simple_statfs),
    ..pin_init::zeroed()
};

/// A promoted constant, so that it has an address for good.
static SUPER_OPS_REF: &bindings::super_operations = &SUPER_OPS;

/// # Safety
///
/// `file_system_type::init_fs_context`
unsafe extern "C" fn init_fs_context(fc: *mut bindings::fs_context) -> ffi::c_int {
    // SAFETY: `fc` is valid; `init_pseudo` returns a context of which the operations may be set.
    unsafe {
        let ctx = raw::init_pseudo(fc.cast(), MAGIC);
        if ctx.is_null() {
            return ENOMEM.to_errno();
        }
        (*ctx).ops = SUPER_OPS_REF;
    }
    0
}

impl PseudoFs {
    /// Mounts it. Once in the life of the module.
    pub(crate) fn mount() -> Result<Self> {
        secret::make();
        let index = Index::new()?;
        // SAFETY: `PseudoFs` drops the shrinker before the index, and so does an error here.
        let shrinker = unsafe { Shrinker::new(&index) }?;
        let disposal = Disposal::new();
        // SAFETY: The name is NUL-terminated, the constructor fits the objects.
        let cache = unsafe {
            raw::erofs_shared_inode_cache_create(
                c"erofs_shared_content".as_char_ptr(),
                core::mem::size_of::<Node>() as u32,
                Some(Node::init_once),
            )
        };
        let cache = NonNull::new(cache).ok_or(ENOMEM)?;
        CACHE.store(cache.as_ptr(), Relaxed);
        match Self::mount_with() {
            Ok((fst, mnt)) => Ok(Self {
                fst,
                mnt,
                cache,
                merger: Some(Merger::new()),
                _disposal: disposal,
                _shrinker: shrinker,
                _index: index,
            }),
            Err(err) => {
                // SAFETY: The cache has no objects: the root directory, should it have been made,
                // is freed after a grace period, which `rcu_barrier` waits for.
                unsafe {
                    bindings::rcu_barrier();
                    bindings::kmem_cache_destroy(cache.as_ptr());
                }
                Err(err)
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn mount_with() -> Result<(
        NonNull<Opaque<bindings::file_system_type>>,
        NonNull<bindings::vfsmount>,
    )> {
        let fst = KBox::new(
            Opaque::new(bindings::file_system_type {
                name: c"erofs-shared-content".as_char_ptr(),
                init_fs_context: Some(init_fs_context),
                kill_sb: Some(bindings::kill_anon_super),
                // No owner: its mount would keep the module from being unloaded, which unmounts it.
                owner: core::ptr::null_mut(),
                ..pin_init::zeroed()
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The type stays where it is until the mount is gone.
        let mnt = kernel::error::from_err_ptr(unsafe {
            raw::erofs_shared_fs_type_register_keys(fst.get());
            bindings::kern_mount(fst.get())
        });
        // SAFETY: Nothing uses the type.
        let mnt = mnt.inspect_err(|_| unsafe {
            raw::erofs_shared_fs_type_unregister_keys(fst.get());
        })?;
        let mnt = NonNull::new(mnt).ok_or(ENOMEM)?;
        // SAFETY: A live mount.
        let sb = unsafe { (*mnt.as_ptr()).mnt_sb };
        // SAFETY: A live superblock, which is known to this task alone.
        if let Err(err) = unsafe { set_up_backing_device(sb) } {
            // SAFETY: The mount is ours, and the type is not used after it.
            unsafe {
                bindings::kern_unmount(mnt.as_ptr());
                raw::erofs_shared_fs_type_unregister_keys(fst.get());
            }
            return Err(err);
        }
        SUPER.store(sb, Relaxed);
        Ok((NonNull::from(KBox::leak(fst)), mnt))
    }
}

/// Gives the internal filesystem a backing device of its own: the kernel ignores `posix_fadvise`
/// and `readahead` where there is none. It reads nothing ahead by itself, so that a file that is
/// opened there takes the setting of its own device.
///
/// # Safety
///
/// `sb` is live and has no backing device yet.
unsafe fn set_up_backing_device(sb: *mut bindings::super_block) -> Result {
    // SAFETY: By this function's requirements the superblock is live, and has no backing device
    // yet.
    unsafe {
        kernel::error::to_result(bindings::super_setup_bdi(sb))?;
        (*(*sb).s_bdi).ra_pages = 0;
    }
    Ok(())
}

impl Drop for PseudoFs {
    fn drop(&mut self) {
        self.merger = None;
        SUPER.store(core::ptr::null_mut(), Relaxed);
        // SAFETY: The mount and the type are ours, made by `mount`. There is no reference to a
        // shared inode any more. Inodes are freed after a grace period, which `rcu_barrier` waits
        // for before the slab goes.
        unsafe {
            bindings::kern_unmount(self.mnt.as_ptr());
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(self.cache.as_ptr());
            raw::erofs_shared_fs_type_unregister_keys(self.fst.as_ref().get());
            drop(KBox::from_raw(self.fst.as_ptr()));
        }
        CACHE.store(core::ptr::null_mut(), Relaxed);
    }
}
