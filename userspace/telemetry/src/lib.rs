//! descry's own logs, counters and telemetry.
#![forbid(unsafe_code)]
