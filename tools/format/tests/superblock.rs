// SPDX-License-Identifier: GPL-2.0

//! What a superblock may hold, and each reason to refuse one.

mod common;

use common::Head;
use erofs_shared_format::{
    error::Kind,
    hash::Hasher,
    superblock::{compat, incompat, incompat_name, Area, Superblock, NID_METABOX},
    HostHash,
};

#[test]
fn fields() {
    let mut head = Head::default();
    head.set(14, &36u16.to_le_bytes())
        .set(16, &0x0102_0304_0506_0708u64.to_le_bytes())
        .set(24, &(-5i64).to_le_bytes())
        .set(32, &999_999_999u32.to_le_bytes())
        .set(36, &77u32.to_le_bytes())
        .set(40, &3u32.to_le_bytes())
        .set(44, &5u32.to_le_bytes())
        .set(48, &[7; 16])
        .set(64, b"label")
        .set(84, &0x1234u16.to_le_bytes())
        .set(86, &2u16.to_le_bytes())
        .set(88, &9u16.to_le_bytes())
        .set(91, &[4])
        .set(92, &0xABCDu32.to_le_bytes())
        .set(96, &55u64.to_le_bytes())
        .set(104, &[1])
        .set(108, &66u32.to_le_bytes());
    let sb = head.superblock();
    assert_eq!(sb.root_nid, 36);
    assert_eq!(sb.inos, 0x0102_0304_0506_0708);
    assert_eq!(sb.epoch, -5);
    assert_eq!(sb.fixed_nsec, 999_999_999);
    assert_eq!(sb.blocks, 77);
    assert_eq!(sb.meta_blkaddr, 3);
    assert_eq!(sb.xattr_blkaddr, 5);
    assert_eq!(sb.uuid, [7; 16]);
    assert_eq!(sb.volume_name(), b"label");
    assert_eq!(sb.available_compr_algs, 0x1234);
    assert_eq!(sb.extra_devices, 2);
    assert_eq!(sb.devt_slotoff, 9);
    assert_eq!(sb.xattr_prefix_count, 4);
    assert_eq!(sb.xattr_prefix_start, 0xABCD);
    assert_eq!(sb.packed_nid, 55);
    assert_eq!(sb.xattr_filter_reserved, 1);
    assert_eq!(sb.build_time, 66);
    assert_eq!(sb.sb_size, 128);
    assert_eq!(sb.metabox_nid, None);
    assert_eq!(sb.ishare_xattr_prefix_id, None);
    assert_eq!(sb.block_size(), 4096);
}

#[test]
fn volume_name_of_all_sixteen_bytes() {
    let mut head = Head::default();
    assert_eq!(head.superblock().volume_name(), b"");
    head.set(64, b"sixteen letters!");
    assert_eq!(head.superblock().volume_name(), b"sixteen letters!");
}

#[test]
fn no_magic() {
    let mut head = Head::default();
    head.set(0, b"nope");
    assert_eq!(
        head.refusal(),
        (
            Kind::NotErofs,
            1024,
            u64::from(u32::from_le_bytes(*b"nope"))
        )
    );
}

#[test]
fn every_shorter_image_is_refused() {
    let head = Head::default();
    for len in 0..1024 + 128 {
        let err = Superblock::parse::<HostHash>(&head.0[..len]).expect_err("too short");
        let expected = match len {
            // Cut fields count as zeros: without a magic it is not EROFS, without a block size not valid.
            0..1028 => Kind::NotErofs,
            1028..1037 => Kind::Invalid,
            _ => Kind::Corrupted,
        };
        assert_eq!(err.kind, expected, "{len} bytes: {err}");
    }
    Superblock::parse::<HostHash>(&head.0[..1024 + 128]).expect("long enough");
}

#[test]
fn block_sizes() {
    for bits in 0..=255u8 {
        let mut head = Head::default();
        head.blkszbits(bits);
        if (9..=12).contains(&bits) {
            assert_eq!(head.superblock().block_size(), 1 << bits);
        } else {
            assert_eq!(head.refusal(), (Kind::Invalid, 1024 + 12, bits.into()));
        }
    }
}

#[test]
fn directory_blocks_of_another_size() {
    let mut head = Head::default();
    head.set(90, &[1]);
    assert_eq!(head.refusal(), (Kind::Invalid, 1024 + 90, 1));
}

