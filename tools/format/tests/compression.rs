// SPDX-License-Identifier: GPL-2.0

//! Compression configurations, made by hand.

mod common;

use common::{put, Head};
use erofs_shared_format::{
    compression::{Algorithm, Compression},
    error::{Error, Kind},
    superblock::incompat,
    Bytes,
};

/// An image with these algorithms, and these records behind the superblock.
fn image(algorithms: u16, records: &[&[u8]]) -> Vec<u8> {
    let mut head = Head::default();
    head.incompat(incompat::COMPR_CFGS)
        .set(84, &algorithms.to_le_bytes());
    let mut at = 1024 + 128;
    for record in records {
        let at_record = at;
        put(&mut head.0, at_record, &(record.len() as u16).to_le_bytes());
        put(&mut head.0, at_record + 2, record);
        at = (at + 2 + record.len()).next_multiple_of(4);
    }
    head.0
}

fn read(image: &[u8]) -> Result<Compression, Error> {
    let sb = Head(image.to_vec()).superblock();
    Compression::read(&sb, &Bytes(image))
}

fn refusal(algorithms: u16, records: &[&[u8]]) -> (Kind, u64, u64) {
    let err = read(&image(algorithms, records)).expect_err("a configuration to be refused");
    (err.kind, err.pos, err.value)
}

const LZ4: [u8; 14] = [0x34, 0x12, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LZMA: [u8; 14] = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const DEFLATE: [u8; 6] = [15, 0, 0, 0, 0, 0];
const ZSTD: [u8; 6] = [0, 7, 0, 0, 0, 0];

#[test]
fn all_algorithms() {
    let all = read(&image(15, &[&LZ4, &LZMA, &DEFLATE, &ZSTD])).expect("good records");
    assert!(Algorithm::ALL.into_iter().all(|one| all.has(one)));
    assert_eq!(
        (all.lz4_max_distance, all.lz4_max_pclusterblks),
        (0x1234, 16)
    );
    assert_eq!(all.lzma_dict_size, 65536);
    assert_eq!((all.deflate_windowbits, all.zstd_windowlog), (15, 17));
    // In the order of their numbers, whichever there are.
    let some = read(&image(0b1010, &[&LZMA, &ZSTD])).expect("good records");
    assert_eq!(
        Algorithm::ALL.map(|one| some.has(one)),
        [false, true, false, true]
    );
    assert_eq!((some.lzma_dict_size, some.zstd_windowlog), (65536, 17));
    for (number, algorithm) in Algorithm::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(algorithm.number()), number);
        assert_eq!(Algorithm::from_number(number as u32), Some(algorithm));
    }
    assert_eq!(Algorithm::from_number(4), None);
}

#[test]
fn longer_records() {
    // A later release may add fields.
    let mut long = LZ4.to_vec();
    long.extend([0xFF; 33]);
    let both = read(&image(0b0101, &[&long, &DEFLATE])).expect("good records");
    assert_eq!(
        (both.lz4_max_pclusterblks, both.deflate_windowbits),
        (16, 15)
    );
    // Length 0 is 65536.
    let mut bytes = image(0b0101, &[&LZ4]);
    put(&mut bytes, 1152, &[0, 0]);
    put(&mut bytes, 1152 + 4 + 65536, &6u16.to_le_bytes());
    put(&mut bytes, 1152 + 6 + 65536, &DEFLATE);
    assert_eq!(read(&bytes).expect("a long record").deflate_windowbits, 15);
}

#[test]
fn before_configurations() {
    // LZ4 only, and the field is its distance.
    let read = |features: u32, distance: u16| {
        let mut head = Head::default();
        head.incompat(features).set(84, &distance.to_le_bytes());
        let sb = head.superblock();
        Compression::read(&sb, &Bytes(&head.0)).expect("nothing to refuse")
    };
    let none = read(0, 0);
    assert!(Algorithm::ALL.into_iter().all(|one| !none.has(one)));
    for (features, distance, wanted) in [
        (incompat::LZ4_0PADDING, 0, 65535),
        (incompat::LZ4_0PADDING, 0xFF, 0xFF),
        (0, 0x8000, 0x8000),
    ] {
        let lz4 = read(features, distance);
        assert!(lz4.has(Algorithm::Lz4) && !lz4.has(Algorithm::Zstd));
        assert_eq!(
            (lz4.lz4_max_distance, lz4.lz4_max_pclusterblks),
            (wanted, 1)
        );
    }
}

#[test]
fn limits() {
    let lz4 = |blocks: u16| {
        let mut record = LZ4;
        record[2..4].copy_from_slice(&blocks.to_le_bytes());
        image(1, &[&record])
    };
    // 0 is as good as 1.
    assert_eq!(read(&lz4(0)).expect("a record").lz4_max_pclusterblks, 1);
    assert_eq!(read(&lz4(256)).expect("a record").lz4_max_pclusterblks, 256);
    assert_eq!(read(&lz4(257)).expect_err("2 MiB").kind, Kind::Invalid);

    let lzma = |size: u32, format: u16| {
        let mut record = LZMA;
        record[..4].copy_from_slice(&size.to_le_bytes());
        record[4..6].copy_from_slice(&format.to_le_bytes());
        record
    };
    for size in [4096, 8 << 20] {
        assert!(read(&image(2, &[&lzma(size, 0)])).is_ok());
    }
    for size in [0, 4095, (8 << 20) + 1, u32::MAX] {
        let wanted = (Kind::Invalid, 1154, size.into());
        assert_eq!(refusal(2, &[&lzma(size, 0)]), wanted);
    }
    assert_eq!(refusal(2, &[&lzma(4096, 3)]), (Kind::Invalid, 1154, 3));

    assert_eq!(
        refusal(4, &[&[16, 0, 0, 0, 0, 0]]),
        (Kind::Unsupported, 1154, 16)
    );
    assert!(read(&image(8, &[&[0, 10, 0, 0, 0, 0]])).is_ok());
    assert_eq!(
        refusal(8, &[&[0, 11, 0, 0, 0, 0]]),
        (Kind::Invalid, 1154, 11)
    );
    assert_eq!(refusal(8, &[&[1, 3, 0, 0, 0, 0]]), (Kind::Invalid, 1154, 1));
}

#[test]
fn short_records() {
    assert_eq!(refusal(1, &[&LZ4[..13]]), (Kind::Invalid, 1152, 13));
    assert_eq!(refusal(2, &[&LZMA[..4]]), (Kind::Invalid, 1152, 4));
    assert_eq!(refusal(4, &[&DEFLATE[..5]]), (Kind::Invalid, 1152, 5));
    assert_eq!(refusal(8, &[&ZSTD[..1]]), (Kind::Invalid, 1152, 1));
    // Cut off.
    let mut bytes = image(8, &[&ZSTD]);
    bytes.truncate(1156);
    let sb = Head(image(8, &[&ZSTD])).superblock();
    assert!(Compression::read(&sb, &Bytes(&bytes)).is_err());
}
