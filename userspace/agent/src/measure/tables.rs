//! The side loop: binaries that were sampled get their rows into the kernel, and each process the mappings that lead
//! to them.
//!
//! A file is wanted when a walk in userspace passed through it ([`UnwindTables::cfi`]); its tables are made at the next
//! [`UnwindTables::sync`]. Until then the kernel side ships stacks that pass through it, so no sample waits.

use std::sync::Arc;

use descry_abi::unwind::{
    INDEX_FRAME_POINTER, INDEX_NOT_LOADED, MAPPING_SLOTS, Mapping, Process as KernelProcess,
};
use descry_decode::ids::Tgid;
use descry_probe::{ProbeError, Session, Tables, give_memory_back};
use descry_process::object::{Object, ObjectId};
use descry_process::table::{MappingTarget, ProcessTable};
use descry_unwind::Limits;
use descry_unwind::cfi::{Bytes, Cfi};
use descry_unwind::layout::{self, LayoutError, Placement};
use descry_unwind::pool::{Pool, Reservation, Slots};
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::debug;

use super::builder::{Builder, Built};
use super::image;
use crate::counted::counters;

/// What the kernel has of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileTables {
    /// Its rows are in the pool.
    Loaded(Placement),
    /// It has no call frame information that can be used: frame pointers are all there is.
    Without,
    /// There was no room for it; asked for again after this sync. Until then it is walked in userspace.
    Full {
        /// Count of syncs.
        until: u64,
    },
    /// Others had to leave for it; asked for again at the next sync.
    Waiting,
}

/// What the kernel has of a process.
struct ProcessTables {
    slots: Option<Slots>,
    /// Revision of the process and epoch of the files that the written mappings are of.
    written: (u64, u64),
    mappings: Vec<Mapping>,
}

/// A file's tables for walks in userspace.
struct Walkable {
    image: Bytes,
    cfi: Option<Arc<Cfi>>,
    /// Count of syncs when it was last used.
    used: u64,
}

counters! {
    /// Counters of this stage.
    TableCounters = "descry.tables." {
        /// Files whose call frame information could not be read.
        unreadable,
        /// Files that found no room.
        full,
        /// Functions whose call frame information is damaged.
        bad_functions,
        /// Processes whose mappings found no room.
        processes_full,
    }
}

/// Writes unwind tables.
pub struct UnwindTables {
    pool: Pool<ObjectId>,
    writer: Tables,
    files: FxHashMap<ObjectId, FileTables>,
    wanted: FxHashSet<ObjectId>,
    building: Option<ObjectId>,
    builder: Builder,
    processes: FxHashMap<Tgid, ProcessTables>,
    forgotten: Vec<Tgid>,
    walkable: FxHashMap<ObjectId, Walkable>,
    /// Changes when what the kernel has of any file does.
    epoch: u64,
    generation: u32,
    syncs: u64,
    counters: TableCounters,
}

/// Syncs after which an unused file's walkable tables are dropped.
const WALKABLE_IDLE: u64 = 20;
/// Syncs for which a file that found no room is not asked for again.
const FULL_PAUSE: u64 = 200;

impl UnwindTables {
    /// A writer to an empty pool. Fails where the system gives no thread.
    pub fn new(writer: Tables) -> std::io::Result<Self> {
        Ok(Self {
            pool: Pool::new(u64::from(writer.capacity()) * 8),
            writer,
            files: FxHashMap::default(),
            wanted: FxHashSet::default(),
            building: None,
            builder: Builder::start()?,
            processes: FxHashMap::default(),
            forgotten: Vec::new(),
            walkable: FxHashMap::default(),
            epoch: 0,
            generation: 0,
            syncs: 0,
            counters: TableCounters::default(),
        })
    }

    /// Counters so far.
    pub fn counters(&self) -> TableCounters {
        self.counters
    }

