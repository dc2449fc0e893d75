//! All processes that are watched, with what each has mapped: from `/proc` while they live, from events when they are
//! gone.
//!
//! Events carry times, because the ring of descry and the buffers of perf are read one after the other: what an event
//! says never undoes what was learnt later.

mod mappings;
mod resolve;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use descry_decode::ids::{BootNanos, Comm, ElfAddress, FileOffset, RuntimeAddress, Tgid};
use lru::LruCache;
use nix::time::{ClockId, clock_gettime};

use crate::counter::TableCounters;
use crate::error::ProcessError;
use crate::identity::{self, Identity, StartTime};
use crate::maps::{self, Device, Mapping, MappingSource};
use crate::object::{FileReference, Object, ObjectLimits, Objects};
use mappings::Mappings;
pub use mappings::{MappingTarget, Resolved, TableMapping};

/// How much the table keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Processes at most, ended ones included; some 5 KiB each with the usual 30 mappings.
    pub processes: NonZeroUsize,
    /// Ended processes that are kept, since samples of them may still come; the first to end go first.
    pub ended: usize,
    /// Of the binaries.
    pub objects: ObjectLimits,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            processes: const { NonZeroUsize::new(8192).expect("not zero") },
            ended: 1024,
            objects: ObjectLimits::default(),
        }
    }
}

/// What a perf `MMAP2` record says: executable memory was mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmapEvent {
    /// When.
    pub time: BootNanos,
    /// First address.
    pub start: RuntimeAddress,
    /// Length (bytes).
    pub len: u64,
    /// Offset in the file (bytes).
    pub offset: FileOffset,
    /// Device and inode number; `None` where the record has a build id in their place.
    pub inode: Option<(Device, u64)>,
    /// The file's path, or `//anon`, `[vdso]` and the like.
    pub path: Vec<u8>,
    /// GNU build id (`PERF_RECORD_MISC_MMAP_BUILD_ID`).
    pub build_id: Option<Vec<u8>>,
}

/// A process of the table.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub tgid: Tgid,
    /// When it started; `None` while `/proc` was not asked, or could not be.
    pub start_time: Option<StartTime>,
    /// Who it is, as far as known.
    pub identity: Arc<Identity>,
    /// Changes with every change of its mappings; no two processes, and no two states of one, have the same.
    pub revision: u64,
    /// Whether it ended.
    pub ended: bool,
    /// When its mappings were last read from `/proc`; `None`: not since it runs its present program.
    pub loaded: Option<BootNanos>,
    mappings: Mappings,
    incarnation: u64,
}

impl Process {
    /// Its executable mappings, by rising address, without overlap.
    pub fn mappings(&self) -> &[TableMapping] {
        self.mappings.as_slice()
    }
}

/// All processes that are watched.
#[derive(Debug)]
pub struct ProcessTable {
    processes: LruCache<Tgid, Process>,
    ended: VecDeque<(Tgid, u64)>,
    max_ended: usize,
    objects: Objects,
    page_size: u64,
    last_number: u64,
    counters: TableCounters,
}

impl ProcessTable {
    /// An empty table.
    pub fn new(limits: TableLimits) -> Self {
        let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        Self {
            processes: LruCache::new(limits.processes),
            ended: VecDeque::new(),
            max_ended: limits.ended,
            objects: Objects::new(limits.objects),
            page_size: page_size.ok().flatten().and_then(|size| size.try_into().ok()).unwrap_or(4096),
            last_number: 0,
            counters: TableCounters::default(),
        }
    }

    /// Counters so far.
    pub fn counters(&self) -> TableCounters {
        self.counters
    }

    /// The binaries.
    pub fn objects(&mut self) -> &mut Objects {
        &mut self.objects
    }

    /// A process as known now; reads nothing.
    pub fn get(&self, tgid: Tgid) -> Option<&Process> {
        self.processes.peek(&tgid)
    }

