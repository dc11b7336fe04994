//! Crash points: places between two effects on the disk, where the tests kill the process.
//!
//! Outside the tests a point is nothing at all. In them, a child process of the test counts the points it passes and dies at
//! the one it was told to, without unwinding or cleaning up, as after SIGKILL; the parent then checks the store.

/// Marks a place where being killed must leave a consistent store.
#[cfg(not(test))]
pub(crate) fn point() {}

/// A point at every `step`th of many like effects.
pub(crate) fn point_every(step: u64, count: u64) {
    if count % step == 1 {
        point();
    }
}

#[cfg(test)]
pub(crate) use in_tests::{dies_at, point};

#[cfg(test)]
mod in_tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    /// Points left until death; negative: never.
    static LEFT: AtomicI64 = AtomicI64::new(-1);

    pub(crate) fn point() {
        if LEFT.load(Ordering::Relaxed) >= 0 && LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
            std::process::exit(137);
        }
    }

    /// From now on this process dies at the `k`th point that it passes, counted from 0.
    pub(crate) fn dies_at(k: i64) {
        LEFT.store(k, Ordering::Relaxed);
    }
}
