// SPDX-License-Identifier: GPL-2.0

//! Compressed files: every extent against the index entries that it starts and ends with, each read on its
//! own in the simplest way.
//!
//! Input: nid and place (16 bytes), then the image from its superblock on.

#![no_main]

use erofs_shared_format::{
    compression::Compression,
    inode::{Inode, Layout},
    superblock::Superblock,
    zmap::{map, map_next, Data, Header, ZExtent},
};
use erofs_shared_fuzz::{
    check_error, check_zextent, image_of, inode, superblock, Counting, Params,
};
use libfuzzer_sys::fuzz_target;

/// Reads for one extent: as many entries as a pcluster's 12 MiB can have, back and forth, and a few.
const MOST_READS: u64 = 2 * (12 << 11) + 16;

/// Type (2: no head) and offset of an index entry; `None` if it is past the end, or not that simple.
fn entry(sb: &Superblock, inode: &Inode, image: &[u8], lcn: u64) -> Option<(u64, u64)> {
    let start = inode.iloc + u64::from(inode.inode_isize) + u64::from(inode.xattr_isize);
    let start = start.next_multiple_of(8);
    let at = usize::try_from(start).ok()?;
    let header = image.get(at..at.checked_add(8)?)?;
    let bits = u32::from(sb.blkszbits + (header[7] & 15));
    let le = |at: u64, len: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let raw = image.get(at..at.checked_add(len)?)?;
        Some(
            raw.iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte)),
        )
    };
    if inode.layout == Layout::CompressedFull {
        let at = start.checked_add(16)?.checked_add(lcn.checked_mul(8)?)?;
        return Some((le(at, 2)? & 3, le(at + 2, 2)?));
    }
    let start = start + 8;
    let total = inode.size.div_ceil(1 << sb.blkszbits);
    // Up to a multiple of 32 bytes there are pairs.
    let pairs = (start.next_multiple_of(32) - start) / 4;
    let narrow = if header[4] & 1 != 0 && total > pairs {
        (total - pairs) / 16 * 16
    } else {
        0
    };
    let in_narrow = lcn >= pairs && lcn < pairs + narrow;
    let (pack, number, width) = if in_narrow {
        let index = lcn - pairs;
        (start + pairs * 4 + index / 16 * 32, index % 16, 14)
    } else {
        let index = if lcn < pairs { lcn } else { lcn - narrow };
        let skipped = if lcn < pairs { 0 } else { narrow * 2 };
        (start + skipped + index / 2 * 8, index % 2, 16)
    };
    let bit = number * width;
    let value = (le(pack + bit / 8, 4)? >> (bit % 8)) & ((1 << width) - 1);
    let low = bits.max(12);
    Some((value >> low & 3, value & ((1 << low) - 1)))
}

/// The extent starts at a head, and the next one ends it.
fn check_ends(sb: &Superblock, inode: &Inode, header: &Header, image: &[u8], extent: &ZExtent) {
    let bits = header.lclusterbits();
    let (lcn, offset) = (extent.la >> bits, extent.la & ((1 << bits) - 1));
    let Some((kind, place)) = entry(sb, inode, image, lcn) else {
        panic!("{extent:?} without an entry");
    };
    assert_ne!(kind, 2, "{extent:?} starts with no head");
    assert_eq!(place, offset, "{extent:?} starts elsewhere");
    let end = extent.end();
    if end < inode.size && extent.data != Data::Hole {
        let Some((kind, place)) = entry(sb, inode, image, end >> bits) else {
            panic!("nothing ends {extent:?}");
        };
        assert_ne!(kind, 2, "{extent:?} ends with no head");
        assert_eq!(place, end & ((1 << bits) - 1), "{extent:?} ends elsewhere");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut params = Params(data);
    let (nid, place) = (params.u64(), params.u64());
    let image = image_of(params.0);
    let Some(sb) = superblock(&image) else {
        return;
    };
    let source = Counting::new(&image, 512);
    let compression = match Compression::read(&sb, &source) {
        Ok(compression) => compression,
        Err(err) => return check_error(&err),
    };
    let Some(inode) = inode(&sb, nid, &source) else {
        return;
    };
    source.reads();
    let header = Header::read(&sb, &inode, &source);
    assert!(source.reads() <= MOST_READS, "reads for a header");
    let header = match header {
        Ok(header) => header,
        Err(err) => return check_error(&err),
    };
    assert!(inode.is_compressed());
    let indexes = header.layout_name().contains("indexes") && header.whole_fragment().is_none();
    let mut before: Option<ZExtent> = None;
    let mut la = 0;
    // From the start to the end, then somewhere.
    for step in 0..64 {
        if step >= 56 || la >= inode.size {
            la = place.wrapping_mul(step | 1) % inode.size.max(1);
            before = None;
        }
        if la >= inode.size {
            break;
        }
        let found = map(&sb, &compression, &inode, &header, &source, la);
        let reads = source.reads();
        // Lengths that have to be added up are read one by one.
        assert!(
            reads <= MOST_READS || header.layout_name().starts_with("extents (4"),
            "{reads} reads for an extent"
        );
        if let Some(before) = before {
            let next = map_next(&sb, &compression, &inode, &header, &source, &before);
            assert_eq!(next, found, "behind {before:?}");
            source.reads();
        }
        match found {
            Ok(extent) => {
                check_zextent(&sb, &inode, &extent, la);
                if indexes {
                    check_ends(&sb, &inode, &header, &image, &extent);
                }
                la = extent.end();
                before = Some(extent);
            }
            Err(err) => {
                check_error(&err);
                la = la.saturating_add(1 << header.lclusterbits());
                before = None;
            }
        }
    }
});
