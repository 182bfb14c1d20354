// SPDX-License-Identifier: GPL-2.0

//! That a reader which follows `share::hint` never comes to a shared inode that is freed, in every order
//! that the memory model of Rust allows. A model of `Hint::get()` and `Hint::set()`, of
//! `share::index::find()` and `leave()`, and of the RCU grace period before a shared inode is freed: the
//! same loads and stores, in the same order and with the same orderings. Each twin leaves one thing out,
//! and must fail.

mod common {
    pub mod explore;
    // There are no folios here.
    #[allow(dead_code)]
    pub mod kernel;
}

use common::{
    explore::explore,
    kernel::{now, Rcu},
};
use loom::{
    sync::{
        atomic::{
            fence, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
        Arc, Mutex,
    },
    thread,
};

/// What a twin leaves out.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    /// `Hint::get()` looks at the generation.
    Generation,
    /// `leave()` changes the generation when no entry is left, not before.
    LateChange,
    /// `Hint::get()` looks at the version again.
    Version,
    /// A shared inode is freed after a grace period.
    GracePeriod,
}

/// The shared inode that leaves the index, and one that takes its place there.
const LEAVES: u64 = 1;
const STAYS: u64 = 2;

#[derive(Clone, Copy)]
struct Lead {
    generation: u64,
    owner: u64,
}

struct Model {
    without: Without,
    /// `share::hint::Hint`
    version: AtomicU64,
    words: [AtomicU64; 2],
    /// Where the index has the digest.
    index: Mutex<u64>,
    generation: AtomicU64,
    /// One for each reader.
    rcu: [Rcu; 2],
    freed: AtomicU64,
}

impl Model {
    fn new(without: Without) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            without,
            version: zero(),
            words: [zero(), zero()],
            index: Mutex::new(LEAVES),
            generation: zero(),
            rcu: [Rcu(zero()), Rcu(zero())],
            freed: zero(),
        }
    }

    /// The first half of `Hint::get()`: what is noted, whatever generation it is of.
    fn noted(&self) -> Option<Lead> {
        let version = self.version.load(Relaxed);
        if version == 0 || version % 2 != 0 {
            return None;
        }
        fence(Acquire);
        let [generation, owner] = [0, 1].map(|at: usize| self.words[at].load(Relaxed));
        fence(Acquire);
        let same = self.without == Without::Version || self.version.load(Relaxed) == version;
        same.then_some(Lead { generation, owner })
    }

    fn get(&self) -> Option<Lead> {
        let lead = self.noted()?;
        let current = self.generation.load(Relaxed);
        (self.without == Without::Generation || lead.generation == current).then_some(lead)
    }

    fn set(&self, lead: Lead) {
        let version = self.version.load(Relaxed);
        if version % 2 != 0 {
            return;
        }
        let taken = self
            .version
            .compare_exchange(version, version + 1, SeqCst, Relaxed);
        if taken.is_err() {
            return;
        }
        fence(SeqCst);
        self.words[0].store(lead.generation, Relaxed);
        self.words[1].store(lead.owner, Relaxed);
        self.version.store(version + 2, Release);
    }

    fn find(&self) -> Lead {
        let generation = self.generation.load(Relaxed);
        let owner = *self.index.lock().unwrap();
        Lead { generation, owner }
    }

    /// `share::alias::gather()`, of one block.
    fn read(&self, reader: usize) {
        self.rcu[reader].section(true, || {
            let lead = self.get().unwrap_or_else(|| {
                let lead = self.find();
                self.set(lead);
                lead
            });
            let freed = lead.owner == LEAVES && now(&self.freed, Relaxed) != 0;
            assert!(!freed, "it is freed");
        });
    }

    /// The eviction of a shared inode.
    fn evict(&self) {
        let change = || {
            self.generation.fetch_add(1, SeqCst);
            fence(SeqCst);
        };
        if self.without == Without::LateChange {
            change();
        }
        *self.index.lock().unwrap() = STAYS;
        if self.without != Without::LateChange {
            change();
        }
        let cookies = [0, 1].map(|reader: usize| self.rcu[reader].cookie());
        let is_over = |reader: usize| self.rcu[reader].is_over(cookies[reader]);
        if self.without == Without::GracePeriod || is_over(0) && is_over(1) {
            self.freed.store(1, Relaxed);
        }
    }
}

/// Two reads by one thread, and one by another, beside an eviction.
fn read_and_evict(without: Without) {
    explore(move || {
        let model = Arc::new(Model::new(without));
        let other = model.clone();
        let reader = thread::spawn(move || {
            other.read(0);
            other.read(0);
        });
        let other = model.clone();
        let second = thread::spawn(move || other.read(1));
        model.evict();
        reader.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn no_reader_follows_a_hint_to_what_is_freed() {
    read_and_evict(Without::Nothing);
}

#[test]
#[should_panic(expected = "it is freed")]
fn a_hint_is_followed_too_far_without_generations() {
    read_and_evict(Without::Generation);
}

#[test]
#[should_panic(expected = "it is freed")]
fn a_hint_is_followed_too_far_if_the_generation_changes_too_early() {
    read_and_evict(Without::LateChange);
}

#[test]
#[should_panic(expected = "it is freed")]
fn a_hint_is_followed_too_far_without_a_grace_period() {
    read_and_evict(Without::GracePeriod);
}

/// One thread notes something in the place of what is noted, and another looks: what it sees belongs
/// together.
fn note_and_look(without: Without) {
    explore(move || {
        let model = Arc::new(Model::new(without));
        let lead = |generation| Lead {
            generation,
            owner: generation * 10,
        };
        model.set(lead(7));
        let other = model.clone();
        let writer = thread::spawn(move || other.set(lead(8)));
        if let Some(lead) = model.noted() {
            assert_eq!(lead.owner, lead.generation * 10, "a hint is torn");
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_hint_is_seen_whole() {
    note_and_look(Without::Nothing);
}

#[test]
#[should_panic(expected = "a hint is torn")]
fn a_hint_is_torn_if_its_version_is_not_looked_at_again() {
    note_and_look(Without::Version);
}
