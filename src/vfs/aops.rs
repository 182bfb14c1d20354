// SPDX-License-Identifier: GPL-2.0

//! How the page cache of an inode is filled: its `address_space_operations`.
//!
//! iomap reads straight from the device (bios) or the backing file (`io::iomap_read`),
//! asynchronously. Inline data is copied out of the metadata block. What has to be decoded is read
//! by `sharing`.

use core::marker::PhantomData;

use kernel::prelude::*;

use super::{
    iomap::{IomapOps, MapFailure},
    FileSystem, Inode,
};
use crate::{
    bindings,
    io::{folio::Folio, iomap_read::FILE_READ_OPS, readahead::Readahead},
};

/// `address_space_operations` of the inodes of `T`.
pub(super) struct AddressSpaceOps<T>(PhantomData<T>);

impl<T: FileSystem> AddressSpaceOps<T> {
    /// For data that lies as it is on a block device: only that has block numbers to tell (FIBMAP),
    /// and is there for direct I/O.
    pub(super) const BLOCK: bindings::address_space_operations =
        bindings::address_space_operations {
            bmap: Some(Self::bmap),
            direct_IO: Some(bindings::noop_direct_IO),
            ..Self::TABLE
        };

    /// For all other data.
    pub(super) const TABLE: bindings::address_space_operations =
        bindings::address_space_operations {
            read_folio: Some(Self::read_folio),
            readahead: Some(Self::readahead),
            release_folio: Some(bindings::iomap_release_folio),
            invalidate_folio: Some(bindings::iomap_invalidate_folio),
            ..pin_init::zeroed()
        };

    fn read_ops(inode: &Inode<T>) -> *const bindings::iomap_read_ops {
        if inode.sb().is_block() {
            &raw const bindings::iomap_bio_read_ops
        } else {
            &FILE_READ_OPS
        }
    }

    /// `address_space_operations::read_folio`
    ///
    /// # Safety
    ///
    /// * `folio` is locked, and in the page cache of an inode of `T`.
    /// * The lock passes to this callback.
    unsafe extern "C" fn read_folio(
        _file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> c_int {
        // SAFETY: The folio is locked, so that it stays in its mapping.
        let mapping = unsafe { Folio::from_raw(folio) }.mapping();
        // SAFETY: The mapping is that of an inode of `T`.
        let inode = unsafe { Inode::<T>::of_mapping(mapping) };
        if T::is_compressed(inode) {
            // SAFETY: The folio is locked, and the lock passes on.
            let read = unsafe { inode.read_folio_encoded(folio) };
            return read.err().map_or(0, |err| err.to_errno());
        }
        let failure = MapFailure::new(None);
        let mut ctx = bindings::iomap_read_folio_ctx {
            ops: Self::read_ops(inode),
            cur_folio: folio,
            rac: core::ptr::null_mut(),
            read_ctx: core::ptr::null_mut(),
            read_ctx_file_offset: 0,
            vi: core::ptr::null_mut(),
        };
        let (ops, private) = (&IomapOps::<T>::READ, (&raw const failure).cast_mut().cast());
        // SAFETY: iomap takes over the locked folio; `failure` outlives the call, and completions
        // do not use it.
        unsafe { bindings::iomap_read_folio(ops, &mut ctx, private) };
        failure.get().map_or(0, |err| err.to_errno())
    }

    /// `address_space_operations::readahead`
    ///
    /// # Safety
    ///
    /// * `rac` is valid, and this callback's for the call.
    /// * Its mapping is that of a live inode of `T`.
    unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
        // SAFETY: By this function's requirements `rac` is the argument of this callback.
        let mut readahead = unsafe { Readahead::from_raw(rac) };
        // SAFETY: The mapping belongs to an inode of `T`.
        let inode = unsafe { Inode::<T>::of_mapping(readahead.mapping()) };
        if T::is_compressed(inode) {
            return inode.readahead_encoded(readahead);
        }
        let mut ctx = bindings::iomap_read_folio_ctx {
            ops: Self::read_ops(inode),
            cur_folio: core::ptr::null_mut(),
            rac: readahead.as_ptr(),
            read_ctx: core::ptr::null_mut(),
            read_ctx_file_offset: 0,
            vi: core::ptr::null_mut(),
        };
        let (ops, none) = (&IomapOps::<T>::READ, core::ptr::null_mut());
        // SAFETY: iomap takes the folios from `rac`.
        unsafe { bindings::iomap_readahead(ops, &mut ctx, none) };
    }

    /// `address_space_operations::bmap`
    ///
    /// # Safety
    ///
    /// * `mapping` is that of a live inode of `T`.
    unsafe extern "C" fn bmap(
        mapping: *mut bindings::address_space,
        block: bindings::sector_t,
    ) -> bindings::sector_t {
        // SAFETY: The mapping belongs to an inode of `T`.
        unsafe { bindings::iomap_bmap(mapping, block, &IomapOps::<T>::REPORT) }
    }
}
