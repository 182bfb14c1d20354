// SPDX-License-Identifier: GPL-2.0

//! The pointers to the chunks of a large table of digests ([`table`](super::table)), and how they
//! are freed: a table goes in an RCU callback, where nothing else runs meanwhile, and a worker
//! frees those that have too many chunks for that. A wrapper module.

use core::ptr::{self, NonNull};

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

use super::handle::Unheld;
use crate::{
    bindings,
    io::{
        memcg::{has_room, CHARGED},
        wait::cond_resched,
    },
};

/// Chunks that are freed without letting others run: some 400 instructions each, at times twice as
/// many. They stand for 64 MiB of a file.
const MANY: usize = 128;

/// What a chunk begins with.
#[repr(C, align(32))]
pub(super) struct ChunkHeader {
    /// Whose blocks these are.
    pub(super) owner: NonNull<Unheld>,
    /// The first of them.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
    /// Those with an alias: see [`Content`](super::content::Content). Changed under its lock.
    pub(super) aliased: [Atomic<u64>; 2],
}

/// Pointers to the chunks of a table behind the first.
///
/// # Invariants
///
/// They are null or come from [`Kmalloc`](kernel::alloc::allocator::Kmalloc), and nothing else
/// frees what they point to.
pub(super) struct Chunks {
    chunks: KVVec<Atomic<*mut ChunkHeader>>,
    /// What the worker frees after this.
    next: *mut Chunks,
}

impl Chunks {
    /// Returns `count` null pointers.
    pub(super) fn new(count: usize) -> Result<KBox<Self>> {
        has_room(count * size_of::<*mut ChunkHeader>())?;
        let mut chunks = KVVec::with_capacity(count, CHARGED)?;
        while chunks.len() < count {
            let none = Atomic::new(ptr::null_mut());
            chunks.push_within_capacity(none).map_err(|_| EIO)?;
        }
        let next = ptr::null_mut();
        // INVARIANT: They are null.
        Ok(KBox::new(Self { chunks, next }, CHARGED)?)
    }

    /// The pointers. The caller keeps to the type invariants when it sets one.
    pub(super) fn all(&self) -> &[Atomic<*mut ChunkHeader>] {
        &self.chunks
    }

    /// Bytes that the pointers take.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<Self>() + size_of_val(self.all())) as u64
    }

    /// Frees chunks from `at` on, up to [`MANY`].
    fn free(&mut self, at: usize) {
        for chunk in self.chunks.iter().skip(at).take(MANY) {
            // SAFETY: By the type invariants it is null, or comes from `Kmalloc`; the table is
            // gone.
            unsafe { bindings::kfree(chunk.xchg(ptr::null_mut(), Relaxed).cast()) };
        }
    }

    /// Frees them, and the chunks, whose table is gone; or has the worker do so. In any context.
    pub(super) fn dispose(mut this: KBox<Self>) {
        if this.chunks.len() <= MANY {
            this.free(0);
            return;
        }
        let mut head = DISPOSED.load(Relaxed);
        loop {
            this.next = head;
            let new = KBox::into_raw(this);
            match DISPOSED.cmpxchg(head, new, Full) {
                Ok(_) => break,
                Err(other) => {
                    head = other;
                    // SAFETY: It comes from a box, and did not get into the list.
                    this = unsafe { KBox::from_raw(new) };
                }
            }
        }
        // SAFETY: `Disposal::new` has said what to do, and is there as long as there are tables.
        unsafe { bindings::disposal_start() };
    }
}

/// What the worker is to free, linked by `next`.
static DISPOSED: Atomic<*mut Chunks> = Atomic::new(ptr::null_mut());

/// Frees what [`Chunks::dispose`] left to the worker.
extern "C" fn free_disposed() {
    let mut next = DISPOSED.xchg(ptr::null_mut(), Full);
    while !next.is_null() {
        // SAFETY: What is in the list comes from a box, and is ours alone since it was taken out.
        let mut chunks = unsafe { KBox::from_raw(next) };
        next = chunks.next;
        for at in (0..chunks.chunks.len()).step_by(MANY) {
            chunks.free(at);
            cond_resched();
        }
    }
}

/// The worker that frees large tables. It is there as long as there are tables; dropping it waits
/// until all are freed.
pub(super) struct Disposal(());

impl Disposal {
    /// Says what the worker does. There is one at a time: that of the module.
    pub(super) fn new() -> Self {
        // SAFETY: Nothing is queued: `drop` has seen to that, if there was one before.
        unsafe { bindings::disposal_init(Some(free_disposed)) };
        Self(())
    }
}

impl Drop for Disposal {
    fn drop(&mut self) {
        // SAFETY: No preconditions.
        unsafe { bindings::disposal_flush() };
    }
}
