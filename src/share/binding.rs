// SPDX-License-Identifier: GPL-2.0

//! What one real inode has verified of a shared inode.

use core::ops::Range;

use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{Arc, Mutex, SpinLock},
};

use super::{
    set::{bytes_of, Memory, Prepared, Set},
    usage::{SoleRead, User},
    window::Windows,
    SharedRef, Verify,
};
use crate::{
    compat::code::ESTALE,
    io::{
        memcg::{has_room, CHARGED},
        wait::Event,
    },
    stats::{Counters, Field},
};

/// Shared inodes whose mappings files of one real inode may have, beside that of the current one.
/// After these it keeps to its own page cache.
const MAX_FORMER: usize = 7;

/// How often a real inode leaves a shared inode. After that it keeps to its own page cache: its
/// image, or one that was read before, changes behind the mount all the time.
const MAX_LEFT: u32 = 64;

/// Windows of one real inode under way at once. A reader that needs another one waits: so no block
/// is read twice, and the memory for them is bounded, however many threads read.
const MAX_WINDOWS: usize = 8;

/// Which blocks have been verified.
enum Verified {
    /// All of them.
    All,
    /// The real inode is the only one, and all that is resident was read through it:
    /// [`super::usage`].
    Sole,
    /// Those in the set; `left` are not.
    Some { set: Set, left: u64 },
    /// The real inode has left the shared inode: nothing is verified, nor will be.
    Gone,
}

impl Verified {
    /// Bytes that it takes beside itself.
    fn bytes(&self) -> u64 {
        match self {
            Self::Some { set, .. } => bytes_of(set),
            Self::All | Self::Sole | Self::Gone => 0,
        }
    }
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
    /// How far to verify ahead. Held while a window is opened (which starts I/O), never while
    /// waiting for one.
    #[pin]
    windows: Mutex<Ahead>,
}

/// Windows of blocks that are being verified.
pub(crate) struct Ahead {
    /// Their lengths.
    pub(crate) lengths: Windows,
    /// Those under way: a sequential reader has two, the one that it waits for and the one after
    /// that.
    under_way: [Option<Arc<Window>>; MAX_WINDOWS],
}

impl Ahead {
    fn new() -> Self {
        Self {
            lengths: Windows::new(),
            under_way: [const { None }; MAX_WINDOWS],
        }
    }

    /// Forgets those that are over.
    pub(crate) fn forget_ended(&mut self) {
        for slot in &mut self.under_way {
            if slot.as_ref().is_some_and(|window| window.over.is_over()) {
                *slot = None;
            }
        }
    }

    /// That which has a block.
    pub(crate) fn find(&self, block: u64) -> Option<Arc<Window>> {
        let mut all = self.under_way.iter().flatten();
        all.find(|window| window.blocks.contains(&block)).cloned()
    }

    /// One that has to end before there is room for another; `None` if there is room.
    pub(crate) fn in_the_way(&self) -> Option<Arc<Window>> {
        let first = self.under_way.first()?.clone();
        first.filter(|_| self.under_way.iter().all(Option::is_some))
    }

    /// Remembers one, for which there is room.
    pub(crate) fn add(&mut self, window: &Arc<Window>) {
        if let Some(slot) = self.under_way.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(window.clone());
        }
    }
}

/// A range of blocks whose verification is under way.
#[pin_data]
pub(crate) struct Window {
    /// Which blocks.
    pub(crate) blocks: Range<u64>,
    /// Started before its blocks were wanted.
    pub(crate) is_ahead: bool,
    /// Set once, when it is over.
    #[pin]
    pub(crate) over: Event,
}

impl Window {
    pub(crate) fn new(blocks: Range<u64>, is_ahead: bool) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                blocks,
                is_ahead,
                over <- Event::new(),
            }),
            CHARGED,
        )
    }
}

