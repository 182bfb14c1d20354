// SPDX-License-Identifier: GPL-2.0

//! Directories: single blocks, and the search in directories of up to 2^54 blocks.
//!
//! Input: what to do, block size and number of blocks (3 bytes), a name (16 bytes), then either the
//! directory's blocks (repeated when it has more), or names to make a sorted directory of.

#![no_main]

use std::{cell::Cell, collections::BTreeSet};

use erofs_shared_format::{
    dirent::{lookup, DirBlock, DIRENT_SIZE},
    error::Error,
    source::Source,
};
use erofs_shared_fuzz::{check_error, Params};
use libfuzzer_sys::fuzz_target;

/// A directory whose blocks come again and again.
struct Dir<'a> {
    blocks: Vec<&'a [u8]>,
    block_size: u64,
    reads: Cell<u64>,
}

impl Source for Dir<'_> {
    type Error = Error;
    type Buf<'b>
        = &'b [u8]
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<&[u8], Error> {
        self.reads.set(self.reads.get() + 1);
        let number = (pos / self.block_size) as usize % self.blocks.len();
        Ok(&self.blocks[number][(pos % self.block_size) as usize..])
    }
}

/// All entries, if each of them is right.
fn entries<'a>(block: &DirBlock<'a>) -> Option<Vec<(&'a [u8], u64, u8)>> {
    let mut all = Vec::new();
    for index in 0..block.len() {
        match block.get(index) {
            Ok(entry) => {
                assert!((1..=255).contains(&entry.name.len()));
                assert!(!entry.name.contains(&0) && !entry.name.contains(&b'/'));
                all.push((entry.name, entry.nid, entry.file_type));
            }
            Err(err) => {
                check_error(&err);
                return None;
            }
        }
    }
    assert!(block.get(block.len()).is_err());
    Some(all)
}

/// One block: `find` against a linear search.
fn check_block(bytes: &[u8], name: &[u8]) -> Option<Vec<(Vec<u8>, u64, u8)>> {
    let block = match DirBlock::new(bytes, 0) {
        Ok(block) => block,
        Err(err) => {
            check_error(&err);
            return None;
        }
    };
    assert!((1..=bytes.len() / DIRENT_SIZE).contains(&block.len()));
    let found = block.find(name);
    let mut again = Vec::new();
    let given = block.given_before().for_each(0, |entry| {
        again.push((entry.name, entry.nid, entry.file_type));
        true
    });
    let Some(all) = entries(&block) else {
        return None;
    };
    assert_eq!(given, Ok(true));
    assert_eq!(again, all);
    let sorted = all.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let wanted = all.iter().find(|entry| entry.0 == name);
    match found {
        // Never an entry that is not there, whatever the order.
        Ok(Some(entry)) => assert!(all.contains(&(name, entry.nid, entry.file_type))),
        Ok(None) => assert!(!sorted || wanted.is_none(), "missed {name:?}"),
        Err(err) => assert!(!sorted, "{err}"),
    }
    if sorted {
        for entry in &all {
            let found = block.find(entry.0).unwrap().unwrap();
            assert_eq!((found.name, found.nid, found.file_type), *entry);
        }
    }
    let owned = all
        .iter()
        .map(|(name, nid, kind)| (name.to_vec(), *nid, *kind));
    Some(owned.collect())
}

/// Looks `name` up, in a number of steps that the number of blocks allows.
fn search(dir: &Dir<'_>, size: u64, name: &[u8]) -> Result<Option<(u64, u8)>, Error> {
    dir.reads.set(0);
    let found = lookup(size, dir.block_size as u32, dir, name);
    let blocks = size.div_ceil(dir.block_size);
    let steps = u64::from(64 - blocks.leading_zeros());
    assert!(
        dir.reads.get() <= steps,
        "{} reads of {blocks} blocks",
        dir.reads.get()
    );
    if let Err(err) = &found {
        check_error(err);
    }
    found
}

