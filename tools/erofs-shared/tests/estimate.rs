// SPDX-License-Identifier: GPL-2.0

//! What `estimate` states of container images, against what `bound` finds in the EROFS images that mkfs.erofs makes of their
//! layers, and of directories and images.

mod common;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use common::{json, mkfs, ours, text, tool, tree};
use sha2::{Digest, Sha256};

/// How a layer is stored.
#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Bytes that look like no others, some of them zeros.
fn data(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if out.len() / 8192 % 5 == 4 {
            out.extend([0; 8]);
        } else {
            out.extend(state.to_le_bytes());
        }
    }
    out.truncate(len);
    out
}

/// Files of layer `number` of an image; layers of two images have some files in common, and some blocks.
fn layer(dir: &Path, image: u64, number: u64) {
    fs::create_dir_all(dir.join("usr/lib")).unwrap();
    for file in 0..12 {
        // Of the first three layers, both images have the same files.
        let seed = if number < 3 || file % 3 == 0 {
            file + 100 * number
        } else {
            file + 100 * number + 5000 * image
        };
        let mut bytes = data(seed, (file as usize + 1) * 9001);
        if file % 4 == 1 {
            // The same file but for one block
            bytes[4096 + image as usize] ^= 0x55;
        }
        fs::write(dir.join(format!("usr/lib/{number}-{file}")), bytes).unwrap();
    }
    fs::write(dir.join("usr/empty"), b"").unwrap();
    fs::hard_link(
        dir.join(format!("usr/lib/{number}-3")),
        dir.join("usr/hard"),
    )
    .unwrap();
    std::os::unix::fs::symlink("hard", dir.join("usr/soft")).unwrap();
    let sparse = File::create(dir.join("usr/sparse")).unwrap();
    sparse.set_len(300_000).unwrap();
    sparse.write_all_at(b"in the middle", 150_000).unwrap();
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let run = Command::new("tar")
        .args(["--sort=name", "-C", text(dir), "-cf", "-", "."])
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    run.stdout
}

fn put(layout: &Path, bytes: &[u8]) -> (String, usize) {
    let hex = format!("{:x}", Sha256::digest(bytes));
    let dir = layout.join("blobs/sha256");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(&hex), bytes).unwrap();
    (format!("sha256:{hex}"), bytes.len())
}

/// An OCI layout of an image with these layers.
fn layout(dir: &Path, name: &str, layers: &[Vec<u8>], packing: Packing) {
    fs::create_dir_all(dir).unwrap();
    let mut described = Vec::new();
    for layer in layers {
        let (bytes, media) = match packing {
            Packing::Plain => (layer.clone(), "tar"),
            Packing::Gzip => {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(layer).unwrap();
                (gzip.finish().unwrap(), "tar+gzip")
            }
            Packing::Zstd => (zstd::encode_all(&layer[..], 1).unwrap(), "tar+zstd"),
        };
        let (digest, size) = put(dir, &bytes);
        described.push(serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.{media}"), "digest": digest, "size": size,
        }));
    }
    let (config, size) = put(dir, b"{\"architecture\":\"amd64\",\"os\":\"linux\"}");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
        "layers": described,
    });
    let (digest, size) = put(dir, manifest.to_string().as_bytes());
    // Below an index, beside one for another machine that is not there.
    let nested = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
          "platform": { "os": "linux", "architecture": "amd64" } },
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "0".repeat(64)), "size": 9,
          "platform": { "os": "linux", "architecture": "riscv64" } },
    ] });
    let (digest, size) = put(dir, nested.to_string().as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
          "annotations": { "org.opencontainers.image.ref.name": name } },
    ] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// Layers of an image as tar files, and as EROFS images as containerd makes them.
fn image(dir: &Path, number: u64, layers: u64) -> (Vec<Vec<u8>>, Vec<PathBuf>) {
    let (mut tars, mut images) = (Vec::new(), Vec::new());
    for at in 0..layers {
        let files = dir.join(format!("files-{number}-{at}"));
        layer(&files, number, at);
        let tar = tar_of(&files);
        let path = dir.join(format!("{number}-{at}.tar"));
        fs::write(&path, &tar).unwrap();
        let image = dir.join(format!("{number}-{at}.erofs"));
        let made = Command::new(tool("MKFS_EROFS", "mkfs.erofs"))
            .args(["--tar=f", "--aufs", "--quiet", "-Enoinline_data"])
            .args([&image, &path])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        tars.push(tar);
        images.push(image);
    }
    (tars, images)
}

