// SPDX-License-Identifier: GPL-2.0

//! Superblocks, and what they hold. Their operations are in [`super::super_ops`].

use core::ptr::NonNull;

use kernel::{
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
    },
    types::Opaque,
};

use super::Mount;
use crate::{
    bindings,
    io::{clock, device::SuperPtr},
    params,
    stats::Dev,
};

/// What `s_fs_info` points to: the source file (if the image is one) and the filesystem's state.
pub(super) struct SbInfo<T: Mount> {
    pub(super) source: Option<ARef<File>>,
    /// By which a mount of the same image file finds this superblock. Not a part of `info`, which
    /// `put_super` has to itself while others look at this.
    pub(super) key: Option<T::Key>,
    /// When a mount got the superblock by mount(2) the last time, or it was ready, by
    /// [`clock::now`]; 0: it is not ready yet, or being unmounted.
    pub(super) given_at: Atomic<i64>,
    /// Reads of image data under way whose end nothing else waits for; see
    /// [`InFlight`](super::in_flight::InFlight).
    pub(super) in_flight: Atomic<u32>,
    /// See [`SuperBlock::instance`].
    pub(super) instance: u64,
    pub(super) info: T::Info,
}

/// Whether a mount may take a superblock, by mount(2) if `oldapi`; notes it for that.
///
/// The kernel refuses a second mount of one superblock at one place with `EBUSY`, if mount(2) makes
/// it (`do_add_mount`); to in-tree erofs, which has a superblock for each mount of an image file,
/// that does not happen. Two threads that look whether an image is mounted at a place, see that it
/// is not, and mount it there (containerd 2.1 for layers that several images have) therefore get a
/// superblock each, if the second comes soon. With `fsopen` nothing is refused.
///
/// One that is not ready, or is being unmounted, is not waited for: its device may hang.
pub(super) fn take(given_at: &Atomic<i64>, oldapi: bool) -> bool {
    let given = given_at.load(Relaxed);
    let delay = i64::from(params::reuse_delay()) * 1_000_000;
    if given == 0 || !oldapi || delay == 0 {
        return given != 0;
    }
    let now = clock::now();
    let may = now.saturating_sub(given) >= delay;
    // The caller has `sb_lock`, but `kill_sb` has not.
    may && given_at.cmpxchg(given, now, Relaxed).is_ok()
}

/// Superblocks of the module so far, those included that came to nothing.
pub(super) static INSTANCES: Atomic<u64> = Atomic::new(0);

/// A superblock of `T`.
///
/// # Invariants
///
/// `s_fs_info` points to a `SbInfo<T>` that lives until `kill_sb`.
#[repr(transparent)]
pub(crate) struct SuperBlock<T: Mount> {
    sb: Opaque<bindings::super_block>,
    _fs: core::marker::PhantomData<T>,
}

/// `statfs` figures.
pub(crate) struct Stat {
    /// Blocks in all.
    pub(crate) blocks: u64,
    /// Inodes in all.
    pub(crate) inodes: u64,
    /// Longest name.
    pub(crate) name_len: u32,
}

/// Where mount options are shown.
pub(crate) struct Options<'a>(&'a Opaque<bindings::seq_file>);

impl Options<'_> {
    /// # Safety
    ///
    /// * `seq` is live for the result's lifetime.
    /// * It is the caller's to write to.
    pub(super) unsafe fn from_raw(seq: *mut bindings::seq_file) -> Self {
        // SAFETY: By this function's requirements `seq` is live; `Opaque` is transparent.
        Self(unsafe { &*seq.cast() })
    }

    /// Appends `text`, which starts with a comma.
    pub(crate) fn put(&self, text: &CStr) {
        // SAFETY: The seq_file is live for the callback that made this.
        unsafe { bindings::__seq_puts(self.0.get(), text.as_char_ptr()) }
    }

    /// Appends `text` and a number.
    pub(crate) fn put_number(&self, text: &CStr, number: u64) {
        // SAFETY: The seq_file is live for the callback that made this.
        unsafe { bindings::seq_put_decimal_ull(self.0.get(), text.as_char_ptr(), number) }
    }

    /// Appends `,name=` and a string, escaped.
    pub(crate) fn put_string(&self, text: &CStr, value: &CStr) {
        self.put(text);
        let (how, only) = (bindings::ESCAPE_OCTAL, c" \t\n\\,".as_char_ptr());
        let (seq, value, len) = (self.0.get(), value.as_char_ptr(), value.to_bytes().len());
        // SAFETY: The seq_file is live for the callback that made this; the strings are
        // NUL-terminated.
        unsafe { bindings::seq_escape_mem(seq, value, len, how, only) }
    }
}

