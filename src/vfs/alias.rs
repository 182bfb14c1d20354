// SPDX-License-Identifier: GPL-2.0

//! Bytes of blocks that are not resident because another place has them (`share::alias`), for their
//! readers: reads copy them from there, faults take a copy into the page cache.

use core::ops::Range;

use kernel::{page::PAGE_SIZE, prelude::*, sync::Arc};

use super::{file::OpenFile, page::Unready, FileSystem, Inode};
use crate::{
    io::{folio_list::FolioList, request::ReadRequest},
    race::race_point,
    share::{
        alias::{self, Piece, MANY},
        usage::SoleRead,
        Binding, BLOCK_SHIFT, BLOCK_SIZE,
    },
};

/// Blocks that a fault copies together: as many as the kernel maps around one.
const FAULT_AROUND_BLOCKS: u64 = 16;

/// Blocks of a read so small that looking for pieces must cost next to nothing.
const FEW: usize = 2;
const FEW_BLOCKS: u64 = FEW as u64;

impl<T: FileSystem> Inode<T> {
    /// Whether blocks of its shared inode have an alias.
    pub(super) fn has_aliases(&self, binding: &Arc<Binding>) -> bool {
        binding.shared().content().aliased() != 0
    }

    /// The first of these pages whose bytes are resident elsewhere, so that it need not be read.
    pub(super) fn next_elsewhere(&self, binding: &Binding, pages: Range<u64>) -> u64 {
        let (shared, mut at) = (binding.shared(), pages.start);
        while let Some(block) = shared.content().next_alias(at..pages.end) {
            if alias::present_prefix(shared, block..block + 1) != 0 {
                return block;
            }
            race_point!(c"alias_gone");
            shared.forget_aliases(block..block + 1);
            at = block + 1;
        }
        u64::MAX
    }

    /// Copies a block into the shared inode's page cache from where else it is, and those around it
    /// that would be read with it, if they are elsewhere, too. The inode has verified it. If it is
    /// nowhere any more, it has no alias any more, either.
    pub(super) fn copy_alias(&self, binding: &Binding, block: u64) -> Result {
        let shared = binding.shared();
        let first = block - block % FAULT_AROUND_BLOCKS;
        let end = (first + FAULT_AROUND_BLOCKS).min(binding.blocks());
        for at in first..end {
            let here = at..at + 1;
            if !shared.content().is_aliased(at) || binding.verified_prefix(here.clone()) == 0 {
                continue;
            }
            let [piece] = alias::gather(shared, here.clone(), false);
            race_point!(c"alias_copy");
            if let Some(piece) = piece {
                let mut folios = FolioList::for_cache(at, 1, 0)?;
                match &piece {
                    Piece::Zeros { .. } => folios.copy_from(&[0; BLOCK_SIZE]),
                    Piece::Folio { folio, offset, .. } => {
                        folios.copy_from(folio.bytes().get(*offset..).ok_or(EIO)?);
                    }
                }
                // SAFETY: The piece is of another block with the digest that is recorded for this
                // one.
                unsafe { shared.give(at, folios, |_| true) };
            }
            shared.forget_aliases(here);
        }
        Ok(())
    }
}

impl<T: FileSystem> OpenFile<'_, T> {
    /// Copies what is wanted of these blocks, those from the request's position on, from where they
    /// are. `Ok(0)`: the first is nowhere.
    pub(super) fn read_pieces(
        self,
        request: &mut ReadRequest<'_>,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result<usize, Unready> {
        // Before blocks are looked at, and until their folios are held.
        let sole = binding.sole_read();
        let mut ready = binding.verified_prefix(blocks.clone());
        if ready == 0 {
            if request.is_nowait() {
                return Err(Unready::Failed(EAGAIN));
            }
            ready = self.ensure(binding, blocks.clone())?;
        }
        let ready = blocks.start..blocks.start.saturating_add(ready);
        race_point!(c"pieces_ready");
        let copied = match ready.end - ready.start {
            1 => self.copy_gathered::<1>(request, binding, ready, sole),
            2..=FEW_BLOCKS => self.copy_gathered::<FEW>(request, binding, ready, sole),
            _ => self.copy_gathered::<MANY>(request, binding, ready, sole),
        };
        Ok(copied?)
    }

    /// Copies the first `N` of these blocks, which are verified, with `sole` if that says so.
    #[inline(always)]
    fn copy_gathered<const N: usize>(
        self,
        request: &mut ReadRequest<'_>,
        binding: &Binding,
        blocks: Range<u64>,
        sole: Option<SoleRead<'_>>,
    ) -> Result<usize> {
        let pieces = alias::gather::<N>(binding.shared(), blocks, true);
        // The memory that they are copied to may need page faults: see `read_sole`.
        drop(sole);
        copy_pieces(request, self.inode().size(), &pieces)
    }
}

/// Copies what is wanted of the pieces from the request's position on, of a file of `size` bytes.
fn copy_pieces(
    request: &mut ReadRequest<'_>,
    size: u64,
    pieces: &[Option<Piece>],
) -> Result<usize> {
    if pieces.iter().flatten().next().is_none() {
        return Ok(0);
    }
    let start = request.pos();
    let left = (request.wanted() as u64).min(size.saturating_sub(start as u64));
    let mut left = usize::try_from(left).unwrap_or(usize::MAX);
    let mut skip = (start as u64 % PAGE_SIZE as u64) as usize;
    let mut behind = request.behind(start);
    let mut total = 0;
    for piece in pieces.iter().flatten() {
        let len = ((piece.blocks() << BLOCK_SHIFT) as usize)
            .saturating_sub(skip)
            .min(left);
        let copied = match piece {
            Piece::Zeros { .. } => request.zero(len),
            Piece::Folio { folio, offset, .. } => {
                request.copy_folio(folio, offset + skip, len, behind)
            }
        };
        skip = 0;
        behind = i64::MIN;
        total += copied;
        left -= copied;
        if copied < len || left == 0 {
            break;
        }
    }
    if total == 0 {
        return Err(EFAULT);
    }
    // The position is noted so that read-ahead sees a sequential reader.
    request.set_pos(start + total as i64);
    Ok(total)
}
