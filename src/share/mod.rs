// SPDX-License-Identifier: GPL-2.0

//! Sharing of file data: which data is equal, which inode may read it, and where it is kept.
//!
//! The rule that everything follows from (`Documentation/design.rst`):
//!
//! > A page is served through a real inode only if it was read through that inode's own image, or
//! > compared byte for byte with what was read from it, or has the digest of such a page that has
//! > left memory.
//!
//! With `verify=digest` that is: a block of a shared inode is served through a real inode only
//! after that real inode has verified it, and a page enters a shared inode's cache only if its
//! digest is the one recorded there. `Documentation/verify.md` has what `verify=compare` does.
//!
//! * [`digest`], [`bits`], [`window`], [`sample`]: pure; cargo builds and tests them on a host,
//!   too.
//! * [`handle`]: references to shared inodes; [`inode`]: what they carry; [`pseudo_fs`]: the
//!   internal filesystem that they live on.
//! * [`content`]: what a shared inode knows of its blocks; [`table`] and [`chunks`]: where
//!   their digests lie; [`record`]: how they get there.
//! * [`index`]: where a block with a digest is kept, in 8 bytes ([`entry`]); [`alias`]: the bytes
//!   of blocks that are elsewhere; [`hint`]: where the index has led last.
//! * [`dedup`]: what becomes of blocks that are read; [`merge`]: drops pages that are elsewhere,
//!   too ([`queue`]).
//! * [`finder`]: looks for equal blocks where nothing has been hashed.
//! * [`binding`]: what one real inode has verified of a shared inode.
//! * [`usage`], [`join`], [`compare`]: shared inodes that are verified by their bytes, not by
//!   digests.
//!
//! These wrap raw bindings: [`handle`], [`inode`], [`pseudo_fs`], [`table`], [`chunks`], [`entry`],
//! [`fast_path`], [`secret`], [`sha256`] and [`shrinker`]. [`hint`], [`index`], [`join`],
//! [`merge`], [`queue`] and [`usage`] have a few unsafe blocks, each a call or the use of a pointer
//! that their types keep valid.
//!
//! `vfs::{sharing, binding, verify}` put them under the kernel's file operations.

pub(crate) mod alias;
pub(crate) mod binding;
#[allow(unreachable_pub)]
pub(crate) mod bits;
mod chunks;
pub(crate) mod compare;
pub(crate) mod content;
pub(crate) mod dedup;
#[allow(unreachable_pub)]
pub(crate) mod digest;
mod entry;
pub(crate) mod fast_path;
pub(crate) mod finder;
mod handle;
mod hint;
pub(crate) mod index;
mod inode;
mod join;
#[cfg(CONFIG_KUNIT)]
mod kunit;
pub(crate) mod merge;
mod pressure;
mod pseudo_fs;
mod queue;
mod record;
#[allow(unreachable_pub)]
mod sample;
pub(crate) mod secret;
mod set;
pub(crate) mod sha256;
mod shrinker;
mod table;
pub(crate) mod usage;
#[allow(unreachable_pub)]
pub(crate) mod window;

pub(crate) use binding::{Binding, Bindings};
pub(crate) use content::{Identity, Verify};
pub(crate) use digest::{Domain, BLOCK_SHIFT, BLOCK_SIZE};
pub(crate) use fast_path::{is_marked, FastMapping};
pub(crate) use finder::FinderThread;
pub(crate) use handle::{SharedInode, SharedRef, Unheld};
pub(crate) use pseudo_fs::{for_each, PseudoFs};
pub(crate) use record::Recording;

/// With whom an inode's data is shared.
pub(crate) enum Scope<'a> {
    /// With files of the same content, in this domain, by their digests.
    Content(&'a Domain),
    /// The same, by their bytes as long as these are in memory.
    Bytes(&'a Domain),
    /// With files of the same fingerprint, of which this is the key, in this domain. The
    /// administrator vouches for them.
    Fingerprint(&'a Domain, digest::Key),
}
