// SPDX-License-Identifier: GPL-2.0

//! Where a range of a file's bytes is, in terms that I/O can use.

use super::{metadata::FolioBytes, CacheBytes, Device, Encoded};

/// What holds a range of bytes.
pub(crate) enum Target<'a> {
    /// Zeros.
    Hole,
    /// A byte address on a device (`Device::offset` not yet added).
    Disk(&'a Device, u64),
    /// Bytes in a metadata block that was read.
    Inline(FolioBytes<'a>),
    /// Bytes that decode to this range's.
    Encoded(Encoded<'a>),
    /// The data of another inode of the image, from this byte on.
    Cached(CacheBytes<'a>, u64),
    /// As the two above, for reporting only: the device and byte address of compressed data, if it
    /// has one.
    EncodedAt(Option<(&'a Device, u64)>),
    /// As `Inline`, for reporting only: the device and byte address, if they have one.
    InlineAt(Option<(&'a Device, u64)>),
}

/// A range of a file's bytes and what holds it. Never empty; holds the position that was asked for.
pub(crate) struct Extent<'a> {
    /// First byte in the file.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// What holds the bytes.
    pub(crate) target: Target<'a>,
}
