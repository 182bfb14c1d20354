// SPDX-License-Identifier: GPL-2.0

//! Contents and blocks of files, told by 128-bit hashes.
//!
//! An estimate grants no access to data, so XXH3 is enough; the module compares bytes, or
//! SHA-256 digests with `verify=digest`.

use std::io::{self, Read};

use xxhash_rust::xxh3::{xxh3_128, Xxh3};

use crate::system::PAGE;

const BLOCK: usize = PAGE as usize;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Bytes that are read at once.
pub const CHUNK: usize = 1 << 20;

/// What the files of a layer, an image or a directory take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub files: u64,
    pub pages: u64,
    pub zero_pages: u64,
    /// Bytes that were read, without holes.
    pub read: u64,
    /// Content of each file, and its pages.
    pub contents: Vec<(u128, u64)>,
    /// Blocks, but for those of zeros.
    pub blocks: Vec<u128>,
}

impl Part {
    /// Puts another beside this one.
    pub fn join(mut self, mut other: Self) -> Self {
        if self.blocks.len() < other.blocks.len() {
            std::mem::swap(&mut self, &mut other);
        }
        self.files += other.files;
        self.pages = self.pages.saturating_add(other.pages);
        self.zero_pages = self.zero_pages.saturating_add(other.zero_pages);
        self.read += other.read;
        self.contents.append(&mut other.contents);
        self.blocks.append(&mut other.blocks);
        self
    }

    /// Leaves each content and block there once.
    pub fn reduce(&mut self) {
        self.contents.sort_unstable();
        self.contents.dedup_by_key(|(content, _)| *content);
        self.blocks.sort_unstable();
        self.blocks.dedup();
        self.blocks.shrink_to_fit();
    }

    /// Adds a file whose bytes `reader` gives.
    pub fn add(&mut self, reader: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut file = File::default();
        buffer.resize(CHUNK, 0);
        loop {
            let mut have = 0;
            while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
                match reader.read(rest) {
                    Ok(0) => break,
                    Ok(read) => have += read,
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    Err(err) => return Err(err),
                }
            }
            file.feed(self, &buffer[..have]);
            if have < CHUNK {
                break;
            }
        }
        file.end(self);
        Ok(())
    }
}

/// A file while it is read.
#[derive(Default)]
pub struct File {
    content: Xxh3,
    size: u64,
    pages: u64,
    zero_pages: u64,
    /// Blocks of zeros behind the last other one.
    zeros: u64,
}

impl File {
    /// Takes the next bytes: whole blocks, but for the last ones of a file.
    pub fn feed(&mut self, part: &mut Part, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        part.read += bytes.len() as u64;
        for block in bytes.chunks(BLOCK) {
            if block == &ZEROS[..block.len()] {
                self.hole(1);
                continue;
            }
            let hash = if block.len() == BLOCK {
                xxh3_128(block)
            } else {
                let mut padded = ZEROS;
                padded[..block.len()].copy_from_slice(block);
                xxh3_128(&padded)
            };
            self.pages += 1;
            self.content.update(&self.zeros.to_le_bytes());
            self.content.update(&hash.to_le_bytes());
            self.zeros = 0;
            part.blocks.push(hash);
        }
    }

    /// Takes blocks of zeros that need not be read.
    pub fn skip(&mut self, bytes: u64) {
        self.size += bytes;
        self.hole(bytes.div_ceil(PAGE));
    }

    fn hole(&mut self, blocks: u64) {
        self.pages += blocks;
        self.zero_pages += blocks;
        self.zeros += blocks;
    }

    /// The file is complete.
    pub fn end(mut self, part: &mut Part) {
        self.content.update(&self.size.to_le_bytes());
        part.files += 1;
        part.pages = part.pages.saturating_add(self.pages);
        part.zero_pages = part.zero_pages.saturating_add(self.zero_pages);
        part.contents.push((self.content.digest128(), self.pages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(files: &[&[u8]]) -> Part {
        let mut part = Part::default();
        for file in files {
            part.add(&mut &file[..], &mut Vec::new()).unwrap();
        }
        part.reduce();
        part
    }

    #[test]
    fn blocks_and_contents() {
        let block = |byte: u8| [byte; BLOCK];
        let a = [block(1), block(2), block(0), block(1)].concat();
        let got = part(&[&a, &a, &a[..BLOCK + 10], b""]);
        assert_eq!((got.files, got.pages, got.zero_pages), (4, 10, 2));
        assert_eq!(got.contents.len(), 3);
        // 1, 2, and the start of 2
        assert_eq!(got.blocks.len(), 3);
    }

    #[test]
    fn a_tail_of_zeros_is_another_file() {
        let (short, long) = (vec![7; 100], [vec![7; 100], vec![0; 3]].concat());
        let got = part(&[&short, &long]);
        assert_eq!((got.contents.len(), got.blocks.len()), (2, 1));
    }

    #[test]
    fn holes_are_as_zeros() {
        let mut by_hole = Part::default();
        let mut file = File::default();
        file.feed(&mut by_hole, &[5; BLOCK]);
        file.skip(3 * PAGE);
        file.feed(&mut by_hole, &[6; 9]);
        file.end(&mut by_hole);
        by_hole.reduce();
        assert_eq!(by_hole.read, PAGE + 9);
        let read = [vec![5; BLOCK], vec![0; 3 * BLOCK], vec![6; 9]].concat();
        let by_zeros = part(&[&read]);
        by_hole.read = by_zeros.read;
        assert_eq!(by_hole, by_zeros);
    }

    #[test]
    fn larger_than_a_chunk() {
        let data: Vec<u8> = (0..CHUNK * 2 + 5).map(|at| (at / 4096) as u8).collect();
        let got = part(&[&data]);
        assert_eq!(got.pages, 513);
    }
}
