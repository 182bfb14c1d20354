// SPDX-License-Identifier: GPL-2.0

//! Directories.

use kernel::{page::PAGE_SIZE, prelude::*};

use super::{
    inode::{iget, parts},
    report::{failed, Place},
    Erofs,
};
use crate::{
    format::{
        dirent::{self, DirBlock, DIRENT_SIZE},
        inode::{FileType, Inode as ImageInode},
    },
    io::{
        metadata::{FolioBytes, LockSubclass},
        CacheBytes, ReadError,
    },
    vfs::{DirEmitter, Inode, InodeRef, OpenDir},
};

/// How far a listing reads ahead, in bytes; as in-tree.
const READ_AHEAD: u64 = 16384;

/// A directory's data.
fn bytes<'a>(dir: &'a Inode<Erofs>, image_dir: &ImageInode) -> Result<CacheBytes<'a>> {
    let bytes = dir.bytes()?;
    Ok(match image_dir.is_compressed() {
        true => bytes.encoded(LockSubclass::Directory),
        false => bytes,
    })
}

/// Finds a name.
pub(super) fn lookup(dir: &Inode<Erofs>, name: &[u8]) -> Result<Option<InodeRef<Erofs>>> {
    let (image_dir, image) = parts(dir)?;
    if image_dir.file_type != FileType::Directory {
        return Err(ENOTDIR);
    }
    let found = dirent::lookup(
        image_dir.size,
        image.block_size(),
        &bytes(dir, image_dir)?,
        name,
    )
    .map_err(|err| failed(dir.sb(), Place::Nid(image_dir.nid), err))?;
    found.map(|(nid, _)| iget(dir.sb(), nid)).transpose()
}

/// Reads ahead what a listing that stands at `pos` comes to next.
#[inline(always)]
fn read_ahead(list: &OpenDir<'_>, pos: u64, size: u64) {
    let page_size = PAGE_SIZE as u64;
    let index = pos / page_size;
    let pages = size.div_ceil(page_size).saturating_sub(index);
    let ahead = pages.min(READ_AHEAD / page_size);
    if ahead > 1 {
        list.read_ahead(index, ahead);
    }
}

/// The block of `len` bytes at `start`, with which `page` begins.
#[inline(always)]
fn block<'a>(page: &'a FolioBytes<'_>, len: u64, start: u64) -> Result<DirBlock<'a>, ReadError> {
    let data = page.get(..len as usize).ok_or(ReadError::Io(EIO))?;
    let block = DirBlock::new(data, start)?;
    Ok(match page.is_checked() {
        true => block.given_before(),
        false => block,
    })
}

/// Lists entries from `out.pos()` on. A position is the byte offset of the entry's record, so that
/// it stays valid (`telldir`); `.` of a directory that does not store it comes at the end, at
/// `i_size`.
pub(super) fn read(dir: &Inode<Erofs>, list: &OpenDir<'_>, out: &mut DirEmitter<'_>) -> Result {
    let image_dir = dir.data()?.image()?;
    let size = image_dir.size;
    // How every listing ends.
    if out.pos() >= size && !image_dir.dot_omitted {
        return Ok(());
    }
    let image = dir.sb().info().image()?;
    let block_size = u64::from(image.block_size());
    let bytes = bytes(dir, image_dir)?;
    let fail = |err| failed(dir.sb(), Place::Nid(image_dir.nid), err);

    while out.pos() < size {
        let pos = out.pos();
        let in_block = pos % block_size;
        let start = pos - in_block;
        // As long as one block takes no one waits.
        if start != 0 && out.interrupted() {
            return Err(ERESTARTSYS);
        }
        read_ahead(list, pos, size);
        let page = bytes.bytes(start).map_err(fail)?;
        let len = (page.len() as u64).min(block_size).min(size - start);
        let block = block(&page, len, start).map_err(fail)?;
        let mut first = 0;
        if in_block != 0 {
            first = in_block.div_ceil(DIRENT_SIZE as u64) as usize;
            out.set_pos(start.saturating_add((first * DIRENT_SIZE) as u64));
        }
        let more = block.for_each(first, |entry| {
            // Behind the entry at once: should the next one be bad, the listing must not come back
            // to this one.
            let ino = image.ino(entry.nid);
            out.entry(entry.name, ino, entry.file_type, DIRENT_SIZE as u32)
        });
        if !more.map_err(|err| fail(err.into()))? {
            return Ok(());
        }
        if first == 0 && len == page.len() as u64 && !block.was_given() {
            page.set_checked();
        }
        out.set_pos(start + len);
    }
    if image_dir.dot_omitted && out.pos() == size && out.dot() {
        out.set_pos(size.saturating_add(1));
    }
    Ok(())
}
