// SPDX-License-Identifier: GPL-2.0

//! What an image lies on: block devices and regular files.

use core::ptr::NonNull;

use kernel::{
    error::{from_err_ptr, to_result},
    fs::File,
    prelude::*,
    sync::aref::ARef,
};

use crate::bindings;

/// An opened place that holds image data.
pub(crate) struct Device {
    backing: Backing,
    /// Size in bytes when it was opened, less `offset`.
    bytes: u64,
    /// Where the image starts, in bytes (`fsoffset=`).
    offset: u64,
}

/// # Invariants
///
/// `SuperBlock`: the pointer is the superblock's own `s_bdev`, which stays open as long as the
/// superblock (and so the `Device`, which is a part of it) lives. `Claimed`: `file` was opened by
/// `fs_bdev_file_open_by_path` for `sb`, and is released once, on drop, while `sb` is still
/// allocated.
enum Backing {
    SuperBlock(NonNull<bindings::block_device>),
    Claimed {
        file: NonNull<bindings::file>,
        sb: NonNull<bindings::super_block>,
    },
    File(ARef<File>),
}

// SAFETY: All pointers are to reference-counted or superblock-owned kernel objects that may be used
// from any thread.
unsafe impl Send for Device {}
// SAFETY: As for `Send`; all methods that take `&self` only read.
unsafe impl Sync for Device {}

/// A superblock that owns the devices opened for it.
///
/// # Invariants
///
/// The superblock stays allocated until what was made with this is dropped, or used for the last
/// time: that is a part of its `s_fs_info`, which `kill_sb` drops.
#[derive(Clone, Copy)]
pub(crate) struct SuperPtr(NonNull<bindings::super_block>);

// SAFETY: By the type invariants the superblock is there; what is done with it is its user's to
// argue.
unsafe impl Send for SuperPtr {}
// SAFETY: A shared reference gives no more than the pointer, whose user argues for what it does.
unsafe impl Sync for SuperPtr {}

impl SuperPtr {
    /// # Safety
    ///
    /// * `sb` is a superblock.
    /// * It is allocated until the devices that are opened with the result are dropped.
    pub(crate) unsafe fn new(sb: NonNull<bindings::super_block>) -> Self {
        // INVARIANT: By this function's requirements the superblock outlives the devices.
        Self(sb)
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::super_block {
        self.0.as_ptr()
    }
}

/// Why no image can be read from a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not regular.
    Kind,
    /// It has no page cache that can be read into.
    NoReadFolio,
    /// It lies on a stacked filesystem, or in an erofs image that is a file itself.
    Stacked,
}

impl kernel::fmt::Display for Unusable {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        f.write_str(match self {
            Unusable::Kind => "the source is neither a block device nor a regular file",
            Unusable::NoReadFolio => {
                "the source's filesystem has no ->read_folio: use a loop device"
            }
            Unusable::Stacked => {
                "the source lies on a stacked filesystem or on another image file: use a loop device"
            }
        })
    }
}

/// `Ok` if images can be read from this file: regular, with a page cache that can be read into or
/// on tmpfs, and neither on a stacked filesystem nor in an erofs image that is a file itself.
///
/// That bounds how deep reads nest, since a mount of a file does not count in `s_stack_depth`: of
/// all filesystems with this magic number, the in-tree erofs among them, one at most is in a file.
/// (In-tree has the same rule for itself, so that it may be above or below this one, once.)
pub(crate) fn usable_file(file: &File) -> Result<(), Unusable> {
    let file = file.as_ptr();
    // SAFETY: A live `File` has an inode, and that a superblock.
    let (inode, sb) = unsafe { ((*file).f_inode, (*(*file).f_inode).i_sb) };
    // SAFETY: The inode is live, and its type constant.
    let mode = unsafe { (*inode).i_mode };
    // SAFETY: The file has a mapping with operations.
    let has_read_folio = unsafe { (*(*(*file).f_mapping).a_ops).read_folio }.is_some();
    // SAFETY: The superblock is live; these fields are constant.
    let (depth, magic) = unsafe { ((*sb).s_stack_depth, (*sb).s_magic as u32) };
    // SAFETY: The superblock is live; the field is constant.
    let on_bdev = !unsafe { (*sb).s_bdev }.is_null();
    if u32::from(mode) & bindings::S_IFMT != bindings::S_IFREG {
        return Err(Unusable::Kind);
    }
    if !has_read_folio && magic != bindings::TMPFS_MAGIC {
        return Err(Unusable::NoReadFolio);
    }
    if depth != 0 || (magic == crate::format::superblock::SUPER_MAGIC && !on_bdev) {
        return Err(Unusable::Stacked);
    }
    Ok(())
}

