// SPDX-License-Identifier: GPL-2.0

//! From a byte of a file to the extent that holds it, for uncompressed layouts.

use super::{
    error::{Error, Kind},
    inode::{Inode, Layout},
    ondisk::{Raw, RawChunkBlock, RawChunkIndex},
    source::{read_exact, Source},
    superblock::Superblock,
};

/// `EROFS_CHUNK_FORMAT_INDEXES`
const CHUNK_INDEXES: u16 = 0x20;
/// `EROFS_CHUNK_FORMAT_48BIT`
const CHUNK_48BIT: u16 = 0x40;

/// A range of a file's bytes with one kind of backing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Zeros.
    Hole {
        /// First byte in the file.
        la: u64,
        /// Length in bytes.
        len: u64,
    },
    /// On a device.
    Mapped {
        /// First byte in the file.
        la: u64,
        /// Length in bytes; up to the end of the block that holds the file's last byte.
        len: u64,
        /// Device id: 0 for the unified address space.
        device: u16,
        /// First byte on it.
        pa: u64,
    },
    /// In the inode's block.
    Inline {
        /// First byte in the file.
        la: u64,
        /// Length in bytes; to the end of the file.
        len: u64,
        /// First byte in the inode's area.
        pa: u64,
    },
}

/// The extent that holds byte `la` of a file. At or past the end: an empty hole at `la`.
///
/// # Errors
///
/// `Unsupported` for compressed data.
pub fn map_blocks<S: Source>(
    sb: &Superblock,
    inode: &Inode,
    src: &S,
    la: u64,
) -> Result<Extent, S::Error> {
    if la >= inode.size {
        return Ok(Extent::Hole { la, len: 0 });
    }
    match inode.layout {
        Layout::FlatPlain | Layout::FlatInline => Ok(map_flat(sb, inode, la)?),
        Layout::ChunkBased => map_chunks(sb, inode, src, la),
        Layout::CompressedFull | Layout::CompressedCompact => {
            Err(Error::new(Kind::Unsupported, "compressed data", inode.iloc, inode.nid).into())
        }
    }
}

fn map_flat(sb: &Superblock, inode: &Inode, la: u64) -> Result<Extent, Error> {
    let block = u64::from(sb.block_size());
    // `size` is below 2^63, so rounding up cannot overflow.
    let blocks = inode.size.div_ceil(block) * block;
    let tail = inode.tail(sb)?;
    let end = match tail {
        Some(_) => blocks - block,
        None => blocks,
    };
    if la >= end {
        if let Some((pa, len)) = tail {
            return Ok(Extent::Inline {
                la: end,
                len: u64::from(len),
                pa,
            });
        }
    }
    Ok(match inode.startblk() {
        None => Extent::Hole { la: 0, len: end },
        Some(start) => Extent::Mapped {
            la: 0,
            len: end,
            device: 0,
            pa: span(sb, start, end)?,
        },
    })
}

/// Byte address of `block`, from which `len` bytes are addressable.
fn span(sb: &Superblock, block: u64, len: u64) -> Result<u64, Error> {
    let pa = sb.block_pos(block)?;
    pa.checked_add(len)
        .filter(|end| *end <= i64::MAX as u64)
        .ok_or(Error::corrupted("data past the largest address", pa, len))?;
    Ok(pa)
}

/// Where a chunk lies: device and first block, or nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Chunk(Option<(u16, u64)>);

impl Chunk {
    fn parse(sb: &Superblock, format: u16, raw: &[u8]) -> Self {
        if format & CHUNK_INDEXES == 0 {
            let Some(raw) = RawChunkBlock::first(raw) else {
                return Chunk(None);
            };
            let block = u64::from(raw.blkaddr);
            return Chunk((block != u64::from(u32::MAX)).then_some((0, block)));
        }
        let Some(raw) = RawChunkIndex::first(raw) else {
            return Chunk(None);
        };
        let hi = u64::from(raw.startblk_hi);
        let lo = u64::from(raw.startblk_lo);
        let mask = if format & CHUNK_48BIT != 0 {
            (1u64 << 48) - 1
        } else {
            u64::from(u32::MAX)
        };
        let block = ((hi << 32) | lo) & mask;
        if block == mask {
            return Chunk(None);
        }
        Chunk(Some((raw.device_id.get() & sb.device_id_mask(), block)))
    }

    /// What follows this chunk if the next one continues it.
    fn next(self, blocks: u64) -> Option<Self> {
        Some(Chunk(match self.0 {
            None => None,
            Some((device, block)) => Some((device, block.checked_add(blocks)?)),
        }))
    }

    /// How many chunks of `blocks` blocks continue each other from this one on, `max` at most.
    /// `following` are those behind it, as far as its block of indexes goes.
    fn run(self, blocks: u64, max: u64, following: impl Iterator<Item = Self>) -> u64 {
        let mut count = 1u64;
        let mut last = self;
        for next in following {
            if count >= max || last.next(blocks) != Some(next) {
                break;
            }
            last = next;
            count += 1;
        }
        count
    }
}

fn map_chunks<S: Source>(
    sb: &Superblock,
    inode: &Inode,
    src: &S,
    la: u64,
) -> Result<Extent, S::Error> {
    let bits = inode.chunk_bits(sb);
    let chunk_size = 1u64 << bits;
    let chunk_blocks = chunk_size >> sb.blkszbits;
    let unit = if inode.chunk_format & CHUNK_INDEXES != 0 {
        size_of::<RawChunkIndex>()
    } else {
        size_of::<RawChunkBlock>()
    };
    let number = la >> bits;
    let overflow = Error::corrupted("chunk index position", inode.iloc, number);
    let pos = inode
        .body_end()?
        .checked_next_multiple_of(unit as u64)
        .and_then(|start| start.checked_add(number.checked_mul(unit as u64)?))
        .ok_or(overflow)?;
    let mut raw = [0u8; size_of::<RawChunkIndex>()];
    let entry = raw.get_mut(..unit).ok_or(overflow)?;
    read_exact(src, pos, entry)?;
    let first = Chunk::parse(sb, inode.chunk_format, entry);

    let start = number << bits;
    let size_left = inode.size - start;
    let block = u64::from(sb.block_size());
    let bytes = src.bread(pos)?;
    let in_block = (block - pos % block).min(bytes.len() as u64) as usize;
    let indexes = bytes.get(..in_block).unwrap_or(&[]).chunks_exact(unit);
    let following = indexes
        .skip(1)
        .map(|entry| Chunk::parse(sb, inode.chunk_format, entry));
    let count = first.run(chunk_blocks, size_left.div_ceil(chunk_size), following);
    // No more than the rest of the file in whole blocks, which is below 2^63 + 4096.
    let rest = size_left.div_ceil(block) * block;
    let len = count.saturating_mul(chunk_size).min(rest);
    Ok(match first.0 {
        None => Extent::Hole { la: start, len },
        Some((device, blk)) => Extent::Mapped {
            la: start,
            len,
            device,
            pa: span(sb, blk, len)?,
        },
    })
}
