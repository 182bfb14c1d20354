// SPDX-License-Identifier: GPL-2.0

//! Inodes of both sizes, in each layout, with the values that must be refused.

mod common;

use common::{inode_and_stat, Head, RawInode};
use erofs_shared_format::{
    error::{Error, Kind},
    inode::{FileType, Inode, Layout, Stat},
    superblock::{incompat, Area, NID_METABOX},
    Bytes,
};

const EXTENDED: RawInode = RawInode {
    extended: true,
    layout: 0,
    bit4: false,
    icount: 0,
    mode: 0o100644,
    nb: 0,
    size: 0,
    mtime: 0,
    nsec: 0,
    i_u: 0,
    uid: 0,
    gid: 0,
    nlink: 1,
};

fn refusal(raw: &RawInode) -> Error {
    raw.read(&Head::default().superblock())
        .expect_err("an inode to be refused")
}

fn good(raw: &RawInode) -> Inode {
    raw.read(&Head::default().superblock())
        .expect("a good inode")
}

/// As `good`, and what stat(2) shows of it.
fn both(raw: &RawInode) -> (Inode, Stat) {
    raw.read_both(&Head::default().superblock())
        .expect("a good inode")
}

#[test]
fn compact() {
    let mut head = Head::default();
    head.set(24, &1_000_000_000_000i64.to_le_bytes())
        .set(32, &123u32.to_le_bytes());
    let raw = RawInode {
        nb: 7,
        size: u32::MAX.into(),
        mtime: u32::MAX.into(),
        i_u: 0x8765_4321,
        uid: 0xFFFE,
        gid: 0xFFFD,
        ..RawInode::default()
    };
    let (inode, stat) = raw.read_both(&head.superblock()).expect("a good inode");
    assert_eq!((inode.nid, inode.area, inode.iloc), (0, Area::Image, 4096));
    assert_eq!((inode.inode_isize, inode.xattr_isize), (32, 0));
    assert_eq!(inode.layout, Layout::FlatPlain);
    assert_eq!(inode.file_type, FileType::Regular);
    assert_eq!((stat.mode, stat.nlink), (0o100644, 7));
    assert_eq!((stat.uid, stat.gid), (0xFFFE, 0xFFFD));
    assert_eq!(stat.mtime, 1_000_000_000_000 + i64::from(u32::MAX));
    assert_eq!(stat.mtime_nsec, 123);
    assert_eq!(inode.size, 0xFFFF_FFFF);
    // The link count is no part of the block number.
    assert_eq!(inode.startblk(), Some(0x8765_4321));
    assert_eq!(stat.blocks512, (1 << 20) * 8);
}

#[test]
fn extended() {
    let raw = RawInode {
        nb: 0x1234,
        size: i64::MAX as u64,
        mtime: (-9i64) as u64,
        nsec: 999_999_999,
        i_u: 0x5678_9ABC,
        uid: u32::MAX,
        gid: u32::MAX - 1,
        nlink: u32::MAX - 2,
        ..EXTENDED
    };
    let (inode, stat) = both(&raw);
    assert_eq!(inode.inode_isize, 64);
    assert_eq!((stat.uid, stat.gid), (u32::MAX, u32::MAX - 1));
    assert_eq!(stat.nlink, u32::MAX - 2);
    assert_eq!((stat.mtime, stat.mtime_nsec), (-9, 999_999_999));
    assert_eq!(inode.size, i64::MAX as u64);
    assert_eq!(inode.startblk(), Some(0x1234_5678_9ABC));
    assert_eq!(stat.blocks512, 1 << 54);
}

#[test]
fn link_count_of_one_frees_the_field() {
    let raw = RawInode {
        bit4: true,
        nb: 0x0203,
        i_u: 4,
        ..RawInode::default()
    };
    let (inode, stat) = both(&raw);
    assert_eq!(stat.nlink, 1);
    assert_eq!(inode.startblk(), Some(0x0203_0000_0004));
    assert!(!inode.dot_omitted);
    // In a directory the same bit says that "." is not stored.
    let raw = RawInode {
        mode: 0o040755,
        nb: 9,
        ..raw
    };
    let (inode, stat) = both(&raw);
    assert_eq!((stat.nlink, inode.startblk()), (9, Some(4)));
    assert!(inode.dot_omitted);
    // An extended inode has a field of its own for either.
    let raw = RawInode {
        bit4: true,
        nlink: 5,
        nb: 1,
        ..EXTENDED
    };
    let (inode, stat) = both(&raw);
    assert_eq!((stat.nlink, inode.startblk()), (5, Some(1 << 32)));
    assert!(!inode.dot_omitted);
}

