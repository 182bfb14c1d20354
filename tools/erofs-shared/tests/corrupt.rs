// SPDX-License-Identifier: GPL-2.0

//! `check` finds what was broken, and says where.

mod common;

use std::{fs, path::PathBuf};

use common::{fsck_clean, json, mkfs, ours, text, tree};

const DIRENT: usize = 12;

/// An image to break; `-Enosbcrc` where its first block is, which the checksum covers.
struct Victim {
    _dir: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Victim {
    fn new(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, path) = (dir.path().join("tree"), dir.path().join("image"));
        tree(&source);
        mkfs(&path, &source, options);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(ours(&["check", text(&path)]).0, 0);
        Self {
            _dir: dir,
            path,
            bytes,
        }
    }

    /// Inode of a path, as `dump` sees it.
    fn inode(&self, path: &str) -> serde_json::Value {
        json(&["dump", "--json", text(&self.path), "--path", path])
    }

    /// First byte of a path's data, in the image.
    fn data(&self, path: &str) -> usize {
        self.inode(path)["extents"][0]["offset"].as_u64().unwrap() as usize
    }

    /// Writes the bytes, checks, and gives the problems.
    fn problems(&self) -> Vec<serde_json::Value> {
        fs::write(&self.path, &self.bytes).unwrap();
        assert_eq!(ours(&["check", text(&self.path)]).0, 1);
        let report = &json(&["check", "--json", text(&self.path)])[0];
        assert_eq!(report["clean"], false);
        report["problems"].as_array().unwrap().clone()
    }
}

#[test]
fn entries_out_of_order() {
    let mut victim = Victim::new(&["-Enosbcrc"]);
    let start = victim.data("/many");
    // Two records behind `.` and `..`, of names of the same length: exchange the names.
    let name = |bytes: &[u8], index: usize| {
        let at = start + index * DIRENT + 8;
        start + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    };
    let (first, second) = (name(&victim.bytes, 2), name(&victim.bytes, 3));
    for at in 0..second - first {
        victim.bytes.swap(first + at, second + at);
    }
    let problems = victim.problems();
    let found = &problems[0];
    assert_eq!(found["path"], "/many", "{problems:?}");
    assert_eq!(found["in"], "image");
    assert_eq!(found["offset"], (start + 3 * DIRENT) as u64);
    let message = found["message"].as_str().unwrap();
    assert!(message.contains("name-0000\" is out of order"), "{message}");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!fsck_clean(&victim.path, &[]));
}

#[test]
fn bad_nid() {
    let mut victim = Victim::new(&["-Enosbcrc"]);
    let start = victim.data("/many");
    let at = start + 2 * DIRENT;
    victim.bytes[at..at + 8].copy_from_slice(&0x00FF_FFFF_FFFFu64.to_le_bytes());
    let problems = victim.problems();
    let found = &problems[0];
    let path = "/many/entry-with-a-rather-long-name-0000";
    assert_eq!(found["path"], path, "{problems:?}");
    assert_eq!(found["nid"], 0x00FF_FFFF_FFFFu64);
    // The walk went on: that one inode is missing is the only other problem.
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[1]["path"], "[superblock]");
    assert!(!fsck_clean(&victim.path, &[]));
    // The text has the path too.
    let (_, out, _) = ours(&["check", text(&victim.path)]);
    assert!(
        out.contains(&format!("{path}: nid {}", 0x00FF_FFFF_FFFFu64)),
        "{out}"
    );
}

