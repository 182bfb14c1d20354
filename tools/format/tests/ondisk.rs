// SPDX-License-Identifier: GPL-2.0

//! The description of the on-disk structures.

use std::collections::HashSet;

use erofs_shared_format::ondisk::{super_block, Names, Structure, ALL};

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

#[test]
fn fields_are_read_where_they_are_described() {
    let field = super_block::STRUCTURE
        .fields
        .iter()
        .find(|field| field.name == "PACKED_NID")
        .unwrap();
    assert_eq!((field.at, field.width, field.bits), (96, 8, 64));
    assert_eq!(field.names, Names::Nid);
    let mut raw = [0u8; super_block::SIZE];
    raw[field.at..field.at + 8].copy_from_slice(&0x0102_0304_0506_0708u64.to_le_bytes());
    assert_eq!(super_block::PACKED_NID.get(&raw), 0x0102_0304_0506_0708);
}
