// SPDX-License-Identifier: GPL-2.0

//! Reading a file's bytes into folios, asynchronously, with something to do about them afterwards in
//! process context. Unlike iomap, which marks a folio uptodate as soon as its I/O is done.
//!
//! A fill is submitted in the context of a reader; its I/O ends in any context; what follows
//! ([`Filled::filled`]) runs in a worker, or at once when the I/O was done at once and is small.

use core::{cell::UnsafeCell, mem::MaybeUninit, ops::Range, ptr::NonNull};

use kernel::{
    bindings,
    error::to_result,
    ffi, impl_has_work, new_work,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
    types::Opaque,
    workqueue::{Work, WorkItem},
};

use super::{
    decode::{Encoded, Job, NoIo, Recipe, Source},
    decompress::Failure,
    file_read::{bytes_read, file_bytes},
    folios::Folios,
    memcg::Payer,
    wait::{cond_resched, Event},
    workers, Device, Extent, ReadError, Target,
};
use crate::raw;

/// What comes after the I/O.
pub(crate) trait Filled: Send + Unpin + Sized + 'static {
    /// Takes the folios that were filled. When something went wrong (`result`), these are the ones in
    /// front of the first that could not be filled, perhaps none; the others are given up already.
    /// Called once, in process context; may sleep.
    fn filled(self, folios: Folios, result: Result);

    /// Says that the extent at byte `pos` of the file cannot be decoded, and why. Called before
    /// `filled`, in process context.
    fn bad_data(&self, pos: u64, what: &'static str);
}

/// Compressed bytes that one fill holds at most, as long as each extent alone does not have more: what is
/// beyond is read and decoded bit by bit.
const MAX_INPUT: usize = 2 << 20;

/// Bytes that are worth a worker of their own although they are there already.
const WORTH_A_WORKER: usize = 16 << 10;

/// Pieces of memory that a bio for compressed bytes has room for at least.
const ENCODED_SEGMENTS: u16 = 64;

/// Ranges in one read of a backing file.
const FILE_RANGES: usize = 16;

/// A worker ends the fill.
const WORKER: u32 = 0;
/// Somebody waits for the I/O, and ends the fill.
const WAITER: u32 = 1;
/// The I/O is done, and the fill belongs to who waited.
const DONE: u32 = 2;

/// Folios, the I/O that fills them, and what comes after.
///
/// # Invariants
///
/// `pending` is the number of I/Os under way, and one more while they are being submitted. Who takes
/// it to zero owns the fill, unless somebody waits (`owner`), who does then. `rest` belongs to the submitter, then to who owns the fill.
#[pin_data]
struct Fill<F: Filled> {
    #[pin]
    work: Work<Fill<F>>,
    pending: Atomic<u32>,
    /// The first error, as a negative errno.
    error: Atomic<i32>,
    /// Who ends the fill: [`WORKER`], [`WAITER`], or, when a waiter's I/O is done, [`DONE`].
    owner: Atomic<u32>,
    /// Done together with `owner` becoming [`DONE`].
    #[pin]
    over: Event,
    /// Who is charged for what comes after the I/O: the reader's memory cgroup.
    payer: Payer,
    /// The folios and what comes after; `None` once taken.
    rest: UnsafeCell<Option<Rest<F>>>,
}

/// What a fill is about.
struct Rest<F: Filled> {
    folios: Folios,
    /// What is to be decoded when the I/O is done.
    jobs: KVec<Job>,
    /// How many bytes from the start on are filled when all I/O has succeeded. `usize::MAX`: all.
    good: usize,
    /// Why the others are not.
    failed: Result,
    filled: F,
}

impl<F: Filled> Rest<F> {
    /// Nothing can be filled from byte `at` on.
    fn fail(&mut self, at: usize, err: Error) {
        if at < self.good {
            self.good = at;
            self.failed = Err(err);
        }
    }

