// SPDX-License-Identifier: GPL-2.0

//! One mount: its devices, its metadata cache, and how it comes up.
//!
//! A mount comes up in steps, each of which reads the image through the ones before, as later reads
//! do: the primary device with the metadata cache over it; what the superblock says, with the extra
//! devices; the metabox; the packed inode; the long xattr prefixes. Each is set once and then
//! constant until `put_super`.

use kernel::{
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
};

use super::{
    inode::{self, Data},
    options::{Options, Share},
    report::{failed, Place},
    Erofs,
};
use crate::{
    compat::code::EFSCORRUPTED,
    format::{
        compression::Compression,
        device::{self, DeviceSlot},
        inode::FileType,
        superblock::{Area, Superblock},
        xattr::LongPrefix,
    },
    io::{
        self, decompress, device::FileState, hash::KernelHash, metadata::LockSubclass, CacheBytes,
        Device, ReadError,
    },
    share::Domain,
    stats::{Counters, Field, MountDirectory, StatsSource, Totals},
    vfs::{BoundInodes, Context, Inode, InodeRef, RateLimit, Stat, SuperBlock},
};

/// Bytes at the start of an image in which the superblock lies.
const HEAD: usize = 4096;

/// Smallest block, and unit of `fsoffset=`.
const SECTOR: u64 = 512;

/// Longest name, `EROFS_NAME_LEN`.
const NAME_LEN: u32 = 255;

/// What two mounts of an image file have in common if they are one superblock: the state of all
/// files that they read from, and the options.
pub(crate) struct Key {
    source: FileState,
    devices: KVec<FileState>,
    share: Share,
    compare: bool,
    domain: Domain,
    fsoffset: u64,
    /// [`Options::changeable`]: a remount may change them.
    changeable: Atomic<u64>,
}

impl Key {
    /// Opens the files of `device=`. `None` if one of them cannot be opened, which the mount tells
    /// later, when it knows what the image says of them.
    pub(super) fn new(info: &mut Info, source: &File) -> Result<Option<Self>> {
        let mut devices = KVec::with_capacity(info.options.devices.len(), GFP_KERNEL)?;
        let mut all = true;
        for path in &info.options.devices {
            let file = io::device::open_file(path);
            match &file {
                Ok(file) => devices.push(FileState::of(file)?, GFP_KERNEL)?,
                Err(_) => all = false,
            }
            info.device_files.push(file, GFP_KERNEL)?;
        }
        if !all {
            return Ok(None);
        }
        Ok(Some(Self {
            source: FileState::of(source)?,
            devices,
            share: info.options.share,
            compare: info.options.compare,
            domain: *info.options.domain(),
            fsoffset: info.options.fsoffset,
            changeable: Atomic::new(info.options.changeable()),
        }))
    }

    /// Whether the mounts with these keys are one superblock.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.source == other.source
            && self.devices[..] == other.devices[..]
            && self.share == other.share
            && self.compare == other.compare
            && self.domain == other.domain
            && self.fsoffset == other.fsoffset
            && self.changeable.load(Relaxed) == other.changeable.load(Relaxed)
    }

    /// What a remount changes.
    pub(super) fn take_over(&self, new: &Options) {
        self.changeable.store(new.changeable(), Relaxed);
    }
}

/// Says that the image of a superblock has been mounted again, and counts it.
pub(super) fn mounted_again(sb: &SuperBlock<Erofs>, source: &CStr) {
    sb.info().counters.add(Field::Mounts, 1);
    if sb.info().log_limit.ask() {
        pr_info!(
            "(device {}): {} is mounted already, with these options: the same superblock\n",
            sb.id(),
            source
        );
    }
}

/// One mount's state.
pub(crate) struct Info {
    pub(super) options: Options,
    /// What `device=` names, for a mount of an image file.
    device_files: KVec<Result<ARef<File>>>,
    /// For all that is said of the image once it is read.
    pub(super) log_limit: RateLimit,
    /// What is counted for this mount.
    pub(super) counters: Arc<Counters>,
    source: SetOnce<Source>,
    layout: SetOnce<Layout>,
    metabox: SetOnce<InodeRef<Erofs>>,
    packed: SetOnce<InodeRef<Erofs>>,
    prefixes: SetOnce<KVVec<LongPrefix>>,
    directory: SetOnce<MountDirectory<MountStats>>,
}

