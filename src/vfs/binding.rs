// SPDX-License-Identifier: GPL-2.0

//! Which shared inode a real inode is bound to: found at the first open, and left when the content
//! turns out to be another.

use kernel::{
    prelude::*,
    sync::{
        lock::{spinlock::SpinLockBackend, Guard},
        Arc, SpinLock,
    },
};

use super::{
    in_flight::InFlight, shared_aops::SharedAops, sharing::HashTime, verify::resident, FileSystem,
    Inode,
};
use crate::{
    bindings,
    compat::code::EFSCORRUPTED,
    io::{fill::fill_and_wait, folio_list::FolioList, lock::lock_killable},
    race::race_point,
    share::{
        digest::{digest_blocks, Digest, Key, KEY_DIGESTS},
        sha256::KernelSha256,
        Binding, Bindings, Domain, Identity, Recording, Scope, SharedInode, Verify, BLOCK_SHIFT,
        BLOCK_SIZE,
    },
    stats::{self, Field},
};

/// The largest file that is shared, in bytes. What is known of its blocks takes up to 5 MiB before
/// the first of them is read, which an image of a few KiB must not get for any size it likes to
/// claim.
const MAX_SIZE: u64 = 64 << 30;

/// Blocks at the start of a file that are read at its first open because they are decoded with the
/// very first ones, at most: 512 KiB.
const HEAD_BLOCKS: u64 = 128;

/// How many of these there are at most because their extents begin in blocks that are read: 256
/// KiB, or up to the file's end.
const MORE_BLOCKS: u64 = 64;

/// The bindings of an inode, locked.
type SlotsGuard<'a> = Guard<'a, Bindings, SpinLockBackend>;

impl<T: FileSystem> Inode<T> {
    /// The inode is bound no more.
    fn count_unbound(&self) {
        self.counters().sub(Field::BoundInodes, 1);
    }

    /// The inode is being evicted.
    pub(super) fn evict_sharing(&self) {
        if let Some(binding) = self.sharing().current() {
            self.count_unbound();
            // Nothing refers to the inode through it any more.
            binding.retire_unused();
        }
    }

    /// Block `block` of this inode has another digest than that of the shared inode to which it is
    /// bound: binds it to that which is named by this difference.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: the reader's memory cgroup has no room for that. The inode stays, for others.
    pub(super) fn diverge(&self, old: &Arc<Binding>, block: u64, digest: &Digest) -> Result {
        let Some(slots) = self.sharing().slots() else {
            return Ok(());
        };
        if !self.is_current(old) {
            return Ok(());
        }
        let changed = old.verified_prefix(block..block + 1) != 0;
        let next = match self.variant(old, block, digest) {
            Err(err) if err == ENOMEM => return Err(err),
            // Without one the inode is bound anew at its next open.
            next => next.ok(),
        };
        race_point!(c"diverged");
        let mut guard = slots.lock();
        if !guard.is_current(old) {
            // Another block that differs was found meanwhile.
            drop(guard);
            if let Some(unused) = next {
                unused.retire_unused();
            }
            return Ok(());
        }
        let report = changed && guard.is_first_change();
        self.leave(guard, next);
        if report {
            T::report_change(self, block);
        }
        stats::trace::diverge(self.sb().dev(), self.number(), block);
        self.counters().add(Field::InodesDiverged, 1);
        Ok(())
    }

    /// Leaves the current shared inode, for `next` if there is one. `slots` are this inode's.
    fn leave(&self, mut slots: SlotsGuard<'_>, next: Option<Arc<Binding>>) {
        let left = slots.leave();
        self.fast_mapping().set(core::ptr::null_mut());
        let bound = next.as_ref().filter(|binding| slots.bind(binding));
        match bound {
            Some(binding) => self.publish(&mut slots, binding),
            None => {
                self.count_unbound();
                if slots.is_alone() {
                    self.fast_mapping().set(self.own_mapping().as_ptr());
                }
            }
        }
        drop(slots);
        if let Some(unused) = next.as_ref().filter(|_| bound.is_none()) {
            unused.retire_unused();
        }
        // This may free memory, and drop the last reference to the shared inode.
        if let Some(left) = left {
            left.retire();
        }
    }

