//! The kernel side of descry: entry points only. Each reads its arguments and hands over to the module that does it.
#![no_std]
#![no_main]

mod config;
mod emit;
mod lifecycle;
mod maps;
mod registers;
mod sample;
mod scope;
mod stack;
mod syscall;
mod task;
mod unwind;

use aya_ebpf::macros::{perf_event, raw_tracepoint};
use aya_ebpf::programs::{PerfEventContext, RawTracePointContext};

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
    0
}

/// `sched_process_exit(task)`.
#[raw_tracepoint]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    lifecycle::exit(ctx.arg(0));
    0
}

/// `task_rename(task, comm)`.
#[raw_tracepoint]
pub fn task_rename(ctx: RawTracePointContext) -> i32 {
    lifecycle::rename(ctx.arg(0), ctx.arg(1));
    0
}

/// `sys_enter(regs, id)`.
#[raw_tracepoint]
pub fn syscall_enter(ctx: RawTracePointContext) -> i32 {
    syscall::enter(ctx.arg::<u64>(1) as u32);
    0
}

/// `sys_exit(regs, ret)`. Kernel 5.17 and later (`bpf_loop`), or where no slow calls are wanted.
#[raw_tracepoint]
pub fn syscall_exit(ctx: RawTracePointContext) -> i32 {
    syscall::exit(&ctx, unwind::walk_by_loop);
    0
}

/// `sys_exit(regs, ret)` on kernels without `bpf_loop`: 5.15 and later.
#[raw_tracepoint]
pub fn syscall_exit_without_loop(ctx: RawTracePointContext) -> i32 {
    syscall::exit(&ctx, unwind::walk_by_calls);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`, where system calls are measured.
#[raw_tracepoint]
pub fn syscall_exec(ctx: RawTracePointContext) -> i32 {
    syscall::exec(ctx.arg::<u64>(1) as u32);
    0
}

/// `sched_process_exit(task)`, where system calls are measured.
#[raw_tracepoint]
pub fn syscall_thread_exit(_ctx: RawTracePointContext) -> i32 {
    syscall::thread_exit();
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
