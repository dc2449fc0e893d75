//! What the kernel side counted, by process: taken out of it when a process has ended, else when the measurement ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use descry_abi::histogram::Histogram;
use descry_abi::syscall::{CallKey, ThreadCall};
use descry_aggregate::histogram;
use descry_aggregate::syscalls::{OpenSyscall, ProcessName, Syscalls};
use descry_decode::Event;
use descry_decode::ids::{Comm, SyscallNumber, Tgid, Tid};
use descry_decode::syscall;
use descry_probe::{Session, SyscallCount};
use descry_process::target as find;
use nix::time::{ClockId, clock_gettime};
use rustc_hash::{FxHashMap, FxHashSet};

use super::slow::SlowCalls;
use crate::counted::counters;
use crate::failure::Failure;
use crate::measure::{Consumer, Tracker};

/// Between two looks at the rows of processes that have ended: each goes over all rows.
const SWEEP: Duration = Duration::from_millis(500);
/// Calls in flight that are kept at most, those that began first.
const MAX_OPEN: usize = 10_000;

counters! {
    /// Counters of this stage.
    RecorderCounters = "descry.syscalls." {
        /// Slow calls that were not kept because there were too many; they are in their rows.
        slow_over_limit,
        /// Calls in flight at the end that were not kept because there were too many.
        open_over_limit,
    }
}

/// Adds up.
pub struct Recorder {
    /// The sums.
    pub calls: Syscalls,
    /// Calls that took long.
    pub slow: SlowCalls,
    /// Calls that had not returned at the end, those that took longest first.
    pub open: Vec<OpenSyscall>,
    /// Counters.
    pub counters: RecorderCounters,
    /// Processes that were named.
    targets: Vec<Tgid>,
    /// Rows that stay with living processes, as they were when they were told last. As many as there are rows, at most.
    told: FxHashMap<u32, (CallKey, Box<Histogram>)>,
    /// Processes that ended since the last sweep, with their last names.
    ended: FxHashMap<Tgid, Comm>,
    swept: Instant,
    began: Instant,
}

impl Recorder {
    /// An empty recording of these processes, and of others that join them.
    pub fn new(targets: &[Tgid]) -> Self {
        Self {
            calls: Syscalls::default(),
            slow: SlowCalls::default(),
            open: Vec::new(),
            counters: RecorderCounters::default(),
            targets: targets.to_vec(),
            told: FxHashMap::default(),
            ended: FxHashMap::default(),
            swept: Instant::now(),
            began: Instant::now(),
        }
    }

