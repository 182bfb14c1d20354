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

fn sampler() -> Sampler {
    Sampler::new(SECRET.each_ref().map(|word| word.load(Relaxed)))
}

/// A number for a block, which is the same for equal blocks, and for few others.
pub(super) fn sample(block: &[u8]) -> u64 {
    let mut sampler = sampler();
    sampler.add(block);
    let [sample, _] = sampler.finish();
    sample
}

/// The key of a file of `size` bytes that starts with the first `count` blocks of these.
pub(crate) fn key_of<'a>(head: impl Iterator<Item = &'a [u8]>, count: u64, size: u64) -> Key {
    let mut sampler = sampler();
    let blocks = head.flat_map(|blocks| blocks.chunks_exact(BLOCK_SIZE));
    for (at, block) in (0..count).zip(blocks) {
        if at < SAMPLED || at + 1 == count {
            let start = at.saturating_mul(BLOCK_SIZE as u64);
            let len = size.saturating_sub(start).min(BLOCK_SIZE as u64) as usize;
            sampler.add(block.get(..len).unwrap_or(block));
        }
    }
    Key::of_samples(sampler.finish())
}
