// SPDX-License-Identifier: GPL-2.0

//! `dump` and `check` agree with erofs-utils on images made in several ways.

mod common;

use std::fs;

use common::{dumped, dumped_extents, fsck_clean, json, mkfs, ours, text, tree};

const OPTIONS: &[&[&str]] = &[
    &[],
    &["-b512"],
    &["-b2048", "-Enoinline_data"],
    &["-Eforce-inode-extended", "-Llabel"],
    &["-T0", "-Eforce-inode-compact", "--all-root"],
    &["--chunksize=4096"],
    &["--chunksize=65536", "-Eforce-chunk-indexes"],
    &["-Ededupe", "-zlz4hc", "-Efragments"],
    &["-zlz4", "-Eztailpacking", "-C65536"],
    &["-Exattr-name-filter", "--xattr-prefix=user.", "-x1"],
    &["-Enosbcrc"],
    &["-U41b9a4a0-c0ff-4b14-9d2a-8f2b7ad93e51"],
];

#[test]
fn agrees_with_erofs_utils() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("tree");
    tree(&source);
    for options in OPTIONS {
        let image = dir.path().join("image");
        mkfs(&image, &source, options);
        let image = image.as_path();

        assert!(fsck_clean(image, &[]), "{options:?}");
        let (status, out, err) = ours(&["check", text(image)]);
        assert_eq!(status, 0, "{options:?}: {out}{err}");
        assert!(out.trim_end().ends_with("clean"), "{options:?}: {out}");
        let compressed = options.iter().any(|option| option.starts_with("-z"));
        assert_eq!(out.contains("inodes compressed"), compressed, "{out}");
        let (status, out, err) = ours(&["check", "--data", text(image)]);
        assert_eq!(status, 0, "{options:?}: {out}{err}");

        let sb = json(&["dump", "--json", text(image)]);
        let fields = [
            ("block_size", "Filesystem blocksize"),
            ("blocks", "Filesystem blocks"),
            ("meta_blkaddr", "Filesystem inode metadata start block"),
            (
                "xattr_blkaddr",
                "Filesystem shared xattr metadata start block",
            ),
            ("root_nid", "Filesystem root nid"),
            ("sb_size", "Filesystem sb_size"),
            ("inos", "Filesystem inode count"),
            ("uuid", "Filesystem UUID"),
        ];
        for (field, name) in fields {
            let value = match &sb[field] {
                serde_json::Value::String(value) => value.clone(),
                value => value.to_string(),
            };
            assert_eq!(dumped(image, name), Some(value), "{options:?}: {name}");
        }
        let features: Vec<&str> = sb["features"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let theirs = dumped(image, "Filesystem features").unwrap_or_default();
        assert_eq!(features.join(" "), theirs, "{options:?}");
        let label = options.iter().find_map(|option| option.strip_prefix("-L"));
        assert_eq!(sb["volume_name"].as_str(), Some(label.unwrap_or("")));
        if let Some(theirs) = dumped(image, "Filesystem volume name") {
            assert_eq!(theirs, label.unwrap_or(""));
        }
        // What is printed for people says the same.
        let (status, out, _) = ours(&["dump", text(image)]);
        assert_eq!(status, 0);
        assert!(out.contains(sb["uuid"].as_str().unwrap()), "{out}");

        let report = &json(&["check", "--json", text(image)])[0];
        assert_eq!(report["clean"], true);
        // Nine sizes, 600 in one directory, sparse and two odd names; the hard link is none.
        assert_eq!(report["regular"], 9 + 600 + 3, "{options:?}");
        assert_eq!(report["directories"], 6);
        assert_eq!(report["symlinks"], 2);
    }
}

