// SPDX-License-Identifier: GPL-2.0

//! Which fields change, in which order, and what that makes of the image.

use std::{collections::BTreeMap, fmt::Write as _, mem::offset_of};

use erofs_shared_format::{
    hash::Hasher,
    ondisk::{Field, Names, Raw, RawSuperblock},
    superblock::{compat, SUPER_OFFSET},
    HostHash, Volume,
};

use crate::{
    random::Random,
    survey::{Instance, Survey},
    values::{Value, Values},
};

/// Seed of the superblock's checksum: the CRC of the magic and of four zero bytes (its own place).
const CHECKSUM_SEED: u32 = 0x5045_B54A;

/// A field of all the structures of a kind that have the same role.
struct Class {
    field: Field,
    /// Numbers of instances.
    instances: Vec<usize>,
    /// How much more often than others it changes.
    weight: f64,
}

/// A field that gets another value.
struct Change<'a> {
    instance: &'a Instance,
    field: &'a Field,
    /// Which of several fields.
    number: u32,
    value: Value,
}

/// Mutations of an image.
pub struct Plan<'v> {
    image: &'v [u8],
    survey: &'v Survey<'v>,
    values: Values<'v>,
    classes: Vec<Class>,
    random: Random,
    /// Classes whose turn it is, the next one last.
    turn: Vec<usize>,
    done: u64,
}

/// Fields that say what something is, or where.
fn weight(names: Names, role: &str) -> f64 {
    let of_names = match names {
        Names::Nid | Names::Mode | Names::Layout => 8.0,
        Names::Block | Names::Address | Names::DeviceSlot | Names::XattrId => 6.0,
        Names::Length | Names::Offset | Names::Count | Names::XattrPrefix => 4.0,
        Names::Distance | Names::Algorithm | Names::Enum | Names::Flags | Names::Log2 => 3.0,
        Names::BlockHigh | Names::FileType => 2.0,
        _ => 0.2,
    };
    match role {
        "packed inode" | "metabox inode" | "root" => 2.0 * of_names,
        _ => of_names,
    }
}

impl<'v> Plan<'v> {
    /// For an image in memory, by a seed.
    pub fn new(image: &'v [u8], volume: &'v Volume, survey: &'v Survey<'v>, seed: u64) -> Self {
        let mut classes = BTreeMap::<_, Class>::new();
        for (number, instance) in survey.instances.iter().enumerate() {
            for field in instance.structure.fields {
                let key = (instance.structure.name, instance.role, field.name);
                let class = classes.entry(key).or_insert_with(|| Class {
                    field: *field,
                    instances: Vec::new(),
                    weight: weight(field.names, instance.role),
                });
                class.instances.push(number);
            }
        }
        let hash = HostHash::crc32c(!0, image);
        Self {
            image,
            survey,
            values: Values::new(volume, &survey.things),
            classes: classes.into_values().collect(),
            random: Random::new(seed ^ (u64::from(hash) << 32)),
            turn: Vec::new(),
            done: 0,
        }
    }

    /// How many kinds of fields there are.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The next class: all come once before any comes again, those with more weight earlier.
    fn class(&mut self) -> usize {
        if let Some(class) = self.turn.pop() {
            return class;
        }
        let random = &mut self.random;
        let mut keys: Vec<(f64, usize)> = self
            .classes
            .iter()
            .enumerate()
            .map(|(number, class)| {
                let uniform = (random.number() >> 11) as f64 / (1u64 << 53) as f64;
                (uniform.powf(1.0 / class.weight), number)
            })
            .collect();
        keys.sort_by(|one, other| one.0.total_cmp(&other.0));
        // Two thirds a turn: what has no weight need not come each time.
        let skip = keys.len() / 3;
        self.turn = keys
            .into_iter()
            .skip(skip)
            .map(|(_, class)| class)
            .collect();
        self.turn.pop().unwrap_or(0)
    }

    /// What a field of an instance says; its low 64 bits.
    fn read(&self, instance: &Instance, field: &Field, number: u32) -> u64 {
        let (at, shift) = place(instance, field, number);
        let width = field.width.min(8);
        let mut word = [0; 8];
        if let Some(bytes) = self.image.get(at..at + width) {
            word[..width].copy_from_slice(bytes);
        }
        let mask = u64::MAX >> (64 - field.bits.min(64));
        (u64::from_le_bytes(word) >> shift) & mask
    }

