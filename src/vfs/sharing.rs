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
    bindings,
    error::from_err_ptr,
    new_mutex, new_spinlock,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};

use super::{
    superblock::{file_inode, UnderWay},
    FileSystem, Inode, Super, Tables,
};
use crate::{
    io::{
        device::SuperPtr,
        fill::{fill, fill_and_wait, zero_tail, Filled, Keeper, Plan},
        folios::Folios,
        wait::cond_resched,
    },
    raw,
    share::{
        binding::{Window, MAX_BINDINGS},
        digest::{digest_blocks, Digest, Key, KEY_DIGESTS},
        index,
        inode::MAX_ORDER,
        sha256::KernelSha256,
        Binding, Domain, Identity, Scope, Settled, SharedInode, Slots, BLOCK_SHIFT, BLOCK_SIZE,
    },
    stats::{self, Counters, Field},
};

/// Bytes that one fill reads and one worker hashes at most (but for a folio that is larger).
const FILL_BYTES: usize = 512 << 10;

/// Bytes that a read verifies before it copies them.
const READ_BYTES: u64 = 256 << 10;

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
}

impl Sharing {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- new_mutex!((), "erofs_shared::Sharing::lock"),
            slots <- new_spinlock!(Slots::new(), "erofs_shared::Sharing::slots"),
            reported: Atomic::new(0),
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
enum Through {
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
    fn filled(self, mut folios: Folios, result: Result) {
        if result.is_err() {
            // The list's drop leaves the folios not uptodate; who needs one reads it again by itself.
            return;
        }
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
            folios.finish_first();
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
        let result = result.and_then(|()| {
            zero_tail(&mut folios, block << BLOCK_SHIFT, inode.size());
            while let Some(bytes) = folios.first() {
                inode.check(&self.binding, block, bytes)?;
                block += (bytes.len() / BLOCK_SIZE) as u64;
                folios.finish_first();
                cond_resched();
            }
            Ok(())
        });
        self.window.over.done(result);
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
    fn filled(self, mut folios: Folios, result: Result) {
        if result.is_err() {
            // As for `CacheFill`.
            return;
        }
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
        self.plain_mapping() == mapping
    }

    /// Pages that its device wants to be read ahead.
    fn ra_pages(&self) -> u32 {
        // SAFETY: A live inode has a live superblock, which has a backing device.
        unsafe { (*(*self.sb().as_ptr()).s_bdi).ra_pages as u32 }
    }

    fn through(&self, mapping: *mut bindings::address_space) -> Through {
        if mapping == self.own_mapping() {
            return Through::Own;
        }
        match self.sharing().and_then(|sharing| sharing.current()) {
            Some(binding) if binding.shared().mapping() == mapping => Through::Shared(binding),
            other => Through::Stale(other),
        }
    }

    fn is_current(&self, binding: &Arc<Binding>) -> bool {
        self.sharing().is_some_and(|sharing| {
            let slots = sharing.slots.lock();
            slots.current().is_some_and(|at| Arc::ptr_eq(at, binding))
        })
    }

    /// Lets files use a fully verified shared inode without more ado.
    pub(super) fn publish_plain(&self, binding: &Arc<Binding>) {
        let Some(sharing) = self.sharing() else {
            return;
        };
        let slots = sharing.slots.lock();
        if slots.current().is_some_and(|at| Arc::ptr_eq(at, binding)) {
            self.publish(binding);
        }
    }

    /// As [`Inode::publish_plain`]. The caller holds `slots`, in which `binding` is the current one.
    fn publish(&self, binding: &Binding) {
        if binding.is_complete() {
            let shared = binding.shared();
            // SAFETY: `plain` is freed with the inode, which calls `withdraw` for all its bindings before, in
            // `evict_sharing`. Nobody has a file of it then, so nobody comes here any more.
            unsafe { shared.content().publish(shared, self.plain()) };
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
        let Some((block, digest)) = self.compare(binding, first, bytes)? else {
            return Ok(());
        };
        T::counters(self.sb().info())?.add(Field::BlocksDiverged, 1);
        self.diverge(binding, block, &digest);
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
                    if binding.verify(first..first + count as u64) {
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
        let Some(sharing) = self.sharing() else {
            return;
        };
        let slots = sharing.slots.lock();
        for binding in slots.all() {
            binding.shared().content().withdraw(self.plain());
        }
        let bound = slots.current().is_some();
        drop(slots);
        if bound {
            self.count_unbound();
        }
    }

    /// Block `block` of this inode has another digest than that of the shared inode to which it is
    /// bound: binds it to the next variant that agrees with all that it has verified, or to a new one.
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
        let next = self.next_variant(old, block, digest).ok();
        let mut slots = sharing.slots.lock();
        old.shared().content().withdraw(self.plain());
        match &next {
            Some(binding) if slots.push(binding) => {
                self.plain().set(core::ptr::null_mut());
                self.publish(binding);
            }
            _ => {
                slots.leave();
                self.count_unbound();
                self.plain().set(self.own_mapping());
            }
        }
    }

    fn next_variant(&self, old: &Binding, block: u64, digest: &Digest) -> Result<Arc<Binding>> {
        let mut id = *old.shared().identity();
        for _ in 0..MAX_BINDINGS {
            id.variant = id.variant.checked_add(1).ok_or(EOVERFLOW)?;
            if id.variant as usize >= MAX_BINDINGS {
                break;
            }
            let shared = SharedInode::get(&id, &Tables::<T>::SHARED_ASPACE_OPS)?;
            match shared.content().digest(block) {
                Some(theirs) if theirs != *digest => continue,
                _ => {}
            }
            let binding = Binding::new(shared, T::counters(self.sb().info())?)?;
            if !binding.carry_over(old, block)? {
                continue;
            }
            let digest = core::slice::from_ref(digest);
            let shared = binding.shared();
            if let Settled::Agree { .. } = shared.content().settle(shared, block, digest)? {
                binding.verify(block..block + 1);
                return Ok(binding);
            }
        }
        Err(ESTALE)
    }

    /// Binds this inode to its shared inode, at its first open. `None`: it keeps to its own page cache,
    /// for now or for good.
    fn bind(&self) -> Result<Option<Arc<Binding>>> {
        if self.size() == 0 || self.size() > MAX_SIZE {
            self.plain().set(self.own_mapping());
            return Ok(None);
        }
        if let Some(sharing) = self.sharing() {
            let slots = sharing.slots.lock();
            if let Some(binding) = slots.current() {
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
        let _lock = sharing.lock.lock();
        if let Some(binding) = sharing.current() {
            return Ok(Some(binding));
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
        let mut slots = sharing.slots.lock();
        if !slots.push(&binding) {
            return Ok(None);
        }
        T::counters(self.sb().info())?.add(Field::BoundInodes, 1);
        self.publish(&binding);
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
        let folios = Folios::scratch(0, head, KEY_DIGESTS.ilog2())?;
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
        binding.verify(0..count);
        let mut first = 0;
        for bytes in folios.all() {
            // A block further on that differs is for who reads it to find.
            if first >= count && self.compare(&binding, first, bytes)?.is_some() {
                return Ok(binding);
            }
            first += (bytes.len() / BLOCK_SIZE) as u64;
        }
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

    /// Has this inode verify blocks, and tells how many from `blocks.start` on are; at least one. Blocks
    /// that are not resident come into the page cache by this. `ESTALE`: it left the shared inode.
    ///
    /// # Safety
    ///
    /// `file` is an open file of this inode.
    pub(super) unsafe fn ensure(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result<u64> {
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
                Err(_) if !self.is_current(binding) => Err(ESTALE),
                // SAFETY: No preconditions.
                Ok(()) if unsafe { raw::erofs_shared_fatal_signal_pending() } => Err(EINTR),
                other => other,
            };
            match step {
                Ok(()) => {}
                Err(_) if at > blocks.start => break,
                Err(err) => return Err(err),
            }
        }
        Ok(at - blocks.start)
    }

    /// Has this inode verify all of these blocks.
    ///
    /// # Safety
    ///
    /// As for [`Inode::ensure`].
    unsafe fn ensure_all(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result {
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
    ) -> Result {
        if binding
            .shared()
            .content()
            .next_alias(blocks.start..blocks.start + 1)
            .is_some()
        {
            // It is elsewhere.
            return self.window(binding, blocks)?.over.wait();
        }
        let mapping = binding.shared().mapping();
        let (at, count) = (blocks.start as usize, (blocks.end - blocks.start) as usize);
        // SAFETY: The mapping lives as long as the binding. `file` is one of this inode's, so that its
        // read-ahead is filled from this inode's image. A folio that comes with a reference is given
        // back.
        unsafe {
            let mut folio = raw::erofs_shared_filemap_get(mapping, at);
            if folio.is_null() {
                raw::erofs_shared_ra_sync(mapping, file, at, count);
                folio = raw::erofs_shared_filemap_get(mapping, at);
            }
            if folio.is_null() {
                return read_folio(mapping, at, file);
            }
            raw::erofs_shared_ra_async(mapping, file, folio, at, count);
            let waited = raw::erofs_shared_folio_wait_killable(folio);
            let uptodate = raw::erofs_shared_folio_uptodate(folio);
            raw::erofs_shared_folio_put(folio);
            if waited < 0 {
                return Err(Error::from_errno(waited));
            }
            if !uptodate {
                return read_folio(mapping, at, file);
            }
        }
        if binding.run(blocks.start..blocks.start + 1) != 0 {
            return Ok(());
        }
        // It is there, but through another inode.
        self.window(binding, blocks)?.over.wait()
    }

    /// The window with the first of these blocks: one that is under way, or a new one. If the reader is
    /// sequential, the one after it is started, too.
    fn window(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<Arc<Window>> {
        let mut ahead = binding.windows().lock();
        for slot in &mut ahead.under_way {
            if slot.as_ref().is_some_and(|window| window.over.is_over()) {
                *slot = None;
            }
        }
        let find = |under_way: &[Option<Arc<Window>>; 2], block: u64| {
            let mut all = under_way.iter().flatten();
            all.find(|window| window.blocks.contains(&block)).cloned()
        };
        let (window, sequential) = match find(&ahead.under_way, blocks.start) {
            Some(window) => (window, true),
            None => {
                let want = blocks.end - blocks.start;
                let (len, sequential) = ahead.lengths.open(blocks.start, want);
                let window = self.start_window(binding, blocks.start, len)?;
                ahead.lengths.close(window.blocks.end);
                if let Some(slot) = ahead.under_way.iter_mut().find(|slot| slot.is_none()) {
                    *slot = Some(window.clone());
                }
                (window, sequential)
            }
        };
        let next = window.blocks.end;
        let may_go_on = sequential && next < binding.blocks();
        if may_go_on && find(&ahead.under_way, next).is_none() {
            if let Some(at) = ahead.under_way.iter().position(Option::is_none) {
                let (len, _) = ahead.lengths.open(next, 1);
                // Only what is there and not verified is worth it; what fails now will fail again for
                // who needs it.
                if binding.run(next..next + 1) == 0 && present(binding, next, 1) != 0 {
                    if let Ok(window) = self.start_window(binding, next, len) {
                        ahead.lengths.close(window.blocks.end);
                        if let Some(slot) = ahead.under_way.get_mut(at) {
                            *slot = Some(window);
                        }
                    }
                }
            }
        }
        Ok(window)
    }

    /// Starts to verify up to `len` blocks from `start` on: those that are resident and not verified.
    fn start_window(&self, binding: &Arc<Binding>, start: u64, len: u64) -> Result<Arc<Window>> {
        let wanted = start;
        let (start, len) = self.whole_extents(binding, start, len);
        let left = binding.blocks().saturating_sub(start);
        let len = present(binding, start, len.min(left)).max(wanted - start + 1);
        let mut end = wanted + 1;
        while end < start + len && binding.run(end..end + 1) == 0 {
            end += 1;
        }
        let window = Window::new(start..end)?;
        let folios = Folios::scratch(start, end - start, KEY_DIGESTS.ilog2())?;
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
    unsafe { raw::erofs_shared_resident(mapping, start as usize, len as usize) as u64 }
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

/// Has a page read into a page cache, in the name of `file`.
///
/// # Safety
///
/// `mapping` is live; `file` is an open file of an inode whose data it holds.
unsafe fn read_folio(
    mapping: *mut bindings::address_space,
    index: usize,
    file: *mut bindings::file,
) -> Result {
    // SAFETY: By the function's safety requirements. References are given back.
    unsafe {
        let mut folio = from_err_ptr(bindings::read_cache_folio(mapping, index, None, file));
        if folio.is_err() {
            // A large folio fails as a whole. Without it the page is read alone.
            bindings::invalidate_mapping_pages(mapping, index, index);
            folio = from_err_ptr(bindings::read_cache_folio(mapping, index, None, file));
        }
        raw::erofs_shared_folio_put(folio?);
    }
    Ok(())
}

/// The first page of a folio, and how many it has.
///
/// # Safety
///
/// `folio` is live, in a page cache.
unsafe fn place_of(folio: *mut bindings::folio) -> (u64, u64) {
    // SAFETY: By the function's safety requirements.
    unsafe {
        (
            (raw::erofs_shared_folio_pos(folio) >> PAGE_SHIFT) as u64,
            (raw::erofs_shared_folio_size(folio) >> PAGE_SHIFT) as u64,
        )
    }
}

/// The blocks in which these bytes of a file are.
fn blocks_of(pos: u64, len: u64, blocks: u64) -> Range<u64> {
    let end = pos.saturating_add(len).div_ceil(BLOCK_SIZE as u64);
    let start = pos >> BLOCK_SHIFT;
    start..end.min(blocks).max(start)
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

    /// Memory mappings of files that may have the pages of a shared inode.
    const SHARED_VM_OPS: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::shared_fault),
        map_pages: Some(Self::shared_map_pages),
        ..pin_init::zeroed()
    };

    /// A promoted constant, so that it has an address for good.
    const SHARED_VM_OPS_REF: &'static bindings::vm_operations_struct = &Self::SHARED_VM_OPS;

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
            if (*file).__bindgen_anon_3.f_ra.ra_pages == 0 {
                (*file).__bindgen_anon_3.f_ra.ra_pages = file_inode::<T>(file).ra_pages();
            }
        }
    }

    /// # Safety
    ///
    /// `address_space_operations::readahead` of a shared inode.
    unsafe extern "C" fn shared_readahead(rac: *mut bindings::readahead_control) {
        // SAFETY: By the function's safety requirements; the file is one of a real inode of `T`, as
        // all files with this mapping.
        let (inode, mapping) = unsafe {
            if (*rac).file.is_null() {
                return;
            }
            (file_inode::<T>((*rac).file), (*rac).mapping)
        };
        let Through::Shared(binding) = inode.through(mapping) else {
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
            let Ok(folios) = (unsafe { Folios::of_readahead(rac, max, until) }) else {
                return;
            };
            if folios.is_empty() {
                return;
            }
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
        let folios = match unsafe { Folios::of_locked(at) } {
            Ok(folios) => folios,
            Err(err) => return err.to_errno(),
        };
        if file.is_null() {
            return EIO.to_errno();
        }
        // SAFETY: The file is one of a real inode of `T`, as all files with this mapping; the folio is
        // locked, so its mapping is stable.
        let (inode, mapping) = unsafe {
            (
                file_inode::<T>(file),
                (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping,
            )
        };
        let binding = match inode.through(mapping) {
            Through::Shared(binding) => binding,
            Through::Stale(Some(binding)) if binding.shared().mapping() == mapping => binding,
            _ => return ESTALE.to_errno(),
        };
        let plan = inode.plan(folios.pos(), false);
        let filled = CacheFill {
            under_way: UnderWay::new(inode),
            binding,
        };
        inode.fill_from_image(folios, &plan, filled);
        0
    }

    /// Reads through the page cache when more is to be done than to copy.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    #[inline(never)]
    pub(super) unsafe fn read_shared(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: By the function's safety requirements.
        let (file, inode, nowait) = unsafe {
            let file = (*iocb).ki_filp;
            let nowait = (*iocb).ki_flags & raw::EROFS_SHARED_IOCB_NOWAIT as i32 != 0;
            (file, file_inode::<T>(file), nowait)
        };
        let mut total = 0isize;
        // The page that was read alone, after it could not be read with others.
        let mut alone = None;
        let end_of = |total: isize, err: Error| {
            if total > 0 {
                total
            } else {
                err.to_errno() as isize
            }
        };
        loop {
            // SAFETY: The file, the request and its destination are ours for the call.
            let (mapping, pos, left) = unsafe {
                (
                    (*file).f_mapping,
                    (*iocb).ki_pos as u64,
                    raw::erofs_shared_iov_bytes(to) as u64,
                )
            };
            if left == 0 || pos >= inode.size() {
                return total;
            }
            let through = if inode.is_plain(mapping) {
                Through::Own
            } else {
                inode.through(mapping)
            };
            let ready = match through {
                // After an error no more than the page that could be read.
                Through::Own if alone == Some(pos >> PAGE_SHIFT) => {
                    left.min(PAGE_SIZE as u64 - pos % PAGE_SIZE as u64)
                }
                Through::Own => left,
                Through::Shared(binding) => {
                    let want = left.min(READ_BYTES).min(inode.size() - pos);
                    let mut blocks = blocks_of(pos, want, binding.blocks());
                    let start = blocks.start;
                    if inode.has_aliases(&binding) {
                        // SAFETY: By the function's safety requirements.
                        let ret = unsafe {
                            Self::read_pieces(iocb, to, inode, &binding, blocks.clone(), nowait)
                        };
                        match ret {
                            Ok(0) => {}
                            Ok(copied) => {
                                total += copied as isize;
                                continue;
                            }
                            Err(err) if err == ESTALE => continue,
                            Err(err) => return end_of(total, err),
                        }
                        // The first is nowhere.
                        let shared = binding.shared();
                        shared.content().forget_aliases(start..start + 1);
                        blocks.end = inode
                            .next_elsewhere(&binding, blocks.clone())
                            .min(blocks.end);
                    }
                    let ready = if nowait {
                        match binding.run(blocks) {
                            0 => Err(EAGAIN),
                            run => Ok(run),
                        }
                    } else {
                        // SAFETY: The file is one of the inode's.
                        unsafe { inode.ensure(file, &binding, blocks) }
                    };
                    match ready {
                        Ok(run) => {
                            let until = start.saturating_add(run) << BLOCK_SHIFT;
                            until.saturating_sub(pos).min(want)
                        }
                        Err(err) if err == ESTALE => continue,
                        Err(err) => return end_of(total, err),
                    }
                }
                Through::Stale(binding) => {
                    if nowait {
                        return end_of(total, EAGAIN);
                    }
                    // SAFETY: By the function's safety requirements.
                    match unsafe { Self::read_stale(iocb, to, inode, binding) } {
                        Ok(0) => return end_of(total, EFAULT),
                        Ok(copied) => total += copied as isize,
                        Err(err) if err == ESTALE => {}
                        Err(err) => return end_of(total, err),
                    }
                    continue;
                }
            };
            // SAFETY: The request is ours; its destination is as it was after the call but for what was
            // copied.
            let ret = unsafe {
                let all = raw::erofs_shared_iov_bytes(to);
                raw::erofs_shared_iov_truncate(to, ready);
                let before = raw::erofs_shared_iov_bytes(to);
                let ret = Self::filemap_read(iocb, to);
                let copied = before - raw::erofs_shared_iov_bytes(to);
                raw::erofs_shared_iov_reexpand(to, all - copied);
                ret
            };
            if ret >= 0 {
                if ret == 0 {
                    return total;
                }
                total += ret;
                continue;
            }
            // An error of a page that went and came back with another content is none: the inode has
            // left.
            let stale = matches!(inode.through(mapping), Through::Stale(_));
            if stale && !nowait {
                continue;
            }
            // Nor is one of another page in the same large folio.
            let page = pos >> PAGE_SHIFT;
            let may_retry = ret == EIO.to_errno() as isize && mapping != inode.own_mapping();
            if may_retry && !nowait && alone != Some(page) {
                alone = Some(page);
                // SAFETY: The file is one of the inode's, and live.
                if unsafe { read_folio(mapping, page as usize, file) }.is_ok() {
                    continue;
                }
            }
            return if total > 0 { total } else { ret };
        }
    }

    /// `filemap_read()`, which never blocks if the request must not.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    #[inline(always)]
    pub(super) unsafe fn filemap_read(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let flags = (*iocb).ki_flags;
            if flags & raw::EROFS_SHARED_IOCB_NOWAIT as i32 == 0 {
                return bindings::filemap_read(iocb, to, 0);
            }
            // Reading ahead looks for extents, which may sleep on metadata.
            (*iocb).ki_flags = flags | raw::EROFS_SHARED_IOCB_NOIO as i32;
            let ret = bindings::filemap_read(iocb, to, 0);
            (*iocb).ki_flags = flags;
            ret
        }
    }

    /// A folio of where the inode's data is now, for a file with another mapping; all of the folio is
    /// verified. The caller gets a reference.
    ///
    /// # Safety
    ///
    /// `file` is an open file of `inode`.
    unsafe fn folio_for_stale(
        file: *mut bindings::file,
        inode: &Inode<T>,
        binding: Option<&Arc<Binding>>,
        index: usize,
    ) -> Result<core::ptr::NonNull<bindings::folio>> {
        let mapping = binding.map_or(inode.own_mapping(), |binding| binding.shared().mapping());
        let (mut first, mut count) = (index as u64, 1);
        loop {
            if let Some(binding) = binding {
                let blocks = first..first.saturating_add(count).min(binding.blocks());
                // SAFETY: By the function's safety requirements.
                unsafe { inode.ensure_all(file, binding, blocks)? };
            }
            // SAFETY: The mapping is live; the file is the inode's. The folio is referenced.
            let folio =
                unsafe { from_err_ptr(bindings::read_cache_folio(mapping, index, None, file)) };
            let folio = folio.map_err(|err| match binding {
                Some(binding) if !inode.is_current(binding) => ESTALE,
                _ => err,
            })?;
            let folio = core::ptr::NonNull::new(folio).ok_or(EIO)?;
            // SAFETY: The folio is live.
            let (pos, size) = unsafe { place_of(folio.as_ptr()) };
            (first, count) = (pos, size);
            if binding.map_or(true, |binding| binding.covers(first..first + count)) {
                return Ok(folio);
            }
            // SAFETY: The reference is ours.
            unsafe { raw::erofs_shared_folio_put(folio.as_ptr()) };
        }
    }

    /// Copies the rest of a page, from where the inode's data is now.
    ///
    /// # Safety
    ///
    /// As for `file_operations::read_iter`.
    unsafe fn read_stale(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
        inode: &Inode<T>,
        binding: Option<Arc<Binding>>,
    ) -> Result<usize> {
        // SAFETY: By the function's safety requirements; the folio's reference is given back.
        unsafe {
            let pos = (*iocb).ki_pos as u64;
            let index = (pos >> PAGE_SHIFT) as usize;
            let folio =
                Self::folio_for_stale((*iocb).ki_filp, inode, binding.as_ref(), index)?.as_ptr();
            let offset = (pos % PAGE_SIZE as u64) as usize;
            let left = inode.size().saturating_sub(pos);
            let len = left.min((PAGE_SIZE - offset) as u64) as usize;
            let page = raw::erofs_shared_folio_page(folio, index);
            let copied = bindings::copy_page_to_iter(page, offset, len, to);
            raw::erofs_shared_folio_put(folio);
            (*iocb).ki_pos += copied as i64;
            Ok(copied)
        }
    }

    /// # Safety
    ///
    /// `file_operations::splice_read`
    pub(super) unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        ppos: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        len: usize,
        flags: kernel::ffi::c_uint,
    ) -> isize {
        // SAFETY: By the function's safety requirements.
        unsafe {
            Self::ready_readahead(file);
            let inode = file_inode::<T>(file);
            loop {
                let mapping = (*file).f_mapping;
                let through = if inode.is_plain(mapping) {
                    Through::Own
                } else {
                    inode.through(mapping)
                };
                let len = match through {
                    Through::Own => len,
                    Through::Stale(_) => {
                        return bindings::copy_splice_read(file, ppos, pipe, len, flags)
                    }
                    Through::Shared(binding) => {
                        let pos = *ppos as u64;
                        if len == 0 || pos >= inode.size() {
                            return 0;
                        }
                        let want = (len as u64).min(READ_BYTES).min(inode.size() - pos);
                        let mut blocks = blocks_of(pos, want, binding.blocks());
                        let start = blocks.start;
                        if inode.has_aliases(&binding) {
                            let first = inode.next_elsewhere(&binding, blocks.clone());
                            if first == start {
                                let run = binding.shared().content().alias_run(blocks);
                                let until = start.saturating_add(run) << BLOCK_SHIFT;
                                let len = until.saturating_sub(pos).min(want) as usize;
                                return bindings::copy_splice_read(file, ppos, pipe, len, flags);
                            }
                            blocks.end = first.min(blocks.end);
                        }
                        match inode.ensure(file, &binding, blocks) {
                            Ok(run) => {
                                let until = start.saturating_add(run) << BLOCK_SHIFT;
                                until.saturating_sub(pos).min(want) as usize
                            }
                            Err(err) if err == ESTALE => continue,
                            Err(err) => return err.to_errno() as isize,
                        }
                    }
                };
                let ret = bindings::filemap_splice_read(file, ppos, pipe, len, flags);
                if ret < 0 && matches!(inode.through(mapping), Through::Stale(_)) {
                    continue;
                }
                return ret;
            }
        }
    }

    /// # Safety
    ///
    /// `file_operations::mmap_prepare`
    pub(super) unsafe extern "C" fn mmap_prepare(
        desc: *mut bindings::vm_area_desc,
    ) -> kernel::ffi::c_int {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let file = (*desc).file;
            Self::ready_readahead(file);
            let ret = bindings::generic_file_readonly_mmap_prepare(desc);
            if ret == 0 && (*file).f_mapping != file_inode::<T>(file).own_mapping() {
                (*desc).vm_ops = Self::SHARED_VM_OPS_REF;
            }
            ret
        }
    }

    /// # Safety
    ///
    /// `file_operations::fadvise`
    pub(super) unsafe extern "C" fn fadvise(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        len: bindings::loff_t,
        advice: kernel::ffi::c_int,
    ) -> kernel::ffi::c_int {
        // SAFETY: By the function's safety requirements.
        unsafe {
            Self::ready_readahead(file);
            let ret = bindings::generic_fadvise(file, offset, len, advice);
            if ret == 0 {
                // It took the setting of the internal filesystem, 0, or twice that.
                Self::ready_readahead(file);
                if advice as u32 == raw::EROFS_SHARED_FADV_SEQUENTIAL
                    && (*file).f_mapping != file_inode::<T>(file).own_mapping()
                {
                    let pages = file_inode::<T>(file).ra_pages();
                    (*file).__bindgen_anon_3.f_ra.ra_pages = pages.saturating_mul(2);
                }
            }
            ret
        }
    }

    /// # Safety
    ///
    /// `vm_operations_struct::fault` of a mapping of a file of `T`.
    unsafe extern "C" fn shared_fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
            let inode = file_inode::<T>(file);
            if inode.is_plain((*file).f_mapping) {
                let ret = bindings::filemap_fault(vmf);
                if ret & raw::EROFS_SHARED_VM_FAULT_SIGBUS == 0 || inode.is_plain((*file).f_mapping)
                {
                    return ret;
                }
            }
            Self::fault_slow(vmf, file, inode)
        }
    }

    /// # Safety
    ///
    /// As for `shared_fault`; `file` is the mapping's, `inode` its inode.
    #[inline(never)]
    unsafe fn fault_slow(
        vmf: *mut bindings::vm_fault,
        file: *mut bindings::file,
        inode: &Inode<T>,
    ) -> bindings::vm_fault_t {
        // SAFETY: By the function's safety requirements. After `filemap_fault` gave up the lock of the
        // mapping nothing of it is used but what this says.
        unsafe {
            let index = (*vmf).__bindgen_anon_1.pgoff;
            let mapping = (*file).f_mapping;
            let mut alone = false;
            loop {
                let through = inode.through(mapping);
                let binding = match through {
                    Through::Own => return bindings::filemap_fault(vmf),
                    Through::Stale(binding) => {
                        match Self::fault_stale(vmf, file, inode, binding.as_ref(), index) {
                            Ok(ret) => return ret,
                            Err(err) if err == ESTALE => continue,
                            Err(err) => return fault_error(err),
                        }
                    }
                    Through::Shared(binding) => binding,
                };
                let block = index as u64;
                if block >= binding.blocks() {
                    return bindings::filemap_fault(vmf);
                }
                // What is not resident `filemap_fault` reads in the name of this file, and that
                // verifies it. What is elsewhere is verified, then copied.
                let elsewhere = binding
                    .shared()
                    .content()
                    .next_alias(block..block + 1)
                    .is_some();
                if elsewhere || resident(&binding, block, 1) != 0 {
                    match inode.ensure(file, &binding, block..block + 1) {
                        Ok(_) => {}
                        Err(err) if err == ESTALE => continue,
                        Err(err) => return fault_error(err),
                    }
                }
                if elsewhere {
                    if let Err(err) = inode.copy_alias(&binding, block) {
                        return fault_error(err);
                    }
                }
                let ret = bindings::filemap_fault(vmf);
                if ret & raw::EROFS_SHARED_VM_FAULT_RETRY != 0 {
                    return ret;
                }
                if ret & raw::EROFS_SHARED_VM_FAULT_LOCKED == 0 {
                    if !inode.is_current(&binding) {
                        continue;
                    }
                    // The page may be one of a large folio in which another one cannot be read.
                    let sigbus = ret & raw::EROFS_SHARED_VM_FAULT_SIGBUS != 0;
                    if sigbus && !alone && read_folio(mapping, index, file).is_ok() {
                        alone = true;
                        continue;
                    }
                    return ret;
                }
                // The whole folio is going to be mapped.
                let folio = raw::erofs_shared_page_folio((*vmf).page);
                let (first, count) = place_of(folio);
                if binding.covers(first..first + count) {
                    return ret;
                }
                raw::erofs_shared_folio_unlock(folio);
                raw::erofs_shared_folio_put(folio);
                (*vmf).page = core::ptr::null_mut();
                let blocks = first..(first + count).min(binding.blocks());
                match inode.ensure_all(file, &binding, blocks) {
                    Ok(()) => {}
                    Err(err) if err == ESTALE => {}
                    Err(err) => return fault_error(err),
                }
            }
        }
    }

    /// Gives a stale file's mapping a page from where the inode's data is now.
    ///
    /// # Safety
    ///
    /// As for `fault_slow`.
    unsafe fn fault_stale(
        vmf: *mut bindings::vm_fault,
        file: *mut bindings::file,
        inode: &Inode<T>,
        binding: Option<&Arc<Binding>>,
        index: usize,
    ) -> Result<bindings::vm_fault_t> {
        if index as u64 >= inode.size().div_ceil(PAGE_SIZE as u64) {
            return Ok(raw::EROFS_SHARED_VM_FAULT_SIGBUS);
        }
        loop {
            // SAFETY: By the function's safety requirements. The folio comes with a reference, which
            // goes to the fault with its lock, or is given back.
            unsafe {
                let folio = Self::folio_for_stale(file, inode, binding, index)?.as_ptr();
                let ret = raw::erofs_shared_folio_lock_killable(folio);
                if ret < 0 {
                    raw::erofs_shared_folio_put(folio);
                    return Err(Error::from_errno(ret));
                }
                // It may have been evicted before it was locked.
                if (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping.is_null()
                    || !raw::erofs_shared_folio_uptodate(folio)
                {
                    raw::erofs_shared_folio_unlock(folio);
                    raw::erofs_shared_folio_put(folio);
                    continue;
                }
                (*vmf).page = raw::erofs_shared_folio_page(folio, index);
                return Ok(raw::EROFS_SHARED_VM_FAULT_LOCKED);
            }
        }
    }

    /// # Safety
    ///
    /// `vm_operations_struct::map_pages` of a mapping of a file of `T`.
    unsafe extern "C" fn shared_map_pages(
        vmf: *mut bindings::vm_fault,
        start: usize,
        end: usize,
    ) -> bindings::vm_fault_t {
        // The folios with `start` and with `end` are mapped whole, whatever the range asked; they are
        // aligned to their size, which has a limit.
        let folio = 1u64 << MAX_ORDER;
        let (first, last) = (start as u64, end as u64);
        let pages = first - first % folio..last - last % folio + folio;
        // SAFETY: By the function's safety requirements.
        unsafe {
            let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
            let inode = file_inode::<T>(file);
            let mapping = (*file).f_mapping;
            if inode.is_plain(mapping) || inode.may_map(mapping, pages) {
                return bindings::filemap_map_pages(vmf, start, end);
            }
        }
        0
    }
}

impl<T: FileSystem> Inode<T> {
    /// Whether these pages of a file's mapping are all verified. In atomic context.
    fn may_map(&self, mapping: *mut bindings::address_space, pages: Range<u64>) -> bool {
        self.sharing().is_some_and(|sharing| {
            let slots = sharing.slots.lock();
            slots.current().is_some_and(|binding| {
                binding.shared().mapping() == mapping && binding.covers(pages)
            })
        })
    }
}

/// What a fault returns for an error.
fn fault_error(err: Error) -> bindings::vm_fault_t {
    if err == ENOMEM {
        raw::EROFS_SHARED_VM_FAULT_OOM
    } else {
        raw::EROFS_SHARED_VM_FAULT_SIGBUS
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
