// SPDX-License-Identifier: GPL-2.0

//! What a shared inode knows of its blocks: their digests, each set once.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Mutex,
    },
};

use super::digest::{Digest, Key};
use crate::stats::{Field, GLOBAL};

/// Digests in a chunk, which is allocated when the first of them is known.
const CHUNK: u64 = 128;

/// No block has this digest (nobody knows a message that does): it stands for "not known yet".
const UNKNOWN: Digest = [0; 32];

/// Which shared inode it is. Constant once the inode is found by it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Sharing mode, domain, size, and start of the content.
    pub(crate) key: Key,
    /// Contents that differ behind the same start are numbered from 0.
    pub(crate) variant: u32,
    /// Size in bytes.
    pub(crate) size: u64,
    /// No digests: the administrator vouches for the fingerprint.
    pub(crate) trusted: bool,
}

impl Identity {
    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.size.div_ceil(super::BLOCK_SIZE as u64)
    }
}

/// How a block compares with what is recorded.
pub(crate) enum Settled {
    /// All agree; so many were recorded just now.
    Agree {
        /// Digests that were not known before.
        adopted: u64,
    },
    /// The one with this number (from the first) differs. Those before it agree.
    Differ {
        /// Index from the first.
        at: usize,
    },
}

/// Digests by block. Chunks are empty until one of their digests is known.
struct Digests {
    chunks: KVVec<KVec<Digest>>,
}

impl Digests {
    fn get(&self, block: u64) -> Option<&Digest> {
        let chunk = self.chunks.get(usize::try_from(block / CHUNK).ok()?)?;
        let digest = chunk.get((block % CHUNK) as usize)?;
        (*digest != UNKNOWN).then_some(digest)
    }

    /// The place of a block's digest, allocated if need be; `allocated` counts bytes.
    fn slot(&mut self, block: u64, blocks: u64, allocated: &mut u64) -> Result<&mut Digest> {
        if block >= blocks {
            return Err(EINVAL);
        }
        if self.chunks.is_empty() {
            let count = usize::try_from(blocks.div_ceil(CHUNK))?;
            let mut chunks = KVVec::with_capacity(count, GFP_KERNEL)?;
            while chunks.len() < count {
                chunks.push_within_capacity(KVec::new()).map_err(|_| EIO)?;
            }
            self.chunks = chunks;
            *allocated += (count * core::mem::size_of::<KVec<Digest>>()) as u64;
        }
        let index = usize::try_from(block / CHUNK)?;
        let chunk = self.chunks.get_mut(index).ok_or(EIO)?;
        if chunk.is_empty() {
            let left = blocks - block / CHUNK * CHUNK;
            let count = left.min(CHUNK) as usize;
            *chunk = KVec::from_elem(UNKNOWN, count, GFP_KERNEL)?;
            *allocated += (count * core::mem::size_of::<Digest>()) as u64;
        }
        chunk.get_mut((block % CHUNK) as usize).ok_or(EIO)
    }
}

/// What a shared inode carries.
#[pin_data]
pub(crate) struct Content {
    /// Taken for a handful of comparisons at a time, by who has just hashed blocks; nothing is taken
    /// under it. It may allocate.
    #[pin]
    digests: Mutex<Digests>,
    /// Bytes that `digests` takes.
    bytes: Atomic<u64>,
    /// Real inodes that are bound.
    bound: Atomic<u64>,
    /// Blocks that they have verified, all together.
    verified: Atomic<u64>,
}

impl Content {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            digests <- new_mutex!(Digests { chunks: KVVec::new() }, "erofs_shared::Content"),
            bytes: Atomic::new(0),
            bound: Atomic::new(0),
            verified: Atomic::new(0),
        })
    }

    /// Compares digests of consecutive blocks from `first` on with what is recorded; records what is
    /// not known yet, up to the first that differs. May sleep.
    pub(crate) fn settle(&self, id: &Identity, first: u64, digests: &[Digest]) -> Result<Settled> {
        let mut recorded = self.digests.lock();
        let mut adopted = 0;
        let mut allocated = 0;
        let mut result = Ok(());
        let mut differs = None;
        for ((at, digest), block) in digests.iter().enumerate().zip(first..) {
            match recorded.slot(block, id.blocks(), &mut allocated) {
                Ok(slot) if *slot == UNKNOWN => {
                    *slot = *digest;
                    adopted += 1;
                }
                Ok(slot) if *slot == *digest => {}
                Ok(_) => {
                    differs = Some(at);
                    break;
                }
                Err(err) => {
                    result = Err(err);
                    break;
                }
            }
        }
        drop(recorded);
        if allocated != 0 {
            self.bytes.fetch_add(allocated, Relaxed);
            GLOBAL.add(Field::MetadataBytes, allocated);
        }
        result?;
        Ok(match differs {
            Some(at) => Settled::Differ { at },
            None => Settled::Agree { adopted },
        })
    }

    /// The digest of a block, if it is known.
    pub(crate) fn digest(&self, block: u64) -> Option<Digest> {
        self.digests.lock().get(block).copied()
    }

    /// Bytes that digests take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Real inodes that are bound.
    pub(crate) fn bound(&self) -> u64 {
        self.bound.load(Relaxed)
    }

    /// Blocks that the bound inodes have verified, all together.
    pub(crate) fn verified(&self) -> u64 {
        self.verified.load(Relaxed)
    }

    pub(super) fn count_bound(&self) {
        self.bound.fetch_add(1, Relaxed);
    }

    pub(super) fn count_verified(&self, blocks: u64) {
        self.verified.fetch_add(blocks, Relaxed);
    }

    pub(super) fn uncount(&self, verified: u64) {
        self.bound.fetch_sub(1, Relaxed);
        self.verified.fetch_sub(verified, Relaxed);
    }
}
