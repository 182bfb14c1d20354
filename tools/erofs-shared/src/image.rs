// SPDX-License-Identifier: GPL-2.0

//! An image with its devices, and where the bytes of each area and file come from.

use std::{
    fmt,
    fs::File,
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

use clap::Args;
use erofs_shared_format::{
    device::{map_dev, DeviceSlot},
    error::{Error, Kind},
    inode::Inode,
    map::{map_blocks, Extent},
    source::Source,
    superblock::{compat, Area, Superblock, SUPER_OFFSET},
    xattr::LongPrefix,
    HostHash, Image, ReadError,
};

/// Where an image is.
#[derive(Args, Debug)]
pub struct Location {
    /// An extra device of the image, in the order of its device table; once for each
    #[arg(long = "device", value_name = "FILE")]
    pub devices: Vec<PathBuf>,

    /// Where the image starts in its file, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub offset: u64,
}

/// Why an image could not be opened.
pub enum OpenError {
    /// A file could not be read, or the arguments do not fit: the text says what to do.
    Usage(String),
    /// The image is wrong.
    Bad(Error),
}

impl From<Error> for OpenError {
    fn from(err: Error) -> Self {
        OpenError::Bad(err)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Usage(text) => f.write_str(text),
            OpenError::Bad(err) if err.kind == Kind::NotErofs => {
                write!(
                    f,
                    "{err}. If the image starts later in the file, give --offset"
                )
            }
            OpenError::Bad(err) => err.fmt(f),
        }
    }
}

/// What is wrong with a part of the image that the rest can do without.
pub struct Finding {
    /// The part.
    pub part: &'static str,
    /// Its inode, if it is one.
    pub nid: Option<u64>,
    /// What is wrong.
    pub err: ReadError,
}

/// An image and its devices.
pub struct Volume {
    pub sb: Superblock,
    pub primary: Image,
    pub extra: Vec<Image>,
    pub slots: Vec<DeviceSlot>,
    pub metabox: Option<Inode>,
    pub packed: Option<Inode>,
    pub prefixes: Vec<LongPrefix>,
    /// The long prefixes are in compressed data, which is not read: attributes with them are not seen.
    pub prefixes_compressed: bool,
}

fn open_file(path: &Path, offset: u64) -> Result<Image, OpenError> {
    let fail = |err| OpenError::Usage(format!("{}: {err}", path.display()));
    let mut file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(OpenError::Usage(format!(
            "{}: is a directory; give the image's file or block device",
            path.display()
        )));
    }
    // Not the metadata: a block device has no length there.
    let len = file.seek(SeekFrom::End(0)).map_err(fail)?;
    if offset > len {
        return Err(OpenError::Usage(format!(
            "{}: --offset {offset} is behind the end of the file ({len} bytes)",
            path.display()
        )));
    }
    Ok(Image::new(file, offset, len))
}

/// The superblock; with a wrong checksum, that is a finding, and the superblock is read without it.
fn parse_superblock(head: &[u8], findings: &mut Vec<Finding>) -> Result<Superblock, Error> {
    let err = match Superblock::parse::<HostHash>(head) {
        Err(err) if err.kind == Kind::Checksum => err,
        other => return other,
    };
    let mut head = head.to_vec();
    if let Some(byte) = head.get_mut(SUPER_OFFSET + 8) {
        *byte &= !(compat::SB_CHKSUM as u8);
    }
    let mut sb = Superblock::parse::<HostHash>(&head)?;
    sb.feature_compat |= compat::SB_CHKSUM;
    findings.push(Finding {
        part: "superblock",
        nid: None,
        err: err.into(),
    });
    Ok(sb)
}

