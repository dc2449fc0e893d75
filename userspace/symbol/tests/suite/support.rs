//! Small programs, built when a test runs, and their symbols as binutils tells them.

use std::path::{Path, PathBuf};
use std::process::Command;

use descry_decode::ids::ElfAddress;
use descry_symbol::{ObjectSource, Options, Outcome, Symbolized, Symbolizer};
use tempfile::TempDir;

/// A directory with a program in it.
pub struct Program {
    pub directory: TempDir,
    pub path: PathBuf,
}

impl Program {
    /// Compiles `code` with `compiler` (cc, g++ or rustc) and `flags`.
    pub fn build(compiler: &str, flags: &[&str], code: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let ending = match compiler {
            "rustc" => "rs",
            "g++" => "cc",
            _ => "c",
        };
        let source = directory.path().join(format!("program.{ending}"));
        std::fs::write(&source, code).expect("the source is written");
        let path = directory.path().join("program");
        let mut command = Command::new(compiler);
        command.args(flags).arg("-o").arg(&path).arg(&source);
        run(&mut command);
        Self { directory, path }
    }

    /// Runs `objcopy FLAGS program OUTPUT`, and gives the output's path.
    pub fn objcopy(&self, flags: &[&str], output: &str) -> PathBuf {
        let output = self.directory.path().join(output);
        run(Command::new("objcopy").args(flags).arg(&self.path).arg(&output));
        output
    }

    /// The address and size of a symbol, by its name in the symbol table.
    pub fn symbol(&self, name: &str) -> (u64, u64) {
        let all = symbols(&self.path, &[]);
        let found = all.iter().find(|symbol| symbol.name == name || symbol.name.contains(name));
        found.map(|symbol| (symbol.start, symbol.size)).unwrap_or_else(|| panic!("no symbol {name}"))
    }

    /// What is known of addresses of `file`.
    pub fn look(file: &Path, addresses: &[u64]) -> Vec<Symbolized> {
        let outcome = symbolize(&source(file), addresses);
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
        outcome.symbols
    }
}

/// A file that is its own debug file.
pub fn source(file: &Path) -> ObjectSource {
    ObjectSource {
        open_path: file.to_path_buf(),
        name: file.to_string_lossy().into(),
        debug_path: None,
        is_go: false,
        is_rust: false,
    }
}

/// Symbolizes with default options.
pub fn symbolize(source: &ObjectSource, addresses: &[u64]) -> Outcome {
    let addresses: Vec<ElfAddress> = addresses.iter().copied().map(ElfAddress).collect();
    let outcome = Symbolizer::new(Options::default()).symbolize_object(source, &addresses);
    assert_eq!(outcome.symbols.len(), addresses.len());
    outcome
}

/// Names of the frames at an address, callee first, joined.
pub fn names(symbol: &Symbolized) -> String {
    symbol.frames.iter().map(|frame| &*frame.function).collect::<Vec<_>>().join(" < ")
}

/// Runs a tool that must succeed, and gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A symbol of code as `nm` prints it.
pub struct NmSymbol {
    pub start: u64,
    pub size: u64,
    pub name: String,
}

/// Symbols of code, by `nm`.
pub fn symbols(file: &Path, flags: &[&str]) -> Vec<NmSymbol> {
    let text = run(Command::new("nm")
        .args(["-S", "--defined-only", "--without-symbol-versions"])
        .args(flags)
        .arg(file));
    let number = |word: &str| u64::from_str_radix(word, 16).ok();
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (start, size, kind, name) = match words[..] {
                [start, size, kind, name] => (start, number(size)?, kind, name),
                [start, kind, name] => (start, 0, kind, name),
                _ => return None,
            };
            matches!(kind, "t" | "T" | "w" | "W" | "i" | "I").then(|| NmSymbol {
                start: number(start).unwrap_or(0),
                size,
                name: name.to_owned(),
            })
        })
        .collect()
}

/// `count` addresses spread evenly over the `.text` section.
pub fn spread(file: &Path, count: u64) -> Vec<u64> {
    let text = run(Command::new("readelf").arg("-SW").arg(file));
    let line = text.lines().find(|line| line.contains(" .text ")).expect("a .text section");
    let words: Vec<&str> = line.split("PROGBITS").nth(1).expect("its columns").split_whitespace().collect();
    let number = |word: &str| u64::from_str_radix(word, 16).expect("hex");
    let (start, size) = (number(words[0]), number(words[2]));
    (0..count).map(|index| start + index * size / count).collect()
}
