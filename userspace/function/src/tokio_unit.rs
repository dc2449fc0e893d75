//! Where the running task of a Tokio program is found: in the thread-local `tokio::runtime::context::CONTEXT` of its
//! executable, at the place that Tokio itself writes when it turns to a task.
//!
//! Neither the layout of `Context` nor that of thread-locals is fixed, so the places are read from the code of the
//! function that writes them (`set_current_task_id`, or where it was inlined, the guard that calls it; x86_64):
//!
//! ```text
//! movb $1, T        the state of the thread-local: 1, it lives (std/src/sys/thread_local/native/eager.rs)
//! mov %reg, P       the task's id, 0: none (Tokio since 1.34)
//! mov %reg, P       whether there is one, 1 or 0, and
//! mov %reg, P+8     its id (before)
//! ```
//!
//! All of them must lie inside of CONTEXT as the symbol tells it, and there must be no other such write: an unknown layout
//! gives nothing, for a wrong offset would mix requests up.

use std::ops::Range;

use descry_abi::unit::{UnitKind, UnitRule};
use descry_decode::ids::ElfAddress;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use crate::code::{instructions, target};

/// Symbols that are looked at at most.
const MAX_SYMBOLS: usize = 4 << 20;
/// Bytes of a setter that are looked at; it has some forty instructions.
const MAX_SETTER: u64 = 1024;
/// Setters that are looked at: one of each kind and unit of code.
const MAX_SETTERS: usize = 8;
/// Bytes of a name that are looked at.
const MAX_NAME: usize = 4096;
/// Bytes of an `Elf64_Sym`.
const SYMBOL: usize = 24;
/// Part of the mangled name of the thread-local, in both manglings of Rust.
const CONTEXT: &[u8] = b"5tokio7runtime7context7CONTEXT";
/// The same of the function that writes the task's id.
const SETTER: &[u8] = b"5tokio7runtime7context19set_current_task_id";
/// The same of the guard around a task's poll, and of what undoes it.
const GUARD: [&[u8]; 2] = [b"TaskIdGuard", b"4drop"];

/// What the symbols of a Tokio program say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokioSymbols {
    /// CONTEXT in the executable's thread-local storage.
    context: Range<u64>,
    /// Functions that write the id: address and size.
    setters: Vec<(ElfAddress, u64)>,
}

impl TokioSymbols {
    /// Reads a symbol table and its strings (`.symtab`, `.strtab`). None: it is no Tokio program, or holds two Tokios.
    pub fn find(table: &[u8], strings: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        for symbol in table.chunks_exact(SYMBOL).take(MAX_SYMBOLS) {
            let kind = symbol.get(4)? & 0xf;
            if kind != elf::STT_TLS.0 && kind != elf::STT_FUNC.0 {
                continue;
            }
            let start = u32::from_le_bytes(*symbol.first_chunk()?) as usize;
            let rest = strings.get(start..).unwrap_or_default();
            let rest = rest.get(..MAX_NAME).unwrap_or(rest);
            let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let (value, size) = (word(symbol, 8)?, word(symbol, 16)?);
            if kind == elf::STT_TLS.0 && contains(name, CONTEXT) {
                if !found.context.is_empty() {
                    return None;
                }
                found.context = value..value.saturating_add(size);
            } else if kind == elf::STT_FUNC.0
                && found.setters.len() < MAX_SETTERS
                && (contains(name, SETTER) || GUARD.iter().all(|part| contains(name, part)))
            {
                found.setters.push((ElfAddress(value), size.min(MAX_SETTER)));
            }
        }
        (!found.context.is_empty()).then_some(found)
    }

    /// The code that [`rule`](Self::rule) needs: address and bytes.
    pub fn code(&self) -> &[(ElfAddress, u64)] {
        &self.setters
    }

    /// The rule for the tasks. `head`: the beginning of the file, with its program headers; `code`: what
    /// [`code`](Self::code) asked for.
    pub fn rule(&self, head: &[u8], code: &[(ElfAddress, Vec<u8>)]) -> Option<UnitRule> {
        let block = thread_local_block(head)?;
        let offset = |value: u64| i64::try_from(value).ok()?.checked_sub(block);
        let context = offset(self.context.start)?..offset(self.context.end)?;
        let mut rules = code.iter().filter_map(|(address, code)| Writes::of(code, *address).rule(&context));
        let first = rules.next()?;
        rules.all(|other| other == first).then_some(first)
    }
}

