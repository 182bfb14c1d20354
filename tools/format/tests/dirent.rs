// SPDX-License-Identifier: GPL-2.0

//! Directories, searched against a linear scan.

mod common;

use std::{cell::Cell, collections::BTreeMap};

use common::dir_block;
use erofs_shared_format::{
    dirent::{lookup, DirBlock, Dirent},
    error::{Error, Kind},
    source::Source,
    Bytes,
};
use proptest::prelude::*;

/// The names from entry `first` on, all at once.
fn listed(block: &DirBlock<'_>, first: usize) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    block.for_each(first, |entry| {
        names.push(entry.name.to_vec());
        true
    })?;
    Ok(names)
}

/// The names, as each way of listing gives them.
fn names(block: &DirBlock<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let names: Vec<_> = (0..block.len())
        .map(|index| block.get(index).map(|entry| entry.name.to_vec()))
        .collect::<Result<_, _>>()?;
    for first in 0..=names.len() {
        let expected = Ok(names[first..].to_vec());
        assert_eq!(listed(block, first), expected, "from {first} on");
        assert_eq!(listed(&block.given_before(), first), expected, "again");
    }
    Ok(names)
}

fn refusal(bytes: &[u8], index: usize) -> Kind {
    DirBlock::new(bytes, 0)
        .and_then(|block| block.get(index))
        .map(|entry| entry.name.to_vec())
        .expect_err("a bad entry")
        .kind
}

#[test]
fn entries() {
    let bytes = dir_block(&[(9, 2, b"."), (u64::MAX, 1, b"a.txt"), (7, 7, b"z")]);
    let block = DirBlock::new(&bytes, 0).expect("a good block");
    assert_eq!(block.len(), 3);
    let all: Vec<Dirent<'_>> = (0..3).map(|at| block.get(at).expect("good")).collect();
    assert_eq!(
        all.iter()
            .map(|entry| (entry.nid, entry.file_type, entry.name))
            .collect::<Vec<_>>(),
        [
            (9, 2, &b"."[..]),
            (u64::MAX, 1, &b"a.txt"[..]),
            (7, 7, &b"z"[..])
        ]
    );
    assert_eq!(
        block.get(3).map(|entry| entry.nid).map_err(|err| err.kind),
        Err(Kind::Corrupted)
    );
}

#[test]
fn the_last_name_ends_at_a_nul() {
    let mut bytes = dir_block(&[(1, 1, b"a"), (2, 1, b"last")]);
    bytes.resize(4096, 0);
    let block = DirBlock::new(&bytes, 0).expect("a good block");
    assert_eq!(names(&block), Ok(vec![b"a".to_vec(), b"last".to_vec()]));
}

#[test]
fn first_nameoff() {
    for len in 0..12 {
        assert!(DirBlock::new(&[0; 12][..len], 0).is_err());
    }
    let good = dir_block(&[(1, 1, b"a"), (2, 1, b"b")]);
    for nameoff in 0..=u16::MAX {
        let mut bytes = good.clone();
        bytes[8..10].copy_from_slice(&nameoff.to_le_bytes());
        // 12 is a multiple of the record's size too: one record, its name is the second record's bytes.
        let fine = matches!(nameoff, 12 | 24);
        assert_eq!(DirBlock::new(&bytes, 0).is_ok(), fine, "nameoff {nameoff}");
    }
}

#[test]
fn bad_names() {
    for bad in [&b""[..], b"a/b", b"/", b"a\0b", b"\0"] {
        let bytes = dir_block(&[(1, 1, bad), (2, 1, b"z")]);
        assert_eq!(refusal(&bytes, 0), Kind::Corrupted, "{bad:?}");
    }
    assert_eq!(refusal(&dir_block(&[(1, 1, b"/")]), 0), Kind::Corrupted);
    assert_eq!(refusal(&dir_block(&[(1, 1, b"\0a")]), 0), Kind::Corrupted);
    let long = [b'n'; 256];
    for last in [false, true] {
        let entries = |name| match last {
            true => dir_block(&[(1, 1, name)]),
            false => dir_block(&[(1, 1, name), (2, 1, &b"z"[..])]),
        };
        assert_eq!(refusal(&entries(&long[..]), 0), Kind::Corrupted);
        let bytes = entries(&long[..255]);
        let block = DirBlock::new(&bytes, 0).expect("a good block");
        assert_eq!(block.get(0).expect("255 are allowed").name, &long[..255]);
    }
}

