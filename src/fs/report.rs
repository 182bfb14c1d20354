// SPDX-License-Identifier: GPL-2.0

//! Saying in the kernel log what is wrong with an image, and where.

use kernel::prelude::*;

use super::Erofs;
use crate::{
    compat::code::{EBADMSG, EFSCORRUPTED, ENODATA, EOPNOTSUPP},
    format::error::{Error as FormatError, Kind},
    io::ReadError,
    vfs::SuperBlock,
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
    Superblock,
    /// An inode, its data or its attributes.
    Nid(u64),
    /// Data of an inode that cannot be decoded, at a byte of the file.
    Data(u64),
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
        Kind::Missing => EIO,
    }
}

/// Logs `err` and gives its number. Answers that are not faults of the image (no such attribute,
/// buffer too small) and interrupted reads are not logged; nor is more than a mount's share.
pub(super) fn failed(sb: &SuperBlock<Erofs>, place: Place, err: impl Into<ReadError>) -> Error {
    let err = err.into();
    let number = match err {
        ReadError::Format(err) => errno(err.kind),
        ReadError::Io(err) => err,
    };
    if [ENODATA, ERANGE, EINTR, ERESTARTSYS, ENOMEM].contains(&number) {
        return number;
    }
    if sb.info().log_limit.ask() {
        log(sb, place, &err);
    }
    number
}

fn log(sb: &SuperBlock<Erofs>, place: Place, err: &ReadError) {
    let id = sb.id();
    match (place, err) {
        (Place::Superblock, ReadError::Format(err)) => pr_err!("(device {id}): {err}\n"),
        (Place::Nid(nid), ReadError::Format(err)) => {
            pr_err!("(device {id}): nid {nid}: {err}\n")
        }
        (Place::Data(nid), ReadError::Format(err)) => pr_err!(
            "(device {id}): nid {nid}: {} in the compressed data of byte {:#x}\n",
            err.what,
            err.pos
        ),
        (Place::Superblock, ReadError::Io(err)) => {
            pr_err!("(device {id}): reading the superblock area failed: {err:?}\n")
        }
        (Place::Nid(nid) | Place::Data(nid), ReadError::Io(err)) => {
            pr_err!("(device {id}): reading metadata of nid {nid} failed: {err:?}\n")
        }
    }
}