    fn change(&mut self, class: usize, instance: Option<usize>) -> Option<Change<'v>> {
        let Class {
            field: wanted,
            instances,
            ..
        } = &self.classes[class];
        let instance = match instance {
            Some(instance) => instance,
            None => *self.random.of(instances)?,
        };
        let survey = self.survey;
        let instance = &survey.instances[instance];
        let field = instance
            .structure
            .fields
            .iter()
            .find(|field| field.name == wanted.name)?;
        let mut random = self.random.clone();
        self.random.number();
        let number = random.below(field.count as usize) as u32;
        let now = self.read(instance, field, number);
        let others: Vec<u64> = (0..3)
            .filter_map(|_| random.of(instances))
            .map(|other| self.read(&survey.instances[*other], wanted, 0))
            .collect();
        let all = self.values.of(field, instance, now, &others, &mut random);
        // Of what it could name first a kind, then one of that kind.
        let mut kinds: Vec<&str> = all.iter().map(|value| value.what.as_str()).collect();
        kinds.dedup();
        let kind = *random.of(&kinds)?;
        let those: Vec<&Value> = all.iter().filter(|value| value.what == kind).collect();
        let value = (*random.of(&those)?).clone();
        Some(Change {
            instance,
            field,
            number,
            value,
        })
    }

    /// A class to go with a change: of the same structure, of what the changed field names now, or any.
    fn partner(&mut self, first: &Change<'v>) -> (usize, Option<usize>) {
        let survey = self.survey;
        let nid = match (self.random.below(3), first.field.names) {
            (0, _) => return (self.class(), None),
            (1, Names::Nid) => Some(first.value.value),
            _ => first.instance.nid,
        };
        let near: Vec<(usize, usize)> = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, class)| class.weight >= 1.0)
            .flat_map(|(number, class)| class.instances.iter().map(move |one| (number, *one)))
            .filter(|(_, one)| survey.instances[*one].nid == nid)
            .collect();
        match self.random.of(&near) {
            Some((class, instance)) => (*class, Some(*instance)),
            None => (self.class(), None),
        }
    }

    /// The next mutation as a line: number, patches (`byte=hexadecimal bytes`), and a description.
    pub fn line(&mut self) -> String {
        let mut changes = Vec::new();
        while changes.is_empty() {
            let class = self.class();
            changes.extend(self.change(class, None));
        }
        if self.done % 2 == 1 {
            let (class, instance) = self.partner(&changes[0]);
            changes.extend(self.change(class, instance));
        }
        let mut patches = BTreeMap::<usize, u8>::new();
        let mut story = String::new();
        for change in &changes {
            self.patch(change, &mut patches);
            let Change {
                instance, field, ..
            } = change;
            let between = if story.is_empty() { "" } else { "; " };
            let _ = write!(
                story,
                "{between}{} of {}",
                instance.structure.name, instance.role
            );
            if let Some(nid) = instance.nid {
                let _ = write!(story, " {nid}");
            }
            let _ = write!(story, " at {}: {}", instance.at, field.name);
            if field.count > 1 {
                let _ = write!(story, "[{}]", change.number);
            }
            let now = self.read(instance, field, change.number);
            let Value { what, value } = &change.value;
            let _ = write!(story, " {now:#x} -> {value:#x} ({what})");
        }
        let sums = |change: &Change<'_>| change.field.names == Names::Checksum;
        if !changes.iter().any(sums) {
            self.seal(&mut patches);
        }
        self.done += 1;
        format!("{}\t{}\t{story}", self.done - 1, lines(&patches))
    }

    fn patch(&self, change: &Change<'_>, patches: &mut BTreeMap<usize, u8>) {
        let (at, shift) = place(change.instance, change.field, change.number);
        let width = change.field.width.min(8);
        let mut word = [0; 8];
        for (byte, at) in word.iter_mut().take(width).zip(at..) {
            *byte = patches
                .get(&at)
                .or(self.image.get(at))
                .copied()
                .unwrap_or(0);
        }
        let mask = (u64::MAX >> (64 - change.field.bits.min(64))) << shift;
        let word = (u64::from_le_bytes(word) & !mask) | ((change.value.value << shift) & mask);
        for (byte, at) in word.to_le_bytes().into_iter().take(width).zip(at..) {
            patches.insert(at, byte);
        }
    }

    /// Puts the checksum of the superblock's block right.
    fn seal(&self, patches: &mut BTreeMap<usize, u8>) {
        let mut head = self.image[..self.image.len().min(4096)].to_vec();
        for (at, byte) in patches.iter() {
            if let Some(old) = head.get_mut(*at) {
                *old = *byte;
            }
        }
        let Some(raw) = head.get(SUPER_OFFSET..).and_then(RawSuperblock::first) else {
            return;
        };
        let bits = raw.blkszbits;
        if raw.feature_compat.get() & compat::SB_CHKSUM == 0 || bits > 12 {
            return;
        }
        let block = 1usize << bits;
        let end = if block > SUPER_OFFSET {
            block
        } else {
            SUPER_OFFSET + block
        };
        let start = SUPER_OFFSET + offset_of!(RawSuperblock, feature_compat);
        let Some(bytes) = head.get(start..end) else {
            return;
        };
        let crc = HostHash::crc32c(CHECKSUM_SEED, bytes);
        let at = SUPER_OFFSET + offset_of!(RawSuperblock, checksum);
        if self.image.get(at..at + 4) != Some(&crc.to_le_bytes()) {
            for (byte, at) in crc.to_le_bytes().into_iter().zip(at..) {
                patches.insert(at, byte);
            }
        }
    }
}

/// The byte where a field's word begins, and the field's lowest bit in it.
fn place(instance: &Instance, field: &Field, number: u32) -> (usize, u32) {
    let bit = field.shift + number * field.stride;
    let (bytes, shift) = if field.count > 1 {
        (bit / 8, bit % 8)
    } else {
        (0, bit)
    };
    (instance.at as usize + field.at + bytes as usize, shift)
}

/// Bytes that change as `start=bytes`, those in a row together.
fn lines(patches: &BTreeMap<usize, u8>) -> String {
    let mut out = String::new();
    let mut next = None;
    for (at, byte) in patches {
        if next != Some(*at) {
            let between = if out.is_empty() { "" } else { " " };
            let _ = write!(out, "{between}{at}=");
        }
        let _ = write!(out, "{byte:02x}");
        next = Some(at + 1);
    }
    out
}
