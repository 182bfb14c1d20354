// SPDX-License-Identifier: GPL-2.0

//! What one real inode has verified of a shared inode.

use core::ops::Range;

use kernel::{
    new_mutex, new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{Arc, Mutex, SpinLock},
};

use super::{
    set::{bytes_of, Memory, Part, Prepared},
    usage::{SoleRead, User},
    window::Windows,
    SharedRef, Verify,
};
use crate::{
    compat::code::ESTALE,
    io::{
        memcg::{has_room, CHARGED},
        once_box::OnceBox,
        wait::Completion,
    },
    race::race_point,
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
    /// Those in a set.
    Some(KBox<Part>),
    /// The real inode has left the shared inode: nothing is verified, nor will be.
    Gone,
}

impl Verified {
    /// Bytes that it takes beside itself.
    fn bytes(&self) -> u64 {
        match self {
            Self::Some(part) => bytes_of(&part.set) + size_of::<Part>() as u64,
            Self::All | Self::Sole | Self::Gone => 0,
        }
    }
}

/// What is known of a binding. Most inodes are verified whole, and have not been bound before: the
/// rest is in memory of its own.
struct Known {
    verified: Verified,
    /// The binding that the real inode had before, if files may have its mapping.
    before: Option<Arc<Binding>>,
}

/// A real inode's tie to a shared inode.
#[pin_data(PinnedDrop)]
pub(crate) struct Binding {
    shared: SharedRef,
    /// Its memory is counted there.
    counters: Arc<Counters>,
    /// Taken for a few instructions; nothing is taken under it, nothing sleeps.
    #[pin]
    known: SpinLock<Known>,
    /// How far to verify ahead, from the first window on. Held while a window is opened (which
    /// starts I/O), never while waiting for one.
    windows: OnceBox<Mutex<Ahead>>,
}

/// Windows of blocks that are being verified.
pub(crate) struct Ahead {
    /// Their lengths.
    pub(crate) lengths: Windows,
    /// Those under way: a sequential reader has two, the one that it waits for and the one after
    /// that.
    under_way: [Option<Arc<Window>>; MAX_WINDOWS],
    /// A window of [`Purpose::Around`] has failed: faults verify what they want alone.
    pub(crate) alone: bool,
}

impl Ahead {
    fn new() -> Self {
        Self {
            lengths: Windows::new(),
            under_way: [const { None }; MAX_WINDOWS],
            alone: false,
        }
    }

    /// Forgets those that are over.
    pub(crate) fn forget_ended(&mut self) {
        for slot in &mut self.under_way {
            if slot.as_ref().is_some_and(|window| window.over.is_done()) {
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

/// What a window is started for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A reader waits for its blocks.
    Wanted,
    /// A sequential reader will want them next.
    Ahead,
    /// A fault wants one of them; the others can be mapped together with it.
    Around,
}

/// A range of blocks whose verification is under way.
#[pin_data]
pub(crate) struct Window {
    /// Which blocks.
    pub(crate) blocks: Range<u64>,
    /// What it was started for.
    pub(crate) purpose: Purpose,
    /// Set once, when it is over.
    #[pin]
    pub(crate) over: Completion,
}

impl Window {
    pub(crate) fn new(blocks: Range<u64>, purpose: Purpose) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                blocks,
                purpose,
                over <- Completion::new(),
            }),
            CHARGED,
        )
    }
}