    /// Ends the fill, all of whose I/O is done, or did what `error` says. Leaves the folios that are filled.
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
            let result = job.run(&mut self.folios);
            if let Err(err) = self.decoded(pos, result) {
                self.fail(at, err);
            }
            cond_resched();
        }
    }

    /// After the extent at `pos` was decoded.
    fn decoded(&self, pos: u64, result: Result<(), Failure>) -> Result {
        result.map_err(|failure| match failure {
            Failure::Error(err) => err,
            Failure::Corrupted(what) => {
                self.filled.bad_data(pos, what);
                EFSCORRUPTED
            }
        })
    }
}

impl_has_work! {
    impl{F: Filled} HasWork<Self> for Fill<F> { self.work }
}

impl<F: Filled> WorkItem for Fill<F> {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        this.end();
    }
}

impl<F: Filled> Fill<F> {
    fn end(mut self: Pin<KBox<Self>>) {
        let _noio = NoIo::new();
        let error = to_result(self.error.load(Relaxed));
        let Some(mut rest) = self.as_mut().project().rest.get_mut().take() else {
            return;
        };
        let _paying = self.payer.pays();
        let result = rest.finish(error);
        rest.filled.filled(rest.folios, result);
    }

    /// Notes an error; the first stays.
    fn fail(&self, err: Error) {
        let _ = self.error.cmpxchg(0, err.to_errno(), Relaxed);
    }

    /// One I/O is done. In any context.
    ///
    /// # Safety
    ///
    /// `this` is a fill of which the caller owns one `pending`.
    unsafe fn put(this: NonNull<Self>) {
        // SAFETY: The caller's share keeps it alive here.
        if unsafe { this.as_ref() }.pending.fetch_sub(1, Full) != 1 {
            return;
        }
        // SAFETY: Nobody else has a share of it: it is alive until it is given away below.
        let fill = unsafe { this.as_ref() };
        if fill.owner.cmpxchg(WAITER, DONE, Full).is_ok() {
            // The waiter takes it from here, and may free it as soon as this has let go of it.
            fill.over.done(Ok(()));
            return;
        }
        // SAFETY: By the type invariants it is ours now; it came from a pinned box.
        let this = unsafe { Pin::new_unchecked(KBox::from_raw(this.as_ptr())) };
        // SAFETY: The workers are there as long as there are fills.
        unsafe { workers::queue() }.enqueue(this);
    }

    /// As [`Fill::put`], by the submitter.
    ///
    /// # Safety
    ///
    /// As for [`Fill::put`]; in process context.
    unsafe fn put_submitter(this: NonNull<Self>, bytes: usize) {
        // SAFETY: By the function's safety requirements.
        unsafe {
            // Pairs with `fetch_sub` in `put`: what the others wrote is there.
            let alone = this.as_ref().pending.load(Acquire) == 1;
            if alone && (bytes < WORTH_A_WORKER || raw::erofs_shared_one_cpu()) {
                // Nobody else has a share of it, so this is the last.
                Pin::new_unchecked(KBox::from_raw(this.as_ptr())).end();
            } else {
                Self::put(this);
            }
        }
    }

    /// # Safety
    ///
    /// `bio::bi_end_io` of a bio whose `bi_private` is a fill, with a share of `pending`.
    unsafe extern "C" fn bio_done(bio: *mut bindings::bio) {
        // SAFETY: By the function's safety requirements.
        unsafe {
            let this = NonNull::new_unchecked((*bio).bi_private.cast::<Self>());
            if (*bio).bi_status != 0 {
                // Whatever the device means by it.
                this.as_ref().fail(EIO);
            }
            bindings::bio_put(bio);
            Self::put(this);
        }
    }
}

/// A bio that is being gathered.
struct PendingBio {
    bio: NonNull<bindings::bio>,
    bdev: NonNull<bindings::block_device>,
    /// Byte on the device after its last.
    end: u64,
    /// It may be one of the few that are kept for when there is no memory. Nobody who has one of these may
    /// wait for another before it is submitted.
    reserved: bool,
}

