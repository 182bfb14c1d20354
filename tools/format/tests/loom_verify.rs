// SPDX-License-Identifier: GPL-2.0

//! `Documentation/verify.md`, the contract of verifying by comparison: what threads may see of a shared
//! inode, above all while a second inode comes to use it, in every order that the memory model of Rust
//! allows.
//!
//! Each model is of a few threads. All have the same properties, which the shared inode itself asserts:
//! no reader gets bytes that are not those of its own image, and no page that an inode has verified
//! leaves the cache without a digest. Each is run with images that differ in the block and with images
//! that agree. Each step of the contract that a model is about is left out by a twin, which must fail.

mod common {
    pub mod contract;
    pub mod explore;
    pub mod kernel;
    pub mod merge;
    pub mod shared_inode;
}

use common::{
    contract::Step,
    explore::explore,
    shared_inode::{Filled, Shared, Verified, B, C, D},
};
use loom::{sync::Arc, thread};

/// What the images of B, C and D have in the block.
const IMAGES: [[u64; 3]; 3] = [[1, 2, 3], [1, 1, 1], [1, 2, 1]];

/// Explores a model with each set of images.
fn explore_all(omitted: Option<Step>, model: fn(Shared)) {
    for images in IMAGES {
        explore(move || model(Shared::sole(omitted, images)));
    }
}

/// A model and what must fail without a step.
macro_rules! model {
    ($holds:ident, $model:expr $(, $fails:ident without $step:ident: $why:literal)* $(,)?) => {
        #[test]
        fn $holds() {
            explore_all(None, $model);
        }

        $(
            #[test]
            #[should_panic(expected = $why)]
            fn $fails() {
                explore_all(Some(Step::$step), $model);
            }
        )*
    };
}

/// Another thread that does something with it.
fn spawn<R: 'static>(shared: &Arc<Shared>, run: fn(&Shared) -> R) -> thread::JoinHandle<R> {
    let shared = shared.clone();
    thread::spawn(move || run(&shared))
}

/// Reclaims the block, and reads it in through B, whose image is another one by now.
fn reclaim_and_fill(shared: &Shared) {
    shared.reclaim();
    shared.fill_with(B, 9, false);
}

/// C becomes a user, brings in the block if nothing is there, and reads it.
fn second_user(shared: &Shared) {
    shared.join();
    if shared.fill(C) == Filled::Taken {
        shared.compare(C);
    }
    shared.read_verified(C);
}

/// An access of B beside that.
fn access(shared: Shared, access: fn(&Shared)) {
    let shared = Arc::new(shared);
    let second = spawn(&shared, second_user);
    access(&shared);
    second.join().unwrap();
    access(&shared);
    shared.read_verified(B);
}

model!(
    a_copy_gets_the_bytes_of_its_image,
    |shared| access(shared, Shared::copy),
    a_copy_fails_if_it_does_not_look_again without CopyLooksAgain: "another image's bytes",
    a_copy_fails_if_it_looks_too_early without UptodateOrders: "another image's bytes",
);

model!(
    a_fault_maps_the_bytes_of_its_image,
    |shared| access(shared, Shared::fault),
    a_fault_fails_if_it_does_not_look_again without FaultLooksAgain: "another image's bytes",
);

model!(
    fault_around_maps_the_bytes_of_its_image,
    |shared| access(shared, Shared::map_pages),
    fault_around_fails_if_fills_do_not_wait without FillMindsRcu: "another image's bytes",
    fault_around_fails_with_an_early_cookie without CookieComesLast: "another image's bytes",
    fault_around_fails_without_rcu without RcuOrders: "another image's bytes",
);

model!(
    a_filemap_read_gets_the_bytes_of_its_image,
    |shared| access(shared, Shared::filemap_read),
    a_filemap_read_fails_if_it_is_not_counted without ReadIsCounted: "another image's bytes",
    a_filemap_read_fails_if_it_is_counted_late without CountComesFirst: "another image's bytes",
    a_filemap_read_fails_if_fills_do_not_care without FillMindsReads: "another image's bytes",
);

/// A read of B has failed, and left its folio, into which C reads.
fn access_failed(shared: Shared) {
    let shared = Arc::new(shared.failed());
    let second = spawn(&shared, |shared| {
        shared.join();
        shared.read_again(C);
        shared.read_verified(C);
    });
    shared.copy();
    second.join().unwrap();
    shared.read_verified(B);
}

