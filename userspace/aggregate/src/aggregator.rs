//! Interning and adding up.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use descry_decode::ids::{BootNanos, Comm, Cpu, Tgid, Tid};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::code::CodeRef;
use crate::reason::Circumstances;

/// What keeps samples apart, beside process and stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dimensions {
    /// The thread.
    pub threads: bool,
    /// The CPU.
    pub cpus: bool,
    /// Whether the time of each sample is kept.
    pub timestamps: bool,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Different stacks at most; about 4 B a frame and 60 B each. Samples of further ones are kept without frames.
    pub stacks: usize,
    /// Processes at most, by pid and name. Samples of further ones are added up as those of one process named
    /// [`OTHERS`].
    pub processes: usize,
    /// Times at most; 8 B each. Further samples are kept without a time.
    pub timestamps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stacks: 1 << 18, processes: 1 << 16, timestamps: 1 << 21 }
    }
}

/// The process that stands for those that were one too many.
pub const OTHERS: &str = "[others]";

/// What was given up to stay within the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples whose stack was one too many.
    pub stacks_over_limit: u64,
    /// Samples whose process was one too many.
    pub processes_over_limit: u64,
    /// Samples whose time was one too many.
    pub timestamps_over_limit: u64,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Observation<'a> {
    /// Process.
    pub tgid: Tgid,
    /// Name of the process: a process that runs another program counts as another one.
    pub process_name: &'a Arc<str>,
    /// Thread.
    pub tid: Tid,
    /// Name of the thread.
    pub comm: Comm,
    /// CPU.
    pub cpu: Cpu,
    /// When.
    pub time: BootNanos,
    /// Time that it stands for (ns).
    pub weight: u64,
    /// Leaf first.
    pub stack: &'a [CodeRef],
    /// Whether frames are missing at the root's end.
    pub truncated: bool,
}

/// A stack that an [`Aggregator`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackNumber(pub(crate) u32);

/// Equal waits of one thread.
#[derive(Clone, Debug)]
pub struct Waits<'a> {
    /// Process.
    pub tgid: Tgid,
    /// Name of the process.
    pub process_name: &'a Arc<str>,
    /// Thread.
    pub tid: Tid,
    /// Name of the thread.
    pub comm: Comm,
    /// The stack with which it left its CPU; see [`Aggregator::stack`].
    pub stack: StackNumber,
    /// The stack of the thread that woke it, and words for that thread.
    pub waker: Option<(StackNumber, &'a str)>,
    /// What the kernel side told of them.
    pub circumstances: Circumstances,
    /// How many.
    pub count: u64,
    /// How long together (ns).
    pub total: u64,
    /// The longest (ns).
    pub longest: u64,
}

/// A thread's time on a CPU, as the scheduler counts it.
#[derive(Clone, Debug)]
pub(crate) struct OnCpu {
    pub process: u32,
    pub comm: Comm,
    pub time: u64,
}

/// Stands for time on a CPU of a thread that was never sampled.
const NOT_SAMPLED: &str = "[on CPU, not sampled]";
/// Stands for the thread that woke another, where it did so because an interrupt came.
const BY_INTERRUPT: &str = "[woken by an interrupt]";

/// What keeps waits apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WaitKey {
    pub circumstances: Circumstances,
    /// Stack of the waker, and the code that names it.
    pub waker: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub process: u32,
    pub thread: Option<(Tid, Comm)>,
    pub cpu: Option<Cpu>,
    pub stack: u32,
    pub timed: bool,
    pub wait: Option<WaitKey>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Total {
    pub count: u64,
    pub weight: u64,
    pub longest: u64,
    pub times: Vec<BootNanos>,
}

/// A table that gives equal values equal numbers. It keeps each value once.
#[derive(Clone, Debug)]
pub(crate) struct Interner<T> {
    pub values: Vec<T>,
    /// Hash of a value to the numbers of the values that have it.
    numbers: FxHashMap<u64, Vec<u32>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: FxHashMap::default() }
    }
}

impl<T> Interner<T> {
    /// The number of the value that equals `value`, made from it if there is none and fewer than `limit`.
    pub fn intern<Q>(&mut self, value: &Q, limit: usize, make: impl FnOnce() -> T) -> Option<u32>
    where
        Q: Hash + ?Sized,
        T: std::borrow::Borrow<Q>,
        Q: Eq,
    {
        let numbers = self.numbers.entry(FxBuildHasher.hash_one(value)).or_default();
        let known = numbers
            .iter()
            .copied()
            .find(|number| self.values.get(*number as usize).is_some_and(|known| known.borrow() == value));
        if known.is_some() || self.values.len() >= limit {
            return known;
        }
        let number = self.values.len() as u32;
        self.values.push(make());
        numbers.push(number);
        Some(number)
    }
}

