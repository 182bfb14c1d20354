// SPDX-License-Identifier: GPL-2.0

//! Where a file's bytes are.

use core::{cell::Cell, ops::Range};

use kernel::prelude::*;

use super::{
    inode::{corrupted, parts, Data},
    options::CacheStrategy,
    report::{failed, Place},
    Erofs,
};
use crate::{
    format::{
        compression::Algorithm,
        error::{Error, Kind},
        inode::Inode as ImageInode,
        map,
        superblock::{incompat, Area},
        zmap::{self, Coding, ZExtent},
    },
    io::{
        decode::CompressedSource, memcg::CHARGED, metadata::FolioBytes, once_box::OnceBox,
        CacheBytes, Device, Encoded, Extent, ReadError, Target,
    },
    vfs::Inode,
};

/// What holds the byte at `pos`; a hole from the end of the file on. With `report` inline data is
/// not read, only placed.
pub(super) fn map(inode: &Inode<Erofs>, pos: u64, report: bool) -> Result<Extent<'_>> {
    map_after(inode, pos, report, &Cell::new(None))
}

/// As `map`, for a read that asks for one extent after the other. Where lengths have to be added
/// up from the file's start, each is found from the one before.
pub(super) fn map_in_order<'a>(inode: &'a Inode<Erofs>) -> impl Fn(u64) -> Result<Extent<'a>> + 'a {
    let before = Cell::new(None);
    move |pos| map_after(inode, pos, false, &before)
}

/// As `map`; of a compressed inode `before` is the extent that was found last, if any.
fn map_after<'a>(
    inode: &'a Inode<Erofs>,
    pos: u64,
    report: bool,
    before: &Cell<Option<ZExtent>>,
) -> Result<Extent<'a>> {
    match inode.data()? {
        Data::Meta => meta_map(inode, pos),
        Data::Image(image, header) if image.is_compressed() => {
            encoded_map(inode, header, pos, report, before)
                .map_err(|err| failed(inode.sb(), Place::Nid(image.nid), err))
        }
        Data::Image(image, _) => image_map(inode, pos, report)
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

/// The `len` bytes of inline data at `pa`, and what is behind them in their block.
fn inline_data<'a>(
    image: &ImageInode,
    area: &CacheBytes<'a>,
    pa: u64,
    len: u64,
) -> Result<FolioBytes<'a>, ReadError> {
    let bytes = area.bytes(pa)?;
    if (bytes.len() as u64) < len {
        let what = "inline data past the end of its block";
        return Err(corrupted(image, what, pa));
    }
    Ok(bytes)
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
            let there = if report {
                len
            } else {
                let block = sb.block_size().into();
                readable(device, addr, la..la.saturating_add(len), pos, image, block)?
            };
            Extent {
                offset: la,
                len: there,
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
                Target::Inline(inline_data(image, &area, pa, len)?)
            },
        },
    })
}

/// The extent of a compressed inode that holds `pos`. `before` is one of its extents, if one is
/// known.
fn extent(
    inode: &Inode<Erofs>,
    header: &OnceBox<zmap::Header>,
    pos: u64,
    before: Option<ZExtent>,
) -> Result<ZExtent, ReadError> {
    let (image, sb) = parts(inode)?;
    let info = inode.sb().info();
    let area = info.area(image.area)?;
    let read;
    let header = match header.get() {
        Some(header) => header,
        None => {
            read = zmap::Header::read(sb, image, &area)?;
            // Without memory for it, it is read again.
            let _ = header.get_or_init(read, CHARGED);
            &read
        }
    };
    let compression = info.compression()?;
    match before.filter(|before| before.end() == pos) {
        Some(before) => zmap::map_next(sb, compression, image, header, &area, &before),
        None => zmap::map(sb, compression, image, header, &area, pos),
    }
}

fn encoded_map<'a>(
    inode: &'a Inode<Erofs>,
    header: &OnceBox<zmap::Header>,
    pos: u64,
    report: bool,
    before: &Cell<Option<ZExtent>>,
) -> Result<Extent<'a>, ReadError> {
    let (image, sb) = parts(inode)?;
    let info = inode.sb().info();
    if pos >= image.size {
        return Ok(hole(pos));
    }
    let found = extent(inode, header, pos, before.get())?;
    before.set(Some(found));
    let ZExtent { la, llen, data } = found;
    let target = match data {
        zmap::Data::Hole => Target::Hole,
        zmap::Data::Fragment { .. } if report => Target::EncodedAt(None),
        zmap::Data::Fragment { pos } => {
            // The packed inode may be described in the metabox.
            if sb.metabox_nid == Some(image.nid) {
                return Err(corrupted(image, "fragment in the metabox inode", pos));
            }
            Target::Cached(info.packed_bytes()?, pos)
        }
        zmap::Data::Pcluster(pcluster) if report => {
            let on_disk = !pcluster.inline || matches!(image.area, Area::Image);
            Target::EncodedAt(on_disk.then(|| info.place(0, pcluster.pa)).transpose()?)
        }
        zmap::Data::Pcluster(pcluster) => Target::Encoded(encoded(inode, &pcluster)?),
    };
    Ok(Extent {
        offset: la,
        len: llen,
        target,
    })
}

