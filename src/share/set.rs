// SPDX-License-Identifier: GPL-2.0

//! Sets of the blocks that a real inode has verified, and the memory for them.

use kernel::prelude::*;

use super::bits::{self, Need};
use crate::io::memcg::{has_room, CHARGED};

/// Blocks that are verified.
pub(super) type Set = bits::Set<KVec<Option<KVec<u64>>>, KVec<u64>>;

/// Bytes that a set takes beside itself.
pub(super) fn bytes_of(set: &Set) -> u64 {
    let (pages, words) = set.size();
    (pages * size_of::<Option<KVec<u64>>>() + words * size_of::<u64>()) as u64
}

/// Memory for a set.
pub(super) enum Memory {
    Directory(KVec<Option<KVec<u64>>>),
    Page(usize, KVec<u64>),
}

impl Memory {
    /// Allocates what is needed, charged to the reader.
    pub(super) fn new(need: Need) -> Result<Self> {
        Ok(match need {
            Need::Directory(count) => {
                has_room(count * size_of::<Option<KVec<u64>>>())?;
                let mut pages = KVec::with_capacity(count, CHARGED)?;
                while pages.len() < count {
                    pages.push_within_capacity(None).map_err(|_| EIO)?;
                }
                Self::Directory(pages)
            }
            Need::Page(at, words) => {
                has_room(words * size_of::<u64>())?;
                Self::Page(at, KVec::from_elem(0, words, CHARGED)?)
            }
        })
    }

    /// Bytes that it has.
    pub(super) fn bytes(&self) -> u64 {
        (match self {
            Self::Directory(pages) => pages.len() * size_of::<Option<KVec<u64>>>(),
            Self::Page(_, words) => words.len() * size_of::<u64>(),
        }) as u64
    }

    /// Gives it to a set; back if that does not need it any more.
    pub(super) fn give(self, set: &mut Set) -> Option<Self> {
        match self {
            Self::Directory(pages) => set.bring_directory(pages).map(Self::Directory),
            Self::Page(at, page) => set.bring_page(at, page).map(|page| Self::Page(at, page)),
        }
    }
}

/// A part of the blocks of a file.
pub(super) struct Part {
    pub(super) set: Set,
    /// How many are not in it.
    pub(super) left: u64,
}

impl Part {
    /// None of the blocks of a file of `blocks` blocks, in memory charged to the reader.
    pub(super) fn none_of(blocks: u64) -> Result<KBox<Self>> {
        let set = Set::new(blocks);
        Ok(KBox::new(Self { set, left: blocks }, CHARGED)?)
    }
}

/// Memory for what a real inode has verified, whatever that is.
pub(crate) struct Prepared(pub(super) KBox<Part>);

impl Prepared {
    /// For a file of `blocks` blocks.
    pub(super) fn new(blocks: u64) -> Result<Self> {
        let mut part = Part::none_of(blocks)?;
        while let Some(need) = part.set.need(0..blocks) {
            // A set that has no place for it does not need it.
            let _ = Memory::new(need)?.give(&mut part.set);
        }
        Ok(Self(part))
    }
}
