//! Rows of hand-assembled call frame information, good and bad.

mod support;

use descry_abi::unwind::{CfaKind, FAR, FpKind, Row};
use descry_unwind::{Error, Limits, Report, Rule, rows};
use support::{CODE, Elf, Table, cfa_expression, saved_at};

/// `sp+16 fp@-2`: offsets of the CFA in bytes, of the frame pointer in words.
fn text(rule: Rule) -> String {
    let bytes = u32::from(rule.cfa_words) * 8;
    let deref = |register| {
        let (offset, addend) = Row::deref_parts(rule.cfa_words);
        format!("*({register}{:+})+{}", offset * 8, addend * 8)
    };
    let cfa = match rule.cfa {
        CfaKind::None => return "none".into(),
        CfaKind::Signal => return "signal".into(),
        CfaKind::End => return "end".into(),
        CfaKind::Complex => return "complex".into(),
        CfaKind::Sp => format!("sp+{bytes}"),
        CfaKind::SpFar => format!("sp+{}", u64::from(bytes) + FAR),
        CfaKind::Fp => format!("fp+{bytes}"),
        CfaKind::Plt => format!("plt {}", rule.cfa_words),
        CfaKind::SpDeref => deref("sp"),
        CfaKind::FpDeref => deref("fp"),
    };
    match rule.fp {
        FpKind::Same => cfa,
        FpKind::AtCfa => format!("{cfa} fp@{}", rule.fp_words),
        FpKind::Undefined => format!("{cfa} fp lost"),
        FpKind::SameReturnInRegister => format!("{cfa} x30"),
        FpKind::AtFp => format!("{cfa} fp@fp{:+}", rule.fp_words),
    }
}

/// Rows as `offset from CODE, rule`, and the report.
fn build(file: &[u8], debug: Option<&[u8]>) -> (Vec<(u64, String)>, Report) {
    let (rows, report) = rows::build(file, debug, &Limits::default()).expect("rows");
    (rows.iter().map(|(at, rule)| (at.0 - CODE, text(rule))).collect(), report)
}

#[track_caller]
fn check(elf: &Elf, expected: &[(u64, &str)]) -> Report {
    let (rows, report) = build(&elf.bytes(), None);
    let expected: Vec<(u64, String)> = expected.iter().map(|(at, rule)| (*at, (*rule).into())).collect();
    assert_eq!(rows, expected);
    assert_eq!(report.rows as usize, expected.len());
    report
}

/// A function of 32 bytes with these instructions.
fn one(instructions: &[u8]) -> Elf {
    let mut table = Table::eh_frame();
    let cie = table.x86_64();
    table.fde(cie, CODE, 32, instructions);
    Elf::x86_64(table)
}

#[test]
fn a_function_with_a_frame_pointer() {
    // push %rbp; mov %rsp,%rbp; ... leave; ret
    let frame = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x5b, 0x0c, 7, 8, 0xc6];
    check(&one(&frame), &[(0, "sp+8"), (1, "sp+16 fp@-2"), (4, "fp+16 fp@-2"), (31, "sp+8"), (32, "none")]);
}

#[test]
fn neighbours_join_and_gaps_stay() {
    let mut table = Table::eh_frame();
    let cie = table.x86_64();
    table.fde(cie, CODE + 0x40, 16, &[]);
    table.fde(cie, CODE, 16, &[]);
    table.fde(cie, CODE + 16, 16, &[]);
    check(&Elf::x86_64(table), &[(0, "sp+8"), (0x20, "none"), (0x40, "sp+8"), (0x50, "none")]);
}

#[test]
fn the_lazy_plt() {
    let plt = |n: u8| cfa_expression(&[0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + n, 0x2a, 0x33, 0x24, 0x22]);
    check(&one(&plt(11)), &[(0, "plt 11"), (32, "none")]);
    check(&one(&plt(10)), &[(0, "plt 10"), (32, "none")]);
    // One operation more, or another constant, is another rule.
    let longer = cfa_expression(&[0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22, 0x96]);
    check(&one(&longer), &[(0, "complex"), (32, "none")]);
    let other = cfa_expression(&[0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x34, 0x24, 0x22]);
    check(&one(&other), &[(0, "complex"), (32, "none")]);
}

