//! Walks up stacks that were made by hand.

mod support;

use descry_abi::event::UnwindEnd;
use descry_decode::ids::RuntimeAddress;
use descry_unwind::Limits;
use descry_unwind::cfi::Cfi;
use descry_unwind::walk::{Code, CodeSource, Stack, Walker};
use std::sync::Arc;
use support::{CODE, CODE_LEN, Elf, Table, cfa_expression, saved_at};

const BIAS: u64 = 0x5500_0000_0000;
const STACK: u64 = 0x7fff_0000_1000;
/// Code without tables.
const JIT: u64 = 0x1_0000_0000;

/// A process with one file at [`BIAS`] and 4 KiB of other code at [`JIT`].
struct Process {
    cfi: Arc<Cfi>,
    /// A word outside of the stack copy.
    elsewhere: Option<(u64, u64)>,
}

impl CodeSource for Process {
    fn code(&mut self, address: RuntimeAddress) -> Code {
        match address.0 {
            JIT..0x1_0000_1000 => Code::FramePointer,
            at if (CODE..CODE + CODE_LEN).contains(&at.wrapping_sub(BIAS)) => {
                Code::Cfi { cfi: self.cfi.clone(), bias: BIAS }
            }
            _ => Code::Unmapped,
        }
    }

    fn read(&mut self, address: RuntimeAddress, bytes: &mut [u8]) -> bool {
        match self.elsewhere {
            Some((at, word)) if at == address.0 => {
                bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
                true
            }
            _ => false,
        }
    }
}

impl Process {
    fn new(elf: &Elf) -> Self {
        let file = Arc::new(elf.bytes());
        let (cfi, _) = Cfi::new(file, None, &Limits::default()).expect("tables");
        Self { cfi: Arc::new(cfi), elsewhere: None }
    }
}

/// Registers of the leaf: (DWARF number, value).
fn registers<const N: usize>(values: &[(usize, u64)]) -> [u64; N] {
    let mut registers = [0; N];
    for (number, value) in values {
        registers[*number] = *value;
    }
    registers
}

fn x86_64(pc: u64, sp: u64, fp: u64) -> [u64; 17] {
    registers(&[(16, pc), (7, sp), (6, fp)])
}

/// Code of the file, by offset.
fn code(offset: u64) -> u64 {
    BIAS + CODE + offset
}

#[track_caller]
fn check(process: &mut Process, registers: &[u64], words: &[u64], frames: &[u64], end: UnwindEnd) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let stack = Stack { start: RuntimeAddress(STACK), bytes: &bytes };
    let walk = Walker::new().walk(registers, stack, process, 64);
    let found: Vec<u64> = walk.frames.iter().map(|frame| frame.0).collect();
    assert_eq!((found, walk.end), (frames.to_vec(), end));
}

/// Functions of x86_64, 0x100 bytes each: 0 with a frame of 16 bytes; 1 keeps rbx at CFA-16 and rbp at CFA-24;
/// 2 finds its CFA by rbx + 16; 3 is the outermost; 4 the signal trampoline; 5 has a realigned stack; 6 is broken;
/// 7 is an unwinder of exceptions, with rax, rdx and rbp saved below CFA = rbp + 16; 9 its last instruction, with the
/// return address in rcx.
fn functions(header: bool) -> Elf {
    let mut table = Table::eh_frame();
    let cie = table.x86_64();
    let mut function = |n: u64, instructions: &[u8]| table.fde(cie, CODE + n * 0x100, 0x100, instructions);
    function(0, &[0x0e, 16]);
    function(1, &[0x0e, 32, 0x83, 2, 0x86, 3]);
    function(2, &[0x0c, 3, 16]);
    function(3, &[0x07, 16]);
    function(5, &[&cfa_expression(&[0x76, 0x78, 0x06])[..], &saved_at(6, &[0x76, 0])].concat());
    function(6, &[0x3f]);
    function(7, &[0x0c, 6, 16, 0x80, 9, 0x81, 8, 0x86, 2]);
    function(9, &[0x0c, 7, 0, 0x09, 16, 2]);
    let signal = table.signal_frame(16);
    // rbx, rbp, rsp and rip of the `ucontext` at rsp.
    let context = [
        cfa_expression(&[0x77, 0xa0, 1, 0x06]),
        saved_at(3, &[0x77, 0x80, 1]),
        saved_at(6, &[0x77, 0xf8, 0]),
        saved_at(7, &[0x77, 0xa0, 1]),
        saved_at(16, &[0x77, 0xa8, 1]),
    ];
    // One byte early: the kernel returns to its first instruction, and return addresses are looked up minus one.
    table.fde(signal, CODE + 0x400 - 1, 0x80, &context.concat());
    Elf { header, ..Elf::x86_64(table) }
}

