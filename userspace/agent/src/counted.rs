//! The counters of all stages under their names as metrics.
//!
//! They are registered when descry starts, so that its own telemetry exports them, and read when a measurement ends.

use descry_abi::counter::Counter;
use descry_process::counter::{ObjectCounters, TableCounters as ProcessCounters};
use descry_telemetry::Counters;

use crate::agent;
use crate::decode::DecodeCounters;
use crate::measure::{TableCounters, TrackerCounters};
use crate::profile::WaitCounters;
use crate::requests::{MetricCounters, RequestCounters};
use crate::syscalls::RecorderCounters as SyscallCounters;
use crate::trace::CatalogCounters;

/// (name, help, value).
pub type Reading = (&'static str, &'static str, u64);

/// Makes every name known.
pub fn register(counters: &Counters) {
    let kernel: Vec<(Counter, u64)> = Counter::ALL.iter().map(|counter| (*counter, 0)).collect();
    publish(counters, of_kernel(&kernel));
    publish(counters, TrackerCounters::default().entries());
    publish(counters, TableCounters::default().entries());
    publish(counters, SyscallCounters::default().entries());
    publish(counters, WaitCounters::default().entries());
    publish(counters, CatalogCounters::default().entries());
    publish(counters, ProcessCounters::default().entries());
    publish(counters, ObjectCounters::default().entries());
    publish(counters, descry_symbol::Counters::default().entries());
    publish(counters, agent::counters());
    publish(counters, DecodeCounters::default().entries());
    publish(counters, RequestCounters::default().entries());
    publish(counters, MetricCounters::default().entries());
    publish(counters, descry_export::span::Delivered::default().entries());
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

/// Counters of the kernel side that mean a loss to whoever follows connections.
const LOST_OF_SOCKETS: [Counter; 10] = [
    Counter::RingFullExchange,
    Counter::RingFullMessage,
    Counter::RingFullConnection,
    Counter::RingFullLifecycle,
    Counter::NoState,
    Counter::ScopeFull,
    Counter::SocketUnreadable,
    Counter::BufferUnreadable,
    Counter::MessagesUnseen,
    Counter::TlsUnjoined,
];

/// What the kernel side lost of connections and messages, by reason; nothing that is zero.
pub fn lost_of_sockets(counters: &[(Counter, u64)]) -> impl Iterator<Item = (&'static str, u64)> {
    let lost = counters.iter().filter(|(counter, count)| *count > 0 && LOST_OF_SOCKETS.contains(counter));
    lost.map(|(counter, count)| (counter.name(), *count))
}
