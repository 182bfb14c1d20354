// SPDX-License-Identifier: GPL-2.0

//! From a byte of a file to the extent that holds it, for compressed layouts.
//!
//! A compressed file is a row of extents. Each has its bytes in one *pcluster*, a run of bytes on disk; or
//! in the packed inode (a *fragment*); or nowhere (a hole). Behind the inode is a [`Header`], and behind
//! that a description of the extents in one of two ways:
//!
//! * *Indexes*: the file is cut into logical clusters (lclusters) of the same size, and for each there is an
//!   entry. It is a *head* if an extent starts in it: then it has the place in the lcluster where, and the
//!   block where the pcluster begins. Else it has the distance back to the head. Full indexes have 8 bytes
//!   for an entry; compact ones share one block number in a pack of 2 entries (4 bytes each) or of 16
//!   entries (2 bytes each).
//! * *Encoded extents*: a sorted table with a record for each extent, of 4, 8, 16 or 32 bytes.

use super::{
    compression::{Algorithm, Compression, MAX_DECODED_SIZE, MAX_PCLUSTER_SIZE},
    error::{Error, Kind},
    inode::{Inode, Layout},
    ondisk::{
        compact_pack, compact_pair, extent16, extent32, extent4, extent8, extents_start,
        lcluster_index, map_header, Structure,
    },
    source::{read_exact, Source},
    superblock::{Area, Superblock},
};

/// `struct z_erofs_map_header`
const HEADER_SIZE: u64 = map_header::SIZE as u64;
/// What full indexes have between the header and the first entry.
const FULL_GAP: u64 = 8;
/// `struct z_erofs_lcluster_index`
const FULL_SIZE: u64 = lcluster_index::SIZE as u64;

/// `Z_EROFS_FRAGMENT_INODE_BIT` of `h_clusterbits`: the whole file is in the packed inode.
const FRAGMENT_INODE: u64 = 1 << 63;

/// `Z_EROFS_ADVISE_COMPACTED_2B`, of compact indexes.
const ADVISE_COMPACTED_2B: u16 = 0x01;
/// `Z_EROFS_ADVISE_EXTENTS`, of the full layout.
const ADVISE_EXTENTS: u16 = 0x01;
const ADVISE_BIG_PCLUSTER_1: u16 = 0x02;
const ADVISE_BIG_PCLUSTER_2: u16 = 0x04;
const ADVISE_INLINE_PCLUSTER: u16 = 0x08;
const ADVISE_INTERLACED_PCLUSTER: u16 = 0x10;
const ADVISE_FRAGMENT_PCLUSTER: u16 = 0x20;

/// `Z_EROFS_LI_PARTIAL_REF`
const LI_PARTIAL_REF: u16 = 1 << 15;
/// `Z_EROFS_LI_HOLE`
const LI_HOLE: u16 = 1 << 14;
/// `Z_EROFS_LI_D0_CBLKCNT`: the distance is the pcluster's size in blocks instead.
const D0_CBLKCNT: u32 = 1 << 11;

/// `Z_EROFS_EXTENT_PLEN_PARTIAL`
const PLEN_PARTIAL: u32 = 1 << 27;
const PLEN_FORMAT_SHIFT: u32 = 28;
/// `Z_EROFS_EXTENT_PLEN_MASK`
const PLEN_MASK: u32 = (MAX_PCLUSTER_SIZE << 1) - 1;

/// Entries that one look-up follows back to a head, or forward to the next one. A pcluster decodes to
/// 12 MiB at most, which is so many of the smallest lclusters.
const MAX_STEPS: u32 = MAX_DECODED_SIZE >> 9;
/// Records of 4 bytes that one look-up adds up: those of 64 GiB in lclusters of 4 KiB.
const MAX_RECORDS: u64 = 1 << 24;

/// How the bytes of a pcluster become a file's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// They are the file's: `llen` bytes from the pcluster's start on.
    Shifted,
    /// They are the file's, with the blocks kept where the file's block boundaries are. The first
    /// `block - la % block` bytes of the extent (or all, if it has less) are the ones that end the
    /// pcluster's last block; the rest starts at the pcluster's start. `pa` and `plen` are whole blocks.
    Interlaced,
    /// Compressed. Zeros may come before the data, in the first block only (not for LZ4 if the image
    /// lacks `LZ4_0PADDING`: there they come behind it).
    Compressed(Algorithm),
}

/// A run of bytes on disk that decodes to (at least) an extent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pcluster {
    /// First byte, in the unified address space (device id 0); for `inline` in the inode's area.
    pub pa: u64,
    /// Length in bytes, 1 to [`MAX_PCLUSTER_SIZE`].
    pub plen: u32,
    /// In the metadata behind the inode (`ztailpacking`), within one block.
    pub inline: bool,
    /// What to do with the bytes.
    pub coding: Coding,
    /// The bytes decode to more than the extent: only the first `llen` count (`dedupe`). Otherwise they
    /// decode to exactly `llen` bytes.
    pub partial: bool,
}

