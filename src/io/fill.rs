// SPDX-License-Identifier: GPL-2.0

//! Asynchronous reads of a file's bytes into folios, with a completion in process context that
//! decodes and checks them. (iomap marks a folio uptodate as soon as its I/O is done.)
//!
//! A fill is submitted here, in the context of a reader; what becomes of it is in
//! [`super::fill_state`].

use core::ops::Range;

use kernel::prelude::*;

use super::{
    decode::{CompressedSource, DecompressJob, DecompressRequest, Encoded},
    fill_state::{Rest, Submission},
    folio::FolioMemory,
    folio_list::FolioList,
    submit::Submitter,
    CacheBytes, Device, Extent, ReadError, Target,
};
use crate::{
    compat::code::EFSCORRUPTED,
    io::wait::{cond_resched, is_dying},
};

pub(crate) use super::fill_state::{FillCompletion, FillGuard};

/// Compressed bytes that one fill holds at most, as long as each extent alone does not have more:
/// what is beyond is read and decoded bit by bit.
const MAX_INPUT: usize = 2 << 20;

/// Extents after which a fill looks whether it has to end.
const MANY_EXTENTS: usize = 8;

/// What to read: a file's bytes from `pos` on.
pub(crate) struct Plan {
    /// First byte in the file, a multiple of the page size.
    pub(crate) pos: u64,
    /// The file's size. What lies behind it in the folios becomes zeros.
    pub(crate) size: u64,
    /// Read ahead of need: the device may refuse when it is busy.
    pub(crate) ahead: bool,
    /// Read backing files with direct I/O.
    pub(crate) direct: bool,
    /// Where the memory for compressed bytes is from.
    pub(crate) memory: FolioMemory,
}

/// Fills `folios` with a file's bytes, which `map` finds, and calls `filled` when that is done:
/// before this returns, or later.
///
/// What `map` returns is used only before this returns, except the devices: they must stay open
/// until `filled` is called.
pub(crate) fn fill<'a, F: FillCompletion>(
    folios: FolioList,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    filled: F,
) {
    let bytes = folios.bytes();
    match start(folios, plan, map, filled) {
        Ok(fill) => fill.finish(bytes),
        Err((mut folios, filled, err)) => {
            folios.keep(0);
            filled.complete(folios, Err(err));
        }
    }
}

/// Keeps something until a fill is over. What is filled goes nowhere.
struct Guarded<K>(K);

impl<K: FillGuard> FillCompletion for Guarded<K> {
    type Guard = K;

    fn complete(self, _folios: FolioList, _result: Result) {}

    fn guard(&self) -> &K {
        &self.0
    }
}

/// As [`fill`], but waits for the I/O, and gives the folios. `keep`, which keeps the devices open,
/// is dropped when the I/O is done, at the earliest. A fatal signal ends the wait.
pub(crate) fn fill_and_wait<'a, K: FillGuard>(
    folios: FolioList,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    keep: K,
) -> Result<FolioList> {
    let fill = start(folios, plan, map, Guarded(keep)).map_err(|(_, _, err)| err)?;
    fill.wait()
}

/// Reads `len` bytes from `addr` on into `folios`, of which the first `wanted` matter, and waits
/// for that; see [`fill_and_wait`].
fn read_now<K: FillGuard>(
    folios: FolioList,
    plan: &Plan,
    device: &Device,
    addr: u64,
    len: usize,
    wanted: usize,
    keep: K,
) -> Result<FolioList> {
    let plan = Plan {
        pos: 0,
        size: wanted as u64,
        ..*plan
    };
    let extent = |_| {
        Ok(Extent {
            offset: 0,
            len: len as u64,
            target: Target::Disk(device, addr),
        })
    };
    fill_and_wait(folios, &plan, extent, keep)
}

/// Starts a fill. On failure gives back what it was given.
fn start<'a, F: FillCompletion>(
    folios: FolioList,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    filled: F,
) -> Result<Submission<F>, (FolioList, F, Error)> {
    let mut fill = Submission::new(folios, filled)?;
    if let (Some(rest), shares) = fill.parts() {
        let segments = rest.folios.count();
        let mut submitter = Submitter::new(shares, plan.ahead, plan.direct, segments);
        let mut at = 0;
        if let Err(err) = gather(&mut submitter, rest, plan, map, &mut at) {
            rest.fail(at, err);
        }
        submitter.flush();
    }
    Ok(fill)
}

