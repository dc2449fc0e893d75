//! Named counters: every discard in userspace, and every counter of the kernel side, is one of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One counter. A clone counts into the same number; counting is one relaxed atomic addition.
#[derive(Clone, Debug)]
pub struct Counter {
    value: Arc<AtomicU64>,
}

/// What a counter stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counter's name, as in the documentation and in metrics: `descry.samples.lost`.
    pub name: &'static str,
    /// One sentence: what was counted.
    pub help: &'static str,
    /// Since the program started.
    pub value: u64,
}

/// The counters of a program. A clone is the same registry.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    by_name: Arc<Mutex<BTreeMap<&'static str, (&'static str, Counter)>>>,
}

impl Counter {
    /// Counts `amount` more; wraps after 2^64.
    pub fn add(&self, amount: u64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes over a total that is counted elsewhere (a map of the kernel side); never goes back.
    pub fn raise_to(&self, total: u64) {
        self.value.fetch_max(total, Ordering::Relaxed);
    }

    /// Where it stands.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// The counter of that name, made when it is first asked for. The help of the first caller stays.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || (help, Counter { value: Arc::default() });
        by_name.entry(name).or_insert_with(make).1.clone()
    }

    /// All counters, by name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Reading> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().map(|(name, (help, counter))| Reading { name, help, value: counter.value() }).collect()
    }

    /// Names, helps and handles, for the export of metrics.
    pub(crate) fn handles(&self) -> Vec<(&'static str, &'static str, Counter)> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().map(|(name, (help, counter))| (*name, *help, counter.clone())).collect()
    }
}
