// SPDX-License-Identifier: GPL-2.0

//! A value in memory of its own that is made when it is first needed, and stays. A wrapper module.

use core::{marker::PhantomData, pin::Pin};

use kernel::{
    alloc::Flags,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full},
};

/// At most one value, which is made once.
///
/// # Invariants
///
/// Null, or from `KBox::into_raw` of a pinned box that this owns. It changes from null once, and
/// back when no reference to the value is used any more.
pub(crate) struct OnceBox<T>(Atomic<*mut T>, PhantomData<KBox<T>>);

// SAFETY: It is a box, which may be sent if the value may be.
unsafe impl<T: Send> Send for OnceBox<T> {}
// SAFETY: It gives out shared references only. One thread may make the value, another drop it.
unsafe impl<T: Send + Sync> Sync for OnceBox<T> {}

impl<T> OnceBox<T> {
    /// No value yet.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Null.
        Self(Atomic::new(core::ptr::null_mut()), PhantomData)
    }

    /// The value, if it is made.
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: By the type invariants it is null or valid as long as `self` is. `Acquire` pairs
        // with `get_or_init`, so that the value is seen as it was initialised.
        unsafe { self.0.load(Acquire).as_ref() }
    }

    /// The value, which is made if it is not yet, of memory with these flags. Whether it was made
    /// by this call is the second part.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn get_or_init(&self, init: impl PinInit<T>, flags: Flags) -> Result<(&T, bool)> {
        if let Some(value) = self.get() {
            return Ok((value, false));
        }
        let new = KBox::pin_init(init, flags)?;
        // SAFETY: It is not moved until it is dropped.
        let new = KBox::into_raw(unsafe { Pin::into_inner_unchecked(new) });
        // INVARIANT: It is from a pinned box, and was null.
        let made = self.0.cmpxchg(core::ptr::null_mut(), new, Full).is_ok();
        if !made {
            // SAFETY: It was not published, so this is the only pointer to it.
            drop(unsafe { KBox::from_raw(new) });
        }
        Ok((self.get().ok_or(EIO)?, made))
    }

    /// Frees the value, if it was made.
    ///
    /// # Safety
    ///
    /// * No reference to it is used any more.
    /// * It is not asked for, nor made, at the same time.
    pub(crate) unsafe fn clear(&self) {
        let value = self.0.xchg(core::ptr::null_mut(), Acquire);
        if !value.is_null() {
            // SAFETY: By the type invariants it is from a box that this owns; by this function's
            // requirements it is not used by others.
            drop(unsafe { KBox::from_raw(value) });
        }
    }
}

impl<T> Drop for OnceBox<T> {
    fn drop(&mut self) {
        // SAFETY: There is no reference to `self`, hence none to the value.
        unsafe { self.clear() };
    }
}