#[test]
fn bad_offsets() {
    let good = dir_block(&[(1, 1, b"aa"), (2, 1, b"bb"), (3, 1, b"cc")]);
    for nameoff in [0, 35, 36, 37, 40, 41, 42, 43, u16::MAX] {
        let mut bytes = good.clone();
        bytes[20..22].copy_from_slice(&nameoff.to_le_bytes());
        let block = DirBlock::new(&bytes, 0).expect("the first is good");
        // The second's name begins here; it ends where the third's does, and the first's ends here.
        let first = (37..=42).contains(&nameoff);
        let second = nameoff < 40;
        assert_eq!(block.get(0).is_ok(), first, "nameoff {nameoff}");
        // 0: the records count as part of the name, and they have NULs.
        assert_eq!(
            block.get(1).is_ok(),
            second && nameoff >= 36,
            "nameoff {nameoff}"
        );
    }
}

#[test]
fn entries_that_are_not_there() {
    let bytes = dir_block(&[(1, 1, b"a")]);
    // Where the position of the record would overflow, too.
    for index in [1, 2, usize::MAX / 12, usize::MAX / 12 + 1, usize::MAX] {
        assert_eq!(refusal(&bytes, index), Kind::Corrupted, "index {index:#x}");
    }
}

#[test]
fn disorder_is_noticed() {
    // The search for "xm" meets "xa", then "xz"; what is between them must begin with "x".
    let names = [&b"a"[..], b"b", b"c", b"xa", b"b", b"xz", b"z"];
    let entries: Vec<(u64, u8, &[u8])> = names.iter().map(|name| (1, 1, *name)).collect();
    let bytes = dir_block(&entries);
    let block = DirBlock::new(&bytes, 0).expect("good as far as it is looked at");
    let error = block.find(b"xm").expect_err("names out of order");
    assert_eq!(
        (error.kind, error.pos, error.value),
        (Kind::Corrupted, 48, 4)
    );
    // The same with a block for each.
    let dir = directory(names.iter().map(|name| (1, *name)), 512, 1);
    let error = lookup(dir.len() as u64, 512, &Bytes(&dir), b"xm").expect_err("out of order");
    assert_eq!(
        (error.kind, error.pos, error.value),
        (Kind::Corrupted, 4 * 512, 0)
    );
    // A block that ends before it begins.
    let dir = dir_block(&[(1, 1, b"k"), (2, 1, b"b")]);
    let error = lookup(dir.len() as u64, 512, &Bytes(&dir), b"l").expect_err("out of order");
    assert_eq!((error.kind, error.pos), (Kind::Corrupted, 0));
}

/// Counts the blocks that are asked for.
struct Counted<'a>(Bytes<'a>, Cell<u32>);

impl Source for Counted<'_> {
    type Error = Error;
    type Buf<'b>
        = &'b [u8]
    where
        Self: 'b;

    fn bread(&self, pos: u64) -> Result<&[u8], Error> {
        self.1.set(self.1.get() + 1);
        self.0.bread(pos)
    }
}

/// A directory's bytes: each block holds as many of the names as fit.
fn directory<'a>(
    entries: impl Iterator<Item = (u64, &'a [u8])>,
    block: usize,
    most: usize,
) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut pending: Vec<(u64, u8, &[u8])> = Vec::new();
    let size = |pending: &[(u64, u8, &[u8])]| -> usize {
        pending.iter().map(|(_, _, name)| 12 + name.len()).sum()
    };
    for (nid, name) in entries {
        if size(&pending) + 12 + name.len() > block || pending.len() == most {
            out.resize(out.len().next_multiple_of(block), 0);
            out.extend(dir_block(&pending));
            pending.clear();
        }
        pending.push((nid, (nid % 8) as u8, name));
    }
    out.resize(out.len().next_multiple_of(block), 0);
    out.extend(dir_block(&pending));
    out
}

/// Blocks that a search may read: what a binary search over all of them needs, and nothing twice.
fn bound(dir: &[u8], block: usize) -> u32 {
    (dir.len().div_ceil(block) as u32).ilog2() + 1
}

