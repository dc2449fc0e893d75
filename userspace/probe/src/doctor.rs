//! What this kernel gives, hook by hook, and what each missing hook costs.

use std::path::Path;

use aya::programs::ProgramType;
use aya::sys::{is_helper_supported, is_map_supported, is_program_supported};
use aya_obj::generated::bpf_func_id;

use crate::ProbeError;
use crate::btf::{self, Btf};

/// The oldest kernel that descry runs on.
const FLOOR: (u32, u32) = (5, 15);
/// Capabilities that are needed (linux/capability.h), with their numbers.
const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_SYS_PTRACE", 19)];
/// Stands in for CAP_BPF and CAP_PERFMON.
const CAP_SYS_ADMIN: u32 = 21;

/// One hook or facility of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: &'static str,
    /// Whether it is there.
    pub available: bool,
    /// What descry uses it for.
    pub needed_for: &'static str,
    /// What happens without it.
    pub without_it: &'static str,
    /// What to do to get it; empty where it is there.
    pub remedy: &'static str,
}

/// A capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// Its name.
    pub name: &'static str,
    /// Whether this process has it.
    pub held: bool,
}

/// Names features of the kernel (separated by commas) that descry does without, as it does where the kernel has them not:
/// so that tests run what older kernels get.
const WITHOUT: &str = "DESCRY_WITHOUT";

/// A feature that [`WITHOUT`] may name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feature {
    /// `bpf_loop` (5.17).
    Loop,
    /// The tracepoints `sock_send_length` and `sock_recv_length` (6.3).
    SocketTracepoints,
    /// Links of one probe to many places (6.6).
    UprobeMulti,
}

impl Feature {
    /// Whether descry has to do without.
    pub(crate) fn is_hidden(self) -> bool {
        let name = match self {
            Self::Loop => "bpf_loop",
            Self::SocketTracepoints => "socket_tracepoints",
            Self::UprobeMulti => "uprobe_multi",
        };
        std::env::var(WITHOUT).is_ok_and(|names| names.split(',').any(|other| other == name))
    }
}

/// Whether the kernel has `bpf_loop` (5.17).
pub(crate) fn has_loop() -> bool {
    !Feature::Loop.is_hidden()
        && is_helper_supported(ProgramType::PerfEvent, bpf_func_id::BPF_FUNC_loop).unwrap_or(false)
}

/// The kernel's release, as `uname -r` says.
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// Major and minor number of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Fails on a kernel below the floor. A release that cannot be read is given the chance.
pub(crate) fn require_kernel() -> Result<(), ProbeError> {
    let release = release();
    match version(&release) {
        Some(version) if version < FLOOR => Err(ProbeError::KernelTooOld { release }),
        _ => Ok(()),
    }
}

/// Fails without the capabilities.
pub(crate) fn require_rights(action: &'static str) -> Result<(), ProbeError> {
    let missing: Vec<&str> = rights().iter().filter(|right| !right.held).map(|right| right.name).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ProbeError::NoRights { action, missing: missing.join(", ") })
    }
}

/// Fails above the kernel's limit of samples a second.
pub(crate) fn require_frequency(asked: u64) -> Result<(), ProbeError> {
    let limit = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate");
    match limit.ok().and_then(|text| text.trim().parse().ok()) {
        Some(limit) if asked > limit => Err(ProbeError::Frequency { asked, limit }),
        _ => Ok(()),
    }
}

