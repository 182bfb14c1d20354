// SPDX-License-Identifier: GPL-2.0

//! Reads of files that have the page cache of a shared inode: `read_iter`, `splice_read`, `fadvise`.
//!
//! Each step verifies blocks, then copies what is resident of them. The copy never waits for a page:
//! a page that is not there yet is waited for by [`Inode::page_in`], which knows whose image it is
//! read from.

use core::ops::Range;

use kernel::{
    bindings,
    error::to_result,
    ffi,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::Arc,
};

use super::{inode::file_inode, page::Unready, sharing::FileMapping, FileSystem, Inode, Tables};
use crate::{
    io::{folio::FolioRef, wait::is_dying},
    race::race_point,
    raw,
    share::{Binding, BLOCK_SHIFT, BLOCK_SIZE},
};

/// Bytes that a read verifies before it copies them.
const READ_BYTES: u64 = 256 << 10;

/// Pages that are looked at before they are spliced: more than a pipe usually has room for.
const SPLICE_PAGES: usize = 64;

/// Returns the blocks of a file of `blocks` blocks in which `len` bytes from `pos` on lie.
fn blocks_of(pos: u64, len: u64, blocks: u64) -> Range<u64> {
    let end = pos.saturating_add(len).div_ceil(BLOCK_SIZE as u64);
    let start = pos >> BLOCK_SHIFT;
    start..end.min(blocks).max(start)
}

/// Returns how many bytes from `pos` on lie in `run` blocks from `start` on.
fn bytes_in(start: u64, run: u64, pos: u64) -> u64 {
    (start.saturating_add(run) << BLOCK_SHIFT).saturating_sub(pos)
}

impl<T: FileSystem> Inode<T> {
    /// Returns which page cache has a file's pages; a shared one that needs no verification any more
    /// counts as the inode's own.
    fn file_mapping(&self, mapping: *mut bindings::address_space) -> FileMapping {
        if self.is_plain(mapping) {
            FileMapping::Own
        } else {
            self.through(mapping)
        }
    }

    /// Turns a failure to use `mapping` into [`Unready::Left`] if the inode has left it.
    fn left(&self, mapping: *mut bindings::address_space, why: Unready) -> Unready {
        match self.through(mapping) {
            FileMapping::Stale(_) => Unready::Left,
            _ => why,
        }
    }

    /// Returns the folio with page `index` from where the inode's data is now: its own page cache, or
    /// that of `binding`. All of the folio is verified. `want` is the number of pages wanted from this
    /// one on.
    ///
    /// # Safety
    ///
    /// `file` is an open file of this inode.
    pub(super) unsafe fn folio_of(
        &self,
        file: *mut bindings::file,
        binding: Option<&Arc<Binding>>,
        index: usize,
        want: usize,
    ) -> Result<FolioRef, Unready> {
        if let Some(binding) = binding {
            // SAFETY: By the function's safety requirements.
            match unsafe { self.verified_folio(file, binding, index, want) } {
                Err(Unready::Busy) => {}
                other => return other,
            }
        }
        // SAFETY: By the function's safety requirements.
        unsafe { self.page_in(file, self.own_mapping(), index, want) }
    }

    /// As [`Inode::folio_of`], from the page cache of `binding` alone.
    ///
    /// # Safety
    ///
    /// As for [`Inode::folio_of`].
    unsafe fn verified_folio(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        index: usize,
        want: usize,
    ) -> Result<FolioRef, Unready> {
        let mapping = binding.shared().mapping();
        let block = index as u64;
        let mut blocks = block..block + 1;
        loop {
            // SAFETY: By the function's safety requirements.
            let folio = unsafe {
                self.ensure_folio(file, binding, blocks, block)?;
                self.page_in(file, mapping, index, want)
            };
            let folio = folio.map_err(|why| match why {
                why if self.is_current(binding) => why,
                _ => Unready::Left,
            })?;
            let pages = folio.pages();
            if binding.covers(pages.clone()) {
                return Ok(folio);
            }
            blocks = pages;
        }
    }

