// SPDX-License-Identifier: GPL-2.0

//! Directories in sysfs, and read-only files in them.
//!
//! The kobjects are the kernel's own dynamic ones (`kobject_create_and_add`), so their release
//! function is not in this module and may run after it is gone. What a file shows is found through
//! its attribute.

use core::ptr::NonNull;

use kernel::{error::to_result, prelude::*, sync::Arc};

use crate::{bindings, compat::kobj_attribute};

/// A directory. Removed on drop, which waits for readers of files in it.
///
/// # Invariants
///
/// `kobj` was added by `kobject_create_and_add` and its reference is ours. `_parent` keeps the
/// directory above it.
pub(super) struct Directory {
    kobj: NonNull<bindings::kobject>,
    _parent: Option<Arc<Directory>>,
}

// SAFETY: A kobject may be used and released from any thread.
unsafe impl Send for Directory {}
// SAFETY: A shared reference only serves to add below it, which sysfs locks.
unsafe impl Sync for Directory {}

impl Directory {
    /// `/sys/fs/NAME`
    pub(super) fn in_fs(name: &CStr) -> Result<Self> {
        Self::add(name, None)
    }

    /// `NAME` in `parent`
    pub(super) fn below(name: &CStr, parent: Arc<Directory>) -> Result<Self> {
        Self::add(name, Some(parent))
    }

    fn add(name: &CStr, parent: Option<Arc<Directory>>) -> Result<Self> {
        let above = match &parent {
            Some(parent) => parent.kobj.as_ptr(),
            // SAFETY: It is set at boot and stays.
            None => unsafe { bindings::fs_kobj },
        };
        // SAFETY: The name is copied; `above` is live, and stays so: the new directory keeps it, or
        // it is there for good.
        let kobj = unsafe { bindings::kobject_create_and_add(name.as_char_ptr(), above) };
        // It gives no reason. The kernel has logged one, unless memory is short.
        // INVARIANT: It was just added, and the caller has the reference.
        Ok(Self {
            kobj: NonNull::new(kobj).ok_or(ENOMEM)?,
            _parent: parent,
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: The directory is live (type invariants), and is removed once.
        unsafe { bindings::kobject_del(self.kobj.as_ptr()) };
        // SAFETY: The reference is this one's (type invariants), and not used any more.
        unsafe { bindings::kobject_put(self.kobj.as_ptr()) };
    }
}

/// What a file shows: one value and a newline.
pub(super) enum Value {
    /// A decimal number.
    Number(u64),
    /// A word.
    Word(&'static CStr),
}

/// What the files of a directory show.
pub(super) trait Show: Send + Sync + 'static {
    /// Whether the files are for the administrator only: mode 0400, and a reader needs
    /// `CAP_SYS_ADMIN`. The mode alone does not keep out the root user of a container that has no
    /// user namespace of its own.
    const PRIVATE: bool;

    /// The value of the file that was the `index`th of the names given. May sleep.
    fn show(&self, index: usize) -> Result<Value>;
}

/// One file.
///
/// # Invariants
///
/// While `attr` is in sysfs, it does not move.
#[repr(C)]
struct File<S> {
    attr: bindings::kobj_attribute,
    index: usize,
    source: Arc<S>,
}

/// A directory with files that show values of `S`.
///
/// # Invariants
///
/// The files in sysfs are those of `_files`, whose buffer is never reallocated. Fields are dropped
/// in this order: when `_directory` is gone, no file is read any more.
pub(super) struct Files<S: Show> {
    _directory: Directory,
    _files: KVec<File<S>>,
}

// SAFETY: Attributes may be used and removed from any thread; `S` is `Send` and `Sync`.
unsafe impl<S: Show> Send for Files<S> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<S: Show> Sync for Files<S> {}

impl<S: Show> Files<S> {
    /// Puts a file for each of `names` into `directory`. They can be read from now on.
    pub(super) fn new(
        directory: Directory,
        names: &[&'static CStr],
        source: Arc<S>,
    ) -> Result<Self> {
        let mut files = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        for (index, name) in names.iter().enumerate() {
            // Has more fields in a kernel with lockdep.
            let mut attr: bindings::attribute = pin_init::zeroed();
            attr.name = name.as_char_ptr();
            attr.mode = if S::PRIVATE { 0o400 } else { 0o444 };
            files.push(
                File {
                    attr: kobj_attribute(attr, Self::show),
                    index,
                    source: source.clone(),
                },
                GFP_KERNEL,
            )?;
        }
        // INVARIANT: `_files` is not touched again. Should a file be refused, the drop removes the
        // directory with those before it.
        let mut this = Self {
            _directory: directory,
            _files: files,
        };
        let kobj = this._directory.kobj.as_ptr();
        for file in &mut this._files {
            // SAFETY: The attribute is not in use yet.
            unsafe { bindings::attr_init(&mut file.attr.attr) };
        }
        for file in &this._files {
            let (attr, namespace) = (&file.attr.attr, core::ptr::null());
            // SAFETY: The directory is in sysfs; attribute and source live until it is removed.
            to_result(unsafe { bindings::sysfs_create_file_ns(kobj, attr, namespace) })?;
        }
        Ok(this)
    }

    /// `kobj_attribute::show`
    ///
    /// # Safety
    ///
    /// * `attr` is one of a directory of `Files<S>`, whose removal waits for this call.
    /// * `buf` is a page, and this call's.
    unsafe extern "C" fn show(
        _kobj: *mut bindings::kobject,
        attr: *mut bindings::kobj_attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: By this function's requirements `attr` lies in a `File<S>`, which is there for
        // the call, and of which nothing is written any more.
        let file = unsafe { &*kernel::container_of!(attr, File<S>, attr) };
        // SAFETY: Asks about the current task; may be called in any process context.
        if S::PRIVATE && !unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) } {
            return EPERM.to_errno() as isize;
        }
        let value = match file.source.show(file.index) {
            Ok(value) => value,
            Err(err) => return err.to_errno() as isize,
        };
        let (number, word) = (c"%llu\n".as_char_ptr(), c"%s\n".as_char_ptr());
        let len = match value {
            // SAFETY: By this function's requirements `buf` is a page; the format is a number's.
            Value::Number(n) => unsafe { bindings::sysfs_emit(buf, number, n) },
            // SAFETY: By this function's requirements `buf` is a page; the format is a string's.
            Value::Word(text) => unsafe { bindings::sysfs_emit(buf, word, text.as_char_ptr()) },
        };
        len as isize
    }
}
