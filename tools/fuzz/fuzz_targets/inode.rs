// SPDX-License-Identifier: GPL-2.0

//! An inode, and the extent at one place of its data.
//!
//! Input: nid and place (16 bytes), then the image from its superblock on.

#![no_main]

use erofs_shared_format::{
    inode::{FileType, Inode, Layout},
    map::map_blocks,
};
use erofs_shared_fuzz::{check_error, check_extent, image_of, inode, superblock, Counting, Params};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut params = Params(data);
    let (nid, la) = (params.u64(), params.u64());
    let image = image_of(params.0);
    let Some(sb) = superblock(&image) else {
        return;
    };
    let source = Counting::new(&image, 512);
    let Some(inode) = inode(&sb, nid, &source) else {
        return;
    };
    let (_, stat) = Inode::read_at(&sb, nid, &[], &source).expect("an inode that was read");
    source.reads();
    assert!(stat.mtime_nsec < 1_000_000_000);
    if inode.is_compressed() {
        assert_eq!(inode.startblk(), None);
    } else {
        assert!(stat.blocks512 >= inode.size / 512);
    }
    assert!(!inode.dot_omitted || inode.file_type == FileType::Directory);
    assert!(inode.chunk_format == 0 || inode.layout == Layout::ChunkBased);
    match inode.tail(&sb) {
        Ok(Some((pos, len))) => {
            let block = u64::from(sb.block_size());
            assert!(inode.layout == Layout::FlatInline && len > 0);
            assert_eq!(inode.size % block, u64::from(len) % block);
            assert!(pos >= inode.iloc + u64::from(inode.inode_isize));
            assert_eq!(pos / block, (pos + u64::from(len) - 1) / block);
        }
        Ok(None) => assert!(inode.layout != Layout::FlatInline || inode.size == 0),
        Err(err) => check_error(&err),
    }
    for la in [la, 0, inode.size / 2, inode.size.saturating_sub(1)] {
        let extent = map_blocks(&sb, &inode, &source, la);
        assert!(source.reads() <= 3, "reads for an extent");
        match extent {
            Ok(extent) if la < inode.size => {
                check_extent(&extent, la);
            }
            Ok(extent) => assert_eq!(
                extent,
                erofs_shared_format::map::Extent::Hole { la, len: 0 }
            ),
            Err(err) => check_error(&err),
        }
    }
});
