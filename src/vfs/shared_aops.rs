// SPDX-License-Identifier: GPL-2.0

//! How the page cache of a shared inode is filled, and left: its `address_space_operations`.

use core::marker::PhantomData;

use kernel::prelude::*;

use super::{
    cache_fill::{CacheFill, UncheckedFill},
    file::OpenFile,
    sharing::FileMapping,
    FileSystem,
};
use crate::{
    bindings,
    io::{
        folio::Folio, folio_list::FolioList, locked::LeavingFolio, mapping::Mapping,
        readahead::Readahead,
    },
    share::Unheld,
};

/// `address_space_operations` of the shared inodes that files of `T` use.
pub(super) struct SharedAops<T>(PhantomData<T>);

impl<T: FileSystem> SharedAops<T> {
    pub(super) const TABLE: bindings::address_space_operations =
        bindings::address_space_operations {
            read_folio: Some(Self::read_folio),
            readahead: Some(Self::readahead),
            release_folio: Some(Self::release_folio),
            migrate_folio: Some(bindings::migrate_folio),
            ..pin_init::zeroed()
        };

    /// `address_space_operations::readahead` of a shared inode
    ///
    /// # Safety
    ///
    /// * `rac` is valid, and this callback's for the call.
    /// * Its mapping is that of a shared inode, its file null or open.
    unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
        // SAFETY: By this function's requirements `rac` is the argument of this callback.
        let readahead = unsafe { Readahead::from_raw(rac) };
        // A file that is not of `T` may have this mapping (coda gives its files that of the file
        // below): it is not looked into.
        // SAFETY: By this function's requirements the file is null or open.
        let Some(file) = (unsafe { OpenFile::<T>::if_of_type(readahead.file()) }) else {
            return;
        };
        // SAFETY: By this function's requirements it is that of a shared inode, which is there for
        // the call.
        let mapping = unsafe { Mapping::from_raw(readahead.mapping()) };
        let inode = file.inode();
        let FileMapping::Shared(binding) = inode.through(mapping) else {
            // The VFS drops the folios.
            return;
        };
        if !binding.may_fill() {
            return;
        }
        let elsewhere = |pages| inode.next_elsewhere(&binding, pages);
        if inode.needs_no_check(&binding) {
            let filled = || UncheckedFill::new(inode, &binding);
            inode.fill_readahead(readahead, elsewhere, filled);
        } else {
            let filled = || CacheFill::new(inode, &binding);
            inode.fill_readahead(readahead, elsewhere, filled);
        }
    }

    /// `address_space_operations::release_folio` of a shared inode: called where each page that
    /// leaves is looked at before ([`crate::share::usage`])
    ///
    /// # Safety
    ///
    /// * `folio` is null or locked.
    /// * It is in the page cache of a shared inode.
    unsafe extern "C" fn release_folio(folio: *mut bindings::folio, _gfp: bindings::gfp_t) -> bool {
        let Some(folio) = core::ptr::NonNull::new(folio) else {
            return false;
        };
        // SAFETY: By this function's requirements the folio is locked, so that it stays in the page
        // cache.
        let folio = unsafe { LeavingFolio::from_raw(folio) };
        // SAFETY: The page cache is that of a shared inode, which is not freed before the folio has
        // left it.
        let shared = unsafe { Unheld::of_mapping(folio.mapping()) };
        shared.may_leave(&folio)
    }

    /// `address_space_operations::read_folio` of a shared inode
    ///
    /// # Safety
    ///
    /// * `folio` is locked, of the page cache of a shared inode, and the lock passes to this.
    /// * `file` is null or open.
    unsafe extern "C" fn read_folio(
        file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> c_int {
        let Some(at) = core::ptr::NonNull::new(folio) else {
            return EIO.to_errno();
        };
        // SAFETY: The folio is locked, and the lock passes on.
        let mut folios = match unsafe { FolioList::of_locked(at) } {
            Ok(folios) => folios,
            Err(err) => return err.to_errno(),
        };
        // SAFETY: By this function's requirements the file is null or open.
        let Some(file) = (unsafe { OpenFile::<T>::if_of_type(file) }) else {
            return EIO.to_errno();
        };
        // SAFETY: The folio is locked, so it stays in this mapping.
        let mapping = unsafe { Folio::from_raw(folio) }.mapping();
        // SAFETY: It is that of a shared inode, which is not freed before the folio has left it.
        let mapping = unsafe { Mapping::from_raw(mapping) };
        let inode = file.inode();
        let binding = match inode.through(mapping) {
            FileMapping::Shared(binding) => binding,
            FileMapping::Stale(Some(binding)) if binding.shared().mapping() == mapping => binding,
            _ => return EIO.to_errno(),
        };
        if !binding.may_fill() {
            return EAGAIN.to_errno();
        }
        folios.set_reader(inode.sb().as_ptr().cast());
        let plan = inode.plan(folios.pos(), false);
        if inode.needs_no_check(&binding) {
            inode.fill_from_image(folios, &plan, UncheckedFill::new(inode, &binding));
        } else {
            let filled = CacheFill::new(inode, &binding);
            inode.fill_from_image(folios, &plan, filled);
        }
        0
    }
}
