// SPDX-License-Identifier: GPL-2.0

//! Memory mappings of files that have the page cache of a shared inode.
//!
//! The kernel maps whole folios, so all of a folio is verified before a page of it is returned.
//! What may wait (reading, verifying) is done without the lock under which a fault is handled, if
//! the fault can be tried again: a slow image stops the thread that touches it and no other.

use core::{marker::PhantomData, ops::Range, ptr::NonNull};

use kernel::{page::PAGE_SIZE, prelude::*, sync::Arc};

use super::{file::OpenFile, page::Unready, sharing::FileMapping, FileSystem, Inode};
use crate::{
    bindings,
    io::{
        folio::{Folio, FolioRef, HeldFolio},
        mapping::Mapping,
        page::PageState,
        wait::is_dying,
    },
    race::race_point,
    share::Binding,
};

/// A page fault in a mapping of a file of `T`, under whose lock it is.
///
/// # Invariants
///
/// * `vmf` is the argument of a `->fault` that runs for `'a`, and the fault still has its lock:
///   whatever gives that up takes this by value.
/// * `file` is the mapping's.
struct Fault<'a, T: FileSystem> {
    vmf: NonNull<bindings::vm_fault>,
    file: OpenFile<'a, T>,
}

/// What a fault does next.
enum Next<'a, T: FileSystem> {
    /// Returns this.
    Return(bindings::vm_fault_t),
    /// Looks at everything again.
    Again(Fault<'a, T>),
}

/// Pages that may be mapped.
///
/// The kernel maps a large folio whole where it can, whatever the range asked. The folios with the
/// first and with the last page are held: so they stay in the page cache (nothing drops, splits or
/// moves a folio to which there is a reference that it does not know), and no folio that reaches
/// beyond what was looked at takes the place of what lies between.
struct Mappable {
    pages: Range<u64>,
    _folios: [Option<FolioRef>; 3],
}