#[test]
fn directory_reached_twice() {
    let mut victim = Victim::new(&["-Enosbcrc"]);
    let start = victim.data("/deep/er/est");
    // `..` of the innermost directory leads to the root.
    let root = json(&["dump", "--json", text(&victim.path)])["root_nid"]
        .as_u64()
        .unwrap();
    victim.bytes[start + DIRENT..start + DIRENT + 8].copy_from_slice(&root.to_le_bytes());
    let problems = victim.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0]["path"], "/deep/er/est");
    assert_eq!(problems[0]["offset"], (start + DIRENT) as u64);

    // And an entry that leads back to the root.
    let mut victim = Victim::new(&["-Enosbcrc"]);
    let start = victim.data("/deep/er");
    let at = start + 2 * DIRENT;
    victim.bytes[at..at + 8].copy_from_slice(&root.to_le_bytes());
    let problems = victim.problems();
    assert_eq!(problems[0]["path"], "/deep/er/est", "{problems:?}");
    let message = problems[0]["message"].as_str().unwrap();
    assert!(message.contains("reached before"), "{message}");
}

#[test]
fn checksum_mode_and_extent() {
    let mut victim = Victim::new(&[]);
    // The volume name: only the checksum notices.
    victim.bytes[1024 + 64] ^= 1;
    let link = victim.inode("/link");
    let at = link["offset"].as_u64().unwrap() as usize;
    // No such file type.
    victim.bytes[at + 4..at + 6].copy_from_slice(&[0xFF, 0xFF]);
    let file = victim.inode("/file70000");
    let at = file["offset"].as_u64().unwrap() as usize;
    // Its first block, far away.
    victim.bytes[at + 16..at + 20].copy_from_slice(&0x00FF_FFFFu32.to_le_bytes());
    let problems = victim.problems();
    let paths: Vec<_> = problems
        .iter()
        .map(|problem| problem["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["[superblock]", "/file70000", "/link", "[superblock]"]
    );
    assert!(problems[0]["message"]
        .as_str()
        .unwrap()
        .contains("checksum"));
    assert!(problems[1]["message"]
        .as_str()
        .unwrap()
        .contains("past the end"));
    assert_eq!(problems[2]["nid"], link["nid"]);
    assert!(problems[3]["message"].as_str().unwrap().contains("inos"));
}

#[test]
fn compressed_data() {
    let mut victim = Victim::new(&["-zlz4", "-Elegacy-compress", "-Enosbcrc"]);
    let sparse = victim.inode("/deep/er/sparse");
    assert_eq!(sparse["extents"][1]["kind"], "pcluster");
    // The second entry that is a head, which starts an extent: another block, far away.
    let iloc = sparse["offset"].as_u64().unwrap() as usize;
    let start = iloc + sparse["inode_size"].as_u64().unwrap() as usize + 16;
    let wanted = sparse["extents"][1]["start"].as_u64().unwrap() as usize / 4096;
    let at = start + 8 * wanted;
    victim.bytes[at + 4..at + 8].copy_from_slice(&0x00FF_FFFFu32.to_le_bytes());
    // Bytes of a pcluster, which only decoding notices.
    let data = victim.data("/file70000");
    victim.bytes[data..data + 200].fill(0xFF);
    let problems = victim.problems();
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem["path"], "/deep/er/sparse");
    assert_eq!(problem["nid"], sparse["nid"]);
    assert_eq!(problem["offset"], at as u64);
    let message = problem["message"].as_str().unwrap();
    assert!(message.contains("past the end"), "{message}");

    let report = &json(&["check", "--data", "--json", text(&victim.path)])[0];
    let problem = &report["problems"][0];
    assert_eq!(problem["path"], "/file70000", "{report:#}");
    assert_eq!(problem["offset"], data as u64);
}

#[test]
fn every_cut_image_ends_without_a_panic() {
    for options in [&["-b512", "--chunksize=512"], &["-zzstd", "-Efragments"]] {
        let victim = Victim::new(options);
        let len = victim.bytes.len();
        for keep in (0..len).step_by(len / 37) {
            fs::write(&victim.path, &victim.bytes[..keep]).unwrap();
            let (status, out, err) = ours(&["check", "--data", text(&victim.path)]);
            assert_eq!(status, 1, "{keep} of {len} bytes: {out}{err}");
            assert!(out.contains("problem"), "{out}");
        }
    }
}
