// SPDX-License-Identifier: GPL-2.0

//! Who uses a shared inode whose pages are verified by their bytes: one real inode, for which
//! nothing is recorded, or many. `Documentation/verify.md` has the states, the invariants, and what
//! makes the change from one to many safe.
//!
//! Locks, outer ones first: `Sharing::slots` → the usage lock → `Binding::verified`, all spinlocks.

use core::ptr::NonNull;

use kernel::{
    bindings, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc, SpinLock,
    },
};

use super::{
    binding::{Binding, Prepared},
    handle::SharedInode,
    plain::Plain,
};
use crate::{io::locked::visit_ready, race::race_point, raw};

/// Which real inode it is, beyond that one's time in memory: an instance of a superblock, and the
/// inode's number there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RealInode {
    /// Number of the superblock instance; none has it twice.
    pub(crate) instance: u64,
    /// The inode's number.
    pub(crate) number: u64,
}

/// A real inode that is to be bound.
pub(crate) struct Joining<'a> {
    binding: &'a Arc<Binding>,
    who: RealInode,
    plain: &'a Plain,
}

impl<'a> Joining<'a> {
    /// # Safety
    ///
    /// * `plain` is that of the real inode `who`.
    /// * [`Binding::retire`] or [`Usage::park`] is called with `binding` before that inode is freed.
    pub(crate) unsafe fn new(binding: &'a Arc<Binding>, who: RealInode, plain: &'a Plain) -> Self {
        Self {
            binding,
            who,
            plain,
        }
    }
}

/// The only user.
///
/// # Invariants
///
/// `plain` is valid: it is that of the real inode with this binding, which is not freed before
/// [`Usage::park`] has taken this out of [`State::Sole`].
struct Sole {
    binding: Arc<Binding>,
    who: RealInode,
    plain: NonNull<Plain>,
}

// SAFETY: The inode with `plain`, which is atomic, may be looked at from any thread.
unsafe impl Send for Sole {}

enum State {
    /// No real inode has been bound.
    Unused,
    /// One is.
    Sole(Sole),
    /// One was; its pages may still be there.
    Parked(RealInode),
    /// Several are or were.
    Many,
}

/// What a real inode is, among the users of a shared inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The only one: what is resident is what was read through it.
    Sole,
    /// One of many, each of which verifies blocks for itself.
    OneOfMany,
}

/// Who uses a shared inode.
#[pin_data]
pub(crate) struct Usage {
    #[pin]
    state: SpinLock<State>,
    /// [`State::Many`] has been reached. Set under the lock, once.
    many: Atomic<u32>,
    /// Reads of the sole user that are under way, or were begun by it: see [`Usage::read`].
    reads: Atomic<u32>,
    /// What the sole user has verified is noted; once there are many.
    noted: Atomic<u32>,
    /// No access that the sole user began before there were many is under way any more.
    settled: Atomic<u32>,
    /// A block has a digest.
    records: Atomic<u32>,
    /// A mount with it shares single blocks.
    shares_blocks: Atomic<u32>,
    /// An inode has left while files had the pages: a read of it may count on what it had verified.
    left: Atomic<u32>,
    /// Names the grace period that such accesses end with, once there are many.
    cookie: Atomic<u64>,
    /// The binding of the last sole user, once there are many. To be compared only.
    former: Atomic<*mut Binding>,
}

/// A read of the sole user, which may look at all pages.
pub(crate) struct SoleRead<'a>(&'a Usage);

impl Drop for SoleRead<'_> {
    fn drop(&mut self) {
        self.0.reads.fetch_sub(1, Full);
    }
}