/// What a step of a fault gives. With an error the fault still has its lock.
type Step<'a, T> = Result<Next<'a, T>, (Fault<'a, T>, Unready)>;

/// What a fault returns if it has given up its lock.
const RETRY: bindings::vm_fault_t = bindings::VM_FAULT_RETRY | bindings::VM_FAULT_MAJOR;

/// Returns what a fault returns for an error.
fn fault_error(err: Error) -> bindings::vm_fault_t {
    if err == ENOMEM {
        bindings::VM_FAULT_OOM
    } else {
        bindings::VM_FAULT_SIGBUS
    }
}

/// Whether `filemap_fault()` does not wait for a page that is read through another image: the page
/// is uptodate, or not there, so that the fault reads it in the name of its own file.
fn needs_no_wait(mapping: Mapping<'_>, index: usize) -> bool {
    match PageState::find(mapping, index as u64) {
        PageState::Absent | PageState::Ready(_) => true,
        PageState::Locked(_) | PageState::Failed(_) => false,
    }
}

/// Whether `filemap_fault()` can map a block: the page is verified with all of its folio, or is not
/// there, and `filemap_fault()` has not `failed` to read it.
fn may_fault(binding: &Binding, block: u64, failed: bool) -> bool {
    match PageState::find(binding.shared().mapping(), block) {
        // `filemap_fault()` reads it in the name of the mapping's file, which verifies it.
        PageState::Absent => !failed,
        PageState::Ready(folio) => binding.covers(folio.pages()),
        PageState::Locked(_) | PageState::Failed(_) => false,
    }
}

impl<'a, T: FileSystem> Fault<'a, T> {
    /// # Safety
    ///
    /// * `vmf` is the argument of a `->fault` or `->map_pages`, which runs for `'a`.
    /// * The mapping is one of a file of `T`.
    #[inline(always)]
    unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: By this function's requirements `vmf` is live. The mapping is of a file of `T`,
        // which it holds open.
        let file = unsafe { OpenFile::from_raw((*(*vmf).__bindgen_anon_1.vma).vm_file) };
        // SAFETY: By this function's requirements the pointer is valid.
        let vmf = unsafe { NonNull::new_unchecked(vmf) };
        // INVARIANT: The callback has the fault's lock.
        Self { vmf, file }
    }

    /// The page of the file.
    #[inline(always)]
    fn index(&self) -> usize {
        // SAFETY: `vmf` is live as long as the fault has its lock (type invariants); the field is
        // constant.
        unsafe { (*self.vmf.as_ptr()).__bindgen_anon_1.pgoff }
    }

    /// Whether this is another try, which has the fault's lock, and the inode's own page cache has
    /// the page: the try before could not have it from a shared inode ([`prepare_elsewhere`]).
    ///
    /// [`prepare_elsewhere`]: OpenFile::prepare_elsewhere
    fn has_own_page(&self) -> bool {
        // SAFETY: `vmf` is live as long as the fault has its lock (type invariants); it is only
        // looked at.
        let was_tried = unsafe { bindings::fault_tried(self.vmf.as_ptr()) };
        was_tried && FolioRef::find(self.file.inode().own_mapping(), self.index() as u64).is_some()
    }

    /// `filemap_fault()`, and the fault, unless it has given up its lock.
    #[inline(always)]
    fn filemap_fault(self) -> (bindings::vm_fault_t, Option<Self>) {
        // SAFETY: By the type invariants this is a fault of the mapping of a file that is open.
        let ret = unsafe { bindings::filemap_fault(self.vmf.as_ptr()) };
        // `VM_FAULT_RETRY` says that the lock is given up. It never comes with an error ("never
        // return VM_FAULT_RETRY with an error bit", mm/filemap.c).
        let held = ret & bindings::VM_FAULT_RETRY == 0;
        (ret, held.then_some(self))
    }

    /// The folio that `filemap_fault()` has locked for the fault.
    ///
    /// # Safety
    ///
    /// * `filemap_fault()` has returned `VM_FAULT_LOCKED`.
    /// * The folio has not been given back.
    unsafe fn found(&self) -> &Folio {
        // SAFETY: By this function's requirements `page` is one of a live folio of a page cache.
        unsafe { Folio::from_raw(bindings::page_folio((*self.vmf.as_ptr()).page)) }
    }

    /// Gives back the folio that `filemap_fault()` has locked for the fault.
    ///
    /// # Safety
    ///
    /// * `filemap_fault()` has returned `VM_FAULT_LOCKED`.
    /// * The folio has not been given back.
    unsafe fn give_back(&mut self) {
        // SAFETY: By this function's requirements there is such a folio, and a reference to it is
        // the fault's.
        let folio = unsafe { HeldFolio::from_raw(self.found().as_ptr()) };
        if let Some(folio) = folio {
            // SAFETY: By this function's requirements the lock of the folio is the fault's.
            unsafe { folio.unlock() };
        }
        // SAFETY: `vmf` is live, and this fault's (type invariants). The page is given back.
        unsafe { (*self.vmf.as_ptr()).page = core::ptr::null_mut() };
    }

    /// Does what may wait: without the fault's lock if the fault can be tried again, which it is
    /// then.
    fn work(self, work: impl FnOnce() -> Result<(), Unready>) -> Step<'a, T> {
        let (vmf, file, index) = (self.vmf.as_ptr(), self.file, self.index());
        // SAFETY: `vmf` is live as long as the fault has its lock (type invariants); it is only
        // looked at.
        if unsafe { bindings::fault_nowait(vmf) } {
            return Ok(Next::Return(bindings::VM_FAULT_RETRY));
        }
        // SAFETY: By the type invariants the fault has its lock. Without it the mapping may go;
        // then the file has a reference of its own, and with it its inode, and `vmf` is not used
        // any more.
        if !unsafe { bindings::fault_unlock(vmf, file.as_ptr()) } {
            return match work() {
                Ok(()) => Ok(Next::Again(self)),
                Err(why) => Err((self, why)),
            };
        }
        // What has failed fails again when the fault is tried again.
        if let Err(why) = work() {
            file.prepare_elsewhere(index, why);
        }
        // SAFETY: The reference that came with giving up the lock.
        unsafe { bindings::fput(file.as_ptr()) };
        Ok(Next::Return(RETRY))
    }

    /// Maps a page that is verified, or can be verified.
    #[inline(never)]
    fn slow(mut self) -> bindings::vm_fault_t {
        let (inode, mapping, index) = (self.file.inode(), self.file.mapping(), self.index());
        // The page has been asked for in vain, and is brought in by itself.
        let mut failed = false;
        loop {
            let step = match inode.through(mapping) {
                FileMapping::Own => return self.filemap_fault().0,
                FileMapping::Stale(_) => self.elsewhere(),
                FileMapping::Shared(binding) if index as u64 >= binding.blocks() => {
                    return self.filemap_fault().0;
                }
                FileMapping::Shared(binding) => match self.step(&binding, &mut failed) {
                    // The inode's own image has the bytes.
                    Err((fault, Unready::Busy)) => {
                        inode.note_own_copy();
                        fault.elsewhere()
                    }
                    step => step,
                },
            };
            self = match step {
                Ok(Next::Return(ret)) => return ret,
                Ok(Next::Again(fault)) | Err((fault, Unready::Left)) if !is_dying() => fault,
                Err((_, Unready::Failed(err))) => return fault_error(err),
                _ => return bindings::VM_FAULT_SIGBUS,
            };
        }
    }

    /// One try to map the page out of a shared inode's page cache.
    fn step(self, binding: &Arc<Binding>, failed: &mut bool) -> Step<'a, T> {
        let (file, block) = (self.file, self.index() as u64);
        let inode = file.inode();
        let here = may_fault(binding, block, *failed);
        if !here || binding.shared().content().is_aliased(block) {
            if self.has_own_page() {
                return self.elsewhere();
            }
            return self.work(|| match file.prepare_fault(binding, block) {
                Err(_) if !inode.is_current(binding) => Err(Unready::Left),
                done => done,
            });
        }
        race_point!(c"fault_ready");
        let (ret, fault) = self.filemap_fault();
        let Some(mut fault) = fault else {
            return Ok(Next::Return(ret));
        };
        if ret & bindings::VM_FAULT_SIGBUS != 0 && !binding.may_fill() {
            // It has been evicted just now, and may not be read in yet.
            return Err((fault, Unready::Busy));
        }
        if ret & bindings::VM_FAULT_LOCKED == 0 {
            let bus = ret & bindings::VM_FAULT_SIGBUS != 0;
            if !inode.is_current(binding) || (bus && !*failed) {
                // The page may be one of a large folio in which another one cannot be read.
                *failed = true;
                return Ok(Next::Again(fault));
            }
            if bus {
                // It was there, by itself, and has gone again since.
                return Err((fault, Unready::Busy));
            }
            return Ok(Next::Return(ret));
        }
        race_point!(c"fault_locked");
        // The whole folio is going to be mapped.
        // SAFETY: `filemap_fault()` has returned `VM_FAULT_LOCKED`.
        if binding.covers(unsafe { fault.found() }.pages()) {
            return Ok(Next::Return(ret));
        }
        // SAFETY: `filemap_fault()` has returned `VM_FAULT_LOCKED`, and the folio is given back
        // once.
        unsafe { fault.give_back() };
        Ok(Next::Again(fault))
    }

    /// Maps a page from the inode's own page cache.
    ///
    /// Not from that of a shared inode whose pages the mapping's file does not have: those that
    /// reclaim it would not find this mapping of the page, and could not free what is perhaps on
    /// the account of another cgroup.
    fn elsewhere(mut self) -> Step<'a, T> {
        let (file, index) = (self.file, self.index());
        let inode = file.inode();
        if index as u64 >= inode.size().div_ceil(PAGE_SIZE as u64) {
            return Ok(Next::Return(bindings::VM_FAULT_SIGBUS));
        }
        loop {
            let mut found = FolioRef::find(inode.own_mapping(), index as u64);
            if found.is_none() {
                let next = self.work(|| {
                    found = Some(file.page_in(inode.own_mapping(), index, 1)?);
                    Ok(())
                })?;
                self = match next {
                    Next::Return(_) => return Ok(next),
                    Next::Again(fault) => fault,
                };
            }
            let Some(folio) = found else {
                return Ok(Next::Again(self));
            };
            match self.map_folio(folio, index) {
                Ok(Some(ret)) => return Ok(Next::Return(ret)),
                Ok(None) => {}
                Err(err) => return Err((self, Unready::Failed(err))),
            }
        }
    }

    /// Makes page `index` of `folio`, which has it, the one that the fault maps. `None`: the folio
    /// has been evicted.
    fn map_folio(&mut self, folio: FolioRef, index: usize) -> Result<Option<bindings::vm_fault_t>> {
        folio.lock_killable()?;
        if folio.mapping().is_null() || !folio.is_uptodate() {
            // SAFETY: The folio was locked above.
            unsafe { folio.unlock() };
            return Ok(None);
        }
        let page = folio.page_at(index);
        // SAFETY: `vmf` is live, and this fault's (type invariants). The reference goes to it with
        // the folio's lock.
        unsafe { (*self.vmf.as_ptr()).page = page };
        let _ = folio.into_held().into_raw();
        Ok(Some(bindings::VM_FAULT_LOCKED))
    }
}

