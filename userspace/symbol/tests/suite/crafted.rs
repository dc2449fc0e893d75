//! Debug information made by hand: one file for each way in which it could hurt blazesym.

use std::path::Path;

use descry_decode::ids::ElfAddress;
use descry_symbol::{Options, SymbolError, Symbolizer};

use crate::support::{Program, source, symbolize};

const CODE: &str = r#"
    __attribute__((noinline)) int work(int x) { volatile int y = x; return y; }
    int main(int argc, char **argv) { return work(argc); }
"#;

/// A kind of entry of debug information: DWARF's numbers of its tag, and of name and form of its attributes.
struct Kind {
    tag: u8,
    has_children: bool,
    attributes: &'static [(u8, u8)],
}

/// The bytes of abbreviations; the first has code 1.
fn abbreviations(kinds: &[Kind]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        bytes.extend([index as u8 + 1, kind.tag, u8::from(kind.has_children)]);
        bytes.extend(kind.attributes.iter().flat_map(|(name, form)| [*name, *form]));
        bytes.extend([0, 0]);
    }
    bytes.push(0);
    bytes
}

/// A DWARF 4 unit of these entries, with its header.
fn unit(entries: &[u8]) -> Vec<u8> {
    let mut unit = (entries.len() as u32 + 7).to_le_bytes().to_vec();
    unit.extend([4, 0, 0, 0, 0, 0, 8]);
    unit.extend(entries);
    unit
}

/// A copy of the program with these sections added.
fn with_sections(program: &Program, sections: &[(&str, &[u8])]) -> std::path::PathBuf {
    let mut flags = Vec::new();
    for (name, bytes) in sections {
        let path = program.directory.path().join(&name[1..]);
        std::fs::write(&path, bytes).expect("it is written");
        flags.extend(["--add-section".to_owned(), format!("{name}={}", path.display())]);
    }
    program.objcopy(&flags.iter().map(String::as_str).collect::<Vec<_>>(), "crafted")
}

const UNIT: u8 = 0x11;
const FUNCTION: u8 = 0x2e;
const INLINED: u8 = 0x1d;
const LOW_PC: (u8, u8) = (0x11, 0x01);
const HIGH_PC: (u8, u8) = (0x12, 0x07);
const NAME: (u8, u8) = (0x03, 0x0e);
const RANGES: (u8, u8) = (0x55, 0x17);
const STMT_LIST: (u8, u8) = (0x10, 0x17);

/// Names come from the symbol table where debug information is refused, with this reason.
#[track_caller]
fn check_refused(file: &Path, start: u64, reason: &str) {
    let outcome = symbolize(&source(file), &[start]);
    let problems = &outcome.problems[..];
    assert!(
        matches!(problems, [SymbolError::Dwarf { reason: told, .. }] if told.contains(reason)),
        "{problems:?}"
    );
    assert_eq!(&*outcome.symbols[0].frames.last().expect("a frame").function, "work");
}

/// A line program of DWARF 4 with one file: a row at `start` of the file of this number.
fn line_program(start: u64, size: u64, file: u8) -> Vec<u8> {
    // Sizes of instructions, lines from -5 in 14 steps, 9 standard opcodes; no directories; file 1.
    let header = [1, 1, 1, 0xfb, 14, 10, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, b'f', 0, 0, 0, 0, 0];
    let mut lines = vec![4, 0];
    lines.extend((header.len() as u32).to_le_bytes());
    lines.extend(header);
    // Set the address; set the file; a row; to the end of the function, which must be short.
    lines.extend([0, 9, 2]);
    lines.extend(start.to_le_bytes());
    lines.extend([4, file, 1, 2, u8::try_from(size).expect("a short function") & 0x7f, 0, 1, 1]);
    [&(lines.len() as u32).to_le_bytes()[..], &lines].concat()
}

