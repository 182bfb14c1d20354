// SPDX-License-Identifier: GPL-2.0

//! The EROFS format: what an image says.
//!
//! Pure Rust over `core` and zerocopy: no kernel types, no allocation, no unsafe code. The kernel
//! module and the host's tools and tests compile the same files. Buffers come from the caller,
//! bytes from a [`source::Source`]. Any byte may be wrong on purpose: that gives an
//! [`error::Error`], never a panic.
//!
//! Structs and fields are named as in the kernel's `fs/erofs/erofs_fs.h`. [`ondisk`] has them as
//! they are stored, for the parsers and for those that change images.

#![deny(unsafe_code)]
// The host tools use more of this than the module does.
#![allow(dead_code, unreachable_pub)]

pub mod compression;
pub mod device;
pub mod dirent;
pub mod error;
mod field;
pub mod hash;
pub mod inode;
pub mod map;
pub mod ondisk;
pub mod source;
pub mod superblock;
mod words;
pub mod xattr;
pub mod zmap;