/// Has a fill's bytes read. `*done` is how many are taken care of, on failure, too.
fn gather<'a, F: FillCompletion>(
    submitter: &mut Submitter<'_, F>,
    rest: &mut Rest<F>,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    done: &mut usize,
) -> Result {
    let bytes = rest.folios.bytes();
    let mut input = 0usize;
    let mut extents = 0usize;
    while *done < bytes {
        // An image may have an extent for each byte.
        extents += 1;
        if extents % MANY_EXTENTS == 0 {
            cond_resched();
            if is_dying() {
                return Err(EINTR);
            }
        }
        let at = *done;
        let pos = plan.pos.checked_add(at as u64).ok_or(EFSCORRUPTED)?;
        let Some(left) = plan.size.checked_sub(pos).filter(|left| *left != 0) else {
            rest.folios.zero(at, bytes - at);
            return Ok(());
        };
        submitter.before_others();
        let extent = map(pos)?;
        let skip = pos.checked_sub(extent.offset).ok_or(EFSCORRUPTED)?;
        let run = extent.len.checked_sub(skip).filter(|run| *run != 0);
        let run = run.ok_or(EFSCORRUPTED)?;
        // The bytes of the file in this extent, and what its last block has beyond the file's end.
        let len = usize::try_from(run).unwrap_or(usize::MAX).min(bytes - at);
        match extent.target {
            Target::Hole => rest.folios.zero(at, len),
            Target::Encoded(encoded) => {
                let skip = usize::try_from(skip)?;
                let request =
                    DecompressRequest::new(&encoded, extent.offset, extent.len, at, skip, len);
                add_encoded(submitter, rest, plan, &encoded, request, &mut input)?;
            }
            Target::Cached(cache, start) => {
                let start = start.checked_add(skip).ok_or(EFSCORRUPTED)?;
                submitter.before_others();
                copy_cached(rest, cache, extent.offset, start, at..at + len)?;
            }
            Target::Inline(data) => {
                let data = data.get(skip as usize..).unwrap_or(&[]);
                let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
                rest.folios.write(at, data.get(..len).ok_or(EFSCORRUPTED)?);
                *done += len;
                continue;
            }
            Target::Disk(device, addr) => {
                let addr = addr.checked_add(skip).ok_or(EFSCORRUPTED)?;
                let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                submitter
                    .add(device, addr, &rest.folios, at, len, wanted)
                    .map_err(|(added, err)| {
                        *done += added;
                        err
                    })?;
            }
            Target::InlineAt(_) | Target::EncodedAt(_) => return Err(EIO),
        }
        *done += len;
    }
    Ok(())
}

/// Copies bytes that another inode has from byte `start` on to the place `to` of a fill. `pos` is
/// where their extent begins in the file.
fn copy_cached<F: FillCompletion>(
    rest: &mut Rest<F>,
    cache: CacheBytes<'_>,
    pos: u64,
    start: u64,
    to: Range<usize>,
) -> Result {
    let len = to.end - to.start;
    cache.read_ahead(start, len);
    let mut copied = 0;
    while copied < len {
        let data = cache.bytes(start.saturating_add(copied as u64));
        let data = data.map_err(|err| match err {
            ReadError::Io(err) => err,
            ReadError::Format(err) => {
                rest.filled.guard().bad_data(pos, err.what);
                EFSCORRUPTED
            }
        })?;
        let part = data.len().min(len - copied);
        let data = data.get(..part).ok_or(EIO)?;
        rest.folios.write(to.start + copied, data);
        copied += part;
    }
    Ok(())
}

/// Reads compressed bytes, to be decoded when they are there. `input` counts those that wait for
/// that.
fn add_encoded<F: FillCompletion>(
    submitter: &mut Submitter<'_, F>,
    rest: &mut Rest<F>,
    plan: &Plan,
    encoded: &Encoded<'_>,
    request: DecompressRequest,
    input: &mut usize,
) -> Result {
    let (device, addr) = match &encoded.source {
        CompressedSource::Disk(device, addr) => (device, *addr),
        CompressedSource::Inline(data) => {
            let data = data.get(..encoded.plen).ok_or(EFSCORRUPTED)?;
            let result = request.run_now(data, &mut rest.folios);
            return rest.decoded(request.pos, result);
        }
    };
    // Whole blocks, as far as the device goes.
    let mask = (1u64 << encoded.block_bits) - 1;
    let start = addr & !mask;
    let end = addr.checked_add(encoded.plen as u64).ok_or(EFSCORRUPTED)?;
    let blocks_end = end.checked_add(mask).ok_or(EFSCORRUPTED)? & !mask;
    let end = blocks_end.min(device.bytes().max(end));
    let len = usize::try_from(end - start)?;
    let wanted = usize::try_from(addr - start)?.saturating_add(encoded.plen);
    let mut job = DecompressJob::new(request, encoded.plen, len, plan.memory, &mut rest.folios)?;
    *input = input.saturating_add(job.input().bytes());
    if *input > MAX_INPUT && !rest.jobs.is_empty() {
        submitter.before_others();
        let keep = rest.filled.guard().another();
        let folios = read_now(job.take_input(), plan, device, start, len, wanted, keep)?;
        job.put_input(folios);
        let result = job.decompress(&mut rest.folios);
        return rest.decoded(request.pos, result);
    }
    // What is decoded has pieces of its own, one for each extent at least.
    submitter.expect_encoded();
    // From now on it goes with the fill, as what is being read into it must.
    rest.jobs.push(job, GFP_KERNEL)?;
    let input = rest.jobs.last().ok_or(EIO)?.input();
    let added = submitter.add(device, start, input, 0, len, wanted);
    added.map_err(|(_, err)| err)
}
