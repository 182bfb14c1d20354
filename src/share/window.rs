// SPDX-License-Identifier: GPL-2.0

//! How far to verify ahead of a reader. Pure.

/// Most blocks in one window: 1 MiB.
pub const MAX_BLOCKS: u64 = 256;

/// Blocks in the first window of a reader that continues where the last window ended: 64 KiB.
const MIN_SEQUENTIAL: u64 = 16;

/// The windows of one real inode: each that continues where the last one ended is twice as long;
/// any other is as long as what is asked for.
#[derive(Debug, Default)]
pub struct Windows {
    /// The block after the last window.
    next: u64,
    /// Blocks in the last sequential window; 0 after any other.
    len: u64,
}

impl Windows {
    /// State before the first window.
    pub const fn new() -> Self {
        Self { next: 0, len: 0 }
    }

    /// Opens a window at block `start` for a reader that wants `want` blocks (at least 1). Returns
    /// how many blocks it has and whether the reader is sequential.
    pub fn open(&mut self, start: u64, want: u64) -> (u64, bool) {
        let sequential = start == self.next && start != 0;
        let len = if sequential {
            (self.len * 2).clamp(MIN_SEQUENTIAL, MAX_BLOCKS)
        } else {
            0
        };
        self.len = len;
        (len.max(want).clamp(1, MAX_BLOCKS), sequential)
    }

    /// A window had to be shortened to `len` blocks, and ends before block `next`.
    pub fn restart(&mut self, next: u64, len: u64) {
        (self.next, self.len) = (next, len);
    }

    /// The window that was opened last ends before block `next`.
    pub fn close(&mut self, next: u64) {
        self.next = next;
    }
}
