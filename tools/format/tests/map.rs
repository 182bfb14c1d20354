// SPDX-License-Identifier: GPL-2.0

//! From a file's bytes to where they lie, against a model that looks every block up on its own.

mod common;

use common::{Head, RawInode};
use erofs_shared_format::{
    error::{Error, Kind},
    inode::Inode,
    map::{map_blocks, Extent},
    source::Source,
    superblock::{incompat, Superblock},
    Bytes,
};
use proptest::prelude::*;

const INLINE: u16 = 2;
const CHUNKS: u16 = 4;
const INDEXES: u32 = 0x20;
const WIDE: u32 = 0x40;
const MAX: u64 = i64::MAX as u64;

fn map(raw: &RawInode, la: u64) -> Result<Extent, Error> {
    let sb = Head::default().superblock();
    map_blocks(&sb, &raw.read(&sb)?, &Bytes(&[]), la)
}

/// A superblock for `devices` extra devices, with blocks of `1 << bits` bytes and the inodes from byte 4096 on.
fn superblock(bits: u8, devices: u16) -> Superblock {
    let mut head = Head::default();
    head.blkszbits(bits)
        .set(40, &(4096u32 >> bits).to_le_bytes());
    if devices != 0 {
        head.incompat(incompat::DEVICE_TABLE)
            .set(86, &devices.to_le_bytes());
    }
    head.superblock()
}

#[test]
fn flat_plain() {
    let raw = RawInode {
        size: 10000,
        i_u: 7,
        ..RawInode::default()
    };
    let whole = Extent::Mapped {
        la: 0,
        len: 12288,
        device: 0,
        pa: 7 * 4096,
    };
    for la in [0, 1, 4096, 9999] {
        assert_eq!(map(&raw, la), Ok(whole));
    }
    for la in [10000, 12288, u64::MAX] {
        assert_eq!(map(&raw, la), Ok(Extent::Hole { la, len: 0 }));
    }
}

#[test]
fn flat_hole() {
    let raw = RawInode {
        size: 10000,
        i_u: u32::MAX,
        ..RawInode::default()
    };
    assert_eq!(map(&raw, 5000), Ok(Extent::Hole { la: 0, len: 12288 }));
}

#[test]
fn flat_inline() {
    let raw = RawInode {
        layout: INLINE,
        size: 8292,
        i_u: 3,
        ..RawInode::default()
    };
    let blocks = Extent::Mapped {
        la: 0,
        len: 8192,
        device: 0,
        pa: 3 * 4096,
    };
    let tail = Extent::Inline {
        la: 8192,
        len: 100,
        pa: 4096 + 32,
    };
    assert_eq!(map(&raw, 0), Ok(blocks));
    assert_eq!(map(&raw, 8191), Ok(blocks));
    assert_eq!(map(&raw, 8192), Ok(tail));
    assert_eq!(map(&raw, 8291), Ok(tail));
    assert_eq!(map(&raw, 8292), Ok(Extent::Hole { la: 8292, len: 0 }));
    // A tail alone, behind xattrs.
    let raw = RawInode {
        size: 5,
        icount: 2,
        i_u: u32::MAX,
        ..raw
    };
    assert_eq!(
        map(&raw, 4),
        Ok(Extent::Inline {
            la: 0,
            len: 5,
            pa: 4096 + 32 + 16
        })
    );
    // One that does not fit makes the whole file bad.
    let raw = RawInode { size: 4095, ..raw };
    assert_eq!(map(&raw, 0).map_err(|err| err.kind), Err(Kind::Corrupted));
}

#[test]
fn empty_files() {
    for layout in [0, INLINE, CHUNKS] {
        let raw = RawInode {
            layout,
            ..RawInode::default()
        };
        assert_eq!(map(&raw, 0), Ok(Extent::Hole { la: 0, len: 0 }));
    }
}

#[test]
fn largest_flat_files() {
    let raw = RawInode {
        extended: true,
        nb: 0xFFFF,
        size: MAX,
        i_u: u32::MAX,
        ..RawInode::default()
    };
    // 2^63 bytes, which is more than a file can have.
    let hole = Extent::Hole {
        la: 0,
        len: 1 << 63,
    };
    assert_eq!(map(&raw, MAX - 1), Ok(hole));
    // Data cannot go on behind the last address.
    for (nb, i_u) in [(0, 0), (0, 1), (0xFFFF, 0)] {
        let raw = RawInode { nb, i_u, ..raw };
        assert_eq!(map(&raw, 0).map_err(|err| err.kind), Err(Kind::Corrupted));
    }
    let raw = RawInode {
        nb: 0,
        i_u: 1,
        size: MAX - 8191,
        ..raw
    };
    assert_eq!(
        map(&raw, 0),
        Ok(Extent::Mapped {
            la: 0,
            len: MAX - 8191,
            device: 0,
            pa: 4096
        })
    );
}

