// SPDX-License-Identifier: GPL-2.0

//! Dropping pages that another place has, too: what fills a page cache tells of them ([`found`]),
//! and a worker drops them later ([`Merger`]).
//!
//! A file is merged when that is worth it: when one block in sixteen of it is elsewhere. The worker
//! waits for nothing: a page that is locked, mapped, or otherwise in use stays, and is tried again
//! a few times. A large folio that is only in part what another place has is broken up if that
//! frees a third of it: what is unique is copied to smaller folios first. A folio that is used a
//! lot is left alone.

use core::ops::Range;

use kernel::{prelude::*, time::Instant};

use super::{
    alias, bits,
    content::MergeCandidates,
    digest::{Sha256, BLOCK_SHIFT, BLOCK_SIZE},
    handle::{SharedInode, SharedRef, MAX_ORDER},
    index,
    queue::{Round, QUEUE, TRIES},
    sha256::KernelSha256,
};
use crate::{
    io::{
        delayed_work::{DelayedWork, Run},
        folio::FolioRef,
        folio_list::FolioList,
        memcg::Payer,
        sort::sort_by_start,
        wait::cond_resched,
    },
    race::race_point,
    stats::{Field, GLOBAL},
};

/// Milliseconds from the first duplicate that is found to the merge: what was read for a sequential
/// reader stays until it has been used.
const DELAY: u32 = 200;

/// Merge a file only if at least one block in this number is a duplicate: a file that is scattered
/// over several mappings is slower to read.
const WORTH: u64 = 16;

/// Break up a large folio only if at least one block in this number is a duplicate: the others are
/// copied.
const WORTH_COPIES: u64 = 3;

/// Largest folio that is put in the place of a part of a larger one: 64 KiB.
const PART_ORDER: u32 = 4;

/// The worker. Dropping it ends its work, and lets go of what is queued.
pub(super) struct Merger {
    _later: DelayedWork<Work>,
}

struct Work;

impl Run for Work {
    fn run() {
        work();
    }
}

impl Merger {
    /// Starts it. Once in the life of the module.
    pub(super) fn new() -> Self {
        // SAFETY: By this function's documentation.
        unsafe { QUEUE.init() };
        Self {
            _later: DelayedWork::new(),
        }
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        DelayedWork::<Work>::cancel_sync();
        for round in 0..=TRIES {
            let mut next = take(round, |_| true);
            while let Some(shared) = next {
                next = unlink(&shared);
                shared.content().dequeue();
            }
        }
    }
}

/// Blocks that are resident, or are about to be, are elsewhere, too.
pub(crate) fn found(shared: &SharedInode, blocks: Range<u64>) {
    if blocks.is_empty() {
        return;
    }
    shared.content().add_merge_candidates(blocks);
    if shared.content().enqueue() {
        put(shared.into(), 0);
    }
}

/// Milliseconds that what was tried so often has to wait.
fn delay(tries: u32) -> u32 {
    DELAY << tries.min(TRIES)
}

fn put(shared: SharedRef, tries: u32) {
    let mut queue = QUEUE.lock();
    let Some(round) = queue.rounds.get_mut(tries as usize) else {
        return;
    };
    GLOBAL.add(Field::MergesWaiting, 1);
    let before = round.last.take();
    let first = before.is_none();
    if first {
        round.since = Some(Instant::now());
    }
    round.last = Some(shared.clone());
    // It is in no queue, so there is nothing behind it.
    shared.content().link().as_mut(&mut queue).0 = before;
    drop(queue);
    if first {
        DelayedWork::<Work>::queue(delay(tries));
    }
}

/// Takes all of a round, if it `may` be: the last one, to which the others are linked.
fn take(tries: u32, may: impl FnOnce(&Round) -> bool) -> Option<SharedRef> {
    let mut queue = QUEUE.lock();
    let round = queue.rounds.get_mut(tries as usize)?;
    if may(round) {
        round.last.take()
    } else {
        None
    }
}

/// Takes what is behind it in the queue, so that it may be put there again.
fn unlink(shared: &SharedInode) -> Option<SharedRef> {
    shared.content().link().as_mut(&mut QUEUE.lock()).0.take()
}

/// Merges what has waited long enough.
fn work() {
    let mut again = None;
    for tries in 0..=TRIES {
        let mut wait = 0;
        let mut next = take(tries, |round| {
            wait = round.last.as_ref().map_or(0, |_| round.wait(delay(tries)));
            wait == 0
        });
        if wait != 0 {
            again = Some(again.map_or(wait, |other: u32| other.min(wait)));
        }
        while let Some(shared) = next {
            next = unlink(&shared);
            merge_file(shared, tries);
            // If it waits again, it has been counted again.
            GLOBAL.sub(Field::MergesWaiting, 1);
            cond_resched();
        }
    }
    if let Some(wait) = again {
        DelayedWork::<Work>::queue(wait);
    }
}

