//! An ELF file as a list of functions.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use descry_decode::ids::{ElfAddress, FileOffset};
use descry_symbol::GoFunction;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind, SymbolSection, elf};
use rustc_hash::{FxHashMap, FxHashSet};

/// Symbols that are read of a file at most.
const MAX_SYMBOLS: usize = 4 << 20;
/// Functions that are read of a Go program at most; Kubernetes' have some 100 000.
const MAX_GO_FUNCTIONS: usize = 1 << 20;
/// Bytes of a readable name, and of one as it stands in the file.
const MAX_NAME: usize = 1024;
const MAX_RAW_NAME: usize = 4096;
/// Segments with code; linkers make one or two.
const MAX_SEGMENTS: usize = 64;
/// Bytes of a function without a size, where nothing behind it says how far it reaches.
const MAX_UNSIZED: u64 = 4096;
/// Sections that only Go's linker makes; the first two hold the names of functions, also in a stripped program.
const GO: [&str; 3] = [".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo"];
/// What rustc leaves in `.comment`.
const RUSTC: &[u8] = b"rustc";
/// What compilers append to the name of a function's cold part; a number may follow.
const COLD: &[u8] = b".cold";
/// What tells that exceptions or panics are unwound: the personality routines of C++ and Rust.
const PERSONALITIES: [&[u8]; 2] = [b"__gxx_personality_v0", b"rust_eh_personality"];

/// Why a file has no functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// Its headers or tables are damaged.
    #[error("it is no ELF file of 64 bits, or a damaged one")]
    Damaged,
}

/// A function of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its readable names, the best one first.
    pub names: Vec<Arc<str>>,
    /// Where it begins.
    pub address: ElfAddress,
    /// How long it is (bytes).
    pub size: u64,
    /// Where it begins in the file; none: it is not in code that is loaded from the file.
    pub offset: Option<FileOffset>,
    /// Whether it only chooses, when the program starts, which function a name stands for.
    pub is_resolver: bool,
    /// A part of it that was laid elsewhere because it is rarely run (`f.cold`).
    pub cold: Option<(ElfAddress, u64)>,
}

impl Function {
    /// Its best name.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }
}

/// A file's functions and code.
pub struct Binary<'a> {
    bytes: &'a [u8],
    /// Addresses of code, and where they are in the file.
    code: Vec<(Range<u64>, u64)>,
    /// Its functions, by address.
    pub functions: Vec<Function>,
    /// Whether only the names are left that other files use. A Go program has others.
    pub is_stripped: bool,
    /// Whether exceptions or panics may pass through its functions: the kernel's return probes would end them.
    pub unwinds: bool,
    /// Whether Go's linker made it.
    pub is_go: bool,
    /// Whether it is code for this processor's instruction set, x86_64, that is looked into.
    pub is_x86: bool,
}

/// A name as it stands in a symbol table.
struct Symbol<'a> {
    name: &'a [u8],
    address: u64,
    size: u64,
    rank: u8,
    is_resolver: bool,
}

impl Symbol<'_> {
    /// By address; the best name of each first: global before weak before local, then the shortest.
    fn order(&self) -> (u64, Reverse<u8>, usize, &[u8]) {
        (self.address, Reverse(self.rank), self.name.len(), self.name)
    }
}

impl<'a> Binary<'a> {
    /// Reads a file; `debug` is the file that its symbols were moved to, where there is one.
    pub fn parse(bytes: &'a [u8], debug: Option<&'a [u8]>) -> Result<Self, BinaryError> {
        Self::parse_named(bytes, debug, &|_| true)
    }

