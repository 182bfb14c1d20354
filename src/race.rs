// SPDX-License-Identifier: GPL-2.0

//! Places where another thread may come between two steps.
//!
//! In a module that is built with `EROFS_SHARED_RACES=1` (the debug module) a thread that passes
//! one is delayed at random: see `race.c`, and `Documentation/debugging.md`. In all others nothing
//! is compiled.

/// Names the place between the statement before and that after it. In any context: it sleeps
/// only where the kernel's counts say that one may.
#[cfg(erofs_shared_races)]
macro_rules! race_point {
    ($name:literal) => {
        $crate::race::pass($name)
    };
}

/// Names the place between the statement before and that after it.
#[cfg(not(erofs_shared_races))]
macro_rules! race_point {
    ($name:literal) => {};
}

pub(crate) use race_point;

/// Delays the caller, maybe.
#[cfg(erofs_shared_races)]
pub(crate) fn pass(name: &'static core::ffi::CStr) {
    extern "C" {
        fn erofs_shared_race_point(name: *const kernel::ffi::c_char);
    }
    // SAFETY: The name is NUL-terminated, and there as long as the module.
    unsafe { erofs_shared_race_point(name.as_ptr().cast()) }
}
