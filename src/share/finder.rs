// SPDX-License-Identifier: GPL-2.0

//! Looking for equal blocks of different contents, where data is verified by its bytes
//! (`verify=compare`): nothing is hashed when it is read, so that nothing is known of its blocks.
//!
//! Some seconds after something was read, a thread that runs when nothing else wants the processor
//! goes over the pages that are resident ([`pass`]). It takes a sample of each block, looks for it
//! in a table, and compares the bytes of blocks with the same sample. Those that are equal get a
//! digest, and with it a place in the block index, and wait for the merge worker: from there on all
//! is as where every block has a digest. If the table, which takes `finder_memory=` KiB at most, is
//! too small for all blocks, the pass has several rounds, each for a part of the samples.
//!
//! The thread sleeps so often that it takes no more than `finder_cpu=` percent of one processor.
//! While memory is short it takes [`HASTE`] times that, and begins at once ([`pressure`]).

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

use super::{
    dedup,
    digest::{Digest, Sha256, BLOCK_SIZE, ZERO_DIGEST},
    handle::{SharedInode, SharedRef},
    pressure,
    pseudo_fs::for_each,
    secret,
    sha256::KernelSha256,
    Verify,
};
use crate::{
    io::{
        clock,
        delayed_work::Run,
        folio::FolioRef,
        locked::same_bytes,
        memcg::{Payer, OPTIONAL},
        thread::{self, Hurry, IdleThread},
        wait::cond_resched,
    },
    params,
    stats::{Field, GLOBAL},
};

/// Processor time after which the thread looks whether it has to sleep, in nanoseconds.
const SLICE: u64 = 1_000_000;

/// How many times as much processor time it may take while memory is short.
const HASTE: u64 = 5;

/// Places in a table that is worth a pass, where there is no memory for more.
const LEAST_PLACES: usize = 1 << 12;

/// Rounds of a pass at most. If they are too few for the table, some blocks find no place in it.
const MAX_ROUNDS: u64 = 1 << 10;

/// Places that are looked at for one block at most. With half of the table taken, one block in some
/// 100,000 finds none.
const PROBES: usize = 64;

/// How many blocks with the same sample, which differ, are told apart: those that are zeros but for
/// a few words have often one.
const SAME_SAMPLE: usize = 8;

/// A block of zeros.
const ZEROS: &[u8] = &[0; BLOCK_SIZE];

/// [`NOTHING`], [`READ`] or [`PASS`].
static STATE: Atomic<u32> = Atomic::new(NOTHING);

/// Nothing has been read since the last pass began, and it is over.
const NOTHING: u32 = 0;

/// Something has been read since the last pass began, if there was one.
const READ: u32 = 1;

/// A pass is under way, and nothing has been read since it began.
const PASS: u32 = 2;

/// Passes in a row after each of which there is another one because pages were in use.
const MAX_AGAIN: u32 = 4;

/// How many there have been.
static AGAIN: Atomic<u32> = Atomic::new(0);

/// Has the thread look for equal blocks.
fn note() {
    let before = STATE.xchg(READ, Full);
    if before == NOTHING {
        GLOBAL.add(Field::FinderWaiting, 1);
    }
    if before != READ {
        thread::wake();
    }
}

/// Sleeps for `finder_delay=`, or until memory is short. `false`: the thread is to end.
fn delay() -> bool {
    let begin = clock::now();
    loop {
        let waited = clock::now().abs_diff(begin) / 1_000_000;
        // That may be changed meanwhile.
        let left = u64::from(params::finder_delay()).saturating_sub(waited);
        if left == 0 || pressure::is_short() {
            return true;
        }
        if !thread::sleep(left.min(1000) as u32) {
            return false;
        }
    }
}

/// A read into the page cache of a shared inode. When it is over, which this being dropped says,
/// equal blocks may be looked for in what it has brought in. May be dropped in any context.
pub(crate) struct Reading {
    is_looked_at: bool,
}

