// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: inline behind the inode, shared in an area of their own, with short and
//! long name prefixes.

use core::mem::offset_of;

use super::{
    error::{Error, Kind},
    hash::Hasher,
    inode::Inode,
    ondisk::{RawSharedXattr, RawXattrEntry, RawXattrIbodyHeader, RawXattrLongPrefix},
    source::{read_exact, read_raw, Reader, Source},
    superblock::Superblock,
};

/// `EROFS_XATTR_INDEX_*`: the first part of a name.
pub mod index {
    #![allow(missing_docs)]
    pub const USER: u8 = 1;
    pub const POSIX_ACL_ACCESS: u8 = 2;
    pub const POSIX_ACL_DEFAULT: u8 = 3;
    pub const TRUSTED: u8 = 4;
    pub const LUSTRE: u8 = 5;
    pub const SECURITY: u8 = 6;
}

pub use super::inode::XattrHeader;

/// Longest name.
const NAME_LEN: usize = 255;
/// `struct erofs_xattr_ibody_header`
const HEADER_SIZE: u32 = size_of::<RawXattrIbodyHeader>() as u32;
/// `struct erofs_xattr_entry`
const ENTRY_SIZE: u32 = size_of::<RawXattrEntry>() as u32;
/// An id of a shared attribute.
const SHARED_SIZE: u32 = size_of::<RawSharedXattr>() as u32;
/// Bit 7 of `e_name_index`: the rest is the number of a long prefix.
const LONG_PREFIX: u8 = 0x80;
/// `EROFS_XATTR_FILTER_SEED`
const FILTER_SEED: u32 = 0x25BB_E08F;
/// Filter bits of the two ACL attributes.
const FILTER_ACL_BITS: u32 = (1 << 21) | (1 << 30);

/// A long name prefix: `struct erofs_xattr_long_prefix`.
#[derive(Clone, Copy)]
pub struct LongPrefix {
    /// The first part of the name, one of [`index`].
    pub base_index: u8,
    len: u8,
    infix: [u8; NAME_LEN],
}

impl LongPrefix {
    /// What follows the first part.
    pub fn infix(&self) -> &[u8] {
        self.infix.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Reads the prefix at `pos` (rounded up to 4 bytes), and moves `pos` behind it.
    pub fn read<S: Source>(src: &S, pos: &mut u64) -> Result<Self, S::Error> {
        let bad = |at: u64, len: u64| Error::corrupted("length of a long xattr prefix", at, len);
        let start = pos.checked_next_multiple_of(4).ok_or(bad(*pos, 0))?;
        let raw: RawXattrLongPrefix = read_raw(src, start)?;
        let len = raw.length.get();
        let infix_len = usize::from(len)
            .checked_sub(1)
            .filter(|len| *len <= NAME_LEN)
            .ok_or(bad(start, len.into()))?;
        let mut infix = [0u8; NAME_LEN];
        let body = start
            .checked_add(size_of_val(&raw) as u64)
            .ok_or(bad(start, len.into()))?;
        read_exact(src, body, infix.get_mut(..infix_len).unwrap_or(&mut []))?;
        *pos = body
            .checked_add(infix_len as u64)
            .ok_or(bad(start, len.into()))?;
        Ok(Self {
            base_index: raw.base_index,
            len: infix_len as u8,
            infix,
        })
    }
}

impl XattrHeader {
    /// Reads it. `None`: the inode has no attributes.
    ///
    /// # Errors
    ///
    /// `Unsupported` if there is only a header; `Corrupted` if the shared ids do not fit.
    pub fn read<S: Source>(
        _sb: &Superblock,
        inode: &Inode,
        src: &S,
    ) -> Result<Option<Self>, S::Error> {
        Self::read_with(inode, &mut Reader::new(src))
    }

    #[inline(always)]
    fn read_with<S: Source>(
        inode: &Inode,
        src: &mut Reader<'_, S>,
    ) -> Result<Option<Self>, S::Error> {
        if inode.xattr_header.is_some() {
            return Ok(inode.xattr_header);
        }
        if inode.xattr_isize == 0 {
            return Ok(None);
        }
        Self::load(inode, src)
    }

    /// Reads that of an inode that has attributes.
    #[cold]
    fn load<S: Source>(inode: &Inode, src: &mut Reader<'_, S>) -> Result<Option<Self>, S::Error> {
        let pos = start(inode)?;
        if inode.xattr_isize <= HEADER_SIZE {
            return Err(Error::new(
                Kind::Unsupported,
                "i_xattr_icount of a header alone",
                pos,
                inode.xattr_isize.into(),
            )
            .into());
        }
        let this = Self::parse(&src.raw(pos)?);
        if !this.fits(inode.xattr_isize) {
            let pos = pos + offset_of!(RawXattrIbodyHeader, h_shared_count) as u64;
            let count = this.shared_count.into();
            return Err(Error::corrupted("h_shared_count", pos, count).into());
        }
        Ok(Some(this))
    }