#[test]
fn empty_directory() {
    assert_eq!(lookup(0, 4096, &Bytes(&[]), b"x"), Ok(None));
    // Larger than its data.
    assert_eq!(
        lookup(4096, 4096, &Bytes(&[]), b"x").map_err(|err| err.kind),
        Err(Kind::Corrupted)
    );
    assert!(lookup(u64::MAX, 512, &Bytes(&[]), b"x").is_err());
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    // Few letters, so that names share their beginnings; and any bytes at all.
    let letters = prop::sample::select(vec![b'a', b'b', b'.', 0xFF, 1]);
    let any = (1u8..=255).prop_filter("a slash", |byte| *byte != b'/');
    prop_oneof![
        8 => prop::collection::vec(letters, 1..8),
        1 => prop::collection::vec(any, 1..=255),
    ]
}

proptest! {
    #[test]
    fn as_a_linear_scan(
        entries in prop::collection::btree_map(name(), any::<u64>(), 1..200),
        absent in prop::collection::vec(name(), 20),
        bits in 9u32..=12,
        most in 1usize..40,
    ) {
        let block = 1usize << bits;
        let entries: BTreeMap<Vec<u8>, u64> = entries;
        let dir = directory(entries.iter().map(|(name, nid)| (*nid, &name[..])), block, most);
        for name in entries.keys().chain(&absent) {
            let source = Counted(Bytes(&dir), Cell::new(0));
            let found = lookup(dir.len() as u64, block as u32, &source, name);
            let expected = entries.get(name).map(|nid| (*nid, (*nid % 8) as u8));
            prop_assert_eq!(found, Ok(expected));
            prop_assert!(source.1.get() <= bound(&dir, block));
        }
        // All of them, in the order in which they are stored.
        let mut all = Vec::new();
        for (number, bytes) in dir.chunks(block).enumerate() {
            let parsed = DirBlock::new(bytes, (number * block) as u64).expect("a good block");
            let stored = names(&parsed).expect("good entries");
            for name in &absent {
                let found = parsed.find(name).expect("a sorted block").map(|entry| entry.name.to_vec());
                prop_assert_eq!(found, stored.contains(name).then(|| name.clone()));
            }
            all.extend(stored);
        }
        prop_assert_eq!(all, entries.into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn out_of_order(
        entries in prop::collection::vec((any::<u64>(), name()), 1..200),
        wanted in prop::collection::vec(name(), 20),
        most in 1usize..40,
    ) {
        let dir = directory(entries.iter().map(|(nid, name)| (*nid, &name[..])), 512, most);
        for name in entries.iter().map(|(_, name)| name).chain(&wanted) {
            let source = Counted(Bytes(&dir), Cell::new(0));
            match lookup(dir.len() as u64, 512, &source, name) {
                // What is found is there.
                Ok(Some((nid, _))) => prop_assert!(entries.contains(&(nid, name.clone()))),
                // It may be missed, or noticed.
                Ok(None) => {}
                Err(error) => prop_assert_eq!(error.kind, Kind::Corrupted),
            }
            prop_assert!(source.1.get() <= bound(&dir, 512));
        }
    }

    #[test]
    fn any_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 0..1200),
        count in 0u16..50,
        offsets in prop::collection::vec(0u16..1200, 50),
        likely in any::<bool>(),
        size in any::<u64>(),
        wanted in name(),
        pos in 0..u64::MAX / 2,
    ) {
        if likely {
            // Records that are nearly right.
            for (at, offset) in (0..count).zip(&offsets) {
                let at = usize::from(at) * 12 + 8;
                let offset = if at == 8 { count * 12 } else { *offset };
                if let Some(field) = bytes.get_mut(at..at + 2) {
                    field.copy_from_slice(&offset.to_le_bytes());
                }
            }
        }
        if let Ok(block) = DirBlock::new(&bytes, pos) {
            prop_assert!(block.len() >= 1 && block.len() * 12 < bytes.len());
            for index in (0..block.len() + 2).chain([usize::MAX / 12]) {
                if let Ok(entry) = block.get(index) {
                    prop_assert!((1..=255).contains(&entry.name.len()));
                    prop_assert!(!entry.name.contains(&0) && !entry.name.contains(&b'/'));
                }
            }
            let _ = block.find(&wanted);
        }
        for size in [size, bytes.len() as u64, 4096] {
            let _ = lookup(size, 512, &Bytes(&bytes), &wanted);
        }
    }
}
