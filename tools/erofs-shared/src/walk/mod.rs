// SPDX-License-Identifier: GPL-2.0

//! Walks everything that an image holds, and collects what is wrong.

mod directory;
mod extents;

use std::collections::HashMap;

use erofs_shared_format::{
    inode::{FileType, Inode},
    ReadError,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    image::{Finding, Place, Volume},
    text::show,
    xattr,
};

/// After so many problems the rest of an inode is skipped, so that each walk ends.
const PROBLEMS_PER_INODE: usize = 16;
/// Longest target of a symlink, without a NUL.
const SYMLINK_MAX: u64 = 4095;

/// One thing that is wrong.
#[derive(JsonSchema, Serialize)]
pub struct Problem {
    /// A path, or a part of the image in brackets.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nid: Option<u64>,
    /// What `offset` counts in: the image, a device, or the metabox.
    #[serde(rename = "in")]
    pub place: String,
    /// A byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    pub message: String,
}

/// What was seen.
#[derive(Default, JsonSchema, Serialize)]
pub struct Counts {
    pub inodes: u64,
    pub directories: u64,
    pub entries: u64,
    pub regular: u64,
    pub symlinks: u64,
    pub special: u64,
    pub extents: u64,
    pub xattrs: u64,
    /// Inodes whose data is compressed.
    pub compressed: u64,
    /// Extents that are in pclusters, and those of them whose data was decoded.
    pub pclusters: u64,
    pub decoded: u64,
    /// Bytes in regular files.
    pub bytes: u64,
}

/// A directory still to be read.
struct Pending {
    path: Vec<u8>,
    nid: u64,
    parent: u64,
}

/// What is to be done with each regular file, when it has been checked.
pub type EachFile<'v> = &'v mut dyn FnMut(&Inode) -> Result<(), ReadError>;

/// A walk.
pub struct Walk<'v> {
    volume: &'v Volume,
    pub counts: Counts,
    pub each_file: Option<EachFile<'v>>,
    /// Type of each inode seen; `None` if it could not be read.
    seen: HashMap<u64, Option<FileType>>,
    pending: Vec<Pending>,
    report: &'v mut dyn FnMut(Problem),
    tick: &'v dyn Fn(u64),
    /// Decode what is compressed.
    decode: bool,
    /// Problems of the inode at hand.
    here: usize,
}

/// A problem of the whole image or of a part that is no file.
pub fn part_problem(finding: &Finding) -> Problem {
    let (offset, message) = split(&finding.err);
    Problem {
        path: format!("[{}]", finding.part),
        nid: finding.nid,
        place: Place::Device(0).to_string(),
        offset,
        message,
    }
}

/// Offset and text of an error.
pub fn split(err: &ReadError) -> (Option<u64>, String) {
    match err {
        // The core gives position 0 where it has none.
        ReadError::Format(err) => (
            (err.pos != 0).then_some(err.pos),
            format!("{}: {:#x}", err.what, err.value),
        ),
        ReadError::Io(err) => (None, format!("cannot be read: {err}")),
    }
}

impl<'v> Walk<'v> {
    pub fn new(
        volume: &'v Volume,
        report: &'v mut dyn FnMut(Problem),
        tick: &'v dyn Fn(u64),
        decode: bool,
    ) -> Self {
        Self {
            volume,
            counts: Counts::default(),
            each_file: None,
            seen: HashMap::new(),
            pending: Vec::new(),
            report,
            tick,
            decode,
            here: 0,
        }
    }

    /// Walks all that the superblock leads to.
    pub fn run(&mut self) {
        let volume = self.volume;
        self.sizes();
        // Inodes without a name: they may or may not be counted in the superblock.
        let mut internal = 0;
        for (part, inode) in [
            ("metabox", volume.metabox()),
            ("packed inode", volume.packed()),
        ] {
            if let Some(inode) = inode {
                internal += 1;
                self.here = 0;
                self.extents(format!("[{part}]").as_bytes(), inode);
            }
        }
        let root = volume.sb.root_nid;
        match self.inode(b"/", root) {
            Some(FileType::Directory) => {
                self.pending.push(Pending {
                    path: b"/".to_vec(),
                    nid: root,
                    parent: root,
                });
            }
            Some(_) => self.problem(b"/", Some(root), None, "the root is not a directory".into()),
            None => {}
        }
        while let Some(dir) = self.pending.pop() {
            self.directory(&dir);
        }
        let tree = self.counts.inodes;
        let stated = volume.sb.inos;
        if stated != tree && stated != tree + internal {
            self.here = 0;
            self.problem(
                b"[superblock]",
                None,
                Some((Place::Device(0), 1024 + 16)),
                format!("inos: the superblock says {stated} inodes, the tree has {tree}"),
            );
        }
    }

    fn problem(
        &mut self,
        path: &[u8],
        nid: Option<u64>,
        at: Option<(Place, u64)>,
        message: String,
    ) {
        self.here += 1;
        (self.report)(Problem {
            path: show(path),
            nid,
            place: at.map_or(Place::Device(0), |(place, _)| place).to_string(),
            offset: at.map(|(_, offset)| offset),
            message,
        });
    }

