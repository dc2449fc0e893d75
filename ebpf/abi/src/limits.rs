//! Every limit of the kernel side, with what it costs.

/// User frames of one stack at most. 8 B each in a sample.
pub const MAX_USER_FRAMES: usize = 512;
/// Kernel frames of one stack at most (`kernel.perf_event_max_stack` is 127 by default). 8 B each in a sample.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Slots for frames in the per-CPU state: a power of two that holds both kinds, so that an index can be masked.
pub const FRAME_SLOTS: usize = 1024;
/// 8-byte words of the window through which the unwinder reads a stack (4 KiB per CPU).
pub const WINDOW_WORDS: usize = 512;
/// Remembered rows per CPU: 16 B each, 128 KiB per CPU. Of a compiler's frames 4 in 100 are not found in as many, 6 in
/// half as many; twice as many find no more.
pub const MEMO_SLOTS: usize = 8192;
/// 8-byte slots of one chunk of unwind tables: 1 MiB.
pub const CHUNK_SLOTS: usize = 1 << 17;
/// Chunks at most: 512 MiB of tables. `--unwind-memory` sets the number in force.
pub const MAX_CHUNKS: u32 = 512;
/// Executable mappings of one process at most; further ones are walked in userspace.
pub const MAX_MAPPINGS: u32 = 4096;
/// Processes with a mapping table at once (about 80 B each).
pub const MAX_PROCESSES: u32 = 8192;
/// Process ids, cgroups or files in a scope at once.
pub const MAX_SCOPE: u32 = 65_536;
/// Entries of the filter before the processes in scope (8 B each); a power of two.
pub const SCOPE_FILTER_SLOTS: u32 = 4096;
/// Processes of which fewer samples are taken at once (about 80 B each, where there may be any).
pub const MAX_SAMPLE_SHARES: u32 = 8192;
/// Processes that the kernel side knows to leave something out of (8 B each, where there may be any); a power of two.
pub const EXCLUSION_SLOTS: u32 = 16_384;
/// Bytes of user stack shipped for a walk in userspace (per CPU, and per such sample in the ring).
pub const STACK_COPY_BYTES: usize = 24 * 1024;
/// The ring's reader is woken while the bytes in the ring are in a band of this size, of which each quarter of the ring has
/// one: longer than any record, so that none leaps over it, and short, since each look at it there costs the watched program
/// a wake-up.
pub const RING_BAND: u64 = 32 * 1024;
/// Functions with return probes that a thread is in at once, as in the kernel's `MAX_URETPROBE_DEPTH`.
pub const MAX_RETURN_PROBES: u32 = 64;
/// Nested pid namespaces, as in the kernel's `MAX_PID_NS_LEVEL`.
pub const MAX_PID_NAMESPACES: u32 = 32;
/// Levels of the cgroup tree searched for a scope's cgroup.
pub const MAX_CGROUP_DEPTH: i32 = 24;
/// Threads whose system calls are measured at once (64 B each).
pub const MAX_SYSCALL_THREADS: u32 = 65_536;
/// Rows of system calls at once, a row a process and call (1.3 KiB each and CPU, when used); fewer on machines with many
/// CPUs, see `MAX_SYSCALL_MEMORY`.
pub const MAX_SYSCALL_ROWS: u32 = 16_384;
/// Threads whose calls are kept where they are found at once (64 B each, where system calls are measured); a power of two.
pub const NEAR_SYSCALL_THREADS: u32 = 8192;
/// Rows that are found at once and allocated beforehand (1.3 KiB each and CPU, where system calls are measured); fewer on
/// machines with more than 48 CPUs, never fewer than a quarter. A power of two.
pub const NEAR_SYSCALL_ROWS: u32 = 1024;
/// Kernel memory that rows of system calls take at most (bytes); those allocated beforehand take up to a quarter as much.
pub const MAX_SYSCALL_MEMORY: u64 = 256 << 20;
/// Errors of system calls at once, one a process, call and error number (64 B each, when used); also calls that did not
/// return, one a process and call.
pub const MAX_SYSCALL_ERRORS: u32 = 16_384;
/// Watched tasks whose time off the CPU is measured at once (about 120 B each). Set at load.
pub const MAX_OFF_CPU_TASKS: u32 = 32_768;
/// Sums of waits at once (about 110 B each). Set at load.
pub const MAX_WAIT_SUMS: u32 = 65_536;
/// Stacks of waits that the kernel side remembers to have sent (about 80 B each). Set at load.
pub const MAX_STACKS_SENT: u32 = 16_384;
/// Between two stack copies of waits on one CPU at least (ns): waits are not bounded by a frequency, as samples are.
pub const COPY_PAUSE: u64 = 4_000_000;
/// Threads and goroutines with open calls of traced functions at once: 1.5 KiB each, taken when one makes its first call.
pub const MAX_CALLERS: u32 = 32_768;
/// Functions in processes with totals at once: 1.3 KiB for each CPU, taken when one is first called.
pub const MAX_FUNCTION_TOTALS: u32 = 65_536;
/// Functions that are traced at once.
pub const MAX_FUNCTIONS: u32 = 65_536;
