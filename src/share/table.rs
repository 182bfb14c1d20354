// SPDX-License-Identifier: GPL-2.0

//! The digests of a shared inode's blocks, at addresses that do not change, so that the block index
//! can refer to them and readers need no lock.
//!
//! A wrapper module: digests lie in chunks whose size is a power of two and which are aligned to
//! their size. With the size in the low bits of a digest's address
//! ([`IndexEntry`](super::entry::IndexEntry)) that is all it takes to find the chunk's header, and
//! with it the shared inode and the block: 8 bytes say where a block is.

use core::{alloc::Layout, ptr::NonNull};

use kernel::{
    alloc::{allocator::Kmalloc, Allocator, NumaNode},
    prelude::*,
    sync::atomic::{Acquire, Atomic, AtomicType, Relaxed, Release},
    types::NotThreadSafe,
};

use super::{
    chunks::{ChunkHeader, Chunks},
    digest::{Digest, ZERO_DIGEST},
    handle::{SharedInode, Unheld},
};
use crate::{
    bindings,
    compat::smp_rmb,
    io::{
        memcg::{has_room, CHARGED, CHARGED_NOWAIT},
        wait::cond_resched,
    },
    stats::{Field, GLOBAL},
};

/// Bytes of a digest, of a chunk's header, and their alignment.
pub(super) const UNIT: usize = 32;

/// log2 of the largest chunk's size: 4 KiB, of which the header takes the place of one digest.
const MAX_CHUNK_SHIFT: u32 = 12;

/// Digests in a chunk of the largest size.
const CHUNK: u64 = (1 << MAX_CHUNK_SHIFT) / UNIT as u64 - 1;

/// `READ_ONCE()`, which inlines: `load` calls a function. Of a pointer that was published with
/// release semantics, loads through it are ordered by the address dependency.
#[inline(always)]
pub(super) fn read_once<T: AtomicType>(value: &Atomic<T>) -> T {
    // SAFETY: A reference is valid; `Atomic` is only ever written as a whole.
    unsafe { core::ptr::read_volatile(value.as_ptr()) }
}

/// Loads before it are not reordered with loads behind it.
#[inline(always)]
pub(super) fn order_loads() {
    // x86 does not reorder loads, so skip the out-of-line smp_rmb() on hot paths.
    if !cfg!(CONFIG_X86_64) {
        smp_rmb();
    }
}

/// A block's digest, set once.
///
/// # Invariants
///
/// All zeros until it is set; then constant. The first word is written last, and is not zero then.
#[repr(C, align(32))]
pub(crate) struct DigestSlot([Atomic<u64>; 4]);

impl DigestSlot {
    /// Its words, if it is set. Needs no lock.
    #[inline(always)]
    pub(super) fn words(&self) -> Option<[u64; 4]> {
        let first = read_once(&self.0[0]);
        order_loads();
        (first != 0).then(|| {
            [
                first,
                read_once(&self.0[1]),
                read_once(&self.0[2]),
                read_once(&self.0[3]),
            ]
        })
    }

    /// Whether both are set, and equal; as [`DigestSlot::words`].
    #[inline(always)]
    pub(super) fn same(&self, other: &Self) -> bool {
        let (ours, theirs) = (read_once(&self.0[0]), read_once(&other.0[0]));
        if ours != theirs || ours == 0 {
            return false;
        }
        order_loads();
        let pairs = self.0.iter().zip(&other.0).skip(1);
        pairs.fold(0, |all, (one, two)| all | (read_once(one) ^ read_once(two))) == 0
    }

    /// Whether it is the digest of a block of zeros.
    #[inline(always)]
    pub(super) fn is_zeros(&self) -> bool {
        const ZEROS: u64 = word(&ZERO_DIGEST);
        read_once(&self.0[0]) == ZEROS && self.words() == Some(words(&ZERO_DIGEST))
    }

    /// The words exactly, if they are set: `_writer` keeps others from setting them.
    #[inline]
    fn words_for(&self, _writer: &Writer<'_>) -> Option<[u64; 4]> {
        let words = [0, 1, 2, 3].map(|at: usize| read_once(&self.0[at]));
        (words != [0; 4]).then_some(words)
    }

