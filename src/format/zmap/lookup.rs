// SPDX-License-Identifier: GPL-2.0

//! One look-up: the inode whose extents are wanted, and the bytes that describe them.

use super::super::{
    inode::Inode,
    source::{read_exact, Source},
    superblock::Superblock,
};
use super::header::{Header, Mode};

/// Bytes of the inode's area, with the unit that was read last at hand.
pub(super) struct Window<'s, S: Source> {
    src: &'s S,
    last: Option<(u64, S::Buf<'s>)>,
}

impl<S: Source> Window<'_, S> {
    /// `N` bytes from `pos` on.
    pub(super) fn read<const N: usize>(&mut self, pos: u64) -> Result<[u8; N], S::Error> {
        let mut out = [0u8; N];
        if !self.copy(pos, &mut out) {
            // From a bit before, for the entries that come before this one.
            let start = pos & !511;
            self.last = None;
            self.last = Some((start, self.src.bread(start)?));
            if !self.copy(pos, &mut out) {
                read_exact(self.src, pos, &mut out)?;
            }
        }
        Ok(out)
    }

    fn copy(&self, pos: u64, out: &mut [u8]) -> bool {
        let Some((start, bytes)) = &self.last else {
            return false;
        };
        let from = pos
            .checked_sub(*start)
            .and_then(|from| usize::try_from(from).ok())
            .and_then(|from| bytes.get(from..from.checked_add(out.len())?));
        match from {
            Some(from) => {
                out.copy_from_slice(from);
                true
            }
            None => false,
        }
    }
}

/// The description of one inode's extents.
pub(super) struct Lookup<'a, S: Source> {
    pub(super) sb: &'a Superblock,
    pub(super) inode: &'a Inode,
    pub(super) header: &'a Header,
    pub(super) window: Window<'a, S>,
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
            window: Window { src, last: None },
        }
    }

    pub(super) fn compact(&self) -> bool {
        self.header.mode == Mode::Compact
    }

    pub(super) fn lcluster(&self) -> u64 {
        1 << self.header.lclusterbits
    }
}
