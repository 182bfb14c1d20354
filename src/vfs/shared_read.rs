// SPDX-License-Identifier: GPL-2.0

//! Reads of files that have the page cache of a shared inode.
//!
//! Each step verifies blocks, then copies what is resident of them. The copy never waits for a
//! page: a page that is not there yet is waited for by [`OpenFile::page_in`], which knows whose
//! image it is read from.

use core::ops::Range;

use kernel::{
    error::to_result,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::Arc,
};

use super::{file::OpenFile, page::Unready, sharing::FileMapping, FileSystem, Inode};
use crate::{
    bindings,
    io::{folio::FolioRef, mapping::Mapping, request::ReadRequest, wait::is_dying},
    race::race_point,
    share::{usage::SoleRead, Binding, Unheld, Verify, BLOCK_SHIFT, BLOCK_SIZE},
};

/// Bytes that a read verifies before it copies them.
const READ_BYTES: u64 = 256 << 10;

/// Bytes that the only user of a shared inode reads in one step.
const SOLE_BYTES: u64 = 1 << 20;

/// How many times in a row memory is faulted in without a byte being written there.
const MAX_FAULTS: u32 = 16;

/// The least and the greatest number of blocks at the start of a file that are read together.
const LEAST_START: u64 = 16;
const MOST_START: u64 = 32;

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
    /// Returns which page cache has a file's pages; a shared one that needs no verification any
    /// more counts as the inode's own.
    fn file_mapping(&self, mapping: Mapping<'_>) -> FileMapping {
        let is_fast = self.is_fast(mapping);
        if is_fast && !self.compares_bytes(mapping) {
            return FileMapping::Own;
        }
        match self.through(mapping) {
            FileMapping::Shared(binding) if is_fast && binding.is_complete() => FileMapping::Own,
            other => other,
        }
    }

    /// Whether `mapping`, which a file of this inode has, is that of a shared inode whose pages are
    /// verified by their bytes: then `fast` may be taken back. Takes no lock.
    pub(super) fn compares_bytes(&self, mapping: Mapping<'_>) -> bool {
        if mapping == self.own_mapping() {
            return false;
        }
        // SAFETY: Files have the inode's own mapping, or that of a shared inode, which is not freed
        // as long as this borrows it.
        unsafe { Unheld::of_mapping(mapping.as_ptr()) }
            .identity()
            .verify
            == Verify::Bytes
    }

    /// Turns a failure to use `mapping` into [`Unready::Left`] if the inode has left it.
    fn left(&self, mapping: Mapping<'_>, why: Unready) -> Unready {
        match self.through(mapping) {
            FileMapping::Stale(_) => Unready::Left,
            _ => why,
        }
    }
}

