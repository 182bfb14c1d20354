// SPDX-License-Identifier: GPL-2.0

//! Reading, mapping, splicing: the `file_operations` of regular files.

use core::marker::PhantomData;

use kernel::prelude::*;

use super::{
    file::OpenFile, iomap::IomapOps, shared_fault::SharedVmOps, shared_read::Splice,
    sharing::FileMapping, FileSystem, Inode,
};
use crate::{
    bindings, compat,
    io::{request::ReadRequest, resident::copy_resident, wait::is_dying},
    race::race_point,
};

/// `file_operations` of the regular files of `T`.
pub(super) struct FileOps<T>(PhantomData<T>);

impl<T: FileSystem> FileOps<T> {
    pub(super) const TABLE: bindings::file_operations = bindings::file_operations {
        open: Some(Self::open),
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: Some(Self::ioctl),
        mmap_prepare: Some(Self::mmap_prepare),
        get_unmapped_area: compat::GET_UNMAPPED_AREA,
        splice_read: Some(Self::splice_read),
        fadvise: Some(Self::fadvise),
        setlease: Some(bindings::setlease),
        ..pin_init::zeroed()
    };

    /// `file_operations::open`
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`.
    /// * `file` is being opened by this task, and one of `inode`.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By this function's requirements the inode is a live one of `T`.
        let inode = unsafe { Inode::<T>::from_raw(inode) };
        // SAFETY: The file is being opened by this task, so that its fields are not used by others.
        let fields = unsafe { &mut *file };
        // Direct I/O goes to the block device; a backing file has none to offer, and what has to be
        // decoded is not there. To open these for it is refused by the VFS. (A shared page cache
        // does not say which it is.)
        if inode.sb().is_block() && !T::is_compressed(inode) {
            fields.f_mode |= bindings::FMODE_CAN_ODIRECT;
        }
        let fast = inode.fast_mapping_ptr();
        fields.f_mode |= bindings::FMODE_NOWAIT;
        if !fast.is_null() {
            // The inode's own mapping, or that of a shared inode that it holds until it is evicted:
            // longer than there are files.
            fields.f_mapping = fast;
            return 0;
        }
        // SAFETY: By this function's requirements the file is being opened, and one of `inode`.
        let shared = unsafe { inode.share_file(file) };
        shared.err().map_or(0, |err| err.to_errno())
    }

    /// `file_operations::llseek`
    ///
    /// # Safety
    ///
    /// * `file` is an open file of `T`.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: By this function's requirements the file is an open one of `T`.
        let inode = unsafe { OpenFile::<T>::from_raw(file) }.inode().as_ptr();
        let ops = &IomapOps::<T>::REPORT;
        let found = match whence as u32 {
            // SAFETY: The inode is live, and `ops` are for it.
            bindings::SEEK_HOLE => unsafe { bindings::iomap_seek_hole(inode, offset, ops) },
            // SAFETY: The inode is live, and `ops` are for it.
            bindings::SEEK_DATA => unsafe { bindings::iomap_seek_data(inode, offset, ops) },
            // SAFETY: The file is open.
            _ => return unsafe { bindings::generic_file_llseek(file, offset, whence) },
        };
        if found < 0 {
            return found;
        }
        // SAFETY: The file is open; a live inode has a live superblock.
        unsafe { bindings::vfs_setpos(file, found, (*(*inode).i_sb).s_maxbytes) }
    }

    /// `file_operations::read_iter`
    ///
    /// # Safety
    ///
    /// * `iocb` and `to` are live, and this callback's for the call.
    /// * `ki_filp` is an open file of `T`.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: By this function's requirements these are the arguments of this callback.
        let mut request = unsafe { ReadRequest::from_raw(iocb, to) };
        // SAFETY: By this function's requirements the request is of an open file of `T`.
        let file = unsafe { OpenFile::<T>::from_raw(request.file()) };
        let special = bindings::IOCB_DIRECT | bindings::IOCB_NOWAIT;
        // The way that nearly every read goes.
        let (inode, mapping) = (file.inode(), file.mapping());
        if request.flags() & special == 0 && inode.is_fast(mapping) {
            let wanted = request.wanted();
            let may_read = || inode.fast_mapping_ptr() == mapping.as_ptr();
            let copied = copy_resident(&mut request, mapping, inode.size(), may_read);
            let at_end = request.pos() as u64 >= inode.size();
            if copied != 0 && (copied == wanted || at_end) {
                return copied as isize;
            }
            return Self::read_missing(request, file, copied);
        }
        Self::read_specially(request, file)
    }

    /// Reads what is not resident of pages that need no checks, after `copied` bytes that are.
    #[inline(never)]
    fn read_missing(mut request: ReadRequest<'_>, file: OpenFile<'_, T>, copied: usize) -> isize {
        file.ready_readahead();
        let ret = match file.read_fast(&mut request, copied) {
            Some(err @ ..0) => return Self::read_failed(request, file, err),
            Some(ret) => ret,
            None => copied as isize,
        };
        let at_end = || request.pos() as u64 >= file.inode().size();
        if !file.is_shared() || request.wanted() == 0 || at_end() {
            return ret;
        }
        // They need checks now; or a folio could not be read as a whole, and pages of it can.
        let more = Self::read_specially(request, file);
        match ret {
            0 => more,
            _ => ret + more.max(0),
        }
    }

    /// After a read of pages that need no checks failed with `err`.
    #[inline(never)]
    #[cold]
    fn read_failed(request: ReadRequest<'_>, file: OpenFile<'_, T>, err: isize) -> isize {
        if !file.is_shared() {
            return err;
        }
        // A page may have gone and come back with another content, or not at all.
        Self::read_specially(request, file)
    }

    /// All reads but the simplest.
    #[inline(never)]
    fn read_specially(mut request: ReadRequest<'_>, file: OpenFile<'_, T>) -> isize {
        file.ready_readahead();
        if request.wanted() == 0 {
            return 0;
        }
        let inode = file.inode();
        let direct = request.flags() & bindings::IOCB_DIRECT != 0;
        if direct && inode.sb().is_block() && !T::is_compressed(inode) {
            let (ops, none) = (&IomapOps::<T>::READ, core::ptr::null_mut());
            let (iocb, to) = request.as_ptrs();
            // SAFETY: By the type invariants of `ReadRequest` these are the arguments of a
            // `->read_iter`; the file is on a block device, and `ops` are for its inode.
            return unsafe { bindings::iomap_dio_rw(iocb, to, ops, core::ptr::null(), 0, none, 0) };
        }
        file.read_shared(request)
    }

    /// `file_operations::unlocked_ioctl`, and `compat_ioctl`: all commands take plain bytes
    ///
    /// # Safety
    ///
    /// * `file` is an open file of `T`.
    pub(super) unsafe extern "C" fn ioctl(
        file: *mut bindings::file,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_long {
        if cmd != bindings::FS_IOC_GETFSLABEL {
            return ENOTTY.to_errno() as c_long;
        }
        // SAFETY: By this function's requirements the file is an open one of `T`.
        let label = T::label(unsafe { OpenFile::<T>::from_raw(file) }.inode().sb().info());
        let (from, len) = (label.as_ptr().cast(), label.len());
        // SAFETY: Copying to user memory checks the address.
        let left = unsafe { bindings::copy_to_user(arg, from, len) };
        // SAFETY: Clearing user memory checks the address.
        let left = left + unsafe { bindings::clear_user(arg.wrapping_add(len), 1) };
        if left == 0 {
            0
        } else {
            EFAULT.to_errno() as c_long
        }
    }

    /// `file_operations::mmap_prepare`
    ///
    /// # Safety
    ///
    /// * `desc` is live, and this callback's for the call.
    /// * Its file is an open file of `T`.
    unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> c_int {
        // SAFETY: By this function's requirements `desc` is live, and its file an open one of `T`.
        let file = unsafe { OpenFile::<T>::from_raw((*desc).file) };
        file.ready_readahead();
        // SAFETY: By this function's requirements `desc` is the argument of this callback.
        let ret = unsafe { bindings::generic_file_readonly_mmap_prepare(desc) };
        if ret == 0 && file.is_shared() {
            // SAFETY: `desc` is this callback's to fill.
            unsafe { (*desc).vm_ops = SharedVmOps::<T>::REF };
        }
        ret
    }

    /// `file_operations::splice_read`
    ///
    /// # Safety
    ///
    /// * `file` is an open file of `T`.
    /// * `ppos` and `pipe` are valid, and this callback's for the call.
    unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        ppos: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        len: usize,
        flags: c_uint,
    ) -> isize {
        // SAFETY: By this function's requirements the file is an open one of `T`.
        let this = unsafe { OpenFile::<T>::from_raw(file) };
        this.ready_readahead();
        let (inode, mapping) = (this.inode(), this.mapping());
        loop {
            // SAFETY: By this function's requirements `ppos` is valid.
            let pos = unsafe { *ppos } as u64;
            if this.is_shared() && (len == 0 || pos >= inode.size()) {
                return 0;
            }
            let binding = match inode.compares_bytes(mapping) {
                true => inode.through(mapping).binding(),
                false => None,
            };
            // Before pages are looked at, and until they are taken.
            let _sole = binding.as_ref().and_then(|binding| binding.sole_read());
            let len = match this.splice_way(pos, len) {
                Ok(Splice::Copy(len)) => {
                    // SAFETY: By this function's requirements these are valid; the file is open.
                    return unsafe { bindings::copy_splice_read(file, ppos, pipe, len, flags) };
                }
                Ok(Splice::Pages(len)) => len,
                Ok(Splice::Again) => continue,
                Err(err) => return err.to_errno() as isize,
            };
            // The binding by which it has been verified has to be the one that was counted.
            if inode.compares_bytes(mapping) && !inode.through(mapping).belongs_to(binding.as_ref())
            {
                continue;
            }
            race_point!(c"splice_ready");
            // SAFETY: By this function's requirements these are valid; the file is open.
            let ret = unsafe { bindings::filemap_splice_read(file, ppos, pipe, len, flags) };
            let refused = binding.as_ref().is_some_and(|binding| !binding.may_fill());
            if ret >= 0 || !this.is_shared() || is_dying() {
                return ret;
            }
            if refused || matches!(inode.through(mapping), FileMapping::Stale(_)) {
                continue;
            }
            // A page has gone since, and could not be read with those around it. A read of it alone
            // says whether it can.
            // SAFETY: By this function's requirements these are valid; the file is open.
            return unsafe { bindings::copy_splice_read(file, ppos, pipe, len, flags) };
        }
    }

    /// `file_operations::fadvise`
    ///
    /// # Safety
    ///
    /// * `file` is an open file of `T`.
    unsafe extern "C" fn fadvise(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        len: bindings::loff_t,
        advice: c_int,
    ) -> c_int {
        // SAFETY: By this function's requirements the file is an open one of `T`.
        let this = unsafe { OpenFile::<T>::from_raw(file) };
        this.ready_readahead();
        let (inode, shared) = (this.inode(), this.is_shared());
        let valid = offset >= 0 && len >= 0;
        let drops = advice as u32 == bindings::FADV_DONTNEED;
        if shared && valid && drops && !inode.may_drop(this.mapping()) {
            // Others count on these pages.
            return 0;
        }
        // SAFETY: The file is open.
        let ret = unsafe { bindings::generic_fadvise(file, offset, len, advice) };
        if ret == 0 && shared {
            // It takes the size of read-ahead from the internal filesystem, which has none.
            match advice as u32 {
                bindings::FADV_NORMAL => this.set_ra_pages(inode.ra_pages()),
                bindings::FADV_SEQUENTIAL => {
                    this.set_ra_pages(inode.ra_pages().saturating_mul(2));
                }
                _ => {}
            }
        }
        ret
    }
}
