//! Freed memory, back to the system.

/// Gives back what was freed. glibc keeps freed memory for later, some tens of megabytes after a large file was read; an
/// agent that lives for months should not. Costs up to a millisecond; does nothing with other C libraries.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
