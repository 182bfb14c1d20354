// SPDX-License-Identifier: GPL-2.0

//! References to uptodate folios of page caches of this module.

use core::ptr::NonNull;

use kernel::{bindings, page::PAGE_SHIFT};

use super::mapping::Mapping;
use crate::raw;

/// A reference to an uptodate folio of a page cache of this module.
///
/// # Invariants
///
/// `folio` is uptodate and this owns one reference to it. Nothing can write to it (see
/// [`FolioBytes`](super::metadata::FolioBytes)), so its bytes do not change while the reference is
/// held, even when the page cache drops it.
pub(crate) struct FolioRef(NonNull<bindings::folio>);

// SAFETY: A reference may be used and given up from any thread.
unsafe impl Send for FolioRef {}

/// The first page of a folio of a page cache, and the page after its last.
///
/// # Safety
///
/// `folio` is live and in a page cache.
pub(super) unsafe fn pages_of(folio: NonNull<bindings::folio>) -> core::ops::Range<u64> {
    // SAFETY: By this function's requirements the folio is live and in a page cache, so that it has
    // a place there.
    let (pos, size) = unsafe {
        (
            raw::erofs_shared_folio_pos(folio.as_ptr()) as u64,
            raw::erofs_shared_folio_size(folio.as_ptr()) as u64,
        )
    };
    let first = pos >> PAGE_SHIFT;
    first..first + (size >> PAGE_SHIFT)
}

/// The page of a folio in which its byte `offset` is: a folio's pages are consecutive.
pub(super) fn page_of(folio: *mut bindings::folio, offset: usize) -> *mut bindings::page {
    folio
        .cast::<bindings::page>()
        .wrapping_add(offset >> PAGE_SHIFT)
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
        // SAFETY: By this function's requirements the pointer is to a live folio, which is in a
        // page cache.
        unsafe { pages_of(NonNull::new_unchecked(folio)) }
    }

    /// Gives the reference up to the caller.
    pub(crate) fn into_raw(self) -> *mut bindings::folio {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// The folio with page `index`, if it is there and uptodate. May be called in atomic context.
    pub(crate) fn find(mapping: Mapping<'_>, index: u64) -> Option<Self> {
        // SAFETY: By the type invariants of `Mapping` it is live; the folio comes with a reference.
        let folio = unsafe { raw::erofs_shared_filemap_get(mapping.as_ptr(), index as usize) };
        // INVARIANT: The reference is ours, and is given up again if the folio is not uptodate.
        let this = Self(NonNull::new(folio)?);
        // SAFETY: It is live.
        unsafe { raw::erofs_shared_folio_uptodate(folio) }.then_some(this)
    }

    /// The folio with the byte at `pos`, if it is there and there is nothing to do but to read it:
    /// how many bytes into it that is, which is less than its size, and its size.
    #[inline(always)]
    pub(super) fn ready(mapping: Mapping<'_>, pos: i64) -> Option<(Self, usize, usize)> {
        let (mut offset, mut size) = (0, 0);
        let mapping = mapping.as_ptr();
        // SAFETY: By the type invariants of `Mapping` it is live; the folio comes with a reference.
        let folio = unsafe {
            raw::erofs_shared_filemap_get_ready(mapping, pos, &raw mut offset, &raw mut size)
        };
        // INVARIANT: It is uptodate, and the reference is ours.
        Some((Self(NonNull::new(folio)?), offset, size))
    }

    /// Its first page's place in the file, and how many pages it has.
    pub(crate) fn pages(&self) -> core::ops::Range<u64> {
        // SAFETY: This owns a reference, so the folio is live; it keeps its place when it leaves
        // the page cache.
        unsafe { pages_of(self.0) }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: This owns a reference, so the folio is live, and its bytes do not change; the
        // range is all of it.
        unsafe {
            core::slice::from_raw_parts(
                raw::erofs_shared_folio_address(self.0.as_ptr()).cast::<u8>(),
                raw::erofs_shared_folio_size(self.0.as_ptr()),
            )
        }
    }

    /// Whether it has been used often lately.
    pub(crate) fn is_hot(&self) -> bool {
        // SAFETY: This owns a reference, so the folio is live; the flag may change at any time.
        unsafe { raw::erofs_shared_folio_active(self.0.as_ptr()) }
    }

    /// Whether a reader that gets here should have more read ahead.
    pub(crate) fn is_readahead(&self) -> bool {
        // SAFETY: This owns a reference, so the folio is live; the flag may change at any time.
        unsafe { raw::erofs_shared_folio_readahead(self.0.as_ptr()) }
    }

    /// Whether it is mapped into a process.
    pub(crate) fn is_mapped(&self) -> bool {
        // SAFETY: This owns a reference, so the folio is live; its count of mappings may change at
        // any time.
        unsafe { raw::erofs_shared_folio_mapped(self.0.as_ptr()) }
    }

    /// Notes that it has been used.
    #[inline(always)]
    pub(crate) fn mark_accessed(&self) {
        // SAFETY: By the type invariants this owns a reference, so the folio is live.
        unsafe { bindings::folio_mark_accessed(self.0.as_ptr()) }
    }

    /// `len` of its bytes, from `offset` on.
    ///
    /// # Safety
    ///
    /// The range is inside the folio.
    #[inline(always)]
    pub(super) unsafe fn part(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: By the type invariants the folio is live, and its bytes do not change. By this
        // function's requirements the range is inside it.
        unsafe {
            let bytes = raw::erofs_shared_folio_address(self.0.as_ptr()).cast::<u8>();
            core::slice::from_raw_parts(bytes.add(offset), len)
        }
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: This owns a reference, which is given back here and not used any more.
        unsafe { raw::erofs_shared_folio_put(self.0.as_ptr()) }
    }
}

/// References to folios that follow each other in a page cache of this module.
///
/// # Invariants
///
/// `batch.folios[batch.i..batch.nr]` are live folios, to each of which this owns a reference.
pub(super) struct FolioBatch {
    batch: bindings::folio_batch,
}

impl FolioBatch {
    /// Those with the pages `first..=last`, up to the first that is not there; as many as there is
    /// room for.
    pub(super) fn find(mapping: Mapping<'_>, first: u64, last: u64) -> Self {
        let mut batch = bindings::folio_batch::default();
        let (mut next, last) = (first as usize, last as usize);
        // SAFETY: By the type invariants of `Mapping` it is live; the batch is empty.
        unsafe {
            bindings::filemap_get_folios_contig(mapping.as_ptr(), &mut next, last, &mut batch)
        };
        // INVARIANT: It has put them there, with a reference each, from the first place on.
        Self { batch }
    }

    /// Whether there is another one.
    pub(super) fn has_more(&self) -> bool {
        self.batch.i < self.batch.nr
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
    pub(super) fn ready(&mut self, pos: i64) -> Option<(FolioRef, usize, usize)> {
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

impl Drop for FolioBatch {
    fn drop(&mut self) {
        while let Some(folio) = self.take() {
            // SAFETY: By the type invariants this owns the reference, which was taken out of the
            // batch.
            unsafe { raw::erofs_shared_folio_put(folio.as_ptr()) };
        }
    }
}
