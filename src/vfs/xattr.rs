// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: `xattr_handler`s.

use core::marker::PhantomData;

use kernel::{error::from_result, prelude::*};

use super::{chars, FileSystem, Inode};
use crate::{bindings, format::xattr::index};

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

/// `xattr_handler`s of the superblocks of `T`.
pub(super) struct XattrHandlers<T>(PhantomData<T>);

impl<T: FileSystem> XattrHandlers<T> {
    const USER: bindings::xattr_handler = handler(c"user.", index::USER, Self::get);
    const TRUSTED: bindings::xattr_handler = handler(c"trusted.", index::TRUSTED, Self::get);
    const SECURITY: bindings::xattr_handler = handler(c"security.", index::SECURITY, Self::get);

    pub(super) const TABLE: &'static [*const bindings::xattr_handler; 4] = &[
        &Self::USER,
        &Self::TRUSTED,
        &Self::SECURITY,
        core::ptr::null(),
    ];

    /// `xattr_handler::get`
    ///
    /// # Safety
    ///
    /// * `handler` is one of [`XattrHandlers::TABLE`].
    /// * `inode` is a live inode of `T`.
    /// * `name` is NUL-terminated, and does not change during the call.
    /// * `buffer` is null, or writable for `size` bytes, and this callback's for the call.
    unsafe extern "C" fn get(
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
}

/// Returns the buffer of an attribute, if there is one.
///
/// # Safety
///
/// * `buffer` is null, or writable for `size` bytes for `'a`.
/// * Nothing else uses it for `'a`.
pub(super) unsafe fn out_buffer<'a>(buffer: *mut c_void, size: usize) -> Option<&'a mut [u8]> {
    if buffer.is_null() || size == 0 {
        return None;
    }
    // SAFETY: By this function's requirements the buffer is writable for its size, and not used by
    // others.
    Some(unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) })
}
