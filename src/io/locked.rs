// SPDX-License-Identifier: GPL-2.0

//! Folios of a page cache under their locks: what is true of one does not change meanwhile. A
//! wrapper module.

use core::{ops::Range, ptr::NonNull};

use kernel::{page::PAGE_SIZE, prelude::*};

use super::{
    folio::{Folio, HeldFolio},
    mapping::Mapping,
};
use crate::bindings;

/// A locked, uptodate folio in a page cache of this module.
///
/// # Invariants
///
/// * The folio is locked by this, uptodate, and in a page cache, where it stays as long as it is
///   locked.
pub(crate) struct LockedFolio(HeldFolio);

impl LockedFolio {
    /// The folio with page `index`, if it is there and may be read. Waits for its lock, which is
    /// held for a short time only.
    pub(crate) fn find(mapping: Mapping<'_>, index: u64) -> Option<Self> {
        let (mapping, index) = (mapping.as_ptr(), index as usize);
        // SAFETY: A `Mapping` is that of an inode which is not freed as long as this borrows it.
        // The folio comes with a reference.
        let folio = unsafe { HeldFolio::from_raw(bindings::filemap_lock_ready(mapping, index)) };
        // INVARIANT: It comes locked, in its place, and uptodate.
        folio.map(Self)
    }

    /// Its first page's place in the page cache, and the page after its last.
    pub(crate) fn pages(&self) -> Range<u64> {
        self.0.pages()
    }

    /// Its bytes from page `index` on, which it has.
    pub(crate) fn bytes_from(&self, index: u64) -> &[u8] {
        // SAFETY: By the type invariants the folio is live, and nothing writes to an uptodate folio
        // of this module.
        let all = unsafe { self.0.bytes() };
        let skip = index.saturating_sub(self.pages().start) as usize;
        all.get(skip.saturating_mul(PAGE_SIZE)..).unwrap_or(&[])
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is this one's. The reference goes after it.
        unsafe { self.0.unlock() }
    }
}

/// A folio that is about to leave a page cache: the argument of a `->release_folio`.
///
/// # Invariants
///
/// The folio is locked, and in a page cache of this module, for `'a`.
pub(crate) struct LeavingFolio<'a>(&'a Folio);

impl LeavingFolio<'_> {
    /// # Safety
    ///
    /// * `folio` is locked for the result's lifetime.
    /// * It is in a page cache of this module.
    pub(crate) unsafe fn from_raw<'a>(folio: NonNull<bindings::folio>) -> LeavingFolio<'a> {
        // SAFETY: The lock keeps the folio in its page cache, which has a reference to it.
        // INVARIANT: By this function's requirements it is locked, and in a page cache of this
        // module.
        LeavingFolio(unsafe { Folio::from_raw(folio.as_ptr()) })
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    /// Its first page's place in the page cache, and the page after its last.
    pub(crate) fn pages(&self) -> Range<u64> {
        self.0.pages()
    }

    /// The page cache.
    pub(crate) fn mapping(&self) -> *mut bindings::address_space {
        self.0.mapping()
    }

    /// What it has that others may count on.
    pub(crate) fn content(&self) -> Leaving<'_> {
        if !self.0.is_uptodate() {
            return Leaving::Nothing;
        }
        if self.0.is_poisoned() {
            return Leaving::Lost;
        }
        // SAFETY: By the type invariants the folio is live, and nothing writes to an uptodate folio
        // of this module.
        Leaving::Bytes(unsafe { self.0.bytes() })
    }
}

/// What a folio that leaves a page cache has.
pub(crate) enum Leaving<'a> {
    /// Nothing that was ever readable.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// What its memory has lost, and must not be looked at.
    Lost,
}

/// Calls `found` for the pages of each folio of `mapping` that may be read and can be locked
/// without waiting, under its lock. May sleep in between; `found` may not.
pub(crate) fn visit_ready(mapping: Mapping<'_>, found: &mut dyn FnMut(Range<u64>)) {
    /// Passes a range on to the closure; called by `visit_ready`.
    ///
    /// # Safety
    ///
    /// * `data` points to a `&mut dyn FnMut(Range<u64>)` that is live, and used by nothing else
    ///   during the call.
    unsafe extern "C" fn call(first: usize, end: usize, data: *mut c_void) {
        // SAFETY: By this function's requirements `data` is that closure, and nothing else uses it.
        let found = unsafe { &mut *data.cast::<&mut dyn FnMut(Range<u64>)>() };
        found(first as u64..end as u64);
    }
    let mut found = found;
    let data = (&raw mut found).cast();
    // SAFETY: A `Mapping` is that of an inode which is not freed meanwhile; `call` gets the closure
    // that it asks for.
    unsafe { bindings::visit_ready(mapping.as_ptr(), Some(call), data) };
}

/// Whether two pieces of memory of the same length, a multiple of the page size, are equal.
pub(crate) fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() || one.len() % PAGE_SIZE != 0 {
        return false;
    }
    let (a, b) = (one.as_ptr().cast(), other.as_ptr().cast());
    // SAFETY: Both are valid for `one.len()` bytes.
    unsafe { bindings::same_bytes(a, b, one.len()) }
}
