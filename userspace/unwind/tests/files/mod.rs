//! Real files of this machine.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// The libraries that a program loads, by the part of the name before ".so".
fn libraries(program: &Path) -> BTreeMap<String, PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let paths = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect::<Vec<_>>();
    let name = |path: &Path| path.file_name()?.to_str()?.split(".so").next().map(str::to_owned);
    paths.into_iter().filter_map(|path| Some((name(&path)?, path))).collect()
}

pub fn this_program() -> PathBuf {
    std::env::current_exe().expect("the path of this program")
}

pub fn libc() -> PathBuf {
    libraries(&this_program())["libc"].clone()
}

/// As Debian's cross compilers bring it.
pub fn libc_of_aarch64() -> Option<PathBuf> {
    Some(PathBuf::from("/usr/aarch64-linux-gnu/lib/libc.so.6")).filter(|path| path.exists())
}

/// Whatever python3 loads for its module `ssl`.
pub fn libcrypto() -> PathBuf {
    let module = output("python3", &["-c", "import _ssl; print(_ssl.__file__)"]);
    libraries(&module)["libcrypto"].clone()
}

/// The program and its libpython, if it has one.
pub fn python() -> (PathBuf, Option<PathBuf>) {
    let program = output("python3", &["-c", "import sys; print(sys.executable)"]);
    let library = libraries(&program).into_iter().find(|(name, _)| name.starts_with("libpython"));
    (program, library.map(|(_, path)| path))
}

/// Rust's own shared library: a release build.
pub fn libstd() -> PathBuf {
    let is_std = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libstd-"))
            && path.extension().is_some_and(|extension| extension == "so")
    };
    std::fs::read_dir(output("rustc", &["--print", "target-libdir"]))
        .expect("the libraries of rustc")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(is_std)
        .expect("libstd beside the other libraries of rustc")
}

/// The ELF file that the kernel maps into this program.
pub fn vdso() -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings of this program");
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).expect("a vdso");
    let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
    let hex = |text| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    let mut bytes = vec![0; (hex(end) - hex(start)) as usize];
    let mut memory = std::fs::File::open("/proc/self/mem").expect("the memory of this program");
    memory.seek(SeekFrom::Start(hex(start))).expect("seek");
    memory.read_exact(&mut bytes).expect("the bytes of the vdso");
    bytes
}