/// What is counted for one mount.
struct MountStats {
    counters: Arc<Counters>,
    bound: BoundInodes<Erofs>,
}

impl StatsSource for MountStats {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn totals(&self) -> Result<Totals> {
        let mut totals = Totals::default();
        self.bound.for_each(&mut |shared| {
            // Each of those that share has its part of what is saved.
            let sharers = u64::from(shared.content().usage().bound().max(1));
            totals.shared_inodes = totals.shared_inodes.saturating_add(1);
            if sharers > 1 {
                totals.pages_shared = totals.pages_shared.saturating_add(shared.pages());
            }
            let saved = shared.pages_saved().saturating_mul(PAGE_SIZE as u64);
            totals.bytes_saved = totals.bytes_saved.saturating_add(saved / sharers);
        })?;
        Ok(totals)
    }
}

/// What the image is read from.
struct Source {
    /// The metadata cache, over `primary`.
    meta: InodeRef<Erofs>,
    primary: Device,
}

/// What the superblock says.
struct Layout {
    image: Superblock,
    compression: Compression,
    devices: Devices,
}

/// The extra devices.
struct Devices {
    slots: KVVec<DeviceSlot>,
    /// `opened[i]` holds what `slots[i]` describes; empty if all data is on the primary device.
    opened: KVec<Device>,
    /// Blocks on all devices.
    total_blocks: u64,
}

/// What a mount holds, in the order in which it is let go of: each part uses those behind it. The
/// directory is the first, because that waits for readers.
pub(crate) struct Held {
    _directory: SetOnce<MountDirectory<MountStats>>,
    _prefixes: SetOnce<KVVec<LongPrefix>>,
    _metabox: SetOnce<InodeRef<Erofs>>,
    _packed: SetOnce<InodeRef<Erofs>>,
    _layout: SetOnce<Layout>,
    _source: SetOnce<Source>,
}

fn take<T>(slot: &mut SetOnce<T>) -> SetOnce<T> {
    core::mem::replace(slot, SetOnce::new())
}

