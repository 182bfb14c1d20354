// SPDX-License-Identifier: GPL-2.0

//! What a shared inode knows of its blocks: their digests, each set once; which of them have
//! aliases.
//!
//! A block has an *alias* when its page was dropped because a block with the same digest is
//! resident elsewhere: the index knows where. The note says no more than that, and holds nothing:
//! if the other place is gone, too, the note is taken back, and the block is read from an image
//! again.

use core::ops::Range;

use kernel::{
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu, GlobalLockedBy, SpinLock,
    },
};

use super::{
    digest::{Digest, Key},
    fast_path::mark,
    handle::Unheld,
    hint::{Hint, Lead},
    queue::{Link, QUEUE},
    sha256::KernelSha256,
    table::{read_once, DigestSlot, Table},
    usage::Usage,
};
use crate::{
    io::{
        memcg::{has_room, CHARGED_NOWAIT},
        once_box::OnceBox,
    },
    race::race_point,
    stats::{Field, GLOBAL},
};

/// Which shared inode it is, of those for contents of one size. Constant once the inode is found by
/// it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Sharing mode, domain, size, and start of the content.
    pub(crate) key: Key,
    /// How many differences from other contents led to this key: see [`Key::variant`].
    pub(crate) variant: u32,
    /// The start of the digest of the domain's name: blocks are not shared beyond it.
    pub(crate) domain: [u8; 16],
    /// What its pages are checked by.
    pub(crate) verify: Verify,
}

/// What the pages of a shared inode are checked by, before they are served through a real inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    /// The digest of each block.
    Digests,
    /// Their bytes, as long as these are in memory: `Documentation/verify.md`.
    Bytes,
    /// Nothing: the administrator vouches for the fingerprint.
    Nothing,
}

impl Identity {
    /// A number for the inode hash of the kernel; `size` is that of the content in bytes.
    pub(crate) fn hash(&self, size: u64) -> u64 {
        self.key.hash(&self.domain, size, self.variant)
    }

    /// That of files that are like those of this one but for block `block`, which has the digest
    /// `digest`.
    pub(crate) fn variant(&self, block: u64, digest: &Digest) -> Result<Self> {
        Ok(Self {
            key: self.key.variant::<KernelSha256>(block, digest),
            variant: self.variant.checked_add(1).ok_or(EOVERFLOW)?,
            ..*self
        })
    }
}

/// Under one lock, which also guards which blocks have aliases.
struct Aliases {
    /// Blocks that were read in although another place has them, for the merge worker; if there are
    /// any.
    candidates: Option<KBox<MergeCandidates>>,
}

/// Blocks that may be resident although another place has them.
pub(super) struct MergeCandidates {
    /// Ranges, in no order; they may overlap.
    pub(super) ranges: KVec<Range<u64>>,
    /// Where those are for which there was no room in `ranges`. Others may be between them.
    pub(super) more: Range<u64>,
    /// How many these are.
    pub(super) more_count: u64,
}

impl MergeCandidates {
    const fn new() -> Self {
        Self {
            ranges: KVec::new(),
            more: 0..0,
            more_count: 0,
        }
    }

    fn add(&mut self, blocks: Range<u64>) {
        if let Some(last) = self.ranges.last_mut() {
            if last.end == blocks.start {
                last.end = blocks.end;
                return;
            }
        }
        let room = self.ranges.len() < MAX_MERGE_RANGES;
        if !room || self.ranges.push(blocks.clone(), CHARGED_NOWAIT).is_err() {
            let count = blocks.end.saturating_sub(blocks.start);
            self.more_count = self.more_count.saturating_add(count);
            self.more = if self.more.is_empty() {
                blocks
            } else {
                self.more.start.min(blocks.start)..self.more.end.max(blocks.end)
            };
        }
    }
}

/// Ranges of duplicates that are remembered each for itself.
const MAX_MERGE_RANGES: usize = 4096;

