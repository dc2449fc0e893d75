//! Every map: key, value, size, and who writes it. Sizes marked "set at load" are overridden by userspace.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use descry_abi::counter::{COUNTERS, Counter};
use descry_abi::event::{SampleHeader, StackCopyHeader};
use descry_abi::function::{ArgumentPlaces, CallerKey, FunctionKey, FunctionTotals, OpenCalls};
use descry_abi::histogram::Histogram;
use descry_abi::limits::{
    CHUNK_SLOTS, EXCLUSION_SLOTS, FRAME_SLOTS, MAX_CALLERS, MAX_FUNCTION_TOTALS, MAX_FUNCTIONS,
    MAX_OFF_CPU_TASKS, MAX_PROCESSES, MAX_SAMPLE_SHARES, MAX_SCOPE, MAX_STACKS_SENT, MAX_WAIT_SUMS,
    MEMO_SLOTS, SCOPE_FILTER_SLOTS, STACK_COPY_BYTES, WINDOW_WORDS,
};
use descry_abi::net::{
    Connection, MAX_CAPTURE, MAX_CONNECTIONS, MAX_CONNECTS, MAX_THREADS_IN_SERIES, MAX_UNITS, Message,
};
use descry_abi::offcpu::{Control, TaskTimes, WaitKey, WaitSum};
use descry_abi::scope::ExecutableKey;
use descry_abi::share::SampleShare;
use descry_abi::syscall::{
    CallKey, ErrorKey, NearCall, OTHER_ROWS, ROWS_A_PLACE, SyscallTraits, TRAIT_SLOTS, ThreadCall, Unreturned,
};
use descry_abi::tcp::{MAX_TCP_PEERS, TcpPeer, TcpPeerKey};
use descry_abi::template::{CountKey, Exchange, MAX_COUNT_ROWS, MAX_TEMPLATES, Template, TemplateKey};
use descry_abi::tls::{MAX_TLS_SESSIONS, MAX_TLS_UNITS, TlsSessionKey};
use descry_abi::unit::{MAX_UNIT_RULES, UnitKey, UnitRule};
use descry_abi::unwind::Process;

use crate::net::connect::Connecting;
use crate::net::payload::{Rest, SEGMENTS_A_CALL, Segment};
use crate::net::request::{THREAD_SLOTS, ThreadRequest};
use crate::net::series::Series;
use crate::net::tls::{TlsSession, TlsUnit};
use crate::registers::Registers;

/// `BPF_F_MMAPABLE` (linux/bpf.h): userspace fills the map through memory instead of a system call an entry.
const MMAPABLE: usize = 1 << 10;

/// Memory of a hash map follows its use.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// One chunk of the pool of unwind tables.
pub type Chunk = [u64; CHUNK_SLOTS];

/// A remembered row: see `unwind::memo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemoEntry {
    pub key: u64,
    pub value: u64,
}

/// The remembered rows of one CPU.
pub type Memo = [MemoEntry; MEMO_SLOTS];

/// Kinds of programs that take stacks. Each has a state of its own, because one can interrupt another.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum ProgramKind {
    /// Perf events: they come in interrupts, and do not nest.
    Sample = 0,
    /// Ends of system calls: a task has one at a time, and preemption is off while the program runs.
    Syscall = 1,
    /// Scheduler tracepoints: interrupts are off, and they do not nest.
    OffCpu = 2,
    /// The list of tasks, which all others can interrupt.
    Tasks = 3,
}

/// How many.
pub const PROGRAM_KINDS: usize = 4;

/// The state of one walk: registers, the window onto the stack, and the record as it will be sent.
#[repr(C)]
pub struct State {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    /// Return address register; aarch64 only.
    pub lr: u64,
    /// Where the frame pointer was saved, if it has not been read from there yet; 0: `fp` is right.
    pub fp_at: u64,
    /// Address of the window's first byte.
    pub window_start: u64,
    /// Bytes of the window that hold stack memory.
    pub window_len: u64,
    /// Whether the row in force must be looked up at pc, not at pc - 1.
    pub exact: u64,
    /// The mapping of the frame before, counted from the process's first.
    pub mapping: u32,
    /// An `UnwindEnd`; 0 while walking.
    pub end: u32,
    /// The [`ProgramKind`] that this state is of.
    pub program: u32,
    pub reserved: u32,
    /// Where the registers of a task in the kernel are put.
    pub saved: Registers,
    pub window: [u64; WINDOW_WORDS],
    pub header: SampleHeader,
    /// Kernel frames, then user frames.
    pub frames: [u64; FRAME_SLOTS],
}