    /// All processes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().map(|(_, process)| process)
    }

    /// Reads from `/proc` who a process is and what it has mapped. What was known stays known if that fails; a process
    /// that got the pid of another one replaces it.
    pub fn load(&mut self, tgid: Tgid) -> Result<&Process, ProcessError> {
        let now = boot_time();
        let read = identity::read(tgid).and_then(|identity| Ok((identity, maps::read(tgid)?)));
        let (mut identity, maps) = read.inspect_err(|_| self.counters.load_failed += 1)?;
        // A process that ended but was not waited for has no mappings; those that it had are worth more.
        if maps.mappings.is_empty() && self.get(tgid).is_some_and(|known| !known.mappings().is_empty()) {
            self.counters.load_failed += 1;
            return Err(ProcessError::NoSuchProcess { tgid });
        }
        self.counters.loaded += 1;
        self.counters.malformed += maps.malformed;
        self.counters.beyond_limit += maps.beyond_limit;
        let mappings: Vec<_> = maps
            .mappings
            .iter()
            .map(|mapping| self.resolve_mapping(tgid, mapping, None, true, now))
            .collect();
        let number = self.number();
        if let Some(known) = self.processes.get(&tgid) {
            let reused = known.start_time.is_some() && known.start_time != identity.start_time;
            if reused {
                self.counters.pid_reused += 1;
                self.processes.pop(&tgid);
            }
        }
        identity.runtime = self.runtime_name(&identity, &mappings);
        let process = self.entry(tgid);
        process.start_time = identity.start_time;
        process.identity = Arc::new(identity);
        process.loaded = Some(now);
        if process.mappings.replace(mappings) {
            process.revision = number;
        }
        Ok(process)
    }

    /// What an address of a process is, and makes the process and the binary the most recently used ones.
    pub fn resolve(&mut self, tgid: Tgid, address: RuntimeAddress) -> Resolved {
        let found = self.processes.get(&tgid).and_then(|process| process.mappings.find(address));
        let Some(mapping) = found else { return Resolved::Unknown };
        match mapping.target {
            MappingTarget::Object { id, bias } => {
                self.objects.get(id);
                Resolved::Object { id, address: ElfAddress(address.0.wrapping_sub(bias)) }
            }
            MappingTarget::Anonymous => Resolved::Anonymous,
            MappingTarget::Vsyscall => Resolved::Vsyscall,
            MappingTarget::Unreadable => Resolved::Unreadable {
                name: mapping.name.clone(),
                offset: FileOffset(mapping.offset.0.wrapping_add(address.0.wrapping_sub(mapping.start.0))),
            },
        }
    }

    /// Executable memory was mapped, over whatever was there. Works for a process that is gone.
    pub fn apply_mmap(&mut self, tgid: Tgid, event: &MmapEvent) {
        let Some(end) = event.start.0.checked_add(event.len).filter(|_| event.len > 0) else {
            self.counters.malformed += 1;
            return;
        };
        let mapping = Mapping {
            start: event.start,
            end: RuntimeAddress(end),
            offset: event.offset,
            device: event.inode.map(|(device, _)| device).unwrap_or_default(),
            inode: event.inode.map_or(0, |(_, inode)| inode),
            source: MappingSource::from_name(&event.path),
        };
        let mapping = self.resolve_mapping(tgid, &mapping, event.build_id.as_deref(), false, event.time);
        let number = self.number();
        let process = self.entry(tgid);
        if process.mappings.is_stale(&mapping, event.time) {
            self.counters.stale += 1;
            return;
        }
        // The kernel maps a program before its interpreter and libraries.
        if process.identity.executable_path.is_none() && mapping.name.starts_with('/') {
            let mut identity = Identity::clone(&process.identity);
            identity.executable_path = Some(mapping.name.to_string());
            process.identity = Arc::new(identity);
        }
        if process.mappings.insert(mapping) {
            process.revision = number;
        } else {
            self.counters.beyond_limit += 1;
        }
    }

    /// A process began to run another program: what it had mapped before is gone.
    pub fn exec(&mut self, tgid: Tgid, comm: Comm, time: BootNanos) {
        let number = self.number();
        let process = self.entry(tgid);
        // What was learnt after the event is of the new program already.
        if process.loaded.is_some_and(|loaded| loaded >= time) {
            self.counters.stale += 1;
            return;
        }
        process.mappings.drop_before(time);
        process.revision = number;
        process.loaded = None;
        let mut identity = process.identity.after_exec(comm);
        // A program lies below its interpreter and libraries.
        let mut names = process.mappings().iter().map(|mapping| &*mapping.name);
        identity.executable_path = names.find(|name| name.starts_with('/')).map(str::to_owned);
        process.identity = Arc::new(identity);
    }

    /// A process was made: it has its parent's mappings until it is loaded or runs another program. Not for threads.
    pub fn fork(&mut self, parent: Tgid, child: Tgid, time: BootNanos) {
        let number = self.number();
        if let Some(known) = self.processes.peek(&child) {
            let is_child = known.start_time.is_none_or(|start| start.is_at_or_after(time));
            if is_child && !known.ended && !known.mappings().is_empty() {
                return;
            }
            if !is_child || known.ended {
                self.counters.pid_reused += 1;
                self.processes.pop(&child);
            }
        }
        let inherited =
            self.processes.get(&parent).map(|parent| (parent.mappings.clone(), parent.identity.clone()));
        let process = self.entry(child);
        process.revision = number;
        match inherited {
            Some((mappings, identity)) => {
                process.mappings = mappings;
                process.identity = Arc::new(identity.of_child(parent));
            }
            None => self.counters.unknown_process += 1,
        }
    }

    /// A process ended (its last thread did). It is kept for a while, since samples of it may still come.
    pub fn exit(&mut self, tgid: Tgid, time: BootNanos) {
        let Some(process) = self.processes.peek_mut(&tgid) else {
            self.counters.unknown_process += 1;
            return;
        };
        if process.start_time.is_some_and(|start| start.is_after(time)) {
            self.counters.stale += 1;
            return;
        }
        if process.ended {
            return;
        }
        process.ended = true;
        self.ended.push_back((tgid, process.incarnation));
        while self.ended.len() > self.max_ended {
            let Some((tgid, incarnation)) = self.ended.pop_front() else { break };
            if self.processes.peek(&tgid).is_some_and(|process| process.incarnation == incarnation) {
                self.processes.pop(&tgid);
                self.counters.expired += 1;
            }
        }
    }

    /// The main thread of a process took another name.
    pub fn rename(&mut self, tgid: Tgid, comm: Comm) {
        let Some(process) = self.processes.peek_mut(&tgid) else {
            self.counters.unknown_process += 1;
            return;
        };
        let mut identity = Identity::clone(&process.identity);
        identity.comm = comm;
        process.identity = Arc::new(identity);
    }

    /// Opens a binary again that was closed to stay within the limit, through any process that has it mapped.
    pub fn reopen(&mut self, tgid: Tgid, address: RuntimeAddress) -> Option<Arc<Object>> {
        let mapping = self.processes.get(&tgid)?.mappings.find(address)?.clone();
        let MappingTarget::Object { id, .. } = mapping.target else { return None };
        if let Some(object) = self.objects.get(id) {
            return Some(object.clone());
        }
        let wanted = FileReference {
            path: Path::new(&*mapping.name),
            inode: mapping.inode,
            build_id: None,
            range: Some((mapping.start, mapping.end)),
            current: true,
        };
        // The file there may be another one by now; then its id differs.
        self.objects.acquire(tgid, &wanted).ok().filter(|object| object.id == id)
    }

    /// The entry of a process, made if there is none.
    fn entry(&mut self, tgid: Tgid) -> &mut Process {
        let number = self.number();
        let known = self.processes.contains(&tgid);
        if !known && self.processes.len() == self.processes.cap().get() {
            self.counters.evicted += 1;
        }
        self.processes.get_or_insert_mut(tgid, || Process {
            tgid,
            start_time: None,
            identity: Arc::new(Identity::default()),
            revision: number,
            ended: false,
            loaded: None,
            mappings: Mappings::default(),
            incarnation: number,
        })
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// `CLOCK_BOOTTIME` now; zero where it cannot be read, so that every event counts as later.
fn boot_time() -> BootNanos {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
    BootNanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