/// Pages of `estimate` in the words of `bound`.
fn figures(need: &serde_json::Value) -> [u64; 5] {
    [
        "files",
        "no_sharing_bytes",
        "zero_bytes",
        "whole_files_bytes",
        "blocks_bytes",
    ]
    .map(|name| {
        let value = need[name].as_u64().unwrap_or_else(|| panic!("{need}"));
        if name == "files" {
            value
        } else {
            value / 4096
        }
    })
}

fn bound(images: &[&str]) -> [u64; 5] {
    let got = json(&[&["bound", "--json"], images].concat());
    ["files", "pages", "zero_pages", "whole_files", "blocks"]
        .map(|name| got["total"][name].as_u64().unwrap())
}

#[test]
fn ten_layers_as_bound_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (first, mut images) = image(dir, 1, 10);
    let (second, more) = image(dir, 2, 10);
    images.extend(more);
    let paths: Vec<&str> = images.iter().map(|path| text(path)).collect();
    let wanted = bound(&paths);
    assert!(wanted[4] < wanted[3] && wanted[3] < wanted[1], "{wanted:?}");
    // Images themselves
    let got = json(&[&["estimate", "--json"], &paths[..]].concat());
    assert_eq!(figures(&got["total"]), wanted);
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let (one, two) = (dir.join("one"), dir.join("two"));
        layout(&one, "one:1", &first, packing);
        layout(&two, "two:1", &second, packing);
        // The second as an archive
        let archive = dir.join("two.tar");
        fs::write(&archive, tar_of(&two)).unwrap();
        let got = json(&[
            "estimate",
            "--json",
            "--jobs",
            "3",
            text(&one),
            text(&archive),
        ]);
        assert_eq!(figures(&got["total"]), wanted);
        assert_eq!(got["images"][0]["layers"], 10);
        assert_eq!(
            got["images"][1]["image"],
            format!("{}:two:1", text(&archive))
        );
        let pair = &got["pairs"][0];
        let common = pair["blocks_bytes"].as_u64().unwrap() / 4096;
        let apart = bound(&paths[..10])[4] + bound(&paths[10..])[4];
        assert_eq!(apart - common, wanted[4], "what both have is there once");
        fs::remove_dir_all(&one).unwrap();
        fs::remove_dir_all(&two).unwrap();
    }
}

#[test]
fn a_layer_of_two_images_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (tars, _) = image(dir, 1, 3);
    let (one, two) = (dir.join("one"), dir.join("two"));
    layout(&one, "one", &tars, Packing::Plain);
    layout(&two, "two", &tars[..2], Packing::Plain);
    let got = json(&["estimate", "--json", text(&one), text(&two)]);
    assert_eq!(got["images"][1]["layers_bytes"], 0);
    assert_eq!(got["images"][1]["whole_files_bytes"], 0);
    assert_ne!(got["images"][1]["no_sharing_bytes"], 0);
    assert_eq!(
        got["total"]["layers_bytes"],
        got["images"][0]["no_sharing_bytes"]
    );
}

#[test]
fn directories_and_compressed_images() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    fs::write(source.join("large"), data(7, 3_000_000)).unwrap();
    for options in [
        &["-zlz4hc", "-Ededupe", "-Efragments", "-C65536"][..],
        &["--chunksize=4096"],
        &["-b512"],
        &[],
    ] {
        mkfs(&image, &source, options);
        let of = |path: &Path| figures(&json(&["estimate", "--json", text(path)])["total"]);
        assert_eq!(of(&image), of(&source), "{options:?}");
        assert_eq!(of(&image), bound(&[text(&image)]), "{options:?}");
    }
    // A second copy adds nothing.
    let got = json(&["estimate", "--json", text(&source), text(&image)]);
    assert_eq!(got["images"][1]["blocks_bytes"], 0);
    assert_eq!(got["images"][1]["whole_files_bytes"], 0);
}