/// Where an extent's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// Zeros.
    Hole,
    /// In the packed inode's data, from `pos` on; `pos + llen` is below 2^63. Whether the packed inode is
    /// as long as that is for the caller to check.
    Fragment {
        /// First byte.
        pos: u64,
    },
    /// In a pcluster.
    Pcluster(Pcluster),
}

/// A range of a compressed file's bytes with one backing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZExtent {
    /// First byte in the file.
    pub la: u64,
    /// Length in bytes, never past the end of the file; for a pcluster at most [`MAX_DECODED_SIZE`].
    pub llen: u64,
    /// Where they are.
    pub data: Data,
}

impl ZExtent {
    /// The file's byte behind the extent.
    pub fn end(&self) -> u64 {
        self.la.saturating_add(self.llen)
    }

    /// Where plain data is: the byte of the pcluster that is the extent's byte `offset`, and how many of the
    /// extent's bytes follow in a row from there. `None` if the extent has no plain data at `offset`.
    pub fn plain(&self, sb: &Superblock, offset: u64) -> Option<(u32, u32)> {
        let Data::Pcluster(data) = self.data else {
            return None;
        };
        let left = self.llen.checked_sub(offset).filter(|left| *left != 0)?;
        let (from, len) = match data.coding {
            Coding::Compressed(_) => return None,
            Coding::Shifted => (offset, left),
            Coding::Interlaced => {
                let block = u64::from(sb.block_size());
                let first = block - self.la % block;
                match offset.checked_sub(first) {
                    Some(from) => (from, left),
                    None => (
                        u64::from(data.plen).checked_sub(first)? + offset,
                        left.min(first - offset),
                    ),
                }
            }
        };
        Some((u32::try_from(from).ok()?, u32::try_from(len).ok()?))
    }
}

/// How a file's extents are described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Nothing is: the whole file is a fragment.
    Fragment { pos: u64 },
    /// Full indexes.
    Full,
    /// Compact indexes.
    Compact,
    /// Records of 4 or 8 bytes for extents of one lcluster each.
    Fixed,
    /// Records of 16 or 32 bytes.
    Sorted { count: u64 },
}

/// What a file with indexes has at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    /// Nothing special.
    None,
    /// The extent whose head is `lcn` has its pcluster behind the inode.
    Inline { lcn: u64, pa: u64, len: u16 },
    /// The extent whose head is `lcn` is a fragment.
    Fragment { lcn: u64, pos: u64 },
}

/// The header of a compressed inode, checked, and what was found out about its tail. Made once for an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    mode: Mode,
    advise: u16,
    algorithms: [Algorithm; 2],
    lclusterbits: u8,
    /// Where entries or records start; for compact indexes the end of the header.
    start: u64,
    tail: Tail,
}

/// Whether there is an inode whose data fragments are in.
fn has_packed(sb: &Superblock) -> bool {
    sb.has_fragments() && sb.packed_nid != 0
}

/// Whether the inode is the one whose data fragments are in.
fn is_packed(sb: &Superblock, inode: &Inode) -> bool {
    has_packed(sb) && inode.nid == sb.packed_nid
}

