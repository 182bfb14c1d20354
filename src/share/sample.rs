// SPDX-License-Identifier: GPL-2.0

//! A cheap number for the start of a file, by which a shared inode with the same content is looked
//! for that is then compared byte for byte. It proves nothing. Pure.

use super::digest::BLOCK_SIZE;

/// Words of each block that are looked at, one in each part of it.
const WORDS: usize = 16;

/// Bytes in a word.
const WORD: usize = 8;

/// Words in each part of a block.
const PART: usize = BLOCK_SIZE / WORDS / WORD;

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

    /// Looks at blocks; what is behind the last whole one is left out.
    pub fn add(&mut self, blocks: &[u8]) {
        for block in blocks.chunks_exact(BLOCK_SIZE) {
            let mut places = self.secret[0] ^ self.secret[1].rotate_left(17);
            for part in block.chunks_exact(PART * WORD) {
                let at = (places % PART as u64) as usize * WORD;
                places = places.rotate_right(5);
                let mut word = [0; WORD];
                if let Some(bytes) = part.get(at..at + WORD) {
                    word.copy_from_slice(bytes);
                }
                self.mix(u64::from_le_bytes(word));
            }
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
