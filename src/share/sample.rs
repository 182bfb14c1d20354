// SPDX-License-Identifier: GPL-2.0

//! A cheap number for the start of a file, by which a shared inode with the same content is looked
//! for that is then compared byte for byte. It proves nothing. Pure.

use super::digest::BLOCK_SIZE;

/// Words that are looked at of a block's bytes, one in each part of them.
const WORDS: usize = 16;

/// Bytes in a word.
const WORD: usize = 8;

/// Bits of the secret that choose the word in a part: enough for the parts of a whole block.
const PLACE_BITS: u32 = (BLOCK_SIZE / WORDS / WORD).ilog2();

/// Odd numbers without a pattern: the fractional parts of square roots.
const MULTIPLIERS: [u64; 2] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];

/// Looks at some words of blocks. Which ones, and how they are mixed, depends on a secret, so that
/// files with the same number cannot be made on purpose.
pub struct Sampler {
    secret: [u64; 2],
    state: [u64; 2],
}

impl Sampler {
    /// With nothing looked at.
    pub fn new(secret: [u64; 2]) -> Self {
        Self {
            secret,
            state: secret,
        }
    }

    /// Looks at the bytes that a file has in one block. However few these are, the words lie among
    /// them: of what all files have behind their end nothing can be told.
    pub fn add(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..BLOCK_SIZE).unwrap_or(bytes);
        let words = bytes.len().div_ceil(WORD);
        let mut places = self.secret[0] ^ self.secret[1].rotate_left(17);
        for part in 0..WORDS {
            let (start, end) = (part * words / WORDS, (part + 1) * words / WORDS);
            let place = places as usize % (1 << PLACE_BITS);
            places = places.rotate_right(PLACE_BITS);
            if start == end {
                continue;
            }
            let at = (start + ((place * (end - start)) >> PLACE_BITS)) * WORD;
            let rest = bytes.get(at..).unwrap_or_default();
            let word = match rest.first_chunk() {
                Some(word) => *word,
                None => {
                    let mut word = [0; WORD];
                    word.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
                    word
                }
            };
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        let [one, two] = &mut self.state;
        *one = (*one ^ word).wrapping_mul(MULTIPLIERS[0]).rotate_left(29);
        *two = two
            .wrapping_add(word ^ self.secret[1])
            .wrapping_mul(MULTIPLIERS[1])
            .rotate_left(31);
    }

    /// The number for what has been looked at.
    pub fn finish(self) -> [u64; 2] {
        let [one, two] = self.state;
        [one ^ two.rotate_left(32), two ^ one.rotate_left(13)]
    }
}