model!(
    a_copy_from_a_folio_that_failed_gets_the_bytes_of_its_image,
    access_failed,
    a_copy_fails_if_it_looks_before_the_folio_is_uptodate without CopyLooksLast:
        "another image's bytes",
);

/// B leaves while a fault of it is under way. C becomes the next user.
fn access_while_leaving(shared: Shared) {
    let shared = Arc::new(shared);
    let next = spawn(&shared, |shared| {
        shared.leave(B);
        second_user(shared);
    });
    shared.map_pages();
    next.join().unwrap();
}

model!(
    fault_around_of_a_user_that_leaves_maps_the_bytes_of_its_image,
    access_while_leaving,
    fault_around_fails_if_leaving_begins_no_grace_period without ParkMindsRcu: "another image's bytes",
);

/// B leaves, C becomes the next user, and a third thread has a file of B still.
fn access_of_one_that_leaves(shared: Shared, access: fn(&Shared)) {
    let shared = Arc::new(shared);
    let leaves = spawn(&shared, |shared| shared.leave(B));
    let next = spawn(&shared, second_user);
    access(&shared);
    leaves.join().unwrap();
    next.join().unwrap();
}

model!(
    a_filemap_read_of_a_user_that_leaves_gets_the_bytes_of_its_image,
    |shared| access_of_one_that_leaves(shared, Shared::filemap_read),
    a_filemap_read_fails_if_its_inode_is_parked_first without GoneComesFirst: "another image's bytes",
);

model!(
    a_late_look_of_a_user_that_leaves_gets_the_bytes_of_its_image,
    |shared| access_of_one_that_leaves(shared, Shared::look_late),
    a_late_look_fails_if_its_inode_is_parked_first without GoneComesFirst: "another image's bytes",
);

model!(a_late_look_gets_the_bytes_of_its_image, |shared| access(
    shared,
    Shared::look_late
),);

/// B is bound, and publishes its mapping while C becomes a user.
fn publish(shared: Shared) {
    let shared = Arc::new(shared.not_published());
    let second = spawn(&shared, second_user);
    shared.publish();
    second.join().unwrap();
    shared.copy();
}

model!(
    no_mapping_is_published_when_there_are_many,
    publish,
    a_mapping_is_published_late_without_the_lock without PublishLocks: "another image's bytes",
);

/// B reads the block in while C becomes a user, brings it in itself if it comes first, and loses it
/// again.
fn fill(shared: Shared) {
    let shared = Arc::new(shared);
    let second = spawn(&shared, |shared| {
        second_user(shared);
        shared.reclaim();
    });
    shared.fill(B);
    shared.read_verified(B);
    second.join().unwrap();
    shared.read_verified(B);
    shared.read_verified(C);
}

model!(
    a_fill_that_began_before_there_were_many_is_harmless,
    fill,
    a_fill_fails_if_it_looks_before_its_folio_is_there without InsertComesFirst: "another image's bytes",
    a_fill_fails_if_it_does_not_mind_the_digest without FillMindsDigest: "another image's bytes",
);

/// The block is resident. It leaves while C becomes a user, compares, and brings it in again.
fn leave(shared: Shared) {
    assert_eq!(shared.fill(B), Filled::Done);
    let shared = Arc::new(shared);
    let reclaim = spawn(&shared, Shared::reclaim);
    shared.join();
    shared.compare(C);
    shared.fill(C);
    reclaim.join().unwrap();
    shared.read_verified(B);
    shared.read_verified(C);
}

model!(
    a_page_that_leaves_while_there_come_to_be_many_is_not_missed,
    leave,
    a_page_is_missed_if_the_flag_is_set_late without FlagComesFirst: "leaves without a digest",
    a_page_is_missed_if_the_walk_takes_locked_ones without WalkMindsLocks: "another image's bytes",
    a_page_is_missed_if_it_is_compared_unlocked without CompareLocks: "leaves without a digest",
);