#[test]
fn calls_up_to_the_root() {
    for header in [false, true] {
        let mut process = Process::new(&functions(header));
        let leaf = x86_64(code(0x10), STACK, 0);
        let words = [1, code(0x20), 2, code(0x330)];
        check(&mut process, &leaf, &words, &[code(0x10), code(0x20), code(0x330)], UnwindEnd::Root);
    }
}

#[test]
fn debug_frame_serves_as_well() {
    let mut table = Table::debug_frame();
    let cie = table.x86_64();
    table.fde(cie, CODE + 0x800, 0x100, &[0x0e, 24]);
    let elf = Elf { debug_frame: Some(table), ..functions(true) };
    let leaf = x86_64(code(0x810), STACK, 0);
    let words = [1, 2, code(0x310)];
    check(&mut Process::new(&elf), &leaf, &words, &[code(0x810), code(0x310)], UnwindEnd::Root);
}

#[test]
fn a_return_address_belongs_to_the_instruction_before() {
    // Returns to the first byte after function 0: that is still function 0.
    let leaf = x86_64(code(0x10), STACK, 0);
    let words = [1, code(0x100), 2, code(0x330)];
    check(
        &mut Process::new(&functions(true)),
        &leaf,
        &words,
        &[code(0x10), code(0x100), code(0x330)],
        UnwindEnd::Root,
    );
}

#[test]
fn registers_that_callees_saved_come_back() {
    // Function 1 saved rbx and rbp; function 2 needs rbx for its CFA.
    let mut words = [0; 12];
    words[1] = 0x1234; // rbp at CFA - 24
    words[2] = STACK + 8 * 8; // rbx at CFA - 16
    words[3] = code(0x210);
    words[9] = code(0x320); // CFA of function 2 is rbx + 16
    let leaf = x86_64(code(0x120), STACK, 7);
    check(
        &mut Process::new(&functions(true)),
        &leaf,
        &words,
        &[code(0x120), code(0x210), code(0x320)],
        UnwindEnd::Root,
    );
}

#[test]
fn a_realigned_stack_is_followed() {
    // rbp points at the saved rbp; the word below it is the CFA.
    let rbp = STACK + 4 * 8;
    let mut words = [0; 12];
    words[3] = STACK + 10 * 8;
    words[4] = 0;
    words[9] = code(0x310);
    let leaf = x86_64(code(0x510), STACK, rbp);
    check(&mut Process::new(&functions(true)), &leaf, &words, &[code(0x510), code(0x310)], UnwindEnd::Root);
}

#[test]
fn a_signal_frame_gives_back_the_interrupted_registers() {
    // The handler (function 0) returns to the trampoline; the interrupted function 2 needs its rbx.
    let frame = 2;
    let mut words = [0; 40];
    words[1] = code(0x400);
    words[frame + 16] = STACK + 32 * 8; // rbx at 128
    words[frame + 20] = STACK + 30 * 8; // rsp at 160
    words[frame + 21] = code(0x200); // rip at 168: the first instruction of function 2
    words[33] = code(0x320);
    let leaf = x86_64(code(0x10), STACK, 0);
    let frames = [code(0x10), code(0x400), code(0x200) + 1, code(0x320)];
    check(&mut Process::new(&functions(true)), &leaf, &words, &frames, UnwindEnd::Root);
}