/// A program with one function in which that many are inlined into each other.
fn nested(program: &Program, depth: usize) -> std::path::PathBuf {
    let (start, size) = program.symbol("work");
    let kinds = [
        Kind { tag: UNIT, has_children: true, attributes: &[LOW_PC, HIGH_PC, STMT_LIST] },
        Kind { tag: FUNCTION, has_children: true, attributes: &[LOW_PC, HIGH_PC] },
        Kind { tag: INLINED, has_children: true, attributes: &[LOW_PC, HIGH_PC] },
    ];
    let mut entries = Vec::new();
    for index in 0..depth + 2 {
        entries.push(index.min(2) as u8 + 1);
        entries.extend(start.to_le_bytes());
        entries.extend(size.to_le_bytes());
        entries.extend(if index == 0 { &[0; 4][..] } else { &[] });
    }
    entries.resize(entries.len() + depth + 2, 0);
    with_sections(
        program,
        &[
            (".debug_info", &unit(&entries)),
            (".debug_abbrev", &abbreviations(&kinds)),
            (".debug_line", &line_program(start, size, 1)),
        ],
    )
}

#[test]
fn endless_nesting_is_cut() {
    let program = Program::build("cc", &["-O2", "-no-pie"], CODE);
    let (start, _) = program.symbol("work");
    check_refused(&nested(&program, 200_000), start, "nested too deeply");
    // blazesym follows this by recursion; it must have the stack.
    let outcome = symbolize(&source(&nested(&program, 1000)), &[start]);
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    assert_eq!(outcome.symbols[0].frames.len(), 1001);
}

/// A hundred thousand functions, each in the same ten thousand ranges: 32 GB if it were believed.
#[test]
fn tables_that_everything_refers_to_are_refused() {
    let program = Program::build("cc", &["-O2", "-no-pie"], CODE);
    let (start, size) = program.symbol("work");
    let kinds = [
        Kind { tag: UNIT, has_children: true, attributes: &[LOW_PC, HIGH_PC] },
        Kind { tag: FUNCTION, has_children: false, attributes: &[RANGES] },
    ];
    let mut entries = vec![1];
    entries.extend(start.to_le_bytes());
    entries.extend(size.to_le_bytes());
    entries.extend([2, 0, 0, 0, 0].repeat(100_000));
    entries.push(0);
    let mut ranges: Vec<u8> = [1u64, 2].map(u64::to_le_bytes).concat().repeat(10_000);
    ranges.extend([0; 16]);
    let repeated = with_sections(
        &program,
        &[
            (".debug_info", &unit(&entries)),
            (".debug_abbrev", &abbreviations(&kinds)),
            (".debug_ranges", &ranges),
        ],
    );
    check_refused(&repeated, start, "range lists are referred to again and again");
}

/// A name that takes long to look through, however short the entries that refer to it.
#[test]
fn endless_names_are_refused() {
    let program = Program::build("cc", &["-O2", "-no-pie"], CODE);
    let (start, size) = program.symbol("work");
    let kinds = [
        Kind { tag: UNIT, has_children: true, attributes: &[LOW_PC, HIGH_PC] },
        Kind { tag: FUNCTION, has_children: false, attributes: &[NAME] },
    ];
    let mut entries = vec![1];
    entries.extend(start.to_le_bytes());
    entries.extend(size.to_le_bytes());
    entries.extend([2, 0, 0, 0, 0].repeat(100_000));
    entries.push(0);
    let endless = with_sections(
        &program,
        &[
            (".debug_info", &unit(&entries)),
            (".debug_abbrev", &abbreviations(&kinds)),
            (".debug_str", &[b'x'; 300_000]),
        ],
    );
    check_refused(&endless, start, "a string has no end");
}

/// A line of a file that the line program does not have makes blazesym panic.
#[test]
fn panics_cost_only_lines() {
    let program = Program::build("cc", &["-O2", "-no-pie"], CODE);
    let (start, size) = program.symbol("work");
    let kinds = [Kind { tag: UNIT, has_children: false, attributes: &[LOW_PC, HIGH_PC, STMT_LIST] }];
    let mut entry = vec![1];
    entry.extend(start.to_le_bytes());
    entry.extend(size.to_le_bytes());
    entry.extend([0; 4]);
    let lines = line_program(start, size, 99);
    let wrong = with_sections(
        &program,
        &[(".debug_info", &unit(&entry)), (".debug_abbrev", &abbreviations(&kinds)), (".debug_line", &lines)],
    );
    let mut symbolizer = Symbolizer::new(Options::default());
    let outcome = symbolizer.symbolize_object(&source(&wrong), &[ElfAddress(start)]);
    assert_eq!(symbolizer.counters().panics, 1);
    assert!(matches!(outcome.problems[..], [SymbolError::Symbolizer { .. }]), "{:?}", outcome.problems);
    assert_eq!(&*outcome.symbols[0].frames[0].function, "work");
}