#[test]
fn table_and_picture() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, svg) = (
        dir.path().join("a<b>"),
        dir.path().join("two"),
        dir.path().join("out.svg"),
    );
    tree(&one);
    tree(&two);
    let (status, out, err) = ours(&[
        "estimate",
        "--pairs",
        "--svg",
        text(&svg),
        text(&one),
        text(&two),
    ]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("in all") && out.contains("-100.0 %") && out.contains("have in common"),
        "{out}"
    );
    assert!(
        !out.contains('\x1b'),
        "no colours and no bar for a pipe: {out}"
    );
    // The same by its other name, and as PNG.
    let png = dir.path().join("out.png");
    let (status, _, err) = ours(&["estimate", "--plot", text(&png), text(&one)]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(fs::read(png).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    let (status, _, err) = ours(&["estimate", "--svg", "a.gif", text(&one)]);
    assert_eq!(status, 2);
    assert!(err.contains(".svg or .png is wanted"), "{err}");
    let svg = fs::read_to_string(svg).unwrap();
    assert!(
        svg.contains("each block once") && svg.contains("a&lt;b&gt;"),
        "{svg}"
    );
    let checked = Command::new("python3")
        .args([
            "-c",
            "import sys, xml.dom.minidom as m; m.parseString(sys.argv[1])",
            &svg,
        ])
        .status()
        .unwrap();
    assert!(checked.success(), "{svg}");
}

#[test]
fn what_cannot_be_estimated() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wrong = |args: &[&str], says: &str| {
        let (status, out, err) = ours(&[&["estimate"], args].concat());
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
    };
    wrong(&[], "required");
    wrong(&["/nonexistent/image"], "/nonexistent/image");
    wrong(&["--platform", "linux", "/"], "linux/amd64");
    let file = dir.join("file");
    fs::write(&file, b"nothing of use").unwrap();
    wrong(&[text(&file)], "neither an EROFS image");
    fs::write(&file, [&[0x1f, 0x8b][..], &[0; 600]].concat()).unwrap();
    wrong(&[text(&file)], "decompress it first");
    let (tars, _) = image(dir, 1, 1);
    let one = dir.join("one");
    layout(&one, "one", &tars, Packing::Gzip);
    wrong(
        &["--platform", "linux/s390x", text(&one)],
        "no image for linux/s390x",
    );
    // A layer that ends early, one that is missing, and digests that lead elsewhere
    let biggest = fs::read_dir(one.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let len = fs::metadata(&biggest).unwrap().len();
    File::options()
        .write(true)
        .open(&biggest)
        .unwrap()
        .set_len(len / 2)
        .unwrap();
    wrong(&[text(&one)], "sha256:");
    fs::remove_file(&biggest).unwrap();
    wrong(&[text(&one)], "blobs/sha256/");
    let index = "{\"manifests\":[{\"digest\":\"sha256:../../../../etc/passwd\"}]}";
    fs::write(one.join("index.json"), index).unwrap();
    wrong(&[text(&one)], "bad digest");
    // An index that points to itself has no end.
    let text_of = |digest: &str| format!("{{\"manifests\":[{{\"digest\":\"{digest}\"}}]}}");
    let name = "f".repeat(64);
    fs::write(
        one.join("blobs/sha256").join(&name),
        text_of(&format!("sha256:{name}")),
    )
    .unwrap();
    fs::write(one.join("index.json"), text_of(&format!("sha256:{name}"))).unwrap();
    wrong(&[text(&one)], "too deeply");
}

#[test]
fn what_is_damaged_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    fs::write(source.join("large"), data(9, 400_000)).unwrap();
    mkfs(&image, &source, &[]);
    let all = json(&["estimate", "--json", text(&image)]);
    let len = fs::metadata(&image).unwrap().len();
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(len - 16384)
        .unwrap();
    let (status, out, err) = ours(&["estimate", "--json", text(&image)]);
    assert_eq!(status, 1, "{err}");
    let got: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(!got["problems"].as_array().unwrap().is_empty());
    assert!(
        figures(&got["total"])[0] < figures(&all["total"])[0],
        "{out}"
    );
}

