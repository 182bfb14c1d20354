// SPDX-License-Identifier: GPL-2.0

//! Where the structures of an image are, and what there is in it that a field could name.

use std::collections::{BTreeMap, HashSet, VecDeque};

use erofs_shared_format::{
    dirent::{DirBlock, DIRENT_SIZE},
    inode::{FileType, Inode, Layout},
    map::Extent,
    ondisk::{
        Raw, RawChunkBlock, RawChunkIndex, RawComprCfgLength, RawDeflateCfgs, RawDeviceSlot,
        RawDirent, RawExtentsStart, RawFragmentHeader, RawInodeCompact, RawInodeExtended,
        RawLz4Cfgs, RawLzmaCfgs, RawMapHeader, RawSharedXattr, RawSuperblock, RawXattrEntry,
        RawXattrIbodyHeader, RawXattrLongPrefix, RawZstdCfgs, Structure,
    },
    source::{read_raw, Source},
    superblock::{incompat, Area, SUPER_OFFSET},
    zmap::{Coding, Data},
    ReadError, Volume,
};

/// Structures of one kind that are looked up for one inode, from its first and from its last.
const EACH_END: u64 = 6;
/// Inodes that are looked at.
const MAX_INODES: usize = 2000;

/// A structure in the image.
#[derive(Clone)]
pub struct Instance {
    /// What it is.
    pub structure: Structure,
    /// What it belongs to.
    pub role: &'static str,
    /// The inode that it belongs to.
    pub nid: Option<u64>,
    /// Its first byte on the primary device.
    pub at: u64,
}

/// What can be named, by kinds.
#[derive(Default)]
pub struct Things {
    /// Inodes by the kind of file.
    pub nids: BTreeMap<&'static str, Vec<u64>>,
    /// Blocks by what is in them.
    pub blocks: BTreeMap<&'static str, Vec<u64>>,
    /// Shared xattrs.
    pub xattrs: Vec<u64>,
    /// Long xattr prefixes.
    pub prefixes: u64,
    /// Extra devices.
    pub devices: u64,
    /// Sizes of files, and places in the packed inode.
    pub sizes: Vec<u64>,
}

/// An image, looked through.
pub struct Survey<'v> {
    volume: &'v Volume,
    /// All structures that were found on the primary device.
    pub instances: Vec<Instance>,
    /// All that can be named.
    pub things: Things,
    shared_seen: HashSet<u64>,
}

/// The kind of a file, and how its data is laid out.
fn kind_of(inode: &Inode) -> &'static str {
    match (inode.file_type, inode.layout) {
        (FileType::Directory, Layout::FlatPlain) => "flat directory",
        (FileType::Directory, Layout::FlatInline) => "inline directory",
        (FileType::Directory, Layout::ChunkBased) => "chunked directory",
        (FileType::Directory, _) => "compressed directory",
        (FileType::Regular, _) if inode.size == 0 => "empty file",
        (FileType::Regular, Layout::FlatPlain) => "flat file",
        (FileType::Regular, Layout::FlatInline) => "inline file",
        (FileType::Regular, Layout::ChunkBased) => "chunked file",
        (FileType::Regular, Layout::CompressedFull) => "file with full indexes",
        (FileType::Regular, Layout::CompressedCompact) => "file with compact indexes",
        (FileType::Symlink, Layout::FlatInline) => "fast symlink",
        (FileType::Symlink, _) => "slow symlink",
        (FileType::CharDevice, _) => "character device",
        (FileType::BlockDevice, _) => "block device",
        (FileType::Fifo, _) => "FIFO",
        (FileType::Socket, _) => "socket",
    }
}

impl<'v> Survey<'v> {
    /// Looks through an image.
    pub fn new(volume: &'v Volume) -> Result<Self, ReadError> {
        let mut this = Self {
            volume,
            instances: Vec::new(),
            things: Things::default(),
            shared_seen: HashSet::new(),
        };
        this.whole()?;
        let sb = &volume.sb;
        let mut queue = VecDeque::from([sb.root_nid]);
        let mut seen = HashSet::new();
        if sb.has_fragments() && sb.packed_nid != 0 {
            queue.push_back(sb.packed_nid);
        }
        queue.extend(sb.metabox_nid);
        while let Some(nid) = queue.pop_front() {
            if seen.insert(nid) && seen.len() <= MAX_INODES {
                let inode = volume.inode(nid)?;
                this.inode(&inode)?;
                if inode.file_type == FileType::Directory {
                    this.directory(&inode, &mut queue)?;
                }
            }
        }
        Ok(this)
    }

