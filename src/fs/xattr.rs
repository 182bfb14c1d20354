// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use kernel::prelude::*;

use super::{
    inode::parts,
    report::{failed, Place},
    Erofs,
};
use crate::{
    format::{
        superblock::Area,
        xattr::{self, index, XattrSources},
    },
    io::{hash::KernelHash, CacheBytes, ReadError},
    vfs::{xattr::may_see_trusted, Inode},
};

/// The areas that an inode's attributes lie in: its own, and that of shared ones.
fn areas(inode: &Inode<Erofs>) -> Result<(CacheBytes<'_>, CacheBytes<'_>)> {
    let (image, sb) = parts(inode)?;
    let info = inode.sb().info();
    let shared = if sb.shared_ea_in_metabox() {
        Area::Metabox
    } else {
        Area::Image
    };
    Ok((info.area(image.area)?, info.area(shared)?))
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
    let (own, shared) = areas(inode)?;
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
    let (own, shared) = areas(inode)?;
    let sources = XattrSources {
        inode: &own,
        shared: &shared,
    };
    xattr::listxattr(sb, image, &sources, info.prefixes(), prefix_of, out)
        .map_err(|err: ReadError| failed(inode.sb(), Place::Nid(image.nid), err))
}