/// What glibc writes for `__restore_rt`, shortened to the registers that matter here.
fn restore_rt() -> Vec<u8> {
    [
        cfa_expression(&[0x77, 0xa0, 1, 0x06]),
        saved_at(6, &[0x77, 0xf8, 0]),
        saved_at(7, &[0x77, 0xa0, 1]),
        saved_at(16, &[0x77, 0xa8, 1]),
    ]
    .concat()
}

#[test]
fn signal_trampolines() {
    let mut table = Table::eh_frame();
    let cie = table.signal_frame(16);
    table.fde(cie, CODE, 10, &restore_rt());
    check(&Elf::x86_64(table), &[(0, "signal"), (10, "none")]);
    // The same expressions in a function that is not marked.
    check(&one(&restore_rt()), &[(0, "signal"), (32, "none")]);

    let mut table = Table::eh_frame();
    let cie = table.signal_frame(30);
    table.fde(cie, CODE, 12, &[0x0c, 29, 0]);
    check(&Elf::aarch64(table), &[(0, "signal"), (12, "none")]);
}

#[test]
fn the_trampoline_of_an_aarch64_vdso_has_no_entry() {
    let mut table = Table::eh_frame();
    let cie = table.cie("", 30, &[0x0c, 31, 0]);
    table.fde(cie, CODE, 16, &[]);
    table.fde(cie, CODE + 0x80, 16, &[]);
    let at = |offset| Elf { trampoline: Some(CODE + offset), ..Elf::aarch64(table.clone()) };
    let functions = [(0, "sp+0 x30"), (16, "none"), (0x80, "sp+0 x30"), (0x90, "none")];
    let between = [&functions[..2], &[(0x40, "signal"), (0x4c, "none")], &functions[2..]].concat();
    check(&at(0x44), &between);
    check(&at(0xa4), &[&functions[..], &[(0xa0, "signal"), (0xac, "none")]].concat());
}

#[test]
fn a_marked_frame_that_is_no_rt_sigframe_is_complex() {
    let mut table = Table::eh_frame();
    let cie = table.signal_frame(16);
    table.fde(cie, CODE, 10, &[0x0c, 7, 64, 0x90, 3]);
    check(&Elf::x86_64(table), &[(0, "complex"), (10, "none")]);
}

#[test]
fn the_end_of_the_stack() {
    check(&one(&[0x07, 16]), &[(0, "end"), (32, "none")]);
}

#[test]
fn dereferenced_frames() {
    // OpenSSL's assembler: CFA = *(rsp + 24) + 8.
    check(&one(&cfa_expression(&[0x77, 24, 0x06, 0x23, 8])), &[(0, "*(sp+24)+8"), (32, "none")]);
    check(&one(&cfa_expression(&[0x77, 24, 0x06, 0x38, 0x22])), &[(0, "*(sp+24)+8"), (32, "none")]);
    check(&one(&cfa_expression(&[0x76, 0x78, 0x06])), &[(0, "*(fp-8)+0"), (32, "none")]);
    // Not in words, too far, an addend too large, another register.
    for expression in [
        &[0x77, 25, 0x06][..],
        &[0x77, 0x80, 0x80, 1, 0x06],
        &[0x77, 8, 0x06, 0x23, 0x80, 1],
        &[0x73, 8, 0x06],
    ] {
        check(&one(&cfa_expression(expression)), &[(0, "complex"), (32, "none")]);
    }
}

#[test]
fn a_realigned_stack() {
    // gcc: the CFA in r10, which no row can say, then *(rbp - 8); rbp saved at rbp.
    let instructions =
        [&[0x0c, 10, 0, 0x45][..], &saved_at(6, &[0x76, 0]), &[0x43], &cfa_expression(&[0x76, 0x78, 0x06])]
            .concat();
    let expected = [(0, "complex"), (8, "*(fp-8)+0 fp@fp+0"), (32, "none")];
    let report = check(&one(&instructions), &expected);
    assert_eq!(report.complex_rules, 1);
}

