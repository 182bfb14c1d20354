// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and POSIX ACLs.

use kernel::{error::from_result, prelude::*};

use super::{chars, FileSystem, Inode, Tables};
use crate::{bindings, compat::code::ENODATA, format::xattr::index};

/// Whether the task may see `trusted.*`.
pub(crate) fn may_see_trusted() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) }
}

const fn handler(
    prefix: &'static CStr,
    class: u8,
    get: unsafe extern "C" fn(
        *const bindings::xattr_handler,
        *mut bindings::dentry,
        *mut bindings::inode,
        *const c_char,
        *mut c_void,
        usize,
    ) -> c_int,
) -> bindings::xattr_handler {
    bindings::xattr_handler {
        prefix: chars(prefix),
        flags: class as i32,
        get: Some(get),
        ..pin_init::zeroed()
    }
}

impl<T: FileSystem> Tables<T> {
    const USER: bindings::xattr_handler = handler(c"user.", index::USER, Self::xattr_get);
    const TRUSTED: bindings::xattr_handler = handler(c"trusted.", index::TRUSTED, Self::xattr_get);
    const SECURITY: bindings::xattr_handler =
        handler(c"security.", index::SECURITY, Self::xattr_get);

    pub(super) const XATTR_HANDLERS: &'static [*const bindings::xattr_handler; 4] = &[
        &Self::USER,
        &Self::TRUSTED,
        &Self::SECURITY,
        core::ptr::null(),
    ];

    /// `xattr_handler::get`
    ///
    /// # Safety
    ///
    /// * `handler` is one of [`Tables::XATTR_HANDLERS`].
    /// * `inode` is a live inode of `T`.
    /// * `name` is NUL-terminated, and does not change during the call.
    /// * `buffer` is null, or writable for `size` bytes, and this callback's for the call.
    unsafe extern "C" fn xattr_get(
        handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *mut c_void,
        size: usize,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The VFS passes a live inode of `T`.
            let inode = unsafe { Inode::<T>::from_raw(inode) };
            // SAFETY: The handler is one of the table.
            let class = unsafe { (*handler).flags } as u8;
            // SAFETY: The name is NUL-terminated, and does not change during the call.
            let name = unsafe { CStr::from_char_ptr(name) }.to_bytes();
            // SAFETY: The buffer is null or writable for `size` bytes, and this call's.
            let out = unsafe { out_buffer(buffer, size) };
            Ok(i32::try_from(T::getxattr(inode, class, name, out)?)?)
        })
    }

    /// `inode_operations::listxattr`
    ///
    /// # Safety
    ///
    /// * `dentry` is live, and has an inode of `T`.
    /// * `buffer` is null, or writable for `size` bytes, and this callback's for the call.
    pub(super) unsafe extern "C" fn listxattr(
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
    pub(super) unsafe extern "C" fn get_inode_acl(
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
}

/// Returns the buffer of an attribute, if there is one.
///
/// # Safety
///
/// * `buffer` is null, or writable for `size` bytes for `'a`.
/// * Nothing else uses it for `'a`.
unsafe fn out_buffer<'a>(buffer: *mut c_void, size: usize) -> Option<&'a mut [u8]> {
    if buffer.is_null() || size == 0 {
        return None;
    }
    // SAFETY: By this function's requirements the buffer is writable for its size, and not used by
    // others.
    Some(unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) })
}
