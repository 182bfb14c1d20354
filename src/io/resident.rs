// SPDX-License-Identifier: GPL-2.0

//! Copying what is resident in a page cache to a read: the hottest loop of the module.

use kernel::page::{PAGE_SHIFT, PAGE_SIZE};

use super::{
    folio::{FolioBatch, FolioRef},
    mapping::Mapping,
    request::ReadRequest,
    wait::cond_resched,
};

/// A folio that has the byte at the position of a read: how many bytes into it that is, and its
/// size.
type Found = (FolioRef, usize, usize);

/// Copies from a folio to a read that wants `left` bytes, and moves the read on. Returns how many
/// bytes, and whether that is all that can be copied now.
#[inline(always)]
fn copy_folio(
    request: &mut ReadRequest<'_>,
    (folio, offset, size): Found,
    left: usize,
) -> (usize, bool) {
    let pos = request.pos();
    // Several reads of a folio in a row are one access.
    if (offset as i64).wrapping_add(request.behind(pos)) as u64 >= size as u64 {
        folio.mark_accessed();
    }
    let len = left.min(size.saturating_sub(offset));
    // SAFETY: `size` is that of the folio, and `offset` is inside it.
    let copied = request.copy(unsafe { folio.part(offset, len) });
    drop(folio);
    request.set_pos(pos.wrapping_add(copied as i64));
    (copied, copied < len || len == left)
}

/// Copies what is resident of the bytes that a read wants, from the first on and below `end`, and
/// moves the read on. This is what `filemap_read` does, but it reads nothing, and copies each folio
/// in one go. The times of access of files of this module do not change. Returns how many bytes.
///
/// All resident pages of `mapping` may be read through the file as long as `may_read` says so,
/// which is asked after each folio is found: one that comes in later is not read.
#[inline(always)]
pub(crate) fn copy_resident(
    request: &mut ReadRequest<'_>,
    mapping: Mapping<'_>,
    end: u64,
    may_read: impl Fn() -> bool,
) -> usize {
    let mut total = 0;
    loop {
        let pos = request.pos();
        // A negative position is behind all ends.
        let left = end.saturating_sub(pos as u64) as usize;
        let left = left.min(request.wanted());
        if left == 0 {
            return total;
        }
        let Some(found) = FolioRef::ready(mapping, pos).filter(|_| may_read()) else {
            return total;
        };
        let is_small = found.2 == PAGE_SIZE;
        let (copied, done) = copy_folio(request, found, left);
        total += copied;
        if done {
            return total;
        }
        if is_small && left - copied > PAGE_SIZE {
            // There will be more of them.
            return total + copy_batches(request.reborrow(), mapping, left - copied, may_read);
        }
        cond_resched();
    }
}

/// As [`copy_resident`], when `left` bytes below the end are wanted and folios are small: finds
/// several at a time.
#[inline(never)]
fn copy_batches(
    mut request: ReadRequest<'_>,
    mapping: Mapping<'_>,
    left: usize,
    may_read: impl Fn() -> bool,
) -> usize {
    let mut rest = left;
    loop {
        let pos = request.pos();
        let last = (pos as u64).saturating_add(rest as u64 - 1) >> PAGE_SHIFT;
        let mut batch = FolioBatch::find(mapping, pos as u64 >> PAGE_SHIFT, last);
        let mut empty = true;
        while let Some(found) = batch.ready(request.pos()) {
            // Only now is it known that the folio was uptodate before.
            if !may_read() {
                return left - rest;
            }
            empty = false;
            let (copied, done) = copy_folio(&mut request, found, rest);
            rest -= copied;
            if done {
                return left - rest;
            }
        }
        if empty || batch.has_more() {
            return left - rest;
        }
        cond_resched();
    }
}
