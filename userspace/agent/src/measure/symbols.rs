//! Names for every place in code that was sampled, one binary at a time, so that only one is in memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use descry_aggregate::profile::{FrameKind, ProfileMapping};
use descry_aggregate::{CodeRef, KnownCode};
use descry_decode::ids::{ElfAddress, RuntimeAddress, Tgid};
use descry_probe::give_memory_back;
use descry_process::object::{DebugFile, Object, ObjectId, debug_file};
use descry_process::table::ProcessTable;
use descry_symbol::{
    Counters, KernelNames, ObjectSource, Options, Outcome, PerfMap, SourceFrame, Symbolized, Symbolizer,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustc_hash::FxHashMap;
use tracing::debug;

use super::tracker::HeldObject;

/// Bytes of an image that is in no file at most.
const MAX_IN_MEMORY: u64 = 1 << 20;

/// Who wrote the perf map of a process.
#[derive(Clone, Copy, Debug)]
pub struct PerfMapOwner {
    /// Its pid as it sees it.
    pub own_pid: u32,
    /// Its user.
    pub uid: Option<u32>,
}

/// Knows the processes that make code at run time.
pub trait PerfMapOwners {
    /// None: nothing is known of the process.
    fn owner(&self, tgid: Tgid) -> Option<PerfMapOwner>;
}

impl PerfMapOwners for ProcessTable {
    fn owner(&self, tgid: Tgid) -> Option<PerfMapOwner> {
        let identity = &self.get(tgid)?.identity;
        let own_pid = identity.namespaced_pids.last().copied().unwrap_or(tgid.0);
        Some(PerfMapOwner { own_pid, uid: identity.uid })
    }
}

impl PerfMapOwners for FxHashMap<Tgid, PerfMapOwner> {
    fn owner(&self, tgid: Tgid) -> Option<PerfMapOwner> {
        self.get(&tgid).copied()
    }
}

/// Names places in code.
pub struct Symbols<'a> {
    held: &'a FxHashMap<ObjectId, HeldObject>,
    processes: &'a dyn PerfMapOwners,
    symbolizer: Symbolizer,
    took: Vec<(ObjectId, Duration)>,
}

impl<'a> Symbols<'a> {
    /// With the binaries and processes of a recording.
    pub fn new(
        held: &'a FxHashMap<ObjectId, HeldObject>,
        processes: &'a dyn PerfMapOwners,
        inlines: bool,
    ) -> Self {
        Self::with(held, processes, Options { inlines, ..Options::default() })
    }

    /// The same, which reads no debug information.
    pub fn by_tables(held: &'a FxHashMap<ObjectId, HeldObject>, processes: &'a dyn PerfMapOwners) -> Self {
        Self::with(held, processes, Options { debug_info: false, ..Options::default() })
    }

    fn with(
        held: &'a FxHashMap<ObjectId, HeldObject>,
        processes: &'a dyn PerfMapOwners,
        options: Options,
    ) -> Self {
        Self { held, processes, symbolizer: Symbolizer::new(options), took: Vec::new() }
    }

    /// How long each binary took of which debug information named something.
    pub fn took(&self) -> impl Iterator<Item = (ObjectId, Duration)> {
        self.took.iter().copied()
    }

    /// With the names of the kernel that others remembered.
    pub fn with_kernel_names(self, names: KernelNames) -> Self {
        Self { symbolizer: self.symbolizer.with_kernel_names(names), ..self }
    }

    /// The names of the kernel that it remembers.
    pub fn into_kernel_names(self) -> KernelNames {
        self.symbolizer.into_kernel_names()
    }

    /// What was found and what was not.
    pub fn counters(&self) -> &Counters {
        self.symbolizer.counters()
    }

    /// What each place is, in the order of `code`. `progress` is told how many are done.
    pub fn resolve(&mut self, code: &[CodeRef], mut progress: impl FnMut(usize)) -> Vec<KnownCode> {
        let mut known: Vec<Option<KnownCode>> = vec![None; code.len()];
        let mut kernel = Vec::new();
        let mut objects: FxHashMap<ObjectId, Vec<(usize, ElfAddress)>> = FxHashMap::default();
        let mut jit: FxHashMap<Tgid, Vec<(usize, RuntimeAddress)>> = FxHashMap::default();
        for (index, place) in code.iter().enumerate() {
            match place {
                CodeRef::Kernel(address) => kernel.push((index, *address)),
                CodeRef::Object { id, address } => objects.entry(*id).or_default().push((index, *address)),
                CodeRef::Jit { tgid, address } => jit.entry(*tgid).or_default().push((index, *address)),
                CodeRef::Unreadable { .. } | CodeRef::Unknown(_) | CodeRef::Label(_) => {}
            }
        }
        let mut done = 0;
        let mut put = |known: &mut Vec<Option<KnownCode>>, index: usize, value: KnownCode| {
            if let Some(slot) = known.get_mut(index) {
                *slot = Some(value);
            }
            done += 1;
            progress(done);
        };
        self.kernel(&kernel, |index, value| put(&mut known, index, value));
        give_memory_back();
        for (id, places) in objects {
            let (began, by_dwarf) = (Instant::now(), self.counters().by_dwarf);
            self.object(id, &places, |index, value| put(&mut known, index, value));
            if self.counters().by_dwarf > by_dwarf {
                self.took.push((id, began.elapsed()));
            }
            // Else what one binary took would stay while the next is read.
            give_memory_back();
        }
        for (tgid, places) in jit {
            self.jit(tgid, &places, |index, value| put(&mut known, index, value));
        }
        known.into_iter().zip(code).map(|(known, place)| known.unwrap_or_else(|| unknown(place))).collect()
    }

