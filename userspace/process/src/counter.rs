//! Named counters: every discard and every detour of this crate is one of them.

macro_rules! counters {
    ($(#[$doc:meta])* $type:ident = $prefix:literal { $($(#[doc = $help:literal])+ $field:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type { $($(#[doc = $help])+ pub $field: u64,)+ }

        impl $type {
            /// (name as a metric, help, value) of every counter.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((concat!($prefix, stringify!($field)), concat!($($help,)+), self.$field),)+].into_iter()
            }
        }
    };
}

counters! {
    /// What became of the binaries that were asked for.
    ObjectCounters = "descry.binaries." {
        /// Binaries opened and parsed.
        opened,
        /// Binaries that were known already.
        reused,
        /// Binaries closed to stay within the limit.
        evicted,
        /// Binaries opened again after they had been closed to stay within the limit.
        reopened,
        /// Mapped files that are not readable as ELF.
        not_elf,
        /// Binaries opened whose section headers are garbage; their segments are used.
        bad_sections,
        /// Mapped files that were skipped because they are not regular files.
        not_regular,
        /// Mapped files that are gone, replaced or out of reach.
        unavailable,
        /// Times that the process had no file descriptor left, so that half of the binaries were closed.
        out_of_descriptors,
    }
}

counters! {
    /// What became of processes and their mappings.
    TableCounters = "descry.processes." {
        /// Processes whose mappings were read from /proc.
        loaded,
        /// Processes that were gone or out of reach when their mappings were to be read.
        load_failed,
        /// Processes dropped to stay within the limit.
        evicted,
        /// Ended processes dropped after their grace.
        expired,
        /// Processes that got the pid of another one.
        pid_reused,
        /// Mappings not kept because the process has too many.
        beyond_limit,
        /// Lines of /proc/PID/maps that could not be parsed.
        malformed,
        /// Events that are older than what /proc told since.
        stale,
        /// Events about a process that is not known.
        unknown_process,
    }
}
