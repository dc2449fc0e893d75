//! Programs with known functions: what a user sees of each.

use std::path::Path;

use crate::support::{Program, names, source, symbolize};
use descry_symbol::{FrameKind, ObjectSource, SymbolError, Symbolized};

const C: &str = r#"
#include <stdlib.h>
volatile int sink;
static inline __attribute__((always_inline)) int innermost(int x) {
    sink = x;
    return sink * 3; /* line 6 */
}
static inline __attribute__((always_inline)) int between(int x) {
    return innermost(x) + 1; /* line 9 */
}
__attribute__((noinline)) int outermost(int x) {
    return between(x) + 2; /* line 12 */
}
static __attribute__((noinline)) int hidden(int x) { sink = x + 7; return sink; }
__asm__(".text\n.globl sizeless\nsizeless:\n nop\n nop\n nop\n nop\n ret\n"
        ".globl sized\n.type sized, @function\nsized:\n nop\n ret\n.size sized, . - sized\n"
        " nop\n nop\n nop\n nop\n.globl after\n.type after, @function\nafter:\n ret\n.size after, . - after\n");
int main(int argc, char **argv) { return outermost(argc) + hidden(argc) + abs(rand()); }
"#;

fn c_program() -> Program {
    Program::build("cc", &["-O2", "-g", "-no-pie"], C)
}

/// The symbols at every address of a function.
fn everywhere(program: &Program, file: &Path, function: &str) -> Vec<Symbolized> {
    let (start, size) = program.symbol(function);
    Program::look(file, &(start..start + size).collect::<Vec<_>>())
}

#[track_caller]
fn check_inlined(symbols: &[Symbolized]) {
    let symbol =
        symbols.iter().find(|symbol| symbol.frames.len() == 3).expect("an address with three functions");
    assert_eq!(names(symbol), "innermost < between < outermost");
    assert_eq!(symbol.frames.iter().map(|frame| frame.inlined).collect::<Vec<_>>(), [true, true, false]);
    let lines: Vec<_> = symbol.frames.iter().map(|frame| frame.line.expect("a line")).collect();
    assert!(lines[0] == 5 || lines[0] == 6, "{lines:?}");
    assert_eq!(lines[1..], [9, 12]);
    assert!(
        symbol
            .frames
            .iter()
            .all(|frame| frame.file.as_deref().is_some_and(|file| file.ends_with("/program.c")))
    );
    assert_eq!(symbol.kind, FrameKind::Native);
}

#[test]
fn inlined_functions_have_names_and_lines() {
    let program = c_program();
    check_inlined(&everywhere(&program, &program.path, "outermost"));
}

#[test]
fn every_dwarf_version_is_read() {
    for version in ["-gdwarf-3", "-gdwarf-4", "-gdwarf-5"] {
        let program = Program::build("cc", &["-O2", version, "-no-pie"], C);
        check_inlined(&everywhere(&program, &program.path, "outermost"));
    }
}

#[test]
fn compressed_sections_are_read() {
    let program = c_program();
    for kind in ["zlib", "zstd"] {
        let packed = program.objcopy(&[&format!("--compress-debug-sections={kind}")], kind);
        let sections = crate::support::run(std::process::Command::new("readelf").arg("-SW").arg(&packed));
        let line = sections.lines().find(|line| line.contains(".debug_info")).expect("a section");
        assert!(line.contains(" C "), "objcopy left {line} as it was");
        check_inlined(&everywhere(&program, &packed, "outermost"));
    }
}

#[test]
fn a_separate_debug_file_is_used() {
    let program = c_program();
    let debug = program.objcopy(&["--only-keep-debug"], "debug");
    let stripped = program.objcopy(&["--strip-all"], "stripped");
    let (start, size) = program.symbol("outermost");
    let addresses: Vec<u64> = (start..start + size).collect();

    let bare = Program::look(&stripped, &addresses);
    assert!(bare.iter().all(|symbol| symbol.frames.is_empty()), "a stripped program has no names");

    let with_debug = ObjectSource { debug_path: Some(debug), ..source(&stripped) };
    let outcome = symbolize(&with_debug, &addresses);
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    check_inlined(&outcome.symbols);
}

#[test]
fn a_missing_debug_file_costs_only_itself() {
    let program = Program::build("cc", &["-O2", "-no-pie"], C);
    let source = ObjectSource { debug_path: Some("/does/not/exist".into()), ..source(&program.path) };
    let outcome = symbolize(&source, &[program.symbol("hidden").0]);
    assert_eq!(names(&outcome.symbols[0]), "hidden");
    assert!(matches!(outcome.problems[..], [SymbolError::Read { .. }]), "{:?}", outcome.problems);
}

