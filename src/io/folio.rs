// SPDX-License-Identifier: GPL-2.0

//! Folios, and references to them: to any, and to uptodate ones of page caches of this module.

use core::{
    ops::{Deref, Range},
    ptr::NonNull,
};

use kernel::{
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    types::Opaque,
};

use super::mapping::Mapping;
use crate::bindings;

/// A live folio: one to which there is a reference, or that is locked in its page cache.
///
/// Its methods look at what may be looked at in any state, and changes at any time.
#[repr(transparent)]
pub(crate) struct Folio(Opaque<bindings::folio>);

impl Folio {
    /// # Safety
    ///
    /// * `folio` is live for `'a`: there is a reference to it, or it is locked in its page cache.
    #[inline(always)]
    pub(crate) unsafe fn from_raw<'a>(folio: *mut bindings::folio) -> &'a Self {
        // SAFETY: By this function's requirements the folio is live; the type is transparent.
        unsafe { &*folio.cast() }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// How many bytes it has.
    pub(crate) fn size(&self) -> usize {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_size(self.as_ptr()) }
    }

    /// The byte in the file at which it starts, if it is or was in a page cache.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_pos(self.as_ptr()) as u64 }
    }

    /// Where its bytes are.
    #[inline(always)]
    pub(super) fn address(&self) -> *mut u8 {
        // SAFETY: The folio is live, and mapped for good: this module allocates no others.
        unsafe { bindings::folio_address(self.as_ptr()).cast() }
    }

    /// Its bytes.
    ///
    /// # Safety
    ///
    /// * Nothing writes to them as long as the result is used.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: The folio is live, and the range all of it; the rest by this function's
        // requirements.
        unsafe { core::slice::from_raw_parts(self.address(), self.size()) }
    }

    /// The page in which its byte `offset` is: a folio's pages are consecutive.
    pub(super) fn page_of(&self, offset: usize) -> *mut bindings::page {
        let first = self.as_ptr().cast::<bindings::page>();
        first.wrapping_add(offset / PAGE_SIZE)
    }

    /// The page of a page cache with this index, which is one of the folio's.
    pub(crate) fn page_at(&self, index: usize) -> *mut bindings::page {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_page(self.as_ptr(), index) }
    }

    /// Its first page's place in the page cache in which it is or was, and the page after its last.
    pub(crate) fn pages(&self) -> Range<u64> {
        let first = self.pos() >> PAGE_SHIFT;
        first..first + (self.size() as u64 >> PAGE_SHIFT)
    }

    /// The page cache that it belongs to, if it does. Under its lock that does not change.
    pub(crate) fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: The folio is live.
        unsafe { (*self.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.mapping }
    }

    /// Whether it has the bytes of the file. In a page cache of this module that stays so.
    pub(crate) fn is_uptodate(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_uptodate(self.as_ptr()) }
    }

    /// Whether it is locked.
    pub(super) fn is_locked(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_locked(self.as_ptr()) }
    }

    /// Whether it has been used often lately.
    pub(crate) fn is_hot(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_active(self.as_ptr()) }
    }

    /// Whether a reader that gets here should have more read ahead.
    pub(crate) fn is_readahead(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_readahead(self.as_ptr()) }
    }

    /// Whether its memory has failed, or a part of it, so that its bytes must not be looked at.
    pub(crate) fn is_poisoned(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_poisoned(self.as_ptr()) }
    }

    /// Whether it is mapped into a process.
    pub(crate) fn is_mapped(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_mapped(self.as_ptr()) }
    }

    /// Whether a memory cgroup pays for it.
    pub(super) fn is_charged(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_charged(self.as_ptr()) }
    }

    /// Whether [`Folio::set_checked`] was called since it came to its page cache.
    #[inline(always)]
    pub(super) fn is_checked(&self) -> bool {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_checked(self.as_ptr()) }
    }

    /// Sets `PG_checked`, which is for the filesystem's own use.
    pub(super) fn set_checked(&self) {
        // SAFETY: The folio is live; the bit is set atomically.
        unsafe { bindings::folio_set_checked(self.as_ptr()) }
    }

    /// Notes that it has been used.
    #[inline(always)]
    pub(crate) fn mark_accessed(&self) {
        // SAFETY: The folio is live.
        unsafe { bindings::folio_mark_accessed(self.as_ptr()) }
    }

    /// Locks it. `EINTR` on a fatal signal.
    pub(crate) fn lock_killable(&self) -> Result {
        // SAFETY: The folio is live; any folio may be locked.
        kernel::error::to_result(unsafe { bindings::folio_lock_killable(self.as_ptr()) })
    }

    /// Locks it if that needs no waiting, and tells whether it did.
    pub(crate) fn try_lock(&self) -> bool {
        // SAFETY: The folio is live; any folio may be locked.
        unsafe { bindings::folio_trylock(self.as_ptr()) }
    }

    /// Unlocks it.
    ///
    /// # Safety
    ///
    /// * The folio is locked, and the lock is the caller's to give up.
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: The folio is live; by this function's requirements the lock is the caller's.
        unsafe { bindings::folio_unlock(self.as_ptr()) }
    }

    /// Takes it out of `mapping`, whatever references to it there are. It stays locked.
    ///
    /// # Safety
    ///
    /// * The lock is the caller's, and the folio is not uptodate.
    /// * `mapping` is live, one of a regular file, and has the folio.
    pub(super) unsafe fn remove(&self, mapping: *mut bindings::address_space) {
        // SAFETY: By this function's requirements the folio is locked, and in this mapping of a
        // regular file. It fails for other files only.
        unsafe { bindings::generic_error_remove_folio(mapping, self.as_ptr()) };
    }

    /// Unlocks it at the end of a read, as uptodate if it was read.
    ///
    /// # Safety
    ///
    /// * The folio is locked, and the lock is the caller's to give up.
    /// * It is not uptodate yet.
    pub(super) unsafe fn end_read(&self, is_read: bool) {
        // SAFETY: The folio is live; by this function's requirements the lock is the caller's.
        unsafe { bindings::folio_end_read(self.as_ptr(), is_read) }
    }
}

