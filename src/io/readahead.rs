// SPDX-License-Identifier: GPL-2.0

//! Read-aheads: the argument of `->readahead` as a type. A wrapper module.

use core::{marker::PhantomData, ops::Range, ptr::NonNull};

use super::folio::Folio;
use crate::bindings;

/// The folios that a read-ahead is for.
///
/// # Invariants
///
/// `rac` is the argument of a `->readahead` that runs for `'a`, and nothing else uses it.
pub(crate) struct Readahead<'a> {
    rac: NonNull<bindings::readahead_control>,
    _call: PhantomData<&'a mut bindings::readahead_control>,
}

impl Readahead<'_> {
    /// # Safety
    ///
    /// * `rac` is the argument of a `->readahead` that runs for the result's lifetime.
    /// * That uses it through the result only.
    pub(crate) unsafe fn from_raw(rac: *mut bindings::readahead_control) -> Self {
        // INVARIANT: By this function's requirements the `->readahead` runs for the result's
        // lifetime.
        Self {
            // SAFETY: By this function's requirements the pointer is valid.
            rac: unsafe { NonNull::new_unchecked(rac) },
            _call: PhantomData,
        }
    }

    /// The page cache. It is live as long as this.
    pub(crate) fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: `rac` is live (type invariants).
        unsafe { (*self.rac.as_ptr()).mapping }
    }

    /// The file in whose name it is, open as long as this, or null.
    pub(crate) fn file(&self) -> *mut bindings::file {
        // SAFETY: `rac` is live (type invariants).
        unsafe { (*self.rac.as_ptr()).file }
    }

    /// The read-ahead, for a function that takes it over.
    pub(crate) fn as_ptr(&mut self) -> *mut bindings::readahead_control {
        self.rac.as_ptr()
    }

    /// The pages that it is still for.
    pub(crate) fn pages(&self) -> Range<u64> {
        let rac = self.rac.as_ptr();
        // SAFETY: `rac` is live (type invariants).
        let next = unsafe { bindings::readahead_next(rac) } as u64;
        // SAFETY: `rac` is live (type invariants).
        let count = unsafe { bindings::readahead_count(rac) } as u64;
        next..next.saturating_add(count)
    }

    /// The next folio, locked. The lock is the caller's.
    pub(super) fn next(&mut self) -> Option<NonNull<Folio>> {
        // SAFETY: `rac` is live, and used by nothing else (type invariants).
        NonNull::new(unsafe { bindings::readahead_folio(self.rac.as_ptr()) }.cast())
    }

    /// Makes it one for these bytes, as far as that is possible.
    pub(crate) fn expand(&mut self, bytes: Range<u64>) {
        let (start, len) = (
            bytes.start as i64,
            bytes.end.saturating_sub(bytes.start) as usize,
        );
        // SAFETY: `rac` is live, and used by nothing else (type invariants).
        unsafe { bindings::readahead_expand(self.rac.as_ptr(), start, len) }
    }
}