#[test]
fn the_symbol_table_names_static_functions() {
    let program = Program::build("cc", &["-O2", "-no-pie"], C);
    for symbol in everywhere(&program, &program.path, "hidden") {
        assert_eq!(names(&symbol), "hidden");
        assert_eq!(symbol.frames[0].line, None);
    }
}

#[test]
fn sizes_of_symbols_are_kept_to() {
    let program = Program::build("cc", &["-O2", "-no-pie"], C);
    let (sizeless, _) = program.symbol("sizeless");
    let (sized, size) = program.symbol("sized");
    let (after, after_size) = program.symbol("after");
    let look = |address| names(&Program::look(&program.path, &[address])[0]);
    // Without a size: up to the next symbol.
    assert_eq!(look(sizeless), "sizeless");
    assert_eq!(look(sized - 1), "sizeless");
    // With a size: not a byte further.
    assert_eq!(look(sized + size - 1), "sized");
    assert_eq!(look(sized + size), "");
    assert_eq!(look(after - 1), "");
    assert_eq!(look(after + after_size - 1), "after");
    // Outside of all code, in any order, more than once.
    let addresses = [u64::MAX, sizeless, 0, after, sizeless, 0x10];
    let symbols = Program::look(&program.path, &addresses);
    let all: Vec<_> = symbols.iter().map(names).collect();
    assert_eq!(all, ["", "sizeless", "", "after", "sizeless", ""]);
}

#[test]
fn linkage_table_entries_are_named() {
    let program = Program::build("cc", &["-O2", "-no-pie", "-Wl,-z,lazy"], C);
    let sections = crate::support::run(std::process::Command::new("readelf").arg("-SW").arg(&program.path));
    let (start, size) = [" .plt.sec ", " .plt "]
        .iter()
        .find_map(|name| {
            let columns = sections.lines().find(|line| line.contains(name))?.split("PROGBITS").nth(1)?;
            let words: Vec<&str> = columns.split_whitespace().collect();
            let number = |word: &str| u64::from_str_radix(word, 16).expect("hex");
            Some((number(words[0]), number(words[2])))
        })
        .expect("a linkage table");
    let symbols = Program::look(&program.path, &(start..start + size).collect::<Vec<_>>());
    assert!(symbols.iter().any(|symbol| names(symbol) == "rand@plt"));
}

#[test]
fn cpp_names_are_demangled() {
    let code = r#"
        namespace space {
            template <class T> struct Box { T value; __attribute__((noinline)) T get(int k) const { return value + T(k); } };
            namespace { __attribute__((noinline)) int secret(int x) { volatile int y = x; return y; } }
        }
        int main(int argc, char **) { return int(space::Box<double>{1.5}.get(argc)) + space::secret(argc); }
    "#;
    for flags in [&["-O2", "-g"][..], &["-O2", "-g1"], &["-O2"]] {
        let program = Program::build("g++", flags, code);
        let check = |mangled: &str, function: &str| {
            let (start, _) = program.symbol(mangled);
            let symbol = &Program::look(&program.path, &[start])[0];
            let frame = symbol.frames.last().expect("a frame");
            assert_eq!(&*frame.function, function, "{flags:?}");
            assert!(frame.system_name.as_deref().is_some_and(|name| name.starts_with(mangled)), "{flags:?}");
        };
        check("_ZNK5space3BoxIdE3getEi", "space::Box<double>::get(int) const");
        check("_ZN5space12_GLOBAL__N_16secretEi", "space::(anonymous namespace)::secret(int)");
    }
}

#[test]
fn rust_names_are_demangled_and_rust_is_known() {
    let code = r#"
        mod shape {
            #[inline(never)]
            pub fn generic<T: Into<u64>>(x: T) -> u64 { std::hint::black_box(x.into()) }
        }
        fn main() { println!("{}", shape::generic(7u32) + shape::generic(7u8)); }
    "#;
    for mangling in ["v0", "legacy"] {
        let scheme = format!("symbol-mangling-version={mangling}");
        for debug in ["debuginfo=2", "debuginfo=1", "debuginfo=0"] {
            let flags = ["-O", "-C", debug, "-C", &scheme, "-Z", "unstable-options"];
            let flags = if mangling == "legacy" { &flags[..] } else { &flags[..5] };
            // Stable rustc knows the legacy scheme only behind this variable.
            let program = if mangling == "legacy" {
                build_with_bootstrap(flags, code)
            } else {
                Program::build("rustc", flags, code)
            };
            let (start, size) = program.symbol("5shape7generic");
            for symbol in Program::look(&program.path, &[start, start + size - 1]) {
                let frame = symbol.frames.last().expect("a frame");
                let wanted =
                    if mangling == "v0" { "program::shape::generic::<u" } else { "program::shape::generic" };
                assert!(frame.function.starts_with(wanted), "{flags:?}: {}", frame.function);
                assert!(!frame.function.contains("17h"), "{}", frame.function);
                assert_eq!(symbol.kind, FrameKind::Rust);
                assert_eq!(frame.line.is_some(), debug != "debuginfo=0");
            }
            let main = program.symbol("main").0;
            assert!(!Program::look(&program.path, &[main])[0].frames.is_empty());
        }
    }
}

