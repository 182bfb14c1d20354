// SPDX-License-Identifier: GPL-2.0

//! What can be wrong with an image.

use core::fmt;

/// What is wrong with an image that has incompatible features which are not known here.
pub(super) const UNKNOWN_INCOMPAT: &str = "unknown incompatible features";

/// Class of an error; each has one error number in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No EROFS superblock (`EINVAL`).
    NotErofs,
    /// A checksum does not match (`EBADMSG`).
    Checksum,
    /// Valid perhaps, but not known here (`EOPNOTSUPP`).
    Unsupported,
    /// The image contradicts itself (`EFSCORRUPTED`).
    Corrupted,
    /// The superblock has a value that cannot be mounted (`EINVAL`).
    Invalid,
    /// There is no such attribute (`ENODATA`). Not a fault of the image.
    NoData,
    /// The caller's buffer is too small (`ERANGE`). Not a fault of the image.
    Range,
    /// Data on a device that the image does not have (`ENODEV`).
    NoDevice,
    /// Data that the device is too short for (`EIO`).
    Missing,
}

/// One thing that is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Class of the error.
    pub kind: Kind,
    /// The on-disk field, or the rule that it breaks.
    pub what: &'static str,
    /// Byte offset in the area that was read.
    pub pos: u64,
    /// The offending value.
    pub value: u64,
}

impl Error {
    pub(crate) const fn new(kind: Kind, what: &'static str, pos: u64, value: u64) -> Self {
        Self {
            kind,
            what,
            pos,
            value,
        }
    }

    pub(crate) const fn corrupted(what: &'static str, pos: u64, value: u64) -> Self {
        Self::new(Kind::Corrupted, what, pos, value)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:#x} at byte {:#x}",
            self.what, self.value, self.pos
        )?;
        if self.what == UNKNOWN_INCOMPAT {
            write!(
                f,
                " (features beyond those of Linux 7.3: a newer module is needed)"
            )?;
        }
        Ok(())
    }
}
