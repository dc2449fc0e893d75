//! What nobody wants to know of a process, by the agent's rules.
//!
//! A word of the map `EXCLUDED` is one process and what is left out of it. It lies at the low bits of the process's id;
//! where two would, the kernel side is told of the first only.

use crate::limits::EXCLUSION_SLOTS;

/// Its threads' time off the CPU.
pub const WAITS: u32 = 1;
/// Its system calls.
pub const SYSCALLS: u32 = 2;
/// What it sends and receives on sockets.
pub const MESSAGES: u32 = 4;

/// A word; without parts it stands for nobody.
#[inline(always)]
pub const fn word(tgid: u32, parts: u32) -> u64 {
    match parts {
        0 => 0,
        parts => (tgid as u64) << 32 | parts as u64,
    }
}

/// The process of a word.
#[inline(always)]
pub const fn process_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// What a word leaves out of a process.
#[inline(always)]
pub const fn parts_of(word: u64, tgid: u32) -> u32 {
    if process_of(word) == tgid { word as u32 } else { 0 }
}

/// Where a process's word lies.
#[inline(always)]
pub const fn slot(tgid: u32) -> u32 {
    tgid & (EXCLUSION_SLOTS - 1)
}
