//! Programs whose execution units are not threads: the kernel side is told how to find them, or that nobody can.

use std::fs;
use std::sync::Arc;

use descry_abi::unit::{UnitKind, UnitRule};
use descry_decode::ids::{FileOffset, Tgid};
use descry_function::TokioSymbols;
use descry_probe::Session;
use descry_process::object::{Object, ObjectId};
use descry_symbol::{ObjectSource, goroutine_rule};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::measure::{Program, Tracker};

/// Programs whose rule is remembered at most; 60 B each.
const MAX_PROGRAMS: usize = 4096;
/// Processes that were looked at, remembered at most.
const MAX_PROCESSES: usize = 65_536;
/// Bytes at a file's beginning that hold its program headers.
const HEAD: u64 = 4096;
/// Threads of a process whose names are looked at.
const MAX_THREADS: usize = 256;
/// What the names of Tokio's own threads begin with, in all of its versions.
const TOKIO_THREAD: &str = "tokio-r";
/// What runs programs whose work goes from thread to thread, or whose one thread works for everybody by turns: as in
/// `process.runtime.name`.
const LOOPS: [&str; 5] = ["nodejs", "deno", "bun", ".NET", "BEAM"];
/// Libraries that show that a program has such a loop: asyncio's own, and uvloop.
const LOOP_LIBRARIES: [&str; 2] = ["/_asyncio.", "/uvloop/"];
/// Nobody can tell.
const UNKNOWN: UnitRule = UnitRule {
    kind: UnitKind::Unknown as u32,
    id: 0,
    tls: 0,
    alive: 0,
    m: 0,
    current: 0,
    parent: 0,
    reserved: 0,
};

/// The rules.
#[derive(Default)]
pub struct Units {
    by_program: FxHashMap<ObjectId, Option<UnitRule>>,
    said: FxHashSet<ObjectId>,
    met: FxHashSet<Tgid>,
    untold: Vec<(Tgid, UnitRule)>,
    /// Processes whose units cannot be found.
    unknown: u64,
}

impl Units {
    /// A process is there: finds its rule, if it was not looked at before. Says whether it was not.
    pub fn met(&mut self, tracker: &mut Tracker, tgid: Tgid) -> bool {
        if self.met.len() >= MAX_PROCESSES {
            self.met.clear();
        }
        if !self.met.insert(tgid) {
            return false;
        }
        let Some(program) = tracker.program(tgid) else { return true };
        let rule = self.of_program(&program.object).or_else(|| {
            let why = why_unknown(&program, tgid)?;
            self.unknown += 1;
            if self.said.len() < MAX_PROGRAMS && self.said.insert(program.object.id) {
                let path = &program.object.path;
                tracing::info!(%path, "what it asks is not joined to what it is asked: {why}");
            }
            Some(UNKNOWN)
        });
        self.untold.extend(rule.map(|rule| (tgid, rule)));
        true
    }

    /// Whether the goroutines of a program can be told apart.
    pub fn knows(&mut self, program: &Object) -> bool {
        self.of_program(program).is_some()
    }

    fn of_program(&mut self, object: &Object) -> Option<UnitRule> {
        if self.by_program.len() >= MAX_PROGRAMS {
            self.by_program.clear();
        }
        *self.by_program.entry(object.id).or_insert_with(|| {
            if object.is_go {
                return goroutine_rule(&ObjectSource {
                    open_path: object.open_path()?,
                    name: Arc::clone(&object.path),
                    debug_path: None,
                    is_go: true,
                    is_rust: false,
                });
            }
            if object.is_rust { tokio_rule(object) } else { None }
        })
    }

    /// A process ended, or runs another program.
    pub fn forget(&mut self, tgid: Tgid) {
        self.met.remove(&tgid);
    }

    /// Tells the kernel side what is new.
    pub fn tell(&mut self, session: &mut Session) {
        for (tgid, rule) in self.untold.drain(..) {
            session.set_unit_rule(tgid, rule);
        }
    }

    /// Processes so far whose units cannot be found.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

/// The rule for the tasks of a Tokio program that has its symbols.
fn tokio_rule(object: &Object) -> Option<UnitRule> {
    let section = |name| object.read_section(name).ok().flatten();
    let (table, strings) = (section(".symtab")?, section(".strtab")?);
    let symbols = TokioSymbols::find(&table.data, &strings.data)?;
    let head = object.read_range(FileOffset(0), HEAD.min(object.len())).ok()?;
    let code = symbols.code().iter().filter_map(|(address, len)| {
        let segment = object.segments.iter().find(|segment| {
            segment.executable
                && address.0.checked_sub(segment.vaddr.0).is_some_and(|into| into < segment.file_size)
        })?;
        let into = address.0.checked_sub(segment.vaddr.0)?;
        let offset = FileOffset(segment.file_offset.checked_add(into)?);
        Some((*address, object.read_range(offset, (*len).min(segment.file_size - into)).ok()?))
    });
    symbols.rule(&head, &code.collect::<Vec<_>>())
}

/// Why nobody can tell for whom the threads of a program without a rule work; none: each works for itself.
fn why_unknown(program: &Program, tgid: Tgid) -> Option<&'static str> {
    if program.object.is_go {
        return Some("a version of Go, or a processor, that is not known");
    }
    if program.runtime.is_some_and(|runtime| LOOPS.contains(&runtime)) {
        return Some("its run-time system does not tell for whom a thread works");
    }
    if program.has_file_like(&LOOP_LIBRARIES) {
        return Some("asyncio does not tell for whom it works");
    }
    (program.object.is_rust && has_tokio_threads(tgid))
        .then_some("a Tokio program without symbols, of an unknown version or for an unknown processor")
}

fn has_tokio_threads(tgid: Tgid) -> bool {
    let threads = fs::read_dir(format!("/proc/{tgid}/task")).into_iter().flatten().flatten();
    threads.take(MAX_THREADS).any(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with(TOKIO_THREAD))
    })
}
