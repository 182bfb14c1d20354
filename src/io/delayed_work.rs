// SPDX-License-Identifier: GPL-2.0

//! Work that is done later, by a worker, in process context. A wrapper module.

use core::marker::PhantomData;

use crate::bindings;

/// What is to be done.
pub(crate) trait Run {
    /// Does it. Never runs twice at the same time.
    fn run();
}

/// The one piece of work of the module, as long as this is kept. (It is a static `delayed_work`.)
pub(crate) struct DelayedWork<R: Run>(PhantomData<R>);

impl<R: Run> DelayedWork<R> {
    /// Says what is to be done. There is one at a time: that of the module.
    pub(crate) fn new() -> Self {
        /// What the worker calls.
        extern "C" fn run<R: Run>() {
            R::run();
        }
        // SAFETY: Nothing is queued: [`DelayedWork::cancel_sync`] has seen to that, if there was
        // one before.
        unsafe { bindings::delayed_work_init(Some(run::<R>)) };
        Self(PhantomData)
    }

    /// Queues the work to run in `ms` milliseconds, or earlier if that was asked for.
    pub(crate) fn queue(ms: u32) {
        // SAFETY: `new` has said what to do.
        unsafe { bindings::delayed_work_queue(ms) }
    }

    /// Cancels the work, and waits for it if it is running. [`DelayedWork::queue`] is not called
    /// from here on.
    pub(crate) fn cancel_sync() {
        // SAFETY: No preconditions.
        unsafe { bindings::delayed_work_cancel() }
    }
}
