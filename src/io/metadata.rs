// SPDX-License-Identifier: GPL-2.0

//! Metadata bytes out of a page cache.

use core::{marker::PhantomData, ops::Deref};

use kernel::{
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

use super::{
    folio::HeldFolio,
    mapping::Mapping,
    page::{PageRef, PageState},
};
use crate::{
    bindings,
    format::{self, error::Kind, source::Source},
    race::race_point,
};

/// Why metadata could not be read: the image says nonsense, or reading failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadError {
    /// What the format core found wrong.
    Format(format::error::Error),
    /// The read itself failed.
    Io(Error),
}

impl From<format::error::Error> for ReadError {
    fn from(err: format::error::Error) -> Self {
        ReadError::Format(err)
    }
}

impl From<Error> for ReadError {
    fn from(err: Error) -> Self {
        ReadError::Io(err)
    }
}

/// A readable, uptodate folio's bytes from one position to the end of that page.
///
/// # Invariants
///
/// `folio` is uptodate; `ptr..ptr + len` lies inside it. The folio belongs to the mapping of a
/// regular file or a directory of this module. Nothing can write to that (no `write_iter`, no
/// shared writable mapping, and `page_get_link`, which ends a target with a NUL, is for symbolic
/// links alone), so its bytes do not change while the reference is held.
pub(crate) struct FolioBytes<'a> {
    folio: HeldFolio,
    ptr: *const u8,
    len: usize,
    _mapping: PhantomData<&'a bindings::address_space>,
}

impl FolioBytes<'_> {
    /// Whether [`FolioBytes::set_checked`] was called for all that is in the folio now.
    #[inline(always)]
    pub(crate) fn is_checked(&self) -> bool {
        self.folio.is_checked()
    }

    /// Notes that these bytes are what they must be, if they are all of the folio's in the file: a
    /// longer one is not noted. It is forgotten with the folio.
    pub(crate) fn set_checked(&self) {
        if self.folio.size() == PAGE_SIZE && self.ptr == self.folio.address().cast_const() {
            self.folio.set_checked();
        }
    }

    /// Gives up the reference as raw parts: the folio and the first byte's address. Take it back
    /// with [`FolioBytes::put_raw`].
    pub(crate) fn into_raw(self) -> (*mut bindings::folio, *mut u8) {
        (self.folio.into_raw(), self.ptr.cast_mut())
    }

    /// Drops what [`FolioBytes::into_raw`] gave up.
    ///
    /// # Safety
    ///
    /// * `folio` comes from [`FolioBytes::into_raw`].
    /// * It is given up once, and not used afterwards.
    pub(crate) unsafe fn put_raw(folio: *mut bindings::folio) {
        // SAFETY: The caller hands over the reference.
        drop(unsafe { HeldFolio::from_raw(folio) });
    }
}

impl Deref for FolioBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariants the range is inside a live folio and does not change.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// The lockdep subclass for `invalidate_lock`: a read of a file or directory may read the packed
/// inode, and that the metabox inode.
#[derive(Clone, Copy)]
pub(crate) enum LockSubclass {
    /// A directory, or a file that reads no other.
    Directory = 1,
    /// The packed inode.
    Packed = 2,
    /// The metabox inode.
    Metabox = 3,
}

/// The bytes of a mapping of this module, as the format core reads them.
///
/// # Invariants
///
/// `mapping` is that of a regular file or a directory, and has a `readahead` and a `read_folio`.
#[derive(Clone, Copy)]
pub(crate) struct CacheBytes<'a> {
    mapping: Mapping<'a>,
    size: u64,
    /// Its pages are worth reading with those around them.
    around: Option<LockSubclass>,
}

impl<'a> CacheBytes<'a> {
    /// # Safety
    ///
    /// * `mapping` is that of a regular file or a directory.
    /// * It has a `readahead` and a `read_folio`.
    /// * `size` is that inode's size.
    pub(crate) unsafe fn new(mapping: Mapping<'a>, size: u64) -> Self {
        // INVARIANT: By this function's requirements it is such a mapping, and of this size.
        Self {
            mapping,
            size,
            around: None,
        }
    }

    /// The same, for data that is compressed: what is not in the page cache comes there with all
    /// that is compressed together with it.
    pub(crate) fn encoded(self, depth: LockSubclass) -> Self {
        Self {
            around: Some(depth),
            ..self
        }
    }