    /// Sets it, if it is not set, and tells that; else whether it is this.
    ///
    /// `writer` is that of the slot's table.
    #[inline]
    pub(super) fn record_or_compare(&self, writer: &mut Writer<'_>, digest: &Digest) -> Recorded {
        let words = words(digest);
        match self.words_for(writer) {
            None => {
                self.set(writer, words);
                Recorded::New
            }
            Some(recorded) if recorded == words => Recorded::Same,
            Some(_) => Recorded::Other,
        }
    }

    /// Sets it, after `_writer` has seen that it is not set.
    #[inline]
    fn set(&self, _writer: &mut Writer<'_>, words: [u64; 4]) {
        for (to, word) in self.0.iter().zip(words).skip(1) {
            // SAFETY: A reference is valid; others only read it, as a whole. This is WRITE_ONCE(),
            // which inlines: `store` calls a function.
            unsafe { core::ptr::write_volatile(to.as_ptr(), word) };
        }
        self.0[0].store(words[0], Release);
    }
}

/// What became of a digest that was to be recorded.
pub(super) enum Recorded {
    /// None was known; it is this now.
    New,
    /// It is this one.
    Same,
    /// It is another one.
    Other,
}

/// The first word of a digest.
const fn word(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// A digest as words of this machine. The first is not zero, by which [`DigestSlot`] tells that it
/// is set: a digest that begins with 64 bits of zeros has one there.
pub(super) fn words(digest: &Digest) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
        let mut raw = [0; 8];
        raw.copy_from_slice(bytes);
        *word = u64::from_ne_bytes(raw);
    }
    if words[0] == 0 {
        words[0] = 1;
    }
    words
}

const _: () = assert!(size_of::<ChunkHeader>() == UNIT && size_of::<DigestSlot>() == UNIT);

/// A chunk.
///
/// # Invariants
///
/// Points to a [`ChunkHeader`] and `count` [`DigestSlot`]s behind it, at a multiple of
/// [`Chunk::bytes`] of `count`, which are valid for `'a`.
#[derive(Clone, Copy)]
struct Chunk<'a>(&'a ChunkHeader);

impl<'a> Chunk<'a> {
    /// What a chunk of `count` digests takes.
    fn bytes(count: u32) -> usize {
        ((count as usize + 1) * UNIT).next_power_of_two()
    }

    fn layout(count: u32) -> Result<Layout> {
        Layout::from_size_align(Self::bytes(count), Self::bytes(count)).map_err(|_| ENOMEM)
    }

    fn slots(self) -> &'a [DigestSlot] {
        let header: *const ChunkHeader = self.0;
        // SAFETY: By the type invariants `count` slots lie behind the header, valid for `'a`.
        unsafe { core::slice::from_raw_parts(header.add(1).cast(), self.0.count as usize) }
    }
}

/// The only one that makes chunks, or sets digests, of the table of a shared inode. It holds the
/// inode's `i_rwsem`, which nothing else takes of an internal inode: there is no room for a lock of
/// its own. Nothing is taken under it but what allocations take.
///
/// # Invariants
///
/// The lock is held, by this task, as long as this exists.
pub(super) struct Writer<'a> {
    owner: &'a Unheld,
    /// Bytes that were allocated for the table.
    allocated: u64,
    _task: NotThreadSafe,
}

impl<'a> Writer<'a> {
    /// That of the table of a shared inode. May sleep.
    pub(super) fn new(owner: &'a SharedInode) -> Self {
        // SAFETY: There is a reference to the inode.
        unsafe { bindings::inode_lock(owner.as_ptr()) };
        // INVARIANT: Locked just now.
        Self {
            owner,
            allocated: 0,
            _task: NotThreadSafe,
        }
    }

    /// As [`Writer::new`], if there is no other one. Does not sleep.
    pub(super) fn try_new(owner: &'a Unheld) -> Option<Self> {
        // SAFETY: The inode is not freed as long as it is borrowed.
        let is_locked = unsafe { bindings::inode_trylock(owner.as_ptr()) };
        // INVARIANT: Locked just now. Where that has failed there is none, which would unlock it.
        is_locked.then(|| Self {
            owner,
            allocated: 0,
            _task: NotThreadSafe,
        })
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // SAFETY: This task has locked it, once for each of these. It is borrowed, hence not freed.
        unsafe { bindings::inode_unlock(self.owner.as_ptr()) };
        if self.allocated != 0 {
            GLOBAL.add(Field::MetadataBytes, self.allocated);
        }
    }
}

