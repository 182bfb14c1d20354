// SPDX-License-Identifier: GPL-2.0

//! How real inodes become users of a shared inode whose pages are verified by their bytes
//! ([`usage`](super::usage)).

use kernel::prelude::*;

use super::{
    handle::SharedInode,
    set::Prepared,
    usage::{Joined, Joining, Role, User},
};
use crate::{
    bindings,
    io::{locked::visit_ready, wait::cond_resched},
    race::race_point,
};

impl SharedInode {
    /// Makes a real inode a user of this shared inode. May sleep.
    pub(crate) fn join(&self, joining: &Joining<'_>) -> Result<Role> {
        let usage = self.content().usage();
        let mut memory = None;
        loop {
            match usage.join(joining, &mut memory, || self.release_always()) {
                Joined::As(role) => return Ok(role),
                Joined::NeedsMemory => {
                    self.prepare()?;
                    memory = Some(Prepared::new(self.blocks())?);
                }
                Joined::WithFormer(former) => {
                    race_point!(c"many");
                    self.note_resident_for(&*former);
                    self.note_recorded_for(&*former);
                    // From here on there are others' pages and digests.
                    usage.noted();
                    return Ok(Role::OneOfMany);
                }
            }
        }
    }

    /// What is resident was read through the image of `former`, the only user up to now: it has
    /// verified that.
    fn note_resident_for(&self, former: &dyn User) {
        let blocks = self.blocks();
        visit_ready(self.mapping(), &mut |pages| {
            former.has_verified(pages.start..pages.end.min(blocks));
        });
    }

    /// What has a digest was read through the image of `former`, too: it may be resident elsewhere
    /// only.
    fn note_recorded_for(&self, former: &dyn User) {
        let content = self.content();
        if !content.usage().has_records() {
            return;
        }
        for chunk in content.chunks() {
            let mut run = chunk.start..chunk.start;
            for block in chunk.filter(|block| content.is_recorded(*block)) {
                if run.end != block {
                    former.has_verified(run);
                    run = block..block;
                }
                run.end = block + 1;
            }
            former.has_verified(run);
            cond_resched();
        }
    }

    /// From now on each page that leaves the cache is looked at before.
    fn release_always(&self) {
        // SAFETY: The mapping is that of a live inode.
        unsafe { bindings::mapping_release_always(self.mapping().as_ptr()) }
    }
}