#[test]
fn compressed() {
    for layout in [1, 3] {
        let raw = RawInode {
            layout,
            size: 1,
            ..RawInode::default()
        };
        assert_eq!(map(&raw, 0).map_err(|err| err.kind), Err(Kind::Unsupported));
        assert_eq!(map(&raw, 1), Ok(Extent::Hole { la: 1, len: 0 }));
    }
}

/// Where a chunk lies, as a test wants it: device and block.
type Place = Option<(u16, u64)>;

fn entries(format: u32, places: &[Place]) -> Vec<u8> {
    let mut out = Vec::new();
    for place in places {
        if format & INDEXES == 0 {
            out.extend(
                place
                    .map_or(u32::MAX, |(_, block)| block as u32)
                    .to_le_bytes(),
            );
            continue;
        }
        let (device, block) = place.unwrap_or((0x5A5A, u64::MAX));
        let hi = if format & WIDE != 0 {
            block >> 32
        } else {
            0xBEEF
        };
        out.extend((hi as u16).to_le_bytes());
        out.extend(device.to_le_bytes());
        out.extend((block as u32).to_le_bytes());
    }
    out
}

/// An image with one file of these chunks.
fn chunked(size: u64, format: u32, places: &[Place]) -> (RawInode, Vec<u8>) {
    let raw = RawInode {
        extended: true,
        layout: CHUNKS,
        size,
        i_u: format,
        ..RawInode::default()
    };
    let image = raw.image(&entries(format, places));
    (raw, image)
}

fn map_in(sb: &Superblock, image: &[u8], la: u64) -> Result<Extent, Error> {
    let inode = Inode::read(sb, 0, &Bytes(image))?;
    map_blocks(sb, &inode, &Bytes(image), la)
}

#[test]
fn block_maps() {
    let sb = superblock(12, 0);
    // Chunks of two blocks; the second follows the first, the last is cut at the end of the file.
    let places = [Some((0, 10)), Some((0, 12)), None, None, Some((0, 14))];
    let (_, image) = chunked(4 * 8192 + 10, 1, &places);
    let at = |la| map_in(&sb, &image, la);
    let mapped = |la, len, block: u64| {
        Ok(Extent::Mapped {
            la,
            len,
            device: 0,
            pa: block * 4096,
        })
    };
    assert_eq!(at(0), mapped(0, 16384, 10));
    assert_eq!(at(8191), mapped(0, 16384, 10));
    assert_eq!(at(8192), mapped(8192, 8192, 12));
    assert_eq!(
        at(16384),
        Ok(Extent::Hole {
            la: 16384,
            len: 16384
        })
    );
    assert_eq!(
        at(24576),
        Ok(Extent::Hole {
            la: 24576,
            len: 8192
        })
    );
    assert_eq!(at(32768), mapped(32768, 4096, 14));
    assert_eq!(at(32777), mapped(32768, 4096, 14));
    assert_eq!(at(32778), Ok(Extent::Hole { la: 32778, len: 0 }));
}

#[test]
fn indexes_and_devices() {
    let places = [Some((0xFFFE, 5)), Some((2, 6)), Some((1, 7)), None];
    let (_, image) = chunked(4 * 4096, INDEXES, &places);
    let device_of = |sb: &Superblock, la| match map_in(sb, &image, la) {
        Ok(Extent::Mapped { device, len, .. }) => (device, len),
        other => panic!("{other:?}"),
    };
    // Only the bits that the number of devices needs count.
    let sb = superblock(12, 2);
    assert_eq!(device_of(&sb, 0), (2, 8192));
    assert_eq!(device_of(&sb, 8192), (1, 4096));
    // Without extra devices none do, and the three are one.
    let sb = superblock(12, 0);
    assert_eq!(device_of(&sb, 0), (0, 3 * 4096));
    assert_eq!(
        map_in(&sb, &image, 12288),
        Ok(Extent::Hole {
            la: 12288,
            len: 4096
        })
    );
}

