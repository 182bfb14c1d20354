// SPDX-License-Identifier: GPL-2.0

//! Directories: blocks of `struct erofs_dirent` (12 bytes) sorted by name, the names behind them.

use core::{cmp::Ordering, mem::offset_of, ops::Range};

use zerocopy::FromBytes;

use super::{
    error::Error,
    ondisk::{Raw, RawDirent},
    source::Source,
    words::{first_byte, word, zero_bytes, WORD},
};

/// Size of a record.
pub const DIRENT_SIZE: usize = size_of::<RawDirent>();
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

impl<'a> Dirent<'a> {
    #[inline(always)]
    fn new(record: &RawDirent, name: &'a [u8]) -> Self {
        Self {
            nid: record.nid.get(),
            file_type: record.file_type,
            name,
        }
    }
}

/// A block of a directory.
#[derive(Clone, Copy)]
pub struct DirBlock<'a> {
    bytes: &'a [u8],
    pos: u64,
    count: usize,
    /// No name has a NUL or a slash in it.
    separate: bool,
}

impl<'a> DirBlock<'a> {
    /// Looks at a block, cut at the end of the directory; `pos` is its position, for messages.
    ///
    /// # Errors
    ///
    /// `Corrupted` if the first record's `nameoff` does not give a number of records.
    #[inline]
    pub fn new(bytes: &'a [u8], pos: u64) -> Result<Self, Error> {
        let Some(record) = RawDirent::first(bytes) else {
            return Err(too_short(bytes, pos));
        };
        let first = usize::from(record.nameoff);
        if first == 0 || first >= bytes.len() || first % DIRENT_SIZE != 0 {
            return Err(bad_first(first, pos));
        }
        Ok(Self {
            bytes,
            pos,
            count: first / DIRENT_SIZE,
            separate: false,
        })
    }

    /// The same block, when [`DirBlock::for_each`] has given all of its entries before, and it has
    /// not changed since: for NULs and slashes in names it is not looked again.
    #[inline]
    pub fn given_before(self) -> Self {
        Self {
            separate: true,
            ..self
        }
    }

    /// Whether it is what [`DirBlock::given_before`] returned.
    #[inline]
    pub fn was_given(&self) -> bool {
        self.separate
    }

