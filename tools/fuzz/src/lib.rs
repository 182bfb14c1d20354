// SPDX-License-Identifier: GPL-2.0

//! What the fuzz targets share: an image in memory that counts what is read of it.

use std::{borrow::Cow, cell::Cell};

use erofs_shared_format::{
    error::{Error, Kind},
    hash::Hasher,
    inode::Inode,
    map::{map_blocks, Extent},
    source::Source,
    superblock::{Area, Superblock, SUPER_MAGIC, SUPER_OFFSET},
    zmap::{Coding, Data as Backing, ZExtent},
    HostHash,
};

/// Bytes that a target takes from the front of its input besides the image.
pub struct Params<'a>(pub &'a [u8]);

impl Params<'_> {
    /// Takes `N` bytes; zeros when there are no more.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let len = self.0.len().min(N);
        let (head, rest) = self.0.split_at(len);
        out[..len].copy_from_slice(head);
        self.0 = rest;
        out
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// An area in memory. Counts the calls of `bread`.
pub struct Counting<'a> {
    bytes: &'a [u8],
    unit: u64,
    reads: Cell<u64>,
}

impl<'a> Counting<'a> {
    pub fn new(bytes: &'a [u8], unit: u64) -> Self {
        assert!(unit.is_power_of_two() && (512..=4096).contains(&unit));
        Self {
            bytes,
            unit,
            reads: Cell::new(0),
        }
    }

    /// Calls since the last time that this was asked.
    pub fn reads(&self) -> u64 {
        self.reads.replace(0)
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Source for Counting<'_> {
    type Error = Error;
    type Buf<'b>
        = &'b [u8]
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<&[u8], Error> {
        self.reads.set(self.reads.get() + 1);
        let len = self.bytes.len() as u64;
        if pos >= len {
            return Err(past_end(pos, len));
        }
        let end = (pos - pos % self.unit + self.unit).min(len);
        Ok(&self.bytes[pos as usize..end as usize])
    }
}

fn past_end(pos: u64, value: u64) -> Error {
    Error {
        kind: Kind::Corrupted,
        what: "read past the end",
        pos,
        value,
    }
}

/// The data of an inode, as the module reads directories, symbolic links and the metabox.
pub struct Data<'a, S> {
    sb: &'a Superblock,
    inode: &'a Inode,
    /// The inode's area.
    area: &'a S,
    image: &'a Counting<'a>,
    buf: Cell<u64>,
}

impl<'a, S> Data<'a, S> {
    pub fn new(sb: &'a Superblock, inode: &'a Inode, area: &'a S, image: &'a Counting<'a>) -> Self {
        Self {
            sb,
            inode,
            area,
            image,
            buf: Cell::new(0),
        }
    }

    /// Calls of `bread` since the last time that this was asked.
    pub fn reads(&self) -> u64 {
        self.buf.replace(0)
    }
}

impl<S: Source<Error = Error>> Source for Data<'_, S> {
    type Error = Error;
    type Buf<'b>
        = Cow<'b, [u8]>
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<Cow<'_, [u8]>, Error> {
        const UNIT: u64 = 4096;
        self.buf.set(self.buf.get() + 1);
        let size = self.inode.size;
        if pos >= size {
            return Err(past_end(pos, size));
        }
        let end = (pos - pos % UNIT).saturating_add(UNIT).min(size);
        let mut out = vec![0; (end - pos) as usize];
        let mut done = 0;
        // A unit has at most eight blocks, each of them an extent of its own.
        for _ in 0..9 {
            let left = &mut out[done..];
            if left.is_empty() {
                return Ok(Cow::Owned(out));
            }
            let la = pos + done as u64;
            let extent = map_blocks(self.sb, self.inode, self.area, la)?;
            let (start, len) = check_extent(&extent, la);
            let len = (start + len - la).min(left.len() as u64) as usize;
            let left = &mut left[..len];
            match extent {
                Extent::Hole { .. } => {}
                // Of extra devices there are none here.
                Extent::Mapped { pa, .. } => {
                    erofs_shared_format::source::read_exact(self.image, pa + (la - start), left)?
                }
                Extent::Inline { pa, .. } => {
                    erofs_shared_format::source::read_exact(self.area, pa + (la - start), left)?
                }
            }
            done += len;
        }
        panic!("{pos:#x}: more than eight extents in {UNIT} bytes");
    }
}

/// An extent holds the byte that was asked for. Gives its first byte and length.
pub fn check_extent(extent: &Extent, la: u64) -> (u64, u64) {
    let (start, len, pa) = match *extent {
        Extent::Hole { la, len } => (la, len, 0),
        Extent::Mapped { la, len, pa, .. } => (la, len, pa),
        Extent::Inline { la, len, pa } => (la, len, pa),
    };
    let end = start.checked_add(len).expect("the extent's end overflows");
    assert!(start <= la && la < end, "{extent:?} does not hold {la:#x}");
    let last = pa.checked_add(len).expect("the address overflows");
    assert!(last <= i64::MAX as u64, "{extent:?}: address past 2^63");
    (start, len)
}

