//! Who runs what, kept up with the events: processes and their mappings, the unwind tables in the kernel, and for each
//! stack the places in code that it passes through. Every measuring command has one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use descry_abi::limits::MAX_USER_FRAMES;
use descry_aggregate::{CodeRef, Observation};
use descry_decode::ids::{BootNanos, Comm, FileOffset, RuntimeAddress, Tgid, Tid};
use descry_decode::{DecodeError, Event, Sample, StackCopy, UnwindEnd};
use descry_probe::{ExecEvent, MmapEvent, ProbeError, Session, SideBand, SideBandEvent};
use descry_process::identity::host::Host;
use descry_process::identity::{self, Attributes, Identity, ResourceOptions};
use descry_process::object::{Object, ObjectId};
use descry_process::table::{MappingTarget, ProcessTable, Resolved, TableLimits};
use descry_unwind::walk::{Stack, Walker};
use lru::LruCache;
use rustc_hash::{FxHashMap, FxHashSet};

use super::blocked;
use super::process_code::{ProcessCode, apply};
use super::program::Program;
use super::records::Records;
use super::symbols::{PerfMapOwner, PerfMapOwners};
use super::tables::{TableCounters, UnwindTables};
use crate::counted::{self, counters};

/// Stack copies that wait for their sample at most; the sample comes right behind on the same CPU.
const MAX_COPIES: usize = 256;
/// Processes whose new mappings wait for a first sample at most, and mappings of one.
const MAX_PENDING: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const MAX_PENDING_MAPPINGS: usize = 512;
/// Resources kept at most: as many as the aggregator keeps processes.
const MAX_RESOURCES: usize = 1 << 16;
/// Binaries held open until their symbols are read at most.
const MAX_HELD: usize = 4096;
/// Processes that are remembered as changed at most: as many as are known.
const MAX_CHANGED: usize = 8192;

/// How often, and how far apart, expected tables are asked for before the measurement begins without them.
const SETTLE_TICKS: u32 = 400;
const SETTLE_TICK: Duration = Duration::from_millis(5);

counters! {
    /// Counters of this stage.
    TrackerCounters = "descry.recorder." {
        /// Stacks that arrived: of samples one each, of waits each once.
        stacks,
        /// Of those, stacks of a program that reached their root.
        rooted,
        /// Stacks of a program that did not.
        truncated,
        /// Stacks without frames of a program: kernel threads.
        without_user_stack,
        /// Frames of all stacks.
        frames,
        /// Stacks that were walked in userspace.
        walked,
        /// Records that are no events.
        malformed,
        /// Stack copies whose sample did not come.
        copies_dropped,
        /// Mappings of processes without samples that were one too many.
        mappings_dropped,
        /// Mappings of processes that had no sample yet, forgotten for those of newer processes. Most are of processes
        /// that are not measured; those of one that is are read from /proc while it lives.
        mappings_forgotten,
        /// Binaries that could not be held open for their symbols.
        not_held,
    }
}

/// A process as its stacks begin: equal for events of one process under one name.
pub type ProcessKey = (Tgid, Arc<str>);

/// The stack of an event, and where each of its frames lies.
pub struct Located<'a> {
    /// The name of its process.
    pub process: Arc<str>,
    /// Leaf first, kernel frames before user frames; every address lies inside of the call or instruction that counts.
    pub code: &'a [CodeRef],
    /// Whether frames are missing at the root's end.
    pub truncated: bool,
}

impl Located<'_> {
    /// What the aggregator adds for the sample that this is the stack of.
    pub fn observation(&self, sample: &Sample) -> Observation<'_> {
        Observation {
            tgid: sample.tgid,
            process_name: &self.process,
            tid: sample.tid,
            comm: sample.comm,
            cpu: sample.cpu,
            time: sample.time,
            weight: sample.weight,
            stack: self.code,
            truncated: self.truncated,
        }
    }
}

