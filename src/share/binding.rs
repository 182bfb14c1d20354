// SPDX-License-Identifier: GPL-2.0

//! What one real inode has verified of a shared inode.

use core::ops::Range;

use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{Arc, Mutex, SpinLock},
};

use super::{bits, window::Windows, SharedRef};
use crate::{
    io::wait::{cond_resched, Event},
    stats::{Counters, Field},
};

/// Shared inodes that a real inode may be bound to one after the other. After these it keeps to its
/// own page cache: it, or somebody before it, changes behind the mount all the time.
pub(crate) const MAX_BINDINGS: usize = 8;

/// Blocks between two offers to let others run.
const RESCHED: u64 = 1024;

/// A set of blocks: that of a file of up to 256 KiB needs no memory.
enum Set {
    Small(u64),
    Large(KVVec<u64>),
}

impl Set {
    /// An empty set, of up to `blocks`.
    fn new(blocks: u64) -> Result<Self> {
        let words = usize::try_from(bits::words(blocks))?;
        Ok(if words <= 1 {
            Self::Small(0)
        } else {
            Self::Large(KVVec::zeroed(words, GFP_KERNEL)?)
        })
    }

    fn words(&self) -> &[u64] {
        match self {
            Self::Small(word) => core::slice::from_ref(word),
            Self::Large(words) => words,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Small(word) => core::slice::from_mut(word),
            Self::Large(words) => words,
        }
    }

    /// Bytes that it takes by itself.
    fn bytes(&self) -> usize {
        match self {
            Self::Small(_) => 0,
            Self::Large(words) => words.len() * 8,
        }
    }
}

/// Which blocks have been verified.
enum Verified {
    /// All of them.
    All,
    /// Those in the set; `left` are not.
    Some { set: Set, left: u64 },
}

/// A real inode's tie to a shared inode.
#[pin_data(PinnedDrop)]
pub(crate) struct Binding {
    shared: SharedRef,
    /// Its memory is counted there.
    counters: Arc<Counters>,
    /// Taken for a few instructions; nothing is taken under it, nothing sleeps.
    #[pin]
    verified: SpinLock<Verified>,
    /// How far to verify ahead. Held while a window is opened (which starts I/O), never while waiting
    /// for one.
    #[pin]
    windows: Mutex<Ahead>,
}

/// Windows of blocks that are being verified.
pub(crate) struct Ahead {
    /// Their lengths.
    pub(crate) lengths: Windows,
    /// Those under way, at most two: that of the reader and the one ahead of it.
    pub(crate) under_way: [Option<Arc<Window>>; 2],
}

/// A range of blocks whose verification is under way.
#[pin_data]
pub(crate) struct Window {
    /// Which blocks.
    pub(crate) blocks: Range<u64>,
    /// Set once, when it is over.
    #[pin]
    pub(crate) over: Event,
}

impl Window {
    pub(crate) fn new(blocks: Range<u64>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                blocks,
                over <- Event::new(),
            }),
            GFP_KERNEL,
        )
    }
}

