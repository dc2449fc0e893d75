//! Rows and the userspace walk agree: one step from every row of real files, by the row as the kernel side does it
//! and by the walk with all of DWARF, ends in the same place.
#![cfg(target_arch = "x86_64")]

#[expect(dead_code, reason = "other tests use the rest")]
mod files;

use descry_abi::event::UnwindEnd;
use descry_abi::unwind::{CfaKind, FAR, FpKind, Row};
use descry_decode::ids::RuntimeAddress;
use descry_unwind::cfi::Cfi;
use descry_unwind::walk::{Code, CodeSource, Stack, Walker};
use descry_unwind::{Limits, Rule, rows};
use std::path::Path;
use std::sync::Arc;

/// Above all addresses of the files.
const SP: u64 = 0x7fff_0000_0000;
const FP: u64 = SP + 0x8000;
const FP_REGISTER: usize = 6;

/// Every word of memory holds its own address, so that what was read tells from where.
struct Process(Arc<Cfi>);

impl CodeSource for Process {
    fn code(&mut self, address: RuntimeAddress) -> Code {
        // A frame that was found by its return address: its frame pointer is told by one step more.
        if address.0 >= SP { Code::FramePointer } else { Code::Cfi { cfi: self.0.clone(), bias: 0 } }
    }

    fn read(&mut self, address: RuntimeAddress, bytes: &mut [u8]) -> bool {
        bytes.copy_from_slice(&address.0.to_le_bytes()[..bytes.len()]);
        true
    }
}

/// The first frames that a rule leads to, as the kernel side follows it: the interrupted one, its caller, and the one
/// that the caller's frame pointer tells of.
fn by_rule(rule: Rule, pc: u64) -> Option<Vec<u64>> {
    let words = u64::from(rule.cfa_words);
    let deref = |register: u64| {
        let (offset, addend) = Row::deref_parts(rule.cfa_words);
        register.wrapping_add_signed(offset * 8) + addend * 8
    };
    let cfa = match rule.cfa {
        CfaKind::Sp => SP + words * 8,
        CfaKind::SpFar => SP + FAR + words * 8,
        CfaKind::Fp => FP + words * 8,
        CfaKind::Plt => SP + 8 + 8 * u64::from(pc & 15 >= words),
        CfaKind::SpDeref => deref(SP),
        CfaKind::FpDeref => deref(FP),
        CfaKind::End => return Some(vec![pc]),
        CfaKind::None | CfaKind::Signal | CfaKind::Complex => return None,
    };
    let fp = match rule.fp {
        FpKind::Same => FP,
        FpKind::AtCfa => cfa.wrapping_add_signed(i64::from(rule.fp_words) * 8),
        FpKind::AtFp => FP.wrapping_add_signed(i64::from(rule.fp_words) * 8),
        FpKind::Undefined | FpKind::SameReturnInRegister => return None,
    };
    // A step down the stack is refused by both.
    (cfa > SP).then(|| if fp >= cfa { vec![pc, cfa - 8, fp + 8] } else { vec![pc, cfa - 8] })
}

/// Gives the number of steps compared, by kind of rule.
fn compare(file: &Path) -> [usize; 10] {
    let bytes = std::fs::read(file).expect("a readable file");
    let (rows, _) = rows::build(&bytes, None, &Limits::default()).expect("rows");
    let (cfi, _) = Cfi::new(Arc::new(bytes), None, &Limits::default()).expect("tables");
    let mut process = Process(Arc::new(cfi));
    let mut walker = Walker::new();
    let mut counts = [0; 10];
    for (start, rule) in rows.iter() {
        // The two halves of an entry of the lazy PLT.
        let halves = if rule.cfa == CfaKind::Plt { &[0, 10, 11][..] } else { &[0] };
        for pc in halves.iter().map(|offset| start.0 + offset) {
            let Some(expected) = by_rule(rule, pc) else { continue };
            let mut registers = [0; 17];
            registers[7] = SP;
            registers[FP_REGISTER] = FP;
            registers[16] = pc;
            let stack = Stack { start: RuntimeAddress(0), bytes: &[] };
            let walk = walker.walk(&registers, stack, &mut process, expected.len());
            let found: Vec<u64> = walk.frames.iter().map(|frame| frame.0).collect();
            assert_eq!(found, expected, "{}: at {pc:#x} by {rule:?}", file.display());
            if expected.len() == 1 {
                assert_eq!(walk.end, UnwindEnd::Root);
            }
            counts[rule.cfa as usize] += 1;
        }
    }
    counts
}

#[test]
fn libc() {
    let counts = compare(&files::libc());
    assert!(counts[CfaKind::Sp as usize] > 10_000);
    assert!(counts[CfaKind::Fp as usize] > 100 && counts[CfaKind::End as usize] > 0);
}

#[test]
fn libcrypto() {
    let counts = compare(&files::libcrypto());
    // Its assembler keeps the CFA in memory.
    assert!(counts[CfaKind::SpDeref as usize] > 10 && counts[CfaKind::Plt as usize] > 0);
}
