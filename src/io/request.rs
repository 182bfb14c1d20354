// SPDX-License-Identifier: GPL-2.0

//! Reads of open files: `kiocb` and `iov_iter` as one type. A wrapper module.

use core::{marker::PhantomData, ptr::NonNull};

use kernel::prelude::*;

use super::folio::FolioRef;
use crate::bindings;

/// A read of an open file: where it stands, and where the bytes go.
///
/// # Invariants
///
/// * `iocb` and `to` are the arguments of a `->read_iter` that runs for `'a`, and nothing else uses
///   them.
/// * `ki_filp` is an open file for `'a`.
pub(crate) struct ReadRequest<'a> {
    iocb: NonNull<bindings::kiocb>,
    to: NonNull<bindings::iov_iter>,
    _call: PhantomData<&'a mut bindings::kiocb>,
}

impl ReadRequest<'_> {
    /// # Safety
    ///
    /// * `iocb` and `to` are the arguments of a `->read_iter` that runs for the result's lifetime.
    /// * That uses them through the result only.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> Self {
        // INVARIANT: By this function's requirements the `->read_iter` runs for the result's
        // lifetime.
        Self {
            // SAFETY: By this function's requirements the pointer is valid.
            iocb: unsafe { NonNull::new_unchecked(iocb) },
            // SAFETY: By this function's requirements the pointer is valid.
            to: unsafe { NonNull::new_unchecked(to) },
            _call: PhantomData,
        }
    }

    /// The request, for a function that takes it over.
    pub(crate) fn as_ptrs(&mut self) -> (*mut bindings::kiocb, *mut bindings::iov_iter) {
        (self.iocb.as_ptr(), self.to.as_ptr())
    }

    /// The file.
    #[inline(always)]
    pub(crate) fn file(&self) -> *mut bindings::file {
        // SAFETY: `iocb` is live as long as this (type invariants), and its file is constant.
        unsafe { (*self.iocb.as_ptr()).ki_filp }
    }

    /// Position in the file.
    #[inline(always)]
    pub(crate) fn pos(&self) -> i64 {
        // SAFETY: `iocb` is live as long as this, and not used by others (type invariants).
        unsafe { (*self.iocb.as_ptr()).ki_pos }
    }

    /// Bytes that are wanted yet.
    #[inline(always)]
    pub(crate) fn wanted(&self) -> usize {
        // SAFETY: `to` is live as long as this, and not used by others (type invariants).
        unsafe { bindings::iov_bytes(self.to.as_ptr()) }
    }

    /// `IOCB_*`
    #[inline(always)]
    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: `iocb` is live as long as this, and not used by others (type invariants).
        unsafe { (*self.iocb.as_ptr()).ki_flags as u32 }
    }

    fn set_flags(&mut self, flags: u32) {
        // SAFETY: `iocb` is live as long as this, and not used by others (type invariants).
        unsafe { (*self.iocb.as_ptr()).ki_flags = flags as i32 }
    }

    /// Whether it must not block.
    pub(crate) fn is_nowait(&self) -> bool {
        self.flags() & bindings::IOCB_NOWAIT != 0
    }

    /// The same request, to be passed on by value.
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> ReadRequest<'_> {
        // INVARIANT: The result is used as long as `self` is borrowed.
        ReadRequest {
            iocb: self.iocb,
            to: self.to,
            _call: PhantomData,
        }
    }

    /// How far behind `pos` the byte is that the same file read last, negative for one before it.
    /// Other threads that read this file write that, too.
    #[inline(always)]
    pub(crate) fn behind(&self, pos: i64) -> i64 {
        // SAFETY: The file is open as long as this (type invariants). Others may write the field:
        // it is read once.
        let last = unsafe { self.prev_pos().read_volatile() };
        last.wrapping_sub(1).wrapping_sub(pos)
    }

    /// Moves the request to `pos`, up to which bytes have been copied, and notes that for the next
    /// one.
    #[inline(always)]
    pub(crate) fn set_pos(&mut self, pos: i64) {
        // SAFETY: `iocb` is live and not used by others (type invariants).
        unsafe { (*self.iocb.as_ptr()).ki_pos = pos };
        // SAFETY: By the type invariants the file is open. Other threads may write `prev_pos`, too.
        unsafe { self.prev_pos().write_volatile(pos) };
    }

    /// Where the file's last read is noted.
    #[inline(always)]
    fn prev_pos(&self) -> *mut bindings::loff_t {
        // SAFETY: The file is open as long as this (type invariants).
        unsafe { &raw mut (*self.file()).__bindgen_anon_3.f_ra.prev_pos }
    }

    /// Copies bytes to where they are wanted, without moving the request on. Returns how many could
    /// be.
    #[inline(always)]
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> usize {
        // SAFETY: The bytes are readable; by the type invariants `to` is live, and not used by
        // others.
        unsafe { bindings::_copy_to_iter(bytes.as_ptr().cast(), bytes.len(), self.to.as_ptr()) }
    }

    /// As [`ReadRequest::copy`], of `len` zeros.
    pub(crate) fn zero(&mut self, len: usize) -> usize {
        // SAFETY: `to` is live as long as this, and not used by others (type invariants).
        unsafe { bindings::iov_iter_zero(len, self.to.as_ptr()) }
    }

    /// As [`ReadRequest::copy`], of `len` bytes of a folio from `offset` on. `behind` is as
    /// [`ReadRequest::behind`] gives it: several reads of a folio in a row are one access.
    pub(crate) fn copy_folio(
        &mut self,
        folio: &FolioRef,
        offset: usize,
        len: usize,
        behind: i64,
    ) -> usize {
        let all = folio.bytes();
        let bytes = all.get(offset..).unwrap_or_default();
        let bytes = bytes.get(..len).unwrap_or(bytes);
        if (offset as i64).wrapping_add(behind) as u64 >= all.len() as u64 {
            folio.mark_accessed();
        }
        // In one go, where `copy_page_to_iter` takes page by page.
        self.copy(bytes)
    }

    /// `filemap_read()`, for a request that has copied `copied` bytes already.
    #[inline(always)]
    pub(crate) fn filemap_read(&mut self, copied: usize) -> isize {
        // SAFETY: By the type invariants these are the arguments of a `->read_iter` of an open
        // file, whose `f_mapping` is a page cache of this module.
        unsafe { bindings::filemap_read(self.iocb.as_ptr(), self.to.as_ptr(), copied as isize) }
    }

    /// As [`ReadRequest::filemap_read`] with these flags in addition, to what can be written to
    /// without a page fault: `-EFAULT` if that is nothing.
    pub(crate) fn filemap_read_nofault(&mut self, more: u32) -> isize {
        self.with_flags(more, |this| {
            // SAFETY: By the type invariants these are the arguments of a `->read_iter` of an open
            // file, whose `f_mapping` is a page cache of this module.
            unsafe { bindings::filemap_read_nofault(this.iocb.as_ptr(), this.to.as_ptr()) }
        })
    }

    /// Has the memory of the next `bytes` bytes that are wanted written to without a page fault,
    /// most likely. `EFAULT` if there is none.
    pub(crate) fn fault_in(&mut self, bytes: usize) -> Result {
        let bytes = bytes.min(self.wanted());
        // SAFETY: `to` is live as long as this, and not used by others (type invariants).
        let left = unsafe { bindings::fault_in_iov_iter_writeable(self.to.as_ptr(), bytes) };
        if left < bytes {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// As [`ReadRequest::filemap_read`], with these flags in addition.
    pub(crate) fn filemap_read_with(&mut self, copied: usize, more: u32) -> isize {
        self.with_flags(more, |this| this.filemap_read(copied))
    }

    /// Calls `f` with a request that has these flags in addition.
    fn with_flags<R>(&mut self, more: u32, f: impl FnOnce(&mut Self) -> R) -> R {
        let flags = self.flags();
        self.set_flags(flags | more);
        let result = f(self);
        self.set_flags(flags);
        result
    }

    /// Calls `f` with a request that wants no more than `max` bytes.
    pub(crate) fn limited<R>(&mut self, max: u64, f: impl FnOnce(&mut Self) -> R) -> R {
        let all = self.wanted();
        // SAFETY: `to` is live as long as this, and not used by others (type invariants).
        unsafe { bindings::iov_truncate(self.to.as_ptr(), max) };
        let before = self.wanted();
        let result = f(self);
        let copied = before - self.wanted();
        // SAFETY: The same. It becomes as long as it was, but for what was copied.
        unsafe { bindings::iov_reexpand(self.to.as_ptr(), all - copied) };
        result
    }
}
