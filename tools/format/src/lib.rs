// SPDX-License-Identifier: GPL-2.0

//! The format core of the kernel module, built for the host: the very same files.

#[path = "../../../src/format/mod.rs"]
pub mod format;

/// The pure parts of the module's sharing: the very same files, too.
#[path = "../../../src/share"]
pub mod share {
    pub mod bits;
    pub mod digest;
    pub mod sample;
    pub mod window;
}

pub use format::*;

mod decode;
mod image;
mod lz4;
mod volume;

pub use decode::decode;
pub use image::{Bytes, HostHash, Image, ReadError};
pub use volume::{Bytes as VolumeBytes, Finding, Place, Volume};