fn encoded<'a>(
    inode: &'a Inode<Erofs>,
    pcluster: &zmap::Pcluster,
) -> Result<Encoded<'a>, ReadError> {
    let (image, sb) = parts(inode)?;
    let info = inode.sb().info();
    let source = if pcluster.inline {
        let bytes = info.area(image.area)?.bytes(pcluster.pa)?;
        if bytes.len() < pcluster.plen as usize {
            let what = "inline data past the end of its block";
            return Err(corrupted(image, what, pcluster.pa));
        }
        CompressedSource::Inline(bytes)
    } else {
        let (device, addr) = info.place(0, pcluster.pa)?;
        let end = addr.saturating_add(pcluster.plen.into());
        if end > device.bytes() {
            let what = "compressed data past the end of the device";
            return Err(corrupted(image, what, addr));
        }
        CompressedSource::Disk(device, addr)
    };
    Ok(Encoded {
        source,
        plen: pcluster.plen as usize,
        coding: pcluster.coding,
        partial: pcluster.partial,
        block_bits: sb.blkszbits,
        padded: sb.has_incompat(incompat::LZ4_0PADDING),
    })
}

/// These bytes of a compressed inode, and those that are compressed together with them, as far as
/// the mount's `cache_strategy=` wants them kept. An extent has 12 MiB at most.
pub(super) fn expand_to_extents(inode: &Inode<Erofs>, bytes: Range<u64>) -> Range<u64> {
    let Ok(Data::Image(image, header)) = inode.data() else {
        return bytes;
    };
    let Ok((_, sb)) = parts(inode) else {
        return bytes;
    };
    if !image.is_compressed() {
        return bytes;
    }
    // What the image's own inodes hold is other files' and is asked for in small parts.
    let strategy = if image.nid == sb.packed_nid || Some(image.nid) == sb.metabox_nid {
        CacheStrategy::ReadAround
    } else {
        inode.sb().info().options.cache_strategy()
    };
    if strategy == CacheStrategy::Disabled {
        return bytes;
    }
    let page = kernel::page::PAGE_SIZE as u64;
    let end = bytes.end.min(image.size);
    let Some(last) = end.checked_sub(1).filter(|last| *last >= bytes.start) else {
        return bytes;
    };
    // Ignore errors here: the read itself reports them.
    let whole = |pos: u64| match extent(inode, header, pos, None) {
        Ok(extent) => match extent.data {
            zmap::Data::Pcluster(pcluster) => Some((extent, pcluster.coding)),
            _ => None,
        },
        Err(_) => None,
    };
    let first = whole(bytes.start);
    let start = match &first {
        Some((extent, _)) if strategy == CacheStrategy::ReadAround => {
            extent.la.next_multiple_of(page).min(bytes.start)
        }
        _ => bytes.start,
    };
    let at_last = match first {
        Some((extent, coding)) if extent.end() > last => Some((extent, coding)),
        _ => whole(last),
    };
    let end = match at_last {
        // A jump to a single page: LZ4 need not decode what is behind it.
        Some((_, Coding::Compressed(Algorithm::Lz4))) if bytes.end - bytes.start <= page => {
            bytes.end
        }
        Some((extent, _)) => extent.end().max(bytes.end),
        None => bytes.end,
    };
    start..end
}

/// Says that the extent at byte `pos` of a file cannot be decoded.
pub(super) fn report(inode: &Inode<Erofs>, pos: u64, what: &'static str) {
    if let Ok((image, _)) = parts(inode) {
        let err = Error {
            kind: Kind::Corrupted,
            what,
            pos,
            value: image.iloc,
        };
        failed(inode.sb(), Place::Data(image.nid), err);
    }
}

/// How many bytes of an extent that is said to lie from byte `addr` of a device on can be read:
/// all, or whole blocks up to the device's end. An error if the byte at `pos` is not among them.
///
/// What a file has not, the end of its last block, need not be there.
fn readable(
    device: &Device,
    addr: u64,
    extent: Range<u64>,
    pos: u64,
    image: &crate::format::inode::Inode,
    block: u64,
) -> Result<u64, ReadError> {
    let there = device.bytes().saturating_sub(addr);
    let bytes = extent.end.min(image.size).saturating_sub(extent.start);
    if there >= bytes {
        return Ok(extent.end - extent.start);
    }
    let whole = there - there % block;
    if pos.saturating_sub(extent.start) < whole {
        return Ok(whole);
    }
    Err(ReadError::Format(Error {
        kind: Kind::Missing,
        what: "data past the end of the device",
        pos: image.iloc,
        value: addr.saturating_add(pos.saturating_sub(extent.start)),
    }))
}
