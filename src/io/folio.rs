// SPDX-License-Identifier: GPL-2.0

//! Metadata bytes out of a page cache.

use core::{marker::PhantomData, ops::Deref, ptr::NonNull};

use kernel::{
    bindings,
    error::from_err_ptr,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

use super::{page::PageState, wait::cond_resched};
use crate::{
    format::{self, error::Kind, source::Source},
    raw,
};

/// Why metadata could not be read: the image says nonsense, or reading failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadError {
    /// What the format core found wrong.
    Format(format::error::Error),
    /// The read itself failed.
    Io(Error),
}

impl From<format::error::Error> for ReadError {
    fn from(err: format::error::Error) -> Self {
        ReadError::Format(err)
    }
}

impl From<Error> for ReadError {
    fn from(err: Error) -> Self {
        ReadError::Io(err)
    }
}

/// A readable, uptodate folio's bytes from one position to the end of that page.
///
/// # Invariants
///
/// `folio` is uptodate and this owns one reference to it; `ptr..ptr + len` lies inside it. The folio
/// belongs to the mapping of a regular file or a directory of this module. Nobody can write to that (no
/// `write_iter`, no shared writable mapping, and `page_get_link`, which ends a target with a NUL, is for
/// symbolic links alone), so its bytes do not change while the reference is held.
pub(crate) struct FolioBytes<'a> {
    folio: NonNull<bindings::folio>,
    ptr: *const u8,
    len: usize,
    _mapping: PhantomData<&'a bindings::address_space>,
}

impl FolioBytes<'_> {
    /// Gives up the reference as raw parts: the folio and the first byte's address. Take it back with
    /// [`FolioBytes::put_raw`].
    pub(crate) fn into_raw(self) -> (*mut bindings::folio, *mut u8) {
        let this = core::mem::ManuallyDrop::new(self);
        (this.folio.as_ptr(), this.ptr.cast_mut())
    }

    /// Drops what [`FolioBytes::into_raw`] gave up.
    ///
    /// # Safety
    ///
    /// `folio` comes from `into_raw` and is not used afterwards.
    pub(crate) unsafe fn put_raw(folio: *mut bindings::folio) {
        // SAFETY: The caller hands over the reference.
        unsafe { raw::erofs_shared_folio_put(folio) }
    }
}

impl Deref for FolioBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariants the range is inside a live folio and does not change.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl Drop for FolioBytes<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this owns the reference.
        unsafe { raw::erofs_shared_folio_put(self.folio.as_ptr()) }
    }
}

/// What data is of which, in the order in which one is read while another waits for it: files' and
/// directories', the packed inode's, the metabox's.
#[derive(Clone, Copy)]
pub(crate) enum Depth {
    /// A directory, or a file that reads no other.
    Directory = 1,
    /// The packed inode.
    Packed = 2,
    /// The metabox inode.
    Metabox = 3,
}

/// The bytes of a mapping of this module, as the format core reads them.
///
/// # Invariants
///
/// `mapping` is the live `i_mapping` of a regular file or a directory of this module for `'a`, and has a
/// `readahead` and a `read_folio`.
#[derive(Clone, Copy)]
pub(crate) struct CacheBytes<'a> {
    mapping: NonNull<bindings::address_space>,
    size: u64,
    /// Its pages are worth reading with those around them.
    around: Option<Depth>,
    _inode: PhantomData<&'a bindings::inode>,
}

