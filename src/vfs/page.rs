// SPDX-License-Identifier: GPL-2.0

//! Brings single pages of a file into memory, and waits for them.
//!
//! A page of a shared inode is locked while it is read, and the image that it is read from need not
//! be the one of the inode that waits. A store that hangs or is slow must not stop readers of other
//! images, so [`OpenFile::page_in`] waits for another image's read for [`PATIENCE`] at most. After
//! that the reader gets its bytes from its own image, through its own page cache, and for
//! [`IMPATIENCE`] it does not wait for other images at all.

use kernel::prelude::*;

use super::{file::OpenFile, sharing::FileMapping, FileSystem, Inode};
use crate::{
    bindings,
    io::{
        clock::now,
        folio::FolioRef,
        mapping::Mapping,
        page::{PageRef, PageState},
        wait::is_dying,
    },
    race::race_point,
};

/// How long a reader waits for a page that is read through another image, in nanoseconds.
const PATIENCE: i64 = 200_000_000;

/// How long a reader that waited in vain does not wait for other images again, in nanoseconds.
const IMPATIENCE: i64 = 1_000_000_000;

/// Failed folios that a reader meets in one place before it leaves that page cache alone.
const MAX_FAILURES: u32 = 8;

/// How long a wait lasts before the state of the page is looked at again, in milliseconds.
const SLICE_MS: u32 = 20;

/// Why a shared inode's page cache does not have verified bytes for a reader.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unready {
    /// The real inode has left the shared inode: the bytes are elsewhere now.
    Left,
    /// The page is being read through another image, which takes too long, or lies in one folio
    /// with pages that the reader's own image cannot verify, or cannot be read and verified for
    /// now. The reader's own image has the bytes.
    Busy,
    /// The read failed.
    Failed(Error),
}

impl From<Error> for Unready {
    fn from(err: Error) -> Self {
        Unready::Failed(err)
    }
}

impl<T: FileSystem> OpenFile<'_, T> {
    /// Returns a page's folio, uptodate, after reading it if it is not resident. `mapping` is the
    /// inode's own, or that of a shared inode that it is or was bound to. `want` is the number of
    /// pages that the reader wants from this one on. Sleeps, killably.
    ///
    /// The bytes may have been read through another image: the caller verifies them.
    pub(super) fn page_in(
        self,
        mapping: Mapping<'_>,
        index: usize,
        want: usize,
    ) -> Result<FolioRef, Unready> {
        let inode = self.inode();
        let own = mapping == inode.own_mapping();
        // The page that has been read in the name of this file, and by itself: an error of that
        // read counts.
        let mut mine: Option<PageRef> = None;
        let mut want_ahead = Some(want);
        // Since when pages have been in the way that are not read through this inode's own image.
        let mut since = None;
        let mut failures = 0;
        loop {
            let state = self.look(mapping, index, &mut want_ahead)?;
            race_point!(c"page_found");
            let folio = match state {
                PageState::Ready(folio) => {
                    self.continue_readahead(mapping, &folio, index, want);
                    if !own {
                        inode.be_patient_again();
                    }
                    return Ok(folio);
                }
                PageState::Absent => {
                    // SAFETY: The file is open, and is read through this mapping.
                    mine = unsafe { PageRef::add_and_read(mapping, index, self.as_ptr()) }?;
                    continue;
                }
                PageState::Locked(folio) => {
                    inode.wait_unlocked(&folio, own, &mut since)?;
                    continue;
                }
                PageState::Failed(folio) => folio,
            };
            if mine.as_ref().is_some_and(|mine| mine.is(&folio)) {
                return Err(match own {
                    true => Unready::Failed(EIO),
                    // The read has failed, or there was no memory to verify what it gave. That of
                    // the inode's own page cache needs none, and says if it fails.
                    false => Unready::Busy,
                });
            }
            // Those around it do not come by a read that fails.
            want_ahead = None;
            failures += 1;
            inode.count_failures(failures, own)?;
            let pages = folio.pages();
            if pages.end - pages.start > 1 {
                // A large folio fails as a whole. Without it the page is read by itself.
                folio.remove_failed(mapping);
                continue;
            }
            // SAFETY: The file is open, and is read through this mapping.
            if unsafe { folio.read_again(mapping, self.as_ptr()) }? {
                mine = Some(folio);
            }
        }
    }

    /// Looks a page up. If it is not there, `want` pages from it on are read ahead, once.
    fn look(
        self,
        mapping: Mapping<'_>,
        index: usize,
        want: &mut Option<usize>,
    ) -> Result<PageState, Unready> {
        let state = PageState::find(mapping, index as u64);
        let missing = matches!(state, PageState::Absent | PageState::Failed(_));
        if missing && !self.may_fill(mapping) {
            return Err(Unready::Busy);
        }
        let ahead = match state {
            PageState::Absent => want.take(),
            _ => None,
        };
        let Some(want) = ahead else {
            return Ok(state);
        };
        // SAFETY: The mapping is live, and has a `readahead`; the file is open.
        unsafe { bindings::ra_sync(mapping.as_ptr(), self.as_ptr(), index, want) };
        Ok(PageState::find(mapping, index as u64))
    }

    /// Has more read ahead, of `want` pages from `index` on, if `folio` marks the place to do so.
    fn continue_readahead(self, mapping: Mapping<'_>, folio: &FolioRef, index: usize, want: usize) {
        if folio.is_readahead() {
            let (mapping, file, folio) = (mapping.as_ptr(), self.as_ptr(), folio.as_ptr());
            // SAFETY: The mapping is live, and has a `readahead`; the file is open; the reference
            // keeps the folio.
            unsafe { bindings::ra_async(mapping, file, folio, index, want) };
        }
    }

    /// Whether pages may be read into `mapping` in the name of this file. May wait for a grace
    /// period.
    fn may_fill(self, mapping: Mapping<'_>) -> bool {
        match self.inode().through(mapping) {
            FileMapping::Shared(binding) => binding.wait_may_fill(),
            FileMapping::Own | FileMapping::Stale(_) => true,
        }
    }
}

