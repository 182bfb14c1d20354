// SPDX-License-Identifier: GPL-2.0

//! The superblock: `struct erofs_super_block`, 128 bytes at byte 1024, and 16 for each extension
//! slot.

use core::mem::offset_of;

use zerocopy::{FromZeros, IntoBytes};

use super::{
    error::{Error, Kind, UNKNOWN_INCOMPAT},
    hash::Hasher,
    ondisk::RawSuperblock,
};

/// Byte offset of the superblock, `EROFS_SUPER_OFFSET`.
pub const SUPER_OFFSET: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1`
pub const SUPER_MAGIC: u32 = 0xE0F5_E1E2;

/// Largest page of the kernels that this runs on; a block is not larger.
const MAX_BLKSZBITS: u8 = 12;
const SB_BASE_SIZE: u32 = 128;
const EXTSLOT_SIZE: u32 = 16;
/// `Z_EROFS_ALL_COMPR_ALGS`: LZ4, LZMA, DEFLATE and Zstandard.
const COMPR_ALGS_ALL: u16 = 0xF;
/// Seed of the superblock's checksum: the CRC of the magic and of four zero bytes (its own place).
const CHECKSUM_SEED: u32 = 0x5045_B54A;

/// Bit 63 of a nid: the inode lies in the metabox.
pub const NID_METABOX: u64 = 1 << 63;
/// Size of an inode slot (compact inode).
const ISLOT_BITS: u32 = 5;

/// `EROFS_FEATURE_COMPAT_*`
pub mod compat {
    #![allow(missing_docs)]
    pub const SB_CHKSUM: u32 = 0x01;
    pub const MTIME: u32 = 0x02;
    pub const XATTR_FILTER: u32 = 0x04;
    pub const SHARED_EA_IN_METABOX: u32 = 0x08;
    pub const PLAIN_XATTR_PFX: u32 = 0x10;
    pub const ISHARE_XATTRS: u32 = 0x20;
}

/// `EROFS_FEATURE_INCOMPAT_*`
pub mod incompat {
    #![allow(missing_docs)]
    pub const LZ4_0PADDING: u32 = 0x001;
    pub const COMPR_CFGS: u32 = 0x002;
    pub const CHUNKED_FILE: u32 = 0x004;
    pub const DEVICE_TABLE: u32 = 0x008;
    pub const ZTAILPACKING: u32 = 0x010;
    pub const FRAGMENTS: u32 = 0x020;
    pub const XATTR_PREFIXES: u32 = 0x040;
    pub const BIT48: u32 = 0x080;
    pub const METABOX: u32 = 0x100;
    /// All that Linux 7.3 knows.
    pub const ALL: u32 = (METABOX << 1) - 1;
}

/// Name of an incompatible feature bit, as upstream calls it.
pub fn incompat_name(bit: u32) -> Option<&'static str> {
    Some(match bit {
        incompat::LZ4_0PADDING => "lz4_0padding",
        incompat::COMPR_CFGS => "compr_cfgs/big_pcluster",
        incompat::CHUNKED_FILE => "chunked_file",
        incompat::DEVICE_TABLE => "device_table/compr_head2",
        incompat::ZTAILPACKING => "ztailpacking",
        incompat::FRAGMENTS => "fragments/dedupe",
        incompat::XATTR_PREFIXES => "xattr_prefixes",
        incompat::BIT48 => "48bit",
        incompat::METABOX => "metabox",
        _ => return None,
    })
}

/// An area of an image that inodes lie in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Area {
    /// The primary device.
    Image,
    /// The data of the metabox inode.
    Metabox,
}

/// A checked superblock. Field names are upstream's.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Block size as a power of two, 9 to 12.
    pub blkszbits: u8,
    /// Compatible features.
    pub feature_compat: u32,
    /// Incompatible features, all known.
    pub feature_incompat: u32,
    /// nid of the root directory.
    pub root_nid: u64,
    /// nid of the packed inode; 0 if there is none.
    pub packed_nid: u64,
    /// nid of the metabox inode; outside of the metabox itself.
    pub metabox_nid: Option<u64>,
    /// Number of inodes.
    pub inos: u64,
    /// Base of compact inodes' times, seconds.
    pub epoch: i64,
    /// Nanoseconds of compact inodes' times, below 1e9.
    pub fixed_nsec: u32,
    /// Blocks on the primary device.
    pub blocks: u64,
    /// First block of the inodes.
    pub meta_blkaddr: u32,
    /// First block of the shared xattrs.
    pub xattr_blkaddr: u32,
    /// Start of the long xattr prefixes, in 4-byte units.
    pub xattr_prefix_start: u32,
    /// Number of long xattr prefixes.
    pub xattr_prefix_count: u8,
    /// Reserved byte of the xattr name filter; the filter is only used if it is 0.
    pub xattr_filter_reserved: u8,
    /// The long prefix of fingerprint xattrs.
    pub ishare_xattr_prefix_id: Option<u8>,
    /// Volume UUID.
    pub uuid: [u8; 16],
    /// Volume label, padded with NULs.
    pub volume_name: [u8; 16],
    /// Devices besides the primary one.
    pub extra_devices: u16,
    /// Start of the device table, in 128-byte slots.
    pub devt_slotoff: u16,
    /// Compression algorithms (`COMPR_CFGS`), else the LZ4 maximum distance.
    pub available_compr_algs: u16,
    /// Stored checksum.
    pub checksum: u32,
    /// Time of mkfs, seconds after `epoch`.
    pub build_time: u32,
    /// Size of the superblock in bytes.
    pub sb_size: u32,
}

/// Byte of the image at which a field of the superblock is.
fn pos_of(field: usize) -> u64 {
    (SUPER_OFFSET + field) as u64
}

/// Whether an incompatible feature is on.
fn has(raw: &RawSuperblock, bit: u32) -> bool {
    raw.feature_incompat.get() & bit != 0
}

/// Checks that this is a superblock, and returns the logarithm of the block size.
fn block_bits(raw: &RawSuperblock) -> Result<u8, Error> {
    let magic = raw.magic.get();
    if magic != SUPER_MAGIC {
        return Err(Error::new(
            Kind::NotErofs,
            "no EROFS superblock (magic)",
            pos_of(offset_of!(RawSuperblock, magic)),
            u64::from(magic),
        ));
    }
    let blkszbits = raw.blkszbits;
    if !(9..=MAX_BLKSZBITS).contains(&blkszbits) {
        return Err(Error::new(
            Kind::Invalid,
            "blkszbits is not supported",
            pos_of(offset_of!(RawSuperblock, blkszbits)),
            u64::from(blkszbits),
        ));
    }
    let dirblkbits = raw.dirblkbits;
    if dirblkbits != 0 {
        return Err(Error::new(
            Kind::Invalid,
            "dirblkbits is not supported",
            pos_of(offset_of!(RawSuperblock, dirblkbits)),
            u64::from(dirblkbits),
        ));
    }
    Ok(blkszbits)
}

/// Returns the incompatible features, which are all known.
fn incompat_features(raw: &RawSuperblock) -> Result<u32, Error> {
    let feature_incompat = raw.feature_incompat.get();
    let unknown = feature_incompat & !incompat::ALL;
    if unknown != 0 {
        return Err(Error::new(
            Kind::Invalid,
            UNKNOWN_INCOMPAT,
            pos_of(offset_of!(RawSuperblock, feature_incompat)),
            u64::from(unknown),
        ));
    }
    Ok(feature_incompat)
}

/// Returns the size of the superblock in bytes.
fn size(raw: &RawSuperblock) -> Result<u32, Error> {
    let extslots = raw.sb_extslots;
    let sb_size = SB_BASE_SIZE + u32::from(extslots) * EXTSLOT_SIZE;
    if sb_size > (1 << MAX_BLKSZBITS) - SUPER_OFFSET as u32 {
        return Err(Error::new(
            Kind::Invalid,
            "sb_extslots: more than a block",
            pos_of(offset_of!(RawSuperblock, sb_extslots)),
            u64::from(extslots),
        ));
    }
    Ok(sb_size)
}

/// Returns the compression algorithms, or the LZ4 maximum distance.
fn algorithms(raw: &RawSuperblock) -> Result<u16, Error> {
    let available_compr_algs = raw.available_compr_algs.get();
    let unknown = available_compr_algs & !COMPR_ALGS_ALL;
    if has(raw, incompat::COMPR_CFGS) && unknown != 0 {
        return Err(Error::new(
            Kind::Unsupported,
            "available_compr_algs: unknown algorithms",
            pos_of(offset_of!(RawSuperblock, available_compr_algs)),
            u64::from(unknown),
        ));
    }
    Ok(available_compr_algs)
}

/// Returns the long prefix of fingerprint xattrs, if there is one.
fn ishare_prefix(raw: &RawSuperblock) -> Result<Option<u8>, Error> {
    if raw.feature_compat.get() & compat::ISHARE_XATTRS == 0 {
        return Ok(None);
    }
    let ishare_id = raw.ishare_xattr_prefix_id;
    if ishare_id >= raw.xattr_prefix_count {
        return Err(Error::corrupted(
            "ishare_xattr_prefix_id",
            pos_of(offset_of!(RawSuperblock, ishare_xattr_prefix_id)),
            u64::from(ishare_id),
        ));
    }
    Ok(Some(ishare_id))
}

/// Returns the nid of the root directory, and the blocks on the primary device.
fn root_and_blocks(raw: &RawSuperblock) -> (u64, u64) {
    let blocks_lo = u64::from(raw.blocks_lo);
    let rootnid_8b = raw.rootnid_8b.get();
    if has(raw, incompat::BIT48) && rootnid_8b != 0 {
        let blocks_hi = u64::from(raw.blocks_hi());
        return (rootnid_8b, blocks_lo | (blocks_hi << 32));
    }
    (u64::from(raw.rootnid_2b), blocks_lo)
}

/// Returns the nid of the metabox inode, if there is one.
fn metabox(raw: &RawSuperblock, sb_size: u32) -> Result<Option<u64>, Error> {
    if !has(raw, incompat::METABOX) {
        return Ok(None);
    }
    let nid = raw.metabox_nid.get();
    if sb_size <= SB_BASE_SIZE {
        return Err(Error::corrupted(
            "metabox without room for metabox_nid",
            pos_of(offset_of!(RawSuperblock, sb_extslots)),
            u64::from(raw.sb_extslots),
        ));
    }
    if nid & NID_METABOX != 0 {
        return Err(Error::corrupted(
            "metabox_nid in the metabox",
            pos_of(offset_of!(RawSuperblock, metabox_nid)),
            nid,
        ));
    }
    Ok(Some(nid))
}

/// Returns the superblock as it is stored, with zeros for what is not there.
fn padded(stored: &[u8]) -> RawSuperblock {
    let mut raw = RawSuperblock::new_zeroed();
    let bytes = raw.as_mut_bytes();
    let len = stored.len().min(bytes.len());
    if let (Some(to), Some(from)) = (bytes.get_mut(..len), stored.get(..len)) {
        to.copy_from_slice(from);
    }
    raw
}

/// Returns the nanoseconds of the times of compact inodes.
fn fixed_nsec(raw: &RawSuperblock) -> Result<u32, Error> {
    let nsec = raw.fixed_nsec.get();
    if nsec >= 1_000_000_000 {
        let pos = pos_of(offset_of!(RawSuperblock, fixed_nsec));
        return Err(Error::corrupted("fixed_nsec", pos, u64::from(nsec)));
    }
    Ok(nsec)
}

impl Superblock {
    /// Reads and checks the superblock in the first 4096 bytes of an image (or all, if it is
    /// smaller).
    ///
    /// # Errors
    ///
    /// `NotErofs`, `Invalid`, `Checksum`, `Corrupted`; unknown incompatible features are `Invalid`,
    /// unknown compression algorithms `Unsupported`.
    pub fn parse<H: Hasher>(head: &[u8]) -> Result<Self, Error> {
        let stored = head.get(SUPER_OFFSET..).unwrap_or(&[]);
        let raw = &padded(stored);
        let blkszbits = block_bits(raw)?;
        let feature_compat = raw.feature_compat.get();
        let checksum = raw.checksum.get();
        if feature_compat & compat::SB_CHKSUM != 0 {
            check::<H>(head, blkszbits, checksum)?;
        }
        let feature_incompat = incompat_features(raw)?;
        let sb_size = size(raw)?;
        if stored.len() < SB_BASE_SIZE as usize {
            return Err(Error::corrupted(
                "image too short",
                pos_of(offset_of!(RawSuperblock, magic)),
                head.len() as u64,
            ));
        }
        let available_compr_algs = algorithms(raw)?;
        let ishare_xattr_prefix_id = ishare_prefix(raw)?;
        let (root_nid, blocks) = root_and_blocks(raw);
        let metabox_nid = metabox(raw, sb_size)?;
        let fixed_nsec = fixed_nsec(raw)?;
        Ok(Self {
            blkszbits,
            feature_compat,
            feature_incompat,
            root_nid,
            packed_nid: raw.packed_nid.get(),
            metabox_nid,
            inos: raw.inos.get(),
            epoch: raw.epoch.get() as i64,
            fixed_nsec,
            blocks,
            meta_blkaddr: raw.meta_blkaddr.get(),
            xattr_blkaddr: raw.xattr_blkaddr.get(),
            xattr_prefix_start: raw.xattr_prefix_start.get(),
            xattr_prefix_count: raw.xattr_prefix_count,
            xattr_filter_reserved: raw.xattr_filter_reserved,
            ishare_xattr_prefix_id,
            uuid: raw.uuid,
            volume_name: raw.volume_name,
            extra_devices: raw.extra_devices.get(),
            devt_slotoff: raw.devt_slotoff.get(),
            available_compr_algs,
            checksum,
            build_time: raw.build_time.get(),
            sb_size,
        })
    }

    /// Whether an incompatible feature is on.
    pub fn has_incompat(&self, bit: u32) -> bool {
        self.feature_incompat & bit != 0
    }

    /// Whether a compatible feature is on.
    pub fn has_compat(&self, bit: u32) -> bool {
        self.feature_compat & bit != 0
    }

    /// 48-bit block addresses.
    pub fn has_48bit(&self) -> bool {
        self.has_incompat(incompat::BIT48)
    }

    /// Inodes in a metabox.
    pub fn has_metabox(&self) -> bool {
        self.has_incompat(incompat::METABOX)
    }

    /// A table of extra devices.
    pub fn has_device_table(&self) -> bool {
        self.has_incompat(incompat::DEVICE_TABLE)
    }

    /// A packed inode, perhaps.
    pub fn has_fragments(&self) -> bool {
        self.has_incompat(incompat::FRAGMENTS)
    }

    /// The xattr name filter is filled.
    pub fn has_xattr_filter(&self) -> bool {
        self.has_compat(compat::XATTR_FILTER)
    }

    /// Long xattr prefixes are in the image itself.
    pub fn plain_xattr_pfx(&self) -> bool {
        self.has_compat(compat::PLAIN_XATTR_PFX)
    }

    /// Shared xattrs are in the metabox.
    pub fn shared_ea_in_metabox(&self) -> bool {
        self.has_compat(compat::SHARED_EA_IN_METABOX)
    }

    /// Compressed inodes are allowed: as upstream, LZ4 without configurations always counts.
    pub fn is_compressed(&self) -> bool {
        if self.has_incompat(incompat::COMPR_CFGS) {
            self.available_compr_algs != 0
        } else {
            // The field is the LZ4 maximum distance then.
            self.available_compr_algs != 0 || self.has_incompat(incompat::LZ4_0PADDING)
        }
    }

    /// Block size in bytes, 512 to 4096.
    pub fn block_size(&self) -> u32 {
        // `blkszbits` is at most 12; written so that the compiler need not know.
        1u32.wrapping_shl(self.blkszbits.into())
    }

    /// Volume label, without padding.
    pub fn volume_name(&self) -> &[u8] {
        let len = self
            .volume_name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(self.volume_name.len());
        self.volume_name.get(..len).unwrap_or(&[])
    }

    /// Byte position of a block; an error past 2^63.
    pub fn block_pos(&self, block: u64) -> Result<u64, Error> {
        block
            .checked_mul(u64::from(self.block_size()))
            .filter(|pos| *pos <= i64::MAX as u64)
            .ok_or(Error::corrupted("block address", 0, block))
    }

    /// Inode number of a nid: the nid, with the metabox flag moved to bit 31.
    pub fn ino(&self, nid: u64) -> u64 {
        if !self.has_metabox() {
            return nid;
        }
        ((nid << 1) & 0xFFFF_FFFF_0000_0000) | (nid & 0x7FFF_FFFF) | ((nid >> 63) << 31)
    }

    /// Area and byte position of an inode.
    pub fn iloc(&self, nid: u64) -> Result<(Area, u64), Error> {
        let bad = Error::corrupted("nid out of range", 0, nid);
        let offset = (nid & !NID_METABOX)
            .checked_mul(1 << ISLOT_BITS)
            .filter(|pos| *pos <= i64::MAX as u64)
            .ok_or(bad)?;
        if nid & NID_METABOX != 0 {
            if !self.has_metabox() {
                return Err(Error::corrupted(
                    "nid in a metabox that is not there",
                    0,
                    nid,
                ));
            }
            return Ok((Area::Metabox, offset));
        }
        let pos = self
            .block_pos(u64::from(self.meta_blkaddr))?
            .checked_add(offset)
            .filter(|pos| *pos <= i64::MAX as u64)
            .ok_or(bad)?;
        Ok((Area::Image, pos))
    }

    /// The bits of a chunk's device id that count.
    pub fn device_id_mask(&self) -> u16 {
        if !self.has_device_table() || self.extra_devices == 0 {
            return 0;
        }
        let count = u32::from(self.extra_devices) + 1;
        (count.next_power_of_two() - 1) as u16
    }
}

/// Compares the checksum over the rest of the superblock's block.
fn check<H: Hasher>(head: &[u8], blkszbits: u8, stored: u32) -> Result<(), Error> {
    let block = 1usize << blkszbits;
    let end = if block > SUPER_OFFSET {
        block
    } else {
        SUPER_OFFSET + block
    };
    let bad = |value: u32| {
        Error::new(
            Kind::Checksum,
            "superblock checksum",
            pos_of(offset_of!(RawSuperblock, checksum)),
            u64::from(value),
        )
    };
    let bytes = head
        .get(SUPER_OFFSET + offset_of!(RawSuperblock, feature_compat)..end)
        .ok_or(bad(0))?;
    let crc = H::crc32c(CHECKSUM_SEED, bytes);
    if crc == stored {
        Ok(())
    } else {
        Err(bad(crc))
    }
}