/// A compressed file's extent holds the byte that was asked for, and keeps to the format's limits.
pub fn check_zextent(sb: &Superblock, inode: &Inode, extent: &ZExtent, la: u64) {
    assert!(
        extent.la <= la && la - extent.la < extent.llen,
        "{extent:?} does not hold {la:#x}"
    );
    assert!(extent.end() <= inode.size, "{extent:?} past the end");
    match extent.data {
        Backing::Hole => {}
        Backing::Fragment { pos } => {
            assert!(sb.has_fragments() && sb.packed_nid != 0);
            assert!(pos + extent.llen <= i64::MAX as u64);
        }
        Backing::Pcluster(data) => {
            assert!(data.plen > 0 && data.plen <= 1 << 20, "{extent:?}");
            assert!(extent.llen <= 12 << 20, "{extent:?}");
            let end = data.pa + u64::from(data.plen);
            let block = u64::from(sb.block_size());
            if data.inline {
                assert!(end - (data.pa - data.pa % block) <= block, "{extent:?}");
            } else {
                assert!(end / block < 1 << 48, "{extent:?}");
            }
            // All of the plain data is inside.
            let mut at = 0;
            while let Some((from, len)) = extent.plain(sb, at) {
                assert!(len > 0 && from + len <= data.plen, "{extent:?}");
                at += u64::from(len);
            }
            let compressed = matches!(data.coding, Coding::Compressed(_));
            assert_eq!(at, if compressed { 0 } else { extent.llen });
        }
    }
}

/// The first 4096 bytes of an image with a superblock that passes: magic, checksum and the values that
/// only have a few choices are put right, all others stay as they are.
pub fn mend_head(image: &[u8]) -> Vec<u8> {
    let mut head = image[..image.len().min(4096)].to_vec();
    if head.len() < SUPER_OFFSET + 144 {
        head.resize(SUPER_OFFSET + 144, 0);
    }
    let sb = &mut head[SUPER_OFFSET..];
    sb[..4].copy_from_slice(&SUPER_MAGIC.to_le_bytes());
    sb[12] = 9 + (sb[12].wrapping_sub(9) & 3);
    sb[81] &= 1;
    sb[82] = 0;
    sb[83] = 0;
    sb[90] = 0;
    if sb[80] & 2 != 0 {
        // Only known algorithms.
        sb[84] &= 0x0F;
        sb[85] = 0;
    }
    let block = 1usize << sb[12];
    let end = if block > SUPER_OFFSET {
        block
    } else {
        SUPER_OFFSET + block
    };
    match head.get(SUPER_OFFSET + 8..end) {
        Some(summed) => {
            // The magic, zeros for the checksum itself, and what follows.
            let magic = HostHash::crc32c(!0, &SUPER_MAGIC.to_le_bytes());
            let crc = HostHash::crc32c(HostHash::crc32c(magic, &[0; 4]), summed);
            head[SUPER_OFFSET + 4..SUPER_OFFSET + 8].copy_from_slice(&crc.to_le_bytes());
        }
        // Shorter than a block: there cannot be a checksum.
        None => head[SUPER_OFFSET + 8] &= !1,
    }
    head
}

/// The mended superblock of `image`, unless some other of its values is wrong.
pub fn superblock(image: &[u8]) -> Option<Superblock> {
    match Superblock::parse::<HostHash>(&mend_head(image)) {
        Ok(sb) => Some(sb),
        Err(err) => {
            // Or else no target would get anywhere.
            assert!(
                !matches!(err.kind, Kind::NotErofs | Kind::Checksum),
                "{err}"
            );
            check_error(&err);
            None
        }
    }
}

/// The image that an input without its first, empty 1024 bytes stands for.
pub fn image_of(input: &[u8]) -> Vec<u8> {
    let mut image = vec![0; SUPER_OFFSET];
    image.extend_from_slice(input);
    image
}

/// An inode of the image: targets that look at single inodes take the image for the metabox, too.
pub fn inode(sb: &Superblock, nid: u64, image: &Counting<'_>) -> Option<Inode> {
    image.reads();
    let found = Inode::read(sb, nid, image);
    assert!(image.reads() <= 4, "reads of an inode");
    let found = match found {
        Ok(inode) => inode,
        Err(err) => {
            check_error(&err);
            return None;
        }
    };
    assert_eq!(found.nid, nid);
    assert!(matches!(found.inode_isize, 32 | 64));
    assert!(found.size <= i64::MAX as u64);
    assert!((9..=43).contains(&found.chunk_bits(sb)));
    assert!(found.xattr_isize == 0 || found.xattr_isize >= 12);
    assert!(found.area == Area::Image || sb.has_metabox());
    Some(found)
}

/// An error can be shown, and blames the image.
pub fn check_error(err: &Error) {
    assert!(!err.what.is_empty());
    assert!(err.to_string().len() > err.what.len());
    assert!(!matches!(err.kind, Kind::NoData | Kind::Range), "{err}");
}
