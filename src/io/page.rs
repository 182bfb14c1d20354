// SPDX-License-Identifier: GPL-2.0

//! The state of single pages in a page cache of this module, and waiting for it to change.

use core::ops::Deref;

use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
};

use super::{
    folio::{Folio, FolioRef, HeldFolio},
    mapping::Mapping,
};
use crate::bindings;

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
        let Some(folio) = HeldFolio::find(mapping, index) else {
            return Self::Absent;
        };
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

/// A reference to a folio of a page cache of this module, in any state.
pub(crate) struct PageRef(HeldFolio);

impl Deref for PageRef {
    type Target = Folio;

    fn deref(&self) -> &Folio {
        &self.0
    }
}

impl PageRef {
    /// Adds a new folio of one page to a page cache, and starts to read it. `None` if the place is
    /// taken.
    ///
    /// # Safety
    ///
    /// * `file` is null, or an open file that is read through `mapping`.
    pub(crate) unsafe fn add_and_read(
        mapping: Mapping<'_>,
        index: usize,
        file: *mut bindings::file,
    ) -> Result<Option<Self>> {
        let page = Self::add(mapping, index)?;
        if let Some(page) = &page {
            // SAFETY: The new folio is locked; the file is as this function's requirements say.
            unsafe { page.start_read(mapping, file) }?;
        }
        Ok(page)
    }

    /// Starts to read a folio again of which a read failed. `Ok(false)`: it is in use for something
    /// else.
    ///
    /// # Safety
    ///
    /// * `file` is null, or an open file that is read through `mapping`.
    pub(crate) unsafe fn read_again(
        &self,
        mapping: Mapping<'_>,
        file: *mut bindings::file,
    ) -> Result<bool> {
        if !self.try_lock() {
            return Ok(false);
        }
        if !self.wants_read(mapping) {
            // SAFETY: It was locked just now.
            unsafe { self.unlock() };
            return Ok(false);
        }
        // SAFETY: It was locked just now, and is in this mapping; the file is as this function's
        // requirements say.
        unsafe { self.start_read(mapping, file) }?;
        Ok(true)
    }

    /// Reads the folio through `->read_folio`, which unlocks it in the end.
    ///
    /// # Safety
    ///
    /// * It is in `mapping`, and locked; the lock passes on.
    /// * `file` is null, or an open file that is read through `mapping`.
    unsafe fn start_read(&self, mapping: Mapping<'_>, file: *mut bindings::file) -> Result {
        // SAFETY: A live mapping has operations.
        let read_folio = unsafe { (*(*mapping.as_ptr()).a_ops).read_folio };
        let Some(read_folio) = read_folio else {
            // SAFETY: By this function's requirements the lock is the caller's, which passes it on.
            unsafe { self.unlock() };
            return Err(EIO);
        };
        // SAFETY: By this function's requirements the folio is locked, and the lock passes on.
        to_result(unsafe { read_folio(file, self.as_ptr()) })
    }

    /// Adds a new folio of one page to a page cache, locked. `None` if the place is taken.
    fn add(mapping: Mapping<'_>, index: usize) -> Result<Option<Self>> {
        // SAFETY: The type invariants of `Mapping` say that the mapping is live.
        let folio = from_err_ptr(unsafe { bindings::filemap_add(mapping.as_ptr(), index) });
        match folio {
            // SAFETY: The folio comes with a reference.
            Ok(folio) => Ok(unsafe { HeldFolio::from_raw(folio) }.map(Self)),
            Err(err) if err == EEXIST => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Gives the folio as a readable one if it is uptodate.
    fn into_ready(self) -> Result<FolioRef, Self> {
        if !self.is_uptodate() {
            return Err(self);
        }
        // SAFETY: The folio is uptodate, and stays so.
        Ok(unsafe { FolioRef::new(self.0) })
    }

    /// Whether the folio, which the caller has locked, is to be read: it belongs to `mapping`
    /// still, and is not uptodate.
    fn wants_read(&self, mapping: Mapping<'_>) -> bool {
        // Without the lock it would be a racy look, whose result is compared only.
        self.mapping() == mapping.as_ptr() && !self.is_uptodate()
    }

    /// Whether both are references to one folio.
    pub(crate) fn is(&self, other: &Self) -> bool {
        core::ptr::eq(self.as_ptr(), other.as_ptr())
    }

    /// Takes a folio whose read failed out of `mapping`, a page cache of a regular file, unless it
    /// has left it, or is being read again. Others that refer to it find that it is gone.
    pub(crate) fn remove_failed(&self, mapping: Mapping<'_>) {
        if !self.try_lock() {
            return;
        }
        if self.wants_read(mapping) {
            // SAFETY: It was locked just now, and is in this mapping.
            unsafe { self.remove(mapping.as_ptr()) };
            // Wakes all that wait for a read of it.
            // SAFETY: It was locked just now.
            unsafe { self.end_read(false) };
        } else {
            // SAFETY: It was locked just now.
            unsafe { self.unlock() };
        }
    }

    /// On whose behalf the folio is being read, as [`super::folio_list::FolioList::set_reader`]
    /// noted it.
    pub(crate) fn reader(&self) -> *const c_void {
        // SAFETY: This owns a reference, so the folio is live; the note is compared only.
        unsafe { bindings::folio_reader(self.0.as_ptr()) }
    }

    /// Waits until the folio is unlocked. `EINTR` on a fatal signal.
    pub(crate) fn wait(&self) -> Result {
        // SAFETY: This owns a reference, so the folio is live while this waits.
        match unsafe { bindings::folio_wait_killable(self.0.as_ptr()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }

    /// Waits until the folio is unlocked by the end of a read of this module, for `ms` milliseconds
    /// at most, and tells whether it was. `EINTR` on a fatal signal.
    pub(crate) fn wait_for(&self, ms: u32) -> Result<bool> {
        // SAFETY: This owns a reference, so the folio is live while this waits.
        match unsafe { bindings::folio_wait_timeout(self.0.as_ptr(), ms) } {
            left if left < 0 => Err(EINTR),
            left => Ok(left > 0),
        }
    }
}
