// SPDX-License-Identifier: GPL-2.0

//! The users of a shared inode: how many are bound, and where its pages are verified by their
//! bytes, whether it is one real inode, for which nothing is recorded, or many.
//! `Documentation/verify.md` has the states, the invariants, and what makes the change from one to
//! many safe.
//!
//! Locks, outer ones first: `Sharing::slots` → the usage lock → `Binding::known`, all spinlocks.

use core::{ops::Range, ptr::NonNull};

use kernel::{
    ffi::c_ulong,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc, SpinLock,
    },
};

use super::{fast_path::FastMapping, set::Prepared};
use crate::{bindings, race::race_point};

/// Which real inode it is, beyond that one's time in memory: an instance of a superblock, and the
/// inode's number there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RealInode {
    /// Number of the superblock instance; none has it twice.
    pub(crate) instance: u64,
    /// The inode's number.
    pub(crate) number: u64,
}

/// The binding of a real inode, to the shared inode whose user it is.
pub(crate) trait User: Send + Sync {
    /// The real inode is the only user. Under the usage lock.
    fn become_sole(&self);
    /// The real inode was the only user, and has verified nothing as one of many. Under the usage
    /// lock. `memory` is for what it will have verified.
    fn become_one_of_many(&self, memory: Prepared);
    /// Whether the real inode is the only user.
    fn is_sole(&self) -> bool;
    /// The real inode has verified these blocks, as far as there is memory to note that.
    fn has_verified(&self, blocks: Range<u64>);
}

/// Whether they are the same binding.
fn is_same(one: &dyn User, other: &dyn User) -> bool {
    core::ptr::addr_eq(one, other)
}

/// A real inode that is to be bound.
pub(crate) struct Joining<'a> {
    user: Arc<dyn User>,
    inode: RealInode,
    fast: &'a FastMapping,
}

impl<'a> Joining<'a> {
    /// # Safety
    ///
    /// * `fast` is that of the real inode `inode`.
    /// * [`Usage::park`] is called with `user` before that inode is freed.
    pub(crate) unsafe fn new(user: Arc<dyn User>, inode: RealInode, fast: &'a FastMapping) -> Self {
        Self { user, inode, fast }
    }
}

/// What has become of a real inode that was to be bound.
pub(super) enum Joined {
    /// It is a user.
    As(Role),
    /// It is one of many from now on, and so is this one, which was the only user. What it has
    /// verified is to be noted: then [`Usage::noted`] is called.
    WithFormer(Arc<dyn User>),
    /// Not yet: there is to be memory for what many need.
    NeedsMemory,
}

/// The only user.
///
/// # Invariants
///
/// `fast` is valid: it is that of the real inode with this binding, which is not freed before
/// [`Usage::park`] has taken this out of [`State::Sole`].
struct Sole {
    user: Arc<dyn User>,
    inode: RealInode,
    fast: NonNull<FastMapping>,
}

// SAFETY: The inode with `fast`, which is atomic, may be looked at from any thread.
unsafe impl Send for Sole {}

enum State {
    /// One real inode is bound.
    Sole(Sole),
    /// None is, or several are.
    Other(Other),
}

/// Apart from [`State`], which so needs no word beside that in [`Sole`] which is not null.
enum Other {
    /// No real inode has been bound.
    Unused,
    /// One was, and its accesses end with a grace period from here; its pages may still be there.
    Parked(RealInode, GracePeriod),
    /// Several are or were. The accesses that the last sole user began without counting themselves
    /// end with the grace period. The number is the address of that one's binding, or 0; to be
    /// compared only.
    Many(GracePeriod, usize),
}

/// What names a grace period.
#[derive(Clone, Copy)]
struct GracePeriod(c_ulong);

impl GracePeriod {
    /// One from here. Others' will do: one is asked for when it is waited for.
    fn from_here() -> Self {
        // SAFETY: No preconditions.
        Self(unsafe { bindings::get_state_synchronize_rcu() })
    }

    /// Whether it is over.
    fn is_over(self) -> bool {
        // SAFETY: No preconditions.
        unsafe { bindings::poll_state_synchronize_rcu(self.0) }
    }

    /// Waits for its end. May sleep; not to be called in an RCU section.
    fn wait(self) {
        // SAFETY: By this function's contract the caller may sleep, and is in no RCU section.
        unsafe { bindings::cond_synchronize_rcu(self.0) };
    }
}

