//! Waits to the aggregator: which stack is which, what each thread is called, and what was still waited for at the end.

use std::sync::Arc;

use descry_abi::counter::Counter;
use descry_abi::limits::MAX_WAIT_SUMS;
use descry_abi::offcpu::{TaskTimes, WaitKey, WaitSum};
use descry_aggregate::{Aggregator, Circumstances, StackNumber, Waits};
use descry_decode::ids::{BootNanos, Comm, StackId, Tid};
use descry_decode::{Sample, WaitKind, WaitOf, WaitState, wait_of};
use descry_probe::Session;
use rustc_hash::FxHashMap;

use crate::counted::counters;
use crate::failure::Failure;
use crate::measure::Tracker;

/// Stacks known by their ids at most (about 60 B each); most are as many as the kernel side sends.
const MAX_STACKS: usize = 1 << 19;
/// Threads known by name at most (about 40 B each); others have the name of their process.
const MAX_THREADS: usize = 1 << 17;

counters! {
    /// Counters of this stage.
    WaitCounters = "descry.waits." {
        /// Waits that were added up.
        waits,
        /// Of those, waits whose stack did not arrive.
        without_stack,
        /// Stacks that were one too many; their waits are among those without.
        stacks_over_limit,
        /// Sums of waits that are none.
        malformed,
    }
}

/// Whose waits are wanted.
pub type Wants<'a> = &'a mut dyn FnMut(&mut Tracker, &WaitOf) -> bool;

/// A stack that waits refer to.
struct Known {
    stack: StackNumber,
    process: Arc<str>,
    kernel_thread: bool,
}

/// Takes waits.
#[derive(Default)]
pub struct WaitRecorder {
    stacks: FxHashMap<StackId, Known>,
    threads: FxHashMap<Tid, Comm>,
    /// Sums that the kernel side had begun when those of past epochs were taken out.
    taken_at: u64,
    /// Whether sums of a past epoch are to be taken out.
    has_past: bool,
    ended: Option<BootNanos>,
    counters: WaitCounters,
}

impl WaitRecorder {
    /// Counters so far.
    pub fn counters(&self) -> WaitCounters {
        self.counters
    }

    /// A thread has this name from now on.
    pub fn name(&mut self, tid: Tid, comm: Comm) {
        if self.threads.len() < MAX_THREADS || self.threads.contains_key(&tid) {
            self.threads.insert(tid, comm);
        }
    }

    /// The name of a thread, if it is known.
    pub fn thread(&self, tid: Tid) -> Comm {
        self.threads.get(&tid).copied().unwrap_or_default()
    }

    /// A stack that waits are going to refer to.
    pub fn stack(
        &mut self,
        tracker: &mut Tracker,
        aggregator: &mut Aggregator,
        id: StackId,
        sample: &Sample,
    ) {
        if self.stacks.len() >= MAX_STACKS {
            self.counters.stacks_over_limit += 1;
            return;
        }
        let located = tracker.locate(sample);
        let stack = aggregator.stack(located.code, located.truncated);
        let known = Known { stack, process: located.process, kernel_thread: sample.kernel_thread };
        self.stacks.insert(id, known);
    }

    /// Adds equal waits.
    pub fn add(&mut self, tracker: &mut Tracker, aggregator: &mut Aggregator, of: &WaitOf, sum: &WaitSum) {
        let known = of.stack.and_then(|id| self.stacks.get(&id));
        let comm = self.thread(of.tid);
        let process_name = match known {
            Some(known) => Arc::clone(&known.process),
            None => tracker.process_name(of.tgid, comm),
        };
        if of.kind == WaitKind::OnCpu {
            aggregator.add_on_cpu(of.tgid, &process_name, of.tid, comm, sum.total);
            return;
        }
        self.counters.waits += sum.count;
        let stack = match known {
            Some(known) => known.stack,
            // A thread that never ran has none.
            None if of.state == WaitState::New => aggregator.stack(&[], false),
            None => {
                self.counters.without_stack += sum.count;
                aggregator.stack(&[], true)
            }
        };
        let waker = of.waker.and_then(|id| self.stacks.get(&id));
        let waker = waker.map(|waker| (waker.stack, format!("[woken by {}]", waker.process)));
        aggregator.add_waits(&Waits {
            tgid: of.tgid,
            process_name: &process_name,
            tid: of.tid,
            comm,
            stack,
            waker: waker.as_ref().map(|(stack, words)| (*stack, &**words)),
            circumstances: Circumstances {
                kind: of.kind,
                state: of.state,
                file: of.file,
                syscall: of.syscall,
                kernel_thread: known.is_some_and(|known| known.kernel_thread),
            },
            count: sum.count,
            total: sum.total,
            longest: sum.longest,
        });
    }

