//! The counters of all stages under their names as metrics.
//!
//! They are registered when descry starts, so that its own telemetry exports them, and read when a measurement ends.

use descry_abi::counter::Counter;
use descry_process::counter::{ObjectCounters, TableCounters as ProcessCounters};
use descry_telemetry::Counters;

use crate::agent;
use crate::measure::{TableCounters, TrackerCounters};

/// (name, help, value).
pub type Reading = (&'static str, &'static str, u64);

/// Makes every name known.
pub fn register(counters: &Counters) {
    let kernel: Vec<(Counter, u64)> = Counter::ALL.iter().map(|counter| (*counter, 0)).collect();
    publish(counters, of_kernel(&kernel));
    publish(counters, TrackerCounters::default().entries());
    publish(counters, TableCounters::default().entries());
    publish(counters, ProcessCounters::default().entries());
    publish(counters, ObjectCounters::default().entries());
    publish(counters, descry_symbol::Counters::default().entries());
    publish(counters, agent::counters());
}

/// The kernel side's.
pub fn of_kernel(counters: &[(Counter, u64)]) -> impl Iterator<Item = Reading> {
    counters.iter().map(|(counter, value)| (counter.metric(), counter.help(), *value))
}

/// Takes over totals, and logs those that are not zero.
pub fn publish(counters: &Counters, readings: impl IntoIterator<Item = Reading>) {
    for (name, help, value) in readings {
        counters.counter(name, help).raise_to(value);
        if value > 0 {
            tracing::debug!(counter = name, value, "counted");
        }
    }
}

/// Defines a stage's counters with their names as metrics.
macro_rules! counters {
    ($(#[$doc:meta])* $type:ident = $prefix:literal { $($(#[doc = $help:literal])+ $field:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $type { $($(#[doc = $help])+ pub $field: u64,)+ }

        impl $type {
            /// (name as a metric, help, value) of every counter.
            pub fn entries(&self) -> impl Iterator<Item = crate::counted::Reading> + use<> {
                [$((concat!($prefix, stringify!($field)), concat!($($help,)+), self.$field),)+].into_iter()
            }
        }
    };
}
pub(crate) use counters;