impl Header {
    /// Reads the header of a compressed inode from its area, and looks up the extent that ends the file
    /// if that one is special.
    ///
    /// # Errors
    ///
    /// `Corrupted`, also if the inode is not compressed or the image has no compression; `Unsupported` for
    /// algorithms that are not known. A fragment in the packed inode itself is `Corrupted`.
    pub fn read<S: Source>(sb: &Superblock, inode: &Inode, src: &S) -> Result<Self, S::Error> {
        let compact = match inode.layout {
            Layout::CompressedFull => false,
            Layout::CompressedCompact => true,
            _ => {
                return Err(Error::corrupted("not a compressed inode", inode.iloc, 0).into());
            }
        };
        if !sb.is_compressed() {
            let what = "compressed inode in an image without compression";
            return Err(Error::corrupted(what, inode.iloc, inode.nid).into());
        }
        let pos = inode
            .body_end()?
            .checked_next_multiple_of(8)
            .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))?;
        let mut raw = [0u8; map_header::SIZE];
        read_exact(src, pos, &mut raw)?;
        let word = map_header::WORD.get(&raw);
        let mut this = Self {
            mode: Mode::Full,
            advise: map_header::H_ADVISE.get(&raw),
            algorithms: [Algorithm::Lz4; 2],
            lclusterbits: sb.blkszbits + map_header::LCLUSTERBITS.get(&raw),
            start: pos
                .checked_add(HEADER_SIZE + FULL_GAP + FULL_SIZE)
                .map(|_| pos + HEADER_SIZE)
                .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))?,
            tail: Tail::None,
        };
        if word & FRAGMENT_INODE != 0 {
            this.mode = Mode::Fragment {
                pos: map_header::FRAGMENT.get(&raw),
            };
            this.advise = ADVISE_FRAGMENT_PCLUSTER;
            if is_packed(sb, inode) {
                return Err(Error::corrupted("fragment in the packed inode", pos, word).into());
            }
            return Ok(this);
        }
        if this.advise & ADVISE_FRAGMENT_PCLUSTER != 0 && is_packed(sb, inode) {
            return Err(Error::corrupted("fragment in the packed inode", pos + 4, word).into());
        }
        if !compact && this.advise & ADVISE_EXTENTS != 0 {
            let size = this.record_size();
            this.start = this
                .start
                .checked_next_multiple_of(size)
                .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))?;
            this.mode = if size <= 8 {
                Mode::Fixed
            } else {
                Mode::Sorted {
                    count: u64::from(map_header::H_EXTENTS_LO.get(&raw))
                        | (u64::from(map_header::H_EXTENTS_HI.get(&raw)) << 32),
                }
            };
            return Ok(this);
        }
        let numbers = [map_header::HEAD1.get(&raw), map_header::HEAD2.get(&raw)];
        for (to, number) in this.algorithms.iter_mut().zip(numbers) {
            *to = Algorithm::from_number(number.into()).ok_or(Error::new(
                Kind::Unsupported,
                "h_algorithmtype is not known",
                pos + 6,
                map_header::H_ALGORITHMTYPE.get(&raw).into(),
            ))?;
        }
        let (big1, big2) = (
            this.has(ADVISE_BIG_PCLUSTER_1),
            this.has(ADVISE_BIG_PCLUSTER_2),
        );
        if (big1 || big2) && !sb.has_incompat(super::superblock::incompat::COMPR_CFGS) {
            let what = "h_advise: big pclusters, which the superblock does not know of";
            return Err(Error::corrupted(what, pos + 4, this.advise.into()).into());
        }
        if compact {
            this.mode = Mode::Compact;
            if big1 != big2 {
                let what = "h_advise: big pclusters for one head type only";
                return Err(Error::corrupted(what, pos + 4, this.advise.into()).into());
            }
        } else {
            this.start += FULL_GAP;
        }
        this.tail = this.find_tail(sb, inode, src, &raw)?;
        Ok(this)
    }

    /// What the file ends with, by an index that is complete else.
    fn find_tail<S: Source>(
        &self,
        sb: &Superblock,
        inode: &Inode,
        src: &S,
        raw: &[u8; map_header::SIZE],
    ) -> Result<Tail, S::Error> {
        let fragment = self.has(ADVISE_FRAGMENT_PCLUSTER);
        let idata_size = match map_header::H_IDATA_SIZE.get(raw) {
            size if !fragment && self.has(ADVISE_INLINE_PCLUSTER) => size,
            _ => 0,
        };
        let Some(last) = inode.size.checked_sub(1) else {
            return Ok(Tail::None);
        };
        if !fragment && idata_size == 0 {
            return Ok(Tail::None);
        }
        let mut index = Index::new(sb, inode, self, src);
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
            pos: hi | u64::from(map_header::H_FRAGMENTOFF.get(raw)),
        })
    }

    fn has(&self, advise: u16) -> bool {
        self.advise & advise != 0
    }

    /// Size of a record of encoded extents: 4, 8, 16 or 32.
    fn record_size(&self) -> u64 {
        4 << ((self.advise >> 1) & 3)
    }

    /// Logarithm of the size of lclusters: that of blocks and up to 15 more. (Unused by records of 16 and
    /// 32 bytes.)
    pub fn lclusterbits(&self) -> u32 {
        self.lclusterbits.into()
    }

    fn lcluster_mask(&self) -> u64 {
        (1 << self.lclusterbits) - 1
    }

    /// Whether any part of the file may be in the packed inode.
    pub fn has_fragment(&self) -> bool {
        self.has(ADVISE_FRAGMENT_PCLUSTER)
    }

    /// The whole file is in the packed inode: from which byte on.
    pub fn whole_fragment(&self) -> Option<u64> {
        match (self.mode, self.tail) {
            (Mode::Fragment { pos }, _) | (_, Tail::Fragment { lcn: 0, pos }) => Some(pos),
            _ => None,
        }
    }

    /// The structure that describes extent or lcluster `number`, and its position in the inode's area. `None`
    /// if there is none, because the whole file is a fragment or `number` is past the end.
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
        let mut index = Index::new(sb, inode, self, src);
        let structure = match (self.mode, self.record_size()) {
            (Mode::Full, _) => {
                return Ok(Some((
                    lcluster_index::STRUCTURE,
                    index.full_entry(number)?.at,
                )))
            }
            (Mode::Compact, _) => {
                let pack = index.pack(number)?;
                let structure = if pack.wide() {
                    compact_pair::STRUCTURE
                } else {
                    compact_pack::STRUCTURE
                };
                return Ok(Some((structure, pack.pos)));
            }
            (_, 4) => extent4::STRUCTURE,
            (_, 8) => extent8::STRUCTURE,
            (_, 16) => extent16::STRUCTURE,
            _ => extent32::STRUCTURE,
        };
        Ok(Some((structure, index.record_at(number)?)))
    }

    /// In words: the kind of index or table.
    pub fn layout_name(&self) -> &'static str {
        match self.mode {
            Mode::Fragment { .. } => "fragment",
            Mode::Full => "full indexes",
            Mode::Compact if self.has(ADVISE_COMPACTED_2B) => "compact indexes (2 bytes)",
            Mode::Compact => "compact indexes (4 bytes)",
            Mode::Fixed if self.record_size() == 4 => "extents (4 bytes)",
            Mode::Fixed => "extents (8 bytes)",
            Mode::Sorted { .. } if self.record_size() == 16 => "extents (16 bytes)",
            Mode::Sorted { .. } => "extents (32 bytes)",
        }
    }
}

