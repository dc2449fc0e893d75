//! Where a function is probed.

use std::ops::Range;

use descry_decode::ids::{ElfAddress, FileOffset};
use iced_x86::Instruction;

use crate::binary::{Binary, Function};
use crate::code::{self, MAX_CODE, cost, instructions, target};
use crate::cost::Cost;

/// Instructions at a function's entry that may lie before its probe.
const MAX_SKIPPED: usize = 8;
/// Instructions at which one function is left at most.
const MAX_EXITS: usize = 256;

/// What a plan is to take care of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The arguments are read at the entry.
    pub arguments: bool,
    /// The function's end is seen at the instructions that leave it, also where the kernel's return probe would do.
    pub exits_by_instruction: bool,
}

/// An instruction to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: ElfAddress,
    /// Where it is in the file.
    pub offset: FileOffset,
    /// What a probe here costs.
    pub cost: Cost,
    /// The instruction as GNU's assembler writes it; empty where descry cannot tell.
    pub instruction: String,
}

/// How the end of a call is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exits {
    /// By the kernel's return probe: it puts an address of its own in the place of the return address.
    ReturnProbe,
    /// At each instruction that returns or jumps into another function. Nothing is written into the program's stack, which
    /// exceptions, panics and Go's moving stacks would not bear.
    Instructions(Vec<Place>),
}

/// The probes of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where its beginning is seen.
    pub entry: Place,
    /// How its end is.
    pub exits: Exits,
}

impl Plan {
    /// What a call will cost (ns), by [`Cost::nanos`].
    pub fn nanos(&self) -> u64 {
        let exit = match &self.exits {
            Exits::ReturnProbe => Cost::RETURN_PROBE,
            Exits::Instructions(places) => places.iter().map(|place| place.cost.nanos()).max().unwrap_or(0),
        };
        self.entry.cost.nanos() + exit
    }
}

/// Why a function cannot be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprobeable {
    /// Its address is in no code.
    #[error("it is data, not code")]
    NotCode,
    /// It only chooses an implementation.
    #[error("it only chooses an implementation when the program starts (ifunc); trace that one")]
    Resolver,
    /// It has no bytes.
    #[error("it has no length")]
    Empty,
    /// What stands there is no instruction.
    #[error("there is no valid instruction at its entry")]
    Invalid,
    /// The kernel has no way to run the instruction elsewhere.
    #[error("the kernel probes no instruction like the one at its entry (AVX, lock)")]
    Refused,
    /// Its first instruction also leaves it.
    #[error("it is too short: its first instruction leaves it")]
    TooShort,
    /// Its exits are needed, and they cannot be found.
    #[error(
        "exceptions, panics or moving stacks forbid the kernel's return probe, and the instructions that leave it \
         cannot be told"
    )]
    NoExits,
}

/// Where to probe a function.
pub fn plan(binary: &Binary<'_>, function: &Function, wishes: Wishes) -> Result<Plan, Unprobeable> {
    if function.is_resolver {
        return Err(Unprobeable::Resolver);
    }
    let offset = function.offset.ok_or(Unprobeable::NotCode)?;
    if function.size == 0 {
        return Err(Unprobeable::Empty);
    }
    let by_instruction = wishes.exits_by_instruction || binary.unwinds || binary.is_go;
    if !binary.is_x86 {
        if by_instruction {
            return Err(Unprobeable::NoExits);
        }
        let (address, instruction) = (function.address, String::new());
        let entry = Place { address, offset, cost: Cost::SingleStepped, instruction };
        return Ok(Plan { entry, exits: Exits::ReturnProbe });
    }
    let parts = Parts::of(binary, function);
    let entry = parts.entry(binary.is_go, wishes.arguments)?;
    if code::is_refused(&entry) {
        return Err(Unprobeable::Refused);
    }
    if !by_instruction {
        return Ok(Plan { entry: place(binary, &entry)?, exits: Exits::ReturnProbe });
    }
    let exits = parts.exits()?;
    if exits.iter().any(|exit| exit.ip() == entry.ip()) {
        return Err(Unprobeable::TooShort);
    }
    let exits = exits.iter().map(|exit| place(binary, exit)).collect::<Result<_, _>>()?;
    Ok(Plan { entry: place(binary, &entry)?, exits: Exits::Instructions(exits) })
}

