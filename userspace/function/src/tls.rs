//! Functions of TLS in a binary, and where to probe them.
//!
//! They are called for every few hundred bytes, so each probe is put where the kernel emulates the instruction. That may be
//! behind the place where the function makes room on its stack; the distance is told with the place:
//!
//! ```text
//! SSL_read:  sub $0x18,%rsp            single-stepped
//!            ...
//!            js fail                   emulated: the entry, 0x18 below
//!            ...
//!            jne __stack_chk_fail      emulated: the exit, 0x18 below, where the branch is not taken
//!            add $0x18,%rsp
//!            ret                       single-stepped
//! ```

use descry_abi::tls::TlsFunction;
use descry_decode::ids::FileOffset;
use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::binary::{Binary, BinaryError, Function};
use crate::code::{self, cost, target};
use crate::cost::Cost;
use crate::site::{Parts, Unprobeable};

/// Functions of OpenSSL, LibreSSL and BoringSSL.
const OPENSSL: [(&str, TlsFunction); 6] = [
    ("SSL_do_handshake", TlsFunction::Handshake),
    ("SSL_read", TlsFunction::Read),
    ("SSL_write", TlsFunction::Write),
    ("SSL_read_ex", TlsFunction::ReadInto),
    ("SSL_write_ex", TlsFunction::WriteFrom),
    ("SSL_free", TlsFunction::Free),
];
/// Methods of Go's crypto/tls.
const GO: [(&str, TlsFunction); 3] = [
    ("crypto/tls.(*Conn).Read", TlsFunction::GoRead),
    ("crypto/tls.(*Conn).Write", TlsFunction::GoWrite),
    ("crypto/tls.(*Conn).Close", TlsFunction::GoClose),
];
/// A name without which a binary that is not Go's has none of them.
const MARK: &[u8] = b"SSL_write";

/// Functions of these names that are looked at: each name may stand for several.
const MAX_FUNCTIONS: usize = 64;
/// Instructions at the entry that may lie before the probe.
const MAX_SKIPPED: usize = 12;
/// Bytes that a place may lie below the function's stack pointer.
const MAX_SHIFT: u64 = 0xffff;

/// A place to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPlace {
    /// The function.
    pub function: TlsFunction,
    /// Where it is in the file.
    pub offset: FileOffset,
    /// How far the stack pointer is below what it was when the function was entered (bytes).
    pub shift: u16,
    /// It is a conditional branch, and the function returns where it is not taken.
    pub unless: Option<Condition>,
}

/// The condition of a branch: the low half of its opcode (Intel SDM, volume 1, appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition(pub u8);

/// Where the functions of a file are probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPlaces {
    /// Where they are entered.
    pub entries: Vec<TlsPlace>,
    /// Where those begin whose end the kernel's return probe has to tell.
    pub returns: Vec<TlsPlace>,
    /// Where they are left.
    pub exits: Vec<TlsPlace>,
    /// Functions that cannot be probed.
    pub unprobeable: Vec<(TlsFunction, Unprobeable)>,
}

impl TlsPlaces {
    /// Whether what the program says over TLS can be seen: there is a function that reads and one that writes.
    pub fn is_useful(&self) -> bool {
        let has = |sends: bool| {
            let moves = |function: TlsFunction| function.returns() || function.sends();
            let mut moving = self.entries.iter().map(|place| place.function);
            moving.any(|it| it != TlsFunction::Handshake && moves(it) && it.sends() == sends)
        };
        has(true) && has(false)
    }

    fn add(&mut self, binary: &Binary<'_>, function: &Function, of: TlsFunction) -> Result<(), Unprobeable> {
        let first = function.offset.ok_or(Unprobeable::NotCode)?;
        let place = |offset| TlsPlace { function: of, offset, shift: 0, unless: None };
        if !binary.is_x86 {
            // The end of a Go function must not be told by the kernel's return probe: its stack moves.
            if of.is_go() && of.returns() {
                return Err(Unprobeable::NoExits);
            }
            self.entries.push(place(first));
            self.returns.extend(of.returns().then(|| place(first)));
            return Ok(());
        }
        let parts = Parts::of(binary, function);
        let at = |instruction: &Instruction| {
            binary.offset(descry_decode::ids::ElfAddress(instruction.ip())).ok_or(Unprobeable::NotCode)
        };
        if of.is_go() {
            let exits = if of.returns() { parts.exits()? } else { Vec::new() };
            let exits: Vec<_> =
                exits.iter().map(|exit| Ok(place(at(exit)?))).collect::<Result<_, Unprobeable>>()?;
            self.entries.push(place(at(&parts.entry(true, true)?)?));
            self.exits.extend(exits);
            return Ok(());
        }
        let exits = of.returns().then(|| cheap_exits(&parts)).flatten();
        if of.returns() && exits.is_none() {
            let entry = place(at(&parts.entry(false, true)?)?);
            self.entries.push(entry);
            self.returns.push(entry);
            return Ok(());
        }
        let (entry, shift) = cheap_entry(&parts).map_or_else(|| Ok((parts.entry(false, true)?, 0)), Ok)?;
        let exits = exits.unwrap_or_default().into_iter().map(|exit| {
            let unless = Some(exit.unless);
            Ok(TlsPlace { shift: exit.shift, unless, ..place(at(&exit.instruction)?) })
        });
        let exits: Vec<_> = exits.collect::<Result<_, Unprobeable>>()?;
        self.entries.push(TlsPlace { shift, ..place(at(&entry)?) });
        self.exits.extend(exits);
        Ok(())
    }
}