impl<'a> CacheBytes<'a> {
    /// # Safety
    ///
    /// `mapping` must be the `i_mapping` of an inode of this module that lives for `'a`, is a regular
    /// file or a directory, and has a `readahead` and a `read_folio`; `size` is that inode's size.
    pub(crate) unsafe fn new(mapping: NonNull<bindings::address_space>, size: u64) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            mapping,
            size,
            around: None,
            _inode: PhantomData,
        }
    }

    /// The same, for data that is compressed: what is not in the page cache comes there with all that is
    /// compressed together with it.
    pub(crate) fn encoded(self, depth: Depth) -> Self {
        Self {
            around: Some(depth),
            ..self
        }
    }

    /// Reads `len` bytes from `pos` on into the page cache, unless the first of them is there.
    pub(crate) fn read_ahead(&self, pos: u64, len: usize) {
        let depth = self.around.unwrap_or(Depth::Packed);
        if pos >= self.size || len == 0 {
            return;
        }
        let end = pos.saturating_add(len as u64).min(self.size);
        let first = pos >> PAGE_SHIFT;
        let count = ((end - 1) >> PAGE_SHIFT) - first + 1;
        // SAFETY: By the type invariants the mapping is live and has a `readahead`.
        unsafe {
            raw::erofs_shared_read_around(
                self.mapping.as_ptr(),
                first as usize,
                count as usize,
                depth as u32,
            );
        }
    }

    /// The folio with page `index`, uptodate, with a reference. A fatal signal ends the wait for it, also if
    /// somebody else is reading it, for whom `read_cache_folio()` waits whatever happens.
    fn folio(&self, index: usize) -> Result<NonNull<bindings::folio>> {
        let mapping = self.mapping.as_ptr();
        loop {
            // SAFETY: By the type invariants.
            match unsafe { PageState::find(mapping, index as u64) } {
                PageState::Ready(folio) => {
                    // SAFETY: By the type invariants of `FolioRef` the folio is live.
                    unsafe { bindings::folio_mark_accessed(folio.as_ptr()) };
                    return NonNull::new(folio.into_raw()).ok_or(EIO);
                }
                PageState::Locked(folio) => folio.wait()?,
                PageState::Absent | PageState::Failed(_) => break,
            }
        }
        // SAFETY: By the type invariants the mapping is live and has a `read_folio`.
        let folio = from_err_ptr(unsafe {
            bindings::read_cache_folio(mapping, index, None, core::ptr::null_mut())
        })?;
        NonNull::new(folio).ok_or(EIO)
    }

    /// Like [`Source::bread`], with the lifetime of the inode instead of `self`.
    pub(crate) fn bytes(&self, pos: u64) -> Result<FolioBytes<'a>, ReadError> {
        if pos >= self.size {
            return Err(ReadError::Format(format::error::Error {
                kind: Kind::Corrupted,
                what: "metadata past the end",
                pos,
                value: self.size,
            }));
        }
        let page_mask = (PAGE_SIZE - 1) as u64;
        let index = (pos >> PAGE_SHIFT) as usize;
        if self.around.is_some() {
            self.read_ahead(pos, 1);
        }
        let folio = self.folio(index)?;
        // SAFETY: This is a referenced, uptodate folio that contains `index`.
        let (base, start, size) = unsafe {
            (
                raw::erofs_shared_folio_address(folio.as_ptr()).cast::<u8>(),
                raw::erofs_shared_folio_pos(folio.as_ptr()) as u64,
                raw::erofs_shared_folio_size(folio.as_ptr()),
            )
        };
        let in_folio = pos.wrapping_sub(start) as usize;
        let in_page = (pos & page_mask) as usize;
        let mut len = PAGE_SIZE - in_page;
        let rest = self.size - pos;
        if rest < len as u64 {
            len = rest as usize;
        }
        if in_folio >= size {
            // SAFETY: The reference is given back, once.
            unsafe { raw::erofs_shared_folio_put(folio.as_ptr()) };
            return Err(ReadError::Io(EIO));
        }
        // INVARIANT: The reference is now owned here, and `in_folio + len` is at most the end of a
        // page of the folio. The mapping is one of this module's, by the type invariants.
        Ok(FolioBytes {
            folio,
            // SAFETY: `in_folio < size`.
            ptr: unsafe { base.add(in_folio) },
            len,
            _mapping: PhantomData,
        })
    }
}

impl<'m> Source for CacheBytes<'m> {
    type Error = ReadError;
    type Buf<'a>
        = FolioBytes<'a>
    where
        Self: 'a;

    fn bread(&self, pos: u64) -> Result<Self::Buf<'_>, ReadError> {
        self.bytes(pos)
    }
}