    /// The tables of a file for a walk in userspace; none: it has none. The file is wanted in the kernel from now on.
    pub fn cfi(&mut self, object: &Object) -> Option<Arc<Cfi>> {
        let syncs = self.syncs;
        let is_wanted = match self.files.get(&object.id) {
            None => true,
            Some(FileTables::Full { until }) => *until < syncs,
            Some(FileTables::Loaded(_) | FileTables::Without | FileTables::Waiting) => false,
        };
        if is_wanted && self.building != Some(object.id) {
            self.wanted.insert(object.id);
        }
        let walkable = self.walkable.entry(object.id).or_insert_with(|| {
            let image = image::of_unwind_tables(object).unwrap_or_else(|_| Arc::new([]));
            let cfi = Cfi::new(Arc::clone(&image), None, &Limits::default());
            self.counters.unreadable += u64::from(cfi.is_err());
            Walkable { image, cfi: cfi.ok().map(|(cfi, _)| Arc::new(cfi)), used: syncs }
        });
        walkable.used = syncs;
        walkable.cfi.clone()
    }

    /// Wants a file's tables in the kernel before a sample asks for them.
    pub fn want(&mut self, id: ObjectId) {
        if !self.files.contains_key(&id) && self.building != Some(id) {
            self.wanted.insert(id);
        }
    }

    /// Notes that a process has samples: it is to have mappings in the kernel.
    pub fn track(&mut self, tgid: Tgid) {
        self.processes.entry(tgid).or_insert_with(|| ProcessTables {
            slots: None,
            written: (0, u64::MAX),
            mappings: Vec::new(),
        });
    }

    /// Forgets a process: it ended, or runs another program.
    pub fn forget(&mut self, tgid: Tgid) {
        if let Some(Some(slots)) = self.processes.remove(&tgid).map(|process| process.slots) {
            self.pool.release_mappings(slots);
            self.forgotten.push(tgid);
        }
    }

    /// Brings the kernel up to date with what is wanted and mapped now.
    pub fn sync(&mut self, session: &mut Session, processes: &mut ProcessTable) -> Result<(), ProbeError> {
        self.syncs += 1;
        // The kernel side forgets at exec and exit by itself; but an entry may have been written right after.
        for tgid in std::mem::take(&mut self.forgotten) {
            if !self.processes.contains_key(&tgid) {
                session.remove_process(tgid);
            }
        }
        self.load_files(processes)?;
        let tracked: Vec<Tgid> = self.processes.keys().copied().collect();
        for tgid in tracked {
            self.write_process(tgid, session, processes)?;
        }
        for chunk in self.pool.tick() {
            self.writer.drop_chunk(chunk)?;
        }
        let syncs = self.syncs;
        self.walkable.retain(|_, walkable| syncs - walkable.used < WALKABLE_IDLE);
        Ok(())
    }

    /// Whether files wait for their rows.
    pub fn is_building(&self) -> bool {
        self.building.is_some() || !self.wanted.is_empty()
    }

    /// Takes rows that are ready and asks for those of the next file that is wanted, until one takes longer.
    fn load_files(&mut self, processes: &mut ProcessTable) -> Result<(), ProbeError> {
        let mut waiting = Vec::new();
        loop {
            if let Some(built) = self.builder.take() {
                self.building = None;
                let tables = self.place(&built)?;
                debug!(path = %built.object.path, ?tables, "unwind tables");
                // What the kernel walks now, userspace need not.
                self.walkable.remove(&built.object.id);
                match tables {
                    FileTables::Full { .. } => self.counters.full += 1,
                    FileTables::Waiting => waiting.push(built.object.id),
                    FileTables::Loaded(_) | FileTables::Without => self.epoch += 1,
                }
                self.files.insert(built.object.id, tables);
                drop(built);
                give_memory_back();
            }
            if self.building.is_some() || !self.ask_for_next(processes) {
                break;
            }
        }
        self.wanted.extend(waiting);
        Ok(())
    }

    /// Asks for the rows of a file that is wanted; false: none is.
    fn ask_for_next(&mut self, processes: &mut ProcessTable) -> bool {
        while let Some(id) = self.wanted.iter().next().copied() {
            self.wanted.remove(&id);
            let Some(object) = processes.objects().get(id).cloned() else { continue };
            let image = self.walkable.get(&id).map(|walkable| Arc::clone(&walkable.image));
            if self.builder.ask(object, image) {
                self.building = Some(id);
                return true;
            }
        }
        false
    }

