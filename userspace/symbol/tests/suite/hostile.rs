//! Files that were damaged on purpose: no panic, no endless work, whatever they hold.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Program, source, spread, symbolize};
use descry_decode::ids::ElfAddress;
use descry_symbol::{Limits, ObjectSource, Options, SymbolError, Symbolizer};

const CODE: &str = r#"
    #include <stdio.h>
    struct pair { int a, b; };
    static inline __attribute__((always_inline)) int twice(struct pair p) { return p.a * 2 + p.b; }
    __attribute__((noinline)) int work(int x) { struct pair p = {x, 1}; volatile int y = twice(p); return y; }
    int main(int argc, char **argv) { printf("%d\n", work(argc)); return 0; }
"#;

/// A generator of numbers that are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

fn small_limits() -> Options {
    let limits = Limits { max_work: 4 << 20, max_decompressed_bytes: 1 << 20, ..Limits::default() };
    Options { limits, ..Options::default() }
}

/// Positions in the file of the sections that are parsed.
fn interesting(file: &Path) -> Vec<(usize, usize)> {
    let text = crate::support::run(Command::new("readelf").arg("-SW").arg(file));
    let mut spans = vec![(0, 64)];
    for line in text
        .lines()
        .filter(|l| [".debug_", ".symtab", ".dynsym", "tab", ".rela.plt"].iter().any(|n| l.contains(n)))
    {
        let words: Vec<&str> = line.rsplit(']').next().unwrap_or_default().split_whitespace().collect();
        if let [_, _, _, offset, size, ..] = words[..] {
            let number = |word| usize::from_str_radix(word, 16).unwrap_or(0);
            spans.push((number(offset), number(size)));
        }
    }
    let len = std::fs::metadata(file).expect("it is there").len() as usize;
    spans.push((len - 2048, 2048));
    spans
}

fn mutate(program: &Program, file: &Path, rounds: usize) {
    let original = std::fs::read(file).expect("it is read");
    let spans = interesting(file);
    let addresses: Vec<_> = spread(&program.path, 50).into_iter().map(ElfAddress).collect();
    let path = program.directory.path().join("damaged");
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..rounds {
        let mut bytes = original.clone();
        for _ in 0..=numbers.next(12) {
            let (offset, size) = spans[numbers.next(spans.len())];
            let at = (offset + numbers.next(size)).min(bytes.len() - 8);
            match numbers.next(4) {
                0 => bytes[at] = numbers.next(256) as u8,
                1 => bytes[at..at + 8].fill(0xff),
                2 => bytes[at] ^= 1 << numbers.next(8),
                _ => bytes[at..at + 4].copy_from_slice(&(numbers.next(1 << 31) as u32).to_le_bytes()),
            }
        }
        if numbers.next(8) == 0 {
            bytes.truncate(numbers.next(bytes.len()));
        }
        std::fs::write(&path, &bytes).expect("it is written");
        // Mapped as it is, or a copy of it.
        let mode = if numbers.next(2) == 0 { 0o644 } else { 0o666 };
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        let outcome = Symbolizer::new(small_limits()).symbolize_object(&source(&path), &addresses);
        assert_eq!(outcome.symbols.len(), addresses.len());
    }
}

#[test]
fn damaged_files_do_no_harm() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let program = Program::build("cc", &["-O2", version], CODE);
        mutate(&program, &program.path, 3000);
        let packed = program.objcopy(&["--compress-debug-sections=zlib"], "packed");
        mutate(&program, &packed, 500);
        let packed = program.objcopy(&["--compress-debug-sections=zstd"], "packed");
        mutate(&program, &packed, 500);
    }
}

#[test]
fn what_is_no_elf_file_is_told() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let path = directory.path().join("file");
    let check = |path: &Path| {
        let mut outcome = symbolize(&source(path), &[0x1000]);
        assert!(outcome.symbols[0].frames.is_empty());
        outcome.problems.pop()
    };
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0x7f; 200]] {
        std::fs::write(&path, bytes).expect("it is written");
        assert!(matches!(check(&path), Some(SymbolError::Elf { .. })));
    }
    assert!(matches!(check(&directory.path().join("missing")), Some(SymbolError::Read { .. })));
    assert!(matches!(check(directory.path()), Some(SymbolError::NotRegular { .. })));
    let pipe = directory.path().join("pipe");
    crate::support::run(Command::new("mkfifo").arg(&pipe));
    assert!(matches!(check(&pipe), Some(SymbolError::NotRegular { .. })));
}

/// The owner of a file may make it shorter at any time, which would kill whoever has it mapped.
#[test]
fn files_that_others_can_change_are_copied() {
    let program = Program::build("cc", &["-O2", "-g"], CODE);
    let (start, _) = program.symbol("work");
    let look = |mode| {
        std::fs::set_permissions(&program.path, Permissions::from_mode(mode)).expect("chmod");
        let mut symbolizer = Symbolizer::new(Options::default());
        let outcome = symbolizer.symbolize_object(&source(&program.path), &[ElfAddress(start)]);
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
        (outcome.symbols, symbolizer.counters().copies)
    };
    let (own, _) = look(0o755);
    let (copied, copies) = look(0o777);
    assert_eq!(copies, 1);
    assert_eq!(copied, own);
    assert!(copied[0].frames[0].line.is_some());
}

#[test]
fn limits_fall_back_to_the_symbol_table() {
    let program = Program::build("cc", &["-O2", "-g"], CODE);
    let packed = program.objcopy(&["--compress-debug-sections=zlib"], "packed");
    let (start, _) = program.symbol("work");
    let look = |file: &Path, limits: Limits| {
        let options = Options { limits, ..Options::default() };
        Symbolizer::new(options).symbolize_object(&source(file), &[ElfAddress(start)])
    };
    let too_large = look(&program.path, Limits { max_debug_bytes: 10, ..Limits::default() });
    let too_large_unpacked = look(&packed, Limits { max_decompressed_bytes: 10, ..Limits::default() });
    for outcome in [too_large, too_large_unpacked] {
        assert_eq!(&*outcome.symbols[0].frames[0].function, "work");
        assert_eq!(outcome.symbols[0].frames[0].line, None);
        assert!(matches!(outcome.problems[..], [SymbolError::TooLarge { .. }]), "{:?}", outcome.problems);
    }
    let exhausted = look(&program.path, Limits { max_work: 10, ..Limits::default() });
    assert!(matches!(exhausted.problems[..], [SymbolError::TooMuchWork { .. }]), "{:?}", exhausted.problems);
}

/// Sizes in headers are promises; what counts is what is there.
#[test]
fn a_lying_compression_header_costs_no_memory() {
    let program = Program::build("cc", &["-O2", "-g"], CODE);
    let packed = program.objcopy(&["--compress-debug-sections=zlib"], "packed");
    let mut bytes = std::fs::read(&packed).expect("it is read");
    for (offset, _) in interesting(&packed).into_iter().skip(1) {
        // ch_type 1 (zlib): say that 64 GiB follow.
        if bytes.get(offset..offset + 4) == Some(&[1, 0, 0, 0]) {
            bytes[offset + 8..offset + 16].copy_from_slice(&(64u64 << 30).to_le_bytes());
        }
    }
    std::fs::write(&packed, bytes).expect("it is written");
    let outcome = symbolize(&ObjectSource { ..source(&packed) }, &[program.symbol("work").0]);
    assert!(matches!(outcome.problems[..], [SymbolError::TooLarge { .. }]), "{:?}", outcome.problems);
    assert_eq!(&*outcome.symbols[0].frames[0].function, "work");
}
