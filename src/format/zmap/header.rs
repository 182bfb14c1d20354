// SPDX-License-Identifier: GPL-2.0

//! The header of a compressed inode: how its extents are described.

use core::mem::offset_of;

use super::super::{
    compression::Algorithm,
    error::{Error, Kind},
    inode::{Inode, Layout},
    ondisk::{RawLclusterIndex, RawMapHeader},
    source::{read_raw, Source},
    superblock::{incompat, Superblock},
};

/// `struct z_erofs_map_header`
pub(super) const HEADER_SIZE: u64 = size_of::<RawMapHeader>() as u64;
/// What full indexes have between the header and the first entry.
pub(super) const FULL_GAP: u64 = 8;
/// `struct z_erofs_lcluster_index`
pub(super) const FULL_SIZE: u64 = size_of::<RawLclusterIndex>() as u64;

/// `Z_EROFS_ADVISE_COMPACTED_2B`, of compact indexes.
pub(super) const ADVISE_COMPACTED_2B: u16 = 0x01;
/// `Z_EROFS_ADVISE_EXTENTS`, of the full layout.
pub(super) const ADVISE_EXTENTS: u16 = 0x01;
pub(super) const ADVISE_BIG_PCLUSTER_1: u16 = 0x02;
pub(super) const ADVISE_BIG_PCLUSTER_2: u16 = 0x04;
pub(super) const ADVISE_INLINE_PCLUSTER: u16 = 0x08;
pub(super) const ADVISE_INTERLACED_PCLUSTER: u16 = 0x10;
pub(super) const ADVISE_FRAGMENT_PCLUSTER: u16 = 0x20;

/// How a file's extents are described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
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
pub(super) enum Tail {
    /// Nothing special.
    None,
    /// The extent whose head is `lcn` has its pcluster behind the inode.
    Inline { lcn: u64, pa: u64, len: u16 },
    /// The extent whose head is `lcn` is a fragment.
    Fragment { lcn: u64, pos: u64 },
}

/// The header of a compressed inode, checked, and what was found out about its tail. Made once for
/// an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub(super) mode: Mode,
    pub(super) advise: u16,
    pub(super) algorithms: [Algorithm; 2],
    pub(super) lclusterbits: u8,
    /// Where entries or records start; for compact indexes the end of the header.
    pub(super) start: u64,
    pub(super) tail: Tail,
}

/// Whether there is an inode whose data fragments are in.
pub(super) fn has_packed(sb: &Superblock) -> bool {
    sb.has_fragments() && sb.packed_nid != 0
}

/// Whether the inode is the one whose data fragments are in.
pub(super) fn is_packed(sb: &Superblock, inode: &Inode) -> bool {
    has_packed(sb) && inode.nid == sb.packed_nid
}

/// Whether the inode has compact indexes, and where its header is.
fn place(sb: &Superblock, inode: &Inode) -> Result<(bool, u64), Error> {
    let compact = match inode.layout {
        Layout::CompressedFull => false,
        Layout::CompressedCompact => true,
        _ => return Err(Error::corrupted("not a compressed inode", inode.iloc, 0)),
    };
    if !sb.is_compressed() {
        let what = "compressed inode in an image without compression";
        return Err(Error::corrupted(what, inode.iloc, inode.nid));
    }
    let pos = inode
        .body_end()?
        .checked_next_multiple_of(8)
        .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))?;
    Ok((compact, pos))
}

impl Header {
    /// Reads and checks the header itself, but for what the file ends with, and gives its bytes,
    /// too.
    pub(super) fn load<S: Source>(
        sb: &Superblock,
        inode: &Inode,
        src: &S,
    ) -> Result<(Self, RawMapHeader), S::Error> {
        let (compact, pos) = place(sb, inode)?;
        let raw: RawMapHeader = read_raw(src, pos)?;
        let whole = raw.as_fragment();
        let word = whole.word.get();
        let mut this = Self {
            mode: if compact { Mode::Compact } else { Mode::Full },
            advise: raw.h_advise.get(),
            algorithms: [Algorithm::Lz4; 2],
            lclusterbits: sb.blkszbits + raw.lclusterbits(),
            start: pos
                .checked_add(HEADER_SIZE + FULL_GAP + FULL_SIZE)
                .map(|_| pos + HEADER_SIZE)
                .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))?,
            tail: Tail::None,
        };
        if whole.fragment_inode() != 0 {
            this.mode = Mode::Fragment {
                pos: whole.fragmentoff(),
            };
            this.advise = ADVISE_FRAGMENT_PCLUSTER;
            if is_packed(sb, inode) {
                return Err(Error::corrupted("fragment in the packed inode", pos, word).into());
            }
            return Ok((this, raw));
        }
        if this.has_fragment() && is_packed(sb, inode) {
            let pos = pos + offset_of!(RawMapHeader, h_advise) as u64;
            return Err(Error::corrupted("fragment in the packed inode", pos, word).into());
        }
        if !compact && this.has(ADVISE_EXTENTS) {
            this.load_table(inode, &raw)?;
        } else {
            this.load_indexes(sb, pos, &raw)?;
        }
        Ok((this, raw))
    }

    /// Completes the header of an inode with encoded extents.
    fn load_table(&mut self, inode: &Inode, raw: &RawMapHeader) -> Result<(), Error> {
        let size = self.record_size();
        self.start = self
            .start
            .checked_next_multiple_of(size)
            .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))?;
        self.mode = if size <= 8 {
            Mode::Fixed
        } else {
            Mode::Sorted {
                count: u64::from(raw.h_extents_lo()) | (u64::from(raw.h_extents_hi) << 32),
            }
        };
        Ok(())
    }

    /// Completes the header of an inode with indexes. `pos` is the header's position.
    fn load_indexes(&mut self, sb: &Superblock, pos: u64, raw: &RawMapHeader) -> Result<(), Error> {
        let numbers = [raw.head1(), raw.head2()];
        for (to, number) in self.algorithms.iter_mut().zip(numbers) {
            *to = Algorithm::from_number(number.into()).ok_or(Error::new(
                Kind::Unsupported,
                "h_algorithmtype is not known",
                pos + offset_of!(RawMapHeader, h_extents_hi) as u64,
                raw.h_algorithmtype().into(),
            ))?;
        }
        let (big1, big2) = (
            self.has(ADVISE_BIG_PCLUSTER_1),
            self.has(ADVISE_BIG_PCLUSTER_2),
        );
        let advise_pos = pos + offset_of!(RawMapHeader, h_advise) as u64;
        if (big1 || big2) && !sb.has_incompat(incompat::COMPR_CFGS) {
            let what = "h_advise: big pclusters, which the superblock does not know of";
            return Err(Error::corrupted(what, advise_pos, self.advise.into()));
        }
        if self.mode == Mode::Full {
            self.start += FULL_GAP;
        } else if big1 != big2 {
            let what = "h_advise: big pclusters for one head type only";
            return Err(Error::corrupted(what, advise_pos, self.advise.into()));
        }
        Ok(())
    }

    pub(super) fn has(&self, advise: u16) -> bool {
        self.advise & advise != 0
    }

    /// Size of a record of encoded extents: 4, 8, 16 or 32.
    pub(super) fn record_size(&self) -> u64 {
        4 << ((self.advise >> 1) & 3)
    }

    /// Logarithm of the size of lclusters: that of blocks and up to 15 more. (Unused by records of
    /// 16 and 32 bytes.)
    pub fn lclusterbits(&self) -> u32 {
        self.lclusterbits.into()
    }

    pub(super) fn lcluster_mask(&self) -> u64 {
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