#[test]
fn a_frame_pointer_saved_relative_to_the_register_of_the_cfa() {
    let instructions = [&[0x0c, 6, 16][..], &saved_at(6, &[0x76, 0])].concat();
    check(&one(&instructions), &[(0, "fp+16 fp@-2"), (32, "none")]);
    let instructions = [&[0x0c, 7, 16][..], &saved_at(6, &[0x76, 0x78])].concat();
    check(&one(&instructions), &[(0, "sp+16 fp@fp-1"), (32, "none")]);
    // Not in words, too far, by another register, a value instead of a place.
    for place in [
        saved_at(6, &[0x76, 1]),
        saved_at(6, &[0x76, 0x80, 0x80, 0x20]),
        saved_at(6, &[0x73, 8]),
        vec![0x16, 6, 2, 0x76, 8],
    ] {
        let instructions = [&[0x0c, 7, 16][..], &place].concat();
        check(&one(&instructions), &[(0, "complex"), (32, "none")]);
    }
}

#[test]
fn a_lost_frame_pointer() {
    check(&one(&[0x07, 6]), &[(0, "sp+8 fp lost"), (32, "none")]);
    // In another register, and computed.
    check(&one(&[0x09, 6, 3]), &[(0, "complex"), (32, "none")]);
    check(&one(&[0x16, 6, 1, 0x30]), &[(0, "complex"), (32, "none")]);
}

#[test]
fn large_frames() {
    // DW_CFA_def_cfa_offset with a ULEB128 of 524280, 524288, 540080 and 1048576: the last is more than a row holds.
    let offset = |leb: [u8; 3]| one(&[&[0x0e], &leb[..]].concat());
    check(&offset([0xf8, 0xff, 0x1f]), &[(0, "sp+524280"), (32, "none")]);
    check(&offset([0x80, 0x80, 0x20]), &[(0, "sp+524288"), (32, "none")]);
    check(&offset([0xb0, 0xfb, 0x20]), &[(0, "sp+540080"), (32, "none")]);
    check(&offset([0x80, 0x80, 0x40]), &[(0, "complex"), (32, "none")]);
}

#[test]
fn what_a_row_cannot_hold_is_complex() {
    // CFA in rax; not in words; negative; return address elsewhere; a stack pointer of its own.
    for instructions in [
        &[0x0c, 0, 8][..],
        &[0x0e, 12],
        &[0x13, 1],
        &[0x90, 2],
        &[0x09, 16, 1],
        &[0x09, 7, 8],
        &[0x0e, 0x80, 0x80, 0x40],
    ] {
        check(&one(instructions), &[(0, "complex"), (32, "none")]);
    }
}

#[test]
fn aarch64_keeps_the_return_address_above_the_frame_pointer_or_in_x30() {
    let mut table = Table::eh_frame();
    let cie = table.cie("", 30, &[0x0c, 31, 0]);
    // stp x29, x30, [sp, -32]!; mov x29, sp; ... ldp; ret
    let frame = [0x44, 0x0e, 32, 0x9d, 4, 0x9e, 3, 0x44, 0x0d, 29, 0x50, 0xdd, 0xde, 0x0c, 31, 0];
    table.fde(cie, CODE, 32, &frame);
    // Pointer authentication does not change where things are.
    table.fde(cie, CODE + 32, 8, &[0x2d]);
    // x30 alone, and the two apart.
    table.fde(cie, CODE + 40, 8, &[0x9e, 2]);
    table.fde(cie, CODE + 48, 8, &[0x9d, 4, 0x9e, 1]);
    table.fde(cie, CODE + 56, 8, &[0x07, 30]);
    let expected = [
        (0, "sp+0 x30"),
        (4, "sp+32 fp@-4"),
        (8, "fp+32 fp@-4"),
        (24, "sp+0 x30"),
        (40, "complex"),
        (56, "end"),
        (64, "none"),
    ];
    check(&Elf::aarch64(table), &expected);
}