impl Binding {
    /// A new tie, with nothing verified, or all of it if its fingerprint is trusted.
    pub(crate) fn new(shared: SharedRef, counters: &Arc<Counters>) -> Result<Arc<Self>> {
        has_room(size_of::<Self>())?;
        let blocks = shared.blocks();
        let trusted = shared.identity().verify == Verify::Nothing;
        let verified = if trusted {
            Verified::All
        } else {
            Verified::Some(Part::none_of(blocks)?)
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                shared,
                counters: counters.clone(),
                known <- new_spinlock!(
                    Known { verified, before: None },
                    "erofs_shared::Binding::known"
                ),
                windows: OnceBox::new(),
            }),
            CHARGED,
        )?;
        this.shared.content().usage().count_bound();
        if trusted {
            this.shared.content().count_verified(blocks);
        }
        this.counters.add(Field::MetadataBytes, this.bytes());
        Ok(this)
    }

    fn bytes(&self) -> u64 {
        let windows = self.windows.get().map_or(0, size_of_val);
        self.known.lock().verified.bytes() + (size_of::<Self>() + windows) as u64
    }

    /// The shared inode.
    pub(crate) fn shared(&self) -> &SharedRef {
        &self.shared
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.shared.blocks()
    }

    /// Windows being verified. May sleep. `ENOMEM`: this is the first one, and there is no memory
    /// for them.
    pub(crate) fn windows(&self) -> Result<&Mutex<Ahead>> {
        let ahead = new_mutex!(Ahead::new(), "erofs_shared::Binding::windows");
        let (windows, made) = self.windows.get_or_init(ahead, CHARGED)?;
        if made {
            let bytes = size_of_val(windows) as u64;
            self.counters.add(Field::MetadataBytes, bytes);
        }
        Ok(windows)
    }

    /// Notes that these blocks have been verified. `true` if all are now. `ESTALE`: the real inode
    /// has left the shared inode.
    pub(crate) fn verify(&self, blocks: Range<u64>) -> Result<bool> {
        // What turns out not to be needed is freed on return, when the lock is not held any more.
        let mut memory: Option<Memory> = None;
        loop {
            let mut known = self.known.lock();
            let part = match &mut known.verified {
                Verified::All => return Ok(true),
                // There is nothing to note.
                Verified::Sole => return Ok(false),
                Verified::Gone => return Err(ESTALE),
                Verified::Some(part) => part,
            };
            if let Some(new) = memory.take() {
                let bytes = new.bytes();
                memory = new.give(&mut part.set);
                if memory.is_none() {
                    self.counters.add(Field::MetadataBytes, bytes);
                }
            }
            if let Some(need) = part.set.need(blocks.clone()) {
                drop(known);
                memory = Some(Memory::new(need)?);
                continue;
            }
            let added = part.set.insert(blocks);
            part.left = part.left.saturating_sub(added);
            let all = part.left == 0;
            // Under the lock, so that `retire` does not take away what was not counted yet.
            self.shared.content().count_verified(added);
            let full = all.then(|| core::mem::replace(&mut known.verified, Verified::All));
            drop(known);
            if let Some(full) = full {
                self.counters.sub(Field::MetadataBytes, full.bytes());
            }
            return Ok(all);
        }
    }

    /// Whether the memory cgroup has room for what is kept of these blocks when they are verified.
    pub(crate) fn has_room_for(&self, blocks: Range<u64>) -> Result {
        let needs = match &self.known.lock().verified {
            Verified::Some(part) => part.set.need(blocks.clone()).is_some(),
            Verified::All | Verified::Sole | Verified::Gone => false,
        };
        if needs {
            has_room(PAGE_SIZE)?;
        }
        match self.shared.identity().verify {
            Verify::Nothing => Ok(()),
            Verify::Bytes | Verify::Digests => self.shared.content().has_room_for(blocks),
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
        // This comes first: once it is parked, another inode may come to use the shared one, and
        // bring in pages that no access which takes this for the only user may see.
        let mut known = self.known.lock();
        let before = core::mem::replace(&mut known.verified, Verified::Gone);
        drop(known);
        race_point!(c"retire_gone");
        self.shared.content().usage().park(self);
        self.counters.sub(Field::MetadataBytes, before.bytes());
        self.uncount(&before);
    }

    fn uncount(&self, verified: &Verified) {
        let left = match verified {
            Verified::All => 0,
            Verified::Sole => self.blocks(),
            Verified::Some(part) => part.left,
            Verified::Gone => return,
        };
        let verified = self.blocks().saturating_sub(left);
        let content = self.shared.content();
        content.usage().uncount_bound();
        content.uncount_verified(verified);
    }

    /// How many blocks from `blocks.start` on, and below `blocks.end`, are verified without a gap.
    /// May be called in atomic context.
    pub(crate) fn verified_prefix(&self, blocks: Range<u64>) -> u64 {
        match &self.known.lock().verified {
            Verified::All | Verified::Sole => blocks.end.saturating_sub(blocks.start),
            Verified::Some(part) => part.set.leading_ones(blocks),
            Verified::Gone => 0,
        }
    }

    /// Whether all of these blocks are verified; those behind the end of the file always are. May
    /// be called in atomic context.
    pub(crate) fn covers(&self, blocks: Range<u64>) -> bool {
        let end = blocks.end.min(self.blocks());
        let blocks = blocks.start.min(end)..end;
        self.verified_prefix(blocks.clone()) == blocks.end - blocks.start
    }

    /// Whether all blocks are verified.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.known.lock().verified, Verified::All)
    }
}

