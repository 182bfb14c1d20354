// SPDX-License-Identifier: GPL-2.0

//! What folios that are being filled are for.

use core::ptr::NonNull;

use kernel::bindings;

use super::spare;
use crate::raw;

/// What becomes of a folio in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a page cache, locked: to be unlocked, uptodate or not.
    Cache,
    /// Of no page cache, and not for one: to be put.
    Scratch,
    /// Of no page cache yet, but fit for one: to be put.
    New,
}

impl Kind {
    /// Gives up a folio that was not filled.
    ///
    /// # Safety
    ///
    /// The caller owns the folio, as in the invariants of [`super::folios::Folios`], and does not
    /// use it any more.
    pub(super) unsafe fn release(self, folio: NonNull<bindings::folio>) {
        match self {
            // SAFETY: By this function's requirements the folio is locked, and the lock is the
            // caller's to end.
            Kind::Cache => unsafe { raw::erofs_shared_folio_end_read(folio.as_ptr(), false) },
            // SAFETY: By the function's safety requirements the reference is the caller's, and the
            // only one.
            Kind::Scratch => unsafe { spare::give(folio) },
            // SAFETY: By this function's requirements the reference is the caller's to give back.
            Kind::New => unsafe { raw::erofs_shared_folio_put(folio.as_ptr()) },
        }
    }
}