#[test]
fn each_incompatible_feature() {
    for shift in 0..32 {
        let bit = 1u32 << shift;
        let mut head = Head::default();
        head.incompat(bit).set(13, &[1]);
        if shift < 9 {
            assert!(incompat_name(bit).is_some());
            let sb = head.superblock();
            assert!(sb.has_incompat(bit));
            assert!(!sb.has_incompat(!bit));
        } else {
            assert_eq!(incompat_name(bit), None);
            assert_eq!(head.refusal(), (Kind::Invalid, 1024 + 80, bit.into()));
        }
    }
    // The error names the unknown bits alone, and says what to do.
    let mut head = Head::default();
    head.incompat(0xC000_0001);
    let error = head.parse().expect_err("unknown features");
    assert_eq!(error.value, 0xC000_0000);
    assert!(error.to_string().contains("a newer module is needed"));
}

#[test]
fn unknown_compatible_features_do_not_matter() {
    let mut head = Head::default();
    head.compat(!compat::SB_CHKSUM & !compat::ISHARE_XATTRS);
    let sb = head.superblock();
    assert!(sb.has_xattr_filter() && sb.plain_xattr_pfx() && sb.shared_ea_in_metabox());
}

#[test]
fn feature_helpers() {
    let plain = Head::default().superblock();
    assert!(!plain.has_48bit() && !plain.has_metabox() && !plain.has_device_table());
    assert!(!plain.has_fragments() && !plain.has_xattr_filter() && !plain.is_compressed());
    let mut head = Head::default();
    head.incompat(
        incompat::BIT48 | incompat::DEVICE_TABLE | incompat::FRAGMENTS | incompat::COMPR_CFGS,
    );
    let sb = head.superblock();
    assert!(sb.has_48bit() && sb.has_device_table() && sb.has_fragments());
    // Configurations, but none is there.
    assert!(!sb.is_compressed());
    head.set(84, &[1]);
    assert!(head.superblock().is_compressed());
}

#[test]
fn unknown_compression_algorithms() {
    let mut head = Head::default();
    head.incompat(incompat::COMPR_CFGS).set(84, &[0x0F]);
    assert_eq!(head.superblock().available_compr_algs, 0x0F);
    for shift in 4..16 {
        let bit = 1u16 << shift;
        head.set(84, &(bit | 1).to_le_bytes());
        assert_eq!(
            head.refusal(),
            (Kind::Unsupported, 1024 + 84, u64::from(bit))
        );
    }
    // Without configurations the field is the LZ4 maximum distance.
    head.incompat(incompat::LZ4_0PADDING)
        .set(84, &0xFFFF_u16.to_le_bytes());
    assert!(head.superblock().is_compressed());
}

#[test]
fn checksum_for_each_block_size() {
    for (bits, end) in [(9, 1024 + 512), (10, 2048), (11, 2048), (12, 4096)] {
        let mut head = Head::default();
        head.compat(compat::SB_CHKSUM).blkszbits(bits).sign(end);
        head.superblock();
        // A byte within.
        let good = head.0[end - 1];
        head.0[end - 1] ^= 1;
        let (kind, pos, _) = head.refusal();
        assert_eq!((kind, pos), (Kind::Checksum, 1028), "block bits {bits}");
        head.0[end - 1] = good;
        // The first byte behind does not count, nor does what is before the superblock.
        if end < head.0.len() {
            head.0[end] ^= 1;
        }
        head.0[0] ^= 1;
        head.superblock();
        // An image that ends within what is signed.
        head.0.truncate(end - 1);
        assert_eq!(head.refusal().0, Kind::Checksum);
    }
}

#[test]
fn crc_as_in_linux() {
    // The check value of CRC-32C over "123456789" is 0xE3069283, with inversion at both ends.
    assert_eq!(!HostHash::crc32c(!0, b"123456789"), 0xE306_9283);
}

#[test]
fn extension_slots() {
    let mut head = Head::default();
    head.set(13, &[184]);
    assert_eq!(head.superblock().sb_size, 3072);
    head.set(13, &[185]);
    assert_eq!(head.refusal(), (Kind::Invalid, 1024 + 13, 185));
    head.set(13, &[255]);
    assert_eq!(head.refusal(), (Kind::Invalid, 1024 + 13, 255));
}

#[test]
fn metabox() {
    let mut head = Head::default();
    head.incompat(incompat::METABOX)
        .set(128, &99u64.to_le_bytes());
    assert_eq!(head.refusal(), (Kind::Corrupted, 1024 + 13, 0));
    head.set(13, &[1]);
    assert_eq!(head.superblock().metabox_nid, Some(99));
    // The metabox cannot lie in itself.
    let nid = 99 | NID_METABOX;
    head.set(128, &nid.to_le_bytes());
    assert_eq!(head.refusal(), (Kind::Corrupted, 1024 + 128, nid));
}

#[test]
fn fingerprints_need_their_prefix() {
    let mut head = Head::default();
    head.compat(compat::ISHARE_XATTRS)
        .set(91, &[3])
        .set(105, &[2]);
    assert_eq!(head.superblock().ishare_xattr_prefix_id, Some(2));
    head.set(105, &[3]);
    assert_eq!(head.refusal(), (Kind::Corrupted, 1024 + 105, 3));
    head.set(91, &[0]).set(105, &[0]);
    assert_eq!(head.refusal().0, Kind::Corrupted);
}