#[test]
fn code_without_tables_is_followed_by_frame_pointers() {
    let mut words = [0; 8];
    words[2] = STACK + 5 * 8;
    words[3] = JIT + 0x20;
    words[5] = 0; // the last frame of the chain
    words[6] = code(0x330);
    let leaf = x86_64(JIT + 0x10, STACK, STACK + 16);
    let frames = [JIT + 0x10, JIT + 0x20, code(0x330)];
    check(&mut Process::new(&functions(true)), &leaf, &words, &frames, UnwindEnd::Root);
    // The same where a file has no entry, or a broken one.
    for pc in [code(0x710), code(0x610)] {
        let leaf = x86_64(pc, STACK, STACK + 16);
        let frames = [pc, JIT + 0x20, code(0x330)];
        check(&mut Process::new(&functions(true)), &leaf, &words, &frames, UnwindEnd::Root);
    }
    let leaf = x86_64(JIT + 0x10, STACK, 0);
    check(&mut Process::new(&functions(true)), &leaf, &words, &[JIT + 0x10], UnwindEnd::Root);
}

#[test]
fn an_unwinder_that_wrote_into_its_frame_is_left_for_the_frame_of_the_landing_pad() {
    let mut process = Process::new(&functions(true));
    let leaf = x86_64(code(0x710), STACK - 0x80, STACK);
    let returned = code(0x120);
    let stack = |given_up| [0, returned, 0, given_up, 0, 5, 0, code(0x330)];
    let frames = [code(0x710), returned, code(0x330)];
    check(&mut process, &leaf, &stack(returned), &frames, UnwindEnd::Root);
    // Without another such place, or where the way from there leads nowhere, the first walk stays.
    let frames = [code(0x710), returned, 5];
    check(&mut process, &leaf, &stack(0), &frames, UnwindEnd::NoMapping);
    let nowhere = [0, returned, 0, returned, 0, 5, 0, 7];
    check(&mut process, &leaf, &nowhere, &frames, UnwindEnd::NoMapping);
    // Its frame as the tables have it.
    let words = [0, code(0x20), 2, code(0x330), code(0x20), 4, code(0x340)];
    check(&mut process, &leaf, &words, &[code(0x710), code(0x20), code(0x330)], UnwindEnd::Root);
}

#[test]
fn the_last_instruction_of_an_unwinder_has_the_return_address_in_a_register() {
    let mut process = Process::new(&functions(true));
    // It jumps to the first instruction of a landing pad: written plus one, as after a signal.
    let leaf = registers::<17>(&[(16, code(0x910)), (7, STACK), (2, code(0))]);
    check(&mut process, &leaf, &[1, code(0x330)], &[code(0x910), code(1), code(0x330)], UnwindEnd::Root);
}

#[test]
fn a_walk_ends_where_it_cannot_go_on() {
    let process = &mut Process::new(&functions(true));
    let leaf = |pc| x86_64(pc, STACK, STACK - 16);
    check(process, &leaf(0x10), &[], &[0x10], UnwindEnd::NoMapping);
    check(process, &leaf(code(0x10)), &[1], &[code(0x10)], UnwindEnd::ReadFailed);
    check(process, &leaf(code(0x10)), &[1, 0], &[code(0x10)], UnwindEnd::Root);
    check(process, &leaf(code(0x10)), &[1, 0x99], &[code(0x10), 0x99], UnwindEnd::NoMapping);
    // The frame pointer leads down; the CFA does.
    check(process, &leaf(JIT), &[1, 2], &[JIT], UnwindEnd::NoProgress);
    let mut down = leaf(code(0x210));
    down[3] = STACK - 16;
    process.elsewhere = Some((STACK - 8, code(0x10)));
    check(process, &down, &[], &[code(0x210)], UnwindEnd::NoProgress);
    check(process, &[0; 5], &[], &[], UnwindEnd::NoRegisters);
    // Registers of the other architecture.
    let leaf: [u64; 33] = registers(&[(32, code(0x10)), (31, STACK)]);
    check(process, &leaf, &[1, 2], &[code(0x10)], UnwindEnd::ComplexRule);
}

