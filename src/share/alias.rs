// SPDX-License-Identifier: GPL-2.0

//! Where else the bytes of a shared inode's blocks are.

use core::ops::Range;

use kernel::sync::rcu;

use super::{
    digest::BLOCK_SIZE,
    handle::{SharedInode, Unheld},
    hint::Lead,
    index,
    table::DigestSlot,
};
use crate::{
    io::{folio::FolioRef, locked::same_bytes, wait::cond_resched},
    race::race_point,
};

/// Pieces that are looked for at once if many blocks are wanted.
pub(crate) const MANY: usize = 12;

/// What has the bytes of consecutive blocks.
pub(crate) enum Piece {
    /// Nothing has to: they are zeros.
    Zeros {
        /// How many blocks.
        blocks: u64,
    },
    /// A folio of another place.
    Folio {
        /// Which one.
        folio: FolioRef,
        /// The first byte in it.
        offset: usize,
        /// How many blocks.
        blocks: u64,
    },
}

impl Piece {
    /// How many blocks.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Piece::Zeros { blocks } | Piece::Folio { blocks, .. } => *blocks,
        }
    }
}

/// Collects the folios that hold `blocks`, in order, up to the first block that is resident
/// nowhere. A block with an alias comes from another shared inode (without `own`, any block may);
/// the others come from `shared` itself. The caller's inode has verified them. Does not sleep, and
/// allocates nothing but, once for each shared inode, a [`Hint`](super::hint::Hint). At most `N`
/// pieces: it takes time to set up, and to drop, room for more.
///
/// The index is asked once for each run of blocks: what follows is compared with what follows
/// there. What it said last to a reader (`own`) is noted, for the next reader of what follows.
pub(crate) fn gather<const N: usize>(
    shared: &Unheld,
    blocks: Range<u64>,
    own: bool,
) -> [Option<Piece>; N] {
    let mut pieces = [const { None }; N];
    let guard = rcu::read_lock();
    let content = shared.content();
    // Others than readers want what the index has: the merge worker lets that stay.
    let mut lead = content.lead(&guard).filter(|_| own);
    let mut at = blocks.start;
    for piece in &mut pieces {
        if at >= blocks.end {
            break;
        }
        let left = blocks.end - at;
        let found = if own && !content.is_aliased(at) {
            own_piece(shared, at, left)
        } else {
            other_piece(shared, at, left, own, (&mut lead, &guard))
        };
        let Some(found) = found else { break };
        at += found.blocks();
        *piece = Some(found);
    }
    pieces
}

/// A piece of at most `max` blocks, from block `at` on, that is resident in its own place.
#[inline(always)]
fn own_piece(shared: &Unheld, at: u64, max: u64) -> Option<Piece> {
    // Stop at a PG_readahead folio: `filemap_read()` has to trigger the next read-ahead.
    let folio = shared.folio(at).filter(|folio| !folio.is_readahead())?;
    let pages = folio.pages();
    let (room, offset) = (
        pages.end.checked_sub(at)?,
        at.checked_sub(pages.start)? as usize,
    );
    Some(Piece::Folio {
        folio,
        offset: offset * BLOCK_SIZE,
        blocks: room.min(max),
    })
}

/// A piece of at most `max` blocks, from block `at` on, that is resident in another place: where
/// `lead` leads, if what lies there is equal, or where the index leads, which is what `lead` is
/// then. A reader (`own`) notes that.
#[inline(always)]
fn other_piece<'a>(
    shared: &Unheld,
    at: u64,
    max: u64,
    own: bool,
    (lead, guard): (&mut Option<Lead<'a>>, &'a rcu::Guard),
) -> Option<Piece> {
    let content = shared.content();
    let slot = content.slots(at).first();
    if slot.is_some_and(DigestSlot::is_zeros) {
        return Some(Piece::Zeros {
            blocks: zero_run(shared, at, max),
        });
    }
    // Not by `Content::has_same_digest`, which looks up `slot` again: 2 % of a read of 4 KiB.
    let is_equal = |lead: &Lead<'_>| {
        let theirs = lead.owner.content().slots(lead.block(at)).first();
        slot.zip(theirs)
            .is_some_and(|(slot, theirs)| slot.same(theirs))
    };
    let known = lead.filter(is_equal);
    if let Some(found) = known.and_then(|lead| take(shared, at, lead, max)) {
        return Some(found);
    }
    *lead = index::find(shared, at, guard);
    race_point!(c"index_found");
    let asked = (*lead)?;
    let found = take(shared, at, asked, max)?;
    if own {
        content.note_lead(asked, guard);
    }
    Some(found)
}