    /// Verifies a folio's pages, of which the reader wants `block`. If that one can be verified and
    /// another one cannot, the reader's own image has its bytes: [`Unready::Busy`].
    ///
    /// # Safety
    ///
    /// As for [`Inode::folio_of`].
    pub(super) unsafe fn ensure_folio(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        pages: Range<u64>,
        block: u64,
    ) -> Result<(), Unready> {
        let pages = pages.start..pages.end.min(binding.blocks());
        // SAFETY: By the function's safety requirements.
        match unsafe { self.ensure_all(file, binding, pages) } {
            Err(Unready::Failed(_)) if !is_dying() && binding.run(block..block + 1) != 0 => {
                Err(Unready::Busy)
            }
            done => done,
        }
    }
}

impl<T: FileSystem> Tables<T> {
    /// Reads through the page cache when there is more to do than to copy.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    #[inline(never)]
    pub(super) unsafe fn read_shared(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: By the function's safety requirements.
        let (inode, nowait) = unsafe {
            let nowait = (*iocb).ki_flags & raw::EROFS_SHARED_IOCB_NOWAIT as i32 != 0;
            (file_inode::<T>((*iocb).ki_filp), nowait)
        };
        let mut total = 0isize;
        loop {
            // SAFETY: The request and its destination are ours for the call.
            let (pos, left) = unsafe {
                (
                    (*iocb).ki_pos as u64,
                    raw::erofs_shared_iov_bytes(to) as u64,
                )
            };
            if left == 0 || pos >= inode.size() {
                return total;
            }
            let left = left.min(inode.size() - pos);
            // SAFETY: By the function's safety requirements.
            let step = unsafe { Self::read_step(iocb, to, inode, pos..pos + left, nowait) };
            let step = match step {
                Ok(copied) => {
                    total += copied as isize;
                    continue;
                }
                // Its own image has the bytes.
                // SAFETY: By the function's safety requirements.
                Err(Unready::Busy) => unsafe { Self::read_page(iocb, to, inode, None) },
                Err(why) => Err(why),
            };
            let err = match step {
                Ok(copied) => {
                    total += copied as isize;
                    continue;
                }
                Err(Unready::Left) if !is_dying() => continue,
                Err(Unready::Left) => EINTR,
                Err(Unready::Busy) => EIO,
                Err(Unready::Failed(err)) => err,
            };
            return if total > 0 {
                total
            } else {
                err.to_errno() as isize
            };
        }
    }

