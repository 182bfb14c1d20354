// SPDX-License-Identifier: GPL-2.0

//! What threads may see of the lock-free state of `src/share`, in every order that the memory model of
//! Rust allows: loom runs each model once for each of them.
//!
//! The module's own files are made of the kernel's atomics, which loom cannot watch, so these are models
//! of them: each names the function whose loads and stores it repeats, in the same order and with the
//! same orderings. A volatile load or store there is a relaxed one here. What makes a model hold is
//! taken from a twin of it, which must fail.

mod common {
    pub mod explore;
}

use common::explore::explore;
use loom::{
    sync::{
        atomic::{fence, AtomicU64, Ordering},
        Arc, Mutex,
    },
    thread,
};

/// `share::table::DigestSlot`.
struct DigestSlot([AtomicU64; 4]);

/// How a digest's first word is stored: `Release` in the module.
#[derive(Clone, Copy)]
struct First(Ordering);

impl DigestSlot {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// `DigestSlot::words()`: the first word, a barrier, then the others.
    fn words(&self) -> Option<[u64; 4]> {
        let first = self.0[0].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        (first != 0).then(|| {
            let word = |at: usize| self.0[at].load(Ordering::Relaxed);
            [first, word(1), word(2), word(3)]
        })
    }

    /// `DigestSlot::same()`.
    fn same(&self, other: &Self) -> bool {
        let ours = self.0[0].load(Ordering::Relaxed);
        let theirs = other.0[0].load(Ordering::Relaxed);
        if ours != theirs || ours == 0 {
            return false;
        }
        fence(Ordering::Acquire);
        (1..4).all(|at| self.0[at].load(Ordering::Relaxed) == other.0[at].load(Ordering::Relaxed))
    }

    /// `DigestSlot::record_or_compare()`, by the `Writer`: true if the digest is this one now. What the lock
    /// holds is what `DigestSlot::words_for()` reads under it, the last digest that was set. With loads in its
    /// place loom would see no other order than the first: of what was done to an atomic before a
    /// store it looks at the last access only, and that would be the writer's own.
    fn settle(&self, recorded: &mut Option<[u64; 4]>, words: [u64; 4], first: First) -> bool {
        if let Some(recorded) = recorded {
            return *recorded == words;
        }
        *recorded = Some(words);
        for (to, word) in self.0.iter().zip(words).skip(1) {
            to.store(word, Ordering::Relaxed);
        }
        self.0[0].store(words[0], first.0);
        true
    }
}

const ONE: [u64; 4] = [11, 12, 13, 14];
const TWO: [u64; 4] = [21, 22, 23, 24];

/// Two writers with different digests under the lock of `table::Writer`, and a reader without it.
fn settle_and_read(first: First) {
    let content = Arc::new((Mutex::new(None), DigestSlot::new()));
    let writers = [ONE, TWO].map(|digest| {
        let content = content.clone();
        thread::spawn(move || {
            let mut recorded = content.0.lock().unwrap();
            content.1.settle(&mut recorded, digest, first)
        })
    });
    let seen = content.1.words();
    let kept = writers.map(|writer| writer.join().unwrap());
    assert!(
        kept[0] != kept[1],
        "one digest is recorded, the other differs"
    );
    let last = content.1.words();
    assert_eq!(last, Some(if kept[0] { ONE } else { TWO }));
    assert!(
        seen.is_none() || seen == last,
        "a digest is seen whole: {seen:?}"
    );
}

#[test]
fn a_digest_is_seen_whole_or_not_at_all() {
    explore(|| settle_and_read(First(Ordering::Release)));
}

#[test]
#[should_panic(expected = "a digest is seen whole")]
fn a_digest_is_torn_without_release() {
    explore(|| settle_and_read(First(Ordering::Relaxed)));
}