/// A read of a backing file, being gathered or under way.
///
/// # Invariants
///
/// `bvecs[..nr]` describe memory of the fill's folios, `bytes` in all. From its submission on it owns a
/// share of the fill's `pending`. `file` is open until the fill is over.
struct FileRead<F: Filled> {
    iocb: Opaque<bindings::kiocb>,
    /// Submitter and completion each hold one: the file may still look at `iocb` and `bvecs` after
    /// it has completed the read.
    refs: Atomic<u32>,
    fill: NonNull<Fill<F>>,
    pos: u64,
    bytes: usize,
    nr: usize,
    /// How many of the bytes matter: what lies behind them in their block is nobody's, and need not be
    /// there when the file ends before that.
    wanted: usize,
    file: NonNull<bindings::file>,
    bvecs: [MaybeUninit<bindings::bio_vec>; FILE_RANGES],
}

impl<F: Filled> FileRead<F> {
    /// The read is over, with `ret` as the file's `->read_iter` gave it.
    fn finish(&self, ret: isize) {
        // SAFETY: A share of `pending` keeps the fill alive.
        let fill = unsafe { self.fill.as_ref() };
        // SAFETY: By the type invariants.
        let got = match unsafe { bytes_read(self.file, self.pos, self.bytes, ret) } {
            Ok(got) if got >= self.wanted => got,
            Ok(_) => return fill.fail(EIO),
            Err(err) => return fill.fail(err),
        };
        let mut skip = got;
        for bvec in self.bvecs.iter().take(self.nr) {
            // SAFETY: By the type invariants this is initialised and describes memory of the fill's
            // folios, which the fill owns.
            unsafe {
                let bvec = bvec.assume_init_ref();
                let len = bvec.bv_len as usize;
                let skipped = skip.min(len);
                skip -= skipped;
                raw::erofs_shared_bvec_address(bvec)
                    .cast::<u8>()
                    .add(skipped)
                    .write_bytes(0, len - skipped);
            }
        }
    }

    /// Drops one of the two references.
    ///
    /// # Safety
    ///
    /// `this` comes from `KBox::into_raw`; the caller owns one of its references.
    unsafe fn put(this: *mut Self) {
        // SAFETY: The caller's reference keeps it alive here.
        if unsafe { (*this).refs.fetch_sub(1, Full) } == 1 {
            // SAFETY: The last reference is gone.
            drop(unsafe { KBox::from_raw(this) });
        }
    }

    /// # Safety
    ///
    /// `kiocb::ki_complete` of a read that `submit` started; called once.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: ffi::c_long) {
        let field = Opaque::cast_from(iocb);
        // SAFETY: Only `submit` sets this callback, on the `iocb` of a live read; completion holds a
        // reference to it and a share of the fill, and comes once.
        unsafe {
            let this = kernel::container_of!(field, Self, iocb).cast_mut();
            (*this).finish(ret);
            let fill = (*this).fill;
            Self::put(this);
            Fill::put(fill);
        }
    }

    /// Starts the read.
    ///
    /// # Safety
    ///
    /// The fill has a share of `pending` for this.
    unsafe fn submit(self_: KBox<Self>, direct: bool) {
        let file = self_.file.as_ptr();
        let this = KBox::into_raw(self_);
        // SAFETY: The read is live (two references) and exclusively ours until it starts.
        let ret = unsafe {
            let iocb = (*this).iocb.get();
            (*iocb).ki_filp = file;
            (*iocb).ki_pos = (*this).pos as bindings::loff_t;
            (*iocb).ki_complete = Some(Self::complete);
            if direct && raw::erofs_shared_file_can_odirect(file) {
                (*iocb).ki_flags = raw::EROFS_SHARED_IOCB_DIRECT as i32;
            }
            raw::erofs_shared_file_read(
                file,
                iocb,
                (*this).bvecs.as_mut_ptr().cast(),
                (*this).nr,
                (*this).bytes,
            )
        };
        if ret != EIOCBQUEUED.to_errno() as isize {
            // SAFETY: The file will not call back; completion's reference is used here.
            unsafe { Self::complete((*this).iocb.get(), ret) };
        }
        // SAFETY: The submitter's reference.
        unsafe { Self::put(this) };
    }
}

