// SPDX-License-Identifier: GPL-2.0

//! erofs-shared: mounts EROFS images, to keep identical file data in memory once.
//!
//! The parts, each of which uses only the ones before it:
//!
//! * [`format`]: what an image says. Pure Rust without kernel types; cargo builds it on a host,
//!   too.
//! * [`compat`]: what older kernels have in another form.
//! * [`io`]: bytes off a device or a backing file.
//! * [`stats`]: counters, sysfs, debugfs, tracepoints.
//! * [`share`]: which files have equal data, and which inode may read it.
//! * [`vfs`]: the kernel's filesystem interface as safe types.
//! * [`fs`]: the filesystem, in safe code.

use kernel::prelude::*;

mod bindings;
mod compat;
mod format;
mod fs;
mod io;
mod params;
mod race;
mod share;
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
    _top: stats::SharedFileListRegistration,
    _registration: vfs::Registration<fs::Erofs>,
    // Without mounts no work begins; without work nothing uses shared inodes.
    _workers: io::workers::Workers,
    _decoders: io::decompress::Registration,
    _stats: stats::Registration,
    // It has shared inodes merged.
    _finder: share::FinderThread,
    _shared: share::PseudoFs,
    // Used by all of them.
    _folio_pool: io::folio_pool::FolioPool,
}

impl kernel::Module for ErofsShared {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let folio_pool = io::folio_pool::FolioPool::new();
        let shared = share::PseudoFs::mount()?;
        let finder = share::FinderThread::start()?;
        let decoders = io::decompress::Registration::new()?;
        let workers = io::workers::Workers::new()?;
        let stats = stats::Registration::new(&fs::HOOKS)?;
        // Nothing that can fail comes after it.
        let registration = fs::register(module)?;
        Ok(Self {
            _top: stats::SharedFileListRegistration::new(&fs::HOOKS),
            _registration: registration,
            _workers: workers,
            _decoders: decoders,
            _stats: stats,
            _finder: finder,
            _shared: shared,
            _folio_pool: folio_pool,
        })
    }
}