/// Merges what is known of one file, unless it is too little.
fn merge_file(shared: SharedRef, tries: u32) {
    let content = shared.content();
    content.dequeue();
    let MergeCandidates {
        mut ranges,
        more,
        more_count,
    } = content.take_merge_candidates(shared.blocks());
    sort_by_start(&mut ranges);
    // Each block once, though it may have been found more often.
    let mut end = 0;
    let mut count = more_count;
    for blocks in &mut ranges {
        blocks.start = blocks.start.max(end);
        blocks.end = blocks.end.max(blocks.start);
        end = blocks.end;
        count = count.saturating_add(blocks.end - blocks.start);
    }
    let all = count.saturating_add(content.aliased());
    if all.saturating_mul(WORTH) < shared.blocks() {
        // More may be found.
        for blocks in Iterator::chain(ranges.into_iter(), [more]) {
            put_back(&shared, blocks);
            cond_resched();
        }
        return;
    }
    let mut busy = false;
    for blocks in Iterator::chain(ranges.into_iter(), [more]) {
        busy |= merge(&shared, blocks);
        cond_resched();
    }
    if busy && tries < TRIES && content.enqueue() {
        put(shared, tries + 1);
    }
}

/// Leaves blocks for another time: what that takes is charged to the cgroup that was charged for
/// the first page that is resident. If none is, they are found anew when they are read in.
fn put_back(shared: &SharedInode, blocks: Range<u64>) {
    let Some(next) = shared.next_cached(blocks.clone()) else {
        return;
    };
    let payer = shared.folio(next).map(|folio| Payer::of(&folio));
    let _paying = payer.as_ref().map(Payer::pays);
    shared.content().add_merge_candidates(blocks);
}

/// Drops the pages of these blocks that are elsewhere. Tells whether something was in the way that
/// may be gone later; those blocks are duplicates still.
fn merge(shared: &SharedInode, blocks: Range<u64>) -> bool {
    let mut busy = false;
    let mut at = blocks.start;
    while let Some(next) = shared.next_cached(at..blocks.end) {
        cond_resched();
        at = next + 1;
        let Some(folio) = shared.sound_folio(next) else {
            continue;
        };
        let pages = folio.pages();
        at = pages.end.max(at);
        match merge_folio(shared, folio) {
            Merge::Done(dropped) => GLOBAL.add(Field::BlocksMerged, dropped),
            Merge::Nothing => {}
            Merge::Partly => GLOBAL.add(Field::MergeSkipped, 1),
            Merge::Busy => {
                GLOBAL.add(Field::MergeBusy, 1);
                put_back(shared, pages);
                busy = true;
            }
        }
    }
    busy
}

/// What became of a folio.
enum Merge {
    /// This number of its blocks are not resident any more.
    Done(u64),
    /// None of its blocks is elsewhere.
    Nothing,
    /// Too much of it is nowhere else.
    Partly,
    /// It is in use.
    Busy,
}

/// Words for the blocks of the largest folio.
const WORDS: usize = 1 << (MAX_ORDER - 6);

fn merge_folio(shared: &SharedInode, folio: FolioRef) -> Merge {
    let pages = folio.pages();
    let blocks = pages.start..pages.end.min(shared.blocks());
    if folio.is_mapped() {
        return Merge::Busy;
    }
    let (duplicates, count) = duplicates_in(shared, &blocks);
    let all = blocks.end.saturating_sub(blocks.start);
    if count == 0 {
        return Merge::Nothing;
    }
    if count == all {
        drop(folio);
        race_point!(c"merge_decided");
        return drop_pages(shared, &pages, blocks);
    }
    if count.saturating_mul(WORTH_COPIES) < all || folio.is_hot() {
        return Merge::Partly;
    }
    let is_duplicate = |block: &u64| {
        bits::leading_ones(&duplicates, *block - pages.start..*block - pages.start + 1) != 0
    };
    let Ok(parts) = copies(&folio, &blocks, is_duplicate) else {
        return Merge::Partly;
    };
    // What is left, and what is kept of it, is charged to the cgroup that was charged for the
    // whole, not to the worker.
    let payer = Payer::of(&folio);
    let _paying = payer.pays();
    let unique = blocks.clone().filter(|block| !is_duplicate(block));
    let Some(recorded) = Recorded::of(shared, &folio, unique) else {
        return Merge::Busy;
    };
    drop(folio);
    let merged = drop_pages(shared, &pages, blocks.filter(is_duplicate));
    race_point!(c"merge_give");
    if let Merge::Done(_) = merged {
        for (at, part) in parts {
            // SAFETY: A copy of what was resident there, hence has the digests that were recorded
            // by then. Blocks with others do not stay; those without any are verified by none.
            unsafe { shared.give(at, part, |blocks| recorded.is_as_before(shared, blocks)) };
        }
    }
    merged
}

