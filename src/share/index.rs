// SPDX-License-Identifier: GPL-2.0

//! The block index: from a digest (and a domain) to the one place where a block with it is kept.
//!
//! One for the module: red-black trees, chosen by a secret hash of the digest, each with a lock of
//! its own that is held for one descent, or for a few entries. A node is 32 bytes: the digest
//! itself lies with its shared inode.
//!
//! Entries hold no references. A shared inode takes its own out before it is freed ([`leave`]), and
//! is freed an RCU grace period later: what is found is valid as long as the reader's RCU guard is.

use core::{pin::Pin, ptr::NonNull};

use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        atomic::{Atomic, Relaxed},
        rcu, SpinLock,
    },
};

use super::{
    entry::{IndexEntry, Probe, Start},
    handle::{SharedInode, Unheld},
    hint::{self, Lead},
    table::DigestSlot,
};
use crate::{
    bindings,
    io::{memcg::CHARGED, wait::cond_resched},
    race::race_point,
    stats::{Field, GLOBAL},
};

/// Trees. Ten million blocks are some 2,400 in each.
const SHARDS: usize = 4096;

/// Entries that [`Shards::shrink`] looks at while it holds a lock.
const BATCH: u64 = 64;

// A node: three pointers and the entry.
const _: () = assert!(size_of::<(bindings::rb_node, IndexEntry)>() == 32);

/// One of the trees.
struct Shard {
    tree: RBTree<IndexEntry, ()>,
    /// The first word of the digest at which the last look for what can go ended.
    next: u64,
}

/// All trees.
#[pin_data]
pub(super) struct Shards {
    #[pin]
    all: [SpinLock<Shard>; SHARDS],
    /// What chooses the tree of a digest, unknown to the maker of an image: else blocks could be
    /// made for one tree, so that all others wait for its lock.
    secret: [u64; 4],
    /// The tree that [`Shards::shrink`] looks at, of all that it has ever looked at.
    turn: Atomic<u64>,
}

/// The index, while the module is loaded.
static SHARDS_NOW: Atomic<*mut Shards> = Atomic::new(core::ptr::null_mut());

/// The index. Dropped after all shared inodes are gone, hence empty.
///
/// # Invariants
///
/// `SHARDS_NOW` points to what this holds.
pub(super) struct Index {
    shards: Pin<KBox<Shards>>,
}

