//! The kernel's clocks.

use nix::time::{ClockId, clock_gettime};

use crate::ProbeError;

/// What a clock says (ns).
pub(crate) fn read(clock: ClockId) -> Result<u64, ProbeError> {
    let time = clock_gettime(clock)
        .map_err(|error| ProbeError::System { action: "read the clock", source: error.into() })?;
    Ok(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}