/// Keeps up with processes, mappings and binaries.
pub struct Tracker {
    processes: ProcessTable,
    tables: UnwindTables,
    walker: Walker,
    copies: FxHashMap<(Tid, BootNanos), StackCopy>,
    pending: LruCache<Tgid, Vec<MmapEvent>>,
    /// Processes that were named: there are few, and no sample of them should have to wait for a table.
    expected: FxHashSet<Tgid>,
    resources: FxHashMap<ProcessKey, Attributes>,
    held: FxHashMap<ObjectId, HeldObject>,
    host: Host,
    resource_options: ResourceOptions,
    /// Processes read anew since the last sync because an address was in no mapping.
    reread: FxHashSet<Tgid>,
    names: FxHashMap<Tgid, (Comm, Arc<str>)>,
    ended: Vec<Tgid>,
    started: Vec<(Tgid, Tgid)>,
    changed: FxHashSet<Tgid>,
    scratch: Vec<CodeRef>,
    records: Records,
    counters: TrackerCounters,
}

/// A binary that is held open until its symbols are read.
#[derive(Clone)]
pub struct HeldObject {
    /// The binary.
    pub object: Arc<Object>,
    /// A process that has it mapped: its mount namespace is where debug files are looked for.
    pub tgid: Tgid,
}

/// What is left when nothing is followed any more.
pub struct Tracked {
    /// The Resource of each process that was named.
    pub resources: FxHashMap<ProcessKey, Attributes>,
    /// The binaries.
    pub held: FxHashMap<ObjectId, HeldObject>,
    /// The processes.
    pub processes: ProcessTable,
    /// Counters.
    pub counters: TrackerCounters,
    /// Counters of the unwind tables.
    pub tables: TableCounters,
}

impl Tracker {
    /// One that knows nobody yet.
    pub fn new(tables: UnwindTables, resource_options: ResourceOptions) -> Self {
        Self {
            processes: ProcessTable::new(TableLimits::default()),
            tables,
            walker: Walker::new(),
            copies: FxHashMap::default(),
            pending: LruCache::new(MAX_PENDING),
            expected: FxHashSet::default(),
            resources: FxHashMap::default(),
            held: FxHashMap::default(),
            host: Host::read(),
            resource_options,
            reread: FxHashSet::default(),
            names: FxHashMap::default(),
            ended: Vec::new(),
            started: Vec::new(),
            changed: FxHashSet::default(),
            scratch: Vec::new(),
            records: Records::default(),
            counters: TrackerCounters::default(),
        }
    }

    /// Learns a process before its first sample, and loads the tables of all that it has mapped or will map. One that is
    /// gone already is no error here.
    pub fn expect(&mut self, tgid: Tgid) {
        if self.processes.load(tgid).is_ok() {
            self.tables.track(tgid);
            self.expected.insert(tgid);
            self.want_all(tgid);
        }
    }

    fn want_all(&mut self, tgid: Tgid) {
        for mapping in self.processes.get(tgid).map(|process| process.mappings()).unwrap_or_default() {
            if let MappingTarget::Object { id, .. } = mapping.target {
                self.tables.want(id);
            }
        }
    }

    /// Takes what the kernel has to tell now, and brings its tables up to date. `handle` gets every event that is not of
    /// processes and stack copies alone, in the order of their times. Returns the bytes that the ring held.
    pub fn tick(
        &mut self,
        session: &mut Session,
        side_band: &mut SideBand,
        handle: &mut dyn FnMut(&mut Self, Event),
    ) -> Result<usize, ProbeError> {
        // The ring first: whatever was mapped before one of its events is then among the news.
        let mut records = std::mem::take(&mut self.records);
        session.drain(|record| {
            if let Err(error) = records.push(record) {
                self.malformed(&error);
            }
        });
        let bytes = records.bytes();
        let mut news = Vec::new();
        side_band.drain(|event| news.push(event));
        news.sort_by_key(SideBandEvent::time);
        let mut news = news.into_iter().peekable();
        for (time, event) in records.events() {
            while let Some(earlier) = news.next_if(|earlier| earlier.time() <= time) {
                self.heard(earlier);
            }
            match event {
                Ok(event) => self.follow(event, handle),
                Err(error) => self.malformed(&error),
            }
        }
        records.clear();
        self.records = records;
        for event in news {
            self.heard(event);
        }
        self.tables.sync(session, &mut self.processes)?;
        self.reread.clear();
        Ok(bytes)
    }

    fn malformed(&mut self, error: &DecodeError) {
        tracing::debug!(%error, "a record of the ring is no event");
        self.counters.malformed += 1;
    }

