// SPDX-License-Identifier: GPL-2.0

//! A model of a shared inode whose pages are verified by comparison (`Documentation/verify.md`), for
//! loom: one block, and up to three real inodes that have it.
//!
//! What stands for what:
//!
//! | model | module, kernel |
//! |---|---|
//! | [`Shared::slot`] | the block's place in the page cache: `rcu_assign_pointer()`, `rcu_dereference()` |
//! | [`Folio::locked`] | `PG_locked`. A thread that would wait for it gives up here: what waiting leads to, loom sees in an order in which the lock is free |
//! | [`Folio::uptodate`] | `PG_uptodate`, with the barriers of `folio_mark_uptodate()` and `folio_test_uptodate()` |
//! | [`Folio::in_cache`] | `folio->mapping`, which changes under the folio's lock |
//! | [`Shared::usage`] | `Usage::state` |
//! | [`Shared::verified`] | `Binding::known` of each real inode |
//! | [`Shared::plain`] | `FastMapping` of inode B |
//! | [`Shared::release_always`] | `AS_RELEASE_ALWAYS`: a bit that is set and tested without order |
//! | [`Shared::digest`] | the block's digest; bytes are their own digest |
//! | [`Rcu`] | RCU: see there |
//!
//! Where an atomic is looked at by a thread that may store to it later, [`now`] looks: of what was
//! done to an atomic before a store, loom reorders the last access only, and would else miss what
//! other threads have read before that. Such atomics are swapped instead of stored to, since loom may
//! order a plain store between the two halves of what [`now`] does.
//!
//! References to folios are left out: they only keep pages from leaving, and a folio of the model is
//! used once, so a thread that has found one may look at it for good.

use loom::sync::{
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    Mutex,
};

use super::{
    contract::Step,
    kernel::{now, Folio, Rcu},
};

/// A real inode.
pub type Inode = usize;

/// The sole user, in the beginning.
pub const B: Inode = 0;
/// The second one.
pub const C: Inode = 1;
/// The third one.
pub const D: Inode = 2;

/// The bytes that memory failure leaves, and the digest that no block has.
const LOST: u64 = u64::MAX;

/// What a real inode knows of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Nothing is recorded: all that is resident was read through this inode.
    Sole,
    /// It has not verified it.
    No,
    /// It has.
    Yes,
    /// B has left, and nothing is noted for it any more.
    Gone,
}

/// Who uses the shared inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// B.
    Sole,
    /// No inode does any more, and none but B has.
    Parked,
    /// Several do, or have.
    Many,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The page is there.
    Done,
    /// There was one.
    Taken,
    /// The inode has to take its own page cache.
    Refused,
    /// The inode's bytes are not those that belong there.
    Differs,
}

/// How many folios a model needs at most.
const FOLIOS: usize = 4;

/// A shared inode and those that have it.
pub struct Shared {
    omitted: Option<Step>,
    /// What each real inode's image has in the block.
    images: [u64; 3],
    /// The folio's number from 1 on, or 0.
    pub(super) slot: AtomicU64,
    folios: [Folio; FOLIOS],
    /// Folios used so far.
    used: AtomicUsize,
    usage: Mutex<State>,
    /// The same, to be read without the lock.
    many: AtomicBool,
    verified: [Mutex<Verified>; 3],
    plain: AtomicBool,
    release_always: AtomicBool,
    /// 0: none.
    pub(super) digest: AtomicU64,
    /// Whether a block has a digest.
    records: AtomicBool,
    reads: AtomicU64,
    rcu: Rcu,
    cookie: AtomicU64,
    walked: AtomicBool,
    /// Inodes that are bound.
    bound: AtomicU64,
    /// Whether one has left that had files.
    left: AtomicBool,
}

