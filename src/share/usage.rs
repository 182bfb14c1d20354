// SPDX-License-Identifier: GPL-2.0

//! The users of a shared inode whose pages are verified by their bytes: one real inode, for which
//! nothing is recorded, or many. `Documentation/verify.md` has the states, the invariants, and what
//! makes the change from one to many safe.
//!
//! Locks, outer ones first: `Sharing::slots` → the usage lock → `Binding::known`, all spinlocks.

use core::{ops::Range, ptr::NonNull};

use kernel::{
    ffi::c_void,
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

/// The users of a shared inode.
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
    /// The address of the binding of the last sole user, once there are many. To be compared only.
    former: Atomic<*mut c_void>,
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

    /// Whether one real inode uses it, of which nothing is recorded.
    pub(super) fn is_sole(&self) -> bool {
        matches!(&*self.state.lock(), State::Sole(_))
    }

    /// As [`Usage::is_many`], when a change to many is not under way: it is over, or has not begun
    /// when this returns.
    pub(super) fn is_many_exactly(&self) -> bool {
        self.is_many() || matches!(&*self.state.lock(), State::Many)
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
        // Another user may get its address.
        let address = core::ptr::from_ref(user).cast_mut().cast();
        let _ = self.former.cmpxchg(address, core::ptr::null_mut(), Relaxed);
        let mut state = self.state.lock();
        let inode = match &*state {
            State::Sole(sole) if is_same(&*sole.user, user) => sole.inode,
            _ => return,
        };
        let before = core::mem::replace(&mut *state, State::Parked(inode));
        self.note_grace_period();
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
        self.settled.load(Acquire) != 0 || self.is_own(user) || self.try_settle(false)
    }

    /// As [`Usage::may_fill`], but waits for a grace period if that is all it takes. May sleep.
    pub(crate) fn wait_may_fill(&self, user: &dyn User) -> bool {
        self.settled.load(Acquire) != 0 || self.is_own(user) || self.try_settle(true)
    }

    /// Whether the accesses in question are those of this binding, and so take any page for one of
    /// its own image.
    fn is_own(&self, user: &dyn User) -> bool {
        !self.is_many() || core::ptr::addr_eq(self.former.load(Relaxed), user)
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
            State::Many => return Joined::As(Role::OneOfMany),
            State::Parked(inode) if *inode != joining.inode => {
                if memory.is_none() {
                    return Joined::NeedsMemory;
                }
                release_always();
                // There is none to note it for.
                self.noted();
                self.many.store(1, Release);
                *state = State::Many;
                return Joined::As(Role::OneOfMany);
            }
            State::Unused | State::Parked(_) => {
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
        let address: *const dyn User = &raw const *former;
        self.former.store(address.cast_mut().cast(), Relaxed);
        self.note_grace_period();
        self.many.store(1, Release);
        let before = core::mem::replace(&mut *state, State::Many);
        drop(state);
        drop(before);
        Joined::WithFormer(former)
    }

    /// What the former only user has verified is noted: only from here on others bring in pages.
    pub(super) fn noted(&self) {
        self.noted.store(1, Release);
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