    /// Number of entries; at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Record `index`, which is one if that is less than their number.
    #[inline(always)]
    fn record(&self, index: usize) -> Option<&'a RawDirent> {
        let start = index.wrapping_mul(DIRENT_SIZE);
        RawDirent::first(self.bytes.get(start..)?)
    }

    /// Where the name of record `index` begins.
    #[inline(always)]
    fn nameoff(&self, index: usize) -> Option<usize> {
        Some(self.record(index)?.nameoff.into())
    }

    /// What is wrong with entry `index`.
    #[cold]
    fn bad(&self, index: usize, what: &'static str, value: usize) -> Error {
        let at = index.saturating_mul(DIRENT_SIZE) as u64;
        Error::corrupted(what, self.pos.saturating_add(at), value as u64)
    }

    /// What is wrong with the place or the length of the name of entry `index`.
    #[cold]
    fn bad_name(&self, index: usize) -> Error {
        let start = match self.nameoff(index) {
            Some(start) if index < self.count => start,
            _ => return self.bad(index, "dirent out of range", index),
        };
        let end = self.end(index, start);
        match end.checked_sub(start) {
            Some(len) if end <= self.bytes.len() => {
                self.bad(index, "dirent: length of the name", len)
            }
            _ => self.bad(index, "dirent.nameoff", start),
        }
    }

    /// Where the name of entry `index`, which begins at `start`, ends: where the next one begins,
    /// and the last one at a NUL or at the end of the block.
    #[inline(always)]
    fn end(&self, index: usize, start: usize) -> usize {
        let next = index.wrapping_add(1);
        match self.nameoff(next) {
            Some(next_start) if next < self.count => next_start,
            _ => self.last_end(start),
        }
    }

    #[inline(never)]
    fn last_end(&self, start: usize) -> usize {
        let mut at = start;
        while at < self.bytes.len() {
            // Behind the end of the block there are zeros, too.
            let zeros = zero_bytes(word(self.bytes, at));
            if zeros != 0 {
                return at.wrapping_add(first_byte(zeros));
            }
            at = at.wrapping_add(WORD);
        }
        at
    }

    /// Where the name of entry `index`, which is one, is in the block: 1 to 255 bytes.
    #[inline(always)]
    fn name(&self, index: usize) -> Option<Range<usize>> {
        let start = self.nameoff(index)?;
        let end = self.end(index, start);
        // Of a name that ends before it begins this is far too much.
        let len = end.wrapping_sub(start);
        (end <= self.bytes.len() && len.wrapping_sub(1) < NAME_LEN).then_some(start..end)
    }

    /// Entry `index`, which is one and has this name.
    #[inline(always)]
    fn entry(&self, index: usize, name: Range<usize>) -> Option<Dirent<'a>> {
        Some(Dirent::new(self.record(index)?, self.bytes.get(name)?))
    }

    /// Entry `index`, checked.
    ///
    /// # Errors
    ///
    /// `Corrupted` for a name that is empty, too long, outside of the block or has a NUL or slash.
    pub fn get(&self, index: usize) -> Result<Dirent<'a>, Error> {
        let mut found = None;
        self.for_each(index, |entry| {
            found = Some(entry);
            false
        })?;
        found.ok_or_else(|| self.bad_name(index))
    }

    /// Calls `visit` with each entry from number `first` on, as [`DirBlock::get`] gives it, until
    /// that returns `false`, and tells whether it always returned `true`.
    ///
    /// # Errors
    ///
    /// As [`DirBlock::get`], of the first entry that is wrong.
    #[inline(never)]
    pub fn for_each(
        &self,
        first: usize,
        mut visit: impl FnMut(Dirent<'a>) -> bool,
    ) -> Result<bool, Error> {
        let (Some(mut start), true) = (self.nameoff(first), first < self.count) else {
            return Ok(true);
        };
        // Each name begins where the one before it ends, and the last one ends at a NUL.
        let last = self.nameoff(self.count.wrapping_sub(1));
        let mut names = self.bytes.get(start..).unwrap_or(&[]);
        let end = match last {
            Some(last) if self.separate => self.last_end(last),
            _ => start.wrapping_add(before_separator(names)),
        };
        if last.is_none_or(|last| last >= end) || self.bytes.get(end) == Some(&b'/') {
            return self.for_each_alone(first, visit);
        }
        names = names.get(..end.wrapping_sub(start)).unwrap_or(names);
        let begin = first.wrapping_mul(DIRENT_SIZE);
        let end = self.count.wrapping_mul(DIRENT_SIZE);
        let records = self.bytes.get(begin..end).unwrap_or(&[]);
        let records = <[RawDirent]>::ref_from_bytes(records).unwrap_or(&[]);
        let Some((last, _)) = records.split_last() else {
            return Ok(true);
        };
        let is_name = |len: usize| len.wrapping_sub(1) < NAME_LEN;
        for (record, next) in records.iter().zip(records.iter().skip(1)) {
            let len = usize::from(next.nameoff).wrapping_sub(start);
            let (name, behind) = match names.split_at_checked(len) {
                Some(parts) if is_name(len) => parts,
                _ => return Err(self.first_bad(first)),
            };
            (names, start) = (behind, start.wrapping_add(len));
            if !visit(Dirent::new(record, name)) {
                return Ok(false);
            }
        }
        match is_name(names.len()) {
            true => Ok(visit(Dirent::new(last, names))),
            false => Err(self.first_bad(first)),
        }
    }

    /// As [`DirBlock::for_each`], looking at each name by itself.
    #[cold]
    fn for_each_alone(
        &self,
        first: usize,
        mut visit: impl FnMut(Dirent<'a>) -> bool,
    ) -> Result<bool, Error> {
        for index in first..self.count {
            let name = self.name(index).ok_or_else(|| self.bad_name(index))?;
            let start = name.start;
            let entry = self.entry(index, name);
            let entry = entry.ok_or_else(|| self.bad_name(index))?;
            if before_separator(entry.name) < entry.name.len() {
                let what = "dirent: NUL or slash in the name";
                return Err(self.bad(index, what, start));
            }
            if !visit(entry) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is wrong with the first entry, from number `first` on, the name of which is not right.
    #[cold]
    fn first_bad(&self, first: usize) -> Error {
        let bad = (first..self.count).find(|index| self.name(*index).is_none());
        self.bad_name(bad.unwrap_or(self.count))
    }

    /// Compares the name that is searched for with that of entry `index`.
    #[inline(always)]
    fn compare(&self, target: &Target<'_>, index: usize) -> Result<Compared, Error> {
        if index.wrapping_add(1) == self.count {
            return self.compare_last(target);
        }
        match self.name(index) {
            Some(name) => Ok(target.compare(self.bytes, name)),
            None => Err(self.bad_name(index)),
        }
    }

    /// As [`DirBlock::compare`], of the last entry. Where that ends is looked at only if its first
    /// bytes do not decide.
    #[inline(never)]
    fn compare_last(&self, target: &Target<'_>) -> Result<Compared, Error> {
        let index = self.count.wrapping_sub(1);
        let theirs = word(self.bytes, self.nameoff(index).unwrap_or(self.bytes.len()));
        let compared = Compared::by_word(0, target.first, theirs);
        let is_empty = theirs & 0xFF == 0;
        if !is_empty && compared.common < target.name.len().min(WORD) {
            return Ok(compared);
        }
        match self.name(index) {
            Some(name) => Ok(target.compare_all(self.bytes, name)),
            None => Err(self.bad_name(index)),
        }
    }

    /// Whether the last name is smaller than the first one.
    fn ends_before_it_begins(&self) -> bool {
        let name = |index| self.bytes.get(self.name(index)?);
        name(self.count.wrapping_sub(1)) < name(0)
    }

    #[cold]
    fn out_of_order(&self, index: usize) -> Error {
        self.bad(index, "directory entries are out of order", index)
    }

    /// Finds a name by binary search.
    pub fn find(&self, name: &[u8]) -> Result<Option<Dirent<'a>>, Error> {
        let target = Target::new(name);
        match self.find_between(&target, 0..self.count, Bounds::default())? {
            Place::At(entry) => Ok(Some(entry)),
            Place::Before(_) => Ok(None),
        }
    }

    /// As [`DirBlock::find`], among some of the entries, the names of which lie between `bounds`.
    fn find_between(
        &self,
        target: &Target<'_>,
        entries: Range<usize>,
        mut bounds: Bounds,
    ) -> Result<Place<'a>, Error> {
        let Range {
            start: mut low,
            end: mut high,
        } = entries;
        while low < high {
            let mid = low.wrapping_add(high.wrapping_sub(low) / 2);
            match bounds.narrow(self.compare(target, mid)?) {
                Narrowed::Found => return self.found(mid),
                Narrowed::Below => high = mid,
                Narrowed::Above => low = mid.wrapping_add(1),
                Narrowed::Unordered => return Err(self.out_of_order(mid)),
            }
        }
        Ok(Place::Before(low))
    }

    /// Entry `index`, the name of which is what was searched for, in which there is no NUL and no
    /// slash.
    #[inline(always)]
    fn found(&self, index: usize) -> Result<Place<'a>, Error> {
        match self.name(index).and_then(|name| self.entry(index, name)) {
            Some(entry) => Ok(Place::At(entry)),
            None => Err(self.bad_name(index)),
        }
    }
}