/// The extent of a compressed inode that holds byte `la`. At or past the end of the file: an empty hole at
/// `la`.
///
/// `src` is the inode's area, `header` what [`Header::read`] gave for it. The extent has `la` in it, and
/// is whole; except holes, which may come in parts. The work is bounded: a logarithmic number of records,
/// or as many index entries as a pcluster's 12 MiB can have.
///
/// # Errors
///
/// `Corrupted` for all that contradicts itself, for data past the end of the address space, and for
/// algorithms that the superblock does not announce; `Unsupported` for a pcluster of more than 1 MiB on
/// disk or 12 MiB decoded.
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

/// The extent behind `before`, which [`map`] or this gave for the same inode: the same as
/// `map(…, before.end())`, but also fast where a table has lengths only, which have to be added up from
/// the file's start otherwise.
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
    let mut index = Index::new(sb, inode, header, src);
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
    let data = match extent.data {
        Data::Hole => return Ok(extent),
        Data::Fragment { pos } => {
            if !has_packed(sb) {
                let what = "fragment in an image without a packed inode";
                return Err(Error::corrupted(what, at, pos));
            }
            return match pos.checked_add(llen) {
                Some(end) if end <= i64::MAX as u64 => Ok(extent),
                _ => Err(Error::corrupted("fragment offset", at, pos)),
            };
        }
        Data::Pcluster(data) => data,
    };
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
    Ok(extent)
}

/// Bytes of the inode's area, with the unit that was read last at hand.
struct Window<'s, S: Source> {
    src: &'s S,
    last: Option<(u64, S::Buf<'s>)>,
}

impl<S: Source> Window<'_, S> {
    /// `N` bytes from `pos` on.
    fn read<const N: usize>(&mut self, pos: u64) -> Result<[u8; N], S::Error> {
        let mut out = [0u8; N];
        if !self.copy(pos, &mut out) {
            // From a bit before, for the entries that come before this one.
            let start = pos & !511;
            self.last = None;
            self.last = Some((start, self.src.bread(start)?));
            if !self.copy(pos, &mut out) {
                read_exact(self.src, pos, &mut out)?;
            }
        }
        Ok(out)
    }

    fn copy(&self, pos: u64, out: &mut [u8]) -> bool {
        let Some((start, bytes)) = &self.last else {
            return false;
        };
        let from = pos
            .checked_sub(*start)
            .and_then(|from| usize::try_from(from).ok())
            .and_then(|from| bytes.get(from..from.checked_add(out.len())?));
        match from {
            Some(from) => {
                out.copy_from_slice(from);
                true
            }
            None => false,
        }
    }
}

/// Types of lclusters, `Z_EROFS_LCLUSTER_TYPE_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Plain,
    Head1,
    Nonhead,
    Head2,
}

impl Type {
    fn of(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Plain,
            1 => Self::Head1,
            2 => Self::Nonhead,
            _ => Self::Head2,
        }
    }
}

/// The start of an extent.
#[derive(Clone, Copy, Debug)]
struct Head {
    lcn: u64,
    kind: Type,
    /// Where in the lcluster.
    offset: u64,
    /// First block of its pcluster; `None` for a hole.
    block: Option<u64>,
    partial: bool,
}

/// An index entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    lcn: u64,
    /// Its position.
    at: u64,
    /// The byte behind the entry, or behind its pack.
    behind: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Head(Head),
    /// Distance back to the head, and the pcluster's size in blocks if the entry has it.
    Nonhead {
        back: u32,
        blocks: Option<u32>,
    },
}

/// A pack of compact entries: 2 of 16 bits or 16 of 14 bits, and behind them a block number.
struct Pack {
    bytes: [u8; compact_pack::SIZE],
    count: u32,
    /// Bits below the type.
    lobits: u32,
    /// Entry of the pack that was looked for.
    number: u32,
    pos: u64,
    behind: u64,
}

impl Pack {
    /// Whether it has 2 entries, of 4 bytes each with their half of the block number.
    fn wide(&self) -> bool {
        self.count == 2
    }

    /// Type and low bits of an entry.
    fn get(&self, number: u32) -> (Type, u32) {
        let value = if self.wide() {
            compact_pair::ENTRY.nth(&self.bytes, number)
        } else {
            compact_pack::ENTRY.nth(&self.bytes, number)
        };
        (
            Type::of(value >> self.lobits),
            value & ((1 << self.lobits) - 1),
        )
    }