impl Shared {
    /// One that inode B alone uses. All steps are done but `omitted`.
    pub fn sole(omitted: Option<Step>, images: [u64; 3]) -> Self {
        Self {
            omitted,
            images,
            slot: AtomicU64::new(0),
            folios: std::array::from_fn(|_| Folio::new()),
            used: AtomicUsize::new(0),
            usage: Mutex::new(State::Sole),
            many: AtomicBool::new(false),
            verified: [Verified::Sole, Verified::No, Verified::No].map(Mutex::new),
            plain: AtomicBool::new(true),
            release_always: AtomicBool::new(false),
            digest: AtomicU64::new(0),
            records: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            rcu: Rcu(AtomicU64::new(0)),
            cookie: AtomicU64::new(0),
            walked: AtomicBool::new(false),
            bound: AtomicU64::new(1),
            left: AtomicBool::new(false),
        }
    }

    pub(super) fn does(&self, step: Step) -> bool {
        self.omitted != Some(step)
    }

    pub fn verified(&self, of: Inode) -> Verified {
        *self.verified[of].lock().unwrap()
    }

    fn set_verified(&self, of: Inode, verified: Verified) {
        *self.verified[of].lock().unwrap() = verified;
    }

    /// As [`Shared::set_verified`], unless it has left.
    fn note(&self, of: Inode, verified: Verified) {
        let mut known = self.verified[of].lock().unwrap();
        if *known != Verified::Gone {
            *known = verified;
        }
    }

    pub fn is_many(&self) -> bool {
        *self.usage.lock().unwrap() == State::Many
    }

    /// `filemap_get_folio()`, and whether the folio is uptodate. That the folio's address comes from
    /// the slot orders nothing but accesses to the folio.
    pub(super) fn ready(&self) -> Option<&Folio> {
        let folio = self.folio(self.slot.load(Relaxed))?;
        self.is_uptodate(folio).then_some(folio)
    }

    fn is_uptodate(&self, folio: &Folio) -> bool {
        folio.uptodate.load(match self.does(Step::UptodateOrders) {
            true => Acquire,
            false => Relaxed,
        })
    }

    fn folio(&self, slot: u64) -> Option<&Folio> {
        self.folios.get(slot.checked_sub(1)? as usize)
    }

    /// The folio in the cache, in whatever state.
    fn found(&self) -> Option<&Folio> {
        self.folio(now(&self.slot, Relaxed))
    }

    /// The folio, locked, if it is still in the cache.
    pub(super) fn locked(&self) -> Option<&Folio> {
        let folio = self.found()?;
        if !folio.try_lock() {
            return None;
        }
        if !folio.in_cache.load(Relaxed) {
            folio.unlock();
            return None;
        }
        Some(folio)
    }

    /// What a reader of `of` has got.
    fn deliver(&self, of: Inode, bytes: u64) {
        let own = self.images[of];
        assert!(bytes == own, "a reader gets another image's bytes");
    }

    /// `copy_resident()` of a file of B, which may be *plain*.
    pub fn copy(&self) {
        if !self.plain.load(Relaxed) {
            return;
        }
        let Some(folio) = self.folio(self.slot.load(Relaxed)) else {
            return;
        };
        let again = || !self.does(Step::CopyLooksAgain) || self.plain.load(Relaxed);
        let (early, late) = match self.does(Step::CopyLooksLast) {
            true => (true, self.is_uptodate(folio) && again()),
            false => (again(), self.is_uptodate(folio)),
        };
        if early && late {
            self.deliver(B, folio.bytes.load(Relaxed));
        }
    }

    /// A fault in a mapping of B.
    pub fn fault(&self) {
        if !self.plain.load(Relaxed) {
            return;
        }
        let Some(folio) = self.locked() else { return };
        let ready = folio.uptodate.load(Acquire);
        if ready && (!self.does(Step::FaultLooksAgain) || self.plain.load(Relaxed)) {
            self.deliver(B, folio.bytes.load(Relaxed));
        }
        folio.unlock();
    }

    /// `->map_pages` of a mapping of B.
    pub fn map_pages(&self) {
        self.rcu.section(self.does(Step::RcuOrders), || {
            if !self.plain.load(Relaxed) {
                return;
            }
            let Some(folio) = self.locked() else { return };
            if folio.uptodate.load(Acquire) {
                self.deliver(B, folio.bytes.load(Relaxed));
            }
            folio.unlock();
        });
    }

