// SPDX-License-Identifier: GPL-2.0

//! The filesystem itself: what the image says, turned into what the VFS asks for. No unsafe code.

#![deny(unsafe_code)]

mod data;
mod dir;
mod inode;
mod options;
mod report;
mod share;
mod superblock;
mod xattr;

use core::ops::Range;

use kernel::{
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

use crate::{
    format::superblock::SUPER_MAGIC,
    io::Extent,
    params,
    share::Scope,
    stats::{Counters, StatsProvider},
    vfs::{
        Attributes, Context, DirEmitter, Directories, ExtendedAttributes, FileData, Inode,
        InodeRef, Mount, MountInfo, OpenDir, Options, OtherName, ParamTable, ParamValue,
        Registration, SharePolicy, Stat, SuperBlock,
    },
};

/// What the module tells about all mounts.
pub(crate) static HOOKS: StatsProvider = StatsProvider {
    features: &[c"blocks", c"content", c"domains", c"fingerprint"],
    filesystems,
    totals: share::totals,
    top: share::top,
};

/// The name by which callers look for EROFS that know of no other implementation (containerd,
/// `mount` without a type).
const EROFS: &CStr = c"erofs";

/// Whether the type is registered as [`EROFS`], too.
static IS_EROFS: Atomic<u32> = Atomic::new(0);

/// The names under which the type is registered, for sysfs.
fn filesystems() -> &'static CStr {
    match IS_EROFS.load(Relaxed) {
        0 => c"erofs-shared",
        _ => c"erofs-shared erofs",
    }
}

/// Registers the type, as [`EROFS`], too, if the parameter `register_erofs=` has it.
pub(crate) fn register(module: &'static ThisModule) -> Result<Registration<Erofs>> {
    let how = params::register();
    let other = OtherName {
        name: EROFS,
        is_required: how == params::Register::On,
    };
    let other = (how != params::Register::Off).then_some(other);
    let registration = Registration::new(module, other).inspect_err(|err| {
        if how == params::Register::On {
            pr_err!(
                "cannot register the filesystem erofs ({:?}); unload the in-tree erofs, or use register_erofs=off\n",
                err
            );
        }
    })?;
    IS_EROFS.store(u32::from(registration.has_other_name()), Relaxed);
    match how {
        _ if registration.has_other_name() => {
            pr_info!("registered as the filesystems erofs-shared and erofs\n");
        }
        params::Register::Off => {}
        _ => pr_info!("the in-tree erofs is loaded: mount with -t erofs-shared\n"),
    }
    Ok(registration)
}

/// The filesystem type.
pub(crate) struct Erofs;

impl Mount for Erofs {
    const NAME: &'static CStr = c"erofs-shared";
    const SLAB: &'static CStr = c"erofs_shared_inode";
    const MAGIC: u32 = SUPER_MAGIC;
    const PARAMS: &'static ParamTable = &options::PARAMS;

    type Info = superblock::Info;
    type Held = superblock::Held;
    type Key = superblock::Key;
    type Inode = inode::Data;

    fn new_info() -> Result<Self::Info> {
        superblock::Info::new()
    }

    fn parse_param(
        info: &mut Self::Info,
        fc: &Context<'_>,
        opt: u8,
        value: ParamValue<'_>,
    ) -> Result {
        options::parse(&mut info.options, fc, opt, value)
    }

    fn fill_super(
        sb: &SuperBlock<Self>,
        fc: &Context<'_>,
        file: Option<ARef<File>>,
    ) -> Result<InodeRef<Self>> {
        superblock::fill(sb, fc, file)
    }

    fn key(info: &mut Self::Info, source: &File) -> Result<Option<Self::Key>> {
        superblock::Key::new(info, source)
    }

    fn is_same(one: &Self::Key, other: &Self::Key) -> bool {
        one.is_same(other)
    }

