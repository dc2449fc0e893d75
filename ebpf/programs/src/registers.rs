//! The registers of the interrupted user code, per architecture.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs};
use aya_ebpf::programs::PerfEventContext;
use descry_abi::event::MAX_REGISTERS;

/// What a walk starts from.
#[derive(Clone, Copy)]
pub struct Start {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    pub lr: u64,
}

/// Offsets of the saved registers in the signal frame, from the stack pointer inside the trampoline.
pub struct SignalFrame {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    pub lr: u64,
}

#[cfg(bpf_target_arch = "x86_64")]
mod arch {
    use aya_ebpf::helpers::bpf_probe_read_user;

    use super::{MAX_REGISTERS, SignalFrame, Start};

    pub type Registers = aya_ebpf::bindings::pt_regs;

    /// `struct ucontext` lies at the stack pointer: uc_flags 8 B, uc_link 8 B, uc_stack 24 B, then `struct sigcontext`
    /// (arch/x86/include/uapi/asm/sigcontext.h): r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
    pub const SIGNAL_FRAME: SignalFrame = SignalFrame { pc: 168, sp: 160, fp: 120, lr: 168 };
    /// Registers of a stack copy: DWARF 0 to 16 (System V ABI, AMD64 supplement, figure 3.36).
    pub const COPIED: u16 = 17;

    /// The two low bits of cs are the privilege level: 3 is user mode.
    #[inline(always)]
    pub fn is_user(registers: &Registers) -> bool {
        registers.cs & 3 == 3
    }

    /// The same of registers that lie in the kernel. Since Linux 6.9 its type has two bytes for cs, and six for others.
    #[inline(always)]
    pub fn is_user_in_place(registers: *const Registers) -> bool {
        // SAFETY: the verifier checks the load.
        let cs = unsafe { (&raw const (*registers).cs).cast::<u16>().read_volatile() };
        cs & 3 == 3
    }

    #[inline(always)]
    pub fn start(r: &Registers) -> Start {
        Start { pc: r.rip, sp: r.rsp, fp: r.rbp, lr: 0 }
    }

    /// `TS_COMPAT` (arch/x86/include/asm/thread_info.h): the call came by the 32-bit interface.
    pub const COMPAT_CALL: u32 = 2;

    /// Whether a call surely came by the 64-bit interface: `syscall` puts the return address in rcx. Where the processor does
    /// not (FRED), nothing is sure.
    #[inline(always)]
    pub fn is_surely_native(r: *const Registers) -> bool {
        // SAFETY: the verifier checks the loads.
        unsafe { (&raw const (*r).rcx).read() == (&raw const (*r).rip).read() }
    }

    /// Arguments of a system call (syscall_get_arguments in arch/x86/include/asm/syscall.h).
    #[inline(always)]
    pub fn arguments(r: &Registers, _first: u64) -> [u64; 6] {
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
    }

    /// The first argument of a call that has not ended.
    #[inline(always)]
    pub fn first(r: &Registers) -> u64 {
        r.rdi
    }

    /// Where the number of the call lies in `struct pt_regs`: orig_ax.
    pub const CALL_NUMBER: usize = core::mem::offset_of!(Registers, orig_rax);
    /// Where the first argument lies.
    pub const FIRST_ARGUMENT: usize = core::mem::offset_of!(Registers, rdi);

    /// The system call in flight; -1: none. `syscall` puts the return address in rcx and the flags in r11, which nothing
    /// else does; after a fault `orig_rax` holds the error code, after an interrupt its number.
    #[inline(always)]
    pub fn syscall(r: &Registers, _at: u64) -> i32 {
        if r.rcx == r.rip && r.r11 == r.eflags { r.orig_rax as i32 } else { -1 }
    }

