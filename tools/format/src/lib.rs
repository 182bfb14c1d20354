// SPDX-License-Identifier: GPL-2.0

//! The format core of the kernel module, built for the host: the very same files.

#[path = "../../../src/format/mod.rs"]
pub mod format;

pub use format::*;

mod image;

pub use image::{Bytes, HostHash, Image, ReadError};