    /// Takes sums out of the kernel before they fill its map: first a new epoch begins, and at the next call no program can
    /// still be adding to those of the last one.
    pub fn drained(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        aggregator: &mut Aggregator,
        wants: Wants<'_>,
    ) -> Result<(), Failure> {
        if self.ended.is_some() {
            return Ok(());
        }
        if std::mem::take(&mut self.has_past) {
            let sums = session.take_waits(false)?;
            self.add_sums(tracker, aggregator, &sums, wants);
            return Ok(());
        }
        let begun = session.counter(Counter::WaitSums)?;
        if begun - self.taken_at > u64::from(MAX_WAIT_SUMS) / 2 {
            self.taken_at = begun;
            self.has_past = true;
            session.next_wait_epoch()?;
        }
        Ok(())
    }

    /// Asks for all that was added up until now: the drain after the next one has it.
    pub fn turn(&mut self, session: &mut Session) -> Result<(), Failure> {
        if !self.has_past {
            self.taken_at = session.counter(Counter::WaitSums)?;
            self.has_past = true;
            session.next_wait_epoch()?;
        }
        Ok(())
    }

    /// Whether what was asked for is still to come.
    pub fn is_turning(&self) -> bool {
        self.has_past
    }

    /// Forgets the stacks that are known, and has them sent again.
    pub fn forget_stacks(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.stacks.clear();
        Ok(session.send_stacks_again()?)
    }

    /// Ends the measurement.
    pub fn time_is_up(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.ended = Some(session.stop_off_cpu()?);
        Ok(())
    }

    /// Takes what is left: the sums, and what every thread was doing at the end.
    pub fn ending(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        aggregator: &mut Aggregator,
        wants: Wants<'_>,
    ) -> Result<(), Failure> {
        let Some(end) = self.ended else { return Ok(()) };
        let mut sums = session.take_waits(true)?;
        for times in session.task_times()? {
            sums.extend(open_at(&times, end.0));
        }
        self.add_sums(tracker, aggregator, &sums, wants);
        Ok(())
    }

    fn add_sums(
        &mut self,
        tracker: &mut Tracker,
        aggregator: &mut Aggregator,
        sums: &[(WaitKey, WaitSum)],
        wants: Wants<'_>,
    ) {
        for (key, sum) in sums {
            match wait_of(key) {
                Ok(of) if wants(tracker, &of) => self.add(tracker, aggregator, &of, sum),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a sum of waits is none");
                    self.counters.malformed += 1;
                }
            }
        }
    }
}

/// A thread's time on a CPU, and the parts of the wait that it is in at `end`.
fn open_at(times: &TaskTimes, end: u64) -> Vec<(WaitKey, WaitSum)> {
    let key = WaitKey {
        stack: times.stack,
        waker: 0,
        tgid: times.tgid,
        tid: times.tid,
        syscall: times.syscall,
        kind: WaitKind::RunQueue as u8,
        state: times.state,
        file: times.file,
        epoch: 0,
    };
    let mut sums = Vec::new();
    let mut add = |kind: WaitKind, duration: u64| {
        if duration > 0 {
            let sum = WaitSum { count: 1, total: duration, longest: duration };
            sums.push((WaitKey { kind: kind as u8, ..key }, sum));
        }
    };
    if times.out == 0 {
        let since = if times.on == 0 { 0 } else { end.saturating_sub(times.on) };
        add(WaitKind::OnCpu, times.cpu.saturating_add(since));
        return sums;
    }
    add(WaitKind::OnCpu, times.cpu);
    let runnable =
        if times.runnable == 0 { end } else { times.runnable.clamp(times.out, end.max(times.out)) };
    add(WaitKind::Blocked, runnable.saturating_sub(times.out));
    add(WaitKind::RunQueue, end.saturating_sub(runnable));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (kind, how long) of what is open at 100.
    fn check(times: TaskTimes, expected: &[(WaitKind, u64)]) {
        let sums = open_at(&times, 100);
        let found: Vec<_> = sums.iter().map(|(key, sum)| (key.kind, sum.total)).collect();
        let expected: Vec<_> = expected.iter().map(|(kind, time)| (*kind as u8, *time)).collect();
        assert_eq!(found, expected, "{times:?}");
    }

    #[test]
    fn what_is_open_at_the_end_is_counted() {
        let times = |out, runnable, on, cpu| TaskTimes { out, runnable, on, cpu, ..TaskTimes::default() };
        check(times(0, 0, 40, 5), &[(WaitKind::OnCpu, 65)]);
        check(times(30, 0, 0, 0), &[(WaitKind::Blocked, 70)]);
        check(
            times(30, 80, 0, 7),
            &[(WaitKind::OnCpu, 7), (WaitKind::Blocked, 50), (WaitKind::RunQueue, 20)],
        );
        check(times(30, 30, 0, 0), &[(WaitKind::RunQueue, 70)]);
        check(times(101, 0, 0, 0), &[]);
        check(times(0, 0, 0, 0), &[]);
    }
}
