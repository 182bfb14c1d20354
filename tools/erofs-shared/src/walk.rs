// SPDX-License-Identifier: GPL-2.0

//! Walks everything that an image holds, and collects what is wrong.

use std::collections::HashMap;

use erofs_shared_format::{
    dirent::{DirBlock, DIRENT_SIZE},
    inode::{FileType, Inode},
    map::Extent,
    source::Source,
    zmap::Data,
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

/// The file type that a directory entry states; 0 is none.
fn dirent_type(file_type: FileType) -> u8 {
    match file_type {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
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

    /// Every extent of a file: mapped, and inside its device.
    fn extents(&mut self, path: &[u8], inode: &Inode) {
        if inode.is_compressed() {
            return self.zextents(path, inode);
        }
        let volume = self.volume;
        let at = (Place::of(inode.area), inode.iloc);
        let mut pos = 0;
        while pos < inode.size && !self.too_many(path, inode.nid) {
            let extent = match volume.extent(inode, pos) {
                Ok(extent) => extent,
                Err(err) => {
                    self.error(path, inode.nid, at, &err);
                    return;
                }
            };
            self.counts.extents += 1;
            let end = match extent {
                Extent::Hole { la, len } => la + len,
                Extent::Inline { la, len, pa } => {
                    let area_len = volume.area_len(inode.area);
                    if pa.checked_add(len).is_none_or(|end| end > area_len) {
                        let message = format!(
                            "inline data of {len} bytes past the end of the {} ({area_len} bytes)",
                            at.0
                        );
                        self.problem(path, Some(inode.nid), Some((at.0, pa)), message);
                    }
                    la + len
                }
                Extent::Mapped {
                    la,
                    len,
                    device,
                    pa,
                } => {
                    // The last block need not be whole.
                    let used = len.min(inode.size - la);
                    self.mapped(path, inode, la, used, (device, pa));
                    la + len
                }
            };
            if end <= pos {
                let message = format!("no extent for byte {pos:#x} of the file");
                self.problem(path, Some(inode.nid), Some(at), message);
                return;
            }
            pos = end;
        }
    }

    /// Every extent of a compressed file: mapped, inside its device, its area or the packed inode, and
    /// decodable if that is asked for.
    fn zextents(&mut self, path: &[u8], inode: &Inode) {
        let volume = self.volume;
        let nid = Some(inode.nid);
        let place = Place::of(inode.area);
        let at = (place, inode.iloc);
        self.counts.compressed += 1;
        if inode.size == 0 {
            return;
        }
        let header = match volume.header(inode) {
            Ok(header) => header,
            Err(err) => return self.error(path, inode.nid, at, &err),
        };
        let mut next = volume.zextent(inode, &header, 0);
        loop {
            let extent = match next {
                Ok(extent) if extent.llen != 0 => extent,
                Ok(_) => return,
                Err(err) => return self.error(path, inode.nid, at, &err),
            };
            if self.too_many(path, inode.nid) {
                return;
            }
            self.counts.extents += 1;
            match extent.data {
                Data::Hole => {}
                Data::Fragment { pos } => {
                    // The packed inode may be what is wrong, which is a finding of its own.
                    let size = volume.packed().map_or(i64::MAX as u64, |inode| inode.size);
                    if pos.saturating_add(extent.llen) > size {
                        let message = format!(
                            "fragment of {} bytes at {pos:#x} is past the end of the packed inode ({size} bytes)",
                            extent.llen
                        );
                        self.problem(path, nid, Some(at), message);
                    }
                }
                Data::Pcluster(data) => {
                    self.counts.pclusters += 1;
                    if data.inline {
                        let area_len = volume.area_len(inode.area);
                        if data.pa.saturating_add(data.plen.into()) > area_len {
                            let message = format!(
                                "inline pcluster of {} bytes past the end of the {place} ({area_len} bytes)",
                                data.plen
                            );
                            self.problem(path, nid, Some((place, data.pa)), message);
                        }
                    } else {
                        self.mapped(path, inode, extent.la, data.plen.into(), (0, data.pa));
                    }
                    if self.decode {
                        self.counts.decoded += 1;
                        if let Err(err) = volume.decode(inode, &extent) {
                            let (_, message) = split(&err);
                            let at = match volume.locate(0, data.pa) {
                                Ok((index, _, pos)) if !data.inline => (Place::Device(index), pos),
                                _ => (place, data.pa),
                            };
                            self.problem(path, nid, Some(at), message);
                        }
                    }
                }
            }
            next = volume.zextent_next(inode, &header, &extent);
        }
    }

    fn mapped(&mut self, path: &[u8], inode: &Inode, la: u64, len: u64, (device, pa): (u16, u64)) {
        let volume = self.volume;
        let nid = Some(inode.nid);
        match volume.locate(device, pa) {
            Ok((index, image, pos)) => {
                if pos.checked_add(len).is_some_and(|end| end <= image.len()) {
                    return;
                }
                let mut message = format!(
                    "extent of {len} bytes at {la:#x} of the file is past the end of its device ({} bytes)",
                    image.len()
                );
                if index == 0 && volume.flat() && !volume.slots.is_empty() {
                    message += "; the image has extra devices: give each with --device";
                }
                self.problem(path, nid, Some((Place::Device(index), pos)), message);
            }
            Err(err) => self.error(
                path,
                inode.nid,
                (Place::of(inode.area), inode.iloc),
                &err.into(),
            ),
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

    /// Every block of a directory; its subdirectories become pending.
    fn directory(&mut self, dir: &Pending) {
        let volume = self.volume;
        let Ok(inode) = volume.inode(dir.nid) else {
            // Reported when it was checked.
            return;
        };
        self.here = 0;
        let mut state = DirState {
            dir,
            last: Vec::new(),
            dot: false,
            dotdot: false,
            children: Vec::new(),
        };
        let data = volume.data(&inode);
        let block_size = u64::from(volume.sb.block_size());
        let mut pos = 0;
        let mut whole = true;
        while pos < inode.size {
            if self.too_many(&dir.path, dir.nid) {
                whole = false;
                break;
            }
            let at = volume
                .place(&inode, pos)
                .unwrap_or((Place::of(inode.area), inode.iloc));
            match data.bread(pos) {
                Ok(bytes) => whole &= self.dir_block(&mut state, &bytes, at),
                Err(err) => {
                    whole = false;
                    self.error(&dir.path, dir.nid, at, &err);
                }
            }
            pos += block_size;
        }
        // Without all of its blocks, what seems missing may be there.
        if whole {
            let at = (Place::of(inode.area), inode.iloc);
            if !state.dot && !inode.dot_omitted {
                self.problem(&dir.path, Some(dir.nid), Some(at), "no entry \".\"".into());
            }
            if !state.dotdot {
                self.problem(&dir.path, Some(dir.nid), Some(at), "no entry \"..\"".into());
            }
        }
        let first = self.pending.len();
        for (path, nid, entry_type, at) in state.children {
            self.child(dir, (path, nid, entry_type), at);
        }
        // The first subdirectory is read first.
        if let Some(new) = self.pending.get_mut(first..) {
            new.reverse();
        }
    }

    /// `false`: not all of the entries are known.
    fn dir_block(&mut self, state: &mut DirState<'_>, bytes: &[u8], at: (Place, u64)) -> bool {
        let (path, nid) = (state.dir.path.as_slice(), state.dir.nid);
        let block = match DirBlock::new(bytes, at.1) {
            Ok(block) => block,
            Err(err) => {
                self.error(path, nid, at, &err.into());
                return false;
            }
        };
        let mut whole = true;
        for index in 0..block.len() {
            if self.here >= PROBLEMS_PER_INODE {
                return false;
            }
            let at = (at.0, at.1 + (index * DIRENT_SIZE) as u64);
            let entry = match block.get(index) {
                Ok(entry) => entry,
                Err(err) => {
                    whole = false;
                    self.error(path, nid, at, &err.into());
                    continue;
                }
            };
            self.counts.entries += 1;
            if !state.last.is_empty() && entry.name <= state.last.as_slice() {
                let what = if entry.name == state.last.as_slice() {
                    "is there twice"
                } else {
                    "is out of order"
                };
                let message = format!(
                    "entry \"{}\" {what}: it comes after \"{}\"",
                    show(entry.name),
                    show(&state.last)
                );
                self.problem(path, Some(nid), Some(at), message);
            }
            state.last = entry.name.to_vec();
            let fixed = match entry.name {
                b"." => Some((&mut state.dot, nid)),
                b".." => Some((&mut state.dotdot, state.dir.parent)),
                _ => None,
            };
            let Some((found, wanted)) = fixed else {
                let mut child = path.to_vec();
                if child != b"/" {
                    child.push(b'/');
                }
                child.extend_from_slice(entry.name);
                state.children.push((child, entry.nid, entry.file_type, at));
                continue;
            };
            *found = true;
            if entry.nid != wanted {
                let message = format!(
                    "entry \"{}\" leads to nid {} instead of {wanted}",
                    show(entry.name),
                    entry.nid
                );
                self.problem(path, Some(nid), Some(at), message);
            }
            if !matches!(entry.file_type, 0 | 2) {
                let message = format!(
                    "entry \"{}\" has file type {} instead of 2",
                    show(entry.name),
                    entry.file_type
                );
                self.problem(path, Some(nid), Some(at), message);
            }
        }
        whole
    }

    fn child(&mut self, dir: &Pending, (path, nid, stated): (Vec<u8>, u64, u8), at: (Place, u64)) {
        let known = self.seen.contains_key(&nid);
        let Some(file_type) = self.inode(&path, nid) else {
            if known {
                let message = "leads to an inode that cannot be read".into();
                self.problem(&path, Some(nid), Some(at), message);
            }
            return;
        };
        if stated != 0 && stated != dirent_type(file_type) {
            let message = format!(
                "its directory entry has file type {stated}, the inode is {file_type:?} ({})",
                dirent_type(file_type)
            );
            self.problem(&path, Some(nid), Some(at), message);
        }
        if file_type != FileType::Directory {
            return;
        }
        if known {
            let message = "a directory that was reached before".into();
            self.problem(&path, Some(nid), Some(at), message);
            return;
        }
        self.pending.push(Pending {
            path,
            nid,
            parent: dir.nid,
        });
    }
}

/// Path, nid, stated file type and place of an entry.
type Child = (Vec<u8>, u64, u8, (Place, u64));

/// A directory while it is read.
struct DirState<'d> {
    dir: &'d Pending,
    /// The name before.
    last: Vec<u8>,
    dot: bool,
    dotdot: bool,
    children: Vec<Child>,
}
