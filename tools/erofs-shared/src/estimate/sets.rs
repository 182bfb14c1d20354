// SPDX-License-Identifier: GPL-2.0

//! Which contents and blocks are in which images.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::count::Part;

/// Hashes are hashed already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

type Map<V> = HashMap<u128, V, BuildHasherDefault<Same>>;

/// Sets of images, each with a number; 0 is the empty one.
struct Sets {
    members: Vec<Vec<usize>>,
    with: HashMap<(u32, usize), u32>,
}

impl Sets {
    fn new() -> Self {
        Self {
            members: vec![Vec::new()],
            with: HashMap::new(),
        }
    }

    /// The set and one more image, which is not before those that are in it.
    fn add(&mut self, set: u32, image: usize) -> u32 {
        let members = &self.members[set as usize];
        if members.last() == Some(&image) {
            return set;
        }
        if let Some(known) = self.with.get(&(set, image)) {
            return *known;
        }
        let mut members = members.clone();
        members.push(image);
        let new = self.members.len() as u32;
        self.members.push(members);
        self.with.insert((set, image), new);
        new
    }
}

/// Pages that two images have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Common {
    pub whole_files: u64,
    pub blocks: u64,
}

/// All images so far.
pub struct Seen {
    sets: Sets,
    contents: Map<(u32, u64)>,
    blocks: Map<u32>,
}

impl Seen {
    pub fn new() -> Self {
        Self {
            sets: Sets::new(),
            contents: Map::default(),
            blocks: Map::default(),
        }
    }

    /// Adds a part of an image; images come one after the other. Returns the pages that are new: those of whole files,
    /// and blocks.
    pub fn add(&mut self, image: usize, part: &Part) -> (u64, u64) {
        let (mut whole_files, mut blocks) = (0u64, 0);
        for (content, pages) in &part.contents {
            let (set, _) = self.contents.entry(*content).or_insert((0, *pages));
            if *set == 0 {
                whole_files = pages.saturating_add(whole_files);
            }
            *set = self.sets.add(*set, image);
        }
        for block in &part.blocks {
            let set = self.blocks.entry(*block).or_insert(0);
            if *set == 0 {
                blocks += 1;
            }
            *set = self.sets.add(*set, image);
        }
        (whole_files, blocks)
    }

    /// What each two images have in common, by their numbers.
    pub fn pairs(&self) -> HashMap<(usize, usize), Common> {
        let mut counts = vec![Common::default(); self.sets.members.len()];
        for (set, pages) in self.contents.values() {
            let common = &mut counts[*set as usize];
            common.whole_files = common.whole_files.saturating_add(*pages);
        }
        for set in self.blocks.values() {
            counts[*set as usize].blocks += 1;
        }
        let mut pairs: HashMap<_, Common> = HashMap::new();
        for (members, count) in self.sets.members.iter().zip(counts) {
            for (at, first) in members.iter().enumerate() {
                for second in &members[at + 1..] {
                    let pair = pairs.entry((*first, *second)).or_default();
                    pair.whole_files = pair.whole_files.saturating_add(count.whole_files);
                    pair.blocks += count.blocks;
                }
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(contents: &[(u128, u64)], blocks: &[u128]) -> Part {
        Part {
            contents: contents.to_vec(),
            blocks: blocks.to_vec(),
            ..Part::default()
        }
    }

    #[test]
    fn three_images() {
        let mut seen = Seen::new();
        assert_eq!(seen.add(0, &part(&[(1, 10), (2, 1)], &[1, 2, 3])), (11, 3));
        // another layer of the same image
        assert_eq!(seen.add(0, &part(&[(1, 10)], &[3, 4])), (0, 1));
        assert_eq!(seen.add(1, &part(&[(1, 10), (3, 5)], &[1, 9])), (5, 1));
        assert_eq!(seen.add(2, &part(&[(3, 5)], &[9, 1])), (0, 0));
        let pairs = seen.pairs();
        let common = |whole_files, blocks| {
            Some(&Common {
                whole_files,
                blocks,
            })
            .copied()
        };
        assert_eq!(pairs.get(&(0, 1)).copied(), common(10, 1));
        assert_eq!(pairs.get(&(0, 2)).copied(), common(0, 1));
        assert_eq!(pairs.get(&(1, 2)).copied(), common(5, 2));
    }
}
