// SPDX-License-Identifier: GPL-2.0

//! The on-disk structures: each field once, with its name, its place, and what its value names.
//!
//! Parsers read fields through these descriptions and by no other way, so that a field cannot be
//! parsed without being described. On the host, `tools/mutate` goes through [`ALL`] and exchanges
//! each value for others of its kind; a field that is added here is mutated from then on.
//!
//! Structures and fields are named as in the kernel's `fs/erofs/erofs_fs.h`. Fields may overlap: a
//! union has a field for each of its meanings, and a word of bits one for the word and one for each
//! part.

use core::marker::PhantomData;

/// What a value names, or says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Names {
    /// The image's format.
    Magic,
    /// Nothing; it is computed from other bytes.
    Checksum,
    /// An inode.
    Nid,
    /// A block: of a device, or the first behind its end. The low bits if the rest is in a
    /// `BlockHigh`.
    Block,
    /// The upper 16 bits of a block.
    BlockHigh,
    /// A byte of the unified address space.
    Address,
    /// An extra device.
    DeviceSlot,
    /// A shared xattr, by its distance from the start of their area.
    XattrId,
    /// The first part of an xattr's name: a number of the format, or a long prefix of the image.
    XattrPrefix,
    /// A place within something else, in whatever unit.
    Offset,
    /// A size, in bytes or in blocks.
    Length,
    /// How many of something follow.
    Count,
    /// How many lclusters away another entry is.
    Distance,
    /// The logarithm of a size.
    Log2,
    /// Type and permissions of an inode.
    Mode,
    /// How an inode's data is laid out.
    Layout,
    /// Type of a directory entry.
    FileType,
    /// A compression algorithm.
    Algorithm,
    /// One of a few alternatives.
    Enum,
    /// Independent bits.
    Flags,
    /// The device behind a device node.
    DeviceNumber,
    /// A user or group.
    Owner,
    /// A point in time.
    Time,
    /// Bytes without a meaning here.
    Bytes,
    /// Nothing, yet.
    Reserved,
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The first byte of the word that it is in.
    pub at: usize,
    /// Bytes of that word.
    pub width: usize,
    /// Its lowest bit in the word.
    pub shift: u32,
    /// How many bits it has.
    pub bits: u32,
    /// How many of it there are.
    pub count: u32,
    /// Bits from one to the next.
    pub stride: u32,
    /// What it names.
    pub names: Names,
}

/// A structure.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its fields.
    pub fields: &'static [Field],
}

/// Where a field is in its structure, and in which type it is read.
#[derive(Clone, Copy)]
pub struct At<T> {
    at: usize,
    width: usize,
    shift: u32,
    bits: u32,
    count: u32,
    stride: u32,
    word: PhantomData<T>,
}

impl<T> At<T> {
    /// All bits of a `T` at byte `at`.
    const fn whole(at: usize) -> Self {
        Self::part(at, 0, 8 * size_of::<T>() as u32)
    }

    /// Some bits of a `T` at byte `at`.
    const fn part(at: usize, shift: u32, bits: u32) -> Self {
        Self::several(at, shift, bits, 1, 0)
    }

    /// `count` fields of which each begins `stride` bits behind the one before.
    const fn several(at: usize, shift: u32, bits: u32, count: u32, stride: u32) -> Self {
        Self {
            at,
            width: size_of::<T>(),
            shift,
            bits,
            count,
            stride,
            word: PhantomData,
        }
    }

    /// Its first byte in the structure.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Whether it lies within `size` bytes.
    const fn fits(&self, size: usize) -> bool {
        let last = self.shift + self.bits + (self.count - 1) * self.stride;
        self.bits > 0 && self.at * 8 + last as usize <= size * 8
    }

    const fn describe(&self, name: &'static str, names: Names) -> Field {
        Field {
            name,
            at: self.at,
            width: self.width,
            shift: self.shift,
            bits: self.bits,
            count: self.count,
            stride: self.stride,
            names,
        }
    }
}

macro_rules! words {
    ($($word:ty),*) => {
        $(
            impl At<$word> {
                /// The value in `raw`, which is the structure or the start of it.
                #[inline(always)]
                pub fn get<const N: usize>(&self, raw: &[u8; N]) -> $word {
                    self.load(raw, self.at, self.shift)
                }

                /// The value of the field with this number.
                #[inline]
                pub fn nth<const N: usize>(&self, raw: &[u8; N], number: u32) -> $word {
                    let bit = self.shift.wrapping_add(number.wrapping_mul(self.stride));
                    self.load(raw, self.at.wrapping_add((bit / 8) as usize), bit % 8)
                }

                #[inline(always)]
                fn load<const N: usize>(&self, raw: &[u8; N], at: usize, shift: u32) -> $word {
                    let word = <$word>::from_le_bytes(take(raw, at));
                    let mask = <$word>::MAX.wrapping_shr(<$word>::BITS.wrapping_sub(self.bits));
                    word.wrapping_shr(shift) & mask
                }
            }
        )*
    };
}