    /// A problem that the format core found in an inode.
    fn error(&mut self, path: &[u8], nid: u64, at: (Place, u64), err: &ReadError) {
        let (offset, message) = split(err);
        let at = offset.map_or(at, |offset| (at.0, offset));
        self.problem(path, Some(nid), Some(at), message);
    }

    fn too_many(&mut self, path: &[u8], nid: u64) -> bool {
        if self.here < PROBLEMS_PER_INODE {
            return false;
        }
        let message = format!("{PROBLEMS_PER_INODE} problems here; the rest is not checked");
        self.problem(path, Some(nid), None, message);
        true
    }

    /// The sizes that superblock and device table state, against the devices.
    fn sizes(&mut self) {
        let volume = self.volume;
        let have = volume.primary.len();
        if volume
            .sb
            .block_pos(volume.sb.blocks)
            .map_or(true, |len| len > have)
        {
            let message = format!(
                "the superblock says {} blocks of {} bytes, but the image has {have} bytes: is it cut off?",
                volume.sb.blocks,
                volume.sb.block_size()
            );
            self.problem(
                b"[superblock]",
                None,
                Some((Place::Device(0), 1024 + 36)),
                message,
            );
        }
        for (index, (slot, device)) in volume.slots.iter().zip(&volume.extra).enumerate() {
            let pos = (u64::from(volume.sb.devt_slotoff) + index as u64) * 128 + 64;
            let message = match volume.sb.block_pos(slot.blocks) {
                Ok(len) if len <= device.len() => continue,
                Ok(len) => format!(
                    "device {} should have {len} bytes but has {}: is it the right --device?",
                    index + 1,
                    device.len()
                ),
                Err(err) => format!("{}: {:#x}", err.what, err.value),
            };
            self.problem(
                b"[device table]",
                None,
                Some((Place::Device(0), pos)),
                message,
            );
        }
    }

    /// Checks an inode unless that was done before; gives its type.
    fn inode(&mut self, path: &[u8], nid: u64) -> Option<FileType> {
        if let Some(known) = self.seen.get(&nid) {
            return *known;
        }
        self.here = 0;
        let volume = self.volume;
        let inode = match volume.inode(nid) {
            Ok(inode) => inode,
            Err(err) => {
                self.seen.insert(nid, None);
                let at = match volume.sb.iloc(nid) {
                    Ok((area, pos)) => (Place::of(area), pos),
                    Err(_) => (Place::Device(0), 1024),
                };
                self.error(path, nid, at, &err);
                return None;
            }
        };
        self.seen.insert(nid, Some(inode.file_type));
        self.counts.inodes += 1;
        (self.tick)(self.counts.inodes);
        match inode.file_type {
            FileType::Regular => {
                self.counts.regular += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(inode.size);
            }
            FileType::Directory => self.counts.directories += 1,
            FileType::Symlink => self.counts.symlinks += 1,
            _ => self.counts.special += 1,
        }
        self.xattrs(path, &inode);
        if matches!(
            inode.file_type,
            FileType::Regular | FileType::Directory | FileType::Symlink
        ) {
            self.extents(path, &inode);
            if inode.file_type == FileType::Symlink {
                self.symlink(path, &inode);
            }
        }
        if inode.file_type == FileType::Regular {
            if let Some(Err(err)) = self.each_file.as_mut().map(|each| each(&inode)) {
                let at = (Place::of(inode.area), inode.iloc);
                self.error(path, nid, at, &err);
            }
        }
        Some(inode.file_type)
    }

    fn xattrs(&mut self, path: &[u8], inode: &Inode) {
        let place = Place::of(inode.area);
        let at = (place, inode.iloc + u64::from(inode.inode_isize));
        match xattr::read_all(self.volume, inode) {
            Ok(all) => {
                for (name, value) in all {
                    self.counts.xattrs += 1;
                    if let Err(err) = value {
                        let (offset, message) = split(&err);
                        let at = offset.map_or(at, |offset| (place, offset));
                        let message = format!("xattr {}: {message}", show(&name));
                        self.problem(path, Some(inode.nid), Some(at), message);
                    }
                }
            }
            Err(err) => self.error(path, inode.nid, at, &err),
        }
    }

    fn symlink(&mut self, path: &[u8], inode: &Inode) {
        let at = (Place::of(inode.area), inode.iloc + 8);
        let nid = Some(inode.nid);
        if inode.size == 0 || inode.size > SYMLINK_MAX {
            let message = format!("symlink with a target of {} bytes", inode.size);
            return self.problem(path, nid, Some(at), message);
        }
        let mut target = vec![0; inode.size as usize];
        let data = self.volume.data(inode);
        match erofs_shared_format::source::read_exact(&data, 0, &mut target) {
            Err(err) => self.error(path, inode.nid, at, &err),
            Ok(()) => {
                if let Some(pos) = target.iter().position(|byte| *byte == 0) {
                    let at = self.volume.place(inode, pos as u64).unwrap_or(at);
                    self.problem(path, nid, Some(at), "NUL in the target of a symlink".into());
                }
            }
        }
    }
}
