// SPDX-License-Identifier: GPL-2.0

//! File data: address space operations, file operations, and the iomap callbacks behind both.
//!
//! Page cache is filled by iomap straight from the device (bios) or the backing file
//! (`io::file_read`), asynchronously. Inline data is copied out of the metadata block.

use core::cell::Cell;

use kernel::{error::from_result, prelude::*};

use super::{file::OpenFile, FileSystem, Inode, Tables};
use crate::{
    bindings, compat,
    io::{
        file_read::FILE_READ_OPS, folio::Folio, metadata::FolioBytes, readahead::Readahead,
        request::ReadRequest, resident::copy_resident, Extent, Target,
    },
};

/// `IOMAP_NULL_ADDR`
const NULL_ADDR: u64 = u64::MAX;

/// Passed through `iomap_iter.private`: where to leave the error that iomap would turn into `EIO`.
type MapFailure = Cell<Option<Error>>;

impl<T: FileSystem> Tables<T> {
    /// Mappings to read through.
    const READ_MAP_OPS: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::read_begin),
        iomap_end: Some(Self::read_end),
        iomap_next: None,
    };

    /// Mappings to report only (fiemap, seek, bmap).
    const REPORT_MAP_OPS: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::report_begin),
        iomap_end: None,
        iomap_next: None,
    };

    /// For data that lies as it is on a block device: only that has block numbers to tell (FIBMAP).
    pub(super) const BLOCK_ASPACE_OPS: bindings::address_space_operations =
        bindings::address_space_operations {
            bmap: Some(Self::bmap),
            ..Self::ADDRESS_SPACE_OPS
        };

    pub(super) const ADDRESS_SPACE_OPS: bindings::address_space_operations =
        bindings::address_space_operations {
            read_folio: Some(Self::read_folio),
            readahead: Some(Self::readahead),
            direct_IO: Some(bindings::noop_direct_IO),
            release_folio: Some(bindings::iomap_release_folio),
            invalidate_folio: Some(bindings::iomap_invalidate_folio),
            ..pin_init::zeroed()
        };

    pub(super) const FILE_OPS: bindings::file_operations = bindings::file_operations {
        open: Some(Self::open),
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: Some(Self::ioctl),
        mmap_prepare: Some(Self::mmap_prepare),
        get_unmapped_area: compat::GET_UNMAPPED_AREA,
        splice_read: Some(Self::splice_read),
        fadvise: Some(Self::fadvise),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    fn fill(inode: &Inode<T>, extent: Extent<'_>, map: &mut bindings::iomap) {
        map.offset = extent.offset as i64;
        // Ends stay below 2^63, as iomap's signed positions need.
        map.length = extent
            .len
            .min((i64::MAX as u64).saturating_sub(extent.offset));
        map.flags = 0;
        map.addr = NULL_ADDR;
        let mut disk = |device: &crate::io::Device, addr: u64| {
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
            let extent = T::map(inode, pos as u64, true)?;
            // SAFETY: `iomap` is ours to fill.
            Self::fill(inode, extent, unsafe { &mut *iomap });
            Ok(0)
        })
    }

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
            let read = unsafe { Self::read_folio_encoded(inode, folio) };
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
        let (ops, private) = (&Self::READ_MAP_OPS, (&raw const failure).cast_mut().cast());
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
            return Self::readahead_encoded(inode, readahead);
        }
        let mut ctx = bindings::iomap_read_folio_ctx {
            ops: Self::read_ops(inode),
            cur_folio: core::ptr::null_mut(),
            rac: readahead.as_ptr(),
            read_ctx: core::ptr::null_mut(),
            read_ctx_file_offset: 0,
            vi: core::ptr::null_mut(),
        };
        let (ops, none) = (&Self::READ_MAP_OPS, core::ptr::null_mut());
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
        unsafe { bindings::iomap_bmap(mapping, block, &Self::REPORT_MAP_OPS) }
    }

    /// `inode_operations::fiemap`
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`.
    /// * `info` is valid, and this callback's for the call.
    pub(super) unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        info: *mut bindings::fiemap_extent_info,
        start: u64,
        len: u64,
    ) -> c_int {
        // SAFETY: All arguments are the VFS's.
        unsafe { bindings::iomap_fiemap(inode, info, start, len, &Self::REPORT_MAP_OPS) }
    }

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
        let direct = fields.f_flags & bindings::O_DIRECT != 0;
        // Direct I/O goes to the block device; a backing file has none to offer, and what has to be
        // decoded is not there.
        if direct && (!inode.sb().is_block() || T::is_compressed(inode)) {
            return EINVAL.to_errno();
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
        let shared = unsafe { Self::share_file(inode, file) };
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
        let ops = &Self::REPORT_MAP_OPS;
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
            let (ops, none) = (&Self::READ_MAP_OPS, core::ptr::null_mut());
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
}
