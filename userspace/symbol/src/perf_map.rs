//! Code made at run time, as its runtime describes it in `/tmp/perf-PID.map`.
//!
//! Lines are `START SIZE NAME`, the numbers in hex (Linux: tools/perf/Documentation/jit-interface.txt). The watched
//! program writes the file and may still be writing: lines that are cut or make no sense are counted and left out.
//! Where ranges overlap, the later line is true, because runtimes reuse memory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use descry_decode::ids::RuntimeAddress;

use crate::error::SymbolError;
use crate::frame::{FrameKind, SourceFrame, Symbolized};
use crate::name::cut;

/// Bytes read of one file.
pub const MAX_MAP_BYTES: u64 = 32 << 20;
/// Ranges kept of one file.
pub const MAX_MAP_ENTRIES: usize = 1 << 18;
/// Bytes of a line; the rest of a longer one is dropped.
const MAX_LINE: usize = 8192;
const MAX_NAME: usize = 4096;

#[derive(Clone, Debug)]
struct Entry {
    end: u64,
    name: Arc<str>,
}

/// The ranges of one `perf-PID.map`.
#[derive(Clone, Debug, Default)]
pub struct PerfMap {
    /// By start; ranges do not overlap.
    entries: BTreeMap<u64, Entry>,
    bad_lines: u64,
    over_limit: u64,
}

impl PerfMap {
    /// Reads the file at `path`, which must be a regular file and, if `owner` is given, belong to that user.
    ///
    /// The last part of `path` may not be a symbolic link; to be safe against links in the parts before it, open the
    /// file inside the process's root and use [`Self::from_file`].
    pub fn read(path: &Path, owner: Option<u32>) -> Result<Self, SymbolError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|source| SymbolError::Read { name: name.clone(), source })?;
        Self::from_file(&file, &name, owner)
    }

    /// Reads an open file under the same conditions; `name` is for messages.
    pub fn from_file(file: &File, name: &Arc<str>, owner: Option<u32>) -> Result<Self, SymbolError> {
        let read_error = |source| SymbolError::Read { name: name.clone(), source };
        let metadata = file.metadata().map_err(read_error)?;
        if !metadata.is_file() {
            return Err(SymbolError::NotRegular { name: name.clone() });
        }
        if let Some(expected) = owner.filter(|owner| *owner != metadata.uid()) {
            return Err(SymbolError::WrongOwner { name: name.clone(), found: metadata.uid(), expected });
        }
        let mut reader = BufReader::with_capacity(64 * 1024, file.take(MAX_MAP_BYTES));
        let mut map = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read =
                reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(read_error)?;
            if read == 0 {
                break;
            }
            if line.pop_if(|byte| *byte == b'\n').is_none() {
                // Too long, or the end of a file that is still being written: a name that may lack its tail.
                map.bad_lines += 1;
                if read == MAX_LINE {
                    reader.skip_until(b'\n').map_err(read_error)?;
                }
                continue;
            }
            map.add_line(&line);
        }
        Ok(map)
    }

    /// Parses the contents of a file.
    pub fn parse(text: &[u8]) -> Self {
        let mut map = Self::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) if line.len() < MAX_LINE => map.add_line(line),
                _ => map.bad_lines += 1,
            }
        }
        map
    }

    /// Lines that were cut, too long, or no ranges.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Ranges dropped because there were too many.
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    /// Ranges known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no range is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What runs at an address, if the map has it.
    pub fn lookup(&self, address: RuntimeAddress) -> Option<Symbolized> {
        let (_, entry) =
            self.entries.range(..=address.0).next_back().filter(|(_, entry)| entry.end > address.0)?;
        let (kind, frame) = describe(&entry.name);
        Some(Symbolized { frames: vec![frame], kind })
    }

    fn add_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(3, ' ');
        let number = |word: Option<&str>| {
            let word = word?;
            u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
        };
        let (start, size) = (number(words.next()), number(words.next()));
        let name = words.next().map(str::trim).filter(|name| !name.is_empty());
        match (start, size, name) {
            (Some(start), Some(size), Some(name)) if size > 0 && start.checked_add(size).is_some() => {
                self.insert(start, start + size, cut(name, MAX_NAME).into());
            }
            _ => self.bad_lines += 1,
        }
    }

    /// Puts a range over those that were there.
    fn insert(&mut self, start: u64, end: u64, name: Arc<str>) {
        if self.entries.len() >= MAX_MAP_ENTRIES {
            self.over_limit += 1;
            return;
        }
        // What begins before and reaches in is cut at the start; what it covers beyond the end goes on there.
        if let Some((_, before)) =
            self.entries.range_mut(..start).next_back().filter(|(_, before)| before.end > start)
        {
            let tail = (before.end > end).then(|| before.clone());
            before.end = start;
            if let Some(tail) = tail {
                self.entries.insert(end, tail);
            }
        }
        while let Some((inner, entry)) = self.entries.range(start..end).next() {
            let (inner, entry) = (*inner, entry.clone());
            self.entries.remove(&inner);
            if entry.end > end {
                self.entries.insert(end, entry);
            }
        }
        self.entries.insert(start, Entry { end, name });
    }
}