/// How far the thread-local storage of an executable for x86_64 lies below the thread pointer (System V ABI, TLS variant II:
/// it ends there, aligned).
fn thread_local_block(head: &[u8]) -> Option<i64> {
    let header = elf::FileHeader64::<Endianness>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return None;
    }
    let segments = header.program_headers(endian, head).ok()?;
    let tls = segments.iter().find(|segment| segment.p_type(endian) == elf::PT_TLS)?;
    let size = tls.p_memsz(endian).checked_next_multiple_of(tls.p_align(endian).max(1))?;
    i64::try_from(size).ok()
}

/// Where a function writes relative to the thread pointer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Writes {
    /// The byte 1.
    ones: Vec<i64>,
    /// A register of 8 bytes.
    words: Vec<i64>,
}

impl Writes {
    /// Follows the instructions of a function in the order of their addresses, with what each register is known to hold
    /// there, whichever way it is reached; such a function has no loops.
    fn of(code: &[u8], address: ElfAddress) -> Self {
        let mut writes = Self::default();
        let mut registers = Registers::default();
        let mut branches: Vec<(u64, Registers)> = Vec::new();
        let mut is_reached = true;
        for instruction in instructions(code, address.0) {
            for (_, known) in branches.iter().filter(|(target, _)| *target == instruction.ip()) {
                registers = if is_reached { registers.common(known) } else { known.clone() };
                is_reached = true;
            }
            if !std::mem::replace(&mut is_reached, true) {
                registers = Registers::default();
            }
            if instruction.op0_kind() == OpKind::Memory
                && let Some(place) = registers.place(&instruction)
            {
                writes.take(&instruction, place);
            }
            registers.step(&instruction);
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
                flow => {
                    branches.extend(target(&instruction).map(|target| (target, registers.clone())));
                    is_reached = flow == FlowControl::ConditionalBranch;
                }
            }
        }
        writes
    }

    fn take(&mut self, instruction: &Instruction, place: i64) {
        let add = |to: &mut Vec<i64>, place| {
            if !to.contains(&place) {
                to.push(place);
            }
        };
        match instruction.mnemonic() {
            Mnemonic::Mov
                if instruction.op1_kind() == OpKind::Immediate8 && instruction.immediate8() == 1 =>
            {
                add(&mut self.ones, place);
            }
            Mnemonic::Mov
                if instruction.op1_kind() == OpKind::Register && instruction.op1_register().is_gpr64() =>
            {
                add(&mut self.words, place);
            }
            // Both halves of an id at once.
            Mnemonic::Movups | Mnemonic::Movaps | Mnemonic::Movdqu | Mnemonic::Movdqa => {
                add(&mut self.words, place);
                add(&mut self.words, place.wrapping_add(8));
            }
            _ => {}
        }
    }

    /// The rule that these writes tell, all of them inside of `context`.
    fn rule(mut self, context: &Range<i64>) -> Option<UnitRule> {
        self.words.sort_unstable();
        let inside = |place: &i64, bytes: i64| {
            context.contains(place) && place.checked_add(bytes).is_some_and(|end| end <= context.end)
        };
        if !self.words.iter().all(|word| inside(word, 8)) || !self.ones.iter().all(|one| inside(one, 1)) {
            return None;
        }
        let (tls, alive) = match (self.words.as_slice(), self.ones.as_slice()) {
            ([id], [alive]) if !(*id..id.saturating_add(8)).contains(alive) => (*id, *alive),
            // The tag is 1 where there is an id, which no thread-local has that does not live yet.
            ([tag, id], [_]) if tag.checked_add(8) == Some(*id) => (*id, *tag),
            _ => return None,
        };
        Some(UnitRule { kind: UnitKind::TokioTask as u32, tls, alive, ..UnitRule::default() })
    }
}

/// What a register is known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Number(i64),
    /// So many bytes from the thread pointer.
    Local(i64),
}

