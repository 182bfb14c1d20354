// SPDX-License-Identifier: GPL-2.0

//! Directories and symbolic links, and what every inode can be asked.

use kernel::{error::from_result, prelude::*, sync::aref::ARef, types::Opaque};

use super::{file::OpenFile, FileSystem, Inode, Tables};
use crate::{bindings, compat::code::ENAMETOOLONG, io::wait::is_dying};

/// Longest name that is looked up.
const NAME_MAX: usize = 255;

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

impl<T: FileSystem> Tables<T> {
    pub(super) const DIR_OPS: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: Some(Self::ioctl),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    pub(super) const FILE_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(Self::getattr),
        listxattr: Some(Self::listxattr),
        get_inode_acl: Some(Self::get_inode_acl),
        fiemap: Some(Self::fiemap),
        ..pin_init::zeroed()
    };

    pub(super) const DIR_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(Self::lookup),
        ..Self::FILE_INODE_OPS
    };

    pub(super) const SYMLINK_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        get_link: Some(bindings::page_get_link),
        fiemap: None,
        ..Self::FILE_INODE_OPS
    };

    pub(super) const FAST_SYMLINK_INODE_OPS: bindings::inode_operations =
        bindings::inode_operations {
            get_link: Some(bindings::simple_get_link),
            fiemap: None,
            ..Self::FILE_INODE_OPS
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
}
