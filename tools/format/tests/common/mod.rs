// SPDX-License-Identifier: GPL-2.0

//! Hand-made bytes: what the format's document says, written down apart from what reads it.

#![allow(dead_code)]

use erofs_shared_format::{
    error::{Error, Kind},
    hash::Hasher,
    inode::{Inode, Stat},
    source::Source,
    superblock::{Superblock, SUPER_MAGIC, SUPER_OFFSET},
    Bytes, HostHash,
};

/// Writes `value` at byte `at`, making room.
pub fn put(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    if bytes.len() < at + value.len() {
        bytes.resize(at + value.len(), 0);
    }
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An image with a superblock that is fine: 4096-byte blocks, no features, inodes from byte 4096 on.
pub struct Head(pub Vec<u8>);

impl Default for Head {
    fn default() -> Self {
        let mut head = Head(vec![0; 4096]);
        head.set(0, &SUPER_MAGIC.to_le_bytes());
        head.set(12, &[12]);
        head.set(40, &1u32.to_le_bytes());
        head
    }
}

impl Head {
    /// Sets the field at byte `at` of the superblock.
    pub fn set(&mut self, at: usize, value: &[u8]) -> &mut Self {
        put(&mut self.0, SUPER_OFFSET + at, value);
        self
    }

    pub fn compat(&mut self, bits: u32) -> &mut Self {
        self.set(8, &bits.to_le_bytes())
    }

    pub fn incompat(&mut self, bits: u32) -> &mut Self {
        self.set(80, &bits.to_le_bytes())
    }

    pub fn blkszbits(&mut self, bits: u8) -> &mut Self {
        self.set(12, &[bits])
    }

    /// Fills the checksum in, over bytes up to `end`.
    pub fn sign(&mut self, end: usize) -> &mut Self {
        let magic = HostHash::crc32c(!0, &self.0[SUPER_OFFSET..SUPER_OFFSET + 4]);
        // The checksum's own field counts as zero.
        let field = HostHash::crc32c(magic, &[0; 4]);
        let crc = HostHash::crc32c(field, &self.0[SUPER_OFFSET + 8..end]);
        self.set(4, &crc.to_le_bytes())
    }

    pub fn parse(&self) -> Result<Superblock, Error> {
        Superblock::parse::<HostHash>(&self.0)
    }

    pub fn superblock(&self) -> Superblock {
        self.parse().expect("a good superblock")
    }

    pub fn refusal(&self) -> (Kind, u64, u64) {
        let error = self.parse().expect_err("a superblock to be refused");
        assert!(!error.what.is_empty());
        (error.kind, error.pos, error.value)
    }
}

/// An on-disk inode of either size.
#[derive(Clone, Copy, Debug)]
pub struct RawInode {
    pub extended: bool,
    pub layout: u16,
    /// `i_format` above the layout.
    pub bit4: bool,
    pub icount: u16,
    pub mode: u16,
    /// `i_nb`: link count of a compact inode, or the block number's upper half.
    pub nb: u16,
    pub size: u64,
    pub mtime: u64,
    pub nsec: u32,
    pub i_u: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
}

impl Default for RawInode {
    fn default() -> Self {
        Self {
            extended: false,
            layout: 0,
            bit4: false,
            icount: 0,
            mode: 0o100644,
            nb: 1,
            size: 0,
            mtime: 0,
            nsec: 0,
            i_u: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
        }
    }
}

impl RawInode {
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let format = u16::from(self.extended) | (self.layout << 1) | (u16::from(self.bit4) << 4);
        put(&mut out, 0, &format.to_le_bytes());
        put(&mut out, 2, &self.icount.to_le_bytes());
        put(&mut out, 4, &self.mode.to_le_bytes());
        put(&mut out, 6, &self.nb.to_le_bytes());
        if self.extended {
            put(&mut out, 8, &self.size.to_le_bytes());
            put(&mut out, 16, &self.i_u.to_le_bytes());
            put(&mut out, 24, &self.uid.to_le_bytes());
            put(&mut out, 28, &self.gid.to_le_bytes());
            put(&mut out, 32, &self.mtime.to_le_bytes());
            put(&mut out, 40, &self.nsec.to_le_bytes());
            put(&mut out, 44, &self.nlink.to_le_bytes());
            put(&mut out, 63, &[0]);
        } else {
            put(&mut out, 8, &(self.size as u32).to_le_bytes());
            put(&mut out, 12, &(self.mtime as u32).to_le_bytes());
            put(&mut out, 16, &self.i_u.to_le_bytes());
            put(&mut out, 24, &(self.uid as u16).to_le_bytes());
            put(&mut out, 26, &(self.gid as u16).to_le_bytes());
            put(&mut out, 31, &[0]);
        }
        out
    }

    /// An image with this inode at nid 0 (byte 4096 in images with `Head::default()`), `more` behind it.
    pub fn image(&self, more: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 4096];
        image.extend(self.bytes());
        image.extend(more);
        image.resize(image.len().next_multiple_of(4096), 0);
        image
    }

    pub fn read(&self, sb: &Superblock) -> Result<Inode, Error> {
        Ok(self.read_both(sb)?.0)
    }

    pub fn read_both(&self, sb: &Superblock) -> Result<(Inode, Stat), Error> {
        inode_and_stat(sb, 0, &self.image(&[]))
    }
}

/// An inode, and what stat(2) shows of it.
pub fn inode_and_stat(sb: &Superblock, nid: u64, image: &[u8]) -> Result<(Inode, Stat), Error> {
    let (_, iloc) = sb.iloc(nid)?;
    let src = Bytes(image);
    let bytes = src.bread(iloc)?;
    Inode::read_at(sb, nid, bytes, &src)
}

/// The bytes of one directory block with these entries, in this order.
pub fn dir_block(entries: &[(u64, u8, &[u8])]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut names: Vec<u8> = Vec::new();
    for (nid, file_type, name) in entries {
        let nameoff = entries.len() * 12 + names.len();
        records.extend(nid.to_le_bytes());
        records.extend((nameoff as u16).to_le_bytes());
        records.extend([*file_type, 0]);
        names.extend(*name);
    }
    records.extend(names);
    records
}