    fn add(&mut self, structure: Structure, role: &'static str, nid: Option<u64>, at: u64) {
        if at.saturating_add(structure.size as u64) <= self.volume.primary.len() {
            self.instances.push(Instance {
                structure,
                role,
                nid,
                at,
            });
        }
    }

    fn block(&mut self, kind: &'static str, block: u64) {
        let all = self.things.blocks.entry(kind).or_default();
        if !all.contains(&block) && all.len() < 64 {
            all.push(block);
        }
    }

    /// The byte on the primary device that is byte `pos` of an area; `None` if that is compressed.
    fn in_area(&self, area: Area, pos: u64) -> Option<u64> {
        match area {
            Area::Image => Some(pos),
            Area::Metabox => self.in_file(self.volume.metabox()?, pos),
        }
    }

    /// The byte on the primary device that is byte `pos` of a file.
    fn in_file(&self, inode: &Inode, pos: u64) -> Option<u64> {
        if inode.is_compressed() {
            let header = self.volume.header(inode).ok()?;
            let extent = self.volume.zextent(inode, &header, pos).ok()?;
            let Data::Pcluster(data) = extent.data else {
                return None;
            };
            if data.inline || matches!(data.coding, Coding::Compressed(_)) {
                return None;
            }
            let (from, _) = extent.plain(&self.volume.sb, pos - extent.la)?;
            let (device, _, at) = self.volume.locate(0, data.pa).ok()?;
            return (device == 0).then(|| at + u64::from(from));
        }
        match self.volume.extent(inode, pos).ok()? {
            Extent::Mapped { la, device, pa, .. } => {
                let (device, _, at) = self.volume.locate(device, pa).ok()?;
                (device == 0).then(|| at + (pos - la))
            }
            // The area of the metabox inode itself is the image.
            Extent::Inline { la, pa, .. } => self.in_area(inode.area, pa + (pos - la)),
            Extent::Hole { .. } => None,
        }
    }

    /// What is not of one inode.
    fn whole(&mut self) -> Result<(), ReadError> {
        let sb = &self.volume.sb;
        let bits = sb.blkszbits;
        self.add(RawSuperblock::STRUCTURE, "image", None, SUPER_OFFSET as u64);
        self.block("superblock", SUPER_OFFSET as u64 >> bits);
        self.block("first inodes", sb.meta_blkaddr.into());
        self.block("shared xattrs", sb.xattr_blkaddr.into());
        let end = self.volume.primary.len() >> bits;
        self.block("last block", end.saturating_sub(1));
        self.block("behind the end", end);
        self.block("behind the end", end + 1);
        let table = u64::from(sb.devt_slotoff) * size_of::<RawDeviceSlot>() as u64;
        for (number, slot) in (0..).zip(&self.volume.slots) {
            let at = table + number * size_of::<RawDeviceSlot>() as u64;
            self.add(RawDeviceSlot::STRUCTURE, "device table", None, at);
            self.block("device table", at >> bits);
            self.block("another device", slot.uniaddr);
            self.block("end of another device", slot.uniaddr + slot.blocks);
        }
        self.things.devices = self.volume.slots.len() as u64;
        if sb.has_incompat(incompat::COMPR_CFGS) {
            let mut at = SUPER_OFFSET as u64 + u64::from(sb.sb_size);
            for (number, structure) in [
                RawLz4Cfgs::STRUCTURE,
                RawLzmaCfgs::STRUCTURE,
                RawDeflateCfgs::STRUCTURE,
                RawZstdCfgs::STRUCTURE,
            ]
            .into_iter()
            .enumerate()
            {
                if sb.available_compr_algs & (1 << number) == 0 {
                    continue;
                }
                at = at.next_multiple_of(4);
                let raw: RawComprCfgLength = read_raw(&self.volume.primary, at)?;
                self.add(RawComprCfgLength::STRUCTURE, "image", None, at);
                at += size_of_val(&raw) as u64;
                self.add(structure, "image", None, at);
                at += u64::from(raw.length);
            }
        }
        self.prefixes();
        Ok(())
    }

