// SPDX-License-Identifier: GPL-2.0

//! A fill under way: folios, the I/O that fills them, and what comes after.
//!
//! Its I/O ends in any context; what follows ([`FillCompletion::complete`]) runs in a worker, or at
//! once when it may run anywhere, or when the I/O was done at once and is small.

use core::{cell::UnsafeCell, ffi::c_void, mem::ManuallyDrop, ptr::NonNull};

use kernel::{
    error::to_result,
    impl_has_work, new_work,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
    workqueue::{Work, WorkItem},
};

use super::{
    decode::{DecompressJob, NoIo},
    decompress::DecompressError,
    folio_list::FolioList,
    memcg::Payer,
    wait::{cond_resched, Completion},
    workers,
};
use crate::{bindings, compat::code::EFSCORRUPTED};

/// What keeps the devices open while they are read, and says what is wrong with what they give.
pub(crate) trait FillGuard: Send + Unpin + Sized + 'static {
    /// Says that the extent at byte `pos` of the file cannot be decoded, and why. Called before
    /// [`FillCompletion::complete`], in process context.
    fn bad_data(&self, pos: u64, what: &'static str);

    /// Another one, for a read that may last longer than this. Called in process context, while a
    /// fill that this belongs to is being submitted.
    fn another(&self) -> Self;
}

/// What comes after the I/O.
pub(crate) trait FillCompletion: Send + Unpin + Sized + 'static {
    /// Whether [`FillCompletion::complete`] may be called, and this dropped, in any context, an
    /// interrupt's among them. A fill that decodes nothing then ends with its I/O, without a
    /// worker.
    const ANY_CONTEXT: bool = false;

    /// What keeps the devices open.
    type Guard: FillGuard;

    /// That.
    fn guard(&self) -> &Self::Guard;

    /// Takes the folios that were filled. When something went wrong (`result`), these are the ones
    /// in front of the first that could not be filled, perhaps none; the others are given up
    /// already. Called once, in process context unless [`FillCompletion::ANY_CONTEXT`]; may sleep
    /// there.
    fn complete(self, folios: FolioList, result: Result);
}

/// Bytes that are worth a worker of their own although they are there already.
const WORTH_A_WORKER: usize = 16 << 10;

/// A worker ends the fill.
const WORKER: u32 = 0;
/// The submitter waits for the I/O, and ends the fill.
const WAITER: u32 = 1;
/// The I/O is done, and the fill belongs to the waiting submitter.
const DONE: u32 = 2;

/// Folios, the I/O that fills them, and what comes after.
///
/// # Invariants
///
/// * A fill is in a pinned box.
/// * `pending` is the number of [`Share`]s: one for each I/O under way, and the submitter's.
/// * The fill belongs to the last share that is dropped, or, if the submitter waits (`owner`), to
///   the submitter from then on.
/// * `rest` belongs to the submitter as long as there is a [`Submission`], then to the fill's
///   owner.
#[pin_data]
struct Fill<F: FillCompletion> {
    #[pin]
    work: Work<Fill<F>>,
    pending: Atomic<u32>,
    /// The first error, as a negative errno.
    error: Atomic<i32>,
    /// What ends the fill: [`WORKER`], [`WAITER`], or, when a waiter's I/O is done, [`DONE`].
    owner: Atomic<u32>,
    /// Done together with `owner` becoming [`DONE`].
    #[pin]
    over: Completion,
    /// Who is charged for what comes after the I/O: the reader's memory cgroup.
    payer: Payer,
    /// The folios and what comes after; `None` once taken.
    rest: UnsafeCell<Option<Rest<F>>>,
}

/// What a fill is about.
pub(super) struct Rest<F: FillCompletion> {
    pub(super) folios: FolioList,
    /// What is to be decoded when the I/O is done.
    pub(super) jobs: KVec<DecompressJob>,
    /// How many bytes from the start on are filled when all I/O has succeeded. `usize::MAX`: all.
    good: usize,
    /// Why the others are not.
    failed: Result,
    pub(super) filled: F,
}

impl<F: FillCompletion> Rest<F> {
    /// Nothing can be filled from byte `at` on.
    pub(super) fn fail(&mut self, at: usize, err: Error) {
        if at < self.good {
            self.good = at;
            self.failed = Err(err);
        }
    }

    /// Ends the fill, all of whose I/O is done, or did what `error` says. Leaves the folios that
    /// are filled.
    fn finish(&mut self, error: Result) -> Result {
        match error {
            Ok(()) => self.decode(),
            Err(err) => self.fail(0, err),
        }
        self.folios.keep(self.good);
        self.failed
    }

