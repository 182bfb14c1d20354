// SPDX-License-Identifier: GPL-2.0

//! Directories.

use kernel::prelude::*;

use super::{
    inode::{iget, parts},
    report::{failed, Place},
    Erofs,
};
use crate::{
    format::{
        dirent::{self, DirBlock, DIRENT_SIZE},
        inode::FileType,
    },
    io::{metadata::LockSubclass, CacheBytes},
    vfs::{DirEmitter, Inode, InodeRef, OpenDir},
};

/// How far a listing reads ahead, in bytes; as in-tree.
const READ_AHEAD: u64 = 16384;

/// A directory's data.
fn bytes(dir: &Inode<Erofs>) -> Result<CacheBytes<'_>> {
    let bytes = dir.bytes()?;
    Ok(match dir.data() {
        Ok(data) if data.is_compressed() => bytes.encoded(LockSubclass::Directory),
        _ => bytes,
    })
}

/// Finds a name.
pub(super) fn lookup(dir: &Inode<Erofs>, name: &[u8]) -> Result<Option<InodeRef<Erofs>>> {
    let (image_dir, image) = parts(dir)?;
    if image_dir.file_type != FileType::Directory {
        return Err(ENOTDIR);
    }
    let found = dirent::lookup(image_dir.size, image.block_size(), &bytes(dir)?, name)
        .map_err(|err| failed(dir.sb(), Place::Nid(image_dir.nid), err))?;
    found.map(|(nid, _)| iget(dir.sb(), nid)).transpose()
}

/// Lists entries from `out.pos()` on. A position is the byte offset of the entry's record, so that
/// it stays valid (`telldir`); `.` of a directory that does not store it comes at the end, at
/// `i_size`.
pub(super) fn read(dir: &Inode<Erofs>, list: &OpenDir<'_>, out: &mut DirEmitter<'_>) -> Result {
    let (image_dir, image) = parts(dir)?;
    let block_size = u64::from(image.block_size());
    let page_size = kernel::page::PAGE_SIZE as u64;
    let size = image_dir.size;
    // How every listing ends.
    if out.pos() >= size && !image_dir.dot_omitted {
        return Ok(());
    }
    let bytes = bytes(dir)?;
    let fail = |err| failed(dir.sb(), Place::Nid(image_dir.nid), err);

    while out.pos() < size {
        if out.interrupted() {
            return Err(ERESTARTSYS);
        }
        let pos = out.pos();
        let in_block = pos % block_size;
        let start = pos - in_block;

        let page = pos / page_size;
        let pages = size.div_ceil(page_size).saturating_sub(page);
        let ahead = pages.min(READ_AHEAD / page_size);
        if ahead > 1 {
            list.read_ahead(page, ahead);
        }

        let data = bytes.bytes(start).map_err(fail)?;
        let len = (data.len() as u64).min(block_size).min(size - start);
        let data = data.get(..len as usize).ok_or(EIO)?;
        let block = DirBlock::new(data, start).map_err(|err| fail(err.into()))?;
        let first = in_block.div_ceil(DIRENT_SIZE as u64) as usize;
        out.set_pos(start.saturating_add((first * DIRENT_SIZE) as u64));
        let more = block.for_each(first, |entry| {
            // Behind the entry at once: should the next one be bad, the listing must not come back
            // to this one.
            let ino = image.ino(entry.nid);
            out.entry(entry.name, ino, entry.file_type, DIRENT_SIZE as u32)
        });
        if !more.map_err(|err| fail(err.into()))? {
            return Ok(());
        }
        out.set_pos(start + len);
    }
    if image_dir.dot_omitted && out.pos() == size && out.dot() {
        out.set_pos(size.saturating_add(1));
    }
    Ok(())
}