    fn kernel(&mut self, places: &[(usize, RuntimeAddress)], mut put: impl FnMut(usize, KnownCode)) {
        let addresses: Vec<RuntimeAddress> = places.iter().map(|(_, address)| *address).collect();
        if addresses.is_empty() {
            return;
        }
        let outcome = report(self.symbolizer.symbolize_kernel(&addresses));
        let mapping = mapping("[kernel]");
        for ((index, address), symbolized) in places.iter().zip(outcome) {
            put(*index, KnownCode { mapping: Some(mapping.clone()), address: address.0, symbolized });
        }
    }

    fn object(
        &mut self,
        id: ObjectId,
        places: &[(usize, ElfAddress)],
        mut put: impl FnMut(usize, KnownCode),
    ) {
        let Some(held) = self.held.get(&id) else { return };
        let object = &held.object;
        let mapping = object_mapping(object);
        let addresses: Vec<ElfAddress> = places.iter().map(|(_, address)| *address).collect();
        let in_memory = object.file().is_none().then(|| in_memory_file(object)).flatten();
        let open_path = object.open_path().or_else(|| in_memory.as_ref().map(descriptor_path));
        let Some(open_path) = open_path else { return };
        let root = PathBuf::from(format!("/proc/{}/root", held.tgid));
        let debug = debug_file(object, root.is_dir().then_some(root.as_path()));
        let source = ObjectSource {
            open_path,
            name: Arc::clone(&object.path),
            debug_path: debug.as_ref().map(DebugFile::open_path),
            is_go: object.is_go,
            is_rust: object.is_rust,
        };
        let symbols = report(self.symbolizer.symbolize_object(&source, &addresses));
        for ((index, address), symbolized) in places.iter().zip(symbols) {
            put(*index, KnownCode { mapping: Some(mapping.clone()), address: address.0, symbolized });
        }
    }

    fn jit(&self, tgid: Tgid, places: &[(usize, RuntimeAddress)], mut put: impl FnMut(usize, KnownCode)) {
        let map = self.perf_map(tgid);
        for (index, address) in places {
            let symbolized = map.as_ref().and_then(|map| map.lookup(*address));
            let symbolized = symbolized.unwrap_or(Symbolized { frames: Vec::new(), kind: FrameKind::Jit });
            put(*index, KnownCode { mapping: Some(mapping("[jit]")), address: address.0, symbolized });
        }
    }

    /// The map that the runtime of a process wrote, inside its mount namespace, under the pid that it has there.
    fn perf_map(&self, tgid: Tgid) -> Option<PerfMap> {
        let PerfMapOwner { own_pid, uid } = self.processes.owner(tgid)?;
        let candidates = [
            PathBuf::from(format!("/proc/{tgid}/root/tmp/perf-{own_pid}.map")),
            PathBuf::from(format!("/tmp/perf-{tgid}.map")),
        ];
        candidates.iter().find_map(|path| {
            let map = PerfMap::read(path, uid);
            map.inspect_err(|error| debug!(%tgid, %error, "no perf map")).ok()
        })
    }
}

/// Takes the symbols and logs why some are missing.
fn report(outcome: Outcome) -> Vec<Symbolized> {
    for problem in &outcome.problems {
        debug!(%problem, "symbols");
    }
    outcome.symbols
}

/// A mapping of this name that processes have at different places.
fn mapping(path: &str) -> ProfileMapping {
    ProfileMapping {
        path: path.into(),
        start: 0,
        end: 0,
        offset: 0,
        gnu_build_id: None,
        go_build_id: None,
        htlhash: None,
        has_functions: false,
        has_filenames: false,
        has_lines: false,
        has_inlines: false,
    }
}

fn object_mapping(object: &Object) -> ProfileMapping {
    ProfileMapping {
        path: Arc::clone(&object.path),
        gnu_build_id: object.gnu_build_id.clone(),
        go_build_id: object.go_build_id.clone(),
        htlhash: Some(Arc::clone(&object.htlhash)),
        ..mapping("")
    }
}

/// A place without a name.
fn unknown(place: &CodeRef) -> KnownCode {
    if let CodeRef::Label(words) = place {
        let function = Arc::clone(words);
        let frame =
            SourceFrame { function, system_name: None, file: None, line: None, column: None, inlined: false };
        let symbolized = Symbolized { frames: vec![frame], kind: FrameKind::Native };
        return KnownCode { mapping: None, address: 0, symbolized };
    }
    let (mapping, address, kind) = match place {
        CodeRef::Kernel(address) => (Some(mapping("[kernel]")), address.0, FrameKind::Kernel),
        CodeRef::Object { address, .. } => (None, address.0, FrameKind::Native),
        CodeRef::Jit { address, .. } => (Some(mapping("[jit]")), address.0, FrameKind::Jit),
        CodeRef::Unreadable { name, offset } => (Some(mapping(name)), offset.0, FrameKind::Native),
        CodeRef::Unknown(address) => (None, address.0, FrameKind::Native),
        CodeRef::Label(_) => (None, 0, FrameKind::Native),
    };
    KnownCode { mapping, address, symbolized: Symbolized { frames: Vec::new(), kind } }
}

/// An image that is in no file (the vdso), as a file.
fn in_memory_file(object: &Object) -> Option<File> {
    let bytes = object.read_all(MAX_IN_MEMORY).ok()?;
    let descriptor = memfd_create(c"descry-image", MFdFlags::MFD_CLOEXEC).ok()?;
    let mut file = File::from(descriptor);
    file.write_all(&bytes).ok()?;
    Some(file)
}

fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
