// SPDX-License-Identifier: GPL-2.0

//! From a byte of a file to the extent that holds it, for compressed layouts.
//!
//! A compressed file is a row of extents. Each has its bytes in one *pcluster*, a run of bytes on
//! disk; or in the packed inode (a *fragment*); or nowhere (a hole). Behind the inode is a
//! [`Header`], and behind that a description of the extents in one of two ways:
//!
//! * *Indexes*: the file is cut into logical clusters (lclusters) of the same size, and for each
//!   there is an entry. It is a *head* if an extent starts in it: then it has the place in the
//!   lcluster where, and the block where the pcluster begins. Else it has the distance back to the
//!   head. Full indexes have 8 bytes for an entry; compact ones share one block number in a pack of
//!   2 entries (4 bytes each) or of 16 entries (2 bytes each).
//! * *Encoded extents*: a sorted table with a record for each extent, of 4, 8, 16 or 32 bytes.

mod extent;
mod extents;
mod header;
mod index;
mod lookup;

pub use extent::{Coding, Data, Pcluster, ZExtent};
pub use header::Header;

use super::{
    compression::{Compression, MAX_DECODED_SIZE, MAX_PCLUSTER_SIZE},
    error::{Error, Kind},
    inode::Inode,
    ondisk::{
        Raw, RawCompactPack, RawCompactPair, RawExtent, RawExtent16, RawExtent4, RawExtent8,
        RawLclusterIndex, RawMapHeader, Structure,
    },
    source::Source,
    superblock::{Area, Superblock},
};
use header::{has_packed, Mode, Tail, ADVISE_FRAGMENT_PCLUSTER, ADVISE_INLINE_PCLUSTER};
use lookup::Lookup;

impl Header {
    /// Reads the header of a compressed inode from its area, and looks up the extent that ends the
    /// file if that one is special.
    ///
    /// # Errors
    ///
    /// `Corrupted`, also if the inode is not compressed or the image has no compression;
    /// `Unsupported` for algorithms that are not known. A fragment in the packed inode itself is
    /// `Corrupted`.
    pub fn read<S: Source>(sb: &Superblock, inode: &Inode, src: &S) -> Result<Self, S::Error> {
        let (mut this, raw) = Self::load(sb, inode, src)?;
        if matches!(this.mode, Mode::Full | Mode::Compact) {
            this.tail = this.find_tail(sb, inode, src, &raw)?;
        }
        Ok(this)
    }

    /// What the file ends with, by an index that is complete else.
    fn find_tail<S: Source>(
        &self,
        sb: &Superblock,
        inode: &Inode,
        src: &S,
        raw: &RawMapHeader,
    ) -> Result<Tail, S::Error> {
        let fragment = self.has(ADVISE_FRAGMENT_PCLUSTER);
        let idata_size = match raw.h_idata_size() {
            size if !fragment && self.has(ADVISE_INLINE_PCLUSTER) => size,
            _ => 0,
        };
        let Some(last) = inode.size.checked_sub(1) else {
            return Ok(Tail::None);
        };
        if !fragment && idata_size == 0 {
            return Ok(Tail::None);
        }
        let mut index = Lookup::new(sb, inode, self, src);
        let entry = index.load(last >> self.lclusterbits)?;
        let behind = entry.behind;
        let head = index.head_of(entry, last & self.lcluster_mask())?;
        if !fragment {
            let block = u64::from(sb.block_size());
            if behind % block + u64::from(idata_size) > block {
                let what = "inline pcluster across blocks";
                return Err(Error::corrupted(what, behind, idata_size.into()).into());
            }
            return Ok(Tail::Inline {
                lcn: head.lcn,
                pa: behind,
                len: idata_size,
            });
        }
        // Full indexes have room for the upper half of the offset.
        let hi = match (self.mode, head.block) {
            (Mode::Full, Some(block)) => block << 32,
            _ => 0,
        };
        Ok(Tail::Fragment {
            lcn: head.lcn,
            pos: hi | u64::from(raw.h_fragmentoff),
        })
    }

    /// The structure that describes extent or lcluster `number`, and its position in the inode's
    /// area. `None` if there is none, because the whole file is a fragment or `number` is past the
    /// end.
    pub fn record<S: Source>(
        &self,
        sb: &Superblock,
        inode: &Inode,
        src: &S,
        number: u64,
    ) -> Result<Option<(Structure, u64)>, S::Error> {
        let lclusters = inode.size.div_ceil(1 << self.lclusterbits);
        let count = match self.mode {
            Mode::Fragment { .. } => 0,
            Mode::Sorted { count } => count,
            Mode::Full | Mode::Compact | Mode::Fixed => lclusters,
        };
        if number >= count {
            return Ok(None);
        }
        let mut index = Lookup::new(sb, inode, self, src);
        let structure = match (self.mode, self.record_size()) {
            (Mode::Full, _) => {
                return Ok(Some((
                    RawLclusterIndex::STRUCTURE,
                    index.full_entry(number)?.at,
                )))
            }
            (Mode::Compact, _) => {
                let pack = index.pack(number)?;
                let structure = if pack.wide() {
                    RawCompactPair::STRUCTURE
                } else {
                    RawCompactPack::STRUCTURE
                };
                return Ok(Some((structure, pack.pos)));
            }
            (_, 4) => RawExtent4::STRUCTURE,
            (_, 8) => RawExtent8::STRUCTURE,
            (_, 16) => RawExtent16::STRUCTURE,
            _ => RawExtent::STRUCTURE,
        };
        Ok(Some((structure, index.record_at(number)?)))
    }
}

