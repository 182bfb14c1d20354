// SPDX-License-Identifier: GPL-2.0

//! Filling page cache by iomap from an image that is a regular file.

use core::ptr::NonNull;

use kernel::prelude::*;

use super::{
    backing_read::{BackingRead, EndedRead, ReadEnd},
    folio::Folio,
};
use crate::{bindings, compat::code::EFSCORRUPTED};

/// iomap's read of ranges of locked folios, each of which is finished by
/// `iomap_finish_folio_read()`.
struct IomapRead;

// SAFETY: `end` finishes the ranges last, each after its `bio_vec` has been looked at.
unsafe impl ReadEnd for IomapRead {
    const FAILS_IN_WORKER: bool = true;

    fn end(self, read: EndedRead<Self>) {
        let enough = read.is_enough();
        if enough {
            read.zero_rest();
        }
        for (bvec, here) in read.ranges() {
            let error = match enough || here == bvec.bv_len as usize {
                true => 0,
                false => EIO.to_errno(),
            };
            // SAFETY: `read_folio_range` has added a range of a locked folio, whose completion came
            // with it; this is the only one.
            unsafe { bindings::iomap_finish_bvec(bvec, error) };
        }
    }
}

/// The read operations for iomap where `iomap.private` is the backing `struct file`, `iomap.flags`
/// has `IOMAP_F_DIRECT` for direct I/O, and `iomap.addr` is the byte position in it.
pub(crate) const FILE_READ_OPS: bindings::iomap_read_ops = bindings::iomap_read_ops {
    read_folio_range: Some(read_folio_range),
    submit_read: Some(submit_read),
    bio_set: core::ptr::null_mut(),
};

/// # Safety
///
/// * Called by iomap with a valid iterator and context, and a locked folio in the context.
unsafe extern "C" fn read_folio_range(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
    len: usize,
) -> c_int {
    // SAFETY: iomap passes a live iterator.
    let iter_ref = unsafe { &*iter };
    let (map, pos, inode) = (&iter_ref.iomap, iter_ref.pos, iter_ref.inode);
    // SAFETY: iomap passes a live context, and the folio that it wants read: locked, hence live.
    let folio = unsafe { Folio::from_raw((*ctx).cur_folio) };
    let offset = pos as usize - folio.pos() as usize;
    let Some(at) = (pos.wrapping_sub(map.offset) as u64).checked_add(map.addr) else {
        return EFSCORRUPTED.to_errno();
    };
    let Some(file) = NonNull::new(map.private.cast::<bindings::file>()) else {
        return EIO.to_errno();
    };
    // SAFETY: The inode is live.
    let left = unsafe { bindings::inode_size(inode) }.saturating_sub(pos);
    let wanted = usize::try_from(left).unwrap_or(0).min(len);

    // SAFETY: `read_ctx` is null or the read that this function put there, which is exclusively
    // this context's until it is submitted.
    let pending = unsafe { (*ctx).read_ctx.cast::<BackingRead<IomapRead>>().as_ref() };
    if !pending.is_some_and(|pending| pending.continues_at(file, at)) {
        // SAFETY: The arguments are those of this callback, and `read_ctx` is as it says.
        unsafe { submit_read(iter, ctx) };
        // SAFETY: `private` is the backing file, which the mount holds open. It waits for its
        // folios before it lets go of that.
        let Ok(read) = (unsafe { BackingRead::<IomapRead>::new(file, at) }) else {
            return ENOMEM.to_errno();
        };
        // SAFETY: The context is live, and `read_ctx` is this module's to set.
        unsafe { (*ctx).read_ctx = KBox::into_raw(read).cast() };
    }
    // SAFETY: It is the read of this context.
    let read = unsafe { &mut *(*ctx).read_ctx.cast::<BackingRead<IomapRead>>() };
    // SAFETY: iomap wants this range of the locked folio read, and passes its completion on with
    // this call.
    let added = unsafe { read.add(folio, offset, len, wanted) };
    added.err().map_or(0, |err| err.to_errno())
}

/// # Safety
///
/// * As for `read_folio_range`.
/// * `read_ctx` is null or a pending read.
unsafe extern "C" fn submit_read(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
) {
    // SAFETY: By this function's requirements the context is live, and this call's.
    let pending = unsafe { &mut (*ctx).read_ctx };
    // It goes out of the context before it is started, so it is started once.
    let read = core::mem::replace(pending, core::ptr::null_mut()).cast::<BackingRead<IomapRead>>();
    if !read.is_null() {
        // SAFETY: By this function's requirements the iterator is live.
        let flags = unsafe { (*iter).iomap.flags };
        let direct = flags & bindings::IOMAP_F_DIRECT as u16 != 0;
        // SAFETY: By this function's requirements the context had it from a box.
        BackingRead::submit(unsafe { KBox::from_raw(read) }, IomapRead, direct);
    }
}
