// SPDX-License-Identifier: GPL-2.0

//! Compressed images that both releases of mkfs.erofs made, read with the format core and the host's
//! decompressors, and compared byte for byte with what fsck.erofs extracts and with the tree itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use erofs_shared_format::{
    compression::Algorithm,
    dirent::DirBlock,
    inode::{FileType, Inode},
    source::read_exact,
    superblock::Superblock,
    zmap::{Coding, Data, Header},
    HostHash, Image, Volume,
};
use tempfile::TempDir;

/// Programs of one release of erofs-utils.
#[derive(Clone, Debug)]
struct Utils {
    mkfs: PathBuf,
    fsck: PathBuf,
}

fn utils(variables: [&str; 2], places: &[&str]) -> Utils {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build");
    let find = |variable: &str, name: &str| -> PathBuf {
        if let Some(path) = std::env::var_os(variable) {
            return path.into();
        }
        let found = places.iter().map(|place| build.join(place).join(name));
        found
            .chain([PathBuf::from(name)])
            .find(|path| {
                Command::new(path)
                    .arg("--version")
                    .output()
                    .is_ok_and(|out| out.status.success())
            })
            .unwrap_or_else(|| panic!("no {name}: run `make setup`, or set {variable}"))
    };
    Utils {
        mkfs: find(variables[0], "mkfs.erofs"),
        fsck: find(variables[1], "fsck.erofs"),
    }
}

/// erofs-utils of the distribution.
fn current() -> Utils {
    utils(["MKFS_EROFS", "FSCK_EROFS"], &["bin"])
}

/// The next release, which knows more features.
fn next() -> Utils {
    utils(
        ["MKFS_EROFS_NEXT", "FSCK_EROFS_NEXT"],
        &["erofs-utils-next/bin"],
    )
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// Bytes that compress as texts and programs do.
fn text(len: usize, seed: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut number = seed;
    while out.len() < len {
        number = number.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let word = number >> 16;
        match word % 7 {
            0 => out.extend(format!("line {word} of {seed}\n").bytes()),
            1 => out.extend(noise((word % 40) as usize, number)),
            2 => out.extend(std::iter::repeat_n(b' ', (word % 100) as usize)),
            _ => out.extend(format!("the value {} goes on; ", word % 300).bytes()),
        }
    }
    out.truncate(len);
    out
}

/// A tree with what compressors treat differently: small files, tails, noise, zeros, repeats, twins.
fn tree() -> TempDir {
    let top = tempfile::tempdir().expect("a directory");
    let at = |name: &str| top.path().join(name);
    let put = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).expect("a file");
    for (number, len) in [
        0usize, 1, 7, 100, 1000, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 12_289, 40_000, 65_536,
        200_001,
    ]
    .into_iter()
    .enumerate()
    {
        put(&format!("text-{len}"), &text(len, number as u32));
        put(&format!("noise-{len}"), &noise(len, number as u32 + 77));
        put(&format!("zeros-{len}"), &vec![0; len]);
    }
    put("large", &text(3_000_000, 4242));
    put("large-zeros", &vec![0; 14_000_000]);
    let mut mixed = Vec::new();
    for number in 0..40u32 {
        mixed.extend(text(5000 + 137 * number as usize, number));
        mixed.extend(noise(3000 + 391 * number as usize, number + 5));
        mixed.extend(vec![0; 700 * number as usize]);
    }
    put("mixed", &mixed);
    // What deduplication finds: the same bytes at other places.
    let base = text(400_000, 99);
    put("twin-1", &base);
    put("twin-2", &base);
    let mut shifted = text(3333, 7);
    shifted.extend(&base[..300_000]);
    shifted.extend(text(11_111, 8));
    shifted.extend(&base[50_000..250_000]);
    put("twin-3", &shifted);
    let blocks = noise(64 * 4096, 31);
    put("blocks-1", &blocks);
    let mut others = blocks[20 * 4096..].to_vec();
    others.extend(&blocks[..33 * 4096]);
    put("blocks-2", &others);
    fs::create_dir_all(at("deep/er")).expect("a directory");
    for number in 0..600 {
        put(
            &format!("deep/er/small-{number:04}"),
            &text(number * 3, number as u32),
        );
    }
    put("hint.lzma", &text(100_000, 5));
    put("hint.raw", &text(100_000, 6));
    symlink("text-100", at("link")).expect("a symlink");
    symlink("x/".repeat(2000), at("long-link")).expect("a symlink");
    top
}

