//! Named counters of the kernel side: one for every early return.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Index into the per-CPU counter array.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All counters, in the order of their index.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)+];

            /// The name in metrics and in the command's last line.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }

            /// The name as a metric of descry's own telemetry.
            pub const fn metric(self) -> &'static str {
                match self { $(Counter::$variant => concat!("descry.kernel.", $name),)+ }
            }

            /// One sentence for the documentation.
            pub const fn help(self) -> &'static str {
                match self { $(Counter::$variant => concat!($($doc,)+),)+ }
            }
        }
    };
}

counters! {
    /// Samples written to the ring.
    Samples = "samples",
    /// Samples of the idle task, which is nobody's time.
    Idle = "idle",
    /// Samples of tasks outside the scope.
    OutOfScope = "out_of_scope",
    /// Samples left out because fewer of their process are wanted; those that are taken stand for them, if any are.
    LeftOut = "left_out",
    /// Times that threads left their CPU, of processes whose waits the rules leave out.
    SwitchesExcluded = "switches_excluded",
    /// Times that a task got a CPU and no program was told: its wait is told by how long it ran since.
    ArrivalsUnseen = "arrivals_unseen",
    /// System calls of processes of which the rules leave them out.
    SyscallsExcluded = "syscalls_excluded",
    /// Samples lost because the ring was full.
    RingFullSample = "ring_full_sample",
    /// Stack copies lost because the ring was full; the sample itself is kept and marked as cut.
    RingFullCopy = "ring_full_copy",
    /// Lifecycle events (exec, fork, exit, comm) lost because the ring was full.
    RingFullLifecycle = "ring_full_lifecycle",
    /// Samples lost because the per-CPU state was missing (a CPU that came online later).
    NoState = "no_state",
    /// Tasks that have no id in the pid namespace that descry runs in.
    PidNotVisible = "pid_not_visible",
    /// Kernel stacks that the kernel could not give.
    KernelStackFailed = "kernel_stack_failed",
    /// User registers that could not be read; the sample has no user frames.
    UserRegistersFailed = "user_registers_failed",
    /// User stacks that could not be read for a copy; the sample is marked as cut.
    StackCopyFailed = "stack_copy_failed",
    /// Children or started programs that found the scope full and are not watched.
    ScopeFull = "scope_full",
    /// Traced calls that are not counted because too many threads and goroutines make some.
    FunctionCallersFull = "function_callers_full",
    /// Traced calls that are not counted because too many functions in too many processes are called.
    FunctionsFull = "functions_full",
    /// Traced calls of Go whose goroutine could not be read.
    GoroutineFailed = "goroutine_failed",
    /// Returns of traced calls whose beginning was not followed, as it was nested too deeply or before the measurement.
    FunctionReturnUnmatched = "function_return_unmatched",
    /// Arguments of traced calls lost because the ring was full; the call itself is kept.
    RingFullArguments = "ring_full_arguments",
    /// Stacks that reached their root.
    UnwindRoot = "unwind_root",
    /// Stacks cut at the limit of frames.
    UnwindTooDeep = "unwind_too_deep",
    /// Stacks that met an address in no known mapping; shipped for a walk in userspace.
    UnwindNoMapping = "unwind_no_mapping",
    /// Stacks that met a binary whose rows are not loaded; shipped for a walk in userspace.
    UnwindNotLoaded = "unwind_not_loaded",
    /// Stacks that met a rule no row can express; shipped for a walk in userspace.
    UnwindComplexRule = "unwind_complex_rule",
    /// Stacks that ended where stack memory could not be read.
    UnwindReadFailed = "unwind_read_failed",
    /// Stacks that ended where the next frame was not further up the stack.
    UnwindNoProgress = "unwind_no_progress",
    /// Stacks of a process without a mapping table; shipped for a walk in userspace.
    UnwindNoProcess = "unwind_no_process",
    /// System calls that had begun before the measurement; they are in no row.
    SyscallBegunBefore = "syscall_begun_before",
    /// System calls that are in the row of others, because the rows were full.
    SyscallOthers = "syscall_others",
    /// System calls of threads for which there was no room; they are in no row.
    SyscallThreadsFull = "syscall_threads_full",
    /// Errors of system calls that are not told apart, because their table was full; the calls are in their rows.
    SyscallErrorsFull = "syscall_errors_full",
    /// Calls that did not return, lost because their table was full.
    SyscallUnreturnedFull = "syscall_unreturned_full",
    /// Slow system calls written to the ring.
    SyscallSlow = "syscall_slow",
    /// Slow system calls lost because the ring was full; they are in their rows.
    RingFullSyscall = "ring_full_syscall",
    /// Stacks of waits written to the ring, each once.
    WaitStacks = "wait_stacks",
    /// Stacks of waits lost because the ring was full; their time is kept, and the next wait tries again.
    RingFullStack = "ring_full_stack",
    /// Sums of waits begun.
    WaitSums = "wait_sums",
    /// Waits sent one by one because there was no room for another sum.
    WaitsSent = "waits_sent",
    /// Waits lost because there was neither room for another sum nor in the ring.
    RingFullWait = "ring_full_wait",
    /// Long waits of requests written to the ring.
    RequestWaits = "request_waits",
    /// Long waits of requests that are not told one by one because the ring was full; they are in their sums.
    RingFullRequestWait = "ring_full_request_wait",
    /// Tasks that are not measured because there was no room for another one.
    TasksFull = "tasks_full",
    /// Stacks of waits that are cut because copies of stacks came too fast.
    CopyTooSoon = "copy_too_soon",
    /// Messages on sockets, written to the ring.
    Messages = "messages",
    /// Exchanges that equal templates, told in short; of some only the request does.
    Exchanges = "exchanges",
    /// Exchanges that equal templates, lost because the ring was full; their connection shows a gap.
    RingFullExchange = "ring_full_exchange",
    /// Exchanges of traces that the sampler leaves out, counted without being told.
    ExchangesCounted = "exchanges_counted",
    /// Such exchanges that are told because the rows of counts were full.
    ExchangeRowsFull = "exchange_rows_full",
    /// Long waits, slow system calls and calls of functions that are not told because the sampler leaves their trace out.
    PartsLeftOut = "parts_left_out",
    /// Messages lost because the ring was full; their connection shows a gap.
    RingFullMessage = "ring_full_message",
    /// Openings, ends and failures of connections lost because the ring was full.
    RingFullConnection = "ring_full_connection",
    /// Connects, round trips and retransmissions in the row of all others, because too many peers were told apart.
    TcpPeersFull = "tcp_peers_full",
    /// Messages of connections that are of no known protocol.
    MessagesIgnored = "messages_ignored",
    /// Messages of processes of which the rules leave requests out, and times that they found nothing to receive.
    MessagesExcluded = "messages_excluded",
    /// Messages whose bytes passed no buffer of the program (sendfile, splice); their number is known.
    MessagesSpliced = "messages_spliced",
    /// Messages whose bytes could not be seen (io_uring); their number is known.
    MessagesUnseen = "messages_unseen",
    /// Times that TCP had moved more bytes than the messages of a connection; their number is known.
    BytesUntold = "bytes_untold",
    /// Messages whose socket could not be read.
    SocketUnreadable = "socket_unreadable",
    /// Messages whose buffer could not be read; their number of bytes is known.
    BufferUnreadable = "buffer_unreadable",
    /// Messages with more segments than are followed; the rest of their bytes counts as not captured.
    SegmentsCut = "segments_cut",
    /// Messages of TLS on connections whose plaintext is seen instead.
    MessagesEncrypted = "messages_encrypted",
    /// Plaintext of TLS whose socket is not known.
    TlsUnjoined = "tls_unjoined",
}

/// Entries of the counter array.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;