/// A reference to an uptodate folio of a page cache of this module.
///
/// # Invariants
///
/// `folio` is uptodate and this owns one reference to it. Nobody can write to it (see [`FolioBytes`]), so
/// its bytes do not change while the reference is held, even when the page cache drops it.
pub(crate) struct FolioRef(NonNull<bindings::folio>);

// SAFETY: A reference may be used and given up from any thread.
unsafe impl Send for FolioRef {}

/// The first page of a folio of a page cache, and the page after its last.
///
/// # Safety
///
/// `folio` is live and in a page cache.
pub(super) unsafe fn pages_of(folio: NonNull<bindings::folio>) -> core::ops::Range<u64> {
    // SAFETY: By the function's safety requirements.
    let (pos, size) = unsafe {
        (
            raw::erofs_shared_folio_pos(folio.as_ptr()) as u64,
            raw::erofs_shared_folio_size(folio.as_ptr()) as u64,
        )
    };
    let first = pos >> PAGE_SHIFT;
    first..first + (size >> PAGE_SHIFT)
}

impl FolioRef {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `folio` is uptodate, of a page cache of this module, and the reference is the caller's.
    pub(super) unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self(folio)
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    /// As [`FolioRef::pages`].
    ///
    /// # Safety
    ///
    /// `folio` is live and in a page cache.
    pub(crate) unsafe fn pages_of_raw(folio: *mut bindings::folio) -> core::ops::Range<u64> {
        // SAFETY: By the function's safety requirements.
        unsafe { pages_of(NonNull::new_unchecked(folio)) }
    }

    /// Gives the reference up to the caller.
    pub(crate) fn into_raw(self) -> *mut bindings::folio {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// The folio with page `index`, if it is there and uptodate. May be called in atomic context.
    ///
    /// # Safety
    ///
    /// `mapping` is one of this module's and is not freed during the call.
    pub(crate) unsafe fn find(mapping: *mut bindings::address_space, index: u64) -> Option<Self> {
        // SAFETY: By the function's safety requirements; the folio comes with a reference.
        let folio = unsafe { raw::erofs_shared_filemap_get(mapping, index as usize) };
        // INVARIANT: The reference is ours, and is given up again if the folio is not uptodate.
        let this = Self(NonNull::new(folio)?);
        // SAFETY: It is live.
        unsafe { raw::erofs_shared_folio_uptodate(folio) }.then_some(this)
    }

    /// The folio with the byte at `pos`, if it is there and there is nothing to do but to read it: how many bytes
    /// into it that is, and its size.
    ///
    /// # Safety
    ///
    /// As for [`FolioRef::find`].
    #[inline(always)]
    unsafe fn ready(
        mapping: *mut bindings::address_space,
        pos: i64,
    ) -> Option<(Self, usize, usize)> {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: By the function's safety requirements.
        let folio = unsafe {
            raw::erofs_shared_filemap_get_ready(mapping, pos, &raw mut offset, &raw mut size)
        };
        // INVARIANT: It is uptodate, and the reference is ours.
        Some((Self(NonNull::new(folio)?), offset, size))
    }

    /// Its first page's place in the file, and how many pages it has.
    pub(crate) fn pages(&self) -> core::ops::Range<u64> {
        // SAFETY: By the type invariants.
        unsafe { pages_of(self.0) }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants.
        unsafe {
            core::slice::from_raw_parts(
                raw::erofs_shared_folio_address(self.0.as_ptr()).cast::<u8>(),
                raw::erofs_shared_folio_size(self.0.as_ptr()),
            )
        }
    }

    /// Whether it has been used often lately.
    pub(crate) fn is_hot(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { raw::erofs_shared_folio_active(self.0.as_ptr()) }
    }

    /// Whether a reader who comes here should have more read ahead.
    pub(crate) fn is_readahead(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { raw::erofs_shared_folio_readahead(self.0.as_ptr()) }
    }

    /// Whether it is mapped into a process.
    pub(crate) fn is_mapped(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { raw::erofs_shared_folio_mapped(self.0.as_ptr()) }
    }

    /// Copies `len` bytes from `offset` on to where a read wants them. Returns how many could be.
    ///
    /// `behind` is how far behind `offset` the byte is that the same file read last, negative for one before
    /// it: several reads of a folio in a row are one access.
    ///
    /// # Safety
    ///
    /// `to` is valid, and ours for the call.
    pub(crate) unsafe fn copy_to(
        &self,
        offset: usize,
        len: usize,
        behind: i64,
        to: *mut bindings::iov_iter,
    ) -> usize {
        let bytes = self.bytes().get(offset..).unwrap_or_default();
        let len = len.min(bytes.len());
        // SAFETY: By the type invariants and the function's safety requirements; the range is in the folio. It is
        // copied in one go where `copy_page_to_iter` takes page by page.
        unsafe {
            if (offset as i64).wrapping_add(behind) as u64 >= self.bytes().len() as u64 {
                bindings::folio_mark_accessed(self.0.as_ptr());
            }
            bindings::_copy_to_iter(bytes.as_ptr().cast(), len, to)
        }
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { raw::erofs_shared_folio_put(self.0.as_ptr()) }
    }
}

/// References to folios that follow each other in a page cache of this module.
///
/// # Invariants
///
/// `batch.folios[batch.i..batch.nr]` are live folios, to each of which this owns a reference.
struct Run {
    batch: bindings::folio_batch,
}

impl Run {
    /// Those with the pages `first..=last`, up to the first that is not there; as many as there is room for.
    ///
    /// # Safety
    ///
    /// As for [`FolioRef::find`].
    unsafe fn find(mapping: *mut bindings::address_space, first: u64, last: u64) -> Self {
        let mut batch = bindings::folio_batch::default();
        let mut next = first as usize;
        // SAFETY: By the function's safety requirements; the batch is empty.
        unsafe {
            bindings::filemap_get_folios_contig(mapping, &mut next, last as usize, &mut batch)
        };
        // INVARIANT: It has put them there, with a reference each, from the first place on.
        Self { batch }
    }