#[test]
fn wide_indexes() {
    let sb = superblock(12, 0);
    let places = [
        Some((0, 0x1234_FFFF_FFFF)),
        Some((0, 0x1235_0000_0000)),
        // The null address without the 48 bits is an address with them.
        Some((0, 0xFFFF_FFFF)),
        Some((0, (1 << 48) - 2)),
        None,
    ];
    let (_, image) = chunked(5 * 4096, INDEXES | WIDE, &places);
    let mapped = |la, len, block: u64| {
        Ok(Extent::Mapped {
            la,
            len,
            device: 0,
            pa: block * 4096,
        })
    };
    assert_eq!(map_in(&sb, &image, 0), mapped(0, 8192, 0x1234_FFFF_FFFF));
    assert_eq!(map_in(&sb, &image, 8192), mapped(8192, 4096, 0xFFFF_FFFF));
    assert_eq!(
        map_in(&sb, &image, 12288),
        mapped(12288, 4096, (1 << 48) - 2)
    );
    assert_eq!(
        map_in(&sb, &image, 16384),
        Ok(Extent::Hole {
            la: 16384,
            len: 4096
        })
    );
}

#[test]
fn indexes_start_aligned() {
    // 64 bytes of inode and 12 + 4 of xattrs: indexes of 8 bytes start right behind, after 12 they do not.
    let sb = superblock(12, 0);
    for (icount, format, gap) in [(1, INDEXES, 4), (2, INDEXES, 0), (1, 0, 0)] {
        let raw = RawInode {
            extended: true,
            layout: CHUNKS,
            size: 4096,
            i_u: format,
            icount,
            ..RawInode::default()
        };
        let mut more = vec![0xEE; 12 + 4 * (usize::from(icount) - 1) + gap];
        more.extend(entries(format, &[Some((0, 9))]));
        let image = raw.image(&more);
        assert_eq!(
            map_in(&sb, &image, 0),
            Ok(Extent::Mapped {
                la: 0,
                len: 4096,
                device: 0,
                pa: 9 * 4096
            }),
            "icount {icount}, format {format:#x}"
        );
    }
}

#[test]
fn largest_chunked_files() {
    let sb = superblock(12, 0);
    // Chunks of 2^43 bytes, 2^20 of them.
    let (_, image) = chunked(MAX, 0x1F, &[Some((0, 1)), None]);
    assert_eq!(
        map_in(&sb, &image, 5),
        Ok(Extent::Mapped {
            la: 0,
            len: 1 << 43,
            device: 0,
            pa: 4096
        })
    );
    match map_in(&sb, &image, 1 << 43) {
        Ok(Extent::Hole { la, len }) => assert_eq!((la, len), (1 << 43, 1 << 43)),
        other => panic!("{other:?}"),
    }
    // Indexes behind the end of the image.
    assert_eq!(
        map_in(&sb, &image, MAX - 1).map_err(|err| err.kind),
        Err(Kind::Corrupted)
    );
    // With the smallest chunks the position of the last index is still no overflow.
    for bits in [9, 12] {
        let sb = superblock(bits, 0);
        let (_, image) = chunked(MAX, INDEXES, &[]);
        assert!(map_in(&sb, &image, MAX - 1).is_err());
    }
}

#[test]
fn chunks_at_the_last_blocks() {
    let sb = superblock(12, 0);
    // 48 bits of blocks end at 2^60, and the largest chunk can go on behind.
    let (_, image) = chunked(
        MAX,
        INDEXES | WIDE | 0x1F,
        &[Some((0, (1 << 48) - 2)), Some((0, 0))],
    );
    let end = match map_in(&sb, &image, 0) {
        Ok(Extent::Mapped { pa, len, .. }) => pa + len,
        other => panic!("{other:?}"),
    };
    assert_eq!(end, ((1u64 << 48) - 2) * 4096 + (1 << 43));
}

/// All of the file by `map_blocks`, one block at a time: what backs each block.
fn blocks_of(sb: &Superblock, image: &[u8], size: u64) -> Result<Vec<Place>, String> {
    let block = u64::from(sb.block_size());
    let mut out = Vec::new();
    let mut la = 0;
    while la < size {
        let (start, len, place) = match map_in(sb, image, la).map_err(|err| err.to_string())? {
            Extent::Hole { la, len } => (la, len, None),
            Extent::Mapped {
                la,
                len,
                device,
                pa,
            } => (la, len, Some((device, pa))),
            Extent::Inline { .. } => return Err("inline".into()),
        };
        if start != la || len == 0 || len % block != 0 {
            return Err(format!("extent of {len} bytes at {start}, asked for {la}"));
        }
        for number in 0..len / block {
            out.push(place.map(|(device, pa)| (device, pa / block + number)));
        }
        la += len;
    }
    Ok(out)
}

