// SPDX-License-Identifier: GPL-2.0

//! Lists of folios that are being filled with a file's bytes.

use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
};

use kernel::{page::PAGE_SIZE, prelude::*};

use super::{
    folio::{Folio, FolioMemory, HeldFolio},
    folio_kind::FolioKind,
    folio_pool,
    readahead::Readahead,
};
use crate::{bindings, compat::cache_order};

/// Folios of a read-ahead for which there is room from the beginning, at most: those of the first
/// one of a file, 128 KiB by default.
const MOST: u64 = 32;

/// Folios that hold consecutive bytes of one file, to be filled by their owner.
///
/// Dropping the list unlocks the cache's folios as not uptodate, and frees scratch folios.
///
/// # Invariants
///
/// `folios[done..]` are owned: those of a page cache are locked, and the lock is this list's; of
/// scratch folios it holds the only reference. Nothing else reads or writes their bytes. The number
/// beside each folio is the sum of the sizes of those before it, `bytes` that of all.
pub(crate) struct FolioList {
    /// Each with the bytes in those before it.
    folios: KVec<(NonNull<Folio>, usize)>,
    kind: FolioKind,
    done: usize,
    bytes: usize,
}

// SAFETY: Folios may be filled and released from any thread.
unsafe impl Send for FolioList {}

impl FolioList {
    /// The folios that a read-ahead is for, up to about `max` bytes of them, but none that begins
    /// at page `until` or behind it. Empty when there are no more. `Err` leaves what is left to the
    /// VFS, which unlocks it.
    pub(crate) fn of_readahead(
        readahead: &mut Readahead<'_>,
        max: usize,
        until: u64,
    ) -> Result<Self> {
        let left = readahead.pages();
        // As many folios as they are at most if each is a page, within reason.
        let likely = (left.end - left.start).clamp(1, MOST) as usize;
        let mut this = Self {
            folios: KVec::with_capacity(likely, GFP_KERNEL)?,
            kind: FolioKind::Cache,
            done: 0,
            bytes: 0,
        };
        while this.bytes < max && readahead.pages().start < until {
            this.folios.reserve(1, GFP_KERNEL)?;
            let Some(folio) = readahead.next() else {
                break;
            };
            // INVARIANT: `->readahead` gets locked folios, which are its own to unlock.
            this.push(folio);
        }
        Ok(this)
    }

    /// One locked folio of a page cache.
    ///
    /// # Safety
    ///
    /// * `folio` is live, locked, and of a page cache.
    /// * The lock passes to the list; on error, too, for which the folio is unlocked.
    pub(crate) unsafe fn of_locked(folio: NonNull<bindings::folio>) -> Result<Self> {
        let (folio, mut folios) = (folio.cast::<Folio>(), KVec::new());
        if let Err(err) = folios.reserve(1, GFP_KERNEL) {
            // SAFETY: The lock is ours.
            unsafe { folio.as_ref().end_read(false) };
            return Err(err.into());
        }
        let mut this = Self {
            folios,
            kind: FolioKind::Cache,
            done: 0,
            bytes: 0,
        };
        // INVARIANT: By this function's requirements it is locked, and the lock passes to the list.
        this.push(folio);
        Ok(this)
    }

    /// Notes on whose behalf the folios of a page cache are read, for those that wait for them; see
    /// [`super::page::PageRef::reader`]. `reader` is compared only. The note ends with the lock.
    pub(crate) fn set_reader(&mut self, reader: *const c_void) {
        if self.kind == FolioKind::Cache {
            for folio in self.live() {
                // SAFETY: The folio's lock is this list's (type invariants).
                unsafe { bindings::folio_set_reader(folio.as_ptr(), reader) };
            }
        }
    }

    /// A list of none.
    pub(super) fn none() -> Self {
        Self {
            folios: KVec::new(),
            kind: FolioKind::Scratch,
            done: 0,
            bytes: 0,
        }
    }

    /// Folios for the file's blocks from page `index` on, `pages` of them, that are to be looked at
    /// only. The task's memory cgroup pays for most of them: `ENOMEM` if it has no room now, for
    /// which is not waited ([`FolioList::make_room`] does).
    pub(crate) fn scratch(index: u64, pages: u64, max_order: u32) -> Result<Self> {
        let memory = FolioMemory::ChargedAtHand;
        Self::new(FolioKind::Scratch, memory, index, pages, max_order)
    }

    /// Has the task's memory cgroup make room for [`FolioList::scratch`].
    pub(crate) fn make_room(pages: u64, max_order: u32) {
        let memory = FolioMemory::ChargedIfRoom;
        // None that is reused, and given back at once: the cgroup has the room then.
        drop(Self::new(FolioKind::New, memory, 0, pages, max_order));
    }