    /// The next one.
    fn take(&mut self) -> Option<NonNull<bindings::folio>> {
        let folio = match self.batch.folios.get(usize::from(self.batch.i)) {
            Some(folio) if self.batch.i < self.batch.nr => *folio,
            _ => return None,
        };
        // INVARIANT: This no longer has it.
        self.batch.i += 1;
        NonNull::new(folio)
    }

    /// As [`FolioRef::ready`], of the next one, which has to have the byte at `pos`.
    fn ready(&mut self, pos: i64) -> Option<(FolioRef, usize, usize)> {
        let folio = self.take()?;
        let (mut offset, mut size) = (0, 0);
        // SAFETY: The folio is live, and the reference to it is given back, or the `FolioRef`'s.
        unsafe {
            let is_ready =
                raw::erofs_shared_folio_ready(folio.as_ptr(), pos, &raw mut offset, &raw mut size);
            if !is_ready {
                raw::erofs_shared_folio_put(folio.as_ptr());
                return None;
            }
        }
        // INVARIANT: It is uptodate, and the reference is ours.
        Some((FolioRef(folio), offset, size))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        while let Some(folio) = self.take() {
            // SAFETY: By the type invariants; nobody else gives this reference back.
            unsafe { raw::erofs_shared_folio_put(folio.as_ptr()) };
        }
    }
}

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
            bindings::folio_mark_accessed(folio.0.as_ptr());
        }
        let len = left.min(size.saturating_sub(offset));
        let from = raw::erofs_shared_folio_address(folio.0.as_ptr()).cast::<u8>();
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
            let mut run = Run::find(mapping, pos as u64 >> PAGE_SHIFT, last);
            let mut empty = true;
            while let Some(found) = run.ready((*iocb).ki_pos) {
                empty = false;
                let (copied, done) = copy_folio(iocb, to, found, rest);
                rest -= copied;
                if done {
                    return left - rest;
                }
            }
            if empty || run.batch.i < run.batch.nr {
                return left - rest;
            }
            cond_resched();
        }
    }
}
