// SPDX-License-Identifier: GPL-2.0

//! Memory mappings of files that have the page cache of a shared inode.
//!
//! The kernel maps whole folios, so all of a folio is verified before a page of it is returned. What
//! may wait (reading, verifying) is done without the lock under which a fault is handled, if the
//! fault can be tried again: a slow image stops the thread that touches it and no other.

use core::ops::Range;

use kernel::{bindings, page::PAGE_SIZE, prelude::*, sync::Arc};

use super::{inode::file_inode, page::Unready, sharing::FileMapping, FileSystem, Inode, Tables};
use crate::{
    io::{folio::FolioRef, page::PageState, wait::is_dying},
    race::race_point,
    raw,
    share::{Binding, MAX_ORDER},
};

/// What a fault does next.
enum Next {
    /// Returns this.
    Return(bindings::vm_fault_t),
    /// Looks at everything again.
    Again,
}

/// What a fault returns if it has given up its lock.
const RETRY: bindings::vm_fault_t =
    raw::EROFS_SHARED_VM_FAULT_RETRY | raw::EROFS_SHARED_VM_FAULT_MAJOR;

/// Returns what a fault returns for an error.
fn fault_error(err: Error) -> bindings::vm_fault_t {
    if err == ENOMEM {
        raw::EROFS_SHARED_VM_FAULT_OOM
    } else {
        raw::EROFS_SHARED_VM_FAULT_SIGBUS
    }
}

/// Whether `filemap_fault()` does not wait for a page that is read through another image: the page is
/// uptodate, or not there, so that the fault reads it in the name of its own file.
///
/// # Safety
///
/// `mapping` is live and one of this module's.
unsafe fn needs_no_wait(mapping: *mut bindings::address_space, index: usize) -> bool {
    // SAFETY: By the function's safety requirements.
    match unsafe { PageState::find(mapping, index as u64) } {
        PageState::Absent | PageState::Ready(_) => true,
        PageState::Locked(_) | PageState::Failed(_) => false,
    }
}

impl<T: FileSystem> Inode<T> {
    /// Whether these pages of a file's mapping are all verified. In atomic context.
    fn may_map(&self, mapping: *mut bindings::address_space, pages: Range<u64>) -> bool {
        self.with_current(|binding| {
            binding.shared().mapping() == mapping && binding.covers(pages.clone())
        })
    }

    /// Brings a block into the page cache, with its folio verified as a whole.
    ///
    /// # Safety
    ///
    /// `file` is an open file of this inode.
    unsafe fn prepare_fault(
        &self,
        file: *mut bindings::file,
        binding: &Arc<Binding>,
        block: u64,
    ) -> Result<(), Unready> {
        // SAFETY: By the function's safety requirements.
        unsafe { self.ensure(file, binding, block..block + 1) }?;
        if binding.shared().content().is_aliased(block) {
            self.copy_alias(binding, block)?;
        }
        let mapping = binding.shared().mapping();
        // SAFETY: By the function's safety requirements.
        let pages = unsafe { self.page_in(file, mapping, block as usize, 1) }?.pages();
        // SAFETY: By the function's safety requirements.
        unsafe { self.ensure_folio(file, binding, pages, block) }
    }
}