#[test]
fn nanoseconds() {
    let mut head = Head::default();
    head.set(32, &1_000_000_000u32.to_le_bytes());
    assert_eq!(head.refusal(), (Kind::Corrupted, 1024 + 32, 1_000_000_000));
}

#[test]
fn root_and_blocks_with_48_bits() {
    let mut head = Head::default();
    head.set(14, &5u16.to_le_bytes())
        .set(36, &u32::MAX.to_le_bytes());
    head.set(112, &0x1_0000_0001u64.to_le_bytes());
    // Without the feature the field is not there.
    let sb = head.superblock();
    assert_eq!((sb.root_nid, sb.blocks), (5, 0xFFFF_FFFF));
    head.incompat(incompat::BIT48);
    let sb = head.superblock();
    assert_eq!((sb.root_nid, sb.blocks), (0x1_0000_0001, 0x5_FFFF_FFFF));
    // Zero: the old fields hold.
    head.set(112, &[0; 8]);
    let sb = head.superblock();
    assert_eq!((sb.root_nid, sb.blocks), (5, 0xFFFF_FFFF));
}

#[test]
fn inode_numbers() {
    let sb = Head::default().superblock();
    assert_eq!(sb.ino(0x1234_5678_9ABC_DEF0), 0x1234_5678_9ABC_DEF0);
    let mut head = Head::default();
    head.incompat(incompat::METABOX).set(13, &[1]);
    let sb = head.superblock();
    assert_eq!(sb.ino(0), 0);
    assert_eq!(sb.ino(0x7FFF_FFFF), 0x7FFF_FFFF);
    assert_eq!(sb.ino(0x8000_0000), 0x1_0000_0000);
    assert_eq!(sb.ino(NID_METABOX), 0x8000_0000);
    assert_eq!(sb.ino(NID_METABOX | 0x7FFF_FFFF), 0xFFFF_FFFF);
    assert_eq!(sb.ino(NID_METABOX | 0x8000_0000), 0x1_8000_0000);
    assert_eq!(sb.ino(u64::MAX), u64::MAX);
}

#[test]
fn inode_locations() {
    let sb = Head::default().superblock();
    assert_eq!(sb.iloc(0), Ok((Area::Image, 4096)));
    assert_eq!(sb.iloc(3), Ok((Area::Image, 4096 + 96)));
    let kind = |nid| sb.iloc(nid).expect_err("no such place").kind;
    assert_eq!(kind(NID_METABOX), Kind::Corrupted);
    assert_eq!(kind(NID_METABOX - 1), Kind::Corrupted);
    assert_eq!(kind(1 << 58), Kind::Corrupted);
    // The largest offset fits, but not behind a block.
    assert_eq!(kind((1 << 58) - 1), Kind::Corrupted);
    let mut head = Head::default();
    head.set(40, &[0; 4]);
    assert_eq!(
        head.superblock().iloc((1 << 58) - 1),
        Ok((Area::Image, (1 << 63) - 32))
    );
    head.set(40, &u32::MAX.to_le_bytes());
    assert_eq!(
        head.superblock().iloc(1),
        Ok((Area::Image, 0xFFFF_FFFF * 4096 + 32))
    );
    head.incompat(incompat::METABOX).set(13, &[1]);
    assert_eq!(
        head.superblock().iloc(NID_METABOX | 2),
        Ok((Area::Metabox, 64))
    );
}

#[test]
fn block_positions() {
    let sb = Head::default().superblock();
    assert_eq!(sb.block_pos(2), Ok(8192));
    let last = (1 << 51) - 1;
    assert_eq!(sb.block_pos(last), Ok(last * 4096));
    for block in [1 << 51, 1 << 52, u64::MAX] {
        let error = sb.block_pos(block).expect_err("past 2^63");
        assert_eq!((error.kind, error.value), (Kind::Corrupted, block));
    }
}

#[test]
fn device_id_masks() {
    let mut head = Head::default();
    head.set(86, &1u16.to_le_bytes());
    // Without the feature there is no table.
    assert_eq!(head.superblock().device_id_mask(), 0);
    head.incompat(incompat::DEVICE_TABLE);
    for (count, mask) in [
        (0u16, 0),
        (1, 1),
        (2, 3),
        (3, 3),
        (4, 7),
        (255, 255),
        (256, 511),
        (32767, 32767),
        (32768, 65535),
        (65535, 65535),
    ] {
        head.set(86, &count.to_le_bytes());
        assert_eq!(head.superblock().device_id_mask(), mask, "{count} devices");
    }
}
