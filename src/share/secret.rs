// SPDX-License-Identifier: GPL-2.0

//! The secret by which files are sampled: made when the module is loaded, never shown. A wrapper
//! module.

use kernel::sync::atomic::{Atomic, Relaxed};

use super::{
    digest::{Key, BLOCK_SIZE},
    sample::Sampler,
};

use crate::bindings;

/// Blocks from the first on that are sampled; the last of a file's start is, too.
const SAMPLED: u64 = 2;

static SECRET: [Atomic<u64>; 2] = [const { Atomic::new(0) }; 2];

/// Makes the secret. Before any file is sampled.
pub(super) fn make() {
    let mut secret = [0u64; 2];
    // SAFETY: The memory is ours, and has this size.
    unsafe { bindings::get_random_bytes(secret.as_mut_ptr().cast(), size_of_val(&secret)) };
    for (to, word) in SECRET.iter().zip(secret) {
        to.store(word, Relaxed);
    }
}

/// A number for a block, which is the same for equal blocks, and for few others.
pub(super) fn sample(block: &[u8]) -> u64 {
    let [one, two] = &SECRET;
    let mut sampler = Sampler::new([one.load(Relaxed), two.load(Relaxed)]);
    sampler.add(block);
    let [sample, _] = sampler.finish();
    sample
}

/// The key of a file of `size` bytes that starts with the first `count` blocks of these.
pub(crate) fn key_of<'a>(head: impl Iterator<Item = &'a [u8]>, count: u64, size: u64) -> Key {
    let [one, two] = &SECRET;
    let mut sampler = Sampler::new([one.load(Relaxed), two.load(Relaxed)]);
    let blocks = head.flat_map(|blocks| blocks.chunks_exact(BLOCK_SIZE));
    let mut left = size;
    for (at, block) in (0..count).zip(blocks) {
        if at < SAMPLED || at + 1 == count {
            let len = left.min(BLOCK_SIZE as u64) as usize;
            sampler.add(block.get(..len).unwrap_or(block));
        }
        left = left.saturating_sub(BLOCK_SIZE as u64);
    }
    Key::of_samples(sampler.finish())
}
