// SPDX-License-Identifier: GPL-2.0

//! Inodes: `struct erofs_inode_compact` (32 bytes) and `struct erofs_inode_extended` (64 bytes).

use core::mem::offset_of;

use zerocopy::{FromZeros, IntoBytes};

use super::{
    error::{Error, Kind},
    ondisk::{Raw, RawInodeCompact, RawInodeExtended, RawSharedXattr, RawXattrIbodyHeader},
    source::{Reader, Source},
    superblock::{Area, Superblock},
};

/// Bits of `i_format` that mean something.
const FORMAT_ALL: u16 = 0x1F;
/// Bit 4: `EROFS_I_NLINK_1_BIT`, or `EROFS_I_DOT_OMITTED_BIT` of a directory.
const FORMAT_BIT4: u16 = 0x10;
/// `EROFS_CHUNK_FORMAT_ALL`
const CHUNK_FORMAT_ALL: u16 = 0x7F;
/// `EROFS_CHUNK_FORMAT_BLKBITS_MASK`
const CHUNK_FORMAT_BLKBITS: u16 = 0x1F;

/// How an inode's data is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `EROFS_INODE_FLAT_PLAIN`
    FlatPlain,
    /// `EROFS_INODE_COMPRESSED_FULL`
    CompressedFull,
    /// `EROFS_INODE_FLAT_INLINE`
    FlatInline,
    /// `EROFS_INODE_COMPRESSED_COMPACT`
    CompressedCompact,
    /// `EROFS_INODE_CHUNK_BASED`
    ChunkBased,
}

/// Type of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl FileType {
    fn of_mode(mode: u16) -> Option<Self> {
        Some(match mode >> 12 {
            0o10 => FileType::Regular,
            0o04 => FileType::Directory,
            0o12 => FileType::Symlink,
            0o02 => FileType::CharDevice,
            0o06 => FileType::BlockDevice,
            0o01 => FileType::Fifo,
            0o14 => FileType::Socket,
            _ => return None,
        })
    }

    fn has_data(self) -> bool {
        matches!(
            self,
            FileType::Regular | FileType::Directory | FileType::Symlink
        )
    }
}

/// A checked inode: what is needed to read its data and its extended attributes.
#[derive(Clone, Copy, Debug)]
pub struct Inode {
    /// Its number, with bit 63 for one in the metabox.
    pub nid: u64,
    /// Its first byte in `area`.
    pub iloc: u64,
    /// Size in bytes, below 2^63.
    pub size: u64,
    /// First block of flat data, or [`NO_BLOCK`].
    start: u64,
    /// Bytes of inline xattrs behind it.
    pub xattr_isize: u32,
    /// The header of its xattrs, if it has some and the header is right and was read with it.
    pub xattr_header: Option<XattrHeader>,
    /// `struct erofs_inode_chunk_info.format`
    pub chunk_format: u16,
    /// Where it lies.
    pub area: Area,
    /// 32 or 64.
    pub inode_isize: u8,
    /// Layout of its data.
    pub layout: Layout,
    /// Type of the file.
    pub file_type: FileType,
    /// A directory that does not store its entry `.`.
    pub dot_omitted: bool,
}

/// A number that no block has: addresses of blocks have 48 bits.
const NO_BLOCK: u64 = u64::MAX;

/// What an inode says of its file for stat(2) alone. It is no part of [`Inode`], since the VFS's
/// inode has it.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// `i_mode`
    pub mode: u16,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Link count.
    pub nlink: u32,
    /// Modification time in seconds.
    pub mtime: i64,
    /// Nanoseconds of it, below 1e9.
    pub mtime_nsec: u32,
    /// Device number of a device node, in `new_encode_dev` form.
    pub rdev: u32,
    /// 512-byte units that its data takes.
    pub blocks512: u64,
}

/// `struct erofs_xattr_ibody_header`, which is behind an inode that has attributes.
#[derive(Clone, Copy, Debug)]
pub struct XattrHeader {
    /// Bloom filter of names; a set bit says that no name with this hash is here.
    pub name_filter: u32,
    /// Number of shared attributes.
    pub shared_count: u8,
}

