// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared verify`

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use clap::Args;
use erofs_shared_format::{
    dirent::DirBlock,
    inode::{FileType, Inode},
    source::{read_exact, Source},
    ReadError,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    image::{open, Location, Volume},
    mounts::{device_text, mount_of},
    output::{byte_bar, fail, json, size},
    system::{display, System},
    text::{printable, show},
    xattr, Outcome,
};

/// Bytes compared at once.
const CHUNK: u64 = 1 << 20;

/// Options of `verify`.
#[derive(Args)]
#[command(
    after_help = "All of the mount is read: names, modes, owners, times, sizes, links, attributes, data. The image is found by \
        the table of mounts, with its devices and offset, or is given. It is read past the mount, by the same code as the \
        module's own, and both are compared. What is mounted on directories and files of it is left out, and so are labels \
        that SELinux or Smack give.\n\n\
        Exit status: 0 the mount shows what the image has, 1 it does not, 2 wrong usage, or one of them cannot be read."
)]
pub struct Options {
    /// A directory where an image is mounted, or one below it
    #[arg(value_name = "MOUNT")]
    mount: PathBuf,

    /// The image, if the table of mounts does not tell
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    #[command(flatten)]
    location: Location,

    #[command(flatten)]
    system: System,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `verify` prints.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct Report {
    pub mount: String,
    pub image: String,
    /// Whether all is the same.
    pub same: bool,
    /// Files of all types that were compared.
    pub entries: u64,
    pub files: u64,
    /// Bytes in regular files.
    pub bytes: u64,
    /// Paths that something else is mounted on: they and what is below them were not compared.
    pub covered: Vec<String>,
    pub differences: Vec<Difference>,
}

/// Something that is not the same.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Difference {
    pub path: String,
    pub what: String,
}

/// A comparison.
struct Verify<'v> {
    volume: &'v Volume,
    bar: indicatif::ProgressBar,
    report: Report,
    root: bool,
    /// Whether SELinux answers for its attribute, and not the image.
    selinux: bool,
    /// The device number of the mount.
    device: u64,
    pending: Vec<(PathBuf, u64)>,
}

/// Names and nids in a directory of the image, without `.` and `..`.
fn entries(volume: &Volume, inode: &Inode) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
    let data = volume.data(inode);
    let mut all = Vec::new();
    let mut pos = 0;
    while pos < inode.size {
        let bytes = data.bread(pos)?;
        let block = DirBlock::new(&bytes, pos)?;
        for index in 0..block.len() {
            let entry = block.get(index)?;
            if entry.name != b"." && entry.name != b".." {
                all.push((entry.name.to_vec(), entry.nid));
            }
        }
        pos += u64::from(volume.sb.block_size());
    }
    Ok(all)
}

fn file_type(meta: &fs::Metadata) -> FileType {
    let kind = meta.file_type();
    if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_char_device() {
        FileType::CharDevice
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else if kind.is_fifo() {
        FileType::Fifo
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::Regular
    }
}

/// The label of SELinux.
const SELINUX: &[u8] = b"security.selinux";

/// Names of the attributes of a file in the mount.
fn listed(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0u8; 65536];
    let len = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(len) => len,
        // A filesystem that has none at all
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(err) => return Err(err.into()),
    };
    let names = buffer[..len].split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// Whether an attribute of the mount should be among those of the image, and is not. The kernel
/// makes some itself: ACLs in a form of its own, and the labels of its security modules.
fn is_added(name: &[u8], image: &[Vec<u8>]) -> bool {
    const LABELS: [&[u8]; 2] = [SELINUX, b"security.SMACK64"];
    !name.starts_with(b"system.")
        && !LABELS.contains(&name)
        && !image.iter().any(|known| known == name)
}