/// Those of a folio's blocks that are elsewhere, from the first on (see [`bits`]), and how many.
fn duplicates_in(shared: &SharedInode, blocks: &Range<u64>) -> ([u64; WORDS], u64) {
    let mut duplicates = [0; WORDS];
    let mut count = 0;
    let mut at = blocks.start;
    while at < blocks.end {
        let run = alias::present_prefix(shared, at..blocks.end);
        for block in at..at + run {
            // The first of a run was found in the index; what follows it need not be. If the index
            // has the block itself, it stays: others find it there, and what it equals may go for
            // its sake.
            if block == at || !index::has(shared, block) {
                let first = block - blocks.start;
                count += bits::insert(&mut duplicates, first..first + 1);
            }
        }
        at += run.max(1);
    }
    (duplicates, count)
}

/// Which of a folio's blocks had a digest when it was dropped, which says whether copies of its
/// pages may take their place again. Meanwhile other images' pages may have been there, have been
/// verified, and have left: then the block has a digest (invariant I3 of
/// `Documentation/verify.md`). A digest that a block had before does not change, and all pages that
/// come in have it.
struct Recorded {
    /// The first block of the folio.
    first: u64,
    /// A bit for each block from `first` on: see [`bits`].
    set: [u64; WORDS],
}

impl Recorded {
    /// That of a resident folio's `blocks`. If there are many users, blocks without a digest get
    /// one first, since they may be verified. `None`: the folio has left the page cache, or there
    /// is no memory. May sleep.
    fn of(
        shared: &SharedInode,
        folio: &FolioRef,
        blocks: impl Iterator<Item = u64>,
    ) -> Option<Self> {
        let (content, first) = (shared.content(), folio.pages().start);
        let many = content.usage().is_many_exactly();
        let mut set = [0; WORDS];
        for block in blocks {
            if many && !content.is_recorded(block) {
                let offset = usize::try_from((block - first) << BLOCK_SHIFT).ok()?;
                let bytes = folio.bytes().get(offset..)?.get(..BLOCK_SIZE)?;
                let digest = KernelSha256::digest(bytes);
                GLOBAL.add(Field::BlocksHashed, 1);
                shared.record_resident(block, bytes, &digest).ok()?;
            }
            if content.is_recorded(block) {
                bits::insert(&mut set, block - first..block - first + 1);
            }
        }
        // It has been there all the time, so that the digests are those of its pages.
        let there = shared.folio(first)?;
        (there.as_ptr() == folio.as_ptr()).then_some(Self { first, set })
    }

    /// Whether no other blocks of these have a digest now. They are in the page cache, locked, so
    /// that none gets one meanwhile.
    fn is_as_before(&self, shared: &SharedInode, mut blocks: Range<u64>) -> bool {
        blocks.all(|block| {
            let at = block.saturating_sub(self.first);
            let before = bits::leading_ones(&self.set, at..at + 1) != 0;
            shared.content().is_recorded(block) == before
        })
    }
}

/// Copies of what of a folio is nowhere else, each with its first block.
fn copies(
    folio: &FolioRef,
    blocks: &Range<u64>,
    is_duplicate: impl Fn(&u64) -> bool,
) -> Result<KVec<(u64, FolioList)>> {
    let first = folio.pages().start;
    let mut parts = KVec::new();
    let mut at = blocks.start;
    while at < blocks.end {
        let run = (at..blocks.end)
            .take_while(|block| !is_duplicate(block))
            .count() as u64;
        if run != 0 {
            let mut part = FolioList::for_cache(at, run, PART_ORDER)?;
            let offset = usize::try_from((at - first) << BLOCK_SHIFT)?;
            part.copy_from(folio.bytes().get(offset..).ok_or(EIO)?);
            parts.push((at, part), GFP_KERNEL)?;
        }
        at += run.max(1);
    }
    Ok(parts)
}

/// Drops pages that make up a folio, of which `duplicates` are elsewhere.
fn drop_pages(
    shared: &SharedInode,
    pages: &Range<u64>,
    duplicates: impl Iterator<Item = u64> + Clone,
) -> Merge {
    // Set the alias bits before the pages are dropped: a reader that finds no page looks at the
    // bits.
    let noted = shared.set_aliases(duplicates.clone(), true);
    race_point!(c"merge_noted");
    if shared.drop_pages(pages.clone()) {
        return Merge::Done(noted);
    }
    race_point!(c"merge_busy");
    shared.set_aliases(duplicates, false);
    Merge::Busy
}