/// Kinds of code in V8's names (v8/src/logging/log.cc and code-events.h).
const V8_TAGS: [&str; 8] =
    ["JS:", "LazyCompile:", "Function:", "Eval:", "Script:", "RegExp:", "Builtin:", "BytecodeHandler:"];

fn describe(name: &str) -> (FrameKind, SourceFrame) {
    if let Some(frame) = v8(name) {
        return (FrameKind::V8Js, frame);
    }
    // CPython's trampolines (Python/perf_trampoline.c): py::FUNCTION:FILE.
    if let Some((function, file)) = name.strip_prefix("py::").and_then(|rest| rest.split_once(':')) {
        return (FrameKind::Jit, frame(function, Some(file), None, None));
    }
    // perf-map-agent: Lpackage/Class;::method. The JDK's own: TYPE package.Class.method(TYPES).
    let is_jvm = (name.starts_with('L') && name.contains(";::"))
        || name
            .strip_suffix(')')
            .and_then(|rest| rest.split_once('('))
            .and_then(|(head, _)| head.split_once(' '))
            .is_some_and(|(_, method)| method.contains('.') && !method.contains([' ', '[', ':']));
    (if is_jvm { FrameKind::Jvm } else { FrameKind::Jit }, frame(name, None, None, None))
}

/// `JS:*function file:line:column`; `*`, `~`, `^`, `+` tell which of V8's compilers made the code.
fn v8(name: &str) -> Option<SourceFrame> {
    let tag = V8_TAGS.iter().find(|tag| name.starts_with(**tag));
    let rest = match tag {
        Some(tag) => name.get(tag.len()..)?,
        None => name.strip_prefix('*').filter(|rest| rest.contains(' '))?,
    };
    if matches!(tag, Some(&"Builtin:" | &"BytecodeHandler:" | &"RegExp:")) {
        return Some(frame(name, None, None, None));
    }
    let rest = rest.trim_start_matches(['*', '~', '^', '+']);
    let (function, place) = rest.split_once(' ').unwrap_or((rest, ""));
    let function = if function.is_empty() { "(anonymous)" } else { function };
    let mut parts = place.rsplitn(3, ':');
    let (last, middle, first) = (parts.next(), parts.next(), parts.next());
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
    Some(match (first, number(middle), number(last)) {
        (Some(file), Some(line), Some(column)) => frame(function, Some(file), Some(line), Some(column)),
        _ => match place.rsplit_once(':').map(|(file, line)| (file, line.parse::<u32>())) {
            Some((file, Ok(line))) => frame(function, Some(file), Some(line), None),
            _ => frame(function, Some(place), None, None),
        },
    })
}

fn frame(function: &str, file: Option<&str>, line: Option<u32>, column: Option<u32>) -> SourceFrame {
    SourceFrame {
        function: function.into(),
        system_name: None,
        file: file.filter(|file| !file.is_empty()).map(Into::into),
        line,
        column,
        inlined: false,
    }
}
