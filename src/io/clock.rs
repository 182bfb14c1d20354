// SPDX-License-Identifier: GPL-2.0

//! The monotonic clock.

use crate::bindings;

/// Nanoseconds since the system was started, but for those in which it was suspended. In any
/// context.
pub(crate) fn now() -> i64 {
    // SAFETY: Reading the clock has no preconditions.
    unsafe { bindings::ktime_get() }
}
