// SPDX-License-Identifier: GPL-2.0

//! Directories: blocks of `struct erofs_dirent` (12 bytes) sorted by name, the names behind them.

use super::{error::Error, ondisk::dirent, source::Source};

/// Size of a record.
pub const DIRENT_SIZE: usize = dirent::SIZE;
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
                pos + dirent::NAMEOFF.at() as u64,
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
        Some((
            dirent::NID.get(raw),
            dirent::NAMEOFF.get(raw).into(),
            dirent::FILE_TYPE.get(raw),
        ))
    }

    /// What is wrong with entry `index`.
    #[cold]
    fn bad(&self, index: usize, what: &'static str, value: usize) -> Error {
        let at = index.saturating_mul(DIRENT_SIZE) as u64;
        Error::corrupted(what, self.pos.saturating_add(at), value as u64)
    }

    /// Entry `index`, checked.
    ///
    /// # Errors
    ///
    /// `Corrupted` for a name that is empty, too long, outside of the block or has a NUL or slash.
    pub fn get(&self, index: usize) -> Result<Dirent<'a>, Error> {
        let entry = self.peek(index)?;
        if entry.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            let nameoff = self.record(index).map_or(0, |(_, nameoff, _)| nameoff);
            return Err(self.bad(index, "dirent: NUL or slash in the name", nameoff));
        }
        Ok(entry)
    }

    /// As [`DirBlock::get`], but for what the name is made of: to be compared with others.
    #[inline]
    fn peek(&self, index: usize) -> Result<Dirent<'a>, Error> {
        let bad = |what, value| self.bad(index, what, value);
        let (nid, nameoff, file_type) = self
            .record(index)
            .ok_or_else(|| bad("dirent out of range", index))?;
        // The last name ends at a NUL or the end of the block.
        let end = match self.record(index + 1) {
            Some((_, next, _)) => next,
            None => self.bytes.len(),
        };
        let name = self
            .bytes
            .get(nameoff..end)
            .ok_or_else(|| bad("dirent.nameoff", nameoff))?;
        let name = if index + 1 == self.count {
            let len = name.iter().position(|byte| *byte == 0);
            name.get(..len.unwrap_or(name.len())).unwrap_or(name)
        } else {
            name
        };
        if name.is_empty() || name.len() > NAME_LEN {
            return Err(bad("dirent: length of the name", name.len()));
        }
        Ok(Dirent {
            nid,
            file_type,
            name,
        })
    }

    /// Finds a name by binary search.
    pub fn find(&self, name: &[u8]) -> Result<Option<Dirent<'a>>, Error> {
        self.find_between(name, Bounds::default())
    }

    /// As [`DirBlock::find`], where all names of the block lie between `bounds`.
    fn find_between(&self, name: &[u8], mut bounds: Bounds) -> Result<Option<Dirent<'a>>, Error> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let mid = low + (high - low) / 2;
            match bounds.narrow(name, self.peek(mid)?.name) {
                Narrowed::Found => return self.get(mid).map(Some),
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

/// The names between which a binary search stands. In a sorted directory each name that it meets
/// lies strictly between; one that shares less with the target than a bound's common prefix does is
/// on the wrong side, so comparing common prefix lengths notices that without keeping the names.
#[derive(Clone, Copy, Default)]
struct Bounds {
    /// Length of the prefix that the target shares with the lower bound, and with the upper.
    low: usize,
    high: usize,
}

impl Bounds {
    #[inline]
    fn narrow(&mut self, target: &[u8], name: &[u8]) -> Narrowed {
        let common = common(target, name);
        // Everything between two bounds shares at least what both share with the target.
        if common < self.low.min(self.high) {
            return Narrowed::Unordered;
        }
        // The first byte that is not in common; where a name ends it is the smaller one.
        match target.get(common).cmp(&name.get(common)) {
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

/// Length of the prefix that two names have in common.
#[inline]
fn common(one: &[u8], two: &[u8]) -> usize {
    let mut len = 0;
    let (words, other_words) = (one.chunks_exact(8), two.chunks_exact(8));
    for (ours, theirs) in words.zip(other_words) {
        if ours != theirs {
            break;
        }
        len += 8;
    }
    let rest = one.iter().zip(two).skip(len);
    len + rest.take_while(|(ours, theirs)| ours == theirs).count()
}

/// Finds a name in a directory: its nid and file type. Binary search by the first name of each
/// block, then in the block; the number of steps is logarithmic whatever the directory holds.
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
        let found = |found: Option<Dirent<'_>>| found.map(|found| (found.nid, found.file_type));
        if high - low == 1 {
            // Here, or nowhere.
            let here = block.find_between(name, bounds)?;
            if here.is_none() && block.peek(block.len() - 1)?.name < block.peek(0)?.name {
                let what = "directory entries are out of order";
                return Err(Error::corrupted(what, pos, mid).into());
            }
            return Ok(found(here));
        }
        let first = block.peek(0)?;
        match bounds.narrow(name, first.name) {
            Narrowed::Found => return Ok(found(Some(block.get(0)?))),
            Narrowed::Below => high = mid,
            Narrowed::Unordered => {
                return Err(Error::corrupted("directory blocks are out of order", pos, mid).into())
            }
            Narrowed::Above => {
                // Here, or in a later block.
                let last = block.peek(block.len() - 1)?;
                if name <= last.name {
                    return Ok(found(block.find(name)?));
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
