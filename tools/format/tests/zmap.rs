// SPDX-License-Identifier: GPL-2.0

//! Compressed files: extents by indexes and tables, against models that write both in the simplest way.

#![allow(clippy::precedence)]

mod common;

use std::cell::Cell;

use common::{put, Head, RawInode};
use erofs_shared_format::{
    compression::{Algorithm, Compression},
    error::{Error, Kind},
    inode::Inode,
    source::Source,
    superblock::{incompat, Superblock},
    zmap::{map, map_next, Coding, Data, Header, Pcluster, ZExtent},
    Bytes,
};
use proptest::prelude::*;

const FULL: u16 = 1;
const COMPACT: u16 = 3;

const COMPACTED_2B: u16 = 0x01;
const EXTENTS: u16 = 0x01;
const BIG: u16 = 0x06;
const BIG_1: u16 = 0x02;
const INLINE: u16 = 0x08;
const INTERLACED: u16 = 0x10;
const FRAGMENT: u16 = 0x20;

const PLAIN: u16 = 0;
const HEAD1: u16 = 1;
const NONHEAD: u16 = 2;
const HEAD2: u16 = 3;
const CBLKCNT: u16 = 0x800;

const PACKED_NID: u64 = 99;

/// An image's head with all algorithms and features, blocks of `1 << bits` bytes, inodes from byte 4096 on.
fn head(bits: u8) -> Head {
    let mut head = Head::default();
    head.blkszbits(bits)
        .set(40, &(4096u32 >> bits).to_le_bytes())
        .incompat(incompat::LZ4_0PADDING | incompat::COMPR_CFGS | incompat::FRAGMENTS)
        .set(84, &15u16.to_le_bytes())
        .set(96, &PACKED_NID.to_le_bytes());
    let records: [&[u8]; 4] = [
        &[0; 14],
        &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[15, 0, 0, 0, 0, 0],
        &[0, 5, 0, 0, 0, 0],
    ];
    let mut at = 1152;
    for record in records {
        put(&mut head.0, at, &(record.len() as u16).to_le_bytes());
        put(&mut head.0, at + 2, record);
        at = (at + 2 + record.len()).next_multiple_of(4);
    }
    head
}

/// A compressed file and its image.
struct File {
    sb: Superblock,
    compression: Compression,
    inode: Inode,
    image: Vec<u8>,
}

impl File {
    /// `raw` with `body` behind its 8-byte header, which is where the format wants it.
    fn new(mut head: Head, raw: &RawInode, header: [u8; 8], body: &[u8]) -> Self {
        let sb = head.superblock();
        let compression = Compression::read(&sb, &Bytes(&head.0)).expect("good configurations");
        head.0.resize(4096, 0);
        let mut image = head.0;
        image.extend(raw.bytes());
        let at = body_at(raw) - 8;
        put(&mut image, at, &header);
        put(&mut image, at + 8, body);
        let inode = Inode::read(&sb, 0, &Bytes(&image)).expect("a good inode");
        Self {
            sb,
            compression,
            inode,
            image,
        }
    }

    fn header(&self) -> Result<Header, Error> {
        Header::read(&self.sb, &self.inode, &Bytes(&self.image))
    }

    fn map(&self, la: u64) -> Result<ZExtent, Error> {
        let image = Bytes(&self.image);
        let header = self.header()?;
        map(
            &self.sb,
            &self.compression,
            &self.inode,
            &header,
            &image,
            la,
        )
    }

    fn next(&self, before: &ZExtent) -> Result<ZExtent, Error> {
        let image = Bytes(&self.image);
        let header = self.header()?;
        map_next(
            &self.sb,
            &self.compression,
            &self.inode,
            &header,
            &image,
            before,
        )
    }

    /// Why byte `la` cannot be found: kind and value.
    fn refusal(&self, la: u64) -> (Kind, u64) {
        let err = self.map(la).expect_err("an extent to be refused");
        assert!(!err.what.is_empty() && err.pos >= 4096, "{err}");
        (err.kind, err.value)
    }
}

/// Where what follows the header is, in the image.
fn body_at(raw: &RawInode) -> usize {
    let inode = if raw.extended { 64 } else { 32 };
    let xattrs = match raw.icount {
        0 => 0,
        count => 12 + 4 * (usize::from(count) - 1),
    };
    (4096usize + inode + xattrs).next_multiple_of(8) + 8
}

fn header(lo: u32, advise: u16, algorithms: u8, clusterbits: u8) -> [u8; 8] {
    let mut raw = [0; 8];
    raw[..4].copy_from_slice(&lo.to_le_bytes());
    raw[4..6].copy_from_slice(&advise.to_le_bytes());
    raw[6] = algorithms;
    raw[7] = clusterbits;
    raw
}

fn regular(layout: u16, size: u64) -> RawInode {
    RawInode {
        extended: true,
        layout,
        size,
        ..RawInode::default()
    }
}

/// A full index.
fn entry(advise: u16, offset: u16, rest: u32) -> [u8; 8] {
    let mut raw = [0; 8];
    raw[..2].copy_from_slice(&advise.to_le_bytes());
    raw[2..4].copy_from_slice(&offset.to_le_bytes());
    raw[4..].copy_from_slice(&rest.to_le_bytes());
    raw
}

fn back(delta0: u16, delta1: u16) -> [u8; 8] {
    entry(NONHEAD, 0, u32::from(delta0) | u32::from(delta1) << 16)
}

/// Full indexes behind the 8 bytes that precede them.
fn full(entries: &[[u8; 8]]) -> Vec<u8> {
    let mut out = vec![0; 8];
    out.extend(entries.iter().flatten());
    out
}

