// SPDX-License-Identifier: GPL-2.0

//! Checking directories, and finding what is in them.

use erofs_shared_format::{
    dirent::{DirBlock, DIRENT_SIZE},
    inode::FileType,
    source::Source,
};

use super::{Pending, Walk, PROBLEMS_PER_INODE};
use crate::{image::Place, text::show};

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

impl Walk<'_> {
    /// Every block of a directory; its subdirectories become pending.
    pub(super) fn directory(&mut self, dir: &Pending) {
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