    /// The block number at its end.
    fn base(&self) -> u32 {
        if self.wide() {
            compact_pair::BLKADDR.get(&self.bytes)
        } else {
            compact_pack::BLKADDR.get(&self.bytes)
        }
    }
}

/// The description of one inode's extents.
struct Index<'a, S: Source> {
    sb: &'a Superblock,
    inode: &'a Inode,
    header: &'a Header,
    window: Window<'a, S>,
}

impl<'a, S: Source> Index<'a, S> {
    fn new(sb: &'a Superblock, inode: &'a Inode, header: &'a Header, src: &'a S) -> Self {
        Self {
            sb,
            inode,
            header,
            window: Window { src, last: None },
        }
    }

    fn compact(&self) -> bool {
        self.header.mode == Mode::Compact
    }

    fn lcluster(&self) -> u64 {
        1 << self.header.lclusterbits
    }

    /// The entry of an lcluster.
    fn load(&mut self, lcn: u64) -> Result<Entry, S::Error> {
        let entry = if self.compact() {
            let pack = self.pack(lcn)?;
            self.compact_entry(lcn, &pack)?
        } else {
            self.full_entry(lcn)?
        };
        if let What::Head(head) = &entry.what {
            if head.offset >= self.lcluster() {
                let what = "index: offset behind the lcluster";
                return Err(Error::corrupted(what, entry.at, head.offset).into());
            }
        }
        Ok(entry)
    }

    fn full_entry(&mut self, lcn: u64) -> Result<Entry, S::Error> {
        let at = lcn
            .checked_mul(FULL_SIZE)
            .and_then(|offset| offset.checked_add(self.header.start))
            .filter(|at| *at <= i64::MAX as u64)
            .ok_or(Error::corrupted("index position", self.header.start, lcn))?;
        let raw: [u8; lcluster_index::SIZE] = self.window.read(at)?;
        let advise = lcluster_index::DI_ADVISE.get(&raw);
        let what = match Type::of(lcluster_index::TYPE.get(&raw).into()) {
            Type::Nonhead => {
                let delta = u32::from(lcluster_index::DELTA0.get(&raw));
                if delta & D0_CBLKCNT == 0 {
                    What::Nonhead {
                        back: delta,
                        blocks: None,
                    }
                } else {
                    if !self
                        .header
                        .has(ADVISE_BIG_PCLUSTER_1 | ADVISE_BIG_PCLUSTER_2)
                    {
                        let what = "index: a size in blocks, but no big pclusters";
                        return Err(Error::corrupted(what, at, delta.into()).into());
                    }
                    What::Nonhead {
                        back: 1,
                        blocks: Some(delta & !D0_CBLKCNT),
                    }
                }
            }
            kind => What::Head(Head {
                lcn,
                kind,
                offset: lcluster_index::DI_CLUSTEROFS.get(&raw).into(),
                block: (advise & LI_HOLE == 0).then_some(lcluster_index::BLKADDR.get(&raw).into()),
                partial: advise & LI_PARTIAL_REF != 0,
            }),
        };
        Ok(Entry {
            lcn,
            at,
            behind: at + FULL_SIZE,
            what,
        })
    }

    /// The pack that has the entry of an lcluster.
    fn pack(&mut self, lcn: u64) -> Result<Pack, S::Error> {
        let start = self.header.start;
        let bits = self.header.lclusterbits();
        // In blocks, whatever the size of lclusters is: upstream's reading of the format.
        let total = self.inode.size.div_ceil(self.sb.block_size().into());
        if lcn >= total {
            return Err(Error::corrupted("lcluster past the end", start, lcn).into());
        }
        // Entries of 4 bytes up to a multiple of 32, then packs of 16 with 2 bytes each, then 4 again.
        let first = ((32 - start % 32) / 4) & 7;
        let narrow = if self.header.has(ADVISE_COMPACTED_2B) && first < total {
            (total - first) & !15
        } else {
            0
        };
        let (width, offset) = if lcn < first {
            (4, lcn * 4)
        } else if lcn - first < narrow {
            (2, first * 4 + (lcn - first) * 2)
        } else {
            (4, (lcn - narrow) * 4 + narrow * 2)
        };
        let (count, most_bits) = if width == 2 { (16u32, 12) } else { (2, 14) };
        if bits > most_bits {
            let what = "compact indexes for such large lclusters";
            return Err(Error::new(Kind::Unsupported, what, start, bits.into()).into());
        }
        let size = width * u64::from(count);
        let at = start
            .checked_add(offset)
            .filter(|at| *at <= i64::MAX as u64)
            .ok_or(Error::corrupted("index position", start, lcn))?;
        let pos = at - at % size;
        let mut bytes = [0u8; compact_pack::SIZE];
        if width == 2 {
            bytes = self.window.read(pos)?;
        } else {
            let pair: [u8; compact_pair::SIZE] = self.window.read(pos)?;
            if let Some(to) = bytes.get_mut(..pair.len()) {
                to.copy_from_slice(&pair);
            }
        }
        Ok(Pack {
            bytes,
            count,
            lobits: bits.max(12),
            number: ((at - pos) / width) as u32,
            pos,
            behind: pos + size,
        })
    }

