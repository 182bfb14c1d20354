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
        let mut adopted = 0;
        let mut differs = None;
        let mut writer = Writer::new(self);
        self.record(&mut writer, first, digests, true, |at, recorded| {
            match recorded {
                Recorded::New => adopted += 1,
                Recorded::Same => {}
                Recorded::Other => differs = Some(at),
            }
            differs.is_none()
        })?;
        Ok(match differs {
            Some(at) => Recording::Differ { at },
            None => Recording::Agree { adopted },
        })
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
    /// Records digests of consecutive blocks from `first` on, where there is none yet, as long as
    /// `goes_on` says so of what became of one; it gets its index from the first, too. Sleeps if it
    /// `may_sleep`.
    ///
    /// `writer` is that of this shared inode.
    fn record(
        &self,
        writer: &mut Writer<'_>,
        first: u64,
        digests: &[Digest],
        may_sleep: bool,
        mut goes_on: impl FnMut(usize, Recorded) -> bool,
    ) -> Result {
        let mut done = 0;
        while let Some(rest) = digests.get(done..).filter(|rest| !rest.is_empty()) {
            let block = first.saturating_add(done as u64);
            let table = self.content().table();
            let slots = table.slots_or_new(writer, block, may_sleep)?;
            if may_sleep {
                race_point!(c"record");
            }
            for (slot, digest) in slots.iter().zip(rest) {
                if !goes_on(done, slot.record_or_compare(writer, digest)) {
                    return Ok(());
                }
                done += 1;
            }
        }
        Ok(())
    }

    /// Records digests of consecutive blocks from `first` on whose pages are about to leave memory,
    /// where there is none yet. `false`: there is no memory for them, or the table is in use. Does
    /// not sleep. Under the lock of a folio that is in the page cache: so it is not being evicted.
    pub(super) fn record_leaving(&self, first: u64, digests: &[Digest]) -> bool {
        let Some(mut writer) = Writer::try_new(self) else {
            return false;
        };
        self.content().usage().note_record();
        // One that is known stays.
        self.record(&mut writer, first, digests, false, |_, _| true)
            .is_ok()
    }
}
