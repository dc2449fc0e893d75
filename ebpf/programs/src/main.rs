//! The kernel side of descry: entry points only. Each reads its arguments and hands over to the module that does it.
#![no_std]
#![no_main]
// `asm!` for BPF; both compilers that build this take features.
#![feature(asm_experimental_arch)]

mod config;
mod emit;
mod function;
mod lifecycle;
mod maps;
mod registers;
mod sample;
mod scope;
mod stack;
mod task;
mod unwind;

use aya_ebpf::macros::{perf_event, raw_tracepoint, uprobe, uretprobe};
use aya_ebpf::programs::{PerfEventContext, ProbeContext, RawTracePointContext, RetProbeContext};

/// A stack sample. Kernel 5.17 and later (`bpf_loop`).
#[perf_event]
pub fn sample(ctx: PerfEventContext) -> u32 {
    sample::take(&ctx, unwind::walk_by_loop);
    0
}

/// A stack sample on kernels without `bpf_loop`: 5.15 and later.
#[perf_event]
pub fn sample_without_loop(ctx: PerfEventContext) -> u32 {
    sample::take(&ctx, unwind::walk_by_calls);
    0
}

/// `sched_process_fork(parent, child)`.
#[raw_tracepoint]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    lifecycle::fork(ctx.arg(0), ctx.arg(1));
    0
}

/// `sched_process_exec(task, old_pid, bprm)`.
#[raw_tracepoint]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "exec");
    lifecycle::exec(ctx.arg(0), ctx.arg(1));
    if config::FUNCTIONS.load() != 0 {
        function::forget_thread(ctx.arg(1));
    }
    0
}

/// `sched_process_exit(task)`.
#[raw_tracepoint]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    lifecycle::exit(ctx.arg(0));
    if config::FUNCTIONS.load() != 0 {
        function::forget_current();
    }
    0
}

/// `task_rename(task, comm)`.
#[raw_tracepoint]
pub fn task_rename(ctx: RawTracePointContext) -> i32 {
    lifecycle::rename(ctx.arg(0), ctx.arg(1));
    0
}

/// Entry of a traced function.
#[uprobe]
pub fn function_enter(ctx: ProbeContext) -> u32 {
    function::enter(&ctx);
    0
}

/// Return of a traced function, by the kernel's return probe.
#[uretprobe]
pub fn function_leave(ctx: RetProbeContext) -> u32 {
    function::leave(&ctx);
    0
}

/// An instruction of a traced function that leaves it.
#[uprobe]
pub fn function_exit(ctx: ProbeContext) -> u32 {
    function::exit(&ctx);
    0
}

/// A USDT probe.
#[uprobe]
pub fn function_pass(ctx: ProbeContext) -> u32 {
    function::pass(&ctx);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that nothing gets here: a reachable panic is rejected at load.
    loop {}
}

/// The kernel gives its GPL-only helpers to programs that say so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