/// What a good mapping says of an extent of a file of `size` bytes: compressed data is not longer than what
/// comes out of it, but at the file's end.
fn sane(extent: ZExtent, size: u64) -> Result<ZExtent, Kind> {
    match extent.data {
        Data::Pcluster(data)
            if matches!(data.coding, Coding::Compressed(_))
                && !data.partial
                && extent.llen < u64::from(data.plen)
                && extent.end() < size =>
        {
            Err(Kind::Corrupted)
        }
        _ => Ok(extent),
    }
}

fn pcluster(pa: u64, plen: u32, coding: Coding) -> Data {
    Data::Pcluster(Pcluster {
        pa,
        plen,
        inline: false,
        coding,
        partial: false,
    })
}

const LZ4: Coding = Coding::Compressed(Algorithm::Lz4);

// ---- a file by hand ---------------------------------------------------------------------------------------

#[test]
fn full_indexes() {
    // LZ4 and DEFLATE, plain data at the end.
    let raw = regular(FULL, 5 * 4096 + 100);
    let body = full(&[
        entry(HEAD1, 0, 7),
        back(1, 1),
        entry(HEAD2, 300, 8),
        entry(PLAIN, 400, 20),
        entry(HEAD1 | 1 << 15, 100, 21),
        entry(HEAD1 | 1 << 14, 5, 0),
    ]);
    let file = File::new(head(12), &raw, header(0, 0, 0x20, 0), &body);
    let wanted = [
        (0, 8492, pcluster(7 * 4096, 4096, LZ4)),
        (
            8492,
            12688,
            pcluster(8 * 4096, 4096, Coding::Compressed(Algorithm::Deflate)),
        ),
        (12688, 16484, pcluster(20 * 4096, 4096, Coding::Shifted)),
        (
            16484,
            20485,
            Data::Pcluster(Pcluster {
                pa: 21 * 4096,
                plen: 4096,
                inline: false,
                coding: LZ4,
                partial: true,
            }),
        ),
        (20485, 20580, Data::Hole),
    ];
    for (start, end, data) in wanted {
        let extent = ZExtent {
            la: start,
            llen: end - start,
            data,
        };
        for la in [start, start + 1, end - 1] {
            assert_eq!(file.map(la), Ok(extent), "{la}");
        }
        assert_eq!(extent.end(), end);
    }
    for la in [20580, u64::MAX] {
        let none = ZExtent {
            la,
            llen: 0,
            data: Data::Hole,
        };
        assert_eq!(file.map(la), Ok(none));
    }
    assert_eq!(
        file.header().expect("a header").layout_name(),
        "full indexes"
    );
}

#[test]
fn whole_file_in_the_packed_inode() {
    let raw = regular(COMPACT, 12345);
    let file = File::new(head(12), &raw, (0x4321u64 | 1 << 63).to_le_bytes(), &[]);
    let all = ZExtent {
        la: 0,
        llen: 12345,
        data: Data::Fragment { pos: 0x4321 },
    };
    assert_eq!(file.map(0), Ok(all));
    assert_eq!(file.map(12344), Ok(all));
    assert_eq!(
        file.header().expect("a header").whole_fragment(),
        Some(0x4321)
    );
    // Past 2^63.
    let pos = i64::MAX as u64;
    let file = File::new(head(12), &raw, (pos | 1 << 63).to_le_bytes(), &[]);
    assert_eq!(file.refusal(0), (Kind::Corrupted, pos));
    // There is no packed inode.
    let mut bare = head(12);
    bare.set(96, &[0; 8]);
    let file = File::new(bare, &raw, (0x4321u64 | 1 << 63).to_le_bytes(), &[]);
    assert_eq!(file.refusal(0), (Kind::Corrupted, 0x4321));
    // The packed inode's own data cannot be in it.
    for word in [1u64 << 63, u64::from(FRAGMENT) << 32] {
        let mut file = File::new(
            head(12),
            &raw,
            word.to_le_bytes(),
            &full(&[entry(HEAD1, 0, 0); 4]),
        );
        file.inode.nid = PACKED_NID;
        let err = file.header().expect_err("a loop");
        assert_eq!(err.kind, Kind::Corrupted);
    }
}

#[test]
fn fragment_offsets_have_64_bits() {
    let raw = regular(FULL, 8192);
    let body = full(&[entry(HEAD1, 0, 7), entry(HEAD1, 0, 0x12)]);
    let file = File::new(head(12), &raw, header(0x9876_5432, FRAGMENT, 0, 0), &body);
    let tail = ZExtent {
        la: 4096,
        llen: 4096,
        data: Data::Fragment {
            pos: 0x12_9876_5432,
        },
    };
    assert_eq!(file.map(4096), Ok(tail));
    assert_eq!(file.map(0).map(|extent| extent.llen), Ok(4096));
    assert_eq!(file.header().expect("a header").whole_fragment(), None);
}

#[test]
fn inline_tails() {
    // A whole extent and 100 plain bytes behind the last entry; then the same, compressed.
    for (kind, coding) in [
        (PLAIN, Coding::Shifted),
        (HEAD2, Coding::Compressed(Algorithm::Zstd)),
    ] {
        let raw = regular(FULL, 4196);
        let body = full(&[entry(HEAD1, 0, 7), entry(kind, 0, 0)]);
        let advise = INLINE | INTERLACED;
        let file = File::new(head(12), &raw, header(100 << 16, advise, 0x30, 0), &body);
        let tail = ZExtent {
            la: 4096,
            llen: 100,
            data: Data::Pcluster(Pcluster {
                pa: (body_at(&raw) + body.len()) as u64,
                plen: 100,
                inline: true,
                coding,
                partial: false,
            }),
        };
        assert_eq!(file.map(4096), Ok(tail));
        assert_eq!(file.map(4195), Ok(tail));
        assert_eq!(file.map(0).map(|extent| extent.llen), Ok(4096));
    }
}

