// SPDX-License-Identifier: GPL-2.0

//! What becomes of blocks that have got into a page cache: they enter the block index, or wait for
//! the merge worker.

use core::ops::Range;

use kernel::prelude::*;

use super::{
    alias,
    handle::SharedInode,
    index::{enter, Entered},
    merge,
};
use crate::{
    race::race_point,
    stats::{Field, GLOBAL},
};

/// Enters blocks that are resident and have digests. Those that another place has, which is
/// resident, are left for the merge worker; places that are not resident any more give way. May
/// sleep.
pub(crate) fn enter_all(shared: &SharedInode, blocks: Range<u64>) -> Result {
    let mut duplicates = 0..0;
    let mut result = Ok(());
    let mut at = blocks.start;
    let mut new = 0;
    while at < blocks.end && result.is_ok() {
        let run = alias::zeros(shared, at..blocks.end);
        let run = if run != 0 {
            run
        } else {
            match enter(shared, at) {
                Ok(Entered::New) => {
                    new += 1;
                    0
                }
                Ok(Entered::Instead) => 0,
                // What follows it there is likely to follow it here.
                Ok(Entered::Elsewhere) => {
                    race_point!(c"index_elsewhere");
                    alias::present_prefix(shared, at..blocks.end).max(1)
                }
                Err(err) => {
                    result = Err(err);
                    0
                }
            }
        };
        if run != 0 {
            if duplicates.end != at {
                merge::found(shared, duplicates);
                duplicates = at..at;
            }
            duplicates.end = at + run;
        }
        at += run.max(1);
    }
    merge::found(shared, duplicates);
    if new != 0 {
        GLOBAL.add(Field::IndexEntries, new);
    }
    result
}
