//! Addresses of files and of the kernel to frames.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use descry_decode::ids::{ElfAddress, RuntimeAddress};

use crate::counters::Counters;
use crate::error::{Outcome, SymbolError};
use crate::frame::{FrameKind, SourceFrame, Symbolized};
use crate::kernel::KernelNames;
use crate::options::{ObjectSource, Options};
use crate::resolve;

/// Turns addresses into functions, files and lines. Keeps nothing of a file after the call that read it.
#[derive(Debug)]
pub struct Symbolizer {
    options: Options,
    kallsyms: PathBuf,
    kernel: KernelNames,
    counters: Counters,
}

impl Symbolizer {
    /// A symbolizer for this machine.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            kallsyms: PathBuf::from("/proc/kallsyms"),
            kernel: KernelNames::default(),
            counters: Counters::default(),
        }
    }

    /// Reads kernel symbols from another file than `/proc/kallsyms`.
    pub fn with_kallsyms(mut self, path: &Path) -> Self {
        self.kallsyms = path.to_path_buf();
        self.kernel = KernelNames::default();
        self
    }

    /// With the names that another one remembered.
    pub fn with_kernel_names(self, kernel: KernelNames) -> Self {
        Self { kernel, ..self }
    }

    /// The names that it remembers.
    pub fn into_kernel_names(self) -> KernelNames {
        self.kernel
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Names addresses of one file. Return addresses must have been made to point into their call (minus one).
    ///
    /// Preferred are, in this order: debug information in the file, in `debug_path`, `.symtab` of either, `.dynsym`, the
    /// linkage table, Go's own table. Whatever the file holds, this neither panics nor takes more than the limits.
    pub fn symbolize_object(&mut self, source: &ObjectSource, addresses: &[ElfAddress]) -> Outcome {
        let mut sorted: Vec<u64> = addresses.iter().map(|address| address.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut problems = Vec::new();
        let found = resolve::symbolize(source, &sorted, &self.options, &mut problems, &mut self.counters);
        let kind = match (source.is_go, source.is_rust) {
            (true, _) => FrameKind::Go,
            (_, true) => FrameKind::Rust,
            _ => FrameKind::Native,
        };
        let symbols = addresses
            .iter()
            .map(|address| {
                let index = sorted.binary_search(&address.0).ok();
                let symbol = index.and_then(|index| found.get(index)).cloned();
                symbol.unwrap_or(Symbolized { frames: Vec::new(), kind })
            })
            .collect();
        self.finish(symbols, problems)
    }

    /// Names addresses of the kernel, its modules and its BPF programs.
    pub fn symbolize_kernel(&mut self, addresses: &[RuntimeAddress]) -> Outcome {
        let asked: Vec<u64> = addresses.iter().map(|address| address.0).collect();
        let names = self.kernel.lookup(&self.kallsyms, &asked, self.options.limits.max_name_bytes);
        let (names, problems) = match names {
            Ok(names) => (names, Vec::new()),
            Err(error) => (vec![None; asked.len()], vec![error]),
        };
        let symbols: Vec<Symbolized> = names
            .into_iter()
            .map(|name| {
                let frames = name.map(plain_frame).into_iter().collect::<Vec<_>>();
                self.counters.by_kallsyms += frames.len() as u64;
                Symbolized { frames, kind: FrameKind::Kernel }
            })
            .collect();
        self.finish(symbols, problems)
    }

    fn finish(&mut self, symbols: Vec<Symbolized>, problems: Vec<SymbolError>) -> Outcome {
        self.counters.addresses += symbols.len() as u64;
        self.counters.unknown += symbols.iter().filter(|symbol| symbol.frames.is_empty()).count() as u64;
        self.counters.problems += problems.len() as u64;
        Outcome { symbols, problems }
    }
}

fn plain_frame(function: Arc<str>) -> SourceFrame {
    SourceFrame { function, system_name: None, file: None, line: None, column: None, inlined: false }
}
