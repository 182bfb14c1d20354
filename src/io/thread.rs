// SPDX-License-Identifier: GPL-2.0

//! The module's thread for work that no task waits for: it runs when nothing else wants the
//! processor. A wrapper module.

use core::marker::PhantomData;

use kernel::{error::to_result, prelude::*};

use super::delayed_work::Run;
use crate::bindings;

/// The thread, which runs `R` each time it is woken. There is one at a time: that of the module.
/// Dropping it ends it.
pub(crate) struct IdleThread<R: Run>(PhantomData<R>);

impl<R: Run> IdleThread<R> {
    /// Starts it.
    pub(crate) fn start() -> Result<Self> {
        /// What the thread calls.
        extern "C" fn run<R: Run>() {
            R::run();
        }
        // SAFETY: There is no other: it is started once in the life of the module.
        to_result(unsafe { bindings::finder_start(Some(run::<R>)) })?;
        Ok(Self(PhantomData))
    }
}

impl<R: Run> Drop for IdleThread<R> {
    fn drop(&mut self) {
        // SAFETY: `start` has started it, and this ends it once.
        unsafe { bindings::finder_stop() }
    }
}

/// Has the thread run, if there is one. In any context.
pub(crate) fn wake() {
    // SAFETY: No preconditions: a thread that is started later runs then.
    unsafe { bindings::finder_wake() }
}

/// Sleeps, in the thread. `false`: it is to end.
pub(crate) fn sleep(ms: u32) -> bool {
    // SAFETY: In the thread.
    !unsafe { bindings::finder_sleep(ms) }
}

/// While it lives, the thread runs as others do: it has locks that others wait for.
pub(crate) struct Hurry(());

impl Hurry {
    /// In the thread.
    pub(crate) fn new() -> Self {
        // SAFETY: In the thread, whose policy it is.
        unsafe { bindings::finder_hurry(true) };
        Self(())
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // SAFETY: In the thread still, which has a policy of its own to go back to.
        unsafe { bindings::finder_hurry(false) }
    }
}

/// While it lives, this task is not preempted: for RCU sections of the thread, which would last as
/// long as others want the processor. Nothing sleeps meanwhile.
pub(crate) struct KeepProcessor(PhantomData<*const ()>);

impl KeepProcessor {
    pub(crate) fn new() -> Self {
        // SAFETY: No preconditions; the drop ends it, in the same task: the guard is not sent
        // elsewhere.
        unsafe { bindings::keep_processor(true) };
        Self(PhantomData)
    }
}

impl Drop for KeepProcessor {
    fn drop(&mut self) {
        // SAFETY: `new` has begun it, in this task.
        unsafe { bindings::keep_processor(false) }
    }
}

/// Whether the task at hand frees memory since there is too little of it; not if it drops caches
/// because it was asked to.
pub(crate) fn in_reclaim() -> bool {
    // SAFETY: No preconditions.
    unsafe { bindings::in_reclaim() }
}

/// Processor time that the thread has taken, in nanoseconds. In the thread.
pub(crate) fn time() -> u64 {
    // SAFETY: In the thread, so that there is one.
    unsafe { bindings::finder_time() }
}
