// SPDX-License-Identifier: GPL-2.0

//! Recording the digests of a shared inode's blocks, each once.

use kernel::prelude::*;

use super::{
    digest::Digest,
    handle::{SharedInode, Unheld},
    table::{Recorded, Writer},
};
use crate::race::race_point;

/// How a block compares with what is recorded.
pub(crate) enum Recording {
    /// All agree. Some were recorded just now.
    Agree {
        /// Digests that were not known before.
        adopted: u64,
    },
    /// The one with this number (from the first) differs. Those before it agree.
    Differ {
        /// Index from the first.
        at: usize,
    },
}

impl SharedInode {
    /// Compares digests of consecutive blocks from `first` on with what is recorded; records what
    /// is not known yet, up to the first that differs. May sleep.
    pub(crate) fn record_or_compare(&self, first: u64, digests: &[Digest]) -> Result<Recording> {
        let mut writer = Writer::new(self);
        let mut adopted = 0;
        let mut done = 0;
        while let Some(rest) = digests.get(done..).filter(|rest| !rest.is_empty()) {
            let block = first.saturating_add(done as u64);
            let slots = self
                .content()
                .table()
                .slots_or_new(&mut writer, block, true)?;
            race_point!(c"record");
            for (slot, digest) in slots.iter().zip(rest) {
                match slot.record_or_compare(&mut writer, digest) {
                    Recorded::New => adopted += 1,
                    Recorded::Same => {}
                    Recorded::Other => return Ok(Recording::Differ { at: done }),
                }
                done += 1;
            }
        }
        Ok(Recording::Agree { adopted })
    }

    /// Makes room for the digest of a block. May sleep.
    pub(super) fn reserve(&self, block: u64) -> Result {
        let mut writer = Writer::new(self);
        let slots = self
            .content()
            .table()
            .slots_or_new(&mut writer, block, true);
        slots.map(|_| ())
    }

    /// Makes what [`Unheld::record_leaving`] cannot make. May sleep.
    pub(super) fn prepare(&self) -> Result {
        self.content().table().make_places(&mut Writer::new(self))
    }
}

impl Unheld {
    /// Records digests of consecutive blocks from `first` on whose pages are about to leave memory,
    /// where there is none yet. `false`: there is no memory for them, or the table is in use. Does
    /// not sleep. Under the lock of a folio that is in the page cache: so it is not being evicted.
    pub(super) fn record_leaving(&self, first: u64, digests: &[Digest]) -> bool {
        let Some(mut writer) = Writer::try_new(self) else {
            return false;
        };
        self.content().usage().note_record();
        let mut done = 0;
        while let Some(rest) = digests.get(done..).filter(|rest| !rest.is_empty()) {
            let block = first.saturating_add(done as u64);
            let slots = self
                .content()
                .table()
                .slots_or_new(&mut writer, block, false);
            let Ok(slots) = slots else {
                return false;
            };
            for (slot, digest) in slots.iter().zip(rest) {
                // One that is known stays.
                let _ = slot.record_or_compare(&mut writer, digest);
                done += 1;
            }
        }
        true
    }
}
