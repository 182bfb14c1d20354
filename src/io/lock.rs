// SPDX-License-Identifier: GPL-2.0

//! Taking a mutex so that a fatal signal ends the wait: the kernel crate's mutexes are waited for
//! whatever happens. A wrapper module.

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Mutex,
    },
};

use crate::bindings;

/// Takes a mutex. `EINTR` on a fatal signal.
///
/// For mutexes that are held while an image is read, which may take as long as its device likes.
pub(crate) fn lock_killable<T>(mutex: &Mutex<T>) -> Result<Guard<'_, T, MutexBackend>> {
    let state = core::ptr::from_ref(mutex).cast_mut();
    let state = state.cast::<bindings::mutex>();
    // SAFETY: `Lock` is `repr(C)` and begins with its state (`Lock::from_raw` rests on that, too),
    // which is initialised before there is a reference.
    to_result(unsafe { bindings::mutex_lock_killable(state) })?;
    // SAFETY: It was taken just now, and is given back by the guard alone.
    Ok(unsafe { Guard::new(mutex, ()) })
}
