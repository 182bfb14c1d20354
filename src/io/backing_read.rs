// SPDX-License-Identifier: GPL-2.0

//! Reads of an image that is a regular file.
//!
//! Neighbouring ranges are gathered into one read, which `->read_iter` of the backing file brings
//! straight into the folios: no second copy stays anywhere with direct I/O, and none of this
//! module's making without. A read ends in any context (a direct one in an interrupt).

use core::{mem::MaybeUninit, ptr::NonNull};

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{Atomic, Full},
    types::Opaque,
};

use super::{folio::Folio, workers};
use crate::bindings;

/// Ranges of memory in one read. With large folios this is megabytes.
const MAX_RANGES: usize = 16;

/// The size of a backing file, as it is now.
///
/// # Safety
///
/// * `file` is open.
pub(super) unsafe fn file_bytes(file: NonNull<bindings::file>) -> u64 {
    // SAFETY: An open file has an inode; its size is never negative.
    unsafe { bindings::inode_size((*file.as_ptr()).f_inode) as u64 }
}

/// For whom a file is read: what becomes of the memory in the end.
///
/// # Safety
///
/// * [`ReadEnd::end`] gives the memory up, or has it given up, after its last use of the read.
pub(super) unsafe trait ReadEnd: Send + Sized + 'static {
    /// Whether the end of a read that lacks bytes needs process context. It comes by a worker then.
    const FAILS_IN_WORKER: bool;

    /// The read is over. In any context, or see [`ReadEnd::FAILS_IN_WORKER`].
    fn end(self, read: EndedRead<Self>);
}

/// A read of consecutive bytes of a backing file, being gathered or under way.
///
/// # Invariants
///
/// * `file` is open until the read is over.
/// * `bvecs[..nr]` are initialised. They describe memory inside folios, `bytes` in all, that
///   nothing else uses until [`ReadEnd::end`] has given it up.
pub(super) struct BackingRead<T> {
    iocb: Opaque<bindings::kiocb>,
    /// Submitter and completion each hold one: the file may still look at `iocb` and `bvecs` after
    /// it has completed the read.
    refs: Atomic<u32>,
    /// Completion's, which takes it.
    owner: Option<T>,
    file: NonNull<bindings::file>,
    pos: u64,
    bytes: usize,
    nr: usize,
    /// How many of the bytes matter: what lies behind them in their block is not a part of the
    /// file, and need not be there when the file ends before that.
    wanted: usize,
    /// Completion's: how many bytes have come.
    got: usize,
    /// Completion's, for the worker.
    work: Opaque<bindings::work_struct>,
    bvecs: [MaybeUninit<bindings::bio_vec>; MAX_RANGES],
}

impl<T: ReadEnd> BackingRead<T> {
    /// A read of nothing yet, from byte `pos` of the file on.
    ///
    /// # Safety
    ///
    /// * `file` is open until the read is over.
    pub(super) unsafe fn new(file: NonNull<bindings::file>, pos: u64) -> Result<KBox<Self>> {
        // INVARIANT: There is no memory to read into; the rest is as this function's requirements
        // say.
        let this = Self {
            iocb: Opaque::zeroed(),
            refs: Atomic::new(2),
            owner: None,
            file,
            pos,
            bytes: 0,
            nr: 0,
            wanted: 0,
            got: 0,
            work: Opaque::zeroed(),
            bvecs: [const { MaybeUninit::uninit() }; MAX_RANGES],
        };
        Ok(KBox::new(this, GFP_KERNEL)?)
    }

    /// Whether the bytes of `file` from `pos` on follow, and there is room for them.
    pub(super) fn continues_at(&self, file: NonNull<bindings::file>, pos: u64) -> bool {
        let end = self.pos.checked_add(self.bytes as u64);
        self.nr < MAX_RANGES && self.file == file && end == Some(pos)
    }

