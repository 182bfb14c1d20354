// SPDX-License-Identifier: GPL-2.0

//! From an image's inode to the VFS's.

use core::ops::Deref;

use kernel::prelude::*;

use super::{
    report::{failed, Place},
    Erofs,
};
use crate::{
    compat::code::ESTALE,
    format::{
        error::{Error as FormatError, Kind},
        inode::{FileType, Inode as ImageInode},
        source::read_exact,
        superblock::Superblock,
        xattr::XattrHeader,
        zmap,
    },
    io::{once_box::OnceBox, CacheBytes, ReadError},
    vfs::{
        new_inode::{Fields, Iget, NewInode},
        Inode, InodeRef, SuperBlock,
    },
};

/// Longest symbolic link: its target and a NUL fit a page.
const LINK_MAX: u64 = kernel::page::PAGE_SIZE as u64 - 1;

/// What this filesystem knows of an inode.
pub(crate) enum Data {
    /// The metadata cache: the primary device's image, byte for byte.
    Meta,
    /// An inode of the image, and the header of its compressed data once that was read.
    Image(ImageInode, OnceBox<zmap::Header>),
}

impl Data {
    /// The image's inode. `EIO` for internal ones, which are never asked.
    pub(super) fn image(&self) -> Result<&ImageInode> {
        match self {
            Data::Image(inode, _) => Ok(inode),
            Data::Meta => Err(EIO),
        }
    }

    /// Whether it is an inode of the image whose data is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Data::Image(inode, _) if inode.is_compressed())
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
pub(super) fn iget(sb: &SuperBlock<Erofs>, nid: u64) -> Result<InodeRef<Erofs>> {
    let image = sb.info().image()?;
    match sb.iget(image.ino(nid))? {
        Iget::Cached(inode) => {
            // Numbers of different nids differ in a sound image; a made-up handle's need not.
            if inode.data()?.image()?.nid != nid {
                return Err(ESTALE);
            }
            Ok(inode)
        }
        Iget::New(new) => fill(new, sb, image, nid).map_err(|err| failed(sb, Place::Nid(nid), err)),
    }
}

/// Reads a new inode.
fn fill(
    mut new: NewInode<Erofs>,
    sb: &SuperBlock<Erofs>,
    image: &Superblock,
    nid: u64,
) -> Result<InodeRef<Erofs>, ReadError> {
    let (area, iloc) = image.iloc(nid)?;
    let area = sb.info().area(area)?;
    let bytes = area.bytes(iloc)?;
    let (inode, stat) = ImageInode::read_at(image, nid, &bytes, &area)?;
    if inode.is_compressed() && !image.is_compressed() {
        return Err(corrupted(
            &inode,
            "compressed inode in an image without compression",
            0,
        ));
    }
    if !may_have_acl(image, &inode, &area)? {
        new.set_no_acl();
    }
    let target;
    let link = match inode.file_type {
        FileType::Symlink => {
            target = fast_link(image, &inode, &area, &bytes)?;
            target.as_deref()
        }
        _ => None,
    };
    let fields = Fields {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        nlink: stat.nlink,
        size: inode.size,
        blocks: stat.blocks512,
        mtime: stat.mtime,
        mtime_nsec: stat.mtime_nsec,
        rdev: stat.rdev,
    };
    let data = Data::Image(inode, OnceBox::new());
    Ok(new.publish(&fields, data, link)?)
}

/// Whether looking for ACLs is worth it.
fn may_have_acl(
    image: &Superblock,
    inode: &ImageInode,
    area: &CacheBytes<'_>,
) -> Result<bool, ReadError> {
    if inode.xattr_isize == 0 {
        return Ok(false);
    }
    if !image.has_xattr_filter() {
        return Ok(true);
    }
    // What is wrong with the attributes is for their readers to hear.
    Ok(match XattrHeader::read(image, inode, area) {
        Ok(Some(header)) => !header.no_acl(image),
        Ok(None) => false,
        Err(ReadError::Format(_)) => true,
        Err(err) => return Err(err),
    })
}

/// A symbolic link's target if it lies in the inode's own block.
enum FastLink<'a> {
    /// In the bytes that the inode is in.
    AtHand(&'a [u8]),
    Read(KVec<u8>),
}

impl Deref for FastLink<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FastLink::AtHand(target) => target,
            FastLink::Read(target) => target,
        }
    }
}

/// Finds the target of a symbolic link in `bytes`, which begin with the inode, or reads it.
fn fast_link<'a>(
    image: &Superblock,
    inode: &ImageInode,
    area: &CacheBytes<'_>,
    bytes: &'a [u8],
) -> Result<Option<FastLink<'a>>, ReadError> {
    if inode.size == 0 || inode.size > LINK_MAX {
        return Err(corrupted(inode, "symbolic link length", inode.size));
    }
    let Some((pos, len)) = inode.tail(image)? else {
        return Ok(None);
    };
    if u64::from(len) != inode.size {
        return Ok(None);
    }
    let len = len as usize;
    let behind = usize::try_from(pos.wrapping_sub(inode.iloc)).ok();
    let at_hand = behind.and_then(|start| bytes.get(start..)?.get(..len));
    let target = match at_hand {
        Some(target) => FastLink::AtHand(target),
        None => {
            let mut target = KVec::from_elem(0u8, len, GFP_KERNEL).map_err(Error::from)?;
            read_exact(area, pos, &mut target)?;
            FastLink::Read(target)
        }
    };
    if target.contains(&0) {
        return Err(corrupted(inode, "NUL in a symbolic link", inode.size));
    }
    Ok(Some(target))
}

/// The image's inode behind a VFS inode, with the superblock's state.
pub(super) fn parts(inode: &Inode<Erofs>) -> Result<(&ImageInode, &Superblock)> {
    Ok((inode.data()?.image()?, inode.sb().info().image()?))
}