    /// Reads `len` bytes from `pos` on into the page cache, unless the first of them is there.
    pub(crate) fn read_ahead(&self, pos: u64, len: usize) {
        let depth = self.around.unwrap_or(LockSubclass::Packed);
        if pos >= self.size || len == 0 {
            return;
        }
        let end = pos.saturating_add(len as u64).min(self.size);
        let first = pos >> PAGE_SHIFT;
        let count = ((end - 1) >> PAGE_SHIFT) - first + 1;
        let (mapping, first, count) = (self.mapping.as_ptr(), first as usize, count as usize);
        // SAFETY: By the type invariants the mapping is live and has a `readahead`.
        unsafe { bindings::read_around(mapping, first, count, depth as u32) };
    }

    /// The folio with page `index`, uptodate, with a reference. A fatal signal ends the wait for
    /// it, also if another task is reading it, for which `read_cache_folio()` would wait whatever
    /// happens.
    fn folio(&self, index: usize) -> Result<HeldFolio> {
        let (mapping, no_file) = (self.mapping, core::ptr::null_mut());
        // The page that has been read here: an error of that read counts.
        let mut mine: Option<PageRef> = None;
        loop {
            let failed = match PageState::find(mapping, index as u64) {
                PageState::Ready(folio) => {
                    folio.mark_accessed();
                    return Ok(folio.into_held());
                }
                PageState::Locked(folio) => {
                    folio.wait()?;
                    continue;
                }
                PageState::Absent => {
                    race_point!(c"metadata_absent");
                    // SAFETY: There is no file.
                    mine = unsafe { PageRef::add_and_read(mapping, index, no_file) }?;
                    continue;
                }
                PageState::Failed(folio) => folio,
            };
            if mine.as_ref().is_some_and(|mine| mine.is(&failed)) {
                return Err(EIO);
            }
            // SAFETY: There is no file.
            if unsafe { failed.read_again(mapping, no_file) }? {
                mine = Some(failed);
            }
        }
    }

    /// Like [`Source::bread`], with the lifetime of the inode instead of `self`.
    #[inline]
    pub(crate) fn bytes(&self, pos: u64) -> Result<FolioBytes<'a>, ReadError> {
        if pos >= self.size {
            return Err(self.past_end(pos));
        }
        let mut ptr = core::ptr::null();
        let (mapping, to) = (self.mapping.as_ptr(), &raw mut ptr);
        // SAFETY: The mapping is live (type invariants).
        let folio = unsafe { bindings::metadata_get(mapping, pos as i64, to) };
        // SAFETY: The folio comes with a reference.
        match unsafe { HeldFolio::from_raw(folio) } {
            // INVARIANT: The folio is uptodate and contains `pos`, the byte of which `ptr` is the
            // address; so it contains the rest of that page, too. The mapping is one of this
            // module's, by the type invariants.
            Some(folio) => Ok(FolioBytes {
                folio,
                ptr: ptr.cast(),
                len: self.in_page(pos),
                _mapping: PhantomData,
            }),
            None => self.read(pos),
        }
    }

    #[cold]
    fn past_end(&self, pos: u64) -> ReadError {
        ReadError::Format(format::error::Error {
            kind: Kind::Corrupted,
            what: "metadata past the end",
            pos,
            value: self.size,
        })
    }

    /// How many bytes there are from `pos` on, which is in the inode, in the same page.
    #[inline(always)]
    fn in_page(&self, pos: u64) -> usize {
        let rest = self.size.wrapping_sub(pos);
        let in_page = PAGE_SIZE as u64 - pos % PAGE_SIZE as u64;
        rest.min(in_page) as usize
    }

    /// As [`CacheBytes::bytes`], of what is perhaps not in the page cache.
    #[cold]
    fn read(&self, pos: u64) -> Result<FolioBytes<'a>, ReadError> {
        let index = (pos >> PAGE_SHIFT) as usize;
        if self.around.is_some() {
            self.read_ahead(pos, 1);
        }
        let folio = self.folio(index)?;
        let in_folio = pos.wrapping_sub(folio.pos()) as usize;
        if in_folio >= folio.size() {
            return Err(ReadError::Io(EIO));
        }
        // INVARIANT: The folio is uptodate and contains `index`, and `in_folio + len` is at most
        // the end of a page of it. The mapping is one of this module's, by the type invariants.
        Ok(FolioBytes {
            ptr: folio.address().wrapping_add(in_folio),
            folio,
            len: self.in_page(pos),
            _mapping: PhantomData,
        })
    }
}

impl<'m> Source for CacheBytes<'m> {
    type Error = ReadError;
    type Buf<'a>
        = FolioBytes<'a>
    where
        Self: 'a;

    fn bread(&self, pos: u64) -> Result<Self::Buf<'_>, ReadError> {
        self.bytes(pos)
    }
}
