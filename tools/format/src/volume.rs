// SPDX-License-Identifier: GPL-2.0

//! An image with its devices, and where the bytes of each area and file come from.

use std::{cell::RefCell, fmt, rc::Rc};

use crate::{
    decode,
    format::{
        compression::Compression,
        device::{map_dev, DeviceSlot},
        error::{Error, Kind},
        inode::{Inode, Stat},
        map::{map_blocks, Extent},
        source::{read_exact, Source},
        superblock::{Area, Superblock},
        xattr::LongPrefix,
        zmap::{self, Data, Header, ZExtent},
    },
    Image, ReadError,
};

/// Decoded extents that are kept for each file that is being read.
const KEPT_EXTENTS: usize = 4;
/// How many times more bytes than its devices have a metabox may claim: no more than any file of metadata
/// shrinks when it is compressed.
const METABOX_RATIO: u64 = 4096;

/// What is wrong with a part of the image that the rest can do without.
#[derive(Debug)]
pub struct Finding {
    /// The part.
    pub part: &'static str,
    /// Its inode, if it is one.
    pub nid: Option<u64>,
    /// What is wrong.
    pub err: ReadError,
}

/// An inode of the image's own, whose data is read over and over.
#[derive(Debug)]
struct Internal {
    inode: Inode,
    state: RefCell<State>,
}

impl Internal {
    fn new(inode: Inode) -> Self {
        Self {
            inode,
            state: RefCell::default(),
        }
    }
}

/// What is known of a compressed file while it is read.
#[derive(Debug, Default)]
struct State {
    header: Option<Header>,
    /// The latest ones last.
    decoded: Vec<(ZExtent, Rc<[u8]>)>,
}

/// An image and its devices.
pub struct Volume {
    /// Its superblock.
    pub sb: Superblock,
    /// The image itself.
    pub primary: Image,
    /// Extra devices, all or none.
    pub extra: Vec<Image>,
    /// The device table.
    pub slots: Vec<DeviceSlot>,
    /// Long xattr prefixes.
    pub prefixes: Vec<LongPrefix>,
    compression: Option<Compression>,
    metabox: Option<Internal>,
    packed: Option<Internal>,
}

impl Volume {
    /// Reads what is needed to read files; what is wrong with it goes to `findings`. `extra` has one image
    /// for each slot, or none: then all data is on the primary device.
    pub fn new(
        sb: Superblock,
        primary: Image,
        extra: Vec<Image>,
        slots: Vec<DeviceSlot>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut this = Self {
            sb,
            primary,
            extra,
            slots,
            prefixes: Vec::new(),
            compression: None,
            metabox: None,
            packed: None,
        };
        let mut find = |part, nid, err| findings.push(Finding { part, nid, err });
        match Compression::read(&this.sb, &this.primary) {
            Ok(mut compression) => {
                compression.set_end(this.end());
                this.compression = Some(compression);
            }
            Err(err) => find("compression configurations", None, err),
        }
        if this.sb.has_fragments() && this.sb.packed_nid != 0 {
            let nid = this.sb.packed_nid;
            // Before there is a metabox: it cannot be in that.
            match this.inode(nid) {
                Ok(inode) => this.packed = Some(Internal::new(inode)),
                Err(err) => find("packed inode", Some(nid), err),
            }
        }
        if let Some(nid) = this.sb.metabox_nid {
            match this.inode(nid) {
                // Walking what it holds has to come to an end.
                Ok(inode) if inode.size > this.stored_bytes().saturating_mul(METABOX_RATIO) => {
                    let err = Error {
                        kind: Kind::Corrupted,
                        what: "metabox larger than the devices can hold",
                        pos: inode.iloc + 8,
                        value: inode.size,
                    };
                    find("metabox", Some(nid), err.into());
                }
                Ok(inode) => this.metabox = Some(Internal::new(inode)),
                Err(err) => find("metabox", Some(nid), err),
            }
        }
        match this.read_prefixes() {
            Ok(prefixes) => this.prefixes = prefixes,
            Err(err) => find("long xattr prefixes", None, err),
        }
        this
    }

