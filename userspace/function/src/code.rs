//! The instructions of a function (x86_64), as far as probes care.

use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, Formatter, GasFormatter, Instruction, Mnemonic, OpKind,
    Register,
};

use crate::cost::Cost;

/// Bytes of a function that are looked at; a longer one is followed by the kernel's return probe only.
pub(crate) const MAX_CODE: u64 = 1 << 20;

/// Decodes the instructions at an address, up to the end of `code`.
pub(crate) fn instructions(code: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

/// The instruction as GNU's assembler writes it.
pub(crate) fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    GasFormatter::new().format(instruction, &mut text);
    text
}

/// What a probe on an instruction costs. The kernel's rules are in arch/x86/kernel/uprobes.c, `branch_setup_xol_ops` and
/// `push_setup_xol_ops`.
pub(crate) fn cost(instruction: &Instruction) -> Cost {
    let is_nop5 = instruction.mnemonic() == Mnemonic::Nop && instruction.len() == 5;
    let is_branch = instruction.is_jmp_short_or_near()
        || instruction.is_jcc_short_or_near()
        || instruction.is_call_near();
    // 50 to 57, with or without the prefix for r8 to r15.
    let is_push = instruction.code() == Code::Push_r64 && instruction.len() <= 2;
    if is_nop5 {
        Cost::Optimized
    } else if is_branch || is_push || instruction.mnemonic() == Mnemonic::Nop && instruction.len() <= 2 {
        Cost::Emulated
    } else {
        Cost::SingleStepped
    }
}

/// Whether the kernel refuses to probe it: `is_prefix_bad` and `good_insns_64` in arch/x86/kernel/uprobes.c leave out
/// the lock prefix, those of old segments, and the encodings of AVX.
pub(crate) fn is_refused(instruction: &Instruction) -> bool {
    let old_segments = [Register::ES, Register::CS, Register::SS, Register::DS];
    instruction.has_lock_prefix()
        || old_segments.contains(&instruction.segment_prefix())
        || instruction.code().encoding() != EncodingKind::Legacy
}

/// Where a direct branch leads.
pub(crate) fn target(instruction: &Instruction) -> Option<u64> {
    let is_direct =
        matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    is_direct.then(|| instruction.near_branch_target())
}

/// Whether it returns.
pub(crate) fn is_return(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Ret | Mnemonic::Retf)
}

/// Registers that integer arguments are passed in (System V ABI, AMD64 supplement, 3.2.3).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Whether a probe may come behind this instruction and still be at the function's entry: it goes on to the next one, and
/// leaves the stack pointer, and where asked for the arguments, as they are.
pub(crate) fn may_be_skipped(instruction: &Instruction, keep_arguments: bool) -> bool {
    let writes = match instruction.mnemonic() {
        Mnemonic::Endbr64 | Mnemonic::Nop | Mnemonic::Test | Mnemonic::Cmp => return true,
        Mnemonic::Mov
        | Mnemonic::Lea
        | Mnemonic::Xor
        | Mnemonic::Movzx
        | Mnemonic::Movsx
        | Mnemonic::Movsxd => instruction.op0_register(),
        _ => return false,
    };
    // None: memory.
    let whole = if writes == Register::None { writes } else { writes.full_register() };
    whole != Register::RSP && !(keep_arguments && ARGUMENTS.contains(&whole))
}

/// Whether it is the branch to where a Go function asks for more stack: forward, taken if the stack is too small.
pub(crate) fn is_stack_check(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Jbe | Mnemonic::Jb)
        && target(instruction).is_some_and(|target| target > instruction.ip())
}