/// What `docker save` writes: a manifest, and files.
fn saved(dir: &Path, name: &str, layers: serde_json::Value, files: &[(&str, &[u8])]) -> PathBuf {
    let content = dir.join("saved");
    fs::create_dir_all(&content).unwrap();
    for (name, bytes) in files {
        fs::write(content.join(name), bytes).unwrap();
    }
    let manifest = serde_json::json!([{ "RepoTags": ["a:1"], "Layers": layers }]);
    fs::write(content.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join(name);
    fs::write(&archive, tar_of(&content)).unwrap();
    fs::remove_dir_all(&content).unwrap();
    archive
}

/// A layer with a file.
fn small(dir: &Path, seed: u64) -> Vec<u8> {
    let files = dir.join(format!("small-{seed}"));
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("file"), data(seed, 40_960)).unwrap();
    tar_of(&files)
}

#[test]
fn layers_with_the_same_name_in_two_archives() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [one, two] = [1, 2].map(|seed| {
        let tar = small(dir, seed);
        let layers = serde_json::json!(["layer.tar"]);
        saved(dir, &format!("{seed}.tar"), layers, &[("layer.tar", &tar)])
    });
    let got = json(&["estimate", "--json", text(&one), text(&two)]);
    assert_eq!(got["total"]["layers_bytes"], 2 * 40_960, "{got}");
    // An image without layers
    let none = saved(dir, "none.tar", serde_json::Value::Null, &[]);
    let got = json(&["estimate", "--json", text(&none)]);
    assert_eq!(got["images"][0]["layers"], 0, "{got}");
}

#[test]
fn layers_that_are_not_what_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wrong = |path: &Path, says: &str| {
        let (status, _, err) = ours(&["estimate", text(path)]);
        assert!(status == 2 && err.contains(says), "{status}: {err}");
    };
    let tar = small(dir, 1);
    let with = |bytes: &[u8]| {
        let layers = serde_json::json!(["layer.tar"]);
        saved(dir, "a.tar", layers, &[("layer.tar", bytes)])
    };
    // Between two entries, and nothing at all
    let boundary = 2 * 512 + 40_960;
    wrong(&with(&tar[..boundary]), "cut off");
    wrong(&with(b""), "cut off");
    wrong(&with(b"\xfd7zXZ\0and more"), "compressed by xz");
    let one = dir.join("one");
    let blob = |bytes: &[u8]| one.join("blobs").join(put(&one, bytes).0.replace(':', "/"));
    layout(&one, "one", std::slice::from_ref(&tar), Packing::Plain);
    let path = blob(&tar);
    fs::write(&path, &tar[..boundary + 512]).unwrap();
    wrong(&one, "another digest");
    fs::write(&path, small(dir, 2)).unwrap();
    wrong(&one, "another digest");
    fs::remove_file(&path).unwrap();
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    wrong(&one, "no regular file");
    wrong(&path, "neither a file");
    wrong(Path::new("/proc/self"), "is in proc");
    // One that its digest says is whole needs no blocks of zeros at its end.
    let short = dir.join("short");
    layout(&short, "short", &[tar[..boundary].to_vec()], Packing::Plain);
    let got = json(&["estimate", "--json", text(&short)]);
    assert_eq!(got["total"]["layers_bytes"], 40_960, "{got}");
}

#[test]
fn a_sparse_file_without_end_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    fs::create_dir_all(&files).unwrap();
    let sparse = File::create(files.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    let made = Command::new("tar")
        .args(["--format=gnu", "--sparse", "-C", text(&files), "-cf", "-"])
        .arg("sparse")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let layers = serde_json::json!(["layer.tar"]);
    let archive = saved(dir.path(), "a.tar", layers, &[("layer.tar", &made.stdout)]);
    let (status, out, err) = ours(&["estimate", "--json", text(&archive)]);
    assert_eq!(status, 1, "{out}");
    assert!(err.contains("too large to be read"), "{err}");
}

#[test]
fn names_do_not_reach_the_terminal_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let layers = serde_json::json!(["\u{1b}[2J"]);
    let (_, _, err) = ours(&["estimate", text(&saved(dir, "a.tar", layers, &[]))]);
    assert!(err.contains("\\u{1b}[2J") && !err.contains('\x1b'), "{err}");
    let names = ["a\x1b[2J", "b\x1b[2J"].map(|name| dir.join(name));
    for name in &names {
        fs::create_dir(name).unwrap();
        fs::write(name.join("file"), data(1, 5000)).unwrap();
    }
    let (_, out, _) = ours(&["estimate", "--pairs", text(&names[0]), text(&names[1])]);
    assert!(out.contains("have in common"), "{out}");
    assert!(!out.contains('\x1b'), "{out}");
}