impl Info {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            options: Options::new(),
            device_files: KVec::new(),
            log_limit: RateLimit::new()?,
            counters: Arc::new(Counters::of_mount(), GFP_KERNEL)?,
            source: SetOnce::new(),
            layout: SetOnce::new(),
            metabox: SetOnce::new(),
            packed: SetOnce::new(),
            prefixes: SetOnce::new(),
            directory: SetOnce::new(),
        })
    }

    /// Shows the mount in sysfs.
    pub(super) fn publish(&self, sb: &SuperBlock<Erofs>) -> Result {
        let figures = Arc::new(
            MountStats {
                counters: self.counters.clone(),
                bound: sb.bound_inodes(),
            },
            GFP_KERNEL,
        )?;
        set(&self.directory, MountDirectory::new(sb.dev(), figures)?)?;
        self.counters.add(Field::Mounts, 1);
        Ok(())
    }

    /// Takes out all that has to be let go of before the superblock ends.
    pub(super) fn take(&mut self) -> Held {
        Held {
            _directory: take(&mut self.directory),
            _prefixes: take(&mut self.prefixes),
            _metabox: take(&mut self.metabox),
            _packed: take(&mut self.packed),
            _layout: take(&mut self.layout),
            _source: take(&mut self.source),
        }
    }

    fn source(&self) -> Result<&Source> {
        self.source.as_ref().ok_or(EIO)
    }

    fn layout(&self) -> Result<&Layout> {
        self.layout.as_ref().ok_or(EIO)
    }

    /// Whether the source is a regular file.
    pub(super) fn is_file(&self) -> bool {
        self.primary().is_ok_and(|primary| primary.bdev().is_none())
    }

    /// Whether the image has compressed data.
    pub(super) fn has_compressed_data(&self) -> bool {
        self.image().is_ok_and(Superblock::is_compressed)
    }

    /// The image's compression configurations.
    pub(super) fn compression(&self) -> Result<&Compression> {
        Ok(&self.layout()?.compression)
    }

    /// The data of the packed inode. `EFSCORRUPTED` if the image has none.
    pub(super) fn packed_bytes(&self) -> Result<CacheBytes<'_>> {
        let packed = Self::internal(&self.packed)?;
        Ok(packed.bytes()?.encoded(LockSubclass::Packed))
    }

    /// The image's superblock.
    pub(super) fn image(&self) -> Result<&Superblock> {
        Ok(&self.layout()?.image)
    }

    pub(super) fn prefixes(&self) -> &[LongPrefix] {
        self.prefixes.as_ref().map_or(&[], |prefixes| prefixes)
    }

    fn internal(inode: &SetOnce<InodeRef<Erofs>>) -> Result<&Inode<Erofs>> {
        Ok(inode.as_ref().ok_or(EFSCORRUPTED)?)
    }

    /// The bytes of an area. `EFSCORRUPTED` if the image has no such area.
    pub(super) fn area(&self, area: Area) -> Result<CacheBytes<'_>> {
        match area {
            Area::Image => self.source()?.meta.bytes(),
            Area::Metabox => Ok(Self::internal(&self.metabox)?
                .bytes()?
                .encoded(LockSubclass::Metabox)),
        }
    }

    /// The primary device.
    pub(super) fn primary(&self) -> Result<&Device> {
        Ok(&self.source()?.primary)
    }

    /// The device and the byte on it that an extent's address means.
    pub(super) fn place(&self, device_id: u16, pa: u64) -> Result<(&Device, u64), ReadError> {
        let Layout { image, devices, .. } = self.layout()?;
        let flat = devices.opened.is_empty();
        let (index, addr) = device::map_dev(image, &devices.slots, flat, device_id, pa)?;
        let device = match index.checked_sub(1) {
            None => self.primary()?,
            Some(extra) => devices.opened.get(extra).ok_or(ENODEV)?,
        };
        Ok((device, addr))
    }

    pub(super) fn stat(&self) -> Stat {
        let layout = self.layout.as_ref();
        Stat {
            blocks: layout.map_or(0, |layout| layout.devices.total_blocks),
            inodes: layout.map_or(0, |layout| layout.image.inos),
            name_len: NAME_LEN,
        }
    }

    pub(super) fn label(&self) -> &[u8] {
        self.image().map_or(&[], Superblock::volume_name)
    }
}

fn set<T>(slot: &SetOnce<T>, value: T) -> Result<&T> {
    slot.populate(value);
    slot.as_ref().ok_or(EIO)
}

/// The unit in which the metadata cache reads a device: a page, unless the device ends within one.
fn meta_blkbits(device: &Device) -> u8 {
    let page = kernel::page::PAGE_SIZE as u64;
    let whole_pages = device.bytes() % page == 0;
    if device.bdev().is_none() || whole_pages {
        kernel::page::PAGE_SHIFT as u8
    } else {
        device.logical_block_size().max(512).trailing_zeros() as u8
    }
}

/// Checks the options as far as that takes no image.
fn check_options(sb: &SuperBlock<Erofs>, fc: &Context<'_>) -> Result {
    let (id, options) = (sb.id(), &sb.info().options);
    if options.fsoffset % SECTOR != 0 {
        return Err(fc.invalid(fmt!(
            "(device {id}): fsoffset {} is not a multiple of {SECTOR}",
            options.fsoffset
        )));
    }
    if options.share == Share::Fingerprint && !options.has_domain_id() {
        return Err(fc.invalid(fmt!(
            "(device {id}): share=fingerprint (inode_share) needs domain_id=: whose fingerprints to trust"
        )));
    }
    Ok(())
}

/// Checks that the image's blocks can be read where they lie.
fn check_block_size(sb: &SuperBlock<Erofs>, fc: &Context<'_>, block_size: u32) -> Result {
    let (id, smallest) = (sb.id(), sb.info().primary()?.logical_block_size());
    if smallest > block_size {
        return Err(fc.invalid(fmt!(
            "(device {id}): block size {block_size} is smaller than the device's {smallest}"
        )));
    }
    let fsoffset = sb.info().options.fsoffset;
    if fsoffset & u64::from(block_size - 1) != 0 {
        return Err(fc.invalid(fmt!(
            "(device {id}): fsoffset {fsoffset} is not a multiple of the block size {block_size}"
        )));
    }
    Ok(())
}