impl Volume {
    /// Opens an image; what is wrong with its internal inodes goes to `findings`.
    pub fn open(
        path: &Path,
        location: &Location,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, OpenError> {
        let io = |path: &Path, err: &dyn fmt::Display| {
            OpenError::Usage(format!("{}: {err}", path.display()))
        };
        let primary = open_file(path, location.offset)?;
        let head = primary.head().map_err(|err| io(path, &err))?;
        let sb = parse_superblock(&head, findings)?;
        let mut slots = Vec::new();
        if sb.has_device_table() {
            for index in 0..sb.extra_devices {
                slots.push(
                    DeviceSlot::read(&sb, index, &primary).map_err(|err| match err {
                        ReadError::Format(err) => OpenError::Bad(err),
                        ReadError::Io(err) => io(path, &err),
                    })?,
                );
            }
        }
        let given = location.devices.len();
        if given != 0 && given != slots.len() {
            return Err(OpenError::Usage(format!(
                "{}: the image has {} extra devices, but --device was given {given} times; give it once for each",
                path.display(),
                slots.len()
            )));
        }
        let mut extra = Vec::new();
        for device in &location.devices {
            extra.push(open_file(device, 0)?);
        }
        let mut this = Self {
            sb,
            primary,
            extra,
            slots,
            metabox: None,
            packed: None,
            prefixes: Vec::new(),
            prefixes_compressed: false,
        };
        this.read_internal(findings);
        Ok(this)
    }

    /// The metabox, the packed inode and the long xattr prefixes.
    fn read_internal(&mut self, findings: &mut Vec<Finding>) {
        let mut find = |part, nid, err| findings.push(Finding { part, nid, err });
        if let Some(nid) = self.sb.metabox_nid {
            match self.inode(nid) {
                // Every byte of it is stored, so that walking what it holds comes to an end.
                Ok(inode) if inode.size > self.stored_bytes() => {
                    let err = Error {
                        kind: Kind::Corrupted,
                        what: "metabox larger than all devices",
                        pos: inode.iloc + 8,
                        value: inode.size,
                    };
                    find("metabox", Some(nid), err.into());
                }
                Ok(inode) => self.metabox = Some(inode),
                Err(err) => find("metabox", Some(nid), err),
            }
        }
        if self.sb.has_fragments() && self.sb.packed_nid != 0 {
            let nid = self.sb.packed_nid;
            match self.inode(nid) {
                Ok(inode) => self.packed = Some(inode),
                Err(err) => find("packed inode", Some(nid), err),
            }
        }
        match self.read_prefixes() {
            Ok(Some(prefixes)) => self.prefixes = prefixes,
            Ok(None) => self.prefixes_compressed = true,
            Err(err) => find("long xattr prefixes", None, err),
        }
    }

    /// `None`: they are in compressed data.
    fn read_prefixes(&self) -> Result<Option<Vec<LongPrefix>>, ReadError> {
        if self.sb.xattr_prefix_count == 0 {
            return Ok(Some(Vec::new()));
        }
        // The order in which the kernel looks for them.
        let src = if self.sb.plain_xattr_pfx() {
            Bytes::Image(&self.primary)
        } else if self.sb.has_metabox() {
            self.area(Area::Metabox)?
        } else if let Some(packed) = self.packed.as_ref() {
            self.data(packed)
        } else {
            Bytes::Image(&self.primary)
        };
        if matches!(src, Bytes::File(_, inode) if inode.is_compressed()) {
            return Ok(None);
        }
        let mut pos = u64::from(self.sb.xattr_prefix_start) << 2;
        (0..self.sb.xattr_prefix_count)
            .map(|_| LongPrefix::read(&src, &mut pos))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Bytes on all devices.
    fn stored_bytes(&self) -> u64 {
        self.extra.iter().fold(self.primary.len(), |sum, device| {
            sum.saturating_add(device.len())
        })
    }

    /// Whether all data is on the primary device.
    pub fn flat(&self) -> bool {
        self.extra.is_empty()
    }

    /// The bytes of an area.
    pub fn area(&self, area: Area) -> Result<Bytes<'_>, Error> {
        match area {
            Area::Image => Ok(Bytes::Image(&self.primary)),
            Area::Metabox => match self.metabox.as_ref() {
                Some(inode) => Ok(self.data(inode)),
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
            Area::Metabox => self.metabox.as_ref().map_or(0, |inode| inode.size),
        }
    }

    /// Reads an inode.
    pub fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let (area, _) = self.sb.iloc(nid)?;
        Inode::read(&self.sb, nid, &self.area(area)?)
    }

    /// The data of a file.
    pub fn data<'v>(&'v self, inode: &'v Inode) -> Bytes<'v> {
        Bytes::File(self, inode)
    }

    /// The extent that holds byte `la` of a file.
    pub fn extent(&self, inode: &Inode, la: u64) -> Result<Extent, ReadError> {
        map_blocks(&self.sb, inode, &self.area(inode.area)?, la)
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

    /// Where byte `la` of a file is, for messages: area and position.
    pub fn place(&self, inode: &Inode, la: u64) -> Option<(Place, u64)> {
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
    Metabox,
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
        }
    }
}

/// An area of bytes.
pub enum Bytes<'v> {
    Image(&'v Image),
    File(&'v Volume, &'v Inode),
}

impl Source for Bytes<'_> {
    type Error = ReadError;
    type Buf<'b>
        = Vec<u8>
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<Vec<u8>, ReadError> {
        let (volume, inode) = match self {
            Bytes::Image(image) => return Ok(image.bread(pos)?.into_owned()),
            Bytes::File(volume, inode) => (*volume, *inode),
        };
        let bad = |what, value| Error {
            kind: Kind::Corrupted,
            what,
            pos,
            value,
        };
        if pos >= inode.size {
            return Err(bad("past the end of the file", inode.size).into());
        }
        let block = u64::from(volume.sb.block_size());
        let len = (block - pos % block).min(inode.size - pos);
        let mut out = vec![0; len as usize];
        match volume.extent(inode, pos)? {
            Extent::Hole { .. } => {}
            Extent::Mapped { la, device, pa, .. } => {
                let (_, image, start) = volume.locate(device, pa)?;
                read_inside(image, start.saturating_add(pos - la), &mut out)?;
            }
            Extent::Inline { la, pa, .. } => {
                let area = volume.area(inode.area)?;
                erofs_shared_format::source::read_exact(&area, pa + (pos - la), &mut out)?;
            }
        }
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
