// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use kernel::prelude::*;

use super::{
    inode::parts,
    report::{failed, Place},
    superblock::Info,
    Erofs,
};
use crate::{
    compat::code::{EFSCORRUPTED, ENODATA, EOPNOTSUPP},
    format::{
        error::{Error as FormatError, Kind},
        inode::Inode as ImageInode,
        source::Source,
        superblock::{Area, Superblock},
        xattr::{self, index, XattrSources},
    },
    io::{hash::KernelHash, metadata::FolioBytes, CacheBytes, ReadError},
    vfs::{xattr::may_see_trusted, Inode},
};

/// The bytes of an area, if it is there: the superblock may place shared attributes in a metabox
/// that is not, and an inode that has none need not mind.
#[derive(Clone, Copy)]
struct AreaBytes<'a>(Result<CacheBytes<'a>>);

impl Source for AreaBytes<'_> {
    type Error = ReadError;
    type Buf<'a>
        = FolioBytes<'a>
    where
        Self: 'a;

    #[inline]
    fn bread(&self, pos: u64) -> Result<FolioBytes<'_>, ReadError> {
        match &self.0 {
            Ok(bytes) => bytes.bytes(pos),
            Err(err) => Err(not_there(*err, pos)),
        }
    }
}

#[cold]
fn not_there(err: Error, pos: u64) -> ReadError {
    if err != EFSCORRUPTED {
        return ReadError::Io(err);
    }
    ReadError::Format(FormatError {
        kind: Kind::Corrupted,
        what: "xattr in a metabox that is not there",
        pos,
        value: 0,
    })
}

/// The areas that an inode's attributes lie in: its own, and that of shared ones.
#[inline(always)]
fn areas<'a>(
    info: &'a Info,
    image: &ImageInode,
    sb: &Superblock,
) -> (AreaBytes<'a>, AreaBytes<'a>) {
    let shared = if sb.shared_ea_in_metabox() {
        Area::Metabox
    } else {
        Area::Image
    };
    let own = AreaBytes(info.area(image.area));
    let shared = if shared == image.area {
        own
    } else {
        AreaBytes(info.area(shared))
    };
    (own, shared)
}

/// Size of an attribute's value; the value in `out`.
pub(super) fn get(
    inode: &Inode<Erofs>,
    class: u8,
    name: &[u8],
    out: Option<&mut [u8]>,
) -> Result<usize> {
    if class == index::USER && !inode.sb().info().options.user_xattr() {
        return Err(EOPNOTSUPP);
    }
    get_any(inode, class, name, out)
}

/// As [`get`], whatever the mount options hide.
pub(super) fn get_any(
    inode: &Inode<Erofs>,
    class: u8,
    name: &[u8],
    out: Option<&mut [u8]>,
) -> Result<usize> {
    let (image, sb) = parts(inode)?;
    let may_have = match &image.xattr_header {
        Some(header) => header.may_have::<KernelHash>(sb, class, name),
        None => image.xattr_isize != 0,
    };
    if !may_have {
        return Err(ENODATA);
    }
    find(inode, image, sb, class, name, out)
}

/// Looks for an attribute of an inode that may have it: the filter was asked, if it was at hand.
#[inline(never)]
fn find(
    inode: &Inode<Erofs>,
    image: &ImageInode,
    sb: &Superblock,
    class: u8,
    name: &[u8],
    out: Option<&mut [u8]>,
) -> Result<usize> {
    let info = inode.sb().info();
    let (own, shared) = areas(info, image, sb);
    let sources = XattrSources {
        inode: &own,
        shared: &shared,
    };
    let prefixes = info.prefixes();
    let found = match &image.xattr_header {
        Some(header) => xattr::find(sb, image, header, &sources, prefixes, class, name, out),
        None => xattr::getxattr::<_, KernelHash>(sb, image, &sources, prefixes, class, name, out),
    };
    found.map_err(|err: ReadError| failed(inode.sb(), Place::Nid(image.nid), err))
}

/// Names of all attributes that the caller may see.
pub(super) fn list(inode: &Inode<Erofs>, out: Option<&mut [u8]>) -> Result<usize> {
    let (image, sb) = parts(inode)?;
    if image.xattr_isize == 0 {
        return Ok(0);
    }
    let info = inode.sb().info();
    let user = info.options.user_xattr();
    let acl = inode.sb().posix_acl();
    let prefix_of = |class: u8| -> Option<&'static [u8]> {
        match class {
            index::USER if user => Some(b"user."),
            index::POSIX_ACL_ACCESS if acl => Some(b"system.posix_acl_access"),
            index::POSIX_ACL_DEFAULT if acl => Some(b"system.posix_acl_default"),
            index::TRUSTED if may_see_trusted() => Some(b"trusted."),
            index::SECURITY => Some(b"security."),
            _ => None,
        }
    };
    let (own, shared) = areas(info, image, sb);
    let sources = XattrSources {
        inode: &own,
        shared: &shared,
    };
    xattr::listxattr(sb, image, &sources, info.prefixes(), prefix_of, out)
        .map_err(|err: ReadError| failed(inode.sb(), Place::Nid(image.nid), err))
}
