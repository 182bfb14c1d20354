// SPDX-License-Identifier: GPL-2.0

//! Whether memory is short, as the shrinker of the block index learns it.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::io::thread;

/// Memory counts as short for this number of milliseconds after some was reclaimed.
const SHORT: u64 = 10_000;

/// When memory was reclaimed the last time, by [`thread::now`]; 0: never.
static RECLAIMED: Atomic<u64> = Atomic::new(0);

/// Memory is looked for that can be reclaimed. In any context.
pub(super) fn note_reclaim() {
    if thread::in_reclaim() && !is_short() {
        RECLAIMED.store(thread::now(), Relaxed);
    }
}

/// Whether memory is short.
pub(super) fn is_short() -> bool {
    let last = RECLAIMED.load(Relaxed);
    last != 0 && thread::now().saturating_sub(last) < SHORT
}