/// Digests of two blocks that begin alike are recorded while `share::alias::same_run()` compares them.
fn compare(first: First) {
    let slots = Arc::new([DigestSlot::new(), DigestSlot::new()]);
    let writer = {
        let slots = slots.clone();
        thread::spawn(move || {
            slots[0].settle(&mut None, ONE, first);
            slots[1].settle(&mut None, [ONE[0], 99, 98, 97], first);
        })
    };
    assert!(!slots[0].same(&slots[1]), "different blocks are the same");
    writer.join().unwrap();
}

#[test]
fn blocks_with_different_digests_are_never_the_same() {
    explore(|| compare(First(Ordering::Release)));
}

#[test]
#[should_panic(expected = "different blocks are the same")]
fn blocks_that_begin_alike_are_the_same_without_release() {
    explore(|| compare(First(Ordering::Relaxed)));
}

/// `Table::slots_or_new()` and `Table::chunk()`: a chunk is set up, then the pointer to it is stored.
/// The reader's loads through the pointer depend on it; loom has no such order, so it acquires.
fn publish_chunk(store: Ordering) {
    let table = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let writer = {
        let table = table.clone();
        thread::spawn(move || {
            table.1.store(7, Ordering::Relaxed);
            table.0.store(1, store);
        })
    };
    if table.0.load(Ordering::Acquire) != 0 {
        assert_eq!(
            table.1.load(Ordering::Relaxed),
            7,
            "a chunk without its header"
        );
    }
    writer.join().unwrap();
}

#[test]
fn a_chunk_is_found_when_it_is_set_up() {
    explore(|| publish_chunk(Ordering::Release));
}

#[test]
#[should_panic(expected = "a chunk without its header")]
fn a_chunk_is_found_too_early_without_release() {
    explore(|| publish_chunk(Ordering::Relaxed));
}

/// `Unheld::set_aliases()`: the note, and the mark that `is_plain()` reads without a lock.
struct Content {
    /// `Content::aliases`.
    lock: Mutex<()>,
    /// `Content::aliased`.
    aliased: AtomicU64,
    /// What `fast_path::mark()` sets.
    mark: AtomicU64,
}

impl Content {
    fn new() -> Self {
        Self {
            lock: Mutex::new(()),
            aliased: AtomicU64::new(0),
            mark: AtomicU64::new(0),
        }
    }

    fn count(&self, aliased: bool) -> u64 {
        let before = self.aliased.load(Ordering::Relaxed);
        let after = if aliased { before + 1 } else { before - 1 };
        self.aliased.store(after, Ordering::Relaxed);
        after
    }

    fn set_aliases(&self, aliased: bool) {
        let _lock = self.lock.lock().unwrap();
        let after = self.count(aliased);
        self.mark.store(u64::from(after != 0), Ordering::Relaxed);
    }

    /// As `set_aliases()`, but it sets the mark when it has the lock no more.
    fn set_aliases_late(&self, aliased: bool) {
        let lock = self.lock.lock().unwrap();
        let after = self.count(aliased);
        drop(lock);
        self.mark.store(u64::from(after != 0), Ordering::Relaxed);
    }
}

/// A merge worker that notes an alias, and takes the note back, as its page was in use, beside another thread
/// that notes one, drops the page of it, and then has a reader look at the mark.
fn note_and_look(set_aliases: fn(&Content, bool)) {
    let content = Arc::new(Content::new());
    let worker = {
        let content = content.clone();
        thread::spawn(move || {
            set_aliases(&content, true);
            set_aliases(&content, false);
        })
    };
    set_aliases(&content, true);
    worker.join().unwrap();
    let aliased = content.aliased.load(Ordering::Relaxed) != 0;
    let marked = content.mark.load(Ordering::Relaxed) != 0;
    assert!(aliased, "a note is lost");
    assert!(marked, "a file with an alias is read without more ado");
}

#[test]
fn no_file_is_plain_when_a_block_has_an_alias() {
    explore(|| note_and_look(Content::set_aliases));
}

#[test]
#[should_panic(expected = "a file with an alias is read without more ado")]
fn a_file_is_plain_with_an_alias_if_the_mark_is_set_too_late() {
    explore(|| note_and_look(Content::set_aliases_late));
}