    /// `filemap_read()` or a splice of a file of B, which looks for pages by itself.
    pub fn filemap_read(&self) {
        let count = || {
            if self.does(Step::ReadIsCounted) {
                self.reads.fetch_add(1, AcqRel);
            }
        };
        if self.does(Step::CountComesFirst) {
            count();
        }
        let sole = self.verified(B) == Verified::Sole;
        if !self.does(Step::CountComesFirst) {
            count();
        }
        if sole {
            if let Some(folio) = self.ready() {
                self.deliver(B, folio.bytes.load(Relaxed));
            }
        }
        if self.does(Step::ReadIsCounted) {
            self.reads.fetch_sub(1, AcqRel);
        }
    }

    /// A read or a fault of B that has a page first, which another thread of it may have brought in,
    /// and then looks at what B has verified.
    pub fn look_late(&self) {
        let Some(folio) = self.ready() else { return };
        if matches!(self.verified(B), Verified::Sole | Verified::Yes) {
            self.deliver(B, folio.bytes.load(Relaxed));
        }
    }

    /// Any way to the bytes that begins with a look at what the inode has verified.
    pub fn read_verified(&self, of: Inode) {
        if self.verified(of) == Verified::Yes {
            if let Some(folio) = self.ready() {
                self.deliver(of, folio.bytes.load(Relaxed));
            }
        }
    }

    /// Sets `plain` of B, if B is the only user.
    pub fn publish(&self) {
        let usage = self.usage.lock().unwrap();
        if *usage != State::Sole {
            return;
        }
        if self.does(Step::PublishLocks) {
            self.plain.store(true, Release);
            drop(usage);
        } else {
            drop(usage);
            self.plain.store(true, Release);
        }
    }

    /// B has not published its mapping yet.
    pub fn not_published(self) -> Self {
        self.plain.store(false, Relaxed);
        self
    }

    /// Makes C or D a user: the transition, if that has not been.
    pub fn join(&self) {
        self.bound.fetch_add(1, Relaxed);
        let mut usage = self.usage.lock().unwrap();
        if *usage == State::Many {
            return;
        }
        if self.does(Step::FlagComesFirst) {
            self.release_always.store(true, Relaxed);
        }
        let was_sole = *usage == State::Sole;
        if was_sole {
            if !self.does(Step::CookieComesLast) {
                self.note_grace_period();
            }
            self.note(B, Verified::No);
            self.plain.store(false, Release);
            if self.does(Step::CookieComesLast) {
                self.note_grace_period();
            }
        }
        self.many.store(true, Release);
        *usage = State::Many;
        drop(usage);
        if was_sole {
            self.walk();
            if self.does(Step::RecordsComeFirst) {
                self.take_records();
            }
        }
        if !self.does(Step::FlagComesFirst) {
            self.release_always.store(true, Relaxed);
        }
        self.walked.store(true, Release);
        if was_sole && !self.does(Step::RecordsComeFirst) {
            self.take_records();
        }
    }

    fn note_grace_period(&self) {
        self.cookie.store(self.rcu.cookie(), Relaxed);
    }

    /// What is resident has been read through B.
    fn walk(&self) {
        let Some(folio) = self.found() else { return };
        let locked = folio.try_lock();
        if self.does(Step::WalkMindsLocks) && !locked {
            return;
        }
        if folio.in_cache.load(Relaxed) && folio.uptodate.load(Acquire) {
            self.note(B, Verified::Yes);
        }
        if locked {
            folio.unlock();
        }
    }

    /// What has a digest has been read through B.
    fn take_records(&self) {
        if now(&self.digest, Acquire) != 0 {
            self.note(B, Verified::Yes);
        }
    }

