// SPDX-License-Identifier: GPL-2.0

//! State of decoders, a fixed number of which all mounts share.

use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{CondVar, Mutex},
};

use crate::bindings;

/// The most states of one kind: more would be memory without use on large machines.
const MAX_STATES: u32 = 16;

/// What a decoder needs beside its input and output.
pub(super) trait State: Sized + Send {
    /// Allocates one that can decode images of this `level` (what the level is, is the decoder's
    /// own).
    fn new(level: u32) -> Result<Self>;
}

struct Free<S> {
    states: KVec<(u32, S)>,
    /// The highest level that was asked for; 0 as long as none was.
    level: u32,
}

/// States of one kind. They are allocated when an image that needs them is mounted, so that reading
/// needs no memory for them, and there are as many as CPUs (up to [`MAX_STATES`]).
#[pin_data]
pub(super) struct Pool<S: State> {
    #[pin]
    free: Mutex<Free<S>>,
    #[pin]
    more: CondVar,
}

impl<S: State> Pool<S> {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            free <- new_mutex!(
                Free { states: KVec::new(), level: 0 },
                "erofs_shared::decompress::Pool"
            ),
            more <- new_condvar!("erofs_shared::decompress::Pool"),
        })
    }

    /// Makes sure that there are states of this level, at least 1.
    pub(super) fn prepare(&self, level: u32) -> Result {
        if self.free.lock().level >= level {
            return Ok(());
        }
        // SAFETY: No preconditions.
        let count = unsafe { bindings::cpus() }.clamp(1, MAX_STATES);
        let mut states = KVec::with_capacity(count as usize, GFP_KERNEL)?;
        for _ in 0..count {
            states.push((level, S::new(level)?), GFP_KERNEL)?;
        }
        let mut free = self.free.lock();
        if free.level < level {
            free.level = level;
            // Those in use are dropped when they come back. The new ones' memory has room for all.
            core::mem::swap(&mut free.states, &mut states);
            self.more.notify_all();
        }
        drop(free);
        Ok(())
    }

    /// Calls `f` with a state, once there is one. `EIO` if none were ever made.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> Result<R> {
        let mut free = self.free.lock();
        if free.level == 0 {
            return Err(EIO);
        }
        let (level, mut state) = loop {
            match free.states.pop() {
                Some(state) => break state,
                None => self.more.wait(&mut free),
            }
        };
        drop(free);
        let result = f(&mut state);
        let mut free = self.free.lock();
        if level == free.level {
            // There is room: it came from there.
            let _ = free.states.push_within_capacity((level, state));
            self.more.notify_one();
        }
        Ok(result)
    }
}
