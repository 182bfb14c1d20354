// SPDX-License-Identifier: GPL-2.0

//! How open files of real inodes get at the page cache of shared inodes, and how that is filled.
//! `binding` says which shared inode it is; `verify` looks at what others have brought in.
//!
//! A file that was opened while its inode was bound has `f_mapping` of the shared inode, for good,
//! since mappings of memory may hang on it. If the inode leaves that shared inode, the file is
//! *stale*: its reads are copied from where the inode's data is now, and its faults map pages of
//! the inode's own page cache.
//!
//! Locks, outer ones first: [`lock`](super::state::Sharing::lock) or `Binding::windows` →
//! `share::table::Writer`; `Sharing::slots` → `Binding::known`, both spinlocks.

use core::ops::Range;

use kernel::{error::to_result, page::PAGE_SHIFT, prelude::*, sync::Arc};

use super::{cache_fill::OwnFill, in_flight::InFlight, FileSystem, Inode, SuperBlock};
use crate::{
    bindings,
    compat::code::ESTALE,
    io::{
        clock::now,
        device::SuperPtr,
        fill::{fill, FillCompletion, Plan},
        folio::FolioMemory,
        folio_list::FolioList,
        mapping::Mapping,
        readahead::Readahead,
    },
    race::race_point,
    share::{
        dedup,
        digest::{digest_blocks, Digest},
        is_marked,
        sha256::KernelSha256,
        Binding, Bindings, Recording, SharedInode, BLOCK_SHIFT, BLOCK_SIZE,
    },
    stats::{self, Counters, Field},
};

/// Bytes that one fill reads and one worker hashes at most (but for a folio that is larger).
const FILL_BYTES: usize = 512 << 10;

/// Blocks that are hashed before their digests are looked at.
const RUN: usize = 16;

/// Time spent hashing.
pub(super) struct HashTime(i64);

impl HashTime {
    pub(super) fn start() -> Self {
        Self(now())
    }

