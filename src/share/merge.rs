// SPDX-License-Identifier: GPL-2.0

//! Dropping pages that another place has, too: what fills a page cache tells of them ([`found`]), and
//! a worker drops them later ([`Merger`]).
//!
//! A file is merged when that is worth it: when one block in sixteen of it is elsewhere. The worker
//! waits for nothing: a page that is locked, mapped, or otherwise in use stays, and is tried again a few times.
//! A large folio that is only in part what another place has is broken up if that frees half of it: what
//! is unique is copied to smaller folios first. A folio that is used a lot is left alone.

use core::ops::Range;

use kernel::prelude::*;

use super::{alias, bits, SharedInode, SharedRef};
use crate::{
    io::{
        folio::FolioRef,
        folios::Folios,
        later::{Later, Run},
        wait::cond_resched,
    },
    stats::{Field, GLOBAL},
};

/// Milliseconds from the first twin that is found to the merge: a reader who goes through a file should
/// have what was read for it.
const DELAY: u32 = 200;

/// How often a block is tried that is in use.
const TRIES: u32 = 4;

/// A file is left alone of which fewer than one block in so many is a twin: reading what is in more than
/// one place costs more than reading what is in one.
const WORTH: u64 = 16;

/// Largest folio that is put in the place of a part of a larger one: 64 KiB.
const PART_ORDER: u32 = 4;

/// A shared inode whose twins are to be dropped.
struct Item {
    shared: SharedRef,
    tries: u32,
}

kernel::sync::global_lock! {
    // SAFETY: `Merger::new` initialises it when the module is loaded, before there is anything to merge.
    unsafe(uninit) static QUEUE: Mutex<KVec<Item>> = KVec::new();
}

/// The worker. Dropping it ends its work, and lets go of what is queued.
pub(super) struct Merger {
    _later: Later<Work>,
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
            _later: Later::new(),
        }
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        Later::<Work>::stop();
        // Not in the lock: letting go of an inode may sleep.
        let rest = core::mem::take(&mut *QUEUE.lock());
        rest.iter().for_each(|item| item.shared.content().dequeue());
    }
}

/// Blocks that are resident, or are about to be, are elsewhere, too.
pub(crate) fn found(shared: &SharedInode, blocks: Range<u64>) {
    if blocks.is_empty() {
        return;
    }
    shared.content().push_twins(blocks);
    if shared.content().enqueue() {
        put(shared.into(), 0);
    }
}

fn put(shared: SharedRef, tries: u32) {
    let mut queue = QUEUE.lock();
    let first = queue.is_empty();
    if queue.reserve(1, GFP_KERNEL).is_err() {
        drop(queue);
        // Its twins stay until more of them are found.
        shared.content().dequeue();
        return;
    }
    // There is room.
    let _ = queue.push_within_capacity(Item { shared, tries });
    drop(queue);
    if first {
        Later::<Work>::after(DELAY << tries.min(TRIES));
    }
}

/// Merges what is queued.
fn work() {
    let items = core::mem::take(&mut *QUEUE.lock());
    for item in items {
        item.shared.content().dequeue();
        let twins = item.shared.content().take_twins();
        let count: u64 = twins.iter().map(|blocks| blocks.end - blocks.start).sum();
        let aliased = item.shared.content().aliased();
        if count.saturating_add(aliased).saturating_mul(WORTH) < item.shared.identity().blocks() {
            // More may be found.
            for blocks in twins {
                item.shared.content().push_twins(blocks);
            }
            continue;
        }
        let mut busy = false;
        for blocks in &twins {
            busy |= merge(&item.shared, blocks.clone());
            cond_resched();
        }
        if busy && item.tries < TRIES && item.shared.content().enqueue() {
            put(item.shared, item.tries + 1);
        }
    }
}

