// SPDX-License-Identifier: GPL-2.0

//! Look-ups by encoded extents: a sorted table with a record for each extent.

use super::super::{
    compression::{Algorithm, MAX_PCLUSTER_SIZE},
    error::{Error, Kind},
    ondisk::{RawExtent, RawExtent16, RawExtent4, RawExtent8, RawExtentsStart},
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
        let base = if size == size_of::<RawExtent4>() as u64 {
            size_of::<RawExtentsStart>() as u64
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
                    let raw: RawExtentsStart = self.window.read(self.header.start)?;
                    (raw.pstart.get(), 0)
                }
            };
            if number - first > MAX_RECORDS {
                let what = "more extents of 4 bytes than this reads";
                return Err(Error::new(Kind::Unsupported, what, at, number).into());
            }
            for other in first..number {
                let raw: RawExtent4 = self.window.read(self.record_at(other)?)?;
                pa = pa
                    .checked_add(u64::from(raw.plen.get() & PLEN_MASK))
                    .ok_or(Error::corrupted("extent address", at, pa))?;
            }
            let raw: RawExtent4 = self.window.read(at)?;
            (raw.plen.get(), pa)
        } else {
            let raw: RawExtent8 = self.window.read(at)?;
            (raw.plen.get(), raw.pstart_lo.into())
        };
        let start = number << bits;
        let end = (start + self.lcluster()).min(size);
        let extent = self.extent(start, end, (plen, pa), end == size, at)?;
        Ok((extent, at))
    }

    /// Start, length and address in a record of 16 or 32 bytes.
    fn sorted_record(&mut self, at: u64) -> Result<(u64, u32, u64), S::Error> {
        if self.header.record_size() == size_of::<RawExtent16>() as u64 {
            let raw: RawExtent16 = self.window.read(at)?;
            return Ok((raw.lstart_lo.into(), raw.plen.get(), raw.pstart.get()));
        }
        let raw: RawExtent = self.window.read(at)?;
        let start = u64::from(raw.lstart_lo) | (u64::from(raw.lstart_hi) << 32);
        Ok((start, raw.plen.get(), raw.pstart.get()))
    }

    /// The extent that holds `la`, by a search in `count` records; and the position of its record.
    pub(super) fn map_sorted(&mut self, la: u64, count: u64) -> Result<(ZExtent, u64), S::Error> {
        let (mut low, mut high) = (0, count);
        let mut end = self.inode.size;
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.record_at(middle)?;
            let (start, plen, pa) = self.sorted_record(at)?;
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
                found = Some((start, plen, pa, at));
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