/// Three functions; the one in the middle is bad.
fn between<T>(bad: impl FnOnce(&mut Table, usize) -> T) -> Elf {
    let mut table = Table::eh_frame();
    let cie = table.x86_64();
    table.fde(cie, CODE, 32, &[]);
    bad(&mut table, cie);
    table.fde(cie, CODE + 0x80, 32, &[]);
    Elf::x86_64(table)
}
const OTHERS: [(u64, &str); 4] = [(0, "sp+8"), (0x20, "none"), (0x80, "sp+8"), (0xa0, "none")];

#[test]
fn a_bad_instruction_costs_its_function() {
    for bad in [&[0x3f][..], &[0x41, 0x0e, 16, 0x0b], &[0x41, 0x1e], &[0x0f, 200, 1], &[0x0a; 9]] {
        let report = check(&between(|table, cie| table.fde(cie, CODE + 0x40, 32, bad)), &OTHERS);
        assert_eq!((report.bad_instructions, report.bad_fdes, report.fdes), (1, 0, 3), "{bad:x?}");
    }
}

#[test]
fn a_bad_cie_costs_its_functions() {
    for augmentation in ["?", "zQ"] {
        let elf = between(|table, _| {
            let bad = table.cie(augmentation, 16, &[]);
            table.fde(bad, CODE + 0x40, 16, &[]);
            table.fde(bad, CODE + 0x50, 16, &[]);
        });
        let report = check(&elf, &OTHERS);
        assert_eq!((report.bad_cies, report.bad_fdes), (1, 2), "{augmentation}");
    }
    // One that would be run again for every function.
    let elf = between(|table, _| {
        let bad = table.cie("", 16, &[0; 2000]);
        table.fde(bad, CODE + 0x40, 16, &[]);
    });
    assert_eq!(check(&elf, &OTHERS).bad_cies, 1);
}

#[test]
fn a_bad_fde_costs_itself() {
    // No CIE at all; a CIE beyond the section; a range that wraps; nothing but an id.
    let report = check(&between(|table, cie| table.fde(cie + 4, CODE + 0x40, 16, &[])), &OTHERS);
    assert_eq!(report.bad_fdes, 1);
    let report = check(&between(|table, _| table.fde(1 << 20, CODE + 0x40, 16, &[])), &OTHERS);
    assert_eq!(report.bad_fdes, 1);
    let report = check(&between(|table, cie| table.fde(cie, CODE, u64::MAX, &[])), &OTHERS);
    assert_eq!(report.bad_fdes, 1);
    let report = check(&between(|table, _| table.bytes.extend([4, 0, 0, 0, 9, 0, 0, 0])), &OTHERS);
    assert_eq!(report.bad_fdes, 1);
}

#[test]
fn functions_of_removed_code_are_left_out() {
    let report = check(&between(|table, cie| table.fde(cie, 0, 16, &[])), &OTHERS);
    assert_eq!(report.outside_code, 1);
    // Folded to nothing.
    check(&between(|table, cie| table.fde(cie, CODE + 0x40, 0, &[])), &OTHERS);
}

#[test]
fn a_wrong_length_is_stepped_over_with_the_search_table() {
    let bad = |table: &mut Table, cie: usize| {
        let at = table.fde(cie, CODE + 0x40, 16, &[]);
        table.bytes[at..at + 4].copy_from_slice(&0x00ff_ffffu32.to_le_bytes());
    };
    let elf = between(bad);
    let report = check(&elf, &OTHERS[..2]);
    assert_eq!(report.bad_lengths, 1);
    let report = check(&Elf { header: true, ..elf }, &OTHERS);
    assert_eq!(report.bad_lengths, 1);
}

#[test]
fn a_truncated_section_keeps_what_is_whole() {
    let elf = between(|_, _| {});
    let whole = elf.eh_frame.clone().expect("a table").bytes.len();
    for len in 0..whole {
        let mut elf = elf.clone();
        elf.eh_frame.as_mut().expect("a table").bytes.truncate(len);
        match rows::build(&elf.bytes(), None, &Limits::default()) {
            Ok((rows, report)) => {
                assert!(rows.len() <= 2);
                assert!(len <= 20 || report.bad_lengths + report.bad_fdes + report.fdes > 0);
            }
            Err(error) => assert!(matches!(error, Error::NoCallFrameInformation), "{error}"),
        }
    }
}

