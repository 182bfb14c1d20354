// SPDX-License-Identifier: GPL-2.0

//! Look-ups by encoded extents: a sorted table with a record for each extent.

use super::super::{
    compression::{Algorithm, MAX_PCLUSTER_SIZE},
    error::{Error, Kind},
    ondisk::{extent16, extent32, extent4, extent8, extents_start},
    source::Source,
};
use super::{
    extent::{Coding, Data, Pcluster, ZExtent},
    header::{ADVISE_FRAGMENT_PCLUSTER, ADVISE_INTERLACED_PCLUSTER},
    lookup::Lookup,
};

/// `Z_EROFS_EXTENT_PLEN_PARTIAL`
const PLEN_PARTIAL: u32 = 1 << 27;
const PLEN_FORMAT_SHIFT: u32 = 28;
/// `Z_EROFS_EXTENT_PLEN_MASK`
const PLEN_MASK: u32 = (MAX_PCLUSTER_SIZE << 1) - 1;

/// Records of 4 bytes that one look-up adds up: those of 64 GiB in lclusters of 4 KiB.
const MAX_RECORDS: u64 = 1 << 24;

impl<S: Source> Lookup<'_, S> {
    /// An encoded extent from `la` to `end`. `at` is its record's position, `last` whether it is
    /// the last.
    fn extent(
        &self,
        la: u64,
        end: u64,
        (plen, pa): (u32, u64),
        last: bool,
        at: u64,
    ) -> Result<ZExtent, Error> {
        let header = self.header;
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
            Data::Pcluster(Pcluster {
                pa,
                plen: len,
                inline: false,
                coding: self.coding(plen, pa, at)?,
                partial: plen & PLEN_PARTIAL != 0,
            })
        };
        Ok(ZExtent {
            la,
            llen: end.saturating_sub(la),
            data,
        })
    }

    /// How the bytes of an encoded extent's pcluster become a file's. `at` is its record's
    /// position.
    fn coding(&self, plen: u32, pa: u64, at: u64) -> Result<Coding, Error> {
        let block = u64::from(self.sb.block_size());
        let is_whole = (pa | u64::from(plen & PLEN_MASK)) % block == 0;
        match (plen >> PLEN_FORMAT_SHIFT).checked_sub(1) {
            Some(number) => {
                let what = "extent: algorithm is not known";
                let algorithm = Algorithm::from_number(number);
                let unknown = Error::new(Kind::Unsupported, what, at, plen.into());
                Ok(Coding::Compressed(algorithm.ok_or(unknown)?))
            }
            None if self.header.has(ADVISE_INTERLACED_PCLUSTER) && is_whole => {
                Ok(Coding::Interlaced)
            }
            None => Ok(Coding::Shifted),
        }
    }

    /// Position of a record of encoded extents.
    pub(super) fn record_at(&self, number: u64) -> Result<u64, Error> {
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

    /// The extent that holds `la`, one of those that are a lcluster each; and the position of its
    /// record. With `before`, an extent that ends at `la`, pclusters need not be counted from the
    /// first one.
    pub(super) fn map_fixed(
        &mut self,
        la: u64,
        before: Option<&ZExtent>,
    ) -> Result<(ZExtent, u64), S::Error> {
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

    /// Reads a record of 16 or 32 bytes. Records of 16 bytes begin as those of 32 do.
    fn sorted_record(&mut self, at: u64) -> Result<[u8; extent32::RESERVED.at()], S::Error> {
        if self.header.record_size() != extent16::SIZE as u64 {
            return self.window.read(at);
        }
        let mut raw = [0u8; extent32::RESERVED.at()];
        let short: [u8; extent16::SIZE] = self.window.read(at)?;
        if let Some(to) = raw.get_mut(..extent16::SIZE) {
            to.copy_from_slice(&short);
        }
        Ok(raw)
    }

    /// The extent that holds `la`, by a search in `count` records; and the position of its record.
    pub(super) fn map_sorted(&mut self, la: u64, count: u64) -> Result<(ZExtent, u64), S::Error> {
        let (mut low, mut high) = (0, count);
        let mut end = self.inode.size;
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.record_at(middle)?;
            let raw = self.sorted_record(at)?;
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
