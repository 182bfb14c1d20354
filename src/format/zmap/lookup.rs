// SPDX-License-Identifier: GPL-2.0

//! One look-up: the inode whose extents are wanted, and the bytes that describe them.

use super::super::{
    inode::Inode,
    ondisk::Raw,
    source::{read_raw, Source},
    superblock::Superblock,
};
use super::header::{Header, Mode};

/// Bytes of the inode's area, with the unit that was read last at hand.
pub(super) struct IndexWindow<'s, S: Source> {
    src: &'s S,
    last: Option<(u64, S::Buf<'s>)>,
}

impl<S: Source> IndexWindow<'_, S> {
    /// The structure at `pos`.
    pub(super) fn read<T: Raw>(&mut self, pos: u64) -> Result<T, S::Error> {
        if let Some(raw) = self.bytes(pos).and_then(T::first) {
            return Ok(*raw);
        }
        self.load(pos)?;
        match self.bytes(pos).and_then(T::first) {
            Some(raw) => Ok(*raw),
            None => read_raw(self.src, pos),
        }
    }

    /// Has the unit at hand that holds byte `pos`.
    fn load(&mut self, pos: u64) -> Result<(), S::Error> {
        // From a bit before, for the entries that come before this one.
        let start = pos & !511;
        self.last = None;
        self.last = Some((start, self.src.bread(start)?));
        Ok(())
    }

    /// The bytes from `pos` on that are at hand.
    #[inline(always)]
    fn bytes(&self, pos: u64) -> Option<&[u8]> {
        let (start, bytes) = self.last.as_ref()?;
        bytes.get(usize::try_from(pos.checked_sub(*start)?).ok()?..)
    }
}

/// The description of one inode's extents.
pub(super) struct Lookup<'a, S: Source> {
    pub(super) sb: &'a Superblock,
    pub(super) inode: &'a Inode,
    pub(super) header: &'a Header,
    pub(super) window: IndexWindow<'a, S>,
}

impl<'a, S: Source> Lookup<'a, S> {
    pub(super) fn new(
        sb: &'a Superblock,
        inode: &'a Inode,
        header: &'a Header,
        src: &'a S,
    ) -> Self {
        Self {
            sb,
            inode,
            header,
            window: IndexWindow { src, last: None },
        }
    }

    pub(super) fn compact(&self) -> bool {
        self.header.mode == Mode::Compact
    }

    pub(super) fn lcluster(&self) -> u64 {
        1 << self.header.lclusterbits
    }
}
