//! Where the debug information of a stripped binary is: build-id directories and `.gnu_debuglink`, as gdb looks for
//! them ("Debugging Information in Separate Files" in its manual).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::object::content::Content;
use crate::object::{Object, crc32, elf, hex, open};

/// Bytes of a debug file that a checksum is made over at most.
const MAX_DEBUG_FILE: u64 = 4 << 30;
/// Bytes of `.gnu_debuglink` at most: a file name and a checksum.
const MAX_DEBUGLINK: u64 = 4096;
/// Below it are debug files, by path and by build id.
const DEBUG_ROOT: &str = "/usr/lib/debug";

/// How a debug file was found to belong to its binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugFileHow {
    /// It has the same build id.
    BuildId,
    /// Its name and CRC-32 are in `.gnu_debuglink`.
    DebugLink,
}

/// A separate file with debug information.
#[derive(Debug)]
pub struct DebugFile {
    /// Its path, in the mount namespace where it was found.
    pub path: PathBuf,
    /// The file, open for reading.
    pub file: File,
    /// Why it is the right one.
    pub how: DebugFileHow,
}

impl DebugFile {
    /// A path that opens this very file while the `DebugFile` lives.
    pub fn open_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Finds the debug file of `object`: first below `root` (`/proc/PID/root` of a process that maps it), then in descry's
/// own mount namespace.
pub fn debug_file(object: &Object, root: Option<&Path>) -> Option<DebugFile> {
    let roots = [root, None];
    let roots = if root.is_some() { &roots[..] } else { &roots[1..] };
    let by_build_id = object.gnu_build_id.as_deref().and_then(build_id_path);
    if let (Some(path), Some(wanted)) = (by_build_id, object.gnu_build_id.as_deref()) {
        for root in roots {
            if let Some(file) = open_with_build_id(*root, &path, wanted) {
                return Some(DebugFile { path, file, how: DebugFileHow::BuildId });
            }
        }
    }
    let (name, crc) = debug_link(object)?;
    for path in debug_link_paths(&object.path, &name) {
        for root in roots {
            let Ok((file, _)) = open::open_regular(*root, &path) else { continue };
            if crc32(&file, MAX_DEBUG_FILE) == Some(crc) {
                return Some(DebugFile { path, file, how: DebugFileHow::DebugLink });
            }
        }
    }
    None
}

/// `/usr/lib/debug/.build-id/NN/REST.debug`.
fn build_id_path(build_id: &str) -> Option<PathBuf> {
    let (directory, rest) = build_id.split_at_checked(2).filter(|(_, rest)| !rest.is_empty())?;
    Some(PathBuf::from(format!("{DEBUG_ROOT}/.build-id/{directory}/{rest}.debug")))
}

fn open_with_build_id(root: Option<&Path>, path: &Path, wanted: &str) -> Option<File> {
    let (file, metadata) = open::open_regular(root, path).ok()?;
    let content = Content::File { file, len: metadata.len() };
    let found = elf::headers(&content).ok()?.gnu_build_id?;
    match content {
        Content::File { file, .. } if hex(&found) == wanted => Some(file),
        _ => None,
    }
}

/// (file name, CRC-32) from `.gnu_debuglink`: a string ended by zero, filled up to 4 bytes, then the checksum in the
/// byte order of the file; descry profiles only its own.
fn debug_link(object: &Object) -> Option<(String, u32)> {
    let section = elf::section(&object.content, ".gnu_debuglink", MAX_DEBUGLINK).ok()??;
    parse_debug_link(&section.data)
}

fn parse_debug_link(data: &[u8]) -> Option<(String, u32)> {
    let end = data.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(data.get(..end)?).ok()?;
    // A name, not a path: a link that leads elsewhere is none.
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return None;
    }
    let at = (end + 1).next_multiple_of(4);
    let crc = data.get(at..at + 4)?.try_into().ok()?;
    Some((name.to_owned(), u32::from_ne_bytes(crc)))
}

fn debug_link_paths(object: &str, name: &str) -> Vec<PathBuf> {
    let Some(directory) = Path::new(object).parent().filter(|_| object.starts_with('/')) else {
        return Vec::new();
    };
    let below_root = directory.strip_prefix("/").unwrap_or(directory);
    let paths = [
        directory.join(name),
        directory.join(".debug").join(name),
        Path::new(DEBUG_ROOT).join(below_root).join(name),
    ];
    // A file may name itself.
    paths.into_iter().filter(|path| path != Path::new(object)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_make_paths() {
        let expected = PathBuf::from("/usr/lib/debug/.build-id/ab/cdef.debug");
        assert_eq!(build_id_path("abcdef"), Some(expected));
        assert_eq!(build_id_path("ab"), None);
        assert_eq!(build_id_path(""), None);
    }

    #[test]
    fn a_debug_link_is_a_name_and_a_checksum() {
        let mut data = b"libx.so.debug\0\0\0".to_vec();
        data.extend(0x1234_5678u32.to_ne_bytes());
        assert_eq!(parse_debug_link(&data), Some(("libx.so.debug".to_owned(), 0x1234_5678)));
        assert_eq!(parse_debug_link(&data[..18]), None, "cut");
        assert_eq!(parse_debug_link(b"../../etc/shadow\0\0\0\0aaaa"), None, "a path");
        assert_eq!(parse_debug_link(b""), None);
    }

    #[test]
    fn debug_links_are_looked_for_in_three_places() {
        let paths: Vec<_> = ["/usr/bin/x.debug", "/usr/bin/.debug/x.debug", "/usr/lib/debug/usr/bin/x.debug"]
            .map(PathBuf::from)
            .into();
        assert_eq!(debug_link_paths("/usr/bin/x", "x.debug"), paths);
        assert_eq!(debug_link_paths("[vdso]", "x.debug"), Vec::<PathBuf>::new());
    }
}
