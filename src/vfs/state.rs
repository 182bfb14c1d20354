// SPDX-License-Identifier: GPL-2.0

//! What a real inode remembers of sharing, from its first open on. Data only.

use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{atomic::Atomic, Arc, Mutex, SpinLock},
};

use crate::share::{Binding, Bindings};

/// An inode's state of sharing, from its first open on.
#[pin_data]
pub(super) struct Sharing {
    /// Held while the inode is bound, or bound anew.
    #[pin]
    pub(super) lock: Mutex<()>,
    /// Its bindings. Taken for a few instructions; nothing sleeps under it.
    #[pin]
    pub(super) slots: SpinLock<Bindings>,
    /// Until when its readers do not wait for other images, by [`crate::io::clock::now`]; 0: they
    /// do.
    pub(super) impatient_until: Atomic<i64>,
}

impl Sharing {
    /// Of an inode that is not bound.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- new_mutex!((), "erofs_shared::Sharing::lock"),
            slots <- new_spinlock!(Bindings::new(), "erofs_shared::Sharing::slots"),
            impatient_until: Atomic::new(0),
        })
    }

    /// The current binding.
    pub(super) fn current(&self) -> Option<Arc<Binding>> {
        self.slots.lock().current().cloned()
    }
}