/// Whether a table of names (`.dynstr`, `.strtab`) of a binary that is not Go's has one of TLS: then it has functions of TLS,
/// or uses some.
pub fn mentions_tls(names: &[u8]) -> bool {
    names.split(|byte| *byte == 0).any(|name| name == MARK)
}

/// Where the functions of TLS are probed that a file has.
///
/// # Errors
/// When it is no ELF file.
pub fn tls_places(bytes: &[u8]) -> Result<TlsPlaces, BinaryError> {
    let is_named = |name: &[u8]| OPENSSL.iter().chain(&GO).any(|(known, _)| known.as_bytes() == name);
    let binary = Binary::parse_named(bytes, None, &is_named)?;
    let mut places = TlsPlaces::default();
    for function in binary.functions.iter().take(MAX_FUNCTIONS) {
        let known =
            OPENSSL.iter().chain(&GO).find(|(known, _)| function.names.iter().any(|it| **it == **known));
        let Some((_, of)) = known else { continue };
        if let Err(why) = places.add(&binary, function, *of) {
            places.unprobeable.push((*of, why));
        }
    }
    Ok(places)
}

/// How far an instruction moves the stack pointer down; none: in a way that is not followed.
fn moves_down(instruction: &Instruction) -> Option<i64> {
    // Of the whole register; half of it would clear the rest.
    let by = || {
        let number = instruction.try_immediate(1).ok()?;
        (instruction.op0_register() == Register::RSP).then_some(number as i64)
    };
    let is_of_sp = instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Sub if is_of_sp => by(),
        Mnemonic::Add if is_of_sp => by().map(|by| -by),
        Mnemonic::Cmp | Mnemonic::Test => Some(0),
        Mnemonic::Leave | Mnemonic::Enter => None,
        mnemonic if is_of_sp && mnemonic != Mnemonic::Push => None,
        // Whatever pushes or pops, flags too.
        _ => Some(-i64::from(instruction.stack_pointer_increment())),
    }
}

/// Whether it goes on to the next instruction.
fn goes_on(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::Next
}

/// Whether it writes one of these registers (by their 64-bit names).
fn writes(instruction: &Instruction, registers: &[Register]) -> bool {
    let is_read_only = matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push);
    let first = (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register)
        .then(|| instruction.op0_register().full_register());
    !is_read_only && first.is_some_and(|first| registers.contains(&first))
}

/// The first instruction that the kernel emulates, where everything before it runs once a call and leaves the arguments.
fn cheap_entry(parts: &Parts<'_>) -> Option<(Instruction, u16)> {
    const ARGUMENTS: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RCX];
    let (address, code) = parts.first()?;
    let mut shift = 0;
    for instruction in code::instructions(code, address).take(MAX_SKIPPED) {
        if instruction.is_invalid() || code::is_refused(&instruction) {
            return None;
        }
        if cost(&instruction) != Cost::SingleStepped {
            let gap = address + 1..=instruction.ip();
            let is_entered = parts.instructions().filter_map(|it| target(&it)).any(|to| gap.contains(&to));
            return (!is_entered && parts.is_whole)
                .then(|| Some((instruction, u16::try_from(shift).ok()?)))
                .flatten();
        }
        if !goes_on(&instruction) || writes(&instruction, &ARGUMENTS) {
            return None;
        }
        shift += moves_down(&instruction)?;
    }
    None
}

struct CheapExit {
    instruction: Instruction,
    shift: u16,
    unless: Condition,
}

/// For each return the conditional branch before it, from which nothing but the return can follow where it is not taken;
/// none where one lacks it, or where it is left by a jump, which may also be one through a register.
fn cheap_exits(parts: &Parts<'_>) -> Option<Vec<CheapExit>> {
    let all: Vec<Instruction> = parts.instructions().collect();
    if all.iter().any(|it| it.flow_control() == FlowControl::IndirectBranch) {
        return None;
    }
    let mut targets: Vec<u64> = all.iter().filter_map(target).collect();
    targets.sort_unstable();
    let mut exits = Vec::new();
    for leaving in parts.exits().ok()? {
        if !code::is_return(&leaving) {
            return None;
        }
        let at = all.iter().position(|it| it.ip() == leaving.ip())?;
        // What lies between, nearest first.
        let before = all.get(..at)?.iter().rev();
        let (mut down, mut next) = (0, leaving.ip());
        let mut found = None;
        for instruction in before {
            // Somebody may come from elsewhere, or there is a hole between two parts.
            if targets.binary_search(&next).is_ok() || instruction.next_ip() != next {
                return None;
            }
            next = instruction.ip();
            if instruction.is_jcc_short_or_near() {
                found = Some(instruction);
                break;
            }
            if !goes_on(instruction) || writes(instruction, &[Register::RAX]) {
                return None;
            }
            down += moves_down(instruction)?;
        }
        let branch = found?;
        let shift = u16::try_from(-down).ok().filter(|shift| u64::from(*shift) <= MAX_SHIFT)?;
        exits.push(CheapExit { instruction: *branch, shift, unless: condition(branch)? });
    }
    (!exits.is_empty()).then_some(exits)
}