#[test]
fn empty_files() {
    for (layout, advise) in [
        (FULL, 0),
        (FULL, INLINE),
        (COMPACT, FRAGMENT),
        (FULL, EXTENTS),
    ] {
        let file = File::new(
            head(12),
            &regular(layout, 0),
            header(7 << 16, advise, 0, 0),
            &[],
        );
        let none = ZExtent {
            la: 0,
            llen: 0,
            data: Data::Hole,
        };
        assert_eq!(file.map(0), Ok(none));
        assert_eq!(none.plain(&file.sb, 0), None);
    }
}

#[test]
fn names_of_layouts() {
    for (layout, advise, name) in [
        (FULL, 0, "full indexes"),
        (COMPACT, COMPACTED_2B, "compact indexes (2 bytes)"),
        (COMPACT, FRAGMENT, "compact indexes (4 bytes)"),
        (FULL, EXTENTS, "extents (4 bytes)"),
        (FULL, EXTENTS | 1 << 1, "extents (8 bytes)"),
        (FULL, EXTENTS | 2 << 1, "extents (16 bytes)"),
        (FULL, EXTENTS | 3 << 1 | FRAGMENT, "extents (32 bytes)"),
    ] {
        let file = File::new(head(12), &regular(layout, 0), header(0, advise, 0, 2), &[]);
        let header = file.header().expect("a header");
        assert_eq!(header.layout_name(), name);
        assert_eq!(header.has_fragment(), advise & FRAGMENT != 0);
        assert_eq!(header.lclusterbits(), 14);
    }
}

#[test]
fn plain_bytes() {
    let sb = head(12).superblock();
    let extent = |coding| ZExtent {
        la: 1000,
        llen: 7000,
        data: pcluster(4096, 8192, coding),
    };
    let shifted = extent(Coding::Shifted);
    assert_eq!(shifted.plain(&sb, 0), Some((0, 7000)));
    assert_eq!(shifted.plain(&sb, 6999), Some((6999, 1)));
    assert_eq!(shifted.plain(&sb, 7000), None);
    // The file's blocks end where the pcluster's do; the first bytes come last.
    let interlaced = extent(Coding::Interlaced);
    assert_eq!(interlaced.plain(&sb, 0), Some((5096, 3096)));
    assert_eq!(interlaced.plain(&sb, 3000), Some((8096, 96)));
    assert_eq!(interlaced.plain(&sb, 3096), Some((0, 3904)));
    assert_eq!(interlaced.plain(&sb, 6999), Some((3903, 1)));
    assert_eq!(extent(LZ4).plain(&sb, 0), None);
    let short = ZExtent {
        llen: 50,
        ..interlaced
    };
    assert_eq!(short.plain(&sb, 10), Some((5106, 40)));
}

#[test]
fn refused_headers() {
    let refused = |head: Head, layout, header, body: &[u8]| {
        let file = File::new(head, &regular(layout, 8192), header, body);
        let err = file.header().expect_err("a header to be refused");
        assert!(err.pos >= 4096, "{err}");
        err.kind
    };
    let body = full(&[entry(HEAD1, 0, 1); 4]);
    // Algorithms 4 and up, of either head.
    for algorithms in [0x04, 0x40, 0xF0] {
        let kind = refused(head(12), FULL, header(0, 0, algorithms, 0), &body);
        assert_eq!(kind, Kind::Unsupported);
    }
    // Big pclusters that the superblock does not know; and of one head only.
    let mut old = head(12);
    old.incompat(incompat::LZ4_0PADDING);
    let kind = refused(old, FULL, header(0, BIG, 0, 0), &body);
    assert_eq!(kind, Kind::Corrupted);
    let kind = refused(head(12), COMPACT, header(0, BIG_1, 0, 0), &body);
    assert_eq!(kind, Kind::Corrupted);
    // An inline pcluster that does not fit into the rest of the block.
    let kind = refused(head(12), FULL, header(4001 << 16, INLINE, 0, 0), &body);
    assert_eq!(kind, Kind::Corrupted);
    // No compression at all.
    let mut none = Head::default();
    none.incompat(0);
    assert_eq!(
        refused(none, FULL, header(0, 0, 0, 0), &body),
        Kind::Corrupted
    );
    // Not compressed.
    let raw = regular(0, 8192);
    let file = File::new(head(12), &raw, header(0, 0, 0, 0), &body);
    assert_eq!(
        file.header().expect_err("a plain file").kind,
        Kind::Corrupted
    );
    // Compact indexes for lclusters of 8 KiB, and of 32 KiB.
    for (advise, bits) in [(COMPACTED_2B, 1), (0, 3)] {
        let raw = regular(COMPACT, 1 << 20);
        let file = File::new(head(12), &raw, header(0, advise, 0, bits), &[0; 256]);
        assert_eq!(file.refusal(500_000).0, Kind::Unsupported);
    }
}