    fn compact_entry(&self, lcn: u64, pack: &Pack) -> Result<Entry, Error> {
        let number = pack.number;
        let (kind, lo) = pack.get(number);
        let what = if kind != Type::Nonhead {
            What::Head(Head {
                lcn,
                kind,
                offset: lo.into(),
                block: Some(self.block_of(pack)?.into()),
                partial: false,
            })
        } else if lo & D0_CBLKCNT != 0 {
            if !self.header.has(ADVISE_BIG_PCLUSTER_1) {
                let what = "index: a size in blocks, but no big pclusters";
                return Err(Error::corrupted(what, pack.pos, lo.into()));
            }
            What::Nonhead {
                back: 1,
                blocks: Some(lo & !D0_CBLKCNT),
            }
        } else if number + 1 != pack.count {
            What::Nonhead {
                back: lo,
                blocks: None,
            }
        } else {
            // The last one of a pack has the distance to the next head; the one before tells the other.
            let back = match number.checked_sub(1).map(|before| pack.get(before)) {
                Some((Type::Nonhead, lo)) if lo & D0_CBLKCNT != 0 => 2,
                Some((Type::Nonhead, lo)) => lo + 1,
                _ => 1,
            };
            What::Nonhead { back, blocks: None }
        };
        Ok(Entry {
            lcn,
            at: pack.pos,
            behind: pack.behind,
            what,
        })
    }

    /// First block of the pcluster of the head that was looked for: the pack's block number and the sizes
    /// of the pclusters that come before it in the pack.
    fn block_of(&self, pack: &Pack) -> Result<u32, Error> {
        let mut left = pack.number;
        // Less than 2^14 for each of at most 16 entries.
        let mut blocks;
        if self.header.has(ADVISE_BIG_PCLUSTER_1) {
            blocks = 0;
            while let Some(number) = left.checked_sub(1) {
                left = number;
                match pack.get(number) {
                    (Type::Nonhead, lo) if lo & D0_CBLKCNT != 0 => {
                        // Its head is before it, and counted by this.
                        left = left.saturating_sub(1);
                        blocks += lo & !D0_CBLKCNT;
                    }
                    (Type::Nonhead, lo) => {
                        // On to the entry with the size, which is behind the head.
                        let skip = lo.checked_sub(2).ok_or(Error::corrupted(
                            "index: distance to a head that has no size",
                            pack.pos,
                            lo.into(),
                        ))?;
                        left = left.saturating_sub(skip);
                    }
                    _ => blocks += 1,
                }
            }
        } else {
            blocks = 1;
            while let Some(number) = left.checked_sub(1) {
                left = number;
                let back = match pack.get(number) {
                    (Type::Nonhead, lo) => lo,
                    _ => 0,
                };
                match left.checked_sub(back) {
                    Some(head) => {
                        left = head;
                        blocks += 1;
                    }
                    None => break,
                }
            }
        }
        // As upstream: a pack's number is one less than its first block, which may be block 0.
        Ok(pack.base().wrapping_add(blocks))
    }

    /// The head of the extent that has byte `offset` of the entry's lcluster.
    fn head_of(&mut self, entry: Entry, offset: u64) -> Result<Head, S::Error> {
        let mut entry = entry;
        let mut back = match entry.what {
            What::Head(head) if offset >= head.offset => return Ok(head),
            // What comes before the head belongs to the extent before.
            What::Head(_) => 1,
            What::Nonhead { back, .. } => back,
        };
        for _ in 0..MAX_STEPS {
            let lcn = match entry.lcn.checked_sub(back.into()) {
                Some(lcn) if back != 0 => lcn,
                _ => break,
            };
            entry = self.load(lcn)?;
            match entry.what {
                What::Head(head) => return Ok(head),
                What::Nonhead { back: more, .. } => back = more,
            }
        }
        Err(Error::corrupted("index: distance back to a head", entry.at, back.into()).into())
    }

    /// Bytes of a head's pcluster.
    fn pcluster_len(&mut self, head: &Head, at: u64) -> Result<u64, S::Error> {
        let big = match head.kind {
            Type::Head1 => ADVISE_BIG_PCLUSTER_1,
            _ => ADVISE_BIG_PCLUSTER_2,
        };
        // `lcn` is that of an lcluster within the file's 2^63 bytes.
        let next = head.lcn + 1;
        let blocks = if !self.header.has(big) || next << self.header.lclusterbits >= self.inode.size
        {
            1
        } else {
            match self.load(next)?.what {
                // An extent that ends in the next lcluster has no room for a size.
                What::Head(_) => 1,
                What::Nonhead {
                    blocks: Some(blocks),
                    ..
                } => blocks,
                What::Nonhead { blocks: None, back } => {
                    let what = "index: no size behind the head of a big pcluster";
                    return Err(Error::corrupted(what, at, back.into()).into());
                }
            }
        };
        // Below 2^14 blocks of at most 4096 bytes.
        Ok(u64::from(blocks) << self.sb.blkszbits)
    }