    fn mounted_again(sb: &SuperBlock<Self>, source: &CStr) {
        superblock::mounted_again(sb, source);
    }

    fn mounted(sb: &SuperBlock<Self>) -> Result {
        sb.info().publish(sb)
    }

    fn reconfigure(info: &Self::Info, key: Option<&Self::Key>, new: &Self::Info) {
        info.options.take_over(&new.options);
        if let Some(key) = key {
            key.take_over(&new.options);
        }
    }

    fn put_super(info: &mut Self::Info) -> Self::Held {
        info.take()
    }
}

impl MountInfo for Erofs {
    fn acl_enabled(info: &Self::Info) -> bool {
        info.options.acl()
    }

    fn show_options(info: &Self::Info, out: &Options<'_>) {
        options::show(
            &info.options,
            info.has_compressed_data(),
            info.is_file(),
            out,
        );
    }

    fn statfs(info: &Self::Info) -> Stat {
        info.stat()
    }

    fn label(info: &Self::Info) -> &[u8] {
        info.label()
    }
}

impl Directories for Erofs {
    fn inode_by_handle(sb: &SuperBlock<Self>, handle: u64) -> Result<InodeRef<Self>> {
        inode::iget(sb, handle)
    }

    fn handle(inode: &Inode<Self>) -> Result<u64> {
        Ok(inode.data()?.image()?.nid)
    }

    fn lookup(dir: &Inode<Self>, name: &[u8]) -> Result<Option<InodeRef<Self>>> {
        dir::lookup(dir, name)
    }

    fn read_dir(dir: &Inode<Self>, list: &OpenDir<'_>, out: &mut DirEmitter<'_>) -> Result {
        dir::read(dir, list, out)
    }

    fn attributes(inode: &Inode<Self>) -> Attributes {
        Attributes {
            compressed: Self::is_compressed(inode),
        }
    }
}

impl FileData for Erofs {
    fn is_compressed(inode: &Inode<Self>) -> bool {
        inode.data().is_ok_and(inode::Data::is_compressed)
    }

    fn expand_to_extents(inode: &Inode<Self>, bytes: Range<u64>) -> Range<u64> {
        data::expand_to_extents(inode, bytes)
    }

    fn report_data(inode: &Inode<Self>, pos: u64, what: &'static str) {
        data::report(inode, pos, what);
    }

    fn map(inode: &Inode<Self>, pos: u64, report: bool) -> Result<Extent<'_>> {
        data::map(inode, pos, report)
    }

    fn map_in_order<'a>(inode: &'a Inode<Self>) -> impl Fn(u64) -> Result<Extent<'a>> + 'a {
        data::map_in_order(inode)
    }

    fn direct_io(info: &Self::Info) -> bool {
        let is_on_disk = || info.primary().is_ok_and(crate::io::Device::is_file_on_disk);
        info.options.direct_io() && (info.options.direct_io_anywhere() || is_on_disk())
    }
}

impl ExtendedAttributes for Erofs {
    fn getxattr(
        inode: &Inode<Self>,
        class: u8,
        name: &[u8],
        out: Option<&mut [u8]>,
    ) -> Result<usize> {
        xattr::get(inode, class, name, out)
    }

    fn listxattr(inode: &Inode<Self>, out: Option<&mut [u8]>) -> Result<usize> {
        xattr::list(inode, out)
    }
}

impl SharePolicy for Erofs {
    fn counters(info: &Self::Info) -> &Arc<Counters> {
        &info.counters
    }

    fn shares(info: &Self::Info) -> bool {
        info.options.share != options::Share::Off
    }

    fn shares_blocks(info: &Self::Info) -> bool {
        info.options.share_blocks()
    }

    fn scope(inode: &Inode<Self>) -> Result<Option<Scope<'_>>> {
        share::scope(inode)
    }

    fn report_change(inode: &Inode<Self>, block: u64) {
        share::report_change(inode, block);
    }
}