/// Drops the pages of these blocks that are elsewhere. Tells whether something was in the way that may be
/// gone later; those blocks are twins still.
fn merge(shared: &SharedInode, blocks: Range<u64>) -> bool {
    let mut busy = false;
    let mut at = blocks.start;
    while at < blocks.end {
        let Some(folio) = shared.folio(at) else {
            at += 1;
            continue;
        };
        let pages = folio.pages();
        at = pages.end.max(at + 1);
        match merge_folio(shared, folio) {
            Merge::Done(dropped) => GLOBAL.add(Field::MergesDone, dropped),
            Merge::Nothing => {}
            Merge::Partly => GLOBAL.add(Field::MergesPartly, 1),
            Merge::Busy => {
                GLOBAL.add(Field::MergesBusy, 1);
                shared.content().push_twins(pages);
                busy = true;
            }
        }
        cond_resched();
    }
    busy
}

/// What became of a folio.
enum Merge {
    /// So many of its blocks are not resident any more.
    Done(u64),
    /// None of its blocks is elsewhere.
    Nothing,
    /// Too much of it is nowhere else.
    Partly,
    /// It is in use.
    Busy,
}

/// Words for the blocks of the largest folio.
const WORDS: usize = 1 << (super::inode::MAX_ORDER - 6);

fn merge_folio(shared: &SharedInode, folio: FolioRef) -> Merge {
    let pages = folio.pages();
    let blocks = pages.start..pages.end.min(shared.identity().blocks());
    if folio.is_mapped() {
        return Merge::Busy;
    }
    let mut twins = [0u64; WORDS];
    let mut count = 0;
    let mut at = blocks.start;
    while at < blocks.end {
        let run = alias::run(shared, at..blocks.end);
        let first = at - pages.start;
        count += bits::insert(&mut twins, first..first + run);
        at += run.max(1);
    }
    let all = blocks.end - blocks.start;
    if count == 0 {
        return Merge::Nothing;
    }
    if count == all {
        drop(folio);
        return drop_pages(shared, &pages, blocks);
    }
    if count * 2 < all || folio.is_hot() {
        return Merge::Partly;
    }
    let is_twin =
        |block: &u64| bits::run(&twins, *block - pages.start..*block - pages.start + 1) != 0;
    match copies(&folio, &blocks, is_twin) {
        Ok(parts) => {
            drop(folio);
            let merged = drop_pages(shared, &pages, blocks.filter(is_twin));
            if let Merge::Done(_) = merged {
                for (at, part) in parts {
                    shared.give(at, part);
                }
            }
            merged
        }
        Err(_) => Merge::Partly,
    }
}

/// Copies of what of a folio is nowhere else, each with its first block.
fn copies(
    folio: &FolioRef,
    blocks: &Range<u64>,
    is_twin: impl Fn(&u64) -> bool,
) -> Result<KVec<(u64, Folios)>> {
    let first = folio.pages().start;
    let mut parts = KVec::new();
    let mut at = blocks.start;
    while at < blocks.end {
        let run = (at..blocks.end).take_while(|block| !is_twin(block)).count() as u64;
        if run != 0 {
            let mut part = Folios::scratch(at, run, PART_ORDER)?;
            let offset = usize::try_from((at - first) << super::BLOCK_SHIFT)?;
            part.copy_from(folio.bytes().get(offset..).ok_or(EIO)?);
            parts.push((at, part), GFP_KERNEL)?;
        }
        at += run.max(1);
    }
    Ok(parts)
}

/// Drops pages that make up a folio, of which `twins` are elsewhere.
fn drop_pages(
    shared: &SharedInode,
    pages: &Range<u64>,
    twins: impl Iterator<Item = u64> + Clone,
) -> Merge {
    // The note comes first: who finds no page looks for it.
    let noted = shared.content().set_aliases(twins.clone(), true);
    if shared.drop_pages(pages.clone()) {
        return Merge::Done(noted);
    }
    shared.content().set_aliases(twins, false);
    Merge::Busy
}