/// The root directory.
fn root(sb: &SuperBlock<Erofs>, fc: &Context<'_>, image: &Superblock) -> Result<InodeRef<Erofs>> {
    let root = inode::iget(sb, image.root_nid)?;
    if !matches!(root.data()?.image()?.file_type, FileType::Directory) {
        return Err(fc.invalid(fmt!(
            "(device {}): the root inode (nid {}) is not a directory",
            sb.id(),
            image.root_nid
        )));
    }
    Ok(root)
}

/// Brings a mount up and gives its root directory.
pub(super) fn fill(
    sb: &SuperBlock<Erofs>,
    fc: &Context<'_>,
    file: Option<ARef<File>>,
) -> Result<InodeRef<Erofs>> {
    let info = sb.info();
    check_options(sb, fc)?;
    let primary = match file {
        Some(file) => Device::of_file(file, info.options.fsoffset)?,
        None => Device::of_super(sb.owner(), info.options.fsoffset)?,
    };
    let source = Source {
        meta: sb.internal_inode(Data::Meta, primary.bytes(), meta_blkbits(&primary))?,
        primary,
    };
    set(&info.source, source)?;
    let image = read_superblock(sb, fc)?;
    check_block_size(sb, fc, image.block_size())?;
    sb.identify(image.blkszbits, &image.uuid);
    let devices = open_devices(sb, fc, &image)?;
    let layout = Layout {
        compression: read_compression(sb, fc, &image, &devices)?,
        image,
        devices,
    };
    let image = &set(&info.layout, layout)?.image;

    if let Some(nid) = image.metabox_nid {
        set(&info.metabox, internal_file(sb, fc, "metabox_nid", nid)?)?;
    }
    if image.has_fragments() && image.packed_nid != 0 {
        let packed = internal_file(sb, fc, "packed_nid", image.packed_nid)?;
        set(&info.packed, packed)?;
    }
    let root = root(sb, fc, image)?;
    let prefixes = read_prefixes(info, image).map_err(|err| failed(sb, Place::Superblock, err))?;
    set(&info.prefixes, prefixes)?;
    if info.options.share == Share::Fingerprint && image.ishare_xattr_prefix_id.is_none() {
        pr_info!(
            "(device {}): the image has no fingerprints (mkfs.erofs --xattr-inode-digest): nothing is shared\n",
            sb.id()
        );
    }
    Ok(root)
}

/// The inode that the superblock's `field` names, whose data is a part of the image. Only a regular
/// file's data can be that: others have none, or the VFS writes to their pages.
fn internal_file(
    sb: &SuperBlock<Erofs>,
    fc: &Context<'_>,
    field: &str,
    nid: u64,
) -> Result<InodeRef<Erofs>> {
    let inode = inode::iget(sb, nid)?;
    let image = inode.data()?.image()?;
    if image.file_type != FileType::Regular {
        fc.error(fmt!(
            "(device {}): {}: nid {} is not a regular file (i_mode {:#o})",
            sb.id(),
            field,
            nid,
            inode.mode()
        ));
        return Err(EFSCORRUPTED);
    }
    Ok(inode)
}

fn read_superblock(sb: &SuperBlock<Erofs>, fc: &Context<'_>) -> Result<Superblock> {
    let meta = sb.info().area(Area::Image)?;
    let head = match meta.bytes(0) {
        Ok(head) => head,
        Err(err) => {
            fc.error(fmt!("(device {}): cannot read the superblock", sb.id()));
            return Err(match err {
                ReadError::Io(err) => err,
                // An empty device.
                ReadError::Format(_) => EINVAL,
            });
        }
    };
    let head = head.get(..HEAD.min(head.len())).ok_or(EIO)?;
    Superblock::parse::<KernelHash>(head).map_err(|err| {
        fc.error(fmt!("(device {}): {}", sb.id(), err));
        super::report::errno(err.kind)
    })
}

