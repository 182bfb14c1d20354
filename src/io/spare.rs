// SPDX-License-Identifier: GPL-2.0

//! Folios for bytes that are read to be looked at only: compressed data, blocks that are verified. New ones
//! are filled with zeros by most kernels, which costs as much as decoding them does; so some of a common size
//! are kept for the next who needs one. A wrapper module.

use core::ptr::NonNull;

use kernel::{bindings, prelude::*};

use crate::raw;

/// The order of those that are kept: 64 KiB.
pub(super) const ORDER: u32 = 4;

/// How many are kept: 1 MiB.
const MAX: usize = 16;

/// A folio that nobody uses.
///
/// # Invariants
///
/// It is of order [`ORDER`], of no page cache, and this is the only reference.
struct Spare(NonNull<bindings::folio>);

// SAFETY: A folio may be used and freed from any thread.
unsafe impl Send for Spare {}

impl Drop for Spare {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { raw::erofs_shared_folio_put(self.0.as_ptr()) }
    }
}

/// What is kept: the first `count`.
struct Stack {
    spares: [Option<Spare>; MAX],
    count: usize,
}

kernel::sync::global_lock! {
    // SAFETY: `Spares::new` initialises it when the module is loaded, before anything is read.
    unsafe(uninit) static STACK: SpinLock<Stack> = Stack {
        spares: [const { None }; MAX],
        count: 0,
    };
}

/// The folios that are kept, as long as the module is loaded.
pub(crate) struct Spares(());

impl Spares {
    /// None, for a start. Once in the life of the module, before anything is read.
    pub(crate) fn new() -> Self {
        // SAFETY: By this function's documentation.
        unsafe { STACK.init() };
        Self(())
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        while take().is_some_and(|folio| {
            // INVARIANT: It comes from the stack.
            drop(Spare(folio));
            true
        }) {}
    }
}

/// A folio of order [`ORDER`], if one is there. The reference is the caller's.
pub(super) fn take() -> Option<NonNull<bindings::folio>> {
    let mut stack = STACK.lock();
    stack.count = stack.count.checked_sub(1)?;
    let count = stack.count;
    let spare = stack.spares.get_mut(count)?.take()?;
    drop(stack);
    // INVARIANT: The reference passes on.
    Some(core::mem::ManuallyDrop::new(spare).0)
}

/// Keeps a folio, or frees it.
///
/// # Safety
///
/// It is of no page cache, and the caller gives up the only reference.
pub(super) unsafe fn give(folio: NonNull<bindings::folio>) {
    // SAFETY: By the function's safety requirements it is live.
    let size = unsafe { raw::erofs_shared_folio_size(folio.as_ptr()) };
    // INVARIANT: Checked below, else it is only dropped.
    let spare = Spare(folio);
    if size != kernel::page::PAGE_SIZE << ORDER {
        return;
    }
    let mut stack = STACK.lock();
    let count = stack.count;
    if let Some(place) = stack.spares.get_mut(count) {
        *place = Some(spare);
        stack.count = count + 1;
    }
}
