// SPDX-License-Identifier: GPL-2.0

//! Image files, and the filesystems that they are on.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

use rustix::fs::statfs;

use super::Report;
use crate::{
    mounts::{device_text, mount_of, mounts},
    output::size,
    system::{System, PAGE},
};

/// The magic number of EROFS.
const EROFS: u64 = 0xe0f5_e1e2;
/// That of tmpfs.
const TMPFS: u64 = 0x0102_1994;

/// The filesystem with this magic number, and why the module refuses images on it. `on_file` tells
/// whether it is mounted from a file.
fn refused(magic: u64, on_file: impl FnOnce() -> bool) -> Option<(&'static str, &'static str)> {
    const STACKED: &str =
        "it has a filesystem below it, so that an image in it is too deep for overlayfs on top";
    const UNREADABLE: &str = "it has no page cache that images can be read into";
    match magic {
        0x794c_7630 => Some(("overlayfs", STACKED)),
        0xf15f => Some(("ecryptfs", STACKED)),
        EROFS if on_file() => Some((
            "an EROFS image that is a file itself",
            "an image in it would be one too deep",
        )),
        0x9584_58f6 => Some(("hugetlbfs", UNREADABLE)),
        0x9fa0 => Some(("proc", UNREADABLE)),
        0x6265_6572 => Some(("sysfs", UNREADABLE)),
        _ => None,
    }
}

/// Whether the filesystem that a path is on is mounted from a file, and no block device.
fn on_file(system: &System, path: &Path) -> bool {
    let source = || {
        let whole = fs::canonicalize(path).ok()?;
        let device = device_text(fs::metadata(&whole).ok()?.dev());
        let infos = system.own_mountinfo().ok()?;
        Some(mount_of(&infos, &whole, &device)?.source.clone())
    };
    // What cannot be seen from here is told by its name.
    source().is_some_and(|source| match fs::metadata(&source) {
        Ok(meta) => !meta.file_type().is_block_device(),
        Err(_) => !source.starts_with("/dev"),
    })
}

/// `struct cachestat_range` and `struct cachestat` of the kernel.
#[repr(C)]
struct Range {
    off: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cache: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of a file that are in the page cache, by cachestat(2).
fn cached(path: &Path) -> io::Result<u64> {
    /// Its number, the same on all architectures.
    const CACHESTAT: libc::c_long = 451;
    let file = File::open(path)?;
    // All of the file.
    let range = Range { off: 0, len: 0 };
    let mut stat = Cachestat::default();
    // SAFETY: The descriptor is open; both pointers are to structures of the layout that the call has, which live until it
    // returns; it writes to the second one only.
    let done = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut stat,
            0,
        )
    };
    if done == 0 {
        Ok(stat.cache)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A path that an image is, or will be at.
pub fn path(report: &mut Report, system: &System, path: &Path) {
    let shown = path.display();
    let found = match statfs(path) {
        Ok(found) => found,
        Err(err) => {
            return report.error(
                "path",
                format!("{shown}: {err}"),
                "give a file or a directory that is there",
            )
        }
    };
    let magic = found.f_type as u64;
    match refused(magic, || on_file(system, path)) {
        Some((name, why)) => report.warn("filesystem", format!("{shown} is on {name}: {why}"),
            "keep images on ext4, XFS or btrfs, or mount them through a loop device (mount -o loop)"),
        None if magic == TMPFS => report.good("filesystem",
            format!("{shown}: images can be mounted from there; it is a tmpfs, where an image takes memory as long as it is there")),
        None => report.good("filesystem", format!("{shown}: images can be mounted from there")),
    }
}

/// An image file that is mounted.
struct Cached {
    image: String,
    /// Its pages in the page cache.
    pages: u64,
    /// Whether it is read past them, if that is known.
    directio: Option<bool>,
}

/// Images that are mounted.
pub fn mounted(report: &mut Report, system: &System) {
    if !system.loaded() {
        return;
    }
    let Ok(mounts) = mounts(system) else {
        return;
    };
    let files = mounts.into_iter().filter_map(|mount| {
        let image = mount.image.filter(|image| Path::new(image).is_file())?;
        Some(Cached {
            pages: cached(Path::new(&image)).unwrap_or(0),
            image,
            directio: mount.directio,
        })
    });
    double_caching(report, &files.collect::<Vec<_>>());
}

/// Whether image files are in the page cache beside what their mounts have of them. What is read
/// past it, or as the module decides, was put there by other programs.
fn double_caching(report: &mut Report, files: &[Cached]) {
    let through = || files.iter().filter(|file| file.directio == Some(false));
    let twice = through().map(|file| file.pages).sum::<u64>() * PAGE;
    let all = files.iter().map(|file| file.pages).sum::<u64>() * PAGE;
    match through().max_by_key(|file| file.pages) {
        Some(most) if twice >= 64 << 20 => report.warn("double-caching",
            format!("{} of image files are in the page cache beside what the mounts have of them, most of {}", size(twice), most.image),
            "read them past it: mount them with directio, or echo Y > /sys/module/erofs_shared/parameters/directio, for mounts to come"),
        _ if !files.is_empty() => report.good("double-caching", format!("{} of image files are in the page cache themselves", size(all))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_the_module_refuses() {
        let name = |magic, on_file| refused(magic, || on_file).map(|(name, _)| name);
        // ext4, tmpfs, ramfs, EROFS on a block device
        for (magic, on_file) in [
            (0xef53, true),
            (TMPFS, true),
            (0x8584_58f6, true),
            (EROFS, false),
        ] {
            assert_eq!(name(magic, on_file), None, "{magic:x}");
        }
        assert_eq!(name(0x794c_7630, false), Some("overlayfs"));
        assert_eq!(name(0xf15f, false), Some("ecryptfs"));
        assert!(name(EROFS, true).is_some());
    }

    #[test]
    fn image_files_in_the_page_cache() {
        let said = |directio: &[Option<bool>]| {
            let file = |(at, directio): (usize, &Option<bool>)| Cached {
                image: format!("/{at}"),
                pages: 20_000,
                directio: *directio,
            };
            let mut report = Report::default();
            double_caching(
                &mut report,
                &directio.iter().enumerate().map(file).collect::<Vec<_>>(),
            );
            let finding = report.findings.pop();
            finding.map(|finding| (finding.level, finding.found))
        };
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[None, Some(true)]).unwrap().0, Level::Ok);
        let (level, found) = said(&[None, Some(false)]).unwrap();
        assert_eq!(level, Level::Warning);
        assert!(
            found.starts_with("78.1 MiB ") && found.ends_with(" /1"),
            "{found}"
        );
    }
}