    /// The same with functions of some names only, as they stand in the file.
    pub(crate) fn parse_named(
        bytes: &'a [u8],
        debug: Option<&'a [u8]>,
        is_wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self, BinaryError> {
        let file = ElfFile64::<Endianness>::parse(bytes).map_err(|_| BinaryError::Damaged)?;
        let header = file.elf_header();
        let endian = header.endian().map_err(|_| BinaryError::Damaged)?;
        let segments = header.program_headers(endian, bytes).map_err(|_| BinaryError::Damaged)?;
        let is_code = |flags: elf::ProgramFlags| flags.0 & elf::PF_X.0 != 0;
        let code = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD && is_code(segment.p_flags(endian)))
            .take(MAX_SEGMENTS)
            .map(|segment| {
                let start = segment.p_vaddr(endian);
                (start..start.saturating_add(segment.p_filesz(endian)), segment.p_offset(endian))
            })
            .collect();
        let is_rust = file
            .section_by_name(".comment")
            .and_then(|section| section.data().ok())
            .is_some_and(|comment| comment.windows(RUSTC.len()).any(|part| part == RUSTC));
        let debug = debug.and_then(|debug| ElfFile64::<Endianness>::parse(debug).ok());
        let has_symbols = |file: &ElfFile64<'_, Endianness>| file.section_by_name(".symtab").is_some();
        let mut binary = Self {
            bytes,
            code,
            functions: Vec::new(),
            is_stripped: !has_symbols(&file) && !debug.as_ref().is_some_and(has_symbols),
            unwinds: is_rust,
            is_go: GO.iter().any(|section| file.section_by_name(section).is_some()),
            is_x86: header.e_machine(endian) == elf::EM_X86_64,
        };
        let mut symbols = Vec::new();
        for file in std::iter::once(&file).chain(&debug) {
            for symbol in file.symbols().chain(file.dynamic_symbols()).take(MAX_SYMBOLS) {
                let Ok(name) = symbol.name_bytes() else { continue };
                binary.unwinds |= PERSONALITIES.contains(&name);
                symbols.extend(function_symbol(&symbol, name).filter(|_| is_wanted(name)));
            }
        }
        if binary.is_stripped && binary.is_go {
            let mut known = go_symbols(&file).take(MAX_GO_FUNCTIONS).peekable();
            binary.is_stripped = known.peek().is_none();
            symbols.extend(known.filter(|symbol| is_wanted(symbol.name)));
        }
        binary.functions = binary.merged(symbols);
        Ok(binary)
    }

    /// Functions by address, each with all of its names.
    fn merged(&self, mut symbols: Vec<Symbol<'a>>) -> Vec<Function> {
        let mut cold = FxHashMap::default();
        symbols.retain(|symbol| match symbol.name.windows(COLD.len()).position(|part| part == COLD) {
            Some(at) => {
                let place = (ElfAddress(symbol.address), symbol.size);
                cold.insert(symbol.name.get(..at).unwrap_or_default(), place);
                false
            }
            None => true,
        });
        symbols.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut functions: Vec<Function> = Vec::new();
        // Names of the last function: there may be very many.
        let mut known = FxHashSet::default();
        for symbol in symbols {
            let Some(name) = descry_symbol::readable(symbol.name, MAX_NAME) else { continue };
            let cold = cold.get(symbol.name).copied();
            match functions.last_mut().filter(|last| last.address.0 == symbol.address) {
                Some(same) => {
                    same.size = same.size.max(symbol.size);
                    same.is_resolver |= symbol.is_resolver;
                    same.cold = same.cold.or(cold);
                    if known.insert(Arc::clone(&name)) {
                        same.names.push(name);
                    }
                }
                None => {
                    known = FxHashSet::from_iter([Arc::clone(&name)]);
                    functions.push(Function {
                        names: vec![name],
                        address: ElfAddress(symbol.address),
                        size: symbol.size,
                        offset: self.offset(ElfAddress(symbol.address)),
                        is_resolver: symbol.is_resolver,
                        cold,
                    });
                }
            }
        }
        let mut next = u64::MAX;
        for function in functions.iter_mut().rev() {
            if function.size == 0 {
                function.size = next.saturating_sub(function.address.0).min(MAX_UNSIZED);
            }
            next = function.address.0;
        }
        functions
    }