#[test]
fn refused_indexes() {
    let refused = |advise: u16, size: u64, entries: &[[u8; 8]], la: u64| {
        let file = File::new(
            head(12),
            &regular(FULL, size),
            header(0, advise, 0x31, 0),
            &full(entries),
        );
        file.refusal(la).0
    };
    let head1 = entry(HEAD1, 0, 1);
    for (advise, entries, la) in [
        // Distances that are 0, lead before the file, or to no head.
        (0, &[head1, back(0, 1)][..], 4096),
        (0, &[head1, back(2, 1)], 4096),
        (0, &[back(1, 1), back(1, 1)], 4096),
        (0, &[back(0, 1), back(1, 1)], 0),
        // A file that does not start with an extent.
        (0, &[entry(HEAD1, 5, 1), head1], 3),
        // An offset behind the lcluster: of the head, and of the next one.
        (0, &[entry(HEAD1, 4096, 1), head1], 0),
        (0, &[head1, entry(HEAD1, 4096, 2)], 0),
        // A size without big pclusters; and none with them.
        (0, &[head1, back(CBLKCNT | 2, 1)], 4096),
        (BIG, &[head1, back(1, 1)], 0),
        // More plain data than there is.
        (0, &[entry(PLAIN, 0, 1), back(1, 1)], 0),
    ] {
        assert_eq!(refused(advise, 8192, entries, la), Kind::Corrupted);
    }
    // Less data than what it is compressed to; at the end of the file that is fine.
    let short = [head1, entry(HEAD1, 4000, 2), entry(HEAD1, 0, 3)];
    assert_eq!(refused(0, 8193, &short, 8100), Kind::Corrupted);
    let file = File::new(
        head(12),
        &regular(FULL, 8192),
        header(0, 0, 0, 0),
        &full(&short),
    );
    assert_eq!(file.map(8100).map(|extent| extent.llen), Ok(96));
    // 257 blocks: more than 1 MiB.
    let large = [head1, back(CBLKCNT | 257, 1)];
    assert_eq!(refused(BIG, 8192, &large, 0), Kind::Unsupported);
    // 13 MiB out of one pcluster.
    let mut long = vec![head1];
    long.extend((1..13 * 256).map(|at: u16| back(at.min(2047), 1)));
    assert_eq!(refused(0, 13 << 20, &long, 0), Kind::Unsupported);
    // But a hole may be of any size.
    let hole = entry(HEAD1 | 1 << 14, 0, 0);
    long[0] = hole;
    let size = 13 << 20;
    let raw = regular(FULL, size);
    let file = File::new(head(12), &raw, header(0, 0, 0, 0), &full(&long));
    let mut la = 0;
    while la < size {
        let extent = file.map(la).expect("a part of a hole");
        assert_eq!(extent.data, Data::Hole);
        assert!(extent.la <= la && extent.end() > la);
        la = extent.end();
    }
    assert_eq!(la, size);
    // Entries that are not in the image.
    let file = File::new(head(12), &regular(FULL, 1 << 40), header(0, 0, 0, 0), &[]);
    assert!(file.map(1 << 39).is_err());
    let file = File::new(
        head(12),
        &regular(FULL, i64::MAX as u64),
        header(0, 0, 0, 0),
        &[],
    );
    assert!(file.map(i64::MAX as u64 - 1).is_err());
}

#[test]
fn pclusters_stay_inside() {
    let raw = regular(FULL, 4096);
    let mut file = File::new(
        head(12),
        &raw,
        header(0, 0, 0, 0),
        &full(&[entry(HEAD1, 0, 9)]),
    );
    file.compression.set_end(10 * 4096);
    assert!(file.map(0).is_ok());
    file.compression.set_end(10 * 4096 - 1);
    assert_eq!(file.refusal(0), (Kind::Corrupted, 9 * 4096));
    // Past 48 bits.
    let record = [0, 0, 4096u32 | 1 << 28, 0xFFFF_F000, 0x0FFF_FFFF, 0]
        .map(u32::to_le_bytes)
        .concat();
    let file = File::new(head(12), &raw, header(1, EXTENTS | 2 << 1, 0, 0), &record);
    assert_eq!(file.refusal(0).0, Kind::Corrupted);
}

#[test]
fn algorithms_have_to_be_announced() {
    let mut only_lz4 = head(12);
    only_lz4.set(84, &1u16.to_le_bytes());
    let body = full(&[entry(HEAD1, 0, 3), entry(HEAD2, 0, 4)]);
    let file = File::new(only_lz4, &regular(FULL, 8192), header(0, 0, 0x10, 0), &body);
    assert!(file.map(0).is_ok());
    assert_eq!(file.refusal(4096), (Kind::Corrupted, 1));
}

#[test]
fn long_lookbacks() {
    // Distances have 11 bits: steps of 2047.
    let count = 6000u32;
    let mut entries = vec![entry(HEAD1, 0, 3)];
    entries.extend((1..count).map(|at| back(at.min(2047) as u16, (count - at).min(2047) as u16)));
    let size = u64::from(count) * 512;
    let file = File::new(
        head(9),
        &regular(FULL, size),
        header(0, 0, 0, 0),
        &full(&entries),
    );
    let extent = ZExtent {
        la: 0,
        llen: size,
        data: pcluster(3 * 512, 512, LZ4),
    };
    for la in [0, 512, size / 2, size - 1] {
        assert_eq!(file.map(la), Ok(extent));
    }
}

// ---- encoded extents --------------------------------------------------------------------------------------

#[test]
fn refused_extents() {
    let file = |advise: u16, count: u32, words: &[u32], size: u64| {
        let raw = regular(FULL, size);
        // Records start at a multiple of their size.
        let at = body_at(&raw);
        let mut body = vec![0; at.next_multiple_of(4 << (advise >> 1 & 3)) - at];
        body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        File::new(head(12), &raw, header(count, EXTENTS | advise, 0, 0), &body)
    };
    // Algorithm 5.
    let wrong = file(2 << 1, 1, &[4096 | 6 << 28, 4096, 0, 0], 4096);
    assert_eq!(wrong.refusal(0).0, Kind::Unsupported);
    // Extents past the end, and out of order.
    let lz4 = 4096 | 1 << 28;
    let records = [lz4, 4096, 0, 0, lz4, 8192, 0, 20000];
    assert_eq!(
        file(2 << 1, 2, &records, 10000).refusal(0).0,
        Kind::Corrupted
    );
    // More than 1 MiB on disk, and decoded 12 MiB.
    let large = [0x1F_FFFF | 1 << 28, 4096, 0, 0];
    assert_eq!(
        file(2 << 1, 1, &large, 4096).refusal(0).0,
        Kind::Unsupported
    );
    let bomb = [lz4, 4096, 0, 0];
    assert_eq!(
        file(2 << 1, 1, &bomb, 13 << 20).refusal(0).0,
        Kind::Unsupported
    );
    // Plain data that is too short.
    let plain = [100, 4096, 0, 0];
    assert_eq!(file(2 << 1, 1, &plain, 101).refusal(0).0, Kind::Corrupted);
    assert!(file(2 << 1, 1, &plain, 100).map(0).is_ok());
    // A count far beyond what there is.
    assert!(file(2 << 1, u32::MAX, &[0; 4], 4096).map(0).is_err());
    // More lengths to add up than anyone waits for.
    let sparse = file(0, 0, &[0; 16], 1 << 50);
    assert_eq!(sparse.refusal(1 << 49).0, Kind::Unsupported);
    // Nothing before the first extent.
    let late = file(2 << 1, 1, &[lz4, 4096, 0, 5000], 9000);
    let hole = ZExtent {
        la: 10,
        llen: 4990,
        data: Data::Hole,
    };
    assert_eq!(late.map(10), Ok(hole));
    assert_eq!(late.map(5000).map(|extent| extent.llen), Ok(4000));
}

