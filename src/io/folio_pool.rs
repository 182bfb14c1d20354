// SPDX-License-Identifier: GPL-2.0

//! Folios for bytes that are read to be looked at only: compressed data, blocks that are verified.
//! New ones are filled with zeros by most kernels, which costs as much as decoding them does; so
//! some of a common size are kept for the next user. A wrapper module.

use kernel::{page::PAGE_SIZE, prelude::*};

use super::folio::{FolioMemory, HeldFolio};

/// The order of those that are kept: 64 KiB.
pub(super) const ORDER: u32 = 4;

/// How many are kept: 1 MiB.
const MAX: usize = 16;

/// A folio that is not in use, and that no memory cgroup pays for.
///
/// # Invariants
///
/// It is of order [`ORDER`], of no page cache, and this is the only reference.
struct PooledFolio(HeldFolio);

/// What is kept: the first `count`.
struct Stack {
    folios: [Option<PooledFolio>; MAX],
    count: usize,
    /// How many were allocated to be kept, at the expense of no cgroup: [`MAX`] at most.
    made: usize,
}

kernel::sync::global_lock! {
    // SAFETY: `FolioPool::new` initialises it when the module is loaded, before anything is read.
    unsafe(uninit) static STACK: SpinLock<Stack> = Stack {
        folios: [const { None }; MAX],
        count: 0,
        made: 0,
    };
}

/// The folios that are kept, as long as the module is loaded.
pub(crate) struct FolioPool(());

impl FolioPool {
    /// An empty pool. Called once, when the module is loaded, before anything is read.
    pub(crate) fn new() -> Self {
        // SAFETY: By this function's documentation.
        unsafe { STACK.init() };
        Self(())
    }
}

impl Drop for FolioPool {
    fn drop(&mut self) {
        while pop().is_some() {}
    }
}

/// A folio that is kept.
fn pop() -> Option<PooledFolio> {
    let mut stack = STACK.lock();
    stack.count = stack.count.checked_sub(1)?;
    let count = stack.count;
    stack.folios.get_mut(count)?.take()
}

/// Counts one more that is allocated to be kept; `false` if there are enough.
fn may_make() -> bool {
    let mut stack = STACK.lock();
    let may = stack.made < MAX;
    stack.made += usize::from(may);
    may
}

/// A folio of order [`ORDER`], if one is there or may be made. The reference is the caller's.
pub(super) fn get() -> Option<HeldFolio> {
    if let Some(folio) = pop() {
        return Some(folio.0);
    }
    if !may_make() {
        return None;
    }
    let folio = HeldFolio::alloc(ORDER, FolioMemory::Uncharged);
    if folio.is_none() {
        STACK.lock().made -= 1;
    }
    folio
}

/// Keeps a folio, or frees it.
///
/// # Safety
///
/// * `folio` is of no page cache, and not movable.
/// * This is the only reference to it.
pub(super) unsafe fn put(folio: HeldFolio) {
    // One that is charged to a cgroup is freed, so that the cgroup does not pay for other readers.
    if folio.is_charged() || folio.size() != PAGE_SIZE << ORDER {
        return;
    }
    // INVARIANT: Checked just now; the rest by this function's requirements.
    let folio = PooledFolio(folio);
    let mut stack = STACK.lock();
    let count = stack.count;
    if let Some(place) = stack.folios.get_mut(count) {
        *place = Some(folio);
        stack.count = count + 1;
    }
}