    fn read_prefixes(&self) -> Result<Vec<LongPrefix>, ReadError> {
        if self.sb.xattr_prefix_count == 0 {
            return Ok(Vec::new());
        }
        // The order in which the kernel looks for them.
        let src = if self.sb.plain_xattr_pfx() {
            Bytes::Image(&self.primary)
        } else if self.sb.has_metabox() {
            self.area(Area::Metabox)?
        } else if let Some(packed) = self.packed.as_ref() {
            self.internal(packed)
        } else {
            Bytes::Image(&self.primary)
        };
        let mut pos = u64::from(self.sb.xattr_prefix_start) << 2;
        (0..self.sb.xattr_prefix_count)
            .map(|_| LongPrefix::read(&src, &mut pos))
            .collect()
    }

    /// Bytes on all devices.
    fn stored_bytes(&self) -> u64 {
        self.extra.iter().fold(self.primary.len(), |sum, device| {
            sum.saturating_add(device.len())
        })
    }

    /// Where the unified address space ends.
    fn end(&self) -> u64 {
        let ends = self.slots.iter().take(self.extra.len()).filter_map(|slot| {
            let end = slot.uniaddr.checked_add(slot.blocks)?;
            (slot.uniaddr != 0).then(|| end.saturating_mul(self.sb.block_size().into()))
        });
        ends.fold(self.primary.len(), u64::max)
    }

    /// Whether all data is on the primary device.
    pub fn flat(&self) -> bool {
        self.extra.is_empty()
    }

    /// The metabox inode.
    pub fn metabox(&self) -> Option<&Inode> {
        self.metabox.as_ref().map(|metabox| &metabox.inode)
    }

    /// The packed inode.
    pub fn packed(&self) -> Option<&Inode> {
        self.packed.as_ref().map(|packed| &packed.inode)
    }

    /// The compression configurations, if they could be read.
    pub fn compression(&self) -> Result<&Compression, Error> {
        self.compression.as_ref().ok_or(Error {
            kind: Kind::Corrupted,
            what: "no readable compression configurations",
            pos: 0,
            value: 0,
        })
    }

    fn internal<'v>(&'v self, internal: &'v Internal) -> Bytes<'v> {
        Bytes::File(FileBytes {
            volume: self,
            inode: &internal.inode,
            shared: Some(&internal.state),
            own: RefCell::default(),
        })
    }