/// Opens a file to read an image from, with the credentials of the caller.
pub(crate) fn open_file(path: &CStr) -> Result<ARef<File>> {
    let flags = (bindings::O_RDONLY | bindings::O_LARGEFILE) as i32;
    // SAFETY: `path` is NUL-terminated.
    let file = from_err_ptr(unsafe { bindings::filp_open(path.as_char_ptr(), flags, 0) })?;
    let file = NonNull::new(file).ok_or(EIO)?;
    // SAFETY: `filp_open` returned an owned reference; the file was not opened through a
    // descriptor, so no light references (`fdget_pos`) exist.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// Which state of which file was opened. Two are equal if both are of the same inode and nothing
/// wrote to it between; none is equal to that of a file that could be written to without a trace
/// then. One of them must have its file still: an inode's address is used again.
pub(crate) struct FileState(bindings::erofs_shared_file_state);

// SAFETY: The inode's address is compared, and not used.
unsafe impl Send for FileState {}
// SAFETY: A shared reference gives numbers to compare, and nothing else.
unsafe impl Sync for FileState {}

impl FileState {
    /// That of an open file now. May sleep.
    pub(crate) fn of(file: &File) -> Result<Self> {
        // SAFETY: All-zero is a valid state.
        let mut state: bindings::erofs_shared_file_state = unsafe { core::mem::zeroed() };
        // SAFETY: A live `File`; the state is ours to fill.
        to_result(unsafe { bindings::file_state(file.as_ptr(), &mut state) })?;
        Ok(Self(state))
    }
}

impl PartialEq for FileState {
    fn eq(&self, other: &Self) -> bool {
        if self.0.may_change || other.0.may_change {
            return false;
        }
        let [one, two] = [&self.0, &other.0].map(|state| {
            (
                state.inode,
                state.size,
                (state.mtime.tv_sec, state.mtime.tv_nsec),
                (state.ctime.tv_sec, state.ctime.tv_nsec),
                state.change_cookie,
            )
        });
        one == two
    }
}

impl Device {
    /// The device of a block-based superblock. May sleep.
    pub(crate) fn of_super(sb: SuperPtr, offset: u64) -> Result<Self> {
        // SAFETY: By the type invariants of `SuperPtr` the superblock is allocated; `s_bdev` is
        // constant.
        let bdev = NonNull::new(unsafe { (*sb.0.as_ptr()).s_bdev }).ok_or(ENOTBLK)?;
        // SAFETY: `s_bdev` is open.
        let bytes = unsafe { bindings::bdev_bytes(bdev.as_ptr()) };
        // INVARIANT: This is `s_bdev`.
        Self::new(Backing::SuperBlock(bdev), bytes, offset)
    }

    /// Opens and claims an extra block device for `sb`.
    pub(crate) fn claim(path: &CStr, sb: SuperPtr) -> Result<Self> {
        let sb = sb.0;
        let (path, mode) = (path.as_char_ptr(), bindings::BLK_OPEN_READ);
        // The module is the holder, so that several mounts can have the same extra device, whatever
        // type they are of; in-tree it is the type. (A primary device's holder is its superblock.)
        // SAFETY: By the type invariants of `SuperPtr` the superblock is allocated; its type is the
        // module's.
        let holder = unsafe { (*(*sb.as_ptr()).s_type).owner.cast() };
        // SAFETY: `path` is NUL-terminated, and `sb` allocated.
        let file = unsafe { bindings::bdev_open(path, mode, holder, sb.as_ptr()) };
        let file = NonNull::new(from_err_ptr(file)?).ok_or(EIO)?;
        // INVARIANT: Opened just now for `sb`.
        let backing = Backing::Claimed { file, sb };
        // SAFETY: The file is an open block device.
        let bytes = unsafe { bindings::bdev_bytes(bindings::file_bdev(file.as_ptr())) };
        Self::new(backing, bytes, 0)
    }

    /// An image in a regular file.
    pub(crate) fn of_file(file: ARef<File>, offset: u64) -> Result<Self> {
        // SAFETY: A live file has an inode; `i_size` of a backing file is read once, here.
        let bytes = unsafe { bindings::inode_size((*file.as_ptr()).f_inode) };
        Self::new(Backing::File(file), bytes.try_into()?, offset)
    }

    /// A block device is read past its page cache, in which there may be a newer image than on the
    /// device, if something has it open and has written to it: that is written out.
    fn new(backing: Backing, bytes: u64, offset: u64) -> Result<Self> {
        let this = Self {
            backing,
            bytes: bytes.saturating_sub(offset),
            offset,
        };
        if let Some(bdev) = this.bdev() {
            // SAFETY: The device is open as long as `this` lives.
            to_result(unsafe { bindings::sync_blockdev(bdev.as_ptr()) })?;
        }
        Ok(this)
    }

    /// Image bytes on it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the image starts on it, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The block device, if it is one.
    pub(crate) fn bdev(&self) -> Option<NonNull<bindings::block_device>> {
        match &self.backing {
            Backing::SuperBlock(bdev) => Some(*bdev),
            Backing::Claimed { file, .. } => {
                // SAFETY: By the type invariants `file` is an open block device, whose
                // `block_device` lives as long.
                NonNull::new(unsafe { bindings::file_bdev(file.as_ptr()) })
            }
            Backing::File(_) => None,
        }
    }

    /// The regular file, if it is one.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.backing {
            Backing::File(file) => Some(file),
            _ => None,
        }
    }

    /// Whether it is a regular file on a disk of this machine.
    pub(crate) fn is_file_on_disk(&self) -> bool {
        self.file().is_some_and(|file| {
            // SAFETY: A live `File`.
            unsafe { bindings::file_on_disk(file.as_ptr()) }
        })
    }

    /// Smallest unit that it can be read in, in bytes: a power of two.
    pub(crate) fn logical_block_size(&self) -> u32 {
        match self.bdev() {
            // SAFETY: The device is open as long as `self` lives.
            Some(bdev) => unsafe { bindings::bdev_block_size(bdev.as_ptr()) },
            None => 1,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Backing::Claimed { file, sb } = &self.backing {
            // SAFETY: By the type invariants it was opened for `sb`, and `sb` is still allocated.
            unsafe { bindings::bdev_release(file.as_ptr(), sb.as_ptr()) }
        }
    }
}