prop_compose! {
    /// Places with many neighbours among them.
    fn places(max: usize)(
        steps in prop::collection::vec((0u8..5, 0u16..4, 0u64..1 << 20), 1..max),
        bits in 0u32..4,
    ) -> (u32, Vec<Place>) {
        let mut out: Vec<Place> = Vec::new();
        for (kind, device, block) in steps {
            out.push(match (kind, out.last()) {
                (0, _) => None,
                (1..=3, Some(Some((device, last)))) => Some((*device, last + (1 << bits))),
                _ => Some((device, block)),
            });
        }
        (bits, out)
    }
}

proptest! {
    #[test]
    fn every_block_where_the_model_says(
        blkszbits in 9u8..=12,
        (bits, places) in places(600),
        format in prop::sample::select(vec![0, INDEXES, INDEXES | WIDE]),
        cut in 0u64..1 << 15,
    ) {
        let sb = superblock(blkszbits, 3);
        let chunk = 1u64 << (u32::from(blkszbits) + bits);
        let size = places.len() as u64 * chunk - cut % chunk;
        let (_, image) = chunked(size, format | bits, &places);
        let mut expected = Vec::new();
        for place in &places {
            for number in 0..1u64 << bits {
                expected.push(place.map(|(device, block)| {
                    (if format & INDEXES != 0 { device } else { 0 }, block + number)
                }));
            }
        }
        expected.truncate(size.div_ceil(u64::from(sb.block_size())) as usize);
        prop_assert_eq!(blocks_of(&sb, &image, size), Ok(expected));
    }

    #[test]
    fn neighbours_are_one_extent(
        (bits, places) in places(60),
        format in prop::sample::select(vec![0, INDEXES, INDEXES | WIDE]),
    ) {
        // All indexes lie in one block here, so what continues must be one extent.
        let sb = superblock(12, 3);
        let chunk = 4096u64 << bits;
        let size = places.len() as u64 * chunk;
        let (_, image) = chunked(size, format | bits, &places);
        let device = |place: Place| place.map(|(device, block)| {
            (if format & INDEXES != 0 { device } else { 0 }, block)
        });
        for (number, place) in places.iter().enumerate() {
            let mut count = 1;
            while let Some(next) = places.get(number + count) {
                let continued = device(*place).map(|(dev, block)| (dev, block + ((count as u64) << bits)));
                if device(*next) != continued {
                    break;
                }
                count += 1;
            }
            let la = number as u64 * chunk;
            let len = count as u64 * chunk;
            let expected = match device(*place) {
                None => Extent::Hole { la, len },
                Some((device, block)) => Extent::Mapped { la, len, device, pa: block * 4096 },
            };
            prop_assert_eq!(map_in(&sb, &image, la + chunk - 1), Ok(expected));
        }
    }

    #[test]
    fn any_inode_and_any_place(
        bytes in prop::collection::vec(any::<u8>(), 64),
        known in any::<bool>(),
        more in prop::collection::vec(any::<u8>(), 0..512),
        blkszbits in 9u8..=12,
        at in prop::collection::vec(any::<u64>(), 8),
    ) {
        let sb = superblock(blkszbits, 300);
        let mut image = vec![0; 4096];
        image.extend(bytes);
        if known {
            // Most random formats would be refused at once.
            image[4096] &= 0x1F;
            image[4096 + 1] = 0;
            image[4096 + 3] = 0;
            image[4096 + 5] = 0x80 | (image[4096 + 5] & 0x0F);
            image[4096 + 15] &= 0x7F;
            image[4096 + 16] &= 0x7F;
            image[4096 + 17] = 0;
            image[4096 + 43] &= 0x1F;
        }
        image.extend(more);
        let Ok(inode) = Inode::read(&sb, 0, &Bytes(&image)) else {
            return Ok(());
        };
        let _ = inode.tail(&sb);
        for la in at.into_iter().chain([0, inode.size / 2, inode.size.saturating_sub(1), inode.size]) {
            match map_blocks(&sb, &inode, &Bytes(&image), la) {
                Err(_) => {}
                Ok(Extent::Hole { la: start, len })
                | Ok(Extent::Mapped { la: start, len, .. })
                | Ok(Extent::Inline { la: start, len, .. }) => {
                    if la < inode.size {
                        prop_assert!(start <= la && la - start < len);
                    } else {
                        prop_assert_eq!((start, len), (la, 0));
                    }
                }
            }
        }
        prop_assert!(Bytes(&image).bread(u64::MAX).is_err());
    }
}