fn kind(found: Result<ZExtent, Error>) -> Result<ZExtent, Kind> {
    found.map_err(|err| err.kind)
}

/// An extent of a random file.
#[derive(Clone, Debug)]
struct Piece {
    len: u64,
    /// 0: plain; else the algorithm's number and 1.
    format: u32,
    plen: u32,
    pa: u64,
    partial: bool,
}

fn piece(max: u64) -> impl Strategy<Value = Piece> {
    (
        1..=max,
        0u32..5,
        prop_oneof![
            Just(0u32),
            1..=0x10_0000u32,
            (1..=256u32).prop_map(|blocks| blocks * 4096)
        ],
        prop_oneof![
            0..1u64 << 47,
            (0..1u64 << 30).prop_map(|block| block * 4096)
        ],
        any::<bool>(),
    )
        .prop_map(|(len, format, plen, pa, partial)| Piece {
            // Plain data is as long as it says.
            len: if format == 0 && plen != 0 {
                len.min(plen.into())
            } else {
                len
            },
            format,
            plen,
            pa,
            partial,
        })
}

fn coding(piece: &Piece, interlaced: bool) -> Coding {
    match piece.format {
        0 if interlaced && piece.pa % 4096 == 0 && piece.plen % 4096 == 0 => Coding::Interlaced,
        0 => Coding::Shifted,
        number => Coding::Compressed(Algorithm::from_number(number - 1).expect("an algorithm")),
    }
}

proptest! {
    /// Records of 16 and 32 bytes.
    #[test]
    fn sorted_extents(
        pieces in prop::collection::vec(piece(1 << 20), 1..40),
        wide in any::<bool>(),
        interlaced in any::<bool>(),
        fragment in prop::option::of(0..1u64 << 62),
        start in prop_oneof![Just(0u64), 1..1u64 << 20],
        icount in 0u16..20,
        places in prop::collection::vec(any::<u64>(), 20),
    ) {
        let mut body = Vec::new();
        let mut la = start;
        let mut wanted = Vec::new();
        for (number, one) in pieces.iter().enumerate() {
            let last = number + 1 == pieces.len();
            let mut plen = one.plen;
            let mut pa = one.pa;
            let data = match fragment {
                Some(pos) if last => {
                    plen = pos as u32;
                    pa = pos >> 32;
                    Data::Fragment { pos }
                }
                _ if plen == 0 => Data::Hole,
                _ => Data::Pcluster(Pcluster {
                    pa,
                    plen,
                    inline: false,
                    coding: coding(one, interlaced),
                    partial: one.partial,
                }),
            };
            if !matches!(data, Data::Fragment { .. }) {
                plen |= one.format << 28 | u32::from(one.partial) << 27;
            }
            let mut record = Vec::new();
            record.extend(plen.to_le_bytes());
            record.extend(pa.to_le_bytes());
            record.extend(la.to_le_bytes());
            record.resize(32, 0xA5);
            record.truncate(if wide { 32 } else { 16 });
            body.extend(record);
            wanted.push(ZExtent { la, llen: one.len, data });
            la += one.len;
        }
        let advise = EXTENTS
            | if wide { 3 << 1 } else { 2 << 1 }
            | if interlaced { INTERLACED } else { 0 }
            | if fragment.is_some() { FRAGMENT } else { 0 };
        let raw = RawInode { icount, ..regular(FULL, la) };
        // Records start at a multiple of their size.
        let size = if wide { 32 } else { 16 };
        let at = body_at(&raw);
        let mut padded = vec![0; at.next_multiple_of(size) - at];
        padded.extend(body);
        let file = File::new(head(12), &raw, header(pieces.len() as u32, advise, 0, 0), &padded);
        if start != 0 {
            let hole = file.map(0).expect("a hole");
            prop_assert_eq!(hole, ZExtent { la: 0, llen: start, data: Data::Hole });
        }
        for extent in &wanted {
            prop_assert_eq!(kind(file.map(extent.la)), sane(*extent, file.inode.size));
            prop_assert_eq!(kind(file.map(extent.end() - 1)), sane(*extent, file.inode.size));
        }
        for pair in wanted.windows(2) {
            prop_assert_eq!(kind(file.next(&pair[0])), sane(pair[1], file.inode.size));
        }
        for place in places {
            let at = start + place % (la - start);
            let found = wanted.iter().find(|extent| at < extent.end()).expect("an extent");
            prop_assert_eq!(kind(file.map(at)), sane(*found, file.inode.size));
        }
    }

    /// Records of 4 and 8 bytes: an extent for each lcluster.
    #[test]
    fn fixed_extents(
        pieces in prop::collection::vec(piece(1), 1..40),
        bits in 0u8..8,
        with_address in any::<bool>(),
        fragment in prop::option::of(any::<u32>()),
        cut in any::<u64>(),
        base in 0..1u64 << 40,
        places in prop::collection::vec(any::<u64>(), 20),
    ) {
        let lcluster = 4096u64 << bits;
        let count = pieces.len() as u64;
        let size = count * lcluster - cut % lcluster;
        let mut body = if with_address { Vec::new() } else { base.to_le_bytes().to_vec() };
        let mut wanted = Vec::new();
        let mut pa = base;
        for (number, one) in pieces.iter().enumerate() {
            let mut one = one.clone();
            if one.format == 0 && one.plen != 0 {
                // Enough plain data.
                one.plen = one.plen.max(lcluster as u32);
            }
            let last = number + 1 == pieces.len();
            if with_address {
                // As the upper half of a fragment's offset it is below 2^31.
                pa = u64::from(one.pa as u32 >> 1);
            }
            one.pa = pa;
            let la = number as u64 * lcluster;
            let mut word = one.plen | one.format << 28 | u32::from(one.partial) << 27;
            let data = match fragment {
                Some(pos) if last => {
                    word = pos;
                    Data::Fragment { pos: u64::from(pos) | if with_address { pa << 32 } else { 0 } }
                }
                _ if one.plen == 0 => Data::Hole,
                _ => Data::Pcluster(Pcluster {
                    pa,
                    plen: one.plen,
                    inline: false,
                    coding: coding(&one, false),
                    partial: one.partial,
                }),
            };
            body.extend(word.to_le_bytes());
            if with_address {
                body.extend((pa as u32).to_le_bytes());
            }
            pa += u64::from(one.plen);
            wanted.push(ZExtent { la, llen: lcluster.min(size - la), data });
        }
        let advise = EXTENTS
            | u16::from(with_address) << 1
            | if fragment.is_some() { FRAGMENT } else { 0 };
        let file = File::new(head(12), &regular(FULL, size), header(0, advise, 0, bits), &body);
        for extent in &wanted {
            prop_assert_eq!(kind(file.map(extent.la)), sane(*extent, file.inode.size));
            prop_assert_eq!(kind(file.map(extent.end() - 1)), sane(*extent, file.inode.size));
        }
        for pair in wanted.windows(2) {
            prop_assert_eq!(kind(file.next(&pair[0])), sane(pair[1], file.inode.size));
        }
        for place in places {
            let at = place % size;
            prop_assert_eq!(kind(file.map(at)), sane(wanted[(at / lcluster) as usize], size));
        }
    }
}

