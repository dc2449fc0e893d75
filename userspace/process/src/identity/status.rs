//! `/proc/PID/stat` and `/proc/PID/status`, proc_pid_stat(5) and proc_pid_status(5). Pure.
//!
//! By hand: the crate `procfs` panics on a line that is cut, and fails on a name that is not UTF-8.

use std::time::Duration;

use descry_decode::ids::{BootNanos, Comm, Tgid};

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
    /// All of its threads have ended: it waits for its parent to hear of it.
    pub has_ended: bool,
    /// What it has taken until now.
    pub usage: Usage,
}

/// What a process has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads outside of the kernel.
    pub user: Duration,
    /// CPU time of all its threads in the kernel.
    pub system: Duration,
    /// Its address space (bytes).
    pub virtual_bytes: u64,
    /// Its memory that is present (pages).
    pub resident_pages: u64,
}

impl Stat {
    /// Parses the line. The error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        // A name may hold parentheses and need not be UTF-8, so it ends with the last parenthesis of the line.
        let open = line.iter().position(|byte| *byte == b'(').ok_or("it has no name")?;
        let close = line.iter().rposition(|byte| *byte == b')').ok_or("its name does not end")?;
        let name = line.get(open + 1..close).ok_or("its name ends before it begins")?;
        let after = line.get(close + 1..).map(String::from_utf8_lossy).unwrap_or_default();
        // The fields are numbered from 1, and the name is the second.
        let field = |number: usize| after.split_ascii_whitespace().nth(number - 3);
        let number = |field: Option<&str>| field.and_then(|text| text.parse::<u64>().ok());
        let parent = number(field(4)).ok_or("field 4 (ppid) is no number")?;
        let start = number(field(22)).ok_or("field 22 (starttime) is no number")?;
        let parent = u32::try_from(parent).ok().filter(|parent| *parent != 0).map(Tgid);
        let count = |place| number(field(place)).unwrap_or_default();
        let time = |place| Duration::from_nanos(count(place).saturating_mul(TICK_NANOS));
        let usage =
            Usage { user: time(14), system: time(15), virtual_bytes: count(23), resident_pages: count(24) };
        // Its first thread may end before others.
        let has_ended = matches!(field(3), Some("Z" | "X")) && count(20) <= 1;
        Ok(Self { comm: comm_from_bytes(name), parent, start_time: StartTime(start), has_ended, usage })
    }
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
    /// The process that the thread is of.
    pub tgid: Option<Tgid>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// `NSpid`: the pid in each pid namespace, descry's first.
    pub namespaced_pids: Vec<u32>,
}

impl Status {
    /// Parses the text; what is missing is absent.
    pub fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Some(line) = std::str::from_utf8(line).ok() else { continue };
            let Some((name, values)) = line.split_once(':') else { continue };
            let mut numbers = values.split_ascii_whitespace().map_while(|value| value.parse().ok());
            match name {
                // Real, effective, saved, file system.
                "Uid" => status.uid = numbers.nth(1),
                "Tgid" => status.tgid = numbers.next().map(Tgid),
                "NSpid" => status.namespaced_pids = numbers.collect(),
                _ => {}
            }
        }
        status
    }
}
