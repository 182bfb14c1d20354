// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/erofs-shared/top`: the most shared files.
//!
//! Not through the kernel crate's `debugfs`: its file operations have no owner, so a file that is open
//! while the module goes would be closed through a table that is gone with it. The table of
//! `debugfs_create_file_short` is used only by reads, for which a removal waits.

use kernel::{
    bindings, ffi,
    fmt::{self, Write},
    prelude::*,
};

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

/// Longest line: a 32-bit and two 64-bit numbers, 32 digits, four separators.
const LINE: usize = 10 + 2 * 20 + 32 + 4;

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

/// A text in memory that is allocated beforehand.
struct Text(KVec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0
            .extend_from_slice(text.as_bytes(), GFP_KERNEL)
            .map_err(|_| fmt::Error)
    }
}

/// The text of the file.
fn text(hooks: &Hooks) -> Result<KVec<u8>> {
    let mut top = Top::new()?;
    (hooks.top)(&mut top);
    let mut out = Text(KVec::with_capacity(top.files.len() * LINE, GFP_KERNEL)?);
    for file in &top.files {
        writeln!(
            out,
            "{} {} {} {:032x}",
            file.sharers,
            file.pages,
            file.size,
            u128::from_be_bytes(file.key)
        )?;
    }
    Ok(out.0)
}

/// The file in debugfs; removed on drop, which waits for reads.
///
/// # Invariants
///
/// `directory` is what `debugfs_create_dir` returned, and ours.
pub(crate) struct TopRegistration {
    directory: *mut bindings::dentry,
}

// SAFETY: The registration is only ever dropped, which may happen on any thread.
unsafe impl Send for TopRegistration {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for TopRegistration {}

static FILE_OPS: bindings::debugfs_short_fops = bindings::debugfs_short_fops {
    read: Some(read),
    write: None,
    llseek: Some(bindings::default_llseek),
};

impl TopRegistration {
    /// Makes the file. A kernel without debugfs, or one that refuses, has none: that is no error.
    pub(crate) fn new(hooks: &'static Hooks) -> Self {
        // SAFETY: The names are NUL-terminated; `hooks` and the table are static, and not used any more
        // after the removal. debugfs takes its own errors as arguments.
        let directory = unsafe {
            let directory =
                bindings::debugfs_create_dir(c"erofs-shared".as_char_ptr(), core::ptr::null_mut());
            bindings::debugfs_create_file_short(
                c"top".as_char_ptr(),
                0o400,
                directory,
                core::ptr::from_ref(hooks).cast_mut().cast(),
                core::ptr::null(),
                &FILE_OPS,
            );
            directory
        };
        // INVARIANT: It was just made.
        Self { directory }
    }
}

impl Drop for TopRegistration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. `debugfs_remove` takes errors, too.
        unsafe { bindings::debugfs_remove(self.directory) }
    }
}

/// Each call makes the text anew, so only a reader with room for all of it sees one moment.
///
/// # Safety
///
/// `debugfs_short_fops::read` of the file that [`TopRegistration::new`] makes: the file's private pointer is
/// that to the hooks; `buf` is `count` bytes of user memory, `pos` is ours for the call.
unsafe extern "C" fn read(
    file: *mut bindings::file,
    buf: *mut ffi::c_char,
    count: usize,
    pos: *mut bindings::loff_t,
) -> isize {
    // SAFETY: By the function's safety requirements; hooks are constant.
    let hooks = unsafe { &*(*file).private_data.cast::<Hooks>() };
    match text(hooks) {
        // SAFETY: By the function's safety requirements; the text is readable for its length.
        Ok(text) => unsafe {
            bindings::simple_read_from_buffer(
                buf.cast(),
                count,
                pos,
                text.as_ptr().cast(),
                text.len(),
            )
        },
        Err(err) => err.to_errno() as isize,
    }
}
