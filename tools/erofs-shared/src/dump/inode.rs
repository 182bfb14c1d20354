// SPDX-License-Identifier: GPL-2.0

//! What is shown of an inode: its fields, extents and attributes.

use erofs_shared_format::{
    device::map_dev,
    inode::{FileType, Inode},
    map::Extent,
    source::read_exact,
    zmap::{Coding, Data},
    ReadError,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{bad, Shown};
use crate::{
    image::{Place, Volume},
    text::{date, show},
    xattr,
};

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum ShownExtent {
    Hole {
        start: u64,
        length: u64,
    },
    Inline {
        start: u64,
        length: u64,
        #[serde(rename = "in")]
        place: String,
        offset: u64,
    },
    Mapped {
        start: u64,
        length: u64,
        #[serde(rename = "in")]
        place: String,
        offset: u64,
    },
    Fragment {
        start: u64,
        length: u64,
        /// In the packed inode.
        offset: u64,
    },
    Pcluster {
        start: u64,
        length: u64,
        #[serde(rename = "in")]
        place: String,
        offset: u64,
        /// Bytes on the device.
        stored: u32,
        coding: &'static str,
        inline: bool,
        /// The pcluster decodes to more than this extent.
        partial: bool,
    },
}

#[derive(JsonSchema, Serialize)]
struct ShownXattr {
    name: String,
    /// The value with its unprintable bytes escaped.
    value: String,
}

#[derive(JsonSchema, Serialize)]
pub struct ShownInode {
    nid: u64,
    #[serde(rename = "in")]
    place: String,
    offset: u64,
    inode_size: u8,
    file_type: String,
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    size: u64,
    mtime: i64,
    mtime_nsec: u32,
    layout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed_blocks: Option<u64>,
    /// How the extents of compressed data are described.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    extents: Vec<ShownExtent>,
    xattrs: Vec<ShownXattr>,
}

fn extents(volume: &Volume, inode: &Inode) -> Result<Vec<ShownExtent>, ReadError> {
    if inode.is_compressed() {
        return zextents(volume, inode);
    }
    let mut all = Vec::new();
    let mut pos = 0;
    while pos < inode.size {
        let extent = volume.extent(inode, pos)?;
        let (la, len) = match extent {
            Extent::Hole { la, len } | Extent::Inline { la, len, .. } => (la, len),
            Extent::Mapped { la, len, .. } => (la, len),
        };
        let (start, length) = (la, len.min(inode.size - la));
        all.push(match extent {
            Extent::Hole { .. } => ShownExtent::Hole { start, length },
            Extent::Inline { pa, .. } => ShownExtent::Inline {
                start,
                length,
                place: Place::of(inode.area).to_string(),
                offset: pa,
            },
            Extent::Mapped { device, pa, .. } => {
                // Without --device the primary device may hold all data, or the others are not at hand.
                let (index, offset) = match volume.locate(device, pa) {
                    Ok((index, image, offset)) if offset < image.len() => (index, offset),
                    _ => map_dev(&volume.sb, &volume.slots, false, device, pa)?,
                };
                ShownExtent::Mapped {
                    start,
                    length,
                    place: Place::Device(index).to_string(),
                    offset,
                }
            }
        });
        if la + len <= pos {
            break;
        }
        pos = la + len;
    }
    Ok(all)
}

fn zextents(volume: &Volume, inode: &Inode) -> Result<Vec<ShownExtent>, ReadError> {
    let mut all = Vec::new();
    if inode.size == 0 {
        return Ok(all);
    }
    let header = volume.header(inode)?;
    let mut extent = volume.zextent(inode, &header, 0)?;
    while extent.llen != 0 {
        let (start, length) = (extent.la, extent.llen);
        all.push(match extent.data {
            Data::Hole => ShownExtent::Hole { start, length },
            Data::Fragment { pos } => ShownExtent::Fragment {
                start,
                length,
                offset: pos,
            },
            Data::Pcluster(data) => {
                let (place, offset) = if data.inline {
                    (Place::of(inode.area), data.pa)
                } else {
                    let (index, offset) =
                        map_dev(&volume.sb, &volume.slots, volume.flat(), 0, data.pa)?;
                    (Place::Device(index), offset)
                };
                ShownExtent::Pcluster {
                    start,
                    length,
                    place: place.to_string(),
                    offset,
                    stored: data.plen,
                    coding: match data.coding {
                        Coding::Shifted => "plain",
                        Coding::Interlaced => "plain interlaced",
                        Coding::Compressed(algorithm) => algorithm.name(),
                    },
                    inline: data.inline,
                    partial: data.partial,
                }
            }
        });
        extent = volume.zextent_next(inode, &header, &extent)?;
    }
    Ok(all)
}

impl ShownInode {
    pub(super) fn new(volume: &Volume, inode: &Inode) -> Shown<Self> {
        let fail = |what: &str, err: &ReadError| bad(&format!("nid {}: {what}", inode.nid), err);
        let (_, stat) = volume
            .inode_and_stat(inode.nid)
            .map_err(|err| fail("inode", &err))?;
        let with_data = matches!(
            inode.file_type,
            FileType::Regular | FileType::Directory | FileType::Symlink
        );
        let extents = if with_data {
            extents(volume, inode).map_err(|err| fail("extents", &err))?
        } else {
            Vec::new()
        };
        let mut target = None;
        if inode.file_type == FileType::Symlink && inode.size <= 4096 {
            let mut raw = vec![0; inode.size as usize];
            read_exact(&volume.data(inode), 0, &mut raw).map_err(|err| fail("target", &err))?;
            target = Some(show(&raw));
        }
        let mut xattrs = Vec::new();
        for (name, value) in
            xattr::read_all(volume, inode).map_err(|err| fail("attributes", &err))?
        {
            let name = show(&name);
            let value = value.map_err(|err| fail(&format!("attribute {name}"), &err))?;
            xattrs.push(ShownXattr {
                name,
                value: value.escape_ascii().to_string(),
            });
        }
        let index = if inode.is_compressed() && inode.size != 0 {
            let header = volume.header(inode).map_err(|err| fail("header", &err))?;
            Some(header.layout_name())
        } else {
            None
        };
        let rdev = stat.rdev;
        Ok(Self {
            nid: inode.nid,
            place: Place::of(inode.area).to_string(),
            offset: inode.iloc,
            inode_size: inode.inode_isize,
            file_type: format!("{:?}", inode.file_type).to_lowercase(),
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.nlink,
            size: inode.size,
            mtime: stat.mtime,
            mtime_nsec: stat.mtime_nsec,
            layout: format!("{:?}", inode.layout),
            chunk_size: (inode.layout == erofs_shared_format::inode::Layout::ChunkBased)
                .then(|| 1u64 << inode.chunk_bits(&volume.sb)),
            compressed_blocks: inode
                .is_compressed()
                .then(|| stat.blocks512 / (u64::from(volume.sb.block_size()) / 512)),
            index,
            rdev: matches!(
                inode.file_type,
                FileType::CharDevice | FileType::BlockDevice
            )
            .then_some((
                (rdev >> 8) & 0xFFF,
                (rdev & 0xFF) | ((rdev >> 12) & 0xF_FF00),
            )),
            target,
            extents,
            xattrs,
        })
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            out += &format!("{:<12}{value}\n", format!("{name}:"));
        };
        line("nid", self.nid.to_string());
        line(
            "inode",
            format!(
                "{} bytes, {} byte {:#x}",
                self.inode_size, self.place, self.offset
            ),
        );
        line("type", self.file_type.clone());
        line("mode", format!("{:04o}", self.mode & 0o7777));
        line("owner", format!("{}:{}", self.uid, self.gid));
        line("links", self.nlink.to_string());
        line("size", self.size.to_string());
        line(
            "mtime",
            format!("{}.{:09} UTC", date(self.mtime), self.mtime_nsec),
        );
        let mut layout = self.layout.clone();
        if let Some(size) = self.chunk_size {
            layout += &format!(", chunks of {size} bytes");
        }
        if let Some(blocks) = self.compressed_blocks {
            layout += &format!(", {blocks} blocks");
            if let Some(index) = self.index {
                layout += &format!(", {index}");
            }
        }
        line("layout", layout);
        if let Some((major, minor)) = self.rdev {
            line("device", format!("{major}:{minor}"));
        }
        if let Some(target) = &self.target {
            line("target", target.clone());
        }
        for extent in &self.extents {
            let text = match extent {
                ShownExtent::Hole { start, length } => format!("{start:#x}+{length:#x} hole"),
                ShownExtent::Inline {
                    start,
                    length,
                    place,
                    offset,
                } => format!("{start:#x}+{length:#x} inline, {place} byte {offset:#x}"),
                ShownExtent::Mapped {
                    start,
                    length,
                    place,
                    offset,
                } => format!("{start:#x}+{length:#x} {place} byte {offset:#x}"),
                ShownExtent::Fragment {
                    start,
                    length,
                    offset,
                } => format!("{start:#x}+{length:#x} packed inode byte {offset:#x}"),
                ShownExtent::Pcluster {
                    start,
                    length,
                    place,
                    offset,
                    stored,
                    coding,
                    inline,
                    partial,
                } => format!(
                    "{start:#x}+{length:#x} {coding}{}{}, {place} byte {offset:#x}, {stored:#x} bytes",
                    if *inline { " inline" } else { "" },
                    if *partial { " partial" } else { "" },
                ),
            };
            line("extent", text);
        }
        for xattr in &self.xattrs {
            line("xattr", format!("{}=\"{}\"", xattr.name, xattr.value));
        }
        out
    }
}
