// SPDX-License-Identifier: GPL-2.0

//! The internal pseudo filesystem, which holds the shared inodes and cannot be mounted by users. A
//! wrapper module.

use core::{cell::UnsafeCell, mem::offset_of, ptr::NonNull};

use kernel::{
    error::{from_err_ptr, to_result},
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
    inode::SharedInodeSlot,
    merge::Merger,
    secret,
    shrinker::Shrinker,
};
use crate::{
    bindings, compat,
    io::inode_cache::InodeCache,
    params,
    race::race_point,
    stats::{Field, GLOBAL},
};

/// Magic number of the internal filesystem: "ersh".
const MAGIC: usize = 0x6572_7368;

/// The slab for shared inodes, while the module is loaded.
static CACHE: Atomic<*mut bindings::kmem_cache> = Atomic::new(core::ptr::null_mut());

/// The internal filesystem's superblock, while it is mounted.
static SUPER: Atomic<*mut bindings::super_block> = Atomic::new(core::ptr::null_mut());

impl SharedInodeSlot {
    /// Slab constructor.
    ///
    /// # Safety
    ///
    /// * `ptr` is memory for a `SharedInodeSlot`, and this call's alone.
    unsafe extern "C" fn init_once(ptr: *mut c_void) {
        // SAFETY: By this function's requirements `ptr` is memory for a `SharedInodeSlot`.
        let inode = unsafe { &raw const (*ptr.cast::<Self>()).inode };
        // SAFETY: This is memory for an inode.
        unsafe { bindings::inode_init_once(Opaque::cast_into(inode)) };
    }

