// SPDX-License-Identifier: GPL-2.0

//! The state of single pages in a page cache of this module, and waiting for it to change.

use core::ptr::NonNull;

use kernel::{bindings, error::from_err_ptr, prelude::*};

use super::{folio::FolioRef, mapping::Mapping};
use crate::raw;

/// What a page cache has at one index.
pub(crate) enum PageState {
    /// No folio.
    Absent,
    /// A folio whose bytes may be read.
    Ready(FolioRef),
    /// A folio that is being read, or is locked for a short time for another reason.
    Locked(PageRef),
    /// A folio of which a read failed.
    Failed(PageRef),
}

impl PageState {
    /// Looks page `index` up. The state may be another as soon as this returns, except that what is
    /// ready stays readable.
    pub(crate) fn find(mapping: Mapping<'_>, index: u64) -> Self {
        // SAFETY: By the type invariants of `Mapping` it is live; the folio comes with a reference.
        let folio = unsafe { raw::erofs_shared_filemap_get(mapping.as_ptr(), index as usize) };
        let Some(folio) = NonNull::new(folio) else {
            return Self::Absent;
        };
        // INVARIANT: The reference is owned by this from now on.
        let page = PageRef(folio);
        // Uptodate is looked at last: a read that succeeds sets it before it unlocks the folio.
        let locked = page.is_locked();
        match page.into_ready() {
            Ok(folio) => Self::Ready(folio),
            Err(page) if locked => Self::Locked(page),
            Err(page) => Self::Failed(page),
        }
    }
}

/// A reference to a folio of a page cache, in any state.
///
/// # Invariants
///
/// This owns one reference to the folio.
pub(crate) struct PageRef(NonNull<bindings::folio>);

impl PageRef {
    /// Adds a new folio of one page to a page cache, locked. `None` if the place is taken.
    pub(crate) fn add(mapping: Mapping<'_>, index: usize) -> Result<Option<Self>> {
        // SAFETY: The type invariants of `Mapping` say that the mapping is live.
        let folio = from_err_ptr(unsafe { raw::erofs_shared_filemap_add(mapping.as_ptr(), index) });
        match folio {
            // INVARIANT: The folio comes with a reference.
            Ok(folio) => Ok(NonNull::new(folio).map(Self)),
            Err(err) if err == EEXIST => Ok(None),
            Err(err) => Err(err),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    /// The first page of the folio, and the page after its last.
    pub(crate) fn pages(&self) -> core::ops::Range<u64> {
        // SAFETY: This owns a reference, so the folio is live; it keeps its place in the page
        // cache.
        unsafe { super::folio::pages_of(self.0) }
    }

    fn is_locked(&self) -> bool {
        // SAFETY: This owns a reference, so the folio is live; the flag may change at any time.
        unsafe { raw::erofs_shared_folio_locked(self.0.as_ptr()) }
    }

    /// Gives the folio as a readable one if it is uptodate.
    fn into_ready(self) -> Result<FolioRef, Self> {
        // SAFETY: This owns a reference, so the folio is live; once uptodate it stays so.
        if !unsafe { raw::erofs_shared_folio_uptodate(self.0.as_ptr()) } {
            return Err(self);
        }
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: The folio is uptodate, and its reference passes on.
        Ok(unsafe { FolioRef::from_raw(this.0) })
    }

    /// Locks the folio if that needs no waiting, and tells whether it did.
    pub(crate) fn try_lock(&self) -> bool {
        // SAFETY: This owns a reference, so the folio is live; any folio may be locked.
        unsafe { raw::erofs_shared_folio_trylock(self.0.as_ptr()) }
    }

    /// Unlocks the folio.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: By this function's requirements the lock is the caller's; a reference keeps the
        // folio.
        unsafe { raw::erofs_shared_folio_unlock(self.0.as_ptr()) }
    }

    /// Whether the folio, which the caller has locked, is to be read: it belongs to `mapping`
    /// still, and is not uptodate.
    pub(crate) fn wants_read(&self, mapping: Mapping<'_>) -> bool {
        // SAFETY: By the type invariants the folio is live. A racy look at its mapping gives some
        // value, which is compared only.
        unsafe {
            (*self.0.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.mapping == mapping.as_ptr()
                && !raw::erofs_shared_folio_uptodate(self.0.as_ptr())
        }
    }

    /// On whose behalf the folio is being read, as [`super::folios::Folios::set_reader`] noted it.
    pub(crate) fn reader(&self) -> *const kernel::ffi::c_void {
        // SAFETY: This owns a reference, so the folio is live; the note is compared only.
        unsafe { raw::erofs_shared_folio_reader(self.0.as_ptr()) }
    }

    /// Waits until the folio is unlocked. `EINTR` on a fatal signal.
    pub(crate) fn wait(&self) -> Result {
        // SAFETY: This owns a reference, so the folio is live while this waits.
        match unsafe { raw::erofs_shared_folio_wait_killable(self.0.as_ptr()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }

    /// Waits until the folio is unlocked by the end of a read of this module, for `ms` milliseconds
    /// at most, and tells whether it was. `EINTR` on a fatal signal.
    pub(crate) fn wait_for(&self, ms: u32) -> Result<bool> {
        // SAFETY: This owns a reference, so the folio is live while this waits.
        match unsafe { raw::erofs_shared_folio_wait_timeout(self.0.as_ptr(), ms) } {
            left if left < 0 => Err(EINTR),
            left => Ok(left > 0),
        }
    }
}

impl Drop for PageRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this owns the reference, and gives it back here, once.
        unsafe { raw::erofs_shared_folio_put(self.0.as_ptr()) }
    }
}