impl<T: FileSystem> OpenFile<'_, T> {
    /// Brings in the page, one of the file, that a fault finds when it is tried again, since it
    /// cannot have it from the shared inode that it has tried: that try has the fault's lock, under
    /// which nothing is to be read.
    fn prepare_elsewhere(self, index: usize, why: Unready) {
        let inode = self.inode();
        // The fault says what is wrong when it is tried again.
        match why {
            Unready::Busy => {
                inode.note_own_copy();
                if self.folio_of(None, index, 1).is_ok() {
                    // Should it be gone then, the other image is not waited for.
                    inode.lose_patience();
                }
            }
            Unready::Left => {
                let binding = inode.through(self.mapping()).binding();
                let _ = self.folio_of(binding.as_ref(), index, 1);
            }
            Unready::Failed(_) => {}
        }
    }

    /// Brings a block into the page cache, with its folio verified as a whole.
    fn prepare_fault(self, binding: &Arc<Binding>, block: u64) -> Result<(), Unready> {
        let shared = binding.shared();
        self.verify_around(binding, block);
        self.ensure(binding, block..block + 1)?;
        if shared.content().is_aliased(block) {
            self.inode().copy_alias(binding, block)?;
        }
        let pages = self.page_in(shared.mapping(), block as usize, 1)?.pages();
        self.ensure_folio(binding, pages, block)
    }
}

