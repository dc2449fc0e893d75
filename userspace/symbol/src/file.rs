//! Files, opened once and for all: what is checked is what is read, whatever becomes of the path.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::SymbolError;

/// An open regular file.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    file: File,
    len: u64,
    is_fixed: bool,
}

impl ObjectFile {
    /// Opens `path`, without waiting if it is a pipe.
    pub(crate) fn open(path: &Path, name: &Arc<str>) -> Result<Self, SymbolError> {
        let read_error = |source| SymbolError::Read { name: name.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if !metadata.is_file() {
            return Err(SymbolError::NotRegular { name: name.clone() });
        }
        Ok(Self { file, len: metadata.len(), is_fixed: is_of_the_system(&metadata) })
    }

    /// A file that nobody else has.
    pub(crate) fn private(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len, is_fixed: true })
    }

    /// Whether it may be mapped: a mapped file that is made shorter kills its reader with SIGBUS.
    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// Where this very file can be opened again, whatever is at its path now.
    pub(crate) fn descriptor_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Reads up to `buffer.len()` bytes, fewer only at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads exactly `len` bytes; the caller bounds `len`.
    pub(crate) fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        if self.read_at(&mut bytes, offset)? != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

/// Whether a file is the system's own: only root can write to it, and it lies where `/usr` lies, so that it is none of
/// a container's (whose root is root too). Package managers replace such files; they do not make them shorter.
pub fn is_of_the_system(metadata: &Metadata) -> bool {
    let on_system = std::fs::metadata("/usr").is_ok_and(|usr| usr.dev() == metadata.dev());
    on_system && metadata.uid() == 0 && metadata.mode() & 0o022 == 0
}