    /// Where code at an address is in the file.
    pub fn offset(&self, address: ElfAddress) -> Option<FileOffset> {
        let (range, offset) = self.code.iter().find(|(range, _)| range.contains(&address.0))?;
        Some(FileOffset(offset.checked_add(address.0 - range.start)?))
    }

    /// Code from an address on, at most `len` bytes and not beyond its segment.
    pub(crate) fn code(&self, address: ElfAddress, len: u64) -> &'a [u8] {
        let Some((range, _)) = self.code.iter().find(|(range, _)| range.contains(&address.0)) else {
            return &[];
        };
        let len = len.min(range.end - address.0);
        let start = self.offset(address).and_then(|offset| usize::try_from(offset.0).ok());
        let end = start.and_then(|start| start.checked_add(usize::try_from(len).ok()?));
        start.zip(end).and_then(|(start, end)| self.bytes.get(start..end)).unwrap_or_default()
    }

    /// The function that begins at an address.
    pub fn at(&self, address: ElfAddress) -> Option<&Function> {
        let index = self.functions.binary_search_by_key(&address, |function| function.address).ok()?;
        self.functions.get(index)
    }
}

/// What a Go program itself needs to know of its functions.
fn go_symbols<'a>(file: &ElfFile64<'a, Endianness>) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
    let text = file.section_by_name(".text").map_or(0, |section| section.address());
    let table = GO.iter().find_map(|name| file.section_by_name(name)).and_then(|section| section.data().ok());
    let functions = descry_symbol::go_functions(table.unwrap_or_default(), ElfAddress(text));
    functions.map(|GoFunction { name, address, size }| Symbol {
        name,
        address: address.0,
        size,
        rank: 0,
        is_resolver: false,
    })
}

/// A symbol that names code.
fn function_symbol<'a>(symbol: &impl ObjectSymbol<'a>, name: &'a [u8]) -> Option<Symbol<'a>> {
    let object::SymbolFlags::Elf { st_info, .. } = symbol.flags() else { return None };
    let is_resolver = st_info.st_type() == elf::STT_GNU_IFUNC;
    if symbol.kind() != SymbolKind::Text && !is_resolver
        || name.is_empty()
        || matches!(symbol.section(), SymbolSection::Undefined | SymbolSection::None)
    {
        return None;
    }
    let name = name.get(..MAX_RAW_NAME).unwrap_or(name);
    let rank = if symbol.is_weak() { 1 } else { u8::from(symbol.is_global()) * 2 };
    Some(Symbol { name, address: symbol.address(), size: symbol.size(), rank, is_resolver })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripped_go_program_has_functions() {
        let bytes = include_bytes!("../../../tests/fuzz/corpus/function/go_stripped");
        let binary = Binary::parse(bytes, None).expect("a file");
        let functions: Vec<_> = binary.functions.iter().map(|it| (it.name(), it.size)).collect();
        assert_eq!(functions, [("main.work", 4), ("main.(*T).rest", 12)]);
        assert!(binary.is_go && !binary.is_stripped);
        assert!(binary.functions.iter().all(|it| it.offset.is_some()));
    }

    #[test]
    fn functions_of_a_file() {
        let bytes = include_bytes!("../../../tests/fuzz/corpus/function/code");
        let binary = Binary::parse(bytes, None).expect("a file");
        let names = |wanted: &dyn Fn(&Function) -> bool| {
            binary.functions.iter().filter(|it| wanted(it)).map(Function::name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&|_| true),
            ["fail", "choose_a", "add", "named", "many", "check", "probe", "main_loop", "chosen"]
        );
        assert_eq!(names(&|it| it.cold.is_some()), ["check"]);
        assert_eq!(names(&|it| it.is_resolver), ["chosen"]);
        assert!(binary.is_x86 && !binary.is_stripped && !binary.is_go && !binary.unwinds);
        // `chooser` and `chosen` are one address.
        let both = binary.functions.last().map(|it| it.names.iter().map(|name| &**name).collect::<Vec<_>>());
        assert_eq!(both, Some(vec!["chosen", "chooser"]));
    }
}