impl Usage {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_spinlock!(State::Unused, "erofs_shared::Usage::state"),
            many: Atomic::new(0),
            reads: Atomic::new(0),
            noted: Atomic::new(0),
            settled: Atomic::new(0),
            records: Atomic::new(0),
            shares_blocks: Atomic::new(0),
            left: Atomic::new(0),
            cookie: Atomic::new(0),
            former: Atomic::new(core::ptr::null_mut()),
        })
    }

    /// Whether several inodes use it, or did.
    pub(super) fn is_many(&self) -> bool {
        self.many.load(Acquire) != 0
    }

    /// As [`Usage::is_many`]; what is not said of it is not going on either: a change to many is over
    /// or has not begun.
    pub(super) fn is_many_exactly(&self) -> bool {
        self.is_many() || matches!(&*self.state.lock(), State::Many)
    }

    /// Calls `f` if `binding` is the sole user, which it stays meanwhile. `f` must not sleep.
    pub(crate) fn if_sole(&self, binding: &Binding, f: impl FnOnce()) {
        let state = self.state.lock();
        if matches!(&*state, State::Sole(sole) if core::ptr::eq(&raw const *sole.binding, binding))
        {
            f();
        }
    }

    /// The real inode with this binding is not its user any more. Its memory may be freed.
    pub(super) fn park(&self, binding: &Binding) {
        let mut state = self.state.lock();
        let who = match &*state {
            State::Sole(sole) if core::ptr::eq(&raw const *sole.binding, binding) => sole.who,
            _ => return,
        };
        let before = core::mem::replace(&mut *state, State::Parked(who));
        self.note_grace_period();
        drop(state);
        // This may drop the last reference to the binding, and sleep.
        drop(before);
    }

    /// Begins a read of the sole user that looks for pages by itself: no page comes in through
    /// another image before the read is over. `None`: it is not the sole user any more.
    pub(crate) fn read(&self, binding: &Binding) -> Option<SoleRead<'_>> {
        // Pairs with the lock that `Binding::become_one_of_many` takes: either that has not
        // happened yet, and who looks at `reads` after it sees this; or this sees that.
        self.reads.fetch_add(1, Full);
        let read = SoleRead(self);
        race_point!(c"sole_read");
        binding.is_sole().then_some(read)
    }

    /// Whether a page may be read in through the image of `binding`: not while accesses may be under
    /// way that take any page for one of another image. Does not sleep.
    pub(crate) fn may_fill(&self, binding: &Binding) -> bool {
        self.settled.load(Acquire) != 0 || self.is_own(binding) || self.try_settle(false)
    }

    /// As [`Usage::may_fill`], but waits for a grace period if that is all it takes. May sleep.
    pub(crate) fn wait_may_fill(&self, binding: &Binding) -> bool {
        self.settled.load(Acquire) != 0 || self.is_own(binding) || self.try_settle(true)
    }

    /// Whether the accesses in question are those of this binding, and so take any page for one of
    /// its own image.
    fn is_own(&self, binding: &Binding) -> bool {
        !self.is_many() || core::ptr::eq(self.former.load(Relaxed), binding)
    }

    /// Accesses that the sole user has begun so far without counting themselves end with a grace
    /// period from here.
    fn note_grace_period(&self) {
        // Others' grace periods will do: one is asked for when it is waited for.
        // SAFETY: No preconditions.
        let cookie = unsafe { bindings::get_state_synchronize_rcu() };
        self.cookie.store(cookie as u64, Release);
    }

    /// A block gets a digest: under the lock of its folio, or before there are pages.
    pub(super) fn note_record(&self) {
        if self.records.load(Relaxed) == 0 {
            self.records.store(1, Release);
        }
    }

    /// Whether a block may have a digest, so that what is read in has to be compared with that.
    pub(crate) fn has_records(&self) -> bool {
        self.records.load(Acquire) != 0
    }

    /// Single blocks of it may be shared with other contents.
    pub(crate) fn share_blocks(&self) {
        if self.shares_blocks.load(Relaxed) == 0 {
            self.shares_blocks.store(1, Relaxed);
        }
    }

    /// Whether single blocks of it may be shared with other contents.
    pub(super) fn shares_blocks(&self) -> bool {
        self.shares_blocks.load(Relaxed) != 0
    }

    /// An inode leaves it while files may have its pages.
    pub(super) fn note_left(&self) {
        self.left.xchg(1, Full);
    }

    /// Whether an inode has left it while files may have had its pages.
    pub(super) fn was_left(&self) -> bool {
        self.left.load(Acquire) != 0
    }

    fn try_settle(&self, wait: bool) -> bool {
        if self.noted.load(Acquire) == 0 || self.reads.load(Acquire) != 0 {
            return false;
        }
        let cookie = self.cookie.load(Acquire) as usize;
        // SAFETY: No preconditions.
        if !unsafe { bindings::poll_state_synchronize_rcu(cookie) } {
            if !wait {
                return false;
            }
            // SAFETY: By this function's contract the caller may sleep, and is in no RCU section.
            unsafe { bindings::cond_synchronize_rcu(cookie) };
        }
        self.settled.store(1, Release);
        true
    }
}