impl XattrHeader {
    #[inline(always)]
    pub(super) fn parse(raw: &RawXattrIbodyHeader) -> Self {
        Self {
            name_filter: raw.h_name_filter.get(),
            shared_count: raw.h_shared_count,
        }
    }

    /// Whether it and the ids of the shared attributes fit in an area of this size, and that is
    /// not for the header alone.
    #[inline(always)]
    pub(super) fn fits(&self, xattr_isize: u32) -> bool {
        let ids = u32::from(self.shared_count) * size_of::<RawSharedXattr>() as u32;
        xattr_isize
            .checked_sub(size_of::<RawXattrIbodyHeader>() as u32)
            .is_some_and(|room| room > 0 && ids <= room)
    }
}

/// What compact and extended inodes have at different places.
struct Numbers {
    /// Size of the inode itself.
    inode_isize: u8,
    size: u64,
    /// A number of blocks, or of the first one; `addr_bits` of its bits count.
    block: u64,
    addr_bits: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: i64,
    mtime_nsec: u32,
}

impl Numbers {
    /// Those of an inode, checked. `nlink_one` is as for [`Numbers::compact`].
    #[inline(always)]
    fn parse(
        sb: &Superblock,
        iloc: u64,
        raw: &RawInodeExtended,
        nlink_one: bool,
    ) -> Result<Self, Error> {
        let this = if raw.version() != 0 {
            Self::extended(raw)
        } else {
            Self::compact(sb, iloc, raw.as_compact(), nlink_one)?
        };
        if this.size > i64::MAX as u64 {
            let pos = iloc + offset_of!(RawInodeExtended, i_size) as u64;
            return Err(Error::corrupted("i_size is negative", pos, this.size));
        }
        if this.mtime_nsec >= 1_000_000_000 {
            let pos = iloc + offset_of!(RawInodeExtended, i_mtime_nsec) as u64;
            let nsec = this.mtime_nsec.into();
            return Err(Error::corrupted("i_mtime_nsec", pos, nsec));
        }
        Ok(this)
    }

    /// Those of an extended inode.
    fn extended(raw: &RawInodeExtended) -> Self {
        let high = u64::from(raw.i_nb) << 32;
        Self {
            inode_isize: size_of::<RawInodeExtended>() as u8,
            size: raw.i_size.get(),
            block: high | u64::from(raw.i_u),
            addr_bits: 48,
            uid: raw.i_uid.get(),
            gid: raw.i_gid.get(),
            nlink: raw.i_nlink.get(),
            mtime: raw.i_mtime.get() as i64,
            mtime_nsec: raw.i_mtime_nsec.get(),
        }
    }

    /// Those of a compact inode. `nlink_one`: it has one link, and no field that says so.
    fn compact(
        sb: &Superblock,
        iloc: u64,
        raw: &RawInodeCompact,
        nlink_one: bool,
    ) -> Result<Self, Error> {
        let mtime = raw.i_mtime.get();
        let nb = raw.i_nb.get();
        let pos = iloc + offset_of!(RawInodeCompact, i_mtime) as u64;
        // Where it is no number of links, the field is the upper half of a block number.
        let (nlink, high, addr_bits) = if nlink_one {
            (1, u64::from(nb) << 32, 48)
        } else {
            (u32::from(nb), 0, 32)
        };
        Ok(Self {
            inode_isize: size_of::<RawInodeCompact>() as u8,
            size: u64::from(raw.i_size),
            block: high | u64::from(raw.i_u),
            addr_bits,
            uid: u32::from(raw.i_uid),
            gid: u32::from(raw.i_gid),
            nlink,
            mtime: sb
                .epoch
                .checked_add(i64::from(mtime))
                .ok_or(Error::corrupted("i_mtime", pos, mtime.into()))?,
            mtime_nsec: sb.fixed_nsec,
        })
    }
}

/// What an inode says of the blocks that its data takes.
struct Blocks {
    /// First block of flat data, or [`NO_BLOCK`].
    start: u64,
    /// 512-byte units as `stat` shows them.
    units: u64,
}

