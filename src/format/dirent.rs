// SPDX-License-Identifier: GPL-2.0

//! Directories: blocks of `struct erofs_dirent` (12 bytes) sorted by name, the names behind them.

use super::{error::Error, source::Source};

/// Size of a record.
pub const DIRENT_SIZE: usize = 12;
/// Longest name, `EROFS_NAME_LEN`.
const NAME_LEN: usize = 255;

/// An entry.
#[derive(Clone, Copy, Debug)]
pub struct Dirent<'a> {
    /// The inode.
    pub nid: u64,
    /// `EROFS_FT_*`: 0 unknown, 1 regular, 2 directory ...
    pub file_type: u8,
    /// 1 to 255 bytes, no NUL and no slash.
    pub name: &'a [u8],
}

/// A block of a directory.
pub struct DirBlock<'a> {
    bytes: &'a [u8],
    pos: u64,
    count: usize,
}

impl<'a> DirBlock<'a> {
    /// Looks at a block, cut at the end of the directory; `pos` is its position, for messages.
    ///
    /// # Errors
    ///
    /// `Corrupted` if the first record's `nameoff` does not give a number of records.
    pub fn new(bytes: &'a [u8], pos: u64) -> Result<Self, Error> {
        let mut this = Self {
            bytes,
            pos,
            count: 1,
        };
        let first = match this.record(0) {
            Some((_, nameoff, _)) => nameoff,
            None => {
                return Err(Error::corrupted(
                    "directory block too short",
                    pos,
                    bytes.len() as u64,
                ))
            }
        };
        if first == 0 || first >= bytes.len() || first % DIRENT_SIZE != 0 {
            return Err(Error::corrupted(
                "dirent.nameoff of the first entry",
                pos + 8,
                first as u64,
            ));
        }
        this.count = first / DIRENT_SIZE;
        Ok(this)
    }

    /// Number of entries; at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// nid, nameoff and file type of record `index`.
    fn record(&self, index: usize) -> Option<(u64, usize, u8)> {
        if index >= self.count {
            return None;
        }
        let start = index.checked_mul(DIRENT_SIZE)?;
        let raw: &[u8; DIRENT_SIZE] = self
            .bytes
            .get(start..start.checked_add(DIRENT_SIZE)?)?
            .try_into()
            .ok()?;
        let [n0, n1, n2, n3, n4, n5, n6, n7, o0, o1, file_type, _] = *raw;
        let nid = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        Some((nid, usize::from(u16::from_le_bytes([o0, o1])), file_type))
    }

    /// Entry `index`, checked.
    ///
    /// # Errors
    ///
    /// `Corrupted` for a name that is empty, too long, outside of the block or has a NUL or slash.
    pub fn get(&self, index: usize) -> Result<Dirent<'a>, Error> {
        let at = self
            .pos
            .saturating_add(index.saturating_mul(DIRENT_SIZE) as u64);
        let bad = |what, value: usize| Error::corrupted(what, at, value as u64);
        let (nid, nameoff, file_type) = self
            .record(index)
            .ok_or(bad("dirent out of range", index))?;
        // The last name ends at a NUL or the end of the block.
        let end = match self.record(index + 1) {
            Some((_, next, _)) => next,
            None => self.bytes.len(),
        };
        let name = self
            .bytes
            .get(nameoff..end)
            .ok_or(bad("dirent.nameoff", nameoff))?;
        let name = if index + 1 == self.count {
            let len = name.iter().position(|byte| *byte == 0);
            name.get(..len.unwrap_or(name.len())).unwrap_or(name)
        } else {
            name
        };
        if name.is_empty() || name.len() > NAME_LEN {
            return Err(bad("dirent: length of the name", name.len()));
        }
        if name.iter().any(|byte| *byte == 0 || *byte == b'/') {
            return Err(bad("dirent: NUL or slash in the name", nameoff));
        }
        Ok(Dirent {
            nid,
            file_type,
            name,
        })
    }

    /// Finds a name by binary search.
    pub fn find(&self, name: &[u8]) -> Result<Option<Dirent<'a>>, Error> {
        let (mut low, mut high) = (0, self.count);
        let mut bounds = Bounds::default();
        while low < high {
            let mid = low + (high - low) / 2;
            let entry = self.get(mid)?;
            match bounds.narrow(name, entry.name) {
                Narrowed::Found => return Ok(Some(entry)),
                Narrowed::Below => high = mid,
                Narrowed::Above => low = mid + 1,
                Narrowed::Unordered => {
                    return Err(Error::corrupted(
                        "directory entries are out of order",
                        self.pos.saturating_add((mid * DIRENT_SIZE) as u64),
                        mid as u64,
                    ))
                }
            }
        }
        Ok(None)
    }
}

/// What a comparison says of the place searched for.
enum Narrowed {
    Found,
    Below,
    Above,
    Unordered,
}

/// The names between which a binary search stands. In a sorted directory each name that it meets lies
/// strictly between; one that shares less with the target than a bound's common prefix does is on the
/// wrong side, so comparing common prefix lengths notices that without keeping the names.
#[derive(Clone, Copy, Default)]
struct Bounds {
    /// Length of the prefix that the target shares with the lower bound, and with the upper.
    low: usize,
    high: usize,
}

impl Bounds {
    fn narrow(&mut self, target: &[u8], name: &[u8]) -> Narrowed {
        let common = target
            .iter()
            .zip(name)
            .take_while(|(ours, theirs)| ours == theirs)
            .count();
        // Everything between two bounds shares at least what both share with the target.
        if common < self.low.min(self.high) {
            return Narrowed::Unordered;
        }
        match target.cmp(name) {
            core::cmp::Ordering::Equal => Narrowed::Found,
            core::cmp::Ordering::Less => {
                self.high = common;
                Narrowed::Below
            }
            core::cmp::Ordering::Greater => {
                self.low = common;
                Narrowed::Above
            }
        }
    }
}

/// Finds a name in a directory: its nid and file type. Binary search by the first name of each block,
/// then in the block; the number of steps is logarithmic whatever the directory holds.
///
/// # Errors
///
/// `Corrupted` if the search meets a malformed entry or sees that names are out of order.
pub fn lookup<S: Source>(
    dir_size: u64,
    block_size: u32,
    dir: &S,
    name: &[u8],
) -> Result<Option<(u64, u8)>, S::Error> {
    let block_size = u64::from(block_size);
    let (mut low, mut high) = (0u64, dir_size.div_ceil(block_size));
    let mut bounds = Bounds::default();
    while low < high {
        let mid = low + (high - low) / 2;
        let pos = mid * block_size;
        let bytes = dir.bread(pos)?;
        let len = (bytes.len() as u64).min(block_size).min(dir_size - pos);
        let block = DirBlock::new(bytes.get(..len as usize).unwrap_or(&[]), pos)?;
        let first = block.get(0)?;
        match bounds.narrow(name, first.name) {
            Narrowed::Found => return Ok(Some((first.nid, first.file_type))),
            Narrowed::Below => high = mid,
            Narrowed::Unordered => {
                return Err(Error::corrupted("directory blocks are out of order", pos, mid).into())
            }
            Narrowed::Above => {
                // Here, or in a later block.
                let last = block.get(block.len() - 1)?;
                if name <= last.name {
                    return Ok(block.find(name)?.map(|found| (found.nid, found.file_type)));
                }
                if last.name < first.name {
                    return Err(
                        Error::corrupted("directory entries are out of order", pos, mid).into(),
                    );
                }
                low = mid + 1;
            }
        }
    }
    Ok(None)
}
