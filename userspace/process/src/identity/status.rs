//! `/proc/PID/stat` and `/proc/PID/status`, proc_pid_stat(5) and proc_pid_status(5). Pure.

use std::time::Duration;

use descry_decode::ids::{BootNanos, Comm, Tgid};
use procfs::FromRead;

/// Nanoseconds of one tick: `USER_HZ` is 100 wherever the kernel talks to userspace (include/asm-generic/param.h).
const TICK_NANOS: u64 = 10_000_000;
/// Bytes of a name that the kernel keeps (`TASK_COMM_LEN` minus the zero).
const COMM_BYTES: usize = 15;

/// When a process started: ticks of 10 ms after boot. With the pid it names a process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartTime(pub u64);

impl StartTime {
    /// Time from boot to the start, rounded down to the tick.
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0.saturating_mul(TICK_NANOS))
    }

    /// Whether the process cannot have started before `time`, as far as ticks tell.
    pub(crate) fn is_at_or_after(self, time: BootNanos) -> bool {
        self.0.saturating_add(1).saturating_mul(TICK_NANOS) > time.0
    }

    /// Whether the process did start after `time`.
    pub(crate) fn is_after(self, time: BootNanos) -> bool {
        self.0.saturating_mul(TICK_NANOS) > time.0
    }
}

/// Of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name of the main thread.
    pub comm: Comm,
    /// Parent process; `None` for the first process of a pid namespace and for kernel threads' parent.
    pub parent: Option<Tgid>,
    /// When it started.
    pub start_time: StartTime,
}

impl Stat {
    /// Parses the line. The error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let stat = procfs::process::Stat::from_read(line).map_err(|error| error.to_string())?;
        let parent = u32::try_from(stat.ppid).ok().filter(|parent| *parent != 0).map(Tgid);
        Ok(Self { comm: comm(line), parent, start_time: StartTime(stat.starttime) })
    }
}

/// The bytes between the first `(` and the last `)`: a name may hold both, and need not be UTF-8.
fn comm(line: &[u8]) -> Comm {
    let open = line.iter().position(|byte| *byte == b'(').map_or(0, |at| at + 1);
    let close = line.iter().rposition(|byte| *byte == b')').unwrap_or(open);
    comm_from_bytes(line.get(open..close).unwrap_or(&[]))
}

/// A name as the kernel keeps it: the first 15 bytes.
pub(crate) fn comm_from_bytes(name: &[u8]) -> Comm {
    let mut comm = Comm::default();
    for (to, from) in comm.0.iter_mut().zip(name.iter().take(COMM_BYTES)) {
        *to = *from;
    }
    comm
}

/// Of `/proc/PID/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Effective user id.
    pub uid: Option<u32>,
    /// `NSpid`: the pid in each pid namespace, descry's first.
    pub namespaced_pids: Vec<u32>,
}

impl Status {
    /// Parses the text; what is missing is absent. By hand, since the name in it need not be UTF-8.
    pub fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Some(line) = std::str::from_utf8(line).ok() else { continue };
            let Some((name, values)) = line.split_once(':') else { continue };
            let mut numbers = values.split_ascii_whitespace().map_while(|value| value.parse().ok());
            match name {
                // Real, effective, saved, file system.
                "Uid" => status.uid = numbers.nth(1),
                "NSpid" => status.namespaced_pids = numbers.collect(),
                _ => {}
            }
        }
        status
    }
}
