// SPDX-License-Identifier: GPL-2.0

//! Looking at bytes eight at a time.

/// Bytes that are looked at together.
pub(super) const WORD: usize = 8;

/// The bytes from `at` on as a number the lowest byte of which is the first; zeros behind the end.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(word) => u64::from_le_bytes(*word),
        None => last_word(bytes, at),
    }
}

/// As [`word`], of less than eight bytes: two halves that may overlap.
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or(&[]);
    let moved = |half: u64, by: usize| half.wrapping_shl(8 * rest.len().wrapping_sub(by) as u32);
    if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | moved(last.into(), 4);
    }
    if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
        let (first, last) = (u16::from_le_bytes(*first), u16::from_le_bytes(*last));
        return u64::from(first) | moved(last.into(), 2);
    }
    rest.first().map_or(0, |byte| u64::from(*byte))
}

/// Zero if no byte of `word` is; else its lowest bit that is set is in the first byte that is zero.
#[inline(always)]
pub(super) fn zero_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; WORD]);
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The byte of a word in which the lowest bit that is set is.
#[inline(always)]
pub(super) fn first_byte(word: u64) -> usize {
    (word.trailing_zeros() / 8) as usize
}