    pub(super) fn stop(self, counters: &Counters, blocks: u64) {
        let ns = now().saturating_sub(self.0);
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

impl FileMapping {
    /// The binding of an inode to the shared inode whose pages they are.
    pub(super) fn binding(self) -> Option<Arc<Binding>> {
        match self {
            Self::Shared(binding) => Some(binding),
            Self::Own | Self::Stale(_) => None,
        }
    }

    /// Whether `binding` is what [`FileMapping::binding`] gives.
    pub(super) fn belongs_to(self, binding: Option<&Arc<Binding>>) -> bool {
        match (self.binding(), binding) {
            (Some(this), Some(binding)) => Arc::ptr_eq(&this, binding),
            (this, binding) => this.is_none() && binding.is_none(),
        }
    }
}

impl<T: FileSystem> Inode<T> {
    /// What is counted for its mount.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        T::counters(self.sb().info())
    }

    /// Whether the pages of `mapping` may be used without further checks.
    #[inline(always)]
    pub(super) fn is_fast(&self, mapping: Mapping<'_>) -> bool {
        // SAFETY: By the type invariants of `Mapping` it is the own one of an inode that is not
        // freed.
        self.fast_mapping_ptr() == mapping.as_ptr() && !unsafe { is_marked(mapping.as_ptr()) }
    }

    /// Pages that its device wants to be read ahead.
    pub(super) fn ra_pages(&self) -> u32 {
        // SAFETY: A live inode has a live superblock, which has a backing device. Others may change
        // its setting at any time.
        unsafe { (&raw const (*(*self.sb().as_ptr()).s_bdi).ra_pages).read_volatile() as u32 }
    }

    /// What the pages of `mapping` are, seen through this inode.
    pub(super) fn through(&self, mapping: Mapping<'_>) -> FileMapping {
        if mapping == self.own_mapping() {
            return FileMapping::Own;
        }
        match self.sharing().current() {
            Some(binding) if binding.shared().mapping() == mapping => {
                if self.fast_mapping_ptr().is_null() && binding.is_complete() {
                    self.enable_fast_path(&binding);
                }
                FileMapping::Shared(binding)
            }
            other => FileMapping::Stale(other),
        }
    }

    pub(super) fn is_current(&self, binding: &Arc<Binding>) -> bool {
        let slots = self.sharing().slots();
        slots.is_some_and(|slots| slots.lock().is_current(binding))
    }

    /// Whether the inode is bound and `test` holds of the current binding. `test` must not sleep.
    /// In any context but an interrupt's.
    pub(super) fn with_current(&self, test: impl Fn(&Arc<Binding>) -> bool) -> bool {
        let slots = self.sharing().slots();
        slots.is_some_and(|slots| slots.lock().current().is_some_and(test))
    }

    /// Lets files use a fully verified shared inode without further checks.
    pub(super) fn enable_fast_path(&self, binding: &Arc<Binding>) {
        let Some(slots) = self.sharing().slots() else {
            return;
        };
        let mut slots = slots.lock();
        if slots.is_current(binding) {
            self.publish(&mut slots, binding);
        }
    }

    /// As [`Inode::enable_fast_path`]. The caller holds `slots`, in which `binding` is the current
    /// one.
    pub(super) fn publish(&self, slots: &mut Bindings, binding: &Binding) {
        race_point!(c"publish");
        let mut set = || {
            // Files that are opened from now on may take the mapping from there.
            slots.open();
            self.fast_mapping().set(binding.shared().mapping().as_ptr());
        };
        if binding.is_complete() {
            set();
        } else {
            // So that it is taken back when the inode is not the only user any more.
            binding.shared().content().usage().if_sole(binding, set);
        }
    }

    /// Enters blocks that have been read into the page cache in the index, and has those merged
    /// that are elsewhere, too.
    pub(super) fn enter(&self, binding: &Binding, blocks: Range<u64>) {
        let shared = binding.shared();
        let blocks = blocks.start..blocks.end.min(binding.blocks());
        // They are here now.
        shared.forget_aliases(blocks.clone());
        if !T::shares_blocks(self.sb().info()) {
            return;
        }
        // Without memory for them, blocks are not found by others.
        let _ = dedup::enter_all(shared, blocks);
    }

    /// Whether what is read through this inode for the page cache of `binding` is neither decoded
    /// nor checked. The folios are there already, locked: see `CacheFill::new`.
    pub(super) fn needs_no_check(&self, binding: &Binding) -> bool {
        !T::is_compressed(self) && binding.needs_no_check()
    }

    pub(super) fn plan(&self, pos: u64, ahead: bool) -> Plan {
        Plan {
            pos,
            size: self.size(),
            ahead,
            direct: T::direct_io(self.sb().info()),
            memory: FolioMemory::Charged,
        }
    }

    /// Reads what `folios` are for from this inode's image.
    pub(super) fn fill_from_image<F: FillCompletion>(
        &self,
        folios: FolioList,
        plan: &Plan,
        filled: F,
    ) {
        self.trace_read(plan.pos, folios.bytes());
        fill(folios, plan, T::map_in_order(self), filled);
    }

    /// Tells tracers that `len` bytes from `pos` on are read from this inode's image.
    pub(super) fn trace_read(&self, pos: u64, len: usize) {
        let count = len.div_ceil(BLOCK_SIZE) as u32;
        stats::trace::read(self.sb().dev(), self.number(), pos >> BLOCK_SHIFT, count);
    }

    /// Hashes blocks of this inode's image from block `first` on, and compares them with what is
    /// recorded. Those that agree are verified, and recorded if they were not; at the first that
    /// does not, this inode leaves the shared inode: `ESTALE`.
    pub(super) fn check(&self, binding: &Arc<Binding>, first: u64, bytes: &[u8]) -> Result {
        let compared = self.compare(binding, first, bytes);
        self.apply_comparison(binding, compared)
    }

    /// Acts on what a comparison has found: a block that differs makes this inode leave the shared
    /// inode.
    pub(super) fn apply_comparison(
        &self,
        binding: &Arc<Binding>,
        compared: Result<Option<(u64, Digest)>>,
    ) -> Result {
        match compared {
            Ok(None) => return Ok(()),
            Ok(Some((block, digest))) => {
                self.counters().add(Field::BlocksDiverged, 1);
                race_point!(c"diverge");
                self.diverge(binding, block, &digest)?;
            }
            Err(err) => return Err(err),
        }
        Err(ESTALE)
    }

    /// As [`Inode::check`], but gives the first block that does not agree, and its digest.
    pub(super) fn compare(
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
            let counters = self.counters();
            hashing.stop(counters, count as u64);
            match shared.record_or_compare(first, digests)? {
                Recording::Agree { adopted } => {
                    self.count_recorded(counters, first, adopted, count as u64);
                    if binding.verify(first..first + count as u64)? {
                        self.enable_fast_path(binding);
                    }
                }
                Recording::Differ { at } => {
                    let digest = digests.get(at).ok_or(EIO)?;
                    return Ok(Some((first + at as u64, *digest)));
                }
            }
            first += count as u64;
        }
        Ok(None)
    }

