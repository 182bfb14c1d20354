// SPDX-License-Identifier: GPL-2.0

//! Gives memory of the block index back when it is short. A wrapper module.

use core::ptr::NonNull;

use kernel::prelude::*;

use super::{
    index::{self, Index, Shards},
    pressure,
};
use crate::bindings;

/// `SHRINK_EMPTY`: there is nothing.
const EMPTY: c_ulong = c_ulong::MAX - 1;

/// `SHRINK_STOP`: there is nothing more that could be given.
const STOP: c_ulong = c_ulong::MAX;

/// The registered shrinker; unregistered on drop, which waits until it is not used.
///
/// # Invariants
///
/// Comes from `erofs_shared_shrinker_register`, and is ours.
pub(super) struct Shrinker(NonNull<bindings::shrinker>);

// SAFETY: It is only ever dropped, which may happen on any thread.
unsafe impl Send for Shrinker {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for Shrinker {}

impl Shrinker {
    /// Registers it.
    ///
    /// # Safety
    ///
    /// * `index` is dropped after the result.
    pub(super) unsafe fn new(index: &Index) -> Result<Self> {
        let shards = core::ptr::from_ref(index.shards()).cast_mut().cast();
        // SAFETY: The callbacks are good for any call of a shrinker with the trees of the index as
        // its data, until it is freed; and by the function's safety requirements they are there.
        let shrinker = unsafe { bindings::shrinker_register(Some(count), Some(scan), shards) };
        // INVARIANT: It is not null, hence registered.
        Ok(Self(NonNull::new(shrinker).ok_or(ENOMEM)?))
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the shrinker is registered, and this owns it.
        unsafe { bindings::shrinker_free(self.0.as_ptr()) }
    }
}

/// `shrinker::count_objects`
///
/// # Safety
///
/// * None: the arguments are not used.
unsafe extern "C" fn count(
    _shrinker: *mut bindings::shrinker,
    _sc: *mut bindings::shrink_control,
) -> c_ulong {
    pressure::note_reclaim();
    match index::count() {
        0 => EMPTY,
        count => count as c_ulong,
    }
}

/// `shrinker::scan_objects`
///
/// # Safety
///
/// * `shrinker` is one of [`Shrinker::new`].
/// * `sc` is live, and this callback's for the call.
unsafe extern "C" fn scan(
    shrinker: *mut bindings::shrinker,
    sc: *mut bindings::shrink_control,
) -> c_ulong {
    // SAFETY: By this function's requirements `sc` is live, and the shrinker has the trees as its
    // data, which go after it.
    let (want, shards) = unsafe {
        (
            (*sc).nr_to_scan,
            &*(*shrinker).private_data.cast::<Shards>(),
        )
    };
    let (looked, removed) = shards.shrink(want as u64);
    // SAFETY: `sc` is live, and this callback's to fill for the call.
    unsafe { (*sc).nr_scanned = looked as c_ulong };
    if looked == 0 {
        return STOP;
    }
    removed as c_ulong
}
