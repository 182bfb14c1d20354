// SPDX-License-Identifier: GPL-2.0

//! The part of the merge worker (`src/share/merge.rs`) that puts a page back: it has dropped a large
//! folio for the sake of other blocks, and has a copy of this one.

use loom::sync::atomic::Ordering::*;

use super::{contract::Step, kernel::now, shared_inode::Shared};

impl Shared {
    /// Drops the page, and puts a copy in its place.
    pub fn merge(&self) {
        let place = now(&self.slot, Relaxed);
        let Some(bytes) = self.ready().map(|folio| folio.bytes.load(Relaxed)) else {
            return;
        };
        let Some(recorded) = self.recorded(place, bytes) else {
            return;
        };
        self.reclaim();
        let Some(folio) = self.insert() else { return };
        let now_recorded = now(&self.digest, Acquire) != 0;
        if !self.does(Step::MergeMindsRecords) || now_recorded == recorded {
            folio.bytes.store(bytes, Relaxed);
            folio.uptodate.store(true, Release);
        } else {
            self.remove(folio);
        }
        folio.unlock();
    }

    /// `Recorded::of`: whether the block has a digest, which it gets if there are many users, so that
    /// the copy can go back. `None`: the page may not be the one in the cache.
    fn recorded(&self, place: u64, bytes: u64) -> Option<bool> {
        if self.is_many() && now(&self.digest, Acquire) == 0 {
            let folio = self.locked()?;
            let same = folio.uptodate.load(Acquire) && folio.bytes.load(Relaxed) == bytes;
            if same && now(&self.digest, Acquire) == 0 {
                self.record(bytes);
            }
            folio.unlock();
            if !same || now(&self.digest, Acquire) != bytes {
                return None;
            }
        }
        let recorded = now(&self.digest, Acquire) != 0;
        let there = !self.does(Step::MergeLooksForFolio) || now(&self.slot, Relaxed) == place;
        there.then_some(recorded)
    }
}
