// SPDX-License-Identifier: GPL-2.0

//! Where a file's bytes are.

use kernel::prelude::*;

use super::{
    inode::{corrupted, parts, Data},
    report::{failed, Place},
    Erofs,
};
use crate::{
    format::{map, superblock::Area},
    io::{Device, Extent, ReadError, Target},
    vfs::Inode,
};

/// Refuses compressed data, which cannot be read yet. Says so once for each mount.
pub(super) fn may_read(inode: &Inode<Erofs>) -> Result {
    let Data::Image(image) = inode.data()? else {
        return Ok(());
    };
    if !image.is_compressed() {
        return Ok(());
    }
    if inode.sb().info().first_compressed_read() {
        pr_err!(
            "(device {}): nid {}: reading compressed data is not supported yet\n",
            inode.sb().id(),
            image.nid
        );
    }
    Err(EOPNOTSUPP)
}

/// What holds the byte at `pos`; a hole from the end of the file on. With `report` inline data is not
/// read, only placed.
pub(super) fn map(inode: &Inode<Erofs>, pos: u64, report: bool) -> Result<Extent<'_>> {
    match inode.data()? {
        Data::Meta => meta_map(inode, pos),
        Data::Image(image) if image.is_compressed() => {
            may_read(inode)?;
            Err(EOPNOTSUPP)
        }
        Data::Image(image) => image_map(inode, pos, report)
            .map_err(|err| failed(inode.sb(), Place::Nid(image.nid), err)),
    }
}

/// The metadata cache maps the primary device one to one.
fn meta_map(inode: &Inode<Erofs>, pos: u64) -> Result<Extent<'_>> {
    let size = inode.size();
    if pos >= size {
        return Ok(hole(pos));
    }
    let len = size.next_multiple_of(kernel::page::PAGE_SIZE as u64);
    Ok(Extent {
        offset: 0,
        len,
        target: Target::Disk(inode.sb().info().primary()?, 0),
    })
}

/// What is behind the end of a file.
fn hole<'a>(pos: u64) -> Extent<'a> {
    Extent {
        offset: pos,
        len: (i64::MAX as u64).saturating_sub(pos).max(1),
        target: Target::Hole,
    }
}

fn image_map(inode: &Inode<Erofs>, pos: u64, report: bool) -> Result<Extent<'_>, ReadError> {
    let (image, sb) = parts(inode)?;
    let info = inode.sb().info();
    if pos >= image.size {
        return Ok(hole(pos));
    }
    let area = info.area(image.area)?;
    Ok(match map::map_blocks(sb, image, &area, pos)? {
        map::Extent::Hole { la, len } => Extent {
            offset: la,
            len,
            target: Target::Hole,
        },
        map::Extent::Mapped {
            la,
            len,
            device,
            pa,
        } => {
            let (device, addr) = info.place(device, pa)?;
            check(device, addr, image)?;
            Extent {
                offset: la,
                len,
                target: Target::Disk(device, addr),
            }
        }
        map::Extent::Inline { la, len, pa } => Extent {
            offset: la,
            len,
            target: if report {
                let on_disk = matches!(image.area, Area::Image);
                Target::InlineAt(on_disk.then(|| info.place(0, pa)).transpose()?)
            } else {
                let bytes = area.bytes(pa)?;
                if (bytes.len() as u64) < len {
                    return Err(corrupted(
                        image,
                        "inline data past the end of its block",
                        pa,
                    ));
                }
                Target::Inline(bytes)
            },
        },
    })
}

/// An extent that starts behind its device's end is nonsense. One that only ends there reads as far as
/// there are bytes.
fn check(device: &Device, addr: u64, image: &crate::format::inode::Inode) -> Result<(), ReadError> {
    if addr < device.bytes() {
        return Ok(());
    }
    Err(corrupted(
        image,
        "data address past the end of the device",
        addr,
    ))
}