impl Reading {
    /// One that begins.
    pub(crate) fn of(shared: &SharedInode) -> Self {
        Self {
            is_looked_at: shared.identity().verify == Verify::Bytes,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Either a pass that has begun finds the pages, or this finds that one has.
        if self.is_looked_at {
            note();
        }
    }
}

/// What the thread runs.
pub(crate) struct Finder;

/// The thread. Dropping it ends it.
pub(crate) type FinderThread = IdleThread<Finder>;

impl Run for Finder {
    fn run() {
        // What is read meanwhile is in this pass, or in the next one.
        if !delay() {
            return;
        }
        STATE.xchg(PASS, Full);
        // Without memory for it, nothing is found until something is read again.
        let missed = pass().unwrap_or(false);
        let again = AGAIN.load(Relaxed);
        if missed && again < MAX_AGAIN {
            AGAIN.store(again + 1, Relaxed);
            note();
        } else {
            AGAIN.store(0, Relaxed);
        }
        if STATE.cmpxchg(PASS, NOTHING, Full).is_ok() {
            GLOBAL.sub(Field::FinderWaiting, 1);
        }
    }
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Place {
    /// The sample of its bytes; 0: there is none here.
    tag: u32,
    /// Which of the shared inodes of this pass.
    inode: u32,
    /// Which block.
    block: u32,
}

impl Place {
    const NONE: Self = Self {
        tag: 0,
        inode: 0,
        block: 0,
    };

    /// How many a table has at most: a power of two.
    fn most() -> usize {
        let bytes = params::finder_memory() as usize * 1024;
        let places = (bytes / core::mem::size_of::<Self>()).max(LEAST_PLACES);
        1 << places.ilog2()
    }
}

/// What is known of the blocks that a round has gone over.
struct Table {
    places: KVVec<Place>,
    /// The tag of a block of zeros, which is not in it.
    zero_tag: u32,
    /// Rounds of this pass, from 1 to [`MAX_ROUNDS`]: enough for half of it to stay empty.
    rounds: u64,
    /// Which of them this is.
    round: u64,
}

impl Table {
    /// For a pass over `blocks` blocks.
    fn new(blocks: u64) -> Result<Self> {
        let want = blocks.saturating_mul(2).max(1);
        let most = Place::most();
        let mut len = usize::try_from(want).map_or(most, |want| want.min(most).next_power_of_two());
        let places = loop {
            match KVVec::from_elem(Place::NONE, len, OPTIONAL) {
                Ok(places) => break places,
                Err(_) if len > LEAST_PLACES => len /= 2,
                Err(err) => return Err(err.into()),
            }
        };
        Ok(Self {
            places,
            zero_tag: secret::sample(ZEROS) as u32 | 1,
            rounds: want.div_ceil(len as u64).min(MAX_ROUNDS),
            round: 0,
        })
    }

    /// Begins the next round, with nothing in the table. `false`: this was the last one.
    fn next_round(&mut self) -> bool {
        self.round += 1;
        if self.round >= self.rounds {
            return false;
        }
        self.places.fill(Place::NONE);
        true
    }

    /// Whether blocks with this sample are looked for in this round. Where they are in the table
    /// depends on the lower half of the sample, and this on the upper one.
    fn is_in_round(&self, sample: u64) -> bool {
        (sample >> 32) * self.rounds >> 32 == self.round
    }

    /// The places at which a block with this tag may be, in the order in which they are taken.
    fn probes(&mut self, tag: u32) -> impl Iterator<Item = &mut Place> {
        let first = (tag >> 1) as usize & self.places.len().saturating_sub(1);
        let (before, after) = self.places.split_at_mut(first);
        Iterator::chain(after.iter_mut(), before).take(PROBES)
    }
}

/// Processor time, and how much sleep it asks for.
struct Pace {
    since: u64,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: thread::time(),
        }
    }

