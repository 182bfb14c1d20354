// SPDX-License-Identifier: GPL-2.0

//! Images in memory or in a file, and the host's checksums.

use std::{borrow::Cow, fmt, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use crate::format::{
    error::{Error, Kind},
    hash::Hasher,
    source::Source,
};

/// The unit in which bytes are handed out.
const UNIT: u64 = 4096;

/// Checksums from the libraries `crc32c` and `xxhash-rust`.
pub struct HostHash;

impl Hasher for HostHash {
    fn crc32c(seed: u32, data: &[u8]) -> u32 {
        // The library inverts before and after; the kernel's function does not.
        !crc32c::crc32c_append(!seed, data)
    }

    fn xxh32(data: &[u8], seed: u32) -> u32 {
        xxhash_rust::xxh32::xxh32(data, seed)
    }
}

/// Why bytes could not be had.
#[derive(Debug)]
pub enum ReadError {
    /// The image is wrong.
    Format(Error),
    /// The file could not be read.
    Io(io::Error),
}

impl From<Error> for ReadError {
    fn from(err: Error) -> Self {
        ReadError::Format(err)
    }
}

impl From<io::Error> for ReadError {
    fn from(err: io::Error) -> Self {
        ReadError::Io(err)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Format(err) => err.fmt(f),
            ReadError::Io(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// An area of bytes in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

fn past_end(pos: u64, len: u64) -> Error {
    Error {
        kind: Kind::Corrupted,
        what: "metadata past the end",
        pos,
        value: len,
    }
}

impl Source for Bytes<'_> {
    type Error = Error;
    type Buf<'b>
        = &'b [u8]
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<&[u8], Error> {
        let len = self.0.len() as u64;
        if pos >= len {
            return Err(past_end(pos, len));
        }
        let end = (pos - pos % UNIT + UNIT).min(len);
        Ok(&self.0[pos as usize..end as usize])
    }
}

/// An image in a file or on a device.
#[derive(Clone, Debug)]
pub struct Image {
    file: Arc<File>,
    offset: u64,
    len: u64,
}

impl Image {
    /// `file` from byte `offset` on; `len` bytes in all.
    pub fn new(file: File, offset: u64, len: u64) -> Self {
        Self {
            file: Arc::new(file),
            offset,
            len: len.saturating_sub(offset),
        }
    }

    /// Bytes in the image.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The image's first bytes, as many as the superblock needs.
    pub fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; self.len.min(UNIT) as usize];
        self.file.read_exact_at(&mut head, self.offset)?;
        Ok(head)
    }

    /// Fills `out` with data from `pos` on. Behind the end are zeros, as in the kernel.
    pub fn read(&self, pos: u64, out: &mut [u8]) -> io::Result<()> {
        let have = self.len.saturating_sub(pos).min(out.len() as u64) as usize;
        let (data, rest) = out.split_at_mut(have);
        rest.fill(0);
        self.file.read_exact_at(data, self.offset + pos)
    }
}

impl Source for Image {
    type Error = ReadError;
    type Buf<'b> = Cow<'b, [u8]>;

    fn bread(&self, pos: u64) -> Result<Cow<'_, [u8]>, ReadError> {
        if pos >= self.len {
            return Err(past_end(pos, self.len).into());
        }
        let end = (pos - pos % UNIT + UNIT).min(self.len);
        let mut buf = vec![0; (end - pos) as usize];
        self.file.read_exact_at(&mut buf, self.offset + pos)?;
        Ok(Cow::Owned(buf))
    }
}
