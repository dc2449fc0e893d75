//! Finding the file that a process has mapped, in an order that survives deletion, replacement and exit:
//!
//! 1. `/proc/PID/map_files/START-END`: the file itself, whatever became of its name. Needs CAP_CHECKPOINT_RESTORE or
//!    CAP_SYS_ADMIN in the initial user namespace.
//! 2. `/proc/PID/exe`, if device and inode match.
//! 3. `/proc/PID/root` and the path, if device and inode match.
//! 4. The path as descry itself sees it, if device and inode, or the build id, match: for processes that are gone.
//!
//! The mount namespace of a target is hostile: nothing is opened for reading before it is known to be a regular file,
//! and symbolic links in it are followed within its own root.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use descry_decode::ids::{RuntimeAddress, Tgid};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::maps::Device;
use crate::object::content::Content;
use crate::object::elf;
use crate::object::error::ObjectError;
use crate::proc_file;

/// Attempts at a path while others rename around it.
const OPENAT2_ATTEMPTS: usize = 4;

/// What is known of a mapped file before it is opened.
#[derive(Clone, Copy, Debug)]
pub struct FileReference<'a> {
    /// Its path as the process saw it.
    pub path: &'a Path,
    /// Device and inode number, where they are known.
    pub inode: Option<(Device, u64)>,
    /// GNU build id, where it is known.
    pub build_id: Option<&'a [u8]>,
    /// Where it is (or was) mapped.
    pub range: Option<(RuntimeAddress, RuntimeAddress)>,
    /// Whether `range` is what `/proc/PID/maps` says now, so that the file there needs no further proof.
    pub current: bool,
}

/// A regular file that is not open for reading yet.
pub(super) struct Found {
    handle: File,
    pub(super) metadata: Metadata,
}

impl Found {
    /// Opens it for reading.
    pub(super) fn open(&self) -> io::Result<File> {
        reopen(&self.handle)
    }

    fn has_build_id(&self, build_id: &[u8]) -> bool {
        let content = self.open().map(|file| Content::File { file, len: self.metadata.len() });
        let headers = content.ok().and_then(|content| elf::headers(&content).ok());
        headers.and_then(|headers| headers.gnu_build_id).is_some_and(|id| id == build_id)
    }
}

fn reopen(handle: &File) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// A handle on the path, without opening what it names.
fn handle(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// A handle on `path` as seen from the root directory `root`: no link leads out of it.
fn handle_below(root: &Path, path: &Path) -> io::Result<File> {
    let root = handle(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 1..OPENAT2_ATTEMPTS {
        match openat2(&root, path, how) {
            // Something on the way was renamed meanwhile (openat2(2)).
            Err(Errno::EAGAIN) => {}
            other => return Ok(File::from(other?)),
        }
    }
    Ok(File::from(openat2(&root, path, how)?))
}

/// Opens a regular file below `root`, or of descry's own mount namespace, for reading.
pub(super) fn open_regular(root: Option<&Path>, path: &Path) -> io::Result<(File, Metadata)> {
    let handle = match root {
        Some(root) => handle_below(root, path)?,
        None => handle(path)?,
    };
    let metadata = handle.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((reopen(&handle)?, metadata))
}

/// Whether the file is the one that the kernel named by device and inode number.
///
/// On overlayfs and btrfs stat(2) gives a device of its own, of major number 0, whereas maps gives that of the file
/// system, or (overlayfs, some kernels) that of the layer below. Another file of the same inode number at the same path
/// would have to be on such a file system to be mistaken.
fn same_file(metadata: &Metadata, device: Device, inode: u64) -> bool {
    let found = Device::from_stat(metadata.st_dev());
    metadata.st_ino() == inode && (found == device || found.major == 0 || device.major == 0)
}

/// Finds the file.
pub(super) fn find(tgid: Tgid, wanted: &FileReference<'_>) -> Result<Found, ObjectError> {
    let path = || wanted.path.to_owned();
    let root = proc_file::path(tgid, "root");
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut replaced = false;
    let mut not_regular = false;
    for way in 0..4 {
        let attempt = match way {
            0 => match wanted.range {
                Some((start, end)) => handle(&map_file(tgid, start, end)),
                None => continue,
            },
            1 => handle(&proc_file::path(tgid, "exe")),
            2 => handle_below(&root, wanted.path),
            _ => handle(wanted.path),
        };
        let found = attempt.and_then(|handle| Ok((handle.metadata()?, handle)));
        let (metadata, handle) = match found {
            Ok(found) => found,
            // What the first ways say (no right, no process) says less than what the path does.
            Err(source) => {
                last = source;
                continue;
            }
        };
        let is_file = metadata.is_file();
        let found = Found { handle, metadata };
        let proven = (way == 0 && wanted.current)
            || wanted.inode.is_some_and(|(device, inode)| same_file(&found.metadata, device, inode))
            || wanted.build_id.is_some_and(|build_id| is_file && found.has_build_id(build_id));
        match (proven, is_file) {
            (true, true) => return Ok(found),
            (true, false) => not_regular = true,
            // That a process runs another program than the one that it maps says nothing.
            (false, _) => replaced |= way != 1,
        }
    }
    Err(match (not_regular, replaced) {
        (true, _) => ObjectError::NotRegular { path: path() },
        (_, true) => ObjectError::Replaced { path: path() },
        _ => ObjectError::Unavailable { path: path(), source: last },
    })
}

/// `/proc/PID/map_files/START-END`.
fn map_file(tgid: Tgid, start: RuntimeAddress, end: RuntimeAddress) -> PathBuf {
    proc_file::path(tgid, &format!("map_files/{:x}-{:x}", start.0, end.0))
}