// ---- indexes ----------------------------------------------------------------------------------------------

/// What a random file ends with.
#[derive(Clone, Copy, Debug)]
enum Tail {
    None,
    Inline(u16),
    Fragment(u32),
}

/// Random choices for a lcluster, used if an extent starts in it.
#[derive(Clone, Debug)]
struct Choice {
    starts: bool,
    offset: u16,
    kind: u16,
    blocks: u16,
    block: u32,
    hole: bool,
    partial: bool,
}

fn choice() -> impl Strategy<Value = Choice> {
    (
        prop::bool::weighted(0.4),
        any::<u16>(),
        prop_oneof![Just(PLAIN), Just(HEAD1), Just(HEAD2)],
        0u16..=256,
        0..1u32 << 24,
        prop::bool::weighted(0.1),
        any::<bool>(),
    )
        .prop_map(
            |(starts, offset, kind, blocks, block, hole, partial)| Choice {
                starts,
                offset,
                kind,
                blocks,
                block,
                hole,
                partial,
            },
        )
}

/// An extent of the model, and how its lclusters are written down.
#[derive(Clone, Debug)]
struct Start {
    lcn: usize,
    offset: u64,
    kind: u16,
    /// Size in blocks; 0 is a hole.
    blocks: u16,
    /// The size is written behind the head.
    sized: bool,
    block: u32,
    hole_flag: bool,
    partial: bool,
    end: u64,
}

struct Layout {
    compact: bool,
    narrow: bool,
    /// Big pclusters of the first head type, and of all others.
    big: [bool; 2],
    blkszbits: u8,
    extra: u8,
}

impl Layout {
    fn bits(&self) -> u8 {
        self.blkszbits + self.extra
    }

    /// The extents that the choices make.
    fn starts(&self, choices: &[Choice], size: u64) -> Vec<Start> {
        let bits = self.bits();
        let mut starts: Vec<Start> = Vec::new();
        for (lcn, choice) in choices.iter().enumerate() {
            let offset = if lcn == 0 {
                0
            } else {
                u64::from(choice.offset) % (1 << bits)
            };
            let la = ((lcn as u64) << bits) + offset;
            if (lcn != 0 && !choice.starts) || la >= size {
                continue;
            }
            if let Some(before) = starts.last_mut() {
                before.end = la;
            }
            starts.push(Start {
                lcn,
                offset,
                kind: choice.kind,
                blocks: choice.blocks,
                sized: false,
                block: choice.block,
                hole_flag: choice.hole && !self.compact,
                partial: choice.partial && !self.compact,
                end: size,
            });
        }
        let mut next_block = starts[0].block;
        for number in 0..starts.len() {
            let next = starts.get(number + 1).map(|start| start.lcn);
            let start = &mut starts[number];
            let la = ((start.lcn as u64) << bits) + start.offset;
            start.sized = self.big[usize::from(start.kind != HEAD1)]
                && next != Some(start.lcn + 1)
                && ((start.lcn as u64 + 1) << bits) < size;
            if !start.sized {
                start.blocks = 1;
            }
            start.blocks = start.blocks.min(((1u32 << 20) >> self.blkszbits) as u16);
            // Plain data has a byte on disk for each of the file.
            if start.end - la > u64::from(start.blocks) << self.blkszbits && start.kind == PLAIN {
                start.kind = HEAD2;
            }
            if self.compact {
                // One behind the other.
                start.block = next_block;
                next_block += u32::from(start.blocks);
            }
        }
        starts
    }