    /// As [`FolioList::scratch`], for [`FolioList::give`]: they are large where `index` allows, so
    /// that they may go into the page cache at that place, which then has them charged.
    pub(crate) fn for_cache(index: u64, pages: u64, max_order: u32) -> Result<Self> {
        let max_order = cache_order(max_order);
        Self::new(FolioKind::New, FolioMemory::Cache, index, pages, max_order)
    }

    fn new(
        kind: FolioKind,
        memory: FolioMemory,
        index: u64,
        pages: u64,
        max_order: u32,
    ) -> Result<Self> {
        let may_reuse = kind == FolioKind::Scratch;
        // One folio for each bit of the number, and for as many steps up to its order.
        let likely = (u64::from(pages.count_ones()) + 2).min(pages) as usize;
        let mut this = Self {
            folios: KVec::with_capacity(likely, GFP_KERNEL)?,
            kind,
            done: 0,
            bytes: 0,
        };
        let (mut at, end) = (index, index.saturating_add(pages));
        while at < end {
            let fits = (end - at).ilog2();
            let aligned = if at == 0 {
                max_order
            } else {
                at.trailing_zeros()
            };
            let mut order = fits.min(aligned).min(max_order);
            let folio = loop {
                this.folios.reserve(1, GFP_KERNEL)?;
                let spare = (may_reuse && order == folio_pool::ORDER)
                    .then(folio_pool::get)
                    .flatten();
                let folio = spare.or_else(|| HeldFolio::alloc(order, memory));
                match (folio, order) {
                    (Some(folio), _) => break folio,
                    (None, 0) => return Err(ENOMEM),
                    (None, _) => order = 0,
                }
            };
            // INVARIANT: A new folio has one reference, which is the list's.
            this.push(folio.into_inner());
            at += 1u64 << order;
        }
        Ok(this)
    }

    /// Memory for `pages` pages at least, of no page cache; `memory`, or some that is reused.
    pub(super) fn buffer(pages: u64, max_order: u32, memory: FolioMemory) -> Result<Self> {
        if pages > 1 && pages <= 1 << folio_pool::ORDER {
            let mut this = Self::none();
            this.folios.reserve(1, GFP_KERNEL)?;
            if let Some(folio) = folio_pool::get() {
                // INVARIANT: The only reference is the list's now.
                this.push(folio.into_inner());
                return Ok(this);
            }
        }
        Self::new(FolioKind::Scratch, memory, 0, pages, max_order)
    }

    fn push(&mut self, folio: NonNull<Folio>) {
        // SAFETY: The folio is live.
        let size = unsafe { folio.as_ref() }.size();
        if self
            .folios
            .push_within_capacity((folio, self.bytes))
            .is_ok()
        {
            self.bytes = self.bytes.saturating_add(size);
        }
    }