fn build_with_bootstrap(flags: &[&str], code: &str) -> Program {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let text = directory.path().join("program.rs");
    std::fs::write(&text, code).expect("the source is written");
    let path = directory.path().join("program");
    let mut rustc = std::process::Command::new("rustc");
    crate::support::run(rustc.env("RUSTC_BOOTSTRAP", "1").args(flags).arg("-o").arg(&path).arg(&text));
    Program { directory, path }
}

#[test]
fn inlines_and_lines_can_be_left_out() {
    use descry_decode::ids::ElfAddress;
    use descry_symbol::{Options, Symbolizer};
    let program = c_program();
    let (start, size) = program.symbol("outermost");
    let addresses: Vec<_> = (start..start + size).map(ElfAddress).collect();
    let look = |inlines, lines| {
        let options = Options { inlines, lines, ..Options::default() };
        Symbolizer::new(options).symbolize_object(&source(&program.path), &addresses).symbols
    };
    for symbol in look(false, true) {
        assert_eq!(names(&symbol), "outermost");
        assert!(symbol.frames[0].line.is_some_and(|line| (11..=13).contains(&line)), "{symbol:?}");
    }
    assert!(look(true, false).iter().flat_map(|symbol| &symbol.frames).all(|frame| frame.line.is_none()));
}

#[test]
fn debug_information_can_be_left_out() {
    use descry_decode::ids::ElfAddress;
    use descry_symbol::{Options, Symbolizer};
    let program = c_program();
    let (start, size) = program.symbol("outermost");
    let addresses: Vec<_> = (start..start + size).map(ElfAddress).collect();
    let mut symbolizer = Symbolizer::new(Options { debug_info: false, ..Options::default() });
    for symbol in symbolizer.symbolize_object(&source(&program.path), &addresses).symbols {
        assert_eq!(names(&symbol), "outermost");
        assert!(symbol.frames.iter().all(|frame| frame.file.is_none() && frame.line.is_none()));
    }
    let counters = symbolizer.counters();
    assert_eq!((counters.by_dwarf, counters.by_symbol_table), (0, size));
}

#[test]
fn better_aliases_win() {
    let code = r#"
        __attribute__((noinline)) int __strong(int x) { return x + 1; }
        int strong(int) __attribute__((alias("__strong")));
        int weaker(int) __attribute__((weak, alias("__strong")));
        static __attribute__((noinline, used)) int local_only(int x) { return x + 2; }
        int visible(int) __attribute__((weak, alias("local_only")));
        int main(int argc, char **argv) { return __strong(argc) + local_only(argc); }
    "#;
    let program = Program::build("cc", &["-O1"], code);
    let look = |name| names(&Program::look(&program.path, &[program.symbol(name).0])[0]);
    assert_eq!(look("__strong"), "strong");
    assert_eq!(look("local_only"), "visible");
}

/// The layout of Go 1.20 and later (src/runtime/symtab.go), for two functions.
#[test]
fn stripped_go_programs_have_names() {
    let program = Program::build("cc", &["-O2", "-no-pie"], C);
    let (text, _) = program.symbol("outermost");
    let mut table = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    let (names_at, functions_at) = (72u64, 104u64);
    for word in [2, 0, text, names_at, 0, 0, 0, functions_at] {
        table.extend(u64::to_le_bytes(word));
    }
    let mut text_of_names = b"main.work\0main.(*T).rest\0".to_vec();
    text_of_names.resize(32, 0);
    table.extend(text_of_names);
    // Entries at 0 and 4, the end of text at 8; then `_func` (entry, offset of the name) for each.
    for word in [0u32, 20, 4, 28, 8, 0, 0, 4, 10] {
        table.extend(word.to_le_bytes());
    }
    let path = program.directory.path().join("table");
    std::fs::write(&path, table).expect("it is written");
    let add = format!(".gopclntab={}", path.display());
    let go = program.objcopy(&["--strip-all", "--add-section", &add], "go");
    let source = ObjectSource { is_go: true, ..source(&go) };
    let outcome = symbolize(&source, &[text - 1, text, text + 3, text + 4, text + 7, text + 8]);
    let all: Vec<_> = outcome.symbols.iter().map(names).collect();
    assert_eq!(all, ["", "main.work", "main.work", "main.(*T).rest", "main.(*T).rest", ""]);
    assert!(outcome.symbols.iter().all(|symbol| symbol.kind == FrameKind::Go));
}
