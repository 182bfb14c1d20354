// SPDX-License-Identifier: GPL-2.0

//! A whole image: what mounting it and looking at everything in it reads. The input is the image, so
//! that a finding can be mounted as it is (once its checksum is right).

#![no_main]

use std::collections::HashSet;

use erofs_shared_format::{
    compression::Compression,
    device::{map_dev, DeviceSlot},
    dirent::{lookup, DirBlock},
    error::{Error, Kind},
    inode::{FileType, Inode},
    map::map_blocks,
    source::{read_exact, Source},
    superblock::{Area, Superblock},
    xattr::{getxattr, index, listxattr, LongPrefix, XattrSources},
    zmap::{map, map_next, Header},
    HostHash,
};
use erofs_shared_fuzz::{check_error, check_extent, check_zextent, superblock, Counting, Data};
use libfuzzer_sys::fuzz_target;

/// Bounds on the work of one input: an image may claim far more than it holds.
const INODES: usize = 100;
const DIR_BLOCKS: u64 = 16;
const EXTENTS: usize = 32;

type Metabox<'a> = Data<'a, Counting<'a>>;

/// One of the two areas, as the module's own type has them.
enum Place<'a> {
    Image(&'a Counting<'a>),
    Metabox(&'a Metabox<'a>),
}

impl Source for Place<'_> {
    type Error = Error;
    type Buf<'b>
        = std::borrow::Cow<'b, [u8]>
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<Self::Buf<'_>, Error> {
        match self {
            Place::Image(image) => image.bread(pos).map(Into::into),
            Place::Metabox(metabox) => metabox.bread(pos),
        }
    }
}

struct Mount<'a> {
    sb: &'a Superblock,
    image: &'a Counting<'a>,
    metabox: Option<&'a Metabox<'a>>,
    slots: Vec<DeviceSlot>,
    prefixes: Vec<LongPrefix>,
    compression: Compression,
}

