//! What is traced: the functions and USDT probes of the target's files, found as the files become known.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use descry_abi::limits::MAX_FUNCTIONS;
use descry_decode::ids::{ElfAddress, FunctionNumber, Tgid};
use descry_function::arguments::{self, Parameter};
use descry_function::{
    Binary, Exits, Function, Pattern, Plan, Unprobeable, UsdtPattern, UsdtProbe, What, Wishes, nearest, plan,
    usdt_probes,
};
use descry_process::libraries;
use descry_process::object::{DebugFile, FileReference, Object, ObjectId, debug_file};
use descry_process::table::{MappingTarget, ProcessTable};
use descry_symbol::{ObjectSource, Options, Symbolizer};
use rustc_hash::FxHashSet;

use crate::cli::TraceArgs;
use crate::counted::counters;
use crate::failure::Failure;

/// Bytes of a file that is searched at most: it lies in memory meanwhile.
const MAX_FILE: u64 = 1 << 30;
/// Functions of a file whose source lines are looked up at most.
const MAX_LINES: usize = 4096;
/// Names that are offered for a pattern that nothing fits.
const OFFERED: usize = 3;

counters! {
    /// Counters of this stage.
    CatalogCounters = "descry.trace." {
        /// Files of the target in which functions were looked for.
        files,
        /// Files that could not be read, or are no ELF files.
        files_unreadable,
        /// Functions that a pattern meant and that cannot be probed.
        unprobeable,
        /// Places that the kernel refused to probe.
        refused,
        /// Functions of files that became known during the measurement, not traced because they are too many.
        functions_over_limit,
        /// Arguments of calls that were forgotten because too many calls were open.
        arguments_dropped,
    }
}

/// A traced function or USDT probe.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Its readable name.
    pub name: Arc<str>,
    /// The path of its file.
    pub file: Arc<str>,
    /// Its source file.
    pub source: Option<Arc<str>>,
    /// Its line in the source.
    pub line: Option<u32>,
    /// Its arguments, where they are wanted and known.
    pub parameters: Vec<Parameter>,
}

/// How something is probed.
pub enum How {
    /// A function.
    Function(Plan),
    /// A USDT probe.
    Usdt(UsdtProbe),
}

/// Something to probe.
pub struct Item {
    /// Its number.
    pub number: FunctionNumber,
    /// Where it begins.
    pub address: ElfAddress,
    /// How it is probed.
    pub how: How,
}

/// What is to be probed in a file.
pub struct Work {
    /// The file.
    pub object: Arc<Object>,
    /// Its functions and probes.
    pub items: Vec<Item>,
    /// Functions that cannot be probed, and why.
    pub unprobeable: Vec<(Arc<str>, Unprobeable)>,
}

impl Work {
    /// Places that will be probed; the kernel's return probe counts as one.
    pub fn places(&self) -> usize {
        let places = |item: &Item| match &item.how {
            How::Usdt(_) | How::Function(Plan { exits: Exits::ReturnProbe, .. }) => 1,
            How::Function(Plan { exits: Exits::Instructions(exits), .. }) => 1 + exits.len(),
        };
        self.items.iter().map(places).sum()
    }
}

/// A pattern, and what it has found.
struct Search<P> {
    pattern: P,
    is_found: bool,
    /// Files that it was looked for in.
    files: Vec<String>,
    /// Names that it may have meant.
    offered: Vec<String>,
}

impl<P> Search<P> {
    fn new(pattern: P) -> Self {
        Self { pattern, is_found: false, files: Vec::new(), offered: Vec::new() }
    }
}

/// What is to be traced.
pub struct Traceable {
    /// Functions by name or address.
    pub functions: Vec<Pattern>,
    /// USDT probes.
    pub usdt: Vec<UsdtPattern>,
    /// How functions are probed.
    pub wishes: Wishes,
    /// Whether source lines are looked up.
    pub lines: bool,
}