/// Whether these are the bytes of a block that is in memory elsewhere. `false`: they are not, or it
/// is nowhere. Does not sleep.
pub(crate) fn is_same(shared: &Unheld, block: u64, bytes: &[u8]) -> bool {
    let [piece] = gather(shared, block..block.saturating_add(1), false);
    match piece {
        Some(Piece::Zeros { .. }) => same_bytes(bytes, &[0; BLOCK_SIZE]),
        Some(Piece::Folio { folio, offset, .. }) => {
            let other = folio.bytes().get(offset..).unwrap_or_default();
            same_bytes(bytes, other.get(..BLOCK_SIZE).unwrap_or_default())
        }
        None => false,
    }
}

/// The piece of another shared inode with the block to which `lead` leads from block `at` of
/// `shared`, and which has the same digest, if it is resident: as many blocks as are equal from
/// there on, up to `max`.
fn take(shared: &Unheld, at: u64, lead: Lead<'_>, max: u64) -> Option<Piece> {
    let (other, block) = (lead.owner, lead.block(at));
    let folio = other.folio(block)?;
    let pages = folio.pages();
    let room = pages.end.checked_sub(block)?.min(max);
    let offset = usize::try_from(block.checked_sub(pages.start)?).ok()? * BLOCK_SIZE;
    let blocks = match room {
        0..=1 => room,
        _ => 1 + same_run(shared, at + 1, other, block + 1, room - 1),
    };
    (blocks != 0).then_some(Piece::Folio {
        folio,
        offset,
        blocks,
    })
}

/// How many blocks have the same digests there and there, up to `max`.
fn same_run(shared: &Unheld, at: u64, other: &Unheld, block: u64, max: u64) -> u64 {
    let mut count = 0;
    while count < max {
        let ours = shared.content().slots(at + count);
        let theirs = other.content().slots(block + count);
        let here = ours.len().min(theirs.len()).min((max - count) as usize);
        let pairs = ours.iter().zip(theirs).take(here);
        let same = pairs.take_while(|(one, two)| one.same(two)).count();
        count += same as u64;
        if same == 0 || same < here {
            break;
        }
    }
    count
}

/// How many blocks from `at` on are zeros, up to `max`.
fn zero_run(shared: &Unheld, at: u64, max: u64) -> u64 {
    let mut count = 0;
    while count < max {
        let slots = shared.content().slots(at + count);
        let here = slots.len().min((max - count) as usize);
        let zeros = slots.iter().take(here);
        let zeros = zeros.take_while(|slot| slot.is_zeros()).count();
        count += zeros as u64;
        if zeros == 0 || zeros < here {
            break;
        }
    }
    count
}

/// How many of these blocks, from the first on, are zeros.
pub(super) fn zeros(shared: &Unheld, blocks: Range<u64>) -> u64 {
    zero_run(
        shared,
        blocks.start,
        blocks.end.saturating_sub(blocks.start),
    )
}

/// How many of these blocks, from the first on, have their bytes elsewhere.
pub(crate) fn present_prefix(shared: &Unheld, blocks: Range<u64>) -> u64 {
    let pieces = gather::<MANY>(shared, blocks, false);
    pieces.iter().flatten().map(Piece::blocks).sum()
}

/// How many blocks that have an alias have their bytes in memory now: the note outlives the other
/// place. Blocks of zeros count if anything of the file is in memory (`some`, or another place that
/// has a block of it): they need no page, and nothing else tells whether they would have one. May
/// sleep.
fn elsewhere(shared: &Unheld, some: bool) -> u64 {
    let content = shared.content();
    let end = shared.blocks();
    let (mut zeros, mut copies, mut at) = (0u64, 0u64, 0u64);
    while let Some(next) = content.next_alias(at..end) {
        let run = next..next.saturating_add(content.alias_run(next..end).max(1));
        at = next;
        while at < run.end {
            let mut got = 0;
            for piece in gather::<MANY>(shared, at..run.end, false).iter().flatten() {
                match piece {
                    Piece::Zeros { blocks } => zeros = zeros.saturating_add(*blocks),
                    Piece::Folio { blocks, .. } => copies = copies.saturating_add(*blocks),
                }
                got += piece.blocks();
            }
            at += got.max(1);
            cond_resched();
        }
    }
    if some || copies != 0 {
        copies.saturating_add(zeros)
    } else {
        0
    }
}

impl SharedInode {
    /// Pages that would be in memory more than they are if its real inodes had caches of their own:
    /// as many copies of its pages (also of those that are resident elsewhere) as those inodes have
    /// verified, less what is there. Looks at each block that has an alias; may sleep.
    pub(crate) fn pages_saved(&self) -> u64 {
        let (pages, blocks) = (self.pages(), self.blocks().max(1));
        let all = pages.saturating_add(elsewhere(self, pages != 0));
        let verified = match self.content().usage().is_sole() {
            // Nothing is recorded of it.
            true => blocks,
            false => self.content().verified(),
        };
        let wanted = all
            .saturating_mul(verified / blocks)
            .saturating_add(all.saturating_mul(verified % blocks) / blocks);
        wanted.saturating_sub(pages)
    }
}
