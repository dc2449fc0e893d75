//! A finished profile: what every output is made from.
//!
//! Tables refer to each other by index; no table holds two equal entries, and no entry is referred to by nothing.
//! Stacks are leaf first, kernel frames before user frames; lines of one location are callee first.

use std::sync::Arc;
use std::time::Duration;

pub use descry_decode::WaitState;
use descry_decode::ids::{Comm, Cpu, Tgid, Tid, UnixNanos};
pub use descry_process::{AttributeValue, Attributes};
pub use descry_symbol::FrameKind;

/// What the weight of a sample measures. All weights are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileKind {
    /// Time on a CPU.
    Cpu,
    /// Time blocked or waiting for a CPU.
    OffCpu,
    /// Elapsed time.
    Wall,
}

/// Why a thread waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// For bytes from a socket.
    NetworkRead,
    /// For room in a socket.
    NetworkWrite,
    /// For a connection that somebody else makes.
    NetworkAccept,
    /// For a connection of its own.
    NetworkConnect,
    /// For any of several files, most of them sockets: `epoll_wait`, `poll`, `select`.
    NetworkPoll,
    /// For a lock or a condition: a futex, `flock`.
    Lock,
    /// For a disk or a file system.
    Disk,
    /// For a time or a signal.
    Sleep,
    /// For another process: a pipe, an eventfd, a message queue, a semaphore.
    Pipe,
    /// For memory.
    PageFault,
    /// For the end of a child.
    Child,
    /// For a CPU.
    RunQueue,
    /// Stopped by a signal or a debugger.
    Stopped,
    /// For something else.
    Other,
}

impl Reason {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkRead => "network read",
            Self::NetworkWrite => "network write",
            Self::NetworkAccept => "network accept",
            Self::NetworkConnect => "network connect",
            Self::NetworkPoll => "network poll",
            Self::Lock => "lock",
            Self::Disk => "disk",
            Self::Sleep => "sleep",
            Self::Pipe => "pipe",
            Self::PageFault => "page fault",
            Self::Child => "child",
            Self::RunQueue => "run queue",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }
}

/// What kind of waits a sample adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waited {
    /// Why.
    pub reason: Reason,
    /// In which state the thread left its CPU.
    pub state: WaitState,
}

/// The state of waits in words.
pub fn state_name(state: WaitState) -> &'static str {
    match state {
        WaitState::Preempted => "preempted",
        WaitState::Interruptible => "interruptible",
        WaitState::Uninterruptible => "uninterruptible",
        WaitState::Stopped => "stopped",
        WaitState::New => "new",
    }
}

/// A measurement with names.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What was measured.
    pub kind: ProfileKind,
    /// When it began.
    pub start: UnixNanos,
    /// How long it took.
    pub duration: Duration,
    /// Nanoseconds from one sample to the next on one CPU; 0: not sampled.
    pub period: u64,
    /// The processes that have samples.
    pub processes: Vec<ProfileProcess>,
    /// Binaries and other mapped code.
    pub mappings: Vec<ProfileMapping>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Addresses.
    pub locations: Vec<Location>,
    /// Stacks.
    pub stacks: Vec<Stack>,
    /// Samples; equal ones are merged.
    pub samples: Vec<ProfileSample>,
}

/// One process.
#[derive(Clone, Debug)]
pub struct ProfileProcess {
    /// Its id.
    pub tgid: Tgid,
    /// The name that its stacks begin with.
    pub name: Arc<str>,
    /// Its OpenTelemetry Resource: `service.*`, `process.*`, `container.id`, `host.*`, `os.*`.
    pub resource: Attributes,
}

/// A binary (or the kernel, or the vdso) that code was mapped from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProfileMapping {
    /// Path in the mount namespace of the process, `[vdso]`, or `[kernel]`.
    pub path: Arc<str>,
    /// First runtime address; 0 where processes differ.
    pub start: u64,
    /// First runtime address after it; 0 where processes differ.
    pub end: u64,
    /// Offset in the file of `start` (bytes).
    pub offset: u64,
    /// GNU build id, lower-case hex.
    pub gnu_build_id: Option<Arc<str>>,
    /// Go build id.
    pub go_build_id: Option<Arc<str>>,
    /// OpenTelemetry's htlhash: hex of the first 16 bytes of SHA-256(first 4096 B, last 4096 B, length as u64 BE).
    pub htlhash: Option<Arc<str>>,
    /// Whether any of its addresses have function names, files and lines, inlined functions.
    pub has_functions: bool,
    /// Whether any has a file name.
    pub has_filenames: bool,
    /// Whether any has a line.
    pub has_lines: bool,
    /// Whether any has inlined functions.
    pub has_inlines: bool,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Demangled name.
    pub name: Arc<str>,
    /// Name as the linker knows it; the same where it does not differ.
    pub system_name: Arc<str>,
    /// Source file.
    pub file: Option<Arc<str>>,
}