impl<T: FileSystem> OpenFile<'_, T> {
    /// Returns the folio with page `index` from where the inode's data is now: its own page cache,
    /// or that of `binding`. All of the folio is verified. `want` is the number of pages wanted
    /// from this one on.
    pub(super) fn folio_of(
        self,
        binding: Option<&Arc<Binding>>,
        index: usize,
        want: usize,
    ) -> Result<FolioRef, Unready> {
        if let Some(binding) = binding {
            match self.verified_folio(binding, index, want) {
                Err(Unready::Busy) => {}
                other => return other,
            }
        }
        self.page_in(self.inode().own_mapping(), index, want)
    }

    /// As [`OpenFile::folio_of`], from the page cache of `binding` alone.
    fn verified_folio(
        self,
        binding: &Arc<Binding>,
        index: usize,
        want: usize,
    ) -> Result<FolioRef, Unready> {
        let block = index as u64;
        let mut blocks = block..block + 1;
        loop {
            self.ensure_folio(binding, blocks, block)?;
            let folio = self.page_in(binding.shared().mapping(), index, want);
            let folio = folio.map_err(|why| match why {
                why if self.inode().is_current(binding) => why,
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
    pub(super) fn ensure_folio(
        self,
        binding: &Arc<Binding>,
        pages: Range<u64>,
        block: u64,
    ) -> Result<(), Unready> {
        let pages = pages.start..pages.end.min(binding.blocks());
        match self.ensure_all(binding, pages) {
            Err(Unready::Failed(_))
                if !is_dying() && binding.verified_prefix(block..block + 1) != 0 =>
            {
                Err(Unready::Busy)
            }
            done => done,
        }
    }

    /// `filemap_read()` of a file all of whose resident pages may be read, after `copied` bytes.
    /// `None`: that has changed just now.
    ///
    /// `-EAGAIN`: a page that is missing may be read through another image, which is not waited for
    /// here.
    pub(super) fn read_fast(self, request: &mut ReadRequest<'_>, copied: usize) -> Option<isize> {
        let (inode, mapping) = (self.inode(), self.mapping());
        if mapping == inode.own_mapping() {
            return Some(request.filemap_read(copied));
        }
        let compares = inode.compares_bytes(mapping);
        if !compares && request.pos() == 0 && !self.is_random() {
            self.read_start(request.wanted() as u64);
        }
        let FileMapping::Shared(binding) = inode.through(mapping) else {
            return None;
        };
        let sole = binding.sole_read();
        if compares && sole.is_none() && !binding.is_complete() {
            return None;
        }
        race_point!(c"read_fast");
        if let Some(sole) = sole {
            return Some(self.read_sole(request, copied, &binding, sole));
        }
        if binding.shared().content().usage().bound() <= 1 {
            return Some(request.filemap_read(copied));
        }
        Some(request.filemap_read_with(copied, bindings::IOCB_NOWAIT))
    }

    /// As [`OpenFile::read_fast`], by the only user of a shared inode, which `sole` says. Ends
    /// early when it is not that any more.
    ///
    /// A page fault on the memory that is read into may wait for anything (a filesystem of the
    /// reader's own, `userfaultfd`), and others do not get pages as long as `sole` is there. So
    /// such memory is faulted in between two steps, each of which is short.
    fn read_sole(
        self,
        request: &mut ReadRequest<'_>,
        copied: usize,
        binding: &Binding,
        sole: SoleRead<'_>,
    ) -> isize {
        let size = self.inode().size();
        let mut total = copied as isize;
        let mut faults = 0;
        let mut next = Some(sole);
        while let Some(sole) = next {
            let ret = request.limited(SOLE_BYTES, |request| request.filemap_read_nofault(0));
            drop(sole);
            total += ret.max(0);
            let left = size.saturating_sub(request.pos() as u64);
            if request.wanted() == 0 || left == 0 {
                break;
            }
            let failed = match ret {
                1.. => {
                    faults = 0;
                    is_dying()
                }
                0 => true,
                _ => !may_fault_in(request, ret, &mut faults, left.min(SOLE_BYTES)),
            };
            if failed {
                return if total > 0 { total } else { ret };
            }
            next = binding.sole_read();
        }
        total
    }

    /// Reads the start of a file of which nothing is cached, and of which nothing is checked, for a
    /// reader that wants `wanted` bytes of it. The folios are as large as it: those of a read-ahead
    /// are single pages in the beginning. Other modes read the start when a file is opened.
    fn read_start(self, wanted: u64) {
        let inode = self.inode();
        let FileMapping::Shared(binding) = inode.through(self.mapping()) else {
            return;
        };
        let shared = binding.shared();
        let is_checked = shared.identity().verify != Verify::Nothing;
        if is_checked || shared.pages() != 0 || T::is_compressed(inode) {
            return;
        }
        let count = (wanted >> BLOCK_SHIFT).clamp(LEAST_START, MOST_START);
        // What goes wrong here goes wrong again, and is returned, when a page is not found.
        if let Ok(folios) = inode.read_start(count.min(shared.blocks())) {
            // SAFETY: Nothing is checked.
            unsafe { shared.give(0, folios, |_| true) }
        }
    }

    /// Reads through the page cache when there is more to do than to copy.
    #[inline(never)]
    pub(super) fn read_shared(self, mut request: ReadRequest<'_>) -> isize {
        let size = self.inode().size();
        let mut total = 0isize;
        let mut faults = 0;
        loop {
            let (pos, left) = (request.pos() as u64, request.wanted() as u64);
            if left == 0 || pos >= size {
                return total;
            }
            let end = pos + left.min(size - pos);
            let step = match self.read_step(&mut request, pos..end) {
                // Its own image has the bytes.
                Err(Unready::Busy) => {
                    self.inode().note_own_copy();
                    self.read_page(&mut request, None)
                }
                step => step,
            };
            let err = match step {
                Ok(copied) => {
                    total += copied as isize;
                    if copied != 0 {
                        faults = 0;
                    }
                    continue;
                }
                Err(Unready::Failed(err))
                    if may_fault_in(
                        &mut request,
                        err.to_errno() as isize,
                        &mut faults,
                        (end - pos).min(READ_BYTES),
                    ) =>
                {
                    continue;
                }
                Err(Unready::Left) if !is_dying() => continue,
                Err(Unready::Left) => EINTR,
                Err(Unready::Busy) => EIO,
                Err(Unready::Failed(err)) => err,
            };
            return match total {
                0 => err.to_errno() as isize,
                _ => total,
            };
        }
    }

    /// Copies the first of the bytes `range` of a file that can be had together. `Ok(0)`: nothing
    /// is copied yet, and the next try finds another state.
    ///
    /// `range` begins at the request's position and ends within the file.
    fn read_step(self, request: &mut ReadRequest<'_>, range: Range<u64>) -> Result<usize, Unready> {
        let (inode, mapping) = (self.inode(), self.mapping());
        let shared;
        let mut sole = None;
        let ready = match inode.file_mapping(mapping) {
            FileMapping::Own => range.end - range.start,
            FileMapping::Shared(binding) => {
                shared = binding;
                let want = (range.end - range.start).min(READ_BYTES);
                match self.ready_bytes(request, &shared, range.start, want)? {
                    Ready::Copied(copied) => return Ok(copied),
                    Ready::Bytes(bytes, of_sole) => {
                        sole = of_sole;
                        bytes
                    }
                }
            }
            FileMapping::Stale(_) if request.is_nowait() => {
                return Err(Unready::Failed(EAGAIN));
            }
            FileMapping::Stale(binding) => return self.read_page(request, binding.as_ref()),
        };
        self.copy_step(request, range, ready, sole)
    }

    /// Copies up to `ready` of the bytes `range` of a file, which [`OpenFile::ready_bytes`] has
    /// found, with `sole` if that gave it; or brings their first page in.
    fn copy_step(
        self,
        request: &mut ReadRequest<'_>,
        range: Range<u64>,
        ready: u64,
        sole: Option<SoleRead<'_>>,
    ) -> Result<usize, Unready> {
        let (inode, mapping) = (self.inode(), self.mapping());
        let own = mapping == inode.own_mapping();
        let copied = copy_ready(request, ready, own, sole.is_some());
        // Pages are waited for without it.
        drop(sole);
        match copied {
            // There is something to copy, so this is no end of the file.
            0 => Err(Unready::Failed(EIO)),
            copied @ 1.. => Ok(copied as usize),
            ret => {
                let err = to_result(ret as c_int).err().unwrap_or(EIO);
                if own {
                    return Err(Unready::Failed(err));
                }
                let nowait = request.is_nowait();
                if err != EAGAIN || nowait {
                    return Err(match inode.left(mapping, Unready::Failed(err)) {
                        Unready::Left if nowait => Unready::Failed(EAGAIN),
                        why => why,
                    });
                }
                let index = range.start >> PAGE_SHIFT;
                let want = range.end.div_ceil(PAGE_SIZE as u64).saturating_sub(index);
                self.page_in(mapping, index as usize, want as usize)
                    .map_err(|why| inode.left(mapping, why))?;
                Ok(0)
            }
        }
    }

    /// Verifies blocks for a read of `want` bytes from `pos` on, and says how many bytes may be
    /// copied from the page cache of `binding`; or copies what is elsewhere, if there are aliases.
    fn ready_bytes<'b>(
        self,
        request: &mut ReadRequest<'_>,
        binding: &'b Arc<Binding>,
        pos: u64,
        want: u64,
    ) -> Result<Ready<'b>, Unready> {
        let inode = self.inode();
        let mut blocks = blocks_of(pos, want, binding.blocks());
        let start = blocks.start;
        if inode.has_aliases(binding) {
            let copied = self.read_pieces(request, binding, blocks.clone())?;
            if copied != 0 {
                return Ok(Ready::Copied(copied));
            }
            // The first block is nowhere else.
            binding.shared().forget_aliases(start..start + 1);
            race_point!(c"read_nowhere");
            let next = inode.next_elsewhere(binding, blocks.clone());
            if next <= start {
                // It is now: its page has been merged since.
                return Ok(Ready::Copied(0));
            }
            blocks.end = next.min(blocks.end);
        }
        // Before blocks are looked at, and until they are copied.
        let sole = binding.sole_read();
        let run = if !request.is_nowait() {
            self.ensure(binding, blocks)?
        } else {
            match binding.verified_prefix(blocks) {
                0 => return Err(Unready::Failed(EAGAIN)),
                run => run,
            }
        };
        Ok(Ready::Bytes(bytes_in(start, run, pos).min(want), sole))
    }

    /// Copies the rest of a folio from where the inode's data is now.
    fn read_page(
        self,
        request: &mut ReadRequest<'_>,
        binding: Option<&Arc<Binding>>,
    ) -> Result<usize, Unready> {
        let pos = request.pos();
        let at = pos as u64;
        let left = (request.wanted() as u64).min(self.inode().size().saturating_sub(at));
        let want = (at % PAGE_SIZE as u64)
            .saturating_add(left)
            .div_ceil(PAGE_SIZE as u64);
        let folio = self.folio_of(binding, (at >> PAGE_SHIFT) as usize, want as usize)?;
        let offset = at.saturating_sub(folio.pages().start << PAGE_SHIFT) as usize;
        let behind = request.behind(pos);
        let copied = request.copy_folio(&folio, offset, left as usize, behind);
        request.set_pos(pos + copied as i64);
        match copied {
            0 => Err(Unready::Failed(EFAULT)),
            _ => Ok(copied),
        }
    }

    /// Verifies what a splice of up to `len` bytes from `pos` on takes, and says how it is done.
    fn splice_step(self, pos: u64, len: usize) -> Result<Splice, Unready> {
        let (inode, mapping) = (self.inode(), self.mapping());
        if !self.is_shared() {
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
                let run = self.ensure(&binding, blocks)?;
                bytes_in(start, run, pos).min(want)
            }
        };
        // What is not resident is brought in first, since the splice waits for any image.
        let index = (pos >> PAGE_SHIFT) as usize;
        let pages = (pos % PAGE_SIZE as u64)
            .saturating_add(ready)
            .div_ceil(PAGE_SIZE as u64) as usize;
        let pages = pages.min(SPLICE_PAGES);
        // SAFETY: The type invariants of `Mapping` say that the mapping is live.
        let here = unsafe { bindings::resident(mapping.as_ptr(), index, pages, true) };
        if here != 0 {
            let len = bytes_in(pos >> PAGE_SHIFT, here as u64, pos).min(ready);
            return Ok(Splice::Pages(len as usize));
        }
        self.page_in(mapping, index, pages)
            .map_err(|why| inode.left(mapping, why))?;
        Ok(Splice::Again)
    }

    /// How a splice of up to `len` bytes from `pos` on is done, once that is known; or the errno.
    pub(super) fn splice_way(self, pos: u64, len: usize) -> Result<Splice> {
        loop {
            match self.splice_step(pos, len) {
                Ok(Splice::Again) | Err(Unready::Left) if !is_dying() => {}
                Ok(Splice::Again) | Err(Unready::Left) => return Err(EINTR),
                // A read gets the bytes from the inode's own image.
                Err(Unready::Busy) => return Ok(Splice::Copy(len.min(READ_BYTES as usize))),
                Err(Unready::Failed(err)) => return Err(err),
                Ok(way) => return Ok(way),
            }
        }
    }
}