    /// The bytes of an area.
    pub fn area(&self, area: Area) -> Result<Bytes<'_>, Error> {
        match area {
            Area::Image => Ok(Bytes::Image(&self.primary)),
            Area::Metabox => match self.metabox.as_ref() {
                Some(metabox) => Ok(self.internal(metabox)),
                None => Err(Error {
                    kind: Kind::Corrupted,
                    what: "no readable metabox",
                    pos: 0,
                    value: self.sb.metabox_nid.unwrap_or(0),
                }),
            },
        }
    }

    /// Bytes in an area.
    pub fn area_len(&self, area: Area) -> u64 {
        match area {
            Area::Image => self.primary.len(),
            Area::Metabox => self.metabox().map_or(0, |inode| inode.size),
        }
    }

    /// Reads an inode.
    pub fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let (area, _) = self.sb.iloc(nid)?;
        Inode::read(&self.sb, nid, &self.area(area)?)
    }

    /// Reads an inode, and what it says for stat(2).
    pub fn inode_and_stat(&self, nid: u64) -> Result<(Inode, Stat), ReadError> {
        let (area, iloc) = self.sb.iloc(nid)?;
        let area = self.area(area)?;
        Inode::read_at(&self.sb, nid, &area.bread(iloc)?, &area)
    }

    /// The data of a file.
    pub fn data<'v>(&'v self, inode: &'v Inode) -> Bytes<'v> {
        Bytes::File(FileBytes {
            volume: self,
            inode,
            shared: None,
            own: RefCell::default(),
        })
    }

    /// The extent of an uncompressed file that holds byte `la`.
    pub fn extent(&self, inode: &Inode, la: u64) -> Result<Extent, ReadError> {
        map_blocks(&self.sb, inode, &self.area(inode.area)?, la)
    }

    /// The header of a compressed file.
    pub fn header(&self, inode: &Inode) -> Result<Header, ReadError> {
        Header::read(&self.sb, inode, &self.area(inode.area)?)
    }

    /// The extent of a compressed file that holds byte `la`.
    pub fn zextent(&self, inode: &Inode, header: &Header, la: u64) -> Result<ZExtent, ReadError> {
        let area = self.area(inode.area)?;
        zmap::map(&self.sb, self.compression()?, inode, header, &area, la)
    }

    /// The extent of a compressed file behind another.
    pub fn zextent_next(
        &self,
        inode: &Inode,
        header: &Header,
        before: &ZExtent,
    ) -> Result<ZExtent, ReadError> {
        let area = self.area(inode.area)?;
        zmap::map_next(&self.sb, self.compression()?, inode, header, &area, before)
    }

    /// The bytes of an extent that is in a pcluster, decoded.
    pub fn decode(&self, inode: &Inode, extent: &ZExtent) -> Result<Vec<u8>, ReadError> {
        let Data::Pcluster(data) = &extent.data else {
            return Ok(Vec::new());
        };
        let mut raw = vec![0; data.plen as usize];
        if data.inline {
            read_exact(&self.area(inode.area)?, data.pa, &mut raw)?;
        } else {
            let (_, image, pos) = self.locate(0, data.pa)?;
            read_inside(image, pos, &mut raw)?;
        }
        Ok(decode(&self.sb, self.compression()?, extent, &raw)?)
    }

    /// Device (0: the primary one), its bytes, and the byte on it.
    pub fn locate(&self, device: u16, pa: u64) -> Result<(usize, &Image, u64), Error> {
        let (index, pos) = map_dev(&self.sb, &self.slots, self.flat(), device, pa)?;
        let image = match index.checked_sub(1) {
            None => Some(&self.primary),
            Some(extra) => self.extra.get(extra),
        };
        let image = image.ok_or(Error {
            kind: Kind::NoDevice,
            what: "no such device",
            pos: pa,
            value: index as u64,
        })?;
        Ok((index, image, pos))
    }

    /// Where byte `la` of a file is, for messages. Bytes of compressed files have no other place than the
    /// file.
    pub fn place(&self, inode: &Inode, la: u64) -> Option<(Place, u64)> {
        if inode.is_compressed() {
            return Some((Place::File, la));
        }
        match self.extent(inode, la).ok()? {
            Extent::Mapped {
                la: start,
                device,
                pa,
                ..
            } => {
                let (index, _, pos) = self.locate(device, pa).ok()?;
                Some((Place::Device(index), pos + (la - start)))
            }
            Extent::Inline { la: start, pa, .. } => {
                Some((Place::of(inode.area), pa + (la - start)))
            }
            Extent::Hole { .. } => None,
        }
    }
}

/// What a position counts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A device: 0 is the image itself.
    Device(usize),
    /// The metabox inode's data.
    Metabox,
    /// The data of the inode at hand, which is compressed.
    File,
}

impl Place {
    /// The place of an area.
    pub fn of(area: Area) -> Self {
        match area {
            Area::Image => Place::Device(0),
            Area::Metabox => Place::Metabox,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Device(0) => f.write_str("image"),
            Place::Device(index) => write!(f, "device {index}"),
            Place::Metabox => f.write_str("metabox"),
            Place::File => f.write_str("file"),
        }
    }
}

/// An area of bytes.
pub enum Bytes<'v> {
    /// The primary device.
    Image(&'v Image),
    /// The data of a file.
    File(FileBytes<'v>),
}

/// The data of a file.
pub struct FileBytes<'v> {
    volume: &'v Volume,
    inode: &'v Inode,
    /// Of the image's own inodes, from one reading to the next.
    shared: Option<&'v RefCell<State>>,
    own: RefCell<State>,
}

