// SPDX-License-Identifier: GPL-2.0

//! Descriptions of on-disk structures: what they consist of, and what the values name.
//!
//! `structures!` makes a structure and its description from one declaration, so that a field cannot
//! be read without being described.

use zerocopy::{
    little_endian::{U16, U32, U64},
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
};

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

/// A structure as it is in an image: any bytes are one, at any address.
pub trait Raw: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    /// Its description.
    const STRUCTURE: Structure;

    /// The structure that `bytes` begin with; `None` if they are too few.
    fn first(bytes: &[u8]) -> Option<&Self>;
}

/// A number as it is in a structure.
pub trait Word: Copy {
    /// Its value.
    fn value(self) -> u64;
}

impl Word for u8 {
    #[inline(always)]
    fn value(self) -> u64 {
        self.into()
    }
}

macro_rules! words {
    ($($word:ty),*) => {
        $(
            impl Word for $word {
                #[inline(always)]
                fn value(self) -> u64 {
                    self.get().into()
                }
            }
        )*
    };
}

words!(U16, U32, U64);

/// Bits of a word.
#[derive(Clone, Copy)]
pub struct Bits {
    /// The lowest.
    shift: u32,
    /// How many.
    bits: u32,
}

impl Bits {
    /// `bits` bits from bit `shift` on.
    pub(super) const fn new(shift: u32, bits: u32) -> Self {
        Self { shift, bits }
    }

    /// All bits of a `T`.
    pub(super) const fn all<T>() -> Self {
        Self::new(0, 8 * size_of::<T>() as u32)
    }

    /// These bits of a word.
    #[inline(always)]
    pub(super) fn of(self, word: u64) -> u64 {
        let mask = u64::MAX.wrapping_shr(u64::BITS.wrapping_sub(self.bits));
        word.wrapping_shr(self.shift) & mask
    }

    /// These bits of one of several entries of `stride` bits each, which are in a row from byte
    /// `at` on; zeros behind the end of `bytes`.
    #[inline(always)]
    pub(super) fn of_entry(self, bytes: &[u8], at: usize, stride: u32, number: u32) -> u32 {
        let bit = self.shift.wrapping_add(number.wrapping_mul(stride));
        let rest = bytes.get(at.wrapping_add((bit / 8) as usize)..);
        let word = match rest.and_then(|rest| rest.first_chunk()) {
            Some(word) => u32::from_le_bytes(*word),
            None => 0,
        };
        let mask = u32::MAX.wrapping_shr(u32::BITS.wrapping_sub(self.bits));
        word.wrapping_shr(bit % 8) & mask
    }
}

impl Field {
    /// A field of type `T` at byte `at`.
    #[inline]
    pub(super) const fn new<T>(name: &'static str, at: usize, names: Names) -> Self {
        let Bits { shift, bits } = Bits::all::<T>();
        Self {
            name,
            at,
            width: size_of::<T>(),
            shift,
            bits,
            count: 1,
            stride: 0,
            names,
        }
    }

    /// Another name for bits of it, which are read as a `V`.
    #[inline]
    pub(super) const fn part<V>(self, name: &'static str, part: Bits, names: Names) -> Self {
        assert!(part.bits > 0 && part.bits <= 8 * size_of::<V>() as u32);
        assert!(part.shift + part.bits <= self.bits);
        Self {
            name,
            shift: part.shift,
            bits: part.bits,
            names,
            ..self
        }
    }

    /// A part of each of the `count` entries of `stride` bits that it consists of.
    #[inline]
    pub(super) const fn entries(
        self,
        name: &'static str,
        part: Bits,
        count: u32,
        stride: u32,
        names: Names,
    ) -> Self {
        assert!(part.bits > 0 && part.shift + part.bits <= stride);
        assert!(count * stride == self.bits);
        Self {
            name,
            width: size_of::<u32>(),
            shift: part.shift,
            bits: part.bits,
            count,
            stride,
            names,
            ..self
        }
    }
}

/// The bits that a part has: those that are said, or all of a word of type `T`.
macro_rules! bits {
    ($word:ty) => {
        Bits::all::<$word>()
    };
    ($word:ty, $shift:literal, $bits:literal) => {
        Bits::new($shift, $bits)
    };
}

/// Declares structures, each with its name and its size in `fs/erofs/erofs_fs.h`. Every field says
/// what it names: `magic: U32 => Magic`. What may follow in braces are
///
/// * other meanings of the field, and parts of it, which become methods: `rdev: u32 =>
///   DeviceNumber`, or with the lowest bit and how many bits there are `layout: u16 @ 1, 3 =>
///   Layout`;
/// * behind `16 of 14`, parts of each of the 16 entries of 14 bits in an array of bytes. The method
///   takes the entry's number.
macro_rules! structures {
    ($(
        $(#[$doc:meta])*
        pub struct $raw:ident: $name:literal, $size:literal {
            $(
                $field:ident: $type:ty => $names:ident
                $({$(
                    $part:ident: $value:ident $(@ $shift:literal, $bits:literal)? => $part_names:ident
                ),+ $(,)?})?
                $($count:literal of $stride:literal {$(
                    $entry:ident @ $entry_shift:literal, $entry_bits:literal => $entry_names:ident
                ),+ $(,)?})?
            ),+ $(,)?
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(
                Clone,
                Copy,
                zerocopy_derive::FromBytes,
                zerocopy_derive::IntoBytes,
                zerocopy_derive::Immutable,
                zerocopy_derive::KnownLayout,
                zerocopy_derive::Unaligned,
            )]
            #[repr(C)]
            #[allow(missing_docs)]
            pub struct $raw {
                $(pub $field: $type),+
            }

            const _: () = assert!(size_of::<$raw>() == $size);

            #[allow(missing_docs)]
            impl $raw {
                $(
                    $($(
                        #[inline(always)]
                        pub fn $part(&self) -> $value {
                            const PART: Bits = bits!($type $(, $shift, $bits)?);
                            PART.of(Word::value(self.$field)) as $value
                        }
                    )+)?
                    $($(
                        #[inline(always)]
                        pub fn $entry(&self, number: u32) -> u32 {
                            const PART: Bits = Bits::new($entry_shift, $entry_bits);
                            let at = offset_of!($raw, $field);
                            PART.of_entry(self.as_bytes(), at, $stride, number)
                        }
                    )+)?
                )+
            }

            impl Raw for $raw {
                const STRUCTURE: Structure = Structure {
                    name: $name,
                    size: size_of::<Self>(),
                    fields: &[$(
                        field!($raw, $field, $type, $names),
                        $($(
                            field!($raw, $field, $type, $names).part::<$value>(
                                stringify!($part),
                                bits!($type $(, $shift, $bits)?),
                                Names::$part_names,
                            ),
                        )+)?
                        $($(
                            field!($raw, $field, $type, $names).entries(
                                stringify!($entry),
                                Bits::new($entry_shift, $entry_bits),
                                $count,
                                $stride,
                                Names::$entry_names,
                            ),
                        )+)?
                    )+],
                };

                #[inline(always)]
                fn first(bytes: &[u8]) -> Option<&Self> {
                    let bytes: &[u8; size_of::<$raw>()] = bytes.first_chunk()?;
                    Some(transmute_ref!(bytes))
                }
            }
        )*

        /// All structures.
        pub const ALL: &[Structure] = &[$($raw::STRUCTURE),*];
    };
}

/// The description of a field.
macro_rules! field {
    ($raw:ident, $field:ident, $type:ty, $names:ident) => {
        Field::new::<$type>(stringify!($field), offset_of!($raw, $field), Names::$names)
    };
}

pub(super) use {bits, field, structures};