    /// For each lcluster its type, the low bits, and what it would be as the last one of a pack.
    fn entries(&self, starts: &[Start], count: usize) -> Vec<(u16, u16, u16)> {
        let mut out = Vec::new();
        for lcn in 0..count {
            let number = starts.partition_point(|start| start.lcn <= lcn) - 1;
            let start = &starts[number];
            let next = starts.get(number + 1).map_or(count, |start| start.lcn);
            out.push(if start.lcn == lcn {
                (start.kind, start.offset as u16, start.offset as u16)
            } else if start.lcn + 1 == lcn && start.sized {
                (NONHEAD, CBLKCNT | start.blocks, CBLKCNT | start.blocks)
            } else {
                let far = |distance: usize| distance.min(2047) as u16;
                (NONHEAD, far(lcn - start.lcn), far(next - lcn))
            });
        }
        out
    }

    fn full(&self, starts: &[Start], count: usize) -> Vec<u8> {
        let mut out = vec![0xEE; 8];
        for (lcn, (kind, low, other)) in self.entries(starts, count).into_iter().enumerate() {
            let start = starts.iter().find(|start| start.lcn == lcn);
            out.extend(match start {
                Some(start) => entry(
                    kind | u16::from(start.hole_flag) << 14 | u16::from(start.partial) << 15,
                    low,
                    start.block,
                ),
                None => back(low, other),
            });
        }
        out
    }

    /// Compact indexes from a byte on that is `at` modulo 32; and where the last entry's pack ends.
    fn compact(&self, starts: &[Start], count: usize, at: usize) -> (Vec<u8>, usize) {
        let entries = self.entries(starts, count);
        let first = ((32 - at % 32) / 4) & 7;
        let narrow = if self.narrow && first < count {
            (count - first) / 16 * 16
        } else {
            0
        };
        let lobits = usize::from(self.bits()).max(12);
        let mut out = Vec::new();
        let mut lcn = 0;
        while lcn < count {
            let (len, width) = if lcn >= first && lcn - first < narrow {
                (16, 2)
            } else {
                (2, 4)
            };
            let bits = (len * width - 4) * 8 / len;
            let mut word = 0u128;
            let mut wide = [0u128; 2];
            // The number at the end: a head's block, less the sizes before it in the pack.
            let mut base = None;
            let mut before = 0u32;
            for number in 0..len {
                let Some((kind, low, other)) = entries.get(lcn + number).copied() else {
                    continue;
                };
                let value = u128::from(if number + 1 == len && kind == NONHEAD {
                    other
                } else {
                    low
                }) | u128::from(kind) << lobits;
                let bit = number * bits;
                // 224 bits: in two halves of 112.
                if bit < 112 {
                    wide[0] |= value << bit;
                } else {
                    wide[1] |= value << (bit - 112);
                }
                if kind != NONHEAD {
                    let start = starts
                        .iter()
                        .find(|start| start.lcn == lcn + number)
                        .expect("a head");
                    base.get_or_insert(start.block.wrapping_sub(before));
                    // A size that is written down counts where it is.
                    before += u32::from(!start.sized);
                } else if low & CBLKCNT != 0 {
                    before += u32::from(low & !CBLKCNT);
                }
            }
            if !self.big[0] {
                // Counted from 1 then.
                base = base.map(|base| base.wrapping_sub(1));
            }
            if len == 2 {
                word |= wide[0];
                out.extend(&word.to_le_bytes()[..4]);
            } else {
                out.extend(&wide[0].to_le_bytes()[..14]);
                out.extend(&wide[1].to_le_bytes()[..14]);
            }
            out.extend(base.unwrap_or(0xDEAD_BEEF).to_le_bytes());
            lcn += len;
        }
        let behind = out.len();
        (out, behind)
    }
}

fn random_file() -> impl Strategy<Value = (Layout, Vec<Choice>, u64, Tail, bool, u16)> {
    (
        any::<[bool; 5]>(),
        prop_oneof![Just(9u8), Just(11), Just(12)],
        0u8..4,
        prop::collection::vec(choice(), 1..90),
        prop_oneof![Just(0), any::<u64>()],
        prop_oneof![
            Just(Tail::None),
            (1u16..500).prop_map(Tail::Inline),
            any::<u32>().prop_map(Tail::Fragment)
        ],
        0u16..12,
    )
        .prop_map(
            |(
                [compact, narrow, big, big_2, interlaced],
                blkszbits,
                extra,
                choices,
                cut,
                tail,
                icount,
            )| {
                let layout = Layout {
                    compact,
                    narrow,
                    // Compact indexes have both or none.
                    big: [big, if compact { big } else { big_2 }],
                    blkszbits,
                    // Upstream counts compact entries in blocks.
                    extra: if compact { 0 } else { extra },
                };
                let lcluster = 1u64 << layout.bits();
                let size = choices.len() as u64 * lcluster - cut % lcluster;
                (layout, choices, size, tail, interlaced, icount)
            },
        )
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Layout {
            compact,
            narrow,
            big,
            blkszbits,
            extra,
        } = self;
        write!(
            f,
            "compact {compact}, narrow {narrow}, big {big:?}, {blkszbits}+{extra} bits"
        )
    }
}

