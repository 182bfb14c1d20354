// SPDX-License-Identifier: GPL-2.0

//! How open files of real inodes get at the page cache of shared inodes: binding, filling, verifying,
//! and leaving when the content turns out to be another.
//!
//! A file that was opened while its inode was bound has `f_mapping` of the shared inode, for good,
//! since mappings of memory may hang on it. If the inode leaves that shared inode, the file is *stale*:
//! its reads are copied from where the inode's data is now, and its faults map pages from there.
//!
//! Locks, outer ones first: [`Sharing::lock`] or `Binding::windows` → `Content::digests`;
//! `Sharing::slots` → `Binding::verified`, both spinlocks.

use core::ops::Range;

use kernel::{
    bindings, new_mutex, new_spinlock,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, MutexGuard, SpinLock,
    },
};

use super::{
    page::Unready,
    superblock::{file_inode, UnderWay},
    FileSystem, Inode, Super, Tables,
};
use crate::{
    io::{
        device::SuperPtr,
        fill::{fill, fill_and_wait, zero_tail, Filled, Keeper, Plan},
        folios::Folios,
        lock::lock_killable,
        wait::{cond_resched, is_dying},
    },
    race::race_point,
    raw,
    share::{
        binding::{Ahead, Window},
        digest::{digest_blocks, Digest, Key, KEY_DIGESTS},
        index, is_marked,
        sha256::KernelSha256,
        Binding, Domain, Identity, Scope, Settled, SharedInode, Slots, BLOCK_SHIFT, BLOCK_SIZE,
    },
    stats::{self, Counters, Field},
};

/// Bytes that one fill reads and one worker hashes at most (but for a folio that is larger).
const FILL_BYTES: usize = 512 << 10;

/// The largest file that is shared, in bytes. What is known of its blocks takes up to 5 MiB before the
/// first of them is read, which an image of a few KiB must not get for any size it likes to claim.
const MAX_SIZE: u64 = 64 << 30;

/// Blocks at the start of a file that are read at its first open because they are decoded with the very first ones,
/// at most: 512 KiB.
const HEAD_BLOCKS: u64 = 128;

/// Blocks that are hashed before their digests are looked at.
const RUN: usize = 16;

/// An inode's state of sharing, from its first open on.
#[pin_data]
pub(super) struct Sharing {
    /// Held while the inode is bound, or bound anew.
    #[pin]
    lock: Mutex<()>,
    /// Its bindings. Taken for a few instructions; nothing sleeps under it.
    #[pin]
    slots: SpinLock<Slots>,
    /// It has been reported that its content is not what it was.
    reported: Atomic<u32>,
    /// Until when its readers do not wait for other images, by `ktime_get`; 0: they do.
    pub(super) impatient_until: Atomic<i64>,
}

impl Sharing {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- new_mutex!((), "erofs_shared::Sharing::lock"),
            slots <- new_spinlock!(Slots::new(), "erofs_shared::Sharing::slots"),
            reported: Atomic::new(0),
            impatient_until: Atomic::new(0),
        })
    }

    fn current(&self) -> Option<Arc<Binding>> {
        self.slots.lock().current().cloned()
    }
}

/// Time spent hashing.
struct HashTime(i64);

impl HashTime {
    fn start() -> Self {
        // SAFETY: Reading the clock has no preconditions.
        Self(unsafe { bindings::ktime_get() })
    }

    fn stop(self, counters: &Counters, blocks: u64) {
        // SAFETY: As above.
        let ns = unsafe { bindings::ktime_get() }.saturating_sub(self.0);
        counters.add(Field::HashNs, ns.unsigned_abs());
        counters.add(Field::BlocksHashed, blocks);
    }
}

/// What a file's pages are, as seen through its inode.
pub(super) enum FileMapping {
    /// The inode's own.
    Own,
    /// Those of the shared inode to which the inode is bound.
    Shared(Arc<Binding>),
    /// Those of a shared inode that the inode has left, for this one, or for its own page cache.
    Stale(Option<Arc<Binding>>),
}

/// A folio's bytes, being read for a page cache.
struct CacheFill<T: FileSystem> {
    binding: Arc<Binding>,
    // Last, so that everything else is gone when an unmount goes on.
    under_way: UnderWay<T>,
}

impl<T: FileSystem> Filled for CacheFill<T> {
    fn filled(self, mut folios: Folios, _result: Result) {
        // Those that failed are not uptodate; who needs one reads it again by itself.
        let inode = self.under_way.inode();
        let pos = folios.pos();
        zero_tail(&mut folios, pos, inode.size());
        let trusted = self.binding.shared().identity().trusted;
        let mut block = pos >> BLOCK_SHIFT;
        while let Some(bytes) = folios.first() {
            if !trusted && inode.check(&self.binding, block, bytes).is_err() {
                return;
            }
            let next = block + (bytes.len() / BLOCK_SIZE) as u64;
            race_point!(c"fill_checked");
            folios.finish_first();
            race_point!(c"fill_finished");
            if !trusted {
                inode.enter(&self.binding, block..next);
            }
            block = next;
            cond_resched();
        }
    }

