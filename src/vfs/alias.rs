// SPDX-License-Identifier: GPL-2.0

//! Bytes of blocks that are not resident because another place has them (`share::alias`), for who asks
//! for them: reads copy them from there, faults take a copy into the page cache.

use core::ops::Range;

use kernel::{bindings, page::PAGE_SIZE, prelude::*};

use super::{page::Unready, FileSystem, Inode, Tables};
use crate::{
    io::folios::Folios,
    race::race_point,
    raw,
    share::{
        alias::{self, Piece, MANY},
        Binding, BLOCK_SHIFT, BLOCK_SIZE,
    },
};
use kernel::sync::Arc;

/// Blocks that a fault copies together: as many as the kernel maps around one.
const AROUND: u64 = 16;

/// Blocks of a read so small that looking for pieces must cost next to nothing.
const FEW: usize = 2;

impl<T: FileSystem> Inode<T> {
    /// Whether blocks of its shared inode have an alias.
    pub(super) fn has_aliases(&self, binding: &Arc<Binding>) -> bool {
        binding.shared().content().aliased() != 0
    }

    /// The first of these pages whose bytes are resident elsewhere, so that it need not be read.
    pub(super) fn next_elsewhere(&self, binding: &Binding, pages: Range<u64>) -> u64 {
        let (shared, mut at) = (binding.shared(), pages.start);
        while let Some(block) = shared.content().next_alias(at..pages.end) {
            if alias::run(shared, block..block + 1) != 0 {
                return block;
            }
            race_point!(c"alias_gone");
            shared.content().forget_aliases(block..block + 1);
            at = block + 1;
        }
        u64::MAX
    }

    /// Copies a block into the shared inode's page cache from where else it is, and those around it that
    /// would be read with it, if they are elsewhere, too. The inode has verified it. If it is nowhere any
    /// more, it has no alias any more, either.
    pub(super) fn copy_alias(&self, binding: &Binding, block: u64) -> Result {
        let shared = binding.shared();
        let first = block - block % AROUND;
        let end = (first + AROUND).min(binding.blocks());
        for at in first..end {
            let here = at..at + 1;
            if !shared.content().is_aliased(at) || binding.run(here.clone()) == 0 {
                continue;
            }
            let [piece] = alias::gather(shared, here.clone(), false);
            race_point!(c"alias_copy");
            if let Some(piece) = piece {
                let mut folios = Folios::for_cache(at, 1, 0)?;
                match &piece {
                    Piece::Zeros { .. } => folios.copy_from(&[0; BLOCK_SIZE]),
                    Piece::Folio { folio, offset, .. } => {
                        folios.copy_from(folio.bytes().get(*offset..).ok_or(EIO)?);
                    }
                }
                // SAFETY: The mapping is the shared inode's, and these bytes have the digest recorded
                // there.
                unsafe { folios.give(shared.mapping(), at) };
            }
            shared.content().forget_aliases(here);
        }
        Ok(())
    }
}

impl<T: FileSystem> Tables<T> {
    /// Copies what is wanted of these blocks, from where they are. `Ok(0)`: the first is nowhere.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`; the blocks are those from the request's position on.
    pub(super) unsafe fn read_pieces(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
        inode: &Inode<T>,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
        nowait: bool,
    ) -> Result<usize, Unready> {
        let shared = binding.shared();
        let mut ready = binding.run(blocks.clone());
        if ready == 0 {
            if nowait {
                return Err(Unready::Failed(EAGAIN));
            }
            // SAFETY: The file is one of the inode's.
            ready = unsafe { inode.ensure((*iocb).ki_filp, binding, blocks.clone())? };
        }
        let ready = blocks.start..blocks.start.saturating_add(ready);
        race_point!(c"pieces_ready");
        // SAFETY: By the function's safety requirements.
        let copied = unsafe {
            if ready.end - ready.start <= FEW as u64 {
                let pieces = alias::gather::<FEW>(shared, ready, true);
                Self::copy_pieces(iocb, to, inode, &pieces)
            } else {
                let pieces = alias::gather::<MANY>(shared, ready, true);
                Self::copy_pieces(iocb, to, inode, &pieces)
            }
        };
        Ok(copied?)
    }

    /// Copies what is wanted of the pieces from the request's position on.
    ///
    /// # Safety
    ///
    /// As for [`Tables::read_pieces`].
    unsafe fn copy_pieces(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
        inode: &Inode<T>,
        pieces: &[Option<Piece>],
    ) -> Result<usize> {
        if pieces.iter().flatten().next().is_none() {
            return Ok(0);
        }
        // SAFETY: By the function's safety requirements.
        unsafe {
            let ra = &raw mut (*(*iocb).ki_filp).__bindgen_anon_3.f_ra;
            let start = (*iocb).ki_pos as u64;
            let left =
                (raw::erofs_shared_iov_bytes(to) as u64).min(inode.size().saturating_sub(start));
            let mut left = usize::try_from(left).unwrap_or(usize::MAX);
            let mut skip = (start % PAGE_SIZE as u64) as usize;
            let last = (&raw const (*ra).prev_pos).read_volatile();
            let mut behind = last.wrapping_sub(1).wrapping_sub((*iocb).ki_pos);
            let mut total = 0;
            for piece in pieces.iter().flatten() {
                let len = ((piece.blocks() << BLOCK_SHIFT) as usize)
                    .saturating_sub(skip)
                    .min(left);
                let copied = match piece {
                    Piece::Zeros { .. } => bindings::iov_iter_zero(len, to),
                    Piece::Folio { folio, offset, .. } => {
                        folio.copy_to(offset + skip, len, behind, to)
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
            (*iocb).ki_pos += total as i64;
            // So that reading ahead sees a reader who goes on.
            (&raw mut (*ra).prev_pos).write_volatile((*iocb).ki_pos);
            Ok(total)
        }
    }
}