impl Verify<'_> {
    fn differ(&mut self, path: &Path, what: impl Into<String>) {
        let (path, what) = (display(path), what.into());
        self.report.differences.push(Difference { path, what });
    }

    /// Compares a file of any type; directories become pending.
    fn entry(&mut self, path: PathBuf, nid: u64) {
        let (inode, stat) = match self.volume.inode_and_stat(nid) {
            Ok(both) => both,
            Err(err) => {
                return self.differ(
                    &path,
                    format!("the image's inode {nid} cannot be read: {err}"),
                )
            }
        };
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(err) => return self.differ(&path, err.to_string()),
        };
        // What is mounted on top of it is no concern of the image's.
        if meta.dev() != self.device {
            return self.report.covered.push(display(&path));
        }
        self.report.entries += 1;
        let numbers = [
            ("mode", u64::from(stat.mode), u64::from(meta.mode())),
            ("owner", stat.uid.into(), meta.uid().into()),
            ("group", stat.gid.into(), meta.gid().into()),
            ("link count", stat.nlink.into(), meta.nlink()),
            ("size", inode.size, meta.size()),
            ("modification time", stat.mtime as u64, meta.mtime() as u64),
            (
                "nanoseconds",
                stat.mtime_nsec.into(),
                meta.mtime_nsec() as u64,
            ),
        ];
        let special = matches!(
            inode.file_type,
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket
        );
        for (name, image, mount) in numbers {
            if image != mount && !(special && name == "size") {
                let show = |value: u64| match name {
                    "mode" => format!("{value:#o}"),
                    _ => value.to_string(),
                };
                self.differ(
                    &path,
                    format!(
                        "{name}: {} in the image, {} in the mount",
                        show(image),
                        show(mount)
                    ),
                );
            }
        }
        if inode.file_type != file_type(&meta) {
            return self.differ(&path, format!("the image has a {:?}", inode.file_type));
        }
        self.xattrs(&path, &inode);
        match inode.file_type {
            FileType::Directory => self.pending.push((path, nid)),
            FileType::Symlink => self.symlink(&path, &inode),
            FileType::Regular => self.data(&path, &inode),
            _ => {}
        }
    }

    fn symlink(&mut self, path: &Path, inode: &Inode) {
        let mut target = vec![0; inode.size.min(4096) as usize];
        let read = read_exact(&self.volume.data(inode), 0, &mut target);
        match (read, fs::read_link(path)) {
            (Ok(()), Ok(mounted)) if mounted.as_os_str().as_bytes() == target => {}
            (Ok(()), Ok(_)) => self.differ(path, "the link leads elsewhere"),
            (Err(err), _) => self.differ(path, format!("the image's link cannot be read: {err}")),
            (_, Err(err)) => self.differ(path, format!("the link cannot be read: {err}")),
        }
    }

    fn xattrs(&mut self, path: &Path, inode: &Inode) {
        let all = match xattr::read_all(self.volume, inode) {
            Ok(all) => all,
            Err(err) => {
                return self.differ(
                    path,
                    format!("the image's attributes cannot be read: {err}"),
                )
            }
        };
        let mut names = Vec::new();
        for (name, value) in all {
            // These are shown to root only, and those in a form of the kernel's own.
            if (!self.root && name.starts_with(b"trusted.")) || name.starts_with(b"system.") {
                continue;
            }
            if self.selinux && name == SELINUX {
                continue;
            }
            let shown = crate::text::show(&name);
            let mut buffer = vec![0u8; 65536];
            let mounted = rustix::fs::lgetxattr(path, name.as_slice(), &mut buffer[..])
                .map(|len| &buffer[..len]);
            match (value, mounted) {
                (Ok(value), Ok(mounted)) if value == mounted => {}
                (Ok(_), Ok(_)) => self.differ(path, format!("attribute {shown} has another value")),
                (Err(err), _) => self.differ(
                    path,
                    format!("the image's attribute {shown} cannot be read: {err}"),
                ),
                (_, Err(err)) => self.differ(path, format!("attribute {shown}: {err}")),
            }
            names.push(name);
        }
        match listed(path) {
            Ok(listed) => {
                for name in listed.iter().filter(|name| is_added(name, &names)) {
                    let shown = crate::text::show(name);
                    self.differ(path, format!("attribute {shown} is not in the image"));
                }
            }
            Err(err) => self.differ(path, format!("its attributes cannot be listed: {err}")),
        }
    }

    fn data(&mut self, path: &Path, inode: &Inode) {
        self.report.files += 1;
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(err) => return self.differ(path, err.to_string()),
        };
        let data = self.volume.data(inode);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut pos = 0;
        while pos < inode.size {
            let len = CHUNK.min(inode.size - pos) as usize;
            ours.resize(len, 0);
            theirs.resize(len, 0);
            if let Err(err) = read_exact(&data, pos, &mut ours) {
                return self.differ(
                    path,
                    format!("the image's data cannot be read from byte {pos} on: {err}"),
                );
            }
            if let Err(err) = file.read_exact(&mut theirs) {
                return self.differ(path, format!("cannot be read from byte {pos} on: {err}"));
            }
            if let Some(at) = ours.iter().zip(&theirs).position(|(one, two)| one != two) {
                return self.differ(path, format!("byte {} differs", pos + at as u64));
            }
            pos += len as u64;
            self.report.bytes += len as u64;
            self.bar.inc(len as u64);
        }
    }

    fn directory(&mut self, path: &Path, nid: u64) {
        let listed = self
            .volume
            .inode(nid)
            .and_then(|inode| entries(self.volume, &inode));
        let listed = match listed {
            Ok(listed) => listed,
            Err(err) => {
                return self.differ(path, format!("the image's directory cannot be read: {err}"))
            }
        };
        let mounted: io::Result<BTreeSet<Vec<u8>>> = fs::read_dir(path).and_then(|dir| {
            dir.map(|entry| Ok(entry?.file_name().as_bytes().to_vec()))
                .collect()
        });
        let mut mounted = match mounted {
            Ok(mounted) => mounted,
            Err(err) => return self.differ(path, err.to_string()),
        };
        for (name, nid) in listed {
            let child = path.join(OsStr::from_bytes(&name));
            if mounted.remove(&name) {
                self.entry(child, nid);
            } else {
                self.differ(&child, "is missing in the mount");
            }
        }
        for name in mounted {
            self.differ(&path.join(OsStr::from_bytes(&name)), "is not in the image");
        }
    }
}