#[test]
fn where_functions_overlap_the_later_start_wins() {
    let mut table = Table::eh_frame();
    let cie = table.x86_64();
    table.fde(cie, CODE, 0x40, &[0x0e, 16]);
    table.fde(cie, CODE + 0x10, 0x10, &[0x0e, 24]);
    table.fde(cie, CODE + 0x18, 0x20, &[0x0e, 32]);
    let expected = [(0, "sp+16"), (0x10, "sp+24"), (0x18, "sp+32"), (0x38, "none")];
    assert_eq!(check(&Elf::x86_64(table), &expected).overlapping, 2);
}

#[test]
fn terminators_inside_the_section_do_not_end_it() {
    check(&between(|table, _| table.bytes.extend([0; 4])), &OTHERS);
}

#[test]
fn debug_frame_fills_what_eh_frame_leaves() {
    let mut debug = Table::debug_frame();
    let cie = debug.x86_64();
    debug.fde(cie, CODE + 0x10, 8, &[0x0e, 64]);
    debug.fde(cie, CODE + 0x40, 16, &[0x0e, 24]);
    let elf = Elf { debug_frame: Some(debug.clone()), ..between(|_, _| {}) };
    let expected =
        [(0, "sp+8"), (0x20, "none"), (0x40, "sp+24"), (0x50, "none"), (0x80, "sp+8"), (0xa0, "none")];
    let report = check(&elf, &expected);
    assert_eq!((report.fdes, report.duplicates), (4, 1));

    // The same from a debug file; one of another machine is left out.
    let mut file = Elf { machine: support::X86_64, debug_frame: Some(debug), ..Elf::default() };
    let main = between(|_, _| {}).bytes();
    let (rows, report) = build(&main, Some(&file.bytes()));
    assert_eq!((rows.len(), report.duplicates, report.bad_debug_files), (6, 1, 0));
    file.machine = support::AARCH64;
    let (rows, report) = build(&main, Some(&file.bytes()));
    assert_eq!((rows.len(), report.bad_debug_files), (4, 1));
    assert_eq!(build(&main, Some(b"no ELF")).1.bad_debug_files, 1);
}

#[test]
fn debug_frame_may_be_compressed() {
    // Made by gcc -gz -fno-asynchronous-unwind-tables: three functions, 40 bytes and more each.
    let file = include_bytes!("../../../tests/fuzz/corpus/rows/compressed_debug_frame");
    let (rows, report) = rows::build(file, None, &Limits::default()).expect("rows");
    assert_eq!((report.fdes, report.bad_sections), (3, 0));
    assert!(rows.len() > 6);
    let small = Limits { section_bytes: 100, ..Limits::default() };
    assert!(matches!(rows::build(file, None, &small), Err(Error::NoCallFrameInformation)));
}

#[test]
fn without_section_headers_the_program_header_leads_to_the_table() {
    let mut elf = Elf { header: true, stripped: true, ..between(|_, _| {}) };
    elf.eh_frame.as_mut().expect("a table").bytes.extend([0; 4]);
    check(&elf, &OTHERS);
}

#[test]
fn limits_hold() {
    let elf = between(|table, cie| table.fde(cie, CODE + 0x40, 32, &[0x41, 0x0e, 16])).bytes();
    let build = |limits| rows::build(&elf, None, &limits).expect("rows");
    let (rows, report) = build(Limits { fdes: 2, ..Limits::default() });
    assert_eq!((rows.len(), report.over_limit), (5, 1));
    let (rows, report) = build(Limits { rows: 5, ..Limits::default() });
    assert_eq!((rows.len(), report.over_limit), (5, 1));
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let error = |file: &[u8]| rows::build(file, None, &Limits::default()).expect_err("an error").to_string();
    assert!(error(b"").contains("not a readable 64-bit ELF file"));
    assert!(error(&Elf { machine: 243, ..one(&[]) }.bytes()).contains("Riscv64 (little-endian)"));
    assert!(error(&Elf { machine: support::X86_64, ..Elf::default() }.bytes()).contains("no .eh_frame"));
}