/// Paths and contents: of files their bytes, of symlinks their targets, of directories nothing.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(top: &Path) -> Contents {
    fn add(top: &Path, path: &Path, all: &mut Contents) {
        for entry in fs::read_dir(path).expect("a directory") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("an entry");
            let bytes = if meta.is_dir() {
                add(top, &path, all);
                Vec::new()
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).expect("a symlink");
                target.as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).expect("a file")
            };
            let name = path.strip_prefix(top).expect("a path in the tree");
            all.insert(name.as_os_str().as_bytes().to_vec(), bytes);
        }
    }
    let mut all = Contents::new();
    add(top, top, &mut all);
    all
}

/// What an image is made of, to be sure that the options did what they are for.
#[derive(Debug, Default)]
struct Seen {
    layouts: BTreeSet<&'static str>,
    algorithms: BTreeSet<&'static str>,
    inline: u32,
    fragments: u32,
    partial: u32,
    holes: u32,
    shifted: u32,
    interlaced: u32,
    pclusters: u32,
    /// Largest pcluster and largest extent in one.
    plen: u32,
    llen: u64,
    compressed_dirs: u32,
    in_metabox: u32,
    compressed_metabox: bool,
}

struct Made {
    volume: Volume,
    seen: Seen,
}

impl Made {
    fn open(path: &Path) -> Self {
        let file = File::open(path).expect("the image");
        let len = file.metadata().expect("its size").len();
        let primary = Image::new(file, 0, len);
        let head = primary.head().expect("its first block");
        let sb = Superblock::parse::<HostHash>(&head).expect("a superblock");
        let mut findings = Vec::new();
        let volume = Volume::new(sb, primary, Vec::new(), Vec::new(), &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        let mut seen = Seen::default();
        if let Some(inode) = volume.metabox() {
            seen.compressed_metabox = inode.is_compressed();
        }
        Self { volume, seen }
    }

    /// The data of a file.
    fn data(&mut self, inode: &Inode, what: &str) -> Vec<u8> {
        let mut out = vec![0xEE; inode.size as usize];
        read_exact(&self.volume.data(inode), 0, &mut out)
            .unwrap_or_else(|err| panic!("{what}: {err}"));
        self.seen.in_metabox += (inode.nid >> 63) as u32;
        if inode.is_compressed() && inode.size != 0 {
            self.extents(inode, what);
        }
        out
    }

    /// Looks at all extents: each byte of the file is in one, whichever of its bytes is asked for.
    fn extents(&mut self, inode: &Inode, what: &str) {
        let volume = &self.volume;
        let header: Header = volume
            .header(inode)
            .unwrap_or_else(|err| panic!("{what}: {err}"));
        self.seen.layouts.insert(header.layout_name());
        let mut la = 0;
        let mut before = None;
        while la < inode.size {
            let extent = volume
                .zextent(inode, &header, la)
                .unwrap_or_else(|err| panic!("{what}: {la:#x}: {err}"));
            assert_eq!(extent.la, la, "{what}");
            assert!(extent.llen > 0 && extent.end() <= inode.size, "{what}");
            let last = extent.end() - 1;
            for other in [la + extent.llen / 3, la + extent.llen / 2, last] {
                let again = volume.zextent(inode, &header, other).expect("an extent");
                assert_eq!(again, extent, "{what}: {other:#x}");
            }
            if let Some(before) = before {
                let again = volume.zextent_next(inode, &header, &before);
                assert_eq!(again.expect("an extent"), extent, "{what}");
            }
            match extent.data {
                Data::Hole => self.seen.holes += 1,
                Data::Fragment { .. } => self.seen.fragments += 1,
                Data::Pcluster(data) => {
                    self.seen.pclusters += 1;
                    self.seen.inline += u32::from(data.inline);
                    self.seen.partial += u32::from(data.partial);
                    self.seen.plen = self.seen.plen.max(data.plen);
                    match data.coding {
                        Coding::Shifted => self.seen.shifted += 1,
                        Coding::Interlaced => self.seen.interlaced += 1,
                        Coding::Compressed(algorithm) => {
                            self.seen.llen = self.seen.llen.max(extent.llen);
                            self.seen.algorithms.insert(algorithm.name());
                        }
                    }
                }
            }
            la = extent.end();
            before = Some(extent);
        }
    }

    fn walk(&mut self, nid: u64, path: &[u8], all: &mut Contents) {
        let what = String::from_utf8_lossy(path).into_owned();
        let inode = self
            .volume
            .inode(nid)
            .unwrap_or_else(|err| panic!("{what}: {err}"));
        let data = self.data(&inode, &what);
        if inode.file_type != FileType::Directory {
            all.insert(path.to_vec(), data);
            return;
        }
        self.seen.compressed_dirs += u32::from(inode.is_compressed());
        if !path.is_empty() {
            all.insert(path.to_vec(), Vec::new());
        }
        for bytes in data.chunks(self.volume.sb.block_size() as usize) {
            let block = DirBlock::new(bytes, 0).expect("a directory block");
            for index in 0..block.len() {
                let entry = block.get(index).expect("an entry");
                if entry.name != b"." && entry.name != b".." {
                    let mut child = path.to_vec();
                    if !child.is_empty() {
                        child.push(b'/');
                    }
                    child.extend(entry.name);
                    self.walk(entry.nid, &child, all);
                }
            }
        }
    }
}

fn run(command: &mut Command) {
    let out = command.output().unwrap_or_else(|err| panic!("{err}"));
    assert!(
        out.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

fn differences(left: &Contents, right: &Contents) -> Vec<String> {
    let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| {
            let (left, right) = (left.get(name), right.get(name));
            let at = match (left, right) {
                (Some(left), Some(right)) => left.iter().zip(right).position(|(a, b)| a != b),
                _ => None,
            };
            let lens = (left.map(Vec::len), right.map(Vec::len));
            format!("{}: {lens:?}, {at:?}", String::from_utf8_lossy(name))
        })
        .collect()
}

/// Makes an image, and compares all that is in it. fsck.erofs 1.9 extracts the wrong bytes for files whose
/// inodes are in a compressed metabox, or stops, so there the tree alone tells what is right.
fn check_tree(utils: &Utils, tree: &Path, options: &[&str]) -> Seen {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    run(Command::new(&utils.mkfs)
        .args(options)
        .arg(&image)
        .arg(tree));
    let mut made = Made::open(&image);
    let mut ours = Contents::new();
    let root = made.volume.sb.root_nid;
    made.walk(root, b"", &mut ours);
    let wrong = differences(&ours, &contents(tree));
    assert!(wrong.is_empty(), "{options:?}: the tree: {wrong:#?}");
    if !made.seen.compressed_metabox {
        let extracted = dir.path().join("extracted");
        run(Command::new(&utils.fsck)
            .arg(format!("--extract={}", extracted.display()))
            .arg(&image));
        let wrong = differences(&ours, &contents(&extracted));
        assert!(wrong.is_empty(), "{options:?}: fsck.erofs: {wrong:#?}");
    }
    made.seen
}

/// Checks images of one release.
fn check_one(utils: &Utils, options: &[&str], expected: impl Fn(&Seen) -> bool) {
    let tree = tree();
    let seen = check_tree(utils, tree.path(), options);
    assert!(expected(&seen), "{options:?}: {seen:#?}");
}

/// Checks images of both releases.
fn check_both(options: &[&str], expected: impl Fn(&Seen) -> bool) {
    for utils in [current(), next()] {
        check_one(&utils, options, &expected);
    }
}

fn only(seen: &Seen, algorithm: Algorithm) -> bool {
    seen.algorithms.iter().eq([&algorithm.name()])
}

#[test]
fn lz4() {
    check_both(&["-zlz4"], |seen| {
        only(seen, Algorithm::Lz4)
            && seen.layouts.contains("compact indexes (2 bytes)")
            && seen.plen == 4096
            && seen.shifted > 0
    });
    check_both(&["-zlz4hc,level=12", "-C65536"], |seen| seen.plen == 65536);
    check_both(&["-zlz4", "-C1048576"], |seen| seen.plen > 500_000);
}

#[test]
fn lzma() {
    check_both(&["-zlzma,level=1"], |seen| only(seen, Algorithm::Lzma));
    check_one(&next(), &["-zlzma,dictsize=65536", "-C65536"], |seen| {
        seen.plen == 65536
    });
    // Extents that end where the pcluster's data goes on.
    check_both(
        &["-zlzma,level=1", "-Ededupe,fragments", "-C65536"],
        |seen| seen.partial > 0 && seen.fragments > 0,
    );
}

#[test]
fn deflate() {
    check_both(&["-zdeflate"], |seen| only(seen, Algorithm::Deflate));
    check_both(&["-zdeflate,level=9", "-C65536", "-Ededupe"], |seen| {
        seen.partial > 0 && seen.plen == 65536
    });
    check_both(&["-zlibdeflate", "-C16384"], |seen| {
        only(seen, Algorithm::Deflate)
    });
}

#[test]
fn zstd() {
    check_both(&["-zzstd,level=1"], |seen| only(seen, Algorithm::Zstd));
    check_both(&["-zzstd,level=2", "-C131072", "-Ededupe"], |seen| {
        seen.partial > 0 && seen.plen > 65536
    });
    let large = ["-zzstd,level=1", "-C1048576"];
    check_one(&current(), &large, |seen| seen.plen > 500_000);
}

#[test]
fn inline_tails() {
    check_both(&["-zlz4", "-Eztailpacking"], |seen| seen.inline > 600);
    check_both(&["-zdeflate", "-Eztailpacking,fragments"], |seen| {
        seen.fragments > 0
    });
    check_both(&["-zlz4", "-b2048", "-C16384", "-Eztailpacking"], |seen| {
        seen.inline > 500
    });
    check_both(&["-zlz4", "-Eztailpacking,dedupe"], |seen| {
        seen.inline > 500 && seen.partial > 0
    });
}

#[test]
fn fragments() {
    check_both(&["-zlz4", "-Efragments"], |seen| {
        seen.fragments > 600
            && seen.interlaced > 0
            && seen.layouts.contains("fragment")
            && seen.layouts.contains("full indexes")
    });
    check_both(&["-zlz4", "-Efragments", "-C65536"], |seen| {
        seen.fragments > 600
    });
    check_both(&["-zlz4", "-Eall-fragments"], |seen| seen.fragments > 600);
    check_both(&["-zzstd", "-Eall-fragments,dedupe", "-C65536"], |seen| {
        seen.fragments > 600
    });
}

#[test]
fn deduplicated() {
    check_both(&["-zlz4", "-Ededupe"], |seen| {
        seen.partial > 0 && seen.layouts.contains("full indexes")
    });
    check_both(&["-zlz4hc", "-Ededupe,all-fragments", "-C16384"], |seen| {
        seen.fragments > 600
    });
}

#[test]
fn old_ways() {
    // Full indexes, and zeros behind the data instead of before it.
    check_both(&["-zlz4", "-Elegacy-compress"], |seen| {
        seen.layouts.iter().eq([&"full indexes"])
    });
    check_both(&["-zlz4hc", "-Elegacy-compress", "-C16384"], |seen| {
        seen.layouts.iter().eq([&"full indexes"]) && seen.plen == 16384
    });
}

#[test]
fn extent_sizes() {
    check_both(&["-zlz4", "--max-extent-bytes=16384"], |seen| {
        seen.llen == 16384
    });
    check_both(
        &["-zlzma,level=1", "-C65536", "--max-extent-bytes=65536"],
        |seen| seen.llen == 65536,
    );
}

#[test]
fn small_blocks() {
    check_one(&next(), &["-zlz4", "-b512"], |seen| seen.plen == 512);
    check_one(&next(), &["-zlz4", "-b1024", "-Efragments"], |seen| {
        seen.plen == 1024
    });
    check_both(&["-zlz4", "-b512", "-C4096"], |seen| seen.plen == 4096);
}

#[test]
fn hints() {
    let hints = tempfile::NamedTempFile::new().expect("a file");
    fs::write(
        hints.path(),
        "65536 1 hint.lzma$\n4096 2 text\n32768 0 deep/\n0 raw$\n",
    )
    .expect("hints");
    let option = format!("--compress-hints={}", hints.path().display());
    // mkfs.erofs 1.9.4 crashes on any such file.
    let options = ["-zlz4:lzma,level=3:deflate", "-C65536", &option];
    check_one(&current(), &options, |seen| {
        seen.algorithms.iter().eq([&"deflate", &"lz4", &"lzma"])
    });
}

#[test]
fn encoded_extents() {
    let check = |options: &[&str], expected: &dyn Fn(&Seen) -> bool| {
        check_one(&next(), options, expected);
    };
    let has = |seen: &Seen, size: u32| {
        let name = format!("extents ({size} bytes)");
        seen.layouts.contains(name.as_str())
    };
    check(&["-zlz4", "-E48bit"], &|seen| has(seen, 4) && has(seen, 16));
    check(&["-zlz4", "-E48bit", "-C65536"], &|seen| has(seen, 16));
    check(&["-zzstd", "-E48bit"], &|seen| has(seen, 4));
    check(&["-zlz4", "-E48bit,dedupe"], &|seen| {
        has(seen, 8) && seen.partial > 0
    });
    check(&["-zlzma,level=1", "-E48bit,all-fragments"], &|seen| {
        has(seen, 16) && seen.fragments > 600
    });
    check(&["-zlz4", "-E48bit,fragments"], &|seen| {
        seen.fragments > 600
    });
    check(&["-zlz4", "-E48bit,ztailpacking"], &|seen| {
        seen.inline > 600
    });
}

#[test]
fn directories() {
    for options in [&["-zlz4", "--zD"][..], &["-zzstd", "-C65536", "--zD"]] {
        check_one(&next(), options, |seen| seen.compressed_dirs > 0);
    }
}

#[test]
fn compressed_metadata() {
    for options in [
        &["-zlz4", "-m4096"][..],
        &["-zzstd", "-m4096"],
        &["-zlz4:zstd", "-m4096:1"],
        &["-zlz4", "-m4096", "--MZ=id", "--zD", "-Efragments"],
        &[
            "-zlz4",
            "-m65536",
            "--zD",
            "-Eall-fragments,dedupe",
            "-C65536",
        ],
        &["-zlz4", "-m4096", "-Eztailpacking"],
    ] {
        check_one(&next(), options, |seen| {
            seen.compressed_metabox && seen.in_metabox > 600
        });
    }
    for options in [&["-zlz4", "--MZ"][..], &["-zlz4", "--MZ=i"]] {
        check_one(&next(), options, |seen| {
            !seen.compressed_metabox && seen.in_metabox == 0
        });
    }
}

/// Reads all that an image leads to, with whatever errors; gives how many there were.
fn read_all(bytes: &[u8]) -> u32 {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("the image");
    let image = Image::new(file, 0, bytes.len() as u64);
    let Ok(sb) = Superblock::parse::<HostHash>(&bytes[..4096]) else {
        return 1;
    };
    let mut findings = Vec::new();
    let volume = Volume::new(sb, image, Vec::new(), Vec::new(), &mut findings);
    let mut errors = findings.len() as u32;
    let mut nids = vec![volume.sb.root_nid];
    let mut seen = BTreeSet::new();
    while let Some(nid) = nids.pop() {
        if !seen.insert(nid) {
            continue;
        }
        let Ok(inode) = volume.inode(nid) else {
            errors += 1;
            continue;
        };
        if !matches!(inode.file_type, FileType::Directory | FileType::Regular) {
            continue;
        }
        // What claims to be larger is not worth the time.
        let mut data = vec![0; inode.size.min(1 << 18) as usize];
        let source = volume.data(&inode);
        // As a reader does who goes on after an error.
        for (number, part) in data.chunks_mut(4096).enumerate() {
            errors += u32::from(read_exact(&source, number as u64 * 4096, part).is_err());
        }
        if inode.file_type == FileType::Directory {
            for bytes in data.chunks(volume.sb.block_size() as usize) {
                let Ok(block) = DirBlock::new(bytes, 0) else {
                    continue;
                };
                let entries = (0..block.len()).filter_map(|index| block.get(index).ok());
                nids.extend(entries.map(|entry| entry.nid));
            }
        }
    }
    errors
}

/// Changes bytes anywhere but in the superblock; whatever is read then, nothing may panic or go on forever.
#[test]
fn damaged_images() {
    let tree = tempfile::tempdir().expect("a directory");
    let words = text(60_000, 1);
    let more = [&words[10_000..30_000], &noise(9000, 2), &words[..11_111]].concat();
    for (name, bytes) in [
        ("words", &words[..]),
        ("more", &more),
        ("short", &words[..500]),
        ("zeros", &[0; 100_000]),
    ] {
        fs::write(tree.path().join(name), bytes).expect("a file");
    }
    let rounds =
        std::env::var("DAMAGED_IMAGES").map_or(150, |value| value.parse().expect("a number"));
    let mut errors = 0;
    for (number, (utils, options)) in [
        (current(), &["-zlz4", "-Eztailpacking"][..]),
        (current(), &["-zlz4hc", "-C16384", "-Efragments,dedupe"]),
        (current(), &["-zlzma", "-Elegacy-compress", "-C8192"]),
        (current(), &["-zdeflate", "-Eall-fragments"]),
        (next(), &["-zzstd", "-E48bit", "-C16384"]),
        (next(), &["-zlz4", "-m4096", "--zD", "-Efragments"]),
        (next(), &["-zlz4", "-b512", "-E48bit"]),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        run(Command::new(&utils.mkfs)
            .args(options)
            .arg(&path)
            .arg(tree.path()));
        let good = fs::read(&path).expect("the image");
        assert_eq!(read_all(&good), 0, "{options:?}");
        // Where bytes are that mean something; half of the changes are in metadata, which is dense.
        let used: Vec<usize> = (1200..good.len()).filter(|at| good[*at] != 0).collect();
        let noise = noise(rounds * 16, number as u32 + 3);
        for change in noise.chunks_exact(16) {
            let mut bytes = good.clone();
            for part in change.chunks_exact(4).take(1 + usize::from(change[3] & 3)) {
                let place = usize::from(u16::from_le_bytes([part[0], part[1]]));
                let at = used[place * 7919 % used.len()] + usize::from(part[3] >> 6);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if part[3] & 1 == 0 {
                        part[2]
                    } else {
                        *byte ^ (1 << (part[2] & 7))
                    };
                }
            }
            errors += u32::from(read_all(&bytes) != 0);
        }
    }
    assert!(errors > 100, "{errors} noticed");
}