    /// Takes what the kernel has to tell until the tables of all expected processes are made, but not for long.
    pub fn settle(
        &mut self,
        session: &mut Session,
        side_band: &mut SideBand,
        handle: &mut dyn FnMut(&mut Self, Event),
    ) -> Result<(), ProbeError> {
        for _ in 0..SETTLE_TICKS {
            self.tick(session, side_band, handle)?;
            if !self.tables.is_building() {
                break;
            }
            std::thread::sleep(SETTLE_TICK);
        }
        Ok(())
    }

    /// Processes that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Tgid> {
        std::mem::take(&mut self.ended)
    }

    /// (parent, child) of the processes that were made since the last call.
    pub fn take_started(&mut self) -> Vec<(Tgid, Tgid)> {
        std::mem::take(&mut self.started)
    }

    /// Watched processes that run another program, and known ones with new mappings, since the last call.
    pub fn take_changed(&mut self) -> FxHashSet<Tgid> {
        std::mem::take(&mut self.changed)
    }

    /// Processes and binaries.
    pub fn processes(&mut self) -> &mut ProcessTable {
        &mut self.processes
    }

    /// The name of a process, and its Resource as far as that is known.
    pub fn resource(&mut self, tgid: Tgid, comm: Comm) -> (Arc<str>, Attributes) {
        self.learn(tgid);
        let name = self.process_name(tgid, comm);
        let resource = self.resources.get(&(tgid, Arc::clone(&name))).cloned();
        (name, resource.unwrap_or_default())
    }

    /// Whether something is known of a process, so that nothing has to be read to tell who it is.
    pub fn is_known(&self, tgid: Tgid) -> bool {
        self.processes.get(tgid).is_some()
    }

    /// Counters so far.
    pub fn counters(&self) -> TrackerCounters {
        self.counters
    }

    /// Who a process is; read from /proc if nothing is known of it yet.
    pub fn who(&mut self, tgid: Tgid) -> Option<&Identity> {
        self.learn(tgid);
        self.processes.get(tgid).map(|process| &*process.identity)
    }

    /// The Resources of the processes that were named since the last call, and the binaries whose symbols are to be read:
    /// for who goes on measuring while these are used.
    pub fn take_window(&mut self) -> (FxHashMap<ProcessKey, Attributes>, FxHashMap<ObjectId, HeldObject>) {
        // Names are taken anew with the next sample. Without this, those of processes whose end was not heard of would
        // stay for ever.
        self.names.clear();
        (std::mem::take(&mut self.resources), std::mem::take(&mut self.held))
    }

    /// Counters of the unwind tables, of processes and of binaries so far.
    pub fn all_counters(&mut self) -> Vec<counted::Reading> {
        let objects = self.processes.objects().counters();
        let own = self.counters.entries().chain(self.tables.counters().entries());
        own.chain(self.processes.counters().entries()).chain(objects.entries()).collect()
    }

    /// Whose perf map names the code that a process made.
    pub fn perf_map_owner(&self, tgid: Tgid) -> Option<PerfMapOwner> {
        self.processes.owner(tgid)
    }

    /// Ends it.
    pub fn finish(mut self) -> Tracked {
        self.counters.copies_dropped += self.copies.len() as u64;
        Tracked {
            resources: self.resources,
            held: self.held,
            processes: self.processes,
            counters: self.counters,
            tables: self.tables.counters(),
        }
    }

    fn heard(&mut self, event: SideBandEvent) {
        match event {
            SideBandEvent::Mmap(event) => self.mapped(event),
            SideBandEvent::Exec(event) => self.executed(event),
        }
    }

    /// A new mapping. Those of processes that have no sample yet wait: most never have one.
    fn mapped(&mut self, event: MmapEvent) {
        if self.processes.get(event.tgid).is_some() {
            apply(&mut self.processes, &event);
            self.change(event.tgid);
            if self.expected.contains(&event.tgid) {
                self.want_all(event.tgid);
            }
            return;
        }
        if !self.pending.contains(&event.tgid)
            && let Some((_, forgotten)) = self.pending.push(event.tgid, Vec::new())
        {
            self.counters.mappings_forgotten += forgotten.len() as u64;
        }
        let waiting = self.pending.get_or_insert_mut(event.tgid, Vec::new);
        if waiting.len() < MAX_PENDING_MAPPINGS {
            waiting.push(event);
        } else {
            self.counters.mappings_dropped += 1;
        }
    }

    fn change(&mut self, tgid: Tgid) {
        if self.changed.len() < MAX_CHANGED {
            self.changed.insert(tgid);
        }
    }

    /// A process runs another program: of its mappings only those made since are its own.
    fn executed(&mut self, exec: ExecEvent) {
        if self.processes.get(exec.tgid).is_some() {
            self.processes.exec(exec.tgid, exec.comm, exec.time);
        }
        if let Some(waiting) = self.pending.get_mut(&exec.tgid) {
            waiting.retain(|mapping| mapping.time >= exec.time);
        }
    }

    fn follow(&mut self, event: Event, handle: &mut dyn FnMut(&mut Self, Event)) {
        match event {
            Event::Sample(_) | Event::SlowCall(_) | Event::Stack(..) | Event::Wait(_) => handle(self, event),
            Event::Call(_) | Event::Arguments(_) => handle(self, event),
            Event::Opened(_) | Event::Message(_) | Event::Closed(_) | Event::ConnectFailed(_) => {
                handle(self, event)
            }
            Event::StackCopy(copy) => {
                if self.copies.len() >= MAX_COPIES {
                    self.counters.copies_dropped += self.copies.len() as u64;
                    self.copies.clear();
                }
                self.copies.insert((copy.tid, copy.time), copy);
            }
            // The kernel side has dropped its mappings; the side band tells of the new ones.
            Event::Exec(exec) => {
                self.tables.forget(exec.tgid);
                self.change(exec.tgid);
                handle(self, event);
            }
            Event::Fork(fork) => {
                let parent = Tgid(fork.other);
                self.started.push((parent, fork.tgid));
                if self.processes.get(parent).is_some() {
                    self.processes.fork(parent, fork.tgid, fork.time);
                }
            }
            Event::Exit(exit) => {
                self.ended.push(exit.tgid);
                self.names.remove(&exit.tgid);
                self.tables.forget(exit.tgid);
                self.pending.pop(&exit.tgid);
                self.processes.exit(exit.tgid, exit.time);
                handle(self, event);
            }
            Event::Comm(rename) => {
                if rename.tgid.0 == rename.tid.0 && self.processes.get(rename.tgid).is_some() {
                    self.processes.rename(rename.tgid, rename.comm);
                }
                handle(self, event);
            }
        }
    }

    /// Makes sure that what can be known of a process is.
    pub fn learn(&mut self, tgid: Tgid) {
        if self.processes.get(tgid).is_some_and(|process| process.loaded.is_some()) {
            return;
        }
        let waiting = self.pending.pop(&tgid).unwrap_or_default();
        if let Err(error) = self.processes.load(tgid) {
            tracing::debug!(%tgid, %error, "a process is gone before its first sample was read");
        }
        for event in &waiting {
            apply(&mut self.processes, event);
        }
    }

    /// Where each frame of an event's stack lies. Counts it.
    pub fn locate(&mut self, sample: &Sample) -> Located<'_> {
        self.counters.stacks += 1;
        let copy = self.copies.remove(&(sample.tid, sample.time));
        let mut end = sample.end;
        let mut walked = None;
        if sample.kernel_thread {
            self.counters.without_user_stack += 1;
        } else {
            self.learn(sample.tgid);
            self.tables.track(sample.tgid);
            if let Some(copy) = copy.filter(|_| sample.has_copy).and_then(blocked::with_memory) {
                let walk = self.walk(&copy);
                // The kernel's walk may have come further: it is not bound to the length of the copy.
                if walk.1 == UnwindEnd::Root || walk.0.len() >= sample.user.len() {
                    (walked, end) = (Some(walk.0), walk.1);
                }
            }
        }
        let user = walked.as_deref().unwrap_or(&sample.user);
        self.scratch.clear();
        // The first address of each kind is the interrupted instruction; the others are return addresses, and the call
        // is what counts.
        let call = |index: usize, address: RuntimeAddress| {
            RuntimeAddress(address.0.wrapping_sub(u64::from(index > 0)))
        };
        let kernel = sample.kernel.iter().enumerate();
        self.scratch.extend(kernel.map(|(index, address)| CodeRef::Kernel(call(index, *address))));
        for (index, address) in user.iter().enumerate() {
            let code = self.place(sample.tgid, call(index, *address));
            self.scratch.push(code);
        }
        self.counters.frames += self.scratch.len() as u64;
        let truncated = !matches!(end, UnwindEnd::Root | UnwindEnd::NoUserStack);
        if !sample.kernel_thread {
            *(if truncated { &mut self.counters.truncated } else { &mut self.counters.rooted }) += 1;
        }
        Located { process: self.process_name(sample.tgid, sample.comm), code: &self.scratch, truncated }
    }

    /// Walks a copied stack in userspace.
    fn walk(&mut self, copy: &StackCopy) -> (Vec<RuntimeAddress>, UnwindEnd) {
        self.counters.walked += 1;
        let mut code = ProcessCode {
            tgid: copy.tgid,
            processes: &mut self.processes,
            tables: &mut self.tables,
            reread: &mut self.reread,
        };
        let stack = Stack { start: copy.start, bytes: &copy.stack };
        let walk = self.walker.walk(&copy.registers, stack, &mut code, MAX_USER_FRAMES);
        (walk.frames, walk.end)
    }

    fn place(&mut self, tgid: Tgid, address: RuntimeAddress) -> CodeRef {
        match self.processes.resolve(tgid, address) {
            Resolved::Object { id, address } => {
                self.hold(id, tgid);
                CodeRef::Object { id, address }
            }
            Resolved::Anonymous => CodeRef::Jit { tgid, address },
            Resolved::Unreadable { name, offset } => CodeRef::Unreadable { name, offset },
            Resolved::Vsyscall => {
                CodeRef::Unreadable { name: "[vsyscall]".into(), offset: FileOffset(address.0) }
            }
            Resolved::Unknown => CodeRef::Unknown(address),
        }
    }

    /// Keeps a binary open for its symbols, whatever becomes of the file and the process.
    fn hold(&mut self, id: ObjectId, tgid: Tgid) {
        if self.held.contains_key(&id) {
            return;
        }
        match self.processes.objects().get(id) {
            Some(object) if self.held.len() < MAX_HELD => {
                self.held.insert(id, HeldObject { object: Arc::clone(object), tgid });
            }
            _ => self.counters.not_held += 1,
        }
    }

    /// The processes that were named.
    pub fn expected(&self) -> impl Iterator<Item = Tgid> {
        self.expected.iter().copied()
    }

    /// The program that a process runs.
    pub fn program(&mut self, tgid: Tgid) -> Option<Program> {
        self.learn(tgid);
        let process = self.processes.get(tgid)?;
        let (path, runtime) = (process.identity.executable_path.clone()?, process.identity.runtime);
        let files: Vec<Arc<str>> = process.mappings().iter().map(|it| Arc::clone(&it.name)).collect();
        let mapping = process.mappings().iter().find(|mapping| *mapping.name == *path)?;
        let MappingTarget::Object { id, .. } = mapping.target else { return None };
        let object = self.processes.objects().get(id).cloned()?;
        Some(Program { object, runtime, files })
    }

    /// The name that the stacks of a process begin with; `comm` where nothing is known of it. Also notes its Resource.
    pub fn process_name(&mut self, tgid: Tgid, comm: Comm) -> Arc<str> {
        let known = self.processes.get(tgid);
        let own = known.map(|process| process.identity.comm).filter(|comm| !comm.as_bytes().is_empty());
        let comm = own.unwrap_or(comm);
        let name = match self.names.get(&tgid) {
            Some((known, name)) if *known == comm => Arc::clone(name),
            _ => {
                let name: Arc<str> = comm.to_string().into();
                self.names.insert(tgid, (comm, Arc::clone(&name)));
                name
            }
        };
        let key = (tgid, Arc::clone(&name));
        if !self.resources.contains_key(&key) && self.resources.len() < MAX_RESOURCES {
            let options = self.resource_options;
            let resource =
                known.map(|process| identity::resource(tgid, &process.identity, &self.host, options));
            self.resources.insert(key, resource.unwrap_or_default());
        }
        name
    }
}
