//! Memory that is not the allocator's: files where they lie, and freed memory back to the system.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::NonNull;

use memmap2::Mmap;
use nix::sys::mman::{MmapAdvise, madvise};
use procfs::process::{MMPermissions, MMapPath, Process};

/// Gives back what was freed. glibc keeps freed memory for later, some tens of megabytes after a large file was read; an
/// agent that lives for months should not. Costs up to a millisecond; does nothing with other C libraries.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps blocks of 1 MiB and more out of the heap, for good: they grow without being copied, and go back to the system
/// when they are freed. glibc would take them into the heap once it saw some freed (mallopt(3), `M_MMAP_THRESHOLD`), and
/// small blocks between them would hold them there. Call it before anything large; does nothing with other C libraries.
pub fn keep_large_blocks_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Gives back the pages of this program's own file that it has read until now: of what a start takes, little is used again.
/// What is needed is there again when it is touched, from the system's cache.
///
/// # Errors
/// If the system does not tell what is mapped, or takes nothing back.
pub fn give_code_back() -> io::Result<()> {
    let own = std::env::current_exe()?;
    let maps = Process::myself().and_then(|own| own.smaps()).map_err(io::Error::other)?;
    for map in &maps {
        let is_own = matches!(&map.pathname, MMapPath::Path(path) if *path == own);
        let is_written =
            map.perms.contains(MMPermissions::WRITE) || map.extension.map.get("Anonymous") != Some(&0);
        let address = NonNull::new(map.address.0 as *mut c_void);
        let (Some(address), true) = (address, is_own && !is_written) else { continue };
        let len = usize::try_from(map.address.1 - map.address.0).unwrap_or_default();
        // SAFETY: none of the mapping's pages was written since the file was mapped, and none can be: each is the same again
        // when it is read from the file.
        unsafe { madvise(address, len, MmapAdvise::MADV_DONTNEED)? };
    }
    Ok(())
}

/// Maps a file for reading: only the pages that are read take memory, and the system can take them back.
///
/// Whoever makes the file shorter meanwhile ends this program (SIGBUS). So it is for files that nobody else changes in
/// place.
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file is not changed in place, which is the caller's duty.
    unsafe { Mmap::map(file) }
}