/// The image and where it is, by the table of mounts.
fn find(options: &Options) -> Result<(PathBuf, PathBuf, Location), String> {
    let show = |err| format!("{}: {err}", options.mount.display());
    let mount = fs::canonicalize(&options.mount).map_err(show)?;
    let device = device_text(fs::metadata(&mount).map_err(show)?.dev());
    let infos = options
        .system
        .own_mountinfo()
        .map_err(|err| err.to_string())?;
    let info = mount_of(&infos, &mount, &device).filter(|info| info.fstype.starts_with("erofs"));
    let info = info.ok_or_else(|| {
        format!(
            "{}: no EROFS image is mounted there",
            options.mount.display()
        )
    })?;
    if info.root != Path::new("/") {
        return Err(format!(
            "{}: a part of a mount; give the whole",
            info.target.display()
        ));
    }
    let image = options.image.clone().unwrap_or_else(|| info.source.clone());
    let mut location = Location {
        devices: options.location.devices.clone(),
        offset: options.location.offset,
    };
    if location.devices.is_empty() {
        location.devices = info.options("device").map(PathBuf::from).collect();
    }
    if location.offset == 0 {
        location.offset = info
            .option("fsoffset")
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
    }
    Ok((info.target.clone(), image, location))
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let (target, image, location) = match find(options) {
        Ok(found) => found,
        Err(what) => {
            fail(options.json, what)?;
            return Ok(Outcome::Failed);
        }
    };
    let volume = match open(&image, &location, &mut Vec::new()) {
        Ok(volume) => volume,
        Err(err) => {
            fail(options.json, format!("{}: {err}", image.display()))?;
            return Ok(Outcome::Failed);
        }
    };
    let device = match fs::metadata(&target) {
        Ok(meta) => meta.dev(),
        Err(err) => {
            fail(options.json, format!("{}: {err}", target.display()))?;
            return Ok(Outcome::Failed);
        }
    };
    let bar = byte_bar(volume.primary.len());
    bar.set_message(printable(&display(&target)));
    let mut verify = Verify {
        volume: &volume,
        bar,
        report: Report {
            mount: display(&target),
            image: display(&image),
            ..Report::default()
        },
        root: rustix::process::geteuid().is_root(),
        selinux: options.system.sysfs.join("fs/selinux/enforce").exists(),
        device,
        pending: Vec::new(),
    };
    verify.entry(target, volume.sb.root_nid);
    while let Some((path, nid)) = verify.pending.pop() {
        verify.directory(&path, nid);
    }
    verify.bar.finish_and_clear();
    let mut report = verify.report;
    report.same = report.differences.is_empty();
    if options.json {
        json(&report)?;
    } else {
        let mut out = io::stdout().lock();
        for difference in &report.differences {
            let path = show(difference.path.as_bytes());
            writeln!(out, "{path}: {}", printable(&difference.what))?;
        }
        for path in &report.covered {
            let path = show(path.as_bytes());
            writeln!(
                out,
                "{path}: something else is mounted there; it was not compared"
            )?;
        }
        let verdict = match report.differences.len() {
            0 => "all as in the image".to_owned(),
            1 => "1 difference".to_owned(),
            count => format!("{count} differences"),
        };
        writeln!(
            out,
            "{}: {} entries, {} files with {}: {verdict}",
            show(report.mount.as_bytes()),
            report.entries,
            report.files,
            size(report.bytes)
        )?;
    }
    Ok(if report.same {
        Outcome::Clean
    } else {
        Outcome::Problems
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_the_kernel() {
        let image = [b"user.a".to_vec()];
        for (name, added) in [
            (&b"user.a"[..], false),
            (b"user.b", true),
            (b"security.selinux", false),
            (b"security.SMACK64", false),
            (b"security.capability", true),
            (b"system.posix_acl_access", false),
        ] {
            assert_eq!(is_added(name, &image), added, "{}", crate::text::show(name));
        }
    }

    #[test]
    fn attributes_that_cannot_be_listed() {
        assert!(listed(Path::new("/proc/self/no such file")).is_err());
        assert!(listed(Path::new("/")).is_ok());
    }
}