    /// In DWARF's order.
    #[inline(always)]
    pub fn copy(r: &Registers, to: &mut [u64; MAX_REGISTERS]) {
        (to[0], to[1], to[2], to[3]) = (r.rax, r.rdx, r.rcx, r.rbx);
        (to[4], to[5], to[6], to[7]) = (r.rsi, r.rdi, r.rbp, r.rsp);
        (to[8], to[9], to[10], to[11]) = (r.r8, r.r9, r.r10, r.r11);
        (to[12], to[13], to[14], to[15]) = (r.r12, r.r13, r.r14, r.r15);
        to[16] = r.rip;
    }

    /// Bytes that a return takes from the stack.
    pub const RETURN_ADDRESS_BYTES: u64 = 8;

    /// Where a function that has just been entered returns to; 0: it cannot be read.
    #[inline(always)]
    pub fn return_address(_r: &Registers, sp: u64) -> u64 {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or_default()
    }

    /// The `runtime.g` of the running goroutine (Go's internal calling convention, src/cmd/compile/abi-internal.md).
    #[inline(always)]
    pub fn goroutine(r: &Registers) -> u64 {
        r.r14
    }

    /// The first arguments of a function that was just entered: of C (System V ABI, AMD64 supplement, 3.2.3) or of Go.
    #[inline(always)]
    pub fn function_arguments(r: &Registers, is_go: bool) -> [u64; 4] {
        // Each is loaded, then one is chosen: the verifier wants constant offsets into the context.
        // SAFETY: the words are of a valid struct.
        let word = |word: &u64| unsafe { core::ptr::from_ref(word).read_volatile() };
        let (rax, rbx, rcx) = (word(&r.rax), word(&r.rbx), word(&r.rcx));
        let (rdx, rsi, rdi) = (word(&r.rdx), word(&r.rsi), word(&r.rdi));
        if is_go { [rax, rbx, rcx, rdi] } else { [rdi, rsi, rdx, rcx] }
    }

    /// Whether the condition of a branch holds, given as in its opcode (Intel SDM, volume 1, appendix B).
    #[inline(always)]
    pub fn holds(r: &Registers, condition: u8) -> bool {
        let flag = |bit: u64| r.eflags >> bit & 1;
        let (carry, parity, zero, sign, overflow) = (flag(0), flag(2), flag(6), flag(7), flag(11));
        let holds = match condition >> 1 {
            0 => overflow,
            1 => carry,
            2 => zero,
            3 => carry | zero,
            4 => sign,
            5 => parity,
            6 => sign ^ overflow,
            _ => zero | sign ^ overflow,
        };
        holds != u64::from(condition & 1)
    }