impl Blocks {
    #[inline(always)]
    fn new(
        sb: &Superblock,
        iloc: u64,
        file_type: FileType,
        layout: Layout,
        numbers: &Numbers,
    ) -> Result<Self, Error> {
        let (number, size) = (numbers.block, numbers.size);
        let block = u64::from(sb.block_size());
        if matches!(layout, Layout::CompressedFull | Layout::CompressedCompact) {
            let pos = iloc + offset_of!(RawInodeExtended, i_u) as u64;
            let overflow = Error::corrupted("i_blocks", pos, number);
            return Ok(Self {
                start: NO_BLOCK,
                units: number.checked_mul(block / 512).ok_or(overflow)?,
            });
        }
        let is_flat = file_type.has_data() && layout != Layout::ChunkBased;
        let null = (1u64 << numbers.addr_bits) - 1;
        let is_null = layout == Layout::FlatPlain && number & null == null;
        Ok(Self {
            start: if is_flat && !is_null {
                number
            } else {
                NO_BLOCK
            },
            units: size.div_ceil(block) * (block / 512),
        })
    }
}

/// Returns the file type that `i_mode` names.
#[inline(always)]
fn file_type(mode: u16, iloc: u64) -> Result<FileType, Error> {
    let what = "i_mode: no such file type";
    let pos = iloc + offset_of!(RawInodeExtended, i_mode) as u64;
    FileType::of_mode(mode).ok_or(Error::corrupted(what, pos, mode.into()))
}

/// Returns how an inode's data is laid out.
fn layout(raw: &RawInodeExtended, iloc: u64) -> Result<Layout, Error> {
    let unsupported = |what, value: u16| Error::new(Kind::Unsupported, what, iloc, value.into());
    let format = raw.i_format.get();
    if format & !FORMAT_ALL != 0 {
        return Err(unsupported("i_format is not known", format));
    }
    Ok(match raw.layout() {
        0 => Layout::FlatPlain,
        1 => Layout::CompressedFull,
        2 => Layout::FlatInline,
        3 => Layout::CompressedCompact,
        4 => Layout::ChunkBased,
        other => return Err(unsupported("i_format: data layout is not known", other)),
    })
}

/// Returns the size of the xattr area behind an inode, in bytes.
fn xattr_isize(raw: &RawInodeExtended) -> u32 {
    match u32::from(raw.i_xattr_icount).checked_sub(1) {
        None => 0,
        Some(more) => {
            size_of::<RawXattrIbodyHeader>() as u32 + size_of::<RawSharedXattr>() as u32 * more
        }
    }
}

/// Returns the format of chunks; 0 if the inode has none.
fn chunk_format(raw: &RawInodeExtended, layout: Layout, iloc: u64) -> Result<u16, Error> {
    if layout != Layout::ChunkBased {
        return Ok(0);
    }
    let format = raw.chunk_format();
    if format & !CHUNK_FORMAT_ALL != 0 {
        let what = "chunk format is not known";
        return Err(Error::new(Kind::Unsupported, what, iloc, format.into()));
    }
    Ok(format)
}

impl Inode {
    /// Reads the inode `nid` from the area that `sb.iloc(nid)` names.
    pub fn read<S: Source>(sb: &Superblock, nid: u64, src: &S) -> Result<Self, S::Error> {
        let (_, iloc) = sb.iloc(nid)?;
        let (inode, _) = Self::read_at(sb, nid, &src.bread(iloc)?, src)?;
        Ok(inode)
    }

    /// As [`Inode::read`], where `bytes` is what `src` has from the inode on; and what stat(2)
    /// shows of it.
    #[inline]
    pub fn read_at<S: Source>(
        sb: &Superblock,
        nid: u64,
        bytes: &[u8],
        src: &S,
    ) -> Result<(Self, Stat), S::Error> {
        let (area, iloc) = sb.iloc(nid)?;
        let Some(raw) = RawInodeExtended::first(bytes) else {
            return Self::read_split(sb, nid, src);
        };
        let (mut inode, stat) = Self::parse(sb, nid, area, iloc, raw)?;
        if inode.xattr_isize != 0 {
            inode.xattr_header = bytes
                .get(usize::from(inode.inode_isize)..)
                .and_then(RawXattrIbodyHeader::first)
                .map(XattrHeader::parse)
                .filter(|header| header.fits(inode.xattr_isize));
        }
        Ok((inode, stat))
    }

