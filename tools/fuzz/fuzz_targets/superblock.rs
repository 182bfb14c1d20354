// SPDX-License-Identifier: GPL-2.0

//! The superblock, the device table, and where addresses land.
//!
//! Input: nid, device id and address (18 bytes), then the image from its superblock on.

#![no_main]

use erofs_shared_format::{
    device::{map_dev, DeviceSlot},
    superblock::{incompat_name, Area, Superblock, NID_METABOX},
    HostHash,
};
use erofs_shared_fuzz::{check_error, image_of, mend_head, Counting, Params};
use libfuzzer_sys::fuzz_target;

fn check(sb: &Superblock, nid: u64, device: u16, pa: u64, image: &[u8]) {
    assert!((512..=4096).contains(&sb.block_size()));
    assert_eq!(sb.block_size(), 1 << sb.blkszbits);
    assert!(sb.fixed_nsec < 1_000_000_000);
    assert!(!sb.volume_name().contains(&0));
    assert!(sb.sb_size >= 128 && 1024 + sb.sb_size <= 4096);
    for bit in (0..32).map(|n| 1 << n).filter(|bit| sb.has_incompat(*bit)) {
        assert!(incompat_name(bit).is_some(), "accepted bit {bit:#x}");
    }
    for nid in [nid, sb.root_nid, sb.packed_nid]
        .into_iter()
        .chain(sb.metabox_nid)
    {
        match sb.iloc(nid) {
            Ok((area, pos)) => {
                assert!(pos <= i64::MAX as u64);
                assert_eq!(area == Area::Metabox, nid & NID_METABOX != 0);
                assert_eq!(pos % 32, 0);
            }
            Err(err) => check_error(&err),
        }
        sb.ino(nid);
    }
    // Every device that there is has an id that the mask lets through.
    let mask = sb.device_id_mask();
    assert!((u32::from(mask) + 1).is_power_of_two());
    if sb.has_device_table() {
        assert!(mask >= sb.extra_devices);
    }

    let source = Counting::new(image, 4096);
    let mut slots = Vec::new();
    for index in 0..sb.extra_devices.min(16) {
        match DeviceSlot::read(sb, index, &source) {
            Ok(slot) => {
                assert!(!slot.tag().contains(&0));
                slots.push(slot);
            }
            Err(err) => {
                check_error(&err);
                break;
            }
        }
        assert!(source.reads() <= 2);
    }
    let pa = pa & i64::MAX as u64;
    for flat in [false, true] {
        match map_dev(sb, &slots, flat, device, pa) {
            Ok((index, addr)) => {
                assert!(index <= slots.len());
                assert!(!flat || index == 0);
                let Some(slot) = index.checked_sub(1).map(|index| slots[index]) else {
                    continue;
                };
                if device == 0 {
                    // Found by its range, and so in it.
                    assert!(addr < slot.blocks << sb.blkszbits);
                    assert_eq!((slot.uniaddr << sb.blkszbits) + addr, pa);
                } else {
                    assert_eq!((index, addr), (usize::from(device), pa));
                }
            }
            Err(err) => check_error(&err),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut params = Params(data);
    let nid = params.u64();
    let device = u16::from_le_bytes(params.take());
    let pa = params.u64();
    let image = image_of(params.0);
    // As it is, where most inputs end at the checksum, and with the first checks passed.
    for head in [&image[..image.len().min(4096)], &mend_head(&image)[..]] {
        match Superblock::parse::<HostHash>(head) {
            Ok(sb) => check(&sb, nid, device, pa, &image),
            Err(err) => check_error(&err),
        }
    }
});
