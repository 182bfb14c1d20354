// SPDX-License-Identifier: GPL-2.0

//! Images that mkfs.erofs made, walked with the format core and compared with the tree they were made of.
//!
//! `MKFS_EROFS` names the program, else the one in PATH is taken, else those that `make setup` puts in build/.

mod common;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{symlink, FileExt, MetadataExt, PermissionsExt},
    },
    path::Path,
    process::Command,
};

use erofs_shared_format::{
    dirent::{lookup, DirBlock},
    error::Kind,
    inode::{FileType, Inode, Layout, Stat},
    map::{map_blocks, Extent},
    source::read_exact,
    superblock::{Area, Superblock},
    xattr::{getxattr, index, listxattr, LongPrefix, XattrSources},
    Bytes, HostHash,
};
use tempfile::TempDir;

/// The program, or a word on how to get it.
fn mkfs() -> OsString {
    if let Some(name) = std::env::var_os("MKFS_EROFS") {
        return name;
    }
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build");
    for name in ["mkfs.erofs".into(), build.join("bin/mkfs.erofs")] {
        if Command::new(&name)
            .arg("--version")
            .output()
            .is_ok_and(|out| out.status.success())
        {
            return name.into_os_string();
        }
    }
    panic!("no mkfs.erofs: run `make setup`, install erofs-utils, or set MKFS_EROFS");
}

/// mkfs.erofs of the next release, which knows more features.
fn mkfs_next() -> OsString {
    if let Some(name) = std::env::var_os("MKFS_EROFS_NEXT") {
        return name;
    }
    let name =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/erofs-utils-next/bin/mkfs.erofs");
    assert!(
        name.exists(),
        "no mkfs.erofs 1.9: run `make setup`, or set MKFS_EROFS_NEXT"
    );
    name.into_os_string()
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|err| panic!("setxattr {name} on {}: {err}", path.display()));
}

/// Bytes that differ from block to block.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// A tree with something of everything.
fn tree() -> TempDir {
    let top = tempfile::tempdir().expect("a directory");
    let at = |name: &str| top.path().join(name);
    for (number, len) in [
        0usize,
        1,
        100,
        511,
        512,
        513,
        4000,
        4095,
        4096,
        4097,
        70_000,
        1 << 20,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(at(&format!("file-{len}")), bytes(len, number as u32 + 1)).expect("a file");
    }
    let sparse = File::create(at("sparse")).expect("a file");
    sparse.set_len(300_001).expect("a size");
    for (number, block) in [3u64, 4, 5, 20, 40, 41].into_iter().enumerate() {
        sparse
            .write_all_at(&bytes(4096, 99 + number as u32), block * 4096)
            .expect("a block");
    }
    fs::create_dir_all(at("deep/er/still")).expect("a directory");
    fs::create_dir(at("empty")).expect("a directory");
    fs::create_dir(at("many")).expect("a directory");
    for number in 0..700 {
        let name = format!("many/{}-{number}", "n".repeat(number % 90));
        fs::write(at(&name), name.as_bytes()).expect("a file");
    }
    let odd = OsString::from_vec(b"many/\xFF\x01\n odd".to_vec());
    fs::write(top.path().join(odd), b"odd").expect("a file");
    fs::write(at(&format!("many/{}", "x".repeat(255))), b"long").expect("a file");
    fs::hard_link(at("file-4097"), at("deep/link")).expect("a link");
    symlink("file-100", at("symlink")).expect("a symlink");
    symlink("t".repeat(3000), at("long-symlink")).expect("a symlink");
    fs::set_permissions(at("file-100"), Permissions::from_mode(0o4751)).expect("a mode");
    fs::set_permissions(at("empty"), Permissions::from_mode(0o1777)).expect("a mode");
    for name in ["file-0", "file-1", "file-4096", "many", "deep/er"] {
        set(
            &at(name),
            "user.same",
            b"on several files, so it may be shared",
        );
        set(&at(name), "user.overlay.opaque", b"y");
        set(
            &at(name),
            &format!("user.own.{}", name.replace('/', "-")),
            name.as_bytes(),
        );
    }
    set(&at("file-70000"), "user.empty", b"");
    set(&at("file-70000"), "user.large", &bytes(2000, 5));
    for number in 0..30 {
        set(
            &at("deep"),
            &format!("user.number-{number}"),
            &bytes(number, 7),
        );
    }
    top
}

struct Image {
    bytes: Vec<u8>,
    sb: Superblock,
    prefixes: Vec<LongPrefix>,
}