impl Binding {
    /// A new tie, with nothing verified, or all of it if its fingerprint is trusted.
    pub(crate) fn new(shared: SharedRef, counters: &Arc<Counters>) -> Result<Arc<Self>> {
        has_room(size_of::<Self>())?;
        let id = *shared.identity();
        let blocks = id.blocks();
        let trusted = id.verify == Verify::Nothing;
        let verified = if trusted {
            Verified::All
        } else {
            Verified::Some {
                set: Set::new(blocks),
                left: blocks,
            }
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                shared,
                counters: counters.clone(),
                verified <- new_spinlock!(verified, "erofs_shared::Binding::verified"),
                windows <- new_mutex!(Ahead::new(), "erofs_shared::Binding::windows"),
            }),
            CHARGED,
        )?;
        this.shared.content().count_bound();
        if trusted {
            this.shared.content().count_verified(blocks);
        }
        this.counters.add(Field::MetadataBytes, this.bytes());
        Ok(this)
    }

    fn bytes(&self) -> u64 {
        self.verified.lock().bytes() + size_of::<Self>() as u64
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

    /// Notes that these blocks have been verified. `true` if all are now. `ESTALE`: the real inode
    /// has left the shared inode.
    pub(crate) fn verify(&self, blocks: Range<u64>) -> Result<bool> {
        // What turns out not to be needed is freed on return, when the lock is not held any more.
        let mut memory: Option<Memory> = None;
        loop {
            let mut verified = self.verified.lock();
            let (set, left) = match &mut *verified {
                Verified::All => return Ok(true),
                // There is nothing to note.
                Verified::Sole => return Ok(false),
                Verified::Gone => return Err(ESTALE),
                Verified::Some { set, left } => (set, left),
            };
            if let Some(new) = memory.take() {
                let bytes = new.bytes();
                memory = new.give(set);
                if memory.is_none() {
                    self.counters.add(Field::MetadataBytes, bytes);
                }
            }
            if let Some(need) = set.need(blocks.clone()) {
                drop(verified);
                memory = Some(Memory::new(need)?);
                continue;
            }
            let added = set.insert(blocks);
            *left = left.saturating_sub(added);
            // Under the lock, so that `retire` does not take away what was not counted yet.
            self.shared.content().count_verified(added);
            let all = *left == 0;
            let full = all.then(|| core::mem::replace(&mut *verified, Verified::All));
            drop(verified);
            if let Some(full) = full {
                self.counters.sub(Field::MetadataBytes, full.bytes());
            }
            return Ok(all);
        }
    }

    /// Whether pages may be read in through the real inode's image now. Does not sleep.
    pub(crate) fn may_fill(&self) -> bool {
        self.shared.identity().verify != Verify::Bytes
            || self.shared.content().usage().may_fill(self)
    }

    /// As [`Binding::may_fill`], but waits for a grace period if that is all it takes. May sleep.
    pub(crate) fn wait_may_fill(&self) -> bool {
        self.shared.identity().verify != Verify::Bytes
            || self.shared.content().usage().wait_may_fill(self)
    }

    /// Whether what is read in through the real inode's image needs no check: its fingerprint is
    /// trusted; or it is the only user, and nothing is known of pages that were there before.
    pub(crate) fn needs_no_check(&self) -> bool {
        match self.shared.identity().verify {
            Verify::Nothing => true,
            Verify::Digests => false,
            Verify::Bytes => self.is_sole() && !self.shared.content().usage().has_records(),
        }
    }

    /// Begins a read of the shared inode's only user: [`Usage::read`](super::usage::Usage::read).
    /// `None`: it is not that.
    pub(crate) fn sole_read(&self) -> Option<SoleRead<'_>> {
        if self.shared.identity().verify != Verify::Bytes {
            return None;
        }
        self.shared.content().usage().read(self)
    }

    /// The real inode has left the shared inode. What it had verified takes no memory any more;
    /// this stays only to hold the shared inode for files that have its mapping.
    pub(crate) fn retire(&self) {
        self.shared.content().usage().note_left();
        self.retire_unused();
    }

    /// As [`Binding::retire`], when there are no files that have its mapping.
    pub(crate) fn retire_unused(&self) {
        self.shared.content().usage().park(self);
        let mut verified = self.verified.lock();
        let before = core::mem::replace(&mut *verified, Verified::Gone);
        drop(verified);
        self.counters.sub(Field::MetadataBytes, before.bytes());
        self.uncount(&before);
    }

    fn uncount(&self, verified: &Verified) {
        let left = match verified {
            Verified::All => 0,
            Verified::Sole => self.blocks(),
            Verified::Some { left, .. } => *left,
            Verified::Gone => return,
        };
        let verified = self.blocks().saturating_sub(left);
        self.shared.content().uncount(verified);
    }

    /// How many blocks from `blocks.start` on, and below `blocks.end`, are verified without a gap.
    /// May be called in atomic context.
    pub(crate) fn run(&self, blocks: Range<u64>) -> u64 {
        match &*self.verified.lock() {
            Verified::All | Verified::Sole => blocks.end.saturating_sub(blocks.start),
            Verified::Some { set, .. } => set.run(blocks),
            Verified::Gone => 0,
        }
    }

    /// Whether all of these blocks are verified; those behind the end of the file always are. May
    /// be called in atomic context.
    pub(crate) fn covers(&self, blocks: Range<u64>) -> bool {
        let end = blocks.end.min(self.blocks());
        let blocks = blocks.start.min(end)..end;
        self.run(blocks.clone()) == blocks.end - blocks.start
    }

    /// Whether all blocks are verified.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(&*self.verified.lock(), Verified::All)
    }
}