/// Adds up samples.
#[derive(Debug)]
pub struct Aggregator {
    dimensions: Dimensions,
    limits: Limits,
    pub(crate) processes: Interner<(Tgid, Arc<str>)>,
    pub(crate) code: Interner<CodeRef>,
    /// Numbers of code references, leaf first; whether frames are missing.
    pub(crate) stacks: Interner<(Box<[u32]>, bool)>,
    pub(crate) totals: FxHashMap<Key, Total>,
    /// Threads whose time on a CPU is known.
    pub(crate) on_cpu: FxHashMap<(Tgid, Tid), OnCpu>,
    /// The code that says so where an interrupt woke a thread.
    pub(crate) interrupt: Option<u32>,
    scratch: Vec<u32>,
    times: usize,
    counters: Counters,
}

/// Code references at most: numbers are 32 bits wide, and stacks are bounded.
const MAX_CODE: usize = u32::MAX as usize;

impl Aggregator {
    /// An empty one.
    pub fn new(dimensions: Dimensions, limits: Limits) -> Self {
        Self {
            dimensions,
            limits,
            processes: Interner::default(),
            code: Interner::default(),
            stacks: Interner::default(),
            totals: FxHashMap::default(),
            on_cpu: FxHashMap::default(),
            interrupt: None,
            scratch: Vec::new(),
            times: 0,
            counters: Counters::default(),
        }
    }

    /// Adds a sample.
    pub fn add(&mut self, observation: &Observation<'_>) {
        let process = self.intern_process(observation.tgid, observation.process_name);
        let stack = self.intern_stack(observation.stack, observation.truncated);
        let timed = self.dimensions.timestamps && self.times < self.limits.timestamps;
        if self.dimensions.timestamps && !timed {
            self.counters.timestamps_over_limit += 1;
        }
        let key = Key {
            process,
            thread: self.dimensions.threads.then_some((observation.tid, observation.comm)),
            cpu: self.dimensions.cpus.then_some(observation.cpu),
            stack,
            timed,
            wait: None,
        };
        let total = self.totals.entry(key).or_default();
        total.count += 1;
        total.weight = total.weight.saturating_add(observation.weight);
        if timed {
            total.times.push(observation.time);
            self.times += 1;
        }
    }

    /// Keeps a stack, of which waits are going to be added.
    pub fn stack(&mut self, stack: &[CodeRef], truncated: bool) -> StackNumber {
        StackNumber(self.intern_stack(stack, truncated))
    }

    /// Adds waits.
    pub fn add_waits(&mut self, waits: &Waits<'_>) {
        let process = self.intern_process(waits.tgid, waits.process_name);
        let waker = waits.waker.and_then(|(stack, words)| {
            self.interrupt = self.label(BY_INTERRUPT);
            Some((stack.0, self.label(words)?))
        });
        let key = Key {
            process,
            thread: self.dimensions.threads.then_some((waits.tid, waits.comm)),
            cpu: None,
            stack: waits.stack.0,
            timed: false,
            wait: Some(WaitKey { circumstances: waits.circumstances, waker }),
        };
        let total = self.totals.entry(key).or_default();
        total.count += waits.count;
        total.weight = total.weight.saturating_add(waits.total);
        total.longest = total.longest.max(waits.longest);
    }

    fn label(&mut self, words: &str) -> Option<u32> {
        let label = CodeRef::Label(words.into());
        self.code.intern(&label, MAX_CODE, || label.clone())
    }

    /// Adds a thread's time on a CPU (ns): the samples of this thread are made to weigh as much together. Only where threads
    /// are kept apart.
    pub fn add_on_cpu(&mut self, tgid: Tgid, process_name: &Arc<str>, tid: Tid, comm: Comm, time: u64) {
        let process = self.intern_process(tgid, process_name);
        let known = self.on_cpu.entry((tgid, tid)).or_insert(OnCpu { process, comm, time: 0 });
        known.time = known.time.saturating_add(time);
    }

