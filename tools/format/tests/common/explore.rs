// SPDX-License-Identifier: GPL-2.0

//! Runs loom's models.

/// Runs a model, which must have more than one order. Three preemptions show all that these small models
/// can do, within seconds.
pub fn explore(model: impl Fn() + Sync + Send + 'static) {
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    let runs = runs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(runs > 1, "loom saw one order only");
}
