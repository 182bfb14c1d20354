// SPDX-License-Identifier: GPL-2.0

//! Registering a filesystem type.

use core::ptr::NonNull;

use kernel::{bindings, error::to_result, prelude::*, types::Opaque};

use super::{context, inode::Node, FileSystem, Tables};
use crate::raw;

/// # Invariants
///
/// `fst` is registered, `cache` has objects for `Node<T>`.
struct Inner {
    fst: Opaque<bindings::file_system_type>,
    cache: NonNull<bindings::kmem_cache>,
}

/// A registered filesystem type; unregistered on drop.
pub(crate) struct Registration<T: FileSystem> {
    inner: NonNull<Inner>,
    _fs: core::marker::PhantomData<T>,
}

// SAFETY: The registration is only ever dropped, which may happen on any thread.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

/// The slab for inodes of a registered type.
///
/// # Safety
///
/// `fst` must be the type that a `Registration<T>` registered.
pub(super) unsafe fn inode_cache<T: FileSystem>(
    fst: *mut bindings::file_system_type,
) -> *mut bindings::kmem_cache {
    // SAFETY: By the function's safety requirements it lies in an `Inner`.
    unsafe {
        (*kernel::container_of!(Opaque::cast_from(fst), Inner, fst))
            .cache
            .as_ptr()
    }
}

impl<T: FileSystem> Registration<T> {
    /// Registers the type in the name of `module`.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The name is NUL-terminated, the constructor fits the objects.
        let cache = unsafe {
            raw::erofs_shared_inode_cache_create(
                T::SLAB.as_char_ptr(),
                core::mem::size_of::<Node<T>>() as u32,
                Some(Node::<T>::init_once),
            )
        };
        let cache = NonNull::new(cache).ok_or(ENOMEM)?;
        let inner = KBox::new(
            Inner {
                fst: Opaque::new(bindings::file_system_type {
                    name: T::NAME.as_char_ptr(),
                    fs_flags: (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP) as i32,
                    init_fs_context: Some(context::init::<T>),
                    parameters: T::PARAMS.as_ptr().cast(),
                    kill_sb: Some(Tables::<T>::kill_sb),
                    owner: module.as_ptr(),
                    ..pin_init::zeroed()
                }),
                cache,
            },
            GFP_KERNEL,
        );
        let inner = match inner {
            Ok(inner) => inner,
            Err(err) => {
                // SAFETY: The cache was never used.
                unsafe { bindings::kmem_cache_destroy(cache.as_ptr()) };
                return Err(err.into());
            }
        };
        let inner = NonNull::from(KBox::leak(inner));
        // INVARIANT: Registered below, or dropped.
        // SAFETY: `fst` stays where it is until it is unregistered.
        let ret = to_result(unsafe {
            raw::erofs_shared_fs_type_register_keys(inner.as_ref().fst.get());
            bindings::register_filesystem(inner.as_ref().fst.get())
        });
        let this = Self {
            inner,
            _fs: core::marker::PhantomData,
        };
        // On failure the drop's unregistering is refused by the kernel, harmlessly.
        ret.map(|()| this)
    }
}

impl<T: FileSystem> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: The box was leaked by `new`; nobody mounts the type any more after it is
        // unregistered, and the module's last superblock is gone. Inodes are freed after a grace
        // period, which `rcu_barrier` waits for before the slab goes.
        unsafe {
            bindings::unregister_filesystem(self.inner.as_ref().fst.get());
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(self.inner.as_ref().cache.as_ptr());
            raw::erofs_shared_fs_type_unregister_keys(self.inner.as_ref().fst.get());
            drop(KBox::from_raw(self.inner.as_ptr()));
        }
    }
}