    /// Gives up all folios but those that lie wholly in the first `bytes` bytes: those of a cache
    /// are unlocked as not uptodate.
    pub(super) fn keep(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some((folio, start)) = self.rest().last().copied() else {
                return;
            };
            // INVARIANT: It is not owned any more, and nothing comes behind it.
            self.folios.pop();
            self.bytes = start;
            // SAFETY: It was owned, and is not any more.
            unsafe { self.kind.release(folio, false) };
        }
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.folios.is_empty()
    }

    /// Byte in the file at which the first folio of a page cache that is still owned starts.
    pub(crate) fn pos(&self) -> u64 {
        self.live().next().map_or(0, Folio::pos)
    }

    /// Bytes in all folios.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many folios are still owned.
    pub(super) fn count(&self) -> usize {
        self.rest().len()
    }

    /// The folios that are still owned, in order.
    fn rest(&self) -> &[(NonNull<Folio>, usize)] {
        self.folios.get(self.done..).unwrap_or(&[])
    }

    /// The same, as references.
    fn live(&self) -> impl Iterator<Item = &Folio> {
        self.rest().iter().map(|(folio, _)| {
            // SAFETY: These are live as long as they are owned (type invariants).
            unsafe { folio.as_ref() }
        })
    }

    /// The folio that holds byte `at` of the list, the byte's place in it, and the bytes from
    /// there.
    pub(super) fn place(&self, at: usize) -> Option<(&Folio, usize, usize)> {
        self.pieces(at, usize::MAX).next()
    }

    /// The pieces of memory that `len` bytes from byte `at` of the list on lie in, as
    /// [`FolioList::place`] tells one of them.
    pub(super) fn pieces(
        &self,
        at: usize,
        len: usize,
    ) -> impl Iterator<Item = (&Folio, usize, usize)> {
        let rest = self.rest();
        let at = rest
            .first()
            .map_or(at, |(_, start)| at.saturating_add(*start));
        let end = at.saturating_add(len).min(self.bytes);
        let first = rest.partition_point(|(_, start)| *start <= at);
        let rest = rest.get(first.saturating_sub(1)..).unwrap_or(&[]);
        let ends = rest.iter().skip(1).map(|(_, start)| *start);
        let ends = Iterator::chain(ends, core::iter::once(self.bytes));
        let mut at = at;
        rest.iter()
            .zip(ends)
            .map_while(move |(&(folio, start), stop)| {
                let len = stop.min(end).checked_sub(at).filter(|len| *len != 0)?;
                let offset = at.checked_sub(start)?;
                at += len;
                // SAFETY: Those that are owned are live (type invariants).
                Some((unsafe { folio.as_ref() }, offset, len))
            })
    }

    /// The bytes from `at` to the end of the folio in which that is.
    pub(super) fn bytes_mut(&mut self, at: usize) -> Option<&mut [u8]> {
        let (folio, offset, len) = self.place(at)?;
        let start = folio.address().wrapping_add(offset);
        // SAFETY: By the type invariants the folio's bytes are this list's; the range is inside it.
        Some(unsafe { core::slice::from_raw_parts_mut(start, len) })
    }

    /// Copies `data` to where byte `at` is, as far as there is room.
    pub(super) fn write(&mut self, mut at: usize, mut data: &[u8]) {
        while !data.is_empty() {
            let Some(to) = self.bytes_mut(at) else {
                return;
            };
            let part = to.len().min(data.len());
            let (now, later) = data.split_at(part);
            if let Some(to) = to.get_mut(..part) {
                to.copy_from_slice(now);
            }
            at += part;
            data = later;
        }
    }

    /// Zeroes `len` bytes from `at` on, as far as they are here.
    pub(super) fn zero(&mut self, mut at: usize, mut len: usize) {
        while len > 0 {
            let Some(to) = self.bytes_mut(at) else {
                return;
            };
            let part = to.len().min(len);
            if let Some(to) = to.get_mut(..part) {
                to.fill(0);
            }
            at += part;
            len -= part;
        }
    }

    /// Zeroes what a read of whole blocks may have brought in from behind the end of the file,
    /// whose size is `size`. The folios begin at byte `pos` of it.
    pub(crate) fn zero_tail(&mut self, pos: u64, size: u64) {
        let bytes = self.bytes();
        let end = size.saturating_sub(pos);
        if end < bytes as u64 {
            self.zero(end as usize, bytes - end as usize);
        }
    }

    /// Whether all is in one folio.
    pub(super) fn is_one(&self) -> bool {
        self.rest().len() <= 1
    }

    /// Adds the pages with bytes `at..at + len` to `pages`.
    fn pages(&self, mut at: usize, len: usize, pages: &mut KVec<*mut bindings::page>) -> Result {
        let end = at.checked_add(len).ok_or(EIO)?;
        at -= at % PAGE_SIZE;
        while at < end {
            let (folio, offset, room) = self.place(at).ok_or(EIO)?;
            let count = room.min(end - at).div_ceil(PAGE_SIZE);
            pages.reserve(count, GFP_KERNEL)?;
            for number in 0..count {
                let page = folio.page_of(offset + number * PAGE_SIZE);
                pages.push(page, GFP_KERNEL)?;
            }
            at += count * PAGE_SIZE;
        }
        Ok(())
    }

    /// One piece of memory of `skip + len` bytes, the last `len` of which are those from `at` on.
    ///
    /// What comes before is memory of `scratch`, or of the page in which `at` is. `pages` is used
    /// while this runs.
    pub(super) fn span<'a>(
        &'a mut self,
        scratch: Option<&'a mut FolioList>,
        at: usize,
        skip: usize,
        len: usize,
        pages: &mut Pages,
    ) -> Result<Span<'a>> {
        let in_page = at % PAGE_SIZE;
        let all = skip.checked_add(len).ok_or(EIO)?;
        let (folio, offset, room) = self.place(at).ok_or(EIO)?;
        if skip <= in_page && len <= room {
            // INVARIANT: The range is inside a folio of the list, which the span borrows: `skip`
            // does not go back beyond the page in which `offset` is.
            return Ok(Span {
                ptr: folio.address().wrapping_add(offset - skip),
                len: all,
                mapped: None,
                _folios: PhantomData,
            });
        }
        let pages = &mut pages.0;
        pages.clear();
        let before = skip.saturating_sub(in_page).div_ceil(PAGE_SIZE) * PAGE_SIZE;
        if before != 0 {
            scratch.ok_or(EIO)?.pages(0, before, pages)?;
        }
        self.pages(at, len, pages)?;
        let count = u32::try_from(pages.len())?;
        // SAFETY: The pages are live as long as the lists are, which the span borrows.
        let base = unsafe { bindings::map_pages(pages.as_mut_ptr(), count) };
        let base = NonNull::new(base).ok_or(ENOMEM)?;
        let start = base.as_ptr().cast::<u8>();
        // INVARIANT: The range is inside what was mapped just now, which are pages of the lists
        // alone: `before + in_page` is at least `skip`, by the choice of `before`.
        Ok(Span {
            ptr: start.wrapping_add(before + in_page - skip),
            len: all,
            mapped: Some((base, count)),
            _folios: PhantomData,
        })
    }

    /// The bytes of the first folio that is still owned.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.all().next()
    }

    /// The bytes of all folios that are still owned, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: Nothing else writes to the folios (type invariants).
        self.live().map(|folio| unsafe { folio.bytes() })
    }

    /// Ends the first folio that is still owned: in a cache it becomes uptodate and is unlocked.
    pub(crate) fn finish_first(&mut self) {
        let Some((folio, _)) = self.rest().first().copied() else {
            return;
        };
        // INVARIANT: It is not owned any more.
        self.done += 1;
        // SAFETY: It was owned, and is not any more.
        unsafe { self.kind.release(folio, true) }
    }

    /// Fills scratch folios with `bytes`, of which there are enough.
    pub(crate) fn copy_from(&mut self, mut bytes: &[u8]) {
        let mut at = 0;
        while at < self.bytes && !bytes.is_empty() {
            let Some(to) = self.bytes_mut(at) else {
                return;
            };
            let (now, later) = bytes.split_at(to.len().min(bytes.len()));
            if let Some(to) = to.get_mut(..now.len()) {
                to.copy_from_slice(now);
            }
            at += now.len();
            bytes = later;
        }
    }

    /// Moves filled folios of [`FolioList::for_cache`] into a page cache from page `index` on; a
    /// place that is taken stays as it is. The content becomes readable through the cache if
    /// `may_stay` says so, which is asked with the folio's pages when it is there, locked; else it
    /// is taken out again.
    ///
    /// # Safety
    ///
    /// * `mapping` is live, and one of a regular file.
    /// * The bytes are what it holds from page `index` on, or `may_stay` says no.
    pub(crate) unsafe fn give(
        mut self,
        mapping: *mut bindings::address_space,
        index: u64,
        may_stay: impl Fn(Range<u64>) -> bool,
    ) {
        let mut at = index as usize;
        while let (Some((folio, _)), FolioKind::New) = (self.rest().first().copied(), self.kind) {
            // INVARIANT: The reference is dropped below.
            self.done += 1;
            // SAFETY: The reference was the list's (type invariants).
            let folio = unsafe { HeldFolio::from_inner(folio) };
            let (gfp, pages) = (bindings::GFP_KERNEL, folio.size() / PAGE_SIZE);
            // SAFETY: The folio is of no cache, and `index` is aligned to its size (`new`). It is
            // locked, and gets a reference of the page cache's own.
            let ret = unsafe { bindings::filemap_add_folio(mapping, folio.as_ptr(), at, gfp) };
            if ret == 0 {
                let stays = may_stay(folio.pages());
                if !stays {
                    // SAFETY: It was locked just now, and is in this mapping.
                    unsafe { folio.remove(mapping) };
                }
                // SAFETY: It was locked just now.
                unsafe { folio.end_read(stays) };
            }
            at = at.saturating_add(pages);
        }
    }
}

