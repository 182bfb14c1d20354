// SPDX-License-Identifier: GPL-2.0

//! The pure parts of sharing: sets of blocks, digests and keys, windows.

use std::{collections::BTreeSet, fmt::Write};

use erofs_shared_format::share::{
    bits::{self, Need, Set, PAGE_BITS},
    digest::{digest_blocks, Digest, Domain, Key, Sha256, BLOCK_SIZE, KEY_DIGESTS, ZERO_DIGEST},
    sample::Sampler,
    window::{Windows, MAX_BLOCKS},
};
use proptest::prelude::*;

/// SHA-256 by the `sha2` crate.
struct HostSha256;

impl Sha256 for HostSha256 {
    fn digest(data: &[u8]) -> Digest {
        use sha2::Digest as _;
        sha2::Sha256::digest(data).into()
    }
}

/// A hash whose pairs are wrong: shows where pairs are used.
struct PairsMarked;

impl Sha256 for PairsMarked {
    fn digest(data: &[u8]) -> Digest {
        HostSha256::digest(data)
    }

    fn digest_pair(first: &[u8], second: &[u8]) -> [Digest; 2] {
        assert_eq!((first.len(), second.len()), (BLOCK_SIZE, BLOCK_SIZE));
        [[1; 32], [2; 32]]
    }
}

fn bytes(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_SIZE)
        .map(|i| (i / 7 + i / BLOCK_SIZE) as u8)
        .collect()
}

#[test]
fn known_digest_of_a_block_of_zeros() {
    // echo -n | … : head -c 4096 /dev/zero | sha256sum
    let mut hex = String::new();
    for byte in HostSha256::digest(&[0; BLOCK_SIZE]) {
        write!(hex, "{byte:02x}").unwrap();
    }
    assert_eq!(HostSha256::digest(&[0; BLOCK_SIZE]), ZERO_DIGEST);
    assert_eq!(
        hex,
        "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7"
    );
}

#[test]
fn blocks_are_hashed_one_by_one_whatever_their_number() {
    for count in 0..7 {
        let data = bytes(count);
        let mut out = vec![[0; 32]; count];
        digest_blocks::<HostSha256>(&data, &mut out);
        let expected: Vec<_> = data.chunks(BLOCK_SIZE).map(HostSha256::digest).collect();
        assert_eq!(out, expected, "{count} blocks");
    }
}

#[test]
fn pairs_of_blocks_are_hashed_together() {
    let data = bytes(5);
    let mut out = vec![[0; 32]; 5];
    digest_blocks::<PairsMarked>(&data, &mut out);
    assert_eq!(out[..4], [[1; 32], [2; 32], [1; 32], [2; 32]]);
    assert_eq!(out[4], HostSha256::digest(&data[4 * BLOCK_SIZE..]));
}

#[test]
fn fewer_places_than_blocks_hash_no_more_than_that() {
    let data = bytes(4);
    let mut out = vec![[0; 32]; 1];
    digest_blocks::<HostSha256>(&data, &mut out);
    assert!(out[0] == [0; 32] || out[0] == HostSha256::digest(&data[..BLOCK_SIZE]));
}

#[test]
fn the_last_of_an_odd_number_of_places_is_filled_if_there_are_more_blocks() {
    let data = bytes(4);
    for count in 0..4 {
        let mut out = vec![[0; 32]; count];
        digest_blocks::<HostSha256>(&data, &mut out);
        let expected: Vec<_> = data
            .chunks(BLOCK_SIZE)
            .map(HostSha256::digest)
            .take(count)
            .collect();
        assert_eq!(out, expected, "{count} places");
    }
}

fn domain(name: &[u8]) -> Domain {
    Domain::of::<HostSha256>(name)
}

#[test]
fn keys_differ_by_each_part() {
    let head = [[3; 32], [4; 32]];
    let key = |name: &[u8], size, head: &[Digest]| {
        Key::of_content::<HostSha256>(&domain(name), size, head)
    };
    let base = key(b"", 8192, &head);
    assert_eq!(base, key(b"", 8192, &head));
    assert_ne!(base, key(b"a", 8192, &head));
    assert_ne!(base, key(b"", 8191, &head));
    assert_ne!(base, key(b"", 8192, &head[..1]));
    assert_ne!(base, key(b"", 8192, &[[3; 32], [5; 32]]));
    // Nor is a domain mixed up with what follows it.
    assert_ne!(key(b"ab", 1, &head), key(b"a", 1, &head));
}

