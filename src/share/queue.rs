// SPDX-License-Identifier: GPL-2.0

//! The queue of the merge worker. It takes no memory of its own: what is to be merged is linked
//! through the shared inodes.

use kernel::{
    prelude::*,
    time::{Instant, Monotonic},
};

use super::handle::SharedRef;

/// How often a block is tried that is in use.
pub(super) const TRIES: u32 = 4;

/// What is waiting, by how often it was tried.
pub(super) struct Queue {
    pub(super) rounds: [Round; TRIES as usize + 1],
}

/// What has been tried equally often, hence waits equally long.
pub(super) struct Round {
    /// The one that came last; each knows the one before it ([`Link`]).
    pub(super) last: Option<SharedRef>,
    /// When the first came. The others came later, but need not wait for themselves.
    pub(super) since: Option<Instant<Monotonic>>,
}

impl Round {
    const fn new() -> Self {
        Self {
            last: None,
            since: None,
        }
    }

    /// How many milliseconds it has to wait yet.
    pub(super) fn wait(&self, delay: u32) -> u32 {
        let waited = self.since.map_or(0, |since| since.elapsed().as_millis());
        delay.saturating_sub(u32::try_from(waited).unwrap_or(u32::MAX))
    }
}

/// What is behind a shared inode in the queue, which takes no memory of its own: what is to be
/// merged is never forgotten for want of some.
pub(super) struct Link(pub(super) Option<SharedRef>);

impl Link {
    pub(super) const fn new() -> Self {
        Self(None)
    }
}

kernel::sync::global_lock! {
    // SAFETY: `Merger::new` initialises it when the module is loaded, before there is anything to
    // merge.
    pub(super) unsafe(uninit) static QUEUE: Mutex<Queue> = Queue {
        rounds: [const { Round::new() }; TRIES as usize + 1],
    };
}