impl FileBytes<'_> {
    fn bad(&self, what: &'static str, pos: u64) -> ReadError {
        Error {
            kind: Kind::Corrupted,
            what,
            pos,
            value: self.inode.size,
        }
        .into()
    }

    /// Fills `out`, which is inside the file, from `pos` on.
    fn read(&self, pos: u64, out: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        while done < out.len() {
            let pos = pos + done as u64;
            let Some(rest) = out.get_mut(done..) else {
                break;
            };
            let count = if self.inode.is_compressed() {
                self.read_compressed(pos, rest)?
            } else {
                self.read_plain(pos, rest)?
            };
            if count == 0 {
                return Err(self.bad("no extent", pos));
            }
            done += count;
        }
        Ok(())
    }

    fn read_plain(&self, pos: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let volume = self.volume;
        let extent = volume.extent(self.inode, pos)?;
        let (start, len) = match extent {
            Extent::Hole { la, len } | Extent::Inline { la, len, .. } => (la, len),
            Extent::Mapped { la, len, .. } => (la, len),
        };
        let skip = pos - start;
        let out = head(out, len.saturating_sub(skip));
        match extent {
            Extent::Hole { .. } => out.fill(0),
            Extent::Mapped { device, pa, .. } => {
                let (_, image, start) = volume.locate(device, pa)?;
                read_inside(image, start.saturating_add(skip), out)?;
            }
            Extent::Inline { pa, .. } => {
                read_exact(&volume.area(self.inode.area)?, pa + skip, out)?;
            }
        }
        Ok(out.len())
    }

    fn read_compressed(&self, pos: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let volume = self.volume;
        let state = self.shared.unwrap_or(&self.own);
        let known = state
            .borrow()
            .decoded
            .iter()
            .find(|(extent, _)| (extent.la..extent.end()).contains(&pos))
            .cloned();
        if let Some((extent, bytes)) = known {
            return Ok(copy(&bytes, pos - extent.la, out));
        }
        let header = state.borrow().header;
        let header = match header {
            Some(header) => header,
            None => *state.borrow_mut().header.insert(volume.header(self.inode)?),
        };
        let last = state.borrow().decoded.last().map(|(extent, _)| *extent);
        let extent = match last {
            Some(last) if last.end() == pos => volume.zextent_next(self.inode, &header, &last)?,
            _ => volume.zextent(self.inode, &header, pos)?,
        };
        let skip = pos - extent.la;
        match extent.data {
            Data::Hole => {
                let out = head(out, extent.llen - skip);
                out.fill(0);
                Ok(out.len())
            }
            Data::Fragment { pos: start } => {
                let Some(packed) = volume.packed.as_ref() else {
                    return Err(self.bad("fragment without a readable packed inode", pos));
                };
                let out = head(out, extent.llen - skip);
                let Bytes::File(bytes) = volume.internal(packed) else {
                    return Ok(0);
                };
                let end = start.saturating_add(extent.llen);
                if end > packed.inode.size {
                    return Err(self.bad("fragment past the end of the packed inode", end));
                }
                bytes.read(start + skip, out)?;
                Ok(out.len())
            }
            Data::Pcluster(_) => {
                let bytes: Rc<[u8]> = volume.decode(self.inode, &extent)?.into();
                let count = copy(&bytes, skip, out);
                let mut state = state.borrow_mut();
                if state.decoded.len() >= KEPT_EXTENTS {
                    state.decoded.remove(0);
                }
                state.decoded.push((extent, bytes));
                Ok(count)
            }
        }
    }
}

/// The first `len` bytes, or all.
fn head(out: &mut [u8], len: u64) -> &mut [u8] {
    let len = len.min(out.len() as u64) as usize;
    &mut out[..len]
}

/// Copies from byte `from` on, as much as there is.
fn copy(bytes: &[u8], from: u64, out: &mut [u8]) -> usize {
    let rest = bytes.get(from as usize..).unwrap_or(&[]);
    let len = rest.len().min(out.len());
    out[..len].copy_from_slice(&rest[..len]);
    len
}

impl Source for Bytes<'_> {
    type Error = ReadError;
    type Buf<'b>
        = Vec<u8>
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<Vec<u8>, ReadError> {
        let file = match self {
            Bytes::Image(image) => return Ok(image.bread(pos)?.into_owned()),
            Bytes::File(file) => file,
        };
        let size = file.inode.size;
        if pos >= size {
            return Err(file.bad("past the end of the file", pos));
        }
        let block = u64::from(file.volume.sb.block_size());
        let len = (block - pos % block).min(size - pos);
        let mut out = vec![0; len as usize];
        file.read(pos, &mut out)?;
        Ok(out)
    }
}

/// Reads from a device; an error behind its end.
fn read_inside(image: &Image, pos: u64, out: &mut [u8]) -> Result<(), ReadError> {
    let end = pos.checked_add(out.len() as u64);
    if end.is_none_or(|end| end > image.len()) {
        return Err(Error {
            kind: Kind::Corrupted,
            what: "data past the end of the device",
            pos,
            value: image.len(),
        }
        .into());
    }
    Ok(image.read(pos, out)?)
}
