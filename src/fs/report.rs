// SPDX-License-Identifier: GPL-2.0

//! Saying in the kernel log what is wrong with an image, and where.

use kernel::prelude::*;

use super::Erofs;
use crate::{
    format::error::{Error as FormatError, Kind},
    io::ReadError,
    vfs::Super,
};

impl kernel::fmt::Display for FormatError {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Where in an image something went wrong.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The superblock and what belongs to it.
    Super,
    /// An inode, its data or its attributes.
    Nid(u64),
}

/// The error number for what the format core found.
pub(super) fn errno(kind: Kind) -> Error {
    match kind {
        Kind::NotErofs | Kind::Invalid => EINVAL,
        Kind::Checksum => EBADMSG,
        Kind::Unsupported => EOPNOTSUPP,
        Kind::Corrupted => EFSCORRUPTED,
        Kind::NoData => ENODATA,
        Kind::Range => ERANGE,
        Kind::NoDevice => ENODEV,
    }
}

/// Logs `err` and gives its number. Answers that are not faults of the image (no such attribute,
/// buffer too small) and interrupted reads are not logged.
pub(super) fn failed(sb: &Super<Erofs>, place: Place, err: impl Into<ReadError>) -> Error {
    match err.into() {
        ReadError::Format(err) => {
            let number = errno(err.kind);
            if !matches!(err.kind, Kind::NoData | Kind::Range) {
                log(sb, place, &err);
            }
            number
        }
        ReadError::Io(err) => {
            if err != EINTR && err != ERESTARTSYS && err != ENOMEM && err != EOPNOTSUPP {
                match place {
                    Place::Super => pr_err!(
                        "(device {}): reading the superblock area failed: {:?}\n",
                        sb.id(),
                        err
                    ),
                    Place::Nid(nid) => pr_err!(
                        "(device {}): reading metadata of nid {} failed: {:?}\n",
                        sb.id(),
                        nid,
                        err
                    ),
                }
            }
            err
        }
    }
}

fn log(sb: &Super<Erofs>, place: Place, err: &FormatError) {
    match place {
        Place::Super => pr_err!("(device {}): {}\n", sb.id(), err),
        Place::Nid(nid) => pr_err!("(device {}): nid {}: {}\n", sb.id(), nid, err),
    }
}
