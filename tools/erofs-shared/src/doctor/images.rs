// SPDX-License-Identifier: GPL-2.0

//! Image files, and the filesystems that they are on.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use rustix::fs::statfs;

use super::Report;
use crate::{
    mounts::mounts,
    output::size,
    system::{System, PAGE},
};

/// Filesystems by their magic number, and why images cannot be mounted from them as files.
fn refused(magic: u64) -> Option<(&'static str, &'static str)> {
    match magic {
        0x794c_7630 => Some((
            "overlayfs",
            "it has a filesystem below it, so that an image in it is too deep for overlayfs on top",
        )),
        0x0102_1994 => Some(("tmpfs", "its pages cannot be read past its page cache")),
        0x8584_58f6 => Some(("ramfs", "its pages cannot be read past its page cache")),
        _ => None,
    }
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
pub fn path(report: &mut Report, path: &Path) {
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
    match refused(found.f_type as u64) {
        Some((name, why)) => report.warn("filesystem", format!("{shown} is on {name}: {why}"),
            "keep images on ext4, XFS or btrfs, or mount them through a loop device (mount -o loop)"),
        None => report.good("filesystem", format!("{shown}: images can be mounted from there")),
    }
}

/// Images that are mounted.
pub fn mounted(report: &mut Report, system: &System) {
    if !system.loaded() {
        return;
    }
    let Ok(mounts) = mounts(system) else {
        return;
    };
    let mut twice = 0;
    let mut largest: Option<(u64, String)> = None;
    for mount in &mounts {
        let Some(image) = mount
            .image
            .as_deref()
            .filter(|image| Path::new(image).is_file())
        else {
            continue;
        };
        let pages = cached(Path::new(image)).unwrap_or(0);
        twice += pages;
        if largest.as_ref().is_none_or(|(most, _)| pages > *most) {
            largest = Some((pages, image.to_owned()));
        }
    }
    match largest {
        Some((_, image)) if twice * PAGE >= 64 << 20 => report.warn("double-caching",
            format!("{} of image files are in the page cache beside what the mounts have of them, most of {image}", size(twice * PAGE)),
            "read them past it: echo Y > /sys/module/erofs_shared/parameters/directio, for mounts to come"),
        _ if !mounts.is_empty() => report.good("double-caching", format!("{} of image files are in the page cache themselves", size(twice * PAGE))),
        _ => {}
    }
}