#[test]
fn null_addresses_are_holes() {
    let null = |raw: RawInode| good(&raw).startblk().is_none();
    let compact = RawInode {
        i_u: u32::MAX,
        ..RawInode::default()
    };
    assert!(null(compact));
    // 48 bits: the lower half alone does not make it.
    let one = RawInode {
        bit4: true,
        ..compact
    };
    assert!(!null(RawInode { nb: 0x7FFF, ..one }));
    assert!(null(RawInode { nb: 0xFFFF, ..one }));
    let extended = RawInode {
        i_u: u32::MAX,
        ..EXTENDED
    };
    assert!(!null(extended));
    assert!(null(RawInode {
        nb: 0xFFFF,
        ..extended
    }));
    // In other layouts it is an address like any other.
    assert!(!null(RawInode {
        layout: 2,
        ..compact
    }));
}

#[test]
fn layouts() {
    let layout = |layout, extended| {
        good(&RawInode {
            layout,
            extended,
            nlink: 1,
            ..RawInode::default()
        })
    };
    for extended in [false, true] {
        for (number, expected, compressed) in [
            (0, Layout::FlatPlain, false),
            (1, Layout::CompressedFull, true),
            (2, Layout::FlatInline, false),
            (3, Layout::CompressedCompact, true),
            (4, Layout::ChunkBased, false),
        ] {
            let inode = layout(number, extended);
            assert_eq!(inode.layout, expected);
            assert_eq!(inode.is_compressed(), compressed);
        }
        for number in 5..8 {
            let error = refusal(&RawInode {
                layout: number,
                extended,
                ..RawInode::default()
            });
            assert_eq!(
                (error.kind, error.value),
                (Kind::Unsupported, number.into())
            );
        }
    }
}

#[test]
fn unknown_format_bits() {
    for bit in 5..16 {
        let mut image = RawInode::default().image(&[]);
        image[4096 + bit / 8] |= 1 << (bit % 8);
        let error = Inode::read(&Head::default().superblock(), 0, &Bytes(&image))
            .expect_err("an unknown bit");
        assert_eq!((error.kind, error.value), (Kind::Unsupported, 1 << bit));
    }
}

#[test]
fn file_types() {
    for kind in 0..16u16 {
        let raw = RawInode {
            mode: (kind << 12) | 0o7777,
            i_u: 0x0010_3007,
            ..RawInode::default()
        };
        let expected = match kind {
            0o01 => FileType::Fifo,
            0o02 => FileType::CharDevice,
            0o04 => FileType::Directory,
            0o06 => FileType::BlockDevice,
            0o10 => FileType::Regular,
            0o12 => FileType::Symlink,
            0o14 => FileType::Socket,
            _ => {
                let error = refusal(&raw);
                assert_eq!(error.kind, Kind::Corrupted, "type {kind:o}");
                assert_eq!(error.value, raw.mode.into());
                continue;
            }
        };
        let (inode, stat) = both(&raw);
        assert_eq!(inode.file_type, expected);
        assert_eq!(stat.mode, raw.mode);
        assert_eq!(stat.rdev, 0x0010_3007);
        // Only what has data has an address.
        let data = matches!(kind, 0o04 | 0o10 | 0o12);
        assert_eq!(inode.startblk(), data.then_some(0x0010_3007));
    }
}

#[test]
fn negative_sizes() {
    for size in [1 << 63, u64::MAX] {
        let error = refusal(&RawInode { size, ..EXTENDED });
        assert_eq!((error.kind, error.value), (Kind::Corrupted, size));
        assert_eq!(error.pos, 4096 + 8);
    }
}

#[test]
fn too_many_nanoseconds() {
    for nsec in [1_000_000_000, u32::MAX] {
        let error = refusal(&RawInode { nsec, ..EXTENDED });
        assert_eq!((error.kind, error.value), (Kind::Corrupted, nsec.into()));
    }
}

#[test]
fn times_past_the_end() {
    let mut head = Head::default();
    head.set(24, &(i64::MAX - 5).to_le_bytes());
    let sb = head.superblock();
    let at = |mtime| {
        RawInode {
            mtime,
            ..RawInode::default()
        }
        .read_both(&sb)
    };
    assert_eq!(at(5).expect("the last second").1.mtime, i64::MAX);
    assert_eq!(at(6).expect_err("overflow").kind, Kind::Corrupted);
    // An extended inode does not count from there.
    let late = RawInode {
        mtime: i64::MIN as u64,
        ..EXTENDED
    };
    assert_eq!(late.read_both(&sb).expect("its own time").1.mtime, i64::MIN);
}