    fn bad_data(&self, pos: u64, what: &'static str) {
        self.under_way.bad_data(pos, what);
    }
}

/// Blocks that are resident, being read from the inode's own image to be compared.
struct WindowFill<T: FileSystem> {
    binding: Arc<Binding>,
    window: Arc<Window>,
    under_way: UnderWay<T>,
}

impl<T: FileSystem> Filled for WindowFill<T> {
    fn filled(self, mut folios: Folios, result: Result) {
        let inode = self.under_way.inode();
        let mut block = self.window.blocks.start;
        let mut check = || {
            zero_tail(&mut folios, block << BLOCK_SHIFT, inode.size());
            while let Some(bytes) = folios.first() {
                race_point!(c"window_check");
                inode.check(&self.binding, block, bytes)?;
                block += (bytes.len() / BLOCK_SIZE) as u64;
                folios.finish_first();
                cond_resched();
            }
            Ok(())
        };
        // What could be read is verified, whatever became of the rest.
        self.window.over.done(check().and(result));
    }

    fn bad_data(&self, pos: u64, what: &'static str) {
        self.under_way.bad_data(pos, what);
    }
}

/// A folio's bytes, being read for the page cache of an inode that is not shared.
struct OwnFill<T: FileSystem> {
    under_way: UnderWay<T>,
}

impl<T: FileSystem> Filled for OwnFill<T> {
    fn filled(self, mut folios: Folios, _result: Result) {
        // As for `CacheFill`.
        let pos = folios.pos();
        zero_tail(&mut folios, pos, self.under_way.inode().size());
        while folios.first().is_some() {
            folios.finish_first();
            cond_resched();
        }
    }

    fn bad_data(&self, pos: u64, what: &'static str) {
        self.under_way.bad_data(pos, what);
    }
}

impl<T: FileSystem> Inode<T> {
    /// Whether the pages of `mapping` may be used without more ado.
    #[inline(always)]
    pub(super) fn is_plain(&self, mapping: *mut bindings::address_space) -> bool {
        // SAFETY: As `plain` says it is this inode's own mapping, or that of a shared inode which this
        // one holds: the own one of an inode in either case.
        self.plain_mapping() == mapping && !unsafe { is_marked(mapping) }
    }

    /// Pages that its device wants to be read ahead.
    pub(super) fn ra_pages(&self) -> u32 {
        // SAFETY: A live inode has a live superblock, which has a backing device. Others may change its
        // setting at any time.
        unsafe { (&raw const (*(*self.sb().as_ptr()).s_bdi).ra_pages).read_volatile() as u32 }
    }

    pub(super) fn through(&self, mapping: *mut bindings::address_space) -> FileMapping {
        if mapping == self.own_mapping() {
            return FileMapping::Own;
        }
        match self.sharing().and_then(|sharing| sharing.current()) {
            Some(binding) if binding.shared().mapping() == mapping => FileMapping::Shared(binding),
            other => FileMapping::Stale(other),
        }
    }

    pub(super) fn is_current(&self, binding: &Arc<Binding>) -> bool {
        self.sharing().is_some_and(|sharing| {
            let slots = sharing.slots.lock();
            slots.current().is_some_and(|at| Arc::ptr_eq(at, binding))
        })
    }

    /// Whether the inode is bound and `test` holds of the current binding. `test` must not sleep. In any
    /// context but an interrupt's.
    pub(super) fn with_current(&self, test: impl Fn(&Arc<Binding>) -> bool) -> bool {
        self.sharing().is_some_and(|sharing| {
            let slots = sharing.slots.lock();
            slots.current().is_some_and(test)
        })
    }

    /// Lets files use a fully verified shared inode without more ado.
    pub(super) fn publish_plain(&self, binding: &Arc<Binding>) {
        let Some(sharing) = self.sharing() else {
            return;
        };
        let mut slots = sharing.slots.lock();
        if slots.current().is_some_and(|at| Arc::ptr_eq(at, binding)) {
            self.publish(&mut slots, binding);
        }
    }

    /// As [`Inode::publish_plain`]. The caller holds `slots`, in which `binding` is the current one.
    fn publish(&self, slots: &mut Slots, binding: &Binding) {
        race_point!(c"publish");
        if binding.is_complete() {
            // Files that are opened from now on may take the mapping from there.
            slots.open();
            self.plain().set(binding.shared().mapping());
        }
    }

    /// Enters blocks that have been read into the page cache in the index, and has those merged that
    /// are elsewhere, too.
    fn enter(&self, binding: &Binding, blocks: Range<u64>) {
        let shared = binding.shared();
        let blocks = blocks.start..blocks.end.min(binding.blocks());
        // They are here now.
        shared.content().forget_aliases(blocks.clone());
        if !T::shares_blocks(self.sb().info()) {
            return;
        }
        // Without memory for them, blocks are not found by others.
        let _ = index::enter_all(shared, blocks);
    }

    fn plan(&self, pos: u64, ahead: bool) -> Plan {
        Plan {
            pos,
            size: self.size(),
            ahead,
            direct: T::direct_io(self.sb().info()),
        }
    }

