// SPDX-License-Identifier: GPL-2.0

//! Verifying blocks that are resident through another inode: a reader's own image is read in
//! windows, into scratch pages, and compared.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::{Arc, MutexGuard},
};

use super::{file::OpenFile, in_flight::InFlight, page::Unready, FileSystem, Inode};
use crate::{
    bindings,
    io::{
        fill::{FillCompletion, Plan},
        folio::FolioMemory,
        folio_list::FolioList,
        lock::lock_killable,
        wait::{cond_resched, is_dying},
    },
    race::race_point,
    share::{
        binding::{Ahead, Purpose, Window},
        digest::KEY_DIGESTS,
        Binding, Verify, BLOCK_SHIFT, BLOCK_SIZE,
    },
};

/// Steps towards a block being verified that may come to nothing, because the block's page comes or
/// goes meanwhile. After these a reader takes its own image.
const MAX_FUTILE: u32 = 16;

/// Blocks that are verified together for a fault: what `filemap_map_pages()` maps around one by
/// default, 64 KiB.
const AROUND: u64 = 16;

/// Blocks that are resident, being read from the inode's own image to be compared.
struct WindowFill<T: FileSystem> {
    binding: Arc<Binding>,
    window: Arc<Window>,
    in_flight: InFlight<T>,
}

impl<T: FileSystem> WindowFill<T> {
    /// Verifies blocks from `behind` on, the one before which differs, of those from `first` on. A
    /// second one that differs ends it: what differs is found when it is wanted.
    fn compare_behind(&self, behind: u64, first: u64, bytes: &[u8]) -> Result {
        let skipped = behind.saturating_sub(first) as usize;
        let rest = bytes.get(skipped.saturating_mul(BLOCK_SIZE)..);
        let inode = self.in_flight.inode();
        match inode.compare_resident(&self.binding, behind, rest.unwrap_or(&[]))? {
            None => Ok(()),
            Some(_) => Err(EAGAIN),
        }
    }
}

impl<T: FileSystem> FillCompletion for WindowFill<T> {
    type Guard = InFlight<T>;

    fn guard(&self) -> &InFlight<T> {
        &self.in_flight
    }

    fn complete(self, mut folios: FolioList, result: Result) {
        let inode = self.in_flight.inode();
        let mut block = self.window.blocks.start;
        let mut check = || {
            folios.zero_tail(block << BLOCK_SHIFT, inode.size());
            while let Some(bytes) = folios.first() {
                race_point!(c"window_check");
                let compared = match self.binding.shared().identity().verify {
                    Verify::Bytes => inode.compare_resident(&self.binding, block, bytes),
                    _ => inode.compare(&self.binding, block, bytes),
                };
                match (self.window.purpose, compared) {
                    // The reader finds it when it comes here. So all that have the same content
                    // leave at the first block that differs, for the same shared inode.
                    (Purpose::Ahead, Ok(Some(_))) => return Err(EAGAIN),
                    (Purpose::Around, Ok(Some((differing, _)))) => {
                        self.compare_behind(differing + 1, block, bytes)?;
                    }
                    (_, compared) => inode.apply_comparison(&self.binding, compared)?,
                }
                block += (bytes.len() / BLOCK_SIZE) as u64;
                folios.finish_first();
                cond_resched();
            }
            Ok(())
        };
        // What could be read is verified, whatever became of the rest.
        self.window.over.complete_all(check().and(result));
    }
}