/// Blocks as they are.
fn raw(data: &[u8], block_size: u64, times: u8, name: &[u8]) {
    let mut all = Some(Vec::new());
    for bytes in data.chunks(block_size as usize) {
        let found = check_block(bytes, name);
        all = all.zip(found).map(|(mut all, found)| {
            all.extend(found);
            all
        });
    }
    let mut blocks: Vec<_> = data.chunks(block_size as usize).collect();
    if blocks.is_empty() {
        return;
    }
    let dir = Dir {
        blocks: blocks.clone(),
        block_size,
        reads: Cell::new(0),
    };
    let found = search(&dir, data.len() as u64, name);
    if let Some(all) = all {
        let sorted = all.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let wanted = all
            .iter()
            .find(|entry| entry.0 == name)
            .map(|entry| (entry.1, entry.2));
        match found {
            Ok(Some(found)) => {
                assert!(all
                    .iter()
                    .any(|entry| entry.0 == name && (entry.1, entry.2) == found))
            }
            Ok(None) => assert!(!sorted || wanted.is_none(), "missed {name:?}"),
            Err(err) => assert!(!sorted, "{err}"),
        }
        if sorted {
            for (name, nid, kind) in &all {
                assert_eq!(
                    search(&dir, data.len() as u64, name).unwrap(),
                    Some((*nid, *kind))
                );
            }
        }
    }
    // The same many times over, up to the longest file.
    blocks.retain(|block| block.len() as u64 == block_size);
    if !blocks.is_empty() {
        let dir = Dir {
            blocks,
            block_size,
            reads: Cell::new(0),
        };
        let size = (i64::MAX as u64) >> (times % 50);
        let _ = search(&dir, size, name);
    }
}

/// A well-made directory: whatever is in it is found, and nothing else.
fn sorted(data: &[u8], block_size: u64, other: &[u8]) {
    let names: BTreeSet<&[u8]> = data
        .split(|byte| matches!(byte, 0 | b'/'))
        .map(|name| &name[..name.len().min(255)])
        .filter(|name| !name.is_empty())
        .collect();
    let names: Vec<_> = names.into_iter().collect();
    let mut image = Vec::new();
    let mut from = 0;
    while from < names.len() {
        let mut used = 0;
        let count = names[from..]
            .iter()
            .take_while(|name| {
                used += DIRENT_SIZE + name.len();
                used as u64 <= block_size
            })
            .count();
        image.resize(image.len().next_multiple_of(block_size as usize), 0);
        let mut nameoff = count * DIRENT_SIZE;
        for (index, name) in names[from..from + count].iter().enumerate() {
            image.extend_from_slice(&((from + index) as u64).to_le_bytes());
            image.extend_from_slice(&(nameoff as u16).to_le_bytes());
            image.extend_from_slice(&[(from + index) as u8 & 7, 0]);
            nameoff += name.len();
        }
        names[from..from + count]
            .iter()
            .for_each(|name| image.extend_from_slice(name));
        from += count;
    }
    let dir = Dir {
        blocks: image.chunks(block_size as usize).collect(),
        block_size,
        reads: Cell::new(0),
    };
    let size = image.len() as u64;
    for (number, name) in names.iter().enumerate() {
        let found = search(&dir, size, name).unwrap();
        assert_eq!(found, Some((number as u64, number as u8 & 7)), "{name:?}");
        // Its neighbours are not there, unless they are.
        let mut next = name.to_vec();
        next.push(b'!');
        let wanted = names.iter().position(|name| **name == next[..]);
        let found = search(&dir, size, &next).unwrap();
        assert_eq!(
            found.map(|found| found.0),
            wanted.map(|number| number as u64)
        );
    }
    if !names.is_empty() {
        let wanted = names.iter().position(|name| *name == other);
        let found = search(&dir, size, other).unwrap();
        assert_eq!(
            found.map(|found| found.0),
            wanted.map(|number| number as u64)
        );
    }
}

fuzz_target!(|data: &[u8]| {
    let mut params = Params(data);
    let (mode, bits, times) = (params.u8(), params.u8(), params.u8());
    let name = params.take::<16>();
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(16);
    let block_size = 512 << (bits & 3);
    if mode & 1 == 0 {
        raw(params.0, block_size, times, &name[..len]);
    } else {
        sorted(params.0, block_size, &name[..len]);
    }
});
