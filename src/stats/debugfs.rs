// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/erofs-shared/top`: the most shared files.
//!
//! Not through the kernel crate's `debugfs`: its file operations have no owner, so a file that is open
//! while the module goes would be closed through a table that is gone with it. Here an open file keeps the
//! module.

use core::ptr::NonNull;

use kernel::{bindings, ffi, prelude::*, seq_file::SeqFile, seq_print};

use super::Hooks;

/// Lines shown at most.
const LINES: usize = 100;

/// A shared file.
#[derive(Clone, Copy)]
pub(crate) struct TopFile {
    /// Real inodes that share it.
    pub(crate) sharers: u32,
    /// Its resident pages.
    pub(crate) pages: u64,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// What tells it from others: the start of a digest, shown in hexadecimal.
    pub(crate) key: [u8; 16],
}

impl TopFile {
    /// Pages that are not resident because of sharing.
    fn saved(&self) -> u64 {
        self.pages
            .saturating_mul(u64::from(self.sharers.saturating_sub(1)))
    }
}

/// Those of the files offered that save most, most first.
pub(crate) struct Top {
    files: KVec<TopFile>,
}

impl Top {
    fn new() -> Result<Self> {
        Ok(Self {
            files: KVec::with_capacity(LINES, GFP_KERNEL)?,
        })
    }

    /// Takes `file` if it belongs to the list. Allocates nothing, so it may be called with a spinlock held.
    pub(crate) fn offer(&mut self, file: TopFile) {
        if file.sharers < 2 {
            return;
        }
        let at = self
            .files
            .partition_point(|other| other.saved() >= file.saved());
        if at >= LINES {
            return;
        }
        if self.files.len() >= LINES {
            self.files.pop();
        }
        // There is room, so this does not fail.
        if self.files.push_within_capacity(file).is_ok() {
            self.files[at..].rotate_right(1);
        }
    }
}

/// # Invariants
///
/// Does not move or change until nobody can reach the file in debugfs any more.
struct Inner {
    fops: bindings::file_operations,
    hooks: &'static Hooks,
}

/// The file in debugfs; removed on drop. Must be the last that a module's init makes, because an open file
/// keeps the module, but not one whose init fails.
///
/// # Invariants
///
/// `directory` is what `debugfs_create_dir` returned. `inner` came from `KBox`.
pub(crate) struct TopRegistration {
    directory: *mut bindings::dentry,
    inner: NonNull<Inner>,
}

// SAFETY: The registration is only ever dropped, which may happen on any thread.
unsafe impl Send for TopRegistration {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for TopRegistration {}

impl TopRegistration {
    /// Makes the file. A kernel without debugfs, or one that refuses, has none: that is no error.
    pub(crate) fn new(module: &'static ThisModule, hooks: &'static Hooks) -> Result<Self> {
        let inner = KBox::new(
            Inner {
                fops: bindings::file_operations {
                    owner: module.as_ptr(),
                    open: Some(open),
                    read: Some(bindings::seq_read),
                    llseek: Some(bindings::seq_lseek),
                    release: Some(bindings::single_release),
                    ..pin_init::zeroed()
                },
                hooks,
            },
            GFP_KERNEL,
        )?;
        let inner = NonNull::from(KBox::leak(inner));
        // SAFETY: The names are NUL-terminated. `inner` lives until the file is removed and, because open
        // files keep the module, until none is open. debugfs takes its own errors as arguments.
        let directory = unsafe {
            let directory =
                bindings::debugfs_create_dir(c"erofs-shared".as_char_ptr(), core::ptr::null_mut());
            bindings::debugfs_create_file_full(
                c"top".as_char_ptr(),
                0o400,
                directory,
                inner.as_ptr().cast(),
                core::ptr::null(),
                &raw const (*inner.as_ptr()).fops,
            );
            directory
        };
        // INVARIANT: See above.
        Ok(Self { directory, inner })
    }
}

impl Drop for TopRegistration {
    fn drop(&mut self) {
        // SAFETY: `debugfs_remove` takes what `debugfs_create_dir` returns, errors included, and waits for
        // calls under way. Afterwards nobody opens the file; as the module is going, no file is open.
        unsafe {
            bindings::debugfs_remove(self.directory);
            drop(KBox::from_raw(self.inner.as_ptr()));
        }
    }
}

/// # Safety
///
/// `file_operations::open`: the inode's private pointer is to an `Inner` that outlives the open file.
unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
    // SAFETY: By the function's safety requirements; `show` gets the pointer to the `Inner`.
    unsafe { bindings::single_open(file, Some(show), (*inode).i_private) }
}

/// # Safety
///
/// `seq_operations::show` of a file that [`open`] opened.
unsafe extern "C" fn show(seq: *mut bindings::seq_file, _: *mut ffi::c_void) -> ffi::c_int {
    kernel::error::from_result(|| {
        // SAFETY: `open` set the private pointer to an `Inner` that outlives the file; nobody writes it.
        let hooks = unsafe { (*(*seq).private.cast::<Inner>()).hooks };
        // SAFETY: The file is live for the call.
        let out = unsafe { SeqFile::from_raw(seq) };
        let mut top = Top::new()?;
        (hooks.top)(&mut top);
        for file in &top.files {
            seq_print!(out, "{} {} {} ", file.sharers, file.pages, file.size);
            for byte in file.key {
                seq_print!(out, "{byte:02x}");
            }
            seq_print!(out, "\n");
        }
        Ok(0)
    })
}