    fn prefixes(&mut self) {
        let volume = self.volume;
        let sb = &volume.sb;
        self.things.prefixes = volume.prefixes.len() as u64;
        let mut pos = u64::from(sb.xattr_prefix_start) << 2;
        for prefix in &volume.prefixes {
            pos = pos.next_multiple_of(4);
            let at = if sb.plain_xattr_pfx() {
                Some(pos)
            } else if sb.has_metabox() {
                self.in_area(Area::Metabox, pos)
            } else if let Some(packed) = volume.packed() {
                self.in_file(packed, pos)
            } else {
                Some(pos)
            };
            if let Some(at) = at {
                self.add(RawXattrLongPrefix::STRUCTURE, "image", None, at);
            }
            pos += size_of::<RawXattrLongPrefix>() as u64 + prefix.infix().len() as u64;
        }
    }

    fn inode(&mut self, inode: &Inode) -> Result<(), ReadError> {
        let sb = &self.volume.sb;
        let nid = inode.nid;
        let kind = kind_of(inode);
        let role = if nid == sb.root_nid {
            "root"
        } else if sb.has_fragments() && nid == sb.packed_nid {
            "packed inode"
        } else if Some(nid) == sb.metabox_nid {
            "metabox inode"
        } else {
            kind
        };
        for kind in [kind, role] {
            let all = self.things.nids.entry(kind).or_default();
            if !all.contains(&nid) {
                all.push(nid);
            }
        }
        self.things.sizes.push(inode.size);
        let structure = if usize::from(inode.inode_isize) == size_of::<RawInodeExtended>() {
            RawInodeExtended::STRUCTURE
        } else {
            RawInodeCompact::STRUCTURE
        };
        let Some(at) = self.in_area(inode.area, inode.iloc) else {
            return Ok(());
        };
        self.add(structure, role, Some(nid), at);
        self.xattrs(inode, role)?;
        let body = inode.iloc + u64::from(inode.inode_isize) + u64::from(inode.xattr_isize);
        if let Some(start) = inode.startblk() {
            self.block(kind, start);
        }
        if inode.layout == Layout::ChunkBased {
            self.chunks(inode, role, body);
        }
        if inode.is_compressed() {
            self.compressed(inode, role, body.next_multiple_of(8))?;
        }
        Ok(())
    }

    fn xattrs(&mut self, inode: &Inode, role: &'static str) -> Result<(), ReadError> {
        if inode.xattr_isize == 0 {
            return Ok(());
        }
        let volume = self.volume;
        let area = volume.area(inode.area)?;
        let start = inode.iloc + u64::from(inode.inode_isize);
        let end = start + u64::from(inode.xattr_isize);
        let header: RawXattrIbodyHeader = read_raw(&area, start)?;
        if let Some(at) = self.in_area(inode.area, start) {
            self.add(RawXattrIbodyHeader::STRUCTURE, role, Some(inode.nid), at);
        }
        let mut pos = start + size_of_val(&header) as u64;
        let shared_area = if volume.sb.shared_ea_in_metabox() {
            Area::Metabox
        } else {
            Area::Image
        };
        let shared = u64::from(volume.sb.xattr_blkaddr) << volume.sb.blkszbits;
        for _ in 0..header.h_shared_count {
            let raw: RawSharedXattr = read_raw(&area, pos)?;
            if let Some(at) = self.in_area(inode.area, pos) {
                self.add(RawSharedXattr::STRUCTURE, role, Some(inode.nid), at);
            }
            let id = u64::from(raw.id);
            if self.shared_seen.insert(id) {
                self.things.xattrs.push(id);
                if let Some(at) = self.in_area(shared_area, shared + 4 * id) {
                    self.add(RawXattrEntry::STRUCTURE, "shared xattrs", None, at);
                }
            }
            pos += size_of_val(&raw) as u64;
        }
        while pos + size_of::<RawXattrEntry>() as u64 <= end {
            let raw: RawXattrEntry = read_raw(&area, pos)?;
            if let Some(at) = self.in_area(inode.area, pos) {
                self.add(RawXattrEntry::STRUCTURE, role, Some(inode.nid), at);
            }
            let name = u64::from(raw.e_name_len);
            let value = u64::from(raw.e_value_size);
            pos += (size_of_val(&raw) as u64 + name + value).next_multiple_of(4);
        }
        Ok(())
    }

