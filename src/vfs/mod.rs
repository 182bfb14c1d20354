// SPDX-License-Identifier: GPL-2.0

//! The kernel's filesystem interface as safe types, and the tables of callbacks behind it.
//!
//! A filesystem implements [`Mount`] and the traits that [`FileSystem`] is made of. Each of the
//! kernel's tables has a type with its callbacks, as [`super_ops::SuperOps`]. The raw callbacks
//! live only here: each turns its arguments into the types below, by the contract of
//! `Documentation/filesystems/vfs.rst`, and calls the traits.
//!
//! # Lifetimes
//!
//! * `T::Info` is made by `init_fs_context`, owned by the `fs_context` until a superblock takes it,
//!   then by the superblock, and dropped by `kill_sb` after all inodes are gone. Exclusive (`&mut`)
//!   while the context owns it, shared (`&`) while the superblock lives, exclusive again in
//!   `put_super`.
//! * `T::Inode` is set while the inode is new (`I_NEW`, not yet visible), then never changes.

mod alias;
mod aops;
mod binding;
mod bytes;
mod cache_fill;
mod context;
pub(crate) mod dir;
pub(crate) mod export;
mod file;
mod file_ops;
mod fs_type;
mod in_flight;
pub(crate) mod inode;
mod inode_ops;
mod iomap;
pub(crate) mod new_inode;
mod page;
pub(crate) mod param;
mod ratelimit;
pub(crate) mod registration;
mod shared_aops;
mod shared_fault;
mod shared_read;
pub(crate) mod sharing;
mod state;
mod super_ops;
pub(crate) mod superblock;
mod verify;
pub(crate) mod xattr;

use core::ops::Range;

use kernel::{
    fs::File,
    prelude::*,
    sync::{aref::ARef, Arc},
};

use crate::{io::Extent, share::Scope, stats::Counters};

pub(crate) use context::Context;
pub(crate) use dir::{DirEmitter, OpenDir};
pub(crate) use inode::{Inode, InodeRef};
pub(crate) use param::{ParamTable, ParamValue};
pub(crate) use ratelimit::RateLimit;
pub(crate) use registration::{OtherName, Registration};
pub(crate) use sharing::BoundInodes;
pub(crate) use superblock::{Options, Stat, SuperBlock};

/// Attributes that `statx` shows beside the inode's own fields.
pub(crate) struct Attributes {
    /// `STATX_ATTR_COMPRESSED`
    pub(crate) compressed: bool,
}

/// A filesystem type, and how one of it is mounted from a block device or a regular file.
pub(crate) trait Mount: Sized + Send + Sync + 'static {
    /// Name for `mount -t`.
    const NAME: &'static CStr;
    /// Slab name for its inodes.
    const SLAB: &'static CStr;
    /// `statfs` magic.
    const MAGIC: u32;
    /// Mount options.
    const PARAMS: &'static ParamTable;

    /// One mount's state.
    type Info: Send + Sync;
    /// What a mount of an image file has to have in common with another to use its superblock.
    type Key: Send + Sync;
    /// What a mount holds, as [`Mount::put_super`] gives it back.
    type Held;
    /// One inode's state. It is dropped in an RCU callback, which must not sleep.
    type Inode: Send + Sync;

    /// Fresh state with default options.
    fn new_info() -> Result<Self::Info>;
    /// Takes one mount option.
    fn parse_param(
        info: &mut Self::Info,
        fc: &Context<'_>,
        opt: u8,
        value: ParamValue<'_>,
    ) -> Result;
    /// Reads the superblock and returns the root directory. `file` is the source if it is a regular
    /// file, else it is `sb`'s block device.
    fn fill_super(
        sb: &SuperBlock<Self>,
        fc: &Context<'_>,
        file: Option<ARef<File>>,
    ) -> Result<InodeRef<Self>>;
    /// The key of a mount of the image in `source`, which also opens what else the mount reads
    /// from. `None` if it needs a superblock of its own.
    fn key(info: &mut Self::Info, source: &File) -> Result<Option<Self::Key>>;
    /// Whether the mounts with these keys are one superblock. Called under a spinlock.
    fn is_same(one: &Self::Key, other: &Self::Key) -> bool;
    /// Called when the image of a superblock has been mounted again.
    fn mounted_again(sb: &SuperBlock<Self>, source: &CStr);
    /// Called as the last step of a mount. If it fails, so does the mount, through `put_super`.
    fn mounted(sb: &SuperBlock<Self>) -> Result;
    /// Takes over options of a remount.
    fn reconfigure(info: &Self::Info, key: Option<&Self::Key>, new: &Self::Info);
    /// Takes all inodes and devices that `info` holds out of it. They are dropped afterwards: the
    /// last reference to an inode comes back to the filesystem, which then looks at `info`.
    fn put_super(info: &mut Self::Info) -> Self::Held;
}