#[test]
fn sizes_of_xattrs() {
    for (icount, size) in [(0, 0), (1, 12), (2, 16), (u16::MAX, 12 + 4 * 65534)] {
        let raw = RawInode {
            icount,
            ..RawInode::default()
        };
        assert_eq!(good(&raw).xattr_isize, size);
    }
}

#[test]
fn blocks_of_compressed_inodes() {
    let raw = RawInode {
        layout: 3,
        nb: 0x1234,
        i_u: 5,
        size: 1 << 40,
        ..EXTENDED
    };
    let (inode, stat) = both(&raw);
    assert_eq!(stat.blocks512, 0x1234_0000_0005 * 8);
    assert_eq!(inode.startblk(), None);
    // A compact one has but 32 bits.
    let raw = RawInode {
        extended: false,
        ..raw
    };
    assert_eq!(both(&raw).1.blocks512, 5 * 8);
}

#[test]
fn chunk_formats() {
    let raw = RawInode {
        layout: 4,
        ..RawInode::default()
    };
    for bits in 0..32 {
        let inode = good(&RawInode {
            i_u: 0x60 | bits,
            ..raw
        });
        assert_eq!(inode.chunk_bits(&Head::default().superblock()), 12 + bits);
        assert_eq!(inode.startblk(), None);
    }
    for bit in 7..16 {
        let error = refusal(&RawInode {
            i_u: 1 << bit,
            ..raw
        });
        assert_eq!((error.kind, error.value), (Kind::Unsupported, 1 << bit));
    }
    // What is above is reserved, and not read.
    assert_eq!(
        good(&RawInode {
            i_u: 0xFFFF_0000,
            ..raw
        })
        .chunk_format,
        0
    );
}

#[test]
fn inline_tails() {
    let sb = Head::default().superblock();
    let tail = |size, icount, extended| {
        good(&RawInode {
            extended,
            layout: 2,
            size,
            icount,
            ..RawInode::default()
        })
        .tail(&sb)
    };
    assert_eq!(tail(0, 0, false), Ok(None));
    assert_eq!(tail(1, 0, false), Ok(Some((4096 + 32, 1))));
    assert_eq!(tail(4097, 0, true), Ok(Some((4096 + 64, 1))));
    assert_eq!(tail(100, 3, false), Ok(Some((4096 + 32 + 20, 100))));
    // To the last byte of the block, and no further.
    assert_eq!(tail(4096 - 32, 0, false), Ok(Some((4096 + 32, 4064))));
    let error = tail(4096 - 31, 0, false).expect_err("across the block");
    assert_eq!((error.kind, error.value), (Kind::Corrupted, 4065));
    assert!(tail(4096, 0, false).is_err());
    assert!(tail(i64::MAX as u64, 0, true).is_err());
    // Behind many xattrs it can start in a later block.
    assert_eq!(
        tail(4096, 1 + (4096 - 12 - 32) / 4, false),
        Ok(Some((8192, 4096)))
    );
    // Only of that layout.
    let plain = good(&RawInode {
        size: 1,
        ..RawInode::default()
    });
    assert_eq!(plain.tail(&sb), Ok(None));
}

#[test]
fn across_units() {
    // The second half of an extended inode lies in the next block.
    let sb = Head::default().superblock();
    let mut image = vec![0; 2 * 4096 - 32];
    let raw = RawInode {
        uid: 0x1234_5678,
        nlink: 77,
        ..EXTENDED
    };
    image.extend(raw.bytes());
    let (inode, stat) = inode_and_stat(&sb, 127, &image).expect("a good inode");
    assert_eq!((inode.iloc, stat.nlink), (8192 - 32, 77));
    // Cut there, a compact one is still whole.
    image.truncate(8192);
    assert!(Inode::read(&sb, 127, &Bytes(&image)).is_err());
    image[8192 - 32] = 0;
    Inode::read(&sb, 127, &Bytes(&image)).expect("a good compact inode");
    image.truncate(8191);
    assert!(Inode::read(&sb, 127, &Bytes(&image)).is_err());
}

#[test]
fn in_the_metabox() {
    let mut head = Head::default();
    head.incompat(incompat::METABOX).set(13, &[1]);
    let sb = head.superblock();
    let mut area = vec![0; 64];
    area.extend(EXTENDED.bytes());
    let inode = Inode::read(&sb, NID_METABOX | 2, &Bytes(&area)).expect("a good inode");
    assert_eq!((inode.area, inode.iloc), (Area::Metabox, 64));
    assert_eq!(inode.nid, NID_METABOX | 2);
}