/// The record of a stack copy, and room to make it.
#[repr(C)]
pub struct CopyState {
    pub saved: Registers,
    /// The record from here on.
    pub header: StackCopyHeader,
    pub bytes: [u8; STACK_COPY_BYTES],
}

/// The record of a message, and room to make it.
#[repr(C)]
pub struct NetState {
    pub registers: Registers,
    /// The `struct sock` that a tracepoint handed over.
    pub socket: u64,
    /// Bytes that this CPU wrote since it looked how full the ring is.
    pub unlooked: u64,
    /// What was not copied yet of a call's buffers.
    pub rest: Rest,
    /// The segments that follow it.
    pub segments: [Segment; SEGMENTS_A_CALL as usize],
    pub exchange: Exchange,
    /// The record from here on.
    pub message: Message,
    /// Twice what is captured: the verifier bounds offset and length one by one.
    pub bytes: [u8; 2 * MAX_CAPTURE],
}

/// To userspace: all events. 1 MiB; set at load. Written by `emit` only.
#[btf_map]
pub static EVENTS: RingBuf<u64, { 1 << 20 }> = RingBuf::new();

/// Counters by `Counter`. Written by `emit::count`.
#[btf_map]
pub static COUNTS: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();

/// Processes in scope: tgid to nothing. Written by userspace and, on fork and exec, by `lifecycle`.
#[btf_map]
pub static SCOPE_TGIDS: HashMap<u32, u32, { MAX_SCOPE as usize }> = HashMap::new();

/// What `SCOPE_TGIDS` holds, by the low bits of ids, for a tenth of what a look-up there costs: nothing (0), the one process
/// of this id, or maybe several (`SCOPE_SEVERAL`). Written by userspace before any program runs, and by `scope`.
#[btf_map]
pub static SCOPE_FILTER: Array<u64, { SCOPE_FILTER_SLOTS as usize }> = Array::new();

/// Cgroups in scope: id to nothing. Written by userspace.
#[btf_map]
pub static SCOPE_CGROUPS: HashMap<u64, u32, 1024> = HashMap::new();

/// Files whose execution puts a process in scope. Written by userspace.
#[btf_map]
pub static SCOPE_EXECUTABLES: HashMap<ExecutableKey, u32, 1024> = HashMap::new();

/// Processes of which not all samples are taken; 1 entry where there are none. Written by userspace; removed on exec and exit
/// by `lifecycle`.
#[btf_map]
pub static SAMPLE_SHARES: HashMap<u32, SampleShare, { MAX_SAMPLE_SHARES as usize }> = HashMap::new();

/// What is left out of which process, see `descry_abi::exclusion`; 1 entry where nothing is. Written by userspace; added on
/// fork and removed on exec and exit by `lifecycle`.
#[btf_map]
pub static EXCLUDED: Array<u64, { EXCLUSION_SLOTS as usize }> = Array::new();

/// Processes with a mapping table. Written by userspace; removed on exec by `lifecycle`.
#[btf_map]
pub static PROCESSES: HashMap<u32, Process, { MAX_PROCESSES as usize }> = HashMap::new();

/// The pool of unwind tables, a chunk an entry; chunks come and go with use. Written by userspace through mmap.
/// The number of chunks is set at load (`--unwind-memory`).
#[btf_map]
pub static TABLES: ArrayOfMaps<Array<Chunk, 1, MMAPABLE>, 64> = ArrayOfMaps::new();

/// Remembered rows, an entry a CPU (128 KiB each). The number of CPUs is set at load. Written by `unwind`.
#[btf_map]
pub static MEMOS: Array<Memo, 1> = Array::new();

/// States of walks, by [`ProgramKind`] (12 KiB each and CPU).
#[btf_map]
pub static WALK_STATES: PerCpuArray<State, PROGRAM_KINDS> = PerCpuArray::new();

/// Buffers for stack copies, by [`ProgramKind`] (24 KiB each and CPU).
#[btf_map]
pub static COPY_STATES: PerCpuArray<CopyState, PROGRAM_KINDS> = PerCpuArray::new();

/// What userspace tells of system calls, by number. Written by userspace.
#[btf_map]
pub static SYSCALL_TRAITS: Array<SyscallTraits, TRAIT_SLOTS> = Array::new();

/// The call that each thread is in, by where its registers are saved. The first thread there has the entry until it ends.
/// 1 entry; set at load where system calls are measured, as are those of the next five. Written by `syscall`.
#[btf_map]
pub static SYSCALL_NEAR_THREADS: Array<NearCall, 1> = Array::new();

/// The same of threads whose entry there is another's, by the address of their saved registers.
#[btf_map]
pub static SYSCALL_THREADS: HashMap<u64, ThreadCall, 64, NO_PREALLOC> = HashMap::new();

