// SPDX-License-Identifier: GPL-2.0

//! Keeping a broken image that is read in a loop from flooding the kernel log.

use kernel::{
    sync::atomic::{Atomic, Relaxed},
    time::{Instant, Monotonic},
};

/// Messages that one mount may log in one window.
const BURST: u32 = 20;

/// Length of a window in milliseconds.
const WINDOW_MS: i64 = 5000;

/// A limit on messages, for one mount: the first ones always come out.
///
/// The fields are only hints to each other: a race lets through a message too many or too few.
pub(super) struct LogLimit {
    born: Instant<Monotonic>,
    /// Start of the window, in milliseconds after `born`.
    since: Atomic<i64>,
    left: Atomic<i32>,
}

/// What to do with a message.
pub(super) enum Verdict {
    /// Log it.
    Say,
    /// Log it, and that more were held back from now on.
    SayLast,
    /// Drop it.
    Hold,
}

impl LogLimit {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            since: Atomic::new(i64::MIN),
            left: Atomic::new(0),
        }
    }

    /// Counts a message.
    pub(super) fn ask(&self) -> Verdict {
        let now = self.born.elapsed().as_millis();
        if now.saturating_sub(self.since.load(Relaxed)) >= WINDOW_MS {
            self.since.store(now, Relaxed);
            self.left.store(BURST as i32, Relaxed);
        }
        match self.left.fetch_sub(1, Relaxed) {
            2.. => Verdict::Say,
            1 => Verdict::SayLast,
            _ => {
                // Stays at zero however many come.
                self.left.store(0, Relaxed);
                Verdict::Hold
            }
        }
    }
}
