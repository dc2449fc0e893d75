//! One step: from a frame to its caller.

use super::Reached;
use super::evaluate::evaluate;
use super::memory::Memory;
use super::registers::Registers;
use crate::cfi::{Cfi, Visitor};
use crate::elf::Architecture;
use crate::section::{Context, Fde, Slice, UnwindRow};
use descry_abi::event::UnwindEnd;
use descry_decode::ids::ElfAddress;
use gimli::{CfaRule, Register, RegisterRule, UnwindSection, X86_64};

type Caller = Result<(Registers, Reached), UnwindEnd>;

/// Follows the entry that covers `address`, else the frame pointer.
pub(crate) fn by_cfi(
    cfi: &Cfi,
    bias: u64,
    address: u64,
    registers: &Registers,
    reached: Reached,
    memory: &mut Memory<'_>,
    context: &mut Context,
) -> Caller {
    let elf = ElfAddress(address.wrapping_sub(bias));
    if cfi.architecture() != registers.architecture() {
        return Err(UnwindEnd::ComplexRule);
    }
    let step = Step { elf, bias, registers, reached, memory, context };
    match cfi.visit(elf, step).flatten() {
        Some(caller) => caller,
        None if cfi.is_trampoline(elf) => through_aarch64_signal(registers, memory),
        None => by_frame_pointer(registers, memory),
    }
}

/// Takes the caller's frame from the frame pointer.
pub(crate) fn by_frame_pointer(registers: &Registers, memory: &mut Memory<'_>) -> Caller {
    let fp = registers.fp().ok_or(UnwindEnd::ComplexRule)?;
    if fp == 0 {
        return Err(UnwindEnd::Root);
    }
    let sp =
        fp.checked_add(16).filter(|_| fp >= registers.sp() && fp % 8 == 0).ok_or(UnwindEnd::NoProgress)?;
    let caller_fp = memory.word(fp).ok_or(UnwindEnd::ReadFailed)?;
    let pc = memory.word(fp + 8).ok_or(UnwindEnd::ReadFailed)?;
    let mut caller = registers.clone();
    caller.go_to(pc, sp);
    if caller.pc() == 0 {
        return Err(UnwindEnd::Root);
    }
    caller.set(registers.fp_register(), Some(caller_fp));
    Ok((caller, Reached::ByCall))
}

/// The `rt_sigframe` of Linux on aarch64 (arch/arm64/kernel/signal.c): 128 bytes of siginfo, then the ucontext with
/// the `sigcontext` at 176; in it the fault address, x0 to x30, sp and pc, 8 bytes each.
fn through_aarch64_signal(registers: &Registers, memory: &mut Memory<'_>) -> Caller {
    const X0: u64 = 128 + 176 + 8;
    let mut caller = registers.clone();
    let mut pc = 0;
    for number in 0..33 {
        let at = registers.sp().checked_add(X0 + 8 * u64::from(number)).ok_or(UnwindEnd::ReadFailed)?;
        pc = memory.word(at).ok_or(UnwindEnd::ReadFailed)?;
        caller.set(Register(number), Some(pc));
    }
    if pc == 0 {
        return Err(UnwindEnd::Root);
    }
    Ok((caller, Reached::Exact))
}

/// Whether a function of x86_64 can return to a landing pad (`__builtin_eh_return`): such a one alone saves the registers
/// in which a landing pad gets the exception, rax and rdx (System V ABI, AMD64 supplement, section 6.2.3), which no call
/// preserves.
fn is_unwinder(row: &UnwindRow) -> bool {
    let is_saved = |register| matches!(row.register(register), Some(RegisterRule::Offset(_)));
    is_saved(X86_64::RAX) && is_saved(X86_64::RDX)
}

struct Step<'a, 'm> {
    elf: ElfAddress,
    bias: u64,
    registers: &'a Registers,
    reached: Reached,
    memory: &'a mut Memory<'m>,
    context: &'a mut Context,
}

impl Visitor for Step<'_, '_> {
    /// `None`: the entry is broken.
    type Output = Option<Caller>;

    fn visit<'s, S: UnwindSection<Slice<'s>>>(
        self,
        section: &S,
        bases: &gimli::BaseAddresses,
        fde: &Fde<'s>,
    ) -> Option<Caller> {
        let Self { elf, bias, registers, reached, memory, context } = self;
        let row = fde.unwind_info_for_address(section, bases, context, elf.0).ok()?;
        let mut rules = Rules { section, encoding: fde.cie().encoding(), bias, registers, memory };
        Some(rules.caller(row, fde, reached))
    }
}

