// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared dump`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use erofs_shared_format::{
    compression::Algorithm,
    device::map_dev,
    dirent::{lookup, DirBlock},
    inode::{FileType, Inode},
    map::Extent,
    source::{read_exact, Source},
    superblock::Superblock,
    zmap::{Coding, Data},
    ReadError,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    image::{open, Location, Place, Volume},
    text::{date, show, uuid},
    xattr, Outcome,
};

/// Options of `dump`.
#[derive(Args)]
#[command(
    after_help = "Without --path and --nid the superblock is shown (with --ls, the root directory).\n\nExit status: 0 shown, 1 the image is wrong, 2 wrong usage, no such file in it, or it cannot be read."
)]
pub struct Options {
    /// Image: a file or a block device
    #[arg(value_name = "IMAGE")]
    image: PathBuf,

    #[command(flatten)]
    location: Location,

    /// Show the inode of this path; symlinks are not followed
    #[arg(long, value_name = "P", conflicts_with = "nid")]
    path: Option<String>,

    /// Show the inode with this number
    #[arg(long, value_name = "N")]
    nid: Option<u64>,

    /// List a directory: the one that --path or --nid names, else the root
    #[arg(long)]
    ls: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What went wrong: the exit status, and what to say.
struct Failure(Outcome, String);

type Shown<T> = Result<T, Failure>;

fn bad(what: &str, err: &ReadError) -> Failure {
    let outcome = match err {
        ReadError::Format(_) => Outcome::Problems,
        ReadError::Io(_) => Outcome::Failed,
    };
    Failure(outcome, format!("{what}: {err}"))
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let text = match show_all(options) {
        Ok(text) => text,
        Err(Failure(outcome, text)) => {
            eprintln!("erofs-shared: {text}");
            return Ok(outcome);
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Outcome::Clean)
}

fn show_all(options: &Options) -> Shown<String> {
    let mut findings = Vec::new();
    let volume =
        open(&options.image, &options.location, &mut findings).map_err(|err| match err {
            crate::image::OpenError::Usage(text) => Failure(Outcome::Failed, text),
            err => Failure(
                Outcome::Problems,
                format!("{}: {err}", options.image.display()),
            ),
        })?;
    for finding in &findings {
        eprintln!("erofs-shared: warning: {}: {}", finding.part, finding.err);
    }
    let nid = match (&options.path, options.nid) {
        (Some(path), _) => resolve(&volume, path)?,
        (None, Some(nid)) => nid,
        (None, None) if options.ls => volume.sb.root_nid,
        (None, None) => {
            return finish(options, &Output::Superblock(ShownSuperblock::new(&volume)));
        }
    };
    let inode = volume
        .inode(nid)
        .map_err(|err| bad(&format!("nid {nid}"), &err))?;
    if options.ls {
        let entries = list(&volume, &inode)?;
        return finish(options, &Output::Entries(entries));
    }
    finish(options, &Output::Inode(ShownInode::new(&volume, &inode)?))
}

/// What `dump` prints: the superblock, an inode, or the entries of a directory.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum Output {
    Superblock(ShownSuperblock),
    Inode(ShownInode),
    Entries(Vec<ShownEntry>),
}

fn finish(options: &Options, shown: &Output) -> Shown<String> {
    if !options.json {
        return Ok(match shown {
            Output::Superblock(shown) => shown.text(),
            Output::Inode(shown) => shown.text(),
            Output::Entries(entries) => entries.iter().map(ShownEntry::text).collect(),
        });
    }
    let mut json = serde_json::to_string_pretty(shown)
        .map_err(|err| Failure(Outcome::Failed, format!("cannot make JSON: {err}")))?;
    json.push('\n');
    Ok(json)
}

/// The nid of a path.
fn resolve(volume: &Volume, path: &str) -> Shown<u64> {
    let mut nid = volume.sb.root_nid;
    let mut done = String::from("/");
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let inode = volume.inode(nid).map_err(|err| bad(&done, &err))?;
        if inode.file_type != FileType::Directory {
            let hint = match inode.file_type {
                FileType::Symlink => "a symlink, which is not followed: give the path it leads to",
                _ => "not a directory",
            };
            return Err(Failure(Outcome::Failed, format!("{done}: {hint}")));
        }
        let data = volume.data(&inode);
        let found = lookup(inode.size, volume.sb.block_size(), &data, name.as_bytes())
            .map_err(|err| bad(&done, &err))?;
        let Some((next, _)) = found else {
            // A name that is not stored.
            if name == "." {
                continue;
            }
            return Err(Failure(
                Outcome::Failed,
                format!("{done}: no entry \"{name}\"; --ls --path {done} lists what is there"),
            ));
        };
        nid = next;
        if !done.ends_with('/') {
            done.push('/');
        }
        done.push_str(name);
    }
    Ok(nid)
}

