// SPDX-License-Identifier: GPL-2.0

//! What is shown of the superblock, and of what it leads to.

use erofs_shared_format::{compression::Algorithm, superblock::Superblock};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    image::Volume,
    text::{date, show, uuid},
};

/// Names of compatible and incompatible features, as erofs-utils prints them.
const COMPAT: [(u32, &str); 6] = [
    (0x01, "sb_csum"),
    (0x02, "mtime"),
    (0x04, "xattr_filter"),
    (0x08, "shared_ea_in_metabox"),
    (0x10, "plain_xattr_pfx"),
    (0x20, "ishare_xattrs"),
];
const INCOMPAT: [(u32, &str); 11] = [
    (0x001, "0padding"),
    (0x002, "compr_cfgs"),
    (0x002, "big_pcluster"),
    (0x004, "chunked_file"),
    (0x008, "device_table"),
    (0x010, "ztailpacking"),
    (0x020, "fragments"),
    (0x020, "dedupe"),
    (0x040, "xattr_prefixes"),
    (0x080, "48bit"),
    (0x100, "metabox"),
];

fn features(sb: &Superblock) -> Vec<&'static str> {
    let of = |bits: u32, names: &[(u32, &'static str)]| -> Vec<&'static str> {
        let on = names.iter().filter(|(bit, _)| bits & bit != 0);
        on.map(|(_, name)| *name).collect()
    };
    let mut all = of(sb.feature_compat, &COMPAT);
    all.extend(of(sb.feature_incompat, &INCOMPAT));
    all
}

fn algorithms(volume: &Volume) -> Vec<String> {
    let Ok(compression) = volume.compression() else {
        return Vec::new();
    };
    let used = Algorithm::ALL.into_iter();
    used.filter(|algorithm| compression.has(*algorithm))
        .map(|algorithm| match algorithm {
            Algorithm::Lz4 => format!(
                "lz4 (distance {}, pclusters of {} blocks)",
                compression.lz4_max_distance, compression.lz4_max_pclusterblks
            ),
            Algorithm::Lzma => format!("lzma (dictionary {} bytes)", compression.lzma_dict_size),
            Algorithm::Deflate => {
                format!(
                    "deflate (window of {} bits)",
                    compression.deflate_windowbits
                )
            }
            Algorithm::Zstd => format!("zstd (window of {} bits)", compression.zstd_windowlog),
        })
        .collect()
}

#[derive(JsonSchema, Serialize)]
pub struct ShownDevice {
    tag: String,
    blocks: u64,
    uniaddr: u64,
}

#[derive(JsonSchema, Serialize)]
pub struct ShownSuperblock {
    magic: u32,
    checksum: u32,
    block_size: u32,
    blocks: u64,
    meta_blkaddr: u32,
    xattr_blkaddr: u32,
    root_nid: u64,
    packed_nid: Option<u64>,
    metabox_nid: Option<u64>,
    /// Compression algorithms with their limits.
    algorithms: Vec<String>,
    sb_size: u32,
    inos: u64,
    epoch: i64,
    build_time: u32,
    created: String,
    features: Vec<&'static str>,
    feature_compat: u32,
    feature_incompat: u32,
    xattr_prefixes: Vec<String>,
    uuid: String,
    volume_name: String,
    devices: Vec<ShownDevice>,
}

impl ShownSuperblock {
    pub fn new(volume: &Volume) -> Self {
        let sb = &volume.sb;
        let created = sb.epoch.saturating_add(sb.build_time.into());
        Self {
            magic: erofs_shared_format::superblock::SUPER_MAGIC,
            checksum: sb.checksum,
            block_size: sb.block_size(),
            blocks: sb.blocks,
            meta_blkaddr: sb.meta_blkaddr,
            xattr_blkaddr: sb.xattr_blkaddr,
            root_nid: sb.root_nid,
            packed_nid: (sb.has_fragments() && sb.packed_nid != 0).then_some(sb.packed_nid),
            metabox_nid: sb.metabox_nid,
            algorithms: algorithms(volume),
            sb_size: sb.sb_size,
            inos: sb.inos,
            epoch: sb.epoch,
            build_time: sb.build_time,
            created: format!("{} UTC", date(created)),
            features: features(sb),
            feature_compat: sb.feature_compat,
            feature_incompat: sb.feature_incompat,
            xattr_prefixes: volume
                .prefixes
                .iter()
                .map(|prefix| format!("{}:{}", prefix.base_index, show(prefix.infix())))
                .collect(),
            uuid: uuid(&sb.uuid),
            volume_name: show(sb.volume_name()),
            devices: volume
                .slots
                .iter()
                .map(|slot| ShownDevice {
                    tag: show(slot.tag()),
                    blocks: slot.blocks,
                    uniaddr: slot.uniaddr,
                })
                .collect(),
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            out += format!("{:<28}{value}", format!("{name}:")).trim_end();
            out.push('\n');
        };
        line("magic", format!("{:#X}", self.magic));
        line("checksum", format!("{:#010x}", self.checksum));
        line("block size", self.block_size.to_string());
        line("blocks", self.blocks.to_string());
        line("inode metadata block", self.meta_blkaddr.to_string());
        line("shared xattr block", self.xattr_blkaddr.to_string());
        line("root nid", self.root_nid.to_string());
        if let Some(nid) = self.packed_nid {
            line("packed nid", nid.to_string());
        }
        if let Some(nid) = self.metabox_nid {
            line("metabox nid", nid.to_string());
        }
        line("superblock size", self.sb_size.to_string());
        line("inode count", self.inos.to_string());
        line("created", self.created.clone());
        line("features", self.features.join(" "));
        if !self.algorithms.is_empty() {
            line("compression", self.algorithms.join(", "));
        }
        if !self.xattr_prefixes.is_empty() {
            line("long xattr prefixes", self.xattr_prefixes.join(" "));
        }
        line("uuid", self.uuid.clone());
        line("volume name", self.volume_name.clone());
        for (index, device) in self.devices.iter().enumerate() {
            let mut value = format!("{} blocks", device.blocks);
            if device.uniaddr != 0 {
                value += &format!(", from block {} of the address space", device.uniaddr);
            }
            if !device.tag.is_empty() {
                value += &format!(", tag \"{}\"", device.tag);
            }
            line(&format!("device {}", index + 1), value);
        }
        out
    }
}
