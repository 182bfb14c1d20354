// SPDX-License-Identifier: GPL-2.0

//! What a look-up gives: an extent, and where its bytes are.

use super::super::{compression::Algorithm, superblock::Superblock};

/// How the bytes of a pcluster become a file's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// They are the file's: `llen` bytes from the pcluster's start on.
    Shifted,
    /// They are the file's, with the blocks kept where the file's block boundaries are. The first
    /// `block - la % block` bytes of the extent (or all, if it has less) are the ones that end the
    /// pcluster's last block; the rest starts at the pcluster's start. `pa` and `plen` are whole
    /// blocks.
    Interlaced,
    /// Compressed. Zeros may come before the data, in the first block only (not for LZ4 if the
    /// image lacks `LZ4_0PADDING`: there they come behind it).
    Compressed(Algorithm),
}

/// A run of bytes on disk that decodes to (at least) an extent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pcluster {
    /// First byte, in the unified address space (device id 0); for `inline` in the inode's area.
    pub pa: u64,
    /// Length in bytes, 1 to [`MAX_PCLUSTER_SIZE`](super::super::compression::MAX_PCLUSTER_SIZE).
    pub plen: u32,
    /// In the metadata behind the inode (`ztailpacking`), within one block.
    pub inline: bool,
    /// What to do with the bytes.
    pub coding: Coding,
    /// The bytes decode to more than the extent: only the first `llen` count (`dedupe`). Otherwise
    /// they decode to exactly `llen` bytes.
    pub partial: bool,
}

/// Where an extent's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// Zeros.
    Hole,
    /// In the packed inode's data, from `pos` on; `pos + llen` is below 2^63. Whether the packed
    /// inode is as long as that is for the caller to check.
    Fragment {
        /// First byte.
        pos: u64,
    },
    /// In a pcluster.
    Pcluster(Pcluster),
}

/// A range of a compressed file's bytes with one backing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZExtent {
    /// First byte in the file.
    pub la: u64,
    /// Length in bytes, never past the end of the file; for a pcluster at most
    /// [`MAX_DECODED_SIZE`](super::super::compression::MAX_DECODED_SIZE).
    pub llen: u64,
    /// Where they are.
    pub data: Data,
}

impl ZExtent {
    /// The file's byte behind the extent.
    pub fn end(&self) -> u64 {
        self.la.saturating_add(self.llen)
    }

    /// Where plain data is: the byte of the pcluster that is the extent's byte `offset`, and how
    /// many of the extent's bytes follow in a row from there. `None` if the extent has no plain
    /// data at `offset`.
    pub fn plain(&self, sb: &Superblock, offset: u64) -> Option<(u32, u32)> {
        let Data::Pcluster(data) = self.data else {
            return None;
        };
        let left = self.llen.checked_sub(offset).filter(|left| *left != 0)?;
        let (from, len) = match data.coding {
            Coding::Compressed(_) => return None,
            Coding::Shifted => (offset, left),
            Coding::Interlaced => {
                let block = u64::from(sb.block_size());
                let first = block - self.la % block;
                match offset.checked_sub(first) {
                    Some(from) => (from, left),
                    None => (
                        u64::from(data.plen).checked_sub(first)? + offset,
                        left.min(first - offset),
                    ),
                }
            }
        };
        Some((u32::try_from(from).ok()?, u32::try_from(len).ok()?))
    }
}
