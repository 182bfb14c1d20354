// SPDX-License-Identifier: GPL-2.0

//! Little-endian fields of fixed-size records. Offsets are constants inside the record.

pub(super) fn u16_at<const N: usize>(raw: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes(take(raw, at))
}

pub(super) fn u32_at<const N: usize>(raw: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(take(raw, at))
}

pub(super) fn u64_at<const N: usize>(raw: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(take(raw, at))
}

/// `M` bytes from `at`; zeros where the record ends before (which no caller's constants do).
pub(super) fn take<const N: usize, const M: usize>(raw: &[u8; N], at: usize) -> [u8; M] {
    let mut out = [0; M];
    if let Some(from) = raw.get(at..).and_then(|tail| tail.get(..M)) {
        out.copy_from_slice(from);
    }
    out
}