/// How many bytes there are before the first NUL or slash, if there is one.
fn before_separator(names: &[u8]) -> usize {
    let separators = |word: u64| zero_bytes(word) | zero_bytes(word ^ SLASHES);
    let mut at = 0usize;
    let mut words = names.chunks_exact(WORD);
    for word in words.by_ref().filter_map(|chunk| chunk.first_chunk()) {
        let found = separators(u64::from_le_bytes(*word));
        if found != 0 {
            return at.wrapping_add(first_byte(found));
        }
        at = at.wrapping_add(WORD);
    }
    // Behind the end there are zeros.
    at.wrapping_add(first_byte(separators(word(words.remainder(), 0))))
}

/// Where a name is in a block.
enum Place<'a> {
    At(Dirent<'a>),
    /// It is not there; it would be before the entry with this number.
    Before(usize),
}

#[cold]
fn too_short(bytes: &[u8], pos: u64) -> Error {
    Error::corrupted("directory block too short", pos, bytes.len() as u64)
}

#[cold]
fn bad_first(nameoff: usize, pos: u64) -> Error {
    Error::corrupted(
        "dirent.nameoff of the first entry",
        pos.saturating_add(offset_of!(RawDirent, nameoff) as u64),
        nameoff as u64,
    )
}

/// Every byte a slash.
const SLASHES: u64 = u64::from_ne_bytes([b'/'; WORD]);

/// How the name that is searched for compares with another one.
struct Compared {
    order: Ordering,
    /// Length of the prefix that both have in common.
    common: usize,
}

impl Compared {
    /// The name searched for has `ours` at byte `at`, where the other one has `theirs`.
    #[inline(always)]
    fn by_word(at: usize, ours: u64, theirs: u64) -> Self {
        Self {
            order: match ours.swap_bytes() < theirs.swap_bytes() {
                true => Ordering::Less,
                false => Ordering::Greater,
            },
            common: at.wrapping_add(first_byte(ours ^ theirs)),
        }
    }
}

/// A name that is searched for.
struct Target<'a> {
    name: &'a [u8],
    /// Its first eight bytes.
    first: u64,
}

impl<'a> Target<'a> {
    #[inline(always)]
    fn new(name: &'a [u8]) -> Self {
        Self {
            name,
            first: word(name, 0),
        }
    }