    /// Adds the next `len` bytes, of which the first `wanted` matter, to be read into the folio
    /// from its byte `offset` on. `EIO` if there is no room.
    ///
    /// # Safety
    ///
    /// * That range lies in the folio.
    /// * The folio stays, and nothing else uses the range, until [`ReadEnd::end`] has given it up.
    pub(super) unsafe fn add(
        &mut self,
        folio: &Folio,
        offset: usize,
        len: usize,
        wanted: usize,
    ) -> Result {
        let slot = self.bvecs.get_mut(self.nr).ok_or(EIO)?;
        // INVARIANT: By this function's requirements it is such memory.
        slot.write(bindings::bio_vec {
            bv_page: folio.page_of(offset),
            bv_len: len as u32,
            bv_offset: (offset & (PAGE_SIZE - 1)) as u32,
        });
        self.nr += 1;
        if wanted != 0 {
            self.wanted = self.bytes.saturating_add(wanted);
        }
        self.bytes = self.bytes.saturating_add(len);
        Ok(())
    }

    /// How many bytes have come, by a read that gave `ret`: none if it failed, by any errno, as
    /// in-tree. What the file's filesystem means by its errno (`ESTALE`, `EAGAIN`, `ENOMEM`, ...)
    /// means something else to a reader of a file of the image; a fault that gets `ENOMEM` would
    /// even be tried again without end.
    ///
    /// A read that meets the file becoming shorter may see the zeros by which that begins; so what
    /// lies behind the file's end by now has not been read.
    fn bytes_read(&self, ret: isize) -> usize {
        let got = usize::try_from(ret).unwrap_or(0).min(self.bytes);
        // SAFETY: The file is open as long as the read is not over (type invariants).
        let left = unsafe { file_bytes(self.file) }.saturating_sub(self.pos);
        got.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Its `kiocb`: direct I/O if that is wanted, the file has it, none of the bytes are in its
    /// page cache, and nothing writes to it.
    fn kiocb(&self, direct: bool) -> bindings::kiocb {
        let (file, pos) = (self.file.as_ptr(), self.pos as bindings::loff_t);
        // SAFETY: The file is open as long as the read is not over (type invariants).
        let direct = direct && unsafe { bindings::file_wants_direct(file, pos, self.bytes) };
        bindings::kiocb {
            ki_filp: file,
            ki_pos: pos,
            ki_complete: Some(Self::complete),
            ki_flags: if direct {
                bindings::IOCB_DIRECT as i32
            } else {
                0
            },
            ..pin_init::zeroed()
        }
    }

    /// Starts the read. It may end before this returns, or much later.
    pub(super) fn submit(mut self_: KBox<Self>, owner: T, direct: bool) {
        self_.owner = Some(owner);
        self_.iocb = Opaque::new(self_.kiocb(direct));
        let (file, nr, bytes) = (self_.file, self_.nr, self_.bytes);
        let this = KBox::into_raw(self_);
        // SAFETY: The read is live (two references) and exclusively ours until it starts.
        let (iocb, bvecs) = unsafe { ((*this).iocb.get(), (&raw mut (*this).bvecs).cast()) };
        // SAFETY: By the type invariants `bvecs` describe memory that stays until the read is over,
        // and more. The read itself lives until the submitter's reference is gone.
        let ret = unsafe { bindings::file_read(file.as_ptr(), iocb, bvecs, nr, bytes) };
        if ret != EIOCBQUEUED.to_errno() as isize {
            // SAFETY: Completion's reference, since the file will not call back. Nothing changes
            // the read meanwhile.
            unsafe { (*this).got = (*this).bytes_read(ret) };
            // SAFETY: The read is over, in process context. Completion's reference is given up.
            unsafe { Self::end(this) };
        }
        // SAFETY: The submitter's reference.
        unsafe { Self::put(this) };
    }

    /// `kiocb::ki_complete`
    ///
    /// # Safety
    ///
    /// * `iocb` is that of a read that [`BackingRead::submit`] started.
    /// * The read completes once.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: c_long) {
        let field = Opaque::cast_from(iocb);
        // SAFETY: `iocb` lies in a `BackingRead`, to which completion holds a reference.
        let this = unsafe { kernel::container_of!(field, Self, iocb) }.cast_mut();
        // SAFETY: The read is live, and nothing changes it meanwhile.
        let read = unsafe { &*this };
        let (got, work) = (read.bytes_read(ret), read.work.get());
        let is_enough = got >= read.wanted;
        // SAFETY: The field is completion's, and nothing looks at it before the end.
        unsafe { (*this).got = got };
        if is_enough || !T::FAILS_IN_WORKER {
            // SAFETY: Completion's reference, and completion comes once.
            return unsafe { Self::end(this) };
        }
        // SAFETY: The reference goes to the worker; `work` is completion's. What the memory belongs
        // to waits for the end, and keeps the mount, and so the workers.
        unsafe { workers::call(work, Self::end_in_worker) };
    }