/// Where a binding is.
fn address(user: &dyn User) -> usize {
    core::ptr::from_ref(user).cast::<()>().addr()
}

/// What a real inode is, among the users of a shared inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The only one: what is resident is what was read through it.
    Sole,
    /// One of many, each of which verifies blocks for itself.
    OneOfMany,
}

/// The users of a shared inode.
#[pin_data]
pub(crate) struct Usage {
    #[pin]
    state: SpinLock<State>,
    /// [`Other::Many`] has been reached. Set under the lock, once.
    many: Atomic<bool>,
    /// Reads of the sole user that are under way, or were begun by it: see [`Usage::read`].
    reads: Atomic<u32>,
    /// What the sole user has verified is noted; once there are many.
    noted: Atomic<bool>,
    /// No access that the sole user began before there were many is under way any more.
    settled: Atomic<bool>,
    /// A block has a digest.
    records: Atomic<bool>,
    /// A mount with it shares single blocks.
    shares_blocks: Atomic<bool>,
    /// An inode has left while files had the pages: a read of it may count on what it had verified.
    left: Atomic<bool>,
    /// Real inodes that are bound. Each has a reference, which the inode counts in 32 bits, too.
    bound: Atomic<u32>,
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
            state <- new_spinlock!(State::Other(Other::Unused), "erofs_shared::Usage::state"),
            many: Atomic::new(false),
            reads: Atomic::new(0),
            noted: Atomic::new(false),
            settled: Atomic::new(false),
            records: Atomic::new(false),
            shares_blocks: Atomic::new(false),
            left: Atomic::new(false),
            bound: Atomic::new(0),
        })
    }

    /// A real inode is bound.
    pub(super) fn count_bound(&self) {
        self.bound.fetch_add(1, Relaxed);
    }

    /// It is not any more.
    pub(super) fn uncount_bound(&self) {
        self.bound.fetch_sub(1, Full);
    }

    /// Real inodes that are bound.
    pub(crate) fn bound(&self) -> u32 {
        self.bound.load(Relaxed)
    }

    /// Whether no real inode is bound. Pairs with [`Usage::uncount_bound`]: what was done before is
    /// seen.
    pub(super) fn is_unbound(&self) -> bool {
        self.bound.load(Acquire) == 0
    }

    /// Whether several inodes use it, or did.
    pub(super) fn is_many(&self) -> bool {
        self.many.load(Acquire)
    }

    /// Whether one real inode uses it, of which nothing is recorded.
    pub(super) fn is_sole(&self) -> bool {
        matches!(&*self.state.lock(), State::Sole(_))
    }

    /// As [`Usage::is_many`], when a change to many is not under way: it is over, or has not begun
    /// when this returns.
    pub(super) fn is_many_exactly(&self) -> bool {
        self.is_many() || matches!(&*self.state.lock(), State::Other(Other::Many(..)))
    }

    /// Calls `f` if `user` is the sole one, which it stays meanwhile. `f` must not sleep.
    pub(crate) fn if_sole(&self, user: &dyn User, f: impl FnOnce()) {
        let state = self.state.lock();
        if matches!(&*state, State::Sole(sole) if is_same(&*sole.user, user)) {
            f();
        }
    }

    /// The real inode with this binding is not its user any more. Its memory may be freed.
    pub(super) fn park(&self, user: &dyn User) {
        let mut state = self.state.lock();
        let inode = match &mut *state {
            State::Sole(sole) if is_same(&*sole.user, user) => sole.inode,
            State::Other(Other::Many(_, former)) if *former == address(user) => {
                // Another user may get its address.
                *former = 0;
                return;
            }
            _ => return,
        };
        let parked = Other::Parked(inode, GracePeriod::from_here());
        let before = core::mem::replace(&mut *state, State::Other(parked));
        drop(state);
        // This may drop the last reference to the binding, and sleep.
        drop(before);
    }

    /// Begins a read of the sole user that looks for pages by itself: no page comes in through
    /// another image before the read is over. `None`: it is not the sole user any more.
    pub(crate) fn read(&self, user: &dyn User) -> Option<SoleRead<'_>> {
        // Pairs with the lock that `Binding::become_one_of_many` takes: either that has not
        // happened yet, and what looks at `reads` after it sees this; or this sees that.
        self.reads.fetch_add(1, Full);
        let read = SoleRead(self);
        race_point!(c"sole_read");
        user.is_sole().then_some(read)
    }

    /// Whether a page may be read in through the image of `user`: not while accesses may be under
    /// way that take any page for one of another image. Does not sleep.
    pub(crate) fn may_fill(&self, user: &dyn User) -> bool {
        self.settled.load(Acquire) || self.try_settle(user, false)
    }

    /// As [`Usage::may_fill`], but waits for a grace period if that is all it takes. May sleep.
    pub(crate) fn wait_may_fill(&self, user: &dyn User) -> bool {
        self.settled.load(Acquire) || self.try_settle(user, true)
    }

    /// Makes a real inode a user. `memory` is for what the only user has verified, should there be
    /// one; `release_always` is called before there are many, and has each page that leaves the
    /// cache looked at from then on.
    pub(super) fn join(
        &self,
        joining: &Joining<'_>,
        memory: &mut Option<Prepared>,
        release_always: impl FnOnce(),
    ) -> Joined {
        let mut state = self.state.lock();
        let sole = match &*state {
            State::Other(Other::Many(..)) => return Joined::As(Role::OneOfMany),
            State::Other(Other::Parked(inode, accesses)) if *inode != joining.inode => {
                if memory.is_none() {
                    return Joined::NeedsMemory;
                }
                release_always();
                // There is none to note it for.
                self.noted();
                *state = State::Other(Other::Many(*accesses, 0));
                self.many.store(true, Release);
                return Joined::As(Role::OneOfMany);
            }
            State::Other(Other::Unused | Other::Parked(..)) => {
                joining.user.become_sole();
                // INVARIANT: By the requirements of `Joining::new`.
                *state = State::Sole(Sole {
                    user: joining.user.clone(),
                    inode: joining.inode,
                    fast: NonNull::from(joining.fast),
                });
                return Joined::As(Role::Sole);
            }
            State::Sole(sole) => sole,
        };
        let Some(memory) = memory.take() else {
            return Joined::NeedsMemory;
        };
        release_always();
        race_point!(c"release_always");
        // From here on its pages are not all taken for those of its image.
        sole.user.become_one_of_many(memory);
        // SAFETY: By the type invariants of `Sole` it is valid as long as the state is that.
        unsafe { sole.fast.as_ref() }.set(core::ptr::null_mut());
        let former = sole.user.clone();
        let many = Other::Many(GracePeriod::from_here(), address(&*former));
        let before = core::mem::replace(&mut *state, State::Other(many));
        self.many.store(true, Release);
        drop(state);
        drop(before);
        Joined::WithFormer(former)
    }

    /// What the former only user has verified is noted: only from here on others bring in pages.
    pub(super) fn noted(&self) {
        self.noted.store(true, Release);
    }

    /// A block gets a digest: under the lock of its folio, or before there are pages.
    pub(super) fn note_record(&self) {
        if !self.records.load(Relaxed) {
            self.records.store(true, Release);
        }
    }

    /// Whether a block may have a digest, so that what is read in has to be compared with that.
    pub(crate) fn has_records(&self) -> bool {
        self.records.load(Acquire)
    }

    /// Single blocks of it may be shared with other contents.
    pub(crate) fn share_blocks(&self) {
        if !self.shares_blocks.load(Relaxed) {
            self.shares_blocks.store(true, Relaxed);
        }
    }

    /// Whether single blocks of it may be shared with other contents.
    pub(super) fn shares_blocks(&self) -> bool {
        self.shares_blocks.load(Relaxed)
    }

    /// An inode leaves it while files may have its pages.
    pub(super) fn note_left(&self) {
        self.left.xchg(true, Full);
    }

    /// Whether an inode has left it while files may have had its pages.
    pub(super) fn was_left(&self) -> bool {
        self.left.load(Acquire)
    }

    /// Whether the accesses of the last sole user are over, or are those of this binding, which
    /// takes any page for one of its own image. With `wait` this may sleep, and is not to be called
    /// in an RCU section.
    fn try_settle(&self, user: &dyn User, wait: bool) -> bool {
        if !self.is_many() {
            return true;
        }
        let accesses = match &*self.state.lock() {
            State::Other(Other::Many(_, former)) if *former == address(user) => return true,
            State::Other(Other::Many(accesses, _)) => *accesses,
            _ => return true,
        };
        if !self.noted.load(Acquire) || self.reads.load(Acquire) != 0 {
            return false;
        }
        if !accesses.is_over() {
            if !wait {
                return false;
            }
            accesses.wait();
        }
        self.settled.store(true, Release);
        true
    }
}
