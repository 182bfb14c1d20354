// SPDX-License-Identifier: GPL-2.0

//! Gathers a fill's I/O into bios and reads of backing files, and submits them.

use core::{mem::MaybeUninit, ptr::NonNull};

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{Atomic, Full},
    types::Opaque,
};

use super::{
    file_read::{bytes_read, file_bytes, kiocb},
    fill_state::{FillCompletion, Share, Shares},
    folio::Folio,
    folio_list::FolioList,
    Device,
};
use crate::{bindings, compat::code::EFSCORRUPTED};

/// Pieces of memory that a bio for compressed bytes has room for at least.
const ENCODED_SEGMENTS: u16 = 64;

/// Ranges in one read of a backing file.
const FILE_RANGES: usize = 16;

/// A bio that is being gathered.
struct PendingBio {
    bio: NonNull<bindings::bio>,
    bdev: NonNull<bindings::block_device>,
    /// Byte on the device after its last.
    end: u64,
    /// It may be one of the few that are kept for when there is no memory. A task that has one of
    /// these must not wait for another before it is submitted.
    reserved: bool,
}

/// A read of a backing file, being gathered or under way.
///
/// # Invariants
///
/// `bvecs[..nr]` describe memory of the fill's folios, `bytes` in all. `file` is open until the
/// fill is over.
struct FileRead<F: FillCompletion> {
    iocb: Opaque<bindings::kiocb>,
    /// Submitter and completion each hold one: the file may still look at `iocb` and `bvecs` after
    /// it has completed the read.
    refs: Atomic<u32>,
    /// Completion's, which takes it.
    share: Option<Share<F>>,
    pos: u64,
    bytes: usize,
    nr: usize,
    /// How many of the bytes matter: what lies behind them in their block is not a part of the
    /// file, and need not be there when the file ends before that.
    wanted: usize,
    file: NonNull<bindings::file>,
    bvecs: [MaybeUninit<bindings::bio_vec>; FILE_RANGES],
}

impl<F: FillCompletion> FileRead<F> {
    /// A read of nothing yet, from byte `pos` of the file on.
    ///
    /// # Safety
    ///
    /// * `file` is open until the fill is over.
    unsafe fn new(file: NonNull<bindings::file>, pos: u64) -> Result<KBox<Self>> {
        // INVARIANT: There is no memory to read into; the rest is as this function's requirements
        // say.
        let this = Self {
            iocb: Opaque::zeroed(),
            refs: Atomic::new(2),
            share: None,
            pos,
            bytes: 0,
            nr: 0,
            wanted: 0,
            file,
            bvecs: [const { MaybeUninit::uninit() }; FILE_RANGES],
        };
        Ok(KBox::new(this, GFP_KERNEL)?)
    }

    /// Whether there is room for the bytes of the file from `pos` on.
    fn continues_at(&self, pos: u64) -> bool {
        self.nr < FILE_RANGES && self.pos.checked_add(self.bytes as u64) == Some(pos)
    }

