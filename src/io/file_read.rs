// SPDX-License-Identifier: GPL-2.0

//! Filling page cache from an image that is a regular file.
//!
//! Neighbouring ranges are gathered into one request, which is read with `->read_iter` of the
//! backing file straight into the folios: no second copy stays anywhere with direct I/O, and none
//! of this module's making without. The request completes in any context (a direct read completes
//! in an interrupt), so completion only marks folios.

use core::{
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use kernel::{prelude::*, types::Opaque};

use super::{folio::Folio, workers};
use crate::{bindings, compat::code::EFSCORRUPTED};

/// Folio ranges in one request. With large folios this is megabytes.
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

/// How many bytes of a file came by a read of `bytes` bytes from `pos` on that ended with `ret`.
/// `EIO` if it failed: by any errno, as in-tree. What the file's filesystem means by its errno
/// (`ESTALE`, `EAGAIN`, `ENOMEM`, ...) means something else to a reader of a file of the image; a
/// fault that gets `ENOMEM` would even be tried again without end.
///
/// A read that meets the file becoming shorter may see the zeros by which that begins; so what lies
/// behind the file's end by now has not been read.
///
/// # Safety
///
/// * `file` is open.
pub(super) unsafe fn bytes_read(
    file: NonNull<bindings::file>,
    pos: u64,
    bytes: usize,
    ret: isize,
) -> Result<usize> {
    let got = usize::try_from(ret).map_err(|_| EIO)?.min(bytes);
    // SAFETY: By this function's requirements the file is open, so that its inode is live.
    let left = unsafe { file_bytes(file) }.saturating_sub(pos);
    Ok(got.min(usize::try_from(left).unwrap_or(usize::MAX)))
}

/// The `kiocb` of a read of `bytes` bytes of a file from `pos` on, which ends with `done`; direct
/// I/O if that is wanted, the file has it, none of the bytes are in its page cache, and nothing
/// writes to it.
///
/// # Safety
///
/// * `file` is open.
pub(super) unsafe fn kiocb(
    file: NonNull<bindings::file>,
    pos: u64,
    bytes: usize,
    done: unsafe extern "C" fn(*mut bindings::kiocb, c_long),
    direct: bool,
) -> bindings::kiocb {
    let (file, pos) = (file.as_ptr(), pos as bindings::loff_t);
    // SAFETY: By this function's requirements the file is open.
    let direct = direct && unsafe { bindings::file_wants_direct(file, pos, bytes) };
    bindings::kiocb {
        ki_filp: file,
        ki_pos: pos,
        ki_complete: Some(done),
        ki_flags: if direct {
            bindings::IOCB_DIRECT as i32
        } else {
            0
        },
        ..pin_init::zeroed()
    }
}

#[derive(Clone, Copy)]
struct Range {
    folio: *mut bindings::folio,
    offset: usize,
    len: usize,
}

/// A read of consecutive bytes of a backing file into ranges of folios.
///
/// # Invariants
///
/// Until completion, `ranges[..nr]` are ranges of locked folios of which this request owns the
/// completion (`iomap_finish_folio_read`), and `bvecs[..nr]` describe the same memory. `file` is
/// open until then.
struct Request {
    iocb: Opaque<bindings::kiocb>,
    /// Submitter and completion each hold one: the file may still look at `iocb` and `bvecs` after
    /// it has completed the request.
    refs: AtomicU32,
    pos: u64,
    bytes: usize,
    nr: usize,
    /// How many of the bytes matter: what lies behind the inode's end in its last block need not be
    /// there.
    wanted: usize,
    file: NonNull<bindings::file>,
    /// What completion has got: the bytes that have been read. For the worker, if there is one.
    got: usize,
    /// The worker's.
    work: Opaque<bindings::work_struct>,
    ranges: [Range; MAX_RANGES],
    bvecs: [MaybeUninit<bindings::bio_vec>; MAX_RANGES],
}

impl Request {
    /// A request of no ranges yet, from byte `pos` of the file on.
    ///
    /// # Safety
    ///
    /// * `file` is open until the request has completed.
    unsafe fn new(file: NonNull<bindings::file>, pos: u64) -> Result<KBox<Self>> {
        let none = Range {
            folio: core::ptr::null_mut(),
            offset: 0,
            len: 0,
        };
        // INVARIANT: There are no ranges; the rest is as this function's requirements say.
        let this = Self {
            iocb: Opaque::zeroed(),
            refs: AtomicU32::new(2),
            pos,
            bytes: 0,
            nr: 0,
            wanted: 0,
            file,
            got: 0,
            work: Opaque::zeroed(),
            ranges: [none; MAX_RANGES],
            bvecs: [const { MaybeUninit::uninit() }; MAX_RANGES],
        };
        Ok(KBox::new(this, GFP_KERNEL)?)
    }

    /// Adds a range, of which the first `wanted` bytes matter; `false` if it does not continue this
    /// request or there is no room.
    ///
    /// # Safety
    ///
    /// * The range is of a locked folio whose completion passes to this request.
    unsafe fn add(&mut self, pos: u64, range: Range, wanted: usize) -> bool {
        if self.nr == MAX_RANGES || self.pos.checked_add(self.bytes as u64) != Some(pos) {
            return false;
        }
        let bvec = bindings::bio_vec {
            // SAFETY: By this function's requirements the folio is live.
            bv_page: unsafe { Folio::from_raw(range.folio) }.page_of(range.offset),
            bv_len: range.len as u32,
            bv_offset: (range.offset & (kernel::page::PAGE_SIZE - 1)) as u32,
        };
        let (Some(slot), Some(out)) = (self.ranges.get_mut(self.nr), self.bvecs.get_mut(self.nr))
        else {
            return false;
        };
        *slot = range;
        out.write(bvec);
        self.nr += 1;
        if wanted != 0 {
            self.wanted = self.bytes + wanted;
        }
        self.bytes += range.len;
        true
    }

    /// How many bytes have been read; `ret` is what the file's `->read_iter` gave.
    fn read(&self, ret: isize) -> usize {
        // SAFETY: By the type invariants the file is open until completion, which this is a part
        // of.
        unsafe { bytes_read(self.file, self.pos, self.bytes, ret) }.unwrap_or(0)
    }

    /// Whether that is all that matters.
    fn is_enough(&self, got: usize) -> bool {
        got >= self.wanted
    }

    /// Marks all folios as read or failed, of which `got` bytes have been read. In process context,
    /// unless that is enough.
    fn finish(&self, mut got: usize) {
        let enough = self.is_enough(got);
        for range in self.ranges.iter().take(self.nr) {
            let here = got.min(range.len);
            got -= here;
            let mut error = 0;
            if here < range.len {
                if enough {
                    // SAFETY: The folio is locked, hence live (type invariants).
                    let folio = unsafe { Folio::from_raw(range.folio) };
                    let rest = folio.address().wrapping_add(range.offset + here);
                    // SAFETY: The range is inside the folio, which is ours to fill.
                    unsafe { rest.write_bytes(0, range.len - here) };
                } else {
                    error = EIO.to_errno();
                }
            }
            // SAFETY: By the type invariants completion of this range is ours, and it happens once.
            unsafe {
                bindings::iomap_finish_folio_read(range.folio, range.offset, range.len, error)
            };
        }
    }

    /// Drops one of the two references.
    ///
    /// # Safety
    ///
    /// * `this` comes from `KBox::into_raw`.
    /// * The caller owns one of its references.
    unsafe fn put(this: *mut Request) {
        // SAFETY: The caller's reference keeps it alive here.
        if unsafe { (*this).refs.fetch_sub(1, Ordering::AcqRel) } == 1 {
            // SAFETY: The last reference is gone.
            drop(unsafe { KBox::from_raw(this) });
        }
    }

    /// # Safety
    ///
    /// * `iocb` is that of a request that `submit` started.
    /// * The request completes once.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: c_long) {
        let field = Opaque::cast_from(iocb);
        // SAFETY: Only `submit` sets this callback, on the `iocb` of a live request.
        let this = unsafe { kernel::container_of!(field, Request, iocb) }.cast_mut();
        // SAFETY: Completion holds a reference. Nothing changes the request meanwhile.
        let request = unsafe { &*this };
        let got = request.read(ret);
        if request.is_enough(got) {
            request.finish(got);
            // SAFETY: Completion's reference, and completion comes once.
            return unsafe { Self::put(this) };
        }
        let work = request.work.get();
        // SAFETY: The field is completion's, and nothing looks at it before the worker does.
        unsafe { (*this).got = got };
        // SAFETY: The reference goes to the worker; `work` is completion's. The locked folios keep
        // the mount, and so the workers.
        unsafe { workers::call(work, Self::fail) };
    }

    /// # Safety
    ///
    /// * `work` is that of a live request, queued by `complete`.
    unsafe extern "C" fn fail(work: *mut bindings::work_struct) {
        let field = Opaque::cast_from(work);
        // SAFETY: By this function's requirements this is the work of a live request.
        let this = unsafe { kernel::container_of!(field, Request, work) }.cast_mut();
        // SAFETY: Completion's reference, which is owned here, keeps it.
        let request = unsafe { &*this };
        request.finish(request.got);
        // SAFETY: Completion's reference is given back, once.
        unsafe { Request::put(this) };
    }

    /// Starts the read. Completion may come before this returns, or much later.
    fn submit(mut self_: KBox<Request>, direct: bool) {
        let (file, nr, bytes) = (self_.file, self_.nr, self_.bytes);
        // SAFETY: The file is open (type invariants).
        let kiocb = unsafe { kiocb(file, self_.pos, bytes, Self::complete, direct) };
        self_.iocb = Opaque::new(kiocb);
        let this = KBox::into_raw(self_);
        // SAFETY: The request is live (two references) and exclusively ours until the read starts.
        let (iocb, bvecs) = unsafe { ((*this).iocb.get(), (&raw mut (*this).bvecs).cast()) };
        // SAFETY: By the type invariants `bvecs` describe memory of locked folios, which stays
        // until completion. The request itself lives until the submitter's reference is gone.
        let ret = unsafe { bindings::file_read(file.as_ptr(), iocb, bvecs, nr, bytes) };
        if ret != EIOCBQUEUED.to_errno() as isize {
            // SAFETY: The submitter's reference keeps the request, which the file will not look at
            // any more.
            let request = unsafe { &*this };
            request.finish(request.read(ret));
            // SAFETY: Completion's reference, since the file will not call back.
            unsafe { Self::put(this) };
        }
        // SAFETY: The submitter's reference.
        unsafe { Self::put(this) };
    }
}

