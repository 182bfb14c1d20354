// SPDX-License-Identifier: GPL-2.0

//! The device table: `struct erofs_deviceslot`, and where an address lands.

use super::{
    error::{Error, Kind},
    ondisk::RawDeviceSlot,
    source::{read_raw, Source},
    superblock::Superblock,
};

/// Size of a slot in bytes.
pub const DEVICE_SLOT_SIZE: u64 = size_of::<RawDeviceSlot>() as u64;

/// One extra device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSlot {
    /// Its name or digest.
    pub tag: [u8; 64],
    /// Its size in blocks.
    pub blocks: u64,
    /// Its first block in the unified address space; 0 if it is not in it.
    pub uniaddr: u64,
}

impl DeviceSlot {
    /// Reads slot `index` (from 0) of the table.
    pub fn read<S: Source>(sb: &Superblock, index: u16, src: &S) -> Result<Self, S::Error> {
        let pos = (u64::from(sb.devt_slotoff) + u64::from(index)) * DEVICE_SLOT_SIZE;
        let raw: RawDeviceSlot = read_raw(src, pos)?;
        let mut blocks = u64::from(raw.blocks_lo);
        let mut uniaddr = u64::from(raw.uniaddr_lo);
        if sb.has_48bit() {
            blocks |= u64::from(raw.blocks_hi) << 32;
            uniaddr |= u64::from(raw.uniaddr_hi) << 32;
        }
        Ok(Self {
            tag: raw.tag,
            blocks,
            uniaddr,
        })
    }

    /// The tag without padding.
    pub fn tag(&self) -> &[u8] {
        let len = self.tag.iter().position(|byte| *byte == 0);
        self.tag.get(..len.unwrap_or(self.tag.len())).unwrap_or(&[])
    }
}

/// Where a byte address lands: the device (0 is the primary one, `i` is `slots[i - 1]`) and the
/// byte on it. With `flat`, all data is on the primary device, in the unified address space.
///
/// # Errors
///
/// `NoDevice` for an id without a slot.
pub fn map_dev(
    sb: &Superblock,
    slots: &[DeviceSlot],
    flat: bool,
    device_id: u16,
    pa: u64,
) -> Result<(usize, u64), Error> {
    if let Some(index) = usize::from(device_id).checked_sub(1) {
        let slot = slots.get(index).ok_or(Error::new(
            Kind::NoDevice,
            "device_id without a slot in the device table",
            pa,
            u64::from(device_id),
        ))?;
        if !flat {
            return Ok((index + 1, pa));
        }
        let start = sb.block_pos(slot.uniaddr)?;
        let addr =
            start
                .checked_add(pa)
                .ok_or(Error::corrupted("unified address", pa, slot.uniaddr))?;
        return Ok((0, addr));
    }
    if flat {
        return Ok((0, pa));
    }
    for (index, slot) in slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.uniaddr != 0)
    {
        let start = sb.block_pos(slot.uniaddr)?;
        let len = sb.block_pos(slot.blocks)?;
        if let Some(offset) = pa.checked_sub(start).filter(|offset| *offset < len) {
            return Ok((index + 1, offset));
        }
    }
    Ok((0, pa))
}