    /// `super_operations::alloc_inode`
    ///
    /// # Safety
    ///
    /// * `sb` is the superblock of the internal filesystem.
    unsafe extern "C" fn alloc(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: The cache has objects of the size of `SharedInodeSlot`, and lives as long as the
        // superblock.
        let node = unsafe { bindings::inode_alloc(sb, CACHE.load(Relaxed)) }.cast::<Self>();
        if node.is_null() {
            return core::ptr::null_mut();
        }
        // SAFETY: A new object, exclusively ours, in which the inode lies.
        let inode = unsafe { Opaque::cast_into(&raw const (*node).inode) };
        let none = Identity {
            key: Key::none(),
            variant: 0,
            domain: [0; 16],
            verify: Verify::Digests,
        };
        // SAFETY: The object is new, exclusively ours, and does not move.
        unsafe {
            compat::raw_init((&raw mut (*node).content).cast(), Content::new());
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
        // SAFETY: The inode is being evicted, which begins with this.
        unsafe { bindings::truncate_inode_pages_final(&raw mut (*inode).i_data) };
        // SAFETY: The inode is being evicted, and its pages are gone.
        unsafe { bindings::clear_inode(inode) };
        // SAFETY: The inode is not new: `get` sets the mode, and leaves none behind that is.
        if !unsafe { is_regular(inode) } {
            return;
        }
        // SAFETY: The inode is allocated until `free`, and a regular file, hence a shared inode.
        let shared = unsafe { &*inode.cast::<Unheld>() };
        race_point!(c"evict_truncated");
        index::leave(shared);
        race_point!(c"evict_left");
        shared.end_aliases();
        // Without references and pages nothing is recorded or noted any more.
        let bytes = shared.content().bytes(shared.blocks());
        GLOBAL.sub(Field::MetadataBytes, bytes);
    }

    /// `super_operations::free_inode`
    ///
    /// # Safety
    ///
    /// * `inode` is one of the internal filesystem that `alloc` made.
    /// * Nothing uses it any more, not under RCU either.
    unsafe extern "C" fn free(inode: *mut bindings::inode) {
        // SAFETY: By this function's requirements the object is this call's.
        let node = unsafe { &mut *Self::of(inode) };
        // SAFETY: The content is initialised, and not used any more.
        unsafe { node.content.assume_init_drop() };
        // SAFETY: The whole object came from a slab, which `kfree` finds by itself.
        unsafe { bindings::kfree(core::ptr::from_mut(node).cast()) };
    }

    /// Whether an inode has this identity: the `test` of `iget5_locked`.
    ///
    /// # Safety
    ///
    /// * `inode` is one of the internal filesystem that `set` was called for.
    /// * `data` points to a `Wanted`.
    unsafe extern "C" fn test(inode: *mut bindings::inode, data: *mut c_void) -> c_int {
        // SAFETY: By this function's requirements `data` is a `Wanted`.
        let wanted = unsafe { &*data.cast::<Wanted<'_>>() };
        // SAFETY: `set` has written both before the inode was hashed.
        let (size, identity) = unsafe { ((*inode).i_size, *(*Self::of(inode)).identity.get()) };
        (size == wanted.size && identity == *wanted.identity).into()
    }

    /// Gives a new inode its identity: the `set` of `iget5_locked`.
    ///
    /// # Safety
    ///
    /// * `inode` is a new one of the internal filesystem, which nothing else uses yet.
    /// * `data` points to a `Wanted`.
    unsafe extern "C" fn set(inode: *mut bindings::inode, data: *mut c_void) -> c_int {
        // SAFETY: By this function's requirements `data` is a `Wanted`.
        let wanted = unsafe { &*data.cast::<Wanted<'_>>() };
        // SAFETY: By this function's requirements the inode is new.
        unsafe {
            (*inode).i_size = wanted.size;
            *(*Self::of(inode)).identity.get() = *wanted.identity;
        }
        0
    }
}

/// Which shared inode is wanted.
struct Wanted<'a> {
    identity: &'a Identity,
    /// As in `i_size`.
    size: i64,
}

impl SharedInode {
    /// The shared inode of an identity, for contents of `size` bytes; made if there is none. `aops`
    /// fill its page cache.
    ///
    /// # Errors
    ///
    /// * `EFBIG`: no file can have that size.
    /// * `ENOMEM`.
    pub(crate) fn get(
        identity: &Identity,
        size: u64,
        aops: &'static bindings::address_space_operations,
    ) -> Result<SharedRef> {
        let hash = identity.hash(size);
        let size = i64::try_from(size).map_err(|_| EFBIG)?;
        let mut wanted = Wanted { identity, size };
        let data = (&raw mut wanted).cast();
        let (sb, test, set) = (
            SUPER.load(Relaxed),
            SharedInodeSlot::test,
            SharedInodeSlot::set,
        );
        // SAFETY: The internal filesystem is mounted as long as the module has mounts. The
        // callbacks take a `Wanted`, and do not keep it.
        let inode = unsafe { bindings::iget5_locked(sb, hash, Some(test), Some(set), data) };
        let node = NonNull::new(inode).ok_or(ENOMEM)?.cast::<SharedInode>();
        // SAFETY: `iget5_locked` gave a live inode.
        if unsafe { bindings::inode_is_new(inode) } {
            // SAFETY: It is new, hence ours to set up.
            unsafe { set_up(inode, aops) };
        }
        // INVARIANT: Made by `SharedInodeSlot::alloc`, set up above.
        // SAFETY: The reference that came with the inode is ours.
        Ok(unsafe { ARef::from_raw(node) })
    }
}

/// Makes a new inode, which has its size, a shared inode, and unlocks it.
///
/// # Safety
///
/// * `inode` is an inode of the internal filesystem that is new (`I_NEW`).
/// * It is the caller's to set up: nothing else uses it.
unsafe fn set_up(inode: *mut bindings::inode, aops: &'static bindings::address_space_operations) {
    // SAFETY: By this function's requirements these fields are the caller's to set.
    unsafe {
        (*inode).i_ino = bindings::get_next_ino().into();
        (*inode).i_mode = (bindings::S_IFREG | 0o444) as u16;
        bindings::set_nlink(inode, 1);
    }
    // SAFETY: The same for the mapping, which is a part of the inode, and not in use yet.
    let mapping = unsafe { &mut *(*inode).i_mapping };
    mapping.a_ops = aops;
    // SAFETY: The mapping is the caller's to set up, and has no pages.
    unsafe { bindings::mapping_set_max_order(mapping, MAX_ORDER) };
    if params::charge_root() {
        // For good: what is in the page cache was counted by it.
        mapping.flags |= 1 << (bindings::AS_KERNEL_FILE as usize);
    }
    // SAFETY: The inode is new, and complete.
    unsafe { bindings::unlock_new_inode(inode) };
}

/// Whether an inode of the internal filesystem is a shared inode: all but the root directory are.
///
/// # Safety
///
/// * `inode` is one of the internal filesystem, and allocated.
/// * It is not new any more.
unsafe fn is_regular(inode: *mut bindings::inode) -> bool {
    // SAFETY: By this function's requirements the inode is allocated, and its mode constant.
    let mode = u32::from(unsafe { (*inode).i_mode });
    mode & bindings::S_IFMT == bindings::S_IFREG
}

/// Calls `f`, which may sleep, for each shared inode in memory.
pub(crate) fn for_each(f: &mut dyn FnMut(&SharedInode)) {
    /// Passes a shared inode on to the closure; called by `visit_inodes`.
    ///
    /// # Safety
    ///
    /// * `inode` is an inode of the internal filesystem that is not new, and to which there is a
    ///   reference during the call.
    /// * `data` points to a `&mut dyn FnMut(&SharedInode)` that is live, and used by nothing else
    ///   during the call.
    unsafe extern "C" fn visit(inode: *mut bindings::inode, data: *mut c_void) {
        // SAFETY: By this function's requirements it is not new any more.
        if !unsafe { is_regular(inode) } {
            return;
        }
        // SAFETY: By this function's requirements there is a reference to it for the call.
        let shared = unsafe { &*inode.cast::<SharedInode>() };
        // SAFETY: By this function's requirements `data` is that closure.
        let f = unsafe { &mut *data.cast::<&mut dyn FnMut(&SharedInode)>() };
        f(shared);
    }
    let sb = SUPER.load(Relaxed);
    if !sb.is_null() {
        let mut f = f;
        // SAFETY: The superblock is live: it goes after the files in sysfs and debugfs that ask for
        // this, and after the merge worker. `visit` gets what it asks for.
        unsafe { bindings::visit_inodes(sb, Some(visit), (&raw mut f).cast()) }
    }
}

/// Callbacks of the internal filesystem.
const SUPER_OPS: bindings::super_operations = bindings::super_operations {
    alloc_inode: Some(SharedInodeSlot::alloc),
    evict_inode: Some(SharedInodeSlot::evict),
    free_inode: Some(SharedInodeSlot::free),
    statfs: Some(bindings::simple_statfs),
    ..pin_init::zeroed()
};

/// A promoted constant, so that it has an address for good.
static SUPER_OPS_REF: &bindings::super_operations = &SUPER_OPS;

/// `file_system_type::init_fs_context`
///
/// # Safety
///
/// * `fc` is a new context, live, and used by this task alone.
unsafe extern "C" fn init_fs_context(fc: *mut kernel::bindings::fs_context) -> c_int {
    // SAFETY: By this function's requirements `fc` is a new context.
    let ctx = unsafe { bindings::init_pseudo(fc.cast(), MAGIC) };
    // SAFETY: It is live if there is one, and this task's to fill.
    let Some(ctx) = (unsafe { ctx.as_mut() }) else {
        return ENOMEM.to_errno();
    };
    ctx.ops = SUPER_OPS_REF;
    0
}

/// Gives the internal filesystem a backing device of its own: the kernel ignores `posix_fadvise`
/// and `readahead` where there is none. It reads nothing ahead by itself, so that a file that is
/// opened there takes the setting of its own device.
///
/// # Safety
///
/// * `sb` is live, and the caller's to set up.
/// * It has no backing device yet.
unsafe fn set_up_backing_device(sb: *mut bindings::super_block) -> Result {
    // SAFETY: By this function's requirements the superblock is live, and has no backing device
    // yet.
    to_result(unsafe { bindings::super_setup_bdi(sb) })?;
    // SAFETY: It has one now, which nothing else knows.
    unsafe { (*(*sb).s_bdi).ra_pages = 0 };
    Ok(())
}

/// The name of the internal filesystem.
const NAME: &[u8; 21] = b"erofs-shared-content\0";

/// A type with its name.
#[repr(C)]
struct NamedType {
    fst: Opaque<bindings::file_system_type>,
    name: [u8; NAME.len()],
}

/// Makes the type of the internal filesystem. It is not registered: nothing but this module mounts
/// it.
///
/// It is never freed, nor are its keys: sync(2) and others that walk all superblocks keep the
/// memory of one beyond its end, and look at its type when they let go of it. Of a registered type
/// the module has a reference until then; this one has no owner, since its mount would keep the
/// module from being unloaded, which unmounts it.
fn new_type() -> Result<&'static Opaque<bindings::file_system_type>> {
    let made = NamedType {
        fst: Opaque::new(bindings::file_system_type {
            init_fs_context: Some(init_fs_context),
            kill_sb: Some(bindings::kill_anon_super),
            owner: core::ptr::null_mut(),
            ..pin_init::zeroed()
        }),
        name: *NAME,
    };
    let NamedType { fst, name } = KBox::leak(KBox::new(made, GFP_KERNEL)?);
    // SAFETY: The type is new, and this task's.
    unsafe { (*fst.get()).name = name.as_ptr().cast() };
    // SAFETY: An allocation begins with the type, and stays.
    unsafe { bindings::fs_type_keep(fst.get()) };
    Ok(fst)
}

/// The mount of the internal filesystem.
///
/// # Invariants
///
/// It is live, and its inodes are of `_cache`, which nothing uses any more when it is unmounted.
struct Mounted {
    mnt: NonNull<bindings::vfsmount>,
    _cache: InodeCache,
}

// SAFETY: It is only ever dropped, which may happen on any thread.
unsafe impl Send for Mounted {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for Mounted {}

impl Mounted {
    /// Mounts it. Once in the life of the module.
    fn new() -> Result<Self> {
        let fst = new_type()?;
        let (size, init) = (size_of::<SharedInodeSlot>(), SharedInodeSlot::init_once);
        const { assert!(offset_of!(SharedInodeSlot, inode) >= size_of::<usize>()) };
        // SAFETY: The constructor is that of `SharedInodeSlot`, which has this size. It initialises
        // the inode, which is not first in it.
        let cache = unsafe { InodeCache::new(c"erofs_shared_content", size, init) }?;
        CACHE.store(cache.as_ptr().as_ptr(), Relaxed);
        // SAFETY: The type stays where it is.
        let mnt = from_err_ptr(unsafe { bindings::kern_mount(fst.get()) })?;
        // INVARIANT: Mounted just now, of this type. `SharedInodeSlot::alloc` takes inodes from the
        // cache.
        let this = Self {
            mnt: NonNull::new(mnt).ok_or(ENOMEM)?,
            _cache: cache,
        };
        let sb = this.superblock();
        // SAFETY: The superblock is live, and known to this task alone.
        unsafe { set_up_backing_device(sb) }?;
        SUPER.store(sb, Relaxed);
        Ok(this)
    }

