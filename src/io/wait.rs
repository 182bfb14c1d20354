// SPDX-License-Identifier: GPL-2.0

//! Waiting for something that happens once, so that a fatal signal ends the wait.

use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Release},
    types::Opaque,
};

use crate::bindings;

/// Lets others run, in a long loop. Only where sleeping is allowed.
pub(crate) fn cond_resched() {
    // SAFETY: By the function's documentation; might_sleep() complains where it is not so.
    unsafe { bindings::cond_resched() }
}

/// Whether a signal is pending that ends the task. In process context.
pub(crate) fn is_dying() -> bool {
    // SAFETY: In process context there is a current task.
    unsafe { bindings::fatal_signal_pending() }
}

/// A `struct completion` with a result. (`kernel::sync::Completion` has no result, and no wait that
/// a fatal signal ends.)
///
/// # Invariants
///
/// `inner` is initialised.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
    result: Atomic<i32>,
}

// SAFETY: Completions may be used and dropped on any thread.
unsafe impl Send for Completion {}
// SAFETY: Completions have a lock of their own.
unsafe impl Sync for Completion {}

impl Completion {
    pub(crate) fn new() -> impl PinInit<Self> {
        // INVARIANT: Initialised here.
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is memory for a completion.
                unsafe { bindings::init_completion(slot) }
            }),
            result: Atomic::new(0),
        })
    }

    /// It has happened. Wakes all waiters, now and later.
    pub(crate) fn complete_all(&self, result: Result) {
        let code = result.err().map_or(0, |err| err.to_errno());
        self.result.store(code, Release);
        // SAFETY: By the type invariants the completion is initialised; it may be completed in any
        // context.
        unsafe { bindings::complete_all(self.inner.get()) }
    }

    /// Waits until it has happened, and gives its result. `EINTR` on a fatal signal.
    pub(crate) fn wait_killable(&self) -> Result {
        // SAFETY: By the type invariants the completion is initialised; this is borrowed while it
        // waits.
        to_result(unsafe { bindings::wait_for_completion_killable(self.inner.get()) })
            .map_err(|_| EINTR)?;
        to_result(self.result.load(Acquire))
    }

    /// Waits whatever happens. For what ends soon by itself.
    pub(crate) fn wait(&self) {
        // SAFETY: By the type invariants the completion is initialised; this is borrowed while it
        // waits.
        unsafe { bindings::wait_for_completion(self.inner.get()) };
    }

    /// Whether it has happened.
    pub(crate) fn is_done(&self) -> bool {
        // SAFETY: By the type invariants the completion is initialised; looking at it is allowed in
        // any context.
        unsafe { bindings::completion_done(self.inner.get()) }
    }
}