impl User for Binding {
    fn become_sole(&self) {
        let before = core::mem::replace(&mut self.known.lock().verified, Verified::Sole);
        self.counters.sub(Field::MetadataBytes, before.bytes());
    }

    fn become_one_of_many(&self, memory: Prepared) {
        let mut known = self.known.lock();
        if matches!(known.verified, Verified::Sole) {
            known.verified = Verified::Some(memory.0);
            let bytes = known.verified.bytes();
            self.counters.add(Field::MetadataBytes, bytes);
        }
    }

    fn is_sole(&self) -> bool {
        matches!(self.known.lock().verified, Verified::Sole)
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
        let verified = core::mem::replace(&mut self.known.lock().verified, Verified::Gone);
        self.uncount(&verified);
    }
}

/// The bindings of one real inode.
pub(crate) struct Bindings {
    current: Option<Arc<Binding>>,
    /// The last one before it whose mapping files may have, and which has those before. They stay
    /// until the inode goes, which is longer than files do.
    former: Option<Arc<Binding>>,
    /// How many there have been before the current one.
    left: u32,
    /// Files may have the mapping of the current one.
    opened: bool,
    /// It keeps to its own page cache from now on.
    alone: bool,
    /// It has been reported that its content is not what it was.
    reported: bool,
}

impl Bindings {
    pub(crate) const fn new() -> Self {
        Self {
            current: None,
            former: None,
            left: 0,
            opened: false,
            alone: false,
            reported: false,
        }
    }

    /// The current binding.
    pub(crate) fn current(&self) -> Option<&Arc<Binding>> {
        self.current.as_ref()
    }

    /// Whether `binding` is the current one.
    pub(crate) fn is_current(&self, binding: &Arc<Binding>) -> bool {
        self.current().is_some_and(|at| Arc::ptr_eq(at, binding))
    }

    /// As [`Bindings::current`], for a file that gets its mapping.
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
    /// held. If another one is to follow, [`Bindings::bind`] makes it the current one.
    pub(crate) fn leave(&mut self) -> Option<Arc<Binding>> {
        let old = self.current.take()?;
        self.left = self.left.saturating_add(1);
        self.alone |= self.left >= MAX_LEFT;
        if self.opened {
            self.keep(&old);
        }
        Some(old)
    }

    /// Keeps a binding whose mapping files may have.
    fn keep(&mut self, old: &Arc<Binding>) {
        let mapping = old.shared().mapping();
        let mut count = 0;
        let mut next = self.former.clone();
        while let Some(held) = next {
            if held.shared().mapping() == mapping {
                return;
            }
            count += 1;
            next = held.known.lock().before.clone();
        }
        old.known.lock().before = self.former.replace(old.clone());
        // The next one would not be kept for files that have its mapping.
        self.alone |= count + 1 >= MAX_FORMER;
    }

    /// Whether this is the first time that its content is found not to be what it was.
    pub(crate) fn is_first_change(&mut self) -> bool {
        !core::mem::replace(&mut self.reported, true)
    }

    /// Whether it keeps to its own page cache for good.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }
}
