// SPDX-License-Identifier: GPL-2.0

//! What the module tells about itself: counters, `/sys/fs/erofs-shared`, debugfs, tracepoints.
//!
//! It names what is counted, most of which is about sharing ([`Field`]), but uses none of the code
//! that does it. The parts above count with [`Counters`], call [`trace`], and supply what only they
//! can compute through [`StatsSource`] and [`StatsProvider`].
//! `Documentation/ABI/testing/sysfs-fs-erofs-shared` says what each file means.
//!
//! # Lifetimes
//!
//! A directory in sysfs owns (by reference count) what its files show. It is removed first, which
//! waits for readers; then what they read may go. A reader never holds a lock that a removal could
//! wait for, so [`StatsSource::totals`] must not wait for a mount or umount.

mod debugfs;
mod kobject;
mod sysfs;
pub(crate) mod trace;

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

pub(crate) use debugfs::{SharedFile, SharedFileList, SharedFileListRegistration};
pub(crate) use sysfs::{MountDirectory, Registration};

/// What is counted.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Field {
    /// Real inodes that are bound to a shared inode now.
    BoundInodes,
    /// Blocks whose digest was computed.
    BlocksHashed,
    /// Blocks whose digest was taken into a shared inode as its first.
    BlocksAdopted,
    /// Blocks that were found equal to what a shared inode has.
    BlocksVerified,
    /// Blocks whose bytes were compared with those of a shared inode.
    BlocksCompared,
    /// Blocks that were found to differ from what a shared inode has.
    BlocksDiverged,
    /// Real inodes that left their shared inode.
    InodesDiverged,
    /// Memory for digests, bitmaps and bindings now.
    MetadataBytes,
    /// Blocks in the index now. Of no mount, as the rest.
    IndexEntries,
    /// Blocks now that are not resident because another place has them.
    Aliases,
    /// Blocks that were dropped because another place has them.
    BlocksMerged,
    /// Folios that were not merged because they were in use.
    MergeBusy,
    /// Large folios that were not split: less than a third of their blocks is elsewhere, or they
    /// are used a lot.
    MergeSkipped,
    /// Files of which blocks wait to be merged, or are being merged. Of no mount.
    MergesWaiting,
    /// Time spent hashing.
    HashNs,
    /// Blocks that the finder has looked at.
    FinderBlocks,
    /// How often it has gone over all that was resident.
    FinderPasses,
    /// Processor time that it took.
    FinderNs,
    /// Whether it has something to look at yet. Of no mount.
    FinderWaiting,
    /// Mounts that got a superblock, be it new or not.
    Mounts,
}

/// The number of [`Field`]s.
const FIELDS: usize = Field::Mounts as usize + 1;

/// Counters of a mount, or of the module. Only for paths that hash or bind: a count is an atomic
/// addition.
pub(crate) struct Counters {
    values: [Atomic<u64>; FIELDS],
    /// Counted there, too.
    parent: Option<&'static Counters>,
}

/// The module's counters: what the mounts counted, and what belongs to no mount.
pub(crate) static GLOBAL: Counters = Counters::with_parent(None);

impl Counters {
    const fn with_parent(parent: Option<&'static Counters>) -> Self {
        Self {
            values: [const { Atomic::new(0) }; FIELDS],
            parent,
        }
    }

    /// Counters of a mount. All that they count is in [`GLOBAL`], too.
    pub(crate) const fn of_mount() -> Self {
        Self::with_parent(Some(&GLOBAL))
    }

    /// Adds `n`.
    pub(crate) fn add(&self, field: Field, n: u64) {
        self.values[field as usize].add(n, Relaxed);
        if let Some(parent) = self.parent {
            parent.add(field, n);
        }
    }

    /// Takes back `n` that were added.
    pub(crate) fn sub(&self, field: Field, n: u64) {
        self.values[field as usize].fetch_sub(n, Relaxed);
        if let Some(parent) = self.parent {
            parent.sub(field, n);
        }
    }

    /// The value now. Another CPU may see a `sub` before the `add` that it takes back: then it is
    /// 0.
    pub(crate) fn get(&self, field: Field) -> u64 {
        let value = self.values[field as usize].load(Relaxed);
        if value > i64::MAX as u64 {
            0
        } else {
            value
        }
    }
}

/// What is computed when it is read, not counted along the way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Shared inodes in memory; of a mount: those that its files are bound to.
    pub(crate) shared_inodes: u64,
    /// Resident pages of shared inodes that serve more than one real inode.
    pub(crate) pages_shared: u64,
    /// What would be resident without sharing minus what is.
    pub(crate) bytes_saved: u64,
}

/// What the files of a mount's directory show.
pub(crate) trait StatsSource: Send + Sync + 'static {
    /// Its counters.
    fn counters(&self) -> &Counters;
    /// Computes the rest. May sleep; must not wait for a mount or umount: `EAGAIN` if one is under
    /// way.
    fn totals(&self) -> Result<Totals>;
}

/// What the module as a whole supplies.
pub(crate) struct StatsProvider {
    /// Names of the files in `features/`.
    pub(crate) features: &'static [&'static CStr],
    /// The names under which the filesystem is registered.
    pub(crate) filesystems: fn() -> &'static CStr,
    /// Computes the totals of all mounts, as [`StatsSource::totals`].
    pub(crate) totals: fn() -> Totals,
    /// Offers every shared file to a list of the most shared ones. May sleep.
    pub(crate) top: fn(&mut SharedFileList),
}

/// A device number as the kernel has it in `s_dev`; shown as `MAJOR:MINOR`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dev(pub(crate) u32);

impl kernel::fmt::Display for Dev {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        write!(f, "{}:{}", self.0 >> 20, self.0 & 0xf_ffff)
    }
}
