// SPDX-License-Identifier: GPL-2.0

//! What a real inode remembers of sharing. Data only.

use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};

use crate::{
    io::{memcg::CHARGED, once_box::OnceBox},
    share::{Binding, Bindings},
};

/// An inode's state of sharing. It takes room that the slab of inodes has left; its bindings have
/// memory of their own, from its first open on.
#[pin_data]
pub(super) struct Sharing {
    /// Held by the open by which the inode is bound, which reads its image: so two do not. Nothing
    /// but opens of the inode waits for it.
    #[pin]
    pub(super) lock: Mutex<()>,
    /// Its bindings. Taken for a few instructions; nothing sleeps under it.
    slots: OnceBox<SpinLock<Bindings>>,
    /// Until when its readers do not wait for other images, by [`crate::io::clock::now`]; 0: they
    /// do.
    impatient_until: Atomic<i64>,
}

impl Sharing {
    /// Of an inode that is not bound.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- new_mutex!((), "erofs_shared::Sharing::lock"),
            slots: OnceBox::new(),
            impatient_until: Atomic::new(0),
        })
    }

    /// Its bindings, if it has been opened.
    pub(super) fn slots(&self) -> Option<&SpinLock<Bindings>> {
        self.slots.get()
    }

    /// Its bindings, for which there is memory from now on.
    pub(super) fn slots_or_new(&self) -> Result<&SpinLock<Bindings>> {
        let new = new_spinlock!(Bindings::new(), "erofs_shared::Sharing::slots");
        let (slots, _) = self.slots.get_or_init(new, CHARGED)?;
        Ok(slots)
    }

    /// Frees its bindings, at the end of the inode's life.
    ///
    /// # Safety
    ///
    /// * There is no reference to them.
    /// * None is asked for any more.
    pub(super) unsafe fn free_slots(&self) {
        // SAFETY: By this function's requirements there is no reference to them, and none is made.
        unsafe { self.slots.clear() };
    }

    /// The current binding.
    pub(super) fn current(&self) -> Option<Arc<Binding>> {
        self.slots()?.lock().current().cloned()
    }

    /// Until when the inode's readers do not wait for other images; 0: they do.
    pub(super) fn impatient_until(&self) -> i64 {
        self.impatient_until.load(Relaxed)
    }

    /// Sets that, for an inode that is or has been bound.
    pub(super) fn set_impatient_until(&self, until: i64) {
        if self.slots().is_some() {
            self.impatient_until.store(until, Relaxed);
        }
    }
}