/// As [`leave`], but C compares in each way that there is, and B, whose image is another one by now, brings the block in.
fn compare_and_leave(shared: Shared) {
    assert_eq!(shared.fill(B), Filled::Done);
    let shared = Arc::new(shared);
    let reclaim = spawn(&shared, reclaim_and_fill);
    shared.join();
    shared.compare(C);
    shared.compare_digest(C);
    reclaim.join().unwrap();
    shared.read_verified(C);
}

model!(
    a_page_that_is_compared_is_the_one_in_the_cache,
    compare_and_leave,
    a_page_that_is_gone_is_compared_if_nothing_looks without CompareLooksForMapping:
        "another image's bytes",
);

/// As [`compare_and_leave`], but the block gets a digest while B is the only user, and may leave at
/// once.
fn record_and_leave(shared: Shared) {
    assert_eq!(shared.fill(B), Filled::Done);
    let shared = Arc::new(shared);
    let reclaim = spawn(&shared, reclaim_and_fill);
    shared.record_resident();
    shared.join();
    shared.compare(C);
    shared.compare_digest(C);
    reclaim.join().unwrap();
    shared.read_verified(C);
}

model!(
    a_digest_that_is_found_in_the_background_is_that_of_all_later_pages,
    record_and_leave,
    a_digest_is_not_that_of_later_pages_if_the_only_user_does_not_look without SoleMindsRecords:
        "another image's bytes",
);

/// B reads the block in, and it is reclaimed, while C becomes a user.
fn fill_and_leave(shared: Shared) {
    let shared = Arc::new(shared);
    let reclaim = spawn(&shared, Shared::reclaim);
    let second = spawn(&shared, Shared::join);
    shared.fill(B);
    second.join().unwrap();
    reclaim.join().unwrap();
    shared.fill(C);
    shared.read_verified(B);
    shared.read_verified(C);
}

model!(
    a_page_that_comes_and_leaves_while_there_come_to_be_many_is_not_missed,
    fill_and_leave,
    a_page_is_missed_if_it_leaves_without_the_lock without ReleaseLocks: "leaves without a digest",
);

/// C and D become users at once. Whichever comes second need not walk.
fn third(shared: Shared) {
    let shared = Arc::new(shared);
    let second = spawn(&shared, Shared::join);
    if shared.is_many() {
        shared.fill(D);
        shared.read_verified(D);
    }
    second.join().unwrap();
    shared.read_verified(B);
}

model!(
    a_walk_finds_pages_of_its_image_only,
    third,
    a_walk_finds_those_of_others_if_fills_do_not_wait without FillMindsWalk: "another image's bytes",
);

/// C becomes a user; D brings the block in, and it leaves.
fn third_and_leave(shared: Shared) {
    let shared = Arc::new(shared);
    let second = spawn(&shared, Shared::join);
    if shared.is_many() {
        shared.fill(D);
        shared.reclaim();
        shared.fill(D);
    }
    second.join().unwrap();
    shared.read_verified(B);
}

model!(
    a_digest_is_that_of_a_page_of_the_only_user_until_others_may_fill,
    third_and_leave,
    a_digest_may_be_that_of_another_image_afterwards without RecordsComeFirst:
        "another image's bytes",
);

/// C has read the block in, and there are many. A reader of C is overtaken: C leaves, the page is
/// reclaimed, and B reads the block in.
fn overtaken(shared: Shared) {
    shared.join();
    assert_eq!(shared.fill(C), Filled::Done);
    let shared = Arc::new(shared);
    let reader = spawn(&shared, |shared| shared.read_verified(C));
    shared.leave(C);
    shared.reclaim();
    shared.fill(B);
    shared.read_verified(B);
    reader.join().unwrap();
}

model!(
    a_reader_whose_inode_leaves_gets_its_bytes,
    overtaken,
    a_reader_is_overtaken_if_a_page_leaves_unrecorded without AllAreRecorded: "another image's bytes",
);

/// As [`overtaken`], but C is the only one that is bound, until D is.
fn overtaken_alone(shared: Shared) {
    shared.go(B);
    shared.join();
    assert_eq!(shared.fill(C), Filled::Done);
    let shared = Arc::new(shared);
    let reader = spawn(&shared, |shared| shared.read_verified(C));
    shared.leave(C);
    shared.reclaim();
    shared.join();
    shared.fill(D);
    shared.read_verified(D);
    reader.join().unwrap();
}