    /// Ends a window: what was counted until now. What goes on is counted for the next one.
    pub fn cut(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<Syscalls, Failure> {
        self.take(session, tracker, |_| true)?;
        self.ended.clear();
        Ok(std::mem::take(&mut self.calls))
    }

    /// Takes the rows of the processes for which `wanted` says so.
    fn take(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        wanted: impl Fn(Tgid) -> bool,
    ) -> Result<(), Failure> {
        let mut names: FxHashMap<Tgid, ProcessName> = FxHashMap::default();
        let (calls, ended, told) = (&mut self.calls, &self.ended, &mut self.told);
        let mut name = |tgid: Tgid| {
            let name = || process_name(tracker, tgid, ended.get(&tgid).copied());
            names.entry(tgid).or_insert_with(name).clone()
        };
        let lives = |tgid: Tgid| !ended.contains_key(&tgid) && find::tids(tgid).is_ok();
        session.take_syscalls(wanted, lives, |count| match count {
            SyscallCount::Row { row, call, stays, parts } => {
                let durations = since_told(told, row, call, stays, parts);
                if durations.count > 0 {
                    calls.returned(&name(Tgid(call.tgid)), SyscallNumber(call.number), &durations);
                }
            }
            SyscallCount::Returned(key, durations) => {
                calls.returned(&name(Tgid(key.tgid)), SyscallNumber(key.number), durations);
            }
            SyscallCount::Failed(key, count) => {
                calls.failed(&name(Tgid(key.call.tgid)), SyscallNumber(key.call.number), key.errno, count);
            }
            SyscallCount::Unreturned(key, unreturned) => {
                calls.unreturned(&name(Tgid(key.tgid)), SyscallNumber(key.number), unreturned);
            }
            SyscallCount::Others { .. } => {}
        })?;
        Ok(())
    }

    /// The calls that threads of living processes are in.
    fn look_at_threads(&mut self, session: &Session, tracker: &mut Tracker) -> Result<(), Failure> {
        let targets = self.targets.iter().flat_map(|tgid| {
            // A process that ended has none.
            let tids = find::tids(*tgid).unwrap_or_default();
            tids.into_iter().filter_map(|tid| Some((*tgid, tid, find::current_call(*tgid, tid)?)))
        });
        // First what threads do, then which of them have done anything since the beginning.
        let blocked: Vec<(Tgid, Tid, u32)> = targets.collect();
        let seen = session.syscall_threads()?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
        let now = (now.tv_sec() * 1_000_000_000 + now.tv_nsec()).unsigned_abs();
        let since_began = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let tids: FxHashSet<u32> = seen.iter().map(|call| call.tid).collect();
        let known = seen.iter().filter(|call| call.start != 0).map(|call| {
            let ThreadCall { start, key, tid, .. } = *call;
            (Tgid(key.tgid), Tid(tid), SyscallNumber(key.number), now.saturating_sub(start), false)
        });
        let before = blocked
            .into_iter()
            .filter(|(_, tid, _)| !tids.contains(&tid.0))
            .map(|(tgid, tid, number)| (tgid, tid, SyscallNumber(number), since_began, true));
        let mut open: Vec<_> = known.chain(before).collect();
        open.sort_by_key(|(tgid, tid, _, elapsed, _)| (std::cmp::Reverse(*elapsed), *tgid, *tid));
        self.counters.open_over_limit += open.len().saturating_sub(MAX_OPEN) as u64;
        open.truncate(MAX_OPEN);
        self.open.extend(open.into_iter().map(|(tgid, tid, number, elapsed, begun_before)| {
            let name = syscall::name(number);
            OpenSyscall {
                process: process_name(tracker, tgid, None),
                tid,
                blocking: syscall::is_blocking(&name),
                name,
                interface: syscall::interface(number),
                elapsed,
                begun_before,
            }
        }));
        Ok(())
    }
}

/// What was added to a row since it was told last.
fn since_told(
    told: &mut FxHashMap<u32, (CallKey, Box<Histogram>)>,
    row: u32,
    call: CallKey,
    stays: bool,
    parts: &[&Histogram],
) -> Histogram {
    let mut now = Histogram::default();
    parts.iter().for_each(|part| histogram::add(&mut now, part));
    let before = if stays { told.insert(row, (call, Box::new(now))) } else { told.remove(&row) };
    match before {
        Some((owner, before)) if owner == call => histogram::since(&now, &before),
        _ => now,
    }
}

/// The name of a process, which is read if it is not known; of one that is gone, the name that it ended under.
fn process_name(tracker: &mut Tracker, tgid: Tgid, ended: Option<Comm>) -> ProcessName {
    if ended.is_none() {
        tracker.learn(tgid);
    }
    let name = tracker.process_name(tgid, ended.unwrap_or_default());
    (tgid, name)
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        match event {
            Event::SlowCall(call) => {
                let is_kept = self.slow.add(tracker, &call);
                self.counters.slow_over_limit += u64::from(!is_kept);
            }
            Event::Exit(exit) => {
                self.ended.insert(exit.tgid, exit.comm);
            }
            _ => {}
        }
    }

    fn drained(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        if self.ended.is_empty() || self.swept.elapsed() < SWEEP {
            return Ok(());
        }
        let ended: BTreeSet<Tgid> = self.ended.keys().copied().collect();
        self.take(session, tracker, |tgid| ended.contains(&tgid))?;
        self.ended.clear();
        self.swept = Instant::now();
        Ok(())
    }

    fn ending(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        self.look_at_threads(session, tracker)?;
        self.take(session, tracker, |_| true)?;
        let calls = &mut self.calls;
        session.other_syscalls(|count| {
            if let SyscallCount::Others { blocking, durations } = count {
                calls.other(blocking, durations);
            }
        })?;
        Ok(())
    }

    fn progress(&self, _tracker: &Tracker) -> String {
        match self.slow.len() {
            0 => String::new(),
            slow => format!("{slow} slow calls"),
        }
    }
}
