// SPDX-License-Identifier: GPL-2.0

//! erofs-shared: mounts EROFS images, to keep identical file data in memory once.
//!
//! The parts, each of which uses only the ones before it:
//!
//! * [`format`]: what an image says. Pure Rust without kernel types; cargo builds it on a host, too.
//! * [`io`]: bytes off a device or a backing file.
//! * [`stats`]: counters, sysfs, debugfs, tracepoints.
//! * [`vfs`]: the kernel's filesystem interface as safe types.
//! * [`fs`]: the filesystem, in safe code.

use kernel::prelude::*;

mod format;
mod fs;
mod io;
mod raw;
mod stats;
mod vfs;

module! {
    type: ErofsShared,
    name: "erofs_shared",
    authors: ["The erofs-shared authors"],
    description: "EROFS images with identical file data in memory once (erofs-shared)",
    license: "GPL",
    alias: ["fs-erofs-shared"],
}

/// The loaded module. What it registered goes in this order.
struct ErofsShared {
    _top: stats::TopRegistration,
    _registration: vfs::Registration<fs::Erofs>,
    _stats: stats::Registration,
}

impl kernel::Module for ErofsShared {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let stats = stats::Registration::new(&fs::HOOKS)?;
        let registration = vfs::Registration::new(module)?;
        Ok(Self {
            _top: stats::TopRegistration::new(&fs::HOOKS),
            _registration: registration,
            _stats: stats,
        })
    }
}