    /// Makes the samples of each thread weigh its time on a CPU, where that is known. Comes when all is added, and before
    /// [`Aggregator::code`] is asked: a thread that was not sampled gets a stack that says so.
    pub fn weigh_by_time(&mut self) {
        let on_cpu = std::mem::take(&mut self.on_cpu);
        let processes = &self.processes.values;
        let thread = |key: &Key| {
            let (tgid, _) = processes.get(key.process as usize)?;
            Some((*tgid, key.thread.filter(|_| key.wait.is_none())?.0))
        };
        let mut sampled: FxHashMap<(Tgid, Tid), u64> = FxHashMap::default();
        for (key, total) in &self.totals {
            if let Some(thread) = thread(key) {
                *sampled.entry(thread).or_default() += total.weight;
            }
        }
        for (key, total) in &mut self.totals {
            let Some(thread) = thread(key) else { continue };
            let (Some(known), Some(sampled)) = (on_cpu.get(&thread), sampled.get(&thread)) else { continue };
            if known.time > 0 && *sampled > 0 {
                let weight = u128::from(total.weight) * u128::from(known.time) / u128::from(*sampled);
                total.weight = u64::try_from(weight).unwrap_or(u64::MAX);
            }
        }
        if on_cpu.is_empty() {
            return;
        }
        let stack = self.intern_stack(&[CodeRef::Label(NOT_SAMPLED.into())], false);
        for ((tgid, tid), known) in on_cpu {
            if known.time == 0 || sampled.contains_key(&(tgid, tid)) {
                continue;
            }
            let thread = Some((tid, known.comm));
            let key = Key { process: known.process, thread, cpu: None, stack, timed: false, wait: None };
            let total = self.totals.entry(key).or_default();
            total.count += 1;
            total.weight = total.weight.saturating_add(known.time);
        }
    }

    fn intern_process(&mut self, tgid: Tgid, name: &Arc<str>) -> u32 {
        let process = (tgid, Arc::clone(name));
        if let Some(number) = self.processes.intern(&process, self.limits.processes, || process.clone()) {
            return number;
        }
        self.counters.processes_over_limit += 1;
        let others = (Tgid(0), Arc::from(OTHERS));
        self.processes.intern(&others, usize::MAX, || others.clone()).unwrap_or_default()
    }

    fn intern_stack(&mut self, stack: &[CodeRef], truncated: bool) -> u32 {
        let full = self.stacks.values.len() >= self.limits.stacks;
        self.scratch.clear();
        for code in stack {
            // With the stacks full, a new place in code is a place in a stack that is not kept.
            let limit = if full { self.code.values.len() } else { MAX_CODE };
            match self.code.intern(code, limit, || code.clone()) {
                Some(number) => self.scratch.push(number),
                None => return self.overflow(),
            }
        }
        let key = (self.scratch.as_slice().into(), truncated);
        match self.stacks.intern(&key, self.limits.stacks, || key.clone()) {
            Some(number) => number,
            None => self.overflow(),
        }
    }

    /// The stack that stands for all that were one too many: no frames, and cut.
    fn overflow(&mut self) -> u32 {
        self.counters.stacks_over_limit += 1;
        let key: (Box<[u32]>, bool) = (Box::default(), true);
        self.stacks.intern(&key, usize::MAX, || key.clone()).unwrap_or_default()
    }

    /// Ends what was added up so far and gives it. Stacks that were kept go on being kept, under their numbers.
    #[must_use]
    pub fn cut(&mut self) -> Self {
        Self {
            dimensions: self.dimensions,
            limits: self.limits,
            processes: std::mem::take(&mut self.processes),
            code: self.code.clone(),
            stacks: self.stacks.clone(),
            totals: std::mem::take(&mut self.totals),
            on_cpu: std::mem::take(&mut self.on_cpu),
            interrupt: self.interrupt,
            scratch: Vec::new(),
            times: std::mem::take(&mut self.times),
            counters: std::mem::take(&mut self.counters),
        }
    }

    /// Whether so many stacks are kept that there will soon be room for no more: a quarter is left.
    pub fn is_nearly_full(&self) -> bool {
        self.stacks.values.len() >= self.limits.stacks / 4 * 3
    }

    /// All places in code, in the order in which [`Aggregator::finish`] wants to be told of them.
    pub fn code(&self) -> &[CodeRef] {
        &self.code.values
    }

    /// All processes, in the order in which [`Aggregator::finish`] wants to be told of them.
    pub fn processes(&self) -> &[(Tgid, Arc<str>)] {
        &self.processes.values
    }

    /// What was given up.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