    fn superblock(&self) -> *mut bindings::super_block {
        // SAFETY: The mount is live (type invariants), and its superblock constant.
        unsafe { (*self.mnt.as_ptr()).mnt_sb }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        SUPER.store(core::ptr::null_mut(), Relaxed);
        // SAFETY: The mount is this one's, and there is no reference to a shared inode any more.
        unsafe { bindings::kern_unmount(self.mnt.as_ptr()) };
        CACHE.store(core::ptr::null_mut(), Relaxed);
    }
}

/// The mounted internal filesystem. Dropping it releases all shared inodes and their pages; no real
/// inode may be bound to them any more.
pub(crate) struct PseudoFs {
    // Ends first: it holds shared inodes.
    _merger: Merger,
    _mount: Mounted,
    // These end last, in this order, when all shared inodes are gone.
    _disposal: Disposal,
    _shrinker: Shrinker,
    _index: Index,
}

impl PseudoFs {
    /// Mounts it. Once in the life of the module.
    pub(crate) fn mount() -> Result<Self> {
        secret::make();
        let index = Index::new()?;
        // SAFETY: `PseudoFs` drops the shrinker before the index, and so does an error here.
        let shrinker = unsafe { Shrinker::new(&index) }?;
        let disposal = Disposal::new();
        let mount = Mounted::new()?;
        Ok(Self {
            _merger: Merger::new(),
            _mount: mount,
            _disposal: disposal,
            _shrinker: shrinker,
            _index: index,
        })
    }
}