impl<T: FileSystem> Inode<T> {
    /// Waits until a folio is unlocked: for as long as that takes if it is read through this
    /// inode's own image, else for [`PATIENCE`], of which `since` is the beginning.
    fn wait_unlocked(
        &self,
        folio: &PageRef,
        own: bool,
        since: &mut Option<i64>,
    ) -> Result<(), Unready> {
        let reader: *const c_void = self.sb().as_ptr().cast();
        loop {
            if own {
                return folio.wait().map_err(Unready::Failed);
            }
            let begin = *since.get_or_insert_with(now);
            if folio.reader() == reader {
                *since = None;
            } else {
                let patience = if begin < self.sharing().impatient_until() {
                    0
                } else {
                    PATIENCE
                };
                if now().saturating_sub(begin) >= patience {
                    self.lose_patience();
                    return Err(Unready::Busy);
                }
            }
            if folio.wait_for(SLICE_MS).map_err(Unready::Failed)? {
                return Ok(());
            }
        }
    }

    /// Says whether a reader continues after it has met `failures` failed folios in one place of a
    /// page cache: this inode's `own`, or a shared one.
    fn count_failures(&self, failures: u32, own: bool) -> Result<(), Unready> {
        if is_dying() {
            return Err(Unready::Failed(EINTR));
        }
        if failures <= MAX_FAILURES {
            return Ok(());
        }
        if own {
            return Err(Unready::Failed(EIO));
        }
        // Reads in the name of other files: this one's own image may be a good one.
        self.lose_patience();
        Err(Unready::Busy)
    }

    /// Other images are not waited for from now on, for [`IMPATIENCE`].
    pub(super) fn lose_patience(&self) {
        self.sharing()
            .set_impatient_until(now().saturating_add(IMPATIENCE));
    }

    /// A page comes into the inode's own page cache though a shared one is to have it: it is
    /// dropped when pages come through that again.
    pub(super) fn note_own_copy(&self) {
        if self.sharing().impatient_until() == 0 {
            self.sharing().set_impatient_until(now());
        }
    }

    /// Drops what was read past the shared page cache, once other images answer again.
    fn be_patient_again(&self) {
        let until = self.sharing().impatient_until();
        if until == 0 || now() < until {
            return;
        }
        self.sharing().set_impatient_until(0);
        let own = self.own_mapping().as_ptr();
        // SAFETY: The type invariants of `Mapping` say that the mapping is live.
        unsafe { bindings::invalidate_mapping_pages(own, 0, usize::MAX) };
    }
}