    fn filters(sb: &Superblock) -> bool {
        sb.has_xattr_filter() && sb.xattr_filter_reserved == 0
    }

    /// `false` if the filter says that the attribute is not here.
    pub fn may_have<H: Hasher>(&self, sb: &Superblock, index: u8, name: &[u8]) -> bool {
        if !Self::filters(sb) {
            return true;
        }
        let hash = H::xxh32(name, FILTER_SEED.wrapping_add(u32::from(index)));
        self.name_filter & (1 << (hash % 32)) == 0
    }

    /// `true` if the filter says that there is no ACL.
    pub fn no_acl(&self, sb: &Superblock) -> bool {
        Self::filters(sb) && self.name_filter & FILTER_ACL_BITS == FILTER_ACL_BITS
    }
}

/// Where attributes are read from.
pub struct XattrSources<'s, S> {
    /// The inode's area.
    pub inode: &'s S,
    /// The area of shared attributes: the image, or the metabox.
    pub shared: &'s S,
}

/// First byte of the inline attributes.
fn start(inode: &Inode) -> Result<u64, Error> {
    inode
        .iloc
        .checked_add(inode.inode_isize.into())
        .ok_or(Error::corrupted("inode position", inode.iloc, inode.nid))
}

/// `struct erofs_xattr_entry`, and where it is.
struct Entry {
    /// Its first byte.
    pos: u64,
    name_len: u8,
    name_index: u8,
    value_size: u16,
}

impl Entry {
    #[inline(always)]
    fn read<S: Source>(src: &mut Reader<'_, S>, pos: u64) -> Result<Self, S::Error> {
        let raw: RawXattrEntry = src.raw(pos)?;
        let this = Self {
            pos,
            name_len: raw.e_name_len,
            name_index: raw.e_name_index,
            value_size: raw.e_value_size.get(),
        };
        // So that positions inside of the entry cannot overflow.
        if pos.checked_add(u64::from(this.size())).is_none() {
            return Err(Error::corrupted("xattr position", pos, 0).into());
        }
        Ok(this)
    }

    /// Bytes that it takes, a multiple of 4.
    fn size(&self) -> u32 {
        (ENTRY_SIZE + u32::from(self.name_len) + u32::from(self.value_size)).next_multiple_of(4)
    }

    fn name_pos(&self) -> u64 {
        self.pos.saturating_add(ENTRY_SIZE.into())
    }

    fn value_pos(&self) -> u64 {
        self.name_pos().saturating_add(self.name_len.into())
    }

    /// First part of the name and infix. `None`: the long prefix does not exist.
    fn prefix<'p>(&self, prefixes: &'p [LongPrefix]) -> Option<(u8, &'p [u8])> {
        if self.name_index & LONG_PREFIX == 0 {
            return Some((self.name_index, &[]));
        }
        let prefix = prefixes.get(usize::from(self.name_index & !LONG_PREFIX))?;
        Some((prefix.base_index, prefix.infix()))
    }
}

