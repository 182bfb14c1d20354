// SPDX-License-Identifier: GPL-2.0

//! Comparing a real inode's bytes with pages that are resident, and what has to be remembered of
//! such pages when they leave memory.

use core::ops::Range;

use kernel::prelude::*;

use super::{
    digest::{digest_blocks, Digest, BLOCK_SIZE},
    handle::{SharedInode, Unheld},
    sha256::KernelSha256,
};
use crate::{
    io::{
        locked::{same_bytes, Leaving, LeavingFolio, LockedFolio},
        memcg::Payer,
    },
    race::race_point,
    stats::{Field, GLOBAL},
};

/// Blocks that are hashed before their digests are recorded.
const RUN: usize = 16;

/// What a block gets for a digest when its page has been lost: no other block has it, so that none
/// is taken for that page.
fn lost(shared: &Unheld, block: u64) -> Digest {
    let mut digest = [0xff; 32];
    let (_, rest) = digest.split_at_mut(16);
    let (number, place) = rest.split_at_mut(8);
    number.copy_from_slice(&shared.number().to_ne_bytes());
    place.copy_from_slice(&block.to_ne_bytes());
    digest
}

/// How a block compares with the page that is resident.
pub(crate) enum Compared {
    /// This number of blocks are equal, and noted as verified.
    Same(u64),
    /// It differs.
    Differs,
    /// There is no such page.
    Absent,
}

impl SharedInode {
    /// Records the digest of a block that is resident and has these bytes. `EAGAIN`: it is not, or
    /// has another digest. May sleep.
    pub(super) fn record_resident(&self, block: u64, bytes: &[u8], digest: &Digest) -> Result {
        self.reserve(block)?;
        let folio = LockedFolio::find(self.mapping(), block).ok_or(EAGAIN)?;
        let resident = folio.bytes_from(block).get(..BLOCK_SIZE);
        if !resident.is_some_and(|resident| same_bytes(resident, bytes)) {
            return Err(EAGAIN);
        }
        // While the folio cannot leave: what is read in its place is checked.
        match self.record_leaving(block, &[*digest]) {
            true if self.content().has_digest(block, digest) == Some(true) => Ok(()),
            _ => Err(EAGAIN),
        }
    }

    /// Compares `bytes`, of whole blocks from `first` on, with the folio that has block `first`, as
    /// far as that goes; the first that differs ends it. Calls `verified` for the blocks that are
    /// equal, while the folio cannot leave. May sleep, and so may `verified`.
    pub(crate) fn compare(
        &self,
        first: u64,
        bytes: &[u8],
        verified: impl FnOnce(Range<u64>) -> Result,
    ) -> Result<Compared> {
        let Some(folio) = LockedFolio::find(self.mapping(), first) else {
            return Ok(Compared::Absent);
        };
        race_point!(c"compare_locked");
        let resident = folio.bytes_from(first);
        let len = resident.len().min(bytes.len());
        let (ours, theirs) = (bytes.get(..len), resident.get(..len));
        let (ours, theirs) = (ours.unwrap_or(&[]), theirs.unwrap_or(&[]));
        let same = if same_bytes(ours, theirs) {
            len / BLOCK_SIZE
        } else {
            let blocks = ours.chunks(BLOCK_SIZE).zip(theirs.chunks(BLOCK_SIZE));
            blocks
                .take_while(|(one, other)| same_bytes(one, other))
                .count()
        } as u64;
        if same == 0 {
            return Ok(Compared::Differs);
        }
        verified(first..first.saturating_add(same))?;
        Ok(Compared::Same(same))
    }
}

impl Unheld {
    /// A folio of its page cache is about to leave it. Remembers what others count on. `false`: it
    /// has to stay for now. Under the folio's lock, also in reclaim: does not sleep.
    pub(crate) fn may_leave(&self, folio: &LeavingFolio<'_>) -> bool {
        let content = self.content();
        if !content.usage().is_many_exactly() {
            // What the only user reads again is read through it again.
            return true;
        }
        if content.usage().is_unbound() && !content.usage().was_left() {
            // No inode counts on it, nor does a read that is under way.
            return true;
        }
        let record = |first, digests: &[Digest]| {
            // What is kept of it is charged to the cgroup that was charged for the folio.
            let payer = Payer::of_leaving(folio);
            let _paying = payer.pays();
            self.record_leaving(first, digests)
        };
        let pages = folio.pages();
        let blocks = pages.start..pages.end.min(self.blocks());
        let bytes = match folio.content() {
            Leaving::Nothing => return true,
            Leaving::Lost => {
                let mut blocks = blocks;
                return blocks.all(|block| record(block, &[lost(self, block)]));
            }
            Leaving::Bytes(bytes) => bytes,
        };
        let mut first = blocks.start;
        for run in bytes.chunks(RUN * BLOCK_SIZE) {
            let count = ((run.len() / BLOCK_SIZE) as u64).min(blocks.end.saturating_sub(first));
            if count == 0 {
                break;
            }
            let mut unknown = first..first + count;
            if !unknown.all(|block| content.is_recorded(block)) {
                let mut digests = [[0u8; 32]; RUN];
                let Some(digests) = digests.get_mut(..count as usize) else {
                    return false;
                };
                digest_blocks::<KernelSha256>(run, digests);
                GLOBAL.add(Field::BlocksHashed, count);
                if !record(first, digests) {
                    return false;
                }
            }
            first += count;
        }
        true
    }
}