/// What is known of the registers.
#[derive(Clone, Debug, Default)]
struct Registers(Vec<(Register, Value)>);

/// Registers that a call may change (System V ABI, AMD64 supplement, 3.2.1).
const SCRATCH: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

impl Registers {
    fn get(&self, register: Register) -> Option<Value> {
        self.0.iter().find(|(known, _)| *known == register.full_register()).map(|(_, value)| *value)
    }

    /// What both know.
    fn common(&self, other: &Self) -> Self {
        Self(
            self.0.iter().filter(|(register, value)| other.get(*register) == Some(*value)).copied().collect(),
        )
    }

    fn set(&mut self, register: Register, value: Option<Value>) {
        let register = register.full_register();
        self.0.retain(|(known, _)| *known != register);
        self.0.extend(value.map(|value| (register, value)));
    }

    /// Where the memory operand is, from the thread pointer.
    fn place(&self, instruction: &Instruction) -> Option<i64> {
        let base =
            if instruction.memory_segment() == Register::FS { Value::Local(0) } else { Value::Number(0) };
        match self.sum(instruction, base)? {
            Value::Local(place) => Some(place),
            Value::Number(_) => None,
        }
    }

    /// `start` and the parts of the memory operand.
    fn sum(&self, instruction: &Instruction, start: Value) -> Option<Value> {
        if instruction.is_ip_rel_memory_operand() {
            return None;
        }
        let mut sum = add(start, Value::Number(instruction.memory_displacement64() as i64))?;
        for (register, scale) in
            [(instruction.memory_base(), 1), (instruction.memory_index(), instruction.memory_index_scale())]
        {
            if register != Register::None {
                let value = self.get(register)?;
                sum = match (value, scale) {
                    (value, 1) => add(sum, value)?,
                    (Value::Number(number), scale) => {
                        add(sum, Value::Number(number.wrapping_mul(scale.into())))?
                    }
                    (Value::Local(_), _) => return None,
                };
            }
        }
        Some(sum)
    }

    /// After an instruction.
    fn step(&mut self, instruction: &Instruction) {
        if instruction.is_call_near() || instruction.is_call_near_indirect() {
            return self.0.retain(|(register, _)| !SCRATCH.contains(register));
        }
        if instruction.op0_kind() != OpKind::Register {
            return;
        }
        let (to, from) = (instruction.op0_register(), instruction.op1_kind());
        let value = match instruction.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push => return,
            Mnemonic::Mov if from == OpKind::Register => self.get(instruction.op1_register()),
            // The word at the thread pointer is the thread pointer.
            Mnemonic::Mov if from == OpKind::Memory => {
                (self.place(instruction) == Some(0)).then_some(Value::Local(0))
            }
            Mnemonic::Mov => number(instruction, 1).map(Value::Number),
            Mnemonic::Lea => self.sum(instruction, Value::Number(0)),
            Mnemonic::Add if from == OpKind::Register => {
                self.get(to).zip(self.get(instruction.op1_register())).and_then(|(a, b)| add(a, b))
            }
            Mnemonic::Add => {
                self.get(to).zip(number(instruction, 1)).and_then(|(a, b)| add(a, Value::Number(b)))
            }
            Mnemonic::Sub => self
                .get(to)
                .zip(number(instruction, 1))
                .and_then(|(a, b)| add(a, Value::Number(b.wrapping_neg()))),
            Mnemonic::Xor if from == OpKind::Register && instruction.op1_register() == to => {
                Some(Value::Number(0))
            }
            _ => None,
        };
        // Half a register is no address.
        self.set(to, value.filter(|_| to.is_gpr64() || matches!(value, Some(Value::Number(0)))));
    }
}

/// The sum of two values; two pointers have none.
fn add(a: Value, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(Value::Number(a.wrapping_add(b))),
        (Value::Local(a), Value::Number(b)) | (Value::Number(b), Value::Local(a)) => {
            Some(Value::Local(a.wrapping_add(b)))
        }
        (Value::Local(_), Value::Local(_)) => None,
    }
}

/// The number that an operand is.
fn number(instruction: &Instruction, operand: u32) -> Option<i64> {
    instruction.try_immediate(operand).ok().map(|number| number as i64)
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
