// SPDX-License-Identifier: GPL-2.0

//! From an image's inode to the VFS's.

use kernel::{prelude::*, sync::SetOnce};

use super::{
    report::{failed, Place},
    Erofs,
};
use crate::{
    compat::code::ESTALE,
    format::{
        error::{Error as FormatError, Kind},
        inode::{FileType, Inode as ImageInode},
        superblock::Superblock,
        xattr::XattrHeader,
        zmap,
    },
    io::ReadError,
    vfs::{
        new_inode::{Fields, Iget, NewInode},
        Inode, InodeRef, Super,
    },
};

/// Longest symbolic link: its target and a NUL fit a page.
const LINK_MAX: u64 = kernel::page::PAGE_SIZE as u64 - 1;

/// What this filesystem knows of an inode.
pub(crate) enum Data {
    /// The metadata cache: the primary device's image, byte for byte.
    Meta,
    /// An inode of the image.
    Image(ImageInode),
    /// A compressed one, and the header of its compressed data once that was read.
    Encoded(ImageInode, SetOnce<zmap::Header>),
}

impl Data {
    /// The image's inode. `EIO` for internal ones, which are never asked.
    pub(super) fn image(&self) -> Result<&ImageInode> {
        match self {
            Data::Image(inode) | Data::Encoded(inode, _) => Ok(inode),
            Data::Meta => Err(EIO),
        }
    }
}

/// An error about an inode of the image, at the inode.
pub(super) fn corrupted(inode: &ImageInode, what: &'static str, value: u64) -> ReadError {
    ReadError::Format(FormatError {
        kind: Kind::Corrupted,
        what,
        pos: inode.iloc,
        value,
    })
}

/// The inode with the given nid.
pub(super) fn iget(sb: &Super<Erofs>, nid: u64) -> Result<InodeRef<Erofs>> {
    let image = sb.info().image()?;
    match sb.iget(image.ino(nid))? {
        Iget::Cached(inode) => {
            // Numbers of different nids differ in a sound image; a made-up handle's need not.
            if inode.data()?.image()?.nid != nid {
                return Err(ESTALE);
            }
            Ok(inode)
        }
        Iget::New(new) => {
            let read = read(new.sb(), image, nid);
            publish(
                new,
                image,
                read.map_err(|err| failed(sb, Place::Nid(nid), err))?,
            )
        }
    }
}

fn read(sb: &Super<Erofs>, image: &Superblock, nid: u64) -> Result<ImageInode, ReadError> {
    let (area, _) = image.iloc(nid)?;
    let inode = ImageInode::read(image, nid, &sb.info().area(area)?)?;
    if inode.is_compressed() && !image.is_compressed() {
        return Err(corrupted(
            &inode,
            "compressed inode in an image without compression",
            0,
        ));
    }
    let bad_link = inode.size == 0 || inode.size > LINK_MAX;
    if matches!(inode.file_type, FileType::Symlink) && bad_link {
        return Err(corrupted(&inode, "symbolic link length", inode.size));
    }
    Ok(inode)
}

fn publish(
    mut new: NewInode<Erofs>,
    image: &Superblock,
    inode: ImageInode,
) -> Result<InodeRef<Erofs>> {
    let fields = Fields {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        nlink: inode.nlink,
        size: inode.size,
        blocks: inode.blocks512,
        mtime: inode.mtime,
        mtime_nsec: inode.mtime_nsec,
        rdev: inode.rdev,
    };
    let nid = inode.nid;
    let has_acl = may_have_acl(new.sb(), image, &inode)
        .map_err(|err| failed(new.sb(), Place::Nid(nid), err))?;
    if !has_acl {
        new.set_no_acl();
    }
    let mut buf = KVec::new();
    let has_link = read_link(new.sb(), image, &inode, &mut buf)
        .map_err(|err| failed(new.sb(), Place::Nid(nid), err))?;
    let data = if inode.is_compressed() {
        Data::Encoded(inode, SetOnce::new())
    } else {
        Data::Image(inode)
    };
    new.publish(&fields, data, has_link.then_some(&*buf))
}

/// Whether looking for ACLs is worth it.
fn may_have_acl(
    sb: &Super<Erofs>,
    image: &Superblock,
    inode: &ImageInode,
) -> Result<bool, ReadError> {
    if inode.xattr_isize == 0 {
        return Ok(false);
    }
    if !image.has_xattr_filter() {
        return Ok(true);
    }
    // What is wrong with the attributes is for their readers to hear.
    let area = sb.info().area(inode.area)?;
    Ok(match XattrHeader::read(image, inode, &area) {
        Ok(Some(header)) => !header.no_acl(image),
        Ok(None) => false,
        Err(ReadError::Format(_)) => true,
        Err(err) => return Err(err),
    })
}

/// Reads a symbolic link's target if it lies in the inode's own block.
fn read_link(
    sb: &Super<Erofs>,
    image: &Superblock,
    inode: &ImageInode,
    buf: &mut KVec<u8>,
) -> Result<bool, ReadError> {
    if !matches!(inode.file_type, FileType::Symlink) {
        return Ok(false);
    }
    let Some((pos, len)) = inode.tail(image)? else {
        return Ok(false);
    };
    if u64::from(len) != inode.size {
        return Ok(false);
    }
    *buf = KVec::from_elem(0u8, len as usize, GFP_KERNEL).map_err(Error::from)?;
    crate::format::source::read_exact(&sb.info().area(inode.area)?, pos, buf)?;
    if buf.contains(&0) {
        return Err(corrupted(inode, "NUL in a symbolic link", inode.size));
    }
    Ok(true)
}

/// The image's inode behind a VFS inode, with the superblock's state.
pub(super) fn parts(inode: &Inode<Erofs>) -> Result<(&ImageInode, &Superblock)> {
    Ok((inode.data()?.image()?, inode.sb().info().image()?))
}
