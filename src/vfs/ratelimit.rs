// SPDX-License-Identifier: GPL-2.0

//! Keeping a broken image that is read in a loop from flooding the kernel log.

use kernel::{prelude::*, types::Opaque};

use crate::bindings;

/// Messages in one window.
const BURST: i32 = 20;

/// Length of a window in milliseconds.
const WINDOW_MS: u32 = 5000;

/// A limit on messages: the kernel's `ratelimit_state`, which also says how many were held back.
///
/// # Invariants
///
/// The state is initialised.
pub(crate) struct RateLimit(Pin<KBox<Opaque<bindings::ratelimit_state>>>);

// SAFETY: The state has a lock of its own, and may be freed by any thread.
unsafe impl Send for RateLimit {}
// SAFETY: The state has a lock of its own, which all that is done through shared references takes.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    pub(crate) fn new() -> Result<Self> {
        let state = KBox::pin_init(
            Opaque::ffi_init(|state| {
                // SAFETY: The memory is ours to initialise, and does not move.
                unsafe { bindings::ratelimit_init(state, WINDOW_MS, BURST) }
            }),
            GFP_KERNEL,
        )?;
        // INVARIANT: Initialised just now.
        Ok(Self(state))
    }

    /// Whether one more may be said. Counts it if not.
    pub(crate) fn ask(&self) -> bool {
        // SAFETY: By the type invariants; the name is NUL-terminated.
        unsafe { bindings::___ratelimit(self.0.get(), c"erofs_shared".as_char_ptr()) != 0 }
    }
}