    /// The read is over, with `ret` as the file's `->read_iter` gave it.
    fn finish(&self, share: &Share<F>, ret: isize) {
        // SAFETY: By the type invariants the file is open as long as the fill is not over.
        let got = match unsafe { bytes_read(self.file, self.pos, self.bytes, ret) } {
            Ok(got) if got >= self.wanted => got,
            Ok(_) => return share.fail(EIO),
            Err(err) => return share.fail(err),
        };
        let mut skip = got;
        for bvec in self.bvecs.iter().take(self.nr) {
            // SAFETY: This is initialised (type invariants).
            let bvec = unsafe { bvec.assume_init_ref() };
            let len = bvec.bv_len as usize;
            let skipped = skip.min(len);
            skip -= skipped;
            // SAFETY: It describes memory of the fill's folios.
            let start = unsafe { bindings::bvec_address(bvec) }.cast::<u8>();
            let rest = start.wrapping_add(skipped);
            // SAFETY: The memory is the fill's, and `len` bytes from `start` on.
            unsafe { rest.write_bytes(0, len - skipped) };
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

    /// `kiocb::ki_complete`
    ///
    /// # Safety
    ///
    /// * `iocb` is that of a read that [`FileRead::submit`] started.
    /// * The read completes once.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: c_long) {
        let field = Opaque::cast_from(iocb);
        // SAFETY: `iocb` lies in a `FileRead`, to which completion holds a reference.
        let this = unsafe { kernel::container_of!(field, Self, iocb) }.cast_mut();
        // SAFETY: The read is live, and only completion looks at its `share`, once.
        let share = unsafe { (*this).share.take() };
        if let Some(share) = &share {
            // SAFETY: The read is live, and nothing changes the fields that this looks at any more.
            unsafe { (*this).finish(share, ret) };
        }
        // SAFETY: Completion's reference, which comes before the share: the bvecs describe the
        // fill's memory.
        unsafe { Self::put(this) };
        drop(share);
    }

    /// Starts the read.
    fn submit(mut self_: KBox<Self>, direct: bool) {
        let (file, nr, bytes) = (self_.file, self_.nr, self_.bytes);
        // SAFETY: The file is open (type invariants).
        let kiocb = unsafe { kiocb(file, self_.pos, bytes, Self::complete, direct) };
        self_.iocb = Opaque::new(kiocb);
        let this = KBox::into_raw(self_);
        // SAFETY: The read is live (two references) and exclusively ours until it starts.
        let (iocb, bvecs) = unsafe { ((*this).iocb.get(), (&raw mut (*this).bvecs).cast()) };
        // SAFETY: By the type invariants `bvecs` describe memory of the fill, which lives until
        // completion has dropped its share. The read itself lives at least until the submitter's
        // reference is gone.
        let ret = unsafe { bindings::file_read(file.as_ptr(), iocb, bvecs, nr, bytes) };
        if ret != EIOCBQUEUED.to_errno() as isize {
            // SAFETY: The file will not call back; completion's reference is used here.
            unsafe { Self::complete(iocb, ret) };
        }
        // SAFETY: The submitter's reference.
        unsafe { Self::put(this) };
    }
}

/// `bio::bi_end_io` of a fill's bios.
///
/// # Safety
///
/// * `bio` is live, and this has its reference.
/// * Its `bi_private` is a [`Share`] of a fill with this `F`.
unsafe extern "C" fn bio_done<F: FillCompletion>(bio: *mut bindings::bio) {
    // SAFETY: By this function's requirements; a bio ends once.
    let share = unsafe { Share::<F>::from_raw((*bio).bi_private) };
    // SAFETY: The bio is live until the reference is given back.
    let status = unsafe { (*bio).bi_status };
    // SAFETY: By this function's requirements the reference is this one's.
    unsafe { bindings::bio_put(bio) };
    if status != 0 {
        // Whatever the device means by it.
        share.fail(EIO);
    }
}

/// I/O that is being gathered for a fill.
pub(super) struct Submitter<'a, F: FillCompletion> {
    fill: Shares<'a, F>,
    ahead: bool,
    direct: bool,
    /// How many pieces of memory a bio has room for, a guess. More go into another bio.
    segments: u16,
    bio: Option<PendingBio>,
    read: Option<KBox<FileRead<F>>>,
}

impl<'a, F: FillCompletion> Submitter<'a, F> {
    /// For I/O of this fill. `segments` is a guess of how many pieces of memory it has.
    pub(super) fn new(fill: Shares<'a, F>, ahead: bool, direct: bool, segments: usize) -> Self {
        Self {
            fill,
            ahead,
            direct,
            segments: u16::try_from(segments).unwrap_or(u16::MAX),
            bio: None,
            read: None,
        }
    }

    /// What comes is compressed bytes, for which there are pieces of memory of their own.
    pub(super) fn expect_encoded(&mut self) {
        self.segments = self.segments.max(ENCODED_SEGMENTS);
    }

    /// Gets ready for allocating bios elsewhere: starts what was gathered if it must not be held
    /// back meanwhile.
    pub(super) fn before_others(&mut self) {
        if self.bio.as_ref().is_some_and(|pending| pending.reserved) {
            self.flush();
        }
    }

