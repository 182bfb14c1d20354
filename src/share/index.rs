// SPDX-License-Identifier: GPL-2.0

//! The block index: from a digest (and a domain) to the one place where a block with it is kept.
//!
//! One for the module: red-black trees, chosen by bits of the digest, each with a lock of its own that
//! is held for one descent. A node is 32 bytes: the digest itself lies with its shared inode.
//!
//! Entries hold no references. A shared inode takes its own out before it is freed ([`leave`]), and is
//! freed an RCU grace period later: what is found is valid as long as the reader's RCU guard is.

use core::{ops::Range, pin::Pin};

use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        atomic::{Atomic, Relaxed},
        rcu, SpinLock,
    },
};

use super::{alias, merge, table::Entry, SharedInode};
use crate::{
    io::{memcg::CHARGED, wait::cond_resched},
    stats::{Field, GLOBAL},
};

/// Trees. Ten million blocks are some 2,400 in each.
const SHARDS: usize = 4096;

// A node: three pointers and the entry.
const _: () = assert!(size_of::<(kernel::bindings::rb_node, Entry)>() == 32);

type Tree = RBTree<Entry, ()>;

#[pin_data]
struct Shards {
    #[pin]
    trees: [SpinLock<Tree>; SHARDS],
}

/// The index, while the module is loaded.
static SHARDS_NOW: Atomic<*mut Shards> = Atomic::new(core::ptr::null_mut());

/// The index. Dropped after all shared inodes are gone, hence empty.
///
/// # Invariants
///
/// `SHARDS_NOW` points to what this holds.
pub(super) struct Index {
    _shards: Pin<KBox<Shards>>,
}

impl Index {
    /// Makes it. There is one at a time: that of the module.
    pub(super) fn new() -> Result<Self> {
        let shards = KBox::pin_init(
            pin_init!(Shards {
                trees <- pin_init::pin_init_array_from_fn(
                    |_| new_spinlock!(Tree::new(), "erofs_shared::Index")
                ),
            }),
            GFP_KERNEL,
        )?;
        SHARDS_NOW.store(core::ptr::from_ref(&*shards).cast_mut(), Relaxed);
        Ok(Self { _shards: shards })
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        SHARDS_NOW.store(core::ptr::null_mut(), Relaxed);
    }
}

/// The tree for an entry.
fn tree(entry: Entry) -> Option<&'static SpinLock<Tree>> {
    trees()?.get(entry.hash() % SHARDS)
}

fn trees() -> Option<&'static [SpinLock<Tree>; SHARDS]> {
    // SAFETY: It is null, or the index of the module, which is there as long as there are shared
    // inodes; who calls this has one, or is a shrinker that goes before the index does.
    unsafe { SHARDS_NOW.load(Relaxed).as_ref() }.map(|shards| &shards.trees)
}

/// Enters blocks that are resident and have digests. Those that another place has, which is resident, are
/// left for the merge worker; places that are not resident any more give way. May sleep.
pub(crate) fn enter_all(shared: &SharedInode, blocks: Range<u64>) -> Result {
    let mut twins = 0..0;
    let mut result = Ok(());
    let mut at = blocks.start;
    let mut new = 0;
    while at < blocks.end && result.is_ok() {
        let run = alias::zeros(shared, at..blocks.end);
        let run = if run != 0 {
            run
        } else {
            match enter(shared, at) {
                Ok(Entered::New) => {
                    new += 1;
                    0
                }
                Ok(Entered::Instead) => 0,
                // What follows it there is likely to follow it here.
                Ok(Entered::Elsewhere) => alias::run(shared, at..blocks.end).max(1),
                Err(err) => {
                    result = Err(err);
                    0
                }
            }
        };
        if run != 0 {
            if twins.end != at {
                merge::found(shared, twins);
                twins = at..at;
            }
            twins.end = at + run;
        }
        at += run.max(1);
    }
    merge::found(shared, twins);
    if new != 0 {
        GLOBAL.add(Field::IndexEntries, new);
    }
    result
}

/// What became of a block that was to be entered.
enum Entered {
    /// It is in the index, which had nothing for its digest.
    New,
    /// It is in the index, in the place of itself or of one that is not resident.
    Instead,
    /// Another one with its digest is there, and resident.
    Elsewhere,
}

fn enter(shared: &SharedInode, block: u64) -> Result<Entered> {
    let entry = shared.content().entry(block).ok_or(ENOENT)?;
    let node = RBTreeNode::new(entry, (), CHARGED)?;
    let mut tree = tree(entry).ok_or(ENOENT)?.lock();
    let Some(old) = tree.insert(node) else {
        return Ok(Entered::New);
    };
    let (before, ()) = old.to_key_value();
    // The shared inode of an entry in the tree is there, and stays: it takes its entries out under
    // the lock of the tree.
    let (owner, at) = before.target();
    if before.is(entry) || !owner.is_resident(at) {
        return Ok(Entered::Instead);
    }
    // Back to what was there.
    if let Some(ours) = tree.remove_node(&entry) {
        tree.insert(ours.into_reservation().into_node(before, ()));
    }
    Ok(Entered::Elsewhere)
}

/// Another place that has the digest of a block, valid as long as the guard.
pub(crate) fn find<'a>(
    shared: &SharedInode,
    block: u64,
    _guard: &'a rcu::Guard,
) -> Option<(&'a SharedInode, u64)> {
    let entry = shared.content().entry(block)?;
    let tree = tree(entry)?.lock();
    let cursor = tree.cursor_lower_bound(&entry)?;
    let (found, ()) = cursor.current();
    (*found == entry && !found.is(entry)).then(|| found.target())
}

/// Takes a shared inode's entries out. It is being evicted; nobody enters any of its blocks any more.
pub(super) fn leave(shared: &SharedInode) {
    for blocks in shared.content().chunks() {
        let mut removed = 0;
        for block in blocks {
            let Some(entry) = shared.content().entry(block) else {
                continue;
            };
            let Some(tree) = tree(entry) else {
                return;
            };
            let mut tree = tree.lock();
            let cursor = tree.cursor_lower_bound_mut(&entry);
            if let Some(cursor) = cursor.filter(|cursor| cursor.current().0.is(entry)) {
                let (_, node) = cursor.remove_current();
                drop(tree);
                drop(node);
                removed += 1;
            }
        }
        GLOBAL.sub(Field::IndexEntries, removed);
        cond_resched();
    }
}

/// Entries now.
pub(super) fn count() -> u64 {
    GLOBAL.get(Field::IndexEntries)
}

/// Where the last [`shrink`] ended.
static NEXT: Atomic<u64> = Atomic::new(0);

/// Looks at about `want` entries, and takes those out whose blocks are not resident: they cost a
/// look, and a new entry, if they ever are again. Returns how many it looked at and took out.
pub(super) fn shrink(want: u64) -> (u64, u64) {
    let (mut looked, mut removed) = (0, 0);
    let Some(trees) = trees() else {
        return (0, 0);
    };
    for _ in 0..SHARDS {
        if looked >= want {
            break;
        }
        let at = NEXT.fetch_add(1, Relaxed) as usize % SHARDS;
        let Some(shard) = trees.get(at) else {
            break;
        };
        let mut tree = shard.lock();
        let mut cursor = tree.cursor_front_mut();
        while let Some(here) = cursor {
            looked += 1;
            let (owner, block) = here.current().0.target();
            if owner.is_resident(block) {
                cursor = here.move_next();
            } else {
                removed += 1;
                (cursor, _) = here.remove_current();
            }
        }
    }
    GLOBAL.sub(Field::IndexEntries, removed);
    (looked, removed)
}
