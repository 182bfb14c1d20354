// SPDX-License-Identifier: GPL-2.0

//! Sets of blocks, one bit each. Pure; the caller brings the words.

use core::{
    marker::PhantomData,
    ops::{DerefMut, Range},
};

/// Bits in a word.
const WORD: u64 = 64;

/// Words for a set of `bits` blocks.
pub fn words(bits: u64) -> u64 {
    bits.div_ceil(WORD)
}

fn word_of(words: &[u64], bit: u64) -> Option<u64> {
    words.get(usize::try_from(bit / WORD).ok()?).copied()
}

/// Adds `bits`, and tells how many of them are new. What is beyond the words is not added.
pub fn insert(words: &mut [u64], bits: core::ops::Range<u64>) -> u64 {
    let mut added = 0;
    let mut bit = bits.start;
    while bit < bits.end {
        let shift = bit % WORD;
        let count = (WORD - shift).min(bits.end - bit);
        let mask = (u64::MAX >> (WORD - count)) << shift;
        let Some(word) = usize::try_from(bit / WORD)
            .ok()
            .and_then(|at| words.get_mut(at))
        else {
            break;
        };
        added += u64::from((mask & !*word).count_ones());
        *word |= mask;
        bit += count;
    }
    added
}

/// How many bits from `bits.start` on, and below `bits.end`, are in the set without a gap.
pub fn leading_ones(words: &[u64], bits: core::ops::Range<u64>) -> u64 {
    let mut bit = bits.start;
    while bit < bits.end {
        let shift = bit % WORD;
        let Some(word) = word_of(words, bit) else {
            break;
        };
        let ones = u64::from((!(word >> shift)).trailing_zeros()).min(WORD - shift);
        bit += ones;
        if ones < WORD - shift {
            break;
        }
    }
    bit.min(bits.end).saturating_sub(bits.start)
}

/// Bits in one page of a [`Set`]: 4 KiB, for 128 MiB of a file.
pub const PAGE_BITS: u64 = 32 << 10;

/// Memory that a [`Set`] needs before bits can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A directory with room for this number of pages.
    Directory(usize),
    /// The page with this number, and its size in words.
    Page(usize, usize),
}

/// A set of up to `bits` blocks that takes memory only where it has bits: the first 64 need none,
/// the others are in pages, which are made when the first bit of each is added. The caller brings
/// the directory `D` and the pages `P`, so that it can do so where memory may be allocated.
pub struct Set<D, P> {
    bits: u64,
    first: u64,
    pages: Option<D>,
    _page: PhantomData<P>,
}

impl<D, P> Set<D, P>
where
    D: DerefMut<Target = [Option<P>]>,
    P: DerefMut<Target = [u64]>,
{
    /// An empty set, of up to `bits` blocks.
    pub const fn new(bits: u64) -> Self {
        Self {
            bits,
            first: 0,
            pages: None,
            _page: PhantomData,
        }
    }

    /// What has to be brought before these bits can be added; `None`: nothing.
    pub fn need(&self, bits: Range<u64>) -> Option<Need> {
        let end = bits.end.min(self.bits);
        let start = bits.start.max(WORD);
        if start >= end {
            return None;
        }
        let Some(pages) = self.pages.as_deref() else {
            let count = usize::try_from(self.bits.div_ceil(PAGE_BITS)).ok()?;
            return Some(Need::Directory(count));
        };
        let (first, last) = (start / PAGE_BITS, end.div_ceil(PAGE_BITS));
        let mut wanted = (first..last).zip(pages.iter().skip(usize::try_from(first).ok()?));
        let (at, _) = wanted.find(|(_, page)| page.is_none())?;
        let left = self.bits.saturating_sub(at * PAGE_BITS);
        let count = usize::try_from(words(left.min(PAGE_BITS))).ok()?;
        Some(Need::Page(usize::try_from(at).ok()?, count))
    }

    /// Brings the directory. Gives it back if there is one already.
    pub fn bring_directory(&mut self, directory: D) -> Option<D> {
        if self.pages.is_some() {
            return Some(directory);
        }
        self.pages = Some(directory);
        None
    }

    /// Brings a page of zeros. Gives it back if there is one already.
    pub fn bring_page(&mut self, at: usize, page: P) -> Option<P> {
        match self.pages.as_mut().and_then(|pages| pages.get_mut(at)) {
            Some(slot) if slot.is_none() => {
                *slot = Some(page);
                None
            }
            _ => Some(page),
        }
    }

    /// Adds bits, and tells how many of them are new. Those for which something is needed
    /// ([`Set::need`]) are not added.
    pub fn insert(&mut self, bits: Range<u64>) -> u64 {
        let end = bits.end.min(self.bits);
        let mut added = 0;
        if bits.start < end.min(WORD) {
            let first = core::slice::from_mut(&mut self.first);
            added += insert(first, bits.start..end.min(WORD));
        }
        let start = bits.start.max(WORD);
        let (Some(pages), Ok(first)) = (
            self.pages.as_deref_mut(),
            usize::try_from(start / PAGE_BITS),
        ) else {
            return added;
        };
        for (at, page) in pages.iter_mut().enumerate().skip(first) {
            let base = at as u64 * PAGE_BITS;
            if base >= end {
                break;
            }
            if let Some(page) = page {
                let until = end.min(base + PAGE_BITS);
                added += insert(page, start.max(base) - base..until - base);
            }
        }
        added
    }

    /// How many bits from `bits.start` on, and below `bits.end`, are in the set without a gap.
    pub fn leading_ones(&self, bits: Range<u64>) -> u64 {
        let mut bit = bits.start;
        while bit < bits.end {
            let (base, until, page) = if bit < WORD {
                (0, WORD, Some(core::slice::from_ref(&self.first)))
            } else {
                let base = bit - bit % PAGE_BITS;
                (
                    base,
                    base.saturating_add(PAGE_BITS),
                    self.page(base / PAGE_BITS),
                )
            };
            let until = until.min(bits.end);
            let here = page.map_or(0, |page| leading_ones(page, bit - base..until - base));
            bit += here;
            if bit < until {
                break;
            }
        }
        bit.min(bits.end).saturating_sub(bits.start)
    }

    /// Pages that there is room for, and words in those that were brought.
    pub fn size(&self) -> (usize, usize) {
        let pages = self.pages.as_deref().unwrap_or(&[]);
        let words = pages.iter().flatten().map(|page| page.len()).sum();
        (pages.len(), words)
    }

    fn page(&self, at: u64) -> Option<&[u64]> {
        let at = usize::try_from(at).ok()?;
        self.pages.as_deref()?.get(at)?.as_deref()
    }
}
