// SPDX-License-Identifier: GPL-2.0

//! The checksums that the format uses, which kernel and host each have in a library.

/// Checksum functions.
pub trait Hasher {
    /// CRC-32C, reflected, starting from `seed` and without final inversion (as the kernel's
    /// `crc32c()`).
    fn crc32c(seed: u32, data: &[u8]) -> u32;
    /// xxHash, 32 bits.
    fn xxh32(data: &[u8], seed: u32) -> u32;
}