    /// Copies the first of the bytes `range` of a file that can be had together. `Ok(0)`: nothing is
    /// copied yet, and the next try finds another state.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`; `range` begins at the request's position and ends within
    /// the file.
    unsafe fn read_step(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
        inode: &Inode<T>,
        range: Range<u64>,
        nowait: bool,
    ) -> Result<usize, Unready> {
        let (pos, left) = (range.start, range.end - range.start);
        // SAFETY: By the function's safety requirements.
        let (file, mapping) = unsafe { ((*iocb).ki_filp, (*(*iocb).ki_filp).f_mapping) };
        let ready = match inode.file_mapping(mapping) {
            FileMapping::Own => left,
            FileMapping::Shared(binding) => {
                let want = left.min(READ_BYTES);
                let mut blocks = blocks_of(pos, want, binding.blocks());
                let start = blocks.start;
                if inode.has_aliases(&binding) {
                    // SAFETY: By the function's safety requirements.
                    let copied = unsafe {
                        Self::read_pieces(iocb, to, inode, &binding, blocks.clone(), nowait)
                    }?;
                    if copied != 0 {
                        return Ok(copied);
                    }
                    // The first block is nowhere else.
                    let content = binding.shared().content();
                    content.forget_aliases(start..start + 1);
                    race_point!(c"read_nowhere");
                    let next = inode.next_elsewhere(&binding, blocks.clone());
                    if next <= start {
                        // It is now: its page has been merged since.
                        return Ok(0);
                    }
                    blocks.end = next.min(blocks.end);
                }
                let run = if nowait {
                    match binding.run(blocks) {
                        0 => return Err(Unready::Failed(EAGAIN)),
                        run => run,
                    }
                } else {
                    // SAFETY: The file is one of the inode's.
                    unsafe { inode.ensure(file, &binding, blocks) }?
                };
                bytes_in(start, run, pos).min(want)
            }
            FileMapping::Stale(_) if nowait => return Err(Unready::Failed(EAGAIN)),
            FileMapping::Stale(binding) => {
                // SAFETY: By the function's safety requirements.
                return unsafe { Self::read_page(iocb, to, inode, binding.as_ref()) };
            }
        };
        // SAFETY: By the function's safety requirements.
        let ret = unsafe { Self::copy_ready(iocb, to, ready, mapping == inode.own_mapping()) };
        match ret {
            // There is something to copy, so this is no end of the file.
            0 => Err(Unready::Failed(EIO)),
            1.. => Ok(ret as usize),
            _ => {
                let err = to_result(ret as ffi::c_int).err().unwrap_or(EIO);
                if mapping == inode.own_mapping() {
                    return Err(Unready::Failed(err));
                }
                if err != EAGAIN || nowait {
                    return Err(match inode.left(mapping, Unready::Failed(err)) {
                        Unready::Left if nowait => Unready::Failed(EAGAIN),
                        why => why,
                    });
                }
                let index = pos >> PAGE_SHIFT;
                let want = range.end.div_ceil(PAGE_SIZE as u64).saturating_sub(index);
                // SAFETY: The file is one of the inode's, which is or was bound to the mapping's inode.
                let page = unsafe { inode.page_in(file, mapping, index as usize, want as usize) };
                page.map_err(|why| inode.left(mapping, why))?;
                Ok(0)
            }
        }
    }