words!(u8, u16, u32, u64);

impl<const M: usize> At<[u8; M]> {
    /// The bytes in `raw`, which is the structure or the start of it.
    #[inline(always)]
    pub fn get<const N: usize>(&self, raw: &[u8; N]) -> [u8; M] {
        take(raw, self.at)
    }
}

/// `M` bytes from `at`; zeros where the record ends before (which no caller's constants do).
#[inline(always)]
fn take<const N: usize, const M: usize>(raw: &[u8; N], at: usize) -> [u8; M] {
    let mut out = [0; M];
    if let Some(from) = raw.get(at..).and_then(|tail| tail.get(..M)) {
        out.copy_from_slice(from);
    }
    out
}

macro_rules! at {
    ($at:literal) => {
        At::whole($at)
    };
    ($at:literal, $shift:literal, $bits:literal) => {
        At::part($at, $shift, $bits)
    };
    ($at:literal, $shift:literal, $bits:literal, $count:literal, $stride:literal) => {
        At::several($at, $shift, $bits, $count, $stride)
    };
}

/// Declares structures. A field is `NAME: type = byte => what it names`, or for a part of the word
/// `NAME: type = byte, lowest bit, bits => …`, or for several of them
/// `NAME: type = byte, lowest bit, bits, how many, bits from one to the next => …`.
macro_rules! structures {
    ($(
        $(#[$doc:meta])*
        $module:ident, $name:literal, $size:literal {
            $($field:ident: $word:ty = $($place:literal),+ => $names:ident;)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[allow(missing_docs)]
            pub mod $module {
                use super::{At, Names, Structure};
                /// Its size in bytes.
                pub const SIZE: usize = $size;
                $(
                    pub const $field: At<$word> = at!($($place),+);
                    const _: () = assert!($field.fits(SIZE));
                )*
                /// Its description.
                pub const STRUCTURE: Structure = Structure {
                    name: $name,
                    size: SIZE,
                    fields: &[$($field.describe(stringify!($field), Names::$names)),*],
                };
            }
        )*
        /// All structures.
        pub const ALL: &[Structure] = &[$($module::STRUCTURE),*];
    };
}

structures! {
    /// `struct erofs_super_block` with its first extension slot.
    super_block, "erofs_super_block", 144 {
        MAGIC: u32 = 0 => Magic;
        CHECKSUM: u32 = 4 => Checksum;
        FEATURE_COMPAT: u32 = 8 => Flags;
        BLKSZBITS: u8 = 12 => Log2;
        SB_EXTSLOTS: u8 = 13 => Count;
        ROOTNID_2B: u16 = 14 => Nid;
        BLOCKS_HI: u16 = 14 => BlockHigh;
        INOS: u64 = 16 => Count;
        EPOCH: u64 = 24 => Time;
        FIXED_NSEC: u32 = 32 => Time;
        BLOCKS_LO: u32 = 36 => Block;
        META_BLKADDR: u32 = 40 => Block;
        XATTR_BLKADDR: u32 = 44 => Block;
        UUID: [u8; 16] = 48 => Bytes;
        VOLUME_NAME: [u8; 16] = 64 => Bytes;
        FEATURE_INCOMPAT: u32 = 80 => Flags;
        AVAILABLE_COMPR_ALGS: u16 = 84 => Flags;
        LZ4_MAX_DISTANCE: u16 = 84 => Length;
        EXTRA_DEVICES: u16 = 86 => Count;
        DEVT_SLOTOFF: u16 = 88 => Offset;
        DIRBLKBITS: u8 = 90 => Log2;
        XATTR_PREFIX_COUNT: u8 = 91 => Count;
        XATTR_PREFIX_START: u32 = 92 => Offset;
        PACKED_NID: u64 = 96 => Nid;
        XATTR_FILTER_RESERVED: u8 = 104 => Flags;
        ISHARE_XATTR_PREFIX_ID: u8 = 105 => XattrPrefix;
        RESERVED: u16 = 106 => Reserved;
        BUILD_TIME: u32 = 108 => Time;
        ROOTNID_8B: u64 = 112 => Nid;
        RESERVED2: u64 = 120 => Reserved;
        METABOX_NID: u64 = 128 => Nid;
        RESERVED3: u64 = 136 => Reserved;
    }

    /// `struct erofs_deviceslot`
    device_slot, "erofs_deviceslot", 128 {
        TAG: [u8; 64] = 0 => Bytes;
        BLOCKS_LO: u32 = 64 => Block;
        UNIADDR_LO: u32 = 68 => Block;
        BLOCKS_HI: u16 = 72 => BlockHigh;
        UNIADDR_HI: u16 = 74 => BlockHigh;
        RESERVED: [u8; 52] = 76 => Reserved;
    }

    /// `struct erofs_inode_compact`
    inode_compact, "erofs_inode_compact", 32 {
        I_FORMAT: u16 = 0 => Flags;
        VERSION: u16 = 0, 0, 1 => Enum;
        LAYOUT: u16 = 0, 1, 3 => Layout;
        I_XATTR_ICOUNT: u16 = 2 => Count;
        I_MODE: u16 = 4 => Mode;
        I_NB: u16 = 6 => Count;
        I_NB_BLOCK: u16 = 6 => BlockHigh;
        I_SIZE: u32 = 8 => Length;
        I_MTIME: u32 = 12 => Time;
        I_U: u32 = 16 => Block;
        CHUNK_FORMAT: u16 = 16 => Flags;
        CHUNK_BITS: u16 = 16, 0, 5 => Log2;
        RDEV: u32 = 16 => DeviceNumber;
        I_INO: u32 = 20 => Reserved;
        I_UID: u16 = 24 => Owner;
        I_GID: u16 = 26 => Owner;
        I_RESERVED: u32 = 28 => Reserved;
    }

    /// `struct erofs_inode_extended`
    inode_extended, "erofs_inode_extended", 64 {
        I_FORMAT: u16 = 0 => Flags;
        VERSION: u16 = 0, 0, 1 => Enum;
        LAYOUT: u16 = 0, 1, 3 => Layout;
        I_XATTR_ICOUNT: u16 = 2 => Count;
        I_MODE: u16 = 4 => Mode;
        I_NB: u16 = 6 => BlockHigh;
        I_SIZE: u64 = 8 => Length;
        I_U: u32 = 16 => Block;
        CHUNK_FORMAT: u16 = 16 => Flags;
        CHUNK_BITS: u16 = 16, 0, 5 => Log2;
        RDEV: u32 = 16 => DeviceNumber;
        I_INO: u32 = 20 => Reserved;
        I_UID: u32 = 24 => Owner;
        I_GID: u32 = 28 => Owner;
        I_MTIME: u64 = 32 => Time;
        I_MTIME_NSEC: u32 = 40 => Time;
        I_NLINK: u32 = 44 => Count;
        I_RESERVED2: [u8; 16] = 48 => Reserved;
    }

    /// `struct erofs_xattr_ibody_header`
    xattr_header, "erofs_xattr_ibody_header", 12 {
        H_NAME_FILTER: u32 = 0 => Flags;
        H_SHARED_COUNT: u8 = 4 => Count;
        H_RESERVED2: [u8; 7] = 5 => Reserved;
    }

    /// One of `h_shared_xattrs`
    xattr_shared, "h_shared_xattrs", 4 {
        ID: u32 = 0 => XattrId;
    }

    /// `struct erofs_xattr_entry`
    xattr_entry, "erofs_xattr_entry", 4 {
        E_NAME_LEN: u8 = 0 => Length;
        E_NAME_INDEX: u8 = 1 => XattrPrefix;
        E_VALUE_SIZE: u16 = 2 => Length;
    }

    /// `struct erofs_xattr_long_prefix`, with the length before it
    xattr_long_prefix, "erofs_xattr_long_prefix", 3 {
        LENGTH: u16 = 0 => Length;
        BASE_INDEX: u8 = 2 => XattrPrefix;
    }

    /// `struct erofs_dirent`
    dirent, "erofs_dirent", 12 {
        NID: u64 = 0 => Nid;
        NAMEOFF: u16 = 8 => Offset;
        FILE_TYPE: u8 = 10 => FileType;
        RESERVED: u8 = 11 => Reserved;
    }

    /// An entry of a chunk-based inode's plain block map
    chunk_block, "chunk block", 4 {
        BLKADDR: u32 = 0 => Block;
    }

    /// `struct erofs_inode_chunk_index`
    chunk_index, "erofs_inode_chunk_index", 8 {
        STARTBLK_HI: u16 = 0 => BlockHigh;
        DEVICE_ID: u16 = 2 => DeviceSlot;
        STARTBLK_LO: u32 = 4 => Block;
    }

    /// The length before each compression configuration
    compr_cfg, "compression configuration", 2 {
        LENGTH: u16 = 0 => Length;
    }

    /// `struct z_erofs_lz4_cfgs`
    lz4_cfgs, "z_erofs_lz4_cfgs", 14 {
        MAX_DISTANCE: u16 = 0 => Length;
        MAX_PCLUSTERBLKS: u16 = 2 => Length;
        RESERVED: [u8; 10] = 4 => Reserved;
    }

    /// `struct z_erofs_lzma_cfgs`
    lzma_cfgs, "z_erofs_lzma_cfgs", 14 {
        DICT_SIZE: u32 = 0 => Length;
        FORMAT: u16 = 4 => Enum;
        RESERVED: [u8; 8] = 6 => Reserved;
    }

    /// `struct z_erofs_deflate_cfgs`
    deflate_cfgs, "z_erofs_deflate_cfgs", 6 {
        WINDOWBITS: u8 = 0 => Log2;
        RESERVED: [u8; 5] = 1 => Reserved;
    }

    /// `struct z_erofs_zstd_cfgs`
    zstd_cfgs, "z_erofs_zstd_cfgs", 6 {
        FORMAT: u8 = 0 => Enum;
        WINDOWLOG: u8 = 1 => Log2;
        RESERVED: [u8; 4] = 2 => Reserved;
    }

    /// `struct z_erofs_map_header`
    map_header, "z_erofs_map_header", 8 {
        WORD: u64 = 0 => Bytes;
        FRAGMENT: u64 = 0, 0, 63 => Offset;
        H_FRAGMENTOFF: u32 = 0 => Offset;
        H_IDATA_SIZE: u16 = 2 => Length;
        H_EXTENTS_LO: u32 = 0 => Count;
        H_ADVISE: u16 = 4 => Flags;
        H_ALGORITHMTYPE: u8 = 6 => Bytes;
        HEAD1: u8 = 6, 0, 4 => Algorithm;
        HEAD2: u8 = 6, 4, 4 => Algorithm;
        H_EXTENTS_HI: u16 = 6 => Count;
        H_CLUSTERBITS: u8 = 7 => Flags;
        LCLUSTERBITS: u8 = 7, 0, 4 => Log2;
    }

    /// `struct z_erofs_lcluster_index`
    lcluster_index, "z_erofs_lcluster_index", 8 {
        DI_ADVISE: u16 = 0 => Flags;
        TYPE: u16 = 0, 0, 2 => Enum;
        DI_CLUSTEROFS: u16 = 2 => Offset;
        BLKADDR: u32 = 4 => Block;
        DELTA0: u16 = 4 => Distance;
        DELTA1: u16 = 6 => Distance;
    }

    /// A pack of two compact index entries. Where the type begins depends on the size of lclusters;
    /// at 4 KiB it is as here.
    compact_pair, "pack of 2 compact indexes", 8 {
        ENTRY: u32 = 0, 0, 16, 2, 16 => Bytes;
        LOW: u32 = 0, 0, 12, 2, 16 => Distance;
        TYPE: u32 = 0, 12, 2, 2, 16 => Enum;
        BLKADDR: u32 = 4 => Block;
    }

    /// A pack of sixteen compact index entries
    compact_pack, "pack of 16 compact indexes", 32 {
        ENTRY: u32 = 0, 0, 14, 16, 14 => Bytes;
        LOW: u32 = 0, 0, 12, 16, 14 => Distance;
        TYPE: u32 = 0, 12, 2, 16, 14 => Enum;
        BLKADDR: u32 = 28 => Block;
    }

    /// What comes before encoded extents of 4 bytes
    extents_start, "start of encoded extents", 8 {
        PSTART: u64 = 0 => Address;
    }

    /// `struct z_erofs_extent`, its first 4 bytes alone
    extent4, "encoded extent of 4 bytes", 4 {
        PLEN: u32 = 0 => Length;
        FORMAT: u32 = 0, 28, 4 => Algorithm;
        PARTIAL: u32 = 0, 27, 1 => Flags;
    }

    /// `struct z_erofs_extent`, its first 8 bytes alone
    extent8, "encoded extent of 8 bytes", 8 {
        PLEN: u32 = 0 => Length;
        FORMAT: u32 = 0, 28, 4 => Algorithm;
        PARTIAL: u32 = 0, 27, 1 => Flags;
        PSTART_LO: u32 = 4 => Address;
    }

    /// `struct z_erofs_extent`, its first 16 bytes alone
    extent16, "encoded extent of 16 bytes", 16 {
        PLEN: u32 = 0 => Length;
        FORMAT: u32 = 0, 28, 4 => Algorithm;
        PARTIAL: u32 = 0, 27, 1 => Flags;
        PSTART: u64 = 4 => Address;
        LSTART_LO: u32 = 12 => Offset;
    }

    /// `struct z_erofs_extent`
    extent32, "encoded extent of 32 bytes", 32 {
        PLEN: u32 = 0 => Length;
        FORMAT: u32 = 0, 28, 4 => Algorithm;
        PARTIAL: u32 = 0, 27, 1 => Flags;
        PSTART: u64 = 4 => Address;
        LSTART_LO: u32 = 12 => Offset;
        LSTART_HI: u32 = 16 => Offset;
        RESERVED: [u8; 12] = 20 => Reserved;
    }
}
