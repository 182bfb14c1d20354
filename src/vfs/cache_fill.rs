// SPDX-License-Identifier: GPL-2.0

//! What comes after file data has been read into a page cache: checks, or none.

use kernel::{prelude::*, sync::Arc};

use super::{
    in_flight::{InFlight, SuperInFlight},
    FileSystem, Inode,
};
use crate::{
    io::{fill::FillCompletion, folio_list::FolioList, wait::cond_resched},
    race::race_point,
    share::{finder::Reading, Binding, Verify, BLOCK_SHIFT, BLOCK_SIZE},
};

/// What is done to bytes before they become readable in the page cache of a shared inode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Nothing: they are trusted, or the only user's.
    Nothing,
    /// They are hashed, and the digests are recorded or compared.
    Digests,
    /// They are compared with the digests of pages that were there before, if there are any.
    Leftovers,
}

/// A folio's bytes, being read for a page cache.
pub(super) struct CacheFill<T: FileSystem> {
    binding: Arc<Binding>,
    check: Check,
    _reading: Reading,
    // Last, so that everything else is gone when an unmount continues.
    in_flight: InFlight<T>,
}

impl<T: FileSystem> CacheFill<T> {
    /// For folios that are in the page cache of `binding` already, locked.
    pub(super) fn new(inode: &Inode<T>, binding: &Arc<Binding>) -> Self {
        let check = if binding.needs_no_check() {
            // Should it be one of many when the bytes are there: it was not when the folios were
            // locked, so that no inode counts on having verified them, this one included.
            Check::Nothing
        } else if binding.shared().identity().verify == Verify::Digests {
            Check::Digests
        } else {
            Check::Leftovers
        };
        Self {
            binding: binding.clone(),
            check,
            _reading: Reading::of(binding.shared()),
            in_flight: InFlight::new(inode),
        }
    }
}

impl<T: FileSystem> FillCompletion for CacheFill<T> {
    type Guard = InFlight<T>;

    fn guard(&self) -> &InFlight<T> {
        &self.in_flight
    }

    fn complete(self, mut folios: FolioList, _result: Result) {
        // Those that failed are not uptodate: the next reader retries the read.
        let inode = self.in_flight.inode();
        let pos = folios.pos();
        folios.zero_tail(pos, inode.size());
        let mut block = pos >> BLOCK_SHIFT;
        while let Some(bytes) = folios.first() {
            let checked = match self.check {
                Check::Nothing => Ok(()),
                Check::Digests => inode.check(&self.binding, block, bytes),
                Check::Leftovers => {
                    let compared = inode.compare_filled(&self.binding, block, bytes);
                    inode.apply_comparison(&self.binding, compared)
                }
            };
            if checked.is_err() {
                return;
            }
            let next = block + (bytes.len() / BLOCK_SIZE) as u64;
            race_point!(c"fill_checked");
            folios.finish_first();
            race_point!(c"fill_finished");
            match self.check {
                Check::Nothing => {}
                Check::Digests => inode.enter(&self.binding, block..next),
                // What has a digest was elsewhere, too, and may be again.
                Check::Leftovers => {
                    let content = self.binding.shared().content();
                    for block in (block..next).filter(|block| content.is_recorded(*block)) {
                        inode.enter(&self.binding, block..block + 1);
                    }
                }
            }
            block = next;
            cond_resched();
        }
    }
}

/// A folio's bytes, being read for the page cache of an inode that is not shared.
pub(super) struct OwnFill<T: FileSystem> {
    pub(super) in_flight: InFlight<T>,
}

impl<T: FileSystem> FillCompletion for OwnFill<T> {
    type Guard = InFlight<T>;

    fn guard(&self) -> &InFlight<T> {
        &self.in_flight
    }

    fn complete(self, mut folios: FolioList, _result: Result) {
        // As for `CacheFill`.
        let pos = folios.pos();
        folios.zero_tail(pos, self.in_flight.inode().size());
        while folios.first().is_some() {
            folios.finish_first();
            cond_resched();
        }
    }
}

/// Data that needs neither decoding nor checking, being read for the page cache of a shared inode:
/// that of a file whose fingerprint is trusted, or which no other inode has. Its folios are
/// uptodate as soon as the I/O is done, in whatever context that is.
pub(super) struct UncheckedFill<T: FileSystem> {
    /// The file's size.
    size: u64,
    _reading: Reading,
    // Last, so that everything else is gone when an unmount continues.
    under_way: SuperInFlight<T>,
}

impl<T: FileSystem> UncheckedFill<T> {
    /// Of an inode that is not encoded, for the page cache of `binding`.
    pub(super) fn new(inode: &Inode<T>, binding: &Binding) -> Self {
        Self {
            size: inode.size(),
            _reading: Reading::of(binding.shared()),
            under_way: SuperInFlight::new(inode),
        }
    }
}

impl<T: FileSystem> FillCompletion for UncheckedFill<T> {
    type Guard = SuperInFlight<T>;

    const ANY_CONTEXT: bool = true;

    fn guard(&self) -> &SuperInFlight<T> {
        &self.under_way
    }

    fn complete(self, mut folios: FolioList, _result: Result) {
        // As for `CacheFill`.
        let pos = folios.pos();
        folios.zero_tail(pos, self.size);
        while folios.first().is_some() {
            folios.finish_first();
        }
    }
}