    /// Reads what `folios` are for from this inode's image.
    fn fill_from_image<F: Filled>(&self, folios: Folios, plan: &Plan, filled: F) {
        fill(folios, plan, |pos| T::map(self, pos, false), filled);
    }

    /// Hashes blocks of this inode's image from block `first` on, and compares them with what is
    /// recorded. Those that agree are verified, and recorded if they were not; at the first that does
    /// not, this inode leaves the shared inode: `ESTALE`.
    fn check(&self, binding: &Arc<Binding>, first: u64, bytes: &[u8]) -> Result {
        match self.compare(binding, first, bytes) {
            Ok(None) => return Ok(()),
            Ok(Some((block, digest))) => {
                T::counters(self.sb().info())?.add(Field::BlocksDiverged, 1);
                race_point!(c"diverge");
                self.diverge(binding, block, &digest);
            }
            Err(err) if err == ENOMEM => self.retreat(binding),
            Err(err) => return Err(err),
        }
        Err(ESTALE)
    }

    /// As [`Inode::check`], but gives the first block that does not agree, and its digest.
    fn compare(
        &self,
        binding: &Arc<Binding>,
        first: u64,
        bytes: &[u8],
    ) -> Result<Option<(u64, Digest)>> {
        let (shared, blocks) = (binding.shared(), binding.blocks());
        let mut first = first;
        for run in bytes.chunks(RUN * BLOCK_SIZE) {
            let mut digests = [[0u8; 32]; RUN];
            let count =
                ((run.len() / BLOCK_SIZE) as u64).min(blocks.saturating_sub(first)) as usize;
            if count == 0 {
                break;
            }
            let digests = digests.get_mut(..count).ok_or(EIO)?;
            let hashing = HashTime::start();
            digest_blocks::<KernelSha256>(run, digests);
            let counters = T::counters(self.sb().info())?;
            hashing.stop(counters, count as u64);
            match shared.content().settle(shared, first, digests)? {
                Settled::Agree { adopted } => {
                    self.count_settled(counters, first, adopted, count as u64);
                    if binding.verify(first..first + count as u64)? {
                        self.publish_plain(binding);
                    }
                }
                Settled::Differ { at } => {
                    let digest = digests.get(at).ok_or(EIO)?;
                    return Ok(Some((first + at as u64, *digest)));
                }
            }
            first += count as u64;
        }
        Ok(None)
    }

    /// Counts blocks that agree, of which the first time it was heard of so many.
    fn count_settled(&self, counters: &Counters, first: u64, adopted: u64, count: u64) {
        let (dev, number) = (self.sb().dev(), self.number());
        let verified = count - adopted;
        counters.add(Field::BlocksAdopted, adopted);
        counters.add(Field::BlocksVerified, verified);
        // A run of blocks is nearly always the one or the other.
        if adopted != 0 {
            stats::trace::adopt(dev, number, first, adopted as u32);
        }
        if verified != 0 {
            stats::trace::verify(dev, number, first, verified as u32);
        }
    }

    /// The inode is bound no more.
    fn count_unbound(&self) {
        if let Ok(counters) = T::counters(self.sb().info()) {
            counters.sub(Field::BoundInodes, 1);
        }
    }

    /// The inode is being evicted.
    pub(super) fn evict_sharing(&self) {
        let bound = self
            .sharing()
            .is_some_and(|sharing| sharing.current().is_some());
        if bound {
            self.count_unbound();
        }
    }

    /// Block `block` of this inode has another digest than that of the shared inode to which it is
    /// bound: binds it to that which is named by this difference.
    fn diverge(&self, old: &Arc<Binding>, block: u64, digest: &Digest) {
        let Some(sharing) = self.sharing() else {
            return;
        };
        let _lock = sharing.lock.lock();
        if !self.is_current(old) {
            return;
        }
        let changed = old.run(block..block + 1) != 0;
        if changed && sharing.reported.xchg(1, Relaxed) == 0 {
            T::report_change(self, block);
        }
        stats::trace::diverge(self.sb().dev(), self.number(), block);
        if let Ok(counters) = T::counters(self.sb().info()) {
            counters.add(Field::InodesDiverged, 1);
        }
        // Without memory for it the inode is bound anew at its next open.
        let next = self.variant(old, block, digest).ok();
        race_point!(c"diverged");
        self.leave(sharing, next);
    }

    /// There is no memory to verify more of this inode: until it is opened again, it keeps to its own
    /// page cache, which needs none.
    fn retreat(&self, binding: &Arc<Binding>) {
        if let Some(sharing) = self.sharing() {
            let _lock = sharing.lock.lock();
            if self.is_current(binding) {
                self.leave(sharing, None);
            }
        }
    }

    /// Leaves the current shared inode, for `next` if there is one. The caller holds
    /// `sharing.lock`.
    fn leave(&self, sharing: &Sharing, next: Option<Arc<Binding>>) {
        let mut slots = sharing.slots.lock();
        let left = slots.leave();
        self.plain().set(core::ptr::null_mut());
        match &next {
            Some(binding) if slots.bind(binding) => self.publish(&mut slots, binding),
            _ => {
                self.count_unbound();
                if slots.is_alone() {
                    self.plain().set(self.own_mapping());
                }
            }
        }
        drop(slots);
        // This may free memory, and drop the last reference to the shared inode.
        if let Some(left) = left {
            left.retire();
        }
    }

