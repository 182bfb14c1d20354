// SPDX-License-Identifier: GPL-2.0

//! The end of a fill (`io::fill_state`): its submitter ends it if all I/O is done when all is submitted, and
//! must see what the I/O wrote on another processor. loom goes through all orders; see `loom_share.rs`.

mod common {
    pub mod explore;
}

use common::explore::explore;
use loom::{
    sync::{
        atomic::{AtomicU32, AtomicU64, Ordering},
        Arc,
    },
    thread,
};

/// `Fill`: the submitter's share and one I/O's, and what the I/O writes: zeros behind the end of a file, the
/// first error.
struct Fill {
    pending: AtomicU32,
    written: AtomicU64,
}

/// `Drop for Share` after an I/O, beside `Submission::finish()`, whose load of `pending` has this ordering.
fn io_and_submitter(load: Ordering) {
    let fill = Arc::new(Fill {
        pending: AtomicU32::new(2),
        written: AtomicU64::new(0),
    });
    let io = {
        let fill = fill.clone();
        thread::spawn(move || {
            fill.written.store(1, Ordering::Relaxed);
            fill.pending.fetch_sub(1, Ordering::SeqCst);
        })
    };
    if fill.pending.load(load) == 1 {
        let written = fill.written.load(Ordering::Relaxed);
        assert_eq!(written, 1, "the submitter sees what the I/O wrote");
    }
    io.join().unwrap();
}

#[test]
fn the_submitter_of_a_fill_sees_what_its_io_wrote() {
    explore(|| io_and_submitter(Ordering::Acquire));
}

#[test]
#[should_panic(expected = "the submitter sees what the I/O wrote")]
fn the_submitter_of_a_fill_sees_less_with_a_relaxed_load() {
    explore(|| io_and_submitter(Ordering::Relaxed));
}

/// x86 has one load for both orderings, so that no run of the module tells them apart.
#[test]
fn the_module_has_the_orderings_of_the_model() {
    let source = include_str!("../../../src/io/fill_state.rs");
    for part in [
        "let is_alone = self.0.fill().pending.load(Acquire) == 1;",
        "if self.fill().pending.fetch_sub(1, Full) != 1 {",
    ] {
        assert!(source.contains(part), "fill_state.rs has {part:?}");
    }
}
