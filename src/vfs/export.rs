// SPDX-License-Identifier: GPL-2.0

//! File handles (`name_to_handle_at`, NFS export). In the same format as in-tree erofs: the 64-bit
//! number as two words, high first, and a generation of 0.

use core::marker::PhantomData;

use kernel::{prelude::*, sync::aref::ARef};

use super::{FileSystem, Inode, InodeRef, SuperBlock};
use crate::{bindings, compat::code::ESTALE};

/// Words for one inode.
const WORDS: usize = 3;

fn alias<T: FileSystem>(inode: Result<InodeRef<T>>) -> *mut bindings::dentry {
    match inode {
        // SAFETY: `d_obtain_alias` takes the reference.
        Ok(inode) => unsafe { bindings::d_obtain_alias(ARef::into_raw(inode).as_ptr().cast()) },
        Err(err) => err.to_ptr(),
    }
}

/// Only a directory can be a parent. A made-up handle can name anything, and so can the `..` of a
/// hostile image; exportfs does not look.
fn directory<T: FileSystem>(inode: InodeRef<T>) -> Result<InodeRef<T>> {
    if inode.mode() & bindings::S_IFMT == bindings::S_IFDIR {
        Ok(inode)
    } else {
        Err(ESTALE)
    }
}

/// `export_operations` of the superblocks of `T`.
pub(super) struct ExportOps<T>(PhantomData<T>);

impl<T: FileSystem> ExportOps<T> {
    // CAST: The struct is one of the raw bindings; the kernel crate has it without its fields.
    pub(super) const TABLE: &'static bindings::export_operations = &bindings::export_operations {
        encode_fh: Some(Self::encode_fh),
        fh_to_dentry: Some(Self::fh_to_dentry),
        fh_to_parent: Some(Self::fh_to_parent),
        get_parent: Some(Self::get_parent),
        ..pin_init::zeroed()
    };

    /// `export_operations::encode_fh`
    ///
    /// # Safety
    ///
    /// * `inode` is a live inode of `T`, `parent` null or one, too.
    /// * `max_len` is valid, and `fh` writable for that number of words.
    unsafe extern "C" fn encode_fh(
        inode: *mut bindings::inode,
        fh: *mut u32,
        max_len: *mut c_int,
        parent: *mut bindings::inode,
    ) -> c_int {
        let words = if parent.is_null() { WORDS } else { 2 * WORDS };
        // SAFETY: By this function's requirements `max_len` is valid.
        let room = unsafe { core::ptr::replace(max_len, words as i32) };
        if room < words as i32 {
            return bindings::fid_type_FILEID_INVALID as i32;
        }
        for (i, inode) in [inode, parent].iter().take(words / WORDS).enumerate() {
            // SAFETY: By this function's requirements both are live inodes of `T`; the second is
            // not null, since there are words for it.
            let inode = unsafe { Inode::<T>::from_raw(*inode) };
            let Ok(handle) = T::handle(inode) else {
                return bindings::fid_type_FILEID_INVALID as i32;
            };
            // SAFETY: The inode is live; the field is constant.
            let generation = unsafe { (*inode.as_ptr()).i_generation };
            let values = [(handle >> 32) as u32, handle as u32, generation];
            // SAFETY: By this function's requirements there is room for `words` words.
            unsafe { fh.add(i * WORDS).cast::<[u32; WORDS]>().write(values) };
        }
        if words == WORDS {
            bindings::fid_type_FILEID_INO64_GEN as i32
        } else {
            bindings::fid_type_FILEID_INO64_GEN_PARENT as i32
        }
    }

    /// # Safety
    ///
    /// * `sb` is a live superblock of `T`.
    /// * `fid` is readable for `len` words of 32 bits, at any alignment.
    unsafe fn decode(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        start: usize,
    ) -> Option<Result<InodeRef<T>>> {
        if len < (start + WORDS) as i32 {
            return None;
        }
        let words = fid.cast::<u32>().wrapping_add(start).cast::<[u32; 2]>();
        // SAFETY: By this function's requirements there are `len` words, which are enough.
        let [high, low] = unsafe { words.read_unaligned() }.map(u64::from);
        // SAFETY: The superblock is a live one of `T`.
        let sb = unsafe { SuperBlock::from_raw(sb) };
        Some(T::inode_by_handle(sb, (high << 32) | low))
    }

    /// `export_operations::fh_to_dentry`
    ///
    /// # Safety
    ///
    /// * `sb` is a live superblock of `T`.
    /// * `fid` is readable for `len` words of 32 bits.
    unsafe extern "C" fn fh_to_dentry(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        match kind as u32 {
            bindings::fid_type_FILEID_INO64_GEN | bindings::fid_type_FILEID_INO64_GEN_PARENT => {
                // SAFETY: The VFS passes `len` words.
                unsafe { Self::decode(sb, fid, len, 0) }.map_or(core::ptr::null_mut(), alias)
            }
            _ => core::ptr::null_mut(),
        }
    }

    /// `export_operations::fh_to_parent`
    ///
    /// # Safety
    ///
    /// * `sb` is a live superblock of `T`.
    /// * `fid` is readable for `len` words of 32 bits.
    unsafe extern "C" fn fh_to_parent(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        if kind as u32 != bindings::fid_type_FILEID_INO64_GEN_PARENT {
            return core::ptr::null_mut();
        }
        // SAFETY: The VFS passes `len` words.
        let parent = unsafe { Self::decode(sb, fid, len, WORDS) };
        parent.map_or(core::ptr::null_mut(), |inode| {
            alias(inode.and_then(directory))
        })
    }

    /// `export_operations::get_parent`
    ///
    /// # Safety
    ///
    /// * `child` is a live dentry of a directory of `T`.
    unsafe extern "C" fn get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: The dentry is that of a directory of `T`.
        let dir = unsafe { Inode::<T>::from_raw((*child).d_inode) };
        let parent = T::lookup(dir, b"..").and_then(|found| found.ok_or(ENOENT));
        alias(parent.and_then(directory))
    }
}
