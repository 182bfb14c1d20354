// SPDX-License-Identifier: GPL-2.0

//! Where bytes come from.

use core::ops::Deref;

use super::{error::Error, ondisk::Raw};

/// An area of bytes: an image, the data of its metabox inode, a directory's data.
pub trait Source {
    /// Error of a failed read, which also carries this crate's errors.
    type Error: From<Error>;
    /// Bytes held in memory.
    type Buf<'a>: Deref<Target = [u8]>
    where
        Self: 'a;

    /// The bytes from `pos` to the end of the aligned unit (a power of two from 512 to 4096 bytes)
    /// that holds it, or to the end of the area. Never empty; an error if `pos` is not in the area.
    fn bread(&self, pos: u64) -> Result<Self::Buf<'_>, Self::Error>;
}

/// Fills `out` from `pos` on, across units.
pub fn read_exact<S: Source>(src: &S, pos: u64, out: &mut [u8]) -> Result<(), S::Error> {
    Reader::new(src).read_exact(pos, out)
}

/// Reads a structure at `pos`, across units.
#[inline]
pub fn read_raw<T: Raw, S: Source>(src: &S, pos: u64) -> Result<T, S::Error> {
    let mut raw = T::new_zeroed();
    read_exact(src, pos, raw.as_mut_bytes())?;
    Ok(raw)
}

/// Reads small things that lie close together: keeps the bytes that the last of them was in.
pub struct Reader<'s, S: Source> {
    src: &'s S,
    /// What `src` gave last, and for which position.
    last: Option<(u64, S::Buf<'s>)>,
}

impl<'s, S: Source> Reader<'s, S> {
    /// A reader that has read nothing.
    pub fn new(src: &'s S) -> Self {
        Self { src, last: None }
    }

    /// The bytes from `pos` on, as far as they are at hand; at least one.
    #[inline(always)]
    pub(super) fn bytes(&mut self, pos: u64) -> Result<&[u8], S::Error> {
        let at = |start: u64| pos.wrapping_sub(start) as usize;
        let is_there = match &self.last {
            Some((start, bytes)) => pos >= *start && at(*start) < bytes.len(),
            None => false,
        };
        if !is_there {
            // What is given back first may be what is asked for next.
            self.last = None;
            self.last = Some((pos, self.src.bread(pos)?));
        }
        match &self.last {
            Some((start, bytes)) => match bytes.get(at(*start)..) {
                Some(rest) if !rest.is_empty() => Ok(rest),
                _ => Err(Error::corrupted("empty read", pos, 0).into()),
            },
            None => Err(Error::corrupted("empty read", pos, 0).into()),
        }
    }

    /// The structure at `pos`.
    #[inline(always)]
    pub(super) fn raw<T: Raw>(&mut self, pos: u64) -> Result<T, S::Error> {
        match T::first(self.bytes(pos)?) {
            Some(raw) => Ok(*raw),
            None => {
                let mut raw = T::new_zeroed();
                self.read_split(pos, raw.as_mut_bytes())?;
                Ok(raw)
            }
        }
    }

    /// Whether these bytes are at `pos`.
    #[inline(always)]
    pub(super) fn is(&mut self, pos: u64, wanted: &[u8]) -> Result<bool, S::Error> {
        let (mut pos, mut wanted) = (pos, wanted);
        while !wanted.is_empty() {
            let bytes = self.bytes(pos)?;
            let len = bytes.len().min(wanted.len());
            let Some((begin, rest)) = wanted.split_at_checked(len) else {
                break;
            };
            if bytes.get(..len) != Some(begin) {
                return Ok(false);
            }
            wanted = rest;
            pos = pos.saturating_add(len as u64);
        }
        Ok(true)
    }

    /// Fills `out` from `pos` on, across units.
    #[inline(always)]
    pub fn read_exact(&mut self, pos: u64, out: &mut [u8]) -> Result<(), S::Error> {
        if out.is_empty() {
            return Ok(());
        }
        match self.bytes(pos)?.get(..out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => self.read_split(pos, out),
        }
    }

    /// As [`Reader::read_exact`], of what is in more than one unit.
    #[cold]
    fn read_split(&mut self, pos: u64, out: &mut [u8]) -> Result<(), S::Error> {
        let mut pos = pos;
        let mut rest = out;
        while !rest.is_empty() {
            let bytes = self.bytes(pos)?;
            let len = bytes.len().min(rest.len());
            let (Some(from), Some((to, tail))) = (bytes.get(..len), rest.split_at_mut_checked(len))
            else {
                return Err(Error::corrupted("short read", pos, len as u64).into());
            };
            to.copy_from_slice(from);
            rest = tail;
            pos = pos.checked_add(len as u64).ok_or(Error::corrupted(
                "position overflow",
                pos,
                len as u64,
            ))?;
        }
        Ok(())
    }
}