#[test]
fn a_fingerprint_of_mkfs_is_a_key() {
    let key = Key::of_fingerprint::<HostSha256>;
    let digest = [7u8; 32];
    let written = [b"sha256:".as_slice(), &digest].concat();
    assert_eq!(key(&written).bytes(), &digest);
    // All others are hashed as they are: no two of them give the same.
    let longer = [written.as_slice(), b"x"].concat();
    let other = [b"sha512:".as_slice(), &digest].concat();
    let keys = [
        key(&written),
        key(&written[..38]),
        key(&longer),
        key(&other),
        key(&digest),
        key(b"sha256:"),
        key(b""),
    ];
    for (at, one) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(one), "key {at}");
    }
}

#[test]
fn a_key_does_not_look_behind_the_window() {
    let many: Vec<Digest> = (0..KEY_DIGESTS as u8 + 3).map(|i| [i; 32]).collect();
    let size = 1 << 20;
    assert_eq!(
        Key::of_content::<HostSha256>(&domain(b""), size, &many),
        Key::of_content::<HostSha256>(&domain(b""), size, &many[..KEY_DIGESTS]),
    );
    assert_ne!(
        Key::of_content::<HostSha256>(&domain(b""), size, &many),
        Key::of_content::<HostSha256>(&domain(b""), size, &many[..KEY_DIGESTS - 1]),
    );
}

#[test]
fn windows_grow_for_a_sequential_reader() {
    let mut windows = Windows::new();
    let mut at = 16;
    let mut lens = Vec::new();
    for _ in 0..9 {
        let (len, _) = windows.open(at, 1);
        windows.close(at + len);
        at += len;
        lens.push(len);
    }
    assert_eq!(lens, [1, 16, 32, 64, 128, 256, 256, 256, 256]);
    assert_eq!(lens.iter().max(), Some(&MAX_BLOCKS));
}

#[test]
fn a_random_reader_gets_what_it_asks_for() {
    let mut windows = Windows::new();
    for at in [100, 7, 3000, 20, 1, 500] {
        let (len, sequential) = windows.open(at, 1);
        assert_eq!((len, sequential), (1, false), "block {at}");
        windows.close(at + len);
    }
    let (len, _) = windows.open(9000, u64::MAX);
    assert_eq!(len, MAX_BLOCKS);
    let (len, _) = windows.open(0, 0);
    assert_eq!(len, 1);
}

#[test]
fn a_reader_that_jumps_starts_small_again() {
    let mut windows = Windows::new();
    for at in [10, 11] {
        let (len, _) = windows.open(at, 1);
        windows.close(at + len);
    }
    assert_eq!(windows.open(4000, 2), (2, false));
    windows.close(4002);
    assert_eq!(windows.open(4002, 2), (16, true));
}

proptest! {
    #[test]
    fn bits_agree_with_a_set(
        size in 1u64..400,
        ranges in prop::collection::vec((0u64..450, 0u64..200), 0..20),
        asked in prop::collection::vec((0u64..450, 0u64..450), 1..20),
    ) {
        let mut words = vec![0u64; bits::words(size) as usize];
        let room = words.len() as u64 * 64;
        let mut set = BTreeSet::new();
        for (start, len) in ranges {
            let added = bits::insert(&mut words, start..start + len);
            let new: Vec<_> = (start..start + len).filter(|bit| *bit < room && set.insert(*bit)).collect();
            prop_assert_eq!(added, new.len() as u64);
        }
        for (start, end) in asked {
            let run = (start..end).take_while(|bit| set.contains(bit)).count() as u64;
            prop_assert_eq!(bits::leading_ones(&words, start..end), run);
        }
    }

    #[test]
    fn extreme_ranges_do_not_overflow(start: u64, end: u64) {
        let mut words = [0u64; 3];
        bits::insert(&mut words, start..end);
        prop_assert!(bits::leading_ones(&words, start..end) <= end.saturating_sub(start));
        let mut windows = Windows::new();
        let (len, _) = windows.open(start, end);
        prop_assert!((1..=MAX_BLOCKS).contains(&len));
    }
}

/// Gives a set what it needs for these bits.
fn provide(set: &mut Set<Vec<Option<Vec<u64>>>, Vec<u64>>, bits: std::ops::Range<u64>) {
    while let Some(need) = set.need(bits.clone()) {
        match need {
            Need::Directory(pages) => {
                let pages = (0..pages).map(|_| None).collect();
                assert_eq!(set.bring_directory(pages), None);
            }
            Need::Page(at, words) => assert_eq!(set.bring_page(at, vec![0; words]), None),
        }
    }
}