impl Index {
    /// Makes it. There is one at a time: that of the module.
    pub(super) fn new() -> Result<Self> {
        let shards = KBox::pin_init(
            pin_init!(Shards {
                all <- pin_init::pin_init_array_from_fn(|_| new_spinlock!(
                    Shard { tree: RBTree::new(), next: 0 },
                    "erofs_shared::Index"
                )),
                secret: secret(),
                turn: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?;
        SHARDS_NOW.store(core::ptr::from_ref(&*shards).cast_mut(), Relaxed);
        Ok(Self { shards })
    }

    /// Its trees.
    pub(super) fn shards(&self) -> &Shards {
        &self.shards
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        SHARDS_NOW.store(core::ptr::null_mut(), Relaxed);
    }
}

/// Random words.
fn secret() -> [u64; 4] {
    let mut words = [0u64; 4];
    // SAFETY: The memory is ours, and as long as is said; any bytes make a number.
    unsafe { bindings::get_random_bytes(words.as_mut_ptr().cast(), size_of_val(&words)) };
    words
}

/// The trees of the index in which the blocks of a shared inode are.
fn shards(_witness: &Unheld) -> Option<&Shards> {
    // SAFETY: It is null, or the index of the module, which goes after all shared inodes: it
    // outlives the borrow of this one.
    unsafe { SHARDS_NOW.load(Relaxed).as_ref() }
}

impl Shards {
    /// The tree for an entry. Two digests that are chosen without knowing the secret fall into the
    /// same one with a probability of about one in [`SHARDS`]: the sum is a universal hash, whose
    /// upper bits are the good ones.
    fn of(&self, entry: &IndexEntry) -> &SpinLock<Shard> {
        let pairs = entry.words().iter().zip(&self.secret);
        let sum = pairs.fold(0u64, |sum, (word, secret)| {
            sum.wrapping_add(word.wrapping_mul(*secret))
        });
        &self.all[(sum >> (u64::BITS - SHARDS.ilog2())) as usize]
    }
}

/// What became of a block that was to be entered.
pub(super) enum Entered {
    /// It is in the index, which had nothing for its digest.
    New,
    /// It is in the index, in the place of itself or of one that is not resident.
    Instead,
    /// Another one with its digest is there, and resident.
    Elsewhere,
}

/// Enters a block that is resident and has a digest, unless another one is there, which is
/// resident.
pub(super) fn enter(shared: &SharedInode, block: u64) -> Result<Entered> {
    let entry = || Probe::of(shared, block).ok_or(ENOENT);
    let probe = entry()?;
    // SAFETY: It goes into the tree; `leave` takes it out.
    let node = RBTreeNode::new(unsafe { entry()?.into_entry() }, (), CHARGED)?;
    race_point!(c"index_enter");
    let mut shard = shards(shared).ok_or(ENOENT)?.of(&probe).lock();
    let tree = &mut shard.tree;
    let Some(old) = tree.insert(node) else {
        return Ok(Entered::New);
    };
    // It is not used longer than the lock is held, in which its shared inode would leave.
    let (before, ()) = old.to_key_value();
    let resident = |(owner, at): (&Unheld, u64)| owner.is_resident(at);
    if before.is(&probe) || !before.target().is_some_and(resident) {
        return Ok(Entered::Instead);
    }
    // Back to what was there.
    if let Some(ours) = tree.remove_node(&probe) {
        tree.insert(ours.into_reservation().into_node(before, ()));
    }
    Ok(Entered::Elsewhere)
}

/// Where another block with the digest of a block is, valid as long as the guard.
pub(super) fn find<'a>(shared: &Unheld, block: u64, _guard: &'a rcu::Guard) -> Option<Lead<'a>> {
    let probe = Probe::of(shared, block)?;
    let generation = hint::generation();
    let shard = shards(shared)?.of(&probe).lock();
    let cursor = shard.tree.cursor_lower_bound(&probe)?;
    let (found, ()) = cursor.current();
    if *found != *probe || found.is(&probe) {
        return None;
    }
    let (owner, at) = found.target()?;
    // SAFETY: The shared inode was in the index, under the lock. It is freed a grace period after
    // it left, which is still to come: not before the guard is gone.
    let owner = unsafe { NonNull::from(owner).as_ref() };
    Some(Lead::new(generation, block, (owner, at)))
}

/// Whether the place that the index has for the digest of a block is that block itself.
pub(super) fn has(shared: &Unheld, block: u64) -> bool {
    let slot = shared.content().slots(block).first();
    if slot.is_none_or(DigestSlot::is_zeros) {
        return false;
    }
    let (Some(probe), Some(shards)) = (Probe::of(shared, block), shards(shared)) else {
        return false;
    };
    let shard = shards.of(&probe).lock();
    let cursor = shard.tree.cursor_lower_bound(&probe);
    cursor.is_some_and(|cursor| cursor.current().0.is(&probe))
}

/// Takes out the entries of a shared inode that is being evicted: none of its blocks is entered any
/// more.
pub(super) fn leave(shared: &Unheld) {
    let Some(shards) = shards(shared) else {
        return;
    };
    for blocks in shared.content().chunks() {
        let mut removed = 0;
        for block in blocks {
            // Zeros are never entered.
            let slot = shared.content().slots(block).first();
            if slot.is_none_or(DigestSlot::is_zeros) {
                continue;
            }
            let Some(probe) = Probe::of(shared, block) else {
                continue;
            };
            let mut shard = shards.of(&probe).lock();
            let cursor = shard.tree.cursor_lower_bound_mut(&probe);
            if let Some(cursor) = cursor.filter(|cursor| cursor.current().0.is(&probe)) {
                let (_, node) = cursor.remove_current();
                drop(shard);
                drop(node);
                removed += 1;
            }
        }
        GLOBAL.sub(Field::IndexEntries, removed);
        cond_resched();
    }
    hint::end_generation();
}

/// Entries now.
pub(super) fn count() -> u64 {
    GLOBAL.get(Field::IndexEntries)
}

impl Shards {
    /// Scans about `want` entries, and removes those whose block is not resident; they are entered
    /// again when it is next read. Starts where it ended the last time. Returns how many it looked
    /// at and how many it removed. Holds a lock for no more than [`BATCH`] of them.
    pub(super) fn shrink(&self, want: u64) -> (u64, u64) {
        let (mut looked, mut removed, mut passed) = (0, 0, 0);
        while looked < want && passed < SHARDS {
            let turn = self.turn.load(Relaxed);
            let Some(shard) = self.all.get(turn as usize % SHARDS) else {
                break;
            };
            let (here, gone, over) = shard.lock().shrink((want - looked).min(BATCH));
            looked += here;
            removed += gone;
            if over {
                passed += 1;
                // Another task that shrinks may have seen the end of it, too.
                let _ = self.turn.cmpxchg(turn, turn.wrapping_add(1), Relaxed);
            }
        }
        GLOBAL.sub(Field::IndexEntries, removed);
        (looked, removed)
    }
}

impl Shard {
    /// As [`Shards::shrink`], in one tree; and whether its end was reached.
    fn shrink(&mut self, want: u64) -> (u64, u64, bool) {
        let (mut looked, mut removed) = (0, 0);
        let start = Start::new(self.next);
        let mut cursor = self.tree.cursor_lower_bound_mut(&Probe::at(&start));
        let mut word = self.next;
        while let Some(here) = cursor {
            let (entry, ()) = here.current();
            if looked == want {
                // Entries of many domains may have the same digest. What is left of them has to
                // wait for the next round: each look ends at a greater word than the one before.
                self.next = match entry.words()[0] {
                    next if next != word => next,
                    next => next.wrapping_add(1),
                };
                return (looked, removed, self.next == 0);
            }
            looked += 1;
            word = entry.words()[0];
            let resident = |(owner, block): (&Unheld, u64)| owner.is_resident(block);
            if entry.target().is_some_and(resident) {
                cursor = here.move_next();
            } else {
                removed += 1;
                (cursor, _) = here.remove_current();
            }
        }
        self.next = 0;
        (looked, removed, true)
    }
}