/// Room for a list of pages that are to become one piece of memory. What is in it means nothing but
/// while [`FolioList::span`] uses it.
pub(super) struct Pages(KVec<*mut bindings::page>);

// SAFETY: The pointers are used through the lifetime of the borrow only.
unsafe impl Send for Pages {}

impl Pages {
    /// Room for `count` pages.
    pub(super) fn with_capacity(count: usize) -> Result<Self> {
        Ok(Self(KVec::with_capacity(count, GFP_KERNEL)?))
    }
}

/// Memory of folios as one piece.
///
/// # Invariants
///
/// `ptr..ptr + len` is memory of folios that are borrowed for `'a`: directly, or mapped at
/// `mapped`.
pub(super) struct Span<'a> {
    ptr: *mut u8,
    len: usize,
    mapped: Option<(NonNull<c_void>, u32)>,
    _folios: PhantomData<&'a mut FolioList>,
}

impl Deref for Span<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariants; the folios' bytes are their list's alone.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl DerefMut for Span<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants the range is mapped as long as this lives, and borrowed
        // mutably.
        unsafe { core::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let Some((base, count)) = self.mapped {
            // SAFETY: By the type invariants it is mapped there, and not used any more.
            unsafe { bindings::unmap_pages(base.as_ptr(), count) }
        }
    }
}

impl Drop for FolioList {
    fn drop(&mut self) {
        for (folio, _) in self.rest() {
            // SAFETY: By the type invariants it is owned; the list is gone after this.
            unsafe { self.kind.release(*folio, false) };
        }
    }
}