/// At whose expense the memory of a folio is, and what is done to get it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolioMemory {
    /// At that of the page cache that takes it, which charges it then. It can be moved.
    Cache,
    /// At that of the task's memory cgroup, which may have tasks killed for it.
    Charged,
    /// The same, if the cgroup has room for it, or can make some: none is killed.
    ChargedIfRoom,
    /// The same, if the cgroup has room for it now: nothing is waited for.
    ChargedAtHand,
    /// At that of the system.
    Uncharged,
}

impl FolioMemory {
    pub(super) fn gfp(self) -> bindings::gfp_t {
        match self {
            FolioMemory::Cache => bindings::GFP_CACHE,
            FolioMemory::Charged => bindings::GFP_ACCOUNT,
            FolioMemory::ChargedIfRoom => bindings::GFP_CHARGED,
            FolioMemory::ChargedAtHand => bindings::GFP_CHARGED_NOWAIT,
            FolioMemory::Uncharged => bindings::GFP_KERNEL,
        }
    }
}

/// A reference to a folio, in any state.
///
/// # Invariants
///
/// The folio is live, and this owns one reference to it.
pub(crate) struct HeldFolio(NonNull<Folio>);

// SAFETY: A reference may be used and given up from any thread.
unsafe impl Send for HeldFolio {}

impl HeldFolio {
    /// Takes over a reference, if it is one.
    ///
    /// # Safety
    ///
    /// * `folio` is null, or points to a folio to which the caller has a reference.
    /// * That reference passes to the result: the caller does not give it up.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(folio: *mut bindings::folio) -> Option<Self> {
        // INVARIANT: By this function's requirements the reference passes to this.
        NonNull::new(folio.cast()).map(Self)
    }

    /// Gives the reference up to the caller.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> *mut bindings::folio {
        self.into_inner().as_ptr().cast()
    }

    /// As [`HeldFolio::into_raw`], for [`HeldFolio::from_inner`].
    #[inline(always)]
    pub(super) fn into_inner(self) -> NonNull<Folio> {
        core::mem::ManuallyDrop::new(self).0
    }

    /// Takes back what [`HeldFolio::into_inner`] gave up.
    ///
    /// # Safety
    ///
    /// * The caller has a reference to the folio.
    /// * That passes to the result: the caller does not give it up.
    pub(super) unsafe fn from_inner(folio: NonNull<Folio>) -> Self {
        // INVARIANT: By this function's requirements the reference passes to this.
        Self(folio)
    }

    /// A new folio of no page cache.
    pub(super) fn alloc(order: u32, memory: FolioMemory) -> Option<Self> {
        // SAFETY: Allocating memory has no preconditions; the reference is ours.
        unsafe { Self::from_raw(bindings::folio_alloc(order, memory.gfp())) }
    }

    /// The folio with page `index` of a page cache, if there is one. May be called in atomic
    /// context.
    pub(super) fn find(mapping: Mapping<'_>, index: u64) -> Option<Self> {
        let (mapping, index) = (mapping.as_ptr(), index as usize);
        // SAFETY: By the type invariants of `Mapping` it is live; the folio comes with a reference.
        unsafe { Self::from_raw(bindings::filemap_get(mapping, index)) }
    }
}