    /// Starts what was gathered.
    pub(super) fn flush(&mut self) {
        if let Some(pending) = self.bio.take() {
            let share = self.fill.share().into_raw();
            let mut bio = pending.bio;
            // SAFETY: The bio is ours until it is submitted.
            let fields = unsafe { bio.as_mut() };
            fields.bi_private = share;
            fields.bi_end_io = Some(bio_done::<F>);
            // SAFETY: Its memory belongs to the fill, which lives until `bio_done` drops the share.
            unsafe { bindings::bio_submit(bio.as_ptr()) };
        }
        if let Some(mut read) = self.read.take() {
            read.share = Some(self.fill.share());
            FileRead::submit(read, self.direct);
        }
    }

    /// Adds the bytes of `folios` from `at` on, which are `len` bytes from byte `addr` of a device
    /// on (`Device::offset` not yet added). Only the first `wanted` matter: those behind them
    /// belong to the same block. On failure tells how many were added.
    pub(super) fn add(
        &mut self,
        device: &Device,
        addr: u64,
        folios: &FolioList,
        at: usize,
        len: usize,
        wanted: usize,
    ) -> Result<(), (usize, Error)> {
        let mut done = 0;
        for (folio, offset, len) in folios.pieces(at, len) {
            let addr = addr.checked_add(done as u64).ok_or((done, EFSCORRUPTED))?;
            let piece = (folio, offset, len);
            self.add_piece(device, addr, piece, wanted.saturating_sub(done))
                .map_err(|err| (done, err))?;
            done += len;
        }
        if done == len {
            Ok(())
        } else {
            Err((done, EIO))
        }
    }

    /// A part of what [`Submitter::add`] adds, that lies in one folio.
    fn add_piece(
        &mut self,
        device: &Device,
        addr: u64,
        (folio, offset, len): (&Folio, usize, usize),
        wanted: usize,
    ) -> Result {
        let addr = addr.checked_add(device.offset()).ok_or(EFSCORRUPTED)?;
        if let Some(bdev) = device.bdev() {
            return self.add_to_bio(bdev, addr, folio, offset, len);
        }
        let file = device.file().and_then(|file| NonNull::new(file.as_ptr()));
        let file = file.ok_or(EIO)?;
        self.add_to_read(file, addr, folio, offset, (len, wanted.min(len)))
    }

    /// A bio for bytes of a device from `addr` on. With `wait` it waits for memory.
    fn new_bio(
        &self,
        bdev: NonNull<bindings::block_device>,
        addr: u64,
        wait: bool,
    ) -> Option<NonNull<bindings::bio>> {
        let (bdev, segments, ahead) = (bdev.as_ptr(), self.segments, self.ahead);
        // SAFETY: The device is open.
        NonNull::new(unsafe { bindings::bio_alloc(bdev, addr, segments, ahead, wait) })
    }

    fn add_to_bio(
        &mut self,
        bdev: NonNull<bindings::block_device>,
        addr: u64,
        folio: &Folio,
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
                let (bio, folio) = (pending.bio.as_ptr(), folio.as_ptr());
                // SAFETY: The bio is ours; the range is inside the folio, which the fill owns.
                if unsafe { bindings::bio_add_folio(bio, folio, len, offset) } {
                    pending.end = addr.saturating_add(len as u64);
                    return Ok(());
                }
                self.flush();
            }
            // The second way may wait for others' bios. This has none that is not submitted: it was
            // flushed.
            let (bio, reserved) = match self.new_bio(bdev, addr, false) {
                Some(bio) => (bio, false),
                None => (self.new_bio(bdev, addr, true).ok_or(ENOMEM)?, true),
            };
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
        folio: &Folio,
        offset: usize,
        (len, wanted): (usize, usize),
    ) -> Result {
        // What is not there any more fails here, so that what comes before it is read.
        // SAFETY: The mount holds the file open.
        if unsafe { file_bytes(file) } < addr.saturating_add(wanted as u64) {
            return Err(EIO);
        }
        let read = self.read.as_ref();
        if !read.is_some_and(|read| read.file == file && read.continues_at(addr)) {
            self.flush();
            // SAFETY: The mount holds the file open, and waits for its fills before it lets go of
            // it.
            self.read = Some(unsafe { FileRead::new(file, addr) }?);
        }
        let read = self.read.as_mut().ok_or(EIO)?;
        let nr = read.nr;
        let slot = read.bvecs.get_mut(nr).ok_or(EIO)?;
        slot.write(bindings::bio_vec {
            bv_page: folio.page_of(offset),
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