fn condition(branch: &Instruction) -> Option<Condition> {
    Some(Condition(match branch.condition_code() {
        ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SSL_read of OpenSSL 3.0, as gcc 12 made it, with the call in its middle.
    const SSL_READ: &[u8] = &[
        0x48, 0x83, 0xec, 0x18, // sub $0x18,%rsp
        0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, // mov %fs:0x28,%rax
        0x48, 0x89, 0x44, 0x24, 0x08, // mov %rax,8(%rsp)
        0x31, 0xc0, // xor %eax,%eax
        0x85, 0xd2, // test %edx,%edx
        0x78, 0x0b, // js out
        0x48, 0x89, 0xe1, // mov %rsp,%rcx
        0xe8, 0, 0, 0, 0, // call ssl_read_internal
        0x8b, 0x04, 0x24, // mov (%rsp),%eax
        0x48, 0x8b, 0x54, 0x24, 0x08, // out: mov 8(%rsp),%rdx
        0x64, 0x48, 0x2b, 0x14, 0x25, 0x28, 0, 0, 0, // sub %fs:0x28,%rdx
        0x75, 0x05, // jne stack_chk_fail
        0x48, 0x83, 0xc4, 0x18, // add $0x18,%rsp
        0xc3, // ret
        0xe8, 0, 0, 0, 0, // call __stack_chk_fail
    ];

    fn parts(code: &[u8]) -> Parts<'_> {
        Parts::of_code(0, code)
    }

    #[test]
    fn both_ends_of_a_function_that_checks_its_stack() {
        let parts = parts(SSL_READ);
        let (entry, shift) = cheap_entry(&parts).expect("an entry");
        assert_eq!((entry.ip(), shift), (22, 0x18));
        let exits = cheap_exits(&parts).expect("exits");
        let exits: Vec<_> =
            exits.iter().map(|exit| (exit.instruction.ip(), exit.shift, exit.unless)).collect();
        assert_eq!(exits, [(49, 0x18, Condition(5))]);
    }

    #[test]
    fn no_exit_where_a_jump_leaves_too() {
        // jne +3; jmp *%rax; ret
        assert!(cheap_exits(&parts(&[0x75, 0x02, 0xff, 0xe0, 0x75, 0x01, 0xc3, 0xc3])).is_none());
    }

    #[test]
    fn no_exit_where_the_result_the_result_is_not_there_yet() {
        // jne +3; mov %ebx,%eax; ret; call
        assert!(cheap_exits(&parts(&[0x75, 0x03, 0x89, 0xd8, 0xc3, 0xe8, 0, 0, 0, 0])).is_none());
        // jne +1; ret; push %rbx; pop %rbx; ret: the second has no branch before it
        assert!(cheap_exits(&parts(&[0x75, 0x01, 0xc3, 0x53, 0x5b, 0xc3])).is_none());
    }

    #[test]
    fn how_far_the_stack_pointer_is_moved() {
        let check = |code: &[u8], expected: Option<i64>| {
            let instruction = code::instructions(code, 0).next().expect("an instruction");
            assert_eq!(moves_down(&instruction), expected, "{instruction}");
        };
        check(&[0x48, 0x83, 0xec, 0x18], Some(0x18));
        check(&[0x48, 0x83, 0xc4, 0x18], Some(-0x18));
        check(&[0x53], Some(8));
        check(&[0x5b], Some(-8));
        // push %bx; pushf; push %rsp; pop %rsp
        check(&[0x66, 0x53], Some(2));
        check(&[0x9c], Some(8));
        check(&[0x54], Some(8));
        check(&[0x5c], None);
        // sub (%rax),%rsp; sub %rax,%rsp; sub $8,%esp; lea -16(%rsp),%rsp
        check(&[0x48, 0x2b, 0x20], None);
        check(&[0x48, 0x29, 0xc4], None);
        check(&[0x83, 0xec, 0x08], None);
        check(&[0x48, 0x8d, 0x64, 0x24, 0xf0], None);
        // cmp $8,%rsp; mov %rax,8(%rsp)
        check(&[0x48, 0x83, 0xfc, 0x08], Some(0));
        check(&[0x48, 0x89, 0x44, 0x24, 0x08], Some(0));
    }

    #[test]
    fn no_entry_behind_a_changed_argument() {
        // mov %rsi,%rdi; push %rbx; ret
        assert!(cheap_entry(&parts(&[0x48, 0x89, 0xf7, 0x53, 0xc3])).is_none());
    }
}
