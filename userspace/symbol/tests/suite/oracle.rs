//! The same answers as other tools give.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Program, spread, symbols};
use descry_symbol::Symbolized;

const RUST: &str = r#"
    use std::collections::{BTreeMap, HashMap};
    #[inline(always)]
    fn inner(x: u64) -> u64 { x.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(13) }
    fn middle<T: Into<u64>>(x: T) -> u64 { inner(x.into()) ^ inner(7) }
    fn main() {
        let mut counts = HashMap::new();
        let mut names = BTreeMap::new();
        for i in 0..std::env::args().count() as u32 * 1000 {
            *counts.entry(middle(i) % 97).or_insert(0u64) += 1;
            names.insert(format!("{i}"), middle(i));
        }
        println!("{counts:?} {:?}", names.range("3".to_string()..).next());
    }
"#;
const CPP: &str = r#"
    #include <algorithm>
    #include <iostream>
    #include <map>
    #include <string>
    #include <vector>
    int main(int argc, char **) {
        std::map<std::string, int> m;
        std::vector<int> v;
        for (int i = 0; i < argc * 100; i++) { m[std::to_string(i)] = i; v.push_back(i * 7 % 13); }
        std::sort(v.begin(), v.end());
        std::cout << v[0] << m.size() << "\n";
    }
"#;

/// (linker's name, `FILE:LINE`) of each function at an address, callee first.
type Functions = Vec<(String, String)>;

fn ours(symbol: &Symbolized) -> Functions {
    let place = |file: &Option<std::sync::Arc<str>>, line: Option<u32>| match (file, line) {
        (Some(file), Some(line)) => format!("{}:{line}", normal(file)),
        _ => "?".into(),
    };
    let frames = symbol.frames.iter();
    let name = |frame: &descry_symbol::SourceFrame| {
        frame.system_name.as_deref().unwrap_or(&frame.function).to_owned()
    };
    frames.map(|frame| (name(frame), place(&frame.file, frame.line))).collect()
}

/// A path without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn addr2line(file: &Path, addresses: &[u64]) -> HashMap<u64, Functions> {
    use std::io::Write as _;
    let mut child = Command::new("addr2line")
        .args(["-a", "-f", "-i", "-e"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("addr2line (binutils) is installed");
    let mut input = child.stdin.take().expect("piped");
    let text: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).expect("it reads"));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it was written");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut all = HashMap::new();
    let mut current = 0;
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if let Some(address) = line.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            current = address;
            continue;
        }
        let place = lines.next().expect("a place").split(" (disc").next().unwrap_or_default().to_owned();
        // A place that addr2line guesses from the symbol table has no directory, one that it does not know has `?`.
        let place = if place.starts_with('/') && !place.contains('?') { normal(&place) } else { "?".into() };
        all.entry(current).or_insert_with(Functions::new).push((line.to_owned(), place));
    }
    all
}

/// Compares with binutils, but for habits of it: it names padding after a function by that function, it names the
/// innermost inlined function by the symbol table if that function has no linker's name, and it takes some lines of
/// headers for lines of the unit's own file (seen with binutils 2.40: line 224 of a file of 14 lines).
fn check_addr2line(label: &str, file: &Path) {
    let addresses = spread(file, 600);
    let symbols = Program::look(file, &addresses);
    let theirs = addr2line(file, &addresses);
    let (mut compared, mut different) = (0, Vec::new());
    for (address, symbol) in addresses.iter().zip(&symbols) {
        let (mut ours, mut theirs) = (ours(symbol), theirs.get(address).cloned().unwrap_or_default());
        if ours.is_empty() {
            continue;
        }
        compared += 1;
        if let ([first, _, ..], [their_first, ..]) = (&mut ours[..], &mut theirs[..])
            && !first.0.starts_with("_Z")
            && !first.0.starts_with("_R")
        {
            first.0.clear();
            their_first.0.clear();
        }
        let last_name = |functions: &Functions| functions.last().map(|(name, _)| name.clone());
        if ours.len() == theirs.len() && !last_name(&ours).is_some_and(|name| name.starts_with('_')) {
            // Without a linker's name the two disagree on `.cold` and the like.
            if let (Some(a), Some(b)) = (ours.last_mut(), theirs.last_mut()) {
                a.0 = a.0.split('.').next().unwrap_or_default().into();
                b.0 = b.0.split('.').next().unwrap_or_default().into();
            }
        }
        // An outermost function without linkage name: ours is the symbol table's, theirs may be the source's.
        let same = ours.len() == theirs.len()
            && ours.iter().zip(&theirs).enumerate().all(|(index, (a, b))| {
                let source_name =
                    index + 1 == ours.len() && !b.0.starts_with('_') && a.0.contains(&plain(&b.0));
                a.1 == b.1 && (a.0 == b.0 || source_name)
            });
        if !same {
            different.push((*address, ours, theirs));
        }
    }
    println!("{label}: {} of {compared} addresses agree with addr2line", compared - different.len());
    assert!(compared > 400, "{label}: only {compared} addresses were known");
    assert!(different.len() * 50 <= compared, "{label}: {different:#x?}");
}

/// `push_back<int>` without the types.
fn plain(name: &str) -> String {
    name.split('<').next().unwrap_or_default().trim_start_matches('_').into()
}

#[test]
fn rust_agrees() {
    for flags in [&["-g", "-O"][..], &["-g"], &["-g", "-O", "-C", "lto=fat"]] {
        let program = Program::build("rustc", flags, RUST);
        check_addr2line(&format!("rustc {flags:?}"), &program.path);
    }
}

#[test]
fn cpp_agrees() {
    for flags in [&["-g", "-O2"][..], &["-g", "-O0"], &["-gdwarf-4", "-O2", "-ffunction-sections"]] {
        let program = Program::build("g++", flags, CPP);
        check_addr2line(&format!("g++ {flags:?}"), &program.path);
    }
}

/// Each address of libc has one of the names that `nm` says cover it, and none where `nm` has none.
#[test]
fn libc_agrees_with_nm() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let libc =
        maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("/libc.so")));
    let libc = Path::new(libc.expect("the tests are linked to libc"));
    let theirs = symbols(libc, &["-D"]);
    let addresses = spread(libc, 5000);
    let mut named = 0;
    for (address, symbol) in addresses.iter().zip(Program::look(libc, &addresses)) {
        let covering: Vec<&str> = theirs
            .iter()
            .filter(|symbol| (symbol.start..symbol.start + symbol.size).contains(address))
            .map(|symbol| symbol.name.as_str())
            .collect();
        match symbol.frames.first() {
            Some(frame) => {
                assert!(covering.contains(&&*frame.function), "{address:#x}: {} {covering:?}", frame.function)
            }
            None => assert!(covering.is_empty(), "{address:#x}: nothing, but {covering:?}"),
        }
        named += symbol.frames.len();
    }
    println!("libc: {named} of {} addresses named, all as nm says", addresses.len());
    assert!(named > 500);
}