    /// `filemap_read()` of up to `ready` bytes. From a page cache that is not the inode's own only what
    /// can be had without waiting: `-EAGAIN` if that is nothing.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    unsafe fn copy_ready(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
        ready: u64,
        own: bool,
    ) -> isize {
        // SAFETY: The request is ours; its destination is as it was after the call but for what was
        // copied.
        unsafe {
            let all = raw::erofs_shared_iov_bytes(to);
            raw::erofs_shared_iov_truncate(to, ready);
            let before = raw::erofs_shared_iov_bytes(to);
            let flags = (*iocb).ki_flags;
            if !own {
                // It reads ahead all the same, but does not wait for what it finds locked.
                (*iocb).ki_flags = flags | raw::EROFS_SHARED_IOCB_NOWAIT as i32;
            }
            race_point!(c"read_ready");
            let ret = if flags & raw::EROFS_SHARED_IOCB_NOWAIT as i32 != 0 {
                Self::filemap_read(iocb, to)
            } else {
                bindings::filemap_read(iocb, to, 0)
            };
            (*iocb).ki_flags = flags;
            let copied = before - raw::erofs_shared_iov_bytes(to);
            raw::erofs_shared_iov_reexpand(to, all - copied);
            ret
        }
    }

    /// `filemap_read()`, which starts no read if the request must not block.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    #[inline(always)]
    pub(super) unsafe fn filemap_read(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let flags = (*iocb).ki_flags;
            if flags & raw::EROFS_SHARED_IOCB_NOWAIT as i32 == 0 {
                return bindings::filemap_read(iocb, to, 0);
            }
            // Reading ahead looks for extents, which may sleep on metadata.
            (*iocb).ki_flags = flags | raw::EROFS_SHARED_IOCB_NOIO as i32;
            let ret = bindings::filemap_read(iocb, to, 0);
            (*iocb).ki_flags = flags;
            ret
        }
    }

    /// Copies the rest of a folio from where the inode's data is now.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    unsafe fn read_page(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
        inode: &Inode<T>,
        binding: Option<&Arc<Binding>>,
    ) -> Result<usize, Unready> {
        // SAFETY: By the function's safety requirements.
        let (file, pos, wanted) = unsafe {
            (
                (*iocb).ki_filp,
                (*iocb).ki_pos as u64,
                raw::erofs_shared_iov_bytes(to) as u64,
            )
        };
        let left = wanted.min(inode.size().saturating_sub(pos));
        let index = (pos >> PAGE_SHIFT) as usize;
        let want = (pos % PAGE_SIZE as u64)
            .saturating_add(left)
            .div_ceil(PAGE_SIZE as u64);
        // SAFETY: The file is one of the inode's.
        let folio = unsafe { inode.folio_of(file, binding, index, want as usize) }?;
        let offset = pos.saturating_sub(folio.pages().start << PAGE_SHIFT) as usize;
        // SAFETY: By the function's safety requirements.
        unsafe {
            let ra = &raw mut (*file).__bindgen_anon_3.f_ra;
            let last = (&raw const (*ra).prev_pos).read_volatile();
            let behind = last.wrapping_sub(1).wrapping_sub(pos as i64);
            let copied = folio.copy_to(offset, left as usize, behind, to);
            (*iocb).ki_pos += copied as i64;
            (&raw mut (*ra).prev_pos).write_volatile((*iocb).ki_pos);
            match copied {
                0 => Err(Unready::Failed(EFAULT)),
                _ => Ok(copied),
            }
        }
    }

    /// # Safety
    ///
    /// `file_operations::splice_read`
    pub(super) unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        ppos: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        len: usize,
        flags: ffi::c_uint,
    ) -> isize {
        // SAFETY: By the function's safety requirements.
        let (inode, mapping) = unsafe {
            Self::ready_readahead(file);
            (file_inode::<T>(file), (*file).f_mapping)
        };
        loop {
            // SAFETY: By the function's safety requirements.
            let pos = unsafe { *ppos } as u64;
            if mapping != inode.own_mapping() && (len == 0 || pos >= inode.size()) {
                return 0;
            }
            // SAFETY: By the function's safety requirements.
            let (len, copy) = match unsafe { Self::splice_step(file, inode, pos, len) } {
                Ok(Splice::Pages(len)) => (len, false),
                Ok(Splice::Copy(len)) => (len, true),
                Ok(Splice::Again) | Err(Unready::Left) if !is_dying() => continue,
                Ok(Splice::Again) | Err(Unready::Left) => return EINTR.to_errno() as isize,
                // A read gets the bytes from the inode's own image.
                Err(Unready::Busy) => (len.min(READ_BYTES as usize), true),
                Err(Unready::Failed(err)) => return err.to_errno() as isize,
            };
            // SAFETY: By the function's safety requirements.
            let ret = unsafe {
                if copy {
                    return bindings::copy_splice_read(file, ppos, pipe, len, flags);
                }
                race_point!(c"splice_ready");
                bindings::filemap_splice_read(file, ppos, pipe, len, flags)
            };
            if ret < 0 && matches!(inode.through(mapping), FileMapping::Stale(_)) {
                continue;
            }
            return ret;
        }
    }

    /// Verifies what a splice of up to `len` bytes from `pos` on takes, and says how it is done.
    ///
    /// # Safety
    ///
    /// `file` is an open file of `inode`.
    unsafe fn splice_step(
        file: *mut bindings::file,
        inode: &Inode<T>,
        pos: u64,
        len: usize,
    ) -> Result<Splice, Unready> {
        // SAFETY: By the function's safety requirements.
        let mapping = unsafe { (*file).f_mapping };
        if mapping == inode.own_mapping() {
            return Ok(Splice::Pages(len));
        }
        let want = (len as u64)
            .min(READ_BYTES)
            .min(inode.size().saturating_sub(pos));
        let ready = match inode.file_mapping(mapping) {
            FileMapping::Own => want,
            FileMapping::Stale(_) => return Ok(Splice::Copy(len)),
            FileMapping::Shared(binding) => {
                let mut blocks = blocks_of(pos, want, binding.blocks());
                let start = blocks.start;
                if inode.has_aliases(&binding) {
                    let first = inode.next_elsewhere(&binding, blocks.clone());
                    race_point!(c"splice_elsewhere");
                    if first <= start {
                        // The alias may be gone again, and its block read in: that is copied, too.
                        let run = binding.shared().content().alias_run(blocks).max(1);
                        let len = bytes_in(start, run, pos).min(want);
                        return Ok(Splice::Copy(len as usize));
                    }
                    blocks.end = first.min(blocks.end);
                }
                // SAFETY: By the function's safety requirements.
                let run = unsafe { inode.ensure(file, &binding, blocks) }?;
                bytes_in(start, run, pos).min(want)
            }
        };
        // What is not resident is brought in first, since the splice waits for any image.
        let index = (pos >> PAGE_SHIFT) as usize;
        let pages = (pos % PAGE_SIZE as u64)
            .saturating_add(ready)
            .div_ceil(PAGE_SIZE as u64) as usize;
        let pages = pages.min(SPLICE_PAGES);
        // SAFETY: The inode holds the mapping's inode.
        let here = unsafe { raw::erofs_shared_resident(mapping, index, pages, true) } as u64;
        if here != 0 {
            let len = bytes_in(pos >> PAGE_SHIFT, here, pos).min(ready);
            return Ok(Splice::Pages(len as usize));
        }
        // SAFETY: By the function's safety requirements.
        unsafe { inode.page_in(file, mapping, index, pages) }
            .map_err(|why| inode.left(mapping, why))?;
        Ok(Splice::Again)
    }

    /// # Safety
    ///
    /// `file_operations::fadvise`
    pub(super) unsafe extern "C" fn fadvise(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        len: bindings::loff_t,
        advice: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: By the function's safety requirements.
        unsafe {
            Self::ready_readahead(file);
            let inode = file_inode::<T>(file);
            let shared = (*file).f_mapping != inode.own_mapping();
            let valid = offset >= 0 && len >= 0;
            if shared
                && valid
                && advice as u32 == raw::EROFS_SHARED_FADV_DONTNEED
                && !inode.may_drop((*file).f_mapping)
            {
                // Others count on these pages.
                return 0;
            }
            let ret = bindings::generic_fadvise(file, offset, len, advice);
            if ret == 0 && shared {
                // It takes the size of read-ahead from the internal filesystem, which has none.
                let ra_pages = &raw mut (*file).__bindgen_anon_3.f_ra.ra_pages;
                match advice as u32 {
                    raw::EROFS_SHARED_FADV_NORMAL => ra_pages.write_volatile(inode.ra_pages()),
                    raw::EROFS_SHARED_FADV_SEQUENTIAL => {
                        ra_pages.write_volatile(inode.ra_pages().saturating_mul(2))
                    }
                    _ => {}
                }
            }
            ret
        }
    }
}

/// How a part of a file is spliced.
enum Splice {
    /// By reference to the pages: so many bytes.
    Pages(usize),
    /// By copying so many bytes.
    Copy(usize),
    /// Not yet: a page has been brought in.
    Again,
}

impl<T: FileSystem> Inode<T> {
    /// Whether the reader of a file may drop its pages from the page cache: where the administrator
    /// vouches for the sharing, as in-tree; else if no other inode counts on them.
    fn may_drop(&self, mapping: *mut bindings::address_space) -> bool {
        match self.through(mapping) {
            FileMapping::Own => true,
            FileMapping::Shared(binding) => {
                binding.shared().identity().trusted || binding.shared().content().bound() <= 1
            }
            FileMapping::Stale(_) => false,
        }
    }
}
