// SPDX-License-Identifier: GPL-2.0

//! The kernel's checksums, for the format core.

use crate::{bindings, format::hash::Hasher};

/// The kernel's `crc32c()` and `xxh32()`.
pub(crate) struct KernelHash;

impl Hasher for KernelHash {
    fn crc32c(seed: u32, data: &[u8]) -> u32 {
        // SAFETY: `data` is readable for its length.
        unsafe { bindings::crc32c(seed, data.as_ptr().cast(), data.len()) }
    }

    fn xxh32(data: &[u8], seed: u32) -> u32 {
        // SAFETY: `data` is readable for its length.
        unsafe { bindings::xxh32(data.as_ptr().cast(), data.len(), seed) }
    }
}