    /// What the inode is bound to when its block `block` has the digest `digest`, and not that which
    /// `old` has.
    fn variant(&self, old: &Binding, block: u64, digest: &Digest) -> Result<Arc<Binding>> {
        let mut id = *old.shared().identity();
        id.key = id.key.variant::<KernelSha256>(block, digest);
        id.variant = id.variant.checked_add(1).ok_or(EOVERFLOW)?;
        let shared = SharedInode::get(&id, &Tables::<T>::SHARED_ASPACE_OPS)?;
        let binding = Binding::new(shared, T::counters(self.sb().info())?)?;
        let shared = binding.shared();
        let digests = core::slice::from_ref(digest);
        match shared.content().settle(shared, block, digests)? {
            Settled::Agree { .. } => {}
            // The key is made of the digest, and who comes here records it first of all.
            Settled::Differ { .. } => return Err(EIO),
        }
        binding.verify(block..block + 1)?;
        Ok(binding)
    }

    /// Binds this inode to its shared inode, at its first open. `None`: it keeps to its own page cache,
    /// for now or for good.
    fn bind(&self) -> Result<Option<Arc<Binding>>> {
        if self.size() == 0 || self.size() > MAX_SIZE {
            self.plain().set(self.own_mapping());
            return Ok(None);
        }
        if let Some(sharing) = self.sharing() {
            let mut slots = sharing.slots.lock();
            if let Some(binding) = slots.open() {
                return Ok(Some(binding.clone()));
            }
            if slots.is_alone() {
                return Ok(None);
            }
        }
        let Some(scope) = T::scope(self)? else {
            self.plain().set(self.own_mapping());
            return Ok(None);
        };
        let sharing = self.sharing_or_new()?;
        // Who has it may be reading the beginning of the image's file.
        let _lock = lock_killable(&sharing.lock)?;
        {
            let mut slots = sharing.slots.lock();
            if let Some(binding) = slots.open() {
                return Ok(Some(binding.clone()));
            }
            if slots.is_alone() {
                return Ok(None);
            }
        }
        let binding = match scope {
            Scope::Content(domain) => self.bind_by_content(domain)?,
            Scope::Fingerprint(domain, fingerprint) => {
                let key = Key::of_fingerprint::<KernelSha256>(domain, self.size(), &fingerprint);
                self.bind_to(key, domain, true)?
            }
        };
        let shared = binding.shared();
        stats::trace::bind(
            self.sb().dev(),
            self.number(),
            self.size(),
            shared.number(),
            shared.identity().variant,
        );
        race_point!(c"bind");
        let mut slots = sharing.slots.lock();
        if !slots.bind(&binding) {
            return Ok(None);
        }
        // The file that is being opened gets its mapping.
        slots.open();
        T::counters(self.sb().info())?.add(Field::BoundInodes, 1);
        self.publish(&mut slots, &binding);
        drop(slots);
        Ok(Some(binding))
    }

    fn bind_to(&self, key: Key, domain: &Domain, trusted: bool) -> Result<Arc<Binding>> {
        let id = Identity {
            key,
            variant: 0,
            size: self.size(),
            domain: domain.id(),
            trusted,
        };
        let shared = SharedInode::get(&id, &Tables::<T>::SHARED_ASPACE_OPS)?;
        Binding::new(shared, T::counters(self.sb().info())?)
    }

    fn bind_by_content(&self, domain: &Domain) -> Result<Arc<Binding>> {
        let blocks = self.size().div_ceil(BLOCK_SIZE as u64);
        let count = blocks.min(KEY_DIGESTS as u64);
        let head = self.head(count, blocks);
        let folios = Folios::for_cache(0, head, KEY_DIGESTS.ilog2())?;
        let mut folios = fill_and_wait(
            folios,
            &self.plan(0, false),
            |pos| T::map(self, pos, false),
            UnderWay::new(self),
        )?;
        zero_tail(&mut folios, 0, self.size());

        let mut digests = [[0u8; 32]; KEY_DIGESTS];
        let digests = digests.get_mut(..count as usize).ok_or(EIO)?;
        let hashing = HashTime::start();
        let mut rest = &mut *digests;
        for bytes in folios.all() {
            let here = (bytes.len() / BLOCK_SIZE).min(rest.len());
            let (now, later) = rest.split_at_mut(here);
            digest_blocks::<KernelSha256>(bytes, now);
            rest = later;
        }
        let counters = T::counters(self.sb().info())?;
        hashing.stop(counters, count);

        let key = Key::of_content::<KernelSha256>(domain, self.size(), digests);
        let binding = self.bind_to(key, domain, false)?;
        let shared = binding.shared();
        match shared.content().settle(shared, 0, digests)? {
            Settled::Agree { adopted } => {
                self.count_settled(counters, 0, adopted, count);
            }
            // The key is made of the digests, so these cannot differ.
            Settled::Differ { .. } => return Err(EIO),
        }
        binding.verify(0..count)?;
        let mut first = 0;
        for bytes in folios.all() {
            // A block further on that differs is for who reads it to find.
            if first >= count && self.compare(&binding, first, bytes)?.is_some() {
                return Ok(binding);
            }
            first += (bytes.len() / BLOCK_SIZE) as u64;
        }
        race_point!(c"bind_head");
        // What is elsewhere is not needed here.
        let absent = resident(&binding, 0, head) < head;
        if absent && shared.content().next_alias(0..head).is_none() {
            // SAFETY: The mapping is the shared inode's, and these bytes have the digests recorded there.
            unsafe { folios.give(shared.mapping(), 0) };
            self.enter(&binding, 0..head);
        }
        Ok(binding)
    }

