// SPDX-License-Identifier: GPL-2.0

//! Inodes whose data is verified by comparing bytes (`verify=compare`): how they are bound to their
//! shared inode, and how blocks that were read from their images are checked.
//! `Documentation/verify.md` has the rules.

use kernel::{prelude::*, sync::Arc};

use super::{shared_aops::SharedAops, sharing::HashTime, verify::present, FileSystem, Inode};
use crate::{
    compat::code::ELOOP,
    io::folio_list::FolioList,
    race::race_point,
    share::{
        alias,
        compare::Compared,
        digest::{Digest, Sha256},
        finder::Reading,
        secret,
        sha256::KernelSha256,
        usage::{Joining, RealInode, Role},
        Binding, Domain, Identity, SharedInode, Verify, BLOCK_SIZE,
    },
    stats::Field,
};

/// Contents that look alike by their samples, and differ in their first blocks, after which a file
/// keeps to its own page cache.
const MAX_ALIKE: u32 = 16;

/// A block that differs from the shared inode's, and its digest.
pub(super) type Difference = (u64, Digest);

impl<T: FileSystem> Inode<T> {
    /// Which inode it is, beyond its time in memory.
    fn real_inode(&self) -> Result<RealInode> {
        Ok(RealInode {
            instance: self.sb().instance(),
            number: T::handle(self)?,
        })
    }

    /// Makes this inode a user of the shared inode `id`. It is not bound to it yet.
    pub(super) fn join(&self, id: &Identity) -> Result<(Arc<Binding>, Role)> {
        let shared = SharedInode::get(id, self.size(), &SharedAops::<T>::TABLE)?;
        let binding = Binding::new(shared, self.counters())?;
        // SAFETY: The word is this inode's. Callers bind it to what this returns, and `leave` and
        // `evict_sharing` retire what it is bound to; or they retire it.
        let joining =
            unsafe { Joining::new(binding.clone(), self.real_inode()?, self.fast_mapping()) };
        let role = binding.shared().join(&joining)?;
        if T::shares_blocks(self.sb().info()) {
            binding.shared().content().usage().share_blocks();
        }
        Ok((binding, role))
    }

    /// What this inode is to be bound to, by the bytes at its start.
    pub(super) fn bind_by_bytes(&self, domain: &Domain) -> Result<Arc<Binding>> {
        let (folios, count, _) = self.read_head()?;
        let key = secret::key_of(folios.all(), count, self.size());
        let mut id = self.identity(key, domain, Verify::Bytes);
        race_point!(c"bytes_head");
        for _ in 0..MAX_ALIKE {
            let (binding, role) = self.join(&id)?;
            if role == Role::Sole {
                self.give_head(&binding, folios);
                return Ok(binding);
            }
            match self.compare_head(&binding, &folios, count) {
                Ok(None) => return Ok(binding),
                Ok(Some((block, digest))) => id = id.variant(block, &digest)?,
                Err(err) => {
                    binding.retire_unused();
                    return Err(err);
                }
            }
            binding.retire_unused();
        }
        Err(ELOOP)
    }

    /// Takes what was read of the sole user of a shared inode into its page cache.
    fn give_head(&self, binding: &Binding, folios: FolioList) {
        let _reading = Reading::of(binding.shared());
        let may_stay = |_| binding.needs_no_check();
        // SAFETY: They were read through this inode's image, and it is asked whether this is the
        // only user.
        unsafe { binding.shared().give(0, folios, may_stay) }
    }

    /// Compares the start of the file with what is there of a shared inode. The first `count`
    /// blocks say whether it is the one; what has been decoded with them is not decoded again.
    fn compare_head(
        &self,
        binding: &Arc<Binding>,
        folios: &FolioList,
        count: u64,
    ) -> Result<Option<Difference>> {
        let mut first = 0;
        for bytes in folios.all() {
            let len = (bytes.len() / BLOCK_SIZE) as u64;
            if first >= count {
                // What has left memory would be hashed here, and again when it is read.
                let here = len.min(binding.blocks().saturating_sub(first));
                if present(binding, first, here) < here {
                    break;
                }
            }
            match self.compare_resident(binding, first, bytes) {
                Ok(None) => {}
                // A block further on that differs is found when it is read.
                _ if first >= count => break,
                other => return other,
            }
            first += len;
        }
        Ok(None)
    }