proptest! {
    #[test]
    fn random_indexes(
        (layout, choices, size, tail, interlaced, icount) in random_file(),
        algorithms in (0u8..4, 0u8..4),
        places in prop::collection::vec(any::<u64>(), 30),
    ) {
        let count = choices.len();
        let mut starts = layout.starts(&choices, size);
        if let (Some(start), Tail::Inline(_)) = (starts.last_mut(), tail) {
            // Plain data may not fit.
            start.kind = HEAD2;
        }
        let raw = RawInode {
            icount,
            ..regular(if layout.compact { COMPACT } else { FULL }, size)
        };
        let at = body_at(&raw);
        let (body, behind) = if layout.compact {
            layout.compact(&starts, count, at)
        } else {
            let body = layout.full(&starts, count);
            let len = body.len();
            (body, len)
        };
        let behind = (at + behind) as u64;
        let block = 1u64 << layout.blkszbits;
        let mut advise = u16::from(layout.big[0]) << 1 | u16::from(layout.big[1]) << 2;
        if interlaced {
            advise |= INTERLACED;
        }
        if layout.compact && layout.narrow {
            advise |= COMPACTED_2B;
        }
        let mut lo = 0;
        let mut tail = tail;
        match &mut tail {
            Tail::None => {}
            Tail::Inline(len) => {
                // Within the block.
                *len = (u64::from(*len)).min(block - behind % block) as u16;
                advise |= INLINE;
                lo = u32::from(*len) << 16;
            }
            Tail::Fragment(pos) => {
                advise |= FRAGMENT;
                lo = *pos;
            }
        }
        let algorithm = |number: u8| {
            Coding::Compressed(Algorithm::from_number(number.into()).expect("an algorithm"))
        };
        let head_formats = algorithms.0 | algorithms.1 << 4;
        let file = File::new(head(layout.blkszbits), &raw, header(lo, advise, head_formats, layout.extra), &body);
        let last = starts.len() - 1;
        let mut wanted = Vec::new();
        for (number, start) in starts.iter().enumerate() {
            let la = ((start.lcn as u64) << layout.bits()) + start.offset;
            let coding = |inline: bool| match start.kind {
                PLAIN if interlaced && !inline => Coding::Interlaced,
                PLAIN => Coding::Shifted,
                HEAD1 => algorithm(algorithms.0),
                _ => algorithm(algorithms.1),
            };
            let data = match tail {
                Tail::Inline(len) if number == last => Data::Pcluster(Pcluster {
                    pa: behind,
                    plen: len.into(),
                    inline: true,
                    coding: coding(true),
                    partial: start.partial,
                }),
                Tail::Fragment(pos) if number == last => {
                    let hi = if layout.compact || start.hole_flag { 0 } else { start.block };
                    Data::Fragment { pos: u64::from(hi) << 32 | u64::from(pos) }
                }
                _ if start.blocks == 0 || start.hole_flag => Data::Hole,
                _ => Data::Pcluster(Pcluster {
                    pa: u64::from(start.block) << layout.blkszbits,
                    plen: u32::from(start.blocks) << layout.blkszbits,
                    inline: false,
                    coding: coding(false),
                    partial: start.partial,
                }),
            };
            wanted.push(ZExtent { la, llen: start.end - la, data });
        }
        for extent in &wanted {
            prop_assert_eq!(kind(file.map(extent.la)), sane(*extent, file.inode.size));
            prop_assert_eq!(kind(file.map(extent.end() - 1)), sane(*extent, file.inode.size));
            if extent.end() < size {
                prop_assert_eq!(file.next(extent), file.map(extent.end()));
            }
        }
        for place in places {
            let at = place % size;
            let found = wanted.iter().find(|extent| at < extent.end()).expect("an extent");
            prop_assert_eq!(kind(file.map(at)), sane(*found, file.inode.size));
        }
    }

    /// Whatever the bytes are: an answer that holds the byte, or an error; and only so much is read.
    #[test]
    fn hostile_indexes(
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
        layout in prop_oneof![Just(FULL), Just(COMPACT)],
        mut head_bytes in any::<[u8; 8]>(),
        known in any::<bool>(),
        bits in 9u8..=12,
        size in prop_oneof![1..100_000u64, 1..i64::MAX as u64],
        places in prop::collection::vec(any::<u64>(), 8),
    ) {
        if known {
            // Few inputs get far otherwise.
            head_bytes[6] &= 0x33;
            head_bytes[7] &= 3;
        }
        let file = File::new(head(bits), &regular(layout, size), head_bytes, &bytes);
        let image = Counting { bytes: &file.image, reads: Cell::new(0) };
        let Ok(header) = Header::read(&file.sb, &file.inode, &image) else {
            return Ok(());
        };
        for place in places {
            let la = place % size;
            image.reads.set(0);
            let found = map(&file.sb, &file.compression, &file.inode, &header, &image, la);
            prop_assert!(image.reads.get() < 60_000, "{} reads", image.reads.get());
            let Ok(extent) = found else {
                continue;
            };
            prop_assert!(extent.la <= la && la < extent.end() && extent.end() <= size);
            if let Data::Pcluster(data) = extent.data {
                prop_assert!(data.plen > 0 && data.plen <= 1 << 20);
                prop_assert!(extent.llen <= 12 << 20);
                let mut at = 0;
                while let Some((from, len)) = extent.plain(&file.sb, at) {
                    prop_assert!(len > 0 && u64::from(from) + u64::from(len) <= data.plen.into());
                    at += u64::from(len);
                }
                let plain = !matches!(data.coding, Coding::Compressed(_));
                prop_assert_eq!(at, if plain { extent.llen } else { 0 });
            }
        }
    }
}

/// Counts what is read.
struct Counting<'a> {
    bytes: &'a [u8],
    reads: Cell<u32>,
}

impl Source for Counting<'_> {
    type Error = Error;
    type Buf<'b>
        = &'b [u8]
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<&[u8], Error> {
        self.reads.set(self.reads.get() + 1);
        let end = (pos / 512 + 1) * 512;
        let end = end.min(self.bytes.len() as u64);
        if pos >= end {
            Bytes(&[]).bread(pos)?;
        }
        Ok(&self.bytes[pos as usize..end as usize])
    }
}
