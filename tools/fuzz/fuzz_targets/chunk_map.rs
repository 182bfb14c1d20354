// SPDX-License-Identifier: GPL-2.0

//! Chunk-based files: every extent against the chunk's own record, read in the simplest way.
//!
//! Input: nid and place (16 bytes), then the image from its superblock on.

#![no_main]

use erofs_shared_format::{
    inode::{Inode, Layout},
    map::{map_blocks, Extent},
    superblock::Superblock,
};
use erofs_shared_fuzz::{check_error, check_extent, image_of, inode, superblock, Counting, Params};
use libfuzzer_sys::fuzz_target;

/// Device and address of byte `la`, by the record of its chunk. `None`: the record is past the end.
fn record(sb: &Superblock, inode: &Inode, image: &[u8], la: u64) -> Option<Option<(u16, u128)>> {
    let chunk_size = 1u64 << inode.chunk_bits(sb);
    let indexes = inode.chunk_format & 0x20 != 0;
    let size = if indexes { 8 } else { 4 };
    let start = inode.iloc + u64::from(inode.inode_isize) + u64::from(inode.xattr_isize);
    let start = u128::from(start).next_multiple_of(size);
    let pos = usize::try_from(start + u128::from(la / chunk_size) * size).ok()?;
    let raw = image.get(pos..pos.checked_add(size as usize)?)?;
    let le = |range: std::ops::Range<usize>| {
        raw[range]
            .iter()
            .rev()
            .fold(0u64, |all, byte| all << 8 | u64::from(*byte))
    };
    let (device, block, null) = if !indexes {
        (0, le(0..4), 0xFFFF_FFFF)
    } else if inode.chunk_format & 0x40 != 0 {
        (le(2..4), le(0..2) << 32 | le(4..8), 0xFFFF_FFFF_FFFF)
    } else {
        (le(2..4), le(4..8), 0xFFFF_FFFF)
    };
    Some((block != null).then(|| {
        let address = u128::from(block) * u128::from(sb.block_size());
        let device = device as u16 & sb.device_id_mask();
        (device, address + u128::from(la % chunk_size))
    }))
}

/// What an extent says of byte `la`.
fn place(extent: &Extent, at: u64) -> Option<(u16, u128)> {
    match *extent {
        Extent::Hole { .. } => None,
        Extent::Mapped { la, device, pa, .. } => {
            Some((device, u128::from(pa) + u128::from(at) - u128::from(la)))
        }
        Extent::Inline { .. } => panic!("inline data in a chunk-based file"),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut params = Params(data);
    let (nid, place_in) = (params.u64(), params.u64());
    let image = image_of(params.0);
    let Some(sb) = superblock(&image) else {
        return;
    };
    let source = Counting::new(&image, 512);
    let Some(inode) = inode(&sb, nid, &source) else {
        return;
    };
    if inode.layout != Layout::ChunkBased {
        return;
    }
    let block = u64::from(sb.block_size());
    let mut la = 0;
    // From the start to the end, then somewhere; a hostile size gives more extents than anyone waits for.
    for step in 0..64 {
        if step == 48 || la >= inode.size {
            la = place_in % inode.size.max(1);
        }
        if la >= inode.size {
            break;
        }
        let extent = map_blocks(&sb, &inode, &source, la);
        assert!(source.reads() <= 3, "reads for an extent");
        let extent = match extent {
            Ok(extent) => extent,
            Err(err) => {
                check_error(&err);
                // The record is not there, or what it names cannot be addressed.
                if let Some(found) = record(&sb, &inode, &image, la) {
                    let (_, pa) = found.unwrap_or_else(|| panic!("{err} for a hole at {la:#x}"));
                    assert!(pa + (1 << 44) > i64::MAX as u128, "{err} at {la:#x}");
                }
                la = la.saturating_add(1 << inode.chunk_bits(&sb));
                continue;
            }
        };
        let (start, len) = check_extent(&extent, la);
        assert_eq!((start % block, len % block), (0, 0));
        // All of it is as the chunks' records say: at the ends, in the middle, and where it was asked.
        let last = (start + len - 1).min(inode.size - 1);
        for at in [start, la, start + (last - start) / 2, last] {
            let wanted = record(&sb, &inode, &image, at).expect("an extent without a record");
            assert_eq!(place(&extent, at), wanted, "{extent:?} at {at:#x}");
        }
        la = start + len;
    }
});
