// SPDX-License-Identifier: GPL-2.0

//! The on-disk structures: each field once, at its place, with its name and what its value names.
//!
//! They are laid out as a hex dump is: an empty line is behind each 16 bytes. Structures and fields
//! are named as in the kernel's `fs/erofs/erofs_fs.h`. A union is a field with one of its meanings,
//! and a method for each of the others.
//!
//! Parsers have no other way to read an image. On the host, `tools/mutate` goes through [`ALL`] and
//! exchanges each value for others of its kind; a field that is added here is mutated from then on.

use core::mem::offset_of;

use zerocopy::{
    little_endian::{U16, U32, U64},
    transmute_ref, IntoBytes,
};

use super::field::{bits, field, structures, Bits, Word};
pub use super::field::{Field, Names, Raw, Structure};

structures! {
    /// `struct erofs_super_block` with its first extension slot
    pub struct RawSuperblock: "erofs_super_block", 144 {
        magic: U32 => Magic,
        checksum: U32 => Checksum,
        feature_compat: U32 => Flags,
        blkszbits: u8 => Log2,
        sb_extslots: u8 => Count,
        rootnid_2b: U16 => Nid { blocks_hi: u16 => BlockHigh },

        inos: U64 => Count,
        epoch: U64 => Time,

        fixed_nsec: U32 => Time,
        blocks_lo: U32 => Block,
        meta_blkaddr: U32 => Block,
        xattr_blkaddr: U32 => Block,

        uuid: [u8; 16] => Bytes,

        volume_name: [u8; 16] => Bytes,

        feature_incompat: U32 => Flags,
        available_compr_algs: U16 => Flags { lz4_max_distance: u16 => Length },
        extra_devices: U16 => Count,
        devt_slotoff: U16 => Offset,
        dirblkbits: u8 => Log2,
        xattr_prefix_count: u8 => Count,
        xattr_prefix_start: U32 => Offset,

        packed_nid: U64 => Nid,
        xattr_filter_reserved: u8 => Flags,
        ishare_xattr_prefix_id: u8 => XattrPrefix,
        reserved: U16 => Reserved,
        build_time: U32 => Time,

        rootnid_8b: U64 => Nid,
        reserved2: U64 => Reserved,

        metabox_nid: U64 => Nid,
        reserved3: U64 => Reserved,
    }

    /// `struct erofs_deviceslot`
    pub struct RawDeviceSlot: "erofs_deviceslot", 128 {
        tag: [u8; 64] => Bytes,

        blocks_lo: U32 => Block,
        uniaddr_lo: U32 => Block,
        blocks_hi: U16 => BlockHigh,
        uniaddr_hi: U16 => BlockHigh,
        reserved: [u8; 52] => Reserved,
    }

    /// `struct erofs_inode_compact`
    pub struct RawInodeCompact: "erofs_inode_compact", 32 {
        i_format: U16 => Flags { version: u16 @ 0, 1 => Enum, layout: u16 @ 1, 3 => Layout },
        i_xattr_icount: U16 => Count,
        i_mode: U16 => Mode,
        i_nb: U16 => Count { blocks_hi: u16 => BlockHigh },
        i_size: U32 => Length,
        i_mtime: U32 => Time,

        i_u: U32 => Block {
            chunk_format: u16 @ 0, 16 => Flags,
            chunk_bits: u16 @ 0, 5 => Log2,
            rdev: u32 => DeviceNumber,
        },
        i_ino: U32 => Reserved,
        i_uid: U16 => Owner,
        i_gid: U16 => Owner,
        i_reserved: U32 => Reserved,
    }

    /// `struct erofs_inode_extended`
    pub struct RawInodeExtended: "erofs_inode_extended", 64 {
        i_format: U16 => Flags { version: u16 @ 0, 1 => Enum, layout: u16 @ 1, 3 => Layout },
        i_xattr_icount: U16 => Count,
        i_mode: U16 => Mode,
        i_nb: U16 => BlockHigh,
        i_size: U64 => Length,

        i_u: U32 => Block {
            chunk_format: u16 @ 0, 16 => Flags,
            chunk_bits: u16 @ 0, 5 => Log2,
            rdev: u32 => DeviceNumber,
        },
        i_ino: U32 => Reserved,
        i_uid: U32 => Owner,
        i_gid: U32 => Owner,

        i_mtime: U64 => Time,
        i_mtime_nsec: U32 => Time,
        i_nlink: U32 => Count,

        i_reserved2: [u8; 16] => Reserved,
    }

    /// `struct erofs_xattr_ibody_header`
    pub struct RawXattrIbodyHeader: "erofs_xattr_ibody_header", 12 {
        h_name_filter: U32 => Flags,
        h_shared_count: u8 => Count,
        h_reserved2: [u8; 7] => Reserved,
    }

    /// One of `h_shared_xattrs`
    pub struct RawSharedXattr: "h_shared_xattrs", 4 {
        id: U32 => XattrId,
    }

    /// `struct erofs_xattr_entry`
    pub struct RawXattrEntry: "erofs_xattr_entry", 4 {
        e_name_len: u8 => Length,
        e_name_index: u8 => XattrPrefix,
        e_value_size: U16 => Length,
    }

    /// `struct erofs_xattr_long_prefix`, with the length before it
    pub struct RawXattrLongPrefix: "erofs_xattr_long_prefix", 3 {
        length: U16 => Length,
        base_index: u8 => XattrPrefix,
    }

    /// `struct erofs_dirent`
    pub struct RawDirent: "erofs_dirent", 12 {
        nid: U64 => Nid,
        nameoff: U16 => Offset,
        file_type: u8 => FileType,
        reserved: u8 => Reserved,
    }

    /// An entry of a chunk-based inode's plain block map
    pub struct RawChunkBlock: "chunk block", 4 {
        blkaddr: U32 => Block,
    }

    /// `struct erofs_inode_chunk_index`
    pub struct RawChunkIndex: "erofs_inode_chunk_index", 8 {
        startblk_hi: U16 => BlockHigh,
        device_id: U16 => DeviceSlot,
        startblk_lo: U32 => Block,
    }

    /// The length before each compression configuration
    pub struct RawComprCfgLength: "compression configuration", 2 {
        length: U16 => Length,
    }

    /// `struct z_erofs_lz4_cfgs`
    pub struct RawLz4Cfgs: "z_erofs_lz4_cfgs", 14 {
        max_distance: U16 => Length,
        max_pclusterblks: U16 => Length,
        reserved: [u8; 10] => Reserved,
    }

    /// `struct z_erofs_lzma_cfgs`
    pub struct RawLzmaCfgs: "z_erofs_lzma_cfgs", 14 {
        dict_size: U32 => Length,
        format: U16 => Enum,
        reserved: [u8; 8] => Reserved,
    }

    /// `struct z_erofs_deflate_cfgs`
    pub struct RawDeflateCfgs: "z_erofs_deflate_cfgs", 6 {
        windowbits: u8 => Log2,
        reserved: [u8; 5] => Reserved,
    }

    /// `struct z_erofs_zstd_cfgs`
    pub struct RawZstdCfgs: "z_erofs_zstd_cfgs", 6 {
        format: u8 => Enum,
        windowlog: u8 => Log2,
        reserved: [u8; 4] => Reserved,
    }

    /// `struct z_erofs_map_header`
    pub struct RawMapHeader: "z_erofs_map_header", 8 {
        h_fragmentoff: U32 => Offset {
            h_idata_size: u16 @ 16, 16 => Length,
            h_extents_lo: u32 => Count,
        },
        h_advise: U16 => Flags,
        h_extents_hi: U16 => Count {
            h_algorithmtype: u8 @ 0, 8 => Bytes,
            head1: u8 @ 0, 4 => Algorithm,
            head2: u8 @ 4, 4 => Algorithm,
            h_clusterbits: u8 @ 8, 8 => Flags,
            lclusterbits: u8 @ 8, 4 => Log2,
        },
    }

    /// `struct z_erofs_map_header` as one number, of a file that is in the packed inode as a whole
    pub struct RawFragmentHeader: "z_erofs_map_header as a number", 8 {
        word: U64 => Bytes { fragment_inode: u8 @ 63, 1 => Flags, fragmentoff: u64 @ 0, 63 => Offset },
    }

    /// `struct z_erofs_lcluster_index`
    pub struct RawLclusterIndex: "z_erofs_lcluster_index", 8 {
        di_advise: U16 => Flags { lcluster_type: u16 @ 0, 2 => Enum },
        di_clusterofs: U16 => Offset,
        blkaddr: U32 => Block { delta0: u16 @ 0, 16 => Distance, delta1: u16 @ 16, 16 => Distance },
    }

    /// A pack of two compact index entries. Where the type begins depends on the size of lclusters;
    /// at 4 KiB it is as here.
    pub struct RawCompactPair: "pack of 2 compact indexes", 8 {
        entries: [u8; 4] => Bytes 2 of 16 {
            entry @ 0, 16 => Bytes,
            low @ 0, 12 => Distance,
            lcluster_type @ 12, 2 => Enum,
        },
        blkaddr: U32 => Block,
    }

    /// A pack of sixteen compact index entries
    pub struct RawCompactPack: "pack of 16 compact indexes", 32 {
        entries: [u8; 28] => Bytes 16 of 14 {
            entry @ 0, 14 => Bytes,
            low @ 0, 12 => Distance,
            lcluster_type @ 12, 2 => Enum,
        },
        blkaddr: U32 => Block,
    }

    /// What comes before encoded extents of 4 bytes
    pub struct RawExtentsStart: "start of encoded extents", 8 {
        pstart: U64 => Address,
    }

    /// `struct z_erofs_extent`, its first 4 bytes alone
    pub struct RawExtent4: "encoded extent of 4 bytes", 4 {
        plen: U32 => Length { format: u32 @ 28, 4 => Algorithm, partial: u32 @ 27, 1 => Flags },
    }

    /// `struct z_erofs_extent`, its first 8 bytes alone
    pub struct RawExtent8: "encoded extent of 8 bytes", 8 {
        plen: U32 => Length { format: u32 @ 28, 4 => Algorithm, partial: u32 @ 27, 1 => Flags },
        pstart_lo: U32 => Address,
    }

    /// `struct z_erofs_extent`, its first 16 bytes alone
    pub struct RawExtent16: "encoded extent of 16 bytes", 16 {
        plen: U32 => Length { format: u32 @ 28, 4 => Algorithm, partial: u32 @ 27, 1 => Flags },
        pstart: U64 => Address,
        lstart_lo: U32 => Offset,
    }

    /// `struct z_erofs_extent`
    pub struct RawExtent: "encoded extent of 32 bytes", 32 {
        plen: U32 => Length { format: u32 @ 28, 4 => Algorithm, partial: u32 @ 27, 1 => Flags },
        pstart: U64 => Address,
        lstart_lo: U32 => Offset,

        lstart_hi: U32 => Offset,
        reserved: [u8; 12] => Reserved,
    }
}

impl RawInodeExtended {
    /// What is in place of it, if the inode is a compact one.
    #[inline(always)]
    pub fn as_compact(&self) -> &RawInodeCompact {
        let [first, _]: &[RawInodeCompact; 2] = transmute_ref!(self);
        first
    }
}

impl RawCompactPack {
    /// What it begins with, if it is a pair.
    #[inline(always)]
    pub fn as_pair(&self) -> &RawCompactPair {
        let [first, ..]: &[RawCompactPair; 4] = transmute_ref!(self);
        first
    }
}

impl RawMapHeader {
    /// The same as one number.
    #[inline(always)]
    pub fn as_fragment(&self) -> &RawFragmentHeader {
        transmute_ref!(self)
    }
}