impl<T: FileSystem> OpenFile<'_, T> {
    /// Verifies blocks, and returns how many from `blocks.start` on are verified: at least one.
    /// Blocks that are not resident come into the page cache by this.
    pub(super) fn ensure(self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<u64, Unready> {
        let mut at = blocks.start;
        let mut futile = 0;
        while at < blocks.end {
            let run = binding.verified_prefix(at..blocks.end);
            if run != 0 {
                at += run;
                futile = 0;
                continue;
            }
            futile += 1;
            let step = if futile > MAX_FUTILE {
                // What is resident there cannot be looked at: its memory has failed, for example.
                Err(Unready::Busy)
            } else {
                match self.verify_at(binding, at..blocks.end) {
                    Err(_) if !self.inode().is_current(binding) => Err(Unready::Left),
                    Ok(()) if is_dying() => Err(Unready::Failed(EINTR)),
                    other => other,
                }
            };
            match step {
                Ok(()) => {}
                Err(_) if at > blocks.start => break,
                Err(why) => return Err(why),
            }
        }
        Ok(at - blocks.start)
    }

    /// Verifies what is resident around `block`, which a fault wants and which is not verified: all
    /// that is can be mapped at once. It may come to nothing.
    pub(super) fn verify_around(self, binding: &Arc<Binding>, block: u64) {
        let inode = self.inode();
        // To hash is dear, and an extent is decoded as a whole.
        let is_dear =
            binding.shared().identity().verify != Verify::Bytes || T::is_compressed(inode);
        // What is being read in, here or through another image, is perhaps verified by that.
        if is_dear
            || binding.verified_prefix(block..block + 1) != 0
            || resident(binding, block, 1, true) == 0
        {
            return;
        }
        let Ok(Some(window)) = inode.window_around(binding, block) else {
            return;
        };
        if window.over.wait_killable().is_err() && !is_dying() {
            if let Ok(mut ahead) = binding.windows().and_then(lock_killable) {
                ahead.alone = true;
            }
        }
    }

    /// Verifies all of these blocks.
    pub(super) fn ensure_all(
        self,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
    ) -> Result<(), Unready> {
        let mut at = blocks.start;
        while at < blocks.end {
            at += self.ensure(binding, at..blocks.end)?.max(1);
        }
        Ok(())
    }

    /// Does one step towards the first of these blocks being verified.
    fn verify_at(self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<(), Unready> {
        let first = blocks.start..blocks.start + 1;
        // What would be read could not be kept, each time anew. The reader's own page cache needs
        // nothing of that.
        binding
            .has_room_for(first.clone())
            .map_err(|_| Unready::Busy)?;
        let shared = binding.shared();
        if shared.content().next_alias(first.clone()).is_none() {
            let want = (blocks.end - blocks.start) as usize;
            // A page that is not resident is read from the inode's image, and the block verified by
            // that.
            self.page_in(shared.mapping(), blocks.start as usize, want)?;
            if binding.verified_prefix(first) != 0 {
                return Ok(());
            }
        }
        race_point!(c"verify_other");
        // It is resident through another inode, here or elsewhere.
        self.inode()
            .verify_resident(binding, blocks)
            .map_err(|err| match err {
                // As above.
                err if err == ENOMEM => Unready::Busy,
                err => Unready::Failed(err),
            })
    }
}

impl<T: FileSystem> Inode<T> {
    /// Verifies the first of these blocks, which is resident, and those that lie in the same
    /// window.
    ///
    /// A window fails as a whole: because of another block, or of a signal that ended the reader in
    /// whose name it was read. Shorter ones are tried, down to the block alone.
    fn verify_resident(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result {
        let at = blocks.start;
        let (mut result, mut len) = match self.window(binding, blocks.clone()) {
            Ok(None) => return Ok(()),
            Ok(Some(window)) => (
                window.over.wait_killable(),
                window.blocks.end.saturating_sub(at),
            ),
            Err(err) => (Err(err), blocks.end - at),
        };
        let mut alone = false;
        while result.is_err() && !alone {
            if binding.verified_prefix(at..at + 1) != 0 {
                return Ok(());
            }
            if is_dying() || !self.is_current(binding) {
                break;
            }
            len = (len / 2).max(1);
            alone = len == 1;
            if result == Err(ENOMEM) {
                // The cgroup makes room for the next one before the lock of the windows is taken,
                // under which memory is not waited for.
                FolioList::make_room(len, KEY_DIGESTS.ilog2());
            }
            result = self
                .short_window(binding, at..at + len)
                .and_then(|window| window.over.wait_killable());
        }
        result
    }

    /// Waits until another window may be started, or `enough` says that none is needed.
    fn windows<'a>(
        &self,
        binding: &'a Arc<Binding>,
        enough: impl Fn(&Ahead) -> bool,
    ) -> Result<MutexGuard<'a, Ahead>> {
        loop {
            let mut ahead = lock_killable(binding.windows()?)?;
            ahead.forget_ended();
            let Some(other) = ahead.in_the_way().filter(|_| !enough(&ahead)) else {
                return Ok(ahead);
            };
            drop(ahead);
            // Its result is for the readers of its blocks.
            let _ = other.over.wait_killable();
            if is_dying() || !self.is_current(binding) {
                return Err(EINTR);
            }
        }
    }

    /// A new window of these blocks, though others may be verifying some of them.
    fn short_window(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<Arc<Window>> {
        let mut ahead = self.windows(binding, |_| false)?;
        let (next, len) = (blocks.end, blocks.end - blocks.start);
        let window = self.open_window(binding, blocks, Purpose::Wanted)?;
        ahead.lengths.restart(next, len);
        ahead.add(&window);
        Ok(window)
    }

    /// A new window around `block`: what is in the page cache there without a gap, and neither
    /// verified nor in another window. `None`: that is not so of `block`, or of nothing else; or
    /// such a window has failed.
    fn window_around(&self, binding: &Arc<Binding>, block: u64) -> Result<Option<Arc<Window>>> {
        let first = block - block % AROUND;
        let last = first.saturating_add(AROUND).min(binding.blocks());
        let verified = |at| binding.verified_prefix(at..at + 1) != 0;
        let mut ahead = self.windows(binding, |ahead| {
            ahead.alone || verified(block) || ahead.find(block).is_some()
        })?;
        let is_new = |at: &u64| !verified(*at) && ahead.find(*at).is_none();
        let end = (block..last).find(|at| !is_new(at)).unwrap_or(last);
        let len = resident(binding, block, end.saturating_sub(block), true);
        let before = (first..block).rfind(|at| !is_new(at));
        let mut start = before.map_or(first, |at| at + 1);
        if resident(binding, start, block - start, true) < block - start {
            start = block;
        }
        let end = block + len;
        if ahead.alone || len == 0 || end - start == 1 {
            return Ok(None);
        }
        binding.has_room_for(start..end)?;
        let window = self.open_window(binding, start..end, Purpose::Around)?;
        ahead.add(&window);
        Ok(Some(window))
    }

    /// The window with the first of these blocks: one that is under way, or a new one. `None`: that
    /// block is verified by now. If the reader is sequential, the window after it is started, too.
    fn window(&self, binding: &Arc<Binding>, blocks: Range<u64>) -> Result<Option<Arc<Window>>> {
        let at = blocks.start;
        // A window that has ended has noted before what it verified.
        let verified = || binding.verified_prefix(at..at + 1) != 0;
        let mut ahead = self.windows(binding, |ahead| ahead.find(at).is_some() || verified())?;
        let (window, sequential) = match ahead.find(at) {
            Some(window) => {
                // The reader whose window it is has seen to the next one; else this is that reader.
                let sequential = window.purpose == Purpose::Ahead;
                (window, sequential)
            }
            None if verified() => return Ok(None),
            None => {
                let (len, sequential) = ahead.lengths.open(at, blocks.end - at);
                let window = self.start_window(binding, at, len, Purpose::Wanted)?;
                ahead.lengths.close(window.blocks.end);
                ahead.add(&window);
                (window, sequential)
            }
        };
        let next = window.blocks.end;
        let may_go_on = sequential && next < binding.blocks();
        if may_go_on && ahead.in_the_way().is_none() && ahead.find(next).is_none() {
            let (len, _) = ahead.lengths.open(next, 1);
            // Only what is there and not verified is worth it; what fails now fails again when it
            // is needed.
            if binding.verified_prefix(next..next + 1) == 0 && present(binding, next, 1) != 0 {
                if let Ok(window) = self.start_window(binding, next, len, Purpose::Ahead) {
                    ahead.lengths.close(window.blocks.end);
                    ahead.add(&window);
                }
            }
        }
        Ok(Some(window))
    }

    /// Starts to verify up to `len` blocks from `start` on: those that are resident and not
    /// verified.
    fn start_window(
        &self,
        binding: &Arc<Binding>,
        start: u64,
        len: u64,
        purpose: Purpose,
    ) -> Result<Arc<Window>> {
        let wanted = start;
        let (start, len) = self.whole_extents(binding, start, len);
        let left = binding.blocks().saturating_sub(start);
        let len = present(binding, start, len.min(left)).max(wanted - start + 1);
        let mut end = wanted + 1;
        while end < start + len && binding.verified_prefix(end..end + 1) == 0 {
            end += 1;
        }
        self.open_window(binding, start..end, purpose)
    }

    /// Starts to verify these blocks.
    fn open_window(
        &self,
        binding: &Arc<Binding>,
        blocks: Range<u64>,
        purpose: Purpose,
    ) -> Result<Arc<Window>> {
        let (start, len) = (blocks.start, blocks.end - blocks.start);
        let window = Window::new(blocks, purpose)?;
        // Others wait for the lock of the windows.
        let folios = FolioList::scratch(start, len, KEY_DIGESTS.ilog2())?;
        let plan = Plan {
            memory: FolioMemory::ChargedAtHand,
            ..self.plan(start << BLOCK_SHIFT, false)
        };
        let filled = WindowFill {
            in_flight: InFlight::new(self),
            binding: binding.clone(),
            window: window.clone(),
        };
        self.fill_from_image(folios, &plan, filled);
        Ok(window)
    }

    /// These blocks, and those around them that are decoded together with them and are not verified
    /// yet.
    fn whole_extents(&self, binding: &Binding, start: u64, len: u64) -> (u64, u64) {
        if !T::is_compressed(self) {
            return (start, len);
        }
        let blocks = start..start.saturating_add(len).min(binding.blocks());
        let around = T::expand_to_extents(self, start << BLOCK_SHIFT..blocks.end << BLOCK_SHIFT);
        let first = around.start >> BLOCK_SHIFT;
        let end = around.end.div_ceil(BLOCK_SIZE as u64).max(blocks.end);
        let mut at = start;
        while at > first && binding.verified_prefix(at - 1..at) == 0 {
            at -= 1;
        }
        if present(binding, at, start - at) < start - at {
            at = start;
        }
        (at, end - at)
    }
}

/// How many pages from `start` on, up to `len`, are in the shared inode's page cache without a gap,
/// and `uptodate`, if that is wanted.
pub(super) fn resident(binding: &Binding, start: u64, len: u64, uptodate: bool) -> u64 {
    let mapping = binding.shared().mapping().as_ptr();
    // SAFETY: The type invariants of `Mapping` say that the mapping is live.
    unsafe { bindings::resident(mapping, start as usize, len as usize, uptodate) as u64 }
}

/// How many pages from `start` on, up to `len`, are there or elsewhere without a gap.
pub(super) fn present(binding: &Binding, start: u64, len: u64) -> u64 {
    let content = binding.shared().content();
    let mut count = 0;
    while count < len {
        let at = start.saturating_add(count);
        let here = resident(binding, at, len - count, false);
        count += here;
        let at = start.saturating_add(count);
        let elsewhere = content.alias_run(at..at.saturating_add(len - count));
        count += elsewhere;
        if here == 0 && elsewhere == 0 {
            break;
        }
    }
    count
}