impl Image {
    fn make(program: &OsString, tree: &Path, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let name = dir.path().join("image");
        let out = Command::new(program)
            .args(options)
            .arg(&name)
            .arg(tree)
            .output()
            .unwrap_or_else(|err| panic!("{program:?}: {err}; run `make setup`"));
        assert!(
            out.status.success(),
            "{program:?} {options:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Self::new(fs::read(&name).expect("the image"))
    }

    fn new(bytes: Vec<u8>) -> Self {
        let sb =
            Superblock::parse::<HostHash>(&bytes[..bytes.len().min(4096)]).expect("a superblock");
        let mut image = Self {
            bytes,
            sb,
            prefixes: Vec::new(),
        };
        let mut pos = u64::from(image.sb.xattr_prefix_start) * 4;
        if image.sb.xattr_prefix_count > 0 {
            // In the packed inode, or where that says nothing, in the image.
            let area = if !image.sb.plain_xattr_pfx() && image.sb.packed_nid != 0 {
                image.data(&image.inode(image.sb.packed_nid))
            } else {
                image.bytes.clone()
            };
            for _ in 0..image.sb.xattr_prefix_count {
                let prefix = LongPrefix::read(&Bytes(&area), &mut pos).expect("a prefix");
                image.prefixes.push(prefix);
            }
        }
        image
    }

    fn inode(&self, nid: u64) -> Inode {
        let inode = Inode::read(&self.sb, nid, &Bytes(&self.bytes)).expect("an inode");
        assert_eq!(inode.area, Area::Image);
        inode
    }

    fn stat(&self, nid: u64) -> Stat {
        let found = common::inode_and_stat(&self.sb, nid, &self.bytes);
        found.expect("an inode").1
    }

    /// All data of an inode, extent by extent.
    fn data(&self, inode: &Inode) -> Vec<u8> {
        let mut out = vec![0xEE; inode.size as usize];
        let mut at = 0u64;
        while at < inode.size {
            let (start, len, pa) =
                match map_blocks(&self.sb, inode, &Bytes(&self.bytes), at).expect("an extent") {
                    Extent::Hole { la, len } => (la, len, None),
                    Extent::Inline { la, len, pa } => (la, len, Some(pa)),
                    Extent::Mapped {
                        la,
                        len,
                        device,
                        pa,
                    } => {
                        assert_eq!(device, 0);
                        (la, len, Some(pa))
                    }
                };
            assert!(
                start <= at && at < start + len,
                "byte {at}: {len} bytes at {start}"
            );
            let end = (start + len).min(inode.size);
            let part = &mut out[at as usize..end as usize];
            match pa {
                None => part.fill(0),
                Some(pa) => read_exact(&Bytes(&self.bytes), pa + (at - start), part).expect("data"),
            }
            at = end;
        }
        out
    }

    /// Names, nids and types of a directory without "." and "..".
    fn entries(&self, inode: &Inode) -> BTreeMap<Vec<u8>, (u64, u8)> {
        let data = self.data(inode);
        let block_size = self.sb.block_size();
        let mut out = BTreeMap::new();
        let mut before = Vec::new();
        for (number, bytes) in data.chunks(block_size as usize).enumerate() {
            let block =
                DirBlock::new(bytes, number as u64 * u64::from(block_size)).expect("a block");
            for index in 0..block.len() {
                let entry = block.get(index).expect("an entry");
                assert!(before < entry.name.to_vec(), "sorted");
                before = entry.name.to_vec();
                let value = (entry.nid, entry.file_type);
                let found = lookup(inode.size, block_size, &Bytes(&data), entry.name);
                assert_eq!(found, Ok(Some(value)), "{:?}", entry.name);
                out.insert(entry.name.to_vec(), value);
            }
        }
        for absent in [&b"no such name"[..], b"zzz", b"\x01", b"n-7000", b"many"] {
            let found = lookup(inode.size, block_size, &Bytes(&data), absent);
            assert_eq!(found, Ok(out.get(absent).copied()));
        }
        let dot = out.remove(&b"."[..]);
        assert_eq!(dot.is_none(), inode.dot_omitted);
        out.remove(&b".."[..]).expect("a parent");
        out
    }

    /// The `user.` attributes of an inode.
    fn xattrs(&self, inode: &Inode) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let image = Bytes(&self.bytes);
        let sources = XattrSources {
            inode: &image,
            shared: &image,
        };
        let prefix_of = |index| (index == index::USER).then_some(&b"user."[..]);
        let list = |out: Option<&mut [u8]>| {
            listxattr(&self.sb, inode, &sources, &self.prefixes, prefix_of, out).expect("a list")
        };
        let mut names = vec![0; list(None)];
        list(Some(&mut names));
        let get = |name: &[u8], out: Option<&mut [u8]>| {
            getxattr::<_, HostHash>(
                &self.sb,
                inode,
                &sources,
                &self.prefixes,
                index::USER,
                name,
                out,
            )
        };
        let absent = get(b"absent", None).expect_err("no such attribute");
        assert_eq!(absent.kind, Kind::NoData);
        let mut out = BTreeMap::new();
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let short = &name[b"user.".len()..];
            let mut value = vec![0; get(short, None).expect("a size")];
            get(short, Some(&mut value)).expect("a value");
            out.insert(name.to_vec(), value);
        }
        out
    }
}

