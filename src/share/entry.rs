// SPDX-License-Identifier: GPL-2.0

//! Entries of the block index: 8 bytes that say where a block is. A wrapper module.
//!
//! An entry is the address of the block's digest, with log2 of the size of the chunk in which that
//! lies in the low bits. Chunks are aligned to their size, so that gives the chunk's header, which
//! has the rest.

use core::{cmp::Ordering, marker::PhantomData, ops::Deref};

use super::{chunks::ChunkHeader, handle::Unheld, table::UNIT};

/// Where a block is whose digest is set. Ordered by digest, then domain: equal entries are blocks
/// that may be shared.
///
/// Or nothing but the first word of a digest, to look in a tree for what comes from there on
/// ([`Probe::at`]): it is no block's, and before all blocks with that word.
///
/// # Invariants
///
/// The address of a [`DigestSlot`](super::table::DigestSlot) that is set, in a chunk
/// ([`ChunkHeader`]), plus log2 of the chunk's size. The chunk and its shared inode are not freed
/// as long as this exists: it is in the index, which the shared inode leaves before it goes, or
/// borrowed from the shared inode ([`Probe`]). Without the log2 it is the address of a [`Start`],
/// which is there as long.
pub(super) struct IndexEntry(usize);

/// The digest that begins with a word, and has zeros after it.
#[repr(C, align(32))]
pub(super) struct Start([u64; 4]);

impl Start {
    /// That of `word`.
    pub(super) fn new(word: u64) -> Self {
        Self([word, 0, 0, 0])
    }
}

/// An entry that is borrowed from what it says something of.
pub(super) struct Probe<'a>(IndexEntry, PhantomData<&'a Unheld>);

impl<'a> Probe<'a> {
    /// What comes before all blocks whose digest begins with the word of `start`, or a greater one.
    pub(super) fn at(start: &'a Start) -> Self {
        // INVARIANT: It is aligned, so that the low bits are zeros; and borrowed.
        Self(IndexEntry(core::ptr::from_ref(start) as usize), PhantomData)
    }

    /// The entry, for the index.
    ///
    /// # Safety
    ///
    /// * The result is dropped before the shared inode is freed, hence when that leaves the index
    ///   at the latest.
    pub(super) unsafe fn into_entry(self) -> IndexEntry {
        self.0
    }

    /// Where a block of a shared inode is; `None` while its digest is not set.
    pub(super) fn of(shared: &'a Unheld, block: u64) -> Option<Self> {
        let (slot, shift) = shared.content().slot(block)?;
        slot.words()?;
        // INVARIANT: The slot is set, and lies in a chunk of that size. Chunks live as long as the
        // shared inode, which is borrowed.
        let entry = IndexEntry(core::ptr::from_ref(slot) as usize | shift as usize);
        Some(Self(entry, PhantomData))
    }
}

impl Deref for Probe<'_> {
    type Target = IndexEntry;

    fn deref(&self) -> &IndexEntry {
        &self.0
    }
}

impl IndexEntry {
    /// The chunk, and the place in it, if it is a block's.
    fn place(&self) -> Option<(&ChunkHeader, usize)> {
        let (slot, shift) = (self.slot() as usize, self.0 & (UNIT - 1));
        if shift == 0 {
            return None;
        }
        let base = slot & !((1usize << shift) - 1);
        // SAFETY: By the type invariants there is a chunk at that multiple of its size.
        let header = unsafe { &*(base as *const ChunkHeader) };
        Some((header, (slot - base) / UNIT - 1))
    }

    /// Where the digest is.
    fn slot(&self) -> *const [u64; 4] {
        (self.0 & !(UNIT - 1)) as *const [u64; 4]
    }

    /// The digest.
    pub(super) fn words(&self) -> &[u64; 4] {
        // SAFETY: By the type invariants the digest is set, does not change any more, and is not
        // freed.
        unsafe { &*self.slot() }
    }

    /// The shared inode, and the block; `None` if it is no block's.
    pub(super) fn target(&self) -> Option<(&Unheld, u64)> {
        let (chunk, at) = self.place()?;
        // SAFETY: By the type invariants the shared inode is not freed as long as this exists.
        let owner = unsafe { chunk.owner.as_ref() };
        Some((owner, u64::from(chunk.first) + at as u64))
    }

    /// The domain of the shared inode, as a number.
    fn domain(&self) -> Option<u128> {
        let (owner, _) = self.target()?;
        Some(u128::from_ne_bytes(owner.identity().domain))
    }

    /// Whether it is the very same block.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Ord for IndexEntry {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (self.words(), other.words());
        // Nearly always the first word decides.
        ours[0]
            .cmp(&theirs[0])
            .then_with(|| ours.cmp(theirs))
            .then_with(|| self.domain().cmp(&other.domain()))
    }
}

impl PartialOrd for IndexEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for IndexEntry {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.words().iter().zip(other.words());
        pairs.fold(0, |all, (one, two)| all | (one ^ two)) == 0 && self.domain() == other.domain()
    }
}

impl Eq for IndexEntry {}
