// SPDX-License-Identifier: GPL-2.0

//! Folios for bytes that are read to be looked at only: compressed data, blocks that are verified.
//! New ones are filled with zeros by most kernels, which costs as much as decoding them does; so
//! some of a common size are kept for the next user. A wrapper module.

use kernel::{page::PAGE_SIZE, prelude::*};

use super::folio::HeldFolio;

/// The order of those that are kept: 64 KiB.
pub(super) const ORDER: u32 = 4;

/// How many are kept: 1 MiB.
const MAX: usize = 16;

/// A folio that is not in use, and that no memory cgroup pays for.
///
/// # Invariants
///
/// It is of order [`ORDER`], of no page cache, and this is the only reference.
struct Spare(HeldFolio);

/// What is kept: the first `count`.
struct Stack {
    spares: [Option<Spare>; MAX],
    count: usize,
    /// How many were allocated to be kept, at the expense of no cgroup: [`MAX`] at most.
    made: usize,
}

kernel::sync::global_lock! {
    // SAFETY: `Spares::new` initialises it when the module is loaded, before anything is read.
    unsafe(uninit) static STACK: SpinLock<Stack> = Stack {
        spares: [const { None }; MAX],
        count: 0,
        made: 0,
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
        while pop().is_some() {}
    }
}

/// A folio that is kept.
fn pop() -> Option<Spare> {
    let mut stack = STACK.lock();
    stack.count = stack.count.checked_sub(1)?;
    let count = stack.count;
    stack.spares.get_mut(count)?.take()
}

/// Counts one more that is allocated to be kept; `false` if there are enough.
fn may_make() -> bool {
    let mut stack = STACK.lock();
    let may = stack.made < MAX;
    stack.made += usize::from(may);
    may
}

/// A folio of order [`ORDER`], if one is there or may be made. The reference is the caller's.
pub(super) fn take() -> Option<HeldFolio> {
    if let Some(spare) = pop() {
        return Some(spare.0);
    }
    if !may_make() {
        return None;
    }
    let folio = HeldFolio::alloc(ORDER, false, false);
    if folio.is_none() {
        STACK.lock().made -= 1;
    }
    folio
}

/// Keeps a folio, or frees it.
///
/// # Safety
///
/// It is of no page cache and not movable, and this is the only reference.
pub(super) unsafe fn give(folio: HeldFolio) {
    // Whose cgroup pays for it gets it back.
    if folio.is_charged() || folio.size() != PAGE_SIZE << ORDER {
        return;
    }
    // INVARIANT: Checked just now; the rest by this function's requirements.
    let spare = Spare(folio);
    let mut stack = STACK.lock();
    let count = stack.count;
    if let Some(place) = stack.spares.get_mut(count) {
        *place = Some(spare);
        stack.count = count + 1;
    }
}
