// SPDX-License-Identifier: GPL-2.0

//! Whether memory is short, as the shrinker of the block index learns it.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::io::{clock, thread};

/// Memory counts as short for this number of nanoseconds after some was reclaimed.
const SHORT: i64 = 10_000_000_000;

/// When memory was reclaimed the last time, by [`clock::now`]; 0: never.
static RECLAIMED: Atomic<i64> = Atomic::new(0);

/// Memory is looked for that can be reclaimed. In any context.
pub(super) fn note_reclaim() {
    if thread::in_reclaim() && !is_short() {
        RECLAIMED.store(clock::now(), Relaxed);
    }
}

/// Whether memory is short.
pub(super) fn is_short() -> bool {
    let last = RECLAIMED.load(Relaxed);
    last != 0 && clock::now().saturating_sub(last) < SHORT
}