    /// Compares it with the name at `other` in a block.
    #[inline(always)]
    fn compare(&self, block: &[u8], other: Range<usize>) -> Compared {
        let shorter = other.end.wrapping_sub(other.start).min(self.name.len());
        // Mostly the first bytes decide.
        if let Some(theirs) = block.get(other.start..).and_then(|rest| rest.first_chunk()) {
            let compared = Compared::by_word(0, self.first, u64::from_le_bytes(*theirs));
            if compared.common < shorter && compared.common < WORD {
                return compared;
            }
        }
        self.compare_all(block, other)
    }

    /// As [`Target::compare`], where the first bytes do not decide.
    #[inline(never)]
    fn compare_all(&self, block: &[u8], other: Range<usize>) -> Compared {
        let other = block.get(other).unwrap_or(&[]);
        let shorter = other.len().min(self.name.len());
        let ours = self.name.get(..shorter).unwrap_or(&[]);
        let theirs = other.get(..shorter).unwrap_or(&[]);
        let mut at = 0;
        for (ours, theirs) in ours.chunks_exact(WORD).zip(theirs.chunks_exact(WORD)) {
            let (ours, theirs) = (word(ours, 0), word(theirs, 0));
            if ours != theirs {
                return Compared::by_word(at, ours, theirs);
            }
            at = at.wrapping_add(WORD);
        }
        // The last word may have bytes of the one before.
        let last = shorter.saturating_sub(WORD);
        let (ours, theirs) = (word(ours, last), word(theirs, last));
        if ours != theirs {
            return Compared::by_word(last, ours, theirs);
        }
        // Where a name ends it is the smaller one.
        Compared {
            order: self.name.len().cmp(&other.len()),
            common: shorter,
        }
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
    #[inline(always)]
    fn narrow(&mut self, Compared { order, common }: Compared) -> Narrowed {
        // Everything between two bounds shares at least what both share with the target.
        if common < self.low.min(self.high) {
            return Narrowed::Unordered;
        }
        match order {
            Ordering::Equal => Narrowed::Found,
            Ordering::Less => {
                self.high = common;
                Narrowed::Below
            }
            Ordering::Greater => {
                self.low = common;
                Narrowed::Above
            }
        }
    }
}

/// Where a name is that one block of several was searched for.
enum Where<'a> {
    Here(Place<'a>),
    /// In an earlier block.
    Before,
    /// In a later block.
    Behind,
}

/// Looks for a name in a block. `alone`: it is here, or nowhere.
#[inline(always)]
fn search<'a>(
    block: &DirBlock<'a>,
    number: u64,
    alone: bool,
    target: &Target<'_>,
    bounds: &mut Bounds,
) -> Result<Where<'a>, Error> {
    let count = block.len();
    if alone {
        let found = block.find_between(target, 0..count, *bounds)?;
        // With a smaller and a larger entry the search has met two that are in order.
        let one_sided = matches!(found, Place::Before(at) if at == 0 || at == count);
        if one_sided && block.ends_before_it_begins() {
            return Err(block.out_of_order(0));
        }
        return Ok(Where::Here(found));
    }
    match bounds.narrow(block.compare(target, 0)?) {
        Narrowed::Found => return block.found(0).map(Where::Here),
        Narrowed::Below => return Ok(Where::Before),
        Narrowed::Above => {}
        Narrowed::Unordered => {
            let what = "directory blocks are out of order";
            return Err(Error::corrupted(what, block.pos, number));
        }
    }
    let last = count.wrapping_sub(1);
    let Compared { order, common } = block.compare(target, last)?;
    match order {
        Ordering::Equal => block.found(last).map(Where::Here),
        Ordering::Less => {
            bounds.high = common;
            let found = block.find_between(target, 1..last, *bounds);
            found.map(Where::Here)
        }
        // In order, the last one is nearer to what is behind it.
        Ordering::Greater if common <= bounds.low && block.ends_before_it_begins() => {
            Err(block.out_of_order(0))
        }
        Ordering::Greater => Ok(Where::Behind),
    }
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
    let target = &Target::new(name);
    while low < high {
        let mid = low + (high - low) / 2;
        let pos = mid * block_size;
        let bytes = dir.bread(pos)?;
        let len = (bytes.len() as u64).min(block_size).min(dir_size - pos);
        let block = DirBlock::new(bytes.get(..len as usize).unwrap_or(&[]), pos)?;
        match search(&block, mid, high - low == 1, target, &mut bounds)? {
            Where::Here(Place::At(entry)) => return Ok(Some((entry.nid, entry.file_type))),
            Where::Here(Place::Before(_)) => return Ok(None),
            Where::Before => high = mid,
            Where::Behind => low = mid + 1,
        }
    }
    Ok(None)
}