/// I/O that is being gathered for a fill.
struct Submitter<F: Filled> {
    fill: NonNull<Fill<F>>,
    ahead: bool,
    direct: bool,
    /// How many pieces of memory a bio has room for, a guess. More go into another bio.
    segments: u16,
    bio: Option<PendingBio>,
    read: Option<KBox<FileRead<F>>>,
}

impl<F: Filled> Submitter<F> {
    /// Gets ready for allocating bios elsewhere: starts what was gathered if it must not be held back
    /// meanwhile.
    fn before_others(&mut self) {
        if self.bio.as_ref().is_some_and(|pending| pending.reserved) {
            self.flush();
        }
    }

    /// Starts what was gathered.
    fn flush(&mut self) {
        if let Some(pending) = self.bio.take() {
            // SAFETY: The fill is live: the submitter has a share of it. The bio is ours until it is
            // submitted; its memory belongs to the fill, which lives until `bio_done`.
            unsafe {
                self.fill.as_ref().pending.fetch_add(1, Full);
                raw::erofs_shared_bio_submit(pending.bio.as_ptr());
            }
        }
        if let Some(read) = self.read.take() {
            // SAFETY: As above.
            unsafe {
                self.fill.as_ref().pending.fetch_add(1, Full);
                FileRead::submit(read, self.direct);
            }
        }
    }

    /// Adds the bytes of `folios` from `at` on, which are `len` bytes from byte `addr` of a device on
    /// (`Device::offset` not yet added). Only the first `wanted` matter: those behind them belong to the
    /// same block. On failure tells how many were added.
    fn add(
        &mut self,
        device: &Device,
        addr: u64,
        folios: &Folios,
        at: usize,
        len: usize,
        wanted: usize,
    ) -> Result<(), (usize, Error)> {
        let mut done = 0;
        while done < len {
            let added = self.add_part(device, addr, folios, at, done..len, wanted);
            done += added.map_err(|err| (done, err))?;
        }
        Ok(())
    }

    /// A part of what [`Submitter::add`] adds: as much as lies in one folio, and how much that is.
    fn add_part(
        &mut self,
        device: &Device,
        addr: u64,
        folios: &Folios,
        at: usize,
        left: Range<usize>,
        wanted: usize,
    ) -> Result<usize> {
        let (folio, offset, room) = folios.place(at + left.start).ok_or(EIO)?;
        let len = room.min(left.end - left.start);
        let addr = addr
            .checked_add(device.offset())
            .and_then(|addr| addr.checked_add(left.start as u64))
            .ok_or(EFSCORRUPTED)?;
        if let Some(bdev) = device.bdev() {
            self.add_to_bio(bdev, addr, folio, offset, len)?;
        } else if let Some(file) = device.file() {
            let file = NonNull::new(file.as_ptr()).ok_or(EIO)?;
            let wanted = wanted.saturating_sub(left.start).min(len);
            self.add_to_read(file, addr, folio, offset, (len, wanted))?;
        } else {
            return Err(EIO);
        }
        Ok(len)
    }

