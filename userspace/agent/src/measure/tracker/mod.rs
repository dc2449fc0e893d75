//! Who runs what, kept up with the events: processes and their mappings, the unwind tables in the kernel, and for each
//! stack the places in code that it passes through. Every measuring command has one.

mod locate;
mod pending;

use std::sync::Arc;
use std::time::Duration;

use descry_aggregate::CodeRef;
use descry_decode::ids::{BootNanos, Comm, Tgid, Tid};
use descry_decode::{DecodeError, Event, StackCopy};
use descry_probe::{ExecEvent, MmapEvent, ProbeError, Session, SideBand, SideBandEvent};
use descry_process::identity::host::Host;
use descry_process::identity::{Attributes, Identity, ResourceOptions};
use descry_process::object::{Object, ObjectId};
use descry_process::table::{MappingTarget, ProcessTable, TableLimits};
use descry_unwind::walk::Walker;
use rustc_hash::{FxHashMap, FxHashSet};

use super::process_code::apply;
use super::program::Program;
use super::records::Records;
use super::symbols::{PerfMapOwner, PerfMapOwners};
use super::tables::{TableCounters, UnwindTables};
use crate::counted::{self, counters};

use pending::PendingMappings;

/// Stack copies that wait for their sample at most; the sample comes right behind on the same CPU.
const MAX_COPIES: usize = 256;
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

/// Keeps up with processes, mappings and binaries.
pub struct Tracker {
    processes: ProcessTable,
    tables: UnwindTables,
    walker: Walker,
    copies: FxHashMap<(Tid, BootNanos), StackCopy>,
    pending: PendingMappings,
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
            pending: PendingMappings::new(),
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

    /// Watched processes that run another program, and known ones with new mappings, since they were taken last.
    pub fn changed(&self) -> impl Iterator<Item = Tgid> {
        self.changed.iter().copied()
    }

    /// The same, which are taken.
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
        self.pending.add(event, &mut self.counters);
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
        self.pending.executed(exec.tgid, exec.time);
    }

    fn follow(&mut self, event: Event, handle: &mut dyn FnMut(&mut Self, Event)) {
        match event {
            Event::Sample(_)
            | Event::SlowCall(_)
            | Event::Stack(..)
            | Event::Wait(_)
            | Event::RequestWait(_) => handle(self, event),
            Event::Call(_) | Event::Arguments(_) => handle(self, event),
            Event::Opened(_)
            | Event::Message(_)
            | Event::Exchange(_)
            | Event::Closed(_)
            | Event::ConnectFailed(_) => handle(self, event),
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
                self.pending.take(exit.tgid);
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
        let waiting = self.pending.take(tgid);
        if let Err(error) = self.processes.load(tgid) {
            tracing::debug!(%tgid, %error, "a process is gone before its first sample was read");
        }
        for event in &waiting {
            apply(&mut self.processes, event);
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
}
