// SPDX-License-Identifier: GPL-2.0

//! Sharing of file data: what is the same, who may read it, and where it is kept.
//!
//! The rule that everything follows from:
//!
//! > A block of a shared inode is served through a real inode only after that real inode has verified
//! > it, and a page enters a shared inode's cache only if its digest is the one recorded there.
//!
//! * [`digest`], [`bits`], [`window`]: pure; cargo builds and tests them on a host, too.
//! * [`content`]: what a shared inode knows of its blocks; [`table`] and [`chunks`]: where
//!   their digests lie.
//! * [`index`]: where a block with a digest is kept; [`alias`]: the bytes of blocks that are elsewhere;
//!   [`merge`]: drops pages that are.
//! * [`binding`]: what one real inode has verified of a shared inode.
//! * [`inode`]: shared inodes and the internal pseudo filesystem that they live on (a wrapper of raw
//!   bindings, as are [`table`], [`chunks`], [`plain`], [`sha256`] and [`shrinker`]).
//!
//! `vfs::{sharing, binding, verify}` put them under the kernel's file operations.

pub(crate) mod alias;
pub(crate) mod binding;
#[allow(unreachable_pub)]
pub(crate) mod bits;
mod chunks;
pub(crate) mod content;
#[allow(unreachable_pub)]
pub(crate) mod digest;
pub(crate) mod index;
pub(crate) mod inode;
#[cfg(CONFIG_KUNIT)]
mod kunit;
pub(crate) mod merge;
pub(crate) mod plain;
pub(crate) mod sha256;
mod shrinker;
mod table;
#[allow(unreachable_pub)]
pub(crate) mod window;

pub(crate) use binding::{Binding, Slots};
pub(crate) use content::{Content, Identity, Settled};
pub(crate) use digest::{Domain, BLOCK_SHIFT, BLOCK_SIZE};
pub(crate) use inode::{PseudoFs, SharedInode, SharedRef, Unheld};
pub(crate) use plain::{is_marked, Plain};

/// With whom an inode's data is shared.
pub(crate) enum Scope<'a> {
    /// With files of the same content, in this domain.
    Content(&'a Domain),
    /// With files of the same fingerprint, in this domain. The administrator vouches for them.
    Fingerprint(&'a Domain, KVec<u8>),
}
use kernel::prelude::*;