    fn add_to_bio(
        &mut self,
        bdev: NonNull<bindings::block_device>,
        addr: u64,
        folio: NonNull<bindings::folio>,
        offset: usize,
        len: usize,
    ) -> Result {
        let goes_on = self
            .bio
            .as_ref()
            .is_some_and(|pending| pending.bdev == bdev && pending.end == addr);
        if !goes_on {
            self.flush();
        }
        for _ in 0..2 {
            if let Some(pending) = &mut self.bio {
                // SAFETY: The bio is ours; the range is inside the folio, which the fill owns.
                if unsafe {
                    bindings::bio_add_folio(pending.bio.as_ptr(), folio.as_ptr(), len, offset)
                } {
                    pending.end = addr.saturating_add(len as u64);
                    return Ok(());
                }
                self.flush();
            }
            // SAFETY: The device is open.
            let alloc = |wait| unsafe {
                let (device, segments) = (bdev.as_ptr(), self.segments);
                raw::erofs_shared_bio_alloc(device, addr, segments, self.ahead, wait)
            };
            // The second way may wait for others' bios. This has none that is not submitted: it was flushed.
            let (bio, reserved) = match NonNull::new(alloc(false)) {
                Some(bio) => (bio, false),
                None => (NonNull::new(alloc(true)).ok_or(ENOMEM)?, true),
            };
            // SAFETY: The new bio is ours.
            unsafe {
                (*bio.as_ptr()).bi_private = self.fill.as_ptr().cast();
                (*bio.as_ptr()).bi_end_io = Some(Fill::<F>::bio_done);
            }
            self.bio = Some(PendingBio {
                bio,
                bdev,
                end: addr,
                reserved,
            });
        }
        Err(EIO)
    }

    fn add_to_read(
        &mut self,
        file: NonNull<bindings::file>,
        addr: u64,
        folio: NonNull<bindings::folio>,
        offset: usize,
        (len, wanted): (usize, usize),
    ) -> Result {
        // What is not there any more fails here, so that what comes before it is read.
        // SAFETY: The mount holds the file open.
        if unsafe { file_bytes(file) } < addr.saturating_add(wanted as u64) {
            return Err(EIO);
        }
        let goes_on = self.read.as_ref().is_some_and(|read| {
            read.file == file
                && read.nr < FILE_RANGES
                && read.pos.checked_add(read.bytes as u64) == Some(addr)
        });
        if !goes_on {
            self.flush();
            // INVARIANT: The mount holds the file open, and waits for its fills before it lets go of it.
            let read = KBox::new(
                FileRead {
                    iocb: Opaque::zeroed(),
                    refs: Atomic::new(2),
                    fill: self.fill,
                    pos: addr,
                    bytes: 0,
                    nr: 0,
                    wanted: 0,
                    file,
                    bvecs: [const { MaybeUninit::uninit() }; FILE_RANGES],
                },
                GFP_KERNEL,
            )?;
            self.read = Some(read);
        }
        let read = self.read.as_mut().ok_or(EIO)?;
        let nr = read.nr;
        let slot = read.bvecs.get_mut(nr).ok_or(EIO)?;
        slot.write(bindings::bio_vec {
            // SAFETY: A folio's pages are consecutive `struct page`s; `offset` is inside the folio.
            bv_page: unsafe {
                folio
                    .as_ptr()
                    .cast::<bindings::page>()
                    .add(offset >> PAGE_SHIFT)
            },
            bv_len: len as u32,
            bv_offset: (offset & (PAGE_SIZE - 1)) as u32,
        });
        read.nr += 1;
        if wanted != 0 {
            read.wanted = read.bytes.saturating_add(wanted);
        }
        read.bytes = read.bytes.saturating_add(len);
        Ok(())
    }
}

/// What to read: a file's bytes from `pos` on.
pub(crate) struct Plan {
    /// First byte in the file, a multiple of the page size.
    pub(crate) pos: u64,
    /// The file's size. What lies behind it in the folios becomes zeros.
    pub(crate) size: u64,
    /// Read ahead of need: the device may refuse when it is busy.
    pub(crate) ahead: bool,
    /// Read backing files with direct I/O.
    pub(crate) direct: bool,
}

