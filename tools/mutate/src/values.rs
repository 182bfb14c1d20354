// SPDX-License-Identifier: GPL-2.0

//! What a field could say instead: of each kind of thing that it could name, one or some.

use erofs_shared_format::{
    ondisk::{Field, Names},
    superblock::NID_METABOX,
    Volume,
};

use crate::{
    random::Random,
    survey::{Instance, Things},
};

/// A value, and in words what it names.
#[derive(Clone)]
pub struct Value {
    /// What it names.
    pub what: String,
    /// The value.
    pub value: u64,
}

/// Most bits that a field can have and still have all its values tried.
const FEW_BITS: u32 = 5;
/// The larger half of a number of 64 bits, in 32 of them.
const HIGH: u32 = 32;

/// Types of files in `i_mode`.
const TYPES: [(&str, u64); 7] = [
    ("FIFO", 0o01),
    ("character device", 0o02),
    ("directory", 0o04),
    ("block device", 0o06),
    ("regular file", 0o10),
    ("symbolic link", 0o12),
    ("socket", 0o14),
];

/// Finds values for fields.
pub struct Values<'v> {
    volume: &'v Volume,
    things: &'v Things,
}

impl<'v> Values<'v> {
    /// For fields of this image.
    pub fn new(volume: &'v Volume, things: &'v Things) -> Self {
        Self { volume, things }
    }

    /// Values for a field that is `now`, without that and without those that do not fit. `others` is what
    /// the same field says elsewhere.
    pub fn of(
        &self,
        field: &Field,
        instance: &Instance,
        now: u64,
        others: &[u64],
        random: &mut Random,
    ) -> Vec<Value> {
        let mut out = List(Vec::new());
        match field.names {
            Names::Nid => self.nids(instance, now, random, &mut out),
            Names::Block => self.blocks(now, random, &mut out),
            Names::BlockHigh => out.all("upper half", [0, 1, 0x7FFF, 0x8000, 0xFFFF]),
            Names::Address => self.addresses(now, random, &mut out),
            Names::DeviceSlot => {
                out.all("device", 0..=self.things.devices + 2);
                out.all("device", [0x7FFF, 0xFFFF]);
            }
            Names::XattrId => self.xattrs(instance, &mut out),
            Names::XattrPrefix => {
                out.all("prefix", 0..=8);
                let long = self.things.prefixes;
                out.all("long prefix", (0..=long.min(8)).map(|id| 0x80 | id));
                out.all("no prefix", [long, 0x7F, 0xFF]);
            }
            Names::Offset | Names::Length | Names::Count | Names::Distance => {
                self.sizes(field, now, random, &mut out);
            }
            Names::Mode => {
                for (kind, bits) in TYPES {
                    out.all(kind, [(now & 0xFFF) | (bits << 12)]);
                }
                out.all("no type", [0, now & 0xFFF, u64::MAX, 0o030_644]);
            }
            Names::Layout | Names::FileType | Names::Algorithm | Names::Enum | Names::Log2 => {
                out.all("number", 0..1 << FEW_BITS.min(field.bits));
                out.all("number", [31, 32, 63, 64, 0x7F, 0xFF]);
            }
            Names::Flags => {
                out.all("bit", (0..field.bits).map(|bit| now ^ (1 << bit)));
                out.all("bits", [0, u64::MAX]);
            }
            Names::Magic
            | Names::Checksum
            | Names::DeviceNumber
            | Names::Owner
            | Names::Time
            | Names::Bytes
            | Names::Reserved => {
                out.all("number", [0, 1, 999_999_999, 1_000_000_000, u64::MAX]);
                out.all("number", [now ^ 1, now ^ (1 << (field.bits.min(64) - 1))]);
                out.all("random", [random.number()]);
            }
        }
        if let Some(other) = random.of(others) {
            out.all("what it is elsewhere", [*other]);
        }
        let mask = u64::MAX >> (64 - field.bits.min(64));
        let mut seen = vec![now & mask];
        out.0.retain_mut(|value| {
            value.value &= mask;
            let is_new = !seen.contains(&value.value);
            seen.push(value.value);
            is_new
        });
        out.0
    }

