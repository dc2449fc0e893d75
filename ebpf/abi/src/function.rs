//! Traced functions: which one a probe is of, what is kept of each, and the calls that are open.
//!
//! A probe's cookie says which function it is of and how its calls are followed; see [`Cookie`].

use crate::histogram::Histogram;

/// What a probe carries (`bpf_get_attach_cookie`): the function's number in the low half, `COOKIE_*` bits in the high one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Cookie(pub u64);

/// [`Cookie`]: arguments are wanted; the map `FUNCTION_ARGUMENTS` says where they are.
pub const COOKIE_ARGUMENTS: u64 = 1 << 32;
/// [`Cookie`]: a function of Go. Its calls belong to the goroutine, and its stack may move.
pub const COOKIE_GO: u64 = 1 << 33;

impl Cookie {
    /// The function's number.
    #[inline(always)]
    pub const fn function(self) -> u32 {
        self.0 as u32
    }

    /// Whether this bit is set.
    #[inline(always)]
    pub const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

/// Calls of one thread that are followed at once; the kernel follows as many returns (`MAX_URETPROBE_DEPTH` in
/// linux/uprobes.h). Deeper ones are counted, without a duration.
pub const MAX_OPEN_CALLS: usize = 64;

/// Who makes calls: a thread or a goroutine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CallerKey {
    /// A thread: its id in the initial pid namespace. A goroutine: the address of its `runtime.g`, which is larger.
    pub unit: u64,
    /// Its process, in the initial pid namespace.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<CallerKey>() == 16);

/// A call that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OpenCall {
    /// Stack pointer at the function's entry. Of Go: counted from the upper end of the goroutine's stack, so that it
    /// stays the same when the stack moves.
    pub sp: u64,
    /// When (ns, `CLOCK_BOOTTIME`). No other call of the same caller has the same.
    pub start: u64,
    /// Number of the function.
    pub function: u32,
    /// 1: an event of it is to be sent.
    pub sent: u32,
}
const _: () = assert!(size_of::<OpenCall>() == 24);

/// The calls of a thread or goroutine that have begun, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OpenCalls {
    /// How many.
    pub depth: u32,
    /// Process, in the pid namespace that descry runs in.
    pub tgid: u32,
    /// The calls.
    pub calls: [OpenCall; MAX_OPEN_CALLS],
}
const _: () = assert!(size_of::<OpenCalls>() == 8 + MAX_OPEN_CALLS * 24);

/// A function in a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FunctionKey {
    /// Number of the function.
    pub function: u32,
    /// Process, in the pid namespace that descry runs in.
    pub tgid: u32,
}
const _: () = assert!(size_of::<FunctionKey>() == 8);

/// What is kept of a function. Calls = `durations.count` + `unfinished` + `too_deep` + those that are still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FunctionTotals {
    /// Durations of the calls that returned. Of a USDT probe: how often it was passed, with durations of zero.
    pub durations: Histogram,
    /// Calls that ended in another way than by returning: longjmp, an exception, the end of the thread, exec.
    pub unfinished: u64,
    /// Calls that were nested deeper than [`MAX_OPEN_CALLS`].
    pub too_deep: u64,
    /// Of the calls that returned, those without an event because of the limit of events a second.
    pub limited: u64,
    /// Of the calls that returned, those whose event found the ring full.
    pub ring_full: u64,
}
const _: () = assert!(size_of::<FunctionTotals>() == size_of::<Histogram>() + 32);

/// A call that returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FunctionCall {
    /// [`crate::event::EventKind::FunctionCall`].
    pub kind: u16,
    /// Followed calls around it.
    pub depth: u16,
    /// Number of the function.
    pub function: u32,
    /// When it began (ns, `CLOCK_BOOTTIME`).
    pub start: u64,
    /// When it ended (ns, `CLOCK_BOOTTIME`).
    pub end: u64,
    /// When the innermost call around it began; 0: there is none.
    pub parent: u64,
    /// When the outermost call around it began; its own start where there is none.
    pub root: u64,
    /// Process.
    pub tgid: u32,
    /// Thread in which it ended.
    pub tid: u32,
    /// Execution unit: the thread, or the address of the goroutine's `runtime.g`.
    pub unit: u64,
    /// Request that the unit served, 0: none known.
    pub request: u64,
    /// Name of the thread, filled up with zeros.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<FunctionCall>() == 80);

/// Arguments of one call at most.
pub const MAX_ARGUMENTS: usize = 6;
/// Bytes of one text argument at most, with its end mark.
pub const MAX_ARGUMENT_TEXT: usize = 128;
/// Machine words of the registers that an argument may lie in: those of `struct pt_regs` on x86_64 are 21, of
/// `struct user_pt_regs` on aarch64 34.
pub const REGISTER_WORDS: usize = 64;

/// [`ArgumentPlace::source`]: the register itself.
pub const ARGUMENT_IN_REGISTER: u8 = 1;
/// [`ArgumentPlace::source`]: memory at register + offset.
pub const ARGUMENT_IN_MEMORY: u8 = 2;
/// [`ArgumentPlace::source`]: the offset itself.
pub const ARGUMENT_IS_CONSTANT: u8 = 3;

/// Where an argument is when its function is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ArgumentPlace {
    /// One of `ARGUMENT_*`; 0: there is no such argument.
    pub source: u8,
    /// Place of the register in `struct pt_regs` (words).
    pub register: u8,
    /// 1: it points at text that ends in a zero byte.
    pub is_text: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset (bytes), or the constant.
    pub offset: i32,
}
const _: () = assert!(size_of::<ArgumentPlace>() == 8);

/// Where the arguments of a function are.
pub type ArgumentPlaces = [ArgumentPlace; MAX_ARGUMENTS];

/// The arguments of a call, or of a USDT probe. Sent when the call begins; caller and start are those of its
/// [`FunctionCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FunctionArguments {
    /// [`crate::event::EventKind::FunctionArguments`].
    pub kind: u16,
    /// Bit n: argument n could not be read.
    pub failed: u16,
    /// Number of the function.
    pub function: u32,
    /// When the call began (ns, `CLOCK_BOOTTIME`).
    pub start: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Execution unit.
    pub unit: u64,
    /// The values: what the register or 8 bytes of memory hold.
    pub values: [u64; MAX_ARGUMENTS],
    /// Bytes of each text, without its end mark; 0 for what is no text.
    pub lengths: [u8; 8],
    /// The texts; what lies behind a text's length means nothing.
    pub texts: [[u8; MAX_ARGUMENT_TEXT]; MAX_ARGUMENTS],
}
const _: () = assert!(size_of::<FunctionArguments>() == 32 + 48 + 8 + MAX_ARGUMENTS * MAX_ARGUMENT_TEXT);