/// Fills `folios` with a file's bytes, which `map` finds, and calls `filled` when that is done: before
/// this returns, or later.
///
/// What `map` returns is used only before this returns, except the devices: they must stay open until
/// `filled` is called.
pub(crate) fn fill<'a, F: Filled>(
    folios: Folios,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    filled: F,
) {
    let bytes = folios.bytes();
    match start(folios, plan, map, filled, WORKER) {
        // SAFETY: The submitter's share.
        Ok(fill) => unsafe { Fill::put_submitter(fill, bytes) },
        Err((mut folios, filled, err)) => {
            folios.keep(0);
            filled.filled(folios, Err(err));
        }
    }
}

/// What keeps the devices open while they are read, and says what is wrong with what they give.
pub(crate) trait Keeper: Send + Unpin + 'static {
    /// As [`Filled::bad_data`].
    fn bad_data(&self, pos: u64, what: &'static str);
}

/// Keeps something until a fill is over. What is filled goes nowhere.
struct Keep<K>(K);

impl<K: Keeper> Filled for Keep<K> {
    fn filled(self, _folios: Folios, _result: Result) {}

    fn bad_data(&self, pos: u64, what: &'static str) {
        self.0.bad_data(pos, what);
    }
}

/// As [`fill`], but waits for the I/O, and gives the folios. `keep`, which keeps the devices open, is
/// dropped when the I/O is done, at the earliest. A fatal signal ends the wait.
pub(crate) fn fill_and_wait<'a, K: Keeper>(
    folios: Folios,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    keep: K,
) -> Result<Folios> {
    let fill = start(folios, plan, map, Keep(keep), WAITER).map_err(|(_, _, err)| err)?;
    // SAFETY: The submitter's share, until the next line; then the fill is alive until its owner, who is
    // this one, has ended it, or has given it to a worker.
    let (waited, mine) = unsafe {
        Fill::put(fill);
        let waited = fill.as_ref().over.wait();
        (
            waited,
            waited.is_ok() || fill.as_ref().owner.cmpxchg(WAITER, WORKER, Full).is_err(),
        )
    };
    if !mine {
        return Err(waited.err().unwrap_or(EINTR));
    }
    if waited.is_err() {
        // SAFETY: As above. It is done, or as good as.
        unsafe { fill.as_ref() }.over.wait_always();
    }
    // SAFETY: It is ours; it came from a pinned box.
    let mut fill = unsafe { Pin::new_unchecked(KBox::from_raw(fill.as_ptr())) };
    let error = to_result(fill.error.load(Relaxed));
    let rest = fill.as_mut().project().rest.get_mut().take();
    let mut rest = rest.ok_or(EIO)?;
    rest.finish(waited.and(error))?;
    Ok(rest.folios)
}

/// Somebody who waits until all is over, and needs nothing.
struct Nobody;

impl Filled for Nobody {
    fn filled(self, _folios: Folios, _result: Result) {}

