// SPDX-License-Identifier: GPL-2.0

//! Look-ups by indexes: an entry for each lcluster, full or compact.

use zerocopy::{FromZeros, IntoBytes};

use super::super::{
    compression::MAX_DECODED_SIZE,
    error::{Error, Kind},
    ondisk::{RawCompactPack, RawCompactPair, RawLclusterIndex},
    source::Source,
};
use super::{
    extent::{Coding, Data, Pcluster, ZExtent},
    header::{
        Tail, ADVISE_BIG_PCLUSTER_1, ADVISE_BIG_PCLUSTER_2, ADVISE_COMPACTED_2B,
        ADVISE_INTERLACED_PCLUSTER, FULL_SIZE,
    },
    lookup::Lookup,
};

/// `Z_EROFS_LI_PARTIAL_REF`
const LI_PARTIAL_REF: u16 = 1 << 15;
/// `Z_EROFS_LI_HOLE`
const LI_HOLE: u16 = 1 << 14;
/// `Z_EROFS_LI_D0_CBLKCNT`: the distance is the pcluster's size in blocks instead.
const D0_CBLKCNT: u32 = 1 << 11;

/// Entries that one look-up follows back to a head, or forward to the next one. A pcluster decodes
/// to 12 MiB at most, which is this number of the smallest lclusters.
const MAX_STEPS: u32 = MAX_DECODED_SIZE >> 9;

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
pub(super) struct Head {
    pub(super) lcn: u64,
    kind: Type,
    /// Where in the lcluster.
    offset: u64,
    /// First block of its pcluster; `None` for a hole.
    pub(super) block: Option<u64>,
    partial: bool,
}

/// An index entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    lcn: u64,
    /// Its position.
    pub(super) at: u64,
    /// The byte behind the entry, or behind its pack.
    pub(super) behind: u64,
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
pub(super) struct Pack {
    /// It, or a pair and zeros.
    raw: RawCompactPack,
    count: u32,
    /// Bits below the type.
    lobits: u32,
    /// Entry of the pack that was looked for.
    number: u32,
    pub(super) pos: u64,
    behind: u64,
}

impl Pack {
    /// Whether it has 2 entries, of 4 bytes each with their half of the block number.
    pub(super) fn wide(&self) -> bool {
        self.count == 2
    }

    /// Type and low bits of an entry.
    fn get(&self, number: u32) -> (Type, u32) {
        let value = if self.wide() {
            self.raw.as_pair().entry(number)
        } else {
            self.raw.entry(number)
        };
        (
            Type::of(value >> self.lobits),
            value & ((1 << self.lobits) - 1),
        )
    }

    /// The block number at its end.
    fn base(&self) -> u32 {
        if self.wide() {
            self.raw.as_pair().blkaddr.get()
        } else {
            self.raw.blkaddr.get()
        }
    }
}

