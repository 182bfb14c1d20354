// SPDX-License-Identifier: GPL-2.0

//! Registering a filesystem type.

use core::ptr::NonNull;

use kernel::{error::to_result, prelude::*, types::Opaque};

use super::{context, fs_type::Type, inode::InodeSlot, super_ops::SuperOps, FileSystem};
use crate::{bindings, io::inode_cache::InodeCache};

impl Type {
    /// Registers a type of `T` with this name.
    fn register<T: FileSystem>(
        name: &'static CStr,
        cache: NonNull<bindings::kmem_cache>,
        module: &'static ThisModule,
    ) -> Result<Registered> {
        let this = KBox::new(
            Self {
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
        let this = Registered(this);
        let fst = this.fst();
        // SAFETY: `fst` stays where it is until it is unregistered, and its keys with it.
        unsafe { bindings::fs_type_register_keys(fst) };
        // On failure the drop's unregistering is refused by the kernel, harmlessly.
        // SAFETY: `fst` stays where it is until it is unregistered.
        to_result(unsafe { bindings::register_filesystem(fst) })?;
        Ok(this)
    }
}

/// A [`Type`] that is registered; unregistered and freed on drop.
///
/// # Invariants
///
/// The type does not move.
struct Registered(KBox<Type>);

impl Registered {
    fn fst(&self) -> *mut bindings::file_system_type {
        self.0.fst.get()
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

/// A filesystem that is registered under one name, or more; unregistered on drop.
pub(crate) struct Registration<T: FileSystem> {
    also: Option<Registered>,
    _main: Registered,
    // The types use it.
    cache: InodeCache,
    _fs: core::marker::PhantomData<T>,
}

// SAFETY: The registration is only ever dropped, which may happen on any thread.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the filesystem by its own name, for `module`.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let size = size_of::<InodeSlot<T>>();
        // SAFETY: The constructor is that of `InodeSlot<T>`, which has this size.
        let cache = unsafe { InodeCache::new(T::SLAB, size, InodeSlot::<T>::init_once) }?;
        Ok(Self {
            _main: Type::register::<T>(T::NAME, cache.as_ptr(), module)?,
            also: None,
            cache,
            _fs: core::marker::PhantomData,
        })
    }

    /// Registers it by another name, too. `EBUSY` if that is taken.
    pub(crate) fn register_also(
        &mut self,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        self.also = Some(Type::register::<T>(name, self.cache.as_ptr(), module)?);
        Ok(())
    }
}
