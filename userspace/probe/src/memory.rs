//! Memory that is not the allocator's: files where they lie, and freed memory back to the system.

use std::fs::File;
use std::io;

use memmap2::Mmap;

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

/// Maps a file for reading: only the pages that are read take memory, and the system can take them back.
///
/// Whoever makes the file shorter meanwhile ends this program (SIGBUS). So it is for files that nobody else changes in
/// place.
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file is not changed in place, which is the caller's duty.
    unsafe { Mmap::map(file) }
}