/// Calls `visit` for every attribute, inline ones first, until it gives something.
#[inline(always)]
fn for_each<S: Source, R>(
    sb: &Superblock,
    inode: &Inode,
    header: &XattrHeader,
    own: &mut Reader<'_, S>,
    shared: &S,
    mut visit: impl FnMut(&mut Reader<'_, S>, &Entry) -> Result<Option<R>, S::Error>,
) -> Result<Option<R>, S::Error> {
    let ids = start(inode)?.saturating_add(HEADER_SIZE.into());
    let ids_len = SHARED_SIZE * u32::from(header.shared_count);
    let mut pos = ids.saturating_add(ids_len.into());
    // The reader keeps what is behind what it read last, and the ids are before the entries.
    own.bytes(ids)?;
    // `XattrHeader::read` has checked that the ids fit.
    let mut left = inode.xattr_isize.saturating_sub(HEADER_SIZE + ids_len);
    while left > 0 {
        let entry = Entry::read(own, pos)?;
        left = left.checked_sub(entry.size()).ok_or(Error::corrupted(
            "xattr entry past the inline xattrs",
            pos,
            entry.size().into(),
        ))?;
        if let Some(result) = visit(own, &entry)? {
            return Ok(Some(result));
        }
        pos = pos.saturating_add(entry.size().into());
    }
    let area = sb.block_pos(sb.xattr_blkaddr.into())?;
    let mut shared = Reader::new(shared);
    for number in 0..u64::from(header.shared_count) {
        let raw: RawSharedXattr = own.raw(ids.saturating_add(u64::from(SHARED_SIZE) * number))?;
        let id = u64::from(raw.id);
        let at = area
            .checked_add(4 * id)
            .ok_or(Error::corrupted("shared xattr id", ids, id))?;
        let entry = Entry::read(&mut shared, at)?;
        if let Some(result) = visit(&mut shared, &entry)? {
            return Ok(Some(result));
        }
    }
    Ok(None)
}

/// Size of an attribute's value, which is copied to `out` if that is given.
///
/// # Errors
///
/// `NoData` if there is none; `Range` if `out` is too small, or the name too long.
#[inline(never)]
pub fn getxattr<S: Source, H: Hasher>(
    sb: &Superblock,
    inode: &Inode,
    sources: &XattrSources<'_, S>,
    prefixes: &[LongPrefix],
    index: u8,
    name: &[u8],
    out: Option<&mut [u8]>,
) -> Result<usize, S::Error> {
    let own = &mut Reader::new(sources.inode);
    let header = XattrHeader::read_with(inode, own)?.ok_or(none(inode, index))?;
    if !header.may_have::<H>(sb, index, name) {
        return Err(none(inode, index).into());
    }
    find(sb, inode, &header, sources, prefixes, index, name, out)
}

/// There is no such attribute.
#[cold]
fn none(inode: &Inode, index: u8) -> Error {
    Error::new(Kind::NoData, "no such attribute", inode.iloc, index.into())
}

/// As [`getxattr`], of an inode with this header, whatever its filter says.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub fn find<S: Source>(
    sb: &Superblock,
    inode: &Inode,
    header: &XattrHeader,
    sources: &XattrSources<'_, S>,
    prefixes: &[LongPrefix],
    index: u8,
    name: &[u8],
    out: Option<&mut [u8]>,
) -> Result<usize, S::Error> {
    let range = |len: usize| Error::new(Kind::Range, "buffer size", inode.iloc, len as u64);
    if name.len() > NAME_LEN {
        return Err(range(name.len()).into());
    }
    let own = &mut Reader::new(sources.inode);
    let mut out = out;
    let found = for_each(sb, inode, header, own, sources.shared, |src, entry| {
        let Some((base, infix)) = entry.prefix(prefixes) else {
            return Ok(None);
        };
        let Some(rest) = name.strip_prefix(infix) else {
            return Ok(None);
        };
        if base != index || rest.len() != usize::from(entry.name_len) {
            return Ok(None);
        }
        if !src.is(entry.name_pos(), rest)? {
            return Ok(None);
        }
        let size = usize::from(entry.value_size);
        if let Some(out) = out.as_deref_mut() {
            let to = out.get_mut(..size).ok_or(range(size))?;
            src.read_exact(entry.value_pos(), to)?;
        }
        Ok(Some(size))
    })?;
    Ok(found.ok_or_else(|| none(inode, index))?)
}

/// Total size of all names with their NULs, which are copied to `out` if that is given. `prefix_of`
/// gives the text of a first part, or `None` for attributes that are not to be listed.
///
/// # Errors
///
/// `Range` if `out` is too small.
pub fn listxattr<S: Source>(
    sb: &Superblock,
    inode: &Inode,
    sources: &XattrSources<'_, S>,
    prefixes: &[LongPrefix],
    prefix_of: impl Fn(u8) -> Option<&'static [u8]>,
    out: Option<&mut [u8]>,
) -> Result<usize, S::Error> {
    let own = &mut Reader::new(sources.inode);
    let Some(header) = XattrHeader::read_with(inode, own)? else {
        return Ok(0);
    };
    let mut out = out;
    let mut used = 0usize;
    for_each::<S, ()>(sb, inode, &header, own, sources.shared, |src, entry| {
        let Some((base, infix)) = entry.prefix(prefixes) else {
            return Ok(None);
        };
        let Some(prefix) = prefix_of(base) else {
            return Ok(None);
        };
        let mut name = [0u8; NAME_LEN];
        let name = name
            .get_mut(..usize::from(entry.name_len))
            .unwrap_or(&mut []);
        if out.is_some() {
            src.read_exact(entry.name_pos(), name)?;
        }
        for part in [prefix, infix, name, &[0]] {
            if let Some(out) = out.as_deref_mut() {
                let end = used.saturating_add(part.len());
                out.get_mut(used..end)
                    .ok_or(Error::new(
                        Kind::Range,
                        "buffer size",
                        entry.pos,
                        end as u64,
                    ))?
                    .copy_from_slice(part);
            }
            used = used.saturating_add(part.len());
        }
        Ok(None)
    })?;
    Ok(used)
}