    fn chunks(&mut self, inode: &Inode, role: &'static str, body: u64) {
        let structure = if inode.chunk_format & 0x20 != 0 {
            RawChunkIndex::STRUCTURE
        } else {
            RawChunkBlock::STRUCTURE
        };
        let unit = structure.size as u64;
        let count = inode.size.div_ceil(1 << inode.chunk_bits(&self.volume.sb));
        for number in both_ends(count) {
            let pos = body.next_multiple_of(unit) + number * unit;
            if let Some(at) = self.in_area(inode.area, pos) {
                self.add(structure, role, Some(inode.nid), at);
            }
        }
        let mut pos = 0;
        for _ in 0..EACH_END {
            let Ok(extent) = self.volume.extent(inode, pos) else {
                return;
            };
            match extent {
                Extent::Mapped { la, len, pa, .. } => {
                    self.block(kind_of(inode), pa >> self.volume.sb.blkszbits);
                    pos = la + len;
                }
                Extent::Hole { la, len } if len > 0 => pos = la + len,
                _ => return,
            }
        }
    }

    fn compressed(
        &mut self,
        inode: &Inode,
        role: &'static str,
        body: u64,
    ) -> Result<(), ReadError> {
        let volume = self.volume;
        if let Some(at) = self.in_area(inode.area, body) {
            self.add(RawMapHeader::STRUCTURE, role, Some(inode.nid), at);
            self.add(RawFragmentHeader::STRUCTURE, role, Some(inode.nid), at);
        }
        let header = volume.header(inode)?;
        let area = volume.area(inode.area)?;
        let mut seen = HashSet::new();
        let mut count = 0;
        while header.record(&volume.sb, inode, &area, count)?.is_some() && count < 1 << 16 {
            count += 1;
        }
        for number in both_ends(count) {
            let Some((structure, pos)) = header.record(&volume.sb, inode, &area, number)? else {
                continue;
            };
            if number == 0 && structure.size == 4 {
                let pos = pos - size_of::<RawExtentsStart>() as u64;
                if let Some(at) = self.in_area(inode.area, pos) {
                    self.add(RawExtentsStart::STRUCTURE, role, Some(inode.nid), at);
                }
            }
            if seen.insert(pos) {
                if let Some(at) = self.in_area(inode.area, pos) {
                    self.add(structure, role, Some(inode.nid), at);
                }
            }
        }
        let mut pos = 0;
        for _ in 0..EACH_END {
            if pos >= inode.size {
                break;
            }
            let extent = volume.zextent(inode, &header, pos)?;
            match extent.data {
                Data::Pcluster(data) if !data.inline => {
                    let kind = match data.coding {
                        Coding::Compressed(_) => "compressed extent",
                        _ => "plain extent",
                    };
                    self.block(kind, data.pa >> volume.sb.blkszbits);
                }
                Data::Fragment { pos } => self.things.sizes.push(pos),
                _ => {}
            }
            pos = extent.end();
        }
        Ok(())
    }

    fn directory(&mut self, inode: &Inode, queue: &mut VecDeque<u64>) -> Result<(), ReadError> {
        let volume = self.volume;
        let data = volume.data(inode);
        let block_size = u64::from(volume.sb.block_size());
        let role = if inode.nid == volume.sb.root_nid {
            "root"
        } else {
            kind_of(inode)
        };
        let mut pos = 0;
        while pos < inode.size {
            let bytes = data.bread(pos)?;
            let len = block_size.min(inode.size - pos).min(bytes.len() as u64);
            let block = DirBlock::new(&bytes[..len as usize], pos)?;
            for index in 0..block.len() {
                let entry = block.get(index)?;
                if !matches!(entry.name, b"." | b"..") {
                    queue.push_back(entry.nid);
                }
                let index = index as u64;
                let is_near = index < EACH_END || index + 2 >= block.len() as u64;
                let at = self.in_file(inode, pos + index * DIRENT_SIZE as u64);
                if let Some(at) = at.filter(|_| is_near) {
                    self.add(RawDirent::STRUCTURE, role, Some(inode.nid), at);
                }
            }
            pos += block_size;
        }
        Ok(())
    }
}

/// The numbers below `count` that are close to 0 or to `count`.
fn both_ends(count: u64) -> impl Iterator<Item = u64> {
    (0..count).filter(move |number| *number < EACH_END || number + EACH_END >= count)
}
