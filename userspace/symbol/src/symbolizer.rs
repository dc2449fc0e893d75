//! Addresses of files and of the kernel to frames.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use descry_decode::ids::{ElfAddress, RuntimeAddress};
use lru::LruCache;
use rustc_hash::FxHashMap;

use crate::counters::Counters;
use crate::error::{Outcome, SymbolError};
use crate::frame::{FrameKind, SourceFrame, Symbolized};
use crate::options::{ObjectSource, Options};
use crate::{kernel, resolve};

/// Kernel addresses remembered (about 100 B each); the same few thousand come again and again.
const KERNEL_CACHE: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

/// Turns addresses into functions, files and lines. Keeps nothing of a file after the call that read it.
#[derive(Debug)]
pub struct Symbolizer {
    options: Options,
    kallsyms: PathBuf,
    kernel: LruCache<u64, Option<Arc<str>>>,
    counters: Counters,
}

impl Symbolizer {
    /// A symbolizer for this machine.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            kallsyms: PathBuf::from("/proc/kallsyms"),
            kernel: LruCache::new(KERNEL_CACHE),
            counters: Counters::default(),
        }
    }

    /// Reads kernel symbols from another file than `/proc/kallsyms`.
    pub fn with_kallsyms(mut self, path: &Path) -> Self {
        self.kallsyms = path.to_path_buf();
        self.kernel.clear();
        self
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
        let mut missing: Vec<u64> = addresses
            .iter()
            .map(|address| address.0)
            .filter(|address| !self.kernel.contains(address))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let mut problems = Vec::new();
        let mut fresh = FxHashMap::default();
        if !missing.is_empty() {
            match kernel::lookup(&self.kallsyms, &missing, self.options.limits.max_name_bytes) {
                Ok(names) => {
                    for (address, name) in missing.into_iter().zip(names) {
                        self.kernel.put(address, name.clone());
                        fresh.insert(address, name);
                    }
                }
                Err(error) => problems.push(error),
            }
        }
        let symbols: Vec<Symbolized> = addresses
            .iter()
            .map(|address| {
                // A call with more addresses than the cache holds has its names in `fresh`.
                let known = self.kernel.get(&address.0).or_else(|| fresh.get(&address.0)).cloned().flatten();
                let frames = known.map(plain_frame).into_iter().collect::<Vec<_>>();
                self.counters.by_kallsyms += frames.len() as u64;
                Symbolized { frames, kind: FrameKind::Kernel }
            })
            .collect();
        self.finish(symbols, problems)
    }

    /// Forgets the names of kernel addresses: a module was loaded or removed.
    pub fn forget_kernel(&mut self) {
        self.kernel.clear();
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