    /// Whether a page may come in through the image of `by`, once there are many.
    fn may_fill(&self, by: Inode) -> bool {
        if by == B {
            return true;
        }
        if self.does(Step::FillMindsWalk) && !self.walked.load(Acquire) {
            return false;
        }
        if self.does(Step::FillMindsReads) && self.reads.load(Acquire) != 0 {
            return false;
        }
        !self.does(Step::FillMindsRcu) || self.rcu.is_over(self.cookie.load(Relaxed))
    }

    /// Reads the block into the page cache, through the image of `by`.
    pub fn fill(&self, by: Inode) -> Filled {
        self.fill_with(by, self.images[by], false)
    }

    /// As [`Shared::fill`], of an image that has these bytes by now. `fails`: another block of the
    /// same folio turns out to differ, and the inode leaves.
    pub fn fill_with(&self, by: Inode, bytes: u64, fails: bool) -> Filled {
        let mut looked = None;
        if !self.does(Step::InsertComesFirst) {
            looked = Some(self.needs_no_check(by));
        }
        match self.insert() {
            Some(folio) => self.read_into(folio, by, looked, bytes, fails),
            None => Filled::Taken,
        }
    }

    /// `filemap_add_folio()` of a new folio, locked. `None`: there is one.
    pub(super) fn insert(&self) -> Option<&Folio> {
        let number = self.used.fetch_add(1, Relaxed);
        let folio = &self.folios[number];
        let taken = number as u64 + 1;
        let place = self.slot.compare_exchange(0, taken, AcqRel, Relaxed);
        place.is_ok().then_some(folio)
    }

    /// Reads the block again into a folio that could not be read before.
    pub fn read_again(&self, by: Inode) -> Filled {
        match self.locked() {
            Some(folio) if !folio.uptodate.load(Acquire) => {
                self.read_into(folio, by, None, self.images[by], false)
            }
            Some(folio) => {
                folio.unlock();
                Filled::Taken
            }
            None => Filled::Taken,
        }
    }

    /// A read of B has failed, and left its folio in the cache.
    pub fn failed(self) -> Self {
        self.folios[0].locked.store(false, Relaxed);
        self.slot.swap(1, AcqRel);
        self.used.store(1, Relaxed);
        self
    }

    /// Whether what is read through `by` needs no check: it is the only user, and no block has a
    /// digest.
    fn needs_no_check(&self, by: Inode) -> bool {
        let recorded = || self.does(Step::SoleMindsRecords) && self.records.load(Acquire);
        self.verified(by) == Verified::Sole && !recorded()
    }

    /// Reads into a folio that is locked, and in the cache.
    fn read_into(
        &self,
        folio: &Folio,
        by: Inode,
        looked: Option<bool>,
        bytes: u64,
        fails: bool,
    ) -> Filled {
        if !looked.unwrap_or_else(|| self.needs_no_check(by)) {
            if let Err(why) = self.admit(by, bytes, fails) {
                self.remove(folio);
                folio.unlock();
                return why;
            }
        }
        folio.bytes.store(bytes, Relaxed);
        folio.uptodate.store(true, Release);
        folio.unlock();
        Filled::Done
    }

    /// Whether a page with these bytes may be one of many users.
    fn admit(&self, by: Inode, bytes: u64, fails: bool) -> Result<(), Filled> {
        if !self.may_fill(by) {
            return Err(Filled::Refused);
        }
        let digest = now(&self.digest, Acquire);
        if self.does(Step::FillMindsDigest) && digest != 0 && digest != bytes {
            return Err(Filled::Differs);
        }
        if fails {
            if !self.does(Step::VerifyComesLast) {
                self.set_verified(by, Verified::Yes);
            }
            self.leave(by);
            return Err(Filled::Differs);
        }
        let mut verified = self.verified[by].lock().unwrap();
        match *verified {
            Verified::Sole => {}
            Verified::Gone => return Err(Filled::Refused),
            Verified::No | Verified::Yes => *verified = Verified::Yes,
        }
        Ok(())
    }

    /// Records the digest of a page that is resident, whatever use the inode is in.
    pub fn record_resident(&self) {
        let Some(folio) = self.locked() else { return };
        if folio.uptodate.load(Acquire) && now(&self.digest, Acquire) == 0 {
            self.record(folio.bytes.load(Relaxed));
        }
        folio.unlock();
    }