impl<T: Mount> SuperBlock<T> {
    /// Returns the superblock as one of `T`.
    ///
    /// # Safety
    ///
    /// * `sb` is a superblock of `T`, whose `s_fs_info` is set.
    /// * It is live for `'a`.
    pub(super) unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: By this function's requirements the superblock is live for `'a`; the type is
        // transparent.
        unsafe { &*sb.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::super_block {
        self.sb.get()
    }

    /// For devices that are claimed in the name of this superblock.
    pub(crate) fn owner(&self) -> SuperPtr {
        // SAFETY: The filesystem keeps its devices in `T::Info`, which `kill_sb` drops while the
        // superblock is still allocated.
        unsafe { SuperPtr::new(NonNull::from(&self.sb).cast()) }
    }

    /// What it holds. Its fields are not all to be looked at at the same times.
    fn private(&self) -> *mut SbInfo<T> {
        // SAFETY: By the type invariants the superblock is live, and the pointer constant.
        unsafe { (*self.as_ptr()).s_fs_info.cast() }
    }

    /// The filesystem's state.
    pub(crate) fn info(&self) -> &T::Info {
        // SAFETY: By the type invariants; it is only shared as long as the superblock lives.
        unsafe { &(*self.private()).info }
    }

    /// What mounts of the same image file find it by, if it has that.
    pub(super) fn key(&self) -> Option<&T::Key> {
        // SAFETY: By the type invariants `s_fs_info` is a `SbInfo<T>`, whose key is set before the
        // superblock is found by others, and is only shared as long as it lives.
        unsafe { (*self.private()).key.as_ref() }
    }

    /// Its device number, which `stat` shows for its files.
    pub(crate) fn dev(&self) -> Dev {
        // SAFETY: Live superblock; the number is set before `fill_super`.
        Dev(unsafe { (*self.as_ptr()).s_dev })
    }

    /// How many [`InFlight`](super::in_flight::InFlight) there are.
    pub(super) fn in_flight(&self) -> &Atomic<u32> {
        // SAFETY: By the type invariants; it is only shared as long as the superblock lives.
        unsafe { &(*self.private()).in_flight }
    }

    /// Its number among all superblocks since the module was loaded: none has the same.
    pub(super) fn instance(&self) -> u64 {
        // SAFETY: By the type invariants `s_fs_info` is a `SbInfo<T>`; the number is constant.
        unsafe { (*self.private()).instance }
    }

    /// The name by which messages call it: that of the device.
    pub(crate) fn id(&self) -> &CStr {
        // SAFETY: `s_id` is NUL-terminated and does not change after `fill_super` has set it.
        unsafe { CStr::from_char_ptr((*self.as_ptr()).s_id.as_ptr()) }
    }

    /// Whether it is on a block device.
    pub(crate) fn is_block(&self) -> bool {
        self.bdev().is_some()
    }

    /// Its block device, if it is on one.
    pub(super) fn bdev(&self) -> Option<NonNull<bindings::block_device>> {
        // SAFETY: By the type invariants the superblock is live; the field is constant.
        NonNull::new(unsafe { (*self.as_ptr()).s_bdev })
    }

    /// Whether POSIX ACLs are on.
    pub(crate) fn posix_acl(&self) -> bool {
        // SAFETY: Live superblock.
        unsafe { (*self.as_ptr()).s_flags & bindings::SB_POSIXACL as usize != 0 }
    }

    /// Sets what the image's superblock says. Only for `fill_super`.
    pub(crate) fn identify(&self, block_bits: u8, uuid: &[u8; 16]) {
        let (sb, size) = (self.as_ptr(), 1usize.wrapping_shl(block_bits.into()));
        // SAFETY: `fill_super` has the superblock to itself.
        unsafe { (*sb).s_blocksize = size };
        // SAFETY: `fill_super` has the superblock to itself.
        unsafe { (*sb).s_blocksize_bits = block_bits };
        // SAFETY: `fill_super` has the superblock to itself; the UUID is as long as is said.
        unsafe { bindings::super_identify(sb, uuid.as_ptr(), uuid.len() as u32) };
    }
}