/// What a shared inode carries. There is one for each file in memory, so that every eight bytes
/// count: what can be had from the inode or from its other fields is not in it.
#[pin_data]
pub(crate) struct Content {
    /// Changed under the inode's lock: see [`Writer`](super::table::Writer).
    table: Table,
    /// Taken for a few instructions; nothing sleeps under it.
    #[pin]
    aliases: SpinLock<Aliases>,
    /// Blocks with an alias: a shared inode has far less than 2^32. Changed under `aliases`.
    aliased: Atomic<u32>,
    /// There was no memory to remember blocks for the merge worker, which may be any then. Changed
    /// under `aliases`.
    missed: Atomic<bool>,
    /// Where the index has last led for one of them.
    hint: OnceBox<Hint>,
    /// In the merge worker's queue.
    queued: Atomic<bool>,
    /// What is behind it there.
    link: GlobalLockedBy<Link, QUEUE>,
    /// Its users.
    #[pin]
    usage: Usage,
    /// Blocks that the bound inodes have verified, all together.
    verified: Atomic<u64>,
}

impl Content {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            table: Table::new(),
            aliases <- new_spinlock!(Aliases {
                candidates: None,
            }, "erofs_shared::Content::aliases"),
            aliased: Atomic::new(0),
            missed: Atomic::new(false),
            hint: OnceBox::new(),
            queued: Atomic::new(false),
            link: GlobalLockedBy::new(Link::new()),
            usage <- Usage::new(),
            verified: Atomic::new(0),
        })
    }

    /// Its digests.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Its users.
    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Whether the memory cgroup has room for the digests of blocks that are read in now: when they
    /// leave, their digests are kept, and charged whatever the limit is.
    pub(crate) fn has_room_for(&self, blocks: Range<u64>) -> Result {
        if !self.usage().is_many() {
            return Ok(());
        }
        let is_empty = |block| self.slots(block).is_empty();
        let (first, last) = (blocks.start, blocks.end.saturating_sub(1));
        if is_empty(first) || last != first && is_empty(last) {
            has_room(PAGE_SIZE)?;
        }
        Ok(())
    }

    /// Whether a block has this digest; `None` while it has none.
    pub(crate) fn has_digest(&self, block: u64, digest: &Digest) -> Option<bool> {
        let slot = self.slots(block).first()?;
        slot.words()
            .map(|words| words == super::table::words(digest))
    }

    /// Whether a block has the digest of block `theirs` of `other`; both have one.
    pub(super) fn has_same_digest(&self, block: u64, other: &Self, theirs: u64) -> bool {
        let (ours, theirs) = (self.slots(block).first(), other.slots(theirs).first());
        ours.zip(theirs)
            .is_some_and(|(ours, theirs)| ours.same(theirs))
    }

    /// Whether a block has a digest.
    pub(crate) fn is_recorded(&self, block: u64) -> bool {
        self.slots(block)
            .first()
            .is_some_and(|slot| slot.words().is_some())
    }

    /// The digests from that of `block` on, as far as they lie side by side. Needs no lock.
    pub(super) fn slots(&self, block: u64) -> &[DigestSlot] {
        self.table.slots(block)
    }

    /// A block's digest, and what an entry of the index needs beside that.
    pub(super) fn slot(&self, block: u64) -> Option<(&DigestSlot, u32)> {
        self.table.slot(block)
    }

    /// Ranges of blocks; those whose digest is known are in one of them.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.table.chunks()
    }

    /// Bytes that digests and the hint take, as `metadata_bytes` has counted them, for a file of
    /// `blocks` blocks. May sleep.
    pub(super) fn bytes(&self, blocks: u64) -> u64 {
        let hint = self.hint.get().map_or(0, size_of_val) as u64;
        hint.saturating_add(self.table.bytes(blocks))
    }

    /// Blocks that the bound inodes have verified, all together.
    pub(crate) fn verified(&self) -> u64 {
        self.verified.load(Relaxed)
    }

    /// Blocks with an alias.
    #[inline]
    pub(crate) fn aliased(&self) -> u64 {
        read_once(&self.aliased).into()
    }

    /// Whether a block has an alias.
    pub(crate) fn is_aliased(&self, block: u64) -> bool {
        self.aliased() != 0 && self.table.is_aliased(block)
    }

    /// The first of these blocks that has an alias.
    pub(crate) fn next_alias(&self, blocks: Range<u64>) -> Option<u64> {
        if self.aliased() == 0 {
            return None;
        }
        self.table.find(blocks, true)
    }

    /// How many blocks from `blocks.start` on have an alias without a gap.
    pub(crate) fn alias_run(&self, blocks: Range<u64>) -> u64 {
        if self.aliased() == 0 {
            return 0;
        }
        let end = self.table.find(blocks.clone(), false).unwrap_or(blocks.end);
        end.saturating_sub(blocks.start)
    }

    /// Where the index has last led for a block with an alias.
    pub(super) fn lead<'a>(&self, guard: &'a rcu::Guard) -> Option<Lead<'a>> {
        self.hint.get()?.get(guard)
    }

    /// Notes where the index has led, found in the section of RCU of the guard. Does not sleep;
    /// what there is no memory for is not noted.
    pub(super) fn note_lead(&self, lead: Lead<'_>, guard: &rcu::Guard) {
        if let Ok((hint, is_new)) = self.hint.get_or_init(Hint::new(), CHARGED_NOWAIT) {
            hint.set(lead, guard);
            if is_new {
                GLOBAL.add(Field::MetadataBytes, size_of::<Hint>() as u64);
            }
        }
    }

    /// Remembers blocks that another place has, too, for the merge worker.
    pub(super) fn add_merge_candidates(&self, blocks: Range<u64>) {
        let mut lock = self.aliases.lock();
        if lock.candidates.is_none() {
            lock.candidates = KBox::new(MergeCandidates::new(), CHARGED_NOWAIT).ok();
        }
        match &mut lock.candidates {
            Some(candidates) => candidates.add(blocks),
            None => self.missed.store(true, Relaxed),
        }
    }

    /// The blocks that were remembered, of a file of `blocks` blocks.
    pub(super) fn take_merge_candidates(&self, blocks: u64) -> MergeCandidates {
        let mut lock = self.aliases.lock();
        let taken = lock.candidates.take();
        let missed = self.missed.xchg(false, Relaxed);
        drop(lock);
        let mut candidates = taken.map_or_else(MergeCandidates::new, KBox::into_inner);
        if missed {
            candidates.more = 0..blocks;
            candidates.more_count = blocks;
        }
        candidates
    }

    /// Its place in the queue of the merge worker.
    pub(super) fn link(&self) -> &GlobalLockedBy<Link, QUEUE> {
        &self.link
    }

    /// Whether it was not in the queue of the merge worker, in which it is now.
    pub(super) fn enqueue(&self) -> bool {
        !self.queued.xchg(true, Relaxed)
    }

    /// It is not in the queue any more.
    pub(super) fn dequeue(&self) {
        self.queued.store(false, Relaxed);
    }

    pub(super) fn count_verified(&self, blocks: u64) {
        self.verified.fetch_add(blocks, Relaxed);
    }

    pub(super) fn uncount_verified(&self, blocks: u64) {
        self.verified.fetch_sub(blocks, Relaxed);
    }
}

