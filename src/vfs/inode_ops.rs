// SPDX-License-Identifier: GPL-2.0

//! Names in directories, and what every inode can be asked: `inode_operations`.

use core::marker::PhantomData;

use kernel::{prelude::*, sync::aref::ARef};

use super::{iomap::IomapOps, xattr::out_buffer, FileSystem, Inode};
use crate::{
    bindings,
    compat::code::{ENAMETOOLONG, ENODATA},
    format::xattr::index,
};

/// Longest name that is looked up.
const NAME_MAX: usize = 255;

/// `inode_operations` of the inodes of `T`, by their type.
pub(super) struct InodeOps<T>(PhantomData<T>);

impl<T: FileSystem> InodeOps<T> {
    pub(super) const FILE: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(Self::getattr),
        listxattr: Some(Self::listxattr),
        get_inode_acl: Some(Self::get_inode_acl),
        fiemap: Some(Self::fiemap),
        ..pin_init::zeroed()
    };

    pub(super) const DIR: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(Self::lookup),
        ..Self::FILE
    };

    pub(super) const SYMLINK: bindings::inode_operations = bindings::inode_operations {
        get_link: Some(bindings::page_get_link),
        fiemap: None,
        ..Self::FILE
    };

    pub(super) const FAST_SYMLINK: bindings::inode_operations = bindings::inode_operations {
        get_link: Some(bindings::simple_get_link),
        fiemap: None,
        ..Self::FILE
    };

    /// `inode_operations::lookup`
    ///
    /// # Safety
    ///
    /// * `dir` is a live directory of `T`, and locked.
    /// * `dentry` is new, has a name, and is this callback's to complete.
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: The directory is a live inode of `T`.
        let dir = unsafe { Inode::<T>::from_raw(dir) };
        // SAFETY: The dentry is new and ours; its name does not change while the directory is
        // locked.
        let qstr = unsafe { &(*dentry).__bindgen_anon_1.d_name };
        // SAFETY: The same; the length is always set.
        let len = unsafe { qstr.__bindgen_anon_1.__bindgen_anon_1.len } as usize;
        // SAFETY: The name has this length, and does not change.
        let name = unsafe { core::slice::from_raw_parts(qstr.name, len) };
        if name.len() > NAME_MAX {
            return ENAMETOOLONG.to_ptr();
        }
        let inode = match T::lookup(dir, name) {
            Ok(Some(inode)) => ARef::into_raw(inode).as_ptr().cast(),
            Ok(None) => core::ptr::null_mut(),
            Err(err) => err.to_ptr(),
        };
        // SAFETY: `d_splice_alias` takes the inode's reference, and passes an error pointer on.
        unsafe { bindings::d_splice_alias(inode, dentry) }
    }

    /// `inode_operations::getattr`
    ///
    /// # Safety
    ///
    /// * `path` is one of a live inode of `T`, in a mount with `idmap`.
    /// * `stat` is this callback's to fill.
    unsafe extern "C" fn getattr(
        idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        request_mask: u32,
        _flags: c_uint,
    ) -> c_int {
        // SAFETY: By this function's requirements the dentry is live, and so is its inode, one of
        // `T`.
        let inode = unsafe { Inode::<T>::from_raw((*(*path).dentry).d_inode) };
        // SAFETY: By this function's requirements `stat` is this callback's to fill.
        let out = unsafe { &mut *stat };
        let immutable = u64::from(bindings::STATX_ATTR_IMMUTABLE);
        let compressed = u64::from(bindings::STATX_ATTR_COMPRESSED);
        let is_compressed = T::attributes(inode).compressed;
        out.attributes |= immutable | if is_compressed { compressed } else { 0 };
        out.attributes_mask |= immutable | compressed;
        let fill = move |out: &mut bindings::kstat| -> c_int {
            // SAFETY: The arguments are those of this callback.
            unsafe { bindings::generic_fillattr(idmap, request_mask, inode.as_ptr(), out) };
            0
        };
        if request_mask & bindings::STATX_DIOALIGN != 0 {
            return Self::direct_io_alignment(inode, is_compressed, out, fill);
        }
        fill(out)
    }

    /// Says how direct I/O has to be aligned, and calls `fill`. Nothing says that there is none: on
    /// a backing file, or of compressed data.
    #[cold]
    #[inline(never)]
    fn direct_io_alignment(
        inode: &Inode<T>,
        is_compressed: bool,
        out: &mut bindings::kstat,
        fill: impl FnOnce(&mut bindings::kstat) -> c_int,
    ) -> c_int {
        if inode.mode() & bindings::S_IFMT != bindings::S_IFREG {
            return fill(out);
        }
        out.result_mask |= bindings::STATX_DIOALIGN;
        if let Some(bdev) = inode.sb().bdev().filter(|_| !is_compressed) {
            // SAFETY: The superblock holds its device open.
            out.dio_mem_align = unsafe { bindings::bdev_dma_align(bdev.as_ptr()) };
            // SAFETY: The superblock holds its device open.
            out.dio_offset_align = unsafe { bindings::bdev_block_size(bdev.as_ptr()) };
        }
        fill(out)
    }

    /// `inode_operations::listxattr`
    ///
    /// # Safety
    ///
    /// * `dentry` is live, and has an inode of `T`.
    /// * `buffer` is null, or writable for `size` bytes, and this callback's for the call.
    unsafe extern "C" fn listxattr(
        dentry: *mut bindings::dentry,
        buffer: *mut c_char,
        size: usize,
    ) -> isize {
        // SAFETY: The dentry is live, and has an inode of `T`.
        let inode = unsafe { Inode::<T>::from_raw((*dentry).d_inode) };
        // SAFETY: The buffer is null or writable for `size` bytes, and this call's.
        let out = unsafe { out_buffer(buffer.cast(), size) };
        match T::listxattr(inode, out) {
            Ok(len) => len as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// `inode_operations::get_inode_acl`
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`.
    unsafe extern "C" fn get_inode_acl(
        inode: *mut bindings::inode,
        kind: c_int,
        rcu: bool,
    ) -> *mut bindings::posix_acl {
        if rcu {
            return ECHILD.to_ptr();
        }
        let class = match kind as u32 {
            bindings::ACL_TYPE_ACCESS => index::POSIX_ACL_ACCESS,
            bindings::ACL_TYPE_DEFAULT => index::POSIX_ACL_DEFAULT,
            _ => return EINVAL.to_ptr(),
        };
        let read = || -> Result<Option<KVec<u8>>> {
            // SAFETY: A live inode of `T`.
            let inode = unsafe { Inode::<T>::from_raw(inode) };
            let len = match T::getxattr(inode, class, b"", None) {
                Err(err) if err == ENODATA => return Ok(None),
                other => other?,
            };
            let mut value = KVec::from_elem(0u8, len, GFP_KERNEL)?;
            let got = T::getxattr(inode, class, b"", Some(&mut value))?;
            value.truncate(got);
            Ok(Some(value))
        };
        match read() {
            Ok(None) => core::ptr::null_mut(),
            Ok(Some(value)) => {
                let (value, len) = (value.as_ptr().cast(), value.len());
                // SAFETY: The value is readable for its length; the result is an ACL or an error
                // pointer.
                unsafe { bindings::acl_from_xattr(value, len) }
            }
            Err(err) => err.to_ptr(),
        }
    }

    /// `inode_operations::fiemap`
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`.
    /// * `info` is valid, and this callback's for the call.
    unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        info: *mut bindings::fiemap_extent_info,
        start: u64,
        len: u64,
    ) -> c_int {
        // SAFETY: All arguments are the VFS's.
        unsafe { bindings::iomap_fiemap(inode, info, start, len, &IomapOps::<T>::REPORT) }
    }
}
