// SPDX-License-Identifier: GPL-2.0

//! Where a file's bytes are, as iomap asks for it: `iomap_ops`.

use core::{cell::Cell, marker::PhantomData};

use kernel::{error::from_result, prelude::*};

use super::{FileSystem, Inode};
use crate::{
    bindings,
    io::{metadata::FolioBytes, wait::is_dying, Device, Extent, Target},
};

/// `IOMAP_NULL_ADDR`
const NULL_ADDR: u64 = u64::MAX;

/// Passed through `iomap_iter.private`: where to leave the error that iomap would turn into `EIO`.
pub(super) type MapFailure = Cell<Option<Error>>;

/// `iomap_ops` for the inodes of `T`.
pub(super) struct IomapOps<T>(PhantomData<T>);

impl<T: FileSystem> IomapOps<T> {
    /// Mappings to read through.
    pub(super) const READ: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::read_begin),
        iomap_end: Some(Self::read_end),
        iomap_next: None,
    };

    /// Mappings to report only (fiemap, seek, bmap).
    pub(super) const REPORT: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::report_begin),
        iomap_end: None,
        iomap_next: None,
    };

    fn fill(inode: &Inode<T>, extent: Extent<'_>, map: &mut bindings::iomap) {
        map.offset = extent.offset as i64;
        // Ends stay below 2^63, as iomap's signed positions need. But no mapping is of nothing, for
        // which iomap would ask without end: of the last byte, behind the end of every file, the
        // end is 2^63, as in-tree.
        let most = (i64::MAX as u64).saturating_sub(extent.offset);
        map.length = extent.len.min(most).max(1);
        map.flags = 0;
        map.addr = NULL_ADDR;
        let mut disk = |device: &Device, addr: u64| {
            map.addr = addr.saturating_add(device.offset());
            if let Some(bdev) = device.bdev() {
                map.bdev = bdev.as_ptr();
            } else if let Some(file) = device.file() {
                map.private = file.as_ptr().cast();
                if T::direct_io(inode.sb().info()) {
                    map.flags |= bindings::IOMAP_F_DIRECT as u16;
                }
            }
        };
        match extent.target {
            Target::Hole => map.type_ = bindings::IOMAP_HOLE as u16,
            Target::Disk(device, addr) => {
                disk(device, addr);
                map.type_ = bindings::IOMAP_MAPPED as u16;
            }
            Target::Inline(bytes) => {
                let (folio, ptr) = bytes.into_raw();
                map.inline_data = ptr.cast();
                map.private = folio.cast();
                map.type_ = bindings::IOMAP_INLINE as u16;
            }
            Target::InlineAt(at) => {
                if let Some((device, addr)) = at {
                    disk(device, addr);
                }
                map.type_ = bindings::IOMAP_INLINE as u16;
            }
            Target::EncodedAt(at) => {
                if let Some((device, addr)) = at {
                    disk(device, addr);
                }
                map.type_ = bindings::IOMAP_MAPPED as u16;
            }
            // Not asked for: iomap reads no such inodes. Without an address it can do nothing.
            Target::Encoded(_) | Target::Cached(..) => map.type_ = bindings::IOMAP_MAPPED as u16,
        }
    }

    /// `iomap_ops::iomap_begin` of reads
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`.
    /// * `iomap` is this callback's to fill, and part of an `iomap_iter`.
    /// * The `private` of that is null or points to a `MapFailure`.
    unsafe extern "C" fn read_begin(
        inode: *mut bindings::inode,
        pos: bindings::loff_t,
        _len: bindings::loff_t,
        flags: c_uint,
        iomap: *mut bindings::iomap,
        _srcmap: *mut bindings::iomap,
    ) -> c_int {
        if flags & bindings::IOMAP_NOWAIT != 0 {
            // Looking for the extent may sleep on metadata.
            return EAGAIN.to_errno();
        }
        // SAFETY: iomap passes the live inode of the operation, which is one of `T`.
        let inode = unsafe { Inode::<T>::from_raw(inode) };
        match T::map(inode, pos as u64, false) {
            Ok(extent) => {
                // SAFETY: `iomap` is ours to fill.
                Self::fill(inode, extent, unsafe { &mut *iomap });
                0
            }
            Err(err) => {
                // SAFETY: By this function's requirements `iomap` lies in an `iomap_iter`.
                let iter = unsafe { kernel::container_of!(iomap, bindings::iomap_iter, iomap) };
                // SAFETY: By this function's requirements `private` is null or a `MapFailure`,
                // which outlives the call.
                if let Some(failure) = unsafe { (*iter).private.cast::<MapFailure>().as_ref() } {
                    failure.set(Some(err));
                }
                err.to_errno()
            }
        }
    }

    /// `iomap_ops::iomap_end` after `read_begin`
    ///
    /// # Safety
    ///
    /// * `iomap` is this callback's for the call.
    /// * It is as `read_begin` has filled it.
    unsafe extern "C" fn read_end(
        _inode: *mut bindings::inode,
        _pos: bindings::loff_t,
        _len: bindings::loff_t,
        _written: isize,
        _flags: c_uint,
        iomap: *mut bindings::iomap,
    ) -> c_int {
        // SAFETY: `iomap` is this callback's for the call.
        let map = unsafe { &mut *iomap };
        if map.type_ == bindings::IOMAP_INLINE as u16 && !map.private.is_null() {
            let folio = core::mem::replace(&mut map.private, core::ptr::null_mut());
            // SAFETY: For an inline mapping this is the folio that `fill` put there.
            unsafe { FolioBytes::put_raw(folio.cast()) };
        }
        0
    }

    /// `iomap_ops::iomap_begin` of what only reports extents
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`.
    /// * `iomap` is this callback's to fill.
    unsafe extern "C" fn report_begin(
        inode: *mut bindings::inode,
        pos: bindings::loff_t,
        _len: bindings::loff_t,
        _flags: c_uint,
        iomap: *mut bindings::iomap,
        _srcmap: *mut bindings::iomap,
    ) -> c_int {
        from_result(|| {
            // SAFETY: iomap passes the live inode of the operation, which is one of `T`.
            let inode = unsafe { Inode::<T>::from_raw(inode) };
            // A file may have many extents, and what asks for them all does not look for signals.
            if is_dying() {
                return Err(EINTR);
            }
            let extent = T::map(inode, pos as u64, true)?;
            // SAFETY: `iomap` is ours to fill.
            Self::fill(inode, extent, unsafe { &mut *iomap });
            Ok(0)
        })
    }
}