#[test]
fn compressed_extents() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    let words: Vec<String> = (0..200_000).map(|at| (at % 777).to_string()).collect();
    let words = words.join(" ");
    fs::write(source.join("words"), &words).unwrap();
    fs::write(source.join("more-words"), &words[1000..500_000]).unwrap();
    for options in [
        &["-zlz4"][..],
        &["-zlz4hc", "-C65536", "-Eztailpacking"],
        &["-zlz4", "-Ededupe"],
        &["-zlz4", "-Elegacy-compress"],
        &["-zlzma", "-C16384", "--max-extent-bytes=65536"],
        &["-zdeflate", "-b512", "-C4096"],
    ] {
        mkfs(&image, &source, options);
        for path in ["/words", "/more-words", "/file70000", "/deep/er/sparse"] {
            let theirs = dumped_extents(&image, path);
            let shown = json(&["dump", "--json", text(&image), "--path", path]);
            let ours: Vec<[u64; 4]> = shown["extents"]
                .as_array()
                .unwrap()
                .iter()
                .map(|extent| {
                    ["start", "length", "offset", "stored"]
                        .map(|field| extent[field].as_u64().unwrap_or_else(|| panic!("{extent}")))
                })
                .collect();
            assert!(!theirs.is_empty());
            assert_eq!(ours, theirs, "{options:?} {path}");
        }
    }
}

/// `fsck.erofs` 1.8 refuses this block size, although `mkfs.erofs` makes it and the kernel mounts it.
#[test]
fn blocks_of_1_kib() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    mkfs(&image, &source, &["-b1024"]);
    let (status, out, _) = ours(&["check", text(&image)]);
    assert_eq!(status, 0, "{out}");
    let sb = json(&["dump", "--json", text(&image)]);
    assert_eq!(sb["block_size"], 1024);
}

#[test]
fn image_at_an_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    mkfs(&image, &source, &[]);
    let mut shifted = vec![0xA5; 12_288];
    shifted.extend(fs::read(&image).unwrap());
    fs::write(&image, shifted).unwrap();
    let (status, out, _) = ours(&["check", text(&image)]);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("--offset"), "{out}");
    let (status, out, _) = ours(&["check", "--offset", "12288", text(&image)]);
    assert_eq!(status, 0, "{out}");
}

#[test]
fn extra_device() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    let blob = dir.path().join("blob");
    tree(&source);
    fs::write(&blob, b"").unwrap();
    let option = format!("--blobdev={}", text(&blob));
    mkfs(&image, &source, &["--chunksize=4096", &option]);
    assert!(fsck_clean(&image, &[&blob]));
    let (status, out, _) = ours(&["check", "--device", text(&blob), text(&image)]);
    assert_eq!(status, 0, "{out}");
    // Without it, the data is missing, and the message says what to give.
    let (status, out, _) = ours(&["check", text(&image)]);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("/file70000: nid "), "{out}");
    assert!(out.contains("give each with --device"), "{out}");
    let twice = ["check", "--device", "/dev/null", "--device", "/dev/null"];
    let (status, _, err) = ours(&[&twice[..], &[text(&image)]].concat());
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("1 extra devices"), "{err}");
}

#[test]
fn dumps_inodes_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    mkfs(&image, &source, &["-T1700000000", "--force-uid=7"]);
    let image = text(&image);
    let file = json(&["dump", "--json", image, "--path", "deep/hard"]);
    assert_eq!(file["size"], 100);
    assert_eq!(file["nlink"], 2);
    assert_eq!(file["uid"], 7);
    assert_eq!(file["mtime"], 1_700_000_000);
    assert_eq!(file["extents"][0]["kind"], "inline");
    let nid = file["nid"].to_string();
    assert_eq!(file, json(&["dump", "--json", image, "--nid", &nid]));
    let link = json(&["dump", "--json", image, "--path", "/link"]);
    assert_eq!(link["target"], "file1");
    let entries = json(&["dump", "--json", image, "--path", "/many", "--ls"]);
    assert_eq!(entries.as_array().unwrap().len(), 602);
    let (status, _, err) = ours(&["dump", image, "--path", "/deep/none"]);
    assert_eq!(status, 2);
    assert!(err.contains("/deep: no entry \"none\""), "{err}");
}

#[test]
fn wrong_usage() {
    let (status, _, err) = ours(&["check", "/nonexistent/image"]);
    assert_eq!(status, 2);
    assert!(err.contains("/nonexistent/image"), "{err}");
    assert_eq!(ours(&["check"]).0, 2);
    assert_eq!(ours(&["dump", "/dev/null", "--nid", "x"]).0, 2);
}
