//! Samples and waits to the window that is open.

use descry_abi::offcpu::WaitSum;
use descry_aggregate::{Aggregator, Dimensions, Limits};
use descry_decode::ids::{Comm, StackId, Tid};
use descry_decode::{Sample, Wait};
use descry_probe::Session;
use descry_process::object::ObjectId;
use rustc_hash::FxHashMap;

use crate::failure::Failure;
use crate::measure::{HeldObject, Tracker};
use crate::profile::{WaitCounters, WaitRecorder, Wants};

/// What is kept of a window at most: a part of what one profile of a command may keep, because the agent holds two of
/// them, and is there for good.
const LIMITS: Limits = Limits { stacks: 1 << 16, processes: 1 << 13, timestamps: 1 << 18 };

/// An empty window of samples.
pub fn empty() -> Aggregator {
    Aggregator::new(Dimensions { threads: true, cpus: true, timestamps: true }, LIMITS)
}

/// The waits of a window. Stacks that the kernel side has sent outlive their window: it sends each of them once.
pub struct Waits {
    aggregator: Aggregator,
    recorder: WaitRecorder,
    /// Binaries of the stacks that are known.
    held: FxHashMap<ObjectId, HeldObject>,
    has_asked: bool,
}

impl Waits {
    /// None yet.
    pub fn new() -> Self {
        Self {
            aggregator: Aggregator::new(Dimensions { threads: true, ..Dimensions::default() }, LIMITS),
            recorder: WaitRecorder::default(),
            held: FxHashMap::default(),
            has_asked: false,
        }
    }

    /// A stack that waits will refer to.
    pub fn stack(&mut self, tracker: &mut Tracker, id: StackId, sample: &Sample) {
        self.recorder.stack(tracker, &mut self.aggregator, id, sample);
    }

    /// One wait.
    pub fn wait(&mut self, tracker: &mut Tracker, wait: &Wait) {
        let sum = WaitSum { count: 1, total: wait.duration, longest: wait.duration };
        self.recorder.add(tracker, &mut self.aggregator, &wait.of, &sum);
    }

    /// A thread has this name from now on.
    pub fn name(&mut self, tid: Tid, comm: Comm) {
        self.recorder.name(tid, comm);
    }

    /// The name of a thread, if it is known.
    pub fn thread(&self, tid: Tid) -> Comm {
        self.recorder.thread(tid)
    }

    /// The ring was drained: takes sums out of the kernel where there are many. `wants` says whose.
    pub fn drained(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        wants: Wants<'_>,
    ) -> Result<(), Failure> {
        self.recorder.drained(session, tracker, &mut self.aggregator, wants)
    }

    /// Asks the kernel side for everything until now; true: it is there.
    pub fn is_complete(&mut self, session: &mut Session) -> Result<bool, Failure> {
        if !self.has_asked {
            self.recorder.turn(session)?;
            self.has_asked = true;
            return Ok(false);
        }
        Ok(!self.recorder.is_turning())
    }

    /// No waits are measured any more.
    pub fn time_is_up(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.recorder.time_is_up(session)
    }

    /// Takes what is left.
    pub fn ending(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        wants: Wants<'_>,
    ) -> Result<(), Failure> {
        self.recorder.ending(session, tracker, &mut self.aggregator, wants)
    }

    /// Ends the window. `held` are the binaries of what was seen in it; those of stacks from before are added.
    pub fn cut(
        &mut self,
        session: &mut Session,
        held: &mut FxHashMap<ObjectId, HeldObject>,
    ) -> Result<Aggregator, Failure> {
        self.has_asked = false;
        for (id, object) in held.iter() {
            self.held.entry(*id).or_insert_with(|| object.clone());
        }
        for (id, object) in &self.held {
            held.entry(*id).or_insert_with(|| object.clone());
        }
        let window = self.aggregator.cut();
        if window.is_nearly_full() {
            // Rare: waits that are under way lose their stack, which is counted.
            *self = Self { recorder: std::mem::take(&mut self.recorder), ..Self::new() };
            self.recorder.forget_stacks(session)?;
        }
        Ok(window)
    }

    /// What became of waits so far.
    pub fn counters(&self) -> WaitCounters {
        self.recorder.counters()
    }
}