impl From<&TraceArgs> for Traceable {
    fn from(args: &TraceArgs) -> Self {
        Self {
            functions: args.functions.clone(),
            usdt: args.usdt.clone(),
            wishes: Wishes { arguments: args.arguments, exits_by_instruction: args.exits_by_instruction },
            lines: !args.histogram_only && !args.list,
        }
    }
}

/// Everything that is traced.
pub struct Catalog {
    functions: Vec<Search<Pattern>>,
    usdt: Vec<Search<UsdtPattern>>,
    wishes: Wishes,
    wants_lines: bool,
    seen: FxHashSet<ObjectId>,
    traced: Vec<Traced>,
    counters: CatalogCounters,
}

impl Catalog {
    /// Nothing yet.
    pub fn new(what: Traceable) -> Self {
        Self {
            functions: what.functions.into_iter().map(Search::new).collect(),
            usdt: what.usdt.into_iter().map(Search::new).collect(),
            wishes: what.wishes,
            wants_lines: what.lines,
            seen: FxHashSet::default(),
            traced: Vec::new(),
            counters: CatalogCounters::default(),
        }
    }

    /// What a number stands for.
    pub fn get(&self, number: FunctionNumber) -> Option<&Traced> {
        self.traced.get(number.0 as usize)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.traced.is_empty()
    }

    /// Counters so far.
    pub fn counted(&self) -> CatalogCounters {
        self.counters
    }

    /// The same, to count more.
    pub fn counters(&mut self) -> &mut CatalogCounters {
        &mut self.counters
    }

