// SPDX-License-Identifier: GPL-2.0

//! Sorting in place with the kernel's `sort_nonatomic()` (`lib/sort.c`). A wrapper module.
//!
//! The sort of `core` has a path that panics if the order is not total, which a module cannot
//! afford to have.

use core::{ffi::c_void, mem::size_of, ops::Range};

use kernel::ffi::c_int;

use crate::bindings;

/// Sorts ranges by where they start. May sleep.
pub(crate) fn sort_by_start(ranges: &mut [Range<u64>]) {
    /// Compares two ranges, for `sort_nonatomic()`.
    ///
    /// # Safety
    ///
    /// * `one` and `other` point to a `Range<u64>` each, which is not written to during the call.
    unsafe extern "C" fn compare(one: *const c_void, other: *const c_void) -> c_int {
        // SAFETY: By this function's requirements both point to a range, which is not written to.
        let (one, other) = unsafe { (&*one.cast::<Range<u64>>(), &*other.cast::<Range<u64>>()) };
        one.start.cmp(&other.start) as c_int
    }
    let (start, count) = (ranges.as_mut_ptr().cast(), ranges.len());
    let size = size_of::<Range<u64>>();
    // SAFETY: The number of elements and their size are those of the slice; they are plain numbers,
    // so they may be moved bytewise, and `compare` gets pointers to whole ones. Without a swap
    // function they are swapped as bytes.
    unsafe { bindings::sort_nonatomic(start, count, size, Some(compare), None) };
}