    /// What the inode is bound to when its block `block` has the digest `digest`, and not that
    /// which `old` has.
    fn variant(&self, old: &Binding, block: u64, digest: &Digest) -> Result<Arc<Binding>> {
        let id = old.shared().identity().variant(block, digest)?;
        if id.verify == Verify::Bytes {
            return self.join(&id).map(|(binding, _)| binding);
        }
        let shared = SharedInode::get(&id, self.size(), &SharedAops::<T>::TABLE)?;
        let binding = Binding::new(shared, self.counters())?;
        let shared = binding.shared();
        let digests = core::slice::from_ref(digest);
        match shared.record_or_compare(block, digests)? {
            Recording::Agree { .. } => {}
            // The key is made of the digest, and it is recorded before all else.
            Recording::Differ { .. } => return Err(EIO),
        }
        binding.verify(block..block + 1)?;
        Ok(binding)
    }

    /// What an open of the inode gets if that is settled: a binding, or `Some(None)`, by which it
    /// keeps to its own page cache.
    fn settled(slots: &SpinLock<Bindings>) -> Option<Option<Arc<Binding>>> {
        let mut slots = slots.lock();
        match slots.open() {
            Some(binding) => Some(Some(binding.clone())),
            None => slots.is_alone().then_some(None),
        }
    }

    /// What the inode is to be bound to, by its data.
    fn bind_in(&self, scope: Scope<'_>) -> Result<Arc<Binding>> {
        match scope {
            Scope::Content(domain) => self.bind_by_content(domain),
            Scope::Bytes(domain) => self.bind_by_bytes(domain),
            Scope::Fingerprint(domain, key) => self.bind_to(key, domain, Verify::Nothing),
        }
    }

    /// Binds this inode to its shared inode, at its first open. `None`: it keeps to its own page
    /// cache, for now or for good.
    fn bind(&self) -> Result<Option<Arc<Binding>>> {
        if self.size() == 0 || self.size() > MAX_SIZE {
            self.fast_mapping().set(self.own_mapping().as_ptr());
            return Ok(None);
        }
        if let Some(settled) = self.sharing().slots().and_then(Self::settled) {
            return Ok(settled);
        }
        let Some(scope) = T::scope(self)? else {
            self.fast_mapping().set(self.own_mapping().as_ptr());
            return Ok(None);
        };
        let slots = self.sharing().slots_or_new()?;
        // The task that has it may be reading the beginning of the image's file.
        let _lock = lock_killable(&self.sharing().lock)?;
        if let Some(settled) = Self::settled(slots) {
            return Ok(settled);
        }
        let binding = self.bind_in(scope)?;
        let shared = binding.shared();
        stats::trace::bind(
            self.sb().dev(),
            self.number(),
            self.size(),
            shared.number(),
            shared.identity().variant,
        );
        race_point!(c"bind");
        let mut slots = slots.lock();
        if !slots.bind(&binding) {
            drop(slots);
            binding.retire_unused();
            return Ok(None);
        }
        // The file that is being opened gets its mapping.
        slots.open();
        self.counters().add(Field::BoundInodes, 1);
        self.publish(&mut slots, &binding);
        drop(slots);
        Ok(Some(binding))
    }

    /// Which shared inode it is, by this key.
    pub(super) fn identity(&self, key: Key, domain: &Domain, verify: Verify) -> Identity {
        Identity {
            key,
            variant: 0,
            domain: domain.id(),
            verify,
        }
    }

    fn bind_to(&self, key: Key, domain: &Domain, verify: Verify) -> Result<Arc<Binding>> {
        let id = self.identity(key, domain, verify);
        let shared = SharedInode::get(&id, self.size(), &SharedAops::<T>::TABLE)?;
        Binding::new(shared, self.counters())
    }

