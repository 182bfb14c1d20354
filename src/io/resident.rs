// SPDX-License-Identifier: GPL-2.0

//! Copying what is resident in a page cache to a read: the hottest loop of the module.

use kernel::{
    bindings,
    page::{PAGE_SHIFT, PAGE_SIZE},
};

use super::{
    folio::{FolioBatch, FolioRef},
    wait::cond_resched,
};
use crate::raw;

/// Copies from a folio, `offset` bytes into it and of which `size` is the size, to a read that wants `left` bytes, and
/// moves the request on. Returns how many bytes, and whether that is all that can be copied now.
///
/// # Safety
///
/// As for [`copy_resident`]; the folio has the byte at the request's position at `offset`.
#[inline(always)]
unsafe fn copy_folio(
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
    (folio, offset, size): (FolioRef, usize, usize),
    left: usize,
) -> (usize, bool) {
    // SAFETY: By the function's safety requirements, and the invariants of `FolioRef`.
    unsafe {
        let ra = &raw mut (*(*iocb).ki_filp).__bindgen_anon_3.f_ra;
        // Other threads that read this file write it, too.
        let (pos, last) = ((*iocb).ki_pos, (&raw const (*ra).prev_pos).read_volatile());
        // Several reads of a folio in a row are one access.
        let first = pos.wrapping_sub(offset as i64);
        if (last.wrapping_sub(1).wrapping_sub(first) as u64) >= size as u64 {
            bindings::folio_mark_accessed(folio.as_ptr());
        }
        let len = left.min(size.saturating_sub(offset));
        let from = raw::erofs_shared_folio_address(folio.as_ptr()).cast::<u8>();
        let copied = bindings::_copy_to_iter(from.add(offset).cast(), len, to);
        drop(folio);
        let last = pos.wrapping_add(copied as i64);
        (*iocb).ki_pos = last;
        (&raw mut (*ra).prev_pos).write_volatile(last);
        (copied, copied < len || len == left)
    }
}

/// Copies what is resident of the bytes that a read wants, from the first on and below `end`, and moves the
/// request on. What `filemap_read` does, but for reading anything, and with each folio in one go.
/// The times of access of files of this module do not change. Returns how many bytes.
///
/// # Safety
///
/// `iocb` and `to` are those of a read of an open file, ours for the call; all resident pages of `mapping` may be
/// read through it. `mapping` is one of this module's, and the file holds it.
#[inline(always)]
pub(crate) unsafe fn copy_resident(
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
    mapping: *mut bindings::address_space,
    end: u64,
) -> usize {
    let mut total = 0;
    // SAFETY: By the function's safety requirements.
    unsafe {
        loop {
            let pos = (*iocb).ki_pos;
            // A negative position is behind all ends.
            let left = end.saturating_sub(pos as u64) as usize;
            let left = left.min(raw::erofs_shared_iov_bytes(to));
            if left == 0 {
                return total;
            }
            let Some(found) = FolioRef::ready(mapping, pos) else {
                return total;
            };
            let is_small = found.2 == PAGE_SIZE;
            let (copied, done) = copy_folio(iocb, to, found, left);
            total += copied;
            if done {
                return total;
            }
            if is_small && left - copied > PAGE_SIZE {
                // There will be more of them.
                return total + copy_run(iocb, to, mapping, left - copied);
            }
            cond_resched();
        }
    }
}

/// As [`copy_resident`], when `left` bytes below the end are wanted and folios are small: finds several at a time.
///
/// # Safety
///
/// As for [`copy_resident`].
#[inline(never)]
unsafe fn copy_run(
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
    mapping: *mut bindings::address_space,
    left: usize,
) -> usize {
    let mut rest = left;
    // SAFETY: By the function's safety requirements.
    unsafe {
        loop {
            let pos = (*iocb).ki_pos;
            let last = (pos as u64).saturating_add(rest as u64 - 1) >> PAGE_SHIFT;
            let mut run = FolioBatch::find(mapping, pos as u64 >> PAGE_SHIFT, last);
            let mut empty = true;
            while let Some(found) = run.ready((*iocb).ki_pos) {
                empty = false;
                let (copied, done) = copy_folio(iocb, to, found, rest);
                rest -= copied;
                if done {
                    return left - rest;
                }
            }
            if empty || run.has_more() {
                return left - rest;
            }
            cond_resched();
        }
    }
}