model!(
    a_reader_whose_inode_leaves_as_the_last_gets_its_bytes,
    overtaken_alone,
    a_reader_is_overtaken_if_leaving_is_not_noted without LeavingIsNoted: "another image's bytes",
);

/// C reads in a folio in which a later block differs, beside another reader of C. Then B reads it in.
fn large(shared: Shared) {
    shared.join();
    let shared = Arc::new(shared);
    let reader = spawn(&shared, |shared| shared.read_verified(C));
    assert_eq!(shared.fill_with(C, 2, true), Filled::Differs);
    shared.fill(B);
    shared.read_verified(B);
    reader.join().unwrap();
}

model!(
    a_folio_that_fails_has_verified_nothing,
    large,
    a_folio_that_fails_has_verified_its_beginning without VerifyComesLast: "another image's bytes",
);

/// Memory failure takes a page that C has verified; B reads the block in.
fn lose(shared: Shared) {
    shared.join();
    assert_eq!(shared.fill(C), Filled::Done);
    let shared = Arc::new(shared);
    let failure = spawn(&shared, Shared::memory_failure);
    shared.fill(B);
    shared.compare(B);
    shared.read_verified(B);
    failure.join().unwrap();
    shared.fill(B);
    shared.read_verified(C);
}

model!(
    a_page_that_is_lost_is_no_other,
    lose,
    a_page_that_is_lost_is_another_without_a_record without PoisonIsRecorded: "leaves without a digest",
);

/// The page is dropped and put back by a merge, while C becomes a user, brings it in, and loses it
/// again.
fn merge(shared: Shared) {
    assert_eq!(shared.fill(B), Filled::Done);
    let shared = Arc::new(shared);
    let second = spawn(&shared, |shared| {
        second_user(shared);
        shared.reclaim();
    });
    shared.merge();
    second.join().unwrap();
    shared.read_verified(B);
    shared.read_verified(C);
}

model!(
    a_page_that_a_merge_puts_back_is_that_of_its_users,
    merge,
    a_merge_beside_a_second_user_fails_if_it_does_not_look_for_a_digest without MergeMindsRecords:
        "another image's bytes",
);

/// As [`merge`], while B, whose image is another one by now, reads the block in again, and it gets a
/// digest. C becomes a user, and B reads it in once more.
fn merge_and_record(shared: Shared) {
    assert_eq!(shared.fill(B), Filled::Done);
    let shared = Arc::new(shared);
    let reader = spawn(&shared, |shared| {
        shared.fill_with(B, 9, false);
        shared.record_resident();
        shared.reclaim();
    });
    shared.merge();
    reader.join().unwrap();
    shared.join();
    shared.compare(C);
    shared.reclaim();
    shared.fill_with(B, 9, false);
    shared.read_verified(C);
}

model!(
    a_page_that_a_merge_puts_back_has_the_digest_that_was_recorded,
    merge_and_record,
    a_merge_fails_if_it_does_not_look_for_a_digest without MergeMindsRecords: "another image's bytes",
);

/// As [`merge`], when there have been many users and none is left, while D becomes one.
fn merge_of_none(shared: Shared) {
    shared.go(B);
    shared.join();
    assert_eq!(shared.fill(C), Filled::Done);
    shared.go(C);
    let shared = Arc::new(shared);
    let next = spawn(&shared, |shared| {
        shared.reclaim();
        shared.join();
        shared.fill(D);
        shared.reclaim();
    });
    shared.merge();
    next.join().unwrap();
    shared.read_verified(D);
}

model!(
    a_page_of_former_users_that_a_merge_puts_back_has_its_digest,
    merge_of_none,
    a_merge_fails_if_its_folio_has_left without MergeLooksForFolio: "another image's bytes",
);

/// The models do something: with images that agree C shares the page that B has read in.
#[test]
fn images_that_agree_share_a_page() {
    explore(|| {
        let shared = Shared::sole(None, [1, 1, 1]);
        assert_eq!(shared.fill(B), Filled::Done);
        let shared = Arc::new(shared);
        let reader = spawn(&shared, Shared::copy);
        second_user(&shared);
        reader.join().unwrap();
        assert_eq!(shared.verified(B), Verified::Yes);
        assert_eq!(shared.verified(C), Verified::Yes);
    });
}
