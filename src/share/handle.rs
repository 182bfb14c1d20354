// SPDX-License-Identifier: GPL-2.0

//! Handles of shared inodes: what can be done with one without knowing what it carries. A wrapper
//! module.

use core::{
    ops::{Deref, Range},
    ptr::NonNull,
};

use kernel::{
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

use super::digest::BLOCK_SIZE;
use crate::{
    bindings,
    io::{folio::FolioRef, folio_list::FolioList, mapping::Mapping, thread::KeepProcessor},
};

/// Largest folio order in a shared inode's page cache: below that of a PMD. So no page table entry
/// ever maps more than such a folio, and the kernel does not collapse small folios into one that is
/// mapped whole, which could show blocks that the mapping's own inode has not verified.
pub(crate) const MAX_ORDER: u32 = bindings::PMD_ORDER - 1;

/// A shared inode to which there need not be a reference: it may be on its way out, and is there as
/// long as something else sees to that, such as the lock of the index where it was found, or RCU. A
/// reference to it cannot be had.
///
/// # Invariants
///
/// A regular file of the internal filesystem. Lies in a
/// [`SharedInodeSlot`](super::inode::SharedInodeSlot), and is not new any more.
#[repr(transparent)]
pub(crate) struct Unheld(Opaque<bindings::inode>);

/// A shared inode.
///
/// # Invariants
///
/// There is a reference to it as long as this is borrowed.
#[repr(transparent)]
pub(crate) struct SharedInode(Unheld);

/// An owned reference to a shared inode. Dropping it may sleep.
pub(crate) type SharedRef = ARef<SharedInode>;

impl Deref for SharedInode {
    type Target = Unheld;

    fn deref(&self) -> &Unheld {
        &self.0
    }
}

// SAFETY: `ihold`/`iput` count references.
unsafe impl AlwaysRefCounted for SharedInode {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants there is a reference while this is borrowed, as `ihold`
        // needs.
        unsafe { bindings::ihold(self.0 .0.get()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::iput(obj.as_ref().0 .0.get()) }
    }
}

// SAFETY: Inodes may be used and released from any thread.
unsafe impl Send for Unheld {}
// SAFETY: What is reachable through `&Unheld` is constant or has a lock.
unsafe impl Sync for Unheld {}

impl Unheld {
    /// The one with this page cache.
    ///
    /// # Safety
    ///
    /// * `mapping` is the own one (`i_data`) of a shared inode.
    /// * That is not freed for `'a`.
    pub(crate) unsafe fn of_mapping<'a>(mapping: *mut bindings::address_space) -> &'a Self {
        // INVARIANT: By this function's requirements the inode is a shared inode.
        // SAFETY: By this function's requirements `mapping` is the `i_data` of a shared inode,
        // which is not freed for `'a`; the type is transparent.
        unsafe { &*kernel::container_of!(mapping, bindings::inode, i_data).cast() }
    }

    /// The inode itself.
    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// Its page cache.
    pub(crate) fn mapping(&self) -> Mapping<'_> {
        // SAFETY: By the type invariants the inode, in which its mapping lies, is not freed.
        unsafe { Mapping::from_raw((*self.0.get()).i_mapping) }
    }

    /// Its number on the internal filesystem.
    pub(crate) fn number(&self) -> u64 {
        // SAFETY: By the type invariants; the number is constant.
        unsafe { (*self.0.get()).i_ino }
    }

    /// Size of its content in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: By the type invariants; the size is constant.
        unsafe { (*self.0.get()).i_size as u64 }
    }

    /// Number of its blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.size().div_ceil(BLOCK_SIZE as u64)
    }

    /// Pages in its page cache.
    pub(crate) fn pages(&self) -> u64 {
        // SAFETY: By the type invariants; a racy read of a counter.
        unsafe { core::ptr::read_volatile(&raw const (*self.mapping().as_ptr()).nrpages) as u64 }
    }

    /// Whether a block's page is in its page cache and may be read. May be called in atomic
    /// context.
    pub(crate) fn is_resident(&self, block: u64) -> bool {
        self.folio(block).is_some()
    }

    /// The first of these blocks whose page may be in its page cache, from which others may take it
    /// at any time. Looks at what is there only, however many blocks these are.
    pub(super) fn next_cached(&self, blocks: Range<u64>) -> Option<u64> {
        let (from, to) = (blocks.start as usize, blocks.end as usize);
        // The finder asks, too.
        let _keep = KeepProcessor::new();
        // SAFETY: By the type invariants the inode is not freed, nor is its mapping.
        let next = unsafe { bindings::next_cached(self.mapping().as_ptr(), from, to) };
        Some(next as u64).filter(|next| *next < blocks.end)
    }

    /// The folio with a block, if it is in its page cache and may be read. May be called in atomic
    /// context.
    pub(crate) fn folio(&self, block: u64) -> Option<FolioRef> {
        FolioRef::find(self.mapping(), block)
    }

    /// As [`Unheld::folio`], unless its memory has failed.
    pub(super) fn sound_folio(&self, block: u64) -> Option<FolioRef> {
        // As for `next_cached`.
        let _keep = KeepProcessor::new();
        self.folio(block).filter(|folio| !folio.is_poisoned())
    }
}

impl SharedInode {
    /// Drops pages that are not in use. Returns whether all of them are gone.
    pub(super) fn drop_pages(&self, pages: Range<u64>) -> bool {
        let count = pages.end.saturating_sub(pages.start);
        let (first, last) = (pages.start as usize, pages.end.saturating_sub(1) as usize);
        let mapping = self.mapping().as_ptr();
        // SAFETY: The mapping lives as long as the inode, to which there is a reference.
        let gone = unsafe { bindings::invalidate_mapping_pages(mapping, first, last) };
        gone as u64 >= count
    }

    /// Takes filled pages into its page cache, from block `at` on, as long as `may_stay` says so of
    /// these blocks when they are there, locked.
    ///
    /// # Safety
    ///
    /// * One of these holds of the bytes in `folios`:
    ///   * they have the digests that are recorded for the blocks from `at` on;
    ///   * no digests are recorded, and whenever `may_stay` says yes, the real inode that they were
    ///     read through is the only user, or no inode has verified these blocks;
    ///   * nothing is checked of the inode ([`super::Verify::Nothing`]).
    pub(crate) unsafe fn give(
        &self,
        at: u64,
        folios: FolioList,
        may_stay: impl Fn(Range<u64>) -> bool,
    ) {
        // SAFETY: The mapping is that of a live inode of this module; by this function's
        // requirements others may read the pages.
        unsafe { folios.give(self.mapping().as_ptr(), at, may_stay) }
    }
}