    /// Puts the rows of a file into the pool.
    fn place(&mut self, built: &Built) -> Result<FileTables, ProbeError> {
        let id = built.object.id;
        let (rows, report) = match &built.rows {
            Ok(built) => built,
            Err(error) => {
                debug!(path = %built.object.path, error, "no unwind rows");
                return Ok(FileTables::Without);
            }
        };
        self.counters.bad_functions += report.bad_fdes + report.bad_instructions;
        if rows.is_empty() {
            return Ok(FileTables::Without);
        }
        let full = FileTables::Full { until: self.syncs + FULL_PAUSE };
        match self.pool.reserve_file(id, layout::slots_needed(rows)) {
            Reservation::Ready { slots: first, opened } => {
                for chunk in opened {
                    self.writer.create_chunk(chunk)?;
                }
                match layout::layout(rows, first, |slot, words| self.writer.write(slot, words)) {
                    Ok(placement) => Ok(FileTables::Loaded(placement)),
                    Err(LayoutError::TooLarge { .. }) => {
                        self.pool.remove_file(&id);
                        Ok(full)
                    }
                    Err(LayoutError::Write(error)) => Err(error),
                }
            }
            Reservation::Evicted(files) => {
                self.evicted(&files);
                Ok(FileTables::Waiting)
            }
            Reservation::Full => Ok(full),
        }
    }

    fn evicted(&mut self, files: &[ObjectId]) {
        for id in files {
            debug!(%id, "unwind tables evicted");
            self.files.remove(id);
        }
        self.epoch += 1;
    }

    fn write_process(
        &mut self,
        tgid: Tgid,
        session: &mut Session,
        processes: &ProcessTable,
    ) -> Result<(), ProbeError> {
        let (Some(known), Some(process)) = (self.processes.get(&tgid), processes.get(tgid)) else {
            return Ok(());
        };
        let state = (process.revision, self.epoch);
        if known.written == state {
            return Ok(());
        }
        let mappings: Vec<Mapping> = process
            .mappings()
            .iter()
            // The kernel side compares addresses as signed numbers; nothing runs in the vsyscall page any more.
            .filter(|mapping| mapping.target != MappingTarget::Vsyscall)
            .map(|mapping| {
                let (placement, bias) = self.placement(mapping.target);
                placement.mapping(mapping.start.0, mapping.end.0, bias)
            })
            .collect();
        if known.mappings == mappings {
            if let Some(known) = self.processes.get_mut(&tgid) {
                known.written = state;
            }
            return Ok(());
        }
        let Some(slots) = self.reserve_mappings(mappings.len() as u32)? else {
            self.counters.processes_full += 1;
            session.remove_process(tgid);
            return Ok(());
        };
        let words: Vec<u64> = mappings.iter().flat_map(|mapping| mapping.to_slots()).collect();
        debug_assert_eq!(words.len(), mappings.len() * MAPPING_SLOTS);
        self.writer.write(slots.first(), &words)?;
        self.generation = self.generation.wrapping_add(1);
        let kernel = KernelProcess {
            generation: self.generation,
            mappings: slots.first(),
            count: mappings.len() as u32,
            reserved: 0,
        };
        session.set_process(tgid, kernel)?;
        let new = ProcessTables { slots: Some(slots), written: state, mappings };
        if let Some(Some(old)) = self.processes.insert(tgid, new).map(|old| old.slots) {
            self.pool.release_mappings(old);
        }
        Ok(())
    }

    /// What a mapping of `target` says of its tables, and its bias.
    fn placement(&self, target: MappingTarget) -> (Placement, u64) {
        let mark = |index| Placement { index, pages: 0, first_page: 0 };
        let MappingTarget::Object { id, bias } = target else { return (mark(INDEX_FRAME_POINTER), 0) };
        match self.files.get(&id) {
            Some(FileTables::Loaded(placement)) => (*placement, bias),
            Some(FileTables::Without) => (mark(INDEX_FRAME_POINTER), bias),
            Some(FileTables::Full { .. } | FileTables::Waiting) | None => (mark(INDEX_NOT_LOADED), bias),
        }
    }

    /// Room for mappings; none: not now.
    fn reserve_mappings(&mut self, count: u32) -> Result<Option<Slots>, ProbeError> {
        match self.pool.reserve_mappings(count) {
            Reservation::Ready { slots, opened } => {
                for chunk in opened {
                    self.writer.create_chunk(chunk)?;
                }
                Ok(Some(slots))
            }
            Reservation::Evicted(files) => {
                self.evicted(&files);
                Ok(None)
            }
            Reservation::Full => Ok(None),
        }
    }
}