    /// Counts blocks that agree. Of these, `adopted` had not been recorded before.
    pub(super) fn count_recorded(&self, counters: &Counters, first: u64, adopted: u64, count: u64) {
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

    /// Fills the folios that a read-ahead is for, up to the first that `elsewhere` finds not to be
    /// needed; and those that come with them for little more.
    pub(super) fn fill_readahead<F: FillCompletion>(
        &self,
        mut readahead: Readahead<'_>,
        elsewhere: impl Fn(Range<u64>) -> u64,
        filled: impl Fn() -> F,
    ) {
        let pages = readahead.pages();
        let start = pages.start;
        let mut until = elsewhere(pages.clone());
        if until > start && T::is_compressed(self) {
            let bytes = start << PAGE_SHIFT..pages.end << PAGE_SHIFT;
            let around = T::expand_to_extents(self, bytes.clone());
            let around = around.start.min(bytes.start)..around.end.max(bytes.end);
            if around != bytes {
                readahead.expand(around);
                until = elsewhere(start..readahead.pages().end);
            }
        }
        loop {
            let mut max = FILL_BYTES;
            if T::is_compressed(self) {
                // An extent is not cut in two, each of which would take decoding the first.
                let pages = readahead.pages();
                let pos = pages.start << PAGE_SHIFT;
                let end = pos.saturating_add(max as u64);
                if pages.end << PAGE_SHIFT > end {
                    let end = T::expand_to_extents(self, pos..end).end;
                    max = end.saturating_sub(pos) as usize;
                }
            }
            let Ok(mut folios) = FolioList::of_readahead(&mut readahead, max, until) else {
                return;
            };
            if folios.is_empty() {
                return;
            }
            folios.set_reader(self.sb().as_ptr().cast());
            let plan = self.plan(folios.pos(), true);
            self.fill_from_image(folios, &plan, filled());
        }
    }

    /// `readahead` of an inode that has to be decoded. The page cache is its own.
    pub(super) fn readahead_encoded(&self, readahead: Readahead<'_>) {
        let nowhere = |_| u64::MAX;
        self.fill_readahead(readahead, nowhere, || OwnFill {
            in_flight: InFlight::new(self),
        });
    }

    /// `read_folio` of an inode that has to be decoded.
    ///
    /// # Safety
    ///
    /// * `folio` is locked, and in the inode's own mapping.
    /// * The lock passes to this.
    pub(super) unsafe fn read_folio_encoded(&self, folio: *mut bindings::folio) -> Result {
        let folio = core::ptr::NonNull::new(folio).ok_or(EIO)?;
        // SAFETY: By this function's requirements the folio is locked, and the lock passes on.
        let folios = unsafe { FolioList::of_locked(folio)? };
        let plan = self.plan(folios.pos(), false);
        let in_flight = InFlight::new(self);
        self.fill_from_image(folios, &plan, OwnFill { in_flight });
        Ok(())
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

impl<T: FileSystem> SuperBlock<T> {
    /// The bound inodes, which may be looked at until `put_super` is over.
    pub(crate) fn bound_inodes(&self) -> BoundInodes<T> {
        BoundInodes {
            sb: self.owner(),
            _fs: core::marker::PhantomData,
        }
    }
}

impl<T: FileSystem> BoundInodes<T> {
    /// Calls `f`, which may sleep, with the shared inode of each. Waits for no mount or umount:
    /// `EAGAIN` while one is under way.
    pub(crate) fn for_each(&self, f: &mut dyn FnMut(&SharedInode)) -> Result {
        /// Passes the shared inode of a bound inode on to the closure; called by `visit_mounted`.
        ///
        /// # Safety
        ///
        /// * `inode` is an inode of a superblock of `T` that is not new, and to which there is a
        ///   reference during the call.
        /// * `data` points to a `&mut dyn FnMut(&SharedInode)` that is live, and used by nothing
        ///   else during the call.
        unsafe extern "C" fn visit<T: FileSystem>(inode: *mut bindings::inode, data: *mut c_void) {
            // SAFETY: By this function's requirements the inode is live for the call.
            let inode = unsafe { Inode::<T>::from_raw(inode) };
            // SAFETY: By this function's requirements `data` is that closure.
            let f = unsafe { &mut *data.cast::<&mut dyn FnMut(&SharedInode)>() };
            if let Some(binding) = inode.sharing().current() {
                f(binding.shared());
            }
        }
        let mut f = f;
        let (sb, data) = (self.sb.as_ptr(), (&raw mut f).cast());
        // SAFETY: By the type invariants the superblock is allocated; `visit` gets what it asks
        // for.
        to_result(unsafe { bindings::visit_mounted(sb, Some(visit::<T>), data) })
    }
}