    pub(super) fn record(&self, digest: u64) {
        self.records.store(true, Release);
        self.digest.swap(digest, AcqRel);
    }

    /// The inode leaves the shared inode, while there are files of it.
    pub fn leave(&self, inode: Inode) {
        if inode == B {
            self.plain.store(false, Release);
        }
        if self.does(Step::LeavingIsNoted) {
            self.left.swap(true, AcqRel);
        }
        self.go(inode);
    }

    /// The inode is evicted: nothing of it is under way.
    pub fn go(&self, inode: Inode) {
        let known = if inode == B {
            Verified::Gone
        } else {
            Verified::No
        };
        if self.does(Step::GoneComesFirst) {
            self.set_verified(inode, known);
        }
        let mut usage = self.usage.lock().unwrap();
        if inode == B && *usage == State::Sole {
            *usage = State::Parked;
            if self.does(Step::ParkMindsRcu) {
                self.note_grace_period();
            }
        }
        drop(usage);
        if !self.does(Step::GoneComesFirst) {
            self.set_verified(inode, known);
        }
        self.bound.fetch_sub(1, AcqRel);
    }

    /// Has `of` verify the block: by the page's bytes, or by its digest if it has left.
    pub fn compare(&self, of: Inode) {
        let own = self.images[of];
        let Some(folio) = self.found() else {
            return self.compare_digest(of);
        };
        let locks = self.does(Step::CompareLocks);
        if locks && !folio.try_lock() {
            return;
        }
        let there = !self.does(Step::CompareLooksForMapping) || folio.in_cache.load(Relaxed);
        if there && folio.uptodate.load(Acquire) && folio.bytes.load(Relaxed) == own {
            self.note(of, Verified::Yes);
        }
        if locks {
            folio.unlock();
        }
    }

    /// Has `of` verify the block by its digest, if it has one.
    pub fn compare_digest(&self, of: Inode) {
        if now(&self.digest, Acquire) == self.images[of] {
            self.note(of, Verified::Yes);
        }
    }

    /// Reclaim, and whatever else takes a page out of the cache.
    pub fn reclaim(&self) {
        self.take_out(false);
    }

    /// Memory failure: what the page had is lost.
    pub fn memory_failure(&self) {
        self.take_out(true);
    }

    fn take_out(&self, lost: bool) {
        let Some(folio) = self.locked() else { return };
        if self.release_always.load(Relaxed) {
            self.release_folio(folio, lost);
        }
        let uptodate = folio.uptodate.load(Relaxed);
        if uptodate && self.is_verified() {
            let digest = now(&self.digest, Acquire);
            assert!(digest != 0, "a verified page leaves without a digest");
        }
        self.remove(folio);
        folio.unlock();
    }

    /// Whether some inode has verified the block.
    fn is_verified(&self) -> bool {
        let all = [B, C, D].map(|of| self.verified(of));
        all.contains(&Verified::Yes)
    }

    /// `->release_folio`.
    fn release_folio(&self, folio: &Folio, lost: bool) {
        let many = match self.does(Step::ReleaseLocks) {
            true => self.is_many(),
            false => self.many.load(Acquire),
        };
        if !many {
            return;
        }
        let needed = match self.does(Step::AllAreRecorded) {
            true => self.bound.load(Acquire) != 0 || self.left.load(Acquire),
            false => self.is_verified(),
        };
        if !needed {
            return;
        }
        if !folio.uptodate.load(Acquire) || now(&self.digest, Acquire) != 0 {
            return;
        }
        if !lost {
            self.record(folio.bytes.load(Relaxed));
        } else if self.does(Step::PoisonIsRecorded) {
            self.record(LOST);
        }
    }

    /// Takes a folio, which the caller has locked, out of the cache.
    pub(super) fn remove(&self, folio: &Folio) {
        folio.in_cache.store(false, Relaxed);
        self.slot.swap(0, AcqRel);
    }
}
