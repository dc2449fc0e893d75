//! What a configuration wants of the kernel side.

use descry_abi::template::Lots;
use descry_config::{Config, Period};
use descry_decode::syscall;
use descry_probe::{Functions, OffCpu, Options, Sampling, Syscalls};

use super::exclusions::Exclusions;
use super::requests;
use super::shares::Shares;
use crate::failure::Failure;
use crate::measure;
use crate::profile::ring_bytes;
use crate::requests::lots;

/// Bytes of the ring where requests are followed: a tick at 40 MB a second. The kernel maps it twice, so that it counts
/// twice as memory of the agent.
const REQUESTS_RING: u32 = 2 << 20;
/// The same where waits are measured, for the stacks of all threads that are blocked when that begins.
const WAITS_RING: u32 = 16 << 20;

/// What to load.
pub fn options(config: &Config) -> Result<Options, Failure> {
    let Config { profile, off_cpu, requests, syscalls, functions, .. } = config;
    let base = measure::options(profile.unwind_memory)?;
    let mut ring = if profile.enabled { ring_bytes(profile.frequency)? } else { base.ring_bytes };
    if requests.enabled {
        ring = ring.max(REQUESTS_RING);
    }
    if off_cpu.enabled {
        ring = ring.max(WAITS_RING);
    }
    Ok(Options {
        sampling: profile
            .enabled
            .then(|| Sampling { frequency: profile.frequency, has_shares: Shares::are_wanted(config) }),
        off_cpu: off_cpu
            .enabled
            .then(|| OffCpu { wakers: false, longer_than: of_requests(config, &off_cpu.longer_than) }),
        syscalls: syscalls.enabled.then(|| Syscalls {
            slower_than: of_requests(config, &syscalls.slower_than),
            traits: syscall::traits(),
        }),
        net: requests.enabled.then(|| lots_of(config)),
        exclusions: Exclusions::wanted(config),
        functions: (!functions.names.is_empty()).then(|| Functions {
            event_rate: if takes_no_trace(config) { 0 } else { functions.spans_per_second },
        }),
        // The reason of a wait is known by them.
        kernel_stacks: profile.kernel || off_cpu.enabled,
        ring_bytes: ring,
        ..base
    })
}

/// Which traces are taken.
fn lots_of(config: &Config) -> Lots {
    // A sampler that there is not is told of where requests begin to be followed.
    lots(requests::sampling_of(&config.requests).ok().as_ref())
}

/// The time (ns) above which system calls or waits are told one by one: below their requests only.
fn of_requests(config: &Config, time: &Option<Period>) -> Option<u64> {
    let time = time.as_ref().filter(|_| config.requests.enabled && !takes_no_trace(config))?;
    Some(u64::try_from(time.0.as_nanos()).unwrap_or(u64::MAX))
}

/// Whether no request becomes a span: the kernel side then sends nothing of what would hang below one.
fn takes_no_trace(config: &Config) -> bool {
    // A sampler that there is not is told of where requests begin to be followed.
    config.requests.enabled
        && requests::sampling_of(&config.requests).is_ok_and(|sampling| sampling.takes_none())
}

/// Whether the kernel side has to be loaded anew for what has changed.
pub fn needs_loading(old: &Config, new: &Config) -> bool {
    let loaded = |config: &Config| {
        let profile = &config.profile;
        let kernel = (profile.enabled, profile.frequency, profile.kernel, profile.unwind_memory);
        let kernel = (kernel, Shares::are_wanted(config), Exclusions::wanted(config));
        let others =
            (config.off_cpu.clone(), config.requests.clone(), config.syscalls.clone(), config.logs.clone());
        (kernel, others, config.functions.clone(), config.resource.command_args)
    };
    loaded(old) != loaded(new)
}
