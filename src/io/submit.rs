// SPDX-License-Identifier: GPL-2.0

//! Gathers a fill's I/O into bios and reads of backing files, and submits them.

use core::ptr::NonNull;

use kernel::prelude::*;

use super::{
    backing_read::{file_bytes, BackingRead, EndedRead, ReadEnd},
    fill_state::{FillCompletion, Share, Shares},
    folio::Folio,
    folio_list::FolioList,
    Device,
};
use crate::{bindings, compat::code::EFSCORRUPTED};

/// Pieces of memory that a bio for compressed bytes has room for at least.
const ENCODED_SEGMENTS: u16 = 64;

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

// SAFETY: The memory is the fill's, which lives until `end` drops the share, after the read.
unsafe impl<F: FillCompletion> ReadEnd for Share<F> {
    const FAILS_IN_WORKER: bool = false;

    fn end(self, read: EndedRead<Self>) {
        if read.is_enough() {
            read.zero_rest();
        } else {
            self.fail(EIO);
        }
        // The read describes the fill's memory, so it goes before the share.
        drop(read);
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
    read: Option<KBox<BackingRead<Share<F>>>>,
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
        if let Some(read) = self.read.take() {
            BackingRead::submit(read, self.fill.share(), self.direct);
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
        if !read.is_some_and(|read| read.continues_at(file, addr)) {
            self.flush();
            // SAFETY: The mount holds the file open, and waits for its fills before it lets go of
            // it.
            self.read = Some(unsafe { BackingRead::new(file, addr) }?);
        }
        let read = self.read.as_mut().ok_or(EIO)?;
        // SAFETY: The range is inside the folio, which is the fill's until the read's share of that
        // is gone.
        unsafe { read.add(folio, offset, len, wanted) }
    }
}