    fn bind_by_content(&self, domain: &Domain) -> Result<Arc<Binding>> {
        let (folios, count, head) = self.read_head()?;
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
        let counters = self.counters();
        hashing.stop(counters, count);

        let key = Key::of_content::<KernelSha256>(domain, self.size(), digests);
        let binding = self.bind_to(key, domain, Verify::Digests)?;
        let shared = binding.shared();
        match shared.record_or_compare(0, digests)? {
            Recording::Agree { adopted } => {
                self.count_recorded(counters, 0, adopted, count);
            }
            // The key is made of the digests, so these cannot differ.
            Recording::Differ { .. } => return Err(EIO),
        }
        binding.verify(0..count)?;
        let mut first = 0;
        for bytes in folios.all() {
            // A block further on that differs is found when it is read.
            if first >= count && self.compare(&binding, first, bytes)?.is_some() {
                return Ok(binding);
            }
            first += (bytes.len() / BLOCK_SIZE) as u64;
        }
        race_point!(c"bind_head");
        // What is elsewhere is not needed here.
        let absent = resident(&binding, 0, head, false) < head;
        if absent && shared.content().next_alias(0..head).is_none() {
            // SAFETY: `record_or_compare` and `compare` have found that these bytes have the
            // digests recorded there.
            unsafe { shared.give(0, folios, |_| true) };
            self.enter(&binding, 0..head);
        }
        Ok(binding)
    }

    /// Reads the start of the file: the blocks that say which shared inode it is, how many these
    /// are, and how many there are with those that are decoded with them.
    pub(super) fn read_head(&self) -> Result<(FolioList, u64, u64)> {
        let blocks = self.size().div_ceil(BLOCK_SIZE as u64);
        let count = blocks.min(KEY_DIGESTS as u64);
        let head = self.head(count, blocks);
        match self.read_start(head) {
            // What comes with the first blocks is not needed to say which shared inode it is.
            Err(err) if head > count && (err == EFSCORRUPTED || err == EIO) => {
                Ok((self.read_start(count)?, count, count))
            }
            folios => Ok((folios?, count, head)),
        }
    }

    /// Reads the first `count` blocks of the file, by folios as large as what is read at the first
    /// open.
    pub(super) fn read_start(&self, count: u64) -> Result<FolioList> {
        let folios = FolioList::for_cache(0, count, KEY_DIGESTS.ilog2())?;
        self.trace_read(0, folios.bytes());
        let mut folios = fill_and_wait(
            folios,
            &self.plan(0, false),
            T::map_in_order(self),
            InFlight::new(self),
        )?;
        folios.zero_tail(0, self.size());
        Ok(folios)
    }

    /// How many blocks are read together with the first `count` of a file of `blocks`: those that
    /// are decoded with them.
    fn head(&self, count: u64, blocks: u64) -> u64 {
        if !T::is_compressed(self) {
            return count;
        }
        let around = T::expand_to_extents(self, 0..count << BLOCK_SHIFT);
        let end = around.end.div_ceil(BLOCK_SIZE as u64);
        if end > HEAD_BLOCKS {
            return count;
        }
        let mut end = end.max(count).min(blocks);
        // An extent that begins in the last of these blocks would be decoded again for what
        // follows: it is taken, too. (LZ4 decodes no more than it has to, and has no such extents
        // here.)
        while end < blocks {
            let last = (end - 1) << BLOCK_SHIFT..end << BLOCK_SHIFT;
            let last = T::expand_to_extents(self, last).end;
            let next = last.div_ceil(BLOCK_SIZE as u64).min(blocks);
            let most = if next == blocks {
                HEAD_BLOCKS
            } else {
                MORE_BLOCKS
            };
            if next <= end || next > most {
                break;
            }
            end = next;
        }
        end
    }

    /// Gives a file that is being opened the page cache of its shared inode, which is looked for if
    /// this is the inode's first open.
    ///
    /// # Safety
    ///
    /// * `file` is being opened by this task, in `->open`.
    /// * It is a file of this inode.
    #[inline(never)]
    pub(super) unsafe fn share_file(&self, file: *mut bindings::file) -> Result {
        let binding = match self.bind() {
            Ok(Some(binding)) => binding,
            Ok(None) => return Ok(()),
            Err(err) if err == EINTR || err == ERESTARTSYS => return Err(EINTR),
            // It stays unbound, and the read that meets the error returns it.
            Err(_) => return Ok(()),
        };
        // SAFETY: The file has not been used yet. The inode holds the binding, and this the shared
        // inode, until it is evicted: longer than there are files.
        unsafe { (*file).f_mapping = binding.shared().mapping().as_ptr() };
        Ok(())
    }
}
