// SPDX-License-Identifier: GPL-2.0

//! What folios that are being filled are for.

use core::ptr::NonNull;

use super::{
    folio::{Folio, HeldFolio},
    folio_pool,
};

/// What becomes of a folio in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FolioKind {
    /// In a page cache, locked: to be unlocked, uptodate or not.
    Cache,
    /// Of no page cache, and not for one: to be put.
    Scratch,
    /// Of no page cache yet, but fit for one: to be put.
    New,
}

impl FolioKind {
    /// Gives up a folio, which was filled or not.
    ///
    /// # Safety
    ///
    /// * The caller owns the folio, as in the invariants of [`super::folio_list::FolioList`]: its
    ///   lock if it is of a page cache, else the only reference.
    /// * It does not use it any more.
    #[inline]
    pub(super) unsafe fn release(self, folio: NonNull<Folio>, is_filled: bool) {
        if self == FolioKind::Cache {
            // SAFETY: By this function's requirements the folio is locked, and the lock is the
            // caller's to end.
            return unsafe { folio.as_ref().end_read(is_filled) };
        }
        // SAFETY: By this function's requirements the reference is the caller's to give back.
        let folio = unsafe { HeldFolio::from_inner(folio) };
        if self == FolioKind::Scratch {
            // SAFETY: By this function's requirements it was the only reference.
            unsafe { folio_pool::put(folio) }
        }
    }
}