#[test]
fn a_walk_ends_at_its_limit() {
    let words: Vec<u64> = (0..400).flat_map(|_| [0, code(0x20)]).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let stack = Stack { start: RuntimeAddress(STACK), bytes: &bytes };
    let leaf = x86_64(code(0x10), STACK, 0);
    let mut process = Process::new(&functions(true));
    let walk = Walker::new().walk(&leaf, stack, &mut process, 64);
    assert_eq!((walk.frames.len(), walk.end), (64, UnwindEnd::TooDeep));
}

#[test]
fn memory_outside_of_the_copy_is_asked_for() {
    let mut process = Process::new(&functions(true));
    process.elsewhere = Some((STACK + 8, code(0x310)));
    let leaf = x86_64(code(0x10), STACK, 0);
    check(&mut process, &leaf, &[1], &[code(0x10), code(0x310)], UnwindEnd::Root);
}

#[test]
fn an_endless_expression_ends() {
    let mut table = Table::eh_frame();
    let cie = table.x86_64();
    table.fde(cie, CODE, 0x100, &cfa_expression(&[0x2f, 0xfd, 0xff]));
    let leaf = x86_64(code(0x10), STACK, 0);
    check(&mut Process::new(&Elf::x86_64(table)), &leaf, &[1], &[code(0x10)], UnwindEnd::ComplexRule);
}

/// aarch64: 0 is a leaf without a frame; 1 keeps x29 and x30 in a frame of 32 bytes; 2 is the outermost; at 0x300
/// lies the trampoline of a vdso, which has no entry.
fn aarch64() -> Elf {
    let mut table = Table::eh_frame();
    let cie = table.cie("", 30, &[0x0c, 31, 0]);
    table.fde(cie, CODE, 0x100, &[]);
    table.fde(cie, CODE + 0x100, 0x100, &[0x0e, 32, 0x9d, 4, 0x9e, 3]);
    table.fde(cie, CODE + 0x200, 0x100, &[0x07, 30]);
    Elf { trampoline: Some(CODE + 0x304), ..Elf::aarch64(table) }
}

#[test]
fn aarch64_leaves_keep_the_return_address_in_x30() {
    // Both return addresses carry a pointer authentication code.
    let code_in_pointer = 0x00aa << 48;
    let leaf: [u64; 33] =
        registers(&[(32, code(0x10)), (31, STACK), (29, 5), (30, code(0x120) | code_in_pointer)]);
    let words = [0, code(0x220) | code_in_pointer, 0, 0];
    let frames = [code(0x10), code(0x120), code(0x220)];
    check(&mut Process::new(&aarch64()), &leaf, &words, &frames, UnwindEnd::Root);
    // A frame that claims to have none cannot be a caller.
    let leaf: [u64; 33] = registers(&[(32, code(0x10)), (31, STACK), (30, code(0x20))]);
    check(&mut Process::new(&aarch64()), &leaf, &[], &[code(0x10), code(0x20)], UnwindEnd::NoProgress);
}

#[test]
fn aarch64_signals_are_followed_without_an_entry() {
    let mut words = vec![0; 80];
    let x0 = (128 + 176 + 8) / 8;
    words[x0 + 29] = 0;
    words[x0 + 30] = code(0x210);
    words[x0 + 31] = STACK + 79 * 8;
    words[x0 + 32] = code(0);
    // The handler is a leaf that returns to the trampoline.
    let leaf: [u64; 33] = registers(&[(32, code(0x10)), (31, STACK), (30, code(0x304))]);
    let frames = [code(0x10), code(0x304), code(0) + 1, code(0x210)];
    check(&mut Process::new(&aarch64()), &leaf, &words, &frames, UnwindEnd::Root);
}