    /// What a function returns, of C and the first of Go.
    #[inline(always)]
    pub fn result(r: &Registers) -> u64 {
        r.rax
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    use super::{MAX_REGISTERS, SignalFrame, Start};

    pub type Registers = aya_ebpf::bindings::user_pt_regs;

    /// `struct rt_sigframe` lies at the stack pointer: siginfo 128 B, then ucontext: uc_flags 8 B, uc_link 8 B,
    /// uc_stack 24 B, uc_sigmask 8 + 120 B, padding to 16, then `struct sigcontext`
    /// (arch/arm64/include/uapi/asm/sigcontext.h): fault_address 8 B, regs[31], sp, pc.
    pub const SIGNAL_FRAME: SignalFrame = SignalFrame { pc: 568, sp: 560, fp: 544, lr: 552 };
    /// Registers of a stack copy: x0 to x30, sp, pc.
    pub const COPIED: u16 = 33;

    /// PSR_MODE_EL0t is 0 (arch/arm64/include/uapi/asm/ptrace.h).
    #[inline(always)]
    pub fn is_user(registers: &Registers) -> bool {
        registers.pstate & 0xf == 0
    }

    /// The same of registers that lie in the kernel.
    #[inline(always)]
    pub fn is_user_in_place(registers: *const Registers) -> bool {
        // SAFETY: the verifier checks the load.
        is_user(unsafe { &*registers })
    }

    #[inline(always)]
    pub fn start(r: &Registers) -> Start {
        Start { pc: r.pc, sp: r.sp, fp: r.regs[29], lr: r.regs[30] }
    }

    /// `_TIF_32BIT` (arch/arm64/include/asm/thread_info.h): the task runs 32-bit code.
    pub const COMPAT_CALL: u32 = 1 << 22;

    /// Whether a call surely came by the 64-bit interface: `PSR_MODE32_BIT` (arch/arm64/include/uapi/asm/ptrace.h).
    #[inline(always)]
    pub fn is_surely_native(r: *const Registers) -> bool {
        // SAFETY: the verifier checks the load.
        unsafe { (&raw const (*r).pstate).read() & 0x10 == 0 }
    }

    /// Arguments of a system call (syscall_get_arguments in arch/arm64/include/asm/syscall.h). The result has taken the
    /// place of the first.
    #[inline(always)]
    pub fn arguments(r: &Registers, first: u64) -> [u64; 6] {
        [first, r.regs[1], r.regs[2], r.regs[3], r.regs[4], r.regs[5]]
    }

    /// The first argument of a call that has not ended.
    #[inline(always)]
    pub fn first(r: &Registers) -> u64 {
        r.regs[0]
    }

    /// Where the number of the call lies in `struct pt_regs` (arch/arm64/include/asm/ptrace.h): after user_pt_regs come
    /// orig_x0 (8 B) and syscallno (4 B).
    pub const CALL_NUMBER: usize = size_of::<Registers>() + 8;
    /// Where the first argument lies: orig_x0.
    pub const FIRST_ARGUMENT: usize = size_of::<Registers>();

    /// The system call in flight; -1 (`NO_SYSCALL`): none. `struct pt_regs` goes on behind the part that userspace knows:
    /// orig_x0 8 B, then syscallno (arch/arm64/include/asm/ptrace.h). `at` is its address in the kernel.
    #[inline(always)]
    pub fn syscall(_r: &Registers, at: u64) -> i32 {
        let number = at + size_of::<Registers>() as u64 + 8;
        // SAFETY: bpf_probe_read_kernel checks the address and fails on a bad one.
        unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(number as *const i32) }.unwrap_or(-1)
    }

    #[inline(always)]
    pub fn copy(r: &Registers, to: &mut [u64; MAX_REGISTERS]) {
        for (to, from) in to.iter_mut().zip(&r.regs) {
            *to = *from;
        }
        to[31] = r.sp;
        to[32] = r.pc;
    }

    /// Bytes that a return takes from the stack.
    pub const RETURN_ADDRESS_BYTES: u64 = 0;

    /// Where a function that has just been entered returns to.
    #[inline(always)]
    pub fn return_address(r: &Registers, _sp: u64) -> u64 {
        r.regs[30]
    }

    /// The `runtime.g` of the running goroutine (Go's internal calling convention, src/cmd/compile/abi-internal.md).
    #[inline(always)]
    pub fn goroutine(r: &Registers) -> u64 {
        r.regs[28]
    }

    /// The first arguments of a function that was just entered: the same of C and of Go.
    #[inline(always)]
    pub fn function_arguments(r: &Registers, _is_go: bool) -> [u64; 4] {
        [r.regs[0], r.regs[1], r.regs[2], r.regs[3]]
    }

    /// Whether the condition of a branch holds: there are no probes at branches here.
    #[inline(always)]
    pub fn holds(_r: &Registers, _condition: u8) -> bool {
        false
    }

    /// What a function returns.
    #[inline(always)]
    pub fn result(r: &Registers) -> u64 {
        r.regs[0]
    }
}

pub use arch::{
    COMPAT_CALL, COPIED, RETURN_ADDRESS_BYTES, Registers, SIGNAL_FRAME, copy, function_arguments, goroutine,
    holds, is_surely_native, result, return_address,
};

/// Where the sample hit.
pub enum Hit {
    /// In user code, with these registers.
    User(Start),
    /// In the kernel.
    Kernel,
}