    /// Reads an inode that is perhaps in two units.
    #[cold]
    fn read_split<S: Source>(sb: &Superblock, nid: u64, src: &S) -> Result<(Self, Stat), S::Error> {
        let (area, iloc) = sb.iloc(nid)?;
        let mut src = Reader::new(src);
        let mut raw = RawInodeExtended::new_zeroed();
        let compact_size = size_of::<RawInodeCompact>();
        let (head, tail) = raw.as_mut_bytes().split_at_mut(compact_size);
        src.read_exact(iloc, head)?;
        if RawInodeCompact::first(head).is_some_and(|raw| raw.version() != 0) {
            let next = iloc
                .checked_add(compact_size as u64)
                .ok_or(Error::corrupted("nid out of range", iloc, nid))?;
            src.read_exact(next, tail)?;
        }
        Ok(Self::parse(sb, nid, area, iloc, &raw)?)
    }

    fn parse(
        sb: &Superblock,
        nid: u64,
        area: Area,
        iloc: u64,
        raw: &RawInodeExtended,
    ) -> Result<(Self, Stat), Error> {
        let layout = layout(raw, iloc)?;
        let format = raw.i_format.get();
        let extended = raw.version() != 0;
        let mode = raw.i_mode.get();
        let file_type = file_type(mode, iloc)?;
        let is_dir = file_type == FileType::Directory;
        let nlink_one = !extended && !is_dir && format & FORMAT_BIT4 != 0;
        let numbers = Numbers::parse(sb, iloc, raw, nlink_one)?;
        let blocks = Blocks::new(sb, iloc, file_type, layout, &numbers)?;
        let inode = Self {
            nid,
            iloc,
            size: numbers.size,
            start: blocks.start,
            xattr_isize: xattr_isize(raw),
            xattr_header: None,
            chunk_format: chunk_format(raw, layout, iloc)?,
            area,
            inode_isize: numbers.inode_isize,
            layout,
            file_type,
            dot_omitted: is_dir && format & FORMAT_BIT4 != 0,
        };
        let stat = Stat {
            mode,
            uid: numbers.uid,
            gid: numbers.gid,
            nlink: numbers.nlink,
            mtime: numbers.mtime,
            mtime_nsec: numbers.mtime_nsec,
            rdev: raw.rdev(),
            blocks512: blocks.units,
        };
        Ok((inode, stat))
    }

    /// The first block of flat data; `None` for a hole, and where the layout has no such address.
    pub fn startblk(&self) -> Option<u64> {
        (self.start != NO_BLOCK).then_some(self.start)
    }

    /// Whether its data is compressed.
    pub fn is_compressed(&self) -> bool {
        matches!(
            self.layout,
            Layout::CompressedFull | Layout::CompressedCompact
        )
    }

    /// Chunk size as a power of two: 9 to 43.
    pub fn chunk_bits(&self, sb: &Superblock) -> u32 {
        u32::from(sb.blkszbits) + u32::from(self.chunk_format & CHUNK_FORMAT_BLKBITS)
    }

    /// The byte behind the inode and its inline xattrs, in `area`.
    pub(super) fn body_end(&self) -> Result<u64, Error> {
        self.iloc
            .checked_add(u64::from(self.inode_isize) + u64::from(self.xattr_isize))
            .ok_or(Error::corrupted("inode position", self.iloc, self.nid))
    }

    /// Position in `area` and length of the inline tail: the data that does not fill a block.
    ///
    /// # Errors
    ///
    /// `Corrupted` if it crosses a block boundary.
    pub fn tail(&self, sb: &Superblock) -> Result<Option<(u64, u32)>, Error> {
        if self.layout != Layout::FlatInline || self.size == 0 {
            return Ok(None);
        }
        let block = u64::from(sb.block_size());
        let len = (self.size - 1) % block + 1;
        let pos = self.body_end()?;
        if pos % block + len > block {
            return Err(Error::corrupted("inline data across blocks", pos, len));
        }
        Ok(Some((pos, len as u32)))
    }
}