/// Names of compatible and incompatible features, as erofs-utils prints them.
const COMPAT: [(u32, &str); 6] = [
    (0x01, "sb_csum"),
    (0x02, "mtime"),
    (0x04, "xattr_filter"),
    (0x08, "shared_ea_in_metabox"),
    (0x10, "plain_xattr_pfx"),
    (0x20, "ishare_xattrs"),
];
const INCOMPAT: [(u32, &str); 11] = [
    (0x001, "0padding"),
    (0x002, "compr_cfgs"),
    (0x002, "big_pcluster"),
    (0x004, "chunked_file"),
    (0x008, "device_table"),
    (0x010, "ztailpacking"),
    (0x020, "fragments"),
    (0x020, "dedupe"),
    (0x040, "xattr_prefixes"),
    (0x080, "48bit"),
    (0x100, "metabox"),
];

fn features(sb: &Superblock) -> Vec<&'static str> {
    let of = |bits: u32, names: &[(u32, &'static str)]| -> Vec<&'static str> {
        let on = names.iter().filter(|(bit, _)| bits & bit != 0);
        on.map(|(_, name)| *name).collect()
    };
    let mut all = of(sb.feature_compat, &COMPAT);
    all.extend(of(sb.feature_incompat, &INCOMPAT));
    all
}

fn algorithms(volume: &Volume) -> Vec<String> {
    let Ok(compression) = volume.compression() else {
        return Vec::new();
    };
    let used = Algorithm::ALL.into_iter();
    used.filter(|algorithm| compression.has(*algorithm))
        .map(|algorithm| match algorithm {
            Algorithm::Lz4 => format!(
                "lz4 (distance {}, pclusters of {} blocks)",
                compression.lz4_max_distance, compression.lz4_max_pclusterblks
            ),
            Algorithm::Lzma => format!("lzma (dictionary {} bytes)", compression.lzma_dict_size),
            Algorithm::Deflate => {
                format!(
                    "deflate (window of {} bits)",
                    compression.deflate_windowbits
                )
            }
            Algorithm::Zstd => format!("zstd (window of {} bits)", compression.zstd_windowlog),
        })
        .collect()
}

#[derive(JsonSchema, Serialize)]
pub struct ShownDevice {
    tag: String,
    blocks: u64,
    uniaddr: u64,
}

#[derive(JsonSchema, Serialize)]
pub struct ShownSuperblock {
    magic: u32,
    checksum: u32,
    block_size: u32,
    blocks: u64,
    meta_blkaddr: u32,
    xattr_blkaddr: u32,
    root_nid: u64,
    packed_nid: Option<u64>,
    metabox_nid: Option<u64>,
    /// Compression algorithms with their limits.
    algorithms: Vec<String>,
    sb_size: u32,
    inos: u64,
    epoch: i64,
    build_time: u32,
    created: String,
    features: Vec<&'static str>,
    feature_compat: u32,
    feature_incompat: u32,
    xattr_prefixes: Vec<String>,
    uuid: String,
    volume_name: String,
    devices: Vec<ShownDevice>,
}

impl ShownSuperblock {
    fn new(volume: &Volume) -> Self {
        let sb = &volume.sb;
        let created = sb.epoch.saturating_add(sb.build_time.into());
        Self {
            magic: erofs_shared_format::superblock::SUPER_MAGIC,
            checksum: sb.checksum,
            block_size: sb.block_size(),
            blocks: sb.blocks,
            meta_blkaddr: sb.meta_blkaddr,
            xattr_blkaddr: sb.xattr_blkaddr,
            root_nid: sb.root_nid,
            packed_nid: (sb.has_fragments() && sb.packed_nid != 0).then_some(sb.packed_nid),
            metabox_nid: sb.metabox_nid,
            algorithms: algorithms(volume),
            sb_size: sb.sb_size,
            inos: sb.inos,
            epoch: sb.epoch,
            build_time: sb.build_time,
            created: format!("{} UTC", date(created)),
            features: features(sb),
            feature_compat: sb.feature_compat,
            feature_incompat: sb.feature_incompat,
            xattr_prefixes: volume
                .prefixes
                .iter()
                .map(|prefix| format!("{}:{}", prefix.base_index, show(prefix.infix())))
                .collect(),
            uuid: uuid(&sb.uuid),
            volume_name: show(sb.volume_name()),
            devices: volume
                .slots
                .iter()
                .map(|slot| ShownDevice {
                    tag: show(slot.tag()),
                    blocks: slot.blocks,
                    uniaddr: slot.uniaddr,
                })
                .collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            out += format!("{:<28}{value}", format!("{name}:")).trim_end();
            out.push('\n');
        };
        line("magic", format!("{:#X}", self.magic));
        line("checksum", format!("{:#010x}", self.checksum));
        line("block size", self.block_size.to_string());
        line("blocks", self.blocks.to_string());
        line("inode metadata block", self.meta_blkaddr.to_string());
        line("shared xattr block", self.xattr_blkaddr.to_string());
        line("root nid", self.root_nid.to_string());
        if let Some(nid) = self.packed_nid {
            line("packed nid", nid.to_string());
        }
        if let Some(nid) = self.metabox_nid {
            line("metabox nid", nid.to_string());
        }
        line("superblock size", self.sb_size.to_string());
        line("inode count", self.inos.to_string());
        line("created", self.created.clone());
        line("features", self.features.join(" "));
        if !self.algorithms.is_empty() {
            line("compression", self.algorithms.join(", "));
        }
        if !self.xattr_prefixes.is_empty() {
            line("long xattr prefixes", self.xattr_prefixes.join(" "));
        }
        line("uuid", self.uuid.clone());
        line("volume name", self.volume_name.clone());
        for (index, device) in self.devices.iter().enumerate() {
            let mut value = format!("{} blocks", device.blocks);
            if device.uniaddr != 0 {
                value += &format!(", from block {} of the address space", device.uniaddr);
            }
            if !device.tag.is_empty() {
                value += &format!(", tag \"{}\"", device.tag);
            }
            line(&format!("device {}", index + 1), value);
        }
        out
    }
}

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
    fn new(volume: &Volume, inode: &Inode) -> Shown<Self> {
        let fail = |what: &str, err: &ReadError| bad(&format!("nid {}: {what}", inode.nid), err);
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
        let rdev = inode.rdev;
        Ok(Self {
            nid: inode.nid,
            place: Place::of(inode.area).to_string(),
            offset: inode.iloc,
            inode_size: inode.inode_isize,
            file_type: format!("{:?}", inode.file_type).to_lowercase(),
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            nlink: inode.nlink,
            size: inode.size,
            mtime: inode.mtime,
            mtime_nsec: inode.mtime_nsec,
            layout: format!("{:?}", inode.layout),
            chunk_size: (inode.layout == erofs_shared_format::inode::Layout::ChunkBased)
                .then(|| 1u64 << inode.chunk_bits(&volume.sb)),
            compressed_blocks: inode.is_compressed().then_some(inode.compressed_blocks),
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

    fn text(&self) -> String {
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

#[derive(JsonSchema, Serialize)]
pub struct ShownEntry {
    name: String,
    nid: u64,
    file_type: u8,
}

impl ShownEntry {
    fn text(&self) -> String {
        // Unknown, and the types in the order of their numbers.
        let letter = "?-dcbpsl".chars().nth(self.file_type.into()).unwrap_or('?');
        format!("{letter} {:>12} {}\n", self.nid, self.name)
    }
}

fn list(volume: &Volume, inode: &Inode) -> Shown<Vec<ShownEntry>> {
    let what = format!("nid {}", inode.nid);
    if inode.file_type != FileType::Directory {
        return Err(Failure(
            Outcome::Failed,
            format!("{what}: not a directory; leave out --ls to show its inode"),
        ));
    }
    let data = volume.data(inode);
    let mut entries = Vec::new();
    let mut pos = 0;
    while pos < inode.size {
        let bytes = data.bread(pos).map_err(|err| bad(&what, &err))?;
        let block = DirBlock::new(&bytes, pos).map_err(|err| bad(&what, &err.into()))?;
        for index in 0..block.len() {
            let entry = block.get(index).map_err(|err| bad(&what, &err.into()))?;
            entries.push(ShownEntry {
                name: show(entry.name),
                nid: entry.nid,
                file_type: entry.file_type,
            });
        }
        pos += u64::from(volume.sb.block_size());
    }
    Ok(entries)
}