/// Where the sample hit. Direct loads from the context: the cheap way.
#[inline(always)]
pub fn hit(ctx: &PerfEventContext) -> Hit {
    // SAFETY: the kernel passes a valid context; the verifier turns each field's load into one from the registers.
    let registers = unsafe { &(*ctx.ctx).regs };
    if arch::is_user(registers) { Hit::User(arch::start(registers)) } else { Hit::Kernel }
}

/// Writes the user registers of the running task, as they were saved when it entered the kernel, to `to`; false: it has
/// none. They are too large for the stack of a program.
#[inline(always)]
pub fn saved(to: *mut Registers) -> bool {
    // SAFETY: the helper has no preconditions.
    saved_of(unsafe { bpf_get_current_task_btf() }, to)
}

/// The same of any task that the verifier knows as one.
#[inline(always)]
pub fn saved_of(task: *mut task_struct, to: *mut Registers) -> bool {
    // SAFETY: `to` points into a map's value; the helper checks the source, which for a kernel thread leads nowhere
    // useful.
    unsafe {
        let from = bpf_task_pt_regs(task) as *const c_void;
        bpf_probe_read_kernel(to.cast(), size_of::<Registers>() as u32, from) == 0 && arch::is_user(&*to)
    }
}

/// The user registers of a task where the kernel has saved them, for little reading: each is loaded when it is asked for.
/// None: it has none.
#[inline(always)]
pub fn in_place<'a>(task: *mut task_struct) -> Option<&'a Registers> {
    // SAFETY: the helper has no preconditions, and the verifier knows what its pointer leads to: what cannot be read is
    // zero.
    unsafe {
        let saved = bpf_task_pt_regs(task) as *const Registers;
        arch::is_user_in_place(saved).then(|| &*saved)
    }
}

/// The system call that a task is in, whose saved registers are `saved`; -1: none.
#[inline(always)]
pub fn syscall_of(task: *mut task_struct, saved: *const Registers) -> i32 {
    // SAFETY: `saved` points into a map's value; the helper has no preconditions.
    unsafe { arch::syscall(&*saved, bpf_task_pt_regs(task) as u64) }
}

/// The stack pointer.
#[inline(always)]
pub fn stack_pointer(registers: &Registers) -> u64 {
    arch::start(registers).sp
}

/// Where a walk starts for a task that is in the kernel.
#[inline(always)]
pub fn saved_start(scratch: *mut Registers) -> Option<Start> {
    // SAFETY: as in `saved`.
    saved(scratch).then(|| arch::start(unsafe { &*scratch }))
}

/// The number of the system call whose `struct pt_regs` lies at this kernel address.
#[inline(always)]
pub fn call_number(registers: u64) -> Option<u32> {
    // SAFETY: bpf_probe_read_kernel checks the address and fails on a bad one.
    unsafe { aya_ebpf::helpers::bpf_probe_read_kernel((registers + arch::CALL_NUMBER as u64) as *const u32) }
        .ok()
}

/// The arguments of that call, with `scratch` as filled by [`saved_start`].
#[inline(always)]
pub fn call_arguments(registers: u64, scratch: *const Registers) -> [u64; 6] {
    let first = (registers + arch::FIRST_ARGUMENT as u64) as *const u64;
    // SAFETY: as above; `scratch` is a per-CPU entry that was checked by its lookup.
    unsafe { arch::arguments(&*scratch, aya_ebpf::helpers::bpf_probe_read_kernel(first).unwrap_or_default()) }
}

/// The first argument of that call.
#[inline(always)]
pub fn call_first(registers: u64) -> Option<u64> {
    // SAFETY: as above.
    unsafe {
        aya_ebpf::helpers::bpf_probe_read_kernel((registers + arch::FIRST_ARGUMENT as u64) as *const u64)
    }
    .ok()
}

/// The arguments of a system call from its saved registers; the first may be another value by now.
#[inline(always)]
pub fn later_arguments(saved: &Registers) -> [u64; 6] {
    arch::arguments(saved, 0)
}

/// The first argument of a system call that has not ended, from its saved registers.
#[inline(always)]
pub fn first_argument(saved: &Registers) -> u64 {
    arch::first(saved)
}
