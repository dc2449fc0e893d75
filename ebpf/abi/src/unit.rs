//! Execution units: what carries one request at a time. A thread; in programs whose run-time system is known, a
//! goroutine or a Tokio task, which may run now on this thread and now on that.

/// Programs whose units are not threads, at once.
pub const MAX_UNIT_RULES: u32 = 8192;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum UnitKind {
    /// A thread, by the kernel's own number of it.
    Thread = 0,
    /// A goroutine, by its `goid`.
    Goroutine = 1,
    /// A Tokio task, by its id.
    TokioTask = 2,
    /// Nobody can tell for whom a thread works: the program moves its work from thread to thread, or a thread from one
    /// piece of work to another, in ways that are not known.
    Unknown = 3,
}

/// How to find the unit that a thread of one program runs. All of it is read from the program's memory.
///
/// ```text
/// Goroutine   g = *(thread pointer + tls);  id = *(g + id);  0: the system stack of m = *(g + m), for *(m + current)
/// TokioTask   id = *(thread pointer + tls), where the byte at (thread pointer + alive) is 1
/// Unknown     none
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnitRule {
    /// A [`UnitKind`].
    pub kind: u32,
    /// `g.goid` (bytes from g).
    pub id: u32,
    /// Where the value is that leads to the unit (bytes from the thread pointer).
    pub tls: i64,
    /// Tokio: where the byte is that says whether the thread-local value lives, or holds an id (bytes from the thread
    /// pointer).
    pub alive: i64,
    /// `g.m`.
    pub m: u32,
    /// `m.curg`.
    pub current: u32,
    /// `g.parentGoid`, the goroutine that made this one; 0: unknown.
    pub parent: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<UnitRule>() == 40);

/// A unit, on the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct UnitKey {
    /// A [`UnitKind`].
    pub kind: u32,
    /// Process; of a thread 0, since its number is enough.
    pub tgid: u32,
    /// Number of the unit.
    pub id: u64,
}
const _: () = assert!(size_of::<UnitKey>() == 16);