impl<S: Source> Lookup<'_, S> {
    /// The entry of an lcluster.
    pub(super) fn load(&mut self, lcn: u64) -> Result<Entry, S::Error> {
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

    pub(super) fn full_entry(&mut self, lcn: u64) -> Result<Entry, S::Error> {
        let at = lcn
            .checked_mul(FULL_SIZE)
            .and_then(|offset| offset.checked_add(self.header.start))
            .filter(|at| *at <= i64::MAX as u64)
            .ok_or(Error::corrupted("index position", self.header.start, lcn))?;
        let raw: RawLclusterIndex = self.window.read(at)?;
        let advise = raw.di_advise.get();
        let what = match Type::of(raw.lcluster_type().into()) {
            Type::Nonhead => {
                let delta = u32::from(raw.delta0());
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
                offset: raw.di_clusterofs.into(),
                block: (advise & LI_HOLE == 0).then_some(raw.blkaddr.into()),
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
    pub(super) fn pack(&mut self, lcn: u64) -> Result<Pack, S::Error> {
        let start = self.header.start;
        let bits = self.header.lclusterbits();
        // In blocks, whatever the size of lclusters is: upstream's reading of the format.
        let total = self.inode.size.div_ceil(self.sb.block_size().into());
        if lcn >= total {
            return Err(Error::corrupted("lcluster past the end", start, lcn).into());
        }
        // Entries of 4 bytes up to a multiple of 32, then packs of 16 with 2 bytes each, then 4
        // again.
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
        Ok(Pack {
            raw: self.raw_pack(pos, width == 2)?,
            count,
            lobits: bits.max(12),
            number: ((at - pos) / width) as u32,
            pos,
            behind: pos + size,
        })
    }

    /// Reads a pack of 16 entries, or a pair.
    fn raw_pack(&mut self, pos: u64, full: bool) -> Result<RawCompactPack, S::Error> {
        if full {
            return self.window.read(pos);
        }
        let pair: RawCompactPair = self.window.read(pos)?;
        let mut raw = RawCompactPack::new_zeroed();
        if let Some(to) = raw.as_mut_bytes().get_mut(..size_of_val(&pair)) {
            to.copy_from_slice(pair.as_bytes());
        }
        Ok(raw)
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
            // The last one of a pack has the distance to the next head; the one before tells the
            // other.
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

    /// First block of the pcluster of the head that was looked for: the pack's block number and the
    /// sizes of the pclusters that come before it in the pack.
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
    pub(super) fn head_of(&mut self, entry: Entry, offset: u64) -> Result<Head, S::Error> {
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

    /// Returns the first byte of the file behind the extent that continues in lcluster `lcn`, at
    /// most `MAX_STEPS` lclusters further.
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
    pub(super) fn map(&mut self, la: u64) -> Result<(ZExtent, u64), S::Error> {
        let header = self.header;
        let bits = header.lclusterbits;
        let size = self.inode.size;
        let lcn = la >> bits;
        let entry = self.load(lcn)?;
        let offset = la & header.lcluster_mask();
        let at = entry.at;
        let head = self.head_of(entry, offset)?;
        let start = (head.lcn << bits) + head.offset;
        let (end, data) = match self.tail_of(&head) {
            Some(data) => (size, data),
            None => {
                let end = match entry.what {
                    // Before a head that is in the same lcluster.
                    What::Head(next) if next.lcn != head.lcn => (next.lcn << bits) + next.offset,
                    _ => self.next_head(lcn + 1)?,
                };
                (end.min(size), self.data_of(&head, at)?)
            }
        };
        let extent = ZExtent {
            la: start,
            llen: end.saturating_sub(start),
            data,
        };
        Ok((extent, at))
    }

    /// How a head's pcluster is coded, if it is not `Plain`.
    fn algorithm_of(&self, head: &Head) -> Coding {
        Coding::Compressed(match (head.kind, self.header.algorithms) {
            (Type::Head2, [_, second]) => second,
            (_, [first, _]) => first,
        })
    }

    /// Where the bytes of the extent are that ends the file, if that has them at a special place,
    /// and `head` is its head.
    fn tail_of(&self, head: &Head) -> Option<Data> {
        match self.header.tail {
            Tail::Inline { lcn, pa, len } if lcn == head.lcn => Some(Data::Pcluster(Pcluster {
                pa,
                plen: len.into(),
                inline: true,
                coding: match head.kind {
                    Type::Plain => Coding::Shifted,
                    _ => self.algorithm_of(head),
                },
                partial: head.partial,
            })),
            Tail::Fragment { lcn, pos } if lcn == head.lcn => Some(Data::Fragment { pos }),
            _ => None,
        }
    }

    /// Where the bytes of any other extent are, whose head is `head`. `at` is the position of the
    /// entry that led to it.
    fn data_of(&mut self, head: &Head, at: u64) -> Result<Data, S::Error> {
        let Some(block) = head.block else {
            return Ok(Data::Hole);
        };
        let plen = self.pcluster_len(head, at)?;
        let Some(plen) = u32::try_from(plen).ok().filter(|plen| *plen != 0) else {
            return Ok(Data::Hole);
        };
        let interlaced = self.header.has(ADVISE_INTERLACED_PCLUSTER);
        Ok(Data::Pcluster(Pcluster {
            pa: self.sb.block_pos(block)?,
            plen,
            inline: false,
            coding: match head.kind {
                Type::Plain if interlaced => Coding::Interlaced,
                Type::Plain => Coding::Shifted,
                _ => self.algorithm_of(head),
            },
            partial: head.partial,
        }))
    }
}