/// Reads the compression configurations, and gets the decoders ready.
fn read_compression(
    sb: &SuperBlock<Erofs>,
    fc: &Context<'_>,
    image: &Superblock,
    devices: &Devices,
) -> Result<Compression> {
    let info = sb.info();
    let mut compression = Compression::read(image, &info.area(Area::Image)?)
        .map_err(|err| failed(sb, Place::Superblock, err))?;
    // All that an address without a device can mean.
    let ends = devices.slots.iter().map(|slot| {
        let blocks = slot.uniaddr.saturating_add(slot.blocks);
        blocks.saturating_mul(image.block_size().into())
    });
    compression.set_end(ends.fold(info.primary()?.bytes(), u64::max));
    decompress::prepare(&compression).inspect_err(|err| {
        fc.error(fmt!(
            "(device {}): cannot allocate decompressor state: {:?}",
            sb.id(),
            err
        ));
    })?;
    Ok(compression)
}

fn open_devices(sb: &SuperBlock<Erofs>, fc: &Context<'_>, image: &Superblock) -> Result<Devices> {
    let info = sb.info();
    let count = if image.has_device_table() {
        image.extra_devices
    } else {
        0
    };
    let given = &info.options.devices;
    if !given.is_empty() && given.len() != usize::from(count) {
        return Err(fc.invalid(fmt!(
            "(device {}): the image has {} extra devices, but {} device= options are given",
            sb.id(),
            count,
            given.len()
        )));
    }
    let mut slots = KVVec::with_capacity(usize::from(count), GFP_KERNEL)?;
    let mut opened = KVec::with_capacity(given.len(), GFP_KERNEL)?;
    let mut total_blocks = image.blocks;
    let meta = info.area(Area::Image)?;
    for index in 0..count {
        let slot = DeviceSlot::read(image, index, &meta)
            .map_err(|err| failed(sb, Place::Superblock, err))?;
        total_blocks = total_blocks.saturating_add(slot.blocks);
        slots.push(slot, GFP_KERNEL)?;
    }
    for (index, path) in given.iter().enumerate() {
        let device = open_device(sb, index, path).inspect_err(|err| {
            fc.error(fmt!(
                "(device {}): cannot open device={}: {:?}",
                sb.id(),
                &**path,
                err
            ));
        })?;
        opened.push(device, GFP_KERNEL)?;
    }
    Ok(Devices {
        slots,
        opened,
        total_blocks,
    })
}

fn open_device(sb: &SuperBlock<Erofs>, index: usize, path: &CStr) -> Result<Device> {
    if sb.is_block() {
        // A mount says by ENOTBLK that its *source* is no block device, on which its caller tries
        // again.
        return Device::claim(path, sb.owner())
            .map_err(|err| if err == ENOTBLK { EINVAL } else { err });
    }
    let file = sb.info().device_files.get(index).ok_or(EINVAL)?;
    let file = file.as_ref().map_err(|err| *err)?;
    io::device::usable_file(file).map_err(|_| EINVAL)?;
    Device::of_file(file.clone(), 0)
}

fn read_prefixes(info: &Info, image: &Superblock) -> Result<KVVec<LongPrefix>, ReadError> {
    let count = usize::from(image.xattr_prefix_count);
    let mut prefixes = KVVec::with_capacity(count, GFP_KERNEL).map_err(Error::from)?;
    if count == 0 {
        return Ok(prefixes);
    }
    // As upstream: in the image if it says so, else in the metabox, else in the packed inode, else
    // in the image.
    let src = if image.plain_xattr_pfx() {
        info.area(Area::Image)?
    } else if image.has_metabox() {
        info.area(Area::Metabox)?
    } else if info.packed.as_ref().is_some() {
        info.packed_bytes()?
    } else {
        info.area(Area::Image)?
    };
    let mut pos = u64::from(image.xattr_prefix_start) << 2;
    for _ in 0..count {
        let prefix = LongPrefix::read(&src, &mut pos)?;
        prefixes.push(prefix, GFP_KERNEL).map_err(Error::from)?;
    }
    Ok(prefixes)
}