    fn bad_data(&self, _pos: u64, _what: &'static str) {}
}

/// Reads `len` bytes from `addr` on into `folios`, of which the first `wanted` matter, and waits for that.
fn read_now(
    folios: Folios,
    plan: &Plan,
    device: &Device,
    addr: u64,
    len: usize,
    wanted: usize,
) -> Result<Folios> {
    let plan = Plan {
        pos: 0,
        size: wanted as u64,
        ..*plan
    };
    let extent = |_| {
        Ok(Extent {
            offset: 0,
            len: len as u64,
            target: Target::Disk(device, addr),
        })
    };
    let fill = start(folios, &plan, extent, Nobody, WAITER).map_err(|(_, _, err)| err)?;
    // SAFETY: The submitter's share, until the next line; then the fill is alive until its owner, who is
    // this one, has ended it. It came from a pinned box.
    let mut fill = unsafe {
        Fill::put(fill);
        fill.as_ref().over.wait_always();
        Pin::new_unchecked(KBox::from_raw(fill.as_ptr()))
    };
    let error = to_result(fill.error.load(Relaxed));
    let rest = fill.as_mut().project().rest.get_mut().take();
    let mut rest = rest.ok_or(EIO)?;
    rest.finish(error)?;
    Ok(rest.folios)
}

/// Starts a fill, and gives it with the submitter's share. On failure gives back what it was given.
fn start<'a, F: Filled>(
    folios: Folios,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    filled: F,
    owner: u32,
) -> Result<NonNull<Fill<F>>, (Folios, F, Error)> {
    // The fill takes its content only once it has its memory, so that `filled` is called in any case.
    let fill = KBox::pin_init(
        pin_init!(Fill::<F> {
            work <- new_work!("erofs_shared::Fill"),
            pending: Atomic::new(1),
            error: Atomic::new(0),
            owner: Atomic::new(owner),
            over <- Event::new(),
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
    let fill = unsafe { NonNull::new_unchecked(ptr) };
    let mut submitter = Submitter {
        fill,
        ahead: plan.ahead,
        direct: plan.direct,
        segments: 0,
        bio: None,
        read: None,
    };
    // SAFETY: The submitter's share keeps the fill alive, and `rest` is the submitter's until it gives
    // that up: I/O completion only counts.
    let rest = unsafe { &mut *fill.as_ref().rest.get() };
    if let Some(rest) = rest {
        submitter.segments = u16::try_from(rest.folios.count()).unwrap_or(u16::MAX);
        let mut at = 0;
        if let Err(err) = gather(&mut submitter, rest, plan, map, &mut at) {
            rest.fail(at, err);
        }
    }
    submitter.flush();
    Ok(fill)
}

/// Has a fill's bytes read. `*done` is how many are taken care of, on failure, too.
fn gather<'a, F: Filled>(
    submitter: &mut Submitter<F>,
    rest: &mut Rest<F>,
    plan: &Plan,
    map: impl Fn(u64) -> Result<Extent<'a>>,
    done: &mut usize,
) -> Result {
    let bytes = rest.folios.bytes();
    let mut input = 0usize;
    while *done < bytes {
        let at = *done;
        let pos = plan.pos.checked_add(at as u64).ok_or(EFSCORRUPTED)?;
        let Some(left) = plan.size.checked_sub(pos).filter(|left| *left != 0) else {
            zero(&mut rest.folios, at, bytes - at);
            return Ok(());
        };
        submitter.before_others();
        let extent = map(pos)?;
        let skip = pos.checked_sub(extent.offset).ok_or(EFSCORRUPTED)?;
        let run = extent.len.checked_sub(skip).filter(|run| *run != 0);
        let run = run.ok_or(EFSCORRUPTED)?;
        // The bytes of the file in this extent, and what its last block has beyond the file's end.
        let len = usize::try_from(run).unwrap_or(usize::MAX).min(bytes - at);
        match extent.target {
            Target::Hole => zero(&mut rest.folios, at, len),
            Target::Encoded(encoded) => {
                let skip = usize::try_from(skip)?;
                let recipe = Recipe::new(&encoded, extent.offset, extent.len, at, skip, len);
                add_encoded(submitter, rest, plan, &encoded, recipe, &mut input)?;
            }
            Target::Cached(cache, start) => {
                let start = start.checked_add(skip).ok_or(EFSCORRUPTED)?;
                submitter.before_others();
                cache.read_ahead(start, len);
                let mut copied = 0;
                while copied < len {
                    let data = cache.bytes(start.saturating_add(copied as u64));
                    let data = data.map_err(|err| match err {
                        ReadError::Io(err) => err,
                        ReadError::Format(err) => {
                            rest.filled.bad_data(extent.offset, err.what);
                            EFSCORRUPTED
                        }
                    })?;
                    let part = data.len().min(len - copied);
                    let data = data.get(..part).ok_or(EIO)?;
                    copy(&mut rest.folios, at + copied, data);
                    copied += part;
                }
            }
            Target::Inline(data) => {
                let data = data.get(skip as usize..).unwrap_or(&[]);
                let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
                copy(&mut rest.folios, at, data.get(..len).ok_or(EFSCORRUPTED)?);
                *done += len;
                continue;
            }
            Target::Disk(device, addr) => {
                let addr = addr.checked_add(skip).ok_or(EFSCORRUPTED)?;
                let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                submitter
                    .add(device, addr, &rest.folios, at, len, wanted)
                    .map_err(|(added, err)| {
                        *done += added;
                        err
                    })?;
            }
            Target::InlineAt(_) | Target::EncodedAt(_) => return Err(EIO),
        }
        *done += len;
    }
    Ok(())
}

/// Reads compressed bytes, to be decoded when they are there. `input` counts those that wait for that.
fn add_encoded<F: Filled>(
    submitter: &mut Submitter<F>,
    rest: &mut Rest<F>,
    plan: &Plan,
    encoded: &Encoded<'_>,
    recipe: Recipe,
    input: &mut usize,
) -> Result {
    let (device, addr) = match &encoded.source {
        Source::Disk(device, addr) => (device, *addr),
        Source::Inline(data) => {
            let data = data.get(..encoded.plen).ok_or(EFSCORRUPTED)?;
            let result = recipe.run_now(data, &mut rest.folios);
            return rest.decoded(recipe.pos, result);
        }
    };
    // Whole blocks, as far as the device goes.
    let mask = (1u64 << encoded.block_bits) - 1;
    let start = addr & !mask;
    let end = addr.checked_add(encoded.plen as u64).ok_or(EFSCORRUPTED)?;
    let blocks_end = end.checked_add(mask).ok_or(EFSCORRUPTED)? & !mask;
    let end = blocks_end.min(device.bytes().max(end));
    let len = usize::try_from(end - start)?;
    let wanted = usize::try_from(addr - start)?.saturating_add(encoded.plen);
    let mut job = Job::new(recipe, encoded.plen, len, &mut rest.folios)?;
    *input = input.saturating_add(len);
    if *input > MAX_INPUT && !rest.jobs.is_empty() {
        submitter.before_others();
        let folios = read_now(job.take_input(), plan, device, start, len, wanted)?;
        job.put_input(folios);
        let result = job.run(&mut rest.folios);
        return rest.decoded(recipe.pos, result);
    }
    // What is decoded has pieces of its own, one for each extent at least.
    submitter.segments = submitter.segments.max(ENCODED_SEGMENTS);
    // From now on it goes with the fill, as what is being read into it must.
    rest.jobs.push(job, GFP_KERNEL)?;
    let input = rest.jobs.last().ok_or(EIO)?.input();
    let added = submitter.add(device, start, input, 0, len, wanted);
    added.map_err(|(_, err)| err)
}

/// Zeroes `len` bytes from `at` on.
fn zero(folios: &mut Folios, mut at: usize, mut len: usize) {
    while len > 0 {
        let Some(to) = folios.bytes_mut(at) else {
            return;
        };
        let part = to.len().min(len);
        if let Some(to) = to.get_mut(..part) {
            to.fill(0);
        }
        at += part;
        len -= part;
    }
}

/// Copies `data` to `at`.
pub(super) fn copy(folios: &mut Folios, mut at: usize, mut data: &[u8]) {
    while !data.is_empty() {
        let Some(to) = folios.bytes_mut(at) else {
            return;
        };
        let part = to.len().min(data.len());
        let (now, later) = data.split_at(part);
        if let Some(to) = to.get_mut(..part) {
            to.copy_from_slice(now);
        }
        at += part;
        data = later;
    }
}

/// Zeroes what a read of whole blocks may have brought in from behind the file's end.
pub(crate) fn zero_tail(folios: &mut Folios, pos: u64, size: u64) {
    let bytes = folios.bytes();
    let end = size.saturating_sub(pos);
    if end < bytes as u64 {
        zero(folios, end as usize, bytes - end as usize);
    }
}
