// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of what the sharing keeps: digests and their table, the block index, bindings, notes
//! of aliases. They run where the kernel has KUnit, when the module is loaded
//! (`tests/debug_kunit.sh`).

use kernel::macros::kunit_tests;

#[kunit_tests(erofs_shared_share)]
mod tests {
    use core::ops::Range;

    use kernel::{
        bindings,
        prelude::*,
        sync::{rcu, Arc},
    };

    use super::super::{
        dedup,
        digest::{Digest, Key},
        index, is_marked, Binding, Identity, Recording, SharedInode, SharedRef, Verify, BLOCK_SIZE,
    };
    use crate::stats::Counters;

    /// Nothing fills the page caches of these.
    static ASPACE_OPS: &bindings::address_space_operations = &bindings::address_space_operations {
        ..pin_init::zeroed()
    };

    /// Returns a shared inode of `blocks` blocks. `number` tells apart those of all tests.
    fn shared(number: u32, blocks: u64, domain: u8) -> Result<SharedRef> {
        let identity = Identity {
            key: Key::none(),
            // No image leads to such a number.
            variant: u32::MAX - number,
            domain: [domain; 16],
            verify: Verify::Digests,
        };
        SharedInode::get(&identity, blocks * BLOCK_SIZE as u64, ASPACE_OPS)
    }

    fn digest(number: u8) -> Digest {
        let mut digest = [number; 32];
        digest[31] = 0x5a;
        digest
    }

    /// How many were recorded just now; `None`: one differs.
    fn record(shared: &SharedRef, first: u64, digests: &[Digest]) -> Result<Option<u64>> {
        Ok(match shared.record_or_compare(first, digests)? {
            Recording::Agree { adopted } => Some(adopted),
            Recording::Differ { .. } => None,
        })
    }

    fn binding(shared: &SharedRef) -> Result<Arc<Binding>> {
        Binding::new(shared.clone(), &Arc::new(Counters::of_mount(), GFP_KERNEL)?)
    }

    /// Where the index has the digest of a block of `of`: the number of a shared inode, and the
    /// block.
    fn found(of: &SharedRef, block: u64) -> Option<(u64, u64)> {
        let guard = rcu::read_lock();
        index::find(of, block, &guard).map(|lead| (lead.owner.number(), lead.block(block)))
    }

    #[test]
    fn a_digest_is_recorded_once() -> Result {
        let shared = shared(1, 1000, 1)?;
        assert_eq!(record(&shared, 3, &[digest(1), digest(2)])?, Some(2));
        assert_eq!(record(&shared, 3, &[digest(1), digest(2)])?, Some(0));
        assert_eq!(record(&shared, 4, &[digest(2), digest(3)])?, Some(1));
        assert_eq!(record(&shared, 3, &[digest(7)])?, None);
        Ok(())
    }

    #[test]
    fn a_digest_may_begin_with_zeros() -> Result {
        let shared = shared(9, 100, 1)?;
        let content = shared.content();
        let (mut one, mut other) = ([0; 32], [0; 32]);
        one[8..].fill(7);
        other[8..].fill(8);
        assert_eq!(content.has_digest(3, &one), None);
        assert_eq!(record(&shared, 3, &[one, other])?, Some(2));
        assert!(content.is_recorded(3) && content.is_recorded(4));
        assert_eq!(content.has_digest(3, &one), Some(true));
        assert_eq!(content.has_digest(3, &other), Some(false));
        assert_eq!(content.has_digest(4, &other), Some(true));
        assert_eq!(record(&shared, 3, &[other])?, None);
        Ok(())
    }

    #[test]
    fn digests_lie_in_chunks_of_any_place() -> Result {
        let shared = shared(2, 1 << 24, 1)?;
        let digests = [digest(1); 5];
        for first in [0, 125, 251, 4000, (1 << 24) - 5] {
            assert_eq!(record(&shared, first, &digests)?, Some(5));
        }
        for first in [0, 125, 251, 4000, (1 << 24) - 5] {
            assert_eq!(record(&shared, first, &digests)?, Some(0));
        }
        Ok(())
    }

    #[test]
    fn aliases_are_noted_and_forgotten() -> Result {
        let shared = shared(3, 600, 1)?;
        let content = shared.content();
        let mut digests = KVec::with_capacity(600, GFP_KERNEL)?;
        digests.resize(600, digest(9), GFP_KERNEL)?;
        assert_eq!(record(&shared, 0, &digests)?, Some(600));
        let noted = |blocks: Range<u64>| shared.set_aliases(blocks, true);
        // SAFETY: The mapping of a shared inode is its own.
        let marked = || unsafe { is_marked(shared.mapping().as_ptr()) };
        assert!(!marked());
        assert_eq!(noted(100..300), 200);
        assert_eq!(noted(200..310), 10);
        assert!(marked());
        assert_eq!(content.next_alias(0..600), Some(100));
        assert_eq!(content.alias_run(100..600), 210);
        shared.forget_aliases(150..151);
        assert_eq!(content.alias_run(100..600), 50);
        assert_eq!(content.next_alias(150..600), Some(151));
        shared.forget_aliases(0..600);
        assert_eq!(content.next_alias(0..600), None);
        assert!(!marked());
        Ok(())
    }

    #[test]
    fn the_index_finds_equal_blocks_of_one_domain() -> Result {
        let (one, two, other) = (shared(4, 50, 1)?, shared(5, 50, 1)?, shared(6, 50, 2)?);
        record(&one, 7, &[digest(41), digest(42)])?;
        record(&two, 20, &[digest(42)])?;
        record(&other, 20, &[digest(42)])?;
        dedup::enter_all(&one, 7..9)?;
        assert_eq!(found(&two, 20), Some((one.number(), 8)));
        // It is not elsewhere for itself, nor for another domain.
        assert_eq!(found(&one, 8), None);
        assert_eq!(found(&other, 20), None);
        // What is not resident gives way.
        dedup::enter_all(&two, 20..21)?;
        assert_eq!(found(&one, 8), Some((two.number(), 20)));
        assert_eq!(found(&two, 20), None);
        Ok(())
    }

    #[test]
    fn a_binding_has_what_it_verified() -> Result {
        // The bits of more than one page
        let shared = shared(7, 100_000, 1)?;
        let binding = binding(&shared)?;
        assert_eq!(binding.verified_prefix(0..10), 0);
        assert!(!binding.verify(0..70)?);
        assert!(!binding.verify(40_000..40_100)?);
        assert_eq!(binding.verified_prefix(0..1000), 70);
        assert_eq!(binding.verified_prefix(40_050..50_000), 50);
        assert!(binding.covers(40_000..40_100));
        assert!(!binding.covers(39_999..40_100));
        assert!(!binding.is_complete());
        assert!(binding.verify(0..100_000)?);
        assert!(binding.is_complete());
        // Nothing is behind the end that would have to be verified.
        assert!(binding.covers(99_990..100_050));
        Ok(())
    }

    #[test]
    fn a_retired_binding_has_nothing() -> Result {
        let shared = shared(8, 100, 1)?;
        let binding = binding(&shared)?;
        let before = shared.content().usage().bound();
        binding.verify(0..100)?;
        binding.retire();
        assert_eq!(binding.verified_prefix(0..1), 0);
        assert!(matches!(binding.verify(0..1), Err(err) if err == ESTALE));
        assert_eq!(shared.content().usage().bound(), before - 1);
        Ok(())
    }
}
