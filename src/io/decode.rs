// SPDX-License-Identifier: GPL-2.0

//! From the compressed bytes of an extent to those of a file.

use kernel::{page::PAGE_SIZE, prelude::*};

use super::{
    decompress::{self, DecompressError},
    folio::FolioMemory,
    folio_list::{FolioList, Pages},
    folio_pool,
    metadata::FolioBytes,
    Device,
};
use crate::{
    bindings,
    format::{compression::Algorithm, zmap::Coding},
};

/// Logarithm of the pages in the largest piece of memory that is looked for.
const MAX_ORDER: u32 = 8;

/// Where compressed bytes are.
pub(crate) enum CompressedSource<'a> {
    /// From a byte of a device on (`Device::offset` not yet added).
    Disk(&'a Device, u64),
    /// In a metadata block that was read.
    Inline(FolioBytes<'a>),
}

/// Compressed bytes, and what to do with them.
pub(crate) struct Encoded<'a> {
    /// Where they are.
    pub(crate) source: CompressedSource<'a>,
    /// How many.
    pub(crate) plen: usize,
    /// What to do.
    pub(crate) coding: Coding,
    /// There is more in them than the extent.
    pub(crate) partial: bool,
    /// Logarithm of the image's block size.
    pub(crate) block_bits: u8,
    /// Zeros come before the data, not behind it.
    pub(crate) padded: bool,
}

/// How to get at the part of an extent that is wanted.
#[derive(Clone, Copy)]
pub(super) struct DecompressRequest {
    /// The extent's first byte in the file.
    pub(super) pos: u64,
    /// The extent's length.
    pub(super) llen: u64,
    coding: Coding,
    partial: bool,
    block: usize,
    padded: bool,
    /// Where the compressed bytes start in their block.
    lead: usize,
    /// Where the part goes in the target.
    at: usize,
    /// What comes before it in the extent.
    skip: usize,
    /// Its length.
    len: usize,
}

/// An extent whose compressed bytes are being read.
pub(super) struct DecompressJob {
    request: DecompressRequest,
    plen: usize,
    /// The blocks that the compressed bytes are in.
    input: FolioList,
    /// For making one piece of several.
    pages: Pages,
}

impl DecompressRequest {
    pub(super) fn new(
        encoded: &Encoded<'_>,
        pos: u64,
        llen: u64,
        at: usize,
        skip: usize,
        len: usize,
    ) -> Self {
        let addr = match &encoded.source {
            CompressedSource::Disk(_, addr) => *addr,
            CompressedSource::Inline(_) => 0,
        };
        Self {
            pos,
            llen,
            coding: encoded.coding,
            partial: encoded.partial,
            block: 1 << encoded.block_bits,
            padded: encoded.padded,
            lead: (addr & ((1 << encoded.block_bits) - 1)) as usize,
            at,
            skip,
            len,
        }
    }

    /// Bytes of the extent from its start to the end of the wanted part.
    fn decoded(&self) -> usize {
        self.skip.saturating_add(self.len)
    }

    /// Pages for what comes before the wanted part: up to 12 MiB, so they are got only when it is
    /// decoded.
    fn scratch_pages(&self) -> usize {
        let before = self.skip.saturating_sub(self.at % PAGE_SIZE);
        before.div_ceil(PAGE_SIZE)
    }

    fn pages(&self, input: Option<&FolioList>, target: &mut FolioList) -> Result<Pages> {
        let mut pages = match input {
            Some(input) if !input.is_one() => input.bytes() / PAGE_SIZE,
            _ => 0,
        };
        if matches!(self.coding, Coding::Compressed(_)) {
            let count = self.scratch_pages();
            let room = target.place(self.at).map_or(0, |place| place.2);
            if count != 0 || room < self.len {
                pages = pages.max(count + self.len.div_ceil(PAGE_SIZE) + 1);
            }
        }
        Pages::with_capacity(pages)
    }

    fn decode(
        &self,
        input: &[u8],
        target: &mut FolioList,
        pages: &mut Pages,
    ) -> Result<(), DecompressError> {
        match self.coding {
            Coding::Shifted => self.copy(input, 0, self.skip, self.len, self.at, target),
            Coding::Interlaced => self.interlaced(input, target),
            Coding::Compressed(algorithm) => self.decompress(algorithm, input, target, pages),
        }
    }

    /// Copies `len` bytes from `base + skip` on to `at`.
    fn copy(
        &self,
        input: &[u8],
        base: usize,
        skip: usize,
        len: usize,
        at: usize,
        target: &mut FolioList,
    ) -> Result<(), DecompressError> {
        let start = base.checked_add(skip);
        let range = start.and_then(|start| input.get(start..start.checked_add(len)?));
        target.write(
            at,
            range.ok_or(DecompressError::Corrupted("not enough plain data"))?,
        );
        Ok(())
    }