impl SharedInode {
    /// Makes a real inode a user of this shared inode. May sleep.
    pub(crate) fn join(&self, joining: &Joining<'_>) -> Result<Role> {
        let usage = self.content().usage();
        // Memory for what the sole user has verified.
        let mut prepared: Option<Prepared> = None;
        loop {
            let mut state = usage.state.lock();
            let sole = match &*state {
                State::Many => return Ok(Role::OneOfMany),
                State::Parked(who) if *who != joining.who => {
                    self.release_always();
                    // There is nobody to note it for.
                    usage.noted.store(1, Release);
                    usage.many.store(1, Release);
                    *state = State::Many;
                    return Ok(Role::OneOfMany);
                }
                State::Unused | State::Parked(_) => {
                    joining.binding.become_sole();
                    // INVARIANT: By the requirements of `Joining::new`.
                    *state = State::Sole(Sole {
                        binding: joining.binding.clone(),
                        who: joining.who,
                        plain: NonNull::from(joining.plain),
                    });
                    return Ok(Role::Sole);
                }
                State::Sole(sole) => sole,
            };
            let Some(memory) = prepared.take() else {
                drop(state);
                prepared = Some(Prepared::new(self.identity().blocks())?);
                continue;
            };
            self.release_always();
            race_point!(c"release_always");
            // From here on its pages are not all taken for those of its image.
            sole.binding.become_one_of_many(memory);
            // SAFETY: By the type invariants of `Sole` it is valid as long as the state is that.
            unsafe { sole.plain.as_ref() }.set(core::ptr::null_mut());
            let former: *const Binding = &raw const *sole.binding;
            usage.former.store(former.cast_mut(), Relaxed);
            usage.note_grace_period();
            usage.many.store(1, Release);
            let State::Sole(sole) = core::mem::replace(&mut *state, State::Many) else {
                return Err(EIO);
            };
            drop(state);
            race_point!(c"many");
            self.verify_resident_of(&sole.binding);
            // Only from here on others bring in pages, which this must not have seen.
            usage.noted.store(1, Release);
            return Ok(Role::OneOfMany);
        }
    }

    /// What is resident was read through the image of `binding`, the former sole user: it has
    /// verified that.
    fn verify_resident_of(&self, binding: &Binding) {
        let content = self.content();
        let blocks = self.identity().blocks();
        let mut at = 0;
        // Room for digests first, since nothing sleeps while a folio is locked.
        if content
            .reserve((self, blocks), 0)
            .is_some_and(|end| end >= blocks)
        {
            at = blocks;
        }
        while let Some(found) = self.next_cached(at..blocks) {
            let end = content.reserve((self, blocks), found);
            at = end.unwrap_or(found.saturating_add(1));
        }
        visit_ready(self.mapping(), &mut |pages| {
            let pages = pages.start..pages.end.min(blocks);
            // What has no room, or no memory, is compared when it is read.
            if content.has_room(pages.clone()) {
                let _ = binding.verify(pages);
            }
        });
    }

    /// From now on each page that leaves the cache is looked at before.
    fn release_always(&self) {
        // SAFETY: The mapping is that of a live inode.
        unsafe { raw::erofs_shared_mapping_release_always(self.mapping().as_ptr()) }
    }
}