    /// First byte of the file that is behind the extent which goes on into lcluster `lcn`; at most
    /// `MAX_STEPS` lclusters further.
    fn next_head(&mut self, lcn: u64) -> Result<u64, S::Error> {
        let bits = self.header.lclusterbits;
        let size = self.inode.size;
        let mut lcn = lcn;
        let stop = lcn + u64::from(MAX_STEPS);
        while lcn < stop && lcn << bits < size {
            let offset = if self.compact() {
                let pack = self.pack(lcn)?;
                let mut found = None;
                for number in pack.number..pack.count {
                    match pack.get(number) {
                        (Type::Nonhead, _) => lcn += 1,
                        (_, lo) => {
                            found = Some((pack.pos, lo.into()));
                            break;
                        }
                    }
                }
                found
            } else {
                let entry = self.full_entry(lcn)?;
                match entry.what {
                    What::Head(head) => Some((entry.at, head.offset)),
                    What::Nonhead { .. } => {
                        lcn += 1;
                        None
                    }
                }
            };
            if let Some((at, offset)) = offset {
                if offset >= self.lcluster() {
                    let what = "index: offset behind the lcluster";
                    return Err(Error::corrupted(what, at, offset).into());
                }
                return Ok(((lcn << bits) + offset).min(size));
            }
        }
        Ok((lcn << bits).min(size))
    }

    /// The extent that holds `la`, by indexes; and the position of its entry.
    fn map(&mut self, la: u64) -> Result<(ZExtent, u64), S::Error> {
        let header = self.header;
        let bits = header.lclusterbits;
        let size = self.inode.size;
        let lcn = la >> bits;
        let entry = self.load(lcn)?;
        let offset = la & header.lcluster_mask();
        let at = entry.at;
        let head = self.head_of(entry, offset)?;
        let start = (head.lcn << bits) + head.offset;
        let extent = |end: u64, data: Data| {
            let llen = end.saturating_sub(start);
            (
                ZExtent {
                    la: start,
                    llen,
                    data,
                },
                at,
            )
        };
        let plain = head.kind == Type::Plain;
        let algorithm = match (head.kind, header.algorithms) {
            (Type::Head2, [_, second]) => second,
            (_, [first, _]) => first,
        };
        match header.tail {
            Tail::Inline { lcn, pa, len } if lcn == head.lcn => {
                let coding = if plain {
                    Coding::Shifted
                } else {
                    Coding::Compressed(algorithm)
                };
                return Ok(extent(
                    size,
                    Data::Pcluster(Pcluster {
                        pa,
                        plen: len.into(),
                        inline: true,
                        coding,
                        partial: head.partial,
                    }),
                ));
            }
            Tail::Fragment { lcn, pos } if lcn == head.lcn => {
                return Ok(extent(size, Data::Fragment { pos }));
            }
            _ => {}
        }
        let end = match entry.what {
            // Before a head that is in the same lcluster.
            What::Head(next) if next.lcn != head.lcn => (next.lcn << bits) + next.offset,
            _ => self.next_head(lcn + 1)?,
        }
        .min(size);
        let Some(block) = head.block else {
            return Ok(extent(end, Data::Hole));
        };
        let plen = self.pcluster_len(&head, at)?;
        let Some(plen) = u32::try_from(plen).ok().filter(|plen| *plen != 0) else {
            return Ok(extent(end, Data::Hole));
        };
        let coding = match (plain, header.has(ADVISE_INTERLACED_PCLUSTER)) {
            (true, true) => Coding::Interlaced,
            (true, false) => Coding::Shifted,
            (false, _) => Coding::Compressed(algorithm),
        };
        Ok(extent(
            end,
            Data::Pcluster(Pcluster {
                pa: self.sb.block_pos(block)?,
                plen,
                inline: false,
                coding,
                partial: head.partial,
            }),
        ))
    }

    /// An encoded extent from `la` to `end`. `at` is its record's position, `last` whether it is the last.
    fn extent(
        &self,
        la: u64,
        end: u64,
        (plen, pa): (u32, u64),
        last: bool,
        at: u64,
    ) -> Result<ZExtent, Error> {
        let header = self.header;
        let block = u64::from(self.sb.block_size());
        let len = plen & PLEN_MASK;
        let data = if last && header.has(ADVISE_FRAGMENT_PCLUSTER) {
            let hi = if header.record_size() > 4 {
                pa << 32
            } else {
                0
            };
            Data::Fragment {
                pos: hi | u64::from(plen),
            }
        } else if len == 0 {
            Data::Hole
        } else {
            let coding = match (plen >> PLEN_FORMAT_SHIFT).checked_sub(1) {
                Some(number) => {
                    Coding::Compressed(Algorithm::from_number(number).ok_or(Error::new(
                        Kind::Unsupported,
                        "extent: algorithm is not known",
                        at,
                        plen.into(),
                    ))?)
                }
                None if header.has(ADVISE_INTERLACED_PCLUSTER)
                    && (pa | u64::from(len)) % block == 0 =>
                {
                    Coding::Interlaced
                }
                None => Coding::Shifted,
            };
            Data::Pcluster(Pcluster {
                pa,
                plen: len,
                inline: false,
                coding,
                partial: plen & PLEN_PARTIAL != 0,
            })
        };
        Ok(ZExtent {
            la,
            llen: end.saturating_sub(la),
            data,
        })
    }