    fn interlaced(&self, input: &[u8], target: &mut FolioList) -> Result<(), DecompressError> {
        let short = DecompressError::Corrupted("not enough plain data");
        let head = self.block - (self.pos & (self.block as u64 - 1)) as usize;
        let last = input.len().checked_sub(head).ok_or(short)?;
        let first = self.llen.min(head as u64) as usize;
        let mut done = 0;
        if self.skip < first {
            done = (first - self.skip).min(self.len);
            self.copy(input, last, self.skip, done, self.at, target)?;
        }
        if done < self.len {
            let skip = (self.skip + done).checked_sub(first).ok_or(short)?;
            self.copy(input, 0, skip, self.len - done, self.at + done, target)?;
        }
        Ok(())
    }

    fn decompress(
        &self,
        algorithm: Algorithm,
        input: &[u8],
        target: &mut FolioList,
        pages: &mut Pages,
    ) -> Result<(), DecompressError> {
        let whole = !self.partial && self.decoded() as u64 == self.llen;
        let (input, extent) = if self.padded || algorithm != Algorithm::Lz4 {
            let most = self.block - self.lead;
            let zeros = zeros_before(input.get(..most).unwrap_or(input));
            let data = input.get(zeros..).filter(|_| zeros < most);
            let data = data.filter(|data| !data.is_empty());
            (
                data.ok_or(DecompressError::Corrupted("no start of compressed data"))?,
                if whole {
                    decompress::DecodeExtent::Whole
                } else {
                    decompress::DecodeExtent::Prefix
                },
            )
        } else {
            (input, decompress::DecodeExtent::Prefix)
        };
        let count = self.scratch_pages();
        // There are few decoders, so there is little of this memory at a time, however many read.
        // What they do not wait for, with a decoder in hand, is a memory cgroup that is full.
        let scratch = |memory, max_order| FolioList::buffer(count as u64, max_order, memory);
        decompress::with(algorithm, count != 0, |decoder| {
            let mut scratch = match count {
                0 => None,
                _ => Some(
                    scratch(FolioMemory::ChargedAtHand, MAX_ORDER)
                        // None of the size that is kept, whose number is bounded.
                        .or_else(|_| scratch(FolioMemory::Uncharged, folio_pool::ORDER - 1))?,
                ),
            };
            let (at, skip, len) = (self.at, self.skip, self.len);
            let mut output = target.span(scratch.as_mut(), at, skip, len, pages)?;
            decoder.decode(input, &mut output, extent)
        })?
    }

    /// Decodes bytes that are at hand.
    pub(super) fn run_now(
        &self,
        input: &[u8],
        target: &mut FolioList,
    ) -> Result<(), DecompressError> {
        let mut pages = self.pages(None, target)?;
        let _noio = NoIo::new();
        self.decode(input, target, &mut pages)
    }
}

impl DecompressJob {
    /// Gets memory for `bytes` bytes of blocks, `plen` of them compressed data.
    pub(super) fn new(
        request: DecompressRequest,
        plen: usize,
        bytes: usize,
        memory: FolioMemory,
        target: &mut FolioList,
    ) -> Result<Self> {
        let pages = bytes.div_ceil(PAGE_SIZE) as u64;
        let input = FolioList::buffer(pages, MAX_ORDER, memory)?;
        let page_list = request.pages(Some(&input), target)?;
        Ok(Self {
            request,
            plen,
            input,
            pages: page_list,
        })
    }

    /// The extent's first byte in the file.
    pub(super) fn pos(&self) -> u64 {
        self.request.pos
    }

    /// Where the part of the extent that is wanted goes in the target.
    pub(super) fn at(&self) -> usize {
        self.request.at
    }

    /// Where the compressed bytes are to be read to.
    pub(super) fn input(&self) -> &FolioList {
        &self.input
    }

    /// The same, to be put back with the bytes in it.
    pub(super) fn take_input(&mut self) -> FolioList {
        core::mem::replace(&mut self.input, FolioList::none())
    }

    /// After [`DecompressJob::take_input`].
    pub(super) fn put_input(&mut self, input: FolioList) {
        self.input = input;
    }

    /// Decodes what was read.
    pub(super) fn decompress(mut self, target: &mut FolioList) -> Result<(), DecompressError> {
        let _noio = NoIo::new();
        let input = self
            .input
            .span(None, self.request.lead, 0, self.plen, &mut self.pages)?;
        self.request.decode(&input, target, &mut self.pages)
    }
}

/// How many bytes come before the first that is not zero: compressed data ends where its blocks do.
fn zeros_before(bytes: &[u8]) -> usize {
    let words = bytes.chunks_exact(8);
    let zeros = words.take_while(|word| *word == [0; 8]).count() * 8;
    let rest = bytes.get(zeros..).unwrap_or(&[]);
    zeros + rest.iter().take_while(|byte| **byte == 0).count()
}

/// While this lives, allocations of this task do not wait for I/O, which may need the memory that
/// is about to be filled.
pub(super) struct NoIo(u32);

impl NoIo {
    pub(super) fn new() -> Self {
        // SAFETY: No preconditions.
        Self(unsafe { bindings::noio_save() })
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: From `_save`, by the same task: the guard is not sent elsewhere.
        unsafe { bindings::noio_restore(self.0) }
    }
}
