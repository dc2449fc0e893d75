//! What the kernel says about a process, read from `/proc` (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

/// CPU time of a process that runs, its threads included: user and system.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    // The name is in parentheses and may hold anything; utime and stime are fields 14 and 15 of the line.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (user, system) = ticks().zip(ticks()).with_context(|| format!("{file} has no CPU times"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
}

/// The most memory that a running process has had resident (bytes): `VmHWM`.
pub(super) fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// CPU time of all children that have ended and were waited for.
pub(super) fn ended_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// Whether the process holds a perf event or a BPF link: it has begun to measure.
pub(super) fn measures(pid: u32) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let link = link.to_string_lossy();
        link.contains("[perf_event]") || link.contains("bpf_link") || link.contains("bpf-link")
    })
}

/// What the kernel counts for BPF programs of one type that the process holds, while
/// `kernel.bpf_stats_enabled` is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProgramTime {
    /// Time spent in them (ns).
    pub(super) nanos: u64,
    /// How often they ran.
    pub(super) runs: u64,
}

/// Sums over the programs of `kind` (`enum bpf_prog_type`) among the process's descriptors.
pub(super) fn program_time(pid: u32, kind: u32) -> ProgramTime {
    let mut sum = ProgramTime::default();
    let mut seen = Vec::new();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return sum };
    for entry in entries.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        // Two descriptors may be of one program. A link names its program too, but has no run times.
        let (Some(id), Some(nanos), Some(runs)) = (field("prog_id"), field("run_time_ns"), field("run_cnt"))
        else {
            continue;
        };
        if field("prog_type") == Some(u64::from(kind)) && !seen.contains(&id) {
            seen.push(id);
            sum.nanos += nanos;
            sum.runs += runs;
        }
    }
    sum
}