/// An address with what it turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Index into [`Profile::mappings`]; none: in no file.
    pub mapping: Option<u32>,
    /// Address in the ELF file's own numbering (of return addresses: minus one); of JIT and kernel code at run time.
    pub address: u64,
    /// Who made the code.
    pub kind: FrameKind,
    /// Callee first; all but the last are inlined. Empty: unknown, to be shown as [`Profile::unknown_name`].
    pub lines: Vec<Line>,
}

/// One function at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Index into [`Profile::functions`].
    pub function: u32,
    /// From 1; 0: unknown.
    pub line: u32,
    /// From 1; 0: unknown.
    pub column: u32,
}

/// A stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Indices into [`Profile::locations`], leaf first.
    pub locations: Vec<u32>,
    /// Whether frames are missing at the root's end.
    pub truncated: bool,
}

/// Equal samples of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileSample {
    /// Index into [`Profile::processes`].
    pub process: u32,
    /// Thread, where threads were asked for.
    pub thread: Option<(Tid, Comm)>,
    /// CPU, where CPUs were asked for.
    pub cpu: Option<Cpu>,
    /// Index into [`Profile::stacks`].
    pub stack: u32,
    /// What kind of waits these are; none: time on a CPU.
    pub waited: Option<Waited>,
    /// How many samples, or waits.
    pub count: u64,
    /// Time that they stand for (ns).
    pub weight: u64,
    /// The longest wait (ns); 0: time on a CPU.
    pub longest: u64,
    /// When each was taken; empty where times were not asked for, else `count` of them, rising.
    pub timestamps: Vec<UnixNanos>,
}

/// One function of a stack as a person reads it; see [`Profile::named_frames`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFrame<'a> {
    /// Function name, or `[FILE+0xOFFSET]` for an unknown frame. Without `_[k]` or `_[i]`.
    pub name: std::borrow::Cow<'a, str>,
    /// Source file.
    pub file: Option<&'a str>,
    /// From 1; 0: unknown.
    pub line: u32,
    /// Who made the code.
    pub kind: FrameKind,
    /// Whether the compiler put this function's code into its caller.
    pub inlined: bool,
    /// Index into [`Profile::locations`].
    pub location: u32,
    /// Index into [`Profile::functions`]; none for an unknown frame.
    pub function: Option<u32>,
}

impl Profile {
    /// The functions of a stack, root first, inlined ones after the function that they were put into.
    /// An index out of range yields no frame.
    pub fn named_frames(&self, stack: u32) -> impl Iterator<Item = NamedFrame<'_>> {
        let locations = self.stacks.get(stack as usize).map_or(&[][..], |stack| &stack.locations);
        locations.iter().rev().flat_map(move |&index| self.location_frames(index))
    }

    fn location_frames(&self, index: u32) -> Vec<NamedFrame<'_>> {
        let Some(location) = self.locations.get(index as usize) else { return Vec::new() };
        let outermost = location.lines.len().saturating_sub(1);
        let mut frames = Vec::with_capacity(location.lines.len().max(1));
        for (depth, line) in location.lines.iter().enumerate().rev() {
            let Some(function) = self.functions.get(line.function as usize) else { continue };
            frames.push(NamedFrame {
                name: (&*function.name).into(),
                file: function.file.as_deref(),
                line: line.line,
                kind: location.kind,
                inlined: depth != outermost,
                location: index,
                function: Some(line.function),
            });
        }
        if frames.is_empty() {
            frames.push(NamedFrame {
                name: self.unknown_name(location).into(),
                file: None,
                line: 0,
                kind: location.kind,
                inlined: false,
                location: index,
                function: None,
            });
        }
        frames
    }

    /// `[FILE+0xOFFSET]`, with the file's base name; `[unknown+0xADDRESS]` outside of files.
    pub fn unknown_name(&self, location: &Location) -> String {
        let mapping = location.mapping.and_then(|index| self.mappings.get(index as usize));
        let file = mapping.map_or("unknown", |mapping| mapping.path.rsplit('/').next().unwrap_or("unknown"));
        let file = file.trim_start_matches('[').trim_end_matches(']');
        format!("[{file}+{:#x}]", location.address)
    }
}