    /// Decodes what was read.
    fn decode(&mut self) {
        for job in core::mem::take(&mut self.jobs) {
            let (pos, at) = (job.pos(), job.at());
            // The input of one for which nothing is filled need not be there.
            if at >= self.good {
                return;
            }
            let result = job.decompress(&mut self.folios);
            if let Err(err) = self.decoded(pos, result) {
                self.fail(at, err);
            }
            cond_resched();
        }
    }

    /// After the extent at `pos` was decoded.
    pub(super) fn decoded(&self, pos: u64, result: Result<(), DecompressError>) -> Result {
        result.map_err(|failure| match failure {
            DecompressError::Error(err) => err,
            DecompressError::Corrupted(what) => {
                self.filled.guard().bad_data(pos, what);
                EFSCORRUPTED
            }
        })
    }
}

impl_has_work! {
    impl{F: FillCompletion} HasWork<Self> for Fill<F> { self.work }
}

impl<F: FillCompletion> WorkItem for Fill<F> {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        this.end();
    }
}

impl<F: FillCompletion> Fill<F> {
    fn end(mut self: Pin<KBox<Self>>) {
        let _noio = NoIo::new();
        let error = to_result(self.error.load(Relaxed));
        let Some(mut rest) = self.as_mut().project().rest.get_mut().take() else {
            return;
        };
        let _paying = self.payer.pays();
        let result = rest.finish(error);
        rest.filled.complete(rest.folios, result);
    }

    /// As [`Fill::end`], in any context, if what follows the I/O allows that; else gives it back.
    fn end_anywhere(mut self: Pin<KBox<Self>>) -> Option<Pin<KBox<Self>>> {
        if !F::ANY_CONTEXT {
            return Some(self);
        }
        let rest = self.as_mut().project().rest.get_mut();
        let Some(mut rest) = rest.take_if(|rest| rest.jobs.is_empty()) else {
            return Some(self);
        };
        let result = rest.finish(to_result(self.error.load(Relaxed)));
        rest.filled.complete(rest.folios, result);
        None
    }

    /// Notes an error; the first stays.
    fn fail(&self, err: Error) {
        let _ = self.error.cmpxchg(0, err.to_errno(), Relaxed);
    }
}

/// One of the things that keep a fill from ending: an I/O under way, or the submitter.
///
/// # Invariants
///
/// `0` is a live fill, of whose `pending` this owns one.
pub(super) struct Share<F: FillCompletion>(NonNull<Fill<F>>);

// SAFETY: What shares give access to, the number and the error, is atomic; the fill, which is
// `Send`, may end on any thread.
unsafe impl<F: FillCompletion> Send for Share<F> {}

impl<F: FillCompletion> Share<F> {
    fn fill(&self) -> &Fill<F> {
        // SAFETY: By the type invariants the fill is live. Nothing has a mutable reference to it
        // before the last share is gone.
        unsafe { self.0.as_ref() }
    }

    /// Notes that the fill has failed.
    pub(super) fn fail(&self, err: Error) {
        self.fill().fail(err);
    }

    /// Another share.
    fn another(&self) -> Self {
        self.fill().pending.fetch_add(1, Full);
        // INVARIANT: It was counted just now.
        Self(self.0)
    }

    /// Gives the share up as a pointer, for [`Share::from_raw`].
    pub(super) fn into_raw(self) -> *mut c_void {
        ManuallyDrop::new(self).0.as_ptr().cast()
    }

    /// Takes over what [`Share::into_raw`] gave up.
    ///
    /// # Safety
    ///
    /// * `ptr` comes from [`Share::into_raw`] of a share of the same type.
    /// * It is taken over once.
    pub(super) unsafe fn from_raw(ptr: *mut c_void) -> Self {
        // SAFETY: By this function's requirements `ptr` was a `NonNull`.
        // INVARIANT: The share that was given up is owned here.
        Self(unsafe { NonNull::new_unchecked(ptr.cast()) })
    }
}

impl<F: FillCompletion> Drop for Share<F> {
    /// One I/O is done, or has been submitted. In any context.
    fn drop(&mut self) {
        if self.fill().pending.fetch_sub(1, Full) != 1 {
            return;
        }
        // This was the last share, so the fill is alive until it is given away below.
        if self.fill().owner.cmpxchg(WAITER, DONE, Full).is_ok() {
            // The waiter takes it from here, and may free it as soon as this has let go of it.
            self.fill().over.complete_all(Ok(()));
            return;
        }
        // SAFETY: By the type invariants of `Fill` it belongs to this, and came from a pinned box.
        let fill = unsafe { Pin::new_unchecked(KBox::from_raw(self.0.as_ptr())) };
        if let Some(fill) = fill.end_anywhere() {
            // SAFETY: A fill belongs to I/O of a superblock of the module.
            unsafe { workers::queue() }.enqueue(fill);
        }
    }
}