/// Whose the rows of `SYSCALL_NEAR_ROWS` are: a [`CallKey`] as a word; 0: nobody's. Written by `syscall`; userspace gives
/// back those of processes that ended.
#[btf_map]
pub static SYSCALL_ROW_KEYS: Array<u64, { ROWS_A_PLACE as usize }> = Array::new();

/// Durations of calls that returned, found by the key's low bits. A call may have a row here and one in the next map; they
/// add up.
#[btf_map]
pub static SYSCALL_NEAR_ROWS: PerCpuArray<Histogram, { ROWS_A_PLACE as usize }> = PerCpuArray::new();

/// The same for calls whose place there is taken, by process and call. Written by `syscall`; userspace removes rows of
/// processes that ended.
#[btf_map]
pub static SYSCALL_ROWS: PerCpuHashMap<CallKey, Histogram, 64, NO_PREALLOC> = PerCpuHashMap::new();

/// Calls for which neither had room: work, then blocking waits. Written by `syscall`.
#[btf_map]
pub static SYSCALL_OTHERS: PerCpuArray<Histogram, OTHER_ROWS> = PerCpuArray::new();

/// Errors, by process, call and number. Written by `syscall`; userspace removes those of processes that ended.
#[btf_map]
pub static SYSCALL_ERRORS: PerCpuHashMap<ErrorKey, u64, 64, NO_PREALLOC> = PerCpuHashMap::new();

/// Calls that did not return. Written by `syscall`; userspace removes those of processes that ended.
#[btf_map]
pub static SYSCALL_UNRETURNED: PerCpuHashMap<CallKey, Unreturned, 64, NO_PREALLOC> = PerCpuHashMap::new();

/// What a new row begins with: a histogram is too large for the stack of a program. Never written.
#[btf_map]
pub static EMPTY_HISTOGRAM: Array<Histogram, 1> = Array::new();

/// Times of watched tasks, by their id in the initial pid namespace. Written by `offcpu`. The size is set at load, as
/// those of the next two.
#[btf_map]
pub static OFF_CPU_TASKS: HashMap<u32, TaskTimes, { MAX_OFF_CPU_TASKS as usize }> = HashMap::new();

/// Waits added up. Written by `offcpu`; userspace removes the sums of past epochs.
#[btf_map]
pub static WAIT_SUMS: HashMap<WaitKey, WaitSum, { MAX_WAIT_SUMS as usize }> = HashMap::new();

/// Ids of stacks that were sent. Written by `offcpu`.
#[btf_map]
pub static STACKS_SENT: LruHashMap<u64, u32, { MAX_STACKS_SENT as usize }> = LruHashMap::new();

/// Whether time off the CPU is measured now. Written by userspace.
#[btf_map]
pub static OFF_CPU_CONTROL: Array<Control, 1> = Array::new();

/// Buffers of the programs on sockets (8 KiB a CPU).
#[btf_map]
pub static NET_STATES: PerCpuArray<NetState, 1> = PerCpuArray::new();

/// Connections by the address of their `struct sock`; 1 entry where no sockets are watched. Written by `net`.
#[btf_map]
pub static CONNECTIONS: LruHashMap<u64, Connection, { MAX_CONNECTIONS as usize }> = LruHashMap::new();

/// Calls of connect(), by the address of the `struct sock`; 1 entry where no sockets are watched. Written by `net`.
#[btf_map]
pub static CONNECTS: LruHashMap<u64, Connecting, { MAX_CONNECTS as usize }> = LruHashMap::new();

/// What TCP did, by process and peer; 1 entry where no sockets are watched. Written by `net`; userspace removes rows of
/// processes that ended.
#[btf_map]
pub static TCP_PEERS: HashMap<TcpPeerKey, TcpPeer, { MAX_TCP_PEERS as usize }> = HashMap::new();

/// The same of all peers that found no room. Written by `net`.
#[btf_map]
pub static TCP_OTHERS: Array<TcpPeer, 1> = Array::new();

/// What a new row begins with: it is too large for the stack of a program. Never written.
#[btf_map]
pub static TCP_EMPTY: Array<TcpPeer, 1> = Array::new();

/// What userspace found out of connections, by their id: bytes of a message that are wanted. Written by userspace.
#[btf_map]
pub static VERDICTS: LruHashMap<u64, u32, { MAX_CONNECTIONS as usize }> = LruHashMap::new();

