// SPDX-License-Identifier: GPL-2.0

//! Registering a filesystem type.

use core::ptr::NonNull;

use kernel::{error::to_result, prelude::*, types::Opaque};

use super::{context, fs_type::Type, inode::InodeSlot, super_ops::SuperOps, FileSystem};
use crate::{bindings, io::inode_cache::InodeCache};

/// A [`Type`] that is registered, or is going to be; unregistered and freed on drop.
///
/// # Invariants
///
/// The type does not move.
struct Registered(KBox<Type>);

impl Registered {
    /// A type of `T` with this name.
    fn new<T: FileSystem>(
        name: &'static CStr,
        cache: NonNull<bindings::kmem_cache>,
        module: &'static ThisModule,
    ) -> Result<Self> {
        let this = KBox::new(
            Type {
                fst: Opaque::new(bindings::file_system_type {
                    name: name.as_char_ptr(),
                    fs_flags: (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP) as i32,
                    init_fs_context: Some(context::init::<T>),
                    parameters: T::PARAMS.as_ptr().cast(),
                    kill_sb: Some(SuperOps::<T>::kill_sb),
                    owner: module.as_ptr(),
                    ..pin_init::zeroed()
                }),
                cache,
            },
            GFP_KERNEL,
        )?;
        // INVARIANT: The box is not opened.
        let this = Self(this);
        let fst = this.fst();
        // SAFETY: `fst` stays where it is until it is unregistered, and its keys with it.
        unsafe { bindings::fs_type_register_keys(fst) };
        Ok(this)
    }

    fn fst(&self) -> *mut bindings::file_system_type {
        self.0.fst.get()
    }

    /// Registers it. `EBUSY` if its name is taken.
    fn register(&self) -> Result {
        // SAFETY: By the type invariants it stays where it is until the drop unregisters it.
        to_result(unsafe { bindings::register_filesystem(self.fst()) })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let fst = self.fst();
        // SAFETY: The type is live; one that is not registered is refused.
        unsafe { bindings::unregister_filesystem(fst) };
        // SAFETY: The type is not mounted any more after it is unregistered, and the module's last
        // superblock is gone.
        unsafe { bindings::fs_type_unregister_keys(fst) };
    }
}

/// Another name for a filesystem.
pub(crate) struct OtherName {
    /// The name.
    pub(crate) name: &'static CStr,
    /// Without it the filesystem is not registered at all.
    pub(crate) is_required: bool,
}

/// A filesystem that is registered under one name, or two; unregistered on drop.
pub(crate) struct Registration<T: FileSystem> {
    also: Option<Registered>,
    _main: Registered,
    // The types use it.
    _cache: InodeCache,
    _fs: core::marker::PhantomData<T>,
}

// SAFETY: The registration is only ever dropped, which may happen on any thread.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the filesystem by its own name, and by another one, for `module`. `EBUSY` if one
    /// that is required is taken.
    ///
    /// This is the last thing that can fail in a load: a module whose load fails is freed, however
    /// many contexts were opened meanwhile. So the name that may be taken is registered first, when
    /// there is nothing yet that could be opened.
    pub(crate) fn new(module: &'static ThisModule, other: Option<OtherName>) -> Result<Self> {
        let size = size_of::<InodeSlot<T>>();
        const { assert!(InodeSlot::<T>::INODE >= size_of::<usize>()) };
        // SAFETY: The constructor is that of `InodeSlot<T>`, which has this size. It initialises
        // the inode, which is not first in it.
        let cache = unsafe { InodeCache::new(T::SLAB, size, InodeSlot::<T>::init_once) }?;
        let main = Registered::new::<T>(T::NAME, cache.as_ptr(), module)?;
        let mut also = None;
        if let Some(OtherName { name, is_required }) = other {
            let other = Registered::new::<T>(name, cache.as_ptr(), module)?;
            match other.register() {
                Ok(()) => also = Some(other),
                Err(err) if err == EBUSY && !is_required => {}
                Err(err) => return Err(err),
            }
        }
        main.register()?;
        Ok(Self {
            also,
            _main: main,
            _cache: cache,
            _fs: core::marker::PhantomData,
        })
    }

    /// Whether it has the other name.
    pub(crate) fn has_other_name(&self) -> bool {
        self.also.is_some()
    }
}
