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
pub(crate) struct Later<R: Run>(PhantomData<R>);

impl<R: Run> Later<R> {
    /// Says what is to be done. There is one at a time: that of the module.
    pub(crate) fn new() -> Self {
        /// What the worker calls.
        extern "C" fn run<R: Run>() {
            R::run();
        }
        // SAFETY: Nothing is queued: [`Later::stop`] has seen to that, if there was one before.
        unsafe { bindings::later_init(Some(run::<R>)) };
        Self(PhantomData)
    }

    /// Queues the work to run in `ms` milliseconds, or earlier if that was asked for.
    pub(crate) fn after(ms: u32) {
        // SAFETY: `new` has said what to do.
        unsafe { bindings::later_after(ms) }
    }

    /// Cancels the work, and waits for it if it is running. [`Later::after`] is not called from
    /// here on.
    pub(crate) fn stop() {
        // SAFETY: No preconditions.
        unsafe { bindings::later_stop() }
    }
}
