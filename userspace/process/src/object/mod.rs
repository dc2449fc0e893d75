//! A binary as an ELF file: opened once, held open, and known by an id.
//!
//! Only headers and notes are read when a binary is opened; whoever needs more asks for a range or a section, with a
//! limit. The open file descriptor keeps the bytes within reach after the file was deleted or replaced and after its
//! process ended.

mod content;
mod debug_file;
mod elf;
mod error;
mod open;
mod registry;
#[cfg(test)]
mod tests;
mod vdso;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use descry_decode::ids::{ElfAddress, FileOffset, RuntimeAddress};
use sha2::{Digest, Sha256};

use content::Content;
pub use debug_file::{DebugFile, DebugFileHow, debug_file};
pub use elf::{Architecture, Section, Segment};
pub use error::{ElfError, ObjectError};
pub use open::FileReference;
pub use registry::{FileKey, ObjectLimits, Objects};

/// Bytes that one call of [`Object::read_range`] or [`Object::read_section`] returns at most.
pub const MAX_READ: u64 = 1 << 30;
/// Bytes at each end of a file that its htlhash is made from.
const HASHED_BYTES: u64 = 4096;

/// A binary, numbered in the order of appearance; equal files have equal ids as long as descry runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u32);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A binary, open.
#[derive(Debug)]
pub struct Object {
    /// Its number.
    pub id: ObjectId,
    /// Its path as the first process that mapped it sees it; `[vdso]` for the kernel's.
    pub path: Arc<str>,
    /// GNU build id, lower-case hex.
    pub gnu_build_id: Option<Arc<str>>,
    /// Go build id.
    pub go_build_id: Option<Arc<str>>,
    /// OpenTelemetry's htlhash: hex of the first 16 bytes of SHA-256(first 4096 B, last 4096 B, length as u64 BE).
    pub htlhash: Arc<str>,
    /// Whether Go's linker made it.
    pub is_go: bool,
    /// Whether rustc took part in making it.
    pub is_rust: bool,
    /// Instruction set.
    pub architecture: Architecture,
    /// Loaded parts (`PT_LOAD`), in the order of the file's headers.
    pub segments: Vec<Segment>,
    /// Where `.eh_frame_hdr` is (`PT_GNU_EH_FRAME`); needs no section headers.
    pub eh_frame_header: Option<Segment>,
    /// Whether its section headers are garbage, so that nothing is known that only they tell.
    pub bad_sections: bool,
    content: Content,
}

impl Object {
    /// Reads the headers of `content`. `path` is a name for people.
    fn parse(id: ObjectId, path: Arc<str>, content: Content) -> Result<Self, ElfError> {
        let headers = elf::headers(&content)?;
        let htlhash = htlhash(&content)?;
        Ok(Self {
            id,
            path,
            gnu_build_id: headers.gnu_build_id.map(|bytes| hex(&bytes).into()),
            go_build_id: headers.go_build_id.map(Into::into),
            htlhash: htlhash.into(),
            is_go: headers.is_go,
            is_rust: headers.is_rust,
            architecture: headers.architecture,
            segments: headers.segments,
            eh_frame_header: headers.eh_frame_header,
            bad_sections: headers.bad_sections,
            content,
        })
    }

    /// The file, open for reading; `None` for the vdso, which has none.
    pub fn file(&self) -> Option<&File> {
        match &self.content {
            Content::File { file, .. } => Some(file),
            Content::Bytes(_) => None,
        }
    }

    /// A path that opens this very file while the `Object` lives, for libraries that want one. `None` for the vdso.
    pub fn open_path(&self) -> Option<PathBuf> {
        self.file().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
    }

    /// Length of the file (bytes).
    pub fn len(&self) -> u64 {
        self.content.len()
    }

    /// Whether the file has no bytes: never, as then it is no ELF file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` bytes from `offset` of the file. Fails beyond its end and over [`MAX_READ`].
    pub fn read_range(&self, offset: FileOffset, len: u64) -> Result<Vec<u8>, ElfError> {
        if len > MAX_READ {
            return Err(ElfError::TooLarge { what: "a range".to_owned(), len, limit: MAX_READ });
        }
        self.content.read(offset.0, len)
    }

    /// The whole file, if it has at most `limit` bytes.
    pub fn read_all(&self, limit: u64) -> Result<Vec<u8>, ElfError> {
        if self.len() > limit {
            return Err(ElfError::TooLarge { what: "the file".to_owned(), len: self.len(), limit });
        }
        self.content.read(0, self.len())
    }

    /// The section of this name, decompressed; `None` where there is none with bytes in the file. Fails over
    /// [`MAX_READ`].
    pub fn read_section(&self, name: &str) -> Result<Option<Section>, ElfError> {
        elf::section(&self.content, name, MAX_READ)
    }

    /// The address that the byte at `offset` of the file is loaded to, in the file's own numbering. `None` where it is
    /// not loaded.
    pub fn elf_address(&self, offset: FileOffset) -> Option<ElfAddress> {
        let holds = |segment: &&Segment| {
            offset.0.checked_sub(segment.file_offset).is_some_and(|into| into < segment.file_size)
        };
        let mut holding = self.segments.iter().filter(holds);
        // Segments may share a page of the file; code is what is asked for.
        let segment = holding.clone().find(|segment| segment.executable).or_else(|| holding.next())?;
        Some(ElfAddress(segment.vaddr.0.wrapping_add(offset.0 - segment.file_offset)))
    }

    /// `runtime address - ELF address` (wrapping) of a mapping of this file: `start - (p_vaddr + offset - p_offset)`
    /// for the segment that the mapping is of. `None` where no segment holds `offset`.
    ///
    /// The loader maps whole pages, so a mapping may begin up to one page before its segment.
    pub fn bias(&self, start: RuntimeAddress, offset: FileOffset, page_size: u64) -> Option<u64> {
        let page_start = |offset: u64| offset & !(page_size.max(1) - 1);
        let holds = |segment: &&Segment| {
            let end = segment.file_offset.saturating_add(segment.file_size);
            page_start(segment.file_offset) <= offset.0 && offset.0 < end
        };
        let mut holding = self.segments.iter().filter(holds);
        let segment = holding.clone().rfind(|segment| segment.executable).or_else(|| holding.next_back())?;
        let address = segment.vaddr.0.wrapping_add(offset.0).wrapping_sub(segment.file_offset);
        Some(start.0.wrapping_sub(address))
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// OpenTelemetry semantic conventions, `process.executable.build_id.htlhash`.
fn htlhash(content: &Content) -> Result<String, ElfError> {
    let len = content.len();
    let part = len.min(HASHED_BYTES);
    let mut hasher = Sha256::new();
    hasher.update(content.read(0, part)?);
    hasher.update(content.read(len - part, part)?);
    hasher.update(len.to_be_bytes());
    let digest = hasher.finalize();
    Ok(hex(digest.get(..16).unwrap_or(&digest)))
}

/// CRC-32 of a whole file as `.gnu_debuglink` has it, read piecewise; `None` where reading fails or passes `limit`.
fn crc32(file: &File, limit: u64) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    let mut left = limit;
    let mut reader = file;
    loop {
        match reader.read(&mut buffer).ok()? {
            0 => return Some(hasher.finalize()),
            read => {
                left = left.checked_sub(read as u64)?;
                hasher.update(buffer.get(..read)?);
            }
        }
    }
}