/// The digests of one shared inode.
///
/// # Invariants
///
/// `root` is null or comes from `KBox::into_raw`, and changes once. So do the pointers to chunks,
/// which come from [`Kmalloc`]. All are freed with the table.
pub(super) struct Table {
    /// The first chunk, which is the only one of most files.
    first: Atomic<*mut ChunkHeader>,
    root: Atomic<*mut Chunks>,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            first: Atomic::new(core::ptr::null_mut()),
            root: Atomic::new(core::ptr::null_mut()),
        }
    }

    /// Where the pointer to a block's chunk is; `None` while that place is not made.
    #[inline]
    fn place(&self, block: u64) -> Option<&Atomic<*mut ChunkHeader>> {
        let Some(behind) = (block / CHUNK).checked_sub(1) else {
            return Some(&self.first);
        };
        // SAFETY: By the type invariants: it is null, or lives as long as the table.
        let root = unsafe { read_once(&self.root).as_ref() }?;
        root.all().get(usize::try_from(behind).ok()?)
    }

    fn chunk(&self, block: u64) -> Option<Chunk<'_>> {
        let place = self.place(block)?;
        // SAFETY: By the type invariants: it is null, or lives as long as the table.
        // INVARIANT: `slots_or_new` has set it up before it stored the pointer.
        unsafe { read_once(place).as_ref() }.map(Chunk)
    }

    /// A block's digest, and log2 of the size of the chunk in which that lies; `None` if there is
    /// no such chunk.
    pub(super) fn slot(&self, block: u64) -> Option<(&DigestSlot, u32)> {
        let chunk = self.chunk(block)?;
        let slot = chunk.slots().get((block % CHUNK) as usize)?;
        Some((slot, Chunk::bytes(chunk.0.count).ilog2()))
    }

    /// The digests from that of `block` on, as far as they lie side by side.
    pub(super) fn slots(&self, block: u64) -> &[DigestSlot] {
        let slots = self.chunk(block).map_or(&[][..], Chunk::slots);
        slots.get((block % CHUNK) as usize..).unwrap_or(&[])
    }

    /// Makes places for the pointers to chunks, if they are not all in it anyway. May sleep.
    ///
    /// `writer` is that of this table.
    pub(super) fn make_places(&self, writer: &mut Writer<'_>) -> Result {
        let blocks = writer.owner.blocks();
        if blocks > CHUNK && self.root.load(Relaxed).is_null() {
            let count = usize::try_from(blocks.div_ceil(CHUNK) - 1)?;
            let root = Chunks::new(count)?;
            writer.allocated += root.bytes();
            // INVARIANT: It was null, and `writer` keeps others away.
            self.root.store(KBox::into_raw(root), Release);
        }
        Ok(())
    }

    /// As [`Table::slots`], made if there are none, so that there is one at least. Sleeps if it
    /// `may_sleep`; if not, it may use memory that is kept for those that free some.
    ///
    /// `writer` is that of this table.
    pub(super) fn slots_or_new(
        &self,
        writer: &mut Writer<'_>,
        block: u64,
        may_sleep: bool,
    ) -> Result<&[DigestSlot]> {
        let slots = self.slots(block);
        if !slots.is_empty() {
            return Ok(slots);
        }
        let blocks = writer.owner.blocks();
        if block >= blocks {
            return Err(EINVAL);
        }
        if may_sleep && block >= CHUNK {
            self.make_places(writer)?;
        }
        let place = self.place(block).ok_or(ENOMEM)?;
        if self.chunk(block).is_none() {
            let first = block / CHUNK * CHUNK;
            let header = ChunkHeader {
                owner: NonNull::from(writer.owner),
                first: u32::try_from(first)?,
                count: (blocks - first).min(CHUNK) as u32,
                aliased: [const { Atomic::new(0) }; 2],
            };
            let layout = Chunk::layout(header.count)?;
            let flags = if may_sleep {
                has_room(layout.size())?;
                CHARGED
            } else {
                CHARGED_NOWAIT
            };
            let memory = Kmalloc::alloc(layout, flags | __GFP_ZERO, NumaNode::NO_NODE)?;
            let chunk = memory.cast::<ChunkHeader>();
            writer.allocated += layout.size() as u64;
            // SAFETY: The memory is ours, large enough, aligned, and zeroed: digests that are not
            // set.
            unsafe { chunk.write(header) };
            // INVARIANT: It was null, and `writer` keeps others away.
            place.store(chunk.as_ptr(), Release);
        }
        Some(self.slots(block))
            .filter(|slots| !slots.is_empty())
            .ok_or(EIO)
    }

    /// Whether a block has an alias. Needs no lock.
    pub(super) fn is_aliased(&self, block: u64) -> bool {
        let at = block % CHUNK;
        self.chunk(block).is_some_and(|chunk| {
            let word = chunk.0.aliased.get((at / 64) as usize);
            word.is_some_and(|word| read_once(word) & (1 << (at % 64)) != 0)
        })
    }

    /// The first of these blocks that has an alias, or that has none. Needs no lock.
    pub(super) fn find(&self, blocks: core::ops::Range<u64>, aliased: bool) -> Option<u64> {
        let mut at = blocks.start;
        while at < blocks.end {
            let rest = CHUNK - at % CHUNK;
            match self.chunk(at) {
                // No digests, no aliases.
                None if !aliased => return Some(at),
                None => at = at.saturating_add(rest),
                Some(chunk) => {
                    let here = at % CHUNK;
                    let word = chunk
                        .0
                        .aliased
                        .get((here / 64) as usize)
                        .map_or(0, read_once);
                    let word = if aliased { word } else { !word } >> (here % 64);
                    if word == 0 {
                        at = at.saturating_add((64 - here % 64).min(rest));
                    } else {
                        let found = u64::from(word.trailing_zeros());
                        if found < rest {
                            let found = at.saturating_add(found);
                            return (found < blocks.end).then_some(found);
                        }
                        at = at.saturating_add(rest);
                    }
                }
            }
        }
        None
    }

    /// Notes whether a block has an alias; tells whether that is new. Only under the lock of
    /// aliases.
    pub(super) fn set_aliased(&self, block: u64, aliased: bool) -> bool {
        if self.is_aliased(block) == aliased {
            return false;
        }
        let at = block % CHUNK;
        let chunk = self.chunk(block);
        let word = chunk.and_then(|chunk| chunk.0.aliased.get((at / 64) as usize));
        word.is_some_and(|word| {
            word.store(word.load(Relaxed) ^ (1 << (at % 64)), Relaxed);
            true
        })
    }

    /// What has the pointers to all chunks but the first.
    fn root(&self) -> Option<&Chunks> {
        // SAFETY: By the type invariants: it is null, or lives as long as the table.
        unsafe { self.root.load(Acquire).as_ref() }
    }

    /// The places of the pointers to chunks, as far as they are made.
    fn places(&self) -> impl Iterator<Item = &Atomic<*mut ChunkHeader>> {
        let behind = self.root().map_or(&[][..], Chunks::all);
        Iterator::chain(core::iter::once(&self.first), behind)
    }

    /// All chunks that there are: their first block, and how many.
    pub(super) fn chunks(&self) -> impl Iterator<Item = core::ops::Range<u64>> + '_ {
        self.places().filter_map(|chunk| {
            // SAFETY: By the type invariants: it is null, or lives as long as the table.
            let header = unsafe { chunk.load(Acquire).as_ref() }?;
            let first = u64::from(header.first);
            Some(first..first + u64::from(header.count))
        })
    }

    /// Bytes that were allocated for it, the table of a file of `blocks` blocks. May sleep.
    pub(super) fn bytes(&self, blocks: u64) -> u64 {
        let mut bytes = self.root().map_or(0, Chunks::bytes);
        for (number, chunk) in (0u64..).zip(self.places()) {
            if !read_once(chunk).is_null() {
                let first = number.saturating_mul(CHUNK);
                let count = blocks.saturating_sub(first).min(CHUNK) as u32;
                bytes = bytes.saturating_add(Chunk::bytes(count) as u64);
            }
            if number % CHUNK == CHUNK - 1 {
                cond_resched();
            }
        }
        bytes
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is null, or comes from `Kmalloc`; the table is not used
        // any more.
        unsafe { bindings::kfree(self.first.load(Relaxed).cast()) };
        let root = self.root.load(Relaxed);
        if !root.is_null() {
            // SAFETY: By the type invariants it comes from a box, and the table, which goes here,
            // is its only owner.
            Chunks::dispose(unsafe { KBox::from_raw(root) });
        }
    }
}