/// Follows the rules of one row.
struct Rules<'a, 'm, S> {
    section: &'a S,
    encoding: gimli::Encoding,
    bias: u64,
    registers: &'a Registers,
    memory: &'a mut Memory<'m>,
}

impl<'s, S: UnwindSection<Slice<'s>>> Rules<'_, '_, S> {
    fn caller(&mut self, row: &UnwindRow, fde: &Fde<'s>, reached: Reached) -> Caller {
        let registers = self.registers;
        let return_address = fde.cie().return_address_register();
        match (registers.architecture(), row.register(return_address)) {
            (_, Some(RegisterRule::Undefined)) => return Err(UnwindEnd::Root),
            // A call writes it to memory, so it cannot be where it was.
            (Architecture::X86_64, None) => return Err(UnwindEnd::ComplexRule),
            _ => {}
        }
        let cfa = self.cfa(row.cfa())?;
        let mut caller = registers.clone();
        // The default rule of the stack pointer; a rule of its own, as in signal frames, comes after.
        caller.set(registers.sp_register(), Some(cfa));
        for (register, rule) in row.registers() {
            let known = self.register(cfa, *register, rule)?;
            caller.set(*register, known);
        }
        let pc = caller.get(return_address).ok_or(UnwindEnd::ReadFailed)?;
        let sp = caller.get(registers.sp_register()).ok_or(UnwindEnd::ReadFailed)?;
        caller.go_to(pc, sp);
        if caller.pc() == 0 {
            return Err(UnwindEnd::Root);
        }
        if fde.is_signal_trampoline() {
            // The interrupted code may have run on another stack.
            return Ok((caller, Reached::Exact));
        }
        let is_leaf = matches!(reached, Reached::Leaf | Reached::Exact);
        let x86_64 = registers.architecture() == Architecture::X86_64;
        let in_register = matches!(row.register(return_address), Some(RegisterRule::Register(_)));
        if x86_64 && in_register && is_leaf && sp >= registers.sp() {
            // The last instruction of an unwinder of exceptions: it jumps to a landing pad.
            return Ok((caller, Reached::Exact));
        }
        // Only a leaf can have no frame: on aarch64 its return address is still in x30.
        let frameless = !x86_64 && is_leaf && sp == registers.sp();
        if sp <= registers.sp() && !frameless {
            return Err(UnwindEnd::NoProgress);
        }
        Ok((caller, if x86_64 && is_unwinder(row) { Reached::ByUnwinder } else { Reached::ByCall }))
    }

    fn cfa(&mut self, rule: &CfaRule<usize>) -> Result<u64, UnwindEnd> {
        match rule {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = self.registers.get(*register).ok_or(UnwindEnd::ComplexRule)?;
                Ok(base.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(expression) => self.expression(expression, None),
        }
    }

    /// The caller's value of `register`; `None`: it is lost.
    fn register(
        &mut self,
        cfa: u64,
        register: Register,
        rule: &RegisterRule<usize>,
    ) -> Result<Option<u64>, UnwindEnd> {
        let at = match rule {
            RegisterRule::Undefined | RegisterRule::Architectural => return Ok(None),
            RegisterRule::SameValue => return Ok(self.registers.get(register)),
            RegisterRule::Register(other) => return Ok(self.registers.get(*other)),
            RegisterRule::Constant(value) => return Ok(Some(*value)),
            RegisterRule::ValOffset(offset) => return Ok(Some(cfa.wrapping_add_signed(*offset))),
            RegisterRule::ValExpression(expression) => {
                return self.expression(expression, Some(cfa)).map(Some);
            }
            RegisterRule::Offset(offset) => cfa.wrapping_add_signed(*offset),
            RegisterRule::Expression(expression) => self.expression(expression, Some(cfa))?,
        };
        // A register that cannot be read matters only if a later frame needs it, but for the return address.
        Ok(self.memory.word(at))
    }

    fn expression(
        &mut self,
        expression: &gimli::UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Result<u64, UnwindEnd> {
        let code = expression.get(self.section).map_err(|_| UnwindEnd::ComplexRule)?;
        evaluate(code, self.encoding, initial, self.bias, self.registers, self.memory)
    }
}