    /// Sleeps if that is due. `false`: the thread is to end.
    fn keep(&mut self) -> bool {
        cond_resched();
        let took = thread::time().saturating_sub(self.since);
        if took < SLICE {
            return true;
        }
        let haste = if pressure::is_short() { HASTE } else { 1 };
        let cpu = (u64::from(params::finder_cpu()) * haste).clamp(1, 100);
        let sleep = took.saturating_mul(100 - cpu) / cpu / 1_000_000;
        GLOBAL.add(Field::FinderNs, took);
        let goes_on = thread::sleep(u32::try_from(sleep).unwrap_or(u32::MAX));
        self.since = thread::time();
        goes_on
    }
}

/// Goes over all that is resident. Tells whether it has missed equal blocks, since their pages were
/// on their way to another folio, or out.
fn pass() -> Result<bool> {
    let mut pace = Pace::new();
    let (mut inodes, pages) = list()?;
    let mut table = Table::new(pages)?;
    let mut missed = false;
    loop {
        let Some(some) = round(&mut table, &inodes, &mut pace) else {
            return Ok(false);
        };
        missed |= some;
        // What is not mounted any more is not to wait for the end of a long pass.
        drop(inodes);
        if !table.next_round() {
            break;
        }
        (inodes, _) = list()?;
    }
    GLOBAL.add(Field::FinderPasses, 1);
    // What is left of the time counts, too.
    Ok(pace.keep() && missed)
}

/// The shared inodes with blocks that others may have, and how many pages these have.
fn list() -> Result<(KVVec<SharedRef>, u64)> {
    let mut inodes = KVVec::<SharedRef>::new();
    let mut pages = 0u64;
    let mut result = Ok(());
    for_each(&mut |shared| {
        if result.is_err() || !may_share(shared) {
            return;
        }
        pages = pages.saturating_add(shared.pages());
        result = inodes.push(shared.into(), OPTIONAL).map_err(Error::from);
    });
    result?;
    Ok((inodes, pages))
}

/// Goes over the pages of these shared inodes, for the blocks of one round. Tells whether it has
/// missed some, as [`pass`] does. `None`: the thread is to end.
fn round(table: &mut Table, inodes: &[SharedRef], pace: &mut Pace) -> Option<bool> {
    let mut missed = false;
    // They are listed from the newest on. What was there first stays, and stays charged as it is.
    for number in (0..inodes.len()).rev() {
        let Some(shared) = inodes.get(number) else {
            break;
        };
        let mut at = 0;
        let blocks = shared.blocks();
        while let Some(next) = shared.next_cached(at..blocks) {
            at = next + 1;
            if let Some(folio) = shared.sound_folio(next) {
                let pages = folio.pages();
                at = at.max(pages.end);
                let looked_at = pages.end.min(blocks).saturating_sub(pages.start);
                GLOBAL.add(Field::FinderBlocks, looked_at);
                missed |= look_at(table, inodes, number as u32, &folio, blocks);
            }
            // Also at places of pages that have left, of which there may be many.
            if !pace.keep() {
                return None;
            }
        }
    }
    Some(missed)
}

/// Whether single blocks of a shared inode may be found by others.
fn may_share(shared: &SharedInode) -> bool {
    shared.identity().verify == Verify::Bytes
        && shared.content().usage().shares_blocks()
        && shared.pages() != 0
}

/// Looks for the blocks of a folio, and leaves them to be found. Tells whether it has missed some.
fn look_at(
    table: &mut Table,
    inodes: &[SharedRef],
    number: u32,
    folio: &FolioRef,
    blocks: u64,
) -> bool {
    let first = folio.pages().start;
    let mut missed = false;
    for (block, bytes) in (first..blocks).zip(folio.bytes().chunks_exact(BLOCK_SIZE)) {
        let Ok(block) = u32::try_from(block) else {
            return missed;
        };
        let sample = secret::sample(bytes);
        if !table.is_in_round(sample) {
            continue;
        }
        let here = Place {
            tag: sample as u32 | 1,
            inode: number,
            block,
        };
        missed |= look_for(table, inodes, here, bytes, folio).is_err();
    }
    missed
}

