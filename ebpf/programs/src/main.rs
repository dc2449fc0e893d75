//! The kernel side of descry: entry points only. Each reads its arguments and hands over to the module that does it.
#![no_std]
#![no_main]
// `asm!` for BPF; both compilers that build this take features.
#![feature(asm_experimental_arch)]

mod atomic;
mod config;
mod emit;
mod exclusion;
mod function;
mod histogram;
mod lifecycle;
mod maps;
mod net;
mod offcpu;
mod registers;
mod sample;
mod scope;
mod stack;
mod syscall;
mod task;
mod total;
mod unit;
mod unwind;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::cty::c_void;
use aya_ebpf::macros::{btf_tracepoint, perf_event, raw_tracepoint, uprobe, uretprobe};
use aya_ebpf::programs::{
    BtfTracePointContext, PerfEventContext, ProbeContext, RawTracePointContext, RetProbeContext,
};

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

/// `sys_enter(regs, id)`.
#[btf_tracepoint]
pub fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    syscall::enter(ctx.arg(0), ctx.arg::<u64>(1) as u32);
    0
}

/// `sys_exit(regs, ret)`. Kernel 5.17 and later (`bpf_loop`), or where no slow calls are wanted.
#[raw_tracepoint]
pub fn syscall_exit(ctx: RawTracePointContext) -> i32 {
    syscall::exit::<true>(&ctx);
    0
}

/// `sys_exit(regs, ret)` on kernels without `bpf_loop`: 5.15 and later.
#[raw_tracepoint]
pub fn syscall_exit_without_loop(ctx: RawTracePointContext) -> i32 {
    syscall::exit::<false>(&ctx);
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

/// `sched_switch`. Kernel 5.17 and later (`bpf_loop`).
#[btf_tracepoint]
pub fn off_cpu_switch(ctx: BtfTracePointContext) -> i32 {
    offcpu::switch(&ctx, unwind::walk_by_shared_loop);
    0
}

/// `sched_switch` on kernels without `bpf_loop`: 5.15 and later.
#[btf_tracepoint]
pub fn off_cpu_switch_without_loop(ctx: BtfTracePointContext) -> i32 {
    offcpu::switch(&ctx, unwind::walk_by_calls);
    0
}

/// `sched_waking`, where wakers are asked for. Kernel 5.17 and later (`bpf_loop`).
#[btf_tracepoint]
pub fn off_cpu_waking(ctx: BtfTracePointContext) -> i32 {
    offcpu::waking(&ctx, unwind::walk_by_shared_loop);
    0
}

/// `sched_waking` on kernels without `bpf_loop`: 5.15 and later.
#[btf_tracepoint]
pub fn off_cpu_waking_without_loop(ctx: BtfTracePointContext) -> i32 {
    offcpu::waking(&ctx, unwind::walk_by_calls);
    0
}

/// `sched_wakeup`.
#[btf_tracepoint]
pub fn off_cpu_wakeup(ctx: BtfTracePointContext) -> i32 {
    offcpu::wakeup(&ctx);
    0
}

/// `sched_wakeup_new`.
#[btf_tracepoint]
pub fn off_cpu_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    offcpu::wakeup_new(&ctx);
    0
}

/// `sched_process_exit`.
#[btf_tracepoint]
pub fn off_cpu_exit(_ctx: BtfTracePointContext) -> i32 {
    offcpu::exit();
    0
}

/// `sched_process_exec`.
#[btf_tracepoint]
pub fn off_cpu_exec(ctx: BtfTracePointContext) -> i32 {
    offcpu::exec(&ctx);
    0
}

/// What an iterator over tasks hands over (kernel/bpf/task_iter.c: `struct bpf_iter__task`).
#[repr(C)]
pub struct TaskIterator {
    meta: *const c_void,
    task: *mut task_struct,
}

/// Each task, once, when a measurement begins.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn off_cpu_list(ctx: *mut TaskIterator) -> i32 {
    // SAFETY: the kernel passes a valid context; the task is null when the list has ended.
    let task = unsafe { (*ctx).task };
    if !task.is_null() {
        offcpu::list(task);
    }
    0
}

/// `sock_send_length(sk, ret, flags)`. Kernel 6.3 and later.
#[btf_tracepoint]
pub fn socket_sent(ctx: BtfTracePointContext) -> i32 {
    net::sent(ctx.arg(0), ctx.arg(1));
    0
}

/// `sock_recv_length(sk, ret, flags)`. Kernel 6.3 and later.
#[btf_tracepoint]
pub fn socket_received(ctx: BtfTracePointContext) -> i32 {
    net::received(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `sys_exit(regs, ret)`, where the kernel has not the two above.
#[raw_tracepoint]
pub fn socket_call_ended(ctx: RawTracePointContext) -> i32 {
    net::calls::ended(ctx.arg(0), ctx.arg(1));
    0
}

/// `inet_sock_set_state(sk, oldstate, newstate)`.
#[raw_tracepoint]
pub fn socket_state(ctx: RawTracePointContext) -> i32 {
    net::connect::turned(ctx.arg(0), ctx.arg::<u64>(1) as i32, ctx.arg::<u64>(2) as i32);
    0
}

/// `tcp_destroy_sock(sk)`.
#[raw_tracepoint]
pub fn socket_destroyed(ctx: RawTracePointContext) -> i32 {
    net::connection::destroyed(ctx.arg(0));
    0
}

/// `tcp_retransmit_skb(sk, skb)`.
#[raw_tracepoint]
pub fn socket_retransmitted(ctx: RawTracePointContext) -> i32 {
    net::tcp::retransmitted(ctx.arg(0));
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

/// Entry of a function of TLS.
#[uprobe]
pub fn tls_enter(ctx: ProbeContext) -> u32 {
    net::tls::enter(&ctx);
    0
}

/// Return of a function of TLS, by the kernel's return probe.
#[uretprobe]
pub fn tls_leave(ctx: RetProbeContext) -> u32 {
    net::tls::leave(&ctx);
    0
}

/// An instruction of a function of TLS behind which it returns.
#[uprobe]
pub fn tls_exit(ctx: ProbeContext) -> u32 {
    net::tls::exit(&ctx);
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
