// SPDX-License-Identifier: GPL-2.0

//! Listing directories: their `file_operations`.

use core::marker::PhantomData;

use kernel::{error::from_result, prelude::*, types::Opaque};

use super::{file::OpenFile, file_ops::FileOps, FileSystem};
use crate::{bindings, io::wait::is_dying};

/// What `getdents` calls the file types of directory entries, `FT_*`.
const DT_OF_FT: [u32; 8] = [
    bindings::DT_UNKNOWN,
    bindings::DT_REG,
    bindings::DT_DIR,
    bindings::DT_CHR,
    bindings::DT_BLK,
    bindings::DT_FIFO,
    bindings::DT_SOCK,
    bindings::DT_LNK,
];

/// An open directory that is being listed.
pub(crate) struct OpenDir<'a> {
    file: &'a Opaque<bindings::file>,
}

impl OpenDir<'_> {
    /// Starts reading up to `pages` pages of the directory from `index` on, unless that is done.
    pub(crate) fn read_ahead(&self, index: u64, pages: u64) {
        let (file, index, pages) = (self.file.get(), index as usize, pages as usize);
        // SAFETY: The file is open for the callback that made this.
        let mapping = unsafe { (*file).f_mapping };
        // SAFETY: The file is open; the directory is locked for reading at least, and `f_ra` is per
        // file.
        unsafe { bindings::sync_readahead(mapping, file, index, pages) }
    }
}

/// Receives directory entries.
///
/// # Invariants
///
/// `ctx` is the live context of the listing.
pub(crate) struct DirEmitter<'a> {
    ctx: *mut bindings::dir_context,
    file: &'a Opaque<bindings::file>,
}

impl DirEmitter<'_> {
    /// Where the listing stands.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: By the type invariants the context is live, and used by this listing alone.
        unsafe { (*self.ctx).pos as u64 }
    }

    /// Moves the listing.
    pub(crate) fn set_pos(&mut self, pos: u64) {
        // SAFETY: By the type invariants the context is live, and used by this listing alone.
        unsafe { (*self.ctx).pos = pos.min(i64::MAX as u64) as i64 }
    }

    /// Gives an entry and moves behind its record of `size` bytes; `false` if the receiver has no
    /// room for it. `file_type` is an on-disk `FT_*`. This is `dir_emit()`.
    #[inline(always)]
    pub(crate) fn entry(&mut self, name: &[u8], ino: u64, file_type: u8, size: u32) -> bool {
        // SAFETY: By the type invariants the context is live, and used by this listing alone.
        let ctx = unsafe { &mut *self.ctx };
        let kind = DT_OF_FT.get(usize::from(file_type)).copied().unwrap_or(0);
        let Some(actor) = ctx.actor else {
            return false;
        };
        let (text, len) = (name.as_ptr().cast(), name.len() as i32);
        // SAFETY: The actor is the context's; the name is readable for its length (at most 255). No
        // type has bits that `ctx.dt_flags_mask` would have to allow.
        let taken = unsafe { actor(self.ctx, text, len, ctx.pos, ino, kind) };
        if taken {
            ctx.pos = ctx.pos.wrapping_add(size.into());
        }
        taken
    }

    /// Gives the entry `.`; `false` if the receiver has no room for it.
    pub(crate) fn dot(&mut self) -> bool {
        // SAFETY: By the type invariants; the file is the open directory.
        unsafe { bindings::dir_emit_dot(self.file.get(), self.ctx) }
    }

    /// Whether the task is being killed.
    pub(crate) fn interrupted(&self) -> bool {
        is_dying()
    }
}

/// `file_operations` of the directories of `T`.
pub(super) struct DirOps<T>(PhantomData<T>);

impl<T: FileSystem> DirOps<T> {
    pub(super) const TABLE: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        unlocked_ioctl: Some(FileOps::<T>::ioctl),
        compat_ioctl: Some(FileOps::<T>::ioctl),
        setlease: Some(bindings::setlease),
        ..pin_init::zeroed()
    };

    /// `file_operations::iterate_shared`
    ///
    /// # Safety
    ///
    /// * `file` is an open directory of `T`, and locked for reading at least.
    /// * `ctx` is live, and this callback's for the call.
    unsafe extern "C" fn iterate_shared(
        file: *mut bindings::file,
        ctx: *mut bindings::dir_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By this function's requirements an open directory of `T`.
            let dir = unsafe { OpenFile::<T>::from_raw(file) }.inode();
            // SAFETY: The same; `Opaque` is transparent.
            let file = unsafe { &*file.cast::<Opaque<_>>() };
            // INVARIANT: The context is live for this call.
            T::read_dir(dir, &OpenDir { file }, &mut DirEmitter { ctx, file })?;
            Ok(0)
        })
    }
}
