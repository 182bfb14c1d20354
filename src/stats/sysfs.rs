// SPDX-License-Identifier: GPL-2.0

//! `/sys/fs/erofs-shared`

use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc,
    },
};

use super::{
    kobject::{Directory, Files, Show, Value},
    Counters, Dev, Field, StatsProvider, StatsSource, Totals, GLOBAL,
};

/// The files of a mount's directory: the first of [`FILES`].
const MOUNT_FILES: usize = 13;

/// Bytes in a block.
const BLOCK: u64 = 4096;

/// Bytes of an entry of the index: a node of a red-black tree and a pointer.
const ENTRY: u64 = 32;

/// The files of `stats/`.
const FILES: [(&CStr, What); MOUNT_FILES + 12] = [
    (c"shared_inodes", What::Total(|t| t.shared_inodes)),
    (c"bound_inodes", What::Counter(Field::BoundInodes)),
    (c"blocks_hashed", What::Counter(Field::BlocksHashed)),
    (c"blocks_adopted", What::Counter(Field::BlocksAdopted)),
    (c"blocks_verified", What::Counter(Field::BlocksVerified)),
    (c"blocks_compared", What::Counter(Field::BlocksCompared)),
    (c"blocks_diverged", What::Counter(Field::BlocksDiverged)),
    (c"inodes_diverged", What::Counter(Field::InodesDiverged)),
    (c"metadata_bytes", What::Counter(Field::MetadataBytes)),
    (c"hash_ns", What::Counter(Field::HashNs)),
    (c"pages_shared", What::Total(|t| t.pages_shared)),
    (c"bytes_saved", What::Total(|t| t.bytes_saved)),
    (c"mounts", What::Counter(Field::Mounts)),
    (c"index_entries", What::Counter(Field::IndexEntries)),
    (c"index_bytes", What::Times(Field::IndexEntries, ENTRY)),
    (c"aliased_blocks", What::Counter(Field::Aliases)),
    (c"aliased_bytes", What::Times(Field::Aliases, BLOCK)),
    (c"blocks_merged", What::Counter(Field::BlocksMerged)),
    (c"merge_busy", What::Counter(Field::MergeBusy)),
    (c"merge_skipped", What::Counter(Field::MergeSkipped)),
    (c"merges_waiting", What::Counter(Field::MergesWaiting)),
    (c"finder_blocks", What::Counter(Field::FinderBlocks)),
    (c"finder_passes", What::Counter(Field::FinderPasses)),
    (c"finder_ns", What::Counter(Field::FinderNs)),
    (c"finder_waiting", What::Counter(Field::FinderWaiting)),
];

/// Where a file's number comes from.
#[derive(Clone, Copy)]
enum What {
    Counter(Field),
    Times(Field, u64),
    Total(fn(&Totals) -> u64),
}

impl<S: StatsSource> Show for S {
    // They say what other tenants do, and what they have: see Documentation/security.md.
    const PRIVATE: bool = true;

    fn show(&self, index: usize) -> Result<Value> {
        Ok(Value::Number(match FILES[index].1 {
            What::Counter(field) => self.counters().get(field),
            What::Times(field, size) => self.counters().get(field).saturating_mul(size),
            What::Total(of) => of(&self.totals()?),
        }))
    }
}

fn number_files<S: StatsSource>(
    directory: Directory,
    count: usize,
    source: Arc<S>,
) -> Result<Files<S>> {
    Files::new(directory, &FILES.map(|(name, _)| name)[..count], source)
}

/// `features/`: the presence of a file says that the module has a feature; `filesystems`, the last
/// one, has a value.
struct Features(&'static StatsProvider);

impl Show for Features {
    // The same on every system with this module.
    const PRIVATE: bool = false;

    fn show(&self, index: usize) -> Result<Value> {
        Ok(Value::Word(if index < self.0.features.len() {
            c"supported"
        } else {
            (self.0.filesystems)()
        }))
    }
}

/// `stats/`
struct Module(&'static StatsProvider);

impl StatsSource for Module {
    fn counters(&self) -> &Counters {
        &GLOBAL
    }

    fn totals(&self) -> Result<Totals> {
        Ok((self.0.totals)())
    }
}

kernel::sync::global_lock! {
    // SAFETY: `Registration::new` initialises it, once; it is not looked at before `STATE` says so.
    unsafe(uninit) static MOUNTS: Mutex<Option<Arc<Directory>>> = None;
}

/// Of `MOUNTS`: 0 at first, 1 while it is being initialised, then 2.
static STATE: Atomic<u32> = Atomic::new(0);

/// The module's directory; removed on drop.
pub(crate) struct Registration {
    _features: Files<Features>,
    _stats: Files<Module>,
}

impl Registration {
    /// Makes the directory. Only once, before the first mount.
    pub(crate) fn new(hooks: &'static StatsProvider) -> Result<Self> {
        if STATE.cmpxchg(0, 1, Relaxed).is_err() {
            return Err(EBUSY);
        }
        // SAFETY: The exchange succeeds once in the life of the module.
        unsafe { MOUNTS.init() };
        STATE.store(2, Release);
        let top = Arc::new(Directory::in_fs(c"erofs-shared")?, GFP_KERNEL)?;
        let features = Directory::below(c"features", top.clone())?;
        let stats = Directory::below(c"stats", top.clone())?;
        let mounts = Directory::below(c"mounts", top)?;
        let mut names = KVec::with_capacity(hooks.features.len() + 1, GFP_KERNEL)?;
        names.extend_from_slice(hooks.features, GFP_KERNEL)?;
        names.push(c"filesystems", GFP_KERNEL)?;
        let this = Self {
            _features: Files::new(features, &names, Arc::new(Features(hooks), GFP_KERNEL)?)?,
            _stats: number_files(stats, FILES.len(), Arc::new(Module(hooks), GFP_KERNEL)?)?,
        };
        *MOUNTS.lock() = Some(Arc::new(mounts, GFP_KERNEL)?);
        Ok(this)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Not in the lock: a removal waits.
        let mounts = MOUNTS.lock().take();
        drop(mounts);
    }
}

/// `mounts/MAJOR:MINOR`; removed on drop, which waits for readers.
pub(crate) struct MountDirectory<S: StatsSource> {
    _files: Files<S>,
}

impl<S: StatsSource> MountDirectory<S> {
    /// Makes the directory of the mount with device number `dev`. Fails if there is one.
    pub(crate) fn new(dev: Dev, source: Arc<S>) -> Result<Self> {
        if STATE.load(Acquire) != 2 {
            return Err(ENODEV);
        }
        let parent = MOUNTS.lock().clone().ok_or(ENODEV)?;
        let name = CString::try_from_fmt(fmt!("{dev}"))?;
        let directory = Directory::below(&name, parent)?;
        Ok(Self {
            _files: number_files(directory, MOUNT_FILES, source)?,
        })
    }
}
