//! The bytes of a binary: in a file held open, or in memory. Every read says how much it wants and is checked first.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use object::pod;

use crate::object::error::ElfError;

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Content {
    /// A regular file, and its length when it was opened.
    File { file: File, len: u64 },
    /// A copy.
    Bytes(Arc<[u8]>),
}

/// Bytes that begin where a `u64` may.
pub(crate) struct AlignedBytes {
    words: Vec<u64>,
    len: usize,
}

impl AlignedBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        pod::bytes_of_slice(&self.words).get(..self.len).unwrap_or(&[])
    }
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn checked_len(&self, offset: u64, len: u64) -> Result<usize, ElfError> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        usize::try_from(len).ok().filter(|_| inside).ok_or(ElfError::OutOfFile {
            offset,
            len,
            file_len: self.len(),
        })
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ElfError> {
        let len = buffer.len() as u64;
        let filled = match self {
            Self::File { file, .. } => file.read_exact_at(buffer, offset),
            Self::Bytes(bytes) => {
                let source =
                    usize::try_from(offset).ok().and_then(|start| bytes.get(start..)?.get(..buffer.len()));
                match source {
                    Some(source) => {
                        buffer.copy_from_slice(source);
                        Ok(())
                    }
                    None => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        filled.map_err(|source| ElfError::Read { offset, len, source })
    }

    /// `len` bytes at `offset`. The caller has bounded `len`; it is never beyond the end.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, ElfError> {
        let mut bytes = Vec::new();
        let wanted = self.checked_len(offset, len)?;
        bytes.try_reserve_exact(wanted).map_err(|_| ElfError::TooLarge {
            what: "a read".to_owned(),
            len,
            limit: isize::MAX as u64,
        })?;
        bytes.resize(wanted, 0);
        self.fill(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The same, aligned for the types of the crate `object`.
    pub(crate) fn read_aligned(&self, offset: u64, len: u64) -> Result<AlignedBytes, ElfError> {
        let len = self.checked_len(offset, len)?;
        let mut words = vec![0u64; len.div_ceil(8)];
        if let Some(buffer) = pod::bytes_of_slice_mut(&mut words).get_mut(..len) {
            self.fill(offset, buffer)?;
        }
        Ok(AlignedBytes { words, len })
    }
}
