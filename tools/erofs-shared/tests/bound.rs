// SPDX-License-Identifier: GPL-2.0

//! What `bound` states, against figures that are known by construction, and against the trees that the images are made
//! of: these are read by the host's own filesystem, and their blocks compared byte by byte.

mod common;

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use common::{json, mkfs, ours, text, tree};

const OPTIONS: &[&[&str]] = &[
    &[],
    &["-b512"],
    &["-b2048", "-Enoinline_data"],
    &["--chunksize=4096"],
    &["--chunksize=65536"],
    &["-zlz4", "-Eztailpacking", "-C65536"],
    &["-zlz4hc", "-Ededupe", "-Efragments"],
    &["-zdeflate", "-Eall-fragments"],
];

/// `files`, `pages`, `zero_pages`, `whole_files`, `blocks`
type Figures = [u64; 5];

fn figures(value: &serde_json::Value) -> Figures {
    ["files", "pages", "zero_pages", "whole_files", "blocks"]
        .map(|name| value[name].as_u64().unwrap_or_else(|| panic!("{value}")))
}

/// What was in the trees before.
#[derive(Default)]
struct Seen {
    inodes: HashSet<u64>,
    files: HashSet<Vec<u8>>,
    blocks: HashSet<Vec<u8>>,
}

fn count(dir: &Path, seen: &mut Seen, sum: &mut Figures) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            count(&entry.path(), seen, sum);
        }
        if !meta.is_file() || !seen.inodes.insert(meta.ino()) {
            continue;
        }
        let data = fs::read(entry.path()).unwrap();
        let mut pages = 0;
        for block in data.chunks(4096) {
            let mut block = block.to_vec();
            block.resize(4096, 0);
            pages += 1;
            if block == [0; 4096] {
                sum[2] += 1;
            } else if seen.blocks.insert(block) {
                sum[4] += 1;
            }
        }
        sum[0] += 1;
        sum[1] += pages;
        if seen.files.insert(data) {
            sum[3] += pages;
        }
    }
}

/// A block that is like no other with another number.
fn block(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(1024)
}

fn blocks(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| block(*number)).collect()
}

#[test]
fn known_by_construction() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir_all(one.join("sub")).unwrap();
    fs::create_dir_all(&two).unwrap();
    // The first: 3 + 3 + 2 + 2 + 1 pages, of which 4 of zeros; the copy adds nothing, blocks 4 and 5 are new, as is the tail.
    fs::write(one.join("a"), blocks(&[1, 2, 3])).unwrap();
    fs::write(one.join("sub/copy"), blocks(&[1, 2, 3])).unwrap();
    fs::hard_link(one.join("a"), one.join("sub/link")).unwrap();
    fs::write(one.join("b"), blocks(&[4, 5])).unwrap();
    fs::write(one.join("zeros"), vec![0; 4097]).unwrap();
    fs::write(one.join("tail"), &block(6)[..100]).unwrap();
    fs::write(one.join("empty"), b"").unwrap();
    // The second: one file of the first, one with blocks of it in another order and one more; a tail that is the same but
    // for zeros, in a file of another size.
    fs::write(two.join("b"), blocks(&[4, 5])).unwrap();
    fs::write(two.join("mixed"), blocks(&[5, 0, 1, 7, 7])).unwrap();
    fs::write(two.join("tail"), [&block(6)[..100], &[0; 9][..]].concat()).unwrap();
    for options in OPTIONS {
        let images = [dir.path().join("1.erofs"), dir.path().join("2.erofs")];
        mkfs(&images[0], &one, options);
        mkfs(&images[1], &two, options);
        let [first, second] = [text(&images[0]), text(&images[1])];
        let got = json(&["bound", "--json", first, second]);
        assert_eq!(figures(&got["images"][0]), [6, 11, 2, 8, 6], "{options:?}");
        assert_eq!(figures(&got["images"][1]), [3, 8, 1, 6, 1], "{options:?}");
        assert_eq!(figures(&got["total"]), [9, 19, 3, 14, 7], "{options:?}");
        // The other way round each adds something else, in all it is the same.
        let got = json(&["bound", "--json", second, first]);
        assert_eq!(figures(&got["images"][0]), [3, 8, 1, 8, 5], "{options:?}");
        assert_eq!(figures(&got["total"]), [9, 19, 3, 14, 7], "{options:?}");
    }
}

#[test]
fn as_the_trees() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    tree(&one);
    tree(&two);
    let words: Vec<String> = (0..100_000)
        .map(|at| (at % 777 + at / 9).to_string())
        .collect();
    let words = words.join(" ");
    fs::write(one.join("words"), &words).unwrap();
    fs::write(two.join("words"), &words[8192..400_000]).unwrap();
    // Data, holes that begin and end inside pages, data.
    for (top, end) in [(&one, 1_000_001), (&two, 1_000_002)] {
        let sparse = File::create(top.join("holes")).unwrap();
        sparse.set_len(end).unwrap();
        sparse.write_all_at(&[7; 5000], 0).unwrap();
        sparse.write_all_at(&[8; 70_000], 300_001).unwrap();
        sparse.write_all_at(&[9], 655_360).unwrap();
    }
    let mut seen = Seen::default();
    let (mut first, mut second) = (Figures::default(), Figures::default());
    count(&one, &mut seen, &mut first);
    count(&two, &mut seen, &mut second);
    assert!(first[4] < first[3] && second[4] < second[3], "{second:?}");
    for options in OPTIONS {
        let images = [dir.path().join("1.erofs"), dir.path().join("2.erofs")];
        mkfs(&images[0], &one, options);
        mkfs(&images[1], &two, options);
        let got = json(&["bound", "--json", text(&images[0]), text(&images[1])]);
        assert_eq!(figures(&got["images"][0]), first, "{options:?}");
        assert_eq!(figures(&got["images"][1]), second, "{options:?}");
        let total = [0, 1, 2, 3, 4].map(|at| first[at] + second[at]);
        assert_eq!(figures(&got["total"]), total, "{options:?}");
    }
}

#[test]
fn a_table_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), blocks(&[1, 2, 1])).unwrap();
    mkfs(&image, &source, &[]);
    let (status, out, err) = ours(&["bound", text(&image), text(&image)]);
    assert_eq!(status, 0, "{err}");
    let row = |line: &str| {
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let rows: Vec<String> = out.lines().map(row).collect();
    assert_eq!(rows.len(), 4, "{out}");
    assert_eq!(rows[1], "1 3 3 -0.0 % 2 -33.3 %", "{out}");
    assert_eq!(rows[2], "1 3 0 -100.0 % 0 -100.0 %", "{out}");
    assert_eq!(rows[3], "all 2 6 3 -50.0 % 2 -66.7 %", "{out}");
}

#[test]
fn what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    mkfs(&image, &source, &[]);
    let (status, out, err) = ours(&["bound", text(&image), "/nonexistent/image"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("/nonexistent/image"), "{err}");
    let (status, out, err) = ours(&["bound", text(&source.join("file70000"))]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("--offset"), "{err}");
    // Cut off: files without data are named, and not counted.
    let whole = fs::metadata(&image).unwrap().len();
    let all = json(&["bound", "--json", text(&image)]);
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(whole - 8192)
        .unwrap();
    let (status, out, err) = ours(&["bound", "--json", text(&image)]);
    assert_eq!(status, 1, "{err}");
    let got: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(err.contains(": nid "), "{err}");
    assert!(
        figures(&got["total"])[0] < figures(&all["total"])[0],
        "{out}"
    );
}