/// The read operations for iomap where `iomap.private` is the backing `struct file`, `iomap.flags`
/// has `IOMAP_F_PRIVATE` for direct I/O, and `iomap.addr` is the byte position in it.
pub(crate) const FILE_READ_OPS: bindings::iomap_read_ops = bindings::iomap_read_ops {
    read_folio_range: Some(read_folio_range),
    submit_read: Some(submit_read),
    bio_set: core::ptr::null_mut(),
};

/// # Safety
///
/// * Called by iomap with a valid iterator and context, and a locked folio in the context.
unsafe extern "C" fn read_folio_range(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
    len: usize,
) -> c_int {
    // SAFETY: iomap passes a live iterator.
    let iter_ref = unsafe { &*iter };
    let (map, pos, inode) = (&iter_ref.iomap, iter_ref.pos, iter_ref.inode);
    // SAFETY: iomap passes a live context, and the folio that it wants read.
    let folio = unsafe { (*ctx).cur_folio };
    // SAFETY: The folio is locked, hence live.
    let offset = pos as usize - unsafe { Folio::from_raw(folio) }.pos() as usize;
    let range = Range { folio, offset, len };
    let Some(at) = (pos.wrapping_sub(map.offset) as u64).checked_add(map.addr) else {
        return EFSCORRUPTED.to_errno();
    };
    // SAFETY: The inode is live.
    let left = unsafe { bindings::inode_size(inode) }.saturating_sub(pos);
    let wanted = usize::try_from(left).unwrap_or(0).min(len);

    // SAFETY: `read_ctx` is null or the request that this function put there.
    let pending = unsafe { (*ctx).read_ctx.cast::<Request>() };
    if !pending.is_null() {
        // SAFETY: The pending request is exclusively ours until it is submitted; the folio is
        // locked and iomap passes its completion on with this call.
        if unsafe { (*pending).add(at, range, wanted) } {
            return 0;
        }
        // SAFETY: The arguments are those of this callback, and `read_ctx` is a pending request.
        unsafe { submit_read(iter, ctx) };
    }

    let Some(file) = NonNull::new(map.private.cast::<bindings::file>()) else {
        return EIO.to_errno();
    };
    // SAFETY: `private` is the backing file, which the mount holds open. It waits for its folios
    // before it lets go of that.
    let Ok(mut request) = (unsafe { Request::new(file, at) }) else {
        return ENOMEM.to_errno();
    };
    // SAFETY: As above. A new request has room and starts at `at`.
    unsafe { request.add(at, range, wanted) };
    // SAFETY: The context is live, and `read_ctx` is this module's to set.
    unsafe { (*ctx).read_ctx = KBox::into_raw(request).cast() };
    0
}

/// # Safety
///
/// * As for `read_folio_range`.
/// * `read_ctx` is a pending request.
unsafe extern "C" fn submit_read(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
) {
    // SAFETY: By this function's requirements the context is live, and this call's.
    let pending = unsafe { &mut (*ctx).read_ctx };
    // It goes out of the context before it is started, so it is started once.
    let request = core::mem::replace(pending, core::ptr::null_mut()).cast::<Request>();
    if !request.is_null() {
        // SAFETY: By this function's requirements the iterator is live.
        let flags = unsafe { (*iter).iomap.flags };
        let direct = flags & bindings::IOMAP_F_DIRECT as u16 != 0;
        // SAFETY: By this function's requirements the context had it from a box.
        Request::submit(unsafe { KBox::from_raw(request) }, direct);
    }
}