impl<T: FileSystem> Tables<T> {
    /// Memory mappings of files that may have the pages of a shared inode.
    const SHARED_VM_OPS: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::shared_fault),
        map_pages: Some(Self::shared_map_pages),
        ..pin_init::zeroed()
    };

    /// A promoted constant, so that it has an address for good.
    const SHARED_VM_OPS_REF: &'static bindings::vm_operations_struct = &Self::SHARED_VM_OPS;

    /// # Safety
    ///
    /// `file_operations::mmap_prepare`
    pub(super) unsafe extern "C" fn mmap_prepare(
        desc: *mut bindings::vm_area_desc,
    ) -> kernel::ffi::c_int {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let file = (*desc).file;
            Self::ready_readahead(file);
            let ret = bindings::generic_file_readonly_mmap_prepare(desc);
            if ret == 0 && (*file).f_mapping != file_inode::<T>(file).own_mapping() {
                (*desc).vm_ops = Self::SHARED_VM_OPS_REF;
            }
            ret
        }
    }

    /// # Safety
    ///
    /// `vm_operations_struct::fault` of a mapping of a file of `T`.
    unsafe extern "C" fn shared_fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
            let inode = file_inode::<T>(file);
            let mapping = (*file).f_mapping;
            let index = (*vmf).__bindgen_anon_1.pgoff;
            if inode.is_plain(mapping) && needs_no_wait(mapping, index) {
                race_point!(c"fault_plain");
                let ret = bindings::filemap_fault(vmf);
                // With an error it has not given up the lock, so that `vmf` and `file` are still valid
                // ("never return VM_FAULT_RETRY with an error bit", mm/filemap.c).
                if ret & raw::EROFS_SHARED_VM_FAULT_SIGBUS == 0 {
                    return ret;
                }
            }
            Self::fault_slow(vmf, file, inode)
        }
    }

    /// # Safety
    ///
    /// As for `shared_fault`; `file` is the mapping's, `inode` its inode.
    #[inline(never)]
    unsafe fn fault_slow(
        vmf: *mut bindings::vm_fault,
        file: *mut bindings::file,
        inode: &Inode<T>,
    ) -> bindings::vm_fault_t {
        // SAFETY: By the function's safety requirements.
        let (index, mapping) = unsafe { ((*vmf).__bindgen_anon_1.pgoff, (*file).f_mapping) };
        // The page has been asked for in vain, and is brought in by itself.
        let mut failed = false;
        loop {
            // SAFETY: By the function's safety requirements. Whatever gives up the fault's lock returns
            // `Next::Return`, after which nothing of the fault is used.
            let next = unsafe {
                match inode.through(mapping) {
                    FileMapping::Own => return bindings::filemap_fault(vmf),
                    FileMapping::Stale(binding) => {
                        Self::fault_elsewhere(vmf, file, inode, binding.as_ref())
                    }
                    FileMapping::Shared(binding) if index as u64 >= binding.blocks() => {
                        return bindings::filemap_fault(vmf)
                    }
                    FileMapping::Shared(binding) => {
                        match Self::fault_step(vmf, file, inode, &binding, &mut failed) {
                            // The inode's own image has the bytes.
                            Err(Unready::Busy) => Self::fault_elsewhere(vmf, file, inode, None),
                            next => next,
                        }
                    }
                }
            };
            match next {
                Ok(Next::Return(ret)) => return ret,
                Ok(Next::Again) | Err(Unready::Left) if !is_dying() => {}
                Err(Unready::Failed(err)) => return fault_error(err),
                _ => return raw::EROFS_SHARED_VM_FAULT_SIGBUS,
            }
        }
    }

    /// Whether `filemap_fault()` can map a block: the page is verified with all of its folio, or is not
    /// there, and `filemap_fault()` has not `failed` to read it.
    ///
    /// This keeps no reference to the folio: one whose read failed could not be dropped, which is what
    /// has its pages read one by one.
    ///
    /// # Safety
    ///
    /// The page cache of `binding` is not freed during the call.
    unsafe fn may_fault(binding: &Binding, block: u64, failed: bool) -> bool {
        // SAFETY: By the function's safety requirements.
        match unsafe { PageState::find(binding.shared().mapping(), block) } {
            // `filemap_fault()` reads it in the name of the mapping's file, which verifies it.
            PageState::Absent => !failed,
            PageState::Ready(folio) => binding.covers(folio.pages()),
            PageState::Locked(_) | PageState::Failed(_) => false,
        }
    }

    /// One try to map the page of a fault out of a shared inode's page cache.
    ///
    /// # Safety
    ///
    /// As for `fault_slow`.
    unsafe fn fault_step(
        vmf: *mut bindings::vm_fault,
        file: *mut bindings::file,
        inode: &Inode<T>,
        binding: &Arc<Binding>,
        failed: &mut bool,
    ) -> Result<Next, Unready> {
        // SAFETY: By the function's safety requirements.
        let block = unsafe { (*vmf).__bindgen_anon_1.pgoff } as u64;
        // SAFETY: The binding holds the mapping's inode.
        let here = unsafe { Self::may_fault(binding, block, *failed) };
        let ready = here && !binding.shared().content().is_aliased(block);
        if !ready {
            // SAFETY: By the function's safety requirements.
            return unsafe {
                Self::fault_work(vmf, file, || {
                    let done = inode.prepare_fault(file, binding, block);
                    match done {
                        Err(_) if !inode.is_current(binding) => Err(Unready::Left),
                        done => done,
                    }
                })
            };
        }
        // SAFETY: By the function's safety requirements. If the lock was given up, the result has
        // `VM_FAULT_RETRY`, and nothing of the fault is used any more.
        unsafe {
            race_point!(c"fault_ready");
            let ret = bindings::filemap_fault(vmf);
            if ret & raw::EROFS_SHARED_VM_FAULT_RETRY != 0 {
                return Ok(Next::Return(ret));
            }
            if ret & raw::EROFS_SHARED_VM_FAULT_LOCKED == 0 {
                // The page may be one of a large folio in which another one cannot be read.
                let again = ret & raw::EROFS_SHARED_VM_FAULT_SIGBUS != 0 && !*failed;
                *failed = true;
                return if again || !inode.is_current(binding) {
                    Ok(Next::Again)
                } else {
                    Ok(Next::Return(ret))
                };
            }
            race_point!(c"fault_locked");
            // The whole folio is going to be mapped.
            let folio = raw::erofs_shared_page_folio((*vmf).page);
            if binding.covers(FolioRef::pages_of_raw(folio)) {
                return Ok(Next::Return(ret));
            }
            raw::erofs_shared_folio_unlock(folio);
            raw::erofs_shared_folio_put(folio);
            (*vmf).page = core::ptr::null_mut();
        }
        Ok(Next::Again)
    }

    /// Does what may wait: without the fault's lock if the fault can be tried again, which it is then.
    ///
    /// # Safety
    ///
    /// As for `fault_slow`. `work` uses nothing of the fault.
    unsafe fn fault_work(
        vmf: *mut bindings::vm_fault,
        file: *mut bindings::file,
        work: impl FnOnce() -> Result<(), Unready>,
    ) -> Result<Next, Unready> {
        // SAFETY: By the function's safety requirements. Without its lock the mapping may go, but the
        // file is referenced then, and with it its inode.
        unsafe {
            if raw::erofs_shared_fault_nowait(vmf) {
                return Ok(Next::Return(raw::EROFS_SHARED_VM_FAULT_RETRY));
            }
            if !raw::erofs_shared_fault_unlock(vmf, file) {
                work()?;
                return Ok(Next::Again);
            }
            // An error comes again when the fault is tried again, and is returned then.
            let _ = work();
            bindings::fput(file);
        }
        Ok(Next::Return(RETRY))
    }

    /// Gives a mapping a page from where the inode's data is now: the page cache of `binding`, or the
    /// inode's own.
    ///
    /// # Safety
    ///
    /// As for `fault_slow`.
    unsafe fn fault_elsewhere(
        vmf: *mut bindings::vm_fault,
        file: *mut bindings::file,
        inode: &Inode<T>,
        binding: Option<&Arc<Binding>>,
    ) -> Result<Next, Unready> {
        // SAFETY: By the function's safety requirements.
        let index = unsafe { (*vmf).__bindgen_anon_1.pgoff };
        if index as u64 >= inode.size().div_ceil(PAGE_SIZE as u64) {
            return Ok(Next::Return(raw::EROFS_SHARED_VM_FAULT_SIGBUS));
        }
        loop {
            let mut found = inode.ready_folio(binding, index as u64);
            if found.is_none() {
                // SAFETY: By the function's safety requirements.
                let next = unsafe {
                    Self::fault_work(vmf, file, || {
                        found = Some(inode.folio_of(file, binding, index, 1)?);
                        Ok(())
                    })
                }?;
                if let Next::Return(_) = next {
                    return Ok(next);
                }
            }
            let Some(folio) = found else {
                return Ok(Next::Again);
            };
            // SAFETY: By the function's safety requirements.
            if let Some(ret) = unsafe { Self::map_folio(vmf, folio, index) }? {
                return Ok(Next::Return(ret));
            }
        }
    }

    /// Makes page `index` of `folio` the one that the fault maps. `None`: the folio has been evicted.
    ///
    /// # Safety
    ///
    /// As for `fault_slow`; the fault still has its lock, and the folio has that page.
    unsafe fn map_folio(
        vmf: *mut bindings::vm_fault,
        folio: FolioRef,
        index: usize,
    ) -> Result<Option<bindings::vm_fault_t>> {
        let folio = folio.into_raw();
        // SAFETY: By the function's safety requirements. The reference goes to the fault with the
        // folio's lock, or is given back.
        unsafe {
            let ret = raw::erofs_shared_folio_lock_killable(folio);
            if ret < 0 {
                raw::erofs_shared_folio_put(folio);
                return Err(Error::from_errno(ret));
            }
            if (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping.is_null()
                || !raw::erofs_shared_folio_uptodate(folio)
            {
                raw::erofs_shared_folio_unlock(folio);
                raw::erofs_shared_folio_put(folio);
                return Ok(None);
            }
            (*vmf).page = raw::erofs_shared_folio_page(folio, index);
        }
        Ok(Some(raw::EROFS_SHARED_VM_FAULT_LOCKED))
    }

    /// # Safety
    ///
    /// `vm_operations_struct::map_pages` of a mapping of a file of `T`.
    unsafe extern "C" fn shared_map_pages(
        vmf: *mut bindings::vm_fault,
        start: usize,
        end: usize,
    ) -> bindings::vm_fault_t {
        // The folios with `start` and with `end` are mapped whole, whatever the range asked; they are
        // aligned to their size, which has a limit.
        let folio = 1u64 << MAX_ORDER;
        let (first, last) = (start as u64, end as u64);
        let pages = first - first % folio..last - last % folio + folio;
        // SAFETY: By the function's safety requirements.
        unsafe {
            let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
            let inode = file_inode::<T>(file);
            let mapping = (*file).f_mapping;
            if inode.is_plain(mapping) || inode.may_map(mapping, pages) {
                return bindings::filemap_map_pages(vmf, start, end);
            }
        }
        0
    }
}

impl<T: FileSystem> Inode<T> {
    /// The folio with a page, from where the inode's data is now, if it is resident there and
    /// verified as a whole.
    fn ready_folio(&self, binding: Option<&Arc<Binding>>, index: u64) -> Option<FolioRef> {
        let mapping = binding.map_or(self.own_mapping(), |binding| binding.shared().mapping());
        // SAFETY: The inode holds both mappings.
        let folio = unsafe { FolioRef::find(mapping, index) }?;
        binding
            .is_none_or(|binding| binding.covers(folio.pages()))
            .then_some(folio)
    }
}