    /// How many blocks are read together with the first `count` of a file of `blocks`: those that are
    /// decoded with them.
    fn head(&self, count: u64, blocks: u64) -> u64 {
        if !T::is_encoded(self) {
            return count;
        }
        let around = T::around(self, 0..count << BLOCK_SHIFT);
        let end = around.end.div_ceil(BLOCK_SIZE as u64);
        if end > HEAD_BLOCKS {
            return count;
        }
        end.max(count).min(blocks)
    }

    /// Verifies blocks, and returns how many from `blocks.start` on are verified: at least one. Blocks
    /// that are not resident come into the page cache by this.
    ///
    /// # Safety
    ///
    /// `file` is an open file of this inode.
    pub(super) unsafe fn ensure(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result<u64, Unready> {
        let mut at = blocks.start;
        while at < blocks.end {
            let run = binding.run(at..blocks.end);
            if run != 0 {
                at += run;
                continue;
            }
            // SAFETY: By the function's safety requirements.
            let step = unsafe { self.verify_at(file, binding, at..blocks.end) };
            let step = match step {
                Err(_) if !self.is_current(binding) => Err(Unready::Left),
                Ok(()) if is_dying() => Err(Unready::Failed(EINTR)),
                other => other,
            };
            match step {
                Ok(()) => {}
                Err(_) if at > blocks.start => break,
                Err(why) => return Err(why),
            }
        }
        Ok(at - blocks.start)
    }

    /// Verifies all of these blocks.
    ///
    /// # Safety
    ///
    /// As for [`Inode::ensure`].
    pub(super) unsafe fn ensure_all(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result<(), Unready> {
        let mut at = blocks.start;
        while at < blocks.end {
            // SAFETY: By the function's safety requirements.
            at += unsafe { self.ensure(file, binding, at..blocks.end) }?.max(1);
        }
        Ok(())
    }

    /// One step towards the first of these blocks being verified.
    ///
    /// # Safety
    ///
    /// As for [`Inode::ensure`].
    unsafe fn verify_at(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result<(), Unready> {
        let first = blocks.start..blocks.start + 1;
        let content = binding.shared().content();
        if content.next_alias(first.clone()).is_none() {
            let mapping = binding.shared().mapping();
            let want = (blocks.end - blocks.start) as usize;
            // SAFETY: By the function's safety requirements. A page that is not resident is read from
            // this inode's image, and the block verified by that.
            unsafe { self.page_in(file, mapping, blocks.start as usize, want) }?;
            if binding.run(first) != 0 {
                return Ok(());
            }
        }
        race_point!(c"verify_other");
        // It is resident through another inode, here or elsewhere.
        self.verify_resident(binding, blocks)
            .map_err(|err| match err {
                // What is kept about the file cannot be charged to the reader's cgroup. Its own page cache
                // needs nothing of that.
                err if err == ENOMEM => Unready::Busy,
                err => Unready::Failed(err),
            })
    }

    /// Verifies the first of these blocks, which is resident, and those that lie in the same window.
    ///
    /// A window fails as a whole: because of another block, or of a signal that ended the reader in whose
    /// name it was read. Shorter ones are tried, down to the block alone.
    fn verify_resident(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result {
        let at = blocks.start;
        let (mut result, mut len) = match self.window(binding, blocks.clone()) {
            Ok(None) => return Ok(()),
            Ok(Some(window)) => (window.over.wait(), window.blocks.end.saturating_sub(at)),
            Err(err) => (Err(err), blocks.end - at),
        };
        let mut alone = false;
        while result.is_err() && !alone {
            if binding.run(at..at + 1) != 0 {
                return Ok(());
            }
            if is_dying() || !self.is_current(binding) {
                break;
            }
            len = (len / 2).max(1);
            alone = len == 1;
            result = self
                .short_window(binding, at..at + len)
                .and_then(|window| window.over.wait());
        }
        result
    }

    /// Waits until another window may be started, or `enough` says that none is needed.
    fn windows<'a>(
        &self,
        binding: &'a Arc<Binding>,
        enough: impl Fn(&Ahead) -> bool,
    ) -> Result<MutexGuard<'a, Ahead>> {
        loop {
            let mut ahead = lock_killable(binding.windows())?;
            ahead.forget_ended();
            let Some(other) = ahead.in_the_way().filter(|_| !enough(&ahead)) else {
                return Ok(ahead);
            };
            drop(ahead);
            // How it ends is for those to know who want its blocks.
            let _ = other.over.wait();
            if is_dying() || !self.is_current(binding) {
                return Err(EINTR);
            }
        }
    }

    /// A new window of these blocks, though others may be verifying some of them.
    fn short_window(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<Arc<Window>> {
        let mut ahead = self.windows(binding, |_| false)?;
        let (next, len) = (blocks.end, blocks.end - blocks.start);
        let window = self.open_window(binding, blocks, false)?;
        ahead.lengths.restart(next, len);
        ahead.add(&window);
        Ok(window)
    }

    /// The window with the first of these blocks: one that is under way, or a new one. `None`: that
    /// block is verified by now. If the reader is sequential, the window after it is started, too.
    fn window(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<Option<Arc<Window>>> {
        let at = blocks.start;
        // A window that has ended has noted before what it verified.
        let verified = || binding.run(at..at + 1) != 0;
        let mut ahead = self.windows(binding, |ahead| ahead.find(at).is_some() || verified())?;
        let (window, sequential) = match ahead.find(at) {
            Some(window) => {
                // The reader whose window it is has seen to the next one; else this is that reader.
                let sequential = window.is_ahead;
                (window, sequential)
            }
            None if verified() => return Ok(None),
            None => {
                let (len, sequential) = ahead.lengths.open(at, blocks.end - at);
                let window = self.start_window(binding, at, len, false)?;
                ahead.lengths.close(window.blocks.end);
                ahead.add(&window);
                (window, sequential)
            }
        };
        let next = window.blocks.end;
        let may_go_on = sequential && next < binding.blocks();
        if may_go_on && ahead.in_the_way().is_none() && ahead.find(next).is_none() {
            let (len, _) = ahead.lengths.open(next, 1);
            // Only what is there and not verified is worth it; what fails now will fail again for
            // who needs it.
            if binding.run(next..next + 1) == 0 && present(binding, next, 1) != 0 {
                if let Ok(window) = self.start_window(binding, next, len, true) {
                    ahead.lengths.close(window.blocks.end);
                    ahead.add(&window);
                }
            }
        }
        Ok(Some(window))
    }

    /// Starts to verify up to `len` blocks from `start` on: those that are resident and not verified.
    /// `is_ahead`: nobody waits for it yet.
    fn start_window(
        &self,
        binding: &Arc<Binding>,
        start: u64,
        len: u64,
        is_ahead: bool,
    ) -> Result<Arc<Window>> {
        let wanted = start;
        let (start, len) = self.whole_extents(binding, start, len);
        let left = binding.blocks().saturating_sub(start);
        let len = present(binding, start, len.min(left)).max(wanted - start + 1);
        let mut end = wanted + 1;
        while end < start + len && binding.run(end..end + 1) == 0 {
            end += 1;
        }
        self.open_window(binding, start..end, is_ahead)
    }

    /// Starts to verify these blocks.
    fn open_window(
        &self,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
        is_ahead: bool,
    ) -> Result<Arc<Window>> {
        let (start, len) = (blocks.start, blocks.end - blocks.start);
        let window = Window::new(blocks, is_ahead)?;
        let folios = Folios::scratch(start, len, KEY_DIGESTS.ilog2())?;
        let filled = WindowFill {
            under_way: UnderWay::new(self),
            binding: binding.clone(),
            window: window.clone(),
        };
        self.fill_from_image(folios, &self.plan(start << BLOCK_SHIFT, false), filled);
        Ok(window)
    }

    /// These blocks, and those around them that are decoded together with them and are not verified yet.
    fn whole_extents(&self, binding: &Binding, start: u64, len: u64) -> (u64, u64) {
        if !T::is_encoded(self) {
            return (start, len);
        }
        let blocks = start..start.saturating_add(len).min(binding.blocks());
        let around = T::around(self, start << BLOCK_SHIFT..blocks.end << BLOCK_SHIFT);
        let first = around.start >> BLOCK_SHIFT;
        let end = around.end.div_ceil(BLOCK_SIZE as u64).max(blocks.end);
        let mut at = start;
        while at > first && binding.run(at - 1..at) == 0 {
            at -= 1;
        }
        if present(binding, at, start - at) < start - at {
            at = start;
        }
        (at, end - at)
    }
}

/// How many pages from `start` on, up to `len`, are in the shared inode's page cache without a gap.
fn resident(binding: &Binding, start: u64, len: u64) -> u64 {
    let mapping = binding.shared().mapping();
    // SAFETY: The mapping lives as long as the binding.
    unsafe { raw::erofs_shared_resident(mapping, start as usize, len as usize, false) as u64 }
}

/// How many pages from `start` on, up to `len`, are there or elsewhere without a gap.
fn present(binding: &Binding, start: u64, len: u64) -> u64 {
    let content = binding.shared().content();
    let mut count = 0;
    while count < len {
        let at = start.saturating_add(count);
        let here = resident(binding, at, len - count);
        count += here;
        let at = start.saturating_add(count);
        let elsewhere = content.alias_run(at..at.saturating_add(len - count));
        count += elsewhere;
        if here == 0 && elsewhere == 0 {
            break;
        }
    }
    count
}

impl<T: FileSystem> Tables<T> {
    /// How the page cache of a shared inode is filled.
    pub(super) const SHARED_ASPACE_OPS: bindings::address_space_operations =
        bindings::address_space_operations {
            read_folio: Some(Self::shared_read_folio),
            readahead: Some(Self::shared_readahead),
            direct_IO: Some(bindings::noop_direct_IO),
            ..pin_init::zeroed()
        };

    /// Gives a file that is being opened the page cache of its shared inode, which is looked for if this is
    /// the inode's first open.
    ///
    /// # Safety
    ///
    /// `file` is being opened, by `->open`, and one of `inode`.
    #[inline(never)]
    pub(super) unsafe fn share_file(inode: &Inode<T>, file: *mut bindings::file) -> Result {
        let binding = match inode.bind() {
            Ok(Some(binding)) => binding,
            Ok(None) => return Ok(()),
            Err(err) if err == EINTR || err == ERESTARTSYS => return Err(EINTR),
            // It stays unbound, and the read that meets the error returns it.
            Err(_) => return Ok(()),
        };
        // SAFETY: Nobody has used the file yet. The inode holds the binding, and this the shared inode,
        // until it is evicted: longer than there are files.
        unsafe { (*file).f_mapping = binding.shared().mapping() };
        Ok(())
    }

    /// Sets up read-ahead by the device's setting: the VFS took that of the internal filesystem, 0.
    ///
    /// # Safety
    ///
    /// `file` is an open file of `T`.
    #[inline(always)]
    pub(super) unsafe fn ready_readahead(file: *mut bindings::file) {
        // SAFETY: By the function's safety requirements.
        unsafe {
            // Other threads with this file may do the same.
            let ra_pages = &raw mut (*file).__bindgen_anon_3.f_ra.ra_pages;
            if ra_pages.read_volatile() == 0 {
                ra_pages.write_volatile(file_inode::<T>(file).ra_pages());
            }
        }
    }

    /// # Safety
    ///
    /// `address_space_operations::readahead` of a shared inode.
    unsafe extern "C" fn shared_readahead(rac: *mut bindings::readahead_control) {
        // SAFETY: By the function's safety requirements. A file that is not of `T` may have this
        // mapping (coda gives its files that of the file below): it is not looked into.
        let (inode, mapping) = unsafe {
            if !is_file_of::<T>((*rac).file) {
                return;
            }
            (file_inode::<T>((*rac).file), (*rac).mapping)
        };
        let FileMapping::Shared(binding) = inode.through(mapping) else {
            // The VFS drops the folios.
            return;
        };
        let elsewhere = |pages| inode.next_elsewhere(&binding, pages);
        // SAFETY: `rac` is valid.
        unsafe {
            Self::fill_readahead(inode, rac, elsewhere, || CacheFill {
                under_way: UnderWay::new(inode),
                binding: binding.clone(),
            });
        }
    }

    /// Fills the folios that a read-ahead is for, up to the first that `elsewhere` finds not to be needed;
    /// and those that come with them for little more.
    ///
    /// # Safety
    ///
    /// `rac` is the valid argument of `->readahead`.
    unsafe fn fill_readahead<F: Filled>(
        inode: &Inode<T>,
        rac: *mut bindings::readahead_control,
        elsewhere: impl Fn(Range<u64>) -> u64,
        filled: impl Fn() -> F,
    ) {
        // SAFETY: By the function's safety requirements.
        let pages = unsafe { Folios::next_of_readahead(rac) };
        let start = pages.start;
        let mut until = elsewhere(pages.clone());
        if until > start && T::is_encoded(inode) {
            let bytes = start << PAGE_SHIFT..pages.end << PAGE_SHIFT;
            let around = T::around(inode, bytes.clone());
            let around = around.start.min(bytes.start)..around.end.max(bytes.end);
            if around != bytes {
                let len = around.end - around.start;
                // SAFETY: By the function's safety requirements.
                let pages = unsafe {
                    bindings::readahead_expand(rac, around.start as i64, len as usize);
                    Folios::next_of_readahead(rac)
                };
                until = elsewhere(start..pages.end);
            }
        }
        loop {
            let mut max = FILL_BYTES;
            if T::is_encoded(inode) {
                // An extent is not cut in two, each of which would take decoding the first.
                // SAFETY: `rac` is valid.
                let pages = unsafe { Folios::next_of_readahead(rac) };
                let pos = pages.start << PAGE_SHIFT;
                let end = pos.saturating_add(max as u64);
                if pages.end << PAGE_SHIFT > end {
                    let end = T::around(inode, pos..end).end;
                    max = end.saturating_sub(pos) as usize;
                }
            }
            // SAFETY: `rac` is valid.
            let Ok(mut folios) = (unsafe { Folios::of_readahead(rac, max, until) }) else {
                return;
            };
            if folios.is_empty() {
                return;
            }
            folios.set_reader(inode.sb().as_ptr().cast());
            let plan = inode.plan(folios.pos(), true);
            inode.fill_from_image(folios, &plan, filled());
        }
    }

    /// As [`Tables::readahead`], of an inode that has to be decoded.
    ///
    /// # Safety
    ///
    /// `rac` is the valid argument of `->readahead` of the inode's own mapping.
    pub(super) unsafe fn readahead_encoded(
        inode: &Inode<T>,
        rac: *mut bindings::readahead_control,
    ) {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let nowhere = |_| u64::MAX;
            Self::fill_readahead(inode, rac, nowhere, || OwnFill {
                under_way: UnderWay::new(inode),
            });
        }
    }

    /// As [`Tables::read_folio`], of an inode that has to be decoded.
    ///
    /// # Safety
    ///
    /// `folio` is locked, one of the inode's own mapping, and the lock passes on.
    pub(super) unsafe fn read_folio_encoded(
        inode: &Inode<T>,
        folio: *mut bindings::folio,
    ) -> Result {
        let folio = core::ptr::NonNull::new(folio).ok_or(EIO)?;
        // SAFETY: By the function's safety requirements.
        let folios = unsafe { Folios::of_locked(folio)? };
        let plan = inode.plan(folios.pos(), false);
        let under_way = UnderWay::new(inode);
        inode.fill_from_image(folios, &plan, OwnFill { under_way });
        Ok(())
    }

    /// # Safety
    ///
    /// `address_space_operations::read_folio` of a shared inode.
    unsafe extern "C" fn shared_read_folio(
        file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> kernel::ffi::c_int {
        let Some(at) = core::ptr::NonNull::new(folio) else {
            return EIO.to_errno();
        };
        // SAFETY: The folio is locked, and the lock passes on.
        let mut folios = match unsafe { Folios::of_locked(at) } {
            Ok(folios) => folios,
            Err(err) => return err.to_errno(),
        };
        // SAFETY: A file, or null.
        if !unsafe { is_file_of::<T>(file) } {
            return EIO.to_errno();
        }
        // SAFETY: The file is one of a real inode of `T`; the folio is locked, so its mapping is
        // stable.
        let (inode, mapping) = unsafe {
            (
                file_inode::<T>(file),
                (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping,
            )
        };
        let binding = match inode.through(mapping) {
            FileMapping::Shared(binding) => binding,
            FileMapping::Stale(Some(binding)) if binding.shared().mapping() == mapping => binding,
            _ => return EIO.to_errno(),
        };
        folios.set_reader(inode.sb().as_ptr().cast());
        let plan = inode.plan(folios.pos(), false);
        let filled = CacheFill {
            under_way: UnderWay::new(inode),
            binding,
        };
        inode.fill_from_image(folios, &plan, filled);
        0
    }
}

/// The inodes of a superblock that are bound to shared inodes now.
///
/// # Invariants
///
/// The superblock is allocated as long as this is used.
pub(crate) struct BoundInodes<T: FileSystem> {
    sb: SuperPtr,
    _fs: core::marker::PhantomData<T>,
}

impl<T: FileSystem> Super<T> {
    /// For who looks at them until `put_super` is over.
    pub(crate) fn bound_inodes(&self) -> BoundInodes<T> {
        BoundInodes {
            sb: self.owner(),
            _fs: core::marker::PhantomData,
        }
    }
}

impl<T: FileSystem> BoundInodes<T> {
    /// Calls `f`, which may sleep, with the shared inode of each. Waits for no mount or umount: `EAGAIN`
    /// while one is under way.
    pub(crate) fn for_each(&self, f: &mut dyn FnMut(&SharedInode)) -> Result {
        /// # Safety
        ///
        /// `inode` is an inode of a superblock of `T` that is not new, and to which somebody has a
        /// reference; `data` is a `&mut dyn FnMut(&SharedInode)`.
        unsafe extern "C" fn visit<T: FileSystem>(
            inode: *mut bindings::inode,
            data: *mut kernel::ffi::c_void,
        ) {
            // SAFETY: By the function's safety requirements.
            let (inode, f) = unsafe {
                (
                    Inode::<T>::from_raw(inode),
                    &mut *data.cast::<&mut dyn FnMut(&SharedInode)>(),
                )
            };
            if let Some(sharing) = inode.sharing() {
                let binding = sharing.slots.lock().current().cloned();
                if let Some(binding) = binding {
                    f(binding.shared());
                }
            }
        }
        let mut f = f;
        // SAFETY: By the type invariants the superblock is allocated; `visit` gets what it asks for.
        kernel::error::to_result(unsafe {
            raw::erofs_shared_visit_mounted(self.sb.as_ptr(), Some(visit::<T>), (&raw mut f).cast())
        })
    }
}

/// Whether `file` is an open file of a superblock of `T`.
///
/// # Safety
///
/// `file` is null, or a live file.
unsafe fn is_file_of<T: FileSystem>(file: *mut bindings::file) -> bool {
    // SAFETY: By the function's safety requirements; a file has an inode, that a superblock, and that
    // its operations.
    unsafe {
        !file.is_null()
            && core::ptr::eq((*(*(*file).f_inode).i_sb).s_op, Tables::<T>::SUPER_OPS_REF)
    }
}
