//! Bounded reads of `/proc/PID/*`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use descry_decode::ids::Tgid;

use crate::error::ProcessError;

/// `/proc/PID/file`.
pub(crate) fn path(tgid: Tgid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{tgid}/{file}"))
}

/// The first `limit` bytes of `/proc/PID/file`.
pub(crate) fn read(tgid: Tgid, file: &str, limit: u64) -> Result<Vec<u8>, ProcessError> {
    read_limited(&path(tgid, file), limit).map_err(|source| ProcessError::from_io(tgid, file, source))
}

/// The first `limit` bytes of any file.
pub(crate) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The target of the symbolic link `/proc/PID/file`.
pub(crate) fn read_link(tgid: Tgid, file: &str) -> Result<PathBuf, ProcessError> {
    std::fs::read_link(path(tgid, file)).map_err(|source| ProcessError::from_io(tgid, file, source))
}

/// The whole lines in the first `limit` bytes of any file.
pub(crate) fn read_lines(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = read_limited(path, limit)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(end);
    Ok(bytes)
}
