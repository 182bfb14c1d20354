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
    io::{hash::KernelHash, metadata::FolioBytes, ReadError},
    vfs::{xattr::may_see_trusted, Inode},
};

/// The bytes of an area, which is looked for when one of them is read: the superblock may place
/// shared attributes in a metabox that is not there, and an inode that has none need not mind.
struct AreaBytes<'a> {
    info: &'a Info,
    area: Area,
}

impl Source for AreaBytes<'_> {
    type Error = ReadError;
    type Buf<'a>
        = FolioBytes<'a>
    where
        Self: 'a;

    fn bread(&self, pos: u64) -> Result<FolioBytes<'_>, ReadError> {
        let bytes = self.info.area(self.area).map_err(|err| {
            if err != EFSCORRUPTED {
                return ReadError::Io(err);
            }
            ReadError::Format(FormatError {
                kind: Kind::Corrupted,
                what: "xattr in a metabox that is not there",
                pos,
                value: 0,
            })
        })?;
        bytes.bytes(pos)
    }
}

/// The areas that an inode's attributes lie in: its own, and that of shared ones.
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
    let of = |area| AreaBytes { info, area };
    (of(image.area), of(shared))
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
    let info = inode.sb().info();
    let (image, sb) = parts(inode)?;
    if image.xattr_isize == 0 {
        return Err(ENODATA);
    }
    let (own, shared) = areas(info, image, sb);
    let sources = XattrSources {
        inode: &own,
        shared: &shared,
    };
    let prefixes = info.prefixes();
    xattr::getxattr::<_, KernelHash>(sb, image, &sources, prefixes, class, name, out)
        .map_err(|err: ReadError| failed(inode.sb(), Place::Nid(image.nid), err))
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
