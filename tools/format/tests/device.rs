// SPDX-License-Identifier: GPL-2.0

//! The device table, and where an address lands.

mod common;

use common::{put, Head};
use erofs_shared_format::{
    device::{map_dev, DeviceSlot},
    error::Kind,
    superblock::incompat,
    Bytes,
};

fn slot(blocks: u64, uniaddr: u64) -> DeviceSlot {
    DeviceSlot {
        tag: [0; 64],
        blocks,
        uniaddr,
    }
}

#[test]
fn slots() {
    let mut head = Head::default();
    head.incompat(incompat::DEVICE_TABLE)
        .set(86, &2u16.to_le_bytes())
        .set(88, &33u16.to_le_bytes());
    let mut image = Vec::new();
    // DigestSlot 1 of the table is slot 34 of the image.
    put(&mut image, 34 * 128, b"second");
    put(&mut image, 34 * 128 + 64, &0x1111_2222u32.to_le_bytes());
    put(&mut image, 34 * 128 + 68, &0x3333_4444u32.to_le_bytes());
    put(&mut image, 34 * 128 + 72, &0x5555u16.to_le_bytes());
    put(&mut image, 34 * 128 + 74, &0x6666u16.to_le_bytes());
    put(&mut image, 35 * 128 - 1, &[0]);
    let second = DeviceSlot::read(&head.superblock(), 1, &Bytes(&image)).expect("a slot");
    assert_eq!(second.tag(), b"second");
    assert_eq!((second.blocks, second.uniaddr), (0x1111_2222, 0x3333_4444));
    let first = DeviceSlot::read(&head.superblock(), 0, &Bytes(&image)).expect("a slot");
    assert_eq!(first.tag(), b"");
    // The upper halves are there with 48 bits.
    head.incompat(incompat::DEVICE_TABLE | incompat::BIT48);
    let second = DeviceSlot::read(&head.superblock(), 1, &Bytes(&image)).expect("a slot");
    assert_eq!(
        (second.blocks, second.uniaddr),
        (0x5555_1111_2222, 0x6666_3333_4444)
    );
    // A tag without a NUL.
    image[34 * 128..34 * 128 + 64].fill(b'x');
    let second = DeviceSlot::read(&head.superblock(), 1, &Bytes(&image)).expect("a slot");
    assert_eq!(second.tag(), [b'x'; 64]);
    // Not in the image.
    assert!(DeviceSlot::read(&head.superblock(), 2, &Bytes(&image)).is_err());
    image.pop();
    assert!(DeviceSlot::read(&head.superblock(), 1, &Bytes(&image)).is_err());
    // The last slot there can be.
    head.set(88, &u16::MAX.to_le_bytes());
    assert!(DeviceSlot::read(&head.superblock(), u16::MAX, &Bytes(&image)).is_err());
}

#[test]
fn by_device_id() {
    let sb = Head::default().superblock();
    let slots = [slot(10, 100), slot(20, 0)];
    // Each device counts from its own start.
    assert_eq!(map_dev(&sb, &slots, false, 1, 5), Ok((1, 5)));
    assert_eq!(map_dev(&sb, &slots, false, 2, 1 << 62), Ok((2, 1 << 62)));
    // All in one: behind its place there.
    assert_eq!(map_dev(&sb, &slots, true, 1, 5), Ok((0, 100 * 4096 + 5)));
    assert_eq!(map_dev(&sb, &slots, true, 2, 5), Ok((0, 5)));
    for flat in [false, true] {
        for id in [3, u16::MAX] {
            let error = map_dev(&sb, &slots, flat, id, 7).expect_err("no such device");
            assert_eq!((error.kind, error.value), (Kind::NoDevice, id.into()));
        }
    }
}

#[test]
fn by_unified_address() {
    let sb = Head::default().superblock();
    // The second is not in the unified address space.
    let slots = [slot(10, 100), slot(1000, 0), slot(1, 110)];
    let at = |pa| map_dev(&sb, &slots, false, 0, pa);
    assert_eq!(at(0), Ok((0, 0)));
    assert_eq!(at(100 * 4096 - 1), Ok((0, 100 * 4096 - 1)));
    assert_eq!(at(100 * 4096), Ok((1, 0)));
    assert_eq!(at(110 * 4096 - 1), Ok((1, 10 * 4096 - 1)));
    assert_eq!(at(110 * 4096), Ok((3, 0)));
    assert_eq!(at(111 * 4096), Ok((0, 111 * 4096)));
    assert_eq!(at(u64::MAX), Ok((0, u64::MAX)));
    // All in one: nothing is to be found out.
    assert_eq!(
        map_dev(&sb, &slots, true, 0, 105 * 4096),
        Ok((0, 105 * 4096))
    );
    assert_eq!(map_dev(&sb, &[], false, 0, 9), Ok((0, 9)));
}

#[test]
fn hostile_slots() {
    let sb = Head::default().superblock();
    for slots in [[slot(1, u64::MAX)], [slot(u64::MAX, 1)]] {
        let error = map_dev(&sb, &slots, false, 0, 1).expect_err("past 2^63");
        assert_eq!(error.kind, Kind::Corrupted);
    }
    let slots = [slot(1, (1 << 51) - 1)];
    let error = map_dev(&sb, &slots, true, 1, u64::MAX).expect_err("overflow");
    assert_eq!(error.kind, Kind::Corrupted);
}
