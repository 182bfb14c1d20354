// SPDX-License-Identifier: GPL-2.0

//! The description of the on-disk structures.

use std::collections::HashSet;

use erofs_shared_format::ondisk::{
    Field, Names, Raw, RawCompactPack, RawCompactPair, RawDirent, RawFragmentHeader,
    RawInodeExtended, RawMapHeader, RawSuperblock, Structure, ALL,
};

/// The bytes of a structure that one of its fields has a part of.
fn covered(structure: &Structure) -> Vec<bool> {
    let mut bytes = vec![false; structure.size];
    for field in structure.fields {
        for number in 0..field.count {
            let first = field.at * 8 + (field.shift + number * field.stride) as usize;
            for bit in first..first + field.bits as usize {
                bytes[bit / 8] = true;
            }
        }
    }
    bytes
}

#[test]
fn every_byte_belongs_to_a_field() {
    for structure in ALL {
        let missing = covered(structure).iter().position(|covered| !covered);
        assert_eq!(missing, None, "{}", structure.name);
    }
}

#[test]
fn names_are_unique() {
    let mut structures = HashSet::new();
    for structure in ALL {
        assert!(structures.insert(structure.name), "{}", structure.name);
        let mut fields = HashSet::new();
        for field in structure.fields {
            assert!(
                fields.insert(field.name),
                "{} of {}",
                field.name,
                structure.name
            );
        }
    }
}

fn field(structure: &Structure, name: &str) -> Field {
    let found = structure.fields.iter().find(|field| field.name == name);
    *found.unwrap_or_else(|| panic!("{name} of {}", structure.name))
}

/// Bytes of a structure, with a value for a field of it.
fn with(structure: &Structure, field: &Field, number: u32, value: u64) -> Vec<u8> {
    let mut bytes = vec![0; structure.size + 8];
    let bit = field.shift + number * field.stride;
    let at = field.at + (bit / 8) as usize;
    bytes[at..at + 8].copy_from_slice(&(value << (bit % 8)).to_le_bytes());
    bytes
}

#[test]
fn fields_are_read_where_they_are_described() {
    let packed_nid = field(&RawSuperblock::STRUCTURE, "packed_nid");
    assert_eq!(
        (packed_nid.at, packed_nid.width, packed_nid.bits),
        (96, 8, 64)
    );
    assert_eq!(packed_nid.names, Names::Nid);
    let value = 0x0102_0304_0506_0708;
    let bytes = with(&RawSuperblock::STRUCTURE, &packed_nid, 0, value);
    let raw = RawSuperblock::first(&bytes).unwrap();
    assert_eq!(raw.packed_nid.get(), value);
}

#[test]
fn parts_are_read_where_they_are_described() {
    let structure = RawInodeExtended::STRUCTURE;
    let layout = field(&structure, "layout");
    assert_eq!((layout.at, layout.shift, layout.bits), (0, 1, 3));
    let bytes = with(&structure, &layout, 0, 5);
    let raw = RawInodeExtended::first(&bytes).unwrap();
    assert_eq!(raw.layout(), 5);
    assert_eq!(raw.as_compact().layout(), 5);

    let structure = RawMapHeader::STRUCTURE;
    let bytes = with(&structure, &field(&structure, "head2"), 0, 9);
    let raw = RawMapHeader::first(&bytes).unwrap();
    assert_eq!(
        (raw.head1(), raw.head2(), raw.h_algorithmtype()),
        (0, 9, 0x90)
    );
    let bytes = with(&structure, &field(&structure, "h_idata_size"), 0, 0x1234);
    assert_eq!(RawMapHeader::first(&bytes).unwrap().h_idata_size(), 0x1234);
    let structure = RawFragmentHeader::STRUCTURE;
    let bytes = with(&structure, &field(&structure, "fragment_inode"), 0, 1);
    let raw = RawMapHeader::first(&bytes).unwrap();
    assert_eq!(raw.h_clusterbits(), 0x80);
    assert_eq!(raw.as_fragment().fragment_inode(), 1);
    assert_eq!(raw.as_fragment().fragmentoff(), 0);
}

#[test]
fn entries_of_packs_are_read_where_they_are_described() {
    let structure = RawCompactPack::STRUCTURE;
    let entry = field(&structure, "entry");
    for number in 0..16 {
        let bytes = with(&structure, &entry, number, 0x2AAA + u64::from(number));
        let raw = RawCompactPack::first(&bytes).unwrap();
        for other in 0..16 {
            let expected = if other == number { 0x2AAA + number } else { 0 };
            assert_eq!(raw.entry(other), expected, "{other} of {number}");
        }
    }
    assert_eq!(RawCompactPack::first(&[0xFF; 32]).unwrap().entry(17), 0);
    let structure = RawCompactPair::STRUCTURE;
    let bytes = with(&structure, &field(&structure, "lcluster_type"), 1, 2);
    let raw = RawCompactPair::first(&bytes).unwrap();
    assert_eq!((raw.entry(0), raw.entry(1)), (0, 0x2000));
}

#[test]
fn a_structure_needs_all_its_bytes() {
    assert!(RawDirent::first(&[0; 11]).is_none());
    assert!(RawDirent::first(&[0; 12]).is_some());
    assert!(RawDirent::first(&[0; 13]).is_some());
}
