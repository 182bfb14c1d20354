// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of the group `erofs_shared`; `include/erofs_shared_trace.h` defines them. One that
//! is off costs a call and a patched-out jump.

use super::Dev;
use crate::bindings;

/// The inode `nid` of `size` bytes was bound to the shared inode `shared`, to whose key `variant`
/// divergences led.
pub(crate) fn bind(dev: Dev, nid: u64, size: u64, shared: u64, variant: u32) {
    // SAFETY: Takes numbers only, in any context.
    unsafe { bindings::trace_bind(dev.0, nid, size, shared, variant) }
}

/// `count` blocks of the file from `block` on are read from its image.
pub(crate) fn read(dev: Dev, nid: u64, block: u64, count: u32) {
    // SAFETY: Takes numbers only, in any context.
    unsafe { bindings::trace_read(dev.0, nid, block, count) }
}

/// `count` blocks of the file from `block` on gave the shared inode its digests.
pub(crate) fn adopt(dev: Dev, nid: u64, block: u64, count: u32) {
    // SAFETY: Takes numbers only, in any context.
    unsafe { bindings::trace_adopt(dev.0, nid, block, count) }
}

/// `count` blocks of the file from `block` on were found equal to the shared inode's.
pub(crate) fn verify(dev: Dev, nid: u64, block: u64, count: u32) {
    // SAFETY: Takes numbers only, in any context.
    unsafe { bindings::trace_verify(dev.0, nid, block, count) }
}

/// Block `block` of the file was found to differ from the shared inode's, which the file leaves.
pub(crate) fn diverge(dev: Dev, nid: u64, block: u64) {
    // SAFETY: Takes numbers only, in any context.
    unsafe { bindings::trace_diverge(dev.0, nid, block) }
}