/// Whether a read that failed with `ret` is to be tried again, since that was for want of page
/// faults on the memory that it reads into; they have been made then, for `bytes` bytes. `faults`
/// counts that, and is 0 after each success: there is memory that is not writable though it can be
/// faulted in.
#[cold]
fn may_fault_in(request: &mut ReadRequest<'_>, ret: isize, faults: &mut u32, bytes: u64) -> bool {
    *faults += 1;
    ret == EFAULT.to_errno() as isize
        && *faults <= MAX_FAULTS
        && !is_dying()
        && request.fault_in(bytes as usize).is_ok()
}

/// What a read finds of verified blocks.
enum Ready<'a> {
    /// This number of bytes have been copied from elsewhere, perhaps none.
    Copied(usize),
    /// This number of bytes may be copied from the page cache; by its only user, with what says so,
    /// while that is there.
    Bytes(u64, Option<SoleRead<'a>>),
}

/// `filemap_read()` of up to `ready` bytes. From a page cache that is not the inode's own only what
/// can be had without waiting: `-EAGAIN` if that is nothing. With `nofault` see
/// [`ReadRequest::filemap_read_nofault`].
fn copy_ready(request: &mut ReadRequest<'_>, ready: u64, own: bool, nofault: bool) -> isize {
    let more = if request.is_nowait() {
        // Reading ahead looks for extents, which may sleep on metadata.
        bindings::IOCB_NOIO
    } else if !own {
        // It reads ahead all the same, but does not wait for what it finds locked.
        bindings::IOCB_NOWAIT
    } else {
        0
    };
    request.limited(ready, |request| {
        race_point!(c"read_ready");
        match nofault {
            true => request.filemap_read_nofault(more),
            false => request.filemap_read_with(0, more),
        }
    })
}

/// How a part of a file is spliced.
pub(super) enum Splice {
    /// By reference to the pages: this number of bytes.
    Pages(usize),
    /// By copying this number of bytes.
    Copy(usize),
    /// Not yet: a page has been brought in.
    Again,
}

impl<T: FileSystem> Inode<T> {
    /// Whether the reader of a file may drop its pages from the page cache: where the administrator
    /// vouches for the sharing, as in-tree; else if no other inode counts on them.
    pub(super) fn may_drop(&self, mapping: Mapping<'_>) -> bool {
        match self.through(mapping) {
            FileMapping::Own => true,
            FileMapping::Shared(binding) => {
                binding.shared().identity().verify == Verify::Nothing
                    || binding.shared().content().usage().bound() <= 1
            }
            FileMapping::Stale(_) => false,
        }
    }
}
