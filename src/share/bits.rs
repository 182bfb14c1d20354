// SPDX-License-Identifier: GPL-2.0

//! Sets of blocks, one bit each. Pure; the caller brings the words.

/// Bits in a word.
const WORD: u64 = 64;

/// Words for a set of `bits` blocks.
pub fn words(bits: u64) -> u64 {
    bits.div_ceil(WORD)
}

fn word_of(words: &[u64], bit: u64) -> Option<u64> {
    words.get(usize::try_from(bit / WORD).ok()?).copied()
}

/// Adds `bits`, and tells how many of them are new. What is beyond the words is not added.
pub fn insert(words: &mut [u64], bits: core::ops::Range<u64>) -> u64 {
    let mut added = 0;
    let mut bit = bits.start;
    while bit < bits.end {
        let shift = bit % WORD;
        let count = (WORD - shift).min(bits.end - bit);
        let mask = (u64::MAX >> (WORD - count)) << shift;
        let Some(word) = usize::try_from(bit / WORD)
            .ok()
            .and_then(|at| words.get_mut(at))
        else {
            break;
        };
        added += u64::from((mask & !*word).count_ones());
        *word |= mask;
        bit += count;
    }
    added
}

/// How many bits from `bits.start` on, and below `bits.end`, are in the set without a gap.
pub fn run(words: &[u64], bits: core::ops::Range<u64>) -> u64 {
    let mut bit = bits.start;
    while bit < bits.end {
        let shift = bit % WORD;
        let Some(word) = word_of(words, bit) else {
            break;
        };
        let ones = u64::from((!(word >> shift)).trailing_zeros()).min(WORD - shift);
        bit += ones;
        if ones < WORD - shift {
            break;
        }
    }
    bit.min(bits.end).saturating_sub(bits.start)
}
