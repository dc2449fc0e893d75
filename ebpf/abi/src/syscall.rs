//! System calls: what is counted in the kernel, and the record of a slow one.

use crate::limits::NEAR_SYSCALL_THREADS;

/// Set in a number: a call of the 32-bit interface, whose numbers are others. Bit 30 is the kernel's own mark of x32.
pub const COMPAT: u32 = 1 << 31;
/// Numbers with [traits](SyscallTraits); above those of every 64-bit interface.
pub const TRAIT_SLOTS: usize = 512;
/// Bytes of a path in a record at most, with the zero at its end. Longer ones are cut.
pub const PATH_BYTES: usize = 256;
/// The highest error number (`MAX_ERRNO` in linux/err.h): results from -4095 to -1 are errors.
pub const MAX_ERRNO: i64 = 4095;
/// Rows that take the calls of processes for which there was no room: one for work, one for blocking waits.
pub const OTHER_ROWS: usize = 2;

/// What a call is counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct CallKey {
    /// Process.
    pub tgid: u32,
    /// Number of the system call, perhaps with [`COMPAT`].
    pub number: u32,
}
const _: () = assert!(size_of::<CallKey>() == 8);

/// What an error is counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct ErrorKey {
    /// The call.
    pub call: CallKey,
    /// The error number, positive.
    pub errno: u32,
}
const _: () = assert!(size_of::<ErrorKey>() == 12);

impl CallKey {
    /// Both numbers in one word, which is 0 for no call: no process has the id 0. On a little-endian machine, as all that
    /// descry runs on, it is what the key's eight bytes hold.
    pub const fn word(self) -> u64 {
        (self.number as u64) << 32 | self.tgid as u64
    }

    /// The key of a word; none: it is that of no call.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            0 => None,
            word => Some(Self { tgid: word as u32, number: (word >> 32) as u32 }),
        }
    }
}

/// The call that a thread is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadCall {
    /// When it began (ns, `CLOCK_MONOTONIC`); 0: the thread is in none.
    pub start: u64,
    /// The call.
    pub key: CallKey,
    /// Where the kernel saves the thread's user registers, which is its own place while it lives; 0: the entry is nobody's.
    pub registers: u64,
    /// Thread; 0: not written yet.
    pub tid: u32,
    /// The near row that the call takes if it can.
    pub wanted_row: u32,
}
const _: () = assert!(size_of::<ThreadCall>() == 32);

/// A [`ThreadCall`] in a cache line of its own: neighbours run on other CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct NearCall {
    /// The call.
    pub call: ThreadCall,
    /// Zero.
    pub reserved: [u64; 4],
}
const _: () = assert!(size_of::<NearCall>() == 64);

/// The near entry of a thread, by the low half of the address of its registers.
#[inline(always)]
pub const fn near_thread(registers: u32) -> u32 {
    // The ends of stacks: multiples of a page but for some bytes, and often neighbours.
    (registers >> 12).wrapping_mul(0x9e37_79b1) >> (u32::BITS - NEAR_SYSCALL_THREADS.ilog2())
}

/// Near rows whose keys share a place of the same number; a power of two.
pub const ROWS_A_PLACE: u32 = 8;
/// How many of them are taken by whoever comes first. The rest is for rows that could not be allocated.
pub const FIRST_ROWS: u32 = 4;

/// The near row that a call takes if it can, of so many places (a power of two).
#[inline(always)]
pub const fn wanted_row(key: CallKey, places: u32) -> u32 {
    // The numbers of one process's calls are neighbours, and some that are often made are 256 apart.
    let hash = key.number.wrapping_mul(0x9e37_79b1) ^ key.tgid.wrapping_mul(0x85eb_ca6b);
    (hash >> 16 & (places - 1)) * ROWS_A_PLACE + (hash >> 24) % FIRST_ROWS
}

/// The near row that it takes where those before this one (counted from 0) are others': one of the same place.
#[inline(always)]
pub const fn nth_row(wanted: u32, nth: u32) -> u32 {
    let way = if nth < FIRST_ROWS { (wanted + nth) % FIRST_ROWS } else { nth % ROWS_A_PLACE };
    wanted / ROWS_A_PLACE * ROWS_A_PLACE + way
}

/// Calls that did not return because their thread ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Unreturned {
    /// How many.
    pub count: u64,
    /// Time from their beginnings to the ends of their threads (ns).
    pub sum: u64,
}
const _: () = assert!(size_of::<Unreturned>() == 16);

/// What the kernel side has to know of a system call of the native interface; userspace fills them in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallTraits {
    /// Which argument is a path, counted from 1; 0: none is.
    pub path: u8,
    /// 1: it waits for others, it does no work.
    pub blocking: u8,
    /// Whether the registers afterwards are those of other code: a [`Replaces`].
    pub replaces: u8,
    /// 1: a child returns from it too, which has not called it.
    pub forks: u8,
}
const _: () = assert!(size_of::<SyscallTraits>() == 4);

/// Whether the registers after a call are those of other code than that which called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Replaces {
    /// They never are.
    Never = 0,
    /// They are if it succeeds: execve.
    OnSuccess = 1,
    /// They always are, and so is the result: rt_sigreturn gives back those of the code that a signal interrupted.
    Always = 2,
}

/// What follows the frames in a record of [`EventKind::SlowCall`](crate::event::EventKind::SlowCall): this, then
/// `path_len` bytes of path, filled up with anything to a multiple of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlowCall {
    /// When it began (ns, `CLOCK_BOOTTIME`).
    pub start: u64,
    /// What it returned.
    pub result: i64,
    /// Its arguments as they were in the registers; meaningless if `has_arguments` is 0.
    pub arguments: [u64; 6],
    /// Its number, perhaps with [`COMPAT`].
    pub number: u32,
    /// Bytes of the path that follows, without a zero; 0: none was read.
    pub path_len: u16,
    /// 0: the registers are no longer those of the call (execve, rt_sigreturn).
    pub has_arguments: u16,
}
const _: () = assert!(size_of::<SlowCall>() == 72);
