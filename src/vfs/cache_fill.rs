// SPDX-License-Identifier: GPL-2.0

//! What comes after file data has been read into a page cache: checks, or none.

use kernel::{prelude::*, sync::Arc};

use super::{
    under_way::{SuperUnderWay, UnderWay},
    FileSystem, Inode,
};
use crate::{
    io::{
        fill::{FillCompletion, FillGuard},
        folios::Folios,
        wait::cond_resched,
    },
    race::race_point,
    share::{Binding, BLOCK_SHIFT, BLOCK_SIZE},
};

/// A folio's bytes, being read for a page cache.
pub(super) struct CacheFill<T: FileSystem> {
    pub(super) binding: Arc<Binding>,
    // Last, so that everything else is gone when an unmount continues.
    pub(super) under_way: UnderWay<T>,
}

impl<T: FileSystem> FillCompletion for CacheFill<T> {
    fn complete(self, mut folios: Folios, _result: Result) {
        // Those that failed are not uptodate: the next reader retries the read.
        let inode = self.under_way.inode();
        let pos = folios.pos();
        folios.zero_tail(pos, inode.size());
        let trusted = self.binding.shared().identity().trusted;
        let mut block = pos >> BLOCK_SHIFT;
        while let Some(bytes) = folios.first() {
            if !trusted && inode.check(&self.binding, block, bytes).is_err() {
                return;
            }
            let next = block + (bytes.len() / BLOCK_SIZE) as u64;
            race_point!(c"fill_checked");
            folios.finish_first();
            race_point!(c"fill_finished");
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

/// A folio's bytes, being read for the page cache of an inode that is not shared.
pub(super) struct OwnFill<T: FileSystem> {
    pub(super) under_way: UnderWay<T>,
}

impl<T: FileSystem> FillCompletion for OwnFill<T> {
    fn complete(self, mut folios: Folios, _result: Result) {
        // As for `CacheFill`.
        let pos = folios.pos();
        folios.zero_tail(pos, self.under_way.inode().size());
        while folios.first().is_some() {
            folios.finish_first();
            cond_resched();
        }
    }

    fn bad_data(&self, pos: u64, what: &'static str) {
        self.under_way.bad_data(pos, what);
    }
}

/// Data that needs neither decoding nor checking, being read for the page cache of a shared inode:
/// that of a file whose fingerprint is trusted, or which no other inode has. Its folios are uptodate
/// as soon as the I/O is done, in whatever context that is.
pub(super) struct PlainFill<T: FileSystem> {
    /// The file's size.
    size: u64,
    _under_way: SuperUnderWay<T>,
}

impl<T: FileSystem> PlainFill<T> {
    /// Of an inode that is not encoded.
    pub(super) fn new(inode: &Inode<T>) -> Self {
        Self {
            size: inode.size(),
            _under_way: SuperUnderWay::new(inode),
        }
    }
}

impl<T: FileSystem> FillCompletion for PlainFill<T> {
    const ANY_CONTEXT: bool = true;

    fn complete(self, mut folios: Folios, _result: Result) {
        // As for `CacheFill`.
        let pos = folios.pos();
        folios.zero_tail(pos, self.size);
        while folios.first().is_some() {
            folios.finish_first();
        }
    }

    // Nothing is decoded.
    fn bad_data(&self, _pos: u64, _what: &'static str) {}
}