    /// Position of a record of encoded extents.
    fn record_at(&self, number: u64) -> Result<u64, Error> {
        let size = self.header.record_size();
        // Records of 4 bytes have the first pcluster's address before them.
        let base = if size == extent4::SIZE as u64 {
            extents_start::SIZE as u64
        } else {
            0
        };
        number
            .checked_mul(size)
            .and_then(|offset| offset.checked_add(base)?.checked_add(self.header.start))
            .filter(|at| *at <= i64::MAX as u64)
            .ok_or(Error::corrupted(
                "extent position",
                self.header.start,
                number,
            ))
    }

    /// The extent that holds `la`, one of those that are a lcluster each; and the position of its record.
    /// With `before`, an extent that ends at `la`, pclusters need not be counted from the first one.
    fn map_fixed(&mut self, la: u64, before: Option<&ZExtent>) -> Result<(ZExtent, u64), S::Error> {
        let bits = self.header.lclusterbits;
        let size = self.inode.size;
        let number = la >> bits;
        let at = self.record_at(number)?;
        let (plen, pa) = if self.header.record_size() == 4 {
            // Pclusters one behind the other, so their lengths add up to an address.
            let (mut pa, first) = match before.map(|extent| (extent.end(), extent.data)) {
                Some((end, Data::Pcluster(data))) if end == la && la == number << bits => {
                    (data.pa.saturating_add(data.plen.into()), number)
                }
                _ => {
                    let raw: [u8; extents_start::SIZE] = self.window.read(self.header.start)?;
                    (extents_start::PSTART.get(&raw), 0)
                }
            };
            if number - first > MAX_RECORDS {
                let what = "more extents of 4 bytes than this reads";
                return Err(Error::new(Kind::Unsupported, what, at, number).into());
            }
            for other in first..number {
                let raw: [u8; extent4::SIZE] = self.window.read(self.record_at(other)?)?;
                pa = pa
                    .checked_add(u64::from(extent4::PLEN.get(&raw) & PLEN_MASK))
                    .ok_or(Error::corrupted("extent address", at, pa))?;
            }
            let raw: [u8; extent4::SIZE] = self.window.read(at)?;
            (extent4::PLEN.get(&raw), pa)
        } else {
            let raw: [u8; extent8::SIZE] = self.window.read(at)?;
            (extent8::PLEN.get(&raw), extent8::PSTART_LO.get(&raw).into())
        };
        let start = number << bits;
        let end = (start + self.lcluster()).min(size);
        let extent = self.extent(start, end, (plen, pa), end == size, at)?;
        Ok((extent, at))
    }

    /// The extent that holds `la`, by a search in `count` records; and the position of its record.
    fn map_sorted(&mut self, la: u64, count: u64) -> Result<(ZExtent, u64), S::Error> {
        let (mut low, mut high) = (0, count);
        let mut end = self.inode.size;
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.record_at(middle)?;
            // Records of 16 bytes begin as those of 32 do.
            let mut raw = [0u8; extent32::RESERVED.at()];
            if self.header.record_size() == extent16::SIZE as u64 {
                let short: [u8; extent16::SIZE] = self.window.read(at)?;
                if let Some(to) = raw.get_mut(..extent16::SIZE) {
                    to.copy_from_slice(&short);
                }
            } else {
                raw = self.window.read(at)?;
            }
            let start = u64::from(extent32::LSTART_LO.get(&raw))
                | (u64::from(extent32::LSTART_HI.get(&raw)) << 32);
            if start > la {
                if start > end {
                    let what = "extent: not in order, or past the end of the file";
                    return Err(Error::corrupted(what, at, start).into());
                }
                high = middle;
                end = start;
            } else {
                low = middle + 1;
                if start == la {
                    // Only its end is still unknown, which the next record tells.
                    high = high.min(low + 1);
                }
                found = Some((
                    start,
                    extent32::PLEN.get(&raw),
                    extent32::PSTART.get(&raw),
                    at,
                ));
            }
        }
        let Some((start, plen, pa, at)) = found else {
            // Nothing up to the first extent.
            let extent = ZExtent {
                la,
                llen: end.saturating_sub(la),
                data: Data::Hole,
            };
            return Ok((extent, self.header.start));
        };
        let extent = self.extent(start, end, (plen, pa), low >= count, at)?;
        Ok((extent, at))
    }
}