fn xattrs_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 65536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).expect("llistxattr");
    let mut out = BTreeMap::new();
    for name in names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user."))
    {
        let mut value = vec![0u8; 65536];
        let text = std::str::from_utf8(name).expect("names of this test");
        let len = rustix::fs::lgetxattr(path, text, &mut value[..]).expect("lgetxattr");
        out.insert(name.to_vec(), value[..len].to_vec());
    }
    out
}

/// What of the tree the image must have.
struct Expect {
    times: bool,
    nanoseconds: bool,
    xattrs: bool,
}

/// Compares an inode and all below it with the tree; gives the number of entries.
fn compare(image: &Image, nid: u64, path: &Path, expect: &Expect) -> usize {
    let (inode, stat) = (image.inode(nid), image.stat(nid));
    let meta = fs::symlink_metadata(path).expect("an entry of the tree");
    let what = path.display();
    assert_eq!(u32::from(stat.mode), meta.mode(), "mode of {what}");
    assert_eq!(
        (stat.uid, stat.gid),
        (meta.uid(), meta.gid()),
        "owner of {what}"
    );
    if expect.times {
        assert_eq!(stat.mtime, meta.mtime(), "time of {what}");
        // A compact inode's nanoseconds are those of the superblock.
        let nsec = match (expect.nanoseconds, inode.inode_isize) {
            (false, 32) => image.sb.fixed_nsec.into(),
            _ => meta.mtime_nsec(),
        };
        assert_eq!(
            i64::from(stat.mtime_nsec),
            nsec,
            "nanoseconds of {what}, {} bytes of inode",
            inode.inode_isize
        );
    }
    let xattrs = if expect.xattrs {
        xattrs_of(path)
    } else {
        BTreeMap::new()
    };
    assert_eq!(image.xattrs(&inode), xattrs, "attributes of {what}");
    match inode.file_type {
        FileType::Directory => {
            let mut count = 1;
            let mut entries = image.entries(&inode);
            for child in fs::read_dir(path).expect("a directory") {
                let child = child.expect("an entry");
                let (nid, file_type) = entries
                    .remove(child.file_name().as_bytes())
                    .unwrap_or_else(|| panic!("{} is not in the image", child.path().display()));
                let kind = child.file_type().expect("a type");
                let expected = if kind.is_dir() {
                    2
                } else if kind.is_symlink() {
                    7
                } else {
                    1
                };
                assert_eq!(file_type, expected, "type of {}", child.path().display());
                count += compare(image, nid, &child.path(), expect);
            }
            assert!(entries.is_empty(), "not in {what}: {entries:?}");
            count
        }
        FileType::Symlink => {
            let target = fs::read_link(path).expect("a symlink");
            assert_eq!(
                image.data(&inode),
                target.as_os_str().as_bytes(),
                "target of {what}"
            );
            1
        }
        FileType::Regular => {
            assert_eq!(
                (inode.size, u64::from(stat.nlink)),
                (meta.len(), meta.nlink()),
                "size and links of {what}"
            );
            assert!(
                image.data(&inode) == fs::read(path).expect("a file"),
                "data of {what}"
            );
            1
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Makes an image, compares it, and gives it and the tree for more.
fn check(program: &OsString, options: &[&str], expect: &Expect) -> (Image, TempDir) {
    let tree = tree();
    let image = Image::make(program, tree.path(), options);
    let count = compare(&image, image.sb.root_nid, tree.path(), expect);
    assert!(count > 700, "{count} entries");
    (image, tree)
}

const ALL: Expect = Expect {
    times: true,
    nanoseconds: true,
    xattrs: true,
};

impl Image {
    fn find(&self, path: &str) -> Inode {
        let mut inode = self.inode(self.sb.root_nid);
        for name in path.split('/') {
            let data = self.data(&inode);
            let (nid, _) = lookup(
                inode.size,
                self.sb.block_size(),
                &Bytes(&data),
                name.as_bytes(),
            )
            .expect("a good directory")
            .expect("an entry");
            inode = self.inode(nid);
        }
        inode
    }
}

#[test]
fn default_options() {
    let (image, _tree) = check(&mkfs(), &[], &ALL);
    assert_eq!(image.find("file-100").layout, Layout::FlatInline);
    assert_eq!(image.find("file-4096").layout, Layout::FlatPlain);
    assert_eq!(image.find("deep/er").file_type, FileType::Directory);
}

#[test]
fn one_time_for_all() {
    let expect = Expect {
        times: false,
        ..ALL
    };
    let (image, _tree) = check(&mkfs(), &["-T1234567"], &expect);
    let inode = image.find("file-100");
    let mtime = image.stat(inode.nid).mtime;
    assert_eq!((mtime, inode.inode_isize), (1_234_567, 32));
}

#[test]
fn small_blocks() {
    for (option, size) in [("-b512", 512), ("-b1024", 1024), ("-b2048", 2048)] {
        let (image, _tree) = check(&mkfs(), &[option], &ALL);
        assert_eq!(image.sb.block_size(), size);
    }
}

#[test]
fn chunks_with_holes() {
    for option in ["--chunksize=4096", "--chunksize=16384"] {
        let (image, _tree) = check(&mkfs(), &[option], &ALL);
        let inode = image.find("sparse");
        assert_eq!(inode.layout, Layout::ChunkBased);
        let first =
            map_blocks(&image.sb, &inode, &Bytes(&image.bytes), 100_000).expect("an extent");
        assert!(matches!(first, Extent::Hole { .. }), "{first:?}");
    }
}

#[test]
fn extended_inodes() {
    let (image, _tree) = check(&mkfs(), &["-Eforce-inode-extended"], &ALL);
    assert_eq!(image.find("file-1").inode_isize, 64);
}

#[test]
fn compact_inodes() {
    let expect = Expect {
        times: false,
        ..ALL
    };
    let (image, _tree) = check(&mkfs(), &["-Eforce-inode-compact", "-T0"], &expect);
    assert_eq!(image.find("file-1").inode_isize, 32);
}

#[test]
fn no_inline_data() {
    let (image, _tree) = check(&mkfs(), &["-Enoinline_data"], &ALL);
    assert_eq!(image.find("file-100").layout, Layout::FlatPlain);
}

#[test]
fn shared_xattrs() {
    check(&mkfs(), &["-x1"], &ALL);
    check(
        &mkfs(),
        &["-x-1"],
        &Expect {
            xattrs: false,
            ..ALL
        },
    );
}

#[test]
fn long_xattr_prefixes() {
    for options in [
        &["--xattr-prefix=user.overlay."][..],
        &[
            "--xattr-prefix=user.overlay.",
            "--xattr-prefix=user.own.",
            "-x1",
        ],
    ] {
        let (image, _tree) = check(&mkfs(), options, &ALL);
        assert!(!image.prefixes.is_empty());
        assert_eq!(image.prefixes[0].infix(), b"overlay.");
    }
}

#[test]
fn xattr_filter() {
    let (image, _tree) = check(&mkfs(), &["-Exattr-name-filter"], &ALL);
    assert!(image.sb.has_xattr_filter());
}

#[test]
fn next_release() {
    // This one makes compact inodes although the files' times have nanoseconds.
    let expect = Expect {
        nanoseconds: false,
        ..ALL
    };
    check(&mkfs_next(), &[], &expect);
    check(&mkfs_next(), &["-Eforce-inode-extended"], &ALL);
    for options in [&["-E48bit"][..], &["-E48bit", "--chunksize=4096"]] {
        let (image, _tree) = check(&mkfs_next(), options, &expect);
        assert!(image.sb.has_48bit());
    }
}

/// Changes bytes of the metadata of an image; whatever the core says, it must not panic.
#[test]
fn damaged_images() {
    let tree = tree();
    let good = Image::make(&mkfs(), tree.path(), &["-x1", "--chunksize=4096"]);
    let nids: Vec<u64> = good
        .entries(&good.inode(good.sb.root_nid))
        .values()
        .map(|(nid, _)| *nid)
        .collect();
    let noise = bytes(4 * 4000, 3);
    let mut errors = 0;
    for change in noise.chunks(4) {
        let mut bytes = good.bytes.clone();
        let at = 4096 * usize::from(change[3] % 8)
            + usize::from(u16::from_le_bytes([change[0], change[1]])) % 4096;
        if (1024..1024 + 144).contains(&at) || at >= bytes.len() {
            continue;
        }
        bytes[at] ^= change[2] | 1;
        let image = Bytes(&bytes);
        let sources = XattrSources {
            inode: &image,
            shared: &image,
        };
        for nid in &nids {
            let Ok(inode) = Inode::read(&good.sb, *nid, &image) else {
                errors += 1;
                continue;
            };
            for la in [0, inode.size / 2, inode.size.saturating_sub(1)] {
                errors += u32::from(map_blocks(&good.sb, &inode, &image, la).is_err());
            }
            let list = listxattr(
                &good.sb,
                &inode,
                &sources,
                &good.prefixes,
                |_| Some(b"p."),
                None,
            );
            errors += u32::from(list.is_err());
        }
    }
    assert!(errors > 0, "nothing was noticed");
}
