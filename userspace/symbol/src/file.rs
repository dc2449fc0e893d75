//! Files that are read with `pread`, never mapped: a mapped file that its owner truncates kills the reader.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use crate::error::SymbolError;

/// An open regular file.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    file: File,
    len: u64,
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
        Ok(Self { file, len: metadata.len() })
    }

    /// Bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
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