impl Deref for HeldFolio {
    type Target = Folio;

    #[inline(always)]
    fn deref(&self) -> &Folio {
        // SAFETY: The folio is live as long as this (type invariants).
        unsafe { self.0.as_ref() }
    }
}

impl Drop for HeldFolio {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants this owns the reference, which is given back here.
        unsafe { bindings::folio_put(self.as_ptr()) }
    }
}

/// A reference to an uptodate folio of a page cache of this module.
///
/// # Invariants
///
/// The folio is uptodate. Nothing can write to it (see
/// [`FolioBytes`](super::metadata::FolioBytes)), so its bytes do not change while the reference is
/// held, even when the page cache drops it.
pub(crate) struct FolioRef(HeldFolio);

impl FolioRef {
    /// # Safety
    ///
    /// * `folio` is uptodate.
    /// * It is of a page cache of this module, so that nothing writes to it.
    pub(super) unsafe fn new(folio: HeldFolio) -> Self {
        // INVARIANT: By this function's requirements it is uptodate, and nothing writes to it.
        Self(folio)
    }

    /// The reference alone.
    pub(crate) fn into_held(self) -> HeldFolio {
        self.0
    }

    /// The folio with page `index`, if it is there and uptodate. May be called in atomic context.
    pub(crate) fn find(mapping: Mapping<'_>, index: u64) -> Option<Self> {
        let folio = HeldFolio::find(mapping, index)?;
        // INVARIANT: It is uptodate.
        folio.is_uptodate().then_some(Self(folio))
    }

    /// The folio with the byte at `pos`, if it is there and there is nothing to do but to read it:
    /// how many bytes into it that is, which is less than its size, and its size.
    #[inline(always)]
    pub(super) fn ready(mapping: Mapping<'_>, pos: i64) -> Option<(Self, usize, usize)> {
        let (mut offset, mut size) = (0, 0);
        let (mapping, to) = (mapping.as_ptr(), (&raw mut offset, &raw mut size));
        // SAFETY: It is live (type invariants of `Mapping`).
        let folio = unsafe { bindings::filemap_get_ready(mapping, pos, to.0, to.1) };
        // SAFETY: The folio comes with a reference.
        let folio = unsafe { HeldFolio::from_raw(folio) }?;
        // INVARIANT: It is uptodate.
        Some((Self(folio), offset, size))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: The bytes do not change (type invariants).
        unsafe { self.0.bytes() }
    }

    /// `len` of its bytes, from `offset` on.
    ///
    /// # Safety
    ///
    /// * `offset + len` does not overflow, and is at most the folio's size.
    #[inline(always)]
    pub(super) unsafe fn part(&self, offset: usize, len: usize) -> &[u8] {
        let start = self.address().wrapping_add(offset);
        // SAFETY: By the type invariants the folio is live, and its bytes do not change. By this
        // function's requirements the range is inside it.
        unsafe { core::slice::from_raw_parts(start, len) }
    }
}

impl Deref for FolioRef {
    type Target = Folio;

    #[inline(always)]
    fn deref(&self) -> &Folio {
        &self.0
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
        let mapping = mapping.as_ptr();
        // SAFETY: By the type invariants of `Mapping` it is live; the batch is empty.
        unsafe { bindings::filemap_get_folios_contig(mapping, &mut next, last, &mut batch) };
        // INVARIANT: It has put them there, with a reference each, from the first place on.
        Self { batch }
    }

    /// Whether there is another one.
    pub(super) fn has_more(&self) -> bool {
        self.batch.i < self.batch.nr
    }

    /// The next one.
    fn take(&mut self) -> Option<HeldFolio> {
        let folio = match self.batch.folios.get(usize::from(self.batch.i)) {
            Some(folio) if self.batch.i < self.batch.nr => *folio,
            _ => return None,
        };
        // INVARIANT: This no longer has it.
        self.batch.i += 1;
        // SAFETY: The reference was this one's (type invariants).
        unsafe { HeldFolio::from_raw(folio) }
    }

    /// As [`FolioRef::ready`], of the next one, which has to have the byte at `pos`.
    pub(super) fn ready(&mut self, pos: i64) -> Option<(FolioRef, usize, usize)> {
        let folio = self.take()?;
        let (mut offset, mut size) = (0, 0);
        let to = (&raw mut offset, &raw mut size);
        // SAFETY: The folio is live.
        let is_ready = unsafe { bindings::folio_ready(folio.as_ptr(), pos, to.0, to.1) };
        // INVARIANT: It is uptodate.
        is_ready.then(|| (FolioRef(folio), offset, size))
    }
}

impl Drop for FolioBatch {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}