impl<T: FileSystem> Inode<T> {
    /// What of these pages of a file's mapping may be mapped together with page `index`, one of
    /// them: it, and what is verified with all of its folio without a gap from there. In atomic
    /// context.
    fn mappable(&self, mapping: Mapping<'_>, index: u64, pages: Range<u64>) -> Option<Mappable> {
        let middle = FolioRef::find(mapping, index)?;
        let inside = middle.pages();
        let around = |at: u64| {
            let outside = || !inside.contains(&at);
            outside().then(|| FolioRef::find(mapping, at)).flatten()
        };
        let (left, right) = (around(pages.start), around(pages.end - 1));
        let covers = |range: Range<u64>| {
            self.with_current(|binding| {
                binding.shared().mapping() == mapping && binding.covers(range.clone())
            })
        };
        if !covers(inside.clone()) {
            return None;
        }
        let (mut start, mut end) = (inside.start, inside.end);
        if let Some(first) = left.as_ref().map(|folio| folio.pages().start) {
            if first < start && covers(first..start) {
                start = first;
            }
        }
        if let Some(last) = right.as_ref().map(|folio| folio.pages().end) {
            if last > end && covers(end..last) {
                end = last;
            }
        }
        Some(Mappable {
            pages: start.max(pages.start)..end.min(pages.end),
            _folios: [Some(middle), left, right],
        })
    }
}

/// `vm_operations_struct` of memory mappings of files of `T` that may have the pages of a shared
/// inode.
pub(super) struct SharedVmOps<T>(PhantomData<T>);

impl<T: FileSystem> SharedVmOps<T> {
    const TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::fault),
        map_pages: Some(Self::map_pages),
        ..pin_init::zeroed()
    };

    /// A promoted constant, so that it has an address for good.
    pub(super) const REF: &'static bindings::vm_operations_struct = &Self::TABLE;

    /// `vm_operations_struct::fault` of a mapping of a file of `T`
    ///
    /// # Safety
    ///
    /// * `vmf` is live, and this callback's for the call.
    /// * The mapping is one of a file of `T`, and holds it open.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: By this function's requirements `vmf` is live; the mapping is of a file of `T`.
        let mut fault = unsafe { Fault::<T>::from_raw(vmf) };
        let mapping = fault.file.mapping();
        if fault.file.inode().is_fast(mapping) && needs_no_wait(mapping, fault.index()) {
            race_point!(c"fault_plain");
            fault = match fault.filemap_fault() {
                (ret, Some(fault)) if ret & bindings::VM_FAULT_SIGBUS != 0 => fault,
                (ret, Some(mut fault))
                    if ret & bindings::VM_FAULT_LOCKED != 0
                        && !fault.file.inode().is_fast(mapping) =>
                {
                    // The page may have come in since, through another image.
                    // SAFETY: `filemap_fault()` has returned `VM_FAULT_LOCKED`, and the folio is
                    // given back once.
                    unsafe { fault.give_back() };
                    fault
                }
                (ret, _) => return ret,
            };
        }
        fault.slow()
    }

    /// `vm_operations_struct::map_pages` of a mapping of a file of `T`
    ///
    /// # Safety
    ///
    /// * `vmf` is live, and this callback's for the call.
    /// * The mapping is one of a file of `T`, and holds it open.
    unsafe extern "C" fn map_pages(
        vmf: *mut bindings::vm_fault,
        start: usize,
        end: usize,
    ) -> bindings::vm_fault_t {
        // SAFETY: By this function's requirements `vmf` is live; the mapping is of a file of `T`.
        let fault = unsafe { Fault::<T>::from_raw(vmf) };
        let (inode, mapping) = (fault.file.inode(), fault.file.mapping());
        if inode.is_fast(mapping) {
            // SAFETY: The arguments are those of this callback.
            return unsafe { bindings::filemap_map_pages(vmf, start, end) };
        }
        let Some(around) =
            inode.mappable(mapping, fault.index() as u64, start as u64..end as u64 + 1)
        else {
            return 0;
        };
        let (start, last) = (around.pages.start as usize, around.pages.end as usize - 1);
        // SAFETY: The arguments are those of this callback, but for a smaller range.
        unsafe { bindings::filemap_map_pages(vmf, start, last) }
    }
}