    fn nids(&self, instance: &Instance, now: u64, random: &mut Random, out: &mut List) {
        for (kind, nids) in &self.things.nids {
            if let Some(nid) = random.of(nids) {
                out.all(kind, [*nid]);
                if random.below(2) == 0 {
                    out.all(&format!("inside the inode of {kind}"), [nid + 1]);
                }
            }
        }
        if let Some(own) = instance.nid {
            out.all("itself", [own]);
        }
        let sb = &self.volume.sb;
        let meta = u64::from(sb.meta_blkaddr) << sb.blkszbits;
        let end = self.volume.primary.len().saturating_sub(meta) / 32;
        out.all("the end", [end.saturating_sub(1), end, end + 1]);
        for (kind, blocks) in &self.things.blocks {
            if let Some(block) = random.of(blocks) {
                let at = (block << sb.blkszbits).wrapping_sub(meta) / 32;
                out.all(&format!("the block of {kind}"), [at]);
            }
        }
        out.all("metabox", [NID_METABOX, NID_METABOX + 1, now ^ NID_METABOX]);
        out.all("nothing", [0, 1 << 58, i64::MAX as u64, u64::MAX]);
    }

    fn blocks(&self, now: u64, random: &mut Random, out: &mut List) {
        for (kind, blocks) in &self.things.blocks {
            if let Some(block) = random.of(blocks) {
                out.all(kind, [*block]);
            }
        }
        out.all("beside it", [now.wrapping_sub(1), now + 1]);
        out.all("nothing", [u64::MAX, u64::MAX - 1, i32::MAX as u64]);
    }

    fn addresses(&self, now: u64, random: &mut Random, out: &mut List) {
        let bits = self.volume.sb.blkszbits;
        for (kind, blocks) in &self.things.blocks {
            if let Some(block) = random.of(blocks) {
                out.all(
                    kind,
                    [block << bits, (block << bits) + random.number() % 512],
                );
            }
        }
        let end = self.volume.primary.len();
        out.all("the end", [end - 1, end, end + 1]);
        out.all("beside it", [now.wrapping_sub(1), now.wrapping_add(1)]);
        out.all("nothing", [0, u64::MAX, i64::MAX as u64, 1 << 60]);
    }

    fn xattrs(&self, instance: &Instance, out: &mut List) {
        for id in &self.things.xattrs {
            out.all("shared xattr", [*id]);
            out.all("inside a shared xattr", [id + 1]);
        }
        let sb = &self.volume.sb;
        let area = u64::from(sb.xattr_blkaddr) << sb.blkszbits;
        out.all("itself", [instance.at.wrapping_sub(area) / 4]);
        let end = self.volume.primary.len().saturating_sub(area) / 4;
        out.all("the end", [end.saturating_sub(1), end, end + 1]);
        out.all("nothing", [u64::MAX, i32::MAX as u64]);
    }

    fn sizes(&self, field: &Field, now: u64, random: &mut Random, out: &mut List) {
        let block = u64::from(self.volume.sb.block_size());
        out.all("small", [0, 1, 2, 11, 12, 13]);
        out.all("about a block", [block - 1, block, block + 1]);
        out.all("about itself", [now.wrapping_sub(1), now.wrapping_add(1)]);
        out.all("twice or half", [now.wrapping_mul(2), now / 2]);
        out.all("power of 2", (0..field.bits.min(64)).map(|bit| 1 << bit));
        out.all("largest", [u64::MAX, u64::MAX >> 1, u64::MAX - 1]);
        if field.bits > HIGH {
            out.all("largest", [u64::MAX >> 1, (u64::MAX >> 1) - block + 1]);
        }
        out.all("the image", [self.volume.primary.len()]);
        if let Some(size) = random.of(&self.things.sizes) {
            out.all("size of a file", [*size]);
        }
        if let Some(packed) = self.volume.packed() {
            let end = packed.size;
            out.all(
                "end of the packed inode",
                [end.saturating_sub(1), end, end + 1],
            );
        }
        if field.names == Names::Distance {
            out.all("size in blocks", [0x800, 0x801, 0x8FF, 0xFFF]);
        }
    }
}

struct List(Vec<Value>);

impl List {
    fn all(&mut self, what: &str, values: impl IntoIterator<Item = u64>) {
        self.0.extend(values.into_iter().map(|value| Value {
            what: what.to_owned(),
            value,
        }));
    }
}