    /// # Safety
    ///
    /// * `work` is that of a live read, queued by `complete`.
    unsafe extern "C" fn end_in_worker(work: *mut bindings::work_struct) {
        let field = Opaque::cast_from(work);
        // SAFETY: By this function's requirements this is the work of a live read.
        let this = unsafe { kernel::container_of!(field, Self, work) }.cast_mut();
        // SAFETY: Completion's reference, which `complete` has passed on.
        unsafe { Self::end(this) };
    }

    /// # Safety
    ///
    /// * `this` is a read that is over; the caller owns completion's reference, and gives it up.
    unsafe fn end(this: *mut Self) {
        // SAFETY: The read is live, and only completion looks at its `owner`, once.
        let owner = unsafe { (*this).owner.take() };
        // SAFETY: The pointer comes from a box.
        // INVARIANT: By this function's requirements the read is over, and this is its reference.
        let read = EndedRead(unsafe { NonNull::new_unchecked(this) });
        if let Some(owner) = owner {
            owner.end(read);
        }
    }

    /// Drops one of the two references.
    ///
    /// # Safety
    ///
    /// * `this` comes from `KBox::into_raw`.
    /// * The caller owns one of its references.
    unsafe fn put(this: *mut Self) {
        // SAFETY: The caller's reference keeps it alive here.
        if unsafe { (*this).refs.fetch_sub(1, Full) } == 1 {
            // SAFETY: The last reference is gone.
            drop(unsafe { KBox::from_raw(this) });
        }
    }
}

/// A read that is over.
///
/// # Invariants
///
/// * The read is live, and this owns completion's reference to it. Nothing changes it any more.
/// * Its memory has not been given up before the last use of this ([`ReadEnd`]).
pub(super) struct EndedRead<T: ReadEnd>(NonNull<BackingRead<T>>);

impl<T: ReadEnd> EndedRead<T> {
    fn read(&self) -> &BackingRead<T> {
        // SAFETY: The read is live, and nothing changes it any more (type invariants).
        unsafe { self.0.as_ref() }
    }

    /// Whether all bytes that matter have come.
    pub(super) fn is_enough(&self) -> bool {
        self.read().got >= self.read().wanted
    }

    /// The memory, in the order of the file's bytes, each with how many bytes of it have come.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (&bindings::bio_vec, usize)> {
        let read = self.read();
        let mut left = read.got;
        read.bvecs.iter().take(read.nr).map(move |bvec| {
            // SAFETY: It is initialised (type invariants of the read).
            let bvec = unsafe { bvec.assume_init_ref() };
            let here = left.min(bvec.bv_len as usize);
            left -= here;
            (bvec, here)
        })
    }

    /// Clears the memory for which no bytes have come.
    pub(super) fn zero_rest(&self) {
        for (bvec, here) in self.ranges() {
            // SAFETY: It describes memory inside a folio, which has not been given up (type
            // invariants).
            let start = unsafe { bindings::bvec_address(bvec) }.cast::<u8>();
            let rest = start.wrapping_add(here);
            // SAFETY: The memory is the read's, and `bv_len` bytes from `start` on.
            unsafe { rest.write_bytes(0, bvec.bv_len as usize - here) };
        }
    }
}

impl<T: ReadEnd> Drop for EndedRead<T> {
    fn drop(&mut self) {
        // SAFETY: The reference is completion's, which this owns (type invariants).
        unsafe { BackingRead::put(self.0.as_ptr()) };
    }
}
