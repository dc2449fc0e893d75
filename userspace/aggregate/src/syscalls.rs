//! System calls of processes, added up.
//!
//! Give it what the kernel side counted, in parts of any order; get a row for each process and call. It is pure, and
//! keeps a bounded number of rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use descry_abi::histogram::Histogram;
use descry_abi::syscall::Unreturned;
use descry_decode::ids::{RequestId, SyscallNumber, Tgid, Tid, UnitId, UnixNanos};
use descry_decode::syscall::{self, Interface};
use descry_process::Attributes;
use rustc_hash::FxHashMap;

use crate::OTHERS;
use crate::histogram::add;

/// Rows at most (1.3 KiB each). Further processes are added up as one named [`OTHERS`].
const MAX_ROWS: usize = 1 << 14;
/// Different errors of one row at most; more than the kernel knows.
const MAX_ERRORS: usize = 256;

/// A process under a name: one that runs another program counts as another one.
pub type ProcessName = (Tgid, Arc<str>);

/// Adds up.
#[derive(Debug, Default)]
pub struct Syscalls {
    rows: FxHashMap<(ProcessName, SyscallNumber), Counts>,
    /// Calls for which the kernel side had no row: work, then blocking waits.
    others: [Histogram; 2],
    over_limit: u64,
}

#[derive(Debug, Default)]
struct Counts {
    durations: Histogram,
    errors: BTreeMap<u32, u64>,
    unreturned: Unreturned,
}

impl Syscalls {
    /// Calls that returned.
    pub fn returned(&mut self, process: &ProcessName, number: SyscallNumber, durations: &Histogram) {
        let over = self.is_over(process, number);
        self.over_limit += if over { durations.count } else { 0 };
        add(&mut self.counts(process, number).durations, durations);
    }

    /// How many of the calls that returned failed so.
    pub fn failed(&mut self, process: &ProcessName, number: SyscallNumber, errno: u32, count: u64) {
        let errors = &mut self.counts(process, number).errors;
        if errors.len() < MAX_ERRORS || errors.contains_key(&errno) {
            *errors.entry(errno).or_default() += count;
        }
    }

    /// Calls that did not return.
    pub fn unreturned(&mut self, process: &ProcessName, number: SyscallNumber, calls: Unreturned) {
        let all = &mut self.counts(process, number).unreturned;
        all.count = all.count.saturating_add(calls.count);
        all.sum = all.sum.saturating_add(calls.sum);
    }

    /// Calls for which the kernel side had no row.
    pub fn other(&mut self, blocking: bool, durations: &Histogram) {
        add(&mut self.others[usize::from(blocking)], durations);
    }

    /// Calls that are in a row of [`OTHERS`] because there were too many rows.
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    fn is_over(&self, process: &ProcessName, number: SyscallNumber) -> bool {
        self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&(process.clone(), number))
    }

    fn counts(&mut self, process: &ProcessName, number: SyscallNumber) -> &mut Counts {
        let process = if self.is_over(process, number) { others() } else { process.clone() };
        self.rows.entry((process, number)).or_default()
    }

    /// The rows, those with the most time first.
    pub fn finish(self) -> Vec<SyscallRow> {
        let mut rows: Vec<SyscallRow> =
            self.rows.into_iter().map(|((process, number), counts)| row(process, number, counts)).collect();
        for (durations, blocking) in self.others.into_iter().zip([false, true]) {
            if durations.count > 0 {
                rows.push(SyscallRow {
                    process: others(),
                    name: Cow::Borrowed(OTHERS),
                    interface: Interface::NATIVE,
                    blocking,
                    durations,
                    errors: BTreeMap::new(),
                    unreturned: Unreturned::default(),
                });
            }
        }
        rows.sort_by(|a, b| {
            let key = |row: &SyscallRow| (row.process.clone(), row.name.clone(), row.interface);
            b.durations.sum.cmp(&a.durations.sum).then_with(|| key(a).cmp(&key(b)))
        });
        rows
    }
}

fn others() -> ProcessName {
    (Tgid(0), OTHERS.into())
}

fn row(process: ProcessName, number: SyscallNumber, counts: Counts) -> SyscallRow {
    let name = syscall::name(number);
    SyscallRow {
        process,
        blocking: syscall::is_blocking(&name),
        name,
        interface: syscall::interface(number),
        durations: counts.durations,
        errors: counts.errors.into_iter().map(|(errno, count)| (syscall::error_name(errno), count)).collect(),
        unreturned: counts.unreturned,
    }
}

/// One system call of one process.
#[derive(Clone, Debug)]
pub struct SyscallRow {
    /// Who called.
    pub process: ProcessName,
    /// The call.
    pub name: Cow<'static, str>,
    /// By which table of numbers.
    pub interface: Interface,
    /// Whether time in it is waiting, not work.
    pub blocking: bool,
    /// How long the calls took that returned.
    pub durations: Histogram,
    /// How many of them failed, by the error's name.
    pub errors: BTreeMap<Cow<'static, str>, u64>,
    /// Calls that did not return: their threads ended.
    pub unreturned: Unreturned,
}