impl User for Binding {
    fn become_sole(&self) {
        *self.verified.lock() = Verified::Sole;
    }

    fn become_one_of_many(&self, memory: Prepared) {
        let mut verified = self.verified.lock();
        if matches!(&*verified, Verified::Sole) {
            let (set, left) = (memory.0, self.blocks());
            self.counters.add(Field::MetadataBytes, bytes_of(&set));
            *verified = Verified::Some { set, left };
        }
    }

    fn is_sole(&self) -> bool {
        matches!(&*self.verified.lock(), Verified::Sole)
    }

    fn has_verified(&self, blocks: Range<u64>) {
        // Without memory for it, they are verified again.
        let _ = self.verify(blocks);
    }
}

#[pinned_drop]
impl PinnedDrop for Binding {
    fn drop(self: Pin<&mut Self>) {
        self.counters.sub(Field::MetadataBytes, self.bytes());
        let verified = core::mem::replace(&mut *self.verified.lock(), Verified::Gone);
        self.uncount(&verified);
    }
}

/// The bindings of one real inode.
pub(crate) struct Slots {
    current: Option<Arc<Binding>>,
    /// Files may have the mapping of the current one.
    opened: bool,
    /// Those before it whose mappings files may have. They stay until the inode goes, which is
    /// longer than files do.
    former: [Option<Arc<Binding>>; MAX_FORMER],
    /// How many there have been before the current one.
    left: u32,
    /// It keeps to its own page cache from now on.
    alone: bool,
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            current: None,
            opened: false,
            former: [const { None }; MAX_FORMER],
            left: 0,
            alone: false,
        }
    }

    /// The current binding.
    pub(crate) fn current(&self) -> Option<&Arc<Binding>> {
        self.current.as_ref()
    }

    /// As [`Slots::current`], for a file that gets its mapping.
    pub(crate) fn open(&mut self) -> Option<&Arc<Binding>> {
        self.opened |= self.current.is_some();
        self.current.as_ref()
    }

    /// Makes a binding the current one, if there is none. `false`: the inode stays alone.
    pub(crate) fn bind(&mut self, binding: &Arc<Binding>) -> bool {
        if self.alone || self.current.is_some() {
            return false;
        }
        self.current = Some(binding.clone());
        self.opened = false;
        true
    }

    /// The current binding, which is that no more. The caller retires and drops it when no lock is
    /// held. If another one is to follow, [`Slots::bind`] makes it the current one.
    pub(crate) fn leave(&mut self) -> Option<Arc<Binding>> {
        let old = self.current.take()?;
        self.left = self.left.saturating_add(1);
        self.alone |= self.left >= MAX_LEFT;
        if self.opened {
            let mapping = old.shared().mapping();
            let mut former = self.former.iter().flatten();
            if !former.any(|held| held.shared().mapping() == mapping) {
                if let Some(slot) = self.former.iter_mut().find(|slot| slot.is_none()) {
                    *slot = Some(old.clone());
                }
            }
            // The next one could not be kept for files that have its mapping.
            self.alone |= self.former.iter().all(Option::is_some);
        }
        Some(old)
    }

    /// Whether it keeps to its own page cache for good.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }
}