/// The capabilities that descry needs, and whether this process has them.
pub fn rights() -> Vec<Right> {
    let effective = effective_capabilities().unwrap_or_default();
    let has = |number: u32| effective >> number & 1 == 1;
    let held = |&(name, number): &(&'static str, u32)| {
        let stand_in = matches!(name, "CAP_BPF" | "CAP_PERFMON") && has(CAP_SYS_ADMIN);
        Right { name, held: has(number) || stand_in }
    };
    NEEDED.iter().map(held).collect()
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Tries every hook. Needs the rights for most: without them they are said to be missing.
pub fn hooks() -> Vec<Hook> {
    let program = |kind| is_program_supported(kind).unwrap_or(false);
    let rights = "run as root, or with CAP_BPF and CAP_PERFMON";
    let newer = "use a newer kernel";
    let mut hooks = vec![
        Hook {
            name: "btf",
            available: Path::new(btf::PATH).exists(),
            needed_for: "finding the kernel's own data",
            without_it: "nothing works",
            remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        },
        Hook {
            name: "perf_event programs",
            available: program(ProgramType::PerfEvent),
            needed_for: "CPU profiles",
            without_it: "no CPU profiles",
            remedy: rights,
        },
        Hook {
            name: "hardware cycles",
            available: Path::new("/sys/bus/event_source/devices/cpu/events/cpu-cycles").exists(),
            needed_for: "sampling by CPU cycles, also where interrupts are off",
            without_it: "sampling by cpu-clock: time in code that runs with interrupts off is credited to where they go on",
            remedy: "run on a machine (or a virtual one) that shows its PMU",
        },
        Hook {
            name: "raw tracepoints",
            available: program(ProgramType::RawTracePoint),
            needed_for: "following exec, fork, exit and renames",
            without_it: "nothing works",
            remedy: rights,
        },
        Hook {
            name: "BTF tracepoints",
            available: program(ProgramType::Tracing),
            needed_for: "time off the CPU (the scheduler's tracepoints and its list of tasks), and system calls",
            without_it: "no `profile --mode off-cpu` or `wall`, no `syscalls`",
            remedy: rights,
        },
        Hook {
            name: "ring buffer",
            available: is_map_supported(aya::maps::MapType::RingBuf).unwrap_or(false),
            needed_for: "events to userspace",
            without_it: "nothing works",
            remedy: newer,
        },
        Hook {
            name: "bpf_loop",
            available: has_loop(),
            needed_for: "unwinding in one loop (Linux 5.17)",
            without_it: "unwinding in calls of 8 frames: 10 to 40 per cent slower",
            remedy: newer,
        },
        Hook {
            name: "socket tracepoints",
            available: has_socket_tracepoints(),
            needed_for: "requests, without cost for calls that touch no socket (Linux 6.3)",
            without_it: "`requests` looks at the end of every system call, and sees nothing of io_uring",
            remedy: newer,
        },
        Hook {
            name: "bpf_task_pt_regs",
            available: is_helper_supported(ProgramType::PerfEvent, bpf_func_id::BPF_FUNC_task_pt_regs)
                .unwrap_or(false),
            needed_for: "user stacks of samples in the kernel (Linux 5.15)",
            without_it: "nothing works",
            remedy: newer,
        },
        Hook {
            name: "kernel symbols",
            available: kernel_symbols(),
            needed_for: "names of kernel functions",
            without_it: "kernel frames show addresses",
            remedy: "set /proc/sys/kernel/kptr_restrict to 0 or 1, and run with CAP_SYSLOG",
        },
    ];
    for hook in &mut hooks {
        if hook.available {
            hook.remedy = "";
        }
    }
    hooks
}

/// Whether the kernel tells of what moves on sockets.
fn has_socket_tracepoints() -> bool {
    !Feature::SocketTracepoints.is_hidden()
        && Btf::of_kernel().is_ok_and(|btf| btf.arguments("btf_trace_sock_send_length").is_some())
}

/// Whether /proc/kallsyms shows addresses to this process. The first symbols may lie at 0: offsets of per-CPU data.
pub(crate) fn kernel_symbols() -> bool {
    use std::io::{BufRead, BufReader};
    const LINES: usize = 64;
    let Ok(file) = std::fs::File::open("/proc/kallsyms") else { return false };
    let lines = BufReader::new(file).lines().take(LINES).map_while(Result::ok);
    let is_shown = |line: String| {
        line.split_whitespace().next().is_some_and(|address| address.bytes().any(|b| b != b'0'))
    };
    lines.into_iter().any(is_shown)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn reads_releases() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(version("unknown"), None);
    }
}