impl<'a> Mount<'a> {
    fn area(&self, area: Area) -> Result<Place<'a>, Error> {
        match (area, self.metabox) {
            (Area::Image, _) => Ok(Place::Image(self.image)),
            (Area::Metabox, Some(metabox)) => Ok(Place::Metabox(metabox)),
            (Area::Metabox, None) => Err(Error {
                kind: Kind::Corrupted,
                what: "no metabox yet",
                pos: 0,
                value: 0,
            }),
        }
    }

    fn iget(&self, nid: u64) -> Result<Inode, Error> {
        let (area, _) = self.sb.iloc(nid)?;
        Inode::read(self.sb, nid, &self.area(area)?)
    }

    fn read_prefixes(&mut self, packed: Option<&Inode>) -> Result<(), Error> {
        let sb = self.sb;
        let data = packed.map(|inode| Data::new(sb, inode, self.image, self.image));
        let src = if sb.plain_xattr_pfx() {
            Place::Image(self.image)
        } else if sb.has_metabox() {
            self.area(Area::Metabox)?
        } else if let Some(packed) = &data {
            Place::Metabox(packed)
        } else {
            Place::Image(self.image)
        };
        let mut pos = u64::from(sb.xattr_prefix_start) << 2;
        for _ in 0..sb.xattr_prefix_count {
            self.prefixes.push(LongPrefix::read(&src, &mut pos)?);
        }
        Ok(())
    }

    /// Every extent of compressed data, or the first ones and those of the end.
    fn zextents(&self, inode: &Inode, area: &Place<'_>) -> Result<(), Error> {
        let header = Header::read(self.sb, inode, area)?;
        let mut la = 0;
        for step in 0..EXTENTS {
            if step == EXTENTS / 2 {
                la = la.max(inode.size.saturating_sub(1 << 14));
            }
            if la >= inode.size {
                break;
            }
            let extent = map(self.sb, &self.compression, inode, &header, area, la)?;
            check_zextent(self.sb, inode, &extent, la);
            la = extent.end();
            if la < inode.size {
                let next = map_next(self.sb, &self.compression, inode, &header, area, &extent)?;
                check_zextent(self.sb, inode, &next, la);
            }
        }
        Ok(())
    }

    /// Every extent, or the first and the last ones.
    fn extents(&self, inode: &Inode, area: &Place<'_>) -> Result<(), Error> {
        if inode.is_compressed() {
            return self.zextents(inode, area);
        }
        let mut la = 0;
        for step in 0..EXTENTS {
            if step == EXTENTS / 2 {
                la = la.max(inode.size.saturating_sub(1 << 14));
            }
            if la >= inode.size {
                break;
            }
            let extent = map_blocks(self.sb, inode, area, la)?;
            let (start, len) = check_extent(&extent, la);
            if let erofs_shared_format::map::Extent::Mapped { device, pa, .. } = extent {
                for flat in [false, true] {
                    match map_dev(self.sb, &self.slots, flat, device, pa) {
                        Ok((index, _)) => assert!(index <= self.slots.len()),
                        Err(err) => check_error(&err),
                    }
                }
            }
            la = start + len;
        }
        Ok(())
    }

    fn xattrs(&self, inode: &Inode, area: &Place<'_>) -> Result<(), Error> {
        let shared = self.area(if self.sb.shared_ea_in_metabox() {
            Area::Metabox
        } else {
            Area::Image
        })?;
        let sources = XattrSources {
            inode: area,
            shared: &shared,
        };
        let prefix_of = |class| (class == index::USER).then_some(&b"user."[..]);
        let size = listxattr(self.sb, inode, &sources, &self.prefixes, prefix_of, None)?;
        // The kernel's limit for a list.
        let mut names = vec![0; size.min(65536)];
        let out = Some(&mut names[..]);
        match listxattr(self.sb, inode, &sources, &self.prefixes, prefix_of, out) {
            Ok(again) => assert_eq!(again, size),
            Err(err) => return Err(err),
        }
        for name in names.split(|byte| *byte == 0).take(4) {
            let Some(name) = name.strip_prefix(b"user.") else {
                continue;
            };
            let get = |out| {
                getxattr::<_, HostHash>(
                    self.sb,
                    inode,
                    &sources,
                    &self.prefixes,
                    index::USER,
                    name,
                    out,
                )
            };
            match get(None) {
                Ok(size) => {
                    let mut value = vec![0; size];
                    if let Ok(again) = get(Some(&mut value)) {
                        assert_eq!(again, size);
                    }
                }
                Err(err) => assert!(!err.to_string().is_empty()),
            }
        }
        Ok(())
    }

    fn directory(
        &self,
        inode: &Inode,
        area: &Place<'_>,
        found: &mut Vec<u64>,
    ) -> Result<(), Error> {
        let block_size = u64::from(self.sb.block_size());
        let dir = Data::new(self.sb, inode, area, self.image);
        let blocks = inode.size.div_ceil(block_size);
        let steps = u64::from(64 - blocks.leading_zeros());
        for number in 0..blocks.min(DIR_BLOCKS) {
            let pos = number * block_size;
            let len = block_size.min(inode.size - pos);
            let bytes = dir.bread(pos)?;
            let block = match DirBlock::new(&bytes[..bytes.len().min(len as usize)], pos) {
                Ok(block) => block,
                Err(err) => {
                    check_error(&err);
                    continue;
                }
            };
            for index in 0..block.len() {
                let entry = match block.get(index) {
                    Ok(entry) => entry,
                    Err(err) => {
                        check_error(&err);
                        continue;
                    }
                };
                found.push(entry.nid);
                if index % 8 == 0 {
                    dir.reads();
                    let looked = lookup(inode.size, block_size as u32, &dir, entry.name);
                    assert!(dir.reads() <= steps, "steps of a lookup");
                    if let Err(err) = looked {
                        check_error(&err);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks at everything that the root leads to.
    fn walk(&self) {
        let mut queue = vec![self.sb.root_nid];
        let mut seen = HashSet::new();
        while let Some(nid) = queue.pop() {
            if seen.len() >= INODES || !seen.insert(nid) {
                continue;
            }
            let visit = |queue: &mut Vec<u64>| -> Result<(), Error> {
                let inode = self.iget(nid)?;
                let area = self.area(inode.area)?;
                let mut first = self.xattrs(&inode, &area);
                let rest = match inode.file_type {
                    FileType::Directory => self.directory(&inode, &area, queue),
                    FileType::Regular => self.extents(&inode, &area),
                    FileType::Symlink => {
                        let data = Data::new(self.sb, &inode, &area, self.image);
                        let mut target = vec![0; inode.size.min(4096) as usize];
                        read_exact(&data, 0, &mut target)
                    }
                    _ => Ok(()),
                };
                if first.is_ok() {
                    first = rest;
                }
                first
            };
            if let Err(err) = visit(&mut queue) {
                check_error(&err);
            }
        }
    }
}

fn mount(sb: &Superblock, image: &Counting<'_>) -> Result<(), Error> {
    let mut mount = Mount {
        sb,
        image,
        metabox: None,
        slots: Vec::new(),
        prefixes: Vec::new(),
        compression: Compression::read(sb, image)?,
    };
    if sb.has_device_table() {
        for index in 0..sb.extra_devices {
            mount.slots.push(DeviceSlot::read(sb, index, image)?);
        }
    }
    let packed = if sb.has_fragments() && sb.packed_nid != 0 {
        Some(mount.iget(sb.packed_nid)?).filter(|inode| inode.area == Area::Image)
    } else {
        None
    };
    let inode;
    let metabox;
    if let Some(nid) = sb.metabox_nid {
        inode = mount.iget(nid)?;
        metabox = Data::new(sb, &inode, image, image);
        mount.metabox = Some(&metabox);
    }
    mount.iget(sb.root_nid)?;
    // Without them a mount fails; the walk goes on.
    if let Err(err) = mount.read_prefixes(packed.as_ref()) {
        check_error(&err);
    }
    mount.walk();
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some(sb) = superblock(data) else {
        return;
    };
    if let Err(err) = mount(&sb, &Counting::new(data, 4096)) {
        check_error(&err);
    }
});