/// Templates, and what they are found by; 1 entry each where no sockets are watched. Written by userspace.
#[btf_map]
pub static TEMPLATES: Array<Template, { MAX_TEMPLATES as usize }> = Array::new();
#[btf_map]
pub static TEMPLATES_BY_KEY: HashMap<TemplateKey, u32, { MAX_TEMPLATES as usize }> = HashMap::new();

/// Exchanges that are counted and not told, by connection and answer; 1 entry where no sockets are watched. Written by
/// `net::template`; userspace removes rows of connections that are closed.
#[btf_map]
pub static EXCHANGE_COUNTS: HashMap<CountKey, Histogram, { MAX_COUNT_ROWS as usize }, NO_PREALLOC> =
    HashMap::new();

/// The request that a thread serves, by the low bits of its number: most threads find it here, without a look into `UNITS`.
/// 1 entry where no sockets are watched. Written by `net::request`.
#[btf_map]
pub static THREAD_REQUESTS: Array<ThreadRequest, { THREAD_SLOTS as usize }> = Array::new();

/// The request that a unit serves, if not one of `THREAD_REQUESTS`. Nobody tells of the end of goroutines and tasks, so the
/// least recently used ones are forgotten. Written by `net::request`.
#[btf_map]
pub static UNITS: LruHashMap<UnitKey, u64, { MAX_UNITS as usize }> = LruHashMap::new();

/// Calls that move several messages and are not done, by thread (its id and process in the initial pid namespace).
/// Written by `net`.
#[btf_map]
pub static SERIES: LruHashMap<u64, Series, { MAX_THREADS_IN_SERIES as usize }> = LruHashMap::new();

/// What processes have ever done on sockets, by the low bits of their numbers. 1 entry where no sockets are watched. Written
/// by `net::habit`.
#[btf_map]
pub static HABITS: Array<u64, { SCOPE_FILTER_SLOTS as usize }> = Array::new();

/// How to find the units of a program, by process. Written by userspace; removed on exec and exit by `lifecycle`.
#[btf_map]
pub static UNIT_RULES: HashMap<u32, UnitRule, { MAX_UNIT_RULES as usize }> = HashMap::new();

/// 1 at the low bits of each process that ever had a rule: of the others it need not be looked up. Written by userspace.
#[btf_map]
pub static UNIT_FILTER: Array<u64, { SCOPE_FILTER_SLOTS as usize }> = Array::new();

/// 1: functions of TLS are probed. Written by userspace.
#[btf_map]
pub static TLS_CONTROL: Array<u32, 1> = Array::new();

/// What units do with TLS. Nobody tells of the end of goroutines, so the least recently used ones are forgotten. 1 entry
/// where no sockets are watched. Written by `net::tls`.
#[btf_map]
pub static TLS_UNITS: LruHashMap<UnitKey, TlsUnit, { MAX_TLS_UNITS as usize }> = LruHashMap::new();

/// The sockets of sessions of TLS; 1 entry where no sockets are watched. Written by `net::tls`.
#[btf_map]
pub static TLS_SESSIONS: LruHashMap<TlsSessionKey, TlsSession, { MAX_TLS_SESSIONS as usize }> =
    LruHashMap::new();

/// How many requests were numbered on each CPU.
#[btf_map]
pub static REQUEST_NUMBERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Values of new entries.
#[repr(C)]
pub struct Zeros {
    pub calls: OpenCalls,
    pub totals: FunctionTotals,
}

/// Calls of traced functions that have begun. Written by `function`; removed when their thread ends.
#[btf_map]
pub static OPEN_CALLS: HashMap<CallerKey, OpenCalls, { MAX_CALLERS as usize }, NO_PREALLOC> = HashMap::new();

/// What is kept of traced functions. Written by `function`.
#[btf_map]
pub static FUNCTION_TOTALS: PerCpuHashMap<
    FunctionKey,
    FunctionTotals,
    { MAX_FUNCTION_TOTALS as usize },
    NO_PREALLOC,
> = PerCpuHashMap::new();

/// Zeros, too large for the stack of a program. Written by nobody.
#[btf_map]
pub static FUNCTION_ZEROS: Array<Zeros, 1> = Array::new();

/// When the last event of a traced call was due. Written by `function`.
#[btf_map]
pub static FUNCTION_RATE: Array<u64, 1> = Array::new();

/// Where the arguments of traced functions are, by the function's number. Written by userspace.
#[btf_map]
pub static FUNCTION_ARGUMENTS: HashMap<u32, ArgumentPlaces, { MAX_FUNCTIONS as usize }, NO_PREALLOC> =
    HashMap::new();

const _: () = assert!(size_of::<State>() <= 32 * 1024 && size_of::<CopyState>() <= 32 * 1024);
const _: () = assert!(Counter::ALL.len() == COUNTERS as usize);
