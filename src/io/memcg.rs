// SPDX-License-Identifier: GPL-2.0

//! Which memory cgroup pays for what is kept about a file: that of the task that opens or reads it.
//!
//! A wrapper module. Memory that is allocated with [`CHARGED`] is charged to the memory cgroup of
//! the current task. What follows I/O runs in a worker, which has none: there, a [`Payer`] that was
//! taken in the reader's context says which cgroup pays ([`Payer::pays`]).

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{alloc::Flags, prelude::*};

use super::{folio::FolioRef, locked::LeavingFolio};
use crate::bindings;

/// Flags with these bits.
const fn flags(bits: u32) -> Flags {
    const _: () = assert!(size_of::<Flags>() == size_of::<u32>());
    const _: () = assert!(align_of::<Flags>() == align_of::<u32>());
    // SAFETY: `Flags` is a structure whose only field is a `u32`. It has the size of that field, so
    // the field takes all of it, and any value of the field is a valid one. (The kernel crate has
    // no constant for the bits that this is used with.)
    unsafe { core::mem::transmute(bits) }
}

/// For memory that is kept about a file: charged to the memory cgroup of the current task or
/// [`Payer`]. If that cgroup is at its limit and has nothing to give back, the allocation fails; no
/// task is killed for it, since files can be read without that memory, too.
pub(crate) const CHARGED: Flags = flags(bindings::GFP_CHARGED);

/// As [`CHARGED`], where nothing may sleep.
pub(crate) const CHARGED_NOWAIT: Flags = flags(bindings::GFP_CHARGED_NOWAIT);

/// For memory that a thread of the module can do without: little is done to get it, and no task is
/// killed for it.
pub(crate) const OPTIONAL: Flags = flags(bindings::GFP_OPTIONAL);

/// `ENOMEM` if the memory cgroup that pays now has hardly any room left beside these bytes for what
/// it cannot do without, such as a page of a file. To be asked before memory is allocated that
/// stays for as long as a file is open.
pub(crate) fn has_room(bytes: usize) -> Result {
    // SAFETY: No preconditions.
    match unsafe { bindings::memcg_has_room(bytes) } {
        true => Ok(()),
        false => Err(ENOMEM),
    }
}

/// A memory cgroup, to be charged later.
///
/// # Invariants
///
/// Null (there are no memory cgroups), or a memory cgroup to which this owns a reference.
pub(crate) struct Payer(*mut bindings::mem_cgroup);

// SAFETY: References to memory cgroups may be used and dropped on any thread.
unsafe impl Send for Payer {}
// SAFETY: There is nothing to do with a shared reference but to charge the cgroup.
unsafe impl Sync for Payer {}

impl Payer {
    /// The memory cgroup that the current task is charged to.
    pub(crate) fn current() -> Self {
        // INVARIANT: The function returns null or a reference.
        // SAFETY: No preconditions but to be in process context, where the I/O of a reader starts.
        Self(unsafe { bindings::memcg_get() })
    }

    /// The memory cgroup that a folio is charged to.
    pub(crate) fn of(folio: &FolioRef) -> Self {
        // INVARIANT: The function returns null or a reference.
        // SAFETY: The folio is live, and stays so for the call.
        Self(unsafe { bindings::memcg_of_folio(folio.as_ptr()) })
    }

    /// As [`Payer::of`].
    pub(crate) fn of_leaving(folio: &LeavingFolio<'_>) -> Self {
        // INVARIANT: The function returns null or a reference.
        // SAFETY: The folio is locked, and stays so for the call.
        Self(unsafe { bindings::memcg_of_folio(folio.as_ptr()) })
    }

    /// From now on, until what it returns is dropped, the current task's memory is charged to this
    /// cgroup.
    pub(crate) fn pays(&self) -> Paying<'_> {
        // SAFETY: By the type invariants this is null or a cgroup, which is not freed as long as
        // `self` is there: longer than `Paying`.
        let before = unsafe { bindings::memcg_enter(self.0) };
        Paying {
            before,
            _payer: PhantomData,
        }
    }
}

impl Drop for Payer {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this owns the reference, and gives it back here, once.
        unsafe { bindings::memcg_put(self.0) }
    }
}

/// The current task's memory is charged to a [`Payer`].
pub(crate) struct Paying<'a> {
    before: *mut bindings::mem_cgroup,
    // A raw pointer keeps this from being sent to another task.
    _payer: PhantomData<(&'a Payer, NonNull<()>)>,
}

impl Drop for Paying<'_> {
    fn drop(&mut self) {
        // SAFETY: This is what was set before, in the same task, whose setter keeps it alive.
        unsafe { bindings::memcg_enter(self.before) };
    }
}