fn place(binary: &Binary<'_>, instruction: &Instruction) -> Result<Place, Unprobeable> {
    let address = ElfAddress(instruction.ip());
    let offset = binary.offset(address).ok_or(Unprobeable::NotCode)?;
    Ok(Place { address, offset, cost: cost(instruction), instruction: code::text(instruction) })
}

/// The code of a function: its hot part, and its cold part if it has one.
pub(crate) struct Parts<'a> {
    parts: Vec<(u64, &'a [u8])>,
    /// Whether none of its code was left out.
    pub(crate) is_whole: bool,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(binary: &Binary<'a>, function: &Function) -> Self {
        let places = std::iter::once((function.address, function.size)).chain(function.cold);
        let parts =
            places.map(|(address, size)| (address.0, binary.code(address, size.min(MAX_CODE)))).collect();
        Self { parts, is_whole: function.size <= MAX_CODE }
    }

    /// Where its hot part begins, and that part's code.
    pub(crate) fn first(&self) -> Option<(u64, &'a [u8])> {
        self.parts.first().copied()
    }

    /// All of its instructions.
    pub(crate) fn instructions(&self) -> impl Iterator<Item = Instruction> {
        self.parts.iter().flat_map(|(address, code)| instructions(code, *address))
    }

    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.parts.iter().map(|(address, code)| *address..address + code.len() as u64)
    }

    /// The instruction at which a call is seen to begin. Usually the first; behind instructions that may be skipped where
    /// no branch leads in between, and that is cheaper.
    ///
    /// A Go function that lacks stack gets more and begins anew, so there what lies behind its check runs once a call.
    pub(crate) fn entry(&self, is_go: bool, keep_arguments: bool) -> Result<Instruction, Unprobeable> {
        let Some((address, code)) = self.parts.first() else { return Err(Unprobeable::Empty) };
        let all = || instructions(code, *address).take(MAX_SKIPPED).take_while(|it| !it.is_invalid());
        let first = all().next().ok_or(Unprobeable::Invalid)?;
        let may_be_skipped = |it: &Instruction| code::may_be_skipped(it, keep_arguments);
        let behind_check = || {
            let mut rest = all().skip_while(|it| may_be_skipped(it));
            rest.next().filter(code::is_stack_check).and_then(|_| rest.next())
        };
        let cheap = || {
            let mut rest = all().skip_while(|it| cost(it) == Cost::SingleStepped && may_be_skipped(it));
            rest.next().filter(|it| cost(it) != Cost::SingleStepped)
        };
        let better = if is_go { behind_check().or_else(cheap) } else { cheap() };
        let Some(better) = better.filter(|it| it.ip() != first.ip() && self.is_whole) else {
            return Ok(first);
        };
        let gap = first.ip() + 1..=better.ip();
        let is_entered = self.instructions().filter_map(|it| target(&it)).any(|to| gap.contains(&to));
        Ok(if is_entered { first } else { better })
    }

    /// Every instruction that returns, or jumps out of the function.
    pub(crate) fn exits(&self) -> Result<Vec<Instruction>, Unprobeable> {
        if !self.is_whole {
            return Err(Unprobeable::NoExits);
        }
        let mut exits = Vec::new();
        for instruction in self.instructions() {
            if instruction.is_invalid() {
                return Err(Unprobeable::NoExits);
            }
            let leaves = || {
                target(&instruction).is_some_and(|target| !self.ranges().any(|range| range.contains(&target)))
            };
            if code::is_return(&instruction) || instruction.is_jmp_short_or_near() && leaves() {
                exits.push(instruction);
            }
        }
        if exits.len() > MAX_EXITS { Err(Unprobeable::NoExits) } else { Ok(exits) }
    }
}

