// SPDX-License-Identifier: GPL-2.0

//! The kernel's SHA-256.

use super::digest::{Digest, Sha256};
use crate::bindings;

/// `sha256()` and `sha256_finup_2x()`, which use the processor's instructions for it.
pub(crate) struct KernelSha256;

impl Sha256 for KernelSha256 {
    fn digest(data: &[u8]) -> Digest {
        let mut out = [0; 32];
        // SAFETY: `data` is readable for its length, `out` has room for a digest.
        unsafe { bindings::sha256(data.as_ptr(), data.len(), out.as_mut_ptr()) };
        out
    }

    fn digest_pair(first: &[u8], second: &[u8]) -> [Digest; 2] {
        if first.len() != second.len() {
            return [Self::digest(first), Self::digest(second)];
        }
        let (mut one, mut two) = ([0; 32], [0; 32]);
        // SAFETY: Both messages are readable for the length, both outputs have room for a digest;
        // no context means the default one. Where the processor gains nothing, this is two
        // `sha256()`.
        unsafe {
            bindings::sha256_finup_2x(
                core::ptr::null(),
                first.as_ptr(),
                second.as_ptr(),
                first.len(),
                one.as_mut_ptr(),
                two.as_mut_ptr(),
            )
        };
        [one, two]
    }
}
