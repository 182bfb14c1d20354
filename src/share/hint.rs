// SPDX-License-Identifier: GPL-2.0

//! Where the block index has last led from a shared inode, so that a reader of the blocks behind
//! need not ask it again. `tools/format/tests/loom_hint.rs` has a model of it.

use core::ptr::NonNull;

use kernel::sync::{
    atomic::{Atomic, Full, Relaxed, Release},
    rcu,
};

use super::{
    handle::Unheld,
    table::{order_loads, read_once},
};

/// How many shared inodes have left the index.
static GENERATION: Atomic<u64> = Atomic::new(0);

/// Which generation of the index this is.
pub(super) fn generation() -> u64 {
    read_once(&GENERATION)
}

/// Ends a generation: a shared inode has left the index, and the RCU grace period after which it is
/// freed has not begun.
pub(super) fn end_generation() {
    GENERATION.fetch_add(1, Full);
}

/// Where the block index has last led: to another shared inode, and by how far its block is behind
/// the one that was looked for. Readers look at it, and change it, without a lock.
///
/// It says where equal blocks may be, and no more: digests are compared before bytes are taken.
///
/// # Invariants
///
/// * While `version` is even and does not change, the other words are what one call of
///   [`Hint::set`] has written.
/// * `owner` was in the index after `generation` was current. So it is not freed before the end of
///   an RCU grace period that begins after [`generation`] has changed.
pub(super) struct Hint {
    /// 0: nothing is noted. Odd while the others are written.
    version: Atomic<u64>,
    generation: Atomic<u64>,
    owner: Atomic<u64>,
    distance: Atomic<u64>,
}

/// What the block index said, and which generation of it.
#[derive(Clone, Copy)]
pub(super) struct Lead<'a> {
    generation: u64,
    distance: u64,
    /// The other shared inode.
    pub(super) owner: &'a Unheld,
}

impl<'a> Lead<'a> {
    /// The index, whose generation before it was asked was `generation`, led from block `from` to
    /// block `to` of `owner`.
    pub(super) fn new(generation: u64, from: u64, (owner, to): (&'a Unheld, u64)) -> Self {
        Self {
            generation,
            distance: to.wrapping_sub(from),
            owner,
        }
    }

    /// The block of `owner` to which it leads from block `from`; there need not be one.
    #[inline(always)]
    pub(super) fn block(&self, from: u64) -> u64 {
        from.wrapping_add(self.distance)
    }
}

impl Hint {
    /// Nothing is noted.
    pub(super) fn new() -> Self {
        // INVARIANT: No words are valid.
        Self {
            version: Atomic::new(0),
            generation: Atomic::new(0),
            owner: Atomic::new(0),
            distance: Atomic::new(0),
        }
    }

    /// What is noted, if it is still good.
    pub(super) fn get<'a>(&self, _guard: &'a rcu::Guard) -> Option<Lead<'a>> {
        let version = read_once(&self.version);
        if version == 0 || version % 2 != 0 {
            return None;
        }
        order_loads();
        let generation = read_once(&self.generation);
        let owner = read_once(&self.owner) as *mut Unheld;
        let distance = read_once(&self.distance);
        order_loads();
        if read_once(&self.version) != version || generation != self::generation() {
            return None;
        }
        // SAFETY: By the type invariants the words belong together. The generation is current in a
        // section of RCU, so that a grace period that begins after it has changed ends behind this
        // section: the shared inode is not freed as long as there is the guard.
        let owner = unsafe { NonNull::new(owner)?.as_ref() };
        Some(Lead {
            generation,
            owner,
            distance,
        })
    }

    /// Notes it, unless another thread is about to note something.
    ///
    /// `lead` is what the index has said, or [`Hint::get`], in the section of RCU of the guard.
    pub(super) fn set(&self, lead: Lead<'_>, _guard: &rcu::Guard) {
        let version = read_once(&self.version);
        let writing = version.wrapping_add(1);
        if version % 2 != 0 || self.version.cmpxchg(version, writing, Full).is_err() {
            return;
        }
        // INVARIANT: `version` is odd, so that no other thread writes.
        self.generation.store(lead.generation, Relaxed);
        self.owner
            .store(core::ptr::from_ref(lead.owner) as u64, Relaxed);
        self.distance.store(lead.distance, Relaxed);
        self.version.store(writing.wrapping_add(1), Release);
    }
}