/// A call that took long.
#[derive(Clone, Debug)]
pub struct SlowSyscall {
    /// Who called.
    pub process: ProcessName,
    /// The thread.
    pub tid: Tid,
    /// Its name.
    pub thread: String,
    /// When it began.
    pub start: UnixNanos,
    /// How long it took (ns).
    pub duration: u64,
    /// The call.
    pub name: Cow<'static, str>,
    /// By which table of numbers.
    pub interface: Interface,
    /// Whether it waits, not works.
    pub blocking: bool,
    /// Its arguments by name, as strace shows them; none: they are not known.
    pub arguments: Option<Vec<(&'static str, String)>>,
    /// What it returned.
    pub result: i64,
    /// The name of the error that it returned.
    pub error: Option<Cow<'static, str>>,
    /// Functions that led to the call, the caller of the call first.
    pub stack: Vec<String>,
    /// Whether functions are missing at the stack's root.
    pub truncated: bool,
    /// What carried it.
    pub unit: UnitId,
    /// The request that it was part of; 0: none is known.
    pub request: RequestId,
}

/// A call that had not returned when the measurement ended.
#[derive(Clone, Debug)]
pub struct OpenSyscall {
    /// Who called.
    pub process: ProcessName,
    /// The thread.
    pub tid: Tid,
    /// The call.
    pub name: Cow<'static, str>,
    /// By which table of numbers.
    pub interface: Interface,
    /// Whether it waits, not works.
    pub blocking: bool,
    /// How long it had taken; at least, if it began before the measurement (ns).
    pub elapsed: u64,
    /// Whether it began before the measurement.
    pub begun_before: bool,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct SyscallReport {
    /// When the measurement began.
    pub start: UnixNanos,
    /// How long it took.
    pub duration: Duration,
    /// A row a process and call, those with the most time first.
    pub rows: Vec<SyscallRow>,
    /// Calls that took long, by their times; none: they were not asked for.
    pub slow: Option<Vec<SlowSyscall>>,
    /// Calls that had not returned at the end, those that took longest first.
    pub open: Vec<OpenSyscall>,
    /// Calls that began before the measurement and returned during it: they are in no row.
    pub begun_before: u64,
    /// What was lost, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// The Resources of processes.
    pub resources: FxHashMap<ProcessName, Attributes>,
}

#[cfg(test)]
mod tests {
    use descry_abi::syscall::COMPAT;

    use super::*;
    use crate::histogram::record;

    fn durations(all: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        all.iter().for_each(|duration| record(&mut histogram, *duration));
        histogram
    }

    fn number_of(name: &str) -> SyscallNumber {
        let number = (0..500).map(SyscallNumber).find(|number| syscall::name(*number) == name);
        number.expect("a call of this name")
    }

    #[test]
    fn parts_add_up_to_rows() {
        let process: ProcessName = (Tgid(7), "nginx".into());
        let (read, futex) = (number_of("read"), number_of("futex"));
        let mut calls = Syscalls::default();
        calls.returned(&process, read, &durations(&[100, 200]));
        calls.returned(&process, read, &durations(&[300]));
        calls.failed(&process, read, 11, 2);
        calls.failed(&process, read, 11, 1);
        calls.returned(&process, SyscallNumber(1 | COMPAT), &durations(&[50]));
        calls.returned(&process, futex, &durations(&[1_000_000]));
        calls.unreturned(&process, futex, Unreturned { count: 1, sum: 77 });
        calls.other(true, &durations(&[10]));

        let rows = calls.finish();
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (&*row.process.1, &*row.name, row.durations.count, row.durations.sum, row.blocking))
            .collect();
        let expected = [
            ("nginx", "futex", 1, 1_000_000, true),
            ("nginx", "read", 3, 600, false),
            ("nginx", "exit", 1, 50, false),
            (OTHERS, OTHERS, 1, 10, true),
        ];
        assert_eq!(shown, expected);
        assert_eq!(rows[1].errors, BTreeMap::from([(Cow::Borrowed("EAGAIN"), 3)]));
        assert_eq!(rows[0].unreturned, Unreturned { count: 1, sum: 77 });
        assert_ne!(rows[2].interface, Interface::NATIVE);
    }

    #[test]
    fn processes_beyond_the_limit_are_others() {
        let mut calls = Syscalls::default();
        for pid in 0..MAX_ROWS as u32 + 2 {
            calls.returned(&(Tgid(pid + 1), "many".into()), number_of("read"), &durations(&[1]));
        }
        assert_eq!(calls.over_limit(), 2);
        let rows = calls.finish();
        assert_eq!(rows.len(), MAX_ROWS + 1);
        let others = rows.iter().find(|row| &*row.process.1 == OTHERS).expect("the others");
        assert_eq!((others.durations.count, &*others.name), (2, "read"));
    }
}