/// Looks for another block with these bytes, which are those at `here`; if there is none, this one
/// is left for the others. `EAGAIN`: as for [`unite`].
fn look_for(
    table: &mut Table,
    inodes: &[SharedRef],
    here: Place,
    bytes: &[u8],
    folio: &FolioRef,
) -> Result {
    let ours = inodes.get(here.inode as usize).ok_or(EINVAL)?;
    let block = u64::from(here.block);
    if here.tag == table.zero_tag && same_bytes(bytes, ZEROS) {
        // They need no page, hence no other block.
        if ours.content().is_recorded(block) {
            return Ok(());
        }
        return leave((ours, block), bytes, &ZERO_DIGEST, folio);
    }
    let mut differ = 0;
    for probe in table.probes(here.tag) {
        if probe.tag == 0 {
            *probe = here;
            break;
        }
        if probe.tag != here.tag {
            continue;
        }
        if differ == SAME_SAMPLE {
            break;
        }
        let other = inodes.get(probe.inode as usize).ok_or(EINVAL)?;
        if other.identity().domain != ours.identity().domain {
            continue;
        }
        // Blocks that differ may have the same sample.
        if unite((ours, block), (other, u64::from(probe.block)), bytes, folio)? {
            break;
        }
        differ += 1;
    }
    Ok(())
}

/// Gives a block, which is resident in `folio` and has these bytes, its digest, and leaves it to be
/// found or merged. `EAGAIN`: it is not there, just now.
fn leave(
    (shared, block): (&SharedInode, u64),
    bytes: &[u8],
    digest: &Digest,
    folio: &FolioRef,
) -> Result {
    // What is kept of it is charged to the cgroup that was charged for the page.
    let payer = Payer::of(folio);
    let _paying = payer.pays();
    // Under the folio's lock and that of the digests, which readers wait for.
    let _hurry = Hurry::new();
    shared.record_resident(block, bytes, digest)?;
    // Without memory for it, it is not found by others.
    let _ = dedup::enter_all(shared, block..block + 1);
    Ok(())
}

/// If block `theirs`, of the same domain, has these bytes, as block `ours` has: both get the
/// digest, and are entered. `false`: it has others, or has left. `EAGAIN`: one of them is not
/// there, just now.
fn unite(
    (ours, block): (&SharedInode, u64),
    (theirs, at): (&SharedInode, u64),
    bytes: &[u8],
    folio: &FolioRef,
) -> Result<bool> {
    let is_known = theirs.content().is_recorded(at);
    if is_known && ours.content().is_recorded(block) {
        // What is read in again is entered then.
        return Ok(ours.content().has_same_digest(block, theirs.content(), at));
    }
    let resident = theirs.sound_folio(at);
    if let Some(resident) = &resident {
        let skip = at.saturating_sub(resident.pages().start) as usize * BLOCK_SIZE;
        let theirs = resident.bytes().get(skip..skip.saturating_add(BLOCK_SIZE));
        if !theirs.is_some_and(|theirs| same_bytes(theirs, bytes)) {
            return Ok(false);
        }
    } else if !is_known {
        // It may be on its way to a smaller folio.
        let merging = GLOBAL.get(Field::MergesWaiting) != 0;
        return if merging { Err(EAGAIN) } else { Ok(false) };
    }
    let digest = KernelSha256::digest(bytes);
    GLOBAL.add(Field::BlocksHashed, 1);
    if is_known && theirs.content().has_digest(at, &digest) != Some(true) {
        return Ok(false);
    }
    // What is kept of each is charged to the cgroup that was charged for its page.
    if let Some(resident) = &resident {
        leave((theirs, at), bytes, &digest, resident)?;
    }
    // If there is none, it is elsewhere, or is entered when it is read in again.
    leave((ours, block), bytes, &digest, folio)?;
    Ok(true)
}