#[cfg(test)]
impl<'a> Parts<'a> {
    /// A function of this code.
    pub(crate) fn of_code(address: u64, code: &'a [u8]) -> Self {
        Self { parts: vec![(address, code)], is_whole: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(parts: &[(u64, &'a [u8])]) -> Parts<'a> {
        Parts { parts: parts.to_vec(), is_whole: true }
    }

    /// The entry's offset in the function, of C and of Go.
    fn check_entry(code: &[u8], expected: u64, expected_go: u64) {
        let parts = parts(&[(0x1000, code)]);
        let entry = |is_go| parts.entry(is_go, false).expect("an entry").ip() - 0x1000;
        assert_eq!((entry(false), entry(true)), (expected, expected_go), "{code:02x?}");
    }

    const PUSH_RBP: u8 = 0x55;
    const RET: u8 = 0xc3;
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

    #[test]
    fn the_first_instruction_that_is_cheap() {
        check_entry(&[PUSH_RBP, RET], 0, 0);
        // endbr64; push %rbp
        check_entry(&[&ENDBR64[..], &[PUSH_RBP, RET]].concat(), 4, 4);
        // mov %edi,%eax; test %edi,%edi; je +0
        check_entry(&[0x89, 0xf8, 0x85, 0xff, 0x74, 0x00, RET], 4, 4);
        // sub $8,%rsp moves what the probe looks at, so it is where the probe must be.
        check_entry(&[0x48, 0x83, 0xec, 0x08, PUSH_RBP, RET], 0, 0);
        // lea -16(%rsp),%rsp; push %rbp
        check_entry(&[0x48, 0x8d, 0x64, 0x24, 0xf0, PUSH_RBP, RET], 0, 0);
        // mov %edi,%eax; ret: nothing cheap before the end.
        check_entry(&[0x89, 0xf8, RET], 0, 0);
    }

    #[test]
    fn not_where_a_loop_begins() {
        // endbr64; push %rbp; jne back to the push
        check_entry(&[&ENDBR64[..], &[PUSH_RBP, 0x75, 0xfd, RET]].concat(), 0, 0);
        // endbr64; push %rbp; jne back to the function's start, which is another call
        check_entry(&[&ENDBR64[..], &[PUSH_RBP, 0x75, 0xf9, RET]].concat(), 4, 4);
    }

    #[test]
    fn behind_the_stack_check_of_go() {
        // cmp 16(%r14),%rsp; jbe +5; push %rbp; ret; (call morestack); jmp to the start
        let code = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x02, PUSH_RBP, RET, 0xe8, 0, 0, 0, 0, 0xeb, 0xf1];
        check_entry(&code, 4, 6);
        // The same with sub $8,%rsp behind the check: it runs once a call, though it is single-stepped.
        let code =
            [0x49, 0x3b, 0x66, 0x10, 0x76, 0x05, 0x48, 0x83, 0xec, 0x08, RET, 0xe8, 0, 0, 0, 0, 0xeb, 0xee];
        check_entry(&code, 4, 6);
    }

    #[test]
    fn arguments_are_kept() {
        // mov %rsi,%rdi; push %rbp
        let code = [0x48, 0x89, 0xf7, PUSH_RBP, RET];
        let entry = |keep| parts(&[(0, &code)]).entry(false, keep).expect("an entry").ip();
        assert_eq!((entry(false), entry(true)), (3, 0));
    }

    #[test]
    fn exits_are_returns_and_jumps_elsewhere() {
        let check = |code: &[(u64, &[u8])], expected: Result<&[u64], Unprobeable>| {
            let exits = parts(code).exits();
            let exits = exits.map(|exits| exits.iter().map(Instruction::ip).collect::<Vec<_>>());
            assert_eq!(exits, expected.map(<[u64]>::to_vec), "{code:02x?}");
        };
        // je over ret; ret; jmp far away
        check(&[(0, &[0x74, 0x01, RET, RET, 0xe9, 0, 1, 0, 0])], Ok(&[2, 3, 4]));
        // jmp to the cold part, which jumps back
        check(&[(0, &[0xeb, 0x0e, RET]), (0x10, &[0xeb, 0xf0])], Ok(&[2]));
        // jmp *%rax may be a table of the function's own
        check(&[(0, &[0xff, 0xe0])], Ok(&[]));
        // No instruction.
        check(&[(0, &[PUSH_RBP, 0x06])], Err(Unprobeable::NoExits));
    }

    #[test]
    fn what_the_kernel_refuses() {
        let is_refused = |code: &[u8]| {
            let instruction = instructions(code, 0).next().expect("an instruction");
            code::is_refused(&instruction)
        };
        // lock incl (%rdi); vzeroupper; cs nopw; endbr64; mov %fs:0,%rax
        assert!(is_refused(&[0xf0, 0xff, 0x07]) && is_refused(&[0xc5, 0xf8, 0x77]));
        assert!(is_refused(&[0x2e, 0x66, 0x0f, 0x1f, 0x00]));
        assert!(!is_refused(&ENDBR64) && !is_refused(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0]));
    }
}