impl Binding {
    /// A new tie, with nothing verified, or all of it if its fingerprint is trusted.
    pub(crate) fn new(shared: SharedRef, counters: &Arc<Counters>) -> Result<Arc<Self>> {
        let id = *shared.identity();
        let blocks = id.blocks();
        let verified = if id.trusted {
            Verified::All
        } else {
            Verified::Some {
                set: Set::new(blocks)?,
                left: blocks,
            }
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                shared,
                counters: counters.clone(),
                verified <- new_spinlock!(verified, "erofs_shared::Binding::verified"),
                windows <- new_mutex!(Ahead {
                    lengths: Windows::new(),
                    under_way: [None, None],
                }, "erofs_shared::Binding::windows"),
            }),
            GFP_KERNEL,
        )?;
        this.shared.content().count_bound();
        if id.trusted {
            this.shared.content().count_verified(blocks);
        }
        this.counters.add(Field::MetadataBytes, this.bytes());
        Ok(this)
    }

    fn bytes(&self) -> u64 {
        let set = match &*self.verified.lock() {
            Verified::All => 0,
            Verified::Some { set, .. } => set.bytes(),
        };
        (set + core::mem::size_of::<Self>()) as u64
    }

    /// The shared inode.
    pub(crate) fn shared(&self) -> &SharedRef {
        &self.shared
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.shared.identity().blocks()
    }

    /// Windows being verified.
    pub(crate) fn windows(&self) -> &Mutex<Ahead> {
        &self.windows
    }

    /// Notes that these blocks have been verified. `true` if all are now.
    pub(crate) fn verify(&self, blocks: Range<u64>) -> bool {
        // Freed when the lock is not held any more.
        let mut gone = Set::Small(0);
        let mut verified = self.verified.lock();
        let Verified::Some { set, left } = &mut *verified else {
            return true;
        };
        let added = bits::insert(set.words_mut(), blocks);
        *left = left.saturating_sub(added);
        let all = *left == 0;
        if all {
            core::mem::swap(set, &mut gone);
            *verified = Verified::All;
        }
        drop(verified);
        self.shared.content().count_verified(added);
        let bytes = gone.bytes();
        if bytes != 0 {
            self.counters.sub(Field::MetadataBytes, bytes as u64);
        }
        all
    }

    /// How many blocks from `blocks.start` on, and below `blocks.end`, are verified without a gap.
    /// May be called in atomic context.
    pub(crate) fn run(&self, blocks: Range<u64>) -> u64 {
        match &*self.verified.lock() {
            Verified::All => blocks.end.saturating_sub(blocks.start),
            Verified::Some { set, .. } => bits::run(set.words(), blocks),
        }
    }

    /// Whether all of these blocks are verified; those behind the end of the file always are. May be
    /// called in atomic context.
    pub(crate) fn covers(&self, blocks: Range<u64>) -> bool {
        let end = blocks.end.min(self.blocks());
        let blocks = blocks.start.min(end)..end;
        self.run(blocks.clone()) == blocks.end - blocks.start
    }

    /// Whether all blocks are verified.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(&*self.verified.lock(), Verified::All)
    }

    /// Takes over what `old` has verified, except `but`, if nothing that is recorded here says
    /// otherwise. `Ok(false)`: something does.
    pub(crate) fn carry_over(&self, old: &Binding, but: u64) -> Result<bool> {
        let (from, to) = (old.shared.content(), self.shared.content());
        // First look, then record: a variant that does not fit is left as it was.
        for record in [false, true] {
            let mut block = 0;
            while block < self.blocks() {
                if block % RESCHED == 0 {
                    cond_resched();
                }
                let here = block;
                block += 1;
                if here == but || old.run(here..block) == 0 {
                    continue;
                }
                let Some(ours) = from.digest(here) else {
                    continue;
                };
                if !record {
                    if to.digest(here).is_some_and(|theirs| theirs != ours) {
                        return Ok(false);
                    }
                    continue;
                }
                match to.settle(&self.shared, here, core::slice::from_ref(&ours))? {
                    super::Settled::Agree { .. } => {
                        self.verify(here..block);
                    }
                    super::Settled::Differ { .. } => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}

#[pinned_drop]
impl PinnedDrop for Binding {
    fn drop(self: Pin<&mut Self>) {
        self.counters.sub(Field::MetadataBytes, self.bytes());
        let left = match &*self.verified.lock() {
            Verified::All => 0,
            Verified::Some { left, .. } => *left,
        };
        self.shared
            .content()
            .uncount(self.blocks().saturating_sub(left));
    }
}

/// The bindings of one real inode, the current one last. The earlier ones stay until the inode goes,
/// since somebody may be looking at them in atomic context, where the last reference must not be
/// dropped.
pub(crate) struct Slots {
    bindings: [Option<Arc<Binding>>; MAX_BINDINGS],
    count: usize,
    /// It keeps to its own page cache from now on.
    alone: bool,
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            bindings: [const { None }; MAX_BINDINGS],
            count: 0,
            alone: false,
        }
    }

    /// The current binding.
    pub(crate) fn current(&self) -> Option<&Arc<Binding>> {
        if self.alone {
            return None;
        }
        self.bindings.get(self.count.checked_sub(1)?)?.as_ref()
    }

    /// Makes a binding the current one. `false`, and the inode stays alone, when there were too many.
    pub(crate) fn push(&mut self, binding: &Arc<Binding>) -> bool {
        match self.bindings.get_mut(self.count) {
            Some(slot) if !self.alone => {
                *slot = Some(binding.clone());
                self.count += 1;
                true
            }
            _ => {
                self.alone = true;
                false
            }
        }
    }

    /// All bindings, of now and earlier.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.iter().flatten()
    }

    /// No sharing any more.
    pub(crate) fn leave(&mut self) {
        self.alone = true;
    }

    /// Whether it keeps to its own page cache for good.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }
}