impl Unheld {
    /// Notes that these blocks have an alias, or that they have none any more. From the first on no
    /// file is read without looking for them. For as many blocks as a folio has at most.
    pub(super) fn set_aliases(&self, blocks: impl Iterator<Item = u64>, aliased: bool) -> u64 {
        let content = self.content();
        let _lock = content.aliases.lock();
        let mut changed = 0;
        for block in blocks {
            changed += u32::from(content.table.set_aliased(block, aliased));
        }
        race_point!(c"aliases_changed");
        if changed == 0 {
            return 0;
        }
        let before = content.aliased.load(Relaxed);
        let after = if aliased {
            GLOBAL.add(Field::Aliases, changed.into());
            before.saturating_add(changed)
        } else {
            GLOBAL.sub(Field::Aliases, changed.into());
            before.saturating_sub(changed)
        };
        content.aliased.store(after, Relaxed);
        mark(self, after != 0);
        changed.into()
    }

    /// It is being evicted: its aliases do not count any more. No other one is noted.
    pub(super) fn end_aliases(&self) {
        // The bits go with the table; a reader that still looks at one finds no page.
        let aliased = self.content().aliased.xchg(0, Relaxed);
        GLOBAL.sub(Field::Aliases, aliased.into());
        mark(self, false);
    }

    /// These blocks are resident here, or nowhere else: they have no alias any more.
    pub(crate) fn forget_aliases(&self, blocks: Range<u64>) {
        if self.content().aliased() != 0 {
            self.set_aliases(blocks, false);
        }
    }
}
