// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: written by hand, read back, and with sizes that lie.

mod common;

use std::collections::BTreeMap;

use common::{put, Head, RawInode};
use erofs_shared_format::{
    error::{Error, Kind},
    hash::Hasher,
    inode::Inode,
    superblock::{compat, Superblock},
    xattr::{getxattr, index, listxattr, LongPrefix, XattrHeader, XattrSources},
    Bytes, HostHash,
};
use proptest::prelude::*;

fn prefix_of(index: u8) -> Option<&'static [u8]> {
    match index {
        index::USER => Some(b"user."),
        index::POSIX_ACL_ACCESS => Some(b"system.posix_acl_access"),
        index::POSIX_ACL_DEFAULT => Some(b"system.posix_acl_default"),
        index::TRUSTED => Some(b"trusted."),
        index::SECURITY => Some(b"security."),
        _ => None,
    }
}

/// An attribute as it is stored: `index` may name a long prefix, `name` is what follows.
#[derive(Clone, Debug)]
struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

fn attribute(index: u8, name: &[u8], value: &[u8]) -> Attribute {
    Attribute {
        index,
        name: name.to_vec(),
        value: value.to_vec(),
    }
}

fn entry(attribute: &Attribute) -> Vec<u8> {
    let mut out = vec![attribute.name.len() as u8, attribute.index];
    out.extend((attribute.value.len() as u16).to_le_bytes());
    out.extend(&attribute.name);
    out.extend(&attribute.value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// An image with one inode, the given attributes behind it, and shared ones from block 64 on.
struct Fixture {
    sb: Superblock,
    image: Vec<u8>,
    prefixes: Vec<LongPrefix>,
}

const SHARED_BLOCK: u32 = 64;

fn fixture(head: &mut Head, filter: u32, inline: &[Attribute], shared: &[Attribute]) -> Fixture {
    head.set(44, &SHARED_BLOCK.to_le_bytes());
    let mut area = Vec::new();
    let mut ids = Vec::new();
    for attribute in shared {
        ids.push(area.len() as u32 / 4);
        area.extend(entry(attribute));
    }
    let mut body = filter.to_le_bytes().to_vec();
    body.extend([shared.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
    for id in ids {
        body.extend(id.to_le_bytes());
    }
    for attribute in inline {
        body.extend(entry(attribute));
    }
    let raw = RawInode {
        icount: (1 + (body.len() - 12) / 4) as u16,
        ..RawInode::default()
    };
    let mut image = raw.image(&body);
    put(&mut image, SHARED_BLOCK as usize * 4096, &area);
    Fixture {
        sb: head.superblock(),
        image,
        prefixes: Vec::new(),
    }
}

impl Fixture {
    fn inode(&self) -> Inode {
        Inode::read(&self.sb, 0, &Bytes(&self.image)).expect("a good inode")
    }

    fn get(&self, index: u8, name: &[u8]) -> Result<Vec<u8>, Error> {
        let image = Bytes(&self.image);
        let sources = XattrSources {
            inode: &image,
            shared: &image,
        };
        let get = |out| {
            getxattr::<_, HostHash>(
                &self.sb,
                &self.inode(),
                &sources,
                &self.prefixes,
                index,
                name,
                out,
            )
        };
        let size = get(None)?;
        let mut out = vec![0; size];
        assert_eq!(get(Some(&mut out))?, size);
        if size > 0 {
            let short = get(Some(&mut vec![0; size - 1])).expect_err("a short buffer");
            assert_eq!(short.kind, Kind::Range);
        }
        Ok(out)
    }

    fn list(&self) -> Result<Vec<Vec<u8>>, Error> {
        let image = Bytes(&self.image);
        let sources = XattrSources {
            inode: &image,
            shared: &image,
        };
        let list = |out| {
            listxattr(
                &self.sb,
                &self.inode(),
                &sources,
                &self.prefixes,
                prefix_of,
                out,
            )
        };
        let size = list(None)?;
        let mut out = vec![0; size];
        assert_eq!(list(Some(&mut out))?, size);
        if size > 0 {
            let short = list(Some(&mut vec![0; size - 1])).expect_err("a short buffer");
            assert_eq!(short.kind, Kind::Range);
        }
        let mut names: Vec<Vec<u8>> = out.split(|byte| *byte == 0).map(Vec::from).collect();
        assert_eq!(names.pop(), Some(Vec::new()));
        Ok(names)
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> Kind {
    result.expect_err("an error").kind
}

#[test]
fn none_at_all() {
    let image = RawInode::default().image(&[]);
    let none = Fixture {
        sb: Head::default().superblock(),
        image,
        prefixes: Vec::new(),
    };
    assert_eq!(kind(none.get(index::USER, b"a")), Kind::NoData);
    assert_eq!(none.list(), Ok(Vec::new()));
}

#[test]
fn a_header_alone() {
    let mut only = fixture(&mut Head::default(), 0, &[], &[]);
    assert_eq!(kind(only.get(index::USER, b"a")), Kind::Unsupported);
    assert_eq!(kind(only.list()), Kind::Unsupported);
    only.image[4096 + 2] = 0;
    assert_eq!(only.list(), Ok(Vec::new()));
}

#[test]
fn inline_and_shared() {
    let f = fixture(
        &mut Head::default(),
        0,
        &[
            attribute(index::USER, b"inline", b"one"),
            attribute(index::POSIX_ACL_ACCESS, b"", b"acl"),
            attribute(index::USER, b"empty", b""),
            attribute(index::LUSTRE, b"lov", b"hidden"),
        ],
        &[
            attribute(index::SECURITY, b"selinux", b"label\0"),
            attribute(index::USER, b"inline", b"shadowed"),
        ],
    );
    assert_eq!(f.get(index::USER, b"inline"), Ok(b"one".to_vec()));
    assert_eq!(f.get(index::POSIX_ACL_ACCESS, b""), Ok(b"acl".to_vec()));
    assert_eq!(f.get(index::USER, b"empty"), Ok(Vec::new()));
    assert_eq!(f.get(index::LUSTRE, b"lov"), Ok(b"hidden".to_vec()));
    assert_eq!(f.get(index::SECURITY, b"selinux"), Ok(b"label\0".to_vec()));
    for (index, name) in [
        (index::TRUSTED, &b"inline"[..]),
        (index::USER, b"inlin"),
        (index::USER, b"inline2"),
        (index::USER, b""),
        (index::POSIX_ACL_DEFAULT, b""),
    ] {
        assert_eq!(kind(f.get(index, name)), Kind::NoData, "{index} {name:?}");
    }
    assert_eq!(kind(f.get(index::USER, &[b'n'; 256])), Kind::Range);
    assert_eq!(kind(f.get(index::USER, &[b'n'; 255])), Kind::NoData);
    let names = [
        &b"user.inline"[..],
        b"system.posix_acl_access",
        b"user.empty",
        b"security.selinux",
        b"user.inline",
    ];
    assert_eq!(f.list(), Ok(names.map(Vec::from).to_vec()));
}

fn prefix_bytes(base: u8, infix: &[u8]) -> Vec<u8> {
    let mut out = ((infix.len() + 1) as u16).to_le_bytes().to_vec();
    out.push(base);
    out.extend(infix);
    out
}

#[test]
fn long_prefixes() {
    let mut table = vec![0xEE; 4090];
    // Starts are multiples of 4, and a prefix may go on in the next unit.
    table.resize(4092, 0);
    table.extend(prefix_bytes(index::TRUSTED, b"overlay."));
    table.resize(table.len().next_multiple_of(4), 0);
    table.extend(prefix_bytes(index::USER, b""));
    table.resize(table.len().next_multiple_of(4), 0);
    table.extend(prefix_bytes(index::USER, &[b'p'; 255]));
    let mut pos = 4089;
    let read = |pos: &mut u64| LongPrefix::read(&Bytes(&table), pos).expect("a prefix");
    let prefixes = vec![read(&mut pos), read(&mut pos), read(&mut pos)];
    assert_eq!(pos, table.len() as u64);
    assert_eq!(prefixes[0].base_index, index::TRUSTED);
    assert_eq!(prefixes[0].infix(), b"overlay.");
    assert_eq!(prefixes[1].infix(), b"");
    assert_eq!(prefixes[2].infix(), [b'p'; 255]);

    let mut f = fixture(
        &mut Head::default(),
        0,
        &[
            attribute(0x80, b"opaque", b"y"),
            attribute(0x81, b"plain", b"p"),
            attribute(0x82, b"", b"long"),
            // There is no such prefix.
            attribute(0x83, b"lost", b"l"),
        ],
        &[],
    );
    f.prefixes = prefixes;
    assert_eq!(f.get(index::TRUSTED, b"overlay.opaque"), Ok(b"y".to_vec()));
    assert_eq!(f.get(index::USER, b"plain"), Ok(b"p".to_vec()));
    assert_eq!(f.get(index::USER, &[b'p'; 255]), Ok(b"long".to_vec()));
    assert_eq!(kind(f.get(index::TRUSTED, b"opaque")), Kind::NoData);
    assert_eq!(kind(f.get(index::TRUSTED, b"overlay.")), Kind::NoData);
    assert_eq!(kind(f.get(index::USER, b"lost")), Kind::NoData);
    let mut long = b"user.".to_vec();
    long.extend([b'p'; 255]);
    assert_eq!(
        f.list(),
        Ok(vec![
            b"trusted.overlay.opaque".to_vec(),
            b"user.plain".to_vec(),
            long
        ])
    );
}

#[test]
fn bad_long_prefixes() {
    for len in [0u16, 257, 258, u16::MAX] {
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.resize(70000, 1);
        let mut pos = 0;
        let error = LongPrefix::read(&Bytes(&bytes), &mut pos).map(|prefix| prefix.base_index);
        assert_eq!(kind(error), Kind::Corrupted, "length {len}");
        assert_eq!(pos, 0);
    }
    for mut pos in [9, u64::MAX, u64::MAX - 3] {
        let prefix = LongPrefix::read(&Bytes(&[2, 0, 1]), &mut pos);
        assert_eq!(
            kind(prefix.map(|prefix| prefix.base_index)),
            Kind::Corrupted
        );
    }
}

#[test]
fn filter() {
    let bit = |index: u8, name: &[u8]| {
        HostHash::xxh32(name, 0x25BB_E08Fu32.wrapping_add(index.into())) % 32
    };
    let (stored, other) = (bit(index::USER, b"a"), bit(index::USER, b"b"));
    assert_ne!(stored, other);
    // All bits but that of "a" are set, though both are there.
    let inline = [
        attribute(index::USER, b"a", b"1"),
        attribute(index::USER, b"b", b"2"),
    ];
    let f = fixture(
        Head::default().compat(compat::XATTR_FILTER),
        !(1 << stored),
        &inline,
        &[],
    );
    assert_eq!(f.get(index::USER, b"a"), Ok(b"1".to_vec()));
    assert_eq!(kind(f.get(index::USER, b"b")), Kind::NoData);
    // The list does not ask it.
    assert_eq!(f.list().map(|names| names.len()), Ok(2));
    // Without the feature, and with a reserved byte that says that it means something else.
    let mut heads = [Head::default(), Head::default()];
    heads[1].compat(compat::XATTR_FILTER).set(104, &[1]);
    for mut head in heads {
        let f = fixture(&mut head, !0, &inline, &[]);
        assert_eq!(f.get(index::USER, b"b"), Ok(b"2".to_vec()));
    }
}

#[test]
fn filter_of_acls() {
    let bit = |index: u8| 1u32 << (HostHash::xxh32(b"", 0x25BB_E08F + u32::from(index)) % 32);
    let acls = bit(index::POSIX_ACL_ACCESS) | bit(index::POSIX_ACL_DEFAULT);
    let mut head = Head::default();
    let off = head.superblock();
    let on = head.compat(compat::XATTR_FILTER).superblock();
    let no_acl = |sb, name_filter| {
        XattrHeader {
            name_filter,
            shared_count: 0,
        }
        .no_acl(sb)
    };
    assert!(no_acl(&on, acls) && no_acl(&on, !0));
    assert!(!no_acl(&on, bit(index::POSIX_ACL_ACCESS)));
    assert!(!no_acl(&on, bit(index::POSIX_ACL_DEFAULT)));
    assert!(!no_acl(&off, !0));
}

#[test]
fn sizes_that_lie() {
    let inline = [attribute(index::USER, b"name", b"value")];
    let shared = [attribute(index::USER, b"else", b"value")];
    let good = || fixture(&mut Head::default(), 0, &inline, &shared);
    let body = 4096 + 32;
    let entry = body + 12 + 4;
    assert_eq!(good().image[entry], 4);
    // A name or value that goes on behind the inode's attributes.
    for (at, value) in [(entry, 12), (entry + 2, 9), (entry + 3, 0xFF)] {
        let mut f = good();
        f.image[at] = value;
        assert_eq!(kind(f.get(index::USER, b"x")), Kind::Corrupted);
        assert_eq!(kind(f.list()), Kind::Corrupted);
    }
    // More shared ids than there is room for.
    for count in [6, 255] {
        let mut f = good();
        f.image[body + 4] = count;
        assert_eq!(kind(f.get(index::USER, b"x")), Kind::Corrupted);
        assert_eq!(kind(f.list()), Kind::Corrupted);
    }
    // A shared id behind the image.
    let mut f = good();
    f.image[body + 12..body + 16].fill(0xFF);
    assert_eq!(f.get(index::USER, b"name"), Ok(b"value".to_vec()));
    assert_eq!(kind(f.get(index::USER, b"else")), Kind::Corrupted);
    // A shared value behind the image.
    let mut f = good();
    let at = SHARED_BLOCK as usize * 4096;
    f.image[at + 3] = 0xFF;
    assert_eq!(kind(f.get(index::USER, b"else")), Kind::Corrupted);
    // Attributes behind the image.
    let mut f = good();
    f.image.truncate(body + 12 + 8);
    assert_eq!(kind(f.list()), Kind::Corrupted);
}

fn any_attribute() -> impl Strategy<Value = Attribute> {
    (
        prop::sample::select(vec![1u8, 2, 3, 4, 6, 0x80, 0x81]),
        prop::collection::vec(1u8..=255, 0..40),
        prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..50),
            1 => prop::collection::vec(any::<u8>(), 0..5000),
        ],
    )
        .prop_map(|(index, name, value)| Attribute { index, name, value })
}

proptest! {
    #[test]
    fn round_trip(
        inline in prop::collection::vec(any_attribute(), 0..12),
        shared in prop::collection::vec(any_attribute(), 0..6),
    ) {
        prop_assume!(!inline.is_empty() || !shared.is_empty());
        let mut f = fixture(&mut Head::default(), 0, &inline, &shared);
        for bytes in [prefix_bytes(index::USER, b"\x01\x02"), prefix_bytes(index::TRUSTED, b"")] {
            f.prefixes.push(LongPrefix::read(&Bytes(&bytes), &mut 0).expect("a prefix"));
        }
        // The first of two with one name counts.
        let mut expected = BTreeMap::new();
        let mut names = Vec::new();
        for attribute in inline.iter().chain(&shared) {
            let (base, infix): (u8, &[u8]) = match attribute.index {
                0x80 => (index::USER, b"\x01\x02"),
                0x81 => (index::TRUSTED, b""),
                index => (index, b""),
            };
            let name = [infix, &attribute.name].concat();
            names.push([prefix_of(base).expect("a known one"), &name].concat());
            expected.entry((base, name)).or_insert(&attribute.value);
        }
        prop_assert_eq!(f.list(), Ok(names));
        for ((base, name), value) in &expected {
            prop_assert_eq!(f.get(*base, name), Ok((*value).clone()));
            let longer = [&name[..], b"x"].concat();
            if !expected.contains_key(&(*base, longer.clone())) {
                prop_assert_eq!(kind(f.get(*base, &longer)), Kind::NoData);
            }
        }
    }

    #[test]
    fn any_bytes(
        icount in prop_oneof![0u16..80, any::<u16>()],
        shared_count in prop_oneof![0u8..5, any::<u8>()],
        mut body in prop::collection::vec(any::<u8>(), 5..400),
        small in any::<bool>(),
        blkszbits in 9u8..=12,
        xattr_blkaddr in any::<u32>(),
        base in any::<u8>(),
        name in prop::collection::vec(any::<u8>(), 0..260),
        room in 0usize..300,
    ) {
        let mut head = Head::default();
        head.compat(compat::XATTR_FILTER).blkszbits(blkszbits);
        head.set(40, &(4096u32 >> blkszbits).to_le_bytes());
        head.set(44, &(if small { 1 } else { xattr_blkaddr }).to_le_bytes());
        let sb = head.superblock();
        body[4] = shared_count;
        if small {
            // Most random lengths would leave at once.
            body.iter_mut().skip(12).for_each(|byte| *byte &= 7);
        }
        let raw = RawInode { icount, ..RawInode::default() };
        let mut image = vec![0; 4096];
        image.extend(raw.bytes());
        image.extend(&body);
        let image = Bytes(&image);
        let inode = Inode::read(&sb, 0, &image).expect("a good inode");
        let sources = XattrSources { inode: &image, shared: &image };
        let mut pos = 4096 + u64::from(base);
        let mut prefixes = Vec::new();
        while let Ok(prefix) = LongPrefix::read(&image, &mut pos) {
            prefixes.push(prefix);
        }
        if let Ok(Some(header)) = XattrHeader::read(&sb, &inode, &image) {
            let _ = header.may_have::<HostHash>(&sb, base, &name);
            let _ = header.no_acl(&sb);
        }
        let mut out = vec![0; room];
        let get = |out| getxattr::<_, HostHash>(&sb, &inode, &sources, &prefixes, base & 0x87, &name, out);
        let size = get(None);
        match get(Some(&mut out)) {
            Ok(len) => {
                prop_assert!(len <= room);
                prop_assert_eq!(size, Ok(len));
            }
            Err(error) => prop_assert!(size.is_err() || matches!(error.kind, Kind::Range | Kind::Corrupted)),
        }
        let list = |out| listxattr(&sb, &inode, &sources, &prefixes, prefix_of, out);
        let size = list(None);
        match list(Some(&mut out)) {
            Ok(len) => {
                prop_assert!(len <= room);
                prop_assert_eq!(size, Ok(len));
            }
            Err(error) => prop_assert!(size.is_err() || matches!(error.kind, Kind::Range | Kind::Corrupted)),
        }
    }

    #[test]
    fn any_superblock(
        mut bytes in prop::collection::vec(any::<u8>(), 160),
        known in any::<bool>(),
        nid in any::<u64>(),
    ) {
        let mut head = Head::default();
        if known {
            bytes[8] &= !1;
            bytes[12] = 9 + bytes[12] % 4;
            bytes[13] %= 185;
            bytes[81] &= 1;
            bytes[82..84].fill(0);
            bytes[90] = 0;
        }
        head.set(0, &bytes);
        head.set(0, &0xE0F5_E1E2u32.to_le_bytes());
        if let Ok(sb) = head.parse() {
            for nid in [nid, sb.root_nid, sb.packed_nid, nid >> 32] {
                let _ = (sb.ino(nid), sb.iloc(nid), sb.block_pos(nid));
                let _ = Inode::read(&sb, nid, &Bytes(&head.0));
            }
            let _ = (sb.device_id_mask(), sb.volume_name(), sb.is_compressed());
            let _ = erofs_shared_format::device::DeviceSlot::read(&sb, nid as u16, &Bytes(&head.0));
        }
    }
}