/// A fill whose I/O is being submitted: the submitter's share.
pub(super) struct Submission<F: FillCompletion>(Share<F>);

/// What makes shares for the I/O of a fill that is being submitted.
pub(super) struct Shares<'a, F: FillCompletion>(&'a Share<F>);

impl<F: FillCompletion> Shares<'_, F> {
    /// A share for one more I/O.
    pub(super) fn share(&self) -> Share<F> {
        self.0.another()
    }
}

impl<F: FillCompletion> Submission<F> {
    /// A new fill, which has no I/O yet. On failure gives back what it was given.
    pub(super) fn new(folios: FolioList, filled: F) -> Result<Self, (FolioList, F, Error)> {
        // The fill takes its content only once it has its memory, so that `filled` is called in any
        // case.
        let fill = KBox::pin_init(
            pin_init!(Fill::<F> {
                work <- new_work!("erofs_shared::Fill"),
                pending: Atomic::new(1),
                error: Atomic::new(0),
                owner: Atomic::new(WORKER),
                over <- Completion::new(),
                payer: Payer::current(),
                rest: UnsafeCell::new(None),
            }),
            GFP_KERNEL,
        );
        let mut fill = match fill {
            Ok(fill) => fill,
            Err(err) => return Err((folios, filled, err)),
        };
        *fill.as_mut().project().rest.get_mut() = Some(Rest {
            folios,
            jobs: KVec::new(),
            good: usize::MAX,
            failed: Ok(()),
            filled,
        });
        // SAFETY: The box is not moved from again before it is made a pinned box again.
        let ptr = KBox::into_raw(unsafe { Pin::into_inner_unchecked(fill) });
        // SAFETY: `into_raw` gives no null pointer.
        // INVARIANT: `pending` is 1, for this one.
        Ok(Self(Share(unsafe { NonNull::new_unchecked(ptr) })))
    }

    /// What the fill is about, and shares for the I/O.
    pub(super) fn parts(&mut self) -> (Option<&mut Rest<F>>, Shares<'_, F>) {
        let Self(share) = &*self;
        // SAFETY: By the type invariants of `Fill`, `rest` is the submitter's as long as this
        // lives: I/O completion does not look at it. The borrow of `self` sees to it that there is
        // one reference.
        let rest = unsafe { &mut *share.fill().rest.get() };
        (rest.as_mut(), Shares(share))
    }

    /// All I/O has been submitted. The fill, of `bytes` bytes, ends in a worker, or here when its
    /// I/O is done already and it is small. In process context.
    pub(super) fn finish(self, bytes: usize) {
        // Pairs with `fetch_sub` in the drop of shares: what the others wrote is there.
        let is_alone = self.0.fill().pending.load(Acquire) == 1;
        // SAFETY: Looking at the number of processors has no preconditions.
        if is_alone && (bytes < WORTH_A_WORKER || unsafe { bindings::one_cpu() }) {
            let share = ManuallyDrop::new(self.0);
            // SAFETY: There is no other share and none can be made, so the fill is ours. It came
            // from a pinned box.
            unsafe { Pin::new_unchecked(KBox::from_raw(share.0.as_ptr())) }.end();
        }
    }

    /// Waits for the I/O, all of which has been submitted, and gives the folios.
    /// [`FillCompletion::complete`] is not called.
    ///
    /// A fatal signal ends the wait, and a worker ends the fill.
    pub(super) fn wait(self) -> Result<FolioList> {
        let fill = self.0 .0;
        // This task is the only one that ends the fill from here on, so the fill lives longer than
        // the share.
        self.0.fill().owner.store(WAITER, Relaxed);
        drop(self);
        let waited = {
            // SAFETY: The fill is freed below, or, when `WORKER` has replaced `WAITER`, by a
            // worker.
            let this = unsafe { fill.as_ref() };
            let waited = this.over.wait_killable();
            if let Err(err) = waited {
                if this.owner.cmpxchg(WAITER, WORKER, Full).is_ok() {
                    return Err(err);
                }
                // It is done, or as good as.
                this.over.wait();
            }
            waited
        };
        // SAFETY: `owner` is `DONE`, so by the type invariants of `Fill` it belongs to this; and it
        // came from a pinned box.
        let mut fill = unsafe { Pin::new_unchecked(KBox::from_raw(fill.as_ptr())) };
        let error = to_result(fill.error.load(Relaxed));
        let rest = fill.as_mut().project().rest.get_mut().take();
        let mut rest = rest.ok_or(EIO)?;
        rest.finish(waited.and(error))?;
        Ok(rest.folios)
    }
}