    /// Compares blocks of this inode's image from `first` on with what is resident, or known of
    /// what was. Those that are equal are verified; the first that differs is returned. A block of
    /// which nothing is there stays as it is.
    pub(super) fn compare_resident(
        &self,
        binding: &Arc<Binding>,
        first: u64,
        bytes: &[u8],
    ) -> Result<Option<Difference>> {
        let (shared, blocks) = (binding.shared(), binding.blocks());
        let counters = self.counters();
        let (mut at, mut rest, mut all) = (first, bytes, false);
        while let Some(block) = rest.get(..BLOCK_SIZE).filter(|_| at < blocks) {
            race_point!(c"compare_block");
            let compared = shared.compare(at, rest, |range| {
                all |= binding.verify(range.start..range.end.min(blocks))?;
                Ok(())
            })?;
            let done = match compared {
                Compared::Same(count) => {
                    counters.add(Field::BlocksCompared, count);
                    counters.add(Field::BlocksVerified, count);
                    count
                }
                Compared::Differs => {
                    counters.add(Field::BlocksCompared, 1);
                    return Ok(Some((at, KernelSha256::digest(block))));
                }
                Compared::Absent if shared.content().is_recorded(at) => {
                    let difference = self.differs_from_recorded(binding, at, block);
                    if difference.is_some() {
                        return Ok(difference);
                    }
                    all |= binding.verify(at..at + 1)?;
                    counters.add(Field::BlocksVerified, 1);
                    1
                }
                Compared::Absent => 1,
            };
            at += done;
            rest = rest.get(done as usize * BLOCK_SIZE..).unwrap_or(&[]);
        }
        if all {
            self.enable_fast_path(binding);
        }
        Ok(None)
    }

    /// A block's difference from the digest that is known of it, if there is one and they differ.
    /// Where a block with that digest is in memory, bytes are compared in place of hashing.
    fn differs_from_recorded(
        &self,
        binding: &Binding,
        block: u64,
        bytes: &[u8],
    ) -> Option<Difference> {
        let content = binding.shared().content();
        if !content.is_recorded(block) {
            return None;
        }
        if content.is_aliased(block) && alias::is_same(binding.shared(), block, bytes) {
            self.counters().add(Field::BlocksCompared, 1);
            return None;
        }
        let hashing = HashTime::start();
        let digest = KernelSha256::digest(bytes);
        hashing.stop(self.counters(), 1);
        let same = content.has_digest(block, &digest)?;
        (!same).then_some((block, digest))
    }

    /// Checks blocks of this inode's image from `first` on that are being read into the page cache
    /// of a shared inode, and are not readable yet: those of which a digest is known have it, or
    /// the first that does not is returned. They are verified then.
    pub(super) fn compare_filled(
        &self,
        binding: &Arc<Binding>,
        first: u64,
        bytes: &[u8],
    ) -> Result<Option<Difference>> {
        let count = (bytes.len() / BLOCK_SIZE) as u64;
        let blocks = first..first.saturating_add(count).min(binding.blocks());
        for (block, bytes) in blocks.clone().zip(bytes.chunks_exact(BLOCK_SIZE)) {
            let difference = self.differs_from_recorded(binding, block, bytes);
            if difference.is_some() {
                return Ok(difference);
            }
        }
        binding.shared().content().has_room_for(blocks.clone())?;
        // All of the folio or nothing: what is verified becomes readable now.
        if binding.verify(blocks)? {
            self.enable_fast_path(binding);
        }
        Ok(None)
    }
}