proptest! {
    #[test]
    fn a_set_in_pages_agrees_with_a_set(
        size in 1..4 * PAGE_BITS,
        ranges in prop::collection::vec((0..4 * PAGE_BITS, 1..PAGE_BITS + 100), 1..12),
    ) {
        let mut set = Set::new(size);
        let mut model = vec![false; size as usize];
        for (start, len) in ranges {
            let range = start..start + len;
            provide(&mut set, range.clone());
            let mut expected = 0;
            for bit in range.start..range.end.min(size) {
                expected += u64::from(!std::mem::replace(&mut model[bit as usize], true));
            }
            prop_assert_eq!(set.insert(range.clone()), expected);
            for from in [0, 1, 63, 64, 65, range.start, range.end - 1, size - 1] {
                let until = size.min(from + len);
                let run = (from..until).take_while(|bit| model[*bit as usize]).count() as u64;
                prop_assert_eq!(set.leading_ones(from..until), run);
            }
        }
    }

    #[test]
    fn extreme_ranges_of_a_set_in_pages_do_not_overflow(size: u64, start: u64, end: u64) {
        let mut set = Set::<Vec<Option<Vec<u64>>>, Vec<u64>>::new(size);
        prop_assert!(set.insert(start..end) <= 64);
        prop_assert!(set.leading_ones(start..end) <= 64);
        let _ = set.need(start..end);
    }
}

#[test]
fn a_set_takes_memory_where_it_has_bits_only() {
    // 64 GiB of blocks
    let mut set = Set::<Vec<Option<Vec<u64>>>, Vec<u64>>::new(16 << 20);
    assert_eq!(set.need(0..64), None);
    assert_eq!(set.insert(0..64), 64);
    assert_eq!(set.size(), (0, 0));
    // What nobody brought memory for is not added.
    assert_eq!(set.insert(64..65), 0);
    provide(&mut set, 9 << 20..(9 << 20) + 1);
    assert_eq!(set.insert(9 << 20..(9 << 20) + 1), 1);
    assert_eq!(set.size(), (512, 512));
    assert_eq!(set.need(16 << 20..17 << 20), None);
    // What was brought twice comes back.
    assert_eq!(set.bring_page(288, vec![7]), Some(vec![7]));
    assert_eq!(set.bring_directory(Vec::new()), Some(Vec::new()));
}

#[test]
fn variants_are_told_by_block_and_digest() {
    let head = [HostSha256::digest(b"head")];
    let key = Key::of_content::<HostSha256>(&domain(b""), 1 << 20, &head);
    let (one, two) = (HostSha256::digest(b"one"), HostSha256::digest(b"two"));
    let variant = key.variant::<HostSha256>(20, &one);
    assert_eq!(variant, key.variant::<HostSha256>(20, &one));
    let others = [
        key,
        key.variant::<HostSha256>(21, &one),
        key.variant::<HostSha256>(20, &two),
        variant.variant::<HostSha256>(20, &one),
        key.variant::<HostSha256>(21, &one)
            .variant::<HostSha256>(20, &one),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(variant, *other, "{at}");
        assert!(!others[..at].contains(other), "{at}");
    }
}

/// As the kernel's inode hash takes it: 2^17 buckets, by bits that it mixes itself.
#[test]
fn files_of_one_key_are_spread_by_size_and_domain() {
    let key = Key::of_samples([1, 2]);
    let mut buckets = BTreeSet::new();
    for size in 0..1000 {
        buckets.insert(key.hash(&[0; 16], size * BLOCK_SIZE as u64, 0) >> 47);
        buckets.insert(key.hash(&[7; 16], size * BLOCK_SIZE as u64, 0) >> 47);
    }
    assert!(buckets.len() > 1900, "{} buckets", buckets.len());
}

fn samples(secret: [u64; 2], bytes: &[u8]) -> [u64; 2] {
    let mut sampler = Sampler::new(secret);
    sampler.add(bytes);
    sampler.finish()
}

proptest! {
    /// 16 words of eight bytes are all that such a file has.
    #[test]
    fn samples_of_a_short_file_depend_on_each_of_its_bytes(
        secret: [u64; 2],
        bytes in proptest::collection::vec(any::<u8>(), 1..=128),
        at: proptest::sample::Index,
        change in 1..=u8::MAX,
    ) {
        let mut other = bytes.clone();
        other[at.index(bytes.len())] ^= change;
        prop_assert_ne!(samples(secret, &bytes), samples(secret, &other));
    }

    /// Wherever the words lie that the secret chooses: one is in each sixteenth of the bytes.
    #[test]
    fn samples_depend_on_each_part_of_a_block(
        secret: [u64; 2],
        len in 256..=BLOCK_SIZE,
        part in 0..16usize,
    ) {
        let bytes = vec![0; len];
        let mut other = bytes.clone();
        let words = len.div_ceil(8);
        other[part * words / 16 * 8..((part + 1) * words / 16 * 8).min(len)].fill(1);
        prop_assert_ne!(samples(secret, &bytes), samples(secret, &other));
    }
}
