//! The libraries that a program is going to load, before it does.
//!
//! Give it a program that was started and has not run an instruction yet; get the paths of the libraries that it is linked
//! with, directly or by others. The program's own loader says so (`ld.so --list`, which glibc and musl have): nobody else
//! knows all of its rules. Libraries that a program opens later (dlopen(3)) are not among them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use descry_decode::ids::Tgid;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, elf};

/// How long a loader may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of its list at most.
const MAX_LIST: u64 = 1 << 20;

/// Why the libraries of a program are not known.
#[derive(Debug, thiserror::Error)]
pub enum LibrariesError {
    /// Its file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its file is no ELF file.
    #[error("{path} has no headers of a program: {source}")]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: object::Error,
    },
    /// Its loader cannot be asked.
    #[error("{loader} cannot be asked for the libraries of {path}: {source}")]
    Loader {
        /// The loader.
        loader: PathBuf,
        /// The program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The libraries of a process that runs the same environment and directory as descry does: one that descry started. A
/// program that is linked statically has none.
///
/// # Errors
/// When its program cannot be read or its loader does not answer.
pub fn of_started(tgid: Tgid) -> Result<Vec<PathBuf>, LibrariesError> {
    let exe = PathBuf::from(format!("/proc/{tgid}/exe"));
    let failed = |source| LibrariesError::Read { path: exe.clone(), source };
    let path = std::fs::read_link(&exe).map_err(failed)?;
    let file = File::open(&exe).map_err(failed)?;
    let loader = loader(file).map_err(|source| LibrariesError::NotElf { path: path.clone(), source })?;
    let Some(loader) = loader else { return Ok(Vec::new()) };
    let list = list(&loader, &path);
    let list = list.map_err(|source| LibrariesError::Loader { loader: loader.clone(), path, source })?;
    Ok(paths(&list).collect())
}

/// The path in a program's `PT_INTERP`.
fn loader(file: File) -> Result<Option<PathBuf>, object::Error> {
    let data = ReadCache::new(file);
    let header = elf::FileHeader64::<Endianness>::parse(&data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, &data)? {
        if let Some(path) = segment.interpreter(endian, &data)? {
            return Ok(Some(Path::new(std::ffi::OsStr::from_bytes(path)).to_owned()));
        }
    }
    Ok(None)
}

/// What the loader says of a program.
fn list(loader: &Path, program: &Path) -> io::Result<String> {
    let mut command = Command::new(loader);
    command.arg("--list").arg(program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let out = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut list = Vec::new();
        out.map_or(Ok(0), |out| out.take(MAX_LIST).read_to_end(&mut list)).map(|_| list)
    });
    let until = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")));
        }
        thread::sleep(PAUSE);
    }
    let list = reader.join().map_err(|_| io::Error::other("the list could not be read"))??;
    Ok(String::from_utf8_lossy(&list).into_owned())
}

/// The files of a list: `NAME => PATH (0xADDRESS)`, or `PATH (0xADDRESS)` of one that is known by its path.
fn paths(list: &str) -> impl Iterator<Item = PathBuf> {
    list.lines().filter_map(|line| {
        let (file, _) = line.trim().rsplit_once(" (0x")?;
        let path = file.rsplit_once(" => ").map_or(file, |(_, path)| path);
        path.starts_with('/').then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_list() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f01)\n\
                    \tlibgone.so => not found\n\
                    \tlibodd.so => /opt/a dir/(0x/libodd.so (0x00007f02)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f03)\n\
                    \tstatically linked\n";
        let expected =
            ["/lib/x86_64-linux-gnu/libm.so.6", "/opt/a dir/(0x/libodd.so", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(list).collect::<Vec<_>>(), expected.map(PathBuf::from));
    }

    #[test]
    fn libraries_of_this_test() {
        let libraries = of_started(Tgid(std::process::id())).unwrap();
        let has = |name: &str| libraries.iter().any(|path| path.to_string_lossy().contains(name));
        assert!(has("libc.so") && has("ld-"), "{libraries:?}");
    }
}