/// The extent of a compressed inode that holds byte `la`. At or past the end of the file: an empty
/// hole at `la`.
///
/// `src` is the inode's area, `header` what [`Header::read`] gave for it. The extent has `la` in
/// it, and is whole; except holes, which may come in parts. The work is bounded: a logarithmic
/// number of records, or as many index entries as a pcluster's 12 MiB can have.
///
/// # Errors
///
/// `Corrupted` for all that contradicts itself, for data past the end of the address space, and for
/// algorithms that the superblock does not announce; `Unsupported` for a pcluster of more than 1
/// MiB on disk or 12 MiB decoded.
pub fn map<S: Source>(
    sb: &Superblock,
    compression: &Compression,
    inode: &Inode,
    header: &Header,
    src: &S,
    la: u64,
) -> Result<ZExtent, S::Error> {
    locate(sb, compression, inode, header, src, la, None)
}

/// The extent behind `before`, which [`map`] or this gave for the same inode: the same as `map(…,
/// before.end())`, but also fast where a table has lengths only, which have to be added up from the
/// file's start otherwise.
///
/// # Errors
///
/// As [`map`].
pub fn map_next<S: Source>(
    sb: &Superblock,
    compression: &Compression,
    inode: &Inode,
    header: &Header,
    src: &S,
    before: &ZExtent,
) -> Result<ZExtent, S::Error> {
    locate(
        sb,
        compression,
        inode,
        header,
        src,
        before.end(),
        Some(before),
    )
}

fn locate<S: Source>(
    sb: &Superblock,
    compression: &Compression,
    inode: &Inode,
    header: &Header,
    src: &S,
    la: u64,
    before: Option<&ZExtent>,
) -> Result<ZExtent, S::Error> {
    if la >= inode.size {
        return Ok(ZExtent {
            la,
            llen: 0,
            data: Data::Hole,
        });
    }
    let mut index = Lookup::new(sb, inode, header, src);
    let (extent, at) = match header.mode {
        Mode::Fragment { pos } => (whole(inode, pos), header.start),
        Mode::Full | Mode::Compact => match header.tail {
            Tail::Fragment { lcn: 0, pos } => (whole(inode, pos), header.start),
            _ => index.map(la)?,
        },
        Mode::Fixed => index.map_fixed(la, before)?,
        Mode::Sorted { count } => index.map_sorted(la, count)?,
    };
    Ok(check(sb, compression, inode, extent, la, at)?)
}

/// A file that is all one fragment.
fn whole(inode: &Inode, pos: u64) -> ZExtent {
    ZExtent {
        la: 0,
        llen: inode.size,
        data: Data::Fragment { pos },
    }
}

/// Checks what the rules for all kinds of extents are. `at` is the position of the entry or record.
fn check(
    sb: &Superblock,
    compression: &Compression,
    inode: &Inode,
    extent: ZExtent,
    la: u64,
    at: u64,
) -> Result<ZExtent, Error> {
    let ZExtent {
        la: start, llen, ..
    } = extent;
    if la < start || la - start >= llen || llen > inode.size - start.min(inode.size) {
        return Err(Error::corrupted("extent is not where its data is", at, la));
    }
    match extent.data {
        Data::Hole => {}
        Data::Fragment { pos } => {
            if !has_packed(sb) {
                let what = "fragment in an image without a packed inode";
                return Err(Error::corrupted(what, at, pos));
            }
            if pos
                .checked_add(llen)
                .is_none_or(|end| end > i64::MAX as u64)
            {
                return Err(Error::corrupted("fragment offset", at, pos));
            }
        }
        Data::Pcluster(data) => check_pcluster(sb, compression, inode, &extent, &data, at)?,
    }
    Ok(extent)
}

/// Checks an extent's pcluster. `at` is the position of the entry or record.
fn check_pcluster(
    sb: &Superblock,
    compression: &Compression,
    inode: &Inode,
    extent: &ZExtent,
    data: &Pcluster,
    at: u64,
) -> Result<(), Error> {
    let llen = extent.llen;
    let plen = u64::from(data.plen);
    match data.coding {
        Coding::Compressed(algorithm) => {
            if !compression.has(algorithm) {
                let what = "algorithm that the superblock does not announce";
                return Err(Error::corrupted(what, at, algorithm.number().into()));
            }
            if !data.partial && llen < plen && extent.end() < inode.size {
                return Err(Error::corrupted("too much compressed data", at, plen));
            }
        }
        Coding::Shifted | Coding::Interlaced => {
            if llen > plen {
                return Err(Error::corrupted("not enough plain data", at, plen));
            }
        }
    }
    if data.plen > MAX_PCLUSTER_SIZE {
        let what = "pcluster of more than 1 MiB";
        return Err(Error::new(Kind::Unsupported, what, at, plen));
    }
    if llen > u64::from(MAX_DECODED_SIZE) {
        let what = "pcluster that decodes to more than 12 MiB";
        return Err(Error::new(Kind::Unsupported, what, at, llen));
    }
    let past = Error::corrupted("pcluster past the end of the device", at, data.pa);
    let end = data.pa.checked_add(plen).ok_or(past)?;
    let inside = match (data.inline, inode.area) {
        // The source itself knows where its area ends.
        (true, Area::Image | Area::Metabox) => end <= i64::MAX as u64,
        (false, _) => end >> sb.blkszbits < 1 << 48 && end <= compression.end(),
    };
    if data.plen == 0 || !inside {
        return Err(past);
    }
    Ok(())
}
