// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/erofs-shared/shared_files`: the most shared files; `aliased_files`: those
//! with most blocks elsewhere.
//!
//! Not through the kernel crate's `debugfs`: its file operations have no owner, so a file that is
//! open while the module goes would be closed through a table that is gone with it. The table of
//! `debugfs_create_file_short` is used only by reads, for which a removal waits.

use kernel::{
    fmt::{self, Write},
    prelude::*,
};

use super::StatsProvider;

use crate::bindings;

/// Lines shown at most.
const LINES: usize = 100;

/// A shared file.
#[derive(Clone, Copy)]
pub(crate) struct SharedFile {
    /// Real inodes that share it.
    pub(crate) sharers: u32,
    /// Its resident pages.
    pub(crate) pages: u64,
    /// Blocks whose bytes are elsewhere.
    pub(crate) aliased: u64,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// What tells it from others: the start of a digest, shown in hexadecimal.
    pub(crate) key: [u8; 16],
}

impl SharedFile {
    /// Pages that are not resident because of sharing.
    fn saved(&self) -> u64 {
        self.pages
            .saturating_mul(u64::from(self.sharers.saturating_sub(1)))
    }
}

/// Longest line: a 32-bit and three 64-bit numbers, 32 digits, five separators.
const LINE: usize = 10 + 3 * 20 + 32 + 5;

/// What a list is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Files that several real inodes share, by what that saves.
    Sharers,
    /// Files of which blocks are elsewhere, by their number.
    Aliases,
}

/// Those of the files offered that have most of what the list is of, most first.
pub(crate) struct SharedFileList {
    of: Of,
    files: KVec<SharedFile>,
}

impl SharedFileList {
    fn new(of: Of) -> Result<Self> {
        Ok(Self {
            of,
            files: KVec::with_capacity(LINES, GFP_KERNEL)?,
        })
    }

    /// By how much a file is ahead; 0 if it is not to be shown.
    fn rank(&self, file: &SharedFile) -> u64 {
        match self.of {
            Of::Sharers if file.sharers < 2 => 0,
            // One without pages yet is shared, too.
            Of::Sharers => file.saved().saturating_add(1),
            Of::Aliases => file.aliased,
        }
    }

    /// Takes `file` if it belongs to the list. Allocates nothing, so it may be called with a
    /// spinlock held.
    pub(crate) fn offer(&mut self, file: SharedFile) {
        let rank = self.rank(&file);
        if rank == 0 {
            return;
        }
        let at = self.files.partition_point(|other| self.rank(other) >= rank);
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

/// The text of a file.
fn text(hooks: &StatsProvider, of: Of) -> Result<KVec<u8>> {
    let mut top = SharedFileList::new(of)?;
    (hooks.top)(&mut top);
    let mut out = Text(KVec::with_capacity(top.files.len() * LINE, GFP_KERNEL)?);
    for file in &top.files {
        if of == Of::Aliases {
            write!(out, "{} ", file.aliased)?;
        }
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

/// The files in debugfs; removed on drop, which waits for reads.
///
/// # Invariants
///
/// `directory` is what `debugfs_create_dir` returned, and ours.
pub(crate) struct SharedFileListRegistration {
    directory: *mut bindings::dentry,
}

// SAFETY: The registration is only ever dropped, which may happen on any thread.
unsafe impl Send for SharedFileListRegistration {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for SharedFileListRegistration {}

static SHARED_OPS: bindings::debugfs_short_fops = bindings::debugfs_short_fops {
    read: Some(read_top),
    write: None,
    llseek: Some(bindings::default_llseek),
};

static ALIASED_OPS: bindings::debugfs_short_fops = bindings::debugfs_short_fops {
    read: Some(read_aliases),
    write: None,
    llseek: Some(bindings::default_llseek),
};

impl SharedFileListRegistration {
    /// Makes the files. A kernel without debugfs, or one that refuses, has none: that is no error.
    pub(crate) fn new(hooks: &'static StatsProvider) -> Self {
        let (name, root) = (c"erofs-shared".as_char_ptr(), core::ptr::null_mut());
        // SAFETY: The name is NUL-terminated.
        let directory = unsafe { bindings::debugfs_create_dir(name, root) };
        let data = core::ptr::from_ref(hooks).cast_mut().cast();
        for (name, ops) in [
            (c"shared_files", &SHARED_OPS),
            (c"aliased_files", &ALIASED_OPS),
        ] {
            let (name, aux) = (name.as_char_ptr(), core::ptr::null());
            // SAFETY: The name is NUL-terminated; `hooks` and the table are static. debugfs takes
            // its own errors as arguments.
            unsafe { bindings::debugfs_create_file_short(name, 0o400, directory, data, aux, ops) };
        }
        // INVARIANT: It was just made.
        Self { directory }
    }
}

impl Drop for SharedFileListRegistration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the directory is ours. `debugfs_remove` takes errors, too.
        unsafe { bindings::debugfs_remove(self.directory) }
    }
}

/// `debugfs_short_fops::read` of `shared_files`
///
/// # Safety
///
/// * `file`, `buf`, `count` and `pos` are as [`read`] needs them.
unsafe extern "C" fn read_top(
    file: *mut bindings::file,
    buf: *mut c_char,
    count: usize,
    pos: *mut bindings::loff_t,
) -> isize {
    // SAFETY: The arguments are those of a `->read`, as `read` needs them.
    unsafe { read(file, buf, count, pos, Of::Sharers) }
}

/// `debugfs_short_fops::read` of `aliased_files`
///
/// # Safety
///
/// * `file`, `buf`, `count` and `pos` are as [`read`] needs them.
unsafe extern "C" fn read_aliases(
    file: *mut bindings::file,
    buf: *mut c_char,
    count: usize,
    pos: *mut bindings::loff_t,
) -> isize {
    // SAFETY: The arguments are those of a `->read`, as `read` needs them.
    unsafe { read(file, buf, count, pos, Of::Aliases) }
}

/// Each call makes the text anew, so only a reader with room for all of it sees one moment.
///
/// # Safety
///
/// * `file` is an open file that [`SharedFileListRegistration::new`] made: its private pointer is
///   that to the hooks.
/// * `buf` is a pointer to user memory for `count` bytes, which need not be valid.
/// * `pos` is valid, and this call's.
unsafe fn read(
    file: *mut bindings::file,
    buf: *mut c_char,
    count: usize,
    pos: *mut bindings::loff_t,
    of: Of,
) -> isize {
    // SAFETY: By this function's requirements the private pointer is that to the hooks, which are
    // constant.
    let hooks = unsafe { &*(*file).private_data.cast::<StatsProvider>() };
    match text(hooks, of) {
        // SAFETY: By this function's requirements `pos` is valid and `buf` is checked when it is
        // written to; the text is readable for its length.
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