/// What a mount can be asked.
pub(crate) trait MountInfo: Mount {
    /// Whether POSIX ACLs are on.
    fn acl_enabled(info: &Self::Info) -> bool;
    /// Shows mount options.
    fn show_options(info: &Self::Info, out: &Options<'_>);
    /// Figures for `statfs`.
    fn statfs(info: &Self::Info) -> Stat;
    /// Volume label, at most 255 bytes.
    fn label(info: &Self::Info) -> &[u8];
}

/// The inodes of a filesystem, which is read-only, by their names and numbers.
pub(crate) trait Directories: Mount {
    /// Reads the inode that `export` names (a file handle's 64-bit number).
    fn inode_by_handle(sb: &SuperBlock<Self>, handle: u64) -> Result<InodeRef<Self>>;
    /// The number for a file handle.
    fn handle(inode: &Inode<Self>) -> Result<u64>;
    /// Finds `name` in a directory.
    fn lookup(dir: &Inode<Self>, name: &[u8]) -> Result<Option<InodeRef<Self>>>;
    /// Lists a directory from `out`'s position.
    fn read_dir(dir: &Inode<Self>, list: &OpenDir<'_>, out: &mut DirEmitter<'_>) -> Result;
    /// Attributes for `statx`.
    fn attributes(inode: &Inode<Self>) -> Attributes;
}

/// The data of inodes.
pub(crate) trait FileData: Mount {
    /// Whether data of an inode has to be decoded.
    fn is_compressed(inode: &Inode<Self>) -> bool;
    /// These bytes of an inode that has to be decoded, and those around them that come with them
    /// for little more.
    fn expand_to_extents(inode: &Inode<Self>, bytes: Range<u64>) -> Range<u64>;
    /// Says that the extent at byte `pos` of a file cannot be decoded, and why.
    fn report_data(inode: &Inode<Self>, pos: u64, what: &'static str);
    /// What holds the byte at `pos`. `report`: the bytes of inline data are not wanted.
    fn map(inode: &Inode<Self>, pos: u64, report: bool) -> Result<Extent<'_>>;
    /// As `map`, for a read that asks for one extent after the other.
    fn map_in_order<'a>(inode: &'a Inode<Self>) -> impl Fn(u64) -> Result<Extent<'a>> + 'a;
    /// Whether to read a file that holds data with direct I/O.
    fn direct_io(info: &Self::Info) -> bool;
}

/// The extended attributes of inodes.
pub(crate) trait ExtendedAttributes: Mount {
    /// Value of an extended attribute (size; copied if `out` is given).
    fn getxattr(
        inode: &Inode<Self>,
        class: u8,
        name: &[u8],
        out: Option<&mut [u8]>,
    ) -> Result<usize>;
    /// Names of all extended attributes, NUL-terminated.
    fn listxattr(inode: &Inode<Self>, out: Option<&mut [u8]>) -> Result<usize>;
}

/// With whom data is shared.
pub(crate) trait SharePolicy: Mount {
    /// This mount's counters.
    fn counters(info: &Self::Info) -> &Arc<Counters>;
    /// Whether files of this mount are shared with any.
    fn shares(info: &Self::Info) -> bool;
    /// Whether single blocks that this mount's files bring into memory are shared between files.
    fn shares_blocks(info: &Self::Info) -> bool;
    /// With whom a file's data is shared. `None`: with no other inode.
    fn scope(inode: &Inode<Self>) -> Result<Option<Scope<'_>>>;
    /// Says that block `block` of a file is not what it was when it was verified.
    fn report_change(inode: &Inode<Self>, block: u64);
}

/// A filesystem: all that the tables of callbacks need.
pub(crate) trait FileSystem:
    MountInfo + Directories + FileData + ExtendedAttributes + SharePolicy
{
}

impl<T> FileSystem for T where
    T: MountInfo + Directories + FileData + ExtendedAttributes + SharePolicy
{
}

/// A static string for a constant C table. (`as_char_ptr` is not `const`.)
#[allow(clippy::disallowed_methods)]
const fn chars(text: &'static CStr) -> *const c_char {
    text.as_ptr().cast()
}
