// SPDX-License-Identifier: GPL-2.0

//! The workqueue for what follows I/O and needs process context. A wrapper module.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    workqueue::Queue,
};

use crate::bindings;

/// The workqueue, while the module is loaded.
static QUEUE: Atomic<*mut bindings::workqueue_struct> = Atomic::new(core::ptr::null_mut());

/// The workqueue of all I/O of the module. Dropping it waits for what is queued.
pub(crate) struct Workers(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed from any thread.
unsafe impl Send for Workers {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for Workers {}

impl Workers {
    /// Starts them. There is one at a time: that of the module.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Creating a workqueue has no preconditions.
        let queue = NonNull::new(unsafe { bindings::workqueue_create() }).ok_or(ENOMEM)?;
        QUEUE.store(queue.as_ptr(), Relaxed);
        Ok(Self(queue))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // SAFETY: No I/O is under way any more: the module's superblocks are gone.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
        QUEUE.store(core::ptr::null_mut(), Relaxed);
    }
}

/// The workqueue.
///
/// # Safety
///
/// * The caller belongs to I/O of a superblock of the module, so that [`Workers`] has been made and
///   is not dropped for `'a`.
pub(super) unsafe fn queue<'a>() -> &'a Queue {
    // SAFETY: By the function's safety requirements `Workers` has been made, and not dropped.
    unsafe { Queue::from_raw(QUEUE.load(Relaxed)) }
}

/// Has a worker call `run` with `work`. In any context.
///
/// # Safety
///
/// * As for [`queue`].
/// * `work` is memory for a `work_struct` that stays where it is, and is not used for anything
///   else, until `run` is called.
pub(super) unsafe fn call(
    work: *mut bindings::work_struct,
    run: unsafe extern "C" fn(*mut bindings::work_struct),
) {
    // SAFETY: By this function's requirements the queue is there, and `work` is memory that `run`
    // takes over.
    unsafe { bindings::work_queue(QUEUE.load(Relaxed), work, Some(run)) }
}