    /// Looks through the files that a process has mapped and that were not looked through yet.
    pub fn scan(&mut self, processes: &mut ProcessTable, tgid: Tgid) -> Vec<Work> {
        let mappings = processes.get(tgid).map(|process| process.mappings()).unwrap_or_default();
        let ids: Vec<ObjectId> = mappings
            .iter()
            .filter_map(|mapping| match mapping.target {
                MappingTarget::Object { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let new: Vec<ObjectId> = ids.into_iter().filter(|id| self.seen.insert(*id)).collect();
        let objects: Vec<Arc<Object>> =
            new.into_iter().filter_map(|id| processes.objects().get(id).cloned()).collect();
        objects.iter().filter_map(|object| self.search(object, Some(tgid))).collect()
    }

    /// Looks through the files that patterns name by path, whoever uses them.
    ///
    /// # Errors
    /// A path that is no file of code.
    pub fn scan_paths(&mut self, processes: &mut ProcessTable) -> Result<Vec<Work>, Failure> {
        let paths: Vec<PathBuf> = self.functions.iter().filter_map(|search| search.pattern.path()).collect();
        let mut found = Vec::new();
        for path in paths {
            let object = open(processes, &path)?;
            if self.seen.insert(object.id) {
                found.extend(self.search(&object, None));
            }
        }
        Ok(found)
    }

    /// Looks through the libraries that a started program is going to load: its first call of each is to be seen.
    pub fn scan_libraries(&mut self, processes: &mut ProcessTable, tgid: Tgid) -> Vec<Work> {
        let paths = libraries::of_started(tgid).unwrap_or_else(|error| {
            tracing::debug!(%error, "libraries are probed when they are loaded");
            Vec::new()
        });
        let mut found = Vec::new();
        for path in paths {
            // As the process's mappings will name it.
            let path = path.canonicalize().unwrap_or(path);
            match open(processes, &path) {
                Ok(object) if self.seen.insert(object.id) => found.extend(self.search(&object, Some(tgid))),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a library is probed when it is loaded"),
            }
        }
        found
    }

    /// Patterns that fit nothing, each with what was searched and the nearest names.
    pub fn missing(&self) -> Vec<String> {
        let functions =
            self.functions.iter().map(|search| (search.pattern.text.as_str(), "function", search.is_found));
        let functions = functions.zip(self.functions.iter().map(|search| (&search.files, &search.offered)));
        let usdt =
            self.usdt.iter().map(|search| (search.pattern.text.as_str(), "USDT probe", search.is_found));
        let usdt = usdt.zip(self.usdt.iter().map(|search| (&search.files, &search.offered)));
        let missing = functions.chain(usdt).filter(|((_, _, is_found), _)| !is_found);
        missing
            .map(|((text, kind, _), (files, offered))| {
                let searched = match files.as_slice() {
                    [] => "no file of the target fits its FILE".to_owned(),
                    files => format!("searched: {}", files.join(", ")),
                };
                let offer = match offered.as_slice() {
                    [] => String::new(),
                    names => format!("; nearest: {}", names.join(", ")),
                };
                format!("no {kind} fits `{text}` ({searched}){offer}")
            })
            .collect()
    }

    fn search(&mut self, object: &Arc<Object>, tgid: Option<Tgid>) -> Option<Work> {
        let path = Arc::clone(&object.path);
        let is_meant = self.functions.iter().any(|search| search.pattern.is_of_file(&path));
        // The vdso cannot be probed, since it is in no file.
        if object.file().is_none() || !is_meant && self.usdt.is_empty() {
            return None;
        }
        self.counters.files += 1;
        let root = tgid.map(|tgid| PathBuf::from(format!("/proc/{tgid}/root"))).filter(|root| root.is_dir());
        let debug = debug_file(object, root.as_deref());
        let debug_bytes = debug.as_ref().and_then(|debug| std::fs::read(debug.open_path()).ok());
        let bytes = object.read_all(MAX_FILE);
        let bytes = bytes.inspect_err(|error| tracing::warn!("cannot search {path}: {error}"));
        let parsed = bytes.as_ref().ok().map(|bytes| Binary::parse(bytes, debug_bytes.as_deref()));
        let (Ok(bytes), Some(Ok(binary))) = (&bytes, parsed) else {
            self.counters.files_unreadable += 1;
            return None;
        };
        let mut work = Work { object: Arc::clone(object), items: Vec::new(), unprobeable: Vec::new() };
        self.search_functions(&binary, &path, &mut work);
        self.search_usdt(&binary, bytes, &path, &mut work);
        if self.wishes.arguments {
            self.find_parameters(&binary, debug_bytes.as_deref().unwrap_or(bytes), &work);
        }
        if self.wants_lines {
            self.find_lines(object, debug.as_ref(), &work);
        }
        Some(work).filter(|work| !work.items.is_empty() || !work.unprobeable.is_empty())
    }

    fn search_functions(&mut self, binary: &Binary<'_>, path: &Arc<str>, work: &mut Work) {
        let mut found: Vec<(&Function, Arc<str>)> = Vec::new();
        for search in self.functions.iter_mut().filter(|search| search.pattern.is_of_file(path)) {
            let before = found.len();
            match &search.pattern.what {
                What::Address(address) => {
                    found.extend(binary.at(*address).map(|function| (function, function.name().into())));
                }
                What::Glob(_) => found.extend(binary.functions.iter().filter_map(|function| {
                    let fits = |name: &&Arc<str>| search.pattern.is_of_name(name);
                    function.names.iter().find(fits).map(|name| (function, Arc::clone(name)))
                })),
            }
            if found.len() > before {
                search.is_found = true;
                continue;
            }
            let note =
                if binary.is_stripped { " (stripped: only names that other files use are left)" } else { "" };
            search.files.push(format!("{path}{note}"));
            if !search.is_found
                && let What::Glob(glob) = &search.pattern.what
            {
                let names = binary.functions.iter().flat_map(|function| &function.names).map(|name| &**name);
                search
                    .offered
                    .extend(nearest(&glob.pattern(), names, OFFERED).into_iter().map(str::to_owned));
                search.offered.truncate(OFFERED);
            }
        }
        found.sort_by_key(|(function, _)| function.address);
        found.dedup_by_key(|(function, _)| function.address);
        for (function, name) in found {
            match plan(binary, function, self.wishes) {
                Ok(plan) => self.add(work, name, path, function.address, How::Function(plan)),
                Err(why) => {
                    self.counters.unprobeable += 1;
                    work.unprobeable.push((name, why));
                }
            }
        }
    }

    fn search_usdt(&mut self, binary: &Binary<'_>, bytes: &[u8], path: &Arc<str>, work: &mut Work) {
        if self.usdt.is_empty() {
            return;
        }
        let probes = usdt_probes(binary, bytes).unwrap_or_default();
        let name = |probe: &UsdtProbe| format!("{}:{}", probe.provider, probe.name);
        for search in &mut self.usdt {
            if probes.iter().any(|probe| search.pattern.is_of(probe)) {
                search.is_found = true;
                continue;
            }
            search.files.push(path.to_string());
            let names: FxHashSet<String> = probes.iter().map(name).collect();
            let nearest = nearest(&search.pattern.text, names.iter().map(String::as_str), OFFERED);
            search.offered.extend(nearest.into_iter().map(str::to_owned));
            search.offered.truncate(OFFERED);
        }
        for probe in probes {
            if self.usdt.iter().any(|search| search.pattern.is_of(&probe)) {
                self.add(work, name(&probe).into(), path, probe.address, How::Usdt(probe));
            }
        }
    }

    fn add(&mut self, work: &mut Work, name: Arc<str>, file: &Arc<str>, address: ElfAddress, how: How) {
        let number = self.traced.len() as u32;
        if number >= MAX_FUNCTIONS {
            self.counters.functions_over_limit += 1;
            return;
        }
        self.traced.push(Traced {
            name,
            file: Arc::clone(file),
            source: None,
            line: None,
            parameters: Vec::new(),
        });
        work.items.push(Item { number: FunctionNumber(number), address, how });
    }

    /// Looks up where the arguments of each function and probe are.
    fn find_parameters(&mut self, binary: &Binary<'_>, debug: &[u8], work: &Work) {
        // Elsewhere, and in Go, arguments are passed in other registers.
        if !binary.is_x86 || binary.is_go {
            return;
        }
        let addresses: Vec<ElfAddress> = work.items.iter().map(|item| item.address).collect();
        let mut known = arguments::parameters(debug, &addresses);
        for item in &work.items {
            let Some(traced) = self.traced.get_mut(item.number.0 as usize) else { continue };
            traced.parameters = match &item.how {
                How::Function(_) => known.remove(&item.address).unwrap_or_default(),
                How::Usdt(probe) => arguments::usdt_parameters(&probe.arguments),
            };
        }
    }

    /// Looks up where the source of each function is.
    fn find_lines(&mut self, object: &Object, debug: Option<&DebugFile>, work: &Work) {
        let Some(open_path) = object.open_path().filter(|_| !work.items.is_empty()) else { return };
        let source = ObjectSource {
            open_path,
            name: Arc::clone(&object.path),
            debug_path: debug.map(DebugFile::open_path),
            is_go: object.is_go,
            is_rust: object.is_rust,
        };
        let items: Vec<&Item> = work.items.iter().take(MAX_LINES).collect();
        let addresses: Vec<ElfAddress> = items.iter().map(|item| item.address).collect();
        let mut symbolizer = Symbolizer::new(Options::default());
        let outcome = symbolizer.symbolize_object(&source, &addresses);
        for (item, symbol) in items.iter().zip(outcome.symbols) {
            if let (Some(traced), Some(frame)) =
                (self.traced.get_mut(item.number.0 as usize), symbol.frames.last())
            {
                (traced.source, traced.line) = (frame.file.clone(), frame.line);
            }
        }
    }
}

/// Opens a file of descry's own mount namespace.
fn open(processes: &mut ProcessTable, path: &Path) -> Result<Arc<Object>, Failure> {
    let inode = descry_process::target::executable(path)
        .map_err(|error| Failure::Failed(anyhow::anyhow!("{error}")))?;
    let reference = FileReference { path, inode: Some(inode), build_id: None, range: None, current: false };
    let object = processes.objects().acquire(Tgid(std::process::id()), &reference);
    Ok(object.with_context(|| format!("cannot read {}", path.display()))?)
}
